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

const LAST_LIFE: u64 = 9;

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

/// The first of three regions, which loses all it has and begins again; what each of the others was
/// credited for what it gave back.
#[derive(Clone)]
struct Refunds {
    writer: Writer,
    regions: [Option<SharedBucket>; 3],
    lives: u64,
    given: u64,
    credited: [u64; 3],
}

impl Refunds {
    fn full() -> SharedBucket {
        SharedBucket::full(Policy::new(1_000, 0, 1_000).unwrap(), Weight::ONE, START)
    }

    fn send(&mut self, from: usize, to: usize) -> bool {
        let Some(bucket) = self.regions[from].clone() else {
            return false;
        };
        let names = ["a", "b", "c"];
        let remote = Remote { from: Some(id(names[from])), bucket, stored: None, temporary: None };
        let fresh = self.regions[to].is_none();
        let bucket = self.regions[to].get_or_insert_with(Self::full);
        let before = bucket.counter(id("a"));
        let other = Writer::new(id(names[to]), 9);
        let writer = if to == 0 { &self.writer } else { &other };
        bucket.receive(fresh, &remote, Some(writer), &Membership::default()).unwrap();
        self.credited[to] += before.gain(bucket.counter(id("a"))).1;
        true
    }

    fn steps(&self, left: usize, seen: &mut u64) {
        *seen += 1;
        for region in 1..3 {
            assert!(self.credited[region] <= self.given, "{:?} of {}", self.credited, self.given);
        }
        if left == 0 {
            return;
        }
        for step in 0..8 {
            let mut next = self.clone();
            let happened = match step {
                0 | 1 => {
                    let bucket = next.regions[0].get_or_insert_with(Self::full);
                    if step == 0 {
                        bucket.debit(Some(&next.writer), MICRO).unwrap();
                    } else {
                        bucket.refund(Some(&next.writer), MICRO).unwrap();
                        next.given += MICRO;
                    }
                    true
                }
                2 if self.lives < 2 => {
                    next.lives += 1;
                    // Below those of the life before.
                    next.writer = Writer::new(id("a"), LAST_LIFE - next.lives);
                    next.regions[0].take().is_some()
                }
                3 => next.send(0, 1),
                4 => next.send(0, 2),
                5 => next.send(1, 0),
                6 => next.send(2, 0),
                7 => next.send(1, 2),
                _ => false,
            };
            if happened {
                next.steps(left - 1, seen);
            }
        }
    }
}

/// However often a region begins anew, no other one credits more than it gave back.
#[test]
fn no_refund_is_credited_twice() {
    let history = Refunds {
        writer: Writer::new(id("a"), LAST_LIFE),
        regions: [None, None, None],
        lives: 0,
        given: 0,
        credited: [0; 3],
    };
    let mut seen = 0;
    history.steps(8, &mut seen);
    println!("{seen} histories");
    assert!(seen > 10_000);
}
