//! What is counted of limits that follow how their backends do. The names are those of dashboards
//! that there are for such loops, without this service's own prefix.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::meter::Totals;

/// The label of a route.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteName {
    /// The name of the limit.
    pub route: String,
}

/// The labels of the instance that decides. Each region has one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Leads {
    /// The name of the limit.
    pub route: String,
    /// The name of the region.
    pub region: String,
}

/// The labels of who decided.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Decisions {
    /// The name of the limit.
    pub route: String,
    /// `static`, `silence`, `held`, `inner`, `distrusted`, `learned`.
    pub by: &'static str,
}

/// The labels of what is not in force.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Shadow {
    /// The name of the limit.
    pub route: String,
    /// `loop`: what decides when it may. `network`: the one that is only watched.
    pub of: &'static str,
}

/// The labels of what decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Info {
    /// The name of the limit.
    pub route: String,
    /// `on_path`, `off_path`.
    pub profile: &'static str,
    /// The hash of the weights.
    pub hash: String,
}

/// The labels of requests, and of what became of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Requests {
    /// The name of the limit.
    pub route: String,
    /// Of those that asked: `admitted`, `rejected`. Of those that were answered: `in_sla`, `late`, `failed`.
    pub result: &'static str,
}

/// The label of events.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Events {
    /// `accepted`, `without_latency`, `duplicate`, `refused`, `unavailable`.
    pub result: &'static str,
}

/// A number that is no whole one.
type Level = Gauge<f64, AtomicU64>;

/// Seconds.
const LATENCIES: [f64; 13] =
    [0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 5.0];

/// The metrics. Clones count together.
#[derive(Debug)]
pub struct AdaptiveMetrics {
    registry: Registry,
    /// Tokens that the bucket holds by the policy in force.
    pub bucket_size: Family<RouteName, Gauge>,
    /// Tokens that it gains in each second by the policy in force.
    pub refill_rate: Family<RouteName, Level>,
    /// 0 off, 1 shadow, 2 canary, 3 on.
    pub mode: Family<RouteName, Gauge>,
    /// 1 while what the loop decides is in force.
    pub live: Family<RouteName, Gauge>,
    /// 1 while this instance decides.
    pub leader: Family<Leads, Gauge>,
    /// Always 1.
    pub info: Family<Info, Gauge>,
    /// Tokens that the bucket would hold.
    pub shadow_bucket_size: Family<Shadow, Gauge>,
    /// Tokens that it would gain in each second.
    pub shadow_refill_rate: Family<Shadow, Level>,
    /// Ticks in which this instance decided.
    pub decisions: Family<Decisions, Counter>,
    /// Requests that this instance has decided, by whether they were let through.
    pub requests: Family<Requests, Counter>,
    /// Answers of the backend that this instance has heard of, by whether they came in time.
    pub completions: Family<Requests, Counter>,
    /// Pairs of blocks of the trial.
    pub trial_pairs: Family<RouteName, Gauge>,
    /// 0 undecided, 1 better, 2 no difference, -1 worse.
    pub trial_verdict: Family<RouteName, Gauge>,
    /// Requests in flight here.
    pub in_flight: Family<RouteName, Gauge>,
    /// Requests that may be in flight here; -1: as many as come.
    pub in_flight_cap: Family<RouteName, Gauge>,
    /// Events by what became of them.
    pub events: Family<Events, Counter>,
    /// Latencies that events tell of, and those of requests that were handed on.
    pub latency: Family<RouteName, Histogram>,
}

impl AdaptiveMetrics {
    /// Says no more how a limit stands that is no more. What was counted of it stays.
    pub fn forget(&self, route: &RouteName, region: &str) {
        for gauge in [
            &self.bucket_size,
            &self.mode,
            &self.live,
            &self.trial_pairs,
            &self.trial_verdict,
            &self.in_flight,
            &self.in_flight_cap,
        ] {
            gauge.remove(route);
        }
        self.refill_rate.remove(route);
        self.leader.remove(&Leads { route: route.route.clone(), region: region.to_owned() });
        for of in ["loop", "network"] {
            let label = Shadow { route: route.route.clone(), of };
            self.shadow_bucket_size.remove(&label);
            self.shadow_refill_rate.remove(&label);
        }
    }
}

