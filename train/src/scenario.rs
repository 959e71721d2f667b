//! A backend and its clients for a minute: drawn from a family by a seed.

use crate::rng::{Rng, named, normal};
use claw_adapt::{Bounds, Policy};
use std::f64::consts::TAU;

/// Seconds of a run.
pub const DURATION_S: f64 = 60.0;
/// Seconds at its beginning that are not scored.
pub const WARM_S: f64 = 3.0;
/// Share of requests that are from premium users.
const PREMIUM: f64 = 0.2;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    Home,
    Other,
    WrongNominal,
    Steps,
    Degrade,
    Tail,
    Small,
    /// Off the path: completions are heard of late, or never.
    Telemetry,
    Stall,
    RetryStorm,
    Lag,
    /// What a request takes hardly varies, and is a great share of the SLA.
    Narrow,
}

impl Family {
    pub const ALL: [Self; 12] = [
        Self::Home,
        Self::Other,
        Self::WrongNominal,
        Self::Steps,
        Self::Degrade,
        Self::Tail,
        Self::Small,
        Self::Telemetry,
        Self::Stall,
        Self::RetryStorm,
        Self::Lag,
        Self::Narrow,
    ];
    pub const TRAINED: [Self; 7] = [
        Self::Home,
        Self::Other,
        Self::WrongNominal,
        Self::Steps,
        Self::Degrade,
        Self::Tail,
        Self::Small,
    ];
    /// What a controller off the path is trained and tuned on.
    pub const OFF_PATH: [Self; 8] = [
        Self::Telemetry,
        Self::Telemetry,
        Self::Home,
        Self::Other,
        Self::Steps,
        Self::Degrade,
        Self::Tail,
        Self::Small,
    ];
}

/// What a client does, or the backend for it, by what it is drawn for.
mod purpose {
    pub const WORK: u64 = 0;
    pub const WORK_TOO: u64 = 1;
    pub const SLOW: u64 = 2;
    pub const REPORT: u64 = 3;
    pub const RETRY: u64 = 4;
    pub const WAIT: u64 = 5;
}

/// Times are seconds. A list of steps holds from each moment on.
#[derive(Clone)]
pub struct Scenario {
    seed: u64,
    pub servers: usize,
    service: f64,
    pub sla: f64,
    nominal: f64,
    variation: f64,
    slow_share: f64,
    slow_factor: f64,
    contention: f64,
    retry: f64,
    attempts: u8,
    backoff: f64,
    slowness: Vec<(f64, f64)>,
    stalls: Vec<(f64, f64)>,
    demand: Vec<(f64, f64)>,
    spikes: Vec<(f64, f64, f64)>,
    base: f64,
    wave: f64,
    period: f64,
    pub report_delay: f64,
    report_loss: f64,
    pub policy_delay: f64,
}

fn at(steps: &[(f64, f64)], t: f64) -> f64 {
    steps.iter().rev().find(|(from, _)| *from <= t).map_or(1.0, |(_, value)| *value)
}

