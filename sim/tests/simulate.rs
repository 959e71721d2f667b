//! A few runs of each kind. `make simulate` makes thousands.

use claw_core::membership::PartitionPolicy;
use claw_core::merge::Join;
use claw_sim::even::Even;
use claw_sim::runs::{self, Trouble};
use claw_sim::scenarios::{SCENARIOS, Way};
use claw_sim::server::Method;

#[test]
fn what_must_hold_holds() {
    for trouble in Trouble::ALL {
        for seed in 0..12 {
            let outcome = runs::run(trouble, seed);
            assert!(outcome.is_ok(), "{trouble:?}, seed {seed}: {outcome:?}");
        }
    }
}

/// What is held back for a peer whose memory is full does not fill it a second time.
#[test]
fn memory_heals_in_time() {
    for seed in [1_367, 70_302] {
        let outcome = runs::run(Trouble::Memory, seed);
        assert!(outcome.is_ok(), "seed {seed}: {outcome:?}");
    }
}

#[test]
fn demand_below_the_rate_is_never_refused() {
    for guard in PartitionPolicy::ALL {
        for seed in 0..3 {
            assert_eq!(Even::random(seed, guard).run(seed), Ok(()), "{guard:?}, seed {seed}");
        }
    }
}

/// What is checked of settlements is checked with debts.
#[test]
fn more_is_used_than_was_taken() {
    let overrun = |seed| runs::run(Trouble::Settlements, seed).map(|outcome| outcome.overrun);
    assert!((0..4).all(|seed| overrun(seed).is_ok_and(|tokens| tokens > 100)));
    assert_eq!(runs::run(Trouble::None, 0).map(|outcome| outcome.overrun), Ok(0));
}

/// The same seed is the same run, and another one is another.
#[test]
fn a_run_can_be_looked_at_again() {
    let run = |seed| format!("{:?}", runs::run(Trouble::Network, seed));
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

/// Only debit counters give out what one bucket would: never more than 1 % beside it.
#[test]
fn only_debit_enforces_a_shared_limit() {
    for scenario in SCENARIOS {
        let ideal = scenario.ideal();
        let given = scenario.given(Way::Of(Method::Debit));
        assert!(given.abs_diff(ideal) * 100 <= ideal, "{}: {given} of {ideal}", scenario.name);
    }
    let [_, overload, ..] = SCENARIOS;
    for (strategy, times) in [(Join::Min, 2), (Join::Max, 9), (Join::Lww, 2)] {
        let given = overload.given(Way::Of(Method::States(strategy)));
        assert!(given > times * overload.ideal(), "{}: {given}", strategy.name());
    }
}
