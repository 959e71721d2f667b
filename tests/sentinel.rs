//! Failover by Sentinel: three of its processes, a primary that is killed, and a
//! replica that goes on with the buckets as they were.
#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

use claw_testkit::{
    Server, ask, digest, eventually, free_port, info_field, run, server_binary, spawn,
};
use redis::Connection;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Far more than it takes: Sentinel notices after five seconds, and votes.
const PATIENCE: Duration = Duration::from_secs(120);
const TICK: Duration = Duration::from_millis(50);
const NAME: &str = "limits";

#[test]
fn takes_go_on_with_the_buckets_as_they_were() {
    let primary = Server::builder().config("appendonly", "yes").start();
    let replica = Server::replica_of(&primary).config("appendonly", "yes").start();
    let sentinels = [(); 3].map(|()| Sentinel::start(primary.port()));
    for sentinel in &sentinels {
        sentinel.wait_for_the_others();
    }
    run(&mut replica.connection(), &["CONFIG SET claw.max-tokens 77"]);
    let mut conn = client(&sentinels);
    run(&mut conn, &["CL.POLICY pinned CAPACITY 9 REFILL 0 WEIGHT 2", "CL.TAKE pinned 2"]);
    for _ in 0..60 {
        assert_eq!(take(&mut conn), 1);
    }
    // What the replica has not got when the primary dies, nobody has.
    assert!(ask::<i64>(&mut conn, "WAIT 1 30000") >= 1);
    let before = digest(&mut conn);

    let crashed = primary.kill_9();
    let mut conn = None;
    eventually(PATIENCE, TICK, "the replica to be the primary", || {
        conn = connect(&sentinels).filter(|(port, _)| *port == replica.port());
        conn.as_mut().is_some_and(|(_, conn)| role(conn) == "master")
    });
    let (_, mut conn) = conn.unwrap();
    assert_eq!(digest(&mut conn), before);
    let granted: i64 = (0..60).map(|_| take(&mut conn)).sum();
    assert_eq!(granted, 40, "100 tokens in all, of which 60 were taken before");
    let pinned: Vec<i64> = ask(&mut conn, "CL.PEEK pinned 7");
    assert_eq!(pinned[..3], [7, 9, 0], "the policy and what is left of it");
    let last = digest(&mut conn);

    // The old primary comes back with data that is out of date, and is told to
    // follow.
    let returned = crashed.start();
    eventually(PATIENCE, TICK, "the old primary to follow", || {
        let mut old = returned.connection();
        let up = info_field(&mut old, "replication", "master_link_status");
        up.as_deref() == Some("up") && digest(&mut old) == digest(&mut conn)
    });
    assert_eq!(role(&mut returned.connection()), "slave");

    // Sentinel has had both write down what they are, and they come back as that.
    let config = |server: &Server| fs::read_to_string(server.dir().join("redis.conf")).unwrap();
    let follows = format!("replicaof 127.0.0.1 {}", replica.port());
    eventually(PATIENCE, TICK, "it to be written down", || config(&returned).contains(&follows));
    assert_eq!(role(&mut returned.kill_9().start().connection()), "slave");
    assert!(!config(&replica).contains("replicaof"));
    let replica = replica.restart();
    let conn = &mut replica.connection();
    assert_eq!(role(conn), "master");
    assert_eq!(ask::<Vec<String>>(conn, "CONFIG GET claw.max-tokens")[1], "77");
    assert_eq!(digest(conn), last);
}

/// Takes one token of a bucket that never refills; 1 when granted.
fn take(conn: &mut Connection) -> i64 {
    ask::<Vec<i64>>(conn, "CL.TAKE limit 1 CAPACITY 100 REFILL 0")[0]
}

fn role(conn: &mut Connection) -> String {
    info_field(conn, "replication", "role").expect("a role")
}

/// The present primary, as a client finds it: by asking.
fn client(sentinels: &[Sentinel]) -> Connection {
    connect(sentinels).expect("a primary that can be reached").1
}

fn connect(sentinels: &[Sentinel]) -> Option<(u16, Connection)> {
    let found: Vec<String> = redis::cmd("SENTINEL")
        .arg(&["GET-MASTER-ADDR-BY-NAME", NAME])
        .query(&mut sentinels.first()?.connection())
        .ok()?;
    let port = found.get(1)?.parse().ok()?;
    Some((port, try_connect(port)?))
}

fn try_connect(port: u16) -> Option<Connection> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
    let conn = client.get_connection_with_timeout(Duration::from_secs(10)).ok()?;
    conn.set_read_timeout(Some(PATIENCE)).unwrap();
    Some(conn)
}

/// A Sentinel process with a directory of its own.
struct Sentinel {
    process: Child,
    port: u16,
    dir: PathBuf,
}

impl Sentinel {
    fn start(primary: u16) -> Sentinel {
        let port = free_port();
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sentinel-{port}"));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let config = dir.join("sentinel.conf");
        let lines = [
            format!("port {port}"),
            "bind 127.0.0.1".to_owned(),
            format!("dir {}", dir.display()),
            format!("logfile {}", dir.join("log").display()),
            format!("sentinel monitor {NAME} 127.0.0.1 {primary} 2"),
            // No failover before the test wants one, even where the machine stands still.
            format!("sentinel down-after-milliseconds {NAME} 5000"),
            format!("sentinel failover-timeout {NAME} 10000"),
        ];
        fs::write(&config, lines.join("\n") + "\n").unwrap();
        let mut command = Command::new(server_binary());
        command.arg(config).arg("--sentinel").stdin(Stdio::null()).stdout(Stdio::null());
        let sentinel = Sentinel { process: spawn(command), port, dir };
        eventually(PATIENCE, TICK, "Sentinel to answer", || try_connect(port).is_some());
        sentinel
    }

    fn connection(&self) -> Connection {
        try_connect(self.port).unwrap_or_else(|| {
            panic!("{}", fs::read_to_string(self.dir.join("log")).unwrap_or_default())
        })
    }

    /// Until it knows the replica, and enough others for a vote.
    fn wait_for_the_others(&self) {
        let mut conn = self.connection();
        eventually(PATIENCE, TICK, "Sentinel to know the others", || {
            let about = redis::cmd("SENTINEL").arg(&["MASTER", NAME]).query(&mut conn);
            let about: std::collections::BTreeMap<String, String> = about.unwrap();
            let number = |field: &str| about.get(field).map_or("", String::as_str);
            number("num-slaves") == "1" && number("num-other-sentinels") == "2"
        });
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // Killed rather than asked: there is nothing to save.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}
