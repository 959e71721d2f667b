//! I/O threads read and write for clients; commands still run one by one.

use crate::node::Node;
use claw_testkit::{ask, info_field};
use std::collections::BTreeMap;
use std::thread;

const CLIENTS: i64 = 8;
const ROUNDS: i64 = 20;
const PIPELINED: i64 = 25;
const CAPACITY: i64 = 1_000;

pub fn a_bucket_is_exact_with_io_threads(server: &str) {
    let node = Node::start(server, &["--io-threads", "4"]);
    let conn = &mut node.connection();
    let set: BTreeMap<String, String> = ask(conn, "CONFIG GET io-threads");
    assert_eq!(set["io-threads"], "4");

    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut conn = node.connection();
            let mut take = redis::cmd("CL.TAKE");
            take.arg(&["shared", "1", "CAPACITY", &CAPACITY.to_string(), "REFILL", "0"]);
            thread::spawn(move || -> i64 {
                let mut granted = 0;
                for _ in 0..ROUNDS {
                    let mut pipe = redis::pipe();
                    (0..PIPELINED).for_each(|_| _ = pipe.add_command(take.clone()));
                    let answers: Vec<Vec<i64>> = pipe.query(&mut conn).unwrap();
                    granted += answers.iter().map(|answer| answer[0]).sum::<i64>();
                }
                granted
            })
        })
        .collect();
    let granted: i64 = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert_eq!(granted, CAPACITY);
    let refused = info_field(conn, "claw", "claw_refused").unwrap();
    assert_eq!(refused, (CLIENTS * ROUNDS * PIPELINED - CAPACITY).to_string());
}
