//! Refusals that are repeated without asking again (`LOCAL_REFUSALS`).
//!
//! A bucket that refuses a take refuses every take of as much or more until its
//! `retry_after`, unless somebody gives tokens back, pins a policy or deletes the key. The
//! server tells of that: it remembers who has read a key (client tracking), but only reads
//! count, and a take is a write. So a refusal is read once more by `CL.PEEK`, and held from
//! then on, for a second at most.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::{FromRedisValue, PushInfo, PushKind, Value};
use tokio::time::Instant;

use super::health::locked;
use crate::decide::Answer;
use crate::limits::Charge;

/// How long a refusal is held at most.
const LONGEST: Duration = Duration::from_secs(1);
/// How many refusals are held at most.
const HELD: usize = 16_384;

/// The refusals of one worker.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<HashMap<Arc<[u8]>, Held>>);

#[derive(Debug)]
enum Held {
    /// The key is being read. What the server tells of it meanwhile removes this.
    Asked,
    Known(Refusal),
}

#[derive(Debug)]
struct Refusal {
    charge: Charge,
    answer: Answer,
    since: Instant,
    until: Instant,
}

impl Refusals {
    /// What a take of `charge` is told, if that is known without asking.
    pub fn answer(&self, charge: &Charge, now: Instant) -> Option<Answer> {
        let held = locked(&self.0);
        let Some(Held::Known(refusal)) = held.get(&charge.key) else { return None };
        let is_same = refusal.charge.limit.arguments == charge.limit.arguments;
        let holds = is_same && charge.cost >= refusal.charge.cost && now < refusal.until;
        holds.then(|| refusal.at(now))
    }

    /// Whether a key that has refused is to be read once more.
    pub fn begin(&self, charge: &Charge, now: Instant) -> bool {
        let mut held = locked(&self.0);
        if held.len() >= HELD {
            held.retain(|_, held| match held {
                Held::Asked => true,
                Held::Known(refusal) => now < refusal.until,
            });
        }
        let is_new = match held.get(&charge.key) {
            Some(Held::Asked) => false,
            Some(Held::Known(refusal)) => now >= refusal.until,
            None => held.len() < HELD,
        };
        if is_new {
            held.insert(Arc::clone(&charge.key), Held::Asked);
        }
        is_new
    }

    /// The key has been read: it would refuse, or not, or there was no answer.
    pub fn learn(&self, charge: Charge, answer: Option<Answer>, now: Instant) {
        let mut held = locked(&self.0);
        // Without its place it has changed since, and what was read is of the past.
        if !matches!(held.get(&charge.key), Some(Held::Asked)) {
            return;
        }
        let refused = answer.filter(|answer| answer.retry_after_ms != 0);
        let Some(answer) = refused else {
            held.remove(&charge.key);
            return;
        };
        let wait = u64::try_from(answer.retry_after_ms).map_or(LONGEST, Duration::from_millis);
        let until = now.checked_add(wait.min(LONGEST)).unwrap_or(now);
        let refusal = Refusal { charge, answer, since: now, until };
        held.insert(Arc::clone(&refusal.charge.key), Held::Known(refusal));
    }

    /// What the server tells unasked: these keys have changed, or all of them.
    pub fn hear(&self, push: PushInfo) {
        if push.kind != PushKind::Invalidate {
            return;
        }
        let mut held = locked(&self.0);
        match push.data.into_iter().next() {
            Some(Value::Array(keys)) => {
                for key in keys {
                    if let Ok(key) = Vec::<u8>::from_redis_value(key) {
                        held.remove(key.as_slice());
                    }
                }
            }
            _ => held.clear(),
        }
    }

    /// Forgets all: nobody tells of changes any more.
    pub fn clear(&self) {
        locked(&self.0).clear();
    }
}

