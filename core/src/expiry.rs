//! When the key of a bucket may expire.
//!
//! A missing key is a full bucket, so a key must not expire before its bucket is full, and
//! need not be kept for long afterwards. Moving an expiry costs one more command that is
//! replicated: so what is set is later than need be, and moved only when the bucket has come
//! too near to it, or when it has become much too late.

use crate::bucket::US_PER_MS;

/// When a key may expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// Something in it has to be kept, or it never fills.
    Never,
    /// It never refills, and the module gave it no expiry before either: what it has is its user's.
    Own,
    /// From `earliest` on, in unix milliseconds; `set` is a good choice when the
    /// present expiry is not between `earliest` and `latest`.
    At {
        /// The bucket is full, and if it is shared, has been for a while.
        earliest: u64,
        /// Not so late that idle buckets pile up.
        latest: u64,
        /// Later than `earliest`, so that the next takes need not move it.
        set: u64,
    },
}

/// How long a key stays at the least when its expiry is set, in microseconds: a merge can bring
/// a state so old that it has long been full.
const GRACE_US: u64 = 2_000_000;

/// What is added to the time until a bucket is full that regions do not share, besides half of
/// it.
const SLACK_US: u64 = 2_000_000;

/// How much longer than that it may be kept, besides the other half.
const LATE_US: u64 = 10_000_000;

/// How long a shared bucket is kept at the least after it is full, in microseconds: what was
/// counted in it has been told to the other regions by then, or it is known that they do not
/// hear.
pub const LEAST_LINGER_US: u64 = 4_000_000;

/// How long it is kept when its expiry is set.
const LINGER_US: u64 = 12_000_000;

/// How long it is kept at the most.
pub const MOST_LINGER_US: u64 = 20_000_000;

impl Expiry {
    /// Of a bucket that is full `wait` microseconds after `timestamp` (unix microseconds), as it
    /// is written at `now`; `None` for one that never is.
    pub(crate) fn new(timestamp: u64, wait: Option<u128>, shared: bool, now: u64) -> Self {
        // What lies beyond half a million years never is.
        let wait = wait.and_then(|us| u64::try_from(us).ok());
        wait.and_then(|wait| Self::after(timestamp, wait, shared, now)).unwrap_or(Self::Never)
    }

    /// At an instant, in unix microseconds, and neither earlier nor later.
    pub(crate) fn exactly(instant: u64) -> Self {
        let at = instant.div_ceil(US_PER_MS.get());
        Self::At { earliest: at, latest: at, set: at }
    }

    fn after(timestamp: u64, wait: u64, shared: bool, now: u64) -> Option<Self> {
        let full = timestamp.checked_add(wait)?;
        let (least, more, most) = match shared {
            true => (LEAST_LINGER_US, LINGER_US, MOST_LINGER_US),
            false => (0, (wait / 2).checked_add(SLACK_US)?, wait.checked_add(LATE_US)?),
        };
        let set = full.checked_add(more)?.max(now.checked_add(GRACE_US)?);
        let at = |us: u64| us.div_ceil(US_PER_MS.get());
        Some(Self::At {
            earliest: at(full.checked_add(least)?),
            latest: at(full.checked_add(most)?.max(set)),
            set: at(set),
        })
    }

    /// Where a key's present expiry has to be moved to, in unix milliseconds, or
    /// `Some(None)` to nowhere; `None` when it may stay.
    #[must_use]
    pub fn move_from(self, present: Option<u64>) -> Option<Option<u64>> {
        match (self, present) {
            (Self::Never, None) | (Self::Own, _) => None,
            (Self::Never, Some(_)) => Some(None),
            (Self::At { earliest, latest, .. }, Some(at)) if (earliest..=latest).contains(&at) => {
                None
            }
            (Self::At { set, .. }, _) => Some(Some(set)),
        }
    }

    /// Where the walk over all keys has to move the expiry of one that nobody uses, in unix
    /// milliseconds; `None` when it may stay. It is missing, or was set at another share of the
    /// limit, at which the bucket took longer to be full, or less long. That of a bucket that is
    /// `full` is never too early: it would move on for ever.
    #[must_use]
    pub fn mend_from(self, present: Option<u64>, full: bool) -> Option<u64> {
        let Self::At { earliest, latest, set } = self else {
            return None;
        };
        match present {
            Some(at) if at <= latest && (full || at >= earliest) => None,
            _ => Some(set),
        }
    }
}
