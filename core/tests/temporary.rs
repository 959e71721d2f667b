//! A pin that ends by itself: credited in two stretches, waited for across its end, kept no longer
//! than need be, and the same in all regions.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::unwrap_used)]

use claw_core::bucket::{Bucket, Demand, Wait, Weight};
use claw_core::codec::{self, DebitsText, Names, Wire};
use claw_core::configured::Configured;
use claw_core::debits::{Debits, LastVersion, Region};
use claw_core::expiry::Expiry;
use claw_core::limits::{MAX_VERSION, MICRO};
use claw_core::open::{OpenBucket, PolicySource};
use claw_core::plan::{Note, SyncMode};
use claw_core::policy::{Policy, StoredPolicy, Temporary};
use claw_core::record::{Field, FieldError, Record};
use claw_core::replica::Writer;
use proptest::prelude::*;

const NOW: u64 = 1_773_914_400_000_000;
const SECOND: u64 = 1_000_000;

fn policy() -> impl Strategy<Value = Policy> {
    let capacity = prop_oneof![1 => Just(0), 8 => 1..60_u64, 1 => 1..1_000_000_u64];
    let refill = prop_oneof![1 => Just(0), 8 => 1..60 * MICRO, 1 => 1..1_000_u64];
    let interval = prop_oneof![Just(1), Just(7), Just(1_000), Just(60_000)];
    (capacity, refill, interval).prop_map(|(c, r, i)| Policy::new(c, r, i).unwrap())
}

/// A bucket under a temporary pin, over a policy of its own or the default.
#[derive(Debug, Clone)]
struct Pinned {
    record: Record,
    default: Policy,
    shared: bool,
}

fn pinned() -> impl Strategy<Value = Pinned> {
    let own = prop::option::of((policy(), prop::option::of(1..9_u64)));
    let lasts = prop_oneof![0..5 * SECOND, 0..300 * SECOND];
    (policy(), own, policy(), lasts, any::<u64>(), 1..=3_u64, any::<bool>()).prop_map(
        |(pin, own, default, lasts, tokens, weight, shared)| {
            let most = pin.capacity_micros();
            let tokens = i64::try_from(tokens % (2 * most.unsigned_abs() + 1)).unwrap() - most;
            let record = Record {
                tokens: Some(tokens),
                timestamp: Some(NOW),
                weight: Some(Weight::new(weight).unwrap()).filter(|w| *w != Weight::ONE),
                policy: own.map(|(policy, pin)| StoredPolicy { policy, pin }),
                temporary: Some(Temporary { policy: pin, until: NOW + lasts, version: 9 }),
                debits: shared.then(Box::default),
                ..Record::default()
            };
            Pinned { record, default, shared }
        },
    )
}

impl Pinned {
    fn open(&self, now: u64) -> OpenBucket {
        let (record, defaults) = (Some(self.record.clone()), Configured::new(self.default));
        match self.shared {
            true => OpenBucket::shared(record, &defaults.of(b"key"), &Region::default(), now, None),
            false => OpenBucket::new(record, &defaults.of(b"key"), now),
        }
    }

    fn until(&self) -> u64 {
        self.record.temporary.unwrap().until
    }

    fn beneath(&self) -> Policy {
        self.record.policy.map_or(self.default, |stored| stored.policy)
    }

    /// The same, as it is written at `now`.
    fn written(&self, now: u64) -> Self {
        Self { record: written(&mut self.open(now)), ..self.clone() }
    }
}

