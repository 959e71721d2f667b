//! A verdict as a response.

use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use super::{App, fields};
use crate::decide::{Outcome, Verdict};
use crate::limits::{Charge, Mode};

/// The problem of a request that is refused: 429 if a limit is over, 503 if those that refuse
/// could not be asked. Counts them.
#[must_use]
pub fn refusal(app: &App, verdict: &Verdict) -> Problem {
    let refusing: Vec<String> =
        verdict.refusing().map(|outcome| outcome.charge.limit.name.clone()).collect();
    for limit in &refusing {
        app.service.metrics.count_limited(limit);
    }
    for outcome in verdict.refusing() {
        if let Some(answer) = outcome.answer {
            let Charge { limit, key, .. } = &outcome.charge;
            app.service.recent.note(&limit.name, key, answer.retry_after_ms);
        }
    }
    if !verdict.refusing().any(|outcome| outcome.answer.is_some()) {
        return Problem::reduced_capacity(refusing);
    }
    let wait = match verdict.retry_after_ms() {
        Some(ms) => format!("try again in {ms} ms"),
        None if verdict.blind => "not all of them could be asked".to_owned(),
        None if verdict.refusing().all(Outcome::is_used_up) => {
            "used up, and it does not refill".to_owned()
        }
        None => "more than it ever grants was asked for".to_owned(),
    };
    let detail = format!("refused by {}: {wait}", refusing.join(", "));
    Problem::quota_exceeded(refusing, detail)
}

/// The response to a request that was decided: `passed`, or the refusal, with the fields of both.
pub fn respond(app: &App, verdict: &Verdict, passed: impl IntoResponse) -> Response {
    let response = if verdict.allowed {
        passed.into_response()
    } else {
        refusal(app, verdict).into_response()
    };
    with_fields(app, verdict, response)
}

/// Adds the fields of a verdict. Counts the limits that would have refused.
#[must_use]
pub fn with_fields(app: &App, verdict: &Verdict, mut response: Response) -> Response {
    for outcome in &verdict.outcomes {
        if outcome.charge.limit.mode == Mode::Shadow && outcome.is_over() {
            app.service.metrics.count_shadowed(&outcome.charge.limit.name);
        }
    }
    fields::add(response.headers_mut(), verdict, app.service.config.older_fields);
    response
}
