//! The bytes of a state: a MessagePack map of named fields.
//!
//! The files in `golden/` are what this version writes. They were made by hand
//! with another encoder, and must stay readable for ever: other servers hold them.

use crate::any::{self, Family, NOW};
use crate::hash::{decode, encode};
use claw_core::bucket::{Bucket, Weight};
use claw_core::codec::{BlobError, MAX_BLOB, Newer};
use claw_core::configured::Configured;
use claw_core::limits::{
    MAX_DEBT, MAX_INTERVAL_MS, MAX_MICRO_TOKENS, MAX_TIMESTAMP_US, MAX_TOKENS, MAX_VERSION,
};
use claw_core::merge::State;
use claw_core::policy::{Policy, StoredPolicy};
use claw_core::record::Record;
use proptest::prelude::*;
use rmpv::Value;

const DAY: u64 = 86_400_000_000;

fn golden() -> [(&'static [u8], State, Newer); 6] {
    let bucket = |policy, weight, tokens, remainder, at| {
        Bucket::new(policy, Weight::new(weight).unwrap(), tokens, remainder, at)
    };
    let with = |policy, pin| Some(StoredPolicy { policy, pin });
    let default = Policy::DEFAULT;
    let slow = Policy::new(100, 500_000, 60_000).unwrap();
    let odd = Policy::new(7, 1, 31_622_400_000).unwrap();
    let most = Policy::new(MAX_TOKENS, MAX_MICRO_TOKENS, MAX_INTERVAL_MS).unwrap();
    let newer = Newer::from([
        (
            "shards".to_owned(),
            Value::Map(vec![(
                "eu-west".into(),
                Value::Array(vec![1.into(), 300.into(), 0.into()]),
            )]),
        ),
        ("zone".to_owned(), "north".into()),
    ]);
    [
        (
            include_bytes!("../golden/ordinary.msgpack"),
            State::of(bucket(default, 1, 200_000_000, 0, NOW), None),
            Newer::new(),
        ),
        (
            include_bytes!("../golden/weight_and_remainder.msgpack"),
            State::of(bucket(default, 3, 12_345_678, 1_259_999_997, NOW - 1), None),
            Newer::new(),
        ),
        (
            include_bytes!("../golden/called.msgpack"),
            State::of(bucket(slow, 1, 99_500_000, 0, NOW), with(slow, None)),
            Newer::new(),
        ),
        (
            include_bytes!("../golden/pinned.msgpack"),
            State::of(bucket(odd, 10, 0, 0, 0), with(odd, Some(3))),
            Newer::new(),
        ),
        (
            include_bytes!("../golden/most.msgpack"),
            State::of(
                bucket(
                    most,
                    10,
                    MAX_MICRO_TOKENS.cast_signed() - 1,
                    79_688_447_999_999_990,
                    NOW + 30 * DAY,
                ),
                with(most, Some(MAX_VERSION)),
            ),
            Newer::new(),
        ),
        (
            include_bytes!("../golden/newer.msgpack"),
            State::of(bucket(default, 1, 5_000_000, 0, NOW), None),
            newer,
        ),
    ]
}

#[test]
fn golden_files() {
    for (bytes, state, newer) in golden() {
        assert_eq!(encode(&state, &newer).unwrap(), bytes, "{state:?}");
        let (record, read) = decode(bytes, NOW).unwrap();
        let of = state.policy.map_or(Policy::DEFAULT, |stored| stored.policy);
        assert_eq!(record.state(&Configured::new(of).of(b"key"), NOW), state);
        assert_eq!(read, newer);
    }
}

fn map(fields: &[(&str, Value)]) -> Vec<u8> {
    let fields = fields.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
    bytes(&Value::Map(fields))
}

fn bytes(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).unwrap();
    bytes
}

/// The fields of an ordinary state, with `changed` in place of or besides them.
fn but(changed: &[(&str, Value)]) -> Vec<u8> {
    let mut fields =
        vec![("v", Value::from(1)), ("tokens", 5_000_000.into()), ("timestamp", NOW.into())];
    for (name, value) in changed {
        fields.retain(|(present, _)| present != name);
        fields.push((name, value.clone()));
    }
    map(&fields)
}

fn policy(fields: &[(&str, u64)]) -> Value {
    Value::Map(fields.iter().map(|(name, number)| ((*name).into(), (*number).into())).collect())
}

fn verdict(blob: &[u8]) -> Result<(), BlobError> {
    decode(blob, NOW).map(drop)
}

