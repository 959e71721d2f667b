//! What sends spans to the collector: OTLP over HTTP, in protobuf.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{Request as HttpRequest, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::proto::{KeyValue, Request, Resource, ResourceSpans, ScopeSpans, Span};
use crate::metrics::{Metrics, SpanResult};
use crate::tls;

/// Spans in one request.
const BATCH: usize = 512;
/// How long spans wait for others, so that they go together.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the collector may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it is not told again that it fails.
const QUIET: Duration = Duration::from_secs(60);
/// What is read of its answer, in bytes, at most.
const LONGEST: usize = 64 << 10;

/// What sends spans.
#[derive(Debug)]
pub struct Exporter {
    url: Uri,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    resource: Resource,
    spans: mpsc::Receiver<Span>,
    metrics: Arc<Metrics>,
    told: Option<Instant>,
}

impl Exporter {
    /// For the collector at `url`, to whose path that of traces is added, as OpenTelemetry has
    /// it.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn new(
        url: &Uri,
        name: &str,
        spans: mpsc::Receiver<Span>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, String> {
        let wrong = |why: &str| format!("OTEL_EXPORTER_OTLP_ENDPOINT: {why}");
        if url.host().is_none() || !matches!(url.scheme_str(), Some("http" | "https")) {
            return Err(wrong("'http://HOST:PORT' or 'https://..' is wanted"));
        }
        let url = format!("{}/v1/traces", url.to_string().trim_end_matches('/'));
        let url = url.parse().map_err(|_| wrong("it cannot be extended by /v1/traces"))?;
        let attributes = vec![
            KeyValue::text("service.name", name),
            KeyValue::text("service.version", env!("CARGO_PKG_VERSION")),
        ];
        let client = Client::builder(TokioExecutor::new()).build(tls::https()?);
        let resource = Resource { attributes };
        Ok(Self { url, client, resource, spans, metrics, told: None })
    }

    /// Sends what comes, until it is told to stop; then what is left, once.
    pub async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        loop {
            let mut batch = Vec::new();
            let is_over = tokio::select! {
                () = gather(&mut self.spans, &mut batch) => false,
                _ = &mut stop => true,
            };
            fill(&mut self.spans, &mut batch);
            if !batch.is_empty() {
                self.send(batch).await;
            }
            if is_over {
                return;
            }
        }
    }

    /// Sends a batch once. One that fails is dropped, as nobody may wait for it.
    async fn send(&mut self, spans: Vec<Span>) {
        let count = u64::try_from(spans.len()).unwrap_or(u64::MAX);
        let sent = timeout(PATIENCE, self.post(spans)).await;
        match sent.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(()) => self.metrics.count_spans(SpanResult::Sent, count),
            Err(why) => {
                self.metrics.count_spans(SpanResult::Failed, count);
                if self.told.is_none_or(|told| told.elapsed() >= QUIET) {
                    self.told = Some(Instant::now());
                    tracing::warn!(why, "the collector of traces does not take them");
                }
            }
        }
    }

    async fn post(&self, spans: Vec<Span>) -> Result<(), String> {
        let message = Request {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans { spans }],
            }],
        };
        let request = HttpRequest::post(&self.url)
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .header(header::USER_AGENT, concat!("claw-edge/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::from(message.encode_to_vec())))
            .map_err(|error| error.to_string())?;
        let response = self.client.request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        // Read, so that the connection is used again.
        let _ = Limited::new(response.into_body(), LONGEST).collect().await;
        if status.is_success() { Ok(()) } else { Err(format!("status {}", status.as_u16())) }
    }
}

/// Waits for spans, and for others that come soon after.
async fn gather(spans: &mut mpsc::Receiver<Span>, batch: &mut Vec<Span>) {
    if spans.recv_many(batch, BATCH).await < BATCH {
        sleep(PAUSE).await;
    }
}

/// Adds what waits already.
fn fill(spans: &mut mpsc::Receiver<Span>, batch: &mut Vec<Span>) {
    while batch.len() < BATCH
        && let Ok(span) = spans.try_recv()
    {
        batch.push(span);
    }
}
