//! The address for operators: metrics, probes, and what the API is.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::App;
use super::problem::Problem;
use crate::metrics::{self, Route};

/// The API for programs.
const OPENAPI: &str = include_str!("openapi.json");

/// How old the module's numbers may be that `/metrics` shows: several scrapers, or a curious
/// person, cost Redis one command.
const FRESH: Duration = Duration::from_secs(1);

/// The routes of `OPS_ADDR`, with the names by which they are counted.
pub fn routes() -> Vec<(&'static str, Route, MethodRouter<App>)> {
    let module = Arc::new(Mutex::new(None));
    vec![
        ("/livez", Route::Ops, get(|| async { "ok\n" })),
        ("/readyz", Route::Ops, get(ready)),
        (
            "/metrics",
            Route::Ops,
            get(move |State(app): State<App>| async move { text(&app, &module).await }),
        ),
        ("/openapi.json", Route::Ops, get(|| async { (JSON, OPENAPI) })),
    ]
}

const JSON: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];

/// The router of `OPS_ADDR`, with pages from elsewhere.
pub fn router(app: App, pages: Vec<(&'static str, Route, MethodRouter<App>)>) -> Router {
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

/// The module's numbers, and when they were asked for.
type Module = Mutex<Option<(Instant, String)>>;

async fn text(app: &App, module: &Module) -> Result<Response, Problem> {
    let unwritten = |error: std::fmt::Error| Problem::internal(error.to_string());
    let mut text = app.service.metrics.text().map_err(unwritten)?;
    let mut module = module.lock().await;
    let fresh = module.as_ref().filter(|(asked, _)| asked.elapsed() < FRESH);
    let info = match fresh {
        Some((_, info)) => info.clone(),
        None => {
            let mut command = redis::cmd("INFO");
            command.arg("claw");
            // Without an answer the numbers are missing, which is what a scraper should see.
            let info: String = app.redis.call(&command).await.unwrap_or_default();
            module.insert((Instant::now(), info)).1.clone()
        }
    };
    metrics::of_module(&info, &mut text).map_err(unwritten)?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}
