//! Requests, as a collector of OpenTelemetry sees them: a stand-in that reads what is sent with
//! OpenTelemetry's own description of the messages.

#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use claw_testkit::{Server, eventually};
use common::api::{Response, get, send, start};
use common::{Edge, PATIENCE, TICK, rls};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A collector, and the spans that it is sent, each with the name of its service.
struct Collector {
    port: u16,
    spans: Receiver<(String, Span)>,
}

impl Collector {
    /// One that answers every batch with a status.
    fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, spans) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, sender) = (stream.unwrap(), sender.clone());
                thread::spawn(move || serve(stream, status, &sender));
            }
        });
        Self { port, spans }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn next(&self) -> (String, Span) {
        self.spans.recv_timeout(PATIENCE).expect("a span")
    }
}

fn serve(stream: TcpStream, status: u16, spans: &Sender<(String, Span)>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_ascii_lowercase()),
            }
        }
        assert_eq!(head[0], "post /v1/traces http/1.1");
        assert!(head.contains(&"content-type: application/x-protobuf".to_owned()), "{head:?}");
        let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        for of in ExportTraceServiceRequest::decode(&*body).unwrap().resource_spans {
            let name = text(&of.resource.unwrap().attributes, "service.name").unwrap();
            for span in of.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let _ = spans.send((name.clone(), span));
            }
        }
        let answer = format!("HTTP/1.1 {status} said\r\ncontent-length: 0\r\n\r\n");
        stream.get_mut().write_all(answer.as_bytes()).unwrap();
    }
}

fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref())
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    match value(attributes, key)? {
        Value::StringValue(text) => Some(text.clone()),
        other => panic!("{key}: {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn limiting(server: &Server, more: &[(&str, &str)]) -> Edge {
    let limits = [("USER_CAPACITY", "1"), ("USER_REFILL", "0"), ("USER_HEADER", "x-user")];
    start(&server.url(), &[&limits[..], more].concat())
}

/// A request of ann's within a trace.
fn traced(edge: &Edge, flags: &str) -> Response {
    let parent = format!("00-{TRACE}-{PARENT}-{flags}");
    send(edge.http, "GET", "/auth", &[("x-user", "ann"), ("traceparent", &parent)], "")
}

#[test]
fn each_request_is_a_span_of_its_trace() {
    let (server, collector) = (Server::start(), Collector::start(200));
    let url = collector.url();
    let settings =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_SERVICE_NAME", "limiter")];
    let edge = limiting(&server, &settings);
    assert_eq!(traced(&edge, "01").status, 200);
    assert_eq!(traced(&edge, "00").status, 429, "not traced, since the caller says so");
    assert_eq!(traced(&edge, "01").status, 429);
    get(edge.ops, "/metrics");
    get(edge.http, "/nothing/ann").problem(404);

    let expected = [("auth", "allowed", 200, true), ("auth", "limited", 429, true)];
    for (route, result, status, is_within) in
        expected.into_iter().chain([("unknown", "invalid", 404, false)])
    {
        let (name, span) = collector.next();
        assert_eq!(name, "limiter");
        assert_eq!((span.name.as_str(), span.kind), (route, 2));
        let told: BTreeMap<&str, String> = ["claw.route", "claw.result"]
            .map(|key| (key, text(&span.attributes, key).unwrap()))
            .into();
        assert_eq!(told["claw.route"], route);
        assert_eq!(told["claw.result"], result);
        let told = value(&span.attributes, "http.response.status_code");
        assert_eq!(told, Some(&Value::IntValue(status)));
        assert_eq!(hex(&span.trace_id) == TRACE, is_within);
        assert_eq!(hex(&span.parent_span_id), if is_within { PARENT } else { "" });
        assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
        let took = span.end_time_unix_nano - span.start_time_unix_nano;
        assert!((1..10_000_000_000).contains(&took), "{took} ns");
        assert!(!format!("{span:?}").contains("ann"), "no user is told: {span:?}");
    }
    let sent = || edge.metric("operator_spans_total", r#"result="sent""#);
    eventually(PATIENCE, TICK, "all of them to be counted", || sent() == 3);
    assert!(collector.spans.try_recv().is_err(), "and nothing else");
}

#[test]
fn what_envoy_asks_is_a_span_too() {
    let (server, collector) = (Server::start(), Collector::start(200));
    let url = collector.url();
    let file = tempfile::NamedTempFile::new().unwrap();
    let limits = "{domain: shop, descriptors: [{key: user, rate_limit: {unit: hour, requests_per_unit: 1}}]}";
    std::fs::write(file.path(), limits).unwrap();
    let file = file.path().to_str().unwrap();
    let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("RLS_CONFIG", file)];
    let edge = limiting(&server, &settings);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut request = tonic::Request::new(rls::request("shop: user=ann"));
    let parent = format!("00-{TRACE}-{PARENT}-01");
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    runtime.block_on(async { rls::Client::new(edge.grpc).send(request).await }).unwrap();
    let (_, span) = collector.next();
    assert_eq!((span.name.as_str(), hex(&span.trace_id).as_str()), ("rls", TRACE));
    assert_eq!(hex(&span.parent_span_id), PARENT);
    assert_eq!(text(&span.attributes, "claw.result").unwrap(), "allowed");
}

#[test]
fn what_is_left_is_sent_at_the_end() {
    let (server, collector) = (Server::start(), Collector::start(200));
    let url = collector.url();
    let mut edge = limiting(&server, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)]);
    traced(&edge, "01");
    edge.signal(2);
    assert!(edge.wait().success());
    assert_eq!(collector.next().1.name, "auth");
}

