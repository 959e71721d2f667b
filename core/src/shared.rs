//! Debit counters: several regions, one limit.
//!
//! Each region decides alone, from what it knows. What regions exchange are
//! *counters*: for every replica how much it has taken and given back, counters
//! that only their owner increases, so that states can be lost, doubled and
//! reordered. What each region keeps to itself is the *level*: how much is
//! missing from the bucket, as a leaky bucket on its own clock.
//!
//! A debit from elsewhere arrives late, and raises the level here when it does.
//! By then this bucket may have been full, and have let refill go to waste that
//! the debit, had it come in time, would have used up. So a late debit first
//! fills what overflowed here since the peer's previous complete round
//! ([`Slack::overflow`]). And two regions that know the same debits may still
//! differ in level, since they saw them at different times; then the lower level
//! is right for both, which a merge finds by adding to the sender's level what the
//! sender did not know.
//!
//! While a peer is silent, the partition policy credits only a share of the refill. What is
//! withheld meanwhile absorbs the silent side's debits, and only theirs, whoever
//! tells of them ([`Slack::withheld`]).
//!
//! The level is counted in millionths of a token times the interval in
//! microseconds times 1000, in which refill, share and takes are all whole
//! numbers. Everything is exact; what is beyond 128 bits saturates on the side
//! that admits less.

use crate::bucket::{Answer, Bucket, Demand, Wait, Weight};
use crate::debits::{Account, Counter, Debits, Slack, Terms, Version};
use crate::error::Internal;
use crate::limits::{MAX_REPLICAS, MICRO, SHARES};
use crate::membership::{Membership, WHOLE};
use crate::policy::{Policy, StoredPolicy, Temporary};
use crate::replica::{MAX_OWN_EPOCH, ReplicaId, Writer};
use crate::wide;

/// When to ask again for what a region that is cut off cannot give, in
/// milliseconds: nobody knows when the peers will be heard.
const CUT_OFF_MS: u64 = 1_000;

/// A bucket that regions share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedBucket {
    scale: Scale,
    /// What is missing from a full bucket at `timestamp`.
    level: i128,
    timestamp: u64,
    version: Version,
    home: u32,
    accounts: Vec<Account>,
}

/// Policy and weight in the unit of the level, worked out once: it is asked for many
/// times in one take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Scale {
    policy: Policy,
    weight: Weight,
    /// One millionth of a token.
    unit: i128,
    /// A full bucket.
    capacity: i128,
    /// What refills in a microsecond at the [`WHOLE`] share.
    rate: i128,
    /// The same at a share of 1.
    rate_at_one: i128,
}

impl Scale {
    fn new(policy: Policy, weight: Weight) -> Self {
        let unit = wide::times(i128::from(policy.interval_us().get()), WIDE_WHOLE);
        let capacity = wide::times(i128::from(policy.capacity_micros()), unit);
        let rate_at_one = wide::times(i128::from(policy.refill()), i128::from(weight.get()));
        let rate = wide::times(rate_at_one, WIDE_WHOLE);
        Self { policy, weight, unit, capacity, rate, rate_at_one }
    }

    /// Becomes another one; mostly it is the same.
    #[inline]
    fn set(&mut self, policy: Policy, weight: Weight) {
        if (policy, weight) != (self.policy, self.weight) {
            *self = Self::new(policy, weight);
        }
    }

    /// What refills in a microsecond at a share.
    fn rate_at(&self, share: u16) -> i128 {
        match share {
            WHOLE => self.rate,
            share => wide::times(self.rate_at_one, i128::from(share)),
        }
    }
}

/// [`WHOLE`], as a factor.
const WIDE_WHOLE: i128 = WHOLE as i128;

/// A state of a shared bucket as another region sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Whose round it belongs to; `None` when somebody merges by hand.
    pub from: Option<ReplicaId>,
    /// The bucket when it was sent.
    pub bucket: SharedBucket,
    /// What its `policy` field says.
    pub stored: Option<StoredPolicy>,
    /// The temporary pin over it, its end on the clock of who reads this.
    pub temporary: Option<Temporary>,
}

