//! Patterns of keys, as the server's own KEYS and ACL rules have them.

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
mod tests {
    use super::matches;

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
    fn many_stars_take_no_longer_than_the_product_of_the_lengths() {
        let pattern = b"*a".repeat(120);
        assert!(!matches(&pattern, &b"b".repeat(10_000)));
    }
}
