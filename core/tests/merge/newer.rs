//! Fields of later versions: kept, joined, passed on.

use crate::any::{self, NOW};
use crate::hash::{decode, encode};
use claw_core::bucket::{Bucket, Weight};
use claw_core::codec::{self, MAX_BLOB, Newer};
use claw_core::merge::State;
use claw_core::policy::Policy;
use proptest::prelude::*;
use rmpv::Value;

fn state() -> State {
    State::of(Bucket::new(Policy::DEFAULT, Weight::ONE, 1_000_000, 0, NOW), None)
}

/// Values such as a later version may write: numbers, text, bytes, nested.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::num::f64::NORMAL.prop_map(Value::from),
        prop::num::f32::NORMAL.prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
        prop::collection::vec(any::<u8>(), 0..6).prop_map(Value::Binary),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::vec((inner.clone(), inner), 0..3).prop_map(Value::Map),
        ]
    })
}

/// A few names, so that the same ones meet.
fn newer() -> impl Strategy<Value = Newer> {
    prop::collection::btree_map("[a-d]x?", value(), 0..4)
}

proptest! {
    #![proptest_config(any::cases(2_000))]

    #[test]
    fn they_come_out_as_they_went_in(newer in newer()) {
        let blob = encode(&state(), &newer).unwrap();
        prop_assert_eq!(&decode(&blob, NOW).unwrap().1, &newer);
        prop_assert_eq!(codec::decode_newer(&codec::encode_newer(&newer).unwrap()), Some(newer));
    }

    #[test]
    fn they_are_joined_by_the_laws(a in newer(), b in newer(), c in newer()) {
        let join = |a: &Newer, b: &Newer| codec::join_newer(a.clone(), b.clone()).unwrap();
        let ab = join(&a, &b);
        prop_assert_eq!(&join(&a, &a), &a);
        prop_assert_eq!(&join(&b, &a), &ab);
        prop_assert_eq!(&join(&ab, &b), &ab);
        prop_assert_eq!(join(&ab, &c), join(&a, &join(&b, &c)));
        for name in a.keys().chain(b.keys()) {
            let kept = ab.get(name);
            prop_assert!(kept == a.get(name) || kept == b.get(name));
        }
    }
}

#[test]
fn two_values_of_a_name() {
    let join = |a: Value, b: Value| {
        let newer = |value| Newer::from([("x".to_owned(), value)]);
        codec::join_newer(newer(a), newer(b)).unwrap().remove("x").unwrap()
    };
    // The one whose encoding is greater, whichever side it is on.
    let table: [(Value, Value); 5] = [
        (1.into(), 2.into()),
        (2.into(), 300.into()),
        (Value::Nil, true.into()),
        ("a".into(), "b".into()),
        (5.into(), "a".into()),
    ];
    for (lesser, greater) in table {
        assert_eq!(join(lesser.clone(), greater.clone()), greater);
        assert_eq!(join(greater.clone(), lesser), greater);
    }
}

/// An extension, such as MessagePack's own timestamp, is a value like others.
#[test]
fn extensions() {
    let newer = Newer::from([("seen".to_owned(), Value::Ext(-1, vec![1, 2, 3, 4]))]);
    let kept = codec::decode_newer(&codec::encode_newer(&newer).unwrap());
    assert_eq!(kept.as_ref(), Some(&newer), "in the hash");
    let blob = encode(&state(), &newer).unwrap();
    let read = decode(&blob, NOW).map(|(_, newer)| newer);
    assert_eq!(read.as_ref(), Ok(&newer), "in the blob");
}

/// Not equal to itself as a number, but the same bytes: whether something has
/// changed is to be told by the encoding.
#[test]
fn not_a_number() {
    for nan in [Value::F64(f64::NAN), Value::F32(f32::NAN)] {
        let newer = Newer::from([("x".to_owned(), nan)]);
        let joined = codec::join_newer(newer.clone(), newer.clone()).unwrap();
        assert_eq!(codec::encode_newer(&joined).unwrap(), codec::encode_newer(&newer).unwrap());
        let blob = encode(&state(), &newer).unwrap();
        let (_, read) = decode(&blob, NOW).unwrap();
        assert_eq!(codec::encode_newer(&read).unwrap(), codec::encode_newer(&newer).unwrap());
    }
}

/// A later version may also add to the policy.
#[test]
fn inside_the_policy() {
    let policy = Value::Map(vec![
        ("capacity".into(), 10.into()),
        ("refill".into(), 1.into()),
        ("interval".into(), 1_000.into()),
        ("burst".into(), 7.into()),
    ]);
    let fields = vec![
        ("v".into(), 2.into()),
        ("tokens".into(), 5.into()),
        ("timestamp".into(), NOW.into()),
        ("policy".into(), policy),
    ];
    let mut blob = Vec::new();
    rmpv::encode::write_value(&mut blob, &Value::Map(fields)).unwrap();
    let (record, newer) = decode(&blob, NOW).unwrap();
    let stored = record.policy.unwrap();
    let bucket = Bucket::new(stored.policy, Weight::ONE, 5, 0, NOW);
    let again = encode(&State::of(bucket, Some(stored)), &newer).unwrap();
    assert!(
        again.windows(5).any(|window| window == b"burst"),
        "a field of the policy that this version does not know is lost"
    );
}

/// Whatever is joined can be read again: out of the hash, and by other servers.
/// Otherwise two blobs that are fine could make a bucket that nobody can read.
#[test]
fn what_was_joined_can_be_read() {
    let newer =
        |name: &str| Newer::from([(name.to_owned(), Value::Binary(vec![7; MAX_BLOB * 3 / 4]))]);
    for each in [newer("a"), newer("b")] {
        let blob = encode(&state(), &each).unwrap();
        assert_eq!(decode(&blob, NOW).unwrap().1, each);
    }
    let joined = codec::join_newer(newer("a"), newer("b"));
    assert_eq!(joined, Err(codec::BlobError::TooLong));
    // As long as it may be, it can be read.
    let long = |name: &str| Newer::from([(name.to_owned(), Value::Binary(vec![7; 1_780]))]);
    let joined = codec::join_newer(long("a"), long("b")).unwrap();
    assert_eq!(codec::decode_newer(&codec::encode_newer(&joined).unwrap()), Some(joined.clone()));
    let blob = encode(&state(), &joined).unwrap();
    assert_eq!(decode(&blob, NOW).unwrap().1, joined);
}
