//! `CL.VERIFY`: what it finds, and that its counterexamples can be typed again.

use crate::calls::{PATIENCE, TICK, load, load_example, now_us, still_server};
use crate::functions::BAD;
use claw_testkit::{Server, ask, call, cmd, error, eventually, fields, int, run};
use redis::{Connection, Value};
use std::collections::BTreeMap;

const LAWS: [&str; 5] =
    ["commutative", "associative", "idempotent", "inflationary", "within-capacity"];

/// The laws that are broken, each with its counterexample.
fn broken(conn: &mut Connection, line: &str) -> BTreeMap<String, Vec<String>> {
    // Time enough, however busy the machine is.
    let report: BTreeMap<String, Value> = ask(conn, &format!("{line} BUDGET 10000"));
    LAWS.iter()
        .filter_map(|law| match &report[*law] {
            Value::BulkString(ok) if ok == b"ok" => None,
            lines => Some(((*law).to_owned(), redis::from_redis_value(lines.clone()).unwrap())),
        })
        .collect()
}

#[test]
fn what_verify_finds() {
    let server = Server::start();
    let conn = &mut server.connection();
    load(conn, BAD);
    for file in ["published-weighted.lua", "premium-first.lua", "hard-ceiling.lua"] {
        load_example(conn, file);
    }
    #[rustfmt::skip]
    let table: [(&str, &[&str]); 10] = [
        ("max",                   &["inflationary"]),
        ("min",                   &[]),
        ("weighted",              &[]),
        ("lww",                   &[]),
        ("fn:published_weighted", &["associative", "idempotent", "inflationary"]),
        ("fn:premium_first",      &[]),
        ("fn:hard_ceiling",       &[]),
        ("fn:average",            &["associative", "inflationary"]),
        ("fn:first",              &["commutative"]),
        ("fn:sum",                &["idempotent", "inflationary", "within-capacity"]),
    ];
    for (strategy, expected) in table {
        for seed in 0..3 {
            let found = broken(conn, &format!("CL.VERIFY {strategy} SEED {seed}"));
            assert_eq!(
                found.keys().map(String::as_str).collect::<Vec<_>>(),
                {
                    let mut sorted = expected.to_vec();
                    sorted.sort_unstable();
                    sorted
                },
                "{strategy} {found:#?}"
            );
        }
    }
    // More samples, and rates that leave remainders.
    for rate in ["5", "0.000007", "0", "333.333333"] {
        run(conn, &[&format!("CONFIG SET claw.refill-rate-per-sec {rate}")]);
        for strategy in ["min", "weighted", "lww"] {
            let found = broken(conn, &format!("CL.VERIFY {strategy} SAMPLES 20000 SEED 9"));
            assert!(found.is_empty(), "{rate} {strategy}: {found:#?}");
        }
    }
    // It writes nothing, and an error of a function is an error.
    assert_eq!(int(conn, "DBSIZE"), 0);
    for name in ["none", "raises", "nan", "may_write"] {
        let text = error(conn, &format!("CL.VERIFY fn:{name}"));
        assert!(text.starts_with(&format!("ERR function '{name}': ")), "{text}");
    }
}

#[test]
fn the_reply_of_verify() {
    let server = Server::start();
    let names = ["strategy", "samples", "seed"].into_iter().chain(LAWS);
    let names: Vec<Value> = names.map(|n| Value::BulkString(n.into())).collect();
    let Value::Map(pairs) = cmd(
        &mut server.connection_resp3(),
        "CL.VERIFY MAX SAMPLES 50 SEED 18446744073709551615 BUDGET 10000",
    )
    .unwrap() else {
        panic!("a map in RESP3");
    };
    assert_eq!(pairs.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), names);
    assert_eq!(pairs[0].1, Value::BulkString(b"max".to_vec()));
    assert_eq!(pairs[1].1, Value::Int(50));
    assert_eq!(pairs[2].1, Value::BulkString(b"18446744073709551615".to_vec()));
    let Value::Array(flat) =
        cmd(&mut server.connection(), "CL.VERIFY weighted BUDGET 10000").unwrap()
    else {
        panic!("an array in RESP2");
    };
    assert_eq!(flat.iter().step_by(2).cloned().collect::<Vec<_>>(), names);
    assert_eq!(flat[1], Value::BulkString(b"weighted".to_vec()));
    assert_eq!(flat[3], Value::Int(2000));
    assert_eq!(flat[5], Value::BulkString(b"0".to_vec()));
    assert!(flat[7..].iter().step_by(2).all(|v| *v == Value::BulkString(b"ok".to_vec())));
}

