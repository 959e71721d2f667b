//! A bucket in use: opened from its record, changed, and planned to be written.
//!
//! Everything that is decided about one bucket is decided here and in what this calls: what a
//! call gets, what a state of another region changes, which fields are written, when the key
//! expires, and whether other regions are told. Whoever stores buckets reads fields, applies the
//! [`Plan`] and does no more.

use crate::bucket::{Answer, Bucket, Demand, US_PER_MS, Wait, Weight};
use crate::codec::{self, DebitsText, RegionStates};
use crate::configured::ConfiguredFor;
use crate::debits::{Debits, LastVersion, Region, Terms, Version};
use crate::error::Internal;
use crate::expiry::Expiry;
use crate::limits::{MAX_REPLICAS, MAX_VERSION, MICRO};
use crate::merge::State;
use crate::plan::{Change, Changes, Note, Plan, SyncMode};
use crate::policy::{Policy, StoredPolicy, Temporary};
use crate::record::Record;
use crate::replica::{ReplicaId, Writer};
use crate::shared::{Remote, SharedBucket};

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
        if let Kind::Shared(_) = opened.kind
            && let Kind::Shared(mut shared) = std::mem::replace(&mut opened.kind, UNREAD)
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

    /// Room for [debits](Record::read_debits).
    pub fn debits(&mut self) -> Box<Debits> {
        self.debits.take().unwrap_or_default()
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
    kind: Kind,
    /// What its `policy` field has to say from now on.
    policy: Option<StoredPolicy>,
    /// The temporary pin that is in force: what its `temporary` field has to say from now on.
    temporary: Option<Temporary>,
    /// What its `regions` field has to say from now on.
    regions: Option<Box<RegionStates>>,
    /// Whole tokens taken since it was opened.
    admitted: u64,
    /// When it was opened, in unix microseconds.
    now: u64,
    /// Nothing is known of it yet.
    fresh: bool,
    /// The policy without one of its own: that of a rule, or the default.
    configured: Policy,
    /// Whether that is a rule's.
    is_ruled: bool,
    /// The module had given its key no expiry, since it did not refill.
    was_bare: bool,
    /// It is what it is by states that were received, and not by what was done here.
    received: bool,
    /// Other regions are to be told of that all the same.
    rebroadcast: bool,
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

impl Kind {
    /// See [`Bucket::until`].
    fn until(&self, tokens: u64, now: u64, share: u16) -> Wait {
        match self {
            Self::Local(bucket) => bucket.until(tokens, now),
            Self::Shared(bucket) => bucket.until(tokens, now, share),
        }
    }

    /// See [`Bucket::until_bookable`].
    fn until_bookable(&self, tokens: u64, now: u64, share: u16) -> Wait {
        match self {
            Self::Local(bucket) => bucket.until_bookable(tokens, now),
            Self::Shared(bucket) => bucket.until_bookable(tokens, now, share),
        }
    }

    /// See [`Bucket::answer`].
    fn answer(&self, taken: u64, now: u64, share: u16) -> Answer {
        match self {
            Self::Local(bucket) => bucket.answer(taken, now),
            Self::Shared(bucket) => bucket.answer(taken, now, share),
        }
    }
}

/// What is held before a record is read.
const UNREAD: Kind = Kind::Local(Bucket::DEFAULT);

/// What came of a state that was [received](OpenBucket::receive).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Received {
    /// The bucket is another one now, and has to be written. Time alone is no change.
    pub changed: bool,
    /// Whether it has changed or not, the other regions have to be told what it is now.
    pub rebroadcast: bool,
}

/// Where a policy comes from, the first that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicySource {
    /// It is pinned.
    Pin,
    /// The bucket's own: an earlier call brought it.
    Bucket,
    /// A rule of the configuration fits its key.
    Rule,
    /// The configured default.
    Default,
}

/// Why a state is not taken in, or a change not written. Nothing of it is then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The hash has no field of a bucket: it is somebody else's.
    Foreign,
    /// The bucket would know more replicas than it may.
    TooManyReplicas,
    /// It counts further for this region than any life of it can have.
    Unbelievable,
    /// What cannot be.
    Internal(Internal),
}

impl From<Internal> for Refusal {
    fn from(what: Internal) -> Self {
        Self::Internal(what)
    }
}

