//! Clusters.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::process::Command;
use std::time::Duration;

use redis::cluster::ClusterClient;
use redis::{ConnectionLike, Value};

use crate::binaries::cli_binary;
use crate::log;
use crate::process::Process;
use crate::server::{Builder, Server};
use crate::wait::{eventually, link_is_up};
use crate::wire::{self, run, wire_error};

const SLOTS: u16 = 16_384;
/// How long `redis-cli` may take to create a cluster.
const CREATE: Duration = Duration::from_secs(60);
/// How long the nodes may take to agree. Longer than a failover, which takes
/// some three seconds with the node timeout below.
const AGREE: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(50);
/// In milliseconds: how long a node may be silent before it counts as failing.
const NODE_TIMEOUT: &str = "2000";
/// In milliseconds.
const MIGRATE_TIMEOUT: u32 = 5_000;

/// A running cluster. Nodes keep their index for good, whether they are alive
/// or dead, master or replica. Dropping the cluster kills all of them.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    /// Starts a cluster of nodes with the default module and waits until it
    /// works. The first `masters` nodes are masters; which replica has which
    /// master is for [`replicas_of`](Cluster::replicas_of) to say.
    ///
    /// # Panics
    ///
    /// If there are less than 3 masters, which is the least that `redis-cli`
    /// makes a cluster of, or if the nodes do not come up or do not agree
    /// within 30 seconds.
    pub fn start(masters: usize, replicas_each: usize) -> Cluster {
        Cluster::start_with(masters, replicas_each, |node| node)
    }

    /// Like [`start`](Cluster::start), with every node set up further:
    /// `Cluster::start_with(3, 0, |node| node.module_args(["max-tokens", "50"]))`.
    ///
    /// # Panics
    ///
    /// As [`start`](Cluster::start).
    pub fn start_with(
        masters: usize,
        replicas_each: usize,
        configure: impl Fn(Builder) -> Builder,
    ) -> Cluster {
        assert!(masters >= 3, "a cluster has at least 3 masters");
        let count = masters * (replicas_each + 1);
        let cluster = Cluster { nodes: (0..count).map(|_| configure(node()).start()).collect() };
        cluster.create(replicas_each);
        cluster.wait_until_ok();
        cluster
    }

    /// Starts another node and waits until all know it: a master without slots. Returns its
    /// index.
    ///
    /// # Panics
    ///
    /// If it does not come up, or the nodes do not agree within 30 seconds.
    pub fn join(&mut self, configure: impl FnOnce(Builder) -> Builder) -> usize {
        let joining = configure(node()).start();
        ask(&joining, &format!("MEET 127.0.0.1 {}", self.nodes[0].port()));
        self.nodes.push(joining);
        self.wait_until_ok();
        self.nodes.len() - 1
    }

    /// All nodes, also the dead ones.
    pub fn nodes(&self) -> &[Server] {
        &self.nodes
    }

    /// A client that knows all nodes that are alive and follows redirections.
    ///
    /// # Panics
    ///
    /// If no node is alive.
    pub fn cluster_client(&self) -> ClusterClient {
        let answer = Duration::from_secs(10);
        ClusterClient::builder(self.alive().map(|(_, node)| node.url()))
            .connection_timeout(answer)
            .response_timeout(answer)
            .build()
            .expect("a node is alive")
    }

    /// The node that serves a slot, or `None`: for instance between the death
    /// of a master and the election of its replica.
    pub fn owner_of_slot(&self, slot: u16) -> Option<usize> {
        // A node knows best about itself. After a failover an old master may
        // still take itself for one; the later one has the higher epoch.
        self.alive()
            .map(|(index, node)| (index, Entry::of(node)))
            .filter(|(_, entry)| entry.is("master") && entry.serves(slot))
            .max_by_key(|(_, entry)| entry.epoch)
            .map(|(index, _)| index)
    }

    /// The node that serves a slot.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn node_for_slot(&self, slot: u16) -> usize {
        self.owner_of_slot(slot).unwrap_or_else(|| panic!("no living node serves slot {slot}"))
    }

    /// The nodes alive that are replicas of a node alive.
    pub fn replicas_of(&self, index: usize) -> Vec<usize> {
        let master = Entry::of(&self.nodes[index]).id;
        self.alive()
            .filter(|(_, node)| Entry::of(node).master == master)
            .map(|(index, _)| index)
            .collect()
    }

    /// Moves a slot with all its keys, and waits until all nodes know.
    ///
    /// # Panics
    ///
    /// If a node refuses, or the nodes do not agree within 30 seconds.
    pub fn migrate_slot(&self, slot: u16, from: usize, to: usize) {
        self.begin_migration(slot, from, to);
        self.move_keys(slot, from, to);
        self.finish_migration(slot, from, to);
    }

    /// The first step of [`migrate_slot`](Cluster::migrate_slot). From now on
    /// `from` answers ASK for keys that it does not have.
    ///
    /// # Panics
    ///
    /// If a node refuses.
    pub fn begin_migration(&self, slot: u16, from: usize, to: usize) {
        // In this order, for `from` redirects as soon as it has been told.
        self.setslot(to, slot, "IMPORTING", from);
        self.setslot(from, slot, "MIGRATING", to);
    }

    /// The second step of [`migrate_slot`](Cluster::migrate_slot): moves all
    /// keys of the slot and returns how many there were.
    ///
    /// # Panics
    ///
    /// If a node refuses.
    pub fn move_keys(&self, slot: u16, from: usize, to: usize) -> usize {
        let mut conn = self.nodes[from].connection();
        let mut moved = 0;
        loop {
            let keys: Vec<Vec<u8>> = redis::cmd("CLUSTER")
                .arg("GETKEYSINSLOT")
                .arg(slot)
                .arg(100)
                .query(&mut conn)
                .unwrap_or_else(|e| panic!("CLUSTER GETKEYSINSLOT {slot}: {e}"));
            if keys.is_empty() {
                return moved;
            }
            moved += keys.len();
            redis::cmd("MIGRATE")
                .arg("127.0.0.1")
                .arg(self.nodes[to].port())
                .arg("")
                .arg(0)
                .arg(MIGRATE_TIMEOUT)
                .arg("KEYS")
                .arg(keys)
                .query::<Value>(&mut conn)
                .unwrap_or_else(|e| {
                    let text = wire_error(&e).unwrap_or_else(|| e.to_string());
                    panic!("MIGRATE of slot {slot}: {text}")
                });
        }
    }

    /// The last step of [`migrate_slot`](Cluster::migrate_slot): gives the slot
    /// to its new master and waits until all nodes know.
    ///
    /// # Panics
    ///
    /// If a node refuses, or the nodes do not agree within 30 seconds.
    pub fn finish_migration(&self, slot: u16, from: usize, to: usize) {
        // The new master first: if the old one gave the slot up before, nobody
        // would have it for a moment.
        self.setslot(to, slot, "NODE", to);
        self.setslot(from, slot, "NODE", to);
        for (index, node) in self.alive() {
            // Replicas refuse, and learn it from their masters.
            if index != to && index != from && Entry::of(node).is("master") {
                self.setslot(index, slot, "NODE", to);
            }
        }
        self.wait_until_ok();
    }

    /// Begins to move slots with all their keys as a whole: the new master has nothing to
    /// show of them until all is there. Whether it has ended is for
    /// [`owner_of_slot`](Cluster::owner_of_slot) to say.
    ///
    /// # Errors
    ///
    /// If a node refuses.
    ///
    /// # Panics
    ///
    /// If the servers cannot do that: Valkey can from 9.0, Redis from 8.4.
    pub fn migrate_atomically(
        &self,
        (first, last): (u16, u16),
        from: usize,
        to: usize,
    ) -> Result<(), String> {
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        let known: Vec<String> =
            wire::ask(&mut source.connection(), "COMMAND LIST FILTERBY PATTERN cluster|migrat*");
        match known.first().map(String::as_str) {
            Some("cluster|migrateslots") => {
                let id = Entry::of(target).id;
                try_ask(source, &format!("MIGRATESLOTS SLOTSRANGE {first} {last} NODE {id}"))
            }
            Some("cluster|migration") => {
                try_ask(target, &format!("MIGRATION IMPORT {first} {last}"))
            }
            _ => panic!("a newer server is needed: scripts/newer-servers.sh"),
        }
        .map(|_| ())
    }

    /// Kills a node with SIGKILL. It stays in [`nodes`](Cluster::nodes), dead.
    ///
    /// The others notice only after some two seconds, and believe until then
    /// that all is well: wait for a failover with
    /// [`owner_of_slot`](Cluster::owner_of_slot).
    pub fn kill(&mut self, index: usize) {
        self.nodes[index].crash();
    }

    /// Starts a dead node again, on its old port and with its old data. Does
    /// not wait until the others have noticed.
    ///
    /// # Panics
    ///
    /// If it does not come up.
    pub fn revive(&mut self, index: usize) {
        let node = self.nodes.remove(index).restart();
        self.nodes.insert(index, node);
    }

    /// Waits until all nodes alive say that the cluster works, agree on who has
    /// which slots and who is dead, and all their replicas have their data.
    ///
    /// # Panics
    ///
    /// If that takes more than 30 seconds.
    pub fn wait_until_ok(&self) {
        eventually(AGREE, TICK, "the nodes of the cluster to agree", || {
            let alive: Vec<&Server> = self.alive().map(|(_, node)| node).collect();
            let known = format!("cluster_known_nodes:{}", self.nodes.len());
            let views: Vec<BTreeSet<String>> = alive.iter().copied().map(view).collect();
            views.windows(2).all(|pair| pair[0] == pair[1])
                && alive.into_iter().all(|node| {
                    let info = ask(node, "INFO");
                    info.lines().any(|line| line == "cluster_state:ok")
                        && info.lines().any(|line| line == known)
                        && (Entry::of(node).is("master") || link_is_up(node))
                })
        });
    }

    fn alive(&self) -> impl Iterator<Item = (usize, &Server)> {
        self.nodes.iter().enumerate().filter(|(_, node)| node.is_alive())
    }

    fn create(&self, replicas_each: usize) {
        let program = cli_binary();
        let addresses =
            self.nodes.iter().map(|node| OsString::from(format!("127.0.0.1:{}", node.port())));
        let mut command = Command::new(&program);
        command
            .args(["--cluster", "create"])
            .args(addresses)
            .args(["--cluster-replicas", &replicas_each.to_string()])
            .arg("--cluster-yes");
        let log = self.nodes[0].dir().join("create.log");
        let mut cli = Process::spawn(command, &log)
            .unwrap_or_else(|e| panic!("cannot start {}: {e}", program.display()));
        // It waits for the nodes to meet for as long as that takes.
        let status = cli.wait(CREATE);
        assert!(
            status.is_some_and(|status| status.success()),
            "the cluster was not created ({}):\n{}",
            status.map_or_else(|| "in time".into(), |status| status.to_string()),
            log::tail(&cli.log())
        );
    }

    fn setslot(&self, at: usize, slot: u16, state: &str, node: usize) {
        let id = Entry::of(&self.nodes[node]).id;
        ask(&self.nodes[at], &format!("SETSLOT {slot} {state} {id}"));
    }
}

