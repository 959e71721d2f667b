//! Three regions under traffic of all kinds while everything goes wrong in turn, and then
//! nothing: all keys, threads and memory have gone again, and the books are right.
//!
//! Ten seconds of it, and half a minute more for each further unit of `CLAW_SOAK`.

use crate::world::{PATIENCE, StopOnDrop, TICK, World, entries, field};
use claw_testkit::{Random, Server, cmd, eventually, info_field, int, run, soak};
use redis::{Client, Connection};
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

const REGIONS: usize = 3;

/// The only one that is killed: what it counted in an earlier life, no later counter says.
const MORTAL: usize = 2;

/// How many buckets the books are kept of. They never fill by themselves.
const BOOKS: u64 = 5;

/// How soon everything is gone when nobody does anything any more: the longest limit is full
/// after ten seconds, at a third of it.
const GONE: Duration = Duration::from_secs(60);

/// How soon takes are granted when there is memory again.
const GRANTED: Duration = Duration::from_secs(20);

/// How much more a process may hold than when it began, in bytes, when all its keys are gone:
/// buffers, and what the allocator does not give back.
const MORE_USED: u64 = 6 << 20;
const MORE_RESIDENT: u64 = 60 << 20;

/// Tokens of each book that one region has acknowledged in its present life.
type Books = Mutex<BTreeMap<String, u64>>;

#[test]
fn regions_that_live_through_everything() {
    let units = soak();
    let length = Duration::from_secs(10 + 30 * (units - 1));
    let mut world = World::start_with(REGIONS, Duration::ZERO, &|_, builder| {
        // What was acknowledged is there after a crash.
        builder
            .config("appendonly", "yes")
            .config("appendfsync", "always")
            // Short enough to be loaded soon.
            .config("auto-aof-rewrite-min-size", "4mb")
            .config("hash-max-listpack-value", "512")
            // What a pin leaves behind is soon full again.
            .config("claw.max-tokens", "7")
            .config("claw.refill-rate-per-sec", "7")
            .config("claw.partition-guard", "equal")
            .config("claw.partition-timeout-ms", "1000")
    });
    let before: Vec<Process> = world.servers.iter().map(Process::of).collect();
    let ports: Vec<u16> = world.servers.iter().map(Server::port).collect();
    let books: [Books; REGIONS] = Default::default();
    let (stop, granted, most) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for region in 0..REGIONS {
            let (port, books, stop, granted) = (ports[region], &books[region], &stop, &granted);
            scope.spawn(move || while_up(port, stop, |conn, n| keep_books(conn, books, n)));
            scope.spawn(move || {
                while_up(port, stop, |conn, n| {
                    granted.fetch_add(mix(conn, region, n)?, SeqCst);
                    Ok(())
                });
            });
        }
        let mut random = Random::new(units);
        let begun = Instant::now();
        for turn in 0.. {
            if begun.elapsed() >= length {
                break;
            }
            // All of them once in the short run.
            let last = if units == 1 { Duration::from_secs(1) } else { wait_of(&mut random) };
            let region = random.below(REGIONS as u64) as usize;
            let other = (region + 1) % REGIONS;
            match turn % 6 {
                0 => thread::sleep(last),
                1 => {
                    world.set_cut(region, other, true);
                    thread::sleep(last);
                    world.set_cut(region, other, false);
                }
                2 => {
                    signal(&world.servers[region], "-STOP");
                    thread::sleep(last);
                    signal(&world.servers[region], "-CONT");
                }
                3 => out_of_memory(&world, last, region),
                4 => {
                    let dead = world.servers.remove(MORTAL).kill_9();
                    books[MORTAL].lock().unwrap().clear();
                    thread::sleep(last);
                    world.servers.insert(MORTAL, dead.start());
                }
                _ => {
                    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
                        world.set_cut(a, b, true);
                    }
                    thread::sleep(last);
                    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
                        world.set_cut(a, b, false);
                    }
                }
            }
            let keys = world.servers.iter().map(|server| int(&mut server.connection(), "DBSIZE"));
            most.fetch_max(keys.max().unwrap_or(0) as u64, SeqCst);
            world.wait_until_connected();
        }
    });
    println!("{} granted, at most {} keys", granted.load(SeqCst), most.load(SeqCst));
    world.wait_until_quiet();
    for book in 0..BOOKS {
        balance(&world, &format!("book:{book}"), &books);
    }
    let idle = Instant::now();
    let mut conns: Vec<Connection> = world.servers.iter().map(Server::connection).collect();
    eventually(GONE, TICK, "all keys to be gone", || {
        conns.iter_mut().all(|conn| int(conn, "DBSIZE") == 0)
    });
    println!("gone after {:?}", idle.elapsed());
    let sent = |conns: &mut Vec<Connection>| -> Vec<u64> {
        conns.iter_mut().map(|conn| field(conn, "sync_states_sent")).collect()
    };
    let told = sent(&mut conns);
    world.wait_until_quiet();
    assert_eq!(sent(&mut conns), told, "nothing is sent of what is gone");
    for (region, conn) in conns.iter_mut().enumerate() {
        assert_eq!(int(conn, "DBSIZE"), 0, "r{region} was told of what was gone");
        for errors in ["sync_states_refused", "sync_states_rejected", "merge_errors"] {
            assert_eq!(field(conn, errors), 0, "{errors} of r{region}");
        }
    }
    for (region, (server, before)) in world.servers.iter().zip(&before).enumerate() {
        let now = Process::of(server);
        println!("r{region}: {before:?} {now:?}");
        assert!(now.threads <= before.threads, "threads of r{region}");
        assert!(now.used <= before.used + MORE_USED, "memory of r{region}");
        assert!(now.resident <= before.resident + MORE_RESIDENT, "memory of r{region}");
        // Redis says that there is less memory than is in use.
        let is_news = |line: &String| !line.contains("maxmemory value");
        let warnings: Vec<String> = server.warnings().into_iter().filter(is_news).collect();
        assert_eq!(warnings, [""; 0], "r{region}");
    }
}

