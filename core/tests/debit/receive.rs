//! What a merge of another region's state does, whatever that says.

use crate::any::{START, cases, shared};
use crate::world::{any_cut, cut, peer};
use claw_core::bucket::{Demand, Weight};
use claw_core::debits::{Account, Counter, Debits, Slack};
use claw_core::limits::MICRO;
use claw_core::membership::{Instants, Membership, PartitionPolicy, WHOLE};
use claw_core::policy::Policy;
use claw_core::replica::{MAX_OWN_EPOCH, ReplicaId, Writer};
use claw_core::shared::{Remote, SharedBucket};
use proptest::prelude::*;

fn unit(policy: Policy) -> i128 {
    i128::from(policy.interval_us().get()) * 1_000
}

/// A full bucket, as much owed, and the most that all others can have admitted and booked unseen.
fn deepest(bucket: &SharedBucket, peers: &Membership) -> i128 {
    let capacity = i128::from(bucket.policy().capacity_micros()) * unit(bucket.policy());
    let rate = i128::from(bucket.policy().refill()) * i128::from(bucket.weight().get());
    let refilled = rate * i128::from(peers.timeout_us()) * 1_000;
    2 * capacity + (2 * capacity + refilled) * i128::try_from(peers.regions() - 1).unwrap()
}

proptest! {
    #![proptest_config(cases(2_000))]

    /// Any state of any peer, in any state here: nothing panics, the level stays
    /// between full and the deepest debt, every counter is the join, and the same state
    /// once more changes neither a counter nor the level.
    #[test]
    fn any_state(
        (bucket, sent) in (shared(), shared()),
        alike in any::<bool>(),
        (silent, regions) in any_cut(),
        from in prop::option::of(0..7_usize),
        (fresh, writes) in any::<(bool, bool)>(),
    ) {
        let (mut bucket, mut sent) = (bucket, sent);
        let peers = cut(silent, regions, START);
        bucket.advance(START, &peers);
        if alike {
            sent.switch(bucket.policy());
            sent.set_weight(bucket.weight());
        }
        let writer = Writer::new("here".parse().unwrap(), 7);
        let writer = Some(&writer).filter(|_| writes);
        let remote = Remote { from: from.map(peer), bucket: sent.clone(), stored: None, temporary: None };
        prop_assume!(bucket.has_room_for(&remote, writer.map(Writer::id)));
        let before = bucket.clone();
        let same = sent.policy() == bucket.policy() && sent.weight() == bucket.weight();
        bucket.receive(fresh, &remote, writer, &peers).unwrap();
        prop_assert!(bucket.level() >= 0);
        // What was owed before stays owed.
        let owed = if same { before.level().max(sent.level()) } else { before.level() };
        prop_assert!(bucket.level() <= deepest(&bucket, &peers).max(owed));
        for account in bucket.accounts() {
            let joined = before.counter(account.id).join(sent.counter(account.id));
            prop_assert_eq!(bucket.counter(account.id), joined);
        }
        for account in sent.accounts().iter().chain(before.accounts()) {
            let joined = before.counter(account.id).join(sent.counter(account.id));
            prop_assert_eq!(bucket.counter(account.id), joined);
        }
        // Nothing is forgiven but what was given back, and what the sender knows to be paid.
        let sum = |micros: &mut dyn Iterator<Item = u64>| {
            let sum = micros.map(i128::from).sum::<i128>();
            sum.saturating_mul(unit(bucket.policy()))
        };
        let me = writer.map(Writer::id);
        let theirs = sent.accounts().iter().filter(|account| Some(account.id) != me);
        let refunds = theirs.map(|account| before.counter(account.id).gain(account.counter).1);
        let ours = before.accounts().iter();
        let unknown = ours.map(|account| sent.counter(account.id).gain(account.counter).0);
        let least = before.level().saturating_sub(sum(&mut refunds.into_iter()));
        let known = match same {
            true => sent.level().saturating_add(sum(&mut unknown.into_iter())),
            false => i128::MAX,
        };
        prop_assert!(fresh || bucket.level() >= least.min(known).max(0));
        prop_assert_eq!(bucket.timestamp(), before.timestamp());
        let once = bucket.clone();
        bucket.receive(false, &remote, writer, &peers).unwrap();
        prop_assert_eq!(bucket.level(), once.level());
        for account in once.accounts() {
            prop_assert_eq!(bucket.counter(account.id), account.counter);
        }
    }
}

