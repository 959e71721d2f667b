//! What every command answers, refuses and leaves behind.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use claw_testkit::{
    Builder, Server, ask, cmd, digest, error, eventually, info_field, int, ints, run,
    wait_for_offset, wire_error,
};
use redis::{Cmd, Connection, Value};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::thread;
use std::time::{Duration, SystemTime};

const TRILLION: i64 = 1_000_000_000_000;
const DAY_US: u128 = 24 * 3600 * 1_000_000;
const DAYS_366_MS: i64 = 366 * 24 * 3600 * 1000;

const TOKENS: &str = "ERR tokens must be an integer from 0 to 1000000000000";
const CAPACITY: &str = "ERR capacity must be an integer from 1 to 1000000000000";
const REFILL: &str =
    "ERR refill must be 0 or a number from 0.000001 to 1000000000000 with at most 6 decimals";
const INTERVAL: &str = "ERR interval must be an integer from 1 to 31622400000 milliseconds";
const WEIGHT: &str = "ERR weight must be an integer from 1 to 10";
const NUMKEYS: &str = "ERR numkeys must be an integer of 1 or more";
const TOO_MANY_KEYS: &str = "ERR numkeys is larger than the number of arguments";
const LONE_INTERVAL: &str = "ERR option 'INTERVAL' needs 'REFILL'";
const LONE_RESET: &str = "ERR option 'RESET' stands alone";
const WRONGTYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";

/// A command whose arguments are in `args`, one by one.
fn call(conn: &mut Connection, args: &[&[u8]]) -> Result<Value, String> {
    let mut command = Cmd::new();
    for arg in args {
        command.arg(*arg);
    }
    command.query(conn).map_err(|e| wire_error(&e).expect("an answer"))
}

/// A server on whose default policy next to nothing refills, so that tests need
/// not be fast.
fn slow_server() -> Builder {
    Server::builder().module_args(["refill-rate-per-sec", "0.000001"])
}

/// The five numbers of a take.
fn five(conn: &mut Connection, line: &str) -> [i64; 5] {
    ints(conn, line).try_into().unwrap_or_else(|e| panic!("`{line}` answered {e:?}"))
}

/// The answer to `CL.TAKEALL`: granted, index, and the five numbers of each key.
fn takeall(conn: &mut Connection, line: &str) -> (i64, i64, Vec<[i64; 5]>) {
    let (taken, index, each): (i64, i64, Vec<Vec<i64>>) = ask(conn, line);
    let each = each.into_iter().map(|numbers| numbers.try_into().expect("five numbers"));
    (taken, index, each.collect())
}

/// The answer to `CL.POLICY`: capacity, refill, interval, weight, pinned.
fn policy(conn: &mut Connection, line: &str) -> (i64, String, i64, i64, i64) {
    let pairs: Vec<(String, Value)> = ask(conn, line);
    let names: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["capacity", "refill", "interval", "weight", "pinned"], "`{line}`");
    let number = |place: usize| match &pairs[place].1 {
        Value::Int(number) => *number,
        other => panic!("`{line}`: {other:?}"),
    };
    let Value::BulkString(refill) = &pairs[1].1 else { panic!("`{line}`: {pairs:?}") };
    let refill = String::from_utf8(refill.clone()).unwrap();
    (number(0), refill, number(2), number(3), number(4))
}

fn fields(conn: &mut Connection, key: &str) -> BTreeMap<String, String> {
    ask(conn, &format!("HGETALL {key}"))
}

/// `reset_after` of a bucket that does not refill.
fn never_full(capacity: i64, held: i64) -> i64 {
    if held == capacity { 0 } else { -1 }
}

/// The server's wall clock in microseconds, at the beginning of the present
/// millisecond: commands never see an earlier time after this.
fn clock(conn: &mut Connection) -> u128 {
    precise_clock(conn) / 1000 * 1000
}

fn precise_clock(conn: &mut Connection) -> u128 {
    let (seconds, micros): (u128, u128) = ask(conn, "TIME");
    seconds * 1_000_000 + micros
}

/// Waits until the wall clock, which servers go by, has moved on by `ms`.
fn wait_ms(ms: i64) {
    let end = SystemTime::now() + Duration::from_millis(ms.try_into().unwrap());
    while let Ok(left) = end.duration_since(SystemTime::now())
        && !left.is_zero()
    {
        thread::sleep(left);
    }
}

/// Millionths in a decimal text.
fn micros(text: &str) -> u128 {
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{places:0<6}").parse().unwrap()
}

/// The `remainder` field counts in 1/2520 of what a millionth of a token is in
/// the interval's microseconds.
const SHARES: u128 = 2520;

/// A bucket on paper, in whole numbers: tokens are millionths, and `rest` is
/// what is held below a millionth, over 2520 times the interval in microseconds.
#[derive(Clone, Debug, PartialEq)]
struct Paper {
    capacity: u128,
    refill: u128,
    interval_ms: u128,
    tokens: u128,
    rest: u128,
    at: u128,
}

impl Paper {
    /// The bucket in a hash that has a stored policy.
    fn read(conn: &mut Connection, key: &str) -> Self {
        let fields = fields(conn, key);
        let policy: Vec<&str> = fields["policy"].split([' ', '/']).collect();
        let weight: u128 = fields.get("userWeight").map_or(1, |w| w.parse().unwrap());
        Self {
            capacity: policy[0].parse::<u128>().unwrap() * 1_000_000,
            refill: micros(policy[1]) * weight,
            interval_ms: policy[2].parse().unwrap(),
            tokens: micros(&fields["tokens"]),
            rest: fields.get("remainder").map_or(0, |r| r.parse().unwrap()),
            at: fields["timestamp"].parse().unwrap(),
        }
    }

    /// The bucket at a later instant.
    fn at(&self, now: u128) -> Self {
        let parts = self.interval_ms * 1000 * SHARES;
        let gained = self.refill * (now - self.at) * SHARES + self.rest;
        let tokens = self.tokens + gained / parts;
        let (tokens, rest) = match tokens < self.capacity {
            true => (tokens, gained % parts),
            false => (self.capacity, 0),
        };
        Self { tokens, rest, at: now, ..self.clone() }
    }

    /// The first whole millisecond from now at which it holds `tokens`.
    fn wait_ms(&self, tokens: u128) -> u128 {
        let holds = |ms: u128| self.at(self.at + ms * 1000).tokens >= tokens * 1_000_000;
        let guess = (tokens * 1_000_000).saturating_sub(self.tokens) * self.interval_ms;
        let guess = guess / self.refill.max(1);
        (guess.saturating_sub(2)..=guess + 2).find(|ms| holds(*ms)).expect("close to the guess")
    }

    /// What a take of nothing answers.
    fn answer(&self, taken: u128, retry_after: u128) -> [i64; 5] {
        let whole = |micros: u128| micros / 1_000_000;
        let full = self.wait_ms(whole(self.capacity));
        let numbers = [taken, whole(self.capacity), whole(self.tokens), retry_after, full];
        numbers.map(|n| i64::try_from(n).unwrap())
    }
}

