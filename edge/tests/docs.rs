//! The pages of docs/edge, held to what is really so: the requests of `shell-session` blocks are
//! sent again, and the program in Python is run.
//!
//! Each page has a service of its own, with the settings of its first block `sh` and the limits
//! of its first block `yaml`.

#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::string_slice, clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use claw_testkit::Server;
use common::Edge;
use common::api::start;
use tempfile::TempDir;

fn page(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "docs", "edge", name].iter().collect();
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The blocks in one language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let opening = format!("```{language}\n");
    page.split(&opening).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// The service of a page.
fn service(page: &str, server: &Server, dir: &Path) -> Edge {
    let limits = dir.join("limits.yaml");
    fs::write(&limits, blocks(page, "yaml")[0]).unwrap();
    let mut settings = Vec::new();
    for word in blocks(page, "sh")[0].split_whitespace() {
        match word.split_once('=') {
            Some(("CONFIG", _)) => settings.push(("CONFIG", limits.to_str().unwrap())),
            Some(setting) => settings.push(setting),
            None => assert_eq!(word, "claw-edge"),
        }
    }
    start(&server.url(), &settings)
}

/// A line without what depends on the moment.
fn masked(line: &str) -> String {
    if line.starts_with("date: ") || line.starts_with("content-length: ") {
        return line.split(' ').next().unwrap().to_owned();
    }
    let mut masked = line.to_owned();
    for (before, is_part, is_exact_at_zero) in [
        ("x-request-id: ", is_id as fn(char) -> bool, false),
        ("urn:request:", is_id, false),
        ("\"stamp\":", is_digit, false),
        ("\"ticket\":\"", is_id, false),
        ("retry-after: ", is_digit, true),
        (";t=", is_digit, true),
        ("try again in ", is_digit, true),
        ("_after_ms\":", is_digit, true),
    ] {
        let mut parts = masked.split(before);
        let mut rest = parts.next().unwrap().to_owned();
        for part in parts {
            // Nothing to wait for is never a matter of the moment.
            let is_exact = is_exact_at_zero && part.starts_with('0');
            let value = if is_exact { part } else { part.trim_start_matches(is_part) };
            rest += &format!("{before}{}{value}", if part == value { "" } else { ".." });
        }
        masked = rest;
    }
    masked
}

fn is_digit(letter: char) -> bool {
    letter.is_ascii_digit()
}

fn is_id(letter: char) -> bool {
    letter.is_ascii_hexdigit() || letter == '-'
}

#[test]
fn requests_are_answered_as_the_pages_say() {
    for name in ["api.md", "llm-gateways.md", "adaptive.md"] {
        let text = page(name);
        let (server, dir) = (Server::start(), TempDir::new().unwrap());
        let edge = service(&text, &server, dir.path());
        let mut sent = 0;
        for block in blocks(&text, "shell-session") {
            for exchange in block.split("$ curl ").skip(1) {
                let (arguments, told) = exchange.split_once('\n').unwrap();
                let port = edge.http.to_string();
                let command = format!("curl -s {}", arguments.replace("8080", &port));
                let output = Command::new("sh").args(["-c", &command]).output().unwrap();
                assert!(output.status.success(), "{command}: {output:?}");
                let printed = String::from_utf8(output.stdout).unwrap().replace(&port, "8080");
                let lines =
                    |text: &str| -> Vec<String> { text.trim_end().lines().map(masked).collect() };
                assert_eq!(lines(&printed), lines(told), "{name}: {command}\n{printed}");
                sent += 1;
            }
        }
        assert!(sent >= 3, "{name}");
        for program in blocks(&text, "python") {
            let told = text.split_once(program).unwrap().1.split("```text\n").nth(1).unwrap();
            let program = program.replace("8080", &edge.http.to_string());
            let output = Command::new("python3").args(["-c", &program]).output().unwrap();
            assert!(output.status.success(), "{name}: {output:?}");
            let printed = String::from_utf8(output.stdout).unwrap();
            assert_eq!(printed, told.split("```").next().unwrap(), "{name}");
        }
    }
}

#[test]
fn what_may_differ() {
    for (told, printed, same) in [
        ("ratelimit: \"a\";r=1;t=10", "ratelimit: \"a\";r=1;t=9", true),
        ("ratelimit: \"a\";r=1;t=10", "ratelimit: \"a\";r=2;t=10", false),
        ("ratelimit: \"a\";r=1;t=10", "ratelimit: \"a\";r=1", false),
        ("x-request-id: 1a-0", "x-request-id: 0b-c", true),
        ("{\"retry_after_ms\":10,\"x\":1}", "{\"retry_after_ms\":7,\"x\":1}", true),
        ("{\"retry_after_ms\":10,\"x\":1}", "{\"retry_after_ms\":0,\"x\":1}", false),
        ("{\"retry_after_ms\":null}", "{\"retry_after_ms\":7}", false),
        ("date: a b", "date: c", true),
        ("retry-after: 12", "retry-after: 11", true),
    ] {
        assert_eq!(masked(told) == masked(printed), same, "{told} / {printed}");
    }
}
