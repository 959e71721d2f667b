//! One limit, whatever the load: the bound, and what is left afterwards.

use crate::clock_shim::ClockShim;
use crate::world::{StopOnDrop, Told, World, client, sampler, stall};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use claw_testkit::{ints, soak};

/// Two regions, 10,000 requests at once on one bucket, and then for long enough as many
/// as would have two buckets give out more than the bound.
#[test]
fn ten_thousand_concurrent_requests() {
    const TAKE: &str = "CL.TAKE shared 1 CAPACITY 1000 REFILL 100";
    let (capacity, refill) = (1000.0, 100.0);
    let world = World::start(2, Duration::ZERO);
    let told: [Told; 2] = Default::default();
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let sum = |of: fn(&Told) -> &AtomicU64| -> u64 {
        told.iter().map(|told| of(told).load(SeqCst)).sum()
    };
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let (world, told, stop) = (&world, &told, &stop);
        let caller = |region: usize| {
            let told = &told[region];
            move || {
                let conn = &mut world.connection(region);
                for _ in 0..200 {
                    let granted = ints(conn, TAKE)[0] == 1;
                    let counter = if granted { &told.granted } else { &told.refused };
                    counter.fetch_add(1, SeqCst);
                }
            }
        };
        for region in 0..2 {
            scope.spawn(move || sampler(&world.servers[region], "shared", capacity, stop));
        }
        let callers: Vec<_> = (0..50).map(|n| scope.spawn(caller(n % 2))).collect();
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        let granted = sum(|told| &told.granted);
        assert_eq!(granted + sum(|told| &told.refused), 10_000);
        let seconds = began.elapsed().as_secs_f64();
        println!("granted {granted} in {seconds:.2} s, one bucket {}", capacity + refill * seconds);
        for (server, told) in world.servers.iter().zip(told) {
            scope.spawn(move || client(server, TAKE, 2.0 * refill, told, stop));
        }
        thread::sleep(Duration::from_secs(8));
    });
    let seconds = began.elapsed().as_secs_f64();
    let granted = sum(|told| &told.granted);
    // Half a second is generous for a line without delay.
    let late = 0.5 + stall(&told);
    let bound = capacity + refill * seconds + (capacity + refill * late) + refill * late;
    assert!(granted as f64 <= bound, "{granted} granted in {seconds} s, bound {bound}");

    world.wait_until_quiet();
    assert_eq!(world.spent("shared"), granted, "every acknowledged take, and no other");
    world.agree_on("CL.PEEK shared 0 CAPACITY 1000 REFILL 100", 2);
    println!("granted {granted} in {seconds:.2} s, bound {bound:.0}");
    world.no_warnings();
}

/// Three regions with 100 ms between them: after the burst the rate is that of
/// one bucket, however great the demand. The longer, the closer: `CLAW_SOAK`.
#[test]
fn the_long_run_rate_is_that_of_one_bucket() {
    let (capacity, refill) = (30.0, 60.0);
    for demand in [1.6, 10.0] {
        let world = World::start(3, Duration::from_millis(100));
        let told: [Told; 3] = Default::default();
        let stop = AtomicBool::new(false);
        let seconds = 12.0 * soak() as f64;
        let (granted, seconds) = thread::scope(|scope| {
            let _stop = StopOnDrop(&stop);
            for region in 0..3 {
                let (server, told, stop) = (&world.servers[region], &told[region], &stop);
                let take = "CL.TAKE k 1 CAPACITY 30 REFILL 60";
                scope.spawn(move || client(server, take, refill * demand / 3.0, told, stop));
                scope.spawn(move || sampler(server, "k", capacity, stop));
            }
            // The burst, and what is unknown until the first debits are there.
            thread::sleep(Duration::from_secs(3));
            let sum = || told.iter().map(|told| told.granted.load(SeqCst)).sum::<u64>() as f64;
            let (before, began) = (sum(), Instant::now());
            thread::sleep(Duration::from_secs_f64(seconds));
            (sum() - before, began.elapsed().as_secs_f64())
        });
        let (ideal, stall) = (refill * seconds, stall(&told));
        println!("demand {demand} r: granted / ideal {:.3}, stall {stall:.3} s", granted / ideal);
        // The line, the interval, and a generous allowance for both ends.
        let late = 0.5 + stall;
        let bound = capacity + ideal + 2.0 * (capacity + refill * late) + refill * late;
        assert!(granted <= bound, "demand {demand}: {granted} of {bound}");
        let least = 0.9 * ideal - refill * stall;
        assert!(granted >= least, "demand {demand}: {granted}, not {least}");
        let granted: u64 = told.iter().map(|told| told.granted.load(SeqCst)).sum();
        world.wait_until_quiet();
        assert_eq!(world.spent("k"), granted);
        world.no_warnings();
    }
}

/// Clocks an hour apart change nothing.
#[test]
fn clocks_an_hour_apart() {
    let Some(clock) = ClockShim::new("apart") else { return };
    clock.set("ahead", 3_600_000_000);
    let world = World::start_with(2, Duration::ZERO, &|region, builder| match region {
        0 => builder,
        _ => clock.on(builder, "ahead"),
    });
    let look = "CL.PEEK k 0 CAPACITY 100 REFILL 1";
    for (region, tokens, left) in [(0, 30, 70), (1, 40, 30), (0, 20, 10)] {
        let conn = &mut world.connection(region);
        ints(conn, &format!("CL.TAKE k {tokens} CAPACITY 100 REFILL 1"));
        world.wait_until_quiet();
        let seen = world.left(look);
        // What refills meanwhile.
        assert!(seen.iter().all(|seen| (left..=left + 10).contains(seen)), "{seen:?}, {left}");
        world.agree_on(look, 1);
    }
    assert_eq!(world.spent("k"), 90);
}

/// Giving back in one region is known in the others.
#[test]
fn what_is_given_back_is_given_back_everywhere() {
    let world = World::start(3, Duration::ZERO);
    ints(&mut world.connection(0), "CL.TAKE k 50 CAPACITY 100 REFILL 0");
    world.wait_until_quiet();
    assert_eq!(world.left("CL.PEEK k 0 CAPACITY 100 REFILL 0"), [50, 50, 50]);
    ints(&mut world.connection(1), "CL.GIVE k 20");
    world.wait_until_quiet();
    assert_eq!(world.left("CL.PEEK k 0 CAPACITY 100 REFILL 0"), [70, 70, 70]);
    assert_eq!(world.spent_and_given("k"), (50, 20));
}

impl World {
    pub fn spent_and_given(&self, key: &str) -> (u64, u64) {
        let entries = self.entries(key);
        let sum = |of: fn(&claw_core::debits::Counter) -> u64| {
            entries.values().map(of).sum::<u64>() / 1_000_000
        };
        (sum(|entry| entry.spent), sum(|entry| entry.refunded))
    }
}
