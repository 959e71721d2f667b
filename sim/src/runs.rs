//! Random runs, and what must hold in each of them.

use crate::central::{bound, excess};
use crate::random::Random;
use crate::server::{Config, Method, counters};
use crate::world::{Clock, Happening, Network, SECOND, World};
use claw_core::limits::MICRO;
use claw_core::membership::PartitionPolicy;
use claw_core::policy::Policy;

/// What goes wrong in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Messages take their time.
    None,
    /// Messages are lost, doubled and out of order, and links are cut.
    Network,
    /// Clocks differ, and run at different speeds.
    Clocks,
    /// Clocks are set ahead and back.
    Steps,
    /// Tokens are given back.
    GiveBacks,
    /// Buckets are evicted as soon as they are full.
    Forget,
    /// Buckets expire.
    Expiry,
    /// Servers restart with what they had.
    Restarts,
    /// Servers restart with nothing.
    Losses,
    /// Replicas that are a little behind are promoted.
    Promotions,
    /// Policies change.
    Policies,
    /// Links between two sides are cut for long, both ways or one way.
    Cuts(PartitionPolicy),
    /// Two that do not hear each other are heard by all others, for long; guard
    /// `equal`.
    Gaps,
    /// Servers are cut off, restart with what they had, and are sent everything again
    /// for a long time; guard `equal`.
    SlowRestarts,
    /// Servers refuse all states for long; guard `equal`.
    Refusals,
    /// Machines are suspended for long; guard `equal`.
    Suspensions,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::None,
        Self::Network,
        Self::Clocks,
        Self::Steps,
        Self::GiveBacks,
        Self::Forget,
        Self::Expiry,
        Self::Restarts,
        Self::Losses,
        Self::Promotions,
        Self::Policies,
        Self::Cuts(PartitionPolicy::Off),
        Self::Cuts(PartitionPolicy::Equal),
        Self::Cuts(PartitionPolicy::Share),
        Self::Gaps,
        Self::SlowRestarts,
        Self::Refusals,
        Self::Suspensions,
    ];

    /// What the report calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "lag only",
            Self::Network => "loss 30 %, copies, disorder, cuts",
            Self::Clocks => "clocks apart, at different speeds",
            Self::Steps => "clocks set ahead and back",
            Self::GiveBacks => "give-backs",
            Self::Forget => "full buckets evicted",
            Self::Expiry => "keys expire",
            Self::Restarts => "restarts",
            Self::Losses => "restarts that lose all keys",
            Self::Promotions => "promotions of late replicas",
            Self::Policies => "policy changes",
            Self::Cuts(PartitionPolicy::Off) => "long cuts, guard off",
            Self::Cuts(PartitionPolicy::Equal) => "long cuts, guard equal",
            Self::Cuts(PartitionPolicy::Share) => "long cuts, guard share",
            Self::Gaps => "two do not hear each other for long",
            Self::SlowRestarts => "restarts after cuts, long resending",
            Self::Refusals => "states refused for long",
            Self::Suspensions => "machines suspended",
        }
    }

    /// Whether it lasts for long, and the bound does not depend on how long.
    fn is_long(self) -> bool {
        matches!(
            self,
            Self::Cuts(_) | Self::Gaps | Self::SlowRestarts | Self::Refusals | Self::Suspensions
        )
    }

    fn loses_state(self) -> bool {
        matches!(self, Self::Losses | Self::Promotions | Self::Forget | Self::Expiry)
    }
}

/// What came of a run.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// What was given out beyond what one bucket could have, in millionths.
    pub excess: u64,
    /// What may have been.
    pub bound: u64,
    /// By how many millionths regions differ after a quiet exchange.
    pub spread: u64,
    /// By how many they may.
    pub spread_bound: u64,
}

/// What did not hold.
pub type Violation = String;

/// Makes one random run.
///
/// # Errors
/// What did not hold in it.
pub fn run(trouble: Trouble, seed: u64) -> Result<Outcome, Violation> {
    Run::new(trouble, seed).finish()
}

