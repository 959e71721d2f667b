//! What is measured: one command each, under random keys of its own.

use crate::error::{Error, Result};
use redis::{Cmd, Connection, Value};
use std::time::{SystemTime, UNIX_EPOCH};

/// Keys of a workload: 0 to this, not included.
pub const KEYS: u64 = 100_000;

/// What redis-benchmark replaces by a random number of [`RANDOM_DIGITS`] digits.
const RANDOM: &str = "__rand_int__";
const RANDOM_DIGITS: usize = 12;

/// Stands for the SHA1 of the Lua script.
const SCRIPT: &str = "{script}";

/// Stands for the first 4 digits of a timestamp in microseconds that is ahead of
/// the clock, by 12 days at the most: nothing refills, so that merges differ.
const AHEAD: &str = "{ahead}";

/// Stands for [`RECORD_BYTES`].
const RECORD: &str = "{record}";

/// A bucket as the module gives it to functions. Both times are doubles here,
/// for an argument of redis-benchmark must not contain a zero byte.
const RECORD_BYTES: &[u8] = b"\x88\xa6tokens\xcd\x01\xf4\
    \xa9timestamp\xcb\x43\x19\x82\xfe\x12\x1e\x44\xa4\
    \xaauserWeight\x01\xa9available\xcd\x01\xf4\xa8capacity\xcd\x03\xe8\xa6refill\x05\
    \xa8interval\xcd\x03\xe8\xa3now\xcb\x43\x19\x82\xfe\x12\x1e\x44\xa4";

/// The merge function of [`Workload::MergeFunction`] and [`Workload::Function`].
pub const FUNCTION: &str = include_str!("../../examples/merge/premium-first.lua");

/// The rules of [`Workload::Rule`] and [`Workload::Remainder`].
pub const RULES: &str = "u:* 1000000 100000/60000; v:* 2000 5/900000";

/// The script that most people use for token buckets.
pub const LUA: &str = include_str!("token_bucket.lua");

/// A workload, by the order in the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// What the server does at most.
    Ping,
    /// The least write.
    Incr,
    /// The write that every take makes.
    Hset,
    /// A take that is granted, default policy.
    Take,
    /// A take that is refused, default policy.
    Refused,
    /// A take that brings its own policy.
    Policy,
    /// A take under a rule for its key.
    Rule,
    /// The same, where no refill is a whole number of millionths.
    Remainder,
    /// A take from a bucket with a pinned policy.
    Pinned,
    /// Our CL.THROTTLE.
    Throttle,
    /// redis-cell's CL.THROTTLE.
    Cell,
    /// The Lua script, with the default policy's numbers.
    Lua,
    /// A merge by a built-in strategy; about half of them change the bucket.
    MergeFields,
    /// A merge by a function; most of them change nothing.
    MergeFunction,
    /// The function of that merge alone.
    Function,
}

/// Workloads that do alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// A limit whose numbers the caller sends.
    Call,
    /// A limit whose numbers the server has.
    Server,
    /// Merges.
    Merge,
    /// No limit.
    Plain,
}

impl Group {
    /// The title in tables.
    pub fn title(self) -> &'static str {
        match self {
            Group::Call => "The policy in the call",
            Group::Server => "The policy on the server",
            Group::Merge => "Merges",
            Group::Plain => "No limit",
        }
    }
}

/// What becomes of a workload's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// It has none.
    None,
    /// They are missing before every measurement and removed after it.
    Fresh,
    /// They are made once and stay.
    Kept,
}

/// Which of our module's counters the calls of a workload are to be found in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// They are not calls of our module.
    None,
    /// `claw_taken`.
    Taken,
    /// `claw_refused`.
    Refused,
}

/// How a right answer begins.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Pong,
    Integer,
    Numbers(&'static [i64]),
    Merged,
    Text,
}

struct Spec {
    name: &'static str,
    title: &'static str,
    command: &'static str,
    answer: Answer,
    /// What TYPE says of the key.
    kind: &'static str,
    keys: Keys,
    counter: Counter,
}

impl Workload {
    /// All of them, by groups.
    pub const ALL: [Workload; 15] = [
        Workload::Policy,
        Workload::Throttle,
        Workload::Cell,
        Workload::Lua,
        Workload::Rule,
        Workload::Remainder,
        Workload::Take,
        Workload::Refused,
        Workload::Pinned,
        Workload::MergeFields,
        Workload::MergeFunction,
        Workload::Function,
        Workload::Ping,
        Workload::Incr,
        Workload::Hset,
    ];

