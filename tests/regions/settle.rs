//! What is used is booked afterwards, in every region.

use crate::world::{PATIENCE, StopOnDrop, TICK, World, share};
use claw_testkit::{Random, Server, ask, eventually, info_field, int, ints, run};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

const LOOK: &str = "CL.PEEK k 0";

/// A bucket of 10 tokens that never refills, which all regions know.
fn world(regions: usize) -> World {
    let world = World::start_with(regions, Duration::ZERO, &|_, builder| {
        builder.config("claw.partition-timeout-ms", "500")
    });
    run(&mut world.connection(0), &["CL.POLICY k CAPACITY 10 REFILL 0", "CL.TAKE k 4"]);
    agree(&world, 6);
    world
}

fn agree(world: &World, left: i64) {
    eventually(PATIENCE, TICK, &format!("{left} everywhere"), || {
        world.left(LOOK).iter().all(|there| *there == left)
    });
}

#[test]
fn a_settlement_is_one_everywhere() {
    let world = world(2);
    // The region, its call and its answer, and what is left everywhere then.
    let rows = [
        (0, "CL.SETTLE k 4 1", [-3, 10, 9, 0, -1], 9),
        (1, "CL.SETTLE k 0 5", [5, 10, 4, 0, -1], 4),
        (1, "CL.SETTLE k 7 7", [0, 10, 4, 0, -1], 4),
        (0, "CL.SETTLE k 2 9", [7, 10, -3, 0, -1], -3),
        // A debt is one for all.
        (1, "CL.TAKE k", [0, 10, -3, -1, -1], -3),
        (1, "CL.TAKE k 1 PARTIAL", [0, 10, -3, -1, -1], -3),
        (1, "CL.SETTLE k 0 9", [7, 10, -10, -1, -1], -10),
        (0, "CL.SETTLE k 0 1", [0, 10, -10, -1, -1], -10),
        (0, "CL.GIVE k 2", [2, 10, -8, 0, -1], -8),
        // What another one took can be given back, and no more than fits in.
        (1, "CL.SETTLE k 99 0", [-18, 10, 10, 0, 0], 10),
        (0, "CL.SETTLE k 0 20", [20, 10, -10, 0, -1], -10),
    ];
    for (region, line, expected, left) in rows {
        assert_eq!(ints(&mut world.connection(region), line), expected, "r{region}: {line}");
        agree(&world, left);
    }
    world.wait_until_quiet();
    // 4 + 5 + 7 + 7 + 20 taken, 3 + 2 + 18 given back.
    assert_eq!(world.spent_and_given("k"), (43, 23));
    world.no_warnings();
}

/// Each books as far as it sees, which together may be further than each alone would.
#[test]
fn debts_of_a_cut_add_up() {
    for settings in [["equal", "500"], ["share", "500"], ["off", "3600000"]] {
        let world = World::start_with(2, Duration::ZERO, &|_, builder| {
            builder
                .config("claw.partition-guard", settings[0])
                .config("claw.partition-timeout-ms", settings[1])
        });
        run(&mut world.connection(0), &["CL.POLICY k CAPACITY 10 REFILL 0", "CL.TAKE k 4"]);
        agree(&world, 6);
        world.set_cut(0, 1, true);
        for region in 0..2 {
            let conn = &mut world.connection(region);
            assert_eq!(ints(conn, "CL.SETTLE k 0 99")[..3], [16, 10, -10], "{settings:?}");
        }
        world.set_cut(0, 1, false);
        world.wait_until_connected();
        agree(&world, -26);
        assert_eq!(world.spent("k"), 36, "{settings:?}");
        for region in 0..2 {
            let conn = &mut world.connection(region);
            assert_eq!(ask::<String>(conn, "HGET k tokens"), "-26", "{settings:?}");
            // Nobody books more, and all of it can be given back.
            assert_eq!(ints(conn, "CL.SETTLE k 0 1"), [0, 10, -26, -1, -1], "{settings:?}");
        }
        assert_eq!(ints(&mut world.connection(1), "CL.SETTLE k 36 0")[..3], [-36, 10, 10]);
        agree(&world, 10);
        world.no_warnings();
    }
}

