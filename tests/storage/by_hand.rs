//! Buckets that a person has written.

use crate::buckets::{clock, micros};
use crate::calls::hset;
use claw_testkit::{Server, call_bytes, digest, error, fields, info_field, int, ints, run};

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
        (&[("tokens", "7.0000000000000004"), still], [0, 10, 7, 0, -1], [1, 10, 6, 0, -1]),
        (&[("tokens", "6.98999999999999999999"), still], [0, 10, 6, 0, -1], [1, 10, 5, 0, -1]),
        (&[("tokens", "6.9999999"), still], [0, 10, 7, 0, -1], [1, 10, 6, 0, -1]),
        (&[("tokens", "0.0000001"), still], [0, 10, 0, 0, -1], [0, 10, 0, -1, -1]),
        (&[("tokens", "7e+00"), still], [0, 10, 7, 0, -1], [1, 10, 6, 0, -1]),
        (&[("tokens", "70e-1"), still], [0, 10, 7, 0, -1], [1, 10, 6, 0, -1]),
        (&[("tokens", "1e-999999999999"), still], [0, 10, 0, 0, -1], [0, 10, 0, -1, -1]),
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
        (&[("policy", "3.0 5.000000000000000e-01/2e3")], [0, 3, 3, 0, 0], [1, 3, 2, 0, 4000]),
        (&[("userWeight", "2.0")], [0, 1000, 1000, 0, 0], [1, 1000, 999, 0, 100]),
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
        ("2026-03-19T12:00:00.123456999999999999+02:00", 1_773_914_400_123_456),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000_000),
        ("1970-01-01T00:00:00Z", 0),
        ("0", 0),
        // An integer is never seconds or milliseconds.
        ("1773914400", 1_773_914_400),
        ("1773914400000", 1_773_914_400_000),
        ("0001773914400000000", 1_773_914_400_000_000),
        // What Lua makes of it with `..`, and what Python does of a double.
        ("1.7739144e+15", 1_773_914_400_000_000),
        ("1773914400000000.0", 1_773_914_400_000_000),
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

#[test]
fn a_field_that_makes_no_sense_is_named() {
    let server = Server::start();
    let conn = &mut server.connection();
    let no_amount = "is not a decimal number";
    let too_large = "is too large";
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
                "", "lots", "-", "--1", "- 1", "-.5", "-1.", "+1", " 1", "1 ", "1\n", "1.", ".5",
                ".", "1e", "1e+", "-1e", "0x1", "1,5", "1.2.3", "NaN", "inf", "1.-5", "1.5x",
                "\u{661}",
            ],
            no_amount,
        ),
        (
            "tokens",
            &[
                "1000000000000.000001",
                "1000000000001",
                "18446744073709551616",
                "1e999999999999",
                "-9000000000000.000001",
                "-18446744073709551616",
                "-1e999999999999",
            ],
            too_large,
        ),
        (
            "timestamp",
            &[
                "",
                "now",
                "-1",
                "+1",
                "1.5",
                "1e-15",
                " 1773914400000000",
                "2026-03-19",
                "2026-03-19T10:00:00",
                "10:00:00Z",
                "2026-02-30T10:00:00Z",
                "2026-13-01T10:00:00Z",
                "2026-03-19T25:00:00Z",
                "2026-03-19T10:00:00+24:00",
                "2026-03-19T10:00:00Zx",
                "-000001-01-01T00:00:00Z",
                "+002026-03-19T10:00:00Z",
                "Thu, 19 Mar 2026 10:00:00 GMT",
            ],
            no_time,
        ),
        (
            "timestamp",
            &[
                "1969-12-31T23:59:59Z",
                "253402207201000000",
                "18446744073709551616",
                "1e999999999999",
            ],
            no_year,
        ),
        ("timestamp", &["9999-12-30T00:00:00Z", "253402207200999999"], ahead),
        (
            "userWeight",
            &["", "0", "11", "-1", "+1", "1.5", "1e1.0", " 1", "two", "18446744073709551617"],
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
                "-1 5/1000",
                "1000000000001 5/1000",
                "10 -5/1000",
                "10 5/0",
                "10 5/31622400001",
                "10 0.0000001/1000",
                "10 1e-9/1000",
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
        ("remainder", &["", "-1", "+1", "0.5", "5e-1", "x", " 1", "18446744073709551616"], no_rest),
    ];
    let lines = [
        "CL.TAKE k",
        "CL.TAKE k 0",
        "CL.TAKE k 5 CAPACITY 10 REFILL 1 INTERVAL 7 PARTIAL",
        "CL.PEEK k",
        "CL.GIVE k",
        "CL.TAKEALL k",
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
        call_bytes(conn, &[b"HSET", key, b"tokens", value]).unwrap();
        let expected = format!("ERR bucket {expected}, which is not a decimal number");
        assert_eq!(call_bytes(conn, &[b"CL.TAKE", key]), Err(expected.clone()));
        assert_eq!(call_bytes(conn, &[b"CL.TAKEALL", b"fine", b"AND", key]), Err(expected));
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
        b"AND",
        b"-1",
        &long,
        &every,
    ];
    for key in keys {
        let shown = key[..key.len().min(20)].escape_ascii().to_string();
        let mut five = |args: &[&[u8]]| -> Vec<i64> {
            let answer = call_bytes(conn, args).unwrap_or_else(|e| panic!("{shown}: {e}"));
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
    let mut all: Vec<&[u8]> = vec![b"CL.TAKEALL"];
    all.extend(keys.iter().flat_map(|key| [key, b"AND".as_slice()]));
    all.pop();
    let (taken, _, _, each): (i64, i64, i64, Vec<Vec<i64>>) =
        redis::from_redis_value(call_bytes(conn, &all).unwrap()).unwrap();
    assert_eq!((taken, each.len()), (1, keys.len()));
    for key in keys {
        call_bytes(conn, &[b"CL.POLICY", key, b"CAPACITY", b"5"]).unwrap();
        let held: String =
            redis::from_redis_value(call_bytes(conn, &[b"HGET", key, b"policy"]).unwrap()).unwrap();
        assert_eq!(held, "5 0/1000 pinned 1");
    }
    assert_eq!(int(conn, "DBSIZE"), i64::try_from(keys.len()).unwrap());
    assert_eq!(server.warnings(), Vec::<String>::new());
}
