//! Means, paired bootstrap, the worst decile.

use crate::rng::Rng;
use std::fmt;

pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Mean of the worst tenth.
pub fn worst_decile(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    mean(&sorted[..(values.len().div_ceil(10))])
}

/// What was found, with its 95 % interval.
#[derive(Clone, Copy)]
pub struct Interval {
    pub found: f64,
    pub low: f64,
    pub high: f64,
}

impl fmt::Display for Interval {
    /// With as many digits, and a sign where one is asked for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { found, low, high } = self;
        let digits = f.precision().unwrap_or(4);
        if f.sign_plus() {
            write!(f, "{found:+.digits$} [{low:+.digits$}, {high:+.digits$}]")
        } else {
            write!(f, "{found:.digits$} [{low:.digits$}, {high:.digits$}]")
        }
    }
}

/// What `of` makes of the values of the scenarios, one row for each training seed, on the same scenarios: 4000
/// times scenarios and seeds are drawn again, with repetition.
pub fn bootstrap(rows: &[Vec<f64>], of: impl Fn(&[f64]) -> f64) -> Interval {
    let mut rng = Rng::new(1);
    let count = rows[0].len();
    let mut found: Vec<f64> = (0..4_000)
        .map(|_| {
            let chosen: Vec<&Vec<f64>> =
                rows.iter().map(|_| &rows[rng.below(rows.len())]).collect();
            let mut values = Vec::with_capacity(count * rows.len());
            for _ in 0..count {
                let scenario = rng.below(count);
                values.extend(chosen.iter().map(|row| row[scenario]));
            }
            of(&values)
        })
        .collect();
    found.sort_by(f64::total_cmp);
    let all: Vec<f64> = rows.iter().flatten().copied().collect();
    Interval { found: of(&all), low: found[100], high: found[3_899] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_has_what_was_found_and_narrows_with_more_scenarios() {
        let mut rng = Rng::new(9);
        let mut width = f64::INFINITY;
        for count in [20, 80, 320] {
            let row: Vec<f64> = (0..count).map(|_| 3.0 + rng.normal()).collect();
            for of in [mean, worst_decile] {
                let it = bootstrap(&[row.clone(), row.clone()], of);
                assert!(it.low < it.found && it.found < it.high, "{it}");
            }
            let it = bootstrap(&[row], mean);
            assert!(
                it.low < 3.0 && 3.0 < it.high && it.high - it.low < 0.7 * width,
                "{count}: {it}"
            );
            width = it.high - it.low;
        }
    }
}
