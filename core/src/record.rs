//! A bucket as the fields of a hash: what is read, and what is to be written.

use crate::bucket::{Answer, Bucket, US_PER_MS, Weight};
use crate::codec;
use crate::debit::{Debits, Region, SharedBucket, Stretch, Terms, Version};
use crate::decimal::{self, DecimalError};
use crate::defaults::Defaults;
use crate::limits::MAX_LEAD_US;
use crate::merge::State;
use crate::policy::{Asked, Policy, PolicyError, PolicyTextError, StoredPolicy};
use crate::replica::ReplicaId;
use crate::timestamp::{self, TimestampError};
use crate::wide;
use std::fmt;

/// The fields of a bucket. Any other field of the hash is the user's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Decimal with up to 6 places: what the bucket held at `timestamp`.
    /// Missing: full.
    Tokens,
    /// Unix microseconds, or RFC 3339. Missing: now.
    Timestamp,
    /// 1..=10. Missing: 1.
    Weight,
    /// See [`StoredPolicy`]. Missing: the configured default.
    Policy,
    /// The part of a millionth of a token held besides `tokens`, as numerator
    /// over 2520 times the interval in microseconds. Missing: 0.
    Remainder,
    /// MessagePack: see [`Debits`]. Missing: the bucket is not shared.
    Debits,
    /// MessagePack: the latest state of each region, where a function folds them.
    Regions,
}

impl Field {
    /// The name in the hash.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Timestamp => "timestamp",
            Self::Weight => "userWeight",
            Self::Policy => "policy",
            Self::Remainder => "remainder",
            Self::Debits => "debits",
            Self::Regions => "regions",
        }
    }
}

/// What is wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldError {
    /// `tokens` is no amount.
    Tokens(DecimalError),
    /// `timestamp` is no instant.
    Timestamp(TimestampError),
    /// `timestamp` is more than 30 days ahead.
    Ahead,
    /// `userWeight` is not 1..=10.
    Weight,
    /// `policy` is no policy.
    Policy(PolicyTextError),
    /// `remainder` is no integer.
    Remainder,
    /// `debits` is nothing that this module wrote.
    Debits,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokens(error) => error.fmt(f),
            Self::Timestamp(error) => error.fmt(f),
            Self::Ahead => f.write_str("is more than 30 days ahead of the server's clock"),
            Self::Weight => f.write_str("is not an integer from 1 to 10"),
            Self::Policy(error) => error.fmt(f),
            Self::Remainder => f.write_str("is not an integer of 0 or more"),
            Self::Debits => f.write_str("is not the MessagePack of debit counters"),
        }
    }
}

/// What a hash says of its bucket; `None` is a missing field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Millionths of a token.
    pub tokens: Option<u64>,
    /// Unix microseconds.
    pub timestamp: Option<u64>,
    /// The refill's multiplier.
    pub weight: Option<Weight>,
    /// The policy, unless it is the default.
    pub policy: Option<StoredPolicy>,
    /// Over 2520 times the interval in microseconds.
    pub remainder: Option<u64>,
    /// What regions count, in a bucket that they share.
    pub debits: Option<Box<Debits>>,
    /// The latest state of each region, as [`codec::encode_regions`] writes it.
    pub regions: Option<Box<[u8]>>,
    /// Whether the hash has fields of the user's own besides.
    pub foreign: bool,
}

impl Record {
    /// Reads the text of one field into its place. `now` (unix microseconds)
    /// bounds the timestamp.
    ///
    /// # Errors
    /// What is wrong with the text; the record is then as it was.
    #[inline]
    pub fn read(&mut self, field: Field, text: &[u8], now: u64) -> Result<(), FieldError> {
        match field {
            Field::Tokens => {
                self.tokens = Some(decimal::parse(text).map_err(FieldError::Tokens)?);
            }
            Field::Timestamp => {
                let instant = timestamp::parse(text).map_err(FieldError::Timestamp)?;
                if instant > now.saturating_add(MAX_LEAD_US) {
                    return Err(FieldError::Ahead);
                }
                self.timestamp = Some(instant);
            }
            Field::Weight => {
                let weight = decimal::digits(text).ok().and_then(Weight::new);
                self.weight = Some(weight.ok_or(FieldError::Weight)?);
            }
            Field::Policy => {
                self.policy = Some(StoredPolicy::parse(text).map_err(FieldError::Policy)?);
            }
            Field::Remainder => {
                self.remainder = Some(decimal::digits(text).map_err(|_| FieldError::Remainder)?);
            }
            Field::Debits => self.read_debits(text, &mut BucketPool::default())?,
            Field::Regions => self.regions = Some(text.into()),
        }
        Ok(())
    }