#[test]
fn a_collector_that_fails_holds_up_nobody() {
    let server = Server::start();
    let refusing = Collector::start(503);
    for url in [refusing.url(), "http://127.0.0.1:1".to_owned()] {
        let edge = limiting(&server, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)]);
        for _ in 0..20 {
            assert!([200, 429].contains(&traced(&edge, "01").status));
        }
        let failed = || edge.metric("operator_spans_total", r#"result="failed""#);
        eventually(PATIENCE, TICK, "a batch to fail", || failed() > 0);
        assert_eq!(edge.logged("the collector of traces does not take them"), 1);
    }
    // It takes connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://127.0.0.1:{}", silent.local_addr().unwrap().port());
    let mut edge = limiting(&server, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)]);
    assert!([200, 429].contains(&traced(&edge, "01").status));
    edge.signal(2);
    assert!(edge.wait().success(), "and it ends");
}

#[test]
fn chance_decides_and_without_a_collector_nothing_is_traced() {
    let (server, collector) = (Server::start(), Collector::start(200));
    let url = collector.url();
    for (settings, is_traced) in [
        (vec![], false),
        (vec![("OTEL_EXPORTER_OTLP_ENDPOINT", &*url), ("OTEL_TRACES_SAMPLER_ARG", "0")], false),
        (vec![("OTEL_EXPORTER_OTLP_ENDPOINT", &*url), ("OTEL_TRACES_SAMPLER_ARG", "1")], true),
    ] {
        let mut edge = limiting(&server, &settings);
        send(edge.http, "GET", "/auth", &[("x-user", "bob")], "");
        edge.signal(2);
        assert!(edge.wait().success());
        // All was sent before it ended.
        let seen = collector.spans.recv_timeout(Duration::from_millis(100));
        assert_eq!(seen.is_ok(), is_traced, "{settings:?}");
    }
    for (name, wrong) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://collector"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "/v1/traces"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.1"),
    ] {
        let mut edge = Edge::builder(&server.url()).env(name, wrong).launch();
        assert!(!edge.wait().success());
        let flag = name.to_lowercase().replace('_', "-");
        let log = edge.log();
        assert!(log.contains(name) || log.contains(&flag), "{log}");
    }
}