impl Refusal {
    /// The refusal, as long after it was heard.
    fn at(&self, now: Instant) -> Answer {
        let elapsed = now.saturating_duration_since(self.since).as_millis();
        let elapsed = i64::try_from(elapsed).unwrap_or(i64::MAX);
        let left = |ms: i64| if ms < 0 { ms } else { ms.saturating_sub(elapsed).max(1) };
        Answer {
            taken: 0,
            retry_after_ms: left(self.answer.retry_after_ms),
            reset_after_ms: left(self.answer.reset_after_ms),
            ..self.answer
        }
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::unwrap_used)]
mod tests {
    use claw_core::policy::Policy;

    use super::*;
    use crate::limits::Limit;

    fn charge(key: &str, cost: u64, capacity: u64) -> Charge {
        let policy = Policy::new(capacity, 1_000_000, 1000).unwrap();
        let limit = Arc::new(Limit::new("limit".to_owned(), policy, Vec::new()));
        Charge { limit, key: key.as_bytes().into(), cost, keep: 0 }
    }

    fn refused(retry_after_ms: i64) -> Option<Answer> {
        let reset_after_ms = 5000;
        Some(Answer { taken: 0, capacity: 5, remaining: 1, retry_after_ms, reset_after_ms })
    }

    fn invalidate(keys: Option<&[&str]>) -> PushInfo {
        let data = match keys {
            Some(keys) => Value::Array(
                keys.iter().map(|key| Value::BulkString(key.as_bytes().to_vec())).collect(),
            ),
            None => Value::Nil,
        };
        PushInfo { kind: PushKind::Invalidate, data: vec![data] }
    }

    #[test]
    fn a_refusal_holds_for_as_much_or_more_until_it_may_pass() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        let after = |ms| now + Duration::from_millis(ms);
        for (retry_after_ms, cost, capacity, ms, told) in [
            (300, 2, 5, 0, Some(300)),
            (300, 2, 5, 299, Some(1)),
            (300, 2, 5, 300, None),
            (300, 3, 5, 100, Some(200)),
            (300, 1, 5, 0, None),
            (300, 2, 6, 0, None),
            (60_000, 2, 5, 999, Some(59_001)),
            (60_000, 2, 5, 1000, None),
            (-1, 2, 5, 999, Some(-1)),
            (-1, 2, 5, 1000, None),
        ] {
            refusals.clear();
            assert!(refusals.begin(&charge("k", 2, 5), now));
            assert_eq!(refusals.answer(&charge("k", 2, 5), now), None, "before it was read");
            refusals.learn(charge("k", 2, 5), refused(retry_after_ms), now);
            let answer = refusals.answer(&charge("k", cost, capacity), after(ms));
            let retry_after = answer.map(|answer| answer.retry_after_ms);
            assert_eq!(retry_after, told, "{retry_after_ms} {cost} {capacity} {ms}");
        }
    }

    #[test]
    fn what_changes_is_no_longer_refused() {
        for (keys, known) in
            [(Some(["k"].as_slice()), false), (None, false), (Some(&["other"]), true)]
        {
            // Both before and after the key has been read.
            for is_early in [true, false] {
                let (refusals, now) = (Refusals::default(), Instant::now());
                assert!(refusals.begin(&charge("k", 1, 5), now));
                if is_early {
                    refusals.hear(invalidate(keys));
                }
                refusals.learn(charge("k", 1, 5), refused(300), now);
                if !is_early {
                    refusals.hear(invalidate(keys));
                }
                let answer = refusals.answer(&charge("k", 1, 5), now);
                assert_eq!(answer.is_some(), known, "{keys:?} {is_early}");
            }
        }
    }

    #[test]
    fn a_key_is_read_once_for_each_refusal() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        assert!(refusals.begin(&charge("k", 1, 5), now));
        assert!(!refusals.begin(&charge("k", 1, 5), now), "while it is read");
        refusals.learn(charge("k", 1, 5), refused(300), now);
        assert!(!refusals.begin(&charge("k", 1, 5), now), "while it holds");
        assert!(refusals.begin(&charge("k", 1, 5), now + Duration::from_millis(300)));
        refusals.learn(charge("k", 1, 5), None, now);
        assert!(refusals.begin(&charge("k", 1, 5), now), "after a fault");
    }
}
