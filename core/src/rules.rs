//! Limits by key pattern: `claw.policies`.

use crate::decimal;
use crate::limits::{MAX_INTERVAL_MS, MAX_TOKENS, MIN_INTERVAL_MS};
use crate::policy::{Policy, PolicyError};
use std::collections::HashMap;
use std::fmt;

/// Most rules of one table.
pub const MAX_RULES: usize = 1_024;

/// Longest pattern, in bytes.
pub const MAX_PATTERN: usize = 256;

/// The rules in force: which policy holds for which keys. Of the rules that fit a key, the one
/// that names it without a `*` counts, else the one with the longest prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// By prefix, and the one without a `*` after the one with it.
    sorted: Box<[Rule]>,
    /// As they were given, with numbers as the module writes them.
    text: Box<str>,
    fingerprint: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    /// See [`head`].
    head: u128,
    /// The pattern without its `*`.
    prefix: Box<[u8]>,
    /// There is no `*`: it fits this key only.
    is_exact: bool,
    policy: Policy,
    /// The place of the rule with the longest prefix that fits whatever this one does.
    wider: Option<usize>,
}

impl Rule {
    fn fits(&self, key: &[u8]) -> bool {
        match self.is_exact {
            true => *self.prefix == *key,
            false => key.starts_with(&self.prefix),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.is_exact { "" } else { "*" };
        write!(f, "{}{star} {}", String::from_utf8_lossy(&self.prefix), self.policy)
    }
}

/// The first sixteen bytes, filled up with zeros, as a number: what is less comes first in the
/// order of texts too, and most comparisons need no more.
fn head(text: &[u8]) -> u128 {
    let mut first = [0; 16];
    let len = text.len().min(first.len());
    if let (Some(first), Some(text)) = (first.get_mut(..len), text.get(..len)) {
        first.copy_from_slice(text);
    }
    u128::from_be_bytes(first)
}

impl Default for Rules {
    fn default() -> Self {
        let fingerprint = Fingerprint::new().0;
        Self { sorted: Box::default(), text: Box::default(), fingerprint }
    }
}

impl Rules {
    /// Reads `PREFIX* capacity refill/interval`, separated by `;`. What is blank between two of
    /// them is passed over.
    ///
    /// # Errors
    /// The first entry that cannot be taken.
    pub fn parse(text: &str) -> Result<Self, RulesError> {
        let mut numbers = HashMap::new();
        let (mut rules, mut texts) = (Vec::new(), Vec::new());
        for (number, entry) in (1..).zip(text.split(';')) {
            let entry = entry.trim();
            if entry.is_empty() {
                continue;
            }
            let refused = |why| RulesError { number, entry: entry.into(), why };
            let rule = parse_entry(entry).map_err(refused)?;
            if rules.len() >= MAX_RULES {
                return Err(refused(RuleError::TooMany));
            }
            let pattern = (rule.prefix.clone(), rule.is_exact);
            if let Some(before) = numbers.insert(pattern, number) {
                return Err(refused(RuleError::Doubled(before)));
            }
            texts.push(rule.to_string());
            rules.push(rule);
        }
        rules.sort_unstable_by(|a, b| (&a.prefix, a.is_exact).cmp(&(&b.prefix, b.is_exact)));
        let mut sorted: Vec<Rule> = Vec::with_capacity(rules.len());
        let mut fingerprint = Fingerprint::new();
        for mut rule in rules {
            fingerprint.add(rule.to_string().as_bytes());
            rule.wider = rest(&sorted, sorted.len(), |wider| {
                !wider.is_exact && rule.prefix.starts_with(&wider.prefix)
            });
            sorted.push(rule);
        }
        let (sorted, text) = (sorted.into(), texts.join("; ").into());
        Ok(Self { sorted, text, fingerprint: fingerprint.0 })
    }

    /// The policy for a key; `None` where no rule fits.
    #[inline]
    #[must_use]
    pub fn policy_of(&self, key: &[u8]) -> Option<Policy> {
        if self.sorted.is_empty() {
            return None;
        }
        self.find(key).map(|rule| rule.policy)
    }

