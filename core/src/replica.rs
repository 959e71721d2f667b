//! Who wrote something: the names of replicas and the epochs of their counters.

use std::cell::Cell;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

/// Longest name of a replica, in bytes.
pub const MAX_ID: usize = 31;

/// The name of one region's writer, `claw.replica-id`: 1..=31 letters, digits,
/// dots, dashes or underscores. Ordered as text.
///
/// Aligned so that it is copied and compared as two words of a vector: what was
/// written in one way and is read in another makes the processor wait.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(align(16))]
pub struct ReplicaId {
    /// The name, filled up with zeros, which no name contains; last its length.
    bytes: [u8; MAX_ID + 1],
}

impl ReplicaId {
    /// A name, to be [set](Self::set) to another.
    pub(crate) const ANY: Self = {
        let mut bytes = [0; MAX_ID + 1];
        let [first, .., last] = &mut bytes;
        (*first, *last) = (b'0', 1);
        Self { bytes }
    };

    /// Numbers in the order of the names: they are compared for every account of a
    /// bucket.
    fn words(&self) -> [u128; 2] {
        let (words, _) = self.bytes.as_chunks();
        match *words {
            [high, low] => [high, low].map(u128::from_be_bytes),
            _ => [0; 2],
        }
    }
}

impl Ord for ReplicaId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.words().cmp(&other.words())
    }
}

impl PartialOrd for ReplicaId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for ReplicaId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.words().hash(state);
    }
}

/// The bytes that a name may have.
const ALLOWED: [bool; 256] = {
    let mut allowed = [false; 256];
    let (mut rest, mut byte) = (allowed.as_mut_slice(), 0_u8);
    while let [first, after @ ..] = rest {
        *first = byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        byte = byte.wrapping_add(1);
        rest = after;
    }
    allowed
};

/// The text is not the name of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaIdError;

impl fmt::Display for ReplicaIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "is not 1 to {MAX_ID} letters, digits, dots, dashes or underscores")
    }
}

impl ReplicaId {
    /// Reads a name.
    ///
    /// # Errors
    /// When it is too long, empty, or has other characters.
    pub fn new(name: &[u8]) -> Result<Self, ReplicaIdError> {
        let mut id = Self::ANY;
        id.set(name)?;
        Ok(id)
    }

    /// Becomes another name, in its place.
    pub(crate) fn set(&mut self, name: &[u8]) -> Result<(), ReplicaIdError> {
        let allowed = |b: &u8| ALLOWED.get(usize::from(*b)) == Some(&true);
        let length = u8::try_from(name.len()).map_err(|_| ReplicaIdError)?;
        // Most buckets have the accounts that the one before had.
        if self.as_bytes() == name {
            return Ok(());
        }
        if name.is_empty() || name.len() > MAX_ID || !name.iter().all(allowed) {
            return Err(ReplicaIdError);
        }
        self.bytes = [0; MAX_ID + 1];
        if let Some((last, text)) = self.bytes.split_last_mut() {
            *last = length;
            text.get_mut(..name.len()).ok_or(ReplicaIdError)?.copy_from_slice(name);
        }
        Ok(())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The name, as its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        let len = self.bytes.last().copied().map_or(0, usize::from);
        // Shorter than the bytes by its length: see `set`.
        self.bytes.get(..len).unwrap_or_default()
    }

    /// The name filled up, and its length.
    pub(crate) fn padded(&self) -> (&[u8; MAX_ID + 1], u8) {
        (&self.bytes, self.bytes.last().copied().unwrap_or_default())
    }
}

impl FromStr for ReplicaId {
    type Err = ReplicaIdError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name.as_bytes())
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How many low bits of an epoch tell one life of a writer from another.
const LIFE_BITS: u32 = 20;
const LIFE: u64 = !(u64::MAX << LIFE_BITS);

/// Largest epoch that is believed.
pub const MAX_EPOCH: u64 = 3 << 62;

/// Largest epoch of our own that is believed when somebody tells of it: far above
/// any count of lives and keys (a million new keys a second for a hundred days), and
/// far enough below [`MAX_EPOCH`] for counting to go on.
pub const MAX_OWN_EPOCH: u64 = 1 << 63;

/// How far the count of a writer follows at once what somebody has seen of it. Only
/// the key of an epoch beyond goes on from there: one damaged state must not decide
/// over all keys.
const LEAP: u64 = 1 << 40;

/// One life of a replica's writer: from the start of a server, or its promotion, or from
/// [another](Writer::begin_life) that ended, to its end.
///
/// Counters that a life has not begun are never continued, since the state they
/// came from may be older than what the peers have seen. So a new life begins a
/// new epoch wherever it takes for the first time. No clock is in an epoch: it is
/// a count, which leads, and a number drawn for the life, which tells apart two
/// lives that have counted equally far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    id: ReplicaId,
    life: Cell<u64>,
    count: Cell<u64>,
}

impl Writer {
    /// A writer that begins its life; of `life`, a random number, the low 20 bits
    /// are used.
    #[must_use]
    pub fn new(id: ReplicaId, life: u64) -> Self {
        Self { id, life: Cell::new(life & LIFE), count: Cell::new(0) }
    }

    /// The replica whose counters it writes.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// Begins another life, in which no counter has been begun yet: some of those that are stored
    /// may be older than what the peers have seen.
    pub fn begin_life(&self) {
        self.life.set(self.life.get().wrapping_add(1) & LIFE);
    }

    /// Whether the epoch was begun in this life.
    #[must_use]
    pub fn began(&self, epoch: u64) -> bool {
        epoch >> LIFE_BITS != 0 && epoch & LIFE == self.life.get()
    }

    /// Takes notice of an epoch of this replica that somebody has seen: the next
    /// ones will be above it, unless it is [far](LEAP) above those so far.
    pub fn seen(&self, epoch: u64) {
        let (count, seen) = (self.count.get(), epoch >> LIFE_BITS);
        if seen.saturating_sub(count) <= LEAP {
            self.count.set(count.max(seen));
        }
    }

    /// Begins an epoch above `epoch`, the last one of a key, and above all that this
    /// life has begun of others.
    pub fn next_epoch(&self, epoch: u64) -> u64 {
        self.seen(epoch);
        let most = u64::MAX >> LIFE_BITS;
        self.count.set(self.count.get().saturating_add(1).min(most));
        let above = (epoch >> LIFE_BITS).saturating_add(1);
        self.count.get().max(above).min(most) << LIFE_BITS | self.life.get()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_ordered_as_their_names() {
        let long = ["a".repeat(MAX_ID), "a".repeat(MAX_ID - 1), format!("{}b", "a".repeat(30))];
        let short = ["a", "b", "ab", "a-", "a.b", "B", "0", "_", "us-east", "us-west", "us-east-1"];
        let names: Vec<&str> = long.iter().map(String::as_str).chain(short).collect();
        for one in &names {
            for other in &names {
                let [a, b] = [one, other].map(|name| ReplicaId::new(name.as_bytes()).unwrap());
                assert_eq!(a.cmp(&b), one.cmp(other), "{one} and {other}");
                assert_eq!(a == b, one == other, "{one} and {other}");
            }
        }
    }
}
