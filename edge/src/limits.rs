//! Which limits there are, and which of them a request falls under.
//!
//! Three sources make one set: the environment ([`environment`]) and a file of named limits
//! for what comes over HTTP, and the descriptor files of `envoyproxy/ratelimit`
//! ([`descriptors`]) for what Envoy asks.

pub mod adaptive;
mod describe;
mod descriptor_file;
pub mod descriptors;
pub mod environment;
pub mod facts;
mod file;
pub mod mistake;
pub mod rule;
pub mod source;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use claw_core::decimal::Decimal;
use claw_core::policy::Policy;
use sha2::{Digest, Sha256};

use self::adaptive::Adaptive;
use self::descriptors::Domain;
pub use self::descriptors::{Found, Leaf};
pub use self::facts::{Facts, Route};
pub use self::mistake::Mistake;
use self::rule::Rule;
pub use self::source::Sources;
use crate::config::Config;
use crate::hex::hex;
use crate::metrics::redis::{Blind, RedisMetrics};
use crate::proto::RateLimitDescriptor;

/// One limit.
#[derive(Debug)]
pub struct Limit {
    /// What it is called in fields of responses, in metrics and in logs.
    pub name: String,
    /// Its bucket's policy; nothing if that is for the server to say, by a pin, a rule for the key or
    /// its default.
    pub policy: Option<Policy>,
    /// The policy as `CL.TAKE` reads it: `CAPACITY`, `REFILL`, `INTERVAL` with their values. Nothing
    /// is sent where the server says.
    pub arguments: Vec<Vec<u8>>,
    /// Tokens that stay behind for those who ask without it: `KEEP` of `CL.TAKE`.
    pub keep: u64,
    /// What a refusal of it means.
    pub mode: Mode,
    /// What is decided when the server cannot be asked.
    pub on_fault: OnFault,
    /// How its bucket's policy follows how the backend does, by pins that end, if it does. Then
    /// [`Self::policy`] is what holds when there is no pin, and its rate is not told to clients.
    pub adaptive: Option<Adaptive>,
    /// What the keys of its buckets begin with. No two limits share it.
    base: Vec<u8>,
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
    /// Tokens that it leaves for others: `KEEP` of `CL.TAKE`.
    pub keep: u64,
}

/// What a refusal of a limit means for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The request is refused, and no other limit is charged.
    Enforced,
    /// Nothing: it is counted, and the request passes.
    Shadow,
    /// The request is refused if all quotas of the request refuse.
    Quota,
}

/// What a limit decides when the server cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFault {
    /// The request passes.
    Open,
    /// The request is refused.
    Closed,
    /// Nothing: whoever asks is told that there is no answer, and decides. So it is over gRPC.
    #[serde(skip)]
    LeftToCaller,
}

impl Limit {
    /// An enforced limit that fails open, whose keys begin with `base`.
    #[must_use]
    pub fn new(name: String, policy: impl Into<Option<Policy>>, base: Vec<u8>) -> Self {
        let policy = policy.into();
        Self {
            name,
            policy,
            arguments: policy.map(arguments).unwrap_or_default(),
            keep: 0,
            mode: Mode::Enforced,
            on_fault: OnFault::Open,
            adaptive: None,
            base,
        }
    }

    /// As what it is counted that it decides when it cannot be asked.
    #[must_use]
    pub fn blind(&self) -> Blind {
        let decided = match (self.mode, self.on_fault) {
            (Mode::Shadow, _) | (_, OnFault::Open) => "allowed",
            (_, OnFault::Closed) => "refused",
            (_, OnFault::LeftToCaller) => "left_to_caller",
        };
        Blind { limit: self.name.clone(), decided }
    }

