//! Settlements: what was taken before the work is made what was used, down to a debt.

use crate::any;
use crate::exact::{Options, Terms, all, q};
use crate::hash::{Server, alone, held};
use claw_core::bucket::Wait;
use claw_core::limits::MICRO;
use proptest::prelude::*;

const NONE: Options = Options { capacity: None, refill: None };

proptest! {
    #![proptest_config(any::cases(1_500))]

    /// Nothing is written but a policy that the call brings.
    #[test]
    fn settling_what_was_reserved_changes_nothing(
        (server, _) in any::pair(),
        tokens in any::log_uniform(u64::MAX),
        options in any::options(),
    ) {
        let mut settled = server.clone();
        let asked = server.ask(options, any::START).unwrap();
        let answer = settled.settle((tokens, tokens), options, any::START).unwrap();
        prop_assert_eq!((answer.taken, answer.retry_after), (0, Wait::Ms(0)));
        prop_assert!(settled.key == server.key || asked.terms_changed());
        prop_assert_eq!(settled.open(any::START).unwrap().bucket(), if asked.terms_changed() {
            asked.bucket()
        } else {
            server.open(any::START).unwrap().bucket()
        });
    }

    /// As if what was used had been taken in the first place; where that is not there, as much
    /// more is owed.
    #[test]
    fn taking_and_settling_is_taking_what_was_used(
        (server, _) in any::pair(),
        parts in (any::<u64>(), any::<u64>()),
    ) {
        let now = any::START;
        let before = server.open(now).unwrap().bucket();
        let there = before.remaining().max(0).unsigned_abs();
        let (reserved, used) = (parts.0 % (there + 1), parts.1 % (before.bookable() + 1));
        let (mut settled, mut plain) = (server.clone(), server);
        settled.take(all(reserved), NONE, now).unwrap();
        let booked = settled.settle((reserved, used), NONE, now).unwrap();
        prop_assert_eq!((booked.taken, booked.retry_after), (reserved.abs_diff(used), Wait::Ms(0)));
        let after = settled.open(now).unwrap().bucket();
        prop_assert_eq!(held(&after), held(&before) - q(used));
        if used > there {
            return Ok(());
        }
        let taken = plain.take(all(used), NONE, now).unwrap();
        prop_assert_eq!((booked.remaining, booked.reset_after), (taken.remaining, taken.reset_after));
        prop_assert_eq!(after, plain.open(now).unwrap().bucket());
        if used > 0 {
            prop_assert_eq!(&settled.key, &plain.key);
            prop_assert_eq!(settled.expiry(now).unwrap(), plain.expiry(now).unwrap());
        }
    }

    /// A debt is as deep under any policy, whoever brings it, however often it changes.
    #[test]
    fn another_policy_forgives_no_debt(
        (server, _) in any::pair(),
        changes in prop::collection::vec((0_u8..4, any::options(), any::changes()), 1..12),
        more in any::log_uniform(1 << 40),
    ) {
        let now = any::START;
        let mut server = server;
        server.settle((0, more), NONE, now).unwrap();
        let before = server.open(now).unwrap().bucket();
        // A bucket that is ahead of the clock too: nothing is credited meanwhile.
        let owed = held(&before).min(q(0));
        for (how, options, change) in &changes {
            match how {
                0 | 1 => drop(server.take(all(1 << 62), *options, now).unwrap()),
                2 => server.pin(*change, None, now).unwrap(),
                _ => server.reset(now).unwrap(),
            }
            let bucket = server.open(now).unwrap().bucket();
            if owed < q(0) {
                prop_assert!(held(&bucket) <= owed);
            }
        }
        // What is below a millionth is cut with each interval, and no more.
        let lost = q(u64::try_from(changes.len()).unwrap()) / q(MICRO);
        let bucket = server.open(now).unwrap().bucket();
        prop_assert!(owed == q(0) || held(&bucket) > owed - lost);
    }

    /// What was not booked can be when the answer says, and not a millisecond before.
    #[test]
    fn the_rest_can_be_booked_after_retry_after(
        (server, _) in any::pair(),
        settling in any::settling(),
    ) {
        let (mut server, now) = (server, any::START);
        let opened = server.open(now).unwrap();
        let capacity = opened.bucket().policy().capacity();
        let (reserved, used) = settling.of(opened.remaining(&alone()), capacity);
        let answer = server.settle((reserved, used), NONE, now).unwrap();
        let rest = used.saturating_sub(reserved + answer.taken);
        let bookable = |us: u64| server.ask(NONE, us).unwrap().bucket().bookable();
        match answer.retry_after {
            Wait::Ms(0) => prop_assert_eq!(rest, 0),
            Wait::Ms(ms) => {
                let Some(then) = ms.checked_mul(1_000).and_then(|us| now.checked_add(us)) else {
                    return Ok(());
                };
                prop_assert!(bookable(then - 1_000) < rest);
                prop_assert!(bookable(then) >= rest);
            }
            Wait::Never => prop_assert!(bookable(u64::MAX) < rest),
        }
    }
}

/// 100 tokens, 10 a second, on a key that nobody has used.
#[test]
fn a_day_of_work() {
    let terms = Terms { capacity: 100, refill: 10 * MICRO, interval: 1_000 };
    let mut server = Server::new(terms);
    // Milliseconds; reserved and used; booked, remaining, retry_after, reset_after.
    let table = [
        (0, (0, 0), (0, 100, 0, 0)),
        // More is given back than was ever taken.
        (0, (50, 10), (0, 100, 0, 0)),
        (0, (0, 30), (30, 70, 0, 3_000)),
        (0, (30, 10), (20, 90, 0, 1_000)),
        (0, (10, 150), (140, -50, 0, 15_000)),
        // As much as the capacity is owed: ten of them in a second.
        (0, (0, 60), (50, -100, 1_000, 20_000)),
        (1_000, (0, 10), (10, -100, 0, 20_000)),
        (1_000, (0, 201), (0, -100, -1, 20_000)),
        (11_000, (100, 20), (80, 80, 0, 2_000)),
    ];
    for (ms, settled, expected) in table {
        let answer = server.settle(settled, NONE, any::START + ms * 1_000).unwrap();
        let waits = (answer.retry_after.as_millis(), answer.reset_after.as_millis());
        let found = (answer.taken, answer.remaining, waits.0, waits.1);
        assert_eq!(found, expected, "{settled:?} after {ms} ms");
    }
}
