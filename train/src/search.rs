//! Search for parameters of the rate-only loop: what it can do without a network.
//!
//! An evolution strategy, which has no bounds: the parameters are drawn around their middle, which moves to those that
//! did best. It sees as many different scenarios as a training of as many iterations, and chooses as that does.

use crate::play::{Failure, each, in_turn, play};
use crate::players::Player;
use crate::rng::Rng;
use crate::scenario::Family;
use crate::seeds::{CHOOSING, SEARCHING};
use crate::stats::{bootstrap, mean};
use crate::world::{Score, Share};
use claw_adapt::Mode;
use claw_adapt::drain::Parameters;

/// Scenarios of a generation: those of an iteration of training.
const SCENARIOS: usize = 16;
const CANDIDATES: usize = 8;
/// Of the candidates, how many the next generation is drawn around.
const BEST: usize = 3;
/// What is found is compared with what ships on so many seeds of each family that nothing else was chosen by.
const COMPARED: std::ops::Range<u64> = CHOOSING + 100_000..CHOOSING + 100_040;

/// All of them are positive, so it is their logarithms that are varied.
type Logs = [f64; 7];

fn logs(p: &Parameters) -> Logs {
    [p.gain, p.target, p.stretch, p.growth, p.burst_s, p.memory_s, p.slack].map(libm::log)
}

fn parameters(logs: &Logs) -> Parameters {
    let [gain, target, stretch, growth, burst_s, memory_s, slack] = logs.map(libm::exp);
    Parameters { gain, target, stretch, growth, burst_s, memory_s, slack, cap: None }
}

/// What so many generations find, from the parameters that ship on, and by how much it is better than they are.
///
/// # Errors
/// When there was no run of a scenario.
pub fn search(generations: usize, threads: usize) -> Result<String, Failure> {
    let mut rng = Rng::new(4_242);
    let js = |p: Parameters, all: &[_]| -> Result<Vec<f64>, Failure> {
        let scores = play(&Player::Shipped(Mode::Inner(p)), all, threads, Share::Alike)?;
        Ok(scores.iter().map(Score::j).collect())
    };
    let choosing = each(&Family::OFF_PATH, CHOOSING..CHOOSING + 4);
    let mut middle = logs(&Parameters::OFF_PATH);
    let mut spread = [0.4; 7];
    let mut best = (Parameters::OFF_PATH, mean(&js(Parameters::OFF_PATH, &choosing)?));
    for generation in 0..generations {
        let drawn: Vec<_> = (generation * SCENARIOS..(generation + 1) * SCENARIOS)
            .map(|nth| in_turn(&Family::OFF_PATH, SEARCHING, nth))
            .collect();
        let mut tried = vec![];
        for _ in 0..CANDIDATES {
            let candidate: Logs = std::array::from_fn(|k| middle[k] + spread[k] * rng.normal());
            tried.push((mean(&js(parameters(&candidate), &drawn)?), candidate));
        }
        tried.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        for k in 0..middle.len() {
            let those: Vec<f64> = tried[..BEST].iter().map(|(_, logs)| logs[k]).collect();
            let next = mean(&those);
            let squares: Vec<f64> =
                those.iter().map(|x| (x - middle[k]) * (x - middle[k])).collect();
            spread[k] = (0.9 * spread[k] + 0.1 * mean(&squares).sqrt()).max(0.05);
            middle[k] += 0.3 * (next - middle[k]);
        }
        if generation % 10 == 9 || generation + 1 == generations {
            let found = parameters(&middle);
            let j = mean(&js(found, &choosing)?);
            if j > best.1 {
                best = (found, j);
            }
        }
    }
    let mut text = format!("J {:.4} where it was chosen: {:?}\n", best.1, best.0);
    for (name, families) in [("its own", &Family::OFF_PATH[1..]), ("all", &Family::ALL)] {
        let all = each(families, COMPARED);
        let (found, shipped) = (js(best.0, &all)?, js(Parameters::OFF_PATH, &all)?);
        let better: Vec<f64> = found.iter().zip(shipped).map(|(one, other)| one - other).collect();
        text += &format!(
            "J less that of what ships, {name} families: {:+.4}\n",
            bootstrap(&[better], mean)
        );
    }
    Ok(text)
}
