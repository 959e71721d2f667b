//! What is booked after the work: settlements, the debts that they leave, and what blocks.

use crate::any::{START, cases, log_uniform, policy, shared, weight};
use crate::world::{any_cut, cut};
use claw_core::bucket::{Demand, Wait, Weight};
use claw_core::codec::{self, DebitsText};
use claw_core::configured::Configured;
use claw_core::debits::{Counter, Region};
use claw_core::expiry::Expiry;
use claw_core::limits::{MAX_TOKENS, MICRO};
use claw_core::membership::{Instants, Membership, PartitionPolicy, WHOLE};
use claw_core::open::OpenBucket;
use claw_core::policy::Policy;
use claw_core::record::{Field, Record};
use claw_core::replica::{ReplicaId, Writer};
use claw_core::shared::{Remote, SharedBucket};
use proptest::prelude::*;

fn unit(policy: Policy) -> i128 {
    i128::from(policy.interval_us().get()) * 1_000
}

fn capacity(policy: Policy) -> i128 {
    i128::from(policy.capacity_micros()) * unit(policy)
}

fn id(name: &str) -> ReplicaId {
    name.parse().unwrap()
}

/// Whole and at a share.
fn regions() -> impl Strategy<Value = Region> {
    (any_cut(), any::<bool>()).prop_map(|((silent, regions), whole)| Region {
        writer: Some(Writer::new(id("here"), 7)),
        peers: if whole { Membership::default() } else { cut(silent, regions, START) },
    })
}

/// A bucket as it is stored and opened again at the start.
fn opened(bucket: &SharedBucket, region: &Region) -> OpenBucket {
    let record = record_of(bucket);
    OpenBucket::shared(
        Some(record),
        &Configured::new(bucket.policy()).of(b"key"),
        region,
        START,
        None,
    )
}

fn record_of(bucket: &SharedBucket) -> Record {
    let mut text = DebitsText::default();
    let line = codec::encode_debits(bucket, &mut text);
    let (tokens, timestamp) = (Some(line.tokens()), Some(line.timestamp()));
    let weight = Some(line.weight());
    let mut record = Record { tokens, timestamp, weight, ..Record::default() };
    record.read(Field::Debits, text.as_bytes().unwrap(), START).unwrap();
    record
}

fn own(opened: &OpenBucket, region: &Region) -> Counter {
    opened.as_shared().unwrap().counter(region.writer.as_ref().unwrap().id())
}

