//! The hash behind a bucket: what is in it, what may be put into it by hand,
//! and how long it lives.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use claw_testkit::{
    Builder, Server, ask, cmd, digest, error, eventually, info_field, int, ints, run, wire_error,
};
use redis::{Cmd, Connection, Value};
use std::collections::BTreeMap;
use std::time::Duration;

/// A command whose arguments are given one by one.
fn call(conn: &mut Connection, args: &[&[u8]]) -> Result<Value, String> {
    let mut command = Cmd::new();
    for arg in args {
        command.arg(*arg);
    }
    command.query(conn).map_err(|e| wire_error(&e).expect("an answer"))
}

/// A server on whose default policy next to nothing refills, so that tests need
/// not be fast.
fn slow_server() -> Builder {
    Server::builder().module_args(["refill-rate-per-sec", "0.000001"])
}

/// A hash made by hand, in place of what the key held.
fn hset(conn: &mut Connection, key: &str, fields: &[(&str, &str)]) {
    let mut args: Vec<&[u8]> = vec![b"HSET", key.as_bytes()];
    for (field, value) in fields {
        args.extend([field.as_bytes(), value.as_bytes()]);
    }
    call(conn, &[b"DEL", key.as_bytes()]).unwrap();
    call(conn, &args).unwrap();
}

fn fields(conn: &mut Connection, key: &str) -> BTreeMap<String, String> {
    ask(conn, &format!("HGETALL {key}"))
}

/// The server's wall clock in microseconds, at the beginning of the present
/// millisecond: commands never see an earlier time after this.
fn clock(conn: &mut Connection) -> u64 {
    let (seconds, micros): (u64, u64) = ask(conn, "TIME");
    (seconds * 1_000_000 + micros) / 1000 * 1000
}

/// Millionths in a decimal text.
fn micros(text: &str) -> u128 {
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{places:0<6}").parse().unwrap()
}

/// Whether the server's hashes can have fields that expire.
fn fields_expire(conn: &mut Connection) -> bool {
    cmd(conn, "COMMAND INFO HPEXPIRE").unwrap() != Value::Array(vec![Value::Nil])
}

#[test]
fn a_person_can_read_a_bucket() {
    let server = Server::start();
    let conn = &mut server.connection();
    // Commands on one key, and the fields then, besides the timestamp.
    type Row = (&'static [&'static str], &'static [(&'static str, &'static str)]);
    let rows: &[Row] = &[
        (&["CL.TAKE k"], &[("tokens", "999")]),
        (&["CL.TAKE k 1000"], &[("tokens", "0")]),
        (&["CL.TAKE k CAPACITY 5"], &[("tokens", "4"), ("policy", "5 5/1000")]),
        (
            &["CL.TAKE k 2 REFILL 0.50 INTERVAL 60000"],
            &[("tokens", "998"), ("policy", "1000 0.5/60000")],
        ),
        (
            &["CL.TAKE k 1000000000000 CAPACITY 1000000000000 REFILL 0.000001 INTERVAL 1"],
            &[("tokens", "0"), ("policy", "1000000000000 0.000001/1")],
        ),
        (
            &["CL.POLICY k CAPACITY 7 REFILL 1.25"],
            &[("tokens", "7"), ("policy", "7 1.25/1000 pinned 1")],
        ),
        (&["CL.POLICY k WEIGHT 3"], &[("tokens", "1000"), ("userWeight", "3")]),
        (
            &["CL.POLICY k WEIGHT 3 CAPACITY 9 REFILL 0", "CL.TAKE k 2", "CL.GIVE k"],
            &[("tokens", "8"), ("policy", "9 0/1000 pinned 1"), ("userWeight", "3")],
        ),
        // What was there once is not silently dropped.
        (
            &["CL.POLICY k WEIGHT 3", "CL.POLICY k WEIGHT 1"],
            &[("tokens", "1000"), ("userWeight", "1")],
        ),
        (&["CL.TAKEALL 1 k CAPACITY 3"], &[("tokens", "2"), ("policy", "3 5/1000")]),
        (&["CL.THROTTLE k 15 30 60"], &[("tokens", "15"), ("policy", "16 30/60000")]),
        // Back on the default policy there is nothing to store.
        (&["CL.TAKE k 3 CAPACITY 5 REFILL 0", "CL.TAKE k 2"], &[("tokens", "0")]),
    ];
    for (lines, expected) in rows {
        run(conn, &["DEL k"]);
        let early = clock(conn);
        run(conn, lines);
        let late = clock(conn) + 1000;
        let mut found = fields(conn, "k");
        let timestamp = found.remove("timestamp").expect("a timestamp");
        let at: u64 = timestamp.parse().expect("an integer");
        assert!((early..=late).contains(&at), "{lines:?}: {timestamp}");
        let expected = expected.iter().map(|(f, v)| ((*f).to_owned(), (*v).to_owned()));
        let expected: BTreeMap<String, String> = expected.collect();
        assert_eq!(found, expected, "{lines:?}");
    }
}

