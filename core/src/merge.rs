//! Two states of one bucket become one: the built-in strategies.
//!
//! Every strategy is a join: it is commutative, associative and idempotent, so
//! that regions that have seen the same states agree, whatever the order and
//! however often they saw them.
//!
//! A state is a line that rises with the refill. Lines of the same policy are
//! compared *per share*: a bucket of weight w counts as w shares, each of which
//! refills at the same rate. So all the lines are parallel, and which of two is
//! lower does not depend on when one asks. (Numbers of different ages, or lines
//! of different slope, would be ordered one way now and the other way later.)
//!
//! A full bucket counts as if its line went on above the capacity. So a bucket
//! that has been full for long can stand above one of another weight that it
//! would stand below had it been written just now: between different weights,
//! `max` and `min` choose by the states as they were written.
//!
//! Between states of different policies the policy decides first: a pinned one
//! over one that is not, the later version of a pin (for a time or for good), one that a call's options
//! set over the default, and then the larger numbers. Only states of the winning
//! policy compete for the level.
//!
//! A debt is owed once, whatever the weight: `weighted` does not multiply it. It is paid faster at
//! a greater weight, so that two lines of which one is below 0 are not parallel, and are compared
//! at the later of their timestamps. Of three states that differ in weight and age, and of which
//! one is in debt, the order of merging can then decide by how much; all else is a join.

use crate::bucket::{Bucket, Weight, parts};
use crate::limits::SHARES;
use crate::policy::{Policy, StoredPolicy, Temporary};
use crate::wide;
use std::cmp::Ordering;

/// How two states become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// The state with the most tokens per share wins.
    Max,
    /// The state with the fewest tokens per share wins.
    Min,
    /// The fewest tokens per share, times the greatest weight.
    Weighted,
    /// The state with the newest timestamp wins; on a tie the one with fewer
    /// tokens.
    Lww,
}

impl Join {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Max, Self::Min, Self::Weighted, Self::Lww];

    /// The name in commands and configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Max => "max",
            Self::Min => "min",
            Self::Weighted => "weighted",
            Self::Lww => "lww",
        }
    }

    /// Finds a strategy by its name, in any case.
    #[must_use]
    pub fn by_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|s| name.eq_ignore_ascii_case(s.name().as_bytes()))
    }
}

/// A bucket as a merge sees it: every field resolved, at its own timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// The bucket at its timestamp.
    pub bucket: Bucket,
    /// What the `policy` field says.
    pub policy: Option<StoredPolicy>,
    /// The temporary pin over it, whose policy the bucket has.
    pub temporary: Option<Temporary>,
    /// When the state was written, in unix microseconds. Its bucket is later when
    /// what is configured has changed since, or is another thing for another key.
    written: u64,
}

impl State {
    /// A state written at the timestamp of its bucket.
    #[must_use]
    pub fn of(bucket: Bucket, policy: Option<StoredPolicy>) -> Self {
        Self { bucket, policy, temporary: None, written: bucket.timestamp() }
    }

    /// A state written at `written` (unix microseconds), whose bucket is cut down to whole
    /// shares.
    #[must_use]
    pub fn written_at(bucket: Bucket, policy: Option<StoredPolicy>, written: u64) -> Self {
        Self { bucket: in_shares(bucket), policy, temporary: None, written }
    }

    /// The same with a temporary pin, whose policy the bucket has.
    #[must_use]
    pub fn pinned_by(self, temporary: Option<Temporary>) -> Self {
        debug_assert!(
            temporary.is_none_or(|pin| pin.policy == self.bucket.policy()),
            "a bucket has the policy in force"
        );
        Self { temporary, ..self }
    }

    /// The same, beneath a temporary pin that has ended at `now` (unix microseconds), credited up
    /// to its end; `default` is what is configured for the key.
    #[must_use]
    pub fn past_pin(&self, now: u64, default: Policy) -> Self {
        match self.temporary {
            Some(ended) if ended.until <= now => {
                let mut bucket = self.bucket;
                bucket.advance(ended.until);
                bucket.switch(self.policy.map_or(default, |stored| stored.policy));
                Self { bucket, temporary: None, ..*self }
            }
            _ => *self,
        }
    }

