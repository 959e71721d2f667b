//! What can be measured of region sync.

/// A part of `claw-bench sync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// CL.TAKE with and without sync.
    Throughput,
    /// What each further region costs.
    Regions,
    /// How long until the other region knows of a take.
    Convergence,
    /// What goes over the wire when nothing is taken.
    Idle,
    /// What a bucket weighs that regions share.
    Memory,
}

impl Part {
    /// In the order in which they run.
    pub const ALL: [Part; 5] =
        [Part::Throughput, Part::Regions, Part::Convergence, Part::Idle, Part::Memory];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Part::Throughput => "throughput",
            Part::Regions => "regions",
            Part::Convergence => "convergence",
            Part::Idle => "idle",
            Part::Memory => "memory",
        }
    }

    /// Whether two builds can be compared in it.
    pub fn compares(self) -> bool {
        matches!(self, Part::Throughput | Part::Regions)
    }
}
