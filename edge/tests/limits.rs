//! Limits of what comes over HTTP: which requests fall under them, whom they tell apart, and what
//! they cost.

#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::net::IpAddr;
use std::process::Command;

use clap::Parser;
use claw_edge::config::Config;
use claw_edge::limits::source::{Source, Sources};
use claw_edge::limits::{Facts, Limits, Mode, OnFault, Route};
use common::tools::block;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

/// The limits of a file, with some settings as flags.
fn load(text: &str, flags: &[&str]) -> Limits {
    let config = Config::parse_from(["claw-edge"].iter().chain(flags));
    let named = vec![Source { path: "limits.yaml".into(), text: text.to_owned() }];
    Sources { named, descriptors: Vec::new() }.limits(&config).unwrap()
}

/// A request in one line: route, method, host and path, then `user=ann`, `client=192.0.2.1`,
/// `name:value` and `{"json":1}`.
fn facts_of<T>(request: &str, look: impl FnOnce(&Facts<'_>) -> T) -> T {
    let mut words = request.split(' ');
    let (route, method) = (words.next().unwrap(), words.next().unwrap());
    let (host, path) = words.next().unwrap().split_once('/').unwrap();
    let path = format!("/{path}");
    let (mut headers, mut user, mut client, mut body) = (HeaderMap::new(), None, None, None);
    for word in words {
        if word.starts_with('{') {
            body = Some(serde_json::from_str(word).unwrap());
        } else if let Some(name) = word.strip_prefix("user=") {
            user = Some(name.as_bytes());
        } else if let Some(address) = word.strip_prefix("client=") {
            client = Some(address.parse().unwrap());
        } else {
            let (name, value) = word.split_once(':').unwrap();
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
    }
    let route = if route == "rating" { Route::Rating } else { Route::Auth };
    let facts = Facts {
        route,
        method,
        path: &path,
        host,
        client,
        headers: &headers,
        body: body.as_ref(),
        user,
        weight: None,
    };
    look(&facts)
}

/// What a request is charged.
fn charges(limits: &Limits, request: &str) -> String {
    let charge = |charge: claw_edge::limits::Charge| {
        format!("{} {}", String::from_utf8(charge.key.to_vec()).unwrap(), charge.cost)
    };
    let charges = facts_of(request, |facts| limits.of_request(facts));
    charges.into_iter().map(charge).collect::<Vec<_>>().join(", ")
}

const LIMITS: &str = "
limits:
- {name: all, capacity: 9, refill: 1}
- {name: post, capacity: 9, refill: 1, match: {methods: [post, PUT], routes: [rating]}}
- {name: api, capacity: 9, refill: 1, key: [{segments: 2}], match: {paths: [/api/*, /ping], hosts: [a.org, '*.no']}}
- {name: key, capacity: 9, refill: 1, key: [{header: X-Key}]}
- {name: auth, capacity: 9, refill: 1, key: [{header: Authorization}]}
- {name: plan, capacity: 9, refill: 1, key: [user, method], match: {headers: {x-plan: free*, x-on: '*'}}}
- {name: net, capacity: 9, refill: 1, key: [client]}
- {name: where, capacity: 9, refill: 1, key: [host, path], match: {routes: [auth]}}
- {name: acc, capacity: 9, refill: 1, key: [{json: account.id}]}
- {name: cost, capacity: 9, refill: 1, key: [user], cost: {header: x-cost, absent: 3, most: 50}, match: {paths: [/cost]}}
- {name: body, capacity: 9, refill: 1, key: [user], cost: {json: n, most: 50}, match: {paths: [/body]}}
- {name: five, capacity: 9, refill: 1, cost: {tokens: 5}, match: {paths: [/five]}}
";

#[test]
fn which_limits_a_request_falls_under() {
    let limits = load(LIMITS, &[]);
    #[rustfmt::skip]
    let table = [
        ("rating GET b.org/", "claw:all 1"),
        ("rating POST b.org/", "claw:all 1, claw:post 1"),
        ("rating PUT b.org/", "claw:all 1, claw:post 1"),
        ("auth POST b.org/x", "claw:all 1, claw:where:b.org:/x 1"),
        ("auth GET b.org:8080/a:b%c", "claw:all 1, claw:where:b.org%3A8080:/a%3Ab%25c 1"),
        ("rating GET a.org/api/items/7", "claw:all 1, claw:api:/api/items 1"),
        ("rating GET a.org//api//items", "claw:all 1"),
        ("rating GET a.org/api/", "claw:all 1, claw:api:/api 1"),
        ("rating GET a.org/ping", "claw:all 1, claw:api:/ping 1"),
        ("rating GET a.org/pings", "claw:all 1"),
        ("rating GET b.org/api/items/7", "claw:all 1"),
        // A star in front is no star.
        ("rating GET x.no/api/items/7", "claw:all 1"),
        ("rating GET b.org/ x-key:k:1", "claw:all 1, claw:key:k:1 1"),
        ("rating GET b.org/ x-key:a x-key:b", "claw:all 1, claw:key:a 1"),
        ("rating GET b.org/ x-key:jos\u{e9}", "claw:all 1, claw:key:jos\u{e9} 1"),
        ("rating GET b.org/ authorization:secret", "claw:all 1, claw:auth:sha256-2bb80d537b1da3e38bd30361aa855686 1"),
        ("rating GET b.org/ user=ann x-plan:freedom x-on:", "claw:all 1, claw:plan:ann:GET 1"),
        ("rating GET b.org/ user=ann x-plan:free", "claw:all 1"),
        ("rating GET b.org/ user=ann x-plan:paid x-on:1", "claw:all 1"),
        ("rating GET b.org/ x-plan:free x-on:1", "claw:all 1"),
        ("auth GET b.org/ client=192.0.2.1 x-plan:free x-on:1", "claw:all 1, claw:plan:client%3A192.0.2.1:GET 1, claw:net:192.0.2.1 1, claw:where:b.org:/ 1"),
        ("rating GET b.org/ client=192.0.2.1", "claw:all 1, claw:net:192.0.2.1 1"),
        ("rating GET b.org/ client=::ffff:192.0.2.1", "claw:all 1, claw:net:192.0.2.1 1"),
        ("rating GET b.org/ client=2001:db8:1:2:3:4:5:6", "claw:all 1, claw:net:2001:db8:1:2::/64 1"),
        (r#"rating GET b.org/ {"account":{"id":"x"}}"#, "claw:all 1, claw:acc:x 1"),
        (r#"rating GET b.org/ {"account":{"id":12}}"#, "claw:all 1, claw:acc:12 1"),
        (r#"rating GET b.org/ {"account":{"id":null}}"#, "claw:all 1"),
        (r#"rating GET b.org/ {"account":{"id":{}}}"#, "claw:all 1"),
        (r#"rating GET b.org/ {"account":"x"}"#, "claw:all 1"),
        // What a request costs.
        ("rating GET b.org/five", "claw:all 1, claw:five 5"),
        ("rating GET b.org/cost user=a", "claw:all 1, claw:cost:a 3"),
        ("rating GET b.org/cost user=a x-cost:7", "claw:all 1, claw:cost:a 7"),
        ("rating GET b.org/cost user=a x-cost:0", "claw:all 1, claw:cost:a 1"),
        ("rating GET b.org/cost user=a x-cost:0.1", "claw:all 1, claw:cost:a 1"),
        ("rating GET b.org/cost user=a x-cost:7.2", "claw:all 1, claw:cost:a 8"),
        ("rating GET b.org/cost user=a x-cost:51", "claw:all 1, claw:cost:a 50"),
        ("rating GET b.org/cost user=a x-cost:-1", "claw:all 1, claw:cost:a 50"),
        ("rating GET b.org/cost user=a x-cost:x", "claw:all 1, claw:cost:a 50"),
        ("rating GET b.org/cost user=a x-cost:7\u{a0}", "claw:all 1, claw:cost:a 50"),
        ("rating GET b.org/cost user=a x-cost:99999999999999999999999", "claw:all 1, claw:cost:a 50"),
        (r#"rating GET b.org/body user=a {"n":7}"#, "claw:all 1, claw:body:a 7"),
        (r#"rating GET b.org/body user=a {"n":"7"}"#, "claw:all 1, claw:body:a 7"),
        (r#"rating GET b.org/body user=a {"n":1e1}"#, "claw:all 1, claw:body:a 10"),
        (r#"rating GET b.org/body user=a {"n":[]}"#, "claw:all 1, claw:body:a 1"),
        (r#"rating GET b.org/body user=a {"n":true}"#, "claw:all 1, claw:body:a 50"),
        ("rating GET b.org/body user=a", "claw:all 1, claw:body:a 1"),
    ];
    for (request, expected) in table {
        assert_eq!(charges(&limits, request), expected, "{request}");
    }
}

/// What is no text is there all the same: it costs the most, fits `*`, and stands in a key by its hash.
#[test]
fn what_is_no_text_is_not_absent() {
    let text = "limits: [{name: l, capacity: 9, refill: 1, key: [user, {header: x-key}],
                match: {headers: {x-on: '*', x-plan: free*}}, cost: {header: x-cost, absent: 3, most: 50}}]";
    let limits = load(text, &[]);
    let fields =
        [("x-key", &b"\xe9"[..]), ("x-on", b"\xff"), ("x-plan", b"free\xff"), ("x-cost", b"7\xa0")];
    let headers = HeaderMap::from_iter(fields.map(|(name, value)| {
        (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap())
    }));
    let charges = facts_of("auth GET b.org/ user=ann", |facts| {
        limits.of_request(&Facts { headers: &headers, user: Some(b"jos\xe9"), ..*facts })
    });
    let told: Vec<_> =
        charges.iter().map(|charge| (String::from_utf8_lossy(&charge.key), charge.cost)).collect();
    let [user, key] =
        ["sha256-858ec063bef4edbd26e8fbd55a1d18e5", "sha256-de2e331d891ae267a7009cb45b4e8830"];
    assert_eq!(told, [(format!("claw:l:{user}:{key}").into(), 50)]);
}

#[test]
fn the_environments_limits_come_first() {
    let flags = ["--capacity=5", "--refill=1", "--user-capacity=3", "--user-refill=1"];
    let limits = load("limits: [{name: a, capacity: 1, refill: 1}]", &flags);
    let told = "claw:service 1, token_bucket:ann 1, claw:a 1";
    assert_eq!(charges(&limits, "rating GET b.org/ user=ann"), told);
    assert_eq!(charges(&limits, "auth GET b.org/"), "claw:service 1, claw:a 1");
    let limits = load("limits: [{name: a, capacity: 1, refill: 1}]", &["--key-prefix=x/"]);
    assert_eq!(charges(&limits, "rating GET b.org/ user=ann"), "x/a 1");
    for (name, is_there) in [("a", true), ("service", false), ("user", false), ("b", false)] {
        assert_eq!(limits.named(name).is_some(), is_there, "{name}");
    }
}

/// The first limit that has a bucket for each user says who is premium, where one is asked for.
#[test]
fn one_bucket_says_what_a_user_weighs() {
    let file = "
limits:
- {name: net, capacity: 4, refill: 1, key: [client]}
- {name: post, capacity: 4, refill: 1, key: [user, method], match: {methods: [POST]}}
- {name: each, capacity: 4, refill: 1, key: [user]}
- {name: shop, capacity: 4, refill: 1, match: {hosts: [shop]}, adaptive: {premium: {weight: 2}}}
- {name: gold, capacity: 4, refill: 1, match: {hosts: [gold]}, adaptive: {premium: {header: x}}}";
    let weighed = |limits: &Limits, request: &str| {
        let key = facts_of(request, |facts| limits.weighed(facts));
        key.map(|key| String::from_utf8(key.to_vec()).unwrap())
    };
    let limits = load(file, &[]);
    #[rustfmt::skip]
    let table = [
        ("auth GET shop/ user=ann client=192.0.2.1", Some("claw:each:ann")),
        ("auth POST shop/ user=ann", Some("claw:post:ann:POST")),
        ("auth GET shop/ client=192.0.2.1", Some("claw:each:client:192.0.2.1")),
        ("auth GET shop/", None),
        ("auth GET gold/ user=ann x:1", None),
        ("auth GET else/ user=ann", None),
    ];
    for (request, key) in table {
        assert_eq!(weighed(&limits, request).as_deref(), key, "{request}");
    }
    let limits = load(file, &["--user-capacity=3", "--user-refill=1"]);
    let key = weighed(&limits, "auth POST shop/ user=ann");
    assert_eq!(key.as_deref(), Some("token_bucket:ann"));
}

/// Each region adapts to its own backend: one pattern leaves out those buckets and no others.
#[test]
fn buckets_of_adaptive_limits_are_told_from_all_others() {
    let file = "limits: [{name: shop, capacity: 4, refill: 1, adaptive: {}},
                         {name: all, capacity: 4, refill: 1}]";
    let flags = ["--capacity=5", "--refill=1", "--user-capacity=3", "--user-refill=1"];
    let limits = load(file, &flags);
    let told = charges(&limits, "rating GET b.org/ user=ann");
    assert_eq!(told, "claw:service 1, token_bucket:ann 1, @route:claw:shop 1, claw:all 1");
    for (charge, is_shared) in told.split(", ").zip([true, true, false, true]) {
        assert_eq!(claw_core::glob::matches(b"[^@]*", charge.as_bytes()), is_shared, "{charge}");
    }
    assert!(limits.to_string().contains(
        "shop: 4 tokens, 1 more in each 1s; adaptive off_path shadow, 0.05 to 10 in each second\n"
    ));
}

#[test]
fn the_example_of_the_page_is_understood_as_it_says() {
    let example = block("limits.md", "yaml", "# limits.yaml");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("limits.yaml"), &example).unwrap();
    let check = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claw-edge"));
        command.args(["check", "limits.yaml"]).current_dir(dir.path()).env_clear();
        let output = command.output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let shown =
        |text: &str| block("limits.md", "text", text).split_once('\n').unwrap().1.to_owned();
    assert_eq!(check(), shown("everybody: "));
    let wrong = example.replacen("capacity", "capcity", 1);
    std::fs::write(dir.path().join("limits.yaml"), wrong).unwrap();
    assert_eq!(check(), shown("capcity"));
    let limits = load(&example, &[]);
    let limit = limits.named("api").unwrap();
    assert_eq!((limit.keep, limit.on_fault, limit.mode), (2, OnFault::Closed, Mode::Enforced));
    assert_eq!(limits.named("strict").unwrap().mode, Mode::Shadow);
    let request = "auth POST api.example.org/v1/chat/completions user=ann x-max-tokens:9";
    assert_eq!(charges(&limits, request), "claw:everybody 1, claw:tokens:ann 9");
}

/// Somebody by his name, or by his address: among the names are those that others might be called by.
fn anybody() -> impl Strategy<Value = Result<String, IpAddr>> {
    prop_oneof![
        "[a:%/3A]{0,4}".prop_map(Ok),
        "(client:|client%3A|sha256-)192\\.0\\.2\\.[12]".prop_map(Ok),
        (1..3_u8).prop_map(|last| Err(IpAddr::from([192, 0, 2, last]))),
    ]
}

proptest! {
    /// Requests that differ in what a limit tells apart have different keys.
    #[test]
    fn keys_stay_apart(values in prop::collection::vec((anybody(), "[a:%/3A]{0,4}"), 2..20)) {
        let text = "limits: [{name: l, capacity: 1, refill: 1, key: [user, {header: k}]}, {name: u, capacity: 1, refill: 1, key: [user]}]";
        let limits = load(text, &[]);
        let mut keys = HashMap::new();
        for (who, field) in &values {
            let headers = HeaderMap::from_iter([(
                HeaderName::from_static("k"),
                HeaderValue::from_str(field).unwrap(),
            )]);
            let facts = Facts {
                route: Route::Auth, method: "GET", path: "/", host: "",
                client: Some(who.as_ref().err().copied().unwrap_or(IpAddr::from([192, 0, 2, 1]))),
                headers: &headers, body: None, user: who.as_ref().ok().map(String::as_bytes),
                weight: None,
            };
            let charges = limits.of_request(&facts);
            for (charge, told_apart) in charges.into_iter().zip([(who, Some(field)), (who, None)]) {
                let key = String::from_utf8(charge.key.to_vec()).unwrap();
                let other = keys.insert(key.clone(), told_apart);
                prop_assert!(other.is_none_or(|other| other == told_apart), "{key}: {other:?} {told_apart:?}");
            }
        }
    }
}
