//! The server that decides, as one worker sees it.

mod address;
mod circuit;
mod cluster;
mod coalesce;
mod dial;
pub mod health;
mod late;
mod leases;
mod link;
mod refusals;
mod weights;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use redis::{Arg, Cmd, FromRedisValue, Value, from_redis_value};
use tokio::time::{Instant, sleep, timeout};

use self::address::Servers;
use self::cluster::Cluster;
use self::coalesce::{Batch, Flights, Turn};
use self::dial::{Dial, Place};
use self::health::Health;
use self::late::{Late, Patience};
use self::leases::{IDLE, Leases, Watch};
use self::link::Link;
use self::refusals::Refusals;
use self::weights::Weights;
use self::wire::{Hears, Reply};
use crate::config::Config;
use crate::decide::{Answer, Outcome, Plan, Verdict};
use crate::limits::{Charge, Limit};
use crate::seat::{Seat, Seats};

/// Why the server did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not in time.
    Deadline,
    /// It cannot be reached, or broke off.
    Connection(String),
    /// It answered with an error.
    Refused {
        /// Its first word, as in `WRONGTYPE`.
        code: String,
        /// All of it.
        text: String,
    },
    /// It was not asked: it has not answered of late.
    CircuitOpen,
    /// It was not asked: too many wait for it already.
    QueueFull,
    /// Whether it has answered in time is not known: this process had more to do than it can.
    Overloaded,
}

/// A handle of the connections of one worker. Clones share them.
#[derive(Clone)]
pub struct Redis {
    shared: Arc<Shared>,
}

struct Shared {
    route: Route,
    /// How long a decision may wait.
    patience: Patience,
    flights: Flights,
    refusals: Option<Arc<Refusals>>,
    leases: Option<Leases>,
    weights: Weights,
    health: Arc<Health>,
    /// Decisions that are being made.
    deciding: Seats,
    /// Questions about weights, as many at once.
    asking: Arc<Seats>,
    /// How often it was seen that there is more to do than can be done.
    overloads: AtomicU64,
}

/// How many decisions a worker makes at once. Those beyond are refused at once, as by a service
/// that is overloaded: if they were let in, all of them would come too late, and limits that fail
/// open would hold for nobody.
const MOST_DECIDING: usize = 1_024;

/// Who is asked.
enum Route {
    /// One server has all keys.
    One(Link),
    /// Each key has its node.
    Cluster(Cluster),
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Redis").finish_non_exhaustive()
    }
}

