//! The other regions as seen from here: when each was heard, which are silent,
//! and what share of the limit that leaves for this side.
//!
//! # The sides of a cut share one limit
//!
//! Under [`PartitionPolicy::Share`] each side of a cut goes by what the regions spent
//! before it. Nobody can tell the other side what it goes by any more, so what each
//! goes by has to fit what *any* other region may go by, wherever the cut fell:
//!
//! - A region finds its own rate of spending and says it in its heartbeats. It says a
//!   new one only when every peer has acknowledged the one before. So of two regions,
//!   one goes by its rate number n, the other by number n or n + 1. While it does not
//!   hear some peer, or is refused by one, it says no new one: the shares stay.
//! - It says the last two, [`Rates`]. Any two regions then know a rate in common of
//!   every third, and of each other. Whoever counts a region to its own side takes the
//!   lower of the two, and the higher when it is on the other side. So what one
//!   side claims of a region is never above what another side leaves to it, and the
//!   shares of all sides come to one whole at most. Rates are taken from every round
//!   in the order of sending, however late: the sender learns that they arrived.
//! - A region that does not know the rates of all others admits an equal part. The
//!   others must not count on more than that before they know that it does: a region
//!   is *settled* when it knows all rates and all know its own, and more than the
//!   equal part is only for one that knows all others to be settled.
//!
//! Whichever peers are silent, the same rates are parted, so several silent ones need
//! no further rule: who they hear cannot be known, each is taken to be on a side of its
//! own. A process that began during a cut knows no rates and admits an equal part;
//! together with what the others go by that can be more than the limit until
//! the cut ends.
//!
//! # Who is heard
//!
//! A peer is heard by its rounds. One that fell silent is heard again when it has
//! said all it has to say, since what is withheld here has to absorb what it did
//! meanwhile, for as long as more of that is to come. That holds for a process that
//! was cut off. Another process in its place is heard with its first round: what
//! it has of the time before comes in with its states and is debited in full, on top of
//! what was withheld, which only admits less.
//!
//! A peer whose states are refused here (no memory, no rights) is not heard, though
//! its heartbeats come: it says [`Progress::Refused`]. One that refuses ours counts as
//! silent too, see [`Membership::refuses`], since it may admit again what it is not
//! told. So two that refuse each other both admit their shares only. The same goes for one
//! that is *deaf*: it is heard, and says that it does not hear us, and nobody passes on what we say.

mod lateness;
mod spend;

use crate::limits::MAX_REPLICAS;
use crate::replica::ReplicaId;
use crate::wide::count;
use lateness::Lateness;
use spend::Spend;
use std::collections::VecDeque;

/// A whole share, in permille.
pub const WHOLE: u16 = 1_000;

/// How many changes of the share are remembered for buckets that were last
/// written before them.
const MAX_PHASES: usize = 1_024;

/// After how many timeouts what a peer says comes by way of others, if it does: they
/// have been told by then that it is not heard here, and have passed on what it said
/// before.
const RELAYED: u64 = 2;

/// Most masters of a region that are told apart.
const MAX_MASTERS: u16 = 1_024;

/// How many senders are remembered beyond those that have to be heard: new ones
/// that have not said all yet, and old ones whose last words may still come.
const SPARE_SENDERS: usize = 3;

/// How much of the limit is shared out equally under [`PartitionPolicy::Share`], whatever
/// the regions spent, as one part in so many: a region that was idle before the
/// cut must be able to admit something.
const EQUAL_PART: u128 = 10;

/// What a region does while it does not hear from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PartitionPolicy {
    /// Goes on admitting as if they were there.
    Off,
    /// With k of N regions on this side of the cut, admits k/N.
    Equal,
    /// Admits the part of the limit that this side used before the cut; where a
    /// region is a cluster, as [`Self::Equal`].
    #[default]
    Share,
}

impl PartitionPolicy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Off, Self::Equal, Self::Share];

    /// The name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Equal => "equal",
            Self::Share => "share",
        }
    }

    /// Finds a policy by its name, in any case.
    #[must_use]
    pub fn by_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|g| name.eq_ignore_ascii_case(g.name().as_bytes()))
    }
}

/// An instant on the two clocks of this server, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Instants {
    /// The wall clock, which buckets are dated by.
    pub wall: u64,
    /// A clock that never steps, for silence.
    pub steady: u64,
}

/// Which version of the heartbeat and the states this is. Regions of different
/// versions do not talk to each other.
pub const PROTOCOL: u64 = 3;

