//! The laws on random states over the full bounds, exactly and without tolerance.

use crate::any::{self, Family, NOW, same};
use crate::exact;
use claw_core::bucket::{Bucket, Weight};
use claw_core::configured::Configured;
use claw_core::merge::{Join, State};
use claw_core::policy::{Policy, StoredPolicy, Temporary};
use claw_core::record::Record;
use proptest::prelude::*;

/// The same bucket, credited up to `now`.
fn advanced(state: &State, now: u64) -> State {
    let mut state = *state;
    state.bucket.advance(now);
    state
}

fn fits(bucket: &Bucket) -> bool {
    let full = bucket.tokens() == bucket.policy().capacity_micros();
    bucket.tokens() <= bucket.policy().capacity_micros() && (!full || bucket.remainder() == 0)
}

proptest! {
    #![proptest_config(any::cases(3_000))]

    #[test]
    fn commutative_associative_idempotent(
        Family { states: [a, b, c], .. } in any::family::<3>(),
        strategy in any::strategy(),
        later in any::later(),
    ) {
        let join = |a: &State, b: &State| a.join(b, strategy);
        let ab = join(&a, &b);
        prop_assert!(same(&join(&a, &a), &a, &later));
        prop_assert!(same(&ab, &join(&b, &a), &later));
        prop_assert!(same(&join(&ab, &a), &ab, &later));
        prop_assert!(same(&join(&ab, &b), &ab, &later));
        prop_assert!(same(&join(&ab, &c), &join(&a, &join(&b, &c)), &later));
        prop_assert!(same(&join(&join(&c, &a), &b), &join(&ab, &c), &later));
        for state in [ab, join(&ab, &c)] {
            prop_assert!(fits(&state.bucket), "{:?}", state);
            for us in later {
                prop_assert!(fits(&advanced(&state, NOW + us).bucket));
            }
        }
    }

    /// Lines that meet, ages of 30 years, 10^12 tokens a millisecond.
    #[test]
    fn as_the_contract_says_in_exact_numbers(
        Family { states: [a, b], .. } in any::family::<2>(),
        strategy in any::strategy(),
        later in any::later(),
    ) {
        let joined = a.join(&b, strategy);
        prop_assert!(exact::agrees(&joined, &a, &b, strategy, &later), "{:?}", joined);
    }

    /// Of any weights, some in debt. (Between three of them the order can decide by how much.)
    #[test]
    fn debts_are_merged_the_same_both_ways_and_as_the_contract_says(
        Family { states: [a, b], .. } in any::in_debt::<2>(),
        strategy in any::strategy(),
        later in any::later(),
    ) {
        let join = |a: &State, b: &State| a.join(b, strategy);
        let ab = join(&a, &b);
        prop_assert!(exact::agrees(&ab, &a, &b, strategy, &later), "{:?}", ab);
        prop_assert!(same(&ab, &join(&b, &a), &later));
        prop_assert!(same(&join(&a, &a), &a, &later));
        prop_assert!(same(&join(&ab, &a), &ab, &later), "{:?}", join(&ab, &a));
        prop_assert!(same(&join(&ab, &b), &ab, &later), "{:?}", join(&ab, &b));
        prop_assert!(fits(&ab.bucket));
    }

    /// But for `weighted` between several weights, the laws hold in debt too.
    #[test]
    fn debts_obey_the_laws_of_the_other_strategies(
        Family { states: [a, b, c], .. } in any::in_debt::<3>(),
        strategy in prop::sample::select(vec![Join::Max, Join::Min, Join::Lww]),
        later in any::later(),
    ) {
        let join = |a: &State, b: &State| a.join(b, strategy);
        let ab = join(&a, &b);
        prop_assert!(same(&join(&ab, &c), &join(&a, &join(&b, &c)), &later));
        prop_assert!(same(&join(&join(&c, &a), &b), &join(&ab, &c), &later));
    }

    /// Between states of one policy, `weighted` leaves at least as much owed as either owes, and
    /// `min` does per share: who is in debt stays in debt.
    #[test]
    fn a_merge_forgives_no_debt(
        Family { states: [a, b, c], .. } in any::plain_in_debt::<3>(),
        strategy in prop::sample::select(vec![Join::Min, Join::Weighted]),
    ) {
        let tokens = |state: &State| {
            let bucket = advanced(state, NOW).bucket;
            exact::held(&bucket)
        };
        let per_share = |state: &State| match strategy {
            Join::Min => tokens(state) / exact::q(state.bucket.weight().get()),
            _ => tokens(state),
        };
        let alike = a.bucket.weight() == b.bucket.weight() && b.bucket.weight() == c.bucket.weight();
        // As all of them are now, so that no line was paid faster than another since.
        let [a, b, c] = [a, b, c].map(|state| advanced(&state, NOW));
        for states in [[a, b, c], [c, a, b], [b, c, a]] {
            let merged = states[0].join(&states[1], strategy).join(&states[2], strategy);
            let least = states.iter().map(per_share).min().unwrap();
            if least < exact::q(0) || alike {
                prop_assert!(per_share(&merged) <= least, "{:?}", merged);
            }
        }
    }

    /// A state that stands for another goes the same way in every merge to come.
    #[test]
    fn what_stands_for_another_can_take_its_place(
        Family { states: [a, b, c], .. } in any::family::<3>(),
        strategy in any::strategy(),
        later in any::later(),
    ) {
        let credited = advanced(&a, NOW);
        let full = credited.bucket.is_full();
        for (one, other) in [(a, credited), (a, b), (a.join(&b, strategy), b.join(&a, strategy))] {
            if one.stands_for(&other, strategy, NOW) {
                let (left, right) = (one.join(&c, strategy), other.join(&c, strategy));
                prop_assert!(same(&left, &right, &later), "{:?} {:?}", left, right);
                prop_assert!(same(&c.join(&one, strategy), &c.join(&other, strategy), &later));
            }
        }
        prop_assert!(a.stands_for(&a, strategy, NOW));
        let rests = strategy == Join::Lww || (full && strategy != Join::Weighted);
        prop_assert!(rests || a.stands_for(&credited, strategy, NOW));
    }

    /// However many states, in whatever order and however often they are merged.
    #[test]
    fn any_order_any_number_of_times(
        Family { states, .. } in any::family::<5>(),
        strategy in any::strategy(),
        order in Just((0..5).chain(0..5).collect::<Vec<usize>>()).prop_shuffle(),
        later in any::later(),
    ) {
        let join = |merged: State, next: &State| merged.join(next, strategy);
        let once = states.iter().fold(states[0], join);
        let often = order.iter().map(|i| &states[*i]).fold(states[order[0]], join);
        prop_assert!(same(&once, &often, &later), "{:?}\n{:?}", once, often);
    }

    /// A state that was credited in between is the same state: by `weighted`.
    #[test]
    fn weighted_does_not_mind_a_credit_in_between(
        Family { states: [a, b, c], .. } in any::family::<3>(),
        at in prop::array::uniform4(any::log_uniform(1 << 45)),
        later in any::later(),
    ) {
        let join = |a: &State, b: &State| a.join(b, Join::Weighted);
        let mut instants = at.map(|us| NOW + us);
        instants.sort_unstable();
        let [t1, t2, t3, t4] = instants;
        let plain = join(&join(&a, &b), &c);
        let credited = join(
            &advanced(&join(&advanced(&a, t1), &advanced(&b, t2)), t3),
            &advanced(&c, t4),
        );
        for us in later {
            prop_assert!(plain.same_from(&credited, t4 + us), "{:?}\n{:?}", plain, credited);
        }
    }

    /// By `max` and `min` so long as weights do not differ.
    #[test]
    fn nor_do_max_and_min_between_equal_weights(
        Family { states: [a, mut b, mut c], .. } in any::plain::<3>(),
        strategy in prop::sample::select(vec![Join::Max, Join::Min]),
        at in prop::array::uniform4(any::log_uniform(1 << 45)),
        later in any::later(),
    ) {
        for state in [&mut b, &mut c] {
            let bucket = state.bucket;
            let record = Record {
                tokens: Some(bucket.tokens()),
                timestamp: Some(bucket.timestamp()),
                weight: Some(a.bucket.weight()),
                remainder: Some(bucket.remainder()),
                ..Record::default()
            };
            *state = record.state(&Configured::new(bucket.policy()).of(b"key"), NOW);
        }
        let join = |a: &State, b: &State| a.join(b, strategy);
        let mut instants = at.map(|us| NOW + us);
        instants.sort_unstable();
        let [t1, t2, t3, t4] = instants;
        let plain = join(&join(&a, &b), &c);
        let credited = join(
            &advanced(&join(&advanced(&a, t1), &advanced(&b, t2)), t3),
            &advanced(&c, t4),
        );
        for us in later {
            prop_assert!(plain.same_from(&credited, t4 + us), "{:?}\n{:?}", plain, credited);
        }
    }

    /// What is not a whole number of shares is dropped: less than a 2520th of the
    /// smallest unit per weight, and nothing is ever added.
    #[test]
    fn next_to_nothing_is_lost_on_the_way_in(
        policy in any::policy(),
        weight in any::weight(),
        tokens in any::<u64>(),
        remainder in any::<u64>(),
    ) {
        let defaults = Configured::new(policy);
        let tokens = tokens.cast_signed() % (policy.capacity_micros() + 1);
        let before = Bucket::new(policy, weight, tokens, remainder, NOW);
        let record = Record {
            tokens: Some(tokens),
            timestamp: Some(NOW),
            weight: Some(weight),
            remainder: Some(remainder),
            ..Record::default()
        };
        let state = record.state(&defaults.of(b"key"), NOW);
        let lost = exact::held(&before) - exact::held(&state.bucket);
        let part = exact::q(1) / exact::q(1_000_000) / exact::q(2_520) / exact::q(policy.interval_us().get());
        prop_assert!(lost >= exact::q(0) && lost < part * exact::q(weight.get()), "{}", lost);
    }
}