/// What the hash says of an open bucket that is written.
fn written(opened: &mut OpenBucket) -> Record {
    let mut text = DebitsText::default();
    let plan = opened.plan(SyncMode::None, &Region::default(), &mut text).unwrap();
    let mut record = opened.to_record();
    if plan.is_shared {
        record.read(Field::Debits, text.as_bytes().unwrap(), u64::MAX).unwrap();
    }
    record
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(4_000))]

    /// However often it is written on the way, and whenever: at the end it holds what one bucket
    /// holds that was credited at the pin's policy until its end, and then at the one beneath.
    #[test]
    fn each_stretch_is_credited_at_the_policy_in_force_then(
        pinned in pinned(),
        mut steps in prop::collection::vec(0..400 * SECOND, 0..4),
    ) {
        steps.sort_unstable();
        let last = NOW + steps.last().copied().unwrap_or(0);
        let mut stepwise = pinned.clone();
        for step in &steps {
            stepwise = stepwise.written(NOW + step);
        }
        let (a, b) = (stepwise.open(last), pinned.open(last));
        prop_assert_eq!(a.bucket(), b.bucket());
        prop_assert_eq!(a.temporary(), b.temporary());
        prop_assert_eq!(a.temporary().is_some(), last < pinned.until());
        let expected = match last < pinned.until() {
            true => pinned.record.temporary.unwrap().policy,
            false => pinned.beneath(),
        };
        prop_assert_eq!(a.bucket().policy(), expected);
        if !pinned.shared {
            let mut exact = Bucket::new(
                pinned.record.temporary.unwrap().policy,
                pinned.record.weight.unwrap_or(Weight::ONE),
                pinned.record.tokens.unwrap(),
                0,
                NOW,
            );
            exact.advance(last.min(pinned.until()));
            if last >= pinned.until() {
                exact.switch(pinned.beneath());
                exact.advance(last);
            }
            prop_assert_eq!(a.bucket(), exact);
        }
        // The field goes with the next write after its end, and time alone writes nothing.
        prop_assert!(!b.terms_changed());
        prop_assert_eq!(written(&mut pinned.open(last)).temporary.is_some(), last < pinned.until());
    }

    /// Who waits as long as a refusal says is granted, and who waits a millisecond less is not,
    /// on whichever side of the end that is.
    #[test]
    fn waiting_is_exact_across_the_end(
        pinned in pinned(),
        tokens in 1..80_u64,
        keep in prop_oneof![3 => Just(0), 1 => 0..20_u64],
        partial in any::<bool>(),
    ) {
        let (demand, alone) = (Demand { tokens, partial, keep }, Region::default());
        let ask = |now: u64| pinned.open(now).take(demand, now, &alone).unwrap();
        let answer = ask(NOW);
        prop_assert_eq!(pinned.open(NOW).refusal(demand.needs(), NOW, &alone).retry_after,
            if answer.taken == 0 { answer.retry_after } else { Wait::Ms(0) });
        match answer.retry_after {
            _ if answer.taken > 0 => {}
            Wait::Ms(ms) => {
                prop_assert!(ms > 0);
                prop_assert!(ask(NOW + ms * 1_000).taken > 0, "after {ms} ms");
                prop_assert_eq!(ask(NOW + (ms - 1) * 1_000).taken, 0);
            }
            Wait::Never => {
                for later in [0, 1, 1_000, 400_000, 31_000_000] {
                    prop_assert_eq!(ask(pinned.until() + later * 1_000).taken, 0);
                }
            }
        }
        if let Wait::Ms(ms) = answer.reset_after && answer.taken == 0 {
            let opened = pinned.open(NOW + ms * 1_000);
            let full = opened.bucket().is_full();
            prop_assert!(full, "full after {} ms", ms);
        }
    }

    /// The key outlives the pin, and the time until the bucket is full beneath it.
    #[test]
    fn the_key_expires_no_earlier_than_the_end_and_full(pinned in pinned()) {
        let opened = pinned.open(NOW);
        let kept = pinned.record.policy.is_some_and(StoredPolicy::is_pinned)
            || pinned.record.weight.is_some();
        match opened.expiry(false, &Region::default()) {
            Expiry::Never => {
                let dry = pinned.beneath().refill() == 0;
                prop_assert!(kept || dry);
            }
            Expiry::Own => prop_assert_eq!(pinned.beneath().refill(), 0),
            Expiry::At { earliest, latest, set } => {
                prop_assert!(earliest <= set && set <= latest);
                prop_assert!(earliest * 1_000 >= pinned.until().max(NOW));
                let then = pinned.open(earliest * 1_000);
                prop_assert!(then.bucket().is_full() && then.temporary().is_none());
                prop_assert!(!kept);
            }
        }
    }

    /// Its text says all of it, and no other text is read.
    #[test]
    fn its_text_is_read_as_it_was_written(
        policy in policy(),
        until in 0..=253_402_207_200_999_999_u64,
        version in 0..=MAX_VERSION,
        garbage in prop::collection::vec(any::<u8>(), 0..60),
        cut in 0..60_usize,
    ) {
        let temporary = Temporary { policy, until, version };
        let text = temporary.to_string();
        prop_assert_eq!(Temporary::parse(text.as_bytes()), Ok(temporary));
        let _ = Temporary::parse(&garbage);
        let part = text.as_bytes().get(..cut).unwrap_or_default();
        if let Ok(other) = Temporary::parse(part) {
            let again = other.to_string();
            prop_assert_eq!(again.as_bytes(), part);
        }
    }

    /// A state carries it; a note carries it.
    #[test]
    fn states_and_notes_carry_it(pinned in pinned()) {
        let opened = pinned.open(NOW);
        let state = claw_core::merge::State::of(opened.bucket(), opened.policy())
            .pinned_by(opened.temporary());
        let blob = codec::encode(&state, &codec::Besides::default()).unwrap();
        let read = codec::decode(&blob, NOW).unwrap();
        prop_assert_eq!((read.temporary, read.policy), (opened.temporary(), opened.policy()));
        let note = Note {
            bucket: opened.bucket(),
            stored: opened.policy(),
            temporary: opened.temporary(),
            counted: Some(1_000),
        };
        let bytes = note.to_bytes();
        prop_assert_eq!(Note::read(bytes.as_bytes()), Some((note, b"".as_slice())));
    }
}

