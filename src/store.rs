//! A bucket read from its hash, and written back.

use crate::error::Error;
use crate::regions::Part;
use crate::server::{self, Context, EventClass, Key, Kind, Module, OwnedStr, Str};
use claw_core::decimal::Decimal;
use claw_core::limits::MICRO;
use claw_core::policy::Policy;
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
    load_expecting(ctx, key, now, false)
}

/// Opens a bucket at `now` (unix microseconds) as one that regions share.
pub(crate) fn open_shared(ctx: &Context<'_>, key: &Key<'_>, now: u64) -> Result<Opened, Error> {
    let record = load_expecting(ctx, key, now, true)?;
    let settings = ctx.module().settings.try_borrow().map_err(|_| Error::Busy)?;
    let region = ctx.module().regions.region().ok_or(Error::Busy)?;
    Ok(Opened::shared(record, settings.defaults(), &region, now))
}

/// [`look`]s at a bucket to take from it or give back, which has to be counted where
/// regions share it.
pub(crate) fn open(ctx: &Context<'_>, key: &Key<'_>, now: u64) -> Result<Opened, Error> {
    let opened = look(ctx, key, now)?;
    if let Some(bucket) = opened.as_shared() {
        let region = ctx.module().regions.region().ok_or(Error::Busy)?;
        if !bucket.can_count(region.writer.as_ref()) {
            return Err(Error::TooManyReplicas);
        }
    }
    Ok(opened)
}

/// Opens a bucket at `now` (unix microseconds), as one that regions share when it
/// is or has to become one.
pub(crate) fn look(ctx: &Context<'_>, key: &Key<'_>, now: u64) -> Result<Opened, Error> {
    let module = ctx.module();
    let counted = module.regions.part(key.name()) == Part::Counted;
    let record = load_expecting(ctx, key, now, counted)?;
    let settings = module.settings.try_borrow().map_err(|_| Error::Busy)?;
    if counted || record.as_ref().is_some_and(|record| record.debits.is_some()) {
        let region = module.regions.region().ok_or(Error::Busy)?;
        let spare = &mut *module.regions.spare().ok_or(Error::Busy)?;
        return Ok(Opened::shared_in(record, settings.defaults(), &region, now, spare));
    }
    Ok(Opened::new(record, settings.defaults(), now))
}

/// Keeps the memory of a bucket that is done with for the next one.
#[inline]
pub(crate) fn done(ctx: &Context<'_>, opened: Opened) {
    if opened.as_shared().is_some()
        && let Some(mut spare) = ctx.module().regions.spare()
    {
        spare.keep(opened);
    }
}

/// The configured default policy.
pub(crate) fn default_policy(ctx: &Context<'_>) -> Result<Policy, Error> {
    let settings = ctx.module().settings.try_borrow().map_err(|_| Error::Busy)?;
    Ok(settings.defaults().current())
}

/// [`load`], reading the debits at once when they are expected.
fn load_expecting(
    ctx: &Context<'_>,
    key: &Key<'_>,
    now: u64,
    debits: bool,
) -> Result<Option<Record>, Error> {
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
        let spare = &mut *module.regions.spare().ok_or(Error::Busy)?;
        record.read_in(field, text, now, spare).map_err(|why| {
            let (key, value) = (key.name().as_bytes().into(), text.into());
            Error::Field { key, field, value, why }
        })?;
        Ok(unseen)
    };
    let [names @ .., debits_name] =
        [Field::Tokens, Field::Timestamp, Field::Debits].map(|field| module.field(field));
    let mut left;
    if debits {
        let [first, second] = names;
        let [tokens, timestamp, counted] = key.get_three([first, second, debits_name]);
        read(Field::Tokens, tokens)?;
        read(Field::Timestamp, timestamp)?;
        left = read(Field::Debits, counted)?;
    } else {
        let [first, second] = names;
        let (tokens, timestamp) = key.get_two(first, second);
        read(Field::Tokens, tokens)?;
        left = read(Field::Timestamp, timestamp)?;
    }
    for field in [Field::Policy, Field::Weight, Field::Remainder, Field::Debits, Field::Regions] {
        if left == 0 {
            break;
        }
        if field != Field::Debits || !debits {
            left = read(field, key.get(module.field(field)))?;
        }
    }
    record.foreign = left > 0;
    Ok(Some(record))
}

/// Writes a bucket, replicates the writes as effects, moves the key's expiry if
/// it has to, announces it all as the server's own HSET would, and notes it for
/// other regions.
pub(crate) fn save(ctx: &Context<'_>, key: &Key<'_>, opened: &mut Opened) -> Result<(), Error> {
    let regions = &ctx.module().regions;
    if let (Part::Folded, Some(id)) = (regions.part(key.name()), regions.id()) {
        opened.record_as(id);
    }
    save_with(ctx, key, opened, None)?;
    regions.note(ctx.db(), key.name(), opened);
    Ok(())
}

