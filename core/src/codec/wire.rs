//! A shared bucket as regions send it to each other: an array of numbers, in which the regions
//! stand by their place in a list of names that goes before many of them.

use super::blob::BlobError;
use super::debits::{decode_debits_into, in_order};
use super::{reader, write};
use crate::bucket::{Bucket, Weight};
use crate::debits::{Account, Counter, Debits, Version};
use crate::limits::{
    MAX_DEBT, MAX_INTERVAL_MS, MAX_LEAD_US, MAX_REPLICAS, MAX_TIMESTAMP_US, MAX_VERSION,
};
use crate::membership::{Membership, WHOLE};
use crate::plan::Note;
use crate::policy::{Policy, StoredPolicy, Temporary};
use crate::replica::{MAX_EPOCH, ReplicaId};
use crate::shared::{Remote, SharedBucket};

/// Names of regions, each once, which states name by their places. It only grows, so that what
/// was written with it can be read with what it is later.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names(Vec<ReplicaId>);

/// How many names are listed; those beyond stand in the states themselves.
const MAX_NAMES: usize = 128;

impl Names {
    /// Reads what [`Self::to_text`] gives; `None` for anything else.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::default());
        }
        let mut names = Vec::new();
        for name in text.split(|byte| *byte == b',') {
            if names.len() >= MAX_NAMES {
                return None;
            }
            names.push(ReplicaId::new(name).ok()?);
        }
        Some(Self(names))
    }

    /// All names, with commas between them.
    #[must_use]
    pub fn to_text(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(ReplicaId::as_str).collect();
        names.join(",")
    }

    /// The place of a name, begun if need be; `None` when there are too many.
    fn place(&mut self, id: &ReplicaId) -> Option<u64> {
        let place = match self.0.iter().position(|known| known == id) {
            Some(place) => place,
            None if self.0.len() >= MAX_NAMES => return None,
            None => {
                self.0.push(*id);
                self.0.len().checked_sub(1)?
            }
        };
        u64::try_from(place).ok()
    }
}

const STORED: u8 = 1;
const PINNED: u8 = 1 << 1;
const HELD_BACK: u8 = 1 << 2;
const VERSIONED: u8 = 1 << 3;
const TEMPORARY: u8 = 1 << 4;

/// The parts that every state has, and those that some have.
const PARTS: usize = 8;
const SHARE: usize = 1;
const PIN: usize = 1;
const VERSION: usize = 2;
const TEMPORARY_PARTS: usize = 5;
/// The parts of a replica.
const COUNTER: usize = 4;

/// Writes the state that a [note](Note) of a shared bucket stands for; `text` is the field
/// `debits` that follows it. An array of form, tokens, timestamp, capacity, refill, interval,
/// weight and fraction; the share at which it refills until it is sent, if that is not the
/// whole; the version of a pin, if it is pinned; of a temporary pin its
/// end, version, and the policy beneath it, if there is one; number and origin of the last
/// change of policy or weight, if there was one; and for each replica its place in `names`, epoch,
/// spent and refunded. `debits` is where the text is read; what it held is gone.
///
/// Appends nothing and gives back `false` for what is no note of a shared bucket.
#[must_use]
pub fn encode_wire(
    note: &Note,
    text: &[u8],
    names: &mut Names,
    debits: &mut Debits,
    out: &mut Vec<u8>,
) -> bool {
    let Note { bucket, stored, temporary, counted: Some(share) } = *note else {
        return false;
    };
    if !decode_debits_into(text, debits) {
        return false;
    }
    let pin = stored.and_then(|stored| stored.pin);
    let versioned = debits.version != Version::default();
    let flag = |flag: u8, set: bool| if set { flag } else { 0 };
    let form = flag(STORED, stored.is_some())
        | flag(PINNED, pin.is_some())
        | flag(HELD_BACK, share != WHOLE)
        | flag(VERSIONED, versioned)
        | flag(TEMPORARY, temporary.is_some());
    let counted = debits.accounts.iter().filter(|account| account.counter.epoch != 0);
    let parts = counted.clone().count().saturating_mul(COUNTER);
    let parts = parts.saturating_add(PARTS);
    let parts = parts.saturating_add(if share != WHOLE { SHARE } else { 0 });
    let parts = parts.saturating_add(if pin.is_some() { PIN } else { 0 });
    let parts = parts.saturating_add(if versioned { VERSION } else { 0 });
    let parts = parts.saturating_add(if temporary.is_some() { TEMPORARY_PARTS } else { 0 });
    write::array(out, parts);
    write::uint(out, form.into());
    write::sint(out, bucket.tokens());
    write::uint(out, bucket.timestamp());
    // The one in force; unless a temporary pin is over it, it is what is stored.
    let policy = bucket.policy();
    write::uint(out, policy.capacity());
    write::uint(out, policy.refill());
    write::uint(out, policy.interval_ms());
    write::uint(out, bucket.weight().get().into());
    write::uint(out, debits.fraction);
    if share != WHOLE {
        write::uint(out, share.into());
    }
    if let Some(pin) = pin {
        write::uint(out, pin);
    }
    if let Some(temporary) = temporary {
        write::uint(out, temporary.until);
        write::uint(out, temporary.version);
        let beneath = stored.map_or(policy, |stored| stored.policy);
        write::uint(out, beneath.capacity());
        write::uint(out, beneath.refill());
        write::uint(out, beneath.interval_ms());
    }
    if versioned {
        write::uint(out, debits.version.number);
        match &debits.version.origin {
            None => write::text(out, ""),
            Some(origin) => name(out, names, origin),
        }
    }
    for Account { id, counter, .. } in counted {
        name(out, names, id);
        write::uint(out, counter.epoch);
        write::uint(out, counter.spent);
        write::uint(out, counter.refunded);
    }
    true
}

