//! `CL.TAKEALL`: all or none.

use crate::buckets::slow_server;
use crate::calls::{takeall, wait_ms};
use crate::refusals::TOO_MANY_KEYS;
use claw_testkit::{Server, call_bytes, digest, error, fields, int, run};

#[test]
fn takeall_takes_from_all_or_none() {
    let server = Server::start();
    let conn = &mut server.connection();
    // Buckets a, b and c with 10, 5 and 1 tokens that never refill.
    let took = |n, capacity, remaining| [n, capacity, remaining, 0, -1];
    let enough = |capacity| [0, capacity, capacity, 0, 0];
    let too_many = |capacity| [0, capacity, capacity, -1, 0];
    type Row<'a> = (&'a str, (i64, i64, Vec<[i64; 5]>));
    let rows: Vec<Row<'_>> = vec![
        ("1 a", (1, -1, vec![took(1, 10, 9)])),
        ("3 a b c", (1, -1, vec![took(1, 10, 9), took(1, 5, 4), took(1, 1, 0)])),
        ("3 c b a", (1, -1, vec![took(1, 1, 0), took(1, 5, 4), took(1, 10, 9)])),
        // One value for all, or one for each.
        ("2 a b TOKENS 5", (1, -1, vec![took(5, 10, 5), took(5, 5, 0)])),
        ("2 a b TOKENS 10 5", (1, -1, vec![took(10, 10, 0), took(5, 5, 0)])),
        ("3 a b c tokens 2 3 0", (1, -1, vec![took(2, 10, 8), took(3, 5, 2), enough(1)])),
        ("2 a b TOKENS 0", (1, -1, vec![enough(10), enough(5)])),
        // The first that refuses is named; nobody is charged.
        ("2 a b TOKENS 6", (0, 1, vec![enough(10), too_many(5)])),
        ("2 b a TOKENS 6", (0, 0, vec![too_many(5), enough(10)])),
        ("3 a b c TOKENS 2", (0, 2, vec![enough(10), enough(5), too_many(1)])),
        ("3 a b c TOKENS 11 1 2", (0, 0, vec![too_many(10), enough(5), too_many(1)])),
        // A key named twice is charged twice.
        ("2 a a", (1, -1, vec![took(1, 10, 9), took(1, 10, 8)])),
        ("3 a b a TOKENS 4 5 6", (1, -1, vec![took(4, 10, 6), took(5, 5, 0), took(6, 10, 0)])),
        ("2 c c", (0, 1, vec![enough(1), too_many(1)])),
        ("2 a a TOKENS 5 6", (0, 1, vec![enough(10), too_many(10)])),
        ("3 a c a TOKENS 10 1 1", (0, 2, vec![enough(10), enough(1), too_many(10)])),
        ("3 a a a TOKENS 1000000000000", (0, 0, vec![too_many(10); 3])),
    ];
    for (args, expected) in rows {
        run(conn, &["FLUSHALL"]);
        for (key, capacity) in [("a", 10), ("b", 5), ("c", 1)] {
            run(conn, &[&format!("CL.POLICY {key} CAPACITY {capacity} REFILL 0")]);
        }
        let before = digest(conn);
        let reply = takeall(conn, &format!("CL.TAKEALL {args}"));
        assert_eq!(reply, expected, "CL.TAKEALL {args}");
        let charged = expected.2.iter().any(|five| five[0] > 0);
        assert_eq!(digest(conn) != before, charged, "CL.TAKEALL {args}");
        // What the replies say is what the buckets hold.
        let keys: Vec<&str> = args.split(' ').skip(1).take(expected.2.len()).collect();
        for (place, key) in keys.iter().enumerate() {
            let last = keys.iter().rposition(|other| other == key) == Some(place);
            if last {
                let held: i64 = fields(conn, key)["tokens"].parse().unwrap();
                assert_eq!(held, expected.2[place][2], "CL.TAKEALL {args}: {key}");
            }
        }
    }
}

#[test]
fn takeall_tells_not_yet_from_never() {
    let server = Server::start();
    let conn = &mut server.connection();
    // A bucket that holds 8 of 10 tokens, one more a year; each row with the
    // refusing index and whether each key is there now, later or never.
    let rows = [
        ("2 k k TOKENS 6 2", -1, "now now"),
        ("2 k k TOKENS 6 3", 1, "now later"),
        ("2 k k TOKENS 6 4", 1, "now later"),
        // Together more than the capacity.
        ("2 k k TOKENS 6 5", 1, "now never"),
        ("2 k k TOKENS 10 1", 0, "later never"),
        ("3 k k k TOKENS 8 2 1", 1, "now later never"),
        ("3 k k k TOKENS 11 0 0", 0, "never never never"),
        ("2 k k TOKENS 1000000000000", 0, "never never"),
        ("3 k other k TOKENS 1 1 8", 2, "now now later"),
        ("3 other k other TOKENS 5 1 6", 2, "now now never"),
    ];
    let options = "CAPACITY 10 REFILL 1 INTERVAL 31622400000";
    for (args, refusing, expected) in rows {
        run(conn, &["FLUSHALL", &format!("CL.TAKE k 2 {options}")]);
        let before = digest(conn);
        let (taken, index, each) = takeall(conn, &format!("CL.TAKEALL {args} {options}"));
        assert_eq!((taken, index), (i64::from(refusing < 0), refusing), "{args}");
        let found = each.iter().map(|five| match five[3] {
            0 => "now",
            -1 => "never",
            _ => "later",
        });
        assert_eq!(found.collect::<Vec<_>>().join(" "), expected, "{args}: {each:?}");
        assert_eq!(digest(conn) == before, taken == 0, "{args}");
    }
}

