//! The fields that tell a client about limits: `RateLimit`, `RateLimit-Policy` and
//! `Retry-After`, as draft-ietf-httpapi-ratelimit-headers-10 has them.

use std::fmt::Write;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::decide::{Outcome, Verdict};

/// Adds what `verdict` says to a response.
pub fn add(headers: &mut HeaderMap, verdict: &Verdict) {
    let (mut policies, mut limits) = (String::new(), String::new());
    for outcome in &verdict.outcomes {
        append(&mut policies, &mut limits, outcome);
    }
    for (name, value) in [("ratelimit-policy", policies), ("ratelimit", limits)] {
        if let Ok(value) = HeaderValue::from_str(&value)
            && !value.is_empty()
        {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    if !verdict.allowed
        && let Some(ms) = verdict.retry_after_ms()
    {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000).max(1)));
    }
}

/// Appends one limit to both lists. Numbers are seconds and whole tokens.
fn append(policies: &mut String, limits: &mut String, outcome: &Outcome) {
    let limit = &outcome.charge.limit;
    let Some(answer) = outcome.answer else { return };
    for list in [&mut *policies, &mut *limits] {
        if !list.is_empty() {
            list.push_str(", ");
        }
    }
    let _ = write!(policies, "\"{}\";q={}", limit.name, limit.policy.capacity());
    let _ = write!(limits, "\"{}\";r={}", limit.name, answer.remaining.max(0));
}
