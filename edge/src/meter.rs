//! What one instance has seen of a backend, and how many requests it may have there at once.
//!
//! Counters only grow: whoever reads them takes the difference from what he read before, so that
//! nothing is lost by a reader that comes late.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use claw_adapt::Policy;

/// Parts of a doubling of latencies: each is 6.25 % wide at the most.
const PARTS: u32 = 16;
const PARTS_LOG2: u32 = PARTS.ilog2();
/// Classes of latencies, up to 2^37 microseconds, which are 38 hours.
const CLASSES: usize = 34 * PARTS as usize;

/// The counters of a limit whose policy follows how the backend does.
#[derive(Debug)]
pub struct Meter {
    offered: AtomicU64,
    admitted: AtomicU64,
    rejected: AtomicU64,
    completed: AtomicU64,
    late: AtomicU64,
    failed: AtomicU64,
    events: AtomicU64,
    latency_us: AtomicU64,
    classes: [AtomicU64; CLASSES],
    in_flight: AtomicU64,
    /// What is in force; its cap is this instance's part.
    policy: ArcSwap<Policy>,
}

/// What a [`Meter`] has counted at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests that asked.
    pub offered: u64,
    /// Requests that were let through.
    pub admitted: u64,
    /// Requests that were refused for the sake of the backend.
    pub rejected: u64,
    /// Completions whose latency is known.
    pub completed: u64,
    /// Of these, how many took longer than they should.
    pub late: u64,
    /// Requests that the backend failed. They say nothing of what it can do, however quick it was.
    pub failed: u64,
    /// Events of requests, whatever they say of the backend.
    pub events: u64,
    /// Microseconds that completions took, all together.
    pub latency_us: u64,
    /// Requests that are in flight now: no total.
    pub in_flight: u64,
    /// Completions by class of latency, in order, without those that are 0.
    pub classes: Vec<(u16, u64)>,
}

/// A place in flight. It is free again when this goes.
#[derive(Debug)]
pub struct Slot(Arc<Meter>);

impl Slot {
    /// Where it is taken.
    #[must_use]
    pub fn meter(&self) -> &Meter {
        &self.0
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Meter {
    /// Counts from 0, under a policy.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            offered: AtomicU64::default(),
            admitted: AtomicU64::default(),
            rejected: AtomicU64::default(),
            completed: AtomicU64::default(),
            late: AtomicU64::default(),
            failed: AtomicU64::default(),
            events: AtomicU64::default(),
            latency_us: AtomicU64::default(),
            classes: [const { AtomicU64::new(0) }; CLASSES],
            in_flight: AtomicU64::default(),
            policy: ArcSwap::from_pointee(policy),
        }
    }

    /// A request was let through.
    pub fn admit(&self) {
        self.offered.fetch_add(1, Ordering::Relaxed);
        self.admitted.fetch_add(1, Ordering::Relaxed);
    }

