//! What the owner calls, and the thread that hands out.

use crate::coalescer::Coalescer;
use crate::config::{Config, Limits, Messages};
use crate::connection::Access;
use crate::credentials::Credentials;
use crate::note_log::{EntryPool, NoteBatch, NoteLog};
use crate::peer;
use crate::peer_connections::PeerConnections;
use crate::peer_queue::{HandOut, PeerQueue};
use crate::status::{PeerCounters, PeerStatus, age};
use crate::url::{MAX_PEERS, PeerUrl};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);
/// Each round wakes up a region, which costs it more than the few states in it. For each so many
/// peers rounds are one interval further apart: how often a region is woken up does not grow with
/// its peers.
const PEERS_PER_INTERVAL: usize = 2;
/// From one look at the queues to the next when they are drained.
const DRAINING: Duration = Duration::from_millis(1);

/// Pushes the latest states of changed buckets to every peer.
///
/// The methods are for one thread, the owner's main thread; none of them waits
/// for a peer, except [`drain`](Pusher::drain) and [`stop`](Pusher::stop) for at most
/// their patience. Dropping a pusher tells its threads to end, but does not wait until
/// they have.
pub struct Pusher {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    log: Mutex<NoteLog>,
    messages: Arc<dyn Messages>,
    wakeup: Condvar,
    queues: Vec<PeerQueue>,
    pool: Arc<EntryPool>,
    urls: Vec<PeerUrl>,
    limits: Limits,
    interval: Duration,
    began: Instant,
    /// Since when the oldest state that has been taken from the log and not
    /// handed out has been waiting; 0 for none.
    handing: AtomicU64,
    /// How many keys have been gathered for peers that are busy.
    gathered: AtomicU64,
    alive: Mutex<usize>,
    last_out: Condvar,
}

/// Why a pusher could not be started.
#[derive(Debug)]
pub enum StartError {
    /// There are more than [`MAX_PEERS`] peers.
    TooManyPeers,
    /// The [command with states](Messages::states_command) has no first word.
    NoCommand,
    /// The system gives no thread.
    Thread(std::io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyPeers => write!(f, "there are more than {MAX_PEERS} peers"),
            Self::NoCommand => write!(f, "the command to send states with has no words"),
            Self::Thread(why) => write!(f, "cannot start a thread: {why}"),
        }
    }
}

impl std::error::Error for StartError {}

impl Pusher {
    /// Starts one thread for each peer and one that hands out; none when there
    /// are no peers. Files are read and connections are made by the threads.
    ///
    /// # Errors
    /// See [`StartError`]. No thread is left then.
    pub fn start(config: Config, messages: Arc<dyn Messages>) -> Result<Self, StartError> {
        let Config { peers, interval, credentials, limits } = config;
        if peers.len() > MAX_PEERS {
            return Err(StartError::TooManyPeers);
        }
        if messages.states_command().is_empty() {
            return Err(StartError::NoCommand);
        }
        let began = Instant::now();
        let pool = Arc::new(EntryPool::default());
        let queue = |index| {
            let counters = PeerCounters::new(&limits);
            PeerQueue::new(index, counters, limits.clone(), Arc::clone(&pool))
        };
        let shared = Arc::new(Shared {
            log: Mutex::default(),
            messages,
            wakeup: Condvar::new(),
            queues: (0..peers.len()).map(queue).collect(),
            pool: Arc::clone(&pool),
            urls: peers.clone(),
            limits: limits.clone(),
            interval: stretched(interval, peers.len(), limits.stretched_interval),
            began,
            handing: AtomicU64::new(0),
            gathered: AtomicU64::new(0),
            alive: Mutex::new(0),
            last_out: Condvar::new(),
        });
        let mut pusher = Self { shared, threads: Vec::new() };
        if peers.is_empty() {
            return Ok(pusher);
        }
        for (index, url) in peers.into_iter().enumerate() {
            let (credentials, limits) = (Arc::clone(&credentials), limits.clone());
            pusher.spawn(format!("claw-peer-{index}"), move |shared| {
                shared.serve(index, || (url.clone(), Arc::clone(&credentials), limits.clone()));
            })?;
        }
        pusher.spawn("claw-sync".into(), Shared::hand_out_until_stopped)?;
        Ok(pusher)
    }

