//! What the tests of replication, durability and clusters share.

#![allow(dead_code, reason = "no test uses all of it")]

pub mod clients;
pub mod clock_shim;
pub mod commands;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use claw_testkit::{Server, digest, eventually, wait_for_offset};
use redis::{Cmd, Connection, ConnectionLike, Pipeline, Value};

use commands::Words;

/// How long to wait for what should come soon.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const TICK: Duration = Duration::from_millis(20);

/// A way of sending commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One by one.
    Plain,
    /// In `MULTI` and `EXEC`.
    Transaction,
    /// From a script, with `EVAL`.
    Script,
    /// From a function, with `FCALL`, after [`load_function`].
    Function,
}

impl Way {
    pub const ALL: [Way; 4] = [Way::Plain, Way::Transaction, Way::Script, Way::Function];
}

/// Runs the commands in its arguments, each with its number of words before it.
const RUN: &str = "
local function run(words)
  local answers, at = {}, 1
  while at <= #words do
    local count = tonumber(words[at])
    answers[#answers + 1] = redis.pcall(unpack(words, at + 1, at + count))
    at = at + count + 1
  end
  return answers
end
";

/// Loads the function that [`Way::Function`] calls.
pub fn load_function(conn: &mut Connection) {
    let code = format!(
        "#!lua name=claw_test\n{RUN}
         redis.register_function('run', function(keys, words) return run(words) end)"
    );
    let name: String =
        redis::cmd("FUNCTION").arg("LOAD").arg("REPLACE").arg(code).query(conn).unwrap();
    assert_eq!(name, "claw_test");
}

/// Sends the commands of several batches in one go; of those ways that can, each
/// batch is one unit. Returns the answer to every command, also if it is an
/// error.
pub fn send(conn: &mut Connection, way: Way, batches: &[Vec<Words>]) -> Vec<Value> {
    let mut pipe = Pipeline::new();
    for batch in batches {
        match way {
            Way::Plain => add(&mut pipe, batch),
            Way::Transaction => {
                pipe.cmd("MULTI");
                add(&mut pipe, batch);
                pipe.cmd("EXEC");
            }
            Way::Script => {
                pipe.cmd("EVAL").arg(format!("{RUN} return run(ARGV)")).arg(0).arg(framed(batch));
            }
            Way::Function => {
                pipe.cmd("FCALL").arg("run").arg(0).arg(framed(batch));
            }
        }
    }
    let answers: Vec<Value> = conn
        .req_packed_commands(&pipe.get_packed_pipeline(), 0, pipe.len())
        .unwrap_or_else(|e| panic!("no answers: {e}"));
    let answers: Vec<Value> = match way {
        Way::Plain => answers,
        // What is not an array is the answer to MULTI, or says QUEUED.
        _ => answers
            .into_iter()
            .filter_map(|answer| match answer {
                Value::Array(answers) => Some(answers),
                Value::ServerError(e) => panic!("a whole batch failed: {e:?}"),
                _ => None,
            })
            .flatten()
            .collect(),
    };
    assert_eq!(answers.len(), batches.iter().map(Vec::len).sum::<usize>(), "{way:?}");
    answers
}

fn add(pipe: &mut Pipeline, batch: &[Words]) {
    for words in batch {
        let mut cmd = Cmd::new();
        cmd.arg(words);
        pipe.add_command(cmd);
    }
}

/// Commands as [`RUN`] reads them.
fn framed(batch: &[Words]) -> Words {
    let frame =
        |words: &Words| [vec![words.len().to_string().into_bytes()], words.clone()].concat();
    batch.iter().flat_map(frame).collect()
}

/// Sends random commands in batches of five, and checks that errors are those
/// of the caller.
pub fn send_random(
    conn: &mut Connection,
    way: Way,
    count: u64,
    commands: &mut impl Iterator<Item = Words>,
) {
    for _ in 0..count.div_ceil(100) {
        let batches: Vec<Vec<Words>> =
            (0..20).map(|_| commands.by_ref().take(5).collect()).collect();
        for (answer, words) in send(conn, way, &batches).iter().zip(batches.concat()) {
            if let Value::ServerError(e) = answer {
                let text = format!("{} {}", e.code(), e.details().unwrap_or(""));
                assert!(
                    text.starts_with("ERR ") && !text.contains("internal error"),
                    "{}: {text}",
                    command_line(&words)
                );
            }
        }
    }
}

fn command_line(words: &Words) -> String {
    words.iter().map(|word| word.escape_ascii().to_string()).collect::<Vec<_>>().join(" ")
}

/// Keeps clients busy while something else happens. The work of a client is
/// called again and again, with the client's number, until that is over.
pub fn under_load<T>(
    clients: usize,
    work: impl Fn(usize) + Sync,
    meanwhile: impl FnOnce() -> T,
) -> T {
    /// Ends the load, also when the other thing panics.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = Stop(&over);
        for client in 0..clients {
            let (over, work) = (&over, &work);
            scope.spawn(move || {
                while !over.load(SeqCst) {
                    work(client);
                }
            });
        }
        meanwhile()
    })
}

