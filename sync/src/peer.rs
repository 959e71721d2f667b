//! The thread of one peer.

use crate::backoff::Backoff;
use crate::desk::{Desk, Wake};
use crate::link::Link;
use crate::status::{PeerState, add};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// Runs until the desk says stop. A panic, which would be a bug of ours or of a
/// library, costs the batch and a while, not the peer.
pub(crate) fn run<'a>(desk: &Desk, clock: impl Fn() -> u64, link: impl Fn() -> Link<'a>) {
    let mut backoff = Backoff::default();
    while catch_unwind(AssertUnwindSafe(|| rounds(desk, &clock, link()))).is_err() {
        desk.set_connected(false);
        desk.lost(true, clock());
        desk.board.error("internal error: a panic was caught");
        desk.board.set_state(PeerState::BackingOff);
        backoff.fail(Instant::now());
        while !backoff.due(Instant::now()) {
            if desk.wait(backoff.until()) == Wake::Stop {
                break;
            }
        }
    }
    desk.set_connected(false);
    desk.board.set_state(PeerState::Stopped);
}

fn rounds(desk: &Desk, clock: &impl Fn() -> u64, mut link: Link) {
    while desk.wait(link.retry()) == Wake::Round {
        let ready = link.prepare();
        if link.take_stranger() {
            desk.stranger(clock());
        }
        desk.set_connected(ready);
        if ready {
            round(desk, clock, &mut link);
            desk.set_connected(link.is_ready());
        }
    }
}

/// Sends everything that waits, then says so.
fn round(desk: &Desk, clock: &impl Fn() -> u64, link: &mut Link) {
    let batch = desk.take();
    let failed = link.deliver(batch.states);
    desk.spent.give(link.done());
    let clean = failed.is_empty();
    // What did not reach a node that is away is nothing that another one lacks.
    let others_have_all = failed.iter().all(|noted| !link.may_reach(noted.entry.key()));
    desk.give_back(failed);
    let stranger = link.take_stranger();
    let complete = batch.completes && others_have_all && !stranger;
    let answered = link.heartbeat(complete, batch.noted_until);
    if stranger | link.take_stranger() {
        return desk.stranger(clock());
    }
    if clean && answered {
        if batch.completes {
            desk.completed(batch.losses);
        }
        // Last: who sees the round counted finds what it has brought about.
        add(&desk.board.rounds, 1);
    }
}
