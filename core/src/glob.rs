//! Patterns of keys, as the server's own KEYS and ACL rules have them, and lists of them.

use std::fmt;

/// Most patterns of one list.
pub const MAX_GLOBS: usize = 32;

/// Longest pattern of a list, in bytes.
pub const MAX_GLOB: usize = 256;

/// Patterns with blanks between them, of which those behind a `!` exclude.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Globs {
    /// As they were given, with one blank between two of them.
    text: Box<str>,
    /// One of them has to match; none where that makes no difference.
    wanted: Box<[Box<[u8]>]>,
    /// None of them may.
    excluded: Box<[Box<[u8]>]>,
}

impl Default for Globs {
    /// `*`, which matches every key.
    fn default() -> Self {
        Self { text: ALL.into(), wanted: Box::default(), excluded: Box::default() }
    }
}

/// What every key matches.
const ALL: &str = "*";

impl Globs {
    /// Reads a list. Where all patterns exclude, all other keys match.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, GlobsError> {
        let (mut wanted, mut excluded) = (Vec::<Box<[u8]>>::new(), Vec::new());
        let mut words = Vec::new();
        for (number, word) in (1..).zip(text.split_ascii_whitespace()) {
            if number > MAX_GLOBS {
                return Err(GlobsError::TooMany);
            }
            let (glob, list) = match word.strip_prefix('!') {
                Some(glob) => (glob, &mut excluded),
                None => (word, &mut wanted),
            };
            match glob.len() {
                0 => return Err(GlobsError::Lone(number)),
                1..=MAX_GLOB => list.push(glob.as_bytes().into()),
                _ => return Err(GlobsError::TooLong(number)),
            }
            words.push(word);
        }
        if words.is_empty() {
            return Err(GlobsError::Empty);
        }
        if wanted.iter().any(|glob| **glob == *ALL.as_bytes()) {
            wanted.clear();
        }
        let (wanted, excluded) = (wanted.into(), excluded.into());
        Ok(Self { text: words.join(" ").into(), wanted, excluded })
    }

    /// Whether a key matches a pattern that does not exclude, if there is one, and none that does.
    #[must_use]
    pub fn matches(&self, key: &[u8]) -> bool {
        let any = |globs: &[Box<[u8]>]| globs.iter().any(|glob| matches(glob, key));
        !any(&self.excluded) && (self.wanted.is_empty() || any(&self.wanted))
    }

    /// The text that [`Self::parse`] reads.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// A list that cannot be taken; with the number of the pattern, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GlobsError {
    /// There is no pattern.
    Empty,
    /// There are too many.
    TooMany,
    /// One is too long.
    TooLong(usize),
    /// There is nothing behind its `!`.
    Lone(usize),
}

impl fmt::Display for GlobsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("there is no pattern; all keys are '*', and none are '!*'"),
            Self::TooMany => write!(f, "there are more than {MAX_GLOBS} patterns"),
            Self::TooLong(number) => write!(f, "pattern {number} is longer than {MAX_GLOB} bytes"),
            Self::Lone(number) => write!(f, "pattern {number} has nothing behind its '!'"),
        }
    }
}

/// Whether `text` matches `pattern`: `*` any bytes, `?` one byte, `[a-z]` or
/// `[^a-z]` one of some, `\` the next byte as it is.
///
/// Takes time in proportion to the product of the two lengths at the worst.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // Where to go on when what follows the last star does not match: the star
    // then takes one byte more.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        let step = match (pattern.split_first(), text.split_first()) {
            (None, None) => return true,
            (Some((b'*', rest)), _) => {
                retry = Some((rest, text));
                pattern = rest;
                continue;
            }
            (Some(_), Some((&byte, after))) => one(pattern, byte).map(|rest| (rest, after)),
            (None, Some(_)) | (Some(_), None) => None,
        };
        (pattern, text) = match (step, retry) {
            (Some(step), _) => step,
            (None, Some((rest, from))) => {
                let Some((_, after)) = from.split_first() else {
                    return false;
                };
                retry = Some((rest, after));
                (rest, after)
            }
            (None, None) => return false,
        };
    }
}

