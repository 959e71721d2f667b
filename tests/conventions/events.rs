//! Who hears of a change: keyspace events, tracking, `WATCH`; and the flags of commands.

use crate::buckets::slow_server;
use crate::calls::{PATIENCE, TICK};
use claw_testkit::{Server, ask, call, cmd, digest, error, eventually, int, ints, run};
use redis::{Connection, ConnectionLike, PubSub, Value};

#[test]
fn flags_have_their_effect() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["CL.TAKE k 1 CAPACITY 10 REFILL 0"]);
    let writers = [
        "CL.TAKE k",
        "CL.GIVE k",
        "CL.SETTLE k 1 2",
        "CL.TAKEALL k",
        "CL.POLICY k CAPACITY 5",
        "CL.THROTTLE k 1 2 3",
    ];
    let script = |conn: &mut Connection, name: &str, line: &str| {
        let words: Vec<String> = line.split(' ').map(|word| format!("'{word}'")).collect();
        let body = format!("return redis.call({})", words.join(", "));
        call(conn, &[name, body.as_str(), "1", "k"])
    };
    // Read-only scripts, and a server that may not write.
    let before = digest(conn);
    for line in writers {
        let answer = script(conn, "EVAL_RO", line);
        assert!(
            answer.as_ref().is_err_and(|e| e.contains("read-only script")),
            "{line}: {answer:?}"
        );
    }
    assert_eq!(digest(conn), before);
    let peek = "CL.PEEK k 1 CAPACITY 10 REFILL 0";
    let expected = Value::Array([1, 10, 8, 0, -1].map(Value::Int).to_vec());
    assert_eq!(script(conn, "EVAL_RO", peek), Ok(expected));
    // Out of memory nothing is written, and one can still look.
    run(conn, &["CONFIG SET maxmemory 1"]);
    for line in writers {
        assert!(error(conn, line).starts_with("OOM "), "{line}");
    }
    assert_eq!(ints(conn, peek), [1, 10, 8, 0, -1]);
    run(conn, &["CONFIG SET maxmemory 0"]);
    assert_eq!(digest(conn), before);
    // In a transaction, wrong numbers of arguments are found at once.
    run(conn, &["MULTI"]);
    assert_eq!(error(conn, "CL.TAKE"), "ERR wrong number of arguments for 'cl.take' command");
    assert!(error(conn, "EXEC").starts_with("EXECABORT "));
}

/// Payloads that came until one that is published now.
fn until_now(conn: &mut Connection, events: &mut PubSub<'_>, channel: &str) -> Vec<Value> {
    run(conn, &[&format!("PUBLISH {channel} end-of-list")]);
    let mut payloads = Vec::new();
    loop {
        let message = events.get_message().expect("a message");
        let payload: Value = message.get_payload().unwrap();
        if payload == Value::BulkString(b"end-of-list".to_vec()) {
            return payloads;
        }
        payloads.push(payload);
    }
}

