//! The heartbeat that ends a round: the main thread says what is in it, the senders
//! bring it to the peers and take note of the answers.

use claw_core::membership::{Membership, PROTOCOL, Statement};
use claw_core::replica::ReplicaId;
use claw_sync::{Identity, Round, Value};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the main thread and the senders tell each other.
#[derive(Debug, Default)]
pub(super) struct Heartbeat(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    /// How many masters this region has.
    masters: u16,
    /// This is one of them. Else it has nothing to say: peers send a master without slots nothing,
    /// so that it hears nobody, and it has no bucket that could be missed.
    is_one: bool,
    /// The fingerprint of the rules here.
    rules: u64,
    /// Whom this region hears.
    hears: Vec<ReplicaId>,
    statement: Statement,
    /// The number of the statement that each peer was sent last, by its index; `None` with
    /// an opening, which says nothing yet.
    sent: Vec<Option<u64>>,
    /// What has been answered since the main thread looked: by which process of which
    /// region, and the number of the statement. Of each process the latest.
    answered: Vec<(ReplicaId, Vec<u8>, u64)>,
}

impl Default for Inner {
    fn default() -> Self {
        let statement = Statement::default();
        Self {
            masters: 1,
            is_one: true,
            rules: 0,
            hears: Vec::new(),
            statement,
            sent: Vec::new(),
            answered: Vec::new(),
        }
    }
}

impl Heartbeat {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many masters this region has, and whether this is one of them.
    pub(super) fn set_masters(&self, masters: u16, is_one: bool) {
        let mut inner = self.lock();
        (inner.masters, inner.is_one) = (masters, is_one);
    }

    pub(super) fn rules(&self) -> u64 {
        self.lock().rules
    }

    pub(super) fn set_rules(&self, fingerprint: u64) {
        self.lock().rules = fingerprint;
    }

    /// On the main thread: tells `peers` what has been answered, and the senders what to
    /// say from now on.
    pub(super) fn exchange(&self, peers: &mut Membership) {
        let mut inner = self.lock();
        for (id, run, number) in inner.answered.drain(..) {
            peers.acknowledged(id, &run, number);
        }
        inner.statement = peers.statement();
        if !peers.heard_now().eq(inner.hears.iter().copied()) {
            inner.hears = peers.heard_now().collect();
        }
    }

