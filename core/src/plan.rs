//! What has to be done for a bucket to be kept, and what other regions are told of it.

use crate::bucket::{Bucket, Weight};
use crate::policy::{Policy, StoredPolicy, Temporary};

/// How a key takes part in region sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncMode {
    /// Not at all.
    #[default]
    None,
    /// What is taken of it is counted.
    Counters,
    /// Its state is sent as it is.
    State,
    /// Its state is sent, and the regions' states are folded by a function.
    Folded,
}

/// What has to be written of a bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What the fields `tokens` and `timestamp` have to say.
    pub bucket: Bucket,
    /// Whether there is a field `debits`.
    pub is_shared: bool,
    /// The field `remainder`, which a shared bucket has not.
    pub remainder: Change<u64>,
    /// The other fields; `None` when all of them stay as they are, as mostly.
    pub changes: Option<Box<Changes>>,
    /// As what other regions are to be [told](crate::open::OpenBucket::told) of it.
    pub told: SyncMode,
    /// Whole tokens taken since the bucket was opened.
    pub admitted: u64,
}

/// The fields that seldom change.
#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    /// `policy`.
    pub policy: Change<StoredPolicy>,
    /// `temporary`.
    pub temporary: Change<Temporary>,
    /// `userWeight`.
    pub weight: Change<Weight>,
    /// `regions`.
    pub regions: Change<Vec<u8>>,
}

/// What happens to a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Change<T> {
    /// It stays, or stays away.
    Keep,
    /// It gets this value.
    Set(T),
    /// It goes.
    Delete,
}

impl<T> Change<T> {
    /// From one value to another; `None` is a field that is not there.
    pub(crate) fn between(old: Option<T>, new: Option<T>) -> Self
    where
        T: PartialEq,
    {
        match new {
            new if new == old => Self::Keep,
            Some(new) => Self::Set(new),
            None => Self::Delete,
        }
    }

    /// The same with another value.
    pub fn map<U>(self, of: impl FnOnce(T) -> U) -> Change<U> {
        match self {
            Self::Keep => Change::Keep,
            Self::Set(value) => Change::Set(of(value)),
            Self::Delete => Change::Delete,
        }
    }
}

impl<T> Change<Option<T>> {
    /// The same with the value that was made; `None` when there is none.
    pub fn made(self) -> Option<Change<T>> {
        Some(match self {
            Self::Keep => Change::Keep,
            Self::Set(value) => Change::Set(value?),
            Self::Delete => Change::Delete,
        })
    }
}

/// What other regions are told of a bucket. With the text of the field `debits` it says all that
/// a [state](crate::codec::encode_wire) does: so little memory has to go from one thread to
/// another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Note {
    /// The bucket as its fields hold it.
    pub bucket: Bucket,
    /// What its `policy` field says.
    pub stored: Option<StoredPolicy>,
    /// The temporary pin over it, whose policy the bucket has.
    pub temporary: Option<Temporary>,
    /// For a bucket that regions count: the [share](crate::membership::Membership::share_until_sent)
    /// at which it is credited until it is sent. `None` for a bucket of any other strategy.
    pub counted: Option<u16>,
}

const STORED: u64 = 1;
const PINNED: u64 = 1 << 1;
const COUNTED: u64 = 1 << 2;
const TEMPORARY: u64 = 1 << 3;
/// Where the share stands, above the flags.
const SHARE: u32 = 8;

/// What [`Note::to_bytes`] gives: numbers, the least byte first.
#[derive(Debug, Clone, Copy)]
pub struct NoteBytes {
    numbers: [[u8; 8]; ALWAYS + MORE],
    len: usize,
}

/// How many numbers there are always, and how many more for a temporary pin.
const ALWAYS: usize = 9;
const MORE: usize = 5;

impl NoteBytes {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.numbers.get(..self.len).unwrap_or_default().as_flattened()
    }
}

