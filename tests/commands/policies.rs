//! Which policy is in force, and what its change does to a bucket.

use crate::buckets::{clock, micros, precise_clock};
use crate::calls::{DAYS_366_MS, TRILLION, five, never_full, policy, takeall, wait_ms};
use crate::paper::Paper;
use crate::refusals::CAPACITY;
use claw_testkit::{Server, ask, call_bytes, digest, error, eventually, fields, int, run};
use redis::Value;
use std::time::Duration;

#[test]
fn a_pinned_policy_wins_then_the_calls_then_the_buckets_then_the_default() {
    let server = Server::start();
    let conn = &mut server.connection();
    assert_eq!(five(conn, "CL.PEEK k")[1], 1000, "default");
    assert_eq!(five(conn, "CL.TAKE k CAPACITY 50 REFILL 5")[1], 50, "call");
    // The bucket keeps what an earlier call brought.
    for line in ["CL.PEEK k", "CL.TAKE k", "CL.TAKE k 99", "CL.GIVE k", "CL.TAKE k PARTIAL"] {
        assert_eq!(five(conn, line)[1], 50, "`{line}`");
        assert_eq!(fields(conn, "k")["policy"], "50 5/1000", "`{line}`");
    }
    assert_eq!(takeall(conn, "CL.TAKEALL k").2[0][1], 50);
    assert_eq!(policy(conn, "CL.POLICY k"), (50, "5".into(), 1000, 1, 0));
    assert_eq!(five(conn, "CL.PEEK k CAPACITY 60 REFILL 5")[1], 60, "call");
    assert_eq!(five(conn, "CL.PEEK k")[1], 50, "a look stores nothing");
    run(conn, &["CL.POLICY k CAPACITY 70 REFILL 0"]);
    for line in [
        "CL.TAKE k",
        "CL.TAKE k CAPACITY 50 REFILL 5",
        "CL.TAKE k REFILL 9 INTERVAL 10",
        "CL.PEEK k CAPACITY 50 REFILL 5",
        "CL.GIVE k 0",
    ] {
        let reply = five(conn, line);
        assert_eq!((reply[1], reply[4]), (70, -1), "`{line}`");
    }
    assert_eq!(takeall(conn, "CL.TAKEALL k CAPACITY 50 REFILL 5").2[0][1], 70);
    assert_eq!(fields(conn, "k")["policy"], "70 0/1000 pinned 1");
    // The default does not show through, either.
    run(conn, &["CONFIG SET claw.max-tokens 5"]);
    assert_eq!(five(conn, "CL.PEEK k")[1], 70);
    run(conn, &["CL.POLICY k RESET"]);
    assert_eq!(five(conn, "CL.PEEK k")[1], 5);
    assert_eq!(five(conn, "CL.PEEK k CAPACITY 50 REFILL 5")[1], 50);
    // An option out of bounds is an error even where a pin overrides it.
    run(conn, &["CL.POLICY k CAPACITY 70"]);
    assert_eq!(error(conn, "CL.TAKE k CAPACITY -1 REFILL 5"), CAPACITY);
}

/// CL.POLICY_RO answers as CL.POLICY does that only reads, and says where the policy comes from.
#[test]
fn the_reading_form_says_where_the_policy_comes_from() {
    let server = Server::start();
    let conn = &mut server.connection();
    let rows = [
        ("CL.TAKE k", "default"),
        ("CL.POLICY k WEIGHT 2", "default"),
        ("CL.TAKE k 1 REFILL 3", "bucket"),
        ("CL.TAKE k 9", "bucket"),
        ("CL.PEEK k 1 REFILL 4", "bucket"),
        ("CL.POLICY k CAPACITY 9", "pin"),
        ("CL.TAKE k 1 REFILL 3", "pin"),
        ("CL.POLICY k RESET", "default"),
        ("DEL k", "default"),
    ];
    for (line, source) in rows {
        run(conn, &[line]);
        let before = (digest(conn), int(conn, "EXISTS k"));
        let read: Vec<(String, Value)> = ask(conn, "CL.POLICY_RO k");
        assert_eq!(read, ask::<Vec<(String, Value)>>(conn, "CL.POLICY k"), "`{line}`");
        assert_eq!(read[5], ("source".into(), Value::BulkString(source.into())), "`{line}`");
        assert_eq!((digest(conn), int(conn, "EXISTS k")), before, "`{line}`");
    }
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
    assert_eq!(five(conn, "CL.TAKE w CAPACITY 9 REFILL 5")[1], 9);
    // A call's options are stored, not pinned, and are shown.
    assert_eq!(policy(conn, "CL.POLICY w"), (9, "5".into(), 1000, 4, 0));
    // Pinning then starts from them.
    assert_eq!(policy(conn, "CL.POLICY w REFILL 2"), (9, "2".into(), 1000, 4, 1));
}