struct Here {
    writer: Writer,
    peers: Membership,
    bucket: Option<SharedBucket>,
}

const POLICY: (u64, u64, u64) = (100, 10 * MICRO, 1_000);

impl Here {
    fn new(name: &str, life: u64) -> Self {
        let id: ReplicaId = name.parse().unwrap();
        let peers = Membership::new(PartitionPolicy::Off, 2, 2_000_000, Instants::default());
        Self { writer: Writer::new(id, life), peers, bucket: None }
    }

    fn take(&mut self, tokens: u64) -> u64 {
        let policy = Policy::new(POLICY.0, POLICY.1, POLICY.2).unwrap();
        let full = SharedBucket::full(policy, Weight::ONE, START);
        let bucket = self.bucket.get_or_insert(full);
        bucket.take(Some(&self.writer), Demand::all(tokens), START, WHOLE).unwrap().taken
    }

    /// Sends what it has; whether the other one has something to tell then.
    fn send(&self, to: &mut Self) -> bool {
        let Some(bucket) = self.bucket.clone() else { return false };
        let remote = Remote {
            from: Some(self.writer.id()),
            bucket: bucket.clone(),
            stored: None,
            temporary: None,
        };
        let fresh = to.bucket.is_none();
        let full = SharedBucket::full(bucket.policy(), Weight::ONE, START);
        let local = to.bucket.get_or_insert(full);
        local.receive(fresh, &remote, Some(&to.writer), &to.peers).unwrap().rebroadcast
    }

    fn remaining(&self) -> i64 {
        let full = POLICY.0.cast_signed();
        self.bucket.as_ref().map_or(full, |bucket| bucket.remaining(WHOLE))
    }

    fn counter(&self, of: &Self) -> Counter {
        self.bucket.as_ref().map(|bucket| bucket.counter(of.writer.id())).unwrap_or_default()
    }
}

/// A server that lost everything begins its counters again, maybe at an epoch that
/// the others know from an earlier life. Whichever of the two is the greater, and
/// whoever speaks first, the regions come to know what was taken after it.
#[test]
fn a_server_that_lost_its_state() {
    for (old, new) in [(5, 9), (9, 5), (5, 5)] {
        for it_speaks_first in [false, true] {
            let (mut lost, mut other) = (Here::new("a", old), Here::new("b", 1));
            assert_eq!((lost.take(30), other.take(10)), (30, 10));
            lost.send(&mut other);
            assert_eq!(other.remaining(), 60);
            // A new life, with as many tokens taken at first as nobody knows of.
            lost = Here::new("a", new);
            assert_eq!(lost.take(20), 20);
            let mut tell = it_speaks_first && lost.send(&mut other);
            let mut rounds = 0;
            // Whoever has to tell, tells; the other one changed nothing.
            while rounds == 0 || tell {
                tell = other.send(&mut lost);
                tell |= lost.send(&mut other);
                rounds += 1;
                assert!(rounds < 5, "they tell each other for ever: {old} {new}");
            }
            assert_eq!(lost.bucket.as_ref().unwrap().accounts().len(), 2);
            assert_eq!(lost.counter(&lost), other.counter(&lost), "{old} {new}");
            assert_eq!(lost.counter(&other), other.counter(&other), "{old} {new}");
            assert_eq!(lost.remaining(), other.remaining(), "{old} {new}");
            // The counters are those of the later life, with all that it took.
            assert_eq!(other.counter(&lost).spent, if old == new { 30 } else { 20 } * MICRO);
            // What the earlier life took may be forgiven, since a level is believed
            // of whoever knows all counters; what was taken since is not. (Lives that
            // drew the same number cannot be told apart: one in a million.)
            if old != new {
                assert!((40..=70).contains(&other.remaining()), "{}", other.remaining());
            }
            // From now on all is counted once.
            assert_eq!((lost.take(5), other.take(5)), (5, 5));
            lost.send(&mut other);
            other.send(&mut lost);
            assert_eq!(lost.remaining(), other.remaining(), "{old} {new}");
        }
    }
}

