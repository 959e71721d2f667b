//! Region sync: which keys other regions share, and what they are sent.
//!
//! The commands note each bucket they change; the threads of `claw-sync` send it
//! to every peer. What comes in are ordinary commands. So nothing here waits for
//! the network, and no thread ever needs the server's lock.

mod heartbeat;

use crate::config::{self, Settings};
use crate::error::Error;
use crate::host::{Context, Str};
use crate::strategy::Strategy;
use claw_core::codec::{self, Besides, DebitsText, Names};
use claw_core::debits::{self, Debits, Region};
use claw_core::glob::Globs;
use claw_core::membership::{self, Instants, Membership, Peer, WHOLE};
use claw_core::merge::State;
use claw_core::plan::{Note, SyncMode};
use claw_core::replica::{ReplicaId, Writer};
use claw_sync::{
    Config, Credentials, Files, Identity, Limits, Messages, PeerState, PeerStatus, PeerUrl, Pusher,
    Round, StartError, Value,
};
use heartbeat::Heartbeat;
use std::cell::{Cell, Ref, RefCell, RefMut};
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::CStr;
use std::hash::{BuildHasher, Hasher};
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long stopping the threads may hold up the server.
const STOPPING: Duration = Duration::from_millis(500);

/// How long after a refused unloading, or a start that failed, everything begins again.
const RESUMING: Duration = Duration::from_secs(5);

/// How often the masters of this region's cluster are counted, in microseconds.
const COUNTING_US: u64 = 500_000;

/// Most buckets that are known to have come from elsewhere: above that, every bucket is taken to
/// be one of them, once.
const MOST_ARRIVED: usize = 100_000;

/// Most buckets that wait for a function.
const MOST_CHANGED: usize = 100_000;

/// Everything of region sync that lives on the main thread.
#[derive(Debug)]
pub(crate) struct Regions {
    /// This region among the others, as the buckets see it.
    region: RefCell<Region>,
    sharing: RefCell<Option<Sharing>>,
    /// What the senders show to peers. It outlives them, as long as the files are
    /// the same: what was read of one that is broken now is still good.
    credentials: RefCell<Arc<Credentials>>,
    /// The configuration has to be [applied](Regions::apply) again, although it may be the same.
    again: Cell<bool>,
    /// Senders of an earlier configuration whose threads still hang.
    stopping: RefCell<Vec<Pusher>>,
    /// Buckets that a function has to make anew, since they were changed here.
    changed: RefCell<BTreeSet<Place>>,
    /// The last of them that it was given: the next in order comes next, so that
    /// no bucket waits for another that is changed all the time.
    folded: RefCell<Place>,
    /// How often the keys of a database were exchanged for others, if they ever were.
    exchanged: RefCell<Vec<(u32, u32)>>,
    /// Buckets that have come to their places otherwise than by commands of ours and have not been
    /// written since, by their [marks](Regions::mark).
    arrived: RefCell<HashSet<u64>>,
    marks: RandomState,
    /// See [`Regions::scratch`].
    scratch: RefCell<DebitsText>,
    /// Tokens admitted in this life, of shared buckets.
    spent: Cell<u64>,
    heartbeat: Arc<Heartbeat>,
    /// The fingerprint of each region's rules, as its latest heartbeat had it.
    rules: RefCell<BTreeMap<ReplicaId, u64>>,
    /// What some peer says is passed on to another that does not hear it.
    passes_on: Cell<bool>,
    /// The share that [`Regions::watch`] has returned last.
    told: Cell<u16>,
    /// When they were counted, see [`Regions::instants`].
    counted_masters: Cell<u64>,
    /// Tells this life from the one before: peers take another one for another process.
    run: Cell<u64>,
    born: Instant,
    /// States that came from peers and were merged.
    pub(crate) received: Cell<u64>,
    /// States that came from peers and were not.
    rejected: Cell<u64>,
    /// As which role the configuration was [applied](Regions::apply).
    primary: Cell<bool>,
    /// When to begin again after an unloading that was refused, or a start that failed.
    resumes: Cell<Option<Instant>>,
}

