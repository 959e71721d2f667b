//! What replicas are sent: effects, as one unit, and nothing that changes nothing.

use crate::appended::{appended, effects, word};
use crate::common::clients::KEYS;
use crate::common::commands::{Commands, Words, names};
use crate::common::{
    DATABASES, PATIENCE, TICK, Way, assert_equal, content, load_function, select, send,
    send_random, settle,
};
use crate::servers::{master, no_warnings, offset, stat};
use claw_testkit::{Server, cmd, digest, eventually, ints, soak, wait_for_offset};
use redis::Value;
use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

#[test]
fn replicas_equal_their_master_after_any_commands() {
    let master = master().config("appendonly", "yes").start();
    let with = Server::replica_of(&master).start();
    let without = Server::replica_of(&master).without_module().start();
    let behind = Server::replica_of(&with).without_module().start();
    let replicas = [&with, &without, &behind];

    let mut conn = master.connection();
    load_function(&mut conn);
    let mut commands = Commands::new(1, KEYS);
    for way in Way::ALL {
        for db in DATABASES {
            select(&mut conn, db);
            send_random(&mut conn, way, 12_500 * soak(), &mut commands);
        }
        for replica in replicas {
            assert_equal(&master, replica);
        }
    }
    let expired = stat(&master, "expired_keys");
    eventually(PATIENCE, TICK, "idle buckets to expire", || {
        stat(&master, "expired_keys") >= expired + 20
    });
    for replica in replicas {
        assert_equal(&master, replica);
    }
    // All of it took part, and keys expired during the traffic.
    let least = 5_000 * soak();
    for field in ["claw_taken", "claw_refused"] {
        assert!(stat(&master, field) > least, "{field}: {}", stat(&master, field));
    }
    for field in ["claw_given", "claw_corrupt", "expired_keys"] {
        assert!(stat(&master, field) > 100, "{field}: {}", stat(&master, field));
    }
    no_warnings(&[&master, &with, &without, &behind]);

    // The stream, and with it the append only file, has effects only.
    settle(&mut conn, &names(KEYS));
    assert_equal(&master, &behind);
    let data = master.stop();
    let known = [
        "SELECT",
        "FUNCTION",
        "MULTI",
        "EXEC",
        "HSET",
        "HDEL",
        "PEXPIREAT",
        "PERSIST",
        "DEL",
        "UNLINK",
    ];
    let mut seen = BTreeSet::new();
    let mut inside = false;
    for words in appended(data.path()) {
        let name = String::from_utf8(words[0].to_ascii_uppercase()).unwrap();
        assert!(known.contains(&name.as_str()), "{name}");
        match name.as_str() {
            "MULTI" => assert!(!std::mem::replace(&mut inside, true)),
            "EXEC" => assert!(std::mem::replace(&mut inside, false)),
            _ => {}
        }
        seen.insert(name);
    }
    assert!(!inside);
    assert_eq!(seen.len(), known.len(), "{seen:?}");

    // So a server without the module can load it.
    let loaded = data.builder().without_module().start();
    assert_eq!(digest(&mut loaded.connection()), digest(&mut behind.connection()));
    assert_eq!(content(&mut loaded.connection()), content(&mut behind.connection()));
    no_warnings(&[&loaded]);
}

