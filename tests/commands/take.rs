//! `CL.TAKE` and `CL.PEEK`: what is granted, what is refused, and the waits.

use crate::buckets::{clock, precise_clock};
use crate::calls::{DAYS_366_MS, TRILLION, five, wait_ms};
use crate::paper::Paper;
use claw_testkit::{Server, call_bytes, digest, fields, int, run};
use redis::Cmd;
use std::thread;

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
        // Without a capacity, the bucket holds what an interval refills.
        ("CL.TAKE k 2 REFILL 10", [2, 10, 8, 0, 200]),
        ("CL.TAKE k REFILL 2.5", [1, 3, 2, 0, 400]),
        ("CL.TAKE k REFILL 0.000001", [1, 1, 0, 0, 1_000_000_000]),
        ("CL.TAKE k REFILL 1000000000000", [1, max, max - 1, 0, 1]),
        ("CL.TAKE k CAPACITY 10 REFILL 5", [1, 10, 9, 0, 200]),
        ("CL.TAKE k 10 REFILL 10 INTERVAL 60000", [10, 10, 0, 0, 60_000]),
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
        ("CL.TAKE k 3 CAPACITY 3 REFILL 1 PARTIAL", [3, 3, 0, 0, 3000]),
        // Who gets less than asked for learns when there is one more.
        ("CL.TAKE k 5 CAPACITY 3 REFILL 1 PARTIAL", [3, 3, 0, 1000, 3000]),
        ("CL.TAKE k 5 CAPACITY 3 REFILL 1 PARTIAL KEEP 1", [2, 3, 1, 1000, 2000]),
        ("CL.TAKE k 5 CAPACITY 3 REFILL 0 PARTIAL KEEP 1", [2, 3, 1, -1, -1]),
        ("CL.TAKE k 5 CAPACITY 3 REFILL 1 PARTIAL KEEP 3", [0, 3, 3, -1, 0]),
        ("CL.TAKE k 1000000000000 PARTIAL", [1000, 1000, 0, 200, 200_000]),
        ("CL.TAKE k 0 PARTIAL", [0, 1000, 1000, 0, 0]),
        // KEEP is for those who call without it.
        ("CL.TAKE k 7 CAPACITY 10 REFILL 1 KEEP 3", [7, 10, 3, 0, 7000]),
        ("CL.TAKE k 7 CAPACITY 10 REFILL 1 KEEP 4", [0, 10, 10, -1, 0]),
        ("CL.TAKE k 8 keep 3 CAPACITY 10 REFILL 0", [0, 10, 10, -1, 0]),
        ("CL.TAKE k KEEP 1000000000000", [0, 1000, 1000, -1, 0]),
        ("CL.TAKE k KEEP 999", [1, 1000, 999, 0, 200]),
        ("CL.TAKE k 0 KEEP 1000000000000", [0, 1000, 1000, 0, 0]),
        ("CL.TAKE k KEEP 0", [1, 1000, 999, 0, 200]),
        // The bounds.
        ("CL.TAKE k CAPACITY 1 REFILL 5", [1, 1, 0, 0, 200]),
        ("CL.TAKE k CAPACITY 1000000000000 REFILL 5", [1, max, max - 1, 0, 200]),
        ("CL.TAKE k 1000000000000 CAPACITY 1000000000000 REFILL 5", [max, max, 0, 0, max * 200]),
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
        let words = peek.to_ascii_uppercase();
        if !words.contains("PARTIAL") && !words.contains("KEEP") {
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
        call_bytes(conn, &[b"DEL", b"k"]).unwrap();
        call_bytes(conn, &hset).unwrap();
        let before = Paper::read(conn, "k");

        let words: Vec<&str> = policy.split([' ', '/']).collect();
        let options = format!("CAPACITY {} REFILL {} INTERVAL {}", words[0], words[1], words[2]);
        let reply = five(conn, &format!("CL.TAKE k {take} {options}"));

        let after = Paper::read(conn, "k");
        let mut expected = before.at(after.at);
        assert!(expected.tokens >= take * 1_000_000, "{row:?} would be refused");
        expected.tokens -= take * 1_000_000;
        assert_eq!(after, expected, "{row:?}");
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
        call_bytes(conn, &[b"DEL", b"k"]).unwrap();
        call_bytes(conn, &hset).unwrap();
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
        ("CL.TAKE j 5 CAPACITY 9 REFILL 11 INTERVAL 100 KEEP 3", 10),
        ("CL.TAKE l 9 CAPACITY 9 REFILL 11 INTERVAL 100 PARTIAL KEEP 8", 10),
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
        ("CL.TAKE k 20 CAPACITY 10 REFILL 0 PARTIAL", [6, 10, 0, -1, -1]),
        ("CL.TAKE k 1 CAPACITY 10 REFILL 0 PARTIAL", [0, 10, 0, -1, -1]),
        ("CL.TAKE k 0 CAPACITY 10 REFILL 0 PARTIAL", [0, 10, 0, 0, -1]),
        // What has to be left is no part of it.
        ("CL.TAKE l 4 CAPACITY 10 REFILL 0 PARTIAL KEEP 4", [4, 10, 6, 0, -1]),
        ("CL.TAKE l 4 CAPACITY 10 REFILL 0 PARTIAL KEEP 4", [2, 10, 4, -1, -1]),
        ("CL.TAKE l 4 CAPACITY 10 REFILL 0 PARTIAL KEEP 4", [0, 10, 4, -1, -1]),
        ("CL.TAKE l 4 CAPACITY 10 REFILL 0 PARTIAL KEEP 3", [1, 10, 3, -1, -1]),
        ("CL.TAKE l 4 CAPACITY 10 REFILL 0 PARTIAL", [3, 10, 0, -1, -1]),
    ];
    for (line, expected) in rows {
        assert_eq!(five(conn, line), expected, "`{line}`");
    }
    // Part of a token is none, and the wait is the one for the first token,
    // not for all that was asked for.
    let now = clock(conn);
    call_bytes(conn, &[b"HSET", b"p", b"policy", b"10 1/31622400000", b"tokens", b"0.999999"])
        .unwrap();
    run(conn, &[&format!("HSET p timestamp {now}")]);
    let line = "CL.TAKE p 10 CAPACITY 10 REFILL 1 INTERVAL 31622400000";
    let [taken, capacity, remaining, retry, reset] = five(conn, &format!("{line} PARTIAL"));
    assert_eq!([taken, capacity, remaining], [0, 10, 0]);
    assert!((1..=31_623).contains(&retry), "{retry}");
    let [_, _, _, retry_whole, reset_whole] = five(conn, line);
    assert!(retry_whole > 9 * (DAYS_366_MS - 1_000_000) && reset >= reset_whole);
}

#[test]
fn a_clock_behind_the_bucket_credits_nothing_and_loses_nothing() {
    let server = Server::start();
    let conn = &mut server.connection();
    let hour_ms = 3_600_000;
    let at = clock(conn) + 1000 * hour_ms;
    run(conn, &[&format!("HSET k tokens 7 timestamp {at}")]);
    call_bytes(conn, &[b"HSET", b"k", b"policy", b"10 1/1000"]).unwrap();
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
