//! Notifications: to a webhook and to a stand-in for Telegram's API, with receivers that fail in
//! every way.

#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Parser;
use claw_edge::config::Config;
use claw_edge::notify::{Notify, Parked};
use claw_edge::redis::Redis;
use claw_edge::redis::health::Health;
use claw_testkit::{Random, Server, ask, eventually, int, run};
use common::api::{send, start};
use common::ratings::rate;
use common::{Edge, PATIENCE, TICK};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

const SECRET: &str = "c2VjcmV0IG9mIGEgd2ViaG9vaw==";
const TOKEN: &str = "123456:AAsecret-token";

/// A request that a receiver got.
#[derive(Clone, Debug)]
struct Got {
    path: String,
    fields: BTreeMap<String, String>,
    body: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A receiver: what it has got, and how it answers.
#[derive(Clone)]
struct Receiver {
    port: u16,
    got: Arc<Mutex<Vec<Got>>>,
    answer: Arc<Mutex<Answers>>,
}

type Answers = Box<dyn FnMut(&Got) -> String + Send>;

impl Receiver {
    fn start(answer: impl FnMut(&Got) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let receiver = Self {
            port: listener.local_addr().unwrap().port(),
            got: Arc::default(),
            answer: Arc::new(Mutex::new(Box::new(answer))),
        };
        let serving = receiver.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let serving = serving.clone();
                // Who is killed breaks off.
                thread::spawn(move || stream.and_then(|stream| serving.serve(stream)));
            }
        });
        receiver
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                if line.trim().is_empty() {
                    break;
                }
                lines.push(line.trim().to_owned());
            }
            let fields: BTreeMap<String, String> = lines[1..]
                .iter()
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect();
            let mut body = vec![0; fields["content-length"].parse().unwrap()];
            stream.read_exact(&mut body)?;
            let path = lines[0].split(' ').nth(1).unwrap().to_owned();
            let got = Got { path, fields, body: String::from_utf8(body).unwrap() };
            let answer = (self.answer.lock().unwrap())(&got);
            self.got.lock().unwrap().push(got);
            stream.get_mut().write_all(answer.as_bytes())?;
        }
    }

    fn answer(&self, answer: impl FnMut(&Got) -> String + Send + 'static) {
        *self.answer.lock().unwrap() = Box::new(answer);
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// `user item`, or `user`, of each request to a webhook.
    fn told(&self) -> Vec<String> {
        let told = |got: &Got| {
            let data = &got.json()["data"];
            let item = data["item_id"].as_str().unwrap_or_default();
            format!("{} {item}", data["user_id"].as_str().unwrap()).trim().to_owned()
        };
        self.got().iter().map(told).collect()
    }
}

fn response(status: u16, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{fields}\r\n{body}", body.len())
}

fn fine(_: &Got) -> String {
    response(204, "", "")
}

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