/// Counters of an earlier life are never gone on with, since the state may be older
/// than what others have seen.
#[test]
fn a_new_life_begins_a_new_epoch() {
    let mut here = Here::new("a", 1);
    here.take(3);
    let first = here.counter(&here);
    here.take(4);
    let same_life = here.counter(&here);
    assert_eq!((same_life.epoch, same_life.spent), (first.epoch, 7 * MICRO));
    let bucket = here.bucket.take();
    here = Here { bucket, ..Here::new("a", 2) };
    here.take(5);
    let next_life = here.counter(&here);
    assert!(next_life.epoch > first.epoch);
    assert_eq!(next_life.spent, 5 * MICRO);
    assert_eq!(here.remaining(), 88);
}

/// What was withheld while peers were silent takes up their debits, once, and nobody
/// else's.
#[test]
fn what_was_withheld() {
    let policy = Policy::new(POLICY.0, POLICY.1, POLICY.2).unwrap();
    let minute = START - 1 + 60_000_000;
    let sent_by = |n: usize, tokens: u64| {
        let mut bucket = SharedBucket::full(policy, Weight::ONE, minute);
        bucket.debit(Some(&Writer::new(peer(n), 1)), tokens * MICRO).unwrap();
        Remote { from: Some(peer(n)), bucket, stored: None, temporary: None }
    };
    // Of three others two are silent, and so half of ten tokens a second is kept: of
    // a minute, 300 overflowed and 300 were withheld.
    let peers = cut(2, 4, START);
    let mut bucket = SharedBucket::full(policy, Weight::ONE, START - 2);
    bucket.advance(minute, &peers);
    // Who sends how many tokens debited, in all; how many are missing then.
    let table = [
        // All of the overflow and 100 of what was withheld.
        (0, 400, 0),
        // The rest of what was withheld, and 50 are too many.
        (1, 250, 50),
        // Nothing is left.
        (1, 260, 60),
        (0, 410, 70),
    ];
    for (n, tokens, missing) in table {
        assert!(peers.is_silent(peer(n)));
        // The level they send says nothing here: they lack what the other one took.
        let mut remote = sent_by(n, tokens);
        remote.bucket.debit(None, 1_000 * MICRO).unwrap();
        bucket.receive(false, &remote, None, &peers).unwrap();
        assert_eq!(bucket.level() / unit(policy), missing * i128::from(MICRO), "{n} {tokens}");
    }
    // One that was heard all the time only gets what overflowed.
    let mut bucket = SharedBucket::full(policy, Weight::ONE, START - 2);
    bucket.advance(minute, &peers);
    let mut remote = sent_by(2, 310);
    remote.bucket.debit(None, 1_000 * MICRO).unwrap();
    bucket.receive(false, &remote, None, &peers).unwrap();
    assert!(!peers.is_silent(peer(2)));
    assert_eq!(bucket.level() / unit(policy), 10 * i128::from(MICRO));
}

fn named(names: std::ops::Range<usize>, epoch: u64) -> Vec<Account> {
    let id = |n: usize| format!("r{n:02}").parse().unwrap();
    let counter = Counter { epoch, spent: MICRO * epoch, refunded: 0 };
    names.map(|n| Account { id: id(n), counter, slack: Some(Slack::default()) }).collect()
}

fn knowing(accounts: Vec<Account>) -> SharedBucket {
    let (capacity, refill, interval) = POLICY;
    let policy = Policy::new(capacity, refill, interval).unwrap();
    let bucket = SharedBucket::full(policy, Weight::ONE, START).bucket();
    SharedBucket::new(&bucket, Debits { accounts, ..Debits::default() })
}