/// A state under one of few policies, mostly pinned for a time, with whatever beneath.
fn pinned_for_a_time() -> impl Strategy<Value = State> {
    let policy = || (1..=2_u64).prop_map(|refill| Policy::new(9, refill, 1_000).unwrap());
    let stored = (policy(), prop::option::of(0..=1_u64))
        .prop_map(|(policy, pin)| StoredPolicy { policy, pin });
    let temporary = (policy(), 1..=2_u64, 0..=1_u64).prop_map(|(policy, us, version)| Temporary {
        policy,
        until: NOW + us,
        version,
    });
    let temporary = prop::option::weighted(0.8, temporary);
    (prop::option::of(stored), temporary, 0..=1_i64, 0..=1_u64).prop_map(
        |(stored, temporary, tokens, ago)| {
            let beneath = stored.map_or(Policy::DEFAULT, |stored| stored.policy);
            let in_force = temporary.map_or(beneath, |pin| pin.policy);
            let bucket = Bucket::new(in_force, Weight::ONE, tokens, 0, NOW - ago);
            State::of(bucket, stored).pinned_by(temporary)
        },
    )
}

proptest! {
    #![proptest_config(any::cases(20_000))]

    /// Not a field of a state is left to the order, also where two pins have the same version.
    #[test]
    fn the_laws_hold_to_the_last_field(
        a in pinned_for_a_time(),
        b in pinned_for_a_time(),
        c in pinned_for_a_time(),
        strategy in any::strategy(),
    ) {
        let join = |a: &State, b: &State| a.join(b, strategy);
        let ab = join(&a, &b);
        prop_assert_eq!(join(&a, &a), a);
        prop_assert_eq!(ab, join(&b, &a));
        prop_assert_eq!(join(&ab, &c), join(&a, &join(&b, &c)));
    }
}