/// How much of what a process has to say a round has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing: a connection begins, or it is a master of a cluster that has no slots.
    Opening,
    /// More is to come.
    Partial,
    /// Some states were refused here and will be sent again.
    Refused,
    /// All of it.
    Complete,
}

/// What a region spends, in thousandths of a token per second: as it said before, and
/// as it says now. See the [module](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// All peers know this one, or the one that follows it.
    pub before: u64,
    /// No peer knows a later one.
    pub now: u64,
}

impl Rates {
    /// What the others leave to it at least.
    fn least(self) -> u128 {
        u128::from(self.before.min(self.now))
    }

    /// What it claims at most.
    fn most(self) -> u128 {
        u128::from(self.before.max(self.now))
    }
}

/// What this region says of itself at the end of each round, besides whom it
/// [hears](Membership::heard_now).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statement {
    /// Which it is, from 1 on: what is [acknowledged](Membership::acknowledged). 0 while
    /// there are no rates.
    pub number: u64,
    /// What it spends; `None` when it does not know.
    pub rates: Option<Rates>,
    /// It knows the rates of all others, and all know its own.
    pub settled: bool,
}

/// What a region said at the end of a round.
#[derive(Debug, Clone, Copy)]
pub struct Round<'a> {
    /// Its name.
    pub id: ReplicaId,
    /// Which of its processes said so.
    pub run: &'a [u8],
    /// When, in microseconds of the steady clock of that process.
    pub sent: u64,
    /// How many processes there are that each have a part of its buckets: the
    /// masters of a cluster, otherwise one.
    pub masters: u16,
    /// How much of what the process has to say has come.
    pub progress: Progress,
    /// What it spends; `None` when it does not say.
    pub rates: Option<Rates>,
    /// See [`Statement::settled`].
    pub settled: bool,
    /// Which regions it hears itself; `None` when it does not say.
    pub hears: Option<&'a [ReplicaId]>,
}

/// One process of another region.
#[derive(Debug, Clone)]
struct Sender {
    run: Box<[u8]>,
    /// When it was heard first, or met if it has not been, on the steady clock.
    since: u64,
    /// When it was heard last, on the steady clock.
    heard: Option<u64>,
    /// The latest round that has come was sent then, on its own clock.
    sent: u64,
    lateness: Lateness,
    hears: Option<Vec<ReplicaId>>,
}

impl Sender {
    fn new(round: &Round<'_>, now: Instants) -> Self {
        Self {
            run: round.run.into(),
            since: now.steady,
            heard: None,
            sent: round.sent,
            lateness: Lateness::default(),
            hears: None,
        }
    }
}

/// One other region.
#[derive(Debug, Clone)]
pub struct Peer {
    id: ReplicaId,
    /// When its latest round was complete, on the wall clock.
    round: u64,
    /// Since when it is waited for, on the steady clock.
    since: u64,
    /// How many senders have to be heard.
    masters: usize,
    /// Those heard last come first. One that was replaced, or left its cluster,
    /// falls behind the others.
    senders: Vec<Sender>,
    /// It has not been heard for longer than the timeout.
    timed_out: bool,
    /// Another peer passes on what it says.
    relayed: bool,
    /// It does not take our states.
    refuses: bool,
    /// It does not hear us, nor by way of another peer.
    deaf: bool,
    /// What it said last of what it spends, in this life or an earlier one.
    rates: Option<Rates>,
    /// It knows the rates of all others, and all know its own.
    settled: bool,
    /// The number of our latest statement that it has acknowledged.
    acknowledged: u64,
}

impl Peer {
    fn new(id: ReplicaId, now: Instants) -> Self {
        Self {
            id,
            round: 0,
            since: now.steady,
            masters: 1,
            senders: Vec::new(),
            timed_out: false,
            relayed: false,
            refuses: false,
            deaf: false,
            rates: None,
            settled: false,
            acknowledged: 0,
        }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// When its latest round was complete, in unix microseconds here.
    #[must_use]
    pub fn round(&self) -> u64 {
        self.round
    }

    /// Microseconds since it was heard. With several masters that is the one not
    /// heard for longest: nobody else tells of its buckets.
    #[must_use]
    pub fn silence(&self, now: Instants) -> u64 {
        now.steady.saturating_sub(self.heard())
    }

    /// Whether it may admit without regard to what is admitted here, or the other way
    /// round: nothing has been known of it for longer than the timeout, it [is deaf](Self::is_deaf), or it
    /// [refuses](Membership::refuses) our states.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.refuses || self.deaf || (self.timed_out && !self.relayed)
    }

