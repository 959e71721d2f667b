//! Clusters: where calls go, and that slots and masters change without a token
//! lost or taken twice.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used
)]

mod common;

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use claw_testkit::{
    Cluster, Random, Server, cmd, digest, error, eventually, int, ints, slot_of, soak,
    wait_for_offset, wire_error,
};
use redis::Connection;
use redis::cluster::{ClusterClient, ClusterConnection};
use redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};

use common::{Books, PATIENCE, TICK, assert_sound, more_granted, take_all, tokens, under_load};

/// A client that follows redirections without long pauses.
fn client(cluster: &Cluster) -> ClusterConnection {
    let alive = cluster.nodes().iter().filter(|node| node.is_alive());
    let client = ClusterClient::builder(alive.map(Server::url))
        .retries(10)
        .min_retry_wait(5)
        .max_retry_wait(50)
        .connection_timeout(PATIENCE)
        .response_timeout(PATIENCE);
    client.build().unwrap().get_connection().unwrap()
}

fn node_of(cluster: &Cluster, key: &str) -> usize {
    cluster.node_for_slot(slot_of(key))
}

/// A connection to each node.
fn connections(cluster: &Cluster) -> Vec<Connection> {
    cluster.nodes().iter().map(Server::connection).collect()
}

fn no_warnings(node: &Server) {
    assert_sound(node);
    let mut warnings = node.warnings();
    // Valkey says so while the cluster is being made.
    warnings.retain(|line| !line.contains("# Cluster is currently down: "));
    assert_eq!(warnings, Vec::<String>::new());
}

fn assert_replicas_equal(cluster: &Cluster) {
    for (index, master) in cluster.nodes().iter().enumerate() {
        for replica in cluster.replicas_of(index) {
            let replica = &cluster.nodes()[replica];
            eventually(PATIENCE, TICK, "the replica to be equal", || {
                wait_for_offset(master, replica);
                digest(&mut master.connection()) == digest(&mut replica.connection())
            });
        }
    }
}

