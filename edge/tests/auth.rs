//! Forward authentication: who is meant, what a proxy is told, and what becomes of bad headers.

#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use claw_testkit::{Server, ask, run};
use common::Edge;
use common::api::{get_from, send, start};
use serde_json::json;

fn limiting(server: &Server, settings: &[(&str, &str)]) -> Edge {
    let mut all = vec![("USER_CAPACITY", "2"), ("USER_REFILL", "1"), ("USER_INTERVAL", "1h")];
    all.extend(settings);
    start(&server.url(), &all)
}

#[test]
fn whose_bucket_it_is() {
    let server = Server::start();
    let mut conn = server.connection();
    type Fields<'a> = &'a [(&'a str, &'a str)];
    #[rustfmt::skip]
    let table: [(Fields<'_>, &str, Fields<'_>, &str); 12] = [
        // settings, peer, headers, key
        (&[], "127.0.0.1", &[],                                   "token_bucket:client:127.0.0.1"),
        (&[], "127.0.0.3", &[("x-forwarded-for", "203.0.113.9")], "token_bucket:client:127.0.0.3"),
        (&[("TRUSTED_PROXIES", "127.0.0.3")], "127.0.0.3", &[("x-forwarded-for", "203.0.113.9")],          "token_bucket:client:203.0.113.9"),
        (&[("TRUSTED_PROXIES", "127.0.0.3")], "127.0.0.3", &[("x-forwarded-for", "6.6.6.6, 203.0.113.9")], "token_bucket:client:203.0.113.9"),
        (&[("TRUSTED_PROXIES", "127.0.0.0/8,10.0.0.0/8")], "127.0.0.3", &[("x-forwarded-for", "203.0.113.9, 10.1.1.1")], "token_bucket:client:203.0.113.9"),
        (&[("TRUSTED_PROXIES", "127.0.0.3")], "127.0.0.4", &[("x-forwarded-for", "203.0.113.9")],          "token_bucket:client:127.0.0.4"),
        (&[("TRUSTED_PROXIES", "127.0.0.3")], "127.0.0.3", &[("x-forwarded-for", "2001:db8:1:2:3:4:5:6")], "token_bucket:client:2001:db8:1:2::/64"),
        (&[("USER_HEADER", "X-User")], "127.0.0.1", &[("x-user", "ann")],  "token_bucket:ann"),
        (&[("USER_HEADER", "X-User")], "127.0.0.1", &[("x-user", "")],     "token_bucket:client:127.0.0.1"),
        (&[("USER_HEADER", "X-User")], "127.0.0.1", &[("x-user", "jos\u{e9}")], "token_bucket:jos\u{e9}"),
        (&[], "127.0.0.1", &[("x-user", "ann")],                           "token_bucket:client:127.0.0.1"),
        (&[("USER_HEADER", "X-User")], "127.0.0.1", &[("x-user", "client:127.0.0.1")], "token_bucket:sha256-b59073a8e7acc142617db7dbc2608ea3"),
    ];
    for (settings, peer, headers, key) in table {
        run(&mut conn, &["FLUSHALL"]);
        let edge = limiting(&server, settings);
        assert_eq!(get_from(peer, edge.http, "/auth", headers).status, 200, "{headers:?}");
        let keys: Vec<String> = ask(&mut conn, "KEYS *");
        assert_eq!(keys, [key], "{settings:?} {peer} {headers:?}");
    }
}

#[test]
fn a_quota_that_is_used_up_says_so() {
    let server = Server::start();
    let edge = start(&server.url(), &[("USER_CAPACITY", "1"), ("USER_REFILL", "0")]);
    assert_eq!(get_from("127.0.0.1", edge.http, "/auth", &[]).status, 200);
    let refused = get_from("127.0.0.1", edge.http, "/auth", &[]);
    assert_eq!(refused.problem(429), "refused by user: used up, and it does not refill");
}

#[test]
fn what_a_proxy_is_told() {
    let server = Server::start();
    let edge = limiting(&server, &[("OLDER_FIELDS", "true")]);
    // Whatever the method, and with a body that nobody reads.
    for method in ["GET", "POST"] {
        let passed = send(edge.http, method, "/auth", &[], "x");
        assert_eq!((passed.status, passed.body.as_str()), (200, ""));
    }
    for (query, status) in [("", 429), ("?deny_status=403", 403), ("?deny_status=401", 401)] {
        let refused = send(edge.http, "PURGE", &format!("/auth{query}"), &[], "");
        assert!(refused.problem(status).starts_with("refused by user: try again in "));
        assert_eq!(
            refused.json()["type"],
            "https://iana.org/assignments/http-problem-types#quota-exceeded"
        );
        assert_eq!(refused.json()["violated-policies"], json!(["user"]));
        let wait = refused.number("retry-after").unwrap();
        assert!((3500..=3600).contains(&wait), "{wait}");
        // The older fields say the same.
        assert_eq!(refused.number("ratelimit-limit"), Some(2));
        assert_eq!(refused.number("ratelimit-remaining"), Some(0));
        assert_eq!(refused.number("ratelimit-reset"), Some(wait));
    }
    for query in ["?deny_status=200", "?deny_status=503", "?deny_status="] {
        send(edge.http, "GET", &format!("/auth{query}"), &[], "").problem(400);
    }
    let head = send(edge.http, "HEAD", "/auth", &[], "");
    assert_eq!((head.status, head.body.as_str()), (429, ""));
}

#[test]
fn headers_of_clients_do_no_harm() {
    let server = Server::start();
    let edge = limiting(&server, &[("USER_HEADER", "x-user"), ("TRUSTED_PROXIES", "127.0.0.1")]);
    let long = "x".repeat(257);
    for (headers, status) in [
        ([("x-user", "a\tb"), ("x-forwarded-for", "")], 400),
        ([("x-user", long.as_str()), ("x-forwarded-for", "")], 400),
        ([("x-user", "fred"), ("x-forwarded-for", "\"><script>, ,,,,")], 200),
        ([("x-user", "gina"), ("x-forwarded-uri", "/%0d%0aset-cookie:%20x")], 200),
        ([("x-user", "hans"), ("x-request-id", "a b\"c")], 200),
    ] {
        let response = send(edge.http, "GET", "/auth", &headers, "");
        assert_eq!(response.status, status, "{headers:?} {response:?}");
        assert!(response.field("set-cookie").is_none());
        let id = response.field("x-request-id").unwrap();
        assert!(id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{id}");
    }
    let named =
        send(edge.http, "GET", "/auth", &[("x-user", "ida"), ("x-request-id", "trace-7")], "");
    assert_eq!(named.field("x-request-id"), Some("trace-7"));
}
