//! What belongs to a connection: its protocol and its database.

use claw_testkit::{Server, ask, cmd, error, ints, run};
use redis::Value;

#[test]
fn resp3_has_maps() {
    let server = Server::start();
    let conn = &mut server.connection_resp3();
    let text = |text: &str| Value::BulkString(text.into());
    let five = |numbers: [i64; 5]| Value::Array(numbers.map(Value::Int).to_vec());
    let policy = |capacity, refill, pinned| {
        Value::Map(vec![
            (text("capacity"), Value::Int(capacity)),
            (text("refill"), text(refill)),
            (text("interval"), Value::Int(1000)),
            (text("weight"), Value::Int(1)),
            (text("pinned"), Value::Int(pinned)),
            (text("source"), text(if pinned == 1 { "pin" } else { "default" })),
            (text("pin_remaining_ms"), Value::Int(-pinned)),
        ])
    };
    let rows = [
        ("CL.POLICY k", policy(1000, "5", 0)),
        ("CL.POLICY k CAPACITY 9 REFILL 0.5", policy(9, "0.5", 1)),
        ("CL.POLICY k REFILL 0", policy(9, "0", 1)),
        ("CL.TAKE k 4", five([4, 9, 5, 0, -1])),
        ("CL.TAKE k 6", five([0, 9, 5, -1, -1])),
        ("CL.PEEK k 5", five([5, 9, 0, 0, -1])),
        ("CL.GIVE k 1", five([1, 9, 6, 0, -1])),
        (
            "CL.TAKEALL k AND k",
            Value::Array(vec![
                Value::Int(1),
                Value::Int(-1),
                Value::Int(0),
                Value::Array(vec![five([1, 9, 5, 0, -1]), five([1, 9, 4, 0, -1])]),
            ]),
        ),
        ("CL.THROTTLE k 1 2 3 4", five([0, 9, 0, -1, -1])),
        ("CL.POLICY k RESET", policy(1000, "5", 0)),
    ];
    for (line, expected) in rows {
        assert_eq!(cmd(conn, line).unwrap(), expected, "`{line}`");
    }
    assert_eq!(error(conn, "CL.TAKE k 1 FOO"), "ERR unknown option 'FOO'");
    // In RESP2 the map is a list of pairs.
    let flat: Vec<Value> = ask(&mut server.connection(), "CL.POLICY k");
    assert_eq!(flat.len(), 14);
}

#[test]
fn databases_are_apart() {
    let server = Server::builder().config("notify-keyspace-events", "KEA").start();
    let conn = &mut server.connection();
    for database in 0..4 {
        let pin = format!("CL.POLICY k CAPACITY {} REFILL 0", 10 + database);
        run(conn, &[&format!("SELECT {database}"), &pin, "CL.TAKE k 3"]);
    }
    let rows = [
        ("SELECT 0", [1, 10, 6, 0, -1]),
        ("SELECT 1", [1, 11, 7, 0, -1]),
        ("SWAPDB 1 2", [1, 12, 8, 0, -1]),
        ("SELECT 2", [1, 11, 6, 0, -1]),
        ("SWAPDB 0 3", [1, 11, 5, 0, -1]),
        ("SELECT 0", [1, 13, 9, 0, -1]),
        ("SELECT 3", [1, 10, 5, 0, -1]),
        ("FLUSHDB", [1, 1000, 999, 0, 200]),
        ("SELECT 0", [1, 13, 8, 0, -1]),
    ];
    for (line, expected) in rows {
        run(conn, &[line]);
        assert_eq!(ints(conn, "CL.TAKE k"), expected, "after {line}");
    }
    // Events and watches are of the right database, too.
    let mut listener = server.connection();
    let mut events = listener.as_pubsub();
    events.psubscribe("__keyspace@*__:k").unwrap();
    run(conn, &["SELECT 2", "CL.TAKE k"]);
    assert_eq!(events.get_message().unwrap().get_channel_name(), "__keyspace@2__:k");
    let other = &mut server.connection();
    run(conn, &["SELECT 0", "WATCH k", "MULTI", "PING"]);
    run(other, &["SELECT 2", "CL.TAKE k"]);
    assert_ne!(cmd(conn, "EXEC").unwrap(), Value::Nil);
    run(conn, &["WATCH k", "MULTI", "PING"]);
    run(other, &["SELECT 0", "CL.TAKE k"]);
    assert_eq!(cmd(conn, "EXEC").unwrap(), Value::Nil);
}
