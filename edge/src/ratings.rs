//! What users think of items, kept in Redis by a Function: see `ratings/library.lua` for what is
//! stored where. It is a map in which the last write wins, so that regions can exchange it in any
//! order.

pub mod follow;
pub mod lease;
pub mod library;
pub mod peers;
pub mod record;

use std::sync::Arc;

use self::library::{Library, ROOT, function};
use crate::config::Config;
use crate::redis::{Fault, Redis};

/// The highest rating, in millionths.
pub const HIGHEST: u64 = 5_000_000;
/// The longest name of a user or an item, in bytes.
pub const LONGEST_NAME: usize = 256;

/// The ratings of a region, as one worker sees them.
#[derive(Clone)]
pub struct Ratings {
    library: Library,
    region: Arc<str>,
    outbox: u64,
}

/// A rating as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rating {
    /// In millionths.
    pub micros: u64,
    /// Microseconds since 1970, of a clock that never goes back.
    pub stamp: u64,
    /// Where it was given.
    pub region: String,
}

/// The ratings of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// How many users have rated it.
    pub count: u64,
    /// The sum of their ratings, in millionths.
    pub sum: u64,
}

impl Totals {
    /// The mean in millionths, of two equally near ones the higher; nothing without ratings.
    #[must_use]
    pub fn mean(self) -> Option<u64> {
        let (sum, count) = (u128::from(self.sum), u128::from(self.count));
        let twice = sum.saturating_mul(2).saturating_add(count);
        twice.checked_div(count.saturating_mul(2)).and_then(|mean| u64::try_from(mean).ok())
    }
}

impl Ratings {
    /// The ratings in the server of `redis`.
    #[must_use]
    pub fn new(config: &Config, redis: Redis) -> Self {
        Self {
            library: Library::new(redis),
            region: config.region.as_str().into(),
            outbox: config.ratings_outbox,
        }
    }

    /// Stores a rating that is given now.
    ///
    /// # Errors
    /// When there is no answer: then it may be stored or not. Or when it was refused.
    pub async fn rate(&self, user: &str, item: &str, micros: u64) -> Result<Rating, Fault> {
        let mut command = function("claw_rate_1", &[user_key(user), item_key(item)]);
        command.arg(user).arg(item).arg(micros).arg(&*self.region).arg(self.outbox);
        let stamp = self.library.call(&command).await?;
        Ok(Rating { micros, stamp, region: self.region.as_ref().to_owned() })
    }

    /// Forgets what `user` has rated so far: at once for whoever reads it, and step by step in the
    /// numbers of items. Says whether no step is left; [`Self::tend`] takes one.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn forget(&self, user: &str) -> Result<bool, Fault> {
        let mut command = function("claw_forget_1", &[user_key(user)]);
        command.arg(user).arg(&*self.region).arg(self.outbox);
        let _: u64 = self.library.call(&command).await?;
        for _ in 0..MOST_STEPS {
            let mut command = function("claw_tend_1", &[user_key(user)]);
            command.arg(user);
            if self.library.call::<u64>(&command).await? == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether something is left of forgetting users, or records are parked.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn has_work(&self) -> Result<bool, Fault> {
        let mut command = redis::cmd("EXISTS");
        command.arg(format!("{ROOT}sweep")).arg(format!("{ROOT}parked"));
        self.library.redis.call::<u64>(&command).await.map(|keys| keys > 0)
    }

    /// How many records wait here until the clock comes near their stamps.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn parked(&self) -> Result<i64, Fault> {
        let mut command = redis::cmd("ZCARD");
        command.arg(format!("{ROOT}parked"));
        self.library.redis.call(&command).await
    }

    /// Takes one step of what is left of forgetting users, or of parked records whose time has
    /// come. Says whether there may be more.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn tend(&self) -> Result<bool, Fault> {
        let command = function("claw_tend_1", &[ROOT.to_owned()]);
        self.library.call(&command).await.map(|more: u64| more != 0)
    }

    /// The rating of an item by a user.
    ///
    /// # Errors
    /// When there is no answer, or what is stored cannot be understood.
    pub async fn of_user(&self, user: &str, item: &str) -> Result<Option<Rating>, Fault> {
        let key = user_key(user);
        let mut command = redis::cmd("HMGET");
        command.arg(&key).arg(item).arg("");
        let values: [Option<String>; 2] = self.library.redis.call(&command).await?;
        let [Some(rating), tombstone] = values else { return Ok(None) };
        let rating = Rating::parse(&rating).ok_or_else(|| damaged(&key))?;
        let Some(tombstone) = tombstone else { return Ok(Some(rating)) };
        let (stamp, region) = stamp_of(&tombstone).ok_or_else(|| damaged(&key))?;
        let forgotten = (rating.stamp, rating.region.as_str()) <= (stamp, region);
        Ok((!forgotten).then_some(rating))
    }

    /// The ratings of an item.
    ///
    /// # Errors
    /// When there is no answer, or what is stored cannot be understood.
    pub async fn of_item(&self, item: &str) -> Result<Totals, Fault> {
        let key = item_key(item);
        let mut command = redis::cmd("HMGET");
        command.arg(&key).arg("count").arg("sum");
        let values: [Option<String>; 2] = self.library.redis.call(&command).await?;
        match values {
            [None, None] => Ok(Totals { count: 0, sum: 0 }),
            [Some(count), Some(sum)] => match (count.parse(), sum.parse()) {
                (Ok(count), Ok(sum)) => Ok(Totals { count, sum }),
                _ => Err(damaged(&key)),
            },
            _ => Err(damaged(&key)),
        }
    }
}

/// How many steps a request to forget waits for: a million ratings, or a thousandth of that where
/// the server's hashes are small.
const MOST_STEPS: usize = 5_000;

impl Rating {
    /// Reads `millionths stamp region`.
    fn parse(text: &str) -> Option<Self> {
        let (micros, rest) = text.split_once(' ')?;
        let (stamp, region) = stamp_of(rest)?;
        let micros = micros.parse().ok().filter(|micros| *micros <= HIGHEST)?;
        Some(Self { micros, stamp, region: region.to_owned() })
    }
}

/// Reads `stamp region`.
fn stamp_of(text: &str) -> Option<(u64, &str)> {
    let (stamp, region) = text.split_once(' ')?;
    Some((stamp.parse().ok()?, region))
}

fn user_key(user: &str) -> String {
    format!("{ROOT}user:{user}")
}

fn item_key(item: &str) -> String {
    format!("{ROOT}item:{item}")
}

fn damaged(key: &str) -> Fault {
    unreadable(format!("what is stored at {key} cannot be understood"))
}

fn unreadable(text: String) -> Fault {
    Fault::Refused { code: "ERR".to_owned(), text }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn means_are_exact_and_rounded_once() {
        #[rustfmt::skip]
        let table = [
            // count, sum, mean, all in millionths
            (0,         0,                  None),
            (1,         4_500_000,          Some(4_500_000)),
            (2,         1,                  Some(1)),
            (3,         1,                  Some(0)),
            (3,         10_000_000,         Some(3_333_333)),
            (3,         5_000_000,          Some(1_666_667)),
            (7,         20_000_000,         Some(2_857_143)),
            (u64::MAX,  u64::MAX,           Some(1)),
        ];
        for (count, sum, mean) in table {
            assert_eq!(Totals { count, sum }.mean(), mean, "{count} {sum}");
        }
    }
}
