//! What a bucket weighs that regions share.

use super::region;
use crate::error::{Error, Result};
use crate::servers::Instance;
use std::fmt::Write;
use std::path::Path;

/// How many regions share the bucket.
const REGIONS: [usize; 4] = [2, 3, 4, 8];
/// `hash-max-listpack-value`: the default of the server, and what holds all.
const LIMITS: [u64; 2] = [64, 512];
/// What each region takes at first and later, of so many tokens. They refill at
/// 5 a second.
const FIRST: u64 = 100;
const LATER: u64 = 10_000;
const FULL: u64 = 1_000_000;

/// Weighs buckets on one of so many regions.
pub fn measure(module: &Path) -> Result<String> {
    eprintln!("Region sync, memory");
    let mut text = String::from(
        "Memory of a bucket that regions share, under an 11-byte key: bytes by MEMORY USAGE\n\
         hash-max-listpack-value               64                              512\n\
         regions       after one take    in long use   after one take    in long use\n",
    );
    for count in REGIONS {
        let mut regions = region::mesh(count, module)?;
        for region in &mut regions {
            set(region, "claw.max-tokens", FULL)?;
        }
        // Writing to a string does not fail.
        let _ = write!(text, "{count:<13}");
        for limit in LIMITS {
            for region in &mut regions {
                set(region, "hash-max-listpack-value", limit)?;
            }
            let key = format!("m{limit:03}:000000");
            let once = weigh(&mut regions, &key, FIRST, FIRST)?;
            // The counts of taken millionths are now as long as they get.
            let later = weigh(&mut regions, &key, LATER, FIRST.saturating_add(LATER))?;
            let _ = write!(text, "{once:>15}{later:>15}  ");
        }
        text.push('\n');
    }
    text.push_str("h: no longer compact, but a hash table\n");
    Ok(text)
}

fn set(region: &mut Instance, parameter: &str, value: u64) -> Result<()> {
    Ok(redis::cmd("CONFIG").arg("SET").arg(parameter).arg(value).query(&mut region.conn)?)
}

/// Takes tokens from a bucket in every region, and weighs it in the first when
/// that knows what all of them have taken from the beginning, `each`.
fn weigh(regions: &mut [Instance], key: &str, take: u64, each: u64) -> Result<String> {
    for region in regions.iter_mut() {
        redis::cmd("CL.TAKE").arg(key).arg(take).query::<()>(&mut region.conn)?;
    }
    let taken = each.saturating_mul(u64::try_from(regions.len()).unwrap_or(u64::MAX));
    // Meanwhile some tokens have come back, but not what a region has taken.
    let most = FULL.saturating_sub(taken).saturating_add(FIRST / 2);
    let first = regions.first_mut().ok_or_else(|| Error::new("no regions"))?;
    region::until("a region knows of all takes", || {
        let (_, _, remaining, _, _): (i64, i64, u64, i64, i64) =
            redis::cmd("CL.PEEK").arg(key).arg(0).query(&mut first.conn)?;
        Ok(remaining < most)
    })?;
    let encoding: String = redis::cmd("OBJECT").arg("ENCODING").arg(key).query(&mut first.conn)?;
    let mut usage = redis::cmd("MEMORY");
    usage.arg("USAGE").arg(key).arg("SAMPLES").arg(0);
    let bytes: u64 = usage.query(&mut first.conn)?;
    let mark = if encoding == "hashtable" { "h" } else { " " };
    Ok(format!("{bytes} {mark}"))
}