#[test]
fn what_is_below_a_millionth_is_kept_only_where_there_is_any() {
    let server = Server::start();
    let conn = &mut server.connection();
    // Taken from twice with 10 ms in between: 10000 us are what a rate of n
    // millionths per us multiplies.
    let rows = [
        ("REFILL 1 INTERVAL 1000", false),
        ("REFILL 0.5 INTERVAL 1000", false),
        ("REFILL 7 INTERVAL 1000", false),
        ("REFILL 1 INTERVAL 3000", true),
        ("REFILL 1 INTERVAL 7", true),
    ];
    for (options, expected) in rows {
        let old = clock(conn) - 10_000;
        let (_, rate) = options.split_once("REFILL ").unwrap();
        let policy = format!("1000000 {}", rate.replace(" INTERVAL ", "/"));
        let seen = (0..20).any(|age| {
            let at = (old - age).to_string();
            hset(conn, "k", &[("tokens", "5"), ("timestamp", &at), ("policy", &policy)]);
            run(conn, &[&format!("CL.TAKE k 1 CAPACITY 1000000 {options}")]);
            fields(conn, "k").contains_key("remainder")
        });
        assert_eq!(seen && !options.contains("0.5"), expected, "{options}");
    }
}

#[test]
fn a_bucket_made_by_hand_works() {
    let server = Server::start();
    let conn = &mut server.connection();
    // The example of the documentation: full by now.
    run(
        conn,
        &["HSET token_bucket:user123 tokens 200 timestamp 2026-03-19T10:00:00Z userWeight 1"],
    );
    assert_eq!(ints(conn, "CL.TAKE token_bucket:user123"), [1, 1000, 999, 0, 200]);

    let now = clock(conn).to_string();
    let still = ("policy", "10 0/1000");
    // Fields, and what a look and a take of one token answer.
    type Row<'a> = (&'a [(&'a str, &'a str)], [i64; 5], [i64; 5]);
    let rows: &[Row<'_>] = &[
        // Missing fields: full, now, weight 1, the default policy.
        (&[("note", "x")], [0, 1000, 1000, 0, 0], [1, 1000, 999, 0, 200]),
        (&[("timestamp", "0")], [0, 1000, 1000, 0, 0], [1, 1000, 999, 0, 200]),
        (&[("userWeight", "2")], [0, 1000, 1000, 0, 0], [1, 1000, 999, 0, 100]),
        (&[("remainder", "5")], [0, 1000, 1000, 0, 0], [1, 1000, 999, 0, 200]),
        (&[("tokens", "7")], [0, 1000, 7, 0, 198_600], [1, 1000, 6, 0, 198_800]),
        (&[still], [0, 10, 10, 0, 0], [1, 10, 9, 0, -1]),
        (&[("tokens", "7"), still], [0, 10, 7, 0, -1], [1, 10, 6, 0, -1]),
        (&[("timestamp", "5"), still], [0, 10, 10, 0, 0], [1, 10, 9, 0, -1]),
        // Ways to write an amount.
        (&[("tokens", "7.999999"), still], [0, 10, 7, 0, -1], [1, 10, 6, 0, -1]),
        (&[("tokens", "0.999999"), still], [0, 10, 0, 0, -1], [0, 10, 0, -1, -1]),
        (&[("tokens", "1.0"), still], [0, 10, 1, 0, -1], [1, 10, 0, 0, -1]),
        (&[("tokens", "007"), still], [0, 10, 7, 0, -1], [1, 10, 6, 0, -1]),
        (&[("tokens", "0"), still], [0, 10, 0, 0, -1], [0, 10, 0, -1, -1]),
        // Never more than the capacity.
        (&[("tokens", "11"), still], [0, 10, 10, 0, 0], [1, 10, 9, 0, -1]),
        (&[("tokens", "1000000000000"), still], [0, 10, 10, 0, 0], [1, 10, 9, 0, -1]),
        // A remainder is less than a millionth of a token.
        (
            &[("tokens", "0.999999"), ("remainder", "18446744073709551615"), still],
            [0, 10, 0, 0, -1],
            [0, 10, 0, -1, -1],
        ),
        // Policies, stored and pinned.
        (&[("policy", "3 0.5/2000 pinned")], [0, 3, 3, 0, 0], [1, 3, 2, 0, 4000]),
        (&[("policy", "3 0.5/2000 pinned 7")], [0, 3, 3, 0, 0], [1, 3, 2, 0, 4000]),
        (&[("policy", "3 0.50/2000 pinned 07")], [0, 3, 3, 0, 0], [1, 3, 2, 0, 4000]),
        (
            &[("policy", "3 1/1000 pinned"), ("userWeight", "10"), ("timestamp", &now)],
            [0, 3, 3, 0, 0],
            [1, 3, 2, 0, 100],
        ),
    ];
    for (made, look, take) in rows {
        hset(conn, "k", made);
        let options = match made.contains(&still) {
            true => " CAPACITY 10 REFILL 0",
            false => "",
        };
        let before = digest(conn);
        assert_eq!(ints(conn, &format!("CL.PEEK k 0{options}")), look, "{made:?}");
        assert_eq!(digest(conn), before, "{made:?}");
        assert_eq!(ints(conn, &format!("CL.TAKE k 1{options}")), take, "{made:?}");
    }
}

