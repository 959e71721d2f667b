//! Random families of states: several of one bucket, over the full bounds.

pub use crate::random::{cases, log_uniform};
use claw_core::bucket::{Bucket, Weight};
use claw_core::defaults::Defaults;
use claw_core::limits::{MAX_INTERVAL_MS, MAX_MICRO_TOKENS, MAX_TOKENS, MAX_WEIGHT};
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
    pub defaults: Defaults,
    pub states: [State; N],
}

/// Where a state lies relative to the one before: near it is where merges go
/// wrong.
#[derive(Debug, Clone, Copy)]
enum Level {
    /// Anywhere.
    Part(u64),
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
fn per_share(bucket: &Bucket, parts: u128) -> u128 {
    let held = u128::from(bucket.tokens()) * parts + u128::from(bucket.remainder());
    held / u128::from(bucket.weight().get())
}

fn state(raw: Raw, before: Option<&State>, policies: &[Option<StoredPolicy>], of: Policy) -> State {
    let [same_policy, same_weight, same_age] = raw.alike;
    let stored = before.filter(|_| same_policy).map_or(policies[raw.policy], |b| b.policy);
    let policy = stored.map_or(of, |stored| stored.policy);
    let weight = before.filter(|_| same_weight).map_or(raw.weight, |b| b.bucket.weight());
    let at = before.filter(|_| same_age).map_or(NOW - raw.age, |b| b.bucket.timestamp());
    let parts = u128::from(policy.interval_us().get()) * 2_520;
    let capacity = policy.capacity_micros();
    let some = (capacity, 0);
    let near = |before: &State, off: i8| {
        let bucket = before.bucket;
        let rate = u128::from(policy.refill()) * 2_520;
        let share = per_share(&bucket, parts);
        let apart = u128::from(at.abs_diff(bucket.timestamp())).saturating_mul(rate);
        let share = if at >= bucket.timestamp() {
            share.saturating_add(apart)
        } else {
            share.saturating_sub(apart)
        };
        let off = u128::from(off.unsigned_abs());
        let share =
            if raw.remainder.is_multiple_of(2) { share + off } else { share - off.min(share) };
        let level = share.saturating_mul(u128::from(weight.get()));
        match u64::try_from(level / parts) {
            Ok(micros) => (micros, u64::try_from(level % parts).unwrap()),
            Err(_) => some,
        }
    };
    let (tokens, remainder) = match (raw.level, before) {
        (Level::Empty, _) => (0, raw.remainder),
        (Level::Full, _) => some,
        (Level::Part(part), _) => (part % (capacity + 1), raw.remainder),
        (Level::Near(off), Some(before)) => near(before, off),
        (Level::Near(_), None) => (capacity / 2, raw.remainder),
        (Level::Same, Some(before)) => (before.bucket.tokens(), before.bucket.remainder()),
        (Level::Same, None) => (capacity / 3, raw.remainder),
    };
    let remainder = u64::try_from(u128::from(remainder) % parts).unwrap();
    let record = Record {
        tokens: Some(tokens),
        timestamp: Some(at),
        weight: Some(weight),
        policy: stored,
        remainder: Some(remainder),
        ..Record::default()
    };
    State::new(&record, &Defaults::new(of), NOW)
}

fn build<const N: usize>(
    default: Policy,
    policies: &[Option<StoredPolicy>],
    raws: [Raw; N],
) -> Family<N> {
    let mut states: Vec<State> = Vec::new();
    for raw in raws {
        states.push(state(raw, states.last(), policies, default));
    }
    Family { defaults: Defaults::new(default), states: states.try_into().unwrap() }
}

/// States under the default policy, options of a call and pins.
pub fn family<const N: usize>() -> impl Strategy<Value = Family<N>> {
    let raws = proptest::array::UniformArrayStrategy::<_, [Raw; N]>::new(raw(7));
    (policy(), policy(), log_uniform(u64::MAX - 1), raws).prop_map(|(default, other, pin, raws)| {
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
        build(default, &policies, raws)
    })
}

/// States that all follow the default policy.
pub fn plain<const N: usize>() -> impl Strategy<Value = Family<N>> {
    let raws = proptest::array::UniformArrayStrategy::<_, [Raw; N]>::new(raw(1));
    (policy(), raws).prop_map(|(default, raws)| build(default, &[None], raws))
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
