//! Many clients at one bucket.

use redis::Connection;
use std::thread;

/// Takes single tokens from `shared`, a bucket of `capacity` tokens that never
/// refills, over every connection at once: `rounds` times `pipelined` calls in a row.
/// Returns how many were granted.
///
/// # Panics
///
/// When a call fails.
pub fn drain(
    connections: impl IntoIterator<Item = Connection>,
    capacity: i64,
    rounds: i64,
    pipelined: i64,
) -> i64 {
    let client = |mut conn: Connection| {
        let mut take = redis::cmd("CL.TAKE");
        take.arg(&["shared", "1", "CAPACITY", &capacity.to_string(), "REFILL", "0"]);
        thread::spawn(move || -> i64 {
            let mut granted = 0;
            for _ in 0..rounds {
                let mut pipe = redis::pipe();
                (0..pipelined).for_each(|_| _ = pipe.add_command(take.clone()));
                let answers: Vec<Vec<i64>> = pipe.query(&mut conn).unwrap();
                granted += answers.iter().map(|answer| answer[0]).sum::<i64>();
            }
            granted
        })
    };
    let clients: Vec<_> = connections.into_iter().map(client).collect();
    clients.into_iter().map(|client| client.join().unwrap()).sum()
}
