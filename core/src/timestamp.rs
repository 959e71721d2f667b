//! Instants as text: unix microseconds, or RFC 3339 as a person writes it.

use crate::limits::MAX_TIMESTAMP_US;
use std::fmt;

/// Longest text that is tried as RFC 3339, without what is finer than a microsecond.
const MAX_RFC3339_LEN: usize = 64;

/// How many digits of a fraction of a second count.
const PLACES: usize = 6;

/// How long a date is at the least; a sign behind it is that of an offset.
const DATE_LEN: usize = 8;

/// Why a text is not an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampError {
    /// Neither an integer nor RFC 3339.
    NotATime,
    /// Before 1970 or after 9999.
    OutOfRange,
}

impl fmt::Display for TimestampError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotATime => "is neither unix microseconds nor an RFC 3339 time",
            Self::OutOfRange => "is not between the years 1970 and 9999",
        })
    }
}

/// Reads unix microseconds, or an RFC 3339 date and time with an offset.
///
/// A whole number is always microseconds; it is never guessed to be seconds.
/// Fractions of an RFC 3339 second may be of any length, and are cut to microseconds.
///
/// # Errors
/// See [`TimestampError`].
///
/// ```
/// use claw_core::timestamp::parse;
/// assert_eq!(parse(b"1773914400000000"), Ok(1_773_914_400_000_000));
/// assert_eq!(parse(b"2026-03-19T10:00:00Z"), Ok(1_773_914_400_000_000));
/// ```
pub fn parse(text: &[u8]) -> Result<u64, TimestampError> {
    let micros = match crate::decimal::whole(text) {
        Ok(micros) => micros,
        Err(crate::decimal::DecimalError::TooLarge) => return Err(TimestampError::OutOfRange),
        Err(_) => rfc3339(text)?,
    };
    if micros > MAX_TIMESTAMP_US {
        return Err(TimestampError::OutOfRange);
    }
    Ok(micros)
}

fn rfc3339(text: &[u8]) -> Result<u64, TimestampError> {
    // jiff also reads related forms of ISO 8601. Two that would surprise, signed
    // years and time zone names, are kept from it.
    let odd = !text.first().is_some_and(u8::is_ascii_digit) || text.contains(&b'[');
    let text = cut_fraction(text);
    if odd || text.len() > MAX_RFC3339_LEN || is_offset_of_days(&text) {
        return Err(TimestampError::NotATime);
    }
    let text = std::str::from_utf8(&text).map_err(|_| TimestampError::NotATime)?;
    let instant: jiff::Timestamp = text.parse().map_err(|_| TimestampError::NotATime)?;
    u64::try_from(instant.as_microsecond()).map_err(|_| TimestampError::OutOfRange)
}

/// As much of a text as is tried, without the digits that are finer than a microsecond: jiff reads
/// nine places and no more.
fn cut_fraction(text: &[u8]) -> Vec<u8> {
    let point = text.iter().position(|byte| matches!(byte, b'.' | b','));
    let (time, fraction) = text.split_at(point.map_or(text.len(), |at| at.saturating_add(1)));
    let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = fraction.split_at(digits);
    let places = digits.iter().take(PLACES);
    // One byte more than may be, so that what is too long stays it.
    time.iter().chain(places).chain(rest).take(MAX_RFC3339_LEN + 1).copied().collect()
}

/// Whether the offset is 24 hours or more, which jiff reads and RFC 3339 does not have.
fn is_offset_of_days(text: &[u8]) -> bool {
    let sign = text.iter().rposition(|byte| matches!(byte, b'+' | b'-'));
    let hours = sign.filter(|at| *at >= DATE_LEN).and_then(|at| text.get(at..)?.get(1..3));
    hours.is_some_and(|hours| hours >= b"24".as_slice())
}
