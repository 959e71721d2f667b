//! Requests that others hand on to a backend, as they tell: each has a ticket from when it was let
//! through until it is told to be done.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::meter::Slot;
use crate::redis::health::locked;

/// How long a request may be in flight. What has not been told to be done by then never will be.
const LONGEST: Duration = Duration::from_secs(60);
/// Tickets at once, however much may be in flight.
const MOST: usize = 65_536;
/// What is kept for other instances until they are told, at the most.
const MOST_ELSEWHERE: usize = 4_096;

/// The tickets of one instance.
#[derive(Debug)]
pub struct Tickets {
    instance: String,
    /// Whether other instances can be told.
    is_heard: bool,
    next: AtomicU64,
    open: Mutex<HashMap<u64, Open>>,
    elsewhere: Mutex<Vec<(String, Done)>>,
}

#[derive(Debug)]
struct Open {
    slot: Slot,
    sla: Duration,
    since: Instant,
}

/// A request that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    number: u64,
    latency_us: u64,
    has_failed: bool,
}

/// What became of a word that a request is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It was in flight until now.
    Done,
    /// The instance that let it through is told soon.
    Passed,
    /// It is not in flight as far as is known here: it is done already, or too old.
    Unknown,
    /// There is no such ticket.
    Unreadable,
    /// Too many are to be passed on.
    TooMany,
}

impl Tickets {
    /// Of an instance of this name, which tells others of requests of theirs if `is_heard`.
    #[must_use]
    pub fn new(instance: String, is_heard: bool) -> Self {
        Self {
            instance,
            is_heard,
            next: AtomicU64::default(),
            open: Mutex::default(),
            elsewhere: Mutex::default(),
        }
    }

    /// The instance's name.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Whether another ticket can be had.
    #[must_use]
    pub fn has_room(&self) -> bool {
        locked(&self.open).len() < MOST
    }

    /// A ticket for a request that holds a place; nothing if there are too many.
    #[must_use]
    pub fn issue(&self, slot: Slot, sla: Duration) -> Option<String> {
        let mut open = locked(&self.open);
        if open.len() >= MOST {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        open.insert(number, Open { slot, sla, since: Instant::now() });
        Some(format!("{}-{number}", self.instance))
    }

    /// A request is done that took so many microseconds.
    pub fn done(&self, ticket: &str, latency_us: u64, has_failed: bool) -> Told {
        let parts =
            ticket.split_once('-').and_then(|(of, number)| Some((of, number.parse().ok()?)));
        let Some((of, number)) = parts else { return Told::Unreadable };
        let done = Done { number, latency_us, has_failed };
        if of == self.instance {
            return if self.end(done) { Told::Done } else { Told::Unknown };
        }
        if of.len() != self.instance.len() || !of.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Told::Unreadable;
        }
        if !self.is_heard {
            return Told::Unknown;
        }
        let mut elsewhere = locked(&self.elsewhere);
        if elsewhere.len() >= MOST_ELSEWHERE {
            return Told::TooMany;
        }
        elsewhere.push((of.to_owned(), done));
        Told::Passed
    }

    /// Ends a request, and counts it. Says whether it was in flight.
    fn end(&self, done: Done) -> bool {
        let Some(Open { slot, sla, .. }) = locked(&self.open).remove(&done.number) else {
            return false;
        };
        match done.has_failed {
            true => slot.meter().fail(),
            false => {
                let is_late = u128::from(done.latency_us) > sla.as_micros();
                slot.meter().complete(done.latency_us, is_late);
            }
        }
        true
    }

    /// Gives up the places of those that have been in flight for too long, and says how many.
    pub fn sweep(&self) -> usize {
        let mut open = locked(&self.open);
        let before = open.len();
        open.retain(|_, open| open.since.elapsed() < LONGEST);
        before.saturating_sub(open.len())
    }

    /// What other instances have to be told: each with a text for it.
    #[must_use]
    pub fn for_others(&self) -> Vec<(String, String)> {
        let mut texts: HashMap<String, String> = HashMap::new();
        for (instance, done) in std::mem::take(&mut *locked(&self.elsewhere)) {
            let Done { number, latency_us, has_failed } = done;
            let text = texts.entry(instance).or_default();
            text.push_str(&format!(" {number}:{latency_us}:{}", u8::from(has_failed)));
        }
        texts.into_iter().collect()
    }

    /// What others have told this one.
    pub fn told(&self, text: &str) {
        for word in text.split_ascii_whitespace() {
            let mut numbers = word.split(':').map(|number| number.parse::<u64>().ok());
            if let (Some(Some(number)), Some(Some(latency_us)), Some(Some(failed)), None) =
                (numbers.next(), numbers.next(), numbers.next(), numbers.next())
            {
                self.end(Done { number, latency_us, has_failed: failed != 0 });
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::panic, clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::meter::Meter;
    use claw_adapt::Policy;
    use std::sync::Arc;

    const SLA: Duration = Duration::from_millis(200);
    const HERE: &str = "00000000000000aa";
    const THERE: &str = "00000000000000bb";

    fn meter() -> Arc<Meter> {
        let policy = Policy { refill_micros: 1_000_000, capacity: 10, in_flight: Some(3) };
        Arc::new(Meter::new(policy))
    }

    #[test]
    fn a_request_is_done_once_wherever_that_is_told() {
        let (here, there, meter) =
            (Tickets::new(HERE.to_owned(), true), Tickets::new(THERE.to_owned(), true), meter());
        let issue = || here.issue(meter.enter(0).unwrap(), SLA).unwrap();
        let [first, second, third] = [(); 3].map(|()| issue());
        assert!(meter.enter(0).is_none());
        assert_eq!(here.done(&first, 1_000, false), Told::Done);
        assert_eq!(here.done(&first, 1_000, false), Told::Unknown);
        assert_eq!(there.done(&second, 300_000, false), Told::Passed);
        assert_eq!(there.done(&second, 300_000, false), Told::Passed);
        assert_eq!(there.done(&third, 2_000, true), Told::Passed);
        let passed = there.for_others();
        let [(instance, text)] = passed.as_slice() else { panic!("{passed:?}") };
        assert_eq!(instance, HERE);
        here.told(text);
        assert!(there.for_others().is_empty());
        let totals = meter.totals();
        assert_eq!((totals.in_flight, totals.completed, totals.late, totals.failed), (0, 2, 1, 1));
        assert_eq!(totals.latency_us, 301_000);
    }

    #[test]
    fn what_is_no_ticket_is_not_passed_on() {
        let here = Tickets::new(HERE.to_owned(), true);
        for ticket in ["", "-", "x", &format!("{HERE}-"), &format!("{HERE}-x"), "zz-1", "00bb-1"] {
            assert_eq!(here.done(ticket, 1, false), Told::Unreadable, "{ticket}");
        }
        assert_eq!(here.done(&format!("{HERE}-7"), 1, false), Told::Unknown);
        for text in ["", " ", "1", "1:2", "1:2:3:4", "a:b:c", ":::"] {
            here.told(text);
        }
        let ticket = format!("{THERE}-1");
        let alone = Tickets::new(HERE.to_owned(), false);
        assert_eq!(alone.done(&ticket, 1, false), Told::Unknown);
        let told: Vec<Told> = (0..=MOST_ELSEWHERE).map(|_| here.done(&ticket, 1, false)).collect();
        assert_eq!((told.first(), told.last()), (Some(&Told::Passed), Some(&Told::TooMany)));
    }
}
