//! One table of behaviour, run over every front: which limits a user falls under and what their
//! buckets hold, and then what a request of his is told and charged.

#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::fs;

use claw_testkit::{Server, ask, free_port, run};
use common::Edge;
use common::api::{Response, send, start};
use tempfile::TempDir;

/// Where a request comes in.
#[derive(Clone, Copy, Debug)]
enum Front {
    Rating,
    ForwardAuth,
}

const FRONTS: [Front; 2] = [Front::Rating, Front::ForwardAuth];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Passed,
    Refused,
    /// Refused, since the limit could not be asked.
    Unavailable,
}

/// What a client is told.
#[derive(Debug)]
struct Told {
    status: Status,
    policies: Vec<(String, Vec<(String, i64)>)>,
    limits: Vec<(String, Vec<(String, i64)>)>,
    retry_after: Option<u64>,
}

impl Front {
    /// A request of `user`.
    fn ask(self, edge: &Edge, user: &str) -> Told {
        match self {
            Self::Rating => {
                let body =
                    format!(r#"{{"user_id":"{user}","item_id":"tea","rating":4,"weight":3}}"#);
                let fields = [("content-type", "application/json")];
                Self::told(&send(edge.http, "POST", "/rating", &fields, &body))
            }
            Self::ForwardAuth => {
                let fields = [
                    ("x-user", user),
                    ("x-forwarded-method", "POST"),
                    ("x-forwarded-uri", "/rating"),
                    ("x-forwarded-host", "localhost"),
                ];
                Self::told(&send(edge.http, "GET", "/auth", &fields, ""))
            }
        }
    }

    fn told(response: &Response) -> Told {
        let status = match response.status {
            200 => Status::Passed,
            429 => Status::Refused,
            503 => Status::Unavailable,
            status => panic!("{status}: {response:?}"),
        };
        let (retry_after, limits) = (response.number("retry-after"), response.limits("ratelimit"));
        for (_, parameters) in &limits {
            let more = parameters.iter().find(|(name, _)| name == "t");
            if let (Some((_, more)), Some(wait)) = (more, retry_after) {
                assert!(
                    i64::try_from(wait).unwrap() >= *more,
                    "Retry-After is too early: {response:?}"
                );
            }
        }
        Told { status, policies: response.limits("ratelimit-policy"), limits, retry_after }
    }
}

/// A row of the table.
struct Row {
    what: &'static str,
    /// Settings.
    limits: &'static [(&'static str, &'static str)],
    /// The file of limits.
    file: &'static str,
    /// Commands that make the buckets.
    state: &'static [&'static str],
    status: Status,
    /// `RateLimit-Policy`.
    policies: &'static [&'static str],
    /// `RateLimit`. Times may be a little shorter.
    told: &'static [&'static str],
    retry_after: Option<u64>,
    /// What buckets hold afterwards.
    left: &'static [(&'static str, i64)],
}

const NONE: &[(&str, &str)] = &[];
const USER: &[(&str, &str)] =
    &[("USER_CAPACITY", "2"), ("USER_REFILL", "1"), ("USER_INTERVAL", "1h")];
const BOTH: &[(&str, &str)] = &[
    ("CAPACITY", "4"),
    ("REFILL", "1"),
    ("INTERVAL", "1h"),
    ("USER_CAPACITY", "2"),
    ("USER_REFILL", "1"),
    ("USER_INTERVAL", "1h"),
];
const ANN: &str = "token_bucket:ann";
const ALL: &str = "claw:service";
const ROUTE: &str = "@route:claw:shop";
const ADAPTIVE: &str =
    "limits: [{name: shop, capacity: 4, refill: 1, interval: 1000s, adaptive: {}}]";

