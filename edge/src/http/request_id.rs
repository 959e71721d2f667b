//! The name of a request, by which its problem and its line in the log are found.

use std::collections::hash_map::RandomState;
use std::fmt::Write;
use std::hash::{BuildHasher, Hasher};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries it, both ways.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The one that the client, or a proxy, has given, if it is sane; else one that is made. It has
/// no other letters than may be in a URI and a log.
#[must_use]
pub fn of(headers: &HeaderMap) -> HeaderValue {
    match headers.get(HEADER) {
        Some(given) if is_sane(given.as_bytes()) => given.clone(),
        _ => make(),
    }
}

fn is_sane(id: &[u8]) -> bool {
    (1..=128).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:".contains(byte))
}

/// Unique among all that this program has made since it started, and, as far as chance goes,
/// among those of others.
fn make() -> HeaderValue {
    static PROCESS: LazyLock<String> =
        LazyLock::new(|| format!("{:016x}-", RandomState::new().build_hasher().finish()));
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut id = String::with_capacity(32);
    id.push_str(&PROCESS);
    // Writing to a string does not fail.
    let _ = write!(id, "{count:x}");
    HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("unnamed"))
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn given_ids_are_taken_if_they_are_sane() {
        #[rustfmt::skip]
        let table: [(&[u8], bool); 8] = [
            (b"abc-123", true), (b"4bf92f35:77~b._", true), (&[b'a'; 128], true),
            (b"", false), (b"a b", false), (b"a\"b", false), (b"\xff", false), (&[b'a'; 129], false),
        ];
        for (given, taken) in table {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, HeaderValue::from_bytes(given).unwrap());
            assert_eq!(of(&headers).as_bytes() == given, taken, "{given:?}");
        }
        assert_ne!(of(&HeaderMap::new()), of(&HeaderMap::new()));
    }
}
