//! Trains the adaptive policy in simulation, and measures it against others. See `--help`.

// A tool for developers, on numbers that it makes itself: an index out of range ends a run, no server.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
#![forbid(unsafe_code)]

mod gates;
mod parallel;
mod play;
mod players;
mod ppo;
mod regions;
mod rng;
mod scenario;
mod search;
mod seeds;
mod sockets;
mod stats;
mod world;

use claw_adapt::weights::Loop;
use play::Failure;
use ppo::Settings;
use std::io::Write;
use std::process::ExitCode;

const USAGE: &str = "\
claw-train train on-path|off-path SEED ITERATIONS   weights, to standard output
claw-train search GENERATIONS                       parameters of the rate-only loop, by search
claw-train gates FROM..TO                           what has to hold, on these seeds of each family
claw-train regions FROM..TO                         two regions that share a limit, on these seeds
claw-train scenario small|other|steps SEED          a scenario for real sockets, as JSON

THREADS (2) changes how fast it is, and nothing else. Seeds below 400000 are for training with seeds 0
to 19, from 500000 for choosing among networks, from 700000 for searching: gates run on others, from
1000000.
";

fn threads() -> usize {
    std::env::var("THREADS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

/// The text to print, and whether all is well.
///
/// # Errors
/// What is wrong, with what was asked or with what this was built of.
fn answer(args: &[&str]) -> Result<(String, bool), String> {
    let threads = threads();
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("'{text}' is no number"));
    let failed = |error: Failure| error.to_string();
    match args {
        ["--help"] => Ok((USAGE.to_owned(), true)),
        ["train", corrects, seed, iterations] => {
            let corrects = Loop::of_name(corrects)
                .ok_or(format!("'{corrects}' is not on-path or off-path"))?;
            let (seed, iterations) = (number(seed)?, number(iterations)? as usize);
            if iterations > ppo::MOST_ITERATIONS {
                return Err(format!("at most {} iterations", ppo::MOST_ITERATIONS));
            }
            let settings = Settings { corrects, seed, iterations, threads };
            let (weights, j) = ppo::train(&settings).map_err(failed)?;
            // Standard output is the file.
            let _ = writeln!(std::io::stderr(), "seed {seed}: J {j:.4} where it was chosen");
            Ok((weights.write(), true))
        }
        ["search", generations] => {
            let text = search::search(number(generations)? as usize, threads);
            Ok((text.map_err(failed)?, true))
        }
        ["gates", seeds] => gates::report(seeds::judging(seeds)?, threads),
        ["scenario", name, seed] => {
            let family = sockets::FAMILIES.iter().find(|(family, _)| family == name);
            let (_, family) = family.ok_or(format!("'{name}' is not small, other or steps"))?;
            Ok((sockets::scenario(*family, number(seed)?)?, true))
        }
        ["regions", seeds] => Ok((regions::report(seeds::judging(seeds)?, threads)?, true)),
        _ => Err(USAGE.to_owned()),
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (is_well, written) = match answer(&args) {
        Ok((text, is_well)) => (is_well, std::io::stdout().write_all(text.as_bytes())),
        Err(error) => (false, writeln!(std::io::stderr(), "{}", error.trim_end())),
    };
    if is_well && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_makes_the_same_bytes_on_one_thread_and_on_two() {
        let [one, two] = [1, 2].map(|threads| {
            let settings = Settings { corrects: Loop::OffPath, seed: 7, iterations: 1, threads };
            ppo::train(&settings).map(|(weights, _)| weights.write())
        });
        assert!(one.is_ok() && one == two);
    }

    #[test]
    fn what_cannot_be_asked_is_named() {
        for (args, expected) in [
            (&["train"][..], "claw-train train"),
            (&["train", "none", "1", "1"], "'none' is not on-path or off-path"),
            (&["train", "off-path", "x", "1"], "'x' is no number"),
            (&["train", "off-path", "1", "1251"], "at most 1250 iterations"),
            (&["gates", "5..5"], "there is no seed in 5..5"),
            (&["gates", "5..9"], "5..9 has seeds that training is done with"),
        ] {
            let error = answer(args).err().unwrap_or_default();
            assert!(error.starts_with(expected), "{args:?}: {error}");
        }
    }
}
