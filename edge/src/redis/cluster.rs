//! A cluster: which node has which slot, and what a node says that no longer has it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crc16::{State, XMODEM};
use redis::{Cmd, ConnectionAddr, Value, from_redis_value};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Fault;
use super::dial::{Dial, Place};
use super::health::{Health, locked};
use super::link::Link;
use super::wire::Reply;

/// How long to wait before a command is sent once more to nodes that do not agree yet on who
/// has its slot, or cannot do it in the middle of a migration. None of them has done it.
const AGAIN: Duration = Duration::from_millis(2);
/// How long the slots are not asked for again.
const FRESH: Duration = Duration::from_millis(100);

/// How long a node may take to tell the slots before another is asked.
const ANSWER: Duration = Duration::from_millis(500);

/// Where a node is.
type Node = (String, u16);

/// A cluster, as one worker sees it.
pub struct Cluster(Arc<Inner>);

struct Inner {
    dial: Arc<Dial>,
    health: Arc<Health>,
    seeds: Vec<Node>,
    links: Mutex<HashMap<Node, Link>>,
    slots: Mutex<Slots>,
    refreshing: AtomicBool,
    /// Which of the nodes is asked first, in turns.
    turn: AtomicUsize,
    /// Counts how often the slots were learnt.
    learnt: watch::Sender<u64>,
    lost: Arc<dyn Fn() + Send + Sync>,
}

/// How many slots there are.
const SLOTS: u16 = 16_384;

/// A key that has slot 0.
pub const KEY_OF_FIRST_SLOT: &[u8] = b"";

/// The slot of a key: that of the part between the first `{` and the next `}`, if there is
/// something between, else that of all of it.
pub fn slot(key: &[u8]) -> u16 {
    let tag = || {
        let open = key.iter().position(|byte| *byte == b'{')?;
        let (_, behind) = key.split_at_checked(open.checked_add(1)?)?;
        let close = behind.iter().position(|byte| *byte == b'}')?;
        behind.get(..close).filter(|tag| !tag.is_empty())
    };
    State::<XMODEM>::calculate(tag().unwrap_or(key)) % SLOTS
}

/// The node of each range of slots, by the last slot of the range.
#[derive(Debug, Default, PartialEq, Eq)]
struct Slots(BTreeMap<u16, (u16, Node)>);

impl Slots {
    fn node(&self, slot: u16) -> Option<&Node> {
        let (_, (first, node)) = self.0.range(slot..).next()?;
        (*first <= slot).then_some(node)
    }

    /// Reads the reply of `CLUSTER SLOTS` that the node at `host` has given.
    fn read(reply: Value, host: &str) -> Option<Self> {
        let mut slots = BTreeMap::new();
        for range in from_redis_value::<Vec<Vec<Value>>>(reply).ok()? {
            let mut parts = range.into_iter();
            let first = from_redis_value(parts.next()?).ok()?;
            let last = from_redis_value(parts.next()?).ok()?;
            let mut master = from_redis_value::<Vec<Value>>(parts.next()?).ok()?.into_iter();
            // A node that does not know its own address leaves it out: it is the one asked.
            let name: Option<String> = from_redis_value(master.next()?).ok()?;
            let name = name.filter(|name| !name.is_empty() && name != "?");
            let port = from_redis_value(master.next()?).ok()?;
            slots.insert(last, (first, (name.unwrap_or_else(|| host.to_owned()), port)));
        }
        // A node that is in no cluster yet.
        (!slots.is_empty()).then_some(Self(slots))
    }

    fn nodes(&self) -> BTreeSet<Node> {
        self.0.values().map(|(_, node)| node.clone()).collect()
    }
}

/// What a node says to a command for a slot that it does not have, or not whole.
#[derive(Debug, PartialEq, Eq)]
enum Redirect {
    /// The slot is another's.
    Moved(Node),
    /// The key has gone to another already.
    Ask(Node),
    /// The keys of the command are not all at one node.
    Again,
}

impl Redirect {
    fn read(code: &str, text: &str, host: &str) -> Option<Self> {
        let node = || {
            let (_, address) = text.rsplit_once(' ')?;
            let (name, port) = address.rsplit_once(':')?;
            let name = if name.is_empty() { host } else { name };
            Some((name.to_owned(), port.parse().ok()?))
        };
        match code {
            "MOVED" => Some(Self::Moved(node()?)),
            "ASK" => Some(Self::Ask(node()?)),
            "TRYAGAIN" => Some(Self::Again),
            _ => None,
        }
    }
}

