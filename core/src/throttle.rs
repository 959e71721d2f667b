//! `CL.THROTTLE`: redis-cell's arguments as a policy.

use crate::limits::MICRO;
use crate::policy::{Policy, PolicyError};

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
pub fn policy(max_burst: u64, count: u64, period: u64) -> Result<Policy, ThrottleError> {
    let capacity = max_burst.saturating_add(1);
    let interval_ms = period.saturating_mul(MS_PER_SECOND);
    match Policy::new(capacity, count.saturating_mul(MICRO), interval_ms) {
        Err(PolicyError::Capacity | PolicyError::NoCapacity) => Err(ThrottleError::MaxBurst),
        // What never refills is a policy, but none of redis-cell's.
        _ if count == 0 => Err(ThrottleError::Count),
        Err(PolicyError::Refill | PolicyError::NoRefill) => Err(ThrottleError::Count),
        Err(PolicyError::Interval) => Err(ThrottleError::Period),
        Ok(policy) => Ok(policy),
    }
}
