//! Weights of users' buckets, as they were a moment ago: they tell whose requests are premium.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::health::locked;

/// How long a weight is not asked for again.
const FRESH: Duration = Duration::from_secs(1);
/// How many weights are held at most.
const HELD: usize = 8_192;

/// The weights that one worker knows.
#[derive(Debug, Default)]
pub struct Weights(Mutex<HashMap<Arc<[u8]>, Asked>>);

/// A bucket's weight, for all who wait for it; nothing if there was no answer.
pub type Weight = Shared<BoxFuture<'static, Option<u64>>>;

#[derive(Debug)]
struct Asked {
    weight: Weight,
    at: Instant,
}

impl Weights {
    /// The weight of a bucket: that of a question within the last second, or of a new one that `ask`
    /// begins; nothing if it cannot.
    pub fn of(
        &self,
        key: &Arc<[u8]>,
        now: Instant,
        ask: impl FnOnce() -> Option<JoinHandle<Option<u64>>>,
    ) -> Option<Weight> {
        let mut held = locked(&self.0);
        let last = held.get(key).filter(|asked| now.saturating_duration_since(asked.at) < FRESH);
        if let Some(asked) = last {
            return Some(asked.weight.clone());
        }
        let weight = ask()?.map(|answer| answer.ok().flatten()).boxed().shared();
        // What is forgotten is asked for again: many names cost commands, never memory, nor a search
        // for what could go.
        if held.len() >= HELD && !held.contains_key(key) {
            held.clear();
        }
        held.insert(Arc::clone(key), Asked { weight: weight.clone(), at: now });
        Some(weight)
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::unwrap_used)]
mod tests {
    use super::*;

    fn answer(weight: Option<u64>) -> Option<JoinHandle<Option<u64>>> {
        Some(tokio::spawn(async move { weight }))
    }

    #[tokio::test]
    async fn a_weight_is_asked_for_once_a_second() {
        let (weights, begin) = (Weights::default(), Instant::now());
        let key: Arc<[u8]> = b"k".as_slice().into();
        for (second, weight) in [Some(3), None, Some(1)].into_iter().enumerate() {
            let asked = begin + FRESH * u32::try_from(second).unwrap();
            let first = weights.of(&key, asked, || answer(weight)).unwrap();
            // Whoever comes meanwhile waits for the same answer, and later ones have it.
            for ms in [0, 1, 999] {
                let again = asked + Duration::from_millis(ms);
                let same = weights.of(&key, again, || None);
                assert!(same.is_some(), "asked again after {ms} ms");
                assert_eq!(same.unwrap().await, weight);
            }
            assert_eq!(first.await, weight);
        }
    }

    /// Where nobody can be asked nothing is held, and who comes next tries again.
    #[tokio::test]
    async fn who_cannot_ask_holds_nobody_up() {
        let (weights, now) = (Weights::default(), Instant::now());
        let key: Arc<[u8]> = b"k".as_slice().into();
        assert!(weights.of(&key, now, || None).is_none());
        assert_eq!(weights.of(&key, now, || answer(Some(3))).unwrap().await, Some(3));
    }

    #[tokio::test]
    async fn no_more_are_held_than_may_be() {
        let (weights, now) = (Weights::default(), Instant::now());
        for number in 0..3 * HELD {
            let key: Arc<[u8]> = number.to_string().into_bytes().into();
            assert_eq!(weights.of(&key, now, || answer(Some(2))).unwrap().await, Some(2));
            assert!(locked(&weights.0).len() <= HELD);
        }
    }
}
