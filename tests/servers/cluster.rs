//! Cluster mode, on one node with all slots.

use crate::node::Node;
use claw_testkit::{ask, error, run, serve_all_slots};

pub fn keys_have_slots(server: &str) {
    let node = Node::start(server, &["--cluster-enabled", "yes"]);
    let conn = &mut node.connection();
    assert!(error(conn, "CL.TAKE a").starts_with("CLUSTERDOWN "), "no slots yet");
    serve_all_slots(conn);

    let taken: Vec<i64> = ask(conn, "CL.TAKE {u}a 2 CAPACITY 5 REFILL 0");
    assert_eq!(taken[..3], [2, 5, 3]);
    run(conn, &["CL.TAKEALL {u}a REFILL 5 AND {u}b 2", "CL.MERGE {u}c FROM 1 {u}a"]);
    let left: String = ask(conn, "HGET {u}a tokens");
    assert_eq!(left, "2");
    for line in ["CL.TAKEALL a AND b", "CL.MERGE a FROM 1 b"] {
        assert!(error(conn, line).starts_with("CROSSSLOT "), "{line}");
    }
}
