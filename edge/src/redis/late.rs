//! Whose fault it is that something comes late: that of the server, or of this process, which has
//! not looked for it.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

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

/// What `future` comes to until `deadline`. Who was busy himself hears late of an answer that is
/// there: what has come by then counts, and whoever was stopped for half of his patience has it
/// once more.
///
/// # Errors
/// When it comes to nothing until then.
pub async fn in_time<F: Future + Unpin>(
    mut future: F,
    deadline: Instant,
    patience: Duration,
) -> Result<F::Output, Late> {
    if let Ok(output) = timeout_at(deadline, &mut future).await {
        return Ok(output);
    }
    if !is_own(deadline, patience) {
        yield_now().await;
        return future.now_or_never().ok_or_else(|| whose(deadline, patience));
    }
    let now = Instant::now();
    let deadline = now.checked_add(patience).unwrap_or(now);
    timeout_at(deadline, future).await.map_err(|_| whose(deadline, patience))
}

fn whose(deadline: Instant, patience: Duration) -> Late {
    if is_own(deadline, patience) { Late::Own } else { Late::Theirs }
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
            let deadline = Instant::now() + PATIENCE;
            let told = tokio::select! {
                biased;
                told = in_time(answer.as_mut(), deadline, PATIENCE) => Some(told),
                () = pass(2_000 / turn, Duration::from_millis(turn.into())) => None,
            };
            assert_eq!(told, Some(expected), "{turn} ms");
        }
    }
}
