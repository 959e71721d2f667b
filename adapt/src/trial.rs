//! Whether the adaptive policy of a route does better than the operator's own limit: a trial by switchback.
//!
//! Users cannot be split into two halves, since both would share one queue: the half that overfills it spoils the
//! other's figures. So the whole route is under one arm for a block of time, then under the other. Two blocks, one of
//! each arm, are a pair; their order is by a fixed hash of the pair's number, so that no rhythm of the load falls in
//! with it. The first sixth of a block is not scored: it has the queue that the other arm left.
//!
//! A trial's text, from which another leader goes on:
//!
//! ```text
//! claw-adapt trial 1
//! block 60000000
//! running 3
//! pair 1.0125e2 2.5e2
//! pair 9.875e1 2.4425e2
//! ```

use std::fmt::{self, Write};

/// Microseconds of a block, unless there is a reason for another length.
pub const BLOCK_US: u64 = 60_000_000;

/// Pairs with which a trial ends, at the latest.
pub const MOST_PAIRS: usize = 30;

/// Pairs before which no difference is believed.
const LEAST_PAIRS: usize = 6;

/// Longest time that may pass from one tick to the next, if what was in between is to be known.
const GAP_US: u64 = 1_000_000;

/// The part of a block that is not scored is one of so many.
const PARTS: u64 = 6;

const RESAMPLES: usize = 2_000;

/// Resamples below a 95 % interval, and above it.
const OUTSIDE: usize = 50;

/// Beyond what any score can be, and small enough to be added up.
const MOST_SCORE: f64 = 1e30;

const VERSION: &str = "claw-adapt trial 1";

/// What holds during a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arm {
    /// The operator's own limit.
    Static,
    /// What the controller decides.
    Adaptive,
}

/// Counts of one tick.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Requests that asked.
    pub offered: u64,
    /// Requests that were done within the SLA.
    pub in_sla: u64,
    /// Requests that were done later.
    pub late: u64,
}

/// Scores of the two blocks of a pair: requests per second within the SLA, less half of those that were late.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// Under the operator's limit.
    pub of_static: f64,
    /// Under the controller's policy.
    pub of_adaptive: f64,
}

/// By how much the adaptive arm's score is above the static one's, as a share of the mean score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// The mean over all pairs.
    pub mean: f64,
    /// Lower end of its 95 % interval.
    pub low: f64,
    /// Upper end of its 95 % interval.
    pub high: f64,
}

/// What the pairs so far say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet.
    Undecided,
    /// The adaptive arm does better.
    Better,
    /// The adaptive arm does worse.
    Worse,
    /// After all pairs none could be told.
    NoDifference,
}

/// A trial of one route.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    block_us: u64,
    /// Of the pair that runs, or is to run first.
    number: u64,
    running: Option<Running>,
    pairs: Vec<Pair>,
    difference: Option<Difference>,
    verdict: Verdict,
}

/// The pair that runs.
#[derive(Debug, Clone, PartialEq)]
struct Running {
    begun_us: u64,
    /// The end of the latest tick.
    seen_us: u64,
    of_static: Tally,
    of_adaptive: Tally,
}

/// What was scored of a block.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Tally {
    us: u64,
    seen: Seen,
}

/// Why a text is no trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrialError {
    /// The first line is another.
    Version,
    /// A line of the head is missing or malformed: which.
    Head(&'static str),
    /// This line of a pair, counted from 1, is malformed.
    Pair(usize),
    /// There are so many pairs.
    Count(usize),
}

impl Trial {
    /// A trial with blocks of `block_us` microseconds, [`BLOCK_US`] as a rule; less than six are taken to be six, since
    /// a block has six parts.
    #[must_use]
    pub fn new(block_us: u64) -> Self {
        Self {
            block_us: block_us.max(PARTS),
            number: 0,
            running: None,
            pairs: Vec::new(),
            difference: None,
            verdict: Verdict::Undecided,
        }
    }

    /// The arm that is to hold at `now_us`, in microseconds of a clock that does not step. The first call begins the
    /// trial.
    pub fn arm(&mut self, now_us: u64) -> Arm {
        let begun_us = self.running.get_or_insert_with(|| Running::at(now_us)).begun_us;
        let (block, _) = self.place(now_us.saturating_sub(begun_us));
        arm_of(self.number, block)
    }

