//! Peers that answer, and refuse what they are sent: for the limit that is as bad as silence, for
//! memory and expiry it is not, and it heals by itself.

use crate::world::{
    Adjust, PATIENCE, StopOnDrop, TICK, Told, World, all_whole, client, share, silent, stall,
    status,
};
use claw_testkit::{cmd, eventually, info_field, int, run};
use redis::Connection;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_millis(500);

/// How soon all is well again once the cause is gone: a peer that refuses is tried once a
/// second.
const SOON: Duration = Duration::from_secs(3);

/// What keeps a region from taking states, and what mends that.
struct Cause {
    code: &'static str,
    begins: &'static [&'static str],
    ends: &'static [&'static str],
    /// Not sensible of both regions at once: nobody would be left to say anything.
    one_sided: bool,
}

const fn cause(
    code: &'static str,
    begins: &'static [&'static str],
    ends: &'static [&'static str],
) -> Cause {
    Cause { code, begins, ends, one_sided: false }
}

/// Without the right to send states: takes go on as ever.
const NOPERM: Cause =
    cause("NOPERM", &["ACL SETUSER claw -cl.sync|states"], &["ACL SETUSER claw +cl.sync|states"]);

#[rustfmt::skip]
const CAUSES: &[Cause] = &[
    cause("OOM", &["CONFIG SET maxmemory 1"], &["CONFIG SET maxmemory 0"]),
    cause("NOREPLICAS", &["CONFIG SET min-replicas-to-write 1"], &["CONFIG SET min-replicas-to-write 0"]),
    // Nothing can be written there, whoever the server runs as.
    cause("MISCONF", &["CONFIG SET stop-writes-on-bgsave-error yes", "CONFIG SET dir /proc", "BGSAVE"], &["CONFIG SET stop-writes-on-bgsave-error no"]),
    NOPERM,
    cause("WRONGPASS", &["ACL SETUSER claw resetpass >other", "CLIENT KILL USER claw"], &["ACL SETUSER claw resetpass >known"]),
    Cause { one_sided: true, ..cause("READONLY", &["REPLICAOF 127.0.0.1 1"], &["REPLICAOF NO ONE"]) },
];

/// Two regions that log in to each other as the user `claw`.
fn logged_in() -> World {
    let adjust: Adjust<'_> = &|_, builder| {
        builder
            .config("claw.partition-guard", "equal")
            .config("claw.partition-timeout-ms", TIMEOUT.as_millis().to_string())
            .config("enable-protected-configs", "yes")
            .config("save", "3600 1")
            .config_args("user", ["claw", "on", ">known", "~*", "-@all", "+@all"])
    };
    let world = World::start_with(2, Duration::ZERO, adjust);
    for region in 0..2 {
        let peers = world.peers(region).replace("redis://", "redis://claw:known@");
        run(&mut world.connection(region), &[&format!("CONFIG SET claw.peers {peers}")]);
        eventually(PATIENCE, TICK, "the login", || {
            let peers = status(&mut world.connection(region), "peers");
            peers.iter().any(|peer| peer["url"].contains("claw:***@"))
        });
    }
    world.wait_until_connected();
    world
}

fn refused_with(conn: &mut Connection) -> String {
    status(conn, "peers")[0]["refusing"].clone()
}

/// Who refuses is named with the reason, and counts as silent; whom it refuses knows, so that
/// neither admits the whole.
#[test]
fn a_peer_that_refuses_is_told_from_a_silent_one() {
    let world = logged_in();
    let conns = &mut [world.connection(0), world.connection(1)];
    for Cause { code, begins, ends, one_sided } in CAUSES {
        // Once by one of them, once by each.
        let sides = if *one_sided { 1 } else { 2 };
        for refusing in 1..=sides {
            let what = format!("{code} of {refusing}");
            // Both have something to say that is not heard before they refuse.
            world.set_cut(0, 1, true);
            for conn in conns.iter_mut() {
                run(conn, &["CL.TAKE k 1 CAPACITY 100000 REFILL 0"]);
            }
            for conn in conns.iter_mut().rev().take(refusing) {
                run(conn, begins);
            }
            world.set_cut(0, 1, false);
            let begun = Instant::now();
            eventually(PATIENCE, TICK, &what, || {
                let told = |conn: &mut Connection| {
                    refused_with(conn) == *code && silent(conn) == "refuses"
                };
                // A replica misses nobody, and admits nothing.
                conns.iter_mut().take(refusing).all(told)
                    && conns.iter_mut().take(sides).all(|conn| share(conn) == 500)
            });
            let known = begun.elapsed();
            for conn in conns.iter_mut().rev().take(refusing) {
                run(conn, ends);
            }
            let ended = Instant::now();
            eventually(SOON, TICK, &format!("{what} to be over"), || all_whole(conns));
            println!("{what}: known after {known:?}, over after {:?}", ended.elapsed());
            for conn in conns.iter_mut() {
                assert_eq!(refused_with(conn), "", "{what}");
            }
        }
    }
    world.wait_until_quiet();
    // Eleven times each has taken one token, of which nothing is lost.
    assert_eq!(world.left("CL.PEEK k 0 CAPACITY 100000 REFILL 0"), [100_000 - 22; 2]);
}

