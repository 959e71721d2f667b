//! The tree of descriptors of one domain, searched as `envoyproxy/ratelimit` searches it.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::sync::{Arc, OnceLock};

use claw_core::limits::MICRO;
use claw_core::policy::Policy;
use prost_types::Struct;

use super::{Limit, Mode, OnFault};
use crate::metrics::{HitCounters, HitResult, Metrics};
use crate::proto::{Entry, RateLimit, RateLimitDescriptor, RateLimitOverride, Unit};

/// What one descriptor falls under.
#[derive(Clone, Debug)]
pub enum Found {
    /// No limit: it passes.
    Nothing,
    /// A limit that lets everything pass.
    Unlimited,
    /// A limit that Envoy brought, and whose unit is none.
    BadOverride,
    /// A limit.
    Limited {
        /// The limit and what Envoy is told of it.
        leaf: Arc<Leaf>,
        /// The key of its bucket.
        key: Arc<[u8]>,
        /// What it is called in metrics.
        metric: Arc<str>,
    },
}

/// A limit of a configuration, or of an override.
#[derive(Debug)]
pub struct Leaf {
    /// The limit.
    pub limit: Arc<Limit>,
    /// What Envoy is told of it.
    pub shown: RateLimit,
    /// Whether it is refused only when every quota of the request is.
    pub is_quota: bool,
    /// Whether it says that all is well when it is over.
    pub is_shadow: bool,
    /// What Envoy is told while it passes.
    pub metadata: Option<Struct>,
    /// The limits that are not charged where this one is found, by name.
    pub(super) replaces: Vec<String>,
    /// Its path in the configuration.
    pub(super) path: Arc<str>,
    /// Whether metrics name every value.
    pub(super) is_detailed: bool,
    /// Where its hits are counted, once there are any.
    counters: OnceLock<HitCounters>,
}

/// A place in the tree.
#[derive(Debug, Default)]
pub struct Node {
    /// What is below, by `key` or `key_value`.
    pub(super) children: BTreeMap<String, Self>,
    /// Those of them that hold a `*`, in the order of the file.
    pub(super) wildcards: Vec<Wildcard>,
    /// What is limited here.
    pub(super) end: Option<End>,
    /// Whether metrics name the value.
    pub(super) value_to_metric: bool,
    /// Whether all that a wildcard fits share one bucket.
    pub(super) share_threshold: bool,
}

/// What a path through the tree ends with.
#[derive(Debug)]
pub enum End {
    /// Everything passes. The names are those that it replaces.
    Unlimited(Vec<String>),
    /// A limit.
    Leaf(Arc<Leaf>),
}

/// A `key_value` with stars, each of which stands for any text.
#[derive(Debug)]
pub struct Wildcard {
    pub(super) name: String,
    first: String,
    middle: Vec<String>,
    last: String,
}

impl Wildcard {
    /// Reads one; nothing if there is no star in it.
    pub(super) fn new(name: &str) -> Option<Self> {
        let mut parts = name.split('*').map(str::to_owned);
        let first = parts.next()?;
        let mut middle: Vec<String> = parts.collect();
        let last = middle.pop()?;
        Some(Self { name: name.to_owned(), first, middle, last })
    }

    fn fits(&self, text: &str) -> bool {
        // Cutting from both ends leaves nothing for two parts to share.
        let Some(rest) = text.strip_prefix(self.first.as_str()) else { return false };
        let Some(mut rest) = rest.strip_suffix(self.last.as_str()) else { return false };
        for part in &self.middle {
            let Some((_, after)) = rest.split_once(part.as_str()) else { return false };
            rest = after;
        }
        true
    }
}

/// The limits of one domain.
#[derive(Debug)]
pub struct Domain {
    name: String,
    /// What every key begins with: the prefix and the domain.
    base: String,
    pub(super) root: Node,
    /// Whether every limit is a quota.
    all_quota: bool,
}

impl Domain {
    /// A domain without limits, whose keys begin with `prefix`.
    #[must_use]
    pub fn new(name: &str, prefix: &str, all_quota: bool) -> Self {
        let mut base = format!("{prefix}rls/");
        escape(name, &mut base);
        Self { name: name.to_owned(), base, root: Node::default(), all_quota }
    }

    /// What `descriptors` fall under, one for each.
    pub(super) fn find(&self, descriptors: &[RateLimitDescriptor]) -> Vec<Found> {
        let mut replaced: HashSet<&str> = HashSet::new();
        let mut found = Vec::with_capacity(descriptors.len());
        for descriptor in descriptors {
            found.push(match &descriptor.limit {
                Some(limit) => self.overridden(&descriptor.entries, limit),
                None => self.configured(&descriptor.entries, &mut replaced),
            });
        }
        if !replaced.is_empty() {
            for one in &mut found {
                if let Found::Limited { leaf, .. } = one
                    && replaced.contains(leaf.shown.name.as_str())
                {
                    *one = Found::Nothing;
                }
            }
        }
        found
    }

