//! What noting costs: `cargo test --release -p claw-sync --test speed -- --ignored --nocapture`.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

mod common;

use claw_sync::Pusher;
use common::*;
use std::hint::black_box;
use std::time::{Duration, Instant};

#[test]
#[ignore = "measures, and asserts nothing about it"]
fn noting() {
    let server = plain();
    let mut config = config([server.url()]);
    config.interval = Duration::from_millis(50);
    let pusher = Pusher::start(config, Owner::new("PING")).unwrap();
    soon("a walk to be asked for", || pusher.needs_resend());
    pusher.resend_begins();
    pusher.resend_ends();
    // Bursts with pauses, as a server that also does other work would note.
    for (name, keys, burst) in [
        ("one key", 1, 5_000),
        ("1000 keys", 1_000, 5_000),
        ("all keys different, 100000 a second", 100_000, 5_000),
        ("all keys different, 400000 a second", 100_000, 20_000),
    ] {
        let keys: Vec<String> = (0..keys).map(|n| format!("token_bucket:user{n}")).collect();
        let mut keys = keys.iter().cycle();
        let mut costs: Vec<f64> = (0..40)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(50));
                let began = Instant::now();
                for key in keys.by_ref().take(burst) {
                    // As large as that of a bucket.
                    pusher.note(0, key.as_bytes(), black_box(&[&[7; 60], &[8; 80]]));
                }
                began.elapsed().as_secs_f64() * 1e9 / burst as f64
            })
            .collect();
        costs.sort_by(f64::total_cmp);
        println!("{name}: {:.0} ns a note, 9 of 10 below {:.0} ns", costs[20], costs[36]);
        soon("the backlog to empty", || pusher.status()[0].queued == 0);
    }
    let status = pusher.status().remove(0);
    assert_eq!(status.overruns, 0);
    println!("{} states sent, round trip {:?}", status.states_sent, status.round_trip);
    assert!(pusher.stop(PATIENCE).is_ok());
}
