//! One table of behaviour, run over every front: which limits a user falls under and what their
//! buckets hold, and then what a request of his is told and charged.

#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::fs;

use claw_edge::proto::{Code, RateLimitResponse};
use claw_testkit::{Server, ask, free_port, run};
use common::Edge;
use common::api::{Response, send, start};
use common::rls::{Client, request};
use tempfile::TempDir;
use tokio::runtime::Builder;

/// Where a request comes in.
#[derive(Clone, Copy, Debug)]
enum Front {
    Rating,
    ForwardAuth,
    Grpc,
}

const FRONTS: [Front; 3] = [Front::Rating, Front::ForwardAuth, Front::Grpc];

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
    /// The key of ann's bucket of a limit.
    fn key(self, limit: &str) -> String {
        match (self, limit) {
            (Self::Grpc, "service") => "claw:rls/d/service=".to_owned(),
            (Self::Grpc, "here") => {
                "claw:rls/d/method=POST/path=%2Frating/host=localhost".to_owned()
            }
            (Self::Grpc, limit) => format!("claw:rls/d/{limit}=ann"),
            (_, "user") => "token_bucket:ann".to_owned(),
            (_, "service") => "claw:service".to_owned(),
            (_, "shop") => "@route:claw:shop".to_owned(),
            (_, "here") => "claw:here:POST:/rating:localhost".to_owned(),
            (_, limit) => format!("claw:{limit}:ann"),
        }
    }

    /// A request of ann's is told what the row says.
    fn check(self, edge: &Edge, row: &Row) {
        match self {
            Self::Rating => {
                let body = r#"{"user_id":"ann","item_id":"tea","rating":4,"weight":3}"#;
                let fields = [("content-type", "application/json")];
                row.check(self, &Self::told(&send(edge.http, "POST", "/rating", &fields, body)));
            }
            Self::ForwardAuth => {
                let fields = [
                    ("x-user", "ann"),
                    ("x-forwarded-method", "POST"),
                    ("x-forwarded-uri", "/rating"),
                    ("x-forwarded-host", "localhost"),
                ];
                row.check(self, &Self::told(&send(edge.http, "GET", "/auth", &fields, "")));
            }
            Self::Grpc => {
                let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                let asked = request(row.grpc.unwrap());
                let told = runtime.block_on(async { Client::new(edge.grpc).ask(asked).await });
                row.check_call(&told.unwrap());
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
    /// Commands that make the buckets: `{user}` is the key of ann's bucket of the limit `user`.
    state: &'static [&'static str],
    status: Status,
    /// `RateLimit-Policy`.
    policies: &'static [&'static str],
    /// `RateLimit`. Times may be a little shorter.
    told: &'static [&'static str],
    retry_after: Option<u64>,
    /// What buckets hold afterwards.
    left: &'static [(&'static str, i64)],
    /// What Envoy asks for the same under [`DESCRIPTORS`], or why it cannot.
    grpc: Result<&'static str, &'static str>,
}

/// The limits of the rows, as Envoy's descriptors have them.
const DESCRIPTORS: &str = "
domain: d
descriptors:
- {key: service, rate_limit: {unit: hour, requests_per_unit: 4}}
- {key: user, rate_limit: {unit: hour, requests_per_unit: 2}}
- {key: none, rate_limit: {unit: second, requests_per_unit: 0}}
- {key: watch, shadow_mode: true, rate_limit: {unit: hour, requests_per_unit: 1}}
- {key: dear, rate_limit: {unit: hour, requests_per_unit: 2}}
- {key: cost, rate_limit: {unit: hour, requests_per_unit: 4}}
- {key: a, quota_mode: true, rate_limit: {unit: hour, requests_per_unit: 1}}
- {key: b, quota_mode: true, rate_limit: {unit: hour, requests_per_unit: 1}}
- key: method
  descriptors:
  - key: path
    descriptors:
    - {key: host, rate_limit: {unit: hour, requests_per_unit: 4}}
";