#[test]
fn calls_go_where_their_keys_are() {
    let cluster = Cluster::start(3, 1);
    let mut conns = connections(&cluster);

    // What clients ask the server for.
    for (call, keys) in [
        ("CL.TAKE k 3 CAPACITY 5 REFILL 5 PARTIAL", &["k"][..]),
        ("CL.PEEK k", &["k"]),
        ("CL.GIVE k 2", &["k"]),
        ("CL.POLICY k RESET", &["k"]),
        ("CL.THROTTLE k 15 30 60", &["k"]),
        ("CL.TAKEALL k", &["k"]),
        ("CL.TAKEALL a CAPACITY 9 REFILL 5 AND b 2 KEEP 3 AND a 3", &["a", "b", "a"]),
        ("CL.TAKEALL AND AND and 2 and AND", &["AND", "and", "AND"]),
        ("CL.SETTLE k 5 7 REFILL 3", &["k"]),
    ] {
        let words: Vec<&str> = call.split(' ').collect();
        let found: Vec<String> =
            redis::cmd("COMMAND").arg("GETKEYS").arg(words).query(&mut conns[0]).unwrap();
        assert_eq!(found, keys, "{call}");
    }

    // A client finds the way, and every key is where it belongs.
    let mut conn = client(&cluster);
    for n in 0..300 {
        let call = match n % 3 {
            0 => format!("CL.TAKE key:{n} 2 CAPACITY 10 REFILL 0"),
            1 => format!("CL.TAKEALL key:{n} 2 CAPACITY 10 REFILL 0"),
            _ => format!("CL.POLICY key:{n} CAPACITY 8 REFILL 0"),
        };
        cmd(&mut conn, &call).unwrap();
        let key = format!("key:{n}");
        let left = tokens(&mut conns[node_of(&cluster, &key)], &key);
        assert_eq!(left, Some(8), "{call}");
    }
    let sizes = [0, 1, 2].map(|node| int(&mut conns[node], "DBSIZE"));
    assert_eq!(sizes.iter().sum::<i64>(), 300);
    assert!(sizes.iter().all(|size| *size > 0), "{sizes:?}");

    // Several keys have to be in one slot, as with any command.
    for (call, key) in [("CL.TAKEALL a AND b", "a"), ("CL.TAKEALL {t}1 AND {t}2 AND b", "{t}")] {
        // Wherever it is sent.
        for conn in &mut conns[..3] {
            assert!(error(conn, call).starts_with("CROSSSLOT "), "{call}");
        }
        let mut routed = redis::Cmd::new();
        routed.arg(call.split(' ').collect::<Vec<_>>());
        let route = Route::new(slot_of(key), SlotAddr::Master);
        let route = RoutingInfo::SingleNode(SingleNodeRoutingInfo::SpecificNode(route));
        let refused = conn.route_command(&routed, route).unwrap_err();
        assert!(wire_error(&refused).unwrap().starts_with("CROSSSLOT "), "{call}");
    }
    // What is written wrongly is the caller's mistake, and not the cluster's.
    for wrong in ["{t} AND", "{t} 1 2", "{t} 1 KEEP AND {t}b", "{t} AND {t}b CAPACITY 5"] {
        let refused = cmd(&mut conn, &format!("CL.TAKEALL {wrong}")).unwrap_err();
        assert!(wire_error(&refused).unwrap().starts_with("ERR "), "{wrong}: {refused}");
    }
    let groups = ["{t}1", "{t}2", "x{t}"].map(|key| format!("{key} CAPACITY 10 REFILL 0"));
    let answer = cmd(&mut conn, &format!("CL.TAKEALL {}", groups.join(" AND "))).unwrap();
    let answer: (i64, i64, i64, Vec<Vec<i64>>) = redis::from_redis_value(answer).unwrap();
    assert_eq!(answer, (1, -1, 0, vec![vec![1, 10, 9, 0, -1]; 3]));

    // All others send it away, and do nothing.
    let slot = slot_of("{t}");
    let owner = cluster.node_for_slot(slot);
    let replica = cluster.replicas_of(owner)[0];
    let moved = format!("MOVED {slot} 127.0.0.1:{}", cluster.nodes()[owner].port());
    let calls = [
        "CL.TAKE {t}1",
        "CL.GIVE {t}1",
        "CL.SETTLE {t}1 2 3",
        "CL.TAKEALL {t}1 AND {t}2",
        "CL.POLICY {t}1",
        "CL.POLICY {t}1 RESET",
        "CL.THROTTLE {t}1 15 30 60",
    ];
    let before = digest(&mut conns[owner]);
    for (index, conn) in conns.iter_mut().enumerate().filter(|(index, _)| *index != owner) {
        for call in calls.iter().chain(&["CL.PEEK {t}1", "CL.TAKE {t}missing"]) {
            assert_eq!(error(conn, call), moved, "{call} at {index}");
        }
    }

    // A replica answers who says that old answers will do, and only if nothing
    // is to be written.
    wait_for_offset(&cluster.nodes()[owner], &cluster.nodes()[replica]);
    cmd(&mut conns[replica], "READONLY").unwrap();
    for peek in ["CL.PEEK {t}1 1 CAPACITY 10 REFILL 0", "CL.PEEK {t}2 10", "CL.PEEK {t}missing"] {
        let [first, answer] = [owner, replica].map(|node| ints(&mut conns[node], peek));
        assert_eq!(answer[..3], first[..3], "{peek}");
    }
    for call in calls {
        assert_eq!(error(&mut conns[replica], call), moved, "{call}");
    }
    cmd(&mut conns[replica], "READWRITE").unwrap();
    assert_eq!(error(&mut conns[replica], "CL.PEEK {t}1"), moved);
    assert_eq!(digest(&mut conns[owner]), before);
    assert_replicas_equal(&cluster);
    for node in cluster.nodes() {
        no_warnings(node);
    }
}

