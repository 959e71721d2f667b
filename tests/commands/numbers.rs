//! Numbers as languages print them.

use crate::calls::{five, policy};
use claw_testkit::{Server, ask, call, cmd, error, fields, int, run};

/// Forms of an argument, and the plain one that they stand for.
#[test]
fn arguments_may_have_any_form() {
    let server = Server::start();
    let conn = &mut server.connection();
    #[rustfmt::skip]
    let table = [
        // As Python, JavaScript, C and Lua print them.
        ("CL.TAKE k 3.0 CAPACITY 1e1 REFILL 0",             [3, 10, 7, 0, -1]),
        ("CL.TAKE k 0.3e1 CAPACITY 10.000 REFILL 0.0",      [3, 10, 7, 0, -1]),
        ("CL.TAKE k 30e-1 CAPACITY 1E+01 REFILL 0e9",       [3, 10, 7, 0, -1]),
        ("CL.TAKE k 1 REFILL 3.3333333333333335",           [1, 4, 3, 0, 301]),
        ("CL.TAKE k 1 REFILL 3.333333",                     [1, 4, 3, 0, 301]),
        ("CL.TAKE k 1 REFILL 0.10000000000000001",          [1, 1, 0, 0, 10_000]),
        ("CL.TAKE k 1 REFILL 1e-06 INTERVAL 1.0",           [1, 1, 0, 0, 1_000_000]),
        ("CL.TAKE k 1 REFILL 0.0000005 INTERVAL 1e0",       [1, 1, 0, 0, 1_000_000]),
        ("CL.TAKE k 1e12 REFILL 1e12",                      [1_000_000_000_000, 1_000_000_000_000, 0, 0, 1_000]),
        ("CL.TAKE k 1e12 PARTIAL CAPACITY 2 REFILL 0",      [2, 2, 0, -1, -1]),
        ("CL.TAKE k 1.0 KEEP 9e0 CAPACITY 10 REFILL 0",     [1, 10, 9, 0, -1]),
        ("CL.SETTLE k 1e1 12.0 CAPACITY 10 REFILL 0",       [2, 10, 8, 0, -1]),
        ("CL.PEEK k 5.0 CAPACITY 5 REFILL 0",               [5, 5, 0, 0, -1]),
    ];
    for (line, expected) in table {
        run(conn, &["DEL k"]);
        assert_eq!(five(conn, line), expected, "{line}");
    }
    run(conn, &["DEL k", "CL.TAKE k 9 CAPACITY 10 REFILL 0"]);
    assert_eq!(five(conn, "CL.GIVE k 5.0"), [5, 10, 6, 0, -1]);
    let weighted = "CL.POLICY k CAPACITY 2e1 REFILL 2.50000000000 INTERVAL 1e3 WEIGHT 2.0";
    assert_eq!(policy(conn, weighted), (20, "2.5".into(), 1000, 2, 1));
    run(conn, &["DEL k"]);
    let throttled: Vec<i64> = ask(conn, "CL.THROTTLE k 15.0 30e0 6.0e1 2.0");
    assert_eq!(throttled, [0, 16, 14, -1, 4]);
    let given: Vec<i64> = ask(conn, "CL.THROTTLE k 15 30 60 -1.0");
    assert_eq!(given[2], 15);
}

/// What is no whole number, or rounds to nothing, is an error and never another number.
#[test]
fn what_would_change_a_number_is_refused() {
    let server = Server::start();
    let conn = &mut server.connection();
    let tokens = "ERR tokens must be an integer from 0 to 1000000000000";
    let refill = "ERR refill must be 0 or a number from 0.000001 to 1000000000000";
    #[rustfmt::skip]
    let table = [
        ("CL.TAKE k 5.5",                       tokens),
        ("CL.TAKE k 1.0000000000000002",        tokens),
        ("CL.TAKE k 1e-06",                     tokens),
        ("CL.TAKE k 1e999999999999",            tokens),
        ("CL.TAKE k 1 REFILL 1e-9",             refill),
        ("CL.TAKE k 1 CAPACITY 5 REFILL 1e-9",  refill),
        ("CL.TAKE k 1 REFILL 1e999999999999",   refill),
        ("CL.POLICY k REFILL 0.00000049999999", refill),
    ];
    for (line, expected) in table {
        assert_eq!(error(conn, line), expected, "{line}");
    }
    assert_eq!(int(conn, "EXISTS k"), 0);
}

/// The server's own arithmetic on a bucket's tokens leaves a bucket.
#[test]
fn hincrbyfloat_leaves_a_bucket() {
    let server = Server::start();
    let conn = &mut server.connection();
    // What is held, what is added, what the bucket has then, and with one token more.
    for (held, by, whole, more) in [
        ("500", "-0.01", 499, "500.99"),
        ("0", "0.1", 0, "1.1"),
        ("1", "1e-18", 1, "2"),
        ("0.3", "-0.1", 0, "1.2"),
        ("998", "0.9999999", 999, "1000"),
    ] {
        run(conn, &["DEL k", &format!("HSET k tokens {held}")]);
        call(conn, &["HSET", "k", "policy", "1000 0/1000"]).unwrap();
        cmd(conn, &format!("HINCRBYFLOAT k tokens {by}")).unwrap();
        let text = fields(conn, "k")["tokens"].clone();
        assert_eq!(five(conn, "CL.PEEK k 0")[2], whole, "{text}");
        five(conn, "CL.GIVE k 1");
        assert_eq!(fields(conn, "k")["tokens"], more, "{text}");
    }
}

/// Lua's numbers, as arguments and as text.
#[test]
fn lua_may_write_a_bucket_and_call_with_its_numbers() {
    let server = Server::start();
    let conn = &mut server.connection();
    let write = "redis.call('HSET', KEYS[1], 'tokens', 0.1 + 0.2, 'timestamp', \
                 1773914400000000 .. '', 'policy', '10 ' .. 10 / 3 .. '/' .. 1e9)";
    call(conn, &["EVAL", write, "1", "k"]).unwrap();
    let held = fields(conn, "k");
    assert!(held["tokens"].starts_with("0.3"), "{held:?}");
    assert_eq!(held["timestamp"], "1.7739144e+15");
    assert_eq!(policy(conn, "CL.POLICY k"), (10, "3.333333".into(), 1_000_000_000, 1, 0));
    assert_eq!(five(conn, "CL.PEEK k")[1], 10);
    let take = "return redis.call('CL.TAKE', KEYS[1], 10 / 5, 'CAPACITY', 1e3, 'REFILL', 10 / 3)";
    let answer = call(conn, &["EVAL", take, "1", "other"]).unwrap();
    let answer: Vec<i64> = redis::from_redis_value(answer).unwrap();
    assert_eq!(answer[..3], [2, 1000, 998]);
    assert_eq!(policy(conn, "CL.POLICY other").1, "3.333333");
}