    /// What it may be compared with like for like.
    pub fn group(self) -> Group {
        match self {
            Workload::Policy | Workload::Throttle | Workload::Cell | Workload::Lua => Group::Call,
            Workload::Rule
            | Workload::Remainder
            | Workload::Take
            | Workload::Refused
            | Workload::Pinned => Group::Server,
            Workload::MergeFields | Workload::MergeFunction | Workload::Function => Group::Merge,
            Workload::Ping | Workload::Incr | Workload::Hset => Group::Plain,
        }
    }

    const fn spec(self) -> Spec {
        match self {
            Workload::Ping => Spec {
                name: "ping",
                title: "PING",
                command: "PING",
                answer: Answer::Pong,
                kind: "none",
                keys: Keys::None,
                counter: Counter::None,
            },
            Workload::Incr => Spec {
                name: "incr",
                title: "INCR",
                command: "INCR i:__rand_int__",
                answer: Answer::Integer,
                kind: "string",
                keys: Keys::Fresh,
                counter: Counter::None,
            },
            Workload::Hset => Spec {
                name: "hset",
                title: "HSET, two fields",
                command: "HSET h:__rand_int__ tokens 999 timestamp 1795225538761000",
                answer: Answer::Integer,
                kind: "hash",
                keys: Keys::Fresh,
                counter: Counter::None,
            },
            Workload::Take => Spec {
                name: "take",
                title: "CL.TAKE",
                command: "CL.TAKE t:__rand_int__",
                answer: Answer::Numbers(&[1, 1_000]),
                kind: "hash",
                keys: Keys::Fresh,
                counter: Counter::Taken,
            },
            Workload::Refused => Spec {
                name: "refused",
                title: "CL.TAKE, refused",
                command: "CL.TAKE r:__rand_int__",
                answer: Answer::Numbers(&[0, 1_000, 0]),
                kind: "hash",
                keys: Keys::Kept,
                counter: Counter::Refused,
            },
            Workload::Policy => Spec {
                name: "policy",
                title: "CL.TAKE, policy in the call",
                command: "CL.TAKE o:__rand_int__ CAPACITY 1000000 REFILL 100000 INTERVAL 60000",
                answer: Answer::Numbers(&[1, 1_000_000]),
                kind: "hash",
                keys: Keys::Fresh,
                counter: Counter::Taken,
            },
            Workload::Rule => Spec {
                name: "rule",
                title: "CL.TAKE, rule",
                command: "CL.TAKE u:__rand_int__",
                answer: Answer::Numbers(&[1, 1_000_000]),
                kind: "hash",
                keys: Keys::Fresh,
                counter: Counter::Taken,
            },
            Workload::Remainder => Spec {
                name: "remainder",
                title: "CL.TAKE, rule, remainder",
                command: "CL.TAKE v:__rand_int__",
                answer: Answer::Numbers(&[1, 2_000]),
                kind: "hash",
                keys: Keys::Fresh,
                counter: Counter::Taken,
            },
            Workload::Pinned => Spec {
                name: "pinned",
                title: "CL.TAKE, pinned policy",
                command: "CL.TAKE p:__rand_int__",
                answer: Answer::Numbers(&[1, 1_000_000]),
                kind: "hash",
                keys: Keys::Kept,
                counter: Counter::Taken,
            },
            Workload::Throttle => Spec {
                name: "throttle",
                title: "CL.THROTTLE",
                command: "CL.THROTTLE q:__rand_int__ 999 300 60",
                answer: Answer::Numbers(&[0, 1_000]),
                kind: "hash",
                keys: Keys::Fresh,
                counter: Counter::Taken,
            },
            Workload::Cell => Spec {
                name: "cell",
                title: "redis-cell CL.THROTTLE",
                command: "CL.THROTTLE c:__rand_int__ 999 300 60",
                answer: Answer::Numbers(&[0, 1_000]),
                kind: "string",
                keys: Keys::Fresh,
                counter: Counter::None,
            },
            Workload::Lua => Spec {
                name: "lua",
                title: "Lua token bucket",
                command: "EVALSHA {script} 1 l:__rand_int__ 1000 5",
                answer: Answer::Numbers(&[1, 1_000]),
                kind: "hash",
                keys: Keys::Fresh,
                counter: Counter::None,
            },
            Workload::MergeFields => Spec {
                name: "merge",
                title: "CL.MERGE FIELDS",
                command: "CL.MERGE m:__rand_int__ FIELDS tokens 500 \
                          timestamp {ahead}__rand_int__ STRATEGY lww",
                answer: Answer::Merged,
                kind: "hash",
                keys: Keys::Fresh,
                counter: Counter::None,
            },
            Workload::MergeFunction => Spec {
                name: "mergefn",
                title: "CL.MERGE FIELDS, fn:",
                command: "CL.MERGE n:__rand_int__ FIELDS tokens 500 \
                          timestamp {ahead}__rand_int__ STRATEGY fn:premium_first",
                answer: Answer::Merged,
                kind: "hash",
                keys: Keys::Kept,
                counter: Counter::None,
            },
            Workload::Function => Spec {
                name: "fcall",
                title: "FCALL_RO, same function",
                command: "FCALL_RO premium_first 0 {record} {record}",
                answer: Answer::Text,
                kind: "none",
                keys: Keys::None,
                counter: Counter::None,
            },
        }
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// The name in tables.
    pub fn title(self) -> &'static str {
        self.spec().title
    }