impl Remote {
    /// What was set of it on purpose.
    #[must_use]
    pub fn terms(&self) -> Terms {
        let (version, weight) = (self.bucket.version(), self.bucket.weight());
        Terms { version, stored: self.stored, temporary: self.temporary, weight }
    }

    /// Whether it is as good as a missing key: full, and nothing set on purpose.
    pub(crate) fn owes_nothing(&self) -> bool {
        let pinned = self.temporary.is_some() || self.stored.is_some_and(StoredPolicy::is_pinned);
        let plain =
            self.bucket.weight() == Weight::ONE && self.bucket.version() == Version::default();
        self.bucket.is_full() && plain && !pinned
    }
}

/// What a merge has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MergeOutcome {
    /// The level or a counter is another one now.
    pub changed: bool,
    /// The sender does not know how far its own counters have come, or ours were
    /// begun anew: what we hold has to be sent out.
    pub rebroadcast: bool,
}

impl SharedBucket {
    /// A full bucket that nobody has taken from.
    #[must_use]
    pub fn full(policy: Policy, weight: Weight, timestamp: u64) -> Self {
        Self {
            scale: Scale::new(policy, weight),
            level: 0,
            timestamp,
            version: Version::default(),
            home: 0,
            accounts: Vec::new(),
        }
    }

    /// The bucket of a record, and what its `debits` field holds besides.
    #[must_use]
    pub fn new(bucket: &Bucket, mut debits: Debits) -> Self {
        let mut shared = Self::full(bucket.policy(), bucket.weight(), bucket.timestamp());
        shared.set(bucket, &mut debits);
        shared
    }

    /// Becomes [another one](Self::new), in its place. Takes the accounts.
    pub(crate) fn set(&mut self, bucket: &Bucket, debits: &mut Debits) {
        let policy = bucket.policy();
        self.scale.set(policy, bucket.weight());
        self.timestamp = bucket.timestamp();
        let whole = self.scale.unit;
        self.version = debits.version;
        self.home = debits.home;
        self.accounts = std::mem::take(&mut debits.accounts);
        let missing = policy.capacity_micros().abs_diff(bucket.tokens());
        let fraction = i128::from(debits.fraction).min(whole.saturating_sub(1));
        // The remainder of an unshared bucket is a numerator over 2520 times the
        // interval; what is lost here is below a billionth of a token.
        let remainder = match bucket.remainder() {
            0 => 0,
            remainder => {
                let (parts, _) = wide::div_rem_euclid(
                    wide::times(i128::from(remainder), i128::from(WHOLE)),
                    i128::from(SHARES),
                );
                parts
            }
        };
        self.level =
            wide::times(i128::from(missing), whole).saturating_sub(fraction.max(remainder)).max(0);
    }

    /// The bucket as a record holds it.
    #[must_use]
    pub fn bucket(&self) -> Bucket {
        self.split().0
    }

    /// What the `debits` field has to hold besides [`Self::bucket`].
    #[must_use]
    pub fn debits(&self) -> Debits {
        let (_, fraction) = self.split();
        let (version, home, accounts) = (self.version, self.home, self.accounts.clone());
        Debits { version, fraction, home, accounts }
    }

    /// The bucket as a record holds it, and the fraction of a millionth held besides: see
    /// [`Debits`].
    #[must_use]
    pub fn split(&self) -> (Bucket, u64) {
        let held = self.scale.capacity.saturating_sub(self.level);
        // Rounded down; negative in debt.
        let (micros, fraction) = wide::div_rem_euclid(held, self.scale.unit);
        let tokens = wide::saturated_signed(micros);
        let bucket = Bucket::new(self.policy(), self.weight(), tokens, 0, self.timestamp);
        (bucket, wide::saturated(fraction))
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.scale.policy
    }

    /// The weight, which multiplies the refill.
    #[must_use]
    pub fn weight(&self) -> Weight {
        self.scale.weight
    }

    /// The instant of the state, in unix microseconds.
    #[must_use]
    pub fn timestamp(&self) -> u64 {
        self.timestamp
    }

    /// What is missing from a full bucket, in millionths of a token times the
    /// interval in microseconds times 1000.
    #[must_use]
    pub fn level(&self) -> i128 {
        self.level
    }

