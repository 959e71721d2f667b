//! `CL.SETTLE`: what was used is booked afterwards, and may be more than there is.

use crate::buckets::clock;
use crate::calls::{DAYS_366_MS, five, wait_ms};
use claw_testkit::{Server, ask, call_bytes, digest, fields, int, ints, run};
use redis::Connection;

/// A bucket of 10 tokens at the most that holds `tokens` and never refills.
fn hold(conn: &mut Connection, tokens: &str) {
    let now = clock(conn);
    run(conn, &["DEL k", &format!("HSET k tokens {tokens} timestamp {now}")]);
    call_bytes(conn, &[b"HSET", b"k", b"policy", b"10 0/1000"]).unwrap();
}

#[test]
fn settle_gives_back_or_charges_the_difference() {
    let server = Server::start();
    let conn = &mut server.connection();
    // Held; reserved and used; the answer; held then.
    let rows = [
        ("4", "5 2", [-3, 10, 7, 0, -1], "7"),
        ("4", "5 5", [0, 10, 4, 0, -1], "4"),
        ("4", "0 0", [0, 10, 4, 0, -1], "4"),
        ("4", "5 7", [2, 10, 2, 0, -1], "2"),
        ("4", "0 4", [4, 10, 0, 0, -1], "0"),
        ("0", "1000000000000 999999999998", [-2, 10, 2, 0, -1], "2"),
        // As CL.GIVE does, up to the capacity.
        ("8", "9 2", [-2, 10, 10, 0, 0], "10"),
        ("8.5", "9 2", [-1, 10, 10, 0, 0], "10"),
        ("10", "9 2", [0, 10, 10, 0, 0], "10"),
        ("999", "1 0", [0, 10, 10, 0, 0], "999"),
        // Whatever there is, down to as much as the capacity.
        ("4", "0 5", [5, 10, -1, 0, -1], "-1"),
        ("0", "3 4", [1, 10, -1, 0, -1], "-1"),
        ("-1", "3 4", [1, 10, -2, 0, -1], "-2"),
        ("4", "0 14", [14, 10, -10, 0, -1], "-10"),
        ("10", "0 20", [20, 10, -10, 0, -1], "-10"),
        // What is beyond is not booked, and the answer says so.
        ("4", "0 15", [14, 10, -10, -1, -1], "-10"),
        ("4", "0 1000000000000", [14, 10, -10, -1, -1], "-10"),
        ("-10", "0 1", [0, 10, -10, -1, -1], "-10"),
        // Other regions can have booked more.
        ("-12", "0 1", [0, 10, -12, -1, -1], "-12"),
        ("-9000000000000", "0 1", [0, 10, -9_000_000_000_000, -1, -1], "-9000000000000"),
        ("-12", "2 0", [-2, 10, -10, 0, -1], "-10"),
        // What is given back pays.
        ("-10", "3 0", [-3, 10, -7, 0, -1], "-7"),
        ("-10", "20 0", [-20, 10, 10, 0, 0], "10"),
        ("-10", "1000000000000 0", [-20, 10, 10, 0, 0], "10"),
        // Whole tokens are booked, and shown rounded down.
        ("4.5", "0 5", [5, 10, -1, 0, -1], "-0.5"),
        ("4.5", "0 15", [14, 10, -10, -1, -1], "-9.5"),
        ("-0.000001", "0 0", [0, 10, -1, 0, -1], "-0.000001"),
        ("-0.5", "1 0", [-1, 10, 0, 0, -1], "0.5"),
    ];
    for (held, args, expected, left) in rows {
        hold(conn, held);
        let before = digest(conn);
        assert_eq!(five(conn, &format!("CL.SETTLE k {args}")), expected, "{held}, {args}");
        assert_eq!(fields(conn, "k")["tokens"], left, "{held}, {args}");
        assert_eq!(digest(conn) == before, held == left, "{held}, {args}");
    }
}

#[test]
fn a_missing_bucket_is_settled_as_a_full_one() {
    let server = Server::start();
    let conn = &mut server.connection();
    let slow = "CAPACITY 10 REFILL 1 INTERVAL 31622400000";
    let rows = [
        ("5 3".into(), [0, 1000, 1000, 0, 0], false),
        ("3 3".into(), [0, 1000, 1000, 0, 0], false),
        ("3 5".into(), [2, 1000, 998, 0, 400], true),
        (format!("5 3 {slow}"), [0, 10, 10, 0, 0], false),
        (format!("3 3 {slow}"), [0, 10, 10, 0, 0], false),
        (format!("3 5 {slow}"), [2, 10, 8, 0, 2 * DAYS_366_MS], true),
        (format!("0 20 {slow}"), [20, 10, -10, 0, 20 * DAYS_366_MS], true),
        // The wait is the one until the rest could be booked.
        (format!("0 25 {slow}"), [20, 10, -10, 5 * DAYS_366_MS, 20 * DAYS_366_MS], true),
        (format!("0 40 {slow}"), [20, 10, -10, 20 * DAYS_366_MS, 20 * DAYS_366_MS], true),
        // So much never can be.
        (format!("0 41 {slow}"), [20, 10, -10, -1, 20 * DAYS_366_MS], true),
        ("0 1 REFILL 0.5".into(), [1, 1, 0, 0, 2000], true),
        (
            "0 3 refill 1 Interval 31622400000 capacity 2".into(),
            [3, 2, -1, 0, 3 * DAYS_366_MS],
            true,
        ),
    ];
    for (args, expected, kept) in rows {
        run(conn, &["DEL k"]);
        assert_eq!(five(conn, &format!("CL.SETTLE k {args}")), expected, "{args}");
        assert_eq!(int(conn, "EXISTS k"), i64::from(kept), "{args}");
    }
}