    /// Whether it says that it does not hear us, and no other peer passes on to it what we say.
    #[must_use]
    pub fn is_deaf(&self) -> bool {
        self.deaf
    }

    /// Whether it is not heard, and another peer passes on what it says.
    #[must_use]
    pub fn is_relayed(&self) -> bool {
        self.timed_out && self.relayed
    }

    /// Whether it refuses our states.
    #[must_use]
    pub fn is_refusing(&self) -> bool {
        self.refuses
    }

    fn heard(&self) -> u64 {
        let last = self.masters.checked_sub(1).and_then(|last| self.senders.get(last));
        last.and_then(|sender| sender.heard).map_or(self.since, |heard| heard.max(self.since))
    }

    /// Returns whether that was news. `timeout_us` is that of [`Membership`].
    fn hear(&mut self, round: &Round<'_>, timeout_us: u64, now: Instants) -> bool {
        let masters = usize::from(round.masters.clamp(1, MAX_MASTERS));
        let known = self.senders.iter().position(|sender| *sender.run == *round.run);
        let mut sender = match known {
            Some(place) => self.senders.remove(place),
            None => {
                // What an earlier process knew and acknowledged, this one does not.
                (self.settled, self.acknowledged) = (false, 0);
                Sender::new(round, now)
            }
        };
        let opens = round.progress == Progress::Opening;
        let late = sender.lateness.of(round.sent, now.steady) > timeout_us;
        if !opens && round.sent >= sender.sent {
            sender.sent = round.sent;
            let replaced = self.latest().is_some_and(|other| other.since > sender.since);
            if !replaced {
                self.hear_rates(round);
            }
        }
        if !late && !opens {
            if masters > self.masters && !self.timed_out {
                self.since = now.steady;
            }
            self.masters = masters;
            // What it did while it was silent may be among what it has not said. One
            // met just now is another process: see the module.
            let silent = sender
                .heard
                .is_some_and(|then| now.steady.saturating_sub(then) > timeout_us && self.timed_out);
            let counts = match round.progress {
                Progress::Complete => true,
                Progress::Partial => !silent,
                Progress::Refused | Progress::Opening => false,
            };
            if counts {
                if sender.heard.is_none() {
                    sender.since = now.steady;
                }
                sender.heard = Some(now.steady);
            }
            // One that has just begun has not had the time to hear everybody.
            let hears =
                round.hears.filter(|_| now.steady.saturating_sub(sender.since) > timeout_us);
            if sender.hears.as_deref() != hears {
                sender.hears = hears.map(<[_]>::to_vec);
            }
        }
        let place = self.senders.partition_point(|other| other.heard > sender.heard);
        self.senders.insert(place, sender);
        self.forget();
        !late && !opens
    }

    /// Forgets those that are too many: those heard longest ago, and before such as have only opened
    /// connections yet. A master without slots may do no more for as long as it is there, and would be
    /// met anew each time.
    fn forget(&mut self) {
        while self.senders.len() > self.masters.saturating_add(SPARE_SENDERS) {
            let heard = self.senders.partition_point(|sender| sender.heard.is_some());
            let end = if heard > self.masters { heard } else { self.senders.len() };
            self.senders.remove(end.saturating_sub(1));
        }
    }

    /// The last process that was heard for the first time. One that has only ever opened its
    /// connections takes no other's place.
    fn latest(&self) -> Option<&Sender> {
        let heard = self.senders.iter().filter(|sender| sender.heard.is_some());
        heard.max_by_key(|sender| sender.since)
    }

    /// Takes over what it says that it spends. A new process does not know that yet:
    /// until then the others know what the one before it said.
    fn hear_rates(&mut self, round: &Round<'_>) {
        if round.masters > 1 {
            // What a cluster spends on the buckets of one server here nobody knows.
            self.rates = None;
        } else if round.rates.is_some() {
            self.rates = round.rates;
        }
        self.settled = round.settled && round.rates.is_some();
    }

    /// Whether it says that it hears another region.
    fn hears(&self, id: ReplicaId) -> bool {
        let mut said = self.senders.iter().take(self.masters).map(|s| s.hears.as_ref());
        said.all(|hears| hears.is_some_and(|hears| hears.contains(&id)))
    }

    /// Whether some of its masters says that it does not hear another region.
    fn misses(&self, id: ReplicaId) -> bool {
        let mut said = self.senders.iter().take(self.masters).filter_map(|s| s.hears.as_ref());
        said.any(|hears| !hears.contains(&id))
    }
}

