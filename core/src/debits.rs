//! What regions count of a bucket, and what the field `debits` keeps of it.
//!
//! It is a PN-counter with writer epochs, read through a leaky bucket: for every replica a pair of
//! growing [counters](Counter), spent and refunded, which [join](Counter::join) by their maximum
//! within an epoch and by the later epoch between two. What each region makes of what they gain is
//! the level of a leaky bucket on its own clock: see [`shared`](crate::shared).

use crate::bucket::Weight;
use crate::membership::Membership;
use crate::policy::{StoredPolicy, Temporary};
use crate::replica::{ReplicaId, Writer};
use crate::wide;
use std::cmp::Ordering;

/// The counters of one replica. Only the replica itself increases them; of two
/// states the larger epoch wins, and within an epoch the larger of each counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counter {
    /// See [`Writer`]; 0 for no counter.
    pub epoch: u64,
    /// Millionths of a token taken in this epoch.
    pub spent: u64,
    /// Millionths of a token given back in this epoch.
    pub refunded: u64,
}

impl Counter {
    /// The later of two states of one counter.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        match self.epoch.cmp(&other.epoch) {
            Ordering::Less => other,
            Ordering::Greater => self,
            Ordering::Equal => Self {
                epoch: self.epoch,
                spent: self.spent.max(other.spent),
                refunded: self.refunded.max(other.refunded),
            },
        }
    }

    /// What `newer` says beyond this: millionths spent, and refunded.
    #[must_use]
    pub fn gain(self, newer: Self) -> (u64, u64) {
        match newer.epoch.cmp(&self.epoch) {
            Ordering::Greater => (newer.spent, newer.refunded),
            Ordering::Less => (0, 0),
            Ordering::Equal => (
                newer.spent.saturating_sub(self.spent),
                newer.refunded.saturating_sub(self.refunded),
            ),
        }
    }
}

/// What has happened here since a peer's previous complete round, in the unit of
/// the level. Negative when more than that has been used up since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slack {
    /// Refill that a full bucket let go to waste.
    pub overflow: i128,
    /// Refill that the partition policy has withheld.
    pub withheld: i128,
}

/// A replica as one bucket knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub id: ReplicaId,
    /// Its counters.
    pub counter: Counter,
    /// Since its previous round; `None` before the first, and for ourselves.
    pub slack: Option<Slack>,
}

impl Account {
    /// One to be filled in.
    pub(crate) const BLANK: Self = Self {
        id: ReplicaId::ANY,
        counter: Counter { epoch: 0, spent: 0, refunded: 0 },
        slack: None,
    };
}

/// When the policy and weight were last set on purpose, and where: the later one
/// wins everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Version {
    /// Counts the changes; 0 for never.
    pub number: u64,
    /// Who made the change.
    pub origin: Option<ReplicaId>,
}

/// The [greatest number](crate::limits::MAX_VERSION) of a change made on purpose has been used: no
/// further one can be told from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastVersion;

/// What the `debits` field of a bucket holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Debits {
    /// Of policy and weight.
    pub version: Version,
    /// The part of a millionth held besides `tokens`, as numerator
    /// over 1000 times the interval in microseconds.
    pub fraction: u64,
    /// Of which key it is: see [`home`]. Counters that came with a hash from another key
    /// or database are not of this bucket.
    pub home: u32,
    /// By name, each once.
    pub accounts: Vec<Account>,
}

impl Debits {
    /// Whether there is anything in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// This region among the others: who writes here, and who else there is.
#[derive(Debug, Clone, Default)]
pub struct Region {
    /// Counts what is taken here; `None` where nothing is counted.
    pub writer: Option<Writer>,
    /// The other regions.
    pub peers: Membership,
}

/// What was set on purpose of a bucket: policy and weight, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Which change they are.
    pub version: Version,
    /// What the `policy` field says.
    pub stored: Option<StoredPolicy>,
    /// The pin over it that ends by itself.
    pub temporary: Option<Temporary>,
    /// The weight.
    pub weight: Weight,
}

impl Terms {
    /// Whether `other` is to be taken over: it is the later change. Of two
    /// regions that never changed anything the greater weight wins, and each
    /// keeps the policy that its own calls bring.
    #[must_use]
    pub fn yields_to(&self, other: &Self) -> bool {
        let later = other.rank().cmp(&self.rank());
        later.then_with(|| by_temporary(other.temporary, self.temporary)).is_gt()
    }

    /// Without the temporary pin: that may have ended here, and not there.
    fn rank(&self) -> impl Ord + use<> {
        let pinned = self.stored.filter(|stored| stored.is_pinned());
        // A bucket pinned before it was shared has no other version.
        let pins = [pinned.and_then(|stored| stored.pin), self.temporary.map(|pin| pin.version)];
        let number = pins.into_iter().flatten().fold(self.version.number, u64::max);
        let numbers = pinned.map(|stored| (stored.policy.rank(), stored.pin));
        (number, self.version.origin, numbers, self.weight)
    }
}

/// Which of two temporary pins wins under terms that are the same else: a region that has lost its
/// latest changes gives their numbers again. One of the same policy is the same one, whose end each
/// region fixes for itself; and where there is none it has ended.
fn by_temporary(a: Option<Temporary>, b: Option<Temporary>) -> Ordering {
    let rank = |pin: Temporary| (pin.version, pin.policy.rank());
    match (a, b) {
        (Some(a), Some(b)) => rank(a).cmp(&rank(b)),
        _ => Ordering::Equal,
    }
}

/// What tells one key from another in [`Debits::home`]: a hash of 32 bits over the number of the
/// database, however it is told from others, the name and its length. It is stored, so it must stay
/// the same. Eight bytes at a time are multiplied and the product is folded: going by single bytes
/// would take longer than all else that opens a bucket.
#[must_use]
pub fn home(database: u64, key: &[u8]) -> u32 {
    /// The fraction of the golden ratio.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let fold = |hash: u64, word: [u8; 8]| {
        let product = wide::mul(hash ^ u64::from_le_bytes(word), FACTOR);
        (product ^ (product >> 64)) as u64
    };
    let (words, rest) = key.as_chunks();
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    // Few names have 4 GiB; of those that do, the length counts less.
    let start = (key.len() as u64).rotate_left(32) ^ database ^ FACTOR;
    let hash = words.iter().copied().chain([last]).fold(start, fold);
    (hash ^ (hash >> 32)) as u32
}
