//! The scenario and the cases of the guide that the weighted merge is published in,
//! see docs/writing-a-merge.md (published-weighted.lua).

use crate::any::NOW;
use crate::hash::Hash;
use claw_core::bucket::{Bucket, Weight};
use claw_core::configured::Configured;
use claw_core::limits::MICRO;
use claw_core::merge::{Join, State};
use claw_core::policy::{Policy, StoredPolicy};
use claw_core::record::{Field, Record};

/// In millionths.
const TOKEN: i64 = MICRO.cast_signed();

/// 1000 tokens, 5 a second: so many tokens, so many seconds ago, at a weight.
fn state(tokens: i64, seconds_ago: u64, weight: u64) -> State {
    let (weight, at) = (Weight::new(weight).unwrap(), NOW - seconds_ago * MICRO);
    State::of(Bucket::new(Policy::DEFAULT, weight, tokens * TOKEN, 0, at), None)
}

/// Tokens now, and the weight.
fn seen(state: &State) -> (i64, u8) {
    let mut bucket = state.bucket;
    bucket.advance(NOW);
    (bucket.remaining(), bucket.weight().get())
}

#[test]
fn what_wins() {
    use Join::{Lww, Max, Min, Weighted};
    // (tokens, seconds ago, weight) of both, and (tokens now, weight) of the result.
    let table = [
        // Tokens of the same instant and weight.
        (Max, (200, 0, 1), (500, 0, 1), (500, 1)),
        (Min, (200, 0, 1), (500, 0, 1), (200, 1)),
        (Weighted, (200, 0, 1), (500, 0, 1), (200, 1)),
        (Lww, (200, 0, 1), (500, 0, 1), (200, 1)),
        // Of different ages: 200 a minute ago are 500 now, 450 are 450.
        (Max, (200, 60, 1), (450, 0, 1), (500, 1)),
        (Min, (200, 60, 1), (450, 0, 1), (450, 1)),
        (Weighted, (200, 60, 1), (450, 0, 1), (450, 1)),
        (Lww, (200, 60, 1), (450, 0, 1), (450, 1)),
        (Lww, (450, 60, 1), (200, 0, 1), (200, 1)),
        // Per share: 500 of weight 2 are 250 a share, 300 of weight 1 are 300.
        (Max, (300, 0, 1), (500, 0, 2), (300, 1)),
        (Min, (300, 0, 1), (500, 0, 2), (500, 2)),
        (Weighted, (300, 0, 1), (500, 0, 2), (500, 2)),
        // A share refills at the same rate in each.
        (Max, (300, 60, 1), (500, 60, 2), (600, 1)),
        (Min, (300, 60, 1), (500, 60, 2), (1_000, 2)),
        (Weighted, (300, 60, 1), (300, 60, 2), (900, 2)),
    ];
    for (strategy, a, b, expected) in table {
        let (a, b) = (state(a.0, a.1, a.2), state(b.0, b.1, b.2));
        assert_eq!(seen(&a.join(&b, strategy)), expected, "{strategy:?} {a:?} {b:?}");
        assert_eq!(seen(&b.join(&a, strategy)), expected, "{strategy:?} {b:?} {a:?}");
    }
}

/// 200 of weight 1 with 500 of weight 2: 400 of weight 2; and 400 again, however
/// often, in any order and grouping. The published form goes on to 800 and 1000.
#[test]
fn the_published_scenario() {
    let join = |a: &State, b: &State| a.join(b, Join::Weighted);
    let (local, remote) = (state(200, 0, 1), state(500, 0, 2));
    let once = join(&local, &remote);
    let all = [
        once,
        join(&remote, &local),
        join(&once, &remote),
        join(&once, &local),
        join(&remote, &once),
        join(&local, &once),
        join(&once, &once),
        join(&join(&once, &remote), &join(&local, &remote)),
        join(&join(&local, &local), &join(&remote, &remote)),
        (0..100).fold(once, |state, _| join(&state, &remote)),
    ];
    for merged in all {
        assert_eq!(seen(&merged), (400, 2));
        assert_eq!(merged, once);
    }
}

/// The same with keys: written and read again between the merges, minutes apart.
#[test]
fn the_published_scenario_in_keys() {
    let defaults = Configured::new(Policy::DEFAULT);
    let at = NOW.to_string();
    let mut key = Hash::new(&[("tokens", "200"), ("timestamp", &at), ("userWeight", "1")]);
    let remote = Hash::new(&[("tokens", "500"), ("timestamp", &at), ("userWeight", "2")]);
    let expected = Hash::new(&[("tokens", "400"), ("timestamp", &at), ("userWeight", "2")]);
    for minute in 0..5 {
        key.merge(&remote, Join::Weighted, &defaults, NOW + minute * 60 * MICRO);
        assert_eq!(key, expected);
    }
}

#[test]
fn identical_counts_stay_as_they_are() {
    for weights in [(1, 1), (2, 2), (1, 2), (2, 1), (3, 7), (10, 10)] {
        for tokens in [0, 1, 7, 100, 999, 1_000] {
            let (a, b) = (state(tokens, 0, weights.0), state(tokens, 0, weights.1));
            for strategy in Join::ALL {
                let (left, weight) = seen(&a.join(&b, strategy));
                assert_eq!(left, tokens, "{strategy:?} {weights:?}");
                if strategy == Join::Weighted {
                    assert_eq!(u64::from(weight), weights.0.max(weights.1));
                }
            }
        }
    }
}

