//! Merging: `CL.MERGE` in its three forms, `CL.STATE`, `CL.VERIFY`, and merge
//! functions, against real servers.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use claw_testkit::{
    Server, ask, cmd, digest, error, eventually, info_field, int, ints, run, wait_for_offset,
    wire_error,
};
use redis::{Cmd, Connection, ConnectionLike, Pipeline, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const PATIENCE: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(5);
const STRATEGIES: [&str; 4] = ["max", "min", "weighted", "lww"];

/// Buckets on the default policy of these servers never refill, so that nothing
/// in a test depends on the moment.
fn still_server() -> Server {
    Server::builder().module_args(["refill-rate-per-sec", "0"]).start()
}

fn call<A: redis::ToRedisArgs>(conn: &mut Connection, args: &[A]) -> Result<Value, String> {
    let mut command = Cmd::new();
    for arg in args {
        command.arg(arg);
    }
    command.query(conn).map_err(|e| wire_error(&e).expect("an answer"))
}

fn fields(conn: &mut Connection, key: &str) -> BTreeMap<String, String> {
    ask(conn, &format!("HGETALL {key}"))
}

/// `name value ..` of a hash, sorted, without the timestamp.
fn held(conn: &mut Connection, key: &str) -> String {
    let fields = fields(conn, key);
    let shown = fields.iter().filter(|(name, _)| *name != "timestamp");
    shown.map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(" ")
}

fn state(conn: &mut Connection, key: &str) -> Vec<u8> {
    redis::cmd("CL.STATE").arg(key).query(conn).unwrap()
}

fn merge_state(conn: &mut Connection, key: &str, blobs: &[Vec<u8>], strategy: &str) -> Vec<i64> {
    let mut command = redis::cmd("CL.MERGE");
    command.arg(key).arg("STATE").arg(blobs).arg("STRATEGY").arg(strategy);
    command.query(conn).unwrap_or_else(|e| panic!("CL.MERGE {key} STATE: {e}"))
}

fn merge_from(key: &str, sources: &str, strategy: &str) -> Cmd {
    let sources: Vec<&str> = sources.split(' ').collect();
    let mut cmd = redis::cmd("CL.MERGE");
    cmd.arg(key).arg("FROM").arg(sources.len()).arg(sources).arg("STRATEGY").arg(strategy);
    cmd
}

fn load(conn: &mut Connection, code: &str) {
    let loaded = call(conn, &["FUNCTION", "LOAD", "REPLACE", code]);
    assert!(loaded.is_ok(), "{loaded:?}");
}

/// Loads a file of `examples/merge`.
fn load_example(conn: &mut Connection, name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/merge").join(name);
    load(conn, &fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_micros()).unwrap()
}

/// The present second, as people write it by hand.
fn iso_now() -> String {
    let date = Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output().unwrap();
    String::from_utf8(date.stdout).unwrap().trim().to_owned()
}

// The forms.

/// 200 of weight 1 with 500 of weight 2 by every strategy, in all three forms.
#[test]
fn three_forms_and_four_strategies_agree() {
    let server = still_server();
    let conn = &mut server.connection();
    // The second is the newer one.
    run(conn, &["HSET src tokens 500 timestamp 2000000 userWeight 2"]);
    let blob = state(conn, "src");
    #[rustfmt::skip]
    let table = [
        ("max",      "tokens 500 userWeight 2", 500),
        ("min",      "tokens 200 userWeight 1", 200),
        ("weighted", "tokens 400 userWeight 2", 400),
        ("lww",      "tokens 500 userWeight 2", 500),
        ("MAX",      "tokens 500 userWeight 2", 500),
        ("Weighted", "tokens 400 userWeight 2", 400),
    ];
    for (strategy, expected, tokens) in table {
        for form in ["from", "fields", "state", "all fields"] {
            run(conn, &["DEL dst", "HSET dst tokens 200 timestamp 1000000 userWeight 1"]);
            let answer = match form {
                "from" => ints(conn, &format!("CL.MERGE dst FROM 1 src STRATEGY {strategy}")),
                "state" => merge_state(conn, "dst", std::slice::from_ref(&blob), strategy),
                "fields" => ints(
                    conn,
                    &format!(
                        "CL.MERGE dst fields tokens 500 timestamp 2000000 userWeight 2 \
                         strategy {strategy}"
                    ),
                ),
                _ => ints(
                    conn,
                    &format!(
                        "CL.MERGE dst FIELDS mine 7 userWeight 2 timestamp 1970-01-01T00:00:02Z \
                         tokens 500.000000 STRATEGY {strategy}"
                    ),
                ),
            };
            let changed = i64::from(tokens != 200);
            assert_eq!(answer, [changed, 1000, tokens], "{strategy} {form}");
            assert_eq!(held(conn, "dst"), expected, "{strategy} {form}");
        }
    }
}

/// The scenario that the weighted merge is published with, see docs/writing-a-merge.md
/// (published-weighted.lua), typed as it stands there: two regions, two servers.
#[test]
fn the_published_scenario() {
    let here = still_server();
    let there = still_server();
    let (a, b) = (&mut here.connection(), &mut there.connection());
    let now = iso_now();
    run(a, &[&format!("HSET token_bucket:user123 tokens 200 timestamp {now} userWeight 1")]);
    run(b, &[&format!("HSET token_bucket:user123 tokens 500 timestamp {now} userWeight 2")]);
    let (of_a, of_b) = (state(a, "token_bucket:user123"), state(b, "token_bucket:user123"));

    let answer = merge_state(a, "token_bucket:user123", std::slice::from_ref(&of_b), "weighted");
    assert_eq!(answer, [1, 1000, 400]);
    assert_eq!(held(a, "token_bucket:user123"), "tokens 400 userWeight 2");
    let before = fields(a, "token_bucket:user123");
    for _ in 0..3 {
        let again = [of_b.clone(), of_a.clone(), of_b.clone()];
        assert_eq!(merge_state(a, "token_bucket:user123", &again, "weighted"), [0, 1000, 400]);
    }
    assert_eq!(fields(a, "token_bucket:user123"), before);
    // The other way round, and through a third party, it is the same.
    assert_eq!(
        merge_state(b, "token_bucket:user123", std::slice::from_ref(&of_a), "weighted"),
        [1, 1000, 400]
    );
    assert_eq!(held(b, "token_bucket:user123"), "tokens 400 userWeight 2");
    let (merged_a, merged_b) = (state(a, "token_bucket:user123"), state(b, "token_bucket:user123"));
    #[rustfmt::skip]
    let orders: [&[&Vec<u8>]; 6] = [
        &[&of_a, &of_b], &[&of_b, &of_a], &[&merged_a, &of_a], &[&of_b, &merged_b, &of_a],
        &[&merged_a, &merged_b], &[&of_a, &of_a, &of_b, &of_b, &of_a],
    ];
    for (index, order) in orders.iter().enumerate() {
        let blobs: Vec<Vec<u8>> = order.iter().map(|blob| (*blob).clone()).collect();
        let at_once = format!("at_once{index}");
        assert_eq!(merge_state(a, &at_once, &blobs, "weighted"), [1, 1000, 400], "{index}");
        let one_by_one = format!("one_by_one{index}");
        for blob in blobs {
            merge_state(a, &one_by_one, &[blob], "weighted");
        }
        for key in [at_once, one_by_one] {
            assert_eq!(held(a, &key), "tokens 400 userWeight 2", "{key}");
        }
    }
}

/// With refill, a state that is older has gained more since. Compared is what
/// the states hold at the same moment.
#[test]
fn states_of_different_age_are_compared_at_the_same_moment() {
    // 1 token a second; the first was left with more, the second has more now.
    let server = Server::builder().module_args(["refill-rate-per-sec", "1"]).start();
    let conn = &mut server.connection();
    let now = now_us();
    let (fresh, stale) = (now - 10_000_000, now - 400_000_000);
    run(conn, &[&format!("HSET fresh tokens 300 timestamp {fresh}")]);
    run(conn, &[&format!("HSET stale tokens 100 timestamp {stale}")]);
    for (strategy, winner) in [("max", stale), ("min", fresh), ("weighted", fresh), ("lww", fresh)]
    {
        for sources in ["fresh stale", "stale fresh"] {
            run(conn, &["DEL dst", &format!("CL.MERGE dst FROM 2 {sources} STRATEGY {strategy}")]);
            let kept = fields(conn, "dst")["timestamp"].clone();
            assert_eq!(kept, winner.to_string(), "{strategy} {sources}");
        }
    }
    // Two lines that are one: nobody wins, nothing changes.
    let (a, b) = (now - 50_000_000, now - 60_000_000);
    run(conn, &[&format!("HSET a tokens 110 timestamp {a}")]);
    run(conn, &[&format!("HSET b tokens 100 timestamp {b}")]);
    for strategy in ["max", "min", "weighted"] {
        assert_eq!(ints(conn, &format!("CL.MERGE a FROM 1 b STRATEGY {strategy}"))[0], 0);
        assert_eq!(ints(conn, &format!("CL.MERGE b FROM 1 a STRATEGY {strategy}"))[0], 0);
    }
}

/// A state keeps its age when the default policy changes after it was written:
/// else every such bucket would be the newest one for `lww`.
#[test]
fn a_change_of_the_default_policy_makes_no_state_newer() {
    let server = Server::builder().module_args(["refill-rate-per-sec", "1"]).start();
    let conn = &mut server.connection();
    let now = now_us();
    run(conn, &[&format!("HSET old tokens 5 timestamp {}", now - 30_000_000)]);
    run(conn, &[&format!("HSET new tokens 900 timestamp {}", now - 10_000_000)]);
    let newest = |conn: &mut Connection| {
        run(conn, &["DEL dst", "CL.MERGE dst FROM 2 old new STRATEGY lww"]);
        ints(conn, "CL.PEEK dst 0")[2] > 500
    };
    assert!(newest(conn), "before the change");
    run(conn, &["CONFIG SET claw.refill-rate-per-sec 2"]);
    assert!(newest(conn), "after the change");
}

/// Tokens are compared per share: tokens / own weight.
#[test]
fn comparisons_are_per_share() {
    let server = still_server();
    let conn = &mut server.connection();
    #[rustfmt::skip]
    let table = [
        // a           b            max            min            weighted
        ((500, 1),     (600, 2),    (500, 1),      (600, 2),      (600, 2)),
        ((200, 1),     (500, 2),    (500, 2),      (200, 1),      (400, 2)),
        ((200, 1),     (400, 2),    (400, 2),      (400, 2),      (400, 2)),
        ((200, 1),     (200, 1),    (200, 1),      (200, 1),      (200, 1)),
        ((200, 3),     (200, 3),    (200, 3),      (200, 3),      (200, 3)),
        ((300, 1),     (900, 2),    (900, 2),      (300, 1),      (600, 2)),
        ((900, 10),    (100, 1),    (100, 1),      (900, 10),     (900, 10)),
        ((600, 1),     (1000, 10),  (600, 1),      (1000, 10),    (1000, 10)),
        ((1000, 1),    (1000, 1),   (1000, 1),     (1000, 1),     (1000, 1)),
        // Cut at the capacity: 700 a share is more than 10 shares can hold.
        ((700, 1),     (1000, 10),  (700, 1),      (1000, 10),    (1000, 10)),
        ((0, 1),       (0, 7),      (0, 7),        (0, 7),        (0, 7)),
    ];
    for (a, b, max, min, weighted) in table {
        for (strategy, (tokens, weight)) in [("max", max), ("min", min), ("weighted", weighted)] {
            for sources in ["a b", "b a", "a b a b b"] {
                run(conn, &["FLUSHALL"]);
                run(conn, &[&format!("HSET a tokens {} timestamp 1 userWeight {}", a.0, a.1)]);
                run(conn, &[&format!("HSET b tokens {} timestamp 1 userWeight {}", b.0, b.1)]);
                let count = sources.split(' ').count();
                run(conn, &[&format!("CL.MERGE c FROM {count} {sources} STRATEGY {strategy}")]);
                let got = fields(conn, "c");
                let got_weight = got.get("userWeight").map_or("1", String::as_str);
                assert_eq!(
                    (got["tokens"].as_str(), got_weight),
                    (tokens.to_string().as_str(), weight.to_string().as_str()),
                    "{strategy} of {a:?} and {b:?} as {sources}"
                );
            }
        }
    }
    // The third part of a token is no matter: shares are exact.
    run(conn, &["HSET third tokens 0.000001 timestamp 1 userWeight 3"]);
    run(conn, &["CL.MERGE x FIELDS tokens 1000 timestamp 1 userWeight 10"]);
    run(conn, &["CL.MERGE x FROM 1 third STRATEGY weighted"]);
    run(
        conn,
        &[
            "CL.MERGE y FROM 1 third",
            "CL.MERGE y FIELDS tokens 1000 userWeight 10 STRATEGY weighted",
        ],
    );
    assert_eq!(held(conn, "x"), held(conn, "y"));
}

/// The policy decides before the tokens, whatever the strategy; `lww` alone
/// looks at the age first.
#[test]
fn the_policy_decides_first() {
    let server = still_server();
    let conn = &mut server.connection();
    // From the weakest to the strongest; the stronger ones hold fewer tokens in
    // the first half of the runs and more in the second.
    let policies = [
        None,
        Some("100 0/1000"),
        Some("100 5/1000"),
        Some("200 1/1000"),
        Some("200 1/2000"),
        Some("50 1/1000 pinned 1"),
        Some("60 1/1000 pinned 1"),
        Some("10 1/1000 pinned 2"),
    ];
    for (index, weak) in policies.iter().enumerate() {
        for strong in &policies[index + 1..] {
            for (low, high) in [(3, 7), (7, 3)] {
                for (strategy, sources) in
                    STRATEGIES.iter().flat_map(|s| [(s, "weak strong"), (s, "strong weak")])
                {
                    run(conn, &["FLUSHALL"]);
                    // Ahead of the clock, so that nothing refills.
                    let at = now_us() + 3_600_000_000;
                    for (key, policy, tokens) in [("weak", weak, low), ("strong", strong, high)] {
                        let at = if *strategy == "lww" && key == "strong" { at + 1 } else { at };
                        let mut args = vec![
                            "HSET".to_owned(),
                            key.into(),
                            "tokens".into(),
                            tokens.to_string(),
                        ];
                        args.extend(["timestamp".to_owned(), at.to_string()]);
                        args.extend(policy.iter().flat_map(|p| ["policy".to_owned(), (*p).into()]));
                        call(conn, &args).unwrap();
                    }
                    run(conn, &[&format!("CL.MERGE dst FROM 2 {sources} STRATEGY {strategy}")]);
                    let got = fields(conn, "dst");
                    assert_eq!(
                        got.get("policy").map(String::as_str),
                        *strong,
                        "{weak:?} {strategy}"
                    );
                    assert_eq!(got["tokens"], high.to_string(), "{weak:?} {strong:?} {strategy}");
                }
            }
        }
    }
    // lww: the newer one, also when its policy is the weaker one.
    run(conn, &["FLUSHALL", "HSET old tokens 5 timestamp 1"]);
    call(conn, &["HSET", "old", "policy", "10 0/1000 pinned 9"]).unwrap();
    run(conn, &["HSET new tokens 900 timestamp 2", "CL.MERGE old FROM 1 new STRATEGY lww"]);
    assert_eq!(held(conn, "old"), "tokens 900");
}

#[test]
fn the_capacity_is_never_exceeded() {
    let server = still_server();
    let conn = &mut server.connection();
    #[rustfmt::skip]
    let table = [
        // What is there, what comes in, strategy, remaining
        ("600 1", "1000 10", "weighted", 1000),
        ("400 1", "1000 3",  "weighted", 1000),
        ("300 1", "1000 3",  "weighted", 900),
        ("1 1",   "5000 1",  "max",      1000),
        ("9999 1","1000000000000 10", "max", 1000),
    ];
    for (a, b, strategy, remaining) in table {
        run(conn, &["FLUSHALL"]);
        for (key, bucket) in [("a", a), ("b", b)] {
            let (tokens, weight) = bucket.split_once(' ').unwrap();
            run(conn, &[&format!("HSET {key} tokens {tokens} timestamp 1 userWeight {weight}")]);
        }
        let answer = ints(conn, &format!("CL.MERGE a FROM 1 b STRATEGY {strategy}"));
        assert_eq!(answer[1..], [1000, remaining], "{a} and {b}");
    }
}

#[test]
fn missing_keys() {
    let server = still_server();
    let conn = &mut server.connection();
    assert_eq!(cmd(conn, "CL.STATE none").unwrap(), Value::Nil);
    assert_eq!(cmd(&mut server.connection_resp3(), "CL.STATE none").unwrap(), Value::Nil);
    // All missing: full, and still missing.
    assert_eq!(ints(conn, "CL.MERGE dst FROM 2 none nothing"), [0, 1000, 1000]);
    assert_eq!(int(conn, "EXISTS dst none nothing"), 0);
    // A missing source is skipped, wherever it stands.
    run(conn, &["HSET a tokens 5 timestamp 1", "HSET b tokens 3 timestamp 1 userWeight 2"]);
    for sources in ["none a b", "a none b", "a b none"] {
        run(conn, &["DEL dst"]);
        let answer = ints(conn, &format!("CL.MERGE dst FROM 3 {sources} STRATEGY weighted"));
        assert_eq!(answer, [1, 1000, 3], "{sources}");
        assert_eq!(held(conn, "dst"), "tokens 3 userWeight 2", "{sources}");
    }
    assert_eq!(int(conn, "EXISTS none"), 0);
    // A missing destination is made from the first source as it stands.
    assert_eq!(ints(conn, "CL.MERGE copy FROM 1 a"), [1, 1000, 5]);
    assert_eq!(fields(conn, "copy"), fields(conn, "a"));
    // Nothing but missing sources leaves what is there.
    assert_eq!(ints(conn, "CL.MERGE a FROM 1 none"), [0, 1000, 5]);
    // Itself.
    for strategy in STRATEGIES {
        assert_eq!(ints(conn, &format!("CL.MERGE a FROM 2 a a STRATEGY {strategy}")), [0, 1000, 5]);
    }
    // The user's own fields and other buckets stay as they are.
    run(
        conn,
        &["HSET mine tokens 9 timestamp 1 note hello", "CL.MERGE mine FROM 1 a STRATEGY min"],
    );
    assert_eq!(held(conn, "mine"), "note hello tokens 5");
    assert_eq!(held(conn, "a"), "tokens 5");
}

#[test]
fn several_sources_fold_in_one_step() {
    let server = still_server();
    let conn = &mut server.connection();
    run(conn, &["CONFIG SET notify-keyspace-events Kh"]);
    let mut events = server.connection();
    let mut events = events.as_pubsub();
    events.set_read_timeout(Some(PATIENCE)).unwrap();
    events.subscribe("__keyspace@0__:dst").unwrap();
    let mut names = Vec::new();
    for n in 0..200 {
        run(conn, &[&format!("HSET s{n} tokens {} timestamp 1", 900 - n)]);
        names.push(format!("s{n}"));
    }
    let all = names.join(" ");
    assert_eq!(ints(conn, &format!("CL.MERGE dst FROM 200 {all} STRATEGY min")), [1, 1000, 701]);
    run(conn, &["HSET dst end 1"]);
    // One event for the whole, one for the mark behind it.
    for _ in 0..2 {
        let event = events.get_message().unwrap();
        assert_eq!(event.get_payload::<String>().unwrap(), "hset");
    }
    events.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(events.get_message().is_err());
}

// What is refused.

/// Runs a command that has to fail, and asserts that it changed nothing.
fn refused(conn: &mut Connection, line: &[&[u8]]) -> String {
    let before = digest(conn);
    let dirty =
        |conn: &mut Connection| info_field(conn, "persistence", "rdb_changes_since_last_save");
    let changes = dirty(conn);
    let shown = line.iter().map(|word| word.escape_ascii().to_string()).collect::<Vec<_>>();
    let text = call(conn, line).expect_err(&shown.join(" "));
    assert_eq!(digest(conn), before, "{shown:?}");
    assert_eq!(dirty(conn), changes, "{shown:?}");
    text
}

fn refused_line(conn: &mut Connection, line: &str) -> String {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    refused(conn, &words)
}

#[test]
fn bad_arguments_change_nothing() {
    let server = still_server();
    let conn = &mut server.connection();
    run(conn, &["HSET k tokens 5 timestamp 1", "HSET s tokens 3 timestamp 1"]);
    #[rustfmt::skip]
    let table = [
        ("CL.MERGE", "ERR wrong number of arguments for 'cl.merge' command"),
        ("CL.MERGE k FROM", "ERR wrong number of arguments for 'cl.merge' command"),
        ("CL.MERGE k STATE", "ERR wrong number of arguments for 'cl.merge' command"),
        ("CL.MERGE k WITH 1 s", "ERR unknown option 'WITH'"),
        ("CL.MERGE k STRATEGY max", "ERR unknown option 'STRATEGY'"),
        ("CL.MERGE k FROM 0", "ERR numkeys must be an integer of 1 or more"),
        ("CL.MERGE k FROM -1 s", "ERR numkeys must be an integer of 1 or more"),
        ("CL.MERGE k FROM one s", "ERR numkeys must be an integer of 1 or more"),
        ("CL.MERGE k FROM 2 s", "ERR numkeys is larger than the number of arguments"),
        ("CL.MERGE k FROM 18446744073709551615 s", "ERR numkeys is larger than the number of arguments"),
        ("CL.MERGE k FROM 18446744073709551616 s", "ERR numkeys must be an integer of 1 or more"),
        ("CL.MERGE k FROM 1 s s", "ERR unknown option 's'"),
        ("CL.MERGE k FROM 1 s STRATEGY", "ERR option 'STRATEGY' needs a value"),
        ("CL.MERGE k FROM 1 s STRATEGY best", "ERR unknown strategy 'best': max, min, weighted, lww, debit or fn:NAME"),
        ("CL.MERGE k FROM 1 s STRATEGY fn:", "ERR unknown strategy 'fn:': max, min, weighted, lww, debit or fn:NAME"),
        ("CL.MERGE k FROM 1 s STRATEGY fn:a-b", "ERR unknown strategy 'fn:a-b': max, min, weighted, lww, debit or fn:NAME"),
        ("CL.MERGE k FROM 1 s STRATEGY debit", "ERR strategy debit: a state that counts no debits cannot be merged"),
        ("CL.VERIFY debit", "ERR strategy debit: merges buckets by their counters, not as states"),
        ("CL.MERGE k FROM 1 s STRATEGY max STRATEGY max", "ERR unknown option 'STRATEGY'"),
        ("CL.MERGE k FIELDS tokens", "ERR FIELDS needs a value for each field"),
        ("CL.MERGE k FIELDS tokens 5 timestamp", "ERR FIELDS needs a value for each field"),
        ("CL.MERGE k FIELDS userWeight 2", "ERR FIELDS needs 'tokens'"),
        ("CL.MERGE k FIELDS STRATEGY max", "ERR FIELDS needs 'tokens'"),
        ("CL.MERGE k FIELDS tokens many", "ERR field 'tokens' is 'many', which is not a decimal number of 0 or more"),
        ("CL.MERGE k FIELDS tokens -1", "ERR field 'tokens' is '-1', which is not a decimal number of 0 or more"),
        ("CL.MERGE k FIELDS tokens 1 userWeight 0", "ERR field 'userWeight' is '0', which is not an integer from 1 to 10"),
        ("CL.MERGE k FIELDS tokens 1 userWeight 11", "ERR field 'userWeight' is '11', which is not an integer from 1 to 10"),
        ("CL.MERGE k FIELDS tokens 1 timestamp soon", "ERR field 'timestamp' is 'soon', which is neither unix microseconds nor an RFC 3339 time"),
        ("CL.MERGE k FIELDS tokens 1 timestamp 9000-01-01T00:00:00Z", "ERR field 'timestamp' is '9000-01-01T00:00:00Z', which is more than 30 days ahead of the server's clock"),
        ("CL.MERGE k FIELDS tokens 1 policy fast", "ERR field 'policy' is 'fast', which is not 'capacity refill/interval [pinned [version]]' within the bounds"),
        ("CL.MERGE k FIELDS tokens 1 remainder -1", "ERR field 'remainder' is '-1', which is not an integer of 0 or more"),
        ("CL.MERGE k STATE STRATEGY max", "ERR option 'STATE' needs a value"),
        ("CL.MERGE k STATE abc", "ERR state 1 is not a state as CL.STATE returns it"),
        ("CL.STATE", "ERR wrong number of arguments for 'cl.state' command"),
        ("CL.STATE k k", "ERR wrong number of arguments for 'cl.state' command"),
        ("CL.VERIFY", "ERR wrong number of arguments for 'cl.verify' command"),
        ("CL.VERIFY best", "ERR unknown strategy 'best': max, min, weighted, lww, debit or fn:NAME"),
        ("CL.VERIFY max SAMPLES", "ERR option 'SAMPLES' needs a value"),
        ("CL.VERIFY max SAMPLES 0", "ERR samples must be an integer from 1 to 20000"),
        ("CL.VERIFY max SAMPLES 20001", "ERR samples must be an integer from 1 to 20000"),
        ("CL.VERIFY max SEED -1", "ERR seed must be an integer from 0 to 18446744073709551615"),
        ("CL.VERIFY max SEED 1 SEED 1", "ERR option 'SEED' is given twice"),
        ("CL.VERIFY max SAMPLES 5 SAMPLES 5", "ERR option 'SAMPLES' is given twice"),
        ("CL.VERIFY max k", "ERR unknown option 'k'"),
    ];
    for (line, text) in table {
        assert_eq!(refused_line(conn, line), text, "{line}");
    }
}

/// One bad source, and nothing is merged, wherever it stands and whatever the
/// others say.
#[test]
fn a_bad_source_refuses_the_whole() {
    let server = still_server();
    let conn = &mut server.connection();
    run(conn, &["HSET k tokens 5 timestamp 1", "HSET good tokens 3 timestamp 1"]);
    run(conn, &["HSET corrupt tokens many", "SET text hello", "HSET newer tokens 1 newer junk"]);
    let corrupt = "ERR bucket 'corrupt': field 'tokens' holds 'many', which is not a decimal number of 0 or more";
    let wrong = "WRONGTYPE Operation against a key holding the wrong kind of value";
    let newer = "ERR bucket 'newer': field 'newer' cannot be read";
    for (bad, why) in [("corrupt", corrupt), ("text", wrong), ("newer", newer)] {
        for strategy in STRATEGIES {
            for sources in [format!("{bad} good"), format!("good {bad}")] {
                for key in ["k", "missing"] {
                    let line = format!("CL.MERGE {key} FROM 2 {sources} STRATEGY {strategy}");
                    assert_eq!(refused_line(conn, &line), why, "{line}");
                }
            }
            let line = format!("CL.MERGE {bad} FROM 1 good STRATEGY {strategy}");
            assert_eq!(refused_line(conn, &line), why, "{line}");
        }
        assert_eq!(refused_line(conn, &format!("CL.STATE {bad}")), why);
    }
    let blob = state(conn, "good");
    let cut = &blob[..blob.len() - 1];
    let longer = [&blob[..], b"x"].concat();
    let huge = vec![0xc0; 9000];
    let malformed = "is not a state as CL.STATE returns it";
    let bounds = |field: &str| format!("holds a field '{field}' out of its bounds");
    let table: Vec<(&[u8], String)> = vec![
        (b"", malformed.into()),
        (b"\xc0", malformed.into()),
        (b"\x80", malformed.into()),
        (cut, malformed.into()),
        (&longer, malformed.into()),
        (&huge, "is longer than 8192 bytes".into()),
        (b"\x83\xa1v\x01\xa6tokens\xff\xa9timestamp\x01", malformed.into()),
        (b"\x83\xa1v\x01\xa6tokens\xa15\xa9timestamp\x01", malformed.into()),
        (b"\x84\xa1v\x01\xa6tokens\x05\xa6tokens\x05\xa9timestamp\x01", malformed.into()),
        (b"\x83\xa1v\x01\xa6tokens\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xa9timestamp\x01", bounds("tokens")),
        (b"\x83\xa1v\x01\xa6tokens\x05\xa9timestamp\xcf\xff\xff\xff\xff\xff\xff\xff\xff", bounds("timestamp")),
        (b"\x84\xa1v\x01\xa6tokens\x05\xa9timestamp\x01\xa6weight\x00", bounds("weight")),
        (b"\x84\xa1v\x01\xa6tokens\x05\xa9timestamp\x01\xa6weight\x0b", bounds("weight")),
        (b"\x84\xa1v\x01\xa6tokens\x05\xa9timestamp\x01\xa6policy\x83\xa8capacity\x00\xa6refill\x01\xa8interval\x01", bounds("policy")),
    ];
    for (bad, why) in table {
        let shown = bad.escape_ascii().to_string();
        let first = refused(conn, &[b"CL.MERGE", b"k", b"STATE", bad, &blob, b"STRATEGY", b"min"]);
        assert_eq!(first, format!("ERR state 1 {why}"), "{shown}");
        let second = refused(conn, &[b"CL.MERGE", b"k", b"STATE", &blob, bad]);
        assert_eq!(second, format!("ERR state 2 {why}"), "{shown}");
    }
    assert_eq!(held(conn, "k"), "tokens 5");
}

/// A merge without effect is not written, replicated or announced.
#[test]
fn a_merge_that_changes_nothing_leaves_no_trace() {
    let master = Server::builder()
        .module_args(["refill-rate-per-sec", "0"])
        .config("repl-ping-replica-period", "3600")
        .start();
    let replica = Server::replica_of(&master).start();
    let conn = &mut master.connection();
    run(conn, &["HSET k tokens 5 timestamp 1 userWeight 2", "HSET more tokens 9 timestamp 1"]);
    run(conn, &["HSET fewer tokens 1 timestamp 1 userWeight 3", "HSET old tokens 7 timestamp 0"]);
    load_example(conn, "premium-first.lua");
    wait_for_offset(&master, &replica);
    let blob = state(conn, "k");
    #[rustfmt::skip]
    let table = [
        "CL.MERGE k FROM 1 k STRATEGY max",
        "CL.MERGE k FROM 1 fewer STRATEGY max",
        "CL.MERGE k FROM 1 more STRATEGY min",
        "CL.MERGE k FROM 1 more STRATEGY weighted",
        "CL.MERGE k FROM 1 old STRATEGY lww",
        "CL.MERGE k FROM 2 none k",
        "CL.MERGE k FIELDS tokens 5 timestamp 1 userWeight 2",
        "CL.MERGE k FROM 1 more STRATEGY fn:premium_first",
        "CL.MERGE none FROM 1 nothing",
    ];
    let offset = |conn: &mut Connection| info_field(conn, "replication", "master_repl_offset");
    let (before, at) = (digest(conn), offset(conn));
    for line in table {
        assert_eq!(ints(conn, line)[0], 0, "{line}");
        assert_eq!((digest(conn), offset(conn)), (before.clone(), at.clone()), "{line}");
    }
    assert_eq!(merge_state(conn, "k", &[blob.clone(), blob], "weighted")[0], 0);
    cmd(conn, "CL.MERGE k FROM 1 text x").unwrap_err();
    assert_eq!((digest(conn), offset(conn)), (before, at));
    // Nor does it count as a change for WATCH; a merge with effect does.
    for (line, untouched) in [
        ("CL.MERGE k FROM 1 more STRATEGY min", true),
        ("CL.MERGE k FROM 1 fewer STRATEGY min", false),
    ] {
        run(conn, &["WATCH k", line, "MULTI", "PING"]);
        assert_eq!(cmd(conn, "EXEC").unwrap() != Value::Nil, untouched, "{line}");
    }
}

// The laws, through a real server.

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[usize::try_from(self.below(list.len() as u64)).unwrap()]
    }
}

