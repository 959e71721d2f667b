//! `POST /api/v1/event`: what a program tells of requests that have been answered. It is told in
//! turn what the limit of its route lets through.
//!
//! An event is counted once, however often and wherever it is sent: who sent it, about what and when
//! tell it from others, for as long as one of that time is taken.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use claw_core::decimal::{self, Decimal};
use futures_util::future::join_all;
use jiff::Timestamp;
use redis::Value;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::problem::Problem;
use super::{App, body, v1};
use crate::limits::adaptive::Profile;
use crate::limits::{self, Limits};
use crate::ratings::HIGHEST;
use crate::redis::Fault;

/// How far the time of an event may be from now, in milliseconds. So long it is told from others,
/// beginning with the first moment at which it may be sent.
const NEAR_MS: u64 = 60_000;
/// Lines of a batch.
const MOST_LINES: usize = 1_000;
/// Bytes of a batch.
const LARGEST_BATCH: usize = 1 << 20;
/// Events of a batch that are looked up at once.
const TOGETHER: usize = 100;
/// The longest latency, in milliseconds.
const LONGEST_MS: u64 = 3_600_000;

/// The body. Members that are not known are ignored: programs send the same event elsewhere, too.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    #[serde(alias = "user_id", deserialize_with = "body::name")]
    user_id: String,
    #[serde(alias = "item_id", deserialize_with = "body::name")]
    item_id: String,
    /// 0..=5.
    #[serde(alias = "rating")]
    score: Box<RawValue>,
    timestamp: Time,
    #[serde(default, alias = "latency_ms")]
    latency_ms: Option<Box<RawValue>>,
    /// The status of the response.
    #[serde(default)]
    status: Option<u16>,
    #[serde(default)]
    route: Option<String>,
}

/// Milliseconds since 1970, or as RFC 3339 has it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Time {
    Ms(u64),
    Text(String),
}

/// What holds now.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    /// Tokens that the bucket holds.
    bucket_size: u64,
    /// Tokens that it gains in each second.
    refill_rate: Box<RawValue>,
}

/// What became of a batch.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Batch {
    accepted: usize,
    duplicates: usize,
    refused: usize,
    /// The first ten.
    errors: Vec<Wrong>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    policy: Option<Policy>,
}

/// What is wrong with a line, counted from 1.
#[derive(Debug, Serialize)]
struct Wrong {
    line: usize,
    detail: String,
}

/// Lines of a batch that are told to be wrong.
const MOST_ERRORS: usize = 10;

/// An event that has been understood.
#[derive(Debug)]
struct Known {
    /// What tells it from others.
    id: String,
    route: String,
    latency_us: Option<u64>,
    has_failed: bool,
}

/// Whether an event was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    New,
    Duplicate,
}

/// One event, or a batch of lines.
pub async fn tell(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    v1::authorize(&app, &request)?;
    if body::media_type(request.headers()).eq_ignore_ascii_case("application/x-ndjson") {
        let text = body::read(request, LARGEST_BATCH, &app.service.bodies).await?;
        return batch(&app, &text.bytes).await;
    }
    let text = body::json(&app, request).await?;
    let limits = app.service.limits.load_full();
    let metrics = &app.service.metrics.adaptive;
    let known =
        read(&limits, &text.bytes, now_ms()).inspect_err(|_| metrics.count_event("refused"))?;
    note(&app, &limits, &known).await.map_err(|fault| unavailable(&fault))?;
    Ok(Json(policy(&limits, &known.route)?).into_response())
}

async fn batch(app: &App, text: &[u8]) -> Result<Response, Problem> {
    let limits = app.service.limits.load_full();
    let is_line = |line: &&[u8]| !line.trim_ascii().is_empty();
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(is_line).collect();
    if lines.len() > MOST_LINES {
        return Err(Problem::invalid(format!("the batch has more than {MOST_LINES} events")));
    }
    let mut batch = Batch::default();
    let mut known = Vec::with_capacity(lines.len());
    let now = now_ms();
    for (line, text) in (1..).zip(lines) {
        match read(&limits, text, now) {
            Ok(event) => known.push(event),
            Err(problem) => {
                app.service.metrics.adaptive.count_event("refused");
                batch.refused = batch.refused.saturating_add(1);
                if batch.errors.len() < MOST_ERRORS {
                    batch.errors.push(Wrong { line, detail: problem.detail });
                }
            }
        }
    }
    for events in known.chunks(TOGETHER) {
        let noted = join_all(events.iter().map(|event| note(app, &limits, event))).await;
        for news in noted {
            // Those that were counted will be duplicates when the batch is sent again.
            let count = match news.map_err(|fault| unavailable(&fault))? {
                News::New => &mut batch.accepted,
                News::Duplicate => &mut batch.duplicates,
            };
            *count = count.saturating_add(1);
        }
    }
    batch.policy = known.last().map(|event| policy(&limits, &event.route)).transpose()?;
    Ok(Json(batch).into_response())
}

