//! What the owner calls, and the thread that hands out.

use crate::config::{Command, Config, Limits, Messages};
use crate::connection::Access;
use crate::desk::{Delivery, Desk};
use crate::front::{Front, Handful, Spent};
use crate::gathered::Gathered;
use crate::link::Link;
use crate::peer;
use crate::status::{Board, PeerStatus, age};
use crate::tls;
use crate::url::{MAX_PEERS, PeerUrl};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

/// Pushes the latest states of changed buckets to every peer.
///
/// The methods are for one thread, the owner's main thread; none of them waits
/// for a peer, except [`stop`](Pusher::stop) for at most its patience. Dropping
/// a pusher tells its threads to end, but does not wait until they have.
pub struct Pusher {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    front: Mutex<Front>,
    messages: Arc<dyn Messages>,
    bell: Condvar,
    desks: Vec<Desk>,
    spent: Arc<Spent>,
    urls: Vec<PeerUrl>,
    limits: Limits,
    /// In microseconds.
    interval: AtomicU64,
    began: Instant,
    /// Since when the oldest state that has been taken from the front and not
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
    /// The command has no first word.
    NoCommand,
    /// A certificate or key cannot be used: file and reason.
    Tls(String),
    /// The system gives no thread.
    Thread(std::io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyPeers => write!(f, "there are more than {MAX_PEERS} peers"),
            Self::NoCommand => write!(f, "the command to push with has no words"),
            Self::Tls(why) => write!(f, "TLS: {why}"),
            Self::Thread(why) => write!(f, "cannot start a thread: {why}"),
        }
    }
}

impl std::error::Error for StartError {}