#[test]
fn a_timestamp_is_microseconds_or_rfc_3339() {
    let server = Server::start();
    let conn = &mut server.connection();
    let rows = [
        ("1773914400000000", 1_773_914_400_000_000),
        ("2026-03-19T10:00:00Z", 1_773_914_400_000_000),
        ("2026-03-19t10:00:00z", 1_773_914_400_000_000),
        ("2026-03-19 10:00:00Z", 1_773_914_400_000_000),
        ("2026-03-19T10:00:00+00:00", 1_773_914_400_000_000),
        ("2026-03-19T11:30:00+01:30", 1_773_914_400_000_000),
        ("2026-03-18T22:00:00-12:00", 1_773_914_400_000_000),
        ("2026-03-19T10:00:00.000000Z", 1_773_914_400_000_000),
        ("2026-03-19T10:00:00.5Z", 1_773_914_400_500_000),
        ("2026-03-19T10:00:00.123456Z", 1_773_914_400_123_456),
        ("2026-03-19T10:00:00.123456999Z", 1_773_914_400_123_456),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000_000),
        ("1970-01-01T00:00:00Z", 0),
        ("0", 0),
        // An integer is never seconds or milliseconds.
        ("1773914400", 1_773_914_400),
        ("1773914400000", 1_773_914_400_000),
        ("0001773914400000000", 1_773_914_400_000_000),
    ];
    for (text, at) in rows {
        // A millionth every microsecond, so that the tokens tell the age.
        let policy = "1000000000000 1/1000";
        hset(conn, "k", &[("tokens", "0"), ("timestamp", text), ("policy", policy)]);
        let reply = ints(conn, "CL.TAKE k 1 CAPACITY 1000000000000 REFILL 1 INTERVAL 1000");
        assert_eq!(reply[0], 1, "{text}");
        let found = fields(conn, "k");
        let now: u128 = found["timestamp"].parse().unwrap();
        assert_eq!(micros(&found["tokens"]) + 1_000_000, now - at, "{text}");
    }
    // Some days ahead are a clock set back; a month is a mistake.
    let day = 24 * 3600 * 1_000_000;
    let soon = clock(conn) + 29 * day;
    hset(conn, "k", &[("tokens", "5"), ("timestamp", &soon.to_string())]);
    assert_eq!(ints(conn, "CL.TAKE k")[..3], [1, 1000, 4]);
    let late = (clock(conn) + 31 * day).to_string();
    hset(conn, "k", &[("tokens", "5"), ("timestamp", &late)]);
    assert_eq!(
        error(conn, "CL.TAKE k"),
        format!(
            "ERR bucket 'k': field 'timestamp' holds '{late}', which is more than 30 days ahead \
             of the server's clock"
        )
    );
}

