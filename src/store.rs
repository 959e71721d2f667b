//! A bucket read from its hash, and written back as it was planned: what is decided about it is
//! decided in `claw-core`.

use crate::error::Error;
use crate::host::{Context, EventClass, Key, Kind, Lent, OwnedStr, Owner, Str};
use crate::regions::Notes;
use claw_core::open::{BucketPool, OpenBucket};
use claw_core::plan::{Change, Changes, Plan, SyncMode};
use claw_core::policy::Policy;
use claw_core::policy_cache::PolicyCache;
use claw_core::record::{Field, FieldError, Record};
use std::cell::{Cell, RefCell, RefMut};
use std::ffi::CStr;

/// What reading and writing buckets uses again.
#[derive(Debug)]
pub(crate) struct Store {
    names: Names,
    /// See [`PooledBucket`].
    pool: RefCell<BucketPool>,
    stamp: RefCell<Option<(u64, OwnedStr)>>,
    policies: RefCell<PolicyCache>,
    /// What the last bucket of three fields had besides tokens and timestamp: mostly the next one
    /// has the same.
    third: Cell<Field>,
}

/// An open bucket. Its memory is the next one's when it is dropped.
pub(crate) type PooledBucket<'c> = Lent<'c, Box<OpenBucket>, Store>;

impl Owner<Box<OpenBucket>> for Store {
    fn take_back(&self, opened: Box<OpenBucket>) {
        if let Ok(mut pool) = self.pool() {
            pool.keep(opened);
        }
    }
}

impl Store {
    /// `None` when the server made no string.
    pub(crate) fn new() -> Option<Self> {
        Some(Self {
            names: Names::new()?,
            pool: RefCell::default(),
            stamp: RefCell::default(),
            policies: RefCell::default(),
            third: Cell::new(Field::Policy),
        })
    }

    /// Memory of a bucket that is done with.
    fn pool(&self) -> Result<RefMut<'_, BucketPool>, Error> {
        self.pool.try_borrow_mut().map_err(|_| Error::Busy)
    }

    /// Room for a bucket that is to be read.
    fn room(&self) -> Result<PooledBucket<'_>, Error> {
        Ok(Lent::new(self.pool()?.take(), self))
    }

    /// The text of a timestamp. Where the clock has only milliseconds, commands that
    /// come together have the same one, so that the last is [kept](Self::keep_stamp).
    fn stamp(&self, at: u64) -> Option<OwnedStr> {
        let kept = self.stamp.try_borrow_mut().ok().and_then(|mut stamp| stamp.take());
        match kept {
            Some((same, text)) if same == at => Some(text),
            _ => OwnedStr::from_integer(at),
        }
    }

    /// Keeps the text of a timestamp for the next command.
    fn keep_stamp(&self, at: u64, text: OwnedStr) {
        if let Ok(mut stamp) = self.stamp.try_borrow_mut() {
            *stamp = Some((at, text));
        }
    }

    /// A field's name as a server string, made once.
    fn field(&self, field: Field) -> Str<'_> {
        let names = &self.names;
        match field {
            Field::Tokens => names.tokens.as_str(),
            Field::Timestamp => names.timestamp.as_str(),
            Field::Weight => names.weight.as_str(),
            Field::Policy => names.policy.as_str(),
            Field::Temporary => names.temporary.as_str(),
            Field::Remainder => names.remainder.as_str(),
            Field::Debits => names.debits.as_str(),
            Field::Regions => names.regions.as_str(),
        }
    }
}

/// Field names, so that the hot path need not make them.
#[derive(Debug)]
struct Names {
    tokens: OwnedStr,
    timestamp: OwnedStr,
    weight: OwnedStr,
    policy: OwnedStr,
    temporary: OwnedStr,
    remainder: OwnedStr,
    debits: OwnedStr,
    regions: OwnedStr,
}

impl Names {
    fn new() -> Option<Self> {
        let name = |field: Field| OwnedStr::new(field.name().as_bytes());
        Some(Self {
            tokens: name(Field::Tokens)?,
            timestamp: name(Field::Timestamp)?,
            weight: name(Field::Weight)?,
            policy: name(Field::Policy)?,
            temporary: name(Field::Temporary)?,
            remainder: name(Field::Remainder)?,
            debits: name(Field::Debits)?,
            regions: name(Field::Regions)?,
        })
    }
}

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

