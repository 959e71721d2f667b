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
    let mut value = 0_u64;
    // Nineteen digits always fit in 64 bits.
    let (safe, rest) = text.split_at_checked(19).unwrap_or((text, &[]));
    for &byte in safe {
        let digit = digit(byte)?;
        value = value.wrapping_mul(10).wrapping_add(digit);
    }
    let mut value = Some(value);
    for &byte in rest {
        let digit = digit(byte)?;
        value = value.and_then(|v| v.checked_mul(10)).and_then(|v| v.checked_add(digit));
    }
    value.ok_or(DecimalError::TooLarge)
}

fn digit(byte: u8) -> Result<u64, DecimalError> {
    let digit = byte.wrapping_sub(b'0');
    if digit > 9 { Err(DecimalError::NotANumber) } else { Ok(u64::from(digit)) }
}

/// Millionths as the shortest decimal text: `12500000` is `12.5`.
///
/// The text is made in place, since it is made for every take.
#[derive(Debug, Clone, Copy)]
pub struct Decimal {
    text: [u8; LONGEST],
    start: usize,
    end: usize,
}

/// Fourteen digits of 2^64 - 1 millionths, a point, and six more.
const LONGEST: usize = 21;

impl Decimal {
    /// The text of `micros` millionths.
    #[must_use]
    pub fn new(micros: u64) -> Self {
        let mut text = [b'0'; LONGEST];
        let (whole, mut fraction) = (micros / MICRO, micros % MICRO);
        let (integral, places) = text.split_at_mut(LONGEST.saturating_sub(6));
        let mut end = LONGEST.saturating_sub(7);
        if fraction != 0 {
            for (place, byte) in places.iter_mut().enumerate().rev() {
                let digit = last_digit(fraction);
                *byte = digit;
                fraction /= 10;
                if digit != b'0' && end < LONGEST.saturating_sub(6) {
                    end = LONGEST.saturating_sub(5).saturating_add(place);
                }
            }
        }
        let mut start = LONGEST.saturating_sub(7);
        let mut rest = whole;
        if let Some((point, digits)) = integral.split_last_mut() {
            *point = b'.';
            for byte in digits.iter_mut().rev() {
                *byte = last_digit(rest);
                rest /= 10;
                start = start.saturating_sub(1);
                if rest == 0 {
                    break;
                }
            }
        }
        Self { text, start, end }
    }

    /// The text: digits, and at most one point.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.text.get(self.start..self.end).unwrap_or_default()
    }
}

fn last_digit(number: u64) -> u8 {
    b'0'.wrapping_add(u8::try_from(number % 10).unwrap_or(0))
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(self.as_bytes()).unwrap_or_default())
    }
}
