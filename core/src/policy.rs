//! Capacity, refill and interval of one bucket, and whether they are pinned.

use crate::decimal::{self, Decimal};
use crate::limits::{
    DEFAULT_CAPACITY, DEFAULT_INTERVAL_MS, DEFAULT_REFILL, MAX_INTERVAL_MS, MAX_MICRO_TOKENS,
    MAX_TIMESTAMP_US, MAX_TOKENS, MAX_VERSION, MICRO, MIN_INTERVAL_MS,
};
use std::fmt;
use std::num::NonZeroU64;

const US_PER_MS: u64 = 1_000;

/// Which part of a policy is out of bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyError {
    /// Not 0..=10^12 whole tokens.
    Capacity,
    /// Not 0, nor 0.000001..=10^12 tokens.
    Refill,
    /// Not 1..=31622400000 ms (366 days).
    Interval,
    /// A capacity without a refill is no policy.
    NoRefill,
    /// What never refills holds nothing of itself: it has no capacity to go by.
    NoCapacity,
}

/// How much a bucket holds and how fast it refills. Always within the bounds of
/// [`crate::limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    capacity: i64,
    refill: u64,
    interval: NonZeroU64,
}

impl Policy {
    /// 1000 tokens, 5 a second: what holds when nothing is configured.
    pub const DEFAULT: Self = Self {
        capacity: DEFAULT_CAPACITY.saturating_mul(MICRO).cast_signed(),
        refill: DEFAULT_REFILL.saturating_mul(MICRO),
        interval: NonZeroU64::new(DEFAULT_INTERVAL_MS.saturating_mul(US_PER_MS)).unwrap(),
    };

    /// `capacity` in whole tokens (0 = nothing is ever granted), `refill` in millionths of a token per
    /// interval (0 = never refills), `interval` in milliseconds.
    ///
    /// # Errors
    /// Names the part that is out of bounds.
    pub fn new(capacity: u64, refill: u64, interval_ms: u64) -> Result<Self, PolicyError> {
        if capacity > MAX_TOKENS {
            return Err(PolicyError::Capacity);
        }
        if refill > MAX_MICRO_TOKENS {
            return Err(PolicyError::Refill);
        }
        if !(MIN_INTERVAL_MS..=MAX_INTERVAL_MS).contains(&interval_ms) {
            return Err(PolicyError::Interval);
        }
        Ok(Self {
            capacity: capacity.saturating_mul(MICRO).cast_signed(),
            refill,
            interval: NonZeroU64::new(interval_ms.saturating_mul(US_PER_MS))
                .ok_or(PolicyError::Interval)?,
        })
    }

    /// Millionths of a token that the bucket holds at the most.
    #[must_use]
    pub fn capacity_micros(&self) -> i64 {
        self.capacity
    }

    /// Whole tokens that the bucket holds at the most.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.capacity.cast_unsigned() / MICRO
    }

    /// Millionths of a token gained per interval at weight 1.
    #[must_use]
    pub fn refill(&self) -> u64 {
        self.refill
    }

    /// Length of the interval in microseconds.
    #[must_use]
    pub fn interval_us(&self) -> NonZeroU64 {
        self.interval
    }

    /// Length of the interval in milliseconds.
    #[must_use]
    pub fn interval_ms(&self) -> u64 {
        self.interval.get() / US_PER_MS
    }

    /// Which of two wins where nothing else decides: the greater capacity, the greater refill, the
    /// longer interval.
    pub(crate) fn rank(&self) -> (u64, u64, u64) {
        (self.capacity(), self.refill(), self.interval_ms())
    }
}

/// The content of the `policy` field: `capacity refill/interval`, then `pinned`
/// and the version of the pin when it is pinned. Example: `100 0.5/1000 pinned 3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredPolicy {
    /// The numbers.
    pub policy: Policy,
    /// The version of the pin; `None` when a call brought the policy.
    pub pin: Option<u64>,
}

/// The text is not a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyTextError;

impl fmt::Display for PolicyTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is not 'capacity refill/interval [pinned [version]]' within the bounds")
    }
}

impl StoredPolicy {
    /// Whether it was set on purpose, and not by a call's options.
    #[must_use]
    pub fn is_pinned(self) -> bool {
        self.pin.is_some()
    }

    /// Whether a call brought it, and it grants nothing: it is remembered for an interval.
    #[must_use]
    pub fn blocks_for_a_time(self) -> bool {
        !self.is_pinned() && self.policy.capacity() == 0
    }

    /// Reads the text of a `policy` field. `pinned` without a version is version 0.
    ///
    /// # Errors
    /// When it does not have that form or a number is out of bounds.
    pub fn parse(text: &[u8]) -> Result<Self, PolicyTextError> {
        let mut words = text.split(|&b| b == b' ');
        let policy = numbers(&mut words)?;
        let pin = match (words.next(), words.next(), words.next()) {
            (None, None, None) => None,
            (Some(b"pinned"), None, None) => Some(0),
            (Some(b"pinned"), Some(version), None) => Some(self::version(version)?),
            _ => return Err(PolicyTextError),
        };
        Ok(Self { policy, pin })
    }
}

