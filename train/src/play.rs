//! Many runs of one player.

use crate::parallel;
use crate::players::Player;
use crate::scenario::{Family, Scenario};
use crate::world::{Score, Share, run};
use claw_adapt::BoundsError;
use claw_core::policy::PolicyError;
use std::fmt;
use std::ops::Range;

/// Why there was no run: a scenario is not as any of its players could have it.
#[derive(Debug, PartialEq)]
pub enum Failure {
    Bounds(BoundsError),
    Policy(PolicyError),
}

impl From<BoundsError> for Failure {
    fn from(error: BoundsError) -> Self {
        Self::Bounds(error)
    }
}

impl From<PolicyError> for Failure {
    fn from(error: PolicyError) -> Self {
        Self::Policy(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bounds(error) => error.fmt(f),
            Self::Policy(error) => write!(f, "no bucket has such a policy: {error:?}"),
        }
    }
}

/// A family and a seed.
pub type Drawn = (Family, u64);

/// Each family with each seed, family by family.
pub fn each(families: &[Family], seeds: Range<u64>) -> Vec<Drawn> {
    families.iter().flat_map(|family| seeds.clone().map(|seed| (*family, seed))).collect()
}

/// The `nth` of scenarios that go through the families in turn, each with a seed of its own.
pub fn in_turn(families: &[Family], first: u64, nth: usize) -> Drawn {
    (families[nth % families.len()], first + nth as u64)
}

/// One run of each, in this order.
///
/// # Errors
/// When there was no run of one.
pub fn play(
    player: &Player,
    all: &[Drawn],
    threads: usize,
    share: Share,
) -> Result<Vec<Score>, Failure> {
    parallel::map(all.len(), threads, |k| {
        let (family, seed) = all[k];
        let scenario = Scenario::new(family, seed);
        let mut seat = player.seat(scenario.bounds())?;
        Ok(run(&scenario, seat.as_mut(), share)?)
    })
    .into_iter()
    .collect()
}