#[test]
fn a_call_is_one_unit_of_effects() {
    let server =
        Server::builder().config("appendonly", "yes").config("appendfsync", "always").start();
    let mut conn = server.connection();
    cmd(&mut conn, "DEBUG SET-ACTIVE-EXPIRE 0").unwrap();
    let mut known = appended(server.dir()).len();

    // A refill of a token a second leaves no remainder, and with so many tokens
    // missing the time that the test takes does not matter.
    const BIG: &str = "CAPACITY 1000000 REFILL 1";
    let take = |n: u64, key: &str| format!("CL.TAKE {key} {n} {BIG}");
    let remainder = "HSET r tokens 3 timestamp 2026-03-19T10:00:00Z policy 1000000~1/86399989";
    // What has to be in the file, without MULTI and EXEC around more than one
    // command, and the call, or the calls of one transaction.
    let table: &[(&[&str], &[&str])] = &[
        (&["HSET a tokens timestamp policy", "PEXPIREAT a"], &[&take(500_000, "a")]),
        // The expiry is late enough for another take.
        (&["HSET a tokens timestamp"], &[&take(1, "a")]),
        (&["HSET a tokens timestamp"], &["CL.GIVE a"]),
        (&["HSET a tokens timestamp"], &[&take(200_000, "a")]),
        (&["HSET a tokens timestamp"], &["CL.SETTLE a 4 3"]),
        (&["HSET a tokens timestamp"], &["CL.SETTLE a 3 4"]),
        (&[], &["CL.SETTLE a 3 3"]),
        // A bucket in debt takes longer to be full.
        (
            &["HSET debt tokens timestamp policy", "PEXPIREAT debt"],
            &[&format!("CL.SETTLE debt 0 1900000 {BIG}")],
        ),
        (&["HSET debt tokens timestamp"], &["CL.SETTLE debt 0 900000"]),
        (&[], &["CL.SETTLE debt 0 900000"]),
        // A call that blocks is remembered, for one interval.
        (
            &["HSET block tokens timestamp policy", "PEXPIREAT block"],
            &["CL.TAKE block 1 CAPACITY 0 REFILL 1 INTERVAL 86400000"],
        ),
        (&[], &["CL.TAKE block 1"]),
        (&["HSET block tokens timestamp policy", "PERSIST block"], &["CL.POLICY block CAPACITY 0"]),
        (&[], &[&take(400_000, "a")]),
        (&["HSET a tokens timestamp", "PEXPIREAT a"], &[&(take(400_000, "a") + " PARTIAL")]),
        (&[], &[&take(400_000, "a")]),
        // A refused call that brings a new policy leaves that, and only that.
        (&["HSET a tokens timestamp policy"], &["CL.TAKE a 400000 CAPACITY 1000001 REFILL 1"]),
        (&["HSET a tokens timestamp policy", "PERSIST a"], &["CL.POLICY a CAPACITY 9 REFILL 0"]),
        (&["HSET a tokens timestamp userWeight"], &["CL.POLICY a WEIGHT 3"]),
        (&[], &["CL.POLICY a"]),
        (
            &["HSET a tokens timestamp userWeight", "HDEL a policy", "PEXPIREAT a"],
            &["CL.POLICY a RESET"],
        ),
        (&["HSET b tokens timestamp", "PEXPIREAT b"], &["CL.TAKE b"]),
        (&["HSET never tokens timestamp policy"], &["CL.TAKE never 1 CAPACITY 2 REFILL 0"]),
        (&["HSET never tokens timestamp"], &["CL.TAKE never 1 CAPACITY 2 REFILL 0"]),
        (&[], &["CL.TAKE never 1 CAPACITY 2 REFILL 0"]),
        (&["HSET pinned tokens timestamp policy"], &["CL.POLICY pinned CAPACITY 3"]),
        (
            &["HSET throttle tokens timestamp policy", "PEXPIREAT throttle"],
            &["CL.THROTTLE throttle 999999 1 1 500000"],
        ),
        (&["HSET throttle tokens timestamp"], &["CL.THROTTLE throttle 999999 1 1 3"]),
        (&[], &["CL.THROTTLE throttle 999999 1 1 600000"]),
        (&["HSET throttle tokens timestamp"], &["CL.THROTTLE throttle 999999 1 1 -1"]),
        (
            &[
                "HSET x tokens timestamp policy",
                "PEXPIREAT x",
                "HSET y tokens timestamp policy",
                "PEXPIREAT y",
            ],
            &[&format!("CL.TAKEALL x 300000 {BIG} AND y 300000 {BIG} AND x 300000 {BIG}")],
        ),
        (
            &["HSET x tokens timestamp", "HSET y tokens timestamp"],
            &[&format!("CL.TAKEALL x {BIG} AND y {BIG}")],
        ),
        (&[], &[&format!("CL.TAKEALL x {BIG} AND y 900000 {BIG}")]),
        (&["HSET y tokens timestamp"], &[&format!("CL.TAKEALL x 0 {BIG} AND y 5 {BIG}")]),
        (&["HSET x tokens timestamp", "HSET y tokens timestamp"], &[&take(1, "x"), &take(1, "y")]),
        (&["HSET x tokens timestamp"], &[&take(1, "x"), &take(900_000, "y"), "CL.PEEK x"]),
        // Tokens come with the part of a millionth that they cannot express.
        (&["HSET r tokens timestamp policy"], &[remainder]),
        (
            &["HSET r tokens timestamp remainder", "PEXPIREAT r"],
            &["CL.TAKE r 1 CAPACITY 1000000 REFILL 1 INTERVAL 86399989"],
        ),
        // What a person makes is a bucket; an expiry of the person's is moved.
        (&["HSET hand tokens"], &["HSET hand tokens 7"]),
        (&["HSET hand tokens timestamp", "PEXPIREAT hand"], &["CL.TAKE hand"]),
        (&["PEXPIREAT hand"], &["PEXPIREAT hand 9999999999999"]),
        (&["HSET hand tokens timestamp", "PEXPIREAT hand"], &["CL.TAKE hand"]),
        // Fields of the person's own stay, and keep the key.
        (&["HSET hand note"], &["HSET hand note hello"]),
        (&["HSET hand tokens timestamp", "PERSIST hand"], &["CL.TAKE hand"]),
        (&["HSET hand tokens timestamp"], &["CL.TAKE hand"]),
    ];
    let unit = |lines: &[&str]| match lines.len() {
        0 | 1 => lines.iter().map(ToString::to_string).collect(),
        _ => [&["MULTI"], lines, &["EXEC"]].concat().iter().map(ToString::to_string).collect(),
    };
    for (expected, calls) in table {
        let words = |call: &&str| call.split(' ').map(word).collect();
        let way = if calls.len() == 1 { Way::Plain } else { Way::Transaction };
        for answer in send(&mut conn, way, &[calls.iter().map(words).collect()]) {
            assert!(!matches!(answer, Value::ServerError(_)), "{calls:?}: {answer:?}");
        }
        let expected: Vec<String> = unit(expected);
        assert_eq!(effects(&server, &mut known), expected, "{calls:?}");
    }

    // Scripts and functions are units too.
    load_function(&mut conn);
    effects(&server, &mut known);
    let calls = [take(1, "x"), take(1, "y")].map(|call| call.split(' ').map(word).collect());
    for way in [Way::Script, Way::Function] {
        send(&mut conn, way, &[calls.to_vec()]);
        let expected: Vec<String> = unit(&["HSET x tokens timestamp", "HSET y tokens timestamp"]);
        assert_eq!(effects(&server, &mut known), expected, "{way:?}");
    }

    // A bucket that has expired is first deleted, in the same unit; unless the server has found it
    // by itself before.
    cmd(&mut conn, "DEBUG SET-ACTIVE-EXPIRE 0").unwrap();
    cmd(&mut conn, "PEXPIRE b 1").unwrap();
    thread::sleep(Duration::from_millis(5));
    effects(&server, &mut known);
    assert_eq!(ints(&mut conn, "CL.TAKE b")[..3], [1, 1000, 999]);
    let mut found = effects(&server, &mut known);
    found[1] = found[1].replace("UNLINK", "DEL");
    let expected: Vec<String> = unit(&["DEL b", "HSET b tokens timestamp", "PEXPIREAT b"]);
    assert_eq!(found, expected);
    no_warnings(&[&server]);
}

