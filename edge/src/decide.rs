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
}

impl Verdict {
    /// What the outcomes of all charges of a request come to: an enforced limit that is over
    /// refuses, and so do quotas when every one of them is over.
    #[must_use]
    pub fn new(outcomes: Vec<Outcome>) -> Self {
        let blind = outcomes.iter().any(|outcome| outcome.answer.is_none());
        let verdict = Self { allowed: false, blind, outcomes };
        let allowed = verdict.refusing().next().is_none();
        Self { allowed, ..verdict }
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

    /// Milliseconds until the same request may pass, as far as is known: the longest wait of the
    /// enforced limits that refuse, and the shortest of the quotas, of which one is enough. Nothing
    /// when that never comes, or could not be asked for.
    #[must_use]
    pub fn retry_after_ms(&self) -> Option<u64> {
        let waits = |mode: Mode| {
            let refusing = self.refusing().filter(move |it| it.charge.limit.mode == mode);
            refusing.map(|it| u64::try_from(it.answer?.retry_after_ms).ok())
        };
        let enforced = waits(Mode::Enforced)
            .try_fold(0, |longest, wait| wait.map(|wait| longest.max(wait)))?;
        match waits(Mode::Quota).next() {
            None => Some(enforced),
            Some(_) => waits(Mode::Quota).flatten().min().map(|quota| quota.max(enforced)),
        }
    }

    /// The limits that refuse, if the request is refused.
    pub fn refusing(&self) -> impl Iterator<Item = &Outcome> {
        let mut quotas = self.outcomes.iter().filter(|it| it.charge.limit.mode == Mode::Quota);
        let quotas_refuse = quotas.all(Outcome::is_over);
        self.outcomes.iter().filter(move |outcome| match outcome.charge.limit.mode {
            Mode::Enforced => outcome.is_over(),
            Mode::Quota => quotas_refuse,
            Mode::Shadow => false,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use claw_core::policy::Policy;

    use super::*;
    use crate::limits::Limit;

    /// A verdict of limits of these modes, with what each says of the wait.
    fn verdict(limits: &[(&str, Mode, i64)]) -> Verdict {
        let outcome = |(name, mode, retry_after_ms): &(&str, Mode, i64)| {
            let policy = Policy::new(1, 1, 1).unwrap();
            let mut limit = Limit::new((*name).to_owned(), policy, Vec::new());
            limit.mode = *mode;
            let charge = Charge { limit: Arc::new(limit), key: Arc::default(), cost: 1, keep: 0 };
            let taken = i64::from(*retry_after_ms == 0);
            let answer = Answer {
                taken,
                capacity: 1,
                remaining: 0,
                retry_after_ms: *retry_after_ms,
                reset_after_ms: 0,
            };
            Outcome { charge, answer: Some(answer) }
        };
        Verdict::new(limits.iter().map(outcome).collect())
    }

    #[test]
    fn quotas_refuse_together_and_one_of_them_is_enough_to_pass() {
        use Mode::{Enforced, Quota, Shadow};
        for (limits, refusing, wait) in [
            (vec![], "", Some(0)),
            (vec![("e", Enforced, 0), ("s", Shadow, 5)], "", Some(0)),
            (vec![("a", Quota, 0), ("b", Quota, 9)], "", Some(0)),
            (vec![("a", Quota, 10), ("b", Quota, 3_600)], "ab", Some(10)),
            (vec![("a", Quota, 10), ("b", Quota, -1)], "ab", Some(10)),
            (vec![("a", Quota, -1), ("b", Quota, -1)], "ab", None),
            (vec![("e", Enforced, 1), ("a", Quota, 3_600), ("b", Quota, 0)], "e", Some(1)),
            (vec![("e", Enforced, 20), ("a", Quota, 10)], "ea", Some(20)),
            (vec![("e", Enforced, 1), ("f", Enforced, 2), ("s", Shadow, 9)], "ef", Some(2)),
            (vec![("e", Enforced, -1), ("f", Enforced, 2)], "ef", None),
            (vec![("e", Enforced, -1), ("a", Quota, 2)], "ea", None),
        ] {
            let verdict = verdict(&limits);
            let names: String =
                verdict.refusing().map(|it| it.charge.limit.name.as_str()).collect();
            assert_eq!(names, refusing, "{limits:?}");
            assert_eq!(verdict.allowed, refusing.is_empty(), "{limits:?}");
            assert_eq!(verdict.retry_after_ms(), wait, "{limits:?}");
        }
    }
}
