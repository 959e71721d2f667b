//! `PROXY_ADDR`: what passes the limits is handed on to a backend, and no more at once than it can take.

#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use claw_testkit::{Server, ask, eventually, free_port};
use common::api::{Response, exchange, get, raw, send};
use common::http::Client;
use common::relay::Relay;
use common::{Edge, PATIENCE, TICK};

/// A backend that keeps what it is sent, and answers when it may.
struct Backend {
    port: u16,
    /// Requests as they came, bodies included.
    heard: Arc<Mutex<Vec<String>>>,
    /// Requests that wait for an answer.
    waiting: Arc<AtomicUsize>,
    is_held: Arc<AtomicBool>,
    answer: Arc<Mutex<String>>,
}

impl Backend {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let backend = Self {
            port: listener.local_addr().unwrap().port(),
            heard: Arc::default(),
            waiting: Arc::default(),
            is_held: Arc::default(),
            answer: Arc::new(Mutex::new("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone".into())),
        };
        let (heard, waiting) = (Arc::clone(&backend.heard), Arc::clone(&backend.waiting));
        let (is_held, answer) = (Arc::clone(&backend.is_held), Arc::clone(&backend.answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (heard, waiting) = (Arc::clone(&heard), Arc::clone(&waiting));
                let (is_held, answer) = (Arc::clone(&is_held), Arc::clone(&answer));
                thread::spawn(move || {
                    let mut stream = BufReader::new(stream);
                    while let Some(request) = read(&mut stream) {
                        heard.lock().unwrap().push(request);
                        waiting.fetch_add(1, SeqCst);
                        while is_held.load(SeqCst) {
                            sleep(TICK);
                        }
                        waiting.fetch_sub(1, SeqCst);
                        let answer = answer.lock().unwrap().clone();
                        if stream.get_mut().write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        backend
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    fn answers(&self, answer: &str) {
        *self.answer.lock().unwrap() = answer.to_owned();
    }

    fn hold(&self, is_held: bool) {
        self.is_held.store(is_held, SeqCst);
    }
}

/// A request with its body; nothing at the end of the connection.
fn read(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let lower = head.to_lowercase();
    let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next());
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    if lower.contains("transfer-encoding: chunked") {
        let mut chunk = String::new();
        while !chunk.ends_with("0\r\n\r\n") {
            stream.read_line(&mut chunk).ok()?;
        }
        body.extend_from_slice(chunk.as_bytes());
    }
    Some(head + &String::from_utf8(body).unwrap())
}

/// An instance, and the port at which it hands on.
fn start(redis: &Server, upstream: u16, settings: &[(&str, &str)]) -> (Edge, u16) {
    let port = free_port();
    let builder = Edge::builder(&redis.url())
        .env("PROXY_ADDR", format!("127.0.0.1:{port}"))
        .env("UPSTREAM", format!("http://127.0.0.1:{upstream}"))
        .env("DECISION_TIMEOUT", "5s");
    let builder = settings.iter().fold(builder, |builder, (name, value)| builder.env(name, value));
    (builder.start(), port)
}

fn limits(redis: &Server, text: &str) -> String {
    let file = redis.dir().join("limits.yaml");
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn a_request_and_its_answer_are_handed_on() {
    let (redis, backend) = (Server::start(), Backend::start());
    let (edge, port) = start(&redis, backend.port, &[]);
    backend.answers(
        "HTTP/1.1 201 Made\r\nx-of-backend: 1\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\
         content-length: 4\r\n\r\nmade",
    );
    let response = raw(
        port,
        b"PUT /a%2Fb//c?d=e%20f HTTP/1.1\r\nhost: shop.example\r\nconnection: close, x-mine\r\nx-mine: 1\r\n\
          te: trailers\r\nupgrade: websocket\r\ncookie: a=1\r\ncookie: b=2\r\nx-forwarded-for: 6.6.6.6\r\nx-kept: yes\r\ncontent-length: 5\r\n\r\nhello",
    );
    assert_eq!((response.status, response.body.as_str()), (201, "made"));
    assert_eq!(response.field("x-of-backend"), Some("1"));
    for name in ["x-hop", "keep-alive"] {
        assert_eq!(response.field(name), None, "{response:?}");
    }
    let heard = backend.heard().remove(0);
    assert!(heard.starts_with("PUT /a%2Fb//c?d=e%20f HTTP/1.1\r\n"), "{heard}");
    assert!(heard.ends_with("\r\n\r\nhello"), "{heard}");
    for line in [
        "host: shop.example",
        "x-kept: yes",
        "cookie: a=1; b=2",
        "x-forwarded-for: 127.0.0.1",
        "content-length: 5",
    ] {
        assert!(heard.contains(&format!("\r\n{line}\r\n")), "{line}: {heard}");
    }
    for name in ["x-mine", "\r\nte:", "upgrade", "6.6.6.6", "connection:"] {
        assert!(!heard.contains(name), "{name}: {heard}");
    }
    // Answers that this service has itself, too, are the backend's here.
    for (status, line) in
        [(405, "405 No"), (429, "429 Slow"), (500, "500 Broken"), (204, "204 Empty")]
    {
        backend.answers(&format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n"));
        let response = get(port, "/");
        assert_eq!((response.status, response.body.as_str()), (status, ""), "{response:?}");
    }
    backend.answers(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    );
    assert_eq!(get(port, "/").body, "abcde");
    let rest = "/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    for method in ["POST", "GET"] {
        assert_eq!(raw(port, format!("{method} {rest}").as_bytes()).status, 200);
        let heard = backend.heard().pop().unwrap();
        assert!(heard.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "{heard}");
    }
    assert_eq!(edge.metric("operator_requests_total", r#"route="proxy",result="allowed""#), 8);
}

#[test]
fn proxies_that_are_trusted_say_who_asks() {
    let (redis, backend) = (Server::start(), Backend::start());
    let settings = [
        ("TRUSTED_PROXIES", "127.0.0.0/8"),
        ("USER_CAPACITY", "1"),
        ("USER_REFILL", "1"),
        ("USER_INTERVAL", "1h"),
    ];
    let (_edge, port) = start(&redis, backend.port, &settings);
    let ask = |client: &str| send(port, "GET", "/", &[("x-forwarded-for", client)], "").status;
    assert_eq!([ask("192.0.2.1"), ask("192.0.2.1"), ask("192.0.2.2")], [200, 429, 200]);
    let heard = backend.heard();
    assert_eq!(heard.len(), 2, "what is refused does not reach the backend: {heard:?}");
    assert!(heard[0].contains("x-forwarded-for: 192.0.2.1, 127.0.0.1\r\n"), "{}", heard[0]);
}

#[test]
fn limits_may_be_for_what_is_handed_on_alone() {
    let (redis, backend) = (Server::start(), Backend::start());
    let file = limits(
        &redis,
        "limits: [{name: way, capacity: 1, refill: 1, interval: 1h, match: {routes: [proxy], paths: [/a]}},
                  {name: cafe, capacity: 1, refill: 0, match: {paths: [/caf\u{e9}]}}]",
    );
    let (edge, port) = start(&redis, backend.port, &[("CONFIG", &file)]);
    let refused = |response: &Response| {
        assert_eq!(response.json()["violated-policies"][0], "way", "{response:?}");
        response.number("retry-after")
    };
    assert_eq!(get(port, "/a").limits("ratelimit")[0].0, "way");
    for path in ["/a", "/./a", "/%61"] {
        let response = get(port, path);
        assert_eq!(response.status, 429, "{path}: {response:?}");
        assert_eq!(refused(&response), Some(3600));
    }
    assert_eq!([get(port, "/b").status, edge.rate("u").status], [200, 200]);
    let cafes = ["/caf%C3%A9", "/caf%c3%a9", "/caf\u{e9}"].map(|path| get(port, path).status);
    assert_eq!(cafes, [200, 429, 429]);
}

#[test]
fn a_backend_that_does_not_answer_is_told_apart_from_one_that_is_away() {
    let (redis, backend) = (Server::start(), Backend::start());
    let file = limits(
        &redis,
        "limits: [{name: shop, capacity: 40, refill: 100, adaptive: {mode: off, profile: on_path, in_flight: 3}}]",
    );
    let settings = [("CONFIG", file.as_str()), ("UPSTREAM_TIMEOUT", "300ms")];
    let (edge, port) = start(&redis, backend.port, &settings);
    backend.hold(true);
    // More than may be in flight: each leaves its place.
    for _ in 0..4 {
        assert!(get(port, "/").problem(504).contains("in time"));
    }
    backend.hold(false);
    assert_eq!(get(port, "/").status, 200);
    backend.answers("");
    let away = free_port();
    let (_edge, nowhere) = start(&redis, away, &settings);
    assert!(get(nowhere, "/").problem(502).contains("cannot be reached"));
    eventually(PATIENCE, TICK, "all places to be free", || {
        edge.metric("edge_inflight", "shop") == 0
    });
}

/// Clients that ask at the same time, and what they are told.
fn at_once(
    port: u16,
    fields: Vec<Vec<(&'static str, &'static str)>>,
) -> Vec<thread::JoinHandle<Response>> {
    let ask = move |fields: Vec<(&'static str, &'static str)>| {
        thread::spawn(move || send(port, "GET", "/", &fields, ""))
    };
    fields.into_iter().map(ask).collect()
}

#[test]
fn no_more_are_in_flight_than_may_be_and_some_places_are_kept() {
    let (redis, backend) = (Server::start(), Backend::start());
    let file = limits(
        &redis,
        "limits: [{name: shop, capacity: 40, refill: 1000, adaptive:
           {mode: off, profile: on_path, in_flight: 5, premium: {header: x-tier, value: gold, keep: 20}}}]",
    );
    let (edge, port) = start(&redis, backend.port, &[("CONFIG", &file)]);
    backend.hold(true);
    let gold = vec![("x-tier", "gold")];
    let mut open = Vec::new();
    // One of five is kept.
    for (fields, passing) in [(vec![], 4), (gold, 1)] {
        let clients = at_once(port, vec![fields; passing + 3]);
        let before = backend.waiting.load(SeqCst);
        eventually(PATIENCE, TICK, "the others to be refused", || {
            backend.waiting.load(SeqCst) == before.max(4) + passing % 4
                && clients.iter().filter(|client| client.is_finished()).count() == 3
        });
        for client in clients {
            match client.is_finished() {
                true => {
                    let response = client.join().unwrap();
                    assert!(response.problem(503).contains("in flight"), "{response:?}");
                    assert_eq!(response.field("retry-after"), Some("1"));
                    assert_eq!(response.json()["violated-policies"][0], "shop");
                }
                false => open.push(client),
            }
        }
    }
    assert_eq!(backend.heard().len(), 5);
    backend.hold(false);
    for client in open {
        assert_eq!(client.join().unwrap().status, 200);
    }
    assert_eq!(edge.metric("operator_rate_limited_total", "shop"), 6);
    assert_eq!(get(port, "/").status, 200, "the places are free again");
}

/// Whose bucket weighs enough has all places, while that can be read.
#[test]
fn the_weight_of_a_users_bucket_gives_him_all_places() {
    let (mut redis, backend) = (Server::start(), Backend::start());
    let file = limits(
        &redis,
        "limits: [{name: each, capacity: 40, refill: 1000, key: [user]}, {name: shop, capacity: 40, refill: 1000,
           adaptive: {mode: off, profile: on_path, in_flight: 5, premium: {weight: 3, keep: 20}}}]",
    );
    let settings =
        [("CONFIG", file.as_str()), ("USER_HEADER", "x-user"), ("DECISION_TIMEOUT", "1s")];
    let (edge, port) = start(&redis, backend.port, &settings);
    for (user, weight) in [("ann", 3), ("cat", 2), ("eve", 3), ("fay", 3)] {
        let pin = format!("CL.POLICY claw:each:{user} WEIGHT {weight}");
        let _: redis::Value = ask(&mut redis.connection(), &pin);
    }
    let status = |user: &'static str| send(port, "GET", "/", &[("x-user", user)], "").status;
    // One of five is kept: four of those who leave it wait for an answer.
    let fill = || {
        backend.hold(true);
        let waiting = at_once(port, vec![vec![("x-user", "bob")]; 4]);
        eventually(PATIENCE, TICK, "four", || backend.waiting.load(SeqCst) == 4);
        waiting
    };
    let waiting = fill();
    assert_eq!(["bob", "cat"].map(status), [503, 503]);
    let ann = at_once(port, vec![vec![("x-user", "ann")]]);
    eventually(PATIENCE, TICK, "the fifth", || backend.waiting.load(SeqCst) == 5);
    backend.hold(false);
    for client in waiting.into_iter().chain(ann) {
        assert_eq!(client.join().unwrap().status, 200);
    }
    // Limits fail open, the cap does not, and nobody is known to be premium.
    for (user, is_dead) in [("eve", false), ("fay", true)] {
        match is_dead {
            true => redis.crash(),
            false => {
                let _: String = ask(&mut redis.connection(), "CLIENT PAUSE 60000");
            }
        }
        let waiting = fill();
        let begin = Instant::now();
        assert_eq!(status(user), 503, "{user}");
        assert!(begin.elapsed() < PATIENCE / 4, "{:?}", begin.elapsed());
        backend.hold(false);
        for client in waiting {
            assert_eq!(client.join().unwrap().status, 200);
        }
    }
    assert_eq!(edge.metric("operator_rate_limited_total", "shop"), 4);
}

/// What this instance has counted: offered, admitted, rejected, completed, late, failed.
fn totals(redis: &Server) -> [u64; 6] {
    let fields: std::collections::HashMap<String, String> =
        redis::cmd("HGETALL").arg("@route:claw:shop:loop").query(&mut redis.connection()).unwrap();
    let report = fields.iter().find(|(name, _)| name.starts_with("report:"));
    let numbers = report.iter().flat_map(|(_, report)| report.split(' ').skip(1));
    let numbers: Vec<u64> = numbers.take(6).map(|number| number.parse().unwrap()).collect();
    numbers.try_into().unwrap_or_default()
}

/// Of a slow or broken body nothing is known of the backend, and the loop would learn wrongly.
#[test]
fn what_a_client_is_to_blame_for_is_not_counted_as_the_backends() {
    let (redis, backend) = (Server::start(), Backend::start());
    let file = limits(
        &redis,
        "limits: [{name: shop, capacity: 40, refill: 1000, adaptive: {mode: off, profile: on_path, in_flight: 9}}]",
    );
    let settings = [("CONFIG", file.as_str()), ("UPSTREAM_TIMEOUT", "1500ms")];
    let (_edge, port) = start(&redis, backend.port, &settings);
    let chunked =
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let whole = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 5\r\n\r\n";
    // A wrong size, and nothing more: neither is answered by the backend.
    for body in ["zz\r\n", "5\r\nhe"] {
        let response = raw(port, format!("{chunked}{body}").as_bytes());
        assert!(response.problem(408).contains("broke off"), "{response:?}");
    }
    // One that leaves, after a while.
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.write_all(format!("{whole}he").as_bytes()).unwrap();
    sleep(Duration::from_millis(300));
    drop(client);
    // One that is slow: the backend is not.
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.write_all(format!("{whole}he").as_bytes()).unwrap();
    sleep(Duration::from_millis(300));
    assert_eq!(exchange(client, b"llo").status, 200);
    eventually(PATIENCE, TICK, "all of it to be told", || totals(&redis)[3] > 0);
    assert_eq!(totals(&redis), [4, 4, 0, 1, 0, 0]);
    // A backend that does not answer fails.
    backend.hold(true);
    assert!(send(port, "POST", "/", &[], "hello").problem(504).contains("in time"));
    eventually(PATIENCE, TICK, "that to be told", || totals(&redis) == [5, 5, 0, 1, 0, 1]);
}

/// Nobody is charged for a request that finds no place, also when he is charged before that is known.
#[test]
fn what_finds_no_place_is_not_charged() {
    let (redis, backend) = (Server::start(), Backend::start());
    let relay = Relay::to(redis.port());
    let file = limits(
        &redis,
        "limits:
- {name: all, capacity: 9, refill: 1, interval: 1h}
- {name: shop, capacity: 40, refill: 1000, adaptive: {mode: off, profile: on_path, in_flight: 1, sla: 10s}}",
    );
    let settings = [("CONFIG", file.as_str()), ("REDIS_URL", &relay.url())];
    let (edge, port) = start(&redis, backend.port, &settings);
    eventually(PATIENCE, TICK, "the instance", || edge.is_ready());
    backend.hold(true);
    relay.delay(Duration::from_millis(200));
    let clients = at_once(port, vec![vec![]; 4]);
    eventually(PATIENCE, TICK, "all but one to be refused", || {
        clients.iter().filter(|client| client.is_finished()).count() == 3
    });
    relay.delay(Duration::ZERO);
    backend.hold(false);
    let mut statuses: Vec<u16> =
        clients.into_iter().map(|client| client.join().unwrap().status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503, 503, 503]);
    let peeked: Vec<i64> = claw_testkit::ask(
        &mut redis.connection(),
        "CL.PEEK claw:all 0 CAPACITY 9 REFILL 1 INTERVAL 3600000",
    );
    assert_eq!(peeked[2], 8);
    assert_eq!(backend.heard().len(), 1);
    eventually(PATIENCE, TICK, "one to be counted", || totals(&redis) == [4, 1, 3, 1, 0, 0]);
}

/// A backend that changes the protocol, which nobody has asked for, has not answered.
#[test]
fn another_protocol_is_no_answer() {
    let (redis, backend) = (Server::start(), Backend::start());
    let (_edge, port) = start(&redis, backend.port, &[]);
    backend.answers("HTTP/1.1 101 Other\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nbytes");
    assert!(get(port, "/").problem(502).contains("another protocol"));
}

/// Whoever is refused by a limit of his own takes nobody's place, however often he asks.
#[test]
fn a_flood_of_what_is_refused_leaves_the_places_to_others() {
    let (redis, backend) = (Server::start(), Backend::start());
    let file = limits(
        &redis,
        "limits:
- {name: own, capacity: 1, refill: 1, interval: 1h, key: [{header: x-user}]}
- {name: shop, capacity: 1000, refill: 10000, adaptive: {mode: off, profile: on_path, in_flight: 2}}",
    );
    let (edge, port) = start(&redis, backend.port, &[("CONFIG", &file)]);
    let is_over = Arc::new(AtomicBool::new(false));
    let flood: Vec<_> = (0..16)
        .map(|_| {
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || {
                let mut client = Client::try_connect(port).unwrap();
                let mut statuses = Vec::new();
                while !is_over.load(SeqCst) {
                    client.send(b"GET / HTTP/1.1\r\nhost: a\r\nx-user: evil\r\n\r\n").unwrap();
                    statuses.push(client.response().unwrap().status);
                }
                statuses
            })
        })
        .collect();
    let refused = || edge.metric("operator_rate_limited_total", "own");
    eventually(PATIENCE, TICK, "the flood", || refused() > 100);
    let before = refused();
    let others = (0..50).map(|user| {
        let user = user.to_string();
        send(port, "GET", "/", &[("x-user", &user)], "").status
    });
    assert_eq!(others.collect::<Vec<_>>(), [200; 50]);
    assert!(refused() > before, "it went on meanwhile");
    is_over.store(true, SeqCst);
    let statuses: Vec<u16> = flood.into_iter().flat_map(|one| one.join().unwrap()).collect();
    assert!(statuses.iter().filter(|status| **status != 429).count() <= 1, "{statuses:?}");
}

