//! What all workers share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::access::Tokens;
use crate::config::Config;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::recent::Recent;
use crate::redis::health::Health;
use crate::seat::Seats;
use crate::tickets::Tickets;
use crate::traces::{Exporter, Traces};

/// How long it is not told again that connections are closed at once.
const QUIET: Duration = Duration::from_secs(60);

/// Bytes of forms of operators that are held at once.
const FORMS: usize = 1 << 20;

/// How far the service is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Serving,
    Ending,
    Draining,
}

/// What all workers share.
#[derive(Debug)]
pub struct Service {
    /// The settings.
    pub config: Config,
    /// What callers of the API have to show. They are replaced when their file changes.
    pub tokens: ArcSwap<Tokens>,
    /// What callers of the page for operators have to show.
    pub admin_tokens: ArcSwap<Tokens>,
    /// Who has been refused of late.
    pub recent: Recent,
    /// The limits in force. They are replaced as a whole.
    pub limits: ArcSwap<Limits>,
    /// A seat for each byte that is held of the bodies of requests.
    pub bodies: Arc<Seats>,
    /// One for each byte of forms of operators, who are not to wait for others.
    pub forms: Arc<Seats>,
    /// Requests that others hand on.
    pub tickets: Tickets,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where requests are traced, if anywhere.
    pub traces: Option<Traces>,
    /// What sends traces: whoever takes it runs it.
    pub exporter: Mutex<Option<Exporter>>,
    /// What is known of the servers.
    pub health: Arc<Health>,
    stage: watch::Sender<Stage>,
    told_no_room: Mutex<Option<Instant>>,
}

impl Service {
    /// A service that has yet to listen.
    ///
    /// # Errors
    /// When the file of tokens cannot be read, or the collector of traces cannot be used.
    pub fn new(config: Config, limits: Limits) -> Result<Self, String> {
        let (tokens, admin_tokens) = read_tokens(&config)?;
        let mut name = [0_u8; 8];
        getrandom::fill(&mut name).map_err(|error| error.to_string())?;
        let tickets = Tickets::new(format!("{:016x}", u64::from_le_bytes(name)), config.adaptive);
        let metrics = Arc::new(Metrics::default());
        limits.begin_to_count(&metrics.redis);
        let (traces, exporter) = Traces::new(&config, &metrics)?.unzip();
        let health = Arc::new(Health::new(metrics.redis.clone()));
        let bodies = Arc::new(Seats::new(config.max_bodies));
        Ok(Self {
            config,
            tokens: ArcSwap::from_pointee(tokens),
            admin_tokens: ArcSwap::from_pointee(admin_tokens),
            recent: Recent::default(),
            limits: ArcSwap::from_pointee(limits),
            bodies,
            forms: Arc::new(Seats::new(FORMS)),
            tickets,
            metrics,
            traces,
            exporter: Mutex::new(exporter),
            health,
            stage: watch::Sender::new(Stage::Serving),
            told_no_room: Mutex::default(),
        })
    }

    /// Tells everybody that the service is about to end. It serves all the same.
    pub fn end(&self) {
        self.stage.send_replace(Stage::Ending);
    }

    /// Tells the service to take no more connections and to end those that are open.
    pub fn drain(&self) {
        self.stage.send_replace(Stage::Draining);
    }

    /// Whether the service has been told to end.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        *self.stage.borrow() >= Stage::Ending
    }

    /// Waits until the service has been told to end.
    pub async fn ended(&self) {
        self.reached(Stage::Ending).await;
    }

    /// Waits until the service takes no more connections.
    pub async fn draining(&self) {
        self.reached(Stage::Draining).await;
    }

    async fn reached(&self, stage: Stage) {
        // The sender is in `self`, so it lives as long as this waits.
        let _ = self.stage.subscribe().wait_for(|reached| *reached >= stage).await;
    }

    /// A connection is closed at once, since there are as many as there may be.
    pub fn no_room(&self) {
        self.metrics.connections_refused.inc();
        let now = Instant::now();
        let mut told = self.told_no_room.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| now.duration_since(told) >= QUIET) {
            *told = Some(now);
            tracing::warn!("connections are closed at once: MAX_CONNECTIONS are open");
        }
    }
}

/// The tokens of the API and of the page for operators.
///
/// # Errors
/// When a file cannot be read, or has none in it.
pub fn read_tokens(config: &Config) -> Result<(Tokens, Tokens), String> {
    let api = Tokens::load(config.api_token_file.as_deref(), config.api_token.as_ref())?;
    let admin = Tokens::load(config.admin_token_file.as_deref(), config.admin_token.as_ref())?;
    Ok((api, admin))
}