/// A database and a key in it.
type Place = (u32, Box<[u8]>);

/// Sync as it is on.
#[derive(Debug)]
struct Sharing {
    strategy: Strategy,
    keys: Globs,
    pusher: Pusher,
}

impl Sharing {
    fn takes_part(&self, key: Str<'_>) -> bool {
        self.keys.matches(key.as_bytes())
    }
}

/// A number that no other process, and no other call, draws.
fn random() -> u64 {
    // The keys of every RandomState come from the system's randomness.
    RandomState::new().build_hasher().finish()
}

impl Default for Regions {
    fn default() -> Self {
        Self {
            region: RefCell::default(),
            sharing: RefCell::default(),
            credentials: RefCell::default(),
            again: Cell::new(false),
            stopping: RefCell::default(),
            changed: RefCell::default(),
            folded: RefCell::default(),
            exchanged: RefCell::default(),
            arrived: RefCell::default(),
            marks: RandomState::new(),
            scratch: RefCell::default(),
            spent: Cell::new(0),
            heartbeat: Arc::default(),
            rules: RefCell::default(),
            passes_on: Cell::new(false),
            told: Cell::new(WHOLE),
            counted_masters: Cell::new(0),
            run: Cell::new(random()),
            born: Instant::now(),
            received: Cell::new(0),
            rejected: Cell::new(0),
            primary: Cell::new(false),
            resumes: Cell::new(None),
        }
    }
}