/// A way to write one argument wrongly.
fn no_integers(max: i64) -> Vec<Vec<u8>> {
    let mut bad: Vec<Vec<u8>> = [
        "",
        "-1",
        "-0",
        "+1",
        " 1",
        "1 ",
        "1\n",
        "1.0",
        "1.",
        ".5",
        "1e3",
        "0x10",
        "1_0",
        "1,0",
        "one",
        "NaN",
        "inf",
        "\u{661}",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "340282366920938463463374607431768211456",
        "%s%n",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    bad.push((max + 1).to_string().into_bytes());
    bad.push(b"9".repeat(512));
    bad.push(b"1\x00".to_vec());
    bad.push(b"\xff\xfe".to_vec());
    bad
}

#[test]
fn a_new_bucket_is_full() {
    let server = Server::start();
    let conn = &mut server.connection();
    let max = TRILLION;
    let rows: &[(&str, [i64; 5])] = &[
        // The default policy: 1000 tokens, 5 a second.
        ("CL.TAKE k", [1, 1000, 999, 0, 200]),
        ("CL.TAKE k 1", [1, 1000, 999, 0, 200]),
        ("CL.TAKE k 0", [0, 1000, 1000, 0, 0]),
        ("CL.TAKE k 1000", [1000, 1000, 0, 0, 200_000]),
        ("CL.TAKE k 1001", [0, 1000, 1000, -1, 0]),
        ("CL.TAKE k 1000000000000", [0, 1000, 1000, -1, 0]),
        ("cl.take k 3", [3, 1000, 997, 0, 600]),
        // What a call leaves out comes from the default.
        ("CL.TAKE k CAPACITY 10", [1, 10, 9, 0, 200]),
        ("CL.TAKE k 10 REFILL 10", [10, 1000, 990, 0, 1000]),
        ("CL.TAKE k 10 REFILL 10 INTERVAL 60000", [10, 1000, 990, 0, 60_000]),
        // Options come in any order and case.
        ("CL.TAKE k 2 interval 500 refill 1 Capacity 7", [2, 7, 5, 0, 1000]),
        ("CL.TAKE k partial Capacity 7 REFILL 1", [1, 7, 6, 0, 1000]),
        // Decimals; waits are rounded up.
        ("CL.TAKE k CAPACITY 2 REFILL 0.5", [1, 2, 1, 0, 2000]),
        ("CL.TAKE k CAPACITY 2 REFILL 3", [1, 2, 1, 0, 334]),
        ("CL.TAKE k CAPACITY 2 REFILL 0.3", [1, 2, 1, 0, 3334]),
        ("CL.TAKE k CAPACITY 2 REFILL 1.5", [1, 2, 1, 0, 667]),
        ("CL.TAKE k CAPACITY 2 REFILL 10000", [1, 2, 1, 0, 1]),
        ("CL.TAKE k CAPACITY 2 REFILL 0.000001", [1, 2, 1, 0, 1_000_000_000]),
        ("CL.TAKE k CAPACITY 2 REFILL 00.50", [1, 2, 1, 0, 2000]),
        // A bucket that never refills.
        ("CL.TAKE k CAPACITY 2 REFILL 0", [1, 2, 1, 0, -1]),
        ("CL.TAKE k CAPACITY 2 REFILL 0.0", [1, 2, 1, 0, -1]),
        ("CL.TAKE k 3 CAPACITY 2 REFILL 0", [0, 2, 2, -1, 0]),
        ("CL.TAKE k 0 CAPACITY 2 REFILL 0", [0, 2, 2, 0, 0]),
        // PARTIAL takes what there is.
        ("CL.TAKE k 5 CAPACITY 3 REFILL 1 PARTIAL", [3, 3, 0, 0, 3000]),
        ("CL.TAKE k 1000000000000 PARTIAL", [1000, 1000, 0, 0, 200_000]),
        ("CL.TAKE k 0 PARTIAL", [0, 1000, 1000, 0, 0]),
        // The bounds.
        ("CL.TAKE k CAPACITY 1", [1, 1, 0, 0, 200]),
        ("CL.TAKE k CAPACITY 1000000000000", [1, max, max - 1, 0, 200]),
        ("CL.TAKE k 1000000000000 CAPACITY 1000000000000", [max, max, 0, 0, max * 200]),
        ("CL.TAKE k CAPACITY 1 REFILL 1000000000000", [1, 1, 0, 0, 1]),
        ("CL.TAKE k CAPACITY 1 REFILL 1000000000000 INTERVAL 1", [1, 1, 0, 0, 1]),
        ("CL.TAKE k CAPACITY 1 REFILL 1 INTERVAL 1", [1, 1, 0, 0, 1]),
        ("CL.TAKE k CAPACITY 1 REFILL 1 INTERVAL 31622400000", [1, 1, 0, 0, DAYS_366_MS]),
        (
            "CL.TAKE k CAPACITY 1 REFILL 0.000001 INTERVAL 31622400000",
            [1, 1, 0, 0, DAYS_366_MS * 1_000_000],
        ),
        // Longer than 2^63 ms is as good as never.
        (
            "CL.TAKE k 1000000000000 CAPACITY 1000000000000 REFILL 0.000001 INTERVAL 31622400000",
            [max, max, 0, 0, -1],
        ),
    ];
    for (line, expected) in rows {
        run(conn, &["DEL k"]);
        let peek = line.replacen("TAKE", "PEEK", 1).replacen("take", "peek", 1);
        if !peek.to_ascii_uppercase().contains("PARTIAL") {
            assert_eq!(five(conn, &peek), *expected, "`{peek}`");
            assert_eq!(int(conn, "EXISTS k"), 0, "`{peek}`");
        }
        assert_eq!(five(conn, line), *expected, "`{line}`");
        assert_eq!(int(conn, "EXISTS k"), i64::from(expected[0] > 0), "`{line}`");
    }
}

/// Policies with and without a finite decimal rate, weights, and states of any
/// age: tokens, their age in microseconds, and what is then taken.
const STATES: &[(&str, u32, &str, u128, u128)] = &[
    ("10 1/1000", 1, "0", 2_500_000, 2),
    ("10 1/1000", 1, "0", 9_999_999, 9),
    ("10 1/1000", 1, "9.999999", 0, 9),
    ("10 1/1000", 1, "3", 3_600_000_000, 10),
    ("100 5/1000", 3, "0", 1_000_000, 15),
    ("100 5/1000", 10, "50.5", 1_000_000, 100),
    ("100 7/3000", 1, "0", 1_000_001, 2),
    ("100 7/3000", 7, "0", 1_000_001, 16),
    ("1000 1/7", 1, "0.000001", 999_999, 142),
    ("10 0.000001/1", 1, "1", 1_000_000, 1),
    ("1000 0.3/1000", 9, "12.345678", 86_400_000_000, 1000),
    ("6001 6000/1000", 1, "5990.5", 1_000, 5996),
    ("1000000000000 1000000000000/1", 1, "0", 1_000, 1_000_000_000_000),
    ("1000000000000 1000000000000/31622400000", 10, "0", 86_400_000_000, 7_000_000_000),
    ("1000000000000 0.000001/31622400000", 1, "1000", 86_400_000_000, 1000),
];

#[test]
fn a_granted_take_is_exact_to_the_millionth() {
    let server = Server::start();
    let conn = &mut server.connection();
    for row in STATES {
        let (policy, weight, tokens, age, take) = row;
        let at = clock(conn) - age;
        let hset = format!("HSET k tokens {tokens} timestamp {at} userWeight {weight} policy");
        let mut hset: Vec<&[u8]> = hset.split(' ').map(str::as_bytes).collect();
        hset.push(policy.as_bytes());
        call(conn, &[b"DEL", b"k"]).unwrap();
        call(conn, &hset).unwrap();
        let before = Paper::read(conn, "k");

        let words: Vec<&str> = policy.split([' ', '/']).collect();
        let options = format!("CAPACITY {} REFILL {} INTERVAL {}", words[0], words[1], words[2]);
        let reply = five(conn, &format!("CL.TAKE k {take} {options}"));

        let after = Paper::read(conn, "k");
        let mut expected = before.at(after.at);
        assert!(expected.tokens >= take * 1_000_000, "{row:?} would be refused");
        expected.tokens -= take * 1_000_000;
        assert_eq!(after, expected, "{row:?}");
        // The last row refills too slowly for a number of milliseconds.
        if reply[4] == -1 {
            assert_eq!(words[1], "0.000001", "{row:?}");
            continue;
        }
        assert_eq!(reply, after.answer(*take, 0), "{row:?}");
    }
}

#[test]
fn a_refused_take_says_to_the_millisecond_when_to_come_again() {
    let server = Server::start();
    let conn = &mut server.connection();
    // Policy, weight, tokens held, age, and what is asked for.
    let rows: &[(&str, u32, &str, u128, u128)] = &[
        ("10 1/1000", 1, "0", 2_500_000, 10),
        ("10 1/1000", 1, "0.000001", 0, 9),
        ("10 1/1000", 2, "0.5", 1_000, 9),
        ("100 5/1000", 3, "0", 1_000_001, 99),
        ("100 7/3000", 1, "0", 0, 50),
        ("100 7/3000", 1, "0", 1, 100),
        ("100 7/3000", 9, "10.999999", 0, 100),
        ("1000 1/7", 1, "0", 1_000, 1000),
        ("10 0.000001/1", 1, "1", 1_000_000, 10),
        ("1000 0.3/1000", 10, "12.345678", 999_999, 1000),
        ("6001 6000/60000", 1, "99.5", 1_000, 6001),
        ("1000000000000 999999999999/31622400000", 1, "0", 1_000_000, 1_000_000_000_000),
    ];
    for row in rows {
        let (policy, weight, tokens, age, take) = row;
        let words: Vec<&str> = policy.split([' ', '/']).collect();
        let capacity: u128 = words[0].parse().unwrap();
        let at = clock(conn) - age;
        let hset = format!("HSET k tokens {tokens} timestamp {at} userWeight {weight} policy");
        let mut hset: Vec<&[u8]> = hset.split(' ').map(str::as_bytes).collect();
        // Another capacity than the call's: such a refusal is written, with the
        // instant at which it was made.
        let other = format!("{} {}/{}", (capacity + 1).min(TRILLION as u128), words[1], words[2]);
        let other = if capacity == TRILLION as u128 { policy.to_string() } else { other };
        hset.push(other.as_bytes());
        call(conn, &[b"DEL", b"k"]).unwrap();
        call(conn, &hset).unwrap();
        let before = Paper::read(conn, "k");
        let options = format!("CAPACITY {} REFILL {} INTERVAL {}", words[0], words[1], words[2]);

        let early = clock(conn);
        let reply = five(conn, &format!("CL.TAKE k {take} {options}"));
        let late = precise_clock(conn);

        let after = Paper::read(conn, "k");
        assert_eq!(reply[0], 0, "{row:?}");
        if after.at == before.at {
            // Nothing was written, so the instant is known to be between two only.
            let waits = [late, early].map(|now| before.at(now).wait_ms(*take) as i64);
            assert!((waits[0]..=waits[1]).contains(&reply[3]), "{row:?}: {reply:?}, {waits:?}");
            continue;
        }
        let mut expected = before.at(after.at);
        expected.capacity = capacity * 1_000_000;
        assert_eq!(after, expected, "{row:?}");
        assert_eq!(reply, after.answer(0, after.wait_ms(*take)), "{row:?}");
    }
}

#[test]
fn who_waits_exactly_retry_after_succeeds() {
    let server = Server::start();
    let conn = &mut server.connection();
    let rows = [
        ("CL.TAKE a 1 CAPACITY 1 REFILL 1 INTERVAL 1", 10),
        ("CL.TAKE b 1 CAPACITY 1 REFILL 100", 10),
        ("CL.TAKE c 1 CAPACITY 1 REFILL 3", 3),
        ("CL.TAKE d 2 CAPACITY 3 REFILL 7 INTERVAL 333", 5),
        ("CL.TAKE e 1000 CAPACITY 1000 REFILL 6000", 3),
        ("CL.TAKE f 5 CAPACITY 5 REFILL 2000000", 10),
        ("CL.TAKE g 1 CAPACITY 1 REFILL 0.004 INTERVAL 1", 3),
        ("CL.TAKE h 9 CAPACITY 9 REFILL 11 INTERVAL 100 PARTIAL", 10),
        ("CL.TAKE i 1000000000000 CAPACITY 1000000000000 REFILL 1000000000000 INTERVAL 40", 5),
    ];
    for (line, times) in rows {
        let mut command = Cmd::new();
        line.split(' ').for_each(|word| {
            command.arg(word);
        });
        // Two in one transaction: most often the second is refused, however
        // fast the refill; a slow machine may need some more.
        let two = redis::pipe().atomic().add_command(command.clone()).add_command(command).clone();
        let mut waits = 0;
        for _ in 0..times * 100 {
            let (_, second): (Vec<i64>, Vec<i64>) = two.query(conn).unwrap();
            if second[0] > 0 {
                continue;
            }
            wait_ms(second[3]);
            let granted = five(conn, line);
            assert!(granted[0] > 0, "`{line}`: {second:?}, and after that wait {granted:?}");
            waits += 1;
            if waits == times {
                break;
            }
        }
        assert!(waits > 0, "`{line}` was never refused");
    }
}

#[test]
fn peek_answers_what_take_would() {
    let server = Server::start();
    let conn = &mut server.connection();
    // Nothing refills, so that both see the same bucket.
    run(conn, &["CL.POLICY k CAPACITY 10 REFILL 0", "CL.TAKE k 4"]);
    let rows = [
        ("k", [1, 10, 5, 0, -1]),
        ("k 0", [0, 10, 6, 0, -1]),
        ("k 6", [6, 10, 0, 0, -1]),
        ("k 7", [0, 10, 6, -1, -1]),
        ("k 11", [0, 10, 6, -1, -1]),
        ("k 2 CAPACITY 3 REFILL 4 INTERVAL 5", [2, 10, 4, 0, -1]),
    ];
    for (args, expected) in rows {
        let before = digest(conn);
        assert_eq!(five(conn, &format!("CL.PEEK {args}")), expected, "CL.PEEK {args}");
        assert_eq!(digest(conn), before, "CL.PEEK {args}");
        run(conn, &["DEL copy", "COPY k copy"]);
        let take = args.replacen('k', "copy", 1);
        assert_eq!(five(conn, &format!("CL.TAKE {take}")), expected, "CL.TAKE {take}");
    }
    // With options it shows the bucket as that call would leave it.
    run(conn, &["CL.TAKE m 4 CAPACITY 10 REFILL 0"]);
    assert_eq!(five(conn, "CL.PEEK m 1 CAPACITY 5 REFILL 0"), [1, 5, 4, 0, -1]);
    assert_eq!(five(conn, "CL.PEEK m 1 CAPACITY 10 REFILL 0"), [1, 10, 5, 0, -1]);
    assert_eq!(five(conn, "CL.PEEK m 7 CAPACITY 7 REFILL 0"), [0, 7, 6, -1, -1]);
}

#[test]
fn partial_takes_what_there_is() {
    let server = Server::start();
    let conn = &mut server.connection();
    let rows = [
        ("CL.TAKE k 4 CAPACITY 10 REFILL 0 PARTIAL", [4, 10, 6, 0, -1]),
        ("CL.TAKE k 0 CAPACITY 10 REFILL 0 PARTIAL", [0, 10, 6, 0, -1]),
        ("CL.TAKE k 20 CAPACITY 10 REFILL 0 PARTIAL", [6, 10, 0, 0, -1]),
        ("CL.TAKE k 1 CAPACITY 10 REFILL 0 PARTIAL", [0, 10, 0, -1, -1]),
        ("CL.TAKE k 0 CAPACITY 10 REFILL 0 PARTIAL", [0, 10, 0, 0, -1]),
    ];
    for (line, expected) in rows {
        assert_eq!(five(conn, line), expected, "`{line}`");
    }
    // Part of a token is none, and the wait is the one for the first token,
    // not for all that was asked for.
    let now = clock(conn);
    call(conn, &[b"HSET", b"p", b"policy", b"10 1/31622400000", b"tokens", b"0.999999"]).unwrap();
    run(conn, &[&format!("HSET p timestamp {now}")]);
    let line = "CL.TAKE p 10 CAPACITY 10 REFILL 1 INTERVAL 31622400000";
    let [taken, capacity, remaining, retry, reset] = five(conn, &format!("{line} PARTIAL"));
    assert_eq!([taken, capacity, remaining], [0, 10, 0]);
    assert!((1..=31_623).contains(&retry), "{retry}");
    let [_, _, _, retry_whole, reset_whole] = five(conn, line);
    assert!(retry_whole > 9 * (DAYS_366_MS - 1_000_000) && reset >= reset_whole);
}

#[test]
fn give_returns_tokens_up_to_the_capacity() {
    let server = Server::start();
    let conn = &mut server.connection();
    // Held, given back, answer, held then.
    let rows = [
        ("0", "3", [3, 10, 3, 0, -1], "3"),
        ("0", "", [1, 10, 1, 0, -1], "1"),
        ("0", "0", [0, 10, 0, 0, -1], "0"),
        ("7", "3", [3, 10, 10, 0, 0], "10"),
        ("8", "5", [2, 10, 10, 0, 0], "10"),
        ("9.5", "5", [0, 10, 10, 0, 0], "10"),
        ("8.5", "5", [1, 10, 10, 0, 0], "10"),
        ("8.5", "1", [1, 10, 9, 0, -1], "9.5"),
        ("10", "5", [0, 10, 10, 0, 0], "10"),
        ("0", "1000000000000", [10, 10, 10, 0, 0], "10"),
        ("999", "1", [0, 10, 10, 0, 0], "999"),
    ];
    for (held, given, expected, left) in rows {
        let now = clock(conn);
        run(conn, &["DEL k", &format!("HSET k tokens {held} timestamp {now}")]);
        call(conn, &[b"HSET", b"k", b"policy", b"10 0/1000"]).unwrap();
        assert_eq!(five(conn, &format!("CL.GIVE k {given}")), expected, "{held} + {given}");
        assert_eq!(fields(conn, "k")["tokens"], left, "{held} + {given}");
    }
    // A missing bucket is full.
    assert_eq!(five(conn, "CL.GIVE none 5"), [0, 1000, 1000, 0, 0]);
    assert_eq!(int(conn, "EXISTS none"), 0);
    // The policy is the one that the bucket was left with, and stays.
    run(conn, &["CL.TAKE own 5 CAPACITY 7 REFILL 0"]);
    assert_eq!(five(conn, "CL.GIVE own 3"), [3, 7, 5, 0, -1]);
    assert_eq!(five(conn, "CL.GIVE own 3"), [2, 7, 7, 0, 0]);
    assert_eq!(fields(conn, "own")["policy"], "7 0/1000");
    // Credit comes first: what has refilled meanwhile leaves no room.
    let old = clock(conn) - DAY_US;
    run(conn, &[&format!("HSET idle tokens 0 timestamp {old}")]);
    assert_eq!(five(conn, "CL.GIVE idle 3"), [0, 1000, 1000, 0, 0]);
}

#[test]
fn a_pinned_policy_wins_over_the_call_and_the_call_over_the_default() {
    let server = Server::start();
    let conn = &mut server.connection();
    assert_eq!(five(conn, "CL.PEEK k")[1], 1000, "default");
    assert_eq!(five(conn, "CL.TAKE k CAPACITY 50")[1], 50, "call");
    assert_eq!(five(conn, "CL.PEEK k")[1], 1000, "default");
    assert_eq!(five(conn, "CL.PEEK k CAPACITY 60")[1], 60, "call");
    run(conn, &["CL.POLICY k CAPACITY 70 REFILL 0"]);
    for line in [
        "CL.TAKE k",
        "CL.TAKE k CAPACITY 50",
        "CL.TAKE k REFILL 9 INTERVAL 10",
        "CL.PEEK k CAPACITY 50",
        "CL.GIVE k 0",
    ] {
        let reply = five(conn, line);
        assert_eq!((reply[1], reply[4]), (70, -1), "`{line}`");
    }
    assert_eq!(takeall(conn, "CL.TAKEALL 1 k CAPACITY 50").2[0][1], 70);
    assert_eq!(fields(conn, "k")["policy"], "70 0/1000 pinned 1");
    // The default does not show through, either.
    run(conn, &["CONFIG SET claw.max-tokens 5"]);
    assert_eq!(five(conn, "CL.PEEK k")[1], 70);
    run(conn, &["CL.POLICY k RESET"]);
    assert_eq!(five(conn, "CL.PEEK k")[1], 5);
    assert_eq!(five(conn, "CL.PEEK k CAPACITY 50")[1], 50);
    // An option out of bounds is an error even where a pin overrides it.
    run(conn, &["CL.POLICY k CAPACITY 70"]);
    assert_eq!(error(conn, "CL.TAKE k CAPACITY 0"), CAPACITY);
}

#[test]
fn a_policy_is_read_pinned_and_reset() {
    let server = Server::start();
    let conn = &mut server.connection();
    let max = TRILLION;
    type Row = (&'static str, (i64, &'static str, i64, i64, i64), &'static str);
    let rows: &[Row] = &[
        // Reading, and what changes nothing, makes no key.
        ("CL.POLICY k", (1000, "5", 1000, 1, 0), ""),
        ("CL.POLICY k RESET", (1000, "5", 1000, 1, 0), ""),
        ("CL.POLICY k WEIGHT 1", (1000, "5", 1000, 1, 0), ""),
        // What is left out stays as it is.
        ("CL.POLICY k CAPACITY 50", (50, "5", 1000, 1, 1), "50 5/1000 pinned 1"),
        ("CL.POLICY k", (50, "5", 1000, 1, 1), "50 5/1000 pinned 1"),
        ("cl.policy k refill 0.25", (50, "0.25", 1000, 1, 1), "50 0.25/1000 pinned 2"),
        ("CL.POLICY k WEIGHT 3", (50, "0.25", 1000, 3, 1), "50 0.25/1000 pinned 2"),
        // The same again is no new version.
        ("CL.POLICY k CAPACITY 50", (50, "0.25", 1000, 3, 1), "50 0.25/1000 pinned 2"),
        ("CL.POLICY k INTERVAL 20 REFILL 7", (50, "7", 20, 3, 1), "50 7/20 pinned 3"),
        // REFILL without INTERVAL is by the second.
        ("CL.POLICY k REFILL 7", (50, "7", 1000, 3, 1), "50 7/1000 pinned 4"),
        (
            "CL.POLICY k WEIGHT 10 CAPACITY 1000000000000 REFILL 1000000000000 INTERVAL 1",
            (max, "1000000000000", 1, 10, 1),
            "1000000000000 1000000000000/1 pinned 5",
        ),
        (
            "CL.POLICY k CAPACITY 1 REFILL 0.000001 INTERVAL 31622400000",
            (1, "0.000001", DAYS_366_MS, 10, 1),
            "1 0.000001/31622400000 pinned 6",
        ),
        ("CL.POLICY k REFILL 0 WEIGHT 1", (1, "0", 1000, 1, 1), "1 0/1000 pinned 7"),
        ("CL.POLICY k WEIGHT 2", (1, "0", 1000, 2, 1), "1 0/1000 pinned 7"),
        ("CL.POLICY k reset", (1000, "5", 1000, 1, 0), ""),
        ("CL.POLICY k", (1000, "5", 1000, 1, 0), ""),
    ];
    for (line, (capacity, refill, interval, weight, pinned), stored) in rows {
        let expected = (*capacity, (*refill).to_owned(), *interval, *weight, *pinned);
        assert_eq!(policy(conn, line), expected, "`{line}`");
        let field = fields(conn, "k").get("policy").cloned().unwrap_or_default();
        assert_eq!(field, *stored, "`{line}`");
    }

    // A weight alone does not pin; the default stays in force.
    assert_eq!(policy(conn, "CL.POLICY w WEIGHT 4"), (1000, "5".into(), 1000, 4, 0));
    assert_eq!(fields(conn, "w")["userWeight"], "4");
    assert_eq!(five(conn, "CL.TAKE w CAPACITY 9")[1], 9);
    // A call's options are stored, not pinned, and are shown.
    assert_eq!(policy(conn, "CL.POLICY w"), (9, "5".into(), 1000, 4, 0));
    // Pinning then starts from them.
    assert_eq!(policy(conn, "CL.POLICY w REFILL 2"), (9, "2".into(), 1000, 4, 1));
}

#[test]
fn a_change_of_policy_credits_the_old_rate_and_keeps_the_tokens() {
    let server = Server::start();
    let conn = &mut server.connection();
    let hour = 3_600_000_000;
    // Ten seconds at one a second, whatever rate comes after; another capacity
    // cuts. Tokens held, age, the change, and the least and most held after it
    // (before anything is taken) if the change took an hour.
    let rows: &[(&str, u128, &str, &str, u128, u128)] = &[
        ("0", 10_000_000, "100 1/1000", "CAPACITY 1000 REFILL 50", 10, 100),
        ("0", 10_000_000, "100 1/1000", "CAPACITY 100 REFILL 0", 10, 100),
        ("0", 10_000_000, "100 1/1000", "CAPACITY 5 REFILL 1", 5, 5),
        ("3", 10_000_000, "100 0/1000", "CAPACITY 5 REFILL 1000", 3, 3),
        ("30", 0, "100 0/1000", "CAPACITY 20 REFILL 0", 20, 20),
        ("30", 0, "100 0/1000", "CAPACITY 40 REFILL 0", 30, 30),
        // Full under the old capacity is not full under the new one.
        ("100", hour, "100 1/1000", "CAPACITY 1000 REFILL 1", 100, 100),
        ("0", hour, "100 1/1000", "CAPACITY 1000 REFILL 1", 100, 100),
        // The interval counts, too.
        ("0", 10_000_000, "100 1/20000", "CAPACITY 100 REFILL 50 INTERVAL 1", 0, 100),
    ];
    for row in rows {
        let (held, age, old, new, least, most) = row;
        for how in ["CL.TAKE k 1", "CL.TAKE k 500", "CL.POLICY k", "CL.TAKEALL 1 k TOKENS 1"] {
            let at = clock(conn) - age;
            run(conn, &["DEL k", &format!("HSET k tokens {held} timestamp {at}")]);
            call(conn, &[b"HSET", b"k", b"policy", old.as_bytes()]).unwrap();
            let before = Paper::read(conn, "k");
            run(conn, &[&format!("{how} {new}")]);
            let after = Paper::read(conn, "k");
            let mut expected = before.at(after.at);
            (expected.capacity, expected.refill) = (after.capacity, after.refill);
            expected.interval_ms = after.interval_ms;
            expected.rest = expected.rest * after.interval_ms / before.interval_ms;
            if expected.tokens >= after.capacity {
                (expected.tokens, expected.rest) = (after.capacity, 0);
            }
            let whole = expected.tokens / 1_000_000;
            assert!((*least..=*most).contains(&whole), "{row:?}, {how}: {whole}");
            if how.ends_with('1') && whole >= 1 {
                expected.tokens -= 1_000_000;
            }
            assert_eq!(after, expected, "{row:?}, {how}");
        }
    }
    // A raised rate does not refuse what the old one had granted.
    run(conn, &["DEL k", "CL.TAKE k 90 CAPACITY 100 REFILL 0"]);
    assert_eq!(five(conn, "CL.TAKE k 10 CAPACITY 1000 REFILL 0")[0], 10);
}

#[test]
fn a_refused_call_with_a_new_policy_stores_it() {
    let server = Server::start();
    let conn = &mut server.connection();
    for line in ["CL.TAKE k 9", "CL.TAKEALL 1 k TOKENS 9"] {
        run(conn, &["DEL k", "CL.TAKE k 5 CAPACITY 5 REFILL 0"]);
        let refused = format!("{line} CAPACITY 10 REFILL 0 INTERVAL 50");
        run(conn, &[&refused]);
        assert_eq!(fields(conn, "k")["policy"], "10 0/50", "`{line}`");
        assert_eq!(fields(conn, "k")["tokens"], "0", "`{line}`");
        // From then on the same refusal writes nothing.
        let before = (digest(conn), int(conn, "PEXPIRETIME k"));
        run(conn, &[&refused]);
        assert_eq!((digest(conn), int(conn, "PEXPIRETIME k")), before, "`{line}`");
        // Back to the default: also a change.
        run(conn, &[&format!("{line}99")]);
        assert!(!fields(conn, "k").contains_key("policy"), "`{line}`");
    }
    // A missing bucket stays missing.
    run(conn, &["DEL k", "CL.TAKE k 11 CAPACITY 10", "CL.TAKEALL 1 k TOKENS 11 CAPACITY 10"]);
    assert_eq!(int(conn, "EXISTS k"), 0);
}

#[test]
fn a_new_default_credits_the_old_one_up_to_its_change() {
    let server = Server::start();
    let conn = &mut server.connection();
    let second = 1_000_000;
    // Ten seconds at 5 a second, then a stop: the bucket holds what it had
    // gained up to the change.
    let at = clock(conn) - 10 * second;
    run(conn, &[&format!("HSET k tokens 0 timestamp {at}")]);
    let early = clock(conn);
    run(conn, &["CONFIG SET claw.refill-rate-per-sec 0"]);
    let late = precise_clock(conn);
    assert_eq!(five(conn, "CL.TAKE k 1")[4], -1, "nothing refills now");
    let held = micros(&fields(conn, "k")["tokens"]) + 1_000_000;
    assert!((5 * (early - at)..=5 * (late - at)).contains(&held), "{held}");
    // Nothing was gained while it stood still.
    let stopped = clock(conn);
    eventually(Duration::from_secs(10), Duration::from_millis(1), "the clock to go on", || {
        clock(conn) > stopped + 5000
    });
    run(conn, &["CONFIG SET claw.refill-rate-per-sec 1000000"]);
    let restarted = clock(conn);
    run(conn, &["CONFIG SET claw.refill-rate-per-sec 0"]);
    let stopped_again = precise_clock(conn);
    run(conn, &["CL.TAKE k 1"]);
    let gained = micros(&fields(conn, "k")["tokens"]) + 1_000_000 - (held - 1_000_000);
    let most = 1_000_000 * (stopped_again - restarted + 1000);
    assert!(gained <= most || fields(conn, "k")["tokens"] == "999", "{gained} of {most}");

    // A smaller capacity cuts, a larger one keeps; buckets with a policy of
    // their own do not follow.
    run(conn, &["CL.TAKE own 1 CAPACITY 20 REFILL 0", "DEL k", "CL.TAKE k 400"]);
    let rows = [(500, 500), (700, 500), (TRILLION, 500), (1, 1)];
    for (capacity, held) in rows {
        // A policy counts from the next tick of the clock on.
        wait_ms(2);
        run(conn, &[&format!("CONFIG SET claw.max-tokens {capacity}")]);
        assert_eq!(five(conn, "CL.TAKE k 0"), [0, capacity, held, 0, never_full(capacity, held)]);
        assert_eq!(five(conn, "CL.PEEK own CAPACITY 20 REFILL 0")[2], 18);
        assert_eq!(five(conn, "CL.PEEK new 0")[2], capacity, "a new bucket");
    }
}

#[test]
fn a_weight_multiplies_the_refill() {
    let server = Server::start();
    let conn = &mut server.connection();
    let full_after = [1800, 900, 600, 450, 360, 300, 258, 225, 200, 180];
    for (weight, full_after) in (1..=10_u32).zip(full_after) {
        run(conn, &["DEL k", &format!("CL.POLICY k CAPACITY 9 WEIGHT {weight}")]);
        assert_eq!(five(conn, "CL.TAKE k 9"), [9, 9, 0, 0, full_after], "weight {weight}");
        // By hand, with an age.
        let at = clock(conn) - 1_000_000;
        run(conn, &["DEL k", &format!("HSET k tokens 0 timestamp {at} userWeight {weight}")]);
        call(conn, &[b"HSET", b"k", b"policy", b"10000 100/1000"]).unwrap();
        let before = Paper::read(conn, "k");
        let line = "CL.TAKE k 1 CAPACITY 10000 REFILL 100";
        let reply = five(conn, line);
        let after = Paper::read(conn, "k");
        let mut expected = before.at(after.at);
        expected.tokens -= 1_000_000;
        assert_eq!(after, expected, "weight {weight}");
        assert_eq!(reply, after.answer(1, 0), "weight {weight}");
        assert!(reply[2] >= i64::from(100 * weight) - 1, "weight {weight}: {reply:?}");
    }
    // A new weight credits the old one first.
    let at = clock(conn) - 10_000_000;
    run(conn, &["DEL k", &format!("HSET k tokens 0 timestamp {at}")]);
    call(conn, &[b"HSET", b"k", b"policy", b"10000 100/1000"]).unwrap();
    let before = Paper::read(conn, "k");
    run(conn, &["CL.POLICY k WEIGHT 10"]);
    let after = Paper::read(conn, "k");
    assert_eq!(after.tokens, before.at(after.at).tokens);
    assert_eq!(after.refill, 10 * before.refill);
}

#[test]
fn takeall_takes_from_all_or_none() {
    let server = Server::start();
    let conn = &mut server.connection();
    // Buckets a, b and c with 10, 5 and 1 tokens that never refill.
    let took = |n, capacity, remaining| [n, capacity, remaining, 0, -1];
    let enough = |capacity| [0, capacity, capacity, 0, 0];
    let too_many = |capacity| [0, capacity, capacity, -1, 0];
    type Row<'a> = (&'a str, (i64, i64, Vec<[i64; 5]>));
    let rows: Vec<Row<'_>> = vec![
        ("1 a", (1, -1, vec![took(1, 10, 9)])),
        ("3 a b c", (1, -1, vec![took(1, 10, 9), took(1, 5, 4), took(1, 1, 0)])),
        ("3 c b a", (1, -1, vec![took(1, 1, 0), took(1, 5, 4), took(1, 10, 9)])),
        // One value for all, or one for each.
        ("2 a b TOKENS 5", (1, -1, vec![took(5, 10, 5), took(5, 5, 0)])),
        ("2 a b TOKENS 10 5", (1, -1, vec![took(10, 10, 0), took(5, 5, 0)])),
        ("3 a b c tokens 2 3 0", (1, -1, vec![took(2, 10, 8), took(3, 5, 2), enough(1)])),
        ("2 a b TOKENS 0", (1, -1, vec![enough(10), enough(5)])),
        // The first that refuses is named; nobody is charged.
        ("2 a b TOKENS 6", (0, 1, vec![enough(10), too_many(5)])),
        ("2 b a TOKENS 6", (0, 0, vec![too_many(5), enough(10)])),
        ("3 a b c TOKENS 2", (0, 2, vec![enough(10), enough(5), too_many(1)])),
        ("3 a b c TOKENS 11 1 2", (0, 0, vec![too_many(10), enough(5), too_many(1)])),
        // A key named twice is charged twice.
        ("2 a a", (1, -1, vec![took(1, 10, 9), took(1, 10, 8)])),
        ("3 a b a TOKENS 4 5 6", (1, -1, vec![took(4, 10, 6), took(5, 5, 0), took(6, 10, 0)])),
        ("2 c c", (0, 1, vec![enough(1), too_many(1)])),
        ("2 a a TOKENS 5 6", (0, 1, vec![enough(10), too_many(10)])),
        ("3 a c a TOKENS 10 1 1", (0, 2, vec![enough(10), enough(1), too_many(10)])),
        ("3 a a a TOKENS 1000000000000", (0, 0, vec![too_many(10); 3])),
    ];
    for (args, expected) in rows {
        run(conn, &["FLUSHALL"]);
        for (key, capacity) in [("a", 10), ("b", 5), ("c", 1)] {
            run(conn, &[&format!("CL.POLICY {key} CAPACITY {capacity} REFILL 0")]);
        }
        let before = digest(conn);
        let reply = takeall(conn, &format!("CL.TAKEALL {args}"));
        assert_eq!(reply, expected, "CL.TAKEALL {args}");
        let charged = expected.2.iter().any(|five| five[0] > 0);
        assert_eq!(digest(conn) != before, charged, "CL.TAKEALL {args}");
        // What the replies say is what the buckets hold.
        let keys: Vec<&str> = args.split(' ').skip(1).take(expected.2.len()).collect();
        for (place, key) in keys.iter().enumerate() {
            let last = keys.iter().rposition(|other| other == key) == Some(place);
            if last {
                let held: i64 = fields(conn, key)["tokens"].parse().unwrap();
                assert_eq!(held, expected.2[place][2], "CL.TAKEALL {args}: {key}");
            }
        }
    }
}

