//! What the region's server, and those of the other regions, know of each other:
//! `CL.SYNC STATUS`.

use std::time::Duration;

use futures_util::future::join_all;
use redis::Value;
use tokio::time::timeout;

use super::change::in_words;
use super::reply::{list_of, number_of, text_of};
use crate::ratings;
use crate::redis::{Fault, Redis};

/// How long another region's server may take to answer. The page waits for it.
const ELSEWHERE: Duration = Duration::from_secs(1);

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

/// Another region, as its own server sees it.
#[derive(Clone, Debug)]
pub struct Other {
    /// Its name, from the settings.
    pub name: String,
    /// What it knows, or why that is not known here.
    pub regions: Result<Regions, String>,
}

impl Regions {
    /// Those that it does not hear, one after the other.
    #[must_use]
    pub fn silent(&self) -> String {
        let silent = self.heard.iter().filter(|region| region.silent != "no");
        let names: Vec<&str> = silent.map(|region| region.name.as_str()).collect();
        if names.is_empty() && self.share_permille < 1_000 {
            // Its name is in no list.
            return "one that it has never heard".to_owned();
        }
        names.join(", ")
    }
}

/// Asks the servers of other regions, all at once.
pub async fn elsewhere(peers: &[ratings::peers::Peer]) -> Vec<Other> {
    join_all(peers.iter().map(async |peer| {
        let answer = timeout(ELSEWHERE, read(&peer.redis)).await.unwrap_or(Err(Fault::Deadline));
        let regions = answer.map_err(|fault| in_words(&fault));
        Other { name: peer.name.clone(), regions }
    }))
    .await
}

/// Asks one server.
///
/// # Errors
/// When there is no answer.
pub async fn read(redis: &Redis) -> Result<Regions, Fault> {
    let mut command = redis::cmd("CL.SYNC");
    command.arg("STATUS");
    let status: Value = redis.call_server(&command).await?;
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
        node: redis.server_of_cluster(),
        name: text_of(&status, "replica_id"),
        active: text_of(&status, "active"),
        share_permille: number_of(&status, "share_permille").unwrap_or(1_000),
        heard: list_of(&status, "heard").iter().map(heard).collect(),
        peers: list_of(&status, "peers").iter().map(peer).collect(),
    })
}
