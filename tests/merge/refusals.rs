//! What is refused, and what has no effect.

use crate::calls::{
    STRATEGIES, held, load_example, merge_state, now_us, refused, refused_line, state, still_server,
};
use claw_testkit::{Server, call_bytes, cmd, digest, info_field, ints, run, wait_for_offset};
use redis::{Connection, Value};

#[test]
fn bad_arguments_change_nothing() {
    let server = still_server();
    let conn = &mut server.connection();
    run(conn, &["HSET k tokens 5 timestamp 1", "HSET s tokens 3 timestamp 1"]);
    #[rustfmt::skip]
    let table = [
        ("CL.MERGE", "ERR wrong number of arguments for 'cl.merge' command"),
        ("CL.MERGE k FROM", "ERR wrong number of arguments for 'cl.merge' command"),
        ("CL.MERGE k STATE", "ERR wrong number of arguments for 'cl.merge' command"),
        ("CL.MERGE k WITH 1 s", "ERR unknown option 'WITH'"),
        ("CL.MERGE k STRATEGY max", "ERR unknown option 'STRATEGY'"),
        ("CL.MERGE k FROM 0", "ERR numkeys must be an integer of 1 or more"),
        ("CL.MERGE k FROM -1 s", "ERR numkeys must be an integer of 1 or more"),
        ("CL.MERGE k FROM one s", "ERR numkeys must be an integer of 1 or more"),
        ("CL.MERGE k FROM 2 s", "ERR numkeys is larger than the number of arguments"),
        ("CL.MERGE k FROM 18446744073709551615 s", "ERR numkeys is larger than the number of arguments"),
        ("CL.MERGE k FROM 18446744073709551616 s", "ERR numkeys must be an integer of 1 or more"),
        ("CL.MERGE k FROM 1 s s", "ERR unknown option 's'"),
        ("CL.MERGE k FROM 1 s STRATEGY", "ERR option 'STRATEGY' needs a value"),
        ("CL.MERGE k FROM 1 s STRATEGY best", "ERR unknown strategy 'best': max, min, weighted, lww, debit or fn:NAME"),
        ("CL.MERGE k FROM 1 s STRATEGY fn:", "ERR unknown strategy 'fn:': max, min, weighted, lww, debit or fn:NAME"),
        ("CL.MERGE k FROM 1 s STRATEGY fn:a-b", "ERR unknown strategy 'fn:a-b': max, min, weighted, lww, debit or fn:NAME"),
        ("CL.MERGE k FROM 1 s STRATEGY debit", "ERR strategy debit: a state that counts no debits cannot be merged"),
        ("CL.VERIFY debit", "ERR strategy debit: merges buckets by their counters, not as states"),
        ("CL.MERGE k FROM 1 s STRATEGY max STRATEGY max", "ERR unknown option 'STRATEGY'"),
        ("CL.MERGE k FIELDS tokens", "ERR FIELDS needs a value for each field"),
        ("CL.MERGE k FIELDS tokens 5 timestamp", "ERR FIELDS needs a value for each field"),
        ("CL.MERGE k FIELDS userWeight 2", "ERR FIELDS needs 'tokens'"),
        ("CL.MERGE k FIELDS STRATEGY max", "ERR FIELDS needs 'tokens'"),
        ("CL.MERGE k FIELDS tokens many", "ERR field 'tokens' is 'many', which is not a decimal number"),
        ("CL.MERGE k FIELDS tokens --1", "ERR field 'tokens' is '--1', which is not a decimal number"),
        ("CL.MERGE k FIELDS tokens -9000000000001", "ERR field 'tokens' is '-9000000000001', which is too large"),
        ("CL.MERGE k FIELDS tokens 1 userWeight 0", "ERR field 'userWeight' is '0', which is not an integer from 1 to 10"),
        ("CL.MERGE k FIELDS tokens 1 userWeight 11", "ERR field 'userWeight' is '11', which is not an integer from 1 to 10"),
        ("CL.MERGE k FIELDS tokens 1 timestamp soon", "ERR field 'timestamp' is 'soon', which is neither unix microseconds nor an RFC 3339 time"),
        ("CL.MERGE k FIELDS tokens 1 timestamp 9000-01-01T00:00:00Z", "ERR field 'timestamp' is '9000-01-01T00:00:00Z', which is more than 30 days ahead of the server's clock"),
        ("CL.MERGE k FIELDS tokens 1 policy fast", "ERR field 'policy' is 'fast', which is not 'capacity refill/interval [pinned [version]]' within the bounds"),
        ("CL.MERGE k FIELDS tokens 1 remainder -1", "ERR field 'remainder' is '-1', which is not an integer of 0 or more"),
        ("CL.MERGE k STATE STRATEGY max", "ERR option 'STATE' needs a value"),
        ("CL.MERGE k STATE abc", "ERR state 1 is not a state as CL.STATE returns it"),
        ("CL.STATE", "ERR wrong number of arguments for 'cl.state' command"),
        ("CL.STATE k k", "ERR wrong number of arguments for 'cl.state' command"),
        ("CL.VERIFY", "ERR wrong number of arguments for 'cl.verify' command"),
        ("CL.VERIFY best", "ERR unknown strategy 'best': max, min, weighted, lww, debit or fn:NAME"),
        ("CL.VERIFY max SAMPLES", "ERR option 'SAMPLES' needs a value"),
        ("CL.VERIFY max SAMPLES 0", "ERR samples must be an integer from 1 to 20000"),
        ("CL.VERIFY max SAMPLES 20001", "ERR samples must be an integer from 1 to 20000"),
        ("CL.VERIFY max SEED -1", "ERR seed must be an integer from 0 to 18446744073709551615"),
        ("CL.VERIFY max SEED 1 SEED 1", "ERR option 'SEED' is given twice"),
        ("CL.VERIFY max SAMPLES 5 SAMPLES 5", "ERR option 'SAMPLES' is given twice"),
        ("CL.VERIFY max BUDGET 0", "ERR budget must be an integer from 1 to 10000 milliseconds"),
        ("CL.VERIFY max BUDGET 10001", "ERR budget must be an integer from 1 to 10000 milliseconds"),
        ("CL.VERIFY max BUDGET 5 BUDGET 5", "ERR option 'BUDGET' is given twice"),
        ("CL.VERIFY max k", "ERR unknown option 'k'"),
    ];
    for (line, text) in table {
        assert_eq!(refused_line(conn, line), text, "{line}");
    }
}

