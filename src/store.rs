//! A bucket read from its hash, and written back.

use crate::error::Error;
use crate::host::{self, Context, EventClass, Key, Kind, Module, OwnedStr, PooledBucket, Str};
use crate::regions::SyncMode;
use claw_core::bucket::Bucket;
use claw_core::codec;
use claw_core::policy::Policy;
use claw_core::record::{BucketPool, Field, FieldError, OpenBucket, Record};
use std::ffi::CStr;

/// How long a key stays at the least when its expiry is set, in milliseconds.
const GRACE_MS: u64 = 2_000;

/// Reads the fields of a bucket at `now` (unix microseconds); `None` for a
/// missing key.
pub(crate) fn load(ctx: &Context<'_>, key: &Key<'_>, now: u64) -> Result<Option<Record>, Error> {
    let mut record = None;
    read(ctx, key, now, false, &mut record)?;
    Ok(record)
}

/// Opens a bucket at `now` (unix microseconds) as one that regions share.
pub(crate) fn open_shared<'c>(
    ctx: &Context<'c>,
    key: &Key<'_>,
    now: u64,
) -> Result<PooledBucket<'c>, Error> {
    open_as(ctx, key, now, true)
}

/// Opens at a bucket to take from it or give back, which has to be counted where
/// regions share it.
pub(crate) fn open_for_count<'c>(
    ctx: &Context<'c>,
    key: &Key<'_>,
    now: u64,
) -> Result<PooledBucket<'c>, Error> {
    let opened = open_for_read(ctx, key, now)?;
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
pub(crate) fn open_for_read<'c>(
    ctx: &Context<'c>,
    key: &Key<'_>,
    now: u64,
) -> Result<PooledBucket<'c>, Error> {
    let counted = ctx.module().regions.mode(key.name()) == SyncMode::Counters;
    open_as(ctx, key, now, counted)
}

fn open_as<'c>(
    ctx: &Context<'c>,
    key: &Key<'_>,
    now: u64,
    counted: bool,
) -> Result<PooledBucket<'c>, Error> {
    let module = ctx.module();
    let mut open = module.room()?;
    read(ctx, key, now, counted, open.record_mut())?;
    let settings = module.settings.try_borrow().map_err(|_| Error::Busy)?;
    if counted || open.record().is_some_and(|record| record.debits.is_some()) {
        let region = module.regions.region()?;
        open.begin_shared(settings.defaults(), &region, now, &mut *module.spare()?);
    } else {
        open.begin(settings.defaults(), now);
    }
    Ok(open)
}

/// The configured default policy.
pub(crate) fn default_policy(ctx: &Context<'_>) -> Result<Policy, Error> {
    let settings = ctx.module().settings.try_borrow().map_err(|_| Error::Busy)?;
    Ok(settings.defaults().current())
}

/// Reads the fields of a bucket at `now` into `record`, which is `None`, and the debits
/// at once when they are expected.
///
/// Most buckets have two fields only. A hash knows its length, and when all of
/// its fields have been found there is no need to look for more.
fn read(
    ctx: &Context<'_>,
    key: &Key<'_>,
    now: u64,
    debits: bool,
    record: &mut Option<Record>,
) -> Result<(), Error> {
    match key.kind() {
        Kind::Missing => return Ok(()),
        Kind::Other => return Err(Error::WrongType),
        Kind::Hash => {}
    }
    let module = ctx.module();
    let record = record.insert(Record::default());
    let mut fields = Fields { key, now, record, left: key.len() };
    let [tokens_name, timestamp_name, debits_name] =
        [Field::Tokens, Field::Timestamp, Field::Debits].map(|field| module.field(field));
    if debits {
        let [tokens, timestamp, counted] =
            key.get_three([tokens_name, timestamp_name, debits_name]);
        fields.read(Field::Tokens, tokens)?;
        fields.read(Field::Timestamp, timestamp)?;
        fields.read_debits(counted, &mut *module.spare()?)?;
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
        fields.read_debits(key.get(debits_name), &mut *module.spare()?)?;
    }
    fields.record.foreign = fields.left > 0;
    Ok(())
}

/// The fields of a hash while they are read.
struct Fields<'a> {
    key: &'a Key<'a>,
    now: u64,
    record: &'a mut Record,
    /// How many have not been found yet.
    left: usize,
}