    /// A limit that Envoy brings. It is part of the key: another one is another bucket.
    fn overridden(&self, entries: &[Entry], limit: &RateLimitOverride) -> Found {
        let unit = limit.unit();
        let Some(policy) = policy(limit.requests_per_unit, unit) else { return Found::BadOverride };
        let mut key = self.key(entries, &[]);
        let _ = write!(key, "/{}/{}", limit.requests_per_unit, unit.name());
        // The values are the client's: they would be so many names of limits.
        let name = format!("{}.override", self.name);
        let leaf = Leaf::new(
            Limit::new(name, policy, Vec::new()),
            RateLimit {
                requests_per_unit: limit.requests_per_unit,
                unit: limit.unit,
                name: String::new(),
            },
            false,
            self.all_quota,
        );
        let metric = Arc::clone(&leaf.path);
        Found::Limited { leaf: Arc::new(leaf), key: key.into_bytes().into(), metric }
    }

    /// What the configuration has for `entries`. Adds what it replaces to `replaced`.
    fn configured<'a>(&'a self, entries: &[Entry], replaced: &mut HashSet<&'a str>) -> Found {
        let Some((steps, end)) = self.walk(entries) else { return Found::Nothing };
        match end {
            End::Unlimited(replaces) => {
                replaced.extend(replaces.iter().map(String::as_str));
                Found::Unlimited
            }
            End::Leaf(leaf) => {
                replaced.extend(leaf.replaces.iter().map(String::as_str));
                Found::Limited {
                    leaf: Arc::clone(leaf),
                    key: self.key(entries, &steps).into_bytes().into(),
                    metric: self.metric(entries, &steps, leaf),
                }
            }
        }
    }

    /// The path through the tree, if it ends with a limit where `entries` end.
    fn walk(&self, entries: &[Entry]) -> Option<(Vec<Step<'_>>, &End)> {
        let mut node = &self.root;
        let mut steps = Vec::with_capacity(entries.len());
        let mut name = String::new();
        for entry in entries {
            name.clear();
            name.push_str(&entry.key);
            name.push('_');
            name.push_str(&entry.value);
            let step = node.step(entry, &name)?;
            node = step.node;
            steps.push(step);
        }
        // Without entries there is nowhere to have gone.
        steps.last()?;
        node.end.as_ref().map(|end| (steps, end))
    }

    /// The key of the bucket of `entries`: names and values, those of shared wildcards apart.
    fn key(&self, entries: &[Entry], steps: &[Step<'_>]) -> String {
        let names = entries.iter().map(|entry| entry.key.len().saturating_add(entry.value.len()));
        let length =
            names.fold(self.base.len(), |sum, name| sum.saturating_add(name).saturating_add(2));
        let mut key = String::with_capacity(length);
        key.push_str(&self.base);
        for (index, entry) in entries.iter().enumerate() {
            key.push('/');
            escape(&entry.key, &mut key);
            key.push('=');
            match steps.get(index).and_then(Step::shared) {
                Some(pattern) => escape(pattern, &mut key),
                None => escape(&super::part(&entry.value), &mut key),
            }
        }
        key
    }

    /// What the limit is called in metrics: its path, with the values of a request where the
    /// configuration wants them.
    fn metric(&self, entries: &[Entry], steps: &[Step<'_>], leaf: &Leaf) -> Arc<str> {
        let says_value = |step: &Step<'_>| {
            leaf.is_detailed || (step.node.value_to_metric && step.by != By::Value)
        };
        if !steps.iter().any(says_value) {
            return Arc::clone(&leaf.path);
        }
        // The reference writes the line before an empty value in this case alone.
        let is_whole = leaf.is_detailed && steps.iter().all(|step| step.shared().is_none());
        let mut name = self.name.clone();
        for (entry, step) in entries.iter().zip(steps) {
            let value = match (step.shared(), step.by) {
                (Some(pattern), _) => pattern,
                (None, _) if says_value(step) => &entry.value,
                (None, By::Value) => &entry.value,
                (None, By::Wildcard(pattern)) => pattern,
                (None, By::Key) => "",
            };
            name.push('.');
            name.push_str(&entry.key);
            if is_whole || !value.is_empty() {
                name.push('_');
                name.push_str(value);
            }
        }
        name.into()
    }
}

/// One step down the tree.
#[derive(Clone, Copy, Debug)]
struct Step<'a> {
    node: &'a Node,
    by: By<'a>,
}

/// What an entry was found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By<'a> {
    /// Its key and value.
    Value,
    /// A pattern, of which this is the value's part.
    Wildcard(&'a str),
    /// Its key alone.
    Key,
}

impl<'a> Step<'a> {
    /// The pattern that stands for the value in the key, if all that it fits share a bucket.
    fn shared(&self) -> Option<&'a str> {
        match self.by {
            By::Wildcard(pattern) if self.node.share_threshold => Some(pattern),
            By::Wildcard(_) | By::Value | By::Key => None,
        }
    }
}

