//! What the tests share: a payload, an owner of a pusher, and their waiting.

#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use claw_sync::{
    Config, Credentials, Files, Identity, Limits, Messages, PeerState, PeerStatus, PeerUrl, Pusher,
    Round, Value,
};
use claw_testkit::{Server, eventually};
use std::io::Write;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a test waits for what should happen soon.
pub const SOON: Duration = Duration::from_secs(20);
pub const TICK: Duration = Duration::from_millis(5);
/// How long stopping may take before it has failed.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How soon after a peer is well again it has everything.
pub const HEALING: Duration = Duration::from_secs(2);
/// An interval that never ends: rounds happen when the test flushes.
pub const NEVER: Duration = Duration::from_secs(3600);

/// Puts states into the field `state` of hashes, and answers as the module does: one
/// element for each.
pub const STORE: &str = "\
    local replies, key = {}, KEYS[1] \
    for at = 1, #ARGV, 2 do \
        replies[#replies + 1] = redis.pcall('HSET', key, 'state', ARGV[at]) \
        key = ARGV[at + 1] \
    end \
    return replies";

/// Heartbeats that ask `INFO server` for the run id, or any other command.
pub struct Owner {
    pub heartbeat: Vec<Vec<u8>>,
    /// The words before keys and states.
    pub command: Vec<Vec<u8>>,
    /// The rounds there were heartbeats for.
    pub rounds: Mutex<Vec<Round>>,
}

impl Owner {
    pub fn new(heartbeat: &str) -> Arc<Owner> {
        Self::with(heartbeat, ["EVAL", STORE, "1"].map(Vec::from).to_vec())
    }

    /// One whose states go with another command.
    pub fn with(heartbeat: &str, command: Vec<Vec<u8>>) -> Arc<Owner> {
        let (heartbeat, rounds) = (words(heartbeat), Mutex::default());
        Arc::new(Owner { heartbeat, command, rounds })
    }

    pub fn complete(&self, peer: usize) -> usize {
        let rounds = self.rounds.lock().unwrap();
        rounds.iter().filter(|round| round.peer == peer && round.complete).count()
    }
}

/// A note that no state can be made of.
pub const BOMB: &str = "bomb";

impl Messages for Owner {
    fn states_command(&self) -> Vec<Vec<u8>> {
        self.command.clone()
    }

    /// Notes are states.
    fn state(&self, note: &[u8], out: &mut Vec<u8>) {
        assert!(note != BOMB.as_bytes(), "part of the test");
        out.extend_from_slice(note);
    }

    fn heartbeat(&self, round: &Round) -> Vec<Vec<u8>> {
        self.rounds.lock().unwrap().push(*round);
        self.heartbeat.clone()
    }

    fn heard(&self, _peer: usize, reply: &Value) -> Identity {
        let Value::BulkString(text) = reply else {
            return Identity::default();
        };
        let text = String::from_utf8(text.clone()).unwrap();
        let run = text.lines().find_map(|line| line.strip_prefix("run_id:"));
        Identity { replica: run.map(|_| "a-server".into()), run: run.map(|run| run.trim().into()) }
    }
}

pub fn words(text: &str) -> Vec<Vec<u8>> {
    text.split_ascii_whitespace().map(|word| word.as_bytes().to_vec()).collect()
}

/// A server without the module.
pub fn plain() -> Server {
    Server::builder().without_module().start()
}

/// A peer that takes long to answer on a busy machine does not hang. Where one that
/// does is to be given up, use the default.
pub fn limits() -> Limits {
    Limits { io_timeout: Duration::from_secs(120), ..Limits::default() }
}

pub fn config<U: AsRef<str>>(urls: impl IntoIterator<Item = U>) -> Config {
    Config {
        peers: urls.into_iter().map(|url| PeerUrl::parse(url.as_ref()).unwrap()).collect(),
        interval: Duration::from_millis(10),
        credentials: Arc::default(),
        limits: limits(),
    }
}

/// The same with these files.
pub fn with_files(config: Config, files: Files) -> Config {
    Config { credentials: Arc::new(Credentials::new(files)), ..config }
}

pub fn start(config: Config) -> (Pusher, Arc<Owner>) {
    start_with(config, "INFO server")
}

pub fn start_with(config: Config, heartbeat: &str) -> (Pusher, Arc<Owner>) {
    let owner = Owner::new(heartbeat);
    let pusher = Pusher::start(config, Arc::clone(&owner) as Arc<dyn Messages>).unwrap();
    (pusher, owner)
}

