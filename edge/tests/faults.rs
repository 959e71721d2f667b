//! What is decided when Redis is gone, hangs, is slow or refuses: by the limit, in time, and
//! never twice.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod common;

use std::time::Duration;

use claw_testkit::eventually;
use common::{Edge, PATIENCE, TICK, send_signal, server};

const SIGSTOP: i32 = 19;
const SIGCONT: i32 = 18;
/// What a busy machine may add to a time that the contract gives.
const BUSY: Duration = Duration::from_millis(500);

/// How a limit of one token decides about two requests with Redis, and about two without.
fn edge(url: &str) -> Edge {
    Edge::limiting(url, 1, 1).start()
}

fn opened(edge: &Edge) -> u64 {
    edge.metric("operator_redis_circuits_open", "")
}

/// Sends ratings until no worker asks Redis any more.
fn wait_until_given_up(edge: &Edge) {
    eventually(PATIENCE, TICK, "all circuits to open", || {
        edge.rate("anybody");
        opened(edge) == edge_workers(edge)
    });
}

fn edge_workers(_: &Edge) -> u64 {
    std::thread::available_parallelism().unwrap().get() as u64
}

fn wait_until_it_decides(edge: &Edge) {
    eventually(PATIENCE, TICK, "Redis to decide again", || opened(edge) == 0);
}

#[test]
fn a_killed_server_is_given_up_and_taken_up_again() {
    let mut server = server();
    let edge = edge(&server.url());
    let statuses = |user: &str| [edge.rate(user).status, edge.rate(user).status];
    assert_eq!(statuses("ann"), [200, 429], "with Redis");

    server.crash();
    wait_until_given_up(&edge);
    let blind = edge.metric("operator_blind_decisions_total", r#"decided="allowed""#);
    assert_eq!(statuses("bob"), [200, 200], "without Redis, a limit that fails open");
    let metric = edge.metric("operator_blind_decisions_total", r#"decided="allowed""#);
    assert_eq!(metric, blind + 2);
    assert_eq!(edge.logged("Redis cannot be asked"), 1, "once for all workers:\n{}", edge.log());

    let _server = server.restart();
    wait_until_it_decides(&edge);
    assert_eq!(statuses("cid"), [200, 429], "with Redis again");
    assert_eq!(edge.logged("Redis answers again"), 1, "{}", edge.log());
}

#[test]
fn a_stopped_server_is_waited_for_no_longer_than_the_deadline() {
    let server = server();
    let edge = edge(&server.url());
    assert_eq!(edge.rate("ann").status, 200);

    send_signal(server.pid(), SIGSTOP);
    let late = edge.rate("ann");
    assert_eq!(late.status, 200, "it fails open");
    assert!(late.took >= Duration::from_millis(50), "{:?}: it did not wait", late.took);
    assert!(late.took < Duration::from_millis(70) + BUSY, "{:?}", late.took);

    wait_until_given_up(&edge);
    let deadlines = edge.metric("operator_redis_faults_total", r#"kind="deadline""#);
    for _ in 0..20 {
        let response = edge.rate("ann");
        assert!(response.took < Duration::from_millis(2) + BUSY, "{:?}", response.took);
    }
    let metric = edge.metric("operator_redis_faults_total", r#"kind="deadline""#);
    assert_eq!(metric, deadlines, "nobody waits any more");

    send_signal(server.pid(), SIGCONT);
    wait_until_it_decides(&edge);
    assert_eq!(edge.rate("ann").status, 429, "the token was taken before");
}
