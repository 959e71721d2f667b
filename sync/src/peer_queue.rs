//! What threads share about one peer: its backlog, and what it lacks besides.

use crate::backlog::{Backlog, Overrun, QueuedState, earlier};
use crate::breaker::Breaker;
use crate::config::Limits;
use crate::note_log::{Entry, EntryPool, Mark};
use crate::status::{PeerCounters, add};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Everything about one peer that more than its own thread needs.
pub(crate) struct PeerQueue {
    pub index: usize,
    pub counters: PeerCounters,
    pub breaker: Arc<Breaker>,
    /// Takes what the peer is done with.
    pub pool: Arc<EntryPool>,
    limits: Limits,
    state: Mutex<State>,
    wakeup: Condvar,
}

#[derive(Debug)]
struct State {
    backlog: Backlog,
    resync: Resync,
    /// Some node takes states.
    takes_states: bool,
    /// A round is under way.
    busy: bool,
    /// Since when a state has been waiting that is not in the backlog any more.
    lost_since: Option<u64>,
    /// How often something was lost: what a round has completed is only what was
    /// lost before it began.
    losses: u64,
    /// It is time for a round.
    tick: bool,
    stopping: bool,
}

/// Whether the peer lacks states that are not in its backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resync {
    /// It has, or will get from the backlog, everything.
    NotNeeded,
    /// It needs a walk over all buckets.
    Needed,
    /// That walk is under way.
    UnderWay(u64),
    /// That walk has noted everything, and the backlog has it.
    Waiting,
}

/// Why a peer's thread goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    Round,
    Stop,
}

/// What one round is to send.
#[derive(Debug)]
pub(crate) struct Batch {
    pub states: Vec<QueuedState>,
    /// Once these have arrived the peer has everything noted so far.
    pub completes: bool,
    pub losses: u64,
}

/// What the hand-out thread brings.
#[derive(Debug)]
pub(crate) struct HandOut<'a> {
    /// Empty if no peer [wants](PeerQueue::wants_states) any.
    pub entries: &'a [Entry],
    /// There was something to put into them.
    pub noted: bool,
    pub since: u64,
    pub overrun: bool,
    pub marks: &'a [Mark],
    pub tick: bool,
}

impl State {
    /// The peer cannot be told anything and needs everything later anyway.
    fn is_pointless(&self) -> bool {
        !self.takes_states && self.resync == Resync::Needed
    }

    /// The peer has everything once it has what is in its backlog.
    fn needs_no_walk(&self) -> bool {
        matches!(self.resync, Resync::NotNeeded | Resync::Waiting)
    }
}

impl PeerQueue {
    pub fn new(index: usize, counters: PeerCounters, limits: Limits, pool: Arc<EntryPool>) -> Self {
        let state = State {
            backlog: Backlog::new(),
            // What other processes have told this peer is unknown.
            resync: Resync::Needed,
            takes_states: false,
            busy: false,
            lost_since: None,
            losses: 0,
            tick: true,
            stopping: false,
        };
        let queue = Self {
            index,
            counters,
            breaker: Arc::default(),
            pool,
            limits,
            state: Mutex::new(state),
            wakeup: Condvar::new(),
        };
        queue.publish(&queue.lock());
        queue
    }

    /// Whether states are to be put on this peer's backlog. Only a walk changes
    /// that from no to yes.
    pub fn wants_states(&self) -> bool {
        !self.lock().is_pointless()
    }

    /// Whether a round is under way; `None` if the peer does not want any states.
    ///
    /// One that is away and wants them is not busy: its first round, when it is
    /// back, has to have all that was noted until then.
    pub fn is_busy(&self) -> Option<bool> {
        let queue = self.lock();
        (!queue.is_pointless()).then_some(queue.takes_states && queue.busy)
    }

    /// Puts what was handed out on this peer's backlog.
    pub fn deliver(&self, hand_out: &HandOut) {
        let mut queue = self.lock();
        let me = u32::try_from(self.index).ok().and_then(|i| 1_u32.checked_shl(i)).unwrap_or(0);
        for mark in hand_out.marks {
            if let Mark::Begin { walk, peers } = *mark
                && peers & me != 0
                && queue.takes_states
                && queue.resync != Resync::NotNeeded
            {
                queue.resync = Resync::UnderWay(walk);
            }
        }
        if hand_out.overrun {
            self.lose(&mut queue, hand_out.since);
        }
        if hand_out.noted && (hand_out.entries.is_empty() || queue.is_pointless()) {
            queue.lost_since = earlier(queue.lost_since, Some(hand_out.since));
        }
        for entry in hand_out.entries {
            if queue.is_pointless() {
                break;
            }
            let put = queue.backlog.put(entry.clone(), hand_out.since, &self.limits);
            if put == Err(Overrun) {
                self.lose(&mut queue, hand_out.since);
            }
        }
        for mark in hand_out.marks {
            if let Mark::End { walk } = *mark
                && queue.resync == Resync::UnderWay(walk)
            {
                queue.resync = Resync::Waiting;
            }
        }
        queue.tick |= hand_out.tick;
        self.publish(&queue);
        if queue.tick {
            self.wakeup.notify_one();
        }
    }

