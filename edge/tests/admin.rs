//! The page for operators as programs and hostile pages see it: who may, what is changed, what is
//! escaped. How people see it is in `admin_page.rs`.

#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use claw_testkit::{Server, eventually};
use common::api::{Response, get, get_from, post, send, start};
use common::redis::sharing;
use common::{Edge, PATIENCE, TICK};
use serde_json::json;

const TOKEN: &str = "a-token-for-tests";
const BEARER: (&str, &str) = ("authorization", "Bearer a-token-for-tests");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// A command to the server, and its reply.
fn run<T: redis::FromRedisValue>(server: &Server, words: &[&str]) -> T {
    let [name, arguments @ ..] = words else { panic!("no command") };
    redis::cmd(name).arg(arguments).query(&mut server.connection()).unwrap()
}

fn open(url: &str) -> Edge {
    start(url, &[("USER_CAPACITY", "2"), ("USER_REFILL", "2"), ("USER_INTERVAL", "1h")])
}

fn locked(url: &str) -> Edge {
    start(
        url,
        &[
            ("USER_CAPACITY", "2"),
            ("USER_REFILL", "2"),
            ("USER_INTERVAL", "1h"),
            ("ADMIN_TOKEN", TOKEN),
        ],
    )
}

/// A browser, as far as these tests need one.
struct Visitor {
    port: u16,
    cookie: String,
    csrf: String,
}

impl Visitor {
    /// Loads the page, which begins a session where no token is needed.
    fn come(port: u16) -> Self {
        Self::greeted(port, &get(port, "/admin"))
    }

    fn login(port: u16) -> Self {
        let response = send(port, "POST", "/admin/login", &[FORM], &format!("token={TOKEN}"));
        assert_eq!(
            (response.status, response.field("location")),
            (303, Some("/admin")),
            "{response:?}"
        );
        Self::greeted(port, &response)
    }

    fn greeted(port: u16, response: &Response) -> Self {
        let cookie = response.field("set-cookie").unwrap_or_else(|| panic!("{response:?}"));
        for property in ["HttpOnly", "SameSite=Strict", "Path=/admin"] {
            assert!(cookie.contains(property), "{cookie}");
        }
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let mut visitor = Self { port, cookie, csrf: String::new() };
        let page = visitor.get("/admin");
        let csrf = page.body.split("name=\"csrf\" value=\"").nth(1).unwrap();
        visitor.csrf = csrf.split('"').next().unwrap().to_owned();
        visitor
    }

    fn get(&self, path: &str) -> Response {
        send(self.port, "GET", path, &[("cookie", &self.cookie)], "")
    }

    fn post(&self, path: &str, form: &str) -> Response {
        self.post_as(path, &[], &format!("csrf={}&{form}", self.csrf))
    }

    fn post_as(&self, path: &str, fields: &[(&str, &str)], form: &str) -> Response {
        let fields = [&[FORM, ("cookie", self.cookie.as_str())], fields].concat();
        send(self.port, "POST", path, &fields, form)
    }

    /// What the next page says of the last change.
    fn note(&self) -> String {
        let page = self.get("/admin").body;
        let note = page.split("id=\"note\">").nth(1).unwrap_or_else(|| panic!("no note: {page}"));
        note.split('<').next().unwrap().to_owned()
    }
}

