//! Replicas: what they are sent, that they have what their master has, and what
//! they answer.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used
)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use claw_testkit::{
    Builder, Server, cmd, digest, error, eventually, info_field, int, ints, wait_for_offset,
};
use redis::{Connection, Value};

use common::commands::{Commands, Words, names};
use common::{
    DATABASES, PATIENCE, TICK, Way, assert_equal, assert_sound, content, load_function, select,
    send, send_random, settle, soak, under_load,
};

const KEYS: usize = 300;

/// A master that sends its replicas nothing but what commands have done: no
/// PING is due during the test.
fn master() -> Builder {
    Server::builder()
        .config("repl-ping-replica-period", "3600")
        .config("repl-backlog-size", "64mb")
        .config("repl-timeout", "7200")
}

fn stat(server: &Server, field: &str) -> u64 {
    let section = if field.starts_with("claw_") { "claw" } else { "stats" };
    info_field(&mut server.connection(), section, field).unwrap().parse().unwrap()
}

fn offset(conn: &mut Connection) -> String {
    info_field(conn, "replication", "master_repl_offset").unwrap()
}

fn no_warnings(servers: &[&Server]) {
    for server in servers {
        assert_sound(server);
        assert_eq!(server.warnings(), Vec::<String>::new());
    }
}

/// For masters whose replicas a test has cut off.
fn no_other_warnings(master: &Server) {
    assert_sound(master);
    let mut warnings = master.warnings();
    warnings.retain(|line| !line.contains("# Connection with replica "));
    assert_eq!(warnings, Vec::<String>::new());
}

/// All commands in the append only file after its base.
fn appended(dir: &Path) -> Vec<Words> {
    let manifest = fs::read_to_string(dir.join("appendonlydir/appendonly.aof.manifest")).unwrap();
    let mut commands = Vec::new();
    for line in manifest.lines().filter(|line| line.contains(" type i")) {
        let file = line.split(' ').nth(1).unwrap();
        let bytes = fs::read(dir.join("appendonlydir").join(file)).unwrap();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let words = header(&mut rest, b'*');
            let word = |_| {
                let len = header(&mut rest, b'$');
                let word = rest[..len].to_vec();
                rest = &rest[len + 2..];
                word
            };
            commands.push((0..words).map(word).collect());
        }
    }
    commands
}

/// Reads a line such as `*3`.
fn header(rest: &mut &[u8], sign: u8) -> usize {
    let end = rest.windows(2).position(|pair| pair == b"\r\n").unwrap();
    assert_eq!(rest[0], sign);
    let number = std::str::from_utf8(&rest[1..end]).unwrap().parse().unwrap();
    *rest = &rest[end + 2..];
    number
}

#[test]
fn replicas_equal_their_master_after_any_commands() {
    let master = master().config("appendonly", "yes").start();
    let with = Server::replica_of(&master).start();
    let without = Server::replica_of(&master).without_module().start();
    let behind = Server::replica_of(&with).without_module().start();
    let replicas = [&with, &without, &behind];

    let mut conn = master.connection();
    load_function(&mut conn);
    let mut commands = Commands::new(1, KEYS);
    for way in Way::ALL {
        for db in DATABASES {
            select(&mut conn, db);
            send_random(&mut conn, way, 12_500 * soak(), &mut commands);
        }
        for replica in replicas {
            assert_equal(&master, replica);
        }
    }
    let expired = stat(&master, "expired_keys");
    eventually(PATIENCE, TICK, "idle buckets to expire", || {
        stat(&master, "expired_keys") >= expired + 20
    });
    for replica in replicas {
        assert_equal(&master, replica);
    }
    // All of it took part, and keys expired during the traffic.
    let least = 5_000 * soak();
    for field in ["claw_taken", "claw_refused"] {
        assert!(stat(&master, field) > least, "{field}: {}", stat(&master, field));
    }
    for field in ["claw_given", "claw_corrupt", "expired_keys"] {
        assert!(stat(&master, field) > 100, "{field}: {}", stat(&master, field));
    }
    no_warnings(&[&master, &with, &without, &behind]);

    // The stream, and with it the append only file, has effects only.
    settle(&mut conn, &names(KEYS));
    assert_equal(&master, &behind);
    let data = master.stop();
    let known = [
        "SELECT",
        "FUNCTION",
        "MULTI",
        "EXEC",
        "HSET",
        "HDEL",
        "PEXPIREAT",
        "PERSIST",
        "DEL",
        "UNLINK",
    ];
    let mut seen = BTreeSet::new();
    let mut inside = false;
    for words in appended(data.path()) {
        let name = String::from_utf8(words[0].to_ascii_uppercase()).unwrap();
        assert!(known.contains(&name.as_str()), "{name}");
        match name.as_str() {
            "MULTI" => assert!(!std::mem::replace(&mut inside, true)),
            "EXEC" => assert!(std::mem::replace(&mut inside, false)),
            _ => {}
        }
        seen.insert(name);
    }
    assert!(!inside);
    assert_eq!(seen.len(), known.len(), "{seen:?}");

    // So a server without the module can load it.
    let loaded = data.builder().without_module().start();
    assert_eq!(digest(&mut loaded.connection()), digest(&mut behind.connection()));
    assert_eq!(content(&mut loaded.connection()), content(&mut behind.connection()));
    no_warnings(&[&loaded]);
}