    /// The command that ends a round of the process `run` of `id`, on whose clock it is
    /// `sent` now.
    pub(super) fn words(&self, id: ReplicaId, run: u64, sent: u128, round: &Round) -> Vec<Vec<u8>> {
        let mut inner = self.lock();
        if inner.sent.len() <= round.peer {
            inner.sent.resize(round.peer.saturating_add(1), None);
        }
        let opening = round.opening || !inner.is_one;
        let number = Some(inner.statement.number).filter(|_| !opening);
        if let Some(last) = inner.sent.get_mut(round.peer) {
            *last = number;
        }
        let version = PROTOCOL.to_string();
        let (run, sent, masters) =
            (format!("{run:x}"), sent.to_string(), inner.masters.to_string());
        let mut words = vec!["CL.SYNC", "ROUND", &version, id.as_str(), &run, &sent, &masters];
        if opening {
            words.push("OPENING");
        } else if round.refused {
            words.push("REFUSED");
        } else if !round.complete {
            words.push("PARTIAL");
        }
        let rates =
            inner.statement.rates.map(|of| [of.before, of.now].map(|rate| rate.to_string()));
        if let Some([before, now]) = &rates {
            words.extend(["RATES", before, now]);
        }
        if inner.statement.settled {
            words.push("SETTLED");
        }
        let rules = format!("{:016x}", inner.rules);
        words.extend(["RULES", &rules, "HEARS"]);
        words.extend(inner.hears.iter().map(ReplicaId::as_str));
        words.into_iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    /// A peer, by its index, has answered what it was sent last.
    pub(super) fn answered(&self, peer: usize, reply: &Value) -> Identity {
        let text = |value: Option<&Value>| match value {
            Some(Value::BulkString(bytes)) if !bytes.is_empty() => Some(bytes.clone()),
            _ => None,
        };
        let Value::Array(reply) = reply else {
            return Identity::default();
        };
        let (name, run) = (text(reply.first()), text(reply.get(1)));
        let mut inner = self.lock();
        if let (Some(id), Some(run), Some(Some(number))) = (
            name.as_deref().and_then(|name| ReplicaId::new(name).ok()),
            &run,
            inner.sent.get(peer).copied(),
        ) {
            inner.answered.retain(|(other, of, _)| (*other, of) != (id, run));
            inner.answered.push((id, run.clone(), number));
        }
        Identity { replica: name.and_then(|name| String::from_utf8(name).ok()), run }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use claw_core::membership::{self, Instants, PartitionPolicy, Progress};

    fn round(opening: bool, complete: bool) -> Round {
        Round { peer: 2, complete, opening, refused: false }
    }

    fn reply(name: &str, run: &str) -> Value {
        Value::Array([name, run].map(|word| Value::BulkString(word.into())).to_vec())
    }

    #[test]
    fn what_is_said_and_answered() {
        let heartbeat = Heartbeat::default();
        heartbeat.set_rules(0xab);
        let me = ReplicaId::new(b"me").unwrap();
        let other = ReplicaId::new(b"other").unwrap();
        let words = |opening, complete| {
            let words = heartbeat.words(me, 0xab, 7, &round(opening, complete));
            String::from_utf8(words.join(&b' ')).unwrap()
        };
        assert_eq!(
            words(true, false),
            "CL.SYNC ROUND 3 me ab 7 1 OPENING RULES 00000000000000ab HEARS"
        );
        let start = Instants::default();
        let mut peers = Membership::new(PartitionPolicy::Share, 2, u64::MAX, start);
        let said = membership::Round {
            id: other,
            run: b"cd",
            sent: 0,
            masters: 1,
            progress: Progress::Complete,
            rates: None,
            settled: false,
            hears: None,
        };
        assert!(peers.heard(&said, start));
        peers.tick(Some(0), start);
        let tick = |peers: &mut Membership, spent: u64, second: u64| {
            peers.tick(Some(spent), Instants { wall: 0, steady: second * 1_000_000 });
            heartbeat.exchange(peers);
            words(false, true)
        };
        assert_eq!(
            tick(&mut peers, 5, 1),
            "CL.SYNC ROUND 3 me ab 7 1 RATES 5000 5000 RULES 00000000000000ab HEARS other"
        );
        // An opening has said nothing that could be answered.
        assert_eq!(
            words(true, false),
            "CL.SYNC ROUND 3 me ab 7 1 OPENING RATES 5000 5000 RULES 00000000000000ab HEARS other"
        );
        assert_eq!(heartbeat.answered(2, &reply("other", "cd")).run.as_deref(), Some(&b"cd"[..]));
        heartbeat.exchange(&mut peers);
        assert_eq!(
            tick(&mut peers, 10, 2),
            "CL.SYNC ROUND 3 me ab 7 1 RATES 5000 5000 RULES 00000000000000ab HEARS other"
        );
        words(false, false);
        heartbeat.answered(2, &reply("other", "cd"));
        heartbeat.exchange(&mut peers);
        heartbeat.set_masters(3, true);
        assert_eq!(
            tick(&mut peers, 21, 3),
            "CL.SYNC ROUND 3 me ab 7 3 RATES 5000 7000 RULES 00000000000000ab HEARS other"
        );
        // One that has no slots of its own never says more than an opening does.
        heartbeat.set_masters(3, false);
        assert_eq!(
            words(false, true),
            "CL.SYNC ROUND 3 me ab 7 3 OPENING RATES 5000 7000 RULES 00000000000000ab HEARS other"
        );
        // A peer without a name is nobody.
        assert_eq!(heartbeat.answered(2, &reply("", "cd")).replica, None);
        assert_eq!(heartbeat.answered(2, &Value::Okay), Identity::default());
    }
}