const NONE: &[(&str, &str)] = &[];
const USER: &[(&str, &str)] =
    &[("USER_CAPACITY", "2"), ("USER_REFILL", "2"), ("USER_INTERVAL", "1h")];
const BOTH: &[(&str, &str)] = &[
    ("CAPACITY", "4"),
    ("REFILL", "4"),
    ("INTERVAL", "1h"),
    ("USER_CAPACITY", "2"),
    ("USER_REFILL", "2"),
    ("USER_INTERVAL", "1h"),
];
const ADAPTIVE: &str =
    "limits: [{name: shop, capacity: 4, refill: 1, interval: 1000s, adaptive: {}}]";

#[rustfmt::skip]
const TABLE: &[Row] = &[
    Row { what: "no limit", limits: NONE, file: "", state: &[],
        status: Status::Passed, policies: &[], told: &[], retry_after: None, left: &[],
        grpc: Ok("d: unknown=ann") },
    Row { what: "a full bucket", limits: USER, file: "", state: &[],
        status: Status::Passed, policies: &["user q=2 w=3600"], told: &["user r=1 t=1800"], retry_after: None, left: &[("user", 1)],
        grpc: Ok("d: user=ann") },
    Row { what: "the last token", limits: USER, file: "", state: &["CL.TAKE {user} 1 CAPACITY 2 REFILL 2 INTERVAL 3600000"],
        status: Status::Passed, policies: &["user q=2 w=3600"], told: &["user r=0 t=1800"], retry_after: None, left: &[("user", 0)],
        grpc: Ok("d: user=ann") },
    Row { what: "an empty bucket", limits: USER, file: "", state: &["CL.TAKE {user} 2 CAPACITY 2 REFILL 2 INTERVAL 3600000"],
        status: Status::Refused, policies: &["user q=2 w=3600"], told: &["user r=0 t=1800"], retry_after: Some(1800), left: &[("user", 0)],
        grpc: Ok("d: user=ann") },
    Row { what: "a bucket written by hand", limits: USER, file: "", state: &["HSET {user} tokens 0.5 timestamp 2026-01-01T00:00:00Z userWeight 1"],
        status: Status::Passed, policies: &["user q=2 w=3600"], told: &["user r=1 t=1800"], retry_after: None, left: &[("user", 1)],
        grpc: Ok("d: user=ann") },
    Row { what: "two limits", limits: BOTH, file: "", state: &[],
        status: Status::Passed, policies: &["service q=4 w=3600", "user q=2 w=3600"],
        told: &["service r=3 t=900", "user r=1 t=1800"], retry_after: None, left: &[("service", 3), ("user", 1)],
        grpc: Ok("d: service | user=ann") },
    Row { what: "the second of them is over: nobody is charged", limits: BOTH, file: "", state: &["CL.TAKE {user} 2 CAPACITY 2 REFILL 2 INTERVAL 3600000"],
        status: Status::Refused, policies: &["service q=4 w=3600", "user q=2 w=3600"],
        told: &["service r=4", "user r=0 t=1800"], retry_after: Some(1800), left: &[("service", 4), ("user", 0)],
        grpc: Ok("d: service | user=ann") },
    Row { what: "the first of them is over: nobody is charged", limits: BOTH, file: "", state: &["CL.TAKE {service} 4 CAPACITY 4 REFILL 4 INTERVAL 3600000"],
        status: Status::Refused, policies: &["service q=4 w=3600", "user q=2 w=3600"],
        told: &["service r=0 t=900", "user r=2"], retry_after: Some(900), left: &[("service", 0), ("user", 2)],
        grpc: Ok("d: service | user=ann") },
    Row { what: "both are over: the longer wait", limits: BOTH, file: "",
        state: &["CL.TAKE {service} 4 CAPACITY 4 REFILL 4 INTERVAL 3600000", "CL.TAKE {user} 2 CAPACITY 2 REFILL 2 INTERVAL 3600000",
            "CL.SETTLE {user} 0 1"],
        status: Status::Refused, policies: &["service q=4 w=3600", "user q=2 w=3600"],
        told: &["service r=0 t=900", "user r=0 t=1800"], retry_after: Some(3600), left: &[("service", 0), ("user", -1)],
        grpc: Ok("d: service | user=ann") },
    Row { what: "debt", limits: USER, file: "", state: &["CL.SETTLE {user} 0 4 CAPACITY 2 REFILL 2 INTERVAL 3600000"],
        status: Status::Refused, policies: &["user q=2 w=3600"], told: &["user r=0 t=1800"], retry_after: Some(5400), left: &[("user", -2)],
        grpc: Ok("d: user=ann") },
    Row { what: "weight", limits: USER, file: "",
        state: &["CL.POLICY {user} WEIGHT 2", "CL.TAKE {user} 2 CAPACITY 2 REFILL 2 INTERVAL 3600000"],
        status: Status::Refused, policies: &["user q=2 w=3600"], told: &["user r=0 t=900"], retry_after: Some(900), left: &[("user", 0)],
        grpc: Ok("d: user=ann") },
    Row { what: "a pin is in force, whatever the configuration says", limits: USER, file: "", state: &["CL.POLICY {user} CAPACITY 10 REFILL 1 INTERVAL 1000"],
        status: Status::Passed, policies: &["user q=10"], told: &["user r=9 t=1"], retry_after: None, left: &[("user", 9)],
        grpc: Ok("d: user=ann") },
    Row { what: "a limit of 0 blocks", limits: &[("USER_CAPACITY", "0"), ("USER_REFILL", "1")], file: "", state: &[],
        status: Status::Refused, policies: &["user q=0"], told: &["user r=0"], retry_after: None, left: &[("user", 0)],
        grpc: Ok("d: none=ann") },
    Row { what: "what never refills", limits: &[("USER_CAPACITY", "1"), ("USER_REFILL", "0")], file: "", state: &["CL.TAKE {user} 1 CAPACITY 1 REFILL 0"],
        status: Status::Refused, policies: &["user q=1"], told: &["user r=0"], retry_after: None, left: &[("user", 0)],
        grpc: Err("what Envoy grants is so much in each unit of time") },
    Row { what: "parts of a second are rounded up", limits: &[("USER_CAPACITY", "1"), ("USER_REFILL", "1"), ("USER_INTERVAL", "1500ms")], file: "", state: &[],
        status: Status::Passed, policies: &["user q=1 w=2"], told: &["user r=0 t=2"], retry_after: None, left: &[("user", 0)],
        grpc: Err("a unit of time of Envoy's is a second or more") },
    Row { what: "a limit that watches says nothing", limits: NONE, state: &["CL.TAKE {watch} 1 CAPACITY 1 REFILL 1 INTERVAL 3600000"],
        file: "limits: [{name: watch, capacity: 1, refill: 1, interval: 1h, key: [user], mode: shadow}]",
        status: Status::Passed, policies: &[], told: &[], retry_after: None, left: &[("watch", 0)],
        grpc: Ok("d: watch=ann") },
    Row { what: "a cost above the capacity never passes", limits: NONE, state: &[],
        file: "limits: [{name: dear, capacity: 2, refill: 2, interval: 1h, key: [user], cost: {tokens: 3}}]",
        status: Status::Refused, policies: &["dear q=2 w=3600"], told: &["dear r=2"], retry_after: None, left: &[("dear", 2)],
        grpc: Ok("d*3: dear=ann") },
    Row { what: "a cost of three waits for three", limits: NONE, state: &["CL.TAKE {cost} 2 CAPACITY 4 REFILL 4 INTERVAL 3600000"],
        file: "limits: [{name: cost, capacity: 4, refill: 4, interval: 1h, key: [user], cost: {tokens: 3}}]",
        status: Status::Refused, policies: &["cost q=4 w=3600"], told: &["cost r=2 t=900"], retry_after: Some(900), left: &[("cost", 2)],
        grpc: Ok("d*3: cost=ann") },
    Row { what: "a reserve is kept", limits: NONE, state: &["CL.TAKE {kept} 2 CAPACITY 4 REFILL 1 INTERVAL 3600000"],
        file: "limits: [{name: kept, capacity: 4, refill: 1, interval: 1h, key: [user], keep: 2}]",
        status: Status::Refused, policies: &["kept q=4 w=14400"], told: &["kept r=2 t=3600"], retry_after: Some(3600), left: &[("kept", 2)],
        grpc: Err("a descriptor leaves nothing for others") },
    Row { what: "method, path and host are those of the request", limits: NONE, state: &[],
        file: "limits: [{name: here, capacity: 4, refill: 4, interval: 1h, key: [method, path, host], match: {methods: [POST], paths: [/rating], hosts: [localhost]}},
                         {name: elsewhere, capacity: 4, refill: 1, match: {paths: [/other]}}]",
        status: Status::Passed, policies: &["here q=4 w=3600"], told: &["here r=3 t=900"], retry_after: None, left: &[("here", 3)],
        grpc: Ok("d: method=POST path=/rating host=localhost") },
    Row { what: "quotas refuse only together", limits: NONE, state: &["CL.TAKE {a} 1 CAPACITY 1 REFILL 1 INTERVAL 3600000"],
        file: "limits: [{name: a, capacity: 1, refill: 1, interval: 1h, key: [user], mode: quota}, {name: b, capacity: 1, refill: 1, interval: 1h, key: [user], mode: quota}]",
        status: Status::Passed, policies: &["a q=1 w=3600", "b q=1 w=3600"], told: &["a r=0 t=3600", "b r=0 t=3600"], retry_after: None, left: &[("a", 0), ("b", 0)],
        grpc: Ok("d: a=ann | b=ann") },
    Row { what: "an adaptive limit without a pin: the file's, whose rate is not told", limits: USER, file: ADAPTIVE, state: &[],
        status: Status::Passed, policies: &["user q=2 w=3600", "shop q=4"], told: &["user r=1 t=1800", "shop r=3 t=1000"], retry_after: None, left: &[("user", 1), ("shop", 3)],
        grpc: Err("no limit of Envoy's is adaptive") },
    Row { what: "a pin of the same capacity is in force", limits: USER, file: ADAPTIVE,
        state: &["CL.POLICY {shop} CAPACITY 4 REFILL 2 INTERVAL 3600000 FOR 36000000"],
        status: Status::Passed, policies: &["user q=2 w=3600", "shop q=4"], told: &["user r=1 t=1800", "shop r=3 t=1800"], retry_after: None, left: &[("user", 1), ("shop", 3)],
        grpc: Err("no limit of Envoy's is adaptive") },
    Row { what: "a pinned route is over: the user is not charged", limits: USER, file: ADAPTIVE,
        state: &["CL.POLICY {shop} CAPACITY 2 REFILL 1 INTERVAL 3600000 FOR 36000000", "CL.TAKE {shop} 2"],
        status: Status::Refused, policies: &["user q=2 w=3600", "shop q=2"], told: &["user r=2", "shop r=0 t=3600"], retry_after: Some(3600), left: &[("user", 2), ("shop", 0)],
        grpc: Err("no limit of Envoy's is adaptive") },
    Row { what: "the user is over: the route is not charged", limits: USER, file: ADAPTIVE,
        state: &["CL.TAKE {user} 2 CAPACITY 2 REFILL 2 INTERVAL 3600000"],
        status: Status::Refused, policies: &["user q=2 w=3600", "shop q=4"], told: &["user r=0 t=1800", "shop r=4"], retry_after: Some(1800), left: &[("user", 0), ("shop", 4)],
        grpc: Err("no limit of Envoy's is adaptive") },
    Row { what: "a bucket that cannot be understood: fails open", limits: USER, file: "", state: &["HSET {user} tokens many"],
        status: Status::Passed, policies: &[], told: &[], retry_after: None, left: &[],
        grpc: Err("whether it passes then is for Envoy to say") },
];

