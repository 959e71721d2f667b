//! What is counted of ratings between regions.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// The label of a peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PeerName {
    /// Its name, from the configuration.
    pub peer: String,
}

/// The labels of records.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Records {
    /// The peer's name, from the configuration.
    pub peer: String,
    /// What became of them: `applied`, `older`, `parked`, `refused`.
    pub result: &'static str,
}

/// Seconds: an ocean takes a tenth, a cut takes minutes.
const BUCKETS: [f64; 12] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 10.0, 60.0, 600.0];

/// The metrics. Clones count together.
#[derive(Clone, Debug)]
pub struct RatingMetrics {
    /// 1 while this instance does the work of its region that only one may do.
    pub leader: Gauge,
    /// Records that wait here until the clock comes near their stamps.
    pub parked: Gauge,
    /// Records by peer and by what became of them.
    pub records: Family<Records, Counter>,
    /// How old records were when they were applied, by the clocks of both regions.
    pub lag: Family<PeerName, Histogram>,
    /// Times that all of a peer's ratings were read, since its outbox could not tell.
    pub scans: Family<PeerName, Counter>,
    /// Times that following a peer broke off.
    pub faults: Family<PeerName, Counter>,
}

impl RatingMetrics {
    /// Metrics that `registry` knows.
    #[must_use]
    pub fn registered(registry: &mut Registry) -> Self {
        let metrics = Self {
            leader: Gauge::default(),
            parked: Gauge::default(),
            records: Family::default(),
            lag: Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> _),
            scans: Family::default(),
            faults: Family::default(),
        };
        let help = "Whether this instance does what only one of a region may do";
        registry.register("ratings_leader", help, metrics.leader.clone());
        let help = "Records of the future that wait here, as the leader counts them";
        registry.register("ratings_parked", help, metrics.parked.clone());
        let help = "Records of peers, by what became of them";
        registry.register("ratings_records", help, metrics.records.clone());
        let help = "Age of a peer's records when they were applied";
        registry.register_with_unit("ratings_lag", help, Unit::Seconds, metrics.lag.clone());
        let help = "Times that all ratings of a peer were read";
        registry.register("ratings_scans", help, metrics.scans.clone());
        let help = "Times that following a peer broke off";
        registry.register("ratings_follow_faults", help, metrics.faults.clone());
        metrics
    }

    /// Begins to count for a peer.
    pub fn expect(&self, peer: &str) {
        let label = PeerName { peer: peer.to_owned() };
        for family in [&self.scans, &self.faults] {
            family.get_or_create_owned(&label);
        }
    }

    /// Counts records.
    pub fn count(&self, peer: &str, result: &'static str, records: u64) {
        let labels = Records { peer: peer.to_owned(), result };
        self.records.get_or_create(&labels).inc_by(records);
    }

    /// Notes how old a record was.
    pub fn aged(&self, peer: &str, age: Duration) {
        self.lag.get_or_create(&PeerName { peer: peer.to_owned() }).observe(age.as_secs_f64());
    }
}
