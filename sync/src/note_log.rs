//! What has been noted since the last hand-out.

use crate::config::Limits;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What an entry takes besides key and state, roughly: its place in a peer's
/// table, the reference counts, the allocator's share.
const OVERHEAD: usize = 96;
/// How many notes make the hand-out thread come early, so that there are few to
/// move when room is made for more: that happens on the main thread.
const EARLY: usize = 2_048;
/// Room for more bytes than this that was hardly used is given back.
const SPARE_BYTES: usize = 1 << 18;
/// Room for more bytes than this for one key is not kept.
const LONG: usize = 1_024;
/// The number of the database comes first in an id.
const DB: usize = size_of::<u32>();

/// The id of a key, and what there is to say of it, in one piece of memory.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    bytes: Vec<u8>,
    id_len: usize,
}

impl Piece {
    /// Becomes another one, in the same memory.
    pub fn set(&mut self, id: &[u8], what: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(id);
        self.bytes.extend_from_slice(what);
        self.id_len = id.len();
    }

    /// Database and key.
    pub fn id(&self) -> &[u8] {
        self.bytes.get(..self.id_len).unwrap_or_default()
    }

    /// What there is to say.
    pub fn what(&self) -> &[u8] {
        self.bytes.get(self.id_len..).unwrap_or_default()
    }

    /// Bytes of memory, with what is left over of an earlier, longer one.
    pub fn cost(&self) -> usize {
        self.bytes.capacity().saturating_add(OVERHEAD)
    }

    /// Whether it takes more memory than most.
    pub fn is_long(&self) -> bool {
        self.bytes.capacity() > LONG
    }
}

/// A state that is on its way; shared by the peers.
#[derive(Debug, Clone)]
pub(crate) struct Entry(Arc<Piece>);

impl Entry {
    pub fn new(id: &[u8], state: &[u8]) -> Self {
        let mut piece = Piece::default();
        piece.bytes.reserve_exact(id.len().saturating_add(state.len()));
        piece.set(id, state);
        Self(Arc::new(piece))
    }

    /// Becomes another one, in the same memory; `false` when somebody still has it.
    pub fn become_one(&mut self, id: &[u8], state: &[u8]) -> bool {
        Arc::get_mut(&mut self.0).is_some_and(|piece| {
            piece.set(id, state);
            true
        })
    }

    pub fn id(&self) -> &[u8] {
        self.0.id()
    }

    pub fn db(&self) -> u32 {
        self.id().first_chunk::<DB>().copied().map(u32::from_le_bytes).unwrap_or_default()
    }

    pub fn key(&self) -> &[u8] {
        self.id().get(DB..).unwrap_or_default()
    }

    pub fn state(&self) -> &[u8] {
        self.0.what()
    }

    /// Bytes of memory.
    pub fn cost(&self) -> usize {
        self.0.cost()
    }
}

/// Entries that peers are done with, to be used again: each allocation of another
/// thread makes the server's main thread wait for the count of used memory.
#[derive(Debug, Default)]
pub(crate) struct EntryPool(Mutex<Vec<Entry>>);

impl EntryPool {
    /// Takes back what one peer is done with; others may still have it.
    pub fn give(&self, entries: &mut Vec<Entry>) {
        entries.retain(|entry| !entry.0.is_long());
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
#[cfg(test)]
pub(crate) fn id(db: u32, key: &[u8]) -> Vec<u8> {
    [&db.to_le_bytes(), key].concat()
}

/// Notes in the order in which they came, one behind the other: for each the lengths
/// of its id and of itself, both in 4 bytes, and those. So the main thread fills one
/// run of memory after the other, whatever is noted.
#[derive(Debug, Default)]
struct Notes {
    bytes: Vec<u8>,
    count: usize,
    /// Where the last one begins.
    last: usize,
}

/// Of the lengths before each note.
const HEAD: usize = 2 * LEN;
const LEN: usize = size_of::<u32>();

impl Notes {
    fn push(&mut self, db: u32, key: &[u8], parts: &[&[u8]]) {
        let id_len = DB.saturating_add(key.len());
        let note_len = parts.iter().fold(0_usize, |len, part| len.saturating_add(part.len()));
        let (Ok(id), Ok(note)) = (u32::try_from(id_len), u32::try_from(note_len)) else {
            return;
        };
        self.last = self.bytes.len();
        self.count = self.count.saturating_add(1);
        let needed = HEAD.saturating_add(id_len).saturating_add(note_len);
        self.bytes.reserve(needed);
        let [a, b, c] = [id, note, db].map(u32::to_le_bytes);
        self.bytes.extend_from_slice([a, b, c].as_flattened());
        self.bytes.extend_from_slice(key);
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
    }

    /// Takes the last one back if it is of this key.
    fn pop_same(&mut self, db: u32, key: &[u8]) -> bool {
        let last = self.bytes.get(self.last..).and_then(split).map(|(id, _, _)| id);
        let is_same = |id: &[u8]| {
            id.split_first_chunk().is_some_and(|(of, name)| *of == db.to_le_bytes() && name == key)
        };
        if self.count == 0 || !last.is_some_and(is_same) {
            return false;
        }
        self.bytes.truncate(self.last);
        self.count = self.count.saturating_sub(1);
        true
    }

    /// Ids and notes.
    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (id, note, after) = split(rest)?;
            rest = after;
            Some((id, note))
        })
    }

    fn clear(&mut self) {
        let used = self.bytes.len();
        self.bytes.clear();
        if self.bytes.capacity() > SPARE_BYTES && used < self.bytes.capacity() >> 3 {
            self.bytes.shrink_to(used.saturating_mul(2));
        }
        (self.count, self.last) = (0, 0);
    }
}

