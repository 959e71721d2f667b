//! What the tests send, and what the servers are.

use claw_testkit::{ask, info_field, redis_version};
use redis::Connection;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub const PATIENCE: Duration = Duration::from_secs(30);
pub const TICK: Duration = Duration::from_millis(1);

pub fn words(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(String::from).collect()
}

/// Redis 7.0 has no way for a module to put its commands into categories.
pub fn has_categories(conn: &mut Connection) -> bool {
    redis_version(conn) >= (7, 2)
}

pub fn parameters(conn: &mut Connection) -> BTreeMap<String, String> {
    ask(conn, "CONFIG GET claw.*")
}

pub fn defaults(max_tokens: &str, refill: &str) -> BTreeMap<String, String> {
    [
        ("claw.max-tokens", max_tokens),
        ("claw.refill-rate-per-sec", refill),
        ("claw.policies", ""),
        ("claw.merge-strategy", "max"),
        ("claw.sync-strategy", "debit"),
        ("claw.replica-id", ""),
        ("claw.peers", ""),
        ("claw.peers-password-file", ""),
        ("claw.tls-ca-cert-file", ""),
        ("claw.tls-cert-file", ""),
        ("claw.tls-key-file", ""),
        ("claw.sync-keys", "*"),
        ("claw.sync-interval-ms", "50"),
        ("claw.partition-timeout-ms", "2000"),
        ("claw.partition-guard", "share"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

pub fn counters(conn: &mut Connection) -> [i64; 8] {
    [
        "taken",
        "refused",
        "given",
        "settled",
        "tokens_taken",
        "tokens_given",
        "tokens_overrun",
        "corrupt",
    ]
    .map(|name| {
        let value = info_field(conn, "claw", &format!("claw_{name}"));
        value.unwrap_or_else(|| panic!("no claw_{name}")).parse().unwrap()
    })
}
