//! Proximal policy optimisation (Schulman and others, 2017): clipped objective, generalised advantages,
//! Adam. By hand, for two networks of 1,500 weights.

use crate::parallel;
use crate::play::{Failure, each, in_turn, play};
use crate::players::Player;
use crate::rng::Rng;
use crate::scenario::{Family, Scenario};
use crate::seeds::{CHOOSING, OF_A_TRAINING, TRAININGS};
use crate::stats::mean;
use crate::world::{Decide, Score, Share, run};
use claw_adapt::network::{HIDDEN, INPUTS, Network, OUTPUTS, SATURATED, WEIGHTS, squash};
use claw_adapt::weights::Loop;
use claw_adapt::{Controller, Mode, Observation, Policy, Weights};

const EPISODES: usize = 16;
const EPOCHS: usize = 4;
const BATCH: usize = 512;
const DISCOUNT: f32 = 0.99;
const TRACE_DECAY: f32 = 0.95;
const CLIP: f32 = 0.2;
const ENTROPY: f32 = 0.002;

/// More would see the scenarios of another training seed.
pub const MOST_ITERATIONS: usize = OF_A_TRAINING as usize / EPISODES;

type Gradient = [f32; WEIGHTS];

pub struct Settings {
    pub corrects: Loop,
    pub seed: u64,
    pub iterations: usize,
    pub threads: usize,
}

fn families(corrects: Loop) -> &'static [Family] {
    match corrects {
        Loop::OnPath => &Family::TRAINED,
        Loop::OffPath => &Family::OFF_PATH,
    }
}

fn random(rng: &mut Rng, last: f64) -> Network {
    let mut weights = Box::new([0.0; WEIGHTS]);
    let mut rest = &mut weights[..];
    for (inputs, outputs, scale) in
        [(INPUTS, HIDDEN, 1.0), (HIDDEN, HIDDEN, 1.0), (HIDDEN, OUTPUTS, last)]
    {
        let (layer, after) = rest.split_at_mut((inputs + 1) * outputs);
        // The biases stay 0.
        for weight in &mut layer[..inputs * outputs] {
            *weight = (rng.normal() * scale / (inputs as f64).sqrt()) as f32;
        }
        rest = after;
    }
    Network::new(weights)
}

fn slope(x: f32) -> f32 {
    let x = x.clamp(-SATURATED, SATURATED);
    let (a, b) = (x * x - 9.0, x * x + 3.0);
    a * a / (9.0 * b * b)
}

/// Adds to `gradient` what the weights have in it, when the output has `of_output`.
fn backward(
    network: &Network,
    input: &[f32; INPUTS],
    of_output: [f32; OUTPUTS],
    gradient: &mut Gradient,
) {
    let pass = network.forward(input);
    let (w1, w3) = ((INPUTS + 1) * HIDDEN, (INPUTS + 1) * HIDDEN + (HIDDEN + 1) * HIDDEN);
    let weights = network.weights();
    let of_second =
        layer(&pass.second.map(squash), &of_output, &weights[w3..], &mut gradient[w3..]);
    let of_second: [f32; HIDDEN] = std::array::from_fn(|k| of_second[k] * slope(pass.second[k]));
    let of_first =
        layer(&pass.first.map(squash), &of_second, &weights[w1..w3], &mut gradient[w1..w3]);
    let of_first: [f32; HIDDEN] = std::array::from_fn(|k| of_first[k] * slope(pass.first[k]));
    layer(input, &of_first, &weights[..w1], &mut gradient[..w1]);
}

/// The gradient of a layer's input; adds that of its weights.
fn layer<const I: usize, const O: usize>(
    input: &[f32; I],
    of_output: &[f32; O],
    weights: &[f32],
    gradient: &mut [f32],
) -> [f32; I] {
    for (sum, of) in gradient[I * O..].iter_mut().zip(of_output) {
        *sum += of;
    }
    std::array::from_fn(|k| {
        let row = k * O..(k + 1) * O;
        for (sum, of) in gradient[row.clone()].iter_mut().zip(of_output) {
            *sum += input[k] * of;
        }
        weights[row].iter().zip(of_output).map(|(weight, of)| weight * of).sum()
    })
}

struct Adam {
    mean: Vec<f32>,
    square: Vec<f32>,
    decay: (f32, f32),
}