/// What buckets of the tests of laws are on; `None` is the default policy.
const POLICIES: [(Option<&str>, [u64; 3]); 5] = [
    (None, [1000, 5_000_000, 1_000]),
    (None, [1000, 5_000_000, 1_000]),
    (Some("100 0.7/1300"), [100, 700_000, 1_300]),
    (Some("100 0.7/1300 pinned 2"), [100, 700_000, 1_300]),
    (Some("1000000000000 0/1 pinned 2"), [1_000_000_000_000, 0, 1]),
];

/// An `HSET` of a random bucket, all of whose fields are given.
fn random_bucket(random: &mut Random, key: &str, now: u64, alike: bool) -> Cmd {
    let (policy, [capacity, ..]) = if alike { POLICIES[0] } else { *random.pick(&POLICIES) };
    let most = (capacity * 1_000_000).min(2_000_000_000);
    let micros = match random.below(6) {
        0 => 0,
        1 => capacity * 1_000_000,
        2 | 3 => random.below(most / 1_000_000 + 1) * 1_000_000,
        _ => random.below(most + 1),
    };
    let ago = match random.below(4) {
        0 => 0,
        1 => random.below(20) * 1_000_000,
        _ => random.below(200_000_000),
    };
    let mut cmd = redis::cmd("HSET");
    cmd.arg(key).arg("tokens").arg(format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000));
    cmd.arg("timestamp").arg(now - ago);
    if random.below(4) > 0 {
        cmd.arg("userWeight").arg(1 + random.below(10));
    }
    if let Some(policy) = policy {
        cmd.arg("policy").arg(policy);
    }
    if random.below(4) == 0 {
        // Whole shares of every weight.
        cmd.arg("remainder").arg(2_520 * random.below(1_000));
    }
    cmd
}

