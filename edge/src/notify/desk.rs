//! What has been read of the outbox and not been delivered yet: who is next, and up to where all
//! is done. No socket, no clock.

use std::collections::{HashMap, VecDeque};

use super::event::Event;

/// Notifications that are on their way.
#[derive(Debug, Default)]
pub struct Desk {
    /// Entries of the outbox in order, and whether each is done. The first one is not.
    window: VecDeque<(String, bool)>,
    /// Who has one on its way, and what comes after that.
    lanes: HashMap<String, VecDeque<Event>>,
    /// How many are not done.
    open: usize,
    /// The last entry of the outbox before which all are done; nothing if that is noted.
    done_to: Option<String>,
    /// How many are done since that was noted.
    done: usize,
}

impl Desk {
    /// How many are on their way or wait.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open
    }

    /// Takes one in. Returns it when it can go now: nothing of its user is on its way.
    pub fn add(&mut self, event: Event) -> Option<Event> {
        self.open = self.open.saturating_add(1);
        if !event.is_again {
            self.window.push_back((event.id.clone(), false));
        }
        if let Some(lane) = self.lanes.get_mut(&event.user) {
            lane.push_back(event);
            return None;
        }
        self.lanes.insert(event.user.clone(), VecDeque::new());
        Some(event)
    }

    /// Passes over an entry of the outbox that nobody can be told of.
    pub fn skip(&mut self, id: String) {
        self.window.push_back((id, true));
        self.advance();
    }

    /// One is done. Returns the next one of the same user.
    pub fn done(&mut self, event: &Event) -> Option<Event> {
        self.open = self.open.saturating_sub(1);
        self.done = self.done.saturating_add(1);
        if !event.is_again {
            if let Some((_, is_done)) = self.window.iter_mut().find(|(id, _)| *id == event.id) {
                *is_done = true;
            }
            self.advance();
        }
        let next = self.lanes.get_mut(&event.user).and_then(VecDeque::pop_front);
        if next.is_none() {
            self.lanes.remove(&event.user);
        }
        next
    }

    /// How many entries of the outbox were read from the first that is not done on.
    #[must_use]
    pub fn ahead(&self) -> usize {
        self.window.len()
    }

    fn advance(&mut self) {
        while self.window.front().is_some_and(|(_, is_done)| *is_done) {
            self.done_to = self.window.pop_front().map(|(id, _)| id);
        }
    }

    /// Up to where all is done, if it is time to note that: so many are done since, or nothing else
    /// is left to do.
    #[must_use]
    pub fn to_note(&self, often: usize) -> Option<&str> {
        self.done_to.as_deref().filter(|_| self.done >= often || self.window.is_empty())
    }

    /// What [`to_note`](Self::to_note) said is noted.
    pub fn noted(&mut self) {
        self.done = 0;
        self.done_to = None;
    }

    /// The first entry of the outbox that is not done.
    #[must_use]
    pub fn oldest(&self) -> Option<&str> {
        self.window.front().map(|(id, _)| id.as_str())
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    fn event(place: usize, user: u8, is_again: bool) -> Event {
        Event {
            id: format!("{place}-0"),
            is_again,
            user: user.to_string(),
            rating: None,
            stamp: 0,
            region: String::new(),
        }
    }

    proptest! {
        #[test]
        fn each_goes_once_in_the_order_of_its_user_and_nothing_is_noted_too_early(
            entries in prop::collection::vec((0..4_u8, prop::bool::weighted(0.1)), 0..40),
            picks in prop::collection::vec(any::<Index>(), 200),
        ) {
            let mut desk = Desk::default();
            let (mut coming, mut going, mut gone) = (0, Vec::new(), Vec::new());
            for pick in picks {
                // Either one more comes, or one of those under way is done.
                let choice = pick.index(going.len() + 1);
                if choice == going.len() {
                    if coming < entries.len() {
                        let (user, is_again) = entries[coming];
                        going.extend(desk.add(event(coming, user, is_again)));
                        coming += 1;
                    }
                } else {
                    let done: Event = going.swap_remove(choice);
                    going.extend(desk.done(&done));
                    gone.push(done.id);
                }
                prop_assert_eq!(desk.open(), coming - gone.len());
                let users: Vec<&str> = going.iter().map(|event| event.user.as_str()).collect();
                prop_assert!((1..users.len()).all(|at| !users[..at].contains(&users[at])));
                if let Some(note) = desk.to_note(3) {
                    let note: usize = note.strip_suffix("-0").unwrap().parse().unwrap();
                    let before = (0..=note).filter(|place| !entries[*place].1);
                    for place in before {
                        prop_assert!(gone.contains(&format!("{place}-0")), "{place} of {note}");
                    }
                    desk.noted();
                }
            }
            while let Some(done) = going.pop() {
                going.extend(desk.done(&done));
                gone.push(done.id);
            }
            prop_assert_eq!(gone.len(), coming);
            prop_assert_eq!(desk.oldest(), None);
            for user in 0..4 {
                let of_user = |id: &&String| {
                    entries[id.strip_suffix("-0").unwrap().parse::<usize>().unwrap()].0 == user
                };
                let order: Vec<usize> = gone
                    .iter()
                    .filter(of_user)
                    .map(|id| id.strip_suffix("-0").unwrap().parse().unwrap())
                    .collect();
                prop_assert!(order.is_sorted(), "{order:?}");
            }
        }
    }
}