/// Reads an event.
fn read(limits: &Limits, text: &[u8], now_ms: u64) -> Result<Known, Problem> {
    let event: Event = body::parse(text)?;
    body::check_name("userId", &event.user_id)?;
    body::check_name("itemId", &event.item_id)?;
    if !decimal::parse_exact(event.score.get().as_bytes()).is_ok_and(|score| score <= HIGHEST) {
        return Err(Problem::invalid("score has to be a number from 0 to 5"));
    }
    let at_ms = match event.timestamp {
        Time::Ms(ms) => ms,
        Time::Text(text) => {
            let time: Timestamp = text.parse().map_err(|_| {
                Problem::invalid(
                    "timestamp has to be milliseconds since 1970, or as RFC 3339 has it",
                )
            })?;
            u64::try_from(time.as_millisecond()).unwrap_or(0)
        }
    };
    if at_ms.abs_diff(now_ms) > NEAR_MS {
        return Err(Problem::invalid("timestamp is more than a minute from now"));
    }
    let latency_us = event.latency_ms.as_ref().map(|text| latency_us(text.get())).transpose()?;
    let route = route(limits, event.route)?;
    let id = limits::digest(&format!("{}\n{}\n{at_ms}", event.user_id, event.item_id));
    let has_failed = event.status.is_some_and(|status| status >= 500);
    Ok(Known { id, route, latency_us, has_failed })
}

/// Reads a latency, in milliseconds with decimals.
pub(super) fn latency_us(text: &str) -> Result<u64, Problem> {
    let millionths = decimal::parse(text.as_bytes()).ok();
    let us = millionths.map(|millionths| millionths.div_ceil(1_000));
    us.filter(|us| *us <= LONGEST_MS.saturating_mul(1_000))
        .ok_or_else(|| Problem::invalid("latencyMs has to be a number from 0 to 3600000"))
}

/// The adaptive limit that is meant.
fn route(limits: &Limits, named: Option<String>) -> Result<String, Problem> {
    let mut names = limits.adaptive().map(|(limit, _)| &limit.name);
    match named {
        Some(route) if names.any(|name| *name == route) => Ok(route),
        Some(_) => Err(Problem::invalid("there is no adaptive limit of the name in route")),
        None => match (names.next(), names.next()) {
            (Some(only), None) => Ok(only.clone()),
            (None, _) => Err(Problem::invalid("there is no adaptive limit")),
            (Some(_), Some(_)) => {
                Err(Problem::invalid("route is needed: there are several adaptive limits"))
            }
        },
    }
}

/// Counts an event, unless it has been counted before.
async fn note(app: &App, limits: &Limits, event: &Known) -> Result<News, Fault> {
    let metrics = &app.service.metrics.adaptive;
    let key = format!("@route:{}event:{}", app.service.config.key_prefix, event.id);
    let mut command = redis::cmd("SET");
    command.arg(key).arg("").arg("NX").arg("PX").arg(NEAR_MS.saturating_mul(2));
    let reply = app.redis.call::<Value>(&command).await;
    if reply.inspect_err(|_| metrics.count_event("unavailable"))? == Value::Nil {
        metrics.count_event("duplicate");
        return Ok(News::Duplicate);
    }
    let adaptive = limits.adaptive().find(|(limit, _)| limit.name == event.route);
    let off_path = adaptive.filter(|(_, it)| it.settings.profile == Profile::OffPath);
    if let Some((_, adaptive)) = off_path {
        adaptive.meter.hear();
    }
    metrics.count_event(match (event.latency_us, off_path) {
        (Some(us), Some((_, adaptive))) => {
            match event.has_failed {
                true => adaptive.meter.fail(),
                false => adaptive.meter.complete(us, us > adaptive.settings.bounds.sla_us),
            }
            metrics.took(&event.route, Duration::from_micros(us));
            "accepted"
        }
        // On the path every answer is seen already.
        (Some(_), _) => "on_path",
        // Nothing tells how the backend is.
        (None, _) => "without_latency",
    });
    Ok(News::New)
}

/// What the limit of a route lets through now.
fn policy(limits: &Limits, route: &str) -> Result<Policy, Problem> {
    let adaptive = limits.adaptive().find(|(limit, _)| limit.name == route);
    let (_, adaptive) = adaptive.ok_or_else(|| Problem::internal("a limit has gone"))?;
    let policy = adaptive.meter.policy();
    let refill_rate = RawValue::from_string(Decimal::new(policy.refill_micros).to_string())
        .map_err(|error| Problem::internal(error.to_string()))?;
    Ok(Policy { bucket_size: policy.capacity, refill_rate })
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

fn unavailable(fault: &Fault) -> Problem {
    Problem::of_fault(fault, "events", "; it is safe to send the request again")
}