/// What a bucket is, whatever instant it is written down for: policy, weight,
/// and its line, or that it is full by `now`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    policy: Option<String>,
    weight: i128,
    line: Option<i128>,
}

impl Line {
    fn of(fields: &BTreeMap<String, String>, now: u64) -> Line {
        let policy = fields.get("policy").cloned();
        let numbers = POLICIES.iter().find(|(text, _)| *text == policy.as_deref());
        let [capacity, refill, interval] = numbers.expect("a known policy").1.map(i128::from);
        let integer = |name: &str, missing: i128| {
            fields.get(name).map_or(missing, |text| text.parse().expect("an integer"))
        };
        let (whole, part) = fields["tokens"].split_once('.').unwrap_or((&fields["tokens"], ""));
        let micros: i128 = format!("{whole}{part:0<6}").parse().unwrap();
        let micros = micros.min(capacity * 1_000_000);
        let (weight, timestamp) = (integer("userWeight", 1), integer("timestamp", 0));
        let parts = interval * 1_000 * 2_520;
        let rate = refill * weight * 2_520;
        let line = micros * parts + integer("remainder", 0) - rate * timestamp;
        let full = line + rate * timestamp.max(i128::from(now)) >= capacity * 1_000_000 * parts;
        Line { policy, weight, line: Some(line).filter(|_| !full) }
    }
}

