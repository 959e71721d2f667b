//! One of so many seats, held for as long as it is kept.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A seat among those that a counter counts.
pub struct Seat<'a>(&'a AtomicUsize);

impl<'a> Seat<'a> {
    /// A seat, unless `most` are taken.
    pub fn enter(taken: &'a AtomicUsize, most: usize) -> Option<Self> {
        let seat = Self(taken);
        (taken.fetch_add(1, Ordering::Relaxed) < most).then_some(seat)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::MOST_DECIDING;
    use super::super::link::IN_FLIGHT;
    use super::*;

    #[test]
    fn so_many_have_a_seat_and_no_more_until_one_has_gone() {
        for most in [IN_FLIGHT, MOST_DECIDING] {
            let taken = AtomicUsize::new(0);
            let mut seats: Vec<Seat<'_>> =
                (0..most).map(|_| Seat::enter(&taken, most).unwrap()).collect();
            for _ in 0..2 {
                assert!(Seat::enter(&taken, most).is_none());
            }
            drop(seats.pop());
            assert!(Seat::enter(&taken, most).is_some());
            drop(seats);
            assert_eq!(taken.into_inner(), 0);
        }
    }
}
