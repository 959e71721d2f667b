//! The other regions as seen from here: when each was heard, which are silent,
//! and what share of the limit that leaves for this side.

use crate::debit::MAX_REPLICAS;
use crate::replica::ReplicaId;
use std::collections::VecDeque;

/// A whole share, in permille.
pub const WHOLE: u16 = 1_000;

/// How many changes of the share are remembered for buckets that were last
/// written before them.
const MAX_PHASES: usize = 1_024;

/// Over how long the recent spend of a region is taken, in microseconds.
const RECENT_US: u64 = 10_000_000;

/// Microseconds between two samples of what a region has spent.
const SAMPLE_US: u64 = 1_000_000;

/// How many samples are remembered: what was spent before a cut has to be known
/// still when the peers have been silent for the timeout. With a timeout of a minute
/// or more it is not, and the limit is shared out equally.
const MAX_SAMPLES: usize = 64;

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

/// What a region said at the end of a round.
#[derive(Debug, Clone, Copy)]
pub struct Round<'a> {
    /// Its name.
    pub id: ReplicaId,
    /// Which of its processes said so.
    pub run: &'a [u8],
    /// When, in microseconds of the steady clock of that process.
    pub sent: u64,
    /// Tokens that the process has admitted in its life.
    pub spent: u64,
    /// How many processes there are that each have a part of its buckets: the
    /// masters of a cluster, otherwise one.
    pub masters: u16,
    /// Whether the process has said all it has to say.
    pub complete: bool,
    /// Which regions it hears itself; `None` when it does not say.
    pub hears: Option<&'a [ReplicaId]>,
}

/// One process of another region.
#[derive(Debug, Clone)]
struct Sender {
    run: Box<[u8]>,
    /// When it was heard for the first time, on the steady clock.
    since: u64,
    /// When it was heard, on the steady clock; 0 for not yet.
    heard: u64,
    lateness: Lateness,
    spend: Spend,
    hears: Option<Vec<ReplicaId>>,
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
    /// It is not heard.
    mute: bool,
    /// Nobody else passes on what it says, either.
    silent: bool,
    /// Its part when the cut happened.
    frozen: u128,
}

