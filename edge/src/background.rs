//! The work that one instance of a region does for all of them: what is left of forgetting users,
//! ratings of other regions, notifications.
//!
//! Whoever holds the region's lease does it. When the lease ends, all of it is dropped where it
//! stands, and another instance goes on: what has been done is known by the server alone.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use crate::metrics::ratings::RatingMetrics;
use crate::notify::receiver::Receiver;
use crate::notify::teller::Teller;
use crate::ratings::Ratings;
use crate::ratings::follow::Follower;
use crate::ratings::lease::Lease;
use crate::ratings::library::Library;
use crate::ratings::peers::peers;
use crate::redis::health::{Health, Told};
use crate::redis::{Fault, Redis};
use crate::service::Service;

/// How often it is asked whether there is something to do.
const EVERY: Duration = Duration::from_secs(1);
/// How long that is not asked again of a server that refuses to tell.
const REFUSED: Duration = Duration::from_secs(60);
/// A pause between two steps, in which the server can do something else.
const BREATH: Duration = Duration::from_millis(5);
/// How long the end of the service may wait for the lease to be given back.
const FAREWELL: Duration = Duration::from_secs(1);

/// All of that work.
pub struct Background {
    service: Arc<Service>,
    ratings: Ratings,
    lease: Arc<Lease>,
    followers: Vec<Follower>,
    tellers: Vec<Teller>,
    metrics: RatingMetrics,
}

impl Background {
    /// What the settings of `service` ask for, on connections of its own.
    ///
    /// # Errors
    /// When a setting cannot be read.
    pub fn new(service: Arc<Service>) -> Result<Self, String> {
        let config = service.config.patient();
        let redis = Redis::new(&config, Arc::new(Health::background()))?;
        let library = Library::new(redis.clone());
        let lease = Arc::new(Lease::new(library.clone()));
        let metrics = service.metrics.ratings.clone();
        let follower = |peer| {
            Follower::new(peer, library.clone(), Arc::clone(&lease), metrics.clone(), &config)
        };
        let followers = peers(&config)?.into_iter().map(follower).collect();
        let teller = |receiver| {
            let reader = Redis::new(&config, Arc::new(Health::background()))?;
            let notify = service.metrics.notify.clone();
            let (library, lease) = (library.clone(), Arc::clone(&lease));
            Ok(Teller::new(receiver, reader, library, lease, notify, config.notify_pause))
        };
        let tellers = Receiver::all(&config)?.into_iter().map(teller);
        let tellers = tellers.collect::<Result<_, String>>()?;
        let ratings = Ratings::new(&config, redis);
        Ok(Self { service, ratings, lease, followers, tellers, metrics })
    }

    /// Works until the service drains.
    pub async fn run(self) {
        tokio::select! {
            () = self.service.draining() => {}
            never = self.turns() => match never {},
        }
        self.rest();
        let _ = timeout(FAREWELL, self.lease.give_back()).await;
    }

    /// Works whenever it is this instance's turn.
    async fn turns(&self) -> std::convert::Infallible {
        loop {
            match self.is_my_turn().await {
                Ok(true) => {
                    tracing::info!("this instance does the work of its region");
                    self.metrics.leader.set(1);
                    tokio::select! {
                        () = self.lease.keep() => {}
                        () = self.work() => {}
                    }
                    self.lease.give_back().await;
                    self.rest();
                    tracing::info!("this instance does the work of its region no longer");
                }
                // Most likely one that is there for limits alone, and may not touch ratings.
                Err(Fault::Refused { code, text }) if code == "NOPERM" => {
                    tracing::debug!(text, "Redis refuses work in the background");
                    sleep(REFUSED).await;
                }
                Ok(false) | Err(_) => sleep(EVERY).await,
            }
        }
    }

    /// Shows no number of which the next leader knows better.
    fn rest(&self) {
        self.metrics.leader.set(0);
        self.metrics.parked.set(0);
        self.tellers.iter().for_each(Teller::rest);
    }

    /// Whether there is work, and nobody else does it. Where ratings are not used, this writes
    /// nothing into the server.
    async fn is_my_turn(&self) -> Result<bool, Fault> {
        let has_work = self.is_configured() || self.ratings.has_work().await?;
        Ok(has_work && self.lease.take().await?)
    }

    /// Whether the settings ask for work that has no end.
    fn is_configured(&self) -> bool {
        !self.followers.is_empty() || !self.tellers.is_empty()
    }

    /// Works until nothing is left, which with peers or receivers is never.
    async fn work(&self) {
        let followers = join_all(self.followers.iter().map(Follower::run));
        let tellers = join_all(self.tellers.iter().map(Teller::run));
        futures_util::join!(self.tend(), followers, tellers);
    }

    /// Finishes what was begun, by whomever.
    async fn tend(&self) {
        let mut told = Told::default();
        loop {
            match self.tend_all().await {
                Ok(false) if !self.is_configured() => return,
                Ok(_) => {}
                Err(fault) if told.is_news(&fault) => {
                    tracing::warn!(?fault, "what is left to do has to wait");
                }
                Err(_) => {}
            }
            sleep(EVERY).await;
        }
    }

    /// Does what can be done now, and says whether something is left for later.
    async fn tend_all(&self) -> Result<bool, Fault> {
        if self.ratings.has_work().await? {
            while self.lease.holds() && self.ratings.tend().await? {
                sleep(BREATH).await;
            }
        }
        self.metrics.parked.set(self.ratings.parked().await?);
        self.ratings.has_work().await
    }
}
