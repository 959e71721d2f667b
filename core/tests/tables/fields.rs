//! The fields of a bucket, those that are missing, and those that make no sense.

use crate::alone;
use claw_core::bucket::{Demand, Weight};
use claw_core::configured::Configured;
use claw_core::decimal::DecimalError;
use claw_core::open::OpenBucket;
use claw_core::policy::{Policy, PolicyTextError, StoredPolicy};
use claw_core::record::{Field, FieldError, Record};
use claw_core::timestamp::TimestampError;

const NOW: u64 = 1_773_914_400_000_000;
const DAY: u64 = 86_400_000_000;

fn read(field: Field, text: &str) -> Result<Record, FieldError> {
    let mut record = Record::default();
    record.read(field, text.as_bytes(), NOW).map(|()| record)
}

#[test]
fn a_weight_is_an_integer_from_1_to_10() {
    for weight in 1..=10_u8 {
        let record = read(Field::Weight, &weight.to_string()).unwrap();
        assert_eq!(record.weight.map(Weight::get), Some(weight));
    }
    let table = [
        "",
        "0",
        "11",
        "-1",
        "+1",
        "1.5",
        "1e1.0",
        "1e999999999999",
        "2x",
        " 2",
        "ten",
        "256",
        "257",
        "4294967297",
        "18446744073709551617",
    ];
    for text in table {
        assert_eq!(read(Field::Weight, text), Err(FieldError::Weight), "{text:?}");
    }
    // However it is written.
    for text in ["02", "2.0", "2e0", "0.2e+01", "20e-1"] {
        assert_eq!(read(Field::Weight, text).unwrap().weight.map(Weight::get), Some(2), "{text}");
    }
}

/// What languages print of the same number is the same number.
#[test]
fn a_field_may_hold_any_form_of_a_number() {
    let expected = Record {
        tokens: Some(499_990_000),
        timestamp: Some(NOW),
        policy: StoredPolicy::parse(b"100 3.333333/1000 pinned 3").ok(),
        remainder: Some(5),
        ..Record::default()
    };
    assert!(expected.policy.is_some());
    let table = [
        ["499.99", "1773914400000000", "100 3.333333/1000 pinned 3", "5"],
        [
            "499.98999999999999999",
            "1773914400000000.0",
            "100.0 3.3333333333333335/1e3 pinned 3.0",
            "5.0",
        ],
        ["4.9999e+02", "1.7739144e+15", "1e2 3333333e-6/1000.000 pinned 30e-1", "5e0"],
    ];
    for [tokens, timestamp, policy, remainder] in table {
        let mut record = Record::default();
        for (field, text) in [
            (Field::Tokens, tokens),
            (Field::Timestamp, timestamp),
            (Field::Policy, policy),
            (Field::Remainder, remainder),
        ] {
            assert_eq!(record.read(field, text.as_bytes(), NOW), Ok(()), "{text}");
        }
        assert_eq!(record, expected);
    }
}

#[test]
fn a_timestamp_may_be_30_days_ahead_and_no_more() {
    let table = [
        (NOW, Ok(())),
        (0, Ok(())),
        (NOW + DAY, Ok(())),
        (NOW + 30 * DAY, Ok(())),
        (NOW + 30 * DAY + 1, Err(FieldError::Ahead)),
        (NOW + 365 * DAY, Err(FieldError::Ahead)),
    ];
    for (us, expected) in table {
        assert_eq!(read(Field::Timestamp, &us.to_string()).map(drop), expected, "{us}");
    }
    assert_eq!(read(Field::Timestamp, "2027-03-19T10:00:00Z"), Err(FieldError::Ahead));
    // Milliseconds are long ago, nanoseconds are long after.
    assert_eq!(read(Field::Timestamp, "1773914400000").unwrap().timestamp, Some(NOW / 1_000));
    let nanoseconds = Err(FieldError::Timestamp(TimestampError::OutOfRange));
    assert_eq!(read(Field::Timestamp, "1773914400000000000"), nanoseconds);
}

