//! Random policies, buckets, clocks and calls over the full bounds.

use crate::exact::{Exact, Line, Options, Own, Terms, Want, q};
use crate::hash::{Server, parts, policy};
pub use crate::random::{cases, log_uniform};
use claw_core::decimal::Decimal;
use claw_core::limits::{
    MAX_DEBT, MAX_INTERVAL_MS, MAX_MICRO_TOKENS, MAX_TIMESTAMP_US, MAX_TOKENS, MAX_VERSION,
    MAX_WEIGHT,
};
use claw_core::policy::StoredPolicy;
use proptest::prelude::*;

/// A moment in 2026, where the histories begin.
pub const START: u64 = 1_773_914_400_000_000;

fn capacity() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => log_uniform(MAX_TOKENS).prop_map(|n| n.max(1)),
        2 => 1_u64..=1_000,
        1 => Just(1),
        1 => Just(MAX_TOKENS),
        // What blocks.
        1 => Just(0),
    ]
}

/// Millionths of a token per interval.
fn refill() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => log_uniform(MAX_MICRO_TOKENS),
        2 => (1_u64..=1_000).prop_map(|n| n * 1_000_000),
        2 => (0_u64..=5_000_000).prop_map(|n| n * 2 + 1),
        1 => Just(0),
        1 => Just(1),
        1 => Just(MAX_MICRO_TOKENS),
    ]
}

/// Milliseconds.
fn interval() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => log_uniform(MAX_INTERVAL_MS).prop_map(|n| n.max(1)),
        3 => prop::sample::select(vec![1_000, 60_000, 3_600_000]),
        2 => prop::sample::select(vec![1, 3, 7, 997, MAX_INTERVAL_MS]),
    ]
}

pub fn terms() -> impl Strategy<Value = Terms> {
    (capacity(), refill(), interval()).prop_map(|(capacity, refill, interval)| Terms {
        capacity,
        refill,
        interval,
    })
}

/// Terms under which a bucket does refill.
pub fn refilling() -> impl Strategy<Value = Terms> {
    terms().prop_map(|terms| Terms { refill: terms.refill.max(1), ..terms })
}

pub fn weight() -> impl Strategy<Value = u8> {
    prop_oneof![1 => Just(1), 1 => 1..=MAX_WEIGHT]
}

/// What a call may bring: nothing, a whole policy, or a refill that says how much it holds.
pub fn options() -> impl Strategy<Value = Options> {
    let refill = |terms: Terms| Some((terms.refill, terms.interval));
    prop_oneof![
        1 => Just(Options::default()),
        2 => terms().prop_map(move |terms| Options {
            capacity: Some(terms.capacity),
            refill: refill(terms),
        }),
        1 => refilling().prop_map(move |terms| Options { capacity: None, refill: refill(terms) }),
    ]
}

/// What CL.POLICY may change of a policy.
pub fn changes() -> impl Strategy<Value = Options> {
    (any::<[bool; 2]>(), terms()).prop_map(|([capacity, refill], terms)| Options {
        capacity: capacity.then_some(terms.capacity),
        refill: refill.then_some((terms.refill, terms.interval)),
    })
}

/// What it may hold, in millionths of a token, under terms that are not known yet.
#[derive(Debug, Clone, Copy)]
enum Held {
    /// Between nothing and the capacity.
    Part(u64),
    /// So much is owed: up to the capacity, or more.
    Owed(u64),
}

impl Held {
    fn of(self, terms: Terms) -> i64 {
        let capacity = terms.capacity * 1_000_000;
        match self {
            Self::Part(part) => (part % (capacity + 1)).cast_signed(),
            Self::Owed(debt) if debt % 3 == 0 => -debt.min(MAX_DEBT.unsigned_abs()).cast_signed(),
            Self::Owed(debt) => -(debt % (capacity + 1)).cast_signed(),
        }
    }
}

fn some_held() -> impl Strategy<Value = Held> {
    prop_oneof![
        4 => any::<u64>().prop_map(Held::Part),
        1 => log_uniform(u64::MAX).prop_map(Held::Owed),
    ]
}

/// A bucket on the server and in the model, in the same random state.
pub fn pair() -> impl Strategy<Value = (Server, Exact)> {
    // So that there are numbers for all changes.
    let own = (0..4_u8, terms(), log_uniform(MAX_VERSION / 2));
    // Up to 20 days behind the first call, or up to 20 days ahead of it.
    let lag = (log_uniform(20 * 86_400_000_000), prop::bool::weighted(0.2));
    let foreign = prop::bool::weighted(0.1);
    let state = (some_held(), any::<u64>(), lag, weight(), foreign);
    (terms(), own, prop::option::weighted(0.8, state)).prop_map(
        |(default, (kind, terms, version), state)| {
            let own = match kind {
                0 | 1 => Own::Configured,
                2 => Own::Called(terms),
                _ => Own::Pinned(terms),
            };
            let mut exact = Exact { default, rule: None, bucket: None };
            let Some((some, remainder, (lag, ahead), weight, foreign)) = state else {
                return (Server::new(default), exact);
            };
            let terms = exact.terms(own);
            let at = if ahead { START + lag } else { START - lag };
            // Where it is full, nothing is held besides.
            let micros = some.of(terms);
            let full = micros.cast_unsigned() == terms.capacity * 1_000_000;
            let remainder = if full { 0 } else { remainder % parts(policy(terms)) };
            let part = q(remainder) / q(parts(policy(terms)));
            let tokens = (q(micros) + part) / q(1_000_000);
            exact.bucket = Some(Line { tokens, at, weight, own });

            let mut fields = vec![
                ("tokens", Decimal::signed(micros).to_string()),
                ("timestamp", at.to_string()),
            ];
            if weight != 1 {
                fields.push(("userWeight", weight.to_string()));
            }
            if foreign {
                fields.push(("note", "the user's own".to_owned()));
            }
            if remainder != 0 {
                fields.push(("remainder", remainder.to_string()));
            }
            let pin = matches!(own, Own::Pinned(_)).then_some(version);
            if own != Own::Configured {
                let stored = StoredPolicy { policy: policy(terms), pin };
                fields.push(("policy", stored.to_string()));
            }
            (Server::with(default, &fields), exact)
        },
    )
}

