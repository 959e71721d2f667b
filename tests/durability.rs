//! Restarts: what a server comes back with, after a shutdown and after a crash,
//! with and without the module.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used
)]

mod common;

use std::sync::Mutex;
use std::thread;

use claw_testkit::{DataDir, Random, Server, cmd, digest, eventually, info_field, ints, soak};
use redis::{Connection, RedisResult, Value};

use common::clients::{Clients, KEYS};
use common::commands::{Commands, names};
use common::{
    Account, Books, Content, DATABASES, PATIENCE, TICK, Way, assert_equal, assert_sound, content,
    in_background, load_function, more_granted, select, send_random, settle, take_all, tokens,
    under_load,
};

/// Everything that a server has.
#[derive(Debug, PartialEq)]
struct State {
    digest: String,
    content: Content,
}

/// The state of a server in which nothing is about to expire.
fn settled(server: &Server) -> State {
    settle(&mut server.connection(), &names(KEYS));
    state(server)
}

fn state(server: &Server) -> State {
    let mut conn = server.connection();
    State { digest: digest(&mut conn), content: content(&mut conn) }
}

/// Starts servers from what is left of one, first without the module and then
/// with it.
fn assert_comes_back(data: DataDir, expected: &State, what: &str) -> Server {
    let (with, without) = (data.builder(), |server: Server| server.kill_9().builder());
    let server = with.without_module().start();
    assert!(state(&server) == *expected, "without the module: {what}");
    assert_sound(&server);
    let server = without(server).module(claw_testkit::module_path()).start();
    assert!(state(&server) == *expected, "with the module: {what}");
    assert_sound(&server);
    server
}

fn random_commands(server: &Server, seed: u64) {
    let mut conn = server.connection();
    load_function(&mut conn);
    let mut commands = Commands::new(seed, KEYS);
    for way in Way::ALL {
        for db in DATABASES {
            select(&mut conn, db);
            send_random(&mut conn, way, 1_000 * soak(), &mut commands);
        }
    }
}

fn wait_for_background(server: &Server) {
    let mut conn = server.connection();
    eventually(PATIENCE, TICK, "the save to end", || !in_background(&mut conn));
    for field in ["rdb_last_bgsave_status", "aof_last_bgrewrite_status", "aof_last_write_status"] {
        assert_eq!(info_field(&mut conn, "persistence", field).as_deref(), Some("ok"), "{field}");
    }
}

#[test]
fn a_restart_from_the_append_only_file_ends_equal() {
    for fsync in ["always", "everysec"] {
        for preamble in ["yes", "no"] {
            let what = |when| format!("appendfsync {fsync}, preamble {preamble}, {when}");
            // With `always` even a crash loses nothing.
            let end = |server: Server| match fsync {
                "always" => server.kill_9(),
                _ => server.stop(),
            };
            let server = Server::builder()
                .config("appendonly", "yes")
                .config("appendfsync", fsync)
                .config("aof-use-rdb-preamble", preamble)
                .config("auto-aof-rewrite-percentage", "0")
                // In microseconds: makes a rewrite last while commands come in.
                .config("rdb-key-save-delay", "1000")
                .start();

            random_commands(&server, 1);
            let expected = settled(&server);
            let server = assert_comes_back(end(server), &expected, &what("before a rewrite"));

            random_commands(&server, 2);
            let expected = settled(&server);
            cmd(&mut server.connection(), "BGREWRITEAOF").unwrap();
            wait_for_background(&server);
            let server = assert_comes_back(end(server), &expected, &what("after a rewrite"));

            let clients = Clients::of(&server, 3);
            let during = clients.under_load(|| {
                clients.go_on(500);
                cmd(&mut server.connection(), "BGREWRITEAOF").unwrap();
                let before = clients.sent();
                wait_for_background(&server);
                clients.sent() - before
            });
            assert!(during > 0, "nothing was sent during the rewrite");
            let expected = settled(&server);
            assert_comes_back(end(server), &expected, &what("during a rewrite"));
        }
    }
}

