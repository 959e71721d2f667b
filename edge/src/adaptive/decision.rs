//! What the leader of a route has decided, as all instances read it.

use claw_adapt::{DecidedBy, Policy};

use crate::limits::adaptive::Mode;

/// How long a decision holds, in milliseconds: as long as the pin that puts it in force.
pub const HOLDS_MS: u64 = 2_500;

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// When, in milliseconds by the server's clock.
    pub at_ms: u64,
    /// How far the loop goes.
    pub mode: Mode,
    /// Whether [`Self::policy`] is in force, rather than the operator's limit.
    pub is_live: bool,
    /// Who decided.
    pub by: DecidedBy,
    /// What was decided, for all instances together.
    pub policy: Policy,
    /// How many requests each instance may have in flight, where that is capped.
    pub parts: Vec<(String, u64)>,
}

const DECIDERS: [(DecidedBy, &str); 6] = [
    (DecidedBy::Static, "static"),
    (DecidedBy::Silence, "silence"),
    (DecidedBy::Held, "held"),
    (DecidedBy::Inner, "inner"),
    (DecidedBy::Distrusted, "distrusted"),
    (DecidedBy::Learned, "learned"),
];

/// The name of who decided, in metrics and logs.
#[must_use]
pub fn name(by: DecidedBy) -> &'static str {
    DECIDERS.iter().find(|(decider, _)| *decider == by).map_or("unknown", |(_, name)| name)
}

impl Decision {
    /// `AT MODE BY LIVE REFILL CAPACITY CAP INSTANCE=CAP ..`; a cap that there is not is `-`.
    #[must_use]
    pub fn to_text(&self) -> String {
        let Policy { refill_micros, capacity, in_flight } = self.policy;
        let cap = in_flight.map_or("-".to_owned(), |cap| cap.to_string());
        let mut text = format!(
            "{} {} {} {} {refill_micros} {capacity} {cap}",
            self.at_ms,
            self.mode.text(),
            name(self.by),
            u8::from(self.is_live),
        );
        for (instance, cap) in &self.parts {
            text.push_str(&format!(" {instance}={cap}"));
        }
        text
    }

    /// Reads [`Self::to_text`]'s; nothing if it is something else.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let at_ms = words.next()?.parse().ok()?;
        let mode = Mode::of_text(words.next()?)?;
        let by = words.next()?;
        let (by, _) = DECIDERS.into_iter().find(|(_, name)| *name == by)?;
        let is_live = match words.next()? {
            "0" => false,
            "1" => true,
            _ => return None,
        };
        let (refill_micros, capacity) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let in_flight = match words.next()? {
            "-" => None,
            cap => Some(cap.parse().ok()?),
        };
        let part = |word: &str| {
            let (instance, cap) = word.split_once('=')?;
            Some((instance.to_owned(), cap.parse().ok()?))
        };
        let parts = words.map(part).collect::<Option<_>>()?;
        let policy = Policy { refill_micros, capacity, in_flight };
        Some(Self { at_ms, mode, is_live, by, policy, parts })
    }

    /// Whether it holds still, at so many milliseconds by the server's clock.
    #[must_use]
    pub fn holds(&self, now_ms: u64) -> bool {
        self.at_ms.abs_diff(now_ms) <= HOLDS_MS
    }

    /// What `instance` goes by, beside the operator's limit.
    #[must_use]
    pub fn policy_of(&self, instance: &str, fallback: Policy) -> Policy {
        let policy = if self.is_live { self.policy } else { fallback };
        let part = self.parts.iter().find(|(name, _)| name == instance).map(|(_, cap)| *cap);
        // Who decided may be told by its settings that there is no cap. Whoever has one keeps it.
        let in_flight = fallback.in_flight.map(|own| {
            let cap = policy.in_flight.unwrap_or(own);
            part.map_or(cap, |part| part.min(cap))
        });
        Policy { in_flight, ..policy }
    }
}

