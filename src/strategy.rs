//! How two buckets become one: a built-in strategy, or a Redis Function.

use crate::error::Error;
use crate::host::{self, Context};
use claw_core::bucket::{Bucket, Weight};
use claw_core::codec::{Fields, RegionStates, number};
use claw_core::decimal::DecimalError;
use claw_core::limits::{self, MAX_LEAD_US};
use claw_core::merge::{self, State};
use claw_core::policy::Policy;
use rmpv::Value;
use serde::Serialize;
use std::ffi::CString;
use std::fmt;

/// The name of [`Strategy::Debit`].
const DEBIT: &str = "debit";

/// Millionths of a token in one token, of which there may be less than none.
const MICRO: i64 = limits::MICRO.cast_signed();

const TOO_FAR_AHEAD: &[u8] =
    b"it returned a timestamp that is no unix microseconds, or more than 30 days ahead";

fn is_too_far_ahead(timestamp: u64, now: u64) -> bool {
    timestamp > now.saturating_add(MAX_LEAD_US)
}

/// Longest name of a function.
const MAX_NAME: usize = 128;

/// A merge strategy as commands and configuration name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// One of the joins of `claw-core`.
    BuiltIn(merge::Join),
    /// The debit counters of `claw-core`.
    Debit,
    /// `fn:NAME`: the function's name, as the server allows it.
    Function(Box<str>),
}

impl Default for Strategy {
    fn default() -> Self {
        Self::BuiltIn(merge::Join::Max)
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn(strategy) => f.write_str(strategy.name()),
            Self::Debit => f.write_str(DEBIT),
            Self::Function(name) => write!(f, "fn:{name}"),
        }
    }
}

impl Strategy {
    /// Reads a name. A function is none where the server would let it do what its caller may not.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, Error> {
        if let Some(strategy) = merge::Join::by_name(text) {
            return Ok(Self::BuiltIn(strategy));
        }
        if text.eq_ignore_ascii_case(DEBIT.as_bytes()) {
            return Ok(Self::Debit);
        }
        let named = text.strip_prefix(b"fn:").and_then(|name| std::str::from_utf8(name).ok());
        // The letters that the server allows in the name of a function.
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        match named {
            Some(name) if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(allowed) => {
                match host::checks_functions() {
                    true => Ok(Self::Function(name.into())),
                    false => Err(Error::UncheckedFunctions),
                }
            }
            _ => Err(Error::UnknownStrategy(text.into())),
        }
    }

    /// Merges `remote` into `local` at `now` (unix microseconds). No key may be
    /// open: see [`Context::call_function`].
    pub(crate) fn merge(
        &self,
        ctx: &Context<'_>,
        local: &State,
        remote: &State,
        now: u64,
    ) -> Result<State, Error> {
        match self {
            Self::BuiltIn(strategy) => Ok(local.join(remote, *strategy)),
            Self::Debit => Err(Error::Debit("merges buckets by their counters, not as states")),
            Self::Function(name) => call(ctx, name, local, remote, now),
        }
    }
}

impl Strategy {
    /// Folds the states of all regions in the order of their names: whatever the function is,
    /// regions that have the same states come to the same bucket. `now` only bounds how far ahead
    /// that may be, or it could not be read again. No key may be open.
    pub(crate) fn fold(
        &self,
        ctx: &Context<'_>,
        states: &RegionStates,
        default: Policy,
        now: u64,
    ) -> Result<State, Error> {
        let moment = states.values().map(|state| state.bucket.timestamp()).max().unwrap_or(0);
        // A pin that has ended by then pins nothing any more.
        let mut states = states.values().map(|state| state.past_pin(moment, default));
        let mut view = states.next().ok_or(Error::NoSource)?;
        for state in states {
            view = self.merge(ctx, &view, &state, moment)?;
        }
        match self {
            Self::Function(name) if is_too_far_ahead(view.bucket.timestamp(), now) => {
                Err(Error::Function { name: name.clone(), why: TOO_FAR_AHEAD.into() })
            }
            _ => Ok(view),
        }
    }
}

/// A bucket as a function sees it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    /// Tokens at `timestamp`.
    tokens: Number,
    /// Unix microseconds.
    timestamp: u64,
    user_weight: u8,
    /// Tokens at `now`.
    available: Number,
    capacity: u64,
    /// Tokens per interval, at weight 1.
    refill: Number,
    /// Milliseconds.
    interval: u64,
    /// The instant of the merge, in unix microseconds.
    now: u64,
}

/// Whole numbers stay whole on the way; the others become doubles, as every
/// number in Lua is one.
#[derive(Serialize)]
#[serde(untagged)]
enum Number {
    Whole(i64),
    Fraction(f64),
}

impl Number {
    fn tokens(micros: i64) -> Self {
        if micros % MICRO == 0 {
            return Self::Whole(micros / MICRO);
        }
        #[allow(clippy::cast_precision_loss)]
        Self::Fraction(micros as f64 / MICRO as f64)
    }
}

