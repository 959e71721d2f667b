//! When a server is given up, and when it is tried again. Pure: no clock, no socket.
//!
//! Closed, it is asked. Open, nobody waits for it: one attempt to connect at a time, with
//! longer and longer pauses, finds out whether it is back. After such an attempt it is on
//! probation: the first answer closes the circuit, the first fault opens it again.

use std::time::Duration;

/// Faults in a row, each the end of a connection, after which a server is given up.
const FAULTS: u32 = 3;
/// The first pause before another attempt to connect, and the longest.
const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_millis(500);

/// What is thought of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circuit {
    state: State,
    /// The pause before the next attempt, but for the jitter.
    pause: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// With the number of faults since the last answer.
    Closed(u32),
    Open,
    Probation,
}

impl Default for Circuit {
    fn default() -> Self {
        Self { state: State::Closed(0), pause: FIRST }
    }
}

impl Circuit {
    /// Whether nobody is to wait for the server.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether an answer would change anything: it need not be told otherwise.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        self.state != State::Closed(0)
    }

    /// A connection has broken off, or was closed since an answer was late.
    pub fn fault(&mut self) {
        self.state = match self.state {
            State::Closed(faults) if faults.saturating_add(1) < FAULTS => {
                State::Closed(faults.saturating_add(1))
            }
            _ => State::Open,
        };
    }

    /// It could not be connected to, or not in time.
    pub fn unreachable(&mut self) {
        self.state = State::Open;
    }

    /// It has been connected to.
    pub fn connected(&mut self) {
        if self.state == State::Open {
            self.state = State::Probation;
        }
    }

    /// It has answered.
    pub fn answered(&mut self) {
        *self = Self::default();
    }

    /// How long to wait before the next attempt to connect; the one after that waits twice as
    /// long. `random` takes up to half of it off, so that not all come back at once.
    pub fn next_pause(&mut self, random: u64) -> Duration {
        let pause = self.pause;
        self.pause = pause.saturating_mul(2).min(LONGEST);
        let half = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX) / 2;
        let jitter = random.checked_rem(half.saturating_add(1)).unwrap_or(0);
        pause.saturating_sub(Duration::from_micros(jitter))
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    type Event = fn(&mut Circuit);

    fn after(events: &[Event]) -> Circuit {
        let mut circuit = Circuit::default();
        for event in events {
            event(&mut circuit);
        }
        circuit
    }

    #[test]
    fn it_opens_after_faults_in_a_row_or_when_there_is_no_connection() {
        let (fault, answered): (Event, Event) = (Circuit::fault, Circuit::answered);
        for (events, open) in [
            (vec![], false),
            (vec![fault, fault], false),
            (vec![fault, fault, fault], true),
            (vec![fault, fault, answered, fault], false),
            (vec![Circuit::unreachable], true),
            (vec![Circuit::unreachable, Circuit::connected], false),
            (vec![Circuit::unreachable, Circuit::connected, fault], true),
            (vec![Circuit::unreachable, Circuit::connected, answered, fault], false),
        ] {
            assert_eq!(after(&events).is_open(), open, "{} events", events.len());
        }
    }

    #[test]
    fn an_answer_matters_only_in_doubt() {
        assert!(!after(&[]).is_doubtful());
        assert!(after(&[Circuit::fault]).is_doubtful());
        assert!(after(&[Circuit::unreachable, Circuit::connected]).is_doubtful());
        assert!(!after(&[Circuit::fault, Circuit::answered]).is_doubtful());
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_begin_anew_after_an_answer() {
        let mut circuit = Circuit::default();
        let pauses: Vec<u128> = (0..8).map(|_| circuit.next_pause(0).as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 500, 500, 500, 500]);
        circuit.connected();
        assert_eq!(circuit.next_pause(0), LONGEST, "a connection alone is no recovery");
        circuit.answered();
        assert_eq!(circuit.next_pause(0), FIRST);
    }

    #[test]
    fn jitter_takes_off_at_most_half() {
        for random in [1, 999, 24_999, 25_000, 25_001, u64::MAX] {
            let pause = Circuit::default().next_pause(random);
            assert!(pause >= FIRST / 2 && pause <= FIRST, "{random}: {pause:?}");
        }
    }
}
