//! Whose fault it is that something comes late: that of the server, or of this process, which has
//! not looked for it.

use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, sleep_until};

use super::health::locked;

/// How many timers are kept.
const SPARE: usize = 64;

/// Who is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// The other side.
    Theirs,
    /// This process: it has more to do than it can, or was stopped.
    Own,
}

/// Whether somebody who was to be woken at `time` has been woken so late, as his `patience` goes, that
/// he knows nothing of others.
pub fn is_own(time: Instant, patience: Duration) -> bool {
    Instant::now().saturating_duration_since(time).saturating_mul(2) >= patience
}

/// How long is waited for answers; of one worker.
#[derive(Debug)]
pub struct Patience {
    length: Duration,
    /// Timers that nobody needs now. They go on running, so that whoever takes one has but to put it
    /// off: for a new one the event loop has to be told each time that it wakes up too late.
    spare: Mutex<Vec<Pin<Box<Sleep>>>>,
}

impl Patience {
    /// Of so long.
    pub fn new(length: Duration) -> Self {
        Self { length, spare: Mutex::default() }
    }

    /// How long.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// What `future` comes to until `deadline`. Who was busy himself hears late of an answer that is
    /// there: what has come by then counts, and whoever was stopped for half of his patience has it
    /// once more.
    ///
    /// # Errors
    /// When it comes to nothing until then.
    pub async fn in_time<F: Future + Unpin>(
        &self,
        mut future: F,
        deadline: Instant,
    ) -> Result<F::Output, Late> {
        let mut timer = self.timer(deadline);
        let mut output = until(timer.as_mut(), &mut future).await;
        if output.is_none() && is_own(deadline, self.length) {
            let now = Instant::now();
            timer.as_mut().reset(now.checked_add(self.length).unwrap_or(now));
            output = until(timer.as_mut(), &mut future).await;
        } else if output.is_none() {
            yield_now().await;
            output = future.now_or_never();
        }
        let deadline = timer.deadline();
        self.keep(timer);
        output.ok_or_else(|| if is_own(deadline, self.length) { Late::Own } else { Late::Theirs })
    }

    fn timer(&self, deadline: Instant) -> Pin<Box<Sleep>> {
        let Some(mut timer) = locked(&self.spare).pop() else {
            return Box::pin(sleep_until(deadline));
        };
        timer.as_mut().reset(deadline);
        timer
    }

    fn keep(&self, timer: Pin<Box<Sleep>>) {
        let mut spare = locked(&self.spare);
        if spare.len() < SPARE {
            spare.push(timer);
        }
    }
}

/// What `future` comes to before the timer rings.
async fn until<F: Future + Unpin>(timer: Pin<&mut Sleep>, future: &mut F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = timer => None,
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use std::future::pending;
    use std::pin::pin;

    use tokio::time::{advance, sleep};

    use super::*;

    /// Lets so much time go by, at so many turns.
    async fn pass(turns: u32, each: Duration) {
        for _ in 0..turns {
            advance(each).await;
            yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_was_not_woken_blames_nobody() {
        const PATIENCE: Duration = Duration::from_millis(50);
        // One for all: what one has left behind does not trouble the next.
        let patience = Patience::new(PATIENCE);
        // How far apart the turns are, when the answer comes, and what is made of it; in ms.
        for (turn, answer, expected) in [
            (1, Some(10), Ok(())),
            (1, Some(49), Ok(())),
            (1, Some(60), Err(Late::Theirs)),
            (1, None, Err(Late::Theirs)),
            (20, Some(55), Ok(())),
            (20, None, Err(Late::Theirs)),
            (90, Some(60), Ok(())),
            (90, Some(170), Ok(())),
            (90, Some(1_000), Err(Late::Own)),
            (90, None, Err(Late::Own)),
        ] {
            let mut answer = pin!(async {
                match answer {
                    Some(ms) => sleep(Duration::from_millis(ms)).await,
                    None => pending().await,
                }
            });
            let told = tokio::select! {
                biased;
                told = patience.in_time(answer.as_mut(), Instant::now() + PATIENCE) => Some(told),
                () = pass(2_000 / turn, Duration::from_millis(turn.into())) => None,
            };
            assert_eq!(told, Some(expected), "{turn} ms");
        }
    }
}
