//! Whatever is observed, and whatever the weights: within the bounds, and the same again.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

use claw_adapt::drain::{Cap, Parameters};
use claw_adapt::network::{Network, WEIGHTS};
use claw_adapt::weights::Loop;
use claw_adapt::{
    Bounds, Change, Controller, DecidedBy, Mode, Observation, Policy, TICK_US, Weights,
};
use proptest::prelude::*;

const BOUNDS: Bounds = Bounds {
    nominal_micros: 800_000_000,
    min_micros: 40_000_000,
    max_micros: 2_400_000_000,
    max_capacity: 500,
    sla_us: 200_000,
    slew_percent: 300,
    fallback: Policy { refill_micros: 300_000_000, capacity: 30, in_flight: None },
};

const CALM: Observation = Observation {
    offered: 60.0,
    admitted: 60.0,
    rejected: 0.0,
    completed: 60.0,
    late: 0.0,
    p50_s: 0.02,
    p95_s: 0.05,
    mean_s: 0.025,
    p10_s: 0.01,
    in_flight: 2.0,
    policy: Policy { refill_micros: 640_000_000, capacity: 35, in_flight: None },
};

fn constant(weight: f32) -> Mode {
    let network = Network::new(Box::new([weight; WEIGHTS]));
    let command = "by hand".to_owned();
    Mode::Learned(Box::new(Weights {
        corrects: Loop::OffPath,
        parameters: Parameters::OFF_PATH,
        seed: 0,
        command,
        network,
    }))
}

fn shipped() -> Mode {
    Mode::Learned(Box::new(Weights::read(include_str!("../weights/off-path-1.txt")).unwrap()))
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => 0.0..500.0,
        2 => any::<f64>(),
        1 => prop::sample::select(vec![f64::NAN, f64::INFINITY, -f64::INFINITY, 0.0, -1.0, 1e300, 5e-324]),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    (prop_oneof![40_000_000..2_400_000_000_u64, any::<u64>()], any::<u64>(), any::<Option<u64>>())
        .prop_map(|(refill_micros, capacity, in_flight)| Policy {
            refill_micros,
            capacity,
            in_flight,
        })
}

fn observation() -> impl Strategy<Value = Observation> {
    let counts = (number(), number(), number(), number(), number(), number());
    (counts, (number(), number(), number(), number()), policy()).prop_map(
        |((offered, admitted, rejected, completed, late, in_flight), latencies, policy)| {
            let (p50_s, p95_s, mean_s, p10_s) = latencies;
            Observation {
                offered,
                admitted,
                rejected,
                completed,
                late,
                p50_s,
                p95_s,
                mean_s,
                p10_s,
                in_flight,
                policy,
            }
        },
    )
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        Just(Mode::Static),
        Just(Mode::Inner(Parameters::ON_PATH)),
        Just(Mode::Inner(Parameters::OFF_PATH)),
        Just(shipped()),
        any::<f32>().prop_map(constant),
    ]
}

/// The changes of a controller of `mode` that sees `seen`, a tick after another.
fn changes(mode: Mode, seen: impl IntoIterator<Item = Observation>) -> Vec<Change> {
    let mut controller = Controller::new(mode, BOUNDS).expect("bounds");
    seen.into_iter().zip(1..).map(|(seen, nth)| controller.step(nth * TICK_US, &seen)).collect()
}