impl Node {
    /// The child that `entry`, whose `key_value` is `name`, leads to.
    fn step(&self, entry: &Entry, name: &str) -> Option<Step<'_>> {
        if let Some(node) = self.children.get(name) {
            return Some(Step { node, by: By::Value });
        }
        if let Some(wildcard) = self.wildcards.iter().find(|wildcard| wildcard.fits(name)) {
            let node = self.children.get(&wildcard.name)?;
            let name = wildcard.name.as_str();
            let value = name.strip_prefix(&entry.key).and_then(|rest| rest.strip_prefix('_'));
            return Some(Step { node, by: By::Wildcard(value.unwrap_or(name)) });
        }
        self.children.get(&entry.key).map(|node| Step { node, by: By::Key })
    }
}

impl Leaf {
    /// A limit without a name that replaces none.
    pub(super) fn new(limit: Limit, shown: RateLimit, is_shadow: bool, is_quota: bool) -> Self {
        Self {
            path: limit.name.as_str().into(),
            limit: Arc::new(Limit {
                mode: match (is_shadow, is_quota) {
                    (true, _) => Mode::Shadow,
                    (false, true) => Mode::Quota,
                    (false, false) => Mode::Enforced,
                },
                on_fault: OnFault::LeftToCaller,
                ..limit
            }),
            shown,
            is_quota,
            is_shadow,
            metadata: None,
            replaces: Vec::new(),
            is_detailed: false,
            counters: OnceLock::new(),
        }
    }

    /// Counts hits that have this name in metrics.
    pub fn count(&self, metrics: &Metrics, name: &Arc<str>, result: HitResult, hits: u64) {
        if Arc::ptr_eq(name, &self.path) {
            let begin = || {
                metrics.redis.blind.get_or_create_owned(&self.limit.blind());
                metrics.hit_counters(name)
            };
            self.counters.get_or_init(begin).count(result, hits);
        } else {
            metrics.hit_counters(name).count(result, hits);
        }
    }
}

/// The bucket of a fixed window: as many tokens as requests, and as many again in each unit.
/// Nothing if the unit is not known.
pub(super) fn policy(requests_per_unit: u32, unit: Unit) -> Option<Policy> {
    let requests = u64::from(requests_per_unit);
    let refill = requests.checked_mul(MICRO)?;
    Policy::new(requests, refill, unit.seconds()?.checked_mul(1_000)?).ok()
}

/// Appends `text` to a key in which `/` and `=` stand between names and values.
fn escape(text: &str, key: &mut String) {
    if !text.contains(['%', '/', '=']) {
        key.push_str(text);
        return;
    }
    for letter in text.chars() {
        match letter {
            '%' => key.push_str("%25"),
            '/' => key.push_str("%2F"),
            '=' => key.push_str("%3D"),
            letter => key.push(letter),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whether a pattern fits, tried letter by letter.
    fn fits(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), None) => fits(rest, text),
            (Some((b'*', rest)), Some((_, after))) => fits(rest, text) || fits(pattern, after),
            (Some((one, rest)), Some((other, after))) => one == other && fits(rest, after),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_star_stands_for_any_text(pattern in "[ab*]{0,3}[*][ab*]{0,3}", text in "[ab]{0,8}") {
            let wildcard = Wildcard::new(&pattern).unwrap();
            let expected = fits(pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(wildcard.fits(&text), expected, "{} {}", pattern, text);
        }

        /// Descriptors that differ have different keys, overrides among them.
        #[test]
        fn keys_stay_apart(
            one in prop::collection::vec(("[a=/%2F]{0,3}", "[a=/%2F]{0,3}"), 0..3),
            other in prop::collection::vec(("[a=/%2F]{0,3}", "[a=/%2F]{0,3}"), 0..3),
            limits in (prop::option::of(1..3_u32), prop::option::of(1..3_u32)),
        ) {
            let domain = Domain::new("d", "", false);
            let key = |entries: &[(String, String)], limit: Option<u32>| {
                let entries: Vec<Entry> = entries
                    .iter()
                    .map(|(key, value)| Entry { key: key.clone(), value: value.clone() })
                    .collect();
                match limit {
                    None => domain.key(&entries, &[]),
                    Some(unit) => {
                        let limit = RateLimitOverride { requests_per_unit: 1, unit: unit.cast_signed() };
                        match domain.overridden(&entries, &limit) {
                            Found::Limited { key, .. } => String::from_utf8(key.to_vec()).unwrap(),
                            found => format!("{found:?}"),
                        }
                    }
                }
            };
            let is_same = one == other && limits.0 == limits.1;
            prop_assert_eq!(key(&one, limits.0) == key(&other, limits.1), is_same);
        }
    }

    #[test]
    fn a_text_without_a_star_is_no_pattern() {
        assert!(Wildcard::new("").is_none() && Wildcard::new("ab").is_none());
    }
}
