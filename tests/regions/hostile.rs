//! A peer that sends what it should not.

use crate::world::{PATIENCE, TICK, World, entries, field, status};
use claw_core::codec::{self, Besides};
use claw_testkit::{digest, eventually, ints, run, wire_error};
use redis::{Connection, Value};
use std::time::Duration;

fn merge(conn: &mut Connection, blob: &[u8]) -> Result<Value, String> {
    let mut command = redis::cmd("CL.MERGE");
    command.arg("k").arg("STATE").arg(blob).arg("STRATEGY").arg("debit");
    command.query(conn).map_err(|error| wire_error(&error).expect("an answer"))
}

/// A map of MessagePack with one field changed.
fn with(blob: &[u8], name: &str, value: rmpv::Value) -> Vec<u8> {
    changed(blob, name, Some(value))
}

fn without(blob: &[u8], name: &str) -> Vec<u8> {
    changed(blob, name, None)
}

fn changed(blob: &[u8], name: &str, value: Option<rmpv::Value>) -> Vec<u8> {
    let mut bytes = blob;
    let rmpv::Value::Map(mut fields) = rmpv::decode::read_value(&mut bytes).unwrap() else {
        panic!("a map");
    };
    fields.retain(|(key, _)| key.as_str() != Some(name));
    fields.extend(value.map(|value| (name.into(), value)));
    let mut changed = Vec::new();
    rmpv::encode::write_value(&mut changed, &rmpv::Value::Map(fields)).unwrap();
    changed
}

#[test]
fn bad_states_are_refused_whole_and_counted() {
    let world = World::start(2, Duration::ZERO);
    let conn = &mut world.connection(0);
    run(conn, &["CL.TAKE k 3 CAPACITY 10 REFILL 0"]);
    world.wait_until_quiet();
    let Value::BulkString(good) = redis::cmd("CL.STATE").arg("k").query(conn).unwrap() else {
        panic!("a state");
    };
    assert!(
        codec::decode(&good, u64::MAX / 2).is_ok_and(|read| read.besides != Besides::default())
    );
    let counters =
        |epoch: u64, spent: u64| rmpv::Value::Array(vec![epoch.into(), spent.into(), 0.into()]);
    let entries = |list: Vec<(String, rmpv::Value)>| {
        rmpv::Value::Map(list.into_iter().map(|(id, entry)| (id.into(), entry)).collect())
    };
    let many = (0..17).map(|n| (format!("x{n}"), counters(1 << 20, 1))).collect();
    let claims = |id: &str, epoch: u64| {
        with(&good, "debits", entries(vec![(id.to_owned(), counters(epoch, 5))]))
    };
    let no_state = "ERR state 1 is not a state as CL.STATE returns it";
    let out_of_bounds =
        |field: &str| format!("ERR state 1 holds a field '{field}' out of its bounds");
    let wrong =
        |field: &str, what: &str| format!("ERR state 1 holds a field '{field}' that is no {what}");
    let too_far = "ERR strategy debit: a state counts further for this region than it can have";
    let rows: Vec<(&str, Vec<u8>, String)> = vec![
        ("nothing", Vec::new(), no_state.into()),
        ("noise", vec![0xc1, 0xff, 0x00, 0x93], no_state.into()),
        ("half of it", good[..good.len() / 2].to_vec(), no_state.into()),
        (
            "no counters",
            without(&good, "debits"),
            "ERR strategy debit: a state that counts no debits cannot be merged".into(),
        ),
        ("too many replicas", with(&good, "debits", entries(many)), out_of_bounds("debits")),
        ("epoch 0", claims("r1", 0), out_of_bounds("debits")),
        ("a huge epoch", claims("r1", u64::MAX), out_of_bounds("debits")),
        ("an epoch of our own that cannot be", claims("r0", (1 << 63) + 1), too_far.into()),
        (
            "no name",
            claims("r 1", 1),
            wrong("debits", "map of replicas to epoch, spent and refunded"),
        ),
        (
            "tokens above the capacity",
            with(&good, "tokens", 10_000_001.into()),
            out_of_bounds("tokens"),
        ),
        ("a later version", with(&good, "v", 2.into()), out_of_bounds("v")),
        (
            "a change of nobody",
            with(&good, "version", rmpv::Value::Array(vec![5.into()])),
            wrong("version", "array of number and origin"),
        ),
        ("a weight of 11", with(&good, "weight", 11.into()), out_of_bounds("weight")),
        (
            "a debt that nobody can have",
            with(&good, "tokens", i64::MIN.into()),
            out_of_bounds("tokens"),
        ),
    ];
    let before = digest(conn);
    for (index, (what, blob, why)) in rows.iter().enumerate() {
        assert_eq!(merge(conn, blob), Err(why.clone()), "{what}");
        assert_eq!(field(conn, "merge_errors"), index as u64 + 1, "{what}");
        assert_eq!(digest(conn), before, "{what}");
    }
    // Sent from elsewhere what is right still merges, and again changes nothing.
    let more = with(&good, "debits", entries(vec![("r1".into(), counters(1 << 20, 2_000_000))]));
    merge(conn, &more).unwrap();
    assert_eq!(ints(conn, "CL.PEEK k 0 CAPACITY 10 REFILL 0")[2], 5);
    let after = digest(conn);
    merge(conn, &more).unwrap();
    assert_eq!(digest(conn), after);
    assert!(world.servers[0].is_alive());
    world.no_warnings();
}

