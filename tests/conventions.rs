//! Everything around the commands that Redis users rely on: what the server
//! says about them, ACL, events, tracking, configuration, loading, unloading.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use claw_testkit::{
    Builder, Server, ask, cmd, digest, error, eventually, info_field, int, ints, module_path, run,
    wire_error,
};
use redis::{Cmd, Connection, ConnectionLike, PubSub, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(1);

/// A command whose arguments are given one by one.
fn call<A: redis::ToRedisArgs>(conn: &mut Connection, args: &[A]) -> Result<Value, String> {
    let mut command = Cmd::new();
    for arg in args {
        command.arg(arg);
    }
    command.query(conn).map_err(|e| wire_error(&e).expect("an answer"))
}

/// A server on whose default policy hardly anything refills, so that tests need
/// not be fast.
fn slow_server() -> Builder {
    Server::builder().module_args(["refill-rate-per-sec", "0.001"])
}

fn words(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(String::from).collect()
}

/// The version of Redis that the server is, or says it is compatible with.
fn redis_version(conn: &mut Connection) -> (u32, u32) {
    let version = info_field(conn, "server", "redis_version").unwrap();
    let mut parts = version.split('.').map(|part| part.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap())
}

/// Redis 7.0 has no way for a module to put its commands into categories.
fn has_categories(conn: &mut Connection) -> bool {
    redis_version(conn) >= (7, 2)
}

/// Name, arity, flags, key positions, ACL categories, flags of the keys.
type About = (&'static str, i64, &'static str, [i64; 3], &'static str, &'static str);

const ABOUT: &[About] = &[
    ("cl.take", -2, "write denyoom fast", [1, 1, 1], "write fast hash", "RW access update"),
    ("cl.peek", -2, "readonly fast", [1, 1, 1], "read fast hash", "RO access"),
    ("cl.give", -2, "write denyoom fast", [1, 1, 1], "write fast hash", "RW access update"),
    (
        "cl.takeall",
        -3,
        "write denyoom movablekeys",
        [0, 0, 0],
        "write slow hash",
        "RW access update",
    ),
    ("cl.policy", -2, "write denyoom fast", [1, 1, 1], "write fast hash", "RW access update"),
    ("cl.throttle", -5, "write denyoom fast", [1, 1, 1], "write fast hash", "RW access update"),
    // A second specification finds the keys behind FROM, which are only read.
    (
        "cl.merge",
        -4,
        "write denyoom movablekeys",
        [1, 1, 1],
        "write slow hash",
        "RW access update, RO access",
    ),
    ("cl.state", 2, "readonly fast", [1, 1, 1], "read fast hash", "RO access"),
    ("cl.verify", -2, "readonly", [0, 0, 0], "read slow", ""),
    ("cl.sync", -2, "", [0, 0, 0], "slow", ""),
    ("cl.sync|status", 2, "readonly loading stale", [0, 0, 0], "slow", ""),
    ("cl.sync|now", 2, "", [0, 0, 0], "slow", ""),
    ("cl.sync|round", -7, "write fast", [0, 0, 0], "write fast", ""),
    ("cl.sync|help", 2, "loading stale", [0, 0, 0], "slow", ""),
];

/// How many of them are no subcommands.
fn commands() -> usize {
    ABOUT.iter().filter(|about| !about.0.contains('|')).count()
}

#[test]
fn command_info_says_what_the_commands_are() {
    let server = Server::start();
    let conn = &mut server.connection();
    let categorized = has_categories(conn);
    let names: BTreeSet<String> = ask(conn, "COMMAND LIST FILTERBY MODULE claw");
    assert_eq!(names, ABOUT.iter().map(|about| about.0.to_owned()).collect());
    let plain = Server::builder().without_module().start();
    let others = int(&mut plain.connection(), "COMMAND COUNT");
    assert_eq!(int(conn, "COMMAND COUNT"), others + i64::try_from(commands()).unwrap());

    for (name, arity, flags, keys, categories, key_flags) in ABOUT {
        let info: Vec<Value> = ask(conn, &format!("COMMAND INFO {name}"));
        let info: Vec<Value> = redis::from_redis_value(info[0].clone()).unwrap();
        assert_eq!(info[0], Value::BulkString(name.as_bytes().to_vec()));
        assert_eq!(info[1], Value::Int(*arity), "{name}");
        let set =
            |value: &Value| -> BTreeSet<String> { redis::from_redis_value(value.clone()).unwrap() };
        assert_eq!(set(&info[2]), words(&format!("module {flags}")), "{name}");
        assert_eq!(info[3..6], keys.map(Value::Int), "{name}");
        let categories = categories.split(' ').filter(|_| categorized);
        assert_eq!(set(&info[6]), categories.map(|c| format!("@{c}")).collect(), "{name}");
        let specs: Vec<BTreeMap<String, Value>> = redis::from_redis_value(info[8].clone()).unwrap();
        let key_flags: Vec<_> =
            key_flags.split(", ").filter(|f| !f.is_empty()).map(words).collect();
        assert_eq!(
            specs.iter().map(|spec| set(&spec["flags"])).collect::<Vec<_>>(),
            key_flags,
            "{name}"
        );
    }
}

/// Arguments in the way that documentation writes them, each with its type.
fn syntax(arguments: &Value, separator: &str) -> String {
    let arguments: Vec<BTreeMap<String, Value>> =
        redis::from_redis_value(arguments.clone()).unwrap();
    let one = |argument: &BTreeMap<String, Value>| {
        let text = |name: &str| -> Option<String> {
            argument.get(name).map(|value| redis::from_redis_value(value.clone()).unwrap())
        };
        let flags: BTreeSet<String> = argument
            .get("flags")
            .map(|flags| redis::from_redis_value(flags.clone()).unwrap())
            .unwrap_or_default();
        let kind = text("type").unwrap();
        let mut written = match kind.as_str() {
            "block" => {
                let token = text("token").map(|token| token + " ").unwrap_or_default();
                let more = if flags.contains("multiple") { " .." } else { "" };
                format!("{token}{}{more}", syntax(&argument["arguments"], " "))
            }
            "oneof" => format!("({})", syntax(&argument["arguments"], " | ")),
            "pure-token" => text("token").unwrap(),
            kind => {
                let token = text("token").map(|token| token + " ").unwrap_or_default();
                let more = if flags.contains("multiple") { " .." } else { "" };
                format!("{token}{}:{kind}{more}", text("name").unwrap())
            }
        };
        // Only keys belong to a key specification; the sources of a merge to its second.
        let spec = i64::from(text("name").as_deref() == Some("src"));
        let spec = (kind == "key").then_some(Value::Int(spec));
        assert_eq!(argument.get("key_spec_index"), spec.as_ref(), "{written}");
        if flags.contains("optional") {
            written = format!("[{written}]");
        }
        written
    };
    arguments.iter().map(one).collect::<Vec<_>>().join(separator)
}

#[test]
fn command_docs_describe_the_commands() {
    let server = Server::start();
    let conn = &mut server.connection();
    let rows = [
        (
            "cl.take",
            "Takes tokens from a bucket, or nothing when there are not enough.",
            "O(1)",
            "key:key [tokens:integer] [CAPACITY capacity:integer] \
             [REFILL refill:double [INTERVAL interval:integer]] [PARTIAL]",
        ),
        (
            "cl.peek",
            "Returns what CL.TAKE would answer, without taking.",
            "O(1)",
            "key:key [tokens:integer] [CAPACITY capacity:integer] \
             [REFILL refill:double [INTERVAL interval:integer]]",
        ),
        (
            "cl.give",
            "Gives unused tokens back to a bucket, up to its capacity.",
            "O(1)",
            "key:key [tokens:integer]",
        ),
        (
            "cl.takeall",
            "Takes tokens from all of several buckets, or from none of them.",
            "O(N) with N the number of keys",
            "numkeys:integer key:key .. [TOKENS tokens:integer ..] [CAPACITY capacity:integer ..] \
             [REFILL refill:double ..] [INTERVAL interval:integer ..]",
        ),
        (
            "cl.policy",
            "Reads, pins or resets the policy of a bucket.",
            "O(1)",
            "key:key [([CAPACITY capacity:integer] \
             [REFILL refill:double [INTERVAL interval:integer]] [WEIGHT weight:integer] | RESET)]",
        ),
        (
            "cl.throttle",
            "Takes tokens with the arguments and the reply of redis-cell.",
            "O(1)",
            "key:key max_burst:integer count:integer period:integer [quantity:integer]",
        ),
        (
            "cl.merge",
            "Merges other states of a bucket into it by a strategy.",
            "O(N) with N the number of states",
            "key:key (FROM numkeys:integer src:key .. | FIELDS field:string value:string .. | \
             STATE blob:string ..) [STRATEGY strategy:string]",
        ),
        (
            "cl.state",
            "Returns the state of a bucket as MessagePack, for CL.MERGE.",
            "O(1)",
            "key:key",
        ),
        (
            "cl.verify",
            "Checks a merge strategy against the laws of merging on random buckets.",
            "O(N) with N the number of samples",
            "strategy:string [SAMPLES samples:integer] [SEED seed:integer]",
        ),
        ("cl.sync", "A container for commands of region sync.", "Depends on subcommand.", ""),
        (
            "cl.sync|status",
            "Returns the state of region sync and of every peer.",
            "O(N) with N the number of peers",
            "",
        ),
        (
            "cl.sync|now",
            "Begins a round to every peer at once, without waiting for it.",
            "O(N) with N the number of peers",
            "",
        ),
        (
            "cl.sync|round",
            "Ends a round of region sync; for peers to send.",
            "O(N) with N the number of peers",
            "version:integer replica-id:string run:string sent:integer masters:integer [(OPENING | PARTIAL | REFUSED)] [RATES before:integer now:integer] [SETTLED] [HEARS [replica-id:string ..]]",
        ),
        ("cl.sync|help", "Returns helpful text about the different subcommands.", "O(1)", ""),
    ];
    assert_eq!(rows.map(|row| row.0).as_slice(), ABOUT.iter().map(|a| a.0).collect::<Vec<_>>());
    for (name, summary, complexity, expected) in rows {
        let docs: BTreeMap<String, BTreeMap<String, Value>> =
            ask(conn, &format!("COMMAND DOCS {name}"));
        let docs = &docs[name];
        let text =
            |field: &str| -> String { redis::from_redis_value(docs[field].clone()).unwrap() };
        assert_eq!(text("summary"), summary);
        assert_eq!(text("since"), "0.1.0", "{name}");
        assert_eq!(text("group"), "module", "{name}");
        assert_eq!(text("module"), "claw", "{name}");
        assert_eq!(text("complexity"), complexity, "{name}");
        let arguments = docs.get("arguments").map(|arguments| syntax(arguments, " "));
        assert_eq!(arguments.unwrap_or_default(), expected, "{name}");
        // An option of the documentation is one of the command, and the other
        // way round: see the tests of the commands.
    }
}

#[test]
fn the_server_finds_the_keys() {
    let server = Server::start();
    let conn = &mut server.connection();
    let rows = [
        ("CL.TAKE k", "k"),
        ("CL.TAKE k 5 CAPACITY 9 REFILL 1 INTERVAL 2 PARTIAL", "k"),
        ("CL.PEEK k 5", "k"),
        ("CL.GIVE k", "k"),
        ("CL.POLICY k RESET", "k"),
        ("CL.THROTTLE k 1 2 3", "k"),
        ("CL.TAKEALL 1 a", "a"),
        ("CL.TAKEALL 3 a b a", "a b a"),
        ("CL.TAKEALL 2 a b TOKENS 1 2 CAPACITY 3 4", "a b"),
        ("CL.TAKEALL 2 2 TOKENS 1", "2 TOKENS"),
    ];
    for (line, expected) in rows {
        let keys: Vec<String> = ask(conn, &format!("COMMAND GETKEYS {line}"));
        assert_eq!(keys.join(" "), expected, "{line}");
        let flagged: Vec<(String, BTreeSet<String>)> =
            ask(conn, &format!("COMMAND GETKEYSANDFLAGS {line}"));
        let expected = match line.contains("PEEK") {
            true => "RO access",
            false => "RW access update",
        };
        assert!(flagged.iter().all(|(_, flags)| *flags == words(expected)), "{line}: {flagged:?}");
    }
    for line in ["CL.TAKEALL 2 a", "CL.TAKEALL 0 a", "CL.TAKEALL -1 a", "CL.TAKEALL x a"] {
        let error = error(conn, &format!("COMMAND GETKEYS {line}"));
        assert!(error.starts_with("ERR "), "{line}: {error}");
    }
}

#[test]
fn acl_guards_keys_and_commands() {
    let server = Server::start();
    let admin = &mut server.connection();
    let users = [
        ("everything", "+@all ~*"),
        ("reader", "+@all %R~*"),
        ("writer", "+@all %W~*"),
        ("both", "+@all %RW~*"),
        ("mine", "+@all ~mine:*"),
        ("half", "+@all ~mine:* %R~other:*"),
        ("nothing", "-@all ~*"),
        ("looker", "-@all +cl.peek ~*"),
        ("taker", "+@all -cl.policy -cl.throttle ~*"),
        ("dangerous", "+@all -@dangerous -@admin ~*"),
    ];
    for (name, rules) in users {
        run(admin, &[&format!("ACL SETUSER {name} on nopass {rules}")]);
    }
    let everybody = users.map(|(name, _)| name);
    let all = "everything both mine half taker dangerous";
    // The command, and who may.
    let rows = [
        ("CL.PEEK mine:k", "everything reader both mine half looker taker dangerous"),
        ("CL.PEEK other:k", "everything reader both half looker taker dangerous"),
        ("CL.TAKE mine:k", all),
        ("CL.TAKE mine:k 0", all),
        ("CL.TAKE other:k", "everything both taker dangerous"),
        ("CL.GIVE mine:k", all),
        ("CL.GIVE other:k", "everything both taker dangerous"),
        ("CL.TAKEALL 2 mine:a mine:b", all),
        ("CL.TAKEALL 1 other:a", "everything both taker dangerous"),
        ("CL.TAKEALL 2 mine:a other:b", "everything both taker dangerous"),
        ("CL.TAKEALL 2 other:a mine:b", "everything both taker dangerous"),
        ("CL.TAKEALL 3 mine:a mine:b other:c TOKENS 0", "everything both taker dangerous"),
        ("CL.POLICY mine:k", "everything both mine half dangerous"),
        ("CL.POLICY other:k CAPACITY 5", "everything both dangerous"),
        ("CL.THROTTLE mine:k 1 2 3", "everything both mine half dangerous"),
        ("CL.THROTTLE other:k 1 2 3", "everything both dangerous"),
    ];
    for user in everybody {
        let conn = &mut server.connection();
        run(conn, &[&format!("AUTH {user} any")]);
        for (line, allowed) in rows {
            let expected = allowed.split(' ').any(|name| name == user);
            let before = digest(admin);
            let answer = call(conn, &line.split(' ').collect::<Vec<_>>());
            match &answer {
                Ok(_) => {}
                Err(e) => {
                    assert!(e.starts_with("NOPERM "), "{user}: {line}: {e}");
                    assert_eq!(digest(admin), before, "{user}: {line}");
                }
            }
            assert_eq!(answer.is_ok(), expected, "{user}: {line}");
            let dry: String = ask(admin, &format!("ACL DRYRUN {user} {line}"));
            assert_eq!(dry == "OK", expected, "{user}: {line}: {dry}");
        }
    }
}

/// Keys that ACL does not see must not be touched.
#[test]
fn acl_sees_all_keys_of_takeall() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["ACL SETUSER mine on nopass +@all ~mine:*", "AUTH mine any"]);
    for numkeys in ["2", "02", "002", "+2", "2.0", "0x2", "00000000000000000000000002"] {
        let line = format!("CL.TAKEALL {numkeys} other:a other:b");
        assert!(cmd(conn, &line).is_err(), "`{line}`");
    }
    run(conn, &["AUTH default any"]);
    assert_eq!(int(conn, "DBSIZE"), 0);
}

