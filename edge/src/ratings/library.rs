//! The Function library that keeps ratings, and everything that has to change with one of them
//! in the same step: see `library.lua` for what is stored where.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::{Cmd, FromRedisValue, Value};

use crate::redis::{Fault, Redis};

/// The library that is loaded into the server. Its name and those of its functions end with the
/// version of what they store: two versions of this program can share a server.
const CODE: &str = include_str!("library.lua");
const NAME: &str = "claw_ratings_1";
/// What all keys begin with. The braces put them into one slot of a cluster.
pub const ROOT: &str = "{ratings}:";

/// Calls functions of the library, which is loaded where it is missing. Clones share what they
/// know.
#[derive(Clone, Debug)]
pub struct Library {
    /// The server.
    pub redis: Redis,
    /// Whether the server has been seen to have this version of the library.
    loaded: Arc<AtomicBool>,
}

impl Library {
    /// In the server of `redis`.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self { redis, loaded: Arc::default() }
    }

    /// Calls a function, and loads the library where it is missing or another one.
    ///
    /// # Errors
    /// When there is no answer: then it may be done or not. Or when it was refused.
    pub async fn call<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Fault> {
        if !self.loaded.load(Ordering::Relaxed) {
            if !self.is_loaded().await? {
                self.load().await?;
            }
            self.loaded.store(true, Ordering::Relaxed);
        }
        match self.redis.call(command).await {
            // Flushed, or a server that was empty when it came back. Nothing was done.
            Err(fault) if is_missing(&fault) => {
                self.load().await?;
                self.redis.call(command).await
            }
            answer => answer,
        }
    }

    /// Whether the server has the library, word for word. One that may not be asked for its
    /// libraries is believed: a missing one is noticed when it is called.
    async fn is_loaded(&self) -> Result<bool, Fault> {
        let mut command = redis::cmd("FUNCTION");
        command.arg("LIST").arg("LIBRARYNAME").arg(NAME).arg("WITHCODE");
        match self.redis.call_at::<Value>(ROOT.as_bytes(), &command).await {
            Ok(libraries) => Ok(mentions(&libraries, CODE.as_bytes())),
            Err(Fault::Refused { .. }) => Ok(true),
            Err(fault) => Err(fault),
        }
    }

    async fn load(&self) -> Result<(), Fault> {
        tracing::info!(library = NAME, "the library of ratings is loaded into the server");
        let mut command = redis::cmd("FUNCTION");
        command.arg("LOAD").arg("REPLACE").arg(CODE);
        self.redis.call_at::<Value>(ROOT.as_bytes(), &command).await.map(|_| ())
    }
}

/// A call of the function `name` that names `keys`.
#[must_use]
pub fn function(name: &str, keys: &[String]) -> Cmd {
    let mut command = redis::cmd("FCALL");
    command.arg(name).arg(keys.len()).arg(keys);
    command
}

fn is_missing(fault: &Fault) -> bool {
    matches!(fault, Fault::Refused { text, .. } if text.contains("Function not found"))
}

/// Whether a reply has `text` somewhere.
fn mentions(reply: &Value, text: &[u8]) -> bool {
    match reply {
        Value::BulkString(bytes) => bytes == text,
        Value::SimpleString(string) | Value::VerbatimString { text: string, .. } => {
            string.as_bytes() == text
        }
        Value::Array(items) | Value::Set(items) => items.iter().any(|item| mentions(item, text)),
        Value::Map(pairs) => pairs.iter().any(|(_, value)| mentions(value, text)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_has_the_name_by_which_it_is_looked_for() {
        assert!(CODE.starts_with(&format!("#!lua name={NAME}\n")));
    }
}
