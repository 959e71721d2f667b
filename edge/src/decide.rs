//! What a request costs under which limits, and what the answers mean for it. Pure: no
//! socket, no clock.

use crate::limits::{Charge, Mode, OnFault};

/// What the server says of one bucket, in the order of `CL.TAKE`'s reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whole tokens taken; 0 when refused.
    pub taken: i64,
    /// Whole tokens that the bucket holds at most.
    pub capacity: i64,
    /// Whole tokens left, rounded down; negative in debt.
    pub remaining: i64,
    /// Milliseconds until the same call succeeds: 0 = it did, -1 = never.
    pub retry_after_ms: i64,
    /// Milliseconds until the bucket is full; -1 = never.
    pub reset_after_ms: i64,
}

/// The charges of one request, sorted by what a refusal of one means for the others.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// All of them are charged, or none.
    pub together: Vec<Charge>,
    /// Each is charged whatever becomes of the others: it watches, or counts a quota.
    pub apart: Vec<Charge>,
}

/// What became of a [`Plan`]'s charges.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The charge.
    pub charge: Charge,
    /// What the server said; nothing when it could not be asked.
    pub answer: Option<Answer>,
}

/// What is done with the request.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Whether it may pass.
    pub allowed: bool,
    /// Whether it was decided without the server, since it could not be asked.
    pub blind: bool,
    /// What each limit said, in the order of the plan.
    pub outcomes: Vec<Outcome>,
}

impl Plan {
    /// Sorts `charges`.
    #[must_use]
    pub fn new(charges: Vec<Charge>) -> Self {
        let (together, apart) =
            charges.into_iter().partition(|charge| charge.limit.mode == Mode::Enforced);
        Self { together, apart }
    }
}

impl Outcome {
    /// Whether the limit refuses. One that could not be asked refuses if it fails closed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self.answer {
            Some(answer) => answer.retry_after_ms != 0,
            None => self.charge.limit.on_fault == OnFault::Closed,
        }
    }

    /// Whether there was enough of it once, and never will be again.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        let Charge { cost, keep, .. } = self.charge;
        let needed = i64::try_from(cost.saturating_add(keep)).unwrap_or(i64::MAX);
        self.answer.is_some_and(|answer| answer.retry_after_ms < 0 && needed <= answer.capacity)
    }

    /// What a limit decides that could not be asked, in one word; nothing if it could.
    #[must_use]
    pub fn decided_blindly(&self) -> Option<&'static str> {
        let limit = &self.charge.limit;
        match (self.answer, limit.mode, limit.on_fault) {
            (Some(_), _, _) => None,
            (None, Mode::Shadow, _) | (None, _, OnFault::Open) => Some("allowed"),
            (None, _, OnFault::Closed) => Some("refused"),
            (None, _, OnFault::LeftToCaller) => Some("left_to_caller"),
        }
    }
}

impl Verdict {
    /// What the outcomes of all charges of a request come to: an enforced limit that is over
    /// refuses, and so do quotas when every one of them is over.
    #[must_use]
    pub fn new(outcomes: Vec<Outcome>) -> Self {
        let over = |mode: Mode| {
            outcomes
                .iter()
                .filter(move |outcome| outcome.charge.limit.mode == mode)
                .map(Outcome::is_over)
        };
        let enforced = over(Mode::Enforced).any(|over| over);
        let mut quotas = over(Mode::Quota).peekable();
        let quota = quotas.peek().is_some() && quotas.all(|over| over);
        let blind = outcomes.iter().any(|outcome| outcome.answer.is_none());
        Self { allowed: !enforced && !quota, blind, outcomes }
    }

    /// What becomes of a request while too many are being decided: it is refused if a limit could
    /// refuse it that has not been asked in time.
    #[must_use]
    pub fn shed(outcomes: Vec<Outcome>) -> Self {
        let verdict = Self::new(outcomes);
        let is_known = |outcome: &Outcome| {
            outcome.answer.is_some() || outcome.charge.limit.mode == Mode::Shadow
        };
        let allowed = verdict.allowed && verdict.outcomes.iter().all(is_known);
        Self { allowed, blind: false, ..verdict }
    }

    /// Tells the adaptive limits that the request is let through.
    pub fn admit(&self) {
        let adaptive = self.outcomes.iter().filter_map(|it| it.charge.limit.adaptive.as_ref());
        adaptive.for_each(|adaptive| adaptive.meter.admit());
    }

    /// Milliseconds until the same request may pass, as far as is known: the longest wait of
    /// those that refuse. Nothing when one of them never lets it pass or could not be asked.
    #[must_use]
    pub fn retry_after_ms(&self) -> Option<u64> {
        self.refusing()
            .map(|outcome| u64::try_from(outcome.answer?.retry_after_ms).ok())
            .try_fold(0, |longest, wait| wait.map(|wait| longest.max(wait)))
    }

    /// The limits that refuse, if the request is refused.
    pub fn refusing(&self) -> impl Iterator<Item = &Outcome> {
        let refused = !self.allowed;
        self.outcomes.iter().filter(move |outcome| {
            refused && outcome.charge.limit.mode != Mode::Shadow && outcome.is_over()
        })
    }
}
