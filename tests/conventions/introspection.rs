//! What the server says about the commands: `COMMAND`, and the keys it finds.

use crate::calls::{has_categories, words};
use claw_testkit::{Server, ask, int};
use redis::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Name, arity, flags, key positions, ACL categories, flags of the keys.
pub type About = (&'static str, i64, &'static str, [i64; 3], &'static str, &'static str);

pub const ABOUT: &[About] = &[
    ("cl.take", -2, "write denyoom fast", [1, 1, 1], "write fast hash", "RW access update"),
    ("cl.peek", -2, "readonly fast", [1, 1, 1], "read fast hash", "RO access"),
    ("cl.give", -2, "write denyoom fast", [1, 1, 1], "write fast hash", "RW access update"),
    ("cl.settle", -4, "write denyoom fast", [1, 1, 1], "write fast hash", "RW access update"),
    (
        "cl.takeall",
        -2,
        "write denyoom movablekeys",
        [1, 1, 1],
        "write slow hash",
        "RW access update incomplete",
    ),
    ("cl.policy", -2, "write denyoom fast", [1, 1, 1], "write fast hash", "RW access update"),
    ("cl.policy_ro", 2, "readonly fast", [1, 1, 1], "read fast hash", "RO access"),
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
    ("cl.verify", -2, "readonly", [0, 0, 0], "read slow admin dangerous", ""),
    ("cl.sync", -2, "", [0, 0, 0], "slow", ""),
    ("cl.sync|status", 2, "readonly loading stale", [0, 0, 0], "slow", ""),
    ("cl.sync|now", 2, "", [0, 0, 0], "slow admin dangerous", ""),
    ("cl.sync|states", -8, "write denyoom", [6, -1, 2], "write slow hash", "RW access update"),
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
             [REFILL refill:double [INTERVAL interval:integer]] [PARTIAL] [KEEP keep:integer]",
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
            "cl.settle",
            "Books what was used where tokens were taken before: gives back or charges the rest.",
            "O(1)",
            "key:key reserved:integer used:integer [CAPACITY capacity:integer] \
             [REFILL refill:double [INTERVAL interval:integer]]",
        ),
        (
            "cl.takeall",
            "Takes tokens from all of several buckets, or from none of them.",
            "O(N) with N the number of keys",
            "key:key [tokens:integer] [CAPACITY capacity:integer] \
             [REFILL refill:double [INTERVAL interval:integer]] [KEEP keep:integer] \
             [AND key:key [tokens:integer] [CAPACITY capacity:integer] \
             [REFILL refill:double [INTERVAL interval:integer]] [KEEP keep:integer] ..]",
        ),
        (
            "cl.policy",
            "Reads, pins or resets the policy of a bucket.",
            "O(1)",
            "key:key [([CAPACITY capacity:integer] \
             [REFILL refill:double [INTERVAL interval:integer]] [WEIGHT weight:integer] \
             [FOR duration:integer] | RESET)]",
        ),
        ("cl.policy_ro", "Reads the policy of a bucket.", "O(1)", "key:key"),
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
            "strategy:string [SAMPLES samples:integer] [SEED seed:integer] [BUDGET budget:integer]",
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
            "cl.sync|states",
            "Brings the states of another region's buckets; for peers to send.",
            "O(N) with N the number of states",
            "replica-id:string sent:integer strategy:string names:string key:key state:string ..",
        ),
        (
            "cl.sync|round",
            "Ends a round of region sync; for peers to send.",
            "O(N) with N the number of peers",
            "version:integer replica-id:string run:string sent:integer masters:integer [(OPENING | PARTIAL | REFUSED)] [RATES before:integer now:integer] [SETTLED] [RULES rules:string] [HEARS [replica-id:string ..]]",
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
        ("CL.TAKEALL a", "a"),
        ("CL.TAKEALL a AND b AND a", "a b a"),
        ("CL.TAKEALL a CAPACITY 3 REFILL 5 AND b 2 CAPACITY 4 REFILL 5", "a b"),
        ("CL.TAKEALL a and b And c aNd d", "a b c d"),
        ("CL.TAKEALL AND", "AND"),
        ("CL.TAKEALL AND AND AND", "AND AND"),
        ("CL.TAKEALL AND 5 AND AND KEEP 3 AND k", "AND AND k"),
        ("CL.TAKEALL CAPACITY AND 5 AND KEEP", "CAPACITY 5 KEEP"),
        // Also of calls that are wrong otherwise: rights come first.
        ("CL.TAKEALL a AND", "a"),
        ("CL.TAKEALL a KEEP AND b", "a b"),
        ("CL.TAKEALL a FOO 1 2 3 AND b", "a b"),
        ("CL.SETTLE k 5 7 REFILL 1", "k"),
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
        let expected: Vec<_> = keys.iter().map(|key| (key.clone(), words(expected))).collect();
        assert_eq!(flagged, expected, "{line}");
    }
}
