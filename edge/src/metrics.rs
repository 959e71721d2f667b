//! What is counted, in the text format of Prometheus. No label names a user.

pub mod redis;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use self::redis::RedisMetrics;

/// Where a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Route {
    /// `POST /rating` and `/ratings`.
    Rating,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// It passed.
    Allowed,
    /// A limit refused it.
    Limited,
    /// It could not be read.
    Invalid,
}

/// The labels of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Request {
    /// Where it came in.
    pub route: Route,
    /// What became of it.
    pub result: Outcome,
}

/// The label of a limit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LimitName {
    /// Its name, from the configuration.
    pub limit: String,
}

/// All metrics of the service.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests by route and result.
    pub requests: Family<Request, Counter>,
    /// Requests that a limit refused.
    pub rate_limited: Family<LimitName, Counter>,
    /// Connections that were closed at once, since there were too many.
    pub connections_refused: Counter,
    /// The way to Redis.
    pub redis: RedisMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("operator");
        let requests = Family::default();
        registry.register("requests", "Requests by route and result", requests.clone());
        let rate_limited = Family::default();
        registry.register("rate_limited", "Requests that a limit refused", rate_limited.clone());
        let connections_refused = Counter::default();
        registry.register(
            "connections_refused",
            "Connections closed at once, since MAX_CONNECTIONS were open",
            connections_refused.clone(),
        );
        let redis = RedisMetrics::registered(&mut registry);
        Self { registry, requests, rate_limited, connections_refused, redis }
    }
}

impl Metrics {
    /// The exposition.
    ///
    /// # Errors
    /// When a metric cannot be written as text.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut exposition = String::new();
        text::encode(&mut exposition, &self.registry)?;
        Ok(exposition)
    }
}
