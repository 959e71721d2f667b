//! Loading the module, with arguments, and unloading it, also under traffic.

use crate::calls::{PATIENCE, TICK, counters, defaults, parameters};
use claw_testkit::{
    Server, ask, call, cmd, digest, error, eventually, ints, module_path, run, wire_error,
};
use redis::{Connection, Value};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::thread;

fn load(conn: &mut Connection, args: &str) -> Result<Value, String> {
    let path = module_path();
    let mut words = vec!["MODULE", "LOAD", path.to_str().unwrap()];
    words.extend(args.split_whitespace());
    call(conn, &words)
}

fn loadex(conn: &mut Connection, args: &str) -> Result<Value, String> {
    let path = module_path();
    let mut words = vec!["MODULE", "LOADEX", path.to_str().unwrap()];
    words.extend(args.split_whitespace());
    call(conn, &words)
}

#[test]
fn the_module_takes_arguments() {
    let server = Server::builder().without_module().start();
    let conn = &mut server.connection();
    let rows = [
        ("", defaults("1000", "5")),
        ("max-tokens 50", defaults("50", "5")),
        ("claw.max-tokens 50", defaults("50", "5")),
        ("Max-Tokens 50", defaults("50", "5")),
        ("refill-rate-per-sec 0.25", defaults("1000", "0.25")),
        ("claw.refill-rate-per-sec 0 max-tokens 1", defaults("1", "0")),
        ("max-tokens 1000000000000 refill-rate-per-sec 1000000000000", {
            defaults("1000000000000", "1000000000000")
        }),
    ];
    for (args, expected) in rows {
        load(conn, args).unwrap_or_else(|e| panic!("{args}: {e}"));
        assert_eq!(parameters(conn), expected, "{args}");
        let capacity: i64 = expected["claw.max-tokens"].parse().unwrap();
        assert_eq!(ints(conn, "CL.PEEK k 0")[1], capacity, "{args}");
        run(conn, &["MODULE UNLOAD claw"]);
        assert_eq!(parameters(conn), BTreeMap::new());
    }
    let rows = [
        ("CONFIG claw.max-tokens 70", defaults("70", "5")),
        ("ARGS max-tokens 60", defaults("60", "5")),
        ("CONFIG claw.max-tokens 70 CONFIG claw.refill-rate-per-sec 1.5", defaults("70", "1.5")),
        // A parameter is stronger than an argument.
        ("CONFIG claw.max-tokens 70 ARGS max-tokens 60", defaults("70", "5")),
        ("CONFIG claw.max-tokens 70 ARGS refill-rate-per-sec 2", defaults("70", "2")),
    ];
    for (args, expected) in rows {
        loadex(conn, args).unwrap_or_else(|e| panic!("{args}: {e}"));
        assert_eq!(parameters(conn), expected, "{args}");
        run(conn, &["MODULE UNLOAD claw"]);
    }
    assert_eq!(server.warnings(), Vec::<String>::new());
}

