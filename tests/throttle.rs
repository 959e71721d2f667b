//! `CL.THROTTLE`: what redis-cell answers, and what it gets wrong.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use claw_testkit::{Server, ask, call_bytes, digest, error, fields, int, ints, module_path, run};
use redis::{Cmd, Connection, Value};
use std::env;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

const MAX_BURST: &str = "ERR max_burst must be an integer from 0 to 999999999999";
const COUNT: &str = "ERR count must be an integer from 1 to 1000000000000";
const PERIOD: &str = "ERR period must be an integer from 1 to 31622400 seconds";
const QUANTITY: &str = "ERR quantity must be an integer from -1000000000000 to 1000000000000";
const ARITY: &str = "ERR wrong number of arguments for 'cl.throttle' command";

/// Several commands in one transaction.
fn together(conn: &mut Connection, lines: &[&str]) -> Vec<Vec<i64>> {
    let mut pipe = redis::pipe();
    pipe.atomic();
    for line in lines {
        let mut command = Cmd::new();
        line.split(' ').for_each(|word| {
            command.arg(word);
        });
        pipe.add_command(command);
    }
    pipe.query(conn).unwrap_or_else(|e| panic!("{lines:?}: {e}"))
}

/// A bucket that is not credited anything within an hour: its timestamp is
/// ahead of the clock.
fn still(conn: &mut Connection, key: &str, tokens: &str, policy: &str) {
    let (seconds, _): (u64, u64) = ask(conn, "TIME");
    let at = (seconds + 3600) * 1_000_000;
    let (at, key) = (at.to_string(), key.as_bytes());
    call_bytes(conn, &[b"DEL", key]).unwrap();
    let tokens = tokens.as_bytes();
    call_bytes(conn, &[b"HSET", key, b"tokens", tokens, b"timestamp", at.as_bytes()]).unwrap();
    call_bytes(conn, &[b"HSET", key, b"policy", policy.as_bytes()]).unwrap();
}

/// The documented replies of redis-cell 0.5.0, each on the bucket that the rows
/// above it have left.
const REDIS_CELL: &[(&str, [i64; 5])] = &[
    ("k 15 30 60 0", [0, 16, 16, -1, 0]),
    ("k 15 30 60", [0, 16, 15, -1, 2]),
    ("k 15 30 60 1", [0, 16, 14, -1, 4]),
    ("k 15 30 60 17", [1, 16, 14, -1, 4]),
    ("k 15 30 60 16", [1, 16, 14, 4, 4]),
    ("k 15 30 60 -1", [0, 16, 15, -1, 2]),
];

