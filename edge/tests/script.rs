//! `make edge`: that what it prints works, and that it leaves nothing running.

#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use claw_testkit::{eventually, free_port, module_path, spawn};
use common::{PATIENCE, TICK};

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
