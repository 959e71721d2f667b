//! Envoy's rate limit service as its clients see it: Envoy itself, and programs that speak gRPC.

#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use claw_edge::proto::{HeaderValue, RateLimitResponse};
use claw_edge::rls::{NAME, PATH};
use claw_testkit::{Server, eventually, free_port, spawn};
use common::http::Response;
use common::relay::Relay;
use common::rls::{Client, request};
use common::tools::{block, envoy};
use common::{Builder, Edge, PATIENCE, TICK, server};
use http_body_util::BodyExt;
use tempfile::TempDir;
use tonic::Status;
use tonic::body::Body;
use tonic_health::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tower_service::Service;

const TERM: i32 = 15;

/// A service with these descriptors, and the folder that they are in.
fn builder(redis: &Server, descriptors: &str) -> (Builder, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("limits.yaml"), descriptors).unwrap();
    let edge = Edge::builder(&redis.url()).env("RLS_CONFIG", dir.path());
    (edge.env("DECISION_TIMEOUT", "5s"), dir)
}

const LIMITS: &str = "
domain: d
descriptors:
- {key: two, rate_limit: {unit: day, requests_per_unit: 2}, metadata: {of: two, both: {a: 1, b: x}}}
- {key: five, rate_limit: {unit: hour, requests_per_unit: 5}, metadata: {of: five, both: {b: z, c: [true, null]}}}
- {key: shadow, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 1}}
- {key: q, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 1}}
- {key: free, rate_limit: {unlimited: true}}
- {key: none, rate_limit: {unit: week, requests_per_unit: 0}}
";

#[tokio::test]
async fn how_long_to_wait_is_told_in_whole_seconds() {
    let redis = server();
    let (edge, _dir) = builder(&redis, LIMITS);
    let edge = edge.start();
    let client = Client::new(edge.grpc);
    #[rustfmt::skip]
    let table = [
        // While a limit refuses, until the request passes; else until all is back.
        ("d: two=a | free=x | unknown=x", [Some(43_200), None, None]),
        ("d: two=a | free=x | unknown=x", [Some(86_400), None, None]),
        ("d: two=a | free=x | unknown=x", [Some(43_200), None, None]),
        // What never passes says the unit.
        ("d*3: two=a | none=x | unknown=x", [Some(86_400), Some(604_800), None]),
        ("d: five=a +2 | five=b +0 | none=x +0", [Some(1_440), Some(0), Some(604_800)]),
    ];
    for (text, expected) in table {
        let response = client.ask(request(text)).await.unwrap();
        for (status, expected) in response.statuses.iter().zip(expected) {
            let told = status.duration_until_reset.map(|duration| duration.seconds);
            // What was taken a moment ago has come back in part.
            let is_close = match (told, expected) {
                (Some(told), Some(expected)) => (expected - 30..=expected).contains(&told),
                (told, expected) => told == expected,
            };
            assert!(is_close, "{text}: {told:?}, not {expected:?}");
        }
    }
}

/// The fields of a response, in one line.
fn fields(response: &RateLimitResponse) -> String {
    let field = |field: &HeaderValue| format!("{}: {}", field.key, field.value);
    response.response_headers_to_add.iter().map(field).collect::<Vec<_>>().join(", ")
}

