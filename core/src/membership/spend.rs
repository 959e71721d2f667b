//! What this region spends.

use std::collections::VecDeque;

/// Over how long the recent spend of a region is taken, in microseconds.
const RECENT_US: u64 = 10_000_000;

/// Microseconds between two samples of what this region has spent, and how long it
/// has to be watched before its rate is known.
const SAMPLE_US: u64 = 1_000_000;

/// What this region has spent lately.
#[derive(Debug, Clone, Default)]
pub(super) struct Spend {
    /// Tokens in all at instants of the steady clock, oldest first. The last one moves
    /// along, those before it are about [`SAMPLE_US`] apart, and but for the first one
    /// all are of the last [`RECENT_US`].
    sums: VecDeque<(u64, u64)>,
}

impl Spend {
    pub(super) fn sample(&mut self, sum: u64, now: u64) {
        if self.sums.back().is_some_and(|(_, last)| sum < *last) {
            // It is counted anew.
            self.sums.clear();
        }
        let before = self.sums.len().checked_sub(2).and_then(|place| self.sums.get(place));
        if before.is_some_and(|(then, _)| now.saturating_sub(*then) < SAMPLE_US) {
            self.sums.pop_back();
        }
        self.sums.push_back((now, sum));
        let old = |then: u64| now.saturating_sub(then) > RECENT_US;
        while self.sums.get(1).is_some_and(|(then, _)| old(*then)) {
            self.sums.pop_front();
        }
    }

    /// Thousandths of a token per second, over the last [`RECENT_US`] or what has been
    /// seen of it; `None` when that is too short.
    pub(super) fn rate(&self) -> Option<u64> {
        let ((start, first), (end, last)) = (self.sums.front()?, self.sums.back()?);
        let us = end.checked_sub(*start).filter(|us| *us >= SAMPLE_US)?;
        let spent = u128::from(last.saturating_sub(*first)).saturating_mul(1_000_000_000);
        // Nobody can spend that many.
        Some(u64::try_from(spent.checked_div(u128::from(us))?).unwrap_or(u64::MAX))
    }
}