impl Adam {
    fn new(count: usize) -> Self {
        Self { mean: vec![0.0; count], square: vec![0.0; count], decay: (1.0, 1.0) }
    }

    /// One step, after the gradient was cut to a length of 1/2.
    fn step<'a>(
        &mut self,
        weights: impl Iterator<Item = &'a mut f32>,
        gradient: &[f32],
        rate: f32,
    ) {
        let length = gradient.iter().map(|x| x * x).sum::<f32>().sqrt();
        let cut = if length > 0.5 { 0.5 / length } else { 1.0 };
        self.decay = (self.decay.0 * 0.9, self.decay.1 * 0.999);
        let moments = self.mean.iter_mut().zip(&mut self.square);
        for ((weight, of), (mean, square)) in weights.zip(gradient).zip(moments) {
            let of = of * cut;
            *mean = 0.9 * *mean + 0.1 * of;
            *square = 0.999 * *square + 0.001 * of * of;
            let (mean, square) = (*mean / (1.0 - self.decay.0), *square / (1.0 - self.decay.1));
            *weight -= rate * mean / (square.sqrt() + 1e-8);
        }
    }
}

/// One decision of an episode, and what came of it.
struct Decision {
    input: [f32; INPUTS],
    output: [f32; OUTPUTS],
    log_density: f32,
    value: f32,
    reward: f32,
    advantage: f32,
}

/// A controller whose network's output is varied at random.
struct Explorer<'a> {
    controller: Controller,
    value: &'a Network,
    log_spread: [f32; OUTPUTS],
    rng: Rng,
    decisions: Vec<Decision>,
}

impl Decide for Explorer<'_> {
    fn start(&mut self) -> Policy {
        self.controller.start()
    }

    fn step(&mut self, now: u64, seen: &Observation) -> Policy {
        let Self { controller, value, log_spread, rng, decisions } = self;
        let change = controller.step_exploring(now, seen, &mut |input, mean| {
            let output: [f32; OUTPUTS] =
                std::array::from_fn(|k| mean[k] + libm::expf(log_spread[k]) * rng.normal() as f32);
            decisions.push(Decision {
                input: *input,
                output,
                log_density: log_density(&output, &mean, log_spread),
                value: value.forward(input).output[0],
                reward: 0.0,
                advantage: 0.0,
            });
            output
        });
        change.policy
    }

    fn reward(&mut self, reward: f64) {
        if let Some(last) = self.decisions.last_mut() {
            last.reward += reward as f32;
        }
    }
}

/// But for a constant, which cancels.
fn log_density(output: &[f32; OUTPUTS], mean: &[f32; OUTPUTS], log_spread: &[f32; OUTPUTS]) -> f32 {
    let of = |k: usize| {
        let z = (output[k] - mean[k]) / libm::expf(log_spread[k]);
        -0.5 * z * z - log_spread[k]
    };
    (0..OUTPUTS).map(of).sum()
}

fn weights(settings: &Settings, network: &Network) -> Weights {
    let Settings { corrects, seed, iterations, .. } = settings;
    Weights {
        corrects: *corrects,
        parameters: corrects.parameters(),
        seed: *seed,
        command: format!("claw-train train {} {seed} {iterations}", corrects.name()),
        network: network.clone(),
    }
}

fn episode(
    settings: &Settings,
    nth: usize,
    policy: &Network,
    value: &Network,
    log_spread: [f32; OUTPUTS],
) -> Result<Vec<Decision>, Failure> {
    let first = settings.seed % TRAININGS * OF_A_TRAINING;
    let (family, seed) = in_turn(families(settings.corrects), first, nth);
    let scenario = Scenario::new(family, seed);
    let mode = Mode::Learned(Box::new(weights(settings, policy)));
    let controller = Controller::new(mode, scenario.bounds())?;
    let mut explorer =
        Explorer { controller, value, log_spread, rng: Rng::new(!seed), decisions: vec![] };
    run(&scenario, &mut explorer, Share::Alike)?;
    let mut decisions = explorer.decisions;
    let mut next_value = decisions.last().map_or(0.0, |last| last.value);
    let mut advantage = 0.0;
    for decision in decisions.iter_mut().rev() {
        let surprise = decision.reward + DISCOUNT * next_value - decision.value;
        advantage = surprise + DISCOUNT * TRACE_DECAY * advantage;
        (decision.advantage, next_value) = (advantage, decision.value);
    }
    Ok(decisions)
}

