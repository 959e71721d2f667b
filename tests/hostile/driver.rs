//! Sends traffic on several connections at once and checks every answer.

use std::collections::VecDeque;
use std::fmt::Write;

use claw_testkit::{Server, info_field};

use crate::bucket::{self, State};
use crate::grammar::{self, Shape};
use crate::resp::{Conn, Reply, encode, words};
use crate::rng::Rng;
use crate::traffic::{CACHED, Expect, LIBRARY, Step, Traffic};

const LANES: usize = 3;
/// Answers that a connection may be waiting for before somebody reads them.
const PIPELINE: usize = 400;
const DATABASES: usize = 16;
/// How much of an argument is shown when something went wrong.
const SHOWN: usize = 120;

/// One connection.
struct Lane {
    conn: Conn,
    waiting: VecDeque<Step>,
    /// What `EXEC` will answer.
    queued: Vec<Expect>,
    aborted: bool,
}

pub struct Driver<'s> {
    server: &'s Server,
    seed: u64,
    traffic: Traffic,
    lanes: Vec<Lane>,
    /// Commands sent so far.
    pub sent: u64,
    /// How many of them were calls that were refused for lack of memory.
    pub starved: u64,
    /// Buckets whose fields were compared with what the call answered.
    pub audited: u64,
    /// Transactions that were never executed.
    dropped: u64,
}

