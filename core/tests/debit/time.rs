//! The level in time: credit, shares, waits, bounds, and that a region that is
//! alone has the bucket that a server without regions has.

use crate::any::{self, START, cases, shared};
use crate::world::{self, Rounds, SECOND, any_cut, at, cut, news, peer, snapshots};
use claw_core::bucket::{Answer, Bucket, Demand, Wait, Weight};
use claw_core::limits::{MAX_DEBT, MAX_TOKENS, MICRO};
use claw_core::membership::{Instants, Membership, PartitionPolicy, WHOLE};
use claw_core::policy::Policy;
use claw_core::replica::Writer;
use claw_core::shared::SharedBucket;
use num_bigint::BigInt;
use proptest::prelude::*;

fn unit(policy: Policy) -> i128 {
    i128::from(policy.interval_us().get()) * 1_000
}

fn capacity(policy: Policy) -> i128 {
    i128::from(policy.capacity_micros()) * unit(policy)
}

/// A bucket that has been emptied in part at the start.
fn begun(policy: Policy, weight: Weight, permille: u64) -> SharedBucket {
    let mut bucket = SharedBucket::full(policy, weight, START);
    bucket.debit(None, policy.capacity_micros().unsigned_abs() / 1_000 * permille).unwrap();
    bucket
}

fn guard() -> impl Strategy<Value = PartitionPolicy> {
    prop::sample::select(PartitionPolicy::ALL.to_vec())
}

/// What happens to a region, for so many microseconds or by so many.
#[derive(Debug, Clone, Copy)]
enum Event {
    Pass,
    SetBack,
    /// The other region is on another side from now on, or not any more.
    Cut(bool),
    Write,
}

fn what_happens() -> impl Strategy<Value = Event> {
    let cut = any::<bool>().prop_map(Event::Cut);
    prop_oneof![4 => Just(Event::Pass), 1 => Just(Event::SetBack), 2 => cut, 1 => Just(Event::Write)]
}

