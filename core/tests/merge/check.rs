//! The checker: what is broken it finds, with a small counterexample, and nothing
//! else.

use crate::any;
use claw_core::bucket::{Bucket, Weight};
use claw_core::limits::MICRO;
use claw_core::merge::{Join, State};
use claw_core::policy::Policy;
use claw_core::verify::{Counterexample, Failure, Law, verify};
use proptest::prelude::*;

/// Whole seconds, as the command uses.
const NOW: u64 = any::NOW;

/// In millionths.
const TOKEN: i64 = MICRO.cast_signed();

type Outcome = Result<State, Failure<()>>;

fn report(
    merge: impl Fn(&State, &State) -> Outcome,
    samples: u64,
    seed: u64,
) -> Vec<Counterexample> {
    let mut merge = |a: &State, b: &State| merge(a, b);
    let report = verify(&mut merge, Policy::DEFAULT, samples, seed, NOW, &mut || true).unwrap();
    assert_eq!(report.samples, samples);
    report.broken
}

fn broken(report: &[Counterexample]) -> Vec<&'static str> {
    let laws = Law::ALL.into_iter();
    laws.filter(|law| report.iter().any(|found| found.law == *law)).map(Law::name).collect()
}

/// Tokens now, in millionths.
fn available(state: &State) -> i64 {
    let mut bucket = state.bucket;
    bucket.advance(NOW);
    bucket.tokens()
}

fn weight(state: &State) -> u64 {
    u64::from(state.bucket.weight().get())
}

/// A state of now, as a function returns it.
fn now(tokens: i64, weight: u64) -> Outcome {
    let policy = Policy::DEFAULT;
    if tokens > policy.capacity_micros() {
        return Err(Failure::AboveCapacity);
    }
    let bucket = Bucket::new(policy, Weight::new(weight).unwrap(), tokens, 0, NOW);
    Ok(State::of(bucket, None))
}

/// min(tokens) * max(weight), cut at the capacity, timestamp = now.
fn published(a: &State, b: &State) -> Outcome {
    let greatest = weight(a).max(weight(b));
    let tokens = available(a).min(available(b)).saturating_mul(greatest.cast_signed());
    now(tokens.min(Policy::DEFAULT.capacity_micros()), greatest)
}

fn average(a: &State, b: &State) -> Outcome {
    now(i64::midpoint(available(a), available(b)), weight(a).max(weight(b)))
}

fn sum(a: &State, b: &State) -> Outcome {
    now(available(a) + available(b), weight(a).max(weight(b)))
}

fn local(a: &State, _: &State) -> Outcome {
    Ok(*a)
}

fn remote(_: &State, b: &State) -> Outcome {
    Ok(*b)
}

type Merge = fn(&State, &State) -> Outcome;

