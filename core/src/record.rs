//! A bucket as the fields of a hash: what is read, and what is to be written.

use crate::bucket::{Bucket, Weight};
use crate::codec::{self, Decoded, RegionStates};
use crate::configured::ConfiguredFor;
use crate::debits::Debits;
use crate::decimal::{self, DecimalError};
use crate::limits::MAX_LEAD_US;
use crate::merge::State;
use crate::policy::{Policy, PolicyTextError, StoredPolicy, Temporary, TemporaryTextError};
use crate::policy_cache::PolicyCache;
use crate::shared::SharedBucket;
use crate::timestamp::{self, TimestampError};
use std::fmt;

/// The fields of a bucket. Any other field of the hash is the user's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// A number: what the bucket held at `timestamp`, to a millionth; negative in debt.
    /// Missing: full.
    Tokens,
    /// Unix microseconds, or RFC 3339. Missing: now.
    Timestamp,
    /// 1..=10. Missing: 1.
    Weight,
    /// See [`StoredPolicy`]. Missing: what is configured for the key.
    Policy,
    /// See [`Temporary`]. Missing: none.
    Temporary,
    /// The part of a millionth of a token held besides `tokens`, as numerator
    /// over 2520 times the interval in microseconds. Missing: 0.
    Remainder,
    /// MessagePack: see [`Debits`]. Missing: the bucket is not shared.
    Debits,
    /// MessagePack: the latest state of each region, where a function folds them.
    Regions,
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
            Self::Temporary => "temporary",
            Self::Remainder => "remainder",
            Self::Debits => "debits",
            Self::Regions => "regions",
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
    /// `temporary` is no temporary pin.
    Temporary(TemporaryTextError),
    /// `remainder` is no integer.
    Remainder,
    /// `debits` is nothing that this module wrote.
    Debits,
    /// `regions` is nothing that this module wrote.
    Regions,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokens(error) => error.fmt(f),
            Self::Timestamp(error) => error.fmt(f),
            Self::Ahead => f.write_str("is more than 30 days ahead of the server's clock"),
            Self::Weight => f.write_str("is not an integer from 1 to 10"),
            Self::Policy(error) => error.fmt(f),
            Self::Temporary(error) => error.fmt(f),
            Self::Remainder => f.write_str("is not an integer of 0 or more"),
            Self::Debits => f.write_str("is not the MessagePack of debit counters"),
            Self::Regions => f.write_str("is not the MessagePack of the regions' states"),
        }
    }
}

/// What a hash says of its bucket; `None` is a missing field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Millionths of a token.
    pub tokens: Option<i64>,
    /// Unix microseconds.
    pub timestamp: Option<u64>,
    /// The refill's multiplier.
    pub weight: Option<Weight>,
    /// The policy, unless it is what is configured for the key.
    pub policy: Option<StoredPolicy>,
    /// The pin over it that ends by itself.
    pub temporary: Option<Temporary>,
    /// Over 2520 times the interval in microseconds.
    pub remainder: Option<u64>,
    /// What regions count, in a bucket that they share.
    pub debits: Option<Box<Debits>>,
    /// The latest state of each region.
    pub regions: Option<Box<RegionStates>>,
    /// Whether the hash has fields of the user's own besides.
    pub foreign: bool,
}

impl Record {
    /// Reads the text of one field into its place. `now` (unix microseconds)
    /// bounds the timestamp.
    ///
    /// # Errors
    /// What is wrong with the text; the record is then as it was.
    #[inline]
    pub fn read(&mut self, field: Field, text: &[u8], now: u64) -> Result<(), FieldError> {
        match field {
            Field::Tokens => {
                self.tokens = Some(decimal::parse_signed(text).map_err(FieldError::Tokens)?);
            }
            Field::Timestamp => {
                let instant = timestamp::parse(text).map_err(FieldError::Timestamp)?;
                if instant > now.saturating_add(MAX_LEAD_US) {
                    return Err(FieldError::Ahead);
                }
                self.timestamp = Some(instant);
            }
            Field::Weight => {
                let weight = decimal::whole(text).ok().and_then(Weight::new);
                self.weight = Some(weight.ok_or(FieldError::Weight)?);
            }
            Field::Policy => {
                self.policy = Some(StoredPolicy::parse(text).map_err(FieldError::Policy)?);
            }
            Field::Temporary => {
                self.temporary = Some(Temporary::parse(text).map_err(FieldError::Temporary)?);
            }
            Field::Remainder => {
                self.remainder = Some(decimal::whole(text).map_err(|_| FieldError::Remainder)?);
            }
            Field::Debits => self.read_debits(text, Box::default())?,
            Field::Regions => {
                let states = codec::decode_regions(text).ok_or(FieldError::Regions)?;
                self.regions = Some(states.into());
            }
        }
        Ok(())
    }

    /// Reads the text of the field `policy`, unless it is known.
    ///
    /// # Errors
    /// As for [`Self::read`].
    #[inline]
    pub fn read_policy(&mut self, text: &[u8], known: &mut PolicyCache) -> Result<(), FieldError> {
        self.policy = Some(known.parse(text).map_err(FieldError::Policy)?);
        Ok(())
    }

