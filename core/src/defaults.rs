//! The configured default policy, and what it was before.
//!
//! A bucket on the default policy stores none, which keeps it small and lets it
//! follow the configuration. So that a change of the configuration credits the
//! old rate up to that moment, the moments of change are remembered here.

use crate::bucket::Bucket;
use crate::debit::SharedBucket;
use crate::membership::Membership;
use crate::policy::Policy;
use std::collections::VecDeque;

/// How many changes are remembered. With more, the oldest are forgotten: a
/// bucket idle since then is credited at the oldest policy still known.
const MAX_CHANGES: usize = 1024;

/// The default policy with its history.
#[derive(Debug, Clone)]
pub struct Defaults {
    current: Policy,
    /// Since when `current` holds, in unix microseconds; 0 at the start.
    since: u64,
    /// Earlier policies, oldest first, each with the instant it ended.
    earlier: VecDeque<(Policy, u64)>,
}

impl Defaults {
    /// The policy that holds from the beginning of time.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { current: policy, since: 0, earlier: VecDeque::new() }
    }

    /// The policy that holds now.
    #[must_use]
    pub fn current(&self) -> Policy {
        self.current
    }

    /// Changes the policy at `now` (unix microseconds).
    pub fn change(&mut self, policy: Policy, now: u64) {
        if policy == self.current {
            return;
        }
        if self.earlier.len() >= MAX_CHANGES {
            self.earlier.pop_front();
        }
        // A clock set back must not make the history run backwards.
        let now = now.max(self.since);
        self.earlier.push_back((self.current, now));
        self.current = policy;
        self.since = now;
    }

    /// The clock, kept from running behind the latest change: a clock that was
    /// set back would otherwise bring the policy before it back.
    #[must_use]
    pub fn clock(&self, now: u64) -> u64 {
        now.max(self.since)
    }

    /// Whether the present policy has held from `instant` on.
    #[must_use]
    pub fn holds_since(&self, instant: u64) -> bool {
        instant >= self.since
    }

    /// The policy that held at `instant`.
    #[must_use]
    pub fn at(&self, instant: u64) -> Policy {
        if instant >= self.since {
            return self.current;
        }
        self.earlier
            .iter()
            .find(|(_, until)| instant < *until)
            .map_or(self.current, |(policy, _)| *policy)
    }

    /// Credits a bucket that follows the default policy up to `now`, each stretch
    /// of time at the policy that held in it, and leaves it on the current one.
    pub(crate) fn advance(&self, bucket: &mut Bucket, now: u64) {
        for (policy, until) in self.changes(bucket.timestamp()) {
            bucket.switch(policy);
            bucket.advance(until.min(now));
        }
        bucket.switch(self.current);
        bucket.advance(now);
    }

    /// [`Self::advance`] for a bucket that regions share.
    pub(crate) fn advance_shared(&self, bucket: &mut SharedBucket, now: u64, peers: &Membership) {
        for (policy, until) in self.changes(bucket.timestamp()) {
            bucket.switch(policy);
            bucket.advance(until.min(now), peers);
        }
        bucket.switch(self.current);
        bucket.advance(now, peers);
    }

    /// The earlier policies that ended after `start`, oldest first.
    fn changes(&self, start: u64) -> impl Iterator<Item = (Policy, u64)> {
        // Mostly the present policy has held all the while.
        let earlier = if start < self.since { self.earlier.len() } else { 0 };
        self.earlier.iter().take(earlier).filter(move |(_, until)| start < *until).copied()
    }
}