impl OpenBucket {
    fn of(kind: Kind, policy: Option<StoredPolicy>, record: Option<Record>, now: u64) -> Self {
        let regions = record.as_ref().and_then(|record| record.regions.clone());
        Self {
            kind,
            policy,
            temporary: None,
            regions,
            admitted: 0,
            now,
            fresh: record.is_none(),
            configured: Policy::DEFAULT,
            is_ruled: false,
            was_bare: false,
            received: false,
            rebroadcast: false,
            record,
        }
    }

    /// Of no record yet.
    fn unread() -> Self {
        Self::of(UNREAD, None, None, 0)
    }

    /// Opens a bucket at `now` (unix microseconds) as it was left. A bucket with
    /// debits is [shared](Self::shared) without anybody else.
    #[must_use]
    pub fn new(record: Option<Record>, configured: &ConfiguredFor<'_>, now: u64) -> Self {
        if record.as_ref().is_some_and(|record| record.debits.is_some()) {
            return Self::shared(record, configured, &Region::default(), now, None);
        }
        let mut opened = Self { record, ..Self::unread() };
        opened.begin(configured, now);
        opened
    }

    /// Opens a bucket that regions share; `home` as [`Debits::home`] has it, `None` for whatever
    /// that is.
    #[must_use]
    pub fn shared(
        record: Option<Record>,
        configured: &ConfiguredFor<'_>,
        region: &Region,
        now: u64,
        home: Option<u32>,
    ) -> Self {
        let mut opened = Self { record, ..Self::unread() };
        opened.begin_shared(configured, region, now, home, &mut BucketPool::default());
        opened
    }

    /// The record, to be read in place before [`Self::begin`] or
    /// [`Self::begin_shared`]; `None` for a missing key.
    pub fn record_mut(&mut self) -> &mut Option<Record> {
        &mut self.record
    }

    /// [`Self::new`] of the record that was read in place, without debits.
    pub fn begin(&mut self, configured: &ConfiguredFor<'_>, now: u64) {
        let now = configured.clock(now);
        let (bucket, policy) = match &self.record {
            Some(stored) => (stored.bucket(configured, now), stored.policy),
            None => (Bucket::full(configured.current(), Weight::ONE, now), None),
        };
        self.kind = Kind::Local(bucket);
        self.begin_with(policy, configured, now);
    }

    /// [`Self::shared`] of the record that was read in place, with memory that was
    /// used before.
    pub fn begin_shared(
        &mut self,
        configured: &ConfiguredFor<'_>,
        region: &Region,
        now: u64,
        home: Option<u32>,
        pool: &mut BucketPool,
    ) {
        let now = configured.clock(now);
        let mut bucket = pool.shared();
        let policy = match &mut self.record {
            None => {
                let full = Bucket::full(configured.current(), Weight::ONE, now);
                bucket.set(&full, &mut Debits::default());
                None
            }
            Some(stored) => {
                let timestamp = stored.timestamp.unwrap_or(now);
                let line =
                    stored.bucket_at_rest(stored.policy_at(configured, timestamp), timestamp);
                match &mut stored.debits {
                    // The accounts go with the bucket; that they were stored stays.
                    Some(debits) => bucket.set(&line, debits),
                    None => bucket.set(&line, &mut Debits::default()),
                }
                if let Some(temporary) = stored.temporary_at(timestamp) {
                    bucket.advance(now.min(temporary.until), &region.peers);
                    if stored.temporary_at(now).is_none() {
                        bucket.switch(stored.policy_beneath(configured, temporary.until));
                    }
                }
                match stored.policy {
                    _ if stored.temporary_at(now).is_some() => {}
                    Some(_) => bucket.advance(now, &region.peers),
                    None => configured.advance_shared(&mut bucket, now, &region.peers),
                }
                stored.policy
            }
        };
        if let Some(home) = home {
            bucket.settle_in(home);
        }
        // One laid before the bucket was shared, which outlives the field that says it.
        if let Some(temporary) = self.record.as_ref().and_then(|stored| stored.temporary) {
            bucket.raise_version(temporary.version);
        }
        self.kind = Kind::Shared(bucket);
        self.begin_with(policy, configured, now);
    }

    fn begin_with(
        &mut self,
        policy: Option<StoredPolicy>,
        configured: &ConfiguredFor<'_>,
        now: u64,
    ) {
        (self.policy, self.now) = (policy, now);
        (self.configured, self.is_ruled) = (configured.current(), configured.is_rule());
        self.was_bare = self.record.as_ref().is_some_and(|stored| stored.is_bare(configured, now));
        self.temporary = self.record.as_ref().and_then(|stored| stored.temporary_at(now));
        self.regions = self.record.as_ref().and_then(|record| record.regions.clone());
        (self.admitted, self.fresh) = (0, self.record.is_none());
        (self.received, self.rebroadcast) = (false, false);
    }

