//! One bucket through some minutes of a day.

use crate::alone;
use claw_core::bucket::{Answer, Bucket, Demand, Wait, Weight};
use claw_core::configured::Configured;
use claw_core::open::OpenBucket;
use claw_core::policy::Policy;
use claw_core::record::Record;
use claw_core::rules::Rules;

const MS: u64 = 1_000;
const START: u64 = 1_773_914_400_000_000;

/// Taken, remaining, `retry_after`, `reset_after`.
type Row = (u64, i64, i64, i64);

fn row(answer: Answer) -> Row {
    let Answer { taken, remaining, retry_after, reset_after, .. } = answer;
    (taken, remaining, retry_after.as_millis(), reset_after.as_millis())
}

#[derive(Debug, Clone, Copy)]
enum Call {
    Take(u64),
    Partial(u64),
    /// So many, and so many are to be left.
    Keep(u64, u64),
    /// The same, or fewer.
    KeepPartial(u64, u64),
    Give(u64),
    /// So many more were used than taken.
    Overrun(u64),
}

/// Plays calls on a full bucket, each at so many milliseconds after the start.
fn play(policy: Policy, weight: u64, table: &[(u64, Call, Row)]) {
    let mut bucket = Bucket::full(policy, Weight::new(weight).unwrap(), START);
    for (ms, call, expected) in table {
        let now = START + ms * MS;
        bucket.advance(now);
        let answer = match call {
            Call::Take(tokens) => bucket.take(Demand::all(*tokens), now),
            Call::Partial(tokens) => {
                bucket.take(Demand { tokens: *tokens, partial: true, keep: 0 }, now)
            }
            Call::Keep(tokens, keep) => {
                bucket.take(Demand { tokens: *tokens, partial: false, keep: *keep }, now)
            }
            Call::KeepPartial(tokens, keep) => {
                bucket.take(Demand { tokens: *tokens, partial: true, keep: *keep }, now)
            }
            Call::Give(tokens) => bucket.give(*tokens, now),
            Call::Overrun(tokens) => {
                let booked = (*tokens).min(bucket.bookable());
                bucket.debit(booked);
                let retry_after = bucket.until_bookable(tokens - booked, now);
                Answer { retry_after, ..bucket.answer(booked, now) }
            }
        };
        assert_eq!(row(answer), *expected, "{call:?} after {ms} ms");
        assert_eq!(answer.capacity, policy.capacity());
    }
}

use Call::{Give, Keep, KeepPartial, Overrun, Partial, Take};

#[test]
fn ten_tokens_and_two_a_second() {
    play(
        Policy::new(10, 2_000_000, 1_000).unwrap(),
        1,
        &[
            (0, Take(0), (0, 10, 0, 0)),
            (0, Take(3), (3, 7, 0, 1_500)),
            (0, Take(8), (0, 7, 500, 1_500)),
            (0, Take(11), (0, 7, -1, 1_500)),
            (0, Take(7), (7, 0, 0, 5_000)),
            (0, Take(1), (0, 0, 500, 5_000)),
            (499, Take(1), (0, 0, 1, 4_501)),
            (500, Take(1), (1, 0, 0, 5_000)),
            (500, Take(10), (0, 0, 5_000, 5_000)),
            (5_499, Take(10), (0, 9, 1, 1)),
            (5_500, Take(10), (10, 0, 0, 5_000)),
            // Idle for a year: full, and no more.
            (31_536_000_000, Take(0), (0, 10, 0, 0)),
            (31_536_000_000, Take(10), (10, 0, 0, 5_000)),
        ],
    );
}

#[test]
fn partial_takes_what_whole_tokens_there_are() {
    play(
        Policy::new(10, 2_000_000, 1_000).unwrap(),
        1,
        &[
            (0, Partial(4), (4, 6, 0, 2_000)),
            // Not all of it: the next one is there in half a second.
            (0, Partial(100), (6, 0, 500, 5_000)),
            // Nothing there: it waits for the first token, not for all of them.
            (0, Partial(100), (0, 0, 500, 5_000)),
            (0, Partial(0), (0, 0, 0, 5_000)),
            (1_250, Partial(100), (2, 0, 250, 4_750)),
            (1_500, Partial(1), (1, 0, 0, 5_000)),
        ],
    );
}

