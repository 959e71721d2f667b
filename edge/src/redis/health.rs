//! What all workers know of the servers: counted, and told in the log once for each change
//! and each reason.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::metrics::redis::{Fault as Label, RedisMetrics};

use super::Fault;

/// How long an error of the server is not told again.
const QUIET: Duration = Duration::from_secs(60);
/// How many kinds of errors, or reasons of one outage, are remembered. A server has few.
const KINDS: usize = 32;

/// What all workers know of the servers.
#[derive(Debug)]
pub struct Health {
    /// What is counted.
    pub metrics: RedisMetrics,
    /// What cannot be asked, by server.
    outages: Mutex<HashMap<String, Outage>>,
    /// When an error was last told, by its first word.
    told: Mutex<HashMap<String, Instant>>,
    purpose: Purpose,
}

/// A server that is given up.
#[derive(Debug, Default)]
struct Outage {
    /// How many connections are.
    circuits: usize,
    /// Why, as far as told.
    reasons: Vec<String>,
}

/// What servers are asked for.
#[derive(Debug)]
enum Purpose {
    /// To decide limits.
    Decisions,
    /// For work in the background, which speaks for itself.
    Background,
    /// For what another region, of this name, has and knows.
    Peer(String),
}

impl Health {
    /// Counts in `metrics`.
    #[must_use]
    pub fn new(metrics: RedisMetrics) -> Self {
        Self {
            metrics,
            outages: Mutex::default(),
            told: Mutex::default(),
            purpose: Purpose::Decisions,
        }
    }

    /// For connections of work in the background, which are not counted.
    #[must_use]
    pub fn background() -> Self {
        Self { purpose: Purpose::Background, ..Self::new(RedisMetrics::default()) }
    }

    /// For connections to the server of another region, which are not counted.
    #[must_use]
    pub fn of_peer(name: &str) -> Self {
        Self { purpose: Purpose::Peer(name.to_owned()), ..Self::background() }
    }

    /// A circuit has opened.
    pub(super) fn opened(&self, server: &str, why: &str) {
        self.metrics.circuits_open.inc();
        let mut outages = locked(&self.outages);
        let outage = outages.entry(server.to_owned()).or_default();
        outage.circuits = outage.circuits.saturating_add(1);
        self.tell(outage, server, why);
    }

    /// An attempt to close a circuit has failed.
    pub(super) fn still_open(&self, server: &str, why: &str) {
        if let Some(outage) = locked(&self.outages).get_mut(server) {
            self.tell(outage, server, why);
        }
    }

    /// Tells each reason of an outage once: the first may be that connections broke off, and
    /// only the next says that the password is wrong.
    fn tell(&self, outage: &mut Outage, server: &str, why: &str) {
        let reasons = &mut outage.reasons;
        if reasons.len() >= KINDS || reasons.iter().any(|told| told == why) {
            return;
        }
        let is_first = reasons.is_empty();
        reasons.push(why.to_owned());
        match &self.purpose {
            Purpose::Decisions if is_first => {
                tracing::error!(server, why, "Redis cannot be asked: limits fail open or closed");
            }
            Purpose::Decisions => tracing::error!(server, why, "Redis still cannot be asked"),
            Purpose::Background => {
                tracing::warn!(server, why, "Redis cannot be asked: work in the background waits");
            }
            Purpose::Peer(peer) => {
                tracing::warn!(peer, server, why, "a peer cannot be asked");
            }
        }
    }

    /// A circuit has closed.
    pub(super) fn closed(&self, server: &str) {
        if self.left(server) && self.decides() {
            tracing::info!(server, "Redis answers again");
        }
    }

    /// Nobody tries any more to reach a server whose circuit is open. Says whether that was
    /// the last such circuit of the server.
    pub(super) fn left(&self, server: &str) -> bool {
        self.metrics.circuits_open.dec();
        let mut outages = locked(&self.outages);
        let Some(outage) = outages.get_mut(server) else { return false };
        outage.circuits = outage.circuits.saturating_sub(1);
        let is_last = outage.circuits == 0;
        if is_last {
            outages.remove(server);
        }
        is_last
    }

    fn decides(&self) -> bool {
        matches!(self.purpose, Purpose::Decisions)
    }

    /// A command has had no answer.
    pub(super) fn fault(&self, fault: &Fault) {
        self.metrics.faults.get_or_create(&Label { kind: fault.kind() }).inc();
        let Fault::Refused { code, text } = fault else { return };
        if !self.decides() {
            return;
        }
        let now = Instant::now();
        let mut told = locked(&self.told);
        let is_news = told.get(code).is_none_or(|last| now.duration_since(*last) >= QUIET);
        if is_news && (told.len() < KINDS || told.contains_key(code)) {
            told.insert(code.clone(), now);
            tracing::error!(error = text, "Redis refuses a command");
        }
    }
}

/// What a task in the background has told of its faults: the same one not again for a minute.
#[derive(Debug, Default)]
pub struct Told(Option<(Fault, Instant)>);

impl Told {
    /// Whether to tell of a fault.
    pub fn is_news(&mut self, fault: &Fault) -> bool {
        let is_news =
            self.0.as_ref().is_none_or(|(last, at)| last != fault || at.elapsed() >= QUIET);
        if is_news {
            self.0 = Some((fault.clone(), Instant::now()));
        }
        is_news
    }
}

impl Fault {
    fn kind(&self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Connection(_) => "connection",
            Self::Refused { .. } => "refused",
            Self::CircuitOpen => "circuit_open",
            Self::QueueFull => "queue_full",
            Self::Overloaded => "overloaded",
        }
    }
}

/// A lock that a panic elsewhere does not take away: what it guards is whole after each step.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
