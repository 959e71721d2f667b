//! Ratings over regions: whatever happens on the way, all regions hold the same afterwards, exactly
//! what was accepted.

#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use claw_edge::background::Background;
use claw_edge::config::Config;
use claw_edge::limits;
use claw_edge::service::Service;
use claw_testkit::{
    Cluster, Random, Server, ask, error, eventually, fields, int, run, slot_of, soak,
    wait_for_offset,
};
use common::api::{get, send, start};
use common::ratings::{
    LIBRARY, Record, expected, follow, load, micros, quantiles, rate, rate_steadily, stored,
};
use common::redis::{Encrypted, Sentinel};
use common::relay::Relay;
use common::{Edge, PATIENCE, TICK};
use redis::Connection;
use tokio::runtime::{Builder, Handle};
use tokio::task::AbortHandle;

const NAMES: [&str; 3] = ["eu", "us", "ap"];

/// `RATINGS_PEERS` of one region.
fn peers(servers: &[Server], place: usize) -> String {
    let peers = servers.iter().zip(NAMES).enumerate().filter(|(other, _)| *other != place);
    let peers: Vec<String> =
        peers.map(|(_, (server, name))| format!("{name}={}", server.url())).collect();
    peers.join(",")
}

/// An instance of one region, with further settings.
fn edge(servers: &[Server], place: usize, settings: &[(&str, &str)]) -> Edge {
    let peers = peers(servers, place);
    let own = [("REGION", NAMES[place]), ("RATINGS_PEERS", &peers), ("WORKERS", "1")];
    start(&servers[place].url(), &[&own, settings].concat())
}

/// What each server holds; says in what they differ when a test fails.
#[derive(Default)]
struct Held(Vec<BTreeMap<String, BTreeMap<String, String>>>);

impl Drop for Held {
    fn drop(&mut self) {
        let keys: BTreeSet<&String> = self.0.iter().flat_map(BTreeMap::keys).collect();
        for key in keys.into_iter().filter(|_| thread::panicking()) {
            let of_each: Vec<_> = self.0.iter().map(|held| held.get(key)).collect();
            if of_each.windows(2).any(|two| two[0] != two[1]) {
                eprintln!("{key} differs: {of_each:?}");
            }
        }
    }
}

/// Waits until all servers hold the same, and nothing is left to do.
fn await_equal(servers: &[Server]) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut all = Held::default();
    eventually(PATIENCE, TICK, "all regions hold the same", || {
        let busy = servers.iter().any(|server| {
            ask::<u64>(&mut server.connection(), "EXISTS {ratings}:sweep {ratings}:parked") > 0
        });
        all.0 = servers.iter().map(|server| stored(&mut server.connection())).collect();
        !busy && all.0.windows(2).all(|two| two[0] == two[1])
    });
    let held = all.0.swap_remove(0);
    assert_exact(&held);
    held
}

/// Counts and sums of items are those of the ratings that users have.
fn assert_exact(held: &BTreeMap<String, BTreeMap<String, String>>) {
    let mut items: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (item, value) in held.iter().filter(|(key, _)| key.contains(":user:")).flat_map(|it| it.1) {
        if !item.is_empty() {
            let totals = items.entry(format!("{{ratings}}:item:{item}")).or_default();
            let micros: u64 = value.split(' ').next().unwrap().parse().unwrap();
            *totals = (totals.0 + 1, totals.1 + micros);
        }
    }
    let found = held.iter().filter(|(key, _)| key.contains(":item:"));
    let found = found.map(|(key, totals)| {
        (key.clone(), (totals["count"].parse().unwrap(), totals["sum"].parse().unwrap()))
    });
    assert_eq!(found.collect::<BTreeMap<_, (u64, u64)>>(), items);
}

