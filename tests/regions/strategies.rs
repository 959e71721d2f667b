//! Strategies other than debit over the same transport.

use crate::world::{PATIENCE, TICK, World, field};
use claw_core::bucket::{Bucket, Weight};
use claw_core::codec::{self, Besides, DebitsText, Names};
use claw_core::debits::Debits;
use claw_core::merge::State;
use claw_core::plan::Note;
use claw_core::policy::{Policy, StoredPolicy};
use claw_core::replica::ReplicaId;
use claw_core::shared::SharedBucket;
use claw_testkit::{Server, ask, call, call_bytes, digest, error, eventually, ints, run};
use redis::{Connection, Value};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const FUNCTIONS: &str = "#!lua name=merges
local function average(_, args)
  local a, b = cmsgpack.unpack(args[1]), cmsgpack.unpack(args[2])
  return cmsgpack.pack({ tokens = math.floor((a.tokens + b.tokens) / 2),
    timestamp = math.max(a.timestamp, b.timestamp) })
end
local function local_wins(_, args)
  return args[1]
end
local function hurries(_, args)
  local a, b = cmsgpack.unpack(args[1]), cmsgpack.unpack(args[2])
  return cmsgpack.pack({ tokens = 7, timestamp = math.max(a.timestamp, b.timestamp) + 20 * 86400 * 1000000 })
end
redis.register_function{ function_name = 'average', callback = average, flags = { 'no-writes' } }
redis.register_function{ function_name = 'local_wins', callback = local_wins, flags = { 'no-writes' } }
redis.register_function{ function_name = 'hurries', callback = hurries, flags = { 'no-writes' } }
";

fn started(strategy: &'static str) -> World {
    let world = World::start_with(3, Duration::ZERO, &|_, builder| {
        builder
            .config("claw.sync-strategy", strategy)
            .config("claw.max-tokens", "5000")
            .config("claw.refill-rate-per-sec", "0")
    });
    for server in &world.servers {
        let mut conn = server.connection();
        let load: redis::RedisResult<String> =
            redis::cmd("FUNCTION").arg("LOAD").arg(FUNCTIONS).query(&mut conn);
        load.unwrap();
    }
    world
}

fn take(conn: &mut Connection, tokens: u64) {
    run(conn, &[&format!("CL.TAKE k {tokens}")]);
}

/// Takes in every region, at the same time as far as the regions know.
fn drained(world: &World, tokens: [u64; 3], strategy: &str, expected: i64) {
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        world.set_cut(a, b, true);
    }
    for (region, tokens) in tokens.into_iter().enumerate() {
        take(&mut world.connection(region), tokens);
        // The clock of Redis 7.0 has milliseconds.
        std::thread::sleep(Duration::from_millis(5));
    }
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        world.set_cut(a, b, false);
    }
    let what = format!("{expected} everywhere by {strategy}");
    eventually(PATIENCE, TICK, &what, || world.left("CL.PEEK k 0") == [expected; 3]);
    // And there it stays.
    world.wait_until_quiet();
    assert_eq!(world.left("CL.PEEK k 0"), [expected; 3], "{strategy}");
}

#[test]
fn built_in_strategies_converge() {
    for (strategy, expected) in [("max", 4900), ("min", 4700), ("weighted", 4700), ("lww", 4800)] {
        let world = started(strategy);
        drained(&world, [100, 300, 200], strategy, expected);
        world.no_warnings();
    }
}

#[test]
fn functions_converge() {
    // ((4900 + 4700) / 2 + 4800) / 2, and the first by name.
    for (strategy, expected) in [("fn:average", 4800), ("fn:local_wins", 4900)] {
        let world = started(strategy);
        drained(&world, [100, 300, 200], strategy, expected);
        // From there on, again.
        take(&mut world.connection(1), 10);
        eventually(PATIENCE, TICK, "all to agree again", || {
            world.wait_until_quiet();
            let left = world.left("CL.PEEK k 0");
            left.iter().all(|tokens| *tokens == left[0])
        });
        world.no_warnings();
    }
}

