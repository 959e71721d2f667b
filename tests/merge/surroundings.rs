//! Access rules, keys, slots, configuration and counters.

use crate::calls::{held, load_example, merge_state, state, still_server};
use claw_testkit::{
    Server, ask, cmd, digest, error, info_field, ints, redis_version, run, serve_all_slots,
};
use redis::Connection;

#[test]
fn access_rules() {
    let server = still_server();
    let conn = &mut server.connection();
    load_example(conn, "premium-first.lua");
    run(conn, &["HSET dst:1 tokens 7 timestamp 1", "HSET src:1 tokens 3 timestamp 1"]);
    run(conn, &["HSET other tokens 1 timestamp 1"]);
    run(conn, &["ACL SETUSER plain on >p ~* +cl.merge +cl.verify"]);
    run(conn, &["ACL SETUSER caller on >p ~* +cl.merge +cl.verify +fcall_ro"]);
    run(conn, &["ACL SETUSER forbidden on >p ~* +@all -@scripting"]);
    run(conn, &["ACL SETUSER keys on >p ~dst:* %R~src:* +cl.merge +cl.state"]);
    let as_user = |name: &str| {
        let mut conn = server.connection();
        run(&mut conn, &[&format!("AUTH {name} p")]);
        conn
    };
    // Redis 7.0 says it in other words than later servers.
    let denied = |text: &str| {
        let why = text.strip_prefix("NOPERM function 'premium_first': ").unwrap_or_default();
        why.contains("no permissions") || why.starts_with("acl verification failed")
    };
    for name in ["plain", "forbidden"] {
        let user = &mut as_user(name);
        for line in [
            "CL.MERGE dst:1 FROM 1 src:1 STRATEGY fn:premium_first",
            "CL.VERIFY fn:premium_first SAMPLES 10",
        ] {
            let before = digest(conn);
            let text = error(user, line);
            assert!(denied(&text), "{name}: {text}");
            assert_eq!(digest(conn), before);
        }
        assert_eq!(ints(user, "CL.MERGE dst:1 FROM 1 src:1 STRATEGY max"), [0, 1000, 7]);
    }
    let caller = &mut as_user("caller");
    let line = "CL.MERGE dst:1 FROM 1 src:1 STRATEGY fn:premium_first";
    assert_eq!(ints(caller, line), [1, 1000, 3]);

    let keys = &mut as_user("keys");
    assert_eq!(ints(keys, "CL.MERGE dst:1 FROM 2 src:1 dst:1"), [0, 1000, 3]);
    for line in [
        "CL.MERGE src:1 FROM 1 dst:1",
        "CL.MERGE dst:1 FROM 1 other",
        "CL.MERGE dst:1 FROM 2 src:1 other",
        "CL.MERGE other FIELDS tokens 5",
        "CL.STATE other",
        "CL.VERIFY max",
    ] {
        assert!(error(keys, line).starts_with("NOPERM "), "{line}");
    }
    assert!(cmd(keys, "CL.STATE src:1").is_ok());
    // Redis 7.0 keeps modules out of its categories.
    let categorized = redis_version(conn) >= (7, 2);
    for (category, command) in [("write", "CL.MERGE"), ("read", "CL.STATE"), ("read", "CL.VERIFY")]
    {
        let listed: Vec<String> = ask(conn, &format!("ACL CAT {category}"));
        assert_eq!(listed.contains(&command.to_lowercase()), categorized, "{command}");
    }
}

#[test]
fn keys_are_found_in_every_form() {
    let server = still_server();
    let conn = &mut server.connection();
    #[rustfmt::skip]
    let table: [(&str, &[&str]); 8] = [
        ("CL.MERGE d FROM 2 a b", &["d", "a", "b"]),
        ("CL.MERGE d from 2 a b strategy max", &["d", "a", "b"]),
        ("CL.MERGE d FROM 1 FROM", &["d", "FROM"]),
        ("CL.MERGE FROM FROM 1 STATE", &["FROM", "STATE"]),
        ("CL.MERGE d FIELDS tokens 5", &["d"]),
        ("CL.MERGE d FIELDS tokens 5 STRATEGY min", &["d"]),
        ("CL.MERGE d STATE x y", &["d"]),
        ("CL.STATE d", &["d"]),
    ];
    for (line, keys) in table {
        let found: Vec<String> = ask(conn, &format!("COMMAND GETKEYS {line}"));
        assert_eq!(found, keys, "{line}");
    }
    let flags: Vec<(String, Vec<String>)> =
        ask(conn, "COMMAND GETKEYSANDFLAGS CL.MERGE d FROM 1 a");
    assert_eq!(flags[0].0, "d");
    assert_eq!(flags[0].1[0], "RW");
    assert_eq!(flags[1].1[0], "RO");
}