fn wait_of(random: &mut Random) -> Duration {
    // Longer than the timeout, or not.
    Duration::from_millis(random.choose(&[200, 900, 1_500, 5_000, 20_000]))
}

/// What a server's process has.
#[derive(Debug)]
struct Process {
    threads: u64,
    resident: u64,
    used: u64,
}

impl Process {
    fn of(server: &Server) -> Process {
        let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let number = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        let used = info_field(&mut server.connection(), "memory", "used_memory").unwrap();
        Process {
            threads: number("Threads:"),
            resident: number("VmRSS:") * 1_024,
            used: used.parse().unwrap(),
        }
    }
}

fn signal(server: &Server, signal: &str) {
    let sent = Command::new("kill").args([signal, &server.pid().to_string()]).status();
    assert!(sent.unwrap().success());
}

/// Two regions may hold no more than they do now.
fn out_of_memory(world: &World, last: Duration, region: usize) {
    let full = [region, (region + 1) % REGIONS];
    for region in full {
        let conn = &mut world.connection(region);
        let used = info_field(conn, "memory", "used_memory").unwrap();
        run(conn, &[&format!("CONFIG SET maxmemory {used}")]);
    }
    thread::sleep(last);
    for region in full {
        run(&mut world.connection(region), &["CONFIG SET maxmemory 0"]);
    }
    for region in full {
        let conn = &mut world.connection(region);
        eventually(GRANTED, TICK, "takes to be granted again", || {
            cmd(conn, &format!("CL.TAKE again:{region} 1 CAPACITY 1000000 REFILL 1000000")).is_ok()
        });
    }
}

type Called = redis::RedisResult<()>;