    /// A bucket that a merge has put in the place of `record` at `now` (unix microseconds). What
    /// peers send goes on to nobody: with `from_peers` nobody is told.
    #[must_use]
    pub fn merged(
        record: Option<Record>,
        state: &State,
        configured: &ConfiguredFor<'_>,
        from_peers: bool,
        now: u64,
    ) -> Self {
        let kind = match record.as_ref().and_then(|record| record.shared_at_rest(configured, now)) {
            None => Kind::Local(state.bucket),
            // Other strategies know tokens only: what was counted stays counted.
            Some(mut shared) => {
                shared.replace(&state.bucket);
                Kind::Shared(shared.into())
            }
        };
        let temporary = state.temporary;
        let was_bare = record.as_ref().is_some_and(|record| record.is_bare(configured, now));
        Self {
            received: from_peers,
            temporary,
            configured: configured.current(),
            is_ruled: configured.is_rule(),
            was_bare,
            ..Self::of(kind, state.policy, record, now)
        }
    }

    /// Notes the bucket as it is now as the state of region `id`, if there is room for it.
    fn record_as(&mut self, id: ReplicaId) -> Result<(), Refusal> {
        let state = State::of(self.bucket(), self.policy).pinned_by(self.temporary);
        let regions = self.regions.get_or_insert_default();
        if regions.len() >= MAX_REPLICAS && !regions.contains_key(&id) {
            return Err(Refusal::TooManyReplicas);
        }
        regions.insert(id, state);
        Ok(())
    }

    /// The state noted for region `id`.
    fn state_of(&self, id: ReplicaId) -> Option<State> {
        self.regions.as_ref()?.get(&id).copied()
    }

    /// Notes the states of all regions.
    pub fn set_regions(&mut self, regions: RegionStates) {
        self.regions = Some(regions.into());
    }

    /// The bucket as its fields hold it.
    #[must_use]
    pub fn bucket(&self) -> Bucket {
        match &self.kind {
            Kind::Local(bucket) => *bucket,
            Kind::Shared(bucket) => bucket.bucket(),
        }
    }

    /// The bucket, when regions share it.
    #[must_use]
    pub fn as_shared(&self) -> Option<&SharedBucket> {
        match &self.kind {
            Kind::Local(_) => None,
            Kind::Shared(bucket) => Some(bucket),
        }
    }

    /// [`Self::as_shared`], to be changed.
    fn as_shared_mut(&mut self) -> Option<&mut SharedBucket> {
        match &mut self.kind {
            Kind::Local(_) => None,
            Kind::Shared(bucket) => Some(bucket),
        }
    }

    /// What its `policy` field has to say from now on.
    #[must_use]
    pub fn policy(&self) -> Option<StoredPolicy> {
        self.policy
    }

    /// The temporary pin that is in force.
    #[must_use]
    pub fn temporary(&self) -> Option<Temporary> {
        self.temporary
    }

    /// Takes what is demanded, or nothing.
    ///
    /// # Errors
    /// Where it was not asked first whether there is [room to count](Self::can_count).
    pub fn take(&mut self, demand: Demand, now: u64, region: &Region) -> Result<Answer, Internal> {
        let answer = match &mut self.kind {
            Kind::Local(bucket) => bucket.take(demand, now),
            Kind::Shared(bucket) => {
                bucket.take(region.writer.as_ref(), demand, now, region.peers.share())?
            }
        };
        self.admitted = self.admitted.saturating_add(answer.taken);
        let needed = demand.needs_after(answer.taken);
        Ok(self.past_pin(answer, now, region, |bucket, share| bucket.until(needed, now, share)))
    }

    /// Books what was `used` where `reserved` whole tokens were taken before: gives the rest back,
    /// or takes what is missing, whatever there is, until as much as the capacity is owed.
    /// `taken` of the answer is what was taken or given back; `retry_after` the wait until what
    /// was not booked could be.
    ///
    /// # Errors
    /// As for [`Self::take`].
    pub fn settle(
        &mut self,
        reserved: u64,
        used: u64,
        now: u64,
        region: &Region,
    ) -> Result<Answer, Internal> {
        let Some(more) = used.checked_sub(reserved) else {
            return self.give(reserved.saturating_sub(used), now, region);
        };
        let share = region.peers.share();
        let booked = match &mut self.kind {
            Kind::Local(bucket) => {
                let booked = more.min(bucket.bookable());
                bucket.debit(booked);
                booked
            }
            Kind::Shared(bucket) => {
                let booked = more.min(bucket.bookable());
                bucket.debit(region.writer.as_ref(), booked.saturating_mul(MICRO))?;
                booked
            }
        };
        let rest = more.saturating_sub(booked);
        let retry_after = self.kind.until_bookable(rest, now, share);
        let answer = Answer { retry_after, ..self.kind.answer(booked, now, share) };
        Ok(self.past_pin(answer, now, region, |kind, share| kind.until_bookable(rest, now, share)))
    }