/// Merges, and the laws that they break.
fn table() -> [(&'static str, Merge, &'static [&'static str]); 12] {
    [
        ("max", |a, b| Ok(a.join(b, Join::Max)), &["inflationary"]),
        ("min", |a, b| Ok(a.join(b, Join::Min)), &[]),
        ("weighted", |a, b| Ok(a.join(b, Join::Weighted)), &[]),
        ("lww", |a, b| Ok(a.join(b, Join::Lww)), &[]),
        ("fewest", |a, b| now(available(a).min(available(b)), weight(a).max(weight(b))), &[]),
        ("published", published, &["associative", "idempotent", "inflationary"]),
        ("average", average, &["associative", "inflationary"]),
        ("sum", sum, &["idempotent", "inflationary", "within-capacity"]),
        ("local", local, &["commutative"]),
        ("remote", remote, &["commutative", "inflationary"]),
        ("nothing", |_, _| now(0, 1), &["idempotent"]),
        (
            "half of local",
            |a, _| now(available(a) / 2, weight(a)),
            &["commutative", "associative", "idempotent"],
        ),
    ]
}

#[test]
fn what_it_finds() {
    for (name, merge, expected) in table() {
        for seed in 0..20 {
            assert_eq!(broken(&report(merge, 2_000, seed)), expected, "{name}, seed {seed}");
        }
    }
}

/// Whole tokens, and 3 at the most, where the capacity is not what it is about.
#[test]
fn counterexamples_are_small() {
    for (name, merge, _) in table() {
        for seed in 0..20 {
            for Counterexample { law, states } in report(merge, 2_000, seed) {
                let most = states.iter().map(|state| state.bucket.remaining()).max().unwrap();
                let allowed = if law == Law::WithinCapacity { 1_000 } else { 3 };
                assert!(most <= allowed, "{name}, seed {seed}, {law:?}: {states:?}");
                let whole = states.iter().all(|state| {
                    state.bucket.tokens() % TOKEN == 0 && state.bucket.remainder() == 0
                });
                assert!(whole, "{name}, seed {seed}, {law:?}: {states:?}");
            }
        }
    }
}

/// The counterexamples do break the laws, checked by hand.
#[test]
fn a_counterexample_is_one() {
    let same = |a: &State, b: &State| a.same_from(b, NOW);
    for (name, merge) in [
        ("published", published as fn(&State, &State) -> Outcome),
        ("average", average),
        ("sum", sum),
        ("local", local),
        ("remote", remote),
    ] {
        for seed in 0..20 {
            for Counterexample { law, states } in report(merge, 1_000, seed) {
                let really = match (law, states.as_slice()) {
                    (Law::Commutative, [a, b]) => {
                        !same(&merge(a, b).unwrap(), &merge(b, a).unwrap())
                    }
                    (Law::Associative, [a, b, c]) => {
                        let left = merge(&merge(a, b).unwrap(), c).unwrap();
                        !same(&left, &merge(a, &merge(b, c).unwrap()).unwrap())
                    }
                    (Law::Idempotent, [a]) => !same(&merge(a, a).unwrap(), a),
                    (Law::Inflationary, [taken, stale]) => {
                        available(&merge(taken, stale).unwrap()) > available(taken)
                    }
                    (Law::WithinCapacity, [a, b]) => merge(a, b) == Err(Failure::AboveCapacity),
                    (law, states) => panic!("{law:?} of {states:?}"),
                };
                assert!(really, "{name}, seed {seed}, {law:?}: {states:?}");
            }
        }
    }
}

/// Of the inflationary law, the counterexample is a bucket and the same bucket
/// before a take: as many shares, and a whole number of tokens more.
#[test]
fn a_stale_copy_is_one() {
    for seed in 0..50 {
        let max = |a: &State, b: &State| Ok(a.join(b, Join::Max));
        let report = report(max, 2_000, seed);
        let [Counterexample { law: Law::Inflationary, states }] = report.as_slice() else {
            panic!("{report:?}");
        };
        let [taken, stale] = states.as_slice() else { panic!("{states:?}") };
        assert_eq!(weight(taken), weight(stale), "seed {seed}");
        let gone = available(stale).checked_sub(available(taken)).unwrap();
        assert!(gone > 0 && gone % TOKEN == 0, "seed {seed}: {states:?}");
    }
}

/// Making a counterexample small must not leave the law: a state of another weight
/// is no stale copy, whatever the merge does with it.
#[test]
fn a_counterexample_stays_within_its_law() {
    // Takes the greater of buckets of different weight, which is no offence; and of
    // buckets of one weight from 10 tokens on, which is.
    let odd = |a: &State, b: &State| {
        let gives = weight(a) != weight(b) || available(a) >= 10 * TOKEN;
        now(if gives { available(a).max(available(b)) } else { available(a) }, weight(a))
    };
    for seed in 0..20 {
        let report = report(odd, 2_000, seed);
        let found = report.iter().find(|found| found.law == Law::Inflationary).unwrap();
        let [taken, stale] = found.states.as_slice() else { panic!("{found:?}") };
        assert_eq!(weight(taken), weight(stale), "seed {seed}: {found:?}");
    }
}

#[test]
fn the_same_seed_the_same_report() {
    let max = |a: &State, b: &State| Ok(a.join(b, Join::Max));
    for seed in [0, 1, 7, u64::MAX] {
        assert_eq!(report(published, 500, seed), report(published, 500, seed));
        assert_eq!(report(max, 500, seed), report(max, 500, seed));
    }
    // Other seeds, other states.
    let seen = |seed: u64| {
        let mut seen = Vec::new();
        let mut merge = |a: &State, b: &State| -> Outcome {
            seen.push((*a, *b));
            Ok(a.join(b, Join::Min))
        };
        verify(&mut merge, Policy::DEFAULT, 20, seed, NOW, &mut || true).unwrap();
        seen
    };
    assert_eq!(seen(1), seen(1));
    assert_ne!(seen(1), seen(2));
}

/// What distinguishes two states.
fn numbers(state: &State) -> [u64; 3] {
    [state.bucket.tokens().cast_unsigned(), state.bucket.timestamp(), weight(state)]
}

/// The same for both orders of a pair (FNV-1a, then a finalizer).
fn pair_hash(a: &State, b: &State) -> u64 {
    let hash = |state: &State| {
        let bytes = numbers(state).into_iter().flat_map(u64::to_le_bytes);
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    };
    let mixed = hash(a).wrapping_add(hash(b));
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32
}

/// A merge that depends on the order for one pair in 300 is found in 2000 samples.
#[test]
fn one_pair_in_300() {
    let rare = |a: &State, b: &State| {
        if pair_hash(a, b).is_multiple_of(300) {
            return now(if numbers(a) < numbers(b) { 0 } else { TOKEN }, 1);
        }
        Ok(a.join(b, Join::Min))
    };
    let found = (0..100)
        .filter(|seed| broken(&report(rare, 2_000, *seed)).contains(&"commutative"))
        .count();
    assert!(found >= 99, "{found} of 100 seeds");
}

/// The work is bounded: about ten merges a sample, and some hundreds for each law
/// that is broken.
#[test]
fn how_often_it_merges() {
    let count = |merge: fn(&State, &State) -> Outcome, samples: u64| {
        let mut calls = 0_u64;
        let mut counted = |a: &State, b: &State| {
            calls += 1;
            merge(a, b)
        };
        verify(&mut counted, Policy::DEFAULT, samples, 3, NOW, &mut || true).unwrap();
        calls
    };
    assert_eq!(count(published, 0), 0);
    let sound: fn(&State, &State) -> Outcome = |a, b| Ok(a.join(b, Join::Min));
    assert!(count(sound, 1_000) <= 10_000);
    for merge in [published, average, sum, local, remote] {
        let calls = count(merge, 1_000);
        assert!(calls <= 10_000 + 5 * 4 * 400, "{calls}");
    }
}

/// Whoever has no more time gets what was found until then, of one sample at least.
#[test]
fn when_it_may_not_go_on() {
    let mut sound = |a: &State, b: &State| -> Outcome { Ok(a.join(b, Join::Min)) };
    for (turns, samples) in [(0, 1), (1, 2), (7, 8), (98, 99), (99, 100), (500, 100)] {
        let mut left = turns;
        let mut goes_on = || {
            left -= 1;
            left >= 0
        };
        let found = verify(&mut sound, Policy::DEFAULT, 100, 3, NOW, &mut goes_on).unwrap();
        assert_eq!((found.samples, found.broken), (samples, vec![]), "{turns}");
    }
    // A counterexample stays one, however little was done to make it small.
    let mut calls = 0;
    let mut bad = |a: &State, b: &State| {
        calls += 1;
        published(a, b)
    };
    let found = verify(&mut bad, Policy::DEFAULT, 100, 3, NOW, &mut || false).unwrap();
    assert_eq!(found.samples, 1);
    assert!(calls <= 11, "{calls}");
}

/// An error of the merge ends the check; too many tokens are no error.
#[test]
fn errors() {
    let mut calls = 0;
    let mut failing = |a: &State, _: &State| {
        calls += 1;
        if calls == 25 { Err(Failure::Error("out of luck")) } else { Ok(*a) }
    };
    let result = verify(&mut failing, Policy::DEFAULT, 100, 0, NOW, &mut || true);
    assert_eq!((result, calls), (Err("out of luck"), 25));

    let above = |_: &State, _: &State| Err(Failure::AboveCapacity);
    assert_eq!(broken(&report(above, 100, 0)), ["within-capacity"]);
}

#[test]
fn the_names_of_the_laws() {
    let names = ["commutative", "associative", "idempotent", "inflationary", "within-capacity"];
    assert_eq!(Law::ALL.map(Law::name), names);
}

proptest! {
    #![proptest_config(any::cases(60))]

    /// Under any policy the built-in strategies are what they claim to be.
    #[test]
    fn the_built_in_strategies(
        policy in any::policy(),
        strategy in any::strategy(),
        seed in any::<u64>(),
        now in any::log_uniform(1 << 52),
    ) {
        let mut merge = |a: &State, b: &State| -> Outcome { Ok(a.join(b, strategy)) };
        let report = verify(&mut merge, policy, 100, seed, now, &mut || true).unwrap();
        let other: Vec<&Counterexample> = report
            .broken
            .iter()
            .filter(|found| strategy != Join::Max || found.law != Law::Inflationary)
            .collect();
        prop_assert!(other.is_empty(), "{:?} {:?}", strategy, other);
    }
}