struct Run {
    trouble: Trouble,
    world: World,
    random: Random,
    end: u64,
    names: u8,
    /// What clocks were set ahead, in all.
    ahead: u64,
    /// How many lives ended.
    lives: u64,
    fast_ppm: u64,
    /// The policy with the greatest numbers of all.
    most: Policy,
}

/// The most that was given back within so many microseconds.
fn most_given_back(admitted: &[(u64, i64)], within: u64) -> u64 {
    let back: Vec<(u64, u64)> =
        admitted.iter().filter(|(_, n)| *n < 0).map(|(at, n)| (*at, n.unsigned_abs())).collect();
    let from = |start: usize| {
        let until = back[start].0 + within;
        back[start..].iter().take_while(|(at, _)| *at <= until).map(|(_, n)| n).sum()
    };
    (0..back.len()).map(from).max().unwrap_or(0)
}

fn policy(random: &mut Random) -> Policy {
    let (capacity, rate) = (random.of(5, 60), random.of(1, 60));
    let ms = random.one(&[1_000, 1_000, 60_000, 700]);
    Policy::new(capacity, rate * ms * MICRO / 1_000, ms).expect("within the bounds")
}

impl Run {
    fn new(trouble: Trouble, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let regions = match trouble {
            Trouble::Gaps => random.one(&[3, 3, 4, 5]),
            _ => random.one(&[2, 2, 3, 3, 4, 5, 6, 8]),
        };
        let policy = policy(&mut random);
        let guard = match trouble {
            Trouble::Cuts(guard) => guard,
            Trouble::Gaps | Trouble::SlowRestarts | Trouble::Refusals | Trouble::Suspensions => {
                PartitionPolicy::Equal
            }
            _ => random.one(&PartitionPolicy::ALL),
        };
        let timeout_us = match trouble {
            trouble if trouble.is_long() => random.of(1_000, 4_000) * 1_000,
            _ => 2 * SECOND,
        };
        let lossy = trouble == Trouble::Network;
        let config = Config { regions, policy, method: Method::Debit, guard, timeout_us };
        let network = Network {
            interval_us: random.of(20, if lossy { 800 } else { 300 }) * 1_000,
            delay_us: random.of(1, 300) * 1_000,
            jitter_us: random.of(0, 50) * 1_000,
            loss: if lossy { 300 } else { 0 },
            again: if lossy { 200 } else { 0 },
            resend_us: match trouble {
                Trouble::SlowRestarts => random.of(5, 40) * SECOND,
                _ => 0,
            },
        };
        let clocks: Vec<Clock> = (0..regions)
            .map(|_| match trouble {
                Trouble::Clocks | Trouble::Steps => {
                    Clock { ahead_us: random.of(0, 500 * SECOND), fast_ppm: random.of(0, 500) }
                }
                _ => Clock { ahead_us: random.of(0, 10_000), fast_ppm: 0 },
            })
            .collect();
        let end = match trouble {
            trouble if trouble.is_long() => random.of(30, 120) * SECOND,
            Trouble::Network => random.of(12, 30) * SECOND,
            Trouble::Expiry => 150 * SECOND,
            _ => 12 * SECOND,
        };
        let fast_ppm = clocks.iter().map(|clock| clock.fast_ppm).max().unwrap_or(0);
        let world = World::new(config, network, &clocks, random.bits());
        let names = random.one(&[1, 1, 3]);
        let (ahead, lives) = (0, 0);
        let mut run =
            Self { trouble, world, random, end, names, ahead, lives, fast_ppm, most: policy };
        run.plan_calls();
        run.plan_trouble();
        run
    }

    fn plan_calls(&mut self) {
        let policy = self.world.config.policy;
        let per_second = policy.refill() / policy.interval_ms() / 1_000;
        for place in 0..self.world.count() {
            // Evenly, at a part of the rate.
            let percent = match self.trouble {
                Trouble::Expiry => self.random.one(&[0, 2, 60]),
                _ => self.random.one(&[20, 60, 150, 400]),
            };
            if let Some(gap) = (100 * SECOND).checked_div(per_second.max(1) * percent) {
                let mut at = 0;
                while at < self.end {
                    at += self.random.of(0, 2 * gap);
                    self.plan_call(at, place);
                }
            }
            // All at once, now and then.
            let rest = if self.trouble == Trouble::Expiry { 40 } else { 6 };
            let mut at = self.random.of(0, 3 * SECOND);
            while at < self.end {
                for _ in 0..self.random.of(1, 2 * policy.capacity()) {
                    self.plan_call(at, place);
                }
                at += self.random.of(0, rest * SECOND);
            }
        }
    }

