//! A shared bucket whose key becomes what it was not by takes: restored, copied, moved, renamed,
//! exchanged or loaded. What is taken afterwards is seen by all regions.

use crate::world::{PATIENCE, TICK, World, entries};
use claw_testkit::{eventually, ints, run};
use redis::{Connection, cmd as command};
use std::time::Duration;

const TERMS: &str = "CAPACITY 100 REFILL 0";

/// One way for a hash to come to the key.
struct Way {
    name: &'static str,
    /// What is kept of the key, or of another one, early on.
    prepare: fn(&mut Connection) -> Vec<u8>,
    /// What brings it.
    come: fn(&mut Connection, &[u8]),
    /// The tokens in it.
    level: i64,
    /// Whether its counters are those of this key, and stay.
    counts: bool,
}

fn dump(conn: &mut Connection) -> Vec<u8> {
    command("DUMP").arg("k").query(conn).unwrap()
}

fn restore(conn: &mut Connection, key: &str, dump: &[u8]) {
    command("RESTORE").arg(key).arg(0).arg(dump).arg("REPLACE").exec(conn).unwrap();
}

/// Another bucket, from which 5 tokens have been taken.
fn another(conn: &mut Connection) -> Vec<u8> {
    run(conn, &[&format!("CL.TAKE other 5 {TERMS}")]);
    Vec::new()
}

/// The bucket of the same name in another database.
fn elsewhere(conn: &mut Connection) -> Vec<u8> {
    run(conn, &["SELECT 1", &format!("CL.TAKE k 5 {TERMS}"), "SELECT 0"]);
    Vec::new()
}

fn save(conn: &mut Connection) -> Vec<u8> {
    run(conn, &["SAVE"]);
    Vec::new()
}

#[rustfmt::skip]
const WAYS: &[Way] = &[
    Way { name: "RESTORE", prepare: dump, come: |conn, dump| restore(conn, "k", dump), level: 90, counts: false },
    Way { name: "RESTORE of another", prepare: |conn| { another(conn); command("DUMP").arg("other").query(conn).unwrap() }, come: |conn, dump| restore(conn, "k", dump), level: 95, counts: false },
    Way { name: "COPY", prepare: another, come: |conn, _| run(conn, &["COPY other k REPLACE"]), level: 95, counts: false },
    Way { name: "RENAME", prepare: another, come: |conn, _| run(conn, &["RENAME other k"]), level: 95, counts: false },
    Way { name: "MOVE", prepare: elsewhere, come: |conn, _| run(conn, &["MULTI", "DEL k", "SELECT 1", "MOVE k 0", "SELECT 0", "EXEC"]), level: 95, counts: false },
    Way { name: "SWAPDB", prepare: elsewhere, come: |conn, _| run(conn, &["SWAPDB 0 1"]), level: 95, counts: false },
    Way { name: "an older RDB", prepare: save, come: |conn, _| run(conn, &["DEBUG RELOAD NOSAVE"]), level: 90, counts: true },
];

fn take(conn: &mut Connection, tokens: i64) -> i64 {
    ints(conn, &format!("CL.TAKE k {tokens} {TERMS}"))[0]
}

/// 70 tokens have been taken before the hash comes, 10 of them in the other region and not in it.
/// From then on there is what it holds, less those 10: so much can be taken, by both together, and
/// every take is known to both.
#[test]
fn what_is_taken_in_a_new_life_is_seen_by_all() {
    for Way { name, prepare, come, level, counts } in WAYS {
        let world = World::start_with(2, Duration::ZERO, &|_, builder| {
            builder.config("enable-debug-command", "yes")
        });
        let (conn, other) = (&mut world.connection(0), &mut world.connection(1));
        let left = || world.left(&format!("CL.PEEK k 0 {TERMS}"));
        assert_eq!(take(conn, 10), 10);
        world.wait_until_quiet();
        let kept = prepare(conn);
        assert_eq!((take(conn, 50), take(other, 10)), (50, 10));
        world.wait_until_quiet();
        assert_eq!(left(), [30, 30], "{name}");
        let before = entries(other, "k")["r0"];

        come(conn, &kept);
        assert_eq!(left()[0], *level, "{name}");
        let own = entries(conn, "k");
        assert_eq!(own.contains_key("r0"), *counts, "{name}: {own:?}");

        assert_eq!(take(conn, 20), 20, "{name}");
        eventually(PATIENCE, TICK, name, || entries(other, "k")["r0"].epoch > before.epoch);
        assert_eq!(entries(other, "k")["r0"].spent, 20_000_000, "{name}");
        assert_eq!(take(other, 5), 5, "{name}");
        world.wait_until_quiet();
        let rest = level - 10 - 20 - 5;
        assert_eq!(left(), [rest, rest], "{name}");

        assert_eq!(take(conn, rest / 2), rest / 2, "{name}");
        world.wait_until_quiet();
        assert_eq!(take(other, rest - rest / 2), rest - rest / 2, "{name}");
        world.wait_until_quiet();
        assert_eq!((take(conn, 1), take(other, 1)), (0, 0), "{name}");
        let counted = world.entries("k");
        let spent = |of: &str| i64::try_from(counted[of].spent / 1_000_000).unwrap();
        assert_eq!(spent("r0"), 20 + rest / 2, "{name}");
        assert_eq!(spent("r1"), 10 + 5 + rest - rest / 2, "{name}");
        world.no_warnings();
    }
}
