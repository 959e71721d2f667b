//! What the tests send, and what they read.

use claw_testkit::{Server, call, digest, fields, info_field};
use redis::{Cmd, Connection};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub const PATIENCE: Duration = Duration::from_secs(30);
pub const TICK: Duration = Duration::from_millis(5);
pub const STRATEGIES: [&str; 4] = ["max", "min", "weighted", "lww"];

/// Buckets on the default policy of these servers never refill, so that nothing
/// in a test depends on the moment.
pub fn still_server() -> Server {
    Server::builder().module_args(["refill-rate-per-sec", "0"]).start()
}

/// `name value ..` of a hash, sorted, without the timestamp.
pub fn held(conn: &mut Connection, key: &str) -> String {
    let fields = fields(conn, key);
    let shown = fields.iter().filter(|(name, _)| *name != "timestamp");
    shown.map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(" ")
}

pub fn state(conn: &mut Connection, key: &str) -> Vec<u8> {
    redis::cmd("CL.STATE").arg(key).query(conn).unwrap()
}

pub fn merge_state(
    conn: &mut Connection,
    key: &str,
    blobs: &[Vec<u8>],
    strategy: &str,
) -> Vec<i64> {
    let mut command = redis::cmd("CL.MERGE");
    command.arg(key).arg("STATE").arg(blobs).arg("STRATEGY").arg(strategy);
    command.query(conn).unwrap_or_else(|e| panic!("CL.MERGE {key} STATE: {e}"))
}

pub fn merge_from(key: &str, sources: &str, strategy: &str) -> Cmd {
    let sources: Vec<&str> = sources.split(' ').collect();
    let mut cmd = redis::cmd("CL.MERGE");
    cmd.arg(key).arg("FROM").arg(sources.len()).arg(sources).arg("STRATEGY").arg(strategy);
    cmd
}

pub fn load(conn: &mut Connection, code: &str) {
    let loaded = call(conn, &["FUNCTION", "LOAD", "REPLACE", code]);
    assert!(loaded.is_ok(), "{loaded:?}");
}

/// Loads a file of `examples/merge`.
pub fn load_example(conn: &mut Connection, name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/merge").join(name);
    load(conn, &fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
}

pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_micros()).unwrap()
}

/// The present second, as people write it by hand.
pub fn iso_now() -> String {
    let date = Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output().unwrap();
    String::from_utf8(date.stdout).unwrap().trim().to_owned()
}

/// Runs a command that has to fail, and asserts that it changed nothing.
pub fn refused(conn: &mut Connection, line: &[&[u8]]) -> String {
    let before = digest(conn);
    let dirty =
        |conn: &mut Connection| info_field(conn, "persistence", "rdb_changes_since_last_save");
    let changes = dirty(conn);
    let shown = line.iter().map(|word| word.escape_ascii().to_string()).collect::<Vec<_>>();
    let text = call(conn, line).expect_err(&shown.join(" "));
    assert_eq!(digest(conn), before, "{shown:?}");
    assert_eq!(dirty(conn), changes, "{shown:?}");
    text
}

pub fn refused_line(conn: &mut Connection, line: &str) -> String {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    refused(conn, &words)
}
