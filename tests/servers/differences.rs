//! The table in docs/servers.md, compared with what this server does.

use crate::introspection::has_categories;
use crate::node::{Node, Version};
use claw_testkit::{ask, cmd, error, run, serve_all_slots};
use redis::{Connection, Value};
use std::collections::BTreeMap;

pub fn are_as_documented(server: &str) {
    let node = Node::start(server, &["--enable-debug-command", "yes"]);
    let conn = &mut node.connection();
    let version = Version::of(conn);
    let mut found: BTreeMap<&str, bool> = BTreeMap::new();
    found.insert("Microseconds", microseconds(conn));
    found.insert("One moment in a transaction", one_moment(conn));
    found.insert("ACL categories", categories(conn));
    found.insert("Merge functions", merge_functions(conn));
    found.insert("`HEXPIRE`", field_expiry(conn));
    found.insert("Databases in cluster mode", cluster_databases(server, conn));
    found.insert("Slots that move as a whole", slots_as_a_whole(server));
    found.insert("`valkey_version` in `INFO`", matches!(version, Version::Valkey(..)));

    let table = table();
    assert_eq!(
        table.keys().map(String::as_str).collect::<Vec<_>>(),
        found.keys().copied().collect::<Vec<_>>(),
        "the rows of docs/servers.md, and what is tried here"
    );
    for (what, is) in found {
        let [redis, valkey] = &table[what];
        let (claim, version) = match version {
            Version::Redis(version) => (redis, version),
            Version::Valkey(version) => (valkey, version),
        };
        assert_eq!(claims(claim, version), is, "docs/servers.md: {what}: {claim}");
    }
}

/// The rows under "Differences": what, on Redis, on Valkey.
fn table() -> BTreeMap<String, [String; 2]> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/servers.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (_, section) = page.split_once("\n## Differences\n").expect("the section");
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        (cells[0].to_owned(), [cells[1].to_owned(), cells[2].to_owned()])
    })
    .collect()
}

/// What a cell says of a version: `yes`, `no`, `from 7.2` or `from 7.0.6`.
fn claims(cell: &str, version: [u32; 3]) -> bool {
    match cell {
        "yes" => true,
        "no" => false,
        cell => {
            let first = cell.strip_prefix("from ").expect("a claim");
            let mut parts = first.split('.').map(|part| part.parse().unwrap());
            version >= [(); 3].map(|()| parts.next().unwrap_or(0))
        }
    }
}

/// Whether any of many timestamps has a part below a millisecond.
fn microseconds(conn: &mut Connection) -> bool {
    let mut timestamp = |n: u32| -> u64 {
        run(conn, &[&format!("CL.TAKE timed:{n}")]);
        ask(conn, &format!("HGET timed:{n} timestamp"))
    };
    (0..20).any(|n| !timestamp(n).is_multiple_of(1_000))
}

/// Whether two takes see the same clock though the transaction takes a while.
fn one_moment(conn: &mut Connection) -> bool {
    run(conn, &["MULTI", "CL.TAKE early", "DEBUG SLEEP 0.02", "CL.TAKE late", "EXEC"]);
    let [early, late]: [u64; 2] =
        ["early", "late"].map(|key| ask(conn, &format!("HGET {key} timestamp")));
    early == late
}

fn categories(conn: &mut Connection) -> bool {
    let members: Vec<String> = ask(conn, "ACL CAT write");
    let is = members.iter().any(|name| name == "cl.take");
    assert_eq!(is, has_categories(conn));
    is
}

/// Whether a function is called, were there any.
fn merge_functions(conn: &mut Connection) -> bool {
    match error(conn, "CL.VERIFY fn:nobody").as_str() {
        "ERR function 'nobody': Function not found" => true,
        refused => {
            let needs = "ERR a strategy fn:NAME needs Redis 7.0.6 or later";
            assert!(refused.starts_with(needs), "{refused}");
            false
        }
    }
}

/// Fields that expire by themselves are the server's affair.
fn field_expiry(conn: &mut Connection) -> bool {
    run(conn, &["CL.TAKE lent 3 CAPACITY 5 REFILL 0", "HSET lent note mine"]);
    match cmd(conn, "HEXPIRE lent 1000 FIELDS 1 note") {
        Ok(answer) => {
            assert_eq!(answer, Value::Array(vec![Value::Int(1)]));
            let taken: Vec<i64> = ask(conn, "CL.TAKE lent 1 CAPACITY 5 REFILL 0");
            assert_eq!(taken[..3], [1, 5, 1]);
            let left: Vec<i64> = ask(conn, "HTTL lent FIELDS 1 note");
            assert!((1..=1000).contains(&left[0]), "a take leaves other fields alone: {left:?}");
            true
        }
        Err(_) => false,
    }
}

/// Whether a node in cluster mode can have buckets in a database other than 0.
fn cluster_databases(server: &str, conn: &mut Connection) -> bool {
    let known: Vec<String> = ask(conn, "CONFIG GET cluster-databases");
    if known.is_empty() {
        return false;
    }
    let node = Node::start(server, &["--cluster-enabled", "yes", "--cluster-databases", "4"]);
    let conn = &mut node.connection();
    serve_all_slots(conn);
    run(conn, &["SELECT 3"]);
    let taken: Vec<i64> = ask(conn, "CL.TAKE k 1 CAPACITY 1 REFILL 0");
    assert_eq!(taken[0], 1);
    run(conn, &["SELECT 0"]);
    let there: bool = ask(conn, "EXISTS k");
    assert!(!there);
    true
}

/// Whether a node would move a slot as a whole, were it asked to move it anywhere but to
/// itself: so no module is in the way.
fn slots_as_a_whole(server: &str) -> bool {
    let node = Node::start(server, &["--cluster-enabled", "yes"]);
    let conn = &mut node.connection();
    serve_all_slots(conn);
    let id: String = ask(conn, "CLUSTER MYID");
    let move_to_itself = [
        (format!("CLUSTER MIGRATESLOTS SLOTSRANGE 0 0 NODE {id}"), "node can not be this node"),
        ("CLUSTER MIGRATION IMPORT 0 0".to_owned(), "already the owner"),
    ];
    move_to_itself.iter().any(|(line, itself)| {
        let refused = error(conn, line);
        assert!(refused.contains(itself) || refused.contains("unknown subcommand"), "{refused}");
        refused.contains(itself)
    })
}