impl Peer {
    fn new(id: ReplicaId, now: Instants) -> Self {
        Self {
            id,
            round: 0,
            since: now.steady,
            masters: 1,
            senders: Vec::new(),
            mute: false,
            silent: false,
            frozen: 0,
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

    /// Whether nothing has been known of it for longer than the timeout.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// Whether it is not heard, and another peer passes on what it says.
    #[must_use]
    pub fn is_relayed(&self) -> bool {
        self.mute && !self.silent
    }

    fn heard(&self) -> u64 {
        let last = self.masters.checked_sub(1).and_then(|last| self.senders.get(last));
        last.map_or(0, |sender| sender.heard).max(self.since)
    }

    /// Returns whether that was news. `timeout_us` is that of [`Membership`].
    fn hear(&mut self, round: &Round<'_>, timeout_us: u64, now: Instants) -> bool {
        let masters = usize::from(round.masters.clamp(1, MAX_MASTERS));
        let known = self.senders.iter().position(|sender| *sender.run == *round.run);
        let mut sender = match known {
            Some(place) => self.senders.remove(place),
            None => Sender {
                run: round.run.into(),
                since: now.steady,
                heard: 0,
                lateness: Lateness::default(),
                spend: Spend::default(),
                hears: None,
            },
        };
        let late = sender.lateness.of(round.sent, now.steady) > timeout_us;
        if !late {
            if masters > self.masters && !self.mute {
                self.since = now.steady;
            }
            self.masters = masters;
            // What it did while it was silent may be among what it has not said.
            let silent = now.steady.saturating_sub(sender.heard) > timeout_us;
            if round.complete || !(silent && self.mute) {
                sender.heard = now.steady;
            }
            // One that has just begun has not had the time to hear everybody.
            let hears =
                round.hears.filter(|_| now.steady.saturating_sub(sender.since) > timeout_us);
            if sender.hears.as_deref() != hears {
                sender.hears = hears.map(<[_]>::to_vec);
            }
            match masters {
                1 => sender.spend.sample(round.spent, now.steady),
                _ => sender.spend = Spend::default(),
            }
        }
        let place = self.senders.partition_point(|other| other.heard > sender.heard);
        self.senders.insert(place, sender);
        self.senders.truncate(self.masters.saturating_add(SPARE_SENDERS));
        !late
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

    /// What it has spent lately, see [`Spend::rate`]. What a cluster spends on
    /// the buckets of one server here cannot be told.
    fn rate(&self, until: u64) -> Option<u128> {
        match (self.masters, self.senders.first()) {
            (1, Some(sender)) => sender.spend.rate(until),
            _ => None,
        }
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
    peers: Vec<Peer>,
    own: Spend,
    own_frozen: u128,
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
    /// microseconds. Membership not heard yet are waited for as long, from `now` on.
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
            own_frozen: 0,
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
        self.peers.iter().any(|peer| peer.id == id && peer.silent)
    }

    /// The peers that are heard now, to be told to all.
    pub fn heard_now(&self) -> impl Iterator<Item = ReplicaId> {
        self.peers.iter().filter(|peer| !peer.mute).map(Peer::id)
    }

    /// Whether some peer that is heard does not hear `from`: then what `from` says
    /// is to be passed on, since nobody else may tell that peer.
    #[must_use]
    pub fn misses(&self, from: ReplicaId) -> bool {
        let mut others = self.peers.iter().filter(|peer| peer.id != from && !peer.mute);
        others.any(|peer| peer.misses(from))
    }

    /// Whether anything is passed on at present.
    #[must_use]
    pub fn passes_on(&self) -> bool {
        self.peers.iter().any(|peer| self.misses(peer.id))
    }

    /// A peer was heard. One that is silent stays so until all of its masters have
    /// said all they have to say: what they did meanwhile may be among the rest. A
    /// round that lay on a line that was cut says nothing of now.
    ///
    /// `false` when there are too many peers to know another one.
    pub fn heard(&mut self, round: &Round<'_>, now: Instants) -> bool {
        let place = match self.peers.binary_search_by_key(&round.id, Peer::id) {
            Ok(place) => place,
            Err(_) if self.peers.len().saturating_add(1) >= MAX_REPLICAS => return false,
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
            && round.complete
            && !peer.mute
        {
            peer.round = now.wall;
        }
        true
    }

    /// Looks who has fallen silent; to be called now and then, with what this
    /// region has admitted itself. Returns whether the share has changed.
    pub fn tick(&mut self, own_spent: Option<u64>, now: Instants) -> bool {
        if let Some(spent) = own_spent {
            self.own.sample(spent, now.steady);
        }
        let timeout = self.timeout_us;
        let whole_before = self.peers.iter().all(|peer| !peer.silent) && self.share == WHOLE;
        let mut cut = false;
        for peer in &mut self.peers {
            peer.mute = peer.silence(now) > timeout;
        }
        let rounds: Vec<Option<u64>> =
            self.peers.iter().map(|peer| self.relayed(peer, now)).collect();
        for (peer, round) in self.peers.iter_mut().zip(rounds) {
            peer.silent = peer.mute && round.is_none();
            peer.round = peer.round.max(round.unwrap_or(0));
            cut |= peer.silent;
        }
        // A region that is gone for good, or got another name, would be silent for
        // ever.
        while self.peers.len() >= self.regions.max(1) {
            let Some(gone) = self.peers.iter().position(|peer| peer.silent) else {
                break;
            };
            self.peers.remove(gone);
        }
        if whole_before && cut {
            self.freeze();
        }
        let share = self.share_now(now);
        if share == self.share {
            return false;
        }
        // A clock set back must not make the history run backwards.
        let until = self.earlier.back().map_or(now.wall, |(last, _)| now.wall.max(*last));
        if self.earlier.len() >= MAX_PHASES {
            self.earlier.pop_front();
        }
        self.earlier.push_back((until, self.share));
        self.share = share;
        true
    }

    /// The latest round (wall clock) of those who pass on what a mute peer says.
    fn relayed(&self, peer: &Peer, now: Instants) -> Option<u64> {
        let me = self.me.filter(|_| peer.mute)?;
        (peer.silence(now) > self.timeout_us.saturating_mul(RELAYED)).then_some(())?;
        let others = self.peers.iter().filter(|other| !other.mute);
        others.filter(|other| other.hears(peer.id) && other.hears(me)).map(Peer::round).max()
    }

    /// Notes what each region has spent lately, as it was when the cut happened:
    /// what this side spends until it notices the cut, the other does not see.
    fn freeze(&mut self) {
        let silent = self.peers.iter().filter(|peer| peer.silent);
        let cut = silent.map(Peer::heard).min().unwrap_or(u64::MAX);
        let own = self.own.rate(cut).filter(|_| self.masters == 1);
        let rates: Option<Vec<u128>> = self.peers.iter().map(|peer| peer.rate(cut)).collect();
        // Whoever has not been watched for long enough may have spent anything.
        let (Some(own), Some(rates)) = (own, rates) else {
            self.own_frozen = 0;
            return;
        };
        let all = rates.iter().fold(own, |sum, rate| sum.saturating_add(*rate)).max(1);
        let regions = u128::try_from(self.regions()).unwrap_or(u128::MAX);
        // In a unit in which both parts are whole: rate times regions.
        let part = |rate: u128| {
            let by_spend =
                rate.saturating_mul(regions).saturating_mul(EQUAL_PART.saturating_sub(1));
            by_spend.saturating_add(all)
        };
        self.own_frozen = part(own);
        for (peer, rate) in self.peers.iter_mut().zip(rates) {
            peer.frozen = part(rate);
        }
    }

    fn share_now(&self, now: Instants) -> u16 {
        let regions = self.regions();
        let unheard = regions.saturating_sub(1).saturating_sub(self.peers.len());
        let waiting = now.steady.saturating_sub(self.started) <= self.timeout_us;
        let missing = if waiting { 0 } else { unheard };
        let silent = self.peers.iter().filter(|peer| peer.silent).count();
        if silent.saturating_add(missing) == 0 {
            return WHOLE;
        }
        let permille = |part: u128, all: u128| {
            let share = part.saturating_mul(u128::from(WHOLE)).checked_div(all).unwrap_or(0);
            u16::try_from(share).unwrap_or(WHOLE).min(WHOLE)
        };
        let count = |count: usize| u128::try_from(count).unwrap_or(0);
        let here = regions.saturating_sub(silent).saturating_sub(missing);
        match self.policy {
            PartitionPolicy::Off => WHOLE,
            PartitionPolicy::Equal => permille(count(here), count(regions)),
            // Without spend to go by, all count alike.
            PartitionPolicy::Share if silent == 0 || self.own_frozen == 0 => {
                permille(count(here), count(regions))
            }
            PartitionPolicy::Share => {
                let peers = |silent: bool| {
                    let side = self.peers.iter().filter(move |peer| peer.silent == silent);
                    side.map(|peer| peer.frozen).fold(0_u128, u128::saturating_add)
                };
                let near = peers(false).saturating_add(self.own_frozen);
                let all = near.saturating_add(peers(true));
                let heard = count(self.peers.len().saturating_add(1));
                // Those never heard take their equal part first.
                permille(near.saturating_mul(heard), all.saturating_mul(count(regions)))
            }
        }
    }
}

/// How late the rounds of one sender come, by two clocks that need not agree.
///
/// What lay on a line that was cut comes when it is healed: a round that says that
/// all is said, and is long out of date. Its lateness tells: the time from its
/// sending to its coming, on clocks of unknown difference, against the shortest
/// such time lately.
#[derive(Debug, Clone, Default)]
struct Lateness {
    /// The least difference in this stretch of time, and in the one before it.
    least: Option<(i128, i128)>,
    /// When this stretch began.
    since: u64,
}

/// After how long the least difference is found anew, in microseconds: clocks run
/// apart, and lines change.
const STRETCH_US: u64 = 30_000_000;

impl Lateness {
    /// Microseconds by which a message, sent at `sent` on a steady clock of its
    /// own, comes later at `now` (steady) than others did.
    fn of(&mut self, sent: u64, now: u64) -> u64 {
        let difference = i128::from(now).saturating_sub(i128::from(sent));
        let (mut current, mut before) = self.least.unwrap_or_else(|| {
            self.since = now;
            (difference, difference)
        });
        if now.saturating_sub(self.since) > STRETCH_US {
            (before, current) = (current, difference);
            self.since = now;
        }
        current = current.min(difference);
        self.least = Some((current, before));
        u64::try_from(difference.saturating_sub(current.min(before))).unwrap_or(0)
    }
}

/// What a region has spent lately.
#[derive(Debug, Clone, Default)]
struct Spend {
    /// Sums at instants of the steady clock, oldest first. The last one moves
    /// along, those before it are about [`SAMPLE_US`] apart.
    sums: VecDeque<(u64, u64)>,
}

impl Spend {
    fn sample(&mut self, sum: u64, now: u64) {
        if self.sums.back().is_some_and(|(_, last)| sum < *last) {
            // It began a new life.
            self.sums.clear();
        }
        let before = self.sums.len().checked_sub(2).and_then(|place| self.sums.get(place));
        if before.is_some_and(|(then, _)| now.saturating_sub(*then) < SAMPLE_US) {
            self.sums.pop_back();
        }
        self.sums.push_back((now, sum));
        if self.sums.len() > MAX_SAMPLES {
            self.sums.pop_front();
        }
    }

    /// Tokens in 10^9 microseconds, over the [`RECENT_US`] before `until`; `None`
    /// when it has not been watched then.
    fn rate(&self, until: u64) -> Option<u128> {
        // The last one has gone on here, and has not where it was last heard of
        // before a cut: both sides go by those before it.
        let known = self.sums.len().saturating_sub(1);
        let end = self.sums.partition_point(|(then, _)| *then <= until).min(known);
        let (end, last) = self.sums.get(end.checked_sub(1)?)?;
        let start = self.sums.partition_point(|(then, _)| *then < end.saturating_sub(RECENT_US));
        let (start, first) = self.sums.get(start)?;
        let spent = u128::from(last.saturating_sub(*first)).saturating_mul(1_000_000_000);
        spent.checked_div(u128::from(end.saturating_sub(*start)))
    }
}

#[cfg(test)]
mod tests {
    use super::Lateness;

    #[test]
    fn what_lay_on_the_line_is_late() {
        let mut lateness = Lateness::default();
        // Sent and come in milliseconds; how late.
        let rows = [
            (7, 500, 0),
            (57, 560, 10),
            (107, 600, 0),
            // Held back for nine seconds.
            (157, 9_650, 9_000),
            (9_207, 9_700, 0),
            // A line that has become slower is found to be so after two stretches.
            (9_257, 11_750, 2_000),
            (40_000, 42_493, 2_000),
            (71_000, 73_493, 0),
        ];
        for (sent, come, late) in rows {
            assert_eq!(lateness.of(sent * 1_000, come * 1_000), late * 1_000, "{sent}");
        }
    }
}
