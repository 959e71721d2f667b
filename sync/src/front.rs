//! What has been noted since the last hand-out.

use crate::config::{Limits, Note};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What an entry takes besides key and state, roughly: its place in a peer's
/// table, the reference counts, the allocator's share.
const OVERHEAD: usize = 96;
/// How many notes make the hand-out thread come early, so that there are few to
/// move when room is made for more: that happens on the main thread.
const EARLY: usize = 2_048;
/// Room for more notes than this that was hardly used is given back.
const SPARE: usize = 1_024;
/// Room for ids longer than this, in bytes, is not kept.
const LONG: usize = 1_024;
/// The number of the database comes first in an id.
const DB: usize = size_of::<u32>();

/// A state that is on its way; shared by the peers.
#[derive(Debug, Clone)]
pub(crate) struct Entry(Arc<Piece>);

#[derive(Debug)]
struct Piece {
    /// Database and key, as an entry is found by, and the state.
    bytes: Vec<u8>,
    state_at: usize,
}

impl Entry {
    /// Of `bytes`, all from `state_at` is the state.
    pub fn new(bytes: &[u8], state_at: usize) -> Self {
        Self(Arc::new(Piece { bytes: bytes.to_vec(), state_at }))
    }

    /// Becomes another one, in the same memory; `false` when somebody still has it.
    pub fn become_one(&mut self, bytes: &[u8], state_at: usize) -> bool {
        let Some(piece) = Arc::get_mut(&mut self.0) else {
            return false;
        };
        piece.bytes.clear();
        piece.bytes.extend_from_slice(bytes);
        piece.state_at = state_at;
        true
    }

    pub fn id(&self) -> &[u8] {
        self.0.bytes.get(..self.0.state_at).unwrap_or_default()
    }

    pub fn db(&self) -> u32 {
        self.0.bytes.first_chunk::<DB>().copied().map(u32::from_le_bytes).unwrap_or_default()
    }

    pub fn key(&self) -> &[u8] {
        self.id().get(DB..).unwrap_or_default()
    }

    pub fn state(&self) -> &[u8] {
        self.0.bytes.get(self.0.state_at..).unwrap_or_default()
    }

    /// Bytes of memory, with what is left over of an earlier, longer state.
    pub fn cost(&self) -> usize {
        self.0.bytes.capacity().saturating_add(OVERHEAD)
    }

    /// Whether it takes more memory than most.
    fn is_long(&self) -> bool {
        self.0.bytes.capacity() > LONG
    }
}

/// Entries that peers are done with, to be used again: each allocation of another
/// thread makes the server's main thread wait for the count of used memory.
#[derive(Debug, Default)]
pub(crate) struct Spent(Mutex<Vec<Entry>>);

impl Spent {
    /// Takes back what one peer is done with; others may still have it.
    pub fn give(&self, entries: &mut Vec<Entry>) {
        entries.retain(|entry| !entry.is_long());
        let mut spent = self.lock();
        if spent.is_empty() {
            std::mem::swap(&mut *spent, entries);
        } else {
            spent.append(entries);
        }
    }

    /// Takes all, to make `needed` new ones of them. More than that was not needed
    /// lately, and is given up.
    pub fn take(&self, needed: usize) -> Vec<Entry> {
        let mut spent = std::mem::take(&mut *self.lock());
        spent.truncate(needed.saturating_mul(2));
        spent
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The id of a key.
pub(crate) fn id(into: &mut Vec<u8>, db: u32, key: &[u8]) {
    into.clear();
    into.extend_from_slice(&db.to_le_bytes());
    into.extend_from_slice(key);
}

/// Room for what is noted of one key; used again and again.
#[derive(Debug, Default)]
pub(crate) struct Slot<N> {
    id: Vec<u8>,
    note: N,
}

impl<N: Clone> Clone for Slot<N> {
    fn clone(&self) -> Self {
        Self { id: self.id.clone(), note: self.note.clone() }
    }

    /// Uses the memory that is there again.
    fn clone_from(&mut self, source: &Self) {
        self.id.clone_from(&source.id);
        self.note.clone_from(&source.note);
    }
}

impl<N> Slot<N> {
    /// See [`id`].
    pub fn id(&self) -> &[u8] {
        &self.id
    }

    pub fn note(&self) -> &N {
        &self.note
    }
}

impl<N: Note> Slot<N> {
    fn is_of(&self, db: u32, key: &[u8]) -> bool {
        self.id.split_first_chunk().is_some_and(|(of, name)| *of == db.to_le_bytes() && name == key)
    }

    /// Bytes of memory.
    pub fn cost(&self) -> usize {
        self.id.len().saturating_add(self.note.size()).saturating_add(OVERHEAD)
    }
}

/// The begin or end of a walk over all buckets, in order with what is noted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mark {
    /// What is noted from here on completes these peers, one bit each.
    Begin { walk: u64, peers: u32 },
    /// Everything has been noted.
    End { walk: u64 },
}

/// The main thread's side: all that has been noted, in order. That a key comes
/// several times is for the hand-out thread to see.
#[derive(Debug)]
pub(crate) struct Front<N> {
    slots: Vec<Slot<N>>,
    /// How many of them have been filled.
    used: usize,
    bytes: usize,
    since: Option<u64>,
    overrun: bool,
    marks: Vec<Mark>,
    /// The walk that has begun and not ended, and its peers.
    walk: Option<(u64, u32)>,
    walks: u64,
    /// A round is wanted at once.
    pub flush: bool,
    /// The hand-out thread is to end.
    pub stopping: bool,
}

/// What is handed out.
#[derive(Debug)]
pub(crate) struct Handful<N> {
    slots: Vec<Slot<N>>,
    used: usize,
    /// When the first of them was noted.
    pub since: Option<u64>,
    /// Some states are missing, for want of room.
    pub overrun: bool,
    pub marks: Vec<Mark>,
    pub taken_at: Instant,
}

impl<N: Note> Front<N> {
    pub fn new() -> Self {
        Self {
            slots: Vec::new(),
            used: 0,
            bytes: 0,
            since: None,
            overrun: false,
            marks: Vec::new(),
            walk: None,
            walks: 0,
            flush: false,
            stopping: false,
        }
    }

