//! Simulates regions that share limits, and asserts what must hold. See `--help`.

use claw_core::membership::PartitionPolicy;
use claw_sim::even::Even;
use claw_sim::runs::{self, Outcome, Trouble};
use claw_sim::scenarios::{SCENARIOS, Way};
use std::io::Write;
use std::process::ExitCode;

const USAGE: &str = "\
claw-sim [--runs n] [--seed n] [--only text]

Prints what each way to agree gives out, against what one bucket would; then makes
n random runs of each kind (600), from seed n (0) on, and prints the worst of what
was given out too much, against what may be. With --only, makes just those runs whose
name has the text in it. Exit code 1 when anything is violated.
";

struct Options {
    runs: u64,
    seed: u64,
    only: Option<String>,
}

fn options(args: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options { runs: 600, seed: 0, only: None };
    let mut args = args;
    while let Some(name) = args.next() {
        let value = args.next()?;
        match name.as_str() {
            "--runs" => options.runs = value.parse().ok()?,
            "--seed" => options.seed = value.parse().ok()?,
            "--only" => options.only = Some(value),
            _ => return None,
        }
    }
    Some(options)
}

fn main() -> std::io::Result<ExitCode> {
    let mut out = std::io::stdout();
    let Some(Options { runs, seed, only }) = options(std::env::args().skip(1)) else {
        out.write_all(USAGE.as_bytes())?;
        return Ok(ExitCode::from(2));
    };
    if only.is_none() {
        print_scenarios(&mut out)?;
    }
    let troubles: Vec<Trouble> = Trouble::ALL
        .into_iter()
        .filter(|trouble| only.as_ref().is_none_or(|text| trouble.name().contains(text)))
        .collect();

    let seeds = seed..seed.saturating_add(runs);
    writeln!(out, "\nWorst of {runs} runs each, against what may be:\n")?;
    writeln!(out, "{:44}{:>8}{:>8}{:>8}", "", "excess", "spread", "keys")?;
    let mut violated = false;
    let done = in_parallel(&troubles, |trouble| {
        let runs = seeds.clone().map(|seed| (seed, runs::run(trouble, seed)));
        Worst::of(runs)
    });
    for (trouble, worst) in troubles.iter().zip(done) {
        let [excess, spread, kept] =
            [worst.excess, worst.spread, worst.kept].map(|(part, whole)| ratio(part, whole));
        let kept = if worst.kept.0 > 0 { kept } else { String::new() };
        writeln!(out, "{:44}{excess:>8}{spread:>8}{kept:>8}", trouble.name())?;
        violated |= report(&mut out, &worst.violations)?;
    }

    if only.is_none() {
        violated |= print_even(&mut out, runs.div_ceil(4), seed)?;
    }
    Ok(if violated { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print_scenarios(out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "Given out / what one bucket gives out:\n")?;
    let names = Way::ALL.map(|way| format!("{:>8}", way.name())).concat();
    writeln!(out, "{:44}{names}", "")?;
    for scenario in SCENARIOS {
        let ideal = scenario.ideal();
        let parts = Way::ALL.map(|way| format!("{:>8}", ratio(scenario.given(way), ideal)));
        writeln!(out, "{:44}{}", scenario.name, parts.concat())?;
    }
    Ok(())
}

/// Returns whether anybody was refused.
fn print_even(out: &mut impl Write, runs: u64, seed: u64) -> std::io::Result<bool> {
    let mut violated = false;
    let seeds = seed..seed.saturating_add(runs);
    writeln!(out, "\nRefused of 0.9 r, evenly spread, in {runs} runs each with cuts:\n")?;
    let done = in_parallel(&PartitionPolicy::ALL, |guard| {
        let run = |seed| Some((seed, Even::random(seed, guard).run(seed).err()?));
        seeds.clone().filter_map(run).collect::<Vec<_>>()
    });
    for (guard, violations) in PartitionPolicy::ALL.iter().zip(done) {
        writeln!(out, "guard {:38}{:>8}", guard.name(), violations.len())?;
        violated |= report(out, &violations)?;
    }
    Ok(violated)
}

fn report(out: &mut impl Write, violations: &[(u64, String)]) -> std::io::Result<bool> {
    for (seed, violation) in violations.iter().take(3) {
        writeln!(out, "    VIOLATED in {} runs; seed {seed}: {violation}", violations.len())?;
    }
    Ok(!violations.is_empty())
}

/// The worst of many runs, as what was and what may be.
#[derive(Default)]
struct Worst {
    excess: (u64, u64),
    spread: (u64, u64),
    /// Keys, where they are counted.
    kept: (u64, u64),
    violations: Vec<(u64, String)>,
}

impl Worst {
    fn of(runs: impl Iterator<Item = (u64, Result<Outcome, String>)>) -> Self {
        let worse = |worst: &mut (u64, u64), now: (u64, u64)| {
            let product = |a: u64, b: u64| u128::from(a).saturating_mul(u128::from(b));
            if worst.1 == 0 || product(now.0, worst.1) > product(worst.0, now.1) {
                *worst = now;
            }
        };
        let mut worst = Self::default();
        for (seed, outcome) in runs {
            match outcome {
                Ok(outcome) => {
                    worse(&mut worst.excess, (outcome.excess, outcome.bound));
                    worse(&mut worst.spread, (outcome.spread, outcome.spread_bound));
                    worse(&mut worst.kept, outcome.kept);
                }
                Err(violation) => worst.violations.push((seed, violation)),
            }
        }
        worst
    }
}

/// With two decimals, rounded up: what looks like 1.00 is not more.
fn ratio(part: u64, whole: u64) -> String {
    let percent = u128::from(part).saturating_mul(100).div_ceil(u128::from(whole.max(1)));
    let (ones, decimals) = (percent / 100, percent % 100);
    format!("{ones}.{decimals:02}")
}

/// One thread for each, and the results in order.
fn in_parallel<T: Copy + Send + Sync, R: Send>(of: &[T], run: impl Fn(T) -> R + Sync) -> Vec<R> {
    std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = of.iter().map(|one| scope.spawn(move || run(*one))).collect();
        // What panics there, panics here.
        let result = |thread: std::thread::ScopedJoinHandle<'_, R>| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        threads.into_iter().map(result).collect()
    })
}
