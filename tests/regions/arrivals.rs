//! Keys that are restored, copied, moved and renamed, and what regions then know of takes.

use crate::world::{PATIENCE, TICK, World};
use claw_testkit::{ask, eventually, ints, run};
use redis::Connection;

/// No round comes by itself before a test is over, and nobody minds.
const SELDOM: &str = "CONFIG SET claw.sync-interval-ms 60000 claw.partition-guard off";

/// A bucket that never refills.
const TAKE: &str = "CL.TAKE k 1 CAPACITY 100 REFILL 0";

/// Two regions that send nothing but by `CL.SYNC NOW`.
fn slow_world() -> World {
    let world = World::start(2, std::time::Duration::ZERO);
    for region in 0..2 {
        run(&mut world.connection(region), &[SELDOM]);
    }
    world
}

/// What the other region has left once it has been told.
fn left_there(here: &mut Connection, there: &mut Connection, wanted: i64) {
    eventually(PATIENCE, TICK, &format!("{wanted} to be left"), || {
        run(here, &["CL.SYNC NOW"]);
        ask::<Option<i64>>(there, "HGET k tokens") == Some(wanted)
    });
}

/// What was taken and not sent yet is told, whatever becomes of other keys meanwhile: be they
/// shared buckets or anything else.
#[test]
fn other_keys_that_come_and_go_hide_no_takes() {
    let world = slow_world();
    let (here, there) = (&mut world.connection(0), &mut world.connection(1));
    run(here, &["SET text 1", "CL.TAKE other 1", TAKE]);
    // From now on the other region goes by the counters.
    left_there(here, there, 99);
    let moves = ["RENAME text text2", "RENAME text2 text", "COPY other copied REPLACE"];
    for step in moves.iter().cycle().take(30) {
        assert_eq!(ints(here, TAKE)[0], 1);
        run(here, &[step]);
    }
    left_there(here, there, 69);
}

/// A bucket that is back to what it was: what is taken from then on is counted anew.
#[test]
fn takes_from_a_bucket_that_was_put_back_are_seen() {
    let world = slow_world();
    let (here, there) = (&mut world.connection(0), &mut world.connection(1));
    run(here, &[TAKE, "COPY k before"]);
    for _ in 0..9 {
        assert_eq!(ints(here, TAKE)[0], 1);
    }
    left_there(here, there, 90);
    run(here, &["RENAME before k"]);
    for _ in 0..5 {
        assert_eq!(ints(here, TAKE)[0], 1);
    }
    // It knew of one take, and there have been five since.
    left_there(here, there, 94);
    left_there(there, here, 94);
}