#[test]
fn bad_arguments_are_refused_and_the_server_goes_on() {
    let server = Server::builder().without_module().start();
    let conn = &mut server.connection();
    run(conn, &["HSET k tokens 5"]);
    let capacity = "capacity must be an integer from 0 to 1000000000000";
    let refill = "refill must be 0 or a number from 0.000001 to 1000000000000";
    let rows = [
        ("LOAD bogus 1", "unknown module argument 'bogus'".into()),
        ("LOAD max-tokens 5 bogus 1", "unknown module argument 'bogus'".into()),
        ("LOAD %s%n 1", "unknown module argument '%s%n'".into()),
        ("LOAD claw.claw.max-tokens 1", "unknown module argument 'claw.claw.max-tokens'".into()),
        ("LOAD max-tokens", "module argument 'max-tokens' needs a value".into()),
        (
            "LOAD max-tokens 5 refill-rate-per-sec",
            "module argument 'refill-rate-per-sec' needs a value".into(),
        ),
        ("LOAD max-tokens -7", format!("module argument 'max-tokens': {capacity}")),
        ("LOAD max-tokens -1", format!("module argument 'max-tokens': {capacity}")),
        ("LOAD max-tokens 1000000000001", format!("module argument 'max-tokens': {capacity}")),
        ("LOAD claw.max-tokens x", format!("module argument 'claw.max-tokens': {capacity}")),
        ("LOAD refill-rate-per-sec -1", format!("module argument 'refill-rate-per-sec': {refill}")),
        ("LOADEX ARGS max-tokens -7", format!("module argument 'max-tokens': {capacity}")),
        (
            "LOADEX CONFIG claw.max-tokens -7",
            "claw.max-tokens : argument must be between 0 and 1000000000000 inclusive".into(),
        ),
        (
            "LOADEX CONFIG claw.refill-rate-per-sec x",
            format!("claw.refill-rate-per-sec : {refill}"),
        ),
        ("LOADEX CONFIG claw.bogus 1", "Loadex configurations were not applied".into()),
    ];
    for (args, reason) in rows {
        let logged = server.log().len();
        let answer = match args.split_once(' ') {
            Some(("LOAD", args)) => load(conn, args),
            Some((_, args)) => loadex(conn, args),
            None => panic!("{args}"),
        };
        let expected = "ERR Error loading the extension. Please check the server logs.";
        assert_eq!(answer, Err(expected.to_owned()), "{args}");
        let log = server.log().split_off(logged);
        assert!(log.contains(&reason), "{args}: {log}");
        assert!(error(conn, "CL.TAKE k").starts_with("ERR unknown command"), "{args}");
        assert_eq!(parameters(conn), BTreeMap::new(), "{args}");
        assert!(!ask::<String>(conn, "INFO everything").contains("# claw"), "{args}");
    }
    // In a transaction the server takes it back as well.
    let path = module_path();
    let loadex = format!("MODULE LOADEX {} CONFIG claw.bogus 1", path.to_str().unwrap());
    run(conn, &["MULTI", &loadex, "PING"]);
    let _ = cmd(conn, "EXEC");
    assert_eq!(parameters(conn), BTreeMap::new());
    // The next good one works.
    load(conn, "max-tokens 9").unwrap();
    assert_eq!(parameters(conn), defaults("9", "5"));
    assert_eq!(ints(conn, "CL.TAKE k")[..3], [1, 9, 4]);
    // Once is enough.
    assert!(load(conn, "").is_err());
    assert_eq!(ints(conn, "CL.TAKE k 2")[0], 2);
    assert_eq!(parameters(conn), defaults("9", "5"));

    // In the configuration file a bad argument keeps the server from starting.
    let log = Server::builder().module_args(["max-tokens", "-7"]).try_start().unwrap_err();
    assert!(log.contains(&format!("module argument 'max-tokens': {capacity}")), "{log}");
}

/// Once written by a rewrite they would say something else, or keep the server from starting.
#[test]
fn arguments_that_a_rewrite_does_not_keep_are_refused() {
    let server = Server::builder().without_module().start();
    let conn = &mut server.connection();
    let path = module_path();
    let empty = "is empty, which CONFIG REWRITE does not keep: leave the parameter out";
    let quote = "has a quote or control character, which CONFIG REWRITE does not keep: give the \
                 parameter a line of its own";
    let rows: [(&[&[u8]], u8, &str); 8] = [
        (&[b"replica-id", b"", b"peers", b""], 2, empty),
        (&[b"replica-id", b"eu", b"peers", b" \t "], 4, empty),
        (&[b"", b"max-tokens", b"5"], 1, empty),
        (&[b"policies", b"k'* 1 1/1"], 2, quote),
        (&[b"tls-key-file", b"/a\"b"], 2, quote),
        (&[b"max-tokens", b"5", b"policies", b"a* 1 1/1;\nb* 1 1/1"], 4, quote),
        (&[b"tls-key-file", b"/a\0b"], 2, quote),
        (&[b"policies", b"\xff* 1 1/1"], 2, "is not UTF-8"),
    ];
    for (args, number, why) in rows {
        let logged = server.log().len();
        let words: Vec<&[u8]> =
            [&[b"MODULE".as_slice(), b"LOAD", path.as_os_str().as_encoded_bytes()], args].concat();
        assert!(call(conn, &words).is_err(), "{args:?}");
        let log = server.log().split_off(logged);
        assert!(log.contains(&format!("module argument {number} {why}")), "{args:?}: {log}");
    }
    // As on the first day, so after a rewrite.
    let answer =
        call(conn, &["MODULE", "LOAD", path.to_str().unwrap(), "sync-keys", "a* max-tokens"]);
    assert!(answer.is_err());
    assert!(server.log().contains("module argument 'max-tokens' needs a value"));
    assert!(server.is_alive());
}

