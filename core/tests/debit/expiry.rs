//! The key of a shared bucket outlives its bucket, and not for long.

use crate::any::{START, cases};
use claw_core::bucket::Demand;
use claw_core::codec::{self, DebitsText};
use claw_core::configured::Configured;
use claw_core::debits::Region;
use claw_core::expiry::{Expiry, LEAST_LINGER_US, MOST_LINGER_US};
use claw_core::membership::{Instants, Membership, PartitionPolicy, WHOLE};
use claw_core::open::OpenBucket;
use claw_core::policy::Policy;
use claw_core::record::{Field, Record};
use claw_core::replica::Writer;
use proptest::prelude::*;

/// What happens to the key after some time, in microseconds.
#[derive(Debug, Clone)]
enum Event {
    /// A take of so many tokens, or of what there is.
    Take(u64),
    /// So many tokens more were used than taken.
    Settle(u64),
    /// So many tokens are given back.
    Give(u64),
    /// The policy is pinned, or no longer.
    Pin(bool),
    /// This region hears its peer no more, or does again.
    Hears(bool),
    /// The walk over all shared buckets comes by.
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
    let event = prop_oneof![
        12 => tokens.clone().prop_map(Event::Take),
        2 => (1..300_u64).prop_map(Event::Settle),
        2 => tokens.prop_map(Event::Give),
        1 => any::<bool>().prop_map(Event::Pin),
        1 => any::<bool>().prop_map(Event::Hears),
        2 => Just(Event::Walk),
    ];
    (wait, event)
}

/// A shared bucket and when its key expires, in unix milliseconds.
struct Key {
    record: Record,
    expires: Option<u64>,
}

/// A region whose only peer is heard, or has not been for long.
fn region(hears: bool, now: u64) -> Region {
    let writer = Some(Writer::new("here".parse().unwrap(), 7));
    let instants = Instants { wall: now, steady: now };
    let before = Instants { wall: 0, steady: 0 };
    let mut peers = match hears {
        true => Membership::default(),
        false => Membership::new(PartitionPolicy::Equal, 2, 1_000_000, before),
    };
    peers.tick(Some(0), instants);
    Region { writer, peers }
}

proptest! {
    #![proptest_config(cases(3_000))]

    #[test]
    fn a_key_outlives_its_bucket(
        refill in 1..200_000_000_u64,
        events in prop::collection::vec(event(), 1..60),
    ) {
        let policy = Policy::new(100, refill, 1_000).unwrap();
        let defaults = Configured::new(policy);
        let (mut now, mut key, mut hears) = (START, None::<Key>, true);
        for (wait, event) in events {
            now += wait;
            let here = region(hears, now);
            if let Some(Key { record, expires: Some(expires) }) =
                key.take_if(|key| key.expires.is_some_and(|at| at <= now / 1_000))
            {
                let at = expires * 1_000;
                let opened = OpenBucket::shared(Some(record), &defaults.of(b"key"), &here, at, None);
                prop_assert!(!hears || opened.as_shared().unwrap().is_full());
            }
            let (record, present) = match key.take() {
                Some(key) => (Some(key.record), key.expires),
                None => (None, None),
            };
            let mut opened = OpenBucket::shared(record.clone(), &defaults.of(b"key"), &here, now, None);
            match event {
                Event::Take(tokens) => {
                    let demand = Demand { tokens, partial: true, keep: 0 };
                    opened.take(demand, now, &here).unwrap();
                }
                Event::Settle(tokens) => drop(opened.settle(0, tokens, now, &here).unwrap()),
                Event::Give(tokens) => drop(opened.give(tokens, now, &here).unwrap()),
                Event::Pin(true) => opened.pin(policy, &here).unwrap(),
                Event::Pin(false) => opened.reset(&here).unwrap(),
                Event::Hears(is) => hears = is,
                Event::Walk => {}
            }
            if let Event::Hears(_) | Event::Walk = event {
                // Nothing is written. The walk moves what is missing or too early, once.
                let walks = matches!(event, Event::Walk);
                let given = opened.mended_expiry(present, false, &here).filter(|_| walks);
                let expires = given.or(present);
                if walks {
                    prop_assert_eq!(opened.mended_expiry(expires, false, &here), None);
                }
                key = record.map(|record| Key { record, expires });
                continue;
            }
            let expiry = opened.expiry(false, &here);
            let expires = expiry.move_from(present).unwrap_or(present);
            let shared = opened.as_shared().unwrap();
            let full = shared.us_until_full(here.peers.share()).map(|us| us + u128::from(now));
            match (expiry, full) {
                (Expiry::At { .. }, Some(full)) => {
                    let expires = u128::from(expires.unwrap()) * 1_000;
                    prop_assert!(full + u128::from(LEAST_LINGER_US) <= expires);
                    prop_assert!(expires <= full + u128::from(MOST_LINGER_US) + 1_000);
                }
                (Expiry::Never, _) => prop_assert_eq!(expires, None),
                other => prop_assert!(false, "{:?}", other),
            }
            let mut text = DebitsText::default();
            codec::encode_debits(shared, &mut text);
            let mut record = opened.to_record();
            record.read(Field::Debits, text.as_bytes().unwrap(), now).unwrap();
            key = Some(Key { record, expires });
        }
    }
}

/// At a share of the limit a bucket is full later, and so is kept for longer.
#[test]
fn a_key_is_kept_until_it_is_full_at_the_share_in_force() {
    let policy = Policy::new(100, 1_000_000, 1_000).unwrap();
    let defaults = Configured::new(policy);
    let expires = |hears: bool| {
        let here = region(hears, START);
        let mut opened = OpenBucket::shared(None, &defaults.of(b"key"), &here, START, None);
        opened.take(Demand::all(10), START, &here).unwrap();
        match opened.expiry(false, &here) {
            Expiry::At { earliest, .. } => (here.peers.share(), earliest - START / 1_000),
            other => panic!("it refills: {other:?}"),
        }
    };
    let linger = LEAST_LINGER_US / 1_000;
    assert_eq!(expires(true), (WHOLE, 10_000 + linger));
    assert_eq!(expires(false), (WHOLE / 2, 20_000 + linger));
}

/// What was set at a share of the limit is too late when all of it is admitted again: the walk
/// moves it. It leaves alone what is early, and what is in time.
#[test]
fn the_walk_shortens_what_was_set_at_a_share() {
    const HOUR_MS: u64 = 3_600_000;
    let policy = Policy::new(100, 1_000_000, HOUR_MS / 100).unwrap();
    let defaults = Configured::new(policy);
    let [cut, whole] = [false, true].map(|hears| region(hears, START));
    let mut opened = OpenBucket::shared(None, &defaults.of(b"key"), &whole, START, None);
    opened.take(Demand::all(50), START, &whole).unwrap();
    let [at_share, at_whole] = [&cut, &whole].map(|region| opened.expiry(false, region));
    let [late, right] = [at_share, at_whole].map(|expiry| expiry.mend_from(None, false).unwrap());
    assert_eq!(late - right, HOUR_MS / 2);
    assert_eq!(at_whole.mend_from(Some(late), false), Some(right));
    for present in [right, right + 1] {
        assert_eq!(at_whole.mend_from(Some(present), false), None);
    }
    // The share has fallen since; of a full bucket it makes no difference.
    assert_eq!(at_share.mend_from(Some(right), false), Some(late));
    assert_eq!(at_share.mend_from(Some(right), true), None);
    assert_eq!(Expiry::Never.mend_from(Some(late), false), None);
}
