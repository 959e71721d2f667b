//! What docs/monitoring.md tells, done: the sections of `INFO`, the alert rules, and
//! the way from `INFO claw` by redis_exporter to Prometheus.
//!
//! Where a program is missing, the test says `SKIPPED` and passes; with `CI` set in
//! the environment it fails.
#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

use claw_testkit::{Server, ask, eventually, free_port, run, skipped, spawn};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(50);
/// Debian's name, and its author's.
const EXPORTER: &[&str] = &["prometheus-redis-exporter", "redis_exporter"];

#[test]
fn sections_of_modules_are_left_out_of_info_all() {
    let server = Server::start();
    let conn = &mut server.connection();
    for (section, shown) in [
        ("INFO", false),
        ("INFO default", false),
        ("INFO all", false),
        ("INFO everything", true),
        ("INFO modules", true),
        ("INFO claw", true),
    ] {
        let info: String = ask(conn, section);
        assert_eq!(info.contains("\r\nclaw_taken:"), shown, "{section}");
    }
}

#[test]
fn alert_rules_fire_when_they_should() {
    let Some(promtool) = program(&["promtool"]) else { return };
    for args in [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ] {
        let output = Command::new(promtool).args(args).current_dir(example("")).output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        assert!(output.status.success(), "promtool {}:\n{}", args.join(" "), said.concat());
    }
}

#[test]
fn each_alert_is_tested_and_documented() {
    let alerts = values_of("alerts.yml", "- alert: ");
    assert!(alerts.len() > 3, "{alerts:?}");
    // Once where it must not fire, and once where it must.
    let silent = values_of("alerts_test.yml", "- {eval_time: 2h, alertname: ");
    assert_eq!(silent, alerts, "as usual, none fires");
    assert_eq!(values_of("alerts_test.yml", "alertname: "), alerts, "each fires");
    let page = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    for alert in &alerts {
        assert!(page.contains(&format!("`{alert}`")), "docs/configuration.md has no {alert}");
    }
}

#[test]
fn prometheus_sees_what_info_claw_says() {
    let Some(exporter) = program(EXPORTER) else { return };
    let Some(prometheus) = program(&["prometheus"]) else { return };
    let server = Server::start();
    let conn = &mut server.connection();
    let page = fs::read_to_string(root().join("docs/monitoring.md")).unwrap();
    let user = page.lines().find(|line| line.starts_with("ACL SETUSER exporter ")).unwrap();
    run(conn, &[user, "ACL LOG RESET"]);
    run(conn, &["CL.TAKE k 3 CAPACITY 5 REFILL 0", "CL.TAKE k 3"]);
    // Refused before the module is asked.
    assert!(redis::cmd("CL.TAKE").query::<()>(conn).is_err());

    let port = free_port();
    let mut command = Command::new(exporter);
    command
        .env("REDIS_USER", "exporter")
        .env("REDIS_PASSWORD", "secret")
        .args(["-redis.addr", &server.url()])
        .args(["-web.listen-address", &format!("127.0.0.1:{port}"), "-script"])
        .arg(example("claw.lua"));
    let _exporter = Started(quiet(command));
    let mut metrics = String::new();
    eventually(PATIENCE, TICK, "the exporter to be up", || {
        metrics = get(port, "/metrics").unwrap_or_default();
        metrics.contains("\nredis_up 1\n")
    });

    // All numbers of INFO claw that are not the server's own.
    let info: String = ask(conn, "INFO claw");
    let told: BTreeMap<&str, &str> = info
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(_, value)| value.bytes().all(|b| b.is_ascii_digit()))
        .collect();
    let seen: BTreeMap<&str, &str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("redis_script_values{key=\"")?.split_once("\"} "))
        .collect();
    assert_eq!(seen, told);
    assert_eq!((told["claw_taken"], told["claw_refused"]), ("1", "1"));
    for line in [
        r#"redis_commands_total{cmd="cl.take"} 2"#,
        r#"redis_commands_failed_calls_total{cmd="cl.take"} 0"#,
        r#"redis_commands_rejected_calls_total{cmd="cl.take"} 1"#,
        "redis_evicted_keys_total 0",
    ] {
        assert!(metrics.contains(line), "no {line}:\n{metrics}");
    }
    let denied: Vec<redis::Value> = ask(conn, "ACL LOG");
    assert!(denied.is_empty(), "{denied:?}");

    // And under their own names in Prometheus, which has read the rules.
    let dir = directory(&server);
    let mut config = fs::read_to_string(example("prometheus.yml")).unwrap();
    for (from, to) in [("127.0.0.1:9121", format!("127.0.0.1:{port}")), ("15s", "200ms".into())] {
        assert!(config.contains(from), "prometheus.yml has no {from}");
        config = config.replace(from, &to);
    }
    fs::write(dir.join("prometheus.yml"), config).unwrap();
    fs::copy(example("alerts.yml"), dir.join("alerts.yml")).unwrap();
    let port = free_port();
    let mut command = Command::new(prometheus);
    command
        .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"));
    let _prometheus = Started(quiet(command));
    for (name, value) in told {
        let path = format!("/api/v1/query?query={name}");
        // Numbers that are read again and again may go on.
        eventually(PATIENCE, TICK, name, || {
            get(port, &path).is_some_and(|answer| answer.contains(&format!(",\"{value}\"]")))
        });
    }
    let rules = get(port, "/api/v1/rules").unwrap();
    for alert in values_of("alerts.yml", "- alert: ") {
        assert!(rules.contains(&format!("\"name\":\"{alert}\"")), "{alert}: {rules}");
    }
}

/// What follows a text, wherever a line begins with it, up to `}` or the line's end.
fn values_of(file: &str, prefix: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(example(file)).unwrap();
    let rest = text.lines().filter_map(|line| line.trim_start().strip_prefix(prefix));
    rest.map(|value| value.trim_end_matches('}').to_owned()).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn example(file: &str) -> PathBuf {
    root().join("deploy/prometheus").join(file)
}

/// A directory that goes with the server's.
fn directory(server: &Server) -> PathBuf {
    let dir = server.dir().join("prometheus");
    fs::create_dir(&dir).unwrap();
    dir
}

/// The first of these names that is a program here; without any the test is skipped.
fn program(names: &[&'static str]) -> Option<&'static str> {
    let there = |name: &&&str| {
        let mut command = Command::new(name);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let found = names.iter().find(there).copied();
    if found.is_none() {
        skipped("monitoring", &format!("no {}", names.join(" or ")));
    }
    found
}

fn quiet(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    spawn(command)
}

struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        // One that has ended by itself cannot be killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a page says; `None` when nobody answers.
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