#[test]
fn what_may_be_missing() {
    let (record, newer) = decode(&but(&[]), NOW).unwrap();
    let expected = Record {
        tokens: Some(5_000_000),
        timestamp: Some(NOW),
        weight: Some(Weight::ONE),
        policy: None,
        remainder: Some(0),
        ..Record::default()
    };
    assert_eq!((record, newer.is_empty()), (expected.clone(), true));
    // The fields may come in any order, and a policy may be said to be absent.
    let other = map(&[
        ("policy", Value::Nil),
        ("timestamp", NOW.into()),
        ("weight", 1.into()),
        ("tokens", 5_000_000.into()),
        ("v", 1.into()),
    ]);
    assert_eq!(decode(&other, NOW).unwrap().0, expected);
    for missing in ["v", "tokens", "timestamp"] {
        let fields: Vec<(&str, Value)> =
            [("v", Value::from(1)), ("tokens", 5.into()), ("timestamp", NOW.into())]
                .into_iter()
                .filter(|(name, _)| *name != missing)
                .collect();
        assert_eq!(verdict(&map(&fields)), Err(BlobError::Missing(missing)));
    }
    for missing in ["capacity", "refill", "interval"] {
        let fields: Vec<(&str, u64)> = [("capacity", 10), ("refill", 1), ("interval", 1_000)]
            .into_iter()
            .filter(|(name, _)| *name != missing)
            .collect();
        let blob = but(&[("policy", policy(&fields))]);
        assert_eq!(verdict(&blob), Err(BlobError::Missing(missing)));
    }
}

#[test]
fn bounds() {
    use BlobError::OutOfBounds;
    let of = |capacity: u64, refill: u64, interval: u64| {
        policy(&[("capacity", capacity), ("refill", refill), ("interval", interval)])
    };
    let pinned = |pin: u64| {
        let numbers = [("capacity", 5), ("refill", 1), ("interval", 1), ("until", NOW + 1)];
        policy(&[numbers.as_slice(), &[("pin", pin)]].concat())
    };
    let changed = |number: u64| Value::Array(vec![number.into(), "eu".into()]);
    let table: &[(&str, Value, Result<(), BlobError>)] = &[
        ("tokens", 0.into(), Ok(())),
        ("tokens", MAX_MICRO_TOKENS.into(), Ok(())),
        ("tokens", (-1).into(), Ok(())),
        ("tokens", (-MAX_DEBT).into(), Ok(())),
        ("tokens", (-MAX_DEBT - 1).into(), Err(OutOfBounds("tokens"))),
        ("tokens", i64::MIN.into(), Err(OutOfBounds("tokens"))),
        ("tokens", (MAX_MICRO_TOKENS + 1).into(), Err(OutOfBounds("tokens"))),
        ("tokens", i64::MAX.into(), Err(OutOfBounds("tokens"))),
        ("tokens", u64::MAX.into(), Err(OutOfBounds("tokens"))),
        ("timestamp", 0.into(), Ok(())),
        ("timestamp", (NOW + 30 * DAY).into(), Ok(())),
        ("timestamp", (NOW + 30 * DAY + 1).into(), Err(OutOfBounds("timestamp"))),
        ("timestamp", u64::MAX.into(), Err(OutOfBounds("timestamp"))),
        ("weight", 10.into(), Ok(())),
        ("weight", 0.into(), Err(OutOfBounds("weight"))),
        ("weight", 11.into(), Err(OutOfBounds("weight"))),
        ("weight", 256.into(), Err(OutOfBounds("weight"))),
        ("remainder", u64::MAX.into(), Ok(())),
        ("policy", of(0, 0, 1), Ok(())),
        ("policy", of(MAX_TOKENS, MAX_MICRO_TOKENS, MAX_INTERVAL_MS), Ok(())),
        ("policy", of(MAX_TOKENS + 1, 1, 1), Err(OutOfBounds("policy"))),
        ("policy", of(1, MAX_MICRO_TOKENS + 1, 1), Err(OutOfBounds("policy"))),
        ("policy", of(1, 1, 0), Err(OutOfBounds("policy"))),
        ("policy", of(1, 1, MAX_INTERVAL_MS + 1), Err(OutOfBounds("policy"))),
        ("policy", pinned(MAX_VERSION), Ok(())),
        ("policy", pinned(MAX_VERSION + 1), Err(OutOfBounds("pin"))),
        ("temporary", pinned(MAX_VERSION), Ok(())),
        ("temporary", pinned(MAX_VERSION + 1), Err(OutOfBounds("pin"))),
        ("temporary", pinned(u64::MAX), Err(OutOfBounds("pin"))),
        ("version", changed(MAX_VERSION), Ok(())),
        ("version", changed(MAX_VERSION + 1), Err(OutOfBounds("version"))),
    ];
    for (field, value, expected) in table {
        // Nothing is held, which is within any capacity.
        let blob = but(&[("tokens", 0.into()), (field, value.clone())]);
        assert_eq!(verdict(&blob), *expected, "{field} {value}");
    }
    // Of the policy that a state says: nobody can hold more than its capacity. Of one that says
    // none the reader's is in force, whatever that is.
    for field in ["policy", "default", "temporary"] {
        for (tokens, expected) in [(7_000_000, Ok(())), (7_000_001, Err(OutOfBounds("tokens")))] {
            let of_seven = of(7, 1, 1);
            let said = match (field, &of_seven) {
                ("temporary", Value::Map(fields)) => {
                    let more = [("pin".into(), 1.into()), ("until".into(), (NOW + 1).into())];
                    Value::Map([fields.as_slice(), &more].concat())
                }
                _ => of_seven,
            };
            let holding = but(&[("tokens", Value::from(tokens)), (field, said)]);
            assert_eq!(verdict(&holding), expected, "{field} {tokens}");
        }
    }
    // The one in force counts.
    let both = [("capacity", 9), ("refill", 1), ("interval", 1), ("pin", 1), ("until", NOW + 1)];
    let fields = [("tokens", Value::from(8_000_000)), ("policy", of(7, 1, 1))];
    assert_eq!(verdict(&but(&fields)), Err(OutOfBounds("tokens")));
    let [tokens, stored] = fields;
    assert_eq!(verdict(&but(&[tokens, stored, ("temporary", policy(&both))])), Ok(()));
    // Near the end of time the lead is cut.
    let at_the_end =
        |us: u64| decode(&but(&[("timestamp", us.into())]), MAX_TIMESTAMP_US - DAY).map(drop);
    assert_eq!(at_the_end(MAX_TIMESTAMP_US), Ok(()));
    assert_eq!(at_the_end(MAX_TIMESTAMP_US + 1), Err(OutOfBounds("timestamp")));
}

