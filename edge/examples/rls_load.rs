//! Load for the rate limit service, as `make bench-edge` puts on it: four connections, as Envoy
//! has one for each of its threads, and sixteen requests in flight on each.
//!
//! usage: `rls_load ADDRESS SECONDS KEYS [RATE]`
//!
//! Each request asks for one of KEYS users of the domain `bench`. With RATE, requests begin at that
//! rate, in requests per second of all, and are not begun while all places are taken. Prints how
//! many were answered OK, and how many otherwise.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use claw_edge::proto::{Code, Entry, RateLimitDescriptor, RateLimitRequest, RateLimitResponse};
use claw_edge::rls::PATH;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;
use tokio::task::LocalSet;

const CONNECTIONS: u64 = 4;
const STREAMS: u64 = 16;

#[derive(Default)]
struct Counts {
    asked: Cell<u64>,
    granted: Cell<u64>,
    wrong: Cell<u64>,
}

struct Plan {
    url: String,
    began: Instant,
    length: Duration,
    keys: u64,
    rate: Option<u64>,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (Some(address), Some(seconds), Some(keys)) = (words.first(), words.get(1), words.get(2))
    else {
        eprintln!("usage: rls_load ADDRESS SECONDS KEYS [RATE]");
        std::process::exit(2);
    };
    let plan = Rc::new(Plan {
        url: format!("http://{address}{PATH}"),
        began: Instant::now(),
        length: Duration::from_secs(seconds.parse().unwrap()),
        keys: keys.parse().unwrap(),
        rate: words.get(3).map(|rate| rate.parse().unwrap()),
    });
    let counts = Rc::new(Counts::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (sender, connection) =
                handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            for _ in 0..STREAMS {
                let client = client(sender.clone(), Rc::clone(&plan), Rc::clone(&counts));
                clients.push(tokio::task::spawn_local(client));
            }
        }
        for client in clients {
            client.await.unwrap();
        }
    });
    println!("answers {} wrong {}", counts.granted.get(), counts.wrong.get());
}

async fn client(sender: SendRequest<Full<Bytes>>, plan: Rc<Plan>, counts: Rc<Counts>) {
    while plan.began.elapsed() < plan.length {
        let number = counts.asked.get();
        counts.asked.set(number + 1);
        if let Some(rate) = plan.rate {
            let due = plan.began + Duration::from_micros(number * 1_000_000 / rate);
            tokio::time::sleep_until(due.into()).await;
        }
        // Every key comes in turn, in an order that puts no neighbours together.
        let key = number.wrapping_mul(7_919) % plan.keys;
        match ask(sender.clone(), &plan.url, key).await {
            Some(Code::Ok) => counts.granted.set(counts.granted.get() + 1),
            _ => counts.wrong.set(counts.wrong.get() + 1),
        }
    }
}

async fn ask(mut sender: SendRequest<Full<Bytes>>, url: &str, key: u64) -> Option<Code> {
    let entries = vec![Entry { key: "user".into(), value: format!("user-{key}") }];
    let message = RateLimitRequest {
        domain: "bench".into(),
        descriptors: vec![RateLimitDescriptor { entries, ..Default::default() }],
        hits_addend: 0,
    };
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut frame).unwrap();
    let request = hyper::Request::post(url)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(frame.freeze()))
        .unwrap();
    sender.ready().await.ok()?;
    let response = sender.send_request(request).await.ok()?;
    let body = response.into_body().collect().await.ok()?.to_bytes();
    Some(RateLimitResponse::decode(body.get(5..)?).ok()?.overall_code())
}