/// [Opens](open_for_read) a bucket to take from it or give back, which has to be counted where
/// regions share it.
pub(crate) fn open_for_count<'c>(
    ctx: &Context<'c>,
    key: &Key<'_>,
    now: u64,
) -> Result<PooledBucket<'c>, Error> {
    let opened = open_for_read(ctx, key, now)?;
    match opened.as_shared().is_none() || opened.can_count(&*ctx.module().regions.region()?) {
        true => Ok(opened),
        false => Err(Error::TooManyReplicas),
    }
}

/// Opens a bucket at `now` (unix microseconds), as one that regions share when it
/// is or has to become one.
pub(crate) fn open_for_read<'c>(
    ctx: &Context<'c>,
    key: &Key<'_>,
    now: u64,
) -> Result<PooledBucket<'c>, Error> {
    let counted = ctx.module().regions.mode(key.name())? == SyncMode::Counters;
    open_as(ctx, key, now, counted)
}

fn open_as<'c>(
    ctx: &Context<'c>,
    key: &Key<'_>,
    now: u64,
    counted: bool,
) -> Result<PooledBucket<'c>, Error> {
    let module = ctx.module();
    let mut open = module.store.room()?;
    read(ctx, key, now, counted, open.record_mut())?;
    let settings = module.settings()?;
    let name = key.name().as_bytes();
    let configured = settings.configured().of(name);
    if counted || open.record().is_some_and(|record| record.debits.is_some()) {
        let region = module.regions.region()?;
        let home = module.regions.home(ctx.db(), name)?;
        let pool = &mut *module.store.pool()?;
        open.begin_shared(&configured, &region, now, Some(home), pool);
    } else {
        open.begin(&configured, now);
    }
    Ok(open)
}

/// The policy of a key whose bucket has none of its own.
pub(crate) fn configured_policy(ctx: &Context<'_>, name: Str<'_>) -> Result<Policy, Error> {
    let settings = ctx.module().settings()?;
    Ok(settings.configured().of(name.as_bytes()).current())
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
    let store = &module.store;
    let mut fields = Fields { store, key, now, record, left: key.len() };
    let has_three = fields.left == 3;
    let third = match (debits, fields.left) {
        (true, _) => Some(Field::Debits),
        (false, 0..=2) => None,
        (false, 3) => Some(store.third.get()),
        (false, _) => Some(Field::Policy),
    };
    let (tokens_name, timestamp_name) = (store.field(Field::Tokens), store.field(Field::Timestamp));
    if let Some(third) = third {
        let [tokens, timestamp, value] = key.get([tokens_name, timestamp_name, store.field(third)]);
        fields.read(Field::Tokens, tokens)?;
        fields.read(Field::Timestamp, timestamp)?;
        fields.read(third, value)?;
    } else {
        let [tokens, timestamp] = key.get([tokens_name, timestamp_name]);
        fields.read(Field::Tokens, tokens)?;
        fields.read(Field::Timestamp, timestamp)?;
    }
    for field in [
        Field::Policy,
        Field::Remainder,
        Field::Weight,
        Field::Temporary,
        Field::Regions,
        Field::Debits,
    ] {
        if fields.left == 0 {
            break;
        }
        if third != Some(field) {
            let [value] = key.get([store.field(field)]);
            if value.is_some() && has_three && !debits {
                store.third.set(field);
            }
            fields.read(field, value)?;
        }
    }
    fields.record.foreign = fields.left > 0;
    if let Some(debits) = &mut fields.record.debits
        && module.regions.has_arrived(ctx.db(), key.name())?
    {
        debits.accounts.clear();
    }
    Ok(())
}

/// A key has come to be what it is otherwise than by commands of ours.
pub(crate) fn arrived(ctx: &Context<'_>, name: Str<'_>) -> Result<(), Error> {
    let module = ctx.module();
    let key = Key::open_unnoticed(ctx, name);
    // Most keys are no business of ours, and come and go as often as they like.
    if key.kind() == Kind::Hash
        && let [Some(_)] = key.get([module.store.field(Field::Debits)])
    {
        return module.regions.arrived(ctx.db(), name);
    }
    Ok(())
}

