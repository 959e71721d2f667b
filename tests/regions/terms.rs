//! Policies and weights set in one region reach the others; the latest wins.

use crate::world::{PATIENCE, TICK, World};
use claw_testkit::{ask, eventually, run};
use redis::Value;
use std::time::Duration;

fn policy(world: &World, region: usize) -> Vec<String> {
    let policy: Vec<Value> = ask(&mut world.connection(region), "CL.POLICY k");
    policy.into_iter().map(|value| redis::from_redis_value(value).unwrap()).collect()
}

fn agree(world: &World, expected: [&str; 5]) {
    eventually(PATIENCE, TICK, &format!("{expected:?} everywhere"), || {
        (0..world.servers.len()).all(|region| {
            let policy = policy(world, region);
            policy.iter().skip(1).step_by(2).take(5).eq(expected.iter())
        })
    });
}

#[test]
fn the_latest_change_wins() {
    let world = World::start(3, Duration::ZERO);
    // The region, what is set there, and what holds everywhere then.
    let rows = [
        (0, "CL.POLICY k CAPACITY 50 REFILL 1", ["50", "1", "1000", "1", "1"]),
        (1, "CL.POLICY k CAPACITY 70", ["70", "1", "1000", "1", "1"]),
        (2, "CL.POLICY k WEIGHT 3", ["70", "1", "1000", "3", "1"]),
        (0, "CL.POLICY k REFILL 2 INTERVAL 100", ["70", "2", "100", "3", "1"]),
        (1, "CL.POLICY k WEIGHT 1", ["70", "2", "100", "1", "1"]),
        (2, "CL.POLICY k RESET", ["1000", "5", "1000", "1", "0"]),
        (2, "CL.POLICY k WEIGHT 9", ["1000", "5", "1000", "9", "0"]),
        (0, "CL.POLICY k CAPACITY 10 REFILL 0 WEIGHT 2", ["10", "0", "1000", "2", "1"]),
        (1, "CL.POLICY k RESET", ["1000", "5", "1000", "1", "0"]),
    ];
    for (region, change, expected) in rows {
        run(&mut world.connection(region), &[change]);
        agree(&world, expected);
    }
}

/// Set in two regions at once, one of them wins everywhere.
#[test]
fn changes_at_once_converge() {
    let world = World::start(2, Duration::ZERO);
    for round in 0..5 {
        world.set_cut(0, 1, true);
        run(&mut world.connection(0), &[&format!("CL.POLICY k CAPACITY 1{round} REFILL 1")]);
        run(&mut world.connection(1), &[&format!("CL.POLICY k CAPACITY 2{round} REFILL 1")]);
        world.set_cut(0, 1, false);
        eventually(PATIENCE, TICK, "both to agree", || policy(&world, 0) == policy(&world, 1));
        world.wait_until_quiet();
        // The same number of changes on both sides: the greater name decides.
        assert_eq!(policy(&world, 0)[1], format!("2{round}"));
    }
}

/// What is pinned for a time in one region holds in all of them, and ends in each by itself.
#[test]
fn a_pin_for_a_time_ends_everywhere() {
    let world = World::start(3, Duration::ZERO);
    run(&mut world.connection(1), &["CL.POLICY k CAPACITY 50 REFILL 5"]);
    agree(&world, ["50", "5", "1000", "1", "1"]);
    run(&mut world.connection(0), &["CL.POLICY k CAPACITY 10 REFILL 1 FOR 3000"]);
    agree(&world, ["10", "1", "1000", "1", "1"]);
    // Nobody has more of it left than there was, and a renewal reaches all.
    let left = |region: usize| policy(&world, region)[13].parse::<i64>().unwrap();
    assert!((0..3).all(|region| left(region) <= 3_000));
    run(&mut world.connection(2), &["CL.POLICY k REFILL 2 FOR 3000"]);
    agree(&world, ["10", "2", "1000", "1", "1"]);
    for region in 0..3 {
        run(&mut world.connection(region), &["CL.TAKE k"]);
    }
    // What lay beneath is there again, and stays while states go to and fro.
    agree(&world, ["50", "5", "1000", "1", "1"]);
    for region in 0..3 {
        run(&mut world.connection(region), &["CL.TAKE k"]);
        assert_eq!(left(region), -1);
    }
    world.wait_until_quiet();
    agree(&world, ["50", "5", "1000", "1", "1"]);
}
