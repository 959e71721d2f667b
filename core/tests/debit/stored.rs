//! What is stored of a shared bucket is all of it.

use crate::any::{self, START, cases, debits, shared};
use crate::world::{any_cut, cut};
use claw_core::bucket::{Bucket, Demand, Weight};
use claw_core::codec::{self, DebitsText, MAX_BLOB, decode_debits};
use claw_core::configured::Configured;
use claw_core::debits::{Debits, Region, Version};
use claw_core::decimal::Decimal;
use claw_core::limits::{MAX_DEBT, MAX_INTERVAL_MS, MAX_REPLICAS, MAX_TOKENS, MAX_VERSION};
use claw_core::merge::State;
use claw_core::open::{BucketPool, OpenBucket};
use claw_core::policy::{Policy, StoredPolicy, Temporary};
use claw_core::record::{Field, FieldError, Record};
use claw_core::shared::SharedBucket;
use proptest::prelude::*;

fn encode_debits(bucket: &SharedBucket) -> Vec<u8> {
    let mut text = DebitsText::default();
    codec::encode_debits(bucket, &mut text);
    text.as_bytes().unwrap().to_vec()
}

/// A bucket as the fields of a hash, and read from them again.
fn reread(bucket: &SharedBucket) -> SharedBucket {
    reread_in(bucket, &mut BucketPool::default())
}

/// [`reread`] in the memory of another one, which it leaves for the next.
fn reread_in(bucket: &SharedBucket, spare: &mut BucketPool) -> SharedBucket {
    let opened = reopened(bucket, spare);
    let read = opened.as_shared().unwrap().clone();
    spare.keep(opened);
    read
}

fn reopened(bucket: &SharedBucket, spare: &mut BucketPool) -> Box<OpenBucket> {
    let (line, debits) = (bucket.bucket(), bucket.debits());
    let stored = StoredPolicy { policy: line.policy(), pin: None };
    let fields = [
        (Field::Tokens, Decimal::signed(line.tokens()).to_string().into_bytes()),
        (Field::Timestamp, line.timestamp().to_string().into_bytes()),
        (Field::Weight, line.weight().get().to_string().into_bytes()),
        (Field::Policy, stored.to_string().into_bytes()),
        (Field::Debits, encode_debits(bucket)),
    ];
    let mut record = Record::default();
    for (field, text) in fields {
        if field == Field::Debits {
            record.read_debits(&text, spare.debits()).unwrap();
        } else {
            record.read(field, &text, START).unwrap();
        }
    }
    assert_eq!(record.debits.as_deref(), Some(&debits));
    let (defaults, region) = (Configured::new(Policy::DEFAULT), Region::default());
    let mut opened = spare.take();
    *opened.record_mut() = Some(record);
    opened.begin_shared(&defaults.of(b"key"), &region, line.timestamp(), None, spare);
    opened
}

/// An empty bucket with these debits, or a fraction above.
fn empty(debits: &Debits) -> SharedBucket {
    let policy = Policy::new(MAX_TOKENS, 0, MAX_INTERVAL_MS).unwrap();
    SharedBucket::new(&Bucket::new(policy, Weight::ONE, 0, 0, START), debits.clone())
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn a_bucket_is_read_as_it_was_written(bucket in shared()) {
        prop_assert_eq!(reread(&bucket), bucket);
    }

    /// Nothing is left of the bucket whose memory is used, nor of a field that could
    /// not be read.
    #[test]
    fn memory_is_used_again_without_a_trace(
        buckets in prop::collection::vec(shared(), 1..5),
        damage in prop::option::of(any::<u16>()),
    ) {
        let mut spare = BucketPool::default();
        for bucket in buckets {
            prop_assert_eq!(reread_in(&bucket, &mut spare), bucket.clone());
            if let Some(cut) = damage {
                let mut text = encode_debits(&bucket);
                text.truncate(usize::from(cut) % text.len());
                let read = Record::default().read_debits(&text, spare.debits());
                prop_assert_eq!(read, Err(FieldError::Debits));
            }
        }
    }

    /// Also one that takes and a withheld refill have left at no whole millionth.
    #[test]
    fn a_bucket_in_use_is_read_as_it_was_written(
        policy in any::policy(),
        takes in prop::collection::vec((any::<u64>(), 0_u64..40_000_000, any_cut()), 1..18),
    ) {
        let mut bucket = SharedBucket::full(policy, Weight::ONE, START - 1_000_000_000);
        let mut now = bucket.timestamp();
        for (micros, step, (silent, regions)) in takes {
            now += step;
            bucket.advance(now, &cut(silent, regions, now));
            let capacity = policy.capacity_micros().unsigned_abs();
            bucket.debit(None, micros % (capacity + 1)).unwrap();
            let read = reread(&bucket);
            let deepest = bucket.bucket().tokens() == -MAX_DEBT;
            prop_assert!(read == bucket || deepest && read.bucket().tokens() == -MAX_DEBT);
        }
    }

    #[test]
    fn debits_are_read_as_they_were_written(debits in debits()) {
        let bucket = empty(&debits);
        let written = encode_debits(&bucket);
        prop_assert!(written.len() <= MAX_BLOB, "{} bytes", written.len());
        prop_assert_eq!(decode_debits(&written), Some(bucket.debits()));
        prop_assert_eq!(bucket.debits().accounts, debits.accounts);
        prop_assert_eq!(bucket.debits().version, debits.version);
    }

    /// No bytes panic, and what is taken for debits is written as it was read.
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes);
    }

    #[test]
    fn nearly_debits(
        debits in debits(),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode_debits(&empty(&debits));
        check(&bytes[..cut.index(bytes.len())]);
        let place = place.index(bytes.len());
        bytes[place] = byte;
        check(&bytes);
    }
}

