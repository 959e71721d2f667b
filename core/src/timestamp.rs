//! Instants as text: unix microseconds, or RFC 3339 as a person writes it.

use crate::limits::MAX_TIMESTAMP_US;
use std::fmt;

/// Longest text that is tried as RFC 3339.
const MAX_RFC3339_LEN: usize = 64;

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
/// An integer is always microseconds; it is never guessed to be seconds.
/// Fractions of an RFC 3339 second finer than a microsecond are cut.
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
    let micros = match crate::decimal::digits(text) {
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
    if odd || text.len() > MAX_RFC3339_LEN {
        return Err(TimestampError::NotATime);
    }
    let text = std::str::from_utf8(text).map_err(|_| TimestampError::NotATime)?;
    let instant: jiff::Timestamp = text.parse().map_err(|_| TimestampError::NotATime)?;
    u64::try_from(instant.as_microsecond()).map_err(|_| TimestampError::OutOfRange)
}
