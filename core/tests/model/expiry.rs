//! An expired key is a missing key, and a missing key is a full bucket: so a key
//! must not expire before its bucket is full.

use crate::any;
use crate::exact::{Options, Own, Terms};
use crate::hash::{Server, alone};
use claw_core::bucket::{Bucket, Weight};
use claw_core::expiry::Expiry;
use proptest::prelude::*;

/// Whether it is full only after a hundred thousand years.
fn slow(bucket: &Bucket) -> bool {
    bucket.us_until_full().is_none_or(|us| us > 3_155_760_000_000_000_000)
}

/// However long it takes from empty, what is full soon may expire soon.
#[test]
fn a_vast_bucket_expires_too() {
    // A trillion tokens, of which 0.000001 comes back in 10 ms.
    let terms = Terms { capacity: 1_000_000_000_000, refill: 1, interval: 10 };
    let mut server = Server::new(terms);
    server.take(1, Options::default(), false, any::START).unwrap();
    let expiry = server.expiry(any::START).unwrap();
    assert!(matches!(expiry, Some(Expiry::At { .. })), "full in 116 days, but {expiry:?}");
}

proptest! {
    #![proptest_config(any::cases(1_500))]

    #[test]
    fn a_key_expires_when_its_bucket_is_full(
        (server, exact) in any::pair(),
        amount in any::amount(),
        lag in any::log_uniform(1 << 45),
    ) {
        let mut server = server;
        let now = any::START + lag;
        // The same policy as before, so that it stays what it is.
        let before = server.open(now).unwrap();
        let options = before.policy().map_or(Options::default(), |stored| Options {
            capacity: Some(stored.policy.capacity()),
            refill: Some((stored.policy.refill(), stored.policy.interval_ms())),
        });
        let tokens = amount.of(before.remaining(&alone()), before.bucket().policy().capacity());
        server.take(tokens, options, true, now).unwrap();
        let own = exact.bucket.as_ref().map_or(Own::Default, |line| line.own);
        let weight = before.bucket().weight();
        let foreign = server.key.as_ref().is_some_and(|fields| fields.contains_key("note"));
        let kept = foreign || matches!(own, Own::Pinned(_)) || weight != Weight::ONE;

        let opened = server.open(now).unwrap();
        let bucket = opened.bucket();
        let full_at = |us| {
            let mut later = bucket;
            later.advance(us);
            later.is_full()
        };
        match server.expiry(now).unwrap() {
            None => prop_assert!(server.key.is_none()),
            Some(Expiry::Never) => {
                prop_assert!(kept || !full_at(u64::MAX) || slow(&bucket));
            }
            Some(Expiry::At { earliest, latest, set }) => {
                prop_assert!(!kept);
                prop_assert!(earliest <= set && set <= latest);
                // The bucket is what a missing key would be, and was not before.
                let Some(then) = earliest.checked_mul(1_000) else { return Ok(()) };
                let mut expired = bucket;
                expired.advance(then);
                prop_assert_eq!(expired, Bucket::full(bucket.policy(), weight, then));
                if !bucket.is_full() {
                    prop_assert!(!full_at(then - 1_000));
                }
            }
        }
    }

    /// What was set once is still good for half of the time that the bucket refills, so that most
    /// writes need not move it.
    #[test]
    fn an_expiry_stays_good_while_the_bucket_refills(
        terms in any::refilling(),
        (first, later) in (any::amount(), 0_u16..=500),
    ) {
        let mut server = Server::new(terms);
        let now = any::START;
        let tokens = first.of(terms.capacity, terms.capacity).max(1);
        let answer = server.take(tokens, Options::default(), true, now).unwrap();
        let Some(Expiry::At { set, .. }) = server.expiry(now).unwrap() else {
            return Ok(());
        };
        let wait = u128::from(answer.reset_after.as_millis().unsigned_abs()) * 1_000;
        let step = u64::try_from(wait * u128::from(later) / 1_000).unwrap();
        let Some(then) = now.checked_add(step) else { return Ok(()) };
        let opened = server.open(then).unwrap();
        match opened.expiry(false, &alone()) {
            Expiry::At { earliest, latest, .. } => {
                prop_assert!((earliest..=latest).contains(&set), "{earliest} {set} {latest}");
            }
            Expiry::Never => prop_assert!(false, "{set} was good enough before"),
        }
    }
}
