//! The file of named limits.

use std::path::Path;
use std::sync::Arc;

use axum::http::HeaderName;
use claw_core::decimal;
use claw_core::limits::MAX_TOKENS;
use claw_core::policy::{Policy, PolicyError};
use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use super::adaptive::{Adaptive, Said};
use super::facts::{self, Route};
use super::mistake::{self, Mistake};
use super::rule::{Cost, Part, Pattern, Rule, When};
use super::source::Source;
use super::{Limit, Mode, OnFault};
use crate::config::duration;

/// What the keys of adaptive limits begin with, and no other key of this service does: each region
/// adapts to its own backend, so `claw.sync-keys` has to leave them out.
const REGION: &str = "@route:";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    limits: Vec<Spanned<Named>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: Spanned<String>,
    #[serde(default)]
    capacity: Option<Spanned<String>>,
    #[serde(default)]
    refill: Option<Spanned<String>>,
    #[serde(default)]
    interval: Option<Spanned<String>>,
    #[serde(default)]
    key: Vec<Spanned<KeyPart>>,
    #[serde(default, rename = "match")]
    when: Option<Match>,
    #[serde(default)]
    cost: Option<Spanned<CostOf>>,
    #[serde(default)]
    keep: Option<Spanned<u64>>,
    #[serde(default)]
    mode: Option<Mode>,
    #[serde(default)]
    on_fault: Option<OnFault>,
    #[serde(default)]
    adaptive: Option<Spanned<Said>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KeyPart {
    User,
    Client,
    Method,
    Host,
    Path,
    Segments(usize),
    Header(String),
    Json(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Match {
    routes: Vec<Route>,
    methods: Vec<String>,
    paths: Vec<String>,
    hosts: Vec<String>,
    headers: std::collections::BTreeMap<String, Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CostOf {
    tokens: Option<u64>,
    header: Option<String>,
    json: Option<String>,
    absent: Option<u64>,
    most: Option<u64>,
}

/// Adds the limits that a file names.
pub(super) fn add(rules: &mut Vec<Rule>, source: &Source, prefix: &str) -> Result<(), Mistake> {
    let file = source.path.as_path();
    let read: File = mistake::read(file, &source.text)?;
    for named in read.limits {
        let name = named.value.name.clone();
        if rules.iter().any(|rule| rule.limit.name == name.value) {
            let text = format!("there are two limits '{}'", name.value);
            return Err(Mistake::about(file, &name, text));
        }
        rules.push(Reader { file }.rule(named, prefix)?);
    }
    Ok(())
}

struct Reader<'a> {
    file: &'a Path,
}

impl Reader<'_> {
    fn rule(&self, named: Spanned<Named>, prefix: &str) -> Result<Rule, Mistake> {
        let place = named.referenced;
        let named = named.value;
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
        let name = &named.name.value;
        if name.is_empty() || name.len() > 64 || !name.chars().all(is_plain) {
            let text = format!("'{name}' is no name: 1 to 64 letters, digits, '_', '-' and '.'");
            return Err(Mistake::about(self.file, &named.name, text));
        }
        let policy = self.policy(&named, place)?;
        let adaptive = self.adaptive(&named, policy)?;
        let region = if adaptive.is_some() { REGION } else { "" };
        let limit = Limit {
            keep: self.keep(named.keep, policy)?,
            mode: named.mode.unwrap_or(Mode::Enforced),
            on_fault: named.on_fault.unwrap_or(OnFault::Open),
            adaptive,
            ..Limit::new(name.clone(), policy, format!("{region}{prefix}{name}").into_bytes())
        };
        Ok(Rule {
            limit: Arc::new(limit),
            when: self.when(named.when.unwrap_or_default())?,
            parts: named.key.into_iter().map(|part| self.part(part)).collect::<Result<_, _>>()?,
            cost: self.cost(named.cost)?,
        })
    }

    /// The policy; nothing if there is none, and the server says.
    fn policy(&self, named: &Named, place: Location) -> Result<Option<Policy>, Mistake> {
        let wrong = |value: &Spanned<String>, text: &str| {
            Mistake::about(self.file, value, format!("'{}' {text}", value.value))
        };
        let (capacity, refill) = match (&named.capacity, &named.refill) {
            (Some(capacity), Some(refill)) => (capacity, refill),
            (None, None) => {
                return match &named.interval {
                    None => Ok(None),
                    Some(interval) => {
                        let text = "an interval without capacity and refill";
                        Err(Mistake::about(self.file, interval, text.to_owned()))
                    }
                };
            }
            (Some(_), None) => return Err(Mistake::at(self.file, place, "refill is missing")),
            (None, Some(_)) => return Err(Mistake::at(self.file, place, "capacity is missing")),
        };
        let tokens = decimal::whole(capacity.value.as_bytes())
            .map_err(|_| wrong(capacity, "is no whole number of tokens"))?;
        let micros = decimal::parse_refill(refill.value.as_bytes())
            .ok_or_else(|| wrong(refill, "is no number of tokens"))?;
        let interval_ms = match &named.interval {
            None => 1_000,
            Some(interval) => {
                let length = duration(&interval.value)
                    .map_err(|text| Mistake::about(self.file, interval, text))?;
                u64::try_from(length.as_millis())
                    .map_err(|_| wrong(interval, "is too long an interval"))?
            }
        };
        Policy::new(tokens, micros, interval_ms).map(Some).map_err(|error| {
            Mistake::at(
                self.file,
                place,
                match error {
                    PolicyError::Capacity => "capacity is not 0 to 1000000000000",
                    PolicyError::Refill => "refill is not 0 to 1000000000000",
                    PolicyError::Interval => "interval is not 1ms to 366d",
                    PolicyError::NoRefill => "refill is missing",
                    PolicyError::NoCapacity => "capacity is missing",
                },
            )
        })
    }

    /// One bucket for all that a backend is asked, which has to refuse to be of use.
    fn adaptive(&self, named: &Named, policy: Option<Policy>) -> Result<Option<Adaptive>, Mistake> {
        let Some(adaptive) = &named.adaptive else { return Ok(None) };
        let wrong = |text: &str| Err(Mistake::about(self.file, adaptive, text));
        if !named.key.is_empty() {
            return wrong("an adaptive limit has one bucket, and so no key");
        }
        if named.cost.is_some() {
            return wrong("an adaptive limit counts requests, and so has no cost");
        }
        if named.mode.is_some_and(|mode| mode != Mode::Enforced) {
            return wrong("an adaptive limit is enforced");
        }
        let Some(policy) = policy else {
            return wrong("an adaptive limit has capacity and refill, which hold without a pin");
        };
        match adaptive.value.settings(&policy) {
            Ok(settings) => Ok(Some(Adaptive::new(settings))),
            Err(text) => wrong(&format!("adaptive: {text}")),
        }
    }

    fn keep(&self, keep: Option<Spanned<u64>>, policy: Option<Policy>) -> Result<u64, Mistake> {
        let Some(keep) = keep else { return Ok(0) };
        if policy.is_some_and(|policy| keep.value >= policy.capacity()) {
            let text = format!("keep {} leaves nothing of the capacity", keep.value);
            return Err(Mistake::about(self.file, &keep, text));
        }
        Ok(keep.value)
    }

    fn when(&self, when: Match) -> Result<When, Mistake> {
        let patterns = |texts: Vec<String>| texts.iter().map(|text| Pattern::new(text)).collect();
        let escaped = |path: &String| facts::escaped(path.as_bytes()).into_owned();
        Ok(When {
            routes: when.routes,
            methods: when.methods,
            paths: patterns(when.paths.iter().map(escaped).collect()),
            hosts: patterns(when.hosts.iter().map(|host| host.to_ascii_lowercase()).collect()),
            headers: when
                .headers
                .into_iter()
                .map(|(name, value)| {
                    let pattern = Pattern::new(&value.value);
                    Ok((self.header(&name, value.referenced)?, pattern))
                })
                .collect::<Result<_, _>>()?,
        })
    }

    fn part(&self, part: Spanned<KeyPart>) -> Result<Part, Mistake> {
        let place = part.referenced;
        Ok(match part.value {
            KeyPart::User => Part::User,
            KeyPart::Client => Part::Client,
            KeyPart::Method => Part::Method,
            KeyPart::Host => Part::Host,
            KeyPart::Path => Part::Path,
            KeyPart::Segments(0) => {
                return Err(Mistake::at(self.file, place, "segments: 1 or more"));
            }
            KeyPart::Segments(count) => Part::Segments(count),
            KeyPart::Header(name) => Part::Header(self.header(&name, place)?),
            KeyPart::Json(path) => Part::Json(path),
        })
    }

    fn cost(&self, cost: Option<Spanned<CostOf>>) -> Result<Cost, Mistake> {
        let Some(cost) = cost else { return Ok(Cost::Fixed(1)) };
        let place = cost.referenced;
        let wrong = |text: &str| Err(Mistake::at(self.file, place, text));
        let cost = cost.value;
        let bound = |tokens: u64| (1..=MAX_TOKENS).contains(&tokens);
        let by = match (cost.tokens, cost.header, cost.json) {
            (Some(tokens), None, None) => {
                if cost.absent.is_some() || cost.most.is_some() {
                    return wrong("a cost of so many tokens has neither absent nor most");
                }
                if !bound(tokens) {
                    return wrong("tokens is not 1 to 1000000000000");
                }
                return Ok(Cost::Fixed(tokens));
            }
            (None, Some(name), None) => Part::Header(self.header(&name, place)?),
            (None, None, Some(path)) => Part::Json(path),
            _ => return wrong("a cost is one of tokens, header and json"),
        };
        let Some(most) = cost.most else { return wrong("a cost that a request names needs most") };
        let absent = cost.absent.unwrap_or(1);
        if !bound(most) || !(1..=most).contains(&absent) {
            return wrong("absent is not 1 to most, or most not 1 to 1000000000000");
        }
        Ok(Cost::Said { by, absent, most })
    }

    fn header(&self, name: &str, place: Location) -> Result<HeaderName, Mistake> {
        name.parse()
            .map_err(|_| Mistake::at(self.file, place, format!("'{name}' is no header field")))
    }
}