#[test]
fn a_slot_on_the_move_is_asked_for() {
    const POLICY: &str = "CAPACITY 10 REFILL 0";
    let cluster = Cluster::start(3, 0);
    let slot = slot_of("{t}");
    let from = cluster.node_for_slot(slot);
    let to = (from + 1) % 3;
    let mut conns = connections(&cluster);
    for key in ["{t}1", "{t}2"] {
        cmd(&mut conns[from], &format!("CL.TAKE {key} 4 {POLICY}")).unwrap();
    }
    cluster.begin_migration(slot, from, to);
    let port = |node: usize| cluster.nodes()[node].port();
    let ask = format!("ASK {slot} 127.0.0.1:{}", port(to));
    let moved = format!("MOVED {slot} 127.0.0.1:{}", port(from));

    // The old master has the keys until they are moved.
    assert_eq!(ints(&mut conns[from], &format!("CL.TAKE {{t}}1 1 {POLICY}"))[2], 5);
    assert_eq!(error(&mut conns[to], "CL.TAKE {t}1"), moved);
    for call in ["CL.TAKE {t}3", "CL.PEEK {t}3", "CL.POLICY {t}3", "CL.TAKEALL {t}3 AND {t}4"] {
        assert_eq!(error(&mut conns[from], call), ask, "{call}");
    }
    let both = format!("CL.TAKEALL {{t}}1 {POLICY} AND {{t}}2 {POLICY}");
    cmd(&mut conns[from], &both).unwrap();
    cmd(&mut conns[from], &format!("MIGRATE 127.0.0.1 {} {{t}}1 0 5000", port(to))).unwrap();

    // One key here and one there: neither can serve both.
    assert!(error(&mut conns[from], &both).starts_with("TRYAGAIN "));
    cmd(&mut conns[to], "ASKING").unwrap();
    assert!(error(&mut conns[to], &both).starts_with("TRYAGAIN "));
    assert_eq!(error(&mut conns[from], "CL.TAKE {t}1"), ask);
    assert_eq!(error(&mut conns[to], "CL.TAKE {t}1"), moved);
    cmd(&mut conns[to], "ASKING").unwrap();
    assert_eq!(ints(&mut conns[to], &format!("CL.TAKE {{t}}1 1 {POLICY}"))[2], 3);
    // A client does all that by itself.
    let mut conn = client(&cluster);
    assert_eq!(ints(&mut conn, &format!("CL.TAKE {{t}}1 1 {POLICY}"))[2], 2);
    assert_eq!(ints(&mut conn, &format!("CL.TAKE {{t}}2 1 {POLICY}"))[2], 4);
    assert_eq!(ints(&mut conn, &format!("CL.TAKE {{t}}3 1 {POLICY}"))[2], 9);

    assert_eq!(cluster.move_keys(slot, from, to), 1);
    cluster.finish_migration(slot, from, to);
    cmd(&mut conns[to], &both).unwrap();
    let here = ["{t}1", "{t}2", "{t}3"].map(|key| tokens(&mut conns[to], key));
    assert_eq!(here, [Some(1), Some(3), Some(9)]);
    assert_eq!(int(&mut conns[from], "DBSIZE"), 0);
    for node in cluster.nodes() {
        no_warnings(node);
    }
}

/// Clients that take tokens wherever a bucket is. Keys of one tag are in one
/// slot.
struct Clients {
    each: Vec<Mutex<(ClusterConnection, Random)>>,
    tags: Vec<Books>,
}

impl Clients {
    const COUNT: u64 = 4;
    const KEYS: usize = 12;
    /// The capacity of buckets with the first tag.
    const FEW: u64 = 100;

    fn of(cluster: &Cluster, tags: &[&str]) -> Clients {
        let client = |n| Mutex::new((client(cluster), Random::new(n)));
        let capacity = |n: usize| if n == 0 { Self::FEW } else { 1_000_000_000 };
        let books = |(n, tag)| {
            Books::new((0..Self::KEYS).map(|key| format!("{{{tag}}}:{key}")), capacity(n))
        };
        Clients {
            each: (0..Self::COUNT).map(client).collect(),
            tags: tags.iter().enumerate().map(books).collect(),
        }
    }

