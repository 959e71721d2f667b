//! How each peer is doing: what is shown, and the counters behind it.

use crate::config::Limits;
use crate::wire::one_line;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What the connections to a peer are up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// Not connected yet, and no attempt has failed.
    Connecting,
    /// Every node that has slots is connected and answers.
    Connected,
    /// Some nodes of a cluster are connected, others are not.
    Partial,
    /// The last attempt failed; the next one follows.
    BackingOff,
    /// The pusher has been stopped.
    Stopped,
}

impl PeerState {
    /// The state as one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Partial => "partial",
            Self::BackingOff => "backing-off",
            Self::Stopped => "stopped",
        }
    }

    fn from_number(n: u8) -> Self {
        match n {
            0 => Self::Connecting,
            1 => Self::Connected,
            2 => Self::Partial,
            3 => Self::BackingOff,
            _ => Self::Stopped,
        }
    }
}

/// One peer, at a glance. Counters begin at the start of the pusher.
#[derive(Debug, Clone)]
pub struct PeerStatus {
    /// The URL, with `***` for the password.
    pub url: String,
    /// What its connections are up to.
    pub state: PeerState,
    /// The name it answered with, see [`Identity`](crate::Identity).
    pub replica: Option<String>,
    /// The code of the error (`OOM`, `LOADING`, `NOPERM`, `WRONGPASS` ..) that it has answered
    /// the last attempt with to log in, to say that we are alive or to hand over states.
    /// `None` while it takes them, and while it does not answer at all.
    pub refusing: Option<String>,
    /// It lacks states that only a walk over all buckets brings, or that such a
    /// walk has noted and that are still on their way.
    pub lacking: bool,
    /// States that wait or are on their way.
    pub queued: u64,
    /// Bytes of memory that these take, once they have been handed out: keys, states and a
    /// fixed amount for each. Peers share states, each counts all of them.
    pub queued_bytes: u64,
    /// The most that it may be, [`Limits::bytes`](crate::Limits::bytes). When that does not
    /// do, the backlog is dropped, and only a walk over all buckets brings what was in it.
    pub queue_limit_bytes: u64,
    /// The age of the oldest state that is not acknowledged; 0 when there is none.
    pub lag: Duration,
    /// Bytes written to its sockets, before encryption.
    pub bytes_sent: u64,
    /// States that it has acknowledged.
    pub states_sent: u64,
    /// States that it will never take, and that were dropped.
    pub states_refused: u64,
    /// Rounds in which every node had everything and answered the heartbeat.
    pub rounds: u64,
    /// Failed connections, failed nodes, and replies that refused a state.
    pub errors: u64,
    /// How often the backlog was dropped because it was full.
    pub overruns: u64,
    /// How often a connection was made.
    pub connections: u64,
    /// The last error, one line of at most 201 characters.
    pub last_error: Option<String>,
    /// From the first byte of the last heartbeat to its last reply.
    pub round_trip: Duration,
}

/// The counters of one peer. Written by its thread, read by the main thread,
/// which never waits for more than the copying of a few short texts.
#[derive(Default)]
pub(crate) struct PeerCounters {
    state: AtomicU8,
    pub wants_walk: AtomicBool,
    refusing: AtomicBool,
    /// Some node takes states.
    pub takes_states: AtomicBool,
    pub lacking: AtomicBool,
    pub queued: AtomicU64,
    pub queued_bytes: AtomicU64,
    queue_limit_bytes: u64,
    /// Microseconds on the pusher's clock; 0 for none.
    pub oldest: AtomicU64,
    pub bytes_sent: AtomicU64,
    pub states_sent: AtomicU64,
    pub states_refused: AtomicU64,
    pub rounds: AtomicU64,
    pub errors: AtomicU64,
    pub overruns: AtomicU64,
    pub connections: AtomicU64,
    /// In microseconds.
    pub round_trip: AtomicU64,
    texts: Mutex<Texts>,
}

// No `Debug`: the password would be in it.
#[derive(Default)]
struct Texts {
    replica: Option<String>,
    refusing: Option<String>,
    last_error: Option<String>,
    /// What must not be shown.
    password: Option<String>,
}

impl Texts {
    /// What a peer has said, as one line, and without the password should it have repeated it.
    fn shown(&self, text: &str) -> String {
        match &self.password {
            Some(password) if text.contains(password.as_str()) => {
                one_line(&text.replace(password, "***"))
            }
            _ => one_line(text),
        }
    }
}

impl PeerCounters {
    pub fn new(limits: &Limits) -> Self {
        let queue_limit_bytes = u64::try_from(limits.bytes).unwrap_or(u64::MAX);
        Self { queue_limit_bytes, ..Self::default() }
    }