#[test]
fn takeall_has_lists_of_options() {
    let server = Server::start();
    let conn = &mut server.connection();
    let rows: &[(&str, &[(&str, &str)])] = &[
        ("2 x y CAPACITY 9 REFILL 5", &[("8", "9 5/1000"), ("8", "9 5/1000")]),
        ("2 x y CAPACITY 9 8 REFILL 5", &[("8", "9 5/1000"), ("7", "8 5/1000")]),
        ("2 x y REFILL 0.5 2", &[("0", "1 0.5/1000"), ("1", "2 2/1000")]),
        ("2 x y REFILL 3 INTERVAL 50 60", &[("2", "3 3/50"), ("2", "3 3/60")]),
        ("2 x y INTERVAL 7 REFILL 1 2", &[("0", "1 1/7"), ("1", "2 2/7")]),
        (
            "2 x y INTERVAL 5 6 REFILL 3 4 CAPACITY 11 12 TOKENS 1 2",
            &[("10", "11 3/5"), ("10", "12 4/6")],
        ),
        ("2 x y TOKENS 3 4", &[("997", ""), ("996", "")]),
    ];
    for (args, expected) in rows {
        run(conn, &["FLUSHALL"]);
        assert_eq!(takeall(conn, &format!("CL.TAKEALL {args}")).0, 1, "{args}");
        for (key, (tokens, policy)) in ["x", "y"].into_iter().zip(*expected) {
            let fields = fields(conn, key);
            let stored = fields.get("policy").map_or("", String::as_str);
            assert_eq!((fields["tokens"].as_str(), stored), (*tokens, *policy), "{args}: {key}");
        }
    }
}

#[test]
fn takeall_waits_until_all_are_there() {
    let server = Server::start();
    let conn = &mut server.connection();
    let line = "CL.TAKEALL 3 a b a TOKENS 2 3 2 CAPACITY 5 REFILL 50 70 50";
    for _ in 0..5 {
        let mut reply = takeall(conn, line);
        while reply.0 == 1 {
            reply = takeall(conn, line);
        }
        let longest = reply.2.iter().map(|five| five[3]).max().unwrap();
        assert!(longest > 0, "{reply:?}");
        wait_ms(longest);
        assert_eq!(takeall(conn, line).0, 1, "after {reply:?}");
    }
}

#[test]
fn takeall_takes_many_keys() {
    let server = Server::start();
    let conn = &mut server.connection();
    let keys: Vec<String> = (0..1024).map(|n| format!("k{}", n % 512)).collect();
    let mut args: Vec<&[u8]> = vec![b"CL.TAKEALL", b"1024"];
    args.extend(keys.iter().map(|key| key.as_bytes()));
    let (taken, index, each): (i64, i64, Vec<Vec<i64>>) =
        redis::from_redis_value(call_bytes(conn, &args).unwrap()).unwrap();
    assert_eq!((taken, index, each.len()), (1, -1, 1024));
    assert_eq!(int(conn, "DBSIZE"), 512);
    assert_eq!(fields(conn, "k511")["tokens"], "998");
    // One key more than there are arguments.
    args[1] = b"1025";
    assert_eq!(call_bytes(conn, &args), Err(TOO_MANY_KEYS.into()));
}

/// One bucket has one policy: a call that names it twice cannot give it two.
#[test]
fn a_key_of_takeall_has_one_policy() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["CL.TAKE k 1 CAPACITY 50 REFILL 0"]);
    let before = digest(conn);
    for line in [
        "CL.TAKEALL 2 k k TOKENS 8 1 CAPACITY 5 100 REFILL 0",
        "CL.TAKEALL 3 k other k CAPACITY 50 REFILL 0 0 1",
        "CL.TAKEALL 2 k k REFILL 1 INTERVAL 1 2",
    ] {
        assert_eq!(error(conn, line), "ERR key 'k' is given two policies", "{line}");
        assert_eq!(digest(conn), before, "{line}");
    }
    let (taken, ..) = takeall(conn, "CL.TAKEALL 2 k k TOKENS 8 1 CAPACITY 50 50 REFILL 0");
    assert_eq!(taken, 1);
}

#[test]
fn takeall_with_a_bad_bucket_changes_none() {
    let server = slow_server().start();
    let conn = &mut server.connection();
    run(conn, &["CL.TAKE a", "HSET bad tokens lots", "CL.TAKE b 2"]);
    let before = digest(conn);
    let corrupt = "ERR bucket 'bad': field 'tokens' holds 'lots', which is not a decimal number \
                   of 0 or more";
    for line in [
        "CL.TAKEALL 1 bad",
        "CL.TAKEALL 3 a b bad",
        "CL.TAKEALL 3 bad a b",
        "CL.TAKEALL 3 a bad missing",
        "CL.TAKEALL 3 a bad b TOKENS 9999",
        "CL.TAKEALL 2 a bad CAPACITY 77 REFILL 5",
    ] {
        assert_eq!(error(conn, line), corrupt, "`{line}`");
        assert_eq!(digest(conn), before, "`{line}`");
    }
}
