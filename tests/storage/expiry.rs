//! How long a bucket lives.

use crate::buckets::micros;
use claw_testkit::{Server, eventually, fields, info_field, int, run};
use redis::{Cmd, Connection};
use std::time::Duration;

/// When the bucket is full, and how long that takes from its timestamp, in
/// microseconds.
fn full_at(conn: &mut Connection, key: &str) -> (u128, u128) {
    let found = fields(conn, key);
    let words: Vec<&str> = found["policy"].split([' ', '/']).collect();
    let missing = match found["tokens"].strip_prefix('-') {
        Some(owed) => micros(words[0]) + micros(owed),
        None => micros(words[0]) - micros(&found["tokens"]),
    };
    let interval_us = words[2].parse::<u128>().unwrap() * 1000;
    let rest = found.get("remainder").map_or(0, |rest| rest.parse::<u128>().unwrap());
    // The remainder is over 2520 times the interval.
    let wait = (missing * interval_us).saturating_sub(rest / 2520).div_ceil(micros(words[1]));
    (found["timestamp"].parse::<u128>().unwrap() + wait, wait)
}

#[test]
fn a_bucket_expires_some_time_after_it_is_full() {
    let server = Server::start();
    let conn = &mut server.connection();
    let rows = [
        "1 CAPACITY 1000 REFILL 5",
        "1000 CAPACITY 1000 REFILL 5",
        "1 CAPACITY 1 REFILL 1 INTERVAL 1",
        "3 CAPACITY 10 REFILL 0.3",
        "10 CAPACITY 10 REFILL 7 INTERVAL 3000",
        "1 CAPACITY 2 REFILL 1 INTERVAL 31622400000",
        "1 CAPACITY 2 REFILL 0.00001 INTERVAL 31622400000",
        "1000000000000 CAPACITY 1000000000000 REFILL 1000000000000 INTERVAL 1",
        "1000000000000 CAPACITY 1000000000000 REFILL 1",
    ];
    for args in rows {
        for name in ["CL.TAKE k", "CL.TAKEALL k"] {
            run(conn, &["DEL k", &format!("{name} {args}")]);
            let (full, wait) = full_at(conn, "k");
            let expires = u128::try_from(int(conn, "PEXPIRETIME k")).expect("an expiry");
            let latest = (full + wait / 2 + 2_000_000).div_ceil(1000);
            assert_eq!(expires, latest, "{name} {args}");
        }
    }
    // A debt has to be paid before the bucket can be full.
    for args in [
        "0 2000 CAPACITY 1000 REFILL 5",
        "3 5 CAPACITY 1 REFILL 1 INTERVAL 1",
        "0 20 CAPACITY 10 REFILL 0.3",
        "0 2000000000000 CAPACITY 1000000000000 REFILL 1",
    ] {
        let args = args.replace("0 2000000000000", "0 1000000000000");
        run(conn, &["DEL k", &format!("CL.SETTLE k {args}")]);
        let (full, wait) = full_at(conn, "k");
        let expires = u128::try_from(int(conn, "PEXPIRETIME k")).expect("an expiry");
        assert_eq!(expires, (full + wait / 2 + 2_000_000).div_ceil(1000), "CL.SETTLE k {args}");
    }
    // Half a million years are for ever.
    for args in [
        "1000000000000 CAPACITY 1000000000000 REFILL 0.000001 INTERVAL 31622400000",
        "1 CAPACITY 2 REFILL 0.000001 INTERVAL 31622400000",
    ] {
        run(conn, &["DEL k", &format!("CL.TAKE k {args}")]);
        assert_eq!(int(conn, "PTTL k"), -1, "{args}");
    }
}

