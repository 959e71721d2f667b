//! What all instances share of a route, in Redis: a hash beside its bucket, with the lease of the
//! leader, what each instance has counted, what was decided, and whether an operator has switched
//! it. See `tick.lua`.

use std::collections::HashMap;

use claw_adapt::Policy;
use claw_core::decimal::Decimal;
use claw_core::glob::Globs;
use redis::Value;

use super::decision::{Decision, HOLDS_MS};
use crate::limits::Limit;
use crate::limits::adaptive::Mode;
use crate::meter::Totals;
use crate::redis::{Fault, Redis};

const TICK: &str = include_str!("tick.lua");

/// How long a lease lasts, in milliseconds. When a leader is killed, another one begins after that.
pub const LEASE_MS: u64 = 1_000;
/// How old a report may be to count, in milliseconds.
const FRESH_MS: u64 = 350;
/// How long a report is kept, in milliseconds.
const KEPT_MS: u64 = 10_000;

/// The hash of one route.
#[derive(Clone, Debug)]
pub struct Shared {
    redis: Redis,
    /// The key of the route's bucket.
    bucket: Vec<u8>,
    key: Vec<u8>,
}

/// How things stand.
#[derive(Debug)]
pub struct Standing {
    /// Whether this instance leads, until [`LEASE_MS`] after it asked.
    pub leads: bool,
    /// Milliseconds by the server's clock.
    pub now_ms: u64,
    /// What is kept.
    pub kept: Kept,
    /// What other instances have been told of requests of this one.
    pub done: String,
    /// What other instances have counted, and this one. Only the leader is told.
    pub reports: Vec<(String, Totals)>,
}

/// What is kept of a route.
#[derive(Debug, Default)]
pub struct Kept {
    /// The mode that an operator has switched it to.
    pub switch: Option<Mode>,
    /// What was decided last.
    pub decision: Option<Decision>,
    /// The trial, as text.
    pub trial: String,
}

impl Kept {
    fn new(switch: &str, decision: &str, trial: String) -> Self {
        // Another version of this program may have written something else. Then it is as if there
        // were nothing: the settings hold.
        Self { switch: Mode::of_text(switch), decision: Decision::from_text(decision), trial }
    }
}

impl Shared {
    /// Of an adaptive limit.
    #[must_use]
    pub fn new(redis: Redis, limit: &Limit) -> Self {
        let bucket = limit.key(None).to_vec();
        let key = [&bucket, &b":loop"[..]].concat();
        Self { redis, bucket, key }
    }

