//! A state as MessagePack: what `CL.STATE` returns and `CL.MERGE .. STATE` takes.
//!
//! The blob is a map of named fields, so that any language can read it and later
//! versions can add to it. Fields that this version does not know are kept, and
//! stand in the next blob again.

use crate::bucket::Weight;
use crate::limits::{MAX_LEAD_US, MAX_MICRO_TOKENS, MAX_TIMESTAMP_US};
use crate::merge::State;
use crate::policy::{Policy, StoredPolicy};
use crate::record::Record;
use rmpv::Value;
use serde::Deserialize;
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

/// Writes a state, with the `newer` fields that came with it.
///
/// | field | content |
/// |---|---|
/// | `v` | version of the writer |
/// | `tokens` | millionths of a token |
/// | `timestamp` | unix microseconds |
/// | `remainder` | see [`crate::bucket::Bucket::remainder`] |
/// | `weight` | 1..=10 |
/// | `policy` | map of `capacity` (tokens), `refill` (millionths), `interval` (ms) and, when pinned, `pin` (its version); absent on the default policy |
///
/// # Errors
/// Never, in practice: a map of numbers can always be written.
pub fn encode(state: &State, newer: &Newer) -> Result<Vec<u8>, BlobError> {
    let bucket = &state.bucket;
    let mut newer = newer.clone();
    let mut fields: Vec<(Value, Value)> = vec![
        ("v".into(), VERSION.into()),
        ("tokens".into(), bucket.tokens().into()),
        ("timestamp".into(), bucket.timestamp().into()),
        ("remainder".into(), bucket.remainder().into()),
        ("weight".into(), bucket.weight().get().into()),
    ];
    let besides = newer.remove(POLICY);
    if let Some(StoredPolicy { policy, pin }) = state.policy {
        let mut named: Vec<(Value, Value)> = vec![
            ("capacity".into(), policy.capacity().into()),
            ("refill".into(), policy.refill().into()),
            ("interval".into(), policy.interval_ms().into()),
        ];
        named.extend(pin.map(|version| ("pin".into(), version.into())));
        if let Some(Value::Map(besides)) = besides {
            named.extend(besides);
        }
        fields.push((POLICY.into(), Value::Map(named)));
    }
    fields.extend(newer.into_iter().map(|(name, value)| (name.into(), value)));
    rmp_serde::to_vec(&Value::Map(fields)).map_err(|_| BlobError::Malformed)
}

/// The field of the policy; among the newer fields, what the policy has besides.
const POLICY: &str = "policy";

/// Reads a blob; `now` (unix microseconds) bounds the timestamp.
///
/// # Errors
/// See [`BlobError`]. Any bytes are safe to give.
pub fn decode(blob: &[u8], now: u64) -> Result<(Record, Newer), BlobError> {
    if blob.len() > MAX_BLOB {
        return Err(BlobError::TooLong);
    }
    let mut fields = read(blob).ok_or(BlobError::Malformed)?;
    integer(&mut fields, "v")?.ok_or(BlobError::Malformed)?;
    let tokens = integer(&mut fields, "tokens")?.ok_or(BlobError::Malformed)?;
    let timestamp = integer(&mut fields, "timestamp")?.ok_or(BlobError::Malformed)?;
    let remainder = integer(&mut fields, "remainder")?;
    let weight = integer(&mut fields, "weight")?;
    let policy = match fields.remove(POLICY) {
        None | Some(Value::Nil) => None,
        Some(value) => {
            let mut named = by_name(value).ok_or(BlobError::Malformed)?;
            let mut number = |name| integer(&mut named, name);
            let capacity = number("capacity")?.ok_or(BlobError::Malformed)?;
            let refill = number("refill")?.ok_or(BlobError::Malformed)?;
            let interval = number("interval")?.ok_or(BlobError::Malformed)?;
            let pin = number("pin")?;
            let policy = Policy::new(capacity, refill, interval)
                .map_err(|_| BlobError::OutOfBounds("policy"))?;
            if !named.is_empty() {
                let besides = named.into_iter().map(|(name, value)| (name.into(), value));
                fields.insert(POLICY.to_owned(), Value::Map(besides.collect()));
            }
            Some(StoredPolicy { policy, pin })
        }
    };
    if tokens > MAX_MICRO_TOKENS {
        return Err(BlobError::OutOfBounds("tokens"));
    }
    if timestamp > now.saturating_add(MAX_LEAD_US).min(MAX_TIMESTAMP_US) {
        return Err(BlobError::OutOfBounds("timestamp"));
    }
    let weight = match weight {
        None => Weight::ONE,
        Some(weight) => Weight::new(weight).ok_or(BlobError::OutOfBounds("weight"))?,
    };
    let record = Record {
        tokens: Some(tokens),
        timestamp: Some(timestamp),
        weight: Some(weight),
        policy,
        remainder: Some(remainder.unwrap_or(0)),
        foreign: false,
    };
    Ok((record, fields))
}

/// Takes an unsigned integer out of a map; `None` when it is not there.
fn integer(fields: &mut Newer, name: &str) -> Result<Option<u64>, BlobError> {
    match fields.remove(name) {
        None => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or(BlobError::Malformed),
    }
}

/// Joins the fields of later versions: all names, and of two values the one
/// whose encoding is greater.
///
/// # Errors
/// When they are together too long to be kept.
pub fn join_newer(a: Newer, b: Newer) -> Result<Newer, BlobError> {
    let mut joined = a;
    for (name, value) in b {
        match joined.get(&name) {
            Some(present) if encoding(present) >= encoding(&value) => {}
            _ => {
                joined.insert(name, value);
            }
        }
    }
    if encode_newer(&joined).len() > MAX_NEWER {
        return Err(BlobError::TooLong);
    }
    Ok(joined)
}

/// Longest encoding of joined newer fields, in bytes: with the fields of this
/// version they stay below [`MAX_BLOB`].
const MAX_NEWER: usize = 3_584;

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

/// Reads a map that takes up all of `bytes`.
fn read(bytes: &[u8]) -> Option<Newer> {
    let mut reader = rmp_serde::Deserializer::new(std::io::Cursor::new(bytes));
    // Deeper nesting than any of ours is malformed, not a deep recursion.
    reader.set_max_depth(MAX_DEPTH);
    let value = Value::deserialize(&mut reader).ok()?;
    let used = usize::try_from(reader.get_ref().position()).ok()?;
    if used == bytes.len() { by_name(value) } else { None }
}

/// The values of a map by their names; `None` unless every key is a text and
/// stands once.
fn by_name(value: Value) -> Option<Newer> {
    let Value::Map(pairs) = value else {
        return None;
    };
    let mut fields = Newer::new();
    for (name, value) in pairs {
        if fields.insert(name.as_str()?.to_owned(), value).is_some() {
            return None;
        }
    }
    Some(fields)
}

fn encoding(value: &Value) -> Vec<u8> {
    rmp_serde::to_vec(value).unwrap_or_default()
}