    /// Of policy and weight.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// See [`Debits::home`].
    #[must_use]
    pub fn home(&self) -> u32 {
        self.home
    }

    /// Is of the key `home` from now on. What was counted of another one is forgotten: what
    /// is missing stays missing.
    pub(crate) fn settle_in(&mut self, home: u32) {
        if self.home != home {
            self.accounts.clear();
            self.home = home;
        }
    }

    /// All replicas it knows, by name.
    #[must_use]
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// The memory of its accounts.
    pub(crate) fn take_accounts(&mut self) -> Vec<Account> {
        std::mem::take(&mut self.accounts)
    }

    /// The counters of one replica; epoch 0 when it has none.
    #[must_use]
    pub fn counter(&self, id: ReplicaId) -> Counter {
        self.counter_near(0, id)
    }

    fn counter_near(&self, near: usize, id: ReplicaId) -> Counter {
        self.account_near(near, id).map(|account| account.counter).unwrap_or_default()
    }

    /// Whether nothing is missing.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.level <= 0
    }

    fn account(&self, id: ReplicaId) -> Option<&Account> {
        self.account_near(0, id)
    }

    /// The account of `id`, which is looked for from the place `near` on first: most buckets
    /// know the same replicas, in the same order.
    fn account_near(&self, near: usize, id: ReplicaId) -> Option<&Account> {
        self.accounts.get(self.place_of(near, &id)?)
    }

    fn place_of(&self, near: usize, id: &ReplicaId) -> Option<usize> {
        // They are few: looking at each in turn is faster than halving.
        let is = |known: &Account| known.id == *id;
        let (before, after) = self.accounts.split_at_checked(near).unwrap_or((&self.accounts, &[]));
        let place = after.iter().position(is).map(|place| place.saturating_add(near));
        place.or_else(|| before.iter().position(is))
    }

    /// The [account](Self::account_near) of `id`, begun if need be; `None` when there are too many.
    fn account_mut(&mut self, near: usize, id: &ReplicaId) -> Option<&mut Account> {
        let place = match self.place_of(near, id) {
            Some(place) => place,
            None => {
                if self.accounts.len() >= MAX_REPLICAS {
                    // Who has counted nothing is known for its slack alone. Without it
                    // what comes late from there is debited in full: the safe side.
                    let idle = self.accounts.iter().position(|known| known.counter.epoch == 0)?;
                    self.accounts.remove(idle);
                }
                let place = self.accounts.partition_point(|known| known.id < *id);
                self.accounts.insert(place, Account { id: *id, ..Account::BLANK });
                place
            }
        };
        self.accounts.get_mut(place)
    }

    /// Whether what `writer` takes can be counted: not when the bucket knows too
    /// many others.
    #[must_use]
    pub fn can_count(&self, writer: Option<&Writer>) -> bool {
        let full = self.accounts.len() >= MAX_REPLICAS;
        let may = |writer: &Writer| {
            let id = writer.id();
            !full || self.accounts.iter().any(|known| known.id == id || known.counter.epoch == 0)
        };
        writer.is_none_or(may)
    }

    /// Credits the refill up to `now` (unix microseconds), at the share that the
    /// partition policy left of it, and notes what overflowed since each peer's round.
    pub fn advance(&mut self, now: u64, peers: &Membership) {
        if peers.share_is_old(now.min(self.timestamp)) {
            return self.leak(now, peers.share(), peers);
        }
        for (until, share) in peers.phases(self.timestamp) {
            if until > now {
                break;
            }
            self.leak(until, share, peers);
        }
        // The share of the phase that `now` lies in.
        let share = peers.phases(now).next().map_or(peers.share(), |(_, share)| share);
        self.leak(now, share, peers);
    }

    /// [`Self::advance`] at one share, whatever the partition policy left.
    pub(crate) fn leak(&mut self, now: u64, share: u16, peers: &Membership) {
        let (start, level) = (self.timestamp, self.level);
        let rate = self.scale.rate_at(share);
        let refill =
            |from: u64, until: u64| wide::times(rate, i128::from(until.saturating_sub(from)));
        let wasted = |gained: i128| gained.saturating_sub(level).max(0);
        let rest = match WHOLE.saturating_sub(share) {
            0 => 0,
            rest => self.scale.rate_at(rest),
        };
        let withheld = |from: u64| match rest {
            0 => 0,
            rest => wide::times(rest, i128::from(now.saturating_sub(from))),
        };
        let gained = refill(start, now);
        // The level is never below 0: at the start nothing was wasted.
        let grown = Slack { overflow: wasted(gained), withheld: withheld(start) };
        if grown != Slack::default() {
            for slack in self.accounts.iter_mut().filter_map(|account| account.slack.as_mut()) {
                slack.overflow = slack.overflow.saturating_add(grown.overflow);
                slack.withheld = slack.withheld.saturating_add(grown.withheld);
            }
        }
        for (near, peer) in peers.all().iter().enumerate().filter(|(_, peer)| peer.round() > start)
        {
            let round = peer.round().min(now);
            if let Some(account) = self.account_mut(near, &peer.id()) {
                let overflow = match grown.overflow {
                    0 => 0,
                    all => all.saturating_sub(wasted(refill(start, round))),
                };
                account.slack = Some(Slack { overflow, withheld: withheld(round.max(start)) });
            }
        }
        self.level = level.saturating_sub(gained).max(0);
        self.timestamp = now.max(start);
    }

    /// Takes what is demanded, or nothing. The bucket must have been advanced to `now`.
    ///
    /// # Errors
    /// As for [`Self::debit`].
    pub fn take(
        &mut self,
        writer: Option<&Writer>,
        demand: Demand,
        now: u64,
        share: u16,
    ) -> Result<Answer, Internal> {
        let remaining = self.remaining(share);
        let Some(granted) = demand.granted(remaining) else {
            let retry_after = self.until(demand.needs(), now, share);
            return Ok(Answer { retry_after, ..self.answer_with(remaining, 0, now, share) });
        };
        self.debit(writer, granted.saturating_mul(MICRO))?;
        let retry_after = self.until(demand.needs_after(granted), now, share);
        let remaining = remaining.saturating_sub_unsigned(granted);
        let answer = self.answer_with(remaining, granted, now, share);
        Ok(Answer { retry_after, ..answer })
    }

    /// Counts `micros` millionths as taken here, whatever there is.
    ///
    /// # Errors
    /// When there is no room to count: see [`Self::can_count`].
    pub fn debit(&mut self, writer: Option<&Writer>, micros: u64) -> Result<(), Internal> {
        if micros > 0 {
            self.count(writer, |counter| {
                counter.spent = counter.spent.checked_add(micros)?;
                Some(())
            })?;
            let amount = wide::times(i128::from(micros), self.scale.unit);
            self.level = self.level.saturating_add(amount);
        }
        Ok(())
    }

    /// Gives back `tokens` whole tokens, cut at the capacity. `taken` of the
    /// answer counts the whole tokens that really went back. The bucket must
    /// have been advanced to `now`.
    ///
    /// # Errors
    /// As for [`Self::debit`].
    pub fn give(
        &mut self,
        writer: Option<&Writer>,
        tokens: u64,
        now: u64,
        share: u16,
    ) -> Result<Answer, Internal> {
        let missing = wide::div_ceil_euclid(self.level, self.scale.unit);
        let micros = tokens.saturating_mul(MICRO).min(wide::saturated(missing));
        self.refund(writer, micros)?;
        Ok(self.answer(micros / MICRO, now, share))
    }

    /// Whole tokens that can be taken until what is owed is as much as the capacity, as it is
    /// seen here.
    #[must_use]
    pub fn bookable(&self) -> u64 {
        let most = self.scale.capacity.saturating_mul(2).saturating_sub(self.level);
        wide::saturated(wide::div_rem_euclid(most, self.scale.unit).0) / MICRO
    }

    /// How long from `now` until `tokens` more can be [booked](Self::bookable), at this share of
    /// the refill.
    #[must_use]
    pub fn until_bookable(&self, tokens: u64, now: u64, share: u16) -> Wait {
        if tokens == 0 {
            return Wait::Ms(0);
        }
        if tokens > self.policy().capacity().saturating_mul(2) {
            return Wait::Never;
        }
        let wanted = wide::times(i128::from(tokens.saturating_mul(MICRO)), self.scale.unit);
        let most = self.scale.capacity.saturating_mul(2).saturating_sub(wanted);
        self.wait(self.level.saturating_sub(most), now, share)
    }

    /// Counts `micros` millionths as given back here.
    ///
    /// # Errors
    /// As for [`Self::debit`].
    pub fn refund(&mut self, writer: Option<&Writer>, micros: u64) -> Result<(), Internal> {
        if micros > 0 {
            self.count(writer, |counter| {
                counter.refunded = counter.refunded.checked_add(micros)?;
                Some(())
            })?;
            let amount = wide::times(i128::from(micros), self.scale.unit);
            self.level = self.level.saturating_sub(amount).max(0);
        }
        Ok(())
    }

    /// Changes our own counter, in a new epoch when it was not begun in this life
    /// or its counter is full. Without a writer nothing is counted.
    fn count(
        &mut self,
        writer: Option<&Writer>,
        change: impl Fn(&mut Counter) -> Option<()>,
    ) -> Result<(), Internal> {
        const NO_ROOM: &str = "no room for our own counter";
        let Some(writer) = writer else {
            return Ok(());
        };
        let account = self.account_mut(0, &writer.id()).ok_or_else(|| Internal::new(NO_ROOM))?;
        let mut counter = account.counter;
        if !writer.began(counter.epoch) || change(&mut counter).is_none() {
            let epoch = writer.next_epoch(account.counter.epoch);
            counter = Counter { epoch, spent: 0, refunded: 0 };
            change(&mut counter).ok_or_else(|| Internal::new("a new counter that is full"))?;
        }
        account.counter = counter;
        Ok(())
    }

    /// Begins under a policy, full.
    pub(crate) fn begin(&mut self, policy: Policy) {
        self.scale.set(policy, self.weight());
        self.level = 0;
    }

    /// Goes on under another policy: keeps the tokens, cut at the new capacity, and what is
    /// owed. Credit the old policy first, with [`Self::advance`].
    #[inline(always)]
    pub fn switch(&mut self, policy: Policy) {
        if policy != self.policy() {
            self.switch_to(policy);
        }
    }

    fn switch_to(&mut self, policy: Policy) {
        let [old, new] =
            [self.policy(), policy].map(|policy| i128::from(policy.interval_us().get()));
        let scaled = |amount: i128| if old == new { amount } else { rescale(amount, old, new) };
        let held = scaled(self.scale.capacity.saturating_sub(self.level));
        for slack in self.accounts.iter_mut().filter_map(|account| account.slack.as_mut()) {
            *slack = Slack { overflow: scaled(slack.overflow), withheld: scaled(slack.withheld) };
        }
        self.scale = Scale::new(policy, self.weight());
        self.level = self.scale.capacity.saturating_sub(held).max(0);
    }

    /// Goes on as `bucket`, whatever the policy of that is; what was counted stays counted.
    pub(crate) fn replace(&mut self, bucket: &Bucket) {
        // What overflowed and was withheld is told in the unit of the new policy.
        self.switch(bucket.policy());
        let mut debits = Debits { fraction: 0, ..self.debits() };
        self.set(bucket, &mut debits);
    }

    /// Goes on with another weight. Credit the old one first, with
    /// [`Self::advance`].
    pub fn set_weight(&mut self, weight: Weight) {
        self.scale = Scale::new(self.policy(), weight);
    }

    /// Notes that policy or weight were set here on purpose.
    pub fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    /// Notes that there was a change of this number, if it was a later one.
    pub(crate) fn raise_version(&mut self, number: u64) {
        self.version.number = self.version.number.max(number);
    }

    /// Whole tokens that can be taken at this share of the limit, rounded down; negative in debt,
    /// and not before: what has been taken beyond a share is not owed.
    #[must_use]
    pub fn remaining(&self, share: u16) -> i64 {
        let room = self.room(share).max(self.room(WHOLE).min(0));
        let (held, _) = wide::div_rem_euclid(room, self.scale.unit);
        wide::saturated_signed(held).div_euclid(MICRO.cast_signed())
    }

    /// What the bucket answers when nothing is to wait for.
    #[must_use]
    pub fn answer(&self, taken: u64, now: u64, share: u16) -> Answer {
        self.answer_with(self.remaining(share), taken, now, share)
    }

    fn answer_with(&self, remaining: i64, taken: u64, now: u64, share: u16) -> Answer {
        Answer {
            taken,
            capacity: self.policy().capacity(),
            remaining,
            retry_after: Wait::Ms(0),
            reset_after: self.wait(self.level, now, share),
        }
    }

    /// How long from `now` until the bucket can give `tokens` whole tokens, if
    /// nobody takes any and the share stays. The bucket must have been advanced
    /// to `now`. For none there is no wait, even in debt.
    ///
    /// What cannot be had at this share at all will be there when the peers are
    /// heard again: at the earliest as soon as at the full share, and not within
    /// [`CUT_OFF_MS`].
    #[must_use]
    pub fn until(&self, tokens: u64, now: u64, share: u16) -> Wait {
        if tokens == 0 {
            return Wait::Ms(0);
        }
        if tokens > self.policy().capacity() {
            return Wait::Never;
        }
        let wanted = wide::times(i128::from(tokens.saturating_mul(MICRO)), self.scale.unit);
        if wanted <= self.room_of_empty(share) {
            return self.wait(wanted.saturating_sub(self.room(share)), now, share);
        }
        match self.wait(wanted.saturating_sub(self.room(WHOLE)), now, WHOLE) {
            Wait::Ms(ms) => Wait::Ms(ms.max(CUT_OFF_MS)),
            Wait::Never => Wait::Never,
        }
    }

    /// Microseconds from [`Self::timestamp`] until the bucket is full at this share of the
    /// limit, rounded up; `None` when it never will be.
    #[must_use]
    pub fn us_until_full(&self, share: u16) -> Option<u128> {
        if self.level <= 0 {
            return Some(0);
        }
        div_ceil(self.level, self.scale.rate_at(share)).map(i128::unsigned_abs)
    }

    fn wait(&self, missing: i128, now: u64, share: u16) -> Wait {
        if missing <= 0 {
            return Wait::Ms(0);
        }
        // A share of nothing stays nothing: see `until`.
        let share = if share == 0 { WHOLE } else { share };
        let Some(us) = div_ceil(missing, self.scale.rate_at(share)) else {
            return Wait::Never;
        };
        // After a clock step back the level starts in the future.
        let lead = i128::from(self.timestamp.saturating_sub(now));
        let (ms, _) = wide::div_rem_euclid(us.saturating_add(lead).saturating_add(999), 1_000);
        match u64::try_from(ms) {
            Ok(ms) if i64::try_from(ms).is_ok() => Wait::Ms(ms),
            _ => Wait::Never,
        }
    }

    /// What can be taken at a share of the limit, in the unit of the level.
    fn room(&self, share: u16) -> i128 {
        self.room_of_empty(share).saturating_sub(self.level)
    }

    fn room_of_empty(&self, share: u16) -> i128 {
        if share == WHOLE {
            return self.scale.capacity;
        }
        let micros = i128::from(self.policy().capacity_micros());
        let interval = i128::from(self.policy().interval_us().get());
        let part = wide::times(wide::times(micros, interval), i128::from(share));
        // A share smaller than one token would let nothing through at all.
        part.max(wide::times(self.scale.unit, i128::from(MICRO)).min(self.scale.capacity))
    }

    /// Whether there is room for all replicas that `remote` knows, and for our own
    /// counters besides.
    #[must_use]
    pub fn has_room_for(&self, remote: &Remote, me: Option<ReplicaId>) -> bool {
        let counted = |shared: &Self, near, id| {
            shared.account_near(near, id).is_some_and(|known| known.counter.epoch != 0)
        };
        let known = self.accounts.iter().filter(|known| known.counter.epoch != 0).count();
        let theirs = remote.bucket.accounts.iter().enumerate();
        let theirs = theirs.filter(|(_, theirs)| theirs.counter.epoch != 0);
        let new = theirs.filter(|(near, theirs)| !counted(self, *near, theirs.id)).count();
        let besides = |id| !counted(self, 0, id) && !counted(&remote.bucket, 0, id);
        let own = me.filter(|me| besides(*me));
        let sender = remote.from.filter(|from| besides(*from) && Some(*from) != own);
        let more = usize::from(own.is_some()).saturating_add(usize::from(sender.is_some()));
        known.saturating_add(new).saturating_add(more) <= MAX_REPLICAS
    }

    /// Whether what `remote` says of our own counters can be: so far above them
    /// that no life of ours could go on beyond, it cannot.
    #[must_use]
    pub fn believes(&self, remote: &Remote, me: Option<ReplicaId>) -> bool {
        me.is_none_or(|me| remote.bucket.counter(me).epoch <= MAX_OWN_EPOCH)
    }

    /// Merges what another region sent. `fresh` says that this bucket was not
    /// there before. Both are taken to be of this moment: the bucket must have
    /// been advanced to `now`, and no clock of the sender matters.
    ///
    /// Which policy holds is for [`Terms`] to say; the caller has switched to it
    /// already, if it had to.
    ///
    /// # Errors
    /// Where it was not asked first whether there is [room](Self::has_room_for).
    pub fn receive(
        &mut self,
        fresh: bool,
        remote: &Remote,
        writer: Option<&Writer>,
        peers: &Membership,
    ) -> Result<MergeOutcome, Internal> {
        const NO_ROOM: &str = "no room for what a peer has counted";
        let sent = &remote.bucket;
        let same = sent.scale == self.scale;
        let whole = self.scale.unit;
        let me = writer.as_ref().map(|writer| writer.id());
        let own = me.map_or(Counter::default(), |me| self.counter(me));
        let level_before = self.level;

        let (mut spent, mut refunded, mut unknown) = (0_u128, 0_u128, 0_u128);
        // Of replicas that are silent here, whoever tells of them.
        let mut silent: Vec<(ReplicaId, u64)> = Vec::new();
        let add = |sum: &mut u128, amount: u64| *sum = sum.saturating_add(u128::from(amount));
        for (near, account) in sent.accounts.iter().enumerate() {
            if Some(account.id) == me {
                continue;
            }
            let known = self.counter_near(near, account.id);
            let (more_spent, more_refunded) = known.gain(account.counter);
            if more_spent > 0 && peers.is_silent(account.id) {
                silent.push((account.id, more_spent));
            } else {
                add(&mut spent, more_spent);
            }
            add(&mut refunded, more_refunded);
        }
        for (near, account) in self.accounts.iter().enumerate() {
            // Refunds that the sender lacks are left out: the safe side.
            add(&mut unknown, sent.counter_near(near, account.id).gain(account.counter).0);
        }
        let behind =
            remote.from.is_some_and(|from| sent.counter(from).epoch < self.counter(from).epoch);
        let mut news = false;
        for (near, account) in sent.accounts.iter().enumerate() {
            if account.counter.epoch == 0 {
                continue;
            }
            let known = self.account_mut(near, &account.id);
            let known = known.ok_or_else(|| Internal::new(NO_ROOM))?;
            let joined = known.counter.join(account.counter);
            news |= joined != known.counter;
            known.counter = joined;
        }
        // Some peer cannot hear who sent this, and hears us.
        let relay = news && remote.from.is_some_and(|from| peers.misses(from));
        let mut outcome = MergeOutcome { changed: news, rebroadcast: behind || relay };
        if let Some(writer) = writer {
            let joined = self.counter(writer.id());
            writer.seen(joined.epoch);
            // Somebody has seen a later life of ours than this one: nobody has
            // counted what we took since.
            let outlived = writer.began(own.epoch) && joined.epoch > own.epoch;
            // What was counted here in this life is forgotten, and what others know of it need
            // not be all: counting on from there could say the same twice.
            let forgotten = own.epoch == 0 && writer.began(joined.epoch);
            if outlived || forgotten {
                let epoch = writer.next_epoch(joined.epoch);
                let account =
                    self.account_mut(0, &writer.id()).ok_or_else(|| Internal::new(NO_ROOM))?;
                // Who has seen the epoch before counts what was taken in it once more, which only admits
                // less. What was given back is not said again.
                account.counter = Counter { epoch, refunded: 0, ..own };
                if outlived {
                    // Nor has the sender, whose level this is.
                    add(&mut unknown, own.spent);
                }
                outcome.changed = true;
                outcome.rebroadcast |= outlived;
            }
        }

        let amount = |micros: u128| wide::times(wide::signed(micros), whole);
        let owed = if same { level_before.max(sent.level) } else { level_before };
        if fresh {
            self.level = match remote.temporary {
                _ if same => sent.level,
                // It may have ended on the way.
                Some(_) => {
                    let mut sent = sent.clone();
                    sent.switch(self.policy());
                    sent.level
                }
                None => 0,
            };
        } else {
            let slack_of = |shared: &Self, id: Option<ReplicaId>| {
                let account = id.and_then(|id| shared.account(id));
                account.and_then(|account| account.slack).unwrap_or_default()
            };
            let debits = amount(spent);
            let overflow = debits.min(slack_of(self, remote.from).overflow.max(0));
            let mut late = debits.saturating_sub(overflow);
            self.use_up(overflow, 0);
            for (id, more) in silent {
                let slack = slack_of(self, Some(id));
                let debits = amount(u128::from(more));
                let overflow = debits.min(slack.overflow.max(0));
                let rest = debits.saturating_sub(overflow);
                let withheld = rest.min(slack.withheld.max(0));
                late = late.saturating_add(rest.saturating_sub(withheld));
                self.use_up(overflow, withheld);
            }
            let level = self.level.saturating_add(late);
            self.level = level.saturating_sub(amount(refunded)).max(0);
            if same {
                let theirs = sent.level.saturating_add(amount(unknown));
                if theirs < self.level {
                    self.use_up(self.level.saturating_sub(theirs), 0);
                    self.level = theirs;
                }
            }
        }
        // What was owed before, here or there, stays owed, also where the capacity has been lowered.
        let most = self.scale.capacity.saturating_add(self.most_debt(peers)).max(owed);
        self.level = self.level.min(most);
        // What a silent peer sends first may have lain on the line since before it
        // fell silent. What it did meanwhile is still to come; its slack is reset by
        // its next complete round.
        let heard = remote.from.filter(|from| !peers.is_silent(*from));
        if let Some(account) = heard.and_then(|from| self.account_mut(0, &from)) {
            account.slack = Some(Slack::default());
        }
        outcome.changed |= self.level != level_before;
        Ok(outcome)
    }

    /// Takes from the slacks of all peers what one debit has used up.
    fn use_up(&mut self, overflow: i128, withheld: i128) {
        for slack in self.accounts.iter_mut().filter_map(|account| account.slack.as_mut()) {
            slack.overflow = slack.overflow.saturating_sub(overflow);
            slack.withheld = slack.withheld.saturating_sub(withheld);
        }
    }

    /// How far beyond empty the bucket can be: what is booked here, and what each other region
    /// can have admitted and booked unseen within the timeout.
    fn most_debt(&self, peers: &Membership) -> i128 {
        let others = wide::signed(wide::count(peers.regions().saturating_sub(1)));
        let refilled = wide::times(self.scale.rate, i128::from(peers.timeout_us()));
        let each = self.scale.capacity.saturating_mul(2).saturating_add(refilled);
        self.scale.capacity.saturating_add(wide::times(each, others))
    }
}

/// `amount * new / old` rounded down, of positive `old` and `new`. The product alone
/// need not fit.
fn rescale(amount: i128, old: i128, new: i128) -> i128 {
    let (whole, rest) = wide::div_rem_euclid(amount, old);
    let (rest, _) = wide::div_rem_euclid(rest.saturating_mul(new), old);
    whole.saturating_mul(new).saturating_add(rest)
}

/// The quotient rounded up, of positive numbers; `None` for a divisor of 0.
fn div_ceil(dividend: i128, divisor: i128) -> Option<i128> {
    (divisor != 0).then(|| wide::div_ceil_euclid(dividend, divisor))
}
