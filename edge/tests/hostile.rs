//! What somebody might send who wants more than he is granted, or the service to fall over.

#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Duration;

use claw_testkit::{Server, eventually, skipped};
use common::api::{raw, send};
use common::relay::Relay;
use common::rls::Client;
use common::{Edge, PATIENCE, TICK};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio_stream::StreamExt;
use tower_service::Service;

/// How many requests a limit that fails open has let through since Redis was late. On a machine that
/// is busy with something else there may be some, and what they are granted is not the bucket's.
fn blind(edge: &Edge) -> u64 {
    edge.metric("operator_blind_decisions_total", r#"decided="allowed""#)
}

/// How many requests of `h2load` were answered 2xx, of how many; nothing where it is missing.
fn flood(test: &str, edge: &Edge, arguments: &[&str]) -> Option<(u64, u64)> {
    let output = Command::new("h2load")
        .args(arguments)
        .args(["-H", "x-user: ann"])
        .arg(format!("http://127.0.0.1:{}/auth", edge.http))
        .output();
    let Ok(output) = output else {
        skipped(test, "there is no h2load: scripts/setup.sh edge installs it");
        return None;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.starts_with("status codes:"));
    let line = line.unwrap_or_else(|| panic!("{text}"));
    let counts: Vec<u64> = line
        .split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|word| word.parse().ok())
        .collect();
    // `n 2xx, n 3xx, n 4xx, n 5xx`
    let [granted, _, redirected, _, refused, _, failed, _] = counts[..] else { panic!("{line}") };
    Some((granted, granted + redirected + refused + failed))
}

