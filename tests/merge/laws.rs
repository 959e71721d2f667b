//! The laws of merging, through a real server.

use crate::buckets::{Line, random_bucket};
use crate::calls::{
    PATIENCE, STRATEGIES, TICK, merge_from, merge_state, now_us, state, still_server,
};
use claw_testkit::{Random, Server, eventually, fields, ints, run};
use redis::{Connection, Pipeline, Value};

/// Order, grouping and repetition do not matter to the built-in strategies.
#[test]
fn laws_hold_through_a_real_server() {
    const TRIPLES: u64 = 120;
    let server = Server::start();
    let conn = &mut server.connection();
    let random = &mut Random::new(3);
    let mut differing = 0;
    for trial in 0..TRIPLES {
        let alike = trial % 2 == 0;
        for strategy in STRATEGIES {
            let now = now_us();
            let mut pipe = Pipeline::new();
            pipe.cmd("FLUSHALL");
            for key in ["a", "b", "c"] {
                pipe.add_command(random_bucket(random, key, now, alike));
            }
            let merge = |key: &str, sources: &str| merge_from(key, sources, strategy);
            // All at once, in every order; repeated; grouped.
            let mut keys = vec![];
            let orders = ["a b c", "a c b", "b a c", "b c a", "c a b", "c b a", "a a b a c c b a"];
            for (index, order) in orders.iter().enumerate() {
                pipe.add_command(merge(&format!("fold{index}"), order));
                keys.push(format!("fold{index}"));
            }
            for (pair, one, more) in [("ab", "a b", "c"), ("bc", "b c", "a"), ("ca", "c a", "b")] {
                pipe.add_command(merge(pair, one));
                pipe.add_command(merge(&format!("left:{pair}"), &format!("{pair} {more}")));
                pipe.add_command(merge(&format!("right:{pair}"), &format!("{more} {pair}")));
                pipe.add_command(merge(
                    &format!("more:{pair}"),
                    &format!("{pair} {more} {pair} fold0 a b c"),
                ));
                keys.extend(["left", "right", "more"].map(|side| format!("{side}:{pair}")));
            }
            pipe.cmd("COPY").arg("b").arg("copy");
            keys.push("copy".into());
            for source in ["c", "a", "c", "b"] {
                pipe.add_command(merge("copy", source));
            }
            let answers: Vec<Value> = pipe.query(conn).unwrap();
            assert!(answers.iter().all(|a| !matches!(a, Value::ServerError(_))), "{answers:?}");

            let now = now_us();
            let [a, b] = ["a", "b"].map(|key| Line::of(&fields(conn, key), now));
            differing += u64::from(a != b);
            let expected = Line::of(&fields(conn, "fold0"), now);
            for key in keys {
                let got = Line::of(&fields(conn, &key), now);
                let shown = |conn: &mut Connection| {
                    ["a", "b", "c", "fold0", &key].map(|key| fields(conn, key))
                };
                assert_eq!(got, expected, "{strategy} {key}: {:#?}", shown(conn));
                // Whoever has seen it all learns nothing from anybody.
                let answer =
                    ints(conn, &format!("CL.MERGE {key} FROM 4 a b c fold0 STRATEGY {strategy}"));
                assert_eq!(answer[0], 0, "{strategy} {key}: {:#?}", shown(conn));
            }
            // The same through states.
            let blobs = ["b", "c", "a"].map(|key| state(conn, key));
            merge_state(conn, "blobs", &blobs, strategy);
            assert_eq!(Line::of(&fields(conn, "blobs"), now), expected, "{strategy} blobs");
        }
    }
    assert!(differing > TRIPLES, "the buckets are not random");
}

/// A take, then a merge with the state from before it: `max` gives the tokens
/// back, the others do not.
#[test]
fn only_max_gives_a_take_back() {
    let server = still_server();
    let conn = &mut server.connection();
    for (strategy, remaining) in [("max", 1000), ("min", 700), ("weighted", 700), ("lww", 700)] {
        run(conn, &["FLUSHALL", "HSET k tokens 1000 timestamp 1"]);
        let before = state(conn, "k");
        assert_eq!(ints(conn, "CL.TAKE k 300")[..3], [300, 1000, 700]);
        assert_eq!(merge_state(conn, "k", &[before], strategy)[2], remaining, "{strategy}");
    }
}

/// 300 taken here and 200 there at the same time: none of these strategies says
/// 500 are left.
#[test]
fn two_concurrent_takes() {
    let (here, there) = (still_server(), still_server());
    let (a, b) = (&mut here.connection(), &mut there.connection());
    for (strategy, remaining) in [("max", 800), ("min", 700), ("weighted", 700), ("lww", 800)] {
        for (conn, tokens) in [(&mut *a, 300), (&mut *b, 200)] {
            run(conn, &["FLUSHALL", "HSET k tokens 1000 timestamp 1"]);
            assert_eq!(ints(conn, &format!("CL.TAKE k {tokens}"))[0], tokens);
            // The second take is the later one, also by a clock of milliseconds.
            let at = now_us();
            eventually(PATIENCE, TICK, "the clock to go on", || now_us() > at + 1_000);
        }
        let (of_a, of_b) = (state(a, "k"), state(b, "k"));
        merge_state(a, "k", &[of_b], strategy);
        merge_state(b, "k", &[of_a], strategy);
        let left = ints(a, "CL.PEEK k 0")[2];
        assert_eq!(left, remaining, "{strategy}");
        assert_eq!(ints(b, "CL.PEEK k 0")[2], left, "{strategy}");
    }
}