fn base() -> Policy {
    Policy::new(50, 5 * MICRO, 1_000).unwrap()
}

fn region(name: &str, life: u64) -> Region {
    Region { writer: Some(Writer::new(name.parse().unwrap(), life)), ..Region::default() }
}

/// A region's copy of one bucket.
struct Copy {
    region: Region,
    record: Option<Record>,
}

impl Copy {
    fn open(&self, now: u64) -> OpenBucket {
        let defaults = Configured::new(base());
        OpenBucket::shared(self.record.clone(), &defaults.of(b"key"), &self.region, now, None)
    }

    fn pin_for(&mut self, refill: u64, ms: u64, now: u64) {
        let mut opened = self.open(now);
        opened.pin_for(Policy::new(10, refill * MICRO, 1_000).unwrap(), ms, &self.region).unwrap();
        self.record = Some(written(&mut opened));
    }

    /// What it sends: the note, and the text that follows it.
    fn note(&self, now: u64) -> (Note, Vec<u8>) {
        let (opened, mut text) = (self.open(now), DebitsText::default());
        let note = opened.note(SyncMode::Counters, &self.region, &mut text).unwrap();
        (note, text.as_bytes().unwrap().to_vec())
    }

    /// Takes in what `other` noted and sent at `sent` of its clock.
    fn receive(&mut self, (note, text): &(Note, Vec<u8>), from: &str, sent: u64, now: u64) {
        let (mut names, mut bytes) = (Names::default(), Vec::new());
        assert!(codec::encode_wire(note, text, &mut names, &mut Debits::default(), &mut bytes));
        let mut wire = Wire::new(from.parse().unwrap(), names, sent);
        let remote = codec::decode_wire(&bytes, now, &mut wire).unwrap();
        let mut opened = self.open(now);
        if opened.receive(remote, &self.region).unwrap().changed {
            self.record = Some(written(&mut opened));
        }
    }

    fn end(&self) -> Option<u64> {
        self.record.as_ref()?.temporary.map(|temporary| temporary.until)
    }
}

/// A region fixes the end when it first hears of a pin, on its own clock; copies that come later
/// or again move nothing, a renewal does, and what takes it away goes everywhere.
#[test]
fn regions_fix_the_end_once() {
    let mut a = Copy { region: region("a", 1), record: None };
    let mut b = Copy { region: region("b", 2), record: None };
    // Its clock is an hour ahead.
    let ahead = 3_600 * SECOND;
    a.pin_for(1, 60_000, NOW);
    assert_eq!(a.end(), Some(NOW + 60 * SECOND));
    let first = a.note(NOW);
    // Sent after 5 s, it has 55 s left.
    let sent = NOW + 5 * SECOND;
    b.receive(&first, "a", sent, sent + ahead);
    assert_eq!(b.end(), Some(NOW + 60 * SECOND + ahead));
    assert_eq!(b.open(sent + ahead).source(), PolicySource::Pin);
    // The same once more, held up on the way by 20 s.
    b.receive(&first, "a", sent, sent + 20 * SECOND + ahead);
    assert_eq!(b.end(), Some(NOW + 60 * SECOND + ahead));
    // And back.
    let back = b.note(sent + ahead);
    a.receive(&back, "b", sent + ahead, sent + 2 * SECOND);
    assert_eq!(a.end(), Some(NOW + 60 * SECOND));
    // Renewed with the same policy.
    a.pin_for(1, 60_000, NOW + 30 * SECOND);
    let now = NOW + 31 * SECOND;
    b.receive(&a.note(now), "a", now, now + ahead);
    assert_eq!(b.end(), Some(NOW + 90 * SECOND + ahead));
    // Ended there, it ends here; what is left of the old one comes too late.
    let mut opened = b.open(now + ahead);
    opened.reset(&b.region).unwrap();
    b.record = Some(written(&mut opened));
    a.receive(&b.note(now + ahead), "b", now + ahead, now);
    assert_eq!(a.end(), None);
    a.receive(&first, "b", now, now);
    assert_eq!((a.end(), a.open(now).source()), (None, PolicySource::Default));
}

