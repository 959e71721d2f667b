//! Weights of users' buckets, as they were a moment ago: they tell whose requests are premium.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::health::locked;

/// How long a weight is not asked for again.
const FRESH: Duration = Duration::from_secs(1);
/// How many weights are held at most.
const HELD: usize = 8_192;

/// The weights that one worker knows.
#[derive(Debug, Default)]
pub struct Weights(Mutex<HashMap<Arc<[u8]>, Known>>);

/// What was told of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its weight; nothing if there was no answer.
    pub weight: Option<u64>,
    asked: Instant,
}

impl Weights {
    /// What was told of a bucket within the last second.
    pub fn known(&self, key: &[u8], now: Instant) -> Option<Known> {
        let known = locked(&self.0).get(key).copied();
        known.filter(|known| now.saturating_duration_since(known.asked) < FRESH)
    }

    /// A bucket was asked about at `asked`, with this answer.
    pub fn learn(&self, key: &Arc<[u8]>, weight: Option<u64>, asked: Instant) {
        let mut held = locked(&self.0);
        // What is forgotten is asked for again: many names cost commands, never memory, nor a search
        // for what could go.
        if held.len() >= HELD && !held.contains_key(key) {
            held.clear();
        }
        held.insert(Arc::clone(key), Known { weight, asked });
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_known_for_a_second() {
        let (weights, asked) = (Weights::default(), Instant::now());
        let key: Arc<[u8]> = b"k".as_slice().into();
        for weight in [Some(3), None, Some(1)] {
            weights.learn(&key, weight, asked);
            for (ms, told) in [(0, Some(weight)), (999, Some(weight)), (1_000, None)] {
                let known = weights.known(&key, asked + Duration::from_millis(ms));
                assert_eq!(known.map(|known| known.weight), told, "{ms}");
            }
        }
        assert_eq!(weights.known(b"other", asked), None);
    }

    #[test]
    fn no_more_are_held_than_may_be() {
        let (weights, now) = (Weights::default(), Instant::now());
        for number in 0..3 * HELD {
            let key: Arc<[u8]> = number.to_string().into_bytes().into();
            weights.learn(&key, Some(2), now);
            assert_eq!(weights.known(&key, now).unwrap().weight, Some(2));
            assert!(locked(&weights.0).len() <= HELD);
        }
    }
}