/// KEEP refuses unless so many remain: a reserve for those who call without it.
#[test]
fn what_is_kept_for_others() {
    play(
        Policy::new(10, 2_000_000, 1_000).unwrap(),
        1,
        &[
            (0, Keep(3, 7), (3, 7, 0, 1_500)),
            (0, Keep(1, 7), (0, 7, 500, 1_500)),
            (0, Keep(1, 6), (1, 6, 0, 2_000)),
            // Nothing is asked for, so nothing has to remain.
            (0, Keep(0, 9), (0, 6, 0, 2_000)),
            (0, Keep(0, 11), (0, 6, 0, 2_000)),
            (0, Keep(2, 6), (0, 6, 1_000, 2_000)),
            // Never: together they are more than it holds.
            (0, Keep(2, 9), (0, 6, -1, 2_000)),
            (0, Keep(u64::MAX, u64::MAX), (0, 6, -1, 2_000)),
            (0, KeepPartial(5, 4), (2, 4, 500, 3_000)),
            (0, KeepPartial(5, 4), (0, 4, 500, 3_000)),
            (0, KeepPartial(5, 10), (0, 4, -1, 3_000)),
            (499, KeepPartial(5, 4), (0, 4, 1, 2_501)),
            (500, KeepPartial(5, 4), (1, 4, 500, 3_000)),
            (500, Take(4), (4, 0, 0, 5_000)),
            (500, Keep(1, 6), (0, 0, 3_500, 5_000)),
        ],
    );
}

/// More was used than there was: as much as the capacity can be owed, and is paid for first.
#[test]
fn a_debt() {
    play(
        Policy::new(10, 2_000_000, 1_000).unwrap(),
        1,
        &[
            (0, Overrun(0), (0, 10, 0, 0)),
            (0, Overrun(14), (14, -4, 0, 7_000)),
            (0, Take(0), (0, -4, 0, 7_000)),
            (0, Take(1), (0, -4, 2_500, 7_000)),
            (0, Partial(9), (0, -4, 2_500, 7_000)),
            (0, Keep(1, 2), (0, -4, 3_500, 7_000)),
            (0, Take(10), (0, -4, 7_000, 7_000)),
            (0, Take(11), (0, -4, -1, 7_000)),
            // Rounded down, as everywhere.
            (250, Take(1), (0, -4, 2_250, 6_750)),
            (499, Take(1), (0, -4, 2_001, 6_501)),
            (500, Take(1), (0, -3, 2_000, 6_500)),
            // The rest could be booked in half a second, and not all that was asked for.
            (500, Overrun(8), (7, -10, 500, 10_000)),
            (500, Overrun(1), (0, -10, 500, 10_000)),
            (500, Overrun(20), (0, -10, 10_000, 10_000)),
            (500, Overrun(21), (0, -10, -1, 10_000)),
            (999, Overrun(1), (0, -10, 1, 9_501)),
            (1_000, Overrun(1), (1, -10, 0, 10_000)),
            (1_000, Give(4), (4, -6, 0, 8_000)),
            (4_500, Take(1), (1, 0, 0, 5_000)),
            (10_000, Take(0), (0, 10, 0, 0)),
            (10_000, Overrun(11), (11, -1, 0, 5_500)),
            (10_000, Give(1_000), (11, 10, 0, 0)),
        ],
    );
    // What never refills never pays.
    play(
        Policy::new(3, 0, 1_000).unwrap(),
        1,
        &[
            (0, Overrun(9), (6, -3, -1, -1)),
            (0, Take(1), (0, -3, -1, -1)),
            (0, Give(4), (4, 1, 0, -1)),
            (0, Take(1), (1, 0, 0, -1)),
        ],
    );
}

/// Capacity 0 lets nothing through, ever; what is owed is paid for all the same.
#[test]
fn what_holds_nothing() {
    let blocked = Policy::new(0, 2_000_000, 1_000).unwrap();
    play(
        blocked,
        1,
        &[
            (0, Take(0), (0, 0, 0, 0)),
            (0, Take(1), (0, 0, -1, 0)),
            (0, Partial(1), (0, 0, -1, 0)),
            (0, Keep(1, 1), (0, 0, -1, 0)),
            (0, Overrun(1), (0, 0, -1, 0)),
            (0, Give(5), (0, 0, 0, 0)),
            (86_400_000, Take(1), (0, 0, -1, 0)),
        ],
    );
    let mut bucket = Bucket::new(blocked, Weight::ONE, -5_000_000, 0, START);
    assert_eq!(row(bucket.take(Demand::all(1), START)), (0, -5, -1, 2_500));
    assert!(!bucket.is_full());
    bucket.advance(START + 2_500 * MS);
    assert!(bucket.is_full());
}