#[test]
fn takeall_tells_not_yet_from_never() {
    let server = Server::start();
    let conn = &mut server.connection();
    // A bucket that holds 8 of 10 tokens, one more a year; each row with the
    // refusing index and whether each key is there now, later or never.
    let rows = [
        ("2 k k TOKENS 6 2", -1, "now now"),
        ("2 k k TOKENS 6 3", 1, "now later"),
        ("2 k k TOKENS 6 4", 1, "now later"),
        // Together more than the capacity.
        ("2 k k TOKENS 6 5", 1, "now never"),
        ("2 k k TOKENS 10 1", 0, "later never"),
        ("3 k k k TOKENS 8 2 1", 1, "now later never"),
        ("3 k k k TOKENS 11 0 0", 0, "never never never"),
        ("2 k k TOKENS 1000000000000", 0, "never never"),
        ("3 k other k TOKENS 1 1 8", 2, "now now later"),
        ("3 other k other TOKENS 5 1 6", 2, "now now never"),
    ];
    let options = "CAPACITY 10 REFILL 1 INTERVAL 31622400000";
    for (args, refusing, expected) in rows {
        run(conn, &["FLUSHALL", &format!("CL.TAKE k 2 {options}")]);
        let before = digest(conn);
        let (taken, index, each) = takeall(conn, &format!("CL.TAKEALL {args} {options}"));
        assert_eq!((taken, index), (i64::from(refusing < 0), refusing), "{args}");
        let found = each.iter().map(|five| match five[3] {
            0 => "now",
            -1 => "never",
            _ => "later",
        });
        assert_eq!(found.collect::<Vec<_>>().join(" "), expected, "{args}: {each:?}");
        assert_eq!(digest(conn) == before, taken == 0, "{args}");
    }
}