/// The replies are those of calls that follow each other within a second.
fn answers_as_redis_cell(conn: &mut Connection) {
    let lines: Vec<String> =
        REDIS_CELL.iter().map(|(args, _)| format!("CL.THROTTLE {args}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    for attempt in 0..30 {
        run(conn, &["DEL k"]);
        let started = Instant::now();
        let answers = together(conn, &lines);
        if started.elapsed() > Duration::from_millis(900) {
            eprintln!("attempt {attempt} took too long to tell");
            continue;
        }
        for ((args, expected), answer) in REDIS_CELL.iter().zip(answers) {
            assert_eq!(answer, expected, "CL.THROTTLE {args}");
        }
        return;
    }
    panic!("the machine is too slow for calls within a second");
}

#[test]
fn replies_are_those_of_redis_cell() {
    let server = Server::start();
    let conn = &mut server.connection();
    answers_as_redis_cell(conn);
    // Looking leaves no key behind.
    run(conn, &["DEL k", "CL.THROTTLE k 15 30 60 0"]);
    assert_eq!(int(conn, "EXISTS k"), 0);
}

#[test]
fn a_new_bucket_is_full() {
    let server = Server::start();
    let conn = &mut server.connection();
    let trillion = 1_000_000_000_000;
    let year = 31_622_400;
    let rows = [
        ("15 30 60", [0, 16, 15, -1, 2]),
        ("15 30 60 1", [0, 16, 15, -1, 2]),
        ("15 30 60 0", [0, 16, 16, -1, 0]),
        ("15 30 60 -0", [0, 16, 16, -1, 0]),
        ("15 30 60 16", [0, 16, 0, -1, 32]),
        ("15 30 60 17", [1, 16, 16, -1, 0]),
        ("15 30 60 -1", [0, 16, 16, -1, 0]),
        ("15 30 60 -1000000000000", [0, 16, 16, -1, 0]),
        ("0 1 1", [0, 1, 0, -1, 1]),
        ("0 1 1 2", [1, 1, 1, -1, 0]),
        ("0 1 1 1000000000000", [1, 1, 1, -1, 0]),
        // Seconds are rounded up.
        ("9 3 1 1", [0, 10, 9, -1, 1]),
        ("9 3 1 3", [0, 10, 7, -1, 1]),
        ("9 3 1 4", [0, 10, 6, -1, 2]),
        ("9 7 10 5", [0, 10, 5, -1, 8]),
        // Where redis-cell counts wrongly.
        ("6000 6000 1", [0, 6001, 6000, -1, 1]),
        ("6000 6000 1 6001", [0, 6001, 0, -1, 2]),
        ("5 2000000 1", [0, 6, 5, -1, 1]),
        ("5 2000000 1 6", [0, 6, 0, -1, 1]),
        ("5 2000000 1 7", [1, 6, 6, -1, 0]),
        // The bounds.
        ("999999999999 1 1", [0, trillion, trillion - 1, -1, 1]),
        ("999999999999 1 1 1000000000000", [0, trillion, 0, -1, trillion]),
        ("999999999999 1000000000000 1 1000000000000", [0, trillion, 0, -1, 1]),
        ("0 1000000000000 1", [0, 1, 0, -1, 1]),
        ("0 1 31622400", [0, 1, 0, -1, year]),
        // Longer than 2^63 ms is as good as never.
        ("999999999999 1 31622400 1000000000000", [0, trillion, 0, -1, -1]),
    ];
    for (args, expected) in rows {
        run(conn, &["DEL k"]);
        let reply = ints(conn, &format!("CL.THROTTLE k {args}"));
        assert_eq!(reply, expected, "{args}");
        let changed = expected[2] != expected[1];
        assert_eq!(int(conn, "EXISTS k"), i64::from(changed), "{args}");
    }
}

#[test]
fn fast_rates_are_right_to_the_last_token() {
    let server = Server::start();
    let conn = &mut server.connection();
    for (args, policy, capacity) in
        [("6000 6000 1", "6001 6000/1000", 6001), ("5 2000000 1", "6 2000000/1000", 6)]
    {
        still(conn, "k", &capacity.to_string(), policy);
        for left in (0..capacity).rev() {
            let reply = ints(conn, &format!("CL.THROTTLE k {args}"));
            assert_eq!(reply[..4], [0, capacity, left, -1], "{args}");
        }
        let reply = ints(conn, &format!("CL.THROTTLE k {args}"));
        assert_eq!(reply[..3], [1, capacity, 0], "{args}");
        assert!((1..=3601).contains(&reply[3]) && reply[4] >= reply[3], "{args}: {reply:?}");
        let back = ints(conn, &format!("CL.THROTTLE k {args} -1"));
        assert_eq!(back[..4], [0, capacity, 1, -1], "{args}");
    }
}

#[test]
fn a_negative_quantity_gives_back() {
    let server = Server::start();
    let conn = &mut server.connection();
    // Held, quantity, held then.
    let rows = [
        ("0", "-1", "1"),
        ("0", "-16", "16"),
        ("0", "-17", "16"),
        ("0", "-1000000000000", "16"),
        ("15.5", "-1", "16"),
        ("14.5", "-1", "15.5"),
        ("16", "-5", "16"),
    ];
    for (held, quantity, left) in rows {
        still(conn, "k", held, "16 30/60000");
        let reply = ints(conn, &format!("CL.THROTTLE k 15 30 60 {quantity}"));
        assert_eq!((reply[0], reply[1], reply[3]), (0, 16, -1), "{held} {quantity}");
        let whole: i64 = left.split('.').next().unwrap().parse().unwrap();
        assert_eq!(reply[2], whole, "{held} {quantity}");
        assert_eq!(fields(conn, "k")["tokens"], left, "{held} {quantity}");
    }
}

#[test]
fn the_bucket_is_the_one_of_the_other_commands() {
    let server = Server::start();
    let conn = &mut server.connection();
    let day = "CAPACITY 16 REFILL 1 INTERVAL 31622400000";
    let throttle = "CL.THROTTLE k 15 1 31622400";
    let take = ints(conn, &format!("CL.TAKE k 5 {day}"));
    assert_eq!(take[..4], [5, 16, 11, 0]);
    assert_eq!(ints(conn, &format!("{throttle} 4"))[..4], [0, 16, 7, -1]);
    assert_eq!(fields(conn, "k")["policy"], "16 1/31622400000");
    assert_eq!(ints(conn, &format!("CL.PEEK k 1 {day}"))[..3], [1, 16, 6]);
    assert_eq!(ints(conn, "CL.GIVE k 2")[..3], [2, 16, 9]);
    assert_eq!(ints(conn, &format!("{throttle} 0"))[..3], [0, 16, 9]);
    assert_eq!(ints(conn, &format!("{throttle} -3"))[..3], [0, 16, 12]);
    assert!(int(conn, "PTTL k") > 0);
    // A pinned policy wins over the arguments.
    run(conn, &["CL.POLICY k CAPACITY 10 REFILL 0"]);
    assert_eq!(ints(conn, &format!("{throttle} 4")), [0, 10, 6, -1, -1]);
    assert_eq!(ints(conn, &format!("{throttle} 7")), [1, 10, 6, -1, -1]);
    assert_eq!(ints(conn, &format!("{throttle} 6")), [0, 10, 0, -1, -1]);
    run(conn, &["CL.POLICY k RESET", "CL.POLICY k WEIGHT 10"]);
    // A weight counts here, too: 16 tokens at 10 a second.
    assert_eq!(ints(conn, "CL.THROTTLE w 15 1 1 16")[4], 16);
    run(conn, &["DEL w", "CL.POLICY w WEIGHT 10"]);
    assert_eq!(ints(conn, "CL.THROTTLE w 15 1 1 16")[4], 2);
}

#[test]
fn a_raised_rate_does_not_refuse_what_the_old_one_allowed() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["CL.THROTTLE k 9 1 31622400 6"]);
    assert_eq!(ints(conn, "CL.THROTTLE k 99 100 31622400 4")[..3], [0, 100, 0]);
    run(conn, &["DEL k", "CL.THROTTLE k 9 1 31622400 6"]);
    // A lowered one cuts.
    assert_eq!(ints(conn, "CL.THROTTLE k 1 1 31622400 2")[..3], [0, 2, 0]);
}