/// The network that did best where it was not trained, and its J there.
///
/// # Errors
/// When there was no run of a scenario.
pub fn train(settings: &Settings) -> Result<(Weights, f64), Failure> {
    let mut rng = Rng::new(settings.seed ^ 0x77);
    let mut policy = random(&mut rng, 0.01);
    let mut value = random(&mut rng, 0.1);
    let mut log_spread = [-1.0_f32; OUTPUTS];
    let (mut of_policy, mut of_value) = (Adam::new(WEIGHTS + OUTPUTS), Adam::new(WEIGHTS));
    let mut best = (weights(settings, &policy), f64::MIN);
    for iteration in 0..settings.iterations {
        let rate = 5e-4 * (1.0 - iteration as f32 / settings.iterations as f32).max(0.1);
        let episodes = parallel::map(EPISODES, settings.threads, |k| {
            episode(settings, iteration * EPISODES + k, &policy, &value, log_spread)
        });
        let episodes = episodes.into_iter().collect::<Result<Vec<_>, _>>()?;
        let decisions: Vec<Decision> = episodes.into_iter().flatten().collect();
        let count = decisions.len() as f64;
        let middle = decisions.iter().map(|d| f64::from(d.advantage)).sum::<f64>() / count;
        let square =
            |d: &Decision| (f64::from(d.advantage) - middle) * (f64::from(d.advantage) - middle);
        let spread = (decisions.iter().map(square).sum::<f64>() / count).sqrt() + 1e-8;
        let mut order: Vec<usize> = (0..decisions.len()).collect();
        for _ in 0..EPOCHS {
            for k in (1..order.len()).rev() {
                order.swap(k, rng.below(k + 1));
            }
            for batch in order.chunks(BATCH) {
                let mut gradient = [0.0; WEIGHTS + OUTPUTS];
                let mut value_gradient = [0.0; WEIGHTS];
                let (of_weights, of_spread) = gradient.split_at_mut(WEIGHTS);
                let Ok(of_weights) = <&mut Gradient>::try_from(of_weights) else { break };
                let share = 1.0 / batch.len() as f32;
                for k in batch {
                    let d = &decisions[*k];
                    let advantage = ((f64::from(d.advantage) - middle) / spread) as f32;
                    let mean = policy.forward(&d.input).output;
                    let ratio =
                        libm::expf(log_density(&d.output, &mean, &log_spread) - d.log_density);
                    let clipped = (advantage > 0.0 && ratio > 1.0 + CLIP)
                        || (advantage < 0.0 && ratio < 1.0 - CLIP);
                    if !clipped {
                        let of_log = -advantage * ratio * share;
                        let of_mean = std::array::from_fn(|k| {
                            let wide = libm::expf(log_spread[k]);
                            let z = (d.output[k] - mean[k]) / wide;
                            of_spread[k] += of_log * (z * z - 1.0);
                            of_log * z / wide
                        });
                        backward(&policy, &d.input, of_mean, of_weights);
                    }
                    let miss = value.forward(&d.input).output[0] - (d.advantage + d.value);
                    backward(&value, &d.input, [2.0 * miss * share, 0.0], &mut value_gradient);
                }
                of_spread.iter_mut().for_each(|of| *of -= ENTROPY);
                let mut changed = Box::new(*policy.weights());
                of_policy.step(changed.iter_mut().chain(&mut log_spread), &gradient, rate);
                policy = Network::new(changed);
                log_spread = log_spread.map(|x| x.clamp(-3.0, 0.5));
                let mut changed = Box::new(*value.weights());
                of_value.step(changed.iter_mut(), &value_gradient, 2.0 * rate);
                value = Network::new(changed);
            }
        }
        if iteration % 10 == 9 || iteration + 1 == settings.iterations {
            let weights = weights(settings, &policy);
            let player = Player::Shipped(Mode::Learned(Box::new(weights.clone())));
            let all = each(families(settings.corrects), CHOOSING..CHOOSING + 4);
            let scores = play(&player, &all, settings.threads, Share::Alike)?;
            let j = mean(&scores.iter().map(Score::j).collect::<Vec<_>>());
            if j > best.1 {
                best = (weights, j);
            }
        }
    }
    Ok(best)
}
