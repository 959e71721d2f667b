//! What is configured for buckets, and what was before.
//!
//! A bucket under a rule or on the default policy stores none, which keeps it small and lets it
//! follow the configuration. So that a change of the configuration credits the old rate up to
//! that moment, the whole tables are remembered here with the moments at which they ended: at
//! each past instant the table that was in force then decides, also for a key that a rule fitted
//! only for a while.

use crate::bucket::Bucket;
use crate::membership::Membership;
use crate::policy::Policy;
use crate::rules::Rules;
use crate::shared::SharedBucket;
use std::collections::VecDeque;
use std::sync::Arc;

/// How many changes are remembered. With more, the oldest are forgotten: a
/// bucket idle since then is credited at the oldest policy still known.
const MAX_CHANGES: usize = 1_024;

/// How many rules are remembered of all earlier tables together: some megabytes.
const MAX_RULES_KEPT: usize = 65_536;

/// The rules and the default policy, with their history.
#[derive(Debug, Clone)]
pub struct Configured {
    current: Table,
    /// Since when `current` holds, in unix microseconds; 0 at the start.
    since: u64,
    /// Earlier tables, oldest first, each with the instant it ended.
    earlier: VecDeque<(Table, u64)>,
}

/// What is in force at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Table {
    default: Policy,
    rules: Arc<Rules>,
}

impl Table {
    fn policy_of(&self, key: &[u8]) -> Policy {
        self.rules.policy_of(key).unwrap_or(self.default)
    }
}

impl Configured {
    /// A default policy that holds from the beginning of time, and no rules.
    #[must_use]
    pub fn new(default: Policy) -> Self {
        let current = Table { default, rules: Arc::default() };
        Self { current, since: 0, earlier: VecDeque::new() }
    }

    /// The default policy that holds now.
    #[must_use]
    pub fn default_policy(&self) -> Policy {
        self.current.default
    }

    /// The rules that hold now.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.current.rules
    }

    /// Changes the default policy at `now` (unix microseconds); at 0 it has always been so.
    pub fn set_default(&mut self, default: Policy, now: u64) {
        self.change(Table { default, ..self.current.clone() }, now);
    }

    /// Changes the rules at `now` (unix microseconds); at 0 it has always been so.
    pub fn set_rules(&mut self, rules: Rules, now: u64) {
        self.change(Table { rules: rules.into(), ..self.current.clone() }, now);
    }

    fn change(&mut self, table: Table, now: u64) {
        let before = std::mem::replace(&mut self.current, table);
        if before == self.current {
            return;
        }
        // A clock set back must not make the history run backwards.
        let now = now.max(self.since);
        self.earlier.push_back((before, now));
        self.since = now;
        while self.earlier.len() > MAX_CHANGES || self.rules_kept() > MAX_RULES_KEPT {
            self.earlier.pop_front();
        }
    }

    /// How many rules there are in memory besides those in force.
    fn rules_kept(&self) -> usize {
        let tables = || self.earlier.iter().map(|(table, _)| &table.rules);
        let following = tables().skip(1).chain([&self.current.rules]);
        let own = |(rules, next): &(&Arc<Rules>, &Arc<Rules>)| !Arc::ptr_eq(rules, next);
        let lengths = tables().zip(following).filter(own).map(|(rules, _)| rules.len());
        lengths.fold(0, usize::saturating_add)
    }

    /// What is configured for a key.
    #[inline]
    #[must_use]
    pub fn of<'a>(&'a self, key: &'a [u8]) -> ConfiguredFor<'a> {
        let rule = self.current.rules.policy_of(key);
        let policy = rule.unwrap_or(self.current.default);
        ConfiguredFor { all: self, key, policy, is_rule: rule.is_some() }
    }
}

/// What is configured for one key, with its history.
#[derive(Debug, Clone, Copy)]
pub struct ConfiguredFor<'a> {
    all: &'a Configured,
    key: &'a [u8],
    policy: Policy,
    is_rule: bool,
}

impl ConfiguredFor<'_> {
    /// The policy that holds now for a bucket that has none of its own.
    #[must_use]
    pub fn current(&self) -> Policy {
        self.policy
    }

    /// Whether that is a rule, and not the default.
    #[must_use]
    pub fn is_rule(&self) -> bool {
        self.is_rule
    }

    /// The clock, kept from running behind the latest change: a clock that was
    /// set back would otherwise bring the policy before it back.
    #[must_use]
    pub fn clock(&self, now: u64) -> u64 {
        now.max(self.all.since)
    }

    /// Whether the present table has held from `instant` on, as mostly.
    #[inline(always)]
    fn is_steady_since(&self, instant: u64) -> bool {
        instant >= self.all.since
    }

    /// Whether the present policy has held from `instant` on.
    #[must_use]
    pub fn holds_since(&self, instant: u64) -> bool {
        self.is_steady_since(instant)
            || self.changes(instant).all(|(policy, _)| policy == self.policy)
    }

    /// The policy that held at `instant`.
    #[inline(always)]
    #[must_use]
    pub fn at(&self, instant: u64) -> Policy {
        if self.is_steady_since(instant) { self.policy } else { self.was_at(instant) }
    }

    #[cold]
    fn was_at(&self, instant: u64) -> Policy {
        self.changes(instant).next().map_or(self.policy, |(policy, _)| policy)
    }

    /// Credits a bucket that follows the configuration up to `now`, each stretch
    /// of time at the policy that held in it, and leaves it on the current one.
    #[inline(always)]
    pub(crate) fn advance(&self, bucket: &mut Bucket, now: u64) {
        if !self.is_steady_since(bucket.timestamp()) {
            self.catch_up(bucket, now);
        }
        bucket.switch(self.policy);
        bucket.advance(now);
    }

    /// Credits what was gained under earlier tables.
    #[cold]
    fn catch_up(&self, bucket: &mut Bucket, now: u64) {
        for (policy, until) in self.changes(bucket.timestamp()) {
            bucket.switch(policy);
            bucket.advance(until.min(now));
        }
    }

    /// [`Self::advance`] for a bucket that regions share.
    pub(crate) fn advance_shared(&self, bucket: &mut SharedBucket, now: u64, peers: &Membership) {
        if !self.is_steady_since(bucket.timestamp()) {
            for (policy, until) in self.changes(bucket.timestamp()) {
                bucket.switch(policy);
                bucket.advance(until.min(now), peers);
            }
        }
        bucket.switch(self.policy);
        bucket.advance(now, peers);
    }

    /// The earlier policies that ended after `start`, oldest first.
    fn changes(&self, start: u64) -> impl Iterator<Item = (Policy, u64)> {
        let all = self.all;
        let ended = all.earlier.iter().filter(move |(_, until)| start < *until);
        ended.map(|(table, until)| (table.policy_of(self.key), *until))
    }
}