#[rustfmt::skip]
const TABLE: &[Row] = &[
    Row { what: "no limit", limits: NONE, file: "", state: &[],
        status: Status::Passed, policies: &[], told: &[], retry_after: None, left: &[] },
    Row { what: "a full bucket", limits: USER, file: "", state: &[],
        status: Status::Passed, policies: &["user q=2 w=7200"], told: &["user r=1 t=3600"], retry_after: None, left: &[(ANN, 1)] },
    Row { what: "the last token", limits: USER, file: "", state: &["CL.TAKE token_bucket:ann 1 CAPACITY 2 REFILL 1 INTERVAL 3600000"],
        status: Status::Passed, policies: &["user q=2 w=7200"], told: &["user r=0 t=3600"], retry_after: None, left: &[(ANN, 0)] },
    Row { what: "an empty bucket", limits: USER, file: "", state: &["CL.TAKE token_bucket:ann 2 CAPACITY 2 REFILL 1 INTERVAL 3600000"],
        status: Status::Refused, policies: &["user q=2 w=7200"], told: &["user r=0 t=3600"], retry_after: Some(3600), left: &[(ANN, 0)] },
    Row { what: "a bucket written by hand", limits: USER, file: "", state: &["HSET token_bucket:ann tokens 0.5 timestamp 2026-01-01T00:00:00Z userWeight 1"],
        status: Status::Passed, policies: &["user q=2 w=7200"], told: &["user r=1 t=3600"], retry_after: None, left: &[(ANN, 1)] },
    Row { what: "two limits", limits: BOTH, file: "", state: &[],
        status: Status::Passed, policies: &["service q=4 w=14400", "user q=2 w=7200"],
        told: &["service r=3 t=3600", "user r=1 t=3600"], retry_after: None, left: &[(ALL, 3), (ANN, 1)] },
    Row { what: "the second of them is over: nobody is charged", limits: BOTH, file: "", state: &["CL.TAKE token_bucket:ann 2 CAPACITY 2 REFILL 1 INTERVAL 3600000"],
        status: Status::Refused, policies: &["service q=4 w=14400", "user q=2 w=7200"],
        told: &["service r=4", "user r=0 t=3600"], retry_after: Some(3600), left: &[(ALL, 4), (ANN, 0)] },
    Row { what: "the first of them is over: nobody is charged", limits: BOTH, file: "", state: &["CL.TAKE claw:service 4 CAPACITY 4 REFILL 1 INTERVAL 3600000"],
        status: Status::Refused, policies: &["service q=4 w=14400", "user q=2 w=7200"],
        told: &["service r=0 t=3600", "user r=2"], retry_after: Some(3600), left: &[(ALL, 0), (ANN, 2)] },
    Row { what: "both are over: the longer wait", limits: BOTH, file: "",
        state: &["CL.TAKE claw:service 4 CAPACITY 4 REFILL 1 INTERVAL 3600000", "CL.TAKE token_bucket:ann 2 CAPACITY 2 REFILL 1 INTERVAL 3600000",
            "CL.SETTLE token_bucket:ann 0 1"],
        status: Status::Refused, policies: &["service q=4 w=14400", "user q=2 w=7200"],
        told: &["service r=0 t=3600", "user r=0 t=3600"], retry_after: Some(7200), left: &[(ALL, 0), (ANN, -1)] },
    Row { what: "debt", limits: USER, file: "", state: &["CL.SETTLE token_bucket:ann 0 4 CAPACITY 2 REFILL 1 INTERVAL 3600000"],
        status: Status::Refused, policies: &["user q=2 w=7200"], told: &["user r=0 t=3600"], retry_after: Some(10_800), left: &[(ANN, -2)] },
    Row { what: "weight", limits: USER, file: "",
        state: &["CL.POLICY token_bucket:ann WEIGHT 2", "CL.TAKE token_bucket:ann 2 CAPACITY 2 REFILL 1 INTERVAL 3600000"],
        status: Status::Refused, policies: &["user q=2 w=7200"], told: &["user r=0 t=1800"], retry_after: Some(1800), left: &[(ANN, 0)] },
    Row { what: "a pin is in force, whatever the configuration says", limits: USER, file: "", state: &["CL.POLICY token_bucket:ann CAPACITY 10 REFILL 1 INTERVAL 1000"],
        status: Status::Passed, policies: &["user q=10"], told: &["user r=9 t=1"], retry_after: None, left: &[(ANN, 9)] },
    Row { what: "a limit of 0 blocks", limits: &[("USER_CAPACITY", "0"), ("USER_REFILL", "1")], file: "", state: &[],
        status: Status::Refused, policies: &["user q=0"], told: &["user r=0"], retry_after: None, left: &[(ANN, 0)] },
    Row { what: "what never refills", limits: &[("USER_CAPACITY", "1"), ("USER_REFILL", "0")], file: "", state: &["CL.TAKE token_bucket:ann 1 CAPACITY 1 REFILL 0"],
        status: Status::Refused, policies: &["user q=1"], told: &["user r=0"], retry_after: None, left: &[(ANN, 0)] },
    Row { what: "parts of a second are rounded up", limits: &[("USER_CAPACITY", "1"), ("USER_REFILL", "1"), ("USER_INTERVAL", "1500ms")], file: "", state: &[],
        status: Status::Passed, policies: &["user q=1 w=2"], told: &["user r=0 t=2"], retry_after: None, left: &[(ANN, 0)] },
    Row { what: "a limit that watches says nothing", limits: NONE, state: &["CL.TAKE claw:watch:ann 1 CAPACITY 1 REFILL 1 INTERVAL 3600000"],
        file: "limits: [{name: watch, capacity: 1, refill: 1, interval: 1h, key: [user], mode: shadow}]",
        status: Status::Passed, policies: &[], told: &[], retry_after: None, left: &[("claw:watch:ann", 0)] },
    Row { what: "a cost above the capacity never passes", limits: NONE, state: &[],
        file: "limits: [{name: dear, capacity: 2, refill: 1, interval: 1h, key: [user], cost: {tokens: 3}}]",
        status: Status::Refused, policies: &["dear q=2 w=7200"], told: &["dear r=2"], retry_after: None, left: &[("claw:dear:ann", 2)] },
    Row { what: "a cost of three waits for three", limits: NONE, state: &["CL.TAKE claw:dear:ann 2 CAPACITY 4 REFILL 1 INTERVAL 3600000"],
        file: "limits: [{name: dear, capacity: 4, refill: 1, interval: 1h, key: [user], cost: {tokens: 3}}]",
        status: Status::Refused, policies: &["dear q=4 w=14400"], told: &["dear r=2 t=3600"], retry_after: Some(3600), left: &[("claw:dear:ann", 2)] },
    Row { what: "a reserve is kept", limits: NONE, state: &["CL.TAKE claw:kept:ann 2 CAPACITY 4 REFILL 1 INTERVAL 3600000"],
        file: "limits: [{name: kept, capacity: 4, refill: 1, interval: 1h, key: [user], keep: 2}]",
        status: Status::Refused, policies: &["kept q=4 w=14400"], told: &["kept r=2 t=3600"], retry_after: Some(3600), left: &[("claw:kept:ann", 2)] },
    Row { what: "method, path and host are those of the request", limits: NONE, state: &[],
        file: "limits: [{name: here, capacity: 4, refill: 1, interval: 1h, key: [method, path, host], match: {methods: [POST], paths: [/rating], hosts: [localhost]}},
                         {name: elsewhere, capacity: 4, refill: 1, match: {paths: [/other]}}]",
        status: Status::Passed, policies: &["here q=4 w=14400"], told: &["here r=3 t=3600"], retry_after: None, left: &[("claw:here:POST:/rating:localhost", 3)] },
    Row { what: "quotas refuse only together", limits: NONE, state: &["CL.TAKE claw:a:ann 1 CAPACITY 1 REFILL 1 INTERVAL 3600000"],
        file: "limits: [{name: a, capacity: 1, refill: 1, interval: 1h, key: [user], mode: quota}, {name: b, capacity: 1, refill: 1, interval: 1h, key: [user], mode: quota}]",
        status: Status::Passed, policies: &["a q=1 w=3600", "b q=1 w=3600"], told: &["a r=0 t=3600", "b r=0 t=3600"], retry_after: None, left: &[("claw:a:ann", 0), ("claw:b:ann", 0)] },
    Row { what: "an adaptive limit without a pin: the file's, whose rate is not told", limits: USER, file: ADAPTIVE, state: &[],
        status: Status::Passed, policies: &["user q=2 w=7200", "shop q=4"], told: &["user r=1 t=3600", "shop r=3 t=1000"], retry_after: None, left: &[(ANN, 1), (ROUTE, 3)] },
    Row { what: "a pin of the same capacity is in force", limits: USER, file: ADAPTIVE,
        state: &["CL.POLICY @route:claw:shop CAPACITY 4 REFILL 2 INTERVAL 3600000 FOR 36000000"],
        status: Status::Passed, policies: &["user q=2 w=7200", "shop q=4"], told: &["user r=1 t=3600", "shop r=3 t=1800"], retry_after: None, left: &[(ANN, 1), (ROUTE, 3)] },
    Row { what: "a pinned route is over: the user is not charged", limits: USER, file: ADAPTIVE,
        state: &["CL.POLICY @route:claw:shop CAPACITY 2 REFILL 1 INTERVAL 3600000 FOR 36000000", "CL.TAKE @route:claw:shop 2"],
        status: Status::Refused, policies: &["user q=2 w=7200", "shop q=2"], told: &["user r=2", "shop r=0 t=3600"], retry_after: Some(3600), left: &[(ANN, 2), (ROUTE, 0)] },
    Row { what: "the user is over: the route is not charged", limits: USER, file: ADAPTIVE,
        state: &["CL.TAKE token_bucket:ann 2 CAPACITY 2 REFILL 1 INTERVAL 3600000"],
        status: Status::Refused, policies: &["user q=2 w=7200", "shop q=4"], told: &["user r=0 t=3600", "shop r=4"], retry_after: Some(3600), left: &[(ANN, 0), (ROUTE, 4)] },
    Row { what: "a bucket that cannot be understood: fails open", limits: USER, file: "", state: &["HSET token_bucket:ann tokens many"],
        status: Status::Passed, policies: &[], told: &[], retry_after: None, left: &[] },
];

