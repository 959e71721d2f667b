//! What the region's server knows of other regions: `CL.SYNC STATUS`.

use redis::Value;

use super::reply::{list_of, number_of, text_of};
use crate::http::App;
use crate::redis::Fault;

/// This region, and what it hears of others.
#[derive(Clone, Debug, Default)]
pub struct Regions {
    /// The node of a cluster that says so.
    pub node: Option<String>,
    /// Its name; empty if it shares nothing.
    pub name: String,
    /// Whether it sends changes.
    pub active: String,
    /// What it admits of every shared limit, in thousandths.
    pub share_permille: i64,
    /// Regions that it hears, or has heard.
    pub heard: Vec<Heard>,
    /// Servers that it sends to.
    pub peers: Vec<Peer>,
}

/// A region that is heard.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Its name.
    pub name: String,
    /// `no`, `yes`, `refuses` or `relayed`.
    pub silent: String,
    /// Milliseconds since it was heard.
    pub ago_ms: i64,
    /// Whether its rules are those of this server: `same`, `differ`, `unknown`.
    pub rules: String,
}

/// A server that is sent to.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address, without a password.
    pub url: String,
    /// `connected`, `backing-off`, ..
    pub state: String,
    /// Milliseconds that the oldest change has waited for.
    pub lag_ms: i64,
    /// Why it cannot be reached, or refuses.
    pub error: String,
}

/// Asks for them.
///
/// # Errors
/// When there is no answer.
pub async fn read(app: &App) -> Result<Regions, Fault> {
    let mut command = redis::cmd("CL.SYNC");
    command.arg("STATUS");
    let status: Value = app.redis.call_server(&command).await?;
    let heard = |map: &Value| Heard {
        name: text_of(map, "replica_id"),
        silent: text_of(map, "silent"),
        ago_ms: number_of(map, "heard_ms_ago").unwrap_or(-1),
        rules: text_of(map, "rules"),
    };
    let peer = |map: &Value| Peer {
        url: text_of(map, "url"),
        state: text_of(map, "state"),
        lag_ms: number_of(map, "lag_ms").unwrap_or(-1),
        error: text_of(map, "last_error"),
    };
    Ok(Regions {
        node: app.redis.server_of_cluster(),
        name: text_of(&status, "replica_id"),
        active: text_of(&status, "active"),
        share_permille: number_of(&status, "share_permille").unwrap_or(1_000),
        heard: list_of(&status, "heard").iter().map(heard).collect(),
        peers: list_of(&status, "peers").iter().map(peer).collect(),
    })
}
