//! A state as MessagePack: what `CL.STATE` returns and `CL.MERGE .. STATE` takes.
//!
//! The blob is a map of named fields, so that any language can read it and later
//! versions can add to it. Fields that this version does not know are kept, and
//! stand in the next blob again.

use super::debits::in_order;
use super::{number as numbers, write};
use crate::bucket::{Bucket, Weight};
use crate::debits::{Account, Counter, Debits, Version};
use crate::decimal::DecimalError;
use crate::error::Internal;
use crate::limits::{
    MAX_DEBT, MAX_INTERVAL_MS, MAX_LEAD_US, MAX_MICRO_TOKENS, MAX_REPLICAS, MAX_TIMESTAMP_US,
    MAX_VERSION,
};
use crate::merge::State;
use crate::policy::{Policy, StoredPolicy, Temporary};
use crate::replica::{MAX_EPOCH, ReplicaId};
use rmpv::Value;
use rmpv::encode::write_value;
use serde::Deserialize;
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
    /// Not one MessagePack map of named values.
    Malformed,
    /// A field of the state is not there.
    Missing(&'static str),
    /// A field of the state stands twice.
    Repeated(&'static str),
    /// A field of the state holds something else than this.
    Wrong(&'static str, &'static str),
    /// A field of the state is out of its bounds.
    OutOfBounds(&'static str),
}

impl fmt::Display for BlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "is longer than {MAX_BLOB} bytes"),
            Self::Malformed => f.write_str("is not a state as CL.STATE returns it"),
            Self::Missing(field) => write!(f, "has no field '{field}'"),
            Self::Repeated(field) => write!(f, "holds the field '{field}' twice"),
            Self::Wrong(field, what) => write!(f, "holds a field '{field}' that is no {what}"),
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
/// | `default` | in a shared bucket without `policy` and `temporary`, and in the field `regions`: the same map, of the policy in force |
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
        default: besides.debits.is_some() && state.policy.is_none() && state.temporary.is_none(),
        newer: &besides.newer,
    };
    write_blob(&blob, &mut bytes)?;
    Ok(bytes)
}

