//! What was changed, when, by whom and from where: a line in the log, and an entry in a stream
//! that all instances share.

use std::collections::HashMap;

use super::access::Visitor;
use crate::http::App;
use crate::redis::Fault;

/// How many changes are kept.
const MOST: usize = 10_000;

/// A change.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// The session, or `token`.
    pub who: String,
    /// The client's address.
    pub address: String,
    /// What was done.
    pub what: String,
}

fn stream(app: &App) -> String {
    // The name of no limit has this letter in it.
    format!("{}admin/audit", app.service.config.key_prefix)
}

/// Notes a change. A server that does not take the entry does not undo the change: the log has it.
pub async fn note(app: &App, visitor: &Visitor, what: &str) {
    let (who, address) = (&visitor.name, visitor.address);
    tracing::info!(who, %address, what, "audit");
    let mut command = redis::cmd("XADD");
    command.arg(stream(app)).arg("MAXLEN").arg("~").arg(MOST).arg("*");
    command.arg("who").arg(who).arg("address").arg(address.to_string()).arg("what").arg(what);
    if let Err(fault) = app.redis.call::<String>(&command).await {
        tracing::warn!(?fault, "a change is in this log, but not in the server's list");
    }
}

/// The latest changes, the last one first.
///
/// # Errors
/// When there is no answer.
pub async fn latest(app: &App, count: usize) -> Result<Vec<Change>, Fault> {
    let mut command = redis::cmd("XREVRANGE");
    command.arg(stream(app)).arg("+").arg("-").arg("COUNT").arg(count);
    let entries: Vec<(String, HashMap<String, String>)> = app.redis.call(&command).await?;
    let change = |(id, mut fields): (String, HashMap<String, String>)| {
        let mut text = |name: &str| fields.remove(name).unwrap_or_default();
        let at_ms = id.split_once('-').and_then(|(ms, _)| ms.parse().ok()).unwrap_or_default();
        Change { at_ms, who: text("who"), address: text("address"), what: text("what") }
    };
    Ok(entries.into_iter().map(change).collect())
}
