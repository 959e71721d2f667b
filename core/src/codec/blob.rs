//! A state as MessagePack: what `CL.STATE` returns and `CL.MERGE .. STATE` takes.
//!
//! The blob is a map of named fields, so that any language can read it and later
//! versions can add to it. Fields that this version does not know are kept, and
//! stand in the next blob again.

use super::debits::in_order;
use super::write;
use crate::bucket::{Bucket, Weight};
use crate::debits::{Account, Counter, Debits, Version};
use crate::error::Internal;
use crate::limits::{
    MAX_DEBT, MAX_INTERVAL_MS, MAX_LEAD_US, MAX_MICRO_TOKENS, MAX_REPLICAS, MAX_TIMESTAMP_US,
};
use crate::merge::State;
use crate::policy::{Policy, StoredPolicy, Temporary};
use crate::replica::{MAX_EPOCH, ReplicaId};
use rmpv::Value;
use rmpv::encode::write_value;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;

/// The version of the blob that this version writes. A reader takes any version:
/// what changes its meaning gets another name. Counting debits is stricter, and
/// takes none above this.
pub const VERSION: u32 = 1;

/// Longest blob that is read, in bytes: bounds the memory of reading one.
pub const MAX_BLOB: usize = 8_192;

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

/// What a state says besides the bucket itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Besides {
    /// Of a bucket that regions share.
    pub debits: Option<Debits>,
    /// Fields of a later version.
    pub newer: Newer,
}

/// Writes a state.
///
/// | field | content |
/// |---|---|
/// | `v` | version of the writer |
/// | `tokens` | millionths of a token; negative in debt |
/// | `timestamp` | unix microseconds |
/// | `remainder` | see [`crate::bucket::Bucket::remainder`] |
/// | `weight` | 1..=10 |
/// | `policy` | map of `capacity` (tokens), `refill` (millionths), `interval` (ms) and, when pinned, `pin` (its version); absent on the default policy |
/// | `temporary` | while a temporary pin is in force: the same map of it, `pin` and `until` (its end, unix microseconds) |
/// | `default` | in a shared bucket without `policy`, and in the field `regions`: the same map, of the policy in force |
/// | `debits` | in a shared bucket: map of replica to array of epoch, spent and refunded (millionths) |
/// | `fraction` | in a shared bucket: see [`Debits`] |
/// | `version` | in a shared bucket: array of number and origin of the last change of policy or weight |
///
/// # Errors
/// Never, in practice: a map of numbers can always be written.
pub fn encode(state: &State, besides: &Besides) -> Result<Vec<u8>, BlobError> {
    let mut bytes = Vec::new();
    let blob = Blob {
        bucket: state.bucket,
        stored: state.policy,
        temporary: state.temporary,
        counted: besides.debits.as_ref(),
        default: besides.debits.is_some() && state.policy.is_none(),
        newer: &besides.newer,
    };
    write_blob(&blob, &mut bytes)?;
    Ok(bytes)
}

/// Writes a state with the policy in force, whether or not it is the default.
pub(super) fn encode_in_force(state: &State) -> Result<Vec<u8>, BlobError> {
    let mut bytes = Vec::new();
    let State { bucket, policy: stored, temporary, .. } = *state;
    let (counted, default, newer) = (None, stored.is_none(), &Newer::new());
    let blob = Blob { bucket, stored, temporary, counted, default, newer };
    write_blob(&blob, &mut bytes)?;
    Ok(bytes)
}

/// What is written of a state.
struct Blob<'a> {
    bucket: Bucket,
    stored: Option<StoredPolicy>,
    temporary: Option<Temporary>,
    counted: Option<&'a Debits>,
    /// Whether it says which policy the default is.
    default: bool,
    newer: &'a Newer,
}

