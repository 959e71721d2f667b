//! Limits that follow how their backends do: the loop that observes, decides, and puts in force.
//!
//! Each instance reports ten times a second what it has counted, into a hash in Redis. One of them,
//! which holds the lease in that hash, sums the reports, has `claw-adapt` decide, and pins the
//! route's bucket for a moment. When it dies another one goes on; when all do, or Redis, the pin ends
//! by itself and the operator's limit holds.
//!
//! | module | what |
//! |--------|------|
//! | [`shared`] | the hash in Redis |
//! | [`lead`] | what the leader sums and decides: pure |
//! | [`decision`] | what was decided, as text |

pub mod decision;
pub mod lead;
pub mod shared;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use claw_adapt::Policy;
use claw_adapt::trial::Verdict;
use futures_util::future::join_all;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::decision::{Decision, HOLDS_MS, name};
use self::lead::{Lead, Standings, Step};
use self::shared::{LEASE_MS, Shared, Standing};
use crate::config::Config;
use crate::limits::adaptive::{Mode, Settings};
use crate::meter::{Meter, Totals};
use crate::metrics::adaptive::{AdaptiveMetrics, Decisions, Info, Leads, RouteName, Shadow};
use crate::redis::health::{Health, Told};
use crate::redis::{Fault, Redis};
use crate::service::Service;

/// How often is decided.
const TICK: Duration = Duration::from_millis(100);
/// How often it is looked whether regions share a bucket, which they should not.
const LOOK: Duration = Duration::from_secs(5);
/// How long a tick waits for Redis.
const PATIENCE: Duration = Duration::from_millis(300);

/// The loops of all adaptive limits, at one instance.
pub struct Loops {
    service: Arc<Service>,
    redis: Redis,
    begin: Instant,
}

/// The loop of one limit.
struct Route {
    name: String,
    shared: Shared,
    settings: Settings,
    meter: Arc<Meter>,
    lead: Option<Lead>,
    trial: String,
    /// How many instances had a part of what may be in flight, when that was last told.
    instances: u64,
    /// When Redis last answered.
    heard: Instant,
    told: Told,
    /// Whether regions share its bucket, as far as is known, and when that was last asked.
    is_shared: bool,
    looked: Option<Instant>,
    /// What the metrics have of what was counted.
    shown: Totals,
    /// What the log was told last.
    logged: Option<(bool, Decision)>,
    /// What metrics say that decides.
    info: Option<Info>,
}

impl Route {
    /// What holds where nothing that was decided does. What may be in flight is for all instances that
    /// there were.
    fn fallback(&self) -> Policy {
        let fallback = self.settings.bounds.fallback;
        let part = |cap: u64| cap.div_ceil(self.instances.max(1)).max(1);
        Policy { in_flight: fallback.in_flight.map(part), ..fallback }
    }
}

impl Loops {
    /// On a connection of their own.
    ///
    /// # Errors
    /// When a setting cannot be read, or the weights that this program was built with are damaged.
    pub fn new(service: Arc<Service>) -> Result<Self, String> {
        let config = Config { decision_timeout: PATIENCE, ..service.config.patient() };
        let redis = Redis::new(&config, Arc::new(Health::background()))?;
        Ok(Self { service, redis, begin: Instant::now() })
    }

    /// Decides until the service drains.
    pub async fn run(self) {
        tokio::select! {
            () = self.service.draining() => {}
            never = self.ticks() => match never {},
        }
    }

