//! The walk over all keys while a peer lacks everything: it is quick, and nothing that
//! happens to the server meanwhile disturbs it.

use crate::world::{PATIENCE, TICK, World, field, status};
use claw_testkit::{Builder, Server, cmd, eventually, int, module_path, run, wait_for_offset};
use redis::{Connection, cmd as command};
use std::thread;
use std::time::{Duration, Instant};

/// So many that a walk is still under way when something is done to it.
const KEYS: usize = 100_000;

/// What such a walk takes at most. At the pace of the server's cron it takes longer.
const SOON: Duration = Duration::from_secs(15);

/// Two regions that have the same buckets.
fn filled() -> World {
    let world = World::start_with(2, Duration::ZERO, &|_, builder: Builder| {
        builder.config("enable-debug-command", "yes").config("hash-max-listpack-value", "512")
    });
    fill(&mut world.connection(0));
    wait_for_all(&world);
    world
}

fn fill(conn: &mut Connection) {
    const TAKE: [&str; 5] = ["4", "CAPACITY", "10", "REFILL", "0"];
    for from in (0..KEYS).step_by(1_000) {
        let mut pipe = redis::pipe();
        for key in from..from + 1_000 {
            pipe.cmd("CL.TAKE").arg(format!("k{key}")).arg(&TAKE);
        }
        pipe.exec(conn).unwrap();
    }
}

/// Waits until each of two regions has all buckets, and knows that the other has.
fn wait_for_all(world: &World) {
    let conns = &mut [world.connection(0), world.connection(1)];
    eventually(PATIENCE, TICK, "both regions to have everything", || {
        conns.iter_mut().all(|conn| int(conn, "DBSIZE") == KEYS as i64 && lacking(conn) == "no")
    });
}

/// Whether the only peer lacks states; nothing while there is none.
fn lacking(conn: &mut Connection) -> String {
    status(conn, "peers").first().map_or_else(String::new, |peer| peer["lacking"].clone())
}

/// Has the first region begin to send everything again, and returns while it does.
fn begin(world: &World) -> Connection {
    let conn = &mut world.connection(0);
    let interval = if int_setting(conn) == 20 { 21 } else { 20 };
    // Senders that begin anew do not know what the peer has.
    run(conn, &[&format!("CONFIG SET claw.sync-interval-ms {interval}")]);
    wait_until_under_way(conn);
    world.connection(0)
}

fn int_setting(conn: &mut Connection) -> i64 {
    let [_, value]: [String; 2] =
        command("CONFIG").arg("GET").arg("claw.sync-interval-ms").query(conn).unwrap();
    value.parse().unwrap()
}

/// Looks all the time: the walk is over soon.
fn wait_until_under_way(conn: &mut Connection) {
    eventually(PATIENCE, Duration::ZERO, "a walk to be under way", || {
        let some = (1..KEYS as u64).contains(&field(conn, "sync_states_sent"));
        some && lacking(conn) == "yes"
    });
}

#[test]
fn a_region_that_lost_its_data_is_refilled_soon() {
    let mut world = filled();
    let lost = world.servers.remove(1);
    world.servers.push(lost.kill_9().start());
    let (conn, other) = (&mut world.connection(0), &mut world.connection(1));
    eventually(PATIENCE, TICK, "the first of it", || int(other, "DBSIZE") > 0);
    let begun = Instant::now();
    eventually(SOON, TICK, "all of it", || int(other, "DBSIZE") == KEYS as i64);
    println!("{KEYS} buckets within {:?}", begun.elapsed());
    assert!(field(conn, "sync_walk_max_us") > 0, "what the walk cost is shown");
    assert_eq!(field(conn, "sync_overruns"), 0);
    world.no_warnings();
}