/// Databases that random commands are sent to.
pub const DATABASES: [u32; 2] = [0, 3];

/// The keys of the databases: their fields and when they expire.
pub type Content = BTreeMap<(u32, Vec<u8>), (BTreeMap<Vec<u8>, Vec<u8>>, i64)>;

/// The content of a server that has only hashes. Selects the last database.
pub fn content(conn: &mut Connection) -> Content {
    let mut content = Content::new();
    for db in DATABASES {
        select(conn, db);
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(conn).unwrap();
        if keys.is_empty() {
            // The client refuses to send nothing.
            continue;
        }
        let mut pipe = Pipeline::new();
        for key in &keys {
            pipe.cmd("HGETALL").arg(key).cmd("PEXPIRETIME").arg(key);
        }
        let answers = conn.req_packed_commands(&pipe.get_packed_pipeline(), 0, pipe.len()).unwrap();
        for (key, answers) in keys.into_iter().zip(answers.chunks_exact(2)) {
            let fields = redis::from_redis_value(answers[0].clone()).unwrap();
            let expires = redis::from_redis_value(answers[1].clone()).unwrap();
            content.insert((db, key), (fields, expires));
        }
    }
    content
}

pub fn select(conn: &mut Connection, db: u32) {
    redis::cmd("SELECT").arg(db).exec(conn).unwrap();
}

/// Asserts that a replica comes to have what its master has, once nobody writes
/// any more but keys still expire: the same digest, and the same times of expiry,
/// of which a digest knows nothing.
pub fn assert_equal(master: &Server, replica: &Server) {
    let mut pair = [master.connection(), replica.connection()];
    let equal = |conns: &mut [Connection; 2]| {
        let [master, replica] = conns;
        digest(master) == digest(replica) && content(master) == content(replica)
    };
    let start = std::time::Instant::now();
    while start.elapsed() < PATIENCE {
        wait_for_offset(master, replica);
        if equal(&mut pair) {
            return;
        }
        thread::sleep(TICK);
    }
    let [ours, theirs] = pair.each_mut().map(content);
    let differences: Vec<_> = ours
        .iter()
        .filter(|(key, value)| theirs.get(*key) != Some(value))
        .map(|(key, value)| (key.0, key.1.escape_ascii().to_string(), value, theirs.get(key)))
        .take(3)
        .collect();
    panic!("{} keys and {}: {differences:#?}", ours.len(), theirs.len());
}

/// Deletes those of the keys that would expire within a minute, so that nothing
/// vanishes while servers are compared. Selects the last database.
pub fn settle(conn: &mut Connection, names: &[Vec<u8>]) {
    let script = "
        for _, key in ipairs(ARGV) do
          local left = redis.call('PTTL', key)
          if left >= 0 and left < 60000 then redis.call('UNLINK', key) end
        end
        return redis.call('DBSIZE')";
    for db in DATABASES {
        select(conn, db);
        let left: usize = redis::cmd("EVAL").arg(script).arg(0).arg(names).query(conn).unwrap();
        assert!(left >= names.len() / 20, "too little is left to compare: {left} keys");
    }
}

