//! `INFO`.

use crate::calls::counters;
use crate::introspection::ABOUT;
use claw_testkit::{Server, ask, cmd, info_field, run};
use std::collections::BTreeSet;

#[test]
fn info_counts_what_is_done() {
    let server = Server::start();
    let conn = &mut server.connection();
    let version = info_field(conn, "claw", "claw_version");
    assert_eq!(version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
    assert_eq!(counters(conn), [0; 8]);
    // What each adds: takes, refusals, gifts and settlements, tokens taken, given and used
    // beyond what was reserved, corrupt buckets.
    run(conn, &["CL.POLICY k CAPACITY 100 REFILL 0", "HSET bad tokens x"]);
    let rows = [
        ("CL.TAKE k", [1, 0, 0, 0, 1, 0, 0, 0]),
        ("CL.TAKE k 7", [1, 0, 0, 0, 7, 0, 0, 0]),
        ("CL.TAKE k 0", [0, 0, 0, 0, 0, 0, 0, 0]),
        ("CL.TAKE k 101", [0, 1, 0, 0, 0, 0, 0, 0]),
        ("CL.PEEK k", [0, 0, 0, 0, 0, 0, 0, 0]),
        ("CL.PEEK k 101", [0, 0, 0, 0, 0, 0, 0, 0]),
        ("CL.GIVE k 3", [0, 0, 1, 0, 0, 3, 0, 0]),
        ("CL.GIVE k 0", [0, 0, 0, 0, 0, 0, 0, 0]),
        ("CL.GIVE k 9", [0, 0, 1, 0, 0, 5, 0, 0]),
        ("CL.GIVE k 9", [0, 0, 0, 0, 0, 0, 0, 0]),
        ("CL.TAKE k 150 PARTIAL", [1, 0, 0, 0, 100, 0, 0, 0]),
        ("CL.TAKE k 1 PARTIAL", [0, 1, 0, 0, 0, 0, 0, 0]),
        ("CL.GIVE k 50", [0, 0, 1, 0, 0, 50, 0, 0]),
        ("CL.TAKEALL k AND a 2 AND k 3", [1, 0, 0, 0, 6, 0, 0, 0]),
        ("CL.TAKEALL a AND k 101", [0, 1, 0, 0, 0, 0, 0, 0]),
        ("CL.TAKEALL k 0", [0, 0, 0, 0, 0, 0, 0, 0]),
        ("CL.TAKE k 1 KEEP 100", [0, 1, 0, 0, 0, 0, 0, 0]),
        ("CL.SETTLE k 5 2", [0, 0, 0, 1, 0, 3, 0, 0]),
        ("CL.SETTLE k 5 5", [0, 0, 0, 0, 0, 0, 0, 0]),
        ("CL.SETTLE k 5 9", [0, 0, 0, 1, 0, 0, 4, 0]),
        // What is booked counts, and not what was asked for.
        ("CL.SETTLE debt 0 9 CAPACITY 4 REFILL 0", [0, 0, 0, 1, 0, 0, 8, 0]),
        ("CL.SETTLE debt 0 9", [0, 0, 0, 0, 0, 0, 0, 0]),
        ("CL.SETTLE debt 9 0", [0, 0, 0, 1, 0, 8, 0, 0]),
        ("CL.SETTLE debt 9 0", [0, 0, 0, 0, 0, 0, 0, 0]),
        ("CL.THROTTLE t 15 1 31622400", [1, 0, 0, 0, 1, 0, 0, 0]),
        ("CL.THROTTLE t 15 1 31622400 4", [1, 0, 0, 0, 4, 0, 0, 0]),
        ("CL.THROTTLE t 15 1 31622400 17", [0, 1, 0, 0, 0, 0, 0, 0]),
        ("CL.THROTTLE t 15 1 31622400 0", [0, 0, 0, 0, 0, 0, 0, 0]),
        ("CL.THROTTLE t 15 1 31622400 -1", [0, 0, 1, 0, 0, 1, 0, 0]),
        ("CL.POLICY k WEIGHT 2", [0, 0, 0, 0, 0, 0, 0, 0]),
        ("CL.POLICY_RO k", [0, 0, 0, 0, 0, 0, 0, 0]),
        // Errors are none of these, except for what a bucket holds.
        ("CL.TAKE", [0, 0, 0, 0, 0, 0, 0, 0]),
        ("CL.TAKE k 1 FOO", [0, 0, 0, 0, 0, 0, 0, 0]),
        ("CL.TAKE bad", [0, 0, 0, 0, 0, 0, 0, 1]),
        ("CL.PEEK bad", [0, 0, 0, 0, 0, 0, 0, 1]),
        ("CL.TAKEALL k AND bad", [0, 0, 0, 0, 0, 0, 0, 1]),
        ("CL.SETTLE bad 1 2", [0, 0, 0, 0, 0, 0, 0, 1]),
        ("CL.POLICY bad", [0, 0, 0, 0, 0, 0, 0, 1]),
    ];
    let mut expected = [0; 8];
    for (line, more) in rows {
        let wrong = line == "CL.TAKE" || line.ends_with("FOO") || line.contains("bad");
        assert_eq!(cmd(conn, line).is_err(), wrong, "`{line}`");
        for (sum, more) in expected.iter_mut().zip(more) {
            *sum += more;
        }
        assert_eq!(counters(conn), expected, "`{line}`");
    }
    let merging = ["merged", "merge_errors"].map(|name| format!("claw_{name}"));
    let rows = [
        ("CL.MERGE m FIELDS tokens 5", ["1", "0"]),
        ("CL.MERGE m FIELDS tokens 0 STRATEGY max", ["1", "0"]),
        ("CL.MERGE m FIELDS tokens x", ["1", "1"]),
        ("CL.STATE m", ["1", "1"]),
        ("CL.VERIFY max SAMPLES 10", ["1", "1"]),
    ];
    for (line, expected) in rows {
        assert_eq!(cmd(conn, line).is_err(), line.ends_with(" x"), "`{line}`");
        let found = merging.clone().map(|name| info_field(conn, "claw", &name));
        assert_eq!(found, expected.map(|count| Some(count.to_owned())), "`{line}`");
    }
    // The server's own figures of our commands, so that one section has it all.
    for (name, ..) in ABOUT {
        for (section, prefix) in
            [("commandstats", "cmdstat"), ("latencystats", "latency_percentiles_usec")]
        {
            let field = format!("{prefix}_{name}");
            let theirs = info_field(conn, section, &field);
            // Region sync was not used above.
            assert_eq!(theirs.is_some(), !name.starts_with("cl.sync"), "{field}");
            assert_eq!(info_field(conn, "claw", &format!("claw_{field}")), theirs);
        }
    }
    for sections in ["everything", "modules"] {
        let info: String = ask(conn, &format!("INFO {sections}"));
        assert_eq!(info.matches("# claw\r\n").count(), 1, "INFO {sections}");
    }
}

#[test]
fn info_has_lines_that_an_exporter_can_read() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["CL.TAKE k", "CL.PEEK k"]);
    let info: String = ask(conn, "INFO claw");
    let mut lines = info.trim_end().split("\r\n");
    assert_eq!(lines.next(), Some("# claw"));
    let mut seen = BTreeSet::new();
    for line in lines {
        let (name, value) = line.split_once(':').expect("name:value");
        assert!(name.starts_with("claw_") && !value.is_empty(), "{line}");
        assert!(seen.insert(name.to_owned()), "{line} twice");
    }
    assert!(seen.len() > 8, "{info}");
}
