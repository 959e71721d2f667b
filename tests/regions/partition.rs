//! Regions that cannot hear each other.

use crate::world::{
    PATIENCE, StopOnDrop, TICK, Told, World, client, field, sampler, share, silent, stall, status,
};
use claw_testkit::{ask, eventually, int, ints, run, soak};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

/// The lines between 2 and the others.
fn cut(world: &World, cut: bool) {
    world.set_cut(0, 2, cut);
    world.set_cut(1, 2, cut);
}

fn guarded(guard: &'static str) -> World {
    World::start_with(3, Duration::ZERO, &|_, builder| {
        builder.config("claw.partition-guard", guard).config("claw.partition-timeout-ms", "1000")
    })
}

/// At nine tenths of the limit, evenly spread, nobody is refused: not before the
/// cut, not in it and not after.
#[test]
fn nobody_within_the_limit_is_refused() {
    for guard in ["equal", "share"] {
        let world = guarded(guard);
        let told: [Told; 3] = Default::default();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let _stop = StopOnDrop(&stop);
            for region in 0..3 {
                let (server, told, stop) = (&world.servers[region], &told[region], &stop);
                let take = "CL.TAKE k 1 CAPACITY 90 REFILL 60";
                scope.spawn(move || client(server, take, 0.9 * 60.0 / 3.0, told, stop));
            }
            thread::sleep(Duration::from_secs(3));
            cut(&world, true);
            thread::sleep(Duration::from_secs(6 * soak()));
            eventually(PATIENCE, TICK, "shares of a cut", || {
                (0..3).all(|n| share(&mut world.connection(n)) < 1_000)
            });
            cut(&world, false);
            let healed = Instant::now();
            world.wait_until_connected();
            println!("{guard}: recovered after {:?}", healed.elapsed());
            thread::sleep(Duration::from_secs(3));
        });
        let sum = |of: fn(&Told) -> u64| told.iter().map(of).sum::<u64>();
        let refused = sum(|told| told.refused.load(SeqCst));
        assert_eq!(refused, 0, "{guard}");
        for told in &told {
            let granted = told.granted.load(SeqCst);
            assert!(granted > 100, "{guard}: {granted}");
        }
        world.wait_until_quiet();
        assert_eq!(world.spent("k"), sum(|told| told.granted.load(SeqCst)), "{guard}");
        world.no_warnings();
    }
}

/// At three times the limit the sum stays within the bound, which does not depend
/// on how long the cut lasts.
#[test]
fn the_bound_holds_in_a_cut() {
    let (capacity, refill, timeout) = (60.0, 60.0, 1.0);
    for guard in ["equal", "share"] {
        let world = guarded(guard);
        let told: [Told; 3] = Default::default();
        let stop = AtomicBool::new(false);
        let began = Instant::now();
        thread::scope(|scope| {
            let _stop = StopOnDrop(&stop);
            for region in 0..3 {
                let (server, told, stop) = (&world.servers[region], &told[region], &stop);
                let take = "CL.TAKE k 1 CAPACITY 60 REFILL 60";
                scope.spawn(move || client(server, take, refill, told, stop));
                scope.spawn(move || sampler(server, "k", 60.0, stop));
            }
            thread::sleep(Duration::from_secs(2));
            cut(&world, true);
            thread::sleep(Duration::from_secs(8 * soak()));
            let share = |region| share(&mut world.connection(region));
            let shares = || [share(0), share(1), share(2)];
            if guard == "equal" {
                eventually(PATIENCE, TICK, "equal shares", || shares() == [666, 666, 333]);
            }
            // One side against the other: together no more than the whole.
            let shares = shares();
            println!("{guard}: shares in the cut {shares:?}");
            assert!(shares[0] + shares[2] <= 1_010, "{shares:?}");
            cut(&world, false);
            world.wait_until_connected();
            thread::sleep(Duration::from_secs(2));
        });
        let seconds = began.elapsed().as_secs_f64();
        let granted: u64 = told.iter().map(|told| told.granted.load(SeqCst)).sum();
        // Until the cut is noticed nothing is known: half a second more is generous.
        let stall = stall(&told);
        let late = timeout + 0.5 + stall;
        let bound = capacity + refill * seconds + 2.0 * (capacity + refill * late) + refill * late;
        let one = capacity + refill * seconds;
        println!("{guard}: granted {granted}, one bucket {one:.0}, bound {bound:.0}");
        assert!((granted as f64) <= bound, "{guard}: {granted} of {bound}");
        assert!(granted as f64 >= 0.9 * one - refill * stall, "{guard}: {granted} of {one}");
        world.wait_until_quiet();
        assert_eq!(world.spent("k"), granted, "{guard}");
        world.no_warnings();
    }
}

