//! What deploy/kubernetes starts Redis with, by a server that is started so: its probes, and the
//! user who administers it.

#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use claw_testkit::{eventually, free_port, module_path, server_binary, spawn};
use common::{PATIENCE, TICK, send_signal};
use redis::{Client, Connection, RedisResult};
use serde_json::Value;
use tempfile::TempDir;

const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;
/// Keys that take longer to load than anything here.
const KEYS: usize = 10_000;

/// The documents of a manifest.
fn manifests(name: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes");
    let text = fs::read_to_string(folder.join(name)).unwrap();
    text.split("\n---\n").map(|one| serde_saphyr::from_str(one).unwrap()).collect()
}

/// The container of Redis.
fn container() -> Value {
    let all = manifests("base/redis.yaml");
    let set = all.into_iter().find(|one| one["kind"] == "StatefulSet").unwrap();
    set["spec"]["template"]["spec"]["containers"][0].clone()
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// What the Secret has by this name.
fn secret(name: &str) -> String {
    manifests("secret.example.yaml")[0]["stringData"][name].as_str().unwrap().trim_end().to_owned()
}

/// A server as in the StatefulSet, with the users of the example.
struct Redis {
    process: Child,
    port: u16,
    users: PathBuf,
    dir: TempDir,
}

impl Redis {
    fn start() -> Self {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("users.acl"), secret("users.acl")).unwrap();
        Self::start_in(dir, &[])
    }

    fn start_in(dir: TempDir, more: &[&str]) -> Self {
        let (port, users) = (free_port(), dir.path().join("users.acl"));
        let mut command = Command::new(server_binary());
        command
            .args(["--port", &port.to_string(), "--save", "", "--loadmodule"])
            .arg(module_path());
        command.arg("--dir").arg(dir.path());
        for argument in texts(&container()["args"]) {
            let is_users = argument == "/run/secrets/claw/users.acl";
            command.arg(if is_users { users.to_str().unwrap() } else { &argument });
        }
        command.args(more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { process: spawn(command), port, users, dir }
    }

    /// A connection of a user.
    fn log_in(&self, user: &str, password: &str) -> RedisResult<Connection> {
        let url = format!("redis://{user}:{password}@127.0.0.1:{}", self.port);
        Client::open(url).unwrap().get_connection()
    }

    fn admin(&self) -> Connection {
        let mut found = None;
        eventually(PATIENCE, TICK, "the server to let the admin in", || {
            found = self.log_in("admin", &secret("admin-password")).ok();
            found.is_some()
        });
        found.unwrap()
    }

    /// Whether a probe is content.
    fn passes(&self, probe: &str) -> bool {
        let probe = &container()[probe];
        let words = texts(&probe["exec"]["command"]);
        let (last, first) = words.split_last().unwrap();
        assert!(last.contains(r#""$cli" "#), "{last}");
        let here = format!(r#""$cli" -p {} "#, self.port);
        // As the kubelet does.
        let mut command = Command::new("timeout");
        command.arg(probe["timeoutSeconds"].to_string()).args(first);
        command.arg(last.replace(r#""$cli" "#, &here));
        let output = command.stdin(Stdio::null()).output().unwrap();
        output.status.success()
    }

    /// Ends it without a word.
    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn ask(conn: &mut Connection, words: &str) -> RedisResult<redis::Value> {
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    words.for_each(|word| {
        command.arg(word);
    });
    command.query(conn)
}

#[test]
fn a_server_is_ready_once_it_has_loaded_and_lives_while_it_answers() {
    let mut redis = Redis::start();
    let mut admin = redis.admin();
    assert!(redis.passes("readinessProbe") && redis.passes("livenessProbe"));

    send_signal(redis.process.id(), SIGSTOP);
    assert!(!redis.passes("readinessProbe") && !redis.passes("livenessProbe"), "it hangs");
    send_signal(redis.process.id(), SIGCONT);
    eventually(PATIENCE, TICK, "it goes on", || redis.passes("livenessProbe"));

    let mut fill = redis::cmd("MSET");
    for key in 0..KEYS {
        fill.arg(key).arg("value");
    }
    fill.query::<()>(&mut admin).unwrap();
    ask(&mut admin, "SAVE").unwrap();
    redis.kill();
    assert!(!redis.passes("readinessProbe") && !redis.passes("livenessProbe"), "it is gone");

    let dir = std::mem::replace(&mut redis.dir, TempDir::new().unwrap());
    let slowly = ["--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024"];
    let redis = Redis::start_in(dir, &slowly);
    let mut admin = redis.admin();
    let loads = ask(&mut admin, "GET 1").unwrap_err();
    assert_eq!(loads.code(), Some("LOADING"), "{loads}");
    assert!(redis.passes("livenessProbe"), "a server that loads is not to be killed");
    assert!(!redis.passes("readinessProbe"), "and is not to be asked");
    ask(&mut admin, "CONFIG SET key-load-delay 0").unwrap();
    eventually(PATIENCE, TICK, "it has loaded", || redis.passes("readinessProbe"));
}

#[test]
fn who_administers_can_rotate_passwords_and_others_can_not() {
    let redis = Redis::start();
    let mut admin = redis.admin();
    ask(&mut admin, "CONFIG SET maxmemory 300mb").unwrap();
    let old = secret("redis-password");
    assert!(redis.log_in("edge", &old).is_ok());
    let write = |passwords: &str| {
        let users = secret("users.acl");
        let before = format!("user edge on >{old} ");
        assert!(users.contains(&before), "{users}");
        fs::write(&redis.users, users.replace(&before, &format!("user edge on {passwords} ")))
            .unwrap();
    };
    // As docs/edge/deploying.md has it.
    write(&format!(">{old} >new"));
    ask(&mut admin, "ACL LOAD").unwrap();
    for password in [&*old, "new"] {
        assert!(redis.log_in("edge", password).is_ok(), "both are valid");
    }
    write(">new");
    ask(&mut redis.admin(), "ACL LOAD").unwrap();
    assert!(redis.log_in("edge", "new").is_ok());
    assert!(redis.log_in("edge", &old).is_err(), "the old one is not");

    let mut edge = redis.log_in("edge", "new").unwrap();
    let mut probe = redis.log_in("probe", "any").unwrap();
    ask(&mut probe, "PING").unwrap();
    for command in ["ACL LOAD", "CONFIG SET maxmemory 1", "FLUSHALL", "KEYS *"] {
        for conn in [&mut edge, &mut probe] {
            let refused = ask(conn, command).unwrap_err();
            assert_eq!(refused.code(), Some("NOPERM"), "{command}: {refused}");
        }
    }
    let refused = ask(&mut probe, "GET token_bucket:ann").unwrap_err();
    assert_eq!(refused.code(), Some("NOPERM"), "{refused}");
}
