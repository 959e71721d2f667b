//! A server with I/O threads: clients are read and answered by several threads,
//! commands still run one by one, so a bucket grants what it holds and no more.
#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use claw_testkit::{Server, ask, digest, drain, info_field, wait_for_offset};

const CLIENTS: i64 = 16;
const ROUNDS: i64 = 20;
const PIPELINED: i64 = 25;
const CAPACITY: i64 = 2_500;

#[test]
fn a_bucket_is_exact_with_io_threads() {
    let server = Server::builder().config("io-threads", "4").start();
    let replica = Server::replica_of(&server).config("io-threads", "4").start();
    let mut conn = server.connection();
    assert_eq!(ask::<Vec<String>>(&mut conn, "CONFIG GET io-threads"), ["io-threads", "4"]);

    let connections = (0..CLIENTS).map(|_| server.connection());
    let granted = drain(connections, CAPACITY, ROUNDS, PIPELINED);
    assert_eq!(granted, CAPACITY);
    let refused = info_field(&mut conn, "claw", "claw_refused").unwrap();
    assert_eq!(refused, (CLIENTS * ROUNDS * PIPELINED - CAPACITY).to_string());

    wait_for_offset(&server, &replica);
    assert_eq!(digest(&mut conn), digest(&mut replica.connection()));
    assert_eq!(server.warnings(), Vec::<String>::new());
}
