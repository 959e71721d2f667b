//! How long until the other region knows of a take.

use super::load::{self, Pace, next};
use super::region;
use crate::error::{Error, Result};
use crate::report::{thousands, verdict};
use crate::servers::Instance;
use redis::Pipeline;
use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Takes per second from each of the two regions, and how many buckets they
/// share.
const RATE: u64 = 10_000;
const KEYS: u64 = 10_000;
/// From one pipeline of takes to the next, which has all that are due.
const TICK: Duration = Duration::from_millis(5);
const PACE: Pace = Pace { rate: RATE, keys: KEYS, tick: TICK };

const WARM_UP: Duration = Duration::from_secs(1);
const DURATION: Duration = Duration::from_secs(10);
/// From one look to the next.
const LOOK: Duration = Duration::from_millis(1);
/// Until the next probe, and how much that varies, so that no probe keeps step
/// with the rounds.
const PROBE_MS: u64 = 7;
const PROBE_JITTER_MS: u64 = 7;
/// What a probe takes, of 1000 tokens that refill at 5 a second.
const PROBE: u64 = 500;
const FULL: u64 = 1_000;
/// How long a take may stay unknown.
const PATIENCE: Duration = Duration::from_secs(10);

/// 99 of 100 takes have to be known so soon, in milliseconds.
const TARGET: f64 = 100.0;

/// A take that the other region does not know of yet.
struct Probe {
    key: String,
    /// The region that is looked at.
    there: usize,
    sent: Instant,
}

/// What the probes found.
#[derive(Default)]
struct Found {
    /// How long each take took to be seen, in milliseconds.
    delays: Vec<f64>,
    /// The longest from one look to the next.
    pause: Duration,
}

/// Measures two regions at the default interval and prints what it finds.
pub fn measure(module: &Path) -> Result<String> {
    eprintln!("Region sync, convergence");
    let mut regions = region::mesh(2, module)?;
    let stop = AtomicBool::new(false);
    let mut loads = Vec::new();
    for region in &regions {
        loads.push(region.connect()?);
    }
    let (found, taken) = thread::scope(|scope| {
        let stop = &stop;
        let seeds = 1_u64..;
        let loads: Vec<_> = loads
            .into_iter()
            .zip(seeds)
            .map(|(conn, seed)| scope.spawn(move || load::run(conn, PACE, seed, stop)))
            .collect();
        thread::sleep(WARM_UP);
        let found = probe(&mut regions);
        stop.store(true, Ordering::Relaxed);
        let taken: Vec<Result<f64>> = loads
            .into_iter()
            .map(|load| load.join().unwrap_or_else(|_| Err(Error::new("a load panicked"))))
            .collect();
        (found, taken)
    });
    let mut total = 0.0;
    for rate in taken {
        total += rate?;
    }
    Ok(report(found?, total))
}

fn probe(regions: &mut [Instance]) -> Result<Found> {
    let mut found = Found::default();
    let mut open: Vec<Probe> = Vec::new();
    let (mut count, mut random) = (0_usize, 7);
    let start = Instant::now();
    let (mut due, mut looked) = (start, start);
    loop {
        let now = Instant::now();
        let over = start.elapsed() > DURATION;
        if over && open.is_empty() {
            return Ok(found);
        }
        if now >= due && !over {
            // Each region in turn.
            let here = count & 1;
            let key = format!("probe:{count:06}");
            take(regions, here, &key)?;
            open.push(Probe { key, there: here ^ 1, sent: now });
            count = count.saturating_add(1);
            let wait = PROBE_MS.saturating_add(next(&mut random) % PROBE_JITTER_MS);
            due = now.checked_add(Duration::from_millis(wait)).unwrap_or(now);
        }
        found.pause = found.pause.max(looked.elapsed());
        looked = Instant::now();
        for (there, region) in regions.iter_mut().enumerate() {
            look(region, there, &mut open, &mut found.delays)?;
        }
        if let Some(late) = open.iter().find(|probe| probe.sent.elapsed() > PATIENCE) {
            return Err(Error::new(format!("{} does not arrive", late.key)));
        }
        thread::sleep(LOOK.saturating_sub(looked.elapsed()));
    }
}

fn take(regions: &mut [Instance], here: usize, key: &str) -> Result<()> {
    let region = regions.get_mut(here).ok_or_else(|| Error::new("no such region"))?;
    redis::cmd("CL.TAKE").arg(key).arg(PROBE).query::<()>(&mut region.conn)?;
    Ok(())
}

/// Closes the probes that a region knows of.
fn look(
    region: &mut Instance,
    there: usize,
    open: &mut Vec<Probe>,
    delays: &mut Vec<f64>,
) -> Result<()> {
    let mut pipe = Pipeline::new();
    for probe in open.iter().filter(|probe| probe.there == there) {
        pipe.cmd("CL.PEEK").arg(&probe.key).arg(0);
    }
    if pipe.is_empty() {
        return Ok(());
    }
    let answers: Vec<(i64, i64, u64, i64, i64)> = pipe.query(&mut region.conn)?;
    let seen = Instant::now();
    let mut answers = answers.into_iter();
    open.retain(|probe| {
        let known = probe.there == there
            && answers.next().is_some_and(|(_, _, remaining, _, _)| remaining < FULL);
        if known {
            delays.push(seen.duration_since(probe.sent).as_secs_f64() * 1_000.0);
        }
        !known
    });
    Ok(())
}

fn report(mut found: Found, rate: f64) -> String {
    found.delays.sort_by(f64::total_cmp);
    let count = found.delays.len();
    let at = |percent: usize| {
        // The smallest delay that so many of them do not exceed.
        let rank = count.saturating_mul(percent).div_ceil(100).saturating_sub(1);
        found.delays.get(rank).copied().unwrap_or(f64::NAN)
    };
    let p99 = at(99);
    let mut text = format!(
        "Convergence: from the request of a take until CL.PEEK on the other region shows it\n\
         Two regions, rounds every 50 ms, {} takes/s in all from {} buckets; {count} probes,\n\
         looked for every ms (longest pause between two looks {:.0} ms)\n",
        thousands(rate),
        thousands(KEYS as f64),
        found.pause.as_secs_f64() * 1_000.0
    );
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "p50 {:.0} ms, p90 {:.0} ms, p99 {p99:.0} ms, max {:.0} ms",
        at(50),
        at(90),
        at(100)
    );
    let _ = writeln!(
        text,
        "\nTarget, convergence\np99 {p99:.0} ms, at most {TARGET} ms: {}",
        verdict(p99 <= TARGET)
    );
    text
}