fn write_blob(blob: &Blob<'_>, out: &mut Vec<u8>) -> Result<(), BlobError> {
    let newer = blob.newer.iter().filter(|(name, _)| name.as_str() != POLICY);
    let fields = [
        usize::from(blob.stored.is_some()),
        usize::from(blob.temporary.is_some()),
        usize::from(blob.default),
        if blob.counted.is_some() { 3 } else { 0 },
        newer.clone().count(),
    ];
    let fields = fields.into_iter().fold(5, usize::saturating_add);
    write::map(out, fields);
    number(out, "v", VERSION.into());
    write::text(out, "tokens");
    write::sint(out, blob.bucket.tokens());
    number(out, "timestamp", blob.bucket.timestamp());
    number(out, "remainder", blob.bucket.remainder());
    number(out, "weight", blob.bucket.weight().get().into());
    if let Some(StoredPolicy { policy, pin }) = blob.stored {
        let newer = match blob.newer.get(POLICY) {
            Some(Value::Map(newer)) => newer.as_slice(),
            _ => &[],
        };
        write::text(out, POLICY);
        write_policy(out, policy, pin, None, newer)?;
    }
    if let Some(Temporary { policy, until, version }) = blob.temporary {
        write::text(out, TEMPORARY);
        write_policy(out, policy, Some(version), Some(until), &[])?;
    }
    if blob.default {
        write::text(out, DEFAULT);
        write_policy(out, blob.bucket.policy(), None, None, &[])?;
    }
    if let Some(counted) = blob.counted {
        let counters = counted.accounts.iter().filter(|account| account.counter.epoch != 0);
        write::text(out, "debits");
        write::map(out, counters.clone().count());
        for Account { id, counter, .. } in counters {
            write::text(out, id.as_bytes());
            write::array(out, 3);
            write::uint(out, counter.epoch);
            write::uint(out, counter.spent);
            write::uint(out, counter.refunded);
        }
        number(out, "fraction", counted.fraction);
        write::text(out, "version");
        write::array(out, 2);
        write::uint(out, counted.version.number);
        write::text(
            out,
            counted.version.origin.as_ref().map_or(b"".as_slice(), ReplicaId::as_bytes),
        );
    }
    for (name, value) in newer {
        value_of_later(out, &name.as_str().into())?;
        value_of_later(out, value)?;
    }
    Ok(())
}

fn write_policy(
    out: &mut Vec<u8>,
    policy: Policy,
    pin: Option<u64>,
    until: Option<u64>,
    newer: &[(Value, Value)],
) -> Result<(), BlobError> {
    let fields = [3, usize::from(pin.is_some()), usize::from(until.is_some()), newer.len()];
    write::map(out, fields.into_iter().fold(0, usize::saturating_add));
    number(out, "capacity", policy.capacity());
    number(out, "refill", policy.refill());
    number(out, "interval", policy.interval_ms());
    if let Some(pin) = pin {
        number(out, "pin", pin);
    }
    if let Some(until) = until {
        number(out, "until", until);
    }
    for (name, value) in newer {
        value_of_later(out, name)?;
        value_of_later(out, value)?;
    }
    Ok(())
}

fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    write::text(out, name);
    write::uint(out, value);
}

/// A value of a later version, whatever it is.
fn value_of_later(out: &mut Vec<u8>, value: &Value) -> Result<(), BlobError> {
    write_value(out, value).map_err(|_| BlobError::Malformed)
}

/// The field of the policy; among the newer fields, what the policy has besides.
const POLICY: &str = "policy";

/// The field of the temporary pin.
const TEMPORARY: &str = "temporary";

/// The field of the policy in force, where it is the default.
const DEFAULT: &str = "default";

/// A state that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// Millionths of a token.
    pub tokens: i64,
    /// Unix microseconds.
    pub timestamp: u64,
    /// The refill's multiplier.
    pub weight: Weight,
    /// The policy that the bucket stores.
    pub policy: Option<StoredPolicy>,
    /// The temporary pin over it.
    pub temporary: Option<Temporary>,
    /// See [`Bucket::remainder`].
    pub remainder: u64,
    /// Version of the writer.
    pub version: u64,
    /// The policy in force, when the bucket stores none and the state says it.
    pub default: Option<Policy>,
    /// What it says besides.
    pub besides: Besides,
}