    fn spawn(
        &mut self,
        name: String,
        run: impl FnOnce(&Shared) + Send + 'static,
    ) -> Result<(), StartError> {
        let shared = Arc::clone(&self.shared);
        {
            let mut alive = shared.alive();
            *alive = alive.saturating_add(1);
        }
        let leaving = Leaving(shared);
        let body = move || run(&leaving.0);
        // If there is no thread, what it was to run is dropped, and so counts as
        // having left; those before it end when the pusher is dropped.
        match thread::Builder::new().name(name).spawn(body) {
            Ok(thread) => {
                self.threads.push(thread);
                Ok(())
            }
            Err(why) => {
                self.shared.signal();
                for thread in self.threads.drain(..) {
                    let _ = thread.join();
                }
                Err(StartError::Thread(why))
            }
        }
    }

    /// Notes the latest state of a key, as bytes of the owner's own in parts that
    /// follow each other: [`Messages::state`] makes them a state, on another thread.
    /// It replaces any state of the same key that has not been sent; so one that is
    /// noted often is sent once a round.
    ///
    /// Without room for it, see [`Limits`], the peers will
    /// [need a resend](Pusher::needs_resend).
    pub fn note(&self, db: u32, key: &[u8], note: &[&[u8]]) {
        let shared = &*self.shared;
        if shared.queues.is_empty() {
            return;
        }
        let mut log = shared.log();
        if log.stopping {
            return;
        }
        if log.note((db, key), note, &shared.limits, || shared.now()) {
            drop(log);
            shared.wakeup.notify_one();
        }
    }

    /// Whether a connected peer lacks states that only a walk over all live
    /// buckets can bring: it has been met for the first time, is another process
    /// than before, or its backlog was dropped. Cheap.
    ///
    /// The owner answers with [`resend_begins`](Pusher::resend_begins), notes
    /// every live bucket, in as many turns as it likes, and closes with
    /// [`resend_ends`](Pusher::resend_ends). Until then, and until all of that
    /// has arrived, rounds with this peer are not
    /// [complete](crate::Round::complete).
    #[must_use]
    pub fn needs_resend(&self) -> bool {
        self.shared.queues.iter().any(|queue| queue.counters.wants_walk.load(Ordering::Acquire))
    }

    /// A walk over all live buckets begins now. If one is under way, this one
    /// takes its place, and that one is not to be ended.
    pub fn resend_begins(&self) {
        let mut peers = 0;
        for (queue, index) in self.shared.queues.iter().zip(0_u32..) {
            if queue.counters.wants_walk.swap(false, Ordering::Acquire) {
                peers |= 1_u32.checked_shl(index).unwrap_or(0);
            }
        }
        self.shared.log().walk_begins(peers);
    }

    /// The walk has noted every live bucket.
    pub fn resend_ends(&self) {
        self.shared.log().walk_ends();
    }

    /// How many states wait for the peer with the longest backlog of those that
    /// are connected and take them: a walk should pause while that is a large part of
    /// [`Limits::entries`], or it overruns what it is to fill. Cheap.
    #[must_use]
    pub fn longest_queue(&self) -> u64 {
        let queues = self.shared.queues.iter().filter(|queue| queue.takes_states());
        let queued = queues.map(|queue| queue.counters.queued.load(Ordering::Relaxed)).max();
        queued.map_or(0, |queued| queued.saturating_add(self.shared.gathered()))
    }

    /// How many notes wait for the thread that hands them out. They grow one run of
    /// memory, which is copied when it has to be larger: a walk should pause before that
    /// holds the owner up. Cheap.
    #[must_use]
    pub fn noted(&self) -> usize {
        self.shared.log().noted()
    }

    /// The longest that any noted state has been waiting to be acknowledged by
    /// any peer; zero when none is waiting. States that a peer has refused for
    /// good do not wait. Those dropped for want of room wait until a resend has
    /// arrived. Cheap.
    #[must_use]
    pub fn unacknowledged_for(&self) -> Duration {
        let now = self.shared.now();
        let log = self.shared.log().since().unwrap_or(0);
        let queues = self.shared.queues.iter().map(|queue| queue.counters.lag(now));
        queues.chain([age(log, now), self.shared.handing_for(now)]).max().unwrap_or_default()
    }