/// With a server that nobody reaches.
#[rustfmt::skip]
const BLIND: &[Row] = &[
    Row { what: "fails open", limits: USER, file: "", state: &[],
        status: Status::Passed, policies: &[], told: &[], retry_after: None, left: &[] },
    Row { what: "fails closed", limits: USER, state: &[],
        file: "limits: [{name: shut, capacity: 2, refill: 1, on_fault: closed}]",
        status: Status::Unavailable, policies: &[], told: &[], retry_after: Some(1), left: &[] },
    Row { what: "only watches", limits: NONE, state: &[],
        file: "limits: [{name: shut, capacity: 2, refill: 1, on_fault: closed, mode: shadow}]",
        status: Status::Passed, policies: &[], told: &[], retry_after: None, left: &[] },
];

impl Row {
    fn edge(&self, url: &str) -> (Edge, TempDir) {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("limits.yaml");
        let mut settings = vec![("USER_HEADER", "x-user")];
        settings.extend(self.limits);
        if !self.file.is_empty() {
            fs::write(&file, self.file).unwrap();
            settings.push(("CONFIG", file.to_str().unwrap()));
        }
        (start(url, &settings), dir)
    }

    fn check(&self, front: Front, told: &Told) {
        let what = format!("{}, {front:?}: {told:?}", self.what);
        assert_eq!(told.status, self.status, "{what}");
        let plain = |(name, parameters): &(String, Vec<(String, i64)>)| {
            let parameters = parameters.iter().map(|(name, value)| format!(" {name}={value}"));
            name.clone() + &parameters.collect::<String>()
        };
        assert_eq!(told.policies.iter().map(plain).collect::<Vec<_>>(), self.policies, "{what}");
        assert_eq!(told.limits.len(), self.told.len(), "{what}");
        for (limit, expected) in told.limits.iter().map(plain).zip(self.told) {
            match (limit.split_once(" t="), expected.split_once(" t=")) {
                (Some((limit, time)), Some((expected, most))) => {
                    assert_eq!(limit, expected, "{what}");
                    assert!(is_soon(time.parse().unwrap(), most.parse().unwrap()), "{what}");
                }
                _ => assert_eq!(limit, *expected, "{what}"),
            }
        }
        match (told.retry_after, self.retry_after) {
            (Some(wait), Some(most)) => assert!(is_soon(wait, most), "{what}"),
            (wait, expected) => assert_eq!(wait, expected, "{what}"),
        }
    }
}

