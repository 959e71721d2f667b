//! `POST /v1/check`, `take`, `give`, `settle` and `done`: buckets for any program. `{key, tokens}` and one
//! of `limit`, the name of a limit of the configuration, and `policy`, where that is allowed.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use claw_core::decimal;
use claw_core::limits::MAX_TOKENS;
use claw_core::policy::{Policy, PolicyError};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::problem::Problem;
use super::{App, body, events, limited, places};
use crate::access::bearer;
use crate::config;
use crate::decide::{Answer, Outcome, Plan, Verdict};
use crate::limits::{self, Charge, Limit};
use crate::redis::Fault;
use crate::tickets::Told;

/// The longest key of a caller, in bytes.
const LONGEST_KEY: usize = 512;

/// The body of all but settle. An unknown member is an error: a misspelt `tokens` would be
/// charged as one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tokens {
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    tokens: Option<Box<RawValue>>,
    #[serde(default)]
    limit: Option<String>,
    #[serde(default)]
    policy: Option<PolicyBody>,
}

/// The body of settle.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settlement {
    #[serde(default)]
    key: Option<String>,
    reserved: Box<RawValue>,
    used: Box<RawValue>,
    #[serde(default)]
    limit: Option<String>,
    #[serde(default)]
    policy: Option<PolicyBody>,
}

/// The body of done.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct DoneBody {
    ticket: String,
    #[serde(alias = "latency_ms")]
    latency_ms: Box<RawValue>,
    #[serde(default)]
    status: Option<u16>,
}

/// A policy of a caller's own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyBody {
    capacity: Box<RawValue>,
    refill: Box<RawValue>,
    #[serde(default)]
    interval: Option<String>,
}

/// What a bucket answers.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Bucket {
    /// Whole tokens taken: none when refused; below 0 when tokens were given back.
    taken: i64,
    /// Whole tokens that it holds at most.
    capacity: i64,
    /// Whole tokens left, rounded down; below 0 in debt.
    remaining: i64,
    /// Milliseconds until the same call succeeds; null = never.
    retry_after_ms: Option<u64>,
    /// Milliseconds until it is full; null = never.
    reset_after_ms: Option<u64>,
}

/// What a program is told that may go on.
#[derive(Debug, Serialize)]
struct Allowed {
    allowed: bool,
    /// Whether this was decided without the server, which did not answer.
    blind: bool,
    /// What tells that the request is done, where that has to be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    ticket: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    bucket: Option<Bucket>,
}

impl From<Answer> for Bucket {
    fn from(answer: Answer) -> Self {
        Self {
            taken: answer.taken,
            capacity: answer.capacity,
            remaining: answer.remaining,
            // Below 0 is never.
            retry_after_ms: u64::try_from(answer.retry_after_ms).ok(),
            reset_after_ms: u64::try_from(answer.reset_after_ms).ok(),
        }
    }
}

/// Looks: the answer that a take would get, and nothing is taken.
pub async fn check(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let charge = charge(&app, request).await?;
    let answer = match app.redis.peek(&charge).await {
        Ok(answer) => Some(answer),
        Err(Fault::Refused { text, .. }) => return Err(Problem::refused("limits", &text)),
        Err(_) => None,
    };
    Ok(decided(&app, &Verdict::new(vec![Outcome { charge, answer }]), None))
}

/// Takes all of the tokens or none.
pub async fn take(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let charge = charge(&app, request).await?;
    let wanted = places::wanted(std::slice::from_ref(&charge), |_| 0);
    let has_room = wanted.is_empty() || app.service.tickets.has_room();
    if !has_room {
        return Err(places::busy(&app, &charge.limit));
    }
    places::look(&app, &wanted)?;
    let verdict = app.redis.charge(Plan::new(vec![charge]), app.redis.deadline()).await;
    if !verdict.allowed {
        return Ok(decided(&app, &verdict, None));
    }
    let place = places::enter(&app, &wanted, &verdict).await?.pop();
    let ticket = place.and_then(|place| app.service.tickets.issue(place.slot, place.sla));
    Ok(decided(&app, &verdict, ticket))
}

/// Tells that a request is done which was let through by `take`, under a limit that has places in
/// flight.
pub async fn done(State(app): State<App>, request: Request) -> Result<StatusCode, Problem> {
    authorize(&app, &request)?;
    let text = body::json(&app, request).await?;
    let body: DoneBody = body::parse(&text.bytes)?;
    let latency_us = events::latency_us(body.latency_ms.get())?;
    let has_failed = body.status.is_some_and(|status| status >= 500);
    match app.service.tickets.done(&body.ticket, latency_us, has_failed) {
        Told::Done => Ok(StatusCode::NO_CONTENT),
        Told::Passed => Ok(StatusCode::ACCEPTED),
        Told::Unknown => Err(Problem::wrong(
            StatusCode::NOT_FOUND,
            "this request is not in flight here: it was done before, or is older than a minute",
        )),
        Told::Unreadable => Err(Problem::invalid("ticket: this is none")),
        Told::TooMany => Err(Problem::unavailable("too many tickets are of other instances")),
    }
}

/// Gives tokens back.
pub async fn give(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let charge = charge(&app, request).await?;
    Ok(Json(Bucket::from(app.redis.give(&charge).await.map_err(unanswered)?)).into_response())
}

/// Books the difference between what was reserved and what was used.
pub async fn settle(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    authorize(&app, &request)?;
    let text = body::json(&app, request).await?;
    let body: Settlement = body::parse(&text.bytes)?;
    let (reserved, used) = (tokens("reserved", &body.reserved)?, tokens("used", &body.used)?);
    let charge = bucket(&app, body.key.as_deref(), body.limit.as_deref(), body.policy, reserved)?;
    let answer = app.redis.settle(&charge, used).await.map_err(unanswered)?;
    Ok(Json(Bucket::from(answer)).into_response())
}

