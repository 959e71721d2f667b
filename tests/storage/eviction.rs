//! What eviction does to a limit that is asked for all the time.

use claw_testkit::{Server, info_field, ints, run};
use std::thread;
use std::time::{Duration, Instant};

/// How long is measured.
const WHILE: Duration = Duration::from_secs(60);

/// The busy limit, and how often it is asked for, per second: three times what it refills.
const BUSY: &str = "CL.TAKE busy 1 CAPACITY 10 REFILL 10";
const CAPACITY: f64 = 10.0;
const REFILL: f64 = 10.0;
const ASKED: u32 = 30;

/// Others, each used once and full a minute later: so many a second.
const OTHERS: [&str; 5] = ["60", "CAPACITY", "100", "REFILL", "1"];
const EACH_SECOND: u64 = 3_000;

/// What the busy limit granted, as a part of what it grants without eviction.
struct Measured {
    granted: f64,
    evicted: u64,
}

fn measure(policy: &str) -> Measured {
    let server = Server::builder().config("maxmemory-policy", policy).start();
    let conn = &mut server.connection();
    let used: u64 = info_field(conn, "memory", "used_memory").unwrap().parse().unwrap();
    run(conn, &[&format!("CONFIG SET maxmemory {}", used + (1 << 20))]);
    let began = Instant::now();
    let (mut granted, mut calls, mut others) = (0.0, 0, 0);
    while began.elapsed() < WHILE {
        granted += ints(conn, BUSY)[0] as f64;
        calls += 1;
        let mut pipe = redis::pipe();
        let due = EACH_SECOND * u64::from(calls) / u64::from(ASKED);
        for n in others..due {
            pipe.cmd("CL.TAKE").arg(format!("user:{n}")).arg(&OTHERS[..]).ignore();
        }
        others = due;
        pipe.query::<()>(conn).unwrap();
        let next = Duration::from_secs(1) * calls / ASKED;
        thread::sleep(next.saturating_sub(began.elapsed()));
    }
    let whole = CAPACITY + REFILL * began.elapsed().as_secs_f64();
    let evicted = info_field(conn, "stats", "evicted_keys").unwrap().parse().unwrap();
    Measured { granted: granted / whole, evicted }
}

/// The table of docs/storage-and-replication.md, and what it recommends.
#[test]
#[ignore = "measures for a minute"]
fn what_eviction_does_to_a_busy_limit() {
    const POLICIES: [&str; 7] = [
        "allkeys-lru",
        "volatile-lru",
        "allkeys-lfu",
        "volatile-lfu",
        "allkeys-random",
        "volatile-random",
        "volatile-ttl",
    ];
    thread::scope(|scope| {
        let measured = POLICIES.map(|policy| (policy, scope.spawn(move || measure(policy))));
        for (policy, measured) in measured {
            let Measured { granted, evicted } = measured.join().unwrap();
            println!("{policy}: granted {granted:.2} of the limit, {evicted} keys evicted");
            assert!(evicted > 10_000, "{policy}: {evicted}");
            if policy.ends_with("lru") {
                assert!(granted < 1.01, "{policy}: {granted}");
            }
        }
    });
}