    /// The peers that answer and refuse what we send them, see [`PeerStatus::refusing`]: the
    /// index of each, as in [`Config::peers`], and the [name](crate::Identity::replica) that
    /// it has answered with before, if ever. A peer that does not answer is none of them.
    /// Cheap where there are none.
    pub fn refusing(&self) -> impl Iterator<Item = (usize, Option<String>)> + '_ {
        let peers = self.shared.queues.iter().map(|queue| &queue.counters).enumerate();
        peers
            .filter(|(_, counters)| counters.is_refusing())
            .map(|(index, counters)| (index, counters.replica()))
    }

    /// Has a round done at once, without waiting for it. Peers that rest after
    /// a failure are not disturbed.
    pub fn flush(&self) {
        self.shared.log().flush = true;
        self.shared.wakeup.notify_one();
    }

    /// Has a round done at once, and waits until every peer that is connected has
    /// acknowledged everything noted so far: before the server ends. Returns whether they
    /// all have. Waits `patience` at most, and not for a peer that refuses states.
    #[must_use]
    pub fn drain(&self, patience: Duration) -> bool {
        let shared = &*self.shared;
        let began = Instant::now();
        let until = shared.now();
        let queues = shared.queues.iter().filter(|queue| queue.counters.is_connected());
        let queues: Vec<&PeerQueue> = queues.collect();
        self.flush();
        loop {
            let is_done = |queue: &&PeerQueue| queue.has_sent_all(until) || !queue.takes_states();
            if shared.has_handed_out(until) && queues.iter().all(is_done) {
                return queues
                    .iter()
                    .all(|queue| queue.has_sent_all(until) && queue.needs_no_walk());
            }
            if began.elapsed() >= patience {
                return false;
            }
            thread::sleep(DRAINING);
        }
    }

    /// How each peer is doing, in the order of [`Config::peers`].
    #[must_use]
    pub fn status(&self) -> Vec<PeerStatus> {
        let now = self.shared.now();
        let peers = self.shared.queues.iter().zip(&self.shared.urls);
        let status = |(queue, url): (&PeerQueue, &PeerUrl)| {
            let mut status = queue.counters.status(url.to_string(), now);
            if queue.counters.is_connected() {
                status.queued = status.queued.saturating_add(self.shared.gathered());
                status.lag = status.lag.max(self.shared.handing_for(now));
            }
            status
        };
        peers.map(status).collect()
    }

    /// Ends all threads and waits until they have ended: their connections are
    /// shut down, so that this takes a few milliseconds, also when a peer hangs.
    /// What has not been sent is lost.
    ///
    /// # Errors
    /// The pusher itself when some thread has not ended after `patience`; then
    /// this code must stay in memory, and another call may have more luck.
    /// Looking up the name of a host is what can take so long, or reading a file.
    pub fn stop(mut self, patience: Duration) -> Result<(), Self> {
        self.shared.signal();
        let alive = self.shared.alive();
        let (alive, _) = self
            .shared
            .last_out
            .wait_timeout_while(alive, patience, |alive| *alive > 0)
            .unwrap_or_else(PoisonError::into_inner);
        let left = *alive;
        drop(alive);
        if left > 0 {
            return Err(self);
        }
        // They have nothing to do any more but to return.
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        Ok(())
    }
}

/// The time from one round to the next: with three peers and more it is a multiple of `interval`,
/// half their number, but stretched to no more than `longest`.
fn stretched(interval: Duration, peers: usize, longest: Duration) -> Duration {
    let interval = interval.max(SHORTEST_INTERVAL);
    let times = u32::try_from(peers.div_ceil(PEERS_PER_INTERVAL)).unwrap_or(u32::MAX);
    interval.saturating_mul(times).min(longest).max(interval)
}

/// What [`status`](Pusher::status) says.
impl fmt::Debug for Pusher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pusher").field("peers", &self.status()).finish_non_exhaustive()
    }
}

impl Drop for Pusher {
    fn drop(&mut self) {
        self.shared.signal();
    }
}

/// Why the hand-out thread goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    /// There are many notes.
    Crowded,
    /// It is time for a round.
    Tick,
    /// A round is wanted at once.
    Flush,
}

/// Counts a thread as gone when dropped, be it in a panic.
struct Leaving(Arc<Shared>);

impl Drop for Leaving {
    fn drop(&mut self) {
        let mut alive = self.0.alive();
        *alive = alive.saturating_sub(1);
        self.0.last_out.notify_all();
    }
}