impl Redis {
    /// A handle that connects when it is first used, or told to.
    ///
    /// # Errors
    /// When a URL or a certificate cannot be read.
    pub fn new(config: &Config, health: Arc<Health>) -> Result<Self, String> {
        let refusals = config.local_refusals.then(|| Arc::new(Refusals::default()));
        let hears =
            refusals.clone().map(|refusals| -> Hears { Arc::new(move |push| refusals.hear(push)) });
        let (dial, servers) = Dial::new(config, hears)?;
        let dial = Arc::new(dial);
        let lost: Arc<dyn Fn() + Send + Sync> = {
            let refusals = refusals.clone();
            Arc::new(move || refusals.iter().for_each(|refusals| refusals.clear()))
        };
        let one = |dial, place| {
            let lost = Arc::clone(&lost);
            Route::One(Link::new(dial, place, Arc::clone(&health), Box::new(move || lost())))
        };
        let route = match servers {
            Servers::One(address) => one(dial, Place::Fixed(address)),
            Servers::Sentinel(sentinels, service) => one(dial, Place::Master(sentinels, service)),
            Servers::Cluster(seeds) => {
                Route::Cluster(Cluster::new(dial, seeds, Arc::clone(&health), Arc::clone(&lost)))
            }
        };
        let flights = Flights::default();
        let leases = (config.lease > 0).then(|| Leases::new(config.lease));
        let patience = Patience::new(config.decision_timeout);
        let deciding = Seats::new(MOST_DECIDING);
        let asking = Arc::new(Seats::new(MOST_DECIDING));
        let shared = Shared {
            route,
            patience,
            flights,
            refusals,
            leases,
            weights: Weights::default(),
            health,
            deciding,
            asking,
            overloads: AtomicU64::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Connects in the background, before the first decision has to wait for it.
    pub fn connect(&self) {
        match &self.shared.route {
            Route::One(link) => link.connect(),
            Route::Cluster(cluster) => cluster.connect(),
        }
    }

    /// Gives back what was taken ahead, before the service ends.
    pub async fn end(&self) {
        let leases = self.shared.leases.iter().flat_map(Leases::end);
        join_all(leases.map(async |charge| self.give_back(&charge).await)).await;
    }

    /// Charges everything in `plan`, and says what that comes to.
    pub async fn decide(&self, plan: Plan) -> Verdict {
        self.decide_by(plan, self.deadline()).await
    }

    /// Charges everything in `plan` as far as that can be done by `deadline`, and says what it comes to.
    pub async fn decide_by(&self, plan: Plan, deadline: Instant) -> Verdict {
        let verdict = self.charge(plan, deadline).await;
        if verdict.allowed {
            verdict.admit();
        }
        verdict
    }

    /// As [`decide_by`](Self::decide_by), for a request that needs something besides: whoever lets it
    /// through says so by [`Verdict::admit`].
    pub async fn charge(&self, plan: Plan, deadline: Instant) -> Verdict {
        let Some(_seat) = Seat::one(&self.shared.deciding) else {
            self.shared.health.fault(&Fault::QueueFull);
            let charges = plan.together.into_iter().chain(plan.apart);
            return Verdict::shed(charges.map(|charge| Outcome { charge, answer: None }).collect());
        };
        let overloads = self.shared.overloads.load(Ordering::Relaxed);
        let Plan { together, apart } = plan;
        let outcomes = if apart.is_empty() {
            self.together(together, deadline).await
        } else {
            // All of them in one go: those apart wait for nobody.
            let apart = join_all(apart.into_iter().map(async |charge| {
                let answer = self.take_one(&charge, deadline).await.ok();
                Outcome { charge, answer }
            }));
            let both = async { futures_util::join!(self.together(together, deadline), apart) };
            let (mut outcomes, apart) = Box::pin(both).await;
            outcomes.extend(apart);
            outcomes
        };
        if self.shared.overloads.load(Ordering::Relaxed) != overloads {
            return Verdict::shed(outcomes);
        }
        for outcome in outcomes.iter().filter(|outcome| outcome.answer.is_none()) {
            let blind = outcome.charge.limit.blind();
            self.shared.health.metrics.blind.get_or_create(&blind).inc();
        }
        let verdict = Verdict::new(outcomes);
        for outcome in &verdict.outcomes {
            if let (Some(adaptive), Some(answer)) = (&outcome.charge.limit.adaptive, outcome.answer)
            {
                adaptive.learn(answer.capacity);
            }
        }
        for outcome in verdict.refusing() {
            if let Some(adaptive) = &outcome.charge.limit.adaptive {
                adaptive.meter.reject();
            }
        }
        verdict
    }

    /// There is more to do than can be done, as somebody has seen.
    fn overloaded(&self) -> Fault {
        self.shared.overloads.fetch_add(1, Ordering::Relaxed);
        self.shared.health.fault(&Fault::Overloaded);
        Fault::Overloaded
    }

    /// Charges all or none.
    async fn together(&self, charges: Vec<Charge>, deadline: Instant) -> Vec<Outcome> {
        let answers = match charges.as_slice() {
            [] => return Vec::new(),
            [charge] => self.take_one(charge, deadline).await.map(|answer| vec![answer]),
            several if self.is_in_one_place(several) => self.take_all(several, deadline).await,
            _ => return Box::pin(self.one_after_the_other(charges, deadline)).await,
        };
        let mut answers = answers.unwrap_or_default().into_iter();
        charges.into_iter().map(|charge| Outcome { charge, answer: answers.next() }).collect()
    }

    /// Whether one command can charge all.
    fn is_in_one_place(&self, charges: &[Charge]) -> bool {
        match &self.shared.route {
            Route::One(_) => true,
            Route::Cluster(_) => {
                let mut slots = charges.iter().map(|charge| cluster::slot(&charge.key));
                let first = slots.next();
                slots.all(|slot| Some(slot) == first)
            }
        }
    }

    /// One take each, for keys that no command reaches together. The first that refuses ends
    /// it, and those before it are given back: for a moment somebody else may have been
    /// refused by them.
    async fn one_after_the_other(&self, charges: Vec<Charge>, deadline: Instant) -> Vec<Outcome> {
        let mut outcomes: Vec<Outcome> = Vec::new();
        let mut is_refused = false;
        for charge in charges {
            // The others are looked at, so that each limit says how it stands.
            let asked =
                if is_refused { Charge { cost: 0, ..charge.clone() } } else { charge.clone() };
            let answer = self.take_one(&asked, deadline).await.ok();
            let outcome = Outcome { charge, answer };
            is_refused |= outcome.is_over();
            outcomes.push(outcome);
        }
        if is_refused {
            let taken = outcomes
                .iter_mut()
                .filter_map(|outcome| Some((&outcome.charge, outcome.answer.as_mut()?)))
                .filter(|(_, answer)| answer.taken > 0);
            join_all(taken.map(async |(charge, answer)| {
                // Without an answer they stay charged: too little is granted, never too much.
                if let Ok(given) = self.give(charge).await {
                    *answer = Answer { taken: 0, ..given };
                }
            }))
            .await;
        }
        outcomes
    }

    /// `CL.TAKE`: takes the charge, or nothing.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn take(&self, charge: &Charge) -> Result<Answer, Fault> {
        self.take_one(charge, self.deadline()).await
    }

    /// `CL.PEEK`: what a take of the charge would be told, changing nothing.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn peek(&self, charge: &Charge) -> Result<Answer, Fault> {
        let command = command("CL.PEEK", charge, charge.cost);
        self.figures(&charge.key, &command, self.deadline()).await
    }

