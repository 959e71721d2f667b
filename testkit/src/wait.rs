//! Waiting with a deadline.

use std::thread;
use std::time::{Duration, Instant};

use crate::server::Server;
use crate::wire::info_field;

/// How long to wait for what takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(10);

/// Tries a condition every `tick` until it holds.
///
/// # Panics
///
/// If it does not hold within `timeout`, naming `what` was waited for. The
/// condition is always tried once more after the deadline, so a machine that
/// was merely busy does not make this fail.
pub fn eventually(timeout: Duration, tick: Duration, what: &str, condition: impl FnMut() -> bool) {
    assert!(poll(timeout, tick, condition), "waited {timeout:?} in vain for: {what}");
}

/// Tries a condition every `tick` until it holds or the deadline has passed,
/// and says whether it holds.
pub(crate) fn poll(timeout: Duration, tick: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        let last = Instant::now() >= deadline;
        if condition() {
            return true;
        }
        if last {
            return false;
        }
        thread::sleep(tick);
    }
}

/// Waits until a replica has applied everything that its master had written
/// when this was called.
///
/// # Panics
///
/// If that takes more than 10 seconds, or one of the servers does not answer.
pub fn wait_for_offset(master: &Server, replica: &Server) {
    let target = offset(master, "master_repl_offset").expect("a server has an offset");
    eventually(PATIENCE, TICK, "the replica to reach the offset of its master", || {
        // The offset alone could be one of an earlier history.
        link_is_up(replica) && offset(replica, "slave_repl_offset").is_some_and(|at| at >= target)
    });
}

/// Whether a replica is connected to its master and has its data.
pub(crate) fn link_is_up(replica: &Server) -> bool {
    let status = info_field(&mut replica.connection(), "replication", "master_link_status");
    status.as_deref() == Some("up")
}

fn offset(server: &Server, field: &str) -> Option<i64> {
    let value = info_field(&mut server.connection(), "replication", field)?;
    Some(value.parse().unwrap_or_else(|e| panic!("{field} is {value:?}: {e}")))
}
