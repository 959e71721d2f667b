//! What is in the hash, how large it is, and that it needs no module to be loaded.

use crate::buckets::{clock, slow_server};
use crate::calls::hset;
use claw_testkit::{Server, ask, call, call_bytes, digest, error, fields, int, ints, run};
use std::collections::BTreeMap;

#[test]
fn a_person_can_read_a_bucket() {
    let server = Server::start();
    let conn = &mut server.connection();
    // Commands on one key, and the fields then, besides the timestamp.
    type Row = (&'static [&'static str], &'static [(&'static str, &'static str)]);
    let rows: &[Row] = &[
        (&["CL.TAKE k"], &[("tokens", "999")]),
        (&["CL.TAKE k 1000"], &[("tokens", "0")]),
        (&["CL.TAKE k CAPACITY 5 REFILL 5"], &[("tokens", "4"), ("policy", "5 5/1000")]),
        (
            &["CL.TAKE k 2 REFILL 2.50 INTERVAL 60000"],
            &[("tokens", "1"), ("policy", "3 2.5/60000")],
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
        (&["CL.TAKEALL k CAPACITY 3 REFILL 5"], &[("tokens", "2"), ("policy", "3 5/1000")]),
        (&["CL.THROTTLE k 15 30 60"], &[("tokens", "15"), ("policy", "16 30/60000")]),
        // A call without a policy leaves the bucket its own; without one there is nothing to store.
        (
            &["CL.TAKE k 3 CAPACITY 5 REFILL 0", "CL.TAKE k 2"],
            &[("tokens", "0"), ("policy", "5 0/1000")],
        ),
        (&["CL.TAKE k 3 CAPACITY 5 REFILL 0", "CL.POLICY k RESET"], &[("tokens", "2")]),
    ];
    for (lines, expected) in rows {
        run(conn, &["DEL k"]);
        let early = clock(conn);
        run(conn, lines);
        let late = clock(conn) + 1000;
        let mut found = fields(conn, "k");
        let timestamp = found.remove("timestamp").expect("a timestamp");
        let at: u128 = timestamp.parse().expect("an integer");
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
    // Taken from after 10 ms and up to 19 us more: whether the rate, in millionths,
    // times any of these is a multiple of the interval.
    let rows = [
        ("REFILL 1 INTERVAL 1000", false),
        ("REFILL 0.5 INTERVAL 1000", true),
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
        assert_eq!(seen, expected, "{options}");
    }
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
                    call_bytes(conn, &[b"RESTORE", b"k", at.as_bytes(), &dump, b"ABSTTL"]).unwrap();
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
    // A rule is not stored, and makes no bucket larger than the default does.
    run(conn, &["CL.TAKE default:key"]);
    call(conn, &["CONFIG", "SET", "claw.policies", "user:* 70 7/60000"]).unwrap();
    run(conn, &["CL.TAKE user:abcdef"]);
    assert_eq!(int(conn, "HLEN user:abcdef"), 2);
    let bytes = int(conn, "MEMORY USAGE user:abcdef");
    assert_eq!(bytes, int(conn, "MEMORY USAGE default:key"));
    assert!(bytes <= 104, "{bytes} bytes");
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
                "CL.TAKEALL a REFILL 7 INTERVAL 30000000 AND d REFILL 7 INTERVAL 30000000 AND d REFILL 7 INTERVAL 30000000",
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