/// Whatever is reserved and used, over and under, on both sides at once: what was acknowledged
/// is in the books of all, to the token, and is what is missing.
#[test]
fn the_books_balance() {
    let world = World::start(2, Duration::from_millis(5));
    let capacity = 1_000_000;
    let booked = AtomicI64::new(0);
    let overrun = AtomicI64::new(0);
    thread::scope(|scope| {
        for client in 0..6_u64 {
            let (server, booked, overrun) =
                (&world.servers[client as usize % 2], &booked, &overrun);
            scope.spawn(move || {
                let conn = &mut server.connection();
                let random = &mut Random::new(client);
                let policy = format!("CAPACITY {capacity} REFILL 0");
                for _ in 0..300 {
                    let reserved = random.below(20);
                    let got = ints(conn, &format!("CL.TAKE k {reserved} PARTIAL {policy}"))[0];
                    let used = random.below(40);
                    let settled = ints(conn, &format!("CL.SETTLE k {got} {used} {policy}"))[0];
                    assert_eq!(settled, used as i64 - got);
                    overrun.fetch_add(settled.max(0), SeqCst);
                    booked.fetch_add(got + settled, SeqCst);
                }
            });
        }
    });
    world.wait_until_quiet();
    let booked = booked.load(SeqCst);
    assert_eq!(i64::try_from(world.spent("k")).unwrap(), booked);
    agree(&world, capacity - booked);
    let of = |server: &Server, field: &str| -> i64 {
        let value = info_field(&mut server.connection(), "claw", field);
        value.unwrap().parse().unwrap()
    };
    let sum = world.servers.iter().map(|server| of(server, "claw_tokens_overrun")).sum::<i64>();
    assert_eq!(sum, overrun.load(SeqCst));
    world.no_warnings();
}

/// The refill pays for what is owed, once for all regions, and the waits are true in each.
#[test]
fn a_debt_is_paid_once() {
    let world = World::start(2, Duration::ZERO);
    let policy = "CAPACITY 40 REFILL 10";
    let stop = AtomicBool::new(false);
    run(&mut world.connection(0), &[&format!("CL.SETTLE k 0 80 {policy}")]);
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        eventually(PATIENCE, TICK, "the other to know", || {
            int(&mut world.connection(1), "EXISTS k") == 1
        });
        let granted: Vec<_> = (0..2)
            .map(|region| {
                let server = &world.servers[region];
                scope.spawn(move || {
                    let conn = &mut server.connection();
                    let refused = ints(conn, &format!("CL.TAKE k 1 {policy}"));
                    assert!(refused[0] == 0 && refused[3] > 0, "r{region}: {refused:?}");
                    thread::sleep(Duration::from_millis(refused[3].unsigned_abs()));
                    ints(conn, &format!("CL.PEEK k 1 {policy}"))
                })
            })
            .collect();
        for granted in granted {
            let granted = granted.join().unwrap();
            assert_eq!((granted[0], granted[3]), (1, 0), "{granted:?}");
        }
    });
    // A full bucket goes, and its debt with it.
    eventually(PATIENCE, TICK, "both to be gone", || {
        (0..2).all(|region| int(&mut world.connection(region), "EXISTS k") == 0)
    });
    world.no_warnings();
}

/// A bucket that blocks holds nothing in any region, and what a call brings is its region's own.
#[test]
fn a_pin_of_nothing_blocks_everywhere() {
    let world = world(2);
    run(&mut world.connection(1), &["CL.POLICY k CAPACITY 0"]);
    agree(&world, 0);
    for region in 0..2 {
        let conn = &mut world.connection(region);
        assert_eq!(ints(conn, "CL.TAKE k"), [0, 0, 0, -1, 0], "r{region}");
        assert_eq!(ints(conn, "CL.SETTLE k 0 5"), [0, 0, 0, -1, 0], "r{region}");
    }
    run(&mut world.connection(0), &["CL.POLICY k CAPACITY 7"]);
    world.wait_until_quiet();
    for region in 0..2 {
        let conn = &mut world.connection(region);
        assert_eq!(ints(conn, "CL.TAKE k"), [0, 7, 0, -1, -1], "r{region}");
    }
    world.no_warnings();
}

/// Whoever is cut off admits a share, and what has been used up of it is no debt.
#[test]
fn a_share_that_is_used_up_is_no_debt() {
    let world = World::start_with(2, Duration::ZERO, &|_, builder| {
        builder.config("claw.partition-guard", "equal").config("claw.partition-timeout-ms", "500")
    });
    let conn = &mut world.connection(0);
    run(conn, &["CL.POLICY k CAPACITY 10 REFILL 0", "CL.TAKE k 8"]);
    agree(&world, 2);
    world.set_cut(0, 1, true);
    eventually(PATIENCE, TICK, "the half to be all", || share(conn) == 500);
    // Of 5 that are this region's, 8 are taken, and of 10, 2 are left.
    assert_eq!(ints(conn, LOOK)[..3], [0, 10, 0]);
    assert_eq!(ints(conn, "CL.TAKE k")[..3], [0, 10, 0]);
    assert_eq!(ask::<String>(conn, "HGET k tokens"), "2");
    // And a debt is what is owed, whatever the share.
    assert_eq!(ints(conn, "CL.SETTLE k 0 5")[..4], [5, 10, -3, 0]);
    assert_eq!(ints(conn, LOOK)[..3], [0, 10, -3]);
    assert_eq!(ask::<String>(conn, "HGET k tokens"), "-3");
}