fn node() -> Builder {
    Server::builder()
        .config("cluster-enabled", "yes")
        .config("cluster-config-file", "nodes.conf")
        .config("cluster-node-timeout", NODE_TIMEOUT)
}

/// The slot of a key: that of the part between the first `{` and the next `}`,
/// if there is something between, else that of all of it.
pub fn slot_of(key: impl AsRef<[u8]>) -> u16 {
    let key = key.as_ref();
    let position = |bytes: &[u8], wanted| bytes.iter().position(|b| *b == wanted);
    let tag = position(key, b'{').and_then(|open| {
        let rest = &key[open + 1..];
        position(rest, b'}').map(|close| &rest[..close])
    });
    crc16(tag.filter(|tag| !tag.is_empty()).unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, b| {
        (0..8).fold(crc ^ (u16::from(*b) << 8), |crc, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 { shifted } else { shifted ^ 0x1021 }
        })
    })
}

/// A node in the answer to CLUSTER NODES.
struct Entry {
    id: String,
    flags: Vec<String>,
    /// The id of the master, or `-`.
    master: String,
    epoch: u64,
    /// Ranges with both ends included.
    slots: Vec<(u16, u16)>,
}

impl Entry {
    /// What a node says about itself.
    fn of(node: &Server) -> Entry {
        Entry::all(node).into_iter().find(|entry| entry.is("myself")).expect("a node knows itself")
    }

