//! One limit, whatever the load: the bound, and what is left afterwards.

use crate::world::{Told, World, client, clock, sampler, soak};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use claw_testkit::ints;

/// Two regions, 10,000 requests at once on one bucket.
#[test]
fn ten_thousand_concurrent_requests() {
    const TAKE: &str = "CL.TAKE shared 1 CAPACITY 1000 REFILL 100";
    let (capacity, refill) = (1000.0, 100.0);
    let world = World::start(2, Duration::ZERO);
    let told: [Told; 2] = Default::default();
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    thread::scope(|scope| {
        for region in 0..2 {
            let (world, told) = (&world, &told);
            scope.spawn(|| sampler(&world.servers[0], "shared", capacity, &stop));
            let callers = (0..25).map(|_| {
                scope.spawn(move || {
                    let conn = &mut world.connection(region);
                    for _ in 0..200 {
                        let granted = ints(conn, TAKE)[0] == 1;
                        let counter =
                            if granted { &told[region].granted } else { &told[region].refused };
                        counter.fetch_add(1, SeqCst);
                    }
                })
            });
            let callers: Vec<_> = callers.collect();
            if region == 1 {
                callers.into_iter().for_each(|caller| caller.join().unwrap());
            }
        }
        stop.store(true, SeqCst);
    });
    let seconds = began.elapsed().as_secs_f64();
    let granted: u64 = told.iter().map(|told| told.granted.load(SeqCst)).sum();
    let refused: u64 = told.iter().map(|told| told.refused.load(SeqCst)).sum();
    assert_eq!(granted + refused, 10_000);
    // Half a second is generous for a line without delay.
    let late = 0.5;
    let bound = capacity + refill * seconds + (capacity + refill * late) + refill * late;
    assert!(granted as f64 <= bound, "{granted} granted in {seconds} s, bound {bound}");

    world.wait_until_quiet();
    assert_eq!(world.spent("shared"), granted, "every acknowledged take, and no other");
    let left = world.left("CL.PEEK shared 0 CAPACITY 1000 REFILL 100");
    // They are asked one after the other, while it refills.
    assert!((left[0] - left[1]).abs() <= 5, "{left:?}");
    println!("granted {granted} in {seconds:.2} s, bound {bound:.0}, left {left:?}");
    world.no_warnings();
}

/// Three regions with 100 ms between them: after the burst the rate is that of
/// one bucket, however great the demand.
#[test]
fn the_long_run_rate_is_that_of_one_bucket() {
    let refill = 60.0;
    for demand in [1.6, 10.0] {
        let world = World::start(3, Duration::from_millis(100));
        let told: [Told; 3] = Default::default();
        let stop = AtomicBool::new(false);
        let seconds = 8.0 * soak() as f64;
        let ratio = thread::scope(|scope| {
            for region in 0..3 {
                let (server, told, stop) = (&world.servers[region], &told[region], &stop);
                let take = "CL.TAKE k 1 CAPACITY 30 REFILL 60";
                scope.spawn(move || client(server, take, refill * demand / 3.0, told, stop));
                scope.spawn(move || sampler(server, "k", 30.0, stop));
            }
            // The burst, and what is unknown until the first debits are there.
            thread::sleep(Duration::from_secs(3));
            let sum = || told.iter().map(|told| told.granted.load(SeqCst)).sum::<u64>() as f64;
            let (before, began) = (sum(), Instant::now());
            thread::sleep(Duration::from_secs_f64(seconds));
            let ratio = (sum() - before) / (refill * began.elapsed().as_secs_f64());
            stop.store(true, SeqCst);
            ratio
        });
        println!("demand {demand} r: granted / ideal {ratio:.3}");
        assert!((0.9..=1.06).contains(&ratio), "demand {demand}: {ratio}");
        let granted: u64 = told.iter().map(|told| told.granted.load(SeqCst)).sum();
        world.wait_until_quiet();
        assert_eq!(world.spent("k"), granted);
        world.no_warnings();
    }
}

/// Clocks an hour apart change nothing.
#[test]
fn clocks_an_hour_apart() {
    let Some((library, file)) = clock(3_600_000_000, "apart") else {
        return;
    };
    let world = World::start_with(2, Duration::ZERO, &|region, builder| match region {
        0 => builder,
        _ => builder.env("LD_PRELOAD", &library).env("CLAW_CLOCK", &file),
    });
    let look = "CL.PEEK k 0 CAPACITY 100 REFILL 1";
    for (region, tokens, left) in [(0, 30, 70), (1, 40, 30), (0, 20, 10)] {
        let conn = &mut world.connection(region);
        ints(conn, &format!("CL.TAKE k {tokens} CAPACITY 100 REFILL 1"));
        world.wait_until_quiet();
        let seen = world.left(look);
        // What refills meanwhile.
        assert!(seen.iter().all(|seen| (left..=left + 10).contains(seen)), "{seen:?}, {left}");
        assert!((seen[0] - seen[1]).abs() <= 1, "{seen:?}");
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
    fn spent_and_given(&self, key: &str) -> (u64, u64) {
        let entries = self.entries(key);
        let sum = |of: fn(&claw_core::debit::Entry) -> u64| {
            entries.values().map(of).sum::<u64>() / 1_000_000
        };
        (sum(|entry| entry.spent), sum(|entry| entry.refunded))
    }
}
