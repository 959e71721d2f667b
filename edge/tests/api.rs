//! `/v1`: who may call it, what it takes and tells, and what it refuses.

#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::fs;
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::process::Command;

use claw_testkit::{Server, ask, eventually, free_port, run, skipped, spawn};
use common::api::{Response, exchange, post, raw, send, start};
use common::{Edge, PATIENCE, TICK};
use serde_json::{Value, json};
use tempfile::TempDir;

const FILE: &str =
    "limits: [{name: model, capacity: 1000, refill: 1000, interval: 1h, key: [user]},
    {name: shut, capacity: 5, refill: 1, interval: 1h, on_fault: closed}]";

/// A service with two limits of a file.
struct Api {
    edge: Edge,
    _dir: TempDir,
}

impl Api {
    fn start(url: &str, settings: &[(&str, &str)]) -> Self {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("limits.yaml");
        fs::write(&file, FILE).unwrap();
        let mut all = vec![("CONFIG", file.to_str().unwrap())];
        all.extend(settings);
        Self { edge: start(url, &all), _dir: dir }
    }

    fn post(&self, path: &str, body: &str) -> Response {
        post(self.edge.http, path, body)
    }
}

/// Who knows a limit's name may take what its requests leave behind.
#[test]
fn what_a_limit_keeps_is_there_for_those_who_name_it() {
    let server = Server::start();
    let file = server.dir().join("kept.yaml");
    let limits =
        "limits: [{name: kept, capacity: 4, refill: 1, interval: 1h, key: [user], keep: 2}]";
    fs::write(&file, limits).unwrap();
    let api = Api::start(&server.url(), &[("CONFIG", file.to_str().unwrap())]);
    for left in [3, 2, 1, 0] {
        let body = r#"{"key":"ann","limit":"kept"}"#;
        assert_eq!(api.post("/v1/check", body).status, 200);
        assert_eq!(api.post("/v1/take", body).json()["remaining"], left);
    }
}

