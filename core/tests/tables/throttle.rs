//! `CL.THROTTLE key max_burst count period [quantity]` answers
//! `[limited, limit, remaining, retry_after, reset_after]` in seconds.

use crate::alone;
use claw_core::bucket::Demand;
use claw_core::configured::Configured;
use claw_core::limits::MAX_TOKENS;
use claw_core::open::OpenBucket;
use claw_core::policy::Policy;
use claw_core::record::Record;
use claw_core::throttle::{self, ThrottleError};

const START: u64 = 1_773_914_400_000_000;

/// One key, called as `max_burst count period` says.
struct Throttle {
    terms: (u64, u64, u64),
    key: Option<Record>,
}

impl Throttle {
    fn new(max_burst: u64, count: u64, period: u64) -> Self {
        Self { terms: (max_burst, count, period), key: None }
    }

    /// A call as the module makes it; a negative quantity gives back.
    fn call(&mut self, quantity: i64, now: u64) -> [i64; 5] {
        let (max_burst, count, period) = self.terms;
        let policy = throttle::policy(max_burst, count, period).unwrap();
        let mut opened =
            OpenBucket::new(self.key.clone(), &Configured::new(Policy::DEFAULT).of(b"key"), now);
        opened.ask(Some(policy));
        let before = opened.bucket().tokens();
        let amount = quantity.unsigned_abs();
        let (limited, answer) = if quantity < 0 {
            (false, opened.give(amount, now, &alone()).unwrap())
        } else {
            let answer = opened.take(Demand::all(amount), now, &alone()).unwrap();
            (answer.taken < amount, answer)
        };
        if opened.bucket().tokens() != before {
            self.key = Some(opened.to_record());
        }
        [
            i64::from(limited),
            i64::try_from(answer.capacity).unwrap(),
            answer.remaining.max(0),
            if limited { answer.retry_after.as_seconds() } else { -1 },
            answer.reset_after.as_seconds(),
        ]
    }
}

/// As redis-cell 0.5.0 answers `CL.THROTTLE key 15 30 60 [quantity]`, one call
/// after the other on a fresh key, a moment apart.
#[test]
fn redis_cell_says() {
    let table = [
        (0, [0, 16, 16, -1, 0]),
        (1, [0, 16, 15, -1, 2]),
        (1, [0, 16, 14, -1, 4]),
        (17, [1, 16, 14, -1, 4]),
        (16, [1, 16, 14, 4, 4]),
        (-1, [0, 16, 15, -1, 2]),
    ];
    for us_between in [0, 1, 1_000, 20_000] {
        let (mut throttle, mut now) = (Throttle::new(15, 30, 60), START);
        for (quantity, reply) in table {
            assert_eq!(throttle.call(quantity, now), reply, "quantity {quantity}");
            // Quantity 0 is a peek: no key left behind.
            assert_eq!(throttle.key.is_none(), quantity == 0);
            now += us_between;
        }
    }
}

/// redis-cell says 6024 of 6001 remaining.
#[test]
fn six_thousand_a_second_right_to_the_last_token() {
    let mut throttle = Throttle::new(6_000, 6_000, 1);
    for left in (0..=6_000).rev() {
        let reset = if left == 0 { 2 } else { 1 };
        assert_eq!(throttle.call(1, START), [0, 6_001, left, -1, reset]);
    }
    assert_eq!(throttle.call(1, START), [1, 6_001, 0, 1, 2]);
    // Each token comes back after the 6000th part of a second.
    assert_eq!(throttle.call(1, START + 166), [1, 6_001, 0, 1, 2]);
    assert_eq!(throttle.call(1, START + 167), [0, 6_001, 0, -1, 2]);
    assert_eq!(throttle.call(1, START + 333), [1, 6_001, 0, 1, 2]);
    assert_eq!(throttle.call(1, START + 334), [0, 6_001, 0, -1, 2]);
    assert_eq!(throttle.call(6_000, START + 1_000_333), [1, 6_001, 5_999, 1, 1]);
    assert_eq!(throttle.call(6_000, START + 1_000_334), [0, 6_001, 0, -1, 2]);
}

/// A token every half microsecond: finer than the clock.
#[test]
fn two_million_a_second_right_to_the_last_token() {
    let mut throttle = Throttle::new(5, 2_000_000, 1);
    for left in (0..=5).rev() {
        assert_eq!(throttle.call(1, START), [0, 6, left, -1, 1]);
    }
    assert_eq!(throttle.call(1, START), [1, 6, 0, 1, 1]);
    assert_eq!(throttle.call(1, START + 1), [0, 6, 1, -1, 1]);
    assert_eq!(throttle.call(1, START + 1), [0, 6, 0, -1, 1]);
    assert_eq!(throttle.call(1, START + 1), [1, 6, 0, 1, 1]);
    assert_eq!(throttle.call(6, START + 3), [1, 6, 4, 1, 1]);
    assert_eq!(throttle.call(6, START + 4), [0, 6, 0, -1, 1]);
}

/// Whoever waits for `retry_after` seconds succeeds.
#[test]
fn a_wait_always_succeeds() {
    for (burst, count, period) in [(15, 30, 60), (0, 7, 3), (5, 1, 31_622_400), (99, 997, 60)] {
        let mut throttle = Throttle::new(burst, count, period);
        let all = i64::try_from(burst).unwrap() + 1;
        assert_eq!(throttle.call(all, START)[0], 0);
        let [limited, _, _, retry, _] = throttle.call(all, START);
        assert_eq!(limited, 1);
        let then = START + retry.unsigned_abs() * 1_000_000;
        assert_eq!(throttle.call(all, then)[0], 0, "{burst} {count} {period}");
    }
}

#[test]
fn the_arguments_are_a_policy() {
    use ThrottleError::{Count, MaxBurst, Period};
    let table: &[(u64, u64, u64, Result<&str, ThrottleError>)] = &[
        (15, 30, 60, Ok("16 30/60000")),
        (0, 1, 1, Ok("1 1/1000")),
        (MAX_TOKENS - 1, MAX_TOKENS, 31_622_400, Ok("1000000000000 1000000000000/31622400000")),
        (MAX_TOKENS, 1, 1, Err(MaxBurst)),
        (u64::MAX, 1, 1, Err(MaxBurst)),
        (15, 0, 60, Err(Count)),
        (15, MAX_TOKENS + 1, 60, Err(Count)),
        (15, u64::MAX, 60, Err(Count)),
        (15, 30, 0, Err(Period)),
        (15, 30, 31_622_401, Err(Period)),
        (15, 30, u64::MAX, Err(Period)),
    ];
    for (max_burst, count, period, expected) in table {
        let policy = throttle::policy(*max_burst, *count, *period)
            .map(|policy| claw_core::policy::StoredPolicy { policy, pin: None }.to_string());
        assert_eq!(policy.as_deref(), expected.as_deref(), "{max_burst} {count} {period}");
    }
}
