//! What a dead peer costs in memory: the keys of the last seconds, and a queue with a budget.

use crate::world::{PATIENCE, TICK, World, field, status};
use claw_testkit::{Server, eventually, info_field, int, soak};
use redis::Connection;
use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

/// How long a bucket that regions share is kept after it is full, at the most.
const MOST_LINGER: Duration = Duration::from_secs(20);

/// Full again within a second, and within a minute. Of a limit whose other region is silent more
/// than a half need not be granted.
const SHORT: [&str; 5] = ["1", "CAPACITY", "5", "REFILL", "5"];
const LONG: [&str; 5] = ["30", "CAPACITY", "100", "REFILL", "1"];

/// Takes from `count` buckets that nobody has used before, named `name` and a number; returns how
/// many were refused with an error.
fn take_new(
    conn: &mut Connection,
    name: &str,
    terms: [&str; 5],
    next: &mut u64,
    count: u64,
) -> usize {
    let mut pipe = redis::pipe();
    pipe.ignore_errors();
    for n in *next..*next + count {
        pipe.cmd("CL.TAKE").arg(format!("{name}{n}")).arg(&terms[..]);
    }
    *next += count;
    let answers: Vec<redis::RedisResult<Vec<i64>>> = pipe.query(conn).unwrap();
    // The guard may refuse nobody here.
    assert!(answers.iter().flatten().all(|answer| answer[0] > 0), "a take that is not granted");
    answers.iter().filter(|answer| answer.is_err()).count()
}

/// Two regions of which the second is dead, and is missed.
fn bereft(adjust: crate::world::Adjust<'_>) -> World {
    let mut world = World::start_with(2, Duration::ZERO, adjust);
    drop(world.servers.remove(1).kill_9());
    let conn = &mut world.connection(0);
    eventually(PATIENCE, TICK, "it to be missed", || field(conn, "sync_peers_silent") == 1);
    world
}

/// The keys that are kept are those that one server alone would keep, and the ones of the last
/// seconds, however long the peer has been dead.
#[test]
fn a_dead_peer_keeps_no_keys() {
    const BATCH: u64 = 50;
    let world = bereft(&|_, builder| builder);
    let alone = Server::start();
    let (conn, lone) = (&mut world.connection(0), &mut alone.connection());
    let keys = |conn: &mut Connection| u64::try_from(int(conn, "DBSIZE")).unwrap();
    let began = Instant::now();
    let (mut next, mut next_alone, mut most) = (0, 0, [0, 0]);
    // When, and how many had been taken from by then.
    let mut history = VecDeque::from([(began, 0)]);
    while began.elapsed() < Duration::from_secs(30 * soak()) {
        assert_eq!(take_new(conn, "user:", SHORT, &mut next, BATCH), 0);
        assert_eq!(take_new(lone, "user:", SHORT, &mut next_alone, BATCH), 0);
        let now = Instant::now();
        history.push_back((now, next));
        // A server may find what has expired a second late.
        while history.len() > 2 && now - history[1].0 > MOST_LINGER + Duration::from_secs(1) {
            history.pop_front();
        }
        let (here, alone) = (keys(conn), keys(lone));
        let last = next - history[0].1;
        assert!(here <= alone + last, "{here} keys, {alone} alone, {last} lately");
        most = [most[0].max(here), most[1].max(alone)];
        thread::sleep(Duration::from_millis(20));
    }
    println!("taken from {next}, kept at most {most:?} keys, alone and with a dead peer");
    let ended = Instant::now();
    eventually(MOST_LINGER + Duration::from_secs(5), TICK, "all to go", || keys(conn) == 0);
    println!("all gone after {:?}", ended.elapsed());
}

/// What waits for the dead peer stays within what CL.SYNC STATUS prints as its limit, is dropped
/// when it reaches it, and leaves a policy of eviction something to evict: no take is refused.
#[test]
fn what_waits_for_a_dead_peer_has_a_budget() {
    // More than the queue takes, with room for keys besides.
    const ROOM: u64 = 120 << 20;
    const BATCH: u64 = 1_000;
    // It is memory that is to be used up, and not time.
    let name = "x".repeat(1_000);
    for policy in ["volatile-lru", "allkeys-lru"] {
        let world = bereft(&|_, builder| builder.config("maxmemory-policy", policy));
        let conn = &mut world.connection(0);
        let memory = |conn: &mut Connection, name: &str| -> u64 {
            info_field(conn, "memory", name).unwrap().parse().unwrap()
        };
        let most = memory(conn, "used_memory") + ROOM;
        claw_testkit::run(conn, &[&format!("CONFIG SET maxmemory {most}")]);
        let (mut next, mut refused, mut longest, mut limit) = (0, 0, 0, 0);
        let begun = Instant::now();
        let mut evicted = 0;
        while evicted < 1_000 || field(conn, "sync_overruns") == 0 {
            assert!(begun.elapsed() < 4 * PATIENCE, "{evicted} evicted, the queue {longest}");
            refused += take_new(conn, &name, LONG, &mut next, BATCH);
            let peer = &status(conn, "peers")[0];
            let [bytes, bound] =
                ["queue_bytes", "queue_limit_bytes"].map(|of| peer[of].parse::<u64>().unwrap());
            assert!(bytes <= bound, "{bytes} of {bound}");
            (longest, limit) = (longest.max(bytes), bound);
            evicted = info_field(conn, "stats", "evicted_keys").unwrap().parse::<u64>().unwrap();
        }
        println!(
            "{policy}: {next} taken from in {:?}, {evicted} evicted, {refused} refused, queue at most {longest} of {limit}",
            begun.elapsed()
        );
        assert_eq!(refused, 0, "{policy}");
        assert!(longest > limit / 2, "{policy}: {longest} of {limit}");
    }
}