impl Cluster {
    /// A cluster of which `seeds` are some nodes.
    pub fn new(
        dial: Arc<Dial>,
        seeds: Vec<ConnectionAddr>,
        health: Arc<Health>,
        lost: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        let seeds = seeds
            .into_iter()
            .filter_map(|seed| match seed {
                ConnectionAddr::Tcp(host, port) => Some((host, port)),
                _ => None,
            })
            .collect();
        Self(Arc::new(Inner {
            dial,
            health,
            seeds,
            links: Mutex::default(),
            slots: Mutex::default(),
            refreshing: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
            learnt: watch::Sender::new(0),
            lost,
        }))
    }

    /// Learns the slots.
    pub fn connect(&self) {
        self.0.refresh();
    }

    /// The node that has `key`, as far as is known.
    pub fn node_of(&self, key: &[u8]) -> Option<String> {
        let slots = locked(&self.0.slots);
        slots.node(slot(key)).map(|(host, port)| format!("{host}:{port}"))
    }

    /// Sends `command` to the node that has `key`, wherever that is by then, and waits for the
    /// answer.
    ///
    /// # Errors
    /// When there is none at `deadline`.
    pub async fn ask(&self, key: &[u8], command: &Cmd, deadline: Instant) -> Result<Reply, Fault> {
        let mut node = self.0.node(slot(key), deadline).await?;
        let mut is_importing = false;
        let mut is_sent_on = false;
        loop {
            let link = self.0.link(&node);
            let result = if is_importing {
                link.ask_importing(command, deadline).await
            } else {
                link.ask(command, deadline).await
            };
            let redirect = match &result {
                Ok(_) => None,
                Err(Fault::Refused { code, text }) => {
                    if code == "CLUSTERDOWN" {
                        // As it sees it: it may be cut off from the others, and replaced.
                        self.0.refresh();
                    }
                    Redirect::read(code, text, &node.0)
                }
                Err(_) => {
                    // Perhaps it is another's by now.
                    self.0.refresh();
                    None
                }
            };
            let is_again = redirect == Some(Redirect::Again);
            match redirect {
                None => return result,
                Some(Redirect::Moved(to)) => {
                    self.0.refresh();
                    (node, is_importing) = (to, false);
                }
                Some(Redirect::Ask(to)) => (node, is_importing) = (to, true),
                Some(Redirect::Again) => {}
            }
            if (is_sent_on || is_again) && timeout_at(deadline, sleep(AGAIN)).await.is_err() {
                return result;
            }
            is_sent_on = true;
        }
    }
}

impl Inner {
    /// The node that has `slot`, as far as is known.
    async fn node(self: &Arc<Self>, slot: u16, deadline: Instant) -> Result<Node, Fault> {
        let mut learnt = self.learnt.subscribe();
        loop {
            if let Some(node) = locked(&self.slots).node(slot) {
                return Ok(node.clone());
            }
            self.refresh();
            if timeout_at(deadline, learnt.changed()).await.is_err() {
                return Err(Fault::Connection(format!("no node is known to have slot {slot}")));
            }
        }
    }

    fn link(self: &Arc<Self>, node: &Node) -> Link {
        let mut links = locked(&self.links);
        let link = links.entry(node.clone()).or_insert_with(|| {
            let (host, port) = node.clone();
            let lost = Arc::clone(&self.lost);
            Link::new(
                Arc::clone(&self.dial),
                Place::Fixed(ConnectionAddr::Tcp(host, port)),
                Arc::clone(&self.health),
                Box::new(move || lost()),
            )
        });
        link.clone()
    }

    /// Begins to learn the slots anew, unless that is under way or was done just now.
    fn refresh(self: &Arc<Self>) {
        if !self.refreshing.swap(true, Ordering::Relaxed) {
            tokio::spawn(Self::learn(Arc::downgrade(self)));
        }
    }

    /// Asks one node after the other for the slots: those that are known to have some, then
    /// those of the URL.
    async fn learn(cluster: Weak<Self>) {
        let Some(this) = cluster.upgrade() else { return };
        if let Some(slots) = this.ask_for_slots().await {
            this.adopt(slots);
        }
        drop(this);
        sleep(FRESH).await;
        let Some(this) = cluster.upgrade() else { return };
        this.refreshing.store(false, Ordering::Relaxed);
        // Whoever waits for a node sees to it that they are asked for again.
        this.learnt.send_modify(|learnt| *learnt = learnt.wrapping_add(1));
    }

