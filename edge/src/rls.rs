//! Envoy's rate limit service: `envoy.service.ratelimit.v3.RateLimitService`, as
//! `envoyproxy/ratelimit` answers it.

pub mod calls;
pub mod frame;
mod metadata;
mod reflection;
pub mod reply;

use std::sync::Arc;

use claw_core::limits::MAX_TOKENS;
use futures_util::future::join_all;
use tokio::time::Instant;
use tonic::Status;

use self::reply::{Asked, What};
use crate::decide::{Answer, Outcome, Plan};
use crate::limits::{Charge, Found, Mode};
use crate::metrics::{self, HitResult, Requests};
use crate::proto::{Code, RateLimitRequest, RateLimitResponse};
use crate::redis::Redis;
use crate::service::Service;
use crate::traces::Begun;

/// The service's full name.
pub const NAME: &str = "envoy.service.ratelimit.v3.RateLimitService";

/// The path of its one method.
pub const PATH: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// Descriptors of one request: as many buckets as the module takes in one call.
const MOST_DESCRIPTORS: usize = 1_024;

/// Decides one request, counts it, and ends its span.
///
/// # Errors
/// `INVALID_ARGUMENT` for a request that says nothing, `UNAVAILABLE` when the server could not
/// be asked: what Envoy does then is what its `failure_mode_deny` says.
pub async fn decide(
    service: &Service,
    redis: &Redis,
    requests: &Requests,
    request: &RateLimitRequest,
    span: Option<Begun>,
) -> Result<RateLimitResponse, Status> {
    let started = Instant::now();
    let response = respond(service, redis, request).await;
    let result = match &response {
        Ok(response) if response.overall_code() == Code::OverLimit => metrics::Outcome::Limited,
        Ok(_) => metrics::Outcome::Allowed,
        Err(status) if status.code() == tonic::Code::InvalidArgument => metrics::Outcome::Invalid,
        Err(_) => metrics::Outcome::Unavailable,
    };
    requests.count(result);
    requests.took(started.elapsed());
    if let Some(span) = span {
        span.end(requests.route, result, None);
    }
    response
}

async fn respond(
    service: &Service,
    redis: &Redis,
    request: &RateLimitRequest,
) -> Result<RateLimitResponse, Status> {
    if request.domain.is_empty() {
        return Err(Status::invalid_argument("the domain is empty"));
    }
    if request.descriptors.is_empty() {
        return Err(Status::invalid_argument("there is no descriptor"));
    }
    if request.descriptors.len() > MOST_DESCRIPTORS {
        return Err(Status::invalid_argument("there are more than 1024 descriptors"));
    }
    if service.config.rls_config.is_none() {
        // Without limits every request would pass, and nobody would know why.
        return Err(Status::failed_precondition("there are no limits: RLS_CONFIG is not set"));
    }
    let limits = service.limits.load();
    if !limits.has_domain(&request.domain) {
        service.metrics.unknown_domains.inc();
    }
    let found = limits.of_descriptors(&request.domain, &request.descriptors);
    if found.iter().any(|found| matches!(found, Found::BadOverride)) {
        return Err(Status::invalid_argument("the unit of a descriptor's limit is not known"));
    }
    let mut asked = asked(request, found);
    // A limit of nothing needs no server to say so.
    if asked.iter().any(Asked::grants_something) {
        // However much it asks, it has as long as any other.
        let deadline = redis.deadline();
        ask(redis, &mut asked, deadline).await?;
        if service.config.rls_overdraw {
            Box::pin(overdraw(redis, request, &mut asked, deadline)).await?;
        }
    }
    count_hits(service, &asked);
    Ok(reply::response(&service.config, request, &asked))
}

/// What each descriptor asks: its own tokens, else the request's, which are 1 if they are 0.
fn asked(request: &RateLimitRequest, found: Vec<Found>) -> Vec<Asked> {
    let of_request = u64::from(request.hits_addend.max(1));
    found
        .into_iter()
        .zip(&request.descriptors)
        .map(|(found, descriptor)| {
            let hits = descriptor.hits_addend.unwrap_or(of_request).min(MAX_TOKENS);
            let what = match hits {
                0 => What::Look,
                _ if descriptor.is_negative_hits => What::Give(hits),
                _ => What::Take(hits),
            };
            Asked { found, what, outcome: None }
        })
        .collect()
}

fn unavailable() -> Status {
    Status::unavailable("the limits cannot be asked for")
}

