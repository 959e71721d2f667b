//! Limits that follow how their backends do, as the page and programs see them.

use axum::Json;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use claw_adapt::trial::{Difference, Verdict};
use claw_core::decimal::Decimal;
use futures_util::future::join_all;
use serde::Serialize;
use serde_json::json;

use super::Admin;
use super::change::in_words;
use crate::adaptive::decision::name;
use crate::adaptive::lead::kept_trial;
use crate::adaptive::shared::{Kept, Shared};
use crate::http::App;
use crate::http::problem::Problem;
use crate::limits::Limit;
use crate::limits::adaptive::{Adaptive, Mode};
use crate::redis::Fault;

/// One of them, as it is shown.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// The name of the limit.
    pub route: String,
    /// `on_path`, `off_path`.
    pub profile: &'static str,
    /// How far the loop goes: what it was switched to, or what the settings say.
    pub mode: &'static str,
    /// Whether it was switched.
    pub is_switched: bool,
    /// Whether what the loop decides is in force now.
    pub is_live: bool,
    /// Who decided last; nothing if nobody does.
    pub decided_by: Option<&'static str>,
    /// Tokens that the bucket holds.
    pub bucket_size: u64,
    /// Tokens that it gains in each second.
    pub refill_rate: String,
    /// Requests in flight over all instances; nothing without a cap.
    pub in_flight_cap: Option<u64>,
    /// The trial, in words; nothing if there is none.
    pub trial: Option<String>,
    /// Whether regions share its bucket, which they should not; nothing if that is not known.
    pub is_shared: Option<bool>,
}

/// `GET /admin/adaptive`: all of them, for programs.
///
/// # Errors
/// For whoever may not, and without an answer of the server.
pub async fn list(admin: &Admin, request: Request) -> Result<Response, Problem> {
    admin.access.admit(&admin.app, &request).await?;
    let routes = read(&admin.app).await.map_err(|fault| Problem::unavailable(in_words(&fault)))?;
    Ok(Json(json!({ "routes": routes })).into_response())
}

/// All of them, in the order of the limits.
///
/// # Errors
/// When there is no answer.
pub async fn read(app: &App) -> Result<Vec<Shown>, Fault> {
    let limits = app.service.limits.load_full();
    let look = async |(limit, adaptive): (&std::sync::Arc<Limit>, &Adaptive)| {
        let shared = Shared::new(app.redis.clone(), limit);
        let (kept, is_shared) = futures_util::join!(shared.look(), shared.is_shared());
        Ok(Shown::new(limit, adaptive, &kept?, is_shared.ok()))
    };
    join_all(limits.adaptive().map(look)).await.into_iter().collect()
}

/// The limit of a name, and what is shared of it.
#[must_use]
pub fn shared(app: &App, route: &str) -> Option<Shared> {
    let limits = app.service.limits.load();
    let (limit, _) = limits.adaptive().find(|(limit, _)| limit.name == route)?;
    Some(Shared::new(app.redis.clone(), limit))
}

impl Shown {
    fn new(limit: &Limit, adaptive: &Adaptive, kept: &Kept, is_shared: Option<bool>) -> Self {
        let settings = &adaptive.settings;
        let decision = kept.decision.as_ref();
        let live = decision.filter(|decision| decision.is_live);
        let policy = live.map_or(settings.bounds.fallback, |decision| decision.policy);
        Self {
            route: limit.name.clone(),
            profile: settings.profile.text(),
            mode: kept.switch.unwrap_or(settings.mode).text(),
            is_switched: kept.switch.is_some(),
            is_live: live.is_some(),
            decided_by: decision.map(|decision| name(decision.by)),
            bucket_size: policy.capacity,
            refill_rate: Decimal::new(policy.refill_micros).to_string(),
            in_flight_cap: policy.in_flight,
            trial: trial(&kept.trial),
            is_shared,
        }
    }
}

/// How a trial stands.
fn trial(text: &str) -> Option<String> {
    let (_, trial) = kept_trial(text)?;
    let verdict = match trial.verdict() {
        Verdict::Undecided => "undecided",
        Verdict::Better => "the loop is better",
        Verdict::Worse => "the loop is worse, and out of force",
        Verdict::NoDifference => "no difference can be told",
    };
    let pairs = trial.pairs().len();
    Some(match trial.difference() {
        Some(Difference { mean, low, high }) => format!(
            "{verdict} after {pairs} pairs: {:+.1} % [{:+.1}, {:+.1}]",
            mean * 100.0,
            low * 100.0,
            high * 100.0
        ),
        None => format!("{verdict} after {pairs} pairs"),
    })
}

/// The modes that the page offers.
pub const MODES: [Mode; 4] = Mode::ALL;