    /// Reads the text of the field `debits`, with memory that was used before.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub fn read_debits(&mut self, text: &[u8], spare: &mut BucketPool) -> Result<(), FieldError> {
        let mut debits = spare.debits.take().unwrap_or_default();
        if !codec::decode_debits_into(text, &mut debits) {
            return Err(FieldError::Debits);
        }
        self.debits = Some(debits);
        Ok(())
    }

    /// How many fields it has of its own in the hash.
    #[must_use]
    pub fn fields(&self) -> usize {
        [
            self.tokens.is_some(),
            self.timestamp.is_some(),
            self.weight.is_some(),
            self.policy.is_some(),
            self.remainder.is_some(),
            self.debits.is_some(),
            self.regions.is_some(),
        ]
        .into_iter()
        .filter(|there| *there)
        .count()
    }

    /// The bucket at `timestamp`, before any credit.
    pub(crate) fn bucket_at_rest(&self, policy: Policy, timestamp: u64) -> Bucket {
        let weight = self.weight.unwrap_or(Weight::ONE);
        match self.tokens {
            None => Bucket::full(policy, weight, timestamp),
            Some(tokens) => {
                Bucket::new(policy, weight, tokens, self.remainder.unwrap_or(0), timestamp)
            }
        }
    }

    /// Whether something in it must outlive a full bucket: a pinned policy, a
    /// weight other than 1, or fields of the user's own.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.foreign
            || self.policy.is_some_and(|stored| stored.pin.is_some())
            || self.weight.is_some_and(|weight| weight != Weight::ONE)
    }

    /// The bucket at `now` under the policy it was left with, whatever a call
    /// may ask for: the stored one, else the default.
    #[inline(always)]
    #[must_use]
    pub fn bucket(&self, defaults: &Defaults, now: u64) -> Bucket {
        let timestamp = self.timestamp.unwrap_or(now);
        let policy = self.policy.map_or_else(|| defaults.at(timestamp), |stored| stored.policy);
        let mut bucket = self.bucket_at_rest(policy, timestamp);
        match self.policy {
            Some(_) => bucket.advance(now),
            None => defaults.advance(&mut bucket, now),
        }
        bucket
    }
}

/// Memory of a bucket that is done with, for the next one: making it for each call, or
/// moving what is in it from place to place, would cost more than what is computed.
#[derive(Debug, Default)]
pub struct BucketPool {
    opened: Option<Box<OpenBucket>>,
    debits: Option<Box<Debits>>,
    shared: Option<Box<SharedBucket>>,
}

impl BucketPool {
    /// Room for a bucket: its [record](OpenBucket::record_mut) comes first.
    pub fn take(&mut self) -> Box<OpenBucket> {
        self.opened.take().unwrap_or_else(|| OpenBucket::unread().into())
    }

    /// Keeps the memory of a bucket.
    pub fn keep(&mut self, mut opened: Box<OpenBucket>) {
        if let Kind::Shared(_) = opened.held
            && let Kind::Shared(mut shared) = std::mem::replace(&mut opened.held, UNREAD)
        {
            let record = opened.record.as_mut();
            if let Some(mut debits) = record.and_then(|record| record.debits.take()) {
                debits.accounts = shared.take_accounts();
                self.debits = Some(debits);
            }
            self.shared = Some(shared);
        }
        (opened.record, opened.regions) = (None, None);
        self.opened = Some(opened);
    }

    /// Room for a shared bucket, to be [set](SharedBucket::set).
    fn shared(&mut self) -> Box<SharedBucket> {
        let unset = || SharedBucket::full(Policy::DEFAULT, Weight::ONE, 0).into();
        self.shared.take().unwrap_or_else(unset)
    }
}

