//! Regions that lose what they knew.

use crate::world::{PATIENCE, TICK, World, entries, field};
use claw_testkit::{Server, eventually, info_field, int, ints, run, wait_for_offset};
use redis::{Connection, Value};
use std::collections::BTreeSet;
use std::time::Duration;

/// Killed, and started again from an RDB that is older than what the others know:
/// what is taken after that is counted anew, and hidden from nobody.
#[test]
fn a_region_that_comes_back_from_an_old_rdb() {
    const TAKE: &str = "CL.TAKE k 10 CAPACITY 1000 REFILL 0";
    const LOOK: &str = "CL.PEEK k 0 CAPACITY 1000 REFILL 0";
    let mut world = World::start(2, Duration::ZERO);
    run(&mut world.connection(0), &[TAKE, "SAVE"]);
    for _ in 0..20 {
        run(&mut world.connection(0), &[TAKE]);
    }
    run(&mut world.connection(1), &[TAKE]);
    world.wait_until_quiet();
    assert_eq!(world.left(LOOK), [780, 780]);
    let before = world.entries("k");

    let server = world.servers.remove(0);
    world.servers.insert(0, server.kill_9().start());
    // At once, before anybody has told it anything.
    for _ in 0..5 {
        assert_eq!(ints(&mut world.connection(0), TAKE)[0], 10);
    }
    world.wait_until_connected();
    world.wait_until_quiet();
    let after = world.entries("k");
    assert!(after["r0"].epoch > before["r0"].epoch, "a new life is a new epoch");
    assert!(after["r0"].spent >= 50_000_000, "nothing taken since is hidden: {after:?}");
    assert_eq!(after["r1"], before["r1"]);
    let left = world.left(LOOK);
    assert_eq!(left[0], left[1]);
    // Taken in all: 210 + 10 + 50. What may be forgotten is what was lost.
    assert!((730..=930).contains(&left[0]), "{left:?}");
    run(&mut world.connection(0), &[TAKE]);
    world.wait_until_quiet();
    assert_eq!(world.left(LOOK), [left[0] - 10, left[0] - 10]);
}

/// A bucket that one region has lost altogether: its takes begin a new epoch above
/// the one that the others know.
#[test]
fn a_flushed_region_is_heard() {
    const LOOK: &str = "CL.PEEK k 0 CAPACITY 100 REFILL 0";
    let world = World::start(2, Duration::ZERO);
    let (conn, other) = (&mut world.connection(0), &mut world.connection(1));
    run(conn, &["CL.TAKE k 5 CAPACITY 100 REFILL 0"]);
    world.wait_until_quiet();
    let known = entries(other, "k")["r0"];
    run(conn, &["FLUSHALL", "CL.TAKE k 7 CAPACITY 100 REFILL 0"]);
    eventually(PATIENCE, TICK, "the other region to know", || {
        entries(other, "k")["r0"].epoch > known.epoch
    });
    world.wait_until_quiet();
    assert_eq!(entries(other, "k")["r0"].spent, 7_000_000);
    let left = world.left(LOOK);
    assert_eq!(left[0], left[1]);
}

/// A replica takes over: the same counters, in a new epoch.
#[test]
fn a_promoted_replica_goes_on() {
    const TAKE: &str = "CL.TAKE k 10 CAPACITY 1000 REFILL 0";
    let mut world = World::start(2, Duration::ZERO);
    let replica = Server::replica_of(&world.servers[0])
        .config("claw.replica-id", "r0")
        .config_args("claw.peers", [world.peers(0)])
        .start();
    let conn = &mut world.connection(0);
    run(conn, &[TAKE, TAKE]);
    world.wait_until_quiet();
    wait_for_offset(&world.servers[0], &replica);
    let before = world.entries("k");
    let promoted = &mut replica.connection();
    assert_eq!(entries(promoted, "k"), before);
    // The primary dies; whoever takes its place takes its address.
    let port = world.servers[0].port();
    let dead = world.servers.remove(0);
    drop(dead.kill_9());
    run(promoted, &["REPLICAOF NO ONE", "CONFIG SET port 0", TAKE]);
    run(promoted, &[&format!("CONFIG SET port {port}")]);
    let other = &mut world.connection(0);
    eventually(PATIENCE, TICK, "the other region to know", || {
        ints(other, "CL.PEEK k 0 CAPACITY 1000 REFILL 0")[2] == 970
    });
    let after = entries(other, "k");
    assert!(after["r0"].epoch > before["r0"].epoch);
    run(other, &[TAKE]);
    eventually(PATIENCE, TICK, "the promoted one to know", || {
        ints(promoted, "CL.PEEK k 0 CAPACITY 1000 REFILL 0")[2] == 960
    });
    assert_eq!(int(promoted, "EXISTS k"), 1);
}

/// A replica takes over, and hands back to the primary, which has lived on. That is another life:
/// what its peers have sent it before it may have lost, and whom they went by meanwhile is gone.
#[test]
fn a_primary_that_was_a_replica_for_a_while_is_met_anew() {
    const TAKE: &str = "CL.TAKE k 10 CAPACITY 1000 REFILL 0";
    let world = World::start(2, Duration::ZERO);
    let first = &world.servers[0];
    let second = Server::replica_of(first)
        .config("claw.replica-id", "r0")
        .config_args("claw.peers", [world.peers(0)])
        .start();
    let [here, heir, other] = &mut [first, &second, &world.servers[1]].map(Server::connection);
    let speaks = |conn: &mut Connection| {
        eventually(PATIENCE, TICK, "rounds of the new primary", || field(conn, "sync_rounds") > 0);
    };
    wait_for_offset(first, &second);
    run(heir, &["REPLICAOF NO ONE"]);
    speaks(heir);
    // This only the first gets, and not for long.
    run(other, &[TAKE]);
    eventually(PATIENCE, TICK, "the first to have it", || int(here, "EXISTS k") == 1);
    run(here, &[&format!("REPLICAOF 127.0.0.1 {}", second.port())]);
    eventually(PATIENCE, TICK, "the first to be a replica", || {
        info_field(here, "replication", "master_link_status").as_deref() == Some("up")
            && field(here, "sync_peers") == 0
    });
    assert_eq!(int(here, "EXISTS k"), 0);

    run(here, &["REPLICAOF NO ONE"]);
    run(heir, &[&format!("REPLICAOF 127.0.0.1 {}", first.port())]);
    speaks(here);
    eventually(PATIENCE, TICK, "the first to have it again", || int(here, "EXISTS k") == 1);
    // A region says what it spends now when all have acknowledged what it said before.
    let said = &mut first.connection();
    said.send_packed_command(&redis::cmd("MONITOR").get_packed_command()).unwrap();
    let mut rates = BTreeSet::new();
    eventually(PATIENCE, Duration::ZERO, "the other to go on saying its rates", || {
        let Value::SimpleString(line) = said.recv_response().unwrap() else { return false };
        let words = line.split_ascii_whitespace().skip_while(|word| *word != "\"RATES\"");
        rates.extend(words.skip(1).take(2).map(str::to_owned));
        rates.len() > 3
    });
}