    /// What becomes of its keys.
    pub fn keys(self) -> Keys {
        self.spec().keys
    }

    /// The counter that has to count its calls.
    pub fn counter(self) -> Counter {
        self.spec().counter
    }

    /// Whether it calls a command of our module.
    pub fn is_ours(self) -> bool {
        match self {
            Workload::Take
            | Workload::Refused
            | Workload::Policy
            | Workload::Rule
            | Workload::Remainder
            | Workload::Pinned
            | Workload::Throttle
            | Workload::MergeFields
            | Workload::MergeFunction => true,
            Workload::Ping
            | Workload::Incr
            | Workload::Hset
            | Workload::Cell
            | Workload::Lua
            | Workload::Function => false,
        }
    }

    /// The command as the server's statistics call it.
    pub fn command_name(self) -> String {
        let command = self.spec().command;
        command.split(' ').next().unwrap_or(command).to_ascii_lowercase()
    }

    /// The arguments for redis-benchmark; `script` is the SHA1 of [`LUA`].
    pub fn template(self, script: &str) -> impl Iterator<Item = Vec<u8>> {
        self.spec().command.split(' ').map(move |word| match word {
            RECORD => RECORD_BYTES.to_vec(),
            SCRIPT => script.into(),
            _ => word.replace(AHEAD, &ahead()).into(),
        })
    }

    /// The command under another key than the random one.
    pub fn command(self, script: &str, key: &str) -> Cmd {
        let mut cmd = Cmd::new();
        // The first random word is the key.
        let mut key = Some(key);
        for word in self.template(script) {
            match std::str::from_utf8(&word) {
                Ok(text) if text.contains(RANDOM) => match key.take() {
                    Some(key) => cmd.arg(key),
                    None => cmd.arg(text.replace(RANDOM, &"0".repeat(RANDOM_DIGITS))),
                },
                _ => cmd.arg(word),
            };
        }
        cmd
    }

    /// The key that redis-benchmark makes of a number below [`KEYS`].
    pub fn key(self, number: u64) -> String {
        let command = self.spec().command;
        let template = command.split(' ').find(|word| word.contains(RANDOM)).unwrap_or_default();
        template.replace(RANDOM, &format!("{number:0RANDOM_DIGITS$}"))
    }

    /// Calls the command once for each of some keys, and makes sure that it
    /// does what the workload is about.
    pub fn check(
        self,
        conn: &mut Connection,
        script: &str,
        keys: impl Iterator<Item = u64>,
    ) -> Result<()> {
        let Spec { answer, kind, title, .. } = self.spec();
        for number in keys {
            let key = self.key(number);
            let got: Value = self.command(script, &key).query(conn)?;
            if !answer.fits(&got) {
                return Err(Error::new(format!(
                    "{title} of {key} answers {got:?}, and not {answer:?}"
                )));
            }
            let got: String = redis::cmd("TYPE").arg(&key).query(conn)?;
            if got != kind {
                return Err(Error::new(format!("{title} left a {got} at {key}, and not a {kind}")));
            }
        }
        Ok(())
    }
}

fn ahead() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now.as_secs() / 1_000_000).saturating_add(1).to_string()
}

impl Answer {
    fn fits(self, value: &Value) -> bool {
        match (self, value) {
            (Answer::Pong, Value::SimpleString(text)) => text == "PONG",
            (Answer::Integer, Value::Int(_)) => true,
            (Answer::Numbers(first), Value::Array(all)) => {
                all.len() == 5 && first.iter().zip(all).all(|(n, value)| *value == Value::Int(*n))
            }
            (Answer::Merged, Value::Array(all)) => {
                matches!(all.as_slice(), [Value::Int(0 | 1), Value::Int(1_000), Value::Int(500)])
            }
            (Answer::Text, Value::BulkString(_)) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What redis-benchmark is given as arguments.
    #[test]
    fn no_word_of_a_command_has_a_zero_byte() {
        for workload in Workload::ALL {
            for word in workload.template("sha1") {
                assert!(!word.is_empty() && !word.contains(&0), "{}", workload.name());
            }
        }
    }
}