/// A peer that hangs holds nobody up, and its states are sent when it is back.
#[test]
fn a_peer_that_hangs_slows_nobody() {
    let world = World::start(3, Duration::ZERO);
    let stopped = world.servers[2].pid().to_string();
    let signal = |signal: &str| {
        let done = std::process::Command::new("kill").args([signal, &stopped]).status();
        assert!(done.unwrap().success());
    };
    signal("-STOP");
    let conn = &mut world.connection(0);
    let began = Instant::now();
    let mut longest = Duration::ZERO;
    for _ in 0..2_000 {
        let before = Instant::now();
        assert_eq!(ints(conn, "CL.TAKE k 1 CAPACITY 5000 REFILL 0")[0], 1);
        longest = longest.max(before.elapsed());
    }
    println!("2000 takes in {:?}, the longest {longest:?}", began.elapsed());
    // A peer's time-outs are a second; nobody waits for one.
    assert!(longest < Duration::from_millis(900), "{longest:?}");
    let other = &mut world.connection(1);
    eventually(PATIENCE, TICK, "the third region to know", || {
        ints(other, "CL.PEEK k 0 CAPACITY 5000 REFILL 0")[2] == 3_000
    });
    signal("-CONT");
    let back = &mut world.connection(2);
    eventually(PATIENCE, TICK, "the one that hung to know", || {
        ints(back, "CL.PEEK k 0 CAPACITY 5000 REFILL 0")[2] == 3_000
    });
}

/// A full bucket goes by itself within a minute, on every side, whoever is away; nothing is written
/// or sent for it meanwhile, however often the walk comes by.
#[test]
fn idle_buckets_go_whoever_is_away() {
    let world = World::start(3, Duration::ZERO);
    world.set_cut(0, 2, true);
    for region in [0, 1] {
        let conn = &mut world.connection(region);
        for n in 0..100 {
            assert_eq!(ints(conn, &format!("CL.TAKE r{region}:{n} 1 CAPACITY 5 REFILL 5"))[0], 1);
        }
    }
    let ends = |region: usize| {
        let conn = &mut world.connection(region);
        let keys: Vec<String> = ask(conn, "KEYS *");
        let ends = keys.iter().map(|key| int(conn, &format!("PEXPIRETIME {key}"))).collect();
        keys.iter().cloned().zip::<Vec<i64>>(ends).collect::<BTreeMap<_, _>>()
    };
    eventually(PATIENCE, TICK, "both to have them all", || {
        [0, 1].into_iter().all(|region| ends(region).len() == 200)
    });
    let sent = |region: usize| field(&mut world.connection(region), "sync_states_sent");
    // A bucket of capacity 5 is full again in less than a second.
    eventually(PATIENCE, TICK, "all to be full", || {
        let conn = &mut world.connection(0);
        (0..100).all(|n| ints(conn, &format!("CL.PEEK r1:{n} 0 CAPACITY 5 REFILL 5"))[2] == 5)
    });
    let before = [0, 1].map(ends);
    // The third region, which knows of nothing, is told everything that is alive: nothing is.
    let walks = |region: usize| field(&mut world.connection(region), "sync_walks");
    let walked = [walks(0), walks(1)];
    for region in [0, 1] {
        let conn = &mut world.connection(region);
        // Senders that begin anew do not know what their peers have.
        run(conn, &["CONFIG SET claw.sync-interval-ms 51"]);
    }
    eventually(PATIENCE, TICK, "both to have walked over them again", || {
        [0, 1].into_iter().all(|region| walks(region) > walked[region])
    });
    for (region, ends_before) in before.into_iter().enumerate() {
        for (key, end) in ends(region) {
            assert_eq!(Some(&end), ends_before.get(&key), "{key} in {region}");
        }
        // Counted by the senders that have begun since.
        assert_eq!(sent(region), 0, "{region}");
    }
    eventually(Duration::from_secs(60), TICK, "nothing to be left", || {
        [0, 1].into_iter().all(|region| int(&mut world.connection(region), "DBSIZE") == 0)
    });
    assert_eq!([sent(0), sent(1)], [0, 0]);
    world.no_warnings();
}

/// Whatever somebody has done to a shared bucket by hand, its expiry is behind the moment
/// at which it is full, with the next take.
#[test]
fn an_expiry_fits_what_was_written_by_hand() {
    let world = World::start(2, Duration::ZERO);
    let conn = &mut world.connection(0);
    run(conn, &["CONFIG SET claw.refill-rate-per-sec 1", "CL.TAKE k"]);
    let soon = 5..=21;
    assert!(soon.contains(&int(conn, "TTL k")), "{}", int(conn, "TTL k"));
    for by_hand in ["PERSIST k", "EXPIRE k 1", "EXPIRE k 10000"] {
        run(conn, &[by_hand, "CL.TAKE k"]);
        assert!(soon.contains(&int(conn, "TTL k")), "{by_hand}: {}", int(conn, "TTL k"));
    }
    for by_hand in ["HSET k tokens 500", "EXPIRE k 5", "PERSIST k"] {
        run(conn, &[by_hand, "CL.TAKE k"]);
        let left = int(conn, "TTL k");
        assert!((490..=530).contains(&left), "{by_hand}: {left}");
    }
    // Who takes no more is looked after by the walk.
    run(conn, &["HSET k tokens 999.5", "PERSIST k"]);
    eventually(Duration::from_secs(120), TICK, "an expiry again", || int(conn, "TTL k") > 0);
}