impl Note {
    /// As bytes; the text of `debits` is to follow them.
    #[must_use]
    pub fn to_bytes(self) -> NoteBytes {
        let Self { bucket, stored, temporary, counted } = self;
        let policy = bucket.policy();
        let pin = stored.and_then(|stored| stored.pin);
        let flag = |flag: u64, set: bool| if set { flag } else { 0 };
        let flags = flag(STORED, stored.is_some())
            | flag(PINNED, pin.is_some())
            | flag(COUNTED, counted.is_some())
            | flag(TEMPORARY, temporary.is_some())
            | u64::from(counted.unwrap_or(0)) << SHARE;
        let always = [
            flags,
            bucket.weight().get().into(),
            bucket.tokens().cast_unsigned(),
            bucket.remainder(),
            bucket.timestamp(),
            policy.capacity(),
            policy.refill(),
            policy.interval_ms(),
            // Without the flag it says nothing.
            pin.unwrap_or(0),
        ];
        let mut bytes = NoteBytes { numbers: [[0; 8]; ALWAYS + MORE], len: ALWAYS };
        let (first, more) = bytes.numbers.split_at_mut(ALWAYS);
        first.iter_mut().zip(always).for_each(|(to, number)| *to = number.to_le_bytes());
        if let Some(temporary) = temporary {
            let beneath = stored.map_or(policy, |stored| stored.policy);
            let numbers = [
                temporary.until,
                temporary.version,
                beneath.capacity(),
                beneath.refill(),
                beneath.interval_ms(),
            ];
            more.iter_mut().zip(numbers).for_each(|(to, number)| *to = number.to_le_bytes());
            bytes.len = ALWAYS + MORE;
        }
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote, and gives back what follows it; `None` for anything
    /// else.
    #[must_use]
    pub fn read(note: &[u8]) -> Option<(Self, &[u8])> {
        let (numbers, debits) = read_numbers::<ALWAYS>(note)?;
        let [flags, weight, tokens, remainder, timestamp, capacity, refill, interval, pin] =
            numbers;
        let is = |flag: u64| flags & flag != 0;
        let policy = Policy::new(capacity, refill, interval).ok()?;
        let (temporary, beneath, debits) = if is(TEMPORARY) {
            let (numbers, debits) = read_numbers::<MORE>(debits)?;
            let [until, version, capacity, refill, interval] = numbers;
            let beneath = Policy::new(capacity, refill, interval).ok()?;
            (Some(Temporary { policy, until, version }), beneath, debits)
        } else {
            (None, policy, debits)
        };
        let stored = StoredPolicy { policy: beneath, pin: Some(pin).filter(|_| is(PINNED)) };
        let tokens = tokens.cast_signed();
        let note = Self {
            bucket: Bucket::new(policy, Weight::new(weight)?, tokens, remainder, timestamp),
            stored: Some(stored).filter(|_| is(STORED)),
            temporary,
            counted: if is(COUNTED) { Some(u16::try_from(flags >> SHARE).ok()?) } else { None },
        };
        Some((note, debits))
    }
}

fn read_numbers<const N: usize>(bytes: &[u8]) -> Option<([u64; N], &[u8])> {
    let (numbers, rest) = bytes.split_at_checked(N.checked_mul(8)?)?;
    let numbers: [[u8; 8]; N] = numbers.as_chunks().0.try_into().ok()?;
    Some((numbers.map(u64::from_le_bytes), rest))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let policy = Policy::new(1_000_000_000_000, 1, 31_622_400_000).unwrap();
        let bucket = Bucket::new(policy, Weight::new(10).unwrap(), i64::MAX, 0, u64::MAX);
        let beneath = Policy::new(0, 0, 1).unwrap();
        let other = Bucket::new(Policy::DEFAULT, Weight::ONE, -7, 2_519, 0);
        for bucket in [bucket, other] {
            for pin in [None, Some(None), Some(Some(0)), Some(Some(u64::MAX))] {
                for counted in [None, Some(0), Some(1_000)] {
                    let stored = pin.map(|pin| StoredPolicy { policy: bucket.policy(), pin });
                    let (policy, until, version) = (bucket.policy(), u64::MAX, 1);
                    let pinned = Temporary { policy, until, version };
                    for temporary in [None, Some(pinned)] {
                        // What is beneath is another policy.
                        let stored = match temporary {
                            None => stored,
                            Some(_) => stored.map(|own| StoredPolicy { policy: beneath, ..own }),
                        };
                        let fields = Note { bucket, stored, temporary, counted };
                        let note = [fields.to_bytes().as_bytes(), b"debits"].concat();
                        assert_eq!(Note::read(&note), Some((fields, b"debits".as_slice())));
                    }
                }
            }
        }
        assert_eq!(Note::read(&[0; 71]), None);
        assert_eq!(Note::read(&[0; 72]), None);
    }
}
