//! ACL: keys, commands, categories.

use crate::calls::{has_categories, words};
use crate::introspection::ABOUT;
use claw_testkit::{Server, ask, call, digest, error, info_field, int, run};
use std::collections::BTreeSet;

#[test]
fn acl_guards_keys_and_commands() {
    let server = Server::start();
    let admin = &mut server.connection();
    let users = [
        ("everything", "+@all ~*"),
        ("reader", "+@all %R~*"),
        ("writer", "+@all %W~*"),
        ("both", "+@all %RW~*"),
        ("mine", "+@all ~mine:*"),
        ("half", "+@all ~mine:* %R~other:*"),
        ("nothing", "-@all ~*"),
        ("looker", "-@all +cl.peek ~*"),
        ("taker", "+@all -cl.policy -cl.throttle ~*"),
        ("dangerous", "+@all -@dangerous -@admin ~*"),
    ];
    for (name, rules) in users {
        run(admin, &[&format!("ACL SETUSER {name} on nopass {rules}")]);
    }
    let everybody = users.map(|(name, _)| name);
    let all = "everything both mine half taker dangerous";
    // The command, and who may.
    let rows = [
        ("CL.PEEK mine:k", "everything reader both mine half looker taker dangerous"),
        ("CL.PEEK other:k", "everything reader both half looker taker dangerous"),
        ("CL.TAKE mine:k", all),
        ("CL.TAKE mine:k 0", all),
        ("CL.TAKE other:k", "everything both taker dangerous"),
        ("CL.GIVE mine:k", all),
        ("CL.GIVE other:k", "everything both taker dangerous"),
        ("CL.SETTLE mine:k 2 1", all),
        ("CL.SETTLE mine:k 2 2", all),
        ("CL.SETTLE other:k 1 2", "everything both taker dangerous"),
        ("CL.TAKEALL mine:a AND mine:b", all),
        ("CL.TAKEALL other:a", "everything both taker dangerous"),
        ("CL.TAKEALL mine:a AND other:b", "everything both taker dangerous"),
        ("CL.TAKEALL other:a AND mine:b", "everything both taker dangerous"),
        ("CL.TAKEALL mine:a 0 AND mine:b 0 AND other:c 0", "everything both taker dangerous"),
        ("CL.POLICY_RO mine:k", "everything reader both mine half taker dangerous"),
        ("CL.POLICY_RO other:k", "everything reader both half taker dangerous"),
        ("CL.POLICY mine:k", "everything both mine half dangerous"),
        ("CL.POLICY other:k CAPACITY 5", "everything both dangerous"),
        ("CL.THROTTLE mine:k 1 2 3", "everything both mine half dangerous"),
        ("CL.THROTTLE other:k 1 2 3", "everything both dangerous"),
    ];
    for user in everybody {
        let conn = &mut server.connection();
        run(conn, &[&format!("AUTH {user} any")]);
        for (line, allowed) in rows {
            let expected = allowed.split(' ').any(|name| name == user);
            let before = digest(admin);
            let answer = call(conn, &line.split(' ').collect::<Vec<_>>());
            match &answer {
                Ok(_) => {}
                Err(e) => {
                    assert!(e.starts_with("NOPERM "), "{user}: {line}: {e}");
                    assert_eq!(digest(admin), before, "{user}: {line}");
                }
            }
            assert_eq!(answer.is_ok(), expected, "{user}: {line}");
            let dry: String = ask(admin, &format!("ACL DRYRUN {user} {line}"));
            assert_eq!(dry == "OK", expected, "{user}: {line}: {dry}");
        }
    }
}

/// Keys that ACL does not see must not be touched.
#[test]
fn acl_sees_all_keys_of_takeall() {
    let server = Server::start();
    let conn = &mut server.connection();
    run(conn, &["ACL SETUSER mine on nopass +@all ~mine:*", "AUTH mine any"]);
    // The user's own keys are named like what stands between and before them.
    for line in [
        "other:a",
        "mine:a AND other:a",
        "mine:a and other:a",
        "mine:a And other:a AND mine:b",
        "mine:a 1 AND mine:b 0 AND other:a 0",
        "mine:a CAPACITY 5 REFILL 5 KEEP 1 AND other:a",
        "mine:a KEEP AND other:a",
        "mine:a CAPACITY AND REFILL AND other:a",
        "AND AND mine:a",
        "mine:a AND AND",
        "mine:a AND AND AND mine:b",
        "mine:a AND KEEP 5",
        "mine:a AND other:a FOO",
    ] {
        let refused = error(conn, &format!("CL.TAKEALL {line}"));
        assert!(refused.starts_with("NOPERM "), "`{line}`: {refused}");
    }
    assert_eq!(error(conn, "CL.TAKEALL mine:a AND"), "ERR a key is missing after 'AND'");
    run(conn, &["AUTH default any"]);
    assert_eq!(int(conn, "DBSIZE"), 0);
}

#[test]
fn commands_are_in_acl_categories() {
    let server = Server::start();
    let conn = &mut server.connection();
    let categorized = has_categories(conn);
    // Redict, as Redis 7.2, leaves the commands of modules out of this list.
    let listing = categorized && info_field(conn, "server", "redict_version").is_none();
    for category in ["read", "write", "fast", "slow", "hash", "dangerous", "admin", "keyspace"] {
        let listed: BTreeSet<String> = ask(conn, &format!("ACL CAT {category}"));
        for (name, .., categories, _) in ABOUT {
            let expected = listing && words(categories).contains(category);
            assert_eq!(listed.contains(*name), expected, "{name} in {category}");
        }
    }
    let rows = [
        ("-@all +@read", "CL.PEEK"),
        ("-@all +@write", "CL.TAKE CL.GIVE CL.SETTLE CL.TAKEALL CL.POLICY CL.THROTTLE"),
        ("-@all +@hash", "CL.TAKE CL.PEEK CL.GIVE CL.SETTLE CL.TAKEALL CL.POLICY CL.THROTTLE"),
        ("-@all +@fast", "CL.TAKE CL.PEEK CL.GIVE CL.SETTLE CL.POLICY CL.THROTTLE"),
        ("-@all +@slow", "CL.TAKEALL"),
        ("+@all -@write", "CL.PEEK"),
    ];
    let lines = [
        "CL.TAKE k",
        "CL.PEEK k",
        "CL.GIVE k",
        "CL.SETTLE k 1 2",
        "CL.TAKEALL k",
        "CL.POLICY k",
        "CL.THROTTLE k 1 2 3",
    ];
    for (rules, allowed) in rows {
        run(conn, &[&format!("ACL SETUSER u reset on nopass ~* {rules}")]);
        for line in lines {
            let dry: String = ask(conn, &format!("ACL DRYRUN u {line}"));
            let name = line.split(' ').next().unwrap();
            // What is in no category neither gets a right by one nor loses it.
            let expected = match categorized {
                true => words(allowed).contains(name),
                false => rules.starts_with("+@all"),
            };
            assert_eq!(dry == "OK", expected, "{rules}: {line}: {dry}");
        }
    }
}
