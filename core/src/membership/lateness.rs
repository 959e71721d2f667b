//! Rounds that lay on a line that was cut.

/// How late the rounds of one sender come, by two clocks that need not agree.
///
/// What lay on a line that was cut comes when it is healed: a round that says that
/// all is said, and is long out of date. Its lateness tells: the time from its
/// sending to its coming, on clocks of unknown difference, against the shortest
/// such time lately.
#[derive(Debug, Clone, Default)]
pub(super) struct Lateness {
    /// The least difference in this window, and in the one before it.
    least: Option<(i128, i128)>,
    /// When this window began.
    since: u64,
}

/// After how long the least difference is found anew, in microseconds: clocks run
/// apart, and lines change.
const WINDOW_US: u64 = 30_000_000;

impl Lateness {
    /// Microseconds by which a message, sent at `sent` on a steady clock of its
    /// own, comes later at `now` (steady) than others did.
    pub(super) fn of(&mut self, sent: u64, now: u64) -> u64 {
        let difference = i128::from(now).saturating_sub(i128::from(sent));
        let (mut current, mut before) = self.least.unwrap_or_else(|| {
            self.since = now;
            (difference, difference)
        });
        if now.saturating_sub(self.since) > WINDOW_US {
            (before, current) = (current, difference);
            self.since = now;
        }
        current = current.min(difference);
        self.least = Some((current, before));
        // Not negative: it is one of those of which the least is taken.
        u64::try_from(difference.saturating_sub(current.min(before))).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::Lateness;

    #[test]
    fn what_lay_on_the_line_is_late() {
        let mut lateness = Lateness::default();
        // Sent and come in milliseconds; how late.
        let rows = [
            (7, 500, 0),
            (57, 560, 10),
            (107, 600, 0),
            // Held back for nine seconds.
            (157, 9_650, 9_000),
            (9_207, 9_700, 0),
            // A line that has become slower is found to be so after two windows.
            (9_257, 11_750, 2_000),
            (40_000, 42_493, 2_000),
            (71_000, 73_493, 0),
        ];
        for (sent, come, late) in rows {
            assert_eq!(lateness.of(sent * 1_000, come * 1_000), late * 1_000, "{sent}");
        }
    }
}
