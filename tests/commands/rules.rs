//! Limits by key pattern: `claw.policies`.

use crate::buckets::clock;
use crate::calls::{five, policy, takeall};
use claw_testkit::{Server, ask, fields, int, ints, run};

const RULES: &str = "api:* 100 0/1000; api:vip:* 500 0/1000; login:bob 3 0/1000; off:* 0 1/1000";

fn start() -> Server {
    Server::builder().config_args("claw.policies", [RULES]).start()
}

fn set(conn: &mut redis::Connection, rules: &str) {
    claw_testkit::call(conn, &["CONFIG", "SET", "claw.policies", rules]).unwrap();
}

/// Where the policy comes from, and its capacity, by both forms.
fn source(conn: &mut redis::Connection, key: &str) -> (String, i64) {
    let of = |conn: &mut redis::Connection, command: &str| {
        let reply: std::collections::HashMap<String, redis::Value> =
            ask(conn, &format!("{command} {key}"));
        let source: String = redis::from_redis_value(reply["source"].clone()).unwrap();
        let capacity: i64 = redis::from_redis_value(reply["capacity"].clone()).unwrap();
        (source, capacity)
    };
    let found = of(conn, "CL.POLICY");
    assert_eq!(of(conn, "CL.POLICY_RO"), found, "{key}");
    found
}

#[test]
fn the_longest_prefix_counts_and_the_key_itself_more() {
    let server = start();
    let conn = &mut server.connection();
    let rows = [
        ("api:", "rule", 100),
        ("api:ann", "rule", 100),
        ("api:vip:ann", "rule", 500),
        ("api:vip", "rule", 100),
        ("login:bob", "rule", 3),
        ("login:bobby", "default", 1_000),
        ("page:ann", "default", 1_000),
    ];
    for (key, from, capacity) in rows {
        assert_eq!(source(conn, key), (from.into(), capacity), "{key}");
        assert_eq!(five(conn, &format!("CL.PEEK {key}"))[1], capacity, "{key}");
        assert_eq!(five(conn, &format!("CL.TAKE {key} 2"))[..3], [2, capacity, capacity - 2]);
        assert_eq!(int(conn, &format!("HLEN {key}")), 2, "{key} stores no policy");
    }
}

/// Pinned, else the call's, else the rule, else the bucket's own.
#[test]
fn the_order_of_policies() {
    let server = start();
    let conn = &mut server.connection();
    // What is called, and what it leaves: where the policy comes from, capacity, and the field.
    let rows = [
        ("CL.TAKE api:k 10", "rule", 100, None),
        ("CL.TAKE api:k 10 CAPACITY 90 REFILL 0", "rule", 100, Some("90 0/1000")),
        ("CL.GIVE api:k 5", "rule", 100, Some("90 0/1000")),
        ("CL.PEEK api:k", "rule", 100, Some("90 0/1000")),
        ("CL.TAKE api:k 0", "rule", 100, Some("90 0/1000")),
        ("CL.TAKE api:k 1000", "rule", 100, None),
        ("CL.TAKEALL api:k 1 CAPACITY 90 REFILL 0", "rule", 100, Some("90 0/1000")),
        ("CL.TAKEALL api:k 1", "rule", 100, None),
        ("CL.THROTTLE api:k 8 1 3600", "rule", 100, Some("9 1/3600000")),
        ("CL.SETTLE api:k 0 1", "rule", 100, None),
        ("CL.TAKE api:k 1 REFILL 7", "rule", 100, Some("7 7/1000")),
        ("CL.POLICY api:k CAPACITY 70", "pin", 70, Some("70 0/1000 pinned 1")),
        ("CL.TAKE api:k 1 REFILL 7", "pin", 70, Some("70 0/1000 pinned 1")),
        ("CL.TAKE api:k 1", "pin", 70, Some("70 0/1000 pinned 1")),
        ("CL.POLICY api:k RESET", "rule", 100, None),
        ("CL.POLICY api:k CAPACITY 60 FOR 3600000", "pin", 60, None),
        ("CL.TAKE api:k 1 REFILL 7", "pin", 60, Some("7 7/1000")),
        ("CL.TAKE api:k 1", "pin", 60, None),
    ];
    for (line, from, capacity, stored) in rows {
        ask::<redis::Value>(conn, line);
        assert_eq!(source(conn, "api:k"), (from.into(), capacity), "`{line}`");
        let field = fields(conn, "api:k").get("policy").cloned();
        assert_eq!(field.as_deref(), stored, "`{line}`");
    }
    // CL.POLICY changes a part of the rule, and not of what a call brought.
    run(conn, &["CL.TAKE api:p 1 REFILL 7 INTERVAL 5", "CL.POLICY api:p CAPACITY 9"]);
    assert_eq!(policy(conn, "CL.POLICY api:p"), (9, "0".into(), 1_000, 1, 1));
    // A call's answer to all of several keys: each under its own.
    let (taken, _, answers) = takeall(conn, "CL.TAKEALL api:a 1 AND page:a 1 AND login:bob 1");
    assert_eq!(taken, 1);
    assert_eq!(answers.iter().map(|five| five[1]).collect::<Vec<_>>(), [100, 1_000, 3]);
}

