//! Nothing that can be written into a hash or sent in a call panics: a panic
//! would be caught, but it would not be an answer.

use crate::any;
use crate::exact::{Options, q};
use crate::hash::{alone, held, parts, policy};
use claw_core::bucket::{Bucket, Demand, Wait, Weight};
use claw_core::codec::DebitsText;
use claw_core::configured::Configured;
use claw_core::decimal;
use claw_core::expiry::Expiry;
use claw_core::limits::{
    MAX_DEBT, MAX_INTERVAL_MS, MAX_MICRO_TOKENS, MAX_TIMESTAMP_US, MAX_TOKENS, MAX_VERSION,
};
use claw_core::open::OpenBucket;
use claw_core::plan::{Change, SyncMode};
use claw_core::policy::{Asked, Policy, StoredPolicy};
use claw_core::record::{Field, Record};
use claw_core::throttle;
use claw_core::timestamp;
use proptest::prelude::*;

const FIELDS: [Field; 5] =
    [Field::Tokens, Field::Timestamp, Field::Weight, Field::Policy, Field::Remainder];

/// Any bytes, and bytes that look like something.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..80),
        2 => "[0-9]{0,25}[0-9TtZz:. /+-]{0,30}".prop_map(String::into_bytes),
        2 => "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2})?[0-9.,Zz+\\[\\]A-Z:-]{0,20}"
            .prop_map(String::into_bytes),
        2 => "[0-9]{1,13} [0-9]{1,13}(\\.[0-9]{1,6})?/[0-9]{1,11}( pinned( [0-9]{1,21})?)?[ x]?"
            .prop_map(String::into_bytes),
    ]
}

fn any_u64() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => any::log_uniform(u64::MAX),
        1 => (0_u64..3).prop_map(|less| u64::MAX - less),
        1 => prop::sample::select(vec![
            MAX_TOKENS,
            MAX_MICRO_TOKENS,
            MAX_INTERVAL_MS,
            MAX_TIMESTAMP_US,
            u64::MAX / 1_000,
            u64::MAX / 1_000_000,
            i64::MAX.unsigned_abs(),
        ])
        .prop_flat_map(|edge| (edge - 2..=edge + 2).prop_map(|near| near)),
    ]
}

fn any_record() -> impl Strategy<Value = Record> {
    let option = || prop::option::of(any_u64());
    let signed = option().prop_map(|number| number.map(u64::cast_signed));
    let stored = (0..3_u8, any::terms(), option()).prop_map(|(kind, terms, version)| match kind {
        0 => None,
        1 => Some(StoredPolicy { policy: policy(terms), pin: None }),
        _ => {
            let pin = version.map(|version| version.min(MAX_VERSION));
            Some(StoredPolicy { policy: policy(terms), pin })
        }
    });
    let weight = prop::option::of(any::weight());
    (signed, option(), weight, stored, option(), any::<bool>()).prop_map(
        |(tokens, timestamp, weight, policy, remainder, foreign)| {
            let weight = weight.and_then(|weight| Weight::new(u64::from(weight)));
            Record { tokens, timestamp, weight, policy, remainder, foreign, ..Record::default() }
        },
    )
}

