//! Ratings: a user rates an item, as often as the limits allow, and anybody may read that.

use std::time::Instant;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use claw_core::decimal::{self, Decimal};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::problem::Problem;
use super::{App, body, limited, v1};
use crate::decide::Plan;
use crate::limits::{Facts, Route};
use crate::ratings::{self, HIGHEST};
use crate::redis::Fault;

/// The body of `POST /rating`. Members that are not known are ignored: what people send along
/// with a rating is their own.
#[derive(Debug, Deserialize)]
struct Rating {
    /// Who rates.
    #[serde(alias = "userId", deserialize_with = "body::name")]
    user_id: String,
    /// What is rated.
    #[serde(alias = "itemId", deserialize_with = "body::name")]
    item_id: String,
    /// 0..=5, with at most six decimals. Its text, so that no digit is lost.
    #[serde(alias = "score")]
    rating: Box<RawValue>,
}

/// A rating as it is stored.
#[derive(Debug, Serialize)]
struct Stored<'a> {
    user_id: &'a str,
    item_id: &'a str,
    rating: Box<RawValue>,
    /// When, in microseconds since 1970, by a clock that never goes back.
    stamp: u64,
    /// Where.
    region: &'a str,
}

/// The ratings of an item.
#[derive(Debug, Serialize)]
struct Item<'a> {
    item_id: &'a str,
    count: u64,
    /// Rounded to six decimals; null without ratings.
    mean: Option<Box<RawValue>>,
}

/// `POST /rating`: 200 with what was stored, or 429. The limits are charged first. If then the rating
/// cannot be stored, they are given back what they took.
pub async fn rate(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let client = app.client(super::peer(&request)?, request.headers());
    let headers = request.headers().clone();
    let host = super::host(super::named_host(&request)).into_owned();
    let text = body::json(&app, request).await?;
    let rating: Rating = body::parse(&text.bytes)?;
    body::check_name("user_id", &rating.user_id)?;
    body::check_name("item_id", &rating.item_id)?;
    let micros = micros(rating.rating.get())?;
    let limits = app.service.limits.load_full();
    let value = limits.read_bodies().then(|| body::parse(&text.bytes)).transpose()?;
    let facts = Facts {
        route: Route::Rating,
        method: "POST",
        path: "/rating",
        host: &host,
        client: Some(client),
        headers: &headers,
        body: value.as_ref(),
        user: Some(rating.user_id.as_bytes()),
        weight: None,
    };
    let (begin, deadline) = (Instant::now(), app.redis.deadline());
    let facts = super::weighed(&app, &limits, facts, deadline).await;
    let verdict = app.redis.decide_by(Plan::new(limits.of_request(&facts)), deadline).await;
    if !verdict.allowed {
        return Ok(limited::respond(&app, &verdict, ()));
    }
    // Redis has not answered in all that time: it is not waited for once more.
    let is_late = verdict.blind && begin.elapsed() >= app.service.config.decision_timeout;
    let stored = match is_late {
        true => Err(Fault::Deadline),
        false => app.ratings.rate(&rating.user_id, &rating.item_id, micros).await,
    };
    match stored {
        Ok(stored) => {
            let stored = stored_json(&rating.user_id, &rating.item_id, &stored)?;
            Ok(limited::respond(&app, &verdict, stored))
        }
        Err(fault) => {
            let problem = unavailable(&fault);
            let given_back = async move { app.redis.undo(&verdict).await };
            match fault {
                Fault::Refused { .. } => given_back.await,
                // The client need not wait for it, too.
                _ => drop(tokio::spawn(given_back)),
            }
            Err(problem)
        }
    }
}

/// `GET /rating/{user}/{item}`.
pub async fn of_user(
    State(app): State<App>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Problem> {
    let Path((user, item)) = path.map_err(|error| Problem::invalid(error.body_text()))?;
    body::check_name("the user", &user)?;
    body::check_name("the item", &item)?;
    match app.ratings.of_user(&user, &item).await.map_err(|fault| unavailable(&fault))? {
        Some(rating) => Ok(stored_json(&user, &item, &rating)?.into_response()),
        None => Err(Problem::wrong(StatusCode::NOT_FOUND, "this user has not rated this item")),
    }
}

/// `GET /items/{item}`.
pub async fn of_item(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(item) = path.map_err(|error| Problem::invalid(error.body_text()))?;
    body::check_name("the item", &item)?;
    let totals = app.ratings.of_item(&item).await.map_err(|fault| unavailable(&fault))?;
    let mean = totals.mean().map(number).transpose()?;
    Ok(Json(Item { item_id: &item, count: totals.count, mean }).into_response())
}

/// `DELETE /users/{user}`: for those who may use the API. 204 when all is gone, 202 when the rest
/// goes by and by.
pub async fn forget(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    v1::authorize(&app, &request)?;
    let Path(user) = path.map_err(|error| Problem::invalid(error.body_text()))?;
    body::check_name("the user", &user)?;
    match app.ratings.forget(&user).await.map_err(|fault| unavailable(&fault))? {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Ok(StatusCode::ACCEPTED.into_response()),
    }
}

fn stored_json(user: &str, item: &str, rating: &ratings::Rating) -> Result<Response, Problem> {
    let stored = Stored {
        user_id: user,
        item_id: item,
        rating: number(rating.micros)?,
        stamp: rating.stamp,
        region: &rating.region,
    };
    Ok(Json(stored).into_response())
}

/// Reads a rating.
fn micros(text: &str) -> Result<u64, Problem> {
    let wrong =
        || Problem::invalid("rating has to be a number from 0 to 5 with at most 6 decimals");
    let micros = decimal::parse_exact(text.as_bytes()).map_err(|_| wrong())?;
    if micros > HIGHEST { Err(wrong()) } else { Ok(micros) }
}

/// Millionths as a JSON number.
fn number(micros: u64) -> Result<Box<RawValue>, Problem> {
    RawValue::from_string(Decimal::new(micros).to_string())
        .map_err(|error| Problem::internal(error.to_string()))
}

/// Why a rating was not stored or read. What the server says goes to the log, and the caller is
/// told what to do.
pub fn unavailable(fault: &Fault) -> Problem {
    Problem::of_fault(fault, "ratings", "; it is safe to send the request again")
}
