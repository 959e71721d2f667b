//! The server's clock is set back and forth while it runs: nothing is credited
//! twice, nothing is lost, and a bucket never holds more than its capacity.

use std::time::{Duration, Instant, SystemTime};

use claw_testkit::{Server, cmd, error, int, ints, skipped};
use redis::{Connection, FromRedisValue};

use crate::clock_shim::ClockShim;
use crate::rng::Rng;
use crate::seed;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const MINUTE_US: i64 = MINUTE_MS * 1_000;
const HOUR_US: i64 = HOUR_MS * 1_000;

/// The name of the clock that all tests here set.
const CLOCK: &str = "clock";

/// A server whose clock can be set.
struct Clocked {
    conn: Connection,
    server: Server,
    shim: ClockShim,
}

impl Clocked {
    /// `None`, said aloud, where the library cannot be made or has no effect; with
    /// `CI` set that is a failure.
    fn start(test: &str) -> Option<Clocked> {
        let shim = ClockShim::new(test)?;
        shim.set(CLOCK, 0);
        let server = shim.on(Server::builder(), CLOCK).start();
        let conn = server.connection();
        let mut clocked = Clocked { conn, server, shim };
        if !clocked.try_step_to(10 * HOUR_US) {
            skipped(test, "this server does not take the time from the library");
            return None;
        }
        clocked.step_to(0);
        Some(clocked)
    }

    /// Lets the server's clock differ from the true time by so much.
    fn step_to(&mut self, offset_us: i64) {
        assert!(self.try_step_to(offset_us), "the server does not see the new time");
    }

    fn try_step_to(&mut self, offset_us: i64) -> bool {
        self.shim.set(CLOCK, offset_us);
        // A server may go on with the time it knows for a moment.
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let since_1970 = SystemTime::UNIX_EPOCH.elapsed().expect("it is later than 1970");
            let due = since_1970.as_micros() as i64 + offset_us;
            if (self.now() - due).abs() < MINUTE_US {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
        }
    }

    fn now(&mut self) -> i64 {
        now(&mut self.conn)
    }
}

fn now(conn: &mut Connection) -> i64 {
    let time: Vec<i64> = query(conn, "TIME");
    time[0] * 1_000_000 + time[1]
}

fn query<T: FromRedisValue>(conn: &mut Connection, line: &str) -> T {
    let value = cmd(conn, line).unwrap_or_else(|e| panic!("{line}: {e}"));
    redis::from_redis_value(value).unwrap_or_else(|e| panic!("{line}: {e}"))
}

/// A token in six minutes: the time that the test itself takes is no token.
const TERMS: &str = "CAPACITY 100 REFILL 10 INTERVAL 3600000";

#[test]
fn a_stepping_clock_gives_and_takes_nothing() {
    let Some(mut clocked) = Clocked::start("steps") else { return };
    let mut conn = clocked.server.connection();
    // The clock in hours, what is asked for, what is left.
    let steps = [
        (0, 60, 40),
        // Back: no credit and no loss.
        (-1, 5, 35),
        (-1, 0, 35),
        (-300, 5, 30),
        // The same hours a second time: no credit either.
        (-1, 0, 30),
        (0, 5, 25),
        // Ahead: credit as usual.
        (1, 0, 35),
        (1, 5, 30),
        (2, 0, 40),
        (2, 5, 35),
        // Back by one of two hours, and ahead over both.
        (1, 5, 30),
        (3, 0, 40),
        (3, 1, 39),
        // Far ahead: full, and no more.
        (200, 0, 100),
        (200, 60, 40),
        (0, 0, 40),
        (0, 40, 0),
        (199, 0, 0),
        (201, 0, 10),
        (201, 1, 9),
        (500, 1, 99),
    ];
    for (hours, tokens, left) in steps {
        clocked.step_to(hours * HOUR_US);
        let answer = ints(&mut conn, &format!("CL.TAKE k {tokens} {TERMS}"));
        assert_eq!(answer[..4], [tokens, 100, left, 0], "at hour {hours}");
        if tokens > 0 {
            let stored: f64 = query(&mut conn, "HGET k tokens");
            assert_eq!(stored.floor(), left as f64, "at hour {hours}");
        }
        let expires = int(&mut conn, "PEXPIRETIME k") * 1_000;
        assert!(expires > now(&mut conn) || expires < 0, "at hour {hours}");
    }
    assert_eq!(clocked.server.warnings(), Vec::<String>::new());
}