/// Order, grouping and repetition do not matter to the built-in strategies.
#[test]
fn laws_hold_through_a_real_server() {
    const TRIPLES: u64 = 120;
    let server = Server::start();
    let conn = &mut server.connection();
    let random = &mut Random(3);
    let mut differing = 0;
    for trial in 0..TRIPLES {
        let alike = trial % 2 == 0;
        for strategy in STRATEGIES {
            let now = now_us();
            let mut pipe = Pipeline::new();
            pipe.cmd("FLUSHALL");
            for key in ["a", "b", "c"] {
                pipe.add_command(random_bucket(random, key, now, alike));
            }
            let merge = |key: &str, sources: &str| merge_from(key, sources, strategy);
            // All at once, in every order; repeated; grouped.
            let mut keys = vec![];
            let orders = ["a b c", "a c b", "b a c", "b c a", "c a b", "c b a", "a a b a c c b a"];
            for (index, order) in orders.iter().enumerate() {
                pipe.add_command(merge(&format!("fold{index}"), order));
                keys.push(format!("fold{index}"));
            }
            for (pair, one, more) in [("ab", "a b", "c"), ("bc", "b c", "a"), ("ca", "c a", "b")] {
                pipe.add_command(merge(pair, one));
                pipe.add_command(merge(&format!("left:{pair}"), &format!("{pair} {more}")));
                pipe.add_command(merge(&format!("right:{pair}"), &format!("{more} {pair}")));
                pipe.add_command(merge(
                    &format!("more:{pair}"),
                    &format!("{pair} {more} {pair} fold0 a b c"),
                ));
                keys.extend(["left", "right", "more"].map(|side| format!("{side}:{pair}")));
            }
            pipe.cmd("COPY").arg("b").arg("copy");
            keys.push("copy".into());
            for source in ["c", "a", "c", "b"] {
                pipe.add_command(merge("copy", source));
            }
            let answers: Vec<Value> = pipe.query(conn).unwrap();
            assert!(answers.iter().all(|a| !matches!(a, Value::ServerError(_))), "{answers:?}");

            let now = now_us();
            let [a, b] = ["a", "b"].map(|key| Line::of(&fields(conn, key), now));
            differing += u64::from(a != b);
            let expected = Line::of(&fields(conn, "fold0"), now);
            for key in keys {
                let got = Line::of(&fields(conn, &key), now);
                let shown = |conn: &mut Connection| {
                    ["a", "b", "c", "fold0", &key].map(|key| fields(conn, key))
                };
                assert_eq!(got, expected, "{strategy} {key}: {:#?}", shown(conn));
                // Whoever has seen it all learns nothing from anybody.
                let answer =
                    ints(conn, &format!("CL.MERGE {key} FROM 4 a b c fold0 STRATEGY {strategy}"));
                assert_eq!(answer[0], 0, "{strategy} {key}: {:#?}", shown(conn));
            }
            // The same through states.
            let blobs = ["b", "c", "a"].map(|key| state(conn, key));
            merge_state(conn, "blobs", &blobs, strategy);
            assert_eq!(Line::of(&fields(conn, "blobs"), now), expected, "{strategy} blobs");
        }
    }
    assert!(differing > TRIPLES, "the buckets are not random");
}

/// A take, then a merge with the state from before it: `max` gives the tokens
/// back, the others do not.
#[test]
fn only_max_gives_a_take_back() {
    let server = still_server();
    let conn = &mut server.connection();
    for (strategy, remaining) in [("max", 1000), ("min", 700), ("weighted", 700), ("lww", 700)] {
        run(conn, &["FLUSHALL", "HSET k tokens 1000 timestamp 1"]);
        let before = state(conn, "k");
        assert_eq!(ints(conn, "CL.TAKE k 300")[..3], [300, 1000, 700]);
        assert_eq!(merge_state(conn, "k", &[before], strategy)[2], remaining, "{strategy}");
    }
}

/// 300 taken here and 200 there at the same time: none of these strategies says
/// 500 are left.
#[test]
fn two_concurrent_takes() {
    let (here, there) = (still_server(), still_server());
    let (a, b) = (&mut here.connection(), &mut there.connection());
    for (strategy, remaining) in [("max", 800), ("min", 700), ("weighted", 700), ("lww", 800)] {
        for (conn, tokens) in [(&mut *a, 300), (&mut *b, 200)] {
            run(conn, &["FLUSHALL", "HSET k tokens 1000 timestamp 1"]);
            assert_eq!(ints(conn, &format!("CL.TAKE k {tokens}"))[0], tokens);
            // The second take is the later one, also by a clock of milliseconds.
            let at = now_us();
            eventually(PATIENCE, TICK, "the clock to go on", || now_us() > at + 1_000);
        }
        let (of_a, of_b) = (state(a, "k"), state(b, "k"));
        merge_state(a, "k", &[of_b], strategy);
        merge_state(b, "k", &[of_a], strategy);
        let left = ints(a, "CL.PEEK k 0")[2];
        assert_eq!(left, remaining, "{strategy}");
        assert_eq!(ints(b, "CL.PEEK k 0")[2], left, "{strategy}");
        assert_ne!(left, 500);
    }
}

// States.

/// A state carries all there is, to another server and back.
#[test]
fn states_travel_without_loss() {
    let (here, there) = (Server::start(), Server::start());
    let (a, b) = (&mut here.connection(), &mut there.connection());
    let random = &mut Random(11);
    for _ in 0..300 {
        run(a, &["DEL k"]);
        random_bucket(random, "k", now_us(), false).exec(a).unwrap();
        let blob = state(a, "k");
        assert!(blob.len() < 128, "{} bytes", blob.len());
        run(b, &["DEL k"]);
        assert_eq!(merge_state(b, "k", std::slice::from_ref(&blob), "max")[0], 1);
        assert_eq!(state(b, "k"), blob);
        let now = now_us();
        assert_eq!(Line::of(&fields(b, "k"), now), Line::of(&fields(a, "k"), now));
    }
    // Reading a state changes nothing.
    let before = digest(a);
    state(a, "k");
    assert_eq!(digest(a), before);
}

/// Fields of later versions are kept, joined, and handed on.
#[test]
fn fields_of_later_versions_are_kept() {
    let server = still_server();
    let conn = &mut server.connection();
    run(conn, &["HSET k tokens 5 timestamp 1"]);
    let blob = state(conn, "k");
    // One more field in the map.
    let with = |field: &[u8]| {
        let mut longer = blob.clone();
        assert_eq!(longer[0] & 0xf0, 0x80, "a small map");
        longer[0] += 1;
        longer.extend_from_slice(field);
        longer
    };
    let (one, two, other) =
        (with(b"\xa5later\x01"), with(b"\xa5later\x02"), with(b"\xa4soon\xa1x"));
    assert_eq!(merge_state(conn, "k", std::slice::from_ref(&one), "max"), [1, 1000, 5]);
    assert_eq!(merge_state(conn, "k", std::slice::from_ref(&one), "max"), [0, 1000, 5]);
    assert_eq!(ask::<Vec<u8>>(conn, "HGET k newer"), b"\x81\xa5later\x01");
    assert_eq!(state(conn, "k"), one);
    // The greater value wins, in any order.
    for order in [[&one, &two, &other], [&other, &two, &one], [&two, &other, &one]] {
        run(conn, &["DEL m"]);
        let blobs: Vec<Vec<u8>> = order.into_iter().cloned().collect();
        merge_state(conn, "m", &blobs, "min");
        let kept: Vec<u8> = ask(conn, "HGET m newer");
        assert_eq!(kept, b"\x82\xa5later\x02\xa4soon\xa1x");
        assert_eq!(merge_state(conn, "m", &blobs, "min")[0], 0);
    }
    // Takes leave it alone.
    assert_eq!(ints(conn, "CL.TAKE m 2")[..3], [2, 1000, 3]);
    assert_eq!(ask::<Vec<u8>>(conn, "HGET m newer"), b"\x82\xa5later\x02\xa4soon\xa1x");
}