/// What a call appends to the file, without values: names of commands, keys and
/// fields.
fn effects(server: &Server, known: &mut usize) -> Vec<String> {
    let all = appended(server.dir());
    let new = all[*known..].iter().map(|words| {
        let words: Vec<String> =
            words.iter().map(|word| String::from_utf8(word.clone()).unwrap()).collect();
        match words[0].as_str() {
            "HSET" => {
                let fields: Vec<&str> = words[2..].iter().step_by(2).map(String::as_str).collect();
                format!("HSET {} {}", words[1], fields.join(" "))
            }
            "PEXPIREAT" => format!("PEXPIREAT {}", words[1]),
            _ => words.join(" "),
        }
    });
    // Which database it is does not matter here.
    let new = new.filter(|line| !line.starts_with("SELECT")).collect();
    *known = all.len();
    new
}

/// A word of a command, with `~` for a space.
fn word(text: &str) -> Vec<u8> {
    text.replace('~', " ").into_bytes()
}

#[test]
fn a_call_is_one_unit_of_effects() {
    let server =
        Server::builder().config("appendonly", "yes").config("appendfsync", "always").start();
    let mut conn = server.connection();
    cmd(&mut conn, "DEBUG SET-ACTIVE-EXPIRE 0").unwrap();
    let mut known = appended(server.dir()).len();

    // A refill of a token a second leaves no remainder, and with so many tokens
    // missing the time that the test takes does not matter.
    const BIG: &str = "CAPACITY 1000000 REFILL 1";
    let take = |n: u64, key: &str| format!("CL.TAKE {key} {n} {BIG}");
    let remainder = "HSET r tokens 3 timestamp 2026-03-19T10:00:00Z policy 1000000~1/86399989";
    // What has to be in the file, without MULTI and EXEC around more than one
    // command, and the call, or the calls of one transaction.
    let table: &[(&[&str], &[&str])] = &[
        (&["HSET a tokens timestamp policy", "PEXPIREAT a"], &[&take(500_000, "a")]),
        // The expiry is late enough for another take.
        (&["HSET a tokens timestamp"], &[&take(1, "a")]),
        (&["HSET a tokens timestamp"], &["CL.GIVE a"]),
        (&["HSET a tokens timestamp"], &[&take(200_000, "a")]),
        (&[], &[&take(400_000, "a")]),
        (&["HSET a tokens timestamp", "PEXPIREAT a"], &[&(take(400_000, "a") + " PARTIAL")]),
        (&[], &[&take(400_000, "a")]),
        // A refused call that brings a new policy leaves that, and only that.
        (&["HSET a tokens timestamp policy"], &["CL.TAKE a 400000 CAPACITY 1000001 REFILL 1"]),
        (&["HSET a tokens timestamp policy", "PERSIST a"], &["CL.POLICY a CAPACITY 9 REFILL 0"]),
        (&["HSET a tokens timestamp userWeight"], &["CL.POLICY a WEIGHT 3"]),
        (&[], &["CL.POLICY a"]),
        (
            &["HSET a tokens timestamp userWeight", "HDEL a policy", "PEXPIREAT a"],
            &["CL.POLICY a RESET"],
        ),
        (&["HSET b tokens timestamp", "PEXPIREAT b"], &["CL.TAKE b"]),
        (&["HSET never tokens timestamp policy"], &["CL.TAKE never 1 CAPACITY 2 REFILL 0"]),
        (&["HSET never tokens timestamp"], &["CL.TAKE never 1 CAPACITY 2 REFILL 0"]),
        (&[], &["CL.TAKE never 1 CAPACITY 2 REFILL 0"]),
        (&["HSET pinned tokens timestamp policy"], &["CL.POLICY pinned CAPACITY 3"]),
        (
            &["HSET throttle tokens timestamp policy", "PEXPIREAT throttle"],
            &["CL.THROTTLE throttle 999999 1 1 500000"],
        ),
        (&["HSET throttle tokens timestamp"], &["CL.THROTTLE throttle 999999 1 1 3"]),
        (&[], &["CL.THROTTLE throttle 999999 1 1 600000"]),
        (&["HSET throttle tokens timestamp"], &["CL.THROTTLE throttle 999999 1 1 -1"]),
        (
            &[
                "HSET x tokens timestamp policy",
                "PEXPIREAT x",
                "HSET y tokens timestamp policy",
                "PEXPIREAT y",
            ],
            &[&format!("CL.TAKEALL 3 x y x TOKENS 300000 {BIG}")],
        ),
        (
            &["HSET x tokens timestamp", "HSET y tokens timestamp"],
            &[&format!("CL.TAKEALL 2 x y {BIG}")],
        ),
        (&[], &[&format!("CL.TAKEALL 2 x y TOKENS 1 900000 {BIG}")]),
        (&["HSET y tokens timestamp"], &[&format!("CL.TAKEALL 2 x y TOKENS 0 5 {BIG}")]),
        (&["HSET x tokens timestamp", "HSET y tokens timestamp"], &[&take(1, "x"), &take(1, "y")]),
        (&["HSET x tokens timestamp"], &[&take(1, "x"), &take(900_000, "y"), "CL.PEEK x"]),
        // Tokens come with the part of a millionth that they cannot express.
        (&["HSET r tokens timestamp policy"], &[remainder]),
        (
            &["HSET r tokens timestamp remainder", "PEXPIREAT r"],
            &["CL.TAKE r 1 CAPACITY 1000000 REFILL 1 INTERVAL 86399989"],
        ),
        // What a person makes is a bucket; an expiry of the person's is moved.
        (&["HSET hand tokens"], &["HSET hand tokens 7"]),
        (&["HSET hand tokens timestamp", "PEXPIREAT hand"], &["CL.TAKE hand"]),
        (&["PEXPIREAT hand"], &["PEXPIREAT hand 9999999999999"]),
        (&["HSET hand tokens timestamp", "PEXPIREAT hand"], &["CL.TAKE hand"]),
        // Fields of the person's own stay, and keep the key.
        (&["HSET hand note"], &["HSET hand note hello"]),
        (&["HSET hand tokens timestamp", "PERSIST hand"], &["CL.TAKE hand"]),
        (&["HSET hand tokens timestamp"], &["CL.TAKE hand"]),
    ];
    let unit = |lines: &[&str]| match lines.len() {
        0 | 1 => lines.iter().map(ToString::to_string).collect(),
        _ => [&["MULTI"], lines, &["EXEC"]].concat().iter().map(ToString::to_string).collect(),
    };
    for (expected, calls) in table {
        let words = |call: &&str| call.split(' ').map(word).collect();
        let way = if calls.len() == 1 { Way::Plain } else { Way::Transaction };
        for answer in send(&mut conn, way, &[calls.iter().map(words).collect()]) {
            assert!(!matches!(answer, Value::ServerError(_)), "{calls:?}: {answer:?}");
        }
        let expected: Vec<String> = unit(expected);
        assert_eq!(effects(&server, &mut known), expected, "{calls:?}");
    }

    // Scripts and functions are units too.
    load_function(&mut conn);
    effects(&server, &mut known);
    let calls = [take(1, "x"), take(1, "y")].map(|call| call.split(' ').map(word).collect());
    for way in [Way::Script, Way::Function] {
        send(&mut conn, way, &[calls.to_vec()]);
        let expected: Vec<String> = unit(&["HSET x tokens timestamp", "HSET y tokens timestamp"]);
        assert_eq!(effects(&server, &mut known), expected, "{way:?}");
    }

    // A bucket that has expired is first deleted, in the same unit.
    cmd(&mut conn, "PEXPIRE b 1").unwrap();
    thread::sleep(Duration::from_millis(5));
    effects(&server, &mut known);
    assert_eq!(ints(&mut conn, "CL.TAKE b")[..3], [1, 1000, 999]);
    let mut found = effects(&server, &mut known);
    found[1] = found[1].replace("UNLINK", "DEL");
    let expected: Vec<String> = unit(&["DEL b", "HSET b tokens timestamp", "PEXPIREAT b"]);
    assert_eq!(found, expected);
    no_warnings(&[&server]);
}