#[test]
fn keyspace_events_are_those_of_the_servers_own_commands() {
    let server = slow_server().config("notify-keyspace-events", "KEAn").start();
    let conn = &mut server.connection();
    run(conn, &["DEBUG SET-ACTIVE-EXPIRE 0"]);
    let mut listener = server.connection();
    let mut events = listener.as_pubsub();
    events.subscribe("__keyspace@0__:k").unwrap();
    let rows = [
        ("CL.PEEK k", ""),
        ("CL.TAKE k 0", ""),
        ("CL.TAKE k 1001", ""),
        ("CL.GIVE k", ""),
        ("CL.POLICY k", ""),
        // A new bucket, and one that is there.
        ("CL.TAKE k 10", "new hset expire"),
        ("CL.TAKE k", "hset"),
        ("CL.TAKE k 1001", ""),
        ("CL.PEEK k", ""),
        ("CL.GIVE k", "hset"),
        ("DEL k", "del"),
        ("CL.TAKE k CAPACITY 9 REFILL 0", "new hset"),
        ("CL.TAKE k CAPACITY 9 REFILL 0", "hset"),
        ("CL.TAKE k 9 CAPACITY 9 REFILL 0", ""),
        ("CL.TAKE k CAPACITY 8 REFILL 0", "hset"),
        ("CL.TAKE k", "hset"),
        ("CL.POLICY k RESET", "hset hdel expire"),
        ("CL.POLICY k CAPACITY 500", "hset persist"),
        ("CL.POLICY k CAPACITY 500", ""),
        ("CL.POLICY k WEIGHT 2", "hset"),
        ("CL.TAKE k", "hset"),
        ("CL.POLICY k RESET", "hset hdel expire"),
        ("CL.SETTLE k 5 3", "hset"),
        ("CL.SETTLE k 3 5", "hset"),
        ("CL.SETTLE k 3 3", ""),
        ("CL.TAKEALL k AND k", "hset"),
        ("CL.TAKEALL k AND other 9999", ""),
        ("DEL k", "del"),
        ("CL.TAKEALL k AND other AND k", "new hset expire"),
        ("DEL k", "del"),
        ("CL.POLICY k CAPACITY 5", "new hset"),
        ("DEL k", "del"),
        ("CL.THROTTLE k 15 1 31622400 4", "new hset expire"),
        ("CL.THROTTLE k 15 1 31622400", "hset"),
        ("CL.THROTTLE k 15 1 31622400 0", ""),
        ("CL.THROTTLE k 15 1 31622400 17", ""),
        ("CL.THROTTLE k 15 1 31622400 -1", "hset"),
    ];
    for (line, expected) in rows {
        run(conn, &[line]);
        let names = until_now(conn, &mut events, "__keyspace@0__:k").into_iter();
        let names: Vec<String> = names.map(|v| redis::from_redis_value(v).unwrap()).collect();
        assert_eq!(names.join(" "), expected, "`{line}`");
    }

    // What the server itself says of the same writes.
    run(conn, &["DEL k"]);
    run(conn, &["HSET k tokens 1 timestamp 2 policy 3", "PEXPIREAT k 33333333333333"]);
    run(conn, &["HSET k tokens 1 timestamp 2", "HDEL k policy", "PERSIST k"]);
    let names = until_now(conn, &mut events, "__keyspace@0__:k").into_iter();
    let names: Vec<String> = names.map(|v| redis::from_redis_value(v).unwrap()).collect();
    assert_eq!(names.join(" "), "del new hset expire hset hdel persist");

    // An expired bucket: the event comes with the take that finds it.
    run(conn, &["DEL k", "CL.TAKE k", "PEXPIRE k 1"]);
    until_now(conn, &mut events, "__keyspace@0__:k");
    let set: (i64, i64) = ask(conn, "TIME");
    eventually(PATIENCE, TICK, "two milliseconds to pass", || {
        let now: (i64, i64) = ask(conn, "TIME");
        (now.0 - set.0) * 1_000_000 + now.1 - set.1 > 2000
    });
    run(conn, &["CL.TAKE k"]);
    let names = until_now(conn, &mut events, "__keyspace@0__:k").into_iter();
    let names: Vec<String> = names.map(|v| redis::from_redis_value(v).unwrap()).collect();
    assert_eq!(names.join(" "), "expired new hset expire");
}

/// Where the server tells what a tracking client has to forget.
const INVALIDATED: &str = "__redis__:invalidate";

/// A client that is told what another one, which tracks what it reads, has to forget.
fn tracking(server: &Server) -> (Connection, Connection) {
    let (mut listener, mut tracker) = (server.connection(), server.connection());
    let id = int(&mut listener, "CLIENT ID");
    run(&mut tracker, &[&format!("CLIENT TRACKING ON REDIRECT {id}")]);
    (listener, tracker)
}

