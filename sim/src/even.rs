//! Demand of nine tenths of the rate, evenly spread: nobody is ever refused, also
//! not while the regions are cut into sides, and not after it.

use crate::random::Random;
use crate::runs::Violation;
use crate::server::{Config, Method};
use crate::world::{Clock, Happening, Network, SECOND, World};
use claw_core::limits::MICRO;
use claw_core::membership::PartitionPolicy;
use claw_core::policy::Policy;

/// When the first cut begins, in microseconds.
const FIRST: u64 = 30 * SECOND;

/// When all is over, in microseconds.
const END: u64 = 130 * SECOND;

/// Links that are cut for a while.
#[derive(Debug, Clone)]
pub struct Cut {
    /// From when until when, in microseconds.
    pub time: (u64, u64),
    /// On which side each region is.
    pub sides: Vec<bool>,
    /// Whether they are cut both ways.
    pub both_ways: bool,
    /// Only between these two, both ways.
    pub only: Option<(usize, usize)>,
}

/// What a run is made of.
#[derive(Debug, Clone)]
pub struct Even {
    /// In tokens.
    pub capacity: u64,
    /// In tokens a second.
    pub rate: u64,
    /// What the regions do when they do not hear each other.
    pub guard: PartitionPolicy,
    /// How many regions there are.
    pub regions: u64,
    /// One long one, or several short ones.
    pub cuts: Vec<Cut>,
    /// Of the links.
    pub network: Network,
}

impl Even {
    /// A random one.
    #[must_use]
    pub fn random(seed: u64, guard: PartitionPolicy) -> Self {
        let mut random = Random::new(seed);
        let regions = random.of(2, 8);
        let rate = random.one(&[10, 25, 100, 1_000]);
        let network = Network {
            interval_us: random.of(20, 200) * 1_000,
            delay_us: random.of(1, 300) * 1_000,
            jitter_us: random.of(0, 50) * 1_000,
            loss: 0,
            again: 0,
            resend_us: 0,
            bytes_per_second: 0,
        };
        let longest = random.one(&[3, 10, 60]) * SECOND;
        let (mut cuts, mut at) = (Vec::new(), FIRST);
        while at < FIRST + 60 * SECOND {
            let long = if longest == 60 * SECOND { longest } else { random.of(SECOND, longest) };
            cuts.push(Cut {
                time: (at, at + long),
                sides: (0..regions).map(|_| random.permille(500)).collect(),
                both_ways: random.permille(700),
                only: Some((0, 1)).filter(|_| regions > 2 && random.permille(250)),
            });
            at += long + random.of(2 * SECOND, 7 * SECOND);
        }
        let lag = network.interval_us + network.delay_us + network.jitter_us;
        Self {
            // A burst of all regions at once, on the smallest side, has to fit, and
            // so has what comes in all at once because it was on its way.
            capacity: random.of(3, 30) * regions + rate * lag / SECOND,
            rate,
            guard,
            regions,
            cuts,
            network,
        }
    }

    /// Runs it.
    ///
    /// # Errors
    /// When anybody was refused, and how many.
    pub fn run(&self, seed: u64) -> Result<(), Violation> {
        let refused = self.refused(seed);
        if refused > 0 { Err(format!("{refused} were refused: {self:?}")) } else { Ok(()) }
    }

    /// How many were refused.
    #[must_use]
    pub fn refused(&self, seed: u64) -> u64 {
        let policy = Policy::new(self.capacity, self.rate * MICRO, 1_000);
        let config = Config {
            regions: usize::try_from(self.regions).unwrap_or(usize::MAX),
            policy: policy.expect("within the bounds"),
            method: Method::Debit,
            guard: self.guard,
            timeout_us: 2 * SECOND,
        };
        let mut random = Random::new(seed);
        let clocks: Vec<Clock> = (0..self.regions)
            .map(|_| Clock { ahead_us: random.of(0, SECOND), fast_ppm: 0 })
            .collect();
        let mut world = World::new(config, self.network, &clocks, random.bits());
        for cut in &self.cuts {
            match cut.only {
                Some((one, other)) => world.plan_gap(cut.time, one, other),
                None => world.plan_cut(cut.time, &cut.sides, cut.both_ways),
            }
        }
        let gap = SECOND * 10 * self.regions / (9 * self.rate);
        for place in 0..world.count() {
            let mut at = random.of(0, gap);
            while at < END {
                world.plan(at, place, Happening::Take(1, 1));
                at += gap;
            }
        }
        world.run(END);
        world.refused
    }
}