#[test]
fn what_changes_nothing_replicates_nothing() {
    let master = master().start();
    let replica = Server::replica_of(&master).start();
    let mut conn = master.connection();
    cmd(&mut conn, "CL.TAKE empty 5 CAPACITY 5 REFILL 0").unwrap();
    cmd(&mut conn, "CL.TAKE half 3 CAPACITY 5 REFILL 0").unwrap();
    cmd(&mut conn, "CL.POLICY pinned CAPACITY 5 REFILL 0").unwrap();
    cmd(&mut conn, "CL.THROTTLE slow 0 1 86400").unwrap();
    cmd(&mut conn, "HSET broken tokens many").unwrap();
    cmd(&mut conn, "SET text 1").unwrap();
    load_function(&mut conn);
    wait_for_offset(&master, &replica);
    let before = offset(&mut conn);
    for line in [
        "CL.TAKE empty 1 CAPACITY 5 REFILL 0",
        "CL.TAKE empty 1 CAPACITY 5 REFILL 0 PARTIAL",
        "CL.TAKE half 3 CAPACITY 5 REFILL 0",
        "CL.TAKE half 0 CAPACITY 5 REFILL 0",
        "CL.TAKE pinned 6",
        "CL.TAKE pinned 6 CAPACITY 100",
        "CL.TAKE missing 1001",
        "CL.TAKE missing 6 CAPACITY 5",
        "CL.TAKE missing 0",
        "CL.TAKEALL 2 half empty CAPACITY 5 REFILL 0",
        "CL.TAKEALL 3 half missing half TOKENS 1 1 2 CAPACITY 5 REFILL 0",
        "CL.TAKEALL 2 half missing TOKENS 0 CAPACITY 5 REFILL 0",
        "CL.THROTTLE slow 0 1 86400",
        "CL.THROTTLE slow 0 1 86400 0",
        "CL.THROTTLE missing 0 1 86400 2",
        "CL.GIVE missing 5",
        "CL.GIVE pinned",
        "CL.GIVE half 0",
        "CL.PEEK half",
        "CL.PEEK half 1 CAPACITY 9 REFILL 1",
        "CL.PEEK missing",
        "CL.POLICY half",
        "CL.POLICY missing",
        "CL.POLICY missing RESET",
        "CL.POLICY missing WEIGHT 1",
        "CL.POLICY pinned CAPACITY 5 REFILL 0",
        "CL.TAKE broken",
        "CL.TAKEALL 2 half broken CAPACITY 5 REFILL 0",
        "CL.POLICY broken CAPACITY 3",
        "CL.TAKE text",
        "CL.TAKEALL 2 half text CAPACITY 5 REFILL 0",
        "CL.TAKE half many",
        "CL.POLICY half CAPACITY 0",
    ] {
        let words: Words = line.split(' ').map(Into::into).collect();
        for way in Way::ALL {
            send(&mut conn, way, &[vec![words.clone()]]);
            assert_eq!(offset(&mut conn), before, "{line}, {way:?}");
        }
    }
    // The offset does tell.
    cmd(&mut conn, "CL.TAKE half 1 CAPACITY 5 REFILL 0").unwrap();
    assert_ne!(offset(&mut conn), before);
    no_warnings(&[&master, &replica]);
}

