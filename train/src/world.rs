//! One run: clients, the bucket that ships, a cap on what is in flight, a queue, servers.

use crate::scenario::{DURATION_S, Scenario, WARM_S};
use claw_adapt::{Observation, Policy, TICK_US};
use claw_core::bucket::{Bucket, Demand, Weight};
use claw_core::policy::PolicyError;
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// What a premium request counts against a basic one.
pub const PREMIUM_WEIGHT: f64 = 4.0;

const TICK_S: f64 = TICK_US as f64 / 1e6;

/// Whoever decides the policy.
pub trait Decide {
    fn start(&mut self) -> Policy;
    fn step(&mut self, now: u64, seen: &Observation) -> Policy;
    /// What the last decision has brought.
    fn reward(&mut self, _reward: f64) {}
}

/// How premium and basic users share a limit.
#[derive(Clone, Copy)]
pub enum Share {
    /// All alike.
    Alike,
    /// Basic users leave this share of tokens and of slots free.
    Keep(f64),
}

#[derive(Clone, Copy, Default, Debug, PartialEq)]
pub struct Score {
    /// Requests done within the SLA; premium, basic.
    good: [f64; 2],
    /// Requests done later.
    late: f64,
    /// Fresh requests that an oracle without a queue would serve; premium, basic.
    ideal: [f64; 2],
}

impl Score {
    /// Requests done within the SLA.
    pub fn done(&self) -> f64 {
        self.good[0] + self.good[1]
    }
    /// Requests that an oracle without a queue would have done.
    pub fn possible(&self) -> f64 {
        self.ideal[0] + self.ideal[1]
    }
    pub fn goodput(&self) -> f64 {
        self.done() / self.possible()
    }
    pub fn late(&self) -> f64 {
        self.late / (self.done() + self.late).max(1.0)
    }
    /// What is maximised: late work costs half of what good work brings.
    pub fn j(&self) -> f64 {
        (self.done() - 0.5 * self.late) / self.possible()
    }
    pub fn weighted(&self) -> f64 {
        let weigh = |of: [f64; 2]| PREMIUM_WEIGHT * of[0] + of[1];
        weigh(self.good) / weigh(self.ideal)
    }
}

/// Moments as whole nanoseconds, so that they can be sorted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Ask { request: u32, attempt: u8 },
    Done { request: u32, attempt: u8, since: u64 },
    Seen { latency: u64 },
    Apply { policy: (u64, u64, u64) },
}

fn ns(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

struct World<'a> {
    scenario: &'a Scenario,
    share: Share,
    /// The bucket of all regions together.
    above: Option<&'a RefCell<Bucket>>,
    arrivals: Vec<(f64, bool)>,
    arrived: usize,
    ticks_at: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    pushed: u64,
    policy: Policy,
    bucket: Bucket,
    queue: VecDeque<(u32, u8, u64)>,
    busy: usize,
    in_flight: u64,
    tick: Counts,
    latencies: Vec<f64>,
    last: [f64; 4],
    /// Done in the SLA and later in this tick, as nobody but the simulation knows.
    true_good: f64,
    true_late: f64,
    trace: Trace,
}

#[derive(Default)]
struct Counts {
    offered: f64,
    admitted: f64,
    late: f64,
}

/// What a run was like, tick by tick.
#[derive(Default)]
pub struct Trace {
    pub score: Score,
    /// Requests that were admitted.
    pub admitted: Vec<f64>,
    /// Requests per second that were decided.
    pub rates: Vec<f64>,
}

/// Runs a scenario under whoever decides.
///
/// # Errors
/// When no bucket can have the policy to begin with.
pub fn run(
    scenario: &Scenario,
    decide: &mut dyn Decide,
    share: Share,
) -> Result<Score, PolicyError> {
    let mut world = World::new(scenario, decide.start(), share, None)?;
    while let Some(now) = world.next() {
        world.go(now, decide);
    }
    decide.reward(0.0);
    Ok(world.trace.score)
}

/// Runs regions beside each other, each with its own backend and whoever decides there; each request takes
/// from the region's bucket and from the one above them, or from neither.
///
/// # Errors
/// When no bucket can have the policy to begin with.
pub fn run_beside(
    regions: &mut [(&Scenario, Box<dyn Decide>)],
    above: Option<Bucket>,
) -> Result<Vec<Trace>, PolicyError> {
    let above = above.map(RefCell::new);
    let mut worlds: Vec<World> = regions
        .iter_mut()
        .map(|(scenario, decide)| {
            World::new(scenario, decide.start(), Share::Alike, above.as_ref())
        })
        .collect::<Result<_, _>>()?;
    loop {
        let next = worlds.iter().enumerate().filter_map(|(nth, it)| Some((it.next()?, nth))).min();
        let Some((now, nth)) = next else { break };
        worlds[nth].go(now, regions[nth].1.as_mut());
    }
    Ok(worlds.into_iter().map(|it| it.trace).collect())
}

