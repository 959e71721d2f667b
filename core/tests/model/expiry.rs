//! An expired key is a missing key, and a missing key is a full bucket: so a key
//! must not expire before its bucket is full.

use crate::any;
use crate::exact::{Options, Own, Terms, all, partial};
use crate::hash::{Server, alone};
use claw_core::bucket::{Bucket, Demand, Wait, Weight};
use claw_core::configured::Configured;
use claw_core::debits::{Debits, Region};
use claw_core::expiry::Expiry;
use claw_core::open::OpenBucket;
use claw_core::policy::{Policy, StoredPolicy};
use claw_core::record::Record;
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
    server.take(all(1), Options::default(), any::START).unwrap();
    let expiry = server.expiry(any::START).unwrap();
    assert!(matches!(expiry, Some(Expiry::At { .. })), "full in 116 days, but {expiry:?}");
}

/// A bucket whose refill becomes 0 loses its expiry once; what it has later is its user's.
#[test]
fn a_bucket_that_never_refills_keeps_the_expiry_of_its_user() {
    let with = |refill: u64| Policy::new(10, refill * 1_000_000, 1_000).unwrap();
    let stored = |refill, pin| Some(StoredPolicy { policy: with(refill), pin });
    // The default's refill; what is stored, if the key is there; the refill that a call brings.
    let table = [
        (5, None, Some(0), Expiry::Never),
        (0, None, None, Expiry::Never),
        (5, Some(None), Some(0), Expiry::Never),
        (5, Some(stored(5, None)), Some(0), Expiry::Never),
        (5, Some(stored(0, None)), None, Expiry::Own),
        (5, Some(stored(0, None)), Some(0), Expiry::Own),
        (0, Some(None), None, Expiry::Own),
        (0, Some(None), Some(0), Expiry::Own),
        // Also where it is kept for its pin.
        (5, Some(stored(0, Some(3))), None, Expiry::Own),
        (5, Some(stored(5, Some(3))), Some(0), Expiry::Never),
    ];
    for (default, key, called, expected) in table {
        for shared in [false, true] {
            let record = key.map(|policy| Record {
                tokens: Some(5_000_000),
                timestamp: Some(any::START),
                policy,
                debits: shared.then(Box::<Debits>::default),
                ..Record::default()
            });
            let defaults = Configured::new(with(default));
            let region = Region::default();
            let mut opened = match shared {
                true => OpenBucket::shared(record, &defaults.of(b"key"), &region, any::START, None),
                false => OpenBucket::new(record, &defaults.of(b"key"), any::START),
            };
            opened.ask(called.map(with));
            opened.take(Demand::all(1), any::START, &region).unwrap();
            let expiry = opened.expiry(false, &region);
            assert_eq!(expiry, expected, "{default} {key:?} {called:?} {shared}");
            let moved = expiry.move_from(Some(7));
            assert_eq!(moved, if expected == Expiry::Own { None } else { Some(None) });
            assert_eq!((expiry.move_from(None), expiry.mend_from(Some(7), false)), (None, None));
        }
    }
    // As soon as it refills, it is ours again.
    let policy = stored(0, None);
    let record = Record { tokens: Some(5_000_000), policy, ..Record::default() };
    let mut opened =
        OpenBucket::new(Some(record), &Configured::new(with(5)).of(b"key"), any::START);
    opened.ask(Some(with(5)));
    assert!(matches!(opened.expiry(false, &alone()), Expiry::At { .. }));
}

/// What a call blocks is remembered for one interval, and a debt for as long as it takes.
#[test]
fn how_long_a_block_is_remembered() {
    let hour = 3_600_000;
    let block = |refill| Options { capacity: Some(0), refill: Some((refill, hour)) };
    // What is owed in hours of refill; refill; hours until it may go.
    let table = [
        (0, 1_000_000, Some(1)),
        (0, 0, Some(1)),
        (1, 1_000_000, Some(1)),
        (7, 1_000_000, Some(7)),
        (7, 0, None),
    ];
    for (owed, refill, hours) in table {
        let mut server = Server::new(Terms { capacity: 10, refill: 1_000_000, interval: hour });
        if owed > 0 {
            server.settle((0, 10 + owed), Options::default(), any::START).unwrap();
        }
        let mut opened = server.ask(block(refill), any::START).unwrap();
        assert!(opened.terms_changed(), "it is remembered");
        let earliest = match opened.expiry(false, &alone()) {
            Expiry::At { earliest, .. } => Some((earliest - any::START / 1_000) / hour),
            _ => None,
        };
        assert_eq!(earliest, hours, "{owed} {refill}");
        // Who says nothing of a policy is blocked meanwhile.
        for options in [block(refill), Options::default()] {
            let answer = server.take(all(1), options, any::START).unwrap();
            assert_eq!((answer.taken, answer.retry_after), (0, Wait::Never));
        }
        opened.pin(opened.bucket().policy(), &alone()).unwrap();
        assert_eq!(opened.expiry(false, &alone()), Expiry::Never, "pinned for good");
    }
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
        server.take(partial(tokens), options, now).unwrap();
        let own = exact.bucket.as_ref().map_or(Own::Configured, |line| line.own);
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
        let blocks = bucket.policy().capacity() == 0 && matches!(own, Own::Called(_));
        let dry = bucket.policy().refill() == 0;
        match server.expiry(now).unwrap() {
            None => prop_assert!(server.key.is_none()),
            // It never refilled, and no call has blocked it for a time.
            Some(Expiry::Own) => prop_assert!(dry && !blocks),
            Some(Expiry::Never) => {
                prop_assert!(!dry || blocks);
                prop_assert!(kept || !full_at(u64::MAX) || slow(&bucket));
            }
            Some(Expiry::At { earliest, latest, set }) => {
                prop_assert!(!kept);
                prop_assert!(!dry || blocks);
                prop_assert!(earliest <= set && set <= latest);
                // The bucket is what a missing key would be, and was not before.
                let Some(then) = earliest.checked_mul(1_000) else { return Ok(()) };
                let mut expired = bucket;
                expired.advance(then);
                prop_assert_eq!(expired, Bucket::full(bucket.policy(), weight, then));
                let interval = if blocks { bucket.policy().interval_us().get() } else { 0 };
                let remembered = bucket.timestamp() + interval;
                prop_assert!(remembered <= then);
                if !bucket.is_full() && then - 1_000 >= remembered {
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
        let tokens = first.of(terms.capacity.cast_signed(), terms.capacity).max(1);
        let answer = server.take(partial(tokens), Options::default(), now).unwrap();
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
            other => prop_assert!(false, "{set} was good enough before, but {other:?}"),
        }
    }
}
