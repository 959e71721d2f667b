//! Takes at a steady pace.

use crate::error::Result;
use redis::{Connection, Pipeline};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How a load takes tokens.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Takes per second.
    pub rate: u64,
    /// Random buckets of so many.
    pub keys: u64,
    /// From one pipeline of takes to the next, which has all that are due.
    pub tick: Duration,
}

/// The key of a bucket that loads take from.
pub fn key(number: u64) -> String {
    format!("load:{number:06}")
}

/// Takes one token at a time, at the same pace even if the server was held up for a
/// while. Returns how many a second it came to.
pub fn run(mut conn: Connection, pace: Pace, seed: u64, stop: &AtomicBool) -> Result<f64> {
    let start = Instant::now();
    let (mut sent, mut random) = (0_u64, seed);
    while !stop.load(Ordering::Relaxed) {
        let due = pace.rate as f64 * start.elapsed().as_secs_f64();
        let mut pipe = Pipeline::new();
        while (sent as f64) < due {
            let number = next(&mut random).checked_rem(pace.keys).unwrap_or(0);
            pipe.cmd("CL.TAKE").arg(key(number)).arg(1).ignore();
            sent = sent.saturating_add(1);
        }
        if !pipe.is_empty() {
            pipe.query::<()>(&mut conn)?;
        }
        thread::sleep(pace.tick);
    }
    Ok(sent as f64 / start.elapsed().as_secs_f64())
}

/// Numbers in no order.
pub fn next(random: &mut u64) -> u64 {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    *random >> 33
}