    /// Notes the latest state of a key, which `fill` writes over another one.
    /// Returns whether the hand-out thread should come at once. `now` is only
    /// asked when there was nothing.
    pub fn note(
        &mut self,
        (db, key): (u32, &[u8]),
        fill: impl FnOnce(&mut N),
        limits: &Limits,
        now: impl FnOnce() -> u64,
    ) -> bool {
        // The bucket that everybody uses is noted once.
        let last = self.used.checked_sub(1).and_then(|last| self.slots.get_mut(last));
        if let Some(last) = last.filter(|last| last.is_of(db, key)) {
            let before = last.cost();
            fill(&mut last.note);
            self.bytes = self.bytes.saturating_sub(before).saturating_add(last.cost());
            return false;
        }
        if self.used >= limits.entries || self.bytes >= limits.bytes {
            // Freeing what is there would take long, on the main thread.
            self.overrun = true;
            return true;
        }
        if self.used >= self.slots.len() {
            self.slots.push(Slot::default());
        }
        if let Some(slot) = self.slots.get_mut(self.used) {
            id(&mut slot.id, db, key);
            fill(&mut slot.note);
            self.bytes = self.bytes.saturating_add(slot.cost());
        }
        if self.since.is_none() {
            self.since = Some(now());
        }
        self.used = self.used.saturating_add(1);
        self.used == EARLY
    }

    /// A walk over all buckets begins, for these peers and those of the walk
    /// that has not ended.
    pub fn walk_begins(&mut self, peers: u32) {
        let (_, before) = self.walk.take().unwrap_or_default();
        self.walks = self.walks.wrapping_add(1);
        let peers = peers | before;
        self.walk = Some((self.walks, peers));
        self.marks.push(Mark::Begin { walk: self.walks, peers });
    }

    /// The walk has noted everything.
    pub fn walk_ends(&mut self) {
        if let Some((walk, _)) = self.walk.take() {
            self.marks.push(Mark::End { walk });
        }
    }

    /// Whether there are more notes than should wait for the interval to end.
    pub fn crowded(&self) -> bool {
        self.used >= EARLY || self.overrun
    }

    /// When the first state was noted.
    pub fn since(&self) -> Option<u64> {
        self.since
    }

    /// Takes everything, and leaves the room of `spare` to be filled.
    pub fn take(&mut self, spare: Handful<N>) -> Handful<N> {
        self.bytes = 0;
        Handful {
            slots: std::mem::replace(&mut self.slots, spare.slots),
            used: std::mem::take(&mut self.used),
            since: self.since.take(),
            overrun: std::mem::take(&mut self.overrun),
            marks: std::mem::take(&mut self.marks),
            taken_at: Instant::now(),
        }
    }
}

impl<N: Note> Handful<N> {
    /// Room for nothing.
    pub fn empty() -> Self {
        Self {
            slots: Vec::new(),
            used: 0,
            since: None,
            overrun: false,
            marks: Vec::new(),
            taken_at: Instant::now(),
        }
    }

    /// What was noted, in order.
    pub fn noted(&self) -> &[Slot<N>] {
        self.slots.get(..self.used).unwrap_or_default()
    }

    /// See [`trim`].
    pub fn trim(&mut self) {
        trim(&mut self.slots, self.used);
    }
}

/// Gives back room of which only `used` was needed, and that of very long keys.
pub(crate) fn trim<N>(slots: &mut Vec<Slot<N>>, used: usize) {
    for slot in slots.iter_mut().take(used) {
        if slot.id.capacity() > LONG {
            slot.id = Vec::new();
        }
    }
    if slots.len() > SPARE && used < slots.len() >> 3 {
        slots.truncate(used.saturating_mul(2));
        slots.shrink_to_fit();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Default, PartialEq)]
    struct Number(u64);