impl Pusher {
    /// Starts one thread for each peer and one that hands out; none when there
    /// are no peers. Certificates are read here, and only if a peer needs them;
    /// connections are made by the threads.
    ///
    /// # Errors
    /// See [`StartError`]. No thread is left then.
    pub fn start(config: Config, messages: Arc<dyn Messages>) -> Result<Self, StartError> {
        let Config { peers, interval, command, tls, limits } = config;
        if peers.len() > MAX_PEERS {
            return Err(StartError::TooManyPeers);
        }
        if command.before.is_empty() {
            return Err(StartError::NoCommand);
        }
        let tls = if peers.iter().any(PeerUrl::is_tls) {
            Some(tls::prepare(&tls).map_err(StartError::Tls)?)
        } else {
            None
        };
        let began = Instant::now();
        let spent = Arc::new(Spent::default());
        let desk = |(index, url): (usize, &PeerUrl)| {
            let board = Board::new(url.password());
            Desk::new(index, board, limits.clone(), Arc::clone(&spent), began)
        };
        let shared = Arc::new(Shared {
            front: Mutex::default(),
            messages,
            bell: Condvar::new(),
            desks: peers.iter().enumerate().map(desk).collect(),
            spent: Arc::clone(&spent),
            urls: peers.clone(),
            limits: limits.clone(),
            interval: AtomicU64::new(0),
            began,
            handing: AtomicU64::new(0),
            gathered: AtomicU64::new(0),
            alive: Mutex::new(0),
            last_out: Condvar::new(),
        });
        let mut pusher = Self { shared, threads: Vec::new() };
        pusher.set_interval(interval);
        if peers.is_empty() {
            return Ok(pusher);
        }
        let command = Arc::new(command);
        for (index, url) in peers.into_iter().enumerate() {
            let tls = tls.clone().filter(|_| url.is_tls());
            let (limits, command) = (limits.clone(), Arc::clone(&command));
            pusher.spawn(format!("claw-peer-{index}"), move |shared| {
                shared.serve(index, &command, || (url.clone(), tls.clone(), limits.clone()));
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
        let body = move || {
            give_way();
            run(&leaving.0);
        };
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

    /// Changes the time from one round to the next.
    pub fn set_interval(&self, interval: Duration) {
        let micros = interval.max(SHORTEST_INTERVAL).as_micros();
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        self.shared.interval.store(micros, Ordering::Relaxed);
        self.shared.bell.notify_all();
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
        if shared.desks.is_empty() {
            return;
        }
        let mut front = shared.front();
        if front.stopping {
            return;
        }
        if front.note((db, key), note, &shared.limits, || shared.now()) {
            drop(front);
            shared.bell.notify_one();
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
        self.shared.desks.iter().any(|desk| desk.board.wants_walk.load(Ordering::Acquire))
    }

    /// A walk over all live buckets begins now. If one is under way, this one
    /// takes its place, and that one is not to be ended.
    pub fn resend_begins(&self) {
        let mut peers = 0;
        for (desk, index) in self.shared.desks.iter().zip(0_u32..) {
            if desk.board.wants_walk.swap(false, Ordering::Acquire) {
                peers |= 1_u32.checked_shl(index).unwrap_or(0);
            }
        }
        self.shared.front().walk_begins(peers);
    }

    /// The walk has noted every live bucket.
    pub fn resend_ends(&self) {
        self.shared.front().walk_ends();
    }

    /// How many states wait for the peer with the longest backlog of those that
    /// are connected: a walk should pause while that is a large part of
    /// [`Limits::entries`], or it overruns what it is to fill. Cheap.
    #[must_use]
    pub fn longest_queue(&self) -> u64 {
        let desks = self.shared.desks.iter().filter(|desk| desk.board.is_connected());
        let queued = desks.map(|desk| desk.board.queued.load(Ordering::Relaxed)).max();
        queued.map_or(0, |queued| queued.saturating_add(self.shared.gathered()))
    }

    /// How many notes wait for the thread that hands them out. They grow one run of
    /// memory, which is copied when it has to be larger: a walk should pause before that
    /// holds the owner up. Cheap.
    #[must_use]
    pub fn noted(&self) -> usize {
        self.shared.front().noted()
    }

    /// The longest that any noted state has been waiting to be acknowledged by
    /// any peer; zero when none is waiting. States that a peer has refused for
    /// good do not wait. Those dropped for want of room wait until a resend has
    /// arrived. Cheap.
    #[must_use]
    pub fn unacknowledged_for(&self) -> Duration {
        let now = self.shared.now();
        let front = self.shared.front().since().unwrap_or(0);
        let desks = self.shared.desks.iter().map(|desk| desk.board.lag(now));
        desks.chain([age(front, now), self.shared.handing_for(now)]).max().unwrap_or_default()
    }

    /// Has a round done at once, without waiting for it. Peers that rest after
    /// a failure are not disturbed.
    pub fn flush(&self) {
        self.shared.front().flush = true;
        self.shared.bell.notify_one();
    }

    /// How each peer is doing, in the order of [`Config::peers`].
    #[must_use]
    pub fn status(&self) -> Vec<PeerStatus> {
        let now = self.shared.now();
        let peers = self.shared.desks.iter().zip(&self.shared.urls);
        let status = |(desk, url): (&Desk, &PeerUrl)| {
            let mut status = desk.board.status(url.to_string(), now);
            if desk.board.is_connected() {
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
    /// Looking up the name of a host is what can take so long.
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

/// From now on the calling thread interrupts no other one when it wakes up: where
/// there are few processors, the server's main thread goes on until the system looks
/// who is next. Its share of the time stays what it was.
fn give_way() {
    #[cfg(target_os = "linux")]
    {
        let none = libc::sched_param { sched_priority: 0 };
        // SAFETY: 0 is the calling thread; the parameters live until the call returns.
        // What the operator has chosen otherwise stays.
        unsafe {
            if libc::sched_getscheduler(0) == libc::SCHED_OTHER {
                libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const none);
            }
        }
    }
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

    fn front(&self) -> MutexGuard<'_, Front> {
        self.front.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gathered(&self) -> u64 {
        self.gathered.load(Ordering::Relaxed)
    }

    /// How long the oldest state has been waiting to be handed out.
    fn handing_for(&self, now: u64) -> Duration {
        age(self.handing.load(Ordering::Relaxed), now)
    }

    fn alive(&self) -> MutexGuard<'_, usize> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self) {
        self.front().stopping = true;
        self.bell.notify_all();
        for desk in &self.desks {
            desk.stop();
        }
    }

    /// The body of a peer's thread.
    fn serve(
        &self,
        index: usize,
        command: &Command,
        access: impl Fn() -> (PeerUrl, Option<Arc<rustls::ClientConfig>>, Limits),
    ) {
        let Some(desk) = self.desks.get(index) else { return };
        let link = || {
            let (url, tls, limits) = access();
            let access = Access { url, tls, limits, breaker: Arc::clone(&desk.breaker) };
            Link::new(index, access, command, &desk.board, Arc::clone(&self.messages))
        };
        peer::run(desk, || self.now(), link);
    }

    /// The body of the hand-out thread.
    fn hand_out_until_stopped(&self) {
        while catch_unwind(AssertUnwindSafe(|| self.hand_out())).is_err() {
            let now = self.now();
            self.handing.store(0, Ordering::Relaxed);
            for desk in &self.desks {
                desk.board.error("internal error: a panic was caught");
                desk.lost(false, now);
            }
        }
    }

    fn hand_out(&self) {
        let mut spare = Handful::empty();
        let mut gathered = Gathered::new(self.began);
        let mut last_tick = self.began;
        while let Some((mut handful, call)) = self.collect(last_tick, spare) {
            if call != Call::Crowded {
                last_tick = Instant::now();
            }
            gathered.add(&handful);
            handful.clear();
            spare = handful;
            // Until they have been handed out, which takes a while if they are many.
            let keys = u64::try_from(gathered.len()).unwrap_or(u64::MAX);
            self.gathered.store(keys, Ordering::Relaxed);
            if self.may_wait(&gathered, call) {
                continue;
            }
            self.deliver(&gathered, call);
            gathered.clear();
            self.gathered.store(0, Ordering::Relaxed);
            self.handing.store(0, Ordering::Relaxed);
        }
    }

    /// Whether nobody is there for what has been gathered, and there is room.
    fn may_wait(&self, gathered: &Gathered, call: Call) -> bool {
        if gathered.overrun || gathered.is_large(&self.limits) {
            return false;
        }
        match call {
            Call::Flush => false,
            Call::Crowded => true,
            Call::Tick => {
                let mut wanting = self.desks.iter().filter_map(Desk::is_busy).peekable();
                wanting.peek().is_some() && wanting.all(|busy| busy)
            }
        }
    }

    fn deliver(&self, gathered: &Gathered, call: Call) {
        // A walk may begin for a peer that has only just been met.
        let wanted = !gathered.marks.is_empty() || self.desks.iter().any(Desk::wants_states);
        let entries =
            if wanted { gathered.entries(&*self.messages, &self.spent) } else { Vec::new() };
        let delivery = Delivery {
            entries: &entries,
            noted: gathered.len() > 0,
            since: gathered.since.unwrap_or_else(|| self.now()),
            overrun: gathered.overrun,
            marks: &gathered.marks,
            noted_until: gathered.noted_until,
            tick: call != Call::Crowded,
        };
        for desk in &self.desks {
            desk.deliver(&delivery);
        }
    }

    /// Waits until it is time, and takes what has been noted; `None` when it is time
    /// to end.
    fn collect(&self, last_tick: Instant, spare: Handful) -> Option<(Handful, Call)> {
        let mut front = self.front();
        loop {
            if front.stopping {
                return None;
            }
            let interval = Duration::from_micros(self.interval.load(Ordering::Relaxed));
            let left = interval.saturating_sub(last_tick.elapsed());
            let call = match (front.flush, left.is_zero(), front.crowded()) {
                (true, _, _) => Some(Call::Flush),
                (false, true, _) => Some(Call::Tick),
                (false, false, true) => Some(Call::Crowded),
                (false, false, false) => None,
            };
            if let Some(call) = call {
                front.flush = false;
                if self.handing.load(Ordering::Relaxed) == 0 {
                    self.handing.store(front.since().unwrap_or(0), Ordering::Relaxed);
                }
                return Some((front.take(spare), call));
            }
            front = self.bell.wait_timeout(front, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
