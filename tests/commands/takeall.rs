//! `CL.TAKEALL`: all or none.

use crate::buckets::slow_server;
use crate::calls::{takeall, wait_ms};
use claw_testkit::{Server, ask, digest, error, fields, int, run};

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
        ("a", (1, -1, vec![took(1, 10, 9)])),
        ("a AND b AND c", (1, -1, vec![took(1, 10, 9), took(1, 5, 4), took(1, 1, 0)])),
        ("c AND b AND a", (1, -1, vec![took(1, 1, 0), took(1, 5, 4), took(1, 10, 9)])),
        ("a 5 AND b 5", (1, -1, vec![took(5, 10, 5), took(5, 5, 0)])),
        ("a 10 AND b 5", (1, -1, vec![took(10, 10, 0), took(5, 5, 0)])),
        ("a 2 and b 3 And c 0", (1, -1, vec![took(2, 10, 8), took(3, 5, 2), enough(1)])),
        ("a 0 AND b 0", (1, -1, vec![enough(10), enough(5)])),
        // The first that refuses is named; nobody is charged.
        ("a 6 AND b 6", (0, 1, vec![enough(10), too_many(5)])),
        ("b 6 AND a 6", (0, 0, vec![too_many(5), enough(10)])),
        ("a 2 AND b 2 AND c 2", (0, 2, vec![enough(10), enough(5), too_many(1)])),
        ("a 11 AND b AND c 2", (0, 0, vec![too_many(10), enough(5), too_many(1)])),
        // A key named twice is charged twice.
        ("a AND a", (1, -1, vec![took(1, 10, 9), took(1, 10, 8)])),
        ("a 4 AND b 5 AND a 6", (1, -1, vec![took(4, 10, 6), took(5, 5, 0), took(6, 10, 0)])),
        ("c AND c", (0, 1, vec![enough(1), too_many(1)])),
        ("a 5 AND a 6", (0, 1, vec![enough(10), too_many(10)])),
        ("a 10 AND c AND a", (0, 2, vec![enough(10), enough(1), too_many(10)])),
        ("a 1000000000000 AND a AND a 1000000000000", (0, 0, vec![too_many(10); 3])),
        // What has to be left afterwards.
        ("a 6 KEEP 4 AND b 5 KEEP 0", (1, -1, vec![took(6, 10, 4), took(5, 5, 0)])),
        ("a 6 KEEP 5 AND b", (0, 0, vec![too_many(10), enough(5)])),
        ("a AND b KEEP 5", (0, 1, vec![enough(10), too_many(5)])),
        ("a 0 KEEP 99 AND b", (1, -1, vec![enough(10), took(1, 5, 4)])),
        // Of a key that is named twice each group says what it leaves.
        ("a 6 AND a 2 KEEP 2", (1, -1, vec![took(6, 10, 4), took(2, 10, 2)])),
        ("a 6 AND a 2 KEEP 3", (0, 1, vec![enough(10), too_many(10)])),
        ("a 6 KEEP 4 AND a 4", (1, -1, vec![took(6, 10, 4), took(4, 10, 0)])),
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
        let groups = args.split(" AND ").flat_map(|group| group.split(" and "));
        let groups = groups.flat_map(|group| group.split(" And "));
        let keys: Vec<&str> = groups.map(|group| group.split(' ').next().unwrap()).collect();
        assert_eq!(keys.len(), expected.2.len(), "{args}");
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
        ("k 6 AND k 2", -1, "now now"),
        ("k 6 AND k 3", 1, "now later"),
        ("k 6 AND k 4", 1, "now later"),
        // Together more than the capacity.
        ("k 6 AND k 5", 1, "now never"),
        ("k 10 AND k", 0, "later never"),
        ("k 8 AND k 2 AND k", 1, "now later never"),
        ("k 11 AND k 0 AND k 0", 0, "never now now"),
        ("k 1000000000000 AND k 1000000000000", 0, "never never"),
        ("k AND other AND k 8", 2, "now now later"),
        ("other 5 AND k AND other 6", 2, "now now never"),
        ("k 8 KEEP 1", 0, "later"),
        ("k 8 KEEP 2", 0, "later"),
        ("k 8 KEEP 3", 0, "never"),
    ];
    let options = "CAPACITY 10 REFILL 1 INTERVAL 31622400000";
    for (args, refusing, expected) in rows {
        run(conn, &["FLUSHALL", &format!("CL.TAKE k 2 {options}")]);
        let before = digest(conn);
        let line = args.replace(" AND", &format!(" {options} AND"));
        let (taken, index, each) = takeall(conn, &format!("CL.TAKEALL {line} {options}"));
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
fn each_group_has_options_of_its_own() {
    let server = Server::start();
    let conn = &mut server.connection();
    let rows: &[(&str, &[(&str, &str)])] = &[
        ("x CAPACITY 9 REFILL 5 AND y", &[("8", "9 5/1000"), ("999", "")]),
        (
            "x CAPACITY 9 REFILL 5 AND y CAPACITY 8 REFILL 5",
            &[("8", "9 5/1000"), ("7", "8 5/1000")],
        ),
        ("x REFILL 0.5 AND y REFILL 2", &[("0", "1 0.5/1000"), ("1", "2 2/1000")]),
        ("x REFILL 3 INTERVAL 50 AND y REFILL 3 INTERVAL 60", &[("2", "3 3/50"), ("2", "3 3/60")]),
        ("x INTERVAL 7 REFILL 1 AND y refill 2 interval 7", &[("0", "1 1/7"), ("1", "2 2/7")]),
        (
            "x 1 INTERVAL 5 REFILL 3 CAPACITY 11 AND y 2 INTERVAL 6 REFILL 4 CAPACITY 12",
            &[("10", "11 3/5"), ("10", "12 4/6")],
        ),
        ("x 3 AND y 4", &[("997", ""), ("996", "")]),
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
    let line = "CL.TAKEALL a 2 CAPACITY 5 REFILL 50 AND b 3 CAPACITY 5 REFILL 70 KEEP 1 \
                AND a 2 CAPACITY 5 REFILL 50";
    for _ in 0..5 {
        let mut reply = takeall(conn, line);
        while reply.0 == 1 {
            reply = takeall(conn, line);
        }
        // What the answer says of all of them.
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
    let (taken, index, each) = takeall(conn, &format!("CL.TAKEALL {}", keys.join(" AND ")));
    assert_eq!((taken, index, each.len()), (1, -1, 1024));
    assert_eq!(int(conn, "DBSIZE"), 512);
    assert_eq!(fields(conn, "k511")["tokens"], "998");
}

/// The first word of a group is a key, whatever it says.
#[test]
fn a_key_may_be_named_like_an_option() {
    let server = Server::start();
    let conn = &mut server.connection();
    for (line, keys) in [
        ("AND", &["AND"][..]),
        ("AND AND AND", &["AND", "AND"]),
        ("AND 2 AND and 3", &["AND", "and"]),
        ("k AND AND 2 AND CAPACITY AND 7", &["k", "AND", "CAPACITY", "7"]),
        ("7 7 AND KEEP KEEP 7", &["7", "KEEP"]),
    ] {
        run(conn, &["FLUSHALL"]);
        let found: Vec<String> = ask(conn, &format!("COMMAND GETKEYS CL.TAKEALL {line}"));
        assert_eq!(found, keys, "{line}");
        let (taken, _, each) = takeall(conn, &format!("CL.TAKEALL {line}"));
        assert_eq!((taken, each.len()), (1, keys.len()), "{line}");
        for key in keys {
            assert_eq!(int(conn, &format!("EXISTS {key}")), 1, "{line}: {key}");
        }
    }
}

/// One bucket has one policy: a call that names it twice cannot give it two.
#[test]
fn a_key_of_takeall_has_one_policy() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["CL.TAKE k 1 CAPACITY 50 REFILL 0"]);
    let before = digest(conn);
    for line in [
        "CL.TAKEALL k 8 CAPACITY 5 REFILL 0 AND k CAPACITY 100 REFILL 0",
        "CL.TAKEALL k CAPACITY 50 REFILL 0 AND other AND k CAPACITY 50 REFILL 1",
        "CL.TAKEALL k REFILL 1 INTERVAL 1 AND k REFILL 1 INTERVAL 2",
    ] {
        assert_eq!(error(conn, line), "ERR key 'k' is given two policies", "{line}");
        assert_eq!(digest(conn), before, "{line}");
    }
    // The same one twice is one, and what one group brings holds for all of them.
    for line in [
        "CL.TAKEALL k 8 CAPACITY 50 REFILL 0 AND k CAPACITY 50 REFILL 0",
        "CL.TAKEALL k 8 AND k CAPACITY 50 REFILL 0",
        "CL.TAKEALL k 8 CAPACITY 50 REFILL 0 AND k",
    ] {
        let (taken, _, each) = takeall(conn, line);
        assert_eq!((taken, each[0][1], each[1][1]), (1, 50, 50), "{line}");
    }
}

#[test]
fn takeall_with_a_bad_bucket_changes_none() {
    let server = slow_server().start();
    let conn = &mut server.connection();
    run(conn, &["CL.TAKE a", "HSET bad tokens lots", "CL.TAKE b 2"]);
    let before = digest(conn);
    let corrupt = "ERR bucket 'bad': field 'tokens' holds 'lots', which is not a decimal number";
    for line in [
        "CL.TAKEALL bad",
        "CL.TAKEALL a AND b AND bad",
        "CL.TAKEALL bad AND a AND b",
        "CL.TAKEALL a AND bad AND missing",
        "CL.TAKEALL a 9999 AND bad AND b 9999",
        "CL.TAKEALL a CAPACITY 77 REFILL 5 AND bad",
    ] {
        assert_eq!(error(conn, line), corrupt, "`{line}`");
        assert_eq!(digest(conn), before, "`{line}`");
    }
}