/// The fields of a hash while they are read.
struct Fields<'a> {
    store: &'a Store,
    key: &'a Key<'a>,
    now: u64,
    record: &'a mut Record,
    /// How many have not been found yet.
    left: usize,
}

impl Fields<'_> {
    #[inline]
    fn read(&mut self, field: Field, value: Option<OwnedStr>) -> Result<(), Error> {
        let Some(value) = value else {
            return Ok(());
        };
        self.left = self.left.saturating_sub(1);
        let text = value.as_str().as_bytes();
        let read = match field {
            Field::Debits => {
                let room = self.store.pool()?.debits();
                self.record.read_debits(text, room)
            }
            Field::Policy => {
                let mut known = self.store.policies.try_borrow_mut().map_err(|_| Error::Busy)?;
                self.record.read_policy(text, &mut known)
            }
            _ => self.record.read(field, text, self.now),
        };
        read.map_err(|why| corrupt(self.key, field, text, why))
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
    prepare(ctx, key, opened, None)?.apply(ctx, key, opened).announce(ctx, key.name());
    Ok(())
}

/// What the server never does: it ends when it has no memory left.
pub(crate) const NO_STRING: Error = Error::Internal("the server made no string");

/// A [plan](Plan) with every string that it needs: nothing can fail any more.
pub(crate) struct Prepared<'c> {
    plan: Plan,
    tokens: OwnedStr,
    timestamp: OwnedStr,
    /// What is written with the first two: debits, or a remainder.
    third: Option<(Field, OwnedStr)>,
    /// Mostly there are none.
    more: Option<Box<MoreFields<'c>>>,
    region: std::cell::Ref<'c, claw_core::debits::Region>,
    notes: Notes<'c>,
}

/// Plans how a bucket is to be written, with one more field and its value. Nothing is changed yet.
// Inline, or what is prepared is copied twice.
#[inline(always)]
pub(crate) fn prepare<'c>(
    ctx: &Context<'c>,
    key: &Key<'_>,
    opened: &mut OpenBucket,
    besides: Option<(OwnedStr, OwnedStr)>,
) -> Result<Prepared<'c>, Error> {
    let no_string = || NO_STRING;
    let module = ctx.module();
    let region = module.regions.region()?;
    let mut text = module.regions.scratch()?;
    let notes = module.regions.notes()?;
    let mut plan = opened
        .plan(notes.mode(key.name()), &region, &mut text)
        .map_err(|refusal| Error::refused(refusal, key.name().as_bytes()))?;
    let third = match (plan.is_shared, &plan.remainder) {
        (true, _) => {
            let text = text.as_bytes().ok_or_else(no_room)?;
            Some((Field::Debits, OwnedStr::new(text).ok_or_else(no_string)?))
        }
        (false, Change::Set(remainder)) => {
            let text = OwnedStr::from_integer(*remainder).ok_or_else(no_string)?;
            Some((Field::Remainder, text))
        }
        (false, Change::Keep | Change::Delete) => None,
    };
    let tokens = OwnedStr::from_micros(plan.bucket.tokens()).ok_or_else(no_string)?;
    let timestamp = module.store.stamp(plan.bucket.timestamp()).ok_or_else(no_string)?;
    let remainder_goes = plan.remainder == Change::Delete;
    let more = match (plan.changes.take(), remainder_goes, besides) {
        (None, false, None) => None,
        (changes, _, besides) => {
            let more = MoreFields::new(&module.store, changes, remainder_goes, besides);
            Some(more.ok_or_else(no_string)?.into())
        }
    };
    Ok(Prepared { plan, tokens, timestamp, third, more, region, notes })
}

#[cold]
fn no_room() -> Error {
    Error::Internal("no room for the debits")
}