    /// Books what was counted from the call before until `now_us`, to the block in which all of that time lies, when
    /// it is scored.
    ///
    /// When more than a second has passed, or more than a sixth of a block, nobody knows what was in between: the pair
    /// is void, and the next one begins.
    pub fn see(&mut self, now_us: u64, seen: Seen) {
        let Some(mut running) = self.running.take() else {
            self.running = Some(Running::at(now_us));
            return;
        };
        let most = GAP_US.min(self.block_us.div_euclid(PARTS));
        let Some(elapsed) = now_us.checked_sub(running.seen_us).filter(|us| *us <= most) else {
            self.number = self.number.wrapping_add(1);
            self.running = Some(Running::at(now_us));
            return;
        };
        let since = |us: u64| us.saturating_sub(running.begun_us);
        let (block, from) = self.place(since(running.seen_us));
        let to = from.saturating_add(elapsed);
        if from >= self.block_us.div_euclid(PARTS) && to <= self.block_us {
            let tally = match arm_of(self.number, block) {
                Arm::Static => &mut running.of_static,
                Arm::Adaptive => &mut running.of_adaptive,
            };
            tally.add(elapsed, seen);
        }
        running.seen_us = now_us;
        let end_us = running.begun_us.saturating_add(self.block_us.saturating_mul(2));
        if now_us >= end_us {
            self.number = self.number.wrapping_add(1);
            self.finish(&running);
            running = Running { seen_us: now_us, ..Running::at(end_us) };
        }
        self.running = Some(running);
    }

    /// Microseconds of a block.
    #[must_use]
    pub fn block_us(&self) -> u64 {
        self.block_us
    }

    /// All pairs so far. None is added once there is a verdict.
    #[must_use]
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    /// What they say: [`Verdict::Better`] or [`Verdict::Worse`] as soon as there are six pairs, and all 2000 resamples of
    /// [`Self::difference`] are on one side of 0; [`Verdict::NoDifference`] when 30 pairs do not tell. A verdict stays.
    ///
    /// The interval of 95 % would do if it were looked at once. It is looked at after each pair; and then it finds a
    /// difference between equal arms in a third of all trials, where this does in a twelfth, half of them
    /// [`Verdict::Better`].
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The mean difference between the arms and its interval, by a bootstrap over pairs; `None` while there is no pair, or
    /// all scores are 0.
    #[must_use]
    pub fn difference(&self) -> Option<Difference> {
        self.difference
    }

    /// The trial as a text, which [`Self::from_text`] reads.
    #[must_use]
    pub fn to_text(&self) -> String {
        let head = format!("{VERSION}\nblock {}\nrunning {}\n", self.block_us, self.number);
        self.pairs.iter().fold(head, |mut text, Pair { of_static, of_adaptive }| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "pair {of_static:e} {of_adaptive:e}");
            text
        })
    }

    /// The trial of that text, to go on with: the pair that ran when it was written is begun anew.
    ///
    /// # Errors
    /// When it is not whole, or of another version.
    pub fn from_text(text: &str) -> Result<Self, TrialError> {
        let mut lines = text.lines();
        if lines.next() != Some(VERSION) {
            return Err(TrialError::Version);
        }
        let mut head = |name: &'static str| {
            let number = lines.next().and_then(|line| line.strip_prefix(name)?.strip_prefix(' '));
            number.and_then(|number| number.parse().ok()).ok_or(TrialError::Head(name))
        };
        let block_us = head("block")?;
        let mut trial = Self::new(block_us);
        if trial.block_us != block_us {
            return Err(TrialError::Head("block"));
        }
        trial.number = head("running")?;
        trial.pairs = lines
            .zip(1..)
            .map(|(line, nth)| Pair::of_line(line).ok_or(TrialError::Pair(nth)))
            .collect::<Result<_, _>>()?;
        if trial.pairs.len() > MOST_PAIRS {
            return Err(TrialError::Count(trial.pairs.len()));
        }
        trial.judge();
        Ok(trial)
    }

    /// The block that is running `us` after a pair began, counted from it, and how long it has been.
    fn place(&self, us: u64) -> (u64, u64) {
        (us.div_euclid(self.block_us), us.rem_euclid(self.block_us))
    }

    /// Adds a pair that was seen whole.
    fn finish(&mut self, running: &Running) {
        // Without a request there is nothing to compare; and a quiet night must not end a trial.
        let tallies = [running.of_static, running.of_adaptive];
        let is_quiet = tallies.iter().any(|it| it.us == 0 || it.seen.offered == 0);
        if is_quiet || self.verdict != Verdict::Undecided {
            return;
        }
        self.pairs.push(Pair {
            of_static: running.of_static.score(),
            of_adaptive: running.of_adaptive.score(),
        });
        self.judge();
    }

    fn judge(&mut self) {
        let shares = resampled(&self.pairs);
        self.difference = shares.as_deref().and_then(|shares| Difference::of(&self.pairs, shares));
        let (least, most) = (shares.iter().flatten().next(), shares.iter().flatten().next_back());
        let count = self.pairs.len();
        self.verdict = match (least, most) {
            (Some(least), _) if count >= LEAST_PAIRS && *least > 0.0 => Verdict::Better,
            (_, Some(most)) if count >= LEAST_PAIRS && *most < 0.0 => Verdict::Worse,
            _ if count >= MOST_PAIRS => Verdict::NoDifference,
            _ => Verdict::Undecided,
        };
    }
}

