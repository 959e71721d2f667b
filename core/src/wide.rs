//! Products and quotients of 128 bits, which mostly fit in 64: there they are several
//! times faster.

use std::num::{NonZeroU64, NonZeroU128};

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
            let wide = NonZeroU128::from(divisor);
            (dividend / wide, narrow(dividend % wide))
        }
    }
}

/// The quotient rounded up.
pub(crate) fn div_ceil(dividend: u128, divisor: NonZeroU64) -> u128 {
    let (quotient, remainder) = div_rem(dividend, divisor);
    quotient.saturating_add(u128::from(remainder != 0))
}

/// The product, saturated at what 128 bits hold.
#[inline]
pub(crate) fn times(a: i128, b: i128) -> i128 {
    match (i64::try_from(a), i64::try_from(b)) {
        // 64 bits times 64 bits always fit.
        (Ok(a), Ok(b)) => i128::from(a).wrapping_mul(i128::from(b)),
        _ => a.saturating_mul(b),
    }
}

/// Quotient and remainder, the quotient rounded down, by a divisor that is positive.
#[inline]
pub(crate) fn div_rem_euclid(dividend: i128, divisor: i128) -> (i128, i128) {
    debug_assert!(divisor > 0, "units, rates and intervals are positive");
    let small = u64::try_from(divisor).ok().and_then(NonZeroU64::new);
    if let (Ok(dividend), Some(divisor)) = (u64::try_from(dividend), small) {
        return (i128::from(dividend / divisor), i128::from(dividend % divisor));
    }
    // By a positive divisor both can be divided.
    dividend.checked_div_euclid(divisor).zip(dividend.checked_rem_euclid(divisor)).unwrap_or((0, 0))
}

/// The quotient rounded up, as [`div_rem_euclid`] divides.
pub(crate) fn div_ceil_euclid(dividend: i128, divisor: i128) -> i128 {
    let (quotient, rest) = div_rem_euclid(dividend, divisor);
    quotient.saturating_add(i128::from(rest > 0))
}

/// In 64 bits: 0 for what is below, the greatest number for what is above.
#[inline]
pub(crate) fn saturated(value: i128) -> u64 {
    match u64::try_from(value) {
        Ok(value) => value,
        Err(_) if value < 0 => 0,
        Err(_) => u64::MAX,
    }
}

/// In 64 bits with a sign: the least or the greatest number for what is beyond.
#[inline]
pub(crate) fn saturated_signed(value: i128) -> i64 {
    match i64::try_from(value) {
        Ok(value) => value,
        Err(_) if value < 0 => i64::MIN,
        Err(_) => i64::MAX,
    }
}

/// In 64 bits, what is known to fit.
#[inline]
pub(crate) fn narrow(value: u128) -> u64 {
    debug_assert!(u64::try_from(value).is_ok(), "{value} was to fit in 64 bits");
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// With a sign: what is above the greatest such number is that.
pub(crate) fn signed(value: u128) -> i128 {
    i128::try_from(value).unwrap_or(i128::MAX)
}

/// A number of things: no memory holds as many as do not fit.
pub(crate) fn count(len: usize) -> u128 {
    len as u128
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Around each edge of 64 and of 128 bits: as the standard library has it.
    #[test]
    fn small_and_large_numbers_agree() {
        let edges = [0, i128::from(i64::MAX), i128::from(u64::MAX), i128::MAX, 1_000, 1 << 100];
        let around = |edge: i128| (-2..=2).map(move |by| edge.saturating_add(by));
        let numbers: Vec<i128> =
            edges.into_iter().flat_map(around).flat_map(|n| [n, n.saturating_neg()]).collect();
        for &a in &numbers {
            for &b in &numbers {
                assert_eq!(times(a, b), a.saturating_mul(b), "{a} * {b}");
                if b > 0 {
                    let expected = a.checked_div_euclid(b).zip(a.checked_rem_euclid(b));
                    assert_eq!(Some(div_rem_euclid(a, b)), expected, "{a} / {b}");
                }
            }
        }
    }
}
