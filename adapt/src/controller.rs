//! The tick: inner loop, learned correction, and when neither is believed.

use crate::bounds::{Bounds, BoundsError};
use crate::drain::{Drain, Parameters};
use crate::network::{INPUTS, OUTPUTS, SATURATED, features, squash};
use crate::observation::{Observation, Time};
use crate::policy::{Aim, Policy};
use crate::weights::Weights;

/// Microseconds from one tick to the next, as it should be.
pub const TICK_US: u64 = 100_000;

/// A tick that came early or late is taken to be within these.
const TICKS_US: (u64, u64) = (20_000, 1_000_000);

/// Microseconds without news of the backend after which the operator's own limit holds.
const SILENCE_US: u64 = 3_000_000;

/// Admitted requests of which one must have been heard of in that time: with fewer, it was just quiet.
const SILENT_REQUESTS: f64 = 10.0;

/// How far the corrected rate may get from the uncorrected loop's. Corrections add up from tick to
/// tick, which is where their gain is; so what is bounded is their sum.
const BAND: (f64, f64) = (0.5, 2.0);

/// Ticks in a row with a saturated correction after which the network is not believed.
const SATURATED_TICKS: u32 = 20;

/// Ticks in a row with an older decision in force after which decisions are known to take effect late.
const LATE_TICKS: u32 = 3;

/// Decisions that are remembered to find that out.
const REMEMBERED: usize = 16;

/// Microseconds for which it is believed, from the latest sign of it.
const LATE_US: u64 = 10_000_000;

/// Who decides.
#[derive(Debug, Clone, PartialEq)]
pub enum Mode {
    /// The operator's own limit, always.
    Static,
    /// The inner loop alone: [`Parameters::ON_PATH`] or [`Parameters::OFF_PATH`].
    Inner(Parameters),
    /// The inner loop that the weights were trained for, corrected by them.
    Learned(Box<Weights>),
}

/// Who decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecidedBy {
    /// The operator, because that is the mode.
    Static,
    /// The operator's limit, because there was no news of the backend, or none that could be believed.
    Silence,
    /// The policy stays for now: this tick's observation could not be believed.
    Held,
    /// The inner loop, because that is the mode.
    Inner,
    /// The inner loop, because the network's output was not a number or saturated, or decisions take effect
    /// late, which it was not trained for.
    Distrusted,
    /// The network over the inner loop.
    Learned,
}

/// What is to hold from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Within the bounds, always.
    pub policy: Policy,
    /// Who decided.
    pub by: DecidedBy,
}

/// What training puts in place of a network's output.
pub type Explore<'a> = &'a mut dyn FnMut(&[f32; INPUTS], [f32; OUTPUTS]) -> [f32; OUTPUTS];

/// Decides one route's policy, tick by tick.
#[derive(Debug, Clone)]
pub struct Controller {
    bounds: Bounds,
    mode: Mode,
    state: Option<State>,
    last: Option<u64>,
    news: News,
    effect: Effect,
}

/// The loops of a controller that has one.
#[derive(Debug, Clone)]
struct State {
    inner: Drain,
    learner: Option<Learner>,
}

/// The network's side, and the loop left to itself beside the one that is corrected.
#[derive(Debug, Clone)]
struct Learner {
    alone: Drain,
    alone_rate: Option<f64>,
    before: f32,
    saturated: u32,
    /// Whether decisions take effect late.
    is_late: bool,
}

/// When decisions take effect.
#[derive(Debug, Clone, Default)]
struct Effect {
    /// The latest that was decided, rates and caps, the last one at the end.
    decided: Vec<(u64, Option<u64>)>,
    late_ticks: u32,
    late_until_us: u64,
}

/// How long there has been none.
#[derive(Debug, Clone, Copy, Default)]
struct News {
    silent_us: u64,
    admitted: f64,
    unbelieved_us: u64,
}

