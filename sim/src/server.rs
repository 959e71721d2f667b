//! One region's server: keeps records and their expiries, as the module does, and decides nothing
//! about a bucket itself.

use claw_core::bucket::Demand;
use claw_core::codec::{self, Besides, DebitsText, Names, Wire};
use claw_core::configured::Configured;
use claw_core::debits::{self, Debits, Region, Version};
use claw_core::limits::MICRO;
use claw_core::membership::{Instants, Membership, PartitionPolicy, Round, Statement};
use claw_core::merge::{Join, State};
use claw_core::open::OpenBucket;
use claw_core::plan::{Note, SyncMode};
use claw_core::policy::Policy;
use claw_core::record::{Field, Record};
use claw_core::replica::{ReplicaId, Writer};
use claw_core::shared::SharedBucket;
use std::collections::BTreeMap;

/// Which key.
pub type Name = u32;

/// How regions agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Debit counters.
    Debit,
    /// A strategy that knows states only.
    States(Join),
}

/// What a server is told when it starts.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// How many regions there are.
    pub regions: usize,
    /// The default policy.
    pub policy: Policy,
    /// How they agree.
    pub method: Method,
    /// What they do when they do not hear each other.
    pub guard: PartitionPolicy,
    /// When that is so, in microseconds.
    pub timeout_us: u64,
}

/// A key and when it expires.
#[derive(Debug, Clone)]
struct Slot {
    record: Record,
    /// Unix milliseconds.
    expires: Option<u64>,
}

impl Slot {
    fn is_expired(&self, wall: u64) -> bool {
        self.expires.is_some_and(|ms| ms <= wall / 1_000)
    }
}

/// What is noted of a bucket for the other regions: a [`Note`] and the text of its debits.
pub type Noted = Box<[u8]>;

/// The states of a round as they are sent: when, on the sender's clock, the names that they stand
/// for, and each with its key.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    at: u64,
    names: Names,
    states: Vec<(Name, Box<[u8]>)>,
}

impl Sent {
    /// How many bytes they are, more or less.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let state = |(_, state): &(Name, Box<[u8]>)| state.len() + KEY_BYTES;
        let bytes = HEARTBEAT_BYTES + self.states.iter().map(state).sum::<usize>();
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// What a key takes on the line, with what frames it and its state.
const KEY_BYTES: usize = 30;

/// What the rest of a round takes.
const HEARTBEAT_BYTES: usize = 200;

/// One region's server.
#[derive(Debug)]
pub struct Server {
    config: Config,
    id: ReplicaId,
    defaults: Configured,
    region: Region,
    keys: BTreeMap<Name, Slot>,
    /// Tokens admitted in this life.
    spent: u64,
    /// Some peer does not hear another one.
    passes_on: bool,
    /// What was acknowledged of each key, epoch after epoch as they came.
    acknowledged: BTreeMap<Name, Vec<(u64, Sum)>>,
}

/// Millionths of a token given out and given back.
pub type Sum = (u64, u64);

/// The name of the nth region.
#[must_use]
pub fn id(place: usize) -> ReplicaId {
    let name = [b'a'.saturating_add(u8::try_from(place).unwrap_or(u8::MAX))];
    ReplicaId::new(&name).expect("there are few regions")
}

impl Server {
    /// The nth server, which starts its first life.
    #[must_use]
    pub fn new(config: Config, place: usize, life: u64, now: Instants) -> Self {
        let id = id(place);
        let mut server = Self {
            config,
            id,
            defaults: Configured::new(config.policy),
            region: Region::default(),
            keys: BTreeMap::new(),
            spent: 0,
            passes_on: false,
            acknowledged: BTreeMap::new(),
        };
        server.restart(life, now);
        server
    }

    /// Starts a new life with the keys that are there.
    pub fn restart(&mut self, life: u64, now: Instants) {
        let Config { guard, regions, timeout_us, .. } = self.config;
        self.region.writer = Some(Writer::new(self.id, life));
        self.region.peers = Membership::new(guard, regions, timeout_us, now);
        self.region.peers.set_id(Some(self.id));
        self.spent = 0;
    }

