//! What is served over HTTP.

pub mod fields;
pub mod ops;
pub mod problem;
pub mod rating;

use std::sync::Arc;

use axum::Router;
use axum::routing::post;

use crate::redis::Redis;
use crate::service::Service;

/// What every handler has at hand.
#[derive(Clone, Debug)]
pub struct App {
    /// What all workers share.
    pub service: Arc<Service>,
    /// The worker's connection.
    pub redis: Redis,
}

/// The routes of `HTTP_ADDR`.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/rating", post(rating::rate))
        .route("/ratings", post(rating::rate))
        .with_state(app)
}