impl Regions {
    /// This region as the buckets see it. It is changed between commands only.
    pub(crate) fn region(&self) -> Result<Ref<'_, Region>, Error> {
        self.region.try_borrow().map_err(|_| Error::Busy)
    }

    /// The name of this region.
    pub(crate) fn id(&self) -> Result<Option<ReplicaId>, Error> {
        Ok(self.region()?.writer.as_ref().map(Writer::id))
    }

    /// Tells this life from the one before: peers take another one for another process.
    pub(crate) fn run(&self) -> u64 {
        self.run.get()
    }

    /// What is shared, and a way to tell peers of it that cannot fail any more.
    pub(crate) fn notes(&self) -> Result<Notes<'_>, Error> {
        let sharing = self.sharing.try_borrow().map_err(|_| Error::Busy)?;
        Ok(Notes { regions: self, sharing })
    }

    /// How a key takes part.
    pub(crate) fn mode(&self, key: Str<'_>) -> Result<SyncMode, Error> {
        Ok(self.notes()?.mode(key))
    }

    /// Has a function make a bucket anew, between commands: within a command it
    /// may be that none can be called.
    fn fold_later(&self, db: u32, key: Str<'_>) {
        let changed = self.changed.try_borrow_mut();
        debug_assert!(changed.is_ok(), "the list of changed buckets is in use");
        // With more, the walk over all keys finds the rest.
        if let Ok(mut changed) = changed
            && changed.len() < MOST_CHANGED
        {
            changed.insert((db, key.as_bytes().into()));
        }
    }

    /// The next bucket that a function has to make anew.
    pub(crate) fn next_changed(&self) -> Option<Place> {
        let mut changed = self.changed.try_borrow_mut().ok()?;
        let mut folded = self.folded.try_borrow_mut().ok()?;
        let next = changed.range((Bound::Excluded(&*folded), Bound::Unbounded)).next();
        let next = next.or_else(|| changed.first())?.clone();
        changed.remove(&next);
        folded.clone_from(&next);
        Some(next)
    }

    /// A state came from a peer, and was merged or not.
    pub(crate) fn receive(&self, merged: bool) {
        let count = if merged { &self.received } else { &self.rejected };
        count.set(count.get().saturating_add(1));
    }

    /// The strategy of what is sent; `None` when sync is off.
    pub(crate) fn strategy(&self) -> Result<Option<Strategy>, Error> {
        Ok(self.notes()?.sharing.as_ref().map(|sharing| sharing.strategy.clone()))
    }

    /// Whether what some peer says is passed on to another that does not hear it.
    pub(crate) fn passes_on(&self) -> bool {
        self.passes_on.get()
    }

    /// Where the text of a `debits` field can be written.
    pub(crate) fn scratch(&self) -> Result<RefMut<'_, DebitsText>, Error> {
        self.scratch.try_borrow_mut().map_err(|_| Error::Busy)
    }

    /// This moment on both clocks; `wall` in unix microseconds.
    pub(crate) fn instants(&self, wall: u64) -> Instants {
        let steady = u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX);
        Instants { wall, steady }
    }

    /// A peer was heard. `false` when there are too many to know.
    pub(crate) fn heard(&self, round: &membership::Round<'_>, wall: u64) -> Result<bool, Error> {
        let now = self.instants(wall);
        let mut region = self.region.try_borrow_mut().map_err(|_| Error::Busy)?;
        Ok(region.peers.heard(round, now))
    }

    /// A region whose heartbeat is taken has said which rules it goes by.
    pub(crate) fn told_rules(&self, id: ReplicaId, rules: Option<u64>) -> Result<(), Error> {
        let mut known = self.rules.try_borrow_mut().map_err(|_| Error::Busy)?;
        match rules {
            Some(rules) => known.insert(id, rules),
            None => known.remove(&id),
        };
        Ok(())
    }

    /// Whether another region goes by other rules than `ours`; `None` for one that has not said.
    pub(crate) fn has_other_rules(&self, id: ReplicaId, ours: u64) -> Option<bool> {
        let known = self.rules.try_borrow().ok()?;
        known.get(&id).map(|rules| *rules != ours)
    }

    /// How many regions go by other rules than this one.
    fn other_rules(&self) -> usize {
        let ours = self.heartbeat.rules();
        self.rules.try_borrow().map_or(0, |known| known.values().filter(|of| **of != ours).count())
    }

    /// Goes by the configuration as it is now, and by the server's role: only a
    /// primary counts and sends. Returns what is to be logged.
    pub(crate) fn apply(&self, settings: &Settings, primary: bool, wall: u64) -> Option<String> {
        let sync = settings.sync();
        let now = self.instants(wall);
        let (Ok(mut region), Ok(mut sharing), Ok(mut credentials)) = (
            self.region.try_borrow_mut(),
            self.sharing.try_borrow_mut(),
            self.credentials.try_borrow_mut(),
        ) else {
            debug_assert!(false, "region sync is in use while it is configured");
            self.again.set(true);
            return Some("region sync is in use and will be configured later".to_owned());
        };
        self.primary.set(primary);
        self.again.set(false);
        self.resumes.set(None);
        let id = sync.replica_id.filter(|_| primary);
        if region.writer.as_ref().map(Writer::id) != id {
            // A new life: what was counted before it is never counted on. A replica may have been
            // given other data since it was a primary, and peers another primary in its place.
            region.writer = id.map(|id| Writer::new(id, random()));
            self.run.set(random());
        }
        if id.is_none() || sync.peers.is_empty() {
            // A replica is told nothing by any peer, and does not miss it.
            region.peers = Membership::default();
            self.told.set(region.peers.share());
        } else {
            let regions = sync.peers.len().saturating_add(1);
            let timeout = sync.partition_timeout_ms.saturating_mul(1_000);
            region.peers.configure(sync.guard, regions, timeout, now);
            region.peers.set_id(sync.replica_id);
        }
        if let Some(before) = sharing.take() {
            self.stop(before.pusher);
        }
        let id = id.filter(|_| !sync.peers.is_empty())?;
        let heartbeat = Arc::clone(&self.heartbeat);
        let (run, born, scratch) = (self.run.get(), self.born, Mutex::default());
        let (strategy, names) = (sync.strategy.to_string(), Mutex::default());
        let messages = Told { id, strategy, names, run, born, heartbeat, scratch };
        if *credentials.files() == files(sync) {
            credentials.refresh();
        } else {
            *credentials = Arc::new(Credentials::new(files(sync)));
        }
        let started = pusher_config(sync, &credentials).and_then(|config| {
            Pusher::start(config, Arc::new(messages)).map_err(|why| {
                if let StartError::Thread(_) = why {
                    // The system may have more of them later.
                    self.resume_later();
                }
                why.to_string()
            })
        });
        match started {
            Ok(pusher) => {
                let (strategy, keys) = (sync.strategy.clone(), sync.keys.clone());
                *sharing = Some(Sharing { strategy, keys, pusher });
                None
            }
            Err(why) => Some(format!("region sync cannot start: {why}")),
        }
    }

    fn stop(&self, pusher: Pusher) {
        let Err(pusher) = pusher.stop(STOPPING) else {
            return;
        };
        match self.stopping.try_borrow_mut() {
            Ok(mut stopping) => stopping.push(pusher),
            Err(_) => debug_assert!(false, "the list of senders that stop is in use"),
        }
    }

    /// Tells peers what they have not heard, before the server ends; waits at most `patience`.
    pub(crate) fn drain(&self, patience: Duration) -> bool {
        self.with_pusher(|pusher| pusher.drain(patience)).unwrap_or(true)
    }

    /// Many buckets are not what was made of them here: all were loaded. What is counted from now
    /// on is counted anew, in every bucket. What was counted before and not sent yet is never
    /// told: so this is not for what happens often.
    pub(crate) fn begin_life(&self) -> Result<(), Error> {
        if let Some(writer) = &self.region()?.writer {
            writer.begin_life();
        }
        self.arrived.try_borrow_mut().map_err(|_| Error::Busy)?.clear();
        Ok(())
    }

    /// All keys of a database are others now.
    pub(crate) fn exchanged(&self, db: u32) -> Result<(), Error> {
        let mut exchanged = self.exchanged.try_borrow_mut().map_err(|_| Error::Busy)?;
        match exchanged.iter_mut().find(|(known, _)| *known == db) {
            Some((_, times)) => *times = times.wrapping_add(1),
            None => exchanged.push((db, 1)),
        }
        Ok(())
    }

    /// What [`Debits::home`] is for a key here: another one after each exchange of its database.
    pub(crate) fn home(&self, db: u32, key: &[u8]) -> Result<u32, Error> {
        let exchanged = self.exchanged.try_borrow().map_err(|_| Error::Busy)?;
        // Mostly there was none.
        let times = exchanged.iter().find(|(known, _)| *known == db).map_or(0, |(_, times)| *times);
        Ok(debits::home((u64::from(times) << 32) | u64::from(db), key))
    }

    /// Stands for a key among those that arrived. Another one that has the same only begins its
    /// counters anew, too.
    fn mark(&self, db: u32, key: Str<'_>) -> u64 {
        self.marks.hash_one((db, key.as_bytes()))
    }

    /// A bucket with counters is not what was made of it here: it has been restored, copied, moved
    /// or renamed. Its counters may be older than what peers have seen.
    pub(crate) fn arrived(&self, db: u32, key: Str<'_>) -> Result<(), Error> {
        if self.id()?.is_none() {
            // All of them are begun anew by whoever writes here next.
            return Ok(());
        }
        let many = {
            let mut arrived = self.arrived.try_borrow_mut().map_err(|_| Error::Busy)?;
            arrived.insert(self.mark(db, key));
            arrived.len() > MOST_ARRIVED
        };
        if many { self.begin_life() } else { Ok(()) }
    }

    /// Whether a bucket's counters are not to be continued, see [`Self::arrived`].
    pub(crate) fn has_arrived(&self, db: u32, key: Str<'_>) -> Result<bool, Error> {
        let arrived = self.arrived.try_borrow().map_err(|_| Error::Busy)?;
        Ok(!arrived.is_empty() && arrived.contains(&self.mark(db, key)))
    }

    /// A bucket has been written without the counters that it had come with.
    pub(crate) fn settled(&self, db: u32, key: Str<'_>) {
        match self.arrived.try_borrow_mut() {
            Ok(mut arrived) if !arrived.is_empty() => {
                arrived.remove(&self.mark(db, key));
            }
            // It stays marked, and is begun anew once more.
            arrived => debug_assert!(arrived.is_ok(), "those that arrived are in use"),
        }
    }

    /// Ends all threads; `false` when one of them still hangs.
    pub(crate) fn end(&self) -> bool {
        let Ok(mut sharing) = self.sharing.try_borrow_mut() else {
            debug_assert!(false, "region sync is in use while it is ended");
            return false;
        };
        if let Some(sharing) = sharing.take() {
            self.stop(sharing.pusher);
        }
        let ended = self.join(STOPPING);
        if !ended {
            // The module stays: unless it is unloaded soon, sync goes on.
            self.resume_later();
        }
        ended
    }

    fn resume_later(&self) {
        self.resumes.set(Instant::now().checked_add(RESUMING));
    }

    /// Whether the configuration has to be [applied](Self::apply) again.
    pub(crate) fn is_stale(&self, primary: bool) -> bool {
        let resumes = self.resumes.get().is_some_and(|at| Instant::now() >= at);
        resumes || self.again.get() || self.primary.get() != primary
    }

    /// Has the configuration [applied](Self::apply) again, although it may be the same: what is
    /// in the files may have changed.
    pub(crate) fn apply_again(&self) {
        self.again.set(true);
    }

    /// What is wrong with the files, if the log has not been told yet.
    pub(crate) fn complaint(&self) -> Option<String> {
        self.credentials.try_borrow().ok()?.complaint()
    }

    /// Waits for senders of earlier configurations.
    pub(crate) fn join(&self, patience: Duration) -> bool {
        let Ok(mut stopping) = self.stopping.try_borrow_mut() else {
            return false;
        };
        let hanging = std::mem::take(&mut *stopping);
        stopping.extend(hanging.into_iter().filter_map(|pusher| pusher.stop(patience).err()));
        stopping.is_empty()
    }

    /// Whether anything is sent.
    pub(crate) fn is_on(&self) -> bool {
        self.sharing.try_borrow().is_ok_and(|sharing| sharing.is_some())
    }

    /// Does a round at once, without waiting for it. `false` when sync is off.
    pub(crate) fn flush(&self) -> bool {
        self.with_pusher(Pusher::flush).is_some()
    }

    /// What every sender says of itself; empty when sync is off.
    pub(crate) fn status(&self) -> Vec<PeerStatus> {
        self.with_pusher(Pusher::status).unwrap_or_default()
    }

    /// Name and value of each number for `INFO claw`: sums over all peers, but for
    /// the lag, which is that of the peer furthest behind.
    pub(crate) fn counters(&self) -> [(&'static CStr, u64); 16] {
        let peers = self.status();
        let sum = |of: fn(&PeerStatus) -> u64| peers.iter().map(of).fold(0, u64::saturating_add);
        let connected = |peer: &PeerStatus| u64::from(peer.state == PeerState::Connected);
        let lag = peers.iter().map(|peer| peer.lag.as_millis()).max().unwrap_or(0);
        let (silent, share) = self.region().map_or((0, WHOLE), |region| {
            let silent = region.peers.all().iter().filter(|peer| Peer::is_silent(peer)).count();
            (silent, region.peers.share())
        });
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        [
            (c"sync_peers", count(peers.len())),
            (c"sync_peers_connected", sum(connected)),
            (c"sync_peers_silent", count(silent)),
            (c"sync_peers_rules_differ", count(self.other_rules())),
            (c"sync_share_permille", u64::from(share)),
            (c"sync_lag_ms", u64::try_from(lag).unwrap_or(u64::MAX)),
            (c"sync_queue", sum(|peer| peer.queued)),
            (c"sync_states_sent", sum(|peer| peer.states_sent)),
            (c"sync_states_refused", sum(|peer| peer.states_refused)),
            (c"sync_states_received", self.received.get()),
            (c"sync_states_rejected", self.rejected.get()),
            (c"sync_bytes_sent", sum(|peer| peer.bytes_sent)),
            (c"sync_rounds", sum(|peer| peer.rounds)),
            (c"sync_connections", sum(|peer| peer.connections)),
            (c"sync_errors", sum(|peer| peer.errors)),
            (c"sync_overruns", sum(|peer| peer.overruns)),
        ]
    }

    pub(crate) fn with_pusher<T>(&self, ask: impl FnOnce(&Pusher) -> T) -> Option<T> {
        let sharing = self.sharing.try_borrow().ok()?;
        sharing.as_ref().map(|sharing| ask(&sharing.pusher))
    }

    /// Looks who has fallen silent. Returns the share when it is another one than was returned
    /// last: a round may have changed it, too.
    pub(crate) fn watch(&self, ctx: &Context<'_>, wall: u64) -> Option<u16> {
        let now = self.instants(wall);
        let region = self.region.try_borrow_mut();
        debug_assert!(region.is_ok(), "the peers are in use between commands");
        let mut region = region.ok()?;
        if self.is_on() && now.steady.saturating_sub(self.counted_masters.get()) >= COUNTING_US {
            self.counted_masters.set(now.steady);
            if let Some((masters, is_one)) = ctx.masters() {
                // A cluster that is being made has none yet.
                let masters = masters.max(1);
                self.heartbeat.set_masters(masters, is_one);
                region.peers.set_masters(masters);
            }
        }
        let refusing: Vec<ReplicaId> = self.with_pusher(refusing_regions).unwrap_or_default();
        let heard: Vec<ReplicaId> = region.peers.all().iter().map(Peer::id).collect();
        for id in heard {
            region.peers.refuses(id, refusing.contains(&id));
        }
        if let Ok(settings) = ctx.module().settings() {
            self.heartbeat.set_rules(settings.configured().rules().fingerprint());
        }
        region.peers.tick(Some(self.spent.get()), now);
        self.heartbeat.exchange(&mut region.peers);
        if let Ok(mut rules) = self.rules.try_borrow_mut() {
            rules.retain(|id, _| region.peers.all().iter().any(|peer| peer.id() == *id));
        }
        self.passes_on.set(region.peers.passes_on());
        let share = region.peers.share();
        (self.told.replace(share) != share).then_some(share)
    }
}