/// Everything that writes a bucket.
const WRITERS: &[&str] = &[
    "CL.TAKE k",
    "CL.TAKE k 2 CAPACITY 50 REFILL 3 INTERVAL 7",
    "CL.TAKE k 5000 PARTIAL",
    "CL.GIVE k 5",
    "CL.TAKEALL 2 k k TOKENS 1 2 CAPACITY 90",
    "CL.POLICY k CAPACITY 40 REFILL 0.5 WEIGHT 7",
    "CL.TAKE k",
    "CL.POLICY k RESET",
    "CL.THROTTLE k 15 30 60",
    "CL.THROTTLE k 15 30 60 -1",
    "CL.TAKE k",
];

#[test]
fn fields_that_are_not_ours_are_left_alone() {
    let server = Server::start();
    let conn = &mut server.connection();
    let long = "v".repeat(100_000);
    let own: &[(&str, &str)] = &[
        ("note", "paid until May"),
        ("Tokens", "not ours"),
        ("TOKENS", "not ours"),
        ("tokens ", "not ours"),
        ("userweight", "not ours"),
        ("", "empty name"),
        ("empty value", ""),
        ("debit", "3"),
        ("capacity", "3"),
        ("a\r\nb\0c", "%s%n\r\n\0"),
    ];
    for wide in [false, true] {
        run(conn, &["DEL k"]);
        hset(conn, "k", own);
        if wide {
            call(conn, &[b"HSET", b"k", b"long", long.as_bytes()]).unwrap();
            assert_eq!(ask::<String>(conn, "OBJECT ENCODING k"), "hashtable");
        }
        for line in WRITERS {
            run(conn, &[line]);
            let found = fields(conn, "k");
            for (field, value) in own {
                assert_eq!(
                    found.get(*field).map(String::as_str),
                    Some(*value),
                    "{line}: {field:?}"
                );
            }
            assert_eq!(found.get("long").is_some_and(|v| *v == long), wide, "{line}");
        }
    }
}

#[test]
fn fields_that_are_not_ours_keep_their_expiry() {
    let server = Server::start();
    let conn = &mut server.connection();
    if !fields_expire(conn) {
        assert!(error(conn, "HPEXPIRE k 1 FIELDS 1 f").starts_with("ERR unknown command"));
        return;
    }
    run(conn, &["HSET k note x", "HPEXPIREAT k 33333333333333 FIELDS 1 note"]);
    for line in WRITERS {
        run(conn, &[line]);
        let at: Vec<i64> = ask(conn, "HPEXPIRETIME k FIELDS 1 note");
        assert_eq!(at, [33_333_333_333_333], "`{line}`");
    }
    // One of ours that expires is simply missing.
    run(conn, &["DEL k", "CL.TAKE k 7 CAPACITY 10 REFILL 0", "HPEXPIRE k 1 FIELDS 1 tokens"]);
    eventually(Duration::from_secs(10), Duration::from_millis(5), "a field to expire", || {
        int(conn, "HEXISTS k tokens") == 0
    });
    assert_eq!(ints(conn, "CL.TAKE k 2 CAPACITY 10 REFILL 0"), [2, 10, 8, 0, -1]);
}

#[test]
fn all_fields_of_a_bucket_may_expire() {
    let server = Server::start();
    let conn = &mut server.connection();
    if !fields_expire(conn) {
        return assert!(error(conn, "HPEXPIRE k 1 FIELDS 1 f").starts_with("ERR unknown command"));
    }
    // Expired, but not deleted yet.
    run(conn, &["DEBUG SET-ACTIVE-EXPIRE 0"]);
    for line in WRITERS {
        run(conn, &["DEL k", "CL.TAKE k 5", "HPEXPIRE k 1 FIELDS 2 tokens timestamp"]);
        let set = clock(conn);
        eventually(Duration::from_secs(10), Duration::from_millis(1), "the fields' end", || {
            clock(conn) > set + 3000
        });
        assert_eq!(ints(conn, "CL.PEEK k 0"), [0, 1000, 1000, 0, 0]);
        run(conn, &[line, "CL.TAKE k", "PING"]);
    }
    assert_eq!(server.warnings(), Vec::<String>::new());
}

