//! The decision: what a bucket holds at an instant, and what may be taken.
//!
//! The bucket is a line: `tokens` at `timestamp`, rising by `refill * weight`
//! every `interval` until it meets `capacity`. Amounts are millionths of a token;
//! what a credit or a merge leaves below a millionth is carried in `remainder`, so
//! that no sequence of reads, takes and merges loses or gains anything against the
//! exact line. Below 0 the bucket is in debt: more was used than there was, and was booked
//! afterwards.

use crate::limits::{MAX_DEBT, MAX_TOKENS, MAX_WEIGHT, MICRO, SHARES};
use crate::policy::Policy;
use crate::wide;
use std::num::NonZeroU64;

pub(crate) const US_PER_MS: NonZeroU64 = NonZeroU64::new(1_000).unwrap();

/// Longest wait that a reply can carry, in milliseconds.
const MAX_WAIT_MS: u64 = i64::MAX.unsigned_abs();

/// A `userWeight`: 1..=10.
///
/// As wide as its neighbours in a bucket: the bytes that would be left over are
/// copied in two pieces each time, for which the processor waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(NonZeroU64);

impl Weight {
    /// The weight of a bucket without a `userWeight` field.
    pub const ONE: Self = Self(NonZeroU64::MIN);

    /// `None` outside 1..=10.
    #[must_use]
    pub fn new(weight: u64) -> Option<Self> {
        NonZeroU64::new(weight).filter(|w| w.get() <= MAX_WEIGHT.into()).map(Self)
    }

    /// 1..=10.
    #[must_use]
    pub fn get(self) -> u8 {
        // 10 at the most: the other bytes are zeros.
        let [low, ..] = self.0.get().to_le_bytes();
        low
    }
}

/// How long until something is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// Milliseconds, rounded up; 0 is now.
    Ms(u64),
    /// It can never be, or not within 2^63 ms.
    Never,
}

impl Wait {
    /// Milliseconds as replies carry them: -1 for never.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        match self {
            Self::Ms(ms) => i64::try_from(ms).unwrap_or(-1),
            Self::Never => -1,
        }
    }

    /// Seconds, rounded up; -1 for never.
    #[must_use]
    pub fn as_seconds(self) -> i64 {
        match self {
            Self::Ms(ms) => i64::try_from(ms.div_ceil(1_000)).unwrap_or(-1),
            Self::Never => -1,
        }
    }
}

/// What a call wants to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Whole tokens; none is a look, which is always granted.
    pub tokens: u64,
    /// Fewer will do, if there is at least one.
    pub partial: bool,
    /// Whole tokens that have to be left afterwards: a reserve for others.
    pub keep: u64,
}

impl Demand {
    /// `tokens`, or nothing.
    #[must_use]
    pub fn all(tokens: u64) -> Self {
        Self { tokens, partial: false, keep: 0 }
    }

    /// What it gets where `remaining` whole tokens are; `None` when it is refused.
    #[must_use]
    pub fn granted(&self, remaining: i64) -> Option<u64> {
        let there = remaining.max(0).cast_unsigned().saturating_sub(self.keep);
        let granted = if self.partial { self.tokens.min(there) } else { self.tokens };
        (self.tokens == 0 || (1..=there).contains(&granted)).then_some(granted)
    }

    /// How many whole tokens have to be there for it to be granted. A partial one succeeds with
    /// the first token, so it waits for one.
    #[must_use]
    pub fn needs(&self) -> u64 {
        match self.tokens {
            0 => 0,
            tokens => (if self.partial { 1 } else { tokens }).saturating_add(self.keep),
        }
    }

    /// How many have to be there for a caller who got `taken`, perhaps none, to get more: none if it
    /// got all.
    #[must_use]
    pub fn needs_after(&self, taken: u64) -> u64 {
        if taken < self.tokens { self.needs() } else { 0 }
    }
}

/// The five numbers that every taking command answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Whole tokens taken (or given back); 0 when refused.
    pub taken: u64,
    /// Whole tokens that the bucket holds at the most.
    pub capacity: u64,
    /// Whole tokens left, rounded down; negative in debt.
    pub remaining: i64,
    /// Until the same call would succeed; 0 when it did.
    pub retry_after: Wait,
    /// Until the bucket is full.
    pub reset_after: Wait,
}

/// One bucket in memory. Never holds more than its capacity, nor less than minus [`MAX_DEBT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    policy: Policy,
    weight: Weight,
    tokens: i64,
    remainder: u64,
    timestamp: u64,
}

