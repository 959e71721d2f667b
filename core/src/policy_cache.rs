//! Texts of stored policies that were read before.

use crate::policy::{PolicyTextError, StoredPolicy};

/// Remembers texts of `policy` fields: many buckets have few policies, and to compare a text costs
/// a tenth of reading it.
#[derive(Debug, Default)]
pub struct PolicyCache {
    /// A text is in the place that it [hashes](place) to, or nowhere.
    known: [Option<Known>; PLACES],
}

#[derive(Debug)]
struct Known {
    /// Its first `length` bytes count.
    text: [u8; LONGEST],
    length: usize,
    stored: StoredPolicy,
}

const PLACES: usize = 16;

/// What is longer is read each time. `1000 0.123456/31622400000 pinned 1` is not.
const LONGEST: usize = 40;

impl PolicyCache {
    /// [`StoredPolicy::parse`] of the same text.
    ///
    /// # Errors
    /// As that; what is wrong is not remembered.
    #[inline]
    pub fn parse(&mut self, text: &[u8]) -> Result<StoredPolicy, PolicyTextError> {
        let place = self.known.get_mut(place(text));
        if let Some(Some(known)) = &place
            && known.text.get(..known.length) == Some(text)
        {
            return Ok(known.stored);
        }
        let stored = StoredPolicy::parse(text)?;
        if let (Some(place), Some(known)) = (place, Known::new(text, stored)) {
            *place = Some(known);
        }
        Ok(stored)
    }
}

impl Known {
    fn new(text: &[u8], stored: StoredPolicy) -> Option<Self> {
        let mut known = Self { text: [0; LONGEST], length: text.len(), stored };
        known.text.get_mut(..text.len())?.copy_from_slice(text);
        Some(known)
    }
}

/// By its first and last eight bytes, which mostly are all.
fn place(text: &[u8]) -> usize {
    let word = |bytes: Option<&[u8; 8]>| bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let (first, last) = (word(text.first_chunk()), word(text.last_chunk()));
    // 2^64 over the golden ratio spreads them, and the highest bits are spread best.
    let hash = first.wrapping_add(last.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(hash >> 60).unwrap_or_default()
}
