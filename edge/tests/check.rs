//! `claw-edge check`: what it says of files, and with what code it ends.

#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::fs;
use std::process::Command;

use common::tools::block;

/// What the program prints of some files, and whether it is content. Paths are told without
/// the folder.
fn check(files: &[(&str, &str)], settings: &[(&str, &str)]) -> (bool, String) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_claw-edge"))
        .arg("check")
        .args(files.iter().map(|(name, _)| dir.path().join(name)))
        .env_clear()
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    (output.status.success(), text.replace(&format!("{}/", dir.path().display()), ""))
}

#[test]
fn limits_are_told_as_they_are_understood() {
    let full = "
limits:
- name: everyone
  capacity: 100
  refill: 0.5
  interval: 90s
- name: per_user
  capacity: 10
  refill: 10
  interval: 1m
  key: [user, client, method, host, path, {segments: 2}, {header: X-Api-Key}, {json: account.id}]
  match:
    routes: [rating, auth]
    methods: [POST]
    paths: [/rating, /api/*]
    hosts: [example.org]
    headers: {x-plan: free*}
  cost: {header: x-tokens, absent: 2, most: 50}
  keep: 3
  mode: shadow
  on_fault: closed
- {name: fixed, capacity: 0, refill: 0, interval: 366d, cost: {tokens: 5}, mode: quota}
";
    let rls = "
domain: shop
descriptors:
- key: b
  rate_limit: {unit: minute, requests_per_unit: 5}
- {key: a, value: x*, share_threshold: true, shadow_mode: true, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 1, name: n, replaces: [{name: m}, {name: o}]}}
- {key: c, rate_limit: {unlimited: true}}
";
    let (is_content, told) = check(&[("limits.yaml", full)], &[("CAPACITY", "7"), ("REFILL", "1")]);
    assert!(is_content, "{told}");
    assert_eq!(
        told,
        "\
service: 7 tokens, 1 more in each 1s
everyone: 100 tokens, 0.5 more in each 90s
per_user: 10 tokens, 10 more in each 1m; for each user, client, method, host, path, \
first 2 segments of the path, header x-api-key, JSON field account.id; over rating, auth; \
methods POST; paths /rating, /api/*; hosts example.org; header x-plan: free*; \
costs what header x-tokens says, 50 at the most, 2 if it is absent; keeps 3; shadow; fails closed
fixed: 0 tokens, 0 more in each 366d; costs 5; quota
"
    );
    let (is_content, told) = check(&[("shop.yaml", rls)], &[]);
    assert!(is_content, "{told}");
    let (limits, difference) = told.split_once("\n\n").unwrap();
    assert_eq!(
        limits,
        "\
shop.a_x*: 1 in each day; shadow; quota; one bucket for all that fit; named n; replaces m, o
shop.b: 5 in each minute
shop.c: unlimited"
    );
    assert!(difference.contains("was a fixed window, and is a bucket here"), "{difference}");
}

#[test]
fn what_is_wrong_is_told_with_file_and_line() {
    let one = |text: &str| format!("limits:\n- name: a\n  capacity: 1\n  refill: 1\n{text}");
    let two = |adaptive: &str| {
        format!("limits:\n- name: a\n  capacity: 10\n  refill: 10\n  adaptive: {adaptive}\n")
    };
    #[rustfmt::skip]
    let table: [(&str, &str); 48] = [
        ("limits:\n- capacity: 1\n", "f:2: missing field `name`"),
        ("limits:\n- name: a\n  capacity: 1\n", "f:2: refill is missing"),
        ("limits:\n- name: a\n  refill: 1\n", "f:2: capacity is missing"),
        ("limits:\n- name: a\n  interval: 1s\n", "f:3: an interval without capacity and refill"),
        ("limits:\n- name: a b\n  capacity: 1\n  refill: 1\n", "f:2: 'a b' is no name"),
        ("limits:\n- name: a\n  capacity: 1.5\n  refill: 1\n", "f:3: '1.5' is no whole number of tokens"),
        ("limits:\n- name: a\n  capacity: 1\n  refill: x\n", "f:4: 'x' is no number of tokens"),
        ("limits:\n- name: a\n  capacity: 1000000000001\n  refill: 1\n", "f:2: capacity is not 0 to 1000000000000"),
        (&one("  interval: 1x\n"), "f:5: '1x' has no unit"),
        (&one("  interval: 0s\n"), "f:2: interval is not 1ms to 366d"),
        (&one("  burst: 1\n"), "f:5: unknown field `burst`"),
        (&one("  keep: 1\n"), "f:5: keep 1 leaves nothing of the capacity"),
        (&one("  key: [user]\n  adaptive: {}\n"), "f:6: an adaptive limit has one bucket, and so no key"),
        ("limits:\n- name: a\n  adaptive: {}\n", "f:3: an adaptive limit has capacity and refill"),
        (&one("  mode: shadow\n  adaptive: {}\n"), "f:6: an adaptive limit is enforced"),
        (&one("  cost: {tokens: 2}\n  adaptive: {}\n"), "f:6: an adaptive limit counts requests"),
        (&one("  adaptive: {}\n"), "f:5: adaptive: the fallback must be within the bounds"),
        (&two("{speed: 1}"), "f:5: unknown field `speed`"),
        (&two("{mode: fast}"), "f:5: unknown variant `fast`"),
        (&two("{min: x}"), "f:5: adaptive: min: 'x' is no number of requests per second"),
        (&two("{min: 2, max: 1}"), "f:5: adaptive: rates must be 0.001 <= min <= max"),
        (&two("{min: 50}"), "f:5: adaptive: the fallback must be within the bounds"),
        (&two("{sla: 0s}"), "f:5: adaptive: the SLA must be 1 ms to 1 hour"),
        (&two("{in_flight: 3}"), "f:5: adaptive: in_flight is for what is on the path"),
        (&two("{block: 2h}"), "f:5: adaptive: block is not 1s to 1h"),
        (&two("{premium: {header: x, keep: 91}}"), "f:5: adaptive: premium: keep is not 1 to 90"),
        (&two("{premium: {}}"), "f:5: adaptive: premium: it is told by one of header and weight"),
        (&two("{premium: {header: x, weight: 2}}"), "f:5: adaptive: premium: it is told by one of header and weight"),
        (&two("{premium: {weight: 2, value: x}}"), "f:5: adaptive: premium: value is that of a header"),
        (&two("{premium: {weight: 1}}"), "f:5: adaptive: premium: weight is not 2 to 10"),
        (&two("{premium: {weight: 11}}"), "f:5: adaptive: premium: weight is not 2 to 10"),
        (&one("  key: [who]\n"), "f:5: unknown variant `who`"),
        (&one("  key: [{header: 'a b'}]\n"), "f:5: 'a b' is no header field"),
        (&one("  key: [{segments: 0}]\n"), "f:5: segments: 1 or more"),
        (&one("  match: {path: /a}\n"), "f:5: unknown field `path`"),
        (&one("  match: {headers: {'a b': x}}\n"), "f:5: 'a b' is no header field"),
        (&one("  cost: {tokens: 0}\n"), "f:5: tokens is not 1 to 1000000000000"),
        (&one("  cost: {header: a}\n"), "f:5: a cost that a request names needs most"),
        (&one("  cost: {header: a, json: b, most: 3}\n"), "f:5: a cost is one of tokens, header and json"),
        (&one("  cost: {json: a, most: 3, absent: 4}\n"), "f:5: absent is not 1 to most"),
        (&one("  cost: {tokens: 1, most: 3}\n"), "f:5: a cost of so many tokens has neither absent nor most"),
        (&one("  mode: watch\n"), "f:5: unknown variant `watch`"),
        (&one("- name: a\n  capacity: 1\n  refill: 1\n"), "f:5: there are two limits 'a'"),
        (&one("  name: b\n"), "f:5: "),
        ("domain: d\nlimits: []\n", "f:2: unknown field `limits`"),
        // What is no YAML is told as that, of whichever format it is to be.
        ("limits:\n- {name: a, capacity: 5\n", "f:2: unclosed bracket '{'"),
        ("domain: d\ndescriptors: [\n", "f:2: unclosed bracket '['"),
        ("limits:\n- name: 'a\n", "f:2: unclosed quote"),
    ];
    for (text, expected) in table {
        let (is_content, told) = check(&[("f", text)], &[]);
        assert!(!is_content && told.starts_with(expected), "{text}\n{told}\n{expected}");
    }
    // All that are wrong are told, and what they are only together.
    let good = "domain: d\n";
    let told = check(&[("a", "domain:\n"), ("b", good), ("c", "limits: 1\n")], &[]).1;
    assert!(told.starts_with("a: the file names no domain\nc:1: "), "{told}");
    let told = check(&[("a", good), ("b", good)], &[]).1;
    assert!(told.starts_with("b:1: domain 'd' is in a too"), "{told}");
    assert!(check(&[("a", good), ("b", good)], &[("MERGE_DOMAIN_CONFIG", "true")]).0);
    let told = check(&[("a", good)], &[("CAPACITY", "1")]).1;
    assert_eq!(told, "environment: CAPACITY is set, but no REFILL\n");
}

#[test]
fn what_becomes_of_windows_is_told_as_the_page_tells_it() {
    let (is_content, told) =
        check(&[("shop.yaml", &block("envoy.md", "yaml", "domain: shop"))], &[]);
    assert!(is_content, "{told}");
    let windows = block("envoy.md", "text", "was a fixed window");
    assert_eq!(
        told,
        format!("shop.path_/login: 2 in each minute\nshop.user: 5 in each minute\n\n{windows}")
    );
}
