//! Takes tokens for one user until it is refused, waits as told, takes again.
//!
//! usage: `cargo run --example take [key]`
//! The server is `REDIS_URL`, or `redis://127.0.0.1:6379`.

use redis::{ConnectionLike, RedisResult};
use std::thread;
use std::time::Duration;

struct Decision {
    /// 200, or 429 when refused.
    status: u16,
    /// Whole tokens left.
    remaining: u64,
    /// 0 when granted, -1 when it can never be.
    retry_after_ms: i64,
}

fn take(client: &mut impl ConnectionLike, key: &str, tokens: u64) -> RedisResult<Decision> {
    let (taken, _capacity, remaining, retry_after_ms, _reset_after_ms): (u64, u64, u64, i64, i64) =
        redis::cmd("CL.TAKE")
            .arg(key)
            .arg(tokens)
            .arg(&["CAPACITY", "3", "REFILL", "1", "INTERVAL", "2000"])
            .query(client)?;
    let status = if taken == tokens { 200 } else { 429 };
    Ok(Decision { status, remaining, retry_after_ms })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned());
    let key = std::env::args().nth(1).unwrap_or_else(|| "limit:user:42".to_owned());
    let mut client = redis::Client::open(url)?.get_connection()?;

    let mut decision = take(&mut client, &key, 1)?;
    while decision.status == 200 {
        println!("{} granted, {} left", decision.status, decision.remaining);
        decision = take(&mut client, &key, 1)?;
    }
    println!("{} refused, retry in {} ms", decision.status, decision.retry_after_ms);

    let wait = u64::try_from(decision.retry_after_ms)
        .map_err(|_| "more tokens than the bucket can hold: waiting would not help")?;
    thread::sleep(Duration::from_millis(wait));
    let decision = take(&mut client, &key, 1)?;
    println!("{} after waiting, {} left", decision.status, decision.remaining);
    Ok(())
}