#[test]
fn tracking_clients_hear_of_changes_only() {
    let server = slow_server().start();
    let conn = &mut server.connection();
    let (mut listener, mut tracker) = tracking(&server);
    let mut events = listener.as_pubsub();
    events.subscribe(INVALIDATED).unwrap();

    // What changes k, and what does not.
    let rows = [
        ("CL.TAKE k", true),
        ("CL.TAKE k 1001", false),
        ("CL.TAKE k 0", false),
        ("CL.PEEK k", false),
        ("CL.GIVE k", true),
        ("CL.GIVE k 0", false),
        ("CL.SETTLE k 1 3", true),
        ("CL.SETTLE k 3 1", true),
        ("CL.SETTLE k 3 3", false),
        ("CL.TAKEALL other AND k", true),
        ("CL.TAKEALL other AND k 1001", false),
        ("CL.POLICY k", false),
        ("CL.POLICY k CAPACITY 50", true),
        ("CL.POLICY k CAPACITY 50", false),
        ("CL.TAKE k 51", false),
        ("CL.POLICY k RESET", true),
        ("CL.THROTTLE k 15 30 60", true),
        ("CL.THROTTLE k 15 30 60 17", false),
        ("CL.TAKE other", false),
    ];
    run(conn, &["CL.TAKE k 5"]);
    for look in ["HGETALL k", "CL.PEEK k"] {
        for (line, expected) in rows {
            run(&mut tracker, &[look]);
            run(conn, &[line]);
            let heard = until_now(conn, &mut events, INVALIDATED);
            let k = Value::Array(vec![Value::BulkString(b"k".to_vec())]);
            let expected = if expected { vec![k] } else { vec![] };
            assert_eq!(heard, expected, "`{line}` after `{look}`");
        }
    }
}

/// A bucket refills without being written: what was looked up is out of date, and nobody says so.
#[test]
fn tracking_clients_do_not_hear_of_refills() {
    let server = slow_server().start();
    let conn = &mut server.connection();
    let (mut listener, mut tracker) = tracking(&server);
    let mut events = listener.as_pubsub();
    events.subscribe(INVALIDATED).unwrap();
    run(conn, &["CL.TAKE k 1000 CAPACITY 1000 REFILL 1 INTERVAL 1"]);
    let seen = ints(&mut tracker, "CL.PEEK k 0");
    eventually(PATIENCE, TICK, "the bucket to gain", || ints(conn, "CL.PEEK k 0")[2] > seen[2]);
    assert_eq!(until_now(conn, &mut events, INVALIDATED), []);
    run(conn, &["CL.TAKE k"]);
    assert_eq!(until_now(conn, &mut events, INVALIDATED).len(), 1);
}

#[test]
fn a_transaction_fails_only_if_its_bucket_has_changed() {
    let server = slow_server().start();
    let conn = &mut server.connection();
    let mut other = server.connection();
    let rows = [
        ("CL.TAKE k", true),
        ("CL.TAKE k 1001", false),
        ("CL.TAKE k 0", false),
        ("CL.PEEK k", false),
        ("CL.GIVE k", true),
        ("CL.SETTLE k 1 2", true),
        ("CL.SETTLE k 2 2", false),
        ("CL.TAKEALL other AND k", true),
        ("CL.TAKEALL other AND k 1001", false),
        ("CL.POLICY k CAPACITY 50", true),
        ("CL.POLICY k", false),
        ("CL.THROTTLE k 15 30 60 51", false),
        ("CL.TAKE k 1 FOO", false),
    ];
    run(conn, &["CL.TAKE k 5"]);
    for (line, changes) in rows {
        run(conn, &["WATCH k", "MULTI", "CL.TAKE mine 0", "CL.TAKE mine"]);
        assert_eq!(cmd(&mut other, line).is_err(), line.ends_with("FOO"), "`{line}`");
        let answer = cmd(conn, "EXEC").unwrap();
        assert_eq!(answer == Value::Nil, changes, "`{line}`: {answer:?}");
    }
    // Inside of a transaction everything works as outside.
    run(
        conn,
        &["DEL k", "MULTI", "CL.TAKE k 3 CAPACITY 5 REFILL 0", "CL.TAKE k 3 CAPACITY 5 REFILL 0"],
    );
    run(conn, &["CL.TAKE k x", "CL.PEEK k 2 CAPACITY 5 REFILL 0"]);
    // As it is: the library would make an error of one inside of the answer.
    let answer = conn.req_packed_command(&redis::cmd("EXEC").get_packed_command()).unwrap();
    let Value::Array(answers) = answer else { panic!("{answer:?}") };
    let five = |numbers: [i64; 5]| Value::Array(numbers.map(Value::Int).to_vec());
    assert_eq!(answers[0], five([3, 5, 2, 0, -1]));
    assert_eq!(answers[1], five([0, 5, 2, -1, -1]));
    assert!(matches!(answers[2], Value::ServerError(_)), "{answers:?}");
    assert_eq!(answers[3], five([2, 5, 0, 0, -1]));
}
