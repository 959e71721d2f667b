//! A limit whose policy follows how the backend does: what the operator allows.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::HeaderName;
use claw_adapt::{Bounds, Policy};
use claw_core::decimal;
use claw_core::limits::MAX_WEIGHT;
use claw_core::policy;
use serde::Deserialize;

use super::facts::Facts;
use super::rule::Pattern;
use crate::config::duration;
use crate::meter::{Meter, share};

/// How a limit adapts, and what was seen of its backend.
#[derive(Debug)]
pub struct Adaptive {
    /// What the operator allows.
    pub settings: Settings,
    /// What this instance has counted, and what is in force. It outlives the limits that are replaced.
    pub meter: Arc<Meter>,
    /// The capacity of its bucket, as the server has last said: that is another one than ours while
    /// somebody has pinned it by hand.
    capacity: AtomicU64,
}

/// What the operator allows.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How far the loop goes, unless it is switched while the service runs.
    pub mode: Mode,
    /// What is seen of the backend.
    pub profile: Profile,
    /// Within what is decided, and what holds without a decision.
    pub bounds: Bounds,
    /// How long the operator's limit and the loop take turns in a trial.
    pub block: Duration,
    /// Whose requests may use all of the tokens and places; those of others leave some.
    pub premium: Option<Premium>,
}

/// Whose requests may use what is kept from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Premium {
    /// What tells them.
    pub sign: Sign,
    /// Hundredths of the tokens and places that are kept.
    pub keep: u8,
}

/// What tells a request that may use all from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// A header field, and what it says. Whoever is in front of the service has to set it or to remove it.
    Header(HeaderName, Pattern),
    /// The weight of the user's bucket: so much or more.
    Weight(u64),
}

/// How far the loop goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The operator's limit holds, and nothing is decided.
    Off,
    /// The operator's limit holds. What would be decided is shown.
    Shadow,
    /// The operator's limit and the loop's decisions take turns, and are compared.
    Canary,
    /// What the loop decides is in force.
    On,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Off, Self::Shadow, Self::Canary, Self::On];

    /// Its name in settings, metrics and the API.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Shadow => "shadow",
            Self::Canary => "canary",
            Self::On => "on",
        }
    }

    /// The mode of that name.
    #[must_use]
    pub fn of_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.text() == text)
    }
}

/// What is seen of the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Every request and every answer: this service hands them on, or is told of each.
    OnPath,
    /// Events, late and not all of them.
    OffPath,
}

impl Profile {
    /// Its name in settings and metrics.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::OnPath => "on_path",
            Self::OffPath => "off_path",
        }
    }
}

/// What a file says.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Said {
    mode: Option<Mode>,
    profile: Option<Profile>,
    nominal: Option<String>,
    min: Option<String>,
    max: Option<String>,
    max_capacity: Option<u64>,
    in_flight: Option<u64>,
    sla: Option<String>,
    slew_percent: Option<u32>,
    block: Option<String>,
    premium: Option<PremiumSaid>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PremiumSaid {
    #[serde(default)]
    header: Option<String>,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    weight: Option<u64>,
    #[serde(default)]
    keep: Option<u8>,
}

/// How much more and less than what the operator names is decided, unless he says else.
const TIMES_MAX: u64 = 10;
const PARTS_MIN: u64 = 20;
/// How far the rate may rise in one tick, unless the operator says else.
const SLEW_PERCENT: u32 = 900;
const SLA: Duration = Duration::from_millis(200);
const BLOCK: Duration = Duration::from_secs(60);
const KEEP: u8 = 10;
/// The least weights that can tell some users from others: each bucket has a weight of 1 or more.
const WEIGHTS: RangeInclusive<u64> = 2..=MAX_WEIGHT as u64;

