//! Random commands of every kind, the same ones for the same seed.

use claw_testkit::Random;
use std::time::{SystemTime, UNIX_EPOCH};

/// The words of a command, which may be any bytes.
pub type Words = Vec<Vec<u8>>;

/// The names of the keys that random commands use. Some are not text.
pub fn names(count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|n| {
            let mut name = format!("bucket:{n}").into_bytes();
            if n % 16 == 5 {
                name.extend(b" %s\0\r\n\"\xff");
            }
            name
        })
        .collect()
}

/// An endless mix: mostly calls of the module, with random policies under which
/// a bucket is full again after milliseconds, seconds or never, and commands
/// with which people change buckets by hand. Some calls are wrong, and some
/// fields that are written by hand cannot be understood.
#[derive(Clone, Debug)]
pub struct Commands {
    random: Random,
    names: Vec<Vec<u8>>,
}

impl Commands {
    pub fn new(seed: u64, keys: usize) -> Commands {
        Commands { random: Random::new(seed), names: names(keys) }
    }

    fn key(&mut self) -> Vec<u8> {
        // A few keys get half of the calls, so that buckets become empty.
        let all = self.names.len() as u64;
        let end = if self.random.once_in(2) { all.div_ceil(10) } else { all };
        self.names[self.random.below(end) as usize].clone()
    }

    fn number(&mut self, end: u64) -> Vec<u8> {
        self.random.below(end).to_string().into_bytes()
    }

