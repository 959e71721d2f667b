//! The inner loop: lets through what the backend delivers, and drains what is too much in flight.
//!
//! Little's law says how many requests may be in flight if each is to stay for a share of the SLA. What
//! exceeds that is drained over the next ticks by admitting fewer than are delivered. Three things keep
//! small and slow backends from being starved by it: the delivery rate is averaged over longer where
//! completions are few; a few requests more than the target, as chance brings them, are no excess; and
//! what the backend itself takes for a request is never counted as a queue. Where the cap is still too low, a probe
//! finds that out.

use crate::bounds::Bounds;
use crate::observation::{Observation, Time};
use crate::policy::Aim;
use crate::probe::Probe;

/// Completions that the delivery rate is averaged over besides the seconds.
const FEW: f64 = 15.0;

/// Seconds that anything is averaged over at the most.
const LONGEST: f64 = 4.0;

/// A queue delays all requests alike, so what the mean exceeds the 10 % quantile by is service: about
/// this share of its mean, for service times that vary as much as they usually do.
const SPREAD: f64 = 0.7;

/// A share of the SLA: the service time is not believed to be longer, nor is the cap raised further than
/// what is delivered in that time.
const LONG: f64 = 0.7;

/// The loop's parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parameters {
    /// Share of the excess that is drained in one tick.
    pub gain: f64,
    /// Least target: a share of the SLA.
    pub target: f64,
    /// Least target: a multiple of the service time.
    pub stretch: f64,
    /// Growth in a tick in which there is no excess and the rate was used.
    pub growth: f64,
    /// Seconds of the rate that the bucket holds.
    pub burst_s: f64,
    /// Seconds that the delivery rate is averaged over.
    pub memory_s: f64,
    /// What is no excess yet, in square roots of the target.
    pub slack: f64,
    /// Cap on what is in flight; `None` where it cannot be capped.
    pub cap: Option<Cap>,
}

/// Parameters of the cap on what is in flight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cap {
    /// The cap over the target.
    pub target: f64,
    /// By how much more a probe lets in: 0.25 is a quarter, 0 is no probe.
    pub probe: f64,
}

impl Parameters {
    /// For requests that pass through: with a cap, the rate may be loose.
    pub const ON_PATH: Self = Self {
        gain: 0.9,
        target: 0.29,
        stretch: 1.4,
        growth: 0.18,
        burst_s: 0.055,
        memory_s: 1.4,
        slack: 1.2,
        cap: Some(Cap { target: 0.7, probe: 0.25 }),
    };

    /// For completions that are heard of late, or not at all.
    pub const OFF_PATH: Self = Self {
        gain: 0.5,
        target: 0.35,
        stretch: 1.3,
        growth: 0.03,
        burst_s: 0.06,
        memory_s: 1.4,
        slack: 0.5,
        cap: None,
    };
}

/// The loop's state.
#[derive(Debug, Clone)]
pub struct Drain {
    parameters: Parameters,
    /// Completions per second.
    delivery: f64,
    /// Seconds a request takes without a queue.
    service_s: f64,
    probe: Probe,
}

impl Drain {
    /// A loop that believes in 80 % of the nominal rate, until it sees.
    #[must_use]
    pub fn new(parameters: Parameters, bounds: &Bounds) -> Self {
        Self {
            parameters,
            delivery: 0.8 * bounds.nominal(),
            service_s: 0.1 * bounds.sla_s(),
            probe: Probe::new(parameters.cap.map_or(0.0, |cap| cap.probe)),
        }
    }

    /// Where it starts.
    #[must_use]
    pub fn start(&self, bounds: &Bounds) -> Aim {
        Aim::of_rate(0.8 * bounds.nominal(), self.parameters.burst_s)
    }

    /// One tick, in which `rate` (requests per second) was in force.
    pub fn tick(&mut self, time: Time, rate: f64, seen: &Observation, bounds: &Bounds) -> Aim {
        let dt = time.tick_s;
        let p = self.parameters;
        let (min, max) = bounds.rates();
        // No demand is not no capacity. Off the path nothing tells one from the other.
        let is_idle = seen.in_flight + seen.admitted + seen.rejected == 0.0;
        if p.cap.is_none() || !is_idle {
            let few = FEW / self.delivery.max(1e-9);
            self.delivery += share(dt, p.memory_s + few) * (seen.completed / dt - self.delivery);
        }
        if seen.completed > 0.0 {
            let few = FEW / self.delivery.max(1e-9);
            let service_s = (seen.mean_s - seen.p10_s) / SPREAD;
            self.service_s += share(dt, 0.5 + few) * (service_s - self.service_s);
        }
        let delivery = self.delivery.max(min);
        let target = (p.target * bounds.sla_s() * delivery).max(1.0);
        let unavoidable = p.stretch * self.service_s.min(LONG * bounds.sla_s()) * delivery;
        let slack = p.slack * target.sqrt();
        let factor = self.probe.factor();
        let excess = seen.in_flight - factor * (target + slack).max(unavoidable);
        // With a cap the queue is bounded anyway, so there is no need to cut deep.
        let floor = if p.cap.is_some() { 0.5 } else { 0.1 };
        let next = if excess > 0.0 {
            (delivery - p.gain * excess / dt).max(floor * delivery)
        } else if seen.admitted / dt > 0.7 * rate {
            rate.max(delivery) * (1.0 + p.growth)
        } else {
            rate
        };
        let mut aim = Aim::of_rate(next.clamp(min, max), p.burst_s);
        if let Some(cap) = p.cap {
            self.probe.tick(time, seen, bounds.sla_s());
            // Two at the least, before the factor: or a probe would let in no more than that.
            let least = (cap.target * (target + slack)).max(unavoidable).max(2.0);
            let most = least.max(LONG * bounds.sla_s() * delivery);
            aim.in_flight = (self.probe.factor() * least).min(most).max(2.0);
        }
        aim
    }
}

/// The share that a tick of `dt` seconds has in an average over `memory_s` seconds.
fn share(dt: f64, memory_s: f64) -> f64 {
    1.0 - libm::exp(-dt / memory_s.min(LONGEST))
}
