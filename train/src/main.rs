//! Trains the adaptive policy in simulation, and measures it against others. See `--help`.

// A tool for developers, on numbers that it makes itself: an index out of range ends a run, no server.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
#![forbid(unsafe_code)]

mod gates;
mod parallel;
mod players;
mod ppo;
mod rng;
mod scenario;
mod search;
mod stats;
mod world;

use claw_adapt::weights::Loop;
use ppo::Settings;
use std::io::Write;
use std::process::ExitCode;

const USAGE: &str = "\
claw-train train on-path|off-path SEED ITERATIONS   weights, to standard output
claw-train search TRIES                             parameters of the rate-only loop, by random search
claw-train gates FROM..TO                           what has to hold, on these seeds of each family

THREADS (2) changes how fast it is, and nothing else. Seeds below 400000 are for training with seeds 0
to 19, from 500000 for choosing among networks, from 700000 for searching: measure on others.
";

fn threads() -> usize {
    std::env::var("THREADS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

/// The text to print, and whether all is well.
fn answer(args: &[&str]) -> Option<(String, bool)> {
    let threads = threads();
    match args {
        ["train", corrects, seed, iterations] => {
            let (corrects, seed) = (Loop::of_name(corrects)?, seed.parse().ok()?);
            let iterations = iterations.parse().ok()?;
            let (weights, j) = ppo::train(&Settings { corrects, seed, iterations, threads });
            // Standard output is the file.
            let _ = writeln!(std::io::stderr(), "seed {seed}: J {j:.4} where it was chosen");
            Some((weights.write(), true))
        }
        ["search", tries] => Some((search::search(tries.parse().ok()?, threads), true)),
        ["gates", seeds] => {
            let (from, to) = seeds.split_once("..")?;
            let (from, to): (u64, u64) = (from.parse().ok()?, to.parse().ok()?);
            (from < to).then(|| gates::report(from..to, threads))
        }
        _ => None,
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (text, is_well) = answer(&args).unwrap_or_else(|| (USAGE.to_owned(), args == ["--help"]));
    let written = std::io::stdout().write_all(text.as_bytes());
    if is_well && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_makes_the_same_bytes_on_one_thread_and_on_two() {
        let [one, two] = [1, 2].map(|threads| {
            let settings = Settings { corrects: Loop::OffPath, seed: 7, iterations: 1, threads };
            ppo::train(&settings).0.write()
        });
        assert!(one == two);
    }

    #[test]
    fn what_cannot_be_asked_is_answered_with_usage() {
        for args in
            [&["train"][..], &["train", "none", "1", "1"], &["gates", "5..5"], &["gates", "5"]]
        {
            assert_eq!(answer(args), None, "{args:?}");
        }
    }
}
