//! The server's wall clock.

use super::api::call;
use redis_module::raw;

/// Unix microseconds; 0 before 1970, which credits nothing.
///
/// Servers from Redis 7.2 on give the time at which the running command (or the
/// script or transaction around it) began, for free. Redis 7.0 has only the
/// present millisecond.
pub(crate) fn now() -> u64 {
    // SAFETY: read by value; the function takes nothing.
    let micros = match unsafe { raw::RedisModule_CachedMicroseconds } {
        // SAFETY: set by the server.
        Some(cached) => unsafe { cached() },
        // SAFETY: the function takes nothing.
        None => unsafe { call!(RedisModule_Milliseconds()) }.saturating_mul(1_000),
    };
    micros.max(0).unsigned_abs()
}
