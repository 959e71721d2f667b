//! From one build of the module to the next, as docs/upgrading.md says: in place by
//! `scripts/upgrade.sh`, by a failover, by a restart. Values and buckets stay, and takes go on.
#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use claw_testkit::{
    Builder, Server, ask, cli_binary, digest, eventually, free_port, info_field, ints, module_path,
    run, wait_for_offset, wire_error,
};
use common::{Books, PATIENCE, TICK, assert_sound, more_granted, tokens, under_load};
use redis::{Connection, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Two builds: copies of one, which a server cannot know.
struct Builds {
    dir: PathBuf,
}

impl Builds {
    fn new() -> Builds {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("builds-{}", free_port()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let builds = Builds { dir };
        builds.make("old");
        builds.make("new");
        builds
    }

    fn make(&self, name: &str) {
        fs::copy(module_path(), self.path(name)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.so"))
    }

    fn old(&self) -> Builder {
        Server::builder().module(self.path("old"))
    }
}

impl Drop for Builds {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Runs the script; its exit status, and all that it said.
fn upgrade(server: &Server, options: &[&str], module: &Path) -> (i32, String) {
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/upgrade.sh"))
        .args(options)
        .arg(module)
        .args(["-p", &server.port().to_string()])
        .env("REDIS_CLI", cli_binary())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

fn parameters(conn: &mut Connection) -> BTreeMap<String, String> {
    ask(conn, "CONFIG GET claw.*")
}

/// The module files that a process runs, as the system knows them.
fn files(server: &Server) -> Vec<String> {
    let maps = fs::read_to_string(format!("/proc/{}/maps", server.pid())).unwrap();
    let mut files: Vec<String> = maps
        .lines()
        .filter_map(|line| line.split_once('/'))
        .map(|(_, path)| format!("/{path}"))
        .filter(|path| path.contains("/builds-"))
        .collect();
    files.dedup();
    files
}

/// Sets what a server is not started with, also texts that have to be quoted.
fn set(conn: &mut Connection) -> BTreeMap<String, String> {
    let set: [&[&str]; 3] = [
        &["claw.max-tokens", "77", "claw.refill-rate-per-sec", "0.25"],
        &["claw.sync-keys", r#"user:* !"a\b" 'c'"#],
        &["claw.merge-strategy", "fn:mine", "claw.partition-guard", "equal"],
    ];
    for words in set {
        redis::cmd("CONFIG").arg("SET").arg(words).exec(conn).unwrap();
    }
    parameters(conn)
}

/// And writes a bucket.
fn change(conn: &mut Connection) -> BTreeMap<String, String> {
    run(conn, &["CL.POLICY user:1 CAPACITY 9 REFILL 0 WEIGHT 2", "CL.TAKE user:1 4"]);
    set(conn)
}

fn role(conn: &mut Connection) -> String {
    info_field(conn, "replication", "role").unwrap()
}

#[test]
fn in_place_values_and_buckets_stay() {
    let builds = Builds::new();
    let server = builds.old().module_args(["claw.partition-timeout-ms", "5000"]).start();
    let conn = &mut server.connection();
    let before = change(conn);
    assert_eq!(before["claw.partition-timeout-ms"], "5000");
    let held = digest(conn);

    let (status, said) = upgrade(&server, &["--dry-run"], &builds.path("new"));
    assert!(status == 0 && said.contains("in place: "), "{said}");
    assert_eq!(files(&server), [builds.path("old").to_str().unwrap()], "nothing was done");
    let (status, said) = upgrade(&server, &[], &builds.path("new"));
    assert_eq!(status, 0, "{said}");
    assert_eq!(files(&server), [builds.path("new").to_str().unwrap()]);
    assert_eq!((parameters(conn), digest(conn)), (before.clone(), held));
    assert_eq!(ints(conn, "CL.TAKE user:1 5")[..3], [5, 9, 0]);

    // A file in the place of the one that is loaded. The old one is gone from the process.
    let (new, loaded) = (builds.dir.join("newer.so"), builds.path("new"));
    fs::copy(module_path(), &new).unwrap();
    fs::rename(&new, &loaded).unwrap();
    assert!(files(&server)[0].ends_with("(deleted)"));
    let (status, said) = upgrade(&server, &[], &loaded);
    assert_eq!(status, 0, "{said}");
    assert_eq!(files(&server), [loaded.to_str().unwrap()]);
    // The connection that took is closed.
    assert_eq!(parameters(&mut server.connection()), before);

    // It was written down.
    let server = server.restart();
    assert_eq!(files(&server), [loaded.to_str().unwrap()]);
    assert_eq!(parameters(&mut server.connection()), before);
    assert_sound(&server);
}

#[test]
fn what_cannot_be_done_in_place_is_said() {
    let builds = Builds::new();
    let (old, new) = (builds.path("old"), builds.path("new"));
    let server = builds.old().start();
    let conn = &mut server.connection();
    let before = change(conn);
    fs::write(builds.path("broken"), "no module").unwrap();
    let peers = "redis://claw:s3cr3t@127.0.0.1:1";
    let restart = "It takes a restart: ";
    // What is done first and undone afterwards; the file; what comes of it.
    let rows = [
        ("ACL SETUSER app on nopass ~* -@all +cl.take", "ACL DELUSER app", &new, 3, restart),
        ("ACL SETUSER app (+@all -cl.give)", "ACL DELUSER app", &new, 3, "rule -cl.give"),
        (&*format!("CONFIG SET claw.peers {peers}"), "CONFIG SET claw.peers ", &new, 1, {
            "claw.peers-password-file"
        }),
        ("PING", "PING", &builds.path("none"), 1, "is not loaded"),
        ("PING", "PING", &builds.path("broken"), 1, "is not loaded"),
        ("PING", "PING", &PathBuf::from("new.so"), 1, "is not an absolute path"),
    ];
    for (first, undo, file, expected, why) in rows {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        redis::Cmd::new().arg(words(first)).exec(conn).unwrap();
        let (status, said) = upgrade(&server, &[], file);
        assert!(status == expected && said.contains(why), "{first}: {status}: {said}");
        assert!(!said.contains("s3cr3t"));
        redis::Cmd::new().arg(words(undo)).exec(conn).unwrap();
        assert_eq!(files(&server), [old.to_str().unwrap()], "{first}");
        assert_eq!(parameters(conn), before, "{first}");
    }
    // With a replica it is a failover.
    let replica = Server::replica_of(&server).start();
    run(conn, &["ACL SETUSER app on nopass ~* -@all +cl.take"]);
    let (status, said) = upgrade(&server, &[], &new);
    assert!(status == 3 && said.contains("It takes a failover: "), "{said}");
    drop(replica);

    let server = builds.old().config("enable-module-command", "no").start();
    let (status, said) = upgrade(&server, &[], &new);
    assert!(status == 3 && said.contains("enable-module-command is no"), "{said}");
    let server = Server::builder().without_module().start();
    let (status, said) = upgrade(&server, &[], &new);
    assert!(status == 1 && said.contains("no module claw"), "{said}");
}

/// Clients that take single tokens from a server, whatever becomes of their connections.
/// Calls of which nobody knows are noted as that.
fn taking<T>(servers: &[&Server], books: &Books, meanwhile: impl FnOnce() -> T) -> T {
    const EACH: usize = 2;
    let clients = servers.len() * EACH;
    let conns: Vec<_> = (0..clients).map(|n| Mutex::new(servers[n / EACH].connection())).collect();
    let calls = AtomicU64::new(0);
    let take = |client: usize| {
        let conn = &mut *conns[client].lock().unwrap();
        let account = books.account(calls.fetch_add(1, SeqCst));
        match account.take(1).query::<Value>(conn) {
            Ok(Value::Array(answer)) if answer[0] == Value::Int(1) => account.granted(1),
            Ok(answer) => panic!("{answer:?}"),
            Err(e) if e.is_io_error() || e.is_connection_dropped() => {
                account.lost_sight(1);
                *conn = servers[client / EACH].connection();
            }
            // There is no module for a moment, or the server is not the primary any more.
            Err(e) => {
                let text = wire_error(&e).unwrap_or_else(|| e.to_string());
                let known = ["ERR unknown command", "READONLY "];
                assert!(known.iter().any(|start| text.starts_with(start)), "{text}");
            }
        }
    };
    under_load(clients, take, meanwhile)
}

const CAPACITY: u64 = 1_000_000;

fn some_books() -> Books {
    Books::new((0..10).map(|n| format!("user:{n}")), CAPACITY)
}

/// Two regions share their limits, and one of them is upgraded again and again. In the end
/// both know of every take in either.
#[test]
fn in_place_under_traffic_regions_count_every_take() {
    let builds = Builds::new();
    let ports = [free_port(), free_port()];
    let regions = [0, 1].map(|n| {
        builds
            .old()
            .port(ports[n])
            .config("claw.replica-id", format!("r{n}"))
            .config("claw.peers", format!("redis://127.0.0.1:{}", ports[1 - n]))
            .start()
    });
    let conns = &mut regions.each_ref().map(Server::connection);
    let connected = |conns: &mut [Connection; 2]| {
        eventually(PATIENCE, TICK, "the regions to be connected", || {
            let connected = "claw_sync_peers_connected";
            conns.iter_mut().all(|conn| info_field(conn, "claw", connected).as_deref() == Some("1"))
        });
    };
    connected(conns);
    let before = parameters(&mut conns[0]);
    let books = some_books();
    taking(&[&regions[0], &regions[1]], &books, || {
        for module in ["new", "old", "new", "old", "new"] {
            more_granted(&books, 500);
            let (status, said) = upgrade(&regions[0], &[], &builds.path(module));
            assert_eq!(status, 0, "{said}");
            connected(conns);
        }
        more_granted(&books, 500);
    });
    assert_eq!(parameters(&mut conns[0]), before);
    let left = |conns: &mut [Connection; 2], key: &str| conns.each_mut().map(|c| tokens(c, key));
    eventually(PATIENCE, TICK, "the regions to agree", || {
        (0..books.len() as u64).all(|n| {
            let [here, there] = left(conns, &books.account(n).key);
            here == there
        })
    });
    println!("unknown: {}", books.unknown());
    books.balance(|key| left(conns, key)[1]);
    regions.iter().for_each(assert_sound);
}

/// A replica with the new build is promoted under traffic, and the old primary comes back
/// with it too.
#[test]
fn by_a_failover_values_and_takes_stay() {
    let builds = Builds::new();
    let primary = builds.old().start();
    let replica = Server::replica_of(&primary).module(builds.path("new")).start();
    let [old, new] = &mut [&primary, &replica].map(Server::connection);
    run(old, &["ACL SETUSER app on nopass ~* -@all +cl.take"]);
    let before = set(old);
    assert_eq!(set(new), before);
    let books = some_books();
    taking(&[&primary], &books, || {
        more_granted(&books, 500);
        run(old, &["FAILOVER"]);
        eventually(PATIENCE, TICK, "the replica to be promoted", || role(new) == "master");
    });
    books.balance(|key| tokens(new, key));
    taking(&[&replica], &books, || more_granted(&books, 500));

    run(old, &["CONFIG REWRITE"]);
    run(new, &["CONFIG REWRITE"]);
    builds.make("newer");
    fs::rename(builds.path("newer"), builds.path("old")).unwrap();
    let returned = primary.restart();
    assert_eq!(parameters(&mut returned.connection()), before);
    wait_for_offset(&replica, &returned);
    books.balance(|key| tokens(new, key));
    books.balance(|key| tokens(&mut returned.connection(), key));
    [&replica, &returned].into_iter().for_each(assert_sound);
}

/// A new file in the place of the old one, and a restart: with what was written down.
#[test]
fn by_a_restart_values_and_buckets_stay() {
    let builds = Builds::new();
    let server = builds.old().config("appendonly", "yes").start();
    let conn = &mut server.connection();
    run(conn, &["ACL SETUSER app on nopass ~* -@all +cl.take"]);
    let before = change(conn);
    run(conn, &["CONFIG REWRITE"]);
    let held = digest(conn);
    fs::rename(builds.path("new"), builds.path("old")).unwrap();
    let server = server.restart();
    let conn = &mut server.connection();
    assert_eq!((parameters(conn), digest(conn)), (before, held));
    assert_eq!(files(&server), [builds.path("old").to_str().unwrap()]);
    let users: Vec<String> = ask(conn, "ACL LIST");
    assert!(users.iter().any(|user| user.ends_with(" +cl.take")), "users come back with it");
}