#[test]
fn a_field_that_makes_no_sense_is_named() {
    let server = Server::start();
    let conn = &mut server.connection();
    let no_amount = "is not a decimal number of 0 or more";
    let too_fine = "has more than 6 decimal places";
    let too_large = "is more than 1000000000000";
    let no_time = "is neither unix microseconds nor an RFC 3339 time";
    let no_year = "is not between the years 1970 and 9999";
    let no_policy = "is not 'capacity refill/interval [pinned [version]]' within the bounds";
    let no_weight = "is not an integer from 1 to 10";
    let no_rest = "is not an integer of 0 or more";
    let ahead = "is more than 30 days ahead of the server's clock";
    let rows: &[(&str, &[&str], &str)] = &[
        (
            "tokens",
            &[
                "", "lots", "-1", "-0", "+1", " 1", "1 ", "1\n", "1.", ".5", ".", "1e3", "0x1",
                "1,5", "1.2.3", "NaN", "inf", "1.-5", "1.5x", "\u{661}",
            ],
            no_amount,
        ),
        ("tokens", &["0.0000001", "1.1234567", "1.0000000"], too_fine),
        ("tokens", &["1000000000000.000001", "1000000000001", "18446744073709551616"], too_large),
        (
            "timestamp",
            &[
                "",
                "now",
                "-1",
                "+1",
                "1.5",
                "1e15",
                " 1773914400000000",
                "2026-03-19",
                "2026-03-19T10:00:00",
                "10:00:00Z",
                "2026-02-30T10:00:00Z",
                "2026-13-01T10:00:00Z",
                "2026-03-19T25:00:00Z",
                "2026-03-19T10:00:00Zx",
                "-000001-01-01T00:00:00Z",
                "+002026-03-19T10:00:00Z",
                "Thu, 19 Mar 2026 10:00:00 GMT",
            ],
            no_time,
        ),
        (
            "timestamp",
            &["1969-12-31T23:59:59Z", "253402207201000000", "18446744073709551616"],
            no_year,
        ),
        ("timestamp", &["9999-12-30T00:00:00Z", "253402207200999999"], ahead),
        (
            "userWeight",
            &["", "0", "11", "-1", "+1", "1.0", "1.5", " 1", "two", "18446744073709551617"],
            no_weight,
        ),
        (
            "policy",
            &[
                "",
                " ",
                "10",
                "10 5",
                "10 5/",
                "10 /1000",
                "/",
                "0 5/1000",
                "1000000000001 5/1000",
                "10 -5/1000",
                "10 5/0",
                "10 5/31622400001",
                "10 0.0000001/1000",
                "10 1000000000001/1000",
                "10 5/1000.5",
                "10.5 5/1000",
                "10  5/1000",
                " 10 5/1000",
                "10 5/1000 ",
                "10 5/1000 pin",
                "10 5/1000 PINNED",
                "10 5/1000 pinned ",
                "10 5/1000 pinned x",
                "10 5/1000 pinned 1 2",
                "10 5/1000 pinned -1",
                "10 5/1000 pinned 18446744073709551616",
                "10 5 /1000",
                "ten five/1000",
            ],
            no_policy,
        ),
        ("remainder", &["", "-1", "+1", "0.5", "x", " 1", "18446744073709551616"], no_rest),
    ];
    let lines = [
        "CL.TAKE k",
        "CL.TAKE k 0",
        "CL.TAKE k 5 CAPACITY 10 REFILL 1 INTERVAL 7 PARTIAL",
        "CL.PEEK k",
        "CL.GIVE k",
        "CL.TAKEALL 1 k",
        "CL.POLICY k",
        "CL.POLICY k CAPACITY 5",
        "CL.POLICY k WEIGHT 2",
        "CL.POLICY k RESET",
        "CL.THROTTLE k 15 30 60",
        "CL.THROTTLE k 15 30 60 0",
        "CL.THROTTLE k 15 30 60 -1",
    ];
    let mut errors = 0;
    for (field, values, why) in rows {
        for value in *values {
            // Among sound fields, and alone.
            let sound = [
                ("tokens", "5"),
                ("timestamp", "1773914400000000"),
                ("userWeight", "2"),
                ("policy", "10 5/1000"),
                ("remainder", "0"),
            ];
            let full = sound.map(|(name, text)| (name, if name == *field { *value } else { text }));
            for made in [full.as_slice(), &[(*field, *value)]] {
                hset(conn, "k", made);
                let before = digest(conn);
                let shown = value.as_bytes().escape_ascii();
                let expected =
                    format!("ERR bucket 'k': field '{field}' holds '{shown}', which {why}");
                for line in lines {
                    assert_eq!(error(conn, line), expected, "{line}: {made:?}");
                    errors += 1;
                }
                assert_eq!(digest(conn), before, "{made:?}");
                assert_eq!(int(conn, "PTTL k"), -1, "{made:?}");
            }
        }
    }
    let counted = info_field(conn, "claw", "claw_corrupt");
    assert_eq!(counted, Some(errors.to_string()));
    assert_eq!(server.warnings(), Vec::<String>::new());
}

