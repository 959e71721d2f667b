//! What a bucket holds, and by which policy.

use std::sync::Arc;

use axum::http::HeaderMap;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use redis::Value;

use super::reply::{number_of, text_of};
use crate::http::App;
use crate::limits::{Charge, Facts, Limit, Route, part};
use crate::redis::Fault;

/// A bucket as it is shown.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its key, as people read it.
    pub key: String,
    /// Its key, as a form brings it back.
    pub address: String,
    /// The limit that it is one of, if it is known.
    pub limit: Option<String>,
    /// Whole tokens, rounded down; negative in debt.
    pub tokens: i64,
    /// Whole tokens that it holds at most.
    pub capacity: i64,
    /// Tokens in an interval.
    pub refill: String,
    /// Milliseconds.
    pub interval_ms: i64,
    /// What the refill is multiplied by.
    pub weight: i64,
    /// `pin`, `call`, `rule`, `bucket` or `default`.
    pub source: String,
    /// Milliseconds that the pin holds; -1 for good, 0 without one.
    pub pin_remaining_ms: i64,
    /// Milliseconds until it is full; -1: never.
    pub full_after_ms: i64,
    /// Whether the key exists: one that does not is a full bucket.
    pub exists: bool,
}

/// A length of time, for people.
#[must_use]
pub fn length(ms: i64) -> String {
    match ms {
        ..0 => "never".to_owned(),
        0..10_000 => format!("{ms} ms"),
        10_000..600_000 => format!("{} s", ms / 1_000),
        600_000..36_000_000 => format!("{} min", ms / 60_000),
        36_000_000..864_000_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} days", ms / 86_400_000),
    }
}

/// Letters that stand for themselves in the address of a key.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// A key, and the limit that its bucket is one of, if that is known.
pub type Named = (Arc<[u8]>, Option<Arc<Limit>>);

/// The longest key that is looked at, in bytes.
pub const LONGEST_KEY: usize = 1_024;

impl Shown {
    /// How long it takes to be full.
    #[must_use]
    pub fn full_after(&self) -> String {
        length(self.full_after_ms)
    }

    /// In how long the refill comes.
    #[must_use]
    pub fn interval(&self) -> String {
        length(self.interval_ms)
    }

    /// How long the pin holds.
    #[must_use]
    pub fn pin_remaining(&self) -> String {
        length(self.pin_remaining_ms)
    }

    /// How full it is, in hundredths; 0 in debt.
    #[must_use]
    pub fn percent(&self) -> i64 {
        let tokens = i128::from(self.tokens.max(0)).saturating_mul(100);
        let percent = tokens.checked_div(i128::from(self.capacity.max(1))).unwrap_or(0);
        i64::try_from(percent).unwrap_or(100).min(100)
    }
}

/// A key as people read it: what is no text, or cannot be seen, is escaped.
#[must_use]
pub fn readable_key(key: &[u8]) -> String {
    std::str::from_utf8(key).map_or_else(|_| key.escape_ascii().to_string(), readable)
}

/// A text as people read it: if there is something in it that cannot be seen, or that turns what
/// comes after it around, that is escaped, and so are backslashes.
#[must_use]
pub fn readable(text: &str) -> String {
    if !text.contains(is_hidden) {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match u8::try_from(letter) {
            Ok(byte) if byte.is_ascii_control() || byte == b'\\' => {
                shown.extend(std::ascii::escape_default(byte).map(char::from));
            }
            _ if is_hidden(letter) => shown.extend(letter.escape_unicode()),
            _ => shown.push(letter),
        }
    }
    shown
}

/// Controls, marks that set the direction of what follows, and letters of no width that no word
/// needs.
fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// A key as a form or a link has it.
#[must_use]
pub fn address(key: &[u8]) -> String {
    percent_encoding::percent_encode(key, PLAIN).to_string()
}

