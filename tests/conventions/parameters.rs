//! `CONFIG`: parameters are set, read, refused and rewritten.

use crate::buckets::slow_server;
use crate::calls::{PATIENCE, TICK, defaults, parameters};
use claw_testkit::{Server, ask, call, cmd, eventually, info_field, ints, run};
use redis::{Connection, Value};
use std::collections::BTreeMap;

#[test]
fn parameters_are_set_and_read() {
    let server = Server::start();
    let conn = &mut server.connection();
    assert_eq!(parameters(conn), defaults("1000", "5"));
    let rows = [
        ("claw.max-tokens 0", "0", "5"),
        ("claw.max-tokens 1", "1", "5"),
        ("claw.max-tokens 1000000000000", "1000000000000", "5"),
        ("CLAW.Max-Tokens 50", "50", "5"),
        ("claw.refill-rate-per-sec 0", "50", "0"),
        ("claw.refill-rate-per-sec 0.000001", "50", "0.000001"),
        ("claw.refill-rate-per-sec 1000000000000", "50", "1000000000000"),
        ("claw.refill-rate-per-sec 2.50", "50", "2.5"),
        ("claw.refill-rate-per-sec 3.3333333333333335", "50", "3.333333"),
        ("claw.refill-rate-per-sec 1e-06", "50", "0.000001"),
        ("claw.max-tokens 7 claw.refill-rate-per-sec 3", "7", "3"),
    ];
    for (setting, max_tokens, refill) in rows {
        run(conn, &[&format!("CONFIG SET {setting}")]);
        assert_eq!(parameters(conn), defaults(max_tokens, refill), "{setting}");
        let policy: Vec<Value> = ask(conn, "CL.POLICY none");
        assert_eq!(policy[1], Value::Int(max_tokens.parse().unwrap()), "{setting}");
        assert_eq!(policy[3], Value::BulkString(refill.into()), "{setting}");
        assert_eq!(policy[5], Value::Int(1000), "{setting}");
    }
}

#[test]
fn a_bad_value_of_a_parameter_is_refused_with_the_reason() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["CONFIG SET claw.max-tokens 70 claw.refill-rate-per-sec 0.7"]);
    let range = "argument must be between 0 and 1000000000000 inclusive";
    let integer = "argument couldn't be parsed into an integer";
    let refill = "refill must be 0 or a number from 0.000001 to 1000000000000";
    let rows: &[(&str, &[&str], &str)] = &[
        ("claw.max-tokens", &["-1", "1000000000001", "9223372036854775807"], range),
        ("claw.max-tokens", &["", "x", "1.5", "1e3", "5gb", "9223372036854775808", " 1"], integer),
        (
            "claw.refill-rate-per-sec",
            &[
                "",
                "-1",
                "x",
                "1e13",
                "1e-9",
                "0.0000001",
                "1000000000001",
                "1.",
                ".5",
                "NaN",
                "inf",
                "1 ",
                "1\0",
                "%s%n",
            ],
            refill,
        ),
    ];
    for (name, values, reason) in rows {
        for value in *values {
            let expected =
                format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}");
            let answer = call(conn, &["CONFIG", "SET", name, value]);
            assert_eq!(answer, Err(expected.clone()), "{name} {value:?}");
            assert_eq!(parameters(conn), defaults("70", "0.7"), "{name} {value:?}");
            // All or nothing.
            for other in [["claw.max-tokens", "9"], ["claw.refill-rate-per-sec", "9"]] {
                if other[0] != *name {
                    let before = call(conn, &["CONFIG", "SET", other[0], other[1], name, value]);
                    assert_eq!(before, Err(expected.clone()), "{name} {value:?}");
                    let after = call(conn, &["CONFIG", "SET", name, value, other[0], other[1]]);
                    assert_eq!(after, Err(expected.clone()), "{name} {value:?}");
                }
            }
            assert_eq!(parameters(conn), defaults("70", "0.7"), "{name} {value:?}");
        }
    }
    let interval = "argument must be between 1 and 60000 inclusive";
    let timeout = "argument must be between 100 and 3600000 inclusive";
    let long_glob = format!("* !{}", "x".repeat(257));
    let too_many = (0..16).map(|n| format!("redis://h{n}")).collect::<Vec<_>>().join(" ");
    let rows: &[(&str, &[&str], &str)] = &[
        ("claw.sync-interval-ms", &["0", "60001", "-1"], interval),
        ("claw.partition-timeout-ms", &["99", "3600001"], timeout),
        (
            "claw.policies",
            &["a* 1 1/1; b* 1 1", "a* 1 1/1;b*"],
            " is not 'PREFIX* capacity refill/interval'",
        ),
        (
            "claw.policies",
            &["a* 1 1/1; a* 2 1/1"],
            "policies: entry 2 'a* 2 1/1' has the pattern of entry 1",
        ),
        ("claw.partition-guard", &["", "on", "half"], ": off, equal or share"),
        ("claw.sync-strategy", &["", "best", "fn:"], ": max, min, weighted, lww, debit or fn:NAME"),
        (
            "claw.sync-keys",
            &["", " \t "],
            "there is no pattern; all keys are '*', and none are '!*'",
        ),
        ("claw.sync-keys", &["a*  !", "a* ! b"], "sync-keys: pattern 2 has nothing behind its '!'"),
        ("claw.sync-keys", &[&long_glob], "sync-keys: pattern 2 is longer than 256 bytes"),
        ("claw.sync-keys", &[&"a* ".repeat(33)], "sync-keys: there are more than 32 patterns"),
        (
            "claw.replica-id",
            &["a b", "eu/west", "é", "abcdefghijklmnopqrstuvwxyz123456"],
            " is not 1 to 31 letters, digits, dots, dashes or underscores",
        ),
        ("claw.peers", &["h:6379", "http://h"], "peer 1 must begin with redis:// or rediss://"),
        (
            "claw.peers",
            &["redis://h redis://h"],
            "peer 2 names the same host and port as one before",
        ),
        (
            "claw.peers",
            &["redis://h/1"],
            "peer 1 names a database or path: all databases are covered, leave it out",
        ),
        ("claw.peers", &[&too_many], "peer 16 is one more than the 15 there can be"),
    ];
    for (name, values, reason) in rows {
        for value in *values {
            let answer = call(conn, &["CONFIG", "SET", name, value]).unwrap_err();
            let begin = format!("ERR CONFIG SET failed (possibly related to argument '{name}') - ");
            assert!(answer.starts_with(&begin) && answer.ends_with(reason), "{value}: {answer}");
            assert_eq!(parameters(conn), defaults("70", "0.7"), "{name} {value:?}");
        }
    }
    let before = parameters(conn);
    for name in before.keys().filter(|name| before[*name].parse::<u64>().is_err()) {
        let binary: [&[u8]; 4] = [b"CONFIG", b"SET", name.as_bytes(), b"* \xff*"];
        let refused = call(conn, &binary).unwrap_err();
        assert!(refused.ends_with("a value must be UTF-8"), "{name}: {refused}");
    }
    assert_eq!(parameters(conn), defaults("70", "0.7"));
    assert_eq!(server.warnings(), Vec::<String>::new());
}