    fn under_load<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        let work = |client: usize| {
            let (conn, random) = &mut *self.each[client].lock().unwrap();
            let books = &self.tags[random.below(self.tags.len() as u64) as usize];
            let (first, tokens) = (random.next(), 1 + random.below(3));
            let accounts = match random.below(3) {
                0 => vec![books.account(first), books.account(first.wrapping_add(1))],
                _ => vec![books.account(first)],
            };
            let call = match accounts[..] {
                [account] => account.take(tokens),
                _ => take_all(&accounts, tokens),
            };
            let route = Route::new(slot_of(&accounts[0].key), SlotAddr::Master);
            let route = RoutingInfo::SingleNode(SingleNodeRoutingInfo::SpecificNode(route));
            let answer = match conn.route_command(&call, route) {
                Ok(redis::Value::Array(answer)) => answer,
                Ok(answer) => panic!("{answer:?}"),
                // The client has given up: the two keys were not in one place yet.
                Err(e) if accounts.len() == 2 && e.is_cluster_error() => return,
                Err(e) => panic!("{} keys: {e}", accounts.len()),
            };
            if answer[0] != redis::Value::Int(0) {
                accounts.iter().for_each(|account| account.granted(tokens));
            }
        };
        under_load(self.each.len(), work, meanwhile)
    }

    /// Waits until more tokens were taken of buckets with a tag.
    fn go_on(&self, tag: usize, tokens: u64) {
        more_granted(&self.tags[tag], tokens);
    }

    /// Waits until the buckets that are soon empty are empty.
    fn exhaust(&self) {
        let all = Self::FEW * Self::KEYS as u64;
        eventually(PATIENCE, TICK, "empty buckets", || self.tags[0].acknowledged() == all);
    }

    fn balance(&self, cluster: &Cluster) {
        let mut conn = client(cluster);
        for books in &self.tags {
            books.balance(|key| tokens(&mut conn, key));
        }
        assert_eq!(self.tags[0].acknowledged(), Self::FEW * Self::KEYS as u64);
    }
}

#[test]
fn slots_move_under_load_without_a_token_lost_or_taken_twice() {
    let cluster = Cluster::start(3, 1);
    // Of the tags, two are in slots on the move.
    let tags = ["few", "a", "b", "c"];
    let clients = Clients::of(&cluster, &tags);
    clients.under_load(|| {
        for round in 0..2 * soak() {
            for tag in [1, 2] {
                let slot = slot_of(tags[tag]);
                let from = cluster.node_for_slot(slot);
                let to = (from + 1 + round as usize % 2) % 3;
                cluster.begin_migration(slot, from, to);
                let mut conn = cluster.nodes()[from].connection();
                // One by one, so that for a while some keys are here and some there.
                for account in 0..Clients::KEYS as u64 {
                    let key = &clients.tags[tag].account(account).key;
                    let port = cluster.nodes()[to].port();
                    cmd(&mut conn, &format!("MIGRATE 127.0.0.1 {port} {key} 0 5000")).unwrap();
                    clients.go_on(tag, 20);
                }
                cluster.move_keys(slot, from, to);
                cluster.finish_migration(slot, from, to);
                clients.go_on(tag, 20);
            }
        }
        // And all at once.
        for tag in [1, 2] {
            let slot = slot_of(tags[tag]);
            let from = cluster.node_for_slot(slot);
            for (from, to) in [(from, (from + 1) % 3), ((from + 1) % 3, from)] {
                cluster.migrate_slot(slot, from, to);
                clients.go_on(tag, 20);
            }
        }
        clients.exhaust();
    });
    clients.balance(&cluster);
    assert_replicas_equal(&cluster);
    for node in cluster.nodes() {
        no_warnings(node);
    }
}

