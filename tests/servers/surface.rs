//! What the commands answer, in both protocols, and parameters and INFO.

use crate::node::Node;
use claw_testkit::{ask, cmd, error, info_field, run};
use redis::{Connection, Value};
use std::collections::{BTreeMap, BTreeSet};

/// An answer that is the same in both protocols.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Nil,
    Int(i64),
    Text(String),
    List(Vec<Answer>),
    /// What RESP3 has a type for, and RESP2 writes as a list.
    Map(Vec<(String, Answer)>),
    /// Anything that is not empty.
    Some,
}

use Answer::{Int, List, Map, Nil, Some as Something};

fn ints(numbers: &[i64]) -> Answer {
    List(numbers.iter().copied().map(Int).collect())
}

fn text(text: &str) -> Answer {
    Answer::Text(text.to_owned())
}

fn map<const N: usize>(pairs: [(&str, Answer); N]) -> Answer {
    Map(pairs.into_iter().map(|(name, answer)| (name.to_owned(), answer)).collect())
}

/// Every command at least once. No bucket gains anything, so nothing depends on
/// how long it takes.
#[rustfmt::skip]
fn table() -> Vec<(&'static str, Answer)> {
    let five = |tokens: i64, left: i64, retry: i64, full: i64| ints(&[tokens, 5, left, retry, full]);
    vec![
        ("CL.TAKE a 4 CAPACITY 5 REFILL 0",             five(4, 1, 0, -1)),
        ("CL.TAKE a 2 CAPACITY 5 REFILL 0",             five(0, 1, -1, -1)),
        ("CL.TAKE a 2 CAPACITY 5 REFILL 0 PARTIAL",     five(1, 0, 0, -1)),
        ("CL.GIVE a 3",                                 five(3, 3, 0, -1)),
        ("CL.PEEK a 2 CAPACITY 5 REFILL 0",             five(2, 1, 0, -1)),
        ("CL.SETTLE a 2 1",                             five(-1, 4, 0, -1)),
        ("CL.SETTLE a 1 7",                             five(6, -2, 0, -1)),
        ("CL.SETTLE a 0 9",                             five(3, -5, -1, -1)),
        ("CL.TAKE a 1 PARTIAL KEEP 1",                  five(0, -5, -1, -1)),
        ("CL.TAKEALL b 2 CAPACITY 5 REFILL 0 AND c 6 CAPACITY 5 REFILL 0", List(vec![
            Int(0), Int(1), Int(-1), List(vec![five(0, 5, 0, 0), five(0, 5, -1, 0)])])),
        ("CL.TAKEALL b 2 CAPACITY 5 REFILL 0 AND c 3 CAPACITY 5 REFILL 0", List(vec![
            Int(1), Int(-1), Int(0), List(vec![five(2, 3, 0, -1), five(3, 2, 0, -1)])])),
        ("CL.POLICY b CAPACITY 5 REFILL 0 WEIGHT 2",    map([
            ("capacity", Int(5)), ("refill", text("0")), ("interval", Int(1000)),
            ("weight", Int(2)), ("pinned", Int(1)), ("source", text("pin")),
            ("pin_remaining_ms", Int(-1))])),
        ("CL.POLICY_RO nobody",                         map([
            ("capacity", Int(1000)), ("refill", text("5")), ("interval", Int(1000)),
            ("weight", Int(1)), ("pinned", Int(0)), ("source", text("default")),
            ("pin_remaining_ms", Int(0))])),
        ("CL.MERGE d FROM 1 c STRATEGY min",            ints(&[1, 5, 2])),
        ("CL.MERGE d FROM 1 c STRATEGY min",            ints(&[0, 5, 2])),
        ("CL.STATE d",                                  Something),
        ("CL.STATE nobody",                             Nil),
        ("CL.VERIFY lww SAMPLES 20 SEED 1",             map([
            ("strategy", text("lww")), ("samples", Int(20)), ("seed", text("1")),
            ("commutative", Something), ("associative", Something), ("idempotent", Something),
            ("inflationary", Something), ("within-capacity", text("ok"))])),
        ("CL.THROTTLE e 15 1 86400 3",                  ints(&[0, 16, 13, -1, 259_200])),
        ("CL.SYNC HELP",                                Something),
        ("CL.SYNC STATUS",                              Something),
    ]
}

/// Commands that only servers of other regions send.
const UNSEEN: &[&str] = &["cl.sync|round", "cl.sync|states"];

/// Reads an answer as what is expected there. In RESP2 a map is a list.
fn read(value: &Value, expected: &Answer) -> Answer {
    match (value, expected) {
        (Value::Nil, _) => Nil,
        (value, Something) => match value {
            Value::Array(items) if items.is_empty() => List(Vec::new()),
            _ => Something,
        },
        (Value::Int(n), _) => Int(*n),
        (Value::BulkString(bytes), _) => Answer::Text(String::from_utf8(bytes.clone()).unwrap()),
        (Value::SimpleString(line), _) => Answer::Text(line.clone()),
        (Value::Map(pairs), Map(expected)) => {
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name, value)).collect();
            read_map(&pairs, expected)
        }
        (Value::Array(items), Map(expected)) => {
            let pairs: Vec<_> = items.chunks(2).map(|pair| (&pair[0], &pair[1])).collect();
            read_map(&pairs, expected)
        }
        (Value::Array(items), List(expected)) => List(
            items
                .iter()
                .enumerate()
                .map(|(at, item)| read(item, expected.get(at).unwrap_or(&Nil)))
                .collect(),
        ),
        (value, _) => panic!("{value:?} is not {expected:?}"),
    }
}

