//! Redis as it is run: with TLS and users, behind sentinels, as a cluster.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use claw_testkit::{Cluster, Server, ask, eventually, free_port, run, slot_of, wait_for_offset};
use common::redis::{Encrypted, Sentinel};
use common::{Edge, PATIENCE, TICK, server};

fn left(edge: &Edge, user: &str) -> Option<i64> {
    edge.rate(user).number("ratelimit", "r=")
}

#[test]
fn tls_is_trusted_only_when_the_authority_is_named() {
    let server = Encrypted::start();
    let url = format!("rediss://{}", server.address());
    let trusting = Edge::limiting(&url, 100, 0).env("REDIS_CA_FILE", server.authority()).start();
    assert_eq!(left(&trusting, "ann"), Some(99));

    // A machine that is busy needs longer for a handshake than a decision usually may take.
    let other = Edge::limiting(&url, 100, 0).env("DECISION_TIMEOUT", "5s").start();
    eventually(PATIENCE, TICK, "the certificate to be refused", || {
        other.rate("ann");
        other.logged("UnknownIssuer") == 1
    });
    assert_eq!(left(&other, "ann"), None, "nothing was asked of it");
    assert_eq!(left(&trusting, "ann"), Some(98));

    let mut broken = Edge::limiting(&url, 100, 0).env("REDIS_CA_FILE", server.key()).launch();
    assert!(!broken.wait().success());
    assert_eq!(broken.logged("no certificate in it"), 1, "{}", broken.log());
}

#[test]
fn a_user_needs_no_more_than_the_docs_say() {
    let server = server();
    let page = include_str!("../../docs/edge/failures.md");
    let rules = page.split("ACL SETUSER edge ").find_map(|rest| rest.strip_prefix("on >password "));
    let rules = format!("on >secret {}", rules.unwrap().split("\n```").next().unwrap());
    run(&mut server.connection(), &[&format!("ACL SETUSER edge {rules}")]);
    let url = format!("redis://edge:secret@127.0.0.1:{}/0", server.port());
    for local_refusals in ["false", "true"] {
        let edge = Edge::limiting(&url, 2, 0)
            .env("LOCAL_REFUSALS", local_refusals)
            .env("CAPACITY", "1000000")
            .env("REFILL", "0")
            .start();
        run(&mut server.connection(), &["FLUSHALL"]);
        let statuses: Vec<u16> = (0..4).map(|_| edge.rate("ann").status).collect();
        assert_eq!(statuses, [200, 200, 429, 429], "{}", edge.log());
        let body = r#"{"user_id":"bob","item_id":"book","rating":4}"#;
        let rating = edge.client().request("POST", "/rating", body).unwrap();
        assert_eq!(rating.status, 200, "{}", edge.log());
        assert_eq!(edge.metric("operator_redis_up", ""), 1, "{}", edge.log());
        assert_eq!(edge.logged("NOPERM"), 0, "{}", edge.log());
    }
}

#[test]
fn a_failover_by_sentinels_is_followed() {
    let mut master = server();
    let replica = Server::replica_of(&master).start();
    let sentinel = Sentinel::start(&master);
    let edge = Edge::limiting(&sentinel.url(), 100, 0).env("WORKERS", "1").start();
    assert_eq!(left(&edge, "ann"), Some(99), "{}", edge.log());
    wait_for_offset(&master, &replica);

    master.crash();
    // Each worker finds it by itself: the first answer may be followed by none of another one.
    let mut told = None;
    eventually(PATIENCE, TICK, "the replica to decide", || {
        told = left(&edge, "ann");
        told.is_some()
    });
    assert_eq!(told, Some(98), "the replica knows what was taken");
}

/// The users `user:0`, `user:1` .. of whom the keys lie in the slots of `node`.
fn users_of(cluster: &Cluster, node: usize) -> impl Iterator<Item = String> {
    (0..)
        .map(|number| format!("user-{number}"))
        .filter(move |user| cluster.node_for_slot(slot_of(key(user))) == node)
}

fn key(user: &str) -> String {
    format!("token_bucket:{user}")
}

