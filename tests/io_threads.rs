//! A server with I/O threads: clients are read and answered by several threads,
//! commands still run one by one, so a bucket grants what it holds and no more.
#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use claw_testkit::{Server, ask, digest, info_field, wait_for_offset};
use std::thread;

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

    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut conn = server.connection();
            let mut take = redis::cmd("CL.TAKE");
            take.arg(&["shared", "1", "CAPACITY", &CAPACITY.to_string(), "REFILL", "0"]);
            thread::spawn(move || -> i64 {
                let mut granted = 0;
                for _ in 0..ROUNDS {
                    let mut pipe = redis::pipe();
                    (0..PIPELINED).for_each(|_| _ = pipe.add_command(take.clone()));
                    let answers: Vec<Vec<i64>> = pipe.query(&mut conn).unwrap();
                    granted += answers.iter().filter_map(|answer| answer.first()).sum::<i64>();
                }
                granted
            })
        })
        .collect();
    let granted: i64 = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert_eq!(granted, CAPACITY);
    let refused = info_field(&mut conn, "claw", "claw_refused").unwrap();
    assert_eq!(refused, (CLIENTS * ROUNDS * PIPELINED - CAPACITY).to_string());

    wait_for_offset(&server, &replica);
    assert_eq!(digest(&mut conn), digest(&mut replica.connection()));
    assert_eq!(server.warnings(), Vec::<String>::new());
}
