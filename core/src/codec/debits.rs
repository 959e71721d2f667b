//! The `debits` field of a bucket.

use super::{reader, write};
use crate::bucket::Bucket;
use crate::debits::{Account, Counter, Debits, Slack, Version};
use crate::limits::{MAX_REPLICAS, MAX_VERSION};
use crate::replica::{MAX_ID, ReplicaId};
use crate::shared::SharedBucket;

/// The `debits` field of a bucket: an array of version, home, fraction, and the
/// accounts. The version is an array of number and origin, or 0 for none; an account one
/// of name; epoch, spent and refunded, unless it was heard and has counted nothing; and,
/// once the peer was heard, overflow and, unless that is 0, withheld.
/// What `text` held before is gone. Returns the bucket that the other fields hold.
pub fn encode_debits(bucket: &SharedBucket, text: &mut DebitsText) -> Bucket {
    let out = text;
    out.clear();
    let (line, fraction) = bucket.split();
    let version = bucket.version();
    write::array(out, bucket.accounts().len().saturating_add(BESIDES));
    match &version {
        Version { number: 0, origin: None } => write::uint(out, 0),
        Version { number, origin } => {
            write::array(out, 2);
            write::uint(out, *number);
            match origin {
                None => write::text(out, ""),
                Some(origin) => write_id(out, origin),
            }
        }
    }
    write::uint(out, bucket.home().into());
    write::uint(out, fraction);
    for Account { id, counter, slack } in bucket.accounts() {
        let counted = slack.is_none() || *counter != Counter::default();
        let counter_len = if counted { COUNTER } else { 0 };
        let slack_len = match slack {
            None => 0,
            Some(Slack { withheld: 0, .. }) => OVERFLOW,
            Some(_) => OVERFLOW_AND_WITHHELD,
        };
        write::array(out, NAME.saturating_add(counter_len).saturating_add(slack_len));
        write_id(out, id);
        if counted {
            write::uint(out, counter.epoch);
            write::uint(out, counter.spent);
            write::uint(out, counter.refunded);
        }
        if let Some(slack) = slack {
            write_wide(out, slack.overflow);
            if slack.withheld != 0 {
                write_wide(out, slack.withheld);
            }
        }
    }
    line
}

/// What stands before the accounts.
const BESIDES: usize = 3;
/// The parts of an account.
const NAME: usize = 1;
const COUNTER: usize = 3;
const OVERFLOW: usize = 1;
const OVERFLOW_AND_WITHHELD: usize = 2;

/// The text of a `debits` field, see [`encode_debits`]: two heads and three numbers,
/// the version's origin and [`MAX_REPLICAS`] accounts of three numbers and two wide
/// ones; at last as much more as a name is shorter than the longest.
pub type DebitsText = write::Text<{ 2 * HEAD + 3 * UINT + ID + MAX_REPLICAS * ACCOUNT + ID }>;

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
    let len = reader::array(rest)?.checked_sub(BESIDES)?;
    if len > MAX_REPLICAS {
        return None;
    }
    debits.version = match reader::small(rest) {
        Some(0) => Version::default(),
        Some(_) => return None,
        None => read_version(rest)?,
    };
    debits.home = u32::try_from(reader::uint(rest)?).ok()?;
    debits.fraction = reader::uint(rest)?;
    debits.accounts.resize(len, Account::BLANK);
    for account in &mut debits.accounts {
        let parts = reader::array(rest)?.checked_sub(NAME)?;
        let (counted, slack_len) = match parts.checked_sub(COUNTER) {
            Some(more) => (true, more),
            None => (false, parts),
        };
        account.id.set(reader::text(rest)?).ok()?;
        account.counter = Counter::default();
        if counted {
            account.counter.epoch = reader::uint(rest)?;
            account.counter.spent = reader::uint(rest)?;
            account.counter.refunded = reader::uint(rest)?;
        }
        account.slack = match (counted, slack_len) {
            (true, 0) => None,
            (_, OVERFLOW) => Some(Slack { overflow: reader::wide(rest)?, withheld: 0 }),
            (_, OVERFLOW_AND_WITHHELD) => {
                Some(Slack { overflow: reader::wide(rest)?, withheld: reader::wide(rest)? })
            }
            _ => return None,
        };
    }
    in_order(&debits.accounts).then_some(())
}

fn read_version(rest: &mut &[u8]) -> Option<Version> {
    if reader::array(rest)? != 2 {
        return None;
    }
    let number = reader::uint(rest).filter(|number| *number <= MAX_VERSION)?;
    let origin = match reader::text(rest)? {
        b"" => None,
        origin => Some(ReplicaId::new(origin).ok()?),
    };
    Some(Version { number, origin })
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