fn seeds(cluster: &Cluster) -> String {
    // One that is not there, and one that is.
    format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", free_port(), cluster.nodes()[1].port())
}

#[test]
fn a_cluster_decides_each_key_at_its_node_and_several_one_after_the_other() {
    let mut cluster =
        Cluster::start_with(3, 0, |node| node.config("cluster-require-full-coverage", "no"));
    let edge = Edge::limiting(&seeds(&cluster), 1, 0)
        .env("CAPACITY", "100")
        .env("REFILL", "0")
        .env("DECISION_TIMEOUT", "2s")
        .start();
    let users: Vec<String> = (0..3).map(|node| users_of(&cluster, node).next().unwrap()).collect();
    // Whether the service's bucket and the user's are at one node or not.
    for user in &users {
        assert_eq!(edge.rate(user).status, 200, "{user}: {}", edge.log());
        assert_eq!(edge.rate(user).status, 429, "{user}");
    }
    let service = cluster.node_for_slot(slot_of("claw:service"));
    let left: i64 = ask(&mut cluster.nodes()[service].connection(), "HGET claw:service tokens");
    assert_eq!(left, 97, "what was refused was given back");

    // What is said of the server is said of one node, and of which.
    let first = format!("127.0.0.1:{}", cluster.nodes()[cluster.node_for_slot(0)].port());
    assert_eq!(edge.metric("operator_redis_node_info", &format!(r#"node="{first}""#)), 1);
    let page = String::from_utf8(edge.ops("/admin").body).unwrap();
    assert!(page.contains(&format!("the node <strong>{first}</strong> of the cluster")), "{page}");

    let others: Vec<String> = (0..3).map(|node| users_of(&cluster, node).nth(1).unwrap()).collect();
    let dead = (0..3).find(|node| *node != service).unwrap();
    cluster.kill(dead);
    for node in (0..3).filter(|node| *node != dead) {
        assert_eq!(edge.rate(&others[node]).status, 200, "{node}");
        assert_eq!(edge.rate(&others[node]).status, 429, "{node} is alive");
    }
    let response = edge.rate(&users[dead]);
    assert_eq!(response.status, 200, "it fails open, though the bucket is empty");
}

#[test]
fn resharding_under_load_grants_no_token_twice_and_fails_no_decision() {
    const TOKENS: u64 = 3000;
    let cluster = Cluster::start(3, 0);
    let edges = [(); 2].map(|()| {
        Edge::limiting(&seeds(&cluster), TOKENS, 0).env("DECISION_TIMEOUT", "10s").start()
    });
    let user = users_of(&cluster, 0).next().unwrap();
    let slot = slot_of(key(&user));
    let (granted, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let moved_at = thread::scope(|scope| {
        for client in 0..16 {
            let (edge, user, granted, is_over) = (&edges[client % 2], &user, &granted, &is_over);
            scope.spawn(move || {
                let mut client = edge.client();
                while !is_over.load(Ordering::Relaxed) {
                    let response = client.rate(user);
                    if response.number("ratelimit", "r=").is_none() || response.status == 429 {
                        is_over.store(true, Ordering::Relaxed);
                        break;
                    }
                    granted.fetch_add(1, Ordering::Relaxed);
                    // Slow enough for the slot to move while there are tokens.
                    thread::sleep(Duration::from_millis(5));
                }
            });
        }
        // Twice, to a node that has never had it: what nodes tell each other of a slot that
        // comes back at once can be out of date.
        let mut moved_at = Vec::new();
        for (from, to) in [(0, 1), (1, 2)] {
            cluster.begin_migration(slot, from, to);
            cluster.move_keys(slot, from, to);
            cluster.finish_migration(slot, from, to);
            moved_at.push(granted.load(Ordering::Relaxed));
        }
        moved_at
    });
    assert!(moved_at[0] > 0 && moved_at[1] < TOKENS, "moved under load: {moved_at:?}");
    assert_eq!(granted.into_inner(), TOKENS);
    for edge in &edges {
        assert_eq!(edge.metric("operator_blind_decisions_total", ""), 0, "{}", edge.log());
    }
}