/// What a function returns may be 30 days ahead of the states, which may be as far ahead of the clock. A
/// bucket that could not be read again is not written.
#[test]
fn what_a_function_dates_too_far_ahead_is_refused() {
    let world = started("fn:hurries");
    let (mut here, mut there) = (world.connection(0), world.connection(1));
    take(&mut there, 1);
    let ahead = SystemTime::now() + Duration::from_hours(20 * 24);
    let ahead = ahead.duration_since(UNIX_EPOCH).unwrap().as_micros();
    run(&mut here, &[&format!("HSET k tokens 100 timestamp {ahead}")]);
    take(&mut here, 1);
    eventually(PATIENCE, TICK, "the state to arrive", || {
        field(&mut there, "sync_states_received") + field(&mut there, "sync_states_rejected") > 0
    });
    run(&mut here, &["CL.PEEK k 0"]);
    run(&mut there, &["CL.PEEK k 0"]);
    assert!(field(&mut there, "sync_states_rejected") > 0);
}

/// What is pinned for a time in one region is so in all of them, until the same instant, and stays
/// so whatever is taken there.
#[test]
fn a_pin_for_a_time_goes_along() {
    const NONE: Option<String> = None;
    for strategy in ["max", "min", "weighted", "lww", "fn:local_wins"] {
        let world = started(strategy);
        let temporary = |region: usize| -> Option<String> {
            ask(&mut world.connection(region), "HGET k temporary")
        };
        let everywhere = |pin: &str| {
            run(&mut world.connection(0), &[pin]);
            let laid = temporary(0);
            assert_ne!(laid, NONE, "{strategy}: {pin}");
            eventually(PATIENCE, TICK, &format!("{laid:?} everywhere by {strategy}"), || {
                (1..3).all(|region| temporary(region) == laid)
            });
            laid
        };
        let laid = everywhere("CL.POLICY k CAPACITY 10 REFILL 0 FOR 600000");
        for region in [1, 2, 1] {
            take(&mut world.connection(region), 1);
            world.wait_until_quiet();
            for region in 0..3 {
                assert_eq!(temporary(region), laid, "{strategy}");
                assert_eq!(ints(&mut world.connection(region), "CL.PEEK k 0")[1], 10, "{strategy}");
            }
        }
        // A block holds in all of them, too.
        let laid = everywhere("CL.POLICY k CAPACITY 0 REFILL 0 FOR 600000");
        for region in [1, 2] {
            assert_eq!(ints(&mut world.connection(region), "CL.TAKE k")[0], 0, "{strategy}");
        }
        world.wait_until_quiet();
        assert!((0..3).all(|region| temporary(region) == laid), "{strategy}");
        world.no_warnings();
    }
}

/// Nobody can hold more than the capacity that a state itself says: it is refused, and counted.
#[test]
fn more_than_the_capacity_is_refused() {
    for strategy in ["debit", "max", "min", "weighted", "lww", "fn:average"] {
        let world = started(strategy);
        let conn = &mut world.connection(0);
        let policy = Policy::new(100, 0, 1_000).unwrap();
        let mut offer = |tokens: i64| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let now = u64::try_from(now.as_micros()).unwrap();
            let bucket = Bucket::new(policy, Weight::ONE, 1_000_000, 0, now);
            let stored = Some(StoredPolicy { policy, pin: None });
            let mut state = Vec::new();
            if strategy == "debit" {
                let mut text = DebitsText::default();
                let shared = SharedBucket::new(&bucket, Debits::default());
                let bucket = codec::encode_debits(&shared, &mut text);
                let note = Note { bucket, stored, temporary: None, counted: Some(1_000) };
                let (text, mut names) = (text.as_bytes().unwrap(), Names::default());
                let debits = &mut Debits::default();
                assert!(codec::encode_wire(&note, text, &mut names, debits, &mut state));
            } else {
                state = codec::encode(&State::of(bucket, stored), &Besides::default()).unwrap();
            }
            // A bucket here cannot hold as much.
            let one = 1_000_000_u32.to_be_bytes();
            let place = state.windows(5).position(|five| five[0] == 0xce && five[1..] == one);
            let place = place.unwrap();
            let more = [[0xd3].as_slice(), &tokens.to_be_bytes()].concat();
            state.splice(place..place + 5, more);
            let sent = now.to_string();
            let words: [&[u8]; 8] = [
                b"CL.SYNC",
                b"STATES",
                b"r9",
                sent.as_bytes(),
                strategy.as_bytes(),
                b"",
                b"offered",
                &state,
            ];
            let answer = call_bytes(conn, &words).map(drop);
            (answer, field(conn, "sync_states_received"), field(conn, "sync_states_rejected"))
        };
        for (nth, tokens) in [100_000_001, 1_000_000_000_000_000_000].into_iter().enumerate() {
            let (answer, received, rejected) = offer(tokens);
            let why = "ERR the state holds a field 'tokens' out of its bounds".to_owned();
            assert_eq!(answer, Err(why), "{strategy}");
            assert_eq!((received, rejected), (0, nth as u64 + 1), "{strategy}");
        }
        assert_eq!(offer(99_000_000), (Ok(()), 1, 2), "{strategy}");
        assert_eq!(ints(&mut world.connection(0), "CL.PEEK offered 0")[1..3], [100, 99]);
    }
}

