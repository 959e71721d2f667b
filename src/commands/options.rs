//! Arguments that several commands share.
//!
//! An error is made only where there is one: one that is made for `ok_or` and not needed costs more
//! to drop than a number costs to read.

use crate::error::{Error, Quantity};
use crate::host::{Args, Argument, ArgumentKind, Str};
use claw_core::decimal;
use claw_core::limits::{DEFAULT_INTERVAL_MS, MAX_INTERVAL_MS, MAX_TOKENS};
use claw_core::policy::Asked;

/// The documentation of `key`.
pub(super) const KEY: Argument = Argument::new(c"key", ArgumentKind::Key);

/// The documentation of `[tokens]`.
pub(super) const TOKENS: Argument = Argument::new(c"tokens", ArgumentKind::Integer).optional();

/// The documentation of `[CAPACITY n]`.
pub(super) const CAPACITY: Argument =
    Argument::new(c"capacity", ArgumentKind::Integer).token(c"CAPACITY").optional();

/// The documentation of `[REFILL n [INTERVAL ms]]`.
pub(super) const REFILL: Argument = Argument::new(
    c"rate",
    ArgumentKind::Block(&[
        Argument::new(c"refill", ArgumentKind::Double).token(c"REFILL"),
        Argument::new(c"interval", ArgumentKind::Integer).token(c"INTERVAL").optional(),
    ]),
)
.optional();

/// The documentation of `[KEEP n]`.
pub(super) const KEEP: Argument =
    Argument::new(c"keep", ArgumentKind::Integer).token(c"KEEP").optional();

/// The words that begin an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Capacity,
    Refill,
    Interval,
    Partial,
    Keep,
    Weight,
    For,
    Reset,
}

impl Word {
    /// None is longer than eight letters.
    const ALL: [Self; 8] = [
        Self::Capacity,
        Self::Refill,
        Self::Interval,
        Self::Partial,
        Self::Keep,
        Self::Weight,
        Self::For,
        Self::Reset,
    ];

    /// As it is written in documentation and errors.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Capacity => "CAPACITY",
            Self::Refill => "REFILL",
            Self::Interval => "INTERVAL",
            Self::Partial => "PARTIAL",
            Self::Keep => "KEEP",
            Self::Weight => "WEIGHT",
            Self::For => "FOR",
            Self::Reset => "RESET",
        }
    }

    /// Reads a word in any case.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        // Without the bit that tells upper from lower case a letter comes of letters only.
        let fold = |letters: u64, byte: &u8| letters << 8 | u64::from(byte & !b' ');
        let letters = text.get(..8.min(text.len()))?.iter().fold(0, fold);
        Self::ALL.into_iter().find(|word| {
            let name = word.as_str().as_bytes();
            name.len() == text.len() && name.iter().fold(0, fold) == letters
        })
    }
}

/// The options of one call.
#[derive(Debug, Default)]
pub(super) struct Options {
    /// Capacity, refill and interval.
    pub(super) asked: Asked,
    /// PARTIAL.
    pub(super) partial: bool,
    /// KEEP, in whole tokens.
    pub(super) keep: Option<u64>,
    /// WEIGHT.
    pub(super) weight: Option<u64>,
    /// FOR, in milliseconds.
    pub(super) duration: Option<u64>,
}

/// Reads all arguments that are left as options; `allowed` are the command's own.
pub(super) fn options(args: &mut Args<'_>, allowed: &[Word]) -> Result<Options, Error> {
    let mut options = Options::default();
    let (mut refill, mut interval) = (None, None);
    while let Some(argument) = args.next() {
        let word = Word::parse(argument.as_bytes()).filter(|word| allowed.contains(word));
        let Some(word) = word else {
            return Err(Error::UnknownOption(argument.as_bytes().into()));
        };
        let repeated = match word {
            Word::Capacity => {
                options.asked.capacity.replace(capacity(value(args, word)?)?).is_some()
            }
            Word::Refill => refill.replace(self::refill(value(args, word)?)?).is_some(),
            Word::Interval => interval.replace(self::interval(value(args, word)?)?).is_some(),
            Word::Weight => options.weight.replace(weight(value(args, word)?)?).is_some(),
            Word::For => options.duration.replace(duration(value(args, word)?)?).is_some(),
            Word::Keep => options.keep.replace(keep(value(args, word)?)?).is_some(),
            Word::Partial => std::mem::replace(&mut options.partial, true),
            Word::Reset => {
                return Err(Error::UnknownOption(argument.as_bytes().into()));
            }
        };
        if repeated {
            return Err(Error::Repeated(word.as_str()));
        }
    }
    options.asked.refill = rate(refill, interval)?;
    Ok(options)
}

/// Joins REFILL and INTERVAL, which has a default.
pub(super) fn rate(
    refill: Option<u64>,
    interval: Option<u64>,
) -> Result<Option<(u64, u64)>, Error> {
    match (refill, interval) {
        (None, Some(_)) => Err(Error::LoneInterval),
        (refill, interval) => Ok(refill.map(|r| (r, interval.unwrap_or(DEFAULT_INTERVAL_MS)))),
    }
}

fn value<'a>(args: &mut Args<'a>, word: Word) -> Result<Str<'a>, Error> {
    match args.next() {
        Some(value) => Ok(value),
        None => Err(Error::NoValue(word.as_str())),
    }
}

/// `[tokens]`: 1 when it is left out. An option in its place is left there.
pub(super) fn optional_tokens(args: &mut Args<'_>) -> Result<u64, Error> {
    match args.peek() {
        None => Ok(1),
        Some(next) if Word::parse(next.as_bytes()).is_some() => Ok(1),
        Some(next) => {
            args.next();
            tokens(next)
        }
    }
}

/// Whole tokens: 0..=10^12.
pub(super) fn tokens(text: Str<'_>) -> Result<u64, Error> {
    integer(text, 0, MAX_TOKENS, Quantity::Tokens)
}

/// Whole tokens: 0..=10^12.
fn keep(text: Str<'_>) -> Result<u64, Error> {
    integer(text, 0, MAX_TOKENS, Quantity::Keep)
}

/// Whole tokens: 0..=10^12.
pub(super) fn capacity(text: Str<'_>) -> Result<u64, Error> {
    integer(text, 0, MAX_TOKENS, Quantity::Capacity)
}

/// Millionths of a token: 0, or 0.000001..=10^12 tokens.
pub(super) fn refill(text: Str<'_>) -> Result<u64, Error> {
    match decimal::parse_refill(text.as_bytes()) {
        Some(refill) => Ok(refill),
        None => Err(Error::OutOfRange(Quantity::Refill)),
    }
}

/// Milliseconds: 1 ms to 366 days.
pub(super) fn interval(text: Str<'_>) -> Result<u64, Error> {
    integer(text, 1, MAX_INTERVAL_MS, Quantity::Interval)
}

/// Milliseconds: 1 ms to 366 days.
fn duration(text: Str<'_>) -> Result<u64, Error> {
    integer(text, 1, MAX_INTERVAL_MS, Quantity::Duration)
}

fn weight(text: Str<'_>) -> Result<u64, Error> {
    integer(text, 1, 10, Quantity::Weight)
}

/// A whole number without a sign.
pub(super) fn integer(text: Str<'_>, min: u64, max: u64, what: Quantity) -> Result<u64, Error> {
    match decimal::whole(text.as_bytes()) {
        Ok(value) if (min..=max).contains(&value) => Ok(value),
        _ => Err(Error::OutOfRange(what)),
    }
}