#[test]
fn a_flood_of_one_client_is_granted_no_more_than_the_limit() {
    let server = Server::start();
    // 256 at once are decided. Of 2,048 and 4,096 a worker decides 1,024 and sheds others, however
    // fast it is: that is what keeps its answers in time, so that nobody is let through blindly.
    for (connections, streams, sheds) in
        [("1", "256", false), ("8", "256", true), ("64", "64", true)]
    {
        let edge = Edge::limiting(&server.url(), 10, 0)
            .env("WORKERS", "1")
            .env("DECISION_TIMEOUT", "1s")
            .start();
        let arguments = ["-n", "6000", "-c", connections, "-m", streams];
        let Some((granted, answered)) = flood("a flood", &edge, &arguments) else { return };
        let what = format!("{connections} x {streams}: {granted} of {answered}: {}", edge.log());
        assert_eq!((granted, blind(&edge)), (10, 0), "{what}");
        let shed = edge.metric("operator_redis_faults_total", r#"kind="queue_full""#);
        assert_eq!(shed > 0, sheds, "{shed} were shed; {what}");
        assert_eq!(answered, 6_000, "{what}");
        let _: i64 =
            redis::cmd("DEL").arg("token_bucket:ann").query(&mut server.connection()).unwrap();
    }
}

/// What a call of Envoy's is told. Without limits by descriptors that is what it is told of it.
fn call(port: u16) -> String {
    runtime().block_on(async { Client::new(port).line("d: a=b").await })
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

const IS_ANSWERED: &str = "FailedPrecondition";

#[test]
fn a_flood_of_connections_to_one_address_leaves_the_others_usable() {
    let server = Server::start();
    let edge = Edge::limiting(&server.url(), 100, 0).env("MAX_CONNECTIONS", "4").start();
    let serves = |port: u16| {
        if port == edge.http {
            edge.client().try_rate("ann").is_ok_and(|response| response.status == 200)
        } else {
            call(port).starts_with(IS_ANSWERED)
        }
    };
    let refused = || edge.metric("operator_connections_refused_total", "");
    for (flooded, other) in [(edge.http, edge.grpc), (edge.grpc, edge.http)] {
        let before = refused();
        let open: Vec<TcpStream> =
            (0..10).map(|_| TcpStream::connect(("127.0.0.1", flooded)).unwrap()).collect();
        eventually(PATIENCE, TICK, "six to be refused", || refused() == before + 6);
        assert!(!serves(flooded) && serves(other) && edge.is_ready());
        drop(open);
        eventually(PATIENCE, TICK, "a place", || serves(flooded));
    }
}

#[test]
fn bodies_of_so_many_bytes_are_held_and_no_more() {
    // Four posts, each of which lacks its last byte, leave no room for a message.
    const POST: usize = 12_000;
    const HELD: usize = 4 * POST;
    const MOST: usize = HELD + 3;
    let server = Server::start();
    let edge = Edge::limiting(&server.url(), 1000, 0).env("MAX_BODIES", MOST.to_string()).start();
    let post = |bytes: usize| {
        let mut stream = TcpStream::connect(("127.0.0.1", edge.http)).unwrap();
        let head = "POST /v1/take HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
            content-length: 12001\r\n\r\n";
        stream.write_all(&[head.as_bytes(), &vec![b' '; bytes]].concat()).unwrap();
        stream
    };
    let take = || {
        let fields = [("content-type", "application/json")];
        send(edge.http, "POST", "/v1/take", &fields, r#"{"key":"ann","limit":"user"}"#)
    };
    let held = || usize::try_from(edge.metric("operator_body_bytes", "")).unwrap();
    // What is announced and does not come costs nobody anything.
    let announced: Vec<TcpStream> = (0..10).map(|_| post(0)).collect();
    for _ in 0..10 {
        assert_eq!(take().status, 200);
    }
    assert!(call(edge.grpc).starts_with(IS_ANSWERED));
    for front in ["HTTP", "gRPC"] {
        let (let_go, until) = oneshot::channel();
        let mut posts = Vec::new();
        if front == "HTTP" {
            posts.extend((0..4).map(|_| post(POST)));
        } else {
            let port = edge.grpc;
            thread::spawn(move || runtime().block_on(unfinished(port, HELD, until)));
        }
        eventually(PATIENCE, TICK, "bodies to be held", || held() == HELD);
        assert_eq!(take().problem(503), "too much is being sent at once", "{front}");
        assert_eq!(call(edge.grpc), "ResourceExhausted: too much is being sent at once", "{front}");
        assert_eq!(edge.rate("ann").status, 200, "{front}: what has no body is decided");
        drop((posts, let_go));
        eventually(PATIENCE, TICK, "bodies to be let go", || held() == 0);
        assert_eq!(take().status, 200, "{front}");
        assert!(call(edge.grpc).starts_with(IS_ANSWERED), "{front}");
    }
    assert_eq!(edge.metric("operator_requests_total", r#"route="take",result="unavailable""#), 2);
    drop(announced);
}

/// A call of Envoy's that sends so many bytes and then no more.
async fn unfinished(port: u16, bytes: usize, until: oneshot::Receiver<()>) {
    let sent = tokio_stream::once(Ok(Frame::data(Bytes::from(vec![0; bytes]))));
    let never = tokio_stream::pending::<Result<Frame<Bytes>, tonic::Status>>();
    let request = http::Request::post(format!("http://edge{}", claw_edge::rls::PATH))
        .header("content-type", "application/grpc")
        .body(tonic::body::Body::new(StreamBody::new(sent.chain(never))))
        .unwrap();
    let mut channel = Client::new(port).channel;
    std::future::poll_fn(|context| channel.poll_ready(context)).await.unwrap();
    tokio::select! {
        _ = channel.call(request) => {}
        _ = until => {}
    }
}

#[test]
fn a_hot_key_on_a_long_line_is_granted_no_more_than_the_limit() {
    let server = Server::start();
    for delay in [100, 200, 300] {
        let relay = Relay::to(server.port());
        relay.delay(Duration::from_millis(delay));
        let edge = Edge::limiting(&relay.url(), 10, 0)
            .env("USER_HEADER", "x-user")
            .env("DECISION_TIMEOUT", "1s")
            .start();
        let Some((granted, answered)) =
            flood("a long line", &edge, &["-n", "80", "-c", "16", "--h1"])
        else {
            return;
        };
        assert_eq!((granted, answered), (10 + blind(&edge), 80), "{delay} ms: {}", edge.log());
        let _: i64 =
            redis::cmd("DEL").arg("token_bucket:ann").query(&mut server.connection()).unwrap();
    }
}

#[test]
fn an_address_is_not_made_up_by_what_cannot_be_read() {
    let server = Server::start();
    let edge = Edge::builder(&server.url())
        .env("TRUSTED_PROXIES", "127.0.0.1")
        .env("USER_CAPACITY", "1")
        .env("USER_REFILL", "0")
        .start();
    let statuses: Vec<u16> = (0..3)
        .map(|number| {
            let request = format!(
                "GET /auth HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-forwarded-for: 192.0.2.{number}\r\n"
            );
            let rest = b"x-forwarded-for: \xff, 203.0.113.9\r\n\r\n";
            raw(edge.http, &[request.as_bytes(), rest].concat()).status
        })
        .collect();
    assert_eq!(statuses, [200, 429, 429]);
}

/// Else everybody who is named so would share the bucket of an address, and choose to.
#[test]
fn a_user_is_one_whose_name_is_no_text() {
    let server = Server::start();
    let edge = Edge::limiting(&server.url(), 1, 0).env("DECISION_TIMEOUT", "5s").start();
    let ask = |user: &[u8]| {
        let head = b"GET /auth HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-user: ";
        raw(edge.http, &[head, user, b"\r\n\r\n"].concat()).status
    };
    let statuses = [&b"jos\xe9"[..], b"jos\xe8", b"", b"jos\xe9", b"jos\xc3\xa9"].map(ask);
    assert_eq!(statuses, [200, 200, 200, 429, 200]);
}

#[test]
fn without_a_token_the_api_is_for_this_machine_under_its_own_name() {
    let server = Server::start();
    let edge = Edge::limiting(&server.url(), 5, 0).start();
    let ask = |fields: &[(&str, &str)], host: &str| {
        let mut head =
            format!("DELETE /users/ann HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
        for (name, value) in fields {
            head += &format!("{name}: {value}\r\n");
        }
        raw(edge.http, (head + "\r\n").as_bytes()).status
    };
    for host in ["localhost", "127.0.0.1:8080", "[::1]"] {
        assert_eq!(ask(&[], host), 204, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "10.1.2.3"] {
        assert_eq!(ask(&[], host), 403, "{host}");
    }
    for name in ["via", "x-real-ip", "x-forwarded-for", "x-forwarded-proto", "forwarded"] {
        assert_eq!(ask(&[(name, "192.0.2.1")], "localhost"), 403, "{name}");
    }
}

#[test]
fn a_request_falls_under_its_limit_however_it_is_written() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("limits.yaml");
    let limits = "limits: [{name: api, capacity: 1, refill: 0, match: {paths: [/api/*, /login], hosts: [A.example.org]}}]";
    std::fs::write(&file, limits).unwrap();
    let edge =
        Edge::builder(&server.url()).env("CONFIG", &file).env("DECISION_TIMEOUT", "5s").start();
    let ask = |host: &str, uri: &str| {
        let head = format!(
            "GET /auth HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             x-forwarded-host: {host}\r\nx-forwarded-uri: {uri}\r\n\r\n"
        );
        raw(edge.http, head.as_bytes()).status
    };
    assert_eq!(ask("a.example.org", "/api/x"), 200);
    for (host, uri) in [
        ("a.example.org", "/api/x"),
        ("A.EXAMPLE.org", "/api/x"),
        ("a.example.org.", "/api/x"),
        ("a.example.org:443", "/api/x"),
        ("a.example.org", "/%61pi/x"),
        ("a.example.org", "//api/x"),
        ("a.example.org", "/api/x?\u{e9}"),
        ("a.example.org", "/login"),
        ("a.example.org", "/login#1"),
        ("a.example.org", "/login#1?a"),
        ("a.example.org", "/api/\u{e9}"),
        ("a.example.org", "/b/../api/x"),
        ("a.example.org", "/./api/x?a"),
        ("a.example.org", "/%2e/api/x"),
    ] {
        assert_eq!(ask(host, uri), 429, "{host} {uri}");
    }
    assert_eq!(ask("b.example.org", "/api/x"), 200);
    assert_eq!(ask("a.example.org", "/apix"), 200);
}

#[test]
fn a_long_name_of_a_user_has_one_bucket_whoever_asks() {
    let server = Server::start();
    let edge = Edge::limiting(&server.url(), 2, 0).env("USER_HEADER", "x-user").start();
    let user = "u".repeat(200);
    let head = format!(
        "GET /auth HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-user: {user}\r\n\r\n"
    );
    assert_eq!(raw(edge.http, head.as_bytes()).status, 200);
    let body = format!(r#"{{"key":"{user}","limit":"user","tokens":2}}"#);
    let take = format!(
        "POST /v1/take HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(raw(edge.http, take.as_bytes()).status, 429, "one of two is left");
    let key = format!("/admin/bucket?user={user}");
    let page = raw(
        edge.ops,
        format!("GET {key} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes(),
    );
    assert_eq!(page.body.matches("<strong>1</strong> of 2 tokens").count(), 1, "{}", page.body);
}
