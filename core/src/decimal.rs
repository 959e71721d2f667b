//! Amounts as decimal text with up to six places, held in millionths.

use crate::limits::{MAX_MICRO_TOKENS, MICRO};
use std::fmt;

/// Why a text is not an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecimalError {
    /// Something else than digits with at most one point between them.
    NotANumber,
    /// More than six digits after the point.
    TooFine,
    /// More than 10^12.
    TooLarge,
}

impl fmt::Display for DecimalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotANumber => "is not a decimal number of 0 or more",
            Self::TooFine => "has more than 6 decimal places",
            Self::TooLarge => "is more than 1000000000000",
        })
    }
}

/// Reads `digits[.digits]` into millionths; no sign, exponent or white space.
///
/// # Errors
/// See [`DecimalError`]; the largest value is 10^12.
///
/// ```
/// assert_eq!(claw_core::decimal::parse(b"12.5"), Ok(12_500_000));
/// ```
pub fn parse(text: &[u8]) -> Result<u64, DecimalError> {
    let (whole, places) = match text.iter().position(|&b| b == b'.') {
        None => (text, None),
        Some(point) => {
            let (whole, rest) = text.split_at_checked(point).ok_or(DecimalError::NotANumber)?;
            (whole, Some(rest.get(1..).unwrap_or_default()))
        }
    };
    let mut micros = digits(whole)?.checked_mul(MICRO).ok_or(DecimalError::TooLarge)?;
    if let Some(places) = places {
        // Checked first, so that "1.x234567" is no number rather than too fine.
        let fraction = digits(places.get(..6).unwrap_or(places))?;
        if let Some(finer) = places.get(6..).filter(|finer| !finer.is_empty()) {
            digits(finer)?;
            return Err(DecimalError::TooFine);
        }
        let scale = (places.len()..6).fold(1_u64, |scale, _| scale.saturating_mul(10));
        micros = micros.saturating_add(fraction.saturating_mul(scale));
    }
    if micros > MAX_MICRO_TOKENS {
        return Err(DecimalError::TooLarge);
    }
    Ok(micros)
}

/// Reads an integer: digits, at least one, and nothing else.
///
/// # Errors
/// When it is no such text, or does not fit in 64 bits.
pub fn digits(text: &[u8]) -> Result<u64, DecimalError> {
    if text.is_empty() {
        return Err(DecimalError::NotANumber);
    }
    let mut value = Some(0_u64);
    for &byte in text {
        if !byte.is_ascii_digit() {
            return Err(DecimalError::NotANumber);
        }
        let digit = u64::from(byte.wrapping_sub(b'0'));
        value = value.and_then(|v| v.checked_mul(10)).and_then(|v| v.checked_add(digit));
    }
    value.ok_or(DecimalError::TooLarge)
}

/// Prints millionths as the shortest decimal text: `12500000` is `12.5`.
#[derive(Debug, Clone, Copy)]
pub struct Decimal(pub u64);

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, mut fraction) = (self.0 / MICRO, self.0 % MICRO);
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        let mut places = 6_usize;
        while fraction.is_multiple_of(10) {
            fraction /= 10;
            places = places.saturating_sub(1);
        }
        write!(f, "{whole}.{fraction:0places$}")
    }
}
