//! Who waits exactly as long as told succeeds, and who waits less does not.

use crate::any;
use crate::exact::{Options, Want, partial, q};
use crate::hash::{Server, alone, demand, held};
use claw_core::bucket::Wait;
use proptest::prelude::*;

const MS: u64 = 1_000;

proptest! {
    #![proptest_config(any::cases(1_500))]

    #[test]
    fn waiting_retry_after_succeeds_and_less_does_not(
        (server, _) in any::pair(),
        wanting in any::wanting(),
        options in any::options(),
        empty in any::<bool>(),
        lag in any::log_uniform(86_400_000_000),
    ) {
        let mut server = server;
        let now = any::START + lag;
        if empty {
            server.take(partial(u64::MAX), options, now).unwrap();
        }
        let opened = server.ask(options, now).unwrap();
        let want = wanting.of(opened.remaining(&alone()), opened.bucket().policy().capacity());
        let first = server.take(want, options, now).unwrap();
        // A grant that falls short is told when there is more.
        prop_assert!(first.taken == want.tokens || first.taken == 0 || want.partial);
        prop_assert!(first.taken == 0 || first.remaining >= want.keep.cast_signed());
        match first.retry_after {
            Wait::Ms(0) => prop_assert_eq!(first.taken, want.tokens),
            Wait::Ms(ms) => {
                prop_assert!(first.taken < want.tokens);
                let Some(then) = ms.checked_mul(MS).and_then(|us| now.checked_add(us)) else {
                    return Ok(());
                };
                let early = server.clone().take(want, options, then - MS);
                prop_assert_eq!(early.unwrap().taken, 0);
                let taken = take_unread(&server, want, options, then);
                prop_assert_eq!(taken, if want.partial { 1.max(taken) } else { want.tokens });
            }
            Wait::Never => {
                prop_assert!(first.taken < want.tokens);
                let taken = take_unread(&server, want, options, u64::MAX);
                prop_assert_eq!(taken, 0);
            }
        }
    }

    #[test]
    fn a_bucket_is_full_after_reset_after_and_not_before(
        (server, _) in any::pair(),
        amount in any::amount(),
        options in any::options(),
    ) {
        let mut server = server;
        let now = any::START;
        let opened = server.ask(options, now).unwrap();
        let tokens = amount.of(opened.remaining(&alone()), opened.bucket().policy().capacity());
        let answer = server.take(partial(tokens), options, now).unwrap();
        // A refused call without a new policy was not saved: then it is this.
        let bucket = server.ask(options, now).unwrap().bucket();
        let full_at = |now| {
            let mut later = bucket;
            later.advance(now);
            later.is_full()
        };
        match answer.reset_after {
            Wait::Ms(0) => prop_assert!(bucket.is_full()),
            Wait::Ms(ms) => {
                prop_assert!(!full_at(now));
                let Some(then) = ms.checked_mul(MS).and_then(|us| now.checked_add(us)) else {
                    return Ok(());
                };
                prop_assert!(!full_at(then - MS));
                prop_assert!(full_at(then));
            }
            Wait::Never => prop_assert!(!full_at(u64::MAX)),
        }
    }

    #[test]
    fn crediting_in_steps_is_crediting_at_once(
        (server, _) in any::pair(),
        steps in prop::collection::vec(any::monotone(), 1..20),
    ) {
        let start = server.open(any::START).unwrap().bucket();
        let (mut stepwise, mut now) = (start, any::START);
        for step in steps {
            let reset = stepwise.answer(0, now).reset_after.as_millis();
            now = step.after(now, 0, reset);
            stepwise.advance(now);
            let mut at_once = start;
            at_once.advance(now);
            prop_assert_eq!(stepwise, at_once);
            prop_assert!(held(&at_once) <= q(start.policy().capacity()));
        }
    }
}

/// What a call takes at an instant that no clock shows: one after the year 9999
/// cannot be written and read again.
fn take_unread(server: &Server, want: Want, options: Options, now: u64) -> u64 {
    server.ask(options, now).unwrap().take(demand(want), now, &alone()).unwrap().taken
}
