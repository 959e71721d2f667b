//! Random buckets, and what one is at whatever instant it is written down.

use claw_testkit::Random;
use redis::Cmd;
use std::collections::BTreeMap;

/// What buckets of the tests of laws are on; `None` is the default policy.
pub const POLICIES: [(Option<&str>, [u64; 3]); 5] = [
    (None, [1000, 5_000_000, 1_000]),
    (None, [1000, 5_000_000, 1_000]),
    (Some("100 0.7/1300"), [100, 700_000, 1_300]),
    (Some("100 0.7/1300 pinned 2"), [100, 700_000, 1_300]),
    (Some("1000000000000 0/1 pinned 2"), [1_000_000_000_000, 0, 1]),
];

/// An `HSET` of a random bucket, all of whose fields are given.
pub fn random_bucket(random: &mut Random, key: &str, now: u64, alike: bool) -> Cmd {
    let (policy, [capacity, ..]) = if alike { POLICIES[0] } else { *random.pick(&POLICIES) };
    let most = (capacity * 1_000_000).min(2_000_000_000);
    let micros = match random.below(6) {
        0 => 0,
        1 => capacity * 1_000_000,
        2 | 3 => random.below(most / 1_000_000 + 1) * 1_000_000,
        _ => random.below(most + 1),
    };
    let ago = match random.below(4) {
        0 => 0,
        1 => random.below(20) * 1_000_000,
        _ => random.below(200_000_000),
    };
    let mut cmd = redis::cmd("HSET");
    cmd.arg(key).arg("tokens").arg(format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000));
    cmd.arg("timestamp").arg(now - ago);
    if random.below(4) > 0 {
        cmd.arg("userWeight").arg(1 + random.below(10));
    }
    if let Some(policy) = policy {
        cmd.arg("policy").arg(policy);
    }
    if random.below(4) == 0 {
        // Whole shares of every weight.
        cmd.arg("remainder").arg(2_520 * random.below(1_000));
    }
    cmd
}

/// What a bucket is, whatever instant it is written down for: policy, weight,
/// and its line, or that it is full by `now`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub policy: Option<String>,
    pub weight: i128,
    pub line: Option<i128>,
}

impl Line {
    pub fn of(fields: &BTreeMap<String, String>, now: u64) -> Line {
        let policy = fields.get("policy").cloned();
        let numbers = POLICIES.iter().find(|(text, _)| *text == policy.as_deref());
        let [capacity, refill, interval] = numbers.expect("a known policy").1.map(i128::from);
        let integer = |name: &str, missing: i128| {
            fields.get(name).map_or(missing, |text| text.parse().expect("an integer"))
        };
        let (whole, part) = fields["tokens"].split_once('.').unwrap_or((&fields["tokens"], ""));
        let micros: i128 = format!("{whole}{part:0<6}").parse().unwrap();
        let micros = micros.min(capacity * 1_000_000);
        let (weight, timestamp) = (integer("userWeight", 1), integer("timestamp", 0));
        let parts = interval * 1_000 * 2_520;
        let rate = refill * weight * 2_520;
        let line = micros * parts + integer("remainder", 0) - rate * timestamp;
        let full = line + rate * timestamp.max(i128::from(now)) >= capacity * 1_000_000 * parts;
        Line { policy, weight, line: Some(line).filter(|_| !full) }
    }
}
