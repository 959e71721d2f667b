//! Buckets in debt, merged.

use crate::calls::{merge_state, state, still_server};
use claw_testkit::{call, digest, fields, ints, run};

/// Each state with its weight, and what each strategy makes of the two, in either order: tokens
/// and weight.
#[test]
fn a_debt_is_owed_once_whatever_the_weight() {
    let server = still_server();
    let conn = &mut server.connection();
    #[rustfmt::skip]
    let table = [
        // One state          other state         max              min              weighted
        (("-40", 1), ("600", 1),   ("600", 1),      ("-40", 1),      ("-40", 1)),
        (("-40", 1), ("-60", 1),   ("-40", 1),      ("-60", 1),      ("-60", 1)),
        (("-40", 1), ("0", 1),     ("0", 1),        ("-40", 1),      ("-40", 1)),
        // The greater weight, and the same debt.
        (("-40", 1), ("600", 2),   ("600", 2),      ("-40", 1),      ("-40", 2)),
        (("-40", 5), ("600", 1),   ("600", 1),      ("-40", 5),      ("-40", 5)),
        (("-40", 10), ("-40", 1),  ("-40", 10),     ("-40", 1),      ("-40", 10)),
        (("-1000", 1), ("1000", 10), ("1000", 10),  ("-1000", 1),    ("-1000", 10)),
        (("-0.000001", 3), ("5", 7), ("5", 7),      ("-0.000001", 3), ("-0.000001", 7)),
        // Without a debt a share is a share.
        (("200", 1), ("500", 2),   ("500", 2),      ("200", 1),      ("400", 2)),
    ];
    for (one, other, max, min, weighted) in table {
        for (strategy, expected) in [("max", max), ("min", min), ("weighted", weighted)] {
            for (first, second) in [(one, other), (other, one)] {
                run(conn, &["FLUSHALL"]);
                for (key, (tokens, weight)) in [("a", first), ("b", second)] {
                    let weight = weight.to_string();
                    let policy = ["policy", "1000 0/1000 pinned 1"];
                    let bucket = ["tokens", tokens, "timestamp", "5", "userWeight", &weight];
                    call(conn, &[&["HSET", key][..], &bucket, &policy].concat()).unwrap();
                }
                let shown = format!("{first:?} {second:?} {strategy}");
                let states = [state(conn, "a"), state(conn, "b")];
                let merged = ints(conn, &format!("CL.MERGE m FROM 2 a b STRATEGY {strategy}"));
                let found = fields(conn, "m");
                let weight = found.get("userWeight").map_or("1", String::as_str);
                assert_eq!(found["tokens"], expected.0, "{shown}");
                assert_eq!(weight, expected.1.to_string(), "{shown}");
                let whole = expected.0.parse::<f64>().unwrap().floor();
                assert_eq!(merged, [1, 1000, whole as i64], "{shown}");
                // As states of another server, and again.
                assert_eq!(merge_state(conn, "n", &states, strategy)[0], 1, "{shown}");
                assert_eq!(fields(conn, "n")["tokens"], expected.0, "{shown}");
                let before = digest(conn);
                assert_eq!(merge_state(conn, "n", &states, strategy)[0], 0, "{shown}");
                assert_eq!(digest(conn), before, "{shown}");
            }
        }
    }
}

/// A function is shown what is owed, and may return it.
#[test]
fn functions_see_and_return_debts() {
    let server = still_server();
    let conn = &mut server.connection();
    let code = "#!lua name=owing\n\
        local function register(name, make)\n\
          redis.register_function{function_name=name, flags={'no-writes'}, callback=\n\
            function(_, args)\n\
              local a, b = cmsgpack.unpack(args[1]), cmsgpack.unpack(args[2])\n\
              return cmsgpack.pack({tokens = make(a, b)})\n\
            end}\n\
        end\n\
        register('both', function(a, b) return a.available + b.available end)\n\
        register('least', function(a, b) return math.min(a.tokens, b.tokens) end)";
    redis::cmd("FUNCTION").arg("LOAD").arg(code).exec(conn).unwrap();
    let rows = [
        ("-40", "30.5", "both", Ok("-9.5")),
        ("-40", "-60", "both", Ok("-100")),
        ("-40", "-60", "least", Ok("-60")),
        ("-600", "-400", "both", Ok("-1000")),
        // One region owes no more than the capacity, unless it did so before.
        ("-600", "-400.5", "both", Err("it returned tokens that owe more than the capacity")),
        ("-1500", "30", "least", Ok("-1500")),
        ("-1500", "-30", "both", Err("it returned tokens that owe more than the capacity")),
    ];
    for (one, other, name, expected) in rows {
        run(conn, &["DEL k s", &format!("HSET k tokens {one} timestamp 1")]);
        run(conn, &[&format!("HSET s tokens {other} timestamp 1")]);
        let before = digest(conn);
        let line = format!("CL.MERGE k FROM 1 s STRATEGY fn:{name}");
        match (call(conn, &line.split(' ').collect::<Vec<_>>()), expected) {
            (Ok(_), Ok(tokens)) => assert_eq!(fields(conn, "k")["tokens"], tokens, "{one} {other}"),
            (Err(error), Err(why)) => {
                assert!(error.contains(why), "{one} {other}: {error}");
                assert_eq!(digest(conn), before, "{one} {other}");
            }
            (answer, expected) => panic!("{one} {other} {name}: {answer:?}, not {expected:?}"),
        }
    }
}