impl Controller {
    /// A controller that has seen nothing.
    ///
    /// # Errors
    /// When the bounds are none.
    pub fn new(mode: Mode, bounds: Bounds) -> Result<Self, BoundsError> {
        bounds.check()?;
        let mut controller = Self {
            bounds,
            mode,
            state: None,
            last: None,
            news: News::default(),
            effect: Effect::default(),
        };
        controller.state = controller.fresh();
        Ok(controller)
    }

    /// The policy to begin with: 80 % of the nominal rate, or the operator's limit.
    #[must_use]
    pub fn start(&self) -> Policy {
        match &self.state {
            None => self.bounds.fallback,
            Some(state) => self.round(state.inner.start(&self.bounds), self.bounds.rates()),
        }
    }

    /// Decides at `now` (microseconds of any clock that does not step) after what was `seen` since the
    /// step before.
    pub fn step(&mut self, now: u64, seen: &Observation) -> Change {
        self.step_exploring(now, seen, &mut |_, output| output)
    }

    /// As [`Self::step`], with `explore` between the network and what is made of its output: it is given
    /// what the network read and what it said. Only training has a use for that.
    pub fn step_exploring(&mut self, now: u64, seen: &Observation, explore: Explore<'_>) -> Change {
        let elapsed = match self.last.and_then(|last| now.checked_sub(last)) {
            Some(us) => us.clamp(TICKS_US.0, TICKS_US.1),
            None => TICK_US,
        };
        self.last = Some(now);
        let fallback = self.bounds.fallback;
        let Some(state) = &mut self.state else {
            return Change { policy: fallback, by: DecidedBy::Static };
        };
        let unbelieved = self.news.unbelieved(elapsed, seen);
        if unbelieved.is_some_and(|us| us < SILENCE_US) {
            return Change { policy: self.hold(seen), by: DecidedBy::Held };
        }
        if unbelieved.is_some() || self.news.silent(elapsed, seen) {
            self.state = self.fresh();
            self.effect = Effect::default();
            return Change { policy: fallback, by: DecidedBy::Silence };
        }
        let late_ticks = self.effect.late_ticks(&seen.policy);
        let seconds = |ticks: usize| ticks as f64 * TICK_US as f64 / 1e6;
        let is_late = self.effect.is_late(now, late_ticks > Some(0));
        let time = Time { tick_s: elapsed as f64 / 1e6, late_s: late_ticks.map(seconds) };
        let rate = seen.policy.rate();
        let (aim, by) = match (&mut state.learner, &self.mode) {
            (Some(learner), Mode::Learned(weights)) => {
                learner.is_late = is_late;
                learner.tick(&mut state.inner, weights, time, seen, &self.bounds, explore)
            }
            _ => (state.inner.tick(time, rate, seen, &self.bounds), DecidedBy::Inner),
        };
        if !aim.is_valid() {
            self.state = self.fresh();
            return Change { policy: fallback, by: DecidedBy::Silence };
        }
        let policy = self.round(aim, self.bounds.reach(rate));
        self.effect.decide(&policy);
        Change { policy, by }
    }

    /// Loops that have seen nothing.
    fn fresh(&self) -> Option<State> {
        let inner = |parameters| Drain::new(parameters, &self.bounds);
        match &self.mode {
            Mode::Static => None,
            Mode::Inner(parameters) => Some(State { inner: inner(*parameters), learner: None }),
            Mode::Learned(weights) => {
                let inner = inner(weights.parameters);
                let alone = inner.clone();
                let learner =
                    Learner { alone, alone_rate: None, before: 0.0, saturated: 0, is_late: false };
                Some(State { inner, learner: Some(learner) })
            }
        }
    }

    /// What was in force, brought within the bounds.
    fn hold(&self, seen: &Observation) -> Policy {
        let Policy { refill_micros, capacity, in_flight } = seen.policy;
        Policy {
            refill_micros: refill_micros.clamp(self.bounds.min_micros, self.bounds.max_micros),
            capacity: capacity.clamp(2, self.bounds.max_capacity),
            in_flight: in_flight.map(|cap| cap.max(1)),
        }
    }

