//! A bucket as the fields of a hash: what is read, and what is to be written.

use crate::bucket::{Bucket, Weight};
use crate::decimal::{self, DecimalError};
use crate::defaults::Defaults;
use crate::limits::MAX_LEAD_US;
use crate::merge::State;
use crate::policy::{Asked, Policy, PolicyError, PolicyTextError, StoredPolicy};
use crate::timestamp::{self, TimestampError};
use std::fmt;

/// The fields of a bucket. Any other field of the hash is the user's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Decimal with up to 6 places: what the bucket held at `timestamp`.
    /// Missing: full.
    Tokens,
    /// Unix microseconds, or RFC 3339. Missing: now.
    Timestamp,
    /// 1..=10. Missing: 1.
    Weight,
    /// See [`StoredPolicy`]. Missing: the configured default.
    Policy,
    /// The part of a millionth of a token held besides `tokens`, as numerator
    /// over 2520 times the interval in microseconds. Missing: 0.
    Remainder,
}

impl Field {
    /// The name in the hash.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Timestamp => "timestamp",
            Self::Weight => "userWeight",
            Self::Policy => "policy",
            Self::Remainder => "remainder",
        }
    }
}

/// What is wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldError {
    /// `tokens` is no amount.
    Tokens(DecimalError),
    /// `timestamp` is no instant.
    Timestamp(TimestampError),
    /// `timestamp` is more than 30 days ahead.
    Ahead,
    /// `userWeight` is not 1..=10.
    Weight,
    /// `policy` is no policy.
    Policy(PolicyTextError),
    /// `remainder` is no integer.
    Remainder,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokens(error) => error.fmt(f),
            Self::Timestamp(error) => error.fmt(f),
            Self::Ahead => f.write_str("is more than 30 days ahead of the server's clock"),
            Self::Weight => f.write_str("is not an integer from 1 to 10"),
            Self::Policy(error) => error.fmt(f),
            Self::Remainder => f.write_str("is not an integer of 0 or more"),
        }
    }
}

/// What a hash says of its bucket; `None` is a missing field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Record {
    /// Millionths of a token.
    pub tokens: Option<u64>,
    /// Unix microseconds.
    pub timestamp: Option<u64>,
    /// The refill's multiplier.
    pub weight: Option<Weight>,
    /// The policy, unless it is the default.
    pub policy: Option<StoredPolicy>,
    /// Over 2520 times the interval in microseconds.
    pub remainder: Option<u64>,
    /// Whether the hash has fields of the user's own besides.
    pub foreign: bool,
}

impl Record {
    /// Reads the text of one field into its place. `now` (unix microseconds)
    /// bounds the timestamp.
    ///
    /// # Errors
    /// What is wrong with the text; the record is then as it was.
    pub fn read(&mut self, field: Field, text: &[u8], now: u64) -> Result<(), FieldError> {
        match field {
            Field::Tokens => {
                self.tokens = Some(decimal::parse(text).map_err(FieldError::Tokens)?);
            }
            Field::Timestamp => {
                let instant = timestamp::parse(text).map_err(FieldError::Timestamp)?;
                if instant > now.saturating_add(MAX_LEAD_US) {
                    return Err(FieldError::Ahead);
                }
                self.timestamp = Some(instant);
            }
            Field::Weight => {
                let weight = decimal::digits(text).ok().and_then(Weight::new);
                self.weight = Some(weight.ok_or(FieldError::Weight)?);
            }
            Field::Policy => {
                self.policy = Some(StoredPolicy::parse(text).map_err(FieldError::Policy)?);
            }
            Field::Remainder => {
                self.remainder = Some(decimal::digits(text).map_err(|_| FieldError::Remainder)?);
            }
        }
        Ok(())
    }

    /// How many fields it has of its own in the hash.
    #[must_use]
    pub fn fields(&self) -> usize {
        [
            self.tokens.is_some(),
            self.timestamp.is_some(),
            self.weight.is_some(),
            self.policy.is_some(),
            self.remainder.is_some(),
        ]
        .into_iter()
        .filter(|there| *there)
        .count()
    }

    /// The bucket at `timestamp`, before any credit.
    pub(crate) fn bucket_at_rest(&self, policy: Policy, timestamp: u64) -> Bucket {
        let weight = self.weight.unwrap_or(Weight::ONE);
        match self.tokens {
            None => Bucket::full(policy, weight, timestamp),
            Some(tokens) => {
                Bucket::new(policy, weight, tokens, self.remainder.unwrap_or(0), timestamp)
            }
        }
    }

    /// Whether something in it must outlive a full bucket: a pinned policy, a
    /// weight other than 1, or fields of the user's own.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.foreign
            || self.policy.is_some_and(|stored| stored.pin.is_some())
            || self.weight.is_some_and(|weight| weight != Weight::ONE)
    }

    /// The bucket at `now` under the policy it was left with, whatever a call
    /// may ask for: the stored one, else the default.
    #[must_use]
    pub fn bucket(&self, defaults: &Defaults, now: u64) -> Bucket {
        let timestamp = self.timestamp.unwrap_or(now);
        let policy = self.policy.map_or_else(|| defaults.at(timestamp), |stored| stored.policy);
        let mut bucket = self.bucket_at_rest(policy, timestamp);
        match self.policy {
            Some(_) => bucket.advance(now),
            None => defaults.advance(&mut bucket, now),
        }
        bucket
    }
}

/// A bucket opened by a call: credited up to now under the policy it was left
/// with.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    /// The bucket at the call's instant.
    pub bucket: Bucket,
    /// What its `policy` field has to say from now on.
    pub policy: Option<StoredPolicy>,
    /// `None` for a missing key, which is a full bucket.
    record: Option<Record>,
}