proptest! {
    #![proptest_config(cases(1_000))]

    /// A merge that knows tokens only puts them in the place of what was held: what was counted stays
    /// counted, and what overflowed and was withheld stays as many tokens, under whatever policy.
    #[test]
    fn what_a_merge_puts_in_its_place(
        bucket in shared(),
        (policy, weight) in (any::policy(), any::weight()),
        permille in 0_i64..=1_000,
        pinned in any::<bool>(),
    ) {
        let line = bucket.bucket();
        let stored = StoredPolicy { policy: line.policy(), pin: None };
        let record = Record {
            tokens: Some(line.tokens()),
            timestamp: Some(line.timestamp()),
            weight: Some(line.weight()),
            policy: Some(stored).filter(|_| !pinned),
            temporary: pinned.then_some(Temporary { policy: line.policy(), until: START + 1, version: 1 }),
            debits: Some(bucket.debits().into()),
            ..Record::default()
        };
        let tokens = policy.capacity_micros() / 1_000 * permille;
        let merged = State::of(
            Bucket::new(policy, weight, tokens, 0, START),
            Some(StoredPolicy { policy, pin: Some(1) }),
        );
        let defaults = Configured::new(Policy::DEFAULT);
        let opened =
            OpenBucket::merged(Some(record), &merged, &defaults.of(b"key"), false, START);
        let replaced = opened.as_shared().unwrap();
        prop_assert_eq!(replaced.bucket(), merged.bucket);
        let mut switched = bucket;
        switched.switch(policy);
        prop_assert_eq!(replaced.accounts(), switched.accounts());
        prop_assert_eq!((replaced.home(), replaced.version()), (switched.home(), switched.version()));
    }
}

fn check(bytes: &[u8]) {
    let mut record = Record::default();
    match decode_debits(bytes) {
        None => {
            assert_eq!(record.read(Field::Debits, bytes, START), Err(FieldError::Debits));
            assert_eq!(record, Record::default());
        }
        Some(debits) => {
            let bucket = empty(&debits);
            assert_eq!(decode_debits(&encode_debits(&bucket)), Some(bucket.debits()));
            assert_eq!(bucket.accounts(), debits.accounts);
            // Whatever it says, the bucket stays a bucket.
            record.read(Field::Debits, bytes, START).unwrap();
            let defaults = Configured::new(Policy::DEFAULT);
            for tokens in [Some(0), Some(1), Some(-1), Some(i64::MIN), None] {
                let record = Record { tokens, timestamp: Some(START), ..record.clone() };
                let mut opened = OpenBucket::shared(
                    Some(record),
                    &defaults.of(b"key"),
                    &Region::default(),
                    START + 1,
                    None,
                );
                let answer = opened
                    .take(Demand { tokens: 1, partial: true, keep: 0 }, START, &Region::default())
                    .unwrap();
                assert!(answer.remaining <= answer.capacity.cast_signed());
            }
        }
    }
}