/// What is owed is a field like any other, for replicas and files too.
#[test]
fn a_debt_outlives_a_restart() {
    const OWING: [i64; 5] = [0, 10, -7, -1, -1];
    let server =
        Server::builder().config("appendonly", "yes").config("appendfsync", "always").start();
    let replica = Server::replica_of(&server).start();
    let mut conn = server.connection();
    for line in [
        "CL.TAKE k 6 CAPACITY 10 REFILL 0",
        "CL.SETTLE k 6 2",
        "CL.SETTLE k 0 15",
        "CL.SETTLE slow 0 15 CAPACITY 10 REFILL 1 INTERVAL 31622400000",
    ] {
        cmd(&mut conn, line).unwrap();
    }
    let expected = state(&server);
    assert_equal(&server, &replica);
    assert_eq!(ints(&mut replica.connection(), "CL.PEEK k"), OWING);
    let server = assert_comes_back(server.kill_9(), &expected, "from the file");
    cmd(&mut server.connection(), "BGREWRITEAOF").unwrap();
    wait_for_background(&server);
    let server = assert_comes_back(server.kill_9(), &expected, "after a rewrite");
    assert_eq!(ints(&mut server.connection(), "CL.PEEK k"), OWING);
    assert_eq!(ints(&mut server.connection(), "CL.SETTLE k 0 4")[..3], [3, 10, -10]);
}

#[test]
fn a_restart_from_a_snapshot_ends_equal() {
    for command in ["SAVE", "BGSAVE"] {
        let server = Server::start();
        random_commands(&server, 11);
        let expected = settled(&server);
        cmd(&mut server.connection(), command).unwrap();
        wait_for_background(&server);
        assert_comes_back(server.kill_9(), &expected, command);
    }
}

#[test]
fn a_snapshot_under_load_is_of_one_moment() {
    let mut server = Server::builder().config("rdb-key-save-delay", "1000").start();
    for round in 0..2 * soak() {
        let clients = Clients::of(&server, 20 + 10 * round);
        let (expected, during) = clients.under_load(|| {
            clients.go_on(1_000);
            let mut conn = server.connection();
            let held = clients.hold();
            let expected = settled(&server);
            cmd(&mut conn, "BGSAVE").unwrap();
            let before = clients.sent();
            drop(held);
            wait_for_background(&server);
            (expected, clients.sent() - before)
        });
        assert!(during > 0, "nothing was sent during the save");
        assert!(state(&server) != expected);
        server = assert_comes_back(server.kill_9(), &expected, "BGSAVE under load");
    }
}

#[test]
fn a_shutdown_with_save_ends_equal() {
    let server = Server::start();
    random_commands(&server, 31);
    let expected = settled(&server);
    assert_comes_back(server.stop_saving(), &expected, "SHUTDOWN SAVE");
}

#[test]
fn reloads_change_nothing() {
    let server = Server::builder().config("appendonly", "yes").start();
    for (seed, reload) in [(41, "DEBUG RELOAD"), (42, "DEBUG LOADAOF")] {
        random_commands(&server, seed);
        let expected = settled(&server);
        let mut conn = server.connection();
        cmd(&mut conn, reload).unwrap();
        assert!(state(&server) == expected, "{reload}");
        // And the module goes on with it.
        let before = ints(&mut conn, "CL.PEEK here 1 CAPACITY 100 REFILL 0");
        assert_eq!(ints(&mut conn, "CL.TAKE here 1 CAPACITY 100 REFILL 0"), before);
    }
    assert_sound(&server);
    assert_eq!(server.warnings(), Vec::<String>::new());
}