#[test]
fn commands_are_in_acl_categories() {
    let server = Server::start();
    let conn = &mut server.connection();
    let categorized = has_categories(conn);
    for category in ["read", "write", "fast", "slow", "hash", "dangerous", "admin", "keyspace"] {
        let listed: BTreeSet<String> = ask(conn, &format!("ACL CAT {category}"));
        for (name, .., categories, _) in ABOUT {
            let expected = categorized && words(categories).contains(category);
            assert_eq!(listed.contains(*name), expected, "{name} in {category}");
        }
    }
    if !categorized {
        return;
    }
    let rows = [
        ("-@all +@read", "CL.PEEK"),
        ("-@all +@write", "CL.TAKE CL.GIVE CL.TAKEALL CL.POLICY CL.THROTTLE"),
        ("-@all +@hash", "CL.TAKE CL.PEEK CL.GIVE CL.TAKEALL CL.POLICY CL.THROTTLE"),
        ("-@all +@fast", "CL.TAKE CL.PEEK CL.GIVE CL.POLICY CL.THROTTLE"),
        ("-@all +@slow", "CL.TAKEALL"),
        ("+@all -@write", "CL.PEEK"),
    ];
    let lines = [
        "CL.TAKE k",
        "CL.PEEK k",
        "CL.GIVE k",
        "CL.TAKEALL 1 k",
        "CL.POLICY k",
        "CL.THROTTLE k 1 2 3",
    ];
    for (rules, allowed) in rows {
        run(conn, &[&format!("ACL SETUSER u reset on nopass ~* {rules}")]);
        for line in lines {
            let dry: String = ask(conn, &format!("ACL DRYRUN u {line}"));
            let name = line.split(' ').next().unwrap();
            assert_eq!(dry == "OK", words(allowed).contains(name), "{rules}: {line}: {dry}");
        }
    }
}

