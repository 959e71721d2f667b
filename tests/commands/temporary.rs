//! `CL.POLICY key .. FOR ms`: a pin that ends by itself.

use crate::buckets::{clock, slow_server};
use crate::calls::five;
use claw_testkit::{Server, ask, digest, error, eventually, fields, int, run, wait_for_offset};
use redis::{Connection, Value};
use std::collections::HashMap;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_millis(5);

/// Capacity, where the policy comes from, and how long the pin holds.
fn policy(conn: &mut Connection, line: &str) -> (i64, String, i64) {
    let mut map: HashMap<String, Value> = ask(conn, line);
    let mut get = |name: &str| map.remove(name).unwrap();
    let number = |value| redis::from_redis_value(value).unwrap();
    let source = redis::from_redis_value(get("source")).unwrap();
    (number(get("capacity")), source, number(get("pin_remaining_ms")))
}

fn until_it_ends(conn: &mut Connection, key: &str) {
    eventually(PATIENCE, TICK, "the pin to end", || {
        policy(conn, &format!("CL.POLICY_RO {key}")).1 != "pin"
    });
}

/// Over every kind of policy, which is there again when it has ended; nothing is written then
/// until somebody writes.
#[test]
fn what_was_there_returns_by_itself() {
    let server = Server::start();
    let conn = &mut server.connection();
    // What is done before, and the capacity and source that return.
    let rows = [
        ("PING", 1_000, "default"),
        ("CL.TAKE k 1 CAPACITY 50 REFILL 5", 50, "bucket"),
        ("CL.POLICY k CAPACITY 70 REFILL 7", 70, "pin"),
        ("CL.POLICY k WEIGHT 3", 1_000, "default"),
        ("HSET k tokens 3 policy 9~1/1000", 9, "bucket"),
    ];
    for (before, capacity, source) in rows {
        run(conn, &["FLUSHALL"]);
        let words: Vec<String> = before.split(' ').map(|word| word.replace('~', " ")).collect();
        redis::Cmd::new().arg(words).exec(conn).unwrap();
        let pinned = policy(conn, "CL.POLICY k CAPACITY 10 REFILL 1 FOR 400");
        assert_eq!(pinned, (10, "pin".into(), 400), "over {before}");
        assert_eq!(five(conn, "CL.PEEK k 1 CAPACITY 99 REFILL 99")[1], 10, "calls yield");
        let left = policy(conn, "CL.POLICY_RO k").2;
        assert!((1..=400).contains(&left), "{left}");
        let written = digest(conn);
        let after = if source == "pin" { -1 } else { 0 };
        eventually(PATIENCE, TICK, "the pin to end", || {
            policy(conn, "CL.POLICY_RO k") == (capacity, source.into(), after)
        });
        assert_eq!(five(conn, "CL.PEEK k")[1], capacity, "over {before}");
        assert_eq!(digest(conn), written, "time alone writes nothing");
        assert!(fields(conn, "k").contains_key("temporary"));
        // It goes with the next write.
        assert_eq!(five(conn, "CL.TAKE k PARTIAL")[0], 1, "over {before}");
        assert!(!fields(conn, "k").contains_key("temporary"), "over {before}");
    }
}

/// Policies of calls are remembered beneath it, and written only when they are others.
#[test]
fn calls_are_remembered_beneath() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["CL.POLICY k CAPACITY 10 REFILL 0 FOR 60000"]);
    run(conn, &["CL.TAKE k 10"]);
    // Refused, and all the same noted.
    let refused = "CL.TAKE k 1 CAPACITY 50 REFILL 5";
    assert_eq!(five(conn, refused)[..3], [0, 10, 0]);
    assert_eq!(fields(conn, "k")["policy"], "50 5/1000");
    let written = digest(conn);
    assert_eq!(five(conn, refused)[..3], [0, 10, 0]);
    assert_eq!(digest(conn), written, "the same once more writes nothing");
    // Ended on purpose, the call's policy is gone with it.
    assert_eq!(policy(conn, "CL.POLICY k RESET"), (1_000, "default".into(), 0));
    assert_eq!(fields(conn, "k").len(), 2, "tokens and timestamp");
}

