//! A hash with any fields at all, opened, used and written, can be read again:
//! `cargo +nightly fuzz run record`
//!
//! The input is lines: the fields, then the policy of a call, then what is
//! done, a letter and a number each.

#![no_main]

use claw_core::bucket::{Answer, Demand, Weight};
use claw_core::debits::Region;
use claw_core::decimal::{self, Decimal};
use claw_core::configured::Configured;
use claw_core::limits::{MAX_DEBT, MAX_LEAD_US, MAX_TOKENS};
use claw_core::policy::{Asked, Policy, StoredPolicy};
use claw_core::expiry::Expiry;
use claw_core::open::OpenBucket;
use claw_core::record::{Field, Record};
use libfuzzer_sys::fuzz_target;

const NOW: u64 = 1_773_914_400_000_000;
const FIELDS: [Field; 5] =
    [Field::Tokens, Field::Timestamp, Field::Weight, Field::Policy, Field::Remainder];

fuzz_target!(|data: &[u8]| {
    let mut lines = data.split(|byte| *byte == b'\n');
    let mut record = Record::default();
    for field in FIELDS {
        let Some(text) = lines.next() else { return };
        let before = record.clone();
        if !text.is_empty() && record.read(field, text, NOW).is_err() {
            assert_eq!(record, before, "a bad text leaves the record alone");
        }
    }
    let Some(terms) = lines.next() else { return };
    let asked = StoredPolicy::parse(terms).map_or(Asked::default(), |stored| Asked {
        capacity: Some(stored.policy.capacity()),
        refill: Some((stored.policy.refill(), stored.policy.interval_ms())),
    });
    let alone = Region::default();
    let mut defaults = Configured::new(Policy::DEFAULT);
    let mut record = (!terms.starts_with(b"!")).then_some(record);
    let mut now = NOW;
    for line in lines {
        let Some((action, number)) = line.split_first() else { continue };
        let number = decimal::digits(number).unwrap_or(1);
        let tokens = number.min(MAX_TOKENS);
        let mut opened = OpenBucket::new(record.clone(), &defaults.of(b"key"), now);
        check(&opened, record.is_none(), now);
        match action {
            b't' | b'p' => {
                opened.ask(asked.whole().expect("the policy is within its bounds"));
                let partial = *action == b'p';
                // Of every third call, a reserve.
                let keep = if number % 3 == 0 { number % 10 } else { 0 };
                let held = opened.remaining(&alone).max(0).unsigned_abs().saturating_sub(keep);
                let answer = opened.take(Demand { tokens, partial, keep }, now, &alone).unwrap();
                let due = if partial { tokens.min(held) } else { tokens };
                assert_eq!(answer.taken, if due <= held { due } else { 0 });
                check_answer(&answer, &opened);
            }
            b's' => {
                let before = opened.bucket().tokens();
                let answer = opened.settle(7, tokens, now, &alone).unwrap();
                let (after, capacity) = (opened.bucket().tokens(), opened.bucket().policy().capacity_micros());
                assert!(answer.taken <= tokens.abs_diff(7));
                assert!(after >= before.min(-capacity), "no more is booked than the capacity");
                check_answer(&answer, &opened);
            }
            b'g' => {
                let answer = opened.give(tokens, now, &alone).unwrap();
                assert!(answer.taken <= tokens);
                check_answer(&answer, &opened);
            }
            b'n' => {
                let policy = asked.over(opened.bucket().policy()).expect("within its bounds");
                // A record may have the last version there is.
                let _ = opened.pin(policy, &alone);
            }
            b'w' => {
                let _ = opened.set_weight(Weight::new(number).unwrap_or(Weight::ONE), &alone);
            }
            b'r' => {
                let _ = opened.reset(&alone);
            }
            b'd' => {
                let policy = asked.over(defaults.default_policy()).expect("within its bounds");
                defaults.set_default(policy, now);
                continue;
            }
            // The clock goes on, or is set back a little.
            b'+' => now = now.saturating_add(number).min(NOW * 100),
            b'-' => now = now.saturating_sub(number.min(MAX_LEAD_US / 100)).max(NOW / 2),
            _ => continue,
        }
        record = Some(written(&opened, now));
    }
});

fn check(opened: &OpenBucket, missing: bool, now: u64) {
    let bucket = opened.bucket();
    assert!(bucket.tokens() <= bucket.policy().capacity_micros());
    assert!(bucket.timestamp() >= now, "it is credited up to now");
    assert!(!missing || bucket.is_full(), "what is missing is full");
}

fn check_answer(answer: &Answer, opened: &OpenBucket) {
    assert_eq!(answer.capacity, opened.bucket().policy().capacity());
    assert!(answer.remaining <= answer.capacity.cast_signed());
    assert!(answer.retry_after.as_millis() >= -1);
    assert!(answer.reset_after.as_millis() >= -1);
    assert_eq!(answer.reset_after.as_millis() == 0, opened.bucket().is_full());
}

/// The record as it comes back from its texts.
fn written(opened: &OpenBucket, now: u64) -> Record {
    let record = opened.to_record();
    let texts = [
        record.tokens.map(|tokens| Decimal::signed(tokens).to_string()),
        record.timestamp.map(|timestamp| timestamp.to_string()),
        record.weight.map(|weight| weight.get().to_string()),
        record.policy.map(|stored| stored.to_string()),
        record.remainder.map(|remainder| remainder.to_string()),
    ];
    let mut again = Record::default();
    for (field, text) in FIELDS.into_iter().zip(texts) {
        if let Some(text) = text {
            // A clock set back does not make it unreadable: only far ahead is.
            let at = now.max(record.timestamp.unwrap_or(0));
            again.read(field, text.as_bytes(), at).expect("what is written can be read");
        }
    }
    assert_eq!(again, record);
    // No part of a millionth is lost on the way.
    let (mut whole, mut halves) = (opened.bucket(), opened.bucket());
    whole.advance(now.saturating_add(1_000_001));
    halves.advance(now.saturating_add(333));
    halves.advance(now.saturating_add(1_000_001));
    assert_eq!(whole, halves);
    if let Expiry::At { earliest, latest, set } = opened.expiry(false, &Region::default()) {
        assert!(earliest <= set && set <= latest);
        // By then it is full.
        if let Some(then) = earliest.checked_mul(1_000) {
            let mut later = opened.bucket();
            later.advance(then);
            assert!(later.is_full());
        }
    }
    assert!(opened.bucket().tokens() >= -MAX_DEBT);
    record
}
