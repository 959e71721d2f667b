//! docs/moving-data.md on real servers: what passes from which to which, and what becomes of
//! a bucket whose fields expire. The cells are read from the page.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, iter};

use claw_testkit::{
    Builder, DataDir, Server, ask, call, call_bytes, eventually, fields, info_field, ints, run,
};
use redis::{Connection, Value};

const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(2);

/// One with nothing but numbers, and one whose hash is too large to be stored as a list;
/// nothing refills.
const BUCKETS: [&str; 2] = [
    "HSET small tokens 7.25 timestamp 1795784400000000 userWeight 2 policy 10~0/1000~pinned~3",
    "HSET large tokens 3 timestamp 1795784400000000 policy 10~0/1000 note NOTE",
];
const KEYS: [&str; 2] = ["small", "large"];

/// Runs a command in whose words `~` stands for a space.
fn send(conn: &mut Connection, line: &str) -> Value {
    let line = line.replace("NOTE", &"n".repeat(1_000));
    let words: Vec<String> = line.split(' ').map(|word| word.replace('~', " ")).collect();
    call(conn, &words).unwrap()
}

fn make_buckets(conn: &mut Connection) {
    BUCKETS.iter().for_each(|line| drop(send(conn, line)));
}

/// What a server has of the buckets.
fn buckets(conn: &mut Connection) -> [BTreeMap<String, String>; 2] {
    KEYS.map(|key| fields(conn, key))
}

/// The rows of a section of the page as cells, the head of the table first.
fn table(section: &str) -> Vec<Vec<String>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/moving-data.md");
    let page = fs::read_to_string(path).unwrap();
    let (_, rest) = page.split_once(&format!("\n## {section}\n")).expect("the section");
    let rows = rest.lines().take_while(|line| !line.starts_with("## "));
    let rows = rows.filter(|line| line.starts_with("| "));
    let cells = |row: &str| row.trim_matches('|').split('|').map(|c| c.trim().into()).collect();
    rows.map(cells).collect()
}

/// A program, and what the page calls it.
struct Program {
    path: PathBuf,
    name: String,
}

impl Program {
    fn at(path: PathBuf) -> Program {
        let server = Server::builder().program(&path).without_module().start();
        let conn = &mut server.connection();
        // Those that come from Redis say besides which version they are compatible with.
        let kinds = [("Valkey", "valkey"), ("Redict", "redict"), ("Redis", "redis")];
        let (kind, version) = kinds
            .iter()
            .find_map(|(kind, field)| {
                Some((kind, info_field(conn, "server", &format!("{field}_version"))?))
            })
            .expect("a version");
        let (minor, _) = version.rsplit_once('.').expect("three numbers");
        Program { path, name: format!("{kind} {minor}") }
    }

    fn server(&self) -> Builder {
        Server::builder().program(&self.path)
    }

    fn started(&self) -> (Server, Connection) {
        let server = self.server().start();
        let conn = server.connection();
        (server, conn)
    }
}

/// Servers that come from Debian: see scripts/newer-servers.sh.
mod newer {
    use super::*;

    /// This system's, and those that are unpacked. The page has to say something of each.
    fn programs() -> Vec<Program> {
        let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers/bin");
        let unpacked = ["redis8", "valkey8", "redis", "valkey", "redict"];
        let unpacked = unpacked.map(|name| place.join(format!("{name}-server")));
        iter::once("redis-server".into()).chain(unpacked).map(Program::at).collect()
    }

    fn lets_fields_expire(program: &Program) -> bool {
        let (_server, mut conn) = program.started();
        let known: Vec<Value> = ask(&mut conn, "COMMAND INFO HPEXPIRE");
        known != [Value::Nil]
    }