/// A lower capacity forgives nothing, however often it comes and goes.
#[test]
fn a_debt_outlives_its_policy() {
    let with = |capacity| Policy::new(capacity, 0, 1_000).unwrap();
    let mut bucket = Bucket::new(with(100), Weight::ONE, -80_000_000, 0, START);
    for (capacity, bookable) in [(100, 20), (10, 0), (0, 0), (200, 120), (80, 0), (100, 20)] {
        bucket.switch(with(capacity));
        assert_eq!((bucket.remaining(), bucket.bookable()), (-80, bookable), "{capacity}");
    }
}

#[test]
fn what_is_given_back_is_cut_at_the_capacity() {
    play(
        Policy::new(10, 2_000_000, 1_000).unwrap(),
        1,
        &[
            (0, Give(5), (0, 10, 0, 0)),
            (0, Take(5), (5, 5, 0, 2_500)),
            (0, Give(2), (2, 7, 0, 1_500)),
            (0, Give(0), (0, 7, 0, 1_500)),
            (0, Give(1_000_000_000_000), (3, 10, 0, 0)),
            (0, Take(5), (5, 5, 0, 2_500)),
            // Half a token came in by itself, so of five only four and a half fit.
            (250, Give(5), (4, 10, 0, 0)),
        ],
    );
}

#[test]
fn a_bucket_that_never_refills() {
    play(
        Policy::new(3, 0, 1_000).unwrap(),
        10,
        &[
            (0, Take(2), (2, 1, 0, -1)),
            (1_000_000, Take(2), (0, 1, -1, -1)),
            (2_000_000, Take(1), (1, 0, 0, -1)),
            (3_000_000, Partial(1), (0, 0, -1, -1)),
            (3_000_000, Give(3), (3, 3, 0, 0)),
        ],
    );
}

/// Seven in three seconds: nothing divides, and nothing is lost.
#[test]
fn remainders_add_up() {
    play(
        Policy::new(7, 7_000_000, 3_000).unwrap(),
        1,
        &[
            (0, Take(7), (7, 0, 0, 3_000)),
            (1, Take(1), (0, 0, 428, 2_999)),
            (428, Take(1), (0, 0, 1, 2_572)),
            (429, Take(1), (1, 0, 0, 3_000)),
            (858, Take(1), (1, 0, 0, 3_000)),
            (1_286, Take(1), (1, 0, 0, 3_000)),
            (1_715, Take(1), (1, 0, 0, 3_000)),
            (2_143, Take(1), (1, 0, 0, 3_000)),
            (2_572, Take(1), (1, 0, 0, 3_000)),
            (3_000, Take(1), (1, 0, 0, 3_000)),
        ],
    );
}

/// Weight 5 refills five times as fast; the capacity is the same.
#[test]
fn weight_multiplies_the_refill() {
    let policy = Policy::new(10, 2_000_000, 1_000).unwrap();
    play(
        policy,
        5,
        &[
            (0, Take(10), (10, 0, 0, 1_000)),
            (0, Take(1), (0, 0, 100, 1_000)),
            (100, Take(1), (1, 0, 0, 1_000)),
            (2_000, Take(11), (0, 10, -1, 0)),
        ],
    );
    for (weight, reset) in [(1, 5_000), (2, 2_500), (3, 1_667), (7, 715), (10, 500)] {
        play(policy, weight, &[(0, Take(10), (10, 0, 0, reset))]);
    }
}

