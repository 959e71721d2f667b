//! What the leader of a route does in a tick: it sums what all instances have seen, and decides.
//! Pure: time and reports come in.

use std::collections::HashMap;

use claw_adapt::trial::{Arm, Difference, Seen, Trial, Verdict};
use claw_adapt::weights::{Loop, Weights};
use claw_adapt::{Change, Controller, DecidedBy, Mode as By, Observation, Policy};

use super::decision::{Decision, parts};
use super::shared::Standing;
use crate::limits;
use crate::limits::adaptive::{Mode, Profile, Settings};
use crate::meter::Totals;

/// Latencies before there were any, as a share of the SLA.
const BEFORE: f64 = 0.1;
/// Parts of an instance's admitted requests that the newest tick makes up.
const NEW: u64 = 16;
/// What a request adds to the weight of an instance, so that parts of it can be forgotten.
const ONE: u64 = 1_000;

/// What the text of a trial begins with.
const SETTINGS: &str = "settings ";

/// What the leader knows.
#[derive(Debug)]
pub struct Lead {
    settings: Settings,
    /// What decides.
    decider: Controller,
    /// What would decide, if it were believed to be better there: the network on the path.
    network: Option<Controller>,
    known: HashMap<String, Known>,
    /// Of the last completions: half, 95 %, mean, 10 %, in seconds.
    latencies: [f64; 4],
    in_force: Policy,
    last_us: Option<u64>,
    trial: Trial,
}

#[derive(Debug, Default)]
struct Known {
    totals: Totals,
    weight: u64,
}

/// What comes out of a tick.
#[derive(Debug)]
pub struct Step {
    /// For all instances.
    pub decision: Decision,
    /// What the loop decided, in force or not.
    pub decided: Option<Policy>,
    /// What the network over it would have decided.
    pub network: Option<Policy>,
    /// The trial, if there is one.
    pub trial: Option<Standings>,
}

/// How a trial stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standings {
    /// Pairs of blocks that count.
    pub pairs: usize,
    /// By how much the loop is better.
    pub difference: Option<Difference>,
    /// What they come to.
    pub verdict: Verdict,
}

/// The weights that decide about a profile.
///
/// # Errors
/// When the file that this program was built with is damaged.
pub fn weights(profile: Profile) -> Result<Weights, String> {
    let corrects = match profile {
        Profile::OnPath => Loop::OnPath,
        Profile::OffPath => Loop::OffPath,
    };
    Weights::shipped(corrects).map_err(|error| format!("{}: {error}", corrects.name()))
}

impl Lead {
    /// A leader that begins where another one may have stopped.
    ///
    /// # Errors
    /// When the weights that this program was built with are damaged.
    pub fn new(settings: &Settings, before: &Standing) -> Result<Self, String> {
        let controller =
            |mode| Controller::new(mode, settings.bounds).map_err(|error| error.to_string());
        let learned = By::Learned(Box::new(weights(settings.profile)?));
        let (decider, network) = match settings.profile {
            Profile::OffPath => (controller(learned)?, None),
            Profile::OnPath => {
                let inner = controller(By::Inner(Loop::OnPath.parameters()))?;
                (inner, Some(controller(learned)?))
            }
        };
        let decision = before.kept.decision.as_ref();
        let decision = decision.filter(|decision| decision.holds(before.now_ms));
        let in_force = match decision {
            Some(decision) if decision.is_live => decision.policy,
            _ => settings.bounds.fallback,
        };
        // What another version has written is no trial of this one's, nor one under other settings.
        let kept = kept_trial(&before.kept.trial);
        let trial = kept.filter(|(under, _)| *under == name_of(settings)).map(|(_, trial)| trial);
        let sla_s = settings.bounds.sla_us as f64 / 1e6;
        Ok(Self {
            settings: settings.clone(),
            decider,
            network,
            known: HashMap::new(),
            latencies: [BEFORE * sla_s; 4],
            in_force,
            last_us: None,
            trial: trial.unwrap_or_else(|| new_trial(settings)),
        })
    }

    /// What these settings ask for.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The trial, as other leaders can go on with it.
    #[must_use]
    pub fn trial_text(&self) -> String {
        format!("{SETTINGS}{}\n{}", name_of(&self.settings), self.trial.to_text())
    }

    /// Forgets what was tried.
    pub fn begin_trial(&mut self) {
        self.trial = new_trial(&self.settings);
    }

