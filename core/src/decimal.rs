//! Amounts as decimal text with up to six places, held in millionths.

use crate::limits::{MAX_DEBT, MAX_MICRO_TOKENS, MICRO};
use std::fmt;

/// Why a text is not an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecimalError {
    /// Something else than digits with at most one point between them.
    NotANumber,
    /// More than six digits after the point.
    TooFine,
    /// More than 10^12, or below minus [`MAX_DEBT`].
    TooLarge,
}

impl fmt::Display for DecimalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotANumber => "is not a decimal number",
            Self::TooFine => "has more than 6 decimal places",
            Self::TooLarge => "is too large",
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
    parse_up_to(text, MAX_MICRO_TOKENS)
}

/// Reads `[-]digits[.digits]` into millionths, as [`parse`] does; the least value is minus
/// [`MAX_DEBT`].
///
/// # Errors
/// See [`DecimalError`].
///
/// ```
/// assert_eq!(claw_core::decimal::parse_signed(b"-0.5"), Ok(-500_000));
/// ```
#[inline]
pub fn parse_signed(text: &[u8]) -> Result<i64, DecimalError> {
    // Both bounds fit in 63 bits.
    match text.split_first() {
        Some((b'-', owed)) => parse_up_to(owed, MAX_DEBT.unsigned_abs())
            .map(|micros| micros.cast_signed().saturating_neg()),
        _ => parse(text).map(u64::cast_signed),
    }
}

fn parse_up_to(text: &[u8], most: u64) -> Result<u64, DecimalError> {
    let micros = match parse_short(text) {
        Some(micros) => micros,
        None => parse_any(text)?,
    };
    if micros > most { Err(DecimalError::TooLarge) } else { Ok(micros) }
}

/// What can be read in one pass, as nearly all amounts can: at most eighteen
/// characters, so that nothing overflows on the way, and nothing wrong with them.
fn parse_short(text: &[u8]) -> Option<u64> {
    if text.len() > 18 {
        return None;
    }
    let mut value = 0_u64;
    let mut places = None;
    for (before, &byte) in text.iter().enumerate() {
        match digit(byte) {
            Ok(digit) => value = value.wrapping_mul(10).wrapping_add(digit),
            Err(_) if byte == b'.' && before > 0 && places.is_none() => {
                places = Some(text.len().saturating_sub(before).saturating_sub(1));
            }
            Err(_) => return None,
        }
    }
    let places =
        places.map_or_else(|| (!text.is_empty()).then_some(0), |p| (p > 0).then_some(p))?;
    value.checked_mul(*SCALES.get(places)?)
}

/// What one unit is in millionths, by the number of places.
const SCALES: [u64; 7] = [1_000_000, 100_000, 10_000, 1_000, 100, 10, 1];