#[test]
fn a_wait_that_no_reply_can_carry_is_never() {
    // 0.000001 in 366 days: the first token is there in a million years.
    let slow = |capacity| Policy::new(capacity, 1, 31_622_400_000).unwrap();
    play(slow(1), 1, &[(0, Take(1), (1, 0, 0, 31_622_400_000_000_000))]);
    play(slow(291), 1, &[(0, Take(291), (291, 0, 0, 9_202_118_400_000_000_000))]);
    play(slow(292), 1, &[(0, Take(292), (292, 0, 0, -1))]);
    // The longest wait is 2^63 - 1 ms. 291672107 millionths are missing, which is
    // a little less, and a clock that was set back makes up for the rest.
    let missing = 291_672_107;
    let lead_ms = i64::MAX.unsigned_abs() - missing * 31_622_400_000;
    let tokens = 292_000_000 - missing;
    for (more, expected) in [(0, Wait::Ms(i64::MAX.unsigned_abs())), (1, Wait::Never)] {
        let ahead = START + (lead_ms + more) * MS;
        let bucket = Bucket::new(slow(292), Weight::ONE, tokens.cast_signed(), 0, ahead);
        assert_eq!(bucket.until(292, START), expected);
    }
    assert_eq!(Wait::Never.as_seconds(), -1);
    for (ms, seconds) in [(0, 0), (1, 1), (999, 1), (1_000, 1), (1_001, 2)] {
        assert_eq!(Wait::Ms(ms).as_seconds(), seconds);
    }
}

/// Pinned, else the call's, else the bucket's own, else the default; tokens are kept and cut.
#[test]
fn the_policy_in_force() {
    use claw_core::open::PolicySource::{Bucket, Default, Pin};
    let default = Policy::new(100, 0, 1_000).unwrap();
    let defaults = Configured::new(default);
    let with = |capacity| Some(Policy::new(capacity, 0, 1_000).unwrap());
    let mut key = None;
    // What the call brings, what is pinned before it; where the policy in force comes from,
    // capacity and remaining after it has taken one.
    let table = [
        (None, None, (Default, 100, 99)),
        (with(1_000), None, (Bucket, 1_000, 98)),
        (None, None, (Bucket, 1_000, 97)),
        (with(50), None, (Bucket, 50, 49)),
        (None, None, (Bucket, 50, 48)),
        (with(100), None, (Bucket, 100, 47)),
        (None, Some(40), (Pin, 40, 39)),
        (with(1_000), None, (Pin, 40, 38)),
        (with(10), None, (Pin, 40, 37)),
        (None, Some(200), (Pin, 200, 36)),
    ];
    for (called, pin, expected) in table {
        let mut opened = OpenBucket::new(key, &defaults.of(b"key"), START);
        if let Some(capacity) = pin {
            opened.pin(Policy::new(capacity, 0, 1_000).unwrap(), &alone()).unwrap();
        }
        opened.ask(called);
        let answer = opened.take(Demand::all(1), START, &alone()).unwrap();
        let found = (opened.source(), answer.capacity, answer.remaining);
        assert_eq!(found, expected, "{called:?} {pin:?}");
        key = Some(opened.to_record());
    }
    // RESET: back to the default.
    let mut opened = OpenBucket::new(key, &defaults.of(b"key"), START);
    opened.reset(&alone()).unwrap();
    let answer = opened.take(Demand::all(0), START, &alone()).unwrap();
    assert_eq!((opened.source(), answer.capacity, answer.remaining), (Default, 100, 36));
    // A missing key is full, whatever the capacity.
    let mut opened = OpenBucket::new(None, &defaults.of(b"key"), START);
    opened.ask(with(1_000));
    assert_eq!(opened.remaining(&alone()), 1_000);
}

/// Where a rule fits, what an earlier call brought goes with the next call that brings nothing.
#[test]
fn the_policy_in_force_under_a_rule() {
    use claw_core::open::PolicySource::{Bucket, Pin, Rule};
    let mut configured = Configured::new(Policy::new(100, 0, 1_000).unwrap());
    configured.set_rules(Rules::parse("k* 60 0/1000").unwrap(), 0);
    let with = |capacity| Some(Policy::new(capacity, 0, 1_000).unwrap());
    let mut key = None;
    let table = [
        (None, None, (Rule, 60, 59)),
        (with(1_000), None, (Bucket, 1_000, 58)),
        (with(50), None, (Bucket, 50, 49)),
        (None, None, (Rule, 60, 48)),
        (with(60), None, (Bucket, 60, 47)),
        (None, Some(40), (Pin, 40, 39)),
        (None, None, (Pin, 40, 38)),
        (with(1_000), None, (Pin, 40, 37)),
    ];
    for (called, pin, expected) in table {
        let mut opened = OpenBucket::new(key, &configured.of(b"key"), START);
        if let Some(capacity) = pin {
            opened.pin(Policy::new(capacity, 0, 1_000).unwrap(), &alone()).unwrap();
        }
        opened.ask(called);
        let answer = opened.take(Demand::all(1), START, &alone()).unwrap();
        let found = (opened.source(), answer.capacity, answer.remaining);
        assert_eq!(found, expected, "{called:?} {pin:?}");
        key = Some(opened.to_record());
        let stored = key.as_ref().unwrap().policy;
        assert_eq!(stored.is_none(), opened.source() == Rule, "{called:?} {pin:?}");
    }
    // RESET: back to the rule.
    let mut opened = OpenBucket::new(key, &configured.of(b"key"), START);
    opened.reset(&alone()).unwrap();
    let answer = opened.take(Demand::all(0), START, &alone()).unwrap();
    assert_eq!((opened.source(), answer.capacity, answer.remaining), (Rule, 60, 37));
}

