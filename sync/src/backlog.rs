//! What one peer is still to get: the latest state of each key.

use crate::config::Limits;
use crate::note_log::Entry;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};

/// A state on its way to one peer.
#[derive(Debug)]
pub(crate) struct QueuedState {
    pub entry: Entry,
    /// Since when the key has been waiting.
    pub since: u64,
}

impl PartialEq for QueuedState {
    fn eq(&self, other: &Self) -> bool {
        self.entry.id() == other.entry.id()
    }
}

impl Eq for QueuedState {}

impl Hash for QueuedState {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.entry.id().hash(state);
    }
}

/// There is no room for another state.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overrun;

/// States by key, and those that have been taken for sending, which count too.
#[derive(Debug)]
pub(crate) struct Backlog {
    states: HashSet<QueuedState>,
    bytes: usize,
    oldest: Option<u64>,
    /// Number, bytes and oldest of what has been taken.
    taken: (usize, usize, Option<u64>),
}

impl Backlog {
    pub fn new() -> Self {
        Self { states: HashSet::new(), bytes: 0, oldest: None, taken: (0, 0, None) }
    }

    /// How many states are not acknowledged.
    pub fn len(&self) -> usize {
        self.states.len().saturating_add(self.taken.0)
    }

    /// How many bytes these take.
    pub fn bytes(&self) -> usize {
        self.bytes.saturating_add(self.taken.1)
    }

    /// Since when the oldest state has been waiting, those taken included.
    pub fn oldest(&self) -> Option<u64> {
        earlier(self.oldest, self.taken.2)
    }

    /// Adds a state, in place of an earlier one.
    ///
    /// # Errors
    /// When it does not fit. Nothing is changed then.
    pub fn put(&mut self, entry: Entry, since: u64, limits: &Limits) -> Result<(), Overrun> {
        let mut new = QueuedState { entry, since };
        let old = self.states.take(&new);
        if let Some(old) = &old {
            // The key has been waiting since then.
            new.since = old.since.min(since);
            self.bytes = self.bytes.saturating_sub(old.entry.cost());
        }
        let result = self.insert(new, limits);
        if let (Err(Overrun), Some(old)) = (&result, old) {
            self.bytes = self.bytes.saturating_add(old.entry.cost());
            self.states.insert(old);
        }
        result
    }

    /// Brings back a state that did not reach the peer. A newer one that has
    /// been put meanwhile stays.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn put_back(&mut self, old: QueuedState, limits: &Limits) -> Result<(), Overrun> {
        if let Some(mut newer) = self.states.take(&old) {
            newer.since = newer.since.min(old.since);
            self.oldest = earlier(self.oldest, Some(newer.since));
            self.states.insert(newer);
            return Ok(());
        }
        self.insert(old, limits)
    }

    fn insert(&mut self, new: QueuedState, limits: &Limits) -> Result<(), Overrun> {
        let bytes = self.bytes.saturating_add(new.entry.cost());
        if self.len() >= limits.entries || bytes.saturating_add(self.taken.1) > limits.bytes {
            return Err(Overrun);
        }
        self.bytes = bytes;
        self.oldest = earlier(self.oldest, Some(new.since));
        self.states.insert(new);
        Ok(())
    }

    /// Takes everything for sending.
    pub fn take(&mut self) -> Vec<QueuedState> {
        self.taken = (self.states.len(), self.bytes, self.oldest);
        self.bytes = 0;
        self.oldest = None;
        std::mem::take(&mut self.states).into_iter().collect()
    }

    /// What was taken is done with: arrived, refused or put back next.
    pub fn settle(&mut self) {
        self.taken = (0, 0, None);
    }

    /// Forgets what is waiting, `but_one` if wanted; what has been taken stays taken.
    pub fn clear(&mut self, but_one: bool) {
        let kept = std::mem::take(&mut self.states).into_iter().next().filter(|_| but_one);
        self.bytes = kept.as_ref().map_or(0, |kept| kept.entry.cost());
        self.oldest = kept.as_ref().map(|kept| kept.since);
        self.states.extend(kept);
    }
}