    /// Tries something from each to each, and compares it with the page.
    fn assert_documented(passes: impl Fn(&Program, &[Program]) -> Vec<bool>) {
        let (programs, table) = (programs(), table("Between servers"));
        let cells: BTreeMap<_, _> = table[1..]
            .iter()
            .flat_map(|row| iter::zip(&table[0], row).map(|(to, cell)| ((&row[0], to), cell)))
            .collect();
        for from in &programs {
            for (to, passed) in iter::zip(&programs, passes(from, &programs)) {
                let pair = format!("docs/moving-data.md: {} to {}", from.name, to.name);
                let cell = cells.get(&(&from.name, &to.name)).expect(&pair);
                assert_eq!(*cell, if passed { "yes" } else { "no" }, "{pair}");
            }
        }
    }

    #[test]
    #[ignore = "needs newer servers: make newer-server-tests"]
    fn payloads_pass_as_documented() {
        assert_documented(|from, programs| {
            let (_source, mut source) = from.started();
            make_buckets(&mut source);
            let made = buckets(&mut source);
            let payloads = KEYS.map(|key| ask::<Vec<u8>>(&mut source, &format!("DUMP {key}")));
            let passes = |to: &Program| {
                let (_target, mut target) = to.started();
                let answers: Vec<_> = iter::zip(KEYS, &payloads)
                    .map(|(key, payload)| {
                        call_bytes(&mut target, &[b"RESTORE", key.as_bytes(), b"0", payload])
                    })
                    .collect();
                if answers.iter().all(Result::is_ok) {
                    assert_eq!(buckets(&mut target), made);
                    assert_eq!(ints(&mut target, "CL.TAKE small 7"), [7, 10, 0, 0, -1]);
                    return true;
                }
                let refused = "ERR DUMP payload version or checksum are wrong";
                assert!(answers.iter().all(|answer| answer == &Err(refused.into())), "{answers:?}");
                false
            };
            programs.iter().map(passes).collect()
        });
    }

    /// One of which a field is about to expire.
    #[test]
    #[ignore = "needs newer servers: make newer-server-tests"]
    fn a_hash_passes_to_none_that_lacks_its_expiry() {
        let (can, cannot): (Vec<_>, Vec<_>) = programs().into_iter().partition(lets_fields_expire);
        let mut targets: Vec<_> = cannot.iter().map(Program::started).collect();
        for from in can {
            let (_source, mut source) = from.started();
            run(&mut source, &["HSET k tokens 1 note mine", "HEXPIRE k 1000 FIELDS 1 note"]);
            let payload: Vec<u8> = ask(&mut source, "DUMP k");
            for (to, (_, target)) in iter::zip(&cannot, &mut targets) {
                let answer = call_bytes(target, &[b"RESTORE", b"k", b"0", &payload]);
                assert!(answer.is_err(), "{} to {}: {answer:?}", from.name, to.name);
            }
        }
    }

    #[test]
    #[ignore = "needs newer servers: make newer-server-tests"]
    fn rdb_files_pass_as_documented() {
        assert_documented(|from, programs| {
            let (source, mut conn) = from.started();
            make_buckets(&mut conn);
            let made = buckets(&mut conn);
            let data = source.stop_saving();
            let passes = |to: &Program| match to.server().dir(data.path()).try_start() {
                Ok(target) => {
                    assert_eq!(buckets(&mut target.connection()), made);
                    true
                }
                Err(log) => {
                    // Valkey 9 begins its files with its own name.
                    let reasons = ["Can't handle RDB format version", "Wrong signature"];
                    assert!(reasons.iter().any(|reason| log.contains(reason)), "{log}");
                    false
                }
            };
            programs.iter().map(passes).collect()
        });
    }

