//! Notifications: to a webhook and to a stand-in for Telegram's API, with receivers that fail in
//! every way.

#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Parser;
use claw_edge::config::Config;
use claw_edge::notify::{Notify, Parked};
use claw_edge::redis::Redis;
use claw_edge::redis::health::Health;
use claw_testkit::{Random, Server, ask, eventually, int, run};
use common::api::{send, start};
use common::ratings::{load, micros, quantiles, rate, rate_steadily};
use common::receiver::{Receiver, fine, response};
use common::{Edge, PATIENCE, TICK};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

const SECRET: &str = "c2VjcmV0IG9mIGEgd2ViaG9vaw==";
const TOKEN: &str = "123456:AAsecret-token";

/// A service that tells a webhook.
struct Hooked {
    edge: Edge,
    settings: Vec<(&'static str, String)>,
    dir: TempDir,
}

impl Hooked {
    fn start(server: &Server, settings: Vec<(&'static str, String)>) -> Self {
        let dir = TempDir::new().unwrap();
        let file = |name: &str, text: &str| -> PathBuf {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let secret = file("secret", &format!("whsec_{SECRET}\n"));
        let token = file("token", &format!("{TOKEN}\n"));
        let mut all = vec![
            ("WEBHOOK_SECRET_FILE", secret.to_str().unwrap().to_owned()),
            ("TELEGRAM_TOKEN_FILE", token.to_str().unwrap().to_owned()),
            ("NOTIFY_PAUSE", "1ms".to_owned()),
            ("REGION", "eu".to_owned()),
            ("WORKERS", "1".to_owned()),
        ];
        all.extend(settings);
        let edge = begin(server, &all);
        Self { edge, settings: all, dir }
    }

    fn to_webhook(server: &Server, receiver: &Receiver) -> Self {
        let url = format!("http://127.0.0.1:{}/hook", receiver.port);
        Self::start(server, vec![("WEBHOOK_URL", url)])
    }

    /// Kills it, and starts another one.
    fn replace(self, server: &Server) -> Self {
        drop(self.edge);
        let edge = begin(server, &self.settings);
        Self { edge, settings: self.settings, dir: self.dir }
    }

    fn tried(&self, result: &str) -> u64 {
        self.edge.metric("operator_notifications_total", &format!(r#"result="{result}""#))
    }
}

/// Starts it and waits until it has noted from where on it tells.
fn begin(server: &Server, settings: &[(&str, String)]) -> Edge {
    let settings: Vec<(&str, &str)> =
        settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let edge = start(&server.url(), &settings);
    let mut conn = server.connection();
    eventually(PATIENCE, TICK, "it leads", || {
        edge.metric("operator_ratings_leader", "") == 1 && int(&mut conn, "HLEN {ratings}:told") > 0
    });
    edge
}

/// What is parked, as the page for operators sees it.
struct Page {
    runtime: Runtime,
    notify: Notify,
}

impl Page {
    fn of(server: &Server) -> Self {
        let url = server.url();
        let arguments = ["claw-edge", "--redis-url", &url, "--decision-timeout", "5s"];
        let config = Config::parse_from(arguments);
        let redis = Redis::new(&config, Arc::new(Health::background())).unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, notify: Notify::new(redis) }
    }

    fn parked(&self, count: usize) -> Vec<Parked> {
        self.runtime.block_on(self.notify.parked(count)).unwrap()
    }

    fn retry(&self, id: &str) -> bool {
        self.runtime.block_on(self.notify.retry(id)).unwrap()
    }

    fn discard(&self, id: &str) -> bool {
        self.runtime.block_on(self.notify.discard(id)).unwrap()
    }
}

#[test]
fn a_webhook_is_told_and_can_check_who_tells() {
    let server = Server::start();
    // What was rated before there was a webhook is not told.
    let before = start(&server.url(), &[]);
    assert_eq!(rate(&before, "old", "tea", "1").status, 200);
    let receiver = Receiver::start(fine);
    let hooked = Hooked::to_webhook(&server, &receiver);
    let stored = rate(&hooked.edge, "ann", r#"t\"ea"#, "4.5").json();
    assert_eq!(send(hooked.edge.http, "DELETE", "/users/ann", &[], "").status, 204);
    eventually(PATIENCE, TICK, "both are told", || receiver.got().len() == 2);
    let got = receiver.got();
    let body = got[0].json();
    assert_eq!(got[0].path, "/hook");
    assert_eq!(body["type"], "rating.stored");
    assert_eq!(
        body["data"],
        json!({"user_id": "ann", "item_id": "t\"ea", "rating": 4.5, "region": "eu",
            "stamp": stored["stamp"]})
    );
    assert_eq!(got[1].json()["type"], "user.forgotten");
    for got in &got {
        let field = |name: &str| got.fields[name].as_str();
        let signed = format!("{}.{}.{}", field("webhook-id"), field("webhook-timestamp"), got.body);
        let key = STANDARD.decode(SECRET).unwrap();
        let signature = Hmac::<Sha256>::new_from_slice(&key)
            .unwrap()
            .chain_update(signed.as_bytes())
            .finalize()
            .into_bytes();
        assert_eq!(field("webhook-signature"), format!("v1,{}", STANDARD.encode(signature)));
        assert_eq!(field("webhook-id"), format!("eu-{}", got.json()["data"]["stamp"]));
        assert_eq!(field("content-type"), "application/json");
    }
    eventually(PATIENCE, TICK, "it is noted", || {
        let mut conn = server.connection();
        let last: Vec<(String, Vec<String>)> =
            ask(&mut conn, "XREVRANGE {ratings}:outbox + - COUNT 1");
        ask::<String>(&mut conn, "HGET {ratings}:told webhook") == last[0].0
    });
    assert_eq!(hooked.tried("delivered"), 2);
    assert_eq!(hooked.edge.metric("operator_notification_lag_seconds_count", ""), 2);
    // The next one goes on there.
    let hooked = hooked.replace(&server);
    assert_eq!(rate(&hooked.edge, "bob", "tea", "1").status, 200);
    eventually(PATIENCE, TICK, "the third is told", || receiver.got().len() == 3);
    assert_eq!(receiver.told(), ["ann t\"ea", "ann", "bob tea"]);
}

#[test]
fn what_fails_is_tried_again_in_order_and_keeps_nobody_else_waiting() {
    let server = Server::start();
    let mut failures = 0;
    let receiver = Receiver::start(move |got| {
        if got.json()["data"]["user_id"] != "ann" {
            return fine(got);
        }
        failures += 1;
        match failures {
            1 => response(500, "", "no"),
            2 => response(302, "location: http://127.0.0.1:1/\r\n", ""),
            // Not even HTTP.
            3 => "SSH-2.0-x\r\n\r\n".to_owned(),
            4 => response(429, "retry-after: 1\r\n", ""),
            5 => response(200, "", &"x".repeat(100_000)),
            _ => fine(got),
        }
    });
    let hooked = Hooked::to_webhook(&server, &receiver);
    for (user, item) in [("ann", "i1"), ("ann", "i2"), ("bob", "i1"), ("ann", "i3"), ("bob", "i2")]
    {
        assert_eq!(rate(&hooked.edge, user, item, "1").status, 200);
    }
    eventually(PATIENCE, TICK, "all are told", || hooked.tried("delivered") == 5);
    let of = |user: &str| -> Vec<String> {
        receiver.told().into_iter().filter(|told| told.starts_with(user)).collect()
    };
    // The fourth answer asks for a pause, and is no failure.
    assert_eq!(of("ann"), [["ann i1"; 5].as_slice(), &["ann i2", "ann i3"]].concat());
    assert_eq!(of("bob"), ["bob i1", "bob i2"]);
    assert_eq!(hooked.tried("failed"), 3);
}

#[test]
fn what_fails_ten_times_is_parked_and_can_be_tried_again_or_dropped() {
    let server = Server::start();
    let receiver = Receiver::start(|got| match got.json()["data"]["user_id"] == "ann" {
        true => response(418, "", "teapot"),
        false => fine(got),
    });
    let hooked = Hooked::to_webhook(&server, &receiver);
    for (user, item) in [("ann", "i1"), ("bob", "i1"), ("ann", "i2")] {
        assert_eq!(rate(&hooked.edge, user, item, "1").status, 200);
    }
    let page = Page::of(&server);
    eventually(PATIENCE, TICK, "two are parked", || page.parked(10).len() == 2);
    let told = receiver.told();
    assert_eq!(told.iter().filter(|told| *told == "ann i1").count(), 10);
    assert_eq!(told.iter().filter(|told| *told == "bob i1").count(), 1);
    let found = page.parked(10);
    let [first, second] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((first.to.as_str(), first.tries, first.why.as_str()), ("webhook", 10, "status 418"));
    assert_eq!(
        (first.user.as_str(), first.item.as_str(), first.micros),
        ("ann", "i1", Some(1_000_000))
    );
    assert_eq!(hooked.tried("parked"), 2);
    assert_eq!(page.parked(1), std::slice::from_ref(first));
    // One is dropped, and the other one tried again when the receiver has come to its senses.
    assert!(page.discard(&second.id));
    assert!(!page.discard(&second.id));
    assert!(!page.retry(&second.id));
    let before = receiver.got().len();
    receiver.answer(fine);
    assert!(page.retry(&first.id));
    eventually(PATIENCE, TICK, "it is told", || receiver.got().len() == before + 1);
    assert_eq!(receiver.told().pop().unwrap(), "ann i1");
    assert_eq!(page.parked(10), []);
    let mut conn = server.connection();
    eventually(PATIENCE, TICK, "it is done", || int(&mut conn, "XLEN {ratings}:again") == 0);
    for id in ["-", "+", "1", "1-1"] {
        assert!(!page.retry(id), "{id}");
    }
}

#[test]
fn everything_is_told_at_least_once_however_often_it_is_killed() {
    let server = Server::start();
    let mut random = Random::new(3);
    let receiver = Receiver::start(move |got| match random.once_in(5) {
        true => response(503, "", ""),
        false => fine(got),
    });
    let mut hooked = Hooked::to_webhook(&server, &receiver);
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for round in 0..3 {
        for number in 0..150 {
            let (user, item) = (format!("u{}", number % 7), format!("i{round}-{number}"));
            assert_eq!(rate(&hooked.edge, &user, &item, "1").status, 200);
            told.entry(user.clone()).or_default().push(format!("{user} {item}"));
        }
        run(&mut server.connection(), &["CLIENT KILL TYPE normal"]);
        hooked = hooked.replace(&server);
    }
    eventually(PATIENCE, TICK, "all is noted", || {
        let mut conn = server.connection();
        let last: Vec<(String, Vec<String>)> =
            ask(&mut conn, "XREVRANGE {ratings}:outbox + - COUNT 1");
        ask::<String>(&mut conn, "HGET {ratings}:told webhook") == last[0].0
    });
    let got = receiver.told();
    for (user, wanted) in told {
        // In order, but for what is told once more by whoever comes after one that was killed.
        let mut first: Vec<&String> = Vec::new();
        for it in got.iter().filter(|it| it.starts_with(&format!("{user} "))) {
            if !first.contains(&it) {
                first.push(it);
            }
        }
        assert_eq!(first, wanted.iter().collect::<Vec<_>>(), "{user}");
    }
}

#[test]
fn what_redis_has_back_from_another_region_is_not_told() {
    let server = Server::start();
    let receiver = Receiver::start(fine);
    let hooked = Hooked::to_webhook(&server, &receiver);
    let entry = "user ann item tea rating 1 stamp 7 region eu back yes";
    run(&mut server.connection(), &[&format!("XADD {{ratings}}:outbox * {entry}")]);
    assert_eq!(rate(&hooked.edge, "bob", "tea", "4").status, 200);
    eventually(PATIENCE, TICK, "what is new is told", || receiver.told() == ["bob tea"]);
    // It is noted as done, too.
    eventually(PATIENCE, TICK, "nothing is left", || {
        let told: String = ask(&mut server.connection(), "HGET {ratings}:told webhook");
        let last: Vec<(String, Vec<String>)> =
            ask(&mut server.connection(), "XREVRANGE {ratings}:outbox + - COUNT 1");
        told == last[0].0
    });
    assert_eq!((hooked.tried("delivered"), hooked.tried("unreadable")), (1, 0));
}

#[test]
fn an_outbox_that_was_trimmed_is_told_loudly() {
    let server = Server::start();
    let receiver = Receiver::start(fine);
    let hooked = Hooked::to_webhook(&server, &receiver);
    assert_eq!(rate(&hooked.edge, "ann", "i1", "1").status, 200);
    eventually(PATIENCE, TICK, "the first is told", || receiver.got().len() == 1);
    let Hooked { edge, settings, dir } = hooked;
    drop(edge);
    let other = start(&server.url(), &[("REGION", "eu")]);
    for item in ["i2", "i3", "i4"] {
        assert_eq!(rate(&other, "ann", item, "1").status, 200);
    }
    run(&mut server.connection(), &["XTRIM {ratings}:outbox MAXLEN 1"]);
    let edge = begin(&server, &settings);
    eventually(PATIENCE, TICK, "what is left is told", || {
        receiver.told().contains(&"ann i4".into())
    });
    eventually(PATIENCE, TICK, "the gap is counted", || {
        edge.metric("operator_notification_gaps_total", r#"to="webhook""#) == 1
    });
    assert_eq!(edge.logged("the outbox lacks ratings of which nobody was notified"), 1);
    drop(dir);
}

#[test]
fn telegram_is_told_in_words() {
    let server = Server::start();
    let mut calls = 0;
    let receiver = Receiver::start(move |_| {
        calls += 1;
        match calls {
            1 => response(
                429,
                "",
                r#"{"ok":false,"description":"Too Many Requests","parameters":{"retry_after":1}}"#,
            ),
            2 => response(200, "", r#"{"ok":false,"description":"strange"}"#),
            _ => response(200, "", r#"{"ok":true,"result":{"message_id":1}}"#),
        }
    });
    let settings = vec![
        ("TELEGRAM_CHAT", "@ratings".to_owned()),
        ("TELEGRAM_URL", format!("http://127.0.0.1:{}", receiver.port)),
    ];
    let hooked = Hooked::start(&server, settings);
    assert_eq!(rate(&hooked.edge, "ann", "tea", "4.5").status, 200);
    eventually(PATIENCE, TICK, "it is told", || hooked.tried("delivered") == 1);
    let got = receiver.got();
    assert_eq!(got.len(), 3);
    assert_eq!(got[2].path, format!("/bot{TOKEN}/sendMessage"));
    assert_eq!(got[2].json(), json!({"chat_id": "@ratings", "text": "ann has rated tea: 4.5"}));
    assert_eq!((hooked.tried("failed"), hooked.tried("parked")), (1, 0));
    // Nobody hears of the token, also when the receiver is gone.
    let Hooked { edge, settings, dir } = hooked;
    drop(edge);
    let settings: Vec<(&str, String)> = settings
        .into_iter()
        .map(|(name, value)| match name {
            "TELEGRAM_URL" => (name, "http://127.0.0.1:1".to_owned()),
            _ => (name, value),
        })
        .collect();
    let edge = begin(&server, &settings);
    assert_eq!(rate(&edge, "ann", "tea", "4.5").status, 200);
    let page = Page::of(&server);
    eventually(PATIENCE, TICK, "it is parked", || page.parked(10).len() == 1);
    let parked = page.parked(1).remove(0);
    assert_eq!(parked.to, "telegram");
    assert!(parked.why.contains("refused"), "{}", parked.why);
    assert!(!format!("{parked:?} {}", edge.log()).contains("secret"), "{}", edge.log());
    drop(dir);
}

#[test]
fn settings_that_lack_something_are_refused() {
    let server = Server::start();
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "not a secret\n").unwrap();
    let file = file.to_str().unwrap();
    for (settings, said) in [
        ([("WEBHOOK_URL", "http://h/secret"), ("X", "")], "needs WEBHOOK_SECRET_FILE"),
        ([("WEBHOOK_URL", "http://h/secret"), ("WEBHOOK_SECRET_FILE", file)], "is not whsec_"),
        ([("WEBHOOK_URL", "/secret"), ("WEBHOOK_SECRET_FILE", file)], "WEBHOOK_URL is no URL"),
        ([("TELEGRAM_CHAT", "@c"), ("TELEGRAM_TOKEN_FILE", file)], "no token of a bot"),
        ([("TELEGRAM_CHAT", "@c"), ("TELEGRAM_TOKEN_FILE", "/nowhere")], "No such file"),
    ] {
        let builder = Edge::builder(&server.url());
        let builder =
            settings.iter().fold(builder, |builder, (name, value)| builder.env(name, value));
        let mut edge = builder.launch();
        assert!(!edge.wait().success(), "{said}");
        assert!(edge.log().contains(said), "{said}: {}", edge.log());
        assert!(!edge.log().contains("h/secret"), "{}", edge.log());
    }
}

// Figures for docs/edge/notifications.md: `make bench-ratings`.

/// When the rating of each stamp has come to a receiver that takes everything.
#[derive(Clone, Default)]
struct Arrivals(Arc<Mutex<BTreeMap<u64, u64>>>);

impl Arrivals {
    /// Receives them. Returns the port.
    fn listen(&self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let arrivals = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let arrivals = arrivals.clone();
                thread::spawn(move || stream.and_then(|stream| arrivals.take(stream)));
            }
        });
        port
    }

    /// One request after the other, without a look at what is in it: this is not measured.
    fn take(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut buffer = [0; 4096];
        let mut request = Vec::new();
        loop {
            let length = stream.read(&mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            request.extend_from_slice(&buffer[..length]);
            // The body ends with two braces, and nothing before it does.
            if request.ends_with(b"}}") {
                let text = String::from_utf8_lossy(&request);
                let stamp = text.split("webhook-id: eu-").nth(1).unwrap().lines().next().unwrap();
                self.0.lock().unwrap().entry(stamp.parse().unwrap()).or_insert_with(micros);
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
                request.clear();
            }
        }
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

#[test]
#[ignore = "measures: make bench-ratings"]
fn measure_notifications() {
    const BACKLOG: usize = 50_000;
    const SECONDS: u64 = 20;
    let server = Server::start();
    let arrivals = Arrivals::default();
    let url = format!("http://127.0.0.1:{}/hook", arrivals.listen());
    let mut conn = server.connection();
    load(&mut conn);
    // As if a receiver had been away since the first of these.
    run(&mut conn, &["HSET {ratings}:told webhook 0-0"]);
    for part in 0..BACKLOG / 1_000 {
        let mut pipe = redis::pipe();
        for number in 0..1_000 {
            let (user, item) = (format!("u{part}-{number}"), format!("i{number}"));
            pipe.cmd("FCALL").arg("claw_rate_1").arg(2);
            pipe.arg(format!("{{ratings}}:user:{user}")).arg(format!("{{ratings}}:item:{item}"));
            pipe.arg(&user).arg(&item).arg(3_000_000).arg("eu").arg(1_000_000).ignore();
        }
        pipe.query::<()>(&mut conn).unwrap();
    }
    let begin = Instant::now();
    let hooked = Hooked::start(&server, vec![("WEBHOOK_URL", url)]);
    eventually(PATIENCE * 10, TICK, "all are told", || arrivals.count() == BACKLOG);
    let took = begin.elapsed();
    println!(
        "{BACKLOG} that waited in {took:?}: {} a second",
        BACKLOG as u128 * 1_000 / took.as_millis()
    );

    for per_second in [200, 1_000] {
        let stamps = rate_steadily(&hooked.edge, per_second, SECONDS);
        let arrived = || stamps.iter().all(|(_, at)| arrivals.0.lock().unwrap().contains_key(at));
        eventually(PATIENCE, TICK, "all are told", arrived);
        let at = arrivals.0.lock().unwrap();
        let lags = stamps.iter().map(|(_, stamp)| at[stamp].saturating_sub(*stamp));
        let lags = quantiles(lags.collect());
        println!(
            "{per_second} a second, lag in us: median {}, p99 {}, p99.9 {}, greatest {}",
            lags[0], lags[1], lags[2], lags[3]
        );
        assert!(lags[1] < 1_000_000);
    }
    assert_eq!(hooked.tried("failed"), 0);
}