/// One bad source, and nothing is merged, wherever it stands and whatever the
/// others say.
#[test]
fn a_bad_source_refuses_the_whole() {
    let server = still_server();
    let conn = &mut server.connection();
    run(conn, &["HSET k tokens 5 timestamp 1", "HSET good tokens 3 timestamp 1"]);
    run(conn, &["HSET corrupt tokens many", "SET text hello", "HSET newer tokens 1 newer junk"]);
    let corrupt =
        "ERR bucket 'corrupt': field 'tokens' holds 'many', which is not a decimal number";
    let wrong = "WRONGTYPE Operation against a key holding the wrong kind of value";
    let newer = "ERR bucket 'newer': field 'newer' cannot be read";
    // What a hash holds that is no bucket is not shown to who may only merge it.
    let source = "ERR bucket 'corrupt': field 'tokens' holds what is not a decimal number";
    let rows = [("corrupt", source, corrupt), ("text", wrong, wrong), ("newer", newer, newer)];
    for (bad, as_source, why) in rows {
        for strategy in STRATEGIES {
            for sources in [format!("{bad} good"), format!("good {bad}")] {
                for key in ["k", "missing"] {
                    let line = format!("CL.MERGE {key} FROM 2 {sources} STRATEGY {strategy}");
                    assert_eq!(refused_line(conn, &line), as_source, "{line}");
                }
            }
            let line = format!("CL.MERGE {bad} FROM 1 good STRATEGY {strategy}");
            assert_eq!(refused_line(conn, &line), why, "{line}");
        }
        assert_eq!(refused_line(conn, &format!("CL.STATE {bad}")), why);
    }
    let blob = state(conn, "good");
    let cut = &blob[..blob.len() - 1];
    let longer = [&blob[..], b"x"].concat();
    let huge = vec![0xc0; 9000];
    let malformed = "is not a state as CL.STATE returns it";
    let no_number =
        |field: &str| format!("holds a field '{field}' that is no whole number of 0 or more");
    let bounds = |field: &str| format!("holds a field '{field}' out of its bounds");
    let table: Vec<(&[u8], String)> = vec![
        (b"", malformed.into()),
        (b"\xc0", malformed.into()),
        (b"\x80", "has no field 'v'".into()),
        (b"\x82\xa1v\x01\xa6tokens\x05", "has no field 'timestamp'".into()),
        (b"\x83\xa1v\x01\xa6tokens\x05\xa9timestamp\xca\x3f\xc0\x00\x00", no_number("timestamp")),
        (cut, malformed.into()),
        (&longer, malformed.into()),
        (&huge, "is longer than 8192 bytes".into()),
        (b"\x83\xa1v\x01\xa6tokens\xa15\xa9timestamp\x01", "holds a field 'tokens' that is no whole number".into()),
        (b"\x84\xa1v\x01\xa6tokens\x05\xa6tokens\x05\xa9timestamp\x01", "holds the field 'tokens' twice".into()),
        (b"\x84\xa1v\x01\xa6tokens\x05\xa9timestamp\x01\xa6policy\x05", "holds a field 'policy' that is no map".into()),
        (b"\x83\xa1v\x01\xa6tokens\x05\xa9timestamp\xff", no_number("timestamp")),
        (b"\x83\xa1v\x01\xa6tokens\xd3\x80\x00\x00\x00\x00\x00\x00\x00\xa9timestamp\x01", bounds("tokens")),
        (b"\x83\xa1v\x01\xa6tokens\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xa9timestamp\x01", bounds("tokens")),
        (b"\x83\xa1v\x01\xa6tokens\xcf\x7f\xff\xff\xff\xff\xff\xff\xff\xa9timestamp\x01", bounds("tokens")),
        (b"\x83\xa1v\x01\xa6tokens\x05\xa9timestamp\xcf\xff\xff\xff\xff\xff\xff\xff\xff", bounds("timestamp")),
        (b"\x84\xa1v\x01\xa6tokens\x05\xa9timestamp\x01\xa6weight\x00", bounds("weight")),
        (b"\x84\xa1v\x01\xa6tokens\x05\xa9timestamp\x01\xa6weight\x0b", bounds("weight")),
        (b"\x84\xa1v\x01\xa6tokens\x05\xa9timestamp\x01\xa6policy\x83\xa8capacity\x01\xa6refill\x01\xa8interval\x00", bounds("policy")),
    ];
    for (bad, why) in table {
        let shown = bad.escape_ascii().to_string();
        let first = refused(conn, &[b"CL.MERGE", b"k", b"STATE", bad, &blob, b"STRATEGY", b"min"]);
        assert_eq!(first, format!("ERR state 1 {why}"), "{shown}");
        let second = refused(conn, &[b"CL.MERGE", b"k", b"STATE", &blob, bad]);
        assert_eq!(second, format!("ERR state 2 {why}"), "{shown}");
    }
    assert_eq!(held(conn, "k"), "tokens 5");
}

