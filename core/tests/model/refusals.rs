//! A refused call charges nothing, and a peek tells what a take would do.

use crate::any;
use crate::exact::{Options, all};
use crate::hash::alone;
use claw_core::bucket::Demand;
use proptest::prelude::*;

proptest! {
    #![proptest_config(any::cases(1_500))]

    #[test]
    fn a_refusal_changes_nothing_but_the_credit(
        (server, _) in any::pair(),
        (more, lag) in (any::log_uniform(u64::MAX), any::log_uniform(1 << 45)),
        keep in prop_oneof![Just(0), any::log_uniform(u64::MAX)],
    ) {
        let now = any::START + lag;
        let before = server.open(now).unwrap();
        let mut after = before.clone();
        let there = before.remaining(&alone()).max(0).unsigned_abs();
        let tokens = there.saturating_add(more.max(1)).saturating_sub(keep);
        let demand = Demand { tokens: tokens.max(1), partial: false, keep };
        let answer = after.take(demand, now, &alone()).unwrap();
        prop_assert_eq!(answer.taken, 0);
        prop_assert_eq!(answer.remaining, before.remaining(&alone()));
        prop_assert_eq!(after.bucket(), before.bucket());
        prop_assert_eq!(after.to_record(), before.to_record());
        prop_assert!(!after.terms_changed());
    }

    /// Without new options a refused call writes nothing at all, so refusals in
    /// between make no difference to anybody.
    #[test]
    fn refusals_in_between_make_no_difference(
        (server, _) in any::pair(),
        refused in prop::collection::vec((any::tick(), 1_u64..1_000), 0..20),
    ) {
        // Options that are the stored ones are no new options either.
        let stored = server.open(any::START).unwrap().policy();
        let options = stored.map_or(Options::default(), |stored| Options {
            capacity: Some(stored.policy.capacity()),
            refill: Some((stored.policy.refill(), stored.policy.interval_ms())),
        });
        let mut disturbed = server.clone();
        let mut now = any::START;
        for (tick, more) in refused {
            now = tick.after(now, 0, 0);
            let Ok(opened) = disturbed.ask(options, now) else { continue };
            let tokens = opened.remaining(&alone()).max(0).unsigned_abs() + more;
            let answer = disturbed.take(all(tokens), options, now).unwrap();
            prop_assert_eq!(answer.taken, 0);
        }
        prop_assert_eq!(disturbed.key, server.key);
    }

    #[test]
    fn a_peek_answers_as_the_take(
        (server, _) in any::pair(),
        amount in any::amount(),
        options in any::options(),
        lag in any::log_uniform(1 << 45),
    ) {
        let mut server = server;
        let now = any::START + lag;
        let opened = server.ask(options, now).unwrap();
        let tokens = amount.of(opened.remaining(&alone()), opened.bucket().policy().capacity());
        let key = server.key.clone();
        let peeked = server.peek(tokens, options, now).unwrap();
        prop_assert_eq!(&server.key, &key);
        prop_assert_eq!(peeked, server.take(all(tokens), options, now).unwrap());
    }

    /// Take and give back at the same instant, and nothing has happened.
    #[test]
    fn giving_back_undoes_a_take(
        (server, _) in any::pair(),
        amount in any::amount(),
    ) {
        let mut server = server;
        let before = server.open(any::START).unwrap().bucket();
        let tokens = amount.of(before.remaining(), before.policy().capacity());
        let mut bucket = before;
        let taken = bucket.take(Demand { tokens, partial: true, keep: 0 }, any::START).taken;
        let answer = bucket.give(taken, any::START);
        prop_assert_eq!(answer.taken, taken);
        prop_assert_eq!(bucket, before);
        // And more than was taken is cut at the capacity.
        let answer = server.give(u64::MAX, any::START).unwrap();
        prop_assert_eq!(answer.remaining, answer.capacity.cast_signed());
        prop_assert!(server.open(any::START).unwrap().bucket().is_full());
    }
}