/// [`save`], and one more field with its value, without noting it for other
/// regions.
pub(crate) fn save_with(
    ctx: &Context<'_>,
    key: &Key<'_>,
    opened: &Opened,
    besides: Option<(Str<'_>, OwnedStr)>,
) -> Result<(), Error> {
    let module = ctx.module();
    let name = key.name();
    let unwritten = Record::default();
    let old = opened.record().unwrap_or(&unwritten);
    let mut new = opened.to_record();
    let bucket = opened.bucket();

    let tokens = amount(bucket.tokens()).ok_or(Error::Panic)?;
    let timestamp = OwnedStr::from_integer(bucket.timestamp()).ok_or(Error::Panic)?;
    let always = [
        module.field(Field::Tokens),
        tokens.as_str(),
        module.field(Field::Timestamp),
        timestamp.as_str(),
    ];
    let Changes { mut set, deleted } = changes(module, old, &new)?;
    let debits = match opened.as_shared() {
        None => None,
        Some(shared) => Some(module.regions.debits_of(shared).ok_or(Error::Busy)?),
    };
    let more_written = besides.is_some();
    set.extend(besides);

    // Nothing below can fail.
    let [tokens_name, tokens, timestamp_name, timestamp] = always;
    let debits_name = module.field(Field::Debits);
    match &debits {
        None => key.set_two((tokens_name, tokens), (timestamp_name, timestamp)),
        Some(debits) => key.set_three(
            (tokens_name, tokens),
            (timestamp_name, timestamp),
            (debits_name, debits.as_str()),
        ),
    }
    if let (true, Some(debits)) = (set.is_empty(), &debits) {
        ctx.replicate_six(c"HSET", name, always, [debits_name, debits.as_str()]);
    } else if set.is_empty() {
        ctx.replicate_four(c"HSET", name, always);
    } else {
        let mut arguments = always.to_vec();
        if let Some(debits) = &debits {
            arguments.extend([debits_name, debits.as_str()]);
        }
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
    let fields = new.fields().saturating_add(usize::from(opened.as_shared().is_some()));
    new.foreign = (old.foreign || more_written) && key.len() > fields;
    let expiry = new.expiry(opened, module.regions.is_awaited());
    let moved = expire(ctx, key, expiry, opened.record().is_some());

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
    if new.regions != old.regions {
        change(Field::Regions, new.regions.as_ref().map(|bytes| OwnedStr::new(bytes)))?;
    }
    Ok(changes)
}

/// Whether the expiry of a key whose bucket stays as it is has to be moved.
pub(crate) fn expiry_is_due(ctx: &Context<'_>, key: &Key<'_>, opened: &Opened) -> bool {
    let awaited = ctx.module().regions.is_awaited();
    let due = |record: &Record| move_to(record.expiry(opened, awaited), key.expiry()).is_some();
    opened.record().is_some_and(due)
}

/// Moves the expiry of a key whose bucket stays as it is, if it has to.
pub(crate) fn renew_expiry(ctx: &Context<'_>, key: &Key<'_>, opened: &Opened) {
    let Some(record) = opened.record() else {
        return;
    };
    let awaited = ctx.module().regions.is_awaited();
    if let Some(event) = expire(ctx, key, record.expiry(opened, awaited), true) {
        ctx.signal_modified(key.name());
        ctx.notify(EventClass::Generic, event, key.name());
    }
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
    match move_to(expiry, present)? {
        None => {
            key.set_expiry(None);
            ctx.replicate(c"PERSIST", name, &[]);
            Some(c"persist")
        }
        Some(set) => {
            // A merge can bring a state so old that it has long been full.
            let set = set.max((server::now() / 1_000).saturating_add(GRACE_MS));
            let at = OwnedStr::from_integer(set)?;
            key.set_expiry(Some(set));
            ctx.replicate(c"PEXPIREAT", name, &[at.as_str()]);
            Some(c"expire")
        }
    }
}

/// Where an expiry has to be moved to, in unix milliseconds, or `Some(None)` to
/// nowhere; `None` when it may stay.
fn move_to(expiry: Expiry, present: Option<u64>) -> Option<Option<u64>> {
    match (expiry, present) {
        (Expiry::Never, None) => None,
        (Expiry::Never, Some(_)) => Some(None),
        (Expiry::At { earliest, latest, .. }, Some(at)) if (earliest..=latest).contains(&at) => {
            None
        }
        (Expiry::At { set, .. }, _) => Some(Some(set)),
    }
}

/// Millionths of a token as text.
fn amount(micros: u64) -> Option<OwnedStr> {
    if micros.is_multiple_of(MICRO) {
        return OwnedStr::from_integer(micros / MICRO);
    }
    OwnedStr::new(Decimal::new(micros).as_bytes())
}