    /// Says what must not be shown from now on.
    pub fn hide(&self, password: &str) {
        self.texts().password = Some(password.to_owned());
    }

    pub fn set_state(&self, state: PeerState) {
        let number = match state {
            PeerState::Connecting => 0,
            PeerState::Connected => 1,
            PeerState::Partial => 2,
            PeerState::BackingOff => 3,
            PeerState::Stopped => 4,
        };
        self.state.store(number, Ordering::Relaxed);
    }

    pub fn is_connected(&self) -> bool {
        let state = PeerState::from_number(self.state.load(Ordering::Relaxed));
        matches!(state, PeerState::Connected | PeerState::Partial)
    }

    /// Counts an error and keeps its text, without the password should a server
    /// have repeated it.
    pub fn error(&self, text: &str) {
        add(&self.errors, 1);
        let mut texts = self.texts();
        texts.last_error = Some(texts.shown(text));
    }

    pub fn set_replica(&self, name: &str) {
        let mut texts = self.texts();
        let name = texts.shown(name);
        if texts.replica.as_deref() != Some(&name) {
            texts.replica = Some(name);
        }
    }

    /// The peer has refused the last attempt with an error of this code, or has not.
    pub fn set_refusing(&self, code: Option<&str>) {
        if code.is_none() && !self.is_refusing() {
            return;
        }
        let mut texts = self.texts();
        texts.refusing = code.map(|code| texts.shown(code));
        self.refusing.store(code.is_some(), Ordering::Relaxed);
    }

    pub fn is_refusing(&self) -> bool {
        self.refusing.load(Ordering::Relaxed)
    }

    /// The name that the peer has answered with.
    pub fn replica(&self) -> Option<String> {
        self.texts().replica.clone()
    }

    /// How long the oldest state has been waiting.
    pub fn lag(&self, now: u64) -> Duration {
        age(self.oldest.load(Ordering::Relaxed), now)
    }

    pub fn status(&self, url: String, now: u64) -> PeerStatus {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (replica, refusing, last_error) = {
            let texts = self.texts();
            (texts.replica.clone(), texts.refusing.clone(), texts.last_error.clone())
        };
        PeerStatus {
            url,
            state: PeerState::from_number(self.state.load(Ordering::Relaxed)),
            replica,
            refusing,
            lacking: self.lacking.load(Ordering::Relaxed),
            queued: read(&self.queued),
            queued_bytes: read(&self.queued_bytes),
            queue_limit_bytes: self.queue_limit_bytes,
            lag: self.lag(now),
            bytes_sent: read(&self.bytes_sent),
            states_sent: read(&self.states_sent),
            states_refused: read(&self.states_refused),
            rounds: read(&self.rounds),
            errors: read(&self.errors),
            overruns: read(&self.overruns),
            connections: read(&self.connections),
            last_error,
            round_trip: Duration::from_micros(read(&self.round_trip)),
        }
    }

    fn texts(&self) -> MutexGuard<'_, Texts> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(u64::try_from(n).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// How long something has been waiting since a moment; 0 is none.
pub(crate) fn age(since: u64, now: u64) -> Duration {
    match since {
        0 => Duration::ZERO,
        since => Duration::from_micros(now.saturating_sub(since)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_one_line_without_the_password() {
        let counters = PeerCounters::new(&Limits::default());
        counters.hide("hunter2");
        counters.error("ERR unknown command 'AUTH', with args beginning with: 'u'\n'hunter2'");
        let status = counters.status(String::new(), 0);
        let text = status.last_error.clone().unwrap_or_default();
        assert_eq!(text, "ERR unknown command 'AUTH', with args beginning with: 'u' '***'");
        assert_eq!(status.errors, 1);
        assert!(!format!("{status:?}").contains("hunter2"));
    }

    #[test]
    fn states_survive_the_board() {
        let counters = PeerCounters::new(&Limits::default());
        assert_eq!(counters.status(String::new(), 0).state, PeerState::Connecting);
        for state in [
            PeerState::Connected,
            PeerState::Partial,
            PeerState::BackingOff,
            PeerState::Stopped,
            PeerState::Connecting,
        ] {
            counters.set_state(state);
            assert_eq!(counters.status(String::new(), 0).state, state);
        }
    }

    #[test]
    fn lag_is_the_age_of_the_oldest() {
        let counters = PeerCounters::new(&Limits::default());
        assert_eq!(counters.lag(9), Duration::ZERO);
        counters.oldest.store(5, Ordering::Relaxed);
        assert_eq!(counters.lag(9), Duration::from_micros(4));
        assert_eq!(counters.lag(1), Duration::ZERO);
    }
}
