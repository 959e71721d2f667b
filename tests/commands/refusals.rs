//! Wrong arguments and keys of other types: named in the error, and nothing changed.

use crate::calls::{DAYS_366_MS, TRILLION};
use claw_testkit::{Server, call_bytes, digest, error, int, run};
use std::fmt::Display;

const TOKENS: &str = "ERR tokens must be an integer from 0 to 1000000000000";
pub const CAPACITY: &str = "ERR capacity must be an integer from 0 to 1000000000000";

const REFILL: &str = "ERR refill must be 0 or a number from 0.000001 to 1000000000000";

const INTERVAL: &str = "ERR interval must be an integer from 1 to 31622400000 milliseconds";
const WEIGHT: &str = "ERR weight must be an integer from 1 to 10";
const KEEP: &str = "ERR KEEP must be an integer from 0 to 1000000000000";
const RESERVED: &str = "ERR reserved must be an integer from 0 to 1000000000000";
const USED: &str = "ERR used must be an integer from 0 to 1000000000000";
const NO_KEY: &str = "ERR a key is missing after 'AND'";
const LONE_CAPACITY: &str = "ERR option 'CAPACITY' needs 'REFILL'";
const NO_CAPACITY: &str = "ERR option 'REFILL' with 0 needs 'CAPACITY'";
const LONE_INTERVAL: &str = "ERR option 'INTERVAL' needs 'REFILL'";
const LONE_RESET: &str = "ERR option 'RESET' stands alone";
const WRONGTYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";

