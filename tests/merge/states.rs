//! `CL.STATE`, and the states it makes: whole, of later versions, and damaged.

use crate::buckets::{Line, random_bucket};
use crate::calls::{STRATEGIES, merge_state, now_us, state, still_server};
use claw_testkit::{Random, Server, ask, call, digest, fields, ints, run};
use redis::{ConnectionLike, Pipeline, Value};

/// A state carries all there is, to another server and back.
#[test]
fn states_travel_without_loss() {
    let (here, there) = (Server::start(), Server::start());
    let (a, b) = (&mut here.connection(), &mut there.connection());
    let random = &mut Random::new(11);
    for _ in 0..300 {
        run(a, &["DEL k"]);
        random_bucket(random, "k", now_us(), false).exec(a).unwrap();
        let blob = state(a, "k");
        assert!(blob.len() < 128, "{} bytes", blob.len());
        run(b, &["DEL k"]);
        assert_eq!(merge_state(b, "k", std::slice::from_ref(&blob), "max")[0], 1);
        assert_eq!(state(b, "k"), blob);
        let now = now_us();
        assert_eq!(Line::of(&fields(b, "k"), now), Line::of(&fields(a, "k"), now));
    }
    // Reading a state changes nothing.
    let before = digest(a);
    state(a, "k");
    assert_eq!(digest(a), before);
}

/// Every server makes these bytes of this bucket, and this bucket of these bytes: so states
/// pass from each that this was run on to each other.
#[test]
fn a_state_is_the_same_on_every_server() {
    const STATE: &[u8] = b"\x86\xa1v\x01\xa6tokens\xce\x00n\xa0P\
        \xa9timestamp\xcf\x00\x06aA\xa3AT\x00\
        \xa9remainder\x00\xa6weight\x02\
        \xa6policy\x84\xa8capacity\x0a\xa6refill\xce\x00&%\xa0\
        \xa8interval\xcd\xea`\xa3pin\x03";
    let server = still_server();
    let conn = &mut server.connection();
    let made = "HSET k tokens 7.25 timestamp 1795784400000000 userWeight 2 \
                policy 10,2.5/60000,pinned,3";
    let made: Vec<String> = made.split_whitespace().map(|word| word.replace(',', " ")).collect();
    call(conn, &made).unwrap();
    assert_eq!(state(conn, "k"), STATE, "{}", STATE.escape_ascii());
    assert_eq!(merge_state(conn, "to", &[STATE.to_vec()], "lww")[0], 1);
    assert_eq!(state(conn, "to"), STATE);
}

/// Fields of later versions are kept, joined, and handed on.
#[test]
fn fields_of_later_versions_are_kept() {
    let server = still_server();
    let conn = &mut server.connection();
    run(conn, &["HSET k tokens 5 timestamp 1"]);
    let blob = state(conn, "k");
    // One more field in the map.
    let with = |field: &[u8]| {
        let mut longer = blob.clone();
        assert_eq!(longer[0] & 0xf0, 0x80, "a small map");
        longer[0] += 1;
        longer.extend_from_slice(field);
        longer
    };
    let (one, two, other) =
        (with(b"\xa5later\x01"), with(b"\xa5later\x02"), with(b"\xa4soon\xa1x"));
    assert_eq!(merge_state(conn, "k", std::slice::from_ref(&one), "max"), [1, 1000, 5]);
    assert_eq!(merge_state(conn, "k", std::slice::from_ref(&one), "max"), [0, 1000, 5]);
    assert_eq!(ask::<Vec<u8>>(conn, "HGET k newer"), b"\x81\xa5later\x01");
    assert_eq!(state(conn, "k"), one);
    // The greater value wins, in any order.
    for order in [[&one, &two, &other], [&other, &two, &one], [&two, &other, &one]] {
        run(conn, &["DEL m"]);
        let blobs: Vec<Vec<u8>> = order.into_iter().cloned().collect();
        merge_state(conn, "m", &blobs, "min");
        let kept: Vec<u8> = ask(conn, "HGET m newer");
        assert_eq!(kept, b"\x82\xa5later\x02\xa4soon\xa1x");
        assert_eq!(merge_state(conn, "m", &blobs, "min")[0], 0);
    }
    // Takes leave it alone.
    assert_eq!(ints(conn, "CL.TAKE m 2")[..3], [2, 1000, 3]);
    assert_eq!(ask::<Vec<u8>>(conn, "HGET m newer"), b"\x82\xa5later\x02\xa4soon\xa1x");
}

