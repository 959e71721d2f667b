//! What deploy/ watches with: the rules fire when they should, and every expression of the
//! dashboard has an answer once a real Prometheus has read two regions under load.

#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use claw_testkit::{Server, eventually, free_port, run, skipped, spawn};
use common::api::{Response, get, post, start};
use common::ratings::rate;
use common::receiver::{Receiver, response};
use common::redis::sharing;
use common::{Edge, PATIENCE, TICK, send_signal};
use serde_json::Value;
use tempfile::TempDir;

/// How often the metrics are read here, in place of the 15 s of the configuration.
const INTERVAL: &str = "250ms";
const SIGHUP: i32 = 1;
const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;
/// What Grafana puts in for its variables.
const VARIABLES: [(&str, &str); 2] = [("$__rate_interval", "10s"), ("$instance", ".*")];

fn deployed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

fn text(path: &str) -> String {
    fs::read_to_string(deployed(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What follows a text, wherever a line of a file begins with it, up to `}` or the line's end.
fn values_of(path: &str, prefix: &str) -> BTreeSet<String> {
    let text = text(path);
    let rest = text.lines().filter_map(|line| line.trim_start().strip_prefix(prefix));
    rest.map(|value| value.trim_end_matches('}').to_owned()).collect()
}

#[test]
fn rules_fire_when_they_should() {
    for args in [
        ["check", "config", "edge-prometheus.yml"],
        ["check", "rules", "edge-alerts.yml"],
        ["test", "rules", "edge-alerts_test.yml"],
    ] {
        let mut command = Command::new("promtool");
        let Ok(output) = command.args(args).current_dir(deployed("prometheus")).output() else {
            return skipped("the rules of claw-edge", "there is no promtool");
        };
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        assert!(output.status.success(), "promtool {}:\n{}", args.join(" "), said.concat());
    }
}

#[test]
fn each_rule_is_tested_and_documented() {
    let alerts = values_of("prometheus/edge-alerts.yml", "- alert: ");
    assert!(alerts.len() > 10, "{alerts:?}");
    // Once where it must not fire, and once where it must.
    let test = "prometheus/edge-alerts_test.yml";
    assert_eq!(values_of(test, "- {eval_time: 2h, alertname: "), alerts, "as usual, none fires");
    assert_eq!(values_of(test, "alertname: "), alerts, "each fires");
    let page = text("../docs/edge/monitoring.md");
    for alert in &alerts {
        assert!(page.contains(&format!("`{alert}`")), "docs/edge/monitoring.md has no {alert}");
    }
}

/// A Prometheus that reads one service with the configuration of deploy/.
struct Prometheus {
    process: Child,
    port: u16,
    _dir: TempDir,
}

impl Prometheus {
    fn start(edge: &Edge) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut config = text("prometheus/edge-prometheus.yml");
        let own = format!("127.0.0.1:{}", edge.ops);
        for (from, to) in [("127.0.0.1:9102", own.as_str()), ("15s", INTERVAL)] {
            assert!(config.contains(from), "edge-prometheus.yml has no {from}");
            config = config.replace(from, to);
        }
        fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        let rules = "edge-alerts.yml";
        fs::copy(deployed("prometheus").join(rules), dir.path().join(rules)).unwrap();
        let there = Command::new("prometheus").arg("--version").stdout(Stdio::null()).status();
        if !there.is_ok_and(|status| status.success()) {
            skipped("the dashboard", "there is no prometheus");
            return None;
        }
        let port = free_port();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Some(Self { process: spawn(command), port, _dir: dir })
    }

    /// What an expression comes to: a value for each series; `None` while nobody answers.
    fn query(&self, expression: &str) -> Option<Vec<f64>> {
        let path = format!("/api/v1/query?query={}", encoded(expression));
        // While it starts it answers something else.
        let response = page(self.port, &path).filter(|response| response.status == 200)?.json();
        assert_eq!(response["status"], "success", "{expression}: {response}");
        let series = response["data"]["result"].as_array().unwrap();
        let value = |series: &Value| series["value"][1].as_str().unwrap().parse().unwrap();
        Some(series.iter().map(value).collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A page; `None` when nobody listens.
fn page(port: u16, path: &str) -> Option<Response> {
    std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(|_| get(port, path))
}

/// A value of a query.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// Every expression of the dashboard, with the title of its panel.
fn expressions() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&text("grafana/claw-edge.json")).unwrap();
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let mut expression = target["expr"].as_str().unwrap().to_owned();
            for (variable, value) in VARIABLES {
                expression = expression.replace(variable, value);
            }
            assert!(!expression.contains('$'), "{expression} has a variable that is not known");
            found.push((panel["title"].as_str().unwrap().to_owned(), expression));
        }
    }
    assert!(found.len() > 20, "{found:?}");
    found
}

#[test]
fn what_is_of_a_server_is_not_summed_over_those_who_ask_it() {
    for (title, expression) in expressions() {
        let is_sum = expression.contains("sum") && expression.contains("claw_");
        assert!(!is_sum, "'{title}': {expression}");
    }
}

#[test]
fn every_expression_of_the_dashboard_has_an_answer_under_load() {
    let [region, other] = sharing();
    let us = start(&other.url(), &[("REGION", "us")]);
    let receiver = Receiver::start(|got| {
        let status = if got.body.contains("unwanted") { 500 } else { 204 };
        response(status, "", "")
    });
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), "whsec_c2VjcmV0IG9mIGEgd2ViaG9vaw==").unwrap();
    // One that can be followed, and one that is not there.
    let peers = format!("us={},ap=redis://127.0.0.1:{}", other.url(), free_port());
    let webhook = format!("http://127.0.0.1:{}/", receiver.port);
    let limits = tempfile::NamedTempFile::new().unwrap();
    fs::write(
        limits.path(),
        "limits: [{name: watch, capacity: 1, refill: 1, interval: 1h, mode: shadow},
          {name: shop, capacity: 100000, refill: 100000, adaptive: {mode: canary, block: 1s}},
          {name: way, capacity: 100000, refill: 100000, match: {paths: [/none]}, adaptive: {profile: on_path}}]",
    )
    .unwrap();
    let settings = [
        ("CAPACITY", "100000"),
        ("REFILL", "0"),
        ("USER_CAPACITY", "20"),
        ("USER_REFILL", "1"),
        ("USER_HEADER", "x-user"),
        ("CONFIG", limits.path().to_str().unwrap()),
        ("REGION", "eu"),
        ("RATINGS_PEERS", &peers),
        ("WEBHOOK_URL", &webhook),
        ("WEBHOOK_SECRET_FILE", secret.path().to_str().unwrap()),
        ("NOTIFY_PAUSE", "1ms"),
    ];
    let edge = start(&region.url(), &settings);
    let Some(prometheus) = Prometheus::start(&edge) else { return };
    // What is counted only once it has happened has to be read before and after.
    let wanted = "sum(operator_redis_up)";
    eventually(PATIENCE, TICK, "a first look", || {
        prometheus.query(wanted).is_some_and(|up| up == [1.0])
    });
    send_signal(region.pid(), SIGSTOP);
    let blind = edge.rate("user0");
    send_signal(region.pid(), SIGCONT);
    assert_eq!(blind.status, 200, "it fails open");
    edge.signal(SIGHUP);
    let statuses: BTreeSet<u16> =
        (0..100).map(|turn| edge.rate(&format!("user{}", turn % 4)).status).collect();
    assert_eq!(statuses, [200, 429].into(), "{}", edge.log());
    let tried = |result: &str| {
        edge.metric("operator_notifications_total", &format!(r#"result="{result}""#))
    };
    for user in ["wanted", "unwanted"] {
        assert_eq!(rate(&edge, user, "tea", "1").status, 200);
    }
    eventually(PATIENCE, TICK, "one is told, and one is parked", || {
        tried("delivered") > 0 && tried("parked") > 0
    });
    // What comes next has a gap before it.
    run(&mut region.connection(), &["XTRIM {ratings}:outbox MAXLEN 0"]);

    let mut users = 0..;
    let mut load = || {
        let user = format!("rater{}", users.next().unwrap());
        rate(&edge, &user, "tea", "3");
        rate(&us, &user, "milk", "3");
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        for latency in [20, 900] {
            let event = format!(
                r#"{{"userId": "{user}", "itemId": "{latency}", "score": 3, "timestamp": {now_ms}, "latencyMs": {latency}, "route": "shop"}}"#
            );
            assert_eq!(post(edge.http, "/api/v1/event", &event).status, 200);
        }
    };
    for (title, expression) in expressions() {
        let mut asked = None;
        eventually(PATIENCE, TICK, &format!("'{title}': {expression}"), || {
            // Load goes on, so that rates have something to say.
            edge.rate("user0");
            load();
            asked = prometheus.query(&expression);
            asked.as_ref().is_some_and(|values| values.iter().any(|value| !value.is_nan()))
        });
    }
    let told = |expression: &str| prometheus.query(expression).unwrap();
    assert_eq!(told(r#"count(rl_policy_leader{region="eu"})"#), [2.0], "shop and way");
    let results = "count(count by (result) (operator_notifications_total > 0))";
    assert_eq!(told(results), [3.0], "delivered, failed, parked");
    assert_eq!(told("claw_sync_peer_connected"), [1.0]);
    // On a busy machine a region may be late for a moment.
    eventually(PATIENCE, TICK, "us to be heard", || {
        told(r#"claw_sync_region_silent{region="us"}"#) == [0.0]
    });
    assert_eq!(
        told("sort(operator_limit_capacity_tokens)"),
        [1.0, 100_000.0, 100_000.0, 100_000.0]
    );
    let users = told(r#"count({__name__=~"operator_.*"} and {limit=~".*user[0-3].*"})"#);
    assert!(users.is_empty(), "no label names a user");
    let rules = get(prometheus.port, "/api/v1/rules").body;
    for alert in values_of("prometheus/edge-alerts.yml", "- alert: ") {
        assert!(rules.contains(&format!("\"name\":\"{alert}\"")), "{alert}: {rules}");
    }
}

#[test]
fn what_is_granted_under_load_adds_up() {
    if Command::new("h2load").arg("--version").stdout(Stdio::null()).status().is_err() {
        return skipped("load", "there is no h2load");
    }
    let server = Server::start();
    let limits = [("CAPACITY", "40"), ("REFILL", "50"), ("DECISION_TIMEOUT", "10s")];
    let edge = start(&server.url(), &limits);
    let load = |capacity: &str| {
        let mut command = Command::new("python3");
        command.arg(deployed("load/rating.py"));
        command.args(["--url", &format!("http://127.0.0.1:{}", edge.http), "--seconds", "2"]);
        let output = command.args(["--capacity", capacity, "--refill", "50"]).output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        (output.status.success(), said.concat())
    };
    let (adds_up, said) = load("40");
    assert!(adds_up, "{said}");
    // Its bucket is empty now, and whoever thinks otherwise is told so.
    let (adds_up, said) = load("400");
    assert!(!adds_up && said.contains("DOES NOT ADD UP"), "{said}");
}

#[test]
fn what_alerts_look_at_is_there_before_it_happens() {
    let server = Server::start();
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), "whsec_c2VjcmV0IG9mIGEgd2ViaG9vaw==").unwrap();
    let token = tempfile::NamedTempFile::new().unwrap();
    fs::write(token.path(), "123456:AAtoken").unwrap();
    let limits = tempfile::NamedTempFile::new().unwrap();
    let named = |name: &str| {
        format!("limits: [{{name: {name}, capacity: 1, refill: 1, on_fault: closed}}]")
    };
    fs::write(limits.path(), named("sale")).unwrap();
    let settings = [
        ("USER_CAPACITY", "1"),
        ("USER_REFILL", "1"),
        ("CONFIG", limits.path().to_str().unwrap()),
        ("REGION", "eu"),
        ("RATINGS_PEERS", &format!("us={}", server.url())),
        ("WEBHOOK_URL", "http://127.0.0.1:9/"),
        ("WEBHOOK_SECRET_FILE", secret.path().to_str().unwrap()),
        ("TELEGRAM_CHAT", "1"),
        ("TELEGRAM_TOKEN_FILE", token.path().to_str().unwrap()),
    ];
    let [one, other] = [(); 2].map(|()| start(&server.url(), &settings));
    let mut expected = vec![
        r#"operator_config_reloads_total{result="applied"} 0"#.to_owned(),
        r#"operator_config_reloads_total{result="refused"} 0"#.to_owned(),
        "operator_connections_refused_total 0".to_owned(),
        r#"operator_blind_decisions_total{limit="user",decided="allowed"} 0"#.to_owned(),
        r#"operator_blind_decisions_total{limit="sale",decided="refused"} 0"#.to_owned(),
        r#"operator_ratings_follow_faults_total{peer="us"} 0"#.to_owned(),
    ];
    for to in ["webhook", "telegram"] {
        expected.push(format!(r#"operator_notifications_total{{to="{to}",result="parked"}} 0"#));
        expected.push(format!(r#"operator_notification_gaps_total{{to="{to}"}} 0"#));
    }
    for route in ["auth", "rating", "take", "rls"] {
        for result in ["limited", "unavailable"] {
            let labels = format!(r#"route="{route}",result="{result}""#);
            expected.push(format!("operator_requests_total{{{labels}}} 0"));
        }
    }
    let text = |edge: &Edge| get(edge.ops, "/metrics").body;
    let has = |text: &str, sample: &str| text.lines().any(|line| line == sample);
    // Whichever of them does the work of the region: tomorrow it is the other one.
    for edge in [&one, &other] {
        let text = text(edge);
        for sample in &expected {
            assert!(has(&text, sample), "{sample}\n{text}");
        }
    }
    fs::write(limits.path(), named("late")).unwrap();
    one.signal(SIGHUP);
    let sample = r#"operator_blind_decisions_total{limit="late",decided="refused"} 0"#;
    eventually(PATIENCE, TICK, "a limit that is new", || has(&text(&one), sample));
}