#[test]
fn flags_have_their_effect() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["CL.TAKE k 1 CAPACITY 10 REFILL 0"]);
    let writers = [
        "CL.TAKE k",
        "CL.GIVE k",
        "CL.TAKEALL 1 k",
        "CL.POLICY k CAPACITY 5",
        "CL.THROTTLE k 1 2 3",
    ];
    let script = |conn: &mut Connection, name: &str, line: &str| {
        let words: Vec<String> = line.split(' ').map(|word| format!("'{word}'")).collect();
        let body = format!("return redis.call({})", words.join(", "));
        call(conn, &[name, body.as_str(), "1", "k"])
    };
    // Read-only scripts, and a server that may not write.
    let before = digest(conn);
    for line in writers {
        let answer = script(conn, "EVAL_RO", line);
        assert!(
            answer.as_ref().is_err_and(|e| e.contains("read-only script")),
            "{line}: {answer:?}"
        );
    }
    assert_eq!(digest(conn), before);
    let peek = "CL.PEEK k 1 CAPACITY 10 REFILL 0";
    let expected = Value::Array([1, 10, 8, 0, -1].map(Value::Int).to_vec());
    assert_eq!(script(conn, "EVAL_RO", peek), Ok(expected));
    // Out of memory nothing is written, and one can still look.
    run(conn, &["CONFIG SET maxmemory 1"]);
    for line in writers {
        assert!(error(conn, line).starts_with("OOM "), "{line}");
    }
    assert_eq!(ints(conn, peek), [1, 10, 8, 0, -1]);
    run(conn, &["CONFIG SET maxmemory 0"]);
    assert_eq!(digest(conn), before);
    // In a transaction, wrong numbers of arguments are found at once.
    run(conn, &["MULTI"]);
    assert_eq!(error(conn, "CL.TAKE"), "ERR wrong number of arguments for 'cl.take' command");
    assert!(error(conn, "EXEC").starts_with("EXECABORT "));
}

/// Payloads that came until one that is published now.
fn until_now(conn: &mut Connection, events: &mut PubSub<'_>, channel: &str) -> Vec<Value> {
    run(conn, &[&format!("PUBLISH {channel} end-of-list")]);
    let mut payloads = Vec::new();
    loop {
        let message = events.get_message().expect("a message");
        let payload: Value = message.get_payload().unwrap();
        if payload == Value::BulkString(b"end-of-list".to_vec()) {
            return payloads;
        }
        payloads.push(payload);
    }
}

#[test]
fn keyspace_events_are_those_of_the_servers_own_commands() {
    let server = slow_server().config("notify-keyspace-events", "KEAn").start();
    let conn = &mut server.connection();
    run(conn, &["DEBUG SET-ACTIVE-EXPIRE 0"]);
    let mut listener = server.connection();
    let mut events = listener.as_pubsub();
    events.subscribe("__keyspace@0__:k").unwrap();
    let rows = [
        ("CL.PEEK k", ""),
        ("CL.TAKE k 0", ""),
        ("CL.TAKE k 1001", ""),
        ("CL.GIVE k", ""),
        ("CL.POLICY k", ""),
        // A new bucket, and one that is there.
        ("CL.TAKE k 10", "new hset expire"),
        ("CL.TAKE k", "hset"),
        ("CL.TAKE k 1001", ""),
        ("CL.PEEK k", ""),
        ("CL.GIVE k", "hset"),
        ("DEL k", "del"),
        ("CL.TAKE k CAPACITY 9 REFILL 0", "new hset"),
        ("CL.TAKE k CAPACITY 9 REFILL 0", "hset"),
        ("CL.TAKE k 9 CAPACITY 9 REFILL 0", ""),
        ("CL.TAKE k CAPACITY 8 REFILL 0", "hset"),
        ("CL.TAKE k", "hset hdel expire"),
        ("CL.POLICY k CAPACITY 500", "hset persist"),
        ("CL.POLICY k CAPACITY 500", ""),
        ("CL.POLICY k WEIGHT 2", "hset"),
        ("CL.TAKE k", "hset"),
        ("CL.POLICY k RESET", "hset hdel expire"),
        ("CL.TAKEALL 2 k k", "hset"),
        ("CL.TAKEALL 2 k other TOKENS 1 9999", ""),
        ("DEL k", "del"),
        ("CL.TAKEALL 3 k other k", "new hset expire"),
        ("DEL k", "del"),
        ("CL.POLICY k CAPACITY 5", "new hset"),
        ("DEL k", "del"),
        ("CL.THROTTLE k 15 1 31622400 4", "new hset expire"),
        ("CL.THROTTLE k 15 1 31622400", "hset"),
        ("CL.THROTTLE k 15 1 31622400 0", ""),
        ("CL.THROTTLE k 15 1 31622400 17", ""),
        ("CL.THROTTLE k 15 1 31622400 -1", "hset"),
    ];
    for (line, expected) in rows {
        run(conn, &[line]);
        let names = until_now(conn, &mut events, "__keyspace@0__:k").into_iter();
        let names: Vec<String> = names.map(|v| redis::from_redis_value(v).unwrap()).collect();
        assert_eq!(names.join(" "), expected, "`{line}`");
    }

    // What the server itself says of the same writes.
    run(conn, &["DEL k"]);
    run(conn, &["HSET k tokens 1 timestamp 2 policy 3", "PEXPIREAT k 33333333333333"]);
    run(conn, &["HSET k tokens 1 timestamp 2", "HDEL k policy", "PERSIST k"]);
    let names = until_now(conn, &mut events, "__keyspace@0__:k").into_iter();
    let names: Vec<String> = names.map(|v| redis::from_redis_value(v).unwrap()).collect();
    assert_eq!(names.join(" "), "del new hset expire hset hdel persist");

    // An expired bucket: the event comes with the take that finds it.
    run(conn, &["DEL k", "CL.TAKE k", "PEXPIRE k 1"]);
    until_now(conn, &mut events, "__keyspace@0__:k");
    let set: (i64, i64) = ask(conn, "TIME");
    eventually(PATIENCE, TICK, "two milliseconds to pass", || {
        let now: (i64, i64) = ask(conn, "TIME");
        (now.0 - set.0) * 1_000_000 + now.1 - set.1 > 2000
    });
    run(conn, &["CL.TAKE k"]);
    let names = until_now(conn, &mut events, "__keyspace@0__:k").into_iter();
    let names: Vec<String> = names.map(|v| redis::from_redis_value(v).unwrap()).collect();
    assert_eq!(names.join(" "), "expired new hset expire");
}