/// The walk writes and deletes too, at the moments that it has besides the cron: what it
/// does is replicated.
#[test]
fn what_the_walk_writes_is_replicated() {
    const SHORT: usize = 2_000;
    const SLOWLY: [&str; 7] = ["1", "CAPACITY", "10", "REFILL", "1", "INTERVAL", "100000000"];
    let world = filled();
    let replica = Server::replica_of(&world.servers[0]).start();
    let (conn, copy) = (&mut world.connection(0), &mut replica.connection());
    run(conn, &["DEBUG SET-ACTIVE-EXPIRE 0"]);
    let mut pipe = redis::pipe();
    for key in 0..SHORT {
        // Half of them have lost their expiry, the others expire at once.
        let name = format!("k{key}");
        pipe.cmd("CL.TAKE").arg(&name).arg(&SLOWLY);
        match key % 2 {
            0 => pipe.cmd("PERSIST").arg(&name),
            _ => pipe.cmd("PEXPIRE").arg(&name).arg(1),
        };
    }
    pipe.exec(conn).unwrap();
    begin(&world);
    let left = (KEYS - SHORT / 2) as i64;
    eventually(PATIENCE, TICK, "the expired ones to be found", || int(conn, "DBSIZE") == left);
    eventually(PATIENCE, TICK, "the walk to end", || lacking(conn) == "no");
    wait_for_offset(&world.servers[0], &replica);
    assert_eq!(int(copy, "DBSIZE"), left);
    for key in (0..SHORT).step_by(2) {
        let [here, there] =
            [&mut *conn, &mut *copy].map(|c| int(c, &format!("PEXPIRETIME k{key}")));
        assert_eq!(here, there, "k{key}");
        let ttl = int(conn, &format!("PTTL k{key}"));
        assert!(ttl > 1_000_000, "k{key} expires in {ttl} ms, before it is full");
    }
    world.no_warnings();
}

#[test]
fn the_data_may_change_while_it_is_walked_over() {
    let world = filled();
    let other = &mut world.connection(1);
    let conn = &mut begin(&world);
    run(conn, &["SWAPDB 0 1"]);
    eventually(PATIENCE, TICK, "the walk to end", || lacking(conn) == "no");
    run(conn, &["SWAPDB 0 1"]);
    let conn = &mut begin(&world);
    run(conn, &["DEBUG RELOAD"]);
    wait_for_all(&world);
    let conn = &mut begin(&world);
    run(conn, &["FLUSHALL"]);
    eventually(PATIENCE, TICK, "the walk to end", || lacking(conn) == "no");
    assert_eq!(int(other, "DBSIZE"), KEYS as i64);
    world.no_warnings();
}

/// While a slow script runs the server looks for connections, and for nothing else.
#[test]
fn a_slow_script_is_not_walked_into() {
    const SLOW: &str = "local n = redis.call('DBSIZE') \
        local t = redis.call('TIME') repeat local now = redis.call('TIME') \
        until (now[1] - t[1]) * 1000000 + now[2] - t[2] > 500000 return n";
    let world = filled();
    run(&mut world.connection(0), &["CONFIG SET busy-reply-threshold 1"]);
    let conn = &mut begin(&world);
    let walks = field(conn, "sync_walks");
    let keys: i64 = command("EVAL").arg(SLOW).arg(0).query(conn).unwrap();
    assert_eq!(keys, KEYS as i64);
    eventually(PATIENCE, TICK, "the walk to end", || {
        field(conn, "sync_walks") > walks && lacking(conn) == "no"
    });
}

#[test]
fn the_role_may_change_while_it_is_walked_over() {
    let world = filled();
    let conn = &mut begin(&world);
    // Nobody is there, so nothing of the data changes.
    run(conn, &["REPLICAOF 127.0.0.1 1"]);
    assert_eq!(field(conn, "sync_peers"), 0);
    run(conn, &["REPLICAOF NO ONE"]);
    wait_for_all(&world);
    assert!(world.servers.iter().all(Server::is_alive));
}

#[test]
fn the_module_is_unloaded_while_it_walks() {
    let world = filled();
    for _ in 0..3 {
        let conn = &mut begin(&world);
        let unload = || cmd(&mut world.connection(0), "MODULE UNLOAD claw").is_ok();
        eventually(PATIENCE, TICK, "the module to be unloaded", unload);
        // What had been left behind would be called now.
        let until = Instant::now() + Duration::from_millis(300);
        while Instant::now() < until {
            run(conn, &["PING"]);
            thread::sleep(Duration::from_millis(1));
        }
        let load = format!("MODULE LOADEX {} CONFIG claw.replica-id r0", module_path().display());
        run(conn, &[&load, &format!("CONFIG SET claw.peers {}", world.peers(0))]);
        wait_for_all(&world);
    }
    world.no_warnings();
}

#[test]
fn the_server_ends_while_it_is_walked_over() {
    let mut world = filled();
    begin(&world);
    // Ends in good order, or this says so.
    let data = world.servers.remove(0).stop();
    world.servers.insert(0, data.start());
    // What it has lost it gets back.
    wait_for_all(&world);
}