proptest! {
    #![proptest_config(any::cases(3_000))]

    #[test]
    fn texts(text in bytes(), now in any_u64()) {
        if let Ok(micros) = decimal::parse(&text) {
            prop_assert!(micros <= MAX_MICRO_TOKENS);
            prop_assert_eq!(decimal::parse_signed(&text), Ok(micros.cast_signed()));
        }
        if let Ok(micros) = decimal::parse_signed(&text) {
            prop_assert!((-MAX_DEBT..=MAX_MICRO_TOKENS.cast_signed()).contains(&micros));
            prop_assert_eq!(decimal::parse(&text).is_err(), text.starts_with(b"-"));
        }
        let _ = decimal::whole(&text);
        let _ = decimal::parse_refill(&text);
        if let Ok(us) = timestamp::parse(&text) {
            prop_assert!(us <= MAX_TIMESTAMP_US);
        }
        if let Ok(stored) = StoredPolicy::parse(&text) {
            prop_assert_eq!(StoredPolicy::parse(stored.to_string().as_bytes()), Ok(stored));
        }
        for field in FIELDS {
            let mut record = Record::default();
            match record.read(field, &text, now) {
                Ok(()) => prop_assert_ne!(record, Record::default()),
                Err(error) => {
                    prop_assert_eq!(record, Record::default());
                    prop_assert!(!error.to_string().is_empty());
                }
            }
        }
    }

    #[test]
    fn policies(capacity in any_u64(), refill in any_u64(), interval in any_u64()) {
        let within = capacity <= MAX_TOKENS
            && refill <= MAX_MICRO_TOKENS
            && (1..=MAX_INTERVAL_MS).contains(&interval);
        prop_assert_eq!(Policy::new(capacity, refill, interval).is_ok(), within);
        let asked = Asked { capacity: Some(capacity), refill: Some((refill, interval)) };
        prop_assert_eq!(asked.over(Policy::DEFAULT).is_ok(), within);
        prop_assert_eq!(asked.whole().is_ok(), within);
        if let Ok(policy) = throttle::policy(capacity, refill, interval) {
            prop_assert_eq!(policy.capacity(), capacity + 1);
            prop_assert_eq!(policy.refill(), refill * 1_000_000);
            prop_assert_eq!(policy.interval_ms(), interval * 1_000);
        } else {
            let seconds = MAX_INTERVAL_MS / 1_000;
            prop_assert!(
                capacity >= MAX_TOKENS
                    || !(1..=MAX_TOKENS).contains(&refill)
                    || !(1..=seconds).contains(&interval)
            );
        }
        let weight = Weight::new(capacity);
        prop_assert_eq!(weight.is_some(), (1..=10).contains(&capacity));
    }

    #[test]
    fn buckets(
        (terms, other, weight) in (any::terms(), any::terms(), any::weight()),
        (tokens, remainder, timestamp) in (any_u64(), any_u64(), any_u64()),
        calls in prop::collection::vec((0..8_u8, any_u64(), any_u64()), 0..12),
    ) {
        let weight = Weight::new(u64::from(weight)).unwrap();
        let mut bucket = Bucket::new(policy(terms), weight, tokens.cast_signed(), remainder, timestamp);
        for (call, number, now) in calls {
            // Also without the `advance` that should come before.
            let before = bucket.timestamp();
            match call {
                0 => bucket.advance(now),
                1 => {
                    let (partial, keep) = (now.is_multiple_of(2), now % 5);
                    bucket.take(Demand { tokens: number, partial, keep }, now);
                }
                2 => drop(bucket.give(number, now)),
                3 => bucket.switch(policy(other)),
                4 => bucket.debit(number),
                5 => prop_assert!(bucket.bookable() <= 2 * bucket.policy().capacity()),
                6 => drop(bucket.until_bookable(number, now)),
                _ => drop(bucket.until(number, now)),
            }
            prop_assert!(bucket.timestamp() >= before);
            prop_assert!(held(&bucket) <= q(bucket.policy().capacity()));
            prop_assert!(bucket.tokens() >= -MAX_DEBT);
            prop_assert!(bucket.remainder() < parts(bucket.policy()));
            let answer = bucket.answer(number, now);
            prop_assert!(answer.reset_after.as_millis() >= -1);
            prop_assert!(answer.reset_after.as_seconds() >= -1);
            prop_assert_eq!(bucket.us_until_full().is_none(), answer_never(&bucket));
        }
    }

    #[test]
    fn records(
        (record, default, later) in (any_record(), any::terms(), any::terms()),
        (now, changed, number) in (any_u64(), any_u64(), any_u64()),
        options in any::options(),
    ) {
        let mut defaults = Configured::new(policy(default));
        defaults.set_default(policy(later), changed);
        let _ = defaults.of(b"key").at(now);
        for record in [None, Some(record)] {
            let mut opened = OpenBucket::new(record.clone(), &defaults.of(b"key"), now);
            let Options { capacity, refill } = options;
            opened.ask(Asked { capacity, refill }.whole().unwrap());
            opened.take(Demand { tokens: number, partial: true, keep: 0 }, now, &alone()).unwrap();
            opened.settle(changed, number, now, &alone()).unwrap();
            if let Expiry::At { earliest, latest, set } = opened.expiry(false, &alone()) {
                prop_assert!(earliest <= set && set <= latest);
            }
            let plan = opened.plan(SyncMode::None, &alone(), &mut DebitsText::default()).unwrap();
            let before = record.clone().unwrap_or_default();
            let remainder = match plan.remainder {
                Change::Keep => before.remainder,
                Change::Set(remainder) => Some(remainder),
                Change::Delete => None,
            };
            let Record { tokens, timestamp, debits, foreign, .. } = opened.to_record();
            let after = Record { tokens, timestamp, remainder, debits, foreign, ..before };
            prop_assert_eq!(opened.to_record().remainder, remainder);
            if plan.changes.is_none() {
                // Then no field but these has to be written.
                prop_assert_eq!(opened.to_record(), after);
            }
            // There may be no number left for another change.
            let pinned = opened.pin(policy(default), &alone()).is_ok()
                && opened.pin(policy(later), &alone()).is_ok();
            prop_assert!(!pinned || opened.to_record().is_kept());
            let foreign = record.is_some_and(|record| record.foreign);
            if opened.reset(&alone()).is_ok() {
                prop_assert_eq!(opened.to_record().is_kept(), foreign);
            }
            prop_assert!(held(&opened.bucket()) <= q(opened.bucket().policy().capacity()));
        }
    }

    #[test]
    fn waits(ms in any_u64()) {
        let wait = Wait::Ms(ms);
        prop_assert!(wait.as_seconds() >= -1 && wait.as_millis() >= -1);
        if let Ok(expected) = i64::try_from(ms) {
            prop_assert_eq!(wait.as_millis(), expected);
            prop_assert!(wait.as_seconds().checked_mul(1_000).is_none_or(|s| s >= expected));
        }
    }
}

fn answer_never(bucket: &Bucket) -> bool {
    !bucket.is_full() && bucket.policy().refill() == 0
}
