//! The laws when every state is written to a hash as text and read back between
//! merges, and the merges happen at different instants.

use crate::any::{self, Family, NOW};
use crate::hash::Hash;
use claw_core::bucket::{Bucket, Weight};
use claw_core::configured::Configured;
use claw_core::decimal::Decimal;
use claw_core::merge::{Join, State};
use claw_core::policy::Policy;
use proptest::prelude::*;

/// Instants of merging after [`NOW`], in any order: each server has its own clock.
fn instants() -> impl proptest::strategy::Strategy<Value = [u64; 4]> {
    prop::array::uniform4(any::log_uniform(1 << 45)).prop_map(|later| later.map(|us| NOW + us))
}

/// The same, no further apart than a timestamp may be ahead of a clock.
fn near_instants() -> impl proptest::strategy::Strategy<Value = [u64; 4]> {
    prop::array::uniform4(any::log_uniform(1 << 40)).prop_map(|later| later.map(|us| NOW + us))
}

/// Fields as a person may write them: with some left out that say nothing.
fn person(tokens: Option<i64>, age: u64, weight: Option<u8>, remainder: Option<u64>) -> Hash {
    let texts = [
        ("tokens", tokens.map(|micros| Decimal::signed(micros).to_string())),
        ("timestamp", Some((NOW - age).to_string())),
        ("userWeight", weight.map(|weight| weight.to_string())),
        ("remainder", remainder.map(|remainder| remainder.to_string())),
    ];
    let fields: Vec<(&'static str, String)> =
        texts.into_iter().filter_map(|(name, text)| Some((name, text?))).collect();
    let fields: Vec<(&'static str, &str)> =
        fields.iter().map(|(name, text)| (*name, text.as_str())).collect();
    Hash::new(&fields)
}

fn people() -> impl proptest::strategy::Strategy<Value = Hash> {
    (
        prop::option::weighted(0.8, any::log_uniform(1_200_000_000).prop_map(u64::cast_signed)),
        any::log_uniform(600_000_000),
        prop::option::of(1..=10_u8),
        prop::option::of(any::<u64>()),
    )
        .prop_map(|(tokens, age, weight, remainder)| person(tokens, age, weight, remainder))
}

fn hold(
    keys: &[Hash; 3],
    strategy: Join,
    defaults: &Configured,
    instants: [u64; 4],
    later: [u64; 4],
) -> Result<(), TestCaseError> {
    let [a, b, c] = keys;
    let [t1, t2, t3, t4] = instants;
    let last = t1.max(t2).max(t3).max(t4);
    let same = |left: &Hash, right: &Hash| {
        let (left, right) = (left.state(defaults, last), right.state(defaults, last));
        later.iter().all(|us| left.same_from(&right, last + us))
    };
    let merge = |a: &Hash, b: &Hash, now: u64| a.merged(b, strategy, defaults, now);
    let ab = merge(a, b, t1);
    prop_assert!(same(&merge(a, a, t1), a), "idempotent: {:?}", a);
    prop_assert!(same(&ab, &merge(b, a, t2)), "commutative: {:?}", ab);
    prop_assert!(same(&merge(&ab, b, t2), &ab), "again: {:?}", ab);
    prop_assert!(same(&merge(&ab, a, t3), &ab), "again: {:?}", ab);
    let (left, right) = (merge(&ab, c, t2), merge(a, &merge(b, c, t3), t4));
    prop_assert!(same(&left, &right), "associative: {:?}\n{:?}", left, right);
    let state = left.state(defaults, last);
    prop_assert!(state.bucket.tokens() <= state.bucket.policy().capacity_micros());
    Ok(())
}

proptest! {
    #![proptest_config(any::cases(2_000))]

    #[test]
    fn a_state_is_read_as_it_was_written(
        Family { defaults, states: [a] } in any::family::<1>(),
        now in any::log_uniform(1 << 45),
    ) {
        prop_assert_eq!(Hash::holding(&a).state(&defaults, NOW + now), a);
    }

    #[test]
    fn through_fields(
        Family { defaults, states } in any::family::<3>(),
        strategy in any::strategy(),
        instants in instants(),
        later in any::later(),
    ) {
        hold(&states.map(|state| Hash::holding(&state)), strategy, &defaults, instants, later)?;
    }

    #[test]
    fn of_what_people_write(
        keys in prop::array::uniform3(people()),
        policy in any::policy(),
        ordinary in any::<bool>(),
        strategy in any::strategy(),
        instants in instants(),
        later in any::later(),
    ) {
        let defaults = Configured::new(if ordinary { Policy::DEFAULT } else { policy });
        hold(&keys, strategy, &defaults, instants, later)?;
    }

    /// The default policy changed while the states were on their way: each is
    /// credited at the old rate up to the change, at the new one from there.
    #[test]
    fn across_a_change_of_the_configuration(
        Family { defaults, states } in any::plain::<3>(),
        policy in any::policy(),
        ago in any::log_uniform(1 << 36),
        strategy in prop::sample::select(vec![Join::Max, Join::Min, Join::Weighted]),
        instants in near_instants(),
        later in any::later(),
    ) {
        let mut defaults = defaults;
        defaults.set_default(policy, NOW - ago);
        let keys = states.map(|state| {
            let mut bucket = state.bucket;
            if strategy != Join::Weighted {
                bucket.set_weight(Weight::ONE);
            }
            Hash::holding(&State::of(bucket, state.policy))
        });
        hold(&keys, strategy, &defaults, instants, later)?;
    }

    /// Regions that write, forget and repeat messages agree once all have heard
    /// all, and a further exchange changes nothing.
    #[test]
    fn regions_agree(
        Family { defaults, states: [start] } in any::family::<1>(),
        strategy in any::strategy(),
        steps in prop::collection::vec((0..3_usize, 0..4_usize, 1..5_u64, any::log_uniform(1 << 34)), 0..20),
        later in any::later(),
    ) {
        let mut regions = [(); 3].map(|()| Hash::holding(&start));
        let mut sent: Vec<Hash> = Vec::new();
        let mut now = NOW;
        for (region, what, number, elapsed) in steps {
            now += elapsed;
            let key = &mut regions[region];
            match what {
                0 => drop(key.take(number, &defaults, now)),
                1 => key.give(number, &defaults, now),
                2 => sent.push(key.clone()),
                _ if sent.is_empty() => {}
                _ => {
                    let message = &sent[usize::try_from(number).unwrap() % sent.len()];
                    key.merge(message, strategy, &defaults, now);
                }
            }
        }
        let exchange = |regions: &[Hash; 3], order: [usize; 3]| {
            let mut after = regions.clone();
            for (region, key) in after.iter_mut().enumerate() {
                for other in order.iter().filter(|other| **other != region) {
                    key.merge(&regions[*other], strategy, &defaults, now);
                }
            }
            after
        };
        let once = exchange(&regions, [0, 1, 2]);
        let twice = exchange(&once, [2, 0, 1]);
        for (key, again) in once.iter().zip(&twice) {
            for us in later {
                let seen = |key: &Hash| key.state(&defaults, now);
                prop_assert!(seen(key).same_from(&seen(&once[0]), now + us));
                prop_assert!(seen(key).same_from(&seen(again), now + us));
            }
        }
    }
}

/// Three states of which two look the same: whoever leaves the old fields in
/// place, because the result looks like them, breaks the law of association. What
/// a merge gives has to be written unless it is equal field by field.
#[test]
fn a_result_that_only_looks_the_same_must_be_written() {
    let policy = Policy::new(100, 1_000_000, 1_000).unwrap();
    let state = |tokens: i64, seconds_ago: u64| {
        State::of(
            Bucket::new(policy, Weight::ONE, tokens * 1_000_000, 0, NOW - seconds_ago * 1_000_000),
            None,
        )
    };
    // One line, written down at two instants, and another of an instant between.
    let (old, new, between) = (state(10, 10), state(15, 5), state(3, 7));
    let join = |a: &State, b: &State| a.join(b, Join::Lww);
    assert!(old.same_from(&new, NOW));
    assert_eq!(join(&join(&old, &new), &between), new);
    assert_eq!(join(&old, &join(&new, &between)), new);
    // With the old fields left in place after the first merge, the state of
    // between wins instead.
    assert_eq!(join(&old, &between), between);
}
