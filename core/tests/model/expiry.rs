//! An expired key is a missing key, and a missing key is a full bucket: so a key
//! must not expire before its bucket is full.

use crate::any;
use crate::exact::{Options, Own, Terms};
use crate::hash::{Server, alone};
use claw_core::bucket::{Bucket, Weight};
use claw_core::record::Expiry;
use proptest::prelude::*;

/// Whether it takes more than 2^62 ms, which is 146 million years, to fill.
fn slow(bucket: &Bucket) -> bool {
    bucket.us_from_empty().is_none_or(|us| us > 1_000 << 62)
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
        (near, awaited) in (-3_000_i64..3_000, any::<bool>()),
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
        // The shorter way to see that an expiry may stay never says more.
        let whole = opened.to_record().expiry(&opened, awaited);
        let edges = match whole {
            Expiry::Never => vec![0, now / 1_000],
            Expiry::At { earliest, latest, set } => vec![0, earliest, set, latest],
        };
        for at in edges.iter().flat_map(|at| [*at, at.saturating_add_signed(near)]) {
            let stays = opened.expiry_may_stay(at, opened.to_record().foreign, awaited);
            prop_assert!(!stays || whole.move_from(Some(at)).is_none(), "{at} {whole:?}");
            if let Expiry::At { earliest, set, .. } = whole
                && at <= u64::MAX / 1_000
            {
                prop_assert!(stays || !(earliest..set).contains(&at), "{at} {whole:?}");
            }
        }
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

    /// What was set once is still good later, so that most writes need not move
    /// it: not while the bucket refills, and not when no more is taken than came in.
    #[test]
    fn an_expiry_stays_good_while_the_bucket_refills(
        terms in any::refilling(),
        (first, later) in (any::amount(), 0_u16..=1_000),
    ) {
        let mut server = Server::new(terms);
        let now = any::START;
        let tokens = first.of(terms.capacity, terms.capacity).max(1);
        let answer = server.take(tokens, Options::default(), true, now).unwrap();
        let Some(Expiry::At { set, .. }) = server.expiry(now).unwrap() else {
            return Ok(());
        };
        let wait = u128::from(answer.reset_after.as_millis().unsigned_abs()) * 1_000;
        let step = u64::try_from(wait * u128::from(later) / 1_000).unwrap_or(u64::MAX);
        let Some(then) = now.checked_add(step) else { return Ok(()) };
        let opened = server.open(then).unwrap();
        match opened.to_record().expiry(&opened, false) {
            Expiry::At { earliest, latest, .. } => {
                prop_assert!((earliest..=latest).contains(&set), "{earliest} {set} {latest}");
            }
            Expiry::Never => prop_assert!(false, "{set} was good enough before"),
        }
    }
}