#[test]
fn seconds_are_the_milliseconds_of_take_rounded_up() {
    let server = Server::start();
    let conn = &mut server.connection();
    let rows = [
        ("15 30 60", "CAPACITY 16 REFILL 30 INTERVAL 60000", "3.25", [1, 3, 4, 16]),
        ("0 1 1", "CAPACITY 1 REFILL 1 INTERVAL 1000", "0.999", [1, 1, 1, 1]),
        ("9 7 10", "CAPACITY 10 REFILL 7 INTERVAL 10000", "0", [1, 5, 10, 10]),
        ("99 3 1000", "CAPACITY 100 REFILL 3 INTERVAL 1000000", "50.000001", [1, 51, 100, 50]),
    ];
    let seconds_of = |ms: i64| if ms < 0 { -1 } else { (ms + 999) / 1000 };
    for (args, options, tokens, quantities) in rows {
        let words: Vec<&str> = options.split(' ').collect();
        let policy = format!("{} {}/{}", words[1], words[3], words[5]);
        for quantity in quantities {
            // Time may go on between the three: one more try, then.
            let tries = (0..100).find(|_| {
                let (seconds, us): (u64, u64) = ask(conn, "TIME");
                let at = (seconds * 1_000_000 + us) / 1000 * 1000;
                for key in ["k", "before", "after"] {
                    still(conn, key, tokens, &policy);
                    run(conn, &[&format!("HSET {key} timestamp {at}")]);
                }
                let answers = together(
                    conn,
                    &[
                        &format!("CL.TAKE before {quantity} {options}"),
                        &format!("CL.THROTTLE k {args} {quantity}"),
                        &format!("CL.TAKE after {quantity} {options}"),
                    ],
                );
                let [before, throttle, after] = answers.try_into().unwrap();
                if before != after {
                    return false;
                }
                let limited = i64::from(after[0] == 0);
                let wait = if limited == 1 { seconds_of(after[3]) } else { -1 };
                let expected = [limited, after[1], after[2], wait, seconds_of(after[4])];
                assert_eq!(throttle, expected, "{args} {quantity}");
                true
            });
            assert!(tries.is_some(), "the machine is too slow for calls within a millisecond");
        }
    }
}

