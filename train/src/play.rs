//! Many runs of one player.

use crate::parallel;
use crate::players::Player;
use crate::scenario::{Family, Scenario};
use crate::world::{Score, Share, run};
use claw_adapt::BoundsError;
use std::ops::Range;

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
/// When a scenario has bounds that no controller takes.
pub fn play(
    player: &Player,
    all: &[Drawn],
    threads: usize,
    share: Share,
) -> Result<Vec<Score>, BoundsError> {
    parallel::map(all.len(), threads, |k| {
        let (family, seed) = all[k];
        let scenario = Scenario::new(family, seed);
        let mut seat = player.seat(scenario.bounds())?;
        Ok(run(&scenario, seat.as_mut(), share))
    })
    .into_iter()
    .collect()
}
