//! One region's server: what the module does around the pure crate.

use claw_core::codec;
use claw_core::debit::{Region, Remote, SharedBucket, Terms};
use claw_core::defaults::Defaults;
use claw_core::limits::MICRO;
use claw_core::membership::{Instants, Membership, PartitionPolicy, Round, Statement};
use claw_core::merge::{Join, State};
use claw_core::policy::{Asked, Policy, StoredPolicy};
use claw_core::record::{Expiry, Field, OpenBucket, Record};
use claw_core::replica::{ReplicaId, Writer};
use std::collections::BTreeMap;

/// Which key.
pub type Name = u8;

/// How regions agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Debit counters.
    Debit,
    /// A strategy that knows states only.
    States(Join),
}

/// What a server is told when it starts.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// How many regions there are.
    pub regions: usize,
    /// The default policy.
    pub policy: Policy,
    /// How they agree.
    pub method: Method,
    /// What they do when they do not hear each other.
    pub guard: PartitionPolicy,
    /// When that is so, in microseconds.
    pub timeout_us: u64,
}

/// A key and when it expires.
#[derive(Debug, Clone)]
struct Slot {
    record: Record,
    /// Unix milliseconds.
    expires: Option<u64>,
}

/// The state of one bucket as it is sent.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The bucket when it was sent.
    bucket: Held,
    stored: Option<StoredPolicy>,
}

#[derive(Debug, Clone)]
enum Held {
    Counted(Box<SharedBucket>),
    Written(State),
}

/// One region's server.
#[derive(Debug)]
pub struct Server {
    config: Config,
    id: ReplicaId,
    defaults: Defaults,
    region: Region,
    keys: BTreeMap<Name, Slot>,
    /// Tokens admitted in this life.
    spent: u64,
    /// Some peer may not know all that was counted here.
    awaited: bool,
    /// Some peer does not hear another one.
    passes_on: bool,
    /// What was acknowledged, in millionths, by key and epoch: given out and given
    /// back.
    acknowledged: BTreeMap<(Name, u64), (u64, u64)>,
}

/// The name of the nth region.
#[must_use]
pub fn id(place: usize) -> ReplicaId {
    let name = [b'a'.saturating_add(u8::try_from(place).unwrap_or(u8::MAX))];
    ReplicaId::new(&name).expect("there are few regions")
}

impl Server {
    /// The nth server, which starts its first life.
    #[must_use]
    pub fn new(config: Config, place: usize, life: u64, now: Instants) -> Self {
        let id = id(place);
        let mut server = Self {
            config,
            id,
            defaults: Defaults::new(config.policy),
            region: Region::default(),
            keys: BTreeMap::new(),
            spent: 0,
            awaited: false,
            passes_on: false,
            acknowledged: BTreeMap::new(),
        };
        server.restart(life, now);
        server
    }

    /// Starts a new life with the keys that are there.
    pub fn restart(&mut self, life: u64, now: Instants) {
        let Config { guard, regions, timeout_us, .. } = self.config;
        self.region.writer = Some(Writer::new(self.id, life));
        self.region.peers = Membership::new(guard, regions, timeout_us, now);
        self.region.peers.set_id(Some(self.id));
        self.spent = 0;
    }

    /// Loses all keys.
    pub fn wipe(&mut self) {
        self.keys.clear();
    }

    /// What a replica of it has, to be promoted later.
    #[must_use]
    pub fn backup(&self) -> Backup {
        Backup(self.keys.clone())
    }

