//! Regions with a line between them that is much too slow.

use crate::world::{PATIENCE, StopOnDrop, TICK, World, share};
use claw_testkit::{eventually, run, soak};
use redis::Connection;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

/// Takes from many buckets, as fast as it goes, a hundred at a time and then a rest.
fn burst(conn: &mut Connection, region: usize, rest: Duration, stop: &AtomicBool) {
    let mut key = 0_u64;
    while !stop.load(SeqCst) {
        let mut pipe = redis::pipe();
        for _ in 0..100 {
            key += 1;
            pipe.cmd("CL.TAKE").arg(format!("r{region}:{}", key % 5_000)).ignore();
        }
        pipe.query::<()>(conn).unwrap();
        thread::sleep(rest);
    }
}

/// Who cannot hear each other in time share the limit by what both have agreed on before: one that
/// was quiet and now bursts does not take the larger part on top of the other's.
#[test]
fn shares_add_up_to_one_limit_over_a_slow_line() {
    let world = World::start_with(2, Duration::ZERO, &|_, builder| {
        builder
            .config("claw.partition-guard", "share")
            .config("claw.partition-timeout-ms", "1000")
            .config("claw.max-tokens", "1000000000")
    });
    let stop = [AtomicBool::new(false), AtomicBool::new(false)];
    let (mut both_cut, mut most) = (0, 0);
    thread::scope(|scope| {
        let _stop = (StopOnDrop(&stop[0]), StopOnDrop(&stop[1]));
        let conn = &mut world.connection(0);
        // The first is busy until both know it.
        scope.spawn(|| burst(&mut world.connection(0), 0, Duration::from_millis(10), &stop[0]));
        thread::sleep(Duration::from_secs(4));
        world.set_speed(0, 1, 5_000);
        scope.spawn(|| burst(&mut world.connection(1), 1, Duration::from_millis(1), &stop[1]));
        let other = &mut world.connection(1);
        let end = Instant::now() + Duration::from_secs(15 * soak());
        while Instant::now() < end {
            let (here, there, again) = (share(conn), share(other), share(conn));
            // Who is whole hears the other, and has its takes in its buckets.
            if here == again && here < 1_000 && there < 1_000 {
                both_cut += 1;
                most = most.max(here + there);
            }
            thread::sleep(TICK);
        }
    });
    println!("both cut off in {both_cut} looks, with at most {most} permille together");
    assert!(both_cut > 20, "the line was not slow enough: {both_cut}");
    assert!(most <= 1_001, "{most} permille together");
    world.set_speed(0, 1, 0);
    for region in [0, 1] {
        let conn = &mut world.connection(region);
        eventually(PATIENCE, TICK, "all to be whole", || share(conn) == 1_000);
        run(conn, &["CL.TAKE k 1"]);
    }
    world.no_warnings();
}
