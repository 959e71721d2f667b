//! Capacity 0: nothing is granted.

use crate::calls::{five, takeall};
use claw_testkit::{Server, error, eventually, fields, int, run};
use redis::Connection;
use std::time::Duration;

const BLOCKED: [i64; 5] = [0, 0, 0, -1, 0];
const LOOK: [i64; 5] = [0, 0, 0, 0, 0];

/// When the key goes is when an interval has passed since the call.
fn goes_after(conn: &mut Connection, key: &str, interval_ms: i64) -> bool {
    let timestamp: i64 = fields(conn, key)["timestamp"].parse().unwrap();
    int(conn, &format!("PEXPIRETIME {key}")) == (timestamp + interval_ms * 1000 + 999) / 1000
}

#[test]
fn a_call_blocks_for_one_interval() {
    let server = Server::start();
    let conn = &mut server.connection();
    let policy = "CAPACITY 0 REFILL 5 INTERVAL 600000";
    // Each on a new bucket and on one that holds some tokens.
    for first in ["DEL k", "CL.TAKE k 3 CAPACITY 10 REFILL 1"] {
        for (line, expected) in [
            (format!("CL.TAKE k 1 {policy}"), BLOCKED),
            (format!("CL.TAKE k 7 {policy} PARTIAL"), BLOCKED),
            (format!("CL.TAKE k 1 {policy} KEEP 1"), BLOCKED),
            (format!("CL.SETTLE k 0 5 {policy}"), BLOCKED),
            (format!("CL.SETTLE k 5 0 {policy}"), LOOK),
        ] {
            run(conn, &["DEL k", first]);
            assert_eq!(five(conn, &line), expected, "{first}, {line}");
            // It is remembered for those who call without a policy.
            for line in ["CL.TAKE k", "CL.PEEK k", "CL.TAKE k 5 PARTIAL", "CL.SETTLE k 0 1"] {
                assert_eq!(five(conn, line), BLOCKED, "{first}, {line}");
            }
            for line in ["CL.TAKE k 0", "CL.PEEK k 0", "CL.GIVE k 5", "CL.SETTLE k 2 1"] {
                assert_eq!(five(conn, line), LOOK, "{first}, {line}");
            }
            assert!(goes_after(conn, "k", 600_000), "{first}, {line}");
            // Until a call brings another one. Tokens are kept, of which there are none.
            let other = five(conn, "CL.TAKE k 1 CAPACITY 10 REFILL 0");
            assert_eq!(other, [0, 10, 0, -1, -1], "{first}, {line}");
        }
        // A look is none of this.
        run(conn, &["DEL k", first]);
        let before = int(conn, "EXISTS k");
        assert_eq!(five(conn, &format!("CL.PEEK k 1 {policy}")), BLOCKED);
        assert_eq!(five(conn, &format!("CL.TAKE k 0 {policy}")), LOOK);
        assert_eq!(int(conn, "EXISTS k"), before);
        assert!(five(conn, "CL.PEEK k")[1] > 0);
    }
    // All or none.
    let (taken, index, each) = takeall(conn, &format!("CL.TAKEALL open AND shut {policy}"));
    assert_eq!((taken, index, each[1]), (0, 1, BLOCKED));
    assert_eq!(int(conn, "EXISTS open"), 0);
    assert!(goes_after(conn, "shut", 600_000));
    // Afterwards everything is as if it had never been.
    run(conn, &["CL.TAKE short 1 CAPACITY 0 REFILL 5 INTERVAL 40"]);
    eventually(Duration::from_secs(10), Duration::from_millis(1), "the interval to pass", || {
        five(conn, "CL.TAKE short")[0] == 1
    });
}

#[test]
fn a_pin_blocks_for_good() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["CL.TAKE k 3 CAPACITY 10 REFILL 0"]);
    for key in ["k", "new"] {
        run(conn, &[&format!("CL.POLICY {key} CAPACITY 0")]);
        for call in ["", " 1 CAPACITY 50 REFILL 5", " 5 PARTIAL"] {
            assert_eq!(five(conn, &format!("CL.TAKE {key}{call}")), BLOCKED, "{key}{call}");
        }
        assert_eq!(five(conn, &format!("CL.SETTLE {key} 0 9 CAPACITY 50 REFILL 5")), BLOCKED);
        assert_eq!(takeall(conn, &format!("CL.TAKEALL open AND {key}")).1, 1);
        assert_eq!(int(conn, &format!("TTL {key}")), -1, "{key}");
        // What was left goes with it.
        assert_eq!(fields(conn, key)["tokens"], "0", "{key}");
        run(conn, &[&format!("CL.POLICY {key} CAPACITY 4")]);
        assert_eq!(five(conn, &format!("CL.PEEK {key} 0"))[..2], [0, 4], "{key}");
    }
    assert_eq!(int(conn, "EXISTS open"), 0);
    // redis-cell's command asks for one at the least, and the pin wins.
    run(conn, &["CL.POLICY k CAPACITY 0"]);
    assert_eq!(claw_testkit::ints(conn, "CL.THROTTLE k 15 30 60"), [1, 0, 0, -1, 0]);
}

/// As the default nothing is granted but under a policy of calls and pins.
#[test]
fn the_default_may_be_to_block() {
    for (args, set) in [(&["max-tokens", "0"][..], "PING"), (&[], "CONFIG SET claw.max-tokens 0")] {
        let server = Server::builder().module_args(args.iter().copied()).start();
        let conn = &mut server.connection();
        run(conn, &[set]);
        for line in ["CL.TAKE k", "CL.PEEK k", "CL.TAKE k 5 PARTIAL", "CL.SETTLE k 0 4"] {
            assert_eq!(five(conn, line), BLOCKED, "{line}");
        }
        assert_eq!(takeall(conn, "CL.TAKEALL k 0 AND k").1, 1);
        // There is nothing to remember.
        assert_eq!(int(conn, "EXISTS k"), 0);
        assert_eq!(five(conn, "CL.TAKE k 1 CAPACITY 3 REFILL 0"), [1, 3, 2, 0, -1]);
        assert_eq!(five(conn, "CL.TAKE k"), [1, 3, 1, 0, -1]);
        run(conn, &["CL.POLICY pinned CAPACITY 3 REFILL 0"]);
        assert_eq!(five(conn, "CL.TAKE pinned"), [1, 3, 2, 0, -1]);
        run(conn, &["CONFIG SET claw.max-tokens 7"]);
        assert_eq!(five(conn, "CL.TAKE new")[..3], [1, 7, 6]);
        assert!(error(conn, "CONFIG SET claw.max-tokens -1").contains("claw.max-tokens"));
    }
    // Buckets that go by the default lose what they had.
    let server = Server::builder().module_args(["refill-rate-per-sec", "0"]).start();
    let conn = &mut server.connection();
    run(conn, &["CL.TAKE k 3"]);
    crate::calls::wait_ms(2);
    run(conn, &["CONFIG SET claw.max-tokens 0"]);
    assert_eq!(five(conn, "CL.PEEK k"), BLOCKED);
    crate::calls::wait_ms(2);
    run(conn, &["CONFIG SET claw.max-tokens 1000"]);
    assert_eq!(five(conn, "CL.PEEK k"), [0, 1000, 0, -1, -1]);
}
