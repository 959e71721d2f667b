//! What region sync does between commands, and what it must not.

use crate::world::{PATIENCE, TICK, World, entries, field, share};
use claw_testkit::{Server, ask, error, eventually, info_field, int, ints, run};
use redis::{Connection, Value};
use std::thread;
use std::time::Duration;

/// A peer that nobody ever is.
const NOBODY: &str = "redis://127.0.0.1:1";

/// A server that has paused its clients stops itself when it is written to. The
/// walk, which gives an expiry to buckets that lack one, waits.
#[test]
fn a_paused_server_is_not_written_to() {
    let server = Server::builder()
        .config("appendonly", "yes")
        .config("claw.replica-id", "here")
        .config("claw.partition-timeout-ms", "1000")
        .start();
    let conn = &mut server.connection();
    run(conn, &["CL.TAKE k 1", &format!("CONFIG SET claw.peers {NOBODY}")]);
    eventually(PATIENCE, TICK, "sync to be on", || field(conn, "sync_peers") == 1);
    run(conn, &["CL.TAKE k 1", "PERSIST k", "CLIENT PAUSE 60000 WRITE"]);
    let walks = field(conn, "sync_walks");
    eventually(PATIENCE, TICK, "the peer to be missed", || share(conn) == 500);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(int(conn, "TTL k"), -1);
    assert_eq!(field(conn, "sync_walks"), walks);
    run(conn, &["CLIENT UNPAUSE"]);
    eventually(2 * PATIENCE + PATIENCE, TICK, "the expiry to be set", || int(conn, "TTL k") > 0);
    assert_eq!(server.warnings(), [""; 0]);
}

/// What the server does to find keys that nobody uses, it finds.
#[test]
fn the_walk_makes_no_key_look_used() {
    let world = World::start(2, Duration::ZERO);
    let conn = &mut world.connection(0);
    run(conn, &["CL.TAKE k 1"]);
    thread::sleep(Duration::from_millis(2_500));
    let walks = field(conn, "sync_walks");
    // Whoever lacks everything is told everything.
    run(
        conn,
        &[
            &format!("CONFIG SET claw.peers {}", world.peers(0)),
            "CONFIG SET claw.sync-interval-ms 60",
        ],
    );
    eventually(PATIENCE, TICK, "a walk", || field(conn, "sync_walks") > walks);
    assert!(int(conn, "OBJECT IDLETIME k") >= 2);
}

/// No peer speaks to a replica, and that means nothing.
#[test]
fn a_replica_misses_nobody() {
    let region = |builder: claw_testkit::Builder| {
        builder
            .config("claw.replica-id", "here")
            .config("claw.peers", NOBODY)
            .config("claw.partition-timeout-ms", "1000")
    };
    let primary = region(Server::builder()).config("claw.partition-guard", "off").start();
    let replica = region(Server::replica_of(&primary)).start();
    let (conn, copy) = (&mut primary.connection(), &mut replica.connection());
    run(conn, &["CL.TAKE k 50 CAPACITY 100 REFILL 0"]);
    let left = |conn: &mut Connection| ints(conn, "CL.PEEK k 0 CAPACITY 100 REFILL 0")[2];
    eventually(PATIENCE, TICK, "the replica to have it", || int(copy, "EXISTS k") == 1);
    thread::sleep(Duration::from_millis(1_500));
    assert_eq!((left(conn), left(copy), share(copy)), (50, 50, 1_000));
    assert_eq!(error(copy, "CL.SYNC NOW"), "ERR region sync is off: a replica sends nothing");
    // Once it is a primary it waits for the peers as one that has just started.
    run(copy, &["REPLICAOF NO ONE"]);
    assert_eq!(left(copy), 50);
    eventually(PATIENCE, TICK, "the peers to be missed", || share(copy) == 500);
}

/// Setting a parameter to what it is begins nothing anew.
#[test]
fn the_same_setting_again_is_no_change() {
    let world = World::start(2, Duration::ZERO);
    let conn = &mut world.connection(0);
    let walks = field(conn, "sync_walks");
    eventually(PATIENCE, TICK, "some rounds", || field(conn, "sync_rounds") > 20);
    let rounds = field(conn, "sync_rounds");
    run(
        conn,
        &[
            &format!("CONFIG SET claw.peers {}", world.peers(0)),
            "CONFIG SET claw.replica-id r0",
            "CONFIG SET claw.sync-keys *",
        ],
    );
    // Longer than the server leaves a change alone. Senders that begin anew count
    // anew, and are told everything.
    thread::sleep(Duration::from_millis(500));
    assert!(field(conn, "sync_rounds") > rounds);
    assert_eq!(field(conn, "sync_walks"), walks);
}

/// Names that only rounds have told of take no room that counters need.
#[test]
fn rounds_of_many_names_leave_room() {
    let world = World::start(2, Duration::ZERO);
    let (conn, other) = (&mut world.connection(0), &mut world.connection(1));
    run(conn, &["CL.TAKE k 1 CAPACITY 100 REFILL 0"]);
    for n in 0..14 {
        run(conn, &[&format!("CL.SYNC ROUND 3 n{n} x 1 1")]);
    }
    // They stay in the bucket until there is need of the room.
    run(conn, &["CL.TAKE k 1 CAPACITY 100 REFILL 0"]);
    run(other, &["CL.TAKE k 3 CAPACITY 100 REFILL 0"]);
    // One name more than there is room for.
    run(conn, &["CONFIG SET claw.replica-id r9"]);
    eventually(PATIENCE, TICK, "the new name", || {
        ask::<Vec<Value>>(conn, "CL.SYNC STATUS")[1] == Value::BulkString(b"r9".to_vec())
    });
    run(conn, &["CL.TAKE k 2 CAPACITY 100 REFILL 0"]);
    for conn in [conn, other] {
        eventually(PATIENCE, TICK, "both to count", || {
            let spent = entries(conn, "k").values().map(|entry| entry.spent).sum::<u64>();
            spent == 7_000_000
        });
    }
}

#[test]
fn states_of_peers_are_counted_whatever_the_strategy() {
    for strategy in ["debit", "max", "lww"] {
        let world = World::start_with(2, Duration::ZERO, &|_, builder| {
            builder.config("claw.sync-strategy", strategy)
        });
        run(&mut world.connection(0), &["CL.TAKE k 1 CAPACITY 100 REFILL 0"]);
        let other = &mut world.connection(1);
        eventually(PATIENCE, TICK, strategy, || field(other, "sync_states_received") > 0);
        assert_eq!(info_field(other, "claw", "claw_merge_errors").as_deref(), Some("0"));
    }
}
