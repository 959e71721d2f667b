//! Random runs, and what must hold in each of them.

use crate::central::{bound, excess};
use crate::random::Random;
use crate::server::{Config, Method, Name, Sum, counters};
use crate::world::{Clock, Happening, Network, SECOND, World};
use claw_core::expiry::MOST_LINGER_US;
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
    /// The same, and links are cut for long; guard `equal`.
    StepsInCuts,
    /// Tokens are given back.
    GiveBacks,
    /// Most calls are settled after the work: it used less than was taken for it, or more.
    Settlements,
    /// The same, and links are cut for long.
    SettlementsInCuts(PartitionPolicy),
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
    /// So many keys that memory is full, again and again; guard `equal`.
    Memory,
    /// Nobody takes anything for minutes, or hours; now and then one region is cut off meanwhile.
    Idle,
    /// One region is away for an hour or more, and the others are asked for ever new keys; guard
    /// `equal`.
    Away,
    /// Keys are restored as they were, or become copies of others.
    Restores,
    /// Lines that carry so little that a round takes seconds, and are cut.
    SlowLines,
    /// Long lags and timeouts, buckets that fill in no time or in hours, cuts, and bursts whenever
    /// keys have just gone.
    Bursts(PartitionPolicy),
}

impl Trouble {
    /// All of them.
    pub const ALL: [Self; 30] = [
        Self::None,
        Self::Network,
        Self::Clocks,
        Self::Steps,
        Self::GiveBacks,
        Self::Settlements,
        Self::SettlementsInCuts(PartitionPolicy::Equal),
        Self::SettlementsInCuts(PartitionPolicy::Share),
        Self::Forget,
        Self::Expiry,
        Self::Restarts,
        Self::Losses,
        Self::Promotions,
        Self::Policies,
        Self::Cuts(PartitionPolicy::Off),
        Self::Cuts(PartitionPolicy::Equal),
        Self::Cuts(PartitionPolicy::Share),
        Self::StepsInCuts,
        Self::Gaps,
        Self::SlowRestarts,
        Self::Refusals,
        Self::Suspensions,
        Self::Memory,
        Self::Idle,
        Self::Away,
        Self::Restores,
        Self::SlowLines,
        Self::Bursts(PartitionPolicy::Off),
        Self::Bursts(PartitionPolicy::Equal),
        Self::Bursts(PartitionPolicy::Share),
    ];