#[test]
fn takeall_has_lists_of_options() {
    let server = Server::start();
    let conn = &mut server.connection();
    let rows: &[(&str, &[(&str, &str)])] = &[
        ("2 x y CAPACITY 9", &[("8", "9 5/1000"), ("8", "9 5/1000")]),
        ("2 x y CAPACITY 9 8", &[("8", "9 5/1000"), ("7", "8 5/1000")]),
        ("2 x y REFILL 0.5 2", &[("999", "1000 0.5/1000"), ("999", "1000 2/1000")]),
        ("2 x y REFILL 3 INTERVAL 50 60", &[("999", "1000 3/50"), ("999", "1000 3/60")]),
        ("2 x y INTERVAL 7 REFILL 1 2", &[("999", "1000 1/7"), ("999", "1000 2/7")]),
        (
            "2 x y INTERVAL 5 6 REFILL 3 4 CAPACITY 11 12 TOKENS 1 2",
            &[("10", "11 3/5"), ("10", "12 4/6")],
        ),
        ("2 x y TOKENS 3 4", &[("997", ""), ("996", "")]),
    ];
    for (args, expected) in rows {
        run(conn, &["FLUSHALL"]);
        assert_eq!(takeall(conn, &format!("CL.TAKEALL {args}")).0, 1, "{args}");
        for (key, (tokens, policy)) in ["x", "y"].into_iter().zip(*expected) {
            let fields = fields(conn, key);
            let stored = fields.get("policy").map_or("", String::as_str);
            assert_eq!((fields["tokens"].as_str(), stored), (*tokens, *policy), "{args}: {key}");
        }
    }
}

