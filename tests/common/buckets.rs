//! Servers whose buckets stand still, the clock that these go by, and their amounts.

#![allow(dead_code, reason = "no test uses all of it")]

use claw_testkit::{Builder, Server, ask};
use redis::Connection;

/// A server on whose default policy next to nothing refills, so that tests need
/// not be fast.
pub fn slow_server() -> Builder {
    Server::builder().module_args(["refill-rate-per-sec", "0.000001"])
}

/// The server's wall clock in microseconds, at the beginning of the present
/// millisecond: commands never see an earlier time after this.
pub fn clock(conn: &mut Connection) -> u128 {
    precise_clock(conn) / 1000 * 1000
}

pub fn precise_clock(conn: &mut Connection) -> u128 {
    let (seconds, micros): (u128, u128) = ask(conn, "TIME");
    seconds * 1_000_000 + micros
}

/// Millionths in a decimal text.
pub fn micros(text: &str) -> u128 {
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{places:0<6}").parse().unwrap()
}
