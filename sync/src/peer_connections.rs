//! The nodes of one peer: a single server, or the masters of a cluster.
//!
//! A single server is treated as a cluster of one node that has all slots.
//! Nodes fail one by one: what is for the others goes on. A node that does not answer
//! loses its connection; one that answers and refuses states keeps it, and hears that we
//! are alive.

mod deliver;

use crate::backoff::{ABSENT, Backoff, PRESENT};
use crate::cluster::{Endpoint, MAX_MASTERS, SLOTS, Topology, slot_of};
use crate::config::{Messages, Round};
use crate::connection::{Access, Connection, Fault, FaultKind};
use crate::note_log::Entry;
use crate::reply::{Refusal, Verdict, judge};
use crate::status::{PeerCounters, PeerState};
use crate::wire;
use redis::Value;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// From one look at which nodes a cluster has to the next that nobody asked for. One that has just
/// been given slots has to hear us before it counts as one that does not.
const LOOKING: Duration = Duration::from_secs(1);

/// A node that has taken so long to fail is the last that is connected to before those that are
/// connected are spoken to again.
const LONG: Duration = Duration::from_millis(100);

/// How long a node is kept that another one has redirected to and that has no slots yet, or none
/// that the one which was asked for them knows of.
const KEPT: Duration = Duration::from_secs(10);

/// The connections to one peer.
pub(crate) struct PeerConnections<'a> {
    peer: usize,
    access: Access,
    counters: &'a PeerCounters,
    messages: Arc<dyn Messages>,
    seed: Endpoint,
    nodes: Vec<Node>,
    /// The node of each slot; `None` when the peer is a single server.
    slots: Option<Box<[Option<usize>]>>,
    /// It is known which nodes there are.
    explored: bool,
    /// That may have changed.
    stale: bool,
    /// When it was found out last.
    looked: Instant,
    exploring: Backoff,
    /// The code of the error that finding out was answered with.
    refused: Option<String>,
    /// Which process was last met where.
    runs: Vec<(Endpoint, Vec<u8>)>,
    stranger: bool,
    /// Some state of the last delivery belongs to no node.
    unrouted: bool,
    /// A buffer that is used again.
    bytes: Vec<u8>,
    /// States that arrived, or were refused for good.
    done: Vec<Entry>,
}

struct Node {
    endpoint: Endpoint,
    connection: Option<Connection>,
    /// The opening heartbeat has been answered.
    greeted: bool,
    /// Before connecting again.
    backoff: Backoff,
    /// The code of the error that it has answered the last attempt with.
    refusing: Option<String>,
    /// Before it is given states again, after it has refused some.
    rest: Backoff,
    /// It lacks some state of the last delivery.
    behind: bool,
    /// When another node has redirected to it last.
    named: Option<Instant>,
}

impl Node {
    fn new(endpoint: Endpoint, connection: Option<Connection>) -> Self {
        Self {
            endpoint,
            connection,
            greeted: false,
            backoff: Backoff::default(),
            refusing: None,
            rest: Backoff::default(),
            behind: false,
            named: None,
        }
    }

    fn ready(&self) -> bool {
        self.greeted && self.connection.is_some()
    }

    /// It takes states, or it is time to see whether it does.
    fn may_take_states(&self, now: Instant) -> bool {
        self.ready() && self.rest.due(now)
    }

    fn accepts(&self) -> bool {
        self.ready() && self.refusing.is_none()
    }

    fn accepted(&mut self) {
        self.refusing = None;
        self.rest.reset();
    }
}

impl<'a> PeerConnections<'a> {
    pub fn new(
        peer: usize,
        access: Access,
        counters: &'a PeerCounters,
        messages: Arc<dyn Messages>,
    ) -> Self {
        let seed = Endpoint { host: access.url.host().to_owned(), port: access.url.port() };
        Self {
            peer,
            access,
            counters,
            messages,
            seed,
            nodes: Vec::new(),
            slots: None,
            explored: false,
            stale: false,
            looked: Instant::now(),
            exploring: Backoff::default(),
            refused: None,
            unrouted: false,
            runs: Vec::new(),
            stranger: false,
            bytes: Vec::new(),
            done: Vec::new(),
        }
    }

    /// States that the peer has been told, once.
    pub fn done(&mut self) -> &mut Vec<Entry> {
        &mut self.done
    }