#[test]
fn tokens_are_looked_at_taken_given_back_and_settled() {
    let server = Server::start();
    let api = Api::start(&server.url(), &[]);
    let never = Value::Null;
    let near = |told: &Value, most: i64| {
        let told = told.as_i64().unwrap();
        assert!((most - 30_000..=most).contains(&told), "{told} and not {most}");
    };
    #[rustfmt::skip]
    let table = [
        // path, body, status, taken, remaining, wait, full in
        ("check",  r#""tokens":400"#,                200,  400,  600, 0,         1_440_000),
        ("take",   r#""tokens":400"#,                200,  400,  600, 0,         1_440_000),
        ("take",   r#""tokens":700"#,                429,    0,  600, 360_000,   1_440_000),
        ("check",  r#""tokens":700"#,                429,    0,  600, 360_000,   1_440_000),
        ("take",   "",                               200,    1,  599, 0,         1_443_600),
        ("give",   r#""tokens":1"#,                  200,    1,  600, 0,         1_440_000),
        ("take",   r#""tokens":0"#,                  200,    0,  600, 0,         1_440_000),
        ("settle", r#""reserved":400,"used":120"#,   200, -280,  880, 0,           432_000),
        ("settle", r#""reserved":0,"used":1000"#,    200, 1000, -120, 0,         4_032_000),
        ("take",   r#""tokens":1"#,                  429,    0, -120, 435_600,   4_032_000),
        ("take",   r#""tokens":1001"#,               429,    0, -120, -1,        4_032_000),
        ("give",   r#""tokens":1120"#,               200, 1120, 1000, 0,                 0),
    ];
    for (path, body, status, taken, remaining, wait, full) in table {
        let comma = if body.is_empty() { "" } else { "," };
        let response = api.post(
            &format!("/v1/{path}"),
            &format!(r#"{{"key":"ann","limit":"model"{comma}{body}}}"#),
        );
        assert_eq!(response.status, status, "{path} {body}: {response:?}");
        let told = response.json();
        // What the bucket gained meanwhile shows in what was given back to it, if it was nearly full.
        let gained = told["remaining"].as_i64().unwrap() - remaining;
        assert!((0..=8).contains(&gained), "{path} {body}: {told}");
        let booked = told["taken"].as_i64().unwrap();
        assert!(
            if path == "give" { (taken - 8..=taken).contains(&booked) } else { booked == taken },
            "{path} {body}: {told}"
        );
        assert_eq!(told["capacity"], 1000);
        match wait {
            -1 => assert_eq!(told["retry_after_ms"], never),
            0 => assert_eq!(told["retry_after_ms"], 0, "{path} {body}: {told}"),
            wait => near(&told["retry_after_ms"], wait),
        }
        near(&told["reset_after_ms"], full);
        if status == 429 {
            response.problem(429);
            assert_eq!(told["violated-policies"], json!(["model"]));
            assert_eq!(response.number("retry-after").is_some(), wait > 0);
        }
        if path != "give" && path != "settle" {
            assert_eq!(response.limits("ratelimit")[0].0, "model");
            assert_eq!(told.get("allowed").is_some(), status == 200);
        }
    }
    let mut conn = server.connection();
    assert_eq!(ask::<Vec<String>>(&mut conn, "KEYS *"), ["claw:model:ann"]);
}

#[test]
fn policies_of_callers() {
    let server = Server::start();
    let body = |policy: &str| format!(r#"{{"key":"k","policy":{policy}}}"#);
    let strict = Api::start(&server.url(), &[]);
    let denied = strict.post("/v1/take", &body(r#"{"capacity":5,"refill":1}"#)).problem(403);
    assert_eq!(denied, "callers may not bring policies: name a limit of the configuration");

    let api = Api::start(&server.url(), &[("ALLOW_POLICIES", "true"), ("KEY_PREFIX", "mine:")]);
    #[rustfmt::skip]
    let table = [
        (r#"{"capacity":5,"refill":1}"#,                       200, "mine:policy/5/1000000/1000:k"),
        (r#"{"capacity":5.0,"refill":0.5,"interval":"1m"}"#,   200, "mine:policy/5/500000/60000:k"),
        (r#"{"capacity":5,"refill":0}"#,                       200, "mine:policy/5/0/1000:k"),
        (r#"{"capacity":5.5,"refill":1}"#,                     400, "capacity has to be a whole number"),
        (r#"{"capacity":1000000000001,"refill":1}"#,           400, "capacity has to be 0 to 10^12"),
        (r#"{"capacity":5,"refill":-1}"#,                      400, "refill has to be a number"),
        (r#"{"capacity":5,"refill":"1"}"#,                     400, "refill has to be a number"),
        (r#"{"capacity":5,"refill":1,"interval":"1"}"#,        400, "has no unit"),
        (r#"{"capacity":5,"refill":1,"interval":"367d"}"#,     400, "1ms to 366d"),
        (r#"{"capacity":5}"#,                                  400, "missing field `refill`"),
        (r#"{"capacity":5,"refill":1,"weight":2}"#,            400, "unknown field `weight`"),
    ];
    let mut conn = server.connection();
    for (policy, status, said) in table {
        run(&mut conn, &["FLUSHALL"]);
        let response = api.post("/v1/take", &body(policy));
        if status == 200 {
            assert_eq!(response.status, 200, "{policy}: {response:?}");
            assert_eq!(ask::<Vec<String>>(&mut conn, "KEYS *"), [said], "{policy}");
        } else {
            assert!(response.problem(status).contains(said), "{policy}: {response:?}");
        }
    }
}

#[test]
fn bodies() {
    let server = Server::start();
    let api = Api::start(&server.url(), &[("ALLOW_POLICIES", "1")]);
    let long = "x".repeat(513);
    #[rustfmt::skip]
    let table = [
        ("take",   r#"{"key":"k","limit":"model","tokens":2}"#,        200, ""),
        ("take",   r#"{"key":"k","limit":"model","tokens":2.0}"#,      200, ""),
        ("take",   r#"{"key":"k:%\"é","limit":"model","tokens":null}"#, 200, ""),
        ("take",   r#"{"key":"k","limit":"model","tokens":2.5}"#,      400, "tokens has to be a whole number"),
        ("take",   r#"{"key":"k","limit":"model","tokens":-1}"#,       400, "tokens has to be a whole number"),
        ("take",   r#"{"key":"k","limit":"model","tokens":1e13}"#,     400, "from 0 to 10^12"),
        ("take",   r#"{"key":"k","limit":"model","tokens":"2"}"#,      400, "tokens has to be a whole number"),
        ("take",   r#"{"key":"k","limit":"model","token":2}"#,         400, "unknown field `token`"),
        ("take",   r#"{"key":"k","limit":"model","key":"k"}"#,         400, "duplicate field `key`"),
        ("take",   r#"{"key":"k","limit":"none"}"#,                    400, "there is no limit of this name"),
        ("take",   r#"{"key":"k"}"#,                                   400, "either limit or policy"),
        ("take",   r#"{"key":"k","limit":"model","policy":{"capacity":1,"refill":1}}"#, 400, "either limit or policy"),
        ("take",   r#"{"limit":"model"}"#,                             400, "key is needed"),
        ("take",   r#"{"key":"","limit":"model"}"#,                    400, "key has to have 1 to 512 bytes"),
        ("take",   r#"{"key":"a\u0007b","limit":"model"}"#,            400, "key has control characters"),
        ("take",   r#"{"key":7,"limit":"model"}"#,                     400, "expected a string"),
        ("take",   &format!(r#"{{"key":"{long}","limit":"model"}}"#),  400, "key has to have 1 to 512 bytes"),
        ("settle", r#"{"key":"k","limit":"model","reserved":1}"#,      400, "missing field `used`"),
        ("settle", r#"{"key":"k","limit":"model","reserved":1,"used":-1}"#, 400, "used has to be a whole number"),
        ("settle", r#"{"key":"k","limit":"model","reserved":1,"used":1,"tokens":1}"#, 400, "unknown field `tokens`"),
        ("give",   "[1]",                                              400, "the body:"),
    ];
    for (path, body, status, said) in table {
        let response = api.post(&format!("/v1/{path}"), body);
        assert_eq!(response.status, status, "{path} {body}: {response:?}");
        assert!(status == 200 || response.problem(status).contains(said), "{body}: {response:?}");
    }
    for method in ["GET", "PUT", "OPTIONS"] {
        let response = send(api.edge.http, method, "/v1/take", &[], "");
        response.problem(405);
        assert_eq!(response.field("allow"), Some("POST"));
    }
    for path in ["/", "/v1", "/v1/take/", "/v1/takeall", "/metrics", "/livez"] {
        send(api.edge.http, "GET", path, &[], "").problem(404);
    }
}

#[test]
fn whoever_has_a_token_may() {
    let server = Server::start();
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("tokens");
    fs::write(&file, "first\nsecond\n").unwrap();
    let path = file.to_str().unwrap();
    let api = Api::start(&server.url(), &[("API_TOKEN_FILE", path), ("API_TOKEN", "third")]);
    let body = r#"{"key":"k","limit":"model"}"#;
    #[rustfmt::skip]
    let table = [
        ("Bearer first", 200), ("bearer second", 200), ("Bearer third", 200), ("Bearer  first ", 200),
        ("Bearer fourth", 401), ("Bearer", 401), ("Bearer ", 401), ("Bearer firs", 401), ("Bearer first second", 401),
        ("Basic first", 401), ("first", 401), ("", 401),
    ];
    for (shown, status) in table {
        let fields = [("content-type", "application/json"), ("authorization", shown)];
        let response = send(api.edge.http, "POST", "/v1/take", &fields, body);
        assert_eq!(response.status, status, "{shown}");
        if status == 401 {
            response.problem(401);
            assert_eq!(response.field("www-authenticate"), Some("Bearer"));
            let fields = [("authorization", shown)];
            send(api.edge.http, "DELETE", "/users/ann", &fields, "").problem(401);
        }
    }
    // A token is asked for before anything is read, and shown nowhere.
    send(api.edge.http, "POST", "/v1/take", &[], "x").problem(401);
    for secret in ["first", "second", "third", "fourth"] {
        assert!(!api.edge.log().contains(secret), "{}", api.edge.log());
    }
    let help = Command::new(env!("CARGO_BIN_EXE_claw-edge"))
        .arg("--help")
        .env("API_TOKEN", "third")
        .output()
        .unwrap();
    assert!(help.status.success() && !String::from_utf8(help.stdout).unwrap().contains("third"));
}

#[test]
fn without_a_token_only_callers_on_this_machine_may() {
    let server = Server::start();
    let api = Api::start(&server.url(), &[("TRUSTED_PROXIES", "127.0.0.1")]);
    assert_eq!(api.post("/v1/take", r#"{"key":"k","limit":"model"}"#).status, 200);
    // Not what comes through a proxy on this machine.
    for field in ["x-forwarded-for", "forwarded"] {
        let fields = [("content-type", "application/json"), (field, "127.0.0.1")];
        let response =
            send(api.edge.http, "POST", "/v1/take", &fields, r#"{"key":"k","limit":"model"}"#);
        response.problem(403);
    }
    // Nor what comes from another machine, for which another address of this one stands.
    let Some(address) = own_address() else {
        return skipped("callers of other machines", "this machine has no address but loopback");
    };
    let (port, local) = (free_port(), format!("127.0.0.1:{}", free_port()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_claw-edge"));
    command.env_clear().env("HTTP_ADDR", format!("0.0.0.0:{port}"));
    command.env("GRPC_ADDR", local).env("OPS_ADDR", format!("127.0.0.1:{}", free_port()));
    let mut edge = spawn(command);
    eventually(PATIENCE, TICK, "the service listens", || {
        TcpStream::connect((address, port)).is_ok()
    });
    let denied =
        exchange(TcpStream::connect((address, port)).unwrap(), b"POST /v1/take HTTP/1.0\r\n\r\n");
    edge.kill().unwrap();
    edge.wait().unwrap();
    assert!(denied.problem(403).starts_with("no API token is configured"));
}

/// An address of this machine that is no loopback.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: a route is looked up.
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback())
}

#[test]
fn half_a_request_is_a_problem_too() {
    let server = Server::start();
    let api = Api::start(&server.url(), &[("CLIENT_TIMEOUT", "200ms")]);
    let half = b"POST /v1/take HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
        content-length: 9\r\n\r\n{";
    raw(api.edge.http, half).problem(408);
}

#[test]
fn without_a_server() {
    let api = Api::start(&format!("redis://127.0.0.1:{}", free_port()), &[]);
    let body = |limit: &str| format!(r#"{{"key":"k","limit":"{limit}"}}"#);
    for path in ["/v1/take", "/v1/check"] {
        let open = api.post(path, &body("model"));
        assert_eq!((open.status, open.json()), (200, json!({"allowed": true, "blind": true})));
        let shut = api.post(path, &body("shut"));
        assert_eq!(shut.problem(503), "the server that keeps the limits cannot be reached");
        assert_eq!(shut.number("retry-after"), Some(1));
        assert_eq!(shut.json()["violated-policies"], json!(["shut"]));
    }
    api.post("/v1/give", &body("model")).problem(503);
    let settlement = r#"{"key":"k","limit":"model","reserved":1,"used":2}"#;
    api.post("/v1/settle", settlement).problem(503);
}
