//! A scenario for a program that plays it with real sockets, and what becomes of it in simulation.

use crate::play::Failure;
use crate::players::Player;
use crate::scenario::{Family, Scenario};
use crate::world::{Share, run};
use claw_adapt::drain::Parameters;
use claw_adapt::weights::Loop;
use claw_adapt::{Bounds, Mode, Policy, Weights};

/// Seconds that an event is late when it is sent with others each fiftieth of a second, on average.
const BATCHED: f64 = 0.01;

/// The families whose backends can be small enough for one machine.
pub const FAMILIES: [(&str, Family); 3] =
    [("small", Family::Small), ("other", Family::Other), ("steps", Family::Steps)];

/// As JSON.
///
/// # Errors
/// When weights are damaged, or the scenario cannot be played.
pub fn scenario(family: Family, seed: u64) -> Result<String, String> {
    let scenario = Scenario::new(family, seed);
    // An operator's limit that is twice too high, as such limits are.
    let nominal = scenario.bounds().nominal_micros;
    let capacity = nominal.div_euclid(5_000_000).max(2);
    let fallback = Policy { refill_micros: nominal * 2, capacity, in_flight: None };
    let bounds = Bounds { fallback, ..scenario.bounds() };
    let learned = Weights::shipped(Loop::OffPath).map_err(|error| error.to_string())?;
    let learned = Mode::Learned(Box::new(learned));
    let mut off_path = scenario.clone();
    off_path.report_delay = BATCHED;
    let players = [
        ("static", Mode::Static, &scenario),
        ("on_path", Mode::Inner(Parameters::ON_PATH), &scenario),
        ("off_path", learned, &off_path),
    ];
    let mut simulated = vec![];
    let mut possible = 0.0;
    for (name, mode, of) in players {
        let score = played(Player::Shipped(mode), bounds, of).map_err(|error| error.to_string())?;
        possible = score.possible();
        let (goodput, late) = (score.goodput(), score.late());
        simulated.push(format!("\"{name}\": {{\"goodput\": {goodput}, \"late\": {late}}}"));
    }
    let rate = |micros: u64| micros as f64 / 1e6;
    Ok(format!(
        "{{\"capacity\": {}, \"possible\": {possible}, \"simulated\": {{{}}},\n\
         \"limit\": {{\"capacity\": {}, \"refill\": {}, \"nominal\": {}, \"min\": {}, \"max\": {}, \
         \"max_capacity\": {}, \"slew_percent\": {}}},\n{}}}\n",
        scenario.usual_capacity(),
        simulated.join(", "),
        bounds.fallback.capacity,
        rate(bounds.fallback.refill_micros),
        rate(bounds.nominal_micros),
        rate(bounds.min_micros),
        rate(bounds.max_micros),
        bounds.max_capacity,
        bounds.slew_percent,
        scenario.to_json()
    ))
}

fn played(player: Player, bounds: Bounds, of: &Scenario) -> Result<crate::world::Score, Failure> {
    let mut seat = player.seat(bounds)?;
    Ok(run(of, seat.as_mut(), Share::Alike)?)
}
