//! Rate limiting for tower services that speak HTTP (axum, hyper, tonic): one `CL.TAKE`
//! before each request.
//!
//! ```no_run
//! # async fn f() -> redis::RedisResult<()> {
//! use claw_tower::{Failure, Policy, RateLimitLayer};
//!
//! let connection =
//!     redis::Client::open("redis://127.0.0.1")?.get_multiplexed_async_connection().await?;
//! let policy = Policy { capacity: 100, refill: "10".into(), interval_ms: 1000, tokens: 1 };
//! let layer = RateLimitLayer::new(connection, policy, Failure::Open, |parts| {
//!     let user = parts.headers.get("x-api-key")?.to_str().ok()?;
//!     Some(format!("limit:{user}"))
//! });
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use redis::aio::ConnectionLike;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower_layer::Layer;
use tower_service::Service;

/// What a bucket holds and what a request costs.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The most tokens of a bucket.
    pub capacity: u64,
    /// Tokens that come back in each interval, as text: up to six decimals.
    pub refill: String,
    /// The interval in milliseconds.
    pub interval_ms: u64,
    /// What a request costs.
    pub tokens: u64,
}

/// What to do when Redis gives no answer. How long to wait is the connection's
/// `response_timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Lets requests through without a limit.
    Open,
    /// Answers 503.
    Closed,
}

/// The bucket of a request; `None` for one that is not limited.
type Key = Arc<dyn Fn(&Parts) -> Option<String> + Send + Sync>;

/// Puts a limit before a service.
#[derive(Clone)]
pub struct RateLimitLayer<C> {
    connection: C,
    policy: Policy,
    failure: Failure,
    key: Key,
}

impl<C> RateLimitLayer<C> {
    /// `connection` is cloned for each request: a multiplexed one, a connection manager or a
    /// cluster's. `key` names the bucket of a request, or `None` where there is no limit.
    pub fn new(
        connection: C,
        policy: Policy,
        failure: Failure,
        key: impl Fn(&Parts) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        RateLimitLayer { connection, policy, failure, key: Arc::new(key) }
    }
}

impl<S, C: Clone> Layer<S> for RateLimitLayer<C> {
    type Service = RateLimit<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimit { inner, layer: self.clone() }
    }
}

/// A service behind a limit: made by [`RateLimitLayer`].
#[derive(Clone)]
pub struct RateLimit<S, C> {
    inner: S,
    layer: RateLimitLayer<C>,
}

/// taken, capacity, remaining, retry after, reset after; times in milliseconds.
type Reply = (u64, u64, u64, i64, i64);

impl<S, C, B, R> Service<Request<B>> for RateLimit<S, C>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    C: ConnectionLike + Clone + Send + Sync + 'static,
    B: Send + 'static,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The clone need not be ready; the one that was asked is.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let RateLimitLayer { mut connection, policy, failure, key } = self.layer.clone();
        let (parts, body) = request.into_parts();
        let bucket = key(&parts);
        let request = Request::from_parts(parts, body);
        Box::pin(async move {
            let Some(bucket) = bucket else { return inner.call(request).await };
            let reply: redis::RedisResult<Reply> = redis::cmd("CL.TAKE")
                .arg(bucket)
                .arg(policy.tokens)
                .arg("CAPACITY")
                .arg(policy.capacity)
                .arg("REFILL")
                .arg(&policy.refill)
                .arg("INTERVAL")
                .arg(policy.interval_ms)
                .query_async(&mut connection)
                .await;
            let (status, fields) = match reply {
                Ok(reply) if reply.0 == policy.tokens => (StatusCode::OK, fields(reply)),
                Ok(reply) => (StatusCode::TOO_MANY_REQUESTS, fields(reply)),
                Err(_) if failure == Failure::Open => (StatusCode::OK, Vec::new()),
                Err(_) => (StatusCode::SERVICE_UNAVAILABLE, Vec::new()),
            };
            let mut response = if status == StatusCode::OK {
                inner.call(request).await?
            } else {
                let mut refusal = Response::new(R::default());
                *refusal.status_mut() = status;
                refusal
            };
            response.headers_mut().extend(fields);
            Ok(response)
        })
    }
}

fn fields(
    (_, capacity, remaining, retry_after, reset_after): Reply,
) -> Vec<(HeaderName, HeaderValue)> {
    let mut fields = vec![
        (HeaderName::from_static("ratelimit-limit"), HeaderValue::from(capacity)),
        (HeaderName::from_static("ratelimit-remaining"), HeaderValue::from(remaining)),
    ];
    // -1 is never: a bucket that does not refill, or a request that costs more than it holds.
    if let Some(seconds) = seconds(reset_after) {
        fields.push((HeaderName::from_static("ratelimit-reset"), seconds));
    }
    // 0 is the answer to a take.
    if let Some(seconds) = seconds(retry_after).filter(|_| retry_after > 0) {
        fields.push((header::RETRY_AFTER, seconds));
    }
    fields
}

/// Rounded up: whoever waits that long is served.
fn seconds(milliseconds: i64) -> Option<HeaderValue> {
    let milliseconds = u64::try_from(milliseconds).ok()?;
    Some(HeaderValue::from(milliseconds.div_ceil(1000)))
}
