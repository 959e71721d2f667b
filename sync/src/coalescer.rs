//! What waits to be handed out: the latest note of each key.
//!
//! As long as every peer is busy with an earlier round, nobody would be sent what
//! is handed out now, and most of it would be replaced before somebody is. So it
//! is gathered here, where a newer note takes the place of an older one, and made
//! a state only when a peer is there for it. What is copied goes to room that was
//! used before: allocating would make the main thread wait for the count of used
//! memory. And it is copied, not exchanged, so that the main thread goes on with the
//! little room that it has.

use crate::config::{Limits, Messages};
use crate::note_log::{Entry, EntryPool, Mark, NoteBatch, Piece};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Place;
use std::hash::{BuildHasher, RandomState};

/// Room for more keys than this that was hardly used is given back.
const SPARE_KEYS: usize = 1_024;

/// Notes by key, in the order in which the keys came.
#[derive(Debug, Default)]
pub(crate) struct Coalescer {
    slots: Vec<Piece>,
    /// How many of them have been filled.
    used: usize,
    bytes: usize,
    /// Where the note of a key is, with the hash of its id.
    places: HashTable<(u64, usize)>,
    hasher: RandomState,
    /// When the first of them was noted.
    pub since: Option<u64>,
    /// Some states are missing, for want of room.
    pub overrun: bool,
    pub marks: Vec<Mark>,
}

