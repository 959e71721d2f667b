//! When a region that was away counts again: in seconds, whatever is still to be sent.

use crate::world::{PATIENCE, TICK, World, all_whole, field, share, signal, status};
use claw_testkit::{ask, eventually, int, run};
use redis::Connection;
use std::thread;
use std::time::{Duration, Instant};

/// How soon all is well again.
const SOON: Duration = Duration::from_secs(2);

/// Buckets of capacity 5 that never refill, so that they stay.
fn fill(conn: &mut Connection, count: usize) {
    let mut pipe = redis::pipe();
    for n in 0..count {
        let words = ["5", "REFILL", "0"];
        pipe.cmd("CL.TAKE").arg(format!("k{n}")).arg(1).arg("CAPACITY").arg(&words[..]).ignore();
    }
    pipe.query::<()>(conn).unwrap();
}

/// A process that was suspended for ten seconds, with buckets that changed meanwhile.
#[test]
fn a_suspended_region_is_soon_whole() {
    let world = World::start(2, Duration::ZERO);
    fill(&mut world.connection(0), 2_000);
    world.wait_until_quiet();
    let mut conns = [world.connection(0), world.connection(1)];
    signal(&world.servers[1], "-STOP");
    let stopped = Instant::now();
    eventually(PATIENCE, TICK, "it to be missed", || {
        field(&mut conns[0], "sync_peers_silent") == 1
    });
    fill(&mut conns[0], 2_000);
    // Nothing to wait for but the time itself.
    thread::sleep(Duration::from_secs(10).saturating_sub(stopped.elapsed()));
    signal(&world.servers[1], "-CONT");
    let back = Instant::now();
    eventually(SOON, TICK, "both to be whole", || all_whole(&mut conns));
    println!("whole after {:?}", back.elapsed());
    eventually(PATIENCE, TICK, "it to know", || {
        ask::<String>(&mut conns[1], "HGET k1999 tokens") == "3"
    });
}

/// A process that starts again with its buckets counts as soon as it is heard, and not
/// when it has sent them all.
#[test]
fn a_region_that_starts_again_is_soon_whole() {
    const KEYS: usize = 40_000;
    let mut world = World::start_with(2, Duration::ZERO, &|_, builder| {
        // What it sends again takes seconds.
        builder.config("claw.partition-timeout-ms", "500").config("hz", "10")
    });
    fill(&mut world.connection(1), KEYS);
    world.wait_until_quiet();
    run(&mut world.connection(1), &["SAVE"]);
    let dead = world.servers.remove(1).kill_9();
    let mut conns = vec![world.connection(0)];
    eventually(PATIENCE, TICK, "it to be missed", || {
        field(&mut conns[0], "sync_peers_silent") == 1
    });
    assert!(share(&mut conns[0]) < 1_000);
    world.servers.push(dead.start());
    let back = Instant::now();
    conns.push(world.connection(1));
    eventually(SOON, TICK, "both to be whole", || all_whole(&mut conns));
    let lacking = status(&mut conns[1], "peers")[0]["lacking"].clone();
    println!("whole after {:?}; everything sent: {}", back.elapsed(), lacking == "no");
    world.wait_until_connected();
    world.wait_until_quiet();
    assert_eq!(int(&mut conns[0], "DBSIZE"), i64::try_from(KEYS).unwrap());
}
