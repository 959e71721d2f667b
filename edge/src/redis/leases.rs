//! Tokens that are taken ahead for keys that are asked for all the time (`LEASE`).
//!
//! They are gone from the bucket, so no other service can grant them, and what is not used
//! is given back soon. Near the end of a bucket nothing is taken ahead: who has the last
//! tokens would refuse nobody, and the others all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::health::locked;
use crate::decide::Answer;
use crate::limits::Charge;

/// How soon a key has to be asked for again to be asked for all the time.
const BUSY: Duration = Duration::from_millis(100);
/// How long tokens are kept that nobody wants.
pub const IDLE: Duration = Duration::from_millis(500);
/// The least that is taken ahead: less is not worth it.
const LEAST: u64 = 4;
/// What part of the tokens that are left may be taken ahead, as a divisor.
const PART: u64 = 16;
/// How many keys are remembered at most.
const KEYS: usize = 16_384;

/// The leases of one worker.
#[derive(Debug)]
pub struct Leases {
    /// The most that is taken ahead for a key.
    most: u64,
    keys: Mutex<HashMap<Arc<[u8]>, Lease>>,
}

#[derive(Debug)]
struct Lease {
    charge: Charge,
    /// Tokens that were taken and not granted yet.
    tokens: u64,
    /// What the server has said last, and when.
    answer: Answer,
    since: Instant,
    used: Instant,
    /// Whether somebody sees to it that they are given back.
    is_watched: bool,
}

/// What becomes of a lease that is looked after.
#[derive(Debug, PartialEq, Eq)]
pub enum Watch {
    /// It is in use: look again later.
    Wait,
    /// Nobody wants it: so many tokens go back.
    Give(u64),
}

impl Leases {
    /// Leases of `most` tokens each.
    pub fn new(most: u64) -> Self {
        Self { most, keys: Mutex::default() }
    }

    /// Grants one token out of a lease.
    pub fn grant(&self, charge: &Charge, now: Instant) -> Option<Answer> {
        let mut keys = locked(&self.keys);
        let lease = keys.get_mut(&charge.key)?;
        if lease.charge.limit.arguments != charge.limit.arguments {
            return None;
        }
        lease.tokens = lease.tokens.checked_sub(1)?;
        lease.used = now;
        let left = i64::try_from(lease.tokens).unwrap_or(i64::MAX);
        let elapsed = now.saturating_duration_since(lease.since).as_millis();
        let elapsed = i64::try_from(elapsed).unwrap_or(i64::MAX);
        let reset_after_ms = match lease.answer.reset_after_ms {
            ms if ms < 0 => ms,
            ms => ms.saturating_sub(elapsed).max(0),
        };
        let remaining = lease.answer.remaining.saturating_add(left);
        Some(Answer { taken: 1, remaining, retry_after_ms: 0, reset_after_ms, ..lease.answer })
    }

    /// How many tokens to take ahead for the key of `charge`.
    pub fn ahead(&self, charge: &Charge, now: Instant) -> u64 {
        let keys = locked(&self.keys);
        let Some(lease) = keys.get(&charge.key) else { return 0 };
        let is_busy = now.saturating_duration_since(lease.used) < BUSY;
        let left = u64::try_from(lease.answer.remaining).unwrap_or(0);
        let ahead = self.most.min(left / PART);
        if is_busy && ahead >= LEAST { ahead } else { 0 }
    }

    /// The server has granted a take for `count` who wait: what it granted beyond is kept.
    /// Says whether somebody has to look after it.
    pub fn keep(&self, charge: &Charge, answer: Answer, count: u64, now: Instant) -> bool {
        let mut keys = locked(&self.keys);
        if keys.len() >= KEYS {
            let is_old = |lease: &Lease| now.saturating_duration_since(lease.used) >= BUSY;
            keys.retain(|_, lease| lease.tokens > 0 || lease.is_watched || !is_old(lease));
        }
        let more = u64::try_from(answer.taken).unwrap_or(0).saturating_sub(count);
        if more == 0 && keys.len() >= KEYS && !keys.contains_key(&charge.key) {
            return false;
        }
        let lease = keys.entry(Arc::clone(&charge.key)).or_insert_with(|| Lease {
            charge: charge.clone(),
            tokens: 0,
            answer,
            since: now,
            used: now,
            is_watched: false,
        });
        // Tokens are tokens of the bucket, under whichever policy they were taken.
        lease.charge = charge.clone();
        lease.tokens = lease.tokens.saturating_add(more);
        (lease.answer, lease.since, lease.used) = (answer, now, now);
        let is_new = lease.tokens > 0 && !lease.is_watched;
        lease.is_watched |= is_new;
        is_new
    }

