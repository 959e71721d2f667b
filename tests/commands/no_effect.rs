//! Calls that take nothing, give nothing and change no policy leave no trace.

use crate::buckets::slow_server;
use claw_testkit::{Server, cmd, digest, info_field, int, run, wait_for_offset};
use redis::{Connection, Value};

/// Calls that take nothing, give nothing and change no policy.
const WITHOUT_EFFECT: &[&str] = &[
    "CL.TAKE empty CAPACITY 5 REFILL 0",
    "CL.TAKE empty 6 CAPACITY 5 REFILL 0",
    "CL.TAKE empty 3 CAPACITY 5 REFILL 0 PARTIAL",
    "CL.TAKE empty 0 CAPACITY 5 REFILL 0",
    "CL.TAKE slow 2 CAPACITY 5 REFILL 1 INTERVAL 31622400000",
    "CL.TAKE slow 0 CAPACITY 5 REFILL 1 INTERVAL 31622400000",
    "CL.TAKE plain 1001",
    "CL.TAKE plain 0",
    "CL.TAKE pinned 6",
    "CL.TAKE pinned 6 CAPACITY 50 REFILL 9",
    "CL.TAKE missing 1001",
    "CL.TAKE missing 0",
    "CL.TAKE missing 0 CAPACITY 5 REFILL 5",
    "CL.PEEK empty",
    "CL.PEEK empty 1 CAPACITY 50 REFILL 2",
    "CL.PEEK plain",
    "CL.PEEK pinned",
    "CL.PEEK missing",
    "CL.GIVE empty 0",
    "CL.SETTLE empty 4 4",
    "CL.SETTLE plain 0 0",
    "CL.SETTLE full 4 3",
    "CL.SETTLE missing 4 3",
    "CL.SETTLE missing 4 4 CAPACITY 7 REFILL 5",
    "CL.SETTLE pinned 4 4 CAPACITY 50 REFILL 9",
    "CL.SETTLE deep 0 1",
    "CL.TAKE deep 1 PARTIAL",
    "CL.TAKE deep 0",
    "CL.TAKE plain 999 KEEP 1",
    "CL.TAKE slow 2 PARTIAL KEEP 5 CAPACITY 5 REFILL 1 INTERVAL 31622400000",
    "CL.GIVE full",
    "CL.GIVE missing 5",
    "CL.TAKEALL slow CAPACITY 5 REFILL 1 INTERVAL 31622400000 AND empty CAPACITY 5 REFILL 0",
    "CL.TAKEALL plain 900 KEEP 100 AND missing",
    "CL.TAKEALL plain AND missing AND pinned 6",
    "CL.TAKEALL plain 900 AND plain 900",
    "CL.TAKEALL plain 0 AND pinned 0 AND missing 0",
    "CL.POLICY empty",
    "CL.POLICY plain",
    "CL.POLICY plain RESET",
    "CL.POLICY plain WEIGHT 1",
    "CL.POLICY pinned",
    "CL.POLICY pinned CAPACITY 5",
    "CL.POLICY pinned CAPACITY 5 REFILL 0 WEIGHT 2",
    "CL.POLICY missing",
    "CL.POLICY missing RESET",
    "CL.THROTTLE burst 4 1 31622400 6",
    "CL.THROTTLE burst 4 1 31622400 2",
    "CL.THROTTLE burst 4 1 31622400 0",
    "CL.THROTTLE full 1 1 1 0",
    "CL.THROTTLE missing 4 1 1 6",
    "CL.THROTTLE missing 4 1 1 0",
    "CL.THROTTLE missing 4 1 1 -1",
];

/// The same with another policy than the stored one, and no tokens: a look.
const LOOKS: &[&str] = &[
    "CL.TAKE plain 0 CAPACITY 7 REFILL 5",
    "CL.TAKE empty 0",
    "CL.TAKE empty 0 CAPACITY 9 REFILL 3",
    "CL.TAKEALL plain 0 CAPACITY 7 REFILL 5 AND empty 0 CAPACITY 7 REFILL 5",
    "CL.TAKEALL empty 0",
    "CL.THROTTLE plain 3 1 1 0",
];

fn without_effect(lines: &[&str]) {
    let keepalive = ("repl-ping-replica-period", "3600");
    let server = slow_server()
        .config(keepalive.0, keepalive.1)
        .config("notify-keyspace-events", "KEAn")
        .start();
    let replica = Server::replica_of(&server).start();
    let conn = &mut server.connection();
    run(
        conn,
        &[
            "CL.TAKE empty 5 CAPACITY 5 REFILL 0",
            "CL.TAKE slow 4 CAPACITY 5 REFILL 1 INTERVAL 31622400000",
            "CL.TAKE plain",
            "CL.POLICY pinned CAPACITY 5 REFILL 0 WEIGHT 2",
            "CL.THROTTLE burst 4 1 31622400 4",
            "CL.TAKE full 1 CAPACITY 2 REFILL 0",
            "CL.GIVE full 1",
            "PERSIST full",
            "CL.SETTLE deep 0 9 CAPACITY 4 REFILL 0",
        ],
    );
    wait_for_offset(&server, &replica);
    let mut listener = server.connection();
    let mut events = listener.as_pubsub();
    events.psubscribe("__key*__:*").unwrap();
    let mut watcher = server.connection();
    let keys = ["empty", "slow", "plain", "pinned", "burst", "full", "deep", "missing"];
    let watch = format!("WATCH {}", keys.join(" "));

    let snapshot = |conn: &mut Connection| {
        let expiry: Vec<i64> =
            keys.iter().map(|key| int(conn, &format!("PEXPIRETIME {key}"))).collect();
        let offset = info_field(conn, "replication", "master_repl_offset").unwrap();
        let dirty = info_field(conn, "persistence", "rdb_changes_since_last_save").unwrap();
        (digest(conn), expiry, offset, dirty)
    };
    let before = snapshot(conn);
    assert_ne!(before.2, "0", "the offset counts");
    assert_ne!(before.3, "0", "changes count");
    for line in lines {
        run(&mut watcher, &[&watch, "MULTI", "PING"]);
        run(conn, &[line]);
        assert_eq!(snapshot(conn), before, "`{line}`");
        assert_ne!(cmd(&mut watcher, "EXEC").unwrap(), Value::Nil, "`{line}` trips WATCH");
    }
    // Events come in order, so none has come before this one.
    run(conn, &["PUBLISH __keyspace__:end none"]);
    let first: String = events.get_message().unwrap().get_payload().unwrap();
    assert_eq!(first, "none");
}

#[test]
fn a_refusal_writes_nothing() {
    without_effect(WITHOUT_EFFECT);
}

#[test]
fn a_look_writes_nothing() {
    without_effect(LOOKS);
}