    /// Goes on with the keys of a backup.
    pub fn restore(&mut self, backup: Backup) {
        self.keys = backup.0;
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// What it may admit of the limit.
    #[must_use]
    pub fn share(&self) -> u16 {
        self.region.peers.share()
    }

    /// The names of its keys.
    #[must_use]
    pub fn names(&self) -> Vec<Name> {
        self.keys.keys().copied().collect()
    }

    /// What was acknowledged for a key in one epoch of it.
    #[must_use]
    pub fn acknowledged(&self, name: Name, epoch: u64) -> (u64, u64) {
        self.acknowledged.get(&(name, epoch)).copied().unwrap_or_default()
    }

    /// The epoch in which something was acknowledged last.
    #[must_use]
    pub fn last_epoch(&self, name: Name) -> Option<u64> {
        self.acknowledged.keys().filter(|(key, _)| *key == name).map(|(_, epoch)| *epoch).max()
    }

    /// The bucket of a key; `None` when it is missing.
    #[must_use]
    pub fn shared(&mut self, name: Name, wall: u64) -> Option<SharedBucket> {
        self.load(name, wall)?;
        self.open(name, wall).as_shared().cloned()
    }

    /// Millionths of a token held; negative in debt.
    #[must_use]
    pub fn held(&mut self, name: Name, wall: u64) -> i128 {
        let opened = self.open(name, wall);
        let debt = opened.as_shared().map_or(0, |shared| shared.debits().debt);
        i128::from(opened.bucket().tokens()) - i128::from(debt)
    }

    fn load(&mut self, name: Name, wall: u64) -> Option<&Slot> {
        let expired = |slot: &Slot| slot.expires.is_some_and(|ms| ms <= wall / 1_000);
        if self.keys.get(&name).is_some_and(expired) {
            self.keys.remove(&name);
        }
        self.keys.get(&name)
    }

    fn open(&mut self, name: Name, wall: u64) -> OpenBucket {
        let record = self.load(name, wall).map(|slot| slot.record.clone());
        match self.config.method {
            Method::Debit => OpenBucket::shared(record, &self.defaults, &self.region, wall),
            Method::States(_) => OpenBucket::new(record, &self.defaults, wall),
        }
    }

    fn save(&mut self, name: Name, opened: &OpenBucket) {
        let mut record = opened.to_record();
        // As it is stored.
        if let Some(shared) = opened.as_shared() {
            let mut written = codec::DebitsText::default();
            codec::encode_debits(shared, &mut written);
            let written = written.as_bytes().expect("there is room for it");
            let read = record.read(Field::Debits, written, shared.timestamp());
            read.expect("what is written is read");
        }
        let expires = match record.expiry(opened, self.awaited) {
            Expiry::Never => None,
            Expiry::At { set, .. } => Some(set),
        };
        let bucket = opened.bucket();
        assert!(bucket.tokens() <= bucket.policy().capacity_micros(), "above its capacity");
        self.keys.insert(name, Slot { record, expires });
    }

    /// Takes tokens or not; whether it did. They are acknowledged then.
    pub fn take(&mut self, name: Name, tokens: u64, wall: u64) -> bool {
        let mut opened = self.asked(name, wall);
        let answer = opened.take(tokens, false, wall, &self.region);
        let taken = answer.taken == tokens;
        if taken {
            self.save(name, &opened);
            self.spent += tokens;
            if let Some(acknowledged) = self.acknowledged_now(name, &opened) {
                acknowledged.0 += tokens * MICRO;
            }
        }
        taken
    }

    /// Gives tokens back; millionths of how much that really was.
    pub fn give(&mut self, name: Name, tokens: u64, wall: u64) -> u64 {
        let mut opened = self.open(name, wall);
        let before = opened.as_shared().map(|shared| shared.counter(self.id).refunded);
        opened.give(tokens, wall, &self.region);
        let counter = opened.as_shared().map(|shared| shared.counter(self.id)).unwrap_or_default();
        // A new epoch begins with what this call gave back.
        let given = match before {
            Some(before) if counter.refunded >= before => counter.refunded - before,
            _ => counter.refunded,
        };
        if given > 0 {
            self.save(name, &opened);
            if let Some(acknowledged) = self.acknowledged_now(name, &opened) {
                acknowledged.1 += given;
            }
        }
        given
    }

    fn asked(&mut self, name: Name, wall: u64) -> OpenBucket {
        let mut opened = self.open(name, wall);
        let asked = opened.ask(&Asked::default(), self.defaults.current());
        asked.expect("nothing is asked");
        opened
    }

    fn acknowledged_now(&mut self, name: Name, opened: &OpenBucket) -> Option<&mut (u64, u64)> {
        let epoch = opened.as_shared()?.counter(self.id).epoch;
        Some(self.acknowledged.entry((name, epoch)).or_default())
    }

    /// Pins a policy.
    pub fn pin(&mut self, name: Name, policy: Policy, wall: u64) {
        let mut opened = self.open(name, wall);
        opened.pin(policy, &self.region);
        self.save(name, &opened);
    }

    /// Forgets a key if it is full; whether it did.
    pub fn forget_full(&mut self, name: Name, wall: u64) -> bool {
        let full = self.load(name, wall).is_some()
            && self.open(name, wall).as_shared().is_some_and(SharedBucket::is_full);
        if full {
            self.keys.remove(&name);
        }
        full
    }

    /// The state of a key to be sent, credited up to now.
    pub fn state(&mut self, name: Name, wall: u64) -> Option<Sent> {
        let record = self.load(name, wall)?.record.clone();
        let stored = record.policy;
        let bucket = match self.config.method {
            Method::States(_) => Held::Written(State::new(&record, &self.defaults, wall)),
            Method::Debit => {
                let opened = self.open(name, wall);
                Held::Counted(Box::new(opened.as_shared()?.clone()))
            }
        };
        Some(Sent { bucket, stored })
    }

    /// Merges a state that came in; whether ours has to be sent out.
    pub fn receive(&mut self, name: Name, sent: &Sent, from: ReplicaId, wall: u64) -> bool {
        match &sent.bucket {
            Held::Counted(bucket) => self.receive_counted(name, bucket, sent.stored, from, wall),
            Held::Written(state) => {
                let Method::States(strategy) = self.config.method else { return false };
                let record = self.load(name, wall).map(|slot| slot.record.clone());
                let merged = match &record {
                    None => *state,
                    Some(record) => State::new(record, &self.defaults, wall).join(state, strategy),
                };
                let opened = OpenBucket::merged(record, &merged);
                self.save(name, &opened);
                false
            }
        }
    }

    fn receive_counted(
        &mut self,
        name: Name,
        bucket: &SharedBucket,
        stored: Option<StoredPolicy>,
        from: ReplicaId,
        wall: u64,
    ) -> bool {
        let mut opened = self.open(name, wall);
        let fresh = opened.record().is_none();
        let before = opened.as_shared().map(seen);
        let terms = Terms { version: bucket.version(), stored, weight: bucket.weight() };
        let had = opened.terms();
        if fresh {
            opened.begin_as(&terms, self.defaults.current());
        } else if had.yields_to(&terms) {
            opened.adopt(&terms, self.defaults.current());
        }
        let remote = Remote { from: Some(from), bucket: bucket.clone() };
        let writer = self.region.writer.as_ref();
        let Some(local) = opened.as_shared_mut() else { return false };
        let outcome = local.receive(fresh, &remote, writer, &self.region.peers);
        let changed = fresh || before != Some(seen(local)) || had != opened.terms();
        if changed {
            self.save(name, &opened);
        }
        outcome.rebroadcast
    }

    /// A peer was heard.
    pub fn heard(&mut self, round: &Round<'_>, now: Instants) {
        self.region.peers.heard(round, now);
    }

    /// A process of a peer has answered a round with the statement of this number.
    pub fn answered(&mut self, id: ReplicaId, run: &[u8], number: u64) {
        self.region.peers.acknowledged(id, run, number);
    }

    /// A peer refuses its states, or does not any more.
    pub fn refused_by(&mut self, id: ReplicaId, refuses: bool) {
        self.region.peers.refuses(id, refuses);
    }

    /// What it says of itself.
    #[must_use]
    pub fn statement(&self) -> Statement {
        self.region.peers.statement()
    }

    /// Whom it hears.
    #[must_use]
    pub fn hears(&self) -> Vec<ReplicaId> {
        self.region.peers.heard_now().collect()
    }

    /// Looks who has fallen silent. Returns whether it begins to pass on.
    pub fn tick(&mut self, now: Instants) -> bool {
        let spent = self.spent;
        self.region.peers.tick(Some(spent), now);
        self.awaited = self.region.peers.all().iter().any(|peer| peer.is_silent());
        let before = std::mem::replace(&mut self.passes_on, self.region.peers.passes_on());
        self.passes_on && !before
    }
}

/// The keys of a server at some moment.
#[derive(Debug, Clone)]
pub struct Backup(BTreeMap<Name, Slot>);

/// What of a bucket does not change by itself.
fn seen(bucket: &SharedBucket) -> (i128, Vec<(ReplicaId, u64, u64, u64)>) {
    let counted = bucket.accounts().iter().filter(|account| account.counter.epoch != 0);
    let counters = counted.map(|account| {
        let counter = account.counter;
        (account.id, counter.epoch, counter.spent, counter.refunded)
    });
    (bucket.level(), counters.collect())
}

/// The counters of a bucket.
#[must_use]
pub fn counters(bucket: &SharedBucket) -> Vec<(ReplicaId, u64, u64, u64)> {
    seen(bucket).1
}