/// A bucket opened by a call: credited up to now under the policy it was left
/// with.
#[derive(Debug, Clone)]
pub struct OpenBucket {
    held: Kind,
    /// What its `policy` field has to say from now on.
    policy: Option<StoredPolicy>,
    /// What its `regions` field has to say from now on.
    regions: Option<Box<[u8]>>,
    /// Whole tokens taken since it was opened.
    admitted: u64,
    /// When it was opened, in unix microseconds; 0 when that is not known.
    now: u64,
    /// `None` for a missing key, which is a full bucket.
    record: Option<Record>,
}

/// Who may change the bucket.
#[derive(Debug, Clone)]
enum Kind {
    /// This server only.
    Local(Bucket),
    /// Other regions too.
    Shared(Box<SharedBucket>),
}

/// What is held before a record is read.
const UNREAD: Kind = Kind::Local(Bucket::DEFAULT);

impl OpenBucket {
    fn of(held: Kind, policy: Option<StoredPolicy>, record: Option<Record>) -> Self {
        let regions = record.as_ref().and_then(|record| record.regions.clone());
        Self { held, policy, regions, admitted: 0, now: 0, record }
    }

    /// Of no record yet.
    fn unread() -> Self {
        Self::of(UNREAD, None, None)
    }

    /// Opens a bucket at `now` (unix microseconds) as it was left. A bucket with
    /// debits is [shared](Self::shared) without anybody else.
    #[must_use]
    pub fn new(record: Option<Record>, defaults: &Defaults, now: u64) -> Self {
        if record.as_ref().is_some_and(|record| record.debits.is_some()) {
            return Self::shared(record, defaults, &Region::default(), now);
        }
        let mut opened = Self { record, ..Self::unread() };
        opened.begin(defaults, now);
        opened
    }

    /// Opens a bucket that regions share.
    #[must_use]
    pub fn shared(record: Option<Record>, defaults: &Defaults, region: &Region, now: u64) -> Self {
        let mut opened = Self { record, ..Self::unread() };
        opened.begin_shared(defaults, region, now, &mut BucketPool::default());
        opened
    }

    /// The record, to be read in place before [`Self::begin`] or
    /// [`Self::begin_shared`]; `None` for a missing key.
    pub fn record_mut(&mut self) -> &mut Option<Record> {
        &mut self.record
    }

    /// [`Self::new`] of the record that was read in place, without debits.
    pub fn begin(&mut self, defaults: &Defaults, now: u64) {
        let now = defaults.clock(now);
        let (bucket, policy) = match &self.record {
            Some(stored) => (stored.bucket(defaults, now), stored.policy),
            None => (Bucket::full(defaults.current(), Weight::ONE, now), None),
        };
        self.held = Kind::Local(bucket);
        self.begin_with(policy, now);
    }

    /// [`Self::shared`] of the record that was read in place, with memory that was
    /// used before.
    pub fn begin_shared(
        &mut self,
        defaults: &Defaults,
        region: &Region,
        now: u64,
        spare: &mut BucketPool,
    ) {
        let now = defaults.clock(now);
        let mut bucket = spare.shared();
        let Some(stored) = &mut self.record else {
            let full = Bucket::full(defaults.current(), Weight::ONE, now);
            bucket.set(&full, &mut Debits::default());
            self.held = Kind::Shared(bucket);
            return self.begin_with(None, now);
        };
        let timestamp = stored.timestamp.unwrap_or(now);
        let policy = stored.policy.map_or_else(|| defaults.at(timestamp), |stored| stored.policy);
        let line = stored.bucket_at_rest(policy, timestamp);
        match &mut stored.debits {
            // The accounts go with the bucket; that they were stored stays.
            Some(debits) => bucket.set(&line, debits),
            None => bucket.set(&line, &mut Debits::default()),
        }
        match stored.policy {
            Some(_) => bucket.advance(now, &region.peers),
            None => defaults.advance_shared(&mut bucket, now, &region.peers),
        }
        let policy = stored.policy;
        self.held = Kind::Shared(bucket);
        self.begin_with(policy, now);
    }

    fn begin_with(&mut self, policy: Option<StoredPolicy>, now: u64) {
        (self.policy, self.now) = (policy, now);
        self.regions = self.record.as_ref().and_then(|record| record.regions.clone());
        self.admitted = 0;
    }

