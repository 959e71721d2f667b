//! What is counted, in the text format of Prometheus. No label names a user.
//!
//! A counter that an alert looks at is there before it counts: one that only appears at 1 has not
//! increased, as Prometheus sees it, and the first event would be missed.

pub mod adaptive;
pub mod notify;
pub mod ratings;
pub mod redis;

use std::collections::HashSet;
use std::fmt::{self, Write};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use self::adaptive::AdaptiveMetrics;
use self::notify::NotifyMetrics;
use self::ratings::RatingMetrics;
use self::redis::RedisMetrics;

/// A closed set of values of a label, each with its text.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$of])* $variant,)* }

        impl $name {
            /// Its text.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
                encoder.write_str(self.text())
            }
        }
    };
}

label! {
    /// Where a request came in.
    Route {
        /// `POST /rating` and `/ratings`.
        Rating = "rating",
        /// `GET /rating/{user}/{item}`.
        RatingRead = "rating_read",
        /// `GET /items/{item}`.
        ItemRead = "item_read",
        /// `DELETE /users/{user}`.
        UserDelete = "user_delete",
        /// `POST /api/v1/event`.
        Event = "event",
        /// `POST /v1/check`.
        Check = "check",
        /// `POST /v1/take`.
        Take = "take",
        /// `POST /v1/give`.
        Give = "give",
        /// `POST /v1/settle`.
        Settle = "settle",
        /// `POST /v1/done`.
        Done = "done",
        /// `/auth`.
        Auth = "auth",
        /// What is handed on to the backend.
        Proxy = "proxy",
        /// `ShouldRateLimit`.
        Rls = "rls",
        /// The address for operators.
        Ops = "ops",
        /// The page for operators.
        Admin = "admin",
        /// Nothing is there.
        Unknown = "unknown",
    }
}

label! {
    /// What became of it.
    Outcome {
        /// It passed.
        Allowed = "allowed",
        /// A limit refused it.
        Limited = "limited",
        /// It could not be read, or asked for what is not there.
        Invalid = "invalid",
        /// The caller may not ask.
        Denied = "denied",
        /// The server that decides could not be asked.
        Unavailable = "unavailable",
    }
}

/// The labels of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Request {
    /// Where it came in.
    pub route: Route,
    /// What became of it.
    pub result: Outcome,
}

/// The label of a duration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabel {
    /// Where the request came in.
    pub route: Route,
}

/// The label of a limit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LimitName {
    /// Its name, from the configuration.
    pub limit: String,
}

label! {
    /// What a limit of a descriptor file said of some hits.
    HitResult {
        /// They were taken.
        WithinLimit = "within_limit",
        /// They were taken, and more than 80 % of the limit are taken.
        NearLimit = "near_limit",
        /// They were refused.
        OverLimit = "over_limit",
        /// They would have been refused, but the limit only watches.
        ShadowMode = "shadow_mode",
    }
}

/// The labels of hits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Hits {
    /// The limit's path in the configuration.
    pub limit: String,
    /// What it said.
    pub result: HitResult,
}

/// Where the hits of one limit are counted. Clones count together.
#[derive(Clone, Debug)]
pub struct HitCounters {
    within_limit: Counter,
    near_limit: Counter,
    over_limit: Counter,
    shadow_mode: Counter,
}

impl HitCounters {
    /// Counts `hits`.
    pub fn count(&self, result: HitResult, hits: u64) {
        let counter = match result {
            HitResult::WithinLimit => &self.within_limit,
            HitResult::NearLimit => &self.near_limit,
            HitResult::OverLimit => &self.over_limit,
            HitResult::ShadowMode => &self.shadow_mode,
        };
        counter.inc_by(hits);
    }
}

/// Names of limits in [`Metrics::hits`]. `detailed_metric` and `value_to_metric` make names of
/// what clients send; those beyond so many are counted together, as `other`.
const MOST_NAMES: usize = 10_000;
/// The longest name of a limit that is counted apart, in bytes: a request can say a part of it.
const LONGEST_NAME: usize = 512;