#[test]
fn a_field_that_makes_no_sense_is_an_error() {
    use FieldError::{Debits, Policy, Regions, Remainder, Timestamp, Tokens};
    let table = [
        (Field::Tokens, "many", Tokens(DecimalError::NotANumber)),
        (Field::Tokens, "--5", Tokens(DecimalError::NotANumber)),
        (Field::Tokens, "-9000000000000.000001", Tokens(DecimalError::TooLarge)),
        (Field::Tokens, "1000000000001", Tokens(DecimalError::TooLarge)),
        (Field::Tokens, "1e999999999999", Tokens(DecimalError::TooLarge)),
        (Field::Timestamp, "1773914400000000.5", Timestamp(TimestampError::NotATime)),
        (Field::Timestamp, "1e999999999999", Timestamp(TimestampError::OutOfRange)),
        (Field::Timestamp, "yesterday", Timestamp(TimestampError::NotATime)),
        (Field::Timestamp, "1969-07-20T20:17:40Z", Timestamp(TimestampError::OutOfRange)),
        (Field::Policy, "generous", Policy(PolicyTextError)),
        (Field::Policy, "100 1e-9/1000", Policy(PolicyTextError)),
        (Field::Policy, "100.5 1/1000", Policy(PolicyTextError)),
        (Field::Remainder, "0.5", Remainder),
        (Field::Remainder, "-1", Remainder),
        (Field::Remainder, "18446744073709551616", Remainder),
        (Field::Debits, "none", Debits),
        (Field::Regions, "none", Regions),
    ];
    for (field, text, error) in table {
        assert_eq!(read(field, text), Err(error), "{} {text:?}", field.name());
    }
}

#[test]
fn the_names_are_the_contracts() {
    let table = [
        (Field::Tokens, "tokens"),
        (Field::Timestamp, "timestamp"),
        (Field::Weight, "userWeight"),
        (Field::Policy, "policy"),
        (Field::Remainder, "remainder"),
        (Field::Debits, "debits"),
        (Field::Regions, "regions"),
    ];
    for (field, name) in table {
        assert_eq!(field.name(), name);
    }
}

/// `HSET b field value ..`, then a look at it after 10 seconds at 5 a second.
#[test]
fn a_bucket_that_a_person_makes() {
    let table: &[(&[(Field, &str)], i64)] = &[
        // The contract's own.
        (
            &[
                (Field::Tokens, "200"),
                (Field::Timestamp, "2026-03-19T10:00:00Z"),
                (Field::Weight, "1"),
            ],
            250,
        ),
        (&[(Field::Tokens, "200"), (Field::Timestamp, "1773914400000000")], 250),
        // Weight multiplies the refill.
        (
            &[(Field::Tokens, "200"), (Field::Timestamp, "1773914400000000"), (Field::Weight, "3")],
            350,
        ),
        // In debt.
        (&[(Field::Tokens, "-70"), (Field::Timestamp, "1773914400000000")], -20),
        (&[(Field::Tokens, "-70"), (Field::Policy, "10 1/1000")], -70),
        // Of its own policy.
        (
            &[
                (Field::Tokens, "200"),
                (Field::Timestamp, "1773914400000000"),
                (Field::Policy, "300 60/60000"),
            ],
            210,
        ),
        // Never above the capacity: 1000, or its own.
        (&[(Field::Tokens, "999"), (Field::Timestamp, "1773914400000000")], 1_000),
        (&[(Field::Tokens, "5000"), (Field::Timestamp, "1773914400000000")], 1_000),
        (&[(Field::Tokens, "200"), (Field::Policy, "100 1/1000")], 100),
        // Tokens are missing: full. Everything is: full.
        (&[(Field::Timestamp, "1773914400000000")], 1_000),
        (&[(Field::Weight, "2")], 1_000),
        (&[(Field::Policy, "100 1/1000 pinned")], 100),
        (&[], 1_000),
        // A remainder is less than a millionth, whatever it says.
        (
            &[
                (Field::Tokens, "200"),
                (Field::Timestamp, "1773914400000000"),
                (Field::Remainder, "18446744073709551615"),
            ],
            250,
        ),
    ];
    let defaults = Configured::new(Policy::DEFAULT);
    for (fields, remaining) in table {
        let mut record = Record::default();
        for (field, text) in *fields {
            record.read(*field, text.as_bytes(), NOW).unwrap();
        }
        let opened = OpenBucket::new(Some(record), &defaults.of(b"key"), NOW + 10_000_000);
        assert_eq!(opened.remaining(&alone()), *remaining, "{fields:?}");
    }
}

/// A field that a person wrote stays, also where it says what holds anyway; one
/// that nobody wrote does not appear without need.
#[test]
fn a_take_leaves_the_fields_that_are_there() {
    let defaults = Configured::new(Policy::DEFAULT);
    let written = read(Field::Tokens, "200").unwrap();
    for (weight, remainder) in [(None, None), (Some(Weight::ONE), Some(0))] {
        let record = Record { timestamp: Some(NOW), weight, remainder, ..written.clone() };
        let mut opened = OpenBucket::new(Some(record.clone()), &defaults.of(b"key"), NOW);
        opened.take(Demand::all(1), NOW, &alone()).unwrap();
        let expected = Record { tokens: Some(199_000_000), ..record };
        assert_eq!(opened.to_record(), expected);
    }
}