#[test]
fn takeall_waits_until_all_are_there() {
    let server = Server::start();
    let conn = &mut server.connection();
    let line = "CL.TAKEALL 3 a b a TOKENS 2 3 2 CAPACITY 5 REFILL 50 70 50";
    for _ in 0..5 {
        let mut reply = takeall(conn, line);
        while reply.0 == 1 {
            reply = takeall(conn, line);
        }
        let longest = reply.2.iter().map(|five| five[3]).max().unwrap();
        assert!(longest > 0, "{reply:?}");
        wait_ms(longest);
        assert_eq!(takeall(conn, line).0, 1, "after {reply:?}");
    }
}

#[test]
fn takeall_takes_many_keys() {
    let server = Server::start();
    let conn = &mut server.connection();
    let keys: Vec<String> = (0..5000).map(|n| format!("k{}", n % 2500)).collect();
    let mut args: Vec<&[u8]> = vec![b"CL.TAKEALL", b"5000"];
    args.extend(keys.iter().map(|key| key.as_bytes()));
    let (taken, index, each): (i64, i64, Vec<Vec<i64>>) =
        redis::from_redis_value(call(conn, &args).unwrap()).unwrap();
    assert_eq!((taken, index, each.len()), (1, -1, 5000));
    assert_eq!(int(conn, "DBSIZE"), 2500);
    assert_eq!(fields(conn, "k2499")["tokens"], "998");
    // One key more than there are arguments.
    args[1] = b"5001";
    assert_eq!(call(conn, &args), Err(TOO_MANY_KEYS.into()));
}