    /// A bucket that a merge has put in the place of `record`.
    #[must_use]
    pub fn merged(record: Option<Record>, state: &State) -> Self {
        let held = match record.as_ref().and_then(|record| record.debits.clone()) {
            None => Kind::Local(state.bucket),
            // Other strategies know tokens only: what was counted stays counted.
            Some(debits) => {
                let debits = Debits { debt: 0, fraction: 0, ..*debits };
                Kind::Shared(SharedBucket::new(&state.bucket, debits).into())
            }
        };
        Self::of(held, state.policy, record)
    }

    /// Notes the bucket as it is now as the state of region `id`.
    pub fn record_as(&mut self, id: ReplicaId) {
        // What cannot be read is begun anew.
        let mut regions =
            self.regions.as_deref().and_then(codec::decode_regions).unwrap_or_default();
        regions.insert(id, State::of(self.bucket(), self.policy));
        self.set_regions(&regions);
    }

    /// The state noted for region `id`.
    #[must_use]
    pub fn state_of(&self, id: ReplicaId) -> Option<State> {
        self.regions.as_deref().and_then(codec::decode_regions)?.get(&id).copied()
    }

    /// Notes the states of all regions.
    pub fn set_regions(&mut self, regions: &codec::RegionStates) {
        self.regions = Some(codec::encode_regions(regions).into());
    }

    /// The bucket as its fields hold it.
    #[must_use]
    pub fn bucket(&self) -> Bucket {
        match &self.held {
            Kind::Local(bucket) => *bucket,
            Kind::Shared(bucket) => bucket.bucket(),
        }
    }

    /// The bucket, when regions share it.
    #[must_use]
    pub fn as_shared(&self) -> Option<&SharedBucket> {
        match &self.held {
            Kind::Local(_) => None,
            Kind::Shared(bucket) => Some(bucket),
        }
    }

    /// [`Self::as_shared`], to be changed.
    pub fn as_shared_mut(&mut self) -> Option<&mut SharedBucket> {
        match &mut self.held {
            Kind::Local(_) => None,
            Kind::Shared(bucket) => Some(bucket),
        }
    }

    /// What its `policy` field has to say from now on.
    #[must_use]
    pub fn policy(&self) -> Option<StoredPolicy> {
        self.policy
    }

    /// Takes `tokens` whole tokens or nothing; with `partial`, what there is.
    pub fn take(&mut self, tokens: u64, partial: bool, now: u64, region: &Region) -> Answer {
        let answer = match &mut self.held {
            Kind::Local(bucket) => bucket.take(tokens, partial, now),
            Kind::Shared(bucket) => {
                bucket.take(region.writer.as_ref(), tokens, partial, now, region.peers.share())
            }
        };
        self.admitted = self.admitted.saturating_add(answer.taken);
        answer
    }

    /// Whole tokens taken since it was opened.
    #[must_use]
    pub fn admitted(&self) -> u64 {
        self.admitted
    }

    /// Gives back `tokens` whole tokens, cut at the capacity.
    pub fn give(&mut self, tokens: u64, now: u64, region: &Region) -> Answer {
        match &mut self.held {
            Kind::Local(bucket) => bucket.give(tokens, now),
            Kind::Shared(bucket) => {
                bucket.give(region.writer.as_ref(), tokens, now, region.peers.share())
            }
        }
    }

    /// Whole tokens that can be taken.
    #[must_use]
    pub fn remaining(&self, region: &Region) -> u64 {
        match &self.held {
            Kind::Local(bucket) => bucket.remaining(),
            Kind::Shared(bucket) => bucket.remaining(region.peers.share()),
        }
    }

    /// What a call that needs `tokens` of it answers when it is refused.
    #[must_use]
    pub fn refusal(&self, tokens: u64, now: u64, region: &Region) -> Answer {
        let share = region.peers.share();
        let (retry_after, answer) = match &self.held {
            Kind::Local(bucket) => (bucket.until(tokens, now), bucket.answer(0, now)),
            Kind::Shared(bucket) => {
                (bucket.until(tokens, now, share), bucket.answer(0, now, share))
            }
        };
        Answer { retry_after, ..answer }
    }

    /// Puts the policy in force: the pinned one, else the call's, else the
    /// default. Tokens are kept, cut at the new capacity; of a shared bucket, what
    /// is missing stays missing. A missing bucket is full whatever the capacity.
    ///
    /// # Errors
    /// When the call's options are out of bounds, even if a pin overrides them.
    pub fn ask(&mut self, asked: &Asked, default: Policy) -> Result<(), PolicyError> {
        let called = if asked.is_empty() { default } else { asked.over(default)? };
        if self.policy.is_some_and(|stored| stored.pin.is_some()) {
            return Ok(());
        }
        self.policy =
            Some(StoredPolicy { policy: called, pin: None }).filter(|_| !asked.is_empty());
        self.switch(called);
        Ok(())
    }

