//! What has to hold of the controllers that ship, on seeds that they have not seen.

use crate::play::{Failure, each, play};
use crate::players::Player;
use crate::scenario::{Family, Scenario};
use crate::stats::{Interval, bootstrap, mean, worst_decile};
use crate::world::{Score, Share};
use claw_adapt::drain::Parameters;
use claw_adapt::network::{Network, WEIGHTS};
use claw_adapt::weights::Loop;
use claw_adapt::{Controller, Mode, Observation, TICK_US, Weights};
use std::fmt::{self, Write};
use std::ops::Range;
use std::time::Instant;

const OFF_PATH: [&str; 3] = [
    include_str!("../../adapt/weights/off-path-1.txt"),
    include_str!("../../adapt/weights/off-path-2.txt"),
    include_str!("../../adapt/weights/off-path-3.txt"),
];

const ON_PATH: &str = include_str!("../../adapt/weights/on-path-1.txt");

/// What `claw-train search 100` found for the loop without a network, rounded: eight times the runs of a
/// training, on as many different scenarios.
const SEARCHED: Parameters = Parameters {
    gain: 0.55,
    target: 0.178,
    stretch: 1.52,
    growth: 0.0287,
    burst_s: 0.0561,
    memory_s: 0.361,
    slack: 2.05,
    cap: None,
};

/// Families of a group, with the name it has in the report. A cap on what is in flight is of no use off
/// the path, so drain-cap is not judged there.
const GROUPS: [(&str, &[Family]); 4] = [
    ("trained", &Family::TRAINED),
    ("unseen", &UNSEEN),
    ("off path", &[Family::Telemetry]),
    ("narrow", &[Family::Narrow]),
];

const UNSEEN: [Family; 3] = [Family::Stall, Family::RetryStorm, Family::Lag];

/// Scores by family and seed, in the order of [`Family::ALL`]; one list for each training seed.
struct Played(Vec<Vec<Score>>);

/// What has to hold of an interval: of both its ends.
#[derive(Clone, Copy)]
enum Has {
    Above(f64),
    AtLeast(f64),
    AtMost(f64),
    Within(f64),
}

impl Has {
    fn holds(self, Interval { low, high, .. }: Interval) -> bool {
        match self {
            Self::Above(bound) => low > bound,
            Self::AtLeast(bound) => low >= bound,
            Self::AtMost(bound) => high <= bound,
            Self::Within(bound) => low >= -bound && high <= bound,
        }
    }
}

impl fmt::Display for Has {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Above(bound) => write!(f, "above {bound}"),
            Self::AtLeast(bound) => write!(f, "at least {bound}"),
            Self::AtMost(bound) => write!(f, "at most {bound}"),
            Self::Within(bound) => write!(f, "within {bound} of 0"),
        }
    }
}

struct Report {
    text: String,
    is_well: bool,
    seeds: Range<u64>,
    threads: usize,
}

impl Report {
    fn play(&self, players: &[Player]) -> Result<Played, Failure> {
        let all = each(&Family::ALL, self.seeds.clone());
        let play = |player| play(player, &all, self.threads, Share::Alike);
        Ok(Played(players.iter().map(play).collect::<Result<_, _>>()?))
    }

    /// Where a family's scores are.
    fn of(&self, families: &[Family]) -> Vec<usize> {
        let each = (self.seeds.end - self.seeds.start) as usize;
        let places = Family::ALL.iter().enumerate().filter(|(_, family)| families.contains(family));
        places.flat_map(|(nth, _)| nth * each..(nth + 1) * each).collect()
    }

    fn check(&mut self, gate: &str, interval: Interval, has: Has) {
        let holds = has.holds(interval);
        self.is_well &= holds;
        let word = if holds { "holds" } else { "MISSED" };
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{word:6} {gate}: {interval}, has to be {has}");
    }

    /// The mean of a value, or another statistic of it, over the scenarios.
    fn interval(
        &self,
        of: &Played,
        families: &[Family],
        value: impl Fn(&Score) -> f64,
        statistic: fn(&[f64]) -> f64,
    ) -> Interval {
        let chosen = self.of(families);
        let row = |scores: &Vec<Score>| chosen.iter().map(|k| value(&scores[*k])).collect();
        bootstrap(&of.0.iter().map(row).collect::<Vec<_>>(), statistic)
    }