impl Running {
    fn at(now_us: u64) -> Self {
        let (of_static, of_adaptive) = (Tally::default(), Tally::default());
        Self { begun_us: now_us, seen_us: now_us, of_static, of_adaptive }
    }
}

impl Tally {
    fn add(&mut self, us: u64, Seen { offered, in_sla, late }: Seen) {
        self.us = self.us.saturating_add(us);
        self.seen.offered = self.seen.offered.saturating_add(offered);
        self.seen.in_sla = self.seen.in_sla.saturating_add(in_sla);
        self.seen.late = self.seen.late.saturating_add(late);
    }

    /// By second of what was scored: a block without a gap lacks two ticks of it at the most.
    fn score(&self) -> f64 {
        (self.seen.in_sla as f64 - self.seen.late as f64 / 2.0) / (self.us as f64 / 1e6)
    }
}

impl Difference {
    /// Of what was resampled, in order.
    fn of(pairs: &[Pair], shares: &[f64]) -> Option<Self> {
        let mean = pairs.iter().map(Pair::difference).sum::<f64>() / whole(pairs)?;
        let (low, high) = (*shares.get(OUTSIDE)?, *shares.iter().nth_back(OUTSIDE)?);
        Some(Self { mean, low, high })
    }
}

impl Pair {
    fn of_line(line: &str) -> Option<Self> {
        let (of_static, of_adaptive) = line.strip_prefix("pair ")?.split_once(' ')?;
        let score = |text: &str| text.parse().ok().filter(|x: &f64| x.abs() <= MOST_SCORE);
        Some(Self { of_static: score(of_static)?, of_adaptive: score(of_adaptive)? })
    }

    fn difference(&self) -> f64 {
        self.of_adaptive - self.of_static
    }
}

/// The arm of the `block`-th block after the beginning of pair `number`.
fn arm_of(number: u64, block: u64) -> Arm {
    let is_second = block.rem_euclid(2) == 1;
    let is_swapped = mixed(number.wrapping_add(block.div_euclid(2))) & 1 == 1;
    if is_second == is_swapped { Arm::Static } else { Arm::Adaptive }
}

/// The sum of the scores of all pairs, of both arms by half. Where most requests are late a score is below 0; a
/// difference, as a share of this, keeps its sign.
fn whole(pairs: &[Pair]) -> Option<f64> {
    let scores = pairs.iter().map(|it| (it.of_static.abs() + it.of_adaptive.abs()) / 2.0);
    Some(scores.sum()).filter(|sum| *sum > 0.0)
}

/// A percentile bootstrap: the mean relative differences that pairs drawn anew come to, in order. The draws are the
/// same each time.
fn resampled(pairs: &[Pair]) -> Option<Vec<f64>> {
    let whole = whole(pairs)?;
    let mut draws = 0..;
    let mut draw = || {
        // The upper half of the product is a number below the count, each as likely.
        let place = u128::from(mixed(draws.next()?)).wrapping_mul(pairs.len() as u128) >> 64;
        pairs.get(place as usize).map(Pair::difference)
    };
    let sums = (0..RESAMPLES).map(|_| pairs.iter().map(|_| draw()).sum::<Option<f64>>());
    let mut shares = sums.map(|sum| Some(sum? / whole)).collect::<Option<Vec<f64>>>()?;
    shares.sort_by(f64::total_cmp);
    Some(shares)
}

/// The step of SplitMix64: all 64 bits change with each.
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

impl fmt::Display for TrialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version => write!(f, "the first line must be '{VERSION}'"),
            Self::Head(name) => write!(f, "the line '{name} ..' is missing or malformed"),
            Self::Pair(nth) => write!(f, "pair {nth} is malformed"),
            Self::Count(found) => {
                write!(f, "there must be at most {MOST_PAIRS} pairs, not {found}")
            }
        }
    }
}

impl std::error::Error for TrialError {}
