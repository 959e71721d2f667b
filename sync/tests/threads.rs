//! No thread is left. One test alone: it counts the threads of the process.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::*;
use std::fs;

/// The threads of pushers in this process.
fn threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .filter(|name| name.starts_with("claw-peer-") || name.trim() == "claw-sync")
        .count()
}

#[test]
fn no_thread_is_left() {
    let server = plain();
    let nobody = format!("redis://127.0.0.1:{}", claw_testkit::free_port());
    // An address that nobody has, see RFC 5737.
    let nowhere = "redis://192.0.2.1".to_owned();
    let (pusher, _) = start(config([server.url(), nobody, nowhere]));
    soon("four threads", || threads() == 4);
    await_status(&pusher, "the one to be connected", |all| all[0].rounds > 0);
    stop(pusher);
    // The system shows a thread a moment longer than it takes to join it.
    soon("no thread", || threads() == 0);

    // One that is dropped goes by itself.
    let (pusher, _) = start(config([server.url()]));
    soon("two threads", || threads() == 2);
    drop(pusher);
    soon("no thread", || threads() == 0);

    let (pusher, _) = start(config::<&str>([]));
    assert_eq!(threads(), 0);
    stop(pusher);
    let mut conn = server.connection();
    soon("no client but the one that asks", || {
        claw_testkit::info_field(&mut conn, "clients", "connected_clients").unwrap() == "1"
    });
}