/// Nobody waits for ever where an instance has but one place.
#[test]
fn not_all_places_are_kept() {
    let (redis, backend) = (Server::start(), Backend::start());
    let file = limits(
        &redis,
        "limits: [{name: shop, capacity: 40, refill: 1000, adaptive:
           {mode: off, profile: on_path, in_flight: 2, premium: {header: x-tier, value: gold}}}]",
    );
    let edges = [(); 2].map(|()| start(&redis, backend.port, &[("CONFIG", &file)]));
    for (edge, port) in &edges {
        eventually(PATIENCE, TICK, "a part of one", || {
            edge.metric("edge_inflight_cap", "shop") == 1
        });
        assert_eq!(get(*port, "/").status, 200);
    }
}

#[test]
fn a_client_that_goes_away_leaves_its_place() {
    let (redis, backend) = (Server::start(), Backend::start());
    let file = limits(
        &redis,
        "limits: [{name: shop, capacity: 40, refill: 1000, adaptive: {mode: off, profile: on_path, in_flight: 2}}]",
    );
    let (_edge, port) = start(&redis, backend.port, &[("CONFIG", &file)]);
    backend.hold(true);
    for _ in 0..3 {
        let mut clients = Vec::new();
        let before = backend.waiting.load(SeqCst);
        for _ in 0..2 {
            let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
            clients.push(client);
        }
        eventually(PATIENCE, TICK, "both to be in flight", || {
            backend.waiting.load(SeqCst) == before + 2
        });
        assert_eq!(get(port, "/").status, 503);
        drop(clients);
        eventually(PATIENCE, TICK, "a place to be free", || {
            let client = at_once(port, vec![vec![]]).remove(0);
            sleep(TICK * 5);
            !client.is_finished()
        });
        backend.hold(false);
        eventually(PATIENCE, TICK, "the backend to be idle", || backend.waiting.load(SeqCst) == 0);
        backend.hold(true);
    }
}

