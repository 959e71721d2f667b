//! The blob of a shared bucket, as CL.STATE returns it.

use crate::any::{START, cases, counted, sane, shared};
use claw_core::bucket::{Bucket, Weight};
use claw_core::codec::{self, Besides, BlobError, Decoded, MAX_BLOB, Newer};
use claw_core::debits::{Account, Counter, Debits};
use claw_core::limits::{MAX_REPLICAS, MAX_VERSION};
use claw_core::merge::State;
use claw_core::policy::{Policy, StoredPolicy};
use claw_core::replica::{MAX_EPOCH, MAX_OWN_EPOCH, Writer};
use claw_core::shared::SharedBucket;
use proptest::prelude::*;

/// The bucket that was written.
fn received(decoded: &Decoded) -> SharedBucket {
    let Decoded { tokens, timestamp, weight, policy, default, besides, .. } = decoded;
    let policy = policy.map(|stored| stored.policy).or(*default).unwrap();
    let bucket = Bucket::new(policy, *weight, *tokens, 0, *timestamp);
    SharedBucket::new(&bucket, besides.debits.clone().unwrap())
}

fn written(bucket: &SharedBucket, stored: Option<StoredPolicy>) -> Vec<u8> {
    let besides = Besides { debits: Some(bucket.debits()), ..Besides::default() };
    codec::encode(&State::of(bucket.bucket(), stored), &besides).unwrap()
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn a_bucket_is_read_as_it_was_written(
        bucket in shared(),
        pin in prop::option::of(prop::option::of(0..=MAX_VERSION)),
    ) {
        prop_assume!(sane(&bucket));
        let stored = pin.map(|pin| StoredPolicy { policy: bucket.policy(), pin });
        let blob = written(&bucket, stored);
        prop_assert!(blob.len() <= MAX_BLOB);
        let decoded = codec::decode(&blob, START).unwrap();
        prop_assert_eq!(received(&decoded), counted(&bucket));
        prop_assert_eq!(decoded.policy, stored);
        prop_assert_eq!(&decoded.besides.newer, &Newer::new());
    }

    /// No bytes panic, and what is read can be written.
    #[test]
    fn nearly_a_blob(
        bucket in shared(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut blob = written(&bucket, None);
        prop_assert!(codec::decode(&blob[..cut.index(blob.len())], START).is_err());
        for (place, byte) in changes {
            let place = place.index(blob.len());
            blob[place] = byte;
        }
        if let Ok(decoded) = codec::decode(&blob, START) {
            let Decoded { tokens, timestamp, weight, policy, besides, .. } = decoded;
            let in_force = policy.map_or(Policy::DEFAULT, |stored| stored.policy);
            let bucket = Bucket::new(in_force, weight, tokens, 0, timestamp);
            let again = codec::encode(&State::of(bucket, policy), &besides);
            prop_assert!(again.is_ok());
        }
    }
}

#[test]
fn entries_out_of_bounds() {
    let bucket = |replicas: usize| {
        let mut bucket = SharedBucket::full(Policy::DEFAULT, Weight::ONE, START);
        for replica in 0..replicas {
            let writer = Writer::new(format!("r{replica:02}").parse().unwrap(), 1);
            bucket.debit(Some(&writer), 1).unwrap();
        }
        bucket
    };
    let most = written(&bucket(MAX_REPLICAS), None);
    assert!(codec::decode(&most, START).is_ok());
    // Names stand in any order, and each once.
    let renamed = |from: &[u8], to: &[u8]| {
        let mut blob = most.clone();
        let place = blob.windows(3).position(|part| part == from).unwrap();
        blob[place..place + 3].copy_from_slice(to);
        codec::decode(&blob, START).map(drop)
    };
    assert!(renamed(b"r01", b"q99").is_ok());
    assert!(renamed(b"r01", b"r00").is_err());
    // No epoch is far above all counts, and whoever is told of the largest one of
    // its own that is believed goes on from there.
    let writer = Writer::new("a".parse().unwrap(), 1);
    let counting = |epoch: u64| {
        let counter = Counter { epoch, spent: 1, refunded: 0 };
        let accounts = vec![Account { id: writer.id(), counter, slack: None }];
        let debits = Debits { accounts, ..Debits::default() };
        let shared = SharedBucket::new(&bucket(0).bucket(), debits);
        codec::decode(&written(&shared, None), START).map(drop)
    };
    assert_eq!(counting(MAX_EPOCH), Ok(()));
    assert_eq!(counting(MAX_EPOCH + 1), Err(BlobError::OutOfBounds("debits")));
    assert_eq!(counting(writer.next_epoch(MAX_OWN_EPOCH)), Ok(()));
}
