//! Simulates regions that share limits, and asserts what must hold. See `--help`.

use claw_core::membership::PartitionPolicy;
use claw_sim::even::Even;
use claw_sim::runs::{self, Outcome, Trouble};
use claw_sim::scenarios::{SCENARIOS, Way};
use std::io::Write;
use std::process::ExitCode;

const USAGE: &str = "\
claw-sim [--runs n] [--seed n]

Prints what each way to agree gives out, against what one bucket would; then makes
n random runs of each kind (600), from seed n (0) on, and prints the worst of what
was given out too much, against what may be. Exit code 1 when anything is violated.
";

struct Options {
    runs: u64,
    seed: u64,
}

fn options(args: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options { runs: 600, seed: 0 };
    let mut args = args;
    while let Some(name) = args.next() {
        let number = args.next()?.parse().ok()?;
        match name.as_str() {
            "--runs" => options.runs = number,
            "--seed" => options.seed = number,
            _ => return None,
        }
    }
    Some(options)
}

fn main() -> std::io::Result<ExitCode> {
    let mut out = std::io::stdout();
    let Some(Options { runs, seed }) = options(std::env::args().skip(1)) else {
        out.write_all(USAGE.as_bytes())?;
        return Ok(ExitCode::from(2));
    };
    writeln!(out, "Given out / what one bucket gives out:\n")?;
    let names = Way::ALL.map(|way| format!("{:>8}", way.name())).concat();
    writeln!(out, "{:44}{names}", "")?;
    for scenario in SCENARIOS {
        let ideal = scenario.ideal();
        let parts = Way::ALL.map(|way| format!("{:>8}", ratio(scenario.given(way), ideal)));
        writeln!(out, "{:44}{}", scenario.name, parts.concat())?;
    }

    let seeds = seed..seed.saturating_add(runs);
    writeln!(out, "\nWorst of {runs} runs each, against what may be:\n")?;
    writeln!(out, "{:44}{:>8}{:>8}", "", "excess", "spread")?;
    let mut violated = false;
    let done = in_parallel(&Trouble::ALL, |trouble| {
        let runs = seeds.clone().map(|seed| (seed, runs::run(trouble, seed)));
        Worst::of(runs)
    });
    for (trouble, worst) in Trouble::ALL.iter().zip(done) {
        let (excess, spread) = (worst.excess, worst.spread);
        let (excess, spread) = (ratio(excess.0, excess.1), ratio(spread.0, spread.1));
        writeln!(out, "{:44}{excess:>8}{spread:>8}", trouble.name())?;
        violated |= report(&mut out, &worst.violations)?;
    }

    let runs = runs.div_ceil(4);
    let seeds = seed..seed.saturating_add(runs);
    writeln!(out, "\nRefused of 0.9 r, evenly spread, in {runs} runs each with cuts:\n")?;
    let done = in_parallel(&PartitionPolicy::ALL, |guard| {
        let run = |seed| Some((seed, Even::random(seed, guard).run(seed).err()?));
        seeds.clone().filter_map(run).collect::<Vec<_>>()
    });
    for (guard, violations) in PartitionPolicy::ALL.iter().zip(done) {
        writeln!(out, "guard {:38}{:>8}", guard.name(), violations.len())?;
        violated |= report(&mut out, &violations)?;
    }
    Ok(if violated { ExitCode::FAILURE } else { ExitCode::SUCCESS })
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
