//! Numbers of MessagePack, as languages encode them: whole ones may be doubles or floats. These
//! are taken apart by their bits, so that nothing is lost on the way.

use crate::decimal::{DecimalError, Units};
use crate::limits::{MAX_DEBT, MAX_MICRO_TOKENS, MICRO};
use rmpv::Value;

/// A whole number of 0 or more.
///
/// # Errors
/// When it is none, or does not fit in 64 bits.
pub fn whole(value: &Value) -> Result<u64, DecimalError> {
    match value.as_u64() {
        Some(whole) => Ok(whole),
        None => match units(value, 1)? {
            (false, units) => units.whole(),
            (true, _) => Err(DecimalError::NotANumber),
        },
    }
}

/// A whole number that may be negative.
///
/// # Errors
/// When it is none, or does not fit in 64 bits.
pub fn signed(value: &Value) -> Result<i64, DecimalError> {
    match value.as_i64() {
        Some(whole) => Ok(whole),
        None => {
            let (negative, units) = units(value, 1)?;
            with_sign(negative, units.whole()?)
        }
    }
}

/// Tokens in millionths, rounded to the nearest as a [text](crate::decimal::parse_signed) is.
///
/// # Errors
/// When it is no number, more than 10^12, or below minus [`MAX_DEBT`].
pub fn amount(value: &Value) -> Result<i64, DecimalError> {
    let (negative, units) = units(value, MICRO)?;
    let most = if negative { MAX_DEBT.unsigned_abs() } else { MAX_MICRO_TOKENS };
    with_sign(negative, units.amount(most)?)
}

fn with_sign(negative: bool, number: u64) -> Result<i64, DecimalError> {
    let number = i64::try_from(number).map_err(|_| DecimalError::TooLarge)?;
    Ok(if negative { number.saturating_neg() } else { number })
}

/// A number, counted in units of which `scale` are one, and whether it is negative.
fn units(value: &Value, scale: u64) -> Result<(bool, Units), DecimalError> {
    if let Some(whole) = value.as_u64() {
        return Ok((false, whole_units(whole, scale)));
    }
    if let Some(whole) = value.as_i64() {
        return Ok((true, whole_units(whole.unsigned_abs(), scale)));
    }
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
    let exponent = head & biggest;
    if exponent == biggest {
        return Err(DecimalError::NotANumber);
    }
    // There are two noughts.
    let negative = head > biggest && (exponent, fraction) != (0, 0);
    // Below the least exponent there is no 1 in front of the fraction.
    let one = if exponent == 0 { 0 } else { 1_u64.checked_shl(width).unwrap_or(0) };
    let scaled = u128::from(fraction | one).saturating_mul(scale.into());
    let power = exponent.max(1);
    let point = u64::from(width).saturating_add(bias);
    let units = if power >= point {
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
    };
    Ok((negative, units))
}

fn whole_units(whole: u64, scale: u64) -> Units {
    Units { below: whole.checked_mul(scale), round_up: false, exact: true }
}