/// [`Regions::notes`].
pub(crate) struct Notes<'a> {
    regions: &'a Regions,
    sharing: Ref<'a, Option<Sharing>>,
}

impl Notes<'_> {
    /// How a key takes part.
    pub(crate) fn mode(&self, key: Str<'_>) -> SyncMode {
        match &*self.sharing {
            Some(sharing) if sharing.takes_part(key) => match sharing.strategy {
                Strategy::Debit => SyncMode::Counters,
                Strategy::BuiltIn(_) => SyncMode::State,
                Strategy::Function(_) => SyncMode::Folded,
            },
            _ => SyncMode::None,
        }
    }

    /// Notes for all peers what has become of a bucket that [takes part](Self::mode), of which
    /// `admitted` tokens were taken. `debits` is the text of its field, if it has one.
    pub(crate) fn note(
        &self,
        db: u32,
        key: Str<'_>,
        note: &Note,
        debits: Option<&[u8]>,
        admitted: u64,
    ) {
        let Some(sharing) = &*self.sharing else {
            debug_assert!(false, "a note of a bucket that is not shared");
            return;
        };
        let bytes = note.to_bytes();
        let parts = [bytes.as_bytes(), debits.unwrap_or_default()];
        sharing.pusher.note(db, key.as_bytes(), &parts);
        if let Strategy::Function(_) = sharing.strategy {
            self.regions.fold_later(db, key);
        }
        let spent = &self.regions.spent;
        spent.set(spent.get().saturating_add(admitted));
    }
}