/// A user's name in a link.
#[must_use]
pub fn address_of_text(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// The key of an [`address`].
#[must_use]
pub fn key(address: &str) -> Option<Vec<u8>> {
    let key: Vec<u8> = percent_decode_str(address).collect();
    (1..=LONGEST_KEY).contains(&key.len()).then_some(key)
}

/// The key of the bucket that the environment's limit has for each user.
#[must_use]
pub fn user_key(user: &str) -> String {
    format!("token_bucket:{}", part(user))
}

/// The buckets that requests of a user over HTTP are charged from, without those that other users
/// share, and the bucket of the rating API's own limit.
#[must_use]
pub fn of_user(app: &App, user: &str) -> Vec<Named> {
    let headers = HeaderMap::new();
    let limits = app.service.limits.load();
    let charges = |user: &str| -> Vec<Charge> {
        [(Route::Rating, "POST", "/rating"), (Route::Auth, "GET", "/")]
            .into_iter()
            .flat_map(|(route, method, path)| {
                let facts = Facts {
                    route,
                    method,
                    path,
                    host: "",
                    client: None,
                    headers: &headers,
                    body: None,
                    user: Some(user.as_bytes()),
                    weight: None,
                };
                limits.of_request(&facts)
            })
            .collect()
    };
    // What a user of another name has, too, is not his.
    let others = charges("\u{1}nobody");
    let mut found: Vec<Named> = vec![(user_key(user).into_bytes().into(), None)];
    for Charge { limit, key, .. } in charges(user) {
        if others.iter().any(|other| other.key == key) {
            continue;
        }
        match found.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = Some(limit),
            None => found.push((key, Some(limit))),
        }
    }
    found
}

/// Looks at a bucket; nothing is changed.
///
/// # Errors
/// When there is no answer, or the key holds something else.
pub async fn read(app: &App, key: &[u8], limit: Option<&Arc<Limit>>) -> Result<Shown, Fault> {
    let mut exists = redis::cmd("EXISTS");
    exists.arg(key);
    let mut policy = redis::cmd("CL.POLICY_RO");
    policy.arg(key);
    let mut peek = redis::cmd("CL.PEEK");
    peek.arg(key).arg(0);
    for argument in limit.iter().flat_map(|limit| &limit.arguments) {
        peek.arg(argument.as_slice());
    }
    let (exists, policy, [_, capacity, tokens, _, full_after_ms]) = futures_util::try_join!(
        app.redis.call::<i64>(&exists),
        app.redis.call::<Value>(&policy),
        app.redis.call::<[i64; 5]>(&peek),
    )?;
    let source = text_of(&policy, "source");
    // The policy that a call brings goes before all but a pin.
    let called = limit.filter(|_| source != "pin").and_then(|limit| limit.policy);
    let refill = called.map(|called| claw_core::decimal::Decimal::new(called.refill()));
    Ok(Shown {
        key: readable_key(key),
        address: address(key),
        limit: limit.map(|limit| limit.name.clone()),
        tokens,
        capacity,
        refill: refill.map_or_else(
            || text_of(&policy, "refill"),
            |refill| String::from_utf8_lossy(refill.as_bytes()).into_owned(),
        ),
        interval_ms: called.map_or_else(
            || number_of(&policy, "interval").unwrap_or_default(),
            |called| i64::try_from(called.interval_ms()).unwrap_or(i64::MAX),
        ),
        weight: number_of(&policy, "weight").unwrap_or(1),
        source: if called.is_some() { "call".to_owned() } else { source },
        pin_remaining_ms: number_of(&policy, "pin_remaining_ms").unwrap_or_default(),
        full_after_ms,
        exists: exists > 0,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_as_they_were() {
        for (bytes, shown, link) in [
            (b"token_bucket:ann".as_slice(), "token_bucket:ann", "token_bucket%3Aann"),
            (b"a b&c=<d>\"", "a b&c=<d>\"", "a%20b%26c%3D%3Cd%3E%22"),
            (b"\xff\n%", "\\xff\\n%", "%FF%0A%25"),
            ("a\\ü".as_bytes(), "a\\ü", "a%5C%C3%BC"),
            ("a\\\u{202e}ü".as_bytes(), "a\\\\\\u{202e}ü", "a%5C%E2%80%AE%C3%BC"),
            (
                "\u{2066}\u{200b}\u{85}".as_bytes(),
                "\\u{2066}\\u{200b}\\u{85}",
                "%E2%81%A6%E2%80%8B%C2%85",
            ),
        ] {
            assert_eq!((readable_key(bytes).as_str(), address(bytes).as_str()), (shown, link));
            assert_eq!(key(link).unwrap(), bytes);
        }
        assert_eq!(key(""), None);
        assert_eq!(key(&"a".repeat(LONGEST_KEY + 1)), None);
    }
}
