//! On the path, whatever the load was before: what a backend can bear is served in the end.

#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::unwrap_used)]

use claw_adapt::drain::Parameters;
use claw_adapt::{Bounds, Controller, Mode, Observation, Policy, TICK_US};

const TICK_MS: u64 = TICK_US / 1_000;

/// A backend, and who asks it: first nobody, for a while.
#[derive(Clone, Copy, Debug)]
struct Case {
    sla_ms: u64,
    /// What a request takes, a twentieth less or more.
    service_ms: u64,
    workers: usize,
    /// Requests per second that the operator believes in.
    nominal: u64,
    lull_s: u64,
    /// Requests per second from then on.
    offered: u64,
}

/// Requests that are answered within the SLA in each second after the lull.
fn served(case: Case, seconds: u64) -> Vec<u64> {
    let Case { sla_ms, service_ms, workers, nominal, lull_s, offered } = case;
    let micros = nominal * 1_000_000;
    let bounds = Bounds {
        nominal_micros: micros,
        min_micros: micros / 20,
        max_micros: micros * 10,
        max_capacity: nominal * 10,
        sla_us: sla_ms * 1_000,
        slew_percent: 900,
        fallback: Policy { refill_micros: micros, capacity: nominal, in_flight: None },
    };
    let mut controller = Controller::new(Mode::Inner(Parameters::ON_PATH), bounds).unwrap();
    let mut policy = controller.start();
    let mut mean_s = sla_ms as f64 / 10_000.0;
    let (mut tokens, mut asking) = (policy.capacity as f64, 0);
    // When each worker has done its last request, and what is there: when it came, when it is done.
    let mut idle_at = vec![0; workers];
    let mut there: Vec<(u64, u64)> = Vec::new();
    let (mut offers, mut admitted, mut latencies) = (0.0, 0.0, Vec::new());
    let mut in_time = vec![0; seconds as usize];
    let mut drawn = 1_u64;
    let mut draw = |below: u64| {
        drawn =
            drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (drawn >> 33) % below
    };
    for now in 1..=(lull_s + seconds) * 1_000 {
        tokens = (tokens + policy.rate() / 1_000.0).min(policy.capacity as f64);
        there.retain(|(came, done)| {
            if *done == now {
                latencies.push(now - came);
                if now > lull_s * 1_000 && now - came <= sla_ms {
                    in_time[((now - 1) / 1_000 - lull_s) as usize] += 1;
                }
            }
            *done > now
        });
        // Twice as many may come, each by the toss of a coin.
        asking += if now > lull_s * 1_000 { 2 * offered } else { 0 };
        while asking >= 1_000 {
            asking -= 1_000;
            if draw(2) == 0 {
                continue;
            }
            offers += 1.0;
            let has_place = policy.in_flight.is_none_or(|cap| (there.len() as u64) < cap);
            if has_place && tokens >= 1.0 {
                (tokens, admitted) = (tokens - 1.0, admitted + 1.0);
                let service = service_ms * (95 + draw(11)) / 100;
                let worker = idle_at.iter_mut().min().unwrap();
                *worker = now.max(*worker) + service.max(1);
                there.push((now, *worker));
            }
        }
        if now % TICK_MS == 0 {
            let mut sorted: Vec<f64> = latencies.iter().map(|ms| *ms as f64 / 1e3).collect();
            sorted.sort_by(f64::total_cmp);
            let count = sorted.len();
            if count > 0 {
                mean_s = sorted.iter().sum::<f64>() / count as f64;
            } else if !there.is_empty() {
                mean_s += TICK_US as f64 / 1e6;
            }
            let at = |hundredths| sorted.get(count * hundredths / 100).copied().unwrap_or(mean_s);
            let seen = Observation {
                offered: offers,
                admitted,
                rejected: offers - admitted,
                completed: count as f64,
                late: latencies.iter().filter(|ms| **ms > sla_ms).count() as f64,
                p50_s: at(50),
                p95_s: at(95),
                mean_s,
                p10_s: at(10),
                in_flight: there.len() as f64,
                policy,
            };
            policy = controller.step(now * 1_000, &seen).policy;
            (offers, admitted) = (0.0, 0.0);
            latencies.clear();
        }
    }
    in_time
}

/// A cap that was right for a moment, or for nobody, must not keep what would show that it is too low from being seen.
#[test]
fn a_cap_that_is_much_too_low_does_not_stay() {
    let quick =
        Case { sla_ms: 200, service_ms: 80, workers: 200, nominal: 200, lull_s: 0, offered: 150 };
    let slow = Case { sla_ms: 500, service_ms: 200, ..quick };
    let slower = Case { sla_ms: 1_000, service_ms: 400, ..quick };
    let narrow = Case { workers: 20, nominal: 125, offered: 125, ..quick };
    for case in [quick, slow, slower, narrow] {
        for lull_s in [0, 5, 10, 120] {
            let case = Case { lull_s, ..case };
            let served = served(case, 80);
            let last: u64 = served[60..].iter().sum();
            assert!(last >= case.offered * 20 * 9 / 10, "{case:?}: {served:?}");
        }
    }
}

/// Nobody asks for ten minutes: what was known of the backend is known after that, too.
#[test]
fn nobody_asking_is_no_sign_of_a_backend_that_can_bear_less() {
    let case = Case {
        sla_ms: 200,
        service_ms: 20,
        workers: 20,
        nominal: 1_000,
        lull_s: 600,
        offered: 600,
    };
    let served = served(case, 3);
    assert!(served.iter().sum::<u64>() >= case.offered * 3 * 9 / 10, "{served:?}");
}
