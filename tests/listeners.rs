//! Effects are handed over only where somebody listens, and whoever begins to
//! listen misses none: replicas that come and go, an AOF switched on and off,
//! a replica that is promoted; all under load.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used
)]

mod common;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use claw_testkit::{Builder, Server, ask, cmd, eventually, info_field, run, soak};
use redis::Connection;

use common::{
    Books, PATIENCE, TICK, assert_equal, assert_sound, in_background, more_granted, tokens,
    under_load,
};

const CLIENTS: usize = 4;

/// More than will be taken from any bucket.
const CAPACITY: u64 = 1_000_000;

/// How many tokens have to be taken before and after each change.
const SOME: u64 = 2_000;

/// A server that nobody listens to, and whose backlog goes soon after its last
/// replica.
fn lonely() -> Builder {
    Server::builder().config("repl-backlog-ttl", "1").config("appendfsync", "always")
}

fn is_propagating(conn: &mut Connection) -> bool {
    info_field(conn, "claw", "claw_propagating").expect("a field of INFO claw") == "1"
}

fn until_unheard(server: &Server) {
    let conn = &mut server.connection();
    eventually(PATIENCE, TICK, "nobody to listen", || !is_propagating(conn));
}

/// Clients that take tokens, one by one, in transactions and from scripts, while
/// something else happens.
fn taking<T>(server: &Server, books: &Books, meanwhile: impl FnOnce() -> T) -> T {
    let conns: Vec<_> = (0..CLIENTS).map(|_| Mutex::new(server.connection())).collect();
    let calls = AtomicU64::new(0);
    let take = |client: usize| {
        let conn = &mut *conns[client].lock().unwrap();
        let call = calls.fetch_add(1, SeqCst);
        let account = books.account(call);
        let answers: Vec<Vec<i64>> = match client {
            0 => {
                let (first, second) = (account.take(1), account.take(1));
                let mut pipe = redis::pipe();
                pipe.atomic().add_command(first).add_command(second);
                pipe.query(conn).unwrap()
            }
            1 => {
                let script = "local function take()
                    return redis.call('CL.TAKE', KEYS[1], 1, 'CAPACITY', ARGV[1], 'REFILL', 0)
                end
                return {take(), take()}";
                let mut eval = redis::cmd("EVAL");
                eval.arg(script).arg(1).arg(&account.key).arg(CAPACITY);
                eval.query(conn).unwrap()
            }
            _ => {
                let mut pipe = redis::pipe();
                pipe.add_command(account.take(1)).add_command(account.take(1));
                pipe.query(conn).unwrap()
            }
        };
        for answer in answers {
            assert_eq!(answer[0], 1, "{answer:?}");
            account.granted(1);
        }
        // A bucket that refills, so that expiries are set and moved as well.
        ask::<Vec<i64>>(conn, &format!("CL.TAKE refilling:{}", call % 50));
    };
    under_load(CLIENTS, take, meanwhile)
}

fn some_books() -> Books {
    Books::new((0..20).map(|n| format!("bucket:{n}")), CAPACITY)
}

#[test]
fn replicas_that_come_under_load_miss_nothing() {
    let master = lonely().start();
    let books = some_books();
    let conn = &mut master.connection();
    // What newer servers have besides: the snapshot comes over a connection of its own.
    let channels = ["repl-rdb-channel", "dual-channel-replication-enabled"]
        .into_iter()
        .find(|name| !ask::<Vec<String>>(conn, &format!("CONFIG GET {name}")).is_empty());
    for round in 0..6 * soak() {
        let diskless = if round % 3 == 1 { "no" } else { "yes" };
        run(conn, &[&format!("CONFIG SET repl-diskless-sync {diskless}")]);
        let channels = channels.filter(|_| round % 3 == 2);
        if let Some(name) = channels {
            run(conn, &[&format!("CONFIG SET {name} yes")]);
        }
        let replica_of = |master: &Server| match channels {
            Some(name) => Server::replica_of(master).config(name, "yes"),
            None => Server::replica_of(master),
        };
        until_unheard(&master);
        let replicas = taking(&master, &books, || {
            more_granted(&books, SOME);
            assert!(!is_propagating(&mut master.connection()), "nobody listens yet");
            let first = replica_of(&master).without_module().start();
            more_granted(&books, SOME);
            let second = replica_of(&first).start();
            more_granted(&books, SOME);
            [first, second]
        });
        assert!(is_propagating(conn));
        for replica in &replicas {
            assert_equal(&master, replica);
            assert_sound(replica);
        }
        books.balance(|key| tokens(&mut replicas[1].connection(), key));
    }
    assert_sound(&master);
}

