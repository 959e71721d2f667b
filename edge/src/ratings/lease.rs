//! Who does the work of a region that only one instance may do: whoever holds a lease that is
//! kept in the region's Redis.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::library::{Library, ROOT, function};
use crate::redis::Fault;

/// How long a lease lasts. When its holder is killed, another one begins after that time.
const LENGTH: Duration = Duration::from_secs(3);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(1);

/// A lease that this instance may hold.
#[derive(Debug)]
pub struct Lease {
    library: Library,
    holder: String,
    until: Mutex<Option<Instant>>,
}

impl Lease {
    /// A lease that nobody has asked for yet.
    #[must_use]
    pub fn new(library: Library) -> Self {
        let random = || RandomState::new().hash_one(0);
        let holder = format!("{:016x}{:016x}", random(), random());
        Self { library, holder, until: Mutex::default() }
    }

    /// The name under which this instance holds it: functions that write compare it.
    #[must_use]
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// Whether it is held still, by this instance's own clock. That one has run while the
    /// process was stopped.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.until().is_some_and(|until| Instant::now() < until)
    }

    /// Takes it or renews it, and says whether it is held.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn take(&self) -> Result<bool, Fault> {
        // The server begins to count later than this.
        let begin = Instant::now();
        let is_held = self.ask(LENGTH).await?;
        self.set(begin.checked_add(LENGTH).filter(|_| is_held));
        Ok(is_held)
    }

    /// Renews it until that fails.
    pub async fn keep(&self) {
        while let Some(until) = self.until() {
            sleep(RENEW).await;
            match timeout_at(until, self.take()).await {
                // Without an answer it is held until its end, and asked for again.
                Ok(Ok(true) | Err(_)) if self.holds() => {}
                _ => return self.set(None),
            }
        }
    }

    /// Gives it back, for somebody else to begin at once.
    pub async fn give_back(&self) {
        if self.until().is_some() {
            self.set(None);
            if let Err(fault) = self.ask(Duration::ZERO).await {
                tracing::debug!(?fault, "the lease is not given back, and ends by itself");
            }
        }
    }

    async fn ask(&self, length: Duration) -> Result<bool, Fault> {
        let mut command = function("claw_lease_1", &[ROOT.to_owned()]);
        command.arg(&self.holder).arg(length.as_millis().to_string());
        self.library.call(&command).await
    }

    fn until(&self) -> Option<Instant> {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, until: Option<Instant>) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}