#[test]
fn replicas_answer_peeks_and_refuse_writers() {
    let master = master().start();
    let replica = Server::replica_of(&master).start();
    let (mut ours, mut theirs) = (master.connection(), replica.connection());
    let setup = [
        "CL.TAKE never 3 CAPACITY 10 REFILL 0",
        "CL.TAKE slow 3 CAPACITY 10 REFILL 1 INTERVAL 31622400000",
        "CL.POLICY pinned CAPACITY 7 REFILL 0 WEIGHT 2",
        "CL.TAKE pinned 2",
        "HSET hand tokens 2.5 timestamp 2026-03-19T10:00:00Z policy 9~0/1000",
        "HSET broken tokens many",
        "SET text 1",
    ];
    for line in setup {
        let words: Words = line.split(' ').map(word).collect();
        redis::Cmd::new().arg(words).exec(&mut ours).unwrap();
    }
    wait_for_offset(&master, &replica);

    let before = offset(&mut ours);
    for line in [
        "CL.PEEK never",
        "CL.PEEK never 8",
        "CL.PEEK never 1 CAPACITY 5",
        "CL.PEEK slow",
        "CL.PEEK slow 8",
        "CL.PEEK slow 1 CAPACITY 10 REFILL 1 INTERVAL 31622400000",
        "CL.PEEK pinned",
        "CL.PEEK pinned 6 CAPACITY 90",
        "CL.PEEK hand",
        "CL.PEEK hand 3",
        "CL.PEEK missing",
        "CL.PEEK missing 1001",
    ] {
        // Waits become shorter while we ask, so the replica's lie between.
        let first = ints(&mut ours, line);
        let answer = ints(&mut theirs, line);
        let last = ints(&mut ours, line);
        assert_eq!(answer[..3], first[..3], "{line}");
        for wait in [3, 4] {
            assert!((last[wait]..=first[wait]).contains(&answer[wait]), "{line}: {answer:?}");
        }
    }
    for line in ["CL.PEEK broken", "CL.PEEK text", "CL.PEEK never 1 CAPACITY 0", "CL.PEEK"] {
        assert_eq!(error(&mut theirs, line), error(&mut ours, line));
    }
    let peek = "return redis.call('CL.PEEK', KEYS[1])";
    let answer: Vec<i64> =
        redis::cmd("EVAL_RO").arg(peek).arg(1).arg("never").query(&mut theirs).unwrap();
    assert_eq!(answer, [1, 1000, 6, 0, 198_800]);

    for line in [
        "CL.TAKE never",
        "CL.TAKE never 99",
        "CL.TAKE never 0",
        "CL.TAKE missing",
        "CL.GIVE never",
        "CL.TAKEALL 2 never slow",
        "CL.POLICY never",
        "CL.POLICY never CAPACITY 5",
        "CL.POLICY never RESET",
        "CL.THROTTLE never 1 1 1",
        "CL.THROTTLE never 1 1 1 0",
    ] {
        assert!(error(&mut theirs, line).starts_with("READONLY "), "{line}");
    }
    assert_eq!(offset(&mut ours), before);
    assert_equal_digests(&master, &replica);
    no_warnings(&[&master, &replica]);
}