/// What has ended here does not come back from where it has not yet.
#[test]
fn an_ended_pin_does_not_come_back() {
    // Laid in a region that has peers, or before there were any.
    for laid_alone in [false, true] {
        let mut a = Copy { region: region("a", 1), record: None };
        let mut b = Copy { region: region("b", 2), record: None };
        if laid_alone {
            let defaults = Configured::new(base());
            let mut alone = OpenBucket::new(None, &defaults.of(b"key"), NOW);
            alone
                .pin_for(Policy::new(10, MICRO, 1_000).unwrap(), 60_000, &Region::default())
                .unwrap();
            a.record = Some(written(&mut alone));
        } else {
            a.pin_for(1, 60_000, NOW);
        }
        // Half a second on the way.
        b.receive(&a.note(NOW), "a", NOW, NOW + SECOND / 2);
        assert_eq!(b.end(), Some(NOW + 60 * SECOND + SECOND / 2), "{laid_alone}");
        // Ended here, and not there.
        let sent = NOW + 60 * SECOND + SECOND / 4;
        let mut opened = a.open(sent);
        assert_eq!(opened.take(Demand::all(1), sent, &a.region).unwrap().taken, 1);
        a.record = Some(written(&mut opened));
        a.receive(&b.note(sent), "b", sent, sent + SECOND / 10);
        assert_eq!((a.end(), a.open(sent).source()), (None, PolicySource::Default), "{laid_alone}");
        b.receive(&a.note(sent), "a", sent, sent + SECOND / 5);
        assert_eq!(b.open(NOW + 61 * SECOND).source(), PolicySource::Default, "{laid_alone}");
        a.receive(&b.note(NOW + 61 * SECOND), "b", NOW + 61 * SECOND, NOW + 62 * SECOND);
        assert_eq!(a.open(NOW + 62 * SECOND).source(), PolicySource::Default, "{laid_alone}");
    }
}

/// A region that has lost its latest change gives the number of it again: all come to one of the
/// two, in whichever order they hear of them.
#[test]
fn two_pins_of_one_number_become_one() {
    for [before, after] in [[1, 2], [2, 1]] {
        let mut a = Copy { region: region("a", 1), record: None };
        let mut b = Copy { region: region("b", 2), record: None };
        a.pin_for(before, 60_000, NOW);
        b.receive(&a.note(NOW), "a", NOW, NOW);
        a.record = None;
        a.pin_for(after, 60_000, NOW);
        let (from_a, from_b) = (a.note(NOW), b.note(NOW));
        a.receive(&from_b, "b", NOW, NOW);
        b.receive(&from_a, "a", NOW, NOW);
        for copy in [&a, &b] {
            assert_eq!(copy.open(NOW).bucket().policy().refill(), 2 * MICRO, "{before} {after}");
        }
    }
}

/// What was taken under a pin that has ended on the way is not forgotten.
#[test]
fn what_was_taken_under_an_ended_pin_stays_taken() {
    let mut a = Copy { region: region("a", 1), record: None };
    let mut b = Copy { region: region("b", 2), record: None };
    a.pin_for(0, 1_000, NOW);
    let mut opened = a.open(NOW);
    assert_eq!(opened.take(Demand::all(10), NOW, &a.region).unwrap().taken, 10);
    a.record = Some(written(&mut opened));
    let (note, sent) = (a.note(NOW), NOW + 3 * SECOND);
    b.receive(&note, "a", sent, sent);
    assert_eq!(b.open(sent).bucket().tokens(), 0);
}

/// What was long on the way, and has ended since, pins nothing.
#[test]
fn a_pin_that_has_ended_is_not_taken_over() {
    let mut a = Copy { region: region("a", 1), record: None };
    let mut b = Copy { region: region("b", 2), record: None };
    a.pin_for(1, 1_000, NOW);
    let note = a.note(NOW);
    b.receive(&note, "a", NOW + 5 * SECOND, NOW + 5 * SECOND);
    let opened = b.open(NOW + 5 * SECOND);
    assert_eq!((opened.source(), opened.bucket().policy()), (PolicySource::Default, base()));
}