#[test]
fn wrong_types() {
    use BlobError::{Missing, Wrong};
    const NUMBER: &str = "whole number of 0 or more";
    let odd = [
        Value::Nil,
        true.into(),
        (-1).into(),
        1.5.into(),
        Value::F32(1.5),
        (-2.0).into(),
        1e-300.into(),
        f64::NAN.into(),
        f64::INFINITY.into(),
        "1".into(),
        Value::Binary(vec![1]),
        Value::Array(vec![1.into()]),
        Value::Map(vec![]),
        Value::Ext(1, vec![1]),
    ];
    for value in odd {
        for field in ["v", "tokens", "timestamp", "remainder", "weight"] {
            if field == "tokens" && [Value::from(-1), Value::from(-2.0)].contains(&value) {
                // That is a debt.
                continue;
            }
            let blob = but(&[(field, value.clone())]);
            let number = if field == "tokens" { "whole number" } else { NUMBER };
            assert_eq!(verdict(&blob), Err(Wrong(field, number)), "{field} {value}");
        }
        if value != Value::Nil {
            let blob = but(&[("policy", value.clone())]);
            // An empty map lacks its fields.
            let expected =
                if value.is_map() { Missing("capacity") } else { Wrong("policy", "map") };
            assert_eq!(verdict(&blob), Err(expected), "policy {value}");
        }
        for field in ["capacity", "refill", "interval", "pin"] {
            let mut fields = vec![
                ("capacity", Value::from(10)),
                ("refill", 1.into()),
                ("interval", 1_000.into()),
            ];
            fields.retain(|(name, _)| *name != field);
            fields.push((field, value.clone()));
            let fields = fields.into_iter().map(|(name, value)| (name.into(), value)).collect();
            let blob = but(&[("policy", Value::Map(fields))]);
            assert_eq!(verdict(&blob), Err(Wrong(field, NUMBER)), "policy {field} {value}");
        }
        // Nor is anything but a map a state.
        if !value.is_map() {
            assert_eq!(verdict(&bytes(&value)), Err(BlobError::Malformed));
        }
    }
    let positional = Value::Array(vec![1.into(), 5.into(), NOW.into(), 0.into(), 1.into()]);
    assert_eq!(verdict(&bytes(&positional)), Err(BlobError::Malformed));
}