#[test]
fn odd_bytes_are_escaped_and_long_ones_cut() {
    let server = Server::start();
    let conn = &mut server.connection();
    let long = [b'k'; 65];
    let value = [b'v'; 1000];
    let rows: &[(&[u8], &[u8], String)] = &[
        (b"", b"x", "'': field 'tokens' holds 'x'".into()),
        (b"a\0b", b"\0", "'a\\x00b': field 'tokens' holds '\\x00'".into()),
        (b"a\r\nb", b"-ERR\r\n", "'a\\r\\nb': field 'tokens' holds '-ERR\\r\\n'".into()),
        (b"%s%n", b"%n%s%d", "'%s%n': field 'tokens' holds '%n%s%d'".into()),
        (b"it's", b"\"\\", "'it\\'s': field 'tokens' holds '\\\"\\\\'".into()),
        (b"\xff\xfe", b"\xc3\xa9", "'\\xff\\xfe': field 'tokens' holds '\\xc3\\xa9'".into()),
        (&long[..64], b"x", format!("'{}': field 'tokens' holds 'x'", "k".repeat(64))),
        (
            &long,
            &value,
            format!("'{}'...: field 'tokens' holds '{}'...", "k".repeat(64), "v".repeat(64)),
        ),
    ];
    for (key, value, expected) in rows {
        call(conn, &[b"HSET", key, b"tokens", value]).unwrap();
        let expected = format!("ERR bucket {expected}, which is not a decimal number of 0 or more");
        assert_eq!(call(conn, &[b"CL.TAKE", key]), Err(expected.clone()));
        assert_eq!(call(conn, &[b"CL.TAKEALL", b"2", b"fine", key]), Err(expected));
        assert_eq!(int(conn, "EXISTS fine"), 0);
    }
    assert_eq!(server.warnings(), Vec::<String>::new());
}

#[test]
fn keys_may_be_any_bytes() {
    let server = Server::start();
    let conn = &mut server.connection();
    let long = vec![b'x'; 100_000];
    let every: Vec<u8> = (0..=255).collect();
    let keys: &[&[u8]] = &[
        b"",
        b" ",
        b"\0",
        b"a\0b",
        b"a\0",
        b"\r\n",
        b"a\r\n$5\r\n",
        b"%s",
        b"%n%n%n%n%s%s%s%s",
        b"\"'\\",
        b"\xff\xfe\xfd",
        "\u{1f980}".as_bytes(),
        b"CAPACITY",
        b"PARTIAL",
        b"-1",
        &long,
        &every,
    ];
    for key in keys {
        let shown = key[..key.len().min(20)].escape_ascii().to_string();
        let mut five = |args: &[&[u8]]| -> Vec<i64> {
            let answer = call(conn, args).unwrap_or_else(|e| panic!("{shown}: {e}"));
            redis::from_redis_value(answer).unwrap()
        };
        let none = [b"CAPACITY".as_slice(), b"10", b"REFILL", b"0"];
        let take: Vec<&[u8]> = [b"CL.TAKE".as_slice(), key, b"3"].into_iter().chain(none).collect();
        assert_eq!(five(&take), [3, 10, 7, 0, -1], "{shown}");
        assert_eq!(five(&[b"CL.GIVE", key, b"1"]), [1, 10, 8, 0, -1], "{shown}");
        let peek: Vec<&[u8]> = [b"CL.PEEK".as_slice(), key, b"9"].into_iter().chain(none).collect();
        assert_eq!(five(&peek), [0, 10, 8, -1, -1], "{shown}");
    }
    assert_eq!(int(conn, "DBSIZE"), i64::try_from(keys.len()).unwrap());
    let mut all: Vec<&[u8]> = vec![b"CL.TAKEALL", b"17"];
    all.extend(keys);
    let (taken, _, each): (i64, i64, Vec<Vec<i64>>) =
        redis::from_redis_value(call(conn, &all).unwrap()).unwrap();
    assert_eq!((taken, each.len()), (1, keys.len()));
    for key in keys {
        call(conn, &[b"CL.POLICY", key, b"CAPACITY", b"5"]).unwrap();
        let held: String =
            redis::from_redis_value(call(conn, &[b"HGET", key, b"policy"]).unwrap()).unwrap();
        assert_eq!(held, "5 5/1000 pinned 1");
    }
    assert_eq!(int(conn, "DBSIZE"), i64::try_from(keys.len()).unwrap());
    assert_eq!(server.warnings(), Vec::<String>::new());
}

