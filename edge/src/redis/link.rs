//! The connection of one worker to one server: made when it is needed, closed when it cannot
//! be trusted, and made again in the background.
//!
//! Replies come in the order of the commands, so one that is late would be taken for the
//! answer to another question: a connection on which an answer is late is closed, and with it
//! goes all that waits on it. None of that is sent again, since the server may have done it.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Fault;
use super::circuit::Circuit;
use super::dial::{Dial, Dialled, Place};
use super::health::{Health, locked};
use super::late::{self, Late};
use super::wire::{Reply, Wire, watch};
use crate::seat::{Seat, Seats};

/// How long an attempt to connect may take. Nobody waits longer for it than for an answer.
const CONNECT: Duration = Duration::from_secs(1);
/// How many commands may wait for an answer at one connection.
const IN_FLIGHT: usize = 4096;
/// How often it is looked, at the most, whether a command waits for its answer that nobody waits for
/// any more.
const LEAST_WATCH: Duration = Duration::from_millis(500);
/// Errors by which a server says that it is no longer the one to ask, or no longer knows us.
const LEAVE: &[&str] = &["READONLY", "MASTERDOWN", "NOAUTH"];

/// A connection of this worker. Clones share it.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    dial: Arc<Dial>,
    place: Place,
    name: String,
    health: Arc<Health>,
    state: Mutex<State>,
    /// Whether an answer matters to the circuit.
    doubtful: AtomicBool,
    /// Commands that wait for an answer.
    waiting: Seats,
    /// Counts changes of the state, for those who wait for a connection.
    changes: watch::Sender<u64>,
    /// Called when a connection is gone.
    lost: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct State {
    circuit: Circuit,
    session: Option<Session>,
    /// Counts sessions, so that nobody closes a later one than the one he means.
    sessions: u64,
    connecting: bool,
}

struct Session {
    wire: Wire,
    driver: AbortHandle,
}

impl Drop for Session {
    fn drop(&mut self) {
        // The socket is the driver's: this closes it.
        self.driver.abort();
    }
}

impl Link {
    /// A link that connects when it is first used. `lost` is called when a connection is gone.
    pub fn new(
        dial: Arc<Dial>,
        place: Place,
        health: Arc<Health>,
        lost: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        let name = place.to_string();
        Self(Arc::new(Inner {
            dial,
            place,
            name,
            health,
            state: Mutex::default(),
            doubtful: AtomicBool::new(false),
            waiting: Seats::new(IN_FLIGHT),
            changes: watch::Sender::new(0),
            lost,
        }))
    }

    /// Connects, unless that is done or under way.
    pub fn connect(&self) {
        let mut state = locked(&self.0.state);
        if state.session.is_none() {
            self.0.begin(&mut state);
        }
    }

    /// Sends `command` and waits for its answer.
    ///
    /// # Errors
    /// When there is none at `deadline`.
    pub async fn ask(&self, command: &Cmd, deadline: Instant) -> Result<Reply, Fault> {
        self.0.ask(command, false, deadline).await
    }

    /// Sends `command` to a server that is taking over its key's slot.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn ask_importing(&self, command: &Cmd, deadline: Instant) -> Result<Reply, Fault> {
        self.0.ask(command, true, deadline).await
    }
}

impl Inner {
    async fn ask(
        self: &Arc<Self>,
        command: &Cmd,
        is_importing: bool,
        deadline: Instant,
    ) -> Result<Reply, Fault> {
        let _seat = Seat::one(&self.waiting).ok_or(Fault::QueueFull)?;
        let (session, wire) = self.session(deadline).await?;
        self.health.metrics.commands.inc();
        if is_importing {
            // It holds for the very next command. If it is refused, so is that.
            drop(wire.send(&redis::cmd("ASKING")));
        }
        let asked = Instant::now();
        let answer = pin!(wire.ask(command));
        match self.dial.patience().in_time(answer, deadline).await {
            Ok(Ok(Reply::Other(Value::ServerError(error)))) => {
                let fault = Fault::refused(&error.into());
                if let Fault::Refused { code, .. } = &fault
                    && LEAVE.contains(&code.as_str())
                {
                    self.close(session, code);
                } else {
                    self.heard();
                }
                Err(fault)
            }
            Ok(Ok(reply)) => {
                self.heard();
                Ok(reply)
            }
            Ok(Err(error)) => {
                self.close(session, "the connection broke off");
                Err(Fault::Connection(error.to_string()))
            }
            Err(Late::Own) => Err(Fault::Overloaded),
            Err(Late::Theirs) => {
                // Who had waited for something else before says nothing about the server.
                if asked.elapsed().saturating_mul(2) >= self.dial.patience().length() {
                    self.close(session, "no answer within DECISION_TIMEOUT");
                }
                Err(Fault::Deadline)
            }
        }
    }

