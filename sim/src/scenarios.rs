//! What each way to agree gives out, against what one bucket would: 1.00 is
//! perfect, more is too much, less refuses what was there.

use crate::random::Random;
use crate::server::{Config, Method};
use crate::world::{Clock, Happening, Network, SECOND, World};
use claw_core::bucket::{Bucket, Demand, Weight};
use claw_core::limits::MICRO;
use claw_core::membership::PartitionPolicy;
use claw_core::merge::Join;
use claw_core::policy::Policy;

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// What it is called.
    pub name: &'static str,
    regions: usize,
    capacity: u64,
    /// In tokens a second.
    rate: u64,
    /// Demand of all regions together, in percent of the rate.
    percent: u64,
    delay_us: u64,
    /// How far each wall clock is ahead.
    clocks: [u64; 3],
    /// Whether half of the regions is cut from the others for a minute.
    cut: bool,
}

/// The table.
pub const SCENARIOS: [Scenario; 6] = [
    plain("3 regions, 0.1 s lag, demand 1.6 r", 160, 100_000),
    plain("3 regions, 0.1 s lag, demand 10 r", 1_000, 100_000),
    plain("3 regions, 0.6 s lag, demand 1.6 r", 160, 600_000),
    cut("2 against 2 regions cut for 60 s, 1.6 r", 160),
    cut("2 against 2 regions cut for 60 s, 0.9 r", 90),
    Scenario {
        capacity: 20,
        clocks: [250_000, 750_000, 0],
        ..plain("clocks +0.5 / -0.25 s apart, C = 20, 0.8 r", 80, 100_000)
    },
];

const fn plain(name: &'static str, percent: u64, delay_us: u64) -> Scenario {
    let (capacity, rate, clocks) = (100, 100, [0; 3]);
    Scenario { name, regions: 3, capacity, rate, percent, delay_us, clocks, cut: false }
}

const fn cut(name: &'static str, percent: u64) -> Scenario {
    Scenario { regions: 4, cut: true, ..plain(name, percent, 100_000) }
}

/// How long a scenario takes, in seconds. A cut lasts from the first third to the
/// second.
const LONG: u64 = 180;

/// Between two rounds, in microseconds.
const INTERVAL_US: u64 = 50_000;

/// A way to agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A strategy of the module.
    Of(Method),
    /// Counters of what each region gave out in the present window of as long as a
    /// bucket takes to fill: what is often done instead.
    Windows,
}

impl Way {
    /// The columns of the table.
    pub const ALL: [Self; 5] = [
        Self::Of(Method::Debit),
        Self::Of(Method::States(Join::Min)),
        Self::Of(Method::States(Join::Max)),
        Self::Of(Method::States(Join::Lww)),
        Self::Windows,
    ];

    /// What the table calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Of(Method::Debit) => "debit",
            Self::Of(Method::States(strategy)) => strategy.name(),
            Self::Windows => "windows",
        }
    }
}

impl Scenario {
    fn policy(&self) -> Policy {
        Policy::new(self.capacity, self.rate * MICRO, 1_000).expect("within the bounds")
    }

    /// When and where somebody wants a token.
    fn calls(&self) -> Vec<(u64, usize)> {
        let mut random = Random::new(1);
        let regions = u64::try_from(self.regions).unwrap_or(u64::MAX);
        let gap = 100 * SECOND * regions / (self.rate * self.percent);
        let mut calls = Vec::new();
        for place in 0..self.regions {
            let mut at = random.of(0, gap);
            while at < LONG * SECOND {
                calls.push((at, place));
                at += random.of(gap / 2, gap + gap / 2);
            }
        }
        calls.sort_unstable();
        calls
    }

    /// What one bucket gives out, in tokens.
    #[must_use]
    pub fn ideal(&self) -> u64 {
        let mut bucket = Bucket::full(self.policy(), Weight::ONE, 0);
        let calls = self.calls().into_iter();
        calls
            .map(|(at, _)| {
                bucket.advance(at);
                bucket.take(Demand::all(1), at).taken
            })
            .sum()
    }

    /// What the regions give out, in tokens.
    #[must_use]
    pub fn given(&self, way: Way) -> u64 {
        match way {
            Way::Of(method) => self.given_by(method),
            Way::Windows => self.given_in_windows(),
        }
    }

    fn is_cut(&self, at: u64) -> bool {
        self.cut && (LONG / 3 * SECOND..2 * LONG / 3 * SECOND).contains(&at)
    }

    fn given_by(&self, method: Method) -> u64 {
        let config = Config {
            regions: self.regions,
            policy: self.policy(),
            method,
            guard: PartitionPolicy::Share,
            timeout_us: 2 * SECOND,
        };
        let network = Network {
            interval_us: INTERVAL_US,
            delay_us: self.delay_us,
            jitter_us: 0,
            loss: 0,
            again: 0,
            resend_us: 0,
            bytes_per_second: 0,
        };
        let clocks = self.clocks.map(|ahead_us| Clock { ahead_us, fast_ppm: 0 });
        let clocks = if self.regions == 3 { clocks.to_vec() } else { Vec::new() };
        let mut world = World::new(config, network, &clocks, 1);
        let calls = self.calls();
        let count = u64::try_from(calls.len()).unwrap_or(u64::MAX);
        for (at, place) in calls {
            world.plan(at, place, Happening::Take(1, 1));
        }
        if self.cut {
            let sides: Vec<bool> = (0..self.regions).map(|place| place % 2 == 0).collect();
            world.plan_cut((LONG / 3 * SECOND, 2 * LONG / 3 * SECOND), &sides, true);
        }
        world.run(LONG * SECOND);
        count - world.refused
    }

    fn given_in_windows(&self) -> u64 {
        let window_us = self.capacity * SECOND / self.rate;
        let window =
            |at: u64, place: usize| (at + self.clocks.get(place).copied().unwrap_or(0)) / window_us;
        // Each region's own counter by window, with when others know it.
        let mut given: Vec<Vec<(u64, u64)>> = vec![Vec::new(); self.regions];
        let mut sum = 0;
        for (at, place) in self.calls() {
            let now = window(at, place);
            let known = |other: usize| {
                let cut = self.is_cut(at) && other % 2 != place % 2;
                // What was given out is sent with the next round.
                let there = |when: u64| when.next_multiple_of(INTERVAL_US) + self.delay_us <= at;
                let latest = given[other].iter().rev().take_while(|(_, of)| *of >= now);
                latest
                    .filter(|(when, of)| *of == now && (other == place || !cut && there(*when)))
                    .count()
            };
            let used: usize = (0..self.regions).map(known).sum();
            if u64::try_from(used).unwrap_or(u64::MAX) < self.capacity {
                given[place].push((at, now));
                sum += 1;
            }
        }
        sum
    }
}