/// Reads a blob; `now` (unix microseconds) bounds the timestamp.
///
/// # Errors
/// See [`BlobError`]. Any bytes are safe to give.
pub fn decode(blob: &[u8], now: u64) -> Result<Decoded, BlobError> {
    if blob.len() > MAX_BLOB {
        return Err(BlobError::TooLong);
    }
    let read: ReadBlob = read_all(blob).ok_or(BlobError::Malformed)?;
    let version = read.version.ok_or(BlobError::Malformed)?;
    let tokens = read.tokens.ok_or(BlobError::Malformed)?;
    let timestamp = read.timestamp.ok_or(BlobError::Malformed)?;
    let mut newer = read.newer;
    let policy = match read.policy.flatten() {
        None => None,
        Some(read) => {
            let stored = StoredPolicy { policy: read.policy()?, pin: read.pin };
            if !read.newer.is_empty() {
                let besides = read.newer.into_iter().map(|(name, value)| (name.into(), value));
                newer.insert(POLICY.to_owned(), Value::Map(besides.collect()));
            }
            Some(stored)
        }
    };
    let temporary = read.temporary.map(|read| read.temporary(now)).transpose()?;
    let default = read.default.map(|read| read.policy()).transpose()?;
    if !(MAX_DEBT.saturating_neg()..=MAX_MICRO_TOKENS.cast_signed()).contains(&tokens) {
        return Err(BlobError::OutOfBounds("tokens"));
    }
    let latest = now.saturating_add(MAX_LEAD_US).min(MAX_TIMESTAMP_US);
    if timestamp > latest {
        return Err(BlobError::OutOfBounds("timestamp"));
    }
    let weight = match read.weight {
        None => Weight::ONE,
        Some(weight) => Weight::new(weight).ok_or(BlobError::OutOfBounds("weight"))?,
    };
    let debits = match read.counters {
        None => None,
        Some(ReadCounters(accounts)) => {
            let epochs_are_sane =
                accounts.iter().all(|account| (1..=MAX_EPOCH).contains(&account.counter.epoch));
            if !in_order(&accounts) || !epochs_are_sane {
                return Err(BlobError::OutOfBounds("debits"));
            }
            Some(Debits {
                version: read.changed.map(|ReadVersion(version)| version).unwrap_or_default(),
                fraction: read.fraction.unwrap_or(0),
                home: 0,
                accounts,
            })
        }
    };
    Ok(Decoded {
        tokens,
        timestamp,
        weight,
        policy,
        temporary,
        remainder: read.remainder.unwrap_or(0),
        version,
        default,
        besides: Besides { debits, newer },
    })
}

/// A blob as it was read, unchecked.
#[derive(Default)]
struct ReadBlob {
    version: Option<u64>,
    tokens: Option<i64>,
    timestamp: Option<u64>,
    remainder: Option<u64>,
    weight: Option<u64>,
    /// Nil stands for none.
    policy: Option<Option<ReadPolicy>>,
    temporary: Option<ReadPolicy>,
    default: Option<ReadPolicy>,
    counters: Option<ReadCounters>,
    fraction: Option<u64>,
    changed: Option<ReadVersion>,
    newer: Newer,
}

impl<'de> Deserialize<'de> for ReadBlob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = ReadBlob;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a state")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ReadBlob, A::Error> {
                let mut read = ReadBlob::default();
                while let Some(name) = map.next_key::<Name>()? {
                    match name.as_str() {
                        "v" => once(&mut read.version, &mut map)?,
                        "tokens" => once(&mut read.tokens, &mut map)?,
                        "timestamp" => once(&mut read.timestamp, &mut map)?,
                        "remainder" => once(&mut read.remainder, &mut map)?,
                        "weight" => once(&mut read.weight, &mut map)?,
                        POLICY => once(&mut read.policy, &mut map)?,
                        TEMPORARY => once(&mut read.temporary, &mut map)?,
                        DEFAULT => once(&mut read.default, &mut map)?,
                        "debits" => once(&mut read.counters, &mut map)?,
                        "fraction" => once(&mut read.fraction, &mut map)?,
                        "version" => once(&mut read.changed, &mut map)?,
                        other => once_newer(&mut read.newer, other, &mut map)?,
                    }
                }
                Ok(read)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Reads a value into its place; an error when it stands twice.
fn once<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    place: &mut Option<T>,
    map: &mut A,
) -> Result<(), A::Error> {
    match place {
        Some(_) => Err(A::Error::custom("twice")),
        None => {
            *place = Some(map.next_value()?);
            Ok(())
        }
    }
}

/// Keeps the value of a field of a later version; an error when it stands twice.
fn once_newer<'de, A: MapAccess<'de>>(
    newer: &mut Newer,
    name: &str,
    map: &mut A,
) -> Result<(), A::Error> {
    match newer.insert(name.to_owned(), map.next_value()?) {
        Some(_) => Err(A::Error::custom("twice")),
        None => Ok(()),
    }
}

/// The name of a field. Those of this version fit in place.
struct Name {
    short: [u8; 16],
    len: usize,
    long: String,
}

impl Name {
    fn as_str(&self) -> &str {
        match self.short.get(..self.len) {
            Some(short) => std::str::from_utf8(short).unwrap_or_default(),
            None => &self.long,
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Name, E> {
                let mut name = Name { short: [0; 16], len: text.len(), long: String::new() };
                match name.short.get_mut(..text.len()) {
                    Some(place) => place.copy_from_slice(text.as_bytes()),
                    None => text.clone_into(&mut name.long),
                }
                Ok(name)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Number and origin of a change.
struct ReadVersion(Version);

impl<'de> Deserialize<'de> for ReadVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (number, Origin(origin)) = Deserialize::deserialize(deserializer)?;
        Ok(Self(Version { number, origin }))
    }
}

/// The origin of a change: a replica's name, or nothing.
struct Origin(Option<ReplicaId>);

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Name::deserialize(deserializer)?;
        match name.as_str() {
            "" => Ok(Self(None)),
            name => name.parse().map(|id| Self(Some(id))).map_err(D::Error::custom),
        }
    }
}