proptest! {
    #[test]
    fn every_policy_is_within_the_bounds_and_the_same_again(
        mode in mode(),
        steps in prop::collection::vec((any::<u64>(), observation()), 1..60),
    ) {
        let mut controllers = [(); 2].map(|()| Controller::new(mode.clone(), BOUNDS).unwrap());
        for (now, seen) in steps {
            let [one, other] = controllers.each_mut().map(|it| it.step(now, &seen));
            prop_assert_eq!(one, other);
            let Policy { refill_micros, capacity, in_flight } = one.policy;
            prop_assert!((BOUNDS.min_micros..=BOUNDS.max_micros).contains(&refill_micros));
            prop_assert!((2..=BOUNDS.max_capacity).contains(&capacity));
            prop_assert!(in_flight != Some(0));
            prop_assert!(one.policy.to_bucket().is_ok());
        }
    }

    #[test]
    fn the_rate_moves_no_further_than_the_slew_limit(
        mode in prop_oneof![Just(Mode::Inner(Parameters::OFF_PATH)), Just(shipped()), any::<f32>().prop_map(constant)],
        refill_micros in BOUNDS.min_micros..=BOUNDS.max_micros,
        in_flight in 0.0..5_000.0,
        completed in 1.0..300.0,
    ) {
        let policy = Policy { refill_micros, ..CALM.policy };
        let seen = Observation { in_flight, completed, policy, ..CALM };
        for change in changes(mode, [seen; 3]) {
            let (low, high) = (refill_micros / 4, refill_micros * 4 + 1);
            prop_assert!((low..=high).contains(&change.policy.refill_micros), "{change:?}");
        }
    }
}

#[test]
fn a_network_that_is_not_to_be_believed_leaves_the_inner_loop() {
    let inner = changes(Mode::Inner(Parameters::OFF_PATH), [CALM; 60]);
    for (weight, from) in [(f32::NAN, 0), (f32::INFINITY, 0), (1e30, 19), (-1e30, 19)] {
        let learned = changes(constant(weight), [CALM; 60]);
        for (nth, change) in learned.iter().enumerate() {
            let distrusted = change.by == DecidedBy::Distrusted;
            assert_eq!(distrusted, nth >= from, "weights {weight}, tick {nth}: {change:?}");
        }
    }
    let nan = changes(constant(f32::NAN), [CALM; 1]);
    assert_eq!(nan[0].policy, inner[0].policy);
}

/// The network was trained where a decision holds at once. Where it holds some ticks later, it is left
/// out, and comes back ten seconds after that is over.
#[test]
fn decisions_that_take_effect_late_leave_the_inner_loop() {
    let mut learned = Controller::new(shipped(), BOUNDS).unwrap();
    let mut inner = Controller::new(Mode::Inner(Parameters::OFF_PATH), BOUNDS).unwrap();
    let mut decided = vec![learned.start(); 5];
    let mut tick = |nth: u64, late: usize, decided: &mut Vec<Policy>| {
        let load = [60.0, 90.0, 40.0][(nth % 3) as usize];
        let policy = decided[decided.len() - 1 - late];
        let seen = Observation { offered: load, admitted: load, completed: load, policy, ..CALM };
        let (one, other) = (learned.step(nth * TICK_US, &seen), inner.step(nth * TICK_US, &seen));
        decided.push(one.policy);
        (one, other.policy)
    };
    for nth in 1..=20 {
        assert_eq!(tick(nth, 0, &mut decided).0.by, DecidedBy::Learned, "{nth}");
    }
    for nth in 21..=120 {
        let (one, inner) = tick(nth, 4, &mut decided);
        if nth > 28 {
            assert_eq!((one.by, one.policy), (DecidedBy::Distrusted, inner), "{nth}");
        }
    }
    let over = (121..=400).find(|nth| tick(*nth, 0, &mut decided).0.by == DecidedBy::Learned);
    assert!(over.is_some_and(|over| (215..=222).contains(&over)), "{over:?}");
}

#[test]
fn silence_brings_the_operators_limit() {
    let deaf = Observation { completed: 0.0, ..CALM };
    let quiet = Observation { completed: 0.0, admitted: 0.0, offered: 0.0, in_flight: 0.0, ..CALM };
    let bad = Observation { p95_s: f64::NAN, ..CALM };
    let beyond = Observation { completed: 1e308, ..CALM };
    let back = Observation { completed: -3.0, ..CALM };
    for mode in [Mode::Inner(Parameters::ON_PATH), Mode::Inner(Parameters::OFF_PATH), shipped()] {
        for (seen, before, after) in [
            (deaf, None, DecidedBy::Silence),
            (bad, Some(DecidedBy::Held), DecidedBy::Silence),
            (back, Some(DecidedBy::Held), DecidedBy::Silence),
            (beyond, Some(DecidedBy::Held), DecidedBy::Silence),
        ] {
            let changes = changes(mode.clone(), [seen; 40]);
            for (nth, change) in changes.iter().enumerate() {
                let silent = change.by == DecidedBy::Silence;
                assert_eq!(silent, nth >= 29, "{seen:?}, tick {nth}: {change:?}");
                assert!(!silent || change.by == after && change.policy == BOUNDS.fallback);
                assert!(silent || before.is_none_or(|by| by == change.by), "{change:?}");
            }
        }
        assert!(changes(mode.clone(), [quiet; 40]).iter().all(|it| it.by != DecidedBy::Silence));
        // News end it at once.
        let changes = changes(mode, [deaf; 40].into_iter().chain([CALM]));
        assert_ne!(changes.last().unwrap().by, DecidedBy::Silence);
    }
}

