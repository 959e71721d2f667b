//! A limit of what comes over HTTP: which requests fall under it, whom it tells apart, and what
//! they cost.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::http::HeaderName;
use claw_core::decimal;
use claw_core::limits::{MAX_TOKENS, MICRO};

use super::facts::{Facts, Route};
use super::{Charge, Limit};

/// A limit and whom it is for.
#[derive(Debug)]
pub struct Rule {
    /// The limit.
    pub limit: Arc<Limit>,
    /// Which requests fall under it.
    pub when: When,
    /// What tells buckets apart. Nothing: all share one.
    pub parts: Vec<Part>,
    /// What a request costs.
    pub cost: Cost,
}

/// Which requests fall under a limit. An empty list lets every request in.
#[derive(Debug, Default)]
pub struct When {
    /// Where they come in.
    pub routes: Vec<Route>,
    /// Their methods.
    pub methods: Vec<String>,
    /// Their paths.
    pub paths: Vec<Pattern>,
    /// Their hosts.
    pub hosts: Vec<Pattern>,
    /// Header fields that they have, all of them.
    pub headers: Vec<(HeaderName, Pattern)>,
}

/// A text, or with a `*` at its end what a text begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    pub(super) text: String,
    pub(super) is_prefix: bool,
}

/// Something of a request that tells buckets apart.
#[derive(Debug)]
pub enum Part {
    /// The user, or the client's address where none is named.
    User,
    /// The client's address; of IPv6 its network of 64 bits, since a client has all of it.
    Client,
    /// The method.
    Method,
    /// The host.
    Host,
    /// The path.
    Path,
    /// So many of its first segments.
    Segments(usize),
    /// A header field.
    Header(HeaderName),
    /// A field of the body.
    Json(String),
}

/// What a request costs.
#[derive(Debug)]
pub enum Cost {
    /// So many tokens.
    Fixed(u64),
    /// What the request says, within bounds.
    Said {
        /// Where it says so.
        by: Part,
        /// Tokens when it says nothing.
        absent: u64,
        /// Tokens at the most, and when what it says is no number.
        most: u64,
    },
}

/// Header fields whose values are secrets, which must not show in a key.
const SECRET: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

impl Rule {
    /// What a request is charged. Nothing when it does not fall under the limit, or lacks what
    /// the limit tells buckets apart by.
    #[must_use]
    pub fn charge(&self, facts: &Facts<'_>) -> Option<Charge> {
        let key = self.key(facts)?;
        let keep = match &self.limit.adaptive {
            Some(adaptive) => adaptive.keep(adaptive.kept(facts), self.limit.keep),
            None => self.limit.keep,
        };
        Some(Charge { limit: Arc::clone(&self.limit), key, cost: self.cost.tokens(facts), keep })
    }

    /// The key of the bucket that a request is charged from. Nothing when it is charged from none.
    #[must_use]
    pub fn key(&self, facts: &Facts<'_>) -> Option<Arc<[u8]>> {
        if !self.when.includes(facts) {
            return None;
        }
        Some(match self.parts.as_slice() {
            [] => self.limit.key(None),
            [part] => self.limit.key(Some(part.value(facts)?.as_bytes())),
            parts => {
                let mut subject = String::new();
                for (index, part) in parts.iter().enumerate() {
                    if index > 0 {
                        subject.push(':');
                    }
                    escape(&part.value(facts)?, &mut subject);
                }
                self.limit.key(Some(subject.as_bytes()))
            }
        })
    }
}

/// Appends `value` so that joined values stay apart.
fn escape(value: &str, subject: &mut String) {
    for letter in value.chars() {
        match letter {
            '%' => subject.push_str("%25"),
            ':' => subject.push_str("%3A"),
            letter => subject.push(letter),
        }
    }
}

