//! The address for operators: metrics, probes, and what the API is.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::future::join_all;
use futures_util::join;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::problem::Problem;
use super::server::{self, Server, Status};
use super::{App, Routes};
use crate::limits::Charge;
use crate::metrics::Route;

/// The API for programs.
const OPENAPI: &str = include_str!("openapi.json");

/// How old what `/metrics` shows of the server may be: several scrapers, or a curious person,
/// cost Redis no more than one.
const FRESH: Duration = Duration::from_secs(1);

/// The routes of `OPS_ADDR`, with the names by which they are counted.
pub fn routes() -> Routes {
    let asked = Arc::new(Mutex::new(None));
    vec![
        ("/livez", Route::Ops, get(|| async { "ok\n" })),
        ("/readyz", Route::Ops, get(ready)),
        (
            "/metrics",
            Route::Ops,
            get(move |State(app): State<App>| async move { text(&app, &asked).await }),
        ),
        ("/openapi.json", Route::Ops, get(|| async { (JSON, OPENAPI) })),
    ]
}

const JSON: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];

/// The router of `OPS_ADDR`, with pages from elsewhere.
pub fn router(app: App, pages: Routes) -> Router {
    super::build(app, routes().into_iter().chain(pages).collect())
}

/// Ready until the end has begun. Whether Redis answers does not matter: what fails open goes on
/// without it, and to take every instance out of service at once would make an outage of the
/// limits one of everything behind them.
async fn ready(State(app): State<App>) -> Result<&'static str, Problem> {
    if app.service.is_ending() {
        Err(Problem::unavailable("this instance is ending"))
    } else {
        Ok("ok\n")
    }
}

/// What the server said, and when it was asked.
type Asked = Mutex<Option<(Instant, Server)>>;

async fn text(app: &App, asked: &Asked) -> Result<Response, Problem> {
    let unwritten = |error: std::fmt::Error| Problem::internal(error.to_string());
    let held = i64::try_from(app.service.bodies.taken()).unwrap_or(i64::MAX);
    app.service.metrics.body_bytes.set(held);
    let mut text = app.service.metrics.text().map_err(unwritten)?;
    let charges: Vec<Charge> = app.service.limits.load().shared().collect();
    let mut asked = asked.lock().await;
    if asked.as_ref().is_none_or(|(when, _)| when.elapsed() >= FRESH) {
        *asked = Some((Instant::now(), ask(app, &charges).await));
    }
    if let Some((_, server)) = asked.as_ref() {
        let limits = charges.iter().map(|charge| &*charge.limit);
        server::write(server, limits, &mut text).map_err(unwritten)?;
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// Asks the server how it is, all at once.
async fn ask(app: &App, charges: &[Charge]) -> Server {
    let (mut info, mut sync) = (redis::cmd("INFO"), redis::cmd("CL.SYNC"));
    info.arg("claw");
    sync.arg("STATUS");
    let shared = join_all(charges.iter().map(async |charge| {
        let answer = app.redis.peek(charge).await.ok()?;
        Some((charge.limit.name.clone(), answer))
    }));
    let (info, sync, shared) =
        join!(app.redis.call_server(&info), app.redis.call_server(&sync), shared);
    let shared = shared.into_iter().flatten().collect();
    let node = app.redis.server_of_cluster();
    Server { node, info: info.ok(), sync: sync.ok().map(Status::of), shared }
}