impl Opened {
    /// Opens a bucket at `now` (unix microseconds) as it was left.
    #[must_use]
    pub fn new(record: Option<Record>, defaults: &Defaults, now: u64) -> Self {
        let stored = record.unwrap_or_default();
        let now = defaults.clock(now);
        Self { bucket: stored.bucket(defaults, now), policy: stored.policy, record }
    }

    /// A bucket that a merge has put in the place of `record`.
    #[must_use]
    pub fn merged(record: Option<Record>, state: &State) -> Self {
        Self { bucket: state.bucket, policy: state.policy, record }
    }

    /// Puts the policy in force: the pinned one, else the call's, else the
    /// default. Tokens are kept, cut at the new capacity; a missing bucket is
    /// full whatever the capacity.
    ///
    /// # Errors
    /// When the call's options are out of bounds, even if a pin overrides them.
    pub fn ask(&mut self, asked: &Asked, default: Policy) -> Result<(), PolicyError> {
        let called = asked.over(default)?;
        if self.policy.is_some_and(|stored| stored.pin.is_some()) {
            return Ok(());
        }
        self.policy =
            Some(StoredPolicy { policy: called, pin: None }).filter(|_| !asked.is_empty());
        self.switch(called);
        Ok(())
    }

    /// Pins `policy`, one version after the present pin.
    pub fn pin(&mut self, policy: Policy) {
        let present = self.policy.and_then(|stored| stored.pin);
        if let (Some(_), true) = (present, self.bucket.policy() == policy) {
            return;
        }
        let version = present.unwrap_or(0).saturating_add(1);
        self.policy = Some(StoredPolicy { policy, pin: Some(version) });
        self.switch(policy);
    }

    /// Goes back to the default policy and weight 1.
    pub fn reset(&mut self, default: Policy) {
        self.policy = None;
        self.bucket.set_weight(Weight::ONE);
        self.switch(default);
    }

    fn switch(&mut self, policy: Policy) {
        match self.record {
            Some(_) => self.bucket.switch(policy),
            None => {
                self.bucket = Bucket::full(policy, self.bucket.weight(), self.bucket.timestamp());
            }
        }
    }

    /// The record as it was read; `None` for a missing key.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// Whether policy or weight of an existing bucket are not what is stored, or
    /// it has to refill and has no timestamp yet: without one it never would.
    #[must_use]
    pub fn terms_changed(&self) -> bool {
        self.record.is_some_and(|record| {
            (record.timestamp.is_none() && !self.bucket.is_full())
                || self.policy != record.policy
                || self.bucket.weight() != record.weight.unwrap_or(Weight::ONE)
        })
    }

    /// The record to write for the bucket as it is now.
    ///
    /// The `remainder` field appears with the first remainder and then stays, so
    /// that it need not be deleted again. A weight of 1 is written only where
    /// the field is there already.
    #[must_use]
    pub fn to_record(&self) -> Record {
        let stored = self.record.unwrap_or_default();
        let weight = self.bucket.weight();
        Record {
            tokens: Some(self.bucket.tokens()),
            timestamp: Some(self.bucket.timestamp()),
            weight: Some(weight).filter(|w| *w != Weight::ONE || stored.weight.is_some()),
            policy: self.policy,
            remainder: Some(self.bucket.remainder())
                .filter(|r| *r != 0 || stored.remainder.is_some()),
            foreign: stored.foreign,
        }
    }
}

/// When a key may expire. It must not before its bucket is full, since a missing
/// bucket is a full one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// Something in it has to be kept, or it never fills.
    Never,
    /// From `earliest` on, in unix milliseconds; `set` is a good choice when the
    /// present expiry is not between `earliest` and `latest`.
    At {
        /// The bucket is full.
        earliest: u64,
        /// Not so late that idle buckets pile up.
        latest: u64,
        /// Later than `earliest`, so that the next takes need not move it.
        set: u64,
    },
}

/// Latest expiry that is written, in unix milliseconds.
const MAX_EXPIRY_MS: u128 = 1 << 62;

/// What is added to the time until full, besides half of it.
const EXPIRY_SLACK_US: u128 = 2_000_000;

impl Record {
    /// When the key of this record, whose bucket is `bucket`, may expire.
    #[must_use]
    pub fn expiry(&self, bucket: &Bucket) -> Expiry {
        if self.is_kept() {
            return Expiry::Never;
        }
        let (Some(wait), Some(whole)) = (bucket.us_until_full(), bucket.us_from_empty()) else {
            return match bucket.is_full() {
                true => Self::expiry_in(bucket.timestamp(), 0, 0),
                false => Expiry::Never,
            };
        };
        Self::expiry_in(bucket.timestamp(), wait, whole)
    }

    fn expiry_in(timestamp: u64, wait: u128, whole: u128) -> Expiry {
        let at = |us: u128| {
            let ms = us.saturating_add(u128::from(timestamp)).div_ceil(1_000);
            u64::try_from(ms).ok().filter(|ms| u128::from(*ms) <= MAX_EXPIRY_MS)
        };
        let slack = |us: u128| wait.saturating_add(us / 2).saturating_add(EXPIRY_SLACK_US);
        // `set` grows with the wait, `latest` with the longest wait there is: so
        // what was set once stays good while the bucket refills.
        let latest = slack(whole.max(wait)).saturating_add(EXPIRY_SLACK_US);
        match (at(wait), at(slack(wait))) {
            (Some(earliest), Some(set)) => {
                Expiry::At { earliest, latest: at(latest).unwrap_or(u64::MAX), set }
            }
            _ => Expiry::Never,
        }
    }
}