/// A rule of 0 blocks for good, a bucket that there was too.
#[test]
fn a_rule_of_nothing_blocks() {
    let server = start();
    let conn = &mut server.connection();
    assert_eq!(five(conn, "CL.TAKE off:k"), [0, 0, 0, -1, 0]);
    assert_eq!(int(conn, "EXISTS off:k"), 0);
    run(conn, &["CL.TAKE page:k 10"]);
    set(conn, "page:* 0 0/1000");
    assert_eq!(five(conn, "CL.TAKE page:k")[..4], [0, 0, 0, -1]);
    set(conn, "");
    assert_eq!(five(conn, "CL.TAKE off:k")[..3], [1, 1_000, 999]);
}

/// The time before a change is credited at what held then.
#[test]
fn a_changed_rule_credits_the_time_before_at_the_old_rate() {
    let server = Server::builder().config_args("claw.policies", ["api:* 100 1/1000"]).start();
    let conn = &mut server.connection();
    let past = clock(conn) - 10_000_000;
    for key in ["api:k", "api:cut", "api:stored", "page:k"] {
        run(conn, &[&format!("HSET {key} tokens 0 timestamp {past}")]);
    }
    claw_testkit::call(conn, &["HSET", "api:stored", "policy", "100 3/1000"]).unwrap();
    set(conn, "api:* 100 0/1000; api:cut 4 0/1000; page:* 9 0/1000");
    set(conn, "api:* 200 0/1000; page:* 80 0/1000");
    // 10 s at 1 a second, and little more for the time until the change.
    let rows = [
        ("api:k", 200, 10..=13),
        ("api:cut", 200, 4..=4),
        // At 5 a second, the default, and then cut.
        ("page:k", 80, 9..=9),
        // What a call had stored counts until a call without a policy.
        ("api:stored", 200, 30..=60),
    ];
    for (key, capacity, tokens) in rows {
        let reply = five(conn, &format!("CL.PEEK {key} 0"));
        assert_eq!(reply[1], capacity, "{key}");
        assert!(tokens.contains(&reply[2]), "{key}: {reply:?}");
    }
}

#[test]
fn merges_know_the_rule() {
    let server = start();
    let conn = &mut server.connection();
    let state = |conn: &mut redis::Connection, key: &str| -> Vec<u8> {
        ask(conn, &format!("CL.STATE {key}"))
    };
    run(conn, &["CL.TAKE api:k 40"]);
    let ruled = state(conn, "api:k");
    // A state without a policy is one of the key that it comes to.
    let words: [&[u8]; 5] = [b"CL.MERGE", b"page:k", b"STATE", &ruled, b"STRATEGY"];
    let merge = [&words[..], &[b"min"]].concat();
    assert_eq!(ints_of(claw_testkit::call_bytes(conn, &merge)), [1, 1_000, 60]);
    let rows = [
        // Of another key: its tokens, under what holds here.
        ("CL.MERGE login:bob FROM 1 api:k STRATEGY min", [1, 3, 3]),
        ("CL.MERGE api:new FROM 1 page:k STRATEGY min", [1, 100, 60]),
        ("CL.MERGE api:vip:k FROM 2 api:k page:k STRATEGY min", [1, 500, 60]),
        ("CL.MERGE api:f FIELDS tokens 7 STRATEGY min", [1, 100, 7]),
        ("CL.MERGE api:none FROM 1 api:missing STRATEGY min", [0, 100, 100]),
    ];
    for (line, expected) in rows {
        assert_eq!(ints(conn, line), expected, "`{line}`");
        assert_eq!(ints(conn, line)[0], 0, "`{line}` again");
    }
    // With a policy it is as a call left it, until the next call without.
    let words = ["CL.MERGE", "api:p", "FIELDS", "tokens", "7", "policy", "50 0/1000"];
    assert_eq!(ints_of(claw_testkit::call(conn, &words)), [1, 50, 7]);
    assert_eq!(five(conn, "CL.TAKE api:p 1")[..3], [1, 100, 6]);
    assert_eq!(int(conn, "HEXISTS api:p policy"), 0);
}

fn ints_of(reply: Result<redis::Value, String>) -> Vec<i64> {
    redis::from_redis_value(reply.unwrap()).unwrap()
}

/// A key expires when it is full under its rule.
#[test]
fn a_bucket_expires_when_it_is_full_under_its_rule() {
    let server = Server::builder().config_args("claw.policies", ["slow:* 10 1/3600000"]).start();
    let conn = &mut server.connection();
    run(conn, &["CL.TAKE slow:k 10", "CL.TAKE k 10"]);
    assert!(int(conn, "TTL slow:k") >= 36_000);
    assert!(int(conn, "TTL k") < 60);
}
