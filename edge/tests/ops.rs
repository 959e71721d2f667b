//! The address for operators: metrics, probes, and what the API is said to be.

#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use claw_edge::http::{AUTH, routes};
use claw_testkit::{Server, eventually, free_port, info_field, skipped};
use common::api::{get, post, send, start};
use common::{Edge, PATIENCE, TICK};
use serde_json::Value;

fn limiting(url: &str) -> Edge {
    start(url, &[("USER_CAPACITY", "1"), ("USER_REFILL", "1"), ("USER_INTERVAL", "1h")])
}

#[test]
fn what_is_counted() {
    let server = Server::start();
    let edge = limiting(&server.url());
    let rating = r#"{"user_id":"ann","item_id":"tea","rating":4}"#;
    for status in [200, 429, 429] {
        assert_eq!(post(edge.http, "/rating", rating).status, status);
    }
    post(edge.http, "/rating", "{").problem(400);
    get(edge.http, "/rating/ann/tea");
    get(edge.http, "/nothing/ann").problem(404);
    send(edge.http, "POST", "/v1/take", &[("forwarded", "for=ann")], "").problem(403);

    let metrics = get(edge.ops, "/metrics");
    let kind = metrics.field("content-type");
    assert_eq!(kind, Some("text/plain; version=0.0.4; charset=utf-8"));
    for sample in [
        r#"operator_requests_total{route="rating",result="allowed"} 1"#,
        r#"operator_requests_total{route="rating",result="limited"} 2"#,
        r#"operator_requests_total{route="rating",result="invalid"} 1"#,
        r#"operator_requests_total{route="rating_read",result="allowed"} 1"#,
        r#"operator_requests_total{route="unknown",result="invalid"} 1"#,
        r#"operator_requests_total{route="take",result="denied"} 1"#,
        r#"operator_rate_limited_total{limit="user"} 2"#,
        r#"operator_request_duration_seconds_count{route="rating"} 4"#,
        r#"operator_request_duration_seconds_bucket{le="+Inf",route="rating"} 4"#,
        "claw_taken 1",
        "claw_refused 2",
        "claw_sync_lag_seconds 0.000",
        "operator_redis_up 1",
        "operator_redis_circuits_open 0",
    ] {
        assert!(metrics.body.lines().any(|line| line == sample), "{sample}\n{}", metrics.body);
    }
    for user in ["ann", "tea"] {
        assert!(!metrics.body.contains(user), "{}", metrics.body);
    }
}

