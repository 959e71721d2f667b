//! What was rated and forgotten here is told to others, at least once each and in order for each
//! user: by a signed request to a webhook, or as a message by Telegram.

mod desk;
mod event;
pub mod parked;
pub mod receiver;
mod sign;
pub mod teller;

use crate::ratings::library::Library;
use crate::redis::{Fault, Redis};

pub use self::parked::Parked;

/// A handle of what could not be delivered, for operators.
#[derive(Clone, Debug)]
pub struct Notify {
    library: Library,
}

impl Notify {
    /// What is kept in the server of `redis`.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self { library: Library::new(redis) }
    }

    /// The oldest `count` notifications that have failed too often, and wait for somebody to
    /// decide.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn parked(&self, count: usize) -> Result<Vec<Parked>, Fault> {
        parked::list(&self.library.redis, count).await
    }

    /// Has the parked notification `id` delivered again, with as many tries as a new one. Says
    /// whether it was there.
    ///
    /// # Errors
    /// When there is no answer: then it may be done or not.
    pub async fn retry(&self, id: &str) -> Result<bool, Fault> {
        parked::retry(&self.library, id).await
    }

    /// Forgets the parked notification `id`. Says whether it was there.
    ///
    /// # Errors
    /// When there is no answer: then it may be done or not.
    pub async fn discard(&self, id: &str) -> Result<bool, Fault> {
        parked::discard(&self.library.redis, id).await
    }
}