    /// Whether what is taken and given back here can be counted: not when the bucket knows too
    /// many other regions.
    #[must_use]
    pub fn can_count(&self, region: &Region) -> bool {
        self.as_shared().is_none_or(|bucket| bucket.can_count(region.writer.as_ref()))
    }

    /// Gives back `tokens` whole tokens, cut at the capacity.
    ///
    /// # Errors
    /// As for [`Self::take`].
    pub fn give(&mut self, tokens: u64, now: u64, region: &Region) -> Result<Answer, Internal> {
        let answer = match &mut self.kind {
            Kind::Local(bucket) => bucket.give(tokens, now),
            Kind::Shared(bucket) => {
                bucket.give(region.writer.as_ref(), tokens, now, region.peers.share())?
            }
        };
        Ok(self.past_pin(answer, now, region, |_, _| answer.retry_after))
    }

    /// Whole tokens that can be taken, rounded down; negative in debt.
    #[must_use]
    pub fn remaining(&self, region: &Region) -> i64 {
        match &self.kind {
            Kind::Local(bucket) => bucket.remaining(),
            Kind::Shared(bucket) => bucket.remaining(region.peers.share()),
        }
    }

    /// Whether a call that needs `tokens` of it is refused; one that needs none never is.
    #[must_use]
    pub fn lacks(&self, tokens: u64, region: &Region) -> bool {
        Demand::all(tokens).granted(self.remaining(region)).is_none()
    }

    /// What a call that needs `tokens` of it answers when it is refused.
    #[must_use]
    pub fn refusal(&self, tokens: u64, now: u64, region: &Region) -> Answer {
        let share = region.peers.share();
        let retry_after = self.kind.until(tokens, now, share);
        let answer = Answer { retry_after, ..self.kind.answer(0, now, share) };
        self.past_pin(answer, now, region, |kind, share| kind.until(tokens, now, share))
    }

    /// The same answer, with waits that go on beneath a temporary pin when that has ended; `retry`
    /// gives the wait there at a share of the limit.
    fn past_pin(
        &self,
        answer: Answer,
        now: u64,
        region: &Region,
        retry: impl FnOnce(&Kind, u16) -> Wait,
    ) -> Answer {
        let Some((until, after)) = self.after_pin(region) else {
            return answer;
        };
        let (share, lasts) = (region.peers.share(), until.saturating_sub(now));
        let end = Wait::Ms(lasts.div_ceil(US_PER_MS.get()));
        // At its end it pins no more.
        let ends_before = |wait: Wait| wait >= end;
        let (mut retry_after, mut reset_after) = (answer.retry_after, answer.reset_after);
        if ends_before(retry_after) {
            retry_after = retry(&after, share).max(end);
        }
        if ends_before(reset_after) {
            reset_after = after.answer(0, now, share).reset_after.max(end);
        }
        Answer { retry_after, reset_after, ..answer }
    }

    /// The end of the temporary pin that is in force, and what the bucket is then if nobody takes
    /// of it.
    fn after_pin(&self, region: &Region) -> Option<(u64, Kind)> {
        let until = self.temporary?.until;
        Some((until, self.kind_after(until, region)))
    }

    /// What the bucket is when the pin has ended at `until`.
    #[cold]
    fn kind_after(&self, until: u64, region: &Region) -> Kind {
        let mut after = self.kind.clone();
        match &mut after {
            Kind::Local(bucket) => {
                bucket.advance(until);
                bucket.switch(self.beneath());
            }
            Kind::Shared(bucket) => {
                bucket.advance(until, &region.peers);
                bucket.switch(self.beneath());
            }
        }
        after
    }

