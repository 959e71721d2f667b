//! Random families of states: several of one bucket, over the full bounds.

pub use crate::random::{cases, log_uniform};
use claw_core::bucket::{Bucket, Weight};
use claw_core::configured::Configured;
use claw_core::limits::{
    MAX_DEBT, MAX_INTERVAL_MS, MAX_MICRO_TOKENS, MAX_TOKENS, MAX_VERSION, MAX_WEIGHT,
};
use claw_core::merge::State;
use claw_core::policy::{Policy, StoredPolicy};
use claw_core::record::Record;
use proptest::prelude::*;

/// A moment in 2026, the latest instant of all states.
pub const NOW: u64 = 1_773_914_400_000_000;

pub fn policy() -> impl Strategy<Value = Policy> {
    let capacity = prop_oneof![
        3 => log_uniform(MAX_TOKENS).prop_map(|n| n.max(1)),
        3 => 1_u64..=1_000,
        1 => Just(MAX_TOKENS),
        // What blocks.
        1 => Just(0),
    ];
    let refill = prop_oneof![
        3 => log_uniform(MAX_MICRO_TOKENS),
        3 => (1_u64..=1_000).prop_map(|n| n * 1_000_000),
        2 => (0_u64..=5_000_000).prop_map(|n| n * 2 + 1),
        1 => prop::sample::select(vec![0, 1, MAX_MICRO_TOKENS]),
    ];
    let interval = prop_oneof![
        3 => log_uniform(MAX_INTERVAL_MS).prop_map(|n| n.max(1)),
        3 => prop::sample::select(vec![1_000, 60_000, 3_600_000]),
        2 => prop::sample::select(vec![1, 3, 7, 997, MAX_INTERVAL_MS]),
    ];
    (capacity, refill, interval)
        .prop_map(|(capacity, refill, interval)| Policy::new(capacity, refill, interval).unwrap())
}

pub fn weight() -> impl Strategy<Value = Weight> {
    prop_oneof![1 => Just(1), 2 => 1..=MAX_WEIGHT]
        .prop_map(|weight| Weight::new(u64::from(weight)).unwrap())
}

pub fn strategy() -> impl Strategy<Value = claw_core::merge::Join> {
    prop::sample::select(claw_core::merge::Join::ALL.to_vec())
}

/// `N` states of one bucket under one configuration, none later than [`NOW`].
#[derive(Debug, Clone)]
pub struct Family<const N: usize> {
    pub defaults: Configured,
    pub states: [State; N],
}

/// Where a state lies relative to the one before: near it is where merges go
/// wrong.
#[derive(Debug, Clone, Copy)]
enum Level {
    /// Anywhere.
    Part(u64),
    /// So much is owed, where there may be debts.
    Owed(u64),
    Empty,
    Full,
    /// The same line per share, later or earlier, and so many parts off.
    Near(i8),
    /// The same tokens.
    Same,
}

#[derive(Debug, Clone, Copy)]
struct Raw {
    /// Which policy: see [`family`].
    policy: usize,
    /// Whether policy, weight and timestamp are those of the one before.
    alike: [bool; 3],
    weight: Weight,
    level: Level,
    remainder: u64,
    age: u64,
}

fn raw(policies: usize) -> impl Strategy<Value = Raw> {
    let level = prop_oneof![
        4 => any::<u64>().prop_map(Level::Part),
        2 => log_uniform(u64::MAX).prop_map(Level::Owed),
        1 => Just(Level::Empty),
        1 => Just(Level::Full),
        4 => (-2_i8..=2).prop_map(Level::Near),
        1 => Just(Level::Same),
    ];
    let alike = prop::array::uniform3(prop::bool::weighted(0.5));
    let age = prop_oneof![log_uniform(1 << 50), 0..60_000_000_u64];
    let remainder = prop_oneof![Just(0), any::<u64>()];
    (0..policies, alike, weight(), level, remainder, age).prop_map(
        |(policy, alike, weight, level, remainder, age)| Raw {
            policy,
            alike,
            weight,
            level,
            remainder,
            age,
        },
    )
}

/// Parts of a millionth of a token in a share, held by `bucket`.
fn per_share(bucket: &Bucket, parts: i128) -> i128 {
    let held = i128::from(bucket.tokens()) * parts + i128::from(bucket.remainder());
    held.div_euclid(i128::from(bucket.weight().get()))
}

/// What the states of a family may be.
#[derive(Debug, Clone, Copy)]
struct Kind {
    /// Some of them are in debt.
    debts: bool,
    /// All have the weight of the first.
    one_weight: bool,
}

