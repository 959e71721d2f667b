//! The strategies in rational numbers: nothing is rounded, nothing overflows.
//!
//! Written from docs/conflict-resolution.md and not from the code. Amounts are
//! tokens, instants are unix microseconds.

use claw_core::bucket::Bucket;
use claw_core::merge::{Join, State};
use num_bigint::BigInt;
use num_rational::BigRational;

/// An exact number.
pub type Q = BigRational;

/// An integer as an exact number.
pub fn q(integer: impl Into<BigInt>) -> Q {
    Q::from_integer(integer.into())
}

/// What a bucket holds, exactly.
pub fn held(bucket: &Bucket) -> Q {
    let parts = q(2_520) * q(bucket.policy().interval_us().get());
    (q(bucket.tokens()) + q(bucket.remainder()) / parts) / q(1_000_000)
}

/// A state as a line: `tokens` at `at`, rising by `rate` times `weight` for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub tokens: Q,
    pub at: u64,
    pub weight: u8,
    /// Tokens per microsecond at weight 1.
    rate: Q,
    capacity: Q,
    /// Which policy wins: the later pin, then one of a call's options, then the
    /// larger numbers.
    rank: (Option<u64>, bool, [u64; 3]),
}

impl Line {
    pub fn of(state: &State) -> Self {
        let bucket = &state.bucket;
        let policy = bucket.policy();
        let rate = q(policy.refill()) / q(1_000_000) / q(policy.interval_us().get());
        let numbers = [policy.capacity(), policy.refill(), policy.interval_ms()];
        let pin = state.policy.and_then(|stored| stored.pin);
        Self {
            tokens: held(bucket),
            at: bucket.timestamp(),
            weight: bucket.weight().get(),
            rate,
            capacity: q(policy.capacity()),
            rank: (pin, state.policy.is_some(), numbers),
        }
    }

    /// Base tokens at `instant`: one of as many shares as the weight says.
    fn share(&self, instant: u64) -> Q {
        &self.tokens / q(self.weight) + &self.rate * (q(instant) - q(self.at))
    }

    /// What the bucket holds at `instant`.
    pub fn view(&self, instant: u64) -> Q {
        (self.share(instant) * q(self.weight)).min(self.capacity.clone())
    }

    /// A debt is owed once, whatever the weight.
    fn weighing(&self, weight: u8) -> Self {
        if self.in_debt() {
            return Self { weight, ..self.clone() };
        }
        let tokens = &self.tokens / q(self.weight) * q(weight);
        Self { tokens: tokens.min(self.capacity.clone()), weight, ..self.clone() }
    }

    fn in_debt(&self) -> bool {
        self.tokens < q(0)
    }

    /// The bucket as it is at `instant`.
    fn at(&self, instant: u64) -> Self {
        Self { tokens: self.view(instant), at: instant, ..self.clone() }
    }
}

/// What `strategy` may make of two states: several where the contract leaves it
/// open which of two that are equal wins.
pub fn join(a: &State, b: &State, strategy: Join) -> Vec<Line> {
    let lines = [Line::of(a), Line::of(b)];
    let weight = lines[0].weight.max(lines[1].weight);
    let best = |lines: Vec<Line>, before: &dyn Fn(&Line, &Line) -> bool| -> Vec<Line> {
        let beaten = |line: &Line| lines.iter().any(|other| before(other, line));
        lines.iter().filter(|line| !beaten(line)).cloned().collect()
    };
    let ranked = || best(lines.to_vec(), &|x, y| x.rank > y.rank);
    let owing = lines[0].weight != lines[1].weight && lines.iter().any(Line::in_debt);
    if strategy == Join::Weighted && owing {
        // Lines that are not parallel: compared at the later of their instants.
        let later = lines[0].at.max(lines[1].at);
        let lines: Vec<Line> = lines.iter().map(|line| line.at(later)).collect();
        let owing = lines.iter().any(Line::in_debt);
        let ranked = best(lines, &|x, y| x.rank > y.rank);
        let winners = match owing {
            true => best(ranked, &|x, y| x.tokens < y.tokens),
            false => best(ranked, &|x, y| x.share(0) < y.share(0)),
        };
        return winners.iter().map(|line| line.weighing(weight)).collect();
    }
    let winners = match strategy {
        Join::Lww => {
            let newest = best(lines.to_vec(), &|x, y| x.at > y.at);
            // Parts of a millionth are of no account here.
            let micros = |line: &Line| (&line.tokens * q(1_000_000)).floor();
            best(newest, &|x, y| micros(x) < micros(y))
        }
        Join::Max => best(ranked(), &|x, y| x.share(0) > y.share(0)),
        Join::Min | Join::Weighted => best(ranked(), &|x, y| x.share(0) < y.share(0)),
    };
    match strategy {
        Join::Weighted => winners.iter().map(|line| line.weighing(weight)).collect(),
        _ => winners,
    }
}

/// Whether `joined` is what `strategy` makes of `a` and `b`, at each of `instants`
/// that is not before its timestamps.
pub fn agrees(joined: &State, a: &State, b: &State, strategy: Join, later: &[u64]) -> bool {
    let actual = Line::of(joined);
    let from = a.bucket.timestamp().max(b.bucket.timestamp());
    join(a, b, strategy).iter().any(|line| {
        line.rank == actual.rank
            && line.weight == actual.weight
            && later.iter().all(|us| {
                let mut bucket = joined.bucket;
                bucket.advance(from + us);
                held(&bucket) == line.view(from + us)
            })
    })
}