    /// Waits for the next round, at most until `retry`.
    pub fn wait(&self, retry: Option<Instant>) -> Wake {
        let mut queue = self.lock();
        queue.busy = false;
        loop {
            if queue.stopping {
                return Wake::Stop;
            }
            if std::mem::take(&mut queue.tick) {
                return Wake::Round;
            }
            queue = match retry.map(|at| at.saturating_duration_since(Instant::now())) {
                None => self.wakeup.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => return Wake::Round,
                Some(left) => {
                    self.wakeup.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Takes the backlog for a round.
    pub fn take(&self) -> Batch {
        let mut queue = self.lock();
        queue.busy = true;
        let batch = Batch {
            states: queue.backlog.take(),
            completes: queue.needs_no_walk(),
            losses: queue.losses,
        };
        self.publish(&queue);
        batch
    }

    /// A round without states, since none would be taken: to say that we are alive.
    pub fn take_nothing(&self) -> Batch {
        let queue = self.lock();
        Batch { states: Vec::new(), completes: false, losses: queue.losses }
    }

    /// The batch has been dealt with: these states did not reach the peer.
    pub fn give_back(&self, failed: Vec<QueuedState>) {
        let mut queue = self.lock();
        queue.backlog.settle();
        for noted in failed {
            let since = noted.since;
            if queue.backlog.put_back(noted, &self.limits) == Err(Overrun) {
                self.lose(&mut queue, since);
            }
        }
        self.publish(&queue);
    }

    /// Whether some node takes states.
    pub fn takes_states(&self) -> bool {
        self.counters.takes_states.load(Ordering::Relaxed)
    }

    /// Whether nothing waits here that was noted at `until` or before.
    pub fn has_sent_all(&self, until: u64) -> bool {
        self.lock().backlog.oldest().is_none_or(|since| since > until)
    }

    /// Whether the peer has been told everything once it has what waits here.
    pub fn needs_no_walk(&self) -> bool {
        self.lock().needs_no_walk()
    }

    /// A round that completes the peer has reached every node of it. `losses` is
    /// that of its batch.
    pub fn completed(&self, losses: u64) {
        let mut queue = self.lock();
        if queue.losses == losses && queue.needs_no_walk() {
            queue.resync = Resync::NotNeeded;
            queue.lost_since = None;
        }
        self.publish(&queue);
    }

    /// Some node takes states now, or none does.
    pub fn set_takes_states(&self, takes_states: bool) {
        let mut queue = self.lock();
        if queue.takes_states != takes_states {
            queue.takes_states = takes_states;
            self.counters.takes_states.store(takes_states, Ordering::Relaxed);
            self.counters
                .wants_walk
                .store(takes_states && queue.resync == Resync::Needed, Ordering::Relaxed);
            self.publish(&queue);
        }
    }

    /// Somebody answers there who may not have what was acknowledged before.
    pub fn stranger(&self, now: u64) {
        let mut queue = self.lock();
        queue.resync = Resync::Needed;
        queue.losses = queue.losses.wrapping_add(1);
        queue.lost_since = earlier(queue.lost_since, Some(now));
        self.ask_for_walk(&queue);
    }

    /// States were lost on this side, if `batch` those of a batch taken.
    pub fn lost(&self, batch: bool, now: u64) {
        let mut queue = self.lock();
        self.lose(&mut queue, now);
        if batch {
            queue.backlog.settle();
        }
        self.publish(&queue);
    }

    /// Ends the thread: now if it waits, and soon if it is connected.
    pub fn stop(&self) {
        self.lock().stopping = true;
        self.wakeup.notify_all();
        self.breaker.break_all();
    }

    fn lose(&self, queue: &mut State, since: u64) {
        queue.lost_since =
            [queue.lost_since, queue.backlog.oldest(), Some(since)].into_iter().fold(None, earlier);
        // One that refuses everything can only be tried with something.
        queue.backlog.clear(self.counters.is_refusing());
        queue.resync = Resync::Needed;
        queue.losses = queue.losses.wrapping_add(1);
        add(&self.counters.overruns, 1);
        self.ask_for_walk(queue);
    }

    /// Asks last: who sees it finds the reason in the status.
    fn ask_for_walk(&self, queue: &State) {
        self.publish(queue);
        self.counters.wants_walk.store(queue.takes_states, Ordering::Release);
    }

    fn publish(&self, queue: &State) {
        let oldest = earlier(queue.backlog.oldest(), queue.lost_since);
        self.counters.oldest.store(oldest.unwrap_or(0), Ordering::Relaxed);
        let queued = u64::try_from(queue.backlog.len()).unwrap_or(u64::MAX);
        self.counters.queued.store(queued, Ordering::Relaxed);
        let bytes = u64::try_from(queue.backlog.bytes()).unwrap_or(u64::MAX);
        self.counters.queued_bytes.store(bytes, Ordering::Relaxed);
        self.counters.lacking.store(queue.resync != Resync::NotNeeded, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