impl Rule {
    /// Whether each user has a bucket of his own.
    #[must_use]
    pub fn tells_users_apart(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::User))
    }

    /// Whether it needs the body of a request.
    #[must_use]
    pub fn reads_bodies(&self) -> bool {
        let said = match &self.cost {
            Cost::Said { by, .. } => Some(by),
            Cost::Fixed(_) => None,
        };
        self.parts.iter().chain(said).any(|part| matches!(part, Part::Json(_)))
    }
}

impl When {
    fn includes(&self, facts: &Facts<'_>) -> bool {
        let any = |patterns: &[Pattern], text: &str| {
            patterns.is_empty() || patterns.iter().any(|pattern| pattern.fits(text))
        };
        (self.routes.is_empty() || self.routes.contains(&facts.route))
            && (self.methods.is_empty()
                || self.methods.iter().any(|method| method.eq_ignore_ascii_case(facts.method)))
            && any(&self.paths, facts.path)
            && any(&self.hosts, facts.host)
            && self
                .headers
                .iter()
                .all(|(name, pattern)| facts.header(name.as_str()).is_some_and(|v| pattern.fits(v)))
    }
}

impl Pattern {
    /// Reads a pattern.
    #[must_use]
    pub fn new(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => Self { text: prefix.to_owned(), is_prefix: true },
            None => Self { text: text.to_owned(), is_prefix: false },
        }
    }

    /// Whether `value` is it, or begins with it.
    #[must_use]
    pub fn fits(&self, value: impl AsRef<[u8]>) -> bool {
        let (value, text) = (value.as_ref(), self.text.as_bytes());
        if self.is_prefix { value.starts_with(text) } else { value == text }
    }
}

impl Part {
    /// What it is in a request, as it stands in a key.
    fn value<'a>(&self, facts: &'a Facts<'_>) -> Option<Cow<'a, str>> {
        if matches!(self, Self::User) && facts.user.is_none() {
            return Some(Cow::Owned(super::CLIENT.to_owned() + &network(facts.client?)));
        }
        let value = self.read(facts)?;
        let is_secret = matches!(self, Self::Header(name) if SECRET.contains(&name.as_str()));
        Some(match value {
            value if is_secret => Cow::Owned(super::digest(&value)),
            Cow::Borrowed(value) => super::part(value),
            Cow::Owned(value) => Cow::Owned(super::part(&value).into_owned()),
        })
    }

    /// What it is in a request.
    fn read<'a>(&self, facts: &'a Facts<'_>) -> Option<Cow<'a, [u8]>> {
        let text = match self {
            Self::User => return facts.user.map(Cow::Borrowed),
            Self::Header(name) => return facts.header(name.as_str()).map(Cow::Borrowed),
            Self::Client => Cow::Owned(network(facts.client?)),
            Self::Method => Cow::Borrowed(facts.method),
            Self::Host => Cow::Borrowed(facts.host),
            Self::Path => Cow::Borrowed(facts.path),
            Self::Segments(count) => {
                let segments = facts.path.split('/').filter(|segment| !segment.is_empty());
                Cow::Owned(
                    segments.take(*count).fold(String::new(), |path, next| path + "/" + next),
                )
            }
            Self::Json(path) => facts.json(path)?,
        };
        Some(match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        })
    }
}

/// The address that stands for a client: of IPv6 its network of 64 bits.
#[must_use]
pub fn network(client: IpAddr) -> String {
    match client.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).to_string() + "/64"
        }
    }
}

impl Cost {
    /// Whole tokens, 1 or more: who may say 0 would be let through for nothing.
    fn tokens(&self, facts: &Facts<'_>) -> u64 {
        let (by, absent, most) = match self {
            Self::Fixed(tokens) => return *tokens,
            Self::Said { by, absent, most } => (by, *absent, *most),
        };
        match by.read(facts) {
            None => absent,
            // What cannot be read costs as much as may be: to write nonsense must not pay.
            Some(value) => decimal::parse(value.trim_ascii())
                .map_or(most, |micros| micros.div_ceil(MICRO))
                .clamp(1, most.min(MAX_TOKENS)),
        }
    }
}