/// A temporary pin goes over a rule; what a call brings beneath it, the rule ends.
#[test]
fn a_temporary_pin_over_a_rule() {
    use claw_core::open::PolicySource::{Pin, Rule};
    let mut configured = Configured::new(Policy::new(100, 0, 1_000).unwrap());
    configured.set_rules(Rules::parse("key 60 1/1000").unwrap(), 0);
    let at = |seconds: u64| START + seconds * 1_000 * MS;
    let mut opened = OpenBucket::new(None, &configured.of(b"key"), START);
    opened.pin_for(Policy::new(10, 0, 1_000).unwrap(), 10_000, &alone()).unwrap();
    opened.ask(Some(Policy::new(7, 0, 1_000).unwrap()));
    assert_eq!(opened.take(Demand::all(10), START, &alone()).unwrap().remaining, 0);
    assert_eq!(opened.beneath().capacity(), 7);
    let key = Some(opened.to_record());
    let mut opened = OpenBucket::new(key, &configured.of(b"key"), at(1));
    opened.ask(None);
    assert_eq!((opened.source(), opened.beneath().capacity()), (Pin, 60));
    assert!(opened.terms_changed());
    let key = Some(opened.to_record());
    let opened = OpenBucket::new(key, &configured.of(b"key"), at(15));
    assert_eq!((opened.source(), opened.remaining(&alone())), (Rule, 5));
}

/// At each instant of the past the table decides that was in force then: rules come and go.
#[test]
fn a_change_of_the_rules_is_credited_piecewise() {
    let at = |seconds: u64| START + seconds * 1_000 * MS;
    let mut configured = Configured::new(Policy::new(100, 1_000_000, 1_000).unwrap());
    let mut rules = |text: &str, seconds| {
        configured.set_rules(Rules::parse(text).unwrap(), at(seconds));
        configured.clone()
    };
    let empty = |seconds| {
        let (tokens, timestamp) = (Some(0), Some(at(seconds)));
        Some(Record { tokens, timestamp, ..Record::default() })
    };
    let remaining = |configured: &Configured, seconds| {
        OpenBucket::new(empty(0), &configured.of(b"key"), at(seconds)).remaining(&alone())
    };
    rules("k* 100 2/1000", 10);
    rules("k* 100 2/1000; ke* 20 3/1000", 15);
    rules("k* 100 2/1000; other 1 1/1; ke* 20 3/1000", 16);
    let last = rules("other 1 1/1", 20);
    // 10 at the default, 10 by the first rule, cut at 20 by the second, and the default again.
    for (seconds, expected) in [(20, 20), (25, 25), (200, 100)] {
        assert_eq!(remaining(&last, seconds), expected, "after {seconds} s");
    }
    let under = rules("key 1000 4/1000", 30);
    assert_eq!(remaining(&under, 40), 30 + 40);
}

/// Many changes of large tables: what is remembered of them stays bounded, and the latest is.
#[test]
fn very_many_changes_of_many_rules() {
    let at = |seconds: u64| START + seconds * 1_000 * MS;
    let mut configured = Configured::new(Policy::DEFAULT);
    for change in 0..300 {
        let entry = |number: u64| format!("k{number}:* 1000000 {}/1000", change % 2);
        let entries: Vec<_> = (0..1_000).map(entry).collect();
        configured.set_rules(Rules::parse(&entries.join(";")).unwrap(), at(change));
    }
    let key = |seconds| {
        let (tokens, timestamp) = (Some(0), Some(at(seconds)));
        Some(Record { tokens, timestamp, ..Record::default() })
    };
    let of = configured.of(b"k999:x");
    assert_eq!(OpenBucket::new(key(280), &of, at(300)).remaining(&alone()), 10);
    // From before what is remembered: something, and no panic.
    assert!(OpenBucket::new(key(0), &of, at(300)).remaining(&alone()) >= 30);
}