    /// Puts the policy in force: the pinned one, else the one the call brings, else that of a rule,
    /// else the bucket's own, else the default. Where no rule fits, the last two are what it was
    /// opened under; where one does, what an earlier call brought goes. Under a temporary pin,
    /// this is about what is beneath.
    ///
    /// Tokens are kept, cut at the new capacity, and so is what is owed. A missing bucket is full
    /// whatever the capacity.
    pub fn ask(&mut self, called: Option<Policy>) {
        let stored = called.map(|policy| StoredPolicy { policy, pin: None });
        let stays = stored.is_none() && !(self.is_ruled && self.policy.is_some());
        if stays || self.policy.is_some_and(StoredPolicy::is_pinned) {
            return;
        }
        self.policy = stored;
        if self.temporary.is_none() {
            self.switch(self.beneath());
        }
    }

    /// Where the policy in force comes from.
    #[must_use]
    pub fn source(&self) -> PolicySource {
        match self.policy {
            _ if self.temporary.is_some() => PolicySource::Pin,
            Some(StoredPolicy { pin: Some(_), .. }) => PolicySource::Pin,
            Some(StoredPolicy { pin: None, .. }) => PolicySource::Bucket,
            None if self.is_ruled => PolicySource::Rule,
            None => PolicySource::Default,
        }
    }

    /// The policy beneath a temporary pin, which holds when that has ended.
    #[must_use]
    pub fn beneath(&self) -> Policy {
        self.policy.map_or(self.configured, |stored| stored.policy)
    }

    /// The policy in force.
    fn in_force(&self) -> Policy {
        self.temporary.map_or_else(|| self.beneath(), |temporary| temporary.policy)
    }

    /// Pins `policy`, one version after the present one. It ends a temporary pin.
    ///
    /// # Errors
    /// When there is no version after that; nothing has changed then.
    pub fn pin(&mut self, policy: Policy, region: &Region) -> Result<(), LastVersion> {
        let same = |stored: StoredPolicy| stored.is_pinned() && stored.policy == policy;
        if self.temporary.is_none() && self.policy.is_some_and(same) {
            return Ok(());
        }
        let version = self.next_version(region)?;
        self.policy = Some(StoredPolicy { policy, pin: Some(version) });
        self.temporary = None;
        self.switch(policy);
        Ok(())
    }

    /// Pins `policy` for `ms` milliseconds over what is there. Each time is another version.
    ///
    /// # Errors
    /// As for [`Self::pin`].
    pub fn pin_for(&mut self, policy: Policy, ms: u64, region: &Region) -> Result<(), LastVersion> {
        let version = self.next_version(region)?;
        let until = self.now.saturating_add(ms.saturating_mul(US_PER_MS.get()));
        self.temporary = Some(Temporary { policy, until, version });
        self.switch(policy);
        Ok(())
    }

    /// How long the pin in force holds, in milliseconds, rounded up: -1 for good, 0 for none.
    #[must_use]
    pub fn pin_remaining_ms(&self) -> i64 {
        match (self.temporary, self.source()) {
            // At most 366 days.
            (Some(temporary), _) => temporary.remaining_ms(self.now).cast_signed(),
            (None, PolicySource::Pin) => -1,
            (None, PolicySource::Bucket | PolicySource::Rule | PolicySource::Default) => 0,
        }
    }

    /// Goes back to what is configured for the key, and weight 1.
    ///
    /// # Errors
    /// As for [`Self::pin`].
    pub fn reset(&mut self, region: &Region) -> Result<(), LastVersion> {
        let changed = self.policy.is_some()
            || self.temporary.is_some()
            || self.bucket().weight() != Weight::ONE;
        if changed {
            self.next_version(region)?;
        }
        (self.policy, self.temporary) = (None, None);
        self.weigh(Weight::ONE);
        self.switch(self.configured);
        Ok(())
    }

    /// Goes on with another weight.
    ///
    /// # Errors
    /// As for [`Self::pin`].
    pub fn set_weight(&mut self, weight: Weight, region: &Region) -> Result<(), LastVersion> {
        if self.bucket().weight() != weight {
            self.next_version(region)?;
            self.weigh(weight);
        }
        Ok(())
    }

    /// What was set of it on purpose.
    #[must_use]
    pub fn terms(&self) -> Terms {
        let version = self.as_shared().map(SharedBucket::version).unwrap_or_default();
        let (stored, temporary) = (self.policy, self.temporary);
        Terms { version, stored, temporary, weight: self.bucket().weight() }
    }