    /// The key of the bucket of `subject`, or of the one bucket of a limit that tells nobody
    /// apart.
    #[must_use]
    pub fn key(&self, subject: Option<&[u8]>) -> Arc<[u8]> {
        match subject {
            Some(subject) => [self.base.as_slice(), b":", subject].concat().into(),
            None => self.base.as_slice().into(),
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

/// Values that are longer stand in a key by their hash: a key is no place for a page of text.
const LONGEST: usize = 128;

/// What a hash begins with that stands for a value.
const HASHED: &str = "sha256-";

/// What stands before the address of a client where a user is looked for and none is named.
const CLIENT: &str = "client:";

/// A value of a request, as it stands in a key.
#[must_use]
pub fn part<T: AsRef<[u8]> + ?Sized>(value: &T) -> Cow<'_, str> {
    // Nobody may have the name by which a long one stands there, or somebody without a name.
    let is_taken = |text: &str| [HASHED, CLIENT].iter().any(|taken| text.starts_with(taken));
    match str::from_utf8(value.as_ref()) {
        Ok(text) if text.len() <= LONGEST && !is_taken(text) => Cow::Borrowed(text),
        _ => Cow::Owned(digest(value)),
    }
}

/// What stands for a value that is too long for a key, no text, or secret.
#[must_use]
pub fn digest<T: AsRef<[u8]> + ?Sized>(value: &T) -> String {
    let hash = Sha256::digest(value.as_ref());
    format!("{HASHED}{}", hex(hash.get(..16).unwrap_or_default()))
}

/// The limits in force. They are made by [`load`], and replaced as a whole.
#[derive(Debug, Default)]
pub struct Limits {
    /// What comes over HTTP falls under these, in this order.
    rules: Vec<Rule>,
    /// What Envoy asks, by domain.
    domains: HashMap<String, Domain>,
    /// The files that they were made of.
    pub sources: Sources,
}

impl Limits {
    /// What a request over HTTP is charged.
    #[must_use]
    pub fn of_request(&self, facts: &Facts<'_>) -> Vec<Charge> {
        self.rules.iter().filter_map(|rule| rule.charge(facts)).collect()
    }

    /// The key of the bucket whose weight has to be known to charge a request: where it falls under a limit that
    /// goes by that, the user's bucket of the first limit that has one.
    #[must_use]
    pub fn weighed(&self, facts: &Facts<'_>) -> Option<Arc<[u8]>> {
        let goes_by_weight = |rule: &&Rule| {
            rule.limit.adaptive.as_ref().is_some_and(Adaptive::goes_by_weight)
                && rule.key(facts).is_some()
        };
        self.rules.iter().find(goes_by_weight)?;
        self.rules.iter().filter(|rule| rule.tells_users_apart()).find_map(|rule| rule.key(facts))
    }

    /// Whether any of them needs the body of a request.
    #[must_use]
    pub fn read_bodies(&self) -> bool {
        self.rules.iter().any(Rule::reads_bodies)
    }

    /// The limit of a name: of the file, `service` or `user`.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Arc<Limit>> {
        self.rules.iter().map(|rule| &rule.limit).find(|limit| limit.name == name).map(Arc::clone)
    }

    /// Begins to count what they decide when they cannot be asked.
    pub fn begin_to_count(&self, metrics: &RedisMetrics) {
        for rule in &self.rules {
            metrics.blind.get_or_create_owned(&rule.limit.blind());
        }
    }

    /// What looks at the bucket of each limit that tells nobody apart, in the order of the limits.
    pub fn shared(&self) -> impl Iterator<Item = Charge> {
        self.rules.iter().filter(|rule| rule.parts.is_empty()).map(|rule| {
            let limit = Arc::clone(&rule.limit);
            Charge { key: limit.key(None), limit, cost: 0, keep: 0 }
        })
    }

    /// The limits whose policies follow how their backends do, in order.
    pub fn adaptive(&self) -> impl Iterator<Item = (&Arc<Limit>, &Adaptive)> {
        self.rules.iter().filter_map(|rule| Some((&rule.limit, rule.limit.adaptive.as_ref()?)))
    }

    /// Goes on counting where limits of the same names have begun to. For limits that nobody uses yet.
    pub fn go_on(&mut self, before: &Self) {
        let begun: HashMap<&str, &Adaptive> =
            before.adaptive().map(|(limit, adaptive)| (limit.name.as_str(), adaptive)).collect();
        for limit in self.rules.iter_mut().filter_map(|rule| Arc::get_mut(&mut rule.limit)) {
            if let Some(adaptive) = &mut limit.adaptive
                && let Some(begun) = begun.get(limit.name.as_str())
            {
                adaptive.meter = Arc::clone(&begun.meter);
            }
        }
    }

    /// Whether descriptor files have a domain.
    #[must_use]
    pub fn has_domain(&self, name: &str) -> bool {
        self.domains.contains_key(name)
    }

    /// What the descriptors of a request of Envoy's fall under, one for each, in order.
    #[must_use]
    pub fn of_descriptors(&self, domain: &str, descriptors: &[RateLimitDescriptor]) -> Vec<Found> {
        let Some(limits) = self.domains.get(domain) else {
            return descriptors.iter().map(|_| Found::Nothing).collect();
        };
        limits.find(descriptors)
    }
}

/// The limits of the settings, and of the files that they name.
///
/// # Errors
/// Says what is wrong, and where.
pub fn load(config: &Config) -> Result<Limits, Mistake> {
    Sources::read(config)?.limits(config)
}
