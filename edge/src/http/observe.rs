//! What is done with every request, around its handler: it gets an id, it is counted, its time is
//! taken, and its problem is written out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use super::{App, request_id};
use crate::metrics::{Outcome, Requests, Route};

/// What is known of a route beforehand.
pub struct Seen {
    app: App,
    requests: Requests,
}

impl Seen {
    /// For one route of one worker.
    #[must_use]
    pub fn new(app: &App, route: Route) -> Self {
        Self { app: app.clone(), requests: app.service.metrics.requests(route) }
    }
}

/// [`observe`] around a handler of a router.
pub async fn layer(State(seen): State<Arc<Seen>>, request: Request, next: Next) -> Response {
    observe(&seen, request, async |request| {
        let mut response = next.run(request).await;
        if response.status() == StatusCode::METHOD_NOT_ALLOWED {
            // The router's own: it has `Allow`, and no body.
            let detail = "this path is for other methods: see Allow";
            let allow = response.headers_mut().remove(header::ALLOW);
            response = Problem::wrong(StatusCode::METHOD_NOT_ALLOWED, detail).into_response();
            response.headers_mut().extend(allow.map(|allow| (header::ALLOW, allow)));
        }
        response
    })
    .await
}

/// Hands the request on, and completes the response.
pub async fn observe<F>(
    seen: &Seen,
    request: Request,
    handler: impl FnOnce(Request) -> F,
) -> Response
where
    F: Future<Output: IntoResponse>,
{
    let route = seen.requests.route;
    let begin = Instant::now();
    let id = request_id::of(request.headers());
    // Nobody wants traces of probes and scrapes.
    let traces = seen.app.service.traces.as_ref().filter(|_| route != Route::Ops);
    let span = traces.and_then(|traces| traces.begin(request.headers()));
    let mut response = handler(request).await.into_response();
    let outcome = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => {
            let (name, status) = (id.to_str().unwrap_or_default(), problem.status.as_u16());
            let cause = problem.cause.as_deref();
            if problem.status.is_server_error() && is_time_to_tell(begin) {
                tracing::warn!(id = name, ?route, status, problem.detail, cause);
            } else {
                tracing::debug!(id = name, ?route, status, problem.detail, cause);
            }
            write_out(&mut response, &problem, &id);
            problem.outcome
        }
        None => Outcome::Allowed,
    };
    response.headers_mut().insert(request_id::HEADER, id);
    seen.requests.count(outcome);
    if let Some(span) = span {
        span.end(route, outcome, Some(response.status().as_u16()));
    }
    seen.requests.took(begin.elapsed());
    response
}

/// Whether nothing has been told in this second yet: during an outage every request fails, and
/// the log must not be one.
fn is_time_to_tell(now: Instant) -> bool {
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    static TOLD: AtomicU64 = AtomicU64::new(0);
    // From 1 on, so that the first second counts.
    let second = now.saturating_duration_since(*BEGIN).as_secs().saturating_add(1);
    TOLD.swap(second, Ordering::Relaxed) != second
}

fn write_out(response: &mut Response, problem: &Problem, id: &HeaderValue) {
    *response.body_mut() = problem.body(id.to_str().unwrap_or_default());
}

/// What a client is told of whom not all of the request has come in time.
#[must_use]
pub fn request_timeout() -> Response {
    let problem = Problem::wrong(
        StatusCode::REQUEST_TIMEOUT,
        "the request did not arrive in time, or its answer took too long",
    );
    let id = request_id::of(&HeaderMap::new());
    let mut response = problem.clone().into_response();
    write_out(&mut response, &problem, &id);
    response.headers_mut().insert(request_id::HEADER, id);
    response
}