    fn capacity(&mut self) -> &'static str {
        self.random.choose(&["0", "1", "2", "5", "5", "20", "20", "100", "1000000000000"])
    }

    fn refill(&mut self) -> &'static str {
        self.random.choose(&["0", "0.5", "1", "1", "3", "7", "0.333333", "250", "0.000001"])
    }

    fn interval(&mut self) -> &'static str {
        self.random.choose(&["1", "3", "50", "100", "333", "1000", "7000", "31622400000"])
    }

    fn policy(&mut self, words: &mut Words) {
        if self.random.once_in(2) {
            push(words, ["CAPACITY", self.capacity()]);
            self.rate(words);
        }
    }

    fn rate(&mut self, words: &mut Words) {
        push(words, ["REFILL", self.refill()]);
        if !self.random.once_in(4) {
            push(words, ["INTERVAL", self.interval()]);
        }
    }

    fn take(&mut self) -> Words {
        let mut words = vec![b"CL.TAKE".to_vec(), self.key()];
        if self.random.once_in(2) {
            words.push(self.number(8));
        }
        // Most buckets keep their policy for a while.
        if self.random.once_in(3) {
            self.policy(&mut words);
        }
        if self.random.once_in(4) {
            push(&mut words, ["PARTIAL"]);
        }
        self.keep(&mut words);
        words
    }

    fn peek(&mut self) -> Words {
        let mut words = vec![b"CL.PEEK".to_vec(), self.key(), self.number(8)];
        self.policy(&mut words);
        words
    }

    fn give(&mut self) -> Words {
        vec![b"CL.GIVE".to_vec(), self.key(), self.number(6)]
    }

    fn take_all(&mut self) -> Words {
        let mut words = vec![b"CL.TAKEALL".to_vec()];
        for group in 0..1 + self.random.below(4) {
            if group > 0 {
                push(&mut words, ["AND"]);
            }
            // A key may be there twice, and have two policies, which is wrong.
            words.push(self.key());
            if self.random.once_in(2) {
                words.push(self.number(5));
            }
            if self.random.once_in(3) {
                self.policy(&mut words);
            }
            self.keep(&mut words);
        }
        words
    }

    fn settle(&mut self) -> Words {
        let mut words = vec![b"CL.SETTLE".to_vec(), self.key(), self.number(8), self.number(16)];
        if self.random.once_in(3) {
            self.policy(&mut words);
        }
        words
    }

    fn keep(&mut self, words: &mut Words) {
        if self.random.once_in(6) {
            words.push(b"KEEP".to_vec());
            words.push(self.number(4));
        }
    }

    fn pin(&mut self) -> Words {
        let mut words = vec![b"CL.POLICY".to_vec(), self.key()];
        match self.random.below(4) {
            0 => {}
            1 => push(&mut words, ["RESET"]),
            _ => {
                // Any part of a policy.
                if self.random.once_in(2) {
                    push(&mut words, ["CAPACITY", self.capacity()]);
                }
                if self.random.once_in(2) {
                    self.rate(&mut words);
                }
                if self.random.once_in(3) {
                    push(&mut words, ["WEIGHT", self.random.choose(&["1", "2", "3", "10"])]);
                }
            }
        }
        words
    }

    fn throttle(&mut self) -> Words {
        let mut words = vec![b"CL.THROTTLE".to_vec(), self.key()];
        words.push(self.random.choose(&["0", "4", "15", "99"]).as_bytes().to_vec());
        words.push(self.random.choose(&["1", "30", "100", "5000"]).as_bytes().to_vec());
        words.push(self.random.choose(&["1", "10", "60"]).as_bytes().to_vec());
        if self.random.once_in(2) {
            words.push(self.random.choose(&["-2", "0", "1", "3", "12"]).as_bytes().to_vec());
        }
        words
    }

    /// A call that is refused with an error, and leaves the key as it was.
    fn wrong(&mut self) -> Words {
        let key = self.key();
        let rest: &[&str] = self.random.choose(&[
            &["-1"][..],
            &["1", "CAPACITY", "-1", "REFILL", "1"],
            &["1", "KEEP", "-1"],
            &["1", "CAPACITY", "5"],
            &["1", "REFILL", "0"],
            &["1", "REFILL", "1", "REFILL", "1"],
            &["1", "INTERVAL", "5"],
            &["1", "SURPRISE"],
            &["9223372036854775808"],
        ]);
        let mut words = vec![b"CL.TAKE".to_vec(), key];
        push(&mut words, rest.iter().copied());
        words
    }

    /// Fields that a person writes.
    fn by_hand(&mut self) -> Words {
        let mut words = vec![b"HSET".to_vec(), self.key()];
        for _ in 0..1 + self.random.below(3) {
            let (field, value) = match self.random.below(60) {
                0..21 => (
                    "tokens",
                    self.random.choose(&["0", "-2.5", "3", "12.5", "7.000001"]).to_string(),
                ),
                21..36 => ("timestamp", self.timestamp()),
                36..42 => ("userWeight", self.random.choose(&["1", "2", "10"]).to_string()),
                42..48 => ("policy", self.policy_field()),
                48..52 => ("remainder", self.random.below(1_000).to_string()),
                52..59 => ("note", self.random.below(10).to_string()),
                _ => {
                    let (field, value) = self.random.choose(&WRONG);
                    (field, value.to_string())
                }
            };
            push(&mut words, [field, value.as_str()]);
        }
        words
    }

    fn timestamp(&mut self) -> String {
        if self.random.once_in(4) {
            return "2026-03-19T10:00:00.25Z".into();
        }
        // Up to four seconds ago and one ahead.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
        (now - 4_000_000 + self.random.below(5_000_000)).to_string()
    }

    fn policy_field(&mut self) -> String {
        let mut text = format!("{} {}/{}", self.capacity(), self.refill(), self.interval());
        if self.random.once_in(4) {
            text += " pinned 2";
        }
        text
    }

    fn delete_field(&mut self) -> Words {
        let mut words = vec![b"HDEL".to_vec(), self.key()];
        push(
            &mut words,
            [self.random.choose(&["tokens", "timestamp", "policy", "userWeight", "note"])],
        );
        words
    }

    fn delete(&mut self) -> Words {
        vec![self.random.choose(&["DEL", "UNLINK"]).as_bytes().to_vec(), self.key()]
    }

    fn expire(&mut self) -> Words {
        let key = self.key();
        match self.random.below(4) {
            0 => vec![b"EXPIRE".to_vec(), key, b"1".to_vec()],
            1 => vec![b"PEXPIRE".to_vec(), key, self.number(30)],
            2 => vec![b"EXPIRE".to_vec(), key, b"100000".to_vec()],
            _ => vec![b"PERSIST".to_vec(), key],
        }
    }
}

/// Fields that no call understands, until somebody mends the key.
const WRONG: [(&str, &str); 4] =
    [("tokens", "many"), ("timestamp", "soon"), ("userWeight", "0"), ("policy", "5 a second")];

impl Iterator for Commands {
    type Item = Words;

    fn next(&mut self) -> Option<Words> {
        Some(match self.random.below(100) {
            0..40 => self.take(),
            40..45 => self.settle(),
            45..56 => self.take_all(),
            56..66 => self.throttle(),
            66..74 => self.give(),
            74..81 => self.pin(),
            81..85 => self.peek(),
            85..91 => self.by_hand(),
            91..93 => self.delete_field(),
            93..95 => self.delete(),
            95..98 => self.expire(),
            _ => self.wrong(),
        })
    }
}

fn push<'a>(words: &mut Words, more: impl IntoIterator<Item = &'a str>) {
    words.extend(more.into_iter().map(|word| word.as_bytes().to_vec()));
}
