//! What the tests of the service share: the program itself, started as its users start it.

#![allow(dead_code, reason = "no test uses all of it")]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used
)]

pub mod api;
pub mod rls;

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use claw_testkit::{eventually, free_port, spawn};
use tempfile::TempDir;

/// How long to wait for what should come soon.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const TICK: Duration = Duration::from_millis(10);

/// A running service. Dropping it kills the process.
#[derive(Debug)]
pub struct Edge {
    pub http: u16,
    pub grpc: u16,
    pub ops: u16,
    child: Child,
    dir: TempDir,
}

impl Edge {
    /// Starts the service on free ports, with `settings` in its environment, and waits until it
    /// listens.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let (http, grpc, ops) = (free_port(), free_port(), free_port());
        let dir = TempDir::new().unwrap();
        let log = dir.path().join("log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_claw-edge"));
        command
            .env_clear()
            .env("HTTP_ADDR", format!("127.0.0.1:{http}"))
            .env("GRPC_ADDR", format!("127.0.0.1:{grpc}"))
            .env("OPS_ADDR", format!("127.0.0.1:{ops}"))
            .env("WORKERS", "2")
            .envs(settings.iter().copied())
            .stderr(File::create(&log).unwrap());
        let mut edge = Self { http, grpc, ops, child: spawn(command), dir };
        eventually(PATIENCE, TICK, "the service listens", || {
            if let Some(status) = edge.child.try_wait().unwrap() {
                panic!("the service ended, {status}:\n{}", edge.log());
            }
            [http, grpc, ops].iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok())
        });
        edge
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// A folder of its own.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Sends a signal, by its name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().unwrap();
        assert!(status.success(), "SIG{name} is sent to {pid}");
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        eventually(PATIENCE, TICK, "the service ends", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }

    /// `GET` of the address for operators: status and body.
    pub fn ops(&self, path: &str) -> (u16, String) {
        let (status, _, body) = get(self.ops, path, &[]);
        (status, body)
    }

    /// The value of a metric, 0 if there is none of that name and labels yet.
    pub fn metric(&self, name: &str) -> u64 {
        let (_, text) = self.ops("/metrics");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the service logged:\n{}", self.log());
        }
    }
}

/// `GET`: the status, the fields with their names in lower case, and the body.
pub fn get(port: u16, path: &str, fields: &[(&str, &str)]) -> (u16, Vec<(String, String)>, String) {
    use std::io::{Read, Write};
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    for (name, value) in fields {
        request += &format!("{name}: {value}\r\n");
    }
    stream.write_all((request + "\r\n").as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap().parse().unwrap();
    let fields = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    (status, fields, body.to_owned())
}