/// What somebody says of one bucket decides over no other.
#[test]
fn a_leap_of_our_own_counters_stays_with_its_key() {
    let world = World::start(2, Duration::ZERO);
    let (conn, other) = (&mut world.connection(0), &mut world.connection(1));
    run(conn, &["CL.TAKE k 3 CAPACITY 10 REFILL 0"]);
    let Value::BulkString(good) = redis::cmd("CL.STATE").arg("k").query(conn).unwrap() else {
        panic!("a state");
    };
    let counters = rmpv::Value::Array(vec![(1_u64 << 62).into(), 1_000_000.into(), 0.into()]);
    let far = with(&good, "debits", rmpv::Value::Map(vec![("r0".into(), counters)]));
    merge(conn, &far).unwrap();
    for (key, taken) in [("k", 2), ("fresh", 4)] {
        run(conn, &[&format!("CL.TAKE {key} {taken} CAPACITY 10 REFILL 0")]);
        eventually(PATIENCE, TICK, key, || {
            let mine = entries(other, key).get("r0").copied().unwrap_or_default();
            mine.spent >= taken * 1_000_000
        });
    }
    assert_eq!(field(other, "merge_errors"), 0);
}

/// A peer is told what is wrong with a hash that is somebody else's, and not what is in it.
#[test]
fn what_a_hash_holds_is_no_business_of_peers() {
    let world = World::start(2, Duration::ZERO);
    let (conn, other) = (&mut world.connection(0), &mut world.connection(1));
    run(other, &["HSET k timestamp secret user 7"]);
    let before = digest(other);
    run(conn, &["CL.TAKE k 1 CAPACITY 10 REFILL 0"]);
    eventually(PATIENCE, TICK, "it to be refused", || field(conn, "sync_states_refused") == 1);
    assert_eq!(
        status(conn, "peers")[0]["last_error"],
        "ERR bucket 'k': field 'timestamp' holds what is neither unix microseconds nor an RFC 3339 time"
    );
    assert_eq!(digest(other), before);
}

#[test]
fn rounds_of_nobody_are_refused() {
    let world = World::start(2, Duration::ZERO);
    let conn = &mut world.connection(0);
    let rows = [
        (
            "CL.SYNC ROUND 3 r0 x 1 1",
            "ERR replica-id 'r0' is this server's own: every region needs another one",
        ),
        (
            "CL.SYNC ROUND 3 a/b x 1 1",
            "ERR replica-id 'a/b' is not 1 to 31 letters, digits, dots, dashes or underscores",
        ),
        ("CL.SYNC ROUND 3 r1 x x 1", "ERR sent must be an integer from 0 to 18446744073709551615"),
        ("CL.SYNC ROUND 2 r1 x 1 1", "ERR region 'r0' speaks version 3 of region sync, not '2'"),
        ("CL.SYNC ROUND r1 x 1 1 1", "ERR region 'r0' speaks version 3 of region sync, not 'r1'"),
        (
            "CL.SYNC ROUND 3 r1 x 1 1 RATES 1 -1",
            "ERR a rate must be an integer from 0 to 18446744073709551615",
        ),
        (
            "CL.SYNC ROUND 3 r1 x 1 1 RATES 1",
            "ERR wrong number of arguments for 'cl.sync|round' command",
        ),
        ("CL.SYNC ROUND 3 r1 x 1 1 SETTLED RATES 1 1", "ERR unknown option 'RATES'"),
        ("CL.SYNC ROUND 3 r1 x 1 0", "ERR masters must be an integer from 1 to 65535"),
        ("CL.SYNC ROUND 3 r1 x 1 65536", "ERR masters must be an integer from 1 to 65535"),
        ("CL.SYNC ROUND 3 r1 x 1 1 FOO", "ERR unknown option 'FOO'"),
        ("CL.SYNC ROUND 3 r1 x 1 1 PARTIAL 1", "ERR unknown option '1'"),
        ("CL.SYNC ROUND 3 r1 x 1 1 PARTIAL OPENING", "ERR unknown option 'OPENING'"),
        (
            "CL.SYNC ROUND 3 r1 x 1 1 HEARS r2 a/b",
            "ERR replica-id 'a/b' is not 1 to 31 letters, digits, dots, dashes or underscores",
        ),
        (
            "CL.SYNC ROUND 3 r1 x 1 1 HEARS a b c d e f g h i j k l m n o p q",
            "ERR more than 16 replicas in one bucket",
        ),
    ];
    for (line, text) in rows {
        assert_eq!(claw_testkit::error(conn, line), text);
    }
    // Names without end: only so many are known.
    let mut refused = 0;
    for n in 0..100 {
        refused +=
            u32::from(claw_testkit::cmd(conn, &format!("CL.SYNC ROUND 3 n{n} x 1 1")).is_err());
    }
    assert_eq!(refused, 100 - 14);
    assert_eq!(ints(conn, "CL.TAKE k 1")[0], 1);
}