/// A bucket that a function folds knows 16 regions at most, this one among them, so that what is
/// written can be read.
#[test]
fn a_folded_bucket_knows_16_regions_and_no_more() {
    const TOO_MANY: &str = "ERR more than 16 replicas in one bucket";
    let server = Server::builder()
        .config("claw.replica-id", "here")
        .config("claw.sync-strategy", "fn:local_wins")
        .config("claw.peers", "redis://127.0.0.1:1")
        .start();
    let conn = &mut server.connection();
    call(conn, &["FUNCTION", "LOAD", FUNCTIONS]).unwrap();
    let policy = Policy::new(100, 0, 1_000).unwrap();
    let bucket = Bucket::new(policy, Weight::ONE, 50_000_000, 0, 1);
    let state = State::of(bucket, Some(StoredPolicy { policy, pin: None }));
    let state = codec::encode(&state, &Besides::default()).unwrap();
    let offer = |key: &str, name: &str| {
        let words: [&[u8]; 8] = [
            b"CL.SYNC",
            b"STATES",
            name.as_bytes(),
            b"1",
            b"fn:local_wins",
            b"",
            key.as_bytes(),
            &state,
        ];
        call_bytes(&mut server.connection(), &words).map(drop)
    };
    for known in [false, true] {
        let key = if known { "mine" } else { "theirs" };
        if known {
            run(conn, &["CL.TAKE mine 1 CAPACITY 100 REFILL 0"]);
        }
        for n in 0..17 {
            let taken_in = if n < 15 { Ok(()) } else { Err(TOO_MANY.to_owned()) };
            assert_eq!(offer(key, &format!("there{n}")), taken_in, "{key} {n}");
        }
        // What is known already is as welcome as before.
        assert_eq!(offer(key, "there3"), Ok(()), "{key}");
        for _ in 0..2 {
            assert_eq!(ints(conn, &format!("CL.TAKE {key} 1"))[0], 1, "{key}");
        }
    }
    // Under another name this is one more region.
    run(conn, &["CONFIG SET claw.replica-id moved"]);
    eventually(PATIENCE, TICK, "the new name", || {
        let status: BTreeMap<String, Value> = ask(conn, "CL.SYNC STATUS");
        status["replica_id"] == Value::BulkString(b"moved".to_vec())
    });
    run(conn, &["CL.TAKE fresh"]);
    let before = digest(conn);
    for line in
        ["CL.TAKE mine", "CL.TAKEALL fresh AND mine", "CL.GIVE mine", "CL.POLICY mine WEIGHT 2"]
    {
        assert_eq!(error(conn, line), TOO_MANY, "{line}");
        assert_eq!(digest(conn), before, "{line}");
    }
    assert_eq!(ints(conn, "CL.PEEK mine")[1], 100);
}

/// Where nothing was taken there is no state to be folded: what was made there of the others' is
/// not one more.
#[test]
fn a_region_that_took_nothing_agrees_with_the_others() {
    let world = started("fn:average");
    drained(&world, [100, 300, 0], "fn:average", 4800);
    for region in 0..3 {
        let regions: Vec<u8> = ask(&mut world.connection(region), "HGET k regions");
        let states = codec::decode_regions(&regions).unwrap();
        let names: Vec<&str> = states.keys().map(ReplicaId::as_str).collect();
        assert_eq!(names, ["r0", "r1"]);
    }
    world.no_warnings();
}
