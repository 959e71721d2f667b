//! Fields that are not the module's, and fields that expire.

use crate::buckets::clock;
use crate::calls::{fields_expire, hset};
use claw_testkit::{Server, ask, call_bytes, error, eventually, fields, int, ints, run};
use std::time::Duration;

/// Everything that writes a bucket.
const WRITERS: &[&str] = &[
    "CL.TAKE k",
    "CL.TAKE k 2 CAPACITY 50 REFILL 3 INTERVAL 7",
    "CL.TAKE k 5000 PARTIAL",
    "CL.GIVE k 5",
    "CL.TAKEALL k CAPACITY 90 REFILL 5 AND k 2 CAPACITY 90 REFILL 5",
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
            call_bytes(conn, &[b"HSET", b"k", b"long", long.as_bytes()]).unwrap();
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