/// A settlement brings a policy as a take does.
#[test]
fn the_policy_in_force_is_that_of_a_take() {
    let server = Server::start();
    let conn = &mut server.connection();
    // One after another on the same bucket: the answer, and the policy stored then.
    let rows = [
        ("CL.TAKE k 4 CAPACITY 10 REFILL 0", [4, 10, 6, 0, -1], "10 0/1000"),
        ("CL.SETTLE k 4 5", [1, 10, 5, 0, -1], "10 0/1000"),
        // Nothing is booked, and the policy is new.
        ("CL.SETTLE k 4 4 CAPACITY 20 REFILL 0", [0, 20, 5, 0, -1], "20 0/1000"),
        ("CL.SETTLE k 0 15", [15, 20, -10, 0, -1], "20 0/1000"),
        // A lower capacity forgives nothing, and a higher one lends more.
        ("CL.SETTLE k 0 1 CAPACITY 5 REFILL 0", [0, 5, -10, -1, -1], "5 0/1000"),
        ("CL.TAKE k 1 CAPACITY 8 REFILL 0", [0, 8, -10, -1, -1], "8 0/1000"),
        ("CL.SETTLE k 0 3 CAPACITY 12 REFILL 0", [2, 12, -12, -1, -1], "12 0/1000"),
        ("CL.SETTLE k 99 0", [-24, 12, 12, 0, 0], "12 0/1000"),
    ];
    for (line, expected, policy) in rows {
        assert_eq!(five(conn, line), expected, "`{line}`");
        assert_eq!(fields(conn, "k")["policy"], policy, "`{line}`");
    }
    run(conn, &["CL.POLICY k CAPACITY 3 REFILL 0"]);
    assert_eq!(five(conn, "CL.SETTLE k 0 9 CAPACITY 50 REFILL 5"), [6, 3, -3, -1, -1]);
    assert_eq!(fields(conn, "k")["policy"], "3 0/1000 pinned 1");
}

#[test]
fn who_is_in_debt_gets_nothing() {
    let server = Server::start();
    let conn = &mut server.connection();
    let rows: &[(&str, &[i64], &str)] = &[
        ("CL.TAKE k", &[0, 10, -3, -1, -1], "-3"),
        ("CL.TAKE k 1 PARTIAL", &[0, 10, -3, -1, -1], "-3"),
        ("CL.TAKE k 1 KEEP 2", &[0, 10, -3, -1, -1], "-3"),
        ("CL.PEEK k", &[0, 10, -3, -1, -1], "-3"),
        // None is a look.
        ("CL.TAKE k 0", &[0, 10, -3, 0, -1], "-3"),
        ("CL.TAKE k 0 PARTIAL KEEP 5", &[0, 10, -3, 0, -1], "-3"),
        ("CL.PEEK k 0", &[0, 10, -3, 0, -1], "-3"),
        ("CL.GIVE k 2", &[2, 10, -1, 0, -1], "-1"),
        ("CL.GIVE k 3", &[3, 10, 0, 0, -1], "0"),
        ("CL.GIVE k 99", &[13, 10, 10, 0, 0], "10"),
        // A command that knows of no debt.
        ("CL.THROTTLE k 9 1 31622400 0", &[0, 10, 0, -1, -1], "-3"),
    ];
    for (line, expected, left) in rows {
        hold(conn, "-3");
        let answer = ints(conn, line);
        match line.contains("THROTTLE") {
            // It brings a policy of its own, by which the bucket refills some day.
            true => assert_eq!(answer[..4], expected[..4], "`{line}`"),
            false => assert_eq!(answer, *expected, "`{line}`"),
        }
        assert_eq!(fields(conn, "k")["tokens"], *left, "`{line}`");
    }
    hold(conn, "-3");
    let (taken, index, _, each): (i64, i64, i64, Vec<Vec<i64>>) =
        ask(conn, "CL.TAKEALL other AND k 0 AND k AND other");
    assert_eq!((taken, index), (0, 2));
    assert_eq!(each[1], [0, 10, -3, 0, -1]);
    assert_eq!(each[2], [0, 10, -3, -1, -1]);
    // redis-cell's form, with its waits.
    run(conn, &["DEL k", "CL.SETTLE k 0 13 CAPACITY 10 REFILL 1 INTERVAL 31622400000"]);
    let year = DAYS_366_MS / 1000;
    assert_eq!(ints(conn, "CL.THROTTLE k 9 1 31622400"), [1, 10, 0, 4 * year, 13 * year]);
}

