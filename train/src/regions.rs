//! Two regions, each with its own backend and controller, whose requests all take from one limit besides: whether
//! the controllers fight.

use crate::parallel;
use crate::play::Failure;
use crate::players::Player;
use crate::scenario::{Family, Scenario, WARM_S};
use crate::stats::{bootstrap, mean};
use crate::world::{Trace, run_beside};
use claw_adapt::drain::Parameters;
use claw_adapt::weights::Loop;
use claw_adapt::{Mode, Policy, Weights};
use claw_core::bucket::{Bucket, Weight};
use std::fmt::Write;
use std::ops::Range;

/// One region has a family of these, the other the next one.
const FAMILIES: [Family; 4] = [Family::Home, Family::Steps, Family::Degrade, Family::Telemetry];

/// The limit above both, as a share of what their backends serve together when they are well.
const LIMITS: [f64; 3] = [0.4, 0.7, 1.0];

const TICK_S: f64 = 0.1;

/// A limit of so many requests per second, with a twentieth of a second's burst.
fn limit(rate: f64) -> Policy {
    let capacity = (rate * 0.05).ceil().max(2.0) as u64;
    Policy { refill_micros: (rate * 1e6) as u64, capacity, in_flight: None }
}

/// Mean change of the rate from a tick to the next, as a share.
fn restlessness(trace: &Trace) -> f64 {
    let scored = &trace.rates[(WARM_S / TICK_S) as usize..];
    let changes: Vec<f64> = scored.windows(2).map(|of| libm::log(of[1] / of[0]).abs()).collect();
    mean(&changes)
}

/// Most requests, of all windows of whole ticks, that were admitted beyond what the limit gains in the window.
fn most_beyond(traces: &[Trace], rate: f64) -> f64 {
    let ticks = traces.iter().map(|it| it.admitted.len()).min().unwrap_or(0);
    let (mut most, mut here) = (0.0_f64, 0.0_f64);
    for tick in 0..ticks {
        let admitted: f64 = traces.iter().map(|it| it.admitted[tick]).sum();
        here = (here + admitted - rate * TICK_S).max(0.0);
        most = most.max(here);
    }
    most
}

struct Pair {
    /// Goodput, of what the backends could do alone: under the limit together, each under half of it, each without.
    together: f64,
    halves: f64,
    alone: f64,
    restless: f64,
    restless_halves: f64,
    restless_alone: f64,
    /// Share of the limit's burst that was used beyond its rate, at the most.
    beyond: f64,
}

fn pair(player: &Player, nth: usize, first: u64, share: f64) -> Result<Pair, Failure> {
    let scenarios = [0, 1].map(|of| {
        Scenario::new(FAMILIES[(nth + of) % FAMILIES.len()], first + (2 * nth + of) as u64)
    });
    let rate = share * scenarios.iter().map(Scenario::usual_capacity).sum::<f64>();
    let full = |rate| -> Result<Bucket, Failure> {
        Ok(Bucket::full(limit(rate).to_bucket()?, Weight::ONE, 0))
    };
    let run = |those: &[Scenario], above| -> Result<Vec<Trace>, Failure> {
        let seated = those.iter().map(|it| Ok((it, player.seat(it.bounds())?)));
        let mut regions = seated.collect::<Result<Vec<_>, Failure>>()?;
        Ok(run_beside(&mut regions, above)?)
    };
    let each = |above| -> Result<Vec<Trace>, Failure> {
        let traces = scenarios.iter().map(|it| run(std::slice::from_ref(it), above));
        Ok(traces.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    };
    let together = run(&scenarios, Some(full(rate)?))?;
    let (halves, alone) = (each(Some(full(0.5 * rate)?))?, each(None)?);
    let goodput = |of: &[Trace]| {
        let (good, ideal) = of.iter().fold((0.0, 0.0), |(good, ideal), it| {
            (good + it.score.done(), ideal + it.score.possible())
        });
        good / ideal
    };
    let restless = |of: &[Trace]| mean(&of.iter().map(restlessness).collect::<Vec<_>>());
    Ok(Pair {
        together: goodput(&together),
        halves: goodput(&halves),
        alone: goodput(&alone),
        restless: restless(&together),
        restless_halves: restless(&halves),
        restless_alone: restless(&alone),
        beyond: most_beyond(&together, rate) / limit(rate).capacity as f64,
    })
}

/// A table of both controllers under each limit.
///
/// # Errors
/// When weights that this was built with are damaged, or there was no run of a scenario.
pub fn report(seeds: Range<u64>, threads: usize) -> Result<String, String> {
    let learned = Weights::shipped(Loop::OffPath).map_err(|error| error.to_string())?;
    let players = [
        ("drain-cap", Player::Shipped(Mode::Inner(Parameters::ON_PATH))),
        ("learned over rate only", Player::Shipped(Mode::Learned(Box::new(learned)))),
    ];
    let count = ((seeds.end - seeds.start) / 2) as usize;
    let mut text = "| controller | limit | goodput together | less that of halves | less that without a limit | change of rate by \
         tick | less that of halves | less that without a limit | most of the burst used |\n\
         |---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for (name, player) in players {
        for share in LIMITS {
            let pairs = parallel::map(count, threads, |nth| pair(&player, nth, seeds.start, share));
            let pairs = pairs.into_iter().collect::<Result<Vec<_>, _>>();
            let pairs = pairs.map_err(|error| error.to_string())?;
            let of = |value: fn(&Pair) -> f64| {
                bootstrap(&[pairs.iter().map(value).collect::<Vec<_>>()], mean)
            };
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "| {name} | {share} | {:.3} | {:+.3} | {:+.3} | {:.4} | {:+.4} | {:+.4} | {:.3} |",
                of(|it| it.together),
                of(|it| it.together - it.halves),
                of(|it| it.together - it.alone),
                of(|it| it.restless),
                of(|it| it.restless - it.restless_halves),
                of(|it| it.restless - it.restless_alone),
                pairs.iter().map(|it| it.beyond).fold(0.0, f64::max)
            );
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::world::{Share, run};

    #[test]
    fn regions_without_a_limit_above_are_as_each_alone() {
        let player = Player::Shipped(Mode::Inner(Parameters::ON_PATH));
        let scenarios = [Scenario::new(Family::Steps, 5), Scenario::new(Family::Telemetry, 6)];
        let seat = |it: &Scenario| player.seat(it.bounds()).unwrap();
        let alone =
            scenarios.each_ref().map(|it| run(it, seat(it).as_mut(), Share::Alike).unwrap());
        let mut regions: Vec<_> = scenarios.iter().map(|it| (it, seat(it))).collect();
        let beside = run_beside(&mut regions, None).unwrap();
        assert_eq!(beside.iter().map(|it| it.score).collect::<Vec<_>>(), alone);
    }

    #[test]
    fn together_they_take_no_more_than_the_limit_above_gives() {
        let player = Player::Shipped(Mode::Inner(Parameters::ON_PATH));
        for share in LIMITS {
            let pair = pair(&player, 0, 1_000, share).unwrap();
            // The windows begin and end with a tick, so a burst and what is gained are all there is.
            assert!(pair.beyond <= 1.0, "{share}: {}", pair.beyond);
            assert!(share > LIMITS[0] || pair.beyond > 0.9, "{share}: {}", pair.beyond);
        }
    }
}
