//! Two regions in two containers on one network, which share their limits.

use crate::node::{Node, PATIENCE, TICK, image, unique};
use claw_testkit::{ask, eventually, info_field};
use redis::{Connection, Value};
use std::collections::BTreeMap;
use testcontainers::ImageExt;

const REGIONS: [&str; 2] = ["eu", "us"];
const POLICY: &str = "CAPACITY 1000 REFILL 0";

pub fn two_keep_one_limit(server: &str) {
    two_on([server, server]);
}

pub fn two_on(servers: [&str; 2]) {
    let (network, hosts) = (unique("network"), REGIONS.map(unique));
    let start = |n: usize| {
        let peer = format!("redis://{}:6379", hosts[1 - n]);
        let directives = ["--claw.replica-id", REGIONS[n], "--claw.peers", &peer];
        Node::run(image(servers[n]), &directives, |request| {
            request.with_network(&network).with_container_name(&hosts[n])
        })
    };
    let nodes = [start(0), start(1)];
    let mut conns = [nodes[0].connection(), nodes[1].connection()];
    for (conn, other) in conns.iter_mut().zip([REGIONS[1], REGIONS[0]]) {
        eventually(PATIENCE, TICK, "the peer to be connected", || {
            let peer = peer(conn);
            peer["state"] == "connected" && peer["replica_id"] == other && peer["lacking"] == "no"
        });
    }

    // 1 and 2 tokens in turn, and 50 given back in one of them.
    for n in 0..200 {
        let conn = &mut conns[n % 2];
        let taken: Vec<i64> = ask(conn, &format!("CL.TAKE k {} {POLICY}", n % 2 + 1));
        assert!(taken[0] > 0, "take {n}: {taken:?}");
    }
    let given: Vec<i64> = ask(&mut conns[1], "CL.GIVE k 50");
    assert_eq!(given[0], 50);
    agree(&mut conns, "750");

    // What one of them takes, the other does not have.
    let taken: Vec<i64> = ask(&mut conns[0], &format!("CL.TAKE k 750 {POLICY}"));
    assert_eq!(taken[..3], [750, 1000, 0]);
    agree(&mut conns, "0");
    for conn in &mut conns {
        let taken: Vec<i64> = ask(conn, &format!("CL.TAKE k 1 {POLICY}"));
        assert_eq!(taken[..3], [0, 1000, 0]);
        let refused = info_field(conn, "claw", "claw_sync_states_refused");
        assert_eq!(refused.as_deref(), Some("0"));
    }
}

fn peer(conn: &mut Connection) -> BTreeMap<String, String> {
    let mut status: BTreeMap<String, Value> = ask(conn, "CL.SYNC STATUS");
    let peers = status.remove("peers").expect("peers");
    let peers: Vec<BTreeMap<String, String>> = redis::from_redis_value(peers).unwrap();
    peers.into_iter().next().expect("one peer")
}

fn agree(conns: &mut [Connection; 2], tokens: &str) {
    let what = format!("{tokens} tokens in both regions");
    eventually(PATIENCE, TICK, &what, || {
        conns
            .iter_mut()
            .all(|conn| ask::<Option<String>>(conn, "HGET k tokens").as_deref() == Some(tokens))
    });
}