    impl Note for Number {
        fn encode(&self, out: &mut Vec<u8>) {
            out.extend_from_slice(&self.0.to_be_bytes());
        }
    }

    fn noted(front: &mut Front<Number>, db: u32, key: &[u8], n: u64, limits: &Limits) -> bool {
        front.note((db, key), |number| number.0 = n, limits, || n)
    }

    fn states(handful: &Handful<Number>) -> Vec<(u32, String, u64)> {
        let state = |slot: &Slot<Number>| {
            let (db, key) = slot.id.split_first_chunk().unwrap();
            (u32::from_le_bytes(*db), String::from_utf8(key.into()).unwrap(), slot.note.0)
        };
        handful.noted().iter().map(state).collect()
    }

    #[test]
    fn what_is_noted_is_taken_once_and_in_order() {
        let limits = Limits::default();
        let mut front = Front::new();
        for (db, key, n) in
            [(0, "a", 1), (0, "a", 2), (1, "a", 3), (0, "b", 4), (0, "a", 5), (0, "", 6)]
        {
            assert!(!noted(&mut front, db, key.as_bytes(), n, &limits));
        }
        assert_eq!(front.since(), Some(1));
        let handful = front.take(Handful::empty());
        assert_eq!((handful.since, handful.overrun, front.since()), (Some(1), false, None));
        let expected = [(0, "a", 2), (1, "a", 3), (0, "b", 4), (0, "a", 5), (0, "", 6)];
        assert_eq!(states(&handful), expected.map(|(db, key, n)| (db, key.to_owned(), n)));
        // What is there to be used again is not there to be sent again.
        assert_eq!(states(&front.take(handful)), []);
        noted(&mut front, 0, b"c", 6, &limits);
        assert_eq!(states(&front.take(Handful::empty())), [(0, "c".to_owned(), 6)]);
    }

    #[test]
    fn one_key_takes_one_place() {
        let mut front = Front::new();
        for n in 0..100_000 {
            assert!(!noted(&mut front, 0, b"a", n, &Limits::default()));
        }
        assert!(!front.crowded());
        assert_eq!((front.used, front.bytes), (1, 5 + 8 + OVERHEAD));
        assert!(!noted(&mut front, 1, b"a", 7, &Limits::default()));
        assert_eq!(front.used, 2);
    }

    #[test]
    fn room_is_given_back() {
        let mut front = Front::new();
        for n in 0..5_000_u64 {
            noted(&mut front, 0, &n.to_be_bytes(), n, &Limits::default());
        }
        let mut handful = front.take(Handful::empty());
        handful.trim();
        assert_eq!(handful.slots.len(), 5_000);
        front.take(handful);
        noted(&mut front, 0, b"a", 1, &Limits::default());
        let mut handful = front.take(Handful::empty());
        handful.trim();
        assert_eq!(states(&handful), [(0, "a".to_owned(), 1)]);
        assert!(handful.slots.capacity() < SPARE);
        noted(&mut front, 0, &[b'a'; 100_000], 1, &Limits::default());
        let mut handful = front.take(Handful::empty());
        handful.trim();
        assert!(handful.slots.iter().all(|slot| slot.id.capacity() <= LONG));
    }

    #[test]
    fn beyond_the_bound_nothing_is_added_and_that_is_told() {
        let limits = Limits { entries: 2, ..Limits::default() };
        let mut front = Front::new();
        assert!(!noted(&mut front, 0, b"a", 1, &limits));
        assert!(!noted(&mut front, 0, b"b", 2, &limits));
        assert!(!noted(&mut front, 0, b"b", 3, &limits));
        assert!(!front.crowded());
        assert!(noted(&mut front, 0, b"c", 4, &limits));
        assert!(front.crowded());
        let handful = front.take(Handful::empty());
        assert!(handful.overrun);
        assert_eq!(handful.used, 2);
        assert!(!front.crowded());
        let limits = Limits { bytes: 2 * OVERHEAD, ..Limits::default() };
        assert!(!noted(&mut front, 0, b"a", 1, &limits));
        assert!(!noted(&mut front, 0, b"b", 1, &limits));
        assert!(noted(&mut front, 0, b"c", 1, &limits));
    }

    #[test]
    fn marks_keep_their_order_and_unfinished_walks_are_taken_over() {
        let mut front: Front<Number> = Front::new();
        front.walk_ends();
        front.walk_begins(0b01);
        front.walk_begins(0b10);
        front.walk_ends();
        front.walk_begins(0b100);
        let marks = front.take(Handful::empty()).marks;
        let shown: Vec<String> = marks.iter().map(|mark| format!("{mark:?}")).collect();
        assert_eq!(
            shown,
            [
                "Begin { walk: 1, peers: 1 }",
                "Begin { walk: 2, peers: 3 }",
                "End { walk: 2 }",
                "Begin { walk: 3, peers: 4 }"
            ]
        );
    }
}