/// A way to write one argument wrongly.
fn no_integers(max: i64) -> Vec<Vec<u8>> {
    let mut bad: Vec<Vec<u8>> = [
        "",
        "-1",
        "-0",
        "+1",
        " 1",
        "1 ",
        "1\n",
        "1.5",
        "1.",
        ".5",
        "1e-3",
        "15e-1",
        "1e",
        "1e999999999999",
        "1e-999999999999",
        "0x10",
        "1_0",
        "1,0",
        "one",
        "NaN",
        "inf",
        "\u{661}",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "340282366920938463463374607431768211456",
        "%s%n",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    bad.push((max + 1).to_string().into_bytes());
    bad.push(b"9".repeat(512));
    bad.push(b"1\x00".to_vec());
    bad.push(b"\xff\xfe".to_vec());
    bad
}

/// Every way to write a call wrongly, and the error; `K` stands for the key.
fn wrong_calls() -> Vec<(Vec<Vec<u8>>, String)> {
    let mut rows: Vec<(Vec<Vec<u8>>, String)> = Vec::new();
    let mut row = |line: &str, error: &dyn Display| {
        let words = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        rows.push((words, error.to_string()));
    };
    for name in ["cl.take", "cl.peek", "cl.give", "cl.policy", "cl.policy_ro", "cl.takeall"] {
        row(name, &format!("ERR wrong number of arguments for '{name}' command"));
    }
    for line in ["cl.settle", "cl.settle K", "cl.settle K 1"] {
        row(line, &"ERR wrong number of arguments for 'cl.settle' command");
    }
    let unknown = |option: &str| format!("ERR unknown option '{option}'");
    let doubled = |option: &str| format!("ERR option '{option}' is given twice");
    let no_value = |option: &str| format!("ERR option '{option}' needs a value");

    // Options that a command does not have, known ones of others included.
    row("CL.TAKE K 1 FOO", &unknown("FOO"));
    row("CL.TAKE K 1 2", &unknown("2"));
    row("CL.TAKE K 1 ", &unknown(""));
    row("CL.TAKE K 1 CAPACITY 5 6 REFILL 5", &unknown("6"));
    row("CL.TAKE K PARTIAL 5", &unknown("5"));
    row("CL.TAKE K 1 WEIGHT 5", &unknown("WEIGHT"));
    row("CL.TAKE K 1 RESET", &unknown("RESET"));
    row("CL.TAKE K TOKENS 5", &TOKENS);
    row("CL.TAKE K 1 CAPACITYS 5", &unknown("CAPACITYS"));
    row("CL.TAKE K 1 %s%n", &unknown("%s%n"));
    row("CL.TAKE K 1 a\nb\0c'\\", &unknown("a\\nb\\x00c\\'\\\\"));
    row(&format!("CL.TAKE K 1 {}", "x".repeat(65)), &(unknown(&"x".repeat(64)) + "..."));
    row("CL.PEEK K 1 PARTIAL", &unknown("PARTIAL"));
    row("CL.PEEK K 1 FOO", &unknown("FOO"));
    row("CL.GIVE K 1 FOO", &unknown("FOO"));
    row("CL.GIVE K 1 CAPACITY 5", &unknown("CAPACITY"));
    row("CL.GIVE K 1 2", &unknown("2"));
    row("CL.POLICY K FOO", &unknown("FOO"));
    row("CL.POLICY K 5", &unknown("5"));
    row("CL.POLICY K PARTIAL", &unknown("PARTIAL"));
    row("CL.POLICY K TOKENS 5", &unknown("TOKENS"));
    row("CL.PEEK K 1 KEEP 1", &unknown("KEEP"));
    row("CL.GIVE K 1 KEEP 1", &unknown("KEEP"));
    row("CL.POLICY K KEEP 1", &unknown("KEEP"));
    for groups in ["K", "L 3 AND K"] {
        row(&format!("CL.TAKEALL {groups} 1 FOO"), &unknown("FOO"));
        row(&format!("CL.TAKEALL {groups} PARTIAL"), &unknown("PARTIAL"));
        row(&format!("CL.TAKEALL {groups} 1 TOKENS 1"), &unknown("TOKENS"));
        row(&format!("CL.TAKEALL {groups} 1 WEIGHT 1"), &unknown("WEIGHT"));
        row(&format!("CL.TAKEALL {groups} 1 2"), &unknown("2"));
        row(&format!("CL.TAKEALL {groups} 1 FOO AND L"), &unknown("FOO"));
    }
    row("CL.SETTLE K 1 2 3", &unknown("3"));
    row("CL.SETTLE K 1 2 PARTIAL", &unknown("PARTIAL"));
    row("CL.SETTLE K 1 2 KEEP 1", &unknown("KEEP"));
    row("CL.SETTLE K 1 2 WEIGHT 1", &unknown("WEIGHT"));

    // Options given twice, or without a value.
    let calls = ["TAKE K", "PEEK K", "POLICY K", "TAKEALL K", "TAKEALL L AND K", "SETTLE K 1 2"];
    for call in calls {
        row(&format!("CL.{call} CAPACITY 5 CAPACITY 5"), &doubled("CAPACITY"));
        row(&format!("CL.{call} REFILL 5 refill 6"), &doubled("REFILL"));
        row(&format!("CL.{call} REFILL 5 INTERVAL 5 INTERVAL 5"), &doubled("INTERVAL"));
        for option in ["CAPACITY", "REFILL", "INTERVAL", "REFILL 5 INTERVAL"] {
            let last = option.split(' ').next_back().unwrap();
            row(&format!("CL.{call} {option}"), &no_value(last));
        }
        row(&format!("CL.{call} INTERVAL 5"), &LONE_INTERVAL);
        row(&format!("CL.{call} CAPACITY 5 INTERVAL 5"), &LONE_INTERVAL);
        row(&format!("CL.{call} CAPACITY REFILL 5"), &CAPACITY);
    }
    for call in ["TAKE K", "TAKEALL K", "TAKEALL L AND K"] {
        row(&format!("CL.{call} KEEP 5 KEEP 5"), &doubled("KEEP"));
        row(&format!("CL.{call} KEEP"), &no_value("KEEP"));
    }
    // The word between groups is no value.
    row("CL.TAKEALL K KEEP AND L", &no_value("KEEP"));
    row("CL.TAKEALL K CAPACITY AND L", &no_value("CAPACITY"));
    row("CL.TAKEALL K 1 AND", &NO_KEY);
    row("CL.TAKEALL K AND L and", &NO_KEY);
    row("CL.TAKEALL AND AND", &NO_KEY);
    // A call brings a whole policy or none.
    for call in ["TAKE K", "PEEK K 1", "TAKEALL K", "TAKEALL K 2 AND L 3", "SETTLE K 1 2"] {
        row(&format!("CL.{call} CAPACITY 5"), &LONE_CAPACITY);
        row(&format!("CL.{call} REFILL 0"), &NO_CAPACITY);
        row(&format!("CL.{call} REFILL 0.0 INTERVAL 5"), &NO_CAPACITY);
    }
    row("CL.TAKE K PARTIAL CAPACITY 5", &LONE_CAPACITY);
    row("CL.TAKE K PARTIAL PARTIAL", &doubled("PARTIAL"));
    row("CL.POLICY K WEIGHT 5 WEIGHT 5", &doubled("WEIGHT"));
    row("CL.POLICY K WEIGHT", &no_value("WEIGHT"));
    row("CL.POLICY K RESET RESET", &LONE_RESET);
    row("CL.POLICY K RESET CAPACITY 5", &LONE_RESET);
    row("CL.POLICY K CAPACITY 5 RESET", &unknown("RESET"));

    let many = " AND K".repeat(1024);
    row(&format!("CL.TAKEALL K{many}"), &"ERR more than 1024 keys or states in one call");

    // Numbers out of bounds, and what is no number.
    let mut bad = |template: &str, text: &[u8], error: &str| {
        let words = template.split(' ').map(|word| match word {
            "?" => text.to_vec(),
            word => word.as_bytes().to_vec(),
        });
        rows.push((words.collect(), error.to_owned()));
    };
    let integers: &[(&[&str], i64, &[&str], &str)] = &[
        (
            &[
                "CL.TAKE K ?",
                "CL.TAKE K ? CAPACITY 5 REFILL 5",
                "CL.PEEK K ?",
                "CL.GIVE K ?",
                "CL.TAKEALL K ?",
                "CL.TAKEALL K AND K ?",
            ],
            TRILLION,
            &[],
            TOKENS,
        ),
        (
            &[
                "CL.TAKE K CAPACITY ? REFILL 5",
                "CL.TAKE K 1 REFILL 1 CAPACITY ? PARTIAL",
                "CL.PEEK K CAPACITY ? REFILL 5",
                "CL.POLICY K CAPACITY ?",
                "CL.TAKEALL K AND L CAPACITY ? REFILL 5",
                "CL.SETTLE K 1 2 CAPACITY ? REFILL 5",
            ],
            TRILLION,
            &[],
            CAPACITY,
        ),
        (
            &[
                "CL.TAKE K REFILL 1 INTERVAL ?",
                "CL.TAKE K INTERVAL ? REFILL 1",
                "CL.PEEK K REFILL 1 INTERVAL ?",
                "CL.POLICY K REFILL 1 INTERVAL ?",
                "CL.TAKEALL K AND L REFILL 1 INTERVAL ?",
                "CL.SETTLE K 1 2 REFILL 1 INTERVAL ?",
            ],
            DAYS_366_MS,
            &["0"],
            INTERVAL,
        ),
        (&["CL.POLICY K WEIGHT ?", "CL.POLICY K CAPACITY 5 WEIGHT ?"], 10, &["0", "100"], WEIGHT),
        (
            &["CL.TAKE K KEEP ?", "CL.TAKE K 5 PARTIAL KEEP ?", "CL.TAKEALL K AND L KEEP ?"],
            TRILLION,
            &[],
            KEEP,
        ),
        (&["CL.SETTLE K ? 5"], TRILLION, &["CAPACITY"], RESERVED),
        (&["CL.SETTLE K 5 ?", "CL.SETTLE K 5 ? REFILL 1"], TRILLION, &["CAPACITY"], USED),
    ];
    for (templates, max, more, error) in integers {
        for template in *templates {
            for text in no_integers(*max) {
                bad(template, &text, error);
            }
            for text in *more {
                bad(template, text.as_bytes(), error);
            }
        }
    }
    let no_refills = [
        "",
        ".",
        ".5",
        "5.",
        "-1",
        "-0.0",
        "+1",
        " 1",
        "1 ",
        "1e",
        "1e+",
        "1.e3",
        "e3",
        "1e-9",
        "1e13",
        "1e999999999999",
        "1e-999999999999",
        "0x1",
        "1,5",
        "1.2.3",
        "NaN",
        "inf",
        "0.0000001",
        "0.0000004999",
        "1000000000000.000001",
        "1000000000001",
        "18446744073709551616",
        "0.x",
        "x.0",
        "1.-5",
        "one",
    ];
    for template in [
        "CL.TAKE K REFILL ?",
        "CL.PEEK K REFILL ? INTERVAL 5",
        "CL.POLICY K REFILL ?",
        "CL.TAKEALL K AND L REFILL ?",
        "CL.SETTLE K 1 2 REFILL ?",
    ] {
        for text in no_refills {
            bad(template, text.as_bytes(), REFILL);
        }
        bad(template, &b"9".repeat(512), REFILL);
        bad(template, &[b"0.".to_vec(), b"0".repeat(512), b"1".to_vec()].concat(), REFILL);
        bad(template, b"1\x00", REFILL);
    }
    rows
}

#[test]
fn wrong_arguments_are_named_and_change_nothing() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(
        conn,
        &[
            "CL.TAKE bucket 3 CAPACITY 10 REFILL 1 INTERVAL 31622400000",
            "CL.POLICY pinned CAPACITY 10 WEIGHT 3",
        ],
    );
    let before = (digest(conn), int(conn, "PEXPIRETIME bucket"));
    let rows = wrong_calls();
    assert!(rows.len() > 700, "{}", rows.len());
    for (words, expected) in &rows {
        for key in ["bucket", "pinned", "missing"] {
            let args = words.iter().map(|word| match word.as_slice() {
                b"K" => key.as_bytes(),
                word => word,
            });
            let args: Vec<&[u8]> = args.collect();
            let shown = args.iter().map(|arg| arg.escape_ascii().to_string()).collect::<Vec<_>>();
            assert_eq!(call_bytes(conn, &args), Err(expected.clone()), "{shown:?}");
        }
        let after = (digest(conn), int(conn, "PEXPIRETIME bucket"));
        assert_eq!(after, before, "{:?}", String::from_utf8_lossy(&words.concat()));
    }
    assert_eq!(server.warnings(), Vec::<String>::new());
}