impl Bucket {
    /// An empty bucket of the default policy, long ago.
    pub(crate) const DEFAULT: Self = Self {
        policy: Policy::DEFAULT,
        weight: Weight::ONE,
        tokens: 0,
        remainder: 0,
        timestamp: 0,
    };

    /// A full bucket at `timestamp` (unix microseconds).
    #[must_use]
    pub fn full(policy: Policy, weight: Weight, timestamp: u64) -> Self {
        Self { policy, weight, tokens: policy.capacity_micros(), remainder: 0, timestamp }
    }

    /// A bucket with `tokens` (millionths, cut at the capacity and at [`MAX_DEBT`]) and `remainder`
    /// (see [`Self::remainder`], cut below a millionth) at `timestamp`.
    #[must_use]
    pub fn new(
        policy: Policy,
        weight: Weight,
        tokens: i64,
        remainder: u64,
        timestamp: u64,
    ) -> Self {
        let tokens = tokens.max(MAX_DEBT.saturating_neg());
        let mut bucket = Self { policy, weight, tokens, remainder, timestamp };
        bucket.remainder = remainder.min(parts(policy).get().saturating_sub(1));
        bucket.cut();
        bucket
    }

    /// Millionths of a token held at [`Self::timestamp`]; negative in debt.
    #[must_use]
    pub fn tokens(&self) -> i64 {
        self.tokens
    }

    /// The part of a millionth held besides, as numerator over 2520 times the
    /// interval in microseconds.
    #[must_use]
    pub fn remainder(&self) -> u64 {
        self.remainder
    }

    /// The instant of the state, in unix microseconds.
    #[must_use]
    pub fn timestamp(&self) -> u64 {
        self.timestamp
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// The weight, which multiplies the refill.
    #[must_use]
    pub fn weight(&self) -> Weight {
        self.weight
    }

    /// Whether it holds its capacity.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.tokens >= self.policy.capacity_micros()
    }

    /// Credits the refill up to `now` (unix microseconds).
    ///
    /// A clock that stepped back credits nothing and loses nothing: the state
    /// stays where it is until the clock has caught up with it.
    pub fn advance(&mut self, now: u64) {
        let Some(elapsed) = now.checked_sub(self.timestamp).filter(|us| *us > 0) else {
            return;
        };
        self.timestamp = now;
        if self.is_full() {
            return;
        }
        let gained = wide::mul(self.rate(), elapsed);
        let (mut micros, rest) = wide::div_rem(gained, self.policy.interval_us());
        let mut remainder = rest.saturating_mul(SHARES).saturating_add(self.remainder);
        if let Some(below) = remainder.checked_sub(parts(self.policy).get()) {
            micros = micros.saturating_add(1);
            remainder = below;
        }
        let room = self.policy.capacity_micros().abs_diff(self.tokens);
        match u64::try_from(micros) {
            Ok(micros) if micros < room => {
                self.tokens = self.tokens.saturating_add_unsigned(micros);
                self.remainder = remainder;
            }
            _ => {
                self.tokens = self.policy.capacity_micros();
                self.remainder = 0;
            }
        }
    }

    /// Goes on under another policy: keeps the tokens, cut at the new capacity.
    /// Credit the old policy first, with [`Self::advance`].
    pub fn switch(&mut self, policy: Policy) {
        let (old, new) = (self.policy.interval_us(), policy.interval_us());
        if old != new && self.remainder != 0 {
            // Below 2520 times the old interval, and so below 2520 times the new one.
            let (scaled, _) = wide::div_rem(wide::mul(self.remainder, new.get()), old);
            self.remainder = wide::narrow(scaled);
        }
        self.policy = policy;
        self.cut();
    }

    /// Goes on with another weight. Credit the old one first, with
    /// [`Self::advance`].
    pub fn set_weight(&mut self, weight: Weight) {
        self.weight = weight;
    }

    /// Takes what is demanded, or nothing. The bucket must have been advanced to `now`.
    pub fn take(&mut self, demand: Demand, now: u64) -> Answer {
        let taken = demand.granted(self.remaining()).unwrap_or(0);
        self.debit(taken);
        let retry_after = self.until(demand.needs_after(taken), now);
        Answer { retry_after, ..self.answer(taken, now) }
    }

    /// Takes `tokens` whole tokens, whatever there is.
    pub fn debit(&mut self, tokens: u64) {
        self.tokens = self.tokens.saturating_sub(micros(tokens)).max(MAX_DEBT.saturating_neg());
    }

