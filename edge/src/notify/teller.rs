//! Delivers the outbox to one receiver: at least once each, those of one user in order, several
//! users at once. Up to where it has come is kept in the server.
//!
//! There is no consumer group: the holder of the region's lease is the only reader, so that
//! nobody else could have the entry that comes before.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::from_redis_value;
use redis::{Cmd, Value};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::desk::Desk;
use super::event::{Event, value};
use super::parked::AGAIN;
use super::receiver::{Answer, Receiver};
use crate::metrics::notify::{NotifyMetrics, To};
use crate::ratings::lease::Lease;
use crate::ratings::library::{Library, ROOT, function};
use crate::ratings::record::{Entry, OUTBOX};
use crate::redis::health::Told;
use crate::redis::{Fault, Redis};

/// Notifications that may be on their way or wait, at most.
const WINDOW: usize = 512;
/// How far reading may be ahead of the first that is not done, in notifications: when this instance is
/// killed, as many may be told twice, and [`READ`] more.
const AHEAD: usize = 4_096;
/// Requests at once, at most.
const REQUESTS: usize = 32;
/// Entries that are read at once.
const READ: usize = 128;
/// How many are done before that is noted, while there is more to do.
const NOTE: usize = 64;
/// How often one is tried.
const TRIES: u32 = 10;
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long a server may wait for something new before it answers that there is nothing.
const WAIT: Duration = Duration::from_secs(1);
/// How long nothing is tried after a fault of Redis.
const PAUSE: Duration = Duration::from_secs(1);

/// Delivers to one receiver.
pub struct Teller {
    receiver: Receiver,
    /// The connection that waits for something new, on which nothing else can be asked.
    reader: Redis,
    library: Library,
    lease: Arc<Lease>,
    metrics: NotifyMetrics,
    requests: Semaphore,
    first_pause: Duration,
}

/// Up to where streams have been read.
#[derive(Clone)]
struct Read {
    outbox: String,
    again: String,
}

/// What was read.
struct News {
    outbox: Vec<Entry>,
    again: Vec<Entry>,
    /// Where to go on.
    read: Read,
}

enum Step {
    Read(News),
    Done(Event),
}

type Steps<'a> = FuturesUnordered<Pin<Box<dyn Future<Output = Step> + Send + 'a>>>;

impl Teller {
    /// For one receiver, on behalf of whoever holds the lease.
    #[must_use]
    pub fn new(
        receiver: Receiver,
        reader: Redis,
        library: Library,
        lease: Arc<Lease>,
        metrics: NotifyMetrics,
        first_pause: Duration,
    ) -> Self {
        metrics.expect(receiver.name());
        let requests = Semaphore::new(REQUESTS);
        Self { receiver, reader, library, lease, metrics, requests, first_pause }
    }

    /// Delivers for ever. It may be dropped at any moment.
    pub async fn run(&self) {
        let mut told = Told::default();
        let mut read = loop {
            match self.begin().await {
                Ok(read) => break read,
                Err(fault) => self.pause(fault, &mut told).await,
            }
        };
        let mut desk = Desk::default();
        let mut steps: Steps<'_> = FuturesUnordered::new();
        let mut is_reading = false;
        loop {
            if !is_reading && desk.open() < WINDOW && desk.ahead() < AHEAD {
                let from = read.clone();
                steps.push(Box::pin(async move { Step::Read(self.news(&from).await) }));
                is_reading = true;
            }
            match steps.next().await {
                Some(Step::Read(news)) => {
                    is_reading = false;
                    read = news.read.clone();
                    for event in self.events(news, &mut desk) {
                        steps.push(Box::pin(self.deliver(event)));
                    }
                }
                Some(Step::Done(event)) => {
                    if let Some(next) = desk.done(&event) {
                        steps.push(Box::pin(self.deliver(next)));
                    }
                }
                // Whatever is open has a step, and so has reading if nothing is.
                None => return,
            }
            self.note(&mut desk).await;
        }
    }

    /// Shows nothing that waits, since somebody else delivers.
    pub fn rest(&self) {
        self.metrics.oldest.get_or_create(&To { to: self.receiver.name() }).set(0);
    }