    /// The weight of a bucket, as it was within the last second. Nothing when that is not known in half of
    /// the time until `deadline`: the other half is for what is decided by it.
    pub async fn weight(&self, key: &Arc<[u8]>, deadline: Instant) -> Option<u64> {
        let now = Instant::now();
        let weight = self.shared.weights.of(key, now, || {
            let seat = Seat::one(Arc::clone(&self.shared.asking))?;
            // It is asked with all the time that there is, and goes on when nobody waits for it any
            // more: a shorter time would make a server that is slow one that cannot be reached.
            let (redis, key) = (self.clone(), Arc::clone(key));
            Some(tokio::spawn(async move {
                let _seat = seat;
                redis.ask_weight(&key, deadline).await
            }))
        })?;
        let half = deadline.saturating_duration_since(now).checked_div(2)?;
        timeout(half, weight).await.ok()?
    }

    async fn ask_weight(&self, key: &[u8], deadline: Instant) -> Option<u64> {
        let mut command = redis::cmd("CL.POLICY_RO");
        command.arg(key);
        let reply = self.ask(key, &command, deadline).await.ok()?;
        let mut policy: HashMap<String, Value> = from_redis_value(reply.into()).ok()?;
        from_redis_value(policy.remove("weight")?).ok()
    }

    /// `CL.GIVE`: gives the charge back.
    ///
    /// # Errors
    /// When there is no answer. It may have been done all the same.
    pub async fn give(&self, charge: &Charge) -> Result<Answer, Fault> {
        self.give_by(charge, self.deadline()).await
    }

    /// As [`give`](Self::give), with the answer by `deadline`.
    ///
    /// # Errors
    /// When there is none by then. It may have been done all the same.
    pub async fn give_by(&self, charge: &Charge, deadline: Instant) -> Result<Answer, Fault> {
        let mut command = redis::cmd("CL.GIVE");
        command.arg(&*charge.key).arg(charge.cost);
        self.figures(&charge.key, &command, deadline).await
    }

    /// `CL.SETTLE`: books that what `reserved` was taken for has cost `used`.
    ///
    /// # Errors
    /// When there is no answer. It may have been done all the same.
    pub async fn settle(&self, reserved: &Charge, used: u64) -> Result<Answer, Fault> {
        self.settle_by(reserved, used, self.deadline()).await
    }