    /// Looks after the lease of a key.
    pub fn watch(&self, key: &Arc<[u8]>, now: Instant) -> Watch {
        let mut keys = locked(&self.keys);
        let Some(lease) = keys.get_mut(key) else { return Watch::Give(0) };
        if now.saturating_duration_since(lease.used) < IDLE {
            return Watch::Wait;
        }
        let tokens = lease.tokens;
        keys.remove(key);
        Watch::Give(tokens)
    }

    /// All that is left, to be given back at the end.
    pub fn end(&self) -> Vec<Charge> {
        let leases = std::mem::take(&mut *locked(&self.keys));
        leases
            .into_values()
            .filter(|lease| lease.tokens > 0)
            .map(|lease| Charge { cost: lease.tokens, ..lease.charge })
            .collect()
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::unwrap_used)]
mod tests {
    use claw_core::policy::Policy;

    use super::*;
    use crate::limits::Limit;

    fn charge(key: &str) -> Charge {
        let policy = Policy::new(1000, 1_000_000, 1000).unwrap();
        let limit = Arc::new(Limit::new("limit".to_owned(), policy, Vec::new()));
        Charge { limit, key: key.as_bytes().into(), cost: 1, keep: 0 }
    }

    fn answer(taken: i64, remaining: i64) -> Answer {
        Answer { taken, capacity: 1000, remaining, retry_after_ms: 0, reset_after_ms: 5000 }
    }

    #[test]
    fn tokens_are_taken_ahead_of_a_busy_key_that_has_many() {
        let (ann, now) = (charge("ann"), Instant::now());
        for (most, remaining, ms, ahead) in [
            (32, 900, 0, 32),
            (32, 900, 99, 32),
            (32, 900, 100, 0),
            (32, 500, 0, 31),
            (32, 64, 0, 4),
            (32, 63, 0, 0),
            (32, 0, 0, 0),
            (32, -5, 0, 0),
            (4, 900, 0, 4),
        ] {
            let leases = Leases::new(most);
            assert_eq!(leases.ahead(&ann, now), 0, "the first take");
            assert!(!leases.keep(&ann, answer(1, remaining), 1, now));
            let later = now + Duration::from_millis(ms);
            assert_eq!(leases.ahead(&ann, later), ahead, "{most} {remaining} {ms}");
        }
    }

    #[test]
    fn a_lease_grants_what_was_taken_and_not_one_more() {
        let (leases, ann, now) = (Leases::new(32), charge("ann"), Instant::now());
        assert!(leases.keep(&ann, answer(5, 100), 2, now), "three more than were wanted");
        let later = now + Duration::from_millis(300);
        let told: Vec<Option<(i64, i64)>> = (0..4)
            .map(|_| leases.grant(&ann, later))
            .map(|answer| answer.map(|answer| (answer.remaining, answer.reset_after_ms)))
            .collect();
        assert_eq!(told, [Some((102, 4700)), Some((101, 4700)), Some((100, 4700)), None]);
        assert_eq!(leases.grant(&charge("bob"), later), None);
        assert!(!leases.keep(&ann, answer(4, 90), 1, later), "it is looked after already");
        let other = Policy::new(7, 1_000_000, 1000).unwrap();
        let other =
            Charge { limit: Arc::new(Limit::new("other".to_owned(), other, Vec::new())), ..ann };
        assert_eq!(leases.grant(&other, later), None, "another policy");
    }

    #[test]
    fn what_nobody_wants_is_given_back_once() {
        let (leases, ann, now) = (Leases::new(32), charge("ann"), Instant::now());
        leases.keep(&ann, answer(9, 100), 1, now);
        let at = |ms| now + Duration::from_millis(ms);
        leases.grant(&ann, at(400)).unwrap();
        assert_eq!(leases.watch(&ann.key, at(500)), Watch::Wait);
        assert_eq!(leases.watch(&ann.key, at(899)), Watch::Wait);
        assert_eq!(leases.watch(&ann.key, at(900)), Watch::Give(7));
        assert_eq!(leases.watch(&ann.key, at(900)), Watch::Give(0));
        assert_eq!(leases.grant(&ann, at(900)), None);

        leases.keep(&ann, answer(9, 100), 1, now);
        leases.keep(&charge("bob"), answer(1, 100), 1, now);
        let costs: Vec<u64> = leases.end().iter().map(|charge| charge.cost).collect();
        assert_eq!(costs, [8]);
        assert_eq!(leases.grant(&ann, now), None);
    }
}