/// All other regions.
#[derive(Debug, Clone)]
pub struct Membership {
    policy: PartitionPolicy,
    me: Option<ReplicaId>,
    /// How many regions there are, with this one.
    regions: usize,
    /// How many masters this region has.
    masters: u16,
    timeout_us: u64,
    started: u64,
    /// By name.
    peers: Vec<Peer>,
    own: Spend,
    said: Statement,
    share: u16,
    /// Earlier shares, oldest first, each with the wall-clock instant it ended.
    earlier: VecDeque<(u64, u16)>,
}

impl Default for Membership {
    fn default() -> Self {
        Self::new(PartitionPolicy::default(), 1, u64::MAX, Instants::default())
    }
}

impl Membership {
    /// `regions` counts this one; a peer is silent after `timeout_us`
    /// microseconds. Regions not heard yet are waited for as long, from `now` on.
    #[must_use]
    pub fn new(policy: PartitionPolicy, regions: usize, timeout_us: u64, now: Instants) -> Self {
        Self {
            policy,
            me: None,
            regions,
            masters: 1,
            timeout_us,
            started: now.steady,
            peers: Vec::new(),
            own: Spend::default(),
            said: Statement::default(),
            share: WHOLE,
            earlier: VecDeque::new(),
        }
    }

    /// Takes over another configuration; what is known of the peers stays.
    pub fn configure(
        &mut self,
        policy: PartitionPolicy,
        regions: usize,
        timeout_us: u64,
        now: Instants,
    ) {
        if regions != self.regions {
            // Those that have just been added are waited for.
            self.started = now.steady;
        }
        (self.policy, self.regions, self.timeout_us) = (policy, regions, timeout_us);
        self.tick(None, now);
    }

    /// The name of this region: peers pass on to it only when they hear it.
    pub fn set_id(&mut self, id: Option<ReplicaId>) {
        self.me = id;
    }

    /// How many masters this region has. [`PartitionPolicy::Share`] needs to know what the
    /// whole of a region spends, and so is as [`PartitionPolicy::Equal`] wherever one has
    /// several.
    pub fn set_masters(&mut self, masters: u16) {
        self.masters = masters;
    }

    /// The peers heard so far.
    #[must_use]
    pub fn all(&self) -> &[Peer] {
        &self.peers
    }

    /// How many regions there are, with this one.
    #[must_use]
    pub fn regions(&self) -> usize {
        self.regions.max(self.peers.len().saturating_add(1))
    }

    /// Microseconds after which a peer is silent.
    #[must_use]
    pub fn timeout_us(&self) -> u64 {
        self.timeout_us
    }

    /// What this region may admit of the limit, in permille.
    #[must_use]
    pub fn share(&self) -> u16 {
        self.share
    }

    /// At what share, in permille, what is noted now is to be credited until it is sent. While
    /// nobody is silent that is soon, and the whole. Else it may be held back for long, and more
    /// peers may fall silent meanwhile: then it is the least that the share can be.
    #[must_use]
    pub fn share_until_sent(&self) -> u16 {
        if self.share == WHOLE {
            return WHOLE;
        }
        let regions = count(self.regions());
        match self.policy {
            PartitionPolicy::Off => WHOLE,
            PartitionPolicy::Equal => permille(1, regions),
            PartitionPolicy::Share => permille(1, regions.saturating_mul(EQUAL_PART)),
        }
    }

    /// Whether the present share has held since `instant` (wall clock).
    pub(crate) fn share_is_old(&self, instant: u64) -> bool {
        self.earlier.back().is_none_or(|(until, _)| *until <= instant)
    }

    /// The earlier shares that end after `instant` (wall clock), oldest first.
    pub(crate) fn phases(&self, instant: u64) -> impl Iterator<Item = (u64, u16)> {
        // Mostly there are none, or all are long over.
        let first = self.earlier.partition_point(|(until, _)| *until <= instant);
        self.earlier.range(first..).copied()
    }

    /// Whether the peer is known and silent.
    #[must_use]
    pub fn is_silent(&self, id: ReplicaId) -> bool {
        self.peers.iter().any(|peer| peer.id == id && peer.is_silent())
    }

    /// The peers that are heard now, to be told to all.
    pub fn heard_now(&self) -> impl Iterator<Item = ReplicaId> {
        self.peers.iter().filter(|peer| !peer.timed_out).map(Peer::id)
    }