/// One call, or several in one unit, that take from one or two buckets.
fn take_in_some_way(
    client: usize,
    conn: &mut Connection,
    accounts: [&Account; 2],
    tokens: u64,
) -> RedisResult<[bool; 2]> {
    let [first, second] = accounts;
    let granted =
        |answer: &Value| matches!(answer, Value::Array(items) if items[0] != Value::Int(0));
    match client % 4 {
        0 => Ok([granted(&first.take(tokens).query(conn)?), false]),
        1 => Ok([granted(&take_all(&accounts, tokens).query(conn)?); 2]),
        2 => {
            let mut pipe = redis::pipe();
            pipe.atomic().add_command(first.take(tokens)).add_command(second.take(tokens));
            let answers: [Value; 2] = pipe.query(conn)?;
            Ok(answers.each_ref().map(granted))
        }
        _ => {
            let script = "
                local function take(key)
                  return redis.call('CL.TAKE', key, ARGV[1], 'CAPACITY', ARGV[2], 'REFILL', 0)
                end
                return {take(KEYS[1]), take(KEYS[2])}";
            let answers: [Value; 2] = redis::cmd("EVAL")
                .arg(script)
                .arg(2)
                .arg(&[&first.key, &second.key])
                .arg(tokens)
                .arg(first.capacity)
                .query(conn)?;
            Ok(answers.each_ref().map(granted))
        }
    }
}

#[test]
fn no_acknowledged_take_is_lost_in_a_crash() {
    const CLIENTS: usize = 8;
    let mut server = Server::builder()
        .config("appendonly", "yes")
        .config("appendfsync", "always")
        // In microseconds: a rewrite takes longer than the test, unless told not to.
        .config("rdb-key-save-delay", "10000000")
        .start();
    let books = Books::new((0..10).map(|n| format!("bucket:{n}")), 1_000_000_000);
    // Buckets that are soon empty: not a token too much.
    let small = Books::new((0..4).map(|n| format!("small:{n}")), 50);
    // Taken from only together.
    let pairs = Books::new((0..2).map(|n| format!("pair:{n}")), 1_000_000_000);

    for round in 0..6 * soak() {
        let client = |n: u64| Mutex::new((Some(server.connection()), Random::new(100 * round + n)));
        let clients: Vec<_> = (0..CLIENTS as u64).map(client).collect();
        let work = |client: usize| {
            let (alive, random) = &mut *clients[client].lock().unwrap();
            let Some(conn) = alive else {
                return thread::sleep(TICK);
            };
            let (books, first, way) = match random.below(10) {
                0 => (&small, random.next(), client),
                // In one of the ways that take from both.
                1..4 => (&pairs, 0, 1 + client % 3),
                _ => (&books, random.next(), client),
            };
            let accounts = [books.account(first), books.account(first.wrapping_add(1))];
            let tokens = 1 + random.below(3);
            match take_in_some_way(way, conn, accounts, tokens) {
                Ok(granted) => {
                    for (account, granted) in accounts.iter().zip(granted) {
                        account.granted(if granted { tokens } else { 0 });
                    }
                }
                Err(e) => {
                    assert!(claw_testkit::wire_error(&e).is_none(), "{e}");
                    accounts.iter().for_each(|account| account.lost_sight(tokens));
                    *alive = None;
                }
            }
        };
        under_load(CLIENTS, work, || {
            more_granted(&books, 2_000);
            let mut conn = server.connection();
            // Without a rewrite, in the middle of one, or after one.
            if round % 3 == 2 {
                cmd(&mut conn, "CONFIG SET rdb-key-save-delay 0").unwrap();
            }
            if round % 3 > 0 {
                cmd(&mut conn, "BGREWRITEAOF").unwrap();
                more_granted(&books, 100);
            }
            match round % 3 {
                1 => assert!(in_background(&mut conn)),
                _ => wait_for_background(&server),
            }
            server.crash();
        });
        server = server.restart();
        assert_sound(&server);
        let mut conn = server.connection();
        assert!(books.unknown() <= 2 * 3 * CLIENTS as u64);
        for books in [&books, &small, &pairs] {
            books.balance(|key| tokens(&mut conn, key));
        }
        assert_eq!(tokens(&mut conn, "pair:0"), tokens(&mut conn, "pair:1"));
        let digest_with = digest(&mut conn);
        let bare = server.kill_9().builder().without_module().start();
        assert_eq!(digest(&mut bare.connection()), digest_with);
        server = bare.kill_9().builder().module(claw_testkit::module_path()).start();
    }
    assert_eq!(small.acknowledged(), 4 * 50);
}
