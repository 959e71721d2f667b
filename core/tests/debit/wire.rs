//! A shared bucket, as regions send it to each other.

use crate::any::{START, cases, counted, id, sane, shared};
use crate::world::cut;
use claw_core::bucket::{Bucket, Weight};
use claw_core::codec::{self, BlobError, DebitsText, Names, Wire};
use claw_core::debits::{Account, Counter, Debits, Version};
use claw_core::limits::MAX_VERSION;
use claw_core::membership::WHOLE;
use claw_core::plan::Note;
use claw_core::policy::{Policy, StoredPolicy};
use claw_core::replica::{MAX_EPOCH, ReplicaId};
use claw_core::shared::SharedBucket;
use proptest::prelude::*;

/// What becomes of a bucket between its region's main thread and the line.
fn sent(
    bucket: &SharedBucket,
    stored: Option<StoredPolicy>,
    share: u16,
    names: &mut Names,
) -> Vec<u8> {
    let mut text = DebitsText::default();
    let line = codec::encode_debits(bucket, &mut text);
    let note = Note { bucket: line, stored, temporary: None, counted: Some(share) };
    let noted = [note.to_bytes().as_bytes(), text.as_bytes().unwrap()].concat();
    let (note, text) = Note::read(&noted).unwrap();
    let mut state = Vec::new();
    assert!(codec::encode_wire(&note, text, names, &mut Debits::default(), &mut state));
    state
}

fn from() -> ReplicaId {
    "sender".parse().unwrap()
}

fn read(state: &[u8], names: &Names, at: u64) -> Result<SharedBucket, BlobError> {
    let mut wire = Wire::new(from(), names.clone(), at);
    codec::decode_wire(state, START, &mut wire).map(|remote| remote.bucket.clone())
}