#[test]
fn tracking_clients_hear_of_changes_only() {
    let server = slow_server().start();
    let conn = &mut server.connection();
    let mut listener = server.connection();
    let id = int(&mut listener, "CLIENT ID");
    let mut events = listener.as_pubsub();
    let channel = "__redis__:invalidate";
    events.subscribe(channel).unwrap();
    let mut tracker = server.connection();
    run(&mut tracker, &[&format!("CLIENT TRACKING ON REDIRECT {id}")]);

    // What changes k, and what does not.
    let rows = [
        ("CL.TAKE k", true),
        ("CL.TAKE k 1001", false),
        ("CL.TAKE k 0", false),
        ("CL.PEEK k", false),
        ("CL.GIVE k", true),
        ("CL.GIVE k 0", false),
        ("CL.TAKEALL 2 other k", true),
        ("CL.TAKEALL 2 other k TOKENS 1 1001", false),
        ("CL.POLICY k", false),
        ("CL.POLICY k CAPACITY 50", true),
        ("CL.POLICY k CAPACITY 50", false),
        ("CL.TAKE k 51", false),
        ("CL.POLICY k RESET", true),
        ("CL.THROTTLE k 15 30 60", true),
        ("CL.THROTTLE k 15 30 60 17", false),
        ("CL.TAKE other", false),
    ];
    run(conn, &["CL.TAKE k 5"]);
    for look in ["HGETALL k", "CL.PEEK k"] {
        for (line, expected) in rows {
            run(&mut tracker, &[look]);
            run(conn, &[line]);
            let heard = until_now(conn, &mut events, channel);
            let k = Value::Array(vec![Value::BulkString(b"k".to_vec())]);
            let expected = if expected { vec![k] } else { vec![] };
            assert_eq!(heard, expected, "`{line}` after `{look}`");
        }
    }
}

#[test]
fn a_transaction_fails_only_if_its_bucket_has_changed() {
    let server = slow_server().start();
    let conn = &mut server.connection();
    let mut other = server.connection();
    let rows = [
        ("CL.TAKE k", true),
        ("CL.TAKE k 1001", false),
        ("CL.TAKE k 0", false),
        ("CL.PEEK k", false),
        ("CL.GIVE k", true),
        ("CL.TAKEALL 2 other k", true),
        ("CL.TAKEALL 2 other k TOKENS 1 1001", false),
        ("CL.POLICY k CAPACITY 50", true),
        ("CL.POLICY k", false),
        ("CL.THROTTLE k 15 30 60 51", false),
        ("CL.TAKE k 1 FOO", false),
    ];
    run(conn, &["CL.TAKE k 5"]);
    for (line, changes) in rows {
        run(conn, &["WATCH k", "MULTI", "CL.TAKE mine 0", "CL.TAKE mine"]);
        let _ = cmd(&mut other, line);
        let answer = cmd(conn, "EXEC").unwrap();
        assert_eq!(answer == Value::Nil, changes, "`{line}`: {answer:?}");
    }
    // Inside of a transaction everything works as outside.
    run(
        conn,
        &["DEL k", "MULTI", "CL.TAKE k 3 CAPACITY 5 REFILL 0", "CL.TAKE k 3 CAPACITY 5 REFILL 0"],
    );
    run(conn, &["CL.TAKE k x", "CL.PEEK k 2 CAPACITY 5 REFILL 0"]);
    // As it is: the library would make an error of one inside of the answer.
    let answer = conn.req_packed_command(&redis::cmd("EXEC").get_packed_command()).unwrap();
    let Value::Array(answers) = answer else { panic!("{answer:?}") };
    let five = |numbers: [i64; 5]| Value::Array(numbers.map(Value::Int).to_vec());
    assert_eq!(answers[0], five([3, 5, 2, 0, -1]));
    assert_eq!(answers[1], five([0, 5, 2, -1, -1]));
    assert!(matches!(answers[2], Value::ServerError(_)), "{answers:?}");
    assert_eq!(answers[3], five([2, 5, 0, 0, -1]));
}

fn parameters(conn: &mut Connection) -> BTreeMap<String, String> {
    ask(conn, "CONFIG GET claw.*")
}

