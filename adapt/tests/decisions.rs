//! The same observations, the same decisions as another implementation: `decisions.txt`, digit for digit. It has no probe of the cap.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

use claw_adapt::controller::Change;
use claw_adapt::drain::{Cap, Parameters};
use claw_adapt::{Bounds, Controller, DecidedBy, Mode, Observation, Policy, TICK_US, Weights};

const RECORDED: &str = include_str!("decisions.txt");
const WEIGHTS: &str = include_str!("reference-weights.txt");

/// All but those of a network after it is known that decisions take effect late.
const COMPARED: u32 = 587;

fn mode(name: &str) -> Mode {
    match name {
        "on-path" => Mode::Inner(Parameters {
            cap: Parameters::ON_PATH.cap.map(|cap| Cap { probe: 0.0, ..cap }),
            ..Parameters::ON_PATH
        }),
        "off-path" => Mode::Inner(Parameters::OFF_PATH),
        "learned" => {
            let weights = Weights::read(WEIGHTS).expect("weights");
            assert_eq!(weights.parameters, Parameters::OFF_PATH);
            Mode::Learned(Box::new(weights))
        }
        _ => panic!("no mode {name}"),
    }
}

fn numbers(text: &str) -> Vec<u64> {
    text.split(' ').map(|word| word.parse().expect(text)).collect()
}

fn policy(refill_micros: u64) -> Policy {
    Policy { refill_micros, capacity: 2, in_flight: None }
}

#[test]
fn every_decision_is_that_of_the_reference() {
    let mut controller: Option<Controller> = None;
    let (mut now, mut decisions) = (0_u64, 0_u32);
    for line in RECORDED.lines().filter(|line| !line.starts_with('#')) {
        let Some((seen, decided)) = line.split_once(" -> ") else {
            let (name, of) = line.split_once(' ').expect(line);
            let of = numbers(of);
            let bounds = Bounds {
                sla_us: of[0],
                nominal_micros: of[1],
                min_micros: of[2],
                max_micros: of[3],
                max_capacity: 1_000_000,
                slew_percent: 100_000,
                fallback: policy(of[1]),
            };
            controller = Some(Controller::new(mode(name), bounds).expect("bounds"));
            continue;
        };
        let of = numbers(seen);
        let [count, us] = [|x: u64| x as f64, |x: u64| x as f64 / 1e6];
        let seen = Observation {
            offered: count(of[0]),
            admitted: count(of[1]),
            rejected: count(of[2]),
            completed: count(of[3]),
            late: count(of[4]),
            p50_s: us(of[5]),
            p95_s: us(of[6]),
            mean_s: us(of[7]),
            p10_s: us(of[8]),
            in_flight: count(of[9]),
            policy: policy(of[10]),
        };
        now = now.wrapping_add(TICK_US);
        // It goes on with the network where decisions take effect late, and this one does not.
        let Some(deciding) = controller.as_mut() else { continue };
        let Change { policy, by } = deciding.step(now, &seen);
        if by == DecidedBy::Distrusted {
            controller = None;
            continue;
        }
        let Policy { refill_micros, capacity, in_flight } = policy;
        let cap = in_flight.map_or("-".to_owned(), |cap| cap.to_string());
        assert_eq!(format!("{refill_micros} {capacity} {cap}"), decided, "after {line}");
        decisions = decisions.wrapping_add(1);
    }
    assert_eq!(decisions, COMPARED);
}