/// Taken in all, less what was given back.
fn net(counter: Counter) -> i128 {
    i128::from(counter.spent) - i128::from(counter.refunded)
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn settling_what_was_reserved_changes_nothing(
        bucket in shared(),
        region in regions(),
        tokens in log_uniform(MAX_TOKENS),
    ) {
        let mut opened = opened(&bucket, &region);
        let before = opened.as_shared().unwrap().clone();
        let answer = opened.settle(tokens, tokens, START, &region).unwrap();
        prop_assert_eq!((answer.taken, answer.retry_after), (0, Wait::Ms(0)));
        prop_assert_eq!(opened.as_shared(), Some(&before));
        prop_assert!(!opened.terms_changed());
    }

    /// As if what was used had been taken in the first place.
    #[test]
    fn taking_and_settling_is_taking_what_was_used(
        bucket in shared(),
        region in regions(),
        parts in (any::<u64>(), any::<u64>()),
    ) {
        let start = opened(&bucket, &region);
        prop_assume!(start.can_count(&region));
        let there = start.remaining(&region).max(0).unsigned_abs();
        let (reserved, used) = (parts.0 % (there + 1), parts.1 % (there + 1));
        let (mut settled, mut plain) = (start.clone(), start);
        settled.take(Demand::all(reserved), START, &region).unwrap();
        let before = own(&settled, &region);
        let booked = settled.settle(reserved, used, START, &region).unwrap();
        prop_assert_eq!(booked.taken, reserved.abs_diff(used));
        let taken = plain.take(Demand::all(used), START, &region).unwrap();
        prop_assert_eq!(taken.taken, used);
        prop_assert_eq!(booked.remaining, taken.remaining);
        prop_assert_eq!(booked.reset_after, taken.reset_after);
        prop_assert_eq!(settled.bucket(), plain.bucket());
        let level = |opened: &OpenBucket| opened.as_shared().unwrap().level();
        prop_assert_eq!(level(&settled), level(&plain));
        prop_assert_eq!(settled.expiry(false, &region), plain.expiry(false, &region));
        // A counter that was full began anew.
        if own(&settled, &region).epoch == before.epoch {
            let more = net(own(&settled, &region)) - net(before);
            let due = i128::from(used) - i128::from(reserved);
            prop_assert_eq!(more, due * i128::from(MICRO));
        }
    }

    /// Booked is what brings the debt to the capacity, and no more; for the rest there is a time,
    /// and a millisecond before it is too early.
    #[test]
    fn no_more_is_booked_than_the_capacity(
        bucket in shared(),
        region in regions(),
        more in prop_oneof![log_uniform(MAX_TOKENS), 0..200_u64],
    ) {
        let mut opened = opened(&bucket, &region);
        prop_assume!(opened.can_count(&region));
        let before = opened.as_shared().unwrap().level();
        let policy = opened.bucket().policy();
        let answer = opened.settle(3, 3 + more, START, &region).unwrap();
        let after = opened.as_shared().unwrap().clone();
        prop_assert!(answer.taken <= more);
        prop_assert_eq!(after.level(), before + i128::from(answer.taken * MICRO) * unit(policy));
        prop_assert!(after.level() <= before.max(2 * capacity(policy)));
        let one = i128::from(MICRO) * unit(policy);
        prop_assert!(answer.taken == more || after.level() + one > 2 * capacity(policy));
        let rest = more - answer.taken;
        // A clock that is set back has to catch up first.
        let now = after.timestamp();
        let bookable = |us: u64| {
            let mut later = after.clone();
            later.advance(now.saturating_add(us), &region.peers);
            later.bookable()
        };
        match answer.retry_after {
            Wait::Ms(0) => prop_assert_eq!(rest, 0),
            Wait::Ms(ms) if now == START && region.peers.share() > 0 && ms < u64::MAX / 2_000 => {
                prop_assert!(bookable((ms - 1) * 1_000) < rest);
                prop_assert!(bookable(ms * 1_000) >= rest);
            }
            Wait::Ms(_) => {}
            Wait::Never => {
                let refills = policy.refill() > 0 && after.us_until_full(WHOLE).is_some_and(|us| us < 1 << 62);
                prop_assert!(rest > 2 * policy.capacity() || !refills);
            }
        }
    }

    /// What blocks grants nothing, at whatever share, and never will.
    #[test]
    fn what_holds_nothing_grants_nothing(
        (refill, weight, owed) in (policy(), weight(), log_uniform(1 << 60)),
        region in regions(),
        tokens in log_uniform(MAX_TOKENS),
        partial in any::<bool>(),
        later in log_uniform(1 << 45),
    ) {
        let blocked = Policy::new(0, refill.refill(), refill.interval_ms()).unwrap();
        let mut bucket = SharedBucket::full(blocked, weight, START);
        bucket.debit(None, owed).unwrap();
        bucket.advance(START + later, &region.peers);
        for share in [region.peers.share(), 0, 1, 999, WHOLE] {
            let demand = Demand { tokens: tokens.max(1), partial, keep: tokens % 3 };
            let answer = bucket.clone().take(None, demand, START + later, share).unwrap();
            prop_assert_eq!((answer.taken, answer.retry_after), (0, Wait::Never));
            prop_assert!(answer.remaining <= 0);
            let look = bucket.clone().take(None, Demand::all(0), START + later, share).unwrap();
            prop_assert_eq!((look.taken, look.retry_after), (0, Wait::Ms(0)));
        }
        prop_assert_eq!(bucket.bookable(), 0);
    }
}

/// A region with one key, which it writes and opens again for every call.
struct Site {
    region: Region,
    record: Option<Record>,
    expiry: Option<Expiry>,
}

const POLICY: (u64, u64, u64) = (50, 10 * MICRO, 1_000);

fn default() -> Policy {
    Policy::new(POLICY.0, POLICY.1, POLICY.2).unwrap()
}

impl Site {
    fn new(name: &str, regions: usize) -> Self {
        let writer = Some(Writer::new(id(name), 7));
        let peers = Membership::new(PartitionPolicy::Off, regions, 2_000_000, Instants::default());
        Self { region: Region { writer, peers }, record: None, expiry: None }
    }

    fn open(&self, now: u64) -> OpenBucket {
        let defaults = Configured::new(default());
        OpenBucket::shared(self.record.clone(), &defaults.of(b"key"), &self.region, now, None)
    }

