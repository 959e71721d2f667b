//! Ratings: what is stored, that it is charged, and that regions which apply the same records
//! hold the same.

#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use claw_testkit::{Cluster, Server, ask, digest, eventually, fields, run, wait_for_offset};
use common::api::{get, post, send, start};
use common::ratings::{LIBRARY, Record, apply, expected, follow, load, rate, stored, tend};
use common::{PATIENCE, TICK, send_signal};
use proptest::prelude::*;
use proptest::sample::Index;
use redis::Connection;
use serde_json::json;

#[test]
fn a_rating_is_stored_and_can_be_read() {
    let server = Server::start();
    let edge = start(&server.url(), &[("REGION", "eu")]);
    let stored = rate(&edge, "ann", "tea", "4.5");
    assert_eq!(stored.status, 200);
    assert!(stored.body.contains(r#""rating":4.5,"#), "{}", stored.body);
    let told = stored.json();
    assert_eq!(
        (&told["user_id"], &told["item_id"], &told["region"]),
        (&json!("ann"), &json!("tea"), &json!("eu"))
    );
    let now =
        u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap();
    let stamp = told["stamp"].as_u64().unwrap();
    assert!(stamp.abs_diff(now) < 60_000_000, "{stamp} is microseconds since 1970");
    assert_eq!(get(edge.http, "/rating/ann/tea").json(), told);

    // The later one counts, and only once. The stamp rises however fast they come.
    let later = rate(&edge, "ann", "tea", "1").json();
    assert!(later["stamp"].as_u64().unwrap() > stamp);
    assert_eq!(rate(&edge, "bob", "tea", "1.000001").status, 200);
    assert_eq!(rate(&edge, "cid", "tea", "1e0").status, 200);
    assert_eq!(get(edge.http, "/items/tea").body, r#"{"item_id":"tea","count":3,"mean":1}"#);
    assert_eq!(rate(&edge, "cid", "tea", "5").status, 200);
    // 7.000001 / 3
    assert_eq!(get(edge.http, "/items/tea").body, r#"{"item_id":"tea","count":3,"mean":2.333334}"#);
    assert_eq!(get(edge.http, "/items/none").body, r#"{"item_id":"none","count":0,"mean":null}"#);
    get(edge.http, "/rating/ann/none").problem(404);

    let mut conn = server.connection();
    assert_eq!(fields(&mut conn, "{ratings}:item:tea")["sum"], "7000001");
    let outbox: Vec<(String, Vec<String>)> = ask(&mut conn, "XRANGE {ratings}:outbox - +");
    assert_eq!(outbox.len(), 5);
    assert_eq!(
        outbox[1].1,
        [
            "user",
            "ann",
            "item",
            "tea",
            "rating",
            "1000000",
            "stamp",
            &later["stamp"].to_string(),
            "region",
            "eu"
        ]
    );
}

#[test]
fn bodies() {
    let server = Server::start();
    let edge = start(&server.url(), &[("MAX_BODY", "1000")]);
    let long = "x".repeat(257);
    #[rustfmt::skip]
    let table = [
        // body, status, what is stored or said
        (r#"{"user_id":"a","item_id":"i","rating":3}"#,            200, r#""rating":3,"#),
        (r#"{"userId":"a","itemId":"i","score":0}"#,               200, r#""rating":0,"#),
        (r#"{"userId":17,"itemId":4,"score":5.0}"#,                200, r#"{"user_id":"17","item_id":"4","rating":5,"#),
        (r#"{"userId":"a","itemId":"i","score":0.000001}"#,        200, r#""rating":0.000001,"#),
        (r#"{"userId":"a","itemId":"i","score":4.50000000}"#,      200, r#""rating":4.5,"#),
        (r#"{"userId":"é€","itemId":"a b/c","score":1,"note":{}}"#, 200, r#"{"user_id":"é€","item_id":"a b/c","rating":1,"#),
        (r#"{"userId":"a","itemId":"i","score":0.0000001}"#,       400, "at most 6 decimals"),
        (r#"{"userId":"a","itemId":"i","score":0.30000000000000004}"#, 400, "at most 6 decimals"),
        (r#"{"userId":"a","itemId":"i","score":5.000001}"#,        400, "from 0 to 5"),
        (r#"{"userId":"a","itemId":"i","score":-1}"#,              400, "from 0 to 5"),
        (r#"{"userId":"a","itemId":"i","score":1e400}"#,           400, "from 0 to 5"),
        (r#"{"userId":"a","itemId":"i","score":"4"}"#,             400, "from 0 to 5"),
        (r#"{"userId":"a","itemId":"i","score":null}"#,            400, "from 0 to 5"),
        (r#"{"userId":"a","itemId":"i","score":NaN}"#,             400, "the body: expected"),
        (r#"{"userId":"a","itemId":"i"}"#,                         400, "missing field `rating`"),
        (r#"{"userId":"a","user_id":"b","itemId":"i","score":1}"#, 400, "duplicate field"),
        (r#"{"userId":"a","itemId":"i","score":1} x"#,             400, "trailing characters"),
        (r#"{"userId":"","itemId":"i","score":1}"#,                400, "user_id has to have 1 to 256 bytes"),
        (r#"{"userId":"a","itemId":"\u0000","score":1}"#,          400, "item_id has control characters"),
        (r#"{"userId":"a\r\nb","itemId":"i","score":1}"#,          400, "user_id has control characters"),
        (r#"{"userId":1.5,"itemId":"i","score":1}"#,               400, "a string or a whole number"),
        (r#"{"userId":-1,"itemId":"i","score":1}"#,                400, "a string or a whole number"),
        (r#"{"userId":["a"],"itemId":"i","score":1}"#,             400, "a string or a whole number"),
        (&format!(r#"{{"userId":"{long}","itemId":"i","score":1}}"#), 400, "user_id has to have 1 to 256 bytes"),
        ("[]",                                                     400, "the body: it has to be an object"),
        (r#" ["a","i",1]"#,                                        400, "the body: it has to be an object"),
        ("",                                                       400, "the body: EOF"),
        (&"x".repeat(1001),                                        413, "more than 1000 bytes"),
    ];
    for (body, status, said) in table {
        let response = post(edge.http, "/ratings", body);
        assert_eq!(response.status, status, "{body}: {response:?}");
        let text = if status == 200 { response.body.clone() } else { response.problem(status) };
        assert!(text.contains(said), "{body}: {text}");
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let body = r#"{"userId":"a","itemId":"i","score":1}"#;
        send(edge.http, "POST", "/rating", &[("content-type", kind)], body).problem(415);
    }
    for kind in ["application/json; charset=utf-8", "Application/JSON", "application/event+json"] {
        let body = r#"{"userId":"a","itemId":"i","score":1}"#;
        let response = send(edge.http, "POST", "/rating", &[("content-type", kind)], body);
        assert_eq!(response.status, 200, "{kind}");
    }
    for path in ["/rating/%00/i", "/rating/a/%0d%0aset-cookie:x", "/items/%ff", "/items/%7f"] {
        get(edge.http, path).problem(400);
    }
    get(edge.http, &format!("/items/{long}")).problem(400);
    assert_eq!(get(edge.http, "/rating/%C3%A9%E2%82%AC/a%20b%2Fc").json()["rating"], 1);
}

#[test]
fn a_rating_is_charged_and_refused_ones_are_not_stored() {
    let server = Server::start();
    let edge = start(
        &server.url(),
        &[
            ("CAPACITY", "5"),
            ("REFILL", "1"),
            ("INTERVAL", "1h"),
            ("USER_CAPACITY", "2"),
            ("USER_REFILL", "1"),
            ("USER_INTERVAL", "1h"),
        ],
    );
    let statuses = |user: &str, count: usize| -> Vec<u16> {
        (0..count).map(|_| rate(&edge, user, "tea", "2").status).collect()
    };
    assert_eq!(statuses("ann", 3), [200, 200, 429]);
    // The refusal has charged the service nothing: five pass, of all users.
    assert_eq!(statuses("bob", 2), [200, 200]);
    assert_eq!(statuses("cid", 2), [200, 429]);
    let refused = rate(&edge, "dan", "tea", "2");
    assert!(refused.problem(429).starts_with("refused by service: try again in "));
    assert_eq!(refused.json()["violated-policies"], json!(["service"]));
    get(edge.http, "/rating/dan/tea").problem(404);
    assert_eq!(get(edge.http, "/items/tea").json()["count"], 3);
    // What cannot be read is not charged.
    let mut conn = server.connection();
    let before: Vec<i64> =
        ask(&mut conn, "CL.PEEK token_bucket:eve 0 CAPACITY 2 REFILL 1 INTERVAL 3600000");
    rate(&edge, "eve", "tea", "9").problem(400);
    let after: Vec<i64> =
        ask(&mut conn, "CL.PEEK token_bucket:eve 0 CAPACITY 2 REFILL 1 INTERVAL 3600000");
    assert_eq!(before[2], after[2]);
}

#[test]
fn what_cannot_be_stored_is_given_back() {
    let server = Server::start();
    let settings = [("USER_CAPACITY", "5"), ("USER_REFILL", "1"), ("USER_INTERVAL", "1h")];
    let edge = start(&server.url(), &settings);
    let mut conn = server.connection();
    assert_eq!(rate(&edge, "ann", "tea", "2").status, 200);
    // Keys that others have written to, each of them found before anything is written.
    for (line, mended) in [
        ("SET {ratings}:item:tea x", "DEL {ratings}:item:tea"),
        ("HSET {ratings}:item:tea sum 1e3", "HSET {ratings}:item:tea sum 2000000"),
        ("HSET {ratings}:item:tea count 9007199254740992", "HSET {ratings}:item:tea count 1"),
        ("HSET {ratings}:user:ann tea 9", "HSET {ratings}:user:ann tea '2000000 1 local'"),
        ("RENAME {ratings}:outbox kept", "RENAME kept {ratings}:outbox"),
        ("SET {ratings}:clock -1", "DEL {ratings}:clock"),
    ] {
        run(&mut conn, &[line]);
        if line.starts_with("RENAME") {
            run(&mut conn, &["SET {ratings}:outbox x"]);
        }
        let users: Vec<String> = keys(&mut conn);
        let refused = rate(&edge, "ann", "tea", "3");
        assert_eq!(
            refused.problem(503),
            "the server that keeps the ratings refused: see the log",
            "{line}"
        );
        let left: Vec<i64> = ask(&mut conn, "CL.PEEK token_bucket:ann 0");
        assert_eq!(left[2], 4, "{line}: the token is back");
        assert_eq!(keys(&mut conn), users, "{line}: nothing was written");
        if mended.contains('\'') {
            let () = redis::cmd("HSET")
                .arg("{ratings}:user:ann")
                .arg("tea")
                .arg("2000000 1 local")
                .query(&mut conn)
                .unwrap();
        } else {
            run(&mut conn, &[mended]);
        }
    }
    // Of the first one: more than one in a second is not told.
    let says_why = |line: &str| line.contains("see the log") && line.contains("WRONGTYPE");
    assert!(edge.log().lines().any(says_why));
}

#[test]
fn a_server_that_hangs_is_waited_for_once() {
    let server = Server::start();
    let user = [("USER_CAPACITY", "5"), ("USER_REFILL", "1")];
    let one = [("WORKERS", "1"), ("DECISION_TIMEOUT", "2s")];
    let edge = start(&server.url(), &[user, one].concat());
    assert_eq!(rate(&edge, "ann", "tea", "1").status, 200);
    send_signal(server.pid(), 19);
    let refused = rate(&edge, "ann", "tea", "2");
    let waited = edge.metric("operator_redis_faults_total", "");
    send_signal(server.pid(), 18);
    assert!(refused.problem(503).ends_with("it is safe to send the request again"));
    // For the limit, which fails open; and not once more to store it.
    assert_eq!(waited, 1);
}

/// All keys of ratings with their contents, as a digest that does not depend on their order.
fn keys(conn: &mut Connection) -> Vec<String> {
    let mut keys: Vec<String> = ask(conn, "KEYS {ratings}:*");
    keys.sort();
    keys.into_iter()
        .flat_map(|key| ask::<Vec<String>>(conn, &format!("DEBUG DIGEST-VALUE {key}")))
        .collect()
}

#[test]
fn the_function_is_loaded_whenever_it_is_missing() {
    let server = Server::builder().config("appendonly", "yes").start();
    let edge = start(&server.url(), &[]);
    let mut conn = server.connection();
    // Another version of the same name, as of a program that was changed.
    let other = LIBRARY.replace("local HIGHEST = 5000000", "local HIGHEST = 1");
    let _: String = redis::cmd("FUNCTION").arg("LOAD").arg(other).query(&mut conn).unwrap();
    assert_eq!(rate(&edge, "ann", "tea", "1").status, 200);
    run(&mut conn, &["FUNCTION FLUSH SYNC"]);
    assert_eq!(rate(&edge, "ann", "tea", "2").status, 200);
    drop(conn);
    let server = server.restart();
    eventually(PATIENCE, TICK, "the edge finds the server again", || {
        rate(&edge, "ann", "tea", "3").status == 200
    });
    // By each of its workers.
    eventually(PATIENCE, TICK, "the rating is read", || {
        let rating = get(edge.http, "/rating/ann/tea");
        rating.status == 200 && rating.json()["rating"] == 3
    });
    drop(server);
}

#[test]
fn a_replica_holds_the_same_and_can_be_promoted() {
    let master = Server::start();
    let replica = Server::replica_of(&master).start();
    let edge = start(&master.url(), &[]);
    for (user, item) in [("ann", "tea"), ("bob", "tea"), ("ann", "ice")] {
        assert_eq!(rate(&edge, user, item, "4").status, 200);
    }
    assert_eq!(send(edge.http, "DELETE", "/users/bob", &[], "").status, 204);
    wait_for_offset(&master, &replica);
    assert_eq!(digest(&mut replica.connection()), digest(&mut master.connection()));
    master.stop();
    let mut promoted = replica.connection();
    run(&mut promoted, &["REPLICAOF NO ONE"]);
    // The library has come with the data: whoever may not load it can go on.
    run(&mut promoted, &["ACL SETUSER default -function"]);
    let edge = start(&replica.url(), &[]);
    assert_eq!(get(edge.http, "/items/tea").json()["count"], 1);
    assert_eq!(rate(&edge, "ann", "tea", "5").status, 200);
    assert_eq!(get(edge.http, "/items/tea").json()["mean"], 5);
}

#[test]
fn in_a_cluster_ratings_are_on_one_shard() {
    let cluster = Cluster::start(3, 0);
    let nodes: Vec<String> =
        cluster.nodes().iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
    let url = format!("redis+cluster://{}", nodes.join(","));
    let edge = start(&url, &[("USER_CAPACITY", "5"), ("USER_REFILL", "1")]);
    for user in ["ann", "bob", "cid"] {
        assert_eq!(rate(&edge, user, "tea", "2").status, 200, "{user}");
    }
    assert_eq!(get(edge.http, "/rating/cid/tea").json()["rating"], 2);
    assert_eq!(send(edge.http, "DELETE", "/users/ann", &[], "").status, 204);
    assert_eq!(get(edge.http, "/items/tea").json()["count"], 2);
}

#[test]
fn a_user_who_is_forgotten_counts_no_longer() {
    let server = Server::start();
    let edge = start(&server.url(), &[]);
    for item in 0..5 {
        for user in ["ann", "bob"] {
            assert_eq!(rate(&edge, user, &format!("i{item}"), "2").status, 200);
        }
    }
    let forget = |user: &str| send(edge.http, "DELETE", &format!("/users/{user}"), &[], "").status;
    assert_eq!(forget("ann"), 204);
    get(edge.http, "/rating/ann/i3").problem(404);
    assert_eq!(get(edge.http, "/items/i3").body, r#"{"item_id":"i3","count":1,"mean":2}"#);
    let mut conn = server.connection();
    let left = fields(&mut conn, "{ratings}:user:ann");
    assert_eq!(left.keys().collect::<Vec<_>>(), [""], "only the tombstone is left: {left:?}");
    assert_eq!(forget("ann"), 204);
    // A user may come back.
    assert_eq!(rate(&edge, "ann", "i3", "4").status, 200);
    assert_eq!(get(edge.http, "/items/i3").body, r#"{"item_id":"i3","count":2,"mean":3}"#);
    assert_eq!(forget("ann") + forget("bob"), 408);
    let keys: Vec<String> = ask(&mut conn, "KEYS {ratings}:item:*");
    assert_eq!(keys, Vec::<String>::new());
}

// The Function by itself.

fn record() -> impl Strategy<Value = Record> {
    // Few of each, so that they meet; regions whose order a locale would turn round.
    let region = prop::sample::select(vec!["B", "a", "a-b", "ab", "aB"]);
    let micros = prop_oneof![4 => (0..=5_000_000_u64).prop_map(Some), 1 => Just(None)];
    let stamp = prop_oneof![3 => 1..=6_u64, 1 => 1_000_000_000_000..=1_000_000_000_003_u64];
    (0..3_u8, 0..4_u8, micros, stamp, region).prop_map(|(user, item, micros, stamp, region)| {
        Record {
            user: format!("u{user}"),
            item: if micros.is_some() { format!("i{item}") } else { String::new() },
            micros,
            stamp,
            region: region.to_owned(),
        }
    })
}

#[test]
fn any_order_of_the_same_records_gives_the_same_ratings() {
    let server = Server::start();
    let mut conn = server.connection();
    load(&mut conn);
    let conn = RefCell::new(conn);
    let cases = prop::collection::vec(record(), 1..40);
    let order = prop::collection::vec(any::<Index>(), 80);
    let config = ProptestConfig::with_cases(120);
    proptest!(config, |(records in cases, order in order)| {
        // A random order in which some come more than once, steps of upkeep in between.
        let conn = &mut *conn.borrow_mut();
        run(conn, &["FLUSHALL"]);
        for index in &order {
            apply(conn, index.get(&records));
            if index.index(5) == 0 {
                let _: u64 = ask(conn, "FCALL claw_tend_1 1 {ratings}:");
            }
        }
        for record in &records {
            apply(conn, record);
        }
        tend(conn);
        prop_assert_eq!(stored(conn), expected(&records));
        // Once more changes nothing.
        for record in &records {
            prop_assert_eq!(apply(conn, record), "older", "{:?}", record);
        }
    });
}

#[test]
fn records_of_the_future_are_parked_and_not_dropped() {
    let server = Server::start();
    let mut conn = server.connection();
    load(&mut conn);
    let (seconds, micros): (u64, u64) = ask(&mut conn, "TIME");
    let now = seconds * 1_000_000 + micros;
    let record = |stamp: u64| Record {
        user: "ann".into(),
        item: "tea".into(),
        micros: Some(3_000_000),
        stamp,
        region: "eu".into(),
    };
    // 58 s ahead is believed. 62 s ahead is parked, once however often it comes.
    let (near, far) = (record(now + 58_000_000), record(now + 62_000_000));
    assert_eq!(apply(&mut conn, &near), "applied");
    assert_eq!(apply(&mut conn, &far), "parked");
    assert_eq!(apply(&mut conn, &far), "parked");
    assert_eq!(ask::<u64>(&mut conn, "ZCARD {ratings}:parked"), 1);
    assert_eq!(fields(&mut conn, "{ratings}:item:tea")["sum"], "3000000");
    // What is rated here meanwhile is later than what is held, and no further ahead.
    let rated: u64 = ask(
        &mut conn,
        "FCALL claw_rate_1 2 {ratings}:user:ann {ratings}:item:tea ann tea 1000000 us 10",
    );
    assert_eq!(rated, near.stamp + 1);
    // When its time has come it counts.
    eventually(PATIENCE, TICK, "the parked record is applied", || {
        tend(&mut conn);
        fields(&mut conn, "{ratings}:item:tea")["sum"] == "3000000"
    });
    assert_eq!(ask::<u64>(&mut conn, "ZCARD {ratings}:parked"), 0);
    // A clock that is further behind than stamps may be ahead makes none.
    run(&mut conn, &[&format!("SET {{ratings}}:clock {}", now + 200_000_000)]);
    let error = claw_testkit::error(
        &mut conn,
        "FCALL claw_rate_1 2 {ratings}:user:ann {ratings}:item:tea ann tea 0 us 10",
    );
    assert!(error.starts_with("CLOCK "), "{error}");
}

#[test]
fn what_is_out_of_bounds_is_refused_before_anything_is_written() {
    let server = Server::start();
    let mut conn = server.connection();
    load(&mut conn);
    let long = "x".repeat(257);
    #[rustfmt::skip]
    let table = [
        // user, item, millionths, stamp, region
        ["", "i", "1", "1", "eu"],
        [&long, "i", "1", "1", "eu"],
        ["u", &long, "1", "1", "eu"],
        ["u", "i", "5000001", "1", "eu"],
        ["u", "i", "-1", "1", "eu"],
        ["u", "i", "1.5", "1", "eu"],
        ["u", "i", "1e3", "1", "eu"],
        ["u", "i", "0x1", "1", "eu"],
        ["u", "i", "01", "1", "eu"],
        ["u", "i", "", "1", "eu"],
        ["u", "", "1", "1", "eu"],
        ["u", "i", "1", "9007199254740992", "eu"],
        ["u", "i", "1", "99999999999999999", "eu"],
        ["u", "i", "1", "", "eu"],
        ["u", "i", "1", "1", ""],
        ["u", "i", "1", "1", "e u"],
        ["u", "i", "1", "1", "é"],
        ["u", "i", "1", "1", &long],
    ];
    for [user, item, micros, stamp, region] in table {
        assert_eq!(follow(&mut conn, [user, item, micros, stamp, region]), [0, 0, 0, 1], "{user}");
    }
    assert_eq!(ask::<Vec<String>>(&mut conn, "KEYS {ratings}:[^l]*"), Vec::<String>::new());
}

#[test]
fn the_outbox_is_bounded() {
    let server = Server::start();
    let edge = start(&server.url(), &[("RATINGS_OUTBOX", "100")]);
    for rating in 0..500 {
        assert_eq!(rate(&edge, &format!("u{}", rating % 7), "tea", "1").status, 200);
    }
    let mut conn = server.connection();
    let length: u64 = ask(&mut conn, "XLEN {ratings}:outbox");
    // Trimmed by whole nodes of a hundred entries.
    assert!((100..=200).contains(&length), "{length}");
}