    /// As [`settle`](Self::settle), with the answer by `deadline`.
    ///
    /// # Errors
    /// When there is none by then. It may have been done all the same.
    pub async fn settle_by(
        &self,
        reserved: &Charge,
        used: u64,
        deadline: Instant,
    ) -> Result<Answer, Fault> {
        let mut command = redis::cmd("CL.SETTLE");
        command.arg(&*reserved.key).arg(reserved.cost).arg(used);
        policy(&mut command, &reserved.limit);
        self.figures(&reserved.key, &command, deadline).await
    }

    /// Sends any command to the server that has its first key.
    ///
    /// # Errors
    /// When there is no answer, or one of another kind. It may have been done all the same,
    /// and is not sent again.
    pub async fn call<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Fault> {
        self.call_at(key(command), command).await
    }

    /// Sends a command that names no key to the server that has `key`.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn call_at<T: FromRedisValue>(&self, key: &[u8], command: &Cmd) -> Result<T, Fault> {
        let value = self.ask(key, command, self.deadline()).await?.into();
        from_redis_value(value).map_err(|error| Fault::unreadable(&error))
    }

    /// Sends a command that is about the server itself. In a cluster that is the node that has the
    /// first slot, so that what several such commands say fits together.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn call_server<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Fault> {
        self.call_at(cluster::KEY_OF_FIRST_SLOT, command).await
    }

    /// The node of a cluster that [`call_server`](Self::call_server) asks, as far as is known; nothing
    /// where there is but one server.
    #[must_use]
    pub fn server_of_cluster(&self) -> Option<String> {
        match &self.shared.route {
            Route::One(_) => None,
            Route::Cluster(cluster) => cluster.node_of(cluster::KEY_OF_FIRST_SLOT),
        }
    }

    /// When what is asked now has to be answered.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.shared.patience.length()).unwrap_or(now)
    }

    async fn ask(&self, key: &[u8], command: &Cmd, deadline: Instant) -> Result<Reply, Fault> {
        let result = match &self.shared.route {
            Route::One(link) => link.ask(command, deadline).await,
            Route::Cluster(cluster) => cluster.ask(key, command, deadline).await,
        };
        match &result {
            Err(Fault::Overloaded) => drop(self.overloaded()),
            Err(fault) => self.shared.health.fault(fault),
            Ok(_) => {}
        }
        result
    }

    /// A command that answers with five numbers.
    async fn figures(&self, key: &[u8], command: &Cmd, deadline: Instant) -> Result<Answer, Fault> {
        let asked = Instant::now();
        let reply = self.ask(key, command, deadline).await;
        if matches!(reply, Ok(_) | Err(Fault::Deadline)) {
            self.shared.flights.took(asked.elapsed(), self.shared.patience.length());
        }
        match reply? {
            Reply::Figures(figures) => Ok(answer(figures)),
            Reply::Other(value) => Err(Fault::unreadable(&format_args!("{value:?}"))),
        }
    }

    async fn take_one(&self, charge: &Charge, deadline: Instant) -> Result<Answer, Fault> {
        self.shared.health.metrics.takes.inc();
        if charge.keep > 0 {
            // What stays behind for others is left out of account by all that saves commands.
            return self.send_take(charge, deadline).await;
        }
        if let Some(leases) = &self.shared.leases
            && charge.cost == 1
            && let Some(answer) = leases.grant(charge, Instant::now())
        {
            self.shared.health.metrics.leased.inc();
            return Ok(answer);
        }
        let Some(refusals) = &self.shared.refusals else {
            return self.take_anyhow(charge, deadline).await;
        };
        if let Some(answer) = refusals.answer(charge, Instant::now()) {
            self.shared.health.metrics.local_refusals.inc();
            return Ok(answer);
        }
        let result = self.take_anyhow(charge, deadline).await;
        if let Ok(answer) = &result
            && answer.retry_after_ms != 0
            && refusals.begin(charge, Instant::now())
        {
            let (redis, refusals, charge) = (self.clone(), Arc::clone(refusals), charge.clone());
            tokio::spawn(async move {
                let answer = redis.peek(&charge).await.ok();
                refusals.learn(charge, answer, Instant::now());
            });
        }
        result
    }

    /// Takes the charge, with others that want the same if there are any.
    async fn take_anyhow(&self, charge: &Charge, deadline: Instant) -> Result<Answer, Fault> {
        if charge.cost != 1 || !self.shared.flights.are_shared() {
            return self.send_take(charge, deadline).await;
        }
        match self.shared.flights.turn(charge)? {
            Turn::Wait(answer) => {
                self.shared.health.metrics.coalesced.inc();
                match self.shared.patience.in_time(answer, deadline).await {
                    Ok(answer) => answer.unwrap_or(Err(Fault::Deadline)),
                    Err(Late::Theirs) => Err(Fault::Deadline),
                    Err(Late::Own) => Err(self.overloaded()),
                }
            }
            Turn::Apart => self.send_take(charge, deadline).await,
            Turn::Lead => {
                let lead = Lead { redis: self, charge };
                let result = self.take_for(charge, 1, deadline).await;
                if let Err(fault) = &result {
                    self.shared.flights.fail(&charge.key, fault);
                }
                drop(lead);
                result.map(|answer| coalesce::share(answer, 0))
            }
        }
    }

    async fn send_take(&self, charge: &Charge, deadline: Instant) -> Result<Answer, Fault> {
        let mut command = command("CL.TAKE", charge, charge.cost);
        keep(&mut command, charge);
        self.figures(&charge.key, &command, deadline).await
    }

    /// Takes for `count` who want one token each, and for those who may come.
    async fn take_for(
        &self,
        charge: &Charge,
        count: u64,
        deadline: Instant,
    ) -> Result<Answer, Fault> {
        let now = Instant::now();
        let ahead = self.shared.leases.as_ref().map_or(0, |leases| leases.ahead(charge, now));
        if ahead == 0 {
            let result = self.send_tokens(charge, count, deadline).await;
            self.keep(charge, &result, count);
            return result;
        }
        // Whoever asks may go away, and what was taken ahead is not his.
        let (redis, charge) = (self.clone(), charge.clone());
        let take = tokio::spawn(async move {
            let result = redis.send_tokens(&charge, count.saturating_add(ahead), deadline).await;
            redis.keep(&charge, &result, count);
            result
        });
        take.await.unwrap_or_else(|error| Err(Fault::Connection(error.to_string())))
    }

    /// Takes `tokens`, or what there is of them.
    async fn send_tokens(
        &self,
        charge: &Charge,
        tokens: u64,
        deadline: Instant,
    ) -> Result<Answer, Fault> {
        let mut command = command("CL.TAKE", charge, tokens);
        if tokens > 1 {
            command.arg("PARTIAL");
        }
        self.figures(&charge.key, &command, deadline).await
    }

    /// Keeps what was taken beyond `count`, and sees to it that it is given back.
    fn keep(&self, charge: &Charge, result: &Result<Answer, Fault>, count: u64) {
        let (Some(leases), Ok(answer)) = (&self.shared.leases, result) else { return };
        if leases.keep(charge, *answer, count, Instant::now()) {
            tokio::spawn(self.clone().watch(charge.clone()));
        }
    }

    /// Gives the lease of a key back when nobody wants it any more.
    async fn watch(self, charge: Charge) {
        let Some(leases) = &self.shared.leases else { return };
        loop {
            sleep(IDLE).await;
            match leases.watch(&charge.key, Instant::now()) {
                Watch::Wait => {}
                Watch::Give(cost) => {
                    return self.give_back(&Charge { cost, ..charge }).await;
                }
            }
        }
    }

    /// Gives back what a request took that then came to nothing.
    pub async fn undo(&self, verdict: &Verdict) {
        let taken = verdict.outcomes.iter().filter(|it| it.answer.is_some_and(|it| it.taken > 0));
        join_all(taken.map(|outcome| self.give_back(&outcome.charge))).await;
    }

    async fn give_back(&self, charge: &Charge) {
        // Without an answer they stay taken: too little is granted, never too much.
        if charge.cost > 0
            && let Err(fault) = self.give(charge).await
        {
            tracing::debug!(limit = charge.limit.name, ?fault, "tokens are not given back");
        }
    }

    /// Takes for those who wait at the key of `charge`, until there are none.
    async fn carry_on(self, charge: Charge, mut batch: Batch) {
        loop {
            // Each of them waits until his own; the command has all its time.
            let result = self.take_for(&charge, batch.tokens(), self.deadline()).await;
            batch.share(&result);
            if let Err(fault) = &result {
                return self.shared.flights.fail(&charge.key, fault);
            }
            let Some(next) = self.shared.flights.next(&charge.key) else { return };
            batch = next;
        }
    }

    /// `CL.TAKEALL`.
    async fn take_all(&self, charges: &[Charge], deadline: Instant) -> Result<Vec<Answer>, Fault> {
        let metrics = &self.shared.health.metrics;
        metrics.takes.inc_by(u64::try_from(charges.len()).unwrap_or(u64::MAX));
        let mut command = redis::cmd("CL.TAKEALL");
        for (index, charge) in charges.iter().enumerate() {
            if index > 0 {
                command.arg("AND");
            }
            command.arg(&*charge.key).arg(charge.cost);
            policy(&mut command, &charge.limit);
            keep(&mut command, charge);
        }
        let key = charges.first().map_or(&[][..], |charge| &*charge.key);
        let value = self.ask(key, &command, deadline).await?.into();
        let (_, _, _, answers): (i64, i64, i64, Vec<[i64; 5]>) =
            from_redis_value(value).map_err(|error| Fault::unreadable(&error))?;
        Ok(answers.into_iter().map(answer).collect())
    }
}

