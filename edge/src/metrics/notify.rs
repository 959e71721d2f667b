//! What is counted of notifications.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// The label of a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct To {
    /// `webhook` or `telegram`.
    pub to: &'static str,
}

/// The labels of tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Tries {
    /// `webhook` or `telegram`.
    pub to: &'static str,
    /// What became of it: `delivered`, `failed` (and is tried again), `parked`, `unreadable`.
    pub result: &'static str,
}

/// Seconds: a receiver that is near answers in milliseconds, the tenth try takes minutes.
const BUCKETS: [f64; 10] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0];

/// The metrics. Clones count together.
#[derive(Clone, Debug)]
pub struct NotifyMetrics {
    /// Tries by receiver and by what became of them.
    pub tries: Family<Tries, Counter>,
    /// How old ratings were when they were delivered.
    pub lag: Family<To, Histogram>,
    /// How old the oldest rating is that is not delivered, in seconds.
    pub oldest: Family<To, Gauge>,
    /// Times that the outbox no longer had what was not delivered.
    pub gaps: Family<To, Counter>,
}

impl NotifyMetrics {
    /// Metrics that `registry` knows.
    #[must_use]
    pub fn registered(registry: &mut Registry) -> Self {
        let metrics = Self {
            tries: Family::default(),
            lag: Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> _),
            oldest: Family::default(),
            gaps: Family::default(),
        };
        let help = "Tries to notify, by what became of them";
        registry.register("notifications", help, metrics.tries.clone());
        let help = "Age of ratings when somebody was notified of them";
        registry.register_with_unit("notification_lag", help, Unit::Seconds, metrics.lag.clone());
        let help = "Age of the oldest rating of which somebody is to be notified";
        let unit = Unit::Seconds;
        registry.register_with_unit("notification_oldest", help, unit, metrics.oldest.clone());
        let help = "Times that the outbox lacked ratings of which nobody was notified";
        registry.register("notification_gaps", help, metrics.gaps.clone());
        metrics
    }

    /// Begins to count for a receiver.
    pub fn expect(&self, to: &'static str) {
        for result in ["delivered", "failed", "parked", "unreadable"] {
            self.tries.get_or_create_owned(&Tries { to, result });
        }
        self.gaps.get_or_create_owned(&To { to });
    }

    /// Counts a try.
    pub fn tried(&self, to: &'static str, result: &'static str) {
        self.tries.get_or_create(&Tries { to, result }).inc();
    }

    /// Notes how old a rating was.
    pub fn aged(&self, to: &'static str, age: Duration) {
        self.lag.get_or_create(&To { to }).observe(age.as_secs_f64());
    }
}
