//! The end of the service: it says so first, and no request is lost by it.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod common;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use axum::body::Body;
use claw_testkit::eventually;
use common::http::Client;
use common::{Edge, PATIENCE, TICK, server};
use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};

const SIGTERM: i32 = 15;
const SIGINT: i32 = 2;

#[test]
fn clients_that_keep_connections_open_leave_without_a_failed_request() {
    let server = server();
    // As behind a balancer: those whom one service sends away go to the other.
    let edges = [(); 2].map(|()| {
        Edge::limiting(&server.url(), 1_000_000, 0).env("DECISION_TIMEOUT", "10s").start()
    });
    let [mut ending, other] = edges;
    let (served, moved) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..32)
            .map(|_| {
                let (port, other) = (ending.http, &other);
                let (served, moved, is_over) = (&served, &moved, &is_over);
                scope.spawn(move || -> io::Result<()> {
                    let mut client = Client::try_connect(port)?;
                    while !is_over.load(Ordering::Relaxed) {
                        let response = client.try_rate("ann")?;
                        assert_eq!(response.status, 200);
                        served.fetch_add(1, Ordering::Relaxed);
                        if response.closes() {
                            moved.fetch_add(1, Ordering::Relaxed);
                            client = other.client();
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        eventually(PATIENCE, TICK, "load", || served.load(Ordering::Relaxed) > 500);
        ending.signal(SIGTERM);
        assert!(ending.wait().success(), "{}", ending.log());
        is_over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().unwrap().expect("no request fails");
        }
    });
    assert_eq!(moved.load(Ordering::Relaxed), 32, "each client was told once");
}

#[test]
fn readiness_turns_first_and_new_connections_are_still_served() {
    let server = server();
    let mut edge = Edge::limiting(&server.url(), 100, 0).env("DRAIN_NOTICE", "5s").start();
    assert!(edge.is_ready());
    edge.signal(SIGTERM);
    eventually(PATIENCE, TICK, "readiness to turn", || !edge.is_ready());
    let response = edge.rate("ann");
    assert_eq!((response.status, response.closes()), (200, true));
    assert!(edge.is_alive());
    // Somebody at a keyboard need not wait for balancers.
    edge.signal(SIGINT);
    assert!(edge.wait().success());
}

#[test]
fn a_request_that_has_begun_is_answered_and_one_that_never_ends_is_not_waited_for() {
    let server = server();
    let mut edge =
        Edge::limiting(&server.url(), 100, 0).env("DRAIN_NOTICE", "0ms").env("DRAIN", "3s").start();
    let body = r#"{"user_id":"ann","item_id":"book","rating":4}"#;
    let head = format!(
        "POST /rating HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let [mut slow, mut endless] = [(); 2].map(|()| edge.client());
    for client in [&mut slow, &mut endless] {
        client.send(head.as_bytes()).unwrap();
        client.send(&body.as_bytes()[..10]).unwrap();
    }
    // Both requests have been taken up when a later one is answered.
    assert_eq!(edge.rate("bob").status, 200);
    let started = Instant::now();
    edge.signal(SIGTERM);
    eventually(PATIENCE, TICK, "the listener to close", || Client::try_connect(edge.http).is_err());
    slow.send(&body.as_bytes()[10..]).unwrap();
    let response = slow.response().expect("an answer");
    assert_eq!((response.status, response.closes()), (200, true));
    assert!(edge.wait().success());
    assert!(started.elapsed() >= Duration::from_secs(2), "it waited for DRAIN");
    assert_eq!(edge.logged("still open at the end of DRAIN"), 1, "{}", edge.log());
}

#[test]
fn streams_of_http2_end_before_their_connection_does() {
    let server = server();
    let mut edge = Edge::limiting(&server.url(), 1_000_000, 0)
        .env("DECISION_TIMEOUT", "10s")
        .env("DRAIN_NOTICE", "200ms")
        .start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let served = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", edge.http)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (mut sender, connection) =
            http2::handshake::<_, _, Body>(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        let mut served = 0;
        // Ready no more once the service has said that it goes.
        while sender.ready().await.is_ok() {
            if served == 200 {
                edge.signal(SIGTERM);
            }
            let request = Request::get(format!("http://127.0.0.1:{}/auth", edge.http))
                .header("x-user", "ann")
                .body(Body::empty())
                .unwrap();
            let response = match sender.send_request(request).await {
                Ok(response) => response,
                // Not sent: the connection went between the two calls.
                Err(error) if error.is_canceled() => break,
                Err(error) => panic!("a request failed: {error:?}"),
            };
            assert_eq!(response.status(), StatusCode::OK);
            response.into_body().collect().await.expect("a body");
            served += 1;
        }
        served
    });
    assert!(served >= 200, "{served}");
    assert!(edge.wait().success());
}
