//! Counters for `INFO claw`, since the module was loaded.

use std::cell::Cell;
use std::ffi::CStr;

/// A count that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(Cell<u64>);

impl Counter {
    /// Adds `amount`.
    pub(crate) fn add(&self, amount: u64) {
        self.0.set(self.0.get().saturating_add(amount));
    }
}

/// What the commands count.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    /// Calls that took tokens.
    taken: Counter,
    /// Calls that were refused.
    refused: Counter,
    /// Calls that gave tokens back.
    given: Counter,
    /// Calls that settled something else than was reserved.
    settled: Counter,
    /// Whole tokens taken.
    tokens_taken: Counter,
    /// Whole tokens given back.
    tokens_given: Counter,
    /// Whole tokens that were used beyond what was reserved.
    tokens_overrun: Counter,
    /// Merges that changed a bucket.
    pub(crate) merged: Counter,
    /// Merges that were refused.
    pub(crate) merge_errors: Counter,
    /// Buckets found with a field that cannot be understood.
    pub(crate) corrupt: Counter,
}

impl Stats {
    /// Counts a call that wanted `tokens` and took `taken`. Asking for none is
    /// looking, not taking.
    pub(crate) fn count_take(&self, tokens: u64, taken: u64) {
        if taken > 0 {
            self.taken.add(1);
            self.tokens_taken.add(taken);
        } else if tokens > 0 {
            self.refused.add(1);
        }
    }

    /// Counts a call that gave `tokens` back.
    pub(crate) fn count_give(&self, tokens: u64) {
        if tokens > 0 {
            self.given.add(1);
            self.tokens_given.add(tokens);
        }
    }

    /// Counts a settlement that booked so many tokens beyond the reserved ones, or gave them back.
    pub(crate) fn count_settle(&self, booked: i64) {
        match booked {
            0 => return,
            1.. => self.tokens_overrun.add(booked.unsigned_abs()),
            _ => self.tokens_given.add(booked.unsigned_abs()),
        }
        self.settled.add(1);
    }

    /// Name and value of each.
    pub(crate) fn counters(&self) -> [(&'static CStr, u64); 10] {
        [
            (c"taken", self.taken.0.get()),
            (c"refused", self.refused.0.get()),
            (c"given", self.given.0.get()),
            (c"settled", self.settled.0.get()),
            (c"tokens_taken", self.tokens_taken.0.get()),
            (c"tokens_given", self.tokens_given.0.get()),
            (c"tokens_overrun", self.tokens_overrun.0.get()),
            (c"merged", self.merged.0.get()),
            (c"merge_errors", self.merge_errors.0.get()),
            (c"corrupt", self.corrupt.0.get()),
        ]
    }
}