/// Calls over and over, as long as the server is there, and connects again when it is again.
fn while_up(port: u16, stop: &AtomicBool, mut calls: impl FnMut(&mut Connection, u64) -> Called) {
    let client = Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
    let mut number = 0;
    while !stop.load(SeqCst) {
        let Ok(mut conn) = client.get_connection() else {
            thread::sleep(TICK);
            continue;
        };
        while !stop.load(SeqCst) {
            number += 1;
            match calls(&mut conn, number) {
                Err(error) if error.code() != Some("OOM") => break,
                Ok(()) | Err(_) => thread::sleep(TICK),
            }
        }
    }
}

/// Takes from a bucket that lives through it all, and writes down what was acknowledged.
fn keep_books(conn: &mut Connection, books: &Books, number: u64) -> Called {
    let book = format!("book:{}", number % BOOKS);
    // Whoever kills the server does not begin a new page between the answer and the entry.
    let mut books = books.lock().unwrap();
    let words = ["3", "CAPACITY", "1000000000", "REFILL", "0"];
    let (taken, ..): (u64, i64, i64, i64, i64) =
        redis::cmd("CL.TAKE").arg(&book).arg(&words).query(conn)?;
    *books.entry(book).or_default() += taken;
    Ok(())
}

/// Ever new keys, short limits that all share, some of which is given back, longer ones, and
/// policies that are pinned for a moment. Returns what was granted.
fn mix(conn: &mut Connection, region: usize, number: u64) -> redis::RedisResult<u64> {
    let mut pipe = redis::pipe();
    for n in 0..20 {
        let key = format!("new:{region}:{}", number * 20 + n);
        pipe.cmd("CL.TAKE").arg(key).arg(&["2", "CAPACITY", "5", "REFILL", "5"]);
    }
    for n in 0..10 {
        let key = format!("short:{}", (number + n) % 50);
        pipe.cmd("CL.TAKE").arg(key).arg(&["1", "CAPACITY", "10", "REFILL", "10"]);
    }
    let long = format!("long:{}", number % 100);
    pipe.cmd("CL.TAKE").arg(long).arg(&["1", "CAPACITY", "3", "REFILL", "1"]);
    let mut after = redis::pipe();
    after.cmd("CL.GIVE").arg(format!("short:{}", number % 50)).arg("1").ignore();
    if number.is_multiple_of(10) {
        let key = format!("pinned:{}", number % 70);
        after.cmd("CL.POLICY").arg(&key).arg(&["CAPACITY", "7", "REFILL", "7"]).ignore();
        after.cmd("CL.TAKE").arg(&key).arg("2").ignore();
        after.cmd("CL.POLICY").arg(&key).arg("RESET").ignore();
    }
    let answers: Vec<(u64, i64, i64, i64, i64)> = pipe.query(conn)?;
    after.exec(conn)?;
    Ok(answers.iter().map(|answer| answer.0).sum())
}

/// All regions know exactly what each has acknowledged; then the bucket is filled, and refills, so
/// that it goes.
fn balance(world: &World, book: &str, books: &[Books; REGIONS]) {
    let known = world.entries(book);
    for (region, books) in books.iter().enumerate() {
        let taken = books.lock().unwrap().get(book).copied().unwrap_or(0);
        // One that took nothing in its present life has begun no counter in it.
        if taken > 0 {
            let counter = known[&format!("r{region}")];
            assert_eq!(counter.spent, taken * 1_000_000, "{book}: what r{region} acknowledged");
        }
    }
    let conn = &mut world.connection(0);
    run(conn, &[&format!("CL.GIVE {book} 1000000000000")]);
    eventually(PATIENCE, TICK, "the others to know", || {
        (1..REGIONS).all(|region| {
            let there = entries(&mut world.connection(region), book);
            there.get("r0").is_none_or(|counter| counter.refunded > 0)
        })
    });
    for region in 0..REGIONS {
        run(&mut world.connection(region), &[&format!("CL.TAKE {book} 1 CAPACITY 5 REFILL 5")]);
    }
}
