//! What each strategy loses. The laws make regions agree; they do not make them
//! right: that no take is lost, only the counters of `debit` can do.

use crate::any::{self, NOW};
use crate::hash::Hash;
use claw_core::configured::Configured;
use claw_core::limits::MICRO;
use claw_core::merge::{Join, State};
use claw_core::policy::Policy;
use proptest::prelude::*;

/// 10 tokens, which never refill.
fn ten() -> Configured {
    Configured::new(Policy::new(10, 0, 1_000).unwrap())
}

fn holding(tokens: &str, at: u64) -> Hash {
    Hash::new(&[("tokens", tokens), ("timestamp", &at.to_string())])
}

fn remaining(key: &Hash, defaults: &Configured, now: u64) -> i64 {
    let mut bucket = key.state(defaults, now).bucket;
    bucket.advance(now);
    bucket.remaining()
}

/// Two regions start with 10 tokens; one takes 3, the other 2. 5 are left, truly.
#[test]
fn two_concurrent_takes() {
    let defaults = ten();
    // Microseconds from the take of 3 to the take of 2, and what is left after
    // the regions have exchanged their states.
    let table = [
        // The smaller take counts, the greater is lost.
        (Join::Max, 0, 8),
        (Join::Max, 1, 8),
        (Join::Max, -1, 8),
        // The greater take counts, the smaller is lost.
        (Join::Min, 0, 7),
        (Join::Min, 1, 7),
        (Join::Min, -1, 7),
        (Join::Weighted, 0, 7),
        (Join::Weighted, 1, 7),
        (Join::Weighted, -1, 7),
        // The later take counts, the earlier is lost; at once, the smaller is.
        (Join::Lww, 0, 7),
        (Join::Lww, 1, 8),
        (Join::Lww, -1, 7),
    ];
    for (strategy, later, left) in table {
        let start = holding("10", NOW);
        let (mut east, mut west) = (start.clone(), start);
        assert!(east.take(3, &defaults, NOW + 10));
        assert!(west.take(2, &defaults, (NOW + 10).saturating_add_signed(later)));
        let (from_east, from_west) = (east.clone(), west.clone());
        east.merge(&from_west, strategy, &defaults, NOW + 20);
        west.merge(&from_east, strategy, &defaults, NOW + 30);
        assert_eq!(east, west, "{strategy:?}");
        assert_eq!(remaining(&east, &defaults, NOW + 40), left, "{strategy:?} {later}");
    }
}

/// A region takes 3 of 10 and then gets back its own state of before.
#[test]
fn a_stale_copy_of_oneself() {
    let defaults = ten();
    let table = [
        // `max` gives the taken tokens back, by its nature: it cannot tell a
        // stale copy from a bucket that holds more.
        (Join::Max, 10),
        (Join::Min, 7),
        (Join::Weighted, 7),
        (Join::Lww, 7),
    ];
    for (strategy, left) in table {
        let stale = holding("10", NOW);
        let mut key = stale.clone();
        assert!(key.take(3, &defaults, NOW));
        key.merge(&stale, strategy, &defaults, NOW);
        assert_eq!(remaining(&key, &defaults, NOW), left, "{strategy:?}");
    }
}

/// `lww` forgets an older take as soon as anybody writes a later state, also one
/// who has not heard of the take. `min` keeps the fewest of what all have seen.
#[test]
fn a_later_state_of_somebody_who_has_not_heard() {
    let defaults = ten();
    for (strategy, left) in [(Join::Lww, 9), (Join::Max, 9), (Join::Min, 2)] {
        let start = holding("10", NOW);
        let (mut east, mut west) = (start.clone(), start);
        assert!(east.take(8, &defaults, NOW + 1));
        assert!(west.take(1, &defaults, NOW + 2));
        east.merge(&west, strategy, &defaults, NOW + 3);
        assert_eq!(remaining(&east, &defaults, NOW + 3), left, "{strategy:?}");
    }
}

/// The configuration changes while a copy of before is on its way. In a merge by
/// age the copy is as old as before; the take after it stands.
#[test]
fn a_stale_copy_from_before_a_change_of_the_configuration() {
    for strategy in [Join::Min, Join::Weighted, Join::Lww] {
        let mut defaults = ten();
        let stale = holding("10", NOW);
        let mut key = stale.clone();
        defaults.set_default(Policy::new(11, 0, 1_000).unwrap(), NOW + 1);
        assert!(key.take(3, &defaults, NOW + 2));
        for (local, remote) in [(&key, &stale), (&stale, &key)] {
            let merged = local.merged(remote, strategy, &defaults, NOW + 3);
            assert_eq!(remaining(&merged, &defaults, NOW + 3), 7, "{strategy:?}");
        }
    }
}

fn credited(state: &State, now: u64) -> (i64, u64) {
    let mut bucket = state.bucket;
    bucket.advance(now);
    (bucket.tokens(), bucket.remainder())
}

proptest! {
    #![proptest_config(any::cases(3_000))]

    /// Takes, with copies of earlier states merged in between: never more than
    /// without the merges, now and later.
    #[test]
    fn stale_copies_give_nothing_back(
        family in any::family::<1>(),
        strategy in prop::sample::select(vec![Join::Min, Join::Weighted, Join::Lww]),
        steps in prop::collection::vec((any::log_uniform(1 << 40), 0_u64..4, any::<u8>(), any::<bool>()), 1..8),
        later in any::later(),
    ) {
        let any::Family { defaults, states: [state] } = family;
        let mut plain = Hash::holding(&state);
        let mut merged = plain.clone();
        let mut past = vec![plain.clone()];
        let mut now = NOW;
        for (elapsed, parts, which, swap) in steps {
            now += elapsed;
            let there = remaining(&plain, &defaults, now).max(0).unsigned_abs();
            let tokens = there / 4 * parts + u64::from(parts == 1 && there > 0);
            prop_assert_eq!(
                plain.take(tokens, &defaults, now),
                merged.take(tokens, &defaults, now)
            );
            let stale = &past[usize::from(which) % past.len()];
            merged = if swap {
                stale.merged(&merged, strategy, &defaults, now)
            } else {
                merged.merged(stale, strategy, &defaults, now)
            };
            for us in later {
                let (with, without) =
                    (merged.state(&defaults, now), plain.state(&defaults, now));
                prop_assert_eq!(credited(&with, now + us), credited(&without, now + us));
            }
            past.push(plain.clone());
        }
    }
}

/// The most a token can cost: whoever takes while regions do not hear from each
/// other. Each region has all the tokens, by any of these strategies.
#[test]
fn every_region_admits_the_whole_limit_when_cut_off() {
    let defaults = ten();
    for strategy in Join::ALL {
        let start = holding("10", NOW);
        let (mut east, mut west) = (start.clone(), start);
        let admitted = (0..20)
            .map(|us| {
                u64::from(east.take(1, &defaults, NOW + us))
                    + u64::from(west.take(1, &defaults, NOW + us))
            })
            .sum::<u64>();
        assert_eq!(admitted, 20);
        east.merge(&west, strategy, &defaults, NOW + 20);
        assert_eq!(remaining(&east, &defaults, NOW + 20), 0, "{strategy:?}");
        assert_eq!(remaining(&east, &defaults, NOW + 20 + MICRO), 0);
    }
}
