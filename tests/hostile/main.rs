//! Hostile clients: a million random commands on a live server crash nothing,
//! and leave every answer in shape and every bucket in a possible state.
//!
//! | variable | meaning | default |
//! | --- | --- | --- |
//! | `CLAW_SEED` | where the random numbers start | 1 |
//! | `CLAW_SOAK` | multiplies the number of commands | 1 |

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice
)]

mod bucket;
mod clock;
#[path = "../common/clock_shim.rs"]
mod clock_shim;
mod driver;
mod grammar;
mod memory;
mod nasty;
mod resp;
mod rng;
mod traffic;

use std::time::{Duration, Instant};

use claw_testkit::{Server, cmd, digest, eventually, info_field, int, soak, wait_for_offset};
use driver::Driver;
use redis::Value;

/// What may go when memory is short, if it gets short at all.
const ROUNDS: &[Option<&str>] =
    &[None, None, Some("noeviction"), Some("allkeys-lru"), None, Some("volatile-ttl"), None];
/// Commands in each of them.
const ROUND: u64 = 150_000;

/// Commands that a replica has to follow, with enough memory and without.
const FOLLOWED: u64 = 100_000;

/// A leak of a few bytes in each command would be more than this.
const LEAK: u64 = 8 << 20;

const PATIENCE: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_millis(50);

/// Where the random numbers start: `CLAW_SEED`, else 1.
fn seed() -> u64 {
    std::env::var("CLAW_SEED").map_or(1, |text| text.parse().expect("CLAW_SEED is a number"))
}

fn info(server: &Server, section: &str, field: &str) -> u64 {
    let value = info_field(&mut server.connection(), section, field);
    let value = value.unwrap_or_else(|| panic!("INFO {section} has no {field}"));
    value.parse().unwrap_or_else(|_| panic!("{field} is {value}"))
}

#[test]
fn a_million_commands_leave_nothing_impossible() {
    let (seed, soak) = (seed(), soak());
    println!("CLAW_SEED={seed} CLAW_SOAK={soak}");
    let server = Server::start();
    let memory = info(&server, "memory", "used_memory");
    let mut conn = server.connection();
    let mut driver = Driver::new(&server, seed);
    for round in ROUNDS {
        let started = Instant::now();
        let policy = round.unwrap_or("noeviction");
        cmd(&mut conn, &format!("CONFIG SET maxmemory-policy {policy}")).expect("it is set");
        let (starved, evicted) = (driver.starved, info(&server, "stats", "evicted_keys"));
        driver.run(ROUND * soak, round.is_some());
        let keys = driver.scan();
        let starved = driver.starved - starved;
        let evicted = info(&server, "stats", "evicted_keys") - evicted;
        println!(
            "{:8} commands, {keys} keys, {starved} without memory, {evicted} evicted ({policy}), {:?}",
            driver.sent,
            started.elapsed()
        );
        assert_eq!(starved > 0, round.is_some());
        assert_eq!(evicted > 0, round.is_some_and(|policy| policy != "noeviction"));
        assert!(keys > 0);
    }
    driver.dropped_left_nothing();

    let sent = driver.sent;
    println!("{} buckets compared with their answers", driver.audited);
    assert!(sent >= 1_000_000 * soak);
    assert!(driver.audited > sent / 100);
    for counter in ["taken", "refused", "given", "settled", "corrupt"] {
        assert!(info(&server, "claw", &format!("claw_{counter}")) > sent / 200, "{counter}");
    }
    drop(driver);
    for line in ["FLUSHALL", "SCRIPT FLUSH", "CONFIG RESETSTAT", "SLOWLOG RESET"] {
        cmd(&mut conn, line).expect("the server obeys");
    }
    eventually(PATIENCE, TICK, "memory to be freed", || {
        info(&server, "memory", "used_memory") < memory + LEAK
    });
    assert_eq!(unexpected(&server), Vec::<String>::new());
}

/// What is replicated is what was done: the replica would end itself on a
/// command that it cannot apply, and in the end it has the same data.
#[test]
fn a_replica_follows_through_all_of_it() {
    let (seed, soak) = (seed(), soak());
    println!("CLAW_SEED={seed} CLAW_SOAK={soak}");
    let server = Server::start();
    let replica = Server::replica_of(&server).start();
    cmd(&mut server.connection(), "CONFIG SET maxmemory-policy allkeys-lru").expect("it is set");
    let mut driver = Driver::new(&server, seed ^ u64::MAX);
    for squeeze in [false, true] {
        driver.run(FOLLOWED * soak, squeeze);
        assert!(driver.scan() > 0);
        wait_for_offset(&server, &replica);
        // Both have yet to notice of some keys that they have expired.
        eventually(PATIENCE, TICK, "the replica to have the same data", || {
            digest(&mut replica.connection()) == digest(&mut server.connection())
        });
    }
    assert_eq!(replica.warnings(), Vec::<String>::new());
    assert_eq!(unexpected(&server), Vec::<String>::new());
}

/// A user who may use some keys gets at no others by writing them in a way that only the module
/// reads: the server would find no key to check.
#[test]
fn no_way_to_write_keys_hides_them() {
    let server = Server::start();
    let mut conn = server.connection();
    cmd(&mut conn, "ACL SETUSER guest on nopass +@all ~mine:*").expect("the user is made");
    let mut guest = server.connection();
    cmd(&mut guest, "AUTH guest any").expect("there is no password");
    assert_eq!(ints_of(cmd(&mut guest, "CL.TAKEALL mine:1")), [1, -1, 0]);
    for line in [
        "other:1",
        "mine:1 AND other:1",
        "mine:1 and other:1",
        "mine:1 1 AND other:1 1",
        "mine:1 KEEP AND other:1",
        "mine:1 AND AND AND other:1",
        "mine:1 AND other:1 AND",
    ] {
        let refused = cmd(&mut guest, &format!("CL.TAKEALL {line}"));
        assert!(refused.is_err(), "{line}: {refused:?}");
    }
    assert_eq!(int(&mut conn, "EXISTS other:1"), 0);
}

fn ints_of(answer: redis::RedisResult<Value>) -> Vec<i64> {
    let Ok(Value::Array(items)) = answer else { panic!("{answer:?}") };
    items.iter().filter_map(|i| if let Value::Int(n) = i { Some(*n) } else { None }).collect()
}

/// The warnings in the log, without those that memory gets short: this was
/// asked for.
fn unexpected(server: &Server) -> Vec<String> {
    let warnings = server.warnings().into_iter();
    warnings.filter(|line| !line.contains("maxmemory value")).collect()
}