proptest! {
    #![proptest_config(cases(1_000))]

    /// When a bucket is looked at makes no difference: neither to its level nor to
    /// what overflowed and was withheld since each peer's round.
    #[test]
    fn in_one_step_or_in_many(
        (policy, weight, permille) in (any::policy(), any::weight(), 0_u64..=1_500),
        guard in guard(),
        news in news(3),
        looks in prop::collection::vec(any::<bool>(), 41),
        further in 0..10 * SECOND,
    ) {
        let snapshots = snapshots(guard, 4, &news);
        let (mut seldom, mut often) = (begun(policy, weight, permille), begun(policy, weight, permille));
        let mut before = &snapshots[0];
        for (snapshot, look) in snapshots.iter().zip(looks) {
            let (now, peers) = snapshot;
            if look {
                // Between the news, just before it, and with it. (Of a round that is
                // complete within the very microsecond of a look, the bucket learns
                // with the next one.)
                often.advance(before.0 + (now - before.0) / 2, &before.1);
                often.advance(*now - 1, &before.1);
                often.advance(*now, peers);
            }
            before = snapshot;
        }
        let (now, peers) = (before.0 + further, &before.1);
        seldom.advance(now, peers);
        often.advance(now, peers);
        prop_assert_eq!(seldom, often);
    }

    /// A share of the refill is credited, and the rest is withheld.
    #[test]
    fn a_share_of_the_refill(
        (policy, weight) in (any::policy(), any::weight()),
        permille in 0_u64..=1_500,
        (silent, regions) in any_cut(),
        elapsed in any::log_uniform(400 * 86_400 * SECOND),
    ) {
        let mut bucket = begun(policy, weight, permille);
        let before = bucket.level();
        let peers = cut(silent, regions, START);
        bucket.advance(START, &peers);
        let start = bucket.accounts().to_vec();
        bucket.advance(START + elapsed, &peers);
        let rate = i128::from(policy.refill()) * i128::from(weight.get()) * i128::from(elapsed);
        let share = i128::from(peers.share());
        prop_assert_eq!(bucket.level(), (before - rate * share).max(0));
        for (account, start) in bucket.accounts().iter().zip(start) {
            let (slack, start) = (account.slack.unwrap(), start.slack.unwrap());
            prop_assert_eq!(slack.overflow - start.overflow, (rate * share - before).max(0));
            prop_assert_eq!(slack.withheld - start.withheld, rate * (1_000 - share));
        }
    }

    /// What is held, or owed, is kept under another policy, whatever the intervals, but for what
    /// is beyond the new capacity; less than a millionth of a token is lost, on the side that
    /// admits less.
    #[test]
    fn a_switch_keeps_the_tokens(
        bucket in shared(),
        policies in prop::collection::vec(any::policy(), 1..5),
        debit in any::log_uniform(u64::MAX / 4),
    ) {
        let mut bucket = bucket;
        bucket.debit(None, debit).unwrap();
        // In a unit in which both are whole numbers, of up to 200 bits.
        let held = |bucket: &SharedBucket, other: Policy| {
            BigInt::from(capacity(bucket.policy()) - bucket.level()) * BigInt::from(unit(other))
        };
        for policy in policies {
            let (before, old) = (held(&bucket, policy), bucket.policy());
            bucket.switch(policy);
            let after = held(&bucket, old);
            let micro = BigInt::from(unit(old)) * BigInt::from(unit(policy));
            let most = BigInt::from(capacity(policy)) * BigInt::from(unit(old));
            let kept = before.min(most);
            prop_assert!(after <= kept && after > kept - micro);
        }
    }

    /// Waiting exactly as long as the answer says is enough, and a millisecond less
    /// is not.
    #[test]
    fn retry_after_is_exact(
        bucket in shared(),
        (silent, regions) in any_cut(),
        tokens in any::log_uniform(MAX_TOKENS),
        keep in prop_oneof![2 => Just(0), 1 => 0..4_u64, 1 => any::log_uniform(MAX_TOKENS)],
        (few, partial) in any::<(bool, bool)>(),
    ) {
        let mut bucket = bucket;
        let peers = cut(silent, regions, START);
        let share = peers.share();
        bucket.advance(START, &peers);
        let now = bucket.timestamp();
        let most = (bucket.policy().capacity() * u64::from(share) / 1_000).max(1);
        let tokens = if few { tokens % (most + 1) } else { tokens };
        let demand = Demand { tokens, partial, keep };
        let answer = bucket.take(None, demand, now, share).unwrap();
        // The first token of more, with what is kept.
        let least = if partial { tokens.min(1) } else { tokens };
        let needed = if tokens == 0 { 0 } else { least + keep };
        prop_assert!(answer.taken == 0 || answer.remaining >= keep.cast_signed());
        match answer.retry_after {
            Wait::Ms(0) => prop_assert_eq!(answer.taken, tokens),
            Wait::Ms(wait) => {
                prop_assert!(answer.taken < tokens && (partial || answer.taken == 0));
                let taken = |wait: u64| {
                    let now = now.saturating_add(wait.saturating_mul(1_000));
                    let mut bucket = bucket.clone();
                    bucket.advance(now, &peers);
                    bucket.take(None, demand, now, share).unwrap().taken
                };
                prop_assert_eq!(taken(wait - 1), 0);
                // What this share has no room for waits for the peers.
                if share > 0 && needed <= most && wait < u64::MAX / 2_000 {
                    prop_assert!(taken(wait) >= least);
                }
            }
            Wait::Never => {
                let refill = bucket.policy().refill();
                let long = bucket.us_until_full(WHOLE).is_none_or(|us| us > 1 << 62);
                prop_assert!(needed > bucket.policy().capacity() || refill == 0 || long);
            }
        }
    }

    /// A clock that is set back lives through a time again that had another share. Nothing is credited
    /// beyond what the shares came to that really held since the bucket was written; who waits as long as
    /// the answer says, at the present share, is served, and not sooner.
    #[test]
    fn shares_and_a_clock_set_back(
        events in prop::collection::vec((what_happens(), 0..3_600 * SECOND), 1..30),
        tokens in 1_u64..1_000_000,
    ) {
        let policy = Policy::new(MAX_TOKENS, MICRO, 1_000).unwrap();
        let (mut now, mut stepped) = (at(0), false);
        let mut peers = Membership::new(PartitionPolicy::Equal, 2, u64::MAX, now);
        peers.completed(peer(0), now);
        let mut bucket = SharedBucket::full(policy, Weight::ONE, START);
        bucket.debit(None, policy.capacity_micros().unsigned_abs() / 4).unwrap();
        // Of a share of 1 in a microsecond, since it was written.
        let mut held = 0;
        for (event, us) in events {
            match event {
                Event::Pass => {
                    held += i128::from(us) * i128::from(peers.share());
                    now = Instants { wall: now.wall + us, steady: now.steady + us };
                }
                Event::SetBack => {
                    now.wall -= us;
                    stepped = true;
                }
                Event::Cut(cut) => peers.refuses(peer(0), cut),
                Event::Write => {
                    bucket.advance(now.wall, &peers);
                    (held, stepped) = (0, bucket.timestamp() > now.wall);
                }
            }
            peers.tick(None, now);
            let mut credited = bucket.clone();
            credited.advance(now.wall, &peers);
            let gained = (bucket.level() - credited.level()) / i128::from(MICRO);
            prop_assert!(gained <= held, "{gained} of {held}");
            prop_assert!(stepped || gained == held, "{gained} of {held}");
            let share = peers.share();
            let room = credited.remaining(share).max(0).unsigned_abs();
            let Wait::Ms(wait) = credited.until(room + tokens, now.wall, share) else {
                return Err(TestCaseError::fail("it refills"));
            };
            for (wait, served) in [(wait - 1, false), (wait, true)] {
                let then = now.wall + wait * 1_000;
                let (mut peers, mut bucket) = (peers.clone(), bucket.clone());
                peers.tick(None, Instants { wall: then, steady: now.steady + wait * 1_000 });
                bucket.advance(then, &peers);
                let remaining = bucket.remaining(share).max(0).unsigned_abs();
                prop_assert_eq!(remaining >= room + tokens, served);
            }
        }
    }

    /// A region alone answers as a bucket that is not shared, for the same history,
    /// exactly: the level counts in units in which every credit is whole, and so
    /// does the bucket with its remainder.
    #[test]
    fn alone_it_is_the_bucket(
        (policy, weight) in (any::policy(), any::weight()),
        calls in prop::collection::vec((0_u8..9, any::<u64>(), any::<u64>()), 1..60),
    ) {
        let writer = Writer::new("here".parse().unwrap(), 1);
        let (mut bucket, mut shared) =
            (Bucket::full(policy, weight, START), SharedBucket::full(policy, weight, START));
        let (mut now, alone) = (START, Membership::default());
        // Long enough to fill the bucket now and then, not always.
        let empty = Bucket::new(policy, weight, 0, 0, START);
        let full = empty.us_until_full().and_then(|us| u64::try_from(us).ok()).unwrap_or(SECOND);
        for (call, a, b) in calls {
            now = match a % 16 {
                0 => now - b % (10 * SECOND),
                1 => now + 1_000 * u64::from(b % 2 == 0),
                _ => now + b % (full / 4 + 2).min(1 << 40),
            };
            bucket.advance(now);
            shared.advance(now, &alone);
            let capacity = policy.capacity();
            let tokens = match call {
                0 | 1 => a % 4,
                2 => bucket.remaining().max(0).unsigned_abs(),
                3 => bucket.remaining().max(0).unsigned_abs() + 1,
                _ => a % (capacity + 2),
            };
            let answers = if call == 7 {
                (bucket.give(tokens, now), shared.give(Some(&writer), tokens, now, WHOLE).unwrap())
            } else if call == 8 {
                // An overrun, as far as it can be booked.
                prop_assert_eq!(bucket.bookable(), shared.bookable());
                let wait = bucket.until_bookable(tokens, now);
                prop_assert_eq!(wait, shared.until_bookable(tokens, now, WHOLE));
                let booked = tokens.min(bucket.bookable());
                bucket.debit(booked);
                shared.debit(Some(&writer), booked * MICRO).unwrap();
                (bucket.answer(booked, now), shared.answer(booked, now, WHOLE))
            } else {
                let demand = Demand { tokens, partial: call == 6, keep: b % 3 };
                let taken = shared.take(Some(&writer), demand, now, WHOLE).unwrap();
                (bucket.take(demand, now), taken)
            };
            prop_assert_eq!(answers.0, answers.1);
            prop_assert_eq!(bucket.tokens(), shared.bucket().tokens());
            prop_assert_eq!(bucket.us_until_full(), shared.us_until_full(WHOLE));
            prop_assert_eq!(bucket.timestamp(), shared.timestamp());
        }
        let counter = shared.counter(writer.id());
        prop_assert!(counter.spent >= counter.refunded);
    }

    /// No policy, clock, call or share panics, and a bucket stays within its bounds.
    #[test]
    fn extremes(
        bucket in shared(),
        calls in prop::collection::vec(
            (0_u8..9, any::log_uniform(u64::MAX), any::log_uniform(u64::MAX), any_cut()), 1..20),
        policies in prop::collection::vec(any::policy(), 1..4),
    ) {
        let (mut bucket, writer) = (bucket, Writer::new("here".parse().unwrap(), u64::MAX));
        let mut now = START;
        for (call, a, b, (silent, regions)) in calls {
            let mut peers = cut(silent, regions, now.max(1));
            let share = peers.share();
            let least = bucket.level();
            match call {
                0 => now = now.saturating_add(a).min(u64::MAX - 1),
                1 => now = now.saturating_sub(a),
                2 => bucket.debit(Some(&writer), a).unwrap(),
                3 => bucket.refund(Some(&writer), a).unwrap(),
                4 => bucket.switch(policies[usize::try_from(a % 3).unwrap() % policies.len()]),
                5 => bucket.set_weight(Weight::new(a % 10 + 1).unwrap()),
                6 => {
                    let demand = Demand { tokens: a, partial: b % 2 == 0, keep: b % 3 };
                    check(&bucket.take(Some(&writer), demand, now, share).unwrap(), &bucket);
                }
                7 => check(&bucket.give(Some(&writer), a, now, share).unwrap(), &bucket),
                _ => peers.tick(Some(b), world::at(a)),
            }
            bucket.advance(now, &peers);
            prop_assert!(bucket.level() >= 0);
            let line = bucket.bucket();
            prop_assert!(line.tokens() <= bucket.policy().capacity_micros());
            prop_assert!(line.tokens() >= -MAX_DEBT);
            prop_assert!(bucket.remaining(WHOLE) <= bucket.policy().capacity().cast_signed());
            prop_assert!(bucket.remaining(share) <= bucket.remaining(WHOLE));
            prop_assert_eq!(bucket.remaining(share) < 0, bucket.remaining(WHOLE) < 0);
            let whole = line.tokens().div_euclid(MICRO.cast_signed());
            let deepest = line.tokens() == -MAX_DEBT && bucket.remaining(WHOLE) < whole;
            prop_assert!(whole == bucket.remaining(WHOLE) || deepest);
            prop_assert!(least >= 0 && bucket.debits().fraction < unit(bucket.policy()).unsigned_abs() as u64);
        }
    }
}