    /// Takes over what another region set on purpose, later than was done here.
    fn adopt(&mut self, terms: &Terms) {
        let pinned = |stored: Option<StoredPolicy>| stored.is_some_and(StoredPolicy::is_pinned);
        // A policy that calls bring is every region's own, unless the pin over it
        // was taken away.
        if pinned(terms.stored) || pinned(self.policy) {
            self.policy = terms.stored;
        }
        self.temporary = terms.temporary.filter(|temporary| temporary.until > self.now);
        self.switch(self.in_force());
        self.weigh(terms.weight);
        if let Kind::Shared(bucket) = &mut self.kind {
            bucket.set_version(terms.version);
            if let Some(temporary) = terms.temporary {
                bucket.raise_version(temporary.version);
            }
        }
    }

    /// Begins a missing bucket as it is elsewhere.
    fn begin_as(&mut self, terms: &Terms) {
        self.policy = terms.stored;
        self.adopt(terms);
    }

    /// Counts one change made on purpose, and returns its number.
    fn next_version(&mut self, region: &Region) -> Result<u64, LastVersion> {
        let last = self.record.as_ref().and_then(|record| record.temporary).or(self.temporary);
        let numbers = [
            self.policy.and_then(|stored| stored.pin),
            last.map(|temporary| temporary.version),
            self.as_shared().map(|bucket| bucket.version().number),
        ];
        let present = numbers.into_iter().flatten().max().unwrap_or(0);
        let number = present.checked_add(1).filter(|number| *number <= MAX_VERSION);
        let number = number.ok_or(LastVersion)?;
        if let Kind::Shared(bucket) = &mut self.kind {
            let origin = region.writer.as_ref().map(Writer::id);
            bucket.set_version(Version { number, origin });
        }
        Ok(number)
    }

    fn weigh(&mut self, weight: Weight) {
        match &mut self.kind {
            Kind::Local(bucket) => bucket.set_weight(weight),
            Kind::Shared(bucket) => bucket.set_weight(weight),
        }
    }

    fn switch(&mut self, policy: Policy) {
        match (&mut self.kind, &self.record) {
            (Kind::Local(bucket), Some(_)) => bucket.switch(policy),
            (Kind::Local(bucket), None) => {
                *bucket = Bucket::full(policy, bucket.weight(), bucket.timestamp());
            }
            (Kind::Shared(bucket), _) if self.fresh => bucket.begin(policy),
            (Kind::Shared(bucket), _) => bucket.switch(policy),
        }
    }

    /// The record as it was read; `None` for a missing key.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// Whether policy or weight of an existing bucket are not what is stored, or
    /// it has to refill and has no timestamp yet: without one it never would. Of a missing one,
    /// whether the call blocks it, which has to be remembered.
    #[must_use]
    pub fn terms_changed(&self) -> bool {
        let Some(record) = &self.record else {
            return self.is_blocked_by_call() || self.temporary.is_some();
        };
        let (weight, full, version) = match &self.kind {
            Kind::Local(bucket) => (bucket.weight(), bucket.is_full(), None),
            Kind::Shared(bucket) => (bucket.weight(), bucket.is_full(), Some(bucket.version())),
        };
        let mut known = record.debits.as_ref().map(|debits| debits.version).unwrap_or_default();
        // What follows from the field by itself is no change.
        known.number = known.number.max(record.temporary.map_or(0, |pin| pin.version));
        (record.timestamp.is_none() && !full)
            || self.policy != record.policy
            || self.temporary != record.temporary_at(self.now)
            || weight != record.weight.unwrap_or(Weight::ONE)
            || version.is_some_and(|version| version != known)
    }

    /// See [`Record::is_kept`].
    fn is_kept(&self, foreign: bool) -> bool {
        let pinned = self.policy.is_some_and(StoredPolicy::is_pinned);
        foreign || pinned || self.weight() != Weight::ONE
    }

    fn weight(&self) -> Weight {
        match &self.kind {
            Kind::Local(bucket) => bucket.weight(),
            Kind::Shared(bucket) => bucket.weight(),
        }
    }

    /// Whether the bucket is full, and so owes nothing to the other regions, and there is nothing
    /// else about it that they have to know.
    #[must_use]
    pub fn owes_nothing(&self) -> bool {
        let settled = match &self.kind {
            Kind::Local(bucket) => bucket.is_full(),
            Kind::Shared(bucket) => bucket.is_full() && bucket.version() == Version::default(),
        };
        settled && !self.is_kept(false) && self.temporary.is_none()
    }

