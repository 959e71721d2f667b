//! What is kept as MessagePack in fields of the hash.

use super::{Besides, MAX_BLOB, decode, encode, read, reader, write};
use crate::bucket::Bucket;
use crate::debit::{Account, Debits, MAX_REPLICAS, Mark, Shared, Stretch};
use crate::defaults::Defaults;
use crate::limits::MAX_TIMESTAMP_US;
use crate::merge::State;
use crate::policy::Policy;
use crate::replica::{MAX_ID, ReplicaId};
use rmpv::Value;
use std::collections::BTreeMap;

/// The `debits` field of a bucket: an array of version number, its origin, debt,
/// fraction, looked, and an array of accounts; each of these an array of name, epoch,
/// spent, refunded and, once the peer was heard, overflow and withheld. What
/// `text` held before is gone. Returns the bucket that the other fields hold.
pub fn encode_debits(bucket: &Shared, text: &mut DebitsText) -> Bucket {
    let out = text;
    out.clear();
    let (line, debt, fraction) = bucket.split();
    let version = bucket.version();
    write::array(out, 6);
    write::uint(out, version.number);
    match &version.origin {
        None => write::text(out, ""),
        Some(origin) => write_id(out, origin),
    }
    write::uint(out, debt);
    write::uint(out, fraction);
    write::small(out, bucket.looked().number());
    write::array(out, bucket.accounts().len());
    for Account { id, entry, mark } in bucket.accounts() {
        write::array(out, if mark.is_some() { 6 } else { 4 });
        write_id(out, id);
        write::uint(out, entry.epoch);
        write::uint(out, entry.spent);
        write::uint(out, entry.refunded);
        if let Some(mark) = mark {
            write_wide(out, mark.overflow);
            write_wide(out, mark.withheld);
        }
    }
    line
}

/// The text of a `debits` field, see [`encode_debits`]: two heads and four numbers,
/// the version's origin and [`MAX_REPLICAS`] accounts of three numbers and two wide
/// ones; at last as much more as a name is shorter than the longest.
pub type DebitsText = write::Text<{ 2 * HEAD + 4 * UINT + ID + MAX_REPLICAS * ACCOUNT + ID }>;

const HEAD: usize = 3;
const UINT: usize = 9;
const WIDE: usize = 18;
const ID: usize = 1 + MAX_ID + 1;
const ACCOUNT: usize = 1 + ID + 3 * UINT + 2 * WIDE;

#[inline(always)]
fn write_id(out: &mut impl write::Out, id: &ReplicaId) {
    let (bytes, len) = id.padded();
    write::name(out, bytes, len);
}

/// Reads what [`encode_debits`] wrote; `None` when it is something else. Any
/// bytes are safe to give.
#[must_use]
pub fn decode_debits(bytes: &[u8]) -> Option<Debits> {
    let mut debits = Debits::default();
    decode_debits_into(bytes, &mut debits).then_some(debits)
}

/// [`decode_debits`] into memory that is there already. `false` when it is something
/// else; what is left in `debits` then means nothing.
#[must_use]
pub fn decode_debits_into(bytes: &[u8], debits: &mut Debits) -> bool {
    let mut rest = bytes;
    read_debits(&mut rest, debits).is_some() && rest.is_empty()
}

/// In place: what is moved right after it was read makes the processor wait.
fn read_debits(rest: &mut &[u8], debits: &mut Debits) -> Option<()> {
    if reader::array(rest)? != 6 {
        return None;
    }
    debits.version.number = reader::uint(rest)?;
    debits.version.origin = match reader::text(rest)? {
        b"" => None,
        origin => Some(ReplicaId::new(origin).ok()?),
    };
    debits.debt = reader::uint(rest)?;
    debits.fraction = reader::uint(rest)?;
    debits.looked = Stretch::new(reader::uint(rest)?)?;
    let len = reader::array(rest)?;
    if len > MAX_REPLICAS {
        return None;
    }
    debits.accounts.resize(len, Account::BLANK);
    for account in &mut debits.accounts {
        let fields = reader::array(rest)?;
        account.id.set(reader::text(rest)?).ok()?;
        account.entry.epoch = reader::uint(rest)?;
        account.entry.spent = reader::uint(rest)?;
        account.entry.refunded = reader::uint(rest)?;
        account.mark = match fields {
            4 => None,
            6 => Some(Mark { overflow: reader::wide(rest)?, withheld: reader::wide(rest)? }),
            _ => return None,
        };
    }
    in_order(&debits.accounts).then_some(())
}

/// Whether the accounts stand by name, and each once.
pub(super) fn in_order(accounts: &[Account]) -> bool {
    accounts.is_sorted_by(|a, b| a.id < b.id)
}

/// A 128-bit integer: as an integer when it fits in 64 bits, else as its 16 bytes,
/// greatest first. MessagePack has no wider integers.
#[inline(always)]
fn write_wide(out: &mut impl write::Out, value: i128) {
    match i64::try_from(value) {
        Ok(small) => write::sint(out, small),
        Err(_) => write::bytes(out, &value.to_be_bytes()),
    }
}

/// The latest state of each region.
pub type RegionStates = BTreeMap<ReplicaId, State>;

/// The `regions` field: a map of region to what [`encode`] writes.
#[must_use]
pub fn encode_regions(regions: &RegionStates) -> Vec<u8> {
    let blobs = regions.iter().map(|(id, state)| {
        let blob = encode(state, &Besides::default()).unwrap_or_default();
        (Value::from(id.as_str()), Value::Binary(blob))
    });
    rmp_serde::to_vec(&Value::Map(blobs.collect())).unwrap_or_default()
}

/// Reads what [`encode_regions`] wrote; `None` when it is something else.
#[must_use]
pub fn decode_regions(bytes: &[u8]) -> Option<RegionStates> {
    if bytes.len() > MAX_BLOB {
        return None;
    }
    let defaults = Defaults::new(Policy::DEFAULT);
    let mut regions = RegionStates::new();
    for (id, blob) in read(bytes)? {
        // The timestamps were bounded when the states came in.
        let record = decode(blob.as_slice()?, MAX_TIMESTAMP_US).ok()?.record;
        regions.insert(id.parse().ok()?, State::new(&record, &defaults, 0));
    }
    (regions.len() <= MAX_REPLICAS).then_some(regions)
}
