//! What the tests send, and the answers in a form to compare.

use claw_testkit::{ask, ints};
use redis::{Connection, Value};
use std::thread;
use std::time::{Duration, SystemTime};

pub const TRILLION: i64 = 1_000_000_000_000;
pub const DAY_US: u128 = 24 * 3600 * 1_000_000;
pub const DAYS_366_MS: i64 = 366 * 24 * 3600 * 1000;

/// The five numbers of a take.
pub fn five(conn: &mut Connection, line: &str) -> [i64; 5] {
    ints(conn, line).try_into().unwrap_or_else(|e| panic!("`{line}` answered {e:?}"))
}

/// The answer to `CL.TAKEALL`: granted, index, and the five numbers of each group. The wait for
/// all is the longest of theirs, and never if one is.
pub fn takeall(conn: &mut Connection, line: &str) -> (i64, i64, Vec<[i64; 5]>) {
    let (taken, index, wait, each): (i64, i64, i64, Vec<Vec<i64>>) = ask(conn, line);
    let each: Vec<[i64; 5]> =
        each.into_iter().map(|numbers| numbers.try_into().expect("five numbers")).collect();
    let waits = || each.iter().map(|five| five[3]);
    let longest = if waits().any(|wait| wait < 0) { Some(-1) } else { waits().max() };
    assert_eq!(Some(wait), longest, "`{line}`: {each:?}");
    (taken, index, each)
}

/// The answer to `CL.POLICY`: capacity, refill, interval, weight, pinned; where it comes from
/// agrees with the last.
pub fn policy(conn: &mut Connection, line: &str) -> (i64, String, i64, i64, i64) {
    let pairs: Vec<(String, Value)> = ask(conn, line);
    let names: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
    let known = ["capacity", "refill", "interval", "weight", "pinned", "source"];
    assert_eq!(names[..6], known, "`{line}`");
    assert_eq!(names[6..], ["pin_remaining_ms"], "`{line}`");
    let number = |place: usize| match &pairs[place].1 {
        Value::Int(number) => *number,
        other => panic!("`{line}`: {other:?}"),
    };
    let Value::BulkString(refill) = &pairs[1].1 else { panic!("`{line}`: {pairs:?}") };
    let refill = String::from_utf8(refill.clone()).unwrap();
    let pinned = pairs[5].1 == Value::BulkString(b"pin".to_vec());
    assert_eq!(number(4), i64::from(pinned), "`{line}`: {pairs:?}");
    (number(0), refill, number(2), number(3), number(4))
}

/// `reset_after` of a bucket that does not refill.
pub fn never_full(capacity: i64, held: i64) -> i64 {
    if held == capacity { 0 } else { -1 }
}

/// Waits until the wall clock, which servers go by, has moved on by `ms`.
pub fn wait_ms(ms: i64) {
    let end = SystemTime::now() + Duration::from_millis(ms.try_into().unwrap());
    while let Ok(left) = end.duration_since(SystemTime::now())
        && !left.is_zero()
    {
        thread::sleep(left);
    }
}