impl Fields<'_> {
    #[inline]
    fn read(&mut self, field: Field, value: Option<OwnedStr>) -> Result<(), Error> {
        self.read_by(field, value, |record, text, now| record.read(field, text, now))
    }

    fn read_debits(
        &mut self,
        value: Option<OwnedStr>,
        spare: &mut BucketPool,
    ) -> Result<(), Error> {
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
        read(self.record, text, self.now).map_err(|why| corrupt(self.key, field, text, why))
    }
}

#[cold]
fn corrupt(key: &Key<'_>, field: Field, value: &[u8], why: FieldError) -> Error {
    Error::Field { key: key.name().as_bytes().into(), field, value: value.into(), why }
}

/// Writes a bucket, replicates the writes as effects, moves the key's expiry if
/// it has to, notes it for other regions, and announces it all as the server's own
/// HSET would.
pub(crate) fn save(ctx: &Context<'_>, key: &Key<'_>, opened: &mut OpenBucket) -> Result<(), Error> {
    let regions = &ctx.module().regions;
    let mode = regions.mode(key.name());
    if let (SyncMode::Folded, Some(id)) = (mode, regions.id()) {
        opened.record_as(id);
    }
    save_with(ctx, key, opened, None, mode != SyncMode::None)
}

/// A bucket in the form of its hash.
#[derive(Debug)]
pub(crate) struct EncodedBucket {
    /// As its fields hold it.
    pub(crate) bucket: Bucket,
    /// The `debits` field, where regions share it.
    pub(crate) debits: Option<OwnedStr>,
}

impl EncodedBucket {
    /// The form of `opened`.
    #[inline]
    pub(crate) fn of(ctx: &Context<'_>, opened: &OpenBucket) -> Result<Self, Error> {
        let Some(shared) = opened.as_shared() else {
            return Ok(Self { bucket: opened.bucket(), debits: None });
        };
        let mut text = ctx.module().regions.scratch()?;
        let bucket = codec::encode_debits(shared, &mut text);
        match text.as_bytes().and_then(OwnedStr::new) {
            debits @ Some(_) => Ok(Self { bucket, debits }),
            // There is room for whatever a bucket can hold.
            None => Err(Error::Panic),
        }
    }
}