impl Default for AdaptiveMetrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            bucket_size: Family::default(),
            refill_rate: Family::default(),
            mode: Family::default(),
            live: Family::default(),
            leader: Family::default(),
            info: Family::default(),
            shadow_bucket_size: Family::default(),
            shadow_refill_rate: Family::default(),
            decisions: Family::default(),
            requests: Family::default(),
            completions: Family::default(),
            trial_pairs: Family::default(),
            trial_verdict: Family::default(),
            in_flight: Family::default(),
            in_flight_cap: Family::default(),
            events: Family::default(),
            latency: Family::new_with_constructor((|| Histogram::new(LATENCIES)) as fn() -> _),
        };
        let registry = &mut metrics.registry;
        for (name, help, gauge) in [
            ("rl_policy_bucket_size", "Tokens that the route's bucket holds", &metrics.bucket_size),
            ("rl_policy_mode", "0 off, 1 shadow, 2 canary, 3 on", &metrics.mode),
            ("rl_policy_live", "Whether what the loop decides is in force", &metrics.live),
            ("rl_trial_pairs", "Pairs of blocks of the trial that count", &metrics.trial_pairs),
            (
                "rl_trial_verdict",
                "0 undecided, 1 better than the operator's limit, 2 no difference, -1 worse",
                &metrics.trial_verdict,
            ),
            ("edge_inflight", "Requests in flight at this instance", &metrics.in_flight),
            (
                "edge_inflight_cap",
                "Requests that may be in flight at this instance; -1 without a cap",
                &metrics.in_flight_cap,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        let help = "Whether this instance decides";
        registry.register("rl_policy_leader", help, metrics.leader.clone());
        let help = "Tokens that the route's bucket gains in each second";
        registry.register("rl_policy_refill_rate", help, metrics.refill_rate.clone());
        let help = "What decides";
        registry.register("rl_policy_info", help, metrics.info.clone());
        let help = "Tokens that the bucket would hold";
        registry.register("rl_shadow_bucket_size", help, metrics.shadow_bucket_size.clone());
        let help = "Tokens that the bucket would gain in each second";
        registry.register("rl_shadow_refill_rate", help, metrics.shadow_refill_rate.clone());
        let help = "Ticks in which this instance decided, by who did";
        registry.register("rl_decisions", help, metrics.decisions.clone());
        let help = "Requests by whether they were let through";
        registry.register("rl_requests", help, metrics.requests.clone());
        let help = "Answers of the backend that are known, by whether they came in time";
        registry.register("rl_completions", help, metrics.completions.clone());
        let help = "Events by what became of them";
        registry.register("rating_events", help, metrics.events.clone());
        let help = "Latencies of the backend";
        let latency = metrics.latency.clone();
        registry.register_with_unit("rating_event_latency", help, Unit::Seconds, latency);
        metrics
    }
}

impl AdaptiveMetrics {
    /// Counts what was seen since it was last counted.
    pub fn count_seen(&self, route: &str, since: &Totals) {
        let label = |result| Requests { route: route.to_owned(), result };
        let in_sla = since.completed.saturating_sub(since.late);
        for (family, result, count) in [
            (&self.requests, "admitted", since.admitted),
            (&self.requests, "rejected", since.rejected),
            (&self.completions, "in_sla", in_sla),
            (&self.completions, "late", since.late),
            (&self.completions, "failed", since.failed),
        ] {
            family.get_or_create(&label(result)).inc_by(count);
        }
    }

    /// Counts an event.
    pub fn count_event(&self, result: &'static str) {
        self.events.get_or_create(&Events { result }).inc();
    }

    /// Notes how long the backend took.
    pub fn took(&self, route: &str, duration: Duration) {
        let route = RouteName { route: route.to_owned() };
        self.latency.get_or_create(&route).observe(duration.as_secs_f64());
    }

    /// Appends all of it.
    ///
    /// # Errors
    /// When a metric cannot be written as text.
    pub fn append(&self, written: &mut String) -> std::fmt::Result {
        text::encode_registry(written, &self.registry)
    }
}