/// The first id and note, and what comes behind them.
fn split(log: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (id_len, rest) = log.split_first_chunk::<LEN>()?;
    let (note_len, rest) = rest.split_first_chunk::<LEN>()?;
    let len = |bytes: &[u8; LEN]| usize::try_from(u32::from_le_bytes(*bytes)).ok();
    let (id, rest) = rest.split_at_checked(len(id_len)?)?;
    let (note, rest) = rest.split_at_checked(len(note_len)?)?;
    Some((id, note, rest))
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
#[derive(Debug, Default)]
pub(crate) struct NoteLog {
    notes: Notes,
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
#[derive(Debug, Default)]
pub(crate) struct NoteBatch {
    notes: Notes,
    /// When the first of them was noted.
    pub since: Option<u64>,
    /// Some states are missing, for want of room.
    pub overrun: bool,
    pub marks: Vec<Mark>,
}

impl NoteLog {
    /// How many notes there are.
    pub fn noted(&self) -> usize {
        self.notes.count
    }

    /// Notes the latest state of a key, in parts that follow each other. Returns
    /// whether the hand-out thread should come at once. `now` is only asked when
    /// there was nothing.
    pub fn note(
        &mut self,
        (db, key): (u32, &[u8]),
        parts: &[&[u8]],
        limits: &Limits,
        now: impl FnOnce() -> u64,
    ) -> bool {
        // The bucket that everybody uses is noted once.
        let again = self.notes.pop_same(db, key);
        if self.notes.count >= limits.entries || self.notes.bytes.len() >= limits.bytes {
            // Freeing what is there would take long, on the main thread.
            self.overrun = true;
            return true;
        }
        self.notes.push(db, key, parts);
        if self.since.is_none() {
            self.since = Some(now());
        }
        !again && self.notes.count == EARLY
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
        self.notes.count >= EARLY || self.overrun
    }

    /// When the first state was noted.
    pub fn since(&self) -> Option<u64> {
        self.since
    }

    /// Takes everything, and leaves the room of `spare` to be filled.
    pub fn take(&mut self, spare: NoteBatch) -> NoteBatch {
        NoteBatch {
            notes: std::mem::replace(&mut self.notes, spare.notes),
            since: self.since.take(),
            overrun: std::mem::take(&mut self.overrun),
            marks: std::mem::take(&mut self.marks),
        }
    }
}

impl NoteBatch {
    /// What was noted, in order: ids and notes.
    pub fn noted(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.notes.iter()
    }

    /// Its room is to be used again; more than was needed is given back.
    pub fn clear(&mut self) {
        self.notes.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn noted(log: &mut NoteLog, db: u32, key: &[u8], n: u64, limits: &Limits) -> bool {
        let bytes = n.to_be_bytes();
        let (high, low) = bytes.split_at(4);
        log.note((db, key), &[high, low], limits, || n)
    }

    fn states(batch: &NoteBatch) -> Vec<(u32, String, u64)> {
        let state = |(id, note): (&[u8], &[u8])| {
            let (db, key) = id.split_first_chunk().unwrap();
            let key = String::from_utf8(key.into()).unwrap();
            (u32::from_le_bytes(*db), key, u64::from_be_bytes(note.try_into().unwrap()))
        };
        batch.noted().map(state).collect()
    }

    #[test]
    fn what_is_noted_is_taken_once_and_in_order() {
        let limits = Limits::default();
        let mut log = NoteLog::default();
        for (db, key, n) in
            [(0, "a", 1), (0, "a", 2), (1, "a", 3), (0, "b", 4), (0, "a", 5), (0, "", 6)]
        {
            assert!(!noted(&mut log, db, key.as_bytes(), n, &limits));
        }
        assert_eq!(log.since(), Some(1));
        let mut batch = log.take(NoteBatch::default());
        assert_eq!((batch.since, batch.overrun, log.since()), (Some(1), false, None));
        let expected = [(0, "a", 2), (1, "a", 3), (0, "b", 4), (0, "a", 5), (0, "", 6)];
        assert_eq!(states(&batch), expected.map(|(db, key, n)| (db, key.to_owned(), n)));
        // What is there to be used again is not there to be sent again.
        batch.clear();
        assert_eq!(states(&log.take(batch)), []);
        noted(&mut log, 0, b"c", 6, &limits);
        assert_eq!(states(&log.take(NoteBatch::default())), [(0, "c".to_owned(), 6)]);
    }

    /// A note may be longer or shorter than the one that it follows.
    #[test]
    fn one_key_takes_one_place() {
        let limits = Limits::default();
        let mut log = NoteLog::default();
        for n in 0..100_000 {
            assert!(!noted(&mut log, 0, b"a", n, &limits));
            assert!(!log.note((0, b"a"), &[], &limits, || n));
            assert!(!log.note((0, b"a"), &[&[7; 100]], &limits, || n));
        }
        assert!(!log.crowded());
        assert_eq!((log.notes.count, log.notes.bytes.len()), (1, HEAD + 5 + 100));
        assert!(!noted(&mut log, 1, b"a", 7, &limits));
        assert_eq!(log.notes.count, 2);
        let batch = log.take(NoteBatch::default());
        let noted: Vec<_> = batch.noted().collect();
        let (a, b) = (id(0, b"a"), id(1, b"a"));
        let seven: &[u8] = &7_u64.to_be_bytes();
        assert_eq!(noted, [(a.as_slice(), [7; 100].as_slice()), (b.as_slice(), seven)]);
    }

    #[test]
    fn room_is_given_back() {
        let mut log = NoteLog::default();
        for n in 0..20_000_u64 {
            noted(&mut log, 0, &n.to_be_bytes(), n, &Limits::default());
        }
        let mut batch = log.take(NoteBatch::default());
        let room = batch.notes.bytes.capacity();
        batch.clear();
        assert!(room > SPARE_BYTES && batch.notes.bytes.capacity() == room);
        log.take(batch);
        noted(&mut log, 0, b"a", 1, &Limits::default());
        let mut batch = log.take(NoteBatch::default());
        assert_eq!(batch.notes.bytes.capacity(), room);
        batch.clear();
        assert!(batch.notes.bytes.capacity() < SPARE_BYTES);
    }

    #[test]
    fn beyond_the_bound_nothing_is_added_and_that_is_told() {
        let limits = Limits { entries: 2, ..Limits::default() };
        let mut log = NoteLog::default();
        assert!(!noted(&mut log, 0, b"a", 1, &limits));
        assert!(!noted(&mut log, 0, b"b", 2, &limits));
        assert!(!noted(&mut log, 0, b"b", 3, &limits));
        assert!(!log.crowded());
        assert!(noted(&mut log, 0, b"c", 4, &limits));
        assert!(log.crowded());
        let batch = log.take(NoteBatch::default());
        assert!(batch.overrun);
        assert_eq!(batch.noted().count(), 2);
        assert!(!log.crowded());
        let limits = Limits { bytes: 2 * HEAD, ..Limits::default() };
        assert!(!noted(&mut log, 0, b"a", 1, &limits));
        assert!(noted(&mut log, 0, b"c", 1, &limits));
        assert!(!noted(&mut log, 0, b"a", 2, &limits));
        assert_eq!(states(&log.take(NoteBatch::default())), [(0, "a".to_owned(), 2)]);
    }

    #[test]
    fn marks_keep_their_order_and_unfinished_walks_are_taken_over() {
        let mut log = NoteLog::default();
        log.walk_ends();
        log.walk_begins(0b01);
        log.walk_begins(0b10);
        log.walk_ends();
        log.walk_begins(0b100);
        let marks = log.take(NoteBatch::default()).marks;
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