impl<'a> World<'a> {
    fn new(
        scenario: &'a Scenario,
        policy: Policy,
        share: Share,
        above: Option<&'a RefCell<Bucket>>,
    ) -> Result<Self, PolicyError> {
        let mut world = Self {
            scenario,
            share,
            above,
            arrivals: scenario.arrivals(),
            arrived: 0,
            ticks_at: TICK_US * 1_000,
            events: BinaryHeap::new(),
            pushed: 0,
            policy,
            bucket: Bucket::full(policy.to_bucket()?, Weight::ONE, 0),
            queue: VecDeque::new(),
            busy: 0,
            in_flight: 0,
            tick: Counts::default(),
            latencies: vec![],
            last: [scenario.sla * 0.1; 4],
            true_good: 0.0,
            true_late: 0.0,
            trace: Trace::default(),
        };
        world.trace.score.ideal = world.ideal();
        Ok(world)
    }

    fn arrival(&self) -> u64 {
        self.arrivals.get(self.arrived).map_or(u64::MAX, |arrival| ns(arrival.0))
    }

    /// The moment at which something happens, until the end.
    fn next(&self) -> Option<u64> {
        let event = self.events.peek().map_or(u64::MAX, |Reverse((t, ..))| *t);
        Some(self.arrival().min(event).min(self.ticks_at)).filter(|now| *now <= ns(DURATION_S))
    }

    /// Lets happen what does at [`Self::next`].
    fn go(&mut self, now: u64, decide: &mut dyn Decide) {
        if now == self.ticks_at {
            self.decide(now, decide);
            self.ticks_at += TICK_US * 1_000;
        } else if now == self.arrival() {
            self.ask(now, self.arrived as u32, 0);
            self.arrived += 1;
        } else if let Some(Reverse((_, _, event))) = self.events.pop() {
            self.happen(now, event);
        }
        self.serve(now);
    }
}