/// With a server that nobody reaches.
#[rustfmt::skip]
const BLIND: &[Row] = &[
    Row { what: "fails open", limits: USER, file: "", state: &[],
        status: Status::Passed, policies: &[], told: &[], retry_after: None, left: &[],
        grpc: Err("whether it passes then is for Envoy to say") },
    Row { what: "fails closed", limits: USER, state: &[],
        file: "limits: [{name: shut, capacity: 2, refill: 1, on_fault: closed}]",
        status: Status::Unavailable, policies: &[], told: &[], retry_after: Some(1), left: &[],
        grpc: Err("whether it passes then is for Envoy to say") },
    Row { what: "only watches", limits: NONE, state: &[],
        file: "limits: [{name: shut, capacity: 2, refill: 1, on_fault: closed, mode: shadow}]",
        status: Status::Passed, policies: &[], told: &[], retry_after: None, left: &[],
        grpc: Ok("d: watch=ann") },
];
impl Row {
    /// Those at which it can be asked for.
    fn fronts(&self, all: &[Front]) -> impl Iterator<Item = Front> {
        let is_here = |front: &Front| !matches!(front, Front::Grpc) || self.grpc.is_ok();
        all.iter().copied().filter(is_here)
    }

    fn edge(&self, url: &str) -> (Edge, TempDir) {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("limits.yaml");
        let descriptors = dir.path().join("descriptors");
        fs::create_dir(&descriptors).unwrap();
        fs::write(descriptors.join("d.yaml"), DESCRIPTORS).unwrap();
        let descriptors = descriptors.to_str().unwrap();
        let mut settings = vec![("USER_HEADER", "x-user"), ("RLS_CONFIG", descriptors)];
        settings.extend(self.limits);
        if !self.file.is_empty() {
            fs::write(&file, self.file).unwrap();
            settings.push(("CONFIG", file.to_str().unwrap()));
        }
        (start(url, &settings), dir)
    }