#[test]
fn accounts_out_of_order_or_too_many_are_refused() {
    let account = |name: &str| claw_core::debits::Account {
        id: name.parse().unwrap(),
        counter: claw_core::debits::Counter { epoch: 1, spent: 2, refunded: 3 },
        slack: None,
    };
    let many = |count: usize| (0..count).map(|n| account(&format!("n{n:02}"))).collect();
    let table = [
        (vec![account("a"), account("b")], true),
        (vec![account("b"), account("a")], false),
        (vec![account("a"), account("a")], false),
        (many(MAX_REPLICAS), true),
        (many(MAX_REPLICAS + 1), false),
    ];
    for (accounts, good) in table {
        let debits = Debits { accounts, ..Debits::default() };
        let read = decode_debits(&encode_debits(&empty(&debits)));
        assert_eq!(read, good.then_some(debits));
    }
}

/// A hash that came from another key keeps what is missing, and forgets who took it.
#[test]
fn counters_stay_with_their_key() {
    use claw_core::debits::home;
    let account = |name: &str| claw_core::debits::Account {
        id: name.parse().unwrap(),
        counter: claw_core::debits::Counter { epoch: 9, spent: 8_000_000, refunded: 0 },
        slack: None,
    };
    let (defaults, region) = (Configured::new(Policy::DEFAULT), Region::default());
    let kept_at = |written_at: u32, opened_at: u32| {
        let accounts = vec![account("a"), account("b")];
        let debits = Debits { home: written_at, accounts, ..Debits::default() };
        let record = Record {
            tokens: Some(5_000_000),
            timestamp: Some(START),
            debits: Some(debits.into()),
            ..Record::default()
        };
        let opened =
            OpenBucket::shared(Some(record), &defaults.of(b"key"), &region, START, Some(opened_at));
        let bucket = opened.as_shared().unwrap();
        assert_eq!((bucket.bucket().tokens(), bucket.home()), (5_000_000, opened_at));
        bucket.accounts().len()
    };
    let here = home(0, b"user:1");
    // It is stored: what was written before is still to be known.
    assert_eq!((here, home(7, b"user:12345678")), (3_888_647_546, 1_124_065_204));
    let names: Vec<Vec<u8>> =
        (0..20).flat_map(|len| [b'a', 0].map(|byte| vec![byte; len])).collect();
    let homes: std::collections::BTreeSet<u32> = names.iter().map(|name| home(0, name)).collect();
    assert_eq!(homes.len(), names.len().saturating_sub(1), "only the two of length 0 are the same");
    let table = [
        (here, 2),
        (home(0, b"user:2"), 0),
        (home(1, b"user:1"), 0),
        (home(0, b""), 0),
        (home(1, b""), 0),
    ];
    for (written_at, kept) in table {
        assert_eq!(kept_at(written_at, here), kept, "{written_at}");
    }
}

/// The text of a field has room for whatever a bucket can hold.
#[test]
fn the_longest_debits() {
    let id = |n: usize| format!("{n:0>31}").parse().unwrap();
    let account = |n| claw_core::debits::Account {
        id: id(n),
        counter: claw_core::debits::Counter {
            epoch: u64::MAX,
            spent: u64::MAX,
            refunded: u64::MAX,
        },
        slack: Some(claw_core::debits::Slack { overflow: i128::MAX, withheld: i128::MIN }),
    };
    let policy = Policy::new(1, 1, MAX_INTERVAL_MS).unwrap();
    let debits = Debits {
        version: Version { number: MAX_VERSION, origin: Some(id(99)) },
        fraction: MAX_INTERVAL_MS * 1_000 * 1_000 - 1,
        home: u32::MAX,
        accounts: (0..MAX_REPLICAS).map(account).collect(),
    };
    let bucket = SharedBucket::new(&Bucket::new(policy, Weight::ONE, 0, 0, START), debits.clone());
    let text = encode_debits(&bucket);
    assert_eq!(text.len(), 1595);
    assert_eq!(decode_debits(&text), Some(debits));
}

/// Peers would refuse a number above the last.
#[test]
fn no_number_of_a_change_is_above_the_last() {
    for (number, is_read) in [(MAX_VERSION, true), (MAX_VERSION + 1, false), (u64::MAX, false)] {
        for origin in [None, Some("eu".parse().unwrap())] {
            let version = Version { number, origin };
            let bytes = encode_debits(&empty(&Debits { version, ..Debits::default() }));
            assert_eq!(decode_debits(&bytes).is_some(), is_read, "{number}");
        }
    }
}