    /// The same for a key for which `configured` is what is configured: a bucket without a policy
    /// of its own keeps its tokens of `now` (unix microseconds), cut at that capacity.
    #[must_use]
    pub fn under(&self, configured: Policy, now: u64) -> Self {
        let follows = self.policy.is_none() && self.temporary.is_none();
        if !follows || self.bucket.policy() == configured {
            return *self;
        }
        let mut bucket = self.bucket;
        bucket.advance(now);
        bucket.switch(configured);
        Self { bucket: in_shares(bucket), ..*self }
    }

    /// Whether both hold the same at every instant from `now` on, and say the
    /// same of policy and weight.
    #[must_use]
    pub fn same_from(&self, other: &Self, now: u64) -> bool {
        let at = |state: &Self| {
            let mut bucket = state.bucket;
            bucket.advance(now.max(self.bucket.timestamp()).max(other.bucket.timestamp()));
            bucket
        };
        (self.policy, self.temporary) == (other.policy, other.temporary) && at(self) == at(other)
    }

    /// Whether a merge by `strategy` at `now` (unix microseconds) need not write `other` over this state: it is
    /// the same line of the same policy and weight, so that every later merge
    /// goes the same way. To look the same now is not enough: of two full buckets
    /// one may have been full for longer.
    #[must_use]
    pub fn stands_for(&self, other: &Self, strategy: Join, now: u64) -> bool {
        let terms = |state: &Self| {
            let bucket = &state.bucket;
            (state.policy, state.temporary, bucket.policy(), bucket.weight())
        };
        let alike = terms(self) == terms(other);
        match strategy {
            Join::Lww => self == other,
            Join::Max | Join::Min => alike && self.by_level(other).is_eq(),
            // A state that lies between two full ones of the greatest weight makes
            // the bucket full as well.
            Join::Weighted => self.same_from(other, now),
        }
    }

    /// Joins two states.
    #[must_use]
    pub fn join(&self, other: &Self, strategy: Join) -> Self {
        let order = match strategy {
            Join::Lww => self.by_age(other),
            Join::Max => self.by_rank(other).then_with(|| self.by_level(other)),
            Join::Min => self.by_rank(other).then_with(|| self.by_level(other).reverse()),
            Join::Weighted => return self.weighted(other),
        };
        *self.latter(other, order)
    }

    /// The one that `order` puts last. Any fixed order will do for the rest, as long as it is
    /// total.
    fn latter<'a>(&'a self, other: &'a Self, order: Ordering) -> &'a Self {
        let order = order.then_with(|| self.by_rank(other)).then_with(|| self.by_fields(other));
        if order.is_lt() { other } else { self }
    }

    fn weighted(&self, other: &Self) -> Self {
        let weight = self.bucket.weight().max(other.bucket.weight());
        let alike = self.bucket.weight() == other.bucket.weight();
        let by_level = |a: &Self, b: &Self| a.by_rank(b).then_with(|| a.by_level(b).reverse());
        if alike || !(self.in_debt() || other.in_debt()) {
            return self.latter(other, by_level(self, other)).weighing(weight);
        }
        let later = self.bucket.timestamp().max(other.bucket.timestamp());
        let (a, b) = (self.advanced(later), other.advanced(later));
        let order = match a.in_debt() || b.in_debt() {
            true => a.by_rank(&b).then_with(|| level(&b.bucket).cmp(&level(&a.bucket))),
            false => by_level(&a, &b),
        };
        a.latter(&b, order).weighing(weight)
    }

    fn in_debt(&self) -> bool {
        self.bucket.tokens() < 0
    }

    fn advanced(&self, now: u64) -> Self {
        let mut state = *self;
        state.bucket.advance(now);
        state
    }