    /// A call of Envoy's is told the same, as far as it is told such things: of its own limit, what is
    /// left of it, and how long to wait.
    fn check_call(&self, told: &RateLimitResponse) {
        let what = format!("{}, Grpc: {told:?}", self.what);
        let is_over = |code: Code| code == Code::OverLimit;
        assert_eq!(is_over(told.overall_code()), self.status == Status::Refused, "{what}");
        let number = |text: &str, name: &str| -> Option<u64> {
            text.split(' ').find_map(|word| word.strip_prefix(name)?.parse().ok())
        };
        let mut waits = Vec::new();
        let limited: Vec<_> =
            told.statuses.iter().filter(|status| status.current_limit.is_some()).collect();
        // Envoy is told of a limit that watches, and nobody else is.
        assert!(self.told.is_empty() || limited.len() == self.told.len(), "{what}");
        for (status, expected) in limited.iter().zip(self.told) {
            let most = status.current_limit.as_ref().unwrap().requests_per_unit;
            let wait = u64::try_from(status.duration_until_reset.unwrap().seconds).unwrap();
            if is_over(status.code()) {
                assert_eq!(status.limit_remaining, 0, "{what}");
                waits.push(wait);
            } else {
                let left = number(expected, "r=").unwrap().min(most.into());
                assert_eq!(u64::from(status.limit_remaining), left, "{what}");
            }
        }
        if self.status == Status::Refused {
            match self.retry_after {
                Some(most) => assert!(is_soon(waits.into_iter().max().unwrap(), most), "{what}"),
                // Never: then it is the limit's unit.
                None => assert!(waits.iter().all(|wait| [1, 3600].contains(wait)), "{what}"),
            }
        }
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
        for front in row.fronts(&FRONTS) {
            run(&mut conn, &["FLUSHALL"]);
            for command in row.state {
                let words = command.split(' ').map(|word| {
                    match word.strip_prefix('{').and_then(|word| word.strip_suffix('}')) {
                        Some(limit) => front.key(limit),
                        None => word.to_owned(),
                    }
                });
                run(&mut conn, &[&words.collect::<Vec<_>>().join(" ")]);
            }
            front.check(&edge, row);
            for (limit, left) in row.left {
                let key = front.key(limit);
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
        for front in row.fronts(&[Front::ForwardAuth, Front::Grpc]) {
            front.check(&edge, row);
        }
    }
}
