//! The append-only file, in the container's volume.

use crate::node::{Node, PATIENCE, TICK};
use crate::traffic;
use claw_testkit::{ask, digest, eventually, info_field, run};

pub fn a_crash_loses_nothing_that_was_written(server: &str) {
    // redis.conf has it written every second; here nothing may be lost.
    let directives = ["--appendfsync", "always", "--enable-debug-command", "yes"];
    let node = Node::start(server, &directives);
    let conn = &mut node.connection();
    for round in 0..3 {
        traffic::run(conn, round);
    }
    run(conn, &["CL.TAKE shared 6 CAPACITY 10 REFILL 0"]);
    let before = digest(conn);

    node.crash_and_restart();
    let conn = &mut node.connection();
    assert_eq!(digest(conn), before);
    let taken: Vec<i64> = ask(conn, "CL.TAKE shared 5 CAPACITY 10 REFILL 0");
    assert_eq!(taken[..3], [0, 10, 4]);

    // Once more with a rewritten file, whose head is a snapshot.
    run(conn, &["CL.TAKE shared 3 CAPACITY 10 REFILL 0", "BGREWRITEAOF"]);
    eventually(PATIENCE, TICK, "the rewrite", || {
        ["aof_rewrite_in_progress", "aof_rewrite_scheduled"]
            .iter()
            .all(|field| info_field(conn, "persistence", field).as_deref() == Some("0"))
    });
    let before = digest(conn);
    node.crash_and_restart();
    assert_eq!(digest(&mut node.connection()), before);
}