#[test]
fn rewritten_parameters_outlive_a_restart() {
    let rows: [(&[&str], &str, BTreeMap<String, String>); 5] = [
        (&[], "CONFIG SET claw.max-tokens 70 claw.refill-rate-per-sec 0.7", defaults("70", "0.7")),
        // Over arguments of the module, which stay in the file.
        (&["max-tokens", "50"], "CONFIG SET claw.max-tokens 70", defaults("70", "5")),
        (&["max-tokens", "50"], "CONFIG SET claw.max-tokens 1000", defaults("1000", "5")),
        (
            &["refill-rate-per-sec", "2.5", "max-tokens", "50"],
            "CONFIG SET claw.refill-rate-per-sec 5",
            defaults("50", "5"),
        ),
        (&["max-tokens", "0"], "CONFIG SET claw.refill-rate-per-sec 6", defaults("0", "6")),
    ];
    for (args, set, expected) in rows {
        let server = Server::builder().module_args(args.iter().copied()).start();
        let conn = &mut server.connection();
        run(conn, &[set, "CONFIG REWRITE"]);
        assert_eq!(parameters(conn), expected, "{args:?}, {set}");
        let server = server.restart();
        let conn = &mut server.connection();
        assert_eq!(parameters(conn), expected, "{args:?}, {set}");
        let capacity: i64 = expected["claw.max-tokens"].parse().unwrap();
        assert_eq!(ints(conn, "CL.PEEK k 0")[1], capacity, "{args:?}, {set}");
        // And a second time.
        run(conn, &["CONFIG REWRITE"]);
        let server = server.restart();
        assert_eq!(parameters(&mut server.connection()), expected, "{args:?}, {set}");
        assert_eq!(server.warnings(), Vec::<String>::new());
    }
}

/// By whichever way they are set, rules are there again after a rewrite and a restart.
#[test]
fn rules_outlive_a_rewrite_and_a_restart() {
    let shown =
        |conn: &mut Connection| ask::<[String; 2]>(conn, "CONFIG GET claw.policies")[1].clone();
    let (given, expected) =
        ("login:*  5.0 5/9e5;api:* 100 1e2/60000;", "login:* 5 5/900000; api:* 100 100/60000");
    let many: Vec<_> = (0..256).map(|number| format!("tenant:{number}:* 100 5/1000")).collect();
    let many = many.join("; ");
    // Keys with the names of parameters.
    let named = "peers 4 4/1; max-tokens 5 5/1; claw.policies 6 6/1";
    for (by, rules, expected) in [
        ("argument", given, expected),
        ("argument", named, named),
        ("file", given, expected),
        ("set", given, expected),
        ("set", &many, &many),
        ("set", "k'e\"y* 1 1/1", "k'e\"y* 1 1/1"),
        ("set", "", ""),
    ] {
        let builder = Server::builder();
        let server = match by {
            "argument" => builder.module_args(["policies", rules, "max-tokens", "7"]),
            "file" => builder.config_args("claw.policies", [rules]),
            _ => builder,
        }
        .start();
        let conn = &mut server.connection();
        if by == "set" {
            call(conn, &["CONFIG", "SET", "claw.policies", rules]).unwrap();
        }
        assert_eq!(shown(conn), expected, "{by}");
        // What is shown can be set.
        let again = shown(conn);
        call(conn, &["CONFIG", "SET", "claw.policies", &again]).unwrap();
        run(conn, &["CONFIG REWRITE"]);
        let server = server.restart();
        let conn = &mut server.connection();
        assert_eq!(shown(conn), expected, "{by}");
        if by == "argument" {
            let most = ask::<[String; 2]>(conn, "CONFIG GET claw.max-tokens");
            assert_eq!(most[1], "7");
        }
    }
}