    fn plan_call(&mut self, at: u64, place: usize) {
        let name = u8::try_from(self.random.of(1, u64::from(self.names))).unwrap_or(1);
        let tokens = self.random.one(&[1, 1, 1, 1, 3]);
        self.world.plan(at, place, Happening::Take(name, tokens));
        if self.trouble == Trouble::GiveBacks && self.random.permille(150) {
            let later = at + self.random.of(0, SECOND);
            let tokens = self.random.of(1, 2);
            self.world.plan(later, place, Happening::Give(name, tokens));
        }
    }

    fn some_time(&mut self) -> u64 {
        self.random.of(0, self.end)
    }

    fn some_place(&mut self) -> usize {
        let places: Vec<usize> = (0..self.world.count()).collect();
        self.random.one(&places)
    }

    fn plan_trouble(&mut self) {
        match self.trouble {
            Trouble::None | Trouble::Clocks | Trouble::GiveBacks | Trouble::Expiry => {}
            Trouble::Network => self.plan_cuts(5),
            Trouble::Cuts(_) => self.plan_cuts(100),
            Trouble::Gaps => self.plan_gaps(),
            Trouble::SlowRestarts | Trouble::Refusals | Trouble::Suspensions => self.plan_outages(),
            Trouble::Steps => {
                for _ in 0..self.random.of(1, 6) {
                    let (at, place) = (self.some_time(), self.some_place());
                    let by = self.random.of(0, 10 * SECOND);
                    let back = self.random.permille(500);
                    self.ahead += if back { 0 } else { by };
                    let by = i64::try_from(by).unwrap_or(0);
                    let by = if back { -by } else { by };
                    self.world.plan(at, place, Happening::Step(by));
                }
            }
            Trouble::Forget => {
                for place in 0..self.world.count() {
                    for at in 0..self.end / SECOND * 4 {
                        let name = u8::try_from(self.random.of(1, 3)).unwrap_or(1);
                        self.world.plan(at * SECOND / 4, place, Happening::Forget(name));
                    }
                }
            }
            Trouble::Restarts | Trouble::Losses | Trouble::Promotions => {
                for _ in 0..self.random.of(1, 4) {
                    let (at, place) = (self.some_time(), self.some_place());
                    self.lives += 1;
                    match self.trouble {
                        Trouble::Restarts => self.world.plan(at, place, Happening::Restart),
                        Trouble::Losses => self.world.plan(at, place, Happening::RestartEmpty),
                        _ => {
                            let behind = self.random.of(0, SECOND);
                            let before = at.saturating_sub(behind);
                            self.world.plan(before, place, Happening::Replicate);
                            self.world.plan(at, place, Happening::Promote);
                        }
                    }
                }
            }
            Trouble::Policies => {
                let mut greatest =
                    (self.most.capacity(), self.most.refill(), self.most.interval_ms());
                for _ in 0..self.random.of(1, 5) {
                    let (at, place) = (self.some_time(), self.some_place());
                    let policy = policy(&mut self.random);
                    let name = u8::try_from(self.random.of(1, 3)).unwrap_or(1);
                    self.world.plan(at, place, Happening::Pin(name, policy));
                    greatest.0 = greatest.0.max(policy.capacity());
                    let faster = u128::from(policy.refill()) * u128::from(greatest.2)
                        > u128::from(greatest.1) * u128::from(policy.interval_ms());
                    if faster {
                        (greatest.1, greatest.2) = (policy.refill(), policy.interval_ms());
                    }
                }
                let (capacity, refill, ms) = greatest;
                self.most = Policy::new(capacity, refill, ms).expect("within the bounds");
            }
        }
    }

