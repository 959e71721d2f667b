//! Region sync: which keys other regions share, and what they are sent.
//!
//! The commands note each bucket they change; the threads of `claw-sync` send it
//! to every peer. What comes in are ordinary commands. So nothing here waits for
//! the network, and no thread ever needs the server's lock.

mod heartbeat;
mod note;
mod sweep;

use crate::config::{self, Settings};
use crate::error::Error;
use crate::host::{Context, Str};
use crate::store::EncodedBucket;
use crate::strategy::Strategy;
use claw_core::codec::{self, DebitsText};
use claw_core::debit::{Debits, Region};
use claw_core::glob;
use claw_core::membership::{self, Instants, Membership, Peer, WHOLE};
use claw_core::record::OpenBucket;
use claw_core::replica::{ReplicaId, Writer};
use claw_sync::{
    Config, Identity, Limits, Messages, PeerState, PeerStatus, Pusher, Round, Tls, Value,
};
use heartbeat::Heartbeat;
use note::Note;
use std::cell::{Cell, RefCell, RefMut};
use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::ffi::CStr;
use std::hash::{BuildHasher, Hasher};
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use sweep::Sweep;
pub(crate) use sweep::tick;

/// How long a change may wait for a peer before the buckets are kept that would
/// expire meanwhile.
const AWAITED: Duration = Duration::from_secs(10);

/// How long stopping the threads may hold up the server.
const STOPPING: Duration = Duration::from_millis(500);

/// How long after a refused unloading everything begins again.
const RESUMING: Duration = Duration::from_secs(5);

/// How often the masters of this region's cluster are counted, in microseconds.
const COUNTING_US: u64 = 500_000;

/// Most buckets that wait for a function.
const MOST_CHANGED: usize = 100_000;

/// Everything of region sync that lives on the main thread.
#[derive(Debug)]
pub(crate) struct Regions {
    /// This region among the others, as the buckets see it.
    region: RefCell<Region>,
    sharing: RefCell<Option<Sharing>>,
    /// Senders of an earlier configuration whose threads still hang.
    stopping: RefCell<Vec<Pusher>>,
    sweep: RefCell<Sweep>,
    /// Buckets that a function has to make anew, since they were changed here.
    changed: RefCell<BTreeSet<Place>>,
    /// The last of them that it was given: the next in order comes next, so that
    /// no bucket waits for another that is changed all the time.
    folded: RefCell<Place>,
    /// See [`Regions::scratch`].
    scratch: RefCell<DebitsText>,
    /// Some peer may not know all that was counted here.
    awaited: Cell<bool>,
    /// Tokens admitted in this life, of shared buckets.
    spent: Cell<u64>,
    heartbeat: Arc<Heartbeat>,
    /// What some peer says is passed on to another that does not hear it.
    passes_on: Cell<bool>,
    /// When they were counted, see [`Regions::instants`].
    counted_masters: Cell<u64>,
    /// Tells this process from the one before.
    run: u64,
    born: Instant,
    /// States that came from peers and were merged.
    pub(crate) received: Cell<u64>,
    /// As which role the configuration was [applied](Regions::apply).
    primary: Cell<bool>,
    /// When to begin again after an unloading that was refused.
    resumes: Cell<Option<Instant>>,
}

/// A database and a key in it.
type Place = (u32, Box<[u8]>);

/// Sync as it is on.
#[derive(Debug)]
struct Sharing {
    id: ReplicaId,
    strategy: Strategy,
    /// `None` for all.
    keys: Option<String>,
    pusher: Pusher,
}

impl Sharing {
    fn takes_part(&self, key: Str<'_>) -> bool {
        let matches = |pattern: &String| glob::matches(pattern.as_bytes(), key.as_bytes());
        self.keys.as_ref().is_none_or(matches)
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
            stopping: RefCell::default(),
            sweep: RefCell::default(),
            changed: RefCell::default(),
            folded: RefCell::default(),
            scratch: RefCell::default(),
            awaited: Cell::new(false),
            spent: Cell::new(0),
            heartbeat: Arc::default(),
            passes_on: Cell::new(false),
            counted_masters: Cell::new(0),
            run: random(),
            born: Instant::now(),
            received: Cell::new(0),
            primary: Cell::new(false),
            resumes: Cell::new(None),
        }
    }
}