/// The same state as other languages may encode it: names as bytes, numbers as doubles.
#[test]
fn states_of_other_languages_are_read() {
    let server = still_server();
    let conn = &mut server.connection();
    let table: [&[u8]; 3] = [
        b"\x83\xa1v\x01\xa6tokens\xce\x00\x4c\x4b\x40\xa9timestamp\x01",
        b"\x83\xc4\x01v\x01\xc4\x06tokens\xce\x00\x4c\x4b\x40\xc4\x09timestamp\x01",
        b"\x83\xa1v\xca\x3f\x80\x00\x00\xa6tokens\xcb\x41\x53\x12\xd0\x00\x00\x00\x00\
          \xa9timestamp\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00",
    ];
    for blob in table {
        run(conn, &["DEL k"]);
        assert_eq!(merge_state(conn, "k", &[blob.to_vec()], "max"), [1, 1000, 5]);
        assert_eq!(fields(conn, "k")["tokens"], "5");
        assert_eq!(fields(conn, "k")["timestamp"], "1");
    }
}

/// Random and damaged states: each is an error or a merge like any other.
#[test]
fn a_hundred_thousand_damaged_states() {
    const BLOBS: usize = 100_000;
    const BATCH: usize = 1_000;
    let server = Server::start();
    let conn = &mut server.connection();
    let random = &mut Random::new(42);
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for _ in 0..40 {
        run(conn, &["DEL k"]);
        random_bucket(random, "k", now_us(), false).exec(conn).unwrap();
        seeds.push(state(conn, "k"));
    }
    let mut longer = seeds[0].clone();
    longer[0] += 1;
    longer.extend_from_slice(b"\xa5later\x92\x01\xa1x");
    seeds.push(longer);
    run(conn, &["DEL k"]);

    let (mut merged, mut refused) = (0, 0);
    for _ in 0..BLOBS / BATCH {
        let mut pipe = Pipeline::new();
        for _ in 0..BATCH {
            let blob = damaged(random, &seeds);
            let key = format!("k{}", random.below(20));
            pipe.cmd("CL.MERGE").arg(key).arg("STATE").arg(blob);
            pipe.arg("STRATEGY").arg(*random.pick(&STRATEGIES));
        }
        let packed = pipe.get_packed_pipeline();
        for answer in conn.req_packed_commands(&packed, 0, BATCH).unwrap() {
            match answer {
                Value::ServerError(e) => {
                    let text = format!("{} {}", e.code(), e.details().unwrap_or(""));
                    assert!(text.starts_with("ERR state 1 "), "{text}");
                    refused += 1;
                }
                Value::Array(numbers) => {
                    let numbers: Vec<i64> = redis::from_redis_value(Value::Array(numbers)).unwrap();
                    let [changed, capacity, remaining] = numbers[..] else { panic!("{numbers:?}") };
                    assert!((0..=1).contains(&changed), "{numbers:?}");
                    assert!((1..=1_000_000_000_000).contains(&capacity), "{numbers:?}");
                    assert!((0..=capacity).contains(&remaining), "{numbers:?}");
                    merged += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(merged > BLOBS / 100 && refused > BLOBS / 100, "{merged} merged, {refused} refused");
    // What came of it are buckets.
    for key in 0..20 {
        let answer = ints(conn, &format!("CL.TAKE k{key} 1"));
        assert!(answer[0] <= 1 && answer[2] <= answer[1], "{answer:?}");
        let blob = state(conn, &format!("k{key}"));
        assert_eq!(merge_state(conn, &format!("k{key}"), &[blob], "weighted")[0], 0);
    }
    assert!(server.is_alive());
    assert_eq!(server.warnings(), Vec::<String>::new());
}

fn damaged(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    if random.below(10) == 0 {
        let length = random.below(200);
        return (0..length).map(|_| random.next() as u8).collect();
    }
    let mut blob = random.pick(seeds).clone();
    for _ in 0..=random.below(3) {
        let at = usize::try_from(random.below(blob.len().max(1) as u64)).unwrap();
        let byte = random.next() as u8;
        match random.below(8) {
            0 if !blob.is_empty() => blob[at] ^= 1 << (byte % 8),
            1 if !blob.is_empty() => blob[at] = byte,
            2 => blob.insert(at, byte),
            3 if !blob.is_empty() => drop(blob.remove(at)),
            4 => blob.truncate(at),
            5 => {
                let piece = random.pick(seeds);
                let from = usize::try_from(random.below(piece.len() as u64)).unwrap();
                blob.extend_from_slice(&piece[from..]);
            }
            // Only a number: what comes of it is often a state.
            _ if !blob.is_empty() => {
                let number = blob.iter().rposition(|b| *b >= 0xcc).unwrap_or(at);
                let at = (number + 1 + at % 8).min(blob.len() - 1);
                blob[at] = byte;
            }
            _ => {}
        }
    }
    blob
}