/// A full bucket that was credited in between is still the same bucket: by `max`
/// and `min` of different weights too.
///
/// 100 tokens, 1 a second. A bucket that has been full for 100 s is the same as
/// one that was just seen full, for buckets of one weight, and for `weighted`.
/// Between different weights `max` and `min` go by the state as it was written.
#[test]
fn a_full_bucket_is_the_same_whenever_it_was_touched() {
    let policy = claw_core::policy::Policy::new(100, 1_000_000, 1_000).unwrap();
    let state = |tokens: i64, seconds_ago: u64, weight: u64| {
        State::of(
            Bucket::new(
                policy,
                claw_core::bucket::Weight::new(weight).unwrap(),
                tokens * 1_000_000,
                0,
                NOW - seconds_ago * 1_000_000,
            ),
            None,
        )
    };
    for (strategy, weight) in
        [(Join::Max, 1), (Join::Min, 1), (Join::Weighted, 1), (Join::Weighted, 2)]
    {
        let (full, other) = (state(100, 100, weight), state(60, 0, 1));
        let touched = advanced(&full, NOW);
        assert!(full.same_from(&touched, NOW));
        let (untouched, touched) = (other.join(&full, strategy), other.join(&touched, strategy));
        assert!(
            untouched.same_from(&touched, NOW),
            "{strategy:?}: {untouched:?}, but touched {touched:?}"
        );
    }
}