/// How a key takes part in region sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyncMode {
    /// Not at all.
    None,
    /// What is taken of it is counted.
    Counters,
    /// Its state is sent as it is.
    State,
    /// Its state is sent, and the regions' states are folded by a function.
    Folded,
}

impl Regions {
    /// This region as the buckets see it. It is changed between commands only.
    pub(crate) fn region(&self) -> Result<std::cell::Ref<'_, Region>, Error> {
        self.region.try_borrow().map_err(|_| Error::Busy)
    }

    /// The name of this region.
    pub(crate) fn id(&self) -> Option<ReplicaId> {
        self.region().ok()?.writer.as_ref().map(Writer::id)
    }

    /// Tells this process from the one before.
    pub(crate) fn run(&self) -> u64 {
        self.run
    }

    /// How a key takes part.
    pub(crate) fn mode(&self, key: Str<'_>) -> SyncMode {
        let Ok(sharing) = self.sharing.try_borrow() else {
            return SyncMode::None;
        };
        match &*sharing {
            Some(sharing) if sharing.takes_part(key) => match sharing.strategy {
                Strategy::Debit => SyncMode::Counters,
                Strategy::BuiltIn(_) => SyncMode::State,
                Strategy::Function(_) => SyncMode::Folded,
            },
            _ => SyncMode::None,
        }
    }

    /// Whether some peer may not know all that was counted here.
    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited.get()
    }

    /// Notes a changed bucket, which `opened` has become, for all peers. `written` is
    /// what its hash holds of it.
    pub(crate) fn note(&self, db: u32, key: Str<'_>, opened: &OpenBucket, written: &EncodedBucket) {
        let (Ok(sharing), Ok(region)) = (self.sharing.try_borrow(), self.region.try_borrow())
        else {
            return;
        };
        let Some(sharing) = sharing.as_ref().filter(|sharing| sharing.takes_part(key)) else {
            return;
        };
        let mut fields = Note { bucket: written.bucket, stored: opened.policy(), counted: None };
        let mut debits = None;
        match (&sharing.strategy, &written.debits) {
            (Strategy::Debit, Some(written)) => {
                fields.counted = Some(region.peers.share() == WHOLE);
                debits = Some(written.as_str().as_bytes());
            }
            (Strategy::Debit, None) => return,
            // What the function made of all regions' states is not ours to send.
            (Strategy::Function(_), _) => match opened.state_of(sharing.id) {
                Some(own) => {
                    self.fold_later(db, key);
                    (fields.bucket, fields.stored) = (own.bucket, own.policy);
                }
                None => return,
            },
            (Strategy::BuiltIn(_), _) => {}
        }
        let fields = fields.to_bytes();
        let note = [fields.as_flattened(), debits.unwrap_or_default()];
        sharing.pusher.note(db, key.as_bytes(), &note);
        self.count(opened);
    }

    /// Has a function make a bucket anew, between commands: within a command it
    /// may be that none can be called.
    fn fold_later(&self, db: u32, key: Str<'_>) {
        if let Ok(mut changed) = self.changed.try_borrow_mut() {
            // With more the walk over all keys finds the rest.
            if changed.len() < MOST_CHANGED {
                changed.insert((db, key.as_bytes().into()));
            }
        }
    }

    /// The next bucket that a function has to make anew.
    fn next_changed(&self) -> Option<Place> {
        let mut changed = self.changed.try_borrow_mut().ok()?;
        let mut folded = self.folded.try_borrow_mut().ok()?;
        let next = changed.range((Bound::Excluded(&*folded), Bound::Unbounded)).next();
        let next = next.or_else(|| changed.first())?.clone();
        changed.remove(&next);
        folded.clone_from(&next);
        Some(next)
    }

    /// States came from a peer and were merged.
    pub(crate) fn receive(&self, states: usize) {
        let states = u64::try_from(states).unwrap_or(u64::MAX);
        self.received.set(self.received.get().saturating_add(states));
    }

    /// The strategy of what is sent.
    fn strategy(&self) -> Option<Strategy> {
        let sharing = self.sharing.try_borrow().ok()?;
        sharing.as_ref().map(|sharing| sharing.strategy.clone())
    }

    /// Whether what some peer says is passed on to another that does not hear it.
    fn passes_on(&self) -> bool {
        self.passes_on.get()
    }

    /// Counts what `opened` has admitted.
    fn count(&self, opened: &OpenBucket) {
        self.spent.set(self.spent.get().saturating_add(opened.admitted()));
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
    pub(crate) fn heard(&self, round: &membership::Round<'_>, wall: u64) -> bool {
        let now = self.instants(wall);
        self.region.try_borrow_mut().is_ok_and(|mut region| region.peers.heard(round, now))
    }

    /// Goes by the configuration as it is now, and by the server's role: only a
    /// primary counts and sends. Returns what is to be logged.
    pub(crate) fn apply(&self, settings: &Settings, primary: bool, wall: u64) -> Option<String> {
        let sync = settings.sync();
        let now = self.instants(wall);
        let (Ok(mut region), Ok(mut sharing)) =
            (self.region.try_borrow_mut(), self.sharing.try_borrow_mut())
        else {
            return None;
        };
        self.primary.set(primary);
        let id = sync.replica_id.filter(|_| primary);
        if region.writer.as_ref().map(Writer::id) != id {
            // A new life: what was counted before it is never counted on.
            region.writer = id.map(|id| Writer::new(id, random()));
        }
        if id.is_none() || sync.peers.is_empty() {
            // A replica is told nothing by any peer, and does not miss it.
            region.peers = Membership::default();
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
        let (run, born, scratch) = (self.run, self.born, Mutex::default());
        let messages = Told { id, run, born, heartbeat, scratch };
        let started = pusher_config(sync).and_then(|config| {
            Pusher::start(config, Arc::new(messages)).map_err(|why| why.to_string())
        });
        match started {
            Ok(pusher) => {
                let keys = Some(sync.keys.clone()).filter(|keys| keys != "*");
                *sharing = Some(Sharing { id, strategy: sync.strategy.clone(), keys, pusher });
                None
            }
            Err(why) => Some(format!("region sync cannot start: {why}")),
        }
    }

    fn stop(&self, pusher: Pusher) {
        if let (Err(pusher), Ok(mut stopping)) =
            (pusher.stop(STOPPING), self.stopping.try_borrow_mut())
        {
            stopping.push(pusher);
        }
    }

    /// Ends all threads; `false` when one of them still hangs.
    pub(crate) fn end(&self) -> bool {
        let sharing = self.sharing.try_borrow_mut().ok().and_then(|mut sharing| sharing.take());
        if let Some(sharing) = sharing {
            self.stop(sharing.pusher);
        }
        let ended = self.join(STOPPING);
        if !ended {
            // The module stays: unless it is unloaded soon, sync goes on.
            self.resumes.set(Instant::now().checked_add(RESUMING));
        }
        ended
    }

    /// Whether the configuration has to be [applied](Self::apply) again.
    fn is_stale(&self, primary: bool) -> bool {
        let resumes = self.resumes.get().is_some_and(|at| Instant::now() >= at);
        if resumes {
            self.resumes.set(None);
        }
        resumes || self.primary.get() != primary
    }

    /// Waits for senders of earlier configurations.
    fn join(&self, patience: Duration) -> bool {
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
    pub(crate) fn counters(&self) -> [(&'static CStr, u64); 15] {
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
            (c"sync_share_permille", u64::from(share)),
            (c"sync_lag_ms", u64::try_from(lag).unwrap_or(u64::MAX)),
            (c"sync_queue", sum(|peer| peer.queued)),
            (c"sync_states_sent", sum(|peer| peer.states_sent)),
            (c"sync_states_refused", sum(|peer| peer.states_refused)),
            (c"sync_states_received", self.received.get()),
            (c"sync_bytes_sent", sum(|peer| peer.bytes_sent)),
            (c"sync_rounds", sum(|peer| peer.rounds)),
            (c"sync_connections", sum(|peer| peer.connections)),
            (c"sync_errors", sum(|peer| peer.errors)),
            (c"sync_overruns", sum(|peer| peer.overruns)),
            (c"sync_walks", self.walks()),
        ]
    }

    fn with_pusher<T>(&self, ask: impl FnOnce(&Pusher) -> T) -> Option<T> {
        let sharing = self.sharing.try_borrow().ok()?;
        sharing.as_ref().map(|sharing| ask(&sharing.pusher))
    }

    /// Looks who has fallen silent. Returns the new share when it has changed.
    fn watch(&self, ctx: &Context<'_>, wall: u64) -> Option<u16> {
        let now = self.instants(wall);
        let mut region = self.region.try_borrow_mut().ok()?;
        if self.is_on() && now.steady.saturating_sub(self.counted_masters.get()) >= COUNTING_US {
            self.counted_masters.set(now.steady);
            if let Some(masters) = ctx.masters() {
                // A cluster that is being made has none yet.
                let masters = masters.max(1);
                self.heartbeat.set_masters(masters);
                region.peers.set_masters(masters);
            }
        }
        let changed = region.peers.tick(Some(self.spent.get()), now);
        self.heartbeat.exchange(&mut region.peers);
        let silent =
            region.peers.share() != WHOLE || region.peers.all().iter().any(Peer::is_silent);
        let waits = self.with_pusher(|pusher| pusher.unacknowledged_for() > AWAITED);
        self.awaited.set(silent || waits.unwrap_or(false));
        self.passes_on.set(region.peers.passes_on());
        changed.then(|| region.peers.share())
    }
}

fn pusher_config(sync: &config::SyncSettings) -> Result<Config, String> {
    let mut peers = sync.peers.clone();
    if !sync.password_file.is_empty() {
        let text = std::fs::read_to_string(&sync.password_file)
            .map_err(|why| format!("claw.peers-password-file: {why}"))?;
        let password = text.lines().next().unwrap_or_default();
        peers = peers.into_iter().map(|peer| peer.with_password(password)).collect();
    }
    if let Some(peer) = peers.iter().find(|peer| peer.lacks_password()) {
        return Err(format!("{peer} has a user and no password"));
    }
    let file = |name: &String| Some(PathBuf::from(name)).filter(|_| !name.is_empty());
    let words = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect();
    Ok(Config {
        peers,
        interval: Duration::from_millis(sync.interval_ms),
        command: claw_sync::Command {
            before: words(&["CL.MERGE"]),
            between: words(&["STATE"]),
            after: words(&["STRATEGY", &sync.strategy.to_string()]),
        },
        tls: Tls {
            ca: file(&sync.tls_ca_cert_file),
            cert: file(&sync.tls_cert_file),
            key: file(&sync.tls_key_file),
        },
        limits: Limits::default(),
    })
}

/// What peers are told.
#[derive(Debug)]
struct Told {
    id: ReplicaId,
    run: u64,
    born: Instant,
    heartbeat: Arc<Heartbeat>,
    /// Where debits are read, so that their place need not be made each time.
    scratch: Mutex<Debits>,
}

impl Messages for Told {
    fn heartbeat(&self, round: &Round) -> Option<Vec<Vec<u8>>> {
        Some(self.heartbeat.words(self.id, self.run, self.born.elapsed().as_micros(), round))
    }

    fn state(&self, note: &[u8], out: &mut Vec<u8>) {
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        note::encode(self.id, note, &mut scratch, out);
    }

    fn stamp(&self, state: &mut [u8]) {
        codec::set_sent(state, note::now());
    }

    fn heard(&self, peer: usize, reply: &Value) -> Identity {
        self.heartbeat.answered(peer, reply)
    }
}