pub fn status(pusher: &Pusher, peer: usize) -> PeerStatus {
    pusher.status().remove(peer)
}

pub fn soon(what: &str, mut condition: impl FnMut() -> bool) {
    eventually(SOON, TICK, what, &mut condition);
}

/// As [`soon`], and says how the peers are when it did not come true.
pub fn await_status(pusher: &Pusher, what: &str, condition: impl Fn(&[PeerStatus]) -> bool) {
    let began = std::time::Instant::now();
    loop {
        let all = pusher.status();
        if condition(&all) {
            return;
        }
        assert!(began.elapsed() < SOON, "waited in vain for {what}: {all:#?}");
        std::thread::sleep(TICK);
    }
}

pub fn await_connected(pusher: &Pusher) {
    await_status(pusher, "all peers to be connected", |all| {
        all.iter().all(|peer| peer.state == PeerState::Connected)
    });
}

/// Has the server end the connections of the only peer, and awaits another one.
pub fn reconnect(server: &Server, pusher: &Pusher) {
    let before = status(pusher, 0).connections;
    claw_testkit::cmd(&mut server.connection(), "CLIENT KILL TYPE normal SKIPME yes").unwrap();
    await_status(pusher, "another connection", |all| {
        all[0].connections > before && all[0].state == PeerState::Connected
    });
}

/// As [`reconnect`], until the last error begins so. The files are not read each
/// time.
pub fn reconnect_until(server: &Server, pusher: &Pusher, error: &str) {
    soon(error, || {
        reconnect(server, pusher);
        status(pusher, 0).last_error.is_some_and(|last| last.starts_with(error))
    });
}

/// Puts a file in the place of another, whole.
pub fn put(path: &std::path::Path, contents: impl AsRef<[u8]>) {
    let new = path.with_extension("new");
    std::fs::write(&new, contents).unwrap();
    std::fs::rename(new, path).unwrap();
}

pub fn note(pusher: &Pusher, db: u32, key: &str, state: &str) {
    pusher.note(db, key.as_bytes(), &[state.as_bytes()]);
}

/// Does what the owner has to when a peer needs all states.
pub fn resend(pusher: &Pusher, states: &[(u32, &str, &str)]) {
    soon("a resend to be needed", || pusher.needs_resend());
    pusher.resend_begins();
    for (db, key, state) in states {
        note(pusher, *db, key, state);
    }
    pusher.resend_ends();
}

/// Connects all peers and gives them the empty resend that they begin with.
pub fn settle(pusher: &Pusher) {
    await_connected(pusher);
    resend(pusher, &[]);
    pusher.flush();
    await_status(pusher, "peers to lack nothing", |all| all.iter().all(|peer| !peer.lacking));
}

pub fn state(server: &Server, db: u32, key: &str) -> Option<String> {
    let mut conn = server.connection();
    redis::cmd("SELECT").arg(db).exec(&mut conn).unwrap();
    redis::cmd("HGET").arg(key).arg("state").query(&mut conn).unwrap()
}

pub fn await_state(server: &Server, db: u32, key: &str, expected: &str) {
    soon(&format!("{key} to be {expected}"), || {
        state(server, db, key).as_deref() == Some(expected)
    });
}

pub fn stop(pusher: Pusher) {
    assert!(pusher.stop(PATIENCE).is_ok(), "threads are left");
}

pub fn signal(server: &Server, signal: libc::c_int) {
    // SAFETY: the process is a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(server.pid().cast_signed(), signal) }, 0);
}

/// Has each command on any connection to `listener` answered, by what its first word is.
pub fn answer(listener: TcpListener, with: impl Fn(&str) -> String + Send + Sync + 'static) {
    let with = Arc::new(with);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, with) = (stream.unwrap(), Arc::clone(&with));
            std::thread::spawn(move || {
                let mut commands = redis::Parser::new();
                while let Ok(Value::Array(words)) = commands.parse_value(&stream) {
                    let Value::BulkString(word) = &words[0] else { panic!("{words:?}") };
                    let answer = with(std::str::from_utf8(word).unwrap());
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

pub fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

pub fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().unwrap().port()
}

/// A reply to `CLUSTER SLOTS`: first and last slot, and the port of the master.
pub fn slots(ranges: &[(u16, u16, u16)]) -> String {
    let range = |(first, last, port): &(u16, u16, u16)| {
        format!("*3\r\n:{first}\r\n:{last}\r\n*2\r\n+127.0.0.1\r\n:{port}\r\n")
    };
    format!("*{}\r\n{}", ranges.len(), ranges.iter().map(range).collect::<String>())
}