fn defaults(max_tokens: &str, refill: &str) -> BTreeMap<String, String> {
    [
        ("claw.max-tokens", max_tokens),
        ("claw.refill-rate-per-sec", refill),
        ("claw.merge-strategy", "max"),
        ("claw.sync-strategy", "debit"),
        ("claw.replica-id", ""),
        ("claw.peers", ""),
        ("claw.peers-password-file", ""),
        ("claw.tls-ca-cert-file", ""),
        ("claw.tls-cert-file", ""),
        ("claw.tls-key-file", ""),
        ("claw.sync-keys", "*"),
        ("claw.sync-interval-ms", "50"),
        ("claw.partition-timeout-ms", "2000"),
        ("claw.partition-guard", "share"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

#[test]
fn parameters_are_set_and_read() {
    let server = Server::start();
    let conn = &mut server.connection();
    assert_eq!(parameters(conn), defaults("1000", "5"));
    let rows = [
        ("claw.max-tokens 1", "1", "5"),
        ("claw.max-tokens 1000000000000", "1000000000000", "5"),
        ("CLAW.Max-Tokens 50", "50", "5"),
        ("claw.refill-rate-per-sec 0", "50", "0"),
        ("claw.refill-rate-per-sec 0.000001", "50", "0.000001"),
        ("claw.refill-rate-per-sec 1000000000000", "50", "1000000000000"),
        ("claw.refill-rate-per-sec 2.50", "50", "2.5"),
        ("claw.max-tokens 7 claw.refill-rate-per-sec 3", "7", "3"),
    ];
    for (setting, max_tokens, refill) in rows {
        run(conn, &[&format!("CONFIG SET {setting}")]);
        assert_eq!(parameters(conn), defaults(max_tokens, refill), "{setting}");
        let policy: Vec<Value> = ask(conn, "CL.POLICY none");
        assert_eq!(policy[1], Value::Int(max_tokens.parse().unwrap()), "{setting}");
        assert_eq!(policy[3], Value::BulkString(refill.into()), "{setting}");
        assert_eq!(policy[5], Value::Int(1000), "{setting}");
    }
}

#[test]
fn a_bad_value_of_a_parameter_is_refused_with_the_reason() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["CONFIG SET claw.max-tokens 70 claw.refill-rate-per-sec 0.7"]);
    let range = "argument must be between 1 and 1000000000000 inclusive";
    let integer = "argument couldn't be parsed into an integer";
    let refill = "refill must be 0 or a number from 0.000001 to 1000000000000 with at most 6 \
                  decimals";
    let rows: &[(&str, &[&str], &str)] = &[
        ("claw.max-tokens", &["0", "-1", "1000000000001", "9223372036854775807"], range),
        ("claw.max-tokens", &["", "x", "1.5", "1e3", "5gb", "9223372036854775808", " 1"], integer),
        (
            "claw.refill-rate-per-sec",
            &[
                "",
                "-1",
                "x",
                "1e3",
                "0.0000001",
                "1000000000001",
                "1.",
                ".5",
                "NaN",
                "inf",
                "1 ",
                "%s%n",
            ],
            refill,
        ),
    ];
    for (name, values, reason) in rows {
        for value in *values {
            let expected =
                format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}");
            let answer = call(conn, &["CONFIG", "SET", name, value]);
            assert_eq!(answer, Err(expected.clone()), "{name} {value:?}");
            assert_eq!(parameters(conn), defaults("70", "0.7"), "{name} {value:?}");
            // All or nothing.
            for other in [["claw.max-tokens", "9"], ["claw.refill-rate-per-sec", "9"]] {
                if other[0] != *name {
                    let before = call(conn, &["CONFIG", "SET", other[0], other[1], name, value]);
                    assert_eq!(before, Err(expected.clone()), "{name} {value:?}");
                    let after = call(conn, &["CONFIG", "SET", name, value, other[0], other[1]]);
                    assert_eq!(after, Err(expected.clone()), "{name} {value:?}");
                }
            }
            assert_eq!(parameters(conn), defaults("70", "0.7"), "{name} {value:?}");
        }
    }
    let interval = "argument must be between 1 and 60000 inclusive";
    let timeout = "argument must be between 100 and 3600000 inclusive";
    let long_glob = "x".repeat(257);
    let too_many = (0..16).map(|n| format!("redis://h{n}")).collect::<Vec<_>>().join(" ");
    let rows: &[(&str, &[&str], &str)] = &[
        ("claw.sync-interval-ms", &["0", "60001", "-1"], interval),
        ("claw.partition-timeout-ms", &["99", "3600001"], timeout),
        ("claw.partition-guard", &["", "on", "half"], ": off, equal or share"),
        ("claw.sync-strategy", &["", "best", "fn:"], ": max, min, weighted, lww, debit or fn:NAME"),
        ("claw.sync-keys", &["", &long_glob], "sync-keys must be a pattern of 1 to 256 bytes"),
        (
            "claw.replica-id",
            &["a b", "eu/west", "é", "abcdefghijklmnopqrstuvwxyz123456"],
            " is not 1 to 31 letters, digits, dots, dashes or underscores",
        ),
        (
            "claw.peers",
            &["h:6379", "http://h", "redis://h redis://h", "redis://h/1", &too_many],
            "",
        ),
    ];
    for (name, values, reason) in rows {
        for value in *values {
            let answer = call(conn, &["CONFIG", "SET", name, value]).unwrap_err();
            let begin = format!("ERR CONFIG SET failed (possibly related to argument '{name}') - ");
            assert!(answer.starts_with(&begin) && answer.ends_with(reason), "{value}: {answer}");
            assert_eq!(parameters(conn), defaults("70", "0.7"), "{name} {value:?}");
        }
    }
    let binary: [&[u8]; 4] = [b"CONFIG", b"SET", b"claw.refill-rate-per-sec", b"1\x00\xff"];
    assert!(call(conn, &binary).is_err_and(|e| e.ends_with(refill)));
    assert_eq!(parameters(conn), defaults("70", "0.7"));
    assert_eq!(server.warnings(), Vec::<String>::new());
}

#[test]
fn rewritten_parameters_outlive_a_restart() {
    let rows: [(&[&str], &str, BTreeMap<String, String>); 5] = [
        (&[], "CONFIG SET claw.max-tokens 70 claw.refill-rate-per-sec 0.7", defaults("70", "0.7")),
        // Over arguments of the module, which stay in the file.
        (&["max-tokens", "50"], "CONFIG SET claw.max-tokens 70", defaults("70", "5")),
        (&["max-tokens", "50"], "CONFIG SET claw.max-tokens 1000", defaults("1000", "5")),
        (
            &["refill-rate-per-sec", "2.5", "max-tokens", "50"],
            "CONFIG SET claw.refill-rate-per-sec 5",
            defaults("50", "5"),
        ),
        (&["max-tokens", "50"], "CONFIG SET claw.max-tokens 50", defaults("50", "5")),
    ];
    for (args, set, expected) in rows {
        let server = Server::builder().module_args(args.iter().copied()).start();
        let conn = &mut server.connection();
        run(conn, &[set, "CONFIG REWRITE"]);
        assert_eq!(parameters(conn), expected, "{args:?}, {set}");
        let server = server.restart();
        let conn = &mut server.connection();
        assert_eq!(parameters(conn), expected, "{args:?}, {set}");
        let capacity: i64 = expected["claw.max-tokens"].parse().unwrap();
        assert_eq!(ints(conn, "CL.PEEK k 0")[1], capacity, "{args:?}, {set}");
        // And a second time.
        run(conn, &["CONFIG REWRITE"]);
        let server = server.restart();
        assert_eq!(parameters(&mut server.connection()), expected, "{args:?}, {set}");
        assert_eq!(server.warnings(), Vec::<String>::new());
    }
}

fn counters(conn: &mut Connection) -> [i64; 6] {
    ["taken", "refused", "given", "tokens_taken", "tokens_given", "corrupt"].map(|name| {
        let value = info_field(conn, "claw", &format!("claw_{name}"));
        value.unwrap_or_else(|| panic!("no claw_{name}")).parse().unwrap()
    })
}