/// What is left of the pattern behind the part that `byte` matches.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (first, rest) = pattern.split_first()?;
    match first {
        b'?' => Some(rest),
        b'[' => class(rest, byte),
        b'\\' => match rest.split_first() {
            Some((literal, rest)) => (*literal == byte).then_some(rest),
            None => (byte == b'\\').then_some(rest),
        },
        literal => (*literal == byte).then_some(rest),
    }
}

/// `[..]`; without its end it reaches to the end of the pattern.
fn class(inside: &[u8], byte: u8) -> Option<&[u8]> {
    let (negated, mut rest) = match inside.strip_prefix(b"^") {
        Some(rest) => (true, rest),
        None => (false, inside),
    };
    let mut found = false;
    loop {
        rest = match rest {
            [] => break,
            [b']', after @ ..] => {
                rest = after;
                break;
            }
            [b'\\', literal, after @ ..] => {
                found |= *literal == byte;
                after
            }
            [from, b'-', to, after @ ..] => {
                let (from, to) = (from.min(to), from.max(to));
                found |= (from..=to).contains(&&byte);
                after
            }
            [literal, after @ ..] => {
                found |= *literal == byte;
                after
            }
        };
    }
    (found != negated).then_some(rest)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::{Globs, GlobsError, MAX_GLOB, MAX_GLOBS, matches};

    #[test]
    fn table() {
        #[rustfmt::skip]
        let table = [
            ("*", "", true), ("*", "anything", true), ("", "", true), ("", "a", false),
            ("user:*", "user:1", true), ("user:*", "user", false), ("user:?", "user:12", false),
            ("*:limit", "a:b:limit", true), ("a*b*c", "aXbYbZc", true), ("a*b*c", "aXbYbZ", false),
            ("h[ae]llo", "hallo", true), ("h[^e]llo", "hello", false), ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true), ("\\*", "*", true), ("\\*", "a", false), ("[\\]]", "]", true),
            ("[abc", "c", true), ("a\\", "a\\", true), ("**", "x", true),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn lists() {
        #[rustfmt::skip]
        let table: [(&str, &[&str], &[&str]); 8] = [
            ("*", &["", "a", "!a"], &[]),
            ("a* b*", &["a", "b1"], &["", "c", "ca"]),
            ("limit:* !limit:tmp:*", &["limit:1", "limit:tmp"], &["limit:tmp:1", "x"]),
            // In whatever order.
            ("!limit:tmp:* limit:*", &["limit:1", "limit:tmp"], &["limit:tmp:1", "x"]),
            // Where nothing is wanted, all is.
            ("!a* !b*", &["", "c"], &["a", "b1"]),
            ("!*", &[], &["", "a"]),
            // Of keys that begin with the sign.
            ("\\!a* [!]b", &["!a1", "!b"], &["a1", "b"]),
            ("* !!a", &["a", "!"], &["!a"]),
        ];
        for (text, inside, outside) in table {
            let globs = Globs::parse(text).unwrap();
            assert_eq!(globs.as_str(), text);
            assert!(inside.iter().all(|key| globs.matches(key.as_bytes())), "{text}");
            assert!(!outside.iter().any(|key| globs.matches(key.as_bytes())), "{text}");
        }
        assert_eq!(Globs::parse(" \t*\n"), Ok(Globs::default()));
        assert_eq!(Globs::parse("a  !b ").unwrap().as_str(), "a !b");
        let (long, many) = ("x".repeat(MAX_GLOB), "a ".repeat(MAX_GLOBS));
        for good in [&long, &format!("!{long}"), &many] {
            assert!(Globs::parse(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("", GlobsError::Empty),
            (" \t ", GlobsError::Empty),
            ("!", GlobsError::Lone(1)),
            ("a ! b", GlobsError::Lone(2)),
            (&format!("a !{long}x"), GlobsError::TooLong(2)),
            (&format!("{many}!a"), GlobsError::TooMany),
        ] {
            assert_eq!(Globs::parse(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn many_stars_take_no_longer_than_the_product_of_the_lengths() {
        let pattern = b"*a".repeat(120);
        assert!(!matches(&pattern, &b"b".repeat(10_000)));
    }
}