    /// Pins `policy`, one version after the present one.
    pub fn pin(&mut self, policy: Policy, region: &Region) {
        let present = self.policy.and_then(|stored| stored.pin);
        if let (Some(_), true) = (present, self.bucket().policy() == policy) {
            return;
        }
        let version = self.next_version(region);
        self.policy = Some(StoredPolicy { policy, pin: Some(version) });
        self.switch(policy);
    }

    /// Goes back to the default policy and weight 1.
    pub fn reset(&mut self, default: Policy, region: &Region) {
        let changed = self.policy.is_some() || self.bucket().weight() != Weight::ONE;
        if changed {
            self.next_version(region);
        }
        self.policy = None;
        self.weigh(Weight::ONE);
        self.switch(default);
    }

    /// Goes on with another weight.
    pub fn set_weight(&mut self, weight: Weight, region: &Region) {
        if self.bucket().weight() != weight {
            self.next_version(region);
            self.weigh(weight);
        }
    }

    /// What was set of it on purpose.
    #[must_use]
    pub fn terms(&self) -> Terms {
        let version = self.as_shared().map(SharedBucket::version).unwrap_or_default();
        Terms { version, stored: self.policy, weight: self.bucket().weight() }
    }

    /// Takes over what another region set on purpose, later than was done here.
    pub fn adopt(&mut self, terms: &Terms, default: Policy) {
        let pinned = |stored: Option<StoredPolicy>| stored.is_some_and(|s| s.pin.is_some());
        // A policy that calls bring is every region's own, unless the pin over it
        // was taken away.
        if pinned(terms.stored) || pinned(self.policy) {
            self.policy = terms.stored;
            self.switch(terms.stored.map_or(default, |stored| stored.policy));
        }
        self.weigh(terms.weight);
        if let Kind::Shared(bucket) = &mut self.held {
            bucket.set_version(terms.version);
        }
    }

    /// Begins a missing bucket as it is elsewhere.
    pub fn begin_as(&mut self, terms: &Terms, default: Policy) {
        self.policy = terms.stored;
        self.switch(terms.stored.map_or(default, |stored| stored.policy));
        self.adopt(terms, default);
    }

    /// Counts one change made on purpose, and returns its number.
    fn next_version(&mut self, region: &Region) -> u64 {
        let pin = self.policy.and_then(|stored| stored.pin).unwrap_or(0);
        match &mut self.held {
            Kind::Local(_) => pin.saturating_add(1),
            Kind::Shared(bucket) => {
                let number = bucket.version().number.max(pin).saturating_add(1);
                let origin = region.writer.as_ref().map(crate::replica::Writer::id);
                bucket.set_version(Version { number, origin });
                number
            }
        }
    }

    fn weigh(&mut self, weight: Weight) {
        match &mut self.held {
            Kind::Local(bucket) => bucket.set_weight(weight),
            Kind::Shared(bucket) => bucket.set_weight(weight),
        }
    }

    fn switch(&mut self, policy: Policy) {
        match (&mut self.held, &self.record) {
            (Kind::Local(bucket), Some(_)) => bucket.switch(policy),
            (Kind::Local(bucket), None) => {
                *bucket = Bucket::full(policy, bucket.weight(), bucket.timestamp());
            }
            (Kind::Shared(bucket), _) => bucket.switch(policy),
        }
    }

    /// The record as it was read; `None` for a missing key.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// Whether policy or weight of an existing bucket are not what is stored, or
    /// it has to refill and has no timestamp yet: without one it never would.
    #[must_use]
    pub fn terms_changed(&self) -> bool {
        let Some(record) = &self.record else {
            return false;
        };
        let (weight, full, version) = match &self.held {
            Kind::Local(bucket) => (bucket.weight(), bucket.is_full(), None),
            Kind::Shared(bucket) => (bucket.weight(), bucket.is_full(), Some(bucket.version())),
        };
        let known = record.debits.as_ref().map(|debits| debits.version).unwrap_or_default();
        (record.timestamp.is_none() && !full)
            || self.policy != record.policy
            || weight != record.weight.unwrap_or(Weight::ONE)
            || version.is_some_and(|version| version != known)
    }