#[test]
fn info_counts_what_is_done() {
    let server = Server::start();
    let conn = &mut server.connection();
    let version = info_field(conn, "claw", "claw_version");
    assert_eq!(version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
    assert_eq!(counters(conn), [0; 6]);
    // What each adds: takes, refusals and gifts, tokens taken and given,
    // corrupt buckets.
    run(conn, &["CL.POLICY k CAPACITY 100 REFILL 0", "HSET bad tokens x"]);
    let rows = [
        ("CL.TAKE k", [1, 0, 0, 1, 0, 0]),
        ("CL.TAKE k 7", [1, 0, 0, 7, 0, 0]),
        ("CL.TAKE k 0", [0, 0, 0, 0, 0, 0]),
        ("CL.TAKE k 101", [0, 1, 0, 0, 0, 0]),
        ("CL.PEEK k", [0, 0, 0, 0, 0, 0]),
        ("CL.PEEK k 101", [0, 0, 0, 0, 0, 0]),
        ("CL.GIVE k 3", [0, 0, 1, 0, 3, 0]),
        ("CL.GIVE k 0", [0, 0, 0, 0, 0, 0]),
        ("CL.GIVE k 9", [0, 0, 1, 0, 5, 0]),
        ("CL.GIVE k 9", [0, 0, 0, 0, 0, 0]),
        ("CL.TAKE k 150 PARTIAL", [1, 0, 0, 100, 0, 0]),
        ("CL.TAKE k 1 PARTIAL", [0, 1, 0, 0, 0, 0]),
        ("CL.GIVE k 50", [0, 0, 1, 0, 50, 0]),
        ("CL.TAKEALL 3 k a k TOKENS 1 2 3", [1, 0, 0, 6, 0, 0]),
        ("CL.TAKEALL 2 a k TOKENS 1 101", [0, 1, 0, 0, 0, 0]),
        ("CL.TAKEALL 1 k TOKENS 0", [0, 0, 0, 0, 0, 0]),
        ("CL.THROTTLE t 15 1 31622400", [1, 0, 0, 1, 0, 0]),
        ("CL.THROTTLE t 15 1 31622400 4", [1, 0, 0, 4, 0, 0]),
        ("CL.THROTTLE t 15 1 31622400 17", [0, 1, 0, 0, 0, 0]),
        ("CL.THROTTLE t 15 1 31622400 0", [0, 0, 0, 0, 0, 0]),
        ("CL.THROTTLE t 15 1 31622400 -1", [0, 0, 1, 0, 1, 0]),
        ("CL.POLICY k WEIGHT 2", [0, 0, 0, 0, 0, 0]),
        // Errors are none of these, except for what a bucket holds.
        ("CL.TAKE", [0, 0, 0, 0, 0, 0]),
        ("CL.TAKE k 1 FOO", [0, 0, 0, 0, 0, 0]),
        ("CL.TAKE bad", [0, 0, 0, 0, 0, 1]),
        ("CL.PEEK bad", [0, 0, 0, 0, 0, 1]),
        ("CL.TAKEALL 2 k bad", [0, 0, 0, 0, 0, 1]),
        ("CL.POLICY bad", [0, 0, 0, 0, 0, 1]),
    ];
    let mut expected = [0; 6];
    for (line, more) in rows {
        let _ = cmd(conn, line);
        for (sum, more) in expected.iter_mut().zip(more) {
            *sum += more;
        }
        assert_eq!(counters(conn), expected, "`{line}`");
    }
    let merging = ["merged", "merge_errors"].map(|name| format!("claw_{name}"));
    let rows = [
        ("CL.MERGE m FIELDS tokens 5", ["1", "0"]),
        ("CL.MERGE m FIELDS tokens 0 STRATEGY max", ["1", "0"]),
        ("CL.MERGE m FIELDS tokens x", ["1", "1"]),
        ("CL.STATE m", ["1", "1"]),
        ("CL.VERIFY max SAMPLES 10", ["1", "1"]),
    ];
    for (line, expected) in rows {
        let _ = cmd(conn, line);
        let found = merging.clone().map(|name| info_field(conn, "claw", &name));
        assert_eq!(found, expected.map(|count| Some(count.to_owned())), "`{line}`");
    }
    // The server's own figures of our commands, so that one section has it all.
    for (name, ..) in ABOUT {
        for (section, prefix) in
            [("commandstats", "cmdstat"), ("latencystats", "latency_percentiles_usec")]
        {
            let field = format!("{prefix}_{name}");
            let theirs = info_field(conn, section, &field);
            // Region sync was not used above.
            assert_eq!(theirs.is_some(), !name.starts_with("cl.sync"), "{field}");
            assert_eq!(info_field(conn, "claw", &format!("claw_{field}")), theirs);
        }
    }
    for sections in ["everything", "modules"] {
        let info: String = ask(conn, &format!("INFO {sections}"));
        assert_eq!(info.matches("# claw\r\n").count(), 1, "INFO {sections}");
    }
}

#[test]
fn info_has_lines_that_an_exporter_can_read() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["CL.TAKE k", "CL.PEEK k"]);
    let info: String = ask(conn, "INFO claw");
    let mut lines = info.trim_end().split("\r\n");
    assert_eq!(lines.next(), Some("# claw"));
    let mut seen = BTreeSet::new();
    for line in lines {
        let (name, value) = line.split_once(':').expect("name:value");
        assert!(name.starts_with("claw_") && !value.is_empty(), "{line}");
        assert!(seen.insert(name.to_owned()), "{line} twice");
    }
    assert!(seen.len() > 8, "{info}");
}

/// What somebody may see of the parameters of region sync, and what not.
#[test]
fn passwords_of_peers_are_not_shown() {
    let server = slow_server().start();
    let conn = &mut server.connection();
    let peers = "redis://claw:s3cr3t@127.0.0.1:1 rediss://:s3cr3t@[::1]:2 redis://other@h:3";
    let shown = "redis://claw:***@127.0.0.1:1 rediss://:***@[::1]:2 redis://other@h:3";
    run(conn, &["CONFIG SET claw.replica-id eu"]);
    call(conn, &["CONFIG", "SET", "claw.peers", peers]).unwrap();
    let get = |conn: &mut Connection| parameters(conn)["claw.peers"].clone();
    assert_eq!(get(conn), shown);
    // What is shown can be set again, and means the same.
    call(conn, &["CONFIG", "SET", "claw.peers", shown]).unwrap();
    assert_eq!(get(conn), shown);
    // A wrong one is not quoted in the error.
    let wrong = "redis://claw:s3cr3t@h:port";
    let refused = call(conn, &["CONFIG", "SET", "claw.peers", wrong]).unwrap_err();
    // The server's SLOWLOG does show CONFIG SET with its value: of a module's
    // parameters it hides none, though this one is registered as sensitive.
    let lists = ["CL.SYNC STATUS", "INFO everything", "CONFIG GET *"];
    let mut seen: Vec<String> = lists.map(|line| format!("{:?}", cmd(conn, line))).into();
    seen.extend([refused, server.log()]);
    for text in seen {
        assert!(!text.contains("s3cr3t"), "{text}");
    }
    // A user without a password needs the file; nothing is sent until then.
    let file = server.dir().join("password");
    std::fs::write(&file, "s3cr3t\n").unwrap();
    let reason = "redis://other@h:3 has a user and no password";
    eventually(PATIENCE, TICK, "the reason in the log", || server.log().contains(reason));
    call(conn, &["CONFIG", "SET", "claw.peers-password-file", file.to_str().unwrap()]).unwrap();
    eventually(PATIENCE, TICK, "three peers", || {
        info_field(conn, "claw", "claw_sync_peers").as_deref() == Some("3")
    });
    assert!(!server.log().contains("s3cr3t"));
}

fn load(conn: &mut Connection, args: &str) -> Result<Value, String> {
    let path = module_path();
    let mut words = vec!["MODULE", "LOAD", path.to_str().unwrap()];
    words.extend(args.split_whitespace());
    call(conn, &words)
}

fn loadex(conn: &mut Connection, args: &str) -> Result<Value, String> {
    let path = module_path();
    let mut words = vec!["MODULE", "LOADEX", path.to_str().unwrap()];
    words.extend(args.split_whitespace());
    call(conn, &words)
}

