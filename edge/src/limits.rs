//! Which limits there are, and which of them a request falls under.

pub mod environment;

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::HeaderMap;
use claw_core::decimal::Decimal;
use claw_core::policy::Policy;

/// One limit.
#[derive(Debug)]
pub struct Limit {
    /// What it is called in fields of responses, in metrics and in logs.
    pub name: String,
    /// Its bucket's policy.
    pub policy: Policy,
    /// The policy as `CL.TAKE` reads it: `CAPACITY`, `REFILL`, `INTERVAL` with their values.
    pub arguments: Vec<Vec<u8>>,
    /// What a refusal of it means.
    pub mode: Mode,
    /// What is decided when the server cannot be asked.
    pub on_fault: OnFault,
}

/// What one limit takes of one request.
#[derive(Clone, Debug)]
pub struct Charge {
    /// The limit.
    pub limit: Arc<Limit>,
    /// The key of its bucket.
    pub key: Arc<[u8]>,
    /// Whole tokens. 0 only looks.
    pub cost: u64,
}

/// What a refusal of a limit means for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The request is refused, and no other limit is charged.
    Enforced,
    /// Nothing: it is counted, and the request passes.
    Shadow,
    /// The request is refused if all quotas of the request refuse.
    Quota,
}

/// What a limit decides when the server cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFault {
    /// The request passes.
    Open,
    /// The request is refused.
    Closed,
}

impl Limit {
    /// An enforced limit that fails open.
    #[must_use]
    pub fn new(name: String, policy: Policy) -> Self {
        Self {
            name,
            policy,
            arguments: arguments(policy),
            mode: Mode::Enforced,
            on_fault: OnFault::Open,
        }
    }
}

/// A policy as the options of a command.
fn arguments(policy: Policy) -> Vec<Vec<u8>> {
    vec![
        b"CAPACITY".to_vec(),
        policy.capacity().to_string().into_bytes(),
        b"REFILL".to_vec(),
        Decimal::new(policy.refill()).as_bytes().to_vec(),
        b"INTERVAL".to_vec(),
        policy.interval_ms().to_string().into_bytes(),
    ]
}

/// What is known of a request.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Where it came in: `rating`, `auth`.
    pub route: &'a str,
    /// Its method.
    pub method: &'a str,
    /// Its path, without the query.
    pub path: &'a str,
    /// The host that it is for.
    pub host: &'a str,
    /// Who sent it.
    pub client: Option<IpAddr>,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its body, where that is JSON.
    pub body: Option<&'a serde_json::Value>,
    /// The user that it is for.
    pub user: Option<&'a str>,
}

/// The limits in force.
#[derive(Debug, Default)]
pub struct Limits {
    /// Of the whole service.
    pub service: Option<Arc<Limit>>,
    /// Of each user.
    pub user: Option<Arc<Limit>>,
}

impl Limits {
    /// What a request is charged.
    #[must_use]
    pub fn of_request(&self, facts: &Facts<'_>) -> Vec<Charge> {
        let mut charges = Vec::new();
        if let Some(limit) = &self.service {
            let key = b"claw:service".as_slice().into();
            charges.push(Charge { limit: Arc::clone(limit), key, cost: 1 });
        }
        let user = match (facts.user, facts.client) {
            (Some(user), _) => Some(user.to_owned()),
            (None, Some(client)) => Some(format!("ip:{client}")),
            (None, None) => None,
        };
        if let (Some(limit), Some(user)) = (&self.user, user) {
            let key = [b"token_bucket:", user.as_bytes()].concat().into();
            charges.push(Charge { limit: Arc::clone(limit), key, cost: 1 });
        }
        charges
    }

    /// The limit of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Arc<Limit>> {
        [&self.service, &self.user].into_iter().flatten().find(|limit| limit.name == name).cloned()
    }
}