/// A rewrite leaves out the quotes in which the arguments of the module stood.
#[test]
fn arguments_with_blanks_outlive_a_rewrite_and_a_restart() {
    let file = "/no such/peers/tls key of max-tokens.pem";
    let rows: [&[&str]; 7] = [
        &["policies", "a:* 5 5/900", "peers", "redis://us:1 redis://ap:2", "replica-id", "eu"],
        &["policies", "a:* 5 5/900; peers 5 5/7", "sync-keys", "a* x/y", "tls-key-file", "/a b/c"],
        &["sync-keys", "limit:* !limit:tmp:*", "max-tokens", "50"],
        &["replica-id", "eu", "peers", "redis://us:6379 redis://ap:6379"],
        &["peers", "redis://us:6379 rediss://ap:6379", "claw.max-tokens", "50"],
        &["tls-key-file", file, "tls-ca-cert-file", "/a b", "replica-id", "peers"],
        // In as many arguments as there are words.
        &["peers", "redis://us:6379", "redis://ap:6379", "peers-password-file", "/a", "b", "c"],
    ];
    for args in rows {
        let server = Server::builder().module_args(args.iter().copied()).start();
        let conn = &mut server.connection();
        let before = parameters(conn);
        for value in args.iter().filter(|word| word.contains(' ')) {
            assert!(before.values().any(|shown| shown == value), "{value}: {before:?}");
        }
        run(conn, &["CONFIG REWRITE"]);
        let server = server.restart();
        assert_eq!(parameters(&mut server.connection()), before, "{args:?}");
    }
}

/// What somebody may see of the parameters of region sync, and what not.
#[test]
fn passwords_of_peers_are_not_shown() {
    let server = slow_server().start();
    let conn = &mut server.connection();
    let peers = "redis://claw:s3cr3t@127.0.0.1:1 rediss://:s3cr3t@[::1]:2 redis://other@h:3";
    let shown = "redis://claw:***@127.0.0.1:1 rediss://:***@[::1]:2 redis://other@h:3";
    run(conn, &["CONFIG SET claw.replica-id eu"]);
    call(conn, &["CONFIG", "SET", "claw.peers", peers]).unwrap();
    let get = |conn: &mut Connection| parameters(conn)["claw.peers"].clone();
    assert_eq!(get(conn), shown);
    // What is shown can be set again, and means the same.
    call(conn, &["CONFIG", "SET", "claw.peers", shown]).unwrap();
    assert_eq!(get(conn), shown);
    // But it is no password.
    for unknown in ["redis://claw:***@h:1", "rediss://claw:***@127.0.0.1:1", "redis://:***@h:3"] {
        let refused = call(conn, &["CONFIG", "SET", "claw.peers", unknown]).unwrap_err();
        let reason = "peers: peer 1 has *** for a password, and no peer until now has this user, \
                      host and port";
        assert!(refused.ends_with(reason), "{refused}");
        assert_eq!(get(conn), shown);
    }
    // A wrong one is not quoted in the error.
    let wrong = "redis://claw:s3cr3t@h:port";
    let refused = call(conn, &["CONFIG", "SET", "claw.peers", wrong]).unwrap_err();
    // The server's SLOWLOG does show CONFIG SET with its value: of a module's
    // parameters it hides none, though this one is registered as sensitive.
    let lists = ["CL.SYNC STATUS", "INFO everything", "CONFIG GET *"];
    let mut seen: Vec<String> = lists.map(|line| format!("{:?}", cmd(conn, line).unwrap())).into();
    seen.extend([refused, server.log()]);
    for text in seen {
        assert!(!text.contains("s3cr3t"), "{text}");
    }
    // A user without a password needs the file; nothing is sent until then.
    let file = server.dir().join("password");
    std::fs::write(&file, "s3cr3t\n").unwrap();
    let reason = "redis://other@h:3 has a user and no password";
    eventually(PATIENCE, TICK, "the reason in the log", || server.log().contains(reason));
    call(conn, &["CONFIG", "SET", "claw.peers-password-file", file.to_str().unwrap()]).unwrap();
    eventually(PATIENCE, TICK, "three peers", || {
        info_field(conn, "claw", "claw_sync_peers").as_deref() == Some("3")
    });
    assert!(!server.log().contains("s3cr3t"));
}
