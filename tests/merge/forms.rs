//! `CL.MERGE` in its three forms: what comes of it by each strategy.

use crate::calls::{PATIENCE, STRATEGIES, held, iso_now, merge_state, now_us, state, still_server};
use claw_testkit::{Server, call, cmd, fields, int, ints, run};
use redis::{Connection, Value};
use std::time::Duration;

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