/// Whoever leads at a key. When he is done, or has gone before there was an answer, those who
/// wait for him go on.
struct Lead<'a> {
    redis: &'a Redis,
    charge: &'a Charge,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if let Some(batch) = self.redis.shared.flights.next(&self.charge.key) {
            tokio::spawn(self.redis.clone().carry_on(self.charge.clone(), batch));
        }
    }
}

impl Fault {
    fn refused(error: &redis::RedisError) -> Self {
        let code = error.code().unwrap_or("ERR").to_owned();
        let text = format!("{code} {}", error.detail().unwrap_or_default());
        Self::Refused { code, text }
    }

    fn unreadable(error: &dyn std::fmt::Display) -> Self {
        Self::Refused { code: "ERR".to_owned(), text: format!("not what was asked for: {error}") }
    }
}

/// `CL.TAKE` or `CL.PEEK`.
fn command(name: &str, charge: &Charge, tokens: u64) -> Cmd {
    // Room for what it mostly says; what is longer finds more.
    let mut command = Cmd::with_capacity(11, charge.key.len().saturating_add(128));
    command.arg(name).arg(&*charge.key).arg(tokens);
    policy(&mut command, &charge.limit);
    command
}

fn policy(command: &mut Cmd, limit: &Limit) {
    for argument in &limit.arguments {
        command.arg(argument);
    }
}

/// What a take leaves for others. A look leaves everything.
fn keep(command: &mut Cmd, charge: &Charge) {
    if charge.keep > 0 && charge.cost > 0 {
        command.arg("KEEP").arg(charge.keep);
    }
}

/// The first key of a command; nothing when it has none.
fn key(command: &Cmd) -> &[u8] {
    let mut words = command.args_iter().map(|word| match word {
        Arg::Simple(word) => word,
        _ => &[],
    });
    let name = words.next().unwrap_or_default().to_ascii_uppercase();
    let place = match name.as_slice() {
        b"FCALL" | b"FCALL_RO" | b"EVAL" | b"EVAL_RO" | b"EVALSHA" | b"EVALSHA_RO" => 2,
        b"XGROUP" | b"XINFO" => 1,
        b"XREAD" | b"XREADGROUP" => {
            words.find(|word| word.eq_ignore_ascii_case(b"STREAMS"));
            0
        }
        _ => 0,
    };
    words.nth(place).unwrap_or_default()
}

fn answer([taken, capacity, remaining, retry_after_ms, reset_after_ms]: [i64; 5]) -> Answer {
    Answer { taken, capacity, remaining, retry_after_ms, reset_after_ms }
}
