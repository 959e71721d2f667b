//! `golden/debit.txt`, replayed: levels, tokens, counters and slacks are those of
//! the reference model after every step.
//!
//! The model counts all that ever overflowed and remembers for each peer how far
//! the count was; here only the difference is kept. So where an interval shrinks
//! and the numbers do not divide, a slack may differ by one unit, which is 10^-9 of
//! a millionth of a token over the interval in microseconds, and so may a level
//! that the slack was used for. Everything else is the same to the last bit.

use crate::world::Rounds;
use claw_core::bucket::{Demand, Wait, Weight};
use claw_core::limits::MICRO;
use claw_core::membership::{Instants, Membership, PartitionPolicy, WHOLE};
use claw_core::policy::Policy;
use claw_core::replica::{ReplicaId, Writer};
use claw_core::shared::{Remote, SharedBucket};
use std::collections::BTreeMap;
use std::str::SplitWhitespace;

const HISTORIES: &str = include_str!("../golden/debit.txt");

/// The low bits of an epoch tell lives apart; the model has one life for ever.
const LIFE: u64 = 0x00c_1a55;
const LIFE_BITS: u32 = 20;

struct Replica {
    id: ReplicaId,
    writer: Writer,
    peers: Membership,
    policy: usize,
    keys: BTreeMap<String, SharedBucket>,
}

/// What a replica sent: its policy and its buckets.
struct Sent {
    from: ReplicaId,
    policy: usize,
    keys: BTreeMap<String, SharedBucket>,
}

struct History {
    title: String,
    policies: Vec<Policy>,
    replicas: Vec<Replica>,
    sent: Vec<Sent>,
    /// Whether some interval change was one that the model rounds otherwise.
    rounded: bool,
}

impl History {
    fn new(line: &str) -> Self {
        let mut words = line.splitn(4, ' ').skip(1);
        let regions = words.next().unwrap().parse().unwrap();
        let timeout = words.next().unwrap().parse().unwrap();
        let replicas = ["a", "b", "c", "d", "e"].into_iter().take(regions).map(|name| {
            let id: ReplicaId = name.parse().unwrap();
            Replica {
                id,
                writer: Writer::new(id, LIFE),
                peers: Membership::new(PartitionPolicy::Off, regions, timeout, Instants::default()),
                policy: 0,
                keys: BTreeMap::new(),
            }
        });
        Self {
            title: words.next().unwrap().to_owned(),
            policies: Vec::new(),
            replicas: replicas.collect(),
            sent: Vec::new(),
            rounded: false,
        }
    }

    fn add_policy(&mut self, line: &str) {
        let mut numbers = line.split(' ').skip(1).map(|number| number.parse().unwrap());
        let mut number = || numbers.next().unwrap();
        self.policies.push(Policy::new(number(), number(), number()).unwrap());
    }

    /// Does what the line says, and returns who did it.
    fn step(&mut self, line: &str) -> usize {
        let mut words = line.split_whitespace();
        let now = number(&mut words);
        let name: ReplicaId = words.next().unwrap().parse().unwrap();
        let place = self.replicas.iter().position(|replica| replica.id == name).unwrap();
        let policies = &self.policies;
        let replica = &mut self.replicas[place];
        match words.next().unwrap() {
            "take" => {
                let (key, writer) = replica.open(words.next().unwrap(), policies, now);
                let (tokens, taken) = (number(&mut words), number(&mut words));
                let answer = key.take(Some(writer), Demand::all(tokens), now, WHOLE).unwrap();
                assert_eq!(answer.taken, taken * tokens, "{}: {line}", self.title);
                assert_eq!(answer.retry_after == Wait::Ms(0), taken == 1, "{line}");
            }
            "look" => drop(replica.open(words.next().unwrap(), policies, now)),
            "debit" => {
                let (key, writer) = replica.open(words.next().unwrap(), policies, now);
                key.debit(Some(writer), number(&mut words)).unwrap();
            }
            "refund" => {
                let (key, writer) = replica.open(words.next().unwrap(), policies, now);
                key.refund(Some(writer), number(&mut words)).unwrap();
            }
            "overrun" => {
                let (key, writer) = replica.open(words.next().unwrap(), policies, now);
                let (tokens, booked) = (number(&mut words), number(&mut words));
                assert_eq!(tokens.min(key.bookable()), booked, "{}: {line}", self.title);
                key.debit(Some(writer), booked * MICRO).unwrap();
            }
            "forget" => {
                replica.keys.remove(words.next().unwrap()).unwrap();
            }
            "policy" => {
                let which = usize::try_from(number(&mut words)).unwrap();
                self.rounded |= replica.switch(which, policies, now);
            }
            "send" => {
                replica.advance(now);
                let (from, policy) = (replica.id, replica.policy);
                self.sent.push(Sent { from, policy, keys: replica.keys.clone() });
            }
            "receive" => {
                let sent = &self.sent[usize::try_from(number(&mut words)).unwrap()];
                self.rounded |= replica.switch(sent.policy, policies, now);
                replica.receive(sent, policies, now);
                if number(&mut words) == 1 {
                    let instants = Instants { wall: now, steady: 0 };
                    replica.peers.completed(sent.from, instants);
                }
            }
            other => panic!("{other} is no step"),
        }
        place
    }