#[test]
fn bounds_that_are_none_are_refused() {
    for (bounds, expected) in [
        (Bounds { nominal_micros: 0, ..BOUNDS }, "the nominal rate"),
        (Bounds { min_micros: 0, ..BOUNDS }, "rates"),
        (Bounds { max_micros: 1, ..BOUNDS }, "rates"),
        (Bounds { max_micros: u64::MAX, ..BOUNDS }, "rates"),
        (Bounds { max_capacity: 1, ..BOUNDS }, "the greatest capacity"),
        (Bounds { sla_us: 0, ..BOUNDS }, "the SLA"),
        (Bounds { slew_percent: 0, ..BOUNDS }, "the slew limit"),
        (
            Bounds { fallback: Policy { capacity: 501, ..BOUNDS.fallback }, ..BOUNDS },
            "the fallback",
        ),
        (
            Bounds { fallback: Policy { refill_micros: 1, ..BOUNDS.fallback }, ..BOUNDS },
            "the fallback",
        ),
    ] {
        let error = Controller::new(Mode::Static, bounds).expect_err(expected).to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    assert_eq!(BOUNDS.check(), Ok(()));
}

/// Requests per second that a backend of eight workers delivers in the end, and what is in flight then. It
/// takes `service_s` for each request and hardly more or less; as many ask as there may be.
fn steady(probe: f64, service_s: impl Fn(u64) -> f64) -> (f64, u64) {
    let bounds = Bounds { nominal_micros: 100_000_000, min_micros: 5_000_000, ..BOUNDS };
    let cap = Parameters::ON_PATH.cap.map(|cap| Cap { probe, ..cap });
    let mode = Mode::Inner(Parameters { cap, ..Parameters::ON_PATH });
    let mut controller = Controller::new(mode, bounds).expect("bounds");
    let mut policy = controller.start();
    let (mut delivered, mut in_flight) = (0.0, 0);
    for tick in 1..=600 {
        let service_s = service_s(tick);
        in_flight = policy.in_flight.unwrap_or(1_000);
        let n = in_flight as f64;
        delivered = n.min(8.0) / service_s;
        let latency_s = n / delivered;
        let seen = Observation {
            offered: 30.0,
            admitted: delivered / 10.0,
            rejected: 30.0 - delivered / 10.0,
            completed: delivered / 10.0,
            late: 0.0,
            p50_s: latency_s,
            p95_s: latency_s * 1.05,
            mean_s: latency_s,
            p10_s: latency_s - 0.1 * service_s,
            in_flight: n,
            policy,
        };
        policy = controller.step(tick * TICK_US, &seen).policy;
    }
    (delivered, in_flight)
}

#[test]
fn a_backend_whose_service_times_hardly_vary_is_not_starved() {
    let (starved, _) = steady(0.0, |_| 0.08);
    assert!(starved < 70.0, "{starved}: there is nothing to mend");
    let (delivered, in_flight) = steady(0.25, |_| 0.08);
    assert!(delivered > 85.0 && in_flight <= 13, "{delivered}, {in_flight} in flight");
}

#[test]
fn what_was_let_in_more_while_that_helped_is_taken_back() {
    let (_, without) = steady(0.0, |_| 0.02);
    let (delivered, in_flight) = steady(0.25, |tick| if tick < 300 { 0.08 } else { 0.02 });
    assert!(
        delivered > 395.0 && in_flight <= without + without / 2,
        "{delivered}, {in_flight} in flight, not {without}"
    );
}