/// Whether a time is what was expected, or shorter by what the test may have taken meanwhile.
fn is_soon(time: u64, expected: u64) -> bool {
    (expected.saturating_sub(30)..=expected).contains(&time) && time > 0
}

#[test]
fn what_requests_are_told_and_charged() {
    let server = Server::start();
    let mut conn = server.connection();
    for row in TABLE {
        let (edge, _dir) = row.edge(&server.url());
        for front in FRONTS {
            run(&mut conn, &["FLUSHALL"]);
            run(&mut conn, row.state);
            row.check(front, &front.ask(&edge, "ann"));
            for (key, left) in row.left {
                let answer: Vec<i64> = ask(&mut conn, &format!("CL.PEEK {key} 0"));
                // Nobody has touched a bucket that is not there: it is full, whatever its policy.
                let is_there: bool = ask(&mut conn, &format!("EXISTS {key}"));
                let untouched =
                    !is_there && row.told.iter().any(|told| told.ends_with(&format!("r={left}")));
                assert!(
                    answer[2] == *left || untouched,
                    "{}, {front:?}: {key}: {answer:?}",
                    row.what
                );
            }
        }
    }
}

#[test]
fn what_requests_are_told_without_a_server() {
    for row in BLIND {
        let (edge, _dir) = row.edge(&format!("redis://127.0.0.1:{}", free_port()));
        // Nothing can be stored without a server, so a rating says nothing here.
        row.check(Front::ForwardAuth, &Front::ForwardAuth.ask(&edge, "ann"));
    }
}
