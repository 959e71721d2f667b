//! Checks a merge against the laws, on random states.
//!
//! Every law is one that regions need to agree: without commutativity,
//! associativity and idempotence the result depends on order and repetition of
//! messages; a merge that is not inflationary can give taken tokens back.

use crate::bucket::{Bucket, Weight};
use crate::limits::MICRO;
use crate::merge::State;
use crate::policy::Policy;

/// A law of merging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Law {
    /// a with b is b with a.
    Commutative,
    /// (a with b) with c is a with (b with c).
    Associative,
    /// a with a is a.
    Idempotent,
    /// Merging with a stale copy of itself gives a bucket no tokens back.
    Inflationary,
    /// The result holds no more than its capacity.
    WithinCapacity,
}

impl Law {
    /// All of them, in the order they are reported in.
    pub const ALL: [Self; 5] = [
        Self::Commutative,
        Self::Associative,
        Self::Idempotent,
        Self::Inflationary,
        Self::WithinCapacity,
    ];

    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Commutative => "commutative",
            Self::Associative => "associative",
            Self::Idempotent => "idempotent",
            Self::Inflationary => "inflationary",
            Self::WithinCapacity => "within-capacity",
        }
    }
}

/// Why a merge gave no state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure<E> {
    /// It gave more tokens than the capacity: a broken law, not an error.
    AboveCapacity,
    /// Anything else, which ends the check.
    Error(E),
}

/// A law broken by these states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counterexample {
    /// The law.
    pub law: Law,
    /// The states: a; a and b; or a, b and c. For the inflationary law, a state
    /// from which tokens were taken, and its stale copy.
    pub states: Vec<State>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How many samples were checked.
    pub samples: u64,
    /// For every broken law a counterexample.
    pub broken: Vec<Counterexample>,
}

/// Checks `samples` random triples of states of `policy` and returns, for every
/// broken law, the smallest counterexample found. The same `seed` and `now`
/// (unix microseconds) give the same report. `merge` is called at most about
/// ten times per sample, and up to 1600 times per broken law to make its
/// counterexample small. Once `goes_on` says no, no sample is begun, except the first, and no
/// counterexample made smaller.
///
/// # Errors
/// The first error of `merge` itself.
pub fn verify<E>(
    merge: &mut Merge<'_, E>,
    policy: Policy,
    samples: u64,
    seed: u64,
    now: u64,
    goes_on: &mut dyn FnMut() -> bool,
) -> Result<Report, E> {
    let mut random = Random(seed);
    let mut broken: Vec<Counterexample> = Vec::new();
    for checked in 0..samples {
        if checked > 0 && !goes_on() {
            return Ok(Report { samples: checked, broken });
        }
        let a = random.state(policy, now, None);
        let b = random.state(policy, now, Some(&a));
        let c = random.state(policy, now, Some(&b));
        for law in Law::ALL {
            if broken.iter().any(|found| found.law == law) {
                continue;
            }
            let states = match law {
                Law::Commutative | Law::WithinCapacity => vec![a, b],
                Law::Associative => vec![a, b, c],
                Law::Idempotent => vec![a],
                Law::Inflationary => {
                    let mut credited = a.bucket;
                    credited.advance(now);
                    let most = u64::try_from(credited.remaining()).unwrap_or(0);
                    let Some(most) = most.checked_sub(1) else {
                        continue;
                    };
                    vec![taken(&a, random.up_to(most).saturating_add(1), now), a]
                }
            };
            if breaks(law, &states, merge, now)? {
                let states = shrink(law, states, merge, now, goes_on)?;
                broken.push(Counterexample { law, states });
            }
        }
    }
    Ok(Report { samples, broken })
}

/// A merge under test.
pub type Merge<'m, E> = dyn FnMut(&State, &State) -> Result<State, Failure<E>> + 'm;

/// Whether `states` break `law`.
fn breaks<E>(law: Law, states: &[State], merge: &mut Merge<'_, E>, now: u64) -> Result<bool, E> {
    let outcome = match (law, states) {
        (Law::Commutative, [a, b]) => both(merge(a, b), || merge(b, a), now),
        (Law::Associative, [a, b, c]) => {
            let left = merge(a, b).and_then(|ab| merge(&ab, c));
            both(left, || merge(b, c).and_then(|bc| merge(a, &bc)), now)
        }
        (Law::Idempotent, [a]) => both(merge(a, a), || Ok(*a), now),
        (Law::Inflationary, [taken, stale]) => {
            merge(taken, stale).map(|merged| credited(&merged, now) > credited(taken, now))
        }
        (Law::WithinCapacity, [a, b]) => match merge(a, b) {
            Ok(_) => Ok(false),
            Err(Failure::AboveCapacity) => return Ok(true),
            Err(error) => Err(error),
        },
        _ => Ok(false),
    };
    match outcome {
        Ok(broken) => Ok(broken),
        // Counted where the capacity itself is checked.
        Err(Failure::AboveCapacity) => Ok(false),
        Err(Failure::Error(error)) => Err(error),
    }
}

