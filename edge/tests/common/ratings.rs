//! What is stored of ratings, and what should be.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use claw_testkit::{ask, fields, run};
use redis::Connection;

use super::Edge;
use super::api::{Response, post};

pub const LIBRARY: &str = include_str!("../../src/ratings/library.lua");

/// `POST /rating`.
pub fn rate(edge: &Edge, user: &str, item: &str, rating: &str) -> Response {
    post(
        edge.http,
        "/rating",
        &format!(r#"{{"user_id":"{user}","item_id":"{item}","rating":{rating}}}"#),
    )
}

/// Microseconds since 1970.
pub fn micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_micros().try_into().unwrap()
}

/// Rates at an even pace over HTTP, each time as another user: who it was, and the stamp.
pub fn rate_steadily(edge: &Edge, per_second: u64, seconds: u64) -> Vec<(String, u64)> {
    const CLIENTS: u64 = 8;
    let begin = Instant::now() + Duration::from_millis(200);
    let rate = |client: u64| {
        let mut connection = edge.client();
        let rate = |number: u64| {
            let place = number * CLIENTS + client;
            let due = begin + Duration::from_micros(place * 1_000_000 / per_second);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let (user, item) = (format!("u{client}-{number}"), number % 1000);
            let body = format!(r#"{{"user_id":"{user}","item_id":"i{item}","rating":4}}"#);
            let response = connection.request("POST", "/rating", &body).unwrap();
            assert_eq!(response.status, 200);
            let told: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
            (user, told["stamp"].as_u64().unwrap())
        };
        (0..per_second * seconds / CLIENTS).map(rate).collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let clients: Vec<_> =
            (0..CLIENTS).map(|client| scope.spawn(move || rate(client))).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

/// The median, p99, p99.9 and the greatest.
pub fn quantiles(mut values: Vec<u64>) -> [u64; 4] {
    values.sort_unstable();
    [500, 990, 999, 1000].map(|share| values[(values.len() - 1) * share / 1000])
}

/// A record as one region tells another: user, item, millionths, stamp, region. Without an item
/// the user is forgotten.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    pub user: String,
    pub item: String,
    pub micros: Option<u64>,
    pub stamp: u64,
    pub region: String,
}

/// Applies a record, and says what became of it.
pub fn apply(conn: &mut Connection, record: &Record) -> &'static str {
    let Record { user, item, micros, stamp, region } = record;
    let micros = micros.map(|micros| micros.to_string()).unwrap_or_default();
    match follow(conn, [user, item, &micros, &stamp.to_string(), region]) {
        [1, 0, 0, 0] => "applied",
        [0, 1, 0, 0] => "older",
        [0, 0, 1, 0] => "parked",
        other => panic!("{record:?}: {other:?}"),
    }
}

/// Applies one record as the holder of the lease: how many were applied, older, parked, refused.
pub fn follow(conn: &mut Connection, record: [&str; 5]) -> [u64; 4] {
    run(conn, &["SET {ratings}:lease test"]);
    let (run, _): (String, String) = ask(conn, "FCALL claw_place_1 1 {ratings}: peer");
    let mut command = redis::cmd("FCALL");
    command.arg("claw_follow_2").arg(1).arg("{ratings}:").arg("test").arg("peer").arg(run);
    command.arg("").arg("").arg("own").arg(100);
    for word in record {
        command.arg(word);
    }
    command.query(conn).unwrap()
}

pub fn tend(conn: &mut Connection) {
    while ask::<u64>(conn, "FCALL claw_tend_1 1 {ratings}:") != 0 {}
}

pub fn load(conn: &mut Connection) {
    let _: String =
        redis::cmd("FUNCTION").arg("LOAD").arg("REPLACE").arg(LIBRARY).query(conn).unwrap();
}

/// What is stored of users and items.
pub fn stored(conn: &mut Connection) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut keys: Vec<String> = ask(conn, "KEYS {ratings}:user:*");
    keys.extend(ask::<Vec<String>>(conn, "KEYS {ratings}:item:*"));
    keys.into_iter()
        .map(|key| {
            let held = fields(conn, &key);
            (key, held)
        })
        .collect()
}

/// What should be stored, straight from the definition: of each user and item the greatest record,
/// unless a tombstone is not less.
pub fn expected(records: &[Record]) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut expected: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut items: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for record in records {
        let order = |record: &Record| (record.stamp, record.region.clone(), record.micros);
        let same = |other: &&Record| other.user == record.user && other.item == record.item;
        let greatest = records.iter().filter(same).max_by_key(|other| order(other)).unwrap();
        let tombstone =
            records.iter().filter(|other| other.user == record.user && other.item.is_empty());
        let tombstone = tombstone.max_by_key(|other| order(other));
        let key = |record: &Record| (record.stamp, record.region.clone());
        let forgotten = tombstone.is_some_and(|tombstone| key(greatest) <= key(tombstone));
        if record != greatest || (forgotten && !record.item.is_empty()) {
            continue;
        }
        let Record { user, item, micros, stamp, region } = record;
        let value = match micros {
            Some(micros) => format!("{micros} {stamp} {region}"),
            None => format!("{stamp} {region}"),
        };
        let held = expected.entry(format!("{{ratings}}:user:{user}")).or_default();
        if held.insert(item.clone(), value).is_none()
            && let Some(micros) = micros
        {
            let totals = items.entry(item.clone()).or_default();
            *totals = (totals.0 + 1, totals.1 + micros);
        }
    }
    for (item, (count, sum)) in items {
        let held =
            [("count", count), ("sum", sum)].map(|(name, n)| (name.to_owned(), n.to_string()));
        expected.insert(format!("{{ratings}}:item:{item}"), held.into());
    }
    expected
}