/// One bucket has one policy: a call that names it twice cannot give it two.
#[test]
fn a_key_of_takeall_has_one_policy() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["CL.TAKE k 1 CAPACITY 50 REFILL 0"]);
    let before = digest(conn);
    for line in [
        "CL.TAKEALL 2 k k TOKENS 8 1 CAPACITY 5 100 REFILL 0",
        "CL.TAKEALL 3 k other k CAPACITY 50 REFILL 0 0 1",
        "CL.TAKEALL 2 k k REFILL 1 INTERVAL 1 2",
    ] {
        assert_eq!(error(conn, line), "ERR key 'k' is given two policies", "{line}");
        assert_eq!(digest(conn), before, "{line}");
    }
    let (taken, ..) = takeall(conn, "CL.TAKEALL 2 k k TOKENS 8 1 CAPACITY 50 50 REFILL 0");
    assert_eq!(taken, 1);
}

/// Every way to write a call wrongly, and the error; `K` stands for the key.
fn wrong_calls() -> Vec<(Vec<Vec<u8>>, String)> {
    let mut rows: Vec<(Vec<Vec<u8>>, String)> = Vec::new();
    let mut row = |line: &str, error: &dyn Display| {
        let words = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        rows.push((words, error.to_string()));
    };
    for name in ["cl.take", "cl.peek", "cl.give", "cl.policy"] {
        row(name, &format!("ERR wrong number of arguments for '{name}' command"));
    }
    for line in ["cl.takeall", "cl.takeall 1"] {
        row(line, &"ERR wrong number of arguments for 'cl.takeall' command");
    }
    let unknown = |option: &str| format!("ERR unknown option '{option}'");
    let doubled = |option: &str| format!("ERR option '{option}' is given twice");
    let no_value = |option: &str| format!("ERR option '{option}' needs a value");
    let length =
        |option: &str| format!("ERR option '{option}' needs one value, or one for each key");

    // Options that a command does not have, known ones of others included.
    row("CL.TAKE K 1 FOO", &unknown("FOO"));
    row("CL.TAKE K 1 2", &unknown("2"));
    row("CL.TAKE K 1 ", &unknown(""));
    row("CL.TAKE K 1 CAPACITY 5 6", &unknown("6"));
    row("CL.TAKE K PARTIAL 5", &unknown("5"));
    row("CL.TAKE K 1 WEIGHT 5", &unknown("WEIGHT"));
    row("CL.TAKE K 1 RESET", &unknown("RESET"));
    row("CL.TAKE K TOKENS 5", &unknown("TOKENS"));
    row("CL.TAKE K 1 CAPACITYS 5", &unknown("CAPACITYS"));
    row("CL.TAKE K 1 %s%n", &unknown("%s%n"));
    row("CL.TAKE K 1 a\nb\0c'\\", &unknown("a\\nb\\x00c\\'\\\\"));
    row(&format!("CL.TAKE K 1 {}", "x".repeat(65)), &(unknown(&"x".repeat(64)) + "..."));
    row("CL.PEEK K 1 PARTIAL", &unknown("PARTIAL"));
    row("CL.PEEK K 1 FOO", &unknown("FOO"));
    row("CL.GIVE K 1 FOO", &unknown("FOO"));
    row("CL.GIVE K 1 CAPACITY 5", &unknown("CAPACITY"));
    row("CL.GIVE K 1 2", &unknown("2"));
    row("CL.POLICY K FOO", &unknown("FOO"));
    row("CL.POLICY K 5", &unknown("5"));
    row("CL.POLICY K PARTIAL", &unknown("PARTIAL"));
    row("CL.POLICY K TOKENS 5", &unknown("TOKENS"));
    row("CL.TAKEALL 1 K FOO", &unknown("FOO"));
    row("CL.TAKEALL 1 K PARTIAL", &unknown("PARTIAL"));
    row("CL.TAKEALL 1 K TOKENS 1 WEIGHT 1", &unknown("WEIGHT"));
    row("CL.TAKEALL 1 K 2 TOKENS 1", &unknown("2"));

    // Options given twice, or without a value.
    for name in ["TAKE", "PEEK", "POLICY"] {
        row(&format!("CL.{name} K CAPACITY 5 CAPACITY 5"), &doubled("CAPACITY"));
        row(&format!("CL.{name} K REFILL 5 refill 6"), &doubled("REFILL"));
        row(&format!("CL.{name} K REFILL 5 INTERVAL 5 INTERVAL 5"), &doubled("INTERVAL"));
        for option in ["CAPACITY", "REFILL", "INTERVAL", "REFILL 5 INTERVAL"] {
            let last = option.split(' ').next_back().unwrap();
            row(&format!("CL.{name} K {option}"), &no_value(last));
        }
        row(&format!("CL.{name} K INTERVAL 5"), &LONE_INTERVAL);
        row(&format!("CL.{name} K CAPACITY 5 INTERVAL 5"), &LONE_INTERVAL);
        row(&format!("CL.{name} K CAPACITY REFILL 5"), &CAPACITY);
    }
    row("CL.TAKE K PARTIAL PARTIAL", &doubled("PARTIAL"));
    row("CL.POLICY K WEIGHT 5 WEIGHT 5", &doubled("WEIGHT"));
    row("CL.POLICY K WEIGHT", &no_value("WEIGHT"));
    row("CL.POLICY K RESET RESET", &LONE_RESET);
    row("CL.POLICY K RESET CAPACITY 5", &LONE_RESET);
    row("CL.POLICY K CAPACITY 5 RESET", &unknown("RESET"));
    for option in ["TOKENS", "CAPACITY", "REFILL"] {
        row(&format!("CL.TAKEALL 1 K {option} 5 {option} 5"), &doubled(option));
        row(&format!("CL.TAKEALL 1 K {option}"), &no_value(option));
        row(&format!("CL.TAKEALL 3 K L M {option} 5 6"), &length(option));
        row(&format!("CL.TAKEALL 2 K L {option} 5 6 7"), &length(option));
    }
    row("CL.TAKEALL 1 K TOKENS CAPACITY 5", &no_value("TOKENS"));
    row("CL.TAKEALL 1 K REFILL 5 INTERVAL", &no_value("INTERVAL"));
    row("CL.TAKEALL 1 K REFILL 5 INTERVAL 5 INTERVAL 5", &doubled("INTERVAL"));
    row("CL.TAKEALL 3 K L M REFILL 5 INTERVAL 5 6", &length("INTERVAL"));
    row("CL.TAKEALL 1 K INTERVAL 5", &LONE_INTERVAL);

    // Numbers of keys.
    row("CL.TAKEALL 0 K", &NUMKEYS);
    row("CL.TAKEALL 2 K", &TOO_MANY_KEYS);
    row("CL.TAKEALL 3 K TOKENS", &TOO_MANY_KEYS);
    row("CL.TAKEALL 4294967297 K", &TOO_MANY_KEYS);
    row("CL.TAKEALL 9223372036854775807 K", &TOO_MANY_KEYS);

    // Numbers out of bounds, and what is no number.
    let mut bad = |template: &str, text: &[u8], error: &str| {
        let words = template.split(' ').map(|word| match word {
            "?" => text.to_vec(),
            word => word.as_bytes().to_vec(),
        });
        rows.push((words.collect(), error.to_owned()));
    };
    let integers: &[(&[&str], i64, &[&str], &str)] = &[
        (
            &[
                "CL.TAKE K ?",
                "CL.TAKE K ? CAPACITY 5",
                "CL.PEEK K ?",
                "CL.GIVE K ?",
                "CL.TAKEALL 1 K TOKENS ?",
                "CL.TAKEALL 2 K K TOKENS 1 ?",
            ],
            TRILLION,
            &[],
            TOKENS,
        ),
        (
            &[
                "CL.TAKE K CAPACITY ?",
                "CL.TAKE K 1 REFILL 1 CAPACITY ? PARTIAL",
                "CL.PEEK K CAPACITY ?",
                "CL.POLICY K CAPACITY ?",
                "CL.TAKEALL 2 K K CAPACITY 1 ?",
            ],
            TRILLION,
            &["0", "000"],
            CAPACITY,
        ),
        (
            &[
                "CL.TAKE K REFILL 1 INTERVAL ?",
                "CL.TAKE K INTERVAL ? REFILL 1",
                "CL.PEEK K REFILL 1 INTERVAL ?",
                "CL.POLICY K REFILL 1 INTERVAL ?",
                "CL.TAKEALL 2 K K REFILL 1 INTERVAL 1 ?",
            ],
            DAYS_366_MS,
            &["0"],
            INTERVAL,
        ),
        (&["CL.POLICY K WEIGHT ?", "CL.POLICY K CAPACITY 5 WEIGHT ?"], 10, &["0", "100"], WEIGHT),
        (&["CL.TAKEALL ? K"], i64::MAX - 1, &["0", "CL.TAKE"], NUMKEYS),
    ];
    for (templates, max, more, error) in integers {
        for template in *templates {
            for text in no_integers(*max) {
                // So many keys could be, only not here.
                let error = match (*error, text.as_slice()) {
                    (NUMKEYS, b"18446744073709551615" | b"9223372036854775807") => TOO_MANY_KEYS,
                    (error, _) => error,
                };
                bad(template, &text, error);
            }
            for text in *more {
                bad(template, text.as_bytes(), error);
            }
        }
    }
    let no_refills = [
        "",
        ".",
        ".5",
        "5.",
        "-1",
        "-0.0",
        "+1",
        " 1",
        "1 ",
        "1e3",
        "1.5e0",
        "0x1",
        "1,5",
        "1.2.3",
        "NaN",
        "inf",
        "0.0000001",
        "0.0000000",
        "1.0000001",
        "1000000000000.000001",
        "1000000000001",
        "18446744073709551616",
        "0.x",
        "x.0",
        "1.-5",
        "one",
    ];
    for template in [
        "CL.TAKE K REFILL ?",
        "CL.PEEK K REFILL ? INTERVAL 5",
        "CL.POLICY K REFILL ?",
        "CL.TAKEALL 2 K K REFILL 1 ?",
    ] {
        for text in no_refills {
            bad(template, text.as_bytes(), REFILL);
        }
        bad(template, &b"9".repeat(512), REFILL);
        bad(template, &[b"0.".to_vec(), b"1".repeat(512)].concat(), REFILL);
        bad(template, b"1\x00", REFILL);
    }
    rows
}