    /// Whole tokens that can be taken until what is owed is as much as the capacity.
    #[must_use]
    pub fn bookable(&self) -> u64 {
        let most = self.policy.capacity_micros().saturating_add(self.tokens);
        u64::try_from(most).map_or(0, |most| most / MICRO)
    }

    /// Gives back `tokens` whole tokens, cut at the capacity. `taken` of the
    /// answer counts the whole tokens that really went back. The bucket must
    /// have been advanced to `now`.
    pub fn give(&mut self, tokens: u64, now: u64) -> Answer {
        let before = self.tokens;
        self.tokens = self.tokens.saturating_add_unsigned(tokens.saturating_mul(MICRO));
        self.cut();
        self.answer(self.tokens.abs_diff(before) / MICRO, now)
    }

    /// What the bucket answers when nothing is to wait for.
    #[must_use]
    pub fn answer(&self, taken: u64, now: u64) -> Answer {
        Answer {
            taken,
            capacity: self.policy.capacity(),
            remaining: self.remaining(),
            retry_after: Wait::Ms(0),
            reset_after: self.until_micros(self.policy.capacity_micros(), now),
        }
    }

    /// Whole tokens that can be taken, rounded down; negative in debt.
    #[must_use]
    pub fn remaining(&self) -> i64 {
        self.tokens.div_euclid(micros(1))
    }

    /// How long from `now` until the bucket holds `tokens` whole tokens, if
    /// nobody takes any; for none there is no wait, even in debt. The bucket must have been
    /// advanced to `now`.
    #[must_use]
    pub fn until(&self, tokens: u64, now: u64) -> Wait {
        if tokens == 0 {
            return Wait::Ms(0);
        }
        self.until_micros(micros(tokens), now)
    }

    /// [`Self::until`] it holds so many millionths; negative: until it owes no more than that.
    fn until_micros(&self, micros: i64, now: u64) -> Wait {
        if micros > self.policy.capacity_micros() {
            return Wait::Never;
        }
        let Some(us) = self.us_until(micros) else {
            return Wait::Never;
        };
        if us == 0 {
            return Wait::Ms(0);
        }
        // After a clock step back the line starts in the future.
        let lead = self.timestamp.saturating_sub(now);
        let ms = wide::div_ceil(us.saturating_add(u128::from(lead)), US_PER_MS);
        match u64::try_from(ms) {
            Ok(ms) if ms <= MAX_WAIT_MS => Wait::Ms(ms),
            _ => Wait::Never,
        }
    }

    /// How long from `now` until `tokens` more can be [booked](Self::bookable).
    #[must_use]
    pub fn until_bookable(&self, tokens: u64, now: u64) -> Wait {
        if tokens == 0 {
            return Wait::Ms(0);
        }
        self.until_micros(micros(tokens).saturating_sub(self.policy.capacity_micros()), now)
    }

    /// Microseconds from [`Self::timestamp`] until the bucket is full, rounded
    /// up; `None` when it never will be.
    #[must_use]
    pub fn us_until_full(&self) -> Option<u128> {
        self.us_until(self.policy.capacity_micros())
    }

    fn us_until(&self, micros: i64) -> Option<u128> {
        if micros <= self.tokens {
            return Some(0);
        }
        let missing = micros.abs_diff(self.tokens);
        let rate = NonZeroU64::new(self.rate())?;
        let units = wide::mul(missing, self.policy.interval_us().get())
            .saturating_sub(u128::from(self.remainder / SHARES));
        Some(wide::div_ceil(units, rate))
    }

    /// Millionths of a token per interval: at most 10^18 * 10, which fits.
    fn rate(&self) -> u64 {
        self.policy.refill().saturating_mul(self.weight.0.get())
    }

    fn cut(&mut self) {
        if self.is_full() {
            self.tokens = self.policy.capacity_micros();
            self.remainder = 0;
        }
    }
}

/// Whole tokens in millionths. Requests are at most 10^12 tokens; sums of
/// several saturate far above any capacity.
const fn micros(tokens: u64) -> i64 {
    const { assert!(MAX_TOKENS.checked_mul(MICRO).is_some()) };
    const MOST: u64 = i64::MAX.unsigned_abs();
    let micros = tokens.saturating_mul(MICRO);
    if micros < MOST { micros.cast_signed() } else { i64::MAX }
}

/// How many parts of [`Bucket::remainder`] make a millionth of a token: at most
/// 366 days in microseconds, times 2520, which fits.
pub(crate) fn parts(policy: Policy) -> NonZeroU64 {
    const SHARES_EACH: NonZeroU64 = NonZeroU64::new(SHARES).unwrap();
    policy.interval_us().saturating_mul(SHARES_EACH)
}
