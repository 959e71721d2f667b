//! What is noted of a changed bucket, and the state that peers are sent.

use claw_core::bucket::{Bucket, Weight};
use claw_core::codec::{self, Besides};
use claw_core::debit::Debits;
use claw_core::merge::State;
use claw_core::policy::{Policy, StoredPolicy};
use claw_core::replica::ReplicaId;
use std::time::{SystemTime, UNIX_EPOCH};

/// What the main thread notes; behind it comes the text of the field `debits`, which
/// has just been written. So little memory has to go from one thread to the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Note {
    /// The bucket as its fields hold it.
    pub(super) bucket: Bucket,
    /// What its `policy` field says.
    pub(super) stored: Option<StoredPolicy>,
    /// For a bucket that regions count: whether it refills at the whole rate until
    /// it is sent. `None` for a bucket of any other strategy.
    pub(super) counted: Option<bool>,
}

const STORED: u64 = 1;
const PINNED: u64 = 1 << 1;
const COUNTED: u64 = 1 << 2;
const REFILLING: u64 = 1 << 3;

/// [`Note::to_bytes`].
type Numbers = [[u8; 8]; 9];

impl Note {
    pub(super) fn to_bytes(self) -> Numbers {
        let Self { bucket, stored, counted } = self;
        let policy = stored.map_or(bucket.policy(), |stored| stored.policy);
        let pin = stored.and_then(|stored| stored.pin);
        let flag = |flag: u64, set: bool| if set { flag } else { 0 };
        let flags = flag(STORED, stored.is_some())
            | flag(PINNED, pin.is_some())
            | flag(COUNTED, counted.is_some())
            | flag(REFILLING, counted == Some(true));
        [
            flags,
            bucket.weight().get().into(),
            bucket.tokens(),
            bucket.remainder(),
            bucket.timestamp(),
            policy.capacity(),
            policy.refill(),
            policy.interval_ms(),
            pin.unwrap_or(0),
        ]
        .map(u64::to_le_bytes)
    }

    /// Reads what a note begins with; what is left are the `debits`.
    fn read(note: &[u8]) -> Option<(Self, &[u8])> {
        let (numbers, debits) = note.split_first_chunk::<{ size_of::<Numbers>() }>()?;
        let numbers: Numbers = numbers.as_chunks().0.try_into().ok()?;
        let [flags, weight, tokens, remainder, timestamp, capacity, refill, interval, pin] =
            numbers.map(u64::from_le_bytes);
        let is = |flag: u64| flags & flag != 0;
        let policy = Policy::new(capacity, refill, interval).ok()?;
        let stored = StoredPolicy { policy, pin: Some(pin).filter(|_| is(PINNED)) };
        let note = Self {
            bucket: Bucket::new(policy, Weight::new(weight)?, tokens, remainder, timestamp),
            stored: Some(stored).filter(|_| is(STORED)),
            counted: Some(is(REFILLING)).filter(|_| is(COUNTED)),
        };
        Some((note, debits))
    }
}

/// Makes a note the state that region `from` sends. What `debits` held is gone.
pub(super) fn encode(from: ReplicaId, note: &[u8], debits: &mut Debits, out: &mut Vec<u8>) {
    // A note can always be read: it comes from `Note::to_bytes`.
    let Some((Note { bucket, stored, counted }, text)) = Note::read(note) else {
        return;
    };
    match counted {
        // The peer credits it up to the moment of sending. At less than the whole
        // share it does not: the level is then too high, which is the safe side.
        Some(refilling) => {
            if codec::decode_debits_into(text, debits) {
                codec::encode_shared(from, &bucket, debits, stored, refilling, out);
            }
        }
        None => {
            let besides = Besides { from: Some(from), ..Besides::default() };
            let state = State::of(bucket, stored);
            // It can always be written: see `codec::encode`.
            out.extend(codec::encode(&state, &besides).unwrap_or_default());
        }
    }
}

/// The system's wall clock in unix microseconds, which is the server's too.
pub(super) fn now() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use claw_core::debit::{SharedBucket, Version};
    use claw_core::membership::Membership;
    use claw_core::replica::Writer;

    /// What the hand-out thread makes of a note is what the bucket itself would be.
    #[test]
    fn a_note_becomes_the_state_of_its_bucket() {
        let id = |name: &str| name.parse::<ReplicaId>().unwrap();
        let (me, writer) = (id("eu-west"), Writer::new(id("eu-west"), 7));
        let policy = Policy::new(100, 1_700_000, 3_000).unwrap();
        let mut shared = SharedBucket::full(policy, Weight::new(3).unwrap(), 5_000_000);
        shared.set_version(Version { number: 4, origin: Some(id("us-east")) });
        for (now, tokens) in [(5_000_000, 7), (6_000_001, 40), (6_000_002, 60)] {
            shared.advance(now, &Membership::default());
            shared.debit(Some(&writer), tokens * 1_000_000);
            for stored in [None, Some(StoredPolicy { policy, pin: Some(9) })] {
                for refilling in [false, true] {
                    let (mut state, mut expected) = (Vec::new(), Vec::new());
                    let mut text = codec::DebitsText::default();
                    let bucket = codec::encode_debits(&shared, &mut text);
                    let fields = Note { bucket, stored, counted: Some(refilling) };
                    let text = text.as_bytes().unwrap();
                    let note = [fields.to_bytes().as_flattened(), text].concat();
                    encode(me, &note, &mut Debits::default(), &mut state);
                    let debits = shared.debits();
                    codec::encode_shared(me, &bucket, &debits, stored, refilling, &mut expected);
                    assert_eq!(state, expected);
                    assert_eq!((bucket, debits.accounts.len()), (shared.bucket(), 1));
                }
            }
        }
    }

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let policy = Policy::new(1_000_000_000_000, 1, 31_622_400_000).unwrap();
        let bucket = Bucket::new(policy, Weight::new(10).unwrap(), u64::MAX, 0, u64::MAX);
        let other = Bucket::new(Policy::DEFAULT, Weight::ONE, 7, 2_519, 0);
        for bucket in [bucket, other] {
            for pin in [None, Some(None), Some(Some(0)), Some(Some(u64::MAX))] {
                for counted in [None, Some(false), Some(true)] {
                    let stored = pin.map(|pin| StoredPolicy { policy: bucket.policy(), pin });
                    let fields = Note { bucket, stored, counted };
                    let note = [fields.to_bytes().as_flattened(), b"debits"].concat();
                    assert_eq!(Note::read(&note), Some((fields, b"debits".as_slice())));
                }
            }
        }
        assert_eq!(Note::read(&[0; 71]), None);
        assert_eq!(Note::read(&[0; 72]), None);
    }
}