/// When the bucket is full, and how long that takes from its timestamp, in
/// microseconds.
fn full_at(conn: &mut Connection, key: &str) -> (u128, u128) {
    let found = fields(conn, key);
    let words: Vec<&str> = found["policy"].split([' ', '/']).collect();
    let missing = micros(words[0]) - micros(&found["tokens"]);
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
        "1 CAPACITY 2 REFILL 0.000001 INTERVAL 31622400000",
        "1000000000000 CAPACITY 1000000000000 REFILL 1000000000000 INTERVAL 1",
        "1000000000000 CAPACITY 1000000000000 REFILL 1",
    ];
    for args in rows {
        for name in ["CL.TAKE k", "CL.TAKEALL 1 k TOKENS"] {
            run(conn, &["DEL k", &format!("{name} {args}")]);
            let (full, wait) = full_at(conn, "k");
            let expires = u128::try_from(int(conn, "PEXPIRETIME k")).expect("an expiry");
            let earliest = full.div_ceil(1000);
            let latest = (full + wait / 2 + 2_000_000).div_ceil(1000);
            assert_eq!(expires, latest, "{name} {args}");
            assert!(expires >= earliest, "{name} {args}");
        }
    }
    // So long that no expiry can be written.
    run(conn, &["DEL k"]);
    run(
        conn,
        &["CL.TAKE k 1000000000000 CAPACITY 1000000000000 REFILL 0.000001 INTERVAL 31622400000"],
    );
    assert_eq!(int(conn, "PTTL k"), -1);
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
            ("CL.TAKE k 7 CAPACITY 90", false),
            ("CL.POLICY k WEIGHT 1", true),
            ("CL.POLICY k WEIGHT 10", false),
            ("CL.POLICY k RESET", true),
        ],
        &[
            ("CL.TAKE k", true),
            ("CL.TAKE k CAPACITY 50 REFILL 0", false),
            ("CL.TAKE k CAPACITY 50 REFILL 0", false),
            ("CL.GIVE k 1", false),
            ("CL.GIVE k 1", true),
            ("CL.TAKE k CAPACITY 50 REFILL 0", false),
            ("CL.TAKE k CAPACITY 50 REFILL 1", true),
        ],
        &[
            ("CL.THROTTLE k 15 30 60", true),
            ("CL.THROTTLE k 15 30 60 -1", true),
            ("CL.POLICY k REFILL 0", false),
        ],
        &[("CL.POLICY k CAPACITY 5", false)],
        &[("CL.POLICY k WEIGHT 5", false)],
        &[("CL.TAKEALL 1 k", true), ("CL.TAKEALL 1 k REFILL 0", false)],
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
    for n in 0..200 {
        for line in [
            format!("CL.TAKE a{n} 5 CAPACITY 10 REFILL 1000"),
            format!("CL.TAKEALL 3 b{n} c{n} d{n} CAPACITY 10 20 30 REFILL 2000 INTERVAL 7"),
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

#[test]
fn a_bucket_can_be_copied_renamed_moved_and_dumped() {
    let server = slow_server().start();
    let conn = &mut server.connection();
    let make: &[&[&str]] = &[
        &["CL.TAKE k 3 CAPACITY 10 REFILL 1 INTERVAL 31622400000"],
        &["CL.POLICY k CAPACITY 10 REFILL 0 WEIGHT 3", "CL.TAKE k 3"],
        &["CL.TAKE k 3", "HSET k note x"],
    ];
    for lines in make {
        for how in ["copy", "rename", "move", "dump", "reload"] {
            run(conn, &["FLUSHALL"]);
            run(conn, lines);
            let before = (fields(conn, "k"), int(conn, "PEXPIRETIME k"));
            match how {
                "copy" => run(conn, &["COPY k other", "DEL k", "COPY other k"]),
                "rename" => run(conn, &["RENAME k other", "RENAME other k"]),
                "move" => run(conn, &["MOVE k 1", "SELECT 1", "MOVE k 0", "SELECT 0"]),
                "dump" => {
                    let dump: Vec<u8> = ask(conn, "DUMP k");
                    let at = before.1.max(0).to_string();
                    run(conn, &["DEL k"]);
                    call(conn, &[b"RESTORE", b"k", at.as_bytes(), &dump, b"ABSTTL"]).unwrap();
                }
                _ => run(conn, &["DEBUG RELOAD"]),
            }
            assert_eq!((fields(conn, "k"), int(conn, "PEXPIRETIME k")), before, "{how}: {lines:?}");
            let options = match lines[0].contains("31622400000") {
                true => "CAPACITY 10 REFILL 1 INTERVAL 31622400000",
                false => "",
            };
            let reply = ints(conn, &format!("CL.TAKE k 1 {options}"));
            // It goes on from the seven (or 997) that were left.
            assert_eq!(reply[2], reply[1] - 4, "{how}: {lines:?}: {reply:?}");
        }
    }
}

#[test]
fn a_bucket_is_small() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["CL.TAKE user:123456"]);
    assert_eq!(ask::<String>(conn, "OBJECT ENCODING user:123456"), "listpack");
    let bytes = int(conn, "MEMORY USAGE user:123456");
    assert!(bytes <= 136, "{bytes} bytes");
    // With every field, and the longest numbers.
    run(
        conn,
        &[
            "CL.POLICY k CAPACITY 1000000000000 REFILL 999999999999.999999 INTERVAL 31622400000 WEIGHT 10",
            "CL.TAKE k 999999999999",
            "HSET k remainder 79688447999999999 tokens 123456789012.123456",
            "CL.TAKE k",
        ],
    );
    assert_eq!(int(conn, "HLEN k"), 5);
    assert_eq!(ask::<String>(conn, "OBJECT ENCODING k"), "listpack");
}