/// For servers that have more than hashes, or clocks of their own.
fn assert_equal_digests(master: &Server, replica: &Server) {
    let (mut ours, mut theirs) = (master.connection(), replica.connection());
    eventually(PATIENCE, TICK, "the digests to be equal", || {
        wait_for_offset(master, replica);
        digest(&mut ours) == digest(&mut theirs)
    });
}

#[test]
fn wait_tells_that_replicas_have_a_take() {
    let master = master().start();
    let replicas =
        [Server::replica_of(&master).start(), Server::replica_of(&master).without_module().start()];
    let mut conn = master.connection();
    for n in 1..=20 {
        cmd(&mut conn, "CL.TAKE k 1 CAPACITY 100 REFILL 0").unwrap();
        assert_eq!(int(&mut conn, "WAIT 2 60000"), 2);
        for replica in &replicas {
            assert_eq!(common::tokens(&mut replica.connection(), "k"), Some(100 - n));
        }
    }
    // There is nothing to wait for after a refusal.
    assert_eq!(ints(&mut conn, "CL.TAKE k 101 CAPACITY 100 REFILL 0")[0], 0);
    assert_eq!(int(&mut conn, "WAIT 2 60000"), 2);
    no_warnings(&[&master, &replicas[0], &replicas[1]]);
}

