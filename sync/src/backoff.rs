//! How long to wait after a failure.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

/// The wait after the first failure; each further one doubles it.
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait for a server that cannot even be connected to.
pub(crate) const ABSENT: Duration = Duration::from_secs(5);
/// The longest wait for a server that is there, and refuses or does not answer: it may be
/// well again at any moment, and asking costs it little.
pub(crate) const PRESENT: Duration = Duration::from_secs(1);

/// Waits that grow with each failure in a row, with jitter: servers that lost
/// the same peer at the same moment shall not come back to it in step.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// Notes a failure. The wait is `longest` at most.
    pub fn fail(&mut self, now: Instant, longest: Duration) {
        self.until = now.checked_add(jittered(self.wait().min(longest), random()));
        self.failures = self.failures.saturating_add(1);
    }

    /// Notes a success: the next failure is a first one again.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether it is time for another attempt.
    pub fn due(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }

    /// When it is time for another attempt; `None` if it is now anyway.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whose turn it is first, of several for whom it is time: who has failed less often, or has
    /// waited for longer.
    pub fn turn(&self) -> (u32, Option<Instant>) {
        (self.failures, self.until)
    }

    fn wait(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        FIRST.saturating_mul(factor)
    }
}

/// Half of the wait to all of it.
fn jittered(wait: Duration, random: u32) -> Duration {
    let half = wait.checked_div(2).unwrap_or_default();
    let part = half.as_nanos().saturating_mul(u128::from(random)) >> u32::BITS;
    half.saturating_add(Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX)))
}

/// A number that differs between servers and calls. The standard library seeds
/// every new hasher anew.
fn random() -> u32 {
    let low = RandomState::new().build_hasher().finish() & u64::from(u32::MAX);
    u32::try_from(low).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let now = Instant::now();
        for (longest, expected) in [
            (ABSENT, [100, 200, 400, 800, 1600, 3200, 5000, 5000]),
            (PRESENT, [100, 200, 400, 800, 1000, 1000, 1000, 1000]),
        ] {
            let mut backoff = Backoff::default();
            for most in expected {
                backoff.fail(now, longest);
                let wait = backoff.until().unwrap().duration_since(now).as_millis();
                assert!((most / 2..=most).contains(&wait), "{wait} of {most}");
            }
            for _ in 0..100 {
                backoff.fail(now, longest);
            }
            assert!(backoff.until().unwrap().duration_since(now) <= longest);
            backoff.reset();
            assert_eq!(backoff.wait(), FIRST);
        }
    }

    #[test]
    fn jitter_takes_off_up_to_half() {
        let wait = Duration::from_millis(100);
        assert_eq!(jittered(wait, 0).as_millis(), 50);
        assert_eq!(jittered(wait, u32::MAX / 2).as_millis(), 74);
        assert_eq!(jittered(wait, u32::MAX).as_millis(), 99);
    }

    #[test]
    fn an_attempt_is_due_after_the_wait() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        assert!(backoff.due(now));
        backoff.fail(now, ABSENT);
        assert!(!backoff.due(now));
        assert!(!backoff.due(now.checked_add(Duration::from_millis(49)).unwrap()));
        assert!(backoff.due(now.checked_add(FIRST).unwrap()));
        backoff.reset();
        assert!(backoff.due(now));
    }

    #[test]
    fn two_random_numbers_differ() {
        assert!((0..8).map(|_| random()).collect::<std::collections::HashSet<_>>().len() > 1);
    }
}
