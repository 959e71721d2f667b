//! What limits said becomes a response. Pure: no socket, no clock.

use prost_types::Duration;

use super::metadata;
use crate::config::Config;
use crate::decide::{Answer, Outcome};
use crate::limits::{Found, Leaf};
use crate::proto::{
    Code, DescriptorStatus, HeaderValue, RateLimitRequest, RateLimitResponse, Unit,
};

/// What one descriptor asks, and what became of it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What it falls under.
    pub found: Found,
    /// What it wants.
    pub what: What,
    /// What the server said; nothing if it was not asked.
    pub outcome: Option<Outcome>,
}

/// What a descriptor wants of its bucket, in whole tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// To take so many.
    Take(u64),
    /// To give so many back.
    Give(u64),
    /// To see whether there is one.
    Look,
}

impl Asked {
    /// Whether it falls under a limit that ever grants something.
    #[must_use]
    pub fn grants_something(&self) -> bool {
        self.leaf().is_some_and(|leaf| leaf.shown.requests_per_unit > 0)
    }

    /// Whether its limit refuses.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let Some(leaf) = self.leaf() else { return false };
        match (self.what, &self.outcome) {
            (What::Give(_), _) => false,
            (What::Look, Some(Outcome { answer: Some(answer), .. })) => answer.remaining < 1,
            (What::Take(_), Some(Outcome { answer: Some(answer), .. })) => {
                answer.retry_after_ms != 0
            }
            // Only a limit that watches goes on without an answer.
            (_, Some(Outcome { answer: None, .. })) => false,
            (_, None) => leaf.shown.requests_per_unit == 0,
        }
    }

    /// Whether it was charged.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.answer().is_some_and(|answer| answer.taken > 0)
    }

    /// Whether more than 80 % of its limit are taken.
    #[must_use]
    pub fn is_near(&self) -> bool {
        self.answer().is_some_and(|answer| {
            let taken = answer.capacity.saturating_sub(answer.remaining);
            taken.saturating_mul(10) > answer.capacity.saturating_mul(8)
        })
    }

    /// Its limit.
    #[must_use]
    pub fn leaf(&self) -> Option<&Leaf> {
        match &self.found {
            Found::Limited { leaf, .. } => Some(leaf),
            Found::Nothing | Found::Unlimited | Found::BadOverride => None,
        }
    }

    /// What the server said of its bucket; nothing if it was not asked, or did not answer.
    #[must_use]
    pub fn answer(&self) -> Option<Answer> {
        self.outcome.as_ref()?.answer
    }

    fn status(&self) -> DescriptorStatus {
        let Some(leaf) = self.leaf() else {
            let is_unlimited = matches!(self.found, Found::Unlimited);
            return DescriptorStatus {
                code: Code::Ok.into(),
                limit_remaining: if is_unlimited { u32::MAX } else { 0 },
                ..DescriptorStatus::default()
            };
        };
        let is_over = self.is_over();
        let code = if is_over && !leaf.is_shadow { Code::OverLimit } else { Code::Ok };
        DescriptorStatus {
            code: code.into(),
            current_limit: Some(leaf.shown.clone()),
            limit_remaining: if is_over { 0 } else { self.remaining(leaf) },
            duration_until_reset: Some(self.until_reset(leaf, is_over)),
        }
    }

    /// Whole tokens left. What a policy of somebody else's holds beyond this limit is not
    /// Envoy's to see.
    fn remaining(&self, leaf: &Leaf) -> u32 {
        let most = leaf.shown.requests_per_unit;
        let Some(answer) = self.answer() else { return most };
        let left = answer.remaining.clamp(0, i64::from(most));
        u32::try_from(left).unwrap_or(most)
    }

    /// Whole seconds, rounded up: while it refuses, until the same request passes; else until
    /// the bucket is full. A limit that never lets it pass says its unit.
    fn until_reset(&self, leaf: &Leaf, is_over: bool) -> Duration {
        let grants = leaf.shown.requests_per_unit > 0;
        let ms = self.answer().filter(|_| grants).map(|answer| match self.what {
            What::Take(_) if is_over => answer.retry_after_ms,
            What::Take(_) | What::Give(_) | What::Look => answer.reset_after_ms,
        });
        let seconds = match ms.map(u64::try_from) {
            Some(Ok(ms)) => ms.div_ceil(1_000),
            Some(Err(_)) | None => leaf.shown.unit().seconds().unwrap_or(0),
        };
        Duration { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 }
    }
}

/// The response to `request`, once every descriptor has been asked for.
#[must_use]
pub fn response(config: &Config, request: &RateLimitRequest, asked: &[Asked]) -> RateLimitResponse {
    let statuses: Vec<DescriptorStatus> = asked.iter().map(Asked::status).collect();
    let is_over = !config.shadow_mode && refuses(asked, &statuses);
    RateLimitResponse {
        overall_code: if is_over { Code::OverLimit } else { Code::Ok }.into(),
        response_headers_to_add: headers(config, asked, &statuses),
        dynamic_metadata: config
            .response_dynamic_metadata
            .then(|| metadata::of(request, asked, &statuses)),
        statuses,
    }
}

/// Whether the request is refused: by a limit that is no quota, or by all quotas together.
fn refuses(asked: &[Asked], statuses: &[DescriptorStatus]) -> bool {
    let over = |quota: bool| {
        asked
            .iter()
            .zip(statuses)
            .filter(move |(one, _)| one.leaf().is_some_and(|leaf| leaf.is_quota == quota))
            .map(|(_, status)| status.code() == Code::OverLimit)
    };
    let mut quotas = over(true).peekable();
    over(false).any(|over| over) || (quotas.peek().is_some() && quotas.all(|over| over))
}

/// The fields of the limit with least left; of a limit that refuses, if one does.
fn headers(config: &Config, asked: &[Asked], statuses: &[DescriptorStatus]) -> Vec<HeaderValue> {
    if !config.limit_response_headers_enabled {
        return Vec::new();
    }
    let refusing = asked.iter().zip(statuses).rfind(|(one, status)| {
        status.code() == Code::OverLimit && one.leaf().is_some_and(|leaf| !leaf.is_quota)
    });
    let least = || {
        let limited = statuses.iter().filter(|status| status.current_limit.is_some());
        limited.min_by_key(|status| status.limit_remaining)
    };
    let Some(status) = refusing.map(|(_, status)| status).or_else(least) else {
        return Vec::new();
    };
    let limit = status.current_limit.as_ref().map_or(0, |limit| limit.requests_per_unit);
    let reset = status.duration_until_reset.map_or(0, |duration| duration.seconds);
    [
        (&config.limit_limit_header, limit.to_string()),
        (&config.limit_remaining_header, status.limit_remaining.to_string()),
        (&config.limit_reset_header, reset.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| HeaderValue { key: name.clone(), value })
    .collect()
}

/// A limit as the text format of protocol buffers has it.
pub(super) fn text(requests_per_unit: u32, unit: Unit) -> String {
    format!("requests_per_unit:{requests_per_unit} unit:{}", unit.name().to_uppercase())
}
