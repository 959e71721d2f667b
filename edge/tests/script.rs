//! `make edge`: that what it prints works, and that it leaves nothing running. And examples/collectors, which tell
//! claw-edge of requests.

#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use claw_testkit::{Server, eventually, free_port, module_path, skipped, spawn};
use common::{Edge, PATIENCE, TICK};

fn script() -> Command {
    // Others may run the same at this moment.
    let ports = [(); 4].map(|()| free_port().to_string()).join(" ");
    let mut command = Command::new("scripts/edge.sh");
    command
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .env("CLAW_EDGE", env!("CARGO_BIN_EXE_claw-edge"))
        .env("PORTS", ports)
        .env("REDIS_CLAW_MODULE", module_path());
    command
}

#[test]
fn what_it_says_to_try_works() {
    let output = script().arg("--check").output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.starts_with("edge: 3 ratings passed and the fourth was refused"), "{said}");
}

#[test]
fn it_leaves_nothing_running() {
    let mut command = script();
    command.stdout(Stdio::piped());
    let mut running = spawn(command);
    let printed = BufReader::new(running.stdout.take().unwrap());
    let mut ports = Vec::new();
    for line in printed.lines() {
        let line = line.unwrap();
        let after = line.split("127.0.0.1:").skip(1).chain(line.split("redis-cli -p ").skip(1));
        let port = |text: &str| -> Option<u16> {
            text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        ports.extend(after.filter_map(port));
        if line.starts_with("Ctrl-C") {
            break;
        }
    }
    assert!(ports.len() >= 6, "{ports:?}");
    let listens = |port: &u16| TcpStream::connect(("127.0.0.1", *port)).is_ok();
    assert!(ports.iter().all(listens), "{ports:?}");
    let pid = running.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    eventually(PATIENCE, TICK, "the script ends", || running.try_wait().unwrap().is_some());
    assert!(!ports.iter().any(listens), "{ports:?}");
}

#[test]
fn a_measurement_that_is_ended_while_it_starts_leaves_nothing_running() {
    let dir = tempfile::tempdir().unwrap();
    // A service that never listens.
    for name in ["wrk", "claw-edge"] {
        let path = dir.path().join(name);
        fs::write(&path, "#!/bin/sh\nexec sleep 600\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("scripts/bench-edge.py");
    command
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .env("CLAW_EDGE", dir.path().join("claw-edge"))
        .env("PATH", path)
        .env("REDIS_CLAW_MODULE", module_path());
    let mut running = spawn(command);
    let pid = running.id();
    let mut children = Vec::new();
    eventually(PATIENCE, TICK, "a Redis and a service", || {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children = text.split_whitespace().map(str::to_owned).collect();
        children.len() == 2
    });
    assert!(Command::new("kill").arg(pid.to_string()).status().unwrap().success());
    eventually(PATIENCE, TICK, "the script ends", || running.try_wait().unwrap().is_some());
    let is_there = |pid: &String| fs::exists(format!("/proc/{pid}")).unwrap();
    let left: Vec<&String> = children.iter().filter(|pid| is_there(pid)).collect();
    for pid in &left {
        assert!(Command::new("kill").args(["-9", pid]).status().unwrap().success());
    }
    assert!(left.is_empty(), "{left:?} of {children:?} go on");
}

#[test]
fn collectors_are_understood() {
    for program in ["node", "go"] {
        if let Err(why) = Command::new(program).arg("--help").output() {
            return skipped("collectors", &format!("{program}: {why}"));
        }
    }
    let redis = Server::start();
    let limits = redis.dir().join("limits.yaml");
    fs::write(&limits, "limits: [{name: shop, capacity: 40, refill: 100, adaptive: {mode: off}}]")
        .unwrap();
    let edge = Edge::builder(&redis.url())
        .env("CONFIG", limits)
        .env("API_TOKEN", "a-token-for-tests")
        .env("DECISION_TIMEOUT", "5s")
        .start();
    let url = format!("http://127.0.0.1:{}", edge.http);
    let output =
        Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/collectors/try.sh"))
            .args([&url, "a-token-for-tests", "shop"])
            .env("GOCACHE", concat!(env!("CARGO_TARGET_TMPDIR"), "/collectors"))
            .output()
            .unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{said}");
    for language in ["javascript", "go"] {
        let line = format!(
            r#"{language}: {{"accepted":100,"duplicates":0,"refused":0,"dropped":0,"retries":0,"bucketSize":40,"refillRate":100}}"#
        );
        assert!(said.lines().any(|it| it == line), "{said}");
    }
    assert_eq!(edge.metric("rating_events_total", r#"result="accepted""#), 200);
}