#[test]
fn who_waits_retry_after_succeeds() {
    let server = Server::start();
    let rows = ["0 1 1", "2 5 1 2", "0 1000 1", "6 7 2 7", "5 2000000 1 6", "6000 6000 1 6001"];
    thread::scope(|scope| {
        for (number, args) in rows.into_iter().enumerate() {
            let server = &server;
            scope.spawn(move || {
                let conn = &mut server.connection();
                let line = format!("CL.THROTTLE k{number} {args}");
                // The second in a transaction is refused, most often.
                let refused = (0..1000)
                    .map(|_| together(conn, &[&line, &line]).remove(1))
                    .find(|reply| reply[0] == 1)
                    .unwrap_or_else(|| panic!("`{line}` was never refused"));
                assert!(refused[3] > 0, "`{line}`: {refused:?}");
                let end = SystemTime::now() + Duration::from_secs(refused[3].unsigned_abs());
                while let Ok(left) = end.duration_since(SystemTime::now())
                    && !left.is_zero()
                {
                    thread::sleep(left);
                }
                assert_eq!(ints(conn, &line)[0], 0, "`{line}` after {refused:?}");
            });
        }
    });
}

#[test]
fn wrong_arguments_are_named_and_change_nothing() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["CL.THROTTLE bucket 15 1 31622400 3"]);
    let before = (digest(conn), int(conn, "PEXPIRETIME bucket"));
    let huge = "9".repeat(512);
    let no_numbers = [
        "",
        "x",
        "-1",
        "-0",
        "+1",
        " 1",
        "1 ",
        "1.5",
        "1e-3",
        "1e999999999999",
        "0x1",
        "1\n",
        "1\0",
        "\u{661}",
        "18446744073709551616",
        "-9223372036854775808",
        "9223372036854775808",
        "%s%n",
        &huge,
    ];
    let mut rows: Vec<(Vec<&str>, &str)> = vec![
        (vec![], ARITY),
        (vec!["15"], ARITY),
        (vec!["15", "30"], ARITY),
        (vec!["15", "30", "60", "1", "1"], ARITY),
        (vec!["15", "30", "60", "1", ""], ARITY),
        (vec!["1000000000000", "30", "60"], MAX_BURST),
        (vec!["15", "0", "60"], COUNT),
        (vec!["15", "1000000000001", "60"], COUNT),
        (vec!["15", "30", "0"], PERIOD),
        (vec!["15", "30", "31622401"], PERIOD),
        // Larger than 2^64 in milliseconds.
        (vec!["15", "30", "18446744073709552"], PERIOD),
        (vec!["0", "0", "0"], COUNT),
        (vec!["15", "30", "60", "1000000000001"], QUANTITY),
        (vec!["15", "30", "60", "-1000000000001"], QUANTITY),
        (vec!["15", "30", "60", "--1"], QUANTITY),
        (vec!["15", "30", "60", "-"], QUANTITY),
        (vec!["15", "30", "60", "-1.5"], QUANTITY),
        (vec!["15", "30", "60", "-x"], QUANTITY),
    ];
    for text in no_numbers {
        rows.push((vec![text, "30", "60"], MAX_BURST));
        rows.push((vec!["15", text, "60"], COUNT));
        rows.push((vec!["15", "30", text], PERIOD));
        // Only there a sign means something.
        if text != "-1" && text != "-0" {
            rows.push((vec!["15", "30", "60", text], QUANTITY));
        }
    }
    for (args, expected) in rows {
        for key in ["bucket", "missing"] {
            let mut words: Vec<&[u8]> = vec![b"CL.THROTTLE", key.as_bytes()];
            words.extend(args.iter().map(|arg| arg.as_bytes()));
            assert_eq!(call_bytes(conn, &words), Err(expected.to_owned()), "{key} {args:?}");
        }
        let after = (digest(conn), int(conn, "PEXPIRETIME bucket"));
        assert_eq!(after, before, "{args:?}");
    }
    assert_eq!(call_bytes(conn, &[b"CL.THROTTLE"]), Err(ARITY.to_owned()));
    assert_eq!(server.warnings(), Vec::<String>::new());
}

