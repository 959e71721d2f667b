//! What another region has rated is applied here: by following the outbox in its server, or, when
//! that cannot tell all, by reading all its ratings.
//!
//! The place in the outbox is kept in the own server, and moves in the same step in which the
//! records before it are applied. Every read begins with the entry at the place. If that is not
//! there, then something is missing: the outbox was trimmed, or the peer has lost what it had.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::try_join_all;
use futures_util::try_join;
use redis::{FromRedisValue, Value};
use tokio::time::{Instant, sleep};

use super::lease::Lease;
use super::library::{Library, ROOT, function};
use super::peers::Peer;
use super::record::{Entry, OUTBOX, Raw};
use crate::config::Config;
use crate::metrics::ratings::{PeerName, RatingMetrics};
use crate::redis::Fault;
use crate::redis::health::Told;

/// Records that are applied in one step, at most: the server does nothing else meanwhile, for
/// some two milliseconds.
const BATCH: usize = 100;
/// Entries of an outbox that are read at once.
const READ: usize = 1_000;
/// How long a server may wait for something new before it answers that there is nothing.
const WAIT: Duration = Duration::from_secs(1);
/// How long nothing is tried after a fault.
const PAUSE: Duration = Duration::from_secs(1);
/// Keys of any kind that one step of a scan looks at.
const KEYS: usize = 2_000;
/// Users that are read at once.
const USERS: usize = 256;
/// Ratings of one user that are read at once, about.
const FIELDS: usize = 500;

/// Follows one peer.
#[derive(Debug)]
pub struct Follower {
    peer: Peer,
    library: Library,
    lease: Arc<Lease>,
    metrics: RatingMetrics,
    /// The own region.
    region: String,
    /// How long its outbox may be.
    outbox: u64,
}

/// Where a peer's outbox was read up to.
struct Place {
    /// The run of the own server.
    run: String,
    /// The last entry that is applied; nothing when all has to be read.
    id: Option<String>,
}

impl Follower {
    /// For one peer, on behalf of whoever holds the lease.
    #[must_use]
    pub fn new(
        peer: Peer,
        library: Library,
        lease: Arc<Lease>,
        metrics: RatingMetrics,
        config: &Config,
    ) -> Self {
        metrics.expect(&peer.name);
        let (region, outbox) = (config.region.clone(), config.ratings_outbox);
        Self { peer, library, lease, metrics, region, outbox }
    }

    /// Follows the peer for ever. It may be dropped at any moment: nothing is known that is not
    /// in the server.
    pub async fn run(&self) {
        let mut told = Told::default();
        loop {
            let Err(fault) = self.round().await else { continue };
            self.metrics.faults.get_or_create(&self.label()).inc();
            if told.is_news(&fault) {
                tracing::warn!(peer = self.peer.name, ?fault, "following a peer broke off");
            }
            sleep(PAUSE).await;
        }
    }

    /// Applies what is new, once there is something.
    async fn round(&self) -> Result<(), Fault> {
        let place = self.place().await?;
        let Some(id) = place.id else { return self.scan(&place.run).await };
        let entries = self.read(&id).await?;
        match entries.split_first() {
            Some(((first, _), new)) if *first == id => self.apply_all(&place.run, id, new).await,
            // A region in which nothing was ever rated.
            None if id == NOTHING => Ok(()),
            // The first one ever.
            _ if id == NOTHING => self.scan(&place.run).await,
            _ => {
                let peer = &self.peer.name;
                tracing::warn!(peer, id, "a peer's outbox does not tell all: it is read in full");
                self.scan(&place.run).await
            }
        }
    }

    /// What the outbox has from `id` on, `id` included. Waits for something new behind it, for a
    /// second at most.
    async fn read(&self, id: &str) -> Result<Vec<Entry>, Fault> {
        let mut wait = redis::cmd("XREAD");
        wait.arg("COUNT").arg(1).arg("BLOCK").arg(WAIT.as_millis().to_string());
        wait.arg("STREAMS").arg(OUTBOX).arg(id);
        let mut read = redis::cmd("XRANGE");
        read.arg(OUTBOX).arg(id).arg("+").arg("COUNT").arg(READ);
        // Both at once: the server begins with the second when the first has come to its end,
        // and the way there and back, over half the earth perhaps, is gone but once.
        let (_, entries): (Value, _) = try_join!(self.ask(&wait), self.ask(&read))?;
        Ok(entries)
    }

    /// Applies what came after the entry `from`, step by step.
    async fn apply_all(&self, run: &str, from: String, new: &[Entry]) -> Result<(), Fault> {
        let mut from = from;
        for entries in new.chunks(BATCH) {
            let Some((to, _)) = entries.last() else { continue };
            let records: Vec<Raw> = entries.iter().map(|(_, words)| Raw::of_entry(words)).collect();
            self.apply(run, &from, to, &records).await?;
            from.clone_from(to);
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            for record in &records {
                let age = now.saturating_sub(Duration::from_micros(record.stamp()));
                self.metrics.aged(&self.peer.name, age);
            }
        }
        Ok(())
    }

