//! `POST /rating`: a user rates an item, as often as the limits allow.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Number, json};

use super::problem::Problem;
use super::{App, fields};
use crate::decide::{Plan, Verdict};
use crate::limits::{self, Facts};
use crate::metrics::{LimitName, Outcome, Request, Route};

/// The body.
#[derive(Debug, Deserialize)]
pub struct Rating {
    /// Who rates.
    #[serde(alias = "userId")]
    pub user_id: String,
    /// What is rated.
    #[serde(alias = "itemId")]
    pub item_id: String,
    /// 0..=5, with at most six decimals.
    #[serde(alias = "score")]
    pub rating: Number,
}

/// Answers 200 with the rating, or 429.
pub async fn rate(
    State(app): State<App>,
    headers: HeaderMap,
    body: Result<Json<Rating>, JsonRejection>,
) -> Response {
    let Json(rating) = match body {
        Ok(rating) => rating,
        Err(error) => {
            count(&app, Outcome::Invalid);
            return Problem::invalid(error.body_text()).into_response();
        }
    };
    let facts = Facts {
        route: limits::Route::Rating,
        method: "POST",
        path: "/rating",
        host: "",
        client: None,
        headers: &headers,
        body: None,
        user: Some(&rating.user_id),
    };
    let charges = app.service.limits.load().of_request(&facts);
    let verdict = app.redis.decide(Plan::new(charges)).await;
    count(&app, if verdict.allowed { Outcome::Allowed } else { Outcome::Limited });
    let mut response = if verdict.allowed {
        Json(json!({
            "user_id": rating.user_id, "item_id": rating.item_id, "rating": rating.rating,
        }))
        .into_response()
    } else {
        refusal(&app, &verdict).into_response()
    };
    fields::add(response.headers_mut(), &verdict);
    response
}

fn count(app: &App, result: Outcome) {
    app.service.metrics.requests.get_or_create(&Request { route: Route::Rating, result }).inc();
}

fn refusal(app: &App, verdict: &Verdict) -> Problem {
    let names: Vec<String> =
        verdict.refusing().map(|outcome| outcome.charge.limit.name.clone()).collect();
    for limit in &names {
        let limit = LimitName { limit: limit.clone() };
        app.service.metrics.rate_limited.get_or_create(&limit).inc();
    }
    Problem {
        kind: "https://iana.org/assignments/http-problem-types#quota-exceeded",
        title: "Request cannot be satisfied as assigned quota has been exceeded",
        status: 429,
        detail: format!("refused by {}", names.join(", ")),
        violated_policies: names,
    }
}