#[test]
fn the_module_takes_arguments() {
    let server = Server::builder().without_module().start();
    let conn = &mut server.connection();
    let rows = [
        ("", defaults("1000", "5")),
        ("max-tokens 50", defaults("50", "5")),
        ("claw.max-tokens 50", defaults("50", "5")),
        ("Max-Tokens 50", defaults("50", "5")),
        ("refill-rate-per-sec 0.25", defaults("1000", "0.25")),
        ("claw.refill-rate-per-sec 0 max-tokens 1", defaults("1", "0")),
        ("max-tokens 1000000000000 refill-rate-per-sec 1000000000000", {
            defaults("1000000000000", "1000000000000")
        }),
    ];
    for (args, expected) in rows {
        load(conn, args).unwrap_or_else(|e| panic!("{args}: {e}"));
        assert_eq!(parameters(conn), expected, "{args}");
        let capacity: i64 = expected["claw.max-tokens"].parse().unwrap();
        assert_eq!(ints(conn, "CL.PEEK k 0")[1], capacity, "{args}");
        run(conn, &["MODULE UNLOAD claw"]);
        assert_eq!(parameters(conn), BTreeMap::new());
    }
    let rows = [
        ("CONFIG claw.max-tokens 70", defaults("70", "5")),
        ("ARGS max-tokens 60", defaults("60", "5")),
        ("CONFIG claw.max-tokens 70 CONFIG claw.refill-rate-per-sec 1.5", defaults("70", "1.5")),
        // A parameter is stronger than an argument.
        ("CONFIG claw.max-tokens 70 ARGS max-tokens 60", defaults("70", "5")),
        ("CONFIG claw.max-tokens 70 ARGS refill-rate-per-sec 2", defaults("70", "2")),
    ];
    for (args, expected) in rows {
        loadex(conn, args).unwrap_or_else(|e| panic!("{args}: {e}"));
        assert_eq!(parameters(conn), expected, "{args}");
        run(conn, &["MODULE UNLOAD claw"]);
    }
    assert_eq!(server.warnings(), Vec::<String>::new());
}

#[test]
fn bad_arguments_are_refused_and_the_server_goes_on() {
    let server = Server::builder().without_module().start();
    let conn = &mut server.connection();
    run(conn, &["HSET k tokens 5"]);
    let capacity = "capacity must be an integer from 1 to 1000000000000";
    let refill = "refill must be 0 or a number from 0.000001 to 1000000000000 with at most 6 \
                  decimals";
    let rows = [
        ("LOAD bogus 1", "unknown module argument 'bogus'".into()),
        ("LOAD max-tokens 5 bogus 1", "unknown module argument 'bogus'".into()),
        ("LOAD %s%n 1", "unknown module argument '%s%n'".into()),
        ("LOAD claw.claw.max-tokens 1", "unknown module argument 'claw.claw.max-tokens'".into()),
        ("LOAD max-tokens", "module argument 'max-tokens' needs a value".into()),
        (
            "LOAD max-tokens 5 refill-rate-per-sec",
            "module argument 'refill-rate-per-sec' needs a value".into(),
        ),
        ("LOAD max-tokens 0", format!("module argument 'max-tokens': {capacity}")),
        ("LOAD max-tokens -1", format!("module argument 'max-tokens': {capacity}")),
        ("LOAD max-tokens 1000000000001", format!("module argument 'max-tokens': {capacity}")),
        ("LOAD claw.max-tokens x", format!("module argument 'claw.max-tokens': {capacity}")),
        ("LOAD refill-rate-per-sec -1", format!("module argument 'refill-rate-per-sec': {refill}")),
        ("LOADEX ARGS max-tokens 0", format!("module argument 'max-tokens': {capacity}")),
        (
            "LOADEX CONFIG claw.max-tokens 0",
            "claw.max-tokens : argument must be between 1 and 1000000000000 inclusive".into(),
        ),
        (
            "LOADEX CONFIG claw.refill-rate-per-sec x",
            format!("claw.refill-rate-per-sec : {refill}"),
        ),
        ("LOADEX CONFIG claw.bogus 1", "Loadex configurations were not applied".into()),
    ];
    for (args, reason) in rows {
        let logged = server.log().len();
        let answer = match args.split_once(' ') {
            Some(("LOAD", args)) => load(conn, args),
            Some((_, args)) => loadex(conn, args),
            None => panic!("{args}"),
        };
        let expected = "ERR Error loading the extension. Please check the server logs.";
        assert_eq!(answer, Err(expected.to_owned()), "{args}");
        let log = server.log().split_off(logged);
        assert!(log.contains(&reason), "{args}: {log}");
        assert!(error(conn, "CL.TAKE k").starts_with("ERR unknown command"), "{args}");
        assert_eq!(parameters(conn), BTreeMap::new(), "{args}");
        assert!(!ask::<String>(conn, "INFO everything").contains("# claw"), "{args}");
    }
    // The next good one works.
    load(conn, "max-tokens 9").unwrap();
    assert_eq!(parameters(conn), defaults("9", "5"));
    assert_eq!(ints(conn, "CL.TAKE k")[..3], [1, 9, 4]);
    // Once is enough.
    assert!(load(conn, "").is_err());
    assert_eq!(ints(conn, "CL.TAKE k 2")[0], 2);
    assert_eq!(parameters(conn), defaults("9", "5"));

    // In the configuration file a bad argument keeps the server from starting.
    let log = Server::builder().module_args(["max-tokens", "0"]).try_start().unwrap_err();
    assert!(log.contains(&format!("module argument 'max-tokens': {capacity}")), "{log}");
}

#[test]
fn unloading_forgets_settings_and_keeps_buckets() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["CONFIG SET claw.max-tokens 70", "CL.POLICY k CAPACITY 9 REFILL 0", "CL.TAKE k 4"]);
    let before = digest(conn);
    run(conn, &["MODULE UNLOAD claw"]);
    assert_eq!(digest(conn), before);
    assert!(error(conn, "CL.TAKE k").starts_with("ERR unknown command"));
    assert_eq!(ask::<Vec<String>>(conn, "COMMAND LIST FILTERBY MODULE claw"), [""; 0]);
    load(conn, "").unwrap();
    assert_eq!(parameters(conn), defaults("1000", "5"));
    assert_eq!(counters(conn), [0; 6]);
    assert_eq!(ints(conn, "CL.TAKE k 4"), [4, 9, 1, 0, -1]);
    assert_eq!(server.warnings(), Vec::<String>::new());
}

/// Servers follow pointers to commands of modules that have gone.
#[test]
fn connections_that_could_crash_the_server_are_closed() {
    let server = Server::start();
    let conn = &mut server.connection();
    let [last, queued, both, other] = &mut [(); 4].map(|()| server.connection());
    run(conn, &["CL.POLICY k CAPACITY 1000 REFILL 0"]);
    run(last, &["CL.TAKE k"]);
    run(queued, &["MULTI", "CL.TAKE k", "GET x"]);
    run(both, &["GET x", "MULTI", "GET x", "CL.TAKE k"]);
    run(other, &["CL.TAKE k", "MULTI", "GET x", "EXEC"]);
    // It would come back to itself.
    run(conn, &["MULTI", "CL.TAKE k", "MODULE UNLOAD claw", "CL.TAKE k"]);
    let _ = cmd(conn, "EXEC");
    let why = "a module cannot be unloaded in a transaction, which may use it next";
    assert!(server.warnings().iter().any(|line| line.contains(why)), "{}", server.log());
    run(conn, &["MODULE UNLOAD claw"]);
    for gone in [&mut *last, queued, both] {
        assert!(cmd(gone, "PING").unwrap_err().is_io_error());
    }
    run(other, &["PING"]);
    assert!(server.log().contains("unloading: closing 3 connections that used it"));
    assert_eq!(ask::<String>(conn, "CLIENT LIST").matches("cmd=cl.").count(), 0);
    // Who comes back is told.
    let again = &mut server.connection();
    for _ in 0..3 {
        assert!(error(again, "CL.TAKE k").starts_with("ERR unknown command"));
    }
    assert_eq!(ask::<String>(conn, "HGET k tokens"), "996");
}

