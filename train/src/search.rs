//! Random search for parameters of the rate-only loop: what it can do without a network.

use crate::players::Player;
use crate::ppo::play;
use crate::rng::Rng;
use crate::scenario::Family;
use crate::stats::mean;
use crate::world::{Score, Share};
use claw_adapt::drain::Parameters;

const SEARCHING: u64 = 700_000;
const EACH: u64 = 2;

/// The best of so many tries, each of 16 runs, from the parameters that ship on.
pub fn search(tries: usize, threads: usize) -> String {
    let mut rng = Rng::new(4_242);
    let mut best = (Parameters::OFF_PATH, f64::MIN);
    for nth in 0..tries {
        let mut near =
            |x: f64, least: f64, most: f64| (x * libm::exp(0.25 * rng.normal())).clamp(least, most);
        let p = best.0;
        let tried = if nth == 0 {
            p
        } else {
            Parameters {
                gain: near(p.gain, 0.1, 1.5),
                target: near(p.target, 0.1, 0.8),
                stretch: near(p.stretch, 0.5, 3.0),
                growth: near(p.growth, 0.01, 0.5),
                burst_s: near(p.burst_s, 0.02, 0.5),
                memory_s: near(p.memory_s, 0.2, 3.0),
                slack: near(p.slack, 0.05, 2.0),
                cap: None,
            }
        };
        let seeds = SEARCHING..SEARCHING + EACH;
        let scores =
            play(&Player::Searched(tried), &Family::OFF_PATH, seeds, threads, Share::Alike);
        let j = mean(&scores.iter().map(Score::j).collect::<Vec<_>>());
        if j > best.1 {
            best = (tried, j);
        }
    }
    format!("J {:.4} of {tries} tries: {:?}\n", best.1, best.0)
}