/// There is always room left for what is taken here, and whoever has counted
/// nothing makes room for whoever has.
#[test]
fn room_for_replicas() {
    let here = Writer::new("here".parse().unwrap(), 7);
    let me = Some(here.id());
    let from = Some("r01".parse().unwrap());
    let news = |names, from| Remote {
        from,
        bucket: knowing(named(names, 1)),
        stored: None,
        temporary: None,
    };
    // Known here with counters, and without; told of; who tells; whether there is room.
    let new = Some("new".parse().unwrap());
    let table = [
        (0..15, 15..15, 0..15, from, true),
        (0..14, 14..15, 14..15, from, true),
        (0..14, 14..16, 15..16, from, true),
        (0..15, 15..16, 15..16, from, false),
        (0..15, 15..15, 0..0, new, false),
        (0..14, 14..16, 0..0, new, true),
        (0..0, 0..16, 0..15, from, true),
        (0..0, 0..16, 0..15, new, false),
        (0..0, 0..0, 0..16, from, false),
    ];
    for (counted, idle, told, from, fits) in table {
        let what = format!("{counted:?} {idle:?} {told:?} {from:?}");
        let accounts = [named(counted, 1), named(idle, 0)].concat();
        let mut bucket = knowing(accounts);
        let remote = news(told, from);
        assert_eq!(bucket.has_room_for(&remote, me), fits, "{what}");
        if fits {
            bucket.receive(false, &remote, Some(&here), &Membership::default()).unwrap();
            for account in remote.bucket.accounts() {
                assert_eq!(bucket.counter(account.id), account.counter, "{what}");
            }
            assert!(bucket.can_count(Some(&here)), "{what}");
            bucket.debit(Some(&here), 5).unwrap();
            assert_eq!(bucket.counter(here.id()).spent, 5, "{what}");
        }
    }
    assert!(!knowing(named(0..16, 1)).can_count(Some(&here)));
    assert!(knowing(named(0..16, 1)).can_count(None));
    assert!(knowing([named(0..15, 1), named(15..16, 0)].concat()).can_count(Some(&here)));
}

/// A state that is out of all proportion decides over its own key alone.
#[test]
fn a_leap_of_our_own_epochs() {
    let here = Writer::new("here".parse().unwrap(), 7);
    let (before, far) = (here.next_epoch(0), (1 << 62) | 9);
    here.seen(far);
    let beyond = here.next_epoch(far);
    assert!(beyond > far && here.began(beyond));
    let next = here.next_epoch(0);
    assert!(before < next && next < before + (9 << 20), "{before} {next}");
    // What could be a count of ours is followed.
    here.seen(1 << 59);
    assert!(here.next_epoch(0) > 1 << 59);
    let told = |epoch| {
        let counter = Counter { epoch, spent: 1, refunded: 0 };
        let account = Account { id: here.id(), counter, slack: None };
        let remote =
            Remote { from: None, bucket: knowing(vec![account]), stored: None, temporary: None };
        knowing(Vec::new()).believes(&remote, Some(here.id()))
    };
    assert!(told(MAX_OWN_EPOCH) && !told(MAX_OWN_EPOCH + 1));
}

/// A key that came from elsewhere has lost its counters. What is taken of it then, in an epoch
/// below that which the peers know, is unknown to them: their level does not undo it.
#[test]
fn what_was_taken_in_an_outlived_epoch_stays_missing() {
    let policy = Policy::new(100, 0, 1_000).unwrap();
    let (here, there) = ("here".parse().unwrap(), peer(0));
    let writer = Writer::new(here, 7);
    let peers = cut(0, 2, START);
    let mut bucket = SharedBucket::full(policy, Weight::ONE, START);
    bucket.debit(None, 2 * MICRO).unwrap();
    bucket.debit(Some(&writer), MICRO).unwrap();
    let counted = |id, epoch, tokens| Account {
        id,
        counter: Counter { epoch, spent: tokens * MICRO, refunded: 0 },
        slack: None,
    };
    let mut accounts = vec![counted(here, 5 << 20 | 9, 2), counted(there, 1 << 20 | 1, 1)];
    accounts.sort_by_key(|account| account.id);
    let line = claw_core::bucket::Bucket::new(policy, Weight::ONE, 97_000_000, 0, START);
    let sent = SharedBucket::new(&line, Debits { accounts, ..Debits::default() });
    let remote = Remote { from: Some(there), bucket: sent, stored: None, temporary: None };
    let outcome = bucket.receive(false, &remote, Some(&writer), &peers).unwrap();
    assert!(outcome.rebroadcast);
    assert_eq!(bucket.remaining(WHOLE), 96);
    assert!(bucket.counter(here).epoch > 5 << 20 | 9);
    assert_eq!(bucket.counter(here).spent, MICRO);
}
