//! Numbers as text. Amounts are held in millionths.
//!
//! A number is `digits[.digits][e[+|-]digits]`, as languages print it. What this module writes
//! itself, and nearly all else, is read in one pass; every other form by [`units`], in integers
//! of any length. Both read a text alike, where both read it.

use crate::limits::{MAX_DEBT, MAX_MICRO_TOKENS, MICRO};
use std::fmt;

/// Why a text is not an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecimalError {
    /// Something else than a number, or a fraction where a whole number is wanted.
    NotANumber,
    /// More than 10^12, or below minus [`MAX_DEBT`], or than 64 bits hold where a whole number is
    /// wanted.
    TooLarge,
}

impl fmt::Display for DecimalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotANumber => "is not a decimal number",
            Self::TooLarge => "is too large",
        })
    }
}

/// Reads an amount, rounded to the nearest millionth; what is halfway between two becomes the
/// greater one.
///
/// # Errors
/// See [`DecimalError`]; the largest value is 10^12.
///
/// ```
/// use claw_core::decimal::parse;
/// assert_eq!(parse(b"12.5"), Ok(12_500_000));
/// assert_eq!(parse(b"0.10000000000000001"), Ok(100_000));
/// assert_eq!(parse(b"1e-06"), Ok(1));
/// ```
pub fn parse(text: &[u8]) -> Result<u64, DecimalError> {
    amount(text, MAX_MICRO_TOKENS)
}

/// Reads an amount that may have a sign `-`, as [`parse`] does: what is halfway between two
/// becomes the one that is further from 0. The least value is minus [`MAX_DEBT`].
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
        Some((b'-', owed)) => amount(owed, MAX_DEBT.unsigned_abs())
            .map(|micros| micros.cast_signed().saturating_neg()),
        _ => parse(text).map(u64::cast_signed),
    }
}

fn amount(text: &[u8], most: u64) -> Result<u64, DecimalError> {
    match parse_short(text) {
        Some(micros) if micros <= most => Ok(micros),
        Some(_) => Err(DecimalError::TooLarge),
        None => units(text, 6)?.amount(most),
    }
}

/// Reads a refill as [`parse`] does. 0 means never, so what is more than 0 and would be rounded
/// to it is `None`, as is any text that is no amount.
#[must_use]
pub fn parse_refill(text: &[u8]) -> Option<u64> {
    let micros = match parse_short(text) {
        Some(micros) => micros,
        None => {
            let read = units(text, 6).ok()?;
            read.amount(MAX_MICRO_TOKENS).ok().filter(|micros| *micros > 0 || read.exact)?
        }
    };
    (micros <= MAX_MICRO_TOKENS).then_some(micros)
}

/// Reads an amount that is a whole number of millionths, in any form, and rounds nothing.
///
/// # Errors
/// When there is more of it than six decimals can tell; else as [`parse`].
///
/// ```
/// use claw_core::decimal::parse_exact;
/// assert_eq!(parse_exact(b"4.5000000"), Ok(4_500_000));
/// assert!(parse_exact(b"4.5000001").is_err());
/// ```
pub fn parse_exact(text: &[u8]) -> Result<u64, DecimalError> {
    let read = units(text, 6)?;
    if read.exact { read.amount(MAX_MICRO_TOKENS) } else { Err(DecimalError::NotANumber) }
}

/// Reads a whole number, in any form: `5.0` is 5, `1e3` is 1000.
///
/// # Errors
/// When it is none, or does not fit in 64 bits.
pub fn whole(text: &[u8]) -> Result<u64, DecimalError> {
    if let Ok(value) = digits(text) {
        return Ok(value);
    }
    units(text, 0)?.whole()
}

/// What can be read in one pass, as every amount that [`Decimal`] writes can: at most nineteen
/// characters, so that nothing overflows on the way, at most six places, and nothing wrong.
fn parse_short(text: &[u8]) -> Option<u64> {
    if text.len() > 19 {
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

/// A number counted in some unit.
pub(crate) struct Units {
    /// How many whole ones it is; `None` for more than fit in 64 bits.
    pub(crate) below: Option<u64>,
    /// Whether what is left is half of one, or more.
    pub(crate) round_up: bool,
    /// Whether nothing is left.
    pub(crate) exact: bool,
}

impl Units {
    /// Of millionths: the nearest, up to `most`.
    pub(crate) fn amount(&self, most: u64) -> Result<u64, DecimalError> {
        let nearest = self.below.and_then(|below| below.checked_add(u64::from(self.round_up)));
        nearest.filter(|micros| *micros <= most).ok_or(DecimalError::TooLarge)
    }

    /// Of ones: the number itself, if it is whole.
    pub(crate) fn whole(&self) -> Result<u64, DecimalError> {
        if !self.exact {
            return Err(DecimalError::NotANumber);
        }
        self.below.ok_or(DecimalError::TooLarge)
    }
}

/// Reads a number of any length in units of 10^-`places`. The work grows with the text, and never
/// with the exponent.
#[cold]
fn units(text: &[u8], places: i64) -> Result<Units, DecimalError> {
    let mut parts = text.splitn(2, |b| matches!(b, b'e' | b'E'));
    let (number, exponent) = (parts.next().unwrap_or_default(), parts.next());
    let exponent = exponent.map_or(Ok(0), exponent_of)?;
    let mut parts = number.splitn(2, |&b| b == b'.');
    let (whole, fraction) = (parts.next().unwrap_or_default(), parts.next());
    if whole.is_empty() || fraction.is_some_and(<[u8]>::is_empty) {
        return Err(DecimalError::NotANumber);
    }
    let fraction = fraction.unwrap_or_default();

    // The point moves to behind the digits that count units.
    let before = i64::try_from(whole.len()).unwrap_or(i64::MAX);
    let point = before.saturating_add(exponent).saturating_add(places);
    let counting = usize::try_from(point.max(0)).unwrap_or(usize::MAX);
    let mut read = Units { below: Some(0), round_up: false, exact: true };
    for (index, &byte) in whole.iter().chain(fraction).enumerate() {
        let digit = digit(byte)?;
        if index < counting {
            read.below = read.below.and_then(|n| n.checked_mul(10)?.checked_add(digit));
        } else {
            read.exact &= digit == 0;
            // Before the first digit there are only noughts.
            read.round_up |= point >= 0 && index == counting && digit >= 5;
        }
    }
    // Noughts that the exponent stands for.
    let written = whole.len().saturating_add(fraction.len());
    let unwritten = counting.saturating_sub(written);
    if unwritten > 0 && read.below != Some(0) {
        let scale = u32::try_from(unwritten).ok().and_then(|n| 10_u64.checked_pow(n));
        read.below = read.below.zip(scale).and_then(|(n, scale)| n.checked_mul(scale));
    }
    Ok(read)
}

/// Reads `[+|-]digits`, and no further than 64 bits go: no text is so long that it would matter.
fn exponent_of(text: &[u8]) -> Result<i64, DecimalError> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    if digits.is_empty() {
        return Err(DecimalError::NotANumber);
    }
    let mut value = 0_u64;
    for &byte in digits {
        value = value.saturating_mul(10).saturating_add(digit(byte)?);
    }
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    Ok(if negative { value.saturating_neg() } else { value })
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