/// A later pin replaces it, for a time or for good; parts that are left out are those in force, or
/// for a permanent pin those beneath.
#[test]
fn pins_replace_each_other() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["CL.TAKE k 1 CAPACITY 50 REFILL 5"]);
    run(conn, &["CL.POLICY k CAPACITY 10 REFILL 1 FOR 60000"]);
    assert_eq!(policy(conn, "CL.POLICY k CAPACITY 20 FOR 30000"), (20, "pin".into(), 30_000));
    let temporary = fields(conn, "k")["temporary"].clone();
    assert!(temporary.starts_with("20 1/1000 until ") && temporary.ends_with(" version 2"));
    // The same again is a renewal.
    run(conn, &["CL.POLICY k CAPACITY 20 FOR 30000"]);
    assert!(fields(conn, "k")["temporary"].ends_with(" version 3"));
    assert_eq!(policy(conn, "CL.POLICY k CAPACITY 30"), (30, "pin".into(), -1));
    assert_eq!(fields(conn, "k")["policy"], "30 5/1000 pinned 4");
    assert!(!fields(conn, "k").contains_key("temporary"));
}

/// A block says when it ends; the wait is enough, across the end.
#[test]
fn a_block_says_when_it_ends() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["CL.POLICY k CAPACITY 0 FOR 500"]);
    let refused = five(conn, "CL.TAKE k");
    assert_eq!(refused[..3], [0, 0, 0]);
    // Until its end, and until 5 a second have brought one.
    assert!((200..=700).contains(&refused[3]), "{refused:?}");
    let begun = clock(conn);
    let wait = u128::try_from(refused[3]).unwrap() * 1_000;
    eventually(PATIENCE, TICK, "the wait", || clock(conn) >= begun + wait);
    assert_eq!(five(conn, "CL.TAKE k")[0], 1);
}

/// The key outlives the pin and the way back to full, and then goes.
#[test]
fn the_key_outlives_the_pin() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["CL.TAKE k 1 CAPACITY 5 REFILL 5", "CL.POLICY k CAPACITY 5 REFILL 5 FOR 60000"]);
    assert!(int(conn, "PTTL k") >= 60_000);
    run(conn, &["FLUSHALL", "CL.POLICY k CAPACITY 5 REFILL 5 FOR 100"]);
    until_it_ends(conn, "k");
    eventually(Duration::from_secs(600), TICK, "the key to go", || {
        run(conn, &["CL.GIVE k 1000"]);
        int(conn, "EXISTS k") == 0 || (1..=5_000).contains(&int(conn, "PTTL k"))
    });
}

#[test]
fn it_is_replicated_and_reloaded_as_a_plain_write() {
    let server = slow_server().config("appendonly", "yes").config("appendfsync", "always").start();
    let replica = Server::replica_of(&server).without_module().start();
    let conn = &mut server.connection();
    run(conn, &["CL.POLICY k CAPACITY 10 REFILL 1 FOR 3600000", "CL.TAKE k 3"]);
    wait_for_offset(&server, &replica);
    let there = &mut replica.connection();
    assert_eq!(digest(there), digest(conn));
    assert_eq!(fields(there, "k"), fields(conn, "k"));
    let before = fields(conn, "k");
    let again = server.kill_9().start();
    let conn = &mut again.connection();
    assert_eq!(fields(conn, "k"), before);
    assert_eq!(five(conn, "CL.TAKE k 9")[1], 10);
}

