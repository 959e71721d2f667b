//! Limits that follow how their backends do: events, what the loop decides, and what holds when it
//! is switched, dies, hears nothing, or does worse than the operator's limit.

#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use claw_testkit::{Cluster, Server, ask, eventually, free_port, run};
use common::api::{get, post, send};
use common::http::Client;
use common::{Edge, PATIENCE, TICK};
use serde_json::{Value, json};

const TOKEN: &str = "a-token-for-tests";
const BEARER: (&str, &str) = ("authorization", "Bearer a-token-for-tests");
const JSON: (&str, &str) = ("content-type", "application/json");
const LINES: (&str, &str) = ("content-type", "application/x-ndjson");
const BUCKET: &str = "@route:claw:shop";
const KILL: i32 = 9;

/// An instance with limits.
fn start(redis: &Server, limits: &str) -> Edge {
    start_with(redis, limits, &[])
}

fn start_with(redis: &Server, limits: &str, settings: &[(&str, &str)]) -> Edge {
    let builder = Edge::builder(&redis.url());
    let file = redis.dir().join(format!("{}.yaml", limits.len()));
    fs::write(&file, limits).unwrap();
    let builder = builder.env("CONFIG", file).env("ADMIN_TOKEN", TOKEN);
    let builder = builder.env("DECISION_TIMEOUT", "5s").env("RUST_LOG", "info");
    settings.iter().fold(builder, |builder, (name, value)| builder.env(name, value)).start()
}