    /// From where on is told. Of what was rated before there was a receiver nobody is told.
    async fn begin(&self) -> Result<Read, Fault> {
        let mut command = redis::cmd("HGET");
        command.arg(TOLD).arg(self.receiver.name());
        let outbox = match self.library.redis.call::<Option<String>>(&command).await? {
            Some(id) => id,
            None => {
                let last = self.last().await?;
                self.told(&last).await?;
                last
            }
        };
        Ok(Read { outbox, again: NOTHING.to_owned() })
    }

    /// Waits for what is new, for a second or as long as the server does not answer.
    async fn news(&self, read: &Read) -> News {
        let mut told = Told::default();
        loop {
            match self.read(read).await {
                Ok(news) => return news,
                Err(fault) => self.pause(fault, &mut told).await,
            }
        }
    }

    async fn read(&self, read: &Read) -> Result<News, Fault> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(READ).arg("BLOCK").arg(WAIT.as_millis().to_string());
        command.arg("STREAMS").arg(OUTBOX).arg(AGAIN).arg(&read.outbox).arg(&read.again);
        let streams: Option<Vec<(String, Vec<Entry>)>> = self.reader.call(&command).await?;
        let mut news = News { outbox: Vec::new(), again: Vec::new(), read: read.clone() };
        for (name, entries) in streams.unwrap_or_default() {
            if name == OUTBOX { news.outbox = entries } else { news.again = entries }
        }
        // As long as the entry before is there, nothing behind it was trimmed when this was read.
        let is_whole = self.is_whole(&read.outbox).await?;
        if !is_whole {
            let to = self.receiver.name();
            self.metrics.gaps.get_or_create(&To { to }).inc();
            tracing::error!(
                to,
                after = read.outbox,
                "the outbox lacks ratings of which nobody was notified: it was trimmed, or Redis \
                 has lost them"
            );
        }
        match news.outbox.last() {
            Some((id, _)) => news.read.outbox.clone_from(id),
            None if !is_whole => news.read.outbox = self.last().await?,
            None => {}
        }
        if let Some((id, _)) = news.again.last() {
            news.read.again.clone_from(id);
        }
        Ok(news)
    }

    /// Whether the outbox has all that came after an entry.
    async fn is_whole(&self, id: &str) -> Result<bool, Fault> {
        if id != NOTHING {
            let mut command = redis::cmd("XRANGE");
            command.arg(OUTBOX).arg(id).arg(id);
            return Ok(!self.library.redis.call::<Vec<Entry>>(&command).await?.is_empty());
        }
        let mut command = redis::cmd("XINFO");
        command.arg("STREAM").arg(OUTBOX);
        match self.library.redis.call::<Value>(&command).await {
            Ok(info) => {
                let (length, added) = (number(&info, "length"), number(&info, "entries-added"));
                Ok(length == Some(0) || length == added)
            }
            // There is no outbox.
            Err(Fault::Refused { .. }) => Ok(true),
            Err(fault) => Err(fault),
        }
    }

    /// The last entry of the outbox.
    async fn last(&self) -> Result<String, Fault> {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(OUTBOX).arg("+").arg("-").arg("COUNT").arg(1);
        let last: Vec<Entry> = self.library.redis.call(&command).await?;
        Ok(last.into_iter().next().map_or_else(|| NOTHING.to_owned(), |(id, _)| id))
    }

    /// Those of the news that can be told now. The others wait at the desk.
    fn events(&self, news: News, desk: &mut Desk) -> Vec<Event> {
        let to = self.receiver.name();
        let mut events = Vec::new();
        for (id, fields) in news.outbox {
            // Nobody knows whether it was told before the server lost it; after a loss of all data
            // that would be all that was ever rated.
            if value(&fields, "back").is_some() {
                desk.skip(id);
                continue;
            }
            match Event::read(id.clone(), false, &fields) {
                Some(event) => events.extend(desk.add(event)),
                None => {
                    tracing::error!(id, "an entry of the outbox cannot be understood: left out");
                    self.metrics.tried(to, "unreadable");
                    desk.skip(id);
                }
            }
        }
        for (id, fields) in news.again {
            if value(&fields, "to") == Some(to)
                && let Some(event) = Event::read(id, true, &fields)
            {
                events.extend(desk.add(event));
            }
        }
        events
    }

    /// Tells the receiver until it has it, or has failed too often.
    async fn deliver(&self, event: Event) -> Step {
        let to = self.receiver.name();
        let (mut failures, mut pause) = (0, self.first_pause);
        loop {
            self.receiver.rested().await;
            let answer = {
                // Closed it never is.
                let _place = self.requests.acquire().await;
                if !self.lease.holds() {
                    // Somebody else goes on, and this is about to be dropped.
                    sleep(PAUSE).await;
                    continue;
                }
                // It may have come to ask for that while a place was waited for.
                if self.receiver.paused().is_some() {
                    continue;
                }
                self.receiver.tell(&event).await
            };
            let why = match answer {
                Answer::Taken => {
                    self.metrics.tried(to, "delivered");
                    self.metrics.aged(to, age(event.stamp));
                    self.forget(&event).await;
                    return Step::Done(event);
                }
                Answer::Later(_) => continue,
                Answer::Failed(why) => why,
            };
            failures = u32::saturating_add(failures, 1);
            if failures >= TRIES {
                self.metrics.tried(to, "parked");
                tracing::warn!(to, why, "a notification is parked: it has failed {TRIES} times");
                let mut told = Told::default();
                while let Err(fault) = self.give_up(&event, &why).await {
                    self.pause(fault, &mut told).await;
                }
                return Step::Done(event);
            }
            self.metrics.tried(to, "failed");
            tracing::debug!(to, why, failures, "a notification has failed and is tried again");
            sleep(pause).await;
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }

    /// Removes what was to be tried again. If that fails, it is told once more by the next leader.
    async fn forget(&self, event: &Event) {
        if event.is_again {
            let mut command = redis::cmd("XDEL");
            command.arg(AGAIN).arg(&event.id);
            let _ = self.library.redis.call::<u64>(&command).await;
        }
    }

    async fn give_up(&self, event: &Event, why: &str) -> Result<(), Fault> {
        let mut command = self.function("claw_give_up_1");
        command.arg(if event.is_again { &event.id } else { "" });
        for (name, value) in event.fields() {
            command.arg(name).arg(value);
        }
        command.arg("to").arg(self.receiver.name()).arg("tries").arg(TRIES).arg("why").arg(why);
        self.call(&command).await
    }

    /// Notes up to where all is done, if it is time to. What fails is tried after the next step.
    async fn note(&self, desk: &mut Desk) {
        let to = self.receiver.name();
        let oldest = desk.oldest().and_then(|id| id.split_once('-')?.0.parse::<u64>().ok());
        let age = oldest.map_or(0, |ms| age(ms.saturating_mul(1_000)).as_secs());
        self.metrics.oldest.get_or_create(&To { to }).set(i64::try_from(age).unwrap_or(i64::MAX));
        if let Some(id) = desk.to_note(NOTE) {
            match self.told(id).await {
                Ok(()) => desk.noted(),
                Err(fault) => tracing::debug!(?fault, "what was told is not noted yet"),
            }
        }
    }

    async fn told(&self, id: &str) -> Result<(), Fault> {
        let mut command = self.function("claw_told_1");
        command.arg(self.receiver.name()).arg(id);
        self.call(&command).await
    }

    fn function(&self, name: &str) -> Cmd {
        let mut command = function(name, &[ROOT.to_owned()]);
        command.arg(self.lease.holder());
        command
    }

    async fn call(&self, command: &Cmd) -> Result<(), Fault> {
        self.library.call::<u64>(command).await.map(|_| ())
    }

    /// Waits before Redis is asked once more.
    async fn pause(&self, fault: Fault, told: &mut Told) {
        if told.is_news(&fault) {
            tracing::warn!(to = self.receiver.name(), ?fault, "notifications wait for Redis");
        }
        sleep(PAUSE).await;
    }
}

/// The hash of what receivers have been told.
const TOLD: &str = "{ratings}:told";
/// The place in a stream before its first entry.
const NOTHING: &str = "0-0";

/// How long ago a moment was, given in microseconds since 1970.
fn age(micros: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_micros(micros))
}

/// A number in a reply of names and values in turn.
fn number(reply: &Value, name: &str) -> Option<u64> {
    let Value::Array(items) = reply else { return None };
    let text = |value: &Value| from_redis_value::<String>(value.clone()).ok();
    let mut pairs = items.chunks_exact(2);
    let pair = pairs.find(|pair| pair.first().and_then(text).as_deref() == Some(name))?;
    from_redis_value(pair.get(1)?.clone()).ok()
}