impl Said {
    /// Completes it by what follows from the limit's own policy.
    ///
    /// # Errors
    /// Says what is wrong.
    pub(super) fn settings(&self, limit: &policy::Policy) -> Result<Settings, String> {
        let rate = u128::from(limit.refill())
            .saturating_mul(1_000)
            .checked_div(limit.interval_ms().into())
            .and_then(|rate| u64::try_from(rate).ok())
            .ok_or("its refill is beyond what can be adapted")?;
        let micros = |name: &str, said: &Option<String>, otherwise: u64| match said {
            None => Ok(otherwise),
            Some(text) => decimal::parse(text.as_bytes())
                .map_err(|_| format!("{name}: '{text}' is no number of requests per second")),
        };
        let length = |name: &str, said: &Option<String>, otherwise: Duration| {
            said.as_ref().map_or(Ok(otherwise), |text| {
                duration(text).map_err(|error| format!("{name}: {error}"))
            })
        };
        let profile = self.profile.unwrap_or(Profile::OffPath);
        let sla = length("sla", &self.sla, SLA)?;
        let sla_us = u64::try_from(sla.as_micros()).unwrap_or(u64::MAX);
        let nominal_micros = micros("nominal", &self.nominal, rate)?;
        let min_micros = micros("min", &self.min, rate.div_ceil(PARTS_MIN).max(1_000))?;
        let max_micros = micros("max", &self.max, rate.saturating_mul(TIMES_MAX))?;
        let in_flight = match (profile, self.in_flight) {
            (Profile::OnPath, None) => Some(in_flight(nominal_micros, sla_us)),
            (Profile::OnPath, said) => said,
            (Profile::OffPath, None) => None,
            (Profile::OffPath, Some(_)) => {
                return Err("in_flight is for what is on the path".to_owned());
            }
        };
        let bounds = Bounds {
            nominal_micros,
            min_micros,
            max_micros,
            max_capacity: self.max_capacity.unwrap_or(limit.capacity().saturating_mul(TIMES_MAX)),
            sla_us,
            slew_percent: self.slew_percent.unwrap_or(SLEW_PERCENT),
            fallback: Policy { refill_micros: rate, capacity: limit.capacity(), in_flight },
        };
        bounds.check().map_err(|error| error.to_string())?;
        let block = length("block", &self.block, BLOCK)?;
        if !(Duration::from_secs(1)..=Duration::from_secs(3_600)).contains(&block) {
            return Err("block is not 1s to 1h".to_owned());
        }
        Ok(Settings {
            mode: self.mode.unwrap_or(Mode::Shadow),
            profile,
            bounds,
            block,
            premium: self.premium.as_ref().map(PremiumSaid::read).transpose()?,
        })
    }
}

/// What is in flight when so many requests come and each of them takes as long as it may: at least 2.
fn in_flight(rate_micros: u64, sla_us: u64) -> u64 {
    let product = u128::from(rate_micros).saturating_mul(sla_us.into());
    u64::try_from(product.div_ceil(1_000_000_000_000)).unwrap_or(u64::MAX).max(2)
}

impl PremiumSaid {
    fn read(&self) -> Result<Premium, String> {
        let sign = match (&self.header, &self.value, self.weight) {
            (Some(header), value, None) => {
                let name = header.parse().map_err(|_| format!("'{header}' is no header field"))?;
                Sign::Header(name, Pattern::new(value.as_deref().unwrap_or("*")))
            }
            (None, None, Some(weight)) if WEIGHTS.contains(&weight) => Sign::Weight(weight),
            (None, None, Some(_)) => {
                let (least, most) = WEIGHTS.into_inner();
                return Err(format!("premium: weight is not {least} to {most}"));
            }
            (None, Some(_), _) => return Err("premium: value is that of a header".to_owned()),
            _ => return Err("premium: it is told by one of header and weight".to_owned()),
        };
        let keep = self.keep.unwrap_or(KEEP);
        if !(1..=90).contains(&keep) {
            return Err("premium: keep is not 1 to 90".to_owned());
        }
        Ok(Premium { sign, keep })
    }
}

impl Adaptive {
    /// A limit that has seen nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let meter = Arc::new(Meter::new(settings.bounds.fallback));
        Self { settings, meter, capacity: AtomicU64::new(u64::MAX) }
    }

    /// The server has said what the bucket's capacity is.
    pub fn learn(&self, capacity: i64) {
        let capacity = u64::try_from(capacity).unwrap_or(u64::MAX);
        if self.capacity.load(Ordering::Relaxed) != capacity {
            self.capacity.store(capacity, Ordering::Relaxed);
        }
    }

    /// Whether it goes by the weight of the user's bucket.
    #[must_use]
    pub fn goes_by_weight(&self) -> bool {
        let premium = self.settings.premium.as_ref();
        premium.is_some_and(|premium| matches!(premium.sign, Sign::Weight(_)))
    }

    /// Hundredths that a request has to leave for others.
    #[must_use]
    pub fn kept(&self, facts: &Facts<'_>) -> u8 {
        let Some(premium) = &self.settings.premium else { return 0 };
        let is_premium = match &premium.sign {
            Sign::Header(name, value) => {
                facts.header(name.as_str()).is_some_and(|said| value.fits(said))
            }
            Sign::Weight(least) => facts.weight.is_some_and(|weight| weight >= *least),
        };
        if is_premium { 0 } else { premium.keep }
    }

    /// Tokens that a request leaves which leaves so many hundredths, or `least` if that is more. Never all
    /// of them: what is decided may be fewer than the operator had in mind.
    #[must_use]
    pub fn keep(&self, hundredths: u8, least: u64) -> u64 {
        let capacity = self.meter.policy().capacity.min(self.capacity.load(Ordering::Relaxed));
        share(capacity, hundredths).max(least).min(capacity.saturating_sub(1))
    }
}