/// No pin comes in with a number that no further one could follow, and the last one is the last.
#[test]
fn a_pin_has_a_number_that_can_be_counted_on_from() {
    const LAST: u64 = 1 << 62;
    let server = still_server();
    let conn = &mut server.connection();
    run(conn, &["HSET k tokens 5 timestamp 1"]);
    let pinned = |field: &str, pin: u64| {
        let policy = ["capacity", "refill", "interval"].map(|name| (name.into(), 1.into()));
        let mut policy: Vec<(rmpv::Value, rmpv::Value)> = policy.to_vec();
        policy.push(("pin".into(), pin.into()));
        if field == "temporary" {
            policy.push(("until".into(), (now_us() + 600_000_000).into()));
        }
        let fields = vec![
            ("v".into(), 1.into()),
            ("tokens".into(), 1.into()),
            ("timestamp".into(), 1.into()),
            (field.into(), rmpv::Value::Map(policy)),
        ];
        let mut blob = Vec::new();
        rmpv::encode::write_value(&mut blob, &rmpv::Value::Map(fields)).unwrap();
        blob
    };
    for field in ["policy", "temporary"] {
        for pin in [LAST + 1, u64::MAX] {
            let why = refused(conn, &[b"CL.MERGE", b"k", b"STATE", &pinned(field, pin)]);
            assert_eq!(why, "ERR state 1 holds a field 'pin' out of its bounds", "{field} {pin}");
        }
        assert_eq!(merge_state(conn, field, &[pinned(field, LAST)], "max")[0], 1);
        for change in ["CAPACITY 5", "CAPACITY 5 FOR 1000", "WEIGHT 2", "RESET"] {
            assert_eq!(
                refused_line(conn, &format!("CL.POLICY {field} {change}")),
                "ERR no number is left for a change of policy or weight of this bucket: delete the key, in all regions",
                "{change}"
            );
        }
        run(conn, &[&format!("CL.POLICY {field}"), &format!("CL.TAKE {field} 1")]);
    }
    // Nor is it read from what somebody wrote by hand.
    let by_hand = format!("10 1/1000 pinned {}", LAST + 1);
    run(conn, &["HSET hand tokens 5"]);
    call_bytes(conn, &[b"HSET", b"hand", b"policy", by_hand.as_bytes()]).unwrap();
    let why = format!(
        "ERR bucket 'hand': field 'policy' holds '{by_hand}', which is not \
         'capacity refill/interval [pinned [version]]' within the bounds"
    );
    assert_eq!(refused_line(conn, "CL.TAKE hand"), why);
}

