//! What the operator allows.

use crate::policy::Policy;
use std::fmt;

/// Within what a controller may decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// What the backend is believed to serve, in millionths of a request per second; where a controller
    /// starts from.
    pub nominal_micros: u64,
    /// What is let through at the least, in millionths of a request per second; at least 1000 of them.
    pub min_micros: u64,
    /// What is let through at the most, in millionths of a request per second.
    pub max_micros: u64,
    /// Most tokens that the bucket may hold, at least 2.
    pub max_capacity: u64,
    /// Microseconds within which a request should be answered: 200 000 unless the operator says else.
    pub sla_us: u64,
    /// By how many per cent the rate may rise in one tick, and by the same factor fall: 900 is a tenfold.
    pub slew_percent: u32,
    /// What holds when there is nothing to go by: the operator's own limit.
    pub fallback: Policy,
}

/// Which bound is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoundsError {
    /// `nominal_micros` is not 1000..=10^15.
    Nominal,
    /// Not 1000 <= `min_micros` <= `max_micros` <= 10^15.
    Rate,
    /// `max_capacity` is not 2..=10^9.
    Capacity,
    /// `sla_us` is not 1000..=3 600 000 000 (1 ms to an hour).
    Sla,
    /// `slew_percent` is not 1..=100 000.
    Slew,
    /// `fallback` is beyond the other bounds.
    Fallback,
}

const MICRO: f64 = 1e6;
const LEAST_MICROS: u64 = 1_000;
const MOST_MICROS: u64 = 1_000_000_000_000_000;
const MOST_TOKENS: u64 = 1_000_000_000;

impl Bounds {
    /// # Errors
    /// Names the first bound that is none.
    pub fn check(&self) -> Result<(), BoundsError> {
        let fallback = &self.fallback;
        let table = [
            ((LEAST_MICROS..=MOST_MICROS).contains(&self.nominal_micros), BoundsError::Nominal),
            (
                (LEAST_MICROS..=self.max_micros).contains(&self.min_micros)
                    && self.max_micros <= MOST_MICROS,
                BoundsError::Rate,
            ),
            ((2..=MOST_TOKENS).contains(&self.max_capacity), BoundsError::Capacity),
            ((1_000..=3_600_000_000).contains(&self.sla_us), BoundsError::Sla),
            ((1..=100_000).contains(&self.slew_percent), BoundsError::Slew),
            (
                (self.min_micros..=self.max_micros).contains(&fallback.refill_micros)
                    && (2..=self.max_capacity).contains(&fallback.capacity)
                    && fallback.in_flight != Some(0),
                BoundsError::Fallback,
            ),
        ];
        table.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Seconds.
    pub(crate) fn sla_s(&self) -> f64 {
        self.sla_us as f64 / MICRO
    }

    /// Requests per second that the backend is believed to serve.
    pub(crate) fn nominal(&self) -> f64 {
        self.nominal_micros as f64 / MICRO
    }

    /// Least and greatest rate, in requests per second.
    pub(crate) fn rates(&self) -> (f64, f64) {
        (self.min_micros as f64 / MICRO, self.max_micros as f64 / MICRO)
    }

    /// The rates that the slew limit leaves after `rate`, in requests per second.
    pub(crate) fn reach(&self, rate: f64) -> (f64, f64) {
        let factor = 1.0 + f64::from(self.slew_percent) / 100.0;
        let (min, max) = self.rates();
        ((rate / factor).clamp(min, max), (rate * factor).clamp(min, max))
    }
}

impl fmt::Display for BoundsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nominal => "the nominal rate must be 0.001 to 1000000000 requests per second",
            Self::Rate => "rates must be 0.001 <= min <= max <= 1000000000 requests per second",
            Self::Capacity => "the greatest capacity must be 2 to 1000000000 tokens",
            Self::Sla => "the SLA must be 1 ms to 1 hour",
            Self::Slew => "the slew limit must be 1 to 100000 per cent",
            Self::Fallback => "the fallback must be within the bounds of rate and capacity",
        })
    }
}

impl std::error::Error for BoundsError {}
