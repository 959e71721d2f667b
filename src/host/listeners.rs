//! Whether anybody listens to what commands do: replicas, or the AOF.
//!
//! The server's own commands hand nothing over when nobody listens. A module
//! cannot ask, and the call that hands an effect over costs a sixth of a take
//! before the server drops it. But whoever begins to listen begins with a
//! snapshot, of which the server tells, mostly with the fork that makes it; what was
//! done before it is in the snapshot. So [`Listeners::expect`] is called at each
//! snapshot, for each replica, and at each change of role, which leaves a primary with
//! the backlog that it had as a replica. Only [`Listeners::look`] finds that there is
//! nobody.
//!
//! The backlog begins a little earlier, when the first replica asks for its snapshot,
//! and until the next look it may get commands of ours as they were called. No replica
//! reads that part: the stream that it is sent begins with its snapshot.

use super::api::call;
use super::context::Context;
use super::server_info::ServerInfo;
use redis_module::raw;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// The shortest time between two looks, however often the server calls.
const PAUSE: Duration = Duration::from_millis(100);

/// The first versions that nobody has read: how a replica begins to listen is no
/// promise of the API. From them on somebody is always expected to.
const UNREAD_REDIS: Version = (8, 7);
const UNREAD_VALKEY: Version = (9, 2);

/// Major and minor.
type Version = (u32, u32);

/// Who may listen, as far as it is known.
#[derive(Debug)]
pub(crate) struct Listeners {
    any: Cell<bool>,
    /// Whether the server is of a version that has been read.
    known: Cell<Option<bool>>,
    looked: Cell<Option<Instant>>,
}

impl Default for Listeners {
    fn default() -> Self {
        Self { any: Cell::new(true), known: Cell::new(None), looked: Cell::new(None) }
    }
}

impl Listeners {
    /// Whether somebody may listen.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.any.get()
    }

    /// Somebody may listen from now on.
    pub(crate) fn expect(&self) {
        self.any.set(true);
    }

    /// Looks who is there; to be called some times a second.
    pub(crate) fn look(&self, ctx: &Context<'_>) {
        let now = Instant::now();
        if self.looked.get().is_none_or(|before| now.duration_since(before) >= PAUSE) {
            self.looked.set(Some(now));
            self.any.set(!self.is_version_known() || may_listen(ctx));
        }
    }

    fn is_version_known(&self) -> bool {
        let known = self.known.get().or_else(|| {
            let info = ServerInfo::read(c"server")?;
            let version = |name| info.text(name).and_then(|text| version(&text));
            // Valkey says besides which Redis it is compatible with.
            Some(match version(c"valkey_version") {
                Some(valkey) => valkey < UNREAD_VALKEY,
                None => version(c"redis_version").is_some_and(|redis| redis < UNREAD_REDIS),
            })
        });
        self.known.set(known);
        known.unwrap_or(false)
    }
}

/// A replica's writes, and what leaves with a slot of a cluster, have ways of their
/// own: there, somebody is always expected.
fn may_listen(ctx: &Context<'_>) -> bool {
    !ctx.is_primary()
        || ctx.has_flag(raw::REDISMODULE_CTX_FLAGS_CLUSTER)
        || ctx.has_flag(raw::REDISMODULE_CTX_FLAGS_AOF)
        || ServerInfo::read(c"replication").is_none_or(|info| {
            // Also those whose snapshot has not begun. The backlog outlives them.
            [c"connected_slaves", c"repl_backlog_active"]
                .into_iter()
                .any(|field| info.number(field) != Some(0))
        })
}

fn version(text: &[u8]) -> Option<Version> {
    let mut parts = std::str::from_utf8(text).ok()?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

impl Context<'_> {
    /// Whether an effect need not be handed to the server. It is counted as a
    /// change all the same, for the server's snapshots after so many.
    pub(crate) fn is_unheard(&self) -> bool {
        if self.is_between_commands() || self.module().listeners.any() {
            return false;
        }
        // SAFETY: the context of a command. What this hands over is the command
        // itself, which the server drops at once where nobody listens.
        unsafe { call!(RedisModule_ReplicateVerbatim(self.as_ptr())) };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_the_left() {
        for (text, expected) in [
            ("7.0.15", Some((7, 0))),
            ("8.10.2", Some((8, 10))),
            ("255.255.255", Some((255, 255))),
            ("9.1", Some((9, 1))),
            ("9", None),
            ("", None),
            ("a.b.c", None),
        ] {
            assert_eq!(version(text.as_bytes()), expected, "{text}");
        }
        assert!((8, 6) < UNREAD_REDIS && (8, 10) >= UNREAD_REDIS);
    }
}
