//! A state as MessagePack: what `CL.STATE` returns and `CL.MERGE .. STATE` takes.
//!
//! The blob is a map of named fields, so that any language can read it and later
//! versions can add to it. Fields that this version does not know are kept, and
//! stand in the next blob again.

use crate::bucket::Weight;
use crate::limits::{MAX_LEAD_US, MAX_MICRO_TOKENS, MAX_TIMESTAMP_US, MIN_WEIGHT};
use crate::merge::State;
use crate::policy::{Policy, StoredPolicy};
use crate::record::Record;
use rmpv::Value;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The version of the blob that this version writes. A reader takes any version:
/// what changes its meaning gets another name.
const VERSION: u32 = 1;

/// Longest blob that is read, in bytes: bounds the memory of reading one.
pub const MAX_BLOB: usize = 4_096;

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 16;

/// Why a blob is not a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobError {
    /// Longer than [`MAX_BLOB`].
    TooLong,
    /// Not one MessagePack map with the fields of a state.
    Malformed,
    /// A field of the state is out of its bounds.
    OutOfBounds(&'static str),
}

impl fmt::Display for BlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "is longer than {MAX_BLOB} bytes"),
            Self::Malformed => f.write_str("is not a state as CL.STATE returns it"),
            Self::OutOfBounds(field) => write!(f, "holds a field '{field}' out of its bounds"),
        }
    }
}

/// Fields of a later version, by name.
pub type Newer = BTreeMap<String, Value>;

#[derive(Serialize, Deserialize)]
struct Wire {
    /// Version of the writer.
    v: u32,
    /// Millionths of a token.
    tokens: u64,
    /// Unix microseconds.
    timestamp: u64,
    /// See [`crate::bucket::Bucket::remainder`].
    #[serde(default)]
    remainder: u64,
    #[serde(default = "one")]
    weight: u8,
    /// Absent: the reader's default policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    policy: Option<WirePolicy>,
    #[serde(flatten)]
    newer: Newer,
}

#[derive(Serialize, Deserialize)]
struct WirePolicy {
    /// Whole tokens.
    capacity: u64,
    /// Millionths of a token per interval.
    refill: u64,
    /// Milliseconds.
    interval: u64,
    /// The version of the pin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pin: Option<u64>,
}

fn one() -> u8 {
    MIN_WEIGHT
}

/// Writes a state, with the `newer` fields that came with it.
///
/// # Errors
/// Never, in practice: a map of numbers can always be written.
pub fn encode(state: &State, newer: &Newer) -> Result<Vec<u8>, BlobError> {
    let policy = state.policy.map(|StoredPolicy { policy, pin }| WirePolicy {
        capacity: policy.capacity(),
        refill: policy.refill(),
        interval: policy.interval_ms(),
        pin,
    });
    let wire = Wire {
        v: VERSION,
        tokens: state.bucket.tokens(),
        timestamp: state.bucket.timestamp(),
        remainder: state.bucket.remainder(),
        weight: state.bucket.weight().get(),
        policy,
        newer: newer.clone(),
    };
    rmp_serde::to_vec_named(&wire).map_err(|_| BlobError::Malformed)
}

/// Reads a blob; `now` (unix microseconds) bounds the timestamp.
///
/// # Errors
/// See [`BlobError`]. Any bytes are safe to give.
pub fn decode(blob: &[u8], now: u64) -> Result<(Record, Newer), BlobError> {
    if blob.len() > MAX_BLOB {
        return Err(BlobError::TooLong);
    }
    let wire: Wire = read(blob).ok_or(BlobError::Malformed)?;
    let Wire { v: _, tokens, timestamp, remainder, weight, policy, newer } = wire;
    if tokens > MAX_MICRO_TOKENS {
        return Err(BlobError::OutOfBounds("tokens"));
    }
    if timestamp > now.saturating_add(MAX_LEAD_US).min(MAX_TIMESTAMP_US) {
        return Err(BlobError::OutOfBounds("timestamp"));
    }
    let weight = Weight::new(u64::from(weight)).ok_or(BlobError::OutOfBounds("weight"))?;
    let policy = match policy {
        None => None,
        Some(WirePolicy { capacity, refill, interval, pin }) => Some(StoredPolicy {
            policy: Policy::new(capacity, refill, interval)
                .map_err(|_| BlobError::OutOfBounds("policy"))?,
            pin,
        }),
    };
    let record = Record {
        tokens: Some(tokens),
        timestamp: Some(timestamp),
        weight: Some(weight),
        policy,
        remainder: Some(remainder),
        foreign: false,
    };
    Ok((record, newer))
}

/// Joins the fields of later versions: all names, and of two values the one
/// whose encoding is greater.
#[must_use]
pub fn join_newer(a: Newer, b: Newer) -> Newer {
    let mut joined = a;
    for (name, value) in b {
        match joined.get(&name) {
            Some(present) if encoding(present) >= encoding(&value) => {}
            _ => {
                joined.insert(name, value);
            }
        }
    }
    joined
}

/// `newer` fields as they are kept in a hash field.
#[must_use]
pub fn encode_newer(newer: &Newer) -> Vec<u8> {
    rmp_serde::to_vec_named(newer).unwrap_or_default()
}

/// Reads what [`encode_newer`] wrote; `None` when it is something else.
#[must_use]
pub fn decode_newer(bytes: &[u8]) -> Option<Newer> {
    if bytes.len() > MAX_BLOB {
        return None;
    }
    read(bytes)
}

/// Reads one value that takes up all of `bytes`.
fn read<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Option<T> {
    let mut reader = rmp_serde::Deserializer::new(std::io::Cursor::new(bytes));
    // Deeper nesting than any of ours is malformed, not a deep recursion.
    reader.set_max_depth(MAX_DEPTH);
    let value = T::deserialize(&mut reader).ok()?;
    let used = usize::try_from(reader.get_ref().position()).ok()?;
    (used == bytes.len()).then_some(value)
}

fn encoding(value: &Value) -> Vec<u8> {
    rmp_serde::to_vec(value).unwrap_or_default()
}
