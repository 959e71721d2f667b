//! What an edge saw in one tick.

use crate::policy::Policy;

/// How long the tick was, and how old what was in force in it.
#[derive(Debug, Clone, Copy)]
pub struct Time {
    /// Since the one before.
    pub tick_s: f64,
    /// Since what is in force was decided, less one tick: 0 where decisions take effect at once. `None` when
    /// it is none of what was decided of late: somebody else has set it.
    pub late_s: Option<f64>,
}

/// Counts and latencies of one tick, summed over all edges.
///
/// Counts are those of the tick, not running totals. Latencies are of the completions that were
/// reported in the tick; in a tick without any, repeat the last ones, and add the length of the tick
/// to them while something is in flight. On the path of requests `in_flight` is counted; off it, it is
/// what Little's law makes of it: completions per second times their mean latency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// Requests that asked.
    pub offered: f64,
    /// Of these, how many were let through.
    pub admitted: f64,
    /// Of these, how many were refused.
    pub rejected: f64,
    /// Completions that were reported.
    pub completed: f64,
    /// Of these, how many took longer than the SLA.
    pub late: f64,
    /// Seconds: the latency that half of the completions did not exceed.
    pub p50_s: f64,
    /// Seconds: the latency that 95 % of the completions did not exceed.
    pub p95_s: f64,
    /// Seconds: mean latency.
    pub mean_s: f64,
    /// Seconds: the latency that 10 % of the completions did not exceed, close to that without a queue.
    pub p10_s: f64,
    /// Requests in flight at the end of the tick.
    pub in_flight: f64,
    /// The policy that was in force during the tick.
    pub policy: Policy,
}

impl Observation {
    /// Whether it can be believed: no count is negative (as that of a counter that went back is) or
    /// beyond 10^12, and all latencies are above 0 and below 10^6 seconds. An average never forgets
    /// one that is infinite.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let counts =
            [self.offered, self.admitted, self.rejected, self.completed, self.late, self.in_flight];
        let latencies = [self.p50_s, self.p95_s, self.mean_s, self.p10_s];
        counts.iter().all(|x| (0.0..=1e12).contains(x))
            && latencies.iter().all(|x| *x > 0.0 && *x < 1e6)
    }
}