/// Asks the server for all of them.
async fn ask(redis: &Redis, asked: &mut [Asked], deadline: Instant) -> Result<(), Status> {
    let (mut charges, mut gives) = (Vec::new(), Vec::new());
    for one in asked.iter() {
        let Found::Limited { leaf, key, .. } = &one.found else { continue };
        let charge =
            |cost| Charge { limit: Arc::clone(&leaf.limit), key: Arc::clone(key), cost, keep: 0 };
        let cost = match one.what {
            What::Take(hits) => hits,
            What::Look => 0,
            What::Give(hits) => {
                gives.push((charge(hits), leaf.is_shadow));
                0
            }
        };
        charges.push(charge(cost));
    }
    if !gives.is_empty() {
        let given = async |(charge, is_shadow): &(Charge, bool)| {
            redis.give_by(charge, deadline).await.is_ok() || *is_shadow
        };
        let given = Box::pin(join_all(gives.iter().map(given))).await;
        if given.contains(&false) {
            return Err(unavailable());
        }
    }
    // A plan has those that are charged together first.
    let mut outcomes = redis.decide_by(Plan::new(charges), deadline).await.outcomes.into_iter();
    for together in [true, false] {
        for one in asked.iter_mut() {
            let Found::Limited { leaf, .. } = &one.found else { continue };
            if (leaf.limit.mode == Mode::Enforced) != together {
                continue;
            }
            one.outcome = outcomes.next();
            let is_answered = one.outcome.as_ref().is_some_and(|outcome| outcome.answer.is_some());
            if !is_answered && !leaf.is_shadow {
                return Err(unavailable());
            }
        }
    }
    Ok(())
}

/// Books the hits that a descriptor names by itself even where they were not taken, as debt if need
/// be: its own limit has refused them, or another one the request. A proxy names them when it knows
/// what a request has cost, and that is when the work is done.
async fn overdraw(
    redis: &Redis,
    request: &RateLimitRequest,
    asked: &mut [Asked],
    deadline: Instant,
) -> Result<(), Status> {
    let untaken = asked.iter_mut().zip(&request.descriptors).filter_map(|(one, descriptor)| {
        let is_named = descriptor.hits_addend.is_some() && one.grants_something();
        match (&one.found, one.what) {
            (Found::Limited { leaf, key, .. }, What::Take(hits)) if is_named && !one.is_taken() => {
                let (limit, key) = (Arc::clone(&leaf.limit), Arc::clone(key));
                let refused = one.answer()?;
                Some((one, Charge { limit, key, cost: 0, keep: 0 }, hits, refused))
            }
            _ => None,
        }
    });
    let book = async |(one, charge, hits, refused): (&mut Asked, Charge, u64, Answer)| {
        let Ok(booked) = redis.settle_by(&charge, hits, deadline).await else {
            return one.leaf().is_some_and(|leaf| leaf.is_shadow);
        };
        let retry_after_ms = match (refused.retry_after_ms, booked.reset_after_ms) {
            // Another limit has refused: here there was enough.
            (0, _) => 0,
            // It was refused, and is until the debt is paid; where none can be owed, as it was.
            (retry, 0) => retry,
            (_, until_paid) => until_paid,
        };
        let answer = Answer { retry_after_ms, ..booked };
        one.outcome = Some(Outcome { charge, answer: Some(answer) });
        true
    };
    if join_all(untaken.map(book)).await.contains(&false) { Err(unavailable()) } else { Ok(()) }
}

/// Counts what each limit said, under the names that the configuration wants.
fn count_hits(service: &Service, asked: &[Asked]) {
    for one in asked {
        let (Found::Limited { leaf, key, metric, .. }, What::Take(hits)) = (&one.found, one.what)
        else {
            continue;
        };
        let result = match one.is_over() {
            true if leaf.is_shadow => HitResult::ShadowMode,
            true => HitResult::OverLimit,
            // Another limit has refused the request, or nobody has been asked.
            false if !one.is_taken() => continue,
            false if one.is_near() => HitResult::NearLimit,
            false => HitResult::WithinLimit,
        };
        leaf.count(&service.metrics, metric, result, hits);
        if result == HitResult::OverLimit {
            service.metrics.count_limited(&leaf.limit.name);
            if let Some(answer) = one.answer() {
                service.recent.note(&leaf.limit.name, key, answer.retry_after_ms);
            }
        }
    }
}
