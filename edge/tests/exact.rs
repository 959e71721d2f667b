//! One limit, asked by many at once through several edges, grants what it has and no more.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod common;

use std::collections::HashSet;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use claw_testkit::{ask, eventually, run};
use common::{Edge, PATIENCE, TICK, server};

const SIGTERM: i32 = 15;

const CLIENTS: usize = 128;
const TOKENS: u64 = 1000;
/// Refusals in a row after which a client gives up.
const REFUSALS: usize = 4;

/// What the clients of two edges were told while the tokens of one bucket went.
struct Told {
    granted: u64,
    /// What was left after each grant.
    remaining: Vec<i64>,
    commands: u64,
    takes: u64,
}

fn drain_through_two_edges(settings: &[(&str, &str)]) -> Told {
    let server = server();
    let edges: Vec<Edge> = (0..2)
        .map(|_| {
            // A deadline that no busy machine passes: who is not answered is let through.
            let edge = Edge::limiting(&server.url(), TOKENS, 0).env("DECISION_TIMEOUT", "10s");
            settings.iter().fold(edge, |edge, (name, value)| edge.env(name, value)).start()
        })
        .collect();
    let remaining = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (edge, remaining) = (&edges[client % edges.len()], &remaining);
            scope.spawn(move || {
                let mut client = edge.client();
                let mut refusals = 0;
                while refusals < REFUSALS {
                    let response = client.rate("ann");
                    match response.status {
                        200 => {
                            refusals = 0;
                            let left = response.number("ratelimit", "r=").expect("a number");
                            remaining.lock().unwrap().push(left);
                        }
                        429 => refusals += 1,
                        status => panic!("status {status}"),
                    }
                }
            });
        }
    });
    let sum = |name| edges.iter().map(|edge| edge.metric(name, "")).sum();
    let remaining = remaining.into_inner().unwrap();
    assert_eq!(sum("operator_blind_decisions_total"), 0, "all were decided by Redis");
    Told {
        granted: remaining.len() as u64,
        remaining,
        commands: sum("operator_redis_commands_total"),
        takes: sum("operator_redis_takes_total"),
    }
}

#[test]
fn takes_that_share_a_command_are_exact_and_each_is_told_what_is_left() {
    let told = drain_through_two_edges(&[]);
    assert_eq!(told.granted, TOKENS);
    // Every grant left another number of tokens, from 999 down to 0.
    let distinct: HashSet<i64> = told.remaining.iter().copied().collect();
    assert_eq!(distinct.len() as u64, TOKENS, "each number once");
    assert_eq!(told.remaining.iter().min(), Some(&0));
    assert!(told.commands < told.takes / 2, "{} for {}", told.commands, told.takes);
}

#[test]
fn refusals_without_asking_are_exact() {
    let told = drain_through_two_edges(&[("LOCAL_REFUSALS", "true")]);
    assert_eq!(told.granted, TOKENS);
}

#[test]
fn a_refusal_is_repeated_without_asking_until_tokens_come_back() {
    let server = server();
    let edge = Edge::limiting(&server.url(), 1, 1)
        .env("LOCAL_REFUSALS", "true")
        .env("WORKERS", "1")
        .env("DECISION_TIMEOUT", "10s")
        .start();
    let mut client = edge.client();
    assert_eq!(client.rate("ann").status, 200);
    let refused_locally = || edge.metric("operator_redis_local_refusals_total", "");
    eventually(PATIENCE, TICK, "a refusal without asking", || {
        let response = client.rate("ann");
        assert_eq!(response.status, 429);
        let retry_after: u64 = response.field("retry-after").unwrap().parse().unwrap();
        assert!((3500..=3600).contains(&retry_after), "{retry_after}");
        refused_locally() > 0
    });
    for _ in 0..3 {
        run(&mut server.connection(), &["CL.GIVE token_bucket:ann 1"]);
        // The server tells of it. A second would be too long for that.
        let given = Instant::now();
        eventually(PATIENCE, TICK, "the token", || client.rate("ann").status == 200);
        assert!(given.elapsed() < Duration::from_millis(900), "{:?}", given.elapsed());
        assert_eq!(client.rate("ann").status, 429);
    }
}

#[test]
fn two_limits_in_one_command_are_exact() {
    let settings = [("CAPACITY", "100000"), ("REFILL", "0")];
    let told = drain_through_two_edges(&settings);
    assert_eq!(told.granted, TOKENS);
}

#[test]
fn leases_are_exact_and_given_back() {
    let told = drain_through_two_edges(&[("LEASE", "64")]);
    assert_eq!(told.granted, TOKENS);

    // What nobody wants goes back, by itself and at the end of the service.
    for ends in [false, true] {
        let server = server();
        let mut edge = Edge::limiting(&server.url(), 10_000, 0)
            .env("LEASE", "64")
            .env("DECISION_TIMEOUT", "10s")
            .env("DRAIN_NOTICE", "0ms")
            .start();
        let mut client = edge.client();
        let mut granted = 0;
        eventually(PATIENCE, TICK, "tokens to be taken ahead", || {
            granted += (0..20).filter(|_| client.rate("ann").status == 200).count() as u64;
            edge.metric("operator_redis_leased_total", "") > 0
        });
        drop(client);
        if ends {
            edge.signal(SIGTERM);
            assert!(edge.wait().success());
        }
        eventually(PATIENCE, TICK, "tokens to be given back", || {
            let left: u64 = ask(&mut server.connection(), "HGET token_bucket:ann tokens");
            left == 10_000 - granted
        });
    }
}
