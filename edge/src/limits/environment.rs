//! Limits by environment variables, for a service that needs no file.

use std::sync::Arc;
use std::time::Duration;

use claw_core::decimal;
use claw_core::policy::Policy;

use super::rule::{Cost, Part, Rule, When};
use super::{Limit, OnFault};
use crate::config::Config;

/// The limits that the environment names, of the whole service and of each user.
///
/// # Errors
/// Names the variable and what is wrong with it.
pub fn rules(config: &Config) -> Result<Vec<Rule>, String> {
    let service =
        policy("", config.capacity.as_deref(), config.refill.as_deref(), config.interval)?;
    let user = policy(
        "USER_",
        config.user_capacity.as_deref(),
        config.user_refill.as_deref(),
        config.user_interval,
    )?;
    let rule = |name: &str, policy: Policy, base: &str, parts: Vec<Part>| Rule {
        limit: Arc::new(Limit {
            on_fault: if config.fail_closed { OnFault::Closed } else { OnFault::Open },
            ..Limit::new(name.to_owned(), policy, base.as_bytes().to_vec())
        }),
        when: When::default(),
        parts,
        cost: Cost::Fixed(1),
    };
    let base = format!("{}service", config.key_prefix);
    let service = service.map(|policy| rule("service", policy, &base, Vec::new()));
    let user = user.map(|policy| rule("user", policy, "token_bucket", vec![Part::User]));
    Ok(service.into_iter().chain(user).collect())
}

/// The policy of the variables that begin with `prefix`; none when they are not set.
fn policy(
    prefix: &str,
    capacity: Option<&str>,
    refill: Option<&str>,
    interval: Duration,
) -> Result<Option<Policy>, String> {
    let (capacity, refill) = match (capacity, refill) {
        (None, None) => return Ok(None),
        (Some(capacity), Some(refill)) => (capacity, refill),
        (None, Some(_)) => return Err(format!("{prefix}REFILL is set, but no {prefix}CAPACITY")),
        (Some(_), None) => return Err(format!("{prefix}CAPACITY is set, but no {prefix}REFILL")),
    };
    let tokens = decimal::whole(capacity.as_bytes())
        .map_err(|_| format!("{prefix}CAPACITY: '{capacity}' is no whole number of tokens"))?;
    let micros = decimal::parse_refill(refill.as_bytes())
        .ok_or_else(|| format!("{prefix}REFILL: '{refill}' is no number of tokens"))?;
    let ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    Policy::new(tokens, micros, ms)
        .map(Some)
        .map_err(|error| format!("{prefix}CAPACITY, REFILL, INTERVAL: out of bounds: {error:?}"))
}