#[test]
fn slots_of_a_cluster() {
    let server = Server::builder().config("cluster-enabled", "yes").start();
    let conn = &mut server.connection();
    serve_all_slots(conn);
    load_example(conn, "premium-first.lua");
    run(conn, &["HSET {u}a tokens 5", "HSET {u}b tokens 3", "HSET other tokens 1"]);
    let crossed = "CROSSSLOT Keys in request don't hash to the same slot";
    for strategy in ["min", "fn:premium_first"] {
        let answer = ints(conn, &format!("CL.MERGE {{u}}a FROM 1 {{u}}b STRATEGY {strategy}"));
        assert_eq!(answer[1..], [1000, 3], "{strategy}");
        let line = format!("CL.MERGE {{u}}a FROM 2 {{u}}b other STRATEGY {strategy}");
        assert_eq!(error(conn, &line), crossed);
        assert_eq!(
            error(conn, &format!("CL.MERGE other FROM 1 {{u}}b STRATEGY {strategy}")),
            crossed
        );
    }
    // What is no key has no slot.
    assert_eq!(ints(conn, "CL.MERGE other FIELDS {u}a {u}b tokens 1")[1], 1000);
    let blob = state(conn, "{u}a");
    assert_eq!(merge_state(conn, "other", &[blob], "max")[1], 1000);
    assert!(cmd(conn, "CL.VERIFY fn:premium_first SAMPLES 10").is_ok());
}

#[test]
fn the_default_strategy_is_configured() {
    let server = still_server();
    let conn = &mut server.connection();
    load_example(conn, "premium-first.lua");
    let strategy = |conn: &mut Connection| -> String {
        let pair: Vec<String> = ask(conn, "CONFIG GET claw.merge-strategy");
        pair[1].clone()
    };
    assert_eq!(strategy(conn), "max");
    #[rustfmt::skip]
    let table = [
        ("min",              "min",              "tokens 100 userWeight 1"),
        ("WEIGHTED",         "weighted",         "tokens 200 userWeight 2"),
        ("max",              "max",              "tokens 900 userWeight 2"),
        ("lww",              "lww",              "tokens 100 userWeight 1"),
        ("fn:premium_first", "fn:premium_first", "tokens 900 userWeight 2"),
    ];
    for (value, shown, expected) in table {
        run(conn, &[&format!("CONFIG SET claw.merge-strategy {value}")]);
        assert_eq!(strategy(conn), shown);
        run(conn, &["DEL k", "HSET k tokens 100 timestamp 2 userWeight 1"]);
        run(conn, &["CL.MERGE k FIELDS tokens 900 timestamp 1 userWeight 2"]);
        assert_eq!(held(conn, "k"), expected, "{value}");
        // A call's own strategy comes first.
        run(conn, &["DEL k", "HSET k tokens 100 timestamp 2"]);
        run(conn, &["CL.MERGE k FIELDS tokens 900 timestamp 1 STRATEGY min"]);
        assert_eq!(held(conn, "k"), "tokens 100", "{value}");
    }
    for value in ["best", "fn:", "fn:a.b", "FN:x"] {
        let text = error(conn, &format!("CONFIG SET claw.merge-strategy {value}"));
        assert_eq!(
            text,
            format!(
                "ERR CONFIG SET failed (possibly related to argument 'claw.merge-strategy') - \
                 unknown strategy '{value}': max, min, weighted, lww, debit or fn:NAME"
            )
        );
        assert_eq!(strategy(conn), "fn:premium_first");
    }
    // It is written to the configuration file, and read from there.
    run(conn, &["CONFIG REWRITE"]);
    let server = server.restart();
    assert_eq!(strategy(&mut server.connection()), "fn:premium_first");
    // A module argument, good and bad. The function need not exist yet.
    let builder = || Server::builder().module_args(["merge-strategy", "fn:later"]);
    assert_eq!(strategy(&mut builder().start().connection()), "fn:later");
    let log = Server::builder().module_args(["merge-strategy", "best"]).try_start().unwrap_err();
    assert!(log.contains("module argument 'merge-strategy': unknown strategy 'best'"), "{log}");
}

#[test]
fn merges_are_counted() {
    let server = still_server();
    let conn = &mut server.connection();
    run(conn, &["HSET k tokens 5 timestamp 1", "SET text hello", "HSET bad tokens x"]);
    let counted = |conn: &mut Connection| {
        ["claw_merged", "claw_merge_errors", "claw_corrupt"]
            .map(|field| info_field(conn, "claw", field).unwrap().parse::<u64>().unwrap())
    };
    #[rustfmt::skip]
    let table = [
        ("CL.MERGE k FIELDS tokens 7 timestamp 1",        [1, 0, 0]),
        ("CL.MERGE k FIELDS tokens 7 timestamp 1",        [0, 0, 0]),
        ("CL.MERGE k FROM 1 none",                        [0, 0, 0]),
        ("CL.MERGE new FROM 1 k",                         [1, 0, 0]),
        ("CL.MERGE k FIELDS tokens x",                    [0, 1, 0]),
        ("CL.MERGE k FROM 1 text",                        [0, 1, 0]),
        ("CL.MERGE k FROM 1 bad",                         [0, 1, 1]),
        ("CL.MERGE k FROM 1 new STRATEGY fn:none",        [0, 1, 0]),
        ("CL.VERIFY min SAMPLES 10",                      [0, 0, 0]),
        ("CL.STATE k",                                    [0, 0, 0]),
        ("CL.STATE bad",                                  [0, 0, 1]),
    ];
    for (line, expected) in table {
        let before = counted(conn);
        assert_eq!(cmd(conn, line).is_err(), expected[1..] != [0, 0], "{line}");
        let after = counted(conn);
        assert_eq!([0, 1, 2].map(|i| after[i] - before[i]), expected, "{line}");
    }
}
