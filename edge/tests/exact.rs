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

use common::{Edge, server};

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
fn two_limits_in_one_command_are_exact() {
    let settings = [("CAPACITY", "100000"), ("REFILL", "0")];
    let told = drain_through_two_edges(&settings);
    assert_eq!(told.granted, TOKENS);
}