    /// Decides at `now_us`, a clock that does not step, for a route that is switched to `mode`.
    pub fn step(&mut self, now_us: u64, standing: &Standing, mode: Mode) -> Step {
        let seen = self.sum(&standing.reports);
        let elapsed_us =
            self.last_us.map_or(claw_adapt::TICK_US, |last| now_us.saturating_sub(last));
        self.last_us = Some(now_us);
        let observation = self.observe(&seen, elapsed_us);
        let fallback = self.settings.bounds.fallback;
        let Change { policy, by } = match mode {
            Mode::Off => Change { policy: fallback, by: DecidedBy::Static },
            _ => self.decider.step(now_us, &observation),
        };
        let network = match mode {
            Mode::Off => None,
            _ => self.network.as_mut().map(|network| network.step(now_us, &observation).policy),
        };
        let mut trial = None;
        let is_live = match mode {
            Mode::Off | Mode::Shadow => false,
            Mode::On => true,
            Mode::Canary => {
                let in_sla = seen.completed.saturating_sub(seen.late);
                let (offered, _) = asked(&seen);
                let Totals { late, failed, .. } = seen;
                let late = late.saturating_add(failed);
                self.trial.see(now_us, Seen { offered, in_sla, late });
                let verdict = self.trial.verdict();
                trial = Some(Standings {
                    pairs: self.trial.pairs().len(),
                    difference: self.trial.difference(),
                    verdict,
                });
                // What is worse than the operator's limit is not tried on.
                verdict != Verdict::Worse && self.trial.arm(now_us) == Arm::Adaptive
            }
        };
        self.in_force = if is_live { policy } else { fallback };
        let at_ms = standing.now_ms;
        let decided = (mode != Mode::Off).then_some(policy);
        let (policy, parts) = (self.in_force, self.parts());
        let decision = Decision { at_ms, mode, is_live, by, policy, parts };
        Step { decision, decided, network, trial }
    }

    /// What holds in place of a decision that could not be put in force.
    pub fn without_force(&mut self, decision: &Decision) -> Decision {
        self.in_force = self.settings.bounds.fallback;
        let (policy, parts) = (self.in_force, self.parts());
        Decision { is_live: false, policy, parts, ..decision.clone() }
    }

    /// What each instance may have in flight of what is in force.
    fn parts(&self) -> Vec<(String, u64)> {
        let weight = |(name, known): (&String, &Known)| (name.clone(), known.weight);
        let weights: Vec<(String, u64)> = self.known.iter().map(weight).collect();
        self.in_force.in_flight.map_or(Vec::new(), |cap| parts(cap, &weights))
    }

    /// What all instances have seen since the tick before. Of one that was not known, nothing: it may
    /// have counted for hours.
    fn sum(&mut self, reports: &[(String, Totals)]) -> Totals {
        let mut sum = Totals::default();
        let mut known = HashMap::with_capacity(reports.len());
        for (name, totals) in reports {
            let before = self.known.remove(name);
            let since = before.as_ref().and_then(|before| totals.since(&before.totals));
            let since =
                since.unwrap_or(Totals { in_flight: totals.in_flight, ..Totals::default() });
            let weight = before.map_or(0, |before| before.weight);
            let faded = weight.saturating_sub(weight.div_ceil(NEW));
            let weight = faded.saturating_add(since.admitted.saturating_mul(ONE));
            sum.add(&since);
            known.insert(name.clone(), Known { totals: totals.clone(), weight });
        }
        self.known = known;
        sum
    }

    /// The tick, as the controllers read it.
    fn observe(&mut self, seen: &Totals, elapsed_us: u64) -> Observation {
        let tick_s = elapsed_us as f64 / 1e6;
        let quantiles = [50, 95, 10].map(|hundredths| seen.quantile_s(hundredths));
        match (quantiles, seen.mean_s()) {
            ([Some(half), Some(most), Some(few)], Some(mean)) => {
                // A latency of 0 is one that was not measured well enough.
                self.latencies = [half, most, mean, few].map(|latency| latency.max(1e-6));
            }
            _ if seen.in_flight > 0 => {
                let [half, most, mean, _] = &mut self.latencies;
                for latency in [half, most, mean] {
                    *latency += tick_s;
                }
            }
            _ => {}
        }
        let [p50_s, p95_s, mean_s, p10_s] = self.latencies;
        let completed = seen.completed as f64;
        let (offered, admitted) = asked(seen);
        let in_flight = match self.settings.profile {
            Profile::OnPath => seen.in_flight as f64,
            Profile::OffPath if tick_s > 0.0 => completed / tick_s * mean_s,
            Profile::OffPath => 0.0,
        };
        Observation {
            offered: offered as f64,
            admitted: admitted as f64,
            rejected: seen.rejected as f64,
            completed,
            late: seen.late as f64,
            p50_s,
            p95_s,
            mean_s,
            p10_s,
            in_flight,
            policy: self.in_force,
        }
    }
}

/// The settings that a trial is of, by name, and the trial: what [`Lead::trial_text`] has written, or nothing.
#[must_use]
pub fn kept_trial(text: &str) -> Option<(&str, Trial)> {
    let (under, trial) = text.strip_prefix(SETTINGS)?.split_once('\n')?;
    Some((under, Trial::from_text(trial).ok()?))
}

fn new_trial(settings: &Settings) -> Trial {
    Trial::new(u64::try_from(settings.block.as_micros()).unwrap_or(u64::MAX))
}

/// Tells settings from others, whatever the mode: pairs under different ones are no trial of either.
fn name_of(settings: &Settings) -> String {
    limits::digest(&format!("{:?}", Settings { mode: Mode::Canary, ..settings.clone() }))
}

/// Requests that asked, and that were let through. Where nobody asks this service, events are all that is
/// known of them, also those that tell nothing of the backend: that it is silent shows by these.
fn asked(seen: &Totals) -> (u64, u64) {
    match seen.offered {
        0 => (seen.events, seen.events),
        offered => (offered, seen.admitted),
    }
}