/// The earlier of two moments, either of which may not be.
pub(crate) fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::note_log;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn entry(key: u8, n: u64) -> Entry {
        Entry::new(&note_log::id(0, &[key]), &n.to_be_bytes())
    }

    fn contents(backlog: &Backlog) -> BTreeMap<u8, (u64, u64)> {
        let of = |n: &QueuedState| {
            (
                n.entry.key()[0],
                (u64::from_be_bytes(*n.entry.state().first_chunk().unwrap()), n.since),
            )
        };
        backlog.states.iter().map(of).collect()
    }

    #[test]
    fn what_comes_back_does_not_replace_what_is_newer() {
        let limits = Limits::default();
        let mut backlog = Backlog::new();
        backlog.put(entry(b'a', 1), 10, &limits).unwrap();
        backlog.put(entry(b'b', 2), 11, &limits).unwrap();
        let taken = backlog.take();
        assert_eq!((backlog.len(), backlog.oldest()), (2, Some(10)));
        backlog.put(entry(b'a', 3), 12, &limits).unwrap();
        assert_eq!(backlog.len(), 3);
        backlog.settle();
        for noted in taken {
            backlog.put_back(noted, &limits).unwrap();
        }
        // `a` is the newer state, and has been waiting for longer than it exists.
        assert_eq!(contents(&backlog), BTreeMap::from([(b'a', (3, 10)), (b'b', (2, 11))]));
        assert_eq!((backlog.len(), backlog.oldest()), (2, Some(10)));
    }

    #[test]
    fn what_is_on_its_way_counts() {
        let limits = Limits { entries: 2, ..Limits::default() };
        let mut backlog = Backlog::new();
        backlog.put(entry(b'a', 1), 1, &limits).unwrap();
        let _taken = backlog.take();
        backlog.put(entry(b'b', 1), 2, &limits).unwrap();
        backlog.put(entry(b'b', 2), 3, &limits).unwrap();
        assert_eq!(backlog.put(entry(b'c', 1), 4, &limits), Err(Overrun));
        backlog.settle();
        backlog.put(entry(b'c', 1), 4, &limits).unwrap();
        assert_eq!(backlog.oldest(), Some(2));
        let limits = Limits { bytes: 1, ..Limits::default() };
        // One that does not fit leaves what was there.
        assert_eq!(backlog.put(entry(b'c', 2), 5, &limits), Err(Overrun));
        assert_eq!(contents(&backlog), BTreeMap::from([(b'b', (2, 2)), (b'c', (1, 4))]));
        backlog.clear(true);
        assert_eq!((backlog.len(), backlog.bytes > 0), (1, true));
        let (bytes, since) =
            backlog.states.iter().map(|n| (n.entry.cost(), n.since)).next().unwrap();
        assert_eq!((backlog.bytes, backlog.oldest()), (bytes, Some(since)));
        backlog.clear(false);
        assert_eq!((backlog.len(), backlog.bytes, backlog.oldest()), (0, 0, None));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Put(u8),
        /// Sends everything; of what was taken these arrive.
        Round {
            arrive: u8,
            meanwhile: Vec<u8>,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = 0_u8..6;
        prop_oneof![
            3 => key.clone().prop_map(Step::Put),
            1 => (any::<u8>(), prop::collection::vec(key, 0..4))
                .prop_map(|(arrive, meanwhile)| Step::Round { arrive, meanwhile }),
        ]
    }

    proptest! {
        /// Against a model that keeps every state of every key: what waits is
        /// always the last state noted, unless that has arrived, with the time of
        /// the first one that has not been followed by an arrival.
        #[test]
        fn nothing_is_lost_doubled_or_out_of_date(steps in prop::collection::vec(step(), 0..60)) {
            let limits = Limits::default();
            let mut backlog = Backlog::new();
            let mut model: BTreeMap<u8, (u64, u64)> = BTreeMap::new();
            let mut clock = 0;
            let mut put = |key, backlog: &mut Backlog, model: &mut BTreeMap<_, _>| {
                clock += 1;
                backlog.put(entry(key, clock), clock, &limits).unwrap();
                let since = model.get(&key).map_or(clock, |(_, since)| *since);
                model.insert(key, (clock, since));
            };
            for step in steps {
                match step {
                    Step::Put(key) => put(key, &mut backlog, &mut model),
                    Step::Round { arrive, meanwhile } => {
                        let taken = backlog.take();
                        let (arrived, failed): (Vec<_>, Vec<_>) = taken
                            .into_iter()
                            .partition(|n| arrive >> n.entry.key()[0] & 1 == 1);
                        for noted in &arrived {
                            model.remove(&noted.entry.key()[0]);
                        }
                        for key in meanwhile {
                            put(key, &mut backlog, &mut model);
                        }
                        backlog.settle();
                        for noted in failed {
                            backlog.put_back(noted, &limits).unwrap();
                        }
                    }
                }
                prop_assert_eq!(&contents(&backlog), &model);
                prop_assert_eq!(backlog.oldest(), model.values().map(|(_, since)| *since).min());
                let cost = backlog.states.iter().map(|n| n.entry.cost()).sum::<usize>();
                prop_assert_eq!(backlog.bytes, cost);
            }
        }
    }
}