    /// Cuts of at most so many seconds.
    fn plan_cuts(&mut self, longest: u64) {
        let mut at = self.random.of(0, 5 * SECOND);
        while at < self.end {
            let until = at + self.random.of(1, longest * 10) * SECOND / 10;
            let sides: Vec<bool> =
                (0..self.world.count()).map(|_| self.random.permille(500)).collect();
            let both_ways = self.random.permille(700);
            self.world.plan_cut((at, until.min(self.end)), &sides, both_ways);
            at = until + self.random.of(0, 10 * SECOND);
        }
    }

    /// One server after the other is out of reach in some way, and whole again soon after.
    fn plan_outages(&mut self) {
        let network = self.world.network;
        let exchange = network.interval_us + network.delay_us + network.jitter_us;
        let whole = 2 * exchange + SECOND / 5;
        assert!(whole <= 2 * SECOND, "soon is within two seconds");
        let mut at = self.random.of(SECOND, 5 * SECOND);
        while at < self.end {
            let until = at + self.random.of(10, 200) * SECOND / 10;
            let place = self.some_place();
            match self.trouble {
                Trouble::Refusals => {
                    // Now and then all of them.
                    let all = self.random.permille(300);
                    for place in (0..self.world.count()).filter(|one| all || *one == place) {
                        self.world.plan(at, place, Happening::Refuses(true));
                        self.world.plan(until, place, Happening::Refuses(false));
                    }
                }
                Trouble::Suspensions => self.world.plan(at, place, Happening::Suspend(until)),
                _ => {
                    let sides: Vec<bool> =
                        (0..self.world.count()).map(|other| other == place).collect();
                    self.world.plan_cut((at, until), &sides, true);
                    self.world.plan(until, place, Happening::Restart);
                    self.lives += 1;
                }
            }
            for place in 0..self.world.count() {
                self.world.plan(until + whole, place, Happening::IsWhole);
            }
            at = until + whole + self.random.of(0, 10 * SECOND);
        }
    }

    /// Longer ones than cuts, of two servers at a time.
    fn plan_gaps(&mut self) {
        let mut at = self.random.of(0, 5 * SECOND);
        while at < self.end {
            let until = at + self.random.of(1, 100) * SECOND;
            let one = self.some_place();
            let other = (one + 1) % self.world.count();
            self.world.plan_gap((at, until.min(self.end)), one, other);
            at = until + self.random.of(0, 10 * SECOND);
        }
    }

    fn finish(mut self) -> Result<Outcome, Violation> {
        self.world.run(self.end);
        let (lag, config) = (self.world.worst_lag(), self.world.config);
        let network = self.world.network;
        let calm = network.interval_us + network.delay_us + network.jitter_us;
        let (unknown, lag) = match self.trouble {
            // However long the cut is.
            Trouble::Cuts(PartitionPolicy::Equal)
            | Trouble::SlowRestarts
            | Trouble::Refusals
            | Trouble::Suspensions => (config.timeout_us + SECOND / 10 + calm, calm),
            // However long it is: each falls silent for the other, who says so to the
            // third; after that all goes by way of it.
            Trouble::Gaps => (2 * (config.timeout_us + SECOND / 10) + 3 * calm, 2 * calm),
            _ => (lag, lag),
        };
        let mut allowed = bound(self.most, config.regions, unknown, lag);
        allowed += bound(self.most, 1, 0, self.ahead);
        if self.trouble == Trouble::GiveBacks {
            // What is given back when the bucket is full, as one bucket would see it,
            // may come in elsewhere when it is not.
            let others = u64::try_from(config.regions - 1).unwrap_or(u64::MAX);
            let given = self.world.admitted.values();
            allowed += others * given.map(|given| most_given_back(given, lag)).max().unwrap_or(0);
        }
        if self.trouble == Trouble::Policies {
            // The level is kept when the policy changes, and so may be a full bucket.
            allowed += self.most.capacity_micros();
        }
        if matches!(self.trouble, Trouble::Losses | Trouble::Promotions | Trouble::SlowRestarts) {
            // What was forgotten with each life: who takes at once hides what it had not
            // told of the life before.
            allowed += self.lives * bound(self.most, 2, unknown, 0);
        }
        let given = self.world.admitted.values();
        let most = given.map(|given| excess(given, self.most, self.fast_ppm)).max().unwrap_or(0);
        if let Some(not) = self.world.not_whole.first() {
            return Err(format!("{not} (microseconds), of {}", self.world.not_whole.len()));
        }
        if most > allowed {
            return Err(format!("{most} millionths too many were given out, {allowed} may be"));
        }
        self.world.settle();
        let spread = self.agree()?;
        let delay = network.delay_us + network.delay_us * self.fast_ppm / SECOND + 1;
        let spread_bound = bound(self.most, 1, 0, delay) + 1;
        if spread > spread_bound {
            return Err(format!("regions differ by {spread} millionths, {spread_bound} may be"));
        }
        self.all_full()?;
        Ok(Outcome { excess: most, bound: allowed, spread, spread_bound })
    }