proptest! {
    #![proptest_config(cases(1_000))]

    /// Also in memory that another state has been read in, and by names that have grown since.
    #[test]
    fn a_bucket_is_received_as_it_was_sent(
        buckets in prop::collection::vec((shared(), 1..=40_usize), 1..5),
        pin in prop::option::of(prop::option::of(0..=MAX_VERSION)),
        ago in 0..2 * START,
        more in prop::collection::vec(id(), 0..300),
    ) {
        let mut names = Names::default();
        let at = START.saturating_sub(ago);
        let kept: Vec<_> = buckets.into_iter().filter(|(bucket, _)| sane(bucket)).collect();
        let states: Vec<_> = kept
            .iter()
            .map(|(bucket, regions)| {
                let stored = pin.map(|pin| StoredPolicy { policy: bucket.policy(), pin });
                let share = cut(regions - 1, *regions, 1).share_until_sent();
                (sent(bucket, stored, share, &mut names), stored)
            })
            .collect();
        // Names of no state here: more than are listed.
        for id in more {
            let counter = Counter { epoch: 1, spent: 0, refunded: 0 };
            let accounts = vec![Account { id, counter, slack: None }];
            let line = Bucket::full(Policy::DEFAULT, Weight::ONE, START);
            let debits = Debits { accounts, ..Debits::default() };
            let bucket = SharedBucket::new(&line, debits);
            let state = sent(&bucket, None, 0, &mut names);
            prop_assert_eq!(read(&state, &names, at).unwrap(), bucket);
        }
        let names = Names::parse(names.to_text().as_bytes()).unwrap();
        let mut wire = Wire::new(from(), names, at);
        for ((bucket, regions), (state, stored)) in kept.iter().zip(states) {
            let remote = codec::decode_wire(&state, START, &mut wire).unwrap();
            let mut expected = counted(bucket);
            expected.advance(at, &cut(regions - 1, *regions, 1));
            prop_assert_eq!(&remote.bucket, &expected);
            prop_assert_eq!((remote.stored, remote.from), (stored, Some(from())));
        }
    }

    /// No bytes panic, and nothing is read of what was cut off.
    #[test]
    fn nearly_a_state(
        bucket in shared(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut names = Names::default();
        let mut state = sent(&bucket, None, WHOLE, &mut names);
        prop_assert!(read(&state[..cut.index(state.len())], &names, START).is_err());
        for (place, byte) in changes {
            let place = place.index(state.len());
            state[place] = byte;
        }
        if let Ok(bucket) = read(&state, &names, START) {
            prop_assert!(bucket.bucket().tokens() <= bucket.policy().capacity_micros());
            prop_assert!(sane(&bucket));
        }
    }
}

#[test]
fn what_is_out_of_bounds_is_refused() {
    let line = Bucket::full(Policy::DEFAULT, Weight::ONE, START);
    let counting = |name: &str, epoch: u64| Account {
        id: name.parse().unwrap(),
        counter: Counter { epoch, spent: 1, refunded: 0 },
        slack: None,
    };
    let state = |accounts: Vec<Account>, names: &mut Names| {
        let debits = Debits { accounts, ..Debits::default() };
        sent(&SharedBucket::new(&line, debits), None, WHOLE, names)
    };
    let read_one = |account: Account| {
        let mut names = Names::default();
        let state = state(vec![account], &mut names);
        read(&state, &names, START).map(drop)
    };
    assert_eq!(read_one(counting("a", MAX_EPOCH)), Ok(()));
    assert_eq!(read_one(counting("a", MAX_EPOCH + 1)), Err(BlobError::OutOfBounds("debits")));

    // A number of a change that leaves no room to count on.
    for (number, expected) in
        [(MAX_VERSION, Ok(())), (MAX_VERSION + 1, Err(BlobError::OutOfBounds("version")))]
    {
        let version = Version { number: MAX_VERSION, origin: Some(from()) };
        let debits = Debits { version, ..Debits::default() };
        let mut names = Names::default();
        let mut by_version = sent(&SharedBucket::new(&line, debits), None, WHOLE, &mut names);
        // No bucket here can have another one.
        let place = by_version.windows(8).position(|eight| eight == MAX_VERSION.to_be_bytes());
        let place = place.unwrap();
        by_version[place..place + 8].copy_from_slice(&number.to_be_bytes());
        assert_eq!(read(&by_version, &names, START).map(drop), expected);
        let stored = Some(StoredPolicy { policy: Policy::DEFAULT, pin: Some(number) });
        let plain = SharedBucket::new(&line, Debits::default());
        let by_pin = sent(&plain, stored, WHOLE, &mut names);
        assert_eq!(read(&by_pin, &names, START).map(drop), expected);
    }

    // A share of more than the whole.
    let plain = SharedBucket::new(&line, Debits::default());
    let mut names = Names::default();
    let more = sent(&plain, None, WHOLE + 1, &mut names);
    assert_eq!(read(&more, &names, START), Err(BlobError::OutOfBounds("share")));

    let mut names = Names::default();
    let two = state(vec![counting("a", 1), counting("b", 1)], &mut names);
    assert_eq!(names.to_text(), "a,b");
    // A name that is not listed, and one that stands twice.
    let table = [("a,b", Ok(())), ("b,a", Ok(())), ("a", Err(BlobError::Malformed))];
    for (text, expected) in table {
        let names = Names::parse(text.as_bytes()).unwrap();
        assert_eq!(read(&two, &names, START).map(drop), expected, "{text}");
    }
    let twice = Names::parse(b"a,a").unwrap();
    assert_eq!(read(&two, &twice, START), Err(BlobError::OutOfBounds("debits")));
    for text in ["a,", ",a", "a b", "a,,b"] {
        assert_eq!(Names::parse(text.as_bytes()), None, "{text}");
    }
    assert_eq!(Names::parse(&b"a,".repeat(129)[..257]), None);
    // Sent from far ahead, and bytes behind the state.
    let month = 31 * 86_400_000_000;
    let ahead = read(&two, &names, START + month);
    assert_eq!(ahead, Err(BlobError::OutOfBounds("timestamp")));
    let longer = [two.as_slice(), b"x"].concat();
    assert_eq!(read(&longer, &names, START), Err(BlobError::Malformed));
}
