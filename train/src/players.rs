//! Whoever can play a run: the controller that ships, and what it is compared with.

use crate::world::Decide;
use claw_adapt::policy::Aim;
use claw_adapt::{Bounds, BoundsError, Controller, Mode, Observation, Policy};

const TICK_S: f64 = 0.1;

/// By what a player is made; parameters are those that a random search found on other seeds.
#[derive(Clone)]
pub enum Player {
    Shipped(Mode),
    /// A share of the nominal rate.
    Static,
    Aimd,
    /// Little's law with the rate of the last ticks.
    Little,
    /// After Netflix' concurrency limits.
    Gradient2,
    /// After Breakwater: credits by queueing delay.
    Breakwater,
}

impl Player {
    /// # Errors
    /// When the bounds are none.
    pub fn seat(&self, bounds: Bounds) -> Result<Box<dyn Decide>, BoundsError> {
        let rival = |rule| Ok(Box::new(Rival::new(rule, bounds)) as Box<dyn Decide>);
        match self {
            Self::Shipped(mode) => Ok(Box::new(Controller::new(mode.clone(), bounds)?)),
            Self::Static => rival(Rule::Static),
            Self::Aimd => rival(Rule::Aimd),
            Self::Little => rival(Rule::Little),
            Self::Gradient2 => rival(Rule::Gradient2),
            Self::Breakwater => rival(Rule::Breakwater),
        }
    }
}

impl Decide for Controller {
    fn start(&mut self) -> Policy {
        Self::start(self)
    }
    fn step(&mut self, now: u64, seen: &Observation) -> Policy {
        Self::step(self, now, seen).policy
    }
}

enum Rule {
    Static,
    Aimd,
    Little,
    Gradient2,
    Breakwater,
}

struct Rival {
    rule: Rule,
    nominal: f64,
    sla: f64,
    min: f64,
    max: f64,
    /// Delivery rate, or the cap on what is in flight.
    level: f64,
    /// Long latency, or the one without a queue.
    latency: Option<f64>,
}

impl Rival {
    fn new(rule: Rule, bounds: Bounds) -> Self {
        let nominal = bounds.nominal_micros as f64 / 1e6;
        let sla = bounds.sla_us as f64 / 1e6;
        let level = match rule {
            Rule::Gradient2 | Rule::Breakwater => (0.3 * nominal * sla).max(2.0),
            _ => 0.8 * nominal,
        };
        let latency = matches!(rule, Rule::Breakwater).then_some(0.1 * sla);
        let (min, max) = (bounds.min_micros as f64 / 1e6, bounds.max_micros as f64 / 1e6);
        Self { rule, nominal, sla, min, max, level, latency }
    }

    fn of_rate(&self, rate: f64, seconds: f64) -> Aim {
        Aim::of_rate(rate.clamp(self.min, self.max), seconds)
    }

    /// A cap alone: the rate is as great as it may be.
    fn of_level(&mut self) -> Aim {
        self.level = self.level.clamp(2.0, (2.0 * self.nominal * self.sla).max(2.0));
        Aim { in_flight: self.level, ..Aim::of_rate(self.max, 1.0) }
    }

    fn aim(&mut self, seen: &Observation) -> Aim {
        let rate = seen.policy.rate();
        let used = seen.admitted / TICK_S > 0.7 * rate;
        let wanted = seen.in_flight >= 0.5 * self.level || seen.rejected > 0.0;
        let unit = self.nominal * self.sla;
        match &mut self.rule {
            Rule::Static => self.of_rate(0.3823 * self.nominal, 0.0269),
            Rule::Aimd => {
                let next = if seen.p95_s > 0.6672 * self.sla {
                    0.838 * rate
                } else if used {
                    rate + 0.0305 * self.nominal
                } else {
                    rate
                };
                self.of_rate(next, 0.0428)
            }
            Rule::Little => {
                self.level += 0.0565 * (seen.completed / TICK_S - self.level);
                let target = 0.359 * self.sla * self.level;
                let excess = seen.in_flight - target;
                let next = if excess > 0.0 {
                    (self.level - 0.7911 * excess / TICK_S).max(0.1 * self.level)
                } else if used {
                    rate.max(self.level) * 1.0962
                } else {
                    rate
                };
                self.of_rate(next, 0.0715)
            }
            Rule::Gradient2 => {
                let short = seen.mean_s;
                let mut long = self.latency.unwrap_or(short);
                long += 0.008 * (short - long);
                if long / short > 2.0 {
                    long *= 0.95;
                }
                self.latency = Some(long);
                if wanted {
                    let gradient = (1.9899 * long / short).clamp(0.5, 1.0);
                    self.level += 0.1009 * (self.level * gradient + 0.0015 * unit - self.level);
                }
                self.of_level()
            }
            Rule::Breakwater => {
                let mut low = self.latency.unwrap_or(seen.p10_s);
                if seen.completed > 0.0 {
                    let share = if seen.p10_s < low { 1.0 } else { 1.0 - libm::exp(-TICK_S / 2.0) };
                    low += share * (seen.p10_s - low);
                }
                self.latency = Some(low);
                let aim = 0.2047 * self.sla;
                let queueing = (seen.mean_s - low).max(0.0).max(seen.p10_s - low);
                if queueing >= aim {
                    self.level *= (1.0 - 0.4431 * (queueing - aim) / aim).max(0.5);
                } else if wanted {
                    self.level += (0.0828 * unit).max(0.2);
                }
                self.of_level()
            }
        }
    }
}

impl Decide for Rival {
    fn start(&mut self) -> Policy {
        let aim = match self.rule {
            Rule::Static => self.of_rate(0.3823 * self.nominal, 0.0269),
            Rule::Gradient2 | Rule::Breakwater => self.of_level(),
            _ => self.of_rate(0.8 * self.nominal, 0.06),
        };
        aim.round()
    }
    fn step(&mut self, _now: u64, seen: &Observation) -> Policy {
        self.aim(seen).round()
    }
}