/// Whether two results differ.
fn both<E>(
    left: Result<State, Failure<E>>,
    right: impl FnOnce() -> Result<State, Failure<E>>,
    now: u64,
) -> Result<bool, Failure<E>> {
    Ok(!left?.same_from(&right()?, now))
}

fn credited(state: &State, now: u64) -> (i64, u64) {
    let mut bucket = state.bucket;
    bucket.advance(now);
    (bucket.tokens(), bucket.remainder())
}

/// The state at `now` after a take.
fn taken(state: &State, tokens: u64, now: u64) -> State {
    let mut bucket = state.bucket;
    bucket.advance(now);
    bucket.debit(tokens);
    State::of(bucket, state.policy)
}

/// How often a counterexample is tried to be made smaller.
const SHRINKING: usize = 400;

/// Makes the numbers of a counterexample small while the law stays broken.
fn shrink<E>(
    law: Law,
    mut states: Vec<State>,
    merge: &mut Merge<'_, E>,
    now: u64,
    goes_on: &mut dyn FnMut() -> bool,
) -> Result<Vec<State>, E> {
    let mut tries = 0_usize;
    let mut progress = true;
    while progress {
        progress = false;
        // Of a bucket and its stale copy, the copy is what both are made of.
        let first = usize::from(law == Law::Inflationary);
        for place in first..states.len() {
            for simpler in simpler(states.get(place), now) {
                tries = tries.saturating_add(1);
                if tries > SHRINKING {
                    return Ok(states);
                }
                let mut candidate = states.clone();
                if let Some(state) = candidate.get_mut(place) {
                    *state = simpler;
                }
                // The other state of that law is made of this one by taking.
                if law == Law::Inflationary {
                    candidate = vec![taken(&simpler, 1, now), simpler];
                }
                if !goes_on() {
                    return Ok(states);
                }
                if breaks(law, &candidate, merge, now)? {
                    states = candidate;
                    progress = true;
                    break;
                }
            }
        }
    }
    Ok(states)
}

/// Simpler states, the simplest first: each is smaller in one thing.
fn simpler(state: Option<&State>, now: u64) -> Vec<State> {
    let Some(State { bucket, policy, .. }) = state else {
        return Vec::new();
    };
    let with = |tokens: i64, weight: Weight, timestamp: u64| {
        State::of(Bucket::new(bucket.policy(), weight, tokens, 0, timestamp), *policy)
    };
    let (tokens, weight, timestamp) = (bucket.tokens(), bucket.weight(), bucket.timestamp());
    let mut list = Vec::new();
    if weight != Weight::ONE {
        list.push(with(tokens, Weight::ONE, timestamp));
        list.extend(
            Weight::new(u64::from(weight.get()).saturating_sub(1))
                .map(|w| with(tokens, w, timestamp)),
        );
    }
    if timestamp != now {
        list.push(with(tokens, weight, now));
        let mut credited = *bucket;
        credited.advance(now);
        list.push(with(micros(credited.remaining()), weight, now));
    }
    let whole = bucket.remaining();
    for fewer in [0, 1, 2, whole / 2, whole.saturating_sub(1)] {
        let fewer = micros(fewer);
        if fewer < tokens {
            list.push(with(fewer, weight, timestamp));
        }
    }
    list
}

/// Whole tokens in millionths.
fn micros(tokens: i64) -> i64 {
    tokens.saturating_mul(MICRO.cast_signed())
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0..=most; the bias of the remainder does not matter here.
    fn up_to(&mut self, most: u64) -> u64 {
        self.next().checked_rem(most.saturating_add(1)).unwrap_or(0)
    }

    /// A state; now and then with a number of the one before, since equal numbers
    /// are where merges go wrong.
    fn state(&mut self, policy: Policy, now: u64, before: Option<&State>) -> State {
        let capacity = policy.capacity();
        let tokens = match (self.up_to(9), before) {
            (0, _) => 0,
            (1, _) => capacity,
            (2 | 3, Some(before)) => before.bucket.remaining().unsigned_abs(),
            (4, _) => self.up_to(capacity.min(10)),
            _ => self.up_to(capacity),
        };
        let weight = match (self.up_to(3), before) {
            (0, _) => Weight::ONE,
            (1, Some(before)) => before.bucket.weight(),
            _ => Weight::new(self.up_to(9).saturating_add(1)).unwrap_or(Weight::ONE),
        };
        let timestamp = match (self.up_to(3), before) {
            (0, _) => now,
            (1, Some(before)) => before.bucket.timestamp(),
            (2, _) => now.saturating_sub(self.up_to(10).saturating_mul(1_000_000)),
            _ => now.saturating_sub(self.up_to(200).saturating_mul(1_000_000)),
        };
        let tokens = micros(tokens.cast_signed());
        State::of(Bucket::new(policy, weight, tokens, 0, timestamp), None)
    }
}
