//! One command for all who want one token of the same bucket at the same time.
//!
//! While a take of a key is on its way, those who come for the same key under the same policy
//! wait for it. Its answer sends them off together, as one take of as many tokens as there
//! are waiting, or of what there is. Whoever waits is asked for later than he would have
//! been alone by at most one round trip.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Fault;
use super::health::locked;
use crate::decide::Answer;
use crate::limits::{Charge, Limit};

/// How many may wait for one key.
const WAITING: usize = 4096;

/// The keys with a take on its way.
#[derive(Debug, Default)]
pub struct Flights {
    keys: Mutex<HashMap<Arc<[u8]>, Flight>>,
    /// Whether the server answers so soon that waiting for one answer and then for another is no
    /// matter. Nobody waits for others before that is known.
    is_fast: AtomicBool,
}

#[derive(Debug)]
struct Flight {
    limit: Arc<Limit>,
    waiting: Vec<Waiter>,
}

/// Somebody who wants one token.
#[derive(Debug)]
pub struct Waiter {
    answer: oneshot::Sender<Result<Answer, Fault>>,
}

/// What somebody does who wants one token.
#[derive(Debug)]
pub enum Turn {
    /// He asks by himself, and then lets those go on who came meanwhile.
    Lead,
    /// He waits for the answer.
    Wait(oneshot::Receiver<Result<Answer, Fault>>),
    /// He asks by himself, since the take that is on its way has another policy.
    Apart,
}

/// Those who go together.
#[derive(Debug)]
pub struct Batch(Vec<Waiter>);

impl Flights {
    /// Whether takes may wait for each other.
    pub fn are_shared(&self) -> bool {
        self.is_fast.load(Ordering::Relaxed)
    }

    /// A command has taken so long, of the time that a decision may take. Who waits for two of
    /// them, one after the other, has to have his answer in time.
    pub fn took(&self, length: Duration, most: Duration) {
        let is_fast = length.saturating_mul(4) < most;
        if is_fast != self.is_fast.load(Ordering::Relaxed) {
            self.is_fast.store(is_fast, Ordering::Relaxed);
        }
    }

    /// Takes a turn at the key of `charge`.
    ///
    /// # Errors
    /// When too many wait already.
    pub fn turn(&self, charge: &Charge) -> Result<Turn, Fault> {
        let mut flights = locked(&self.keys);
        let flight = match flights.entry(Arc::clone(&charge.key)) {
            Entry::Occupied(flight) => flight.into_mut(),
            Entry::Vacant(place) => {
                place.insert(Flight { limit: Arc::clone(&charge.limit), waiting: Vec::new() });
                return Ok(Turn::Lead);
            }
        };
        if !is_same(&flight.limit, &charge.limit) {
            return Ok(Turn::Apart);
        }
        if flight.waiting.len() >= WAITING {
            return Err(Fault::QueueFull);
        }
        let (answer, receiver) = oneshot::channel();
        flight.waiting.push(Waiter { answer });
        Ok(Turn::Wait(receiver))
    }

    /// Those who wait for `key`, when an answer has come. When there are none, the next who
    /// comes takes the lead.
    pub fn next(&self, key: &Arc<[u8]>) -> Option<Batch> {
        let mut flights = locked(&self.keys);
        let Entry::Occupied(mut flight) = flights.entry(Arc::clone(key)) else { return None };
        let mut waiting = std::mem::take(&mut flight.get_mut().waiting);
        // Who has gone meanwhile is charged nothing.
        waiting.retain(|waiter| !waiter.answer.is_closed());
        if waiting.is_empty() {
            flight.remove();
            return None;
        }
        Some(Batch(waiting))
    }

    /// Ends the waiting for `key`: there is no answer.
    pub fn fail(&self, key: &Arc<[u8]>, fault: &Fault) {
        let flight = locked(&self.keys).remove(key);
        for waiter in flight.into_iter().flat_map(|flight| flight.waiting) {
            let _ = waiter.answer.send(Err(fault.clone()));
        }
    }
}

/// Whether two limits are one policy on a bucket.
fn is_same(one: &Arc<Limit>, other: &Arc<Limit>) -> bool {
    Arc::ptr_eq(one, other) || one.arguments == other.arguments
}

impl Batch {
    /// How many tokens they want.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        u64::try_from(self.0.len()).unwrap_or(u64::MAX)
    }

    /// Tells each what became of him: who came first is granted first.
    pub fn share(self, result: &Result<Answer, Fault>) {
        for (place, waiter) in (0..).zip(self.0) {
            let _ = waiter.answer.send(result.clone().map(|answer| share(answer, place)));
        }
    }
}

/// What a take of several tokens, as many as there were, means for the one at `place` among
/// those who wanted one each. It is what he would have been told alone, all of them at the
/// moment of the answer, but for the time until the bucket is full: that counts all of them.
#[must_use]
pub fn share(answer: Answer, place: i64) -> Answer {
    let after = answer.taken.saturating_sub(place).saturating_sub(1);
    if after < 0 {
        return Answer { taken: 0, ..answer };
    }
    let remaining = answer.remaining.saturating_add(after);
    Answer { taken: 1, remaining, retry_after_ms: 0, ..answer }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use claw_core::bucket::{Bucket, Demand, Weight};
    use claw_core::policy::Policy;
    use proptest::prelude::*;

    use super::*;

    /// The reply of `CL.TAKE`.
    fn reply(answer: &claw_core::bucket::Answer) -> Answer {
        Answer {
            taken: i64::try_from(answer.taken).unwrap(),
            capacity: i64::try_from(answer.capacity).unwrap(),
            remaining: answer.remaining,
            retry_after_ms: answer.retry_after.as_millis(),
            reset_after_ms: answer.reset_after.as_millis(),
        }
    }

    #[test]
    fn nobody_waits_for_others_while_the_server_is_slow_or_not_known() {
        let (flights, most) = (Flights::default(), Duration::from_millis(50));
        assert!(!flights.are_shared());
        for (ms, are_shared) in [(1, true), (12, true), (13, false), (50, false), (12, true)] {
            flights.took(Duration::from_millis(ms), most);
            assert_eq!(flights.are_shared(), are_shared, "{ms} ms");
        }
    }

    proptest! {
        #[test]
        fn shares_are_what_each_would_have_been_told_alone(
            capacity in 0..50u64,
            refill in 0..5_000_000u64,
            used in 0..50u64,
            count in 1..80u64,
            elapsed in 0..3_000_000u64,
        ) {
            let policy = Policy::new(capacity, refill, 1000).unwrap();
            let mut bucket = Bucket::full(policy, Weight::ONE, 0);
            bucket.take(Demand::all(used.min(capacity)), 0);
            bucket.advance(elapsed);
            let mut together = bucket;
            let partial = Demand { partial: true, ..Demand::all(count) };
            let answer = reply(&together.take(partial, elapsed));
            for place in 0..i64::try_from(count).unwrap() {
                let alone = reply(&bucket.take(Demand::all(1), elapsed));
                let shared = share(answer, place);
                prop_assert_eq!(shared.taken, alone.taken);
                prop_assert_eq!(shared.capacity, alone.capacity);
                prop_assert_eq!(shared.remaining, alone.remaining);
                prop_assert_eq!(shared.retry_after_ms, alone.retry_after_ms);
                prop_assert_eq!(shared.reset_after_ms, answer.reset_after_ms);
            }
            prop_assert_eq!(bucket.tokens(), together.tokens());
        }
    }
}