#[test]
fn the_higher_weight_of_the_other_counts() {
    let table = [
        // 100 a share, times the weight of the other.
        ((100, 0, 1), (500, 0, 2), (200, 2)),
        ((100, 0, 1), (500, 0, 5), (500, 5)),
        ((100, 0, 1), (1_000, 0, 10), (1_000, 10)),
        ((90, 0, 3), (400, 0, 4), (120, 4)),
        // A lower one of the other does not.
        ((100, 0, 2), (500, 0, 1), (100, 2)),
        // It counts for the refill as well: 20 s at 5 a second and share.
        ((100, 20, 1), (900, 20, 3), (600, 3)),
    ];
    for (local, remote, expected) in table {
        let (local, remote) =
            (state(local.0, local.1, local.2), state(remote.0, remote.1, remote.2));
        assert_eq!(seen(&local.join(&remote, Join::Weighted)), expected);
    }
}

#[test]
fn the_capacity_is_the_most() {
    let table = [
        // 900 a share; the other refilled to 1500 a share, had it room.
        ((900, 0, 1), (1_000, 200, 2), (1_000, 2)),
        ((600, 0, 1), (1_000, 200, 10), (1_000, 10)),
        ((1_000, 0, 1), (1_000, 0, 10), (1_000, 10)),
    ];
    for (a, b, expected) in table {
        let (a, b) = (state(a.0, a.1, a.2), state(b.0, b.1, b.2));
        assert_eq!(seen(&a.join(&b, Join::Weighted)), expected);
        assert_eq!(seen(&b.join(&a, Join::Weighted)), expected);
    }
    // A pin of fewer tokens wins over a fuller bucket of any weight.
    let policy = Policy::new(10, MICRO, 1_000).unwrap();
    let small = State::of(
        Bucket::new(policy, Weight::ONE, 8 * TOKEN, 0, NOW),
        Some(StoredPolicy { policy, pin: Some(1) }),
    );
    let merged = state(700, 0, 4).join(&small, Join::Weighted);
    assert_eq!((seen(&merged), merged.policy), ((10, 4), small.policy));
}

/// An older state of the same bucket, in which nothing had been taken yet, does
/// not come back.
#[test]
fn no_way_back_to_an_older_state() {
    let older = state(500, 10, 1);
    let newer = state(5, 0, 1);
    for strategy in [Join::Min, Join::Weighted, Join::Lww] {
        assert_eq!(newer.join(&older, strategy), newer, "{strategy:?}");
        assert_eq!(older.join(&newer, strategy), newer, "{strategy:?}");
    }
    // The default of the guide does go back: see the module `lost`.
    assert_eq!(seen(&newer.join(&older, Join::Max)), (550, 1));
}

/// The pin's version, then a pin of larger numbers; a call's policy over the
/// default, whatever the level.
#[test]
fn the_policy_decides_first() {
    let small = Policy::new(10, 1, 1_000).unwrap();
    let large = Policy::new(20, 1, 1_000).unwrap();
    let stored = |policy, pin| Some(StoredPolicy { policy, pin });
    // From the least to the greatest.
    let ranks = [
        None,
        stored(small, None),
        stored(large, None),
        stored(small, Some(0)),
        stored(large, Some(0)),
        stored(small, Some(1)),
        stored(large, Some(u64::MAX)),
    ];
    for (low, winner) in
        ranks.iter().enumerate().flat_map(|(i, w)| ranks[..i].iter().map(move |l| (l, w)))
    {
        for (tokens, others) in [(0, 9), (9, 0), (9, 9)] {
            let of = |policy: &Option<StoredPolicy>, tokens: i64| {
                let numbers = policy.map_or(Policy::DEFAULT, |stored| stored.policy);
                let bucket = Bucket::new(numbers, Weight::ONE, tokens * TOKEN, 0, NOW);
                State::of(bucket, *policy)
            };
            let (a, b) = (of(low, others), of(winner, tokens));
            for strategy in [Join::Max, Join::Min, Join::Weighted] {
                assert_eq!(a.join(&b, strategy), b, "{strategy:?}");
                assert_eq!(b.join(&a, strategy), b, "{strategy:?}");
            }
        }
    }
}

#[test]
fn names() {
    for strategy in Join::ALL {
        assert_eq!(Join::by_name(strategy.name().as_bytes()), Some(strategy));
        assert_eq!(Join::by_name(strategy.name().to_uppercase().as_bytes()), Some(strategy));
    }
    assert_eq!(Join::ALL.map(Join::name), ["max", "min", "weighted", "lww"]);
    for unknown in ["", "debit", "maximum", "max ", "fn:max", "ma"] {
        assert_eq!(Join::by_name(unknown.as_bytes()), None, "{unknown:?}");
    }
}

/// A field that is missing means what it means to every other command.
#[test]
fn missing_fields() {
    let defaults = Configured::new(Policy::DEFAULT);
    let read = |fields: &[(Field, &str)]| {
        let mut record = Record::default();
        for (field, text) in fields {
            record.read(*field, text.as_bytes(), NOW).unwrap();
        }
        record.state(&defaults.of(b"key"), NOW)
    };
    assert_eq!(read(&[]), state(1_000, 0, 1));
    assert_eq!(read(&[(Field::Tokens, "7")]), state(7, 0, 1));
    assert_eq!(read(&[(Field::Weight, "3")]), state(1_000, 0, 3));
    assert_eq!(read(&[(Field::Timestamp, "2026-03-19T09:59:50Z")]), state(1_000, 10, 1));
}