fn seen(state: &State, now: u64) -> Seen {
    let bucket = state.bucket;
    let mut credited = bucket;
    credited.advance(now);
    let policy = bucket.policy();
    Seen {
        tokens: Number::tokens(bucket.tokens()),
        timestamp: bucket.timestamp(),
        user_weight: bucket.weight().get(),
        available: Number::tokens(credited.tokens()),
        capacity: policy.capacity(),
        // At most 10^18.
        refill: Number::tokens(policy.refill().cast_signed()),
        interval: policy.interval_ms(),
        now,
    }
}

fn call(
    ctx: &Context<'_>,
    name: &str,
    local: &State,
    remote: &State,
    now: u64,
) -> Result<State, Error> {
    if ctx.in_script() {
        return Err(Error::Nested);
    }
    let failed = |why: &[u8]| Error::Function { name: name.into(), why: why.into() };
    let encode = |state: &State| {
        rmp_serde::to_vec_named(&seen(state, now))
            .map_err(|_| failed(b"cannot be given the bucket"))
    };
    let c_name = CString::new(name).map_err(|_| failed(b"not a name"))?;
    let (local_record, remote_record) = (encode(local)?, encode(remote)?);
    let result =
        ctx.call_function(&c_name, [&local_record, &remote_record]).map_err(|why| failed(&why))?;

    let mut fields = Fields::read(&result)
        .map_err(|_| failed(b"it did not return cmsgpack.pack of one table"))?;
    let mut field = |name| {
        fields.take(name).map_err(|why| failed(format!("what it returned {why}").as_bytes()))
    };
    // The policy is not the function's to decide: the one that wins anywhere.
    let winner = local.join(remote, merge::Join::Max);
    let policy = winner.bucket.policy();

    const OWES: &[u8] = b"it returned tokens that owe more than the capacity";
    let tokens = field("tokens")?.ok_or_else(|| failed(b"it returned no tokens"))?;
    let tokens = match number::amount(&tokens) {
        Ok(tokens) if tokens <= policy.capacity_micros() => tokens,
        Err(DecimalError::TooLarge) if tokens.as_f64().is_some_and(|tokens| tokens < 0.0) => {
            return Err(failed(OWES));
        }
        Ok(_) | Err(DecimalError::TooLarge) => return Err(Error::AboveCapacity(name.into())),
        Err(DecimalError::NotANumber) => {
            return Err(failed(b"it returned tokens that are no number"));
        }
    };
    // One region owes no more than its capacity; several may do together.
    let deepest = policy.capacity_micros().saturating_neg();
    if tokens < deepest.min(local.bucket.tokens()).min(remote.bucket.tokens()) {
        return Err(failed(OWES));
    }
    let timestamp = match field("timestamp")? {
        None => now,
        Some(value) => number::whole(&value)
            .ok()
            .filter(|timestamp| !is_too_far_ahead(*timestamp, now))
            .ok_or_else(|| failed(TOO_FAR_AHEAD))?,
    };
    let weight = match field("userWeight")? {
        None => local.bucket.weight().max(remote.bucket.weight()),
        Some(value) => number::whole(&value)
            .ok()
            .and_then(Weight::new)
            .ok_or_else(|| failed(b"it returned a userWeight that is not 1 to 10"))?,
    };
    let bucket = Bucket::new(policy, weight, tokens, 0, timestamp);
    // What came in and is returned unchanged keeps what a double cannot carry.
    let unchanged = [local, remote].into_iter().find(|state| {
        let kept = state.bucket;
        (state.policy, state.temporary, kept.policy()) == (winner.policy, winner.temporary, policy)
            && kept.weight() == weight
            && kept.timestamp() == timestamp
            && as_returned(kept.tokens()) == Some(tokens)
    });
    let returned = State::of(bucket, winner.policy).pinned_by(winner.temporary);
    Ok(unchanged.copied().unwrap_or(returned))
}

/// What is read of tokens that a function was given and returned.
fn as_returned(micros: i64) -> Option<i64> {
    let given = match Number::tokens(micros) {
        Number::Whole(whole) => Value::from(whole),
        Number::Fraction(tokens) => Value::from(tokens),
    };
    number::amount(&given).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As here, where there is no server at all.
    #[test]
    fn a_server_that_does_not_check_functions_calls_none() {
        assert_eq!(Strategy::parse(b"fn:average"), Err(Error::UncheckedFunctions));
        assert_eq!(Strategy::parse(b"min"), Ok(Strategy::BuiltIn(merge::Join::Min)));
        assert_eq!(Strategy::parse(b"debit"), Ok(Strategy::Debit));
        let unknown = |name: &[u8]| Err(Error::UnknownStrategy(name.into()));
        assert_eq!(Strategy::parse(b"fn:"), unknown(b"fn:"));
    }
}
