//! What peers that take nothing cost. One test alone: it looks at the memory of the process.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::arithmetic_side_effects, clippy::print_stdout)]

mod common;

use claw_sync::{Config, Limits, Pusher};
use claw_testkit::run;
use common::*;
use std::time::Duration;

const KEYS: u64 = 1_000_000;
/// What may queue for a peer.
const BUDGET: u64 = 8 << 20;

/// The memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

/// Notes [`KEYS`] keys that were never noted before, and looks at the queues meanwhile.
/// Returns the most that queued for any peer.
fn note_many(pusher: &Pusher, name: &str) -> u64 {
    let mut most = 0;
    for n in 0..KEYS {
        pusher.note(0, format!("{name}:user{n}").as_bytes(), &[&[7; 60], &[8; 100]]);
        if n % 1_000 == 0 {
            pusher.flush();
            for peer in pusher.status() {
                assert_eq!(peer.queue_limit_bytes, BUDGET);
                assert!(peer.queued_bytes <= BUDGET, "{name}: {}", peer.queued_bytes);
                most = most.max(peer.queued_bytes);
            }
        }
    }
    most
}

/// A million keys, each with a state of 160 bytes, are 250 MB.
#[test]
fn what_queues_stays_within_its_budget() {
    let mut servers = [plain(), plain(), plain()];
    let long = Duration::from_secs(600);
    let budget = usize::try_from(BUDGET).unwrap();
    let limits = Limits { bytes: budget, io_timeout: long, ..Limits::default() };
    let urls: Vec<String> = servers.iter().map(|server| server.url()).collect();
    let (pusher, _) = start(Config { limits, ..config(urls) });
    settle(&pusher);
    let before = resident();
    servers[0].crash();
    signal(&servers[1], libc::SIGSTOP);
    run(&mut servers[2].connection(), &["CONFIG SET maxmemory 1"]);
    for life in ["first", "second", "third"] {
        let most = note_many(&pusher, life);
        // There is something to bound.
        assert!(life != "first" || most > BUDGET / 10, "{most}");
    }
    await_status(&pusher, "each to have overrun", |all| all.iter().all(|peer| peer.overruns > 0));
    let grown = resident().saturating_sub(before);
    // The notes, what is gathered, each queue and its tables.
    assert!(grown < 10 * BUDGET, "{grown} bytes");
    println!("{grown} bytes more than before");
    stop(pusher);
    signal(&servers[1], libc::SIGCONT);
}