#[test]
fn what_only_watches_is_counted_apart() {
    let server = Server::start();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(
        file.path(),
        "limits: [{name: watch, capacity: 1, refill: 1, interval: 1h, mode: shadow}]",
    )
    .unwrap();
    let edge = start(&server.url(), &[("CONFIG", file.path().to_str().unwrap())]);
    for _ in 0..3 {
        assert_eq!(get(edge.http, "/auth").status, 200);
    }
    assert_eq!(edge.metric("operator_rate_limit_shadowed_total", r#"limit="watch""#), 2);
    assert_eq!(edge.metric("operator_rate_limited_total", ""), 0);
}

#[test]
fn how_a_limit_that_all_share_stands() {
    let server = Server::start();
    let limits =
        [("CAPACITY", "10"), ("REFILL", "0"), ("USER_CAPACITY", "9"), ("USER_REFILL", "0")];
    let edge = start(&server.url(), &limits);
    for _ in 0..3 {
        assert_eq!(get(edge.http, "/auth").status, 200);
    }
    let sample = |name: &str| edge.metric(&format!("operator_limit_{name}_tokens"), "");
    assert_eq!((sample("capacity"), sample("remaining")), (10, 7), "no user's is among them");
    assert_eq!(edge.metric("claw_taken", ""), 3, "and to look takes nothing");
}

#[test]
fn promtool_finds_nothing_wrong() {
    let server = Server::builder()
        .config("claw.replica-id", "eu")
        .config("claw.peers", "redis://:secret@127.0.0.1:1")
        .start();
    let edge = start(
        &server.url(),
        &[("CAPACITY", "2"), ("REFILL", "1"), ("USER_CAPACITY", "1"), ("USER_REFILL", "1")],
    );
    post(edge.http, "/rating", r#"{"user_id":"ann","item_id":"tea","rating":4}"#);
    post(edge.http, "/rating", r#"{"user_id":"ann","item_id":"tea","rating":4}"#);
    let mut command = Command::new("promtool");
    command
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let Ok(mut promtool) = command.spawn() else { return skipped("promtool", "there is none") };
    let metrics = get(edge.ops, "/metrics").body;
    let peer = "claw_sync_peer_connected{peer=\"127.0.0.1:1\"} 0";
    assert!(metrics.contains(peer) && !metrics.contains("secret"), "{metrics}");
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success() && said.is_empty(), "{said}\n{metrics}");
}

#[test]
fn scrapes_cost_redis_one_command_a_second() {
    let server = Server::start();
    let edge = limiting(&server.url());
    let mut conn = server.connection();
    let calls = |conn: &mut redis::Connection| -> u64 {
        let info = info_field(conn, "commandstats", "cmdstat_info").unwrap_or_default();
        let calls = info.strip_prefix("calls=").and_then(|rest| rest.split(',').next());
        calls.map_or(0, |calls| calls.parse().unwrap())
    };
    let before = calls(&mut conn);
    let begin = std::time::Instant::now();
    for _ in 0..20 {
        get(edge.ops, "/metrics");
    }
    let most = begin.elapsed().as_secs() + 1;
    // One of them is that which is asked for here.
    let asked = calls(&mut conn) - before - 1;
    assert!((1..=most).contains(&asked), "{asked} of at most {most}");
}

#[test]
fn an_edge_is_alive_and_ready_without_redis() {
    let edge = limiting(&format!("redis://127.0.0.1:{}", free_port()));
    for path in ["/livez", "/readyz"] {
        let probe = get(edge.ops, path);
        assert_eq!((probe.status, probe.body.as_str()), (200, "ok\n"), "{path}");
    }
    let metrics = get(edge.ops, "/metrics");
    assert_eq!(metrics.status, 200);
    assert!(!metrics.body.contains("claw_taken"), "numbers that are not known are not told");
    assert!(metrics.body.contains("\noperator_redis_up 0\n"), "{}", metrics.body);
    for path in ["/", "/rating", "/v1/take", "/auth"] {
        get(edge.ops, path).problem(404);
    }
    let wrong = send(edge.ops, "POST", "/metrics", &[], "");
    wrong.problem(405);
    assert_eq!(wrong.field("allow"), Some("GET,HEAD"));
}

#[test]
fn an_edge_that_is_about_to_end_is_alive_and_not_ready() {
    let server = Server::start();
    let edge = start(&server.url(), &[("DRAIN_NOTICE", "10s")]);
    edge.signal(15);
    eventually(PATIENCE, TICK, "it is not ready", || get(edge.ops, "/readyz").status == 503);
    assert_eq!(get(edge.ops, "/readyz").problem(503), "this instance is ending");
    assert_eq!(get(edge.ops, "/livez").status, 200);
    assert_eq!(get(edge.http, "/auth").status, 200, "what comes in is still served");
}

#[test]
fn the_description_of_the_api_has_every_route() {
    let server = Server::start();
    let edge = limiting(&server.url());
    let page = get(edge.ops, "/openapi.json");
    assert_eq!(page.field("content-type"), Some("application/json"));
    let told = page.json();
    let Value::Object(paths) = &told["paths"] else { panic!("{told}") };
    let described: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
    let routes = routes();
    let served: BTreeSet<&str> = routes.iter().map(|(path, ..)| *path).chain([AUTH]).collect();
    assert_eq!(described, served);
    let mut operations = BTreeSet::new();
    for (path, methods) in paths {
        let path = path.replace(['{', '}'], "");
        let methods = methods.as_object().unwrap();
        for (method, operation) in methods {
            assert!(operations.insert(operation["operationId"].as_str().unwrap()), "{operation}");
            if method == "trace" {
                continue;
            }
            let response = send(edge.http, &method.to_uppercase(), &path, &[], "");
            let status = response.status.to_string();
            let nothing = response.body.contains("there is nothing at this path");
            assert!(!nothing && status != "405", "{method} {path}: {response:?}");
            assert!(operation["responses"].get(&status).is_some(), "{method} {path}: {status}");
        }
        if methods.len() == 1 {
            send(edge.http, "PUT", &path, &[], "").problem(405);
        }
    }
}

#[test]
fn references_of_the_description_lead_somewhere() {
    let text = include_str!("../src/http/openapi.json");
    let told: Value = serde_json::from_str(text).unwrap();
    let mut found = 0;
    for reference in text.split("\"$ref\": \"#").skip(1) {
        let reference = reference.split('"').next().unwrap();
        assert!(told.pointer(reference).is_some(), "{reference}");
        found += 1;
    }
    assert!(found > 50, "{found}");
}

#[test]
fn a_limit_without_a_policy_is_as_the_server_says() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("limits.yaml");
    fs::write(&file, "limits:\n- name: login\n  key: [user]\n").unwrap();
    let rules = "claw:login:* 3 3/900000";
    redis::cmd("CONFIG")
        .arg("SET")
        .arg("claw.policies")
        .arg(rules)
        .query::<()>(&mut server.connection())
        .unwrap();
    let edge =
        start(&server.url(), &[("CONFIG", file.to_str().unwrap()), ("USER_HEADER", "x-user")]);
    let ask = || send(edge.http, "GET", "/auth", &[("x-user", "ann")], "");
    let answers: Vec<_> = (0..4).map(|_| ask()).collect();
    assert_eq!(
        answers.iter().map(|answer| answer.status).collect::<Vec<_>>(),
        [200, 200, 200, 429]
    );
    assert_eq!(answers[0].field("ratelimit-policy"), Some(r#""login";q=3"#));
    assert_eq!(answers[0].field("ratelimit"), Some(r#""login";r=2;t=300"#));
    // A bucket under a rule stores no policy.
    let fields: Vec<String> =
        redis::cmd("HKEYS").arg("claw:login:ann").query(&mut server.connection()).unwrap();
    assert!(!fields.iter().any(|field| field == "policy"), "{fields:?}");
}

#[test]
fn tokens_that_are_rotated_need_no_restart() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let (api, admin) = (dir.path().join("api"), dir.path().join("admin"));
    fs::write(&api, "old-api\n").unwrap();
    fs::write(&admin, "old-admin\n").unwrap();
    let edge = start(
        &server.url(),
        &[("API_TOKEN_FILE", api.to_str().unwrap()), ("ADMIN_TOKEN_FILE", admin.to_str().unwrap())],
    );
    let status = |port, method: &str, path: &str, token: &str| {
        let fields = [("authorization", token), ("content-type", "application/json")];
        send(port, method, path, &fields, if method == "POST" { "{}" } else { "" }).status
    };
    let api_status =
        |token: &str| status(edge.http, "POST", "/v1/take", &format!("Bearer {token}"));
    let admin_status = |token: &str| status(edge.ops, "GET", "/admin", &format!("Bearer {token}"));
    assert_eq!((api_status("old-api"), admin_status("old-admin")), (400, 200));
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let login = send(edge.ops, "POST", "/admin/login", &form, "token=old-admin");
    let cookie = login.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let session = || send(edge.ops, "GET", "/admin", &[("cookie", cookie.as_str())], "").status;
    assert_eq!(session(), 200);
    // A file that is empty, or gone, changes nothing and is told once.
    fs::write(&api, "\n").unwrap();
    eventually(PATIENCE, TICK, "the mistake to be told", || {
        edge.logged("tokens cannot be read") == 1
    });
    assert_eq!(api_status("old-api"), 400);
    fs::write(&api, "old-api\nnew-api\n").unwrap();
    fs::write(&admin, "new-admin\n").unwrap();
    eventually(PATIENCE, TICK, "the new tokens", || {
        api_status("new-api") == 400 && edge.logged("tokens were read again") == 2
    });
    assert_eq!(api_status("old-api"), 400, "both, while it is rotated");
    assert_eq!((admin_status("old-admin"), admin_status("new-admin")), (401, 200));
    assert_eq!(session(), 303, "what has begun with the old one has ended");
    assert!(!edge.log().contains("new-api") && !edge.log().contains("new-admin"));
}