/// What is beneath comes back: a permanent pin, or the policy that calls brought meanwhile.
#[test]
fn what_is_beneath_returns() {
    let called = Policy::new(7, 7 * MICRO, 1_000).unwrap();
    for pinned_beneath in [false, true] {
        let mut a = Copy { region: region("a", 1), record: None };
        let mut opened = a.open(NOW);
        if pinned_beneath {
            opened.pin(Policy::new(20, 2 * MICRO, 1_000).unwrap(), &a.region).unwrap();
        }
        a.record = Some(written(&mut opened));
        a.pin_for(1, 1_000, NOW);
        let mut opened = a.open(NOW);
        opened.ask(Some(called));
        assert_eq!(opened.terms_changed(), !pinned_beneath, "written only when different");
        assert_eq!(opened.bucket().policy().capacity(), 10);
        assert_eq!(opened.pin_remaining_ms(), 1_000);
        a.record = Some(written(&mut opened));
        let after = a.open(NOW + SECOND);
        let expected = if pinned_beneath { 20 } else { 7 };
        assert_eq!(after.bucket().policy().capacity(), expected);
        assert_eq!(after.pin_remaining_ms(), if pinned_beneath { -1 } else { 0 });
    }
}

/// Each change made on purpose has a later version than the one before, ended or not.
#[test]
fn versions_only_grow() {
    let mut a = Copy { region: Region::default(), record: None };
    let version = |a: &Copy| a.record.as_ref().unwrap().temporary.map(|pin| pin.version);
    a.pin_for(1, 1_000, NOW);
    assert_eq!(version(&a), Some(1));
    a.pin_for(1, 1_000, NOW);
    assert_eq!(version(&a), Some(2));
    // Long after its end.
    let mut opened = a.open(NOW + 9 * SECOND);
    opened.pin(base(), &a.region).unwrap();
    assert_eq!(opened.policy().unwrap().pin, Some(3));
    a.record = Some(written(&mut opened));
    assert_eq!(version(&a), None);
    a.pin_for(1, 1_000, NOW + 10 * SECOND);
    assert_eq!(version(&a), Some(4));
}

type Change<'a> = &'a dyn Fn(&mut OpenBucket) -> Result<(), LastVersion>;

/// After the last version there is none, so that no two changes have the same; what has no version
/// can still change.
#[test]
fn no_version_comes_twice() {
    let last = |alone: bool| {
        let pinned = format!("10 1/1000 pinned {MAX_VERSION}");
        let mut record = Record::default();
        record.read(Field::Tokens, b"5", NOW).unwrap();
        record.read(Field::Policy, pinned.as_bytes(), NOW).unwrap();
        let region = if alone { Region::default() } else { region("a", 1) };
        (Copy { region, record: Some(record) }, alone)
    };
    for (copy, alone) in [last(true), last(false)] {
        let open = || match alone {
            true => OpenBucket::new(copy.record.clone(), &Configured::new(base()).of(b"key"), NOW),
            false => copy.open(NOW),
        };
        let (policy, region) = (base(), &copy.region);
        let changes: [Change<'_>; 4] = [
            &|opened| opened.pin(policy, region),
            &|opened| opened.pin_for(policy, 1_000, region),
            &|opened| opened.set_weight(Weight::new(2).unwrap(), region),
            &|opened| opened.reset(region),
        ];
        for change in changes {
            let mut opened = open();
            assert_eq!(change(&mut opened), Err(LastVersion));
            assert_eq!((opened.terms(), opened.bucket()), (open().terms(), open().bucket()));
        }
        // What is so already.
        let mut opened = open();
        opened.pin(opened.bucket().policy(), region).unwrap();
        opened.set_weight(Weight::ONE, region).unwrap();
        opened.take(Demand::all(1), NOW, region).unwrap();
    }
}

#[test]
fn what_is_no_temporary_pin_is_an_error() {
    let rows: [&[u8]; 10] = [
        b"",
        b"10 1/1000",
        b"10 1/1000 until 5",
        b"10 1/1000 until 5 version",
        b"10 1/1000 until 5 version 1 ",
        b"10 1/1000 until -5 version 1",
        b"10 1/1000 until 253402207201000000 version 1",
        b"1000000000001 1/1000 until 5 version 1",
        b"10 1/1000 version 1 until 5",
        b"10 1/1000 until 5 version 4611686018427387905",
    ];
    for text in rows {
        let read = Record::default().read(Field::Temporary, text, NOW);
        assert!(matches!(read, Err(FieldError::Temporary(_))), "{}", text.escape_ascii());
    }
}