    /// Reads the text of the field `debits`, into memory that was used before.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub fn read_debits(&mut self, text: &[u8], mut room: Box<Debits>) -> Result<(), FieldError> {
        if !codec::decode_debits_into(text, &mut room) {
            return Err(FieldError::Debits);
        }
        self.debits = Some(room);
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
            self.temporary.is_some(),
            self.remainder.is_some(),
            self.debits.is_some(),
            self.regions.is_some(),
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

    /// The bucket that regions share, before any credit; `None` when they do not.
    pub(crate) fn shared_at_rest(
        &self,
        configured: &ConfiguredFor<'_>,
        now: u64,
    ) -> Option<SharedBucket> {
        let debits = self.debits.as_deref()?.clone();
        let timestamp = self.timestamp.unwrap_or(now);
        let bucket = self.bucket_at_rest(self.policy_at(configured, timestamp), timestamp);
        Some(SharedBucket::new(&bucket, debits))
    }

    /// Whether the module gives its key no expiry since it does not refill, as it was left: what
    /// expiry it has is its user's, also while a temporary pin lies over it. A block by a call
    /// has one.
    #[must_use]
    pub fn is_bare(&self, configured: &ConfiguredFor<'_>, now: u64) -> bool {
        self.policy_beneath(configured, self.timestamp.unwrap_or(now)).refill() == 0
            && !self.policy.is_some_and(StoredPolicy::blocks_for_a_time)
    }

    /// Whether the hash has any field of a bucket. One that has none is somebody else's.
    #[must_use]
    pub fn is_bucket(&self) -> bool {
        self.fields() > 0
    }

    /// Whether something in it must outlive a full bucket: a pinned policy, a
    /// weight other than 1, or fields of the user's own.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.foreign
            || self.policy.is_some_and(StoredPolicy::is_pinned)
            || self.weight.is_some_and(|weight| weight != Weight::ONE)
    }

    /// The temporary pin that is in force at `now`.
    #[must_use]
    pub fn temporary_at(&self, now: u64) -> Option<Temporary> {
        // After a clock step back it does not come back to life.
        let now = now.max(self.timestamp.unwrap_or(now));
        self.temporary.filter(|temporary| temporary.until > now)
    }

    /// The policy beneath a temporary pin, at an instant: the stored one, else what was
    /// configured.
    pub(crate) fn policy_beneath(&self, configured: &ConfiguredFor<'_>, at: u64) -> Policy {
        self.policy.map_or_else(|| configured.at(at), |stored| stored.policy)
    }

    /// The policy in force at an instant.
    pub(crate) fn policy_at(&self, configured: &ConfiguredFor<'_>, at: u64) -> Policy {
        match self.temporary_at(at) {
            Some(temporary) => temporary.policy,
            None => self.policy_beneath(configured, at),
        }
    }

    /// The bucket at `now` under the policy it was left with, whatever a call
    /// may ask for: the temporary pin, else the stored one, else what is configured.
    #[inline(always)]
    #[must_use]
    pub fn bucket(&self, configured: &ConfiguredFor<'_>, now: u64) -> Bucket {
        let timestamp = self.timestamp.unwrap_or(now);
        let mut bucket = self.bucket_at_rest(self.policy_at(configured, timestamp), timestamp);
        if let Some(temporary) = self.temporary_at(timestamp) {
            bucket.advance(now.min(temporary.until));
            if self.temporary_at(now).is_some() {
                return bucket;
            }
            bucket.switch(self.policy_beneath(configured, temporary.until));
        }
        match self.policy {
            Some(_) => bucket.advance(now),
            None => configured.advance(&mut bucket, now),
        }
        bucket
    }

    /// The bucket as a merge sees it at `now` (unix microseconds): missing fields resolved as any
    /// command would, without crediting it.
    #[must_use]
    pub fn state(&self, configured: &ConfiguredFor<'_>, now: u64) -> State {
        let timestamp = self.timestamp.unwrap_or(now);
        let temporary = self.temporary_at(now);
        let bucket = if let (Some(ended), None) = (self.temporary, temporary)
            && ended.until > timestamp
        {
            // Credited up to its end, the state is a line of the policy beneath.
            self.bucket(configured, configured.clock(ended.until))
        } else if self.policy.is_none() && temporary.is_none() && !configured.holds_since(timestamp)
        {
            // Another policy was configured: credited up to the change, the
            // state is a line of the present policy.
            self.bucket(configured, configured.clock(0))
        } else {
            self.bucket_at_rest(self.policy_at(configured, timestamp), timestamp)
        };
        State::written_at(bucket, self.policy, timestamp).pinned_by(temporary)
    }
}

/// The bucket of a state that was read; its debits are among what it says besides.
impl From<&Decoded> for Record {
    fn from(read: &Decoded) -> Self {
        Self {
            tokens: Some(read.tokens),
            timestamp: Some(read.timestamp),
            weight: Some(read.weight),
            policy: read.policy,
            temporary: read.temporary,
            remainder: Some(read.remainder),
            ..Self::default()
        }
    }
}