/// One adaptive limit: 40 tokens, 100 in each second, and what else is said of it.
fn shop(adaptive: &str) -> String {
    format!("limits: [{{name: shop, capacity: 40, refill: 100, adaptive: {{{adaptive}}}}}]")
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// An event that there has not been before.
fn event(extra: &str) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let (number, now) = (NUMBER.fetch_add(1, SeqCst), now_ms());
    format!(r#"{{"userId":"u","itemId":"i{number}","score":4.5,"timestamp":{now}{extra}}}"#)
}

fn events(edge: &Edge, result: &str) -> u64 {
    edge.metric("rating_events_total", &format!(r#"result="{result}""#))
}

/// A level of the route, in millionths; metrics may have fractions.
fn level(edge: &Edge, name: &str) -> Option<f64> {
    let text = String::from_utf8(edge.ops("/metrics").body).unwrap();
    let line =
        text.lines().find(|line| line.starts_with(name) && line.contains(r#"route="shop""#))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

/// The policy in force: capacity, refill, pinned, milliseconds that it is pinned for.
fn policy(redis: &Server) -> (u64, f64, bool, i64) {
    let policy: std::collections::HashMap<String, String> =
        ask(&mut redis.connection(), &format!("CL.POLICY_RO {BUCKET}"));
    let number = |name: &str| policy[name].parse::<f64>().unwrap();
    (
        number("capacity") as u64,
        number("refill") * 1000.0 / number("interval"),
        policy["pinned"] == "1",
        policy["pin_remaining_ms"].parse().unwrap(),
    )
}

fn is_pinned(redis: &Server) -> bool {
    policy(redis).2
}

/// Waits until the pin is there or not.
fn wait_for_pin(redis: &Server, is_there: bool) {
    eventually(PATIENCE, TICK, "the pin to come or go", || is_pinned(redis) == is_there);
}

fn switch(edge: &Edge, mode: &str) {
    let body = json!({"route": "shop", "mode": mode}).to_string();
    let response = send(edge.ops, "POST", "/admin/adaptive", &[BEARER, JSON], &body);
    assert_eq!(response.status, 200, "{response:?}");
}

fn state(edge: &Edge) -> Value {
    let response = send(edge.ops, "GET", "/admin/adaptive", &[BEARER], "");
    assert_eq!(response.status, 200, "{response:?}");
    response.json()["routes"][0].clone()
}

/// Requests, and events that tell how long they took. It goes on until it is dropped.
struct Load {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Ten requests in each tenth of a second, and an event for each that passes.
    fn begin(edge: &Edge, latency_ms: impl Fn() -> u64 + Send + 'static) -> Self {
        Self::begin_with(edge, move || format!(r#","latencyMs":{}"#, latency_ms()))
    }

    fn begin_with(edge: &Edge, extra: impl Fn() -> String + Send + 'static) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, port) = (Arc::clone(&is_over), edge.http);
        let thread = thread::spawn(move || {
            while !over.load(SeqCst) {
                // An instance that is killed answers nobody.
                let Ok(mut client) = Client::try_connect(port) else { return sleep(TICK) };
                let answers: Vec<_> = (0..10).map_while(|_| client.try_rate("u").ok()).collect();
                let passed = answers.iter().filter(|answer| answer.status == 200);
                let lines: Vec<String> = passed.map(|_| event(&extra())).collect();
                let body = lines.join("\n");
                let told = client.request_of("POST", "/api/v1/event", LINES.1, &body);
                assert!(told.is_err() || told.is_ok_and(|told| [200, 503].contains(&told.status)));
                sleep(Duration::from_millis(100));
            }
        });
        Self { is_over, threads: vec![thread] }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.is_over.store(true, SeqCst);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking());
        }
    }
}

#[test]
fn events_are_understood_or_refused() {
    let redis = Server::start();
    let edge = start(&redis, &shop("mode: off"));
    let now = now_ms();
    #[rustfmt::skip]
    let table = [
        (format!(r#"{{"userId":"a","itemId":"i","score":5,"timestamp":{now}}}"#), 200, ""),
        (format!(r#"{{"user_id":7,"item_id":8,"rating":0.5,"timestamp":{now},"latencyMs":12.75,"status":200,"route":"shop","more":1}}"#), 200, ""),
        (r#"{"userId":"a","itemId":"i","score":5,"timestamp":"1970-01-01T00:00:00Z"}"#.into(), 400, "timestamp is more than a minute"),
        (format!(r#"{{"userId":"a","itemId":"i","score":5,"timestamp":{}}}"#, now - 61_000), 400, "timestamp is more than a minute"),
        (format!(r#"{{"userId":"a","itemId":"i","score":5,"timestamp":{}}}"#, now + 90_000), 400, "timestamp is more than a minute"),
        (r#"{"userId":"a","itemId":"i","score":5,"timestamp":"yesterday"}"#.into(), 400, "timestamp has to be milliseconds"),
        (r#"{"userId":"a","itemId":"i","score":5}"#.into(), 400, "missing field `timestamp`"),
        (format!(r#"{{"userId":"a","itemId":"i","score":5.1,"timestamp":{now}}}"#), 400, "score has to be a number from 0 to 5"),
        (format!(r#"{{"userId":"a","itemId":"i","score":"x","timestamp":{now}}}"#), 400, "score has to be a number from 0 to 5"),
        (format!(r#"{{"userId":"","itemId":"i","score":5,"timestamp":{now}}}"#), 400, "userId has to have 1 to 256 bytes"),
        (format!(r#"{{"userId":"a","itemId":"\u0000","score":5,"timestamp":{now}}}"#), 400, "itemId has control characters"),
        (format!(r#"{{"userId":"a","itemId":"i","score":5,"timestamp":{now},"latencyMs":-1}}"#), 400, "latencyMs has to be a number"),
        (format!(r#"{{"userId":"a","itemId":"i","score":5,"timestamp":{now},"latencyMs":3600001}}"#), 400, "latencyMs has to be a number"),
        (format!(r#"{{"userId":"a","itemId":"i","score":5,"timestamp":{now},"status":70000}}"#), 400, "the body: "),
        (format!(r#"{{"userId":"a","itemId":"i","score":5,"timestamp":{now},"route":"other"}}"#), 400, "no adaptive limit of the name"),
        ("[]".into(), 400, "the body: "),
        ("{".into(), 400, "the body: "),
    ];
    for (body, status, detail) in table {
        let response = post(edge.http, "/api/v1/event", &body);
        assert_eq!(response.status, status, "{body}: {response:?}");
        if status == 200 {
            assert_eq!(response.json(), json!({"bucketSize": 40, "refillRate": 100}), "{body}");
        } else {
            assert!(response.problem(status).contains(detail), "{body}: {response:?}");
        }
    }
    assert_eq!(events(&edge, "refused"), 15);
    let wrong = send(edge.http, "POST", "/api/v1/event", &[("content-type", "text/plain")], "{}");
    assert!(wrong.problem(415).contains("JSON"));
    assert_eq!(get(edge.http, "/api/v1/event").status, 405);
}

#[test]
fn an_event_is_counted_once_by_all_instances() {
    let redis = Server::start();
    let edges = [(); 2].map(|()| start(&redis, &shop("mode: off")));
    let body = event(r#","latencyMs":5"#);
    for _ in 0..3 {
        for edge in &edges {
            assert_eq!(post(edge.http, "/api/v1/event", &body).status, 200);
        }
    }
    let sum = |result| edges.iter().map(|edge| events(edge, result)).sum::<u64>();
    assert_eq!((sum("accepted"), sum("duplicate")), (1, 5));

    let new: Vec<String> = (0..1_000).map(|_| event(r#","latencyMs":5"#)).collect();
    let batch = |edge: &Edge, lines: &[String]| {
        send(edge.http, "POST", "/api/v1/event", &[LINES], &lines.join("\n"))
    };
    let told = |accepted, duplicates, refused| {
        let errors: Vec<Value> = (0..refused)
            .map(|line| json!({"line": line + 1, "detail": "userId has to have 1 to 256 bytes"}))
            .collect();
        json!({"accepted": accepted, "duplicates": duplicates, "refused": refused, "errors": errors,
               "bucketSize": 40, "refillRate": 100})
    };
    assert_eq!(batch(&edges[0], &new[..600]).json(), told(600, 0, 0));
    assert_eq!(batch(&edges[1], &new).json(), told(400, 600, 0));
    let wrong = event("").replace(r#""userId":"u""#, r#""userId":"""#);
    let some = [wrong.clone(), wrong, event("")];
    assert_eq!(batch(&edges[0], &some).json(), told(1, 0, 2));
    assert_eq!(batch(&edges[0], &[]).json()["accepted"], 0);
    let many: Vec<String> = (0..1_001).map(|_| "{}".to_owned()).collect();
    assert!(batch(&edges[0], &many).problem(400).contains("more than 1000 events"));
    let large = vec![" ".repeat(2 << 20)];
    assert!(batch(&edges[0], &large).problem(413).contains("more than 1048576 bytes"));
    assert_eq!((sum("accepted"), sum("without_latency")), (1_001, 1));
    let keys: Vec<String> = ask(&mut redis.connection(), "KEYS @route:claw:event:*");
    let ttl: i64 = ask(&mut redis.connection(), &format!("PTTL {}", keys[0]));
    assert!((1..=120_000).contains(&ttl), "{ttl}");
}

#[test]
fn events_need_the_token_of_the_api() {
    let redis = Server::start();
    let edge = start_with(&redis, &shop("mode: off"), &[("API_TOKEN", "secret-of-the-api")]);
    assert_eq!(post(edge.http, "/api/v1/event", &event("")).status, 401);
    let bearer = ("authorization", "Bearer secret-of-the-api");
    assert_eq!(send(edge.http, "POST", "/api/v1/event", &[JSON, bearer], &event("")).status, 200);
    let response = send(edge.ops, "POST", "/admin/adaptive", &[JSON, bearer], "{}");
    assert_eq!(response.status, 401, "the token of the API is none of the page's");
}

#[test]
fn a_shadow_is_shown_and_changes_nothing() {
    let redis = Server::start();
    let edge = start(&redis, &shop("mode: shadow"));
    let _load = Load::begin(&edge, || 20);
    let shown = |name: &str| level(&edge, name);
    eventually(PATIENCE, TICK, "the loop to be shown", || {
        shown("rl_shadow_refill_rate").is_some_and(|rate| rate != 100.0)
    });
    eventually(PATIENCE, TICK, "the network to decide", || {
        edge.metric("rl_decisions_total", r#"by="learned""#) > 20
    });
    assert_eq!((shown("rl_policy_mode"), shown("rl_policy_live")), (Some(1.0), Some(0.0)));
    assert_eq!(shown("rl_policy_refill_rate"), Some(100.0));
    assert_eq!((policy(&redis).2, edge.logged("not put in force")), (false, 0));
    let state = state(&edge);
    assert_eq!((state["mode"].as_str(), state["is_live"].as_bool()), (Some("shadow"), Some(false)));
    assert_eq!(
        (state["refill_rate"].as_str(), state["decided_by"].as_str()),
        (Some("100"), Some("learned"))
    );
}

/// A backend that gets slow is asked less, one that is quick is asked more; both within the bounds
/// and for a short time.
#[test]
fn the_policy_follows_the_backend_within_the_bounds() {
    let redis = Server::start();
    let edge = start(&redis, &shop("mode: on, min: 20, max: 130, max_capacity: 60"));
    let latency = Arc::new(AtomicU64::new(900));
    let _load = Load::begin(&edge, {
        let latency = Arc::clone(&latency);
        move || latency.load(SeqCst)
    });
    let mut seen = Vec::new();
    let mut wait = |what: &str, is_reached: &dyn Fn(f64) -> bool| {
        eventually(PATIENCE, TICK, what, || {
            let policy = policy(&redis);
            // Before the first one there is no bucket at all.
            if policy.2 {
                seen.push(policy);
            }
            policy.2 && is_reached(policy.1)
        });
    };
    wait("less to be let through", &|rate| rate < 40.0);
    latency.store(10, SeqCst);
    wait("more to be let through", &|rate| rate > 90.0);
    for (capacity, rate, _, remaining) in seen {
        assert!((2..=60).contains(&capacity), "{capacity}");
        assert!((20.0..=130.0).contains(&rate), "{rate}");
        assert!((0..=2_500).contains(&remaining), "{remaining}");
    }
    let response = post(edge.http, "/api/v1/event", &event(""));
    assert!(response.json()["refillRate"].as_f64().unwrap() > 80.0, "{response:?}");
}

#[test]
fn an_operator_switches_it_off_and_on() {
    let redis = Server::start();
    let edges = [(); 2].map(|()| start(&redis, &shop("mode: on")));
    let _load = Load::begin(&edges[0], || 20);
    wait_for_pin(&redis, true);
    // By an instance that may not be the one that decides.
    for edge in &edges {
        switch(edge, "off");
        wait_for_pin(&redis, false);
        eventually(PATIENCE, TICK, "both to say so", || {
            edges.iter().all(|edge| level(edge, "rl_policy_mode") == Some(0.0))
        });
        let state = state(edge);
        assert_eq!(
            (state["mode"].as_str(), state["is_switched"].as_bool()),
            (Some("off"), Some(true))
        );
        switch(edge, "settings");
        wait_for_pin(&redis, true);
    }
    for (body, status) in [
        (json!({"route": "shop", "mode": "fast"}), 400),
        (json!({"route": "other", "mode": "off"}), 404),
        (json!({"route": "shop"}), 400),
    ] {
        let body = body.to_string();
        let response = send(edges[0].ops, "POST", "/admin/adaptive", &[BEARER, JSON], &body);
        assert_eq!(response.status, status, "{body}: {response:?}");
    }
    let page = send(edges[0].ops, "GET", "/admin", &[BEARER], "");
    assert!(page.body.contains("Adaptive limits") && page.body.contains(">the loop<"), "{page:?}");
    assert!(page.body.contains("adaptive limit shop: off"), "the change is listed");
    // A word of an operator holds when all have been restarted.
    switch(&edges[0], "off");
    drop(edges);
    let edge = start(&redis, &shop("mode: on"));
    eventually(PATIENCE, TICK, "it to be off", || level(&edge, "rl_policy_mode") == Some(0.0));
    assert!(!is_pinned(&redis));
}

#[test]
fn the_environment_switches_an_instance_off() {
    let redis = Server::start();
    let edge = start_with(&redis, &shop("mode: on"), &[("ADAPTIVE", "false")]);
    assert_eq!(edge.rate("u").status, 200);
    assert_eq!(post(edge.http, "/api/v1/event", &event("")).json()["refillRate"], 100);
    assert_eq!(level(&edge, "rl_policy_mode"), None);
    let keys: Vec<String> = ask(&mut redis.connection(), "KEYS *loop");
    assert!(keys.is_empty(), "{keys:?}");
}

/// The pin lasts longer than it takes until another instance decides.
#[test]
fn another_instance_goes_on_when_the_leader_is_killed() {
    let redis = Server::start();
    let edges = [(); 3].map(|()| start(&redis, &shop("mode: on")));
    let _load: Vec<Load> = edges.iter().map(|edge| Load::begin(edge, || 20)).collect();
    wait_for_pin(&redis, true);
    let leader = |edges: &[Edge]| {
        let leads = |edge: &Edge| level(edge, "rl_policy_leader") == Some(1.0);
        edges.iter().position(leads)
    };
    let mut first = None;
    eventually(PATIENCE, TICK, "a leader", || {
        first = leader(&edges);
        first.is_some()
    });
    let first = first.unwrap();
    edges[first].signal(KILL);
    let killed = Instant::now();
    let others: Vec<Edge> = edges
        .into_iter()
        .enumerate()
        .filter(|(nth, _)| *nth != first)
        .map(|(_, edge)| edge)
        .collect();
    let mut least = i64::MAX;
    eventually(PATIENCE, TICK, "another leader", || {
        least = least.min(policy(&redis).3);
        leader(&others).is_some()
    });
    eprintln!("another one decided after {:?} at the most", killed.elapsed());
    assert!(least > 0, "the pin has not ended meanwhile");
    assert!(is_pinned(&redis));
    // The last one, too.
    for edge in &others {
        edge.signal(KILL);
    }
    assert!(policy(&redis).3 <= 2_500);
    wait_for_pin(&redis, false);
    let limit: Vec<i64> =
        ask(&mut redis.connection(), &format!("CL.PEEK {BUCKET} 1 CAPACITY 40 REFILL 100"));
    assert_eq!(limit[1], 40, "the operator's limit");
}

#[test]
fn the_loop_outlives_redis() {
    let redis = Server::start();
    let edge = start(&redis, &shop("mode: on"));
    let _load = Load::begin(&edge, || 20);
    wait_for_pin(&redis, true);
    let redis = redis.restart();
    wait_for_pin(&redis, true);
    redis::cmd("FLUSHALL").exec(&mut redis.connection()).unwrap();
    wait_for_pin(&redis, true);
    assert!(edge.logged("has to wait") <= 5, "{}", edge.log());
}

#[test]
fn a_full_memory_leads_to_the_operators_limit() {
    let redis = Server::start();
    let edge = start(&redis, &shop("mode: on"));
    let _load = Load::begin(&edge, || 20);
    wait_for_pin(&redis, true);
    run(&mut redis.connection(), &["CONFIG SET maxmemory-policy noeviction maxmemory 1"]);
    wait_for_pin(&redis, false);
    eventually(PATIENCE, TICK, "the instance to know", || {
        level(&edge, "rl_policy_refill_rate") == Some(100.0)
    });
    run(&mut redis.connection(), &["CONFIG SET maxmemory 0"]);
    wait_for_pin(&redis, true);
}

/// Requests are let through and nothing is heard of them: the operator's limit holds.
#[test]
fn silence_and_events_without_latency_lead_to_the_operators_limit() {
    let redis = Server::start();
    let edge = start(&redis, &shop("mode: on"));
    let load = Load::begin(&edge, || 800);
    eventually(PATIENCE, TICK, "less to be let through", || policy(&redis).1 < 40.0);
    drop(load);
    let _load = Load::begin_with(&edge, String::new);
    eventually(PATIENCE, TICK, "silence to be noticed", || {
        edge.metric("rl_decisions_total", r#"by="silence""#) > 0
    });
    let (capacity, rate, ..) = policy(&redis);
    assert_eq!((capacity, rate), (40, 100.0));
    assert!(events(&edge, "without_latency") > 0);
    assert!(edge.logged(r#"by="silence""#) > 0, "{}", edge.log());
}

/// A backend that fails at once is quick, and no sign that it could take more.
#[test]
fn a_backend_that_fails_is_not_asked_more() {
    let redis = Server::start();
    let edge = start(&redis, &shop("mode: on, max: 1000"));
    let _load = Load::begin_with(&edge, || r#","latencyMs": 1, "status": 503"#.to_owned());
    eventually(PATIENCE, TICK, "nothing to be heard", || {
        assert!(policy(&redis).1 <= 100.0 || !is_pinned(&redis), "{:?}", policy(&redis));
        edge.metric("rl_decisions_total", r#"by="silence""#) > 5
    });
    assert_eq!(edge.metric("rl_completions_total", r#"result="in_sla""#), 0);
    assert!(edge.metric("rl_completions_total", r#"result="failed""#) > 0);
}

/// Where nobody asks and events are all there is, those that say nothing of the backend end the loop, too.
#[test]
fn events_alone_without_latency_or_of_failures_lead_to_the_operators_limit() {
    for extra in ["", r#","status":503"#, r#","latencyMs":1,"status":503"#] {
        let redis = Server::start();
        let edge = start(&redis, &shop("mode: on"));
        let tell = |extra: &str| {
            let lines: Vec<String> = (0..10).map(|_| event(extra)).collect();
            let told = send(edge.http, "POST", "/api/v1/event", &[LINES], &lines.join("\n"));
            assert_eq!(told.json()["accepted"].as_u64().unwrap(), 10, "{told:?}");
        };
        eventually(PATIENCE, TICK, "less to be let through", || {
            tell(r#","latencyMs":800"#);
            policy(&redis).1 < 60.0
        });
        eventually(PATIENCE, TICK, "silence to be noticed", || {
            tell(extra);
            edge.metric("rl_decisions_total", r#"by="silence""#) > 0
        });
        let (capacity, rate, ..) = policy(&redis);
        assert_eq!((capacity, rate), (40, 100.0), "{extra}");
    }
}

/// A trial finds out what is better: the loop, whose backend is quick then, or the operator's limit.
#[test]
fn a_trial_has_a_verdict() {
    let redis = [(); 2].map(|()| Server::start());
    let edges = redis.each_ref().map(|redis| start(redis, &shop("mode: canary, block: 1s")));
    let _loads = [(&redis[0], &edges[0], 10, 900), (&redis[1], &edges[1], 900, 10)].map(
        |(redis, edge, of_loop, of_operator)| {
            let conn = std::sync::Mutex::new(redis.connection());
            Load::begin(edge, move || {
                let policy: std::collections::HashMap<String, String> =
                    ask(&mut *conn.lock().unwrap(), &format!("CL.POLICY {BUCKET}"));
                if policy["pinned"] == "1" { of_loop } else { of_operator }
            })
        },
    );
    let verdict = |edge: &Edge| level(edge, "rl_trial_verdict");
    eventually(Duration::from_secs(60), TICK * 10, "both verdicts", || {
        verdict(&edges[0]) == Some(1.0) && verdict(&edges[1]) == Some(-1.0)
    });
    for (edge, words) in
        edges.iter().zip(["the loop is better", "the loop is worse, and out of force"])
    {
        assert!(state(edge)["trial"].as_str().unwrap().starts_with(words), "{:?}", state(edge));
        assert_eq!(edge.logged("a trial has a verdict"), 1, "{}", edge.log());
    }
    // What is worse is not tried on; a trial that is switched on again begins anew.
    eventually(PATIENCE, TICK, "the operator's limit", || !is_pinned(&redis[1]));
    switch(&edges[1], "off");
    eventually(PATIENCE, TICK, "it to be off", || level(&edges[1], "rl_policy_mode") == Some(0.0));
    switch(&edges[1], "canary");
    eventually(PATIENCE, TICK, "a new trial", || verdict(&edges[1]) == Some(0.0));
}

/// Programs that ask the backend themselves tell when they are done, any instance.
#[test]
fn requests_are_in_flight_until_they_are_told_to_be_done() {
    let redis = Server::start();
    let limits = shop("mode: off, profile: on_path, in_flight: 20");
    let edges = [(); 2].map(|()| start(&redis, &limits));
    let take = |edge: &Edge| post(edge.http, "/v1/take", r#"{"limit": "shop"}"#);
    let tickets: Vec<String> = edges
        .iter()
        .flat_map(|edge| [(); 2].map(|()| take(edge)))
        .map(|response| response.text("ticket"))
        .collect();
    let done = |edge: &Edge, ticket: &str, more: &str| {
        let body = format!(r#"{{"ticket": "{ticket}", "latencyMs": 150{more}}}"#);
        post(edge.http, "/v1/done", &body)
    };
    let taken = |edge: &Edge| level(edge, "edge_inflight");
    assert_eq!(done(&edges[0], &tickets[0], "").status, 204);
    assert!(done(&edges[0], &tickets[0], "").problem(404).contains("not in flight"));
    // Those of the other instance, which hears of it.
    for ticket in &tickets[2..] {
        assert_eq!(done(&edges[0], ticket, r#", "status": 502"#).status, 202);
    }
    eventually(PATIENCE, TICK, "three places to be free", || {
        taken(&edges[0]) == Some(1.0) && taken(&edges[1]) == Some(0.0)
    });
    for (body, detail) in [
        (r#"{"ticket": "x", "latencyMs": 1}"#, "ticket: this is none"),
        (r#"{"ticket": "x"}"#, "missing field `latencyMs`"),
        (r#"{"ticket": "x", "latencyMs": "soon"}"#, "latencyMs has to be a number"),
    ] {
        assert!(post(edges[0].http, "/v1/done", body).problem(400).contains(detail), "{body}");
    }
    for (body, detail) in [
        (r#"{"limit": "shop", "tokens": 2}"#, "one token for each"),
        (r#"{"limit": "shop", "key": "a"}"#, "one bucket, and so no key"),
    ] {
        assert!(post(edges[0].http, "/v1/take", body).problem(400).contains(detail), "{body}");
    }
    let mut keys: Vec<String> = ask(&mut redis.connection(), &format!("KEYS {BUCKET}*"));
    keys.sort();
    let shared = format!("{BUCKET}:loop");
    assert!(keys == [BUCKET, &shared] || keys == [shared.as_str()], "one bucket: {keys:?}");
    // One that has ended is no longer asked for its part.
    let [first, second] = edges;
    drop(second);
    eventually(PATIENCE, TICK, "all places", || level(&first, "edge_inflight_cap") == Some(20.0));
    let more: Vec<_> = (0..20).map(|_| take(&first)).collect();
    assert_eq!(more.iter().filter(|response| response.status == 200).count(), 19);
    assert!(more[19].problem(503).contains("in flight"), "{:?}", more[19]);
    assert_eq!(more[19].field("retry-after"), Some("1"));
}

#[test]
fn instances_without_redis_have_an_equal_part_each() {
    let mut redis = Server::start();
    let limits = shop("mode: off, profile: on_path, in_flight: 20");
    let edges = [(); 2].map(|()| start(&redis, &limits));
    let caps = || edges.each_ref().map(|edge| level(edge, "edge_inflight_cap"));
    eventually(PATIENCE, TICK, "both to have a part", || {
        caps().into_iter().sum::<Option<f64>>() == Some(20.0)
    });
    for _ in 0..8 {
        assert_eq!(post(edges[0].http, "/v1/take", r#"{"limit": "shop"}"#).status, 200);
    }
    redis.crash();
    eventually(PATIENCE, TICK, "half of it each", || caps() == [Some(10.0); 2]);
}

/// A limit that is read again goes on where it was, under what is said of it now.
#[test]
fn bounds_that_change_hold_at_once() {
    let redis = Server::start();
    let edge = start(&redis, &shop("mode: on, max: 300"));
    let _load = Load::begin(&edge, || 10);
    eventually(PATIENCE, TICK, "more to be let through", || policy(&redis).1 > 60.0);
    let file = redis.dir().join(format!("{}.yaml", shop("mode: on, max: 300").len()));
    let text =
        "limits: [{name: shop, capacity: 4, refill: 5, adaptive: {mode: on, min: 1, max: 6}}]";
    fs::write(file, text).unwrap();
    eventually(PATIENCE, TICK, "the new bound to hold", || {
        let (capacity, rate, is_pinned, _) = policy(&redis);
        is_pinned && rate <= 6.0 && capacity <= 40
    });
    let admitted = edge.rate("u").status;
    assert!([200, 429].contains(&admitted));
}

/// Nobody reads what is told to instances that are not there; those that are have other limits, maybe.
#[test]
fn tickets_reach_instances_with_other_limits_and_nobody_else() {
    let redis = Server::start();
    let adaptive = "mode: off, profile: on_path, in_flight: 4";
    let route = |name: usize| {
        format!(
            "{{name: r{name}, capacity: 2, refill: 9, match: {{paths: [/no]}}, adaptive: {{mode: off}}}}, "
        )
    };
    let others: String = (0..12).map(route).collect();
    let shop = shop(adaptive);
    let many = shop.replacen('[', &format!("[{others}"), 1);
    let (one, other) = (start(&redis, &many), start(&redis, &shop));
    let done = |ticket: &str| {
        post(one.http, "/v1/done", &format!(r#"{{"ticket": "{ticket}", "latencyMs": 1}}"#)).status
    };
    let is_known = || -> bool {
        let fields: Vec<String> = ask(&mut redis.connection(), &format!("HKEYS {BUCKET}:loop"));
        fields.iter().filter(|field| field.starts_with("report:")).count() == 2
    };
    eventually(PATIENCE, TICK, "both to report", is_known);
    let ticket = post(other.http, "/v1/take", r#"{"limit": "shop"}"#).text("ticket");
    eventually(PATIENCE, TICK, "it to be in flight", || {
        level(&other, "edge_inflight") == Some(1.0)
    });
    for number in 0..100 {
        assert_eq!(done(&format!("{number:016x}-1")), 202);
    }
    assert_eq!(done(&ticket), 202);
    eventually(PATIENCE, TICK, "it to be done", || level(&other, "edge_inflight") == Some(0.0));
    let keys: Vec<String> = ask(&mut redis.connection(), "KEYS @route:*:loop");
    assert_eq!(keys.len(), 13);
    for key in keys {
        let fields: Vec<String> = ask(&mut redis.connection(), &format!("HKEYS {key}"));
        assert!(fields.len() <= 8, "{key}: {fields:?}");
    }
}

/// What others leave is part of what there is, also while somebody has pinned less.
#[test]
fn a_bucket_that_is_pinned_by_hand_lets_others_take_of_it() {
    let redis = Server::start();
    let limits = "limits: [{name: shop, capacity: 200, refill: 4, interval: 1h,
       adaptive: {mode: off, min: 0.001, nominal: 0.001, max: 1, premium: {header: x-tier}}}]";
    let edge = start_with(&redis, limits, &[]);
    assert_eq!(edge.rate("ann").status, 200);
    let pin = format!("CL.POLICY {BUCKET} CAPACITY 10 REFILL 1 INTERVAL 3600000 FOR 600000");
    let _: redis::Value = ask(&mut redis.connection(), &pin);
    // The first cannot know.
    let granted = (0..20).filter(|_| edge.rate("ann").status == 200).count();
    assert_eq!(granted, 9, "one is left");
}

/// Whose bucket weighs enough may take what others leave. That is asked once a second, not for each request.
#[test]
fn the_weight_of_a_users_bucket_gives_him_all_tokens() {
    let redis = Server::start();
    let limits = "limits: [{name: each, capacity: 1000, refill: 1000, key: [user]},
      {name: shop, capacity: 1000, refill: 4, interval: 1h,
       adaptive: {mode: off, min: 0.001, nominal: 0.001, max: 1, premium: {weight: 3, keep: 50}}}]";
    let settings = [("USER_HEADER", "x-user")];
    let edge = start_with(&redis, limits, &settings);
    let call = |text: &str| ask::<redis::Value>(&mut redis.connection(), text);
    let weigh =
        |user: &str, weight: u64| call(&format!("CL.POLICY claw:each:{user} WEIGHT {weight}"));
    call(&format!("CL.TAKE {BUCKET} 500 CAPACITY 1000 REFILL 4 INTERVAL 3600000"));
    weigh("ann", 3);
    weigh("cat", 2);
    let status = |user: &str| edge.rate(user).status;
    assert_eq!(["ann", "bob", "cat"].map(status), [200, 429, 429]);

    let asked = || {
        let stats: String = ask(&mut redis.connection(), "INFO commandstats");
        let of = stats.split("cmdstat_cl.policy_ro:calls=").nth(1);
        of.map_or(0, |rest| rest.split(',').next().unwrap().parse::<u64>().unwrap())
    };
    let (before, mut client) = (asked(), edge.client());
    assert!((0..100).all(|_| client.rate("ann").status == 200));
    assert!((1..50).contains(&asked()) && asked() < before + 50, "{before} {}", asked());

    for (weight, told) in [(1, 429), (4, 200)] {
        weigh("ann", weight);
        eventually(PATIENCE, TICK, "the other weight", || client.rate("ann").status == told);
    }
    // Who cannot be weighed is one of the others.
    let user = "ACL SETUSER edge on >secret ~* +@all -CL.POLICY_RO";
    let _: String = ask(&mut redis.connection(), user);
    let url = redis.url().replace("redis://", "redis://edge:secret@");
    let edge = start_with(&redis, limits, &[("REDIS_URL", url.as_str()), settings[0]]);
    assert_eq!(edge.rate("ann").status, 429);
    assert_eq!(edge.logged("NOPERM"), 1, "{}", edge.log());
}

/// Each bucket is asked about where it lies. Without one, nobody is premium, and that is said.
#[test]
fn users_are_weighed_in_a_cluster_too() {
    let shop = "{name: shop, capacity: 1000, refill: 4, interval: 1h,
       adaptive: {mode: off, min: 0.001, nominal: 0.001, max: 1, premium: {weight: 3, keep: 50}}}";
    let limits =
        format!("limits: [{{name: each, capacity: 1000, refill: 1, key: [user]}}, {shop}]");
    let cluster = Cluster::start(3, 0);
    let nodes: Vec<String> =
        cluster.nodes().iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
    let url = format!("redis+cluster://{}", nodes.join(","));
    let node = &cluster.nodes()[0];
    let edge = start_with(node, &limits, &[("REDIS_URL", &url), ("USER_HEADER", "x-user")]);
    let mut redis = cluster.cluster_client().get_connection().unwrap();
    let mut call = |text: &str| -> redis::Value {
        let mut words = text.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        for word in words {
            command.arg(word);
        }
        command.query(&mut redis).unwrap()
    };
    call(&format!("CL.TAKE {BUCKET} 500 CAPACITY 1000 REFILL 4 INTERVAL 3600000"));
    for number in 0..6 {
        let user = format!("u{number}");
        call(&format!("CL.POLICY claw:each:{user} WEIGHT 3"));
        assert_eq!((edge.rate(&user).status, edge.rate("bob").status), (200, 429), "{user}");
    }
    assert_eq!(edge.logged("nobody is premium by weight"), 0);
    let lonely = start_with(node, &format!("limits: [{shop}]"), &[("REDIS_URL", &url)]);
    assert_eq!(lonely.logged("nobody is premium by weight"), 1);
}

/// A bucket that follows one backend is nothing to share.
#[test]
fn who_shares_the_bucket_with_other_regions_is_warned() {
    let nobody = format!("redis://127.0.0.1:{}", free_port());
    let redis =
        Server::builder().config("claw.replica-id", "eu").config("claw.peers", nobody).start();
    let user = "ACL SETUSER edge on >secret ~* +@all -CONFIG";
    let _: String = ask(&mut redis.connection(), user);
    let url = redis.url().replace("redis://", "redis://edge:secret@");
    let edge = start(&redis, &shop(""));
    let blind = start_with(&redis, &shop(""), &[("REDIS_URL", &url)]);
    let (page, shared) = ("Regions share the bucket of shop", "which follows the backend of one");
    let is_on_page =
        |edge: &Edge| send(edge.ops, "GET", "/admin", &[BEARER], "").body.contains(page);
    eventually(PATIENCE, TICK, "the warning", || edge.logged(shared) == 1);
    assert!(edge.log().contains("CONFIG SET claw.sync-keys '[^@]*'") && is_on_page(&edge));
    assert_eq!(state(&edge)["is_shared"], json!(true));
    assert_eq!((state(&blind)["is_shared"].clone(), is_on_page(&blind)), (Value::Null, false));

    redis::cmd("CONFIG")
        .arg("SET")
        .arg("claw.sync-keys")
        .arg("* !@*")
        .exec(&mut redis.connection())
        .unwrap();
    assert_eq!((state(&edge)["is_shared"].clone(), is_on_page(&edge)), (json!(false), false));
    eventually(PATIENCE, TICK, "its end", || edge.logged("adaptive limit no more") == 1);
    assert_eq!((edge.logged(shared), blind.logged(shared)), (1, 0), "{}", edge.log());
    let alone = Server::start();
    assert_eq!(state(&start(&alone, &shop("")))["is_shared"], json!(false));
}

/// An instance that may not adapt hears of new settings all the same, and is not told by others.
#[test]
fn without_the_loop_the_settings_hold() {
    let redis = Server::start();
    let limits = |in_flight| shop(&format!("profile: on_path, in_flight: {in_flight}"));
    let edge = start_with(&redis, &limits(1), &[("ADAPTIVE", "false")]);
    let take = || post(edge.http, "/v1/take", r#"{"limit": "shop"}"#);
    let ticket = take().text("ticket");
    assert_eq!(take().status, 503);
    fs::write(redis.dir().join(format!("{}.yaml", limits(1).len())), limits(3)).unwrap();
    eventually(PATIENCE, TICK, "another place", || take().status == 200);
    let done = |ticket: &str| {
        post(edge.http, "/v1/done", &format!(r#"{{"ticket": "{ticket}", "latencyMs": 1}}"#)).status
    };
    assert_eq!(done("00000000000000aa-1"), 404);
    assert_eq!(done(&ticket), 204);
    assert_eq!(take().status, 200);
}

/// What the server refuses to put in force is not said to be.
#[test]
fn what_cannot_be_pinned_is_not_in_force() {
    let redis = Server::start();
    let user = "ACL SETUSER edge on >secret ~* +@all -CL.POLICY";
    let _: String = ask(&mut redis.connection(), user);
    let url = redis.url().replace("redis://", "redis://edge:secret@");
    let limits = shop("mode: on, profile: on_path, in_flight: 5");
    let edge = start_with(&redis, &limits, &[("REDIS_URL", &url)]);
    let _load = Load::begin(&edge, || 20);
    eventually(PATIENCE, TICK, "the loop to decide", || {
        edge.metric("rl_decisions_total", r#"by="inner""#) > 5
    });
    assert_eq!(edge.logged("not put in force"), 1, "{}", edge.log());
    let state = state(&edge);
    assert_eq!((state["mode"].as_str(), state["is_live"].as_bool()), (Some("on"), Some(false)));
    assert_eq!(
        (state["bucket_size"].as_u64(), state["refill_rate"].as_str()),
        (Some(40), Some("100"))
    );
    let told = ["rl_policy_live", "rl_policy_bucket_size", "edge_inflight_cap"];
    assert_eq!(told.map(|name| level(&edge, name)), [Some(0.0), Some(40.0), Some(5.0)]);
}

/// Metrics tell what holds, when nobody decides any more and when the limit has gone.
#[test]
fn nothing_is_said_to_hold_that_does_not() {
    let redis = Server::start();
    let limits = shop("mode: on");
    // The page of the metrics asks Redis, too, and must not wait for all of the pause.
    let edge = start_with(&redis, &limits, &[("DECISION_TIMEOUT", "500ms")]);
    let is_live = || level(&edge, "rl_policy_live");
    eventually(PATIENCE, TICK, "the loop", || is_live() == Some(1.0));
    redis::cmd("CLIENT").arg("PAUSE").arg(8_000).exec(&mut redis.connection()).unwrap();
    eventually(PATIENCE, TICK, "it to be over", || is_live() == Some(0.0));
    eventually(PATIENCE, TICK, "the loop again", || is_live() == Some(1.0));
    let file = redis.dir().join(format!("{}.yaml", limits.len()));
    fs::write(&file, shop("mode: on, profile: on_path")).unwrap();
    let profiles = || edge.metric("rl_policy_info", r#"route="shop""#);
    let is_on_path = || edge.metric("rl_policy_info", r#"profile="on_path""#) == 1;
    eventually(PATIENCE, TICK, "the other profile alone", || is_on_path() && profiles() == 1);
    fs::write(&file, "limits: []").unwrap();
    let names = ["rl_policy_live", "rl_policy_info", "rl_shadow_bucket_size", "edge_inflight_cap"];
    eventually(PATIENCE, TICK, "nothing to be said", || {
        names.iter().all(|name| level(&edge, name).is_none())
    });
}

/// A trial that is switched on while there is one begins anew.
#[test]
fn a_trial_begins_anew_whenever_it_is_switched_on() {
    let redis = Server::start();
    let edge = start(&redis, &shop("mode: canary, block: 1s"));
    let _load = Load::begin(&edge, || 20);
    let pairs = || level(&edge, "rl_trial_pairs");
    eventually(PATIENCE, TICK, "pairs", || pairs().is_some_and(|pairs| pairs >= 2.0));
    switch(&edge, "canary");
    eventually(PATIENCE, TICK, "none", || pairs() == Some(0.0));
}

/// A trial is of one set of settings, and ends with the mode, also where both are said in the file.
#[test]
fn a_trial_begins_anew_when_the_file_says_something_else() {
    let redis = Server::start();
    let limits = shop("mode: canary, block: 1s");
    let edge = start(&redis, &limits);
    let file = redis.dir().join(format!("{}.yaml", limits.len()));
    let _load = Load::begin(&edge, || 20);
    let pairs = || level(&edge, "rl_trial_pairs");
    let has_some = || pairs().is_some_and(|pairs| pairs >= 2.0);
    eventually(PATIENCE, TICK, "pairs", has_some);
    fs::write(&file, shop("mode: canary, block: 1s, max: 300")).unwrap();
    eventually(PATIENCE, TICK, "none under the other settings", || pairs() == Some(0.0));
    assert!(state(&edge)["trial"].as_str().unwrap().starts_with("undecided after 0"));
    eventually(PATIENCE, TICK, "pairs again", has_some);
    fs::write(&file, shop("mode: shadow, block: 1s, max: 300")).unwrap();
    eventually(PATIENCE, TICK, "the shadow", || level(&edge, "rl_policy_mode") == Some(1.0));
    fs::write(&file, shop("mode: canary, block: 1s, max: 300")).unwrap();
    eventually(PATIENCE, TICK, "none in another trial", || pairs() == Some(0.0));
}

/// deploy/walkthrough.sh ends with an error where something is not as it says.
#[test]
fn the_walkthrough_goes_through() {
    let redis = Server::start();
    let edge = start(&redis, &shop("mode: shadow"));
    let walk = |route: &str| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/walkthrough.sh");
        let address = |port: u16| format!("127.0.0.1:{port}");
        let envs = [("HTTP_ADDR", address(edge.http)), ("OPS_ADDR", address(edge.ops))];
        let mut command = Command::new("bash");
        command.args([script, route]).envs(envs).env("ADMIN_TOKEN", TOKEN).output().unwrap()
    };
    let told = walk("shop");
    assert!(told.status.success(), "{told:?}");
    let told = String::from_utf8(told.stdout).unwrap();
    let said = ["\"shadow\"", "Your own limit is", "900 ms", "\"on\"", "\"off\"", "\"settings\""];
    assert!(said.iter().all(|words| told.contains(words)), "{told}");
    assert_eq!(state(&edge)["is_switched"], false);
    let told = walk("none");
    assert!(!told.status.success(), "{told:?}");
    let told = String::from_utf8(told.stderr).unwrap();
    assert!(told.contains("there is no adaptive limit 'none'"), "{told}");
}