    #[test]
    #[ignore = "needs newer servers: make newer-server-tests"]
    fn files_of_commands_pass_from_each_to_each() {
        let programs = programs();
        let writing = |server: Builder| {
            server.without_module().config("appendonly", "yes").config("aof-use-rdb-preamble", "no")
        };
        for from in &programs {
            let source = writing(from.server()).start();
            let conn = &mut source.connection();
            make_buckets(conn);
            let made = buckets(conn);
            run(conn, &["BGREWRITEAOF"]);
            eventually(PATIENCE, TICK, "the rewrite", || {
                let mut field = |name| info_field(conn, "persistence", name).unwrap();
                field("aof_rewrite_in_progress") == "0" && field("aof_rewrite_scheduled") == "0"
            });
            let data = source.stop();
            for to in &programs {
                // A copy: the next one is to get what the source has written.
                let copy = to.server().start().stop();
                copy_files(&data, &copy, "appendonlydir");
                let target = writing(copy.builder()).start();
                let has = buckets(&mut target.connection());
                assert_eq!(has, made, "{} to {}", from.name, to.name);
            }
        }
    }

    fn copy_files(from: &DataDir, to: &DataDir, dir: &str) {
        let (from, to) = (from.path().join(dir), to.path().join(dir));
        fs::create_dir(&to).unwrap();
        for file in fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }

    #[test]
    #[ignore = "needs newer servers: make newer-server-tests"]
    fn states_pass_from_each_to_each() {
        let programs = programs();
        let mut servers: Vec<_> = programs.iter().map(Program::started).collect();
        servers.iter_mut().for_each(|(_, conn)| make_buckets(conn));
        let state =
            |conn: &mut Connection, key: &str| ask::<Vec<u8>>(conn, &format!("CL.STATE {key}"));
        for (from, source) in programs.iter().enumerate() {
            for (to, target) in programs.iter().enumerate() {
                let pair = format!("{} to {}", source.name, target.name);
                for key in KEYS {
                    let sent = state(&mut servers[from].1, key);
                    let target = &mut servers[to].1;
                    let merge = [b"CL.MERGE", &b"moved"[..], b"STATE", &sent, b"STRATEGY", b"lww"];
                    let merged = call_bytes(target, &merge).expect(&pair);
                    let left = if key == "small" { 7 } else { 3 };
                    assert_eq!(
                        merged,
                        Value::Array([1, 10, left].map(Value::Int).into()),
                        "{pair}"
                    );
                    assert_eq!(state(target, "moved"), sent, "{pair}");
                    let taken = ints(target, &format!("CL.TAKE moved {left}"));
                    assert_eq!(taken, [left, 10, 0, 0, -1], "{pair}");
                    run(target, &["DEL moved"]);
                }
            }
        }
    }