    /// Connects whatever is not connected and due. Returns whether any node is
    /// ready.
    pub fn prepare(&mut self) -> bool {
        // A master that no state of ours belongs to is not found otherwise.
        self.stale |= self.slots.is_some() && self.looked.elapsed() >= LOOKING;
        if (!self.explored || self.stale) && self.exploring.due(Instant::now()) {
            match self.explore() {
                Ok(()) => {
                    (self.explored, self.stale) = (true, false);
                    self.looked = Instant::now();
                    self.exploring.reset();
                    self.refused = None;
                }
                Err(fault) => {
                    self.exploring.fail(Instant::now(), longest_wait(&fault));
                    self.counters.error(&fault.why);
                    self.refused = fault.refusal().map(str::to_owned);
                }
            }
        }
        for index in self.due() {
            let began = Instant::now();
            if let Err(fault) = self.greet(index) {
                self.fail(index, &fault);
                if began.elapsed() >= LONG {
                    break;
                }
            }
        }
        self.show_state();
        self.nodes.iter().any(Node::ready)
    }

    /// The nodes to connect to now, each in its turn: one that is back does not wait for those that hang.
    fn due(&self) -> Vec<usize> {
        let now = Instant::now();
        let nodes = self.nodes.iter().enumerate();
        let due = nodes.filter(|(_, node)| !node.ready() && node.backoff.due(now));
        let mut due: Vec<_> = due.map(|(index, node)| (node.backoff.turn(), index)).collect();
        due.sort_unstable();
        due.into_iter().map(|(_, index)| index).collect()
    }

    /// Whether any node takes states.
    pub fn accepts(&self) -> bool {
        self.nodes.iter().any(Node::accepts)
    }

    /// Whether any node is to be sent states now: one that takes them, or one that it is
    /// time to try.
    pub fn may_take_states(&self) -> bool {
        let now = Instant::now();
        self.nodes.iter().any(|node| node.may_take_states(now))
    }

    /// Whether some node has turned out to be a process not met before.
    pub fn take_stranger(&mut self) -> bool {
        std::mem::take(&mut self.stranger)
    }

    /// When something that has failed is to be tried again.
    pub fn retry(&self) -> Option<Instant> {
        let nodes = self
            .nodes
            .iter()
            .filter_map(|node| if node.ready() { node.rest.until() } else { node.backoff.until() });
        let exploring = if self.explored && !self.stale { None } else { self.exploring.until() };
        nodes.chain(exploring).min()
    }

    fn show_state(&self) {
        let refusing = self.nodes.iter().find_map(|node| node.refusing.as_deref());
        self.counters.set_refusing(refusing.or(self.refused.as_deref()));
        let ready = self.nodes.iter().filter(|node| node.ready()).count();
        let failed = self.counters.errors.load(Ordering::Relaxed) > 0;
        self.counters.set_state(match ready {
            0 if failed => PeerState::BackingOff,
            0 => PeerState::Connecting,
            _ if ready == self.nodes.len() => PeerState::Connected,
            _ => PeerState::Partial,
        });
    }

    /// Finds out which nodes there are.
    fn explore(&mut self) -> Result<(), Fault> {
        // One that refuses states may have lost its cluster, and not know who has its slots by now.
        let refuses = |index: &usize| self.nodes.get(*index).is_some_and(|n| n.refusing.is_some());
        let (last, first): (Vec<usize>, Vec<usize>) = (0..self.nodes.len()).partition(refuses);
        for index in first.into_iter().chain(last) {
            let Some(node) = self.nodes.get_mut(index) else { break };
            let Some(connection) = &mut node.connection else { continue };
            match ask_for_slots(connection, &node.endpoint, self.counters) {
                Ok(topology) => {
                    self.adopt(topology, None);
                    return Ok(());
                }
                Err(fault) => self.fail(index, &fault),
            }
        }
        let others = self.nodes.iter().map(|node| &node.endpoint);
        let others = others.filter(|endpoint| **endpoint != self.seed).cloned();
        let candidates: Vec<Endpoint> = std::iter::once(self.seed.clone()).chain(others).collect();
        let mut first = None;
        for endpoint in candidates {
            let found =
                Connection::open(&endpoint, &self.access, self.counters).and_then(|mut c| {
                    let topology = ask_for_slots(&mut c, &endpoint, self.counters)?;
                    Ok((topology, c))
                });
            match found {
                Ok((topology, connection)) => {
                    self.adopt(topology, Some((endpoint, connection)));
                    return Ok(());
                }
                Err(fault) => first = first.or(Some(fault)),
            }
        }
        Err(first.unwrap_or_else(|| Fault::silent("there is no node to ask")))
    }