/// Whoever may merge a hash need not see what is in it when it is no bucket: not in an error, and
/// not as a full bucket, whatever the strategy.
#[test]
fn a_hash_that_is_no_bucket_is_no_source() {
    const OURS: [&str; 6] = ["tokens", "timestamp", "userWeight", "policy", "remainder", "debits"];
    let server = still_server();
    let conn = &mut server.connection();
    load_example(conn, "premium-first.lua");
    run(conn, &["HSET k tokens 5 timestamp 1", "HSET good tokens 3 timestamp 1"]);
    run(conn, &["HSET session user 7 csrf secret"]);
    for field in OURS {
        run(conn, &[&format!("HSET session:{field} user 7 {field} secret")]);
    }
    let before = digest(conn);
    let strategies = STRATEGIES.into_iter().chain(["debit", "fn:premium_first"]);
    for strategy in strategies {
        for key in ["k", "missing", "session"] {
            for sources in ["1 session", "2 session good", "2 good session"] {
                let line = format!("CL.MERGE {key} FROM {sources} STRATEGY {strategy}");
                let why = "ERR key 'session' holds a hash that is no bucket";
                assert_eq!(refused_line(conn, &line), why, "{line}");
            }
        }
        for field in OURS {
            let line = format!("CL.MERGE k FROM 1 session:{field} STRATEGY {strategy}");
            let why = refused_line(conn, &line);
            let begin = format!("ERR bucket 'session:{field}': field '{field}' holds what ");
            assert!(why.starts_with(&begin) && !why.contains("secret"), "{line}: {why}");
        }
    }
    let why = "ERR key 'session' holds a hash that is no bucket";
    assert_eq!(refused_line(conn, "CL.STATE session"), why);
    assert_eq!(digest(conn), before);
}

