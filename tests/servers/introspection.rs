//! What the server tells of the commands, and its access control.

use crate::node::{Node, Version};
use claw_testkit::{ask, cmd, error, run};
use redis::{Connection, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Name, arity, whether it writes, and whether it has keys.
const COMMANDS: &[(&str, i64, bool, bool)] = &[
    ("cl.take", -2, true, true),
    ("cl.peek", -2, false, true),
    ("cl.give", -2, true, true),
    ("cl.settle", -4, true, true),
    ("cl.takeall", -2, true, true),
    ("cl.policy", -2, true, true),
    ("cl.policy_ro", 2, false, true),
    ("cl.throttle", -5, true, true),
    ("cl.merge", -4, true, true),
    ("cl.state", 2, false, true),
    ("cl.verify", -2, false, false),
];

pub fn commands_are_described(server: &str) {
    let node = Node::start(server, &[]);
    let conn = &mut node.connection();
    for (name, arity, writes, has_keys) in COMMANDS {
        let info: Vec<Vec<Value>> = ask(conn, &format!("COMMAND INFO {name}"));
        assert_eq!(info[0][1], Value::Int(*arity), "{name}");
        let flags: BTreeSet<String> = redis::from_redis_value(info[0][2].clone()).unwrap();
        assert!(flags.contains("module"), "{name}: {flags:?}");
        assert_eq!(flags.contains("write"), *writes, "{name}: {flags:?}");
        assert_eq!(flags.contains("readonly"), !writes, "{name}: {flags:?}");
        assert_eq!(flags.contains("denyoom"), *writes, "{name}: {flags:?}");
        let Value::Array(keys) = &info[0][8] else { panic!("{name}: {:?}", info[0][8]) };
        assert_eq!(!keys.is_empty(), *has_keys, "{name}");

        let docs: BTreeMap<String, BTreeMap<String, Value>> =
            ask(conn, &format!("COMMAND DOCS {name}"));
        for part in ["summary", "complexity", "since", "arguments"] {
            assert!(docs[*name].contains_key(part), "{name} has no {part}");
        }
    }
}

pub fn keys_are_found(server: &str) {
    let node = Node::start(server, &[]);
    let conn = &mut node.connection();
    #[rustfmt::skip]
    let table = [
        ("CL.TAKE a 1 CAPACITY 2 REFILL 5",                "a"),
        ("CL.PEEK a",                             "a"),
        ("CL.SETTLE a 2 1",                       "a"),
        ("CL.TAKEALL a AND b 2 AND AND 3",        "a b AND"),
        ("CL.MERGE a FROM 2 b c STRATEGY min",    "a b c"),
        ("CL.MERGE a FIELDS tokens 1",            "a"),
        ("CL.THROTTLE a 15 30 60",                "a"),
    ];
    for (line, keys) in table {
        let found: Vec<String> = ask(conn, &format!("COMMAND GETKEYS {line}"));
        assert_eq!(found.join(" "), keys, "{line}");
    }
}

pub fn acl_guards_commands_and_keys(server: &str) {
    let node = Node::start(server, &[]);
    let conn = &mut node.connection();
    run(conn, &["ACL SETUSER app on >secret ~limit:* +cl.take +cl.takeall"]);
    let app = &mut node.connection();
    run(app, &["AUTH app secret", "CL.TAKE limit:a", "CL.TAKEALL limit:a AND limit:b"]);
    for line in ["CL.TAKE other", "CL.TAKEALL limit:a AND other", "CL.GIVE limit:a"] {
        assert!(error(app, line).starts_with("NOPERM "), "{line}");
    }

    // By category, where there are any for modules: docs/servers.md.
    run(
        conn,
        &["ACL SETUSER reader on >secret ~* +@read", "ACL SETUSER writer on >secret ~* +@write"],
    );
    let categories = has_categories(conn);
    for (user, line, allowed) in [
        ("reader", "CL.PEEK limit:a", categories),
        ("reader", "CL.TAKE limit:a", false),
        ("writer", "CL.TAKE limit:a", categories),
        ("writer", "CL.PEEK limit:a", false),
    ] {
        let conn = &mut node.connection();
        run(conn, &[&format!("AUTH {user} secret")]);
        assert_eq!(cmd(conn, line).is_ok(), allowed, "{user}: {line}");
    }
}

/// Redis 7.0 has no way for a module to put its commands into categories.
pub fn has_categories(conn: &mut Connection) -> bool {
    match Version::of(conn) {
        Version::Redis(version) => version >= [7, 2, 0],
        Version::Valkey(..) => true,
    }
}
