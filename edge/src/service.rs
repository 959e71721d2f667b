//! What all workers share.

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::access::Tokens;
use crate::config::Config;
use crate::limits::Limits;
use crate::metrics::Metrics;

/// What all workers share.
#[derive(Debug)]
pub struct Service {
    /// The settings.
    pub config: Config,
    /// What callers of the API have to show.
    pub tokens: Tokens,
    /// The limits in force. They are replaced as a whole.
    pub limits: ArcSwap<Limits>,
    /// What is counted.
    pub metrics: Metrics,
    ending: watch::Sender<bool>,
}

impl Service {
    /// A service that has yet to listen.
    ///
    /// # Errors
    /// When the file of tokens cannot be read.
    pub fn new(config: Config, limits: Limits) -> Result<Self, String> {
        let tokens = Tokens::load(config.api_token_file.as_deref(), config.api_token.as_ref())?;
        Ok(Self {
            config,
            tokens,
            limits: ArcSwap::from_pointee(limits),
            metrics: Metrics::default(),
            ending: watch::Sender::new(false),
        })
    }

    /// Tells the service to end.
    pub fn end(&self) {
        self.ending.send_replace(true);
    }

    /// Whether the service has been told to end.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        *self.ending.borrow()
    }

    /// Waits until the service has been told to end.
    pub async fn ended(&self) {
        // The sender is in `self`, so it lives as long as this waits.
        let _ = self.ending.subscribe().wait_for(|ending| *ending).await;
    }
}
