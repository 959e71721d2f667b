//! The `claw.*` parameters.

use crate::error::{Error, Quantity};
use crate::strategy::Strategy;
use claw_core::decimal::{self, Decimal};
use claw_core::defaults::Defaults;
use claw_core::limits::{DEFAULT_CAPACITY, DEFAULT_INTERVAL_MS, DEFAULT_REFILL, MAX_TOKENS, MICRO};
use claw_core::policy::Policy;

/// A parameter, by the order of registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parameter {
    /// Capacity of buckets that neither a pin nor a call says anything of.
    MaxTokens,
    /// Their refill in tokens per second; decimals are allowed.
    RefillRatePerSec,
    /// The strategy of merges that name none.
    MergeStrategy,
}

/// The value of a parameter, as the server hands it over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Integer(i64),
    Text(String),
}

impl Parameter {
    pub(crate) const ALL: &'static [Self] =
        &[Self::MaxTokens, Self::RefillRatePerSec, Self::MergeStrategy];

    /// The name behind `claw.`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::MaxTokens => "max-tokens",
            Self::RefillRatePerSec => "refill-rate-per-sec",
            Self::MergeStrategy => "merge-strategy",
        }
    }

    /// Finds a parameter by its name, with or without `claw.`.
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        let name = name.strip_prefix("claw.").unwrap_or(name);
        Self::ALL.iter().copied().find(|p| p.name().eq_ignore_ascii_case(name))
    }

    /// The value when nobody sets it.
    pub(crate) fn default(self) -> Value {
        match self {
            Self::MaxTokens => Value::Integer(i64::try_from(DEFAULT_CAPACITY).unwrap_or(0)),
            Self::RefillRatePerSec => Value::Text(DEFAULT_REFILL.to_string()),
            Self::MergeStrategy => Value::Text(Strategy::default().to_string()),
        }
    }

    /// Least and greatest value of an integer parameter.
    pub(crate) fn bounds(self) -> Option<(i64, i64)> {
        match self {
            Self::MaxTokens => Some((1, i64::try_from(MAX_TOKENS).unwrap_or(i64::MAX))),
            Self::RefillRatePerSec | Self::MergeStrategy => None,
        }
    }

    /// Reads a module argument.
    pub(crate) fn parse(self, text: &str) -> Result<Value, Error> {
        match self {
            Self::MaxTokens => {
                let value = decimal::digits(text.as_bytes()).ok();
                let value = value.filter(|v| (1..=MAX_TOKENS).contains(v));
                let value = value.and_then(|v| i64::try_from(v).ok());
                Ok(Value::Integer(value.ok_or(Error::OutOfRange(Quantity::Capacity))?))
            }
            Self::RefillRatePerSec => {
                refill(text)?;
                Ok(Value::Text(text.to_owned()))
            }
            Self::MergeStrategy => Ok(Value::Text(Strategy::parse(text.as_bytes())?.to_string())),
        }
    }
}

fn refill(text: &str) -> Result<u64, Error> {
    decimal::parse(text.as_bytes()).map_err(|_| Error::OutOfRange(Quantity::Refill))
}

/// The values in force.
#[derive(Debug)]
pub(crate) struct Settings {
    max_tokens: u64,
    refill_per_sec: u64,
    merge_strategy: Strategy,
    defaults: Defaults,
    loaded: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let refill = DEFAULT_REFILL.saturating_mul(MICRO);
        Self {
            max_tokens: DEFAULT_CAPACITY,
            refill_per_sec: refill,
            merge_strategy: Strategy::default(),
            defaults: Defaults::new(Policy::DEFAULT),
            loaded: false,
        }
    }
}

impl Settings {
    /// The default policy and what it was before.
    pub(crate) fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// The strategy of merges that name none.
    pub(crate) fn merge_strategy(&self) -> &Strategy {
        &self.merge_strategy
    }

    /// From now on a change of the default policy has a history.
    pub(crate) fn loaded(&mut self) {
        self.loaded = true;
    }

    pub(crate) fn get(&self, parameter: Parameter) -> Value {
        match parameter {
            Parameter::MaxTokens => {
                Value::Integer(i64::try_from(self.max_tokens).unwrap_or(i64::MAX))
            }
            Parameter::RefillRatePerSec => {
                Value::Text(Decimal::new(self.refill_per_sec).to_string())
            }
            Parameter::MergeStrategy => Value::Text(self.merge_strategy.to_string()),
        }
    }

    /// Sets a parameter at `now` (unix microseconds).
    pub(crate) fn set(
        &mut self,
        parameter: Parameter,
        value: &Value,
        now: u64,
    ) -> Result<(), Error> {
        let (mut max_tokens, mut refill_per_sec) = (self.max_tokens, self.refill_per_sec);
        match (parameter, value) {
            (Parameter::MaxTokens, Value::Integer(value)) => {
                max_tokens =
                    u64::try_from(*value).map_err(|_| Error::OutOfRange(Quantity::Capacity))?;
            }
            (Parameter::RefillRatePerSec, Value::Text(text)) => refill_per_sec = refill(text)?,
            (Parameter::MergeStrategy, Value::Text(text)) => {
                self.merge_strategy = Strategy::parse(text.as_bytes())?;
                return Ok(());
            }
            _ => return Err(Error::OutOfRange(Quantity::Capacity)),
        }
        let policy = Policy::new(max_tokens, refill_per_sec, DEFAULT_INTERVAL_MS)?;
        (self.max_tokens, self.refill_per_sec) = (max_tokens, refill_per_sec);
        if self.loaded {
            self.defaults.change(policy, now);
        } else {
            self.defaults = Defaults::new(policy);
        }
        Ok(())
    }
}