    /// Merges what another region sent, or somebody merges in by hand.
    ///
    /// # Errors
    /// See [`Refusal`]; the bucket is then not to be written.
    pub fn receive(&mut self, remote: &Remote, region: &Region) -> Result<Received, Refusal> {
        let from = remote.from;
        if from.is_some() && self.record.as_ref().is_some_and(|record| !record.is_bucket()) {
            return Err(Refusal::Foreign);
        }
        let writer = region.writer.as_ref();
        let me = writer.map(Writer::id);
        let Some(local) = self.as_shared() else {
            return Err(Refusal::Internal(Internal::new("a bucket that counts no debits")));
        };
        if !local.believes(remote, me) {
            return Err(Refusal::Unbelievable);
        }
        if !local.has_room_for(remote, me) {
            return Err(Refusal::TooManyReplicas);
        }
        if self.fresh && from.is_some() && remote.owes_nothing() {
            // A full bucket is one that is missing.
            return Ok(Received::default());
        }
        let (had, fresh) = (self.terms(), self.fresh);
        let terms = remote.terms();
        let mut rebroadcast = from.is_none();
        if fresh {
            self.begin_as(&terms);
        } else if had.yields_to(&terms) {
            self.adopt(&terms);
            rebroadcast |= from.is_some_and(|from| region.peers.misses(from));
        }
        let Some(local) = self.as_shared_mut() else {
            return Err(Refusal::Internal(Internal::new("a bucket that counts no debits")));
        };
        let outcome = local.receive(fresh, remote, writer, &region.peers)?;
        rebroadcast |= outcome.rebroadcast;
        self.rebroadcast |= rebroadcast;
        (self.received, self.fresh) = (true, false);
        Ok(Received { changed: fresh || outcome.changed || had != self.terms(), rebroadcast })
    }

    /// Whether a policy that a call brought grants nothing.
    fn is_blocked_by_call(&self) -> bool {
        self.policy.is_some_and(StoredPolicy::blocks_for_a_time)
    }

    /// When the key may expire, with the bucket as it is now. `foreign` says that the hash has
    /// fields of the user's own.
    #[must_use]
    pub fn expiry(&self, foreign: bool, region: &Region) -> Expiry {
        let beneath = self.beneath();
        if beneath.refill() == 0 && (self.was_bare || !self.is_blocked_by_call()) {
            return if self.was_bare { Expiry::Own } else { Expiry::Never };
        }
        if self.is_kept(foreign) {
            return Expiry::Never;
        }
        let share = region.peers.share();
        let after_pin = self.after_pin(region);
        let (timestamp, wait) = match after_pin.as_ref().map_or(&self.kind, |(_, after)| after) {
            Kind::Local(bucket) => (bucket.timestamp(), bucket.us_until_full()),
            Kind::Shared(bucket) => (bucket.timestamp(), bucket.us_until_full(share)),
        };
        // What holds nothing is full as soon as it owes nothing, and is to block for an interval.
        let interval = beneath.interval_us().get();
        // The state of a region that a function folds is told like counters are.
        let lingers = self.as_shared().is_some() || self.regions.is_some();
        if self.is_blocked_by_call() && wait.is_some_and(|us| us <= interval.into()) {
            return match lingers {
                true => Expiry::new(timestamp, Some(interval.into()), true, self.now),
                false => Expiry::exactly(timestamp.saturating_add(interval)),
            };
        }
        Expiry::new(timestamp, wait, lingers, self.now)
    }

    /// See [`Expiry::mend_from`].
    #[must_use]
    pub fn mended_expiry(
        &self,
        present: Option<u64>,
        foreign: bool,
        region: &Region,
    ) -> Option<u64> {
        let full = match &self.kind {
            Kind::Local(bucket) => bucket.is_full(),
            Kind::Shared(bucket) => bucket.is_full(),
        };
        let full = full && self.temporary.is_none();
        self.expiry(foreign, region).mend_from(present, full)
    }

    /// What has to be done for the bucket to be kept as it is now. `mode` is how its key takes
    /// part in region sync. The text of the field `debits`, if it is shared, goes to `text`.
    ///
    /// # Errors
    /// Where a function folds it and it knows too many other regions already; or when it cannot be
    /// written, which cannot be.
    pub fn plan(
        &mut self,
        mode: SyncMode,
        region: &Region,
        text: &mut DebitsText,
    ) -> Result<Plan, Refusal> {
        if let (SyncMode::Folded, true, Some(writer)) = (mode, self.is_news(), &region.writer) {
            self.record_as(writer.id())?;
        }
        let bucket = match &self.kind {
            Kind::Local(bucket) => *bucket,
            Kind::Shared(bucket) => codec::encode_debits(bucket, text),
        };
        let told = if self.is_news() { mode } else { SyncMode::None };
        let old = self.record.as_ref().and_then(|record| record.remainder);
        Ok(Plan {
            bucket,
            is_shared: self.as_shared().is_some(),
            remainder: Change::between(old, self.stored_remainder(bucket)),
            changes: self.changes(bucket)?,
            told,
            admitted: self.admitted,
        })
    }