/// Who may use the API: whoever shows a token; where there are none, whoever is on this machine
/// and does not come through a proxy on it.
///
/// # Errors
/// 401 without a right token, 403 where nobody could have one.
pub fn authorize(app: &App, request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    let tokens = app.service.tokens.load();
    if tokens.is_empty() {
        return if super::is_local(request)? {
            Ok(())
        } else {
            Err(Problem::denied(
                StatusCode::FORBIDDEN,
                "no API token is configured, so only callers on the same machine, under a name of it, are answered",
            ))
        };
    }
    match bearer(headers) {
        Some(token) if tokens.has(token) => Ok(()),
        _ => Err(Problem::denied(
            StatusCode::UNAUTHORIZED,
            "a token is needed: Authorization: Bearer ..",
        )),
    }
}

/// Reads what a request wants to be charged.
async fn charge(app: &App, request: Request) -> Result<Charge, Problem> {
    authorize(app, &request)?;
    let text = body::json(app, request).await?;
    let body: Tokens = body::parse(&text.bytes)?;
    let cost = body.tokens.as_ref().map_or(Ok(1), |text| tokens("tokens", text))?;
    bucket(app, body.key.as_deref(), body.limit.as_deref(), body.policy, cost)
}

/// The bucket of a caller's key under a limit. The limit is part of the bucket's key, so that no
/// two policies meet in one bucket.
fn bucket(
    app: &App,
    key: Option<&str>,
    limit: Option<&str>,
    policy: Option<PolicyBody>,
    cost: u64,
) -> Result<Charge, Problem> {
    let limit = match (limit, policy) {
        (Some(name), None) => {
            let limit = app.service.limits.load().named(name);
            limit.ok_or_else(|| Problem::invalid("there is no limit of this name"))?
        }
        (None, Some(_)) if !app.service.config.allow_policies => {
            return Err(Problem::denied(
                StatusCode::FORBIDDEN,
                "callers may not bring policies: name a limit of the configuration",
            ));
        }
        (None, Some(policy)) => Arc::new(policy.limit(&app.service.config.key_prefix)?),
        _ => return Err(Problem::invalid("either limit or policy is needed")),
    };
    let key = match (key, &limit.adaptive) {
        (None, Some(_)) => limit.key(None),
        (Some(_), Some(_)) => {
            return Err(Problem::invalid("an adaptive limit has one bucket, and so no key"));
        }
        (None, None) => return Err(Problem::invalid("key is needed")),
        (Some(key), None) => {
            body::check_text("key", key, LONGEST_KEY)?;
            // As limits themselves write what is long.
            limit.key(Some(limits::part(key).as_bytes()))
        }
    };
    if limit.adaptive.is_some() && cost != 1 {
        return Err(Problem::invalid("an adaptive limit counts requests: one token for each"));
    }
    // What limits leave behind is for those who are trusted with this path.
    Ok(Charge { limit, key, cost, keep: 0 })
}

impl PolicyBody {
    /// A limit of this policy alone.
    fn limit(&self, prefix: &str) -> Result<Limit, Problem> {
        let policy = self.read()?;
        let (capacity, refill) = (policy.capacity(), policy.refill());
        let base = format!("{prefix}policy/{capacity}/{refill}/{}", policy.interval_ms());
        Ok(Limit::new("policy".to_owned(), policy, base.into_bytes()))
    }

    fn read(&self) -> Result<Policy, Problem> {
        let capacity = decimal::whole(self.capacity.get().as_bytes())
            .map_err(|_| Problem::invalid("policy.capacity has to be a whole number"))?;
        let refill = decimal::parse_refill(self.refill.get().as_bytes())
            .ok_or_else(|| Problem::invalid("policy.refill has to be a number"))?;
        let interval = self.interval.as_deref().unwrap_or("1s");
        let interval = config::duration(interval)
            .map_err(|error| Problem::invalid(format!("policy.interval: {error}")))?;
        let ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        Policy::new(capacity, refill, ms).map_err(|error| {
            Problem::invalid(match error {
                PolicyError::Capacity => "policy.capacity has to be 0 to 10^12",
                PolicyError::Refill => "policy.refill has to be 0, or 0.000001 to 10^12",
                PolicyError::Interval => "policy.interval has to be 1ms to 366d",
                PolicyError::NoRefill | PolicyError::NoCapacity => "policy lacks a part",
            })
        })
    }
}

/// Reads a whole number of tokens.
fn tokens(what: &str, text: &RawValue) -> Result<u64, Problem> {
    let number = decimal::whole(text.get().as_bytes()).ok();
    number
        .filter(|number| *number <= MAX_TOKENS)
        .ok_or_else(|| Problem::invalid(format!("{what} has to be a whole number from 0 to 10^12")))
}

/// What a verdict of one charge comes to.
fn decided(app: &App, verdict: &Verdict, ticket: Option<String>) -> Response {
    let answer = verdict.outcomes.first().and_then(|outcome| outcome.answer);
    let bucket = answer.map(Bucket::from);
    if verdict.allowed {
        let body = Allowed { allowed: true, blind: verdict.blind, ticket, bucket };
        return limited::respond(app, verdict, Json(body));
    }
    let problem = limited::refusal(app, verdict).with_bucket(bucket);
    limited::with_fields(app, verdict, problem.into_response())
}

fn unanswered(fault: Fault) -> Problem {
    Problem::of_fault(&fault, "limits", ": it may have been done or not")
}
