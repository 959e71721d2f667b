//! What is decided, in whole numbers.

use claw_core::limits::{MAX_MICRO_TOKENS, MAX_TOKENS};
use claw_core::policy::PolicyError;

const MICRO: f64 = 1e6;
const INTERVAL_MS: u64 = 1_000;

/// Least tokens that a bucket holds: with fewer than two, arrivals that come in pairs lose one.
const LEAST_CAPACITY: f64 = 2.0;

/// The policy of a route's bucket, and how many requests may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Millionths of a token gained per second.
    pub refill_micros: u64,
    /// Whole tokens that the bucket holds at the most.
    pub capacity: u64,
    /// Requests that may be in flight over all edges; `None` without a cap.
    pub in_flight: Option<u64>,
}

impl Policy {
    /// Requests per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.refill_micros as f64 / MICRO
    }

    /// The policy as a bucket has it.
    ///
    /// # Errors
    /// When it is not a policy within [`claw_core::limits`]; what a controller decided always is, as
    /// its bounds are.
    pub fn to_bucket(&self) -> Result<claw_core::policy::Policy, PolicyError> {
        claw_core::policy::Policy::new(self.capacity, self.refill_micros, INTERVAL_MS)
    }
}

/// A policy before it is rounded: requests per second, tokens, requests in flight (infinite: no cap).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Aim {
    /// Requests per second.
    pub rate: f64,
    /// Tokens held at the most.
    pub burst: f64,
    /// Requests in flight.
    pub in_flight: f64,
}

impl Aim {
    /// A bucket that holds `seconds` of `rate`, without a cap.
    #[must_use]
    pub fn of_rate(rate: f64, seconds: f64) -> Self {
        Self { rate, burst: (rate * seconds).max(LEAST_CAPACITY), in_flight: f64::INFINITY }
    }

    /// Whether it can be rounded to a policy.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.rate.is_finite() && self.burst.is_finite() && !self.in_flight.is_nan()
    }

    /// In whole numbers. A cap is rounded up: with `n` in flight, `n < cap` says the same of both.
    #[must_use]
    pub fn round(&self) -> Policy {
        let in_flight =
            self.in_flight.is_finite().then(|| whole(libm::ceil(self.in_flight), 1, MAX_TOKENS));
        Policy {
            refill_micros: whole(libm::round(self.rate * MICRO), 1, MAX_MICRO_TOKENS),
            capacity: whole(libm::round(self.burst), 2, MAX_TOKENS),
            in_flight,
        }
    }
}

/// `as` is exact for whole numbers in range and saturates elsewhere; NaN is 0, so `least`.
fn whole(x: f64, least: u64, most: u64) -> u64 {
    (x as u64).clamp(least, most)
}
