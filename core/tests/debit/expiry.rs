//! A key that does not have its expiry looked at with every take expires late enough
//! all the same.

use crate::any::{START, cases};
use claw_core::bucket::Weight;
use claw_core::codec::{self, DebitsText, decode_debits};
use claw_core::debit::{Debits, Region, Stretch};
use claw_core::defaults::Defaults;
use claw_core::policy::Policy;
use claw_core::record::{Expiry, LEAST_LINGER_US, OpenBucket, Record};
use claw_core::replica::Writer;
use proptest::prelude::*;

/// What happens to the key after some time, in microseconds.
#[derive(Debug, Clone)]
enum Event {
    /// A take of so many tokens, or of what there is.
    Take(u64),
    /// Somebody writes the tokens, in millionths, and the timestamp if it is not so far
    /// from the present.
    Write(u64, Option<i64>),
    /// The policy is pinned, or no longer.
    Pin(bool),
    /// Some region begins or ceases to lack what was counted.
    Await(bool),
    /// The walk over all shared buckets comes by, which moves the expiry and writes
    /// nothing.
    Walk,
}

fn event() -> impl Strategy<Value = (u64, Event)> {
    let wait = prop_oneof![
        4 => 0..2_000_000_u64,
        2 => 0..20_000_000_u64,
        1 => 0..120_000_000_u64,
        1 => 0..3_600_000_000_u64,
    ];
    let tokens = prop_oneof![3 => 1..4_u64, 1 => 1..100_u64];
    let at = prop_oneof![-10_000_000_i64..10_000_000, -3_600_000_000_i64..3_600_000_000];
    let at = prop::option::of(at);
    let event = prop_oneof![
        12 => tokens.prop_map(Event::Take),
        2 => (0..=100_000_000_u64, at).prop_map(|(tokens, at)| Event::Write(tokens, at)),
        1 => any::<bool>().prop_map(Event::Pin),
        1 => any::<bool>().prop_map(Event::Await),
        2 => Just(Event::Walk),
    ];
    (wait, event)
}

/// A shared bucket and when its key expires, in unix milliseconds.
struct Key {
    record: Record,
    expires: Option<u64>,
    /// Nobody has taken since somebody wrote it.
    by_hand: bool,
}