#[test]
fn the_module_can_be_unloaded_and_loaded_under_traffic() {
    let capacity = 1_000_000_000;
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &[&format!("CL.POLICY k CAPACITY {capacity} REFILL 0")]);
    let (stop, taken, unknown) = (AtomicBool::new(false), AtomicI64::new(0), AtomicI64::new(0));
    let lost = AtomicI64::new(0);
    let lines = ["CL.TAKE k", "CL.TAKEALL 2 k k TOKENS 1 2", "CL.THROTTLE k 4 5 6 7", "CL.PEEK k"];
    thread::scope(|scope| {
        for line in lines {
            let (server, stop, taken, unknown) = (&server, &stop, &taken, &unknown);
            let lost = &lost;
            scope.spawn(move || {
                let conn = &mut server.connection();
                while !stop.load(SeqCst) {
                    let right = match cmd(conn, line) {
                        // What used the module is disconnected when it goes.
                        Err(e) if e.is_io_error() => {
                            lost.fetch_add(1, SeqCst);
                            *conn = server.connection();
                            continue;
                        }
                        Err(e) => {
                            let e = wire_error(&e).unwrap_or_else(|| panic!("{line}: {e}"));
                            assert!(e.starts_with("ERR unknown command"), "{line}: {e}");
                            unknown.fetch_add(1, SeqCst);
                            continue;
                        }
                        Ok(Value::Array(items)) => match (line, items.as_slice()) {
                            (_, [Value::Int(n), Value::Int(max), Value::Int(left), ..]) => {
                                let n = match *line.as_bytes() {
                                    [.., b'7'] => (*n == 0).then_some(7),
                                    [_, _, _, b'P', ..] => (*n == 1).then_some(0),
                                    _ => (*n == 1).then_some(1),
                                };
                                n.filter(|_| *max == capacity && *left < capacity)
                            }
                            (_, [Value::Int(1), Value::Int(-1), Value::Array(_)]) => Some(3),
                            _ => None,
                        },
                        Ok(_) => None,
                    };
                    taken.fetch_add(right.expect("a right answer"), SeqCst);
                }
            });
        }
        // Others that go through the module's tables.
        let (server, stop) = (&server, &stop);
        scope.spawn(move || {
            let conn = &mut server.connection();
            while !stop.load(SeqCst) {
                run(
                    conn,
                    &["INFO everything", "CONFIG GET *", "COMMAND DOCS", "COMMAND", "ACL CAT"],
                );
                let _ = cmd(conn, "CONFIG SET claw.max-tokens 70");
                let _ = cmd(conn, "COMMAND GETKEYS CL.TAKEALL 1 k");
            }
        });
        for _ in 0..25 {
            let before = taken.load(SeqCst);
            eventually(PATIENCE, TICK, "some takes", || taken.load(SeqCst) > before + 20);
            run(conn, &["MODULE UNLOAD claw"]);
            let before = unknown.load(SeqCst);
            eventually(PATIENCE, TICK, "some errors", || unknown.load(SeqCst) > before + 20);
            load(conn, "").unwrap();
        }
        stop.store(true, SeqCst);
    });
    // Nobody knows of the last answers on connections that were closed, at most
    // seven tokens each.
    let held: i64 = ask(conn, "HGET k tokens");
    let (taken, lost) = (taken.into_inner(), lost.into_inner());
    assert!((taken..=taken + 7 * lost).contains(&(capacity - held)), "{held} {taken} {lost}");
    assert!(lost > 0 && lost <= 4 * 25, "{lost}");
    assert!(server.is_alive());
    assert_eq!(server.warnings(), Vec::<String>::new());
}

#[test]
fn resp3_has_maps() {
    let server = Server::start();
    let conn = &mut server.connection_resp3();
    let text = |text: &str| Value::BulkString(text.into());
    let five = |numbers: [i64; 5]| Value::Array(numbers.map(Value::Int).to_vec());
    let policy = |capacity, refill, pinned| {
        Value::Map(vec![
            (text("capacity"), Value::Int(capacity)),
            (text("refill"), text(refill)),
            (text("interval"), Value::Int(1000)),
            (text("weight"), Value::Int(1)),
            (text("pinned"), Value::Int(pinned)),
        ])
    };
    let rows = [
        ("CL.POLICY k", policy(1000, "5", 0)),
        ("CL.POLICY k CAPACITY 9 REFILL 0.5", policy(9, "0.5", 1)),
        ("CL.POLICY k REFILL 0", policy(9, "0", 1)),
        ("CL.TAKE k 4", five([4, 9, 5, 0, -1])),
        ("CL.TAKE k 6", five([0, 9, 5, -1, -1])),
        ("CL.PEEK k 5", five([5, 9, 0, 0, -1])),
        ("CL.GIVE k 1", five([1, 9, 6, 0, -1])),
        (
            "CL.TAKEALL 2 k k",
            Value::Array(vec![
                Value::Int(1),
                Value::Int(-1),
                Value::Array(vec![five([1, 9, 5, 0, -1]), five([1, 9, 4, 0, -1])]),
            ]),
        ),
        ("CL.THROTTLE k 1 2 3 4", five([0, 9, 0, -1, -1])),
        ("CL.POLICY k RESET", policy(1000, "5", 0)),
    ];
    for (line, expected) in rows {
        assert_eq!(cmd(conn, line).unwrap(), expected, "`{line}`");
    }
    assert_eq!(error(conn, "CL.TAKE k 1 FOO"), "ERR unknown option 'FOO'");
    // In RESP2 the map is a list of pairs.
    let flat: Vec<Value> = ask(&mut server.connection(), "CL.POLICY k");
    assert_eq!(flat.len(), 10);
}

#[test]
fn databases_are_apart() {
    let server = Server::builder().config("notify-keyspace-events", "KEA").start();
    let conn = &mut server.connection();
    for database in 0..4 {
        let pin = format!("CL.POLICY k CAPACITY {} REFILL 0", 10 + database);
        run(conn, &[&format!("SELECT {database}"), &pin, "CL.TAKE k 3"]);
    }
    let rows = [
        ("SELECT 0", [1, 10, 6, 0, -1]),
        ("SELECT 1", [1, 11, 7, 0, -1]),
        ("SWAPDB 1 2", [1, 12, 8, 0, -1]),
        ("SELECT 2", [1, 11, 6, 0, -1]),
        ("SWAPDB 0 3", [1, 11, 5, 0, -1]),
        ("SELECT 0", [1, 13, 9, 0, -1]),
        ("SELECT 3", [1, 10, 5, 0, -1]),
        ("FLUSHDB", [1, 1000, 999, 0, 200]),
        ("SELECT 0", [1, 13, 8, 0, -1]),
    ];
    for (line, expected) in rows {
        run(conn, &[line]);
        assert_eq!(ints(conn, "CL.TAKE k"), expected, "after {line}");
    }
    // Events and watches are of the right database, too.
    let mut listener = server.connection();
    let mut events = listener.as_pubsub();
    events.psubscribe("__keyspace@*__:k").unwrap();
    run(conn, &["SELECT 2", "CL.TAKE k"]);
    assert_eq!(events.get_message().unwrap().get_channel_name(), "__keyspace@2__:k");
    let other = &mut server.connection();
    run(conn, &["SELECT 0", "WATCH k", "MULTI", "PING"]);
    run(other, &["SELECT 2", "CL.TAKE k"]);
    assert_ne!(cmd(conn, "EXEC").unwrap(), Value::Nil);
    run(conn, &["WATCH k", "MULTI", "PING"]);
    run(other, &["SELECT 0", "CL.TAKE k"]);
    assert_eq!(cmd(conn, "EXEC").unwrap(), Value::Nil);
}