/// A raised default credits the old rate up to the moment of the change.
#[test]
fn a_change_of_the_default_is_credited_piecewise() {
    let per_second =
        |capacity, refill: u64| Policy::new(capacity, refill * 1_000_000, 1_000).unwrap();
    let at = |seconds: u64| START + seconds * 1_000 * MS;
    let mut defaults = Configured::new(per_second(100, 1));
    let mut opened = OpenBucket::new(None, &defaults.of(b"key"), START);
    opened.take(Demand::all(100), START, &alone()).unwrap();
    let key = Some(opened.to_record());
    defaults.set_default(per_second(100, 5), at(10));
    defaults.set_default(per_second(20, 5), at(12));
    defaults.set_default(per_second(1_000, 2), at(15));
    let table = [
        // 10 at 1 a second, 10 at 5 a second, then cut at 20, then 2 a second.
        (15, 20),
        (16, 22),
        (100, 190),
        (10_000, 1_000),
    ];
    for (seconds, remaining) in table {
        let opened = OpenBucket::new(key.clone(), &defaults.of(b"key"), at(seconds));
        assert_eq!(opened.remaining(&alone()), remaining, "after {seconds} s");
        assert_eq!(opened.bucket().policy(), defaults.default_policy());
    }
}

/// What was taken at the very instant of a change was taken under the new policy.
#[test]
fn a_bucket_at_the_instant_of_a_change() {
    let never = |capacity| Policy::new(capacity, 0, 1_000).unwrap();
    let mut defaults = Configured::new(never(10));
    defaults.set_default(never(1_000), START);
    let mut opened = OpenBucket::new(None, &defaults.of(b"key"), START);
    assert_eq!(opened.take(Demand::all(1), START, &alone()).unwrap().remaining, 999);
    let key = Some(opened.to_record());
    defaults.set_default(never(500), START + 1);
    assert_eq!(
        OpenBucket::new(key.clone(), &defaults.of(b"key"), START + 1).remaining(&alone()),
        500
    );
    defaults.set_default(never(2_000), START + 2);
    assert_eq!(
        OpenBucket::new(key.clone(), &defaults.of(b"key"), START + 2).remaining(&alone()),
        500
    );
}

/// The clock is set back between two changes: until it has caught up, the time
/// before the first change is still before it.
#[test]
fn a_clock_set_back_between_two_changes() {
    let per_second = |refill: u64| Policy::new(100, refill * 1_000_000, 1_000).unwrap();
    let at = |seconds: u64| START + seconds * 1_000 * MS;
    let mut defaults = Configured::new(per_second(1));
    let mut opened = OpenBucket::new(None, &defaults.of(b"key"), at(60));
    opened.take(Demand::all(100), at(60), &alone()).unwrap();
    let key = Some(opened.to_record());
    defaults.set_default(per_second(50), at(100));
    defaults.set_default(per_second(0), at(50));
    // 40 seconds at 1 a second, and then none.
    assert_eq!(OpenBucket::new(key, &defaults.of(b"key"), at(200)).remaining(&alone()), 40);
}

/// More changes than are remembered: the oldest are forgotten, no others.
#[test]
fn very_many_changes_of_the_default() {
    let per_second = |refill: u64| Policy::new(1_000_000, refill * 1_000_000, 1_000).unwrap();
    let at = |seconds: u64| START + seconds * 1_000 * MS;
    let mut defaults = Configured::new(per_second(7));
    for change in 0..5_000 {
        defaults.set_default(per_second(change % 2), at(change));
    }
    let key = |seconds| {
        let (tokens, timestamp) = (Some(0), Some(at(seconds)));
        Some(Record { tokens, timestamp, ..Record::default() })
    };
    // 1 a second in every other second.
    assert_eq!(
        OpenBucket::new(key(4_000), &defaults.of(b"key"), at(5_000)).remaining(&alone()),
        500
    );
    assert_eq!(
        OpenBucket::new(key(4_900), &defaults.of(b"key"), at(5_000)).remaining(&alone()),
        50
    );
    // From before what is remembered: something, and no panic.
    assert!(OpenBucket::new(key(0), &defaults.of(b"key"), at(5_000)).remaining(&alone()) >= 500);
}
