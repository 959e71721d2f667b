//! How a region ends, what it leaves to the others, and how a limit is begun anew in all of them.

use crate::world::{PATIENCE, TICK, World, signal, status};
use claw_core::debits::Counter;
use claw_testkit::{cmd, eventually, ints, run};
use std::time::{Duration, Instant};

const TAKE: &str = "CL.TAKE k 10 CAPACITY 100 REFILL 0";
const LOOK: &str = "CL.PEEK k 0 CAPACITY 100 REFILL 0";

/// SHUTDOWN waits a second for peers at the most; as much again is for a machine that is busy.
const FAREWELL: Duration = Duration::from_secs(2);

/// Three regions that send what they have every five seconds: too late for one that ends.
fn slow() -> World {
    World::start_with(3, Duration::ZERO, &|_, builder| {
        builder.config("claw.sync-interval-ms", "5000").config("claw.partition-timeout-ms", "60000")
    })
}

/// What becomes of the third region before the first one ends.
struct Fate {
    name: &'static str,
    befalls: fn(&mut World),
}

const FATES: [Fate; 3] = [
    Fate { name: "alive", befalls: |_| () },
    Fate { name: "suspended", befalls: |world| signal(&world.servers[2], "-STOP") },
    Fate {
        name: "dead",
        befalls: |world| {
            drop(world.servers.remove(2).kill_9());
            let conn = &mut world.connection(0);
            // No sooner is it known than with something that is sent to it.
            run(conn, &["CL.TAKE other", "CL.SYNC NOW"]);
            eventually(PATIENCE, TICK, "it to be known", || {
                status(conn, "peers").iter().any(|peer| peer["state"] == "backing-off")
            });
        },
    },
];

/// Whoever listens is told everything before the server ends, and nobody is waited for longer
/// than a second.
#[test]
fn a_server_that_ends_tells_peers_first() {
    for Fate { name, befalls } in FATES {
        let mut world = slow();
        befalls(&mut world);
        run(&mut world.connection(0), &[TAKE]);
        let begun = Instant::now();
        let ended = world.servers.remove(0);
        drop(ended.stop());
        let took = begun.elapsed();
        let other = &mut world.connection(0);
        println!("peer {name}: ended within {took:?}");
        // What it has not said by now nobody says.
        eventually(PATIENCE, TICK, name, || ints(other, LOOK)[2] == 90);
        assert!(took < FAREWELL, "{name}: {took:?}");
    }
}

/// So does a module that is unloaded, as it is for an upgrade; for less than half a second.
#[test]
fn unloading_tells_peers_first_and_waits_for_nobody() {
    let world = slow();
    signal(&world.servers[2], "-STOP");
    let conn = &mut world.connection(0);
    run(conn, &[TAKE, "CL.SYNC NOW", TAKE]);
    let begun = Instant::now();
    eventually(PATIENCE, TICK, "it to be unloaded", || cmd(conn, "MODULE UNLOAD claw").is_ok());
    let took = begun.elapsed();
    println!("unloaded within {took:?}");
    assert!(took < Duration::from_millis(600), "{took:?}");
    let other = &mut world.connection(1);
    eventually(PATIENCE, TICK, "the other to know", || ints(other, LOOK)[2] == 80);
}

/// What is given back is given back everywhere: more than there can be room for begins a limit
/// anew in all regions.
#[test]
fn a_limit_is_begun_anew_everywhere() {
    let world = World::start(3, Duration::ZERO);
    for region in 0..3 {
        run(&mut world.connection(region), &[TAKE, TAKE]);
    }
    world.wait_until_quiet();
    assert_eq!(world.left(LOOK), [40; 3]);
    let conn = &mut world.connection(1);
    assert_eq!(ints(conn, "CL.GIVE k 1000000000000")[..3], [60, 100, 100]);
    world.wait_until_quiet();
    assert_eq!(world.left(LOOK), [100; 3]);
    // One limit, as before.
    for region in 0..3 {
        run(&mut world.connection(region), &[TAKE]);
        world.wait_until_quiet();
    }
    assert_eq!(world.left(LOOK), [70; 3]);
    let counted = world.entries("k");
    let sum = |of: fn(&Counter) -> u64| counted.values().map(of).sum::<u64>() / 1_000_000;
    assert_eq!((sum(|counter| counter.spent), sum(|counter| counter.refunded)), (90, 60));
    world.no_warnings();
}

/// What is deleted is deleted here only. With the next take here the others know that what was
/// taken here before counts no more.
#[test]
fn deleting_a_bucket_is_local() {
    let world = World::start(2, Duration::ZERO);
    for region in 0..2 {
        run(&mut world.connection(region), &[TAKE, TAKE]);
    }
    world.wait_until_quiet();
    run(&mut world.connection(0), &["DEL k"]);
    world.wait_until_quiet();
    assert_eq!(world.left(LOOK), [100, 60]);
    run(&mut world.connection(0), &[TAKE]);
    world.wait_until_quiet();
    assert_eq!(world.left(LOOK), [90, 70]);
    run(&mut world.connection(1), &[TAKE]);
    world.wait_until_quiet();
    assert_eq!(world.left(LOOK), [60, 60]);
    assert_eq!(world.spent("k"), 40);
}
