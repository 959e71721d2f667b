//! What a bucket grants in a window of time: no more than its policy says, and
//! no less when somebody takes all there is.

use crate::any::{self, START};
use crate::exact::{Options, Q, Terms, all, partial, q, whole};
use crate::hash::{Server, alone, held};
use proptest::prelude::*;

/// A new bucket, which is full, under one policy for ever.
fn server(terms: Terms, weight: u8) -> Server {
    let mut server = Server::new(terms);
    server.pin(Options::default(), Some(weight), START).unwrap();
    server
}

/// The instant after a step that lets nothing overflow: `permille` of the time
/// until the bucket is full, but no more than a year, in microseconds.
fn before_full(server: &Server, rate: &Q, now: u64, permille: u16) -> u64 {
    let bucket = server.open(now).unwrap().bucket();
    let until_full = (q(bucket.policy().capacity()) - held(&bucket)) / rate;
    let year = q(366_u64 * 86_400_000_000);
    now + whole(&(until_full.min(year) * q(permille) / q(1_000))).unsigned_abs()
}

proptest! {
    #![proptest_config(any::cases(120))]

    #[test]
    fn no_window_grants_more_than_capacity_and_refill(
        terms in any::terms(),
        weight in any::weight(),
        history in prop::collection::vec((any::monotone(), any::wanting()), 1..40),
    ) {
        let mut server = server(terms, weight);
        let (mut now, mut waits, mut left) = (START, (0, 0), terms.capacity.cast_signed());
        let mut granted = vec![];
        for (tick, wanting) in history {
            now = tick.after(now, waits.0, waits.1);
            let want = wanting.of(left, terms.capacity);
            let answer = server.take(want, Options::default(), now).unwrap();
            waits = (answer.retry_after.as_millis(), answer.reset_after.as_millis());
            left = answer.remaining;
            granted.push((now, answer.taken));
        }
        for (first, &(from, _)) in granted.iter().enumerate() {
            let mut sum = q(0);
            for &(to, taken) in &granted[first..] {
                sum += q(taken);
                let most = terms.capacity() + terms.rate(weight) * q(to - from);
                prop_assert!(sum <= most, "{sum} > {most} from {from} to {to}");
            }
        }
    }

    /// Who never lets the bucket fill gets all of `capacity + rate * time`: no
    /// remainder is lost between calls, however often they come.
    #[test]
    fn a_greedy_taker_gets_every_token(
        terms in any::refilling(),
        weight in any::weight(),
        steps in prop::collection::vec(0_u16..=1_000, 1..40),
    ) {
        let mut server = server(terms, weight);
        let rate = terms.rate(weight);
        let (mut now, mut granted) = (START, q(0));
        let mut take_all = |server: &mut Server, now| {
                granted += q(server.take(partial(u64::MAX), Options::default(), now).unwrap().taken);
            let due = terms.capacity() + &rate * q(now - START);
            let bucket = server.open(now).unwrap().bucket();
            prop_assert_eq!(&granted, &due.floor());
            prop_assert_eq!(&granted + held(&bucket), due);
            Ok(())
        };
        take_all(&mut server, now)?;
        for permille in steps {
            now = before_full(&server, &rate, now, permille);
            take_all(&mut server, now)?;
        }
    }

    /// The same with takes, refusals, gifts and overruns of any size: what was granted and
    /// booked and what is held add up to what was there and what came in.
    #[test]
    fn nothing_is_lost_or_made(
        terms in any::refilling(),
        weight in any::weight(),
        calls in prop::collection::vec((0_u16..=1_000, any::amount(), 0_u8..5), 1..40),
    ) {
        let mut server = server(terms, weight);
        let rate = terms.rate(weight);
        let (mut now, mut granted) = (START, q(0));
        for (permille, amount, call) in calls {
            now = before_full(&server, &rate, now, permille);
            let bucket = server.open(now).unwrap().bucket();
            match call {
                0 | 1 => {
                    let room = whole(&(terms.capacity() - held(&bucket))).unsigned_abs();
                    let tokens = amount.of(0, terms.capacity).min(room);
                    let given = match call {
                        0 => server.give(tokens, now),
                        _ => server.settle((tokens + 7, 7), Options::default(), now),
                    };
                    prop_assert_eq!(given.unwrap().taken, tokens);
                    granted -= q(tokens);
                }
                2 => {
                    let tokens = amount.of(bucket.remaining(), terms.capacity);
                    let answer = server.settle((7, tokens + 7), Options::default(), now).unwrap();
                    let booked = answer.taken;
                    prop_assert!(booked <= tokens);
                    prop_assert!(held(&bucket) - q(booked) >= -terms.capacity());
                    // What is not booked would be too much.
                    let more = held(&bucket) - q(booked) - q(1);
                    prop_assert!(booked == tokens || more < -terms.capacity());
                    granted += q(booked);
                }
                _ => {
                    let tokens = amount.of(bucket.remaining(), terms.capacity);
                    let answer = server.take(all(tokens), Options::default(), now).unwrap();
                    let there = i64::try_from(tokens).unwrap() <= bucket.remaining();
                    prop_assert_eq!(answer.taken, if there { tokens } else { 0 });
                    granted += q(answer.taken);
                }
            }
            let bucket = server.open(now).unwrap().bucket();
            prop_assert_eq!(
                &granted + held(&bucket),
                terms.capacity() + &rate * q(now - START)
            );
        }
    }

    /// A bucket never holds more than its capacity, wherever the clock goes.
    #[test]
    fn never_above_capacity(
        (server, _) in any::pair(),
        history in prop::collection::vec((any::tick(), any::amount(), any::<bool>()), 1..40),
        options in any::options(),
    ) {
        let mut server = server;
        let (mut now, mut waits) = (START, (0, 0));
        for (tick, amount, give) in history {
            now = tick.after(now, waits.0, waits.1);
            // A clock set back too far is an error; that is tested elsewhere.
            let Ok(opened) = server.open(now) else { continue };
            let tokens = amount.of(opened.remaining(&alone()), opened.bucket().policy().capacity());
            let answer = match give {
                true => server.give(tokens, now).unwrap(),
                false => server.take(all(tokens), options, now).unwrap(),
            };
            waits = (answer.retry_after.as_millis(), answer.reset_after.as_millis());
            prop_assert!(answer.remaining <= answer.capacity.cast_signed());
            let bucket = server.open(now).unwrap().bucket();
            prop_assert!(held(&bucket) <= q(bucket.policy().capacity()));
        }
    }
}