proptest! {
    #![proptest_config(cases(3_000))]

    #[test]
    fn a_key_outlives_its_bucket(
        (refill, begin) in (0..200_000_000_u64, START..START + 20 * Stretch::US),
        events in prop::collection::vec(event(), 1..60),
    ) {
        let policy = Policy::new(100, refill, 1_000).unwrap();
        let defaults = Defaults::new(policy);
        let writer = Writer::new("here".parse().unwrap(), 7);
        let region = Region { writer: Some(writer), ..Region::default() };
        let (mut now, mut key, mut awaited) = (begin, None::<Key>, false);
        for (wait, event) in events {
            now += wait;
            let expired = key.take_if(|key| key.expires.is_some_and(|at| at <= now / 1_000));
            if let Some(Key { record, expires, by_hand: false }) = expired {
                let at = expires.unwrap() * 1_000;
                let opened = OpenBucket::shared(Some(record), &defaults, &region, at);
                prop_assert!(opened.as_shared().unwrap().is_full());
            }
            let (record, expires, by_hand) = match key.take() {
                Some(key) => (Some(key.record), key.expires, key.by_hand),
                None => (None, None, false),
            };
            let mut opened = OpenBucket::shared(record, &defaults, &region, now);
            match event {
                Event::Take(tokens) => {
                    opened.take(tokens, true, now, &region);
                }
                Event::Pin(true) => opened.pin(policy, &region),
                Event::Pin(false) => opened.reset(policy, &region),
                Event::Await(is) => awaited = is,
                Event::Walk => {
                    if let Some(record) = opened.record() {
                        let expiry = opened.to_record().expiry(&opened, awaited);
                        let expires = expiry.move_from(expires).unwrap_or(expires);
                        let debits = record.debits.as_ref().map(|debits| {
                            // The accounts of an open bucket are elsewhere.
                            let accounts = opened.as_shared().unwrap().accounts().to_vec();
                            Debits { accounts, ..(**debits).clone() }.into()
                        });
                        let record = Record { debits, ..record.clone() };
                        key = Some(Key { record, expires, by_hand });
                    }
                    continue;
                }
                Event::Write(tokens, at) => {
                    if let Some(record) = opened.record() {
                        let by_hand = at.map(|at| now.saturating_add_signed(at));
                        let record = Record {
                            tokens: Some(tokens),
                            timestamp: by_hand.or(record.timestamp),
                            ..record.clone()
                        };
                        let debits = Some(opened.as_shared().unwrap().debits().into());
                        let record = Record { debits, ..record };
                        key = Some(Key { record, expires, by_hand: true });
                    }
                    continue;
                }
            }
            let mut present = opened.record().and(expires);
            if opened.looks_at_expiry(false, awaited) {
                let expiry = opened.to_record().expiry(&opened, awaited);
                present = expiry.move_from(present).unwrap_or(present);
            }
            let shared = opened.as_shared().unwrap();
            match (opened.to_record().expiry(&opened, awaited), shared.us_until_full()) {
                (Expiry::At { .. }, Some(wait)) => {
                    let full = u128::from(shared.timestamp()) + wait;
                    let expires = u128::from(present.unwrap()) * 1_000;
                    prop_assert!(full + u128::from(LEAST_LINGER_US) <= expires);
                }
                (Expiry::Never, _) => prop_assert_eq!(present, None),
                other => prop_assert!(false, "{:?}", other),
            }
            let mut text = DebitsText::default();
            codec::encode_debits(shared, &mut text);
            let debits = decode_debits(text.as_bytes().unwrap()).map(Box::new);
            prop_assert_eq!(debits.as_deref(), Some(&shared.debits()));
            let record = Record { debits, ..opened.to_record() };
            key = Some(Key { record, expires: present, by_hand: false });
        }
    }
}

#[test]
fn who_takes_often_looks_once_in_a_stretch() {
    let policy = Policy::new(100, 10_000_000, 1_000).unwrap();
    let defaults = Defaults::new(policy);
    let region =
        Region { writer: Some(Writer::new("here".parse().unwrap(), 7)), ..Region::default() };
    let begin = START / Stretch::US * Stretch::US;
    let mut record = None;
    let mut looks = Vec::new();
    for second in 0..20 {
        let now = begin + second * 1_000_000;
        let mut opened = OpenBucket::shared(record.take(), &defaults, &region, now);
        opened.take(1, false, now, &region);
        looks.push(opened.looks_at_expiry(false, false));
        let debits = Some(opened.as_shared().unwrap().debits().into());
        record = Some(Record { debits, ..opened.to_record() });
    }
    let looked: Vec<usize> = (0..20).filter(|second| looks[*second]).collect();
    assert_eq!(looked, [0, 9, 17]);
    // Who asks for much, whose key is kept, or who is awaited looks each time.
    let now = begin + 19_000_000;
    let open = || OpenBucket::shared(record.clone(), &defaults, &region, now);
    assert!(!open().looks_at_expiry(false, false));
    assert!(open().looks_at_expiry(true, false));
    assert!(open().looks_at_expiry(false, true));
    let mut opened = open();
    opened.set_weight(Weight::new(2).unwrap(), &region);
    assert!(opened.looks_at_expiry(false, false));
    let slow = Policy::new(100, 1_000_000, 1_000).unwrap();
    let mut opened = OpenBucket::shared(record.clone(), &Defaults::new(slow), &region, now);
    opened.take(20, false, now, &region);
    assert!(opened.looks_at_expiry(false, false));
    // Alone, nobody looks after it but the takes.
    let plain = Record { debits: None, ..record.clone().unwrap() };
    let mut opened = OpenBucket::new(Some(plain), &defaults, now);
    assert!(opened.looks_at_expiry(false, false) && opened.looks_at_expiry(false, false));
}
