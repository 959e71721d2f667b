//! A small perceptron, and what it reads.
//!
//! Written by hand: the libraries for it bring some 150 crates, and take several times as long for a
//! network of this size. Additions and multiplications stay apart and in one order, so that its output
//! has the same bits on every machine.

use crate::bounds::Bounds;
use crate::observation::Observation;

/// Numbers that the network reads.
pub const INPUTS: usize = 12;
/// Neurons of each of the two hidden layers.
pub const HIDDEN: usize = 32;
/// Corrections that it makes: of the rate, and of the seconds that the bucket holds.
pub const OUTPUTS: usize = 2;

/// Weights and biases of all layers together.
pub const WEIGHTS: usize = (INPUTS + 1) * HIDDEN + (HIDDEN + 1) * HIDDEN + (HIDDEN + 1) * OUTPUTS;

const FIRST: usize = (INPUTS + 1) * HIDDEN;
const SECOND: usize = (HIDDEN + 1) * HIDDEN;

/// Where [`squash`] is flat: outputs beyond it are saturated.
pub const SATURATED: f32 = 3.0;

/// Close to tanh, of basic operations only.
#[must_use]
pub fn squash(x: f32) -> f32 {
    let x = x.clamp(-SATURATED, SATURATED);
    x * (27.0 + x * x) / (27.0 + 9.0 * x * x)
}

/// Fully connected, 12-32-32-2. Of each layer the weights by input, then the biases.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    weights: Box<[f32; WEIGHTS]>,
}

/// What the neurons of one pass summed up, before [`squash`]: what a gradient is made of.
#[derive(Debug, Clone, Copy)]
pub struct Pass {
    /// First hidden layer.
    pub first: [f32; HIDDEN],
    /// Second hidden layer.
    pub second: [f32; HIDDEN],
    /// The output, which is not squashed yet.
    pub output: [f32; OUTPUTS],
}

impl Network {
    /// A network of these weights.
    #[must_use]
    pub fn new(weights: Box<[f32; WEIGHTS]>) -> Self {
        Self { weights }
    }

    /// All weights.
    #[must_use]
    pub fn weights(&self) -> &[f32; WEIGHTS] {
        &self.weights
    }

    /// What it makes of `input`.
    #[must_use]
    pub fn forward(&self, input: &[f32; INPUTS]) -> Pass {
        let (first, rest) = self.weights.split_at(FIRST);
        let (second, third) = rest.split_at(SECOND);
        let first = layer::<HIDDEN>(first, input);
        let second = layer::<HIDDEN>(second, &first.map(squash));
        let output = layer::<OUTPUTS>(third, &second.map(squash));
        Pass { first, second, output }
    }
}

fn layer<const N: usize>(weights: &[f32], input: &[f32]) -> [f32; N] {
    let mut sums = [0.0; N];
    let mut rows = weights.chunks_exact(N);
    // The biases come last, and are what summing starts from.
    if let Some(biases) = rows.next_back() {
        sums.copy_from_slice(biases);
    }
    for (row, x) in rows.zip(input) {
        for (sum, weight) in sums.iter_mut().zip(row) {
            *sum += x * weight;
        }
    }
    sums
}

/// What the network reads of a tick of `dt` seconds; `before` is the first of what it read in the tick
/// before, or 0.
#[must_use]
pub fn features(seen: &Observation, dt: f64, bounds: &Bounds, before: f32) -> [f32; INPUTS] {
    let sla = bounds.sla_s();
    let rate = seen.policy.rate();
    let room = (rate * dt).max(1.0);
    let p95 = log_within(seen.p95_s / sla, -3.0, 3.0);
    [
        p95,
        log_within(seen.p50_s / sla, -4.0, 3.0),
        log_within(1.0 + seen.in_flight / (rate * sla), 0.0, 3.0),
        ((seen.admitted / room).min(2.0) - 0.7) as f32,
        (seen.rejected / seen.offered.max(1.0)) as f32,
        (seen.late / seen.completed.max(1.0)) as f32,
        (p95 - before).clamp(-2.0, 2.0),
        log_within((seen.completed + 1.0) / (seen.admitted + 1.0), -2.0, 2.0),
        log_within((seen.completed + 1.0) / (room + 1.0), -3.0, 1.0),
        log_within(seen.p10_s / sla, -4.0, 2.0),
        log_within((seen.in_flight + 1.0) / (seen.completed / dt * sla + 1.0), -3.0, 3.0),
        libm::log(1.0 + seen.completed) as f32 * 0.2,
    ]
}

fn log_within(x: f64, least: f64, most: f64) -> f32 {
    libm::log(x.max(1e-9)).clamp(least, most) as f32
}