fn parse_any(text: &[u8]) -> Result<u64, DecimalError> {
    let mut parts = text.splitn(2, |&b| b == b'.');
    let (whole, places) = (parts.next().ok_or(DecimalError::NotANumber)?, parts.next());
    let mut micros = digits(whole)?.checked_mul(MICRO).ok_or(DecimalError::TooLarge)?;
    if let Some(places) = places {
        // Checked first, so that "1.x234567" is no number rather than too fine.
        let fraction = digits(places.get(..6).unwrap_or(places))?;
        if let Some(finer) = places.get(6..).filter(|finer| !finer.is_empty()) {
            digits(finer)?;
            return Err(DecimalError::TooFine);
        }
        let scale = SCALES.get(places.len()).ok_or(DecimalError::TooFine)?;
        micros = micros.saturating_add(fraction.saturating_mul(*scale));
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
    // A timestamp in microseconds, as every take reads one.
    if let (&[high, low], []) = text.as_chunks() {
        return Ok(eight_digits(high)?.wrapping_mul(100_000_000).wrapping_add(eight_digits(low)?));
    }
    let mut value = 0_u64;
    // Nineteen digits always fit in 64 bits.
    let (safe, rest) = text.split_at_checked(19).unwrap_or((text, &[]));
    for &byte in safe {
        value = value.wrapping_mul(10).wrapping_add(digit(byte)?);
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

/// Eight digits at once, in the bytes of one word: neighbours make pairs, pairs make
/// fours, and fours the number.
fn eight_digits(text: [u8; 8]) -> Result<u64, DecimalError> {
    let digits = u64::from_le_bytes(text) ^ 0x3030_3030_3030_3030;
    // 0x76 lifts whatever is above 9 to the highest bit.
    let lifted = digits.wrapping_add(0x7676_7676_7676_7676);
    if (lifted | digits) & 0x8080_8080_8080_8080 != 0 {
        return Err(DecimalError::NotANumber);
    }
    let join = |low: u64, by: u64, shift: u32| low.wrapping_mul(by).wrapping_add(low >> shift);
    let pairs = join(digits, 10, 8) & 0x00ff_00ff_00ff_00ff;
    let fours = join(pairs, 100, 16) & 0x0000_ffff_0000_ffff;
    Ok(join(fours, 10_000, 32) & 0xffff_ffff)
}

/// A number as decimal text, made in place: two are made for every take.
#[derive(Debug, Clone, Copy)]
pub struct Decimal {
    /// A sign, digits up to the point, the point, and six places.
    text: [u8; LONGEST],
    start: usize,
    end: usize,
}

/// Most digits of 64 bits.
const DIGITS: usize = 20;
const LONGEST: usize = DIGITS + 7;

impl Decimal {
    /// No text yet.
    pub const EMPTY: Self = Self { text: [0; LONGEST], start: DIGITS, end: DIGITS };

    /// The shortest text of `micros` millionths: `12500000` is `12.5`.
    #[must_use]
    pub fn new(micros: u64) -> Self {
        let mut decimal = Self::EMPTY;
        decimal.set(micros);
        decimal
    }

    /// Becomes that of [`Self::new`], in its place: what is copied right after it was
    /// written byte by byte makes the processor wait.
    pub fn set(&mut self, micros: u64) {
        self.set_integer(micros / MICRO);
        let fraction = micros % MICRO;
        if fraction == 0 {
            return;
        }
        if let Some((point, places)) = self.text.get_mut(DIGITS..).and_then(<[u8]>::split_first_mut)
        {
            *point = b'.';
            places.fill(b'0');
            write_back(places, fraction);
        }
        let (mut rest, mut end) = (fraction, LONGEST);
        while rest % 10 == 0 && end > DIGITS {
            rest /= 10;
            end = end.saturating_sub(1);
        }
        self.end = end;
    }

    /// The shortest text of `micros` millionths, with a sign if they are negative.
    #[must_use]
    pub fn signed(micros: i64) -> Self {
        let mut decimal = Self::EMPTY;
        decimal.set_signed(micros);
        decimal
    }

    /// Becomes that of [`Self::signed`], in its place.
    pub fn set_signed(&mut self, micros: i64) {
        self.set(micros.unsigned_abs());
        if micros < 0 {
            // Millionths have six digits fewer before the point.
            self.start = self.start.saturating_sub(1);
            if let Some(sign) = self.text.get_mut(self.start) {
                *sign = b'-';
            }
        }
    }

    /// Becomes the text of an integer, in its place.
    pub fn set_integer(&mut self, value: u64) {
        const { assert!(DIGITS <= LONGEST, "there is room for them") };
        let digits = write_back(self.text.get_mut(..DIGITS).unwrap_or_default(), value);
        (self.start, self.end) = (DIGITS.saturating_sub(digits), DIGITS);
    }

    /// The text: perhaps a sign, digits, and at most one point.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.text.get(self.start..self.end).unwrap_or_default()
    }
}

/// Writes a number that ends where `place` ends, and returns how many digits it has.
/// `place` has an even length.
fn write_back(place: &mut [u8], mut value: u64) -> usize {
    let mut digits = 0_usize;
    for pair in place.rchunks_exact_mut(2) {
        let two = usize::try_from(value % 100).ok().and_then(|two| PAIRS.get(two));
        pair.copy_from_slice(two.unwrap_or(b"00"));
        digits = digits.saturating_add(2);
        if value < 100 {
            return if value < 10 { digits.saturating_sub(1) } else { digits };
        }
        value /= 100;
    }
    digits
}

/// The two digits of each number below 100.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let (mut rest, mut ten, mut one) = (pairs.as_mut_slice(), b'0', b'0');
    while let [pair, after @ ..] = rest {
        *pair = [ten, one];
        (ten, one) =
            if one == b'9' { (ten.wrapping_add(1), b'0') } else { (ten, one.wrapping_add(1)) };
        rest = after;
    }
    pairs
};

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(self.as_bytes()).unwrap_or_default())
    }
}