#[test]
fn a_policy_has_named_fields_only() {
    let positional = Value::Array(vec![10.into(), 1.into(), 1_000.into(), 3.into()]);
    let array = BlobError::Wrong("policy", "map");
    assert_eq!(verdict(&but(&[("policy", positional)])), Err(array), "an array");
    let numbered = Value::Map(
        [10, 1, 1_000].into_iter().enumerate().map(|(i, n)| (i.into(), n.into())).collect(),
    );
    let numbered = verdict(&but(&[("policy", numbered)]));
    assert_eq!(numbered, Err(BlobError::Missing("capacity")), "numbered");
}

#[test]
fn a_field_stands_once() {
    for field in ["v", "tokens", "timestamp", "weight", "remainder"] {
        let mut fields = vec![
            ("v", Value::from(1)),
            ("tokens", 5.into()),
            ("timestamp", 5.into()),
            ("weight", 5.into()),
            ("remainder", 5.into()),
        ];
        assert_eq!(verdict(&map(&fields)), Ok(()));
        fields.push((field, 1.into()));
        assert_eq!(verdict(&map(&fields)), Err(BlobError::Repeated(field)));
    }
    let twice = policy(&[("capacity", 1), ("refill", 1), ("interval", 1), ("capacity", 2)]);
    assert_eq!(verdict(&but(&[("policy", twice)])), Err(BlobError::Repeated("capacity")));
    let later = map(&[
        ("v", 1.into()),
        ("tokens", 5.into()),
        ("timestamp", 5.into()),
        ("later", 1.into()),
        ("later", 2.into()),
    ]);
    assert_eq!(verdict(&later), Err(BlobError::Malformed));
}

/// A value as languages may encode it: names as bytes, numbers as doubles or floats.
fn spoken(value: &Value, number: &dyn Fn(u64) -> Value, name: &dyn Fn(&str) -> Value) -> Value {
    let again = |value: &Value| spoken(value, number, name);
    match value {
        Value::Map(pairs) => {
            let named = |key: &Value| key.as_str().map_or_else(|| again(key), name);
            Value::Map(pairs.iter().map(|(key, value)| (named(key), again(value))).collect())
        }
        Value::Array(values) => Value::Array(values.iter().map(again).collect()),
        other => other.as_u64().map_or_else(|| other.clone(), number),
    }
}

#[test]
fn languages_encode_alike() {
    let text = |name: &str| Value::from(name);
    let bytes_of = |name: &str| Value::Binary(name.as_bytes().to_vec());
    #[allow(clippy::cast_precision_loss)]
    let double = |whole: u64| Value::F64(whole as f64);
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    let float = |whole: u64| match whole as f32 {
        exact if exact as u64 == whole => Value::F32(exact),
        _ => Value::F64(whole as f64),
    };
    let policy = policy(&[("capacity", 10), ("refill", 500_000), ("interval", 1_000), ("pin", 3)]);
    let debits = Value::Map(vec![("a".into(), Value::Array(vec![1.into(), 7.into(), 2.into()]))]);
    let plain = Value::Map(vec![
        ("v".into(), 1.into()),
        ("tokens".into(), 5_000_000.into()),
        ("timestamp".into(), NOW.into()),
        ("remainder".into(), 5.into()),
        ("weight".into(), 2.into()),
        ("policy".into(), policy),
        ("debits".into(), debits),
        ("fraction".into(), 0.into()),
        ("version".into(), Value::Array(vec![4.into(), "a".into()])),
    ]);
    let expected = claw_core::codec::decode(&bytes(&plain), NOW).unwrap();
    for number in [&double as &dyn Fn(u64) -> Value, &float, &Value::from] {
        for name in [&text as &dyn Fn(&str) -> Value, &bytes_of] {
            let blob = bytes(&spoken(&plain, number, name));
            assert_eq!(claw_core::codec::decode(&blob, NOW), Ok(expected.clone()));
        }
    }
    // Too many for 64 bits, but a whole number.
    let most = but(&[("tokens", 1.8446744073709552e19.into())]);
    assert_eq!(verdict(&most), Err(BlobError::OutOfBounds("tokens")));
    // No text at all.
    let mut unnamed = vec![0x84, 0xc4, 0x01, 0xff, 0x01];
    unnamed.extend(&but(&[])[1..]);
    assert_eq!(verdict(&unnamed), Err(BlobError::Malformed));
}