/// Clients that send random commands, each in its own way.
struct Clients {
    each: Vec<Mutex<(Connection, Commands)>>,
    sent: AtomicU64,
}

impl Clients {
    fn of(master: &Server, seed: u64) -> Clients {
        let client = |n| {
            let mut conn = master.connection();
            select(&mut conn, DATABASES[n % DATABASES.len()]);
            Mutex::new((conn, Commands::new(seed + n as u64, KEYS)))
        };
        load_function(&mut master.connection());
        Clients { each: (0..Way::ALL.len()).map(client).collect(), sent: AtomicU64::new(0) }
    }

    fn under_load<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        let work = |client: usize| {
            let mut client_state = self.each[client].lock().unwrap();
            let (conn, commands) = &mut *client_state;
            send_random(conn, Way::ALL[client], 100, commands);
            self.sent.fetch_add(100, SeqCst);
        };
        under_load(self.each.len(), work, meanwhile)
    }

    /// Waits until they have sent more commands.
    fn go_on(&self, more: u64) {
        let target = self.sent.load(SeqCst) + more;
        eventually(PATIENCE, TICK, "commands to be sent", || self.sent.load(SeqCst) >= target);
    }
}

#[test]
fn a_full_resync_under_load_ends_equal() {
    // How the master sends its data, and how the replica loads them.
    for (send, load) in [("no", "disabled"), ("yes", "disabled"), ("yes", "swapdb")] {
        let master = master()
            .config("repl-diskless-sync", send)
            // In microseconds: makes the save last while commands come in.
            .config("rdb-key-save-delay", "200")
            .start();
        let clients = Clients::of(&master, 10);
        let replica = |builder: Builder| builder.config("repl-diskless-load", load).start();
        let replicas = clients.under_load(|| {
            clients.go_on(2_000);
            let with = replica(Server::replica_of(&master));
            clients.go_on(1_000);
            let without = replica(Server::replica_of(&master).without_module());
            clients.go_on(1_000);
            // Once more, over data that is there already.
            cmd(&mut with.connection(), "REPLICAOF NO ONE").unwrap();
            cmd(&mut with.connection(), "CL.TAKE only-here").unwrap();
            let full = stat(&master, "sync_full");
            cmd(&mut with.connection(), &format!("REPLICAOF 127.0.0.1 {}", master.port())).unwrap();
            eventually(PATIENCE, TICK, "another full resync", || {
                stat(&master, "sync_full") > full
                    && info_field(&mut with.connection(), "replication", "master_link_status")
                        .as_deref()
                        == Some("up")
            });
            clients.go_on(1_000);
            [with, without]
        });
        for replica in &replicas {
            assert_equal(&master, replica);
            assert_sound(replica);
        }
        no_other_warnings(&master);
    }
}

