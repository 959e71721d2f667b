//! Means, paired bootstrap, the worst decile.

use crate::rng::Rng;

pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Mean of the worst tenth.
pub fn worst_decile(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    mean(&sorted[..(values.len().div_ceil(10))])
}

/// A mean with its 95 % interval.
#[derive(Clone, Copy)]
pub struct Interval {
    pub mean: f64,
    pub low: f64,
    pub high: f64,
}

/// Of the values of the scenarios, one row for each training seed, on the same scenarios: 4000 times
/// scenarios and seeds are drawn again, with repetition.
pub fn bootstrap(rows: &[Vec<f64>]) -> Interval {
    let mut rng = Rng::new(1);
    let count = rows[0].len();
    let mut means: Vec<f64> = (0..4_000)
        .map(|_| {
            let chosen: Vec<&Vec<f64>> =
                rows.iter().map(|_| &rows[rng.below(rows.len())]).collect();
            let sum: f64 = (0..count)
                .map(|_| {
                    let scenario = rng.below(count);
                    chosen.iter().map(|row| row[scenario]).sum::<f64>()
                })
                .sum();
            sum / (count * rows.len()) as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let all: Vec<f64> = rows.iter().flatten().copied().collect();
    Interval { mean: mean(&all), low: means[100], high: means[3_899] }
}
