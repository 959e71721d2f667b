//! A bucket read from its hash, and written back.

use crate::error::Error;
use crate::regions::Part;
use crate::server::{self, Context, EventClass, Key, Kind, Module, OwnedStr, Str};
use claw_core::decimal::Decimal;
use claw_core::policy::Policy;
use claw_core::record::{Expiry, Field, FieldError, Opened, Record, Spare};
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
    let region = ctx.module().regions.region()?;
    Ok(Opened::shared(record, settings.defaults(), &region, now))
}

/// [`look`]s at a bucket to take from it or give back, which has to be counted where
/// regions share it.
pub(crate) fn open(ctx: &Context<'_>, key: &Key<'_>, now: u64) -> Result<Opened, Error> {
    let opened = look(ctx, key, now)?;
    if let Some(bucket) = opened.as_shared() {
        let region = ctx.module().regions.region()?;
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
        let region = module.regions.region()?;
        let spare = &mut *module.regions.spare()?;
        return Ok(Opened::shared_in(record, settings.defaults(), &region, now, spare));
    }
    Ok(Opened::new(record, settings.defaults(), now))
}

/// Keeps the memory of a bucket that is done with for the next one.
#[inline]
pub(crate) fn done(ctx: &Context<'_>, opened: Opened) {
    if opened.as_shared().is_some()
        && let Ok(mut spare) = ctx.module().regions.spare()
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
    let mut fields = Fields { key, now, record: Record::default(), left: key.len() };
    let [tokens_name, timestamp_name, debits_name] =
        [Field::Tokens, Field::Timestamp, Field::Debits].map(|field| module.field(field));
    if debits {
        let [tokens, timestamp, counted] =
            key.get_three([tokens_name, timestamp_name, debits_name]);
        fields.read(Field::Tokens, tokens)?;
        fields.read(Field::Timestamp, timestamp)?;
        fields.read_debits(counted, &mut *module.regions.spare()?)?;
    } else {
        let (tokens, timestamp) = key.get_two(tokens_name, timestamp_name);
        fields.read(Field::Tokens, tokens)?;
        fields.read(Field::Timestamp, timestamp)?;
    }
    for field in [Field::Policy, Field::Weight, Field::Remainder, Field::Regions] {
        if fields.left == 0 {
            break;
        }
        fields.read(field, key.get(module.field(field)))?;
    }
    if fields.left > 0 && !debits {
        fields.read_debits(key.get(debits_name), &mut *module.regions.spare()?)?;
    }
    fields.record.foreign = fields.left > 0;
    Ok(Some(fields.record))
}

/// The fields of a hash while they are read.
struct Fields<'a> {
    key: &'a Key<'a>,
    now: u64,
    record: Record,
    /// How many have not been found yet.
    left: usize,
}

impl Fields<'_> {
    #[inline]
    fn read(&mut self, field: Field, value: Option<OwnedStr>) -> Result<(), Error> {
        self.read_by(field, value, |record, text, now| record.read(field, text, now))
    }

    fn read_debits(&mut self, value: Option<OwnedStr>, spare: &mut Spare) -> Result<(), Error> {
        self.read_by(Field::Debits, value, |record, text, _| record.read_debits(text, spare))
    }

    #[inline]
    fn read_by(
        &mut self,
        field: Field,
        value: Option<OwnedStr>,
        read: impl FnOnce(&mut Record, &[u8], u64) -> Result<(), FieldError>,
    ) -> Result<(), Error> {
        let Some(value) = value else {
            return Ok(());
        };
        self.left = self.left.saturating_sub(1);
        let text = value.as_str().as_bytes();
        read(&mut self.record, text, self.now).map_err(|why| corrupt(self.key, field, text, why))
    }
}

#[cold]
fn corrupt(key: &Key<'_>, field: Field, value: &[u8], why: FieldError) -> Error {
    Error::Field { key: key.name().as_bytes().into(), field, value: value.into(), why }
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

    let tokens = OwnedStr::of(&Decimal::new(bucket.tokens()))?;
    let timestamp = module.stamp(bucket.timestamp())?;
    let debits = match opened.as_shared() {
        None => None,
        Some(shared) => Some(module.regions.debits_of(shared)?),
    };
    let Changes { mut set, deleted } = changes(module, old, &new)?;
    let more_written = besides.is_some();
    set.extend(besides);

    // Nothing below can fail.
    let [tokens_name, timestamp_name, debits_name] =
        [Field::Tokens, Field::Timestamp, Field::Debits].map(|field| module.field(field));
    let (first, second) = ((tokens_name, tokens.as_str()), (timestamp_name, timestamp.as_str()));
    let always = [first.0, first.1, second.0, second.1];
    let counted;
    let written: &[Str<'_>] = match &debits {
        None => {
            key.set_two(first, second);
            &always
        }
        Some(debits) => {
            let third = (debits_name, debits.as_str());
            key.set_three(first, second, third);
            counted = [first.0, first.1, second.0, second.1, third.0, third.1];
            &counted
        }
    };
    if set.is_empty() {
        ctx.replicate(c"HSET", name, written);
    } else {
        let mut arguments = written.to_vec();
        for (field, value) in &set {
            key.set(*field, value.as_str());
            arguments.extend([*field, value.as_str()]);
        }
        ctx.replicate(c"HSET", name, &arguments);
    }
    module.keep_stamp(bucket.timestamp(), timestamp);
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
    let due = |record: &Record| record.expiry(opened, awaited).move_from(key.expiry()).is_some();
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
    match expiry.move_from(present)? {
        None => {
            key.set_expiry(None);
            ctx.replicate(c"PERSIST", name, &[]);
            Some(c"persist")
        }
        Some(set) => {
            // A merge can bring a state so old that it has long been full.
            let set = set.max((server::now() / 1_000).saturating_add(GRACE_MS));
            key.set_expiry(Some(set));
            ctx.replicate_integer(c"PEXPIREAT", name, set);
            Some(c"expire")
        }
    }
}