impl<'s> Driver<'s> {
    pub fn new(server: &'s Server, seed: u64) -> Driver<'s> {
        let mut conn = Conn::open(&server.socket_path());
        let load = [words("FUNCTION LOAD"), vec![LIBRARY.into()]].concat();
        assert_eq!(conn.ask(&load), Reply::Bulk(b"hostile".to_vec()));
        let load = [words("SCRIPT LOAD"), vec![CACHED.into()]].concat();
        let Reply::Bulk(digest) = conn.ask(&load) else { panic!("no digest of the script") };
        let lane = || Lane {
            conn: Conn::open(&server.socket_path()),
            waiting: VecDeque::new(),
            queued: Vec::new(),
            aborted: false,
        };
        Driver {
            server,
            seed,
            traffic: Traffic { rng: Rng::new(seed), digest },
            lanes: (0..LANES).map(|_| lane()).collect(),
            sent: 0,
            starved: 0,
            audited: 0,
            dropped: 0,
        }
    }

    /// Sends at least so many commands and reads all answers. If it is to
    /// `squeeze`, memory gets short now and then.
    pub fn run(&mut self, commands: u64, squeeze: bool) {
        let end = self.sent + commands;
        let mut bursts = 0;
        while self.sent < end {
            self.burst();
            bursts += 1;
            if bursts % 50 == 0 {
                self.passer_by();
                // In the end there is enough again, and something to look at.
                let late = self.sent + commands / 10 > end;
                match squeeze {
                    true if late => self.limit_memory(0),
                    true => self.squeeze(),
                    false => {}
                }
            }
        }
        for lane in 0..self.lanes.len() {
            self.drain(lane, 0);
        }
        self.limit_memory(0);
    }

    /// Allows less memory than the server uses, or as much as it likes.
    fn squeeze(&mut self) {
        let used = info_field(&mut self.server.connection(), "memory", "used_memory");
        let used: usize = used.and_then(|used| used.parse().ok()).expect("memory is used");
        let limit = match self.traffic.rng.below(3) {
            0 => 0,
            _ => used - self.traffic.rng.below(400_000),
        };
        self.limit_memory(limit);
    }

    fn limit_memory(&self, limit: usize) {
        let line = format!("CONFIG SET maxmemory {limit}");
        let reply = Conn::open(&self.server.socket_path()).ask(&words(&line));
        assert_eq!(reply, Reply::Simple("OK".into()), "{line}");
    }

    /// Sends some episodes on one of the connections. The answers are read
    /// later, while other connections send.
    fn burst(&mut self) {
        let lane = self.traffic.rng.below(self.lanes.len());
        let mut steps = Vec::new();
        for _ in 0..=self.traffic.rng.below(40) {
            self.traffic.episode(&mut steps);
        }
        let mut bytes = Vec::new();
        for step in &steps {
            encode(&mut bytes, &step.args);
        }
        self.sent += steps.len() as u64;
        // In two pieces, so that the server sees commands cut in two.
        let cut = self.traffic.rng.below(bytes.len());
        self.lanes[lane].waiting.extend(steps);
        for piece in [&bytes[..cut], &bytes[cut..]] {
            if let Err(e) = self.lanes[lane].conn.send(piece) {
                self.fail(lane, &format!("cannot send: {e}"));
            }
        }
        self.drain(lane, PIPELINE);
    }

    /// Reads answers until only so many are missing.
    fn drain(&mut self, lane: usize, leave: usize) {
        while self.lanes[lane].waiting.len() > leave {
            if matches!(self.lanes[lane].waiting[0].expect, Expect::Silence) {
                self.lanes[lane].waiting.pop_front();
                continue;
            }
            let reply = match self.lanes[lane].conn.reply() {
                Ok(reply) => reply,
                Err(e) => self.fail(lane, &format!("no answer: {e}")),
            };
            if let Err(why) = self.check(lane, &reply) {
                self.fail(lane, &why);
            }
            self.lanes[lane].waiting.pop_front();
        }
    }

    /// Checks the answer to the first waiting command.
    fn check(&mut self, lane: usize, reply: &Reply) -> Result<(), String> {
        let lane = &mut self.lanes[lane];
        let step = &lane.waiting[0];
        if matches!(reply, Reply::Error(line) if line.starts_with("OOM ")) {
            // What is queued needs memory, whatever it is.
            let queued = matches!(step.expect, Expect::Queued(_));
            let reads = grammar::reads_only(&step.args);
            grammar::ensure(queued || !reads, "reading needs no memory")?;
            self.starved += 1;
        }
        match (&step.expect, reply) {
            (Expect::Begin, Reply::Simple(ok)) if ok == "OK" => {
                lane.queued.clear();
                lane.aborted = false;
                Ok(())
            }
            (Expect::Queued(later), Reply::Simple(queued)) if queued == "QUEUED" => {
                lane.queued.push((**later).clone());
                Ok(())
            }
            (Expect::Queued(_), Reply::Error(_)) => {
                lane.aborted = true;
                Ok(())
            }
            (Expect::Exec | Expect::Audit, Reply::Error(line)) => {
                let aborted = lane.aborted || line.contains("OOM ");
                grammar::ensure(aborted && line.starts_with("EXECABORT "), "aborted for nothing")
            }
            // A watched key has changed.
            (Expect::Exec, Reply::Nil) => Ok(()),
            (Expect::Exec | Expect::Audit, Reply::Array(items)) => {
                grammar::ensure(items.len() == lane.queued.len(), "not one answer for each")?;
                for (expect, item) in lane.queued.iter().zip(items) {
                    check(expect, item)?;
                }
                if matches!(step.expect, Expect::Audit) && audit(&lane.queued, items)? {
                    self.audited += 1;
                }
                Ok(())
            }
            (Expect::Discard, Reply::Simple(ok)) if ok == "OK" => Ok(()),
            (expect, reply) => check(expect, reply),
        }
    }

    /// A connection that is cut off, killed, or sends garbage.
    fn passer_by(&mut self) {
        let mut conn = Conn::open(&self.server.socket_path());
        let mut steps = Vec::new();
        while steps.len() < 20 {
            self.traffic.episode(&mut steps);
        }
        // Only calls, whose answers are the same on any connection.
        steps.retain(|step| matches!(step.expect, Expect::Call(..)));
        let mut bytes = Vec::new();
        for step in &steps {
            encode(&mut bytes, &step.args);
        }
        self.sent += steps.len() as u64;
        let rng = &mut self.traffic.rng;
        match rng.below(4) {
            // In the middle of a transaction.
            0 => {
                let mark = format!("dropped:{}", self.dropped);
                self.dropped += 1;
                let mut before = Vec::new();
                encode(&mut before, &words("MULTI"));
                encode(&mut before, &words(&format!("CL.TAKE {mark}")));
                encode(&mut before, &words(&format!("CL.POLICY {mark} WEIGHT 2")));
                before.extend(bytes);
                if rng.percent(50) {
                    before.truncate(rng.below(before.len()));
                }
                conn.send(&before).expect("the server reads");
                self.sent += 3;
            }
            // In the middle of a command.
            1 => {
                let mut last = Vec::new();
                encode(&mut last, &words("CL.TAKE bucket:1 1 CAPACITY 10 REFILL 5 INTERVAL 1000"));
                last.truncate(rng.below(last.len()));
                bytes.extend(last);
                conn.send(&bytes).expect("the server reads");
                self.passer_by_reads(&mut conn, &steps);
            }
            // By somebody else, while it sends.
            2 => {
                let Reply::Int(id) = conn.ask(&words("CLIENT ID")) else { panic!("no id") };
                conn.send(&bytes).expect("the server reads");
                let mut other = Conn::open(&self.server.socket_path());
                let killed = other.ask(&words(&format!("CLIENT KILL ID {id}")));
                assert_eq!(killed, Reply::Int(1));
                self.sent += 2;
                for step in &steps {
                    let Ok(reply) = conn.reply() else { break };
                    self.check_alone(step, &reply);
                }
            }
            // By itself, with what is no command.
            _ => {
                let garbage: &[&[u8]] = &[
                    b"*3\r\n$-5\r\n",
                    b"*99999999999\r\n",
                    b"*-7\r\n",
                    b"*1\r\n$99999999999\r\n",
                    b"*1\r\nfoo\r\n",
                    b"\r\n\r\n\n",
                    b"\"unbalanced\r\n",
                    b"CL.TAKE inline 1\r\n",
                    b"*2\r\n$7\r\nCL.TAKE\r\n",
                    b"%1\r\n",
                    b"*0\r\n",
                    b"\0\0\0\0\r\n",
                    b"*2\r\n$7\r\nCL.TAKE\r\n$999\r\nx\r\n",
                    b"cl.take '%s' +5\r\n",
                ];
                bytes.extend_from_slice(rng.pick(garbage));
                let len = rng.below(300);
                bytes.extend(rng.bytes(len));
                conn.send(&bytes).expect("the server reads");
                self.passer_by_reads(&mut conn, &steps);
                conn.finish();
                // Whatever it says to that, it ends.
                while conn.reply().is_ok() {}
            }
        }
    }

    fn passer_by_reads(&self, conn: &mut Conn, steps: &[Step]) {
        for step in steps {
            match conn.reply() {
                Ok(reply) => self.check_alone(step, &reply),
                Err(e) => panic!("{}\nno answer: {e}\n{}", self.state(), show_step(step)),
            }
        }
    }

    fn check_alone(&self, step: &Step, reply: &Reply) {
        if let Err(why) = check(&step.expect, reply) {
            panic!("{}\n{why}: {reply:?}\n{}", self.state(), show_step(step));
        }
    }

    /// Looks at every key there is, while nobody else does anything, and says
    /// how many they were.
    pub fn scan(&self) -> usize {
        let mut conn = Conn::open(&self.server.socket_path());
        let mut seen = 0;
        for database in 0..DATABASES {
            conn.ask(&words(&format!("SELECT {database}")));
            let mut cursor = b"0".to_vec();
            loop {
                let page =
                    conn.ask(&[b"SCAN".to_vec(), cursor, b"COUNT".to_vec(), b"500".to_vec()]);
                let Reply::Array(page) = page else { panic!("SCAN answers {page:?}") };
                let [next, Reply::Array(keys)] = page.as_slice() else {
                    panic!("SCAN answers {page:?}");
                };
                let keys: Vec<&[u8]> = keys.iter().filter_map(Reply::bytes).collect();
                self.look_at(&mut conn, &keys);
                seen += keys.len();
                cursor = next.bytes().expect("a cursor is a string").to_vec();
                if cursor == b"0" {
                    break;
                }
            }
        }
        seen
    }

    fn look_at(&self, conn: &mut Conn, keys: &[&[u8]]) {
        let peek = |key: &[u8]| [words("CL.PEEK"), vec![key.to_vec(), b"0".to_vec()]].concat();
        let mut bytes = Vec::new();
        for key in keys {
            encode(&mut bytes, &words("MULTI"));
            encode(&mut bytes, &[b"TYPE".to_vec(), key.to_vec()]);
            encode(&mut bytes, &peek(key));
            for question in bucket::questions(key) {
                encode(&mut bytes, &question);
            }
            encode(&mut bytes, &words("EXEC"));
        }
        conn.send(&bytes).expect("the server reads");
        for key in keys {
            let answers = loop {
                if let Reply::Array(answers) = conn.reply().expect("the server answers") {
                    break answers;
                }
            };
            if let Err(why) = look(key, &peek(key), &answers) {
                panic!("{}\nkey {}: {why}\n{answers:?}", self.state(), show(key));
            }
        }
    }

    /// Whether the connections that went away in a transaction left anything.
    pub fn dropped_left_nothing(&self) {
        let mut conn = Conn::open(&self.server.socket_path());
        let marks: Vec<String> = (0..self.dropped).map(|i| format!("dropped:{i}")).collect();
        assert!(!marks.is_empty());
        assert_eq!(conn.ask(&words(&format!("EXISTS {}", marks.join(" ")))), Reply::Int(0));
    }

    /// What is needed to find out more.
    fn state(&self) -> String {
        let log = self.server.log();
        let tail: Vec<&str> = log.lines().rev().take(60).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        format!(
            "CLAW_SEED={}, after {} commands, server {}\n{}",
            self.seed,
            self.sent,
            if self.server.is_alive() { "alive" } else { "DEAD" },
            tail.join("\n")
        )
    }

    fn fail(&self, lane: usize, why: &str) -> ! {
        let mut text = self.state();
        for (index, other) in self.lanes.iter().enumerate() {
            writeln!(text, "\nconnection {index} waits for").expect("writing succeeds");
            for step in other.waiting.iter().take(if index == lane { 30 } else { 5 }) {
                writeln!(text, "  {}", show_step(step)).expect("writing succeeds");
            }
        }
        panic!("{text}\non connection {lane}: {why}");
    }
}

/// Checks an answer that needs no knowledge of the connection.
fn check(expect: &Expect, reply: &Reply) -> Result<(), String> {
    match (expect, reply) {
        (_, Reply::Error(line)) if line.contains("internal error") => Err("a panic".into()),
        (Expect::Anything, _) => Ok(()),
        (Expect::Ok, Reply::Simple(ok)) if ok == "OK" => Ok(()),
        (Expect::Error, Reply::Error(_)) => Ok(()),
        (Expect::Cached(..), Reply::Error(line)) if line.starts_with("NOSCRIPT ") => Ok(()),
        (Expect::Call(args, shape) | Expect::Cached(args, shape), reply) => {
            grammar::check(args, shape, reply)
                .map_err(|why| format!("{why}: {} answered {}", show_args(args), show_reply(reply)))
        }
        (Expect::Keys(keys), Reply::Array(found)) => {
            let same = found.iter().map(Reply::bytes).eq(keys.iter().map(|k| Some(k.as_slice())));
            grammar::ensure(same, "the server finds other keys")
        }
        _ => Err(format!("expected {expect:?}, not {}", show_reply(reply))),
    }
}

/// Compares what a call has written with what it answered; `false` if it has
/// written nothing.
fn audit(queued: &[Expect], items: &[Reply]) -> Result<bool, String> {
    let call = queued.len() / 2;
    let (Expect::Call(args, shape), Some(ints)) = (&queued[call], items[call].ints()) else {
        return Ok(false);
    };
    // Of one key, behind the command's name.
    let key = &args[1];
    let (before, after) = (State::new(key, &items[..call])?, State::new(key, &items[call + 1..])?);
    let [first, capacity, remaining, ..] = ints[..] else { return Err("too short".into()) };
    // A refused call that brings no policy writes nothing.
    let (moved, refused) = match *shape {
        Shape::Take { policy, .. } => (first, first == 0 && !policy),
        Shape::Settle { reserved, used, .. } if first < 0 => (used as i64 - reserved as i64, false),
        Shape::Settle { reserved, used, policy } => {
            (first, first == 0 && used >= reserved && !policy)
        }
        Shape::Give { tokens } => (if first > 0 { -(tokens as i64) } else { 0 }, false),
        Shape::Throttle { quantity } if quantity > 0 && first == 0 => (quantity, false),
        Shape::Throttle { .. } => (0, false),
        _ => (0, false),
    };
    let checked = if moved != 0 {
        after
            .check_written(&before, capacity, remaining)
            .and_then(|()| after.check_moved(&before, moved, capacity))
    } else if refused {
        after.check_untouched(&before)
    } else {
        Ok(())
    };
    checked.map_err(|why| {
        format!("{why}: {} answered {ints:?}\n{before:?}\n{after:?}", show_args(args))
    })?;
    Ok(moved != 0)
}

/// Checks one key from what `TYPE`, `CL.PEEK` and the questions answer.
fn look(key: &[u8], peek: &[Vec<u8>], answers: &[Reply]) -> Result<(), String> {
    let Reply::Simple(kind) = &answers[0] else { return Err("it has no type".into()) };
    let peeked = &answers[1];
    grammar::check(peek, &grammar::shape(peek), peeked)?;
    if kind != "hash" && kind != "none" {
        let refused = matches!(peeked, Reply::Error(line) if line.starts_with("WRONGTYPE "));
        return grammar::ensure(refused, "not a hash, but not refused");
    }
    let state = State::new(key, &answers[2..])?;
    let faults = state.faults();
    match peeked {
        Reply::Error(line) => {
            let named = |field: &&str| line.contains(&format!(": field '{field}' holds '"));
            grammar::ensure(line.contains(&grammar::quoted(key)), "the error names another key")?;
            grammar::ensure(faults.iter().any(named), &format!("the faults are {faults:?}"))
        }
        _ => {
            grammar::ensure(faults.is_empty(), &format!("{faults:?} ought to be refused"))?;
            state.check_peek(&peeked.ints().unwrap_or_default())
        }
    }
}

fn show(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(SHOWN)];
    let cut = if shown.len() < bytes.len() { "..." } else { "" };
    format!("\"{}\"{cut}", shown.escape_ascii())
}

fn show_reply(reply: &Reply) -> String {
    format!("{reply:?}").chars().take(2_000).collect()
}

fn show_step(step: &Step) -> String {
    show_args(&step.args)
}

fn show_args(args: &[Vec<u8>]) -> String {
    args.iter().take(20).map(|arg| show(arg)).collect::<Vec<_>>().join(" ")
}