    /// Whether the hash neither has nor needs more fields of ours than `tokens`,
    /// `timestamp` and `debits`.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let (weight, remainder) = match &self.held {
            Kind::Local(bucket) => (bucket.weight(), bucket.remainder()),
            Kind::Shared(bucket) => (bucket.weight(), 0),
        };
        let was_plain = |record: &Record| {
            record.policy.is_none()
                && record.weight.is_none()
                && record.remainder.is_none()
                && record.regions.is_none()
        };
        self.policy.is_none()
            && weight == Weight::ONE
            && remainder == 0
            && self.regions.is_none()
            && self.record.as_ref().is_none_or(was_plain)
    }

    /// See [`Record::is_kept`].
    fn is_kept(&self, weight: Weight, foreign: bool) -> bool {
        let pinned = self.policy.is_some_and(|stored| stored.pin.is_some());
        foreign || pinned || weight != Weight::ONE
    }

    /// Whether the key's expiry has to be looked at when the bucket is written as it is
    /// now; notes that it is. `foreign` says that the hash has fields of the user's own.
    ///
    /// A shared bucket that is nearly full need not be looked after with each take:
    /// whoever looked earlier in the same [`Stretch`] left an expiry at which it will
    /// have been full for long. Whatever is written by hand meanwhile, it is full before
    /// it expires, and who asks for more than is [nearly](SOON_US) full looks again. What
    /// was done to the expiry itself by hand is seen in the next stretch, or by the walk
    /// over all shared buckets; where none comes by, this is not to be asked.
    pub fn looks_at_expiry(&mut self, foreign: bool, awaited: bool) -> bool {
        let Kind::Shared(bucket) = &self.held else {
            return true;
        };
        let kept = awaited || self.is_kept(bucket.weight(), foreign);
        // In the future only after the clock stepped back, or written by hand.
        let timely = bucket.timestamp() <= self.now;
        let now = match timely && bucket.is_full_within(SOON_US) && !kept {
            true => Stretch::of(bucket.timestamp()),
            false => Stretch::default(),
        };
        let looks = now == Stretch::default() || now != bucket.looked();
        if let Some(bucket) = self.as_shared_mut() {
            bucket.set_looked(now);
        }
        looks
    }

    /// Whether the key may go on expiring `at` (unix milliseconds), as
    /// [`Record::expiry`] would find in more steps; `false` when that has to be asked.
    /// `foreign` says that the hash has fields of the user's own.
    #[must_use]
    pub fn expiry_may_stay(&self, at: u64, foreign: bool, awaited: bool) -> bool {
        let (weight, timestamp, wait, lingers) = match &self.held {
            Kind::Local(bucket) => {
                let lingers = self.regions.is_some();
                (bucket.weight(), bucket.timestamp(), bucket.us_until_full(), lingers)
            }
            Kind::Shared(bucket) => {
                (bucket.weight(), bucket.timestamp(), bucket.us_until_full(), true)
            }
        };
        if self.is_kept(weight, foreign) || (lingers && awaited) {
            return false;
        }
        let wait = wait.and_then(|us| u64::try_from(us).ok());
        let wait = wait.and_then(|us| us.checked_add(if lingers { LINGER_US } else { 0 }));
        let ahead = at.checked_mul(US_PER_MS.get()).and_then(|us| us.checked_sub(timestamp));
        match (wait, ahead) {
            // Not beyond where it would be set.
            (Some(wait), Some(ahead)) => ahead
                .checked_sub(wait)
                .is_some_and(|more| more <= (wait / 2).saturating_add(EXPIRY_SLACK_US)),
            _ => false,
        }
    }

    /// The record to write for the bucket as it is now.
    ///
    /// The `remainder` field appears with the first remainder and then stays, so
    /// that it need not be deleted again; in a shared bucket it is not used. A
    /// weight of 1 is written only where the field is there already. The debits
    /// are [written](codec::encode_debits) from the shared bucket itself.
    #[must_use]
    pub fn to_record(&self) -> Record {
        let unwritten = Record::default();
        let stored = self.record.as_ref().unwrap_or(&unwritten);
        let bucket = self.bucket();
        let weight = bucket.weight();
        let has_remainder = stored.remainder.is_some() && self.as_shared().is_none();
        Record {
            tokens: Some(bucket.tokens()),
            timestamp: Some(bucket.timestamp()),
            weight: Some(weight).filter(|w| *w != Weight::ONE || stored.weight.is_some()),
            policy: self.policy,
            remainder: Some(bucket.remainder()).filter(|r| *r != 0 || has_remainder),
            debits: None,
            regions: self.regions.clone(),
            foreign: stored.foreign,
        }
    }
}