    /// What the report calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "lag only",
            Self::Network => "loss 30 %, copies, disorder, cuts",
            Self::Clocks => "clocks apart, at different speeds",
            Self::Steps => "clocks set ahead and back",
            Self::StepsInCuts => "clocks set, long cuts, guard equal",
            Self::GiveBacks => "give-backs",
            Self::Settlements => "settlements, under and over",
            Self::SettlementsInCuts(PartitionPolicy::Off) => "settlements, long cuts, guard off",
            Self::SettlementsInCuts(PartitionPolicy::Equal) => {
                "settlements, long cuts, guard equal"
            }
            Self::SettlementsInCuts(PartitionPolicy::Share) => {
                "settlements, long cuts, guard share"
            }
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
            Self::Memory => "memory full",
            Self::Idle => "idle for long",
            Self::Away => "a peer away for an hour, new keys",
            Self::Restores => "keys restored, copied",
            Self::SlowLines => "slow lines, cuts",
            Self::Bursts(PartitionPolicy::Off) => "bursts as keys go, guard off",
            Self::Bursts(PartitionPolicy::Equal) => "bursts as keys go, guard equal",
            Self::Bursts(PartitionPolicy::Share) => "bursts as keys go, guard share",
        }
    }

    /// Whether it lasts for long, and the bound does not depend on how long.
    fn is_long(self) -> bool {
        matches!(
            self,
            Self::Cuts(_)
                | Self::SettlementsInCuts(_)
                | Self::Gaps
                | Self::SlowRestarts
                | Self::Refusals
                | Self::Suspensions
        ) || self.is_equal()
    }

    /// Whether it lasts for long under the guard `equal`: what is unknown is bounded by the
    /// timeout.
    fn is_equal(self) -> bool {
        matches!(
            self,
            Self::Cuts(PartitionPolicy::Equal)
                | Self::SettlementsInCuts(PartitionPolicy::Equal)
                | Self::StepsInCuts
                | Self::SlowRestarts
                | Self::Refusals
                | Self::Suspensions
                | Self::Memory
                | Self::Away
                | Self::Bursts(PartitionPolicy::Equal)
        )
    }

    /// Whether every server admits the whole limit all the time, or less to the end.
    fn keeps_shares(self) -> bool {
        matches!(
            self,
            Self::None
                | Self::Clocks
                | Self::GiveBacks
                | Self::Settlements
                | Self::Expiry
                | Self::Restarts
                | Self::Losses
                | Self::Promotions
                | Self::Away
        )
    }

    /// Whether calls are settled.
    fn settles(self) -> bool {
        matches!(self, Self::Settlements | Self::SettlementsInCuts(_))
    }

    fn loses_state(self) -> bool {
        matches!(
            self,
            Self::Losses
                | Self::Promotions
                | Self::Forget
                | Self::Expiry
                | Self::Idle
                | Self::SlowLines
                | Self::Bursts(_)
        )
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
    /// The most keys that were kept, against how many might have been, where it was counted.
    pub kept: (u64, u64),
    /// Whole tokens that were used, and booked, beyond what was admitted.
    pub overrun: u64,
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
    names: Name,
    /// What clocks were set ahead, in all.
    ahead: u64,
    /// What they were set back.
    back: u64,
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

/// From a tenth of a second to hours until it is full.
fn any_policy(random: &mut Random) -> Policy {
    let capacity = random.of(1, 60);
    let ms = random.one(&[100, 300, 1_000, 3_000, 10_000, 60_000, 600_000, 7_200_000]);
    Policy::new(capacity, capacity * MICRO, ms).expect("within the bounds")
}

/// How long an empty bucket takes to be full, in microseconds.
fn fill_us(policy: Policy) -> u64 {
    let missing = u128::from(policy.capacity_micros().unsigned_abs())
        * u128::from(policy.interval_us().get());
    u64::try_from(missing.div_ceil(u128::from(policy.refill()))).unwrap_or(u64::MAX)
}

impl Run {
    fn new(trouble: Trouble, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let regions = match trouble {
            Trouble::Gaps => random.one(&[3, 3, 4, 5]),
            Trouble::Memory | Trouble::Idle | Trouble::Away => random.one(&[2, 2, 3, 4]),
            _ => random.one(&[2, 2, 3, 3, 4, 5, 6, 8]),
        };
        let policy = match trouble {
            Trouble::Bursts(_) => any_policy(&mut random),
            _ => policy(&mut random),
        };
        let guard = match trouble {
            Trouble::Cuts(guard) | Trouble::SettlementsInCuts(guard) | Trouble::Bursts(guard) => {
                guard
            }
            Trouble::Gaps => PartitionPolicy::Equal,
            trouble if trouble.is_equal() => PartitionPolicy::Equal,
            _ => random.one(&PartitionPolicy::ALL),
        };
        let timeout_us = match trouble {
            Trouble::Bursts(_) => random.one(&[1, 2, 5, 20, 60]) * SECOND,
            Trouble::SlowLines => random.of(1_000, 10_000) * 1_000,
            trouble if trouble.is_long() => random.of(1_000, 4_000) * 1_000,
            _ => 2 * SECOND,
        };
        let lossy = trouble == Trouble::Network;
        let config = Config { regions, policy, method: Method::Debit, guard, timeout_us };
        let network = Network {
            interval_us: match trouble {
                // It is a long time.
                Trouble::Idle | Trouble::Away => random.of(200, 1_000) * 1_000,
                _ => random.of(20, if lossy { 800 } else { 300 }) * 1_000,
            },
            delay_us: match trouble {
                Trouble::Bursts(_) => random.one(&[1, 100, 500, 3_000]) * 1_000,
                _ => random.of(1, 300) * 1_000,
            },
            jitter_us: random.of(0, 50) * 1_000,
            loss: if lossy { 300 } else { 0 },
            again: if lossy { 200 } else { 0 },
            resend_us: match trouble {
                Trouble::SlowRestarts => random.of(5, 40) * SECOND,
                _ => 0,
            },
            bytes_per_second: match trouble {
                Trouble::SlowLines => random.of(100, 3_000),
                _ => 0,
            },
        };
        let clocks: Vec<Clock> = (0..regions)
            .map(|_| match trouble {
                Trouble::Clocks | Trouble::Steps | Trouble::StepsInCuts => {
                    Clock { ahead_us: random.of(0, 500 * SECOND), fast_ppm: random.of(0, 500) }
                }
                _ => Clock { ahead_us: random.of(0, 10_000), fast_ppm: 0 },
            })
            .collect();
        let end = match trouble {
            Trouble::Away => random.of(60, 100) * 60 * SECOND,
            Trouble::Idle if seed.is_multiple_of(16) => random.of(2, 5) * 3_600 * SECOND,
            Trouble::Idle => random.of(10, 30) * 60 * SECOND,
            Trouble::Bursts(_) => 400 * SECOND,
            Trouble::SlowLines => random.of(40, 120) * SECOND,
            trouble if trouble.is_long() => random.of(30, 120) * SECOND,
            Trouble::Network => random.of(12, 30) * SECOND,
            Trouble::Expiry => 150 * SECOND,
            _ => 12 * SECOND,
        };
        let fast_ppm = clocks.iter().map(|clock| clock.fast_ppm).max().unwrap_or(0);
        let world = World::new(config, network, &clocks, random.bits());
        let names = match trouble {
            // The more there are, the longer a round takes.
            Trouble::SlowLines => random.one(&[3, 10, 30]),
            Trouble::Restores => 3,
            _ => random.one(&[1, 1, 3]),
        };
        let mut run = Self {
            trouble,
            world,
            random,
            end,
            names,
            ahead: 0,
            back: 0,
            lives: 0,
            fast_ppm,
            most: policy,
        };
        run.world.gone_after = Some(MOST_LINGER_US + SECOND).filter(|_| trouble.keeps_shares());
        run.plan_calls();
        run.plan_trouble();
        run
    }

    fn plan_calls(&mut self) {
        let policy = self.world.config.policy;
        if matches!(self.trouble, Trouble::Idle | Trouble::Away | Trouble::Bursts(_)) {
            // With what goes wrong.
            return;
        }
        for place in 0..self.world.count() {
            // Evenly, at a part of the rate.
            let percent = match self.trouble {
                Trouble::Expiry => self.random.one(&[0, 2, 60]),
                _ => self.random.one(&[20, 60, 150, 400]),
            };
            if let Some(gap) = self.gap(percent) {
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

    /// How long it is from call to call on average, at so many percent of the rate.
    fn gap(&self, percent: u64) -> Option<u64> {
        let policy = self.world.config.policy;
        let per_second = policy.refill() / policy.interval_ms() / 1_000;
        (100 * SECOND).checked_div(per_second.max(1) * percent)
    }

    fn plan_call(&mut self, at: u64, place: usize) {
        let name = self.some_name(self.names);
        let tokens = self.random.one(&[1, 1, 1, 1, 3]);
        if self.trouble.settles() && self.random.permille(700) {
            // Mostly a little more or less than was thought; now and then far more than there is.
            let capacity = self.world.config.policy.capacity();
            let most = self.random.one(&[tokens, 2 * tokens, 2 * tokens, 3 * capacity]);
            let (used, us) = (self.random.of(0, most), self.random.of(0, 2 * SECOND));
            let work = Happening::Work { name, reserved: tokens, used, us };
            return self.world.plan(at, place, work);
        }
        self.world.plan(at, place, Happening::Take(name, tokens));
        if self.trouble == Trouble::GiveBacks && self.random.permille(150) {
            let later = at + self.random.of(0, SECOND);
            let tokens = self.random.of(1, 2);
            self.world.plan(later, place, Happening::Give(name, tokens));
        }
    }

    fn some_name(&mut self, names: Name) -> Name {
        Name::try_from(self.random.of(1, u64::from(names))).unwrap_or(1)
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
            Trouble::None
            | Trouble::Clocks
            | Trouble::GiveBacks
            | Trouble::Settlements
            | Trouble::Expiry => {}
            Trouble::Network => self.plan_cuts(5),
            Trouble::Cuts(_) | Trouble::SettlementsInCuts(_) => self.plan_cuts(100),
            Trouble::Gaps => self.plan_gaps(),
            Trouble::SlowRestarts | Trouble::Refusals | Trouble::Suspensions => self.plan_outages(),
            Trouble::Memory => self.plan_peaks(),
            Trouble::Idle => self.plan_rests(),
            Trouble::Away => self.plan_absence(),
            Trouble::SlowLines => self.plan_cuts(30),
            Trouble::Bursts(_) => self.plan_bursts(),
            Trouble::Restores => {
                for _ in 0..self.random.of(1, 4) {
                    let (at, place, name) =
                        (self.some_time(), self.some_place(), self.some_name(3));
                    self.lives += 1;
                    if self.random.permille(300) {
                        let from = self.some_name(3);
                        self.world.plan(at, place, Happening::CopyKey(from, name));
                    } else {
                        let before = at.saturating_sub(self.random.of(0, 4 * SECOND));
                        self.world.plan(before, place, Happening::Replicate);
                        self.world.plan(at, place, Happening::RestoreKey(name));
                    }
                }
            }
            Trouble::Steps => self.plan_steps(10, 500),
            Trouble::StepsInCuts => {
                self.plan_cuts(100);
                self.plan_steps(60, 900);
                self.plan_new_keys();
            }
            Trouble::Forget => {
                for place in 0..self.world.count() {
                    for at in 0..self.end / SECOND * 4 {
                        let name = self.some_name(3);
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
                    let name = self.some_name(3);
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

    /// Steps of clocks by at most so many seconds, of which so many in a thousand go back.
    fn plan_steps(&mut self, longest: u64, back: u64) {
        for _ in 0..self.random.of(1, 6) {
            let (at, place) = (self.some_time(), self.some_place());
            let us = self.random.of(0, longest * SECOND);
            let mut by = i64::try_from(us).unwrap_or(0);
            if self.random.permille(back) {
                self.back += us;
                by = -by;
            } else {
                self.ahead += us;
            }
            self.world.plan(at, place, Happening::Step(by));
        }
    }

    /// Keys that are used nowhere before, and everywhere from then on, more than is refilled.
    fn plan_new_keys(&mut self) {
        for name in 1_000..1_004 {
            let mut at = self.some_time();
            while at < self.end {
                for place in 0..self.world.count() {
                    self.world.plan(at, place, Happening::Take(name, 1));
                }
                at += self.gap(200).unwrap_or(SECOND);
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

    /// How long an empty bucket takes to be full, at the least share there is, and what its key is
    /// kept for at the most after that.
    fn rest(&self) -> u64 {
        let policy = self.world.config.policy;
        let regions = u64::try_from(self.world.count()).unwrap_or(u64::MAX);
        // With what others may have admitted meanwhile.
        let full = (fill_us(policy) + self.world.config.timeout_us) * regions;
        // A tenth of the limit is shared out equally.
        full * regions * 10 + MOST_LINGER_US + SECOND
    }

    /// So many new keys at once that there is no memory; all is well when they have gone.
    fn plan_peaks(&mut self) {
        let network = self.world.network;
        let exchange = network.interval_us + network.delay_us + network.jitter_us;
        let (mut at, mut next) = (self.random.of(SECOND, 5 * SECOND), 1_000);
        self.world.most_keys = usize::try_from(self.random.of(10, 60)).unwrap_or(usize::MAX);
        let policy = self.world.config.policy;
        let regions = u64::try_from(self.world.count()).unwrap_or(u64::MAX);
        while at < self.end {
            let until = at + self.random.of(1, 100) * SECOND / 10;
            let (all, place) = (self.random.permille(500), self.some_place());
            for place in (0..self.world.count()).filter(|one| all || *one == place) {
                for _ in 0..self.random.of(50, 150) {
                    let at = self.random.of(at, until);
                    self.world.plan(at, place, Happening::Take(next, 1));
                    next += 1;
                }
            }
            // One token, at the least share there is; and what came in last is heard everywhere.
            let refilled = fill_us(policy) / policy.capacity() * regions;
            let calm = until + refilled + 20 * SECOND + 2 * exchange;
            for place in 0..self.world.count() {
                self.world.plan(calm, place, Happening::Grants(next));
                self.world.plan(calm + 2 * SECOND, place, Happening::IsWhole);
                next += 1;
            }
            at = calm + 2 * SECOND + self.random.of(0, 10 * SECOND);
            self.end = self.end.max(at);
        }
    }

    /// Calls for a moment, and then none for long: everything has to be gone, and nothing is said
    /// of it any more.
    fn plan_rests(&mut self) {
        let policy = self.world.config.policy;
        let rest = self.rest().max(60 * SECOND);
        let mut at = 0;
        while at < self.end {
            let until = at + self.random.of(1, 20) * SECOND;
            for place in 0..self.world.count() {
                for _ in 0..self.random.of(0, 3 * policy.capacity()) {
                    let at = self.random.of(at, until);
                    self.plan_call(at, place);
                }
            }
            let gone = until + rest;
            at = gone + self.random.of(SECOND, self.end.max(2 * SECOND));
            let cut = self.random.permille(400);
            if cut {
                let sides: Vec<bool> = (0..self.world.count()).map(|place| place == 0).collect();
                let cut = self.random.of(until.saturating_sub(5 * SECOND), until);
                let healed = self.random.of(cut, at);
                self.world.plan_cut((cut, healed), &sides, true);
                // What comes in then is kept for as long as what was taken then.
                at = at.max(healed + rest);
            }
            for place in 0..self.world.count() {
                // What was noted before a cut is sent after it.
                let silent = if cut { at } else { gone };
                self.world.plan(at, place, Happening::IsIdle(silent));
                if !cut {
                    self.world.plan(gone, place, Happening::IsIdle(gone));
                }
            }
        }
        self.end = at;
    }

    /// One region is cut off to the end.
    fn plan_absence(&mut self) {
        let mut next = 1_000;
        let cut = self.random.of(0, 30 * SECOND);
        let sides: Vec<bool> = (0..self.world.count()).map(|place| place == 0).collect();
        self.world.plan_cut((cut, self.end), &sides, true);
        for place in 0..self.world.count() {
            let gap = SECOND * self.random.of(1, 40) / 10;
            let mut at = 0;
            while at < self.end {
                at += self.random.of(0, 2 * gap);
                // Some are used more than once.
                let name = next - Name::try_from(self.random.of(0, 10)).unwrap_or(0);
                let tokens = self.random.one(&[1, 1, 3, self.world.config.policy.capacity()]);
                self.world.plan(at, place, Happening::Take(name, tokens));
                next += 1;
            }
        }
        // Refilled as slowly as on the smallest side.
        let policy = self.world.config.policy;
        let regions = u64::try_from(self.world.count()).unwrap_or(u64::MAX);
        let slow = Policy::new(policy.capacity(), policy.refill() / regions, policy.interval_ms());
        self.world.count_keys(slow.expect("within the bounds"));
    }

    /// All there is, everywhere, in the moments when it is worth most: when keys have just gone,
    /// and when cuts begin and end.
    fn plan_bursts(&mut self) {
        let policy = self.world.config.policy;
        let (full, timeout) = (fill_us(policy).min(100 * SECOND), self.world.config.timeout_us);
        let mut at = self.random.of(0, 5 * SECOND);
        while at < self.end {
            let long = self.random.of(SECOND, 2 * timeout + 60 * SECOND);
            if self.random.permille(700) {
                let sides: Vec<bool> =
                    (0..self.world.count()).map(|_| self.random.permille(500)).collect();
                let both_ways = self.random.permille(700);
                self.world.plan_cut((at, at + long), &sides, both_ways);
            }
            let mut burst = at.saturating_sub(self.random.of(0, 2 * SECOND));
            while burst < at + long + 2 * SECOND {
                for place in 0..self.world.count() {
                    if self.random.permille(800) {
                        let late = self.random.of(0, SECOND / 10);
                        for _ in 0..=policy.capacity() {
                            self.plan_call(burst + late, place);
                        }
                    }
                }
                burst += match self.random.of(0, 3) {
                    // Before it is full, just when it is, and when its key has gone.
                    0 => self.random.of(full / 4, full) + SECOND / 10,
                    1 => full + SECOND / 100,
                    _ => full + self.random.of(4 * SECOND, 22 * SECOND),
                };
            }
            at += long + self.random.of(0, 30 * SECOND);
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
            trouble if trouble.is_equal() => (config.timeout_us + SECOND / 10 + calm, calm),
            // However long it is: each falls silent for the other, who says so to the
            // third; after that all goes by way of it.
            Trouble::Gaps => (2 * (config.timeout_us + SECOND / 10) + 3 * calm, 2 * calm),
            _ => (lag, lag),
        };
        let mut allowed = bound(self.most, config.regions, unknown, lag);
        allowed += bound(self.most, 1, 0, self.ahead);
        if self.trouble == Trouble::GiveBacks || self.trouble.settles() {
            // What is given back when the bucket is full, as one bucket would see it,
            // may come in elsewhere when it is not.
            let others = u64::try_from(config.regions - 1).unwrap_or(u64::MAX);
            let given = self.world.admitted.values();
            allowed += others * given.map(|given| most_given_back(given, lag)).max().unwrap_or(0);
        }
        if self.trouble == Trouble::Policies {
            // The level is kept when the policy changes, and so may be a full bucket.
            allowed += self.most.capacity_micros().unsigned_abs();
        }
        if matches!(
            self.trouble,
            Trouble::Losses | Trouble::Promotions | Trouble::SlowRestarts | Trouble::Restores
        ) {
            // What was forgotten with each life: who takes at once hides what it had not
            // told of the life before.
            allowed += self.lives * bound(self.most, 2, unknown, 0);
        }
        let given = self.world.admitted.values();
        let most = given.map(|given| excess(given, self.most, self.fast_ppm)).max().unwrap_or(0);
        if let Some(not) = self.world.wrong.first() {
            return Err(format!("{not} (microseconds), of {}", self.world.wrong.len()));
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
        let (kept, overrun) = (self.world.kept, self.world.overrun);
        Ok(Outcome { excess: most, bound: allowed, spread, spread_bound, kept, overrun })
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
            // Who has forgotten it and is told begins anew, and may not have said so yet: nothing
            // is counted there.
            let mut agreed = known.clone();
            for place in 0..count {
                let (id, wall) = (self.world.server(place).id(), self.world.wall(place));
                let bucket = self.world.server(place).shared(name, wall);
                let own = bucket.map(|bucket| bucket.counter(id));
                if own.is_some_and(|own| own.epoch != 0 && (own.spent, own.refunded) == (0, 0)) {
                    agreed.iter_mut().for_each(|known| known.retain(|counter| counter.0 != id));
                }
            }
            if let Some(other) = agreed.iter().find(|other| **other != agreed[0]) {
                return Err(format!("counters {:?} and {other:?}", agreed[0]));
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
                let (id, acknowledged) = (server.id(), server.acknowledged(name));
                let (Some((epoch, acknowledged)), Some(known)) = (acknowledged, known.first())
                else {
                    continue;
                };
                let ours = known.iter().find(|counter| counter.0 == id);
                // Counters that were begun anew since say nothing of those before.
                let later = ours.is_some_and(|ours| ours.1 > epoch);
                let right = |sum: &Sum| ours.is_some_and(|ours| *ours == (id, epoch, sum.0, sum.1));
                if !later && !acknowledged.iter().any(right) {
                    return Err(format!(
                        "{id} gave out {acknowledged:?} in {epoch}, known is {known:?}"
                    ));
                }
            }
        }
        Ok(spread)
    }

    /// When nobody takes any more, all are full again.
    fn all_full(&mut self) -> Result<(), Violation> {
        let config = self.world.config;
        // Capacity and the deepest debt, at the slowest rate there is.
        let empty = fill_us(self.most).max(60 * SECOND) + self.ahead + self.back;
        let regions = u64::try_from(config.regions).unwrap_or(u64::MAX);
        self.world.wait(empty * 2 * regions + 2 * regions * config.timeout_us);
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
        // What was kept for longer at a share of the limit, the next walk finds.
        self.world.walk();
        self.world.wait(60 * SECOND);
        for place in 0..config.regions {
            let wall = self.world.wall(place);
            let kept = self.world.server(place).kept(wall);
            if kept > 0 && self.trouble != Trouble::Policies {
                return Err(format!("{kept} keys after a long rest"));
            }
        }
        Ok(())
    }
}