    /// Whether some peer that is heard does not hear `from`: then what `from` says
    /// is to be passed on, since nobody else may tell that peer.
    #[must_use]
    pub fn misses(&self, from: ReplicaId) -> bool {
        let mut others = self.peers.iter().filter(|peer| peer.id != from && !peer.timed_out);
        others.any(|peer| peer.misses(from))
    }

    /// Whether anything is passed on at present.
    #[must_use]
    pub fn passes_on(&self) -> bool {
        self.peers.iter().any(|peer| self.misses(peer.id))
    }

    /// What this region says of itself with each round from now on.
    #[must_use]
    pub fn statement(&self) -> Statement {
        self.said
    }

    /// A process of a peer has answered a round of ours with the [`Statement`] of this
    /// number. To be told in the order in which the answers came.
    pub fn acknowledged(&mut self, id: ReplicaId, run: &[u8], number: u64) {
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == id) else {
            return;
        };
        // Not one that has been replaced since.
        if peer.latest().is_some_and(|sender| *sender.run == *run) {
            peer.acknowledged = number;
        }
    }

    /// Whether a peer that answers refuses our states, for want of memory or rights or
    /// the like: from the first one refused until it has taken all of them.
    pub fn refuses(&mut self, id: ReplicaId, refuses: bool) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == id) {
            peer.refuses = refuses;
        }
    }

    /// A peer was heard: see the [module](self). A round that lay on a line that was
    /// cut says nothing of now.
    ///
    /// `false` when there are too many peers to know another one.
    pub fn heard(&mut self, round: &Round<'_>, now: Instants) -> bool {
        let opens = round.progress == Progress::Opening;
        let place = match self.peers.binary_search_by_key(&round.id, Peer::id) {
            Ok(place) => place,
            Err(_) if self.peers.len().saturating_add(1) >= MAX_REPLICAS => return false,
            // That it connects does not say that it can be heard.
            Err(_) if opens => return true,
            Err(place) => {
                self.peers.insert(place, Peer::new(round.id, now));
                place
            }
        };
        let timeout = self.timeout_us;
        let news = self.peers.get_mut(place).is_some_and(|peer| peer.hear(round, timeout, now));
        self.tick(None, now);
        if let Ok(place) = self.peers.binary_search_by_key(&round.id, Peer::id)
            && let Some(peer) = self.peers.get_mut(place)
            && news
            && round.progress == Progress::Complete
            && !peer.timed_out
            && !peer.deaf
        {
            peer.round = now.wall;
        }
        true
    }

    /// Looks who has fallen silent; to be called now and then, with what this
    /// region has admitted itself.
    pub fn tick(&mut self, own_spent: Option<u64>, now: Instants) {
        let timeout = self.timeout_us;
        for peer in &mut self.peers {
            peer.timed_out = peer.silence(now) > timeout;
        }
        let found: Vec<(Option<u64>, bool)> =
            self.peers.iter().map(|peer| (self.relayed(peer, now), self.is_deaf(peer))).collect();
        for (peer, (round, deaf)) in self.peers.iter_mut().zip(found) {
            peer.relayed = round.is_some();
            if let Some(round) = round {
                peer.round = peer.round.max(round);
            }
            peer.deaf = deaf;
        }
        // A region that is gone for good, or got another name, would be silent for
        // ever.
        while self.peers.len() >= self.regions.max(1) {
            let Some(gone) = self.peers.iter().position(|peer| peer.timed_out && !peer.relayed)
            else {
                break;
            };
            self.peers.remove(gone);
        }
        if let Some(spent) = own_spent {
            self.own.sample(spent, now.steady);
            self.state_rates();
        }
        self.said.settled = self.is_settled();
        // What a clock that was set back has still to live through again is not past: the present
        // share holds then.
        let ahead = self.earlier.iter_mut().rev().take_while(|(until, _)| *until > now.wall);
        ahead.for_each(|(until, _)| *until = now.wall);
        let share = self.share_now(now);
        if share == self.share {
            return;
        }
        if self.earlier.len() >= MAX_PHASES {
            self.earlier.pop_front();
        }
        self.earlier.push_back((now.wall, self.share));
        self.share = share;
    }

    /// The latest round (wall clock) of those who pass on what a peer that has timed out says.
    fn relayed(&self, peer: &Peer, now: Instants) -> Option<u64> {
        let me = self.me.filter(|_| peer.timed_out)?;
        (peer.silence(now) > self.timeout_us.saturating_mul(RELAYED)).then_some(())?;
        self.between(peer, me).map(Peer::round).max()
    }

    /// Whether a peer that is heard here does not hear us, nor anybody who does.
    fn is_deaf(&self, peer: &Peer) -> bool {
        let Some(me) = self.me.filter(|me| !peer.timed_out && peer.misses(*me)) else {
            return false;
        };
        !self.between(peer, me).any(|other| peer.hears(other.id))
    }

    /// Those who hear both a peer and us, and are heard: they pass on what either says.
    fn between(&self, peer: &Peer, me: ReplicaId) -> impl Iterator<Item = &Peer> {
        let id = peer.id;
        let others = self.peers.iter().filter(|other| !other.timed_out);
        others.filter(move |other| other.hears(id) && other.hears(me))
    }

    /// Says what this region spends now, when all know what it said before.
    fn state_rates(&mut self) {
        if self.masters > 1 {
            // One master does not know what the others spend.
            self.said.rates = None;
            return;
        }
        let cut = self.peers.iter().any(|peer| peer.timed_out || peer.deaf || peer.refuses);
        let number = self.said.number;
        let known = self.peers.iter().all(|peer| peer.acknowledged == number);
        let Some(rate) = self.own.rate().filter(|_| !cut) else {
            return;
        };
        let before = match self.said.rates {
            Some(_) if !known => return,
            Some(rates) => rates.now,
            None => rate,
        };
        if self.said.rates != Some(Rates { before, now: rate }) {
            self.said.number = number.saturating_add(1);
            self.said.rates = Some(Rates { before, now: rate });
        }
    }

    /// See [`Statement::settled`].
    fn is_settled(&self) -> bool {
        // It may not have acknowledged the latest one yet.
        let least = self.said.number.saturating_sub(1).max(1);
        let all = self.peers.len().saturating_add(1) >= self.regions;
        let known = |peer: &Peer| peer.rates.is_some() && peer.acknowledged >= least;
        self.said.rates.is_some() && all && self.peers.iter().all(known)
    }

    fn share_now(&self, now: Instants) -> u16 {
        let regions = self.regions();
        let unheard = regions.saturating_sub(1).saturating_sub(self.peers.len());
        let waiting = now.steady.saturating_sub(self.started) <= self.timeout_us;
        let missing = if waiting { 0 } else { unheard };
        let silent = self.peers.iter().filter(|peer| peer.is_silent()).count();
        if silent.saturating_add(missing) == 0 {
            return WHOLE;
        }
        let here = regions.saturating_sub(silent).saturating_sub(missing);
        let equal = permille(count(here), count(regions));
        match self.policy {
            PartitionPolicy::Off => WHOLE,
            PartitionPolicy::Equal => equal,
            PartitionPolicy::Share => match self.share_by_spend(here) {
                None => equal,
                Some(share) if self.all_are_settled() => share,
                Some(share) => share.min(equal),
            },
        }
    }

    /// The part of this side, of `here` regions, by what all spend; `None` when that is
    /// not known, or nobody spends anything.
    fn share_by_spend(&self, here: usize) -> Option<u16> {
        let regions = self.regions();
        if self.peers.len().saturating_add(1) < regions {
            return None;
        }
        // Everything is below 2^64 times the number of regions.
        let (mut near, mut far) = (self.said.rates?.least(), 0_u128);
        for peer in &self.peers {
            let rates = peer.rates?;
            if peer.is_silent() {
                far = far.saturating_add(rates.most());
            } else {
                near = near.saturating_add(rates.least());
            }
        }
        let all = near.saturating_add(far);
        if all == 0 {
            return None;
        }
        // near / all, and of the equal part here / regions, as parts of one whole.
        let by_spend = EQUAL_PART.saturating_sub(1).saturating_mul(near);
        let part =
            by_spend.saturating_mul(count(regions)).saturating_add(all.saturating_mul(count(here)));
        Some(permille(part, all.saturating_mul(count(regions)).saturating_mul(EQUAL_PART)))
    }

    fn all_are_settled(&self) -> bool {
        self.said.settled && self.peers.iter().all(|peer| peer.settled)
    }
}

/// What of a whole a part is, in permille, rounded down. The whole is not 0.
fn permille(part: u128, whole: u128) -> u16 {
    let share = part.saturating_mul(u128::from(WHOLE)).checked_div(whole);
    match share.and_then(|share| u16::try_from(share).ok()) {
        Some(share @ 0..=WHOLE) => share,
        _ => {
            debug_assert!(false, "{part} of {whole} is no part");
            // Nothing is what is safe.
            0
        }
    }
}