#[test]
fn what_is_refused_changes_nothing() {
    let server = Server::start();
    let conn = &mut server.connection();
    let duration = "ERR FOR must be an integer from 1 to 31622400000 milliseconds";
    let rows = [
        ("CL.POLICY k FOR 1000", "ERR option 'FOR' needs 'CAPACITY' or 'REFILL'"),
        ("CL.POLICY k WEIGHT 2 FOR 1000", "ERR option 'FOR' needs 'CAPACITY' or 'REFILL'"),
        (
            "CL.POLICY k CAPACITY 5 FOR 1000 WEIGHT 2",
            "ERR option 'FOR' cannot be combined with 'WEIGHT'",
        ),
        ("CL.POLICY k CAPACITY 5 FOR", "ERR option 'FOR' needs a value"),
        ("CL.POLICY k CAPACITY 5 FOR 1 FOR 2", "ERR option 'FOR' is given twice"),
        ("CL.POLICY k CAPACITY 5 FOR 0", duration),
        ("CL.POLICY k CAPACITY 5 FOR 31622400001", duration),
        ("CL.POLICY k CAPACITY 5 FOR soon", duration),
        ("CL.POLICY k RESET FOR 5", "ERR option 'RESET' stands alone"),
        ("CL.TAKE k 1 FOR 5", "ERR unknown option 'FOR'"),
    ];
    for (line, expected) in rows {
        assert_eq!(error(conn, line), expected, "`{line}`");
        assert_eq!(int(conn, "EXISTS k"), 0, "`{line}`");
    }
    run(conn, &["HSET k tokens 5 temporary soon"]);
    let expected = "ERR bucket 'k': field 'temporary' holds 'soon', which is not \
                    'capacity refill/interval until time version number' within the bounds";
    assert_eq!(error(conn, "CL.TAKE k"), expected);
    assert_eq!(fields(conn, "k")["temporary"], "soon");
}

/// An expiry that the module has set goes with what it was set for: it ends no pin and begins no
/// quota anew.
#[test]
fn no_pin_and_no_quota_goes_by_an_old_expiry() {
    let server = Server::start();
    let conn = &mut server.connection();
    let blocked = "CL.TAKE k 1 CAPACITY 0 REFILL 0 INTERVAL 60000";
    let full = "CL.TAKE k 1 CAPACITY 5 REFILL 1000";
    let pinned = "CL.POLICY k CAPACITY 100 REFILL 0 FOR 60000";
    // What is done first, then, and whether the key still has an expiry.
    let rows = [
        (blocked, "CL.POLICY k CAPACITY 0 REFILL 0", -1..=-1),
        (blocked, "CL.POLICY k CAPACITY 0 REFILL 1 FOR 3600000", 3_600_000..=i64::MAX),
        (blocked, "CL.TAKE k 1 CAPACITY 5 REFILL 0", -1..=-1),
        (full, "CL.TAKE k 6 CAPACITY 5 REFILL 0", -1..=-1),
        (full, "CL.SETTLE k 1 0 CAPACITY 5 REFILL 0", -1..=-1),
        (full, "CL.POLICY k CAPACITY 3 REFILL 0", -1..=-1),
        (pinned, "CL.SETTLE k 0 0 CAPACITY 100 REFILL 0", -1..=-1),
    ];
    for (first, then, expected) in rows {
        run(conn, &["FLUSHALL", first]);
        assert!(int(conn, "PTTL k") > 0, "`{first}`");
        run(conn, &[then]);
        let left = int(conn, "PTTL k");
        assert!(expected.contains(&left), "`{first}`, `{then}`: {left}");
    }
}

/// At its end a pin pins no more: a wait that is as long is not enough.
#[test]
fn a_wait_as_long_as_the_pin_is_past_it() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["CL.TAKE k 5 CAPACITY 5 REFILL 1"]);
    run(conn, &["MULTI", "CL.POLICY k CAPACITY 100 REFILL 10 FOR 1000", "CL.TAKE k 10"]);
    let replies: Vec<Value> = ask(conn, "EXEC");
    let refused: Vec<i64> = redis::from_redis_value(replies[1].clone()).unwrap();
    // 10 tokens are there when the pin ends, and cut at 5 in that instant.
    assert_eq!(refused[..2], [0, 100]);
    assert!(refused[3] == -1 || refused[3] < 1_000, "{refused:?}");
}
