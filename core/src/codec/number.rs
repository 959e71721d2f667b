//! Numbers of MessagePack, as languages encode them: whole ones may be doubles or floats. These
//! are taken apart by their bits, so that nothing is lost on the way.

use crate::decimal::{DecimalError, Units};
use crate::limits::MICRO;
use rmpv::Value;

/// A whole number.
///
/// # Errors
/// When it is none, or does not fit in 64 bits.
pub fn whole(value: &Value) -> Result<u64, DecimalError> {
    match value.as_u64() {
        Some(whole) => Ok(whole),
        None => units(value, 1)?.whole(),
    }
}

/// Tokens in millionths, rounded to the nearest as a [text](crate::decimal::parse) is.
///
/// # Errors
/// When it is no number of 0 or more, or more than 10^12.
pub fn amount(value: &Value) -> Result<u64, DecimalError> {
    match value.as_u64() {
        Some(whole) => Units { below: whole.checked_mul(MICRO), round_up: false, exact: true },
        None => units(value, MICRO)?,
    }
    .amount()
}

/// A double or a float, counted in units of which `scale` are one.
fn units(value: &Value, scale: u64) -> Result<Units, DecimalError> {
    // Sign and exponent, how many bits the fraction has, and the fraction.
    let (head, width, fraction) = match value {
        Value::F64(double) => (double.to_bits() >> 52, 52, double.to_bits() & ((1 << 52) - 1)),
        Value::F32(float) => {
            let bits = u64::from(float.to_bits());
            (bits >> 23, 23, bits & ((1 << 23) - 1))
        }
        _ => return Err(DecimalError::NotANumber),
    };
    let (biggest, bias) = if width == 52 { (0x7ff, 1_023) } else { (0xff, 127) };
    let negative = head > biggest;
    let exponent = head & biggest;
    if exponent == biggest || (negative && (exponent, fraction) != (0, 0)) {
        return Err(DecimalError::NotANumber);
    }
    // Below the least exponent there is no 1 in front of the fraction.
    let one = if exponent == 0 { 0 } else { 1_u64.checked_shl(width).unwrap_or(0) };
    let scaled = u128::from(fraction | one).saturating_mul(scale.into());
    let power = exponent.max(1);
    let point = u64::from(width).saturating_add(bias);
    Ok(if power >= point {
        let left = u32::try_from(power.saturating_sub(point)).unwrap_or(u32::MAX);
        // Nothing is shifted out where there are so many noughts in front.
        let shifted = scaled.checked_shl(left).filter(|_| left < scaled.leading_zeros());
        let below = shifted.and_then(|units| u64::try_from(units).ok());
        Units { below, round_up: false, exact: true }
    } else {
        let right = u32::try_from(point.saturating_sub(power)).unwrap_or(u32::MAX);
        let below = scaled.checked_shr(right).unwrap_or(0);
        let rest = scaled ^ below.checked_shl(right).unwrap_or(0);
        let half = 1_u128.checked_shl(right.saturating_sub(1));
        Units {
            below: u64::try_from(below).ok(),
            round_up: half.is_some_and(|half| rest >= half),
            exact: rest == 0,
        }
    })
}