fn name(out: &mut Vec<u8>, names: &mut Names, id: &ReplicaId) {
    match names.place(id) {
        Some(place) => write::uint(out, place),
        None => write::text(out, id.as_str()),
    }
}

/// What states are read with, and into: memory that is used again.
#[derive(Debug)]
pub struct Wire {
    /// The names that go before the states.
    names: Names,
    /// When they were sent, in unix microseconds of the sender's clock.
    sent: u64,
    debits: Debits,
    remote: Remote,
    /// No peers: what is credited here goes by the share that was sent.
    nobody: Membership,
}

impl Wire {
    /// For states that region `from` has sent.
    #[must_use]
    pub fn new(from: ReplicaId, names: Names, sent: u64) -> Self {
        let bucket = SharedBucket::full(Policy::DEFAULT, Weight::ONE, 0);
        let remote = Remote { from: Some(from), bucket, stored: None, temporary: None };
        Self { names, sent, debits: Debits::default(), remote, nobody: Membership::default() }
    }
}

/// Reads what [`encode_wire`] wrote; `now` (unix microseconds) bounds the timestamp. The bucket is
/// credited up to the moment of sending, at the share at which it refilled until then.
///
/// # Errors
/// See [`BlobError`]. Any bytes are safe to give.
pub fn decode_wire<'a>(
    bytes: &[u8],
    now: u64,
    wire: &'a mut Wire,
) -> Result<&'a Remote, BlobError> {
    let Wire { names, sent, debits, remote, nobody } = wire;
    // The accounts of the state before.
    debits.accounts = remote.bucket.take_accounts();
    let mut rest = bytes;
    let read = read(&mut rest, names, debits).filter(|_| rest.is_empty());
    let Read { form, tokens, timestamp, policy, weight, share, pin, temporary } =
        read.ok_or(BlobError::Malformed)?;
    let policy = policy.ok_or(BlobError::OutOfBounds("policy"))?;
    let weight = Weight::new(weight).ok_or(BlobError::OutOfBounds("weight"))?;
    if !(MAX_DEBT.saturating_neg()..=policy.capacity_micros()).contains(&tokens) {
        return Err(BlobError::OutOfBounds("tokens"));
    }
    let share = u16::try_from(share).ok().filter(|share| *share <= WHOLE);
    let share = share.ok_or(BlobError::OutOfBounds("share"))?;
    let latest = now.saturating_add(MAX_LEAD_US).min(MAX_TIMESTAMP_US);
    if timestamp > latest || *sent > latest {
        return Err(BlobError::OutOfBounds("timestamp"));
    }
    debits.accounts.sort_unstable_by_key(|account| account.id);
    let sane = |account: &Account| (1..=MAX_EPOCH).contains(&account.counter.epoch);
    if !in_order(&debits.accounts) || !debits.accounts.iter().all(sane) {
        return Err(BlobError::OutOfBounds("debits"));
    }
    // Until when the policy was in force that it refilled at.
    let credited = temporary.map_or(*sent, |(until, ..)| until.min(*sent));
    let (beneath, temporary) = match temporary {
        None => (policy, None),
        Some((until, version, beneath)) => {
            let left = until.saturating_sub(*sent);
            if left.div_ceil(1_000) > MAX_INTERVAL_MS {
                return Err(BlobError::OutOfBounds("temporary"));
            }
            let temporary = Temporary { policy, until: now.saturating_add(left), version };
            (beneath.ok_or(BlobError::OutOfBounds("policy"))?, Some(temporary))
        }
    };
    let pins = [pin, temporary.map(|temporary| temporary.version)];
    if pins.into_iter().flatten().fold(debits.version.number, u64::max) > MAX_VERSION {
        return Err(BlobError::OutOfBounds("version"));
    }
    remote.stored = (form & STORED != 0).then_some(StoredPolicy { policy: beneath, pin });
    // One that has ended says which change it was, and no more.
    remote.temporary = temporary;
    remote.bucket.set(&Bucket::new(policy, weight, tokens, 0, timestamp), debits);
    remote.bucket.leak(credited, share, nobody);
    Ok(remote)
}