    /// A connection, and which it is.
    async fn session(self: &Arc<Self>, deadline: Instant) -> Result<(u64, Wire), Fault> {
        loop {
            let mut changes = {
                let mut state = locked(&self.state);
                if let Some(session) = &state.session {
                    return Ok((state.sessions, session.wire.clone()));
                }
                if state.circuit.is_open() {
                    return Err(Fault::CircuitOpen);
                }
                self.begin(&mut state);
                self.changes.subscribe()
            };
            if timeout_at(deadline, changes.changed()).await.is_err() {
                if late::is_own(deadline, self.dial.patience().length()) {
                    return Err(Fault::Overloaded);
                }
                self.unreachable("no connection within DECISION_TIMEOUT");
                return Err(Fault::Deadline);
            }
        }
    }

    /// Begins to connect, unless that is under way.
    fn begin(self: &Arc<Self>, state: &mut State) {
        if !state.connecting {
            state.connecting = true;
            tokio::spawn(Self::attempts(Arc::downgrade(self)));
        }
    }

    /// Tries to connect until it has.
    async fn attempts(link: Weak<Self>) {
        loop {
            let Some(this) = link.upgrade() else { return };
            let pause = {
                let mut state = locked(&this.state);
                state.circuit.is_open().then(|| state.circuit.next_pause(random()))
            };
            if let Some(pause) = pause {
                drop(this);
                sleep(pause).await;
            }
            let Some(this) = link.upgrade() else { return };
            match timeout(CONNECT, this.dial.open(&this.place)).await {
                Ok(Ok(dialled)) => return this.opened(dialled),
                Ok(Err(why)) => this.unreachable(&why),
                Err(_) => this.unreachable("no connection within a second"),
            }
        }
    }

    fn opened(self: &Arc<Self>, dialled: Dialled) {
        let mut state = locked(&self.state);
        state.sessions = state.sessions.saturating_add(1);
        let (link, session) = (Arc::downgrade(self), state.sessions);
        let patience = self.dial.patience().length().max(LEAST_WATCH);
        let watch = watch(dialled.wire.clone(), patience);
        let driver = tokio::spawn(async move {
            let why = tokio::select! {
                () = dialled.driver => "the server closed the connection",
                () = watch => "no answer within DECISION_TIMEOUT",
            };
            if let Some(link) = link.upgrade() {
                link.close(session, why);
            }
        });
        state.session = Some(Session { wire: dialled.wire, driver: driver.abort_handle() });
        state.connecting = false;
        self.change(&mut state, "", Circuit::connected);
    }

    /// Closes a session, if it is still the one in use.
    fn close(self: &Arc<Self>, session: u64, why: &str) {
        {
            let mut state = locked(&self.state);
            if state.sessions != session || state.session.take().is_none() {
                return;
            }
            // One that nobody waited on has cost nothing: a server may close what is idle.
            if self.waiting.taken() > 0 {
                self.change(&mut state, why, Circuit::fault);
            }
            self.begin(&mut state);
        }
        (self.lost)();
    }

    fn unreachable(&self, why: &str) {
        let mut state = locked(&self.state);
        if state.session.is_none() {
            self.change(&mut state, why, Circuit::unreachable);
        }
    }

    fn heard(&self) {
        if self.doubtful.load(Ordering::Relaxed) {
            self.change(&mut locked(&self.state), "", Circuit::answered);
        }
    }

    /// Lets the circuit know, and all who have to do with it.
    fn change(&self, state: &mut State, why: &str, event: fn(&mut Circuit)) {
        let before = state.circuit.is_open();
        event(&mut state.circuit);
        self.doubtful.store(state.circuit.is_doubtful(), Ordering::Relaxed);
        match (before, state.circuit.is_open()) {
            (false, true) => self.health.opened(&self.name, why),
            (true, false) => self.health.closed(&self.name),
            (true, true) => self.health.still_open(&self.name, why),
            (false, false) => {}
        }
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if locked(&self.state).circuit.is_open() {
            self.health.left(&self.name);
        }
    }
}

/// A number that differs between processes and calls. It spreads attempts, no more.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}