    /// A row of the table, a bucket, what a look finds, what of it expires, and what a look finds
    /// then.
    type Row = (&'static str, &'static str, [i64; 5], &'static str, [i64; 5]);

    /// The default policy does not refill here.
    const EXPIRING: [Row; 8] = [
        (
            "`tokens`",
            "tokens 4 timestamp NOW policy 10~0/1000",
            [0, 10, 4, 0, -1],
            "tokens",
            [0, 10, 10, 0, 0],
        ),
        (
            "`timestamp`",
            "tokens 4 timestamp 0 policy 10~1/1000",
            [0, 10, 10, 0, 0],
            "timestamp",
            [0, 10, 4, 0, 6_000],
        ),
        (
            "`policy`",
            "tokens 4 timestamp NOW policy 10~0/1000",
            [0, 10, 4, 0, -1],
            "policy",
            [0, 1_000, 4, 0, -1],
        ),
        (
            "`policy`",
            "tokens 4 timestamp NOW policy 10~0/1000~pinned~1",
            [0, 10, 4, 0, -1],
            "policy",
            [0, 1_000, 4, 0, -1],
        ),
        (
            "`temporary`",
            "tokens 4 timestamp NOW temporary 10~0/1000~until~4102444800000000~version~1",
            [0, 10, 4, 0, -1],
            "temporary",
            [0, 1_000, 4, 0, -1],
        ),
        (
            "`userWeight`",
            "tokens 4 userWeight 2 policy 10~1/1000",
            [0, 10, 4, 0, 3_000],
            "userWeight",
            [0, 10, 4, 0, 6_000],
        ),
        (
            "all",
            "tokens 4 timestamp NOW policy 10~0/1000",
            [0, 10, 4, 0, -1],
            "tokens timestamp policy",
            [0, 1_000, 1_000, 0, 0],
        ),
        // Not in the table: a field of one's own.
        (
            "",
            "tokens 4 timestamp NOW policy 10~0/1000 note mine",
            [0, 10, 4, 0, -1],
            "note",
            [0, 10, 4, 0, -1],
        ),
    ];

    #[test]
    #[ignore = "needs newer servers: make newer-server-tests"]
    fn a_field_that_has_expired_is_missing() {
        let rows = table("Fields that expire");
        let documented: Vec<&str> = rows[1..].iter().map(|row| row[0].as_str()).collect();
        let mut tried: Vec<&str> = EXPIRING.iter().map(|row| row.0).collect();
        tried.dedup();
        assert_eq!(documented[..], tried[..tried.len() - 1], "the rows of docs/moving-data.md");

        let programs: Vec<_> = programs().into_iter().filter(lets_fields_expire).collect();
        let names: BTreeSet<_> = programs.iter().map(|program| program.name.as_str()).collect();
        assert_eq!(names, ["Redis 8.0", "Redis 8.6", "Valkey 9.1"].into());
        for program in programs {
            let server = program.server().module_args(["refill-rate-per-sec", "0"]).start();
            let conn = &mut server.connection();
            // Fields that have expired are there until the server gets round to them; with
            // 0 it never does.
            for active in [1, 0] {
                run(conn, &[&format!("DEBUG SET-ACTIVE-EXPIRE {active}")]);
                for (_, bucket, before, expired, after) in EXPIRING {
                    expire(conn, bucket, before, expired, active == 1);
                    let what = format!("{}, active {active}: {bucket}, {expired}", program.name);
                    assert_eq!(ints(conn, "CL.PEEK k 0"), after, "{what}");
                    let [_, capacity, left, ..] = after;
                    assert_eq!(ints(conn, "CL.TAKE k")[..3], [1, capacity, left - 1], "{what}");
                    assert_eq!(expiry_of_both(conn), [-1, -1], "{what}");
                }
            }
            // A take ends what has not come to its end yet.
            run(conn, &["HEXPIRE k 1000 FIELDS 2 tokens timestamp"]);
            assert!(expiry_of_both(conn).iter().all(|seconds| *seconds > 0), "{}", program.name);
            assert_eq!(ints(conn, "CL.TAKE k")[0], 1);
            assert_eq!(expiry_of_both(conn), [-1, -1], "{}", program.name);
        }
    }

    fn expiry_of_both(conn: &mut Connection) -> [i64; 2] {
        ints(conn, "HTTL k FIELDS 2 tokens timestamp").try_into().unwrap()
    }

    /// Makes a bucket and waits until some of its fields have expired; and until they are
    /// gone, if the server removes them by itself.
    fn expire(conn: &mut Connection, bucket: &str, before: [i64; 5], names: &str, removed: bool) {
        run(conn, &["DEL k"]);
        let [seconds, micros]: [u64; 2] = ask(conn, "TIME");
        let now = seconds * 1_000_000 + micros;
        send(conn, &format!("HSET k {}", bucket.replace("NOW", &now.to_string())));
        assert_eq!(ints(conn, "CL.PEEK k 0"), before, "{bucket}");
        let all: usize = ask(conn, "HLEN k");
        let count = names.split(' ').count();
        run(conn, &[&format!("HPEXPIRE k 1 FIELDS {count} {names}")]);
        eventually(PATIENCE, TICK, &format!("{names} to expire"), || {
            let left: Vec<Option<String>> = ask(conn, &format!("HMGET k {names}"));
            left.iter().all(Option::is_none)
                && (!removed || ask::<usize>(conn, "HLEN k") == all - count)
        });
    }
}