    /// After a quiet exchange all hold the same, within what is returned; and all that have the
    /// bucket know the same, exactly what was acknowledged since it was forgotten last. A bucket
    /// that is full need not be there.
    fn agree(&mut self) -> Result<u64, Violation> {
        let count = self.world.count();
        let mut spread = 0;
        for name in 1..=self.names {
            let (mut known, mut held) = (Vec::new(), Vec::new());
            let mut forgotten = false;
            for place in 0..count {
                let wall = self.world.wall(place);
                let server = self.world.server(place);
                let bucket = server.shared(name, wall);
                forgotten |= bucket.is_none();
                known.extend(bucket.as_ref().map(counters));
                held.push(server.held(name, wall));
                if let Some(bucket) = bucket {
                    let most = i128::from(bucket.policy().capacity_micros());
                    if held.last().is_some_and(|held| *held > most) {
                        return Err(format!("{held:?} is above the capacity"));
                    }
                }
            }
            if let Some(other) = known.iter().find(|other| **other != known[0]) {
                return Err(format!("counters {:?} and {other:?}", known[0]));
            }
            if let (true, Some(least), Some(most)) =
                (forgotten, held.iter().min(), held.iter().max())
                && least != most
            {
                return Err(format!(
                    "{least} millionths where somebody has forgotten a full bucket"
                ));
            }
            if let (Some(least), Some(most)) = (held.iter().min(), held.iter().max()) {
                spread = spread.max(u64::try_from(most - least).unwrap_or(u64::MAX));
            }
            if self.trouble.loses_state() {
                continue;
            }
            for place in 0..count {
                let server = self.world.server(place);
                let (id, epoch) = (server.id(), server.last_epoch(name));
                let (Some(epoch), Some(known)) = (epoch, known.first()) else { continue };
                let (spent, refunded) = server.acknowledged(name, epoch);
                let ours = known.iter().find(|counter| counter.0 == id);
                // Counters that were begun anew since say nothing of those before.
                let later = ours.is_some_and(|ours| ours.1 > epoch);
                if !later && ours != Some(&(id, epoch, spent, refunded)) {
                    return Err(format!("{id} gave out {spent} in {epoch}, known is {known:?}"));
                }
            }
        }
        Ok(spread)
    }

    /// When nobody takes any more, all are full again.
    fn all_full(&mut self) -> Result<(), Violation> {
        let config = self.world.config;
        // Capacity and the deepest debt, at the slowest rate there is.
        let empty = 60 * SECOND + self.ahead;
        let regions = u64::try_from(config.regions).unwrap_or(u64::MAX);
        self.world.wait(empty * (regions + 1) + 2 * regions * config.timeout_us);
        for place in 0..config.regions {
            let wall = self.world.wall(place);
            for name in 1..=self.names {
                let server = self.world.server(place);
                let full = server.shared(name, wall).is_none_or(|bucket| bucket.is_full());
                if !full {
                    let held = server.held(name, wall);
                    return Err(format!("{held} millionths after a long rest"));
                }
            }
        }
        Ok(())
    }
}
