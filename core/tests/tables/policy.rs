//! The `policy` field: `capacity refill/interval [pinned [version]]`, with the
//! capacity in whole tokens and the interval in milliseconds.

use claw_core::limits::{MAX_MICRO_TOKENS, MAX_TOKENS};
use claw_core::policy::{Asked, Policy, PolicyError, PolicyTextError, StoredPolicy};

/// Capacity, refill in millionths, interval in milliseconds, pin.
type Parts = (u64, u64, u64, Option<u64>);

fn parse(text: &str) -> Result<Parts, PolicyTextError> {
    let StoredPolicy { policy, pin } = StoredPolicy::parse(text.as_bytes())?;
    Ok((policy.capacity(), policy.refill(), policy.interval_ms(), pin))
}

#[test]
fn a_policy_is_read() {
    let table: &[(&str, Parts)] = &[
        ("1000 5/1000", (1_000, 5_000_000, 1_000, None)),
        ("100 0.5/1000", (100, 500_000, 1_000, None)),
        ("100 0.5/1000 pinned 3", (100, 500_000, 1_000, Some(3))),
        ("100 0.5/1000 pinned", (100, 500_000, 1_000, Some(0))),
        ("100 100/60000", (100, 100_000_000, 60_000, None)),
        // A bucket that never refills.
        ("100 0/1000", (100, 0, 1_000, None)),
        // One that blocks.
        ("0 5/1000", (0, 5_000_000, 1_000, None)),
        // The bounds.
        ("0 0.000001/1", (0, 1, 1, None)),
        (
            "1000000000000 1000000000000/31622400000 pinned 4611686018427387904",
            (1_000_000_000_000, 1_000_000_000_000_000_000, 31_622_400_000, Some(1 << 62)),
        ),
    ];
    for (text, parts) in table {
        assert_eq!(parse(text), Ok(*parts), "{text:?}");
    }
}

#[test]
fn a_policy_is_printed_as_it_was_read() {
    let table = [
        "1000 5/1000",
        "100 0.5/1000 pinned 3",
        "100 0/1000 pinned 0",
        "1 0.000001/1",
        "1000000000000 999999999999.999999/31622400000 pinned 4611686018427387904",
    ];
    for text in table {
        assert_eq!(StoredPolicy::parse(text.as_bytes()).unwrap().to_string(), text);
    }
}

#[test]
fn anything_else_is_no_policy() {
    let table = [
        "",
        " ",
        "1000",
        "1000 5",
        "1000 5/",
        "1000 /1000",
        "1000/5 1000",
        "1000 5/1000/1",
        "1000 5/1000 ",
        " 1000 5/1000",
        "1000  5/1000",
        "1000\t5/1000",
        "1000 5/1000\n",
        "1000 5/1000 3",
        "1000 5/1000 PINNED 3",
        "1000 5/1000 pinned ",
        "1000 5/1000 pinned x",
        "1000 5/1000 pinned -1",
        "1000 5/1000 pinned 3 4",
        "1000 5/1000 pinned 18446744073709551616",
        // Out of bounds.
        "1000 5/1000 pinned 4611686018427387905",
        "1000 5/1000 pinned 18446744073709551615",
        "1000000000001 5/1000",
        "1000 1000000000000.000001/1000",
        "1000 0.0000001/1000",
        "1000 5/0",
        "1000 5/31622400001",
        // Not whole, signed, or no number.
        "1000.5 5/1000",
        "1000 5/1000.5",
        "-1000 5/1000",
        "1000 -5/1000",
        "1000 5/-1000",
        "many 5/1000",
    ];
    for text in table {
        assert_eq!(parse(text), Err(PolicyTextError), "{text:?}");
    }
    assert_eq!(StoredPolicy::parse(b"1000 5/1000 pinned \xff"), Err(PolicyTextError));
}