impl Prepared<'_> {
    /// Writes the fields, moves the expiry, replicates both, and notes what other regions are told.
    // Inline, as `prepare`.
    #[inline(always)]
    pub(crate) fn apply(self, ctx: &Context<'_>, key: &Key<'_>, opened: &OpenBucket) -> Applied {
        let Self { plan, tokens, timestamp, third, more, region, notes } = self;
        let (module, name) = (ctx.module(), key.name());
        let [tokens_name, timestamp_name] =
            [Field::Tokens, Field::Timestamp].map(|field| module.store.field(field));
        let (first, second) =
            ((tokens_name, tokens.as_str()), (timestamp_name, timestamp.as_str()));
        let always = [first.0, first.1, second.0, second.1];
        let three;
        let set: &[Str<'_>] = match &third {
            None => {
                key.set([first, second]);
                &always
            }
            Some((field, text)) => {
                let third = (module.store.field(*field), text.as_str());
                key.set([first, second, third]);
                three = [first.0, first.1, second.0, second.1, third.0, third.1];
                &three
            }
        };
        match &more {
            None => ctx.replicate(c"HSET", name, set),
            Some(more) => more.apply(ctx, key, set),
        }
        let deleted = more.as_ref().is_some_and(|more| more.deletes());
        let besides = more.is_some_and(|more| more.besides.is_some());
        module.store.keep_stamp(plan.bucket.timestamp(), timestamp);
        module.regions.settled(ctx.db(), name);
        // Counted again: on reading, fields of ours that had expired by themselves
        // were taken for the user's.
        let foreign = (besides || opened.record().is_some_and(|record| record.foreign))
            && key.len() > opened.to_record().fields().saturating_add(usize::from(plan.is_shared));
        let present = opened.record().and_then(|_| key.expiry());
        let moved = opened.expiry(foreign, &region).move_from(present);
        let moved = moved.map(|to| move_expiry(ctx, key, to));
        if let Some(note) = opened.told(&plan, &region) {
            let debits = third.as_ref().filter(|_| plan.is_shared);
            let debits = debits.map(|(_, text)| text.as_str().as_bytes());
            notes.note(ctx.db(), name, &note, debits, plan.admitted);
        }
        Applied { deleted, moved }
    }
}

/// What has been done to a key, for those who listen to know.
pub(crate) struct Applied {
    deleted: bool,
    moved: Option<&'static CStr>,
}

impl Applied {
    /// Tells WATCH, client tracking, and who listens to keyspace events: whoever does may do with
    /// the key what they like, so nothing is left to be done.
    pub(crate) fn announce(self, ctx: &Context<'_>, name: Str<'_>) {
        ctx.signal_modified(name);
        ctx.notify(EventClass::Hash, c"hset", name);
        if self.deleted {
            ctx.notify(EventClass::Hash, c"hdel", name);
        }
        if let Some(event) = self.moved {
            ctx.notify(EventClass::Generic, event, name);
        }
    }
}

