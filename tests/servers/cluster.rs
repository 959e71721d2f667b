//! Cluster mode, on one node with all slots.

use crate::node::{Node, PATIENCE, TICK};
use claw_testkit::{ask, error, eventually, run};
use redis::Connection;

pub fn keys_have_slots(server: &str) {
    let node = Node::start(server, &["--cluster-enabled", "yes"]);
    let conn = &mut node.connection();
    assert!(error(conn, "CL.TAKE a").starts_with("CLUSTERDOWN "), "no slots yet");
    all_slots(conn);

    let taken: Vec<i64> = ask(conn, "CL.TAKE {u}a 2 CAPACITY 5 REFILL 0");
    assert_eq!(taken[..3], [2, 5, 3]);
    run(conn, &["CL.TAKEALL 2 {u}a {u}b CAPACITY 5 REFILL 0", "CL.MERGE {u}c FROM 1 {u}a"]);
    let left: String = ask(conn, "HGET {u}a tokens");
    assert_eq!(left, "2");
    for line in ["CL.TAKEALL 2 a b", "CL.MERGE a FROM 1 b"] {
        assert!(error(conn, line).starts_with("CROSSSLOT "), "{line}");
    }
}

/// Gives a node all slots, and waits until it serves them.
pub fn all_slots(conn: &mut Connection) {
    run(conn, &["CLUSTER ADDSLOTSRANGE 0 16383"]);
    eventually(PATIENCE, TICK, "the cluster to be up", || {
        ask::<String>(conn, "CLUSTER INFO").contains("cluster_state:ok")
    });
}