#[test]
fn counters_say_what_they_are() {
    let wrong = BlobError::Wrong("debits", "map of replicas to epoch, spent and refunded");
    let three = |a: Value, b: Value, c: Value| Value::Array(vec![a, b, c]);
    let of = |name: Value, counter: Value| Value::Map(vec![(name, counter)]);
    let fine = || three(1.into(), 7.into(), 2.into());
    let table = [
        (of("a".into(), fine()), Ok(())),
        (Value::Binary(vec![1]), Err(wrong)),
        (of(5.into(), fine()), Err(wrong)),
        (of("no name".into(), fine()), Err(wrong)),
        (of("a".into(), 5.into()), Err(wrong)),
        (of("a".into(), Value::Array(vec![1.into(), 2.into()])), Err(wrong)),
        (of("a".into(), three(1.into(), 7.5.into(), 2.into())), Err(wrong)),
        (
            of("a".into(), three(0.into(), 7.into(), 2.into())),
            Err(BlobError::OutOfBounds("debits")),
        ),
    ];
    for (counters, expected) in table {
        assert_eq!(verdict(&but(&[("debits", counters.clone())])), expected, "{counters}");
    }
    let changed = |value: Value| verdict(&but(&[("version", value)]));
    let wrong = BlobError::Wrong("version", "array of number and origin");
    assert_eq!(changed(Value::Array(vec![1.into(), "a".into()])), Ok(()));
    for value in [1.into(), Value::Array(vec![1.into()]), Value::Array(vec![1.into(), 2.into()])] {
        assert_eq!(changed(value), Err(wrong));
    }
}

/// What changes the meaning of a state gets another name, so any version will do.
#[test]
fn other_versions() {
    for version in [0, 2, 3, 1_000, u64::MAX] {
        assert_eq!(verdict(&but(&[("v", version.into())])), Ok(()), "{version}");
    }
}

#[test]
fn nothing_before_nothing_after() {
    let blob = but(&[]);
    for odd in [&[0xc0][..], &[0x00], &[0x80], &blob] {
        assert_eq!(verdict(&[&blob, odd].concat()), Err(BlobError::Malformed), "after: {odd:?}");
        assert_eq!(verdict(&[odd, &blob].concat()), Err(BlobError::Malformed), "before: {odd:?}");
    }
    for end in 0..blob.len() {
        assert_eq!(verdict(&blob[..end]), Err(BlobError::Malformed), "cut at {end}");
    }
}

#[test]
fn how_long() {
    let long = |length: usize| {
        let rest = length - but(&[("note", Value::Binary(vec![0; 300]))]).len() + 300;
        but(&[("note", Value::Binary(vec![0; rest]))])
    };
    assert_eq!((long(MAX_BLOB).len(), verdict(&long(MAX_BLOB))), (MAX_BLOB, Ok(())));
    assert_eq!(verdict(&long(MAX_BLOB + 1)), Err(BlobError::TooLong));
    assert_eq!(verdict(&vec![0x81; 10_000_000]), Err(BlobError::TooLong));
}

#[test]
fn what_the_errors_say() {
    let table = [
        (BlobError::TooLong, "is longer than 8192 bytes"),
        (BlobError::Malformed, "is not a state as CL.STATE returns it"),
        (BlobError::Missing("tokens"), "has no field 'tokens'"),
        (BlobError::Repeated("tokens"), "holds the field 'tokens' twice"),
        (BlobError::Wrong("policy", "map"), "holds a field 'policy' that is no map"),
        (BlobError::OutOfBounds("weight"), "holds a field 'weight' out of its bounds"),
    ];
    for (error, text) in table {
        assert_eq!(error.to_string(), text);
    }
}

proptest! {
    #![proptest_config(any::cases(3_000))]

    #[test]
    fn a_state_is_read_as_it_was_written(Family { defaults, states: [state] } in any::family::<1>()) {
        let blob = encode(&state, &Newer::new()).unwrap();
        prop_assert!(blob.len() < 200, "{}", blob.len());
        let (record, newer) = decode(&blob, NOW).unwrap();
        prop_assert!(newer.is_empty());
        prop_assert_eq!(record.state(&defaults.of(b"key"), NOW), state);
    }
}