    fn difference(
        &self,
        one: &Played,
        other: &Played,
        families: &[Family],
        value: impl Fn(&Score) -> f64,
    ) -> Interval {
        let chosen = self.of(families);
        let row = |scores: &Vec<Score>| -> Vec<f64> {
            chosen.iter().map(|k| value(&scores[*k]) - value(&other.0[0][*k])).collect()
        };
        bootstrap(&one.0.iter().map(row).collect::<Vec<_>>(), mean)
    }

    /// The difference in J has to be above `bound`.
    fn above(&mut self, gate: &str, one: &Played, other: &Played, families: &[Family], bound: f64) {
        let difference = self.difference(one, other, families, Score::j);
        self.check(gate, difference, Has::Above(bound));
    }
}

fn constant(corrects: Loop, weight: f32) -> Player {
    let network = Network::new(Box::new([weight; WEIGHTS]));
    let command = "by hand".to_owned();
    Player::Shipped(Mode::Learned(Box::new(Weights {
        corrects,
        parameters: corrects.parameters(),
        seed: 0,
        command,
        network,
    })))
}

/// The report, and whether all gates hold.
///
/// # Errors
/// When weights that this was built with are damaged.
pub fn report(seeds: Range<u64>, threads: usize) -> Result<(String, bool), String> {
    let read = |text: &&str| Weights::read(text).map_err(|error| error.to_string());
    let off_path = OFF_PATH.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let over_cap = read(&ON_PATH)?;
    judge(off_path, over_cap, seeds, threads).map_err(|error| error.to_string())
}

