//! `CL.VERIFY strategy [SAMPLES n] [SEED n] [BUDGET ms]`

use super::options;
use crate::error::{Error, Quantity};
use crate::host::{self, Access, Args, Argument, ArgumentKind, Command, Context, Keys, Spec};
use crate::strategy::Strategy;
use claw_core::decimal::Decimal;
use claw_core::merge::State;
use claw_core::verify::{self, Counterexample, Failure, Law};
use std::time::{Duration, Instant};

/// Finds a law that one pair in 300 breaks, for at least 99 of 100 seeds.
const DEFAULT_SAMPLES: u64 = 2_000;

const MAX_SAMPLES: u64 = 20_000;

/// Milliseconds for which the server does nothing else.
const DEFAULT_BUDGET: u64 = 100;

const MAX_BUDGET: u64 = 10_000;

/// Checks a strategy against the laws of merging.
pub(crate) struct Verify;

impl Command for Verify {
    const SPEC: Spec = Spec {
        name: c"cl.verify",
        flags: c"readonly",
        categories: c"read slow admin dangerous",
        arity: -2,
        keys: Keys::None,
        access: Access::Read,
        summary: c"Checks a merge strategy against the laws of merging on random buckets.",
        complexity: c"O(N) with N the number of samples",
        since: c"0.1.0",
        arguments: &[
            Argument::new(c"strategy", ArgumentKind::Text),
            Argument::new(c"samples", ArgumentKind::Integer).token(c"SAMPLES").optional(),
            Argument::new(c"seed", ArgumentKind::Integer).token(c"SEED").optional(),
            Argument::new(c"budget", ArgumentKind::Integer).token(c"BUDGET").optional(),
        ],
    };

    fn run(ctx: &Context<'_>, mut args: Args<'_>) -> Result<(), Error> {
        let strategy = args.next().ok_or(Error::Arity("cl.verify"))?;
        let strategy = Strategy::parse(strategy.as_bytes())?;
        let (mut samples, mut seed, mut budget) = (None, None, None);
        while let Some(option) = args.next() {
            let (place, name, min, max, what): (&mut Option<u64>, _, _, _, _) =
                if option.as_bytes().eq_ignore_ascii_case(b"SAMPLES") {
                    (&mut samples, "SAMPLES", 1, MAX_SAMPLES, Quantity::Samples)
                } else if option.as_bytes().eq_ignore_ascii_case(b"SEED") {
                    (&mut seed, "SEED", 0, u64::MAX, Quantity::Seed)
                } else if option.as_bytes().eq_ignore_ascii_case(b"BUDGET") {
                    (&mut budget, "BUDGET", 1, MAX_BUDGET, Quantity::Budget)
                } else {
                    return Err(Error::UnknownOption(option.as_bytes().into()));
                };
            let value = args.next().ok_or(Error::NoValue(name))?;
            if place.replace(options::integer(value, min, max, what)?).is_some() {
                return Err(Error::Repeated(name));
            }
        }
        let budget = Duration::from_millis(budget.unwrap_or(DEFAULT_BUDGET));
        let (samples, seed) = (samples.unwrap_or(DEFAULT_SAMPLES), seed.unwrap_or(0));

        // Whole seconds are easier to retype. The states are made by their
        // distance from now, so the same seed gives the same states but for it.
        let now = host::now();
        let now = now.saturating_sub(now % 1_000_000);
        let policy = {
            let settings = ctx.module().settings()?;
            settings.configured().default_policy()
        };
        let mut merge = |a: &State, b: &State| {
            strategy.merge(ctx, a, b, now).map_err(|error| match error {
                Error::AboveCapacity(_) => Failure::AboveCapacity,
                other => Failure::Error(other),
            })
        };
        let begun = Instant::now();
        let mut goes_on = || begun.elapsed() < budget;
        let verify::Report { samples, broken } =
            verify::verify(&mut merge, policy, samples, seed, now, &mut goes_on)?;
        let mut reports = Vec::with_capacity(Law::ALL.len());
        for law in Law::ALL {
            let found = broken.iter().find(|found| found.law == law);
            reports.push(found.map(|found| commands(found, &strategy, &mut merge)));
        }

        ctx.reply_map(Law::ALL.len().saturating_add(3));
        ctx.reply_bytes(b"strategy");
        ctx.reply_bytes(strategy.to_string().as_bytes());
        ctx.reply_bytes(b"samples");
        ctx.reply_integer(i64::try_from(samples).unwrap_or(i64::MAX));
        ctx.reply_bytes(b"seed");
        ctx.reply_bytes(seed.to_string().as_bytes());
        for (law, report) in Law::ALL.into_iter().zip(reports) {
            ctx.reply_bytes(law.name().as_bytes());
            match report {
                None => ctx.reply_bytes(b"ok"),
                Some(lines) => {
                    ctx.reply_array(lines.len());
                    lines.iter().for_each(|line| ctx.reply_bytes(line.as_bytes()));
                }
            }
        }
        Ok(())
    }
}

/// A counterexample as commands that anybody can type, and what they give.
fn commands<E>(
    found: &Counterexample,
    strategy: &Strategy,
    merge: &mut verify::Merge<'_, E>,
) -> Vec<String> {
    let mut lines: Vec<String> = ["a", "b", "c"]
        .into_iter()
        .zip(&found.states)
        .map(|(key, state)| format!("HSET {key} {}", fields(state)))
        .collect();
    let mut step = |into: &str, from: &str, result: &Result<State, Failure<E>>| {
        let count = from.split(' ').count();
        lines.push(format!("CL.MERGE {into} FROM {count} {from} STRATEGY {strategy}"));
        lines.push(match result {
            Ok(state) => format!("# {into} is {}", fields(state)),
            Err(Failure::AboveCapacity) => "# more tokens than the capacity".to_owned(),
            Err(Failure::Error(_)) => "# an error".to_owned(),
        });
    };
    match (found.law, found.states.as_slice()) {
        (Law::Commutative, [a, b]) => {
            step("ab", "a b", &merge(a, b));
            step("ba", "b a", &merge(b, a));
        }
        (Law::Associative, [a, b, c]) => {
            step("ab", "a b", &merge(a, b));
            step("left", "ab c", &merge(a, b).and_then(|ab| merge(&ab, c)));
            step("bc", "b c", &merge(b, c));
            step("right", "a bc", &merge(b, c).and_then(|bc| merge(a, &bc)));
        }
        (Law::Idempotent, [a]) => step("aa", "a a", &merge(a, a)),
        (_, [a, b]) => step("ab", "a b", &merge(a, b)),
        _ => {}
    }
    lines
}

fn fields(state: &State) -> String {
    let bucket = &state.bucket;
    let (tokens, weight) = (Decimal::signed(bucket.tokens()), bucket.weight().get());
    format!("tokens {tokens} timestamp {} userWeight {weight}", bucket.timestamp())
}