/// Whatever he speaks: on HTTP/2 no write would wait for him.
#[test]
fn a_client_that_takes_nothing_leaves_its_place() {
    let (redis, backend) = (Server::start(), Backend::start());
    let file = limits(
        &redis,
        "limits: [{name: shop, capacity: 40, refill: 1000, adaptive: {mode: off, profile: on_path, in_flight: 1}}]",
    );
    let settings = [("CONFIG", file.as_str()), ("CLIENT_TIMEOUT", "2s")];
    let (edge, port) = start(&redis, backend.port, &settings);
    let in_flight = || edge.metric("edge_inflight", "shop");
    // More than sockets hold.
    let length = 32 << 20;
    let long = "x".repeat(length);
    backend.answers(&format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{long}"));
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    eventually(PATIENCE, TICK, "it to be in flight", || in_flight() == 1);
    eventually(PATIENCE, TICK, "its place", || in_flight() == 0);
    // Of HTTP/2 he takes the frames, and lets none have data: a window of 0, GET http://a/.
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.set_read_timeout(Some(TICK)).unwrap();
    let settings = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";
    let get = b"\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01a";
    let preface = &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..];
    client.write_all(&[preface, settings, get].concat()).unwrap();
    eventually(PATIENCE, TICK, "the connection to be closed", || match client.read(&mut [0; 64]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    });
    assert_eq!((in_flight(), backend.heard().len()), (0, 1));
}