label! {
    /// What became of reading the limits again.
    ReloadResult {
        /// They are in force.
        Applied = "applied",
        /// A file is wrong: those before it stay in force.
        Refused = "refused",
    }
}

/// The label of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reload {
    /// What became of it.
    pub result: ReloadResult,
}

label! {
    /// What became of a span for the collector of traces.
    SpanResult {
        /// The collector has it.
        Sent = "sent",
        /// The collector did not take it.
        Failed = "failed",
        /// Too many waited for it.
        Dropped = "dropped",
    }
}

/// The label of spans.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Spans {
    /// What became of them.
    pub result: SpanResult,
}

/// Seconds. Most answers take less than a millisecond, and none much longer than a decision may
/// wait for Redis.
const BUCKETS: [f64; 12] =
    [0.000_25, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0];

/// All metrics of the service.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests by route and result.
    requests: Family<Request, Counter>,
    /// Requests that a limit refused.
    pub rate_limited: Family<LimitName, Counter>,
    shadowed: Family<LimitName, Counter>,
    /// How long requests took, in seconds, by route.
    durations: Family<RouteLabel, Histogram>,
    /// Hits by limit of a descriptor file and by what it said.
    pub hits: Family<Hits, Counter>,
    /// Requests of Envoy's whose domain no descriptor file has.
    pub unknown_domains: Counter,
    /// Names that [`Metrics::hits`] has.
    names: RwLock<HashSet<Arc<str>>>,
    /// Whether the limits could be read, each time that they were.
    pub reloads: Family<Reload, Counter>,
    /// Connections that were closed at once, since there were too many.
    pub connections_refused: Counter,
    /// Bytes that are held of the bodies of requests.
    pub body_bytes: Gauge,
    spans: Family<Spans, Counter>,
    /// The way to Redis.
    pub redis: RedisMetrics,
    /// Ratings between regions.
    pub ratings: RatingMetrics,
    /// Notifications.
    pub notify: NotifyMetrics,
    /// Limits that follow how their backends do.
    pub adaptive: AdaptiveMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("operator");
        let requests = Family::default();
        registry.register("requests", "Requests by route and result", requests.clone());
        let rate_limited = Family::default();
        registry.register("rate_limited", "Requests that a limit refused", rate_limited.clone());
        let shadowed = Family::default();
        let help = "Requests that a limit would have refused, but only watches";
        registry.register("rate_limit_shadowed", help, shadowed.clone());
        let durations = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> _);
        let help = "Time from the head of a request to that of its response";
        registry.register_with_unit("request_duration", help, Unit::Seconds, durations.clone());
        let hits = Family::default();
        registry.register("limit_hits", "Hits of limits of descriptor files", hits.clone());
        let unknown_domains = Counter::default();
        registry.register(
            "unknown_domains",
            "Requests whose domain no descriptor file has",
            unknown_domains.clone(),
        );
        let reloads = Family::default();
        for result in [ReloadResult::Applied, ReloadResult::Refused] {
            reloads.get_or_create_owned(&Reload { result });
        }
        registry.register("config_reloads", "Times that limits were read", reloads.clone());
        let names = RwLock::default();
        let connections_refused = Counter::default();
        registry.register(
            "connections_refused",
            "Connections closed at once, since MAX_CONNECTIONS were open",
            connections_refused.clone(),
        );
        let body_bytes = Gauge::default();
        let help = "Bytes that are held of the bodies of requests, of MAX_BODIES";
        registry.register("body_bytes", help, body_bytes.clone());
        let spans = Family::default();
        registry.register("spans", "Spans for the collector of traces, by result", spans.clone());
        let redis = RedisMetrics::registered(&mut registry);
        let ratings = RatingMetrics::registered(&mut registry);
        let notify = NotifyMetrics::registered(&mut registry);
        Self {
            registry,
            requests,
            rate_limited,
            shadowed,
            durations,
            hits,
            unknown_domains,
            names,
            reloads,
            connections_refused,
            body_bytes,
            spans,
            redis,
            ratings,
            notify,
            adaptive: AdaptiveMetrics::default(),
        }
    }
}