    /// What other regions have to be told of the bucket, by its plan.
    // Inline, or the note is copied twice.
    #[inline(always)]
    #[must_use]
    pub fn told(&self, plan: &Plan, region: &Region) -> Option<Note> {
        self.note_of(plan.bucket, plan.told, region)
    }

    /// What other regions have to be told of the bucket, as [`Self::told`] would have it, where
    /// nothing is written. The text of the field `debits` goes to `text`.
    #[must_use]
    pub fn note(&self, mode: SyncMode, region: &Region, text: &mut DebitsText) -> Option<Note> {
        let bucket = match &self.kind {
            Kind::Local(bucket) => *bucket,
            Kind::Shared(bucket) => codec::encode_debits(bucket, text),
        };
        self.note_of(bucket, mode, region)
    }

    /// Whether other regions have to be told of what it has become.
    fn is_news(&self) -> bool {
        !self.received || self.rebroadcast
    }

    #[inline(always)]
    fn note_of(&self, bucket: Bucket, mode: SyncMode, region: &Region) -> Option<Note> {
        let (stored, temporary) = (self.policy, self.temporary);
        match mode {
            SyncMode::None => None,
            SyncMode::Counters => self.as_shared().map(|_| {
                let counted = Some(region.peers.share_until_sent());
                Note { bucket, stored, temporary, counted }
            }),
            SyncMode::State => Some(Note { bucket, stored, temporary, counted: None }),
            // What the function made of all regions' states is not ours to send.
            SyncMode::Folded => {
                let own = self.state_of(region.writer.as_ref()?.id())?;
                let State { bucket, policy: stored, temporary, .. } = own;
                Some(Note { bucket, stored, temporary, counted: None })
            }
        }
    }

    /// The fields that seldom change and have to, if any has to.
    ///
    /// # Errors
    /// When one cannot be written, which cannot be.
    fn changes(&self, bucket: Bucket) -> Result<Option<Box<Changes>>, Internal> {
        let old = self.record.as_ref();
        let policy = Change::between(old.and_then(|old| old.policy), self.policy);
        let temporary = Change::between(old.and_then(|old| old.temporary), self.temporary);
        let weight = Change::between(old.and_then(|old| old.weight), self.stored_weight(bucket));
        let known = old.and_then(|old| old.regions.as_deref());
        let regions = Change::between(known, self.regions.as_deref());
        if let (Change::Keep, Change::Keep, Change::Keep, Change::Keep) =
            (&policy, &temporary, &weight, &regions)
        {
            return Ok(None);
        }
        let regions = match regions {
            Change::Keep => Change::Keep,
            Change::Set(states) => Change::Set(codec::encode_regions(states)?),
            Change::Delete => Change::Delete,
        };
        Ok(Some(Changes { policy, temporary, weight, regions }.into()))
    }

    /// What the field `userWeight` has to say: a weight of 1 is written only where the field is
    /// there already.
    fn stored_weight(&self, bucket: Bucket) -> Option<Weight> {
        let has_weight = self.record.as_ref().is_some_and(|record| record.weight.is_some());
        Some(bucket.weight()).filter(|weight| *weight != Weight::ONE || has_weight)
    }

    /// What the field `remainder` has to say. It appears with the first remainder and then stays,
    /// so that it need not be deleted again; in a shared bucket it is not used.
    fn stored_remainder(&self, bucket: Bucket) -> Option<u64> {
        if self.as_shared().is_some() {
            return None;
        }
        let has_remainder = self.record.as_ref().is_some_and(|record| record.remainder.is_some());
        Some(bucket.remainder()).filter(|remainder| *remainder != 0 || has_remainder)
    }

    /// The record to write for the bucket as it is now. The debits are
    /// [written](codec::encode_debits) from the shared bucket itself.
    #[must_use]
    pub fn to_record(&self) -> Record {
        let bucket = self.bucket();
        Record {
            tokens: Some(bucket.tokens()),
            timestamp: Some(bucket.timestamp()),
            weight: self.stored_weight(bucket),
            policy: self.policy,
            temporary: self.temporary,
            remainder: self.stored_remainder(bucket),
            debits: None,
            regions: self.regions.clone(),
            foreign: self.record.as_ref().is_some_and(|record| record.foreign),
        }
    }
}