#[test]
fn a_partial_resync_under_load_ends_equal() {
    let master = master().start();
    let clients = Clients::of(&master, 20);
    let with = Server::replica_of(&master).start();
    let without = Server::replica_of(&master).without_module().start();
    let full = stat(&master, "sync_full");
    clients.under_load(|| {
        for round in 0..4 * soak() {
            clients.go_on(1_000);
            let partial = stat(&master, "sync_partial_ok");
            match round % 2 {
                // Either side may break the connection.
                0 => cmd(&mut master.connection(), "CLIENT KILL TYPE replica").unwrap(),
                _ => {
                    cmd(&mut with.connection(), "CLIENT KILL TYPE master").unwrap();
                    cmd(&mut without.connection(), "CLIENT KILL TYPE master").unwrap()
                }
            };
            eventually(PATIENCE, TICK, "both replicas to be back", || {
                stat(&master, "sync_partial_ok") >= partial + 2
            });
        }
        clients.go_on(1_000);
    });
    assert_eq!(stat(&master, "sync_full"), full);
    for replica in [&with, &without] {
        assert_equal(&master, replica);
        assert_sound(replica);
    }
    no_other_warnings(&master);
}

/// A library that makes a program believe in another time, by the seconds in
/// the variable `CLOCK_AHEAD`.
fn clock_library(dir: &Path) -> PathBuf {
    let source = r#"
        #define _GNU_SOURCE
        #include <stdlib.h>
        #include <sys/syscall.h>
        #include <sys/time.h>
        #include <time.h>
        #include <unistd.h>
        static long ahead;
        __attribute__((constructor)) static void start(void) {
            const char *text = getenv("CLOCK_AHEAD");
            if (text) ahead = atol(text);
        }
        int clock_gettime(clockid_t id, struct timespec *t) {
            int result = syscall(SYS_clock_gettime, id, t);
            if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) t->tv_sec += ahead;
            return result;
        }
        int gettimeofday(struct timeval *restrict t, void *restrict zone) {
            struct timespec now;
            int result = clock_gettime(CLOCK_REALTIME, &now);
            t->tv_sec = now.tv_sec;
            t->tv_usec = now.tv_nsec / 1000;
            return result;
        }
        time_t time(time_t *t) {
            struct timespec now;
            clock_gettime(CLOCK_REALTIME, &now);
            if (t) *t = now.tv_sec;
            return now.tv_sec;
        }
    "#;
    let (file, library) = (dir.join("clock.c"), dir.join("clock.so"));
    fs::write(&file, source).unwrap();
    // Whoever could link this test has a C compiler.
    let status =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&file).status();
    assert!(status.expect("cc can be started").success());
    library
}

#[test]
fn clocks_and_time_zones_of_replicas_do_not_matter() {
    const DAY: i64 = 86_400;
    let master = master().start();
    let library = clock_library(master.dir());
    let clients = Clients::of(&master, 30);
    let start = |ahead: i64, zone: &str| {
        Server::replica_of(&master)
            .env("LD_PRELOAD", &library)
            .env("CLOCK_AHEAD", ahead.to_string())
            .env("TZ", zone)
            .start()
    };
    let time = |server: &Server| -> i64 {
        let time: (i64, i64) = redis::cmd("TIME").query(&mut server.connection()).unwrap();
        time.0
    };
    let replicas = clients.under_load(|| {
        clients.go_on(1_000);
        let replicas =
            [start(-DAY, "Asia/Kathmandu"), start(DAY, "America/St_Johns"), start(0, "UTC")];
        for (replica, ahead) in replicas.iter().zip([-DAY, DAY, 0]) {
            let difference = time(replica) - time(&master);
            assert!((ahead - 60..=ahead + 60).contains(&difference), "{difference}");
        }
        // One is late with everything.
        let mut paused = replicas[2].connection();
        paused.set_read_timeout(Some(PATIENCE)).unwrap();
        cmd(&mut paused, "DEBUG SLEEP 1.5").unwrap();
        clients.go_on(5_000);
        replicas
    });
    for replica in &replicas {
        assert_equal_digests(&master, replica);
    }
    // A clock behind hides no key, so that times of expiry can be compared too.
    assert_equal(&master, &replicas[0]);
    assert_equal(&master, &replicas[2]);
    no_warnings(&[&master, &replicas[0], &replicas[1], &replicas[2]]);
}