impl World<'_> {
    fn push(&mut self, at: u64, event: Event) {
        self.pushed += 1;
        self.events.push(Reverse((at, self.pushed, event)));
    }

    fn class(&self, request: u32) -> usize {
        usize::from(!self.arrivals[request as usize].1)
    }

    fn ideal(&self) -> [f64; 2] {
        let mut fresh = vec![[0.0; 2]; DURATION_S as usize];
        for (t, premium) in &self.arrivals {
            fresh[*t as usize][usize::from(!premium)] += 1.0;
        }
        let mut ideal = [0.0; 2];
        for (second, [premium, basic]) in fresh.into_iter().enumerate().skip(WARM_S as usize) {
            let capacity = self.scenario.capacity(second as f64);
            // Weighted max-min: each class has a share of its own demand, premium the greater one.
            let level = capacity / (PREMIUM_WEIGHT * premium + basic).max(1e-9);
            let of_premium = (premium * (PREMIUM_WEIGHT * level).min(1.0)).min(capacity);
            ideal[0] += of_premium;
            ideal[1] += basic.min(capacity - of_premium);
        }
        ideal
    }

    fn decide(&mut self, now: u64, decide: &mut dyn Decide) {
        let completed = self.latencies.len();
        if completed > 0 {
            self.latencies.sort_by(f64::total_cmp);
            let quantile =
                |q: f64| self.latencies[((completed as f64 * q) as usize).min(completed - 1)];
            let mean = self.latencies.iter().sum::<f64>() / completed as f64;
            self.last = [quantile(0.5), quantile(0.95), mean, quantile(0.1)];
        } else if self.in_flight > 0 {
            self.last[..3].iter_mut().for_each(|latency| *latency += TICK_S);
        }
        let completed = completed as f64;
        let [p50_s, p95_s, mean_s, p10_s] = self.last;
        let Counts { offered, admitted, late } = std::mem::take(&mut self.tick);
        let in_flight = if self.scenario.is_on_path() {
            self.in_flight as f64
        } else {
            completed / TICK_S * mean_s
        };
        let rejected = offered - admitted;
        let policy = self.policy;
        let seen = Observation {
            offered,
            admitted,
            rejected,
            completed,
            late,
            p50_s,
            p95_s,
            mean_s,
            p10_s,
            in_flight,
            policy,
        };
        let most = self.scenario.usual_capacity() * TICK_S;
        self.trace.admitted.push(admitted);
        decide.reward((self.true_good - 0.5 * self.true_late) / most);
        (self.true_good, self.true_late) = (0.0, 0.0);
        self.latencies.clear();
        let Policy { refill_micros, capacity, in_flight } = decide.step(now / 1_000, &seen);
        self.trace.rates.push(refill_micros as f64 / 1e6);
        let apply =
            Event::Apply { policy: (refill_micros, capacity, in_flight.unwrap_or(u64::MAX)) };
        if self.scenario.policy_delay > 0.0 {
            self.push(now + ns(self.scenario.policy_delay), apply);
        } else {
            self.happen(now, apply);
        }
    }

    fn ask(&mut self, now: u64, request: u32, attempt: u8) {
        self.tick.offered += 1.0;
        let keep = match self.share {
            Share::Keep(keep) if self.class(request) == 1 => keep,
            _ => 0.0,
        };
        let slots = self.policy.in_flight.map_or(f64::INFINITY, |cap| cap as f64 * (1.0 - keep));
        let has_slot = !self.scenario.is_on_path() || (self.in_flight as f64) < slots;
        let has_room = self.queue.len() < 50 * self.scenario.servers;
        let us = now / 1_000;
        self.bucket.advance(us);
        let keep = (keep * self.policy.capacity as f64).round() as u64;
        let demand = Demand { tokens: 1, partial: false, keep };
        let mut bucket = self.bucket;
        let is_taken = has_slot
            && has_room
            && bucket.take(demand, us).taken == 1
            && self.above.is_none_or(|above| {
                let mut above = above.borrow_mut();
                above.advance(us);
                above.take(Demand::all(1), us).taken == 1
            });
        if is_taken {
            self.bucket = bucket;
            self.tick.admitted += 1.0;
            self.in_flight += 1;
            self.queue.push_back((request, attempt, now));
        } else {
            self.ask_again(now, request, attempt);
        }
    }

    fn ask_again(&mut self, now: u64, request: u32, attempt: u8) {
        if let Some(wait) = self.scenario.asks_again(request, attempt) {
            self.push(now + ns(wait), Event::Ask { request, attempt: attempt + 1 });
        }
    }

    fn serve(&mut self, now: u64) {
        while self.busy < self.scenario.servers {
            let Some((request, attempt, since)) = self.queue.pop_front() else { return };
            let waiting = self.queue.len();
            let end = self.scenario.done_at(seconds(now), request, attempt, waiting);
            self.busy += 1;
            self.push(ns(end).max(now), Event::Done { request, attempt, since });
        }
    }

    fn see(&mut self, latency: u64) {
        let latency = seconds(latency).max(1e-6);
        self.latencies.push(latency);
        self.tick.late += f64::from(u8::from(latency > self.scenario.sla));
    }

    fn happen(&mut self, now: u64, event: Event) {
        match event {
            Event::Ask { request, attempt } => self.ask(now, request, attempt),
            Event::Seen { latency } => self.see(latency),
            Event::Apply { policy: (refill_micros, capacity, cap) } => {
                let in_flight = (cap < u64::MAX).then_some(cap);
                self.policy = Policy { refill_micros, capacity, in_flight };
                self.bucket.advance(now / 1_000);
                // What was decided is within the operator's bounds, so a bucket can have it.
                if let Ok(policy) = self.policy.to_bucket() {
                    self.bucket.switch(policy);
                }
            }
            Event::Done { request, attempt, since } => {
                self.busy -= 1;
                self.in_flight -= 1;
                let latency = now - since;
                let scored = f64::from(u8::from(now > ns(WARM_S)));
                if seconds(latency) <= self.scenario.sla {
                    self.true_good += 1.0;
                    let class = self.class(request);
                    self.trace.score.good[class] += scored;
                } else {
                    self.true_late += 1.0;
                    self.trace.score.late += scored;
                    if seconds(latency) > (5.0 * self.scenario.sla).max(1.0) {
                        self.ask_again(now, request, attempt);
                    }
                }
                if self.scenario.is_on_path() {
                    self.see(latency);
                } else if self.scenario.is_reported(request, attempt) {
                    self.push(now + ns(self.scenario.report_delay), Event::Seen { latency });
                }
            }
        }
    }
}
