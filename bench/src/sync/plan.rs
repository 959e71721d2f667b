//! What is measured, and how often.

use crate::builds::Build;

/// What is measured, and how often.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The builds that are compared, or the only one; first the one that the run is
    /// about.
    pub builds: &'a [Build],
    /// Rounds that count.
    pub rounds: usize,
    /// Requests of one pipelined measurement of throughput.
    pub requests: u64,
    /// How many regions share limits, each in turn.
    pub regions: &'a [usize],
    /// Takes per second in each of them.
    pub rate: u64,
    /// Buckets from which they are taken.
    pub keys: u64,
    /// How long one of those measurements takes.
    pub seconds: u64,
}
