//! `CL.GIVE`.

use crate::buckets::clock;
use crate::calls::{DAY_US, five};
use claw_testkit::{Server, call_bytes, fields, int, run};

#[test]
fn give_returns_tokens_up_to_the_capacity() {
    let server = Server::start();
    let conn = &mut server.connection();
    // Held, given back, answer, held then.
    let rows = [
        ("0", "3", [3, 10, 3, 0, -1], "3"),
        ("0", "", [1, 10, 1, 0, -1], "1"),
        ("0", "0", [0, 10, 0, 0, -1], "0"),
        ("7", "3", [3, 10, 10, 0, 0], "10"),
        ("8", "5", [2, 10, 10, 0, 0], "10"),
        ("9.5", "5", [0, 10, 10, 0, 0], "10"),
        ("8.5", "5", [1, 10, 10, 0, 0], "10"),
        ("8.5", "1", [1, 10, 9, 0, -1], "9.5"),
        ("10", "5", [0, 10, 10, 0, 0], "10"),
        ("0", "1000000000000", [10, 10, 10, 0, 0], "10"),
        ("999", "1", [0, 10, 10, 0, 0], "999"),
    ];
    for (held, given, expected, left) in rows {
        let now = clock(conn);
        run(conn, &["DEL k", &format!("HSET k tokens {held} timestamp {now}")]);
        call_bytes(conn, &[b"HSET", b"k", b"policy", b"10 0/1000"]).unwrap();
        assert_eq!(five(conn, &format!("CL.GIVE k {given}")), expected, "{held} + {given}");
        assert_eq!(fields(conn, "k")["tokens"], left, "{held} + {given}");
    }
    // A missing bucket is full.
    assert_eq!(five(conn, "CL.GIVE none 5"), [0, 1000, 1000, 0, 0]);
    assert_eq!(int(conn, "EXISTS none"), 0);
    // The policy is the one that the bucket was left with, and stays.
    run(conn, &["CL.TAKE own 5 CAPACITY 7 REFILL 0"]);
    assert_eq!(five(conn, "CL.GIVE own 3"), [3, 7, 5, 0, -1]);
    assert_eq!(five(conn, "CL.GIVE own 3"), [2, 7, 7, 0, 0]);
    assert_eq!(fields(conn, "own")["policy"], "7 0/1000");
    // Credit comes first: what has refilled meanwhile leaves no room.
    let old = clock(conn) - DAY_US;
    run(conn, &[&format!("HSET idle tokens 0 timestamp {old}")]);
    assert_eq!(five(conn, "CL.GIVE idle 3"), [0, 1000, 1000, 0, 0]);
}