/// Random and damaged states: each is an error or a merge like any other.
#[test]
fn a_hundred_thousand_damaged_states() {
    const BLOBS: usize = 100_000;
    const BATCH: usize = 1_000;
    let server = Server::start();
    let conn = &mut server.connection();
    let random = &mut Random(42);
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for _ in 0..40 {
        run(conn, &["DEL k"]);
        random_bucket(random, "k", now_us(), false).exec(conn).unwrap();
        seeds.push(state(conn, "k"));
    }
    let mut longer = seeds[0].clone();
    longer[0] += 1;
    longer.extend_from_slice(b"\xa5later\x92\x01\xa1x");
    seeds.push(longer);
    run(conn, &["DEL k"]);

    let (mut merged, mut refused) = (0, 0);
    for _ in 0..BLOBS / BATCH {
        let mut pipe = Pipeline::new();
        for _ in 0..BATCH {
            let blob = damaged(random, &seeds);
            let key = format!("k{}", random.below(20));
            pipe.cmd("CL.MERGE").arg(key).arg("STATE").arg(blob);
            pipe.arg("STRATEGY").arg(*random.pick(&STRATEGIES));
        }
        let packed = pipe.get_packed_pipeline();
        for answer in conn.req_packed_commands(&packed, 0, BATCH).unwrap() {
            match answer {
                Value::ServerError(e) => {
                    let text = format!("{} {}", e.code(), e.details().unwrap_or(""));
                    assert!(text.starts_with("ERR state 1 "), "{text}");
                    refused += 1;
                }
                Value::Array(numbers) => {
                    let numbers: Vec<i64> = redis::from_redis_value(Value::Array(numbers)).unwrap();
                    let [changed, capacity, remaining] = numbers[..] else { panic!("{numbers:?}") };
                    assert!((0..=1).contains(&changed), "{numbers:?}");
                    assert!((1..=1_000_000_000_000).contains(&capacity), "{numbers:?}");
                    assert!((0..=capacity).contains(&remaining), "{numbers:?}");
                    merged += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(merged > BLOBS / 100 && refused > BLOBS / 100, "{merged} merged, {refused} refused");
    // What came of it are buckets.
    for key in 0..20 {
        let answer = ints(conn, &format!("CL.TAKE k{key} 1"));
        assert!(answer[0] <= 1 && answer[2] <= answer[1], "{answer:?}");
        let blob = state(conn, &format!("k{key}"));
        assert_eq!(merge_state(conn, &format!("k{key}"), &[blob], "weighted")[0], 0);
    }
    assert!(server.is_alive());
    assert_eq!(server.warnings(), Vec::<String>::new());
}

fn damaged(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    if random.below(10) == 0 {
        let length = random.below(200);
        return (0..length).map(|_| random.next() as u8).collect();
    }
    let mut blob = random.pick(seeds).clone();
    for _ in 0..=random.below(3) {
        let at = usize::try_from(random.below(blob.len().max(1) as u64)).unwrap();
        let byte = random.next() as u8;
        match random.below(8) {
            0 if !blob.is_empty() => blob[at] ^= 1 << (byte % 8),
            1 if !blob.is_empty() => blob[at] = byte,
            2 => blob.insert(at, byte),
            3 if !blob.is_empty() => drop(blob.remove(at)),
            4 => blob.truncate(at),
            5 => {
                let piece = random.pick(seeds);
                let from = usize::try_from(random.below(piece.len() as u64)).unwrap();
                blob.extend_from_slice(&piece[from..]);
            }
            // Only a number: what comes of it is often a state.
            _ if !blob.is_empty() => {
                let number = blob.iter().rposition(|b| *b >= 0xcc).unwrap_or(at);
                let at = (number + 1 + at % 8).min(blob.len() - 1);
                blob[at] = byte;
            }
            _ => {}
        }
    }
    blob
}

// Functions.

/// Functions that do what they must not, and a few that are odd but right.
const BAD: &str = r"#!lua name=bad
local function pack(...) return cmsgpack.pack(...) end
local function register(name, callback, flags)
  redis.register_function({
    function_name = name, callback = callback, flags = flags or {'no-writes'}
  })
end
register('raises', function() error('no luck') end)
register('replies', function() return redis.error_reply('SORRY not today') end)
register('text', function() return 'hello' end)
register('number', function() return 5 end)
register('nothing', function() return nil end)
register('empty', function() return '' end)
register('list', function() return pack({1, 2}) end)
register('no_tokens', function() return pack({timestamp = 1}) end)
register('nan', function() return pack({tokens = 0/0}) end)
register('infinite', function() return pack({tokens = 1/0}) end)
register('negative', function() return pack({tokens = -1}) end)
register('above', function() return pack({tokens = 1000.000001}) end)
register('far_above', function() return pack({tokens = 1e300}) end)
register('tokens_text', function() return pack({tokens = '5'}) end)
register('weight_0', function() return pack({tokens = 5, userWeight = 0}) end)
register('weight_11', function() return pack({tokens = 5, userWeight = 11}) end)
register('weight_half', function() return pack({tokens = 5, userWeight = 1.5}) end)
register('weight_text', function() return pack({tokens = 5, userWeight = '2'}) end)
register('time_text', function() return pack({tokens = 5, timestamp = 'now'}) end)
register('time_negative', function() return pack({tokens = 5, timestamp = -1}) end)
register('time_far', function(_, args)
  return pack({tokens = 5, timestamp = cmsgpack.unpack(args[1]).now + 31 * 86400e6})
end)
register('huge', function() return string.rep('x', 1000000) end)
register('deep', function() return string.rep('\145', 100000) end)
register('may_write', function() return pack({tokens = 5}) end, {})
register('does_write', function() redis.call('SET', 'x', '1') return pack({tokens = 5}) end)
register('verifies', function() return redis.call('CL.VERIFY', 'fn:verifies', 'SAMPLES', '1') end)
register('loop', function() while true do end end)
register('average', function(_, args)
  local a, b = cmsgpack.unpack(args[1]), cmsgpack.unpack(args[2])
  return pack({tokens = (a.available + b.available) / 2})
end)
register('sum', function(_, args)
  local a, b = cmsgpack.unpack(args[1]), cmsgpack.unpack(args[2])
  return pack({tokens = a.available + b.available})
end)
register('first', function(_, args)
  local a = cmsgpack.unpack(args[1])
  return pack({tokens = a.tokens, timestamp = a.timestamp, userWeight = a.userWeight})
end)
register('seen', function(_, args)
  local a, b = cmsgpack.unpack(args[1]), cmsgpack.unpack(args[2])
  local function text(t)
    local names = {}
    for name in pairs(t) do names[#names + 1] = name end
    table.sort(names)
    for i, name in ipairs(names) do
      names[i] = name .. '=' .. (name == 'now' and type(t.now) or string.format('%.15g', t[name]))
    end
    return table.concat(names, ' ')
  end
  error(text(a) .. ' | ' .. text(b) .. ' |')
end)
";

#[test]
fn what_functions_return_is_checked() {
    let server = still_server();
    let conn = &mut server.connection();
    load(conn, BAD);
    run(conn, &["HSET k tokens 7 timestamp 1", "HSET s tokens 3 timestamp 1 userWeight 2"]);
    let no_number = "it returned tokens that are no number of 0 or more";
    let no_weight = "it returned a userWeight that is not 1 to 10";
    let no_record = "it did not return cmsgpack.pack of a table";
    let no_time = "it returned a timestamp that is no unix microseconds";
    #[rustfmt::skip]
    let table = [
        ("missing",       "Function not found"),
        ("raises",        "no luck"),
        ("replies",       "SORRY not today"),
        ("text",          no_record),
        ("number",        "it returned something else than a string"),
        ("nothing",       "it returned something else than a string"),
        ("empty",         no_record),
        ("list",          no_record),
        ("huge",          no_record),
        ("deep",          no_record),
        ("no_tokens",     "it returned no tokens"),
        ("nan",           no_number),
        ("infinite",      no_number),
        ("negative",      no_number),
        ("tokens_text",   no_number),
        ("above",         "it returned more tokens than the capacity"),
        ("weight_0",      no_weight),
        ("weight_11",     no_weight),
        ("weight_half",   no_weight),
        ("weight_text",   no_weight),
        ("time_text",     no_time),
        ("time_negative", no_time),
        ("time_far",      no_time),
        ("may_write",     "Can not execute a script with write flag using *_ro command"),
        ("does_write",    "Write commands are not allowed from read-only scripts"),
        ("verifies",      "a strategy fn:NAME cannot be used inside a script or function"),
    ];
    for (name, why) in table {
        let text = refused_line(conn, &format!("CL.MERGE k FROM 1 s STRATEGY fn:{name}"));
        assert!(text.starts_with(&format!("ERR function '{name}': ")), "{name}: {text}");
        assert!(text.contains(why), "{name}: {text}");
        // The second source is refused as the first one is.
        refused_line(conn, &format!("CL.MERGE none FROM 2 s k STRATEGY fn:{name}"));
    }
    let text = refused_line(conn, "CL.MERGE k FROM 1 s STRATEGY fn:far_above");
    assert!(text.starts_with("ERR function 'far_above': it returned "), "{text}");
    assert_eq!(held(conn, "k"), "tokens 7");
    assert_eq!(int(conn, "EXISTS x none"), 0);
    assert!(server.is_alive());
    assert_eq!(server.warnings(), Vec::<String>::new());
}

#[test]
fn what_functions_are_given() {
    let server = still_server();
    let conn = &mut server.connection();
    load(conn, BAD);
    call(conn, &["HSET", "k", "tokens", "7.25", "timestamp", "1", "policy", "10 0.5/2000"])
        .unwrap();
    call(conn, &["HSET", "s", "tokens", "3", "timestamp", "2", "userWeight", "2"]).unwrap();
    let text = error(conn, "CL.MERGE k FROM 1 s STRATEGY fn:seen");
    let (_, seen) = text.split_once(": user_function:").expect(&text);
    let seen = seen.split_once(": ").expect(&text).1;
    let parts: Vec<&str> = seen.split(" |").collect();
    assert_eq!(
        parts[0],
        "available=10 capacity=10 interval=2000 now=number refill=0.5 timestamp=1 tokens=7.25 \
         userWeight=1"
    );
    assert_eq!(
        parts[1].trim(),
        "available=3 capacity=1000 interval=1000 now=number refill=0 timestamp=2 tokens=3 \
         userWeight=2"
    );
    // What is left out: the moment of the merge, and the greater weight.
    let before = now_us();
    run(conn, &["HSET a tokens 10 timestamp 1", "HSET b tokens 5 timestamp 1 userWeight 3"]);
    assert_eq!(ints(conn, "CL.MERGE a FROM 1 b STRATEGY fn:average"), [1, 1000, 7]);
    assert_eq!(held(conn, "a"), "tokens 7.5 userWeight 3");
    // The clock of Redis 7.0 has milliseconds.
    assert!(fields(conn, "a")["timestamp"].parse::<u64>().unwrap() >= before - 1_000);
    // The first of both, unchanged, is no change.
    let before = digest(conn);
    assert_eq!(ints(conn, "CL.MERGE a FROM 1 b STRATEGY fn:first"), [0, 1000, 7]);
    assert_eq!(digest(conn), before);
    // The policy is that of the winner, not the function's to choose.
    run(conn, &[&format!("HSET b timestamp {}", now_us() + 3_600_000_000)]);
    assert_eq!(ints(conn, "CL.MERGE b FROM 1 k STRATEGY fn:first"), [1, 10, 5]);
    assert_eq!(fields(conn, "b")["policy"], "10 0.5/2000");
}

/// What a double cannot hold exactly comes back as it was.
#[test]
fn functions_hand_on_what_they_do_not_touch() {
    let server = still_server();
    let conn = &mut server.connection();
    load(conn, BAD);
    for tokens in ["999999999999.999999", "123456789012.345679", "0.000001", "999999999999"] {
        run(conn, &["DEL k s"]);
        for key in ["k", "s"] {
            let policy = "1000000000000 0.3/700 pinned 1";
            let at = now_us() + 3_600_000_000;
            call(
                conn,
                &[
                    "HSET",
                    key,
                    "tokens",
                    tokens,
                    "timestamp",
                    &at.to_string(),
                    "policy",
                    policy,
                    "remainder",
                    "1260",
                ],
            )
            .unwrap();
        }
        run(conn, &["HSET s userWeight 2"]);
        let before = digest(conn);
        assert_eq!(ints(conn, "CL.MERGE k FROM 1 s STRATEGY fn:first")[0], 0, "{tokens}");
        assert_eq!(digest(conn), before, "{tokens}");
    }
}

#[test]
fn the_examples_merge() {
    let server = still_server();
    let conn = &mut server.connection();
    for file in ["published-weighted.lua", "premium-first.lua", "hard-ceiling.lua"] {
        load_example(conn, file);
    }
    #[rustfmt::skip]
    let table = [
        // function          k           s           k afterwards
        ("published_weighted", "200 1", "500 2", "tokens 400 userWeight 2"),
        ("published_weighted", "400 2", "500 2", "tokens 800 userWeight 2"),
        ("published_weighted", "800 2", "900 2", "tokens 1000 userWeight 2"),
        ("premium_first",      "200 1", "500 2", "tokens 500 userWeight 2"),
        ("premium_first",      "500 2", "200 1", "tokens 500 userWeight 2"),
        ("premium_first",      "500 2", "200 2", "tokens 200 userWeight 2"),
        ("hard_ceiling",       "200 1", "500 1", "tokens 100 userWeight 1"),
        ("hard_ceiling",       "200 1", "50 1",  "tokens 50 userWeight 1"),
        ("hard_ceiling",       "200 1", "50 2",  "tokens 50 userWeight 2"),
        ("hard_ceiling",       "200 1", "200 1", "tokens 200 userWeight 1"),
    ];
    for (function, k, s, expected) in table {
        run(conn, &["DEL k s"]);
        for (key, bucket) in [("k", k), ("s", s)] {
            let (tokens, weight) = bucket.split_once(' ').unwrap();
            run(conn, &[&format!("HSET {key} tokens {tokens} timestamp 1 userWeight {weight}")]);
        }
        run(conn, &[&format!("CL.MERGE k FROM 1 s STRATEGY fn:{function}")]);
        assert_eq!(held(conn, "k"), expected, "{function} of {k} and {s}");
    }
    // They are saved with the data, like any function.
    let dir = server.stop_saving();
    let server = dir.start();
    let conn = &mut server.connection();
    assert_eq!(ints(conn, "CL.MERGE k FIELDS tokens 9 timestamp 1 STRATEGY fn:hard_ceiling")[0], 1);
}

#[test]
fn a_function_that_does_not_end_can_be_killed() {
    let server = still_server();
    let conn = &mut server.connection();
    load(conn, BAD);
    run(conn, &["HSET k tokens 7 timestamp 1", "HSET s tokens 3 timestamp 1"]);
    run(conn, &["CONFIG SET busy-reply-threshold 20"]);
    let before = digest(conn);
    thread::scope(|scope| {
        let merging = scope.spawn(|| {
            let conn = &mut server.connection();
            conn.set_read_timeout(Some(PATIENCE)).unwrap();
            call(conn, &["CL.MERGE", "k", "FROM", "1", "s", "STRATEGY", "fn:loop"])
        });
        eventually(PATIENCE, TICK, "the function to be killed", || {
            cmd(conn, "FUNCTION KILL").is_ok()
        });
        let text = merging.join().unwrap().unwrap_err();
        assert!(text.starts_with("ERR function 'loop': ") && text.contains("killed"), "{text}");
    });
    assert_eq!(digest(conn), before);
    assert_eq!(ints(conn, "CL.MERGE k FROM 1 s STRATEGY min"), [1, 1000, 3]);
}

/// A function inside of a script crashes servers; it is refused before that.
#[test]
fn functions_in_scripts_are_refused_and_built_ins_are_not() {
    let server = still_server();
    let conn = &mut server.connection();
    load_example(conn, "premium-first.lua");
    load(
        conn,
        "#!lua name=relay\nredis.register_function('relay', function(_, words) \
         return redis.call(unpack(words)) end)",
    );
    run(conn, &["HSET k tokens 7 timestamp 1", "HSET s tokens 3 timestamp 1"]);
    let why = "a strategy fn:NAME cannot be used inside a script or function";
    let script = "return redis.call(unpack(ARGV))";
    for words in [
        &["CL.MERGE", "k", "FROM", "1", "s", "STRATEGY", "fn:premium_first"][..],
        &["CL.VERIFY", "fn:premium_first", "SAMPLES", "10"][..],
    ] {
        let eval = [&["EVAL", script, "0"][..], words].concat();
        let fcall = [&["FCALL", "relay", "0"][..], words].concat();
        for line in [eval, fcall] {
            let words: Vec<&[u8]> = line.iter().map(|word| word.as_bytes()).collect();
            let text = refused(conn, &words);
            assert!(text.contains(why), "{text}");
        }
    }
    // With the default strategy, too.
    run(conn, &["CONFIG SET claw.merge-strategy fn:premium_first"]);
    let text = call(conn, &["EVAL", script, "0", "CL.MERGE", "k", "FROM", "1", "s"]).unwrap_err();
    assert!(text.contains(why), "{text}");

    for how in [["EVAL", script], ["FCALL", "relay"]] {
        run(conn, &["HSET k tokens 7 timestamp 1"]);
        let words = ["0", "CL.MERGE", "k", "FROM", "1", "s", "STRATEGY", "min"];
        let answer = call(conn, &[&how[..], &words[..]].concat()).unwrap();
        assert_eq!(answer, Value::Array([1, 1000, 3].map(Value::Int).to_vec()), "{how:?}");
        assert_eq!(held(conn, "k"), "tokens 3");
        let verified = [&how[..], &["0", "CL.VERIFY", "min", "SAMPLES", "10"][..]].concat();
        assert!(call(conn, &verified).is_ok());
    }
    assert!(server.is_alive());
}

#[test]
fn transactions() {
    let server = still_server();
    let conn = &mut server.connection();
    load_example(conn, "premium-first.lua");
    run(conn, &["HSET k tokens 7 timestamp 1", "HSET s tokens 3 timestamp 1"]);
    run(conn, &["MULTI", "CL.MERGE k FROM 1 s STRATEGY fn:premium_first", "CL.TAKE k 1"]);
    run(conn, &["CL.MERGE k FROM 1 none STRATEGY min", "CL.MERGE k FROM 1 s STRATEGY fn:nope"]);
    run(conn, &["CL.STATE none", "CL.VERIFY fn:premium_first SAMPLES 10"]);
    let packed = redis::cmd("EXEC").get_packed_command();
    let Value::Array(answers) = conn.req_packed_command(&packed).unwrap() else {
        panic!("EXEC answers with an array");
    };
    assert_eq!(answers[0], Value::Array([1, 1000, 3].map(Value::Int).to_vec()));
    assert_eq!(answers[2], Value::Array([0, 1000, 2].map(Value::Int).to_vec()));
    assert!(matches!(&answers[3], Value::ServerError(_)), "{:?}", answers[3]);
    assert_eq!(answers[4], Value::Nil);
    assert!(matches!(&answers[5], Value::Array(_)));
    assert_eq!(held(conn, "k"), "tokens 2");
}

// Replication.

/// Replicas and the AOF get hash writes, and neither merges nor functions.
#[test]
fn only_effects_are_replicated() {
    let master = Server::builder().config("appendonly", "yes").start();
    let replica = Server::replica_of(&master).start();
    let conn = &mut master.connection();
    load_example(conn, "premium-first.lua");
    load_example(conn, "published-weighted.lua");
    let random = &mut Random(5);
    let mut changed = 0;
    for round in 0..200 {
        let now = now_us();
        let (dst, src) = (format!("d{}", round % 10), format!("s{}", round % 7));
        random_bucket(random, &src, now, false).exec(conn).unwrap();
        let strategy = *random.pick(&[
            "max",
            "min",
            "weighted",
            "lww",
            "fn:premium_first",
            "fn:published_weighted",
        ]);
        let mut answers = vec![
            ints(conn, &format!("CL.MERGE {dst} FROM 1 {src} STRATEGY {strategy}")),
            ints(
                conn,
                &format!("CL.MERGE {dst} FIELDS tokens 50 userWeight 2 STRATEGY {strategy}"),
            ),
        ];
        let mut blob = state(conn, &src);
        blob[0] += 1;
        blob.extend_from_slice(b"\xa5later\x01");
        answers.push(merge_state(conn, &dst, &[blob], strategy));
        changed += answers.iter().map(|answer| answer[0]).sum::<i64>();
    }
    assert!(changed > 100, "{changed}");
    run(conn, &["MULTI", "CL.MERGE d1 FROM 1 s1 STRATEGY fn:premium_first", "EXEC"]);
    // Nothing that is near its expiry is to vanish meanwhile.
    for key in ask::<Vec<String>>(conn, "KEYS *") {
        run(conn, &[&format!("PERSIST {key}")]);
    }
    wait_for_offset(&master, &replica);
    let other = &mut replica.connection();
    assert_eq!(digest(other), digest(conn));
    let stats: String = redis::cmd("INFO").arg("commandstats").query(other).unwrap();
    for command in ["cl.merge", "fcall"] {
        assert!(!stats.contains(&format!("cmdstat_{command}")), "{stats}");
    }
    assert!(stats.contains("cmdstat_hset"), "{stats}");
    // A replica reads and checks, and does not merge.
    assert!(error(other, "CL.MERGE d1 FROM 1 s1").starts_with("READONLY "));
    assert_eq!(cmd(other, "CL.STATE d1").unwrap(), cmd(conn, "CL.STATE d1").unwrap());
    assert!(cmd(other, "CL.VERIFY fn:premium_first SAMPLES 10").is_ok());
    assert_eq!(replica.warnings(), Vec::<String>::new());

    let mut aof = Vec::new();
    for entry in fs::read_dir(master.dir().join("appendonlydir")).unwrap() {
        let path = entry.unwrap().path();
        if path.to_str().unwrap().ends_with(".incr.aof") {
            aof.extend(fs::read(path).unwrap().to_ascii_lowercase());
        }
    }
    let has = |word: &str| aof.windows(word.len()).any(|window| window == word.as_bytes());
    assert!(has("hset") && !has("cl.merge") && !has("fcall"));
    let before = digest(conn);
    let master = master.restart();
    assert_eq!(digest(&mut master.connection()), before);
}

/// Merged buckets expire as taken ones do.
#[test]
fn merged_buckets_expire_like_others() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["CL.MERGE plain FIELDS tokens 400"]);
    // 600 are missing, 5 come a second: 120 s, half of that, and 2 s.
    let ttl = int(conn, "PTTL plain");
    assert!((120_000..=183_000).contains(&ttl), "{ttl}");
    for (field, value) in
        [("userWeight", "2"), ("policy", "500 0/1000"), ("policy", "100 5/1000 pinned 1")]
    {
        run(conn, &["DEL kept"]);
        call(conn, &["CL.MERGE", "kept", "FIELDS", "tokens", "400", field, value]).unwrap();
        assert_eq!(int(conn, "PTTL kept"), -1, "{field} {value}");
    }
    run(conn, &["HSET mine note hello", "CL.MERGE mine FIELDS tokens 400 STRATEGY min"]);
    assert_eq!(int(conn, "PTTL mine"), -1);
    // A weight that comes in by a merge keeps the key from then on.
    run(conn, &["CL.MERGE plain FIELDS tokens 1000 userWeight 3 STRATEGY weighted"]);
    assert_eq!(int(conn, "PTTL plain"), -1);
    // A state so old that it has long been full does not stay.
    run(conn, &["CL.MERGE old FIELDS tokens 1 timestamp 1"]);
    let ttl = int(conn, "PTTL old");
    assert!(ttl != -1 && ttl <= 4_000, "{ttl}");
}

// Access, Cluster, configuration.

#[test]
fn access_rules() {
    let server = still_server();
    let conn = &mut server.connection();
    load_example(conn, "premium-first.lua");
    run(conn, &["HSET dst:1 tokens 7 timestamp 1", "HSET src:1 tokens 3 timestamp 1"]);
    run(conn, &["HSET other tokens 1 timestamp 1"]);
    run(conn, &["ACL SETUSER plain on >p ~* +cl.merge +cl.verify"]);
    run(conn, &["ACL SETUSER caller on >p ~* +cl.merge +cl.verify +fcall_ro"]);
    run(conn, &["ACL SETUSER forbidden on >p ~* +@all -@scripting"]);
    run(conn, &["ACL SETUSER keys on >p ~dst:* %R~src:* +cl.merge +cl.state"]);
    let as_user = |name: &str| {
        let mut conn = server.connection();
        run(&mut conn, &[&format!("AUTH {name} p")]);
        conn
    };
    // Redis 7.0 says it in other words than later servers.
    let denied = |text: &str| {
        text.starts_with("ERR function 'premium_first': ")
            && (text.contains("NOPERM") || text.contains("acl verification failed"))
    };
    for name in ["plain", "forbidden"] {
        let user = &mut as_user(name);
        for line in [
            "CL.MERGE dst:1 FROM 1 src:1 STRATEGY fn:premium_first",
            "CL.VERIFY fn:premium_first SAMPLES 10",
        ] {
            let before = digest(conn);
            let text = error(user, line);
            assert!(denied(&text), "{name}: {text}");
            assert_eq!(digest(conn), before);
        }
        assert_eq!(ints(user, "CL.MERGE dst:1 FROM 1 src:1 STRATEGY max"), [0, 1000, 7]);
    }
    let caller = &mut as_user("caller");
    let line = "CL.MERGE dst:1 FROM 1 src:1 STRATEGY fn:premium_first";
    assert_eq!(ints(caller, line), [1, 1000, 3]);

    let keys = &mut as_user("keys");
    assert_eq!(ints(keys, "CL.MERGE dst:1 FROM 2 src:1 dst:1"), [0, 1000, 3]);
    for line in [
        "CL.MERGE src:1 FROM 1 dst:1",
        "CL.MERGE dst:1 FROM 1 other",
        "CL.MERGE dst:1 FROM 2 src:1 other",
        "CL.MERGE other FIELDS tokens 5",
        "CL.STATE other",
        "CL.VERIFY max",
    ] {
        assert!(error(keys, line).starts_with("NOPERM "), "{line}");
    }
    assert!(cmd(keys, "CL.STATE src:1").is_ok());
    // Redis 7.0 keeps modules out of its categories.
    for (category, command) in [("write", "CL.MERGE"), ("read", "CL.STATE"), ("read", "CL.VERIFY")]
    {
        let listed: Vec<String> = ask(conn, &format!("ACL CAT {category}"));
        let major: u32 = info_field(conn, "server", "redis_version")
            .and_then(|version| version.split('.').next().map(|n| n.parse().unwrap()))
            .unwrap();
        let expected = major >= 8 || info_field(conn, "server", "valkey_version").is_some();
        assert_eq!(listed.contains(&command.to_lowercase()), expected, "{command}");
    }
}

#[test]
fn keys_are_found_in_every_form() {
    let server = still_server();
    let conn = &mut server.connection();
    #[rustfmt::skip]
    let table: [(&str, &[&str]); 8] = [
        ("CL.MERGE d FROM 2 a b", &["d", "a", "b"]),
        ("CL.MERGE d from 2 a b strategy max", &["d", "a", "b"]),
        ("CL.MERGE d FROM 1 FROM", &["d", "FROM"]),
        ("CL.MERGE FROM FROM 1 STATE", &["FROM", "STATE"]),
        ("CL.MERGE d FIELDS tokens 5", &["d"]),
        ("CL.MERGE d FIELDS tokens 5 STRATEGY min", &["d"]),
        ("CL.MERGE d STATE x y", &["d"]),
        ("CL.STATE d", &["d"]),
    ];
    for (line, keys) in table {
        let found: Vec<String> = ask(conn, &format!("COMMAND GETKEYS {line}"));
        assert_eq!(found, keys, "{line}");
    }
    let flags: Vec<(String, Vec<String>)> =
        ask(conn, "COMMAND GETKEYSANDFLAGS CL.MERGE d FROM 1 a");
    assert_eq!(flags[0].0, "d");
    assert_eq!(flags[0].1[0], "RW");
    assert_eq!(flags[1].1[0], "RO");
}

#[test]
fn slots_of_a_cluster() {
    let server = Server::builder().config("cluster-enabled", "yes").start();
    let conn = &mut server.connection();
    run(conn, &["CLUSTER ADDSLOTSRANGE 0 16383"]);
    eventually(PATIENCE, TICK, "the cluster to be up", || {
        let info: String = ask(conn, "CLUSTER INFO");
        info.contains("cluster_state:ok")
    });
    load_example(conn, "premium-first.lua");
    run(conn, &["HSET {u}a tokens 5", "HSET {u}b tokens 3", "HSET other tokens 1"]);
    let crossed = "CROSSSLOT Keys in request don't hash to the same slot";
    for strategy in ["min", "fn:premium_first"] {
        let answer = ints(conn, &format!("CL.MERGE {{u}}a FROM 1 {{u}}b STRATEGY {strategy}"));
        assert_eq!(answer[1..], [1000, 3], "{strategy}");
        let line = format!("CL.MERGE {{u}}a FROM 2 {{u}}b other STRATEGY {strategy}");
        assert_eq!(error(conn, &line), crossed);
        assert_eq!(
            error(conn, &format!("CL.MERGE other FROM 1 {{u}}b STRATEGY {strategy}")),
            crossed
        );
    }
    // What is no key has no slot.
    assert_eq!(ints(conn, "CL.MERGE other FIELDS {u}a {u}b tokens 1")[1], 1000);
    let blob = state(conn, "{u}a");
    assert_eq!(merge_state(conn, "other", &[blob], "max")[1], 1000);
    assert!(cmd(conn, "CL.VERIFY fn:premium_first SAMPLES 10").is_ok());
}

#[test]
fn the_default_strategy_is_configured() {
    let server = still_server();
    let conn = &mut server.connection();
    load_example(conn, "premium-first.lua");
    let strategy = |conn: &mut Connection| -> String {
        let pair: Vec<String> = ask(conn, "CONFIG GET claw.merge-strategy");
        pair[1].clone()
    };
    assert_eq!(strategy(conn), "max");
    #[rustfmt::skip]
    let table = [
        ("min",              "min",              "tokens 100 userWeight 1"),
        ("WEIGHTED",         "weighted",         "tokens 200 userWeight 2"),
        ("max",              "max",              "tokens 900 userWeight 2"),
        ("lww",              "lww",              "tokens 100 userWeight 1"),
        ("fn:premium_first", "fn:premium_first", "tokens 900 userWeight 2"),
    ];
    for (value, shown, expected) in table {
        run(conn, &[&format!("CONFIG SET claw.merge-strategy {value}")]);
        assert_eq!(strategy(conn), shown);
        run(conn, &["DEL k", "HSET k tokens 100 timestamp 2 userWeight 1"]);
        run(conn, &["CL.MERGE k FIELDS tokens 900 timestamp 1 userWeight 2"]);
        assert_eq!(held(conn, "k"), expected, "{value}");
        // A call's own strategy comes first.
        run(conn, &["DEL k", "HSET k tokens 100 timestamp 2"]);
        run(conn, &["CL.MERGE k FIELDS tokens 900 timestamp 1 STRATEGY min"]);
        assert_eq!(held(conn, "k"), "tokens 100", "{value}");
    }
    for value in ["best", "fn:", "fn:a.b", "FN:x"] {
        let text = error(conn, &format!("CONFIG SET claw.merge-strategy {value}"));
        assert_eq!(
            text,
            format!(
                "ERR CONFIG SET failed (possibly related to argument 'claw.merge-strategy') - \
                 unknown strategy '{value}': max, min, weighted, lww, debit or fn:NAME"
            )
        );
        assert_eq!(strategy(conn), "fn:premium_first");
    }
    // It is written to the configuration file, and read from there.
    run(conn, &["CONFIG REWRITE"]);
    let server = server.restart();
    assert_eq!(strategy(&mut server.connection()), "fn:premium_first");
    // A module argument, good and bad. The function need not exist yet.
    let builder = || Server::builder().module_args(["merge-strategy", "fn:later"]);
    assert_eq!(strategy(&mut builder().start().connection()), "fn:later");
    let log = Server::builder().module_args(["merge-strategy", "best"]).try_start().unwrap_err();
    assert!(log.contains("module argument 'merge-strategy': unknown strategy 'best'"), "{log}");
}

#[test]
fn merges_are_counted() {
    let server = still_server();
    let conn = &mut server.connection();
    run(conn, &["HSET k tokens 5 timestamp 1", "SET text hello", "HSET bad tokens x"]);
    let counted = |conn: &mut Connection| {
        ["claw_merged", "claw_merge_errors", "claw_corrupt"]
            .map(|field| info_field(conn, "claw", field).unwrap().parse::<u64>().unwrap())
    };
    #[rustfmt::skip]
    let table = [
        ("CL.MERGE k FIELDS tokens 7 timestamp 1",        [1, 0, 0]),
        ("CL.MERGE k FIELDS tokens 7 timestamp 1",        [0, 0, 0]),
        ("CL.MERGE k FROM 1 none",                        [0, 0, 0]),
        ("CL.MERGE new FROM 1 k",                         [1, 0, 0]),
        ("CL.MERGE k FIELDS tokens x",                    [0, 1, 0]),
        ("CL.MERGE k FROM 1 text",                        [0, 1, 0]),
        ("CL.MERGE k FROM 1 bad",                         [0, 1, 1]),
        ("CL.MERGE k FROM 1 new STRATEGY fn:none",        [0, 1, 0]),
        ("CL.VERIFY min SAMPLES 10",                      [0, 0, 0]),
        ("CL.STATE k",                                    [0, 0, 0]),
        ("CL.STATE bad",                                  [0, 0, 1]),
    ];
    for (line, expected) in table {
        let before = counted(conn);
        let _ = cmd(conn, line);
        let after = counted(conn);
        assert_eq!([0, 1, 2].map(|i| after[i] - before[i]), expected, "{line}");
    }
}

// CL.VERIFY.

const LAWS: [&str; 5] =
    ["commutative", "associative", "idempotent", "inflationary", "within-capacity"];

/// The laws that are broken, each with its counterexample.
fn broken(conn: &mut Connection, line: &str) -> BTreeMap<String, Vec<String>> {
    let report: BTreeMap<String, Value> = ask(conn, line);
    LAWS.iter()
        .filter_map(|law| match &report[*law] {
            Value::BulkString(ok) if ok == b"ok" => None,
            lines => Some(((*law).to_owned(), redis::from_redis_value(lines.clone()).unwrap())),
        })
        .collect()
}

#[test]
fn what_verify_finds() {
    let server = Server::start();
    let conn = &mut server.connection();
    load(conn, BAD);
    for file in ["published-weighted.lua", "premium-first.lua", "hard-ceiling.lua"] {
        load_example(conn, file);
    }
    #[rustfmt::skip]
    let table: [(&str, &[&str]); 10] = [
        ("max",                   &["inflationary"]),
        ("min",                   &[]),
        ("weighted",              &[]),
        ("lww",                   &[]),
        ("fn:published_weighted", &["associative", "idempotent", "inflationary"]),
        ("fn:premium_first",      &[]),
        ("fn:hard_ceiling",       &[]),
        ("fn:average",            &["associative", "inflationary"]),
        ("fn:first",              &["commutative"]),
        ("fn:sum",                &["idempotent", "inflationary", "within-capacity"]),
    ];
    for (strategy, expected) in table {
        for seed in 0..3 {
            let found = broken(conn, &format!("CL.VERIFY {strategy} SEED {seed}"));
            assert_eq!(
                found.keys().map(String::as_str).collect::<Vec<_>>(),
                {
                    let mut sorted = expected.to_vec();
                    sorted.sort_unstable();
                    sorted
                },
                "{strategy} {found:#?}"
            );
        }
    }
    // More samples, and rates that leave remainders.
    for rate in ["5", "0.000007", "0", "333.333333"] {
        run(conn, &[&format!("CONFIG SET claw.refill-rate-per-sec {rate}")]);
        for strategy in ["min", "weighted", "lww"] {
            let found = broken(conn, &format!("CL.VERIFY {strategy} SAMPLES 20000 SEED 9"));
            assert!(found.is_empty(), "{rate} {strategy}: {found:#?}");
        }
    }
    // It writes nothing, and an error of a function is an error.
    assert_eq!(int(conn, "DBSIZE"), 0);
    for name in ["none", "raises", "nan", "may_write"] {
        let text = error(conn, &format!("CL.VERIFY fn:{name}"));
        assert!(text.starts_with(&format!("ERR function '{name}': ")), "{text}");
    }
}

#[test]
fn the_reply_of_verify() {
    let server = Server::start();
    let names = ["strategy", "samples", "seed"].into_iter().chain(LAWS);
    let names: Vec<Value> = names.map(|n| Value::BulkString(n.into())).collect();
    let Value::Map(pairs) =
        cmd(&mut server.connection_resp3(), "CL.VERIFY MAX SAMPLES 50 SEED 18446744073709551615")
            .unwrap()
    else {
        panic!("a map in RESP3");
    };
    assert_eq!(pairs.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), names);
    assert_eq!(pairs[0].1, Value::BulkString(b"max".to_vec()));
    assert_eq!(pairs[1].1, Value::Int(50));
    assert_eq!(pairs[2].1, Value::BulkString(b"18446744073709551615".to_vec()));
    let Value::Array(flat) = cmd(&mut server.connection(), "CL.VERIFY weighted").unwrap() else {
        panic!("an array in RESP2");
    };
    assert_eq!(flat.iter().step_by(2).cloned().collect::<Vec<_>>(), names);
    assert_eq!(flat[1], Value::BulkString(b"weighted".to_vec()));
    assert_eq!(flat[3], Value::Int(2000));
    assert_eq!(flat[5], Value::BulkString(b"0".to_vec()));
    assert!(flat[7..].iter().step_by(2).all(|v| *v == Value::BulkString(b"ok".to_vec())));
}

/// The same seed, the same counterexamples, but for the moment they are dated to.
#[test]
fn a_seed_decides_everything() {
    let server = Server::start();
    let conn = &mut server.connection();
    load(conn, BAD);
    load_example(conn, "published-weighted.lua");
    // Timestamps as their distance from the first one.
    let dateless = |found: BTreeMap<String, Vec<String>>| {
        let text = format!("{found:#?}");
        let number = |word: &str| word.parse::<u64>().ok().filter(|n| *n > 1_000_000_000_000_000);
        let words: Vec<&str> = text.split([' ', '"']).collect();
        let first = words.iter().find_map(|word| number(word)).unwrap_or(0) as i64;
        let dated = |word: &&str| match number(word) {
            Some(n) => format!("t{:+}", n as i64 - first),
            None => (*word).to_owned(),
        };
        words.iter().map(dated).collect::<Vec<_>>().join(" ")
    };
    let mut report = || {
        let mut reports = Vec::new();
        for strategy in ["max", "fn:published_weighted", "fn:average", "fn:sum", "fn:first"] {
            for seed in [0, 7] {
                let found = broken(conn, &format!("CL.VERIFY {strategy} SEED {seed}"));
                assert!(!found.is_empty(), "{strategy}");
                reports.push(dateless(found));
            }
        }
        reports
    };
    let first = report();
    // The next second, so that the dates differ.
    let second = now_us() / 1_000_000;
    eventually(PATIENCE, TICK, "the next second", || now_us() / 1_000_000 > second);
    assert_eq!(report(), first);
}

/// The commands of a counterexample, typed again, do what is printed, and the
/// difference shows.
#[test]
fn counterexamples_can_be_retyped() {
    // Without refill, a merge some seconds later gives the same.
    let server = still_server();
    let conn = &mut server.connection();
    load(conn, BAD);
    load_example(conn, "published-weighted.lua");
    let mut retyped = 0;
    for strategy in ["max", "fn:published_weighted", "fn:average", "fn:sum", "fn:first"] {
        for seed in 0..5 {
            for (law, lines) in broken(conn, &format!("CL.VERIFY {strategy} SEED {seed}")) {
                run(conn, &["FLUSHALL"]);
                let place = format!("{strategy} {law}: {lines:#?}");
                let mut last: Option<Result<Value, String>> = None;
                for line in &lines {
                    let Some(told) = line.strip_prefix("# ") else {
                        let words: Vec<&str> = line.split(' ').collect();
                        last = Some(call(conn, &words));
                        continue;
                    };
                    let result = last.take().expect("a command before the remark");
                    match told.split_once(" is ") {
                        None => {
                            assert_eq!(told, "more tokens than the capacity");
                            let text = result.expect_err(&place);
                            assert!(text.ends_with(told), "{text}");
                        }
                        Some((key, told)) => {
                            result.unwrap_or_else(|text| panic!("{text}: {place}"));
                            let got = tokens_and_weight(conn, key);
                            let told: Vec<&str> = told.split(' ').collect();
                            assert_eq!(got, (told[1].to_owned(), told[5].to_owned()), "{place}");
                        }
                    }
                }
                let pair = match law.as_str() {
                    "commutative" => Some(("ab", "ba")),
                    "associative" => Some(("left", "right")),
                    "idempotent" => Some(("aa", "a")),
                    _ => None,
                };
                if let Some((one, other)) = pair {
                    let [one, other] = [one, other].map(|key| tokens_and_weight(conn, key));
                    assert_ne!(one, other, "{place}");
                }
                if law == "inflationary" {
                    let [a, ab] = ["a", "ab"].map(|key| {
                        tokens_and_weight(conn, key).0.parse::<f64>().expect("a number")
                    });
                    assert!(ab > a, "{place}");
                }
                retyped += 1;
            }
        }
    }
    assert!(retyped >= 40, "{retyped}");
}

fn tokens_and_weight(conn: &mut Connection, key: &str) -> (String, String) {
    let fields = fields(conn, key);
    let weight = fields.get("userWeight").cloned().unwrap_or_else(|| "1".into());
    (fields["tokens"].clone(), weight)
}
