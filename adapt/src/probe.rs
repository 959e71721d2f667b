//! Whether the backend would deliver more if more were in flight: now and then it is tried.
//!
//! What a request takes is told from a queue by how much latencies vary, and a backend whose service times
//! hardly vary looks as if it took nothing. Then the cap is too low, fewer are delivered, and the cap, a
//! multiple of what is delivered, falls further. So for a moment a little more is let in. If that much more is
//! delivered and nobody waits for longer there was no queue, and the cap stays that much higher; if it only makes
//! the queue longer, it does not. In the same way it comes down again, as long as that costs nothing.

use crate::observation::{Observation, Time};

/// Completions without which nothing is concluded, and seconds in which they have to come: so many, or as often
/// the SLA. Two requests are in flight at the least; if each takes up to the SLA, there are 40 in twenty times
/// that. In less, a cap that is much too low would keep them from coming, and so stay for good.
const EVIDENCE: f64 = 40.0;
const LEAST_S: f64 = 0.35;
const LONGEST_S: f64 = 1.5;
const LONGEST_SLAS: f64 = 20.0;

/// Seconds until what was let in shows, at the most.
const SETTLED_S: f64 = 1.0;

/// Shares of a step up: at least so much more has to be delivered, and at most so much longer may half of the requests take.
const DELIVERED: f64 = 0.6;
const SLOWER: f64 = 0.5;

/// Share of a step down that may be lost of what is delivered.
const LOST: f64 = 0.35;

/// Seconds between two trials, at first and at the most: each that finds nothing doubles them.
const REST_S: (f64, f64) = (1.0, 20.0);

/// The factor at the most.
const MOST: f64 = 8.0;

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    /// Nothing: what is delivered is measured.
    None,
    More,
    Less,
}

/// Completions of some seconds.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    seconds: f64,
    completed: f64,
    rejected: f64,
    /// Sum of the medians, each as often as there were completions in its tick.
    medians_s: f64,
}

impl Sample {
    fn per_second(&self) -> f64 {
        self.completed / self.seconds
    }

    fn median_s(&self) -> f64 {
        self.medians_s / self.completed
    }
}

/// A factor on the cap that is found by trials.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    /// By how much more a trial lets in: 0.25 is a quarter. 0: there is none.
    step: f64,
    factor: f64,
    trial: Trial,
    /// Seconds since the trial began, or the last one ended.
    age_s: f64,
    sample: Sample,
    before: Sample,
    /// Seconds since the last trial, and how many there have to be before the next one.
    rested_s: f64,
    rest_s: f64,
}

impl Probe {
    pub(crate) fn new(step: f64) -> Self {
        let sample = Sample::default();
        Self {
            step,
            factor: 1.0,
            trial: Trial::None,
            age_s: 0.0,
            sample,
            before: sample,
            rested_s: 0.0,
            rest_s: REST_S.0,
        }
    }

    /// What the cap is multiplied by.
    pub(crate) fn factor(&self) -> f64 {
        match self.trial {
            Trial::None => self.factor,
            Trial::More => self.factor * (1.0 + self.step),
            Trial::Less => self.factor / (1.0 + self.step),
        }
    }

    /// One tick, under the factor that was decided before. While something else is in force nothing is tried.
    pub(crate) fn tick(&mut self, time: Time, seen: &Observation, sla_s: f64) {
        let dt = time.tick_s;
        let Some(late_s) = time.late_s else {
            (self.trial, self.sample, self.age_s) = (Trial::None, Sample::default(), 0.0);
            return;
        };
        self.rested_s += dt;
        self.age_s += dt;
        if self.age_s > seen.mean_s.min(SETTLED_S) + late_s + dt {
            self.sample.seconds += dt;
            self.sample.completed += seen.completed;
            self.sample.rejected += seen.rejected;
            self.sample.medians_s += seen.completed * seen.p50_s;
        }
        let is_enough = self.sample.completed >= EVIDENCE;
        let longest_s = LONGEST_S.max(LONGEST_SLAS * sla_s);
        if self.sample.seconds < LEAST_S || !is_enough && self.sample.seconds < longest_s {
            return;
        }
        let sample = std::mem::take(&mut self.sample);
        self.age_s = 0.0;
        if is_enough {
            self.conclude(sample);
        } else {
            self.trial = Trial::None;
            self.factor += 0.1 * (1.0 - self.factor);
        }
    }

    /// What is next, after a `sample` under what is tried now. Where nobody is refused more is not asked for, and
    /// nothing can be concluded.
    fn conclude(&mut self, sample: Sample) {
        let is_full = sample.rejected > 0.0;
        let more = sample.per_second() / self.before.per_second();
        let slower = sample.median_s() / self.before.median_s();
        match self.trial {
            Trial::None => {
                self.before = sample;
                if is_full && self.rested_s >= self.rest_s {
                    self.trial = Trial::More;
                    self.rested_s = 0.0;
                }
            }
            Trial::More
                if is_full
                    && more >= 1.0 + DELIVERED * self.step
                    && slower <= 1.0 + SLOWER * self.step =>
            {
                self.factor = self.factor().min(MOST);
                self.before = sample;
                self.rest_s = REST_S.0;
            }
            Trial::More if is_full && self.factor > 1.0 => self.trial = Trial::Less,
            Trial::Less if is_full && more >= 1.0 - LOST * self.step => {
                self.factor = self.factor().max(1.0);
                self.before = sample;
                self.trial = Trial::None;
                self.rested_s = 0.0;
                self.rest_s = REST_S.0;
            }
            Trial::More | Trial::Less => {
                self.trial = Trial::None;
                self.rest_s = (2.0 * self.rest_s).min(REST_S.1);
            }
        }
    }
}
