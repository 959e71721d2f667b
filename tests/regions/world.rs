//! Several regions, the lines between them, and clients.

use crate::line::Line;
use claw_core::codec;
use claw_core::debits::Counter;
use claw_testkit::{Builder, Server, ask, cmd, eventually, free_port, info_field, ints};
use redis::{Connection, Value};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

pub const PATIENCE: Duration = Duration::from_secs(30);
pub const TICK: Duration = Duration::from_millis(20);

/// Regions `r0`, `r1`, ..; each is a peer of every other.
pub struct World {
    pub servers: Vec<Server>,
    /// `lines[from][to]`
    lines: Vec<Vec<Option<Line>>>,
}

/// What a region is started with, besides its name and peers.
pub type Adjust<'a> = &'a dyn Fn(usize, Builder) -> Builder;

impl World {
    pub fn start(regions: usize, delay: Duration) -> World {
        World::start_with(regions, delay, &|_, builder| builder)
    }

    pub fn start_with(regions: usize, delay: Duration, adjust: Adjust<'_>) -> World {
        let ports: Vec<u16> = (0..regions).map(|_| free_port()).collect();
        let line = |from: usize, to: usize| (from != to).then(|| Line::to(ports[to], delay));
        let lines: Vec<Vec<Option<Line>>> =
            (0..regions).map(|from| (0..regions).map(|to| line(from, to)).collect()).collect();
        let servers = (0..regions)
            .map(|region| {
                let builder = Server::builder()
                    .port(ports[region])
                    .config("enable-module-command", "yes")
                    .config("claw.replica-id", format!("r{region}"))
                    .config_args("claw.peers", [peers(&lines[region])]);
                adjust(region, builder).start()
            })
            .collect();
        let world = World { servers, lines };
        world.wait_until_connected();
        world
    }

    pub fn connection(&self, region: usize) -> Connection {
        self.servers[region].connection()
    }

    /// What `claw.peers` of a region is.
    pub fn peers(&self, region: usize) -> String {
        peers(&self.lines[region])
    }

    pub fn wait_until_connected(&self) {
        for (region, server) in self.servers.iter().enumerate() {
            let conn = &mut server.connection();
            let others = self.servers.len() - 1;
            eventually(PATIENCE, TICK, &format!("r{region} to be connected"), || {
                let heard = status(conn, "heard").len() == others;
                heard
                    && field(conn, "sync_peers_connected") == others as u64
                    && share(conn) == 1000
                    && status(conn, "peers").iter().all(|peer| peer["lacking"] == "no")
            });
        }
    }

    /// Cuts or heals the lines between two regions, both ways.
    pub fn set_cut(&self, a: usize, b: usize, cut: bool) {
        for (from, to) in [(a, b), (b, a)] {
            self.set_unheard(from, to, cut);
        }
    }

    /// Cuts the line by which `to` hears `from`, or heals it.
    pub fn set_unheard(&self, from: usize, to: usize, cut: bool) {
        self.lines[from][to].as_ref().unwrap().set_cut(cut);
    }