    async fn ask_for_slots(self: &Arc<Self>) -> Option<Slots> {
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        // Another one first each time: a node that is cut off from the others tells what it knew.
        let known = locked(&self.slots).nodes();
        for node in &in_turn(known, self.turn.fetch_add(1, Ordering::Relaxed)) {
            let deadline = Instant::now().checked_add(ANSWER)?;
            let answer = self.link(node).ask(&command, deadline).await;
            if let Ok(Reply::Other(reply)) = answer
                && let Some(slots) = Slots::read(reply, &node.0)
            {
                return Some(slots);
            }
        }
        for (host, port) in &self.seeds {
            let address = ConnectionAddr::Tcp(host.clone(), *port);
            let answer = timeout(ANSWER, self.dial.ask_once(&address, &command)).await;
            match answer.unwrap_or_else(|_| Err("no answer".to_owned())) {
                Ok(reply) => match Slots::read(reply, host) {
                    Some(slots) => return Some(slots),
                    None => tracing::debug!(%address, "has no slots to tell of"),
                },
                Err(error) => tracing::debug!(%address, error, "does not tell the slots"),
            }
        }
        None
    }

    /// Goes by these slots from now on, and leaves nodes that have none.
    fn adopt(&self, slots: Slots) {
        let mut links = locked(&self.links);
        let nodes = slots.nodes();
        links.retain(|node, _| nodes.contains(node));
        *locked(&self.slots) = slots;
        drop(links);
        self.learnt.send_modify(|learnt| *learnt = learnt.wrapping_add(1));
    }
}

/// All nodes, another one first at each turn.
fn in_turn(nodes: BTreeSet<Node>, turn: usize) -> Vec<Node> {
    let mut nodes: Vec<_> = nodes.into_iter().collect();
    let first = turn.checked_rem(nodes.len()).unwrap_or(0);
    nodes.rotate_left(first);
    nodes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_node_is_asked_first_in_its_turn() {
        let nodes = |ports: &[u16]| ports.iter().map(|port| (String::new(), *port)).collect();
        for (turn, order) in [(0, [1, 2, 3]), (1, [2, 3, 1]), (2, [3, 1, 2]), (3, [1, 2, 3])] {
            let asked = in_turn(nodes(&[3, 1, 2]), turn);
            assert_eq!(asked.iter().map(|(_, port)| *port).collect::<Vec<_>>(), order, "{turn}");
        }
        assert_eq!(in_turn(BTreeSet::new(), 5), []);
    }

    #[test]
    fn a_key_has_the_slot_that_the_server_says() {
        // CLUSTER KEYSLOT.
        for (key, expected) in [
            (str::from_utf8(KEY_OF_FIRST_SLOT).unwrap(), 0),
            ("123456789", 12_739),
            ("foo", 12_182),
            ("{foo}bar", 12_182),
            ("a{foo}{bar}", 12_182),
            ("foo{}{bar}", 8363),
            ("{", 4092),
        ] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
    }

    #[test]
    fn slots_are_found_by_their_range() {
        let range = |first, last, host: &str, port| {
            let host = Value::BulkString(host.as_bytes().to_vec());
            let node = Value::Array(vec![host, Value::Int(port), Value::Nil]);
            Value::Array(vec![Value::Int(first), Value::Int(last), node])
        };
        let reply = Value::Array(vec![
            range(100, 200, "a", 1),
            range(0, 99, "", 2),
            range(300, 300, "c", 3),
        ]);
        let slots = Slots::read(reply, "asked").unwrap();
        for (slot, node) in [
            (0, Some(("asked", 2))),
            (99, Some(("asked", 2))),
            (100, Some(("a", 1))),
            (200, Some(("a", 1))),
            (201, None),
            (299, None),
            (300, Some(("c", 3))),
            (301, None),
        ] {
            let found = slots.node(slot).map(|(host, port)| (host.as_str(), *port));
            assert_eq!(found, node, "{slot}");
        }
        assert_eq!(Slots::read(Value::Array(vec![Value::Int(1)]), "asked"), None);
    }

    #[test]
    fn redirections_are_read() {
        let node = |host: &str, port| (host.to_owned(), port);
        for (code, text, redirect) in [
            ("MOVED", "MOVED 3999 b:6381", Some(Redirect::Moved(node("b", 6381)))),
            ("MOVED", "MOVED 3999 :6381", Some(Redirect::Moved(node("asked", 6381)))),
            ("MOVED", "MOVED 3999 ::1:6381", Some(Redirect::Moved(node("::1", 6381)))),
            ("MOVED", "MOVED", None),
            ("ASK", "ASK 3999 b:6381", Some(Redirect::Ask(node("b", 6381)))),
            ("TRYAGAIN", "TRYAGAIN Multiple keys", Some(Redirect::Again)),
            ("CLUSTERDOWN", "CLUSTERDOWN The cluster is down", None),
        ] {
            assert_eq!(Redirect::read(code, text, "asked"), redirect, "{text}");
        }
    }
}