/// The counters of a blob, in the order of the names.
struct ReadCounters(Vec<Account>);

impl<'de> Deserialize<'de> for ReadCounters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counters;
        impl<'de> Visitor<'de> for Counters {
            type Value = ReadCounters;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("counters by replica")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ReadCounters, A::Error> {
                let mut accounts =
                    Vec::with_capacity(map.size_hint().unwrap_or(0).min(MAX_REPLICAS));
                while let Some((id, (epoch, spent, refunded))) = map.next_entry()? {
                    if accounts.len() >= MAX_REPLICAS {
                        return Err(A::Error::custom("too many"));
                    }
                    let counter = Counter { epoch, spent, refunded };
                    accounts.push(Account { id, counter, slack: None });
                }
                accounts.sort_by_key(|account: &Account| account.id);
                Ok(ReadCounters(accounts))
            }
        }
        deserializer.deserialize_map(Counters)
    }
}

/// A policy as it was read, unchecked.
#[derive(Default)]
struct ReadPolicy {
    capacity: Option<u64>,
    refill: Option<u64>,
    interval: Option<u64>,
    pin: Option<u64>,
    until: Option<u64>,
    newer: Newer,
}

impl ReadPolicy {
    fn temporary(&self, now: u64) -> Result<Temporary, BlobError> {
        let (Some(version), Some(until)) = (self.pin, self.until) else {
            return Err(BlobError::Malformed);
        };
        let longest = MAX_INTERVAL_MS.saturating_mul(1_000).saturating_add(MAX_LEAD_US);
        if until > now.saturating_add(longest) {
            return Err(BlobError::OutOfBounds(TEMPORARY));
        }
        Ok(Temporary { policy: self.policy()?, until, version })
    }

    fn policy(&self) -> Result<Policy, BlobError> {
        let (Some(capacity), Some(refill), Some(interval)) =
            (self.capacity, self.refill, self.interval)
        else {
            return Err(BlobError::Malformed);
        };
        Policy::new(capacity, refill, interval).map_err(|_| BlobError::OutOfBounds("policy"))
    }
}

impl<'de> Deserialize<'de> for ReadPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = ReadPolicy;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a policy")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ReadPolicy, A::Error> {
                let mut read = ReadPolicy::default();
                while let Some(name) = map.next_key::<Name>()? {
                    match name.as_str() {
                        "capacity" => once(&mut read.capacity, &mut map)?,
                        "refill" => once(&mut read.refill, &mut map)?,
                        "interval" => once(&mut read.interval, &mut map)?,
                        "pin" => once(&mut read.pin, &mut map)?,
                        "until" => once(&mut read.until, &mut map)?,
                        other => once_newer(&mut read.newer, other, &mut map)?,
                    }
                }
                Ok(read)
            }
        }
        deserializer.deserialize_map(Fields)
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
    let encoded = encode_newer(&joined).map_err(|_| BlobError::Malformed)?;
    if encoded.len() > MAX_NEWER {
        return Err(BlobError::TooLong);
    }
    Ok(joined)
}

/// Longest encoding of joined newer fields, in bytes: with the fields of this
/// version they stay below [`MAX_BLOB`].
const MAX_NEWER: usize = 3_584;

/// `newer` fields as they are kept in a hash field.
///
/// # Errors
/// When they cannot be written, which cannot be: they were read.
pub fn encode_newer(newer: &Newer) -> Result<Vec<u8>, Internal> {
    rmp_serde::to_vec_named(newer)
        .map_err(|_| Internal::new("fields of later versions that cannot be written"))
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
pub(super) fn read(bytes: &[u8]) -> Option<Newer> {
    by_name(read_all(bytes)?)
}

/// Reads a value that takes up all of `bytes`.
fn read_all<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    let mut reader = rmp_serde::Deserializer::new(std::io::Cursor::new(bytes));
    // Deeper nesting than any of ours is malformed, not a deep recursion.
    reader.set_max_depth(MAX_DEPTH);
    let value = T::deserialize(&mut reader).ok()?;
    let used = usize::try_from(reader.get_ref().position()).ok()?;
    (used == bytes.len()).then_some(value)
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

/// What decides between two values of one name. One that cannot be written would be the least.
fn encoding(value: &Value) -> Vec<u8> {
    let encoded = rmp_serde::to_vec(value);
    debug_assert!(encoded.is_ok(), "a value that was read and cannot be written");
    encoded.unwrap_or_default()
}
