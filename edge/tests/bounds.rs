//! What a client may ask of the service: so many connections, so large, so slow.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use claw_testkit::{eventually, free_port};
use common::http::Client;
use common::{Edge, PATIENCE, TICK, server};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Whether the service has closed a connection, without an answer.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    match stream.read(&mut [0; 64]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn an_address_in_use_ends_the_service_at_its_start() {
    let server = server();
    let first = Edge::limiting(&server.url(), 5, 5).start();
    for name in ["HTTP_ADDR", "OPS_ADDR"] {
        let taken = if name == "HTTP_ADDR" { first.http } else { first.ops };
        let mut second =
            Edge::limiting(&server.url(), 5, 5).env(name, format!("127.0.0.1:{taken}")).launch();
        assert!(!second.wait().success(), "{name}");
        let expected = format!("127.0.0.1:{taken}: Address already in use");
        assert_eq!(second.logged(&expected), 1, "{name}: {}", second.log());
    }
    assert_eq!(first.rate("ann").status, 200);
}

/// Workers share their listeners, so nothing else would say so.
#[test]
fn two_addresses_that_are_one_end_the_service_at_its_start() {
    let server = server();
    let port = free_port();
    for (one, other) in [("HTTP_ADDR", "GRPC_ADDR"), ("GRPC_ADDR", "PROXY_ADDR")] {
        let mut edge = Edge::builder(&server.url())
            .env("UPSTREAM", "http://127.0.0.1")
            .env("PROXY_ADDR", format!("127.0.0.1:{}", free_port()))
            .env(one, format!("127.0.0.1:{port}"))
            .env(other, format!("0.0.0.0:{port}"))
            .launch();
        assert!(!edge.wait().success(), "{one} {other}");
        let expected = format!("{one} and {other} are one address: 0.0.0.0:{port}");
        assert_eq!(edge.logged(&expected), 1, "{}", edge.log());
    }
}

#[test]
fn connections_beyond_the_bound_are_closed_at_once() {
    let server = server();
    let edge = Edge::limiting(&server.url(), 100, 0).env("MAX_CONNECTIONS", "10").start();
    let mut open: Vec<Client> = (0..10).map(|_| edge.client()).collect();
    for client in &mut open {
        assert_eq!(client.rate("ann").status, 200);
    }
    assert!(edge.client().try_rate("ann").is_err(), "the eleventh");
    assert_eq!(edge.metric("operator_connections_refused_total", ""), 1);
    assert!(edge.is_ready(), "the address for operators has room of its own");
    drop(open.pop());
    eventually(PATIENCE, TICK, "a place", || edge.client().try_rate("ann").is_ok());
    assert_eq!(edge.logged("MAX_CONNECTIONS are open"), 1, "{}", edge.log());
}

#[test]
fn what_is_no_request_is_refused_without_a_body_and_the_connection_closed() {
    let server = server();
    let edge = Edge::limiting(&server.url(), 100, 0).start();
    let with = |field: &str| format!("GET /nothing HTTP/1.1\r\nhost: test\r\n{field}\r\n\r\n");
    let long = |bytes: usize| format!("x: {}", "x".repeat(bytes));
    for (request, status) in [
        (with(&long(8 * 1024)), 404),
        (with(&long(20 * 1024)), 431),
        (with("a b: c"), 400),
        (with("content-length: x"), 400),
        (with("content-length: 1\r\ncontent-length: 2"), 400),
        ("GET /nothing HTTP/9.1\r\n\r\n".to_owned(), 400),
        ("\0\r\n\r\n".to_owned(), 400),
    ] {
        let mut client = edge.client();
        client.send(request.as_bytes()).unwrap();
        let response = client.response().unwrap();
        assert_eq!(response.status, status, "{request:.60}");
        let is_read = status == 404;
        assert!(
            is_read != response.body.is_empty() && is_read != response.closes(),
            "{request:.60}"
        );
        assert_eq!(response.field("x-request-id").is_some(), is_read, "{request:.60}");
    }
    assert_eq!(edge.metric("operator_requests_total", r#"route="unknown""#), 1);
}

#[test]
fn slow_clients_are_let_go() {
    let server = server();
    let edge = Edge::limiting(&server.url(), 100, 0).env("CLIENT_TIMEOUT", "300ms").start();
    let connect = || TcpStream::connect(("127.0.0.1", edge.http)).unwrap();
    for (what, sent) in
        [("nothing", ""), ("half of the fields", "POST /rating HTTP/1.1\r\nhost: test\r\n")]
    {
        let mut stream = connect();
        stream.write_all(sent.as_bytes()).unwrap();
        eventually(PATIENCE, TICK, what, || is_closed(&mut stream));
    }
    let mut client = edge.client();
    let half = "POST /rating HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n\
        content-length: 100\r\n\r\n{";
    client.send(half.as_bytes()).unwrap();
    let response = client.response().unwrap();
    assert_eq!((response.status, response.closes()), (408, true), "half of a body");
}

#[test]
fn ten_thousand_slow_connections_stop_no_decision() {
    const SLOW: usize = 10_000;
    let limit = getrlimit(Resource::Nofile);
    let needed = SLOW as u64 + 256;
    let current = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
    setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: limit.maximum }).unwrap();
    if current < needed {
        claw_testkit::skipped(
            "slow connections",
            &format!("{current} open files are allowed, {needed} needed"),
        );
        return;
    }
    let server = server();
    let edge = Edge::limiting(&server.url(), 1000, 0).env("DECISION_TIMEOUT", "10s").start();
    let slow: Vec<TcpStream> = (0..SLOW)
        .map(|index| {
            // As many to each address as either may have where 20,000 files may be open.
            let (port, begin) = match index % 2 {
                0 => (edge.http, &b"POST /rating HTTP/1.1\r\nhost: te"[..]),
                _ => (edge.grpc, &b"PRI * HTTP/2.0\r\n"[..]),
            };
            let mut stream = TcpStream::connect(("127.0.0.1", port))
                .unwrap_or_else(|e| panic!("connection {index}: {e}"));
            stream.write_all(begin).unwrap();
            stream
        })
        .collect();
    for _ in 0..100 {
        assert_eq!(edge.rate("ann").status, 200);
    }
    assert_eq!(edge.metric("operator_connections_refused_total", ""), 0);
    drop(slow);
}