    /// The same line per share at another weight, cut at the capacity; in debt, the same debt.
    fn weighing(&self, weight: Weight) -> Self {
        let mut bucket = self.bucket;
        let (old, new) = (bucket.weight(), weight);
        if old == new {
            return *self;
        }
        if self.in_debt() {
            bucket.set_weight(weight);
        } else {
            let (share, _) = wide::div_rem_euclid(level(&bucket), i128::from(old.get()));
            let held = share.saturating_mul(i128::from(new.get()));
            bucket = with_level(bucket.policy(), weight, held, bucket.timestamp());
        }
        Self { bucket, ..*self }
    }

    fn by_rank(&self, other: &Self) -> Ordering {
        rank(self).cmp(&rank(other))
    }

    fn by_level(&self, other: &Self) -> Ordering {
        let (a, b) = (&self.bucket, &other.bucket);
        let (wa, wb) = (i128::from(a.weight().get()), i128::from(b.weight().get()));
        // Is a's level per share, brought to b's instant, above b's? Written as
        //   a/wa - b/wb  against  rate * (ta - tb),  both times wa * wb.
        let held = level(a).saturating_mul(wb).saturating_sub(level(b).saturating_mul(wa));
        let apart = i128::from(a.timestamp()).saturating_sub(i128::from(b.timestamp()));
        // The left side is below 10^37. Where the right side is cut at the limit
        // of its type it is above that, so the comparison stays right.
        let rate = wide::mul(a.policy().refill(), SHARES);
        let gained = apart.saturating_mul(wide::signed(rate)).saturating_mul(wa.saturating_mul(wb));
        held.cmp(&gained)
    }

    fn by_age(&self, other: &Self) -> Ordering {
        let (a, b) = (&self.bucket, &other.bucket);
        let fewer = (b.tokens(), b.remainder()).cmp(&(a.tokens(), a.remainder()));
        self.written.cmp(&other.written).then(fewer)
    }

    fn by_fields(&self, other: &Self) -> Ordering {
        let key = |state: &Self| {
            let bucket = &state.bucket;
            let pinned = state.temporary.map(|pin| (pin.until, pin.version));
            let stored = state.policy.map(|stored| (stored.pin, stored.policy.rank()));
            (
                bucket.weight(),
                bucket.timestamp(),
                bucket.tokens(),
                bucket.remainder(),
                state.written,
                pinned,
                stored,
            )
        };
        key(self).cmp(&key(other))
    }
}

/// Which policy wins.
fn rank(state: &State) -> (Option<u64>, bool, (u64, u64, u64)) {
    let pinned = state.policy.and_then(|stored| stored.pin);
    (
        pinned.max(state.temporary.map(|temporary| temporary.version)),
        state.policy.is_some() || state.temporary.is_some(),
        state.bucket.policy().rank(),
    )
}

/// What the bucket holds, in the unit of its remainder: at most 10^19 millionths
/// times 8 * 10^16 parts.
fn level(bucket: &Bucket) -> i128 {
    let parts = i128::from(parts(bucket.policy()).get());
    wide::times(i128::from(bucket.tokens()), parts).saturating_add(i128::from(bucket.remainder()))
}

/// The bucket that holds `level`, cut at its capacity.
fn with_level(policy: Policy, weight: Weight, level: i128, timestamp: u64) -> Bucket {
    let (micros, remainder) = wide::div_rem_euclid(level, i128::from(parts(policy).get()));
    let (tokens, remainder) = (wide::saturated_signed(micros), wide::saturated(remainder));
    Bucket::new(policy, weight, tokens, remainder, timestamp)
}

/// Cuts the level down to whole shares. It always is whole, unless somebody
/// changed the weight or the remainder by hand; then less than 1/2520 of the
/// smallest unit is dropped per weight.
fn in_shares(bucket: Bucket) -> Bucket {
    let held = level(&bucket);
    let (_, odd) = wide::div_rem_euclid(held, i128::from(bucket.weight().get()));
    if odd == 0 {
        return bucket;
    }
    let held = held.saturating_sub(odd);
    with_level(bucket.policy(), bucket.weight(), held, bucket.timestamp())
}