/// When a key may expire. It must not before its bucket is full, since a missing
/// bucket is a full one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// Something in it has to be kept, or it never fills.
    Never,
    /// From `earliest` on, in unix milliseconds; `set` is a good choice when the
    /// present expiry is not between `earliest` and `latest`.
    At {
        /// The bucket is full.
        earliest: u64,
        /// Not so late that idle buckets pile up.
        latest: u64,
        /// Later than `earliest`, so that the next takes need not move it.
        set: u64,
    },
}

impl Expiry {
    /// Where a key's present expiry has to be moved to, in unix milliseconds, or
    /// `Some(None)` to nowhere; `None` when it may stay.
    #[must_use]
    pub fn move_from(self, present: Option<u64>) -> Option<Option<u64>> {
        match (self, present) {
            (Self::Never, None) => None,
            (Self::Never, Some(_)) => Some(None),
            (Self::At { earliest, latest, .. }, Some(at)) if (earliest..=latest).contains(&at) => {
                None
            }
            (Self::At { set, .. }, _) => Some(Some(set)),
        }
    }
}

/// Latest expiry that is written, in unix milliseconds.
const MAX_EXPIRY_MS: u64 = 1 << 62;

/// What is added to the time until full, besides half of it.
const EXPIRY_SLACK_US: u64 = 2_000_000;

/// How much longer a bucket is kept that regions share, when its expiry is looked at.
const LINGER_US: u64 = 50_000_000;

/// How much longer it is kept in any case: until then the regions know its debits, or
/// it has been seen that they do not.
pub const LEAST_LINGER_US: u64 = LINGER_US - Stretch::US - SOON_US;

/// How soon a shared bucket must be full for a second look at its expiry to be saved.
const SOON_US: u64 = 10_000_000;

impl Record {
    /// When the key of this record, as which `opened` is to be written, may
    /// expire. `awaited` says that some region may not know its debits yet.
    #[must_use]
    pub fn expiry(&self, opened: &OpenBucket, awaited: bool) -> Expiry {
        if self.is_kept() {
            return Expiry::Never;
        }
        let bucket = opened.bucket();
        let wait = opened.as_shared().map_or(bucket.us_until_full(), SharedBucket::us_until_full);
        let whole = bucket.us_from_empty();
        let (wait, whole) = match opened.as_shared().is_some() || self.regions.is_some() {
            false => (wait, whole),
            true if awaited => return Expiry::Never,
            true => {
                let linger = |us: Option<u128>| us.map(|us| us.saturating_add(LINGER_US.into()));
                (linger(wait), linger(whole))
            }
        };
        match (wait, whole) {
            (Some(wait), Some(whole)) => Self::expiry_in(bucket.timestamp(), wait, whole),
            _ if bucket.is_full() => {
                let wait = wait.unwrap_or(0);
                Self::expiry_in(bucket.timestamp(), wait, wait)
            }
            _ => Expiry::Never,
        }
    }

    fn expiry_in(timestamp: u64, wait: u128, whole: u128) -> Expiry {
        let at = |us: u128| {
            let ms = wide::div_ceil(us.saturating_add(u128::from(timestamp)), US_PER_MS);
            u64::try_from(ms).ok().filter(|ms| *ms <= MAX_EXPIRY_MS)
        };
        let slack = |us: u128| wait.saturating_add(us / 2).saturating_add(EXPIRY_SLACK_US.into());
        // `set` grows with the wait, `latest` with the longest wait there is: so
        // what was set once stays good while the bucket refills.
        let latest = slack(whole.max(wait)).saturating_add(EXPIRY_SLACK_US.into());
        match (at(wait), at(slack(wait))) {
            (Some(earliest), Some(set)) => {
                Expiry::At { earliest, latest: at(latest).unwrap_or(u64::MAX), set }
            }
            _ => Expiry::Never,
        }
    }
}