    /// A request was refused for the sake of the backend.
    pub fn reject(&self) {
        self.offered.fetch_add(1, Ordering::Relaxed);
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// A request was answered by the backend after so many microseconds.
    pub fn complete(&self, latency_us: u64, is_late: bool) {
        self.completed.fetch_add(1, Ordering::Relaxed);
        self.late.fetch_add(u64::from(is_late), Ordering::Relaxed);
        self.latency_us.fetch_add(latency_us, Ordering::Relaxed);
        if let Some(class) = self.classes.get(class(latency_us)) {
            class.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The backend failed a request.
    pub fn fail(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// An event told of a request, and maybe of no more than that it was there.
    pub fn hear(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes a place in flight, if one is free beside the `kept` hundredths of all.
    #[must_use]
    pub fn enter(self: &Arc<Self>, kept: u8) -> Option<Slot> {
        let most = self.most(kept);
        let enter = |taken: u64| taken.checked_add(1).filter(|taken| *taken <= most);
        let entered = self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter);
        entered.is_ok().then(|| Slot(Arc::clone(self)))
    }

    /// Whether one is free, for now.
    #[must_use]
    pub fn has_place(&self, kept: u8) -> bool {
        self.in_flight.load(Ordering::Relaxed) < self.most(kept)
    }

    /// Places that all may have who leave `kept` hundredths: one at least, or they would wait for ever
    /// where there are few.
    fn most(&self, kept: u8) -> u64 {
        self.policy.load().in_flight.map_or(u64::MAX, |cap| cap.saturating_sub(share(cap, kept)))
    }

    fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// The policy in force. Its cap is this instance's part.
    #[must_use]
    pub fn policy(&self) -> Policy {
        **self.policy.load()
    }

    /// Puts a policy in force.
    pub fn set_policy(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
    }

    /// What was counted until now.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = (0..).zip(&self.classes).map(|(class, counter)| (class, read(counter)));
        Totals {
            offered: read(&self.offered),
            admitted: read(&self.admitted),
            rejected: read(&self.rejected),
            completed: read(&self.completed),
            late: read(&self.late),
            failed: read(&self.failed),
            events: read(&self.events),
            latency_us: read(&self.latency_us),
            in_flight: read(&self.in_flight),
            classes: counts.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

/// So many hundredths of `all`, rounded up, but never all of it.
#[must_use]
pub fn share(all: u64, hundredths: u8) -> u64 {
    let share = u128::from(all).saturating_mul(hundredths.into()).div_ceil(100);
    u64::try_from(share).unwrap_or(u64::MAX).min(all.saturating_sub(1))
}

/// The class of a latency: the number of its doublings, and the part of the last one.
fn class(us: u64) -> usize {
    let us = us.max(1);
    let doublings = us.ilog2();
    let place = match doublings.checked_sub(PARTS_LOG2) {
        // Below 16 each microsecond is a class.
        None => us,
        Some(shift) => {
            let part = (us >> shift) & u64::from(PARTS - 1);
            u64::from(shift).saturating_add(1).saturating_mul(PARTS.into()).saturating_add(part)
        }
    };
    usize::try_from(place).map_or(CLASSES - 1, |place| place.min(CLASSES - 1))
}

/// The middle of a class, in microseconds.
#[must_use]
fn middle(class: u16) -> f64 {
    let (doubling, part) = (u32::from(class) / PARTS, u32::from(class) % PARTS);
    match doubling.checked_sub(1) {
        None => f64::from(part),
        Some(shift) => (f64::from(PARTS) + f64::from(part) + 0.5) * f64::from(shift).exp2() - 0.5,
    }
}

impl Totals {
    /// What has been counted since `earlier`; nothing where that is more, as of an instance that has
    /// begun anew.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        let mut before = earlier.classes.iter().copied().peekable();
        let mut classes = Vec::with_capacity(self.classes.len());
        for (class, count) in &self.classes {
            let known = before.next_if(|(known, _)| known == class).map_or(0, |(_, count)| count);
            let more = count.checked_sub(known)?;
            if more > 0 {
                classes.push((*class, more));
            }
        }
        // One that was there and is not any more.
        if before.next().is_some() {
            return None;
        }
        Some(Self {
            offered: self.offered.checked_sub(earlier.offered)?,
            admitted: self.admitted.checked_sub(earlier.admitted)?,
            rejected: self.rejected.checked_sub(earlier.rejected)?,
            completed: self.completed.checked_sub(earlier.completed)?,
            late: self.late.checked_sub(earlier.late)?,
            failed: self.failed.checked_sub(earlier.failed)?,
            events: self.events.checked_sub(earlier.events)?,
            latency_us: self.latency_us.checked_sub(earlier.latency_us)?,
            in_flight: self.in_flight,
            classes,
        })
    }

    /// Adds what another instance has counted.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in [
            (&mut self.offered, other.offered),
            (&mut self.admitted, other.admitted),
            (&mut self.rejected, other.rejected),
            (&mut self.completed, other.completed),
            (&mut self.late, other.late),
            (&mut self.failed, other.failed),
            (&mut self.events, other.events),
            (&mut self.latency_us, other.latency_us),
            (&mut self.in_flight, other.in_flight),
        ] {
            *sum = sum.saturating_add(more);
        }
        for (class, more) in &other.classes {
            match self.classes.binary_search_by_key(class, |(class, _)| *class) {
                Ok(place) => {
                    if let Some((_, count)) = self.classes.get_mut(place) {
                        *count = count.saturating_add(*more);
                    }
                }
                Err(place) => self.classes.insert(place, (*class, *more)),
            }
        }
    }

    /// Seconds that so many hundredths of the completions did not exceed; nothing without any.
    #[must_use]
    pub fn quantile_s(&self, hundredths: u64) -> Option<f64> {
        let all: u64 = self.classes.iter().map(|(_, count)| *count).fold(0, u64::saturating_add);
        let rank = all.saturating_mul(hundredths).checked_div(100)?;
        let mut below = 0_u64;
        let class = self.classes.iter().find(|(_, count)| {
            below = below.saturating_add(*count);
            below > rank
        })?;
        Some(middle(class.0) / 1e6)
    }

    /// Seconds that a completion took on average; nothing without any.
    #[must_use]
    pub fn mean_s(&self) -> Option<f64> {
        (self.completed > 0).then(|| self.latency_us as f64 / 1e6 / self.completed as f64)
    }

    /// As text: nine numbers, and `class:count` for each class.
    #[must_use]
    pub fn to_text(&self) -> String {
        let Self {
            offered,
            admitted,
            rejected,
            completed,
            late,
            failed,
            events,
            latency_us,
            in_flight,
            classes,
        } = self;
        let mut text = format!(
            "{offered} {admitted} {rejected} {completed} {late} {failed} {events} {latency_us} {in_flight}"
        );
        for (class, count) in classes {
            text.push_str(&format!(" {class}:{count}"));
        }
        text
    }

    /// Reads [`Self::to_text`]'s; nothing if it is something else.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let mut number = || words.next()?.parse::<u64>().ok();
        let mut totals = Self {
            offered: number()?,
            admitted: number()?,
            rejected: number()?,
            completed: number()?,
            late: number()?,
            failed: number()?,
            events: number()?,
            latency_us: number()?,
            in_flight: number()?,
            classes: Vec::new(),
        };
        for word in words {
            let (class, count) = word.split_once(':')?;
            let class: u16 = class.parse().ok().filter(|class| usize::from(*class) < CLASSES)?;
            if totals.classes.last().is_some_and(|(last, _)| *last >= class) {
                return None;
            }
            totals.classes.push((class, count.parse().ok()?));
        }
        Some(totals)
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: Policy = Policy { refill_micros: 1_000_000, capacity: 10, in_flight: Some(10) };

    #[test]
    fn places_in_flight_are_counted_and_some_are_kept() {
        let meter = Arc::new(Meter::new(LIMIT));
        let basic: Vec<Option<Slot>> = (0..12).map(|_| meter.enter(15)).collect();
        assert_eq!(basic.iter().flatten().count(), 8, "two of ten are kept: 15 % rounded up");
        let premium: Vec<Option<Slot>> = (0..12).map(|_| meter.enter(0)).collect();
        assert_eq!(premium.iter().flatten().count(), 2);
        assert_eq!(meter.totals().in_flight, 10);
        drop((basic, premium));
        assert_eq!(meter.totals().in_flight, 0);
        meter.set_policy(Policy { in_flight: None, ..LIMIT });
        assert!((0..100).map(|_| meter.enter(15)).all(|slot| slot.is_some()));
        // Of few places not all are kept.
        for (cap, kept, others) in [(1, 10, 1), (2, 10, 1), (2, 90, 1), (3, 90, 1), (20, 90, 2)] {
            meter.set_policy(Policy { in_flight: Some(cap), ..LIMIT });
            let slots: Vec<Slot> = (0..30).map_while(|_| meter.enter(kept)).collect();
            assert_eq!(slots.len(), others, "{cap} {kept}");
            assert!(!meter.has_place(kept));
        }
    }

    proptest! {
        #[test]
        fn a_latency_is_known_to_six_per_cent(us in 1_u64..100_000_000_000) {
            let meter = Meter::new(LIMIT);
            meter.complete(us, false);
            let seen = meter.totals().quantile_s(50).unwrap() * 1e6;
            prop_assert!((seen - us as f64).abs() <= 0.0625 / 2.0 * us as f64 + 0.5, "{us}: {seen}");
        }

        #[test]
        fn totals_are_read_as_they_were_written(
            latencies in prop::collection::vec(0_u64.., 0..40), late: bool, asked in 0_u8..20,
        ) {
            let meter = Meter::new(LIMIT);
            (0..asked).for_each(|_| meter.reject());
            let before = meter.totals();
            latencies.iter().for_each(|us| meter.complete(us >> 8, late));
            let after = meter.totals();
            prop_assert_eq!(Totals::from_text(&after.to_text()), Some(after.clone()));
            let since = after.since(&before).unwrap();
            prop_assert_eq!(since.completed, latencies.len() as u64);
            prop_assert_eq!(since.rejected, 0);
            let mut sum = before.clone();
            sum.add(&since);
            prop_assert_eq!(&sum, &after);
            // Half of it at another instance, in any order.
            let (mut twice, one) = (after.clone(), after);
            twice.add(&one);
            prop_assert_eq!(twice.since(&one), Some(one));
        }

        #[test]
        fn nothing_that_is_no_text_of_totals_is_read(text in "[0-9: x-]{0,40}") {
            if let Some(totals) = Totals::from_text(&text) {
                prop_assert_eq!(Totals::from_text(&totals.to_text()), Some(totals));
            }
        }
    }

    #[test]
    fn an_instance_that_began_anew_has_no_difference() {
        let [before, after] = ["5 5 0 1 0 0 0 100 0 40:1", "5 5 0 1 0 0 0 100 0 41:1"]
            .map(|text| Totals::from_text(text).unwrap());
        assert_eq!(after.since(&before), None);
        assert_eq!(Totals::default().since(&before), None);
    }
}