/// The regions that answer, and refuse what they are sent.
fn refusing_regions(pusher: &Pusher) -> Vec<ReplicaId> {
    let names = pusher.refusing().filter_map(|(_, name)| name);
    names.filter_map(|name| name.parse().ok()).collect()
}

fn files(sync: &config::SyncSettings) -> Files {
    let file = |name: &String| Some(PathBuf::from(name)).filter(|_| !name.is_empty());
    Files {
        ca: file(&sync.tls_ca_cert_file),
        cert: file(&sync.tls_cert_file),
        key: file(&sync.tls_key_file),
        password: file(&sync.password_file),
    }
}

fn pusher_config(
    sync: &config::SyncSettings,
    credentials: &Arc<Credentials>,
) -> Result<Config, String> {
    let lacks_password = |peer: &&PeerUrl| peer.lacks_password();
    if let (None, Some(peer)) =
        (&credentials.files().password, sync.peers.iter().find(lacks_password))
    {
        return Err(format!("{peer} has a user and no password"));
    }
    let limits = Limits::default();
    // A peer that speaks eight times before it would be missed is not missed.
    let seldom = Duration::from_millis(sync.partition_timeout_ms / 8);
    Ok(Config {
        peers: sync.peers.clone(),
        interval: Duration::from_millis(sync.interval_ms),
        credentials: Arc::clone(credentials),
        limits: Limits { stretched_interval: limits.stretched_interval.min(seldom), ..limits },
    })
}

