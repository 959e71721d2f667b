//! I/O threads read and write for clients; commands still run one by one.

use crate::node::Node;
use claw_testkit::{ask, drain, info_field};
use std::collections::BTreeMap;

const CLIENTS: i64 = 8;
const ROUNDS: i64 = 20;
const PIPELINED: i64 = 25;
const CAPACITY: i64 = 1_000;

pub fn a_bucket_is_exact_with_io_threads(server: &str) {
    let node = Node::start(server, &["--io-threads", "4"]);
    let conn = &mut node.connection();
    let set: BTreeMap<String, String> = ask(conn, "CONFIG GET io-threads");
    assert_eq!(set["io-threads"], "4");

    let connections = (0..CLIENTS).map(|_| node.connection());
    let granted = drain(connections, CAPACITY, ROUNDS, PIPELINED);
    assert_eq!(granted, CAPACITY);
    let refused = info_field(conn, "claw", "claw_refused").unwrap();
    assert_eq!(refused, (CLIENTS * ROUNDS * PIPELINED - CAPACITY).to_string());
}