#[tokio::test]
async fn fields_are_of_the_limit_with_least_left() {
    type Row = (&'static str, &'static str);
    #[rustfmt::skip]
    let table: [(&[Row], &[Row]); 3] = [
        (&[], &[("d: two=a", "")]),
        (&[("LIMIT_RESPONSE_HEADERS_ENABLED", "true")], &[
            ("d: unknown=a | free=x", ""),
            ("d: two=a | five=a", "RateLimit-Limit: 2, RateLimit-Remaining: 1, RateLimit-Reset: 43200"),
            ("d*4: five=a", "RateLimit-Limit: 5, RateLimit-Remaining: 0, RateLimit-Reset: 3600"),
            ("d*0: two=b | five=a", "RateLimit-Limit: 5, RateLimit-Remaining: 0, RateLimit-Reset: 720"),
            // A quota that is over refuses nothing by itself; a limit that only watches may be over.
            ("d: q=a", "RateLimit-Limit: 1, RateLimit-Remaining: 0, RateLimit-Reset: 86400"),
            ("d: q=a | two=c", "RateLimit-Limit: 1, RateLimit-Remaining: 0, RateLimit-Reset: 86400"),
            ("d: two=d | shadow=a +2", "RateLimit-Limit: 1, RateLimit-Remaining: 0, RateLimit-Reset: 172800"),
        ]),
        (&[("LIMIT_RESPONSE_HEADERS_ENABLED", "1"), ("LIMIT_LIMIT_HEADER", "a"),
            ("LIMIT_REMAINING_HEADER", "b"), ("LIMIT_RESET_HEADER", "c")],
            &[("d: two=a", "a: 2, b: 1, c: 43200")]),
    ];
    for (settings, rows) in table {
        let redis = server();
        let (edge, _dir) = builder(&redis, LIMITS);
        let edge = settings.iter().fold(edge, |edge, (name, value)| edge.env(name, value)).start();
        let client = Client::new(edge.grpc);
        for (text, expected) in rows {
            let told = fields(&client.ask(request(text)).await.unwrap());
            // The seconds may be a few less on a slow machine.
            let (told, expected) = (without_last_digits(&told), without_last_digits(expected));
            assert_eq!(told, expected, "{settings:?} {text}");
        }
    }
}

/// A line without what of its last number a slow machine changes.
fn without_last_digits(line: &str) -> String {
    match line.rsplit_once(' ') {
        Some((rest, seconds)) => {
            format!("{rest} {}", (seconds.parse::<u64>().unwrap() + 60) / 120)
        }
        None => line.to_owned(),
    }
}