/// A merge without effect is not written, replicated or announced.
#[test]
fn a_merge_that_changes_nothing_leaves_no_trace() {
    let master = Server::builder()
        .module_args(["refill-rate-per-sec", "0"])
        .config("repl-ping-replica-period", "3600")
        .start();
    let replica = Server::replica_of(&master).start();
    let conn = &mut master.connection();
    run(conn, &["HSET k tokens 5 timestamp 1 userWeight 2", "HSET more tokens 9 timestamp 1"]);
    run(conn, &["HSET fewer tokens 1 timestamp 1 userWeight 3", "HSET old tokens 7 timestamp 0"]);
    load_example(conn, "premium-first.lua");
    wait_for_offset(&master, &replica);
    let blob = state(conn, "k");
    #[rustfmt::skip]
    let table = [
        "CL.MERGE k FROM 1 k STRATEGY max",
        "CL.MERGE k FROM 1 fewer STRATEGY max",
        "CL.MERGE k FROM 1 more STRATEGY min",
        "CL.MERGE k FROM 1 more STRATEGY weighted",
        "CL.MERGE k FROM 1 old STRATEGY lww",
        "CL.MERGE k FROM 2 none k",
        "CL.MERGE k FIELDS tokens 5 timestamp 1 userWeight 2",
        "CL.MERGE k FROM 1 more STRATEGY fn:premium_first",
        "CL.MERGE none FROM 1 nothing",
    ];
    let offset = |conn: &mut Connection| info_field(conn, "replication", "master_repl_offset");
    let (before, at) = (digest(conn), offset(conn));
    for line in table {
        assert_eq!(ints(conn, line)[0], 0, "{line}");
        assert_eq!((digest(conn), offset(conn)), (before.clone(), at.clone()), "{line}");
    }
    assert_eq!(merge_state(conn, "k", &[blob.clone(), blob], "weighted")[0], 0);
    cmd(conn, "CL.MERGE k FROM 1 text x").unwrap_err();
    assert_eq!((digest(conn), offset(conn)), (before, at));
    // Nor does it count as a change for WATCH; a merge with effect does.
    for (line, untouched) in [
        ("CL.MERGE k FROM 1 more STRATEGY min", true),
        ("CL.MERGE k FROM 1 fewer STRATEGY min", false),
    ] {
        run(conn, &["WATCH k", line, "MULTI", "PING"]);
        assert_eq!(cmd(conn, "EXEC").unwrap() != Value::Nil, untouched, "{line}");
    }
}

/// A call that would occupy the server for long is refused, and one key or state fewer is not.
#[test]
fn so_many_sources_and_no_more() {
    let server = claw_testkit::Server::start();
    let conn = &mut server.connection();
    claw_testkit::run(conn, &["CL.TAKE s 3"]);
    let blob: Vec<u8> = claw_testkit::ask(conn, "CL.STATE s");
    for (form, source) in [("FROM", b"s".to_vec()), ("STATE", blob)] {
        for count in [1024, 1025] {
            let number = count.to_string();
            let mut words = vec![b"CL.MERGE".as_slice(), b"k", form.as_bytes()];
            words.extend((form == "FROM").then_some(number.as_bytes()));
            words.extend(vec![source.as_slice(); count]);
            match claw_testkit::call_bytes(conn, &words) {
                Ok(_) => assert_eq!(count, 1024, "{form}"),
                Err(error) => {
                    assert_eq!(error, "ERR more than 1024 keys or states in one call", "{form}");
                    assert_eq!(count, 1025, "{form}");
                }
            }
        }
    }
}
