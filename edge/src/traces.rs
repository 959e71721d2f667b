//! What became of requests, told to a collector of OpenTelemetry, if the settings name one:
//! a span for each request, within the trace that the caller has begun.

mod context;
mod export;
mod proto;

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;
use tokio::sync::mpsc;

use self::context::Context;
pub use self::export::Exporter;
use self::proto::{KeyValue, Span};
use crate::config::Config;
use crate::metrics::{Metrics, Outcome, Route, SpanResult};

/// Spans that wait to be sent. More are dropped: a collector that is slow holds up nobody.
const QUEUE: usize = 8_192;

/// Where spans go. It is there only when a collector is named.
#[derive(Clone, Debug)]
pub struct Traces {
    /// Millionths of the requests whose caller has not decided that are traced.
    share: u64,
    spans: mpsc::Sender<Span>,
    metrics: Arc<Metrics>,
}

/// A request that is traced, from its beginning on.
#[derive(Debug)]
pub struct Begun {
    traces: Traces,
    context: Context,
    begin: SystemTime,
    clock: Instant,
}

impl Traces {
    /// What the settings name, and what sends it; nothing when they name no collector.
    ///
    /// # Errors
    /// When its URL cannot be used.
    pub fn new(
        config: &Config,
        metrics: &Arc<Metrics>,
    ) -> Result<Option<(Self, Exporter)>, String> {
        let Some(url) = &config.otel_exporter_otlp_endpoint else { return Ok(None) };
        let (sender, spans) = mpsc::channel(QUEUE);
        let exporter = Exporter::new(url, &config.otel_service_name, spans, Arc::clone(metrics))?;
        let share = config.otel_traces_sampler_arg;
        Ok(Some((Self { share, spans: sender, metrics: Arc::clone(metrics) }, exporter)))
    }

    /// Begins the span of a request, if it is one of those that are traced: whoever called
    /// has decided that, or else chance does.
    #[must_use]
    pub fn begin(&self, headers: &HeaderMap) -> Option<Begun> {
        let context = Context::of(headers, self.share)?;
        let (begin, clock) = (SystemTime::now(), Instant::now());
        Some(Begun { traces: self.clone(), context, begin, clock })
    }
}

impl Begun {
    /// Ends it. `status` is that of the response, over HTTP.
    pub fn end(self, route: Route, outcome: Outcome, status: Option<u16>) {
        let begin = self.begin.duration_since(UNIX_EPOCH).unwrap_or_default();
        let end = begin.saturating_add(self.clock.elapsed());
        let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let mut attributes = vec![
            KeyValue::text("claw.route", route.text()),
            KeyValue::text("claw.result", outcome.text()),
        ];
        attributes.extend(
            status.map(|status| KeyValue::number("http.response.status_code", status.into())),
        );
        let span = Span {
            trace_id: self.context.trace.to_vec(),
            span_id: self.context.span.to_vec(),
            parent_span_id: self.context.parent.map(|parent| parent.to_vec()).unwrap_or_default(),
            name: route.text().to_owned(),
            kind: proto::SERVER,
            start_time_unix_nano: nanos(begin),
            end_time_unix_nano: nanos(end),
            attributes,
            status: (outcome == Outcome::Unavailable)
                .then_some(proto::Status { code: proto::ERROR }),
        };
        if self.traces.spans.try_send(span).is_err() {
            self.traces.metrics.count_spans(SpanResult::Dropped, 1);
        }
    }
}