#[tokio::test]
async fn other_filters_get_what_was_asked_and_what_passed() {
    let redis = server();
    let (edge, _dir) = builder(&redis, LIMITS);
    let edge = edge.env("RESPONSE_DYNAMIC_METADATA", "true").start();
    let client = Client::new(edge.grpc);
    #[rustfmt::skip]
    let table = [
        ("d*2: two=a more=x | five=a +3 | k= @7/day",
            r#"{"descriptors":[{"entries":["two=a","more=x"]},{"entries":["five=a"],"hitsAddend":3},{"entries":["k="],"limit":"requests_per_unit:7 unit:DAY"}],"domain":"d","hitsAddend":2,"metadata":{"both":{"b":"z","c":[true,null]},"of":"five"}}"#),
        ("d: two=b | five=b",
            r#"{"descriptors":[{"entries":["two=b"]},{"entries":["five=b"]}],"domain":"d","metadata":{"both":{"a":1,"b":"x","c":[true,null]},"of":"two"}}"#),
        // What is over is not told; what only watches is.
        ("d*9: two=b", r#"{"descriptors":[{"entries":["two=b"]}],"domain":"d","hitsAddend":9}"#),
    ];
    for (text, expected) in table {
        let response = client.ask(request(text)).await.unwrap();
        assert_eq!(json(&response.dynamic_metadata.unwrap()), expected, "{text}");
    }
}

/// A structure as JSON, with its names in order.
fn json(structure: &prost_types::Struct) -> String {
    fn of(value: &prost_types::Value) -> serde_json::Value {
        use prost_types::value::Kind;
        match value.kind.as_ref().unwrap() {
            Kind::NullValue(_) => serde_json::Value::Null,
            Kind::NumberValue(number) => serde_json::json!(*number as i64),
            Kind::StringValue(text) => serde_json::json!(text),
            Kind::BoolValue(flag) => serde_json::json!(flag),
            Kind::StructValue(structure) => map(structure),
            Kind::ListValue(list) => list.values.iter().map(of).collect(),
        }
    }
    fn map(structure: &prost_types::Struct) -> serde_json::Value {
        let fields = structure.fields.iter().map(|(name, value)| (name.clone(), of(value)));
        serde_json::Value::Object(fields.collect())
    }
    map(structure).to_string()
}

#[tokio::test]
async fn a_message_that_cannot_be_read_has_a_status() {
    let redis = server();
    let (edge, _dir) = builder(&redis, LIMITS);
    let edge = edge.start();
    let mut channel = Client::new(edge.grpc).channel;
    let framed = |message: &[u8]| {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[0], &length[..], message].concat()
    };
    let (good, garbage) = (framed(b"\x0a\x01d\x12\x00"), framed(b"\xff\xff\xff"));
    let compressed = [&[1], &good[1..]].concat();
    let twice = [good.as_slice(), good.as_slice()].concat();
    let not_text = framed(b"\x0a\x02\xff\xfe");
    let large = framed(&vec![0; 300 << 10]);
    #[rustfmt::skip]
    let table = [
        (PATH, good.clone(), "0", ""),
        (PATH, Vec::new(), "3", "the request has no message"),
        (PATH, good[..3].to_vec(), "3", "the request has no message"),
        (PATH, good[..7].to_vec(), "3", "the request is not one whole message"),
        (PATH, twice, "3", "the request is not one whole message"),
        (PATH, compressed, "12", "messages are read uncompressed only"),
        (PATH, garbage, "3", "the message cannot be read"),
        (PATH, not_text, "3", "the message cannot be read"),
        (PATH, large, "8", "the request is larger than 65536 bytes"),
        ("/envoy.service.ratelimit.v3.RateLimitService/Other", good.clone(), "12", ""),
        ("/elsewhere", good, "12", ""),
    ];
    for (path, body, code, message) in table {
        let request = http::Request::post(format!("http://edge{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Body::new(http_body_util::Full::from(body)))
            .unwrap();
        std::future::poll_fn(|context| channel.poll_ready(context)).await.unwrap();
        let response = channel.call(request).await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let (head, body) = response.into_parts();
        let trailers = body.collect().await.unwrap().trailers().cloned().unwrap_or_default();
        let field = |name| {
            let value = head.headers.get(name).or(trailers.get(name)).map(|v| v.to_str().unwrap());
            value.unwrap_or_default().replace("%20", " ")
        };
        let told = field("grpc-message");
        assert!(field("grpc-status") == code && told.starts_with(message), "{path}: {told}");
    }
    assert_eq!(edge.metric("operator_requests_total", "invalid"), 8);
}

#[tokio::test]
async fn a_message_that_does_not_come_is_not_waited_for() {
    let redis = server();
    let (edge, _dir) = builder(&redis, LIMITS);
    let edge = edge.env("CLIENT_TIMEOUT", "200ms").start();
    let mut channel = Client::new(edge.grpc).channel;
    let never = tokio_stream::pending::<Result<hyper::body::Frame<bytes::Bytes>, Status>>();
    let request = http::Request::post(format!("http://edge{PATH}"))
        .header("content-type", "application/grpc")
        .body(Body::new(http_body_util::StreamBody::new(never)))
        .unwrap();
    std::future::poll_fn(|context| channel.poll_ready(context)).await.unwrap();
    let response = tokio::time::timeout(PATIENCE, channel.call(request)).await.unwrap().unwrap();
    assert_eq!(response.headers()["grpc-status"], "4", "{response:?}");
}

#[tokio::test]
async fn however_much_a_request_asks_it_is_answered_in_the_time_of_a_few() {
    const ROUND_TRIP: Duration = Duration::from_millis(100);
    let redis = server();
    let relay = Relay::to(redis.port());
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("limits.yaml"), LIMITS).unwrap();
    let edge = Edge::builder(&relay.url()).env("RLS_CONFIG", dir.path());
    let edge = edge.env("DECISION_TIMEOUT", "5s").start();
    let client = Client::new(edge.grpc);
    assert_eq!(client.line("d: five=a").await, "OK: ok 4 of 5/hour");
    relay.delay(ROUND_TRIP);
    let many = |hits: &str, key: &str| {
        let descriptors: Vec<String> = (0..50).map(|of| format!("{key}={of} {hits}")).collect();
        format!("d: {}", descriptors.join(" | "))
    };
    let all = |status: &str| vec![status; 50].join(" | ");
    for (what, asked, told) in [
        ("takes", many("+5", "five"), format!("OK: {}", all("ok 0 of 5/hour"))),
        ("gives", many("-3", "five"), format!("OK: {}", all("ok 3 of 5/hour"))),
        ("takes beyond", many("+4", "five"), format!("OVER: {}", all("over 0 of 5/hour"))),
        ("takes that watch", many("+1", "shadow"), format!("OK: {}", all("ok 0 of 1/day"))),
    ] {
        let begun = Instant::now();
        assert_eq!(client.line(&asked).await, told, "{what}");
        let took = begun.elapsed();
        assert!(took < ROUND_TRIP * 15, "{what}: {took:?}");
    }
}

#[tokio::test]
async fn hits_are_counted_by_limit_and_by_what_it_said() {
    let redis = server();
    let descriptors = "
domain: d
descriptors:
- {key: ten, rate_limit: {unit: day, requests_per_unit: 10}}
- {key: one, detailed_metric: true, rate_limit: {unit: day, requests_per_unit: 1}}
- {key: five, rate_limit: {unit: day, requests_per_unit: 5}}
- {key: watch, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 1}}
";
    let (edge, _dir) = builder(&redis, descriptors);
    let edge = edge.start();
    let client = Client::new(edge.grpc);
    for text in [
        "d*8: ten=a",
        "d: ten=a",
        "d*3: ten=a",
        "d: ten=a +0",
        "d: one=x",
        "d: one=x",
        "d: watch=a +5",
        "e: ten=a",
        // Refused as a whole: the hits that would pass are taken where they are named, and else not.
        "d: five=a +2 | one=x",
        "d: five=a | one=x | watch=b",
        "d: five=a | watch=b",
    ] {
        client.ask(request(text)).await.unwrap();
    }
    #[rustfmt::skip]
    let table = [
        ("operator_limit_hits_total", r#"limit="d.ten",result="within_limit""#, 8),
        ("operator_limit_hits_total", r#"limit="d.ten",result="near_limit""#, 1),
        ("operator_limit_hits_total", r#"limit="d.ten",result="over_limit""#, 3),
        ("operator_limit_hits_total", r#"limit="d.one_x",result="near_limit""#, 1),
        ("operator_limit_hits_total", r#"limit="d.one_x",result="over_limit""#, 3),
        ("operator_limit_hits_total", r#"limit="d.watch",result="shadow_mode""#, 6),
        ("operator_limit_hits_total", r#"limit="d.watch",result="near_limit""#, 1),
        ("operator_limit_hits_total", r#"limit="d.five",result="within_limit""#, 3),
        ("operator_limit_hits_total", r#"limit="d.five",result="near_limit""#, 0),
        ("operator_unknown_domains_total", "", 1),
        ("operator_rate_limited_total", r#"limit="d.ten""#, 1),
        ("operator_rate_limited_total", r#"limit="d.one""#, 3),
    ];
    for (name, labels, expected) in table {
        assert_eq!(edge.metric(name, labels), expected, "{name} {labels}");
    }
}

#[tokio::test]
async fn without_descriptor_files_nobody_is_let_through_unseen() {
    let redis = server();
    let edge = Edge::builder(&redis.url()).start();
    let told = "FailedPrecondition: there are no limits: RLS_CONFIG is not set";
    assert_eq!(Client::new(edge.grpc).line("d: two=a").await, told);
}

#[tokio::test]
async fn without_redis_envoy_is_told_so() {
    let mut redis = server();
    let (edge, _dir) = builder(&redis, LIMITS);
    let edge = edge.env("DECISION_TIMEOUT", "500ms").start();
    let client = Client::new(edge.grpc);
    assert_eq!(client.line("d: two=a").await, "OK: ok 1 of 2/day");
    redis.crash();
    let told = "Unavailable: the limits cannot be asked for";
    for (text, expected) in [
        ("d: two=a", told),
        ("d: two=a | shadow=a", told),
        ("d: two=a -1", told),
        // These need no server, or only watch.
        ("d: free=x | unknown=x", "OK: ok unlimited | ok"),
        ("d: none=x", "OVER: over 0 of 0/week"),
        ("d: shadow=a", "OK: ok 1 of 1/day"),
        ("elsewhere: two=a", "OK: ok"),
    ] {
        assert_eq!(client.line(text).await, expected, "{text}");
    }
    #[rustfmt::skip]
    let table = [
        ("operator_blind_decisions_total", r#"limit="d.two",decided="left_to_caller""#, 2),
        ("operator_blind_decisions_total", r#"limit="d.shadow",decided="allowed""#, 2),
        ("operator_blind_decisions_total", "", 4),
        ("operator_limit_hits_total", r#"limit="d.shadow""#, 0),
        ("operator_limit_hits_total", r#"limit="d.two""#, 1),
    ];
    for (name, labels, expected) in table {
        assert_eq!(edge.metric(name, labels), expected, "{name} {labels}");
    }
}

/// What health says of a service, over a connection of its own.
async fn health(port: u16, service: &str) -> Result<i32, tonic::Code> {
    let mut client = HealthClient::new(Client::new(port).channel);
    let request = HealthCheckRequest { service: service.to_owned() };
    client.check(request).await.map(|r| r.into_inner().status).map_err(|status| status.code())
}

#[tokio::test]
async fn health_turns_before_the_listener_closes() {
    let redis = server();
    let (edge, _dir) = builder(&redis, LIMITS);
    let mut edge = edge.env("DRAIN_NOTICE", "3s").start();
    let (serving, not_serving) = (ServingStatus::Serving as i32, ServingStatus::NotServing as i32);
    for service in ["", NAME] {
        assert_eq!(health(edge.grpc, service).await, Ok(serving), "{service}");
    }
    assert_eq!(health(edge.grpc, "elsewhere").await, Err(tonic::Code::NotFound));
    let mut watch = HealthClient::new(Client::new(edge.grpc).channel);
    let mut watched =
        watch.watch(HealthCheckRequest { service: NAME.to_owned() }).await.unwrap().into_inner();
    let mut next =
        async || -> Option<HealthCheckResponse> { watched.message().await.unwrap_or(None) };
    assert_eq!(next().await.map(|response| response.status), Some(serving));
    let client = Client::new(edge.grpc);
    edge.signal(TERM);
    assert_eq!(next().await.map(|response| response.status), Some(not_serving));
    // New connections are still served, and hear of it, as soon as their worker has.
    let started = std::time::Instant::now();
    while health(edge.grpc, "").await != Ok(not_serving) {
        assert!(started.elapsed() < PATIENCE, "a worker goes on as if nothing were");
    }
    assert_eq!(client.line("d: two=a").await, "OK: ok 1 of 2/day");
    assert!(edge.wait().success());
    assert_eq!(next().await, None);
}

#[tokio::test]
async fn a_connection_is_used_for_a_time_only() {
    let redis = server();
    let (edge, _dir) = builder(&redis, LIMITS);
    let edge = edge.env("GRPC_MAX_CONNECTION_AGE", "300ms").start();
    let mut stream = TcpStream::connect(("127.0.0.1", edge.grpc)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // What HTTP/2 begins with, and no settings.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let goaway = all.windows(9).filter(|frame| frame[..4] == [0, 0, 8, 7]).count();
    assert!(goaway >= 1, "the end is announced: {all:?}");
    // A client goes on over new connections. What it had not sent yet when it heard of the end is
    // handed back by its own library, to be asked again; what was sent is answered.
    let client = Client::new(edge.grpc);
    let started = std::time::Instant::now();
    let mut unsent = 0;
    while started.elapsed() < std::time::Duration::from_secs(1) {
        match client.line("d: free=x").await.as_str() {
            "Cancelled: operation was canceled" => unsent += 1,
            answer => assert_eq!(answer, "OK: ok unlimited"),
        }
    }
    assert!(unsent <= 4, "at most one for each connection, but {unsent}");
}

mod reflection {
    use super::*;
    use prost::Message;
    use prost_types::{DescriptorProto, FileDescriptorProto};
    use tonic_reflection::pb::{v1, v1alpha};

    /// Asks for reflection in one of its versions: the names of services, or the files of a
    /// symbol.
    macro_rules! ask {
        ($version:ident, $port:expr, $request:expr) => {{
            use $version::server_reflection_client::ServerReflectionClient;
            use $version::server_reflection_request::MessageRequest;
            use $version::server_reflection_response::MessageResponse;
            let request = $version::ServerReflectionRequest {
                host: String::new(),
                message_request: Some(match $request {
                    "" => MessageRequest::ListServices(String::new()),
                    symbol => MessageRequest::FileContainingSymbol(symbol.to_owned()),
                }),
            };
            let mut client = ServerReflectionClient::new(Client::new($port).channel);
            let responses = client.server_reflection_info(tokio_stream::once(request)).await;
            let response = responses.unwrap().into_inner().message().await.unwrap().unwrap();
            match response.message_response.unwrap() {
                MessageResponse::ListServicesResponse(list) => {
                    Ok(list.service.into_iter().map(|service| service.name).collect::<Vec<_>>())
                }
                MessageResponse::FileDescriptorResponse(files) => Err(files.file_descriptor_proto),
                other => panic!("{other:?}"),
            }
        }};
    }

    /// The messages of a file and those within them, each with its fields.
    fn messages(file: &FileDescriptorProto) -> Vec<String> {
        fn add(message: &DescriptorProto, before: &str, list: &mut Vec<String>) {
            let field = |field: &prost_types::FieldDescriptorProto| {
                format!("{}={}", field.name(), field.number())
            };
            let name = format!("{before}{}", message.name());
            let fields: Vec<String> = message.field.iter().map(field).collect();
            list.push(format!("{name}: {}", fields.join(" ")));
            for nested in &message.nested_type {
                add(nested, &format!("{name}."), list);
            }
        }
        let mut list = Vec::new();
        for message in &file.message_type {
            add(message, "", &mut list);
        }
        list
    }

    #[tokio::test]
    async fn the_service_tells_what_it_answers() {
        let redis = server();
        let (edge, _dir) = builder(&redis, LIMITS);
        let edge = edge.start();
        for version in ["v1", "v1alpha"] {
            let ask = async |request: &str| match version {
                "v1" => ask!(v1, edge.grpc, request),
                _ => ask!(v1alpha, edge.grpc, request),
            };
            let mut names = ask("").await.unwrap();
            names.sort();
            let own = format!("grpc.reflection.{version}.ServerReflection");
            assert_eq!(names, [NAME, "grpc.health.v1.Health", own.as_str()]);
            let files: Vec<FileDescriptorProto> = ask(NAME)
                .await
                .unwrap_err()
                .iter()
                .map(|file| FileDescriptorProto::decode(file.as_slice()).unwrap())
                .collect();
            let service = files.iter().find(|file| !file.service.is_empty()).unwrap();
            assert_eq!(
                messages(service),
                [
                    "RateLimitRequest: domain=1 descriptors=2 hits_addend=3",
                    "RateLimitResponse: overall_code=1 statuses=2 response_headers_to_add=3 dynamic_metadata=6",
                    "RateLimitResponse.RateLimit: requests_per_unit=1 unit=2 name=3",
                    "RateLimitResponse.DescriptorStatus: code=1 current_limit=2 limit_remaining=3 duration_until_reset=4",
                ]
            );
        }
    }
}

/// Envoy with the configuration that the page shows, on other ports.
struct Envoy {
    port: u16,
    admin: u16,
    child: Child,
    dir: TempDir,
}

impl Envoy {
    fn start(binary: &std::path::Path, edge: &Edge, denies: bool) -> Self {
        let (port, admin) = (free_port(), free_port());
        let mut config = block("envoy.md", "yaml", "static_resources:");
        for (from, to) in [
            ("port_value: 10000", format!("port_value: {port}")),
            ("port_value: 8081", format!("port_value: {}", edge.grpc)),
            ("port_value: 8000", format!("port_value: {}", application())),
            ("address: 0.0.0.0", "address: 127.0.0.1".to_owned()),
            ("failure_mode_deny: false", format!("failure_mode_deny: {denies}")),
        ] {
            assert!(config.contains(from), "{from}");
            config = config.replace(from, &to);
        }
        config += &format!(
            "admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}\n"
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("envoy.yaml");
        fs::write(&path, config).unwrap();
        let mut command = Command::new(binary);
        command.arg("-c").arg(&path).args([
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "-l",
            "warning",
        ]);
        command.stderr(fs::File::create(dir.path().join("log")).unwrap());
        let mut envoy = Self { port, admin, child: spawn(command), dir };
        eventually(PATIENCE, TICK, "Envoy has a healthy rate limit service", || {
            if let Some(status) = envoy.child.try_wait().unwrap() {
                panic!("Envoy ended, {status}:\n{}", envoy.log());
            }
            envoy.health().is_some_and(|health| health == "healthy")
        });
        envoy
    }

    /// What Envoy logged.
    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// What Envoy says of the health of the rate limit service.
    fn health(&self) -> Option<String> {
        // In chunks, which are of no interest.
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin)).ok()?;
        stream
            .write_all(b"GET /clusters HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n")
            .ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let line = text.lines().find(|line| {
            line.starts_with("claw_edge::127.0.0.1") && line.contains("::health_flags::")
        });
        line.and_then(|line| line.rsplit("::").next()).map(str::to_owned)
    }

    /// A request through Envoy.
    fn get(&self, user: &str) -> Response {
        page(self.port, "/", &[("x-user", user)]).unwrap()
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("Envoy logged:\n{}", self.log());
        }
    }
}

/// An application that says yes to everything, for as long as the tests run.
fn application() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).unwrap();
            assert!(bytes[..count].ends_with(b"\r\n\r\n"), "a request comes in one piece");
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    port
}

/// A page, over a connection of its own.
fn page(port: u16, path: &str, fields: &[(&str, &str)]) -> std::io::Result<Response> {
    let mut client = common::http::Client::try_connect(port)?;
    let fields: String =
        fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{fields}\r\n");
    client.send(head.as_bytes())?;
    client.response()
}

#[test]
fn envoy_limits_by_the_configuration_that_the_page_shows() {
    let Some(binary) = envoy("envoy_limits_by_the_configuration_that_the_page_shows") else {
        return;
    };
    let redis = server();
    let (edge, _dir) = builder(&redis, &block("envoy.md", "yaml", "domain: shop"));
    let edge = edge.start();
    let envoy = Envoy::start(&binary, &edge, false);
    for left in (0..5).rev() {
        let response = envoy.get("ann");
        assert_eq!(response.status, 200);
        assert_eq!(response.field("x-ratelimit-limit"), Some("5, 5;w=60"));
        assert_eq!(response.field("x-ratelimit-remaining"), Some(left.to_string().as_str()));
    }
    let response = envoy.get("ann");
    assert_eq!(response.status, 429, "{}", edge.log());
    assert_eq!(response.field("x-envoy-ratelimited"), Some("true"));
    assert_eq!(response.field("x-ratelimit-remaining"), Some("0"));
    let reset: u64 = response.field("x-ratelimit-reset").unwrap().parse().unwrap();
    assert!((1..=12).contains(&reset), "{reset}");
    assert_eq!(envoy.get("bob").status, 200);
    // Without an answer of the service, requests pass.
    drop(edge);
    assert_eq!(envoy.get("ann").status, 200);
}

#[test]
fn envoy_refuses_without_an_answer_if_it_is_told_to() {
    let Some(binary) = envoy("envoy_refuses_without_an_answer_if_it_is_told_to") else { return };
    let mut redis = server();
    let (edge, _dir) = builder(&redis, &block("envoy.md", "yaml", "domain: shop"));
    let mut edge = edge.env("DECISION_TIMEOUT", "50ms").env("DRAIN_NOTICE", "5s").start();
    let envoy = Envoy::start(&binary, &edge, true);
    assert_eq!(envoy.get("ann").status, 200);
    redis.crash();
    assert_eq!(envoy.get("ann").status, 500);
    // Health turns while the service still answers, and Envoy notices.
    edge.signal(TERM);
    eventually(PATIENCE, TICK, "Envoy takes it out", || {
        envoy.health().is_some_and(|health| health.contains("/failed_active_hc"))
    });
    assert!(edge.is_alive(), "Envoy noticed before the end");
    assert!(edge.wait().success());
    assert_eq!(envoy.get("ann").status, 500);
}