/// Fails if a server has crashed, or has told its log of a panic.
pub fn assert_sound(server: &Server) {
    let log = server.log();
    for sign in ["crashed by signal", "BUG REPORT", "panicked", "ASSERTION", "internal error"] {
        assert!(!log.contains(sign), "{log}");
    }
    assert!(server.is_alive(), "{log}");
}

/// The books on buckets that never refill. What clients were told of must be
/// what is gone from the buckets, to the token.
#[derive(Debug)]
pub struct Books {
    accounts: Vec<Account>,
}

/// The book on one bucket.
#[derive(Debug)]
pub struct Account {
    pub key: String,
    pub capacity: u64,
    /// Taken for certain.
    acknowledged: AtomicU64,
    /// In calls of which nobody knows whether they succeeded.
    unknown: AtomicU64,
}

impl Books {
    pub fn new(keys: impl IntoIterator<Item = String>, capacity: u64) -> Books {
        let account = |key| Account {
            key,
            capacity,
            acknowledged: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
        };
        Books { accounts: keys.into_iter().map(account).collect() }
    }

    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    pub fn account(&self, index: u64) -> &Account {
        &self.accounts[index as usize % self.accounts.len()]
    }

    pub fn acknowledged(&self) -> u64 {
        self.accounts.iter().map(|account| account.acknowledged.load(SeqCst)).sum()
    }

    pub fn unknown(&self) -> u64 {
        self.accounts.iter().map(|account| account.unknown.load(SeqCst)).sum()
    }

    /// Asserts that the buckets hold what they must, as told by `tokens`, which
    /// finds what a bucket has. From then on that is taken for certain.
    pub fn balance(&self, mut tokens: impl FnMut(&str) -> Option<u64>) {
        for Account { key, capacity, acknowledged, unknown } in &self.accounts {
            let gone = capacity - tokens(key).unwrap_or(*capacity);
            let (certain, perhaps) = (acknowledged.load(SeqCst), unknown.load(SeqCst));
            assert!(
                (certain..=certain + perhaps).contains(&gone),
                "{key}: {certain} tokens were granted and {perhaps} perhaps, but {gone} are gone"
            );
            acknowledged.store(gone, SeqCst);
            unknown.store(0, SeqCst);
        }
    }
}

impl Account {
    /// `CL.TAKE` of a number of tokens.
    pub fn take(&self, tokens: u64) -> Cmd {
        let mut cmd = redis::cmd("CL.TAKE");
        cmd.arg(&self.key).arg(tokens).arg("CAPACITY").arg(self.capacity).arg("REFILL").arg(0);
        cmd
    }

    pub fn granted(&self, tokens: u64) {
        self.acknowledged.fetch_add(tokens, SeqCst);
    }

    pub fn lost_sight(&self, tokens: u64) {
        self.unknown.fetch_add(tokens, SeqCst);
    }
}

/// `CL.TAKEALL` of the same number of tokens from each of some accounts.
pub fn take_all(accounts: &[&Account], tokens: u64) -> Cmd {
    let mut cmd = redis::cmd("CL.TAKEALL");
    for (index, account) in accounts.iter().enumerate() {
        if index > 0 {
            cmd.arg("AND");
        }
        cmd.arg(&account.key).arg(tokens);
        cmd.arg("CAPACITY").arg(account.capacity).arg("REFILL").arg(0);
    }
    cmd
}

/// Waits until clients have been granted this many tokens more.
pub fn more_granted(books: &Books, tokens: u64) {
    let target = books.acknowledged() + tokens;
    eventually(PATIENCE, TICK, "clients to be granted tokens", || books.acknowledged() >= target);
}

/// The whole tokens that the hash of a bucket holds.
pub fn tokens(conn: &mut dyn ConnectionLike, key: &str) -> Option<u64> {
    redis::cmd("HGET").arg(key).arg("tokens").query(conn).unwrap()
}

/// Whether a background save or rewrite is going on.
pub fn in_background(conn: &mut Connection) -> bool {
    ["rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_rewrite_scheduled"]
        .iter()
        .any(|field| claw_testkit::info_field(conn, "persistence", field).as_deref() != Some("0"))
}