#[test]
fn every_answer_is_guarded() {
    let server = Server::start();
    let edge = locked(&server.url());
    for (path, status) in [
        ("/admin", 303),
        ("/admin/login", 200),
        ("/admin/style.css", 200),
        ("/admin/live.js", 200),
        ("/admin/bucket?user=ann", 303),
        ("/admin/live", 303),
    ] {
        let response = get(edge.ops, path);
        assert_eq!(response.status, status, "{path}: {response:?}");
        let policy = response.field("content-security-policy").unwrap();
        for part in
            ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"]
        {
            assert!(policy.contains(part), "{policy}");
        }
        for (name, value) in [
            ("x-frame-options", "DENY"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(response.field(name), Some(value), "{path}");
        }
        assert!(!response.body.contains("<script>") && !response.body.contains("style="), "{path}");
        assert!(!response.body.contains(TOKEN), "{path}");
    }
}

#[test]
fn without_a_token_the_page_is_for_this_machine_alone() {
    let server = Server::start();
    let edge = open(&server.url());
    assert_eq!(get(edge.ops, "/admin").status, 200);
    for fields in [
        [("host", "evil.example")],
        [("host", "localhost.evil.example:80")],
        [("host", "10.0.0.1")],
        [("x-forwarded-for", "192.0.2.1")],
        [("forwarded", "for=192.0.2.1")],
    ] {
        // The first `Host` counts for nobody: there may be one only.
        let head: String =
            fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let host = if fields[0].0 == "host" { "" } else { "host: localhost\r\n" };
        let request = format!("GET /admin HTTP/1.1\r\n{host}connection: close\r\n{head}\r\n");
        common::api::raw(edge.ops, request.as_bytes()).problem(403);
    }
}

#[test]
fn a_page_that_others_can_reach_needs_a_token() {
    let server = Server::start();
    let edge = Edge::builder(&server.url()).ops_everywhere().start();
    get(edge.ops, "/admin").problem(403);
    send(edge.ops, "POST", "/admin/weight", &[FORM], "userId=ann&weight=2").problem(403);
    assert_eq!(get(edge.ops, "/metrics").status, 200);
    let locked = Edge::builder(&server.url()).ops_everywhere().env("ADMIN_TOKEN", TOKEN).start();
    assert_eq!(get(locked.ops, "/admin").field("location"), Some("/admin/login"));
    assert_eq!(send(locked.ops, "GET", "/admin", &[BEARER], "").status, 200);
}

#[test]
fn a_login_begins_a_session_and_a_logout_ends_it() {
    let server = Server::start();
    let edge = locked(&server.url());
    assert_eq!(get(edge.ops, "/admin").field("location"), Some("/admin/login"));
    let wrong = send(edge.ops, "POST", "/admin/login", &[FORM], "token=wrong");
    assert!(wrong.status == 401 && wrong.body.contains("this is no admin token"), "{wrong:?}");
    send(edge.ops, "GET", "/admin", &[("authorization", "Bearer wrong")], "").problem(401);
    let visitor = Visitor::login(edge.ops);
    assert_eq!(visitor.get("/admin").status, 200);
    let other = Visitor::login(edge.ops);
    assert_ne!(visitor.cookie, other.cookie);
    assert_eq!(visitor.post("/admin/logout", "").field("location"), Some("/admin/login"));
    assert_eq!(visitor.get("/admin").field("location"), Some("/admin/login"));
    assert_eq!(other.get("/admin").status, 200, "the other session goes on");
    assert!(!edge.log().contains(TOKEN));
}

#[test]
fn tokens_cannot_be_guessed_at_will() {
    let server = Server::start();
    let edge = locked(&server.url());
    let try_one = || send(edge.ops, "POST", "/admin/login", &[FORM], "token=wrong").status;
    let tries: Vec<u16> = (0..8).map(|_| try_one()).collect();
    assert_eq!(tries, [401, 401, 401, 401, 401, 429, 429, 429]);
    // Even the right one has to wait, and who shows it as a program need not.
    let late = send(edge.ops, "POST", "/admin/login", &[FORM], &format!("token={TOKEN}"));
    assert!(late.status == 429 && late.body.contains("too many"), "{late:?}");
    let guessed = send(edge.ops, "GET", "/admin", &[("authorization", "Bearer wrong")], "");
    guessed.problem(429);
    assert_eq!(send(edge.ops, "GET", "/admin", &[BEARER], "").status, 200);
}

#[test]
fn without_a_server_tokens_cannot_be_guessed_either() {
    let edge = start(
        &format!("redis://127.0.0.1:{}", claw_testkit::free_port()),
        &[("ADMIN_TOKEN", TOKEN), ("DECISION_TIMEOUT", "50ms")],
    );
    let tries: Vec<u16> = (0..7)
        .map(|_| send(edge.ops, "POST", "/admin/login", &[FORM], "token=wrong").status)
        .collect();
    assert_eq!(tries, [401, 401, 401, 401, 401, 429, 429]);
    // The page says so, and is there.
    let page = send(edge.ops, "GET", "/admin", &[BEARER], "");
    assert_eq!(page.status, 200);
    assert!(page.body.contains("Not known: "), "{}", page.body);
}

#[test]
fn forms_of_other_pages_change_nothing() {
    let server = Server::start();
    let edge = open(&server.url());
    let visitor = Visitor::come(edge.ops);
    let form = "userId=ann&weight=3";
    let own = format!("csrf={}&{form}", visitor.csrf);
    for (fields, form) in [
        (vec![], form),
        (vec![], "csrf=00&userId=ann&weight=3"),
        (vec![("sec-fetch-site", "cross-site")], own.as_str()),
        (vec![("sec-fetch-site", "same-site")], own.as_str()),
        (vec![("origin", "http://evil.example")], own.as_str()),
        (vec![("origin", "null")], own.as_str()),
    ] {
        visitor.post_as("/admin/weight", &fields, form).problem(403);
    }
    // A session of somebody else has another secret.
    let stranger = Visitor::come(edge.ops);
    stranger.post_as("/admin/weight", &[], &own).problem(403);
    assert_eq!(run::<i64>(&server, &["EXISTS", "token_bucket:ann"]), 0);
    assert_eq!(
        visitor.post_as("/admin/weight", &[("sec-fetch-site", "same-origin")], &own).status,
        303
    );
    assert_eq!(run::<i64>(&server, &["EXISTS", "token_bucket:ann"]), 1);
}

#[test]
fn a_weight_is_set_by_a_form_and_by_a_program() {
    let server = Server::start();
    let edge = locked(&server.url());
    let visitor = Visitor::login(edge.ops);
    let response = visitor.post("/admin/weight", "userId=ann&weight=3");
    assert_eq!(response.field("location"), Some("/admin/bucket?user=ann"));
    assert_eq!(visitor.note(), "The weight of ann is 3 now; it was 1.");
    assert_eq!(run::<String>(&server, &["HGET", "token_bucket:ann", "userWeight"]), "3");

    let json = [BEARER, ("content-type", "application/json")];
    let told = send(edge.ops, "POST", "/admin/weight", &json, r#"{"userId":"ann","weight":"4"}"#);
    assert_eq!(told.json(), json!({"userId": "ann", "weight": 4}));
    assert_eq!(run::<String>(&server, &["HGET", "token_bucket:ann", "userWeight"]), "4");
    let form = send(edge.ops, "POST", "/admin/weight", &[BEARER, FORM], "userId=ann&weight=5");
    assert_eq!(form.json()["weight"], 5);

    for weight in ["0", "11", "-1", "1.5", "", "x", "99999999999999999999"] {
        let form = format!("userId=ann&weight={weight}");
        send(edge.ops, "POST", "/admin/weight", &[BEARER, FORM], &form).problem(400);
    }
    for form in ["userId=&weight=1", "weight=1", "userId=ann", "userId=a%00b&weight=1"] {
        send(edge.ops, "POST", "/admin/weight", &[BEARER, FORM], form).problem(400);
    }
    send(edge.ops, "POST", "/admin/weight", &[BEARER], "userId=ann&weight=1").problem(415);
    let long = format!("userId={}&weight=1", "a".repeat(20_000));
    send(edge.ops, "POST", "/admin/weight", &[BEARER, FORM], &long).problem(413);
    assert_eq!(run::<String>(&server, &["HGET", "token_bucket:ann", "userWeight"]), "5");

    // All of it is in the list of changes and in the log, with who it was and without secrets.
    let changes = visitor.get("/admin").body;
    for change in
        ["weight of token_bucket:ann: 1 -&#62; 3", "weight of token_bucket:ann: 3 -&#62; 4"]
    {
        assert!(changes.contains(change), "{changes}");
    }
    assert!(changes.contains("<td>token</td>") && changes.contains("<td>session "), "{changes}");
    assert_eq!(edge.logged("weight of token_bucket:ann"), 3);
    assert!(!edge.log().contains(TOKEN) && !changes.contains(TOKEN));
}

#[test]
fn a_policy_is_pinned_for_a_time_and_a_bucket_is_filled() {
    let server = Server::start();
    let edge = open(&server.url());
    let visitor = Visitor::come(edge.ops);
    let key = "token_bucket%3Aann";
    let back = "/admin/bucket?key=token_bucket%253Aann";
    for _ in 0..3 {
        post(edge.http, "/rating", r#"{"user_id":"ann","item_id":"tea","rating":4}"#);
    }
    let page = visitor.get("/admin").body;
    assert!(page.contains(&format!("href=\"{back}\">token_bucket:ann</a>")), "{page}");
    let bucket = visitor.get("/admin/bucket?user=ann").body;
    assert!(bucket.contains("<strong>0</strong> of 2 tokens"), "{bucket}");

    let pin = "capacity=7&refill=0.5&interval_ms=1000&for_ms=60000";
    let response = visitor.post("/admin/policy", &format!("key={key}&{pin}"));
    assert_eq!(response.field("location"), Some(back));
    assert!(visitor.note().contains("is pinned to 7 tokens, 0.5 per 1000 ms"));
    let shown = visitor.get(back).body;
    assert!(shown.contains("of 7 tokens") && shown.contains("Unpin"), "{shown}");

    visitor.post("/admin/weight", "userId=ann&weight=2");
    visitor.post("/admin/unpin", &format!("key={key}"));
    let policy: std::collections::HashMap<String, String> =
        run(&server, &["CL.POLICY_RO", "token_bucket:ann"]);
    assert_eq!(
        (policy["pinned"].as_str(), policy["weight"].as_str()),
        ("0", "2"),
        "the weight stays"
    );

    run::<Vec<i64>>(&server, &["CL.SETTLE", "token_bucket:ann", "0", "50"]);
    let debt = visitor.get("/admin/bucket?user=ann").body;
    assert!(debt.contains("in debt"), "{debt}");
    visitor.post("/admin/reset", &format!("key={key}"));
    let full = visitor.get("/admin/bucket?user=ann").body;
    assert!(full.contains("<strong>2</strong> of 2 tokens"), "{full}");

    for wrong in [
        "capacity=-1&refill=1",
        "capacity=1&refill=x",
        "capacity=1&refill=1&interval_ms=0",
        "capacity=1&refill=1&for_ms=forever",
        "capacity=&refill=1",
    ] {
        visitor.post("/admin/policy", &format!("key={key}&{wrong}"));
        assert!(visitor.note().starts_with("Nothing was changed: "), "{wrong}");
    }
}

#[test]
fn what_is_shown_is_escaped_and_odd_keys_can_be_looked_at() {
    let server = Server::start();
    let edge = open(&server.url());
    let visitor = Visitor::come(edge.ops);
    let user = "<script>alert(1)</script>\\\"'&";
    let body = json!({"user_id": user, "item_id": "tea", "rating": 4}).to_string();
    for _ in 0..3 {
        post(edge.http, "/rating", &body);
    }
    for path in ["/admin", "/admin/live", "/admin/bucket?user=%3Cscript%3Ealert(1)%3C/script%3E"] {
        let page = visitor.get(path);
        assert_eq!(page.status, 200);
        assert!(
            !page.body.contains("<script>") && page.body.contains("&#60;script&#62;"),
            "{}",
            page.body
        );
    }
    run::<Vec<i64>>(&server, &["CL.TAKE", "odd\u{7f}\n", "1"]);
    let page = visitor.get("/admin/bucket?key=odd%257F%250A");
    assert!(page.body.contains("odd\\x7f\\n"), "{}", page.body);
    // A key of another kind is named, not broken.
    run::<String>(&server, &["SET", "text", "x"]);
    let page = visitor.get("/admin/bucket?key=text");
    assert!(page.status == 200 && page.body.contains("WRONGTYPE"), "{}", page.body);
    for path in
        ["/admin/bucket", "/admin/bucket?key=", "/admin/bucket?user=", "/admin/bucket?user=a%00"]
    {
        visitor.get(path).problem(400);
    }
}

#[test]
fn what_cannot_be_seen_is_made_visible() {
    let server = Server::start();
    let edge = open(&server.url());
    let visitor = Visitor::come(edge.ops);
    let (user, address) = ("ann\u{202e}nimda\u{200b}", "ann%E2%80%AEnimda%E2%80%8B");
    let body = json!({"user_id": user, "item_id": "tea", "rating": 4}).to_string();
    for _ in 0..3 {
        post(edge.http, "/rating", &body);
    }
    visitor.post("/admin/weight", &format!("userId={address}&weight=3"));
    let note = visitor.note();
    assert_eq!(note, "The weight of ann\\u{202e}nimda\\u{200b} is 3 now; it was 1.");
    for path in ["/admin", "/admin/live", &format!("/admin/bucket?user={address}")] {
        let page = visitor.get(path).body;
        assert!(page.contains("ann\\u{202e}nimda\\u{200b}"), "{path}: {page}");
        // But for the form, which brings the name back as it is.
        let field = format!("name=\"userId\" value=\"{user}\"");
        assert!(!page.replace(&field, "").contains(['\u{202e}', '\u{200b}']), "{path}: {page}");
    }
    assert!(!edge.log().contains('\u{202e}'), "{}", edge.log());
}

#[test]
fn what_other_regions_admit_is_asked_of_their_own_servers() {
    let [eu, us] = sharing();
    let alone = open(&eu.url());
    let page = get(alone.ops, "/admin/live").body;
    assert!(page.contains("no server of theirs is in RATINGS_PEERS"), "{page}");

    let nobody = format!("redis://:secret@127.0.0.1:{}", claw_testkit::free_port());
    let peers = format!("us={},ap={nobody}", us.url());
    let edge = start(&eu.url(), &[("REGION", "eu"), ("RATINGS_PEERS", &peers)]);
    let row = |name: &str, rest: &str| format!("<tr><th scope=\"row\">{name}</th>{rest}</tr>");
    let shows = |what: &str, row: &str| {
        eventually(PATIENCE, TICK, what, || get(edge.ops, "/admin/live").body.contains(row));
    };
    eventually(PATIENCE, TICK, "us hears eu", || {
        let status: redis::Value = run(&us, &["CL.SYNC", "STATUS"]);
        format!("{status:?}").contains("heard_ms_ago")
    });
    shows("both are heard", &row("us", "<td>1000</td><td></td>"));
    let page = get(edge.ops, "/admin").body;
    assert!(page.contains("<strong>1000</strong> thousandths"), "{page}");
    let why = "<td class=\"warning\" colspan=\"2\">Not known: ";
    assert!(page.contains(&format!("<tr><th scope=\"row\">ap</th>{why}")), "{page}");
    assert!(!page.contains("secret") && !edge.log().contains("secret"));

    // eu tells no more: us goes on with its share, which only us knows.
    run::<String>(&eu, &["CONFIG", "SET", "claw.peers", ""]);
    let mut share = 1000;
    eventually(PATIENCE, TICK, "us goes on alone", || {
        let info: String = run(&us, &["INFO", "claw"]);
        let line = info.lines().find_map(|line| line.strip_prefix("claw_sync_share_permille:"));
        share = line.unwrap().parse().unwrap();
        share < 1000
    });
    shows("its share", &row("us", &format!("<td>{share}</td><td>eu</td>")));
    drop(us);
    shows("us is gone", &format!("<tr><th scope=\"row\">us</th>{why}"));
}

#[test]
fn sessions_are_bounded() {
    let server = Server::start();
    let edge = open(&server.url());
    let first = Visitor::come(edge.ops);
    let busy = Visitor::come(edge.ops);
    for number in 0..1_005 {
        get(edge.ops, "/admin/live");
        if number % 100 == 0 {
            busy.get("/admin/live");
        }
    }
    assert_eq!(busy.get("/admin").field("set-cookie"), None, "one that is used stays");
    assert!(first.get("/admin").field("set-cookie").is_some(), "one that is not used goes first");
    // Who comes from elsewhere gets none.
    get_from("127.0.0.2", edge.ops, "/admin", &[("x-forwarded-for", "192.0.2.1")]).problem(403);
}
