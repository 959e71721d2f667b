//! The one bucket that all regions together stand for.

use claw_core::policy::Policy;

/// By how many millionths of a token what was given out exceeds what one bucket of
/// this policy could have given, at the worst, in any window. Its clock is as fast
/// as the fastest.
#[must_use]
pub fn excess(admitted: &[(u64, i64)], policy: Policy, fast_ppm: u64) -> u64 {
    const PARTS: i128 = 1_000_000;
    let unit = i128::from(policy.interval_us().get()) * PARTS;
    let rate = i128::from(policy.refill()) * (PARTS + i128::from(fast_ppm));
    let (mut level, mut then, mut highest) = (0_i128, 0, 0);
    for (now, micros) in admitted {
        level = (level - rate * i128::from(now - then)).max(0);
        level = (level + i128::from(*micros) * unit).max(0);
        then = *now;
        highest = highest.max(level);
    }
    let above = highest - i128::from(policy.capacity_micros()) * unit;
    u64::try_from(above.max(0) / unit).unwrap_or(u64::MAX)
}

/// The most that section "what must hold" allows, in millionths of a token: each
/// other region may have given out a full bucket and what came in while it was not
/// known, and so may have come in here.
#[must_use]
pub fn bound(policy: Policy, regions: usize, unknown_us: u64, lag_us: u64) -> u64 {
    let refilled = |us: u64| {
        let gained = u128::from(policy.refill()) * u128::from(us);
        u64::try_from(gained.div_ceil(u128::from(policy.interval_us().get()))).unwrap_or(u64::MAX)
    };
    let others = u64::try_from(regions - 1).unwrap_or(u64::MAX);
    others * (policy.capacity_micros().unsigned_abs() + refilled(unknown_us)) + refilled(lag_us)
}
