//! The module's state between commands.

use super::listeners::Listeners;
use super::pacer::Pacer;
use super::string::{OwnedStr, Str};
use crate::config::Settings;
use crate::error::Error;
use crate::regions::Regions;
use crate::stats::Stats;
use crate::upkeep::Upkeep;
use claw_core::open::{BucketPool, OpenBucket};
use claw_core::record::Field;
use redis_module::raw;
use std::cell::{RefCell, RefMut};
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Everything that lives as long as the module is loaded.
#[derive(Debug)]
pub(crate) struct Module {
    names: Names,
    /// Borrow only with `try_borrow`: an event handler of another module may
    /// call a command of ours while one runs.
    pub(crate) settings: RefCell<Settings>,
    /// Counters for `INFO claw`.
    pub(crate) stats: Stats,
    /// Region sync.
    pub(crate) regions: Regions,
    /// The work between commands.
    pub(crate) upkeep: RefCell<Upkeep>,
    /// Who listens to effects.
    pub(crate) listeners: Listeners,
    /// Work that goes on faster than the server's cron.
    pub(crate) pacer: Pacer,
    /// See [`PooledBucket`].
    pool: RefCell<BucketPool>,
    lent: RefCell<Option<OwnedStr>>,
    stamp: RefCell<Option<(u64, OwnedStr)>>,
}

// SAFETY: the server runs commands, configuration callbacks, info and events
// under its one lock; no thread of ours touches this.
unsafe impl Sync for Module {}

static CURRENT: AtomicPtr<Module> = AtomicPtr::new(ptr::null_mut());

impl Module {
    /// The state, while the module is loaded.
    pub(crate) fn current() -> Option<&'static Self> {
        // SAFETY: set by `install` from a leaked box and freed only by `remove`,
        // after which the server calls nothing of ours any more.
        unsafe { CURRENT.load(Ordering::Acquire).as_ref() }
    }

    /// Prepares the state at load time.
    pub(crate) fn install() -> Option<()> {
        let module = Self {
            names: Names::new()?,
            settings: RefCell::new(Settings::default()),
            stats: Stats::default(),
            regions: Regions::default(),
            upkeep: RefCell::default(),
            listeners: Listeners::default(),
            pacer: Pacer::default(),
            pool: RefCell::default(),
            lent: RefCell::new(None),
            stamp: RefCell::new(None),
        };
        CURRENT.store(Box::into_raw(Box::new(module)), Ordering::Release);
        Some(())
    }

    /// Frees the state at unload time.
    pub(crate) fn remove() {
        let module = CURRENT.swap(ptr::null_mut(), Ordering::AcqRel);
        if !module.is_null() {
            // SAFETY: it came from a box and nobody can load it any more.
            drop(unsafe { Box::from_raw(module) });
        }
    }

    /// Keeps `text` until the next call, for a caller that only borrows it.
    pub(crate) fn lend(&self, text: OwnedStr) -> *mut raw::RedisModuleString {
        let pointer = text.as_str().as_ptr();
        match self.lent.try_borrow_mut() {
            Ok(mut lent) => {
                *lent = Some(text);
                pointer
            }
            Err(_) => ptr::null_mut(),
        }
    }

    /// Memory of a bucket that is done with.
    pub(crate) fn pool(&self) -> Result<RefMut<'_, BucketPool>, Error> {
        self.pool.try_borrow_mut().map_err(|_| Error::Busy)
    }

    /// Room for a bucket that is to be read.
    pub(crate) fn room(&self) -> Result<PooledBucket<'_>, Error> {
        Ok(PooledBucket { opened: ManuallyDrop::new(self.pool()?.take()), module: self })
    }

    /// The text of a timestamp. Where the clock has only milliseconds, commands that
    /// come together have the same one, so that the last is [kept](Self::keep_stamp).
    pub(crate) fn stamp(&self, at: u64) -> Option<OwnedStr> {
        let kept = self.stamp.try_borrow_mut().ok().and_then(|mut stamp| stamp.take());
        match kept {
            Some((same, text)) if same == at => Some(text),
            _ => OwnedStr::from_integer(at),
        }
    }

    /// Keeps the text of a timestamp for the next command.
    pub(crate) fn keep_stamp(&self, at: u64, text: OwnedStr) {
        if let Ok(mut stamp) = self.stamp.try_borrow_mut() {
            *stamp = Some((at, text));
        }
    }

    /// A field's name as a server string, made once.
    pub(crate) fn field(&self, field: Field) -> Str<'_> {
        let names = &self.names;
        match field {
            Field::Tokens => names.tokens.as_str(),
            Field::Timestamp => names.timestamp.as_str(),
            Field::Weight => names.weight.as_str(),
            Field::Policy => names.policy.as_str(),
            Field::Remainder => names.remainder.as_str(),
            Field::Debits => names.debits.as_str(),
            Field::Regions => names.regions.as_str(),
        }
    }
}

/// An open bucket. Its memory is the next one's when it is dropped.
#[derive(Debug)]
pub(crate) struct PooledBucket<'c> {
    opened: ManuallyDrop<Box<OpenBucket>>,
    module: &'c Module,
}

impl Deref for PooledBucket<'_> {
    type Target = OpenBucket;

    fn deref(&self) -> &OpenBucket {
        &self.opened
    }
}

impl DerefMut for PooledBucket<'_> {
    fn deref_mut(&mut self) -> &mut OpenBucket {
        &mut self.opened
    }
}

impl Drop for PooledBucket<'_> {
    fn drop(&mut self) {
        // SAFETY: it is used nowhere after this.
        let opened = unsafe { ManuallyDrop::take(&mut self.opened) };
        if let Ok(mut pool) = self.module.pool() {
            pool.keep(opened);
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
            remainder: name(Field::Remainder)?,
            debits: name(Field::Debits)?,
            regions: name(Field::Regions)?,
        })
    }
}