    /// Compares a key of the replica with what the line says of it.
    fn check(&self, place: usize, line: &str) {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap();
        let what = words.next().unwrap();
        let Some(key) = self.replicas[place].keys.get(name) else {
            assert_eq!(what, "gone", "{}: {line}", self.title);
            return;
        };
        let near = |left: i128, right: &str| {
            let apart = left.abs_diff(right.parse().unwrap());
            assert!(apart <= u128::from(self.rounded), "{}: {left} in {line}", self.title);
        };
        near(key.level(), what);
        assert_eq!(
            key.bucket().tokens().to_string(),
            words.next().unwrap(),
            "{}: {line}",
            self.title
        );

        let mut counters = Vec::new();
        let mut slacks = BTreeMap::new();
        for word in words {
            match word.split_once(':') {
                None => counters.push(word.to_owned()),
                Some((peer, overflow)) => drop(slacks.insert(peer, overflow)),
            }
        }
        let counted = key.accounts().iter().filter(|account| account.counter.epoch != 0);
        let ours: Vec<String> = counted
            .map(|account| {
                let counter = account.counter;
                assert_eq!(counter.epoch & !(u64::MAX << LIFE_BITS), LIFE);
                let epoch = counter.epoch >> LIFE_BITS;
                format!("{},{epoch},{},{}", account.id, counter.spent, counter.refunded)
            })
            .collect();
        assert_eq!(ours, counters, "{}: {line}", self.title);
        for account in key.accounts() {
            match (account.slack, slacks.remove(account.id.as_str())) {
                (None, None) => {}
                (Some(slack), Some(overflow)) => {
                    near(slack.overflow, overflow);
                    assert_eq!(slack.withheld, 0);
                }
                (ours, theirs) => panic!("{}: {ours:?} is not {theirs:?}: {line}", self.title),
            }
        }
        assert!(slacks.is_empty(), "{}: {line}", self.title);
    }
}

impl Replica {
    /// The key at `now`, full if it was not there, and who counts in it.
    fn open(&mut self, key: &str, policies: &[Policy], now: u64) -> (&mut SharedBucket, &Writer) {
        let full = || SharedBucket::full(policies[self.policy], Weight::ONE, now);
        let key = self.keys.entry(key.to_owned()).or_insert_with(full);
        key.advance(now, &self.peers);
        (key, &self.writer)
    }

    fn advance(&mut self, now: u64) {
        for key in self.keys.values_mut() {
            key.advance(now, &self.peers);
        }
    }

    /// Goes over to a later policy; says whether that is rounded.
    fn switch(&mut self, which: usize, policies: &[Policy], now: u64) -> bool {
        if which <= self.policy {
            return false;
        }
        self.advance(now);
        for key in self.keys.values_mut() {
            key.switch(policies[which]);
        }
        let us = |policy: usize| policies[policy].interval_us().get();
        // At a whole share, everything is a multiple of 1000.
        let rounded = 1_000 * us(which) % us(self.policy) != 0;
        self.policy = which;
        rounded
    }

    fn receive(&mut self, sent: &Sent, policies: &[Policy], now: u64) {
        for (name, bucket) in &sent.keys {
            let fresh = !self.keys.contains_key(name);
            let remote = Remote {
                from: Some(sent.from),
                bucket: bucket.clone(),
                stored: None,
                temporary: None,
            };
            self.open(name, policies, now);
            let key = self.keys.get_mut(name).unwrap();
            key.receive(fresh, &remote, Some(&self.writer), &self.peers).unwrap();
        }
    }
}

fn number(words: &mut SplitWhitespace<'_>) -> u64 {
    words.next().unwrap().parse().unwrap()
}

#[test]
fn every_step_is_that_of_the_reference() {
    let (mut histories, mut steps, mut compared) = (Vec::<History>::new(), 0, 0);
    let mut place = 0;
    for line in HISTORIES.lines() {
        let first = line.split(' ').next().unwrap();
        match (first, histories.last_mut()) {
            ("history", _) => histories.push(History::new(line)),
            ("policy", Some(history)) => history.add_policy(line),
            ("x" | "y" | "z", Some(history)) => {
                history.check(place, line);
                compared += 1;
            }
            (_, Some(history)) => {
                place = history.step(line);
                steps += 1;
            }
            (_, None) => panic!("{line} belongs to no history"),
        }
    }
    assert_eq!(histories.len(), 20);
    assert!(steps > 1_000 && compared > 1_000, "{steps} steps, {compared} states");
    let rounded = histories.iter().filter(|history| history.rounded).count();
    assert_eq!(rounded, 1, "only intervals that do not divide are rounded");
}