/// Writes a state with the policy in force, whether or not it is the default.
pub(super) fn encode_in_force(state: &State) -> Result<Vec<u8>, BlobError> {
    let mut bytes = Vec::new();
    let State { bucket, policy: stored, temporary, .. } = *state;
    let default = stored.is_none() && temporary.is_none();
    let (counted, newer) = (None, &Newer::new());
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
        write::text(out, DEBITS);
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

/// The field of the counters.
const DEBITS: &str = "debits";

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

/// Reads a blob; `now` (unix microseconds) bounds the timestamp. Names may be text or bytes, and
/// whole numbers may be doubles, as some languages encode them.
///
/// # Errors
/// See [`BlobError`]. Any bytes are safe to give.
pub fn decode(blob: &[u8], now: u64) -> Result<Decoded, BlobError> {
    let mut fields = Fields::read(blob)?;
    let version = fields.needed("v")?;
    let tokens = fields.signed("tokens")?.ok_or(BlobError::Missing("tokens"))?;
    let timestamp = fields.needed("timestamp")?;
    let remainder = fields.whole("remainder")?.unwrap_or(0);
    let weight = fields.whole("weight")?;
    let policy = match fields.take(POLICY)? {
        // Nil stands for none.
        None | Some(Value::Nil) => None,
        Some(value) => Some(stored_policy(POLICY, value)?),
    };
    let default = fields.take(DEFAULT)?.map(|value| stored_policy(DEFAULT, value)).transpose()?;
    let temporary = fields.take(TEMPORARY)?.map(|value| temporary(value, now)).transpose()?;
    let accounts = fields.take(DEBITS)?.map(accounts).transpose()?;
    let fraction = fields.whole("fraction")?.unwrap_or(0);
    let changed = fields.take("version")?.map(change).transpose()?.unwrap_or_default();
    let mut newer = fields.others()?;

    if !(MAX_DEBT.saturating_neg()..=MAX_MICRO_TOKENS.cast_signed()).contains(&tokens) {
        return Err(BlobError::OutOfBounds("tokens"));
    }
    let latest = now.saturating_add(MAX_LEAD_US).min(MAX_TIMESTAMP_US);
    if timestamp > latest {
        return Err(BlobError::OutOfBounds("timestamp"));
    }
    let weight = match weight {
        None => Weight::ONE,
        Some(weight) => Weight::new(weight).ok_or(BlobError::OutOfBounds("weight"))?,
    };
    let policy = policy.map(|(stored, besides)| {
        if !besides.is_empty() {
            let besides = besides.into_iter().map(|(name, value)| (name.into(), value));
            newer.insert(POLICY.to_owned(), Value::Map(besides.collect()));
        }
        stored
    });
    // Of a state that says no policy the reader's is in force, and it is cut at that.
    let (stored, default) = (policy.map(|stored| stored.policy), default.map(|(of, _)| of.policy));
    let said = temporary.map(|pin| pin.policy).or(stored).or(default);
    if said.is_some_and(|policy| tokens > policy.capacity_micros()) {
        return Err(BlobError::OutOfBounds("tokens"));
    }
    let debits = accounts.map(|accounts| Debits { version: changed, fraction, home: 0, accounts });
    Ok(Decoded {
        tokens,
        timestamp,
        weight,
        policy,
        temporary,
        remainder,
        version,
        default,
        besides: Besides { debits, newer },
    })
}

/// The map of a policy, and what it has besides.
fn stored_policy(field: &'static str, value: Value) -> Result<(StoredPolicy, Newer), BlobError> {
    let Value::Map(pairs) = value else {
        return Err(BlobError::Wrong(field, "map"));
    };
    let mut fields = Fields(pairs);
    let capacity = fields.needed("capacity")?;
    let (refill, interval) = (fields.needed("refill")?, fields.needed("interval")?);
    let policy =
        Policy::new(capacity, refill, interval).map_err(|_| BlobError::OutOfBounds(POLICY))?;
    let pin = fields.whole("pin")?;
    if pin.is_some_and(|pin| pin > MAX_VERSION) {
        return Err(BlobError::OutOfBounds("pin"));
    }
    Ok((StoredPolicy { policy, pin }, fields.others()?))
}

/// The map of a temporary pin.
fn temporary(value: Value, now: u64) -> Result<Temporary, BlobError> {
    let Value::Map(pairs) = value else {
        return Err(BlobError::Wrong(TEMPORARY, "map"));
    };
    let mut fields = Fields(pairs);
    let until = fields.needed("until")?;
    let longest = MAX_INTERVAL_MS.saturating_mul(1_000).saturating_add(MAX_LEAD_US);
    if until > now.saturating_add(longest) {
        return Err(BlobError::OutOfBounds(TEMPORARY));
    }
    let (StoredPolicy { policy, pin }, _) = stored_policy(TEMPORARY, Value::Map(fields.0))?;
    let version = pin.ok_or(BlobError::Missing("pin"))?;
    Ok(Temporary { policy, until, version })
}

/// The counters of a blob, in the order of the names.
fn accounts(value: Value) -> Result<Vec<Account>, BlobError> {
    const WRONG: BlobError =
        BlobError::Wrong(DEBITS, "map of replicas to epoch, spent and refunded");
    let Value::Map(pairs) = value else {
        return Err(WRONG);
    };
    if pairs.len() > MAX_REPLICAS {
        return Err(BlobError::OutOfBounds(DEBITS));
    }
    let account = |(name, value): (Value, Value)| {
        let id = text(&name).and_then(|name| name.parse().ok())?;
        let [epoch, spent, refunded] = value.as_array()?.as_slice() else {
            return None;
        };
        let part = |value| numbers::whole(value).ok();
        let counter =
            Counter { epoch: part(epoch)?, spent: part(spent)?, refunded: part(refunded)? };
        Some(Account { id, counter, slack: None })
    };
    let mut accounts: Vec<Account> =
        pairs.into_iter().map(account).collect::<Option<_>>().ok_or(WRONG)?;
    accounts.sort_by_key(|account| account.id);
    let sane = accounts.iter().all(|account| (1..=MAX_EPOCH).contains(&account.counter.epoch));
    if !in_order(&accounts) || !sane {
        return Err(BlobError::OutOfBounds(DEBITS));
    }
    Ok(accounts)
}

/// Number and origin of the last change; the origin is a replica's name, or empty.
fn change(value: Value) -> Result<Version, BlobError> {
    let read = || {
        let [number, origin] = value.as_array()?.as_slice() else {
            return None;
        };
        let origin = match text(origin)? {
            "" => None,
            name => Some(name.parse::<ReplicaId>().ok()?),
        };
        Some(Version { number: numbers::whole(number).ok()?, origin })
    };
    match read() {
        None => Err(BlobError::Wrong("version", "array of number and origin")),
        Some(Version { number, .. }) if number > MAX_VERSION => {
            Err(BlobError::OutOfBounds("version"))
        }
        Some(version) => Ok(version),
    }
}

/// The fields of a map that was read, and have not been taken out of it.
#[derive(Debug)]
pub struct Fields(Vec<(Value, Value)>);

impl Fields {
    /// Reads one map, which takes up all of `bytes`.
    ///
    /// # Errors
    /// When it is longer than [`MAX_BLOB`], or something else.
    pub fn read(bytes: &[u8]) -> Result<Self, BlobError> {
        if bytes.len() > MAX_BLOB {
            return Err(BlobError::TooLong);
        }
        match read_all(bytes) {
            Some(Value::Map(pairs)) => Ok(Self(pairs)),
            _ => Err(BlobError::Malformed),
        }
    }

    /// Takes a field out, `None` when there is none of this name.
    ///
    /// # Errors
    /// When there are two.
    pub fn take(&mut self, name: &'static str) -> Result<Option<Value>, BlobError> {
        let mut named = self.0.iter().enumerate().filter(|(_, (key, _))| text(key) == Some(name));
        let place = named.next().map(|(place, _)| place);
        if named.next().is_some() {
            return Err(BlobError::Repeated(name));
        }
        Ok(place.map(|place| self.0.swap_remove(place).1))
    }

    /// Takes out a whole number.
    fn whole(&mut self, name: &'static str) -> Result<Option<u64>, BlobError> {
        let number = self.take(name)?.map(|value| numbers::whole(&value));
        number.transpose().map_err(|error| match error {
            DecimalError::NotANumber => BlobError::Wrong(name, "whole number of 0 or more"),
            DecimalError::TooLarge => BlobError::OutOfBounds(name),
        })
    }

    /// Takes out a whole number that may be negative.
    fn signed(&mut self, name: &'static str) -> Result<Option<i64>, BlobError> {
        let number = self.take(name)?.map(|value| numbers::signed(&value));
        number.transpose().map_err(|error| match error {
            DecimalError::NotANumber => BlobError::Wrong(name, "whole number"),
            DecimalError::TooLarge => BlobError::OutOfBounds(name),
        })
    }

    /// Takes out a whole number that has to be there.
    fn needed(&mut self, name: &'static str) -> Result<u64, BlobError> {
        self.whole(name)?.ok_or(BlobError::Missing(name))
    }

    /// What is left, by name.
    fn others(self) -> Result<Newer, BlobError> {
        let mut newer = Newer::new();
        for (name, value) in self.0 {
            let name = text(&name).ok_or(BlobError::Malformed)?;
            if newer.insert(name.to_owned(), value).is_some() {
                return Err(BlobError::Malformed);
            }
        }
        Ok(newer)
    }
}

/// A name. Some languages have no other text than bytes.
fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Binary(bytes) => std::str::from_utf8(bytes).ok(),
        value => value.as_str(),
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
    Fields::read(bytes).and_then(Fields::others).ok()
}

/// Reads a value that takes up all of `bytes`.
fn read_all(bytes: &[u8]) -> Option<Value> {
    let mut reader = rmp_serde::Deserializer::new(std::io::Cursor::new(bytes));
    // Deeper nesting than any of ours is malformed, not a deep recursion.
    reader.set_max_depth(MAX_DEPTH);
    let value = Value::deserialize(&mut reader).ok()?;
    let used = usize::try_from(reader.get_ref().position()).ok()?;
    (used == bytes.len()).then_some(value)
}

/// What decides between two values of one name. One that cannot be written would be the least.
fn encoding(value: &Value) -> Vec<u8> {
    let encoded = rmp_serde::to_vec(value);
    debug_assert!(encoded.is_ok(), "a value that was read and cannot be written");
    encoded.unwrap_or_default()
}