/// What else has to change.
struct MoreFields<'a> {
    changes: [(Str<'a>, Change<OwnedStr>); 5],
    besides: Option<(OwnedStr, OwnedStr)>,
}

impl<'a> MoreFields<'a> {
    /// `None` when the server made no string.
    fn new(
        store: &'a Store,
        changes: Option<Box<Changes>>,
        remainder_goes: bool,
        besides: Option<(OwnedStr, OwnedStr)>,
    ) -> Option<Self> {
        let unchanged = Changes {
            policy: Change::Keep,
            temporary: Change::Keep,
            weight: Change::Keep,
            regions: Change::Keep,
        };
        let changes = changes.map_or(unchanged, |changes| *changes);
        let Changes { policy, temporary, weight, regions } = changes;
        let remainder = if remainder_goes { Change::Delete } else { Change::Keep };
        let policy = policy.map(|stored| OwnedStr::new(stored.to_string().as_bytes()));
        let temporary = temporary.map(|pin| OwnedStr::new(pin.to_string().as_bytes()));
        let weight = weight.map(|weight| OwnedStr::from_integer(weight.get().into()));
        let changes = [
            (store.field(Field::Policy), policy.made()?),
            (store.field(Field::Temporary), temporary.made()?),
            (store.field(Field::Weight), weight.made()?),
            (store.field(Field::Remainder), remainder),
            (store.field(Field::Regions), regions.map(|bytes| OwnedStr::new(&bytes)).made()?),
        ];
        Some(Self { changes, besides })
    }

    /// Whether a field goes.
    fn deletes(&self) -> bool {
        self.changes.iter().any(|(_, change)| matches!(change, Change::Delete))
    }

    /// Writes them, and replicates all; `written` has been, names and values.
    fn apply(&self, ctx: &Context<'_>, key: &Key<'_>, written: &[Str<'_>]) {
        let mut set = Arguments::new(key.name(), written);
        let mut deleted = Arguments::new(key.name(), &[]);
        for (field, change) in &self.changes {
            match change {
                Change::Keep => {}
                Change::Set(value) => {
                    key.set([(*field, value.as_str())]);
                    set.extend(&[*field, value.as_str()]);
                }
                Change::Delete => {
                    key.delete(*field);
                    deleted.extend(&[*field]);
                }
            }
        }
        if let Some((field, value)) = &self.besides {
            key.set([(field.as_str(), value.as_str())]);
            set.extend(&[field.as_str(), value.as_str()]);
        }
        ctx.replicate(c"HSET", key.name(), set.as_slice());
        if !deleted.as_slice().is_empty() {
            ctx.replicate(c"HDEL", key.name(), deleted.as_slice());
        }
    }
}

/// Arguments of one command that writes fields: names and values of all that there are, and of
/// one more.
struct Arguments<'a> {
    list: [Str<'a>; 18],
    len: usize,
}

impl<'a> Arguments<'a> {
    /// Begins with some; `unused` stands where there are none yet.
    fn new(unused: Str<'a>, first: &[Str<'a>]) -> Self {
        let mut arguments = Self { list: [unused; 18], len: 0 };
        arguments.extend(first);
        arguments
    }

    fn extend(&mut self, more: &[Str<'a>]) {
        let end = self.len.saturating_add(more.len());
        if let Some(room) = self.list.get_mut(self.len..end) {
            room.copy_from_slice(more);
            self.len = end;
        }
        debug_assert_eq!(self.len, end, "more fields than there are");
    }

    fn as_slice(&self) -> &[Str<'a>] {
        self.list.get(..self.len).unwrap_or_default()
    }
}

/// Notes for other regions what a bucket is that is not written.
pub(crate) fn note(ctx: &Context<'_>, name: Str<'_>, opened: &OpenBucket) -> Result<(), Error> {
    let regions = &ctx.module().regions;
    let (mut text, notes) = (regions.scratch()?, regions.notes()?);
    if let Some(note) = opened.note(notes.mode(name), &*regions.region()?, &mut text) {
        let debits = match opened.as_shared() {
            None => None,
            Some(_) => Some(text.as_bytes().ok_or_else(no_room)?),
        };
        notes.note(ctx.db(), name, &note, debits, 0);
    }
    Ok(())
}

/// Where the expiry of a key has to go that [the walk mends](OpenBucket::mended_expiry).
pub(crate) fn mended_expiry(
    ctx: &Context<'_>,
    key: &Key<'_>,
    opened: &OpenBucket,
) -> Result<Option<u64>, Error> {
    let region = ctx.module().regions.region()?;
    Ok(opened.mended_expiry(key.expiry(), is_foreign(opened), &region))
}

/// Moves the expiry of a key whose bucket stays as it is.
pub(crate) fn set_expiry(ctx: &Context<'_>, key: &Key<'_>, at: u64) {
    let event = move_expiry(ctx, key, Some(at));
    ctx.signal_modified(key.name());
    ctx.notify(EventClass::Generic, event, key.name());
}

fn is_foreign(opened: &OpenBucket) -> bool {
    opened.record().is_some_and(|record| record.foreign)
}

/// Moves the key's expiry, and returns the event to announce.
fn move_expiry(ctx: &Context<'_>, key: &Key<'_>, to: Option<u64>) -> &'static CStr {
    key.set_expiry(to);
    match to {
        None => {
            ctx.replicate(c"PERSIST", key.name(), &[]);
            c"persist"
        }
        Some(at) => {
            ctx.replicate_integer(c"PEXPIREAT", key.name(), at);
            c"expire"
        }
    }
}