/// The refill pays first.
#[test]
fn who_waits_exactly_as_long_as_told_succeeds() {
    let server = Server::start();
    let conn = &mut server.connection();
    let rows = [
        // What leaves a debt, and what is then refused at first.
        ("CL.SETTLE a 0 7 CAPACITY 5 REFILL 100", "CL.TAKE a 2"),
        ("CL.SETTLE b 0 8 CAPACITY 5 REFILL 7 INTERVAL 33", "CL.TAKE b 2 KEEP 1"),
        ("CL.SETTLE c 1 10 CAPACITY 5 REFILL 3 INTERVAL 7", "CL.TAKE c 5 PARTIAL"),
        ("CL.SETTLE d 0 1000 CAPACITY 500 REFILL 0.7 INTERVAL 1", "CL.TAKE d 3"),
        ("CL.SETTLE e 0 10 CAPACITY 5 REFILL 100", "CL.TAKEALL e 2 AND f"),
        // What could not be booked.
        ("CL.SETTLE g 0 10 CAPACITY 5 REFILL 50", "CL.SETTLE g 0 3"),
        ("CL.SETTLE h 0 10 CAPACITY 5 REFILL 7 INTERVAL 33", "CL.SETTLE h 4 5"),
    ];
    for (owe, line) in rows {
        for _ in 0..3 {
            // Together: however slow the machine is, nothing refills in between.
            run(conn, &["DEL a b c d e f g h", "MULTI", owe, line]);
            let answers: Vec<redis::Value> = ask(conn, "EXEC");
            let redis::Value::Array(second) = &answers[1] else { panic!("{answers:?}") };
            let place = if line.contains("TAKEALL") { 2 } else { 3 };
            let redis::Value::Int(wait) = second[place] else { panic!("{second:?}") };
            assert_eq!(second[0], redis::Value::Int(0), "`{line}`: {second:?}");
            assert!(wait > 0, "`{line}`: {second:?}");
            wait_ms(wait);
            let answer: Vec<redis::Value> = ask(conn, line);
            let redis::Value::Int(taken) = answer[0] else { panic!("{answer:?}") };
            assert!(taken > 0, "`{line}`: {second:?}, and after that wait {answer:?}");
        }
    }
}

/// In transactions and scripts it is what it is alone.
#[test]
fn settlements_go_together() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["CL.TAKEALL requests CAPACITY 10 REFILL 0 AND tokens 400 CAPACITY 500 REFILL 0"]);
    run(conn, &["MULTI", "CL.SETTLE requests 1 1", "CL.SETTLE tokens 400 650"]);
    let both: Vec<[i64; 5]> = ask::<Vec<Vec<i64>>>(conn, "EXEC")
        .into_iter()
        .map(|five| five.try_into().expect("five numbers"))
        .collect();
    assert_eq!(both, [[0, 10, 9, 0, -1], [250, 500, -150, 0, -1]]);
    let script = "return redis.call('CL.SETTLE', KEYS[1], ARGV[1], ARGV[2])";
    let answer: Vec<i64> =
        redis::cmd("EVAL").arg(script).arg(1).arg("tokens").arg(50).arg(0).query(conn).unwrap();
    assert_eq!(answer, [-50, 500, -100, 0, -1]);
}

/// A client that does not know whether its settlement was booked sends it again: with a marker
/// that is written together with it, it is booked once.
#[test]
fn a_settlement_with_a_marker_is_booked_once() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["CL.TAKE k 40 CAPACITY 100 REFILL 0"]);
    let settle = |conn: &mut Connection| -> bool {
        run(conn, &["WATCH settled:7"]);
        if int(conn, "EXISTS settled:7") == 1 {
            run(conn, &["UNWATCH"]);
            return true;
        }
        run(conn, &["MULTI", "SET settled:7 1 EX 3600", "CL.SETTLE k 40 55"]);
        ask::<Option<(String, Vec<i64>)>>(conn, "EXEC").is_some()
    };
    for _ in 0..3 {
        assert!(settle(conn));
        assert_eq!(fields(conn, "k")["tokens"], "45");
    }
    // Two at once: the later one hears that it came too late, and then that it is done.
    run(conn, &["DEL settled:7", "WATCH settled:7"]);
    assert_eq!(int(conn, "EXISTS settled:7"), 0);
    assert!(settle(&mut server.connection()));
    run(conn, &["MULTI", "SET settled:7 1 EX 3600", "CL.SETTLE k 40 55"]);
    assert_eq!(ask::<Option<(String, Vec<i64>)>>(conn, "EXEC"), None);
    assert!(settle(conn));
    assert_eq!(fields(conn, "k")["tokens"], "30");
}