    fn find(&self, key: &[u8]) -> Option<&Rule> {
        let start = head(key);
        let not_after =
            |rule: &Rule| rule.head < start || (rule.head == start && *rule.prefix <= *key);
        let below = self.sorted.partition_point(not_after);
        let place = rest(&self.sorted, below, |rule| rule.fits(key))?;
        self.sorted.get(place)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// The text that [`Self::parse`] reads: the entries in the order in which they were given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The same for the same rules, in whatever order and form they were given, on every platform.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

/// The first rule that is `wanted`, of the one before `below` and those wider than it. What lies
/// between a prefix and a text that begins with it, in their order, begins with it too: so every
/// prefix of the text is among them, the longest first.
fn rest(sorted: &[Rule], below: usize, wanted: impl Fn(&Rule) -> bool) -> Option<usize> {
    let mut next = below.checked_sub(1);
    while let Some(place) = next {
        let rule = sorted.get(place)?;
        if wanted(rule) {
            return Some(place);
        }
        next = rule.wider;
    }
    None
}

/// FNV-1a of 64 bits.
struct Fingerprint(u64);

impl Fingerprint {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds a line.
    fn add(&mut self, line: &[u8]) {
        for byte in line.iter().chain(b"\n") {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

fn parse_entry(entry: &str) -> Result<Rule, RuleError> {
    let mut words = entry.split_ascii_whitespace();
    let [Some(pattern), Some(capacity), Some(rate), None] = [(); 4].map(|()| words.next()) else {
        return Err(RuleError::Form);
    };
    let (refill, interval) = rate.split_once('/').ok_or(RuleError::Form)?;
    let (prefix, is_exact) = match pattern.strip_suffix('*') {
        Some(prefix) => (prefix, false),
        None => (pattern, true),
    };
    if pattern.len() > MAX_PATTERN {
        return Err(RuleError::TooLong);
    }
    if prefix.contains('*') {
        return Err(RuleError::Star);
    }
    let whole = |text: &str, why| decimal::whole(text.as_bytes()).map_err(|_| why);
    let capacity = whole(capacity, RuleError::Capacity)?;
    let refill = decimal::parse_refill(refill.as_bytes()).ok_or(RuleError::Refill)?;
    let interval = whole(interval, RuleError::Interval)?;
    let policy = Policy::new(capacity, refill, interval).map_err(|why| match why {
        PolicyError::Capacity | PolicyError::NoCapacity => RuleError::Capacity,
        PolicyError::Refill | PolicyError::NoRefill => RuleError::Refill,
        PolicyError::Interval => RuleError::Interval,
    })?;
    let prefix = prefix.as_bytes();
    Ok(Rule { head: head(prefix), prefix: prefix.into(), is_exact, policy, wider: None })
}

/// An entry that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulesError {
    /// Which one it is, from 1.
    pub number: usize,
    /// Its text.
    pub entry: Box<str>,
    /// What is wrong with it.
    pub why: RuleError,
}

/// What is wrong with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleError {
    /// It is not three words, or has no `/`.
    Form,
    /// There is a `*` elsewhere than at the end.
    Star,
    /// The pattern is too long.
    TooLong,
    /// Not 0..=10^12 whole tokens.
    Capacity,
    /// Not 0, nor 0.000001..=10^12 tokens.
    Refill,
    /// Not 1..=31622400000 ms (366 days).
    Interval,
    /// The pattern is that of an earlier entry.
    Doubled(usize),
    /// There are too many.
    TooMany,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str("is not 'PREFIX* capacity refill/interval'"),
            Self::Star => f.write_str("has a '*' elsewhere than at the end of its pattern"),
            Self::TooLong => write!(f, "has a pattern of more than {MAX_PATTERN} bytes"),
            Self::Capacity => write!(f, "needs a whole capacity from 0 to {MAX_TOKENS}"),
            Self::Refill => write!(f, "needs a refill of 0 or from 0.000001 to {MAX_TOKENS}"),
            Self::Interval => {
                write!(f, "needs a whole interval from {MIN_INTERVAL_MS} to {MAX_INTERVAL_MS} ms")
            }
            Self::Doubled(before) => write!(f, "has the pattern of entry {before}"),
            Self::TooMany => write!(f, "is one more than the {MAX_RULES} that there may be"),
        }
    }
}