#[test]
fn a_key_of_another_type_is_refused() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(
        conn,
        &[
            "SET string v",
            "SET integer 5",
            "RPUSH list a b",
            "SADD set a b",
            "SADD intset 1 2",
            "ZADD zset 1 a",
            "XADD stream * f v",
            "SETBIT bits 7 1",
            "PFADD hyperloglog a",
            "GEOADD geo 13.4 52.5 berlin",
            "CL.TAKE fine 1 CAPACITY 5 REFILL 0",
        ],
    );
    let before = digest(conn);
    let types = [
        "string",
        "integer",
        "list",
        "set",
        "intset",
        "zset",
        "stream",
        "bits",
        "hyperloglog",
        "geo",
    ];
    let lines = [
        "CL.TAKE ?",
        "CL.TAKE ? 0",
        "CL.TAKE ? 5 CAPACITY 3 REFILL 1 INTERVAL 50 PARTIAL",
        "CL.PEEK ?",
        "CL.GIVE ?",
        "CL.GIVE ? 0",
        "CL.SETTLE ? 1 2",
        "CL.SETTLE ? 2 1",
        "CL.SETTLE ? 0 0",
        "CL.TAKEALL ?",
        "CL.TAKEALL fine AND ?",
        "CL.TAKEALL ? AND fine",
        "CL.TAKEALL fine 0 AND ? 0 AND missing 0",
        "CL.POLICY ?",
        "CL.POLICY ? CAPACITY 5",
        "CL.POLICY ? WEIGHT 5",
        "CL.POLICY ? RESET",
        "CL.THROTTLE ? 15 30 60",
        "CL.THROTTLE ? 15 30 60 0",
        "CL.THROTTLE ? 15 30 60 -1",
    ];
    for key in types {
        for line in lines {
            assert_eq!(error(conn, &line.replace('?', key)), WRONGTYPE, "{line} {key}");
            assert_eq!(digest(conn), before, "{line} {key}");
        }
    }
    assert_eq!(server.warnings(), Vec::<String>::new());
}