fn judge(
    off_path: Vec<Weights>,
    over_cap: Weights,
    seeds: Range<u64>,
    threads: usize,
) -> Result<(String, bool), Failure> {
    let mut it = Report { text: String::new(), is_well: true, seeds, threads };
    let inner = |parameters| Player::Shipped(Mode::Inner(parameters));
    let player = |weights| Player::Shipped(Mode::Learned(Box::new(weights)));
    let of_decision = off_path.first().cloned();
    let table = [
        ("static", vec![Player::Static]),
        ("AIMD", vec![Player::Aimd]),
        ("Little", vec![Player::Little]),
        ("Breakwater-like", vec![Player::Breakwater]),
        ("Gradient2", vec![Player::Gradient2]),
        ("drain-cap", vec![inner(Parameters::ON_PATH)]),
        ("rate only", vec![inner(Parameters::OFF_PATH)]),
        ("rate only, searched", vec![inner(SEARCHED)]),
        ("learned over rate only", off_path.into_iter().map(player).collect()),
        ("learned over drain-cap", vec![player(over_cap)]),
    ];
    let mut played = vec![];
    for (name, players) in &table {
        played.push((*name, it.play(players)?));
    }
    let [static_, aimd, little, gradient2, cap, rate, searched, learned, over_cap] =
        [0, 1, 2, 4, 5, 6, 7, 8, 9].map(|nth: usize| &played[nth].1);

    for (group, families) in GROUPS {
        let _ = writeln!(
            it.text,
            "\n| {group} | goodput | late | worst decile | J | J less drain-cap's |\n|---|---|---|---|---|---|"
        );
        for (name, played) in &played {
            let goodput = it.interval(played, families, Score::goodput, mean);
            let late = it.interval(played, families, Score::late, mean);
            let worst = it.interval(played, families, Score::goodput, worst_decile);
            let j = it.interval(played, families, Score::j, mean).found;
            let less = it.difference(played, cap, families, Score::j);
            let _ = writeln!(
                it.text,
                "| {name} | {goodput:.3} | {late:.4} | {worst:.3} | {j:.3} | {less:+.4} |"
            );
        }
    }
    let _ = writeln!(it.text);

    let on_path: Vec<Family> = Family::TRAINED.into_iter().chain(UNSEEN).collect();
    let all: Vec<Family> = on_path.iter().copied().chain([Family::Telemetry]).collect();
    let (trained, unseen) = (&Family::TRAINED[..], &UNSEEN[..]);
    it.above("1 drain-cap over Little, trained", cap, little, trained, 0.03);
    it.above("1 drain-cap over Little, unseen", cap, little, unseen, 0.04);
    for family in &on_path {
        let name = format!("1 drain-cap over Little, {family:?}");
        it.above(&name, cap, little, &[*family], 0.0);
    }
    it.above("1 drain-cap over Gradient2, trained", cap, gradient2, trained, 0.0);
    it.above("1 drain-cap over Gradient2, unseen", cap, gradient2, unseen, 0.0);
    for (group, families) in &GROUPS[..2] {
        let goodput = it.interval(cap, families, Score::goodput, mean);
        it.check(&format!("2 drain-cap, goodput, {group}"), goodput, Has::AtLeast(0.95));
        let late = it.interval(cap, families, Score::late, mean);
        it.check(&format!("2 drain-cap, late, {group}"), late, Has::AtMost(0.015));
        let worst = it.interval(cap, families, Score::goodput, worst_decile);
        it.check(&format!("2 drain-cap, worst decile, {group}"), worst, Has::AtLeast(0.85));
    }
    for (group, families) in &GROUPS[..3] {
        it.above(&format!("3 learned over rate only, {group}"), learned, rate, families, 0.0);
    }
    for family in &all {
        it.above(
            &format!("3 learned over rate only, {family:?}"),
            learned,
            rate,
            &[*family],
            -0.02,
        );
    }
    it.above("3 learned over searched, all", learned, searched, &all, 0.0);
    let offered = [
        ("drain-cap", cap, &on_path),
        ("rate only", rate, &all),
        ("learned over rate only", learned, &all),
    ];
    for (name, offered, families) in offered {
        for (other, played) in [("static", static_), ("AIMD", aimd)] {
            it.above(&format!("4 {name} over {other}"), offered, played, families, 0.2);
        }
    }
    it.above("4 learned over drain-cap, in the shadow", over_cap, cap, &on_path, -0.005);

    let families = [Family::Home, Family::Steps, Family::Degrade, Family::Stall];
    let all_of_them = each(&families, it.seeds.clone());
    let premium = |share| play(&inner(Parameters::ON_PATH), &all_of_them, threads, share);
    let (alike, kept) = (premium(Share::Alike)?, premium(Share::Keep(0.1))?);
    let of = |scores: &[Score], value: fn(&Score) -> f64| -> Vec<f64> {
        scores.iter().map(value).collect()
    };
    let [(weighted, total), (weighted_alike, total_alike)] =
        [&kept, &alike].map(|scores| (of(scores, Score::weighted), of(scores, Score::goodput)));
    let _ = writeln!(
        it.text,
        "       5 premium users treated alike: weighted {}, total {}; a tenth kept: total {}",
        bootstrap(&[weighted_alike], mean),
        bootstrap(std::slice::from_ref(&total_alike), mean),
        bootstrap(std::slice::from_ref(&total), mean)
    );
    let weighted = bootstrap(&[weighted], mean);
    it.check("5 premium users, a tenth kept, weighted", weighted, Has::AtLeast(0.95));
    let more = total.iter().zip(&total_alike).map(|(one, other)| one - other).collect();
    it.check(
        "5 premium users, total less that of all alike",
        bootstrap(&[more], mean),
        Has::Within(0.01),
    );

    for (corrects, floor) in [(Loop::OnPath, 0.8), (Loop::OffPath, 0.35)] {
        for weight in [1e30, -1e30] {
            let played = it.play(&[constant(corrects, weight)])?;
            let goodput = it.interval(&played, &all, Score::goodput, mean);
            let gate = format!("7 weights of {weight:e}, {}", corrects.name());
            it.check(&gate, goodput, Has::AtLeast(floor));
        }
        let played = it.play(&[constant(corrects, f32::NAN)])?;
        let loops = if corrects == Loop::OnPath { cap } else { rate };
        let less = it.difference(&played, loops, &all, Score::goodput);
        let gate = format!("7 weights of NaN, {}, less its loop", corrects.name());
        it.check(&gate, less, Has::Within(0.02));
    }

    if let Some(weights) = of_decision {
        let us = decision_us(weights)?;
        let us = Interval { found: us, low: us, high: us };
        it.check(
            "8 microseconds of a decision of the network over the loop",
            us,
            Has::AtMost(10.0),
        );
    }
    Ok((it.text, it.is_well))
}

/// Microseconds of a decision, the mean of many.
fn decision_us(weights: Weights) -> Result<f64, Failure> {
    let bounds = Scenario::new(Family::Home, 0).bounds();
    let mut controller = Controller::new(Mode::Learned(Box::new(weights)), bounds)?;
    let mut seen = Observation {
        offered: 90.0,
        admitted: 80.0,
        rejected: 10.0,
        completed: 79.0,
        late: 1.0,
        p50_s: 0.03,
        p95_s: 0.08,
        mean_s: 0.04,
        p10_s: 0.02,
        in_flight: 30.0,
        policy: controller.start(),
    };
    let count = 200_000;
    let began = Instant::now();
    for nth in 1..=count {
        seen.policy = controller.step(nth * TICK_US, &seen).policy;
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / count as f64)
}