#[test]
fn what_one_region_is_told_the_other_one_knows() {
    let servers = [Server::start(), Server::start()];
    let edges = [edge(&servers, 0, &[]), edge(&servers, 1, &[])];
    assert_eq!(rate(&edges[0], "ann", "tea", "4").status, 200);
    assert_eq!(rate(&edges[1], "bob", "tea", "3").status, 200);
    for edge in &edges {
        eventually(PATIENCE, TICK, "both ratings", || {
            get(edge.http, "/items/tea").body == r#"{"item_id":"tea","count":2,"mean":3.5}"#
        });
    }
    // The later one counts, wherever it was given.
    assert_eq!(rate(&edges[1], "ann", "tea", "1").status, 200);
    eventually(PATIENCE, TICK, "the later rating", || {
        get(edges[0].http, "/rating/ann/tea").json()["region"] == "us"
    });
    assert_eq!(send(edges[0].http, "DELETE", "/users/ann", &[], "").status, 204);
    eventually(PATIENCE, TICK, "the user is forgotten", || {
        get(edges[1].http, "/items/tea").body == r#"{"item_id":"tea","count":1,"mean":3}"#
    });
    await_equal(&servers);
    // What came from a peer is not told again: each region tells its own.
    assert_eq!(int(&mut servers[0].connection(), "XLEN {ratings}:outbox"), 2);
    let labels = r#"peer="us",result="applied""#;
    assert_eq!(edges[0].metric("operator_ratings_records_total", labels), 2);
    assert_eq!(edges[0].metric("operator_ratings_leader", ""), 1);
    // The first one may have been read by the scan of whoever joins.
    let lag = edges[0].metric("operator_ratings_lag_seconds_count", r#"peer="us""#);
    assert!((1..=2).contains(&lag), "{lag}");
}

#[test]
fn a_region_that_joins_late_or_misses_entries_reads_all() {
    let servers = [Server::start(), Server::start()];
    let outbox = [("RATINGS_OUTBOX", "100")];
    let eu = edge(&servers[..1], 0, &outbox);
    let rate_many = |from: usize| {
        for number in from..from + 400 {
            let (user, item) = (format!("u{}", number % 40), format!("i{number}"));
            assert_eq!(rate(&eu, &user, &item, "2").status, 200);
        }
        assert_eq!(send(eu.http, "DELETE", &format!("/users/u{from}"), &[], "").status, 204);
    };
    rate_many(0);
    let us = edge(&servers, 1, &[]);
    let held = await_equal(&servers);
    assert_eq!(held.len(), 390 + 40);
    let scans = |us: &Edge| us.metric("operator_ratings_scans_total", r#"peer="eu""#);
    assert_eq!(scans(&us), 1);
    // Killed, it goes on from its place, and reads all again only if it has to.
    drop(us);
    assert_eq!(rate(&eu, "u0", "i0", "5").status, 200);
    let us = edge(&servers, 1, &[]);
    await_equal(&servers);
    assert_eq!(scans(&us), 0);
    drop(us);
    rate_many(1);
    let us = edge(&servers, 1, &[]);
    await_equal(&servers);
    assert_eq!(scans(&us), 1);
}

#[test]
fn a_region_that_loses_its_data_has_it_back() {
    let mut servers = vec![Server::start(), Server::start()];
    let edges = [edge(&servers, 0, &[]), edge(&servers, 1, &[])];
    for number in 0..50 {
        let (user, item) = (format!("u{}", number % 7), format!("i{}", number % 11));
        assert_eq!(rate(&edges[number % 2], &user, &item, "2").status, 200);
    }
    let held = await_equal(&servers);
    // An empty server comes back, as after a failover to a replica that had nothing yet.
    let server = servers.remove(0).restart();
    servers.insert(0, server);
    eventually(PATIENCE, TICK, "the edge finds the server again", || {
        rate(&edges[0], "new", "tea", "3").status == 200
    });
    eventually(PATIENCE, TICK, "the other one hears of what is new", || {
        get(edges[1].http, "/rating/new/tea").status == 200
    });
    let after = await_equal(&servers);
    for (key, value) in held {
        assert_eq!(after.get(&key), Some(&value), "{key}");
    }
}

#[test]
fn what_is_left_of_forgetting_is_done_by_another_instance() {
    let server = Server::start();
    let mut conn = server.connection();
    load(&mut conn);
    let now: (u64, u64) = ask(&mut conn, "TIME");
    for item in 0..1000 {
        run(
            &mut conn,
            &[&format!(
                "FCALL claw_rate_1 2 {{ratings}}:user:ann {{ratings}}:item:i{item} ann i{item} 1 eu 10"
            )],
        );
    }
    // As a service leaves it that is killed right after the tombstone is written.
    run(&mut conn, &["FCALL claw_forget_1 1 {ratings}:user:ann ann eu 10"]);
    assert_eq!(ask::<Vec<String>>(&mut conn, "KEYS {ratings}:item:*").len(), 1000, "{now:?}");
    // And another run of the server had come to what is the end here: its order was another.
    redis::cmd("HSET")
        .arg("{ratings}:sweep")
        .arg("ann")
        .arg("1023 before")
        .exec(&mut conn)
        .unwrap();
    let _edge = start(&server.url(), &[]);
    eventually(PATIENCE, TICK, "nothing is left", || {
        ask::<Vec<String>>(&mut conn, "KEYS {ratings}:item:*").is_empty()
            && int(&mut conn, "EXISTS {ratings}:sweep") == 0
    });
    assert_eq!(fields(&mut conn, "{ratings}:user:ann").len(), 1);
}

#[test]
fn where_ratings_are_not_used_nothing_is_written() {
    let server = Server::start();
    let mut conn = server.connection();
    let edge = start(&server.url(), &[]);
    // It has looked for work.
    let asked = |conn: &mut Connection| {
        let stats: String = ask(conn, "INFO commandstats");
        stats.contains("cmdstat_exists")
    };
    eventually(PATIENCE, TICK, "the service looks", || asked(&mut conn));
    assert_eq!(int(&mut conn, "DBSIZE"), 0);
    assert_eq!(ask::<Vec<String>>(&mut conn, "FUNCTION LIST"), Vec::<String>::new());
    assert_eq!(edge.metric("operator_ratings_leader", ""), 0);
}

#[test]
fn nobody_writes_without_the_lease() {
    let server = Server::start();
    let mut conn = server.connection();
    load(&mut conn);
    let lease = "FCALL claw_lease_1 1 {ratings}:";
    assert_eq!(int(&mut conn, &format!("{lease} one 60000")), 1);
    assert_eq!(int(&mut conn, &format!("{lease} two 60000")), 0);
    assert_eq!(int(&mut conn, &format!("{lease} one 60000")), 1, "it is renewed");
    assert_eq!(int(&mut conn, &format!("{lease} two 0")), 0, "it is not another's to give back");
    let (run_id, place): (String, String) = ask(&mut conn, "FCALL claw_place_1 1 {ratings}: eu");
    assert_eq!(place, "");
    let follow = |holder: &str, run_id: &str, from: &str, to: &str| {
        redis::cmd("FCALL")
            .arg(&["claw_follow_2", "1", "{ratings}:", holder, "eu", run_id, from, to])
            .arg(&["us", "10"])
            .arg(&["ann", "tea", "1", "7", "eu"])
            .query::<Vec<u64>>(&mut server.connection())
            .map_err(|error| error.code().unwrap_or_default().to_owned())
    };
    for (holder, run, from, to, result) in [
        ("two", run_id.as_str(), "", "1-0", Err("LEASE".to_owned())),
        ("one", "other", "", "1-0", Err("PLACE".to_owned())),
        ("one", &run_id, "1-0", "2-0", Err("PLACE".to_owned())),
        ("one", &run_id, "", "1-0", Ok(vec![1, 0, 0, 0])),
        ("one", &run_id, "1-0", "2-0", Ok(vec![0, 1, 0, 0])),
        ("one", &run_id, "1-0", "2-0", Err("PLACE".to_owned())),
    ] {
        assert_eq!(follow(holder, run, from, to), result, "{holder} {run} {from} {to}");
    }
    let told = error(&mut conn, "FCALL claw_told_1 1 {ratings}: two webhook 1-0");
    assert!(told.starts_with("LEASE "), "{told}");
    let given = error(&mut conn, "FCALL claw_give_up_1 1 {ratings}: two '' user ann");
    assert!(given.starts_with("LEASE "), "{given}");
    assert_eq!(int(&mut conn, &format!("{lease} one 0")), 0);
    assert_eq!(int(&mut conn, &format!("{lease} two 1")), 1);
    eventually(PATIENCE, TICK, "it ends by itself", || {
        int(&mut conn, "EXISTS {ratings}:lease") == 0
    });
}

/// The rules behind `ACL SETUSER name` on a page.
fn rules(page: &str, name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/edge").join(page);
    let page = std::fs::read_to_string(path).unwrap();
    let begin = format!("ACL SETUSER {name} ");
    let rules = page.split(&begin).skip(1).filter_map(|rest| rest.split("\n```").next());
    rules.into_iter().find(|rules| rules.contains("+info")).unwrap().replace('\n', " ")
}

#[test]
fn the_rights_that_the_pages_name_are_enough() {
    let servers = [Server::start(), Server::start()];
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "password\n").unwrap();
    for server in &servers {
        let rules = |page, name| format!("ACL SETUSER {name} {}", rules(page, name));
        let lines = [
            rules("failures.md", "edge"),
            rules("regions.md", "edge"),
            rules("regions.md", "follower"),
        ];
        run(&mut server.connection(), &lines.each_ref().map(String::as_str));
    }
    let url =
        |user: &str, server: &Server| server.url().replace("redis://", &format!("redis://{user}@"));
    let edges: Vec<Edge> = (0..2)
        .map(|place| {
            let other = 1 - place;
            let peers = format!("{}={}", NAMES[other], url("follower", &servers[other]));
            let settings = [
                ("REGION", NAMES[place]),
                ("REDIS_PASSWORD_FILE", file.to_str().unwrap()),
                ("RATINGS_PEERS_PASSWORD_FILE", file.to_str().unwrap()),
                ("RATINGS_PEERS", &peers),
            ];
            start(&url("edge", &servers[place]), &settings)
        })
        .collect();
    for (edge, user) in edges.iter().zip(["ann", "bob"]) {
        assert_eq!(rate(edge, user, "tea", "4").status, 200);
        assert_eq!(rate(edge, "cid", user, "4").status, 200);
        assert_eq!(send(edge.http, "DELETE", "/users/cid", &[], "").status, 204);
    }
    assert_eq!(await_equal(&servers)["{ratings}:item:tea"]["count"], "2");
    for edge in &edges {
        let page = get(edge.ops, "/admin/live").body;
        assert!(page.contains("<td>shares nothing</td>"), "{page}");
    }
    for server in &servers {
        let denied: Vec<String> = ask(&mut server.connection(), "ACL LOG");
        assert_eq!(denied, Vec::<String>::new());
    }
}

#[test]
fn a_region_may_be_a_cluster() {
    let server = Server::start();
    let cluster = Cluster::start(3, 0);
    let nodes: Vec<String> =
        cluster.nodes().iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
    let of_cluster = format!("redis+cluster://{}", nodes.join(","));
    let eu =
        start(&server.url(), &[("REGION", "eu"), ("RATINGS_PEERS", &format!("us={of_cluster}"))]);
    let peers = format!("eu={}", server.url());
    let us = start(&of_cluster, &[("REGION", "us"), ("RATINGS_PEERS", &peers)]);
    for number in 0..20 {
        let user = format!("u{}", number % 6);
        assert_eq!(rate([&eu, &us][number % 2], &user, "tea", "4").status, 200);
    }
    let node = &cluster.nodes()[cluster.node_for_slot(slot_of("{ratings}:"))];
    eventually(PATIENCE, TICK, "both hold the same", || {
        let held = [&server, node].map(|server| stored(&mut server.connection()));
        held[0] == held[1] && held[0].len() == 7
    });
}

#[test]
fn a_peer_is_believed_over_tls_only_with_a_certificate_that_is_trusted() {
    let (own, peer, stranger) = (Server::start(), Encrypted::start(), Encrypted::start());
    let rules = rules("regions.md", "follower").replace(">password", ">hidden");
    run(&mut peer.server.connection(), &[&format!("ACL SETUSER follower {rules}")]);
    let us = start(&peer.server.url(), &[("REGION", "us")]);
    assert_eq!(rate(&us, "ann", "tea", "4").status, 200);

    let peers = format!("us=rediss://follower:hidden@{}", peer.address());
    let eu = |authority: &str| {
        let builder = Edge::builder(&own.url()).env("DECISION_TIMEOUT", "5s").env("REGION", "eu");
        builder.env("RATINGS_PEERS", &peers).env("REDIS_CA_FILE", authority)
    };
    let wary = eu(&stranger.authority()).start();
    let why = r#"peer="us""#;
    eventually(PATIENCE, TICK, "the certificate to be refused", || {
        wary.log()
            .lines()
            .any(|line| line.contains(why) && line.contains("invalid peer certificate"))
    });
    assert_eq!(rate(&wary, "bob", "tea", "3").status, 200, "its own region works");
    assert_eq!(get(wary.http, "/rating/ann/tea").status, 404);
    let metrics = String::from_utf8(wary.ops("/metrics").body).unwrap();
    assert!(!metrics.contains("hidden") && !wary.log().contains("hidden"), "{}", wary.log());
    drop(wary);

    let mut broken = eu(&peer.key()).launch();
    assert!(!broken.wait().success());
    let log = broken.log();
    assert!(log.contains("RATINGS_PEERS, us: ") && log.contains("no certificate in it"), "{log}");
    assert!(!log.contains("hidden"), "{log}");

    let trusting = eu(&peer.authority()).start();
    eventually(PATIENCE, TICK, "the peer is followed", || {
        get(trusting.http, "/items/tea").body == r#"{"item_id":"tea","count":2,"mean":3.5}"#
    });
}

/// Loads a library whose clock goes otherwise, and lets nobody load another one.
fn set_clock(server: &Server, hours: i64) {
    let there = "return tonumber(time[1]) * 1000000 + tonumber(time[2])";
    assert!(LIBRARY.contains(there));
    let code = LIBRARY.replace(there, &format!("{there} + {hours} * 3600000000"));
    let mut conn = server.connection();
    run(&mut conn, &["ACL SETUSER default +function"]);
    let _: String =
        redis::cmd("FUNCTION").arg("LOAD").arg("REPLACE").arg(code).query(&mut conn).unwrap();
    run(&mut conn, &["ACL SETUSER default -function"]);
}

#[test]
fn a_clock_that_is_an_hour_off_loses_nothing() {
    let servers = [Server::start(), Server::start(), Server::start()];
    for (server, hours) in servers.iter().zip([1, 0, -1]) {
        set_clock(server, hours);
    }
    let edges: Vec<Edge> = (0..3).map(|place| edge(&servers, place, &[])).collect();
    for round in 0..30 {
        let (user, item) = (format!("u{}", round % 5), format!("i{}", round % 4));
        assert_eq!(rate(&edges[round % 3], &user, &item, "2.5").status, 200);
    }
    // Those of the future wait: of one region at the second one, of both at the third.
    let parked = |place: usize| int(&mut servers[place].connection(), "ZCARD {ratings}:parked");
    eventually(PATIENCE, TICK, "records are parked", || {
        [parked(0), parked(1), parked(2)] == [0, 10, 20]
    });
    eventually(PATIENCE, TICK, "the metric says so", || {
        edges[2].metric("operator_ratings_parked", "") == 20
    });
    let labels = r#"result="parked""#;
    // A batch that comes twice is counted twice.
    assert!(edges[2].metric("operator_ratings_records_total", labels) >= 20);
    // When all clocks have come to that hour, everything counts.
    for server in &servers {
        set_clock(server, 1);
    }
    let held = await_equal(&servers);
    let ratings = held.iter().filter(|(key, _)| key.contains(":user:"));
    assert_eq!(ratings.map(|(_, items)| items.len()).sum::<usize>(), 20);
}

#[test]
fn a_key_that_others_have_written_to_keeps_nothing_else_from_being_done() {
    let server = Server::start();
    let mut conn = server.connection();
    set_clock(&server, -1);
    let (seconds, _): (u64, u64) = ask(&mut conn, "TIME");
    let stamp = (seconds * 1_000_000).to_string();
    for user in ["ann", "bob"] {
        assert_eq!(follow(&mut conn, [user, "tea", "1", &stamp, "eu"]), [0, 0, 1, 0]);
    }
    run(&mut conn, &["SET {ratings}:user:ann x", "FCALL claw_forget_1 1 {ratings}: cid eu 10"]);
    set_clock(&server, 0);
    let tend = "FCALL claw_tend_1 1 {ratings}:";
    assert_eq!(int(&mut conn, tend), 1);
    assert_eq!(int(&mut conn, "EXISTS {ratings}:sweep"), 0);
    assert_eq!(fields(&mut conn, "{ratings}:item:tea")["count"], "1", "of bob");
    let told = error(&mut conn, tend);
    assert!(told.contains("WRONGTYPE"), "{told}");
    run(&mut conn, &["DEL {ratings}:user:ann"]);
    assert_eq!((int(&mut conn, tend), int(&mut conn, tend)), (1, 0));
    assert_eq!(fields(&mut conn, "{ratings}:item:tea")["count"], "2");
}

// Random histories, with the work in the background in this process, so that it can be dropped
// wherever it waits.

/// An instance that does the work of a region.
struct Instance(AbortHandle);

impl Instance {
    fn start(runtime: &Handle, servers: &[Server], place: usize) -> Self {
        // Whoever was killed holds the lease for a while. This is as if that had passed.
        run(&mut servers[place].connection(), &["DEL {ratings}:lease"]);
        let (url, peers) = (servers[place].url(), peers(servers, place));
        let arguments =
            ["claw-edge", "--redis-url", &url, "--region", NAMES[place], "--ratings-peers", &peers];
        let config = Config::parse_from(arguments);
        let limits = limits::load(&config).unwrap();
        let service = Arc::new(Service::new(config, limits).unwrap());
        let background = Background::new(service).unwrap();
        Self(runtime.spawn(background.run()).abort_handle())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Something is rated or forgotten, as the service has it done. Returns what that comes to.
fn tell(conn: &mut Connection, place: usize, random: &mut Random) -> Record {
    let (user, item) = (format!("u{}", random.below(4)), format!("i{}", random.below(5)));
    let (region, micros) = (NAMES[place], random.below(5_000_001));
    let is_rating = !random.once_in(12);
    let stamp = if is_rating {
        let keys = format!("2 {{ratings}}:user:{user} {{ratings}}:item:{item}");
        ask(conn, &format!("FCALL claw_rate_1 {keys} {user} {item} {micros} {region} 50"))
    } else {
        let key = format!("1 {{ratings}}:user:{user}");
        ask(conn, &format!("FCALL claw_forget_1 {key} {user} {region} 50"))
    };
    let item = if is_rating { item } else { String::new() };
    Record { user, item, micros: is_rating.then_some(micros), stamp, region: region.to_owned() }
}

#[test]
fn random_histories_with_cuts_kills_and_trims_end_alike() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    let servers = [Server::start(), Server::start(), Server::start()];
    for seed in 0..4 * soak() {
        let mut random = Random::new(seed);
        let count = 2 + usize::try_from(random.below(2)).unwrap();
        let servers = &servers[..count];
        let mut conns: Vec<Connection> = servers.iter().map(Server::connection).collect();
        for conn in &mut conns {
            run(conn, &["FLUSHALL"]);
            load(conn);
        }
        let mut records = Vec::new();
        let mut instances: BTreeMap<usize, Instance> = BTreeMap::new();
        for _ in 0..150 {
            let place = usize::try_from(random.below(count as u64)).unwrap();
            let conn = &mut conns[place];
            match random.below(20) {
                0 => {
                    instances.insert(place, Instance::start(&handle, servers, place));
                }
                1 => drop(instances.remove(&place)),
                2 => run(conn, &["CLIENT KILL TYPE normal"]),
                3 => run(conn, &[&format!("XTRIM {{ratings}}:outbox MAXLEN {}", random.below(9))]),
                4 | 5 => thread::sleep(Duration::from_micros(random.below(20_000))),
                _ => records.push(tell(conn, place, &mut random)),
            }
        }
        for place in 0..count {
            instances.insert(place, Instance::start(&handle, servers, place));
        }
        let wanted = expected(&records);
        let mut held = BTreeMap::new();
        let begin = Instant::now();
        while held != wanted && begin.elapsed() < PATIENCE {
            held = await_equal(servers);
        }
        assert_eq!(held, wanted, "seed {seed}");
    }
}

/// The instances of a region, and its server, all of which may be killed.
struct Region {
    server: Mutex<Option<Server>>,
    edges: Mutex<Vec<Edge>>,
}

#[test]
fn nothing_accepted_is_lost_when_edges_and_servers_are_killed() {
    let server = || {
        let server = Server::builder().config("appendonly", "yes");
        server.config("appendfsync", "always").config("save", "").start()
    };
    let servers = [server(), server()];
    let settings: Vec<String> = (0..2).map(|place| peers(&servers, place)).collect();
    let urls: Vec<String> = servers.iter().map(Server::url).collect();
    let begin = |place: usize| {
        let own = [("REGION", NAMES[place]), ("RATINGS_PEERS", &settings[place]), ("WORKERS", "1")];
        start(&urls[place], &own)
    };
    let regions: Vec<Region> = servers
        .into_iter()
        .enumerate()
        .map(|(place, server)| Region {
            server: Mutex::new(Some(server)),
            edges: Mutex::new(vec![begin(place), begin(place)]),
        })
        .collect();
    let is_over = AtomicBool::new(false);
    let accepted: Mutex<Vec<Record>> = Mutex::default();
    thread::scope(|scope| {
        for (place, region) in regions.iter().enumerate() {
            let (is_over, accepted) = (&is_over, &accepted);
            scope.spawn(move || rate_until(is_over, region, place as u64, accepted));
        }
        let mut random = Random::new(7);
        for round in 0..8 * soak() {
            thread::sleep(Duration::from_millis(100 + random.below(400)));
            let place = usize::try_from(random.below(2)).unwrap();
            let region = &regions[place];
            if round % 2 == 0 {
                // The one of the two that leads, or the other one.
                let edge = region.edges.lock().unwrap().swap_remove(0);
                edge.signal(9);
                drop(edge);
                let edge = begin(place);
                region.edges.lock().unwrap().push(edge);
            } else {
                let server = region.server.lock().unwrap().take().unwrap();
                *region.server.lock().unwrap() = Some(server.kill_9().start());
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let servers: Vec<Server> =
        regions.iter().map(|region| region.server.lock().unwrap().take().unwrap()).collect();
    let held = await_equal(&servers);
    let accepted = accepted.into_inner().unwrap();
    assert!(accepted.len() > 100, "{} were accepted", accepted.len());
    for record in &accepted {
        assert!(is_held(&held, record), "{record:?}");
    }
}

/// Rates by any of a region's instances, and notes what is accepted.
fn rate_until(is_over: &AtomicBool, region: &Region, seed: u64, accepted: &Mutex<Vec<Record>>) {
    let mut random = Random::new(seed);
    while !is_over.load(Ordering::Relaxed) {
        let ports: Vec<u16> = region.edges.lock().unwrap().iter().map(|edge| edge.http).collect();
        // There is none while it is being replaced.
        if ports.is_empty() {
            thread::sleep(TICK);
            continue;
        }
        let Some(record) = try_rate(random.choose(&ports), &mut random) else { continue };
        accepted.lock().unwrap().push(record);
    }
}

/// Whether it is there, or what is later.
fn is_held(held: &BTreeMap<String, BTreeMap<String, String>>, record: &Record) -> bool {
    let user = held.get(&format!("{{ratings}}:user:{}", record.user));
    user.and_then(|user| user.get(&record.item)).is_some_and(|value| {
        let words: Vec<&str> = value.split(' ').collect();
        (words[1].parse::<u64>().unwrap(), words[2]) >= (record.stamp, &record.region)
    })
}

/// Rates something, if the service and its server are there.
fn try_rate(port: u16, random: &mut Random) -> Option<Record> {
    let (user, item) = (format!("u{}", random.below(20)), format!("i{}", random.below(20)));
    let rating = random.below(6);
    let body = format!(r#"{{"user_id":"{user}","item_id":"{item}","rating":{rating}}}"#);
    let mut client = common::http::Client::try_connect(port).ok()?;
    let response = client.request("POST", "/rating", &body).ok()?;
    if response.status != 200 {
        return None;
    }
    let told: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    Some(Record {
        user,
        item,
        micros: Some(rating * 1_000_000),
        stamp: told["stamp"].as_u64().unwrap(),
        region: told["region"].as_str().unwrap().to_owned(),
    })
}

/// The stamps of what a server has told of its region's ratings.
fn told(server: &Server) -> BTreeSet<u64> {
    let entries: Vec<(String, BTreeMap<String, String>)> =
        ask(&mut server.connection(), "XRANGE {ratings}:outbox - +");
    entries.into_iter().map(|(_, entry)| entry["stamp"].parse().unwrap()).collect()
}

#[test]
fn a_failover_loses_only_what_nobody_but_the_old_master_knew() {
    let mut old = Server::builder().config("appendonly", "yes").config("save", "").start();
    let new = Server::replica_of(&old).start();
    let other = Server::start();
    let sentinel = Sentinel::start(&old);
    let (eu_url, us_url) = (sentinel.url(), other.url());
    let eu = || {
        let peers = format!("us={us_url}");
        start(&eu_url, &[("REGION", "eu"), ("RATINGS_PEERS", &peers), ("WORKERS", "1")])
    };
    let us = || {
        let peers = format!("eu={eu_url}");
        start(&us_url, &[("REGION", "us"), ("RATINGS_PEERS", &peers), ("WORKERS", "1")])
    };
    let regions =
        [eu(), us()].map(|edge| Region { server: Mutex::new(None), edges: Mutex::new(vec![edge]) });
    let rated = |place: usize, user: &str| {
        let edges = regions[place].edges.lock().unwrap();
        let edge = edges.first().unwrap();
        get(edge.http, &format!("/rating/{user}/tea")).status == 200
    };
    let is_over = AtomicBool::new(false);
    let accepted: Mutex<Vec<Record>> = Mutex::default();
    thread::scope(|scope| {
        for (place, region) in regions.iter().enumerate() {
            let (is_over, accepted) = (&is_over, &accepted);
            scope.spawn(move || rate_until(is_over, region, place as u64, accepted));
        }
        let give = |user: &str| {
            let edges = regions[0].edges.lock().unwrap();
            assert_eq!(rate(&edges[0], user, "tea", "4").status, 200);
        };
        give("replicated");
        eventually(PATIENCE, TICK, "the other region hears of it", || rated(1, "replicated"));
        wait_for_offset(&old, &new);
        // The replica hears no more, and answers the sentinel as before.
        run(&mut new.connection(), &["CONFIG SET masterauth wrong", "CLIENT KILL TYPE master"]);
        give("heard");
        eventually(PATIENCE, TICK, "the other region hears of it", || rated(1, "heard"));
        drop(regions[1].edges.lock().unwrap().pop());
        give("unheard");
        old.crash();
        regions[1].edges.lock().unwrap().push(us());
        eventually(PATIENCE, TICK, "the replica takes ratings", || {
            let edges = regions[0].edges.lock().unwrap();
            rate(&edges[0], "later", "tea", "4").status == 200
        });
        eventually(PATIENCE, TICK, "the other region hears of it", || rated(1, "later"));
        is_over.store(true, Ordering::Relaxed);
    });
    let servers = [new, other];
    let held = await_equal(&servers);
    let is_there = |user: &str| held.contains_key(&format!("{{ratings}}:user:{user}"));
    let found = ["replicated", "heard", "unheard", "later"].map(is_there);
    assert_eq!(found, [true, true, false, true]);

    // A master may be told to take nothing on its own.
    run(&mut servers[0].connection(), &["CONFIG SET min-replicas-to-write 1"]);
    let edges = regions[0].edges.lock().unwrap();
    assert_eq!(rate(&edges[0], "later", "tea", "3").status, 503);
    run(&mut servers[0].connection(), &["CONFIG SET min-replicas-to-write 0"]);
    assert_eq!(rate(&edges[0], "later", "tea", "3").status, 200);

    // Without the sentinel the old master shows once more what it had accepted.
    drop(sentinel);
    let (had, has) = (told(&old.restart()), told(&servers[0]));
    let accepted = accepted.into_inner().unwrap();
    for region in ["eu", "us"] {
        let count = accepted.iter().filter(|record| record.region == region).count();
        assert!(count > 50, "{count} were accepted in {region}");
    }
    for record in accepted.iter().filter(|record| !is_held(&held, record)) {
        let was_not_replicated = had.contains(&record.stamp) && !has.contains(&record.stamp);
        assert!(record.region == "eu" && was_not_replicated, "{record:?}");
    }
}

#[test]
fn what_a_region_has_lost_and_has_back_is_told_to_those_who_had_not_heard_it() {
    let mut servers: Vec<Server> =
        (0..3).map(|_| Server::builder().config("save", "").start()).collect();
    let eu = edge(&servers, 0, &[]);
    let _us = edge(&servers, 1, &[]);
    let ap = edge(&servers, 2, &[]);
    assert_eq!(rate(&eu, "ann", "tea", "4").status, 200);
    assert_eq!(rate(&eu, "bob", "tea", "4").status, 200);
    await_equal(&servers);
    run(&mut servers[0].connection(), &["SAVE"]);
    drop(ap);
    assert_eq!(rate(&eu, "ann", "tea", "2").status, 200);
    assert_eq!(send(eu.http, "DELETE", "/users/bob", &[], "").status, 204);
    await_equal(&servers[..2]);
    // As a replica that lagged behind.
    drop(eu);
    let server = servers.remove(0).kill_9().start();
    servers.insert(0, server);
    assert_eq!(fields(&mut servers[0].connection(), "{ratings}:item:tea")["count"], "2");
    let _eu = edge(&servers, 0, &[]);
    await_equal(&servers[..2]);
    let _ap = edge(&servers, 2, &[]);
    let held = await_equal(&servers);
    assert_eq!(held["{ratings}:item:tea"]["sum"], "2000000");
}

// Figures for docs/edge/regions.md: `make bench-ratings`.

/// What a process has in memory, in MB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[test]
#[ignore = "measures: make bench-ratings"]
fn measure_the_lag() {
    for delay in [0, 80] {
        measure_lag(Duration::from_millis(delay));
    }
}

/// Between regions from one of which each answer takes `delay`.
fn measure_lag(delay: Duration) {
    const PER_SECOND: u64 = 2_000;
    const SECONDS: u64 = 20;
    let servers =
        [Server::start(), Server::builder().config("notify-keyspace-events", "Kh").start()];
    let relay = Relay::to(servers[0].port());
    relay.delay(delay);
    let through = format!("eu={}", relay.url());
    let edges = [edge(&servers, 0, &[]), edge(&servers, 1, &[("RATINGS_PEERS", &through)])];
    assert_eq!(rate(&edges[0], "ann", "tea", "4").status, 200);
    await_equal(&servers);
    let total = PER_SECOND * SECONDS;
    let (stamps, arrivals) = thread::scope(|scope| {
        // Who hears in the second region of each user that is written.
        let client = servers[1].client();
        let arrivals = scope.spawn(move || {
            let mut conn = client.get_connection().unwrap();
            let mut heard = conn.as_pubsub();
            heard.psubscribe("__keyspace@0__:{ratings}:user:*").unwrap();
            let mut arrivals = BTreeMap::new();
            while (arrivals.len() as u64) < total {
                let message = heard.get_message().unwrap();
                let user = message.get_channel_name().rsplit(':').next().unwrap().to_owned();
                arrivals.insert(user, micros());
            }
            arrivals
        });
        let begin = Instant::now();
        let stamps = rate_steadily(&edges[0], PER_SECOND, SECONDS);
        println!("{total} ratings in {:?}, answers take {delay:?}", begin.elapsed());
        (stamps, arrivals.join().unwrap())
    });
    let lags = stamps.iter().map(|(user, stamp)| arrivals[user].saturating_sub(*stamp));
    let lags = quantiles(lags.collect());
    println!(
        "lag in us: median {}, p99 {}, p99.9 {}, greatest {}",
        lags[0], lags[1], lags[2], lags[3]
    );
    println!("MB of the edges: {} and {}", resident(edges[0].pid()), resident(edges[1].pid()));
    assert!(lags[1] < 200_000);
    await_equal(&servers);
}

#[test]
#[ignore = "measures: make bench-ratings"]
fn measure_a_region_that_joins() {
    let servers = [Server::start(), Server::start()];
    let mut conn = servers[0].connection();
    load(&mut conn);
    for part in 0..1_000 {
        let mut pipe = redis::pipe();
        for number in part * 1_000..(part + 1) * 1_000 {
            let (user, item) = (format!("u{}", number % 100_000), format!("i{}", number / 100));
            pipe.cmd("FCALL").arg("claw_rate_1").arg(2);
            pipe.arg(format!("{{ratings}}:user:{user}")).arg(format!("{{ratings}}:item:{item}"));
            pipe.arg(&user).arg(&item).arg(3_000_000).arg("eu").arg(1_000).ignore();
        }
        pipe.query::<()>(&mut conn).unwrap();
    }
    let begin = Instant::now();
    let us = edge(&servers, 1, &[]);
    let mut there = servers[1].connection();
    let patience = Duration::from_secs(600);
    let mut largest = 0;
    eventually(patience, Duration::from_millis(100), "the scan is done", || {
        largest = largest.max(resident(us.pid()));
        int(&mut there, "HLEN {ratings}:places") == 1
    });
    println!("1,000,000 ratings after {:?}, {largest} MB of the edge at most", begin.elapsed());
    for (server, name) in servers.iter().zip(NAMES) {
        println!("{name}: {} MB of Redis", resident(server.pid()));
    }
    assert_eq!(
        int(&mut there, "DBSIZE"),
        100_000 + 10_000 + 3,
        "users, items, clock, place, lease"
    );
    let count = us.metric("operator_ratings_records_total", r#"result="applied""#);
    assert_eq!(count, 1_000_000);
    let held = servers.each_ref().map(|server| stored(&mut server.connection()));
    assert!(held[0] == held[1]);
    assert_exact(&held[0]);
}