/// A line that is cut in one direction is cut for both: who is not heard admits its part only, too.
#[test]
fn who_is_not_heard_admits_its_part() {
    let world = World::start_with(2, Duration::ZERO, &|_, builder| {
        builder.config("claw.partition-guard", "equal").config("claw.partition-timeout-ms", "500")
    });
    let both = |expected: [&str; 2], permille: u64| {
        eventually(PATIENCE, TICK, &format!("{expected:?}"), || {
            [0, 1].into_iter().all(|region| {
                let conn = &mut world.connection(region);
                silent(conn) == expected[region] && share(conn) == permille
            })
        });
    };
    both(["no", "no"], 1_000);
    let told = |permille: u64| {
        let line = format!("this region now admits {permille} permille");
        world.servers.iter().map(|server| server.log().matches(&line).count()).collect::<Vec<_>>()
    };
    let conn = &mut world.connection(0);
    let (walks, before) = (field(conn, "sync_walks"), told(500));
    world.set_unheard(0, 1, true);
    both(["deaf", "yes"], 500);
    // It is a round of the other that says so. Expiries are put right and the log is told then, too.
    eventually(PATIENCE, TICK, "a walk", || field(conn, "sync_walks") > walks);
    let more = |permille: u64, before: &[usize]| {
        eventually(PATIENCE, TICK, &format!("both logs to say {permille}"), || {
            told(permille).iter().zip(before).all(|(now, before)| now > before)
        });
    };
    more(500, &before);
    let before = told(1_000);
    world.set_unheard(0, 1, false);
    both(["no", "no"], 1_000);
    more(1_000, &before);
}

/// Two regions that do not hear each other are told by a third, which both hear: they
/// need no guard, and their limit stays one.
#[test]
fn a_region_between_two_others_passes_on() {
    const LOOK: &str = "CL.PEEK k 0";
    let world = World::start_with(3, Duration::ZERO, &|_, builder| {
        builder.config("claw.partition-guard", "equal").config("claw.partition-timeout-ms", "500")
    });
    let agree = |left: i64| {
        eventually(PATIENCE, TICK, &format!("{left} everywhere"), || world.left(LOOK) == [left; 3]);
    };
    let heard = |region: usize, of: &str| {
        let heard = status(&mut world.connection(region), "heard");
        heard.into_iter().find(|peer| peer["replica_id"] == of).unwrap()["silent"].clone()
    };
    run(&mut world.connection(2), &["CL.POLICY k CAPACITY 1000 REFILL 0", "CL.TAKE k 100"]);
    agree(900);
    world.set_cut(0, 1, true);
    // On both sides of it before anybody has noticed.
    run(&mut world.connection(0), &["CL.TAKE k 10"]);
    run(&mut world.connection(1), &["CL.TAKE k 20"]);
    agree(870);
    eventually(PATIENCE, TICK, "the third to pass on", || {
        [(0, "r1"), (1, "r0")].into_iter().all(|(region, of)| heard(region, of) == "relayed")
    });
    eventually(PATIENCE, TICK, "nobody to be silent", || {
        [(0, "r2"), (2, "r0"), (2, "r1")].into_iter().all(|(region, of)| heard(region, of) == "no")
            && (0..3).all(|region| {
                let conn = &mut world.connection(region);
                share(conn) == 1_000 && field(conn, "sync_peers_silent") == 0
            })
    });
    for region in [0, 1, 0, 1] {
        run(&mut world.connection(region), &["CL.TAKE k 100"]);
        let left = world.left(LOOK)[region];
        agree(left);
    }
    run(&mut world.connection(1), &["CL.GIVE k 50"]);
    agree(520);
    run(&mut world.connection(0), &["CL.POLICY k CAPACITY 2000 REFILL 0"]);
    // What was there is there under another policy.
    agree(520);
    // Without the third they are alone.
    world.set_cut(0, 2, true);
    eventually(PATIENCE, TICK, "one to be alone", || {
        let share = |region| share(&mut world.connection(region));
        [share(0), share(1), share(2)] == [333, 666, 666]
    });
    world.set_cut(0, 1, false);
    world.set_cut(0, 2, false);
    world.wait_until_connected();
    eventually(PATIENCE, TICK, "all to hear each other", || {
        [(0, "r1"), (1, "r0")].into_iter().all(|(region, of)| heard(region, of) == "no")
    });
    world.wait_until_quiet();
    assert_eq!(world.spent("k"), 480);
    world.no_warnings();
}
