//! Random histories: after each call the bucket and the model of it agree, to
//! the last digit of every number.

use crate::any::{self, Amount, START, Settling, Tick, Wanting};
use crate::exact::{Ahead, Exact, Options, Own, Reply, Terms};
use crate::hash::{KEY, Server, held, parts, policy, reply};
use claw_core::record::FieldError;
use claw_core::rules::Rules;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Call {
    Take { wanting: Wanting, options: Options },
    Peek { tokens: Amount, options: Options },
    Give { tokens: Amount },
    Settle { settling: Settling, options: Options },
    Pin { options: Options, weight: Option<u8> },
    Reset,
    Delete,
    ChangeDefault { terms: Terms },
    ChangeRules { rules: Vec<(&'static str, Terms)> },
}

/// Calls that mostly use the same options, as an application does.
fn calls() -> impl Strategy<Value = Vec<(Tick, Call)>> {
    any::options().prop_flat_map(|usual| {
        let options = prop_oneof![
            6 => Just(Options::default()),
            6 => Just(usual),
            1 => any::options(),
        ]
        .boxed();
        let call = prop_oneof![
            12 => (any::wanting(), options.clone())
                .prop_map(|(wanting, options)| Call::Take { wanting, options }),
            3 => (any::amount(), options.clone())
                .prop_map(|(tokens, options)| Call::Peek { tokens, options }),
            4 => (any::settling(), options)
                .prop_map(|(settling, options)| Call::Settle { settling, options }),
            3 => any::amount().prop_map(|tokens| Call::Give { tokens }),
            1 => (any::changes(), prop::option::of(any::weight()))
                .prop_map(|(options, weight)| Call::Pin { options, weight }),
            1 => Just(Call::Reset),
            1 => Just(Call::Delete),
            1 => any::terms().prop_map(|terms| Call::ChangeDefault { terms }),
            2 => rules().prop_map(|rules| Call::ChangeRules { rules }),
        ]
        .boxed();
        prop::collection::vec((any::tick(), call), 1..60)
    })
}

/// Patterns that fit the key, and some that nearly do.
const PATTERNS: [&str; 9] =
    ["*", "a*", "api:*", "api:key", "api:key*", "api:ke", "api:key:*", "api:a*", "b*"];

/// A table of rules, mostly a short one.
fn rules() -> impl Strategy<Value = Vec<(&'static str, Terms)>> {
    prop::sample::subsequence(PATTERNS.to_vec(), 0..=PATTERNS.len()).prop_flat_map(|patterns| {
        let rules: Vec<_> = patterns.into_iter().map(|p| (Just(p), any::terms())).collect();
        rules.prop_shuffle()
    })
}

/// The rule that counts, found by looking at all of them.
fn rule_of(rules: &[(&'static str, Terms)]) -> Option<Terms> {
    let key = std::str::from_utf8(KEY).unwrap();
    let fits = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => key.starts_with(prefix),
        None => pattern == key,
    };
    let fitting = rules.iter().filter(|(pattern, _)| fits(pattern));
    let best = fitting.max_by_key(|(pattern, _)| (!pattern.ends_with('*'), pattern.len()));
    best.map(|(_, terms)| *terms)
}

fn table(rules: &[(&'static str, Terms)]) -> Rules {
    let entries = rules.iter().map(|(pattern, terms)| format!("{pattern} {}", policy(*terms)));
    Rules::parse(&entries.collect::<Vec<_>>().join(";")).unwrap()
}

proptest! {
    #![proptest_config(any::cases(500))]

    #[test]
    fn every_history_agrees_with_the_model((server, exact) in any::pair(), calls in calls()) {
        play(server, exact, &calls)?;
    }
}

/// Plays the calls on both, and compares after each.
///
/// What is configured changes only one microsecond after everything else, and
/// the clock is not set back behind a change; [`crate::clock`] has that.
fn play(mut server: Server, mut exact: Exact, calls: &[(Tick, Call)]) -> Result<(), TestCaseError> {
    let (mut now, mut changed) = (START, 0);
    let mut latest = exact.bucket.as_ref().map_or(START, |line| line.at.max(START));
    let mut last = Reply { taken: 0, capacity: 0, remaining: 0, retry_after: 0, reset_after: 0 };
    for (tick, call) in calls {
        now = tick.after(now, last.retry_after, last.reset_after).max(changed);
        latest = latest.max(now);
        let own = exact.bucket.as_ref().map_or(Own::Configured, |line| line.own);
        let capacity = exact.terms(own).capacity;
        let of = |amount: &Amount| amount.of(last.remaining, capacity);
        let (got, expected) = match call {
            Call::Take { wanting, options } => {
                let want = wanting.of(last.remaining, capacity);
                (
                    server.take(want, *options, now).map(Some),
                    exact.take(want, *options, now).map(Some),
                )
            }
            Call::Settle { settling, options } => {
                let settled = settling.of(last.remaining, capacity);
                (
                    server.settle(settled, *options, now).map(Some),
                    exact.settle(settled, *options, now).map(Some),
                )
            }
            Call::Peek { tokens, options } => {
                let tokens = of(tokens);
                (
                    server.peek(tokens, *options, now).map(Some),
                    exact.peek(tokens, *options, now).map(Some),
                )
            }
            Call::Give { tokens } => {
                let tokens = of(tokens);
                (server.give(tokens, now).map(Some), exact.give(tokens, now).map(Some))
            }
            Call::Pin { options, weight } => (
                server.pin(*options, *weight, now).map(|()| None),
                exact.pin(*options, *weight, now).map(|()| None),
            ),
            Call::Reset => (server.reset(now).map(|()| None), exact.reset(now).map(|()| None)),
            Call::Delete => {
                server.key = None;
                exact.bucket = None;
                (Ok(None), Ok(None))
            }
            Call::ChangeDefault { terms } => {
                // A configured default is always per second: one interval for all.
                let terms = Terms { interval: exact.default.interval, ..*terms };
                now = latest + 1;
                (latest, changed) = (now, now);
                server.defaults.set_default(policy(terms), now);
                exact.configure(terms, exact.rule, now);
                (Ok(None), Ok(None))
            }
            Call::ChangeRules { rules } => {
                now = latest + 1;
                (latest, changed) = (now, now);
                server.defaults.set_rules(table(rules), now);
                exact.configure(exact.default, rule_of(rules), now);
                (Ok(None), Ok(None))
            }
        };
        let got = got.map(|answer| answer.as_ref().map(reply));
        let expected = expected.map_err(|Ahead| FieldError::Ahead);
        prop_assert_eq!(got, expected, "{:?} at {}", call, now);
        last = got.ok().flatten().unwrap_or(last);
        same_state(&server, &exact, now)?;
    }
    Ok(())
}

/// Both hold exactly the same, at the same instant, under the same policy.
fn same_state(server: &Server, exact: &Exact, now: u64) -> Result<(), TestCaseError> {
    prop_assert_eq!(server.key.is_some(), exact.bucket.is_some());
    let (opened, line) = match (server.open(now), exact.open(now)) {
        (Ok(opened), Ok(line)) => (opened, line),
        (opened, line) => {
            prop_assert_eq!(opened.err(), Some(FieldError::Ahead));
            prop_assert_eq!(line.err(), Some(Ahead));
            return Ok(());
        }
    };
    let bucket = opened.bucket();
    prop_assert!(bucket.tokens() <= bucket.policy().capacity_micros());
    prop_assert!(bucket.remainder() < parts(bucket.policy()));
    prop_assert_eq!(held(&bucket), line.tokens);
    prop_assert_eq!(bucket.timestamp(), line.at);
    prop_assert_eq!(bucket.weight().get(), line.weight);
    prop_assert_eq!(bucket.policy(), policy(exact.terms(line.own)));
    let pinned = opened.policy().map(|stored| stored.pin.is_some());
    prop_assert_eq!(
        pinned,
        match line.own {
            Own::Configured => None,
            Own::Called(_) => Some(false),
            Own::Pinned(_) => Some(true),
        }
    );
    Ok(())
}
