//! A primary and a replica in two containers on one network.

use crate::node::{Node, PATIENCE, TICK, image, unique};
use crate::traffic;
use claw_testkit::{ask, digest, eventually, info_field, run};
use redis::Connection;
use testcontainers::ImageExt;

const DIRECTIVES: [&str; 2] = ["--enable-debug-command", "yes"];

pub fn a_replica_has_the_same_data_and_takes_over(server: &str) {
    let (network, name) = (unique("network"), unique("primary"));
    let primary = Node::run(image(server), &DIRECTIVES, |request| {
        request.with_network(&network).with_container_name(&name)
    });
    let writer = &mut primary.connection();
    // Some before the replica is there, which come with its first copy of all data.
    traffic::run(writer, 0);
    let follow = ["--replicaof", &name, "6379"];
    let replica = Node::run(image(server), &[&DIRECTIVES[..], &follow].concat(), |request| {
        request.with_network(&network)
    });
    let reader = &mut replica.connection();
    for round in 1..4 {
        traffic::run(writer, round);
    }
    run(writer, &["CL.TAKE shared 6 CAPACITY 10 REFILL 0"]);
    wait_for_offset(writer, reader);
    assert_eq!(digest(writer), digest(reader));
    let looked: Vec<i64> = ask(reader, "CL.PEEK shared 4 CAPACITY 10 REFILL 0");
    assert_eq!(looked[..3], [4, 10, 0], "a replica answers CL.PEEK");

    primary.container().stop_with_timeout(Some(0)).unwrap();
    run(reader, &["REPLICAOF NO ONE"]);
    let taken: Vec<i64> = ask(reader, "CL.TAKE shared 4 CAPACITY 10 REFILL 0");
    assert_eq!(taken[..3], [4, 10, 0]);
    let taken: Vec<i64> = ask(reader, "CL.TAKE shared 1 CAPACITY 10 REFILL 0");
    assert_eq!(taken[..3], [0, 10, 0], "no token is granted twice");
}

fn wait_for_offset(primary: &mut Connection, replica: &mut Connection) {
    let offset = |conn: &mut Connection, field: &str| -> u64 {
        info_field(conn, "replication", field).and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    let target = offset(primary, "master_repl_offset");
    eventually(PATIENCE, TICK, "the replica to have all data", || {
        let link = info_field(replica, "replication", "master_link_status");
        link.as_deref() == Some("up") && offset(replica, "slave_repl_offset") >= target
    });
}