    async fn ticks(&self) -> Infallible {
        let mut routes: HashMap<String, Route> = HashMap::new();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.update(&mut routes);
            let forgotten = self.service.tickets.sweep();
            if forgotten > 0 {
                tracing::warn!(forgotten, "requests were let through and never told to be done");
            }
            if !self.service.config.adaptive {
                routes.values_mut().for_each(|route| self.go_by_settings(route));
                continue;
            }
            // Of each route, since another instance may not have all of them. What is lost with a tick
            // is given up after a while.
            let for_others = self.service.tickets.for_others();
            let turn = async |route: &mut Route| {
                self.tick(route, &for_others).await;
                look(route).await;
            };
            join_all(routes.values_mut().map(turn)).await;
        }
    }

    /// Has a loop for each limit that there is now.
    fn update(&self, routes: &mut HashMap<String, Route>) {
        let limits = self.service.limits.load();
        routes.retain(|name, route| {
            let is_there = limits.adaptive().any(|(limit, _)| limit.name == *name);
            if !is_there {
                let label = RouteName { route: name.clone() };
                self.metrics().forget(&label, &self.service.config.region);
                route.info.take().map(|info| self.metrics().info.remove(&info));
            }
            is_there
        });
        for (limit, adaptive) in limits.adaptive() {
            let route = routes.entry(limit.name.clone()).or_insert_with(|| Route {
                name: limit.name.clone(),
                shared: Shared::new(self.redis.clone(), limit),
                settings: adaptive.settings.clone(),
                meter: Arc::clone(&adaptive.meter),
                lead: None,
                trial: String::new(),
                instances: 1,
                heard: Instant::now(),
                told: Told::default(),
                is_shared: false,
                looked: None,
                shown: adaptive.meter.totals(),
                logged: None,
                info: None,
            });
            route.settings.clone_from(&adaptive.settings);
            route.meter = Arc::clone(&adaptive.meter);
        }
    }

    async fn tick(&self, route: &mut Route, for_others: &[(String, String)]) {
        let asked = Instant::now();
        let tickets = &self.service.tickets;
        let totals = route.meter.totals();
        if let Some(since) = totals.since(&route.shown) {
            self.metrics().count_seen(&route.name, &since);
        }
        route.shown.clone_from(&totals);
        let standing = match route.shared.tick(tickets.instance(), &totals, for_others).await {
            Ok(standing) => standing,
            Err(fault) => return self.is_unheard(route, &fault),
        };
        route.heard = asked;
        tickets.told(&standing.done);
        let decision = match standing.leads {
            true => self.lead(route, &standing, asked).await,
            false => {
                route.lead = None;
                let last = standing.kept.decision;
                last.filter(|decision| decision.holds(standing.now_ms))
            }
        };
        let policy = match &decision {
            Some(decision) => {
                decision.policy_of(tickets.instance(), route.settings.bounds.fallback)
            }
            None => route.fallback(),
        };
        route.meter.set_policy(policy);
        self.show(route, policy, decision.as_ref());
        if let Some(decision) = &decision {
            route.instances = u64::try_from(decision.parts.len()).unwrap_or(1).max(1);
            self.show_decision(route, decision);
        }
    }

    /// Nothing is known: after a while, neither is whether what was decided holds.
    fn is_unheard(&self, route: &mut Route, fault: &Fault) {
        if route.told.is_news(fault) {
            tracing::warn!(route = route.name, ?fault, "the loop of an adaptive limit has to wait");
        }
        if route.heard.elapsed() >= Duration::from_millis(HOLDS_MS) {
            self.go_by_settings(route);
        }
    }

    /// Nothing that was decided holds here.
    fn go_by_settings(&self, route: &mut Route) {
        route.lead = None;
        let fallback = route.fallback();
        route.meter.set_policy(fallback);
        self.show(route, fallback, None);
    }

    /// Decides, and puts it in force while the lease lasts by this instance's own clock.
    async fn lead(
        &self,
        route: &mut Route,
        standing: &Standing,
        asked: Instant,
    ) -> Option<Decision> {
        let mode = standing.kept.switch.unwrap_or(route.settings.mode);
        let Route { lead, settings, shared, trial: written, name, .. } = &mut *route;
        if lead.as_ref().is_none_or(|lead| lead.settings() != settings) {
            match Lead::new(settings, standing) {
                Ok(new) => *lead = Some(new),
                Err(error) => {
                    tracing::error!(route = name, error, "an adaptive limit cannot adapt");
                    return None;
                }
            }
        }
        let lead = lead.as_mut()?;
        let last = standing.kept.decision.as_ref();
        // An operator who switches takes the trial away, also one that was written from here. Who writes
        // another mode into the file and then this one again leaves it.
        let is_taken = standing.kept.trial.is_empty() && (last.is_none() || !written.is_empty());
        if mode == Mode::Canary && (is_taken || last.is_some_and(|last| last.mode != mode)) {
            lead.begin_trial();
            written.clear();
        }
        let now_us = u64::try_from(self.begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut step = lead.step(now_us, standing, mode);
        let trial = lead.trial_text();
        let is_news = mode == Mode::Canary && trial != *written;
        if asked.elapsed() >= Duration::from_millis(LEASE_MS) {
            // Somebody else may lead by now.
            return None;
        }
        let was_live = last.is_some_and(|last| last.is_live && last.holds(standing.now_ms));
        let pinned = match (step.decision.is_live, was_live) {
            (true, _) => shared.pin(step.decision.policy).await,
            (false, true) => shared.unpin(settings.bounds.fallback).await,
            (false, false) => Ok(()),
        };
        // What was refused is not in force, and nobody may believe that it is.
        if matches!(pinned, Err(Fault::Refused { .. })) {
            step.decision = lead.without_force(&step.decision);
        }
        let trial_told = is_news.then_some(trial.as_str());
        let published = shared.publish(&step.decision, trial_told).await;
        if is_news && published.is_ok() {
            *written = trial;
        }
        for fault in [pinned, published].into_iter().filter_map(Result::err) {
            if route.told.is_news(&fault) {
                let (route, hash) = (&route.name, self.hash(&route.settings));
                tracing::warn!(route, hash, ?fault, "a decision is not put in force");
            }
        }
        self.show_step(route, &step);
        Some(step.decision)
    }

    fn metrics(&self) -> &AdaptiveMetrics {
        &self.service.metrics.adaptive
    }

    fn hash(&self, settings: &Settings) -> String {
        lead::weights(settings.profile)
            .map_or_else(|error| error, |it| format!("{:016x}", it.hash()))
    }

    /// What is in force here, by a decision that holds if there is one.
    fn show(&self, route: &Route, policy: Policy, decision: Option<&Decision>) {
        let (metrics, label) = (self.metrics(), RouteName { route: route.name.clone() });
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        metrics.bucket_size.get_or_create(&label).set(whole(policy.capacity));
        metrics.refill_rate.get_or_create(&label).set(policy.rate());
        metrics.in_flight.get_or_create(&label).set(whole(route.meter.totals().in_flight));
        metrics.in_flight_cap.get_or_create(&label).set(policy.in_flight.map_or(-1, whole));
        let leads = route.lead.is_some() && decision.is_some();
        let region = self.service.config.region.clone();
        let leader = Leads { route: route.name.clone(), region };
        metrics.leader.get_or_create(&leader).set(i64::from(leads));
        let is_live = decision.is_some_and(|decision| decision.is_live);
        metrics.live.get_or_create(&label).set(i64::from(is_live));
    }

    /// What holds for all, and why. The log is told when that changes, not of every policy.
    fn show_decision(&self, route: &mut Route, decision: &Decision) {
        let (metrics, label) = (self.metrics(), RouteName { route: route.name.clone() });
        let mode = Mode::ALL.iter().zip(0..).find(|(mode, _)| **mode == decision.mode);
        metrics.mode.get_or_create(&label).set(mode.map_or(0, |(_, number)| number));
        let leads = route.lead.is_some();
        let last = route.logged.as_ref();
        let is_same = last.is_some_and(|(led, last)| {
            (*led, last.mode, last.is_live, last.by)
                == (leads, decision.mode, decision.is_live, decision.by)
        });
        let hash = if is_same { String::new() } else { self.hash(&route.settings) };
        let (name, mode, by) = (&route.name, decision.mode.text(), name(decision.by));
        let (live, rate) = (decision.is_live, decision.policy.refill_micros);
        let capacity = decision.policy.capacity;
        if is_same {
            tracing::debug!(route = name, mode, by, live, rate_micros = rate, capacity);
        } else {
            tracing::info!(
                route = name,
                mode,
                by,
                live,
                leads,
                rate_micros = rate,
                capacity,
                hash,
                "an adaptive limit goes by another rule"
            );
            let profile = route.settings.profile.text();
            let info = Info { route: route.name.clone(), profile, hash };
            metrics.info.get_or_create(&info).set(1);
            if let Some(before) = route.info.replace(info.clone()).filter(|before| *before != info)
            {
                metrics.info.remove(&before);
            }
        }
        route.logged = Some((leads, decision.clone()));
    }

    /// What the leader knows besides.
    fn show_step(&self, route: &Route, step: &Step) {
        let metrics = self.metrics();
        let shadow = |of: &'static str, policy: Policy| {
            let label = Shadow { route: route.name.clone(), of };
            let whole = i64::try_from(policy.capacity).unwrap_or(i64::MAX);
            metrics.shadow_bucket_size.get_or_create(&label).set(whole);
            metrics.shadow_refill_rate.get_or_create(&label).set(policy.rate());
        };
        if let Some(policy) = step.decided {
            shadow("loop", policy);
        }
        if let Some(policy) = step.network {
            shadow("network", policy);
        }
        let by = name(step.decision.by);
        metrics.decisions.get_or_create(&Decisions { route: route.name.clone(), by }).inc();
        if let Some(Standings { pairs, difference, verdict }) = step.trial {
            let label = RouteName { route: route.name.clone() };
            let pairs = i64::try_from(pairs).unwrap_or(i64::MAX);
            metrics.trial_pairs.get_or_create(&label).set(pairs);
            let gauge = metrics.trial_verdict.get_or_create(&label);
            if gauge.set(number(verdict)) != number(verdict) {
                tracing::info!(
                    route = route.name,
                    ?verdict,
                    pairs,
                    ?difference,
                    "a trial has a verdict"
                );
            }
        }
    }
}

/// Looks whether regions share the bucket of a limit: then one of them would be held to what the
/// backend of another can take. Now and then, since the server may be another one by now.
async fn look(route: &mut Route) {
    if route.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
        return;
    }
    route.looked = Some(Instant::now());
    let is_shared = match route.shared.is_shared().await {
        Ok(is_shared) => is_shared,
        Err(fault) => {
            // Most likely it may not ask for settings, which it need not.
            tracing::debug!(route = route.name, ?fault, "whether regions share it is not known");
            return;
        }
    };
    if is_shared == route.is_shared {
        return;
    }
    route.is_shared = is_shared;
    if is_shared {
        tracing::warn!(
            route = route.name,
            "regions share the bucket of an adaptive limit, which follows the backend of one: \
             CONFIG SET claw.sync-keys '[^@]*'"
        );
    } else {
        tracing::info!(route = route.name, "regions share the bucket of an adaptive limit no more");
    }
}

/// A verdict, as the metric has it.
fn number(verdict: Verdict) -> i64 {
    match verdict {
        Verdict::Undecided => 0,
        Verdict::Better => 1,
        Verdict::NoDifference => 2,
        Verdict::Worse => -1,
    }
}
