//! Where a request stands in its trace: `traceparent` of W3C's Trace Context.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::HeaderMap;

/// The place of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: [u8; 16],
    /// The span of the caller, if there is one.
    pub parent: Option<[u8; 8]>,
    /// The span itself.
    pub span: [u8; 8],
}

impl Context {
    /// The place of a request; nothing when it is not traced. `share`, in millionths, is of
    /// those whose caller says nothing.
    #[must_use]
    pub fn of(headers: &HeaderMap, share: u64) -> Option<Self> {
        let given = headers.get("traceparent").and_then(|value| parse(value.as_bytes()));
        match given {
            Some((trace, parent, true)) => Some(Self { trace, parent: Some(parent), span: id() }),
            Some((_, _, false)) => None,
            None => {
                let chance = u64::from_be_bytes(id()).checked_rem(1_000_000)?;
                let [high, low] = [id(), id()].map(|half| u128::from(u64::from_be_bytes(half)));
                let trace = ((high << 64) | low).to_be_bytes();
                (chance < share).then(|| Self { trace, parent: None, span: id() })
            }
        }
    }
}

/// A number that, as far as chance goes, nobody else has made, and never 0.
fn id() -> [u8; 8] {
    static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    STATE.hash_one(COUNT.fetch_add(1, Ordering::Relaxed)).max(1).to_be_bytes()
}

/// `00-TRACE-PARENT-FLAGS`: the ids, and whether it is traced. Later versions may have more
/// behind it.
fn parse(text: &[u8]) -> Option<([u8; 16], [u8; 8], bool)> {
    let mut parts = text.split(|byte| *byte == b'-');
    let mut part = || parts.next();
    let [version] = hex::<1>(part()?)?;
    let (trace, parent, [flags]) = (hex(part()?)?, hex(part()?)?, hex::<1>(part()?)?);
    let is_more = part().is_some();
    let fits =
        version != 0xff && !(version == 0 && is_more) && trace != [0; 16] && parent != [0; 8];
    fits.then_some((trace, parent, flags & 1 == 1))
}

/// Small letters only, as the standard wants.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |letter: u8| match letter {
        b'0'..=b'9' => letter.checked_sub(b'0'),
        b'a'..=b'f' => letter.checked_sub(b'a')?.checked_add(10),
        _ => None,
    };
    let mut bytes = [0; N];
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = (digit(*high)? << 4) | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const PARENT: &str = "b7ad6b7169203331";

    fn of(traceparent: &str, share: u64) -> Option<Context> {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", traceparent.parse().unwrap());
        Context::of(&headers, share)
    }

    #[test]
    fn who_called_decides() {
        let found = of(&format!("00-{TRACE}-{PARENT}-01"), 0).unwrap();
        assert_eq!(found.trace[..2], [0x0a, 0xf7]);
        assert_eq!(found.parent.unwrap()[..2], [0xb7, 0xad]);
        assert_ne!(found.span, found.parent.unwrap());
        assert_eq!(of(&format!("00-{TRACE}-{PARENT}-00"), 1_000_000), None);
        let later = of(&format!("cc-{TRACE}-{PARENT}-03-what"), 0);
        assert!(later.is_some(), "of a later version");
    }

    #[test]
    fn what_is_no_traceparent_is_as_if_it_were_not_there() {
        let zero = "0".repeat(32);
        for text in [
            String::new(),
            "00".to_owned(),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}-01-more"),
            format!("00-{zero}-{PARENT}-01"),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}0-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}-1"),
        ] {
            assert_eq!(of(&text, 0), None, "{text}");
            let own = of(&text, 1_000_000).unwrap();
            assert_eq!(own.parent, None, "{text}");
            assert_ne!(own.trace, [0; 16]);
        }
    }

    #[test]
    fn chance_decides_about_the_others() {
        let traced =
            (0..10_000).filter(|_| Context::of(&HeaderMap::new(), 100_000).is_some()).count();
        assert!((700..1300).contains(&traced), "{traced} of 10000, one of ten was to be");
    }
}