/// Whoever only looks, or calls with half a thought, does not open what was closed.
#[test]
fn a_limit_stays_while_its_bucket_lives() {
    let server = Server::start();
    let conn = &mut server.connection();
    let by_a_call = "CL.TAKE login 5 CAPACITY 5 REFILL 5 INTERVAL 900000";
    assert_eq!(five(conn, by_a_call)[..3], [5, 5, 0]);
    for line in ["CL.TAKE login", "CL.PEEK login", "CL.TAKE login 5 PARTIAL"] {
        let [taken, capacity, remaining, retry, _] = five(conn, line);
        assert_eq!([taken, capacity, remaining], [0, 5, 0], "`{line}`");
        assert!(retry > 100_000, "`{line}`: {retry}");
    }
    // With its bucket it goes.
    run(conn, &["DEL login"]);
    assert_eq!(five(conn, "CL.TAKE login")[..3], [1, 1000, 999]);
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
        for how in ["CL.TAKE k 1", "CL.TAKE k 500", "CL.POLICY k", "CL.TAKEALL k 1"] {
            let at = clock(conn) - age;
            run(conn, &["DEL k", &format!("HSET k tokens {held} timestamp {at}")]);
            call_bytes(conn, &[b"HSET", b"k", b"policy", old.as_bytes()]).unwrap();
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
    for line in ["CL.TAKE k 9", "CL.TAKEALL k 9"] {
        run(conn, &["DEL k", "CL.TAKE k 5 CAPACITY 5 REFILL 0"]);
        let refused = format!("{line} CAPACITY 10 REFILL 0 INTERVAL 50");
        run(conn, &[&refused]);
        assert_eq!(fields(conn, "k")["policy"], "10 0/50", "`{line}`");
        assert_eq!(fields(conn, "k")["tokens"], "0", "`{line}`");
        // From then on the same refusal writes nothing.
        let before = (digest(conn), int(conn, "PEXPIRETIME k"));
        run(conn, &[&refused]);
        assert_eq!((digest(conn), int(conn, "PEXPIRETIME k")), before, "`{line}`");
        // And so does one without a policy.
        run(conn, &[&format!("{line}99")]);
        assert_eq!((digest(conn), int(conn, "PEXPIRETIME k")), before, "`{line}`");
    }
    // A missing bucket stays missing.
    run(
        conn,
        &["DEL k", "CL.TAKE k 11 CAPACITY 10 REFILL 5", "CL.TAKEALL k 11 CAPACITY 10 REFILL 5"],
    );
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
    // Nothing was gained while it stood still, and there was room for it.
    run(conn, &[&format!("CONFIG SET claw.max-tokens {TRILLION}")]);
    let stopped = clock(conn);
    eventually(Duration::from_secs(10), Duration::from_millis(1), "the clock to go on", || {
        clock(conn) > stopped + 50_000
    });
    let restarted = clock(conn);
    run(conn, &["CONFIG SET claw.refill-rate-per-sec 1000000"]);
    run(conn, &["CONFIG SET claw.refill-rate-per-sec 0"]);
    let stopped_again = precise_clock(conn);
    run(conn, &["CL.TAKE k 1"]);
    let gained = micros(&fields(conn, "k")["tokens"]) + 1_000_000 - (held - 1_000_000);
    let most = 1_000_000 * (stopped_again - restarted + 1000);
    assert!(gained <= most, "{gained} of {most}");
    run(conn, &["CONFIG SET claw.max-tokens 1000"]);

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
        call_bytes(conn, &[b"HSET", b"k", b"policy", b"10000 100/1000"]).unwrap();
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
    call_bytes(conn, &[b"HSET", b"k", b"policy", b"10000 100/1000"]).unwrap();
    let before = Paper::read(conn, "k");
    run(conn, &["CL.POLICY k WEIGHT 10"]);
    let after = Paper::read(conn, "k");
    assert_eq!(after.tokens, before.at(after.at).tokens);
    assert_eq!(after.refill, 10 * before.refill);
}