#[test]
fn what_has_to_be_remembered_does_not_expire() {
    let server = Server::start();
    let conn = &mut server.connection();
    // Each line of a group on the same key, and whether it then expires.
    let rows: &[&[(&str, bool)]] = &[
        &[
            ("CL.TAKE k", true),
            ("CL.POLICY k CAPACITY 50", false),
            ("CL.TAKE k 7", false),
            ("CL.GIVE k", false),
            ("CL.POLICY k RESET", true),
        ],
        &[
            ("CL.TAKE k", true),
            ("CL.POLICY k WEIGHT 2", false),
            ("CL.TAKE k 7 CAPACITY 90 REFILL 5", false),
            ("CL.POLICY k WEIGHT 1", true),
            ("CL.POLICY k WEIGHT 10", false),
            ("CL.POLICY k RESET", true),
        ],
        &[
            ("CL.TAKE k", true),
            ("CL.TAKE k CAPACITY 50 REFILL 0", false),
            ("CL.TAKE k CAPACITY 50 REFILL 0", false),
            // Full, it never was to go by itself.
            ("CL.GIVE k 2", false),
            ("CL.TAKE k CAPACITY 50 REFILL 1", true),
        ],
        &[
            ("CL.THROTTLE k 15 30 60", true),
            ("CL.THROTTLE k 15 30 60 -1", true),
            ("CL.POLICY k REFILL 0", false),
        ],
        &[("CL.POLICY k CAPACITY 5", false)],
        &[("CL.POLICY k WEIGHT 5", false)],
        &[("CL.TAKEALL k", true), ("CL.TAKEALL k CAPACITY 9 REFILL 0", false)],
        &[("HSET k userWeight 3 tokens 5", false), ("CL.TAKE k", false)],
        &[("HSET k userWeight 1 tokens 5", false), ("CL.TAKE k", true)],
    ];
    for group in rows {
        run(conn, &["DEL k"]);
        for (line, expected) in *group {
            // Together, since a full bucket may expire in two seconds.
            let mut command = Cmd::new();
            line.split(' ').for_each(|word| {
                command.arg(word);
            });
            let mut pipe = redis::pipe();
            let pipe = pipe.atomic().add_command(command).ignore().exists("k").pttl("k");
            let (exists, expires): (i64, i64) = pipe.query(conn).unwrap();
            assert_eq!(exists, 1, "{group:?}, `{line}`");
            assert_eq!(expires > 0, *expected, "{group:?}, `{line}`: {expires}");
        }
    }
}

#[test]
fn an_expiry_set_by_hand_is_repaired_by_the_next_granted_take() {
    let server = Server::start();
    let conn = &mut server.connection();
    let options = "CAPACITY 1000 REFILL 1";
    let take = format!("CL.TAKE k 1 {options}");
    for by_hand in ["PERSIST k", "PEXPIRE k 9999999999", "PEXPIRE k 100000"] {
        run(conn, &["DEL k", &format!("CL.TAKE k 500 {options}"), by_hand]);
        let set = int(conn, "PEXPIRETIME k");
        run(conn, &[&format!("CL.TAKE k 1000 {options}"), &format!("CL.PEEK k 1 {options}")]);
        assert_eq!(int(conn, "PEXPIRETIME k"), set, "{by_hand}: a refusal writes nothing");
        for repair in [take.as_str(), "CL.GIVE k 1"] {
            run(conn, &[by_hand, repair]);
            let (full, wait) = full_at(conn, "k");
            let expires = u128::try_from(int(conn, "PEXPIRETIME k")).expect("an expiry");
            let latest = (full + wait / 2 + 2_000_000).div_ceil(1000);
            assert_eq!(expires, latest, "{by_hand}, {repair}");
        }
    }
    // An expiry put on a bucket that has to be kept goes.
    run(conn, &["CL.POLICY pinned CAPACITY 5", "PEXPIRE pinned 100000", "CL.TAKE pinned"]);
    assert_eq!(int(conn, "PTTL pinned"), -1);
    // A sound one stays where it is: not every take moves it.
    run(conn, &["DEL k", &format!("CL.TAKE k 500 {options}")]);
    let set = int(conn, "PEXPIRETIME k");
    run(conn, &[&take]);
    assert_eq!(int(conn, "PEXPIRETIME k"), set);
}