#[test]
fn what_changes_nothing_replicates_nothing() {
    let master = master().start();
    let replica = Server::replica_of(&master).start();
    let mut conn = master.connection();
    cmd(&mut conn, "CL.TAKE empty 5 CAPACITY 5 REFILL 0").unwrap();
    cmd(&mut conn, "CL.TAKE half 3 CAPACITY 5 REFILL 0").unwrap();
    cmd(&mut conn, "CL.POLICY pinned CAPACITY 5 REFILL 0").unwrap();
    cmd(&mut conn, "CL.THROTTLE slow 0 1 86400").unwrap();
    cmd(&mut conn, "HSET broken tokens many").unwrap();
    cmd(&mut conn, "SET text 1").unwrap();
    load_function(&mut conn);
    wait_for_offset(&master, &replica);
    let before = offset(&mut conn);
    for line in [
        "CL.TAKE empty 1 CAPACITY 5 REFILL 0",
        "CL.TAKE empty 1 CAPACITY 5 REFILL 0 PARTIAL",
        "CL.TAKE half 3 CAPACITY 5 REFILL 0",
        "CL.TAKE half 0 CAPACITY 5 REFILL 0",
        "CL.TAKE pinned 6",
        "CL.TAKE pinned 6 CAPACITY 100 REFILL 5",
        "CL.TAKE missing 1001",
        "CL.TAKE missing 6 CAPACITY 5 REFILL 5",
        "CL.TAKE missing 0",
        "CL.TAKEALL half CAPACITY 5 REFILL 0 AND empty",
        "CL.TAKE half 1 KEEP 2",
        "CL.SETTLE half 3 3",
        "CL.SETTLE missing 3 3 CAPACITY 5 REFILL 5",
        "CL.SETTLE missing 3 2",
        "CL.TAKEALL half AND missing CAPACITY 5 REFILL 0 AND half 2",
        "CL.TAKEALL half 0 AND missing 0 CAPACITY 5 REFILL 0",
        "CL.THROTTLE slow 0 1 86400",
        "CL.THROTTLE slow 0 1 86400 0",
        "CL.THROTTLE missing 0 1 86400 2",
        "CL.GIVE missing 5",
        "CL.GIVE pinned",
        "CL.GIVE half 0",
        "CL.PEEK half",
        "CL.PEEK half 1 CAPACITY 9 REFILL 1",
        "CL.PEEK missing",
        "CL.POLICY half",
        "CL.POLICY missing",
        "CL.POLICY missing RESET",
        "CL.POLICY missing WEIGHT 1",
        "CL.POLICY pinned CAPACITY 5 REFILL 0",
        "CL.TAKE broken",
        "CL.TAKEALL half AND broken",
        "CL.SETTLE broken 1 2",
        "CL.POLICY broken CAPACITY 3",
        "CL.TAKE text",
        "CL.TAKEALL half AND text",
        "CL.SETTLE text 1 2",
        "CL.TAKE half many",
        "CL.POLICY half CAPACITY -1",
    ] {
        let words: Words = line.split(' ').map(Into::into).collect();
        let wrong =
            ["broken", "text", "many", "CAPACITY -1"].iter().any(|part| line.contains(part));
        for way in Way::ALL {
            for answer in send(&mut conn, way, &[vec![words.clone()]]) {
                let refused = matches!(answer, Value::ServerError(_));
                assert_eq!(refused, wrong, "{line}, {way:?}: {answer:?}");
            }
            assert_eq!(offset(&mut conn), before, "{line}, {way:?}");
        }
    }
    // The offset does tell.
    cmd(&mut conn, "CL.TAKE half 1 CAPACITY 5 REFILL 0").unwrap();
    assert_ne!(offset(&mut conn), before);
    no_warnings(&[&master, &replica]);
}