    /// Goes over to these nodes, keeping the connections to those that stay.
    fn adopt(&mut self, topology: Option<Topology>, fresh: Option<(Endpoint, Connection)>) {
        let mut fresh = fresh;
        let mut before = std::mem::take(&mut self.nodes);
        let mut node = |endpoint: Endpoint| {
            let known = before.iter().position(|node| node.endpoint == endpoint);
            let mut node = match known {
                Some(at) => before.swap_remove(at),
                None => Node::new(endpoint, None),
            };
            if node.connection.is_none()
                && let Some((_, connection)) = fresh.take_if(|(at, _)| *at == node.endpoint)
            {
                node.connection = Some(connection);
                node.greeted = false;
            }
            node
        };
        let Some(topology) = topology else {
            self.nodes = vec![node(self.seed.clone())];
            self.slots = None;
            return;
        };
        self.nodes = topology.masters.into_iter().map(&mut node).collect();
        let is_kept =
            |node: &Node| node.ready() && node.named.is_some_and(|named| named.elapsed() < KEPT);
        self.nodes.extend(before.into_iter().filter(is_kept));
        let mut slots = vec![None; usize::from(SLOTS)];
        for (first, last, master) in topology.ranges {
            for slot in slots.get_mut(usize::from(first)..=usize::from(last)).unwrap_or_default() {
                *slot = Some(master);
            }
        }
        self.slots = Some(slots.into());
        // A node that leaves and comes back may have missed something.
        let nodes = &self.nodes;
        self.runs.retain(|(at, _)| nodes.iter().any(|node| node.endpoint == *at));
    }