fn check(answer: &Answer, bucket: &SharedBucket) {
    assert_eq!(answer.capacity, bucket.policy().capacity());
    assert!(answer.remaining <= answer.capacity.cast_signed());
    assert_eq!(answer.reset_after == Wait::Ms(0), bucket.is_full());
}

/// Below empty there is more than a field can hold only where the policy is beyond reason; then as
/// much as it holds is kept.
#[test]
fn the_deepest_debt() {
    let policy = Policy::new(MAX_TOKENS, 0, 1_000).unwrap();
    let mut bucket = SharedBucket::full(policy, Weight::ONE, START);
    for _ in 0..3 {
        bucket.debit(None, u64::MAX).unwrap();
    }
    let (line, debits) = (bucket.bucket(), bucket.debits());
    assert_eq!(line.tokens(), -MAX_DEBT);
    let again = SharedBucket::new(&line, debits);
    assert_eq!(again.level(), capacity(policy) + i128::from(MAX_DEBT) * unit(policy));
    assert_eq!(again.remaining(WHOLE), -MAX_DEBT / MICRO.cast_signed());
    // A bucket that nobody shares goes no deeper.
    let mut bucket = Bucket::full(policy, Weight::ONE, START);
    for _ in 0..20 {
        bucket.debit(u64::MAX);
    }
    assert_eq!(bucket.tokens(), -MAX_DEBT);
}

/// A share has no room for some calls: they wait for the peers, and are told the
/// time at the whole share.
#[test]
fn what_a_share_has_no_room_for() {
    let policy = Policy::new(100, 10 * MICRO, 1_000).unwrap();
    let mut bucket = SharedBucket::full(policy, Weight::ONE, START);
    bucket.debit(None, 80 * MICRO).unwrap();
    // Tokens, share; taken, retry_after.
    let table = [
        (20, 1_000, 20, Wait::Ms(0)),
        (30, 1_000, 0, Wait::Ms(1_000)),
        (1, 500, 0, Wait::Ms(6_200)),
        (50, 500, 0, Wait::Ms(16_000)),
        (51, 500, 0, Wait::Ms(3_100)),
        (20, 100, 0, Wait::Ms(1_000)),
        (1, 1, 0, Wait::Ms(8_000_000)),
        (101, 500, 0, Wait::Never),
        (101, 1_000, 0, Wait::Never),
    ];
    for (tokens, share, taken, retry_after) in table {
        let answer = bucket.clone().take(None, Demand::all(tokens), START, share).unwrap();
        assert_eq!((answer.taken, answer.retry_after), (taken, retry_after), "{tokens} {share}");
    }
}