impl Coalescer {
    /// Adds what was noted later.
    pub fn add(&mut self, batch: &NoteBatch) {
        for (id, note) in batch.noted() {
            let hash = self.hasher.hash_one(id);
            let slots = &mut self.slots;
            let is_same = |&(known, at): &(u64, usize)| {
                known == hash && slots.get(at).is_some_and(|known| known.id() == id)
            };
            let (at, older) = match self.places.entry(hash, is_same, |(hash, _)| *hash) {
                Place::Occupied(place) => {
                    let (_, at) = *place.get();
                    (at, slots.get(at).map_or(0, Piece::cost))
                }
                Place::Vacant(place) => {
                    let at = self.used;
                    place.insert((hash, at));
                    self.used = at.saturating_add(1);
                    (at, 0)
                }
            };
            if at >= slots.len() {
                slots.push(Piece::default());
            }
            if let Some(slot) = slots.get_mut(at) {
                slot.set(id, note);
                self.bytes = self.bytes.saturating_sub(older).saturating_add(slot.cost());
            }
        }
        self.since = self.since.or(batch.since);
        self.overrun |= batch.overrun;
        self.marks.extend_from_slice(&batch.marks);
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether it takes half of the room that there is for one peer, so that no
    /// more should be gathered.
    pub fn is_large(&self, limits: &Limits) -> bool {
        self.used >= limits.entries / 2 || self.bytes >= limits.bytes / 2
    }

    /// The states as they go over the wire, in the memory of earlier ones.
    pub fn entries(&self, messages: &dyn Messages, pool: &EntryPool) -> Vec<Entry> {
        let mut pool = pool.take(self.used);
        let mut state = Vec::new();
        let entry = |slot: &Piece| {
            state.clear();
            messages.state(slot.what(), &mut state);
            while let Some(mut entry) = pool.pop() {
                // Another peer may still have it, and will bring it back.
                if entry.become_one(slot.id(), &state) {
                    return entry;
                }
            }
            Entry::new(slot.id(), &state)
        };
        self.slots.iter().take(self.used).map(entry).collect()
    }

    /// Begins anew after everything has been handed out.
    pub fn clear(&mut self) {
        for slot in self.slots.iter_mut().take(self.used).filter(|slot| slot.is_long()) {
            *slot = Piece::default();
        }
        if self.slots.len() > SPARE_KEYS && self.used < self.slots.len() >> 3 {
            self.slots.truncate(self.used.saturating_mul(2));
            self.slots.shrink_to_fit();
        }
        if self.places.capacity() > self.slots.len().saturating_mul(4) {
            self.places = HashTable::new();
        } else {
            self.places.clear();
        }
        (self.used, self.bytes) = (0, 0);
        self.since = None;
        self.overrun = false;
        self.marks.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use crate::config::Round;
    use crate::note_log::NoteLog;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Whose states are the notes themselves.
    struct Plain;

    impl Messages for Plain {
        fn states_command(&self) -> Vec<Vec<u8>> {
            Vec::new()
        }

        fn heartbeat(&self, _: &Round) -> Vec<Vec<u8>> {
            Vec::new()
        }
    }

    type Key = (u32, u8);

    #[derive(Debug, Clone)]
    enum Step {
        Note(Key),
        Gather,
        HandOut,
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = (0..3_u32, 0..5_u8);
        prop_oneof![8 => key.prop_map(Step::Note), 2 => Just(Step::Gather), 1 => Just(Step::HandOut)]
    }

    proptest! {
        /// What is handed out is the last state of each key noted since the last
        /// time, once, whatever room it was kept in.
        #[test]
        fn the_last_state_of_each_key_wins(steps in prop::collection::vec(step(), 0..200)) {
            let limits = Limits::default();
            let mut log = NoteLog::default();
            let mut coalescer = Coalescer::default();
            let mut spare = NoteBatch::default();
            let (pool, mut late) = (EntryPool::default(), Vec::new());
            let mut noted: BTreeMap<Key, u64> = BTreeMap::new();
            let (mut clock, mut first) = (0, None);
            for step in steps.into_iter().chain([Step::Gather, Step::HandOut]) {
                match step {
                    Step::Note((db, key)) => {
                        clock += 1;
                        first = first.or(Some(clock));
                        noted.insert((db, key), clock);
                        log.note((db, &[key]), &[&clock.to_be_bytes()], &limits, || clock);
                    }
                    Step::Gather | Step::HandOut => {
                        let mut batch = log.take(spare);
                        coalescer.add(&batch);
                        batch.clear();
                        spare = batch;
                    }
                }
                if matches!(step, Step::HandOut) {
                    prop_assert_eq!((coalescer.since, coalescer.len()), (first.take(), noted.len()));
                    let cost: usize = coalescer.slots.iter().take(coalescer.used).map(Piece::cost).sum();
                    prop_assert_eq!(coalescer.bytes, cost);
                    let entries = coalescer.entries(&Plain, &pool);
                    let found: BTreeMap<Key, u64> = entries
                        .iter()
                        .map(|e| {
                            let state = u64::from_be_bytes(*e.state().first_chunk().unwrap());
                            ((e.db(), *e.key().first().unwrap()), state)
                        })
                        .collect();
                    prop_assert_eq!(entries.len(), found.len());
                    prop_assert_eq!(found, std::mem::take(&mut noted));
                    // Two peers are done with them, the second one later.
                    let mut first: Vec<Entry> = entries.clone();
                    pool.give(&mut first);
                    pool.give(&mut std::mem::replace(&mut late, entries));
                    coalescer.clear();
                }
            }
        }
    }

    #[test]
    fn room_is_bounded_and_given_back() {
        let mut log = NoteLog::default();
        let limits = Limits { entries: 20_000, ..Limits::default() };
        let mut coalescer = Coalescer::default();
        for n in 0..9_999_u64 {
            log.note((0, &n.to_be_bytes()), &[&n.to_be_bytes()], &limits, || n);
        }
        coalescer.add(&log.take(NoteBatch::default()));
        assert!(!coalescer.is_large(&limits));
        log.note((0, b"one more"), &[b"1"], &limits, || 1);
        coalescer.add(&log.take(NoteBatch::default()));
        assert!(coalescer.is_large(&limits));
        assert!(coalescer.is_large(&Limits { bytes: coalescer.bytes, ..Limits::default() }));
        coalescer.clear();
        log.note((0, &[b'a'; 100_000]), &[b"1"], &limits, || 1);
        coalescer.add(&log.take(NoteBatch::default()));
        coalescer.clear();
        assert!(coalescer.slots.iter().all(|slot| !slot.is_long()));
        assert!(coalescer.slots.capacity() < 100 && coalescer.places.capacity() < 100);
    }
}