/// What counts the requests of one route. Nearly every one passes, so what counts those is at hand.
#[derive(Clone, Debug)]
pub struct Requests {
    /// Which route.
    pub route: Route,
    all: Family<Request, Counter>,
    allowed: Counter,
    durations: Histogram,
}

impl Requests {
    /// A request of which this became.
    pub fn count(&self, result: Outcome) {
        if result == Outcome::Allowed {
            self.allowed.inc();
        } else {
            self.all.get_or_create(&Request { route: self.route, result }).inc();
        }
    }

    /// How long one took.
    pub fn took(&self, duration: Duration) {
        self.durations.observe(duration.as_secs_f64());
    }
}

impl Metrics {
    /// What counts the requests of `route`.
    #[must_use]
    pub fn requests(&self, route: Route) -> Requests {
        let of = |result| self.requests.get_or_create_owned(&Request { route, result });
        for result in [Outcome::Limited, Outcome::Unavailable] {
            of(result);
        }
        Requests {
            route,
            all: self.requests.clone(),
            allowed: of(Outcome::Allowed),
            durations: self.durations.get_or_create_owned(&RouteLabel { route }),
        }
    }

    /// Counts spans for the collector of traces.
    pub fn count_spans(&self, result: SpanResult, spans: u64) {
        self.spans.get_or_create(&Spans { result }).inc_by(spans);
    }

    /// Counts a request that a limit refused.
    pub fn count_limited(&self, limit: &str) {
        self.rate_limited.get_or_create(&LimitName { limit: limit.to_owned() }).inc();
    }

    /// Where hits of a limit of a descriptor file are counted.
    #[must_use]
    pub fn hit_counters(&self, limit: &Arc<str>) -> HitCounters {
        let limit = if self.has_name(limit) { limit } else { "other" };
        let counter =
            |result| self.hits.get_or_create(&Hits { limit: limit.to_owned(), result }).clone();
        HitCounters {
            within_limit: counter(HitResult::WithinLimit),
            near_limit: counter(HitResult::NearLimit),
            over_limit: counter(HitResult::OverLimit),
            shadow_mode: counter(HitResult::ShadowMode),
        }
    }

    /// Counts a request that a limit would have refused, if it did not only watch.
    pub fn count_shadowed(&self, limit: &str) {
        self.shadowed.get_or_create(&LimitName { limit: limit.to_owned() }).inc();
    }

    /// Whether a name is one of those that are counted apart.
    fn has_name(&self, name: &Arc<str>) -> bool {
        let known = |names: &HashSet<Arc<str>>| names.contains(name);
        if known(&self.names.read().unwrap_or_else(PoisonError::into_inner)) {
            return true;
        }
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        if names.len() < MOST_NAMES && name.len() <= LONGEST_NAME {
            names.insert(Arc::clone(name));
        }
        known(&names)
    }

    /// All of it in Prometheus' text format, version 0.0.4, which every scraper reads.
    ///
    /// # Errors
    /// When a metric cannot be written as text.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut written = String::new();
        text::encode_registry(&mut written, &self.registry)?;
        self.adaptive.append(&mut written)?;
        plain(&written)
    }
}

/// Makes the older format of the newer one, OpenMetrics, in which a counter's family lacks the
/// `_total` that its samples have, and units have lines of their own.
fn plain(open_metrics: &str) -> Result<String, fmt::Error> {
    let counters: Vec<&str> = open_metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut plain = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words.as_slice() {
            ["#", "UNIT", ..] => {}
            ["#", what, name, rest] if counters.contains(name) => {
                writeln!(plain, "# {what} {name}_total {rest}")?;
            }
            _ => writeln!(plain, "{line}")?,
        }
    }
    Ok(plain)
}
