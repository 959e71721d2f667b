//! Who has been refused of late, for people who look at the page for operators.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many buckets are remembered.
const MOST: usize = 1_000;
/// How long a bucket is remembered after its last refusal.
const MEMORY: Duration = Duration::from_secs(120);
/// How often, at most, room is made: looking at all of them for each refusal would cost more than
/// the refusal.
const SWEEP: Duration = Duration::from_secs(1);

/// The buckets that have refused of late, as this process has seen them. There is nothing to do
/// for a request that passes.
#[derive(Debug, Default)]
pub struct Recent(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    refused: HashMap<Arc<[u8]>, Refused>,
    swept: Option<Instant>,
    /// Whether somebody was left out since there was no room.
    left_out: bool,
}

/// A bucket that has refused.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Its key.
    pub key: Arc<[u8]>,
    /// The name of the limit.
    pub limit: String,
    /// How often it has refused since it is remembered.
    pub times: u64,
    /// When it last did.
    pub last: Instant,
    /// Milliseconds that were told to be waited then; -1: the same is never granted.
    pub retry_after_ms: i64,
}

impl Recent {
    /// Remembers a refusal.
    pub fn note(&self, limit: &str, key: &Arc<[u8]>, retry_after_ms: i64) {
        let now = Instant::now();
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(refused) = table.refused.get_mut(key) {
            refused.times = refused.times.saturating_add(1);
            (refused.last, refused.retry_after_ms) = (now, retry_after_ms);
            return;
        }
        if table.refused.len() >= MOST && !table.sweep(now) {
            table.left_out = true;
            return;
        }
        let (key, limit) = (Arc::clone(key), limit.to_owned());
        let refused = Refused { key: Arc::clone(&key), limit, times: 1, last: now, retry_after_ms };
        table.refused.insert(key, refused);
    }

    /// Those who were refused of late, the latest first, and whether there were more than are
    /// remembered.
    #[must_use]
    pub fn list(&self) -> (Vec<Refused>, bool) {
        let now = Instant::now();
        let (mut list, left_out) = {
            let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            table.forget(now);
            let left_out = std::mem::take(&mut table.left_out);
            (table.refused.values().cloned().collect::<Vec<_>>(), left_out)
        };
        list.sort_by_key(|refused| std::cmp::Reverse(refused.last));
        (list, left_out)
    }
}

impl Table {
    /// Makes room, unless that was tried just now. Says whether there is some.
    fn sweep(&mut self, now: Instant) -> bool {
        if self.swept.is_some_and(|swept| now.duration_since(swept) < SWEEP) {
            return false;
        }
        self.swept = Some(now);
        self.forget(now);
        self.refused.len() < MOST
    }

    fn forget(&mut self, now: Instant) {
        self.refused.retain(|_, refused| now.duration_since(refused.last) < MEMORY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_remembered_and_the_rest_is_said_to_be_left_out() {
        let recent = Recent::default();
        let key = |number: usize| -> Arc<[u8]> { number.to_string().into_bytes().into() };
        for number in 0..MOST.saturating_add(5) {
            recent.note("user", &key(number), 1_000);
        }
        recent.note("user", &key(0), 500);
        let (list, left_out) = recent.list();
        assert_eq!((list.len(), left_out), (MOST, true));
        assert!(list.first().is_some_and(|first| {
            *first.key == *b"0" && first.times == 2 && first.retry_after_ms == 500
        }));
        assert!(!recent.list().1, "it is said once");
    }
}