#[test]
fn unloading_forgets_settings_and_keeps_buckets() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["CONFIG SET claw.max-tokens 70", "CL.POLICY k CAPACITY 9 REFILL 0", "CL.TAKE k 4"]);
    let before = digest(conn);
    run(conn, &["MODULE UNLOAD claw"]);
    assert_eq!(digest(conn), before);
    assert!(error(conn, "CL.TAKE k").starts_with("ERR unknown command"));
    assert_eq!(ask::<Vec<String>>(conn, "COMMAND LIST FILTERBY MODULE claw"), [""; 0]);
    load(conn, "").unwrap();
    assert_eq!(parameters(conn), defaults("1000", "5"));
    assert_eq!(counters(conn), [0; 8]);
    assert_eq!(ints(conn, "CL.TAKE k 4"), [4, 9, 1, 0, -1]);
    assert_eq!(server.warnings(), Vec::<String>::new());
}

/// A user whose rules name a command keeps it: a server comes back to such rules.
#[test]
fn the_module_stays_while_an_acl_user_names_a_command() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["CL.TAKE k"]);
    let rows = [
        ("-@all +cl.take", "+cl.take"),
        ("+@all -CL.GIVE", "-cl.give"),
        ("-@all +cl.sync|states", "+cl.sync|states"),
        ("-@all (+cl.peek ~a)", "+cl.peek"),
        // Whoever is off may be on again.
        ("off -@all +get +cl.take", "+cl.take"),
    ];
    for (rules, named) in rows {
        run(conn, &[&format!("ACL SETUSER app reset on nopass ~* {rules}")]);
        let logged = server.log().len();
        let refused = error(conn, "MODULE UNLOAD claw");
        assert!(refused.starts_with("ERR Error unloading module: "), "{refused}");
        // Valkey 9.1 says so itself, and does not get as far as to ask.
        let log = server.log().split_off(logged);
        let why = format!("not unloaded, since the ACL user 'app' has the rule {named}");
        let theirs = format!("An ACL user has reference to rule '{named}'");
        assert!(log.contains(&why) || log.contains(&theirs), "{rules}: {log}");
        assert_eq!(ints(conn, "CL.TAKE k")[0], 1, "all goes on");
    }
    // Without such a rule it can go, also with users of whom it is spoken in other words.
    for rules in ["+@all", "-@all +@write", "-@all ~cl.take ~+cl.take &+cl.take", "allcommands"] {
        run(conn, &[&format!("ACL SETUSER app reset on nopass {rules}"), "MODULE UNLOAD claw"]);
        load(conn, "").unwrap();
    }
    run(conn, &["ACL SETUSER app -@all +cl.take", "ACL DELUSER app", "MODULE UNLOAD claw"]);
    assert!(server.is_alive());
}

/// Servers remember commands of modules that have gone.
#[test]
fn connections_that_would_come_back_are_closed() {
    let server = Server::start();
    let conn = &mut server.connection();
    let [last, queued, both, other] = &mut [(); 4].map(|()| server.connection());
    run(conn, &["CL.POLICY k CAPACITY 1000 REFILL 0"]);
    run(last, &["CL.TAKE k"]);
    run(queued, &["MULTI", "CL.TAKE k", "GET x"]);
    run(both, &["GET x", "MULTI", "GET x", "CL.TAKE k"]);
    run(other, &["CL.TAKE k", "MULTI", "GET x", "EXEC"]);
    // It would come back to itself.
    run(conn, &["MULTI", "CL.TAKE k", "MODULE UNLOAD claw", "CL.TAKE k"]);
    let _ = cmd(conn, "EXEC");
    let why = "a module cannot be unloaded in a transaction, which may use it next";
    assert!(server.warnings().iter().any(|line| line.contains(why)), "{}", server.log());
    run(conn, &["MODULE UNLOAD claw"]);
    for gone in [&mut *last, queued, both] {
        assert!(cmd(gone, "PING").unwrap_err().is_io_error());
    }
    run(other, &["PING"]);
    assert!(server.log().contains("unloading: closing 3 connections that used it"));
    assert_eq!(ask::<String>(conn, "CLIENT LIST").matches("cmd=cl.").count(), 0);
    // Who comes back is told.
    let again = &mut server.connection();
    for _ in 0..3 {
        assert!(error(again, "CL.TAKE k").starts_with("ERR unknown command"));
    }
    assert_eq!(ask::<String>(conn, "HGET k tokens"), "996");
}

