//! The blob of a shared bucket, as regions send it.

use crate::any::{START, cases, id, shared};
use claw_core::bucket::Weight;
use claw_core::codec::{self, Besides, BlobError, Decoded, MAX_BLOB, Newer};
use claw_core::debit::{Account, Counter, Debits, MAX_REPLICAS, SharedBucket, Stretch};
use claw_core::merge::State;
use claw_core::policy::{Policy, StoredPolicy};
use claw_core::replica::{MAX_EPOCH, MAX_OWN_EPOCH, ReplicaId, Writer};
use proptest::prelude::*;

/// The bucket that was sent, when it was sent.
fn received(decoded: &Decoded) -> SharedBucket {
    let Decoded { record, default, besides, .. } = decoded;
    let policy = record.policy.map(|stored| stored.policy).or(*default).unwrap();
    let (tokens, timestamp) = (record.tokens.unwrap(), record.timestamp.unwrap());
    let weight = record.weight.unwrap();
    let bucket = claw_core::bucket::Bucket::new(policy, weight, tokens, 0, timestamp);
    SharedBucket::new(&bucket, besides.debits.clone().unwrap())
}

fn written(
    from: ReplicaId,
    bucket: &SharedBucket,
    stored: Option<StoredPolicy>,
    refilling: bool,
) -> Vec<u8> {
    let mut blob = Vec::new();
    codec::encode_shared(from, &bucket.bucket(), &bucket.debits(), stored, refilling, &mut blob);
    blob
}

/// Marks and looks are nobody else's business, and replicas that counted nothing are not sent.
fn counted(bucket: &SharedBucket) -> SharedBucket {
    let mut debits = bucket.debits();
    debits.accounts.retain(|account| account.counter.epoch != 0);
    debits.accounts.iter_mut().for_each(|account| account.slack = None);
    debits.looked = Stretch::default();
    SharedBucket::new(&bucket.bucket(), debits)
}

fn sane(bucket: &SharedBucket) -> bool {
    bucket.accounts().iter().all(|account| account.counter.epoch <= MAX_EPOCH)
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn a_bucket_is_received_as_it_was_sent(
        bucket in shared(),
        from in id(),
        pin in prop::option::of(prop::option::of(any::<u64>())),
        sent in prop::option::of(0..START),
    ) {
        prop_assume!(sane(&bucket));
        let stored = pin.map(|pin| StoredPolicy { policy: bucket.policy(), pin });
        let mut blob = written(from, &bucket, stored, sent.is_some());
        if let Some(sent) = sent {
            codec::set_sent(&mut blob, sent);
        }
        prop_assert!(blob.len() <= MAX_BLOB);
        let decoded = codec::decode(&blob, START).unwrap();
        prop_assert_eq!(received(&decoded), counted(&bucket));
        prop_assert_eq!(decoded.record.policy, stored);
        prop_assert_eq!(decoded.besides.from, Some(from));
        prop_assert_eq!(decoded.besides.sent, sent);
        prop_assert_eq!(&decoded.besides.newer, &Newer::new());

        // What CL.STATE answers is the same but for who sends it.
        let state = State::of(bucket.bucket(), stored);
        let besides = Besides { debits: Some(bucket.debits()), ..Besides::default() };
        let asked = codec::decode(&codec::encode(&state, &besides).unwrap(), START).unwrap();
        prop_assert_eq!(received(&asked), counted(&bucket));
        prop_assert_eq!((asked.besides.from, asked.besides.sent), (None, None));
    }

    /// No bytes panic, and what is read can be written.
    #[test]
    fn nearly_a_blob(
        bucket in shared(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut blob = written("a".parse().unwrap(), &bucket, None, true);
        prop_assert!(codec::decode(&blob[..cut.index(blob.len())], START).is_err());
        for (place, byte) in changes {
            let place = place.index(blob.len());
            blob[place] = byte;
        }
        if let Ok(decoded) = codec::decode(&blob, START) {
            let record = &decoded.record;
            let bucket = claw_core::bucket::Bucket::new(
                record.policy.map_or(Policy::DEFAULT, |stored| stored.policy),
                record.weight.unwrap(),
                record.tokens.unwrap(),
                0,
                record.timestamp.unwrap(),
            );
            let again = codec::encode(&State::of(bucket, record.policy), &decoded.besides);
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
            bucket.debit(Some(&writer), 1);
        }
        bucket
    };
    let most = written("a".parse().unwrap(), &bucket(MAX_REPLICAS), None, false);
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
        codec::decode(&written(writer.id(), &shared, None, false), START).map(drop)
    };
    assert_eq!(counting(MAX_EPOCH), Ok(()));
    assert_eq!(counting(MAX_EPOCH + 1), Err(BlobError::OutOfBounds("debits")));
    assert_eq!(counting(writer.next_epoch(MAX_OWN_EPOCH)), Ok(()));
    // Sent from far ahead.
    let mut ahead = written(writer.id(), &bucket(1), None, true);
    assert_eq!(codec::decode(&ahead, START).map(drop), Err(BlobError::OutOfBounds("sent")));
    codec::set_sent(&mut ahead, START);
    assert!(codec::decode(&ahead, START).is_ok());
}