impl Scenario {
    pub fn new(family: Family, seed: u64) -> Self {
        let seed = seed.wrapping_mul(0x1_0001).wrapping_add((family as u64 + 1) << 50);
        let mut rng = Rng::new(seed);
        let (servers, service, stretch) = match family {
            Family::Other | Family::Steps | Family::Lag => (
                rng.one_of(&[4.0, 8.0, 32.0, 48.0]),
                rng.log_range(0.008, 0.06),
                rng.range(5.0, 14.0),
            ),
            Family::Narrow => (
                rng.one_of(&[4.0, 8.0, 32.0, 48.0]),
                rng.log_range(0.008, 0.1),
                rng.range(2.5, 5.0),
            ),
            Family::Small => {
                (rng.one_of(&[1.0, 2.0, 3.0]), rng.log_range(0.03, 0.1), rng.range(5.0, 14.0))
            }
            _ => (16.0, 0.02, 10.0),
        };
        let real = servers / service;
        let mut it = Self {
            seed,
            servers: servers as usize,
            service,
            sla: service * stretch,
            nominal: real,
            variation: rng.range(0.4, 1.2),
            slow_share: 0.0,
            slow_factor: 1.0,
            contention: rng.range(0.0, 0.08),
            retry: rng.range(0.2, 0.7),
            attempts: 3,
            backoff: 0.5,
            slowness: vec![],
            stalls: vec![],
            demand: vec![],
            spikes: vec![],
            base: real * rng.range(0.5, 1.4),
            wave: rng.range(0.0, 0.4),
            period: rng.range(20.0, 80.0),
            report_delay: 0.0,
            report_loss: 0.0,
            policy_delay: 0.0,
        };
        let mut t = 0.0;
        while t < DURATION_S {
            it.slowness.push((t, rng.one_of(&[1.0, 1.0, 1.3, 1.8, 2.5])));
            t += 4.0 + rng.exponential(10.0);
        }
        t = 0.0;
        while t < DURATION_S {
            it.demand.push((t, rng.range(0.7, 1.3)));
            t += 0.2 + rng.exponential(2.0);
        }
        for _ in 0..rng.below(3) {
            let from = rng.range(5.0, 50.0);
            it.spikes.push((from, from + rng.range(4.0, 15.0), rng.range(1.5, 3.5)));
        }
        match family {
            Family::Home | Family::Other | Family::Small => {}
            Family::WrongNominal => it.nominal *= rng.one_of(&[1.0 / 3.0, 0.5, 2.0, 3.0]),
            Family::Steps => {
                (it.base, it.wave) = (0.6 * real, 0.0);
                it.slowness = vec![(0.0, 1.0)];
                it.spikes =
                    vec![(15.0, 30.0, rng.range(2.5, 5.0)), (40.0, 50.0, rng.range(2.0, 3.5))];
            }
            Family::Degrade => {
                (it.base, it.wave) = (real * rng.range(0.75, 0.95), 0.1);
                it.spikes = vec![];
                let from = rng.range(8.0, 20.0);
                let factor = rng.range(2.5, 5.0);
                it.slowness = vec![(0.0, 1.0), (from, factor), (from + rng.range(10.0, 25.0), 1.0)];
            }
            Family::Tail => {
                (it.slow_share, it.slow_factor) = (rng.range(0.01, 0.05), rng.range(5.0, 12.0));
            }
            Family::Telemetry => {
                (it.report_delay, it.report_loss) = (rng.range(0.1, 0.3), rng.range(0.02, 0.2));
            }
            Family::Stall => {
                t = rng.range(2.0, 6.0);
                while t < DURATION_S {
                    let until = t + rng.range(0.15, 0.8);
                    it.stalls.push((t, until));
                    t = until + 1.0 + rng.exponential(5.0);
                }
            }
            Family::RetryStorm => {
                it.retry = rng.range(0.8, 0.98);
                (it.attempts, it.backoff) = (6, 0.1);
            }
            Family::Narrow => {
                it.variation = rng.range(0.05, 0.5);
                it.slowness.iter_mut().for_each(|(_, factor)| *factor = factor.min(1.3));
            }
            Family::Lag => it.policy_delay = rng.range(0.2, 0.8),
        }
        it
    }

    /// Requests per second that the backend serves when it is well.
    pub fn usual_capacity(&self) -> f64 {
        self.servers as f64 / self.service
    }

    /// Whether completions are counted on the path, all of them and at once.
    pub fn is_on_path(&self) -> bool {
        self.report_delay == 0.0
    }

    /// What an operator would allow who believes in the nominal rate.
    pub fn bounds(&self) -> Bounds {
        let micros = |rate: f64| (rate * 1e6).round() as u64;
        Bounds {
            nominal_micros: micros(self.nominal),
            min_micros: micros(0.05 * self.nominal),
            max_micros: micros(3.0 * self.nominal),
            max_capacity: (3.0 * self.nominal).ceil().max(2.0) as u64,
            sla_us: (self.sla * 1e6).round() as u64,
            slew_percent: 5_000,
            fallback: Policy {
                refill_micros: micros(0.38 * self.nominal),
                capacity: (0.027 * self.nominal).ceil().max(2.0) as u64,
                in_flight: None,
            },
        }
    }

    /// Requests per second that arrive for the first time.
    fn rate(&self, t: f64) -> f64 {
        let wave = 1.0 + self.wave * libm::sin(TAU * t / self.period);
        let spikes = self.spikes.iter().filter(|(from, until, _)| (*from..*until).contains(&t));
        spikes.fold(self.base * wave * at(&self.demand, t), |rate, (_, _, factor)| rate * factor)
    }