#[test]
fn a_server_without_the_module_loads_the_data() {
    for appendonly in ["no", "yes"] {
        let server = slow_server().config("appendonly", appendonly).start();
        let conn = &mut server.connection();
        run(
            conn,
            &[
                "CL.TAKE a 5",
                "CL.TAKE b 2 CAPACITY 10 REFILL 0.0005",
                "CL.POLICY c CAPACITY 10 REFILL 0 WEIGHT 3",
                "CL.TAKE c 4",
                "CL.TAKEALL 3 a d d REFILL 7 INTERVAL 30000000",
                "CL.THROTTLE e 15 30 600000",
                "HSET c note x",
            ],
        );
        let keys = ["a", "b", "c", "d", "e"];
        let before = (digest(conn), keys.map(|key| fields(conn, key)));
        let expiry = keys.map(|key| int(conn, &format!("PEXPIRETIME {key}")));

        let plain = Server::builder()
            .without_module()
            .config("appendonly", appendonly)
            .dir(server.stop_saving())
            .start();
        let conn = &mut plain.connection();
        assert!(error(conn, "CL.TAKE a").starts_with("ERR unknown command"));
        assert_eq!((digest(conn), keys.map(|key| fields(conn, key))), before);
        assert_eq!(keys.map(|key| int(conn, &format!("PEXPIRETIME {key}"))), expiry);
        assert_eq!(plain.warnings(), Vec::<String>::new());

        // And the module takes up what was done to it there.
        run(conn, &["HSET c tokens 9"]);
        let server = slow_server().config("appendonly", appendonly).dir(plain.stop_saving());
        let server = server.start();
        let conn = &mut server.connection();
        assert_eq!(ints(conn, "CL.TAKE c 1"), [1, 10, 8, 0, -1]);
        assert_eq!(fields(conn, "c")["note"], "x");
        assert_eq!(server.warnings(), Vec::<String>::new());
    }
}
