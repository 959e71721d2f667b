//! What a bucket weighs.

use crate::error::{Error, Result};
use crate::report::{thousands, verdict};
use crate::servers::{Instance, Servers};
use crate::workload::{KEYS, Workload};
use redis::Cmd;
use std::fmt::Write;
use std::thread;
use std::time::{Duration, Instant};

/// What a bucket of the default policy may weigh, in bytes.
const TARGET: u64 = 136;
/// Takes from the bucket that is watched.
const TAKES: u64 = 1_000;

/// Changes of `used_memory` that mean nothing, in bytes.
const NOISE: u64 = 16 * 1024;
/// A growing table of keys is moved little by little and the old one is freed
/// at the end: only then `used_memory` stays where it is for so long.
const CALM: Duration = Duration::from_millis(1_500);
const TICK: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(20);

/// Weighs buckets and prints what they weigh. Empties the server.
pub fn measure(servers: &mut Servers, with_cell: bool) -> Result<String> {
    let script = servers.script.clone();
    let server = &mut servers.main;
    // The buckets of some workloads live for a second only, which is too short
    // to make and weigh all of them.
    redis::cmd("DEBUG").arg("SET-ACTIVE-EXPIRE").arg(0).query::<()>(&mut server.conn)?;
    redis::cmd("FLUSHALL").query::<()>(&mut server.conn)?;

    let mut text =
        String::from("Memory of one bucket under an 11-byte key: bytes by MEMORY USAGE\n");
    let mut row = |title: &str, bytes: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{title:52}{bytes:>6}");
    };
    let once = after(server, [Workload::Take.command(&script, &key(0))], &key(0))?;
    row("CL.TAKE, after one take", once.to_string());
    let most = after_many(server, &key(1))?;
    row("CL.TAKE, the most in 1000 takes of fractional tokens", most.to_string());
    let policy = after(server, [Workload::Policy.command(&script, &key(2))], &key(2))?;
    row("CL.TAKE, policy in the call", policy.to_string());
    let pinned = pin_and_take(&script, &key(3));
    row("CL.TAKE, pinned policy", after(server, pinned, &key(3))?.to_string());
    let lua = after(server, [Workload::Lua.command(&script, &key(4))], &key(4))?;
    row("Lua token bucket", lua.to_string());
    if with_cell {
        let cell = after(server, [Workload::Cell.command(&script, &key(5))], &key(5))?;
        row("redis-cell CL.THROTTLE", cell.to_string());
    }

    let count = thousands(KEYS as f64);
    text.push_str(&format!(
        "\nMemory of {count} buckets after one take each: growth of used_memory / {count}\n"
    ));
    for workload in [Workload::Take, Workload::Lua, Workload::Cell] {
        if workload != Workload::Cell || with_cell {
            let each = growth(server, workload, &script)? as f64 / KEYS as f64;
            let _ = writeln!(text, "{:52}{each:>6.1}", workload.title());
        }
    }

    text.push_str("\nTarget, memory\n");
    for (title, bytes) in [("after one take", once), ("the most in 1000 takes", most)] {
        let verdict = verdict(bytes <= TARGET);
        let _ = writeln!(text, "CL.TAKE, {title} {bytes}, at most {TARGET} bytes: {verdict}");
    }
    Ok(text)
}

/// A key of 11 bytes.
fn key(number: u64) -> String {
    format!("mem:{number:07}")
}

/// MEMORY USAGE of a key after some commands.
fn after(server: &mut Instance, commands: impl IntoIterator<Item = Cmd>, key: &str) -> Result<u64> {
    server.send(commands.into_iter())?;
    let bytes: Option<u64> = redis::cmd("MEMORY").arg("USAGE").arg(key).query(&mut server.conn)?;
    bytes.ok_or_else(|| Error::new(format!("{key} is gone before it is weighed")))
}

fn pin_and_take(script: &str, key: &str) -> [Cmd; 2] {
    let mut pin = redis::cmd("CL.POLICY");
    pin.arg(key).arg("CAPACITY").arg(1_000_000).arg("REFILL").arg(100_000);
    pin.arg("INTERVAL").arg(60_000);
    [pin, Workload::Pinned.command(script, key)]
}

/// The most that a bucket weighs while amounts of all sizes are taken from it.
/// It begins with as many decimals as there can be, which whole tokens and a
/// refill of 5 a second leave there.
fn after_many(server: &mut Instance, key: &str) -> Result<u64> {
    let (seconds, _micros): (u64, u64) = redis::cmd("TIME").query(&mut server.conn)?;
    let mut make = redis::cmd("HSET");
    let timestamp = seconds.saturating_mul(1_000_000);
    make.arg(key).arg("tokens").arg("900.123457").arg("timestamp").arg(timestamp);
    server.send(std::iter::once(make))?;
    let mut most = 0;
    let mut random = 1_u64;
    for _ in 0..TAKES {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let wanted = (random >> 33) % 300;
        let mut take = redis::cmd("CL.TAKE");
        take.arg(key).arg(wanted).arg("PARTIAL");
        let (_, _, remaining, _, _): (u64, u64, u64, i64, i64) = take.query(&mut server.conn)?;
        most = most.max(after(server, [], key)?);
        if remaining == 0 {
            // Never full, where the fraction would be cut.
            let mut give = redis::cmd("CL.GIVE");
            give.arg(key).arg(900);
            server.send(std::iter::once(give))?;
        }
    }
    let tokens: String = redis::cmd("HGET").arg(key).arg("tokens").query(&mut server.conn)?;
    match tokens.contains('.') {
        true => Ok(most),
        false => Err(Error::new(format!("{key} holds {tokens}, and no fraction"))),
    }
}

/// How much `used_memory` grows with a bucket under each key.
fn growth(server: &mut Instance, workload: Workload, script: &str) -> Result<u64> {
    redis::cmd("FLUSHALL").query::<()>(&mut server.conn)?;
    let before = used_memory(server)?;
    server.send((0..KEYS).map(|number| workload.command(script, &key(number))))?;
    let after = settled_memory(server)?;
    let keys: u64 = redis::cmd("DBSIZE").query(&mut server.conn)?;
    if keys != KEYS {
        return Err(Error::new(format!("{}: {keys} of {KEYS} buckets", workload.title())));
    }
    Ok(after.saturating_sub(before))
}

fn used_memory(server: &mut Instance) -> Result<u64> {
    let value = server.info("memory")?.get("used_memory").and_then(|value| value.parse().ok());
    value.ok_or_else(|| Error::new("INFO memory does not show used_memory"))
}

fn settled_memory(server: &mut Instance) -> Result<u64> {
    let start = Instant::now();
    let mut settled = used_memory(server)?;
    let mut since = Instant::now();
    while since.elapsed() < CALM {
        if start.elapsed() > PATIENCE {
            return Err(Error::new("used_memory does not settle"));
        }
        thread::sleep(TICK);
        let now = used_memory(server)?;
        if now.abs_diff(settled) > NOISE {
            settled = now;
            since = Instant::now();
        }
    }
    Ok(settled)
}
