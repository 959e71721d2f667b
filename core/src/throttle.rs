//! `CL.THROTTLE`: redis-cell's arguments as a policy.

use crate::limits::{MAX_INTERVAL_MS, MAX_TOKENS, MICRO};
use crate::policy::Asked;

const MS_PER_SECOND: u64 = 1_000;

/// Which argument of `CL.THROTTLE` is out of bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThrottleError {
    /// `max_burst` is not 0..=10^12 - 1.
    MaxBurst,
    /// `count` is not 1..=10^12.
    Count,
    /// `period` is not 1..=31622400 seconds (366 days).
    Period,
}

/// The policy of `max_burst count period`: the capacity is one above the burst,
/// and `count` tokens come back every `period` seconds.
///
/// # Errors
/// Names the argument that is out of bounds.
pub fn policy(max_burst: u64, count: u64, period: u64) -> Result<Asked, ThrottleError> {
    if max_burst >= MAX_TOKENS {
        return Err(ThrottleError::MaxBurst);
    }
    if !(1..=MAX_TOKENS).contains(&count) {
        return Err(ThrottleError::Count);
    }
    let interval_ms = period.saturating_mul(MS_PER_SECOND);
    if period == 0 || interval_ms > MAX_INTERVAL_MS {
        return Err(ThrottleError::Period);
    }
    Ok(Asked {
        capacity: Some(max_burst.saturating_add(1)),
        refill: Some((count.saturating_mul(MICRO), interval_ms)),
    })
}