/// [`save`], and one more field with its value; with `tell`, other regions are to know.
pub(crate) fn save_with(
    ctx: &Context<'_>,
    key: &Key<'_>,
    opened: &mut OpenBucket,
    besides: Option<(Str<'_>, OwnedStr)>,
    tell: bool,
) -> Result<(), Error> {
    let module = ctx.module();
    let name = key.name();
    let foreign = besides.is_some() || opened.record().is_some_and(|record| record.foreign);
    // What is shared no more is not walked over either.
    let walked = opened.as_shared().is_some() && module.regions.mode(name) == SyncMode::Counters;
    let looks = !walked || opened.looks_at_expiry(foreign, module.regions.is_awaited());
    let written = EncodedBucket::of(ctx, opened)?;
    let EncodedBucket { bucket, debits } = &written;
    let tokens = OwnedStr::from_micros(bucket.tokens());
    let (Some(tokens), Some(timestamp)) = (tokens, module.stamp(bucket.timestamp())) else {
        return Err(Error::Panic);
    };
    // Mostly there are none.
    let more = match opened.is_plain() && besides.is_none() {
        true => None,
        false => Some(changes(module, opened, besides)?),
    };

    // Nothing below can fail.
    let [tokens_name, timestamp_name, debits_name] =
        [Field::Tokens, Field::Timestamp, Field::Debits].map(|field| module.field(field));
    let (first, second) = ((tokens_name, tokens.as_str()), (timestamp_name, timestamp.as_str()));
    let always = [first.0, first.1, second.0, second.1];
    let counted;
    let set: &[Str<'_>] = match debits {
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
    match &more {
        None => ctx.replicate(c"HSET", name, set),
        Some(more) => more.apply(ctx, key, set),
    }
    module.keep_stamp(bucket.timestamp(), timestamp);
    // Counted again: on reading, fields of ours that had expired by themselves
    // were taken for the user's.
    let shared = usize::from(opened.as_shared().is_some());
    let foreign = foreign && key.len() > opened.to_record().fields().saturating_add(shared);
    let moved = if looks { expire(ctx, key, opened, foreign) } else { None };
    if tell {
        module.regions.note(ctx.db(), name, opened, &written);
    }
    // Only now: whoever listens may do with the key what they like.
    ctx.signal_modified(name);
    ctx.notify(EventClass::Hash, c"hset", name);
    if more.is_some_and(|more| !more.deleted.is_empty()) {
        ctx.notify(EventClass::Hash, c"hdel", name);
    }
    if let Some(event) = moved {
        ctx.notify(EventClass::Generic, event, name);
    }
    Ok(())
}

/// The fields besides tokens, timestamp and debits that have to change.
struct Changes<'a> {
    set: Vec<(Str<'a>, OwnedStr)>,
    deleted: Vec<Str<'a>>,
}

impl Changes<'_> {
    /// Writes them, and replicates all; `written` has been, names and values.
    fn apply(&self, ctx: &Context<'_>, key: &Key<'_>, written: &[Str<'_>]) {
        let mut arguments = written.to_vec();
        for (field, value) in &self.set {
            key.set(*field, value.as_str());
            arguments.extend([*field, value.as_str()]);
        }
        ctx.replicate(c"HSET", key.name(), &arguments);
        if !self.deleted.is_empty() {
            for field in &self.deleted {
                key.delete(*field);
            }
            ctx.replicate(c"HDEL", key.name(), &self.deleted);
        }
    }
}

fn changes<'a>(
    module: &'a Module,
    opened: &OpenBucket,
    besides: Option<(Str<'a>, OwnedStr)>,
) -> Result<Changes<'a>, Error> {
    let mut changes = Changes { set: Vec::new(), deleted: Vec::new() };
    let unwritten = Record::default();
    let (old, new) = (opened.record().unwrap_or(&unwritten), opened.to_record());
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
    changes.set.extend(besides);
    Ok(changes)
}

/// Whether the expiry of a key whose bucket stays as it is has to be moved.
pub(crate) fn expiry_is_due(ctx: &Context<'_>, key: &Key<'_>, opened: &OpenBucket) -> bool {
    let due = |record: &Record| moved_expiry(ctx, key, opened, record.foreign).is_some();
    opened.record().is_some_and(due)
}

/// Moves the expiry of a key whose bucket stays as it is, if it has to.
pub(crate) fn renew_expiry(ctx: &Context<'_>, key: &Key<'_>, opened: &OpenBucket) {
    let Some(record) = opened.record() else {
        return;
    };
    if let Some(event) = expire(ctx, key, opened, record.foreign) {
        ctx.signal_modified(key.name());
        ctx.notify(EventClass::Generic, event, key.name());
    }
}

/// Where the key's expiry has to be moved, see [`Expiry::move_from`]; `foreign` says
/// whether the hash has fields of the user's own.
///
/// [`Expiry::move_from`]: claw_core::record::Expiry::move_from
fn moved_expiry(
    ctx: &Context<'_>,
    key: &Key<'_>,
    opened: &OpenBucket,
    foreign: bool,
) -> Option<Option<u64>> {
    let awaited = ctx.module().regions.is_awaited();
    let present = opened.record().and_then(|_| key.expiry());
    if present.is_some_and(|at| opened.expiry_may_stay(at, foreign, awaited)) {
        return None;
    }
    let record = Record { foreign, ..opened.to_record() };
    record.expiry(opened, awaited).move_from(present)
}

/// Moves the key's expiry if it has to, and returns the event to announce.
fn expire(
    ctx: &Context<'_>,
    key: &Key<'_>,
    opened: &OpenBucket,
    foreign: bool,
) -> Option<&'static CStr> {
    let name = key.name();
    match moved_expiry(ctx, key, opened, foreign)? {
        None => {
            key.set_expiry(None);
            ctx.replicate(c"PERSIST", name, &[]);
            Some(c"persist")
        }
        Some(set) => {
            // A merge can bring a state so old that it has long been full.
            let set = set.max((host::now() / 1_000).saturating_add(GRACE_MS));
            key.set_expiry(Some(set));
            ctx.replicate_integer(c"PEXPIREAT", name, set);
            Some(c"expire")
        }
    }
}
