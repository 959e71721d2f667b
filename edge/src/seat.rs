//! So many seats: whoever has some holds them for as long as he keeps them.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many seats.
#[derive(Debug)]
pub struct Seats {
    most: usize,
    taken: AtomicUsize,
}

/// Some of them. `S` leads to the seats, which it may own a part of.
#[derive(Debug)]
pub struct Seat<S: Deref<Target = Seats>> {
    of: S,
    count: usize,
}

impl Seats {
    /// Seats that are all free.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, taken: AtomicUsize::new(0) }
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Whether so many more are free, at this moment.
    #[must_use]
    pub fn have(&self, count: usize) -> bool {
        self.with(self.taken(), count).is_some()
    }

    fn with(&self, taken: usize, count: usize) -> Option<usize> {
        taken.checked_add(count).filter(|taken| *taken <= self.most)
    }

    fn take(&self, count: usize) -> bool {
        let with = |taken| self.with(taken, count);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with).is_ok()
    }
}

impl<S: Deref<Target = Seats>> Seat<S> {
    /// One, unless all are taken.
    pub fn one(of: S) -> Option<Self> {
        let mut seat = Self::none(of);
        seat.add(1).then_some(seat)
    }

    /// None yet.
    pub fn none(of: S) -> Self {
        Self { of, count: 0 }
    }

    /// Takes so many more, unless fewer are free. Says whether it has.
    pub fn add(&mut self, count: usize) -> bool {
        let is_taken = self.of.take(count);
        if is_taken {
            self.count = self.count.saturating_add(count);
        }
        is_taken
    }
}

impl<S: Deref<Target = Seats>> Drop for Seat<S> {
    fn drop(&mut self) {
        self.of.taken.fetch_sub(self.count, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn so_many_have_a_seat_and_no_more_until_one_has_gone() {
        for most in [1, 2, 1_024] {
            let seats = Seats::new(most);
            let mut sitting: Vec<_> = (0..most).map(|_| Seat::one(&seats).unwrap()).collect();
            for _ in 0..2 {
                assert!(Seat::one(&seats).is_none());
            }
            drop(sitting.pop());
            assert!(Seat::one(&seats).is_some());
            drop(sitting);
            assert_eq!(seats.taken(), 0);
        }
    }

    #[test]
    fn several_are_taken_together_or_not_at_all() {
        let seats = Seats::new(10);
        let (mut one, mut other) = (Seat::none(&seats), Seat::none(&seats));
        assert!(one.add(4) && one.add(2) && other.add(0));
        assert!(!other.add(5) && !other.add(usize::MAX) && !seats.have(5));
        assert_eq!(seats.taken(), 6);
        assert!(seats.have(4) && other.add(4) && !one.add(1));
        drop(one);
        assert_eq!(seats.taken(), 4);
        assert!(other.add(6));
        drop(other);
        assert_eq!(seats.taken(), 0);
    }
}
