//! A bucket read from its hash, and written back.

use crate::error::Error;
use crate::server::{self, Context, EventClass, Key, Kind, Module, OwnedStr, Str};
use claw_core::decimal::Decimal;
use claw_core::limits::MICRO;
use claw_core::record::{Expiry, Field, Opened, Record};
use std::ffi::CStr;

/// How long a key stays at the least when its expiry is set, in milliseconds.
const GRACE_MS: u64 = 2_000;

/// Reads the fields of a bucket at `now` (unix microseconds); `None` for a
/// missing key.
///
/// Most buckets have two fields only. A hash knows its length, and when all of
/// its fields have been found there is no need to look for more.
pub(crate) fn load(ctx: &Context<'_>, key: &Key<'_>, now: u64) -> Result<Option<Record>, Error> {
    match key.kind() {
        Kind::Missing => return Ok(None),
        Kind::Other => return Err(Error::WrongType),
        Kind::Hash => {}
    }
    let module = ctx.module();
    let mut unseen = key.len();
    let mut record = Record::default();
    let mut read = |field: Field, value: Option<OwnedStr>| -> Result<usize, Error> {
        let Some(value) = value else {
            return Ok(unseen);
        };
        unseen = unseen.saturating_sub(1);
        let text = value.as_str().as_bytes();
        record.read(field, text, now).map_err(|why| {
            module.stats.corrupt.add(1);
            let (key, value) = (key.name().as_bytes().into(), text.into());
            Error::Field { key, field, value, why }
        })?;
        Ok(unseen)
    };
    let (tokens, timestamp) =
        key.get_two(module.field(Field::Tokens), module.field(Field::Timestamp));
    read(Field::Tokens, tokens)?;
    let mut left = read(Field::Timestamp, timestamp)?;
    for field in [Field::Policy, Field::Weight, Field::Remainder] {
        if left == 0 {
            break;
        }
        left = read(field, key.get(module.field(field)))?;
    }
    record.foreign = left > 0;
    Ok(Some(record))
}

/// Writes a bucket, replicates the writes as effects, moves the key's expiry if
/// it has to, and announces it all as the server's own HSET would.
pub(crate) fn save(ctx: &Context<'_>, key: &Key<'_>, opened: &Opened) -> Result<(), Error> {
    save_with(ctx, key, opened, None)
}

/// [`save`], and one more field with its value.
pub(crate) fn save_with(
    ctx: &Context<'_>,
    key: &Key<'_>,
    opened: &Opened,
    besides: Option<(Str<'_>, OwnedStr)>,
) -> Result<(), Error> {
    let module = ctx.module();
    let name = key.name();
    let old = opened.record().copied().unwrap_or_default();
    let mut new = opened.to_record();

    let tokens = amount(opened.bucket.tokens()).ok_or(Error::Panic)?;
    let timestamp = OwnedStr::from_integer(opened.bucket.timestamp()).ok_or(Error::Panic)?;
    let always = [
        module.field(Field::Tokens),
        tokens.as_str(),
        module.field(Field::Timestamp),
        timestamp.as_str(),
    ];
    let Changes { mut set, deleted } = changes(module, &old, &new)?;
    let more_written = besides.is_some();
    set.extend(besides);

    // Nothing below can fail.
    let [tokens_name, tokens, timestamp_name, timestamp] = always;
    key.set_two((tokens_name, tokens), (timestamp_name, timestamp));
    if set.is_empty() {
        ctx.replicate_four(c"HSET", name, always);
    } else {
        let mut arguments = always.to_vec();
        for (field, value) in &set {
            key.set(*field, value.as_str());
            arguments.extend([*field, value.as_str()]);
        }
        ctx.replicate(c"HSET", name, &arguments);
    }
    if !deleted.is_empty() {
        for field in &deleted {
            key.delete(*field);
        }
        ctx.replicate(c"HDEL", name, &deleted);
    }
    // Counted again: on reading, fields of ours that had expired by themselves
    // were taken for the user's.
    new.foreign = (old.foreign || more_written) && key.len() > new.fields();
    let moved = expire(ctx, key, new.expiry(&opened.bucket), opened.record().is_some());

    // Only now: whoever listens may do with the key what they like.
    ctx.signal_modified(name);
    ctx.notify(EventClass::Hash, c"hset", name);
    if !deleted.is_empty() {
        ctx.notify(EventClass::Hash, c"hdel", name);
    }
    if let Some(event) = moved {
        ctx.notify(EventClass::Generic, event, name);
    }
    Ok(())
}

/// The fields besides tokens and timestamp that have to change.
struct Changes<'a> {
    set: Vec<(Str<'a>, OwnedStr)>,
    deleted: Vec<Str<'a>>,
}

fn changes<'a>(module: &'a Module, old: &Record, new: &Record) -> Result<Changes<'a>, Error> {
    let mut changes = Changes { set: Vec::new(), deleted: Vec::new() };
    let mut change = |field: Field, value: Option<Option<OwnedStr>>| {
        match value {
            Some(value) => changes.set.push((module.field(field), value.ok_or(Error::Panic)?)),
            None => changes.deleted.push(module.field(field)),
        }
        Ok::<(), Error>(())
    };
    if new.policy != old.policy {
        let text = new.policy.map(|stored| OwnedStr::new(stored.to_string().as_bytes()));
        change(Field::Policy, text)?;
    }
    if new.weight != old.weight {
        let text = new.weight.map(|weight| OwnedStr::from_integer(u64::from(weight.get())));
        change(Field::Weight, text)?;
    }
    if new.remainder != old.remainder {
        change(Field::Remainder, new.remainder.map(OwnedStr::from_integer))?;
    }
    Ok(changes)
}

/// Moves the key's expiry if it has to, and returns the event to announce.
fn expire(
    ctx: &Context<'_>,
    key: &Key<'_>,
    expiry: Expiry,
    existed: bool,
) -> Option<&'static CStr> {
    let name = key.name();
    let present = existed.then(|| key.expiry()).flatten();
    match (expiry, present) {
        (Expiry::Never, None) => None,
        (Expiry::Never, Some(_)) => {
            key.set_expiry(None);
            ctx.replicate(c"PERSIST", name, &[]);
            Some(c"persist")
        }
        (Expiry::At { earliest, latest, .. }, Some(at)) if (earliest..=latest).contains(&at) => {
            None
        }
        (Expiry::At { set, .. }, _) => {
            // A merge can bring a state so old that it has long been full.
            let set = set.max((server::now() / 1_000).saturating_add(GRACE_MS));
            let at = OwnedStr::from_integer(set)?;
            key.set_expiry(Some(set));
            ctx.replicate(c"PEXPIREAT", name, &[at.as_str()]);
            Some(c"expire")
        }
    }
}

/// Millionths of a token as text.
fn amount(micros: u64) -> Option<OwnedStr> {
    if micros.is_multiple_of(MICRO) {
        return OwnedStr::from_integer(micros / MICRO);
    }
    OwnedStr::new(Decimal::new(micros).as_bytes())
}
