//! Counters are a lattice: states of one may come in any order and any number of
//! times.

use crate::any::{cases, counter, id};
use claw_core::debit::Counter;
use claw_core::replica::{MAX_ID, ReplicaId, Writer};
use proptest::prelude::*;

fn check(a: Counter, b: Counter, c: Counter) {
    assert_eq!(a.join(b), b.join(a));
    assert_eq!(a.join(b).join(c), a.join(b.join(c)));
    assert_eq!(a.join(a), a);
    // Nothing is lost, and what is known already is no gain.
    assert_eq!(a.gain(a.join(b)), a.gain(b));
    assert_eq!(a.join(b).gain(a), (0, 0));
    assert_eq!(a.join(b).gain(b), (0, 0));
}

#[test]
fn all_small_triples() {
    let counters = |most: u64| (0..=most).flat_map(move |a| (0..=most).map(move |b| (a, b)));
    let small: Vec<Counter> = (1..=3)
        .flat_map(|epoch| {
            counters(2).map(move |(spent, refunded)| Counter { epoch, spent, refunded })
        })
        .chain([Counter::default()])
        .collect();
    for a in &small {
        for b in &small {
            for c in &small {
                check(*a, *b, *c);
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn any_triple(a in counter(), b in counter(), c in counter()) {
        check(a, b, c);
    }

    /// Whatever way a counter came here, what it gained adds up to what it is.
    #[test]
    fn the_gains_of_one_epoch_add_up(
        mut states in prop::collection::vec((0_u64..1 << 40, 0_u64..1 << 40), 1..20),
        epoch in 1_u64..5,
    ) {
        states.push((1 << 40, 1 << 40));
        let (mut known, mut spent, mut refunded) = (Counter::default(), 0, 0);
        for (a, b) in states {
            let state = Counter { epoch, spent: a, refunded: b };
            let gain = known.gain(state);
            (spent, refunded) = (spent + gain.0, refunded + gain.1);
            known = known.join(state);
        }
        prop_assert_eq!((spent, refunded), (1 << 40, 1 << 40));
    }

    #[test]
    fn names_are_read_as_they_are_printed(id in id(), text in ".{0,40}") {
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        match ReplicaId::new(text.as_bytes()) {
            Ok(read) => prop_assert_eq!(read.as_str(), text),
            Err(_) => {
                let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
                let bad = text.is_empty() || text.len() > MAX_ID || !text.chars().all(allowed);
                prop_assert!(bad, "{} is a name", text);
            }
        }
    }

    #[test]
    fn names_are_in_the_order_of_their_texts(a in id(), b in id()) {
        prop_assert_eq!(a.cmp(&b), a.as_str().cmp(b.as_str()));
    }

    /// Whatever epochs it is told of, a writer begins none twice, each above all
    /// before, and knows its own.
    #[test]
    fn a_writer_repeats_no_epoch(
        life in any::<u64>(),
        other in any::<u64>(),
        steps in prop::collection::vec((prop::option::of(0_u64..1 << 50), 0_u64..1 << 50), 1..30),
    ) {
        let id: ReplicaId = "here".parse().unwrap();
        let (writer, another) = (Writer::new(id, life), Writer::new(id, other));
        let same = (life ^ other) & 0xf_ffff == 0;
        let mut last = 0;
        prop_assert!(!writer.began(0), "no counter is nobody's");
        for (seen, known) in steps {
            seen.inspect(|epoch| writer.seen(*epoch));
            let epoch = writer.next_epoch(known);
            prop_assert!(epoch > last && epoch > known && seen.is_none_or(|seen| epoch > seen));
            prop_assert!(writer.began(epoch));
            // A new life never goes on with it.
            prop_assert_eq!(another.began(epoch), same);
            last = epoch;
        }
    }
}

/// At the end of all epochs it stays there, instead of beginning anew.
#[test]
fn the_last_epoch() {
    let writer = Writer::new("here".parse().unwrap(), 7);
    let last = writer.next_epoch(u64::MAX);
    assert_eq!(last >> 20, u64::MAX >> 20);
    assert_eq!(writer.next_epoch(last), last);
    assert!(writer.began(last));
}