/// What never refills would never go. Whoever wants it to says so, and no call takes that back.
#[test]
fn a_bucket_that_never_refills_keeps_the_expiry_of_its_user() {
    let server = Server::start();
    let conn = &mut server.connection();
    let at = 33_333_333_333_333;
    for begin in [
        "CL.TAKE k 2 CAPACITY 10 REFILL 0",
        "CL.POLICY k CAPACITY 10 REFILL 0",
        "CL.SETTLE k 0 12 CAPACITY 10 REFILL 0",
        "HSET k tokens 4 policy 10~0/1000",
    ] {
        let begin: Vec<String> = begin.split(' ').map(|word| word.replace('~', " ")).collect();
        run(conn, &["DEL k"]);
        claw_testkit::call(conn, &begin).unwrap();
        assert_eq!(int(conn, "PEXPIRETIME k"), -1, "{begin:?}");
        run(conn, &[&format!("PEXPIREAT k {at}")]);
        for line in [
            "CL.TAKE k",
            "CL.TAKE k 99",
            "CL.GIVE k 3",
            "CL.SETTLE k 5 6",
            "CL.SETTLE k 0 99",
            "CL.TAKEALL k AND k",
            "CL.GIVE k 99",
            "CL.TAKE k 1 CAPACITY 20 REFILL 0",
            "CL.POLICY k CAPACITY 5",
            "CL.POLICY k WEIGHT 3",
            "CL.POLICY k CAPACITY 6 REFILL 0 INTERVAL 7",
            "CL.TAKE k",
            "HSET k mine 1",
            "CL.TAKE k",
            // Whether it still holds or has ended.
            "CL.POLICY k CAPACITY 0 FOR 60000",
            "CL.GIVE k 1",
            "CL.POLICY k CAPACITY 9 REFILL 5 FOR 1",
            "CL.GIVE k 1",
            "CL.TAKE k",
        ] {
            run(conn, &[line]);
            assert_eq!(int(conn, "PEXPIRETIME k"), at, "{begin:?}, {line}");
        }
    }
    // Its own, from the time when it refilled, it loses once.
    run(conn, &["DEL k", "CL.TAKE k 5 CAPACITY 10 REFILL 1"]);
    assert!(int(conn, "PTTL k") > 0);
    run(conn, &["CL.TAKE k 1 CAPACITY 10 REFILL 0"]);
    assert_eq!(int(conn, "PTTL k"), -1);
    run(conn, &[&format!("PEXPIREAT k {at}"), "CL.TAKE k"]);
    assert_eq!(int(conn, "PEXPIRETIME k"), at);
    // And has one again when it refills again.
    run(conn, &["CL.TAKE k 1 CAPACITY 10 REFILL 1"]);
    assert!((1..100_000).contains(&int(conn, "PTTL k")));
}

#[test]
fn no_bucket_expires_before_it_is_full() {
    let server = Server::start();
    let conn = &mut server.connection();
    let options = "CAPACITY 1000 REFILL 100";
    run(conn, &[&format!("CL.TAKE k 1 {options}")]);
    for take in [1, 5, 400, 1, 50, 1, 300, 1, 1, 1, 100, 1] {
        run(conn, &[&format!("CL.TAKE k {take} {options}")]);
        let (full, _) = full_at(conn, "k");
        let expires = u128::try_from(int(conn, "PEXPIRETIME k")).expect("an expiry");
        assert!(expires >= full.div_ceil(1000), "after {take}: {expires} {full}");
        // And not much later than an empty one would.
        assert!(expires <= full / 1000 + 20_000, "after {take}: {expires} {full}");
    }
}

#[test]
fn idle_buckets_go_by_themselves() {
    let server = Server::start();
    let conn = &mut server.connection();
    let fast = "CAPACITY 10 REFILL 2000 INTERVAL 7";
    for n in 0..200 {
        for line in [
            format!("CL.TAKE a{n} 5 CAPACITY 10 REFILL 1000"),
            format!(
                "CL.TAKEALL b{n} {fast} AND c{n} {fast} AND d{n} CAPACITY 30 REFILL 9 INTERVAL 1"
            ),
            format!("CL.THROTTLE e{n} 5 1000 1"),
            format!("CL.TAKE f{n} 6 CAPACITY 10 REFILL 5 INTERVAL 1"),
            format!("CL.GIVE f{n} 3"),
            format!("CL.POLICY g{n} CAPACITY 2000 REFILL 1000 WEIGHT 3"),
            format!("CL.POLICY g{n} RESET"),
        ] {
            run(conn, &[&line]);
        }
    }
    eventually(Duration::from_secs(60), Duration::from_millis(50), "all buckets to expire", || {
        int(conn, "DBSIZE") == 0
    });
    assert_eq!(info_field(conn, "stats", "expired_keys").as_deref(), Some("1400"));
}