fn read_map(pairs: &[(&Value, &Value)], expected: &[(String, Answer)]) -> Answer {
    let read = |at: usize, name: &Value, value: &Value| {
        let expected = expected.get(at).map_or(&Nil, |(_, answer)| answer);
        (redis::from_redis_value(name.clone()).unwrap(), read(value, expected))
    };
    Map(pairs.iter().enumerate().map(|(at, (name, value))| read(at, name, value)).collect())
}

pub fn answers_in_resp2(server: &str) {
    let node = Node::start(server, &[]);
    let conn = &mut node.connection();
    answers(conn);
    let Value::Array(_) = cmd(conn, "CL.POLICY b").unwrap() else {
        panic!("a map is a list in RESP2");
    };
}

pub fn answers_in_resp3(server: &str) {
    let node = Node::start(server, &[]);
    let conn = &mut node.connection_resp3();
    answers(conn);
    for line in ["CL.POLICY b", "CL.VERIFY max SAMPLES 2", "CL.SYNC STATUS"] {
        let answer = cmd(conn, line).unwrap();
        assert!(matches!(answer, Value::Map(_)), "{line}: {answer:?}");
    }
}

fn answers(conn: &mut Connection) {
    let mut seen: BTreeSet<String> = UNSEEN.iter().map(|name| (*name).to_owned()).collect();
    let mut see = |line: &str| {
        let words: Vec<String> = line.split(' ').take(2).map(str::to_lowercase).collect();
        seen.extend([words[0].clone(), words.join("|")]);
    };
    for (line, expected) in table() {
        let answer = cmd(conn, line).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert_eq!(read(&answer, &expected), expected, "{line}");
        see(line);
    }

    run(conn, &["SET text 1"]);
    #[rustfmt::skip]
    let refused = [
        ("CL.TAKE",               "ERR wrong number of arguments for 'cl.take' command"),
        ("CL.TAKE text",          "WRONGTYPE Operation against a key holding the wrong kind of value"),
        ("CL.TAKE a 1 CAPACITY -1 REFILL 5", "ERR "),
        ("CL.SETTLE a 1", "ERR wrong number of arguments "),
        ("CL.TAKEALL a AND", "ERR a key is missing after 'AND'"),
        ("CL.MERGE a FROM 1 b STRATEGY none", "ERR "),
        ("CL.SYNC NOW",           "ERR region sync is off"),
    ];
    for (line, expected) in refused {
        let answer = error(conn, line);
        assert!(answer.starts_with(expected), "{line}: {answer}");
        see(line);
    }
    let registered: BTreeSet<String> = ask(conn, "COMMAND LIST FILTERBY MODULE claw");
    assert!(registered.is_subset(&seen), "not tried, of {registered:?}: only {seen:?}");

    // A merge function is Lua of the server's own.
    let code = "#!lua name=least
        redis.register_function{function_name='least', flags={'no-writes'},
          callback=function(keys, args)
            local a, b = cmsgpack.unpack(args[1]), cmsgpack.unpack(args[2])
            return cmsgpack.pack({tokens = math.min(a.tokens, b.tokens)})
          end}";
    redis::cmd("FUNCTION").arg("LOAD").arg(code).exec(conn).unwrap();
    let merged: Vec<i64> = ask(conn, "CL.MERGE a FROM 1 b STRATEGY fn:least");
    assert_eq!(merged[1], 5, "{merged:?}");
}

pub fn parameters_and_info(server: &str) {
    let node = Node::start(server, &["--claw.max-tokens", "50"]);
    let conn = &mut node.connection();
    let parameters: BTreeMap<String, String> = ask(conn, "CONFIG GET claw.*");
    assert_eq!(parameters["claw.max-tokens"], "50", "from the command line");
    assert_eq!(parameters["claw.refill-rate-per-sec"], "5", "from redis.conf");
    assert_eq!(parameters["claw.merge-strategy"], "max", "the default");

    run(conn, &["CONFIG SET claw.max-tokens 7 claw.refill-rate-per-sec 0.5"]);
    let parameters: BTreeMap<String, String> = ask(conn, "CONFIG GET claw.max* claw.refill*");
    let set = [("claw.max-tokens", "7"), ("claw.refill-rate-per-sec", "0.5")];
    assert_eq!(parameters, set.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    let refusal = error(conn, "CONFIG SET claw.max-tokens -1");
    assert!(refusal.contains("claw.max-tokens"), "{refusal}");
    let taken: Vec<i64> = ask(conn, "CL.TAKE a 8");
    assert_eq!(taken[..3], [0, 7, 7]);

    // The version is that of the workspace, wherever it is shown.
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(info_field(conn, "claw", "claw_version").as_deref(), Some(version));
    assert_eq!(info_field(conn, "claw", "claw_refused").as_deref(), Some("1"));
    let number = [
        env!("CARGO_PKG_VERSION_MAJOR"),
        env!("CARGO_PKG_VERSION_MINOR"),
        env!("CARGO_PKG_VERSION_PATCH"),
    ]
    .iter()
    .fold(0, |number, part| number * 100 + part.parse::<i64>().unwrap());
    let modules: Vec<BTreeMap<String, Value>> = ask(conn, "MODULE LIST");
    let claw = modules.iter().find(|module| module["name"] == Value::BulkString(b"claw".into()));
    assert_eq!(claw.expect("the module is listed")["ver"], Value::Int(number));
}
