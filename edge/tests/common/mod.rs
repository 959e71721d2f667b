//! What the tests of the service share: the service itself, and a client.

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
pub mod http;
pub mod ratings;
pub mod receiver;
pub mod redis;
pub mod relay;
pub mod rls;
pub mod tools;

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use claw_testkit::{Server, eventually, free_port, spawn};
use tempfile::TempDir;

use self::http::{Client, Response};

/// How long to wait for what takes milliseconds on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How many workers a service has that is told nothing else.
pub const WORKERS: u64 = 2;
/// How often to look.
pub const TICK: Duration = Duration::from_millis(10);

/// A running service. Dropping it kills the process.
pub struct Edge {
    process: Child,
    dir: TempDir,
    /// The port of the rating API.
    pub http: u16,
    /// The port of the Envoy rate limit service.
    pub grpc: u16,
    /// The port for operators.
    pub ops: u16,
}

/// A command that starts the service on free ports, with no setting from the environment of
/// the test.
pub struct Builder {
    command: Command,
    dir: TempDir,
    ports: [u16; 3],
}

impl Builder {
    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// The address for operators is on all interfaces.
    pub fn ops_everywhere(self) -> Self {
        let address = format!("0.0.0.0:{}", self.ports[2]);
        self.env("OPS_ADDR", address)
    }

    /// Starts it and waits until it answers.
    pub fn start(self) -> Edge {
        let edge = self.launch();
        eventually(PATIENCE, TICK, "the service to answer", || {
            Client::try_connect(edge.ops)
                .and_then(|mut client| client.try_get("/livez"))
                .is_ok_and(|response| response.status == 200)
        });
        edge
    }

    /// Starts it.
    pub fn launch(mut self) -> Edge {
        let log = File::create(self.dir.path().join("log")).expect("a log file");
        self.command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log file")).stderr(log);
        let [http, grpc, ops] = self.ports;
        Edge { process: spawn(self.command), dir: self.dir, http, grpc, ops }
    }
}

impl Edge {
    /// A service in front of `redis_url`.
    pub fn builder(redis_url: &str) -> Builder {
        let ports = [free_port(), free_port(), free_port()];
        // Measurements bring a release build.
        let program = std::env::var_os("CLAW_EDGE");
        let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_claw-edge").into());
        let mut command = Command::new(program);
        command.env_clear();
        // Several of them, on any machine.
        command.env("WORKERS", WORKERS.to_string());
        command.env("REDIS_URL", redis_url).env("NO_COLOR", "1");
        for (name, port) in ["HTTP_ADDR", "GRPC_ADDR", "OPS_ADDR"].into_iter().zip(ports) {
            command.env(name, format!("127.0.0.1:{port}"));
        }
        let dir = tempfile::tempdir().expect("a directory");
        Builder { command, dir, ports }
    }

    /// A service that limits each user to `capacity` tokens, and to `refill` more in an hour.
    pub fn limiting(redis_url: &str, capacity: u64, refill: u64) -> Builder {
        Self::builder(redis_url)
            .env("USER_HEADER", "x-user")
            .env("USER_CAPACITY", capacity.to_string())
            .env("USER_REFILL", refill.to_string())
            .env("USER_INTERVAL", "1h")
    }

    /// A connection to the rating API.
    pub fn client(&self) -> Client {
        Client::try_connect(self.http).expect("the service listens")
    }

    /// A rating of `user`, on a connection of its own.
    pub fn rate(&self, user: &str) -> Response {
        self.client().rate(user)
    }

    /// A page for operators.
    pub fn ops(&self, path: &str) -> Response {
        Client::try_connect(self.ops)
            .and_then(|mut client| client.try_get(path))
            .expect("the service answers")
    }

    /// The sum of all series of a metric whose labels contain `labels`.
    pub fn metric(&self, name: &str, labels: &str) -> u64 {
        let text = String::from_utf8(self.ops("/metrics").body).expect("text");
        text.lines()
            .filter(|line| !line.starts_with('#') && line.contains(labels))
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(series, _)| series.split('{').next() == Some(name))
            .map(|(series, value)| {
                value.parse::<u64>().unwrap_or_else(|e| panic!("{series} is {value}: {e}"))
            })
            .sum()
    }

    /// Whether it says that it takes requests.
    pub fn is_ready(&self) -> bool {
        self.ops("/readyz").status == 200
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).expect("a log file")
    }

    /// How many lines of the log contain `text`.
    pub fn logged(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }

    /// A file of its own.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        send_signal(self.pid(), signal);
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.process.try_wait().expect("a child can be waited for").is_none()
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually(PATIENCE, TICK, "the service to end", || {
            status = self.process.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the service\n{}", self.log());
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Sends a signal to a process that the test has started.
pub fn send_signal(pid: u32, signal: i32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a process id"));
    let signal = rustix::process::Signal::from_named_raw(signal).expect("a signal");
    rustix::process::kill_process(pid.expect("a process id"), signal).expect("it can be signalled");
}

/// A server with the module.
pub fn server() -> Server {
    Server::builder().start()
}