    fn shared(&self, now: u64) -> SharedBucket {
        self.open(now).as_shared().unwrap().clone()
    }

    /// Does something, and keeps what comes of it.
    fn with<T>(&mut self, now: u64, act: impl FnOnce(&mut OpenBucket, &Region) -> T) -> T {
        let mut opened = self.open(now);
        let done = act(&mut opened, &self.region);
        let mut text = DebitsText::default();
        codec::encode_debits(opened.as_shared().unwrap(), &mut text);
        let mut record = opened.to_record();
        record.read(Field::Debits, text.as_bytes().unwrap(), now).unwrap();
        self.expiry = Some(opened.expiry(false, &self.region));
        self.record = Some(record);
        done
    }

    fn take(&mut self, tokens: u64, now: u64) -> u64 {
        self.with(now, |opened, region| {
            opened.take(Demand::all(tokens), now, region).unwrap().taken
        })
    }

    /// What was really booked, in millionths: less than nothing where it was given back.
    fn settle(&mut self, reserved: u64, used: u64, now: u64) -> i128 {
        let before = net(own(&self.open(now), &self.region));
        let answer =
            self.with(now, |opened, region| opened.settle(reserved, used, now, region).unwrap());
        let booked = net(own(&self.open(now), &self.region)) - before;
        assert_eq!(booked.unsigned_abs() / u128::from(MICRO), u128::from(answer.taken));
        assert!(used > reserved || booked <= 0);
        booked
    }

    fn sent(&self, now: u64) -> Option<Remote> {
        let opened = self.open(now);
        self.record.as_ref()?;
        let from = self.region.writer.as_ref().map(Writer::id);
        let (bucket, stored) = (opened.as_shared().unwrap().clone(), opened.policy());
        Some(Remote { from, bucket, stored, temporary: None })
    }

    fn receive(&mut self, remote: &Remote, now: u64) {
        self.with(now, |opened, region| opened.receive(remote, region).unwrap());
    }
}