#[test]
fn masters_change_without_a_token_lost() {
    let mut cluster = Cluster::start(3, 1);
    let tags = ["few", "a", "b", "c"];

    // In good order nothing is lost, nor taken twice.
    let clients = Clients::of(&cluster, &tags);
    clients.under_load(|| {
        for round in 0..2 * soak() as usize {
            // The masters take turns.
            let tag = 1 + round % 3;
            let slot = slot_of(tags[tag]);
            let replica = cluster.replicas_of(cluster.node_for_slot(slot))[0];
            clients.go_on(tag, 100);
            let mut conn = cluster.nodes()[replica].connection();
            cmd(&mut conn, "CLUSTER FAILOVER").unwrap();
            let mut asked = Instant::now();
            eventually(PATIENCE, TICK, "the replica to take over", || {
                // It gives up after five seconds without votes, of which a
                // master has only one in a while.
                if asked.elapsed() > Duration::from_secs(6) {
                    let _ = cmd(&mut conn, "CLUSTER FAILOVER");
                    asked = Instant::now();
                }
                cluster.owner_of_slot(slot) == Some(replica)
            });
            cluster.wait_until_ok();
            clients.go_on(tag, 100);
        }
        clients.exhaust();
    });
    clients.balance(&cluster);
    assert_replicas_equal(&cluster);
    cluster.nodes().iter().for_each(assert_sound);

    // A crash loses no take that a replica has acknowledged.
    let slot = slot_of(tags[1]);
    for _ in 0..soak() {
        let master = cluster.node_for_slot(slot);
        let replica = cluster.replicas_of(master)[0];
        let books = &clients.tags[1];
        let connect = |n| Mutex::new((Some(cluster.nodes()[master].connection()), Random::new(n)));
        let conns: Vec<_> = (0..4).map(connect).collect();
        let work = |client: usize| {
            let (alive, random) = &mut *conns[client].lock().unwrap();
            let Some(conn) = alive else {
                return thread::sleep(TICK);
            };
            let (account, tokens) = (books.account(random.next()), 1 + random.below(3));
            let acknowledged = account.take(tokens).query::<Vec<i64>>(conn).and_then(|answer| {
                assert_eq!(answer[0] as u64, tokens);
                redis::cmd("WAIT").arg(1).arg(1_000).query::<u64>(conn)
            });
            match acknowledged {
                Ok(1..) => account.granted(tokens),
                Ok(0) => account.lost_sight(tokens),
                Err(e) => {
                    assert!(wire_error(&e).is_none(), "{e}");
                    account.lost_sight(tokens);
                    *alive = None;
                }
            }
        };
        under_load(conns.len(), work, || {
            more_granted(books, 500);
            cluster.kill(master);
        });
        eventually(PATIENCE, TICK, "the replica to take over", || {
            cluster.owner_of_slot(slot) == Some(replica)
        });
        cluster.wait_until_ok();
        let unknown = books.unknown();
        assert!(unknown > 0, "nobody was cut off");
        let mut conn = cluster.nodes()[replica].connection();
        books.balance(|key| tokens(&mut conn, key));

        cluster.revive(master);
        eventually(PATIENCE, TICK, "the old master to become a replica", || {
            cluster.replicas_of(replica) == [master]
        });
        cluster.wait_until_ok();
        let account = books.account(0);
        let mut conn = client(&cluster);
        account.take(1).exec(&mut conn).unwrap();
        account.granted(1);
        clients.balance(&cluster);
        assert_replicas_equal(&cluster);
        cluster.nodes().iter().for_each(assert_sound);
    }
}

/// Slots that move as a whole, as they do on Valkey from 9.0 and on Redis from 8.4.
mod newer {
    use super::*;

    /// Moves slots, and waits until all nodes know.
    fn move_slots(cluster: &Cluster, slots: (u16, u16), from: usize, to: usize) {
        // Redis moves one range at a time, and deletes what has moved in its own time.
        let busy = ["another ASM task is already in progress", "trim job"];
        eventually(PATIENCE, TICK, "slots to begin to move", || {
            match cluster.migrate_atomically(slots, from, to) {
                Ok(()) => true,
                Err(e) => busy.iter().any(|known| e.contains(known)).then_some(false).expect(&e),
            }
        });
        eventually(PATIENCE, TICK, "the slots to have moved", || {
            cluster.owner_of_slot(slots.0) == Some(to)
        });
        cluster.wait_until_ok();
    }

    #[test]
    #[ignore = "needs a newer server: make newer-server-tests"]
    fn slots_move_as_a_whole_under_load_without_a_token_lost_or_taken_twice() {
        let cluster = Cluster::start(3, 1);
        let tags = ["few", "a", "b", "c"];
        let clients = Clients::of(&cluster, &tags);
        clients.under_load(|| {
            for round in 0..4 * soak() as usize {
                for tag in [1, 2] {
                    let slot = slot_of(tags[tag]);
                    let from = cluster.node_for_slot(slot);
                    clients.go_on(tag, 50);
                    move_slots(&cluster, (slot, slot), from, (from + 1 + round % 2) % 3);
                    clients.go_on(tag, 50);
                }
            }
            // Many slots, and back.
            let slot = slot_of(tags[3]);
            let (from, all) = (cluster.node_for_slot(slot), (slot - 900, slot + 900));
            for (from, to) in [(from, (from + 1) % 3), ((from + 1) % 3, from)] {
                move_slots(&cluster, all, from, to);
                clients.go_on(3, 50);
            }
            clients.exhaust();
        });
        clients.balance(&cluster);
        assert_replicas_equal(&cluster);
        cluster.nodes().iter().for_each(assert_sound);
    }
}