/// A number of tokens, mostly near what the bucket holds.
#[derive(Debug, Clone, Copy)]
pub enum Amount {
    /// So many.
    Exactly(u64),
    /// What there is and so many more or fewer.
    Near(i8),
    /// So many thousandths of the capacity.
    Part(u16),
}

impl Amount {
    pub fn of(self, remaining: i64, capacity: u64) -> u64 {
        match self {
            Self::Exactly(tokens) => tokens,
            Self::Near(more) => u64::try_from(remaining + i64::from(more)).unwrap_or(0),
            Self::Part(permille) => {
                u64::try_from(u128::from(capacity) * u128::from(permille) / 1_000).unwrap()
            }
        }
    }
}

pub fn amount() -> impl Strategy<Value = Amount> {
    prop_oneof![
        2 => log_uniform(MAX_TOKENS).prop_map(Amount::Exactly),
        3 => (0_u64..5).prop_map(Amount::Exactly),
        3 => (-2_i8..=2).prop_map(Amount::Near),
        2 => (0_u16..=1_001).prop_map(Amount::Part),
    ]
}

/// What a call wants when so many tokens are there: mostly it keeps nothing.
#[derive(Debug, Clone, Copy)]
pub struct Wanting {
    pub tokens: Amount,
    pub partial: bool,
    /// Reckoned from what is left.
    pub keep: Option<Amount>,
}

impl Wanting {
    pub fn of(self, remaining: i64, capacity: u64) -> Want {
        let tokens = self.tokens.of(remaining, capacity);
        let left = remaining - tokens.cast_signed();
        let keep = self.keep.map_or(0, |keep| keep.of(left, capacity));
        Want { tokens, partial: self.partial, keep }
    }
}

pub fn wanting() -> impl Strategy<Value = Wanting> {
    (amount(), any::<bool>(), prop::option::weighted(0.3, amount()))
        .prop_map(|(tokens, partial, keep)| Wanting { tokens, partial, keep })
}

/// What a settlement finds: how much was reserved, and how much was used.
#[derive(Debug, Clone, Copy)]
pub struct Settling {
    reserved: Amount,
    used: Amount,
}

impl Settling {
    /// What is used is mostly near what can be had, or be owed.
    pub fn of(self, remaining: i64, capacity: u64) -> (u64, u64) {
        let reserved = self.reserved.of(remaining, capacity);
        let near = reserved.cast_signed() + remaining + capacity.cast_signed();
        (reserved, self.used.of(near, capacity))
    }
}

pub fn settling() -> impl Strategy<Value = Settling> {
    (amount(), amount()).prop_map(|(reserved, used)| Settling { reserved, used })
}

/// What the clock does between two calls.
#[derive(Debug, Clone, Copy)]
pub enum Tick {
    /// Goes on by so many microseconds.
    Ahead(u64),
    /// Is set back by so many microseconds.
    Back(u64),
    /// Goes on by the `retry_after` of the latest reply, give or take so many
    /// microseconds.
    Retry(i16),
    /// Goes on by so many thousandths of the latest `reset_after`.
    Reset(u16),
}

impl Tick {
    /// The clock after `now`, given the latest waits in milliseconds.
    pub fn after(self, now: u64, retry_after: i64, reset_after: i64) -> u64 {
        let us = |ms: i64| u64::try_from(ms).unwrap_or(0).saturating_mul(1_000);
        let then = match self {
            Self::Ahead(step) => now.saturating_add(step),
            Self::Back(step) => now.saturating_sub(step),
            Self::Retry(more) => {
                now.saturating_add(us(retry_after)).saturating_add_signed(i64::from(more))
            }
            Self::Reset(permille) => {
                let step = u128::from(us(reset_after)) * u128::from(permille) / 1_000;
                now.saturating_add(u64::try_from(step).unwrap_or(u64::MAX))
            }
        };
        // Centuries at once would soon end all histories in the year 9999.
        let century = 100 * 366 * 86_400_000_000;
        then.min(now.saturating_add(century)).min(MAX_TIMESTAMP_US)
    }
}

/// A clock that only goes on.
pub fn monotone() -> impl Strategy<Value = Tick> {
    prop_oneof![
        2 => log_uniform(1 << 45).prop_map(Tick::Ahead),
        1 => (0_u64..3_000_000).prop_map(Tick::Ahead),
        1 => (0_i16..=1).prop_map(Tick::Retry),
        4 => (0_u16..=1_100).prop_map(Tick::Reset),
    ]
}

/// A clock that also steps back, sometimes by more than is put up with.
pub fn tick() -> impl Strategy<Value = Tick> {
    prop_oneof![
        6 => monotone(),
        1 => log_uniform(1 << 42).prop_map(Tick::Back),
        1 => (-1_001_i16..=1).prop_map(Tick::Retry),
    ]
}