/// What peers are told.
#[derive(Debug)]
struct Told {
    id: ReplicaId,
    strategy: String,
    /// The names that states stand for.
    names: Mutex<Names>,
    run: u64,
    born: Instant,
    heartbeat: Arc<Heartbeat>,
    /// Where debits are read, so that their place need not be made each time.
    scratch: Mutex<Debits>,
}

impl Messages for Told {
    fn states_command(&self) -> Vec<Vec<u8>> {
        let sent = wall_clock().to_string();
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner).to_text();
        let words = ["CL.SYNC", "STATES", self.id.as_str(), &sent, &self.strategy, &names];
        words.into_iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    fn heartbeat(&self, round: &Round) -> Vec<Vec<u8>> {
        self.heartbeat.words(self.id, self.run, self.born.elapsed().as_micros(), round)
    }

    fn state(&self, note: &[u8], out: &mut Vec<u8>) {
        // Were there a note that makes no state, an empty one would be sent: the peer refuses it,
        // which both sides count.
        let read = Note::read(note);
        debug_assert!(read.is_some(), "a note that cannot be read");
        let Some((note, text)) = read else {
            return;
        };
        if note.counted.is_none() {
            // Without fields of later versions it can always be written.
            let state = State::of(note.bucket, note.stored).pinned_by(note.temporary);
            let blob = codec::encode(&state, &Besides::default());
            debug_assert!(blob.is_ok(), "a state that cannot be written");
            return out.extend(blob.unwrap_or_default());
        }
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let written = codec::encode_wire(&note, text, &mut names, &mut scratch, out);
        debug_assert!(written, "debits that cannot be read");
    }

    fn heard(&self, peer: usize, reply: &Value) -> Identity {
        self.heartbeat.answered(peer, reply)
    }
}

/// The system's wall clock in unix microseconds, which is the server's too; 0 before 1970, which
/// credits nothing.
fn wall_clock() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}