#[test]
fn wrong_arguments_are_named_and_change_nothing() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(
        conn,
        &[
            "CL.TAKE bucket 3 CAPACITY 10 REFILL 1 INTERVAL 31622400000",
            "CL.POLICY pinned CAPACITY 10 WEIGHT 3",
        ],
    );
    let before = (digest(conn), int(conn, "PEXPIRETIME bucket"));
    let rows = wrong_calls();
    assert!(rows.len() > 700, "{}", rows.len());
    for (words, expected) in &rows {
        for key in ["bucket", "pinned", "missing"] {
            let args = words.iter().map(|word| match word.as_slice() {
                b"K" => key.as_bytes(),
                word => word,
            });
            let args: Vec<&[u8]> = args.collect();
            let shown = args.iter().map(|arg| arg.escape_ascii().to_string()).collect::<Vec<_>>();
            assert_eq!(call(conn, &args), Err(expected.clone()), "{shown:?}");
        }
        let after = (digest(conn), int(conn, "PEXPIRETIME bucket"));
        assert_eq!(after, before, "{:?}", String::from_utf8_lossy(&words.concat()));
    }
    assert_eq!(server.warnings(), Vec::<String>::new());
}

/// The keys that ACL and Cluster see are the keys that the command uses: a
/// number that the server does not read as one is none.
#[test]
fn numkeys_is_read_as_the_server_reads_it() {
    let server = Server::start();
    let conn = &mut server.connection();
    for numkeys in ["1", "01", "001", "00000000000000000000000000000001", "+1", "1.0"] {
        let seen = cmd(conn, &format!("COMMAND GETKEYS CL.TAKEALL {numkeys} k"));
        let done = cmd(conn, &format!("CL.TAKEALL {numkeys} k"));
        assert_eq!(done.is_ok(), seen.is_ok(), "numkeys {numkeys}: {seen:?}, {done:?}");
    }
}

#[test]
fn a_key_of_another_type_is_refused() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(
        conn,
        &[
            "SET string v",
            "SET integer 5",
            "RPUSH list a b",
            "SADD set a b",
            "SADD intset 1 2",
            "ZADD zset 1 a",
            "XADD stream * f v",
            "SETBIT bits 7 1",
            "PFADD hyperloglog a",
            "GEOADD geo 13.4 52.5 berlin",
            "CL.TAKE fine 1 CAPACITY 5 REFILL 0",
        ],
    );
    let before = digest(conn);
    let types = [
        "string",
        "integer",
        "list",
        "set",
        "intset",
        "zset",
        "stream",
        "bits",
        "hyperloglog",
        "geo",
    ];
    let lines = [
        "CL.TAKE ?",
        "CL.TAKE ? 0",
        "CL.TAKE ? 5 CAPACITY 3 REFILL 1 INTERVAL 50 PARTIAL",
        "CL.PEEK ?",
        "CL.GIVE ?",
        "CL.GIVE ? 0",
        "CL.TAKEALL 1 ?",
        "CL.TAKEALL 2 fine ?",
        "CL.TAKEALL 2 ? fine",
        "CL.TAKEALL 3 fine ? missing TOKENS 0",
        "CL.POLICY ?",
        "CL.POLICY ? CAPACITY 5",
        "CL.POLICY ? WEIGHT 5",
        "CL.POLICY ? RESET",
        "CL.THROTTLE ? 15 30 60",
        "CL.THROTTLE ? 15 30 60 0",
        "CL.THROTTLE ? 15 30 60 -1",
    ];
    for key in types {
        for line in lines {
            assert_eq!(error(conn, &line.replace('?', key)), WRONGTYPE, "{line} {key}");
            assert_eq!(digest(conn), before, "{line} {key}");
        }
    }
    assert_eq!(server.warnings(), Vec::<String>::new());
}