#[test]
fn waits_count_the_time_until_the_clock_has_caught_up() {
    let Some(mut clocked) = Clocked::start("waits") else { return };
    let mut conn = clocked.server.connection();
    assert_eq!(ints(&mut conn, &format!("CL.TAKE k 100 {TERMS}"))[..3], [100, 100, 0]);
    clocked.step_to(-HOUR_US);
    let answer = ints(&mut conn, &format!("CL.TAKE k 1 {TERMS}"));
    assert_eq!(answer[..3], [0, 100, 0]);
    // An hour until it goes on, six minutes for a token, ten hours for all.
    let within = |ms: i64, due: i64| (due - 5 * MINUTE_MS..=due).contains(&ms);
    assert!(within(answer[3], HOUR_MS + 6 * MINUTE_MS), "{answer:?}");
    assert!(within(answer[4], 11 * HOUR_MS), "{answer:?}");
    // Who waits so long gets it.
    clocked.step_to(-HOUR_US + answer[3] * 1_000);
    assert_eq!(ints(&mut conn, &format!("CL.TAKE k 1 {TERMS}"))[..3], [1, 100, 0]);

    // Thirty days back the timestamp cannot be believed any more.
    clocked.step_to(-31 * 24 * HOUR_US);
    let refused = error(&mut conn, "CL.TAKE k");
    assert!(refused.starts_with("ERR bucket 'k': field 'timestamp' holds "), "{refused}");
    clocked.step_to(2 * HOUR_US);
    assert_eq!(ints(&mut conn, &format!("CL.TAKE k 1 {TERMS}"))[0], 1);
    assert_eq!(clocked.server.warnings(), Vec::<String>::new());
}

/// Under any steps at all a bucket gains what the furthest time ever seen says,
/// to the last part of a millionth.
#[test]
fn a_wandering_clock_is_accounted_for_exactly() {
    /// Of a millionth: the interval in microseconds.
    const PARTS: i128 = 7_000;
    /// Millionths in an interval.
    const RATE: i128 = 1_000_000;
    let Some(mut clocked) = Clocked::start("wanders") else { return };
    let mut conn = clocked.server.connection();
    let mut rng = Rng::new(seed());
    query::<Vec<String>>(&mut conn, "CL.POLICY k CAPACITY 1000000000000 REFILL 1 INTERVAL 7");
    // So empty that it never fills in what follows.
    assert_eq!(ints(&mut conn, "CL.TAKE k 500000000000")[0], 500_000_000_000);

    // What is held in whole millionths, and as of when.
    let level = |conn: &mut Connection| {
        let (tokens, timestamp): (String, i128) = query(conn, "HMGET k tokens timestamp");
        let (whole, places) = tokens.split_once('.').unwrap_or((&tokens, ""));
        let micros: i128 = format!("{whole}{places:0<6}").parse().expect("a decimal");
        (micros, timestamp)
    };
    // A full bucket has no part of a millionth, and whole tokens were taken.
    let (held, mut latest) = level(&mut conn);
    let mut parts = held * PARTS;
    let mut offset = 0;
    for step in 0..2_000 {
        offset += rng.below(2 * HOUR_US as usize) as i64 - HOUR_US;
        offset = offset.clamp(-200 * HOUR_US, 200 * HOUR_US);
        clocked.step_to(offset);
        let before = i128::from(now(&mut conn));
        let tokens = 1 + rng.below(1_000_000) as i64;
        let moved = match rng.below(4) {
            0 => -ints(&mut conn, &format!("CL.GIVE k {tokens}"))[0],
            1 => ints(&mut conn, &format!("CL.TAKE k {tokens} PARTIAL"))[0],
            2 => {
                // What is refused is written nowhere.
                assert_eq!(ints(&mut conn, "CL.TAKE k 1000000000000")[0], 0);
                ints(&mut conn, &format!("CL.TAKE k {tokens}"))[0]
            }
            _ => ints(&mut conn, &format!("CL.TAKE k {tokens}"))[0],
        };
        let after = i128::from(now(&mut conn));
        let (found, timestamp) = level(&mut conn);
        // Steps of less than a minute may be seen a moment late.
        let seen = before - i128::from(MINUTE_US)..=after.max(latest) + i128::from(MINUTE_US);
        assert!(timestamp >= latest && seen.contains(&timestamp), "step {step}");
        parts += RATE * (timestamp - latest) - i128::from(moved) * 1_000_000 * PARTS;
        assert_eq!(found, parts.div_euclid(PARTS), "step {step}: {offset} us ahead");
        latest = timestamp;
    }
    assert_eq!(clocked.server.warnings(), Vec::<String>::new());
}