#[test]
fn a_policy_is_within_the_bounds() {
    let table: &[(u64, u64, u64, Result<(), PolicyError>)] = &[
        (0, 0, 1, Ok(())),
        (1_000_000_000_000, 1_000_000_000_000_000_000, 31_622_400_000, Ok(())),
        (1_000_000_000_001, 5, 1_000, Err(PolicyError::Capacity)),
        (u64::MAX, 5, 1_000, Err(PolicyError::Capacity)),
        (1, 1_000_000_000_000_000_001, 1_000, Err(PolicyError::Refill)),
        (1, u64::MAX, 1_000, Err(PolicyError::Refill)),
        (1, 5, 0, Err(PolicyError::Interval)),
        (1, 5, 31_622_400_001, Err(PolicyError::Interval)),
        (1, 5, u64::MAX, Err(PolicyError::Interval)),
    ];
    for (capacity, refill, interval, expected) in table {
        let made = Policy::new(*capacity, *refill, *interval).map(drop);
        assert_eq!(made, *expected, "{capacity} {refill}/{interval}");
    }
}

#[test]
fn the_default_is_1000_tokens_and_5_a_second() {
    assert_eq!(Ok(Policy::DEFAULT), Policy::new(1_000, 5_000_000, 1_000));
}

/// A call's policy is a whole: without a capacity it is what one interval refills, rounded up.
#[test]
fn what_a_call_brings() {
    const MILLION: u64 = 1_000_000;
    let table = [
        (None, None, Ok(None)),
        (Some(7), Some((2 * MILLION, 1_000)), Ok(Some("7 2/1000"))),
        (Some(7), Some((0, 1)), Ok(Some("7 0/1"))),
        (None, Some((5 * MILLION, 900_000)), Ok(Some("5 5/900000"))),
        (None, Some((2_500_000, 1_000)), Ok(Some("3 2.5/1000"))),
        (None, Some((1, 1_000)), Ok(Some("1 0.000001/1000"))),
        (None, Some((MAX_MICRO_TOKENS, 1)), Ok(Some("1000000000000 1000000000000/1"))),
        (None, Some((0, 1_000)), Err(PolicyError::NoCapacity)),
        (Some(7), None, Err(PolicyError::NoRefill)),
        (Some(0), Some((1_000_000, 1)), Ok(Some("0 1/1"))),
        (Some(0), Some((0, 1)), Ok(Some("0 0/1"))),
        (Some(MAX_TOKENS + 1), Some((1, 1)), Err(PolicyError::Capacity)),
        (None, Some((MAX_MICRO_TOKENS + 1, 1)), Err(PolicyError::Capacity)),
        (Some(1), Some((MAX_MICRO_TOKENS + 1, 1)), Err(PolicyError::Refill)),
        (None, Some((1, 0)), Err(PolicyError::Interval)),
    ];
    for (capacity, refill, expected) in table {
        let text = |policy| StoredPolicy { policy, pin: None }.to_string();
        let called = Asked { capacity, refill }.whole().map(|policy| policy.map(text));
        assert_eq!(called, expected.map(|text| text.map(str::to_owned)), "{capacity:?} {refill:?}");
    }
}

/// CL.POLICY changes what it names. REFILL brings its interval with it: 10 a second when the
/// bucket has 5 a minute and the call says REFILL 10 and no INTERVAL.
#[test]
fn what_a_change_leaves_out_stays() {
    let base = Policy::new(100, 5_000_000, 60_000).unwrap();
    let table = [
        (None, None, "100 5/60000"),
        (Some(7), None, "7 5/60000"),
        (None, Some((10_000_000, 1_000)), "100 10/1000"),
        (Some(7), Some((0, 1)), "7 0/1"),
        (Some(0), None, "0 5/60000"),
    ];
    for (capacity, refill, expected) in table {
        let asked = Asked { capacity, refill };
        let policy = asked.over(base).unwrap();
        assert_eq!(StoredPolicy { policy, pin: None }.to_string(), expected);
        assert_eq!(asked.is_empty(), capacity.is_none() && refill.is_none());
    }
    let asked = Asked { capacity: Some(MAX_TOKENS + 1), refill: None };
    assert_eq!(asked.over(base), Err(PolicyError::Capacity));
}