    /// What a node says about all nodes.
    fn all(node: &Server) -> Vec<Entry> {
        let text = ask(node, "NODES");
        text.lines()
            .map(|line| Entry::parse(line).unwrap_or_else(|| panic!("CLUSTER NODES: {line}")))
            .collect()
    }

    /// Reads a line: id, address, flags, master, time of the ping, time of the
    /// pong, epoch, state of the link, slots.
    fn parse(line: &str) -> Option<Entry> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let slot = |word: &&str| {
            // `[93->-id]` and `[93-<-id]` are slots on the move, which come in
            // addition to those served.
            if word.starts_with('[') {
                return None;
            }
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        Some(Entry {
            id: words.first()?.to_string(),
            flags: words.get(2)?.split(',').map(String::from).collect(),
            master: words.get(3)?.to_string(),
            epoch: words.get(6)?.parse().ok()?,
            slots: words.get(8..)?.iter().filter_map(slot).collect(),
        })
    }

    fn is(&self, flag: &str) -> bool {
        self.flags.iter().any(|f| f == flag)
    }

    fn serves(&self, slot: u16) -> bool {
        self.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot))
    }
}

/// What a node believes, in a form that is the same for all that believe the
/// same.
fn view(node: &Server) -> BTreeSet<String> {
    Entry::all(node)
        .into_iter()
        .map(|mut entry| {
            entry.flags.retain(|flag| flag != "myself");
            let Entry { id, flags, master, slots, .. } = entry;
            format!("{id} {flags:?} {master} {slots:?}")
        })
        .collect()
}