    /// Has what `from` says to `to` arrive otherwise.
    pub fn set_misheard(&self, from: usize, to: usize, bytes: Option<[&'static [u8]; 2]>) {
        self.lines[from][to].as_ref().unwrap().set_misheard(bytes);
    }

    /// How many bytes the lines between two regions carry in a second, each way.
    pub fn set_speed(&self, a: usize, b: usize, bytes_per_second: u64) {
        for (from, to) in [(a, b), (b, a)] {
            self.lines[from][to].as_ref().unwrap().set_speed(bytes_per_second);
        }
    }

    /// Waits until nothing is under way. All regions have to be connected, or to be
    /// about to.
    pub fn wait_until_quiet(&self) {
        self.wait_until_sent();
        // What that has made regions pass on.
        self.wait_until_sent();
    }

    /// Waits until all peers have acknowledged what any region has noted by now.
    fn wait_until_sent(&self) {
        let mut conns: Vec<Connection> = self.servers.iter().map(Server::connection).collect();
        let before: Vec<Vec<u64>> = conns.iter_mut().map(rounds).collect();
        for (conn, before) in conns.iter_mut().zip(before) {
            eventually(PATIENCE, TICK, "all to be sent", || {
                // The round under way may lack what was noted last, and so may one
                // that it was already time for.
                let now = rounds(conn);
                let enough = now.iter().zip(&before).all(|(now, before)| *now >= before + 3);
                enough && field(conn, "sync_queue") == 0
            });
        }
    }

    /// The counters of a bucket, which have to be the same in every region.
    pub fn entries(&self, key: &str) -> BTreeMap<String, Counter> {
        let mut all: Vec<_> =
            (0..self.servers.len()).map(|r| entries(&mut self.connection(r), key)).collect();
        let first = all.remove(0);
        for other in all {
            assert_eq!(other, first, "the counters of {key}");
        }
        first
    }

    /// The sum of all tokens taken and not given back, as every region knows it.
    pub fn spent(&self, key: &str) -> u64 {
        let entries = self.entries(key);
        let sum = |of: fn(&Counter) -> u64| entries.values().map(of).sum::<u64>();
        (sum(|counter| counter.spent) - sum(|counter| counter.refunded)) / 1_000_000
    }

    /// Tokens left, as each region sees them.
    pub fn left(&self, look: &str) -> Vec<i64> {
        (0..self.servers.len()).map(|r| ints(&mut self.connection(r), look)[2]).collect()
    }

    /// Sees to it that two regions have the same tokens left of a bucket that refills
    /// meanwhile, but for `apart`.
    pub fn agree_on(&self, look: &str, apart: i64) {
        let (one, other) = (&mut self.connection(0), &mut self.connection(1));
        // The other in between.
        let left = [ints(one, look)[2], ints(other, look)[2], ints(one, look)[2]];
        assert!((left[0] - apart..=left[2] + apart).contains(&left[1]), "{left:?}");
    }

    pub fn no_warnings(&self) {
        for server in &self.servers {
            let told: Vec<String> = server.warnings();
            assert_eq!(told, Vec::<String>::new());
        }
    }
}

fn peers(lines: &[Option<Line>]) -> String {
    let url = |line: &Line| format!("redis://127.0.0.1:{}", line.port());
    lines.iter().flatten().map(url).collect::<Vec<_>>().join(" ")
}

/// Nobody is silent for anybody, and all admit the whole limit.
pub fn all_whole(conns: &mut [Connection]) -> bool {
    conns.iter_mut().all(|conn| share(conn) == 1_000 && field(conn, "sync_peers_silent") == 0)
}

/// A signal, such as `-STOP`.
pub fn signal(server: &Server, signal: &str) {
    let sent = Command::new("kill").args([signal, &server.pid().to_string()]).status();
    assert!(sent.unwrap().success());
}

/// A number of `INFO claw`.
pub fn field(conn: &mut Connection, name: &str) -> u64 {
    info_field(conn, "claw", &format!("claw_{name}")).unwrap().parse().unwrap()
}

/// A list of `CL.SYNC STATUS`, its values as text.
pub fn status(conn: &mut Connection, list: &str) -> Vec<BTreeMap<String, String>> {
    let status: BTreeMap<String, Value> = ask(conn, "CL.SYNC STATUS");
    let rows: Vec<BTreeMap<String, String>> =
        redis::from_redis_value(status[list].clone()).unwrap();
    rows
}

/// What a server may admit of the limit, in permille.
pub fn share(conn: &mut Connection) -> u64 {
    field(conn, "sync_share_permille")
}

/// Whether each peer that a server knows is silent, in words.
pub fn silent(conn: &mut Connection) -> String {
    let words: Vec<String> =
        status(conn, "heard").iter().map(|peer| peer["silent"].clone()).collect();
    words.join(" ")
}

/// How many rounds each peer has answered.
fn rounds(conn: &mut Connection) -> Vec<u64> {
    status(conn, "peers").iter().map(|peer| peer["rounds"].parse().unwrap()).collect()
}

pub fn entries(conn: &mut Connection, key: &str) -> BTreeMap<String, Counter> {
    let Value::BulkString(blob) = cmd(conn, &format!("CL.STATE {key}")).unwrap() else {
        return BTreeMap::new();
    };
    let decoded = codec::decode(&blob, u64::MAX / 2).unwrap();
    let accounts = decoded.besides.debits.map(|debits| debits.accounts).unwrap_or_default();
    accounts.into_iter().map(|account| (account.id.to_string(), account.counter)).collect()
}

/// What clients of one region were told.
#[derive(Default)]
pub struct Told {
    pub granted: AtomicU64,
    pub refused: AtomicU64,
    /// The longest that an answer came after it was due, in microseconds.
    late_us: AtomicU64,
}

/// For how many seconds the machine had no time for the clients, at the worst.
pub fn stall(told: &[Told]) -> f64 {
    let longest = told.iter().map(|told| told.late_us.load(SeqCst)).max();
    Duration::from_micros(longest.unwrap_or(0)).as_secs_f64()
}

/// Ends what runs beside a test when the test does, be it in a panic: a scope waits
/// for its threads in any case.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// A client that takes one token at a time, at most `per_second` times a second,
/// until `stop`; whatever it is told, no reply may show more than the capacity.
pub fn client(server: &Server, take: &str, per_second: f64, told: &Told, stop: &AtomicBool) {
    let conn = &mut server.connection();
    let step = Duration::from_secs_f64(1.0 / per_second);
    let mut due = Instant::now();
    while !stop.load(SeqCst) {
        let [taken, capacity, remaining, ..] = ints(conn, take)[..] else { panic!("five numbers") };
        // What several took at once may be more than there was.
        assert!(
            remaining <= capacity && (taken == 0 || remaining >= 0),
            "{remaining} of {capacity}"
        );
        let counter = if taken == 1 { &told.granted } else { &told.refused };
        counter.fetch_add(1, SeqCst);
        let now = Instant::now();
        let late = now.saturating_duration_since(due);
        told.late_us.fetch_max(u64::try_from(late.as_micros()).unwrap(), SeqCst);
        // What a stall has kept it from is not made up for: that would be a burst,
        // which a region may have to refuse.
        due = (due + step).max(now);
        thread::sleep(due - now);
    }
}

/// Looks at the hash of a bucket until `stop`: never above its capacity.
pub fn sampler(server: &Server, key: &str, capacity: f64, stop: &AtomicBool) {
    let conn = &mut server.connection();
    while !stop.load(SeqCst) {
        let tokens: Option<f64> = ask(conn, &format!("HGET {key} tokens"));
        assert!(tokens.is_none_or(|tokens| tokens <= capacity), "{tokens:?}");
        thread::sleep(Duration::from_millis(5));
    }
}
