//! A bucket on paper, in whole numbers, to compare the server's with.

use crate::buckets::micros;
use claw_testkit::fields;
use redis::Connection;

/// The `remainder` field counts in 1/2520 of what a millionth of a token is in
/// the interval's microseconds.
pub const SHARES: u128 = 2520;

/// A bucket on paper, in whole numbers: tokens are millionths, and `rest` is
/// what is held below a millionth, over 2520 times the interval in microseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Paper {
    pub capacity: u128,
    pub refill: u128,
    pub interval_ms: u128,
    pub tokens: u128,
    pub rest: u128,
    pub at: u128,
}

impl Paper {
    /// The bucket in a hash that has a stored policy.
    pub fn read(conn: &mut Connection, key: &str) -> Self {
        let fields = fields(conn, key);
        let policy: Vec<&str> = fields["policy"].split([' ', '/']).collect();
        let weight: u128 = fields.get("userWeight").map_or(1, |w| w.parse().unwrap());
        Self {
            capacity: policy[0].parse::<u128>().unwrap() * 1_000_000,
            refill: micros(policy[1]) * weight,
            interval_ms: policy[2].parse().unwrap(),
            tokens: micros(&fields["tokens"]),
            rest: fields.get("remainder").map_or(0, |r| r.parse().unwrap()),
            at: fields["timestamp"].parse().unwrap(),
        }
    }

    /// The bucket at a later instant.
    pub fn at(&self, now: u128) -> Self {
        let parts = self.interval_ms * 1000 * SHARES;
        let gained = self.refill * (now - self.at) * SHARES + self.rest;
        let tokens = self.tokens + gained / parts;
        let (tokens, rest) = match tokens < self.capacity {
            true => (tokens, gained % parts),
            false => (self.capacity, 0),
        };
        Self { tokens, rest, at: now, ..self.clone() }
    }

    /// The first whole millisecond from now at which it holds `tokens`.
    pub fn wait_ms(&self, tokens: u128) -> u128 {
        let holds = |ms: u128| self.at(self.at + ms * 1000).tokens >= tokens * 1_000_000;
        let guess = (tokens * 1_000_000).saturating_sub(self.tokens) * self.interval_ms;
        let guess = guess / self.refill.max(1);
        (guess.saturating_sub(2)..=guess + 2).find(|ms| holds(*ms)).expect("close to the guess")
    }

    /// What a take of nothing answers.
    pub fn answer(&self, taken: u128, retry_after: u128) -> [i64; 5] {
        let whole = |micros: u128| micros / 1_000_000;
        let numbers = [taken, whole(self.capacity), whole(self.tokens), retry_after];
        let [taken, capacity, held, retry_after] = numbers.map(|n| i64::try_from(n).unwrap());
        // Longer than 2^63 ms is as good as never.
        let full = i64::try_from(self.wait_ms(whole(self.capacity))).unwrap_or(-1);
        [taken, capacity, held, retry_after, full]
    }
}
