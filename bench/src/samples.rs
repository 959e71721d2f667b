//! What was measured, round by round.

/// Samples of several subjects.
#[derive(Debug)]
pub struct Samples<K, S>(Vec<(K, Vec<S>)>);

/// What a number was in all rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Half are less, half are more.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// The 95 % confidence interval of the median, by ranks: from `low` to `high`. Of
    /// fewer than 6 values it is all of them.
    pub low: f64,
    /// See `low`.
    pub high: f64,
}

impl<K: PartialEq, S> Samples<K, S> {
    /// Nothing yet.
    pub fn new() -> Samples<K, S> {
        Samples(Vec::new())
    }

    /// Adds what one round measured of a subject.
    pub fn add(&mut self, subject: K, sample: S) {
        match self.0.iter_mut().find(|(s, _)| *s == subject) {
            Some((_, samples)) => samples.push(sample),
            None => self.0.push((subject, vec![sample])),
        }
    }

    /// All samples of a subject, round by round.
    pub fn all(&self, subject: &K) -> &[S] {
        self.0.iter().find(|(s, _)| s == subject).map_or(&[], |(_, samples)| samples)
    }

    fn of(&self, subject: &K, what: impl Fn(&S) -> f64) -> Vec<f64> {
        self.all(subject).iter().map(what).collect()
    }

    /// A number of a subject; `None` if the subject was not measured.
    pub fn spread(&self, subject: &K, what: impl Fn(&S) -> f64) -> Option<Spread> {
        Spread::of(self.of(subject, what))
    }

    /// How one subject's number compares with another's. Only samples of the same
    /// round are compared.
    pub fn ratio(&self, of: &K, to: &K, what: impl Fn(&S) -> f64 + Copy) -> Option<Spread> {
        let base = self.of(to, what);
        Spread::of(self.of(of, what).iter().zip(&base).map(|(a, b)| a / b).collect())
    }
}

impl Spread {
    /// `None` of nothing.
    pub fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let upper = *values.get(half)?;
        let lower = match values.len().is_multiple_of(2) {
            true => *values.get(half.checked_sub(1)?)?,
            false => upper,
        };
        // How many of n values are less than the median: n/2, with a standard deviation
        // of half the root of n.
        let count = values.len() as f64;
        let rank = (count / 2.0 - 1.96 * count.sqrt() / 2.0).max(0.0) as usize;
        let low = *values.get(rank)?;
        let high = *values.iter().rev().nth(rank)?;
        Some(Spread { median: lower.midpoint(upper), min, max, low, high })
    }

    /// For a column of a table.
    pub fn short(self) -> String {
        self.digits(2)
    }

    /// The same with so many digits behind the point.
    pub fn digits(self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$}..{:.digits$})", self.median, self.min, self.max)
    }
}

/// A cell of a table; what was not measured is a dash.
pub fn cell(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or_else(|| "-".into(), |spread| spread.digits(digits))
}

/// A cell of a table that compares two builds: how sure it is counts here, not how much
/// single rounds differ. See [`INTERVAL`].
pub fn compared(ratio: Option<Spread>) -> String {
    ratio.map_or_else(
        || "-".into(),
        |Spread { median, low, high, .. }| format!("{median:.3} ({low:.3}..{high:.3})"),
    )
}

/// Below the tables that compare two builds.
pub const INTERVAL: &str = "\
* Taken in each round, which has servers of its own: the median of all rounds, with its 95 %
  confidence interval; of fewer than 6 rounds with their range.
";

/// The median of a number of some measurements.
pub fn median<S>(samples: &[S], what: impl Fn(&S) -> f64) -> f64 {
    Spread::of(samples.iter().map(what).collect()).map_or(f64::NAN, |spread| spread.median)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_round_by_round() {
        let mut samples = Samples::new();
        for (take, lua) in [(4.0, 1.0), (9.0, 3.0), (100.0, 20.0)] {
            samples.add("take", take);
            samples.add("lua", lua);
        }
        let ratio = samples.ratio(&"take", &"lua", |rate| *rate);
        assert_eq!(cell(ratio, 2), "4.00 (3.00..5.00)");
        assert_eq!(samples.ratio(&"take", &"ping", |rate| *rate), None);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(Spread::of(vec![]), None);
        let spread = Spread::of(vec![4.0, 1.0, 2.0, 10.0]);
        assert_eq!(cell(spread, 1), "3.0 (1.0..10.0)");
    }

    #[test]
    fn the_interval_of_the_median_narrows() {
        let interval = |count: u32| {
            let spread = Spread::of((1..=count).map(f64::from).collect());
            spread.map(|spread| (spread.low, spread.high))
        };
        assert_eq!(interval(1), Some((1.0, 1.0)));
        assert_eq!(interval(5), Some((1.0, 5.0)));
        // As in tables of the sign test.
        assert_eq!(interval(20), Some((6.0, 15.0)));
    }
}