/// What is read besides the debits.
struct Read {
    form: u8,
    tokens: i64,
    timestamp: u64,
    policy: Option<Policy>,
    weight: u64,
    share: u64,
    pin: Option<u64>,
    /// End, version, and the policy beneath.
    temporary: Option<(u64, u64, Option<Policy>)>,
}

fn read(rest: &mut &[u8], names: &Names, debits: &mut Debits) -> Option<Read> {
    let parts = reader::array(rest)?.checked_sub(PARTS)?;
    let form = u8::try_from(reader::uint(rest)?).ok()?;
    let tokens = reader::sint(rest)?;
    let timestamp = reader::uint(rest)?;
    let (capacity, refill) = (reader::uint(rest)?, reader::uint(rest)?);
    let policy = Policy::new(capacity, refill, reader::uint(rest)?).ok();
    let weight = reader::uint(rest)?;
    debits.fraction = reader::uint(rest)?;
    let (share, parts) = match form & HELD_BACK {
        0 => (WHOLE.into(), parts),
        _ => (reader::uint(rest)?, parts.checked_sub(SHARE)?),
    };
    let (pin, parts) = match form & PINNED {
        0 => (None, parts),
        _ => (Some(reader::uint(rest)?), parts.checked_sub(PIN)?),
    };
    let (temporary, parts) = match form & TEMPORARY {
        0 => (None, parts),
        _ => {
            let (until, version) = (reader::uint(rest)?, reader::uint(rest)?);
            let (capacity, refill) = (reader::uint(rest)?, reader::uint(rest)?);
            let beneath = Policy::new(capacity, refill, reader::uint(rest)?).ok();
            (Some((until, version, beneath)), parts.checked_sub(TEMPORARY_PARTS)?)
        }
    };
    let (version, parts) = match form & VERSIONED {
        0 => (Version::default(), parts),
        _ => {
            let number = reader::uint(rest)?;
            (Version { number, origin: read_name(rest, names)? }, parts.checked_sub(VERSION)?)
        }
    };
    debits.version = version;
    let counted = parts.checked_div(COUNTER)?;
    if counted > MAX_REPLICAS || counted.checked_mul(COUNTER)? != parts {
        return None;
    }
    debits.accounts.resize(counted, Account::BLANK);
    for account in &mut debits.accounts {
        account.id = read_name(rest, names)??;
        account.counter = Counter {
            epoch: reader::uint(rest)?,
            spent: reader::uint(rest)?,
            refunded: reader::uint(rest)?,
        };
        account.slack = None;
    }
    Some(Read { form, tokens, timestamp, policy, weight, share, pin, temporary })
}

/// `Some(None)` is nobody, which stands as a text without letters.
fn read_name(rest: &mut &[u8], names: &Names) -> Option<Option<ReplicaId>> {
    if let Some(place) = reader::small(rest) {
        return names.0.get(usize::from(place)).copied().map(Some);
    }
    match reader::text(rest)? {
        b"" => Some(None),
        name => Some(Some(ReplicaId::new(name).ok()?)),
    }
}