#[test]
fn the_module_can_be_unloaded_and_loaded_under_traffic() {
    let capacity = 1_000_000_000;
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &[&format!("CL.POLICY k CAPACITY {capacity} REFILL 0")]);
    let (stop, taken, unknown) = (AtomicBool::new(false), AtomicI64::new(0), AtomicI64::new(0));
    let lost = AtomicI64::new(0);
    let lines = ["CL.TAKE k", "CL.TAKEALL k AND k 2", "CL.THROTTLE k 4 5 6 7", "CL.PEEK k"];
    thread::scope(|scope| {
        for line in lines {
            let (server, stop, taken, unknown) = (&server, &stop, &taken, &unknown);
            let lost = &lost;
            scope.spawn(move || {
                let conn = &mut server.connection();
                while !stop.load(SeqCst) {
                    let right = match cmd(conn, line) {
                        // What used the module is disconnected when it goes.
                        Err(e) if e.is_io_error() => {
                            lost.fetch_add(1, SeqCst);
                            *conn = server.connection();
                            continue;
                        }
                        Err(e) => {
                            let e = wire_error(&e).unwrap_or_else(|| panic!("{line}: {e}"));
                            assert!(e.starts_with("ERR unknown command"), "{line}: {e}");
                            unknown.fetch_add(1, SeqCst);
                            continue;
                        }
                        Ok(Value::Array(items)) => match (line, items.as_slice()) {
                            (
                                _,
                                [Value::Int(1), Value::Int(-1), Value::Int(0), Value::Array(_)],
                            ) => Some(3),
                            (_, [Value::Int(n), Value::Int(max), Value::Int(left), ..]) => {
                                let n = match *line.as_bytes() {
                                    [.., b'7'] => (*n == 0).then_some(7),
                                    [_, _, _, b'P', ..] => (*n == 1).then_some(0),
                                    _ => (*n == 1).then_some(1),
                                };
                                n.filter(|_| *max == capacity && *left < capacity)
                            }
                            _ => None,
                        },
                        Ok(_) => None,
                    };
                    taken.fetch_add(right.expect("a right answer"), SeqCst);
                }
            });
        }
        // Others that go through the module's tables.
        let (server, stop) = (&server, &stop);
        scope.spawn(move || {
            let conn = &mut server.connection();
            while !stop.load(SeqCst) {
                run(
                    conn,
                    &["INFO everything", "CONFIG GET *", "COMMAND DOCS", "COMMAND", "ACL CAT"],
                );
                let _ = cmd(conn, "CONFIG SET claw.max-tokens 70");
                let _ = cmd(conn, "COMMAND GETKEYS CL.TAKEALL k");
            }
        });
        for _ in 0..25 {
            let before = taken.load(SeqCst);
            eventually(PATIENCE, TICK, "some takes", || taken.load(SeqCst) > before + 20);
            run(conn, &["MODULE UNLOAD claw"]);
            let before = unknown.load(SeqCst);
            eventually(PATIENCE, TICK, "some errors", || unknown.load(SeqCst) > before + 20);
            load(conn, "").unwrap();
        }
        stop.store(true, SeqCst);
    });
    // Nobody knows of the last answers on connections that were closed, at most
    // seven tokens each.
    let held: i64 = ask(conn, "HGET k tokens");
    let (taken, lost) = (taken.into_inner(), lost.into_inner());
    assert!((taken..=taken + 7 * lost).contains(&(capacity - held)), "{held} {taken} {lost}");
    assert!(lost > 0 && lost <= 4 * 25, "{lost}");
    assert!(server.is_alive());
    assert_eq!(server.warnings(), Vec::<String>::new());
}