    /// Connects a node and learns who it is.
    fn greet(&mut self, index: usize) -> Result<(), Fault> {
        let Some(node) = self.nodes.get_mut(index) else { return Ok(()) };
        if node.ready() || !node.backoff.due(Instant::now()) {
            return Ok(());
        }
        let connection = match node.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&node.endpoint, &self.access, self.counters)?,
        };
        let connection = node.connection.insert(connection);
        let round = Round { peer: self.peer, complete: false, opening: true, refused: false };
        let reply = connection.call(&self.messages.heartbeat(&round), self.counters)?;
        node.greeted = true;
        node.accepted();
        self.heard(index, &reply)
    }

    /// Gives a node up for a while.
    fn fail(&mut self, index: usize, fault: &Fault) {
        self.counters.error(&fault.why);
        let Some(node) = self.nodes.get_mut(index) else { return };
        node.connection = None;
        node.greeted = false;
        node.refusing = fault.refusal().map(str::to_owned);
        node.backoff.fail(Instant::now(), longest_wait(fault));
        if self.slots.is_some() {
            self.stale = true;
        }
    }

    fn owner(&self, key: &[u8]) -> Option<usize> {
        match &self.slots {
            None => Some(0),
            Some(slots) => slots.get(usize::from(slot_of(key))).copied().flatten(),
        }
    }

    /// The node that another one redirects to, which may be one that was not known.
    fn redirected(&mut self, by: usize, to: &str) -> Result<usize, String> {
        if self.slots.is_none() {
            self.explored = false;
            return Err("the peer is a cluster, its user needs the right to CLUSTER SLOTS".into());
        }
        let by = self.nodes.get(by).map(|node| &node.endpoint);
        let Some(to) = by.and_then(|by| Endpoint::redirected(to, by)) else {
            return Err("the peer redirects to an address that cannot be read".into());
        };
        let index = match self.nodes.iter().position(|node| node.endpoint == to) {
            Some(index) => index,
            None if self.nodes.len() < MAX_MASTERS => {
                self.nodes.push(Node::new(to, None));
                self.nodes.len().saturating_sub(1)
            }
            None => return Err("the peer redirects to too many nodes".into()),
        };
        if let Some(node) = self.nodes.get_mut(index) {
            node.named = Some(Instant::now());
        }
        // It may not be connected: then the states fail and are sent next time.
        if let Err(fault) = self.greet(index) {
            self.fail(index, &fault);
        }
        Ok(index)
    }

    /// A slot has another owner.
    fn moved(&mut self, node: usize, slot: u16, to: &str) -> Result<(), String> {
        self.stale = true;
        let index = self.redirected(node, to)?;
        if let Some(slot) = self.slots.as_mut().and_then(|all| all.get_mut(usize::from(slot))) {
            *slot = Some(index);
        }
        Ok(())
    }

    /// Ends a round: a heartbeat to every node that is ready. `complete` says
    /// whether those that the last delivery has left nothing behind for have
    /// everything. Returns whether all nodes have answered.
    pub fn heartbeat(&mut self, complete: bool) -> bool {
        let began = Instant::now();
        let mut asked = Vec::new();
        for index in 0..self.nodes.len() {
            let Some(node) = self.nodes.get_mut(index).filter(|node| node.ready()) else {
                continue;
            };
            let complete = complete && !node.behind && !self.unrouted;
            let refused = node.refusing.is_some();
            let complete = complete && !refused;
            let round = Round { peer: self.peer, complete, opening: false, refused };
            let Some(connection) = &mut node.connection else { continue };
            self.bytes.clear();
            wire::command(&mut self.bytes, &self.messages.heartbeat(&round));
            match connection.send(&self.bytes, self.counters) {
                Ok(()) => asked.push(index),
                Err(fault) => self.fail(index, &fault),
            }
        }
        for index in &asked {
            let connection = self.nodes.get_mut(*index).and_then(|node| node.connection.as_mut());
            let Some(connection) = connection else { continue };
            let result = connection.reply().and_then(|reply| self.heard(*index, &reply));
            match (result, self.nodes.get_mut(*index)) {
                (Ok(()), Some(node)) => node.backoff.reset(),
                (Ok(()), None) => {}
                (Err(fault), _) => self.fail(*index, &fault),
            }
        }
        if !asked.is_empty() {
            let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.counters.round_trip.store(took, Ordering::Relaxed);
        }
        let all = self.nodes.iter().all(Node::ready) && !self.nodes.is_empty();
        self.show_state();
        all
    }

    /// Takes notice of the reply to a heartbeat.
    fn heard(&mut self, index: usize, reply: &Value) -> Result<(), Fault> {
        if let Value::ServerError(error) = reply {
            return Err(Refusal::of("heartbeat", error).into());
        }
        let identity = self.messages.heard(self.peer, reply);
        if let Some(name) = &identity.replica {
            self.counters.set_replica(name);
        }
        let (Some(run), Some(node)) = (identity.run, self.nodes.get(index)) else {
            return Ok(());
        };
        match self.runs.iter_mut().find(|(at, _)| *at == node.endpoint) {
            Some((_, known)) if *known == run => {}
            Some((_, known)) => {
                *known = run;
                self.stranger = true;
            }
            None => {
                self.runs.push((node.endpoint.clone(), run));
                self.stranger = true;
            }
        }
        Ok(())
    }
}

/// One that is there may be well again at any moment.
fn longest_wait(fault: &Fault) -> Duration {
    if fault.kind == FaultKind::Absent { ABSENT } else { PRESENT }
}

/// Which master has which slots; `None` if the server is no cluster, or does
/// not allow the question.
fn ask_for_slots(
    connection: &mut Connection,
    at: &Endpoint,
    counters: &PeerCounters,
) -> Result<Option<Topology>, Fault> {
    match connection.call(&["CLUSTER", "SLOTS"], counters)? {
        Value::ServerError(error) => match judge(&error) {
            Verdict::Later(_) if !no_cluster(&error) => {
                Err(Refusal::of("CLUSTER SLOTS", &error).into())
            }
            _ => Ok(None),
        },
        reply => match Topology::read(&reply, at) {
            // It has left its cluster, or that is only being made. Another one may know more.
            Some(topology) if topology.masters.is_empty() => {
                Err(Fault::silent("the peer is a cluster in which no node has slots"))
            }
            Some(topology) => Ok(Some(topology)),
            None => Err(Fault::silent("CLUSTER SLOTS: a reply that cannot be read")),
        },
    }
}

fn no_cluster(error: &redis::ServerError) -> bool {
    error.code() == "NOPERM" || error.details().is_some_and(|d| d.starts_with("unknown command"))
}