impl fmt::Display for StoredPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.policy)?;
        match self.pin {
            None => Ok(()),
            Some(version) => write!(f, " pinned {version}"),
        }
    }
}

/// `capacity refill/interval`.
fn numbers<'a>(words: &mut impl Iterator<Item = &'a [u8]>) -> Result<Policy, PolicyTextError> {
    let capacity = words.next().ok_or(PolicyTextError)?;
    let rate = words.next().ok_or(PolicyTextError)?;
    let mut parts = rate.splitn(2, |&b| b == b'/');
    let refill = parts.next().ok_or(PolicyTextError)?;
    let interval = parts.next().ok_or(PolicyTextError)?;
    let refill = decimal::parse_refill(refill).ok_or(PolicyTextError)?;
    Policy::new(integer(capacity)?, refill, integer(interval)?).map_err(|_| PolicyTextError)
}

fn integer(text: &[u8]) -> Result<u64, PolicyTextError> {
    decimal::whole(text).map_err(|_| PolicyTextError)
}

/// The number of a change.
fn version(text: &[u8]) -> Result<u64, PolicyTextError> {
    integer(text).and_then(|version| match version <= MAX_VERSION {
        true => Ok(version),
        false => Err(PolicyTextError),
    })
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (capacity, interval) = (self.capacity(), self.interval_ms());
        write!(f, "{capacity} {}/{interval}", Decimal::new(self.refill))
    }
}

/// A pin that ends by itself, laid over whatever policy there is. The content of the field
/// `temporary`: `capacity refill/interval until end version number`. Example:
/// `10 1/1000 until 1773914400000000 version 4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Temporary {
    /// The numbers.
    pub policy: Policy,
    /// Its end, in unix microseconds.
    pub until: u64,
    /// Which change on purpose it is: see [`StoredPolicy::pin`].
    pub version: u64,
}

/// The text is not a temporary pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TemporaryTextError;

impl fmt::Display for TemporaryTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is not 'capacity refill/interval until time version number' within the bounds")
    }
}

impl Temporary {
    /// Reads the text of a `temporary` field.
    ///
    /// # Errors
    /// When it does not have that form or a number is out of bounds.
    pub fn parse(text: &[u8]) -> Result<Self, TemporaryTextError> {
        let mut words = text.split(|&b| b == b' ');
        let policy = numbers(&mut words).map_err(|_| TemporaryTextError)?;
        let [Some(b"until"), Some(until), Some(b"version"), Some(version), None] =
            [(); 5].map(|()| words.next())
        else {
            return Err(TemporaryTextError);
        };
        let until = integer(until).map_err(|_| TemporaryTextError)?;
        let version = self::version(version).map_err(|_| TemporaryTextError)?;
        if until > MAX_TIMESTAMP_US {
            return Err(TemporaryTextError);
        }
        Ok(Self { policy, until, version })
    }

    /// How long it holds from `now` (unix microseconds) on, in milliseconds, rounded up.
    #[must_use]
    pub fn remaining_ms(&self, now: u64) -> u64 {
        self.until.saturating_sub(now).div_ceil(US_PER_MS)
    }
}

impl fmt::Display for Temporary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} until {} version {}", self.policy, self.until, self.version)
    }
}

/// The policy options of one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// Whole tokens.
    pub capacity: Option<u64>,
    /// Millionths of a token per interval, and the interval in milliseconds.
    pub refill: Option<(u64, u64)>,
}

impl Asked {
    /// Whether the call says nothing about the policy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.capacity.is_none() && self.refill.is_none()
    }

    /// The policy that a call brings, `None` for one that brings none. It is a whole, whatever
    /// the bucket had before: without a capacity, the bucket holds what one interval refills, up
    /// to a whole token.
    ///
    /// # Errors
    /// Names the part that is missing or out of bounds.
    pub fn whole(&self) -> Result<Option<Policy>, PolicyError> {
        let (capacity, refill, interval_ms) = match (self.capacity, self.refill) {
            (None, None) => return Ok(None),
            (Some(_), None) => return Err(PolicyError::NoRefill),
            (None, Some((0, _))) => return Err(PolicyError::NoCapacity),
            (None, Some((refill, interval_ms))) => (refill.div_ceil(MICRO), refill, interval_ms),
            (Some(capacity), Some((refill, interval_ms))) => (capacity, refill, interval_ms),
        };
        Policy::new(capacity, refill, interval_ms).map(Some)
    }

    /// Changes parts of `base`: what is left out stays.
    ///
    /// # Errors
    /// Names the part that is out of bounds.
    pub fn over(&self, base: Policy) -> Result<Policy, PolicyError> {
        let (refill, interval_ms) = self.refill.unwrap_or((base.refill(), base.interval_ms()));
        Policy::new(self.capacity.unwrap_or(base.capacity()), refill, interval_ms)
    }
}
