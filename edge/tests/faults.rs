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

use std::fs;
use std::time::{Duration, Instant};

use claw_testkit::{ask, eventually, run};
use common::relay::Relay;
use common::{Edge, PATIENCE, TICK, WORKERS, send_signal, server};

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
        opened(edge) == WORKERS
    });
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
    assert_eq!(
        edge.logged("limits fail open or closed"),
        1,
        "once for all workers:\n{}",
        edge.log()
    );

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

#[test]
fn callers_that_give_up_early_do_not_hide_that_redis_hangs() {
    let server = server();
    let edge = edge(&server.url());
    assert_eq!(edge.rate("ann").status, 200);
    send_signal(server.pid(), SIGSTOP);
    // As Envoy's do after 20 ms, if it is not told otherwise.
    eventually(PATIENCE, TICK, "all circuits to open", || {
        for _ in 0..10 {
            let mut client = edge.client();
            client.send(b"GET /auth HTTP/1.1\r\nhost: localhost\r\nx-user: ann\r\n\r\n").unwrap();
        }
        opened(&edge) == WORKERS
    });
    send_signal(server.pid(), SIGCONT);
    wait_until_it_decides(&edge);
}

#[test]
fn a_limit_that_fails_closed_refuses_without_redis() {
    let mut server = server();
    let edge = Edge::limiting(&server.url(), 5, 5).env("FAIL_CLOSED", "true").start();
    assert_eq!(edge.rate("ann").status, 200);
    server.crash();
    wait_until_given_up(&edge);
    let response = edge.rate("ann");
    assert_eq!(response.status, 503);
    assert_eq!(response.field("retry-after"), Some("1"), "soon, but nobody knows when");
    assert!(edge.metric("operator_blind_decisions_total", r#"decided="refused""#) > 0);
}

#[test]
fn a_service_that_starts_without_redis_decides_and_connects_later() {
    let server = server();
    let (port, url) = (server.port(), server.url());
    let data = server.stop();
    let edge = edge(&url);
    wait_until_given_up(&edge);
    assert_eq!([edge.rate("ann").status, edge.rate("ann").status], [200, 200]);
    let server = data.start();
    assert_eq!(server.port(), port);
    wait_until_it_decides(&edge);
    assert_eq!([edge.rate("bob").status, edge.rate("bob").status], [200, 429]);
}

#[test]
fn an_answer_that_is_late_is_never_asked_for_again_nor_taken_for_another() {
    let server = server();
    let relay = Relay::to(server.port());
    let edge = Edge::limiting(&relay.url(), 100, 0).env("WORKERS", "1").start();
    assert_eq!(edge.rate("ann").number("ratelimit", "r="), Some(99));

    relay.delay(Duration::from_millis(200));
    let late = edge.rate("bob");
    assert_eq!((late.status, late.number("ratelimit", "r=")), (200, None), "it was let through");
    relay.delay(Duration::ZERO);
    eventually(PATIENCE, TICK, "another connection", || {
        edge.rate("cid").number("ratelimit", "r=").is_some()
    });
    // The late answer said 99: had it been read now, this would say so too.
    assert_eq!(edge.rate("ann").number("ratelimit", "r="), Some(98));
    let left: i64 = ask(&mut server.connection(), "HGET token_bucket:bob tokens");
    assert_eq!(left, 99, "the take without an answer was done, and sent once");
}

#[test]
fn a_server_that_is_always_too_slow_is_given_up_and_not_asked() {
    let server = server();
    let relay = Relay::to(server.port());
    let edge = Edge::limiting(&relay.url(), 100, 0).env("WORKERS", "1").start();
    assert_eq!(edge.rate("ann").status, 200);
    relay.delay(Duration::from_millis(300));
    eventually(PATIENCE, TICK, "the circuit to open", || {
        edge.rate("ann");
        opened(&edge) == 1
    });
    let takes = relay.takes();
    for _ in 0..50 {
        assert_eq!(edge.rate("ann").status, 200);
    }
    assert_eq!(relay.takes(), takes, "nothing is asked of it");
    assert_eq!(edge.logged("Redis answers again"), 0, "a connection is no recovery");
    relay.delay(Duration::ZERO);
    wait_until_it_decides(&edge);
    assert!(edge.rate("ann").number("ratelimit", "r=").is_some());
}

#[test]
fn attempts_to_connect_become_rarer() {
    let server = server();
    let relay = Relay::to(server.port());
    let edge = Edge::limiting(&relay.url(), 100, 0).env("WORKERS", "1").start();
    send_signal(server.pid(), SIGSTOP);
    let started = Instant::now();
    eventually(PATIENCE, TICK, "the circuit to open", || {
        edge.rate("ann");
        opened(&edge) == 1
    });
    let first = relay.connections();
    // Each attempt waits for an answer, and the pauses between them double: 50, 100, 200 ms ..
    eventually(PATIENCE, TICK, "four attempts", || relay.connections() >= first + 4);
    let attempts = relay.connections();
    let ms = started.elapsed().as_millis();
    assert!(attempts < 12, "{attempts} connections within {ms} ms");
    assert!(ms >= (25 + 50 + 100), "{ms}: half of each pause is the least");
    send_signal(server.pid(), SIGCONT);
    wait_until_it_decides(&edge);
}

#[test]
fn an_error_of_the_server_is_no_reason_to_leave_it() {
    let server = server();
    let edge = edge(&server.url());
    run(&mut server.connection(), &["SET token_bucket:ann text"]);
    for _ in 0..5 {
        assert_eq!(edge.rate("ann").status, 200, "it fails open");
    }
    assert_eq!([edge.rate("bob").status, edge.rate("bob").status], [200, 429]);
    assert_eq!(edge.metric("operator_redis_faults_total", r#"kind="refused""#), 5);
    assert_eq!(opened(&edge), 0);
    assert_eq!(edge.logged("WRONGTYPE"), 1, "once:\n{}", edge.log());
}

#[test]
fn an_idle_connection_that_the_server_closes_costs_no_decision() {
    let server = server();
    let relay = Relay::to(server.port());
    let edge = Edge::limiting(&relay.url(), 100, 0).env("WORKERS", "1").start();
    assert_eq!(edge.rate("ann").number("ratelimit", "r="), Some(99));
    eventually(PATIENCE, TICK, "both connections", || relay.connections() >= 2);
    for round in 1..10 {
        let connections = relay.connections();
        let _: i64 = ask(&mut server.connection(), "CLIENT KILL TYPE normal SKIPME yes");
        // Made before anybody has to wait for it: the worker's, and that of work in the background.
        eventually(PATIENCE, TICK, "other connections", || relay.connections() >= connections + 2);
        let response = edge.rate("ann");
        assert_eq!(response.number("ratelimit", "r="), Some(99 - round), "round {round}");
    }
    assert_eq!(edge.metric("operator_blind_decisions_total", ""), 0);
    assert_eq!(opened(&edge), 0);
}

#[test]
fn a_password_is_read_again_at_each_connection() {
    let server = server();
    let mut control = server.connection();
    run(&mut control, &["ACL SETUSER edge on >old-secret ~* +@all"]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    fs::write(&file, "old-secret\n").unwrap();
    let url = format!("redis://edge@127.0.0.1:{}", server.port());
    let edge = Edge::limiting(&url, 100, 0).env("REDIS_PASSWORD_FILE", &file).start();
    assert_eq!(edge.rate("ann").number("ratelimit", "r="), Some(99));

    // The server's first, then the file's, as operators do; connections stay, and then go.
    run(&mut control, &["ACL SETUSER edge >new-secret <old-secret", "CLIENT KILL USER edge"]);
    wait_until_given_up(&edge);
    // A connection that was just being made may have been closed before: another reason.
    let told = |line: &&str| line.contains("ERROR") && line.contains("WRONGPASS");
    eventually(PATIENCE, TICK, "the reason", || edge.log().lines().filter(told).count() == 1);
    assert_eq!(edge.logged("limits fail"), 1, "{}", edge.log());
    fs::write(&file, "new-secret\n").unwrap();
    wait_until_it_decides(&edge);
    assert_eq!(edge.rate("ann").number("ratelimit", "r="), Some(98));
    for secret in ["old-secret", "new-secret"] {
        assert_eq!(edge.logged(secret), 0, "{}", edge.log());
        assert!(!String::from_utf8(edge.ops("/metrics").body).unwrap().contains(secret));
    }
}

#[test]
fn who_goes_away_leaves_nobody_waiting() {
    let server = server();
    let relay = Relay::to(server.port());
    let edge = Edge::limiting(&relay.url(), 100, 0)
        .env("WORKERS", "1")
        .env("DECISION_TIMEOUT", "10s")
        .start();
    assert_eq!(edge.rate("ann").number("ratelimit", "r="), Some(99));
    let takes = relay.takes();
    relay.delay(Duration::from_millis(300));
    let request = "GET /auth HTTP/1.1\r\nhost: test\r\nx-user: ann\r\n\r\n";
    let [mut leader, mut waiting, mut gone] = [(); 3].map(|()| edge.client());
    leader.send(request.as_bytes()).unwrap();
    eventually(PATIENCE, TICK, "the leader's take", || relay.takes() == takes + 1);
    for client in [&mut waiting, &mut gone] {
        client.send(request.as_bytes()).unwrap();
    }
    eventually(PATIENCE, TICK, "both to wait", || {
        edge.metric("operator_redis_coalesced_total", "") == 2
    });
    drop(leader);
    drop(gone);
    assert_eq!(waiting.response().unwrap().status, 200);
    // The leader's token is spent. Of him who left while he waited it depends on when that
    // was seen.
    let left = edge.rate("ann").number("ratelimit", "r=").unwrap();
    assert!((95..=96).contains(&left), "{left}");
}