impl Shared {
    /// Microseconds on the pusher's clock, from 1.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn log(&self) -> MutexGuard<'_, NoteLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gathered(&self) -> u64 {
        self.gathered.load(Ordering::Relaxed)
    }

    /// How long the oldest state has been waiting to be handed out.
    fn handing_for(&self, now: u64) -> Duration {
        age(self.handing.load(Ordering::Relaxed), now)
    }

    /// Whether everything noted at `until` or before is in the peers' queues. What moves
    /// from one place to the next is found in one of them: they are looked at in its order.
    fn has_handed_out(&self, until: u64) -> bool {
        let is_later = |since: u64| since == 0 || since > until;
        is_later(self.log().since().unwrap_or(0)) && is_later(self.handing.load(Ordering::Acquire))
    }

    fn alive(&self) -> MutexGuard<'_, usize> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self) {
        self.log().stopping = true;
        self.wakeup.notify_all();
        for queue in &self.queues {
            queue.stop();
        }
    }

    /// The body of a peer's thread.
    fn serve(&self, index: usize, access: impl Fn() -> (PeerUrl, Arc<Credentials>, Limits)) {
        let Some(queue) = self.queues.get(index) else { return };
        let connections = || {
            let (url, credentials, limits) = access();
            let access = Access { url, credentials, limits, breaker: Arc::clone(&queue.breaker) };
            PeerConnections::new(index, access, &queue.counters, Arc::clone(&self.messages))
        };
        peer::run(queue, || self.now(), connections);
    }

    /// The body of the hand-out thread.
    fn hand_out_until_stopped(&self) {
        while catch_unwind(AssertUnwindSafe(|| self.hand_out())).is_err() {
            let now = self.now();
            self.handing.store(0, Ordering::Relaxed);
            for queue in &self.queues {
                queue.counters.error("internal error: a panic was caught");
                queue.lost(false, now);
            }
        }
    }

    fn hand_out(&self) {
        let mut spare = NoteBatch::default();
        let mut coalescer = Coalescer::default();
        let mut last_tick = self.began;
        while let Some((mut batch, call)) = self.collect(last_tick, spare) {
            if call != Call::Crowded {
                last_tick = Instant::now();
            }
            coalescer.add(&batch);
            batch.clear();
            spare = batch;
            // Until they have been handed out, which takes a while if they are many.
            let keys = u64::try_from(coalescer.len()).unwrap_or(u64::MAX);
            self.gathered.store(keys, Ordering::Relaxed);
            if self.may_wait(&coalescer, call) {
                continue;
            }
            self.deliver(&coalescer, call);
            coalescer.clear();
            self.gathered.store(0, Ordering::Relaxed);
            self.handing.store(0, Ordering::Release);
        }
    }

    /// Whether nobody is there for what has been gathered, and there is room.
    fn may_wait(&self, coalescer: &Coalescer, call: Call) -> bool {
        if coalescer.overrun || coalescer.is_large(&self.limits) {
            return false;
        }
        match call {
            Call::Flush => false,
            Call::Crowded => true,
            Call::Tick => {
                let mut wanting = self.queues.iter().filter_map(PeerQueue::is_busy).peekable();
                wanting.peek().is_some() && wanting.all(|busy| busy)
            }
        }
    }

    fn deliver(&self, coalescer: &Coalescer, call: Call) {
        // A walk may begin for a peer that has only just been met.
        let wanted = !coalescer.marks.is_empty() || self.queues.iter().any(PeerQueue::wants_states);
        let entries =
            if wanted { coalescer.entries(&*self.messages, &self.pool) } else { Vec::new() };
        let hand_out = HandOut {
            entries: &entries,
            noted: coalescer.len() > 0,
            since: coalescer.since.unwrap_or_else(|| self.now()),
            overrun: coalescer.overrun,
            marks: &coalescer.marks,
            tick: call != Call::Crowded,
        };
        for queue in &self.queues {
            queue.deliver(&hand_out);
        }
    }

    /// Waits until it is time, and takes what has been noted; `None` when it is time
    /// to end.
    fn collect(&self, last_tick: Instant, spare: NoteBatch) -> Option<(NoteBatch, Call)> {
        let mut log = self.log();
        loop {
            if log.stopping {
                return None;
            }
            let left = self.interval.saturating_sub(last_tick.elapsed());
            let call = match (log.flush, left.is_zero(), log.crowded()) {
                (true, _, _) => Some(Call::Flush),
                (false, true, _) => Some(Call::Tick),
                (false, false, true) => Some(Call::Crowded),
                (false, false, false) => None,
            };
            if let Some(call) = call {
                log.flush = false;
                if self.handing.load(Ordering::Relaxed) == 0 {
                    self.handing.store(log.since().unwrap_or(0), Ordering::Relaxed);
                }
                return Some((log.take(spare), call));
            }
            log = self.wakeup.wait_timeout(log, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_further_apart_with_many_peers() {
        // The interval in milliseconds, peers, and from one round to the next.
        let rows = [
            (50, 0, 50),
            (50, 2, 50),
            (50, 3, 100),
            (50, 7, 200),
            (50, 15, 200),
            (0, 1, 1),
            (1_000, 7, 1_000),
        ];
        for (interval, peers, expected) in rows {
            let [interval, expected] = [interval, expected].map(Duration::from_millis);
            let longest = Limits::default().stretched_interval;
            assert_eq!(
                stretched(interval, peers, longest),
                expected,
                "{interval:?}, {peers} peers"
            );
        }
    }
}