    /// Where to go on.
    async fn place(&self) -> Result<Place, Fault> {
        let mut command = function("claw_place_1", &[ROOT.to_owned()]);
        command.arg(&self.peer.name);
        let (run, id): (String, String) = self.library.call(&command).await?;
        Ok(Place { run, id: Some(id).filter(|id| !id.is_empty()) })
    }

    /// Reads all ratings of the peer, and goes on from where its outbox was before that.
    async fn scan(&self, run: &str) -> Result<(), Fault> {
        let begin = Instant::now();
        self.metrics.scans.get_or_create(&self.label()).inc();
        let of_peer = self.run_of_peer().await?;
        let mut command = redis::cmd("XREVRANGE");
        command.arg(OUTBOX).arg("+").arg("-").arg("COUNT").arg(1);
        let last: Vec<Entry> = self.ask(&command).await?;
        let to = last.into_iter().next().map_or_else(|| NOTHING.to_owned(), |(id, _)| id);
        let (mut cursor, mut count) = ("0".to_owned(), 0_usize);
        loop {
            let mut command = redis::cmd("SCAN");
            command.arg(&cursor).arg("MATCH").arg(format!("{USER}*")).arg("COUNT").arg(KEYS);
            let (next, keys): (String, Vec<Vec<u8>>) = self.ask_anywhere(&command).await?;
            for users in keys.chunks(USERS) {
                count = count.saturating_add(self.copy(run, users).await?);
            }
            if next == "0" {
                break;
            }
            cursor = next;
        }
        // Another process has other cursors, with which some users may have been left out.
        if self.run_of_peer().await? != of_peer {
            return Err(Fault::Connection("the peer was restarted during a scan".to_owned()));
        }
        self.apply(run, "", &to, &[]).await?;
        let seconds = begin.elapsed().as_secs();
        tracing::info!(peer = self.peer.name, count, seconds, "all ratings of a peer were read");
        Ok(())
    }

    /// Applies all that these users have rated, and says how many records that were.
    async fn copy(&self, run: &str, keys: &[Vec<u8>]) -> Result<usize, Fault> {
        let mut count: usize = 0;
        let mut open: Vec<(&[u8], String)> =
            keys.iter().map(|key| (key.as_slice(), "0".to_owned())).collect();
        while !open.is_empty() {
            let pages = try_join_all(open.iter().map(async |(key, cursor)| {
                let mut command = redis::cmd("HSCAN");
                command.arg(*key).arg(cursor).arg("COUNT").arg(FIELDS);
                self.ask::<(String, Vec<Vec<u8>>)>(&command).await
            }))
            .await?;
            let mut records = Vec::new();
            let mut rest = Vec::new();
            for ((key, _), (cursor, fields)) in open.into_iter().zip(pages) {
                let user = key.strip_prefix(USER.as_bytes()).unwrap_or_default();
                for pair in fields.chunks_exact(2) {
                    if let [item, value] = pair {
                        records.push(Raw::of_field(user, item, value));
                    }
                }
                if cursor != "0" {
                    rest.push((key, cursor));
                }
            }
            open = rest;
            for batch in records.chunks(BATCH) {
                self.apply(run, "", "", batch).await?;
            }
            count = count.saturating_add(records.len());
        }
        Ok(count)
    }

    /// Applies records, and moves the place.
    async fn apply(&self, run: &str, from: &str, to: &str, records: &[Raw]) -> Result<(), Fault> {
        if !self.lease.holds() {
            return Err(Fault::Deadline);
        }
        let mut command = function("claw_follow_2", &[ROOT.to_owned()]);
        command.arg(self.lease.holder()).arg(&self.peer.name).arg(run).arg(from).arg(to);
        command.arg(&self.region).arg(self.outbox);
        for Raw(words) in records {
            for word in words {
                command.arg(word);
            }
        }
        let [applied, older, parked, refused]: [u64; 4] = self.library.call(&command).await?;
        let peer = &self.peer.name;
        if refused > 0 {
            tracing::error!(peer, refused, "records of a peer cannot be understood: left out");
        }
        for (result, records) in
            [("applied", applied), ("older", older), ("parked", parked), ("refused", refused)]
        {
            self.metrics.count(peer, result, records);
        }
        Ok(())
    }

    /// Changes when the peer's server is another process.
    async fn run_of_peer(&self) -> Result<Option<String>, Fault> {
        let mut command = redis::cmd("INFO");
        command.arg("server");
        let info: String = self.ask_anywhere(&command).await?;
        Ok(info.lines().find_map(|line| line.strip_prefix("run_id:")).map(str::to_owned))
    }

    async fn ask<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, Fault> {
        self.peer.redis.call(command).await
    }

    /// Asks what names no key, of the server that has the ratings.
    async fn ask_anywhere<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, Fault> {
        self.peer.redis.call_at(ROOT.as_bytes(), command).await
    }

    fn label(&self) -> PeerName {
        PeerName { peer: self.peer.name.clone() }
    }
}

/// What the keys of users begin with.
const USER: &str = "{ratings}:user:";
/// The place in an outbox that has never had an entry.
const NOTHING: &str = "0-0";