#[test]
fn takeall_with_a_bad_bucket_changes_none() {
    let server = slow_server().start();
    let conn = &mut server.connection();
    run(conn, &["CL.TAKE a", "HSET bad tokens lots", "CL.TAKE b 2"]);
    let before = digest(conn);
    let corrupt = "ERR bucket 'bad': field 'tokens' holds 'lots', which is not a decimal number \
                   of 0 or more";
    for line in [
        "CL.TAKEALL 1 bad",
        "CL.TAKEALL 3 a b bad",
        "CL.TAKEALL 3 bad a b",
        "CL.TAKEALL 3 a bad missing",
        "CL.TAKEALL 3 a bad b TOKENS 9999",
        "CL.TAKEALL 2 a bad CAPACITY 77",
    ] {
        assert_eq!(error(conn, line), corrupt, "`{line}`");
        assert_eq!(digest(conn), before, "`{line}`");
    }
}

/// Calls that take nothing, give nothing and change no policy.
const WITHOUT_EFFECT: &[&str] = &[
    "CL.TAKE empty CAPACITY 5 REFILL 0",
    "CL.TAKE empty 6 CAPACITY 5 REFILL 0",
    "CL.TAKE empty 3 CAPACITY 5 REFILL 0 PARTIAL",
    "CL.TAKE empty 0 CAPACITY 5 REFILL 0",
    "CL.TAKE slow 2 CAPACITY 5 REFILL 1 INTERVAL 31622400000",
    "CL.TAKE slow 0 CAPACITY 5 REFILL 1 INTERVAL 31622400000",
    "CL.TAKE plain 1001",
    "CL.TAKE plain 0",
    "CL.TAKE pinned 6",
    "CL.TAKE pinned 6 CAPACITY 50 REFILL 9",
    "CL.TAKE missing 1001",
    "CL.TAKE missing 0",
    "CL.TAKE missing 0 CAPACITY 5",
    "CL.PEEK empty",
    "CL.PEEK empty 1 CAPACITY 50 REFILL 2",
    "CL.PEEK plain",
    "CL.PEEK pinned",
    "CL.PEEK missing",
    "CL.GIVE empty 0",
    "CL.GIVE full",
    "CL.GIVE missing 5",
    "CL.TAKEALL 2 slow empty CAPACITY 5 REFILL 1 0 INTERVAL 31622400000 1000",
    "CL.TAKEALL 3 plain missing pinned TOKENS 1 1 6",
    "CL.TAKEALL 2 plain plain TOKENS 900",
    "CL.TAKEALL 3 plain pinned missing TOKENS 0",
    "CL.POLICY empty",
    "CL.POLICY plain",
    "CL.POLICY plain RESET",
    "CL.POLICY plain WEIGHT 1",
    "CL.POLICY pinned",
    "CL.POLICY pinned CAPACITY 5",
    "CL.POLICY pinned CAPACITY 5 REFILL 0 WEIGHT 2",
    "CL.POLICY missing",
    "CL.POLICY missing RESET",
    "CL.THROTTLE burst 4 1 31622400 6",
    "CL.THROTTLE burst 4 1 31622400 2",
    "CL.THROTTLE burst 4 1 31622400 0",
    "CL.THROTTLE full 1 1 1 0",
    "CL.THROTTLE missing 4 1 1 6",
    "CL.THROTTLE missing 4 1 1 0",
    "CL.THROTTLE missing 4 1 1 -1",
];

/// The same with another policy than the stored one, and no tokens: a look.
const LOOKS: &[&str] = &[
    "CL.TAKE plain 0 CAPACITY 7",
    "CL.TAKE empty 0",
    "CL.TAKE empty 0 CAPACITY 9 REFILL 3",
    "CL.TAKEALL 2 plain empty TOKENS 0 CAPACITY 7",
    "CL.TAKEALL 1 empty TOKENS 0",
    "CL.THROTTLE plain 3 1 1 0",
];

fn without_effect(lines: &[&str]) {
    let keepalive = ("repl-ping-replica-period", "3600");
    let server = slow_server()
        .config(keepalive.0, keepalive.1)
        .config("notify-keyspace-events", "KEAn")
        .start();
    let replica = Server::replica_of(&server).start();
    let conn = &mut server.connection();
    run(
        conn,
        &[
            "CL.TAKE empty 5 CAPACITY 5 REFILL 0",
            "CL.TAKE slow 4 CAPACITY 5 REFILL 1 INTERVAL 31622400000",
            "CL.TAKE plain",
            "CL.POLICY pinned CAPACITY 5 REFILL 0 WEIGHT 2",
            "CL.THROTTLE burst 4 1 31622400 4",
            "CL.TAKE full 1 CAPACITY 2 REFILL 0",
            "CL.GIVE full 1",
            "PERSIST full",
        ],
    );
    wait_for_offset(&server, &replica);
    let mut listener = server.connection();
    let mut events = listener.as_pubsub();
    events.psubscribe("__key*__:*").unwrap();
    let mut watcher = server.connection();
    let keys = ["empty", "slow", "plain", "pinned", "burst", "full", "missing"];
    let watch = format!("WATCH {}", keys.join(" "));

    let snapshot = |conn: &mut Connection| {
        let expiry: Vec<i64> =
            keys.iter().map(|key| int(conn, &format!("PEXPIRETIME {key}"))).collect();
        let offset = info_field(conn, "replication", "master_repl_offset").unwrap();
        let dirty = info_field(conn, "persistence", "rdb_changes_since_last_save").unwrap();
        (digest(conn), expiry, offset, dirty)
    };
    let before = snapshot(conn);
    assert_ne!(before.2, "0", "the offset counts");
    assert_ne!(before.3, "0", "changes count");
    for line in lines {
        run(&mut watcher, &[&watch, "MULTI", "PING"]);
        run(conn, &[line]);
        assert_eq!(snapshot(conn), before, "`{line}`");
        assert_ne!(cmd(&mut watcher, "EXEC").unwrap(), Value::Nil, "`{line}` trips WATCH");
    }
    // Events come in order, so none has come before this one.
    run(conn, &["PUBLISH __keyspace__:end none"]);
    let first: String = events.get_message().unwrap().get_payload().unwrap();
    assert_eq!(first, "none");
}

#[test]
fn a_refusal_writes_nothing() {
    without_effect(WITHOUT_EFFECT);
}

#[test]
fn a_look_writes_nothing() {
    without_effect(LOOKS);
}

#[test]
fn a_clock_behind_the_bucket_credits_nothing_and_loses_nothing() {
    let server = Server::start();
    let conn = &mut server.connection();
    let hour_ms = 3_600_000;
    let at = clock(conn) + 1000 * hour_ms;
    run(conn, &[&format!("HSET k tokens 7 timestamp {at}")]);
    call(conn, &[b"HSET", b"k", b"policy", b"10 1/1000"]).unwrap();
    let options = "CAPACITY 10 REFILL 1";
    let [taken, capacity, remaining, retry, reset] = five(conn, &format!("CL.TAKE k 2 {options}"));
    assert_eq!([taken, capacity, remaining, retry], [2, 10, 5, 0]);
    // Full five seconds after the clock has caught up.
    let lead = i64::try_from(at / 1000).unwrap() - i64::try_from(clock(conn) / 1000).unwrap();
    assert!((lead + 5000..=lead + 5000 + 60_000).contains(&reset), "{reset}, lead {lead}");
    assert_eq!(fields(conn, "k")["timestamp"], at.to_string());
    let refused = five(conn, &format!("CL.TAKE k 6 {options}"));
    assert_eq!(refused[..3], [0, 10, 5]);
    assert!(refused[3] > lead - 60_000 && refused[3] < refused[4], "{refused:?}");
    assert_eq!(five(conn, &format!("CL.TAKE k 5 {options}"))[2], 0);
    // It expires no sooner than it is full.
    let full = i64::try_from(at / 1000).unwrap() + 10_000;
    assert!(int(conn, "PEXPIRETIME k") >= full);
}

#[test]
fn a_bucket_counts_right_over_many_calls() {
    let server = Server::start();
    let conn = &mut server.connection();
    // Odd rates, so that nearly every credit leaves something below a millionth.
    let options = "CAPACITY 1000 REFILL 777.777777 INTERVAL 1013";
    run(conn, &[&format!("CL.TAKE k 900 {options}")]);
    let start = Paper::read(conn, "k");
    let mut taken = 0;
    for _ in 0..2000 {
        taken += five(conn, &format!("CL.TAKE k 1 {options}"))[0];
    }
    let end = Paper::read(conn, "k");
    // As if nobody had looked in between.
    let free = Paper { capacity: u128::MAX, ..start };
    let mut expected = free.at(end.at);
    expected.capacity = end.capacity;
    expected.tokens -= u128::try_from(taken).unwrap() * 1_000_000;
    assert_eq!(end, expected);
}

#[test]
fn clients_together_take_what_there_is_and_no_more() {
    let server = Server::start();
    let tokens = 5000;
    let (threads, calls) = (4, 2000);
    let granted: i64 = thread::scope(|scope| {
        let takers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let conn = &mut server.connection();
                    let line = format!("CL.TAKE k 1 CAPACITY {tokens} REFILL 0");
                    (0..calls).map(|_| five(conn, &line)[0]).sum::<i64>()
                })
            })
            .collect();
        takers.into_iter().map(|taker| taker.join().unwrap()).sum()
    });
    assert_eq!(granted, tokens);
}