/// The loop on the path: two instances share what may be in flight, and one alone has all of it.
#[test]
fn instances_share_what_may_be_in_flight() {
    let (redis, backend) = (Server::start(), Backend::start());
    let file = limits(
        &redis,
        "limits: [{name: shop, capacity: 40, refill: 1000, adaptive: {mode: on, profile: on_path, nominal: 100}}]",
    );
    let edges = [(); 2].map(|()| start(&redis, backend.port, &[("CONFIG", &file)]));
    let is_over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = edges
        .iter()
        .map(|(_, port)| {
            let (port, is_over) = (*port, Arc::clone(&is_over));
            thread::spawn(move || {
                while !is_over.load(SeqCst) {
                    let _ = TcpStream::connect(("127.0.0.1", port)).map(|mut stream| {
                        let _ = stream
                            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
                        let _ = stream.read_to_end(&mut Vec::new());
                    });
                    sleep(TICK);
                }
            })
        })
        .collect();
    let decision = |redis: &Server| -> Vec<String> {
        let key = "@route:claw:shop:loop";
        let text: Option<String> =
            redis::cmd("HGET").arg(key).arg("decision").query(&mut redis.connection()).unwrap();
        text.unwrap_or_default().split(' ').map(str::to_owned).collect()
    };
    let shares = |redis: &Server| -> Option<(u64, Vec<u64>)> {
        let words = decision(redis);
        let cap = words.get(6)?.parse().ok()?;
        let part = |word: &String| word.split_once('=')?.1.parse().ok();
        Some((cap, words.get(7..)?.iter().filter_map(part).collect()))
    };
    eventually(PATIENCE, TICK, "both to have a part", || {
        shares(&redis)
            .is_some_and(|(cap, parts)| parts.len() == 2 && parts.iter().sum::<u64>() == cap.max(2))
    });
    eventually(PATIENCE, TICK, "the loop to decide", || {
        edges
            .iter()
            .map(|(edge, _)| edge.metric("rl_decisions_total", r#"by="inner""#))
            .sum::<u64>()
            > 10
    });
    let [(first, _), (second, _)] = edges;
    drop(first);
    eventually(PATIENCE, TICK, "the other one to have all", || {
        shares(&redis).is_some_and(|(cap, parts)| parts == [cap])
    });
    is_over.store(true, SeqCst);
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert!(second.metric("edge_inflight_cap", "shop") > 0);
    assert!(second.metric("rating_event_latency_seconds_count", "shop") > 0);
}

#[test]
fn what_cannot_be_handed_on_is_said_at_the_start() {
    let redis = Server::start();
    for (upstream, why) in [
        ("ftp://a", "UPSTREAM: 'ftp://a/' is not as http://host:port"),
        ("http://a/path", "UPSTREAM: 'http://a/path' is not as http://host:port"),
        ("a:80", "UPSTREAM: 'a:80' is not as http://host:port"),
    ] {
        let builder = Edge::builder(&redis.url()).env("UPSTREAM", upstream);
        let mut edge = builder.env("PROXY_ADDR", format!("127.0.0.1:{}", free_port())).launch();
        assert!(!edge.wait().success());
        assert!(edge.log().contains(why), "{}", edge.log());
    }
    let mut edge = Edge::builder(&redis.url()).env("UPSTREAM", "http://a").launch();
    assert!(!edge.wait().success());
    assert!(
        edge.log().contains("PROXY_ADDR") || edge.log().contains("--proxy-addr"),
        "{}",
        edge.log()
    );
}

/// The proxy makes nobody local: what is open to this machine alone stays so.
#[test]
fn nobody_becomes_local_by_it() {
    let redis = Server::start();
    let own = Edge::builder(&redis.url()).start();
    for (upstream, path) in [(own.http, "/v1/take"), (own.ops, "/admin")] {
        let (_edge, port) = start(&redis, upstream, &[]);
        let fields = [("content-type", "application/json"), ("host", "localhost")];
        let response = match path {
            "/admin" => get(port, path),
            _ => send(port, "POST", path, &fields[..1], r#"{"key":"k","limit":"x"}"#),
        };
        assert!([401, 403].contains(&response.status), "{path}: {response:?}");
    }
}