/// Shares `total` among instances: a quarter of it equally, so that one that had nothing to do can begin,
/// the rest by their `weights`; at least one for each.
#[must_use]
pub fn parts(total: u64, weights: &[(String, u64)]) -> Vec<(String, u64)> {
    let sum = weights.iter().map(|(_, weight)| u128::from(*weight)).fold(0, u128::saturating_add);
    let count = u128::try_from(weights.len()).unwrap_or(u128::MAX).max(1);
    let base = sum.div_euclid(count.saturating_mul(3)).saturating_add(1);
    let weight = |(_, weight): &(String, u64)| u128::from(*weight).saturating_add(base);
    let all = weights.iter().map(weight).fold(0, u128::saturating_add);
    let (mut sum, mut given) = (0_u128, 0_u64);
    weights
        .iter()
        .map(|entry| {
            // What is rounded off goes to the next one.
            sum = sum.saturating_add(weight(entry));
            let until = u128::from(total).saturating_mul(sum).checked_div(all).unwrap_or(0);
            let until = u64::try_from(until).unwrap_or(total);
            let part = until.saturating_sub(given).max(1);
            given = given.saturating_add(part);
            (entry.0.clone(), part)
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::panic, clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: Policy = Policy { refill_micros: 5_000_000, capacity: 9, in_flight: Some(40) };

    fn decision(is_live: bool, in_flight: Option<u64>, parts: &[(&str, u64)]) -> Decision {
        let policy = Policy { refill_micros: 7_000_001, capacity: 3, in_flight };
        let parts = parts.iter().map(|(name, cap)| ((*name).to_owned(), *cap)).collect();
        Decision { at_ms: 9_000, mode: Mode::On, is_live, by: DecidedBy::Inner, policy, parts }
    }

    #[test]
    fn decisions_are_read_as_they_were_written() {
        for (by, _) in DECIDERS {
            for mode in Mode::ALL {
                for is_live in [false, true] {
                    for cap in [None, Some(12)] {
                        let some = decision(is_live, cap, &[("a", 7), ("b", 5)]);
                        let some = Decision { by, mode, ..some };
                        assert_eq!(Decision::from_text(&some.to_text()), Some(some));
                    }
                }
            }
        }
        for text in ["", "1", "1 on inner 2 1 1 -", "1 on inner 1 1 1 x", "1 on inner 1 1 1 - a"] {
            assert_eq!(Decision::from_text(text), None, "{text}");
        }
    }

    #[test]
    fn what_an_instance_goes_by() {
        let live = decision(true, Some(12), &[("a", 7), ("b", 5)]);
        assert_eq!(live.policy_of("a", LIMIT), Policy { in_flight: Some(7), ..live.policy });
        assert_eq!(live.policy_of("new", LIMIT), live.policy);
        let shadow = decision(false, Some(12), &[("a", 30), ("b", 10)]);
        assert_eq!(shadow.policy_of("b", LIMIT), Policy { in_flight: Some(10), ..LIMIT });
        let free = decision(true, None, &[]);
        assert_eq!(free.policy_of("a", LIMIT), Policy { in_flight: Some(40), ..free.policy });
        let uncapped = Policy { in_flight: None, ..LIMIT };
        assert_eq!(free.policy_of("a", uncapped), free.policy);
        assert_eq!(live.policy_of("a", uncapped), Policy { in_flight: None, ..live.policy });
        for (now, holds) in [(9_000, true), (11_500, true), (11_501, false), (6_499, false)] {
            assert_eq!(free.holds(now), holds, "{now}");
        }
    }

    proptest! {
        #[test]
        fn parts_are_all_of_it(total in 1_u64..2_000_000, weights in prop::collection::vec(0_u64..5_000, 1..9)) {
            let named: Vec<(String, u64)> =
                weights.iter().enumerate().map(|(nth, weight)| (nth.to_string(), *weight)).collect();
            let parts = parts(total, &named);
            let sum: u64 = parts.iter().map(|(_, part)| part).sum();
            let count = weights.len() as u64;
            prop_assert!(parts.iter().all(|(_, part)| *part >= 1));
            prop_assert!(sum >= total && sum <= total + count, "{sum} of {total}");
            let base = weights.iter().sum::<u64>() / (3 * count) + 1;
            let all: u64 = weights.iter().map(|weight| weight + base).sum();
            for ((_, part), weight) in parts.iter().zip(&weights) {
                let fair = total as f64 * (weight + base) as f64 / all as f64;
                prop_assert!(fair >= 0.2 * (total / count) as f64, "somebody has next to nothing: {fair}");
                prop_assert!((*part as f64 - fair).abs() <= 1.0 + count as f64, "{part} {fair}");
            }
        }
    }
}