    /// Reports, asks for the lease, and is told how things stand.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn tick(
        &self,
        instance: &str,
        totals: &Totals,
        for_others: &[(String, String)],
    ) -> Result<Standing, Fault> {
        let mut command = redis::cmd("EVAL");
        command.arg(TICK).arg(1).arg(&self.key).arg(instance);
        command.arg(LEASE_MS).arg(FRESH_MS).arg(KEPT_MS).arg(totals.to_text());
        for (other, text) in for_others {
            command.arg(other).arg(text);
        }
        let (head, rest) = split(self.redis.call(&command).await?)?;
        let [leads, now_ms, switch, decision, trial, done] = head;
        let number = |text: &str| text.parse::<u64>().map_err(|_| unreadable());
        let mut reports = Vec::new();
        for pair in rest.chunks_exact(2) {
            if let [who, report] = pair
                && let Some(totals) = Totals::from_text(report)
            {
                reports.push((who.clone(), totals));
            }
        }
        Ok(Standing {
            leads: number(&leads)? == 1,
            now_ms: number(&now_ms)?,
            kept: Kept::new(&switch, &decision, trial),
            done,
            reports,
        })
    }

    /// What is kept, for who only looks. A decision that holds no more is left out.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn look(&self) -> Result<Kept, Fault> {
        let mut command = redis::cmd("HMGET");
        command.arg(&self.key).arg("switch").arg("decision").arg("trial");
        let time = redis::cmd("TIME");
        let (fields, time) =
            futures_util::join!(self.redis.call(&command), self.redis.call_at(&self.key, &time));
        let [switch, decision, trial]: [Option<String>; 3] = fields?;
        let (seconds, micros): (u64, u64) = time?;
        let now_ms = seconds.saturating_mul(1_000).saturating_add(micros.div_euclid(1_000));
        let text = |field: Option<String>| field.unwrap_or_default();
        let kept = Kept::new(&text(switch), &text(decision), text(trial));
        Ok(Kept { decision: kept.decision.filter(|decision| decision.holds(now_ms)), ..kept })
    }

    /// Whether regions share the route's bucket, by what the server that has it says of itself.
    ///
    /// # Errors
    /// When there is no answer, or one may not ask.
    pub async fn is_shared(&self) -> Result<bool, Fault> {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg("claw.peers").arg("claw.sync-keys");
        let settings: HashMap<String, String> = self.redis.call_at(&self.bucket, &command).await?;
        let setting = |name: &str| settings.get(name).ok_or_else(unreadable);
        let has_peers = !setting("claw.peers")?.is_empty();
        let keys = Globs::parse(setting("claw.sync-keys")?).map_err(|_| unreadable())?;
        Ok(has_peers && keys.matches(&self.bucket))
    }

    /// Tells all instances what was decided.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn publish(&self, decision: &Decision, trial: Option<&str>) -> Result<(), Fault> {
        let mut command = redis::cmd("HSET");
        command.arg(&self.key).arg("decision").arg(decision.to_text());
        if let Some(trial) = trial {
            command.arg("trial").arg(trial);
        }
        self.redis.call::<Value>(&command).await.map(|_| ())
    }

    /// Puts a policy in force, for so many milliseconds: longer than until the next tick, and not so
    /// long that it would outlive whoever decides.
    ///
    /// # Errors
    /// When there is no answer. It may be done all the same.
    pub async fn pin(&self, policy: Policy) -> Result<(), Fault> {
        self.pin_for(policy, HOLDS_MS).await
    }

    /// Takes a pin away, whatever it said: the operator's limit is beneath it.
    ///
    /// # Errors
    /// When there is no answer. It may be done all the same.
    pub async fn unpin(&self, fallback: Policy) -> Result<(), Fault> {
        self.pin_for(fallback, 1).await
    }

    async fn pin_for(&self, policy: Policy, ms: u64) -> Result<(), Fault> {
        let mut command = redis::cmd("CL.POLICY");
        command.arg(&self.bucket).arg("CAPACITY").arg(policy.capacity);
        command.arg("REFILL").arg(Decimal::new(policy.refill_micros).as_bytes());
        command.arg("INTERVAL").arg(1_000).arg("FOR").arg(ms);
        self.redis.call::<Value>(&command).await.map(|_| ())
    }

    /// Switches the route to a mode, whatever its settings say, or back to these. A trial begins anew.
    ///
    /// # Errors
    /// When there is no answer. It may be done all the same.
    pub async fn switch(&self, mode: Option<Mode>) -> Result<(), Fault> {
        let mut command = redis::cmd("HDEL");
        command.arg(&self.key).arg("trial");
        let Some(mode) = mode else {
            command.arg("switch");
            return self.redis.call::<Value>(&command).await.map(|_| ());
        };
        self.redis.call::<Value>(&command).await?;
        let mut command = redis::cmd("HSET");
        command.arg(&self.key).arg("switch").arg(mode.text());
        self.redis.call::<Value>(&command).await.map(|_| ())
    }
}

/// The six texts that an answer begins with, and the others.
fn split(value: Value) -> Result<([String; 6], Vec<String>), Fault> {
    let Value::Array(items) = value else { return Err(unreadable()) };
    let text = |item: Value| redis::from_redis_value::<String>(item).map_err(|_| unreadable());
    let mut texts = items.into_iter().map(text);
    let mut next = || texts.next().unwrap_or_else(|| Err(unreadable()));
    let head = [next()?, next()?, next()?, next()?, next()?, next()?];
    Ok((head, texts.collect::<Result<_, _>>()?))
}

fn unreadable() -> Fault {
    Fault::Refused { code: "ERR".to_owned(), text: "not what was asked for".to_owned() }
}