#[test]
fn an_aof_switched_on_under_load_misses_nothing() {
    let mut server = lonely().start();
    let books = some_books();
    for round in 0..4 * soak() {
        let conn = &mut server.connection();
        until_unheard(&server);
        taking(&server, &books, || {
            more_granted(&books, SOME);
            match round % 4 {
                // It begins at once.
                0 | 1 => run(conn, &["CONFIG SET appendonly yes"]),
                // In a transaction it has to wait for the end.
                2 => {
                    let mut pipe = redis::pipe();
                    pipe.atomic().cmd("CONFIG").arg("SET").arg("appendonly").arg("yes").ignore();
                    pipe.add_command(books.account(0).take(1)).ignore();
                    pipe.exec(conn).unwrap();
                    books.account(0).granted(1);
                }
                // While a snapshot is made, the AOF has to wait for its own.
                _ => run(
                    conn,
                    &["CONFIG SET rdb-key-save-delay 10000", "BGSAVE", "CONFIG SET appendonly yes"],
                ),
            }
            run(conn, &["CONFIG SET rdb-key-save-delay 0"]);
            eventually(PATIENCE, TICK, "the AOF to be written", || !in_background(conn));
            more_granted(&books, SOME);
        });
        assert!(is_propagating(conn));
        let data = server.kill_9();
        for file in std::fs::read_dir(data.path().join("appendonlydir")).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            let command = bytes.windows(7).find(|name| name.eq_ignore_ascii_case(b"cl.take"));
            assert_eq!(command, None, "the AOF has effects only");
        }
        server = data.builder().config("appendonly", "yes").start();
        let conn = &mut server.connection();
        books.balance(|key| tokens(conn, key));
        run(conn, &["CONFIG SET appendonly no"]);
        assert_sound(&server);
    }
}

#[test]
fn who_is_promoted_goes_on_telling_its_replicas() {
    let master = lonely().start();
    let middle = Server::replica_of(&master).start();
    let last = Server::replica_of(&middle).without_module().start();
    assert!(is_propagating(&mut middle.connection()));
    run(&mut middle.connection(), &["REPLICAOF NO ONE"]);
    let books = some_books();
    assert!(is_propagating(&mut middle.connection()));
    taking(&middle, &books, || more_granted(&books, SOME));
    assert_equal(&middle, &last);
    books.balance(|key| tokens(&mut last.connection(), key));

    // And the other way: a master that nobody listened to becomes a replica.
    until_unheard(&master);
    let alone = some_books();
    taking(&master, &alone, || more_granted(&alone, SOME));
    run(&mut master.connection(), &[&format!("REPLICAOF 127.0.0.1 {}", middle.port())]);
    assert!(is_propagating(&mut master.connection()));
    eventually(PATIENCE, TICK, "a link to the new master", || {
        let link = info_field(&mut master.connection(), "replication", "master_link_status");
        link.as_deref() == Some("up")
    });
    taking(&middle, &books, || more_granted(&books, SOME));
    assert_equal(&middle, &master);
    for server in [&master, &middle, &last] {
        assert_sound(server);
    }
}

#[test]
fn changes_that_nobody_hears_of_are_counted_for_snapshots() {
    let heard = Server::builder().config("appendonly", "yes").start();
    let unheard = lonely().start();
    until_unheard(&unheard);
    let changes = |server: &Server| {
        let conn = &mut server.connection();
        for n in 0..10 {
            ask::<Vec<i64>>(conn, &format!("CL.TAKE a:{n}"));
            ask::<Vec<i64>>(conn, &format!("CL.TAKE b:{n} 5 CAPACITY 5 REFILL 1 INTERVAL 60000"));
            ask::<Vec<i64>>(conn, &format!("CL.TAKE b:{n} 5 CAPACITY 5 REFILL 1 INTERVAL 60000"));
            ask::<Vec<i64>>(conn, &format!("CL.GIVE b:{n} 2"));
            cmd(conn, &format!("CL.POLICY a:{n} CAPACITY 7")).unwrap();
            cmd(conn, &format!("CL.POLICY a:{n} RESET")).unwrap();
        }
        let changes = info_field(conn, "persistence", "rdb_changes_since_last_save").unwrap();
        changes.parse::<u64>().unwrap()
    };
    assert_eq!(changes(&unheard), changes(&heard));
    assert!(!is_propagating(&mut unheard.connection()));
    assert!(is_propagating(&mut heard.connection()));
}

#[test]
fn somebody_is_expected_as_soon_as_a_snapshot_begins() {
    let server = lonely().start();
    let conn = &mut server.connection();
    for save in ["SAVE", "BGSAVE"] {
        until_unheard(&server);
        let mut pipe = redis::pipe();
        pipe.cmd(save).ignore().cmd("INFO").arg("claw");
        let (info,): (String,) = pipe.query(conn).unwrap();
        assert!(info.contains("claw_propagating:1\r\n"), "after {save}: {info}");
    }
}
