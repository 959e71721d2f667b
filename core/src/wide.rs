//! Products of two 64-bit integers, and their quotients.

use std::num::NonZeroU64;

/// The full product; 64 bits times 64 bits always fit in 128.
pub(crate) fn mul(a: u64, b: u64) -> u128 {
    u128::from(a).wrapping_mul(u128::from(b))
}

/// Quotient and remainder. Most dividends fit in 64 bits, where the division is
/// several times faster.
pub(crate) fn div_rem(dividend: u128, divisor: NonZeroU64) -> (u128, u64) {
    match u64::try_from(dividend) {
        Ok(small) => (u128::from(small / divisor), small % divisor),
        Err(_) => {
            let wide = u128::from(divisor.get());
            let quotient = dividend.checked_div(wide).unwrap_or(0);
            let remainder = dividend.checked_rem(wide).unwrap_or(0);
            (quotient, u64::try_from(remainder).unwrap_or(0))
        }
    }
}

/// The quotient rounded up.
pub(crate) fn div_ceil(dividend: u128, divisor: NonZeroU64) -> u128 {
    let (quotient, remainder) = div_rem(dividend, divisor);
    quotient.saturating_add(u128::from(remainder != 0))
}