/// The same seed, the same counterexamples, but for the moment they are dated to.
#[test]
fn a_seed_decides_everything() {
    let server = Server::start();
    let conn = &mut server.connection();
    load(conn, BAD);
    load_example(conn, "published-weighted.lua");
    // Timestamps as their distance from the first one.
    let dateless = |found: BTreeMap<String, Vec<String>>| {
        let text = format!("{found:#?}");
        let number = |word: &str| word.parse::<u64>().ok().filter(|n| *n > 1_000_000_000_000_000);
        let words: Vec<&str> = text.split([' ', '"']).collect();
        let first = words.iter().find_map(|word| number(word)).unwrap_or(0) as i64;
        let dated = |word: &&str| match number(word) {
            Some(n) => format!("t{:+}", n as i64 - first),
            None => (*word).to_owned(),
        };
        words.iter().map(dated).collect::<Vec<_>>().join(" ")
    };
    let mut report = || {
        let mut reports = Vec::new();
        for strategy in ["max", "fn:published_weighted", "fn:average", "fn:sum", "fn:first"] {
            for seed in [0, 7] {
                let found = broken(conn, &format!("CL.VERIFY {strategy} SEED {seed}"));
                assert!(!found.is_empty(), "{strategy}");
                reports.push(dateless(found));
            }
        }
        reports
    };
    let first = report();
    // The next second, so that the dates differ.
    let second = now_us() / 1_000_000;
    eventually(PATIENCE, TICK, "the next second", || now_us() / 1_000_000 > second);
    assert_eq!(report(), first);
}

/// The commands of a counterexample, typed again, do what is printed, and the
/// difference shows.
#[test]
fn counterexamples_can_be_retyped() {
    // Without refill, a merge some seconds later gives the same.
    let server = still_server();
    let conn = &mut server.connection();
    load(conn, BAD);
    load_example(conn, "published-weighted.lua");
    let mut retyped = 0;
    for strategy in ["max", "fn:published_weighted", "fn:average", "fn:sum", "fn:first"] {
        for seed in 0..5 {
            for (law, lines) in broken(conn, &format!("CL.VERIFY {strategy} SEED {seed}")) {
                run(conn, &["FLUSHALL"]);
                let place = format!("{strategy} {law}: {lines:#?}");
                let mut last: Option<Result<Value, String>> = None;
                for line in &lines {
                    let Some(told) = line.strip_prefix("# ") else {
                        let words: Vec<&str> = line.split(' ').collect();
                        last = Some(call(conn, &words));
                        continue;
                    };
                    let result = last.take().expect("a command before the remark");
                    match told.split_once(" is ") {
                        None => {
                            assert_eq!(told, "more tokens than the capacity");
                            let text = result.expect_err(&place);
                            assert!(text.ends_with(told), "{text}");
                        }
                        Some((key, told)) => {
                            result.unwrap_or_else(|text| panic!("{text}: {place}"));
                            let got = tokens_and_weight(conn, key);
                            let told: Vec<&str> = told.split(' ').collect();
                            assert_eq!(got, (told[1].to_owned(), told[5].to_owned()), "{place}");
                        }
                    }
                }
                let pair = match law.as_str() {
                    "commutative" => Some(("ab", "ba")),
                    "associative" => Some(("left", "right")),
                    "idempotent" => Some(("aa", "a")),
                    _ => None,
                };
                if let Some((one, other)) = pair {
                    let [one, other] = [one, other].map(|key| tokens_and_weight(conn, key));
                    assert_ne!(one, other, "{place}");
                }
                if law == "inflationary" {
                    let [a, ab] = ["a", "ab"].map(|key| {
                        tokens_and_weight(conn, key).0.parse::<f64>().expect("a number")
                    });
                    assert!(ab > a, "{place}");
                }
                retyped += 1;
            }
        }
    }
    assert!(retyped >= 40, "{retyped}");
}

fn tokens_and_weight(conn: &mut Connection, key: &str) -> (String, String) {
    let fields = fields(conn, key);
    let weight = fields.get("userWeight").cloned().unwrap_or_else(|| "1".into());
    (fields["tokens"].clone(), weight)
}

/// The server is its users' again when the budget is used up, and the reply says how far it came.
#[test]
fn the_budget_is_kept() {
    let server = Server::start();
    let conn = &mut server.connection();
    load_example(conn, "premium-first.lua");
    let line = "CL.VERIFY fn:premium_first SAMPLES 20000 BUDGET 5";
    let begun = std::time::Instant::now();
    let report: BTreeMap<String, Value> = ask(conn, line);
    // The whole takes a second or so on an idle machine.
    assert!(begun.elapsed().as_millis() < 500, "{:?}", begun.elapsed());
    let Value::Int(samples) = report["samples"] else { panic!("{report:?}") };
    assert!((1..20_000).contains(&samples), "{samples}");
}