    /// Loses all keys.
    pub fn wipe(&mut self) {
        self.keys.clear();
    }

    /// What a replica of it has, to be promoted later.
    #[must_use]
    pub fn backup(&self) -> Backup {
        Backup(self.keys.clone())
    }

    /// Goes on with the keys of a backup.
    pub fn restore(&mut self, backup: Backup) {
        self.keys = backup.0;
    }

    /// A key becomes what it was in a backup, as by RESTORE without an expiry.
    pub fn restore_key(&mut self, name: Name, backup: &Backup) {
        if let Some(slot) = backup.0.get(&name) {
            self.replace_key(name, Slot { expires: None, ..slot.clone() });
        }
    }

    /// A key becomes a copy of another one, as by COPY with REPLACE.
    pub fn copy_key(&mut self, from: Name, to: Name, wall: u64) {
        if let Some(slot) = self.load(from, wall).cloned() {
            self.replace_key(to, slot);
        }
    }

    /// Not by a call of ours: see [`Writer::begin_life`]. What had been acknowledged for the key
    /// is lost with what was there.
    fn replace_key(&mut self, name: Name, slot: Slot) {
        self.keys.insert(name, slot);
        self.acknowledged.remove(&name);
        if let Some(writer) = &self.region.writer {
            writer.begin_life();
        }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// What it may admit of the limit.
    #[must_use]
    pub fn share(&self) -> u16 {
        self.region.peers.share()
    }

    /// Whether it takes another region to be on the other side of a cut.
    #[must_use]
    pub fn misses(&self, id: ReplicaId) -> bool {
        self.region.peers.is_silent(id)
    }

    /// How many keys there are.
    pub fn kept(&mut self, wall: u64) -> usize {
        self.keys.retain(|_, slot| !slot.is_expired(wall));
        self.keys.len()
    }

    /// The keys whose bucket has been full for more than `us` microseconds, with nothing written
    /// to it meanwhile.
    pub fn overdue(&mut self, us: u64, wall: u64) -> Vec<Name> {
        let then = wall.saturating_sub(us);
        let old = |slot: &Slot| slot.record.timestamp.is_some_and(|at| at < then);
        let live = self.keys.iter().filter(|(_, slot)| !slot.is_expired(wall) && old(slot));
        let names: Vec<Name> = live.map(|(name, _)| *name).collect();
        names.into_iter().filter(|name| self.open(*name, then).owes_nothing()).collect()
    }

    /// The names of its keys.
    #[must_use]
    pub fn names(&self) -> Vec<Name> {
        self.keys.keys().copied().collect()
    }

    /// The epoch in which something was acknowledged last for a key, and what was acknowledged in
    /// it; and, since an epoch may go on with what was counted in the one before, with that, and so
    /// on.
    #[must_use]
    pub fn acknowledged(&self, name: Name) -> Option<(u64, Vec<Sum>)> {
        let epochs = self.acknowledged.get(&name)?;
        let (epoch, _) = epochs.last()?;
        let mut sum = (0, 0);
        let add = |(_, (spent, refunded)): &(u64, Sum)| {
            sum = (sum.0 + spent, sum.1 + refunded);
            sum
        };
        Some((*epoch, epochs.iter().rev().map(add).collect()))
    }

    /// The bucket of a key; `None` when it is missing.
    #[must_use]
    pub fn shared(&mut self, name: Name, wall: u64) -> Option<SharedBucket> {
        self.load(name, wall)?;
        self.open(name, wall).as_shared().cloned()
    }

    /// Millionths of a token held; negative in debt.
    #[must_use]
    pub fn held(&mut self, name: Name, wall: u64) -> i128 {
        self.open(name, wall).bucket().tokens().into()
    }

    fn load(&mut self, name: Name, wall: u64) -> Option<&Slot> {
        if self.keys.get(&name).is_some_and(|slot| slot.is_expired(wall)) {
            self.keys.remove(&name);
        }
        self.keys.get(&name)
    }

    fn open(&mut self, name: Name, wall: u64) -> OpenBucket {
        let record = self.load(name, wall).map(|slot| slot.record.clone());
        match self.config.method {
            Method::Debit => {
                let home = Some(debits::home(0, &name.to_be_bytes()));
                OpenBucket::shared(record, &self.defaults.of(b"key"), &self.region, wall, home)
            }
            Method::States(_) => OpenBucket::new(record, &self.defaults.of(b"key"), wall),
        }
    }

    /// The deepest debt, in millionths: a full bucket, and of each other region one that it
    /// admitted, one that it booked, and what came in there unseen.
    fn most_debt(&self) -> i128 {
        let policy = self.config.policy;
        let refilled = wide(policy.refill()) * wide(self.config.timeout_us);
        let refilled = refilled / wide(policy.interval_us().get()) + 1;
        let capacity = i128::from(policy.capacity_micros());
        let others = i128::try_from(self.config.regions - 1).unwrap_or(i128::MAX);
        capacity + others * (2 * capacity + refilled)
    }

    fn mode(&self) -> SyncMode {
        match self.config.method {
            Method::Debit => SyncMode::Counters,
            Method::States(_) => SyncMode::State,
        }
    }

    /// Writes a bucket as it is planned. Returns what is noted of it.
    fn save(&mut self, name: Name, opened: &mut OpenBucket) -> Option<Noted> {
        let mut text = DebitsText::default();
        let plan = opened.plan(self.mode(), &self.region, &mut text).expect("it can be written");
        let mut record = opened.to_record();
        let debits = plan.is_shared.then(|| text.as_bytes().expect("there is room for it"));
        if let Some(debits) = debits {
            let read = record.read(Field::Debits, debits, plan.bucket.timestamp());
            read.expect("what is written is read");
        }
        let bucket = plan.bucket;
        assert!(bucket.tokens() <= bucket.policy().capacity_micros(), "above its capacity");
        if opened.terms().version == Version::default() {
            // Under another policy more may have been owed.
            assert!(-i128::from(bucket.tokens()) <= self.most_debt(), "a debt beyond all bounds");
        }
        let present = opened.record().and_then(|_| self.keys.get(&name)?.expires);
        let expiry = opened.expiry(false, &self.region);
        let expires = expiry.move_from(present).unwrap_or(present);
        self.keys.insert(name, Slot { record, expires });
        opened.told(&plan, &self.region).map(|note| noted(&note, debits))
    }

    /// Takes tokens or not. They are acknowledged then; returns what is noted, if anything was taken.
    pub fn take(&mut self, name: Name, tokens: u64, wall: u64) -> Option<Noted> {
        let mut opened = self.open(name, wall);
        let answer = opened.take(Demand::all(tokens), wall, &self.region).expect("there is room");
        if answer.taken != tokens {
            return None;
        }
        let noted = self.save(name, &mut opened);
        self.spent += tokens;
        if let Some(acknowledged) = self.acknowledged_now(name, &opened) {
            acknowledged.0 += tokens * MICRO;
        }
        noted
    }

    /// Books what was used where `reserved` tokens were taken before: whole tokens booked beyond
    /// them, or millionths given back. Returns what is noted, too.
    pub fn settle(
        &mut self,
        name: Name,
        (reserved, used): (u64, u64),
        wall: u64,
    ) -> (Settled, Option<Noted>) {
        if used <= reserved {
            let settle = |opened: &mut OpenBucket, region: &Region| {
                opened.settle(reserved, used, wall, region).expect("there is room");
            };
            let (given, noted) = self.give_back(name, wall, settle);
            return (Settled::Given(given), noted);
        }
        let mut opened = self.open(name, wall);
        let before = opened.bucket().tokens();
        let answer = opened.settle(reserved, used, wall, &self.region).expect("there is room");
        if answer.taken == 0 {
            return (Settled::Booked(0), None);
        }
        let (after, policy) = (opened.bucket().tokens(), opened.bucket().policy());
        assert!(after >= before.min(-policy.capacity_micros()), "more than the capacity is owed");
        let noted = self.save(name, &mut opened);
        if let Some(acknowledged) = self.acknowledged_now(name, &opened) {
            acknowledged.0 += answer.taken * MICRO;
        }
        (Settled::Booked(answer.taken), noted)
    }

    /// Gives tokens back; millionths of how much that really was.
    /// Returns what is noted, too.
    pub fn give(&mut self, name: Name, tokens: u64, wall: u64) -> (u64, Option<Noted>) {
        self.give_back(name, wall, |opened, region| {
            opened.give(tokens, wall, region).expect("there is room");
        })
    }

    fn give_back(
        &mut self,
        name: Name,
        wall: u64,
        give: impl FnOnce(&mut OpenBucket, &Region),
    ) -> (u64, Option<Noted>) {
        let mut opened = self.open(name, wall);
        let before = opened.as_shared().map(|shared| shared.counter(self.id).refunded);
        give(&mut opened, &self.region);
        let counter = opened.as_shared().map(|shared| shared.counter(self.id)).unwrap_or_default();
        // A new epoch begins with what this call gave back.
        let given = match before {
            Some(before) if counter.refunded >= before => counter.refunded - before,
            _ => counter.refunded,
        };
        if given == 0 {
            return (0, None);
        }
        let noted = self.save(name, &mut opened);
        if let Some(acknowledged) = self.acknowledged_now(name, &opened) {
            acknowledged.1 += given;
        }
        (given, noted)
    }

    fn acknowledged_now(&mut self, name: Name, opened: &OpenBucket) -> Option<&mut Sum> {
        let epoch = opened.as_shared()?.counter(self.id).epoch;
        let epochs = self.acknowledged.entry(name).or_default();
        if epochs.last().is_none_or(|(last, _)| *last != epoch) {
            epochs.push((epoch, (0, 0)));
        }
        epochs.last_mut().map(|(_, sum)| sum)
    }

    /// Pins a policy. Returns what is noted.
    pub fn pin(&mut self, name: Name, policy: Policy, wall: u64) -> Option<Noted> {
        let mut opened = self.open(name, wall);
        opened.pin(policy, &self.region).expect("there are enough numbers");
        self.save(name, &mut opened)
    }

    /// Forgets a key if it is full; whether it did.
    pub fn forget_full(&mut self, name: Name, wall: u64) -> bool {
        let full = self.load(name, wall).is_some()
            && self.open(name, wall).as_shared().is_some_and(SharedBucket::is_full);
        if full {
            self.keys.remove(&name);
        }
        full
    }

    /// What the walk over all keys notes of one; `None` when it is missing, or owes nothing. An
    /// expiry that was set at another share is mended.
    pub fn visit(&mut self, name: Name, wall: u64) -> Option<Noted> {
        self.load(name, wall)?;
        let opened = self.open(name, wall);
        if let Some(slot) = self.keys.get_mut(&name) {
            let mended = opened.mended_expiry(slot.expires, false, &self.region);
            slot.expires = mended.or(slot.expires);
        }
        if opened.owes_nothing() { None } else { self.note(&opened) }
    }

    /// What can be told of a key, whether anybody needs it or not.
    pub fn state(&mut self, name: Name, wall: u64) -> Option<Noted> {
        self.load(name, wall)?;
        let opened = self.open(name, wall);
        self.note(&opened)
    }

    fn note(&self, opened: &OpenBucket) -> Option<Noted> {
        let mut text = DebitsText::default();
        let note = opened.note(self.mode(), &self.region, &mut text)?;
        let debits = opened.as_shared().map(|_| text.as_bytes().expect("there is room for it"));
        Some(noted(&note, debits))
    }

    /// What has been noted becomes what is sent.
    #[must_use]
    pub fn sent(&self, notes: &[(Name, Noted)], wall: u64) -> Sent {
        let mut sent = Sent { at: wall, ..Sent::default() };
        let mut debits = Debits::default();
        for (name, noted) in notes {
            let (note, text) = Note::read(noted).expect("what is noted is read");
            let mut state = Vec::new();
            match note.counted {
                Some(_) => {
                    let names = &mut sent.names;
                    assert!(codec::encode_wire(&note, text, names, &mut debits, &mut state));
                }
                None => {
                    let bucket = State::of(note.bucket, note.stored);
                    let written = codec::encode(&bucket, &Besides::default());
                    state = written.expect("it can be written");
                }
            }
            sent.states.push((*name, state.into()));
        }
        sent
    }

    /// Takes in states. Returns what has to be sent out for them.
    pub fn receive(&mut self, sent: &Sent, from: ReplicaId, wall: u64) -> Vec<(Name, Noted)> {
        let mut wire = Wire::new(from, sent.names.clone(), sent.at);
        let mut out = Vec::new();
        for (name, state) in &sent.states {
            let noted = match self.config.method {
                Method::Debit => self.receive_counters(*name, state, &mut wire, wall),
                Method::States(strategy) => self.receive_state(*name, state, strategy, wall),
            };
            out.extend(noted.map(|noted| (*name, noted)));
        }
        out
    }

    fn receive_counters(
        &mut self,
        name: Name,
        state: &[u8],
        wire: &mut Wire,
        wall: u64,
    ) -> Option<Noted> {
        let remote = codec::decode_wire(state, wall, wire).expect("what is sent is read");
        let mut opened = self.open(name, wall);
        let received = opened.receive(remote, &self.region);
        let received = received.expect("it can be");
        if received.changed {
            return self.save(name, &mut opened);
        }
        if received.rebroadcast { self.note(&opened) } else { None }
    }

    fn receive_state(
        &mut self,
        name: Name,
        state: &[u8],
        strategy: Join,
        wall: u64,
    ) -> Option<Noted> {
        let sent = codec::decode(state, wall).expect("what is sent is read");
        let sent = Record::from(&sent).state(&self.defaults.of(b"key"), wall);
        let record = self.load(name, wall).map(|slot| slot.record.clone());
        let merged = match &record {
            None => sent,
            Some(record) => record.state(&self.defaults.of(b"key"), wall).join(&sent, strategy),
        };
        self.save(
            name,
            &mut OpenBucket::merged(record, &merged, &self.defaults.of(b"key"), true, wall),
        )
    }

    /// A peer was heard.
    pub fn heard(&mut self, round: &Round<'_>, now: Instants) {
        self.region.peers.heard(round, now);
    }

    /// A process of a peer has answered a round with the statement of this number.
    pub fn answered(&mut self, id: ReplicaId, run: &[u8], number: u64) {
        self.region.peers.acknowledged(id, run, number);
    }

    /// A peer refuses its states, or does not any more.
    pub fn refused_by(&mut self, id: ReplicaId, refuses: bool) {
        self.region.peers.refuses(id, refuses);
    }

    /// What it says of itself.
    #[must_use]
    pub fn statement(&self) -> Statement {
        self.region.peers.statement()
    }

    /// Whom it hears.
    #[must_use]
    pub fn hears(&self) -> Vec<ReplicaId> {
        self.region.peers.heard_now().collect()
    }

    /// Looks who has fallen silent. Returns whether it begins to pass on.
    pub fn tick(&mut self, now: Instants) -> bool {
        let spent = self.spent;
        self.region.peers.tick(Some(spent), now);
        let before = std::mem::replace(&mut self.passes_on, self.region.peers.passes_on());
        self.passes_on && !before
    }
}

/// What a settlement came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// So many tokens more were booked.
    Booked(u64),
    /// So many millionths went back.
    Given(u64),
}

/// The keys of a server at some moment.
#[derive(Debug, Clone)]
pub struct Backup(BTreeMap<Name, Slot>);

fn wide(number: u64) -> i128 {
    number.into()
}

fn noted(note: &Note, debits: Option<&[u8]>) -> Noted {
    [note.to_bytes().as_bytes(), debits.unwrap_or_default()].concat().into()
}

/// The counters of a bucket.
#[must_use]
pub fn counters(bucket: &SharedBucket) -> Vec<(ReplicaId, u64, u64, u64)> {
    let counted = bucket.accounts().iter().filter(|account| account.counter.epoch != 0);
    let counters = counted.map(|account| {
        let counter = account.counter;
        (account.id, counter.epoch, counter.spent, counter.refunded)
    });
    counters.collect()
}