fn state(
    (raw, Kind { debts, one_weight }): (Raw, Kind),
    before: Option<&State>,
    policies: &[Option<StoredPolicy>],
    of: Policy,
) -> State {
    let [same_policy, same_weight, same_age] = raw.alike;
    let same_weight = same_weight || one_weight;
    let stored = before.filter(|_| same_policy).map_or(policies[raw.policy], |b| b.policy);
    let policy = stored.map_or(of, |stored| stored.policy);
    let weight = before.filter(|_| same_weight).map_or(raw.weight, |b| b.bucket.weight());
    let at = before.filter(|_| same_age).map_or(NOW - raw.age, |b| b.bucket.timestamp());
    let parts = i128::from(policy.interval_us().get()) * 2_520;
    let capacity = policy.capacity_micros();
    let full = (capacity, 0);
    let near = |before: &State, off: i8| {
        let bucket = before.bucket;
        let rate = i128::from(policy.refill()) * 2_520;
        let share = per_share(&bucket, parts);
        let apart = i128::from(at) - i128::from(bucket.timestamp());
        let share = share.saturating_add(apart.saturating_mul(rate));
        let level = share.saturating_add(off.into()).saturating_mul(weight.get().into());
        match i64::try_from(level.div_euclid(parts)) {
            Ok(micros) if micros >= 0 || debts => {
                (micros, u64::try_from(level.rem_euclid(parts)).unwrap())
            }
            Ok(_) => (0, 0),
            Err(_) => full,
        }
    };
    let (tokens, remainder) = match (raw.level, before) {
        (Level::Owed(debt), _) if debts => {
            (-(debt % MAX_DEBT.unsigned_abs()).cast_signed(), raw.remainder)
        }
        (Level::Owed(part), _) => (part.cast_signed().rem_euclid(capacity + 1), raw.remainder),
        (Level::Empty, _) => (0, raw.remainder),
        (Level::Full, _) => full,
        (Level::Part(part), _) => (part.cast_signed().rem_euclid(capacity + 1), raw.remainder),
        (Level::Near(off), Some(before)) => near(before, off),
        (Level::Near(_), None) => (capacity / 2, raw.remainder),
        (Level::Same, Some(before)) => (before.bucket.tokens(), before.bucket.remainder()),
        (Level::Same, None) => (capacity / 3, raw.remainder),
    };
    let remainder = u64::try_from(i128::from(remainder) % parts).unwrap();
    let record = Record {
        tokens: Some(tokens),
        timestamp: Some(at),
        weight: Some(weight),
        policy: stored,
        remainder: Some(remainder),
        ..Record::default()
    };
    record.state(&Configured::new(of).of(b"key"), NOW)
}

fn build<const N: usize>(
    default: Policy,
    policies: &[Option<StoredPolicy>],
    raws: [Raw; N],
    kind: Kind,
) -> Family<N> {
    let mut states: Vec<State> = Vec::new();
    for raw in raws {
        states.push(state((raw, kind), states.last(), policies, default));
    }
    Family { defaults: Configured::new(default), states: states.try_into().unwrap() }
}

/// States under the default policy, options of a call and pins. Some are in debt, then of one
/// weight: for others see [`in_debt`].
pub fn family<const N: usize>() -> impl Strategy<Value = Family<N>> {
    let kind = any::<bool>().prop_map(|debts| Kind { debts, one_weight: debts });
    families(kind)
}

/// Of any weights, some of them in debt.
pub fn in_debt<const N: usize>() -> impl Strategy<Value = Family<N>> {
    families(Just(Kind { debts: true, one_weight: false }))
}

/// The same of one policy.
pub fn plain_in_debt<const N: usize>() -> impl Strategy<Value = Family<N>> {
    let raws = proptest::array::UniformArrayStrategy::<_, [Raw; N]>::new(raw(1));
    let kind = Kind { debts: true, one_weight: false };
    (policy(), raws).prop_map(move |(default, raws)| build(default, &[None], raws, kind))
}

fn families<const N: usize>(kind: impl Strategy<Value = Kind>) -> impl Strategy<Value = Family<N>> {
    let raws = proptest::array::UniformArrayStrategy::<_, [Raw; N]>::new(raw(7));
    (policy(), policy(), log_uniform(MAX_VERSION - 1), raws, kind).prop_map(
        |(default, other, pin, raws, kind)| {
            let called = |policy| Some(StoredPolicy { policy, pin: None });
            let pinned = |policy, pin| Some(StoredPolicy { policy, pin: Some(pin) });
            let policies = [
                None,
                None,
                called(default),
                called(other),
                pinned(default, pin),
                pinned(other, pin),
                pinned(default, pin + 1),
            ];
            build(default, &policies, raws, kind)
        },
    )
}

/// States that all follow the default policy, of which none is in debt.
pub fn plain<const N: usize>() -> impl Strategy<Value = Family<N>> {
    let raws = proptest::array::UniformArrayStrategy::<_, [Raw; N]>::new(raw(1));
    let kind = Kind { debts: false, one_weight: false };
    (policy(), raws).prop_map(move |(default, raws)| build(default, &[None], raws, kind))
}

/// Instants after the latest timestamp, in microseconds from it: soon, later, and
/// the one at which `bucket` is full.
pub fn later() -> impl Strategy<Value = [u64; 4]> {
    (0..2_000_000_u64, log_uniform(1 << 45), log_uniform(1 << 50))
        .prop_map(|(soon, then, last)| [0, soon, then, last])
}

/// Whether two states are the same from `now` on, looked at now and later.
pub fn same(a: &State, b: &State, later: &[u64]) -> bool {
    later.iter().all(|us| a.same_from(b, NOW + us))
}