/// The answer of a node to a CLUSTER command.
fn ask(node: &Server, command: &str) -> String {
    try_ask(node, command)
        .unwrap_or_else(|e| panic!("CLUSTER {command} at port {}: {e}", node.port()))
}

fn try_ask(node: &Server, command: &str) -> Result<String, String> {
    redis::cmd("CLUSTER")
        .arg(command.split(' ').collect::<Vec<_>>())
        .query(&mut node.connection())
        .map_err(|e| wire_error(&e).unwrap_or_else(|| e.to_string()))
}

/// Makes a server in cluster mode one that serves all slots alone, and waits until it
/// does.
///
/// # Panics
///
/// If it does not within 30 seconds.
pub fn serve_all_slots(conn: &mut dyn ConnectionLike) {
    run(conn, &["CLUSTER ADDSLOTSRANGE 0 16383"]);
    eventually(AGREE, TICK, "the cluster to be up", || {
        wire::ask::<String>(conn, "CLUSTER INFO").contains("cluster_state:ok")
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot_of("{user1000}.following"), slot_of("user1000"));
        assert_eq!(slot_of("foo{bar}{zap}"), slot_of("bar"));
        assert_eq!(slot_of("foo{{bar}}zap"), slot_of("{bar"));
        // An empty tag is none, and no other one is looked for.
        assert_eq!(slot_of("foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
    }

    #[test]
    fn nodes_are_read() {
        let entry = Entry::parse(
            "07c3 127.0.0.1:30004@31004,host myself,slave e7d1 0 1426238317239 4 connected",
        )
        .unwrap();
        assert!(entry.is("slave") && entry.is("myself") && !entry.is("master"));
        assert_eq!((entry.master.as_str(), entry.epoch), ("e7d1", 4));
        let entry = Entry::parse(
            "e7d1 127.0.0.1:30001@31001 myself,master - 0 0 1 connected 0-90 92 [93->-292f]",
        )
        .unwrap();
        assert_eq!(entry.slots, [(0, 90), (92, 92)]);
        assert!(entry.serves(92) && !entry.serves(91) && !entry.serves(93));
    }
}