/// Two regions that refuse each other admit one limit between them, and their buckets expire as
/// ever.
#[test]
fn regions_that_refuse_each_other_admit_one_limit() {
    const TAKE: &str = "CL.TAKE k 1 CAPACITY 60 REFILL 60";
    let (capacity, refill) = (60.0, 60.0);
    let world = logged_in();
    let conns = &mut [world.connection(0), world.connection(1)];
    let told: [Told; 2] = Default::default();
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for conn in conns.iter_mut() {
            run(conn, NOPERM.begins);
        }
        for (server, told) in world.servers.iter().zip(&told) {
            let stop = &stop;
            scope.spawn(move || client(server, TAKE, 2.0 * refill, told, stop));
        }
        eventually(PATIENCE, TICK, "both to be refused", || {
            conns.iter_mut().all(|conn| silent(conn) == "refuses" && share(conn) == 500)
        });
        for (region, conn) in conns.iter_mut().enumerate() {
            let idle = (0..500).map(|n| format!("CL.TAKE idle:{region}:{n} 1 CAPACITY 5 REFILL 5"));
            run(conn, &idle.collect::<Vec<_>>().iter().map(String::as_str).collect::<Vec<_>>());
        }
        eventually(PATIENCE, TICK, "what is idle to go", || {
            conns.iter_mut().all(|conn| int(conn, "DBSIZE") == 1)
        });
        assert!(conns.iter_mut().all(|conn| silent(conn) == "refuses"));
    });
    let seconds = began.elapsed().as_secs_f64();
    let granted: u64 = told.iter().map(|told| told.granted.load(SeqCst)).sum();
    // Until it is noticed nothing is known: a second more is generous.
    let late = TIMEOUT.as_secs_f64() + 1.0 + stall(&told);
    let one = capacity + refill * seconds;
    let bound = one + (capacity + refill * late) + refill * late;
    println!("granted {granted} in {seconds:.1} s, one bucket {one:.0}, bound {bound:.0}");
    assert!(granted as f64 <= bound, "{granted} of {bound}");
    for conn in conns.iter_mut() {
        run(conn, NOPERM.ends);
    }
    eventually(SOON, TICK, "both to be whole", || all_whole(conns));
    world.wait_until_quiet();
    // What was held back has refilled as it waited, so it makes no new keys.
    assert!(conns.iter_mut().all(|conn| int(conn, "DBSIZE") <= 1));
    assert_eq!(world.spent("k"), granted);
}

/// A peak that fills the memory of both regions, which then refuse their callers and each other:
/// it is over when it is over.
#[test]
fn memory_that_was_full_is_free_again() {
    const ROOM: i64 = 4 << 20;
    const AFTER_A_PEAK: Duration = Duration::from_secs(20);
    let world = World::start_with(2, Duration::ZERO, &|_, builder| {
        builder.config("maxmemory-policy", "noeviction")
    });
    let conns = &mut [world.connection(0), world.connection(1)];
    for conn in conns.iter_mut() {
        let used: i64 = info_field(conn, "memory", "used_memory").unwrap().parse().unwrap();
        run(conn, &[&format!("CONFIG SET maxmemory {}", used + ROOM)]);
    }
    let stop = AtomicBool::new(false);
    let mut peak = Instant::now();
    let most = thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for (region, server) in world.servers.iter().enumerate() {
            let stop = &stop;
            scope.spawn(move || {
                let conn = &mut server.connection();
                let mut n = 0;
                while !stop.load(SeqCst) {
                    let mut pipe = redis::pipe();
                    for _ in 0..100 {
                        n += 1;
                        let words = ["1", "CAPACITY", "5", "REFILL", "5"];
                        pipe.cmd("CL.TAKE").arg(format!("{region}:{n}")).arg(&words[..]).ignore();
                    }
                    // Refusals are what it is about.
                    let _ = pipe.query::<()>(conn);
                }
            });
        }
        eventually(PATIENCE, TICK, "both to refuse each other", || {
            conns.iter_mut().all(|conn| refused_with(conn) == "OOM")
        });
        // For longer than anything in it takes to expire.
        thread::sleep(Duration::from_secs(5));
        let most = conns.each_mut().map(|conn| int(conn, "DBSIZE"));
        peak = Instant::now();
        most
    });
    eventually(AFTER_A_PEAK, TICK, "takes to be granted on both sides", || {
        conns.iter_mut().all(|conn| cmd(conn, "CL.TAKE after").is_ok())
    });
    let granted = peak.elapsed();
    eventually(AFTER_A_PEAK, TICK, "both to be whole", || all_whole(conns));
    let whole = peak.elapsed();
    // Nothing but what is taken from now.
    eventually(PATIENCE, TICK, "the keys to go", || {
        conns.iter_mut().all(|conn| int(conn, "DBSIZE") <= 1)
    });
    println!(
        "{most:?} keys at the peak: granted after {granted:?}, whole after {whole:?}, gone after {:?}",
        peak.elapsed()
    );
}
