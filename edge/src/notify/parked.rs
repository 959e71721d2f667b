//! Notifications that have failed too often: kept in Redis until somebody decides.

use std::collections::HashMap;

use crate::ratings::library::{Library, ROOT, function};
use crate::redis::{Fault, Redis};

/// The stream of them. Each entry has the fields of the outbox, and `to`, `why` and `tries`.
pub const PARKED: &str = "{ratings}:undelivered";

/// The stream of those that are to be tried again, with the same fields.
pub(super) const AGAIN: &str = "{ratings}:again";

/// A notification that has failed too often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// Names it to [`retry`](super::Notify::retry) and [`discard`](super::Notify::discard). Its
    /// first part is when it was parked, in milliseconds since 1970.
    pub id: String,
    /// Whom it is for: `webhook` or `telegram`.
    pub to: String,
    /// Who has rated, or is forgotten.
    pub user: String,
    /// What was rated; empty when the user is forgotten.
    pub item: String,
    /// In millionths; nothing when the user is forgotten.
    pub micros: Option<u64>,
    /// When, in microseconds since 1970.
    pub stamp: u64,
    /// How often it was tried.
    pub tries: u64,
    /// What the last try came to. It has no secret in it.
    pub why: String,
}

type Entries = Vec<(String, HashMap<String, String>)>;

/// The oldest of them.
pub(super) async fn list(redis: &Redis, count: usize) -> Result<Vec<Parked>, Fault> {
    let mut command = redis::cmd("XRANGE");
    command.arg(PARKED).arg("-").arg("+").arg("COUNT").arg(count);
    let entries: Entries = redis.call(&command).await?;
    Ok(entries.into_iter().map(|(id, fields)| parked(id, fields)).collect())
}

/// What an entry says. A field that is not there, or is no number, shows as empty or 0: whoever
/// looks at the page can still get rid of the entry.
fn parked(id: String, mut fields: HashMap<String, String>) -> Parked {
    let mut text = |name: &str| fields.remove(name).unwrap_or_default();
    Parked {
        id,
        to: text("to"),
        user: text("user"),
        item: text("item"),
        micros: text("rating").parse().ok(),
        stamp: text("stamp").parse().unwrap_or_default(),
        tries: text("tries").parse().unwrap_or_default(),
        why: text("why"),
    }
}

/// Puts it among those that are to be delivered again.
pub(super) async fn retry(library: &Library, id: &str) -> Result<bool, Fault> {
    let mut command = function("claw_retry_1", &[ROOT.to_owned()]);
    command.arg(id);
    library.call(&command).await
}

/// Forgets it.
pub(super) async fn discard(redis: &Redis, id: &str) -> Result<bool, Fault> {
    let mut command = redis::cmd("XDEL");
    command.arg(PARKED).arg(id);
    redis.call(&command).await
}