    /// Moment of each new request, and whether it is from a premium user.
    pub fn arrivals(&self) -> Vec<(f64, bool)> {
        let mut rng = Rng::new(!self.seed);
        let steps = (DURATION_S / 0.02) as u32;
        let top = (0..steps).map(|k| self.rate(f64::from(k) * 0.02)).fold(1.0, f64::max) * 1.1;
        let mut all = vec![];
        let mut t = rng.exponential(1.0 / top);
        while t < DURATION_S {
            if rng.unit() * top < self.rate(t) {
                all.push((t, rng.unit() < PREMIUM));
            }
            t += rng.exponential(1.0 / top);
        }
        all
    }

    /// Requests that a backend without a queue could serve in the second from `t` on.
    pub fn capacity(&self, t: f64) -> f64 {
        let mean = self.service * (1.0 + self.slow_share * (self.slow_factor - 1.0));
        let share = |k: u32| {
            let x = t + (f64::from(k) + 0.5) / 20.0;
            let stalled = self.stalls.iter().any(|(from, until)| (*from..*until).contains(&x));
            if stalled { 0.0 } else { 1.0 / (20.0 * at(&self.slowness, x)) }
        };
        (0..20).map(share).sum::<f64>() * self.servers as f64 / mean
    }

    /// Seconds that a request takes of a server when there is nobody else and nothing is slow.
    fn work(&self, request: u32, attempt: u8) -> f64 {
        let draw = |purpose| named(self.seed, request, attempt, purpose);
        let sigma = libm::log(1.0 + self.variation * self.variation).sqrt();
        let z = normal(draw(purpose::WORK), draw(purpose::WORK_TOO));
        let slow = if draw(purpose::SLOW) < self.slow_share { self.slow_factor } else { 1.0 };
        self.service * slow * libm::exp(sigma * z - 0.5 * sigma * sigma)
    }

    /// When what begins at `t`, with so many waiting, is done.
    pub fn done_at(&self, t: f64, request: u32, attempt: u8, waiting: usize) -> f64 {
        let crowd = 1.0 + self.contention * (waiting as f64 / self.servers as f64).min(20.0);
        let end = t + self.work(request, attempt) * at(&self.slowness, t) * crowd;
        self.stalls.iter().fold(end, |end, (from, until)| {
            if *until > t && *from < end { end + until - from.max(t) } else { end }
        })
    }

    /// All that another program needs to play it, as members of a JSON object.
    pub fn to_json(&self) -> String {
        let list = |of: Vec<String>| format!("[{}]", of.join(", "));
        let steps =
            |of: &[(f64, f64)]| list(of.iter().map(|(t, x)| format!("[{t}, {x}]")).collect());
        let of_request = |(request, (t, _)): (u32, &(f64, bool))| {
            let work = (0..self.attempts).map(|k| format!("{}", self.work(request, k))).collect();
            let again = (0..self.attempts).map(|k| self.asks_again(request, k));
            let again =
                again.map(|wait| wait.map_or("null".to_owned(), |s| s.to_string())).collect();
            format!("[{t}, {}, {}]", list(work), list(again))
        };
        let requests = (0..).zip(&self.arrivals()).map(of_request).collect();
        format!(
            "\"servers\": {}, \"sla\": {}, \"contention\": {}, \"seconds\": {DURATION_S}, \"warm\": {WARM_S},\n\
             \"slowness\": {}, \"stalls\": {},\n\"requests\": {}",
            self.servers,
            self.sla,
            self.contention,
            steps(&self.slowness),
            steps(&self.stalls),
            list(requests)
        )
    }

    /// Whether this completion is reported, off the path.
    pub fn is_reported(&self, request: u32, attempt: u8) -> bool {
        named(self.seed, request, attempt, purpose::REPORT) >= self.report_loss
    }

    /// Seconds after which a client who was refused, or who waited for too long, asks again; `None`
    /// when it gives up.
    pub fn asks_again(&self, request: u32, attempt: u8) -> Option<f64> {
        let draw = |purpose| named(self.seed, request, attempt, purpose);
        let spread = -libm::log(1.0 - draw(purpose::WAIT)) * (f64::from(attempt) + 1.0);
        (attempt + 1 < self.attempts && draw(purpose::RETRY) < self.retry)
            .then_some(self.backoff * (0.4 + spread))
    }
}
