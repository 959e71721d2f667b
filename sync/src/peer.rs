//! The thread of one peer.

use crate::backoff::{Backoff, PRESENT};
use crate::peer_connections::PeerConnections;
use crate::peer_queue::{PeerQueue, Wake};
use crate::status::{PeerState, add};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// Runs until the queue says stop. A panic, which would be a bug of ours or of a
/// library, costs the batch and a while, not the peer.
pub(crate) fn run<'a>(
    queue: &PeerQueue,
    clock: impl Fn() -> u64,
    connections: impl Fn() -> PeerConnections<'a>,
) {
    let mut backoff = Backoff::default();
    while catch_unwind(AssertUnwindSafe(|| rounds(queue, &clock, connections()))).is_err() {
        queue.set_takes_states(false);
        queue.lost(true, clock());
        queue.counters.error("internal error: a panic was caught");
        queue.counters.set_state(PeerState::BackingOff);
        backoff.fail(Instant::now(), PRESENT);
        while !backoff.due(Instant::now()) {
            if queue.wait(backoff.until()) == Wake::Stop {
                break;
            }
        }
    }
    queue.set_takes_states(false);
    queue.counters.set_state(PeerState::Stopped);
}

fn rounds(queue: &PeerQueue, clock: &impl Fn() -> u64, mut connections: PeerConnections) {
    while queue.wait(connections.retry()) == Wake::Round {
        let ready = connections.prepare();
        if connections.take_stranger() {
            queue.stranger(clock());
        }
        queue.set_takes_states(connections.accepts());
        if ready {
            round(queue, clock, &mut connections);
            queue.set_takes_states(connections.accepts());
        }
    }
}

/// Sends everything that waits, then says so. Where nothing would be taken, says only that
/// we are alive.
fn round(queue: &PeerQueue, clock: &impl Fn() -> u64, connections: &mut PeerConnections) {
    let rests = !connections.may_take_states();
    let batch = if rests { queue.take_nothing() } else { queue.take() };
    let failed = if rests { Vec::new() } else { connections.deliver(batch.states) };
    queue.pool.give(connections.done());
    let clean = !rests && failed.is_empty();
    queue.give_back(failed);
    let stranger = connections.take_stranger();
    let answered = connections.heartbeat(batch.completes && !stranger);
    if stranger | connections.take_stranger() {
        return queue.stranger(clock());
    }
    if clean && answered {
        if batch.completes {
            queue.completed(batch.losses);
        }
        // Last: who sees the round counted finds what it has brought about.
        add(&queue.counters.rounds, 1);
    }
}