    fn round(&self, mut aim: Aim, (least, most): (f64, f64)) -> Policy {
        aim.rate = aim.rate.clamp(least, most);
        let mut policy = aim.round();
        // A rate at a bound may be rounded to just beyond it.
        policy.refill_micros =
            policy.refill_micros.clamp(self.bounds.min_micros, self.bounds.max_micros);
        policy.capacity = policy.capacity.min(self.bounds.max_capacity);
        policy
    }
}

impl Effect {
    /// For how many ticks what is in force is not the last that was decided; 0 before anything was. `None` for
    /// what was never decided, or long ago: somebody else has set it.
    fn late_ticks(&self, in_force: &Policy) -> Option<usize> {
        if self.decided.is_empty() {
            return Some(0);
        }
        let in_force = (in_force.refill_micros, in_force.in_flight);
        self.decided.iter().rev().position(|decided| *decided == in_force)
    }

    /// Whether decisions take effect late: for some time older ones have been in force.
    fn is_late(&mut self, now: u64, is_older: bool) -> bool {
        self.late_ticks = if is_older { self.late_ticks.saturating_add(1) } else { 0 };
        if self.late_ticks >= LATE_TICKS {
            self.late_until_us = now.saturating_add(LATE_US);
        }
        now < self.late_until_us
    }

    fn decide(&mut self, policy: &Policy) {
        if self.decided.len() >= REMEMBERED {
            self.decided.remove(0);
        }
        self.decided.push((policy.refill_micros, policy.in_flight));
    }
}

impl News {
    /// Notes a believable observation, and says whether there was no news of the backend for too long.
    fn silent(&mut self, elapsed: u64, seen: &Observation) -> bool {
        if seen.completed > 0.0 {
            (self.silent_us, self.admitted) = (0, 0.0);
            return false;
        }
        self.silent_us = self.silent_us.saturating_add(elapsed);
        self.admitted += seen.admitted;
        self.silent_us >= SILENCE_US && self.admitted >= SILENT_REQUESTS
    }

    /// For how many microseconds nothing could be believed, this observation included; `None` when it can.
    fn unbelieved(&mut self, elapsed: u64, seen: &Observation) -> Option<u64> {
        let us = if seen.is_valid() { 0 } else { self.unbelieved_us.saturating_add(elapsed) };
        self.unbelieved_us = us;
        (us > 0).then_some(us)
    }
}

impl Learner {
    fn tick(
        &mut self,
        inner: &mut Drain,
        weights: &Weights,
        time: Time,
        seen: &Observation,
        bounds: &Bounds,
        explore: Explore<'_>,
    ) -> (Aim, DecidedBy) {
        let rate = seen.policy.rate();
        let alone = self.alone.tick(time, self.alone_rate.unwrap_or(rate), seen, bounds);
        self.alone_rate = Some(alone.rate);
        let input: [f32; INPUTS] = features(seen, time.tick_s, bounds, self.before);
        let [before, ..] = input;
        self.before = before;
        let mut aim = inner.tick(time, rate, seen, bounds);
        if self.is_late {
            return (aim, DecidedBy::Distrusted);
        }
        let [of_rate, of_burst] = explore(&input, weights.network.forward(&input).output);
        self.saturated =
            if of_rate.abs() >= SATURATED { self.saturated.saturating_add(1) } else { 0 };
        if !(of_rate.is_finite() && of_burst.is_finite()) || self.saturated >= SATURATED_TICKS {
            return (alone, DecidedBy::Distrusted);
        }
        let (min, max) = bounds.rates();
        let seconds = aim.burst / aim.rate * libm::exp(f64::from(squash(of_burst)));
        let corrected = (aim.rate * libm::exp(0.5 * f64::from(squash(of_rate)))).clamp(min, max);
        // The bucket's seconds are those of the rate before the band, which seldom binds.
        aim.burst = (corrected * seconds).max(2.0);
        let (low, high) = (BAND.0 * alone.rate, BAND.1 * alone.rate);
        aim.rate = corrected.clamp(low, high).clamp(min, max);
        (aim, DecidedBy::Learned)
    }
}
