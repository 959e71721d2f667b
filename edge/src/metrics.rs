//! What is counted, in the text format of Prometheus. No label names a user.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

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
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("operator");
        let requests = Family::default();
        registry.register("requests", "Requests by route and result", requests.clone());
        let rate_limited = Family::default();
        registry.register("rate_limited", "Requests that a limit refused", rate_limited.clone());
        Self { registry, requests, rate_limited }
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