/// Everybody sends everybody everything, until all know all.
fn exchange(sites: &mut [Site], now: u64) {
    for _ in 0..3 {
        let sent: Vec<Option<Remote>> = sites.iter().map(|site| site.sent(now)).collect();
        for (from, remote) in sent.iter().enumerate() {
            for (to, site) in sites.iter_mut().enumerate().filter(|(to, _)| *to != from) {
                let _ = to;
                remote.iter().for_each(|remote| site.receive(remote, now));
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Call {
    Take(u64),
    /// So many were reserved, which is taken, and so many used.
    Work(u64, u64),
    /// Sends to another one.
    Send,
    /// The latest thing that was sent comes again.
    Again,
}

fn calls() -> impl Strategy<Value = Vec<(usize, usize, u64, Call)>> {
    let call = prop_oneof![
        3 => (1_u64..20).prop_map(Call::Take),
        4 => (0_u64..20, 0_u64..120).prop_map(|(reserved, used)| Call::Work(reserved, used)),
        3 => Just(Call::Send),
        1 => Just(Call::Again),
    ];
    let step = prop_oneof![3 => 0..100_000_u64, 2 => 0..3_000_000_u64, 1 => 0..20_000_000_u64];
    prop::collection::vec((0..3_usize, 1..3_usize, step, call), 1..60)
}

proptest! {
    #![proptest_config(cases(600))]

    /// Takes and settlements in several regions, states that come late, again, or not at all: in
    /// the end all know the same, and it is what was acknowledged.
    #[test]
    fn the_books_agree(count in 2..=3_usize, calls in calls()) {
        let mut sites: Vec<Site> =
            ["a", "b", "c"].iter().take(count).map(|name| Site::new(name, count)).collect();
        let (mut now, mut acknowledged, mut last) = (START, 0_i128, None);
        let owed = |site: &Site, now| -site.open(now).bucket().tokens();
        for (place, further, step, call) in calls {
            now += step;
            let (place, other) = (place % count, (place + further % count.max(2)) % count);
            match call {
                Call::Take(tokens) => {
                    acknowledged += i128::from(sites[place].take(tokens, now) * MICRO);
                }
                Call::Work(reserved, used) => {
                    let before = owed(&sites[place], now);
                    let taken = sites[place].take(reserved, now);
                    acknowledged += i128::from(taken * MICRO);
                    if taken == reserved {
                        acknowledged += sites[place].settle(reserved, used, now);
                    }
                    let most = default().capacity_micros();
                    prop_assert!(owed(&sites[place], now) <= before.max(most));
                }
                Call::Send if place != other => {
                    last = sites[place].sent(now);
                    last.iter().for_each(|remote| sites[other].receive(remote, now));
                }
                Call::Send => {}
                Call::Again => {
                    let sender = sites[place].region.writer.as_ref().map(Writer::id);
                    let others = last.iter().filter(|remote| remote.from != sender);
                    let received: Vec<Remote> = others.cloned().collect();
                    received.iter().for_each(|remote| sites[place].receive(remote, now));
                }
            }
        }
        exchange(&mut sites, now);
        let buckets: Vec<SharedBucket> = sites.iter().map(|site| site.shared(now)).collect();
        for bucket in &buckets {
            let counters = ["a", "b", "c"].map(|name| bucket.counter(id(name)));
            prop_assert_eq!(counters, ["a", "b", "c"].map(|name| buckets[0].counter(id(name))));
            prop_assert_eq!(counters.into_iter().map(net).sum::<i128>(), acknowledged);
            prop_assert_eq!(bucket.level(), buckets[0].level());
        }
    }
}

/// A capacity that was lowered forgives nothing: neither here nor at who hears of it for the first
/// time, nor when what it says comes back.
#[test]
fn a_merge_forgives_no_debt_of_a_greater_capacity() {
    let owed = -(POLICY.0.cast_signed());
    for known in [false, true] {
        let mut sites = ["a", "b"].map(|name| Site::new(name, 2));
        if known {
            sites[1].take(1, START);
        }
        let overrun = 2 * POLICY.0;
        assert_eq!(sites[0].settle(0, overrun, START), i128::from(overrun * MICRO));
        // At one token, what a merge may add ends far above.
        let small = Policy::new(1, 0, 1_000).unwrap();
        sites[0].with(START, |opened, region| opened.pin(small, region).unwrap());
        assert_eq!(sites[0].open(START).bucket().tokens(), owed * 1_000_000);
        exchange(&mut sites, START);
        for site in &sites {
            let bucket = site.shared(START);
            assert_eq!(bucket.policy(), small);
            assert_eq!(bucket.remaining(WHOLE), owed, "{known}");
        }
    }
}

/// A policy of a call that blocks is remembered for one interval, one that is pinned for good; a
/// debt for as long as it takes.
#[test]
fn how_long_a_block_is_remembered() {
    let hour = 3_600_000;
    let blocked = Policy::new(0, 10 * MICRO, hour).unwrap();
    // What is owed; pinned; hours from the start.
    let table = [(0, false, Some(1)), (0, true, None), (5, false, Some(1)), (20, false, Some(2))];
    for (owed, pinned, hours) in table {
        let mut site = Site::new("a", 1);
        if owed > 0 {
            site.settle(0, POLICY.0 + owed, START);
        }
        site.with(START, |opened, region| {
            if pinned {
                opened.pin(blocked, region).unwrap();
            } else {
                opened.ask(Some(blocked));
            }
            assert!(pinned || opened.terms_changed(), "it is written");
            let answer = opened.take(Demand::all(1), START, region).unwrap();
            assert_eq!((answer.taken, answer.retry_after), (0, Wait::Never));
        });
        let earliest = match site.expiry.unwrap() {
            Expiry::At { earliest, .. } => Some((earliest - START / 1_000) / hour),
            _ => None,
        };
        assert_eq!(earliest, hours, "{owed} {pinned}");
    }
}

/// What was taken beyond a share is not owed: nothing is left, and no less.
#[test]
fn what_is_left_of_a_share() {
    let policy = Policy::new(100, MICRO, 1_000).unwrap();
    let mut bucket = SharedBucket::full(policy, Weight::ONE, START);
    // Taken since; what remains at half, at a thousandth, and whole.
    let table = [(0, 50, 1, 100), (30, 20, 0, 70), (40, 0, 0, 30), (30, 0, 0, 0), (5, -5, -5, -5)];
    for (taken, half, least, whole) in table {
        bucket.debit(None, taken * MICRO).unwrap();
        let found = [500, 1, WHOLE].map(|share| bucket.remaining(share));
        assert_eq!(found, [half, least, whole], "{taken}");
    }
}