#[test]
fn odd_keys_and_values_do_no_harm() {
    let server = Server::start();
    let conn = &mut server.connection();
    let wrong = "WRONGTYPE Operation against a key holding the wrong kind of value";
    run(conn, &["SET string x", "SET integer 5", "RPUSH list a", "SADD set a", "ZADD zset 1 a"]);
    run(conn, &["XADD stream * f v", "HSET corrupt tokens x"]);
    let before = digest(conn);
    for quantity in ["", " 0", " 1", " -1", " 99"] {
        for key in ["string", "integer", "list", "set", "zset", "stream"] {
            assert_eq!(error(conn, &format!("CL.THROTTLE {key} 15 30 60{quantity}")), wrong);
        }
        assert_eq!(
            error(conn, &format!("CL.THROTTLE corrupt 15 30 60{quantity}")),
            "ERR bucket 'corrupt': field 'tokens' holds 'x', which is not a decimal number"
        );
    }
    assert_eq!(digest(conn), before);
    for key in [b"\xff\xfe".as_slice(), b"a\0b", b"\r\n", b"", b"%s%n", b"\xc3\x28"] {
        let answer = call_bytes(conn, &[b"CL.THROTTLE", key, b"15", b"30", b"60"]).unwrap();
        let reply: Vec<i64> = redis::from_redis_value(answer).unwrap();
        assert_eq!(reply, [0, 16, 15, -1, 2], "{key:?}");
        assert_eq!(call_bytes(conn, &[b"EXISTS", key]), Ok(Value::Int(1)), "{key:?}");
    }
    assert_eq!(server.warnings(), Vec::<String>::new());
}

#[test]
fn a_refusal_writes_nothing() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["CL.THROTTLE k 15 1 31622400 10"]);
    let before = (digest(conn), int(conn, "PEXPIRETIME k"), fields(conn, "k"));
    for quantity in [0, 7, 16, 17, 1_000_000_000_000_i64] {
        run(conn, &[&format!("CL.THROTTLE k 15 1 31622400 {quantity}")]);
        let after = (digest(conn), int(conn, "PEXPIRETIME k"), fields(conn, "k"));
        assert_eq!(after, before, "quantity {quantity}");
    }
}

#[test]
#[ignore = "REDIS_CELL has to name the module file of redis-cell; make test then runs it"]
fn beside_redis_cell_its_command_stays() {
    let cell = env::var("REDIS_CELL").expect("REDIS_CELL names the module file of redis-cell");
    let cell = cell.as_str();
    let server = Server::builder().config_args("loadmodule", [cell]).start();
    let conn = &mut server.connection();
    let line = "cl.throttle belongs to another module already; leaving it alone";
    assert_eq!(server.log().matches(line).count(), 1, "{}", server.log());
    let owned = |conn: &mut Connection, module: &str| -> Vec<String> {
        let mut names: Vec<String> = ask(conn, &format!("COMMAND LIST FILTERBY MODULE {module}"));
        names.sort();
        names
    };
    assert_eq!(owned(conn, "redis-cell"), ["cl.throttle"]);
    assert!(!owned(conn, "claw").contains(&"cl.throttle".to_owned()));
    assert!(owned(conn, "claw").contains(&"cl.take".to_owned()));
    // Their replies, the ones that ours are modelled on.
    answers_as_redis_cell(conn);
    // Their keys are strings, which ours are not.
    assert_eq!(ask::<String>(conn, "TYPE k"), "string");
    assert!(error(conn, "CL.TAKE k").starts_with("WRONGTYPE "));
    assert_eq!(ints(conn, "CL.TAKE own"), [1, 1000, 999, 0, 200]);
    // They stay when ours goes, and comes back.
    run(conn, &["MODULE UNLOAD claw"]);
    assert_eq!(ints(conn, "CL.THROTTLE new 15 30 60"), [0, 16, 15, -1, 2]);
    call_bytes(conn, &[b"MODULE", b"LOAD", module_path().to_str().unwrap().as_bytes()]).unwrap();
    assert_eq!(owned(conn, "redis-cell"), ["cl.throttle"]);
    assert_eq!(ints(conn, "CL.TAKE own 1001")[0], 0);
    assert_eq!(server.log().matches(line).count(), 2);
    assert_eq!(server.warnings(), Vec::<String>::new());
}
