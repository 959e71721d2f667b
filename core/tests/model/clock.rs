//! Clocks that step, default policies that change meanwhile, and fields that
//! are missing.

use crate::any::{self, START};
use crate::exact::{Options, Terms, all, q};
use crate::hash::{Server, held, policy};
use claw_core::bucket::{Bucket, Wait};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000;
const NONE: Options = Options { capacity: None, refill: None };

fn per_second(capacity: u64, refill: u64) -> Terms {
    Terms { capacity, refill: refill * 1_000_000, interval: 1_000 }
}

#[test]
fn a_step_back_neither_credits_nor_loses() {
    let mut server = Server::new(per_second(10, 1));
    assert_eq!(server.take(all(10), NONE, START).unwrap().taken, 10);
    // The clock is set back by ten seconds: nothing happens until it has caught
    // up, and the waits say so.
    let back = START - 10 * SECOND;
    let answer = server.take(all(1), NONE, back).unwrap();
    assert_eq!((answer.taken, answer.remaining), (0, 0));
    assert_eq!((answer.retry_after, answer.reset_after), (Wait::Ms(11_000), Wait::Ms(20_000)));
    assert_eq!(server.take(all(1), NONE, START).unwrap().retry_after, Wait::Ms(1_000));
    assert_eq!(server.take(all(1), NONE, START + SECOND).unwrap().taken, 1);
}

#[test]
fn a_step_ahead_credits_up_to_the_capacity() {
    let mut server = Server::new(per_second(10, 1));
    server.take(all(10), NONE, START).unwrap();
    let answer = server.peek(0, NONE, START + 5 * SECOND).unwrap();
    assert_eq!(answer.remaining, 5);
    let answer = server.peek(0, NONE, START + 5_000_000 * SECOND).unwrap();
    assert_eq!((answer.remaining, answer.reset_after), (10, Wait::Ms(0)));
}

/// A call can only be told how long to wait when the wait begins somewhere: a
/// bucket that somebody makes with `HSET key tokens 0` has to begin to refill.
#[test]
fn a_bucket_without_a_timestamp_refills_too() {
    let mut server = Server::with(per_second(1_000, 5), &[("tokens", "0".to_owned())]);
    let answer = server.take(all(1), NONE, START).unwrap();
    assert_eq!((answer.taken, answer.retry_after), (0, Wait::Ms(200)));
    let answer = server.take(all(1), NONE, START + 200_000).unwrap();
    assert_eq!(answer.taken, 1, "waited as long as told");
}

/// `CONFIG SET claw.max-tokens 1000` while it was 10, and then the clock is set
/// back by a second. The new capacity is in force; nothing may be lost.
#[test]
fn a_clock_set_back_behind_a_new_default_loses_nothing() {
    let mut server = Server::new(per_second(10, 1));
    server.defaults.set_default(policy(per_second(1_000, 1)), START);
    let back = START - SECOND;
    let answer = server.take(all(1), NONE, back).unwrap();
    assert_eq!((answer.capacity, answer.remaining), (1_000, 999));
    let answer = server.take(all(1), NONE, back).unwrap();
    assert_eq!((answer.capacity, answer.remaining), (1_000, 998));
}

/// The same the other way round: the new rate is in force, not the old one.
#[test]
fn a_clock_set_back_behind_a_new_default_credits_at_the_new_rate() {
    let mut server = Server::new(per_second(1_000, 1_000));
    server.defaults.set_default(policy(per_second(1_000, 0)), START);
    let back = START - SECOND;
    let answer = server.take(all(1_000), NONE, back).unwrap();
    assert_eq!((answer.taken, answer.reset_after), (1_000, Wait::Never));
    let answer = server.peek(1, NONE, START).unwrap();
    assert_eq!(answer.remaining, 0, "this bucket never refills");
}

proptest! {
    #![proptest_config(any::cases(1_000))]

    /// Between a call that was saved and the next one, only the policy in force
    /// counts: nothing is lost, and no more is gained than at its rate.
    #[test]
    fn a_clock_set_back_behind_new_defaults(
        (server, exact) in any::pair(),
        changes in prop::collection::vec((any::log_uniform(1 << 40), any::terms()), 1..4),
        back in any::log_uniform(1 << 40),
        calls in prop::collection::vec((any::monotone(), any::amount()), 1..20),
    ) {
        let (mut server, mut now) = (server, START);
        now = exact.bucket.as_ref().map_or(now, |line| line.at.max(now));
        for (step, terms) in changes {
            now += step.max(1);
            let terms = Terms { interval: exact.default.interval, ..terms };
            server.defaults.set_default(policy(terms), now);
        }
        now -= back;
        let (mut waits, mut saved) = ((0, 0), None);
        for (tick, amount) in calls {
            now = tick.after(now, waits.0, waits.1);
            let bucket = server.ask(NONE, now).unwrap().bucket();
            if let Some((then, before)) = saved {
                let terms = terms_of(&bucket);
                let gained = terms.rate(bucket.weight().get()) * q(now - then);
                prop_assert!(held(&bucket) >= before);
                prop_assert!(held(&bucket) <= (before + gained).min(terms.capacity()));
            }
            let tokens = amount.of(bucket.remaining(), bucket.policy().capacity());
            let answer = server.take(all(tokens), NONE, now).unwrap();
            prop_assert_eq!(answer.remaining, bucket.remaining() - answer.taken.cast_signed());
            waits = (answer.retry_after.as_millis(), answer.reset_after.as_millis());
            saved = (answer.taken > 0).then(|| (now, held(&bucket) - q(answer.taken)));
        }
    }
}

fn terms_of(bucket: &Bucket) -> Terms {
    let policy = bucket.policy();
    let (capacity, refill) = (policy.capacity(), policy.refill());
    Terms { capacity, refill, interval: policy.interval_ms() }
}
