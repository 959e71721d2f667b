//! Masters, and what is said about them.

use crate::common::{PATIENCE, TICK, assert_sound};
use claw_testkit::{Builder, Server, digest, eventually, info_field, wait_for_offset};
use redis::Connection;

/// A master that sends its replicas nothing but what commands have done: no
/// PING is due during the test.
pub fn master() -> Builder {
    Server::builder()
        .config("repl-ping-replica-period", "3600")
        .config("repl-backlog-size", "64mb")
        .config("repl-timeout", "7200")
}

pub fn stat(server: &Server, field: &str) -> u64 {
    let section = if field.starts_with("claw_") { "claw" } else { "stats" };
    info_field(&mut server.connection(), section, field).unwrap().parse().unwrap()
}

pub fn offset(conn: &mut Connection) -> String {
    info_field(conn, "replication", "master_repl_offset").unwrap()
}

pub fn no_warnings(servers: &[&Server]) {
    for server in servers {
        assert_sound(server);
        assert_eq!(server.warnings(), Vec::<String>::new());
    }
}

/// For masters whose replicas a test has cut off.
pub fn no_other_warnings(master: &Server) {
    assert_sound(master);
    let mut warnings = master.warnings();
    warnings.retain(|line| !line.contains("# Connection with replica "));
    assert_eq!(warnings, Vec::<String>::new());
}

/// For servers that have more than hashes, or clocks of their own.
pub fn assert_equal_digests(master: &Server, replica: &Server) {
    let (mut ours, mut theirs) = (master.connection(), replica.connection());
    eventually(PATIENCE, TICK, "the digests to be equal", || {
        wait_for_offset(master, replica);
        digest(&mut ours) == digest(&mut theirs)
    });
}
