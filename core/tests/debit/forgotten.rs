//! A key that has gone within one life of its server, while a peer knows what was counted in it.
//!
//! All histories of so many steps: one region takes, forgets and is told; what it sends after each
//! take, and what it is sent, comes in order; or what it sends is lost. Every take has a number, so that it can be said which of
//! them a counter stands for.

use crate::any::START;
use claw_core::bucket::Weight;
use claw_core::debits::Counter;
use claw_core::limits::MICRO;
use claw_core::membership::Membership;
use claw_core::policy::Policy;
use claw_core::replica::{ReplicaId, Writer};
use claw_core::shared::{Remote, SharedBucket};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const STEPS: usize = 9;

type Takes = BTreeSet<u32>;

/// A key at one region, and which takes each epoch of its first region's counter stands for.
#[derive(Clone, Default)]
struct Key {
    bucket: Option<SharedBucket>,
    stands_for: BTreeMap<u64, Takes>,
}

impl Key {
    fn send(&self, from: ReplicaId) -> Option<(Remote, BTreeMap<u64, Takes>)> {
        let bucket = self.bucket.clone()?;
        Some((
            Remote { from: Some(from), bucket, stored: None, temporary: None },
            self.stands_for.clone(),
        ))
    }
}

type Line = VecDeque<(Remote, BTreeMap<u64, Takes>)>;

#[derive(Clone)]
struct History {
    writer: Writer,
    here: Key,
    there: Key,
    out: Line,
    back: Line,
    taken: u32,
    /// Takes that the other region has been told of.
    told: Takes,
    /// How many it has debited.
    debited: u64,
}

fn id(name: &str) -> ReplicaId {
    name.parse().unwrap()
}

fn receive(key: &mut Key, line: &mut Line, writer: &Writer) -> Option<(Counter, Counter)> {
    let (remote, stands_for) = line.pop_front()?;
    let counter = |key: &Key| key.bucket.as_ref().map(|b| b.counter(id("a"))).unwrap_or_default();
    let before = counter(key);
    let policy = Policy::new(1_000, 0, 1_000).unwrap();
    let fresh = key.bucket.is_none();
    let full = || SharedBucket::full(policy, Weight::ONE, START);
    let bucket = key.bucket.get_or_insert_with(full);
    bucket.receive(fresh, &remote, Some(writer), &Membership::default()).unwrap();
    let after = counter(key);
    // What was joined is what either knew before, but for a counter that was begun anew.
    for (epoch, takes) in stands_for {
        if after.epoch >= epoch {
            key.stands_for.entry(epoch).or_default().extend(takes);
        }
    }
    Some((before, after))
}

impl History {
    fn take(&mut self) {
        let policy = Policy::new(1_000, 0, 1_000).unwrap();
        let full = || SharedBucket::full(policy, Weight::ONE, START);
        let bucket = self.here.bucket.get_or_insert_with(full);
        bucket.debit(Some(&self.writer), MICRO).unwrap();
        let epoch = bucket.counter(id("a")).epoch;
        self.taken += 1;
        self.here.stands_for.entry(epoch).or_default().insert(self.taken);
        // What is not sent is as what is lost.
        self.out.extend(self.here.send(id("a")));
    }

    fn steps(&self, left: usize, seen: &mut u64) {
        *seen += 1;
        if left == 0 {
            return;
        }
        for step in 0..6 {
            let mut next = self.clone();
            match step {
                0 => next.take(),
                1 if self.here.bucket.is_some() => next.here = Key::default(),
                2 if self.there.bucket.is_some() => next.back.extend(next.there.send(id("b"))),
                3 if !self.out.is_empty() => {
                    let (_, stands_for) = &next.out[0];
                    next.told.extend(stands_for.values().flatten());
                    let other = Writer::new(id("b"), 2);
                    let (before, after) = receive(&mut next.there, &mut next.out, &other).unwrap();
                    next.debited += before.gain(after).0 / MICRO;
                    let told = next.told.len() as u64;
                    assert_eq!(next.debited, told, "{:?}: {after:?}", next.told);
                }
                4 if !self.out.is_empty() => drop(next.out.pop_front()),
                5 if !self.back.is_empty() => {
                    receive(&mut next.here, &mut next.back, &next.writer);
                }
                _ => continue,
            }
            next.steps(left - 1, seen);
        }
    }
}

/// What a region is told that it has forgotten is debited once by the other one, and so is
/// whatever it takes afterwards: no take is hidden behind one that was counted before, and none is
/// counted twice.
#[test]
fn nothing_is_hidden_behind_what_was_forgotten() {
    let history = History {
        writer: Writer::new(id("a"), 1),
        here: Key::default(),
        there: Key::default(),
        out: Line::new(),
        back: Line::new(),
        taken: 0,
        told: Takes::new(),
        debited: 0,
    };
    let mut seen = 0;
    history.steps(STEPS, &mut seen);
    println!("{seen} histories");
    assert!(seen > 10_000);
}
