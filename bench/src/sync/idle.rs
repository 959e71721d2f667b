//! What goes over the wire when nothing is taken.

use super::region;
use crate::error::Result;
use crate::rounds::calls;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How long to watch.
const WATCH: Duration = Duration::from_secs(5);

/// Watches two regions of which nobody takes anything.
pub fn measure(module: &Path) -> Result<String> {
    eprintln!("Region sync, idle");
    let mut regions = region::mesh(2, module)?;
    for region in &mut regions {
        region::drained(region)?;
    }
    let (mut bytes, mut commands, mut others) = (0_u64, 0_u64, 0_u64);
    let start = Instant::now();
    let mut add = |sign: bool| -> Result<()> {
        let put = |sum: &mut u64, value: u64| {
            *sum = if sign { sum.wrapping_add(value) } else { sum.wrapping_sub(value) };
        };
        for region in &mut regions {
            put(&mut bytes, region::number(region, "sync_bytes_sent")?);
            put(&mut commands, calls(region, "cl.sync|round")?);
            put(&mut others, calls(region, "cl.sync|states")?);
        }
        Ok(())
    };
    add(false)?;
    thread::sleep(WATCH);
    add(true)?;
    // Two regions have sent, each to one peer.
    let each = 2.0 * start.elapsed().as_secs_f64();
    Ok(format!(
        "Idle: what a region sends to each peer while nothing is taken, every 50 ms\n\
         {:.0} bytes/s, {:.1} CL.SYNC ROUND/s, {:.1} CL.SYNC STATES/s\n",
        bytes as f64 / each,
        commands as f64 / each,
        others as f64 / each
    ))
}
