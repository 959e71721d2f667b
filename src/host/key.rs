//! One key of the keyspace, opened as a hash.

use super::api::call;
use super::context::Context;
use super::string::{OwnedStr, Str};
use redis_module::raw;
use std::ffi::c_int;
use std::ptr::{self, NonNull};

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing: the key does not exist, or has expired.
    Missing,
    /// A hash.
    Hash,
    /// Anything else.
    Other,
}

/// An open key, closed on drop. Writes through it are neither replicated nor
/// announced: that is for [`Context`] to do.
#[derive(Debug)]
pub(crate) struct Key<'c> {
    /// Null when a key opened for reading does not exist.
    raw: *mut raw::RedisModuleKey,
    name: Str<'c>,
}

impl<'c> Key<'c> {
    /// Opens for reading: a missing key stays missing.
    pub(crate) fn open_read(ctx: &'c Context<'_>, name: Str<'c>) -> Self {
        Self::open(ctx, name, raw::REDISMODULE_READ)
    }

    /// Opens for reading and writing; an expired key is deleted on the way, as
    /// by the server's own write commands.
    pub(crate) fn open_write(ctx: &'c Context<'_>, name: Str<'c>) -> Self {
        Self::open(ctx, name, raw::REDISMODULE_READ | raw::REDISMODULE_WRITE)
    }

    /// Opens for reading without making the key look used.
    pub(crate) fn open_unnoticed(ctx: &'c Context<'_>, name: Str<'c>) -> Self {
        Self::open(ctx, name, raw::REDISMODULE_READ | raw::REDISMODULE_OPEN_KEY_NOTOUCH)
    }

    /// Opens for reading and writing without making the key look used.
    pub(crate) fn open_write_unnoticed(ctx: &'c Context<'_>, name: Str<'c>) -> Self {
        let mode = raw::REDISMODULE_READ | raw::REDISMODULE_WRITE;
        Self::open(ctx, name, mode | raw::REDISMODULE_OPEN_KEY_NOTOUCH)
    }

    fn open(ctx: &'c Context<'_>, name: Str<'c>, mode: u32) -> Self {
        let mode = mode.cast_signed();
        // SAFETY: the context and the name live as long as the key.
        let raw = unsafe { call!(RedisModule_OpenKey(ctx.as_ptr(), name.as_ptr(), mode)) };
        Self { raw, name }
    }

    /// The key's name.
    pub(crate) fn name(&self) -> Str<'c> {
        self.name
    }

    /// What the key holds.
    pub(crate) fn kind(&self) -> Kind {
        if self.raw.is_null() {
            return Kind::Missing;
        }
        // SAFETY: an open key. The plain number is compared, since newer servers
        // have types that the bindings have no name for.
        let kind = unsafe { call!(RedisModule_KeyType(self.raw)) } as isize;
        match kind {
            raw::REDISMODULE_KEYTYPE_EMPTY => Kind::Missing,
            raw::REDISMODULE_KEYTYPE_HASH => Kind::Hash,
            _ => Kind::Other,
        }
    }

    /// How many fields the hash has; constant time.
    pub(crate) fn len(&self) -> usize {
        // SAFETY: an open key, or null, for which the server answers 0.
        unsafe { call!(RedisModule_ValueLength(self.raw)) }
    }

    /// Reads up to three fields of a hash in one call.
    pub(crate) fn get<const N: usize>(&self, fields: [Str<'_>; N]) -> [Option<OwnedStr>; N] {
        const { assert!(N <= 3) };
        // A field that is null ends the list.
        let mut names = [ptr::null_mut(); 3];
        let mut values = [ptr::null_mut(); 3];
        for (name, field) in names.iter_mut().zip(fields) {
            *name = field.as_ptr();
        }
        let [first, second, third] = names;
        let [one, two, three] = &mut values;
        // SAFETY: an open hash, live field names, a place for each value, and the null that ends
        // the list.
        unsafe {
            call!(RedisModule_HashGet(
                self.raw,
                NO_FLAGS,
                first,
                ptr::from_mut(one),
                second,
                ptr::from_mut(two),
                third,
                ptr::from_mut(three),
                ptr::null_mut::<raw::RedisModuleString>(),
            ));
        }
        let mut values = values.into_iter().map(|value| {
            // SAFETY: what the server has put there is ours, and it puts nothing where there is none.
            unsafe { OwnedStr::from_raw(value) }
        });
        std::array::from_fn(|_| values.next().flatten())
    }

    /// Writes up to three fields, creating the hash when the key is missing.
    ///
    /// What the call returns tells whether fields were new, and `-1` style
    /// errors only for keys not open for writing, so it is not looked at.
    pub(crate) fn set<const N: usize>(&self, fields: [(Str<'_>, Str<'_>); N]) {
        const { assert!(N <= 3) };
        // A field that is null ends the list.
        let mut all = [(ptr::null_mut(), ptr::null_mut()); 3];
        for (raw, (field, value)) in all.iter_mut().zip(fields) {
            *raw = (field.as_ptr(), value.as_ptr());
        }
        let [first, second, third] = all;
        // SAFETY: a key open for writing that holds a hash or nothing, and live
        // strings, which the server copies.
        unsafe {
            call!(RedisModule_HashSet(
                self.raw,
                NO_FLAGS,
                first.0,
                first.1,
                second.0,
                second.1,
                third.0,
                third.1,
                ptr::null_mut::<raw::RedisModuleString>(),
            ));
        }
    }

    /// Deletes one field. It must not be the last one.
    pub(crate) fn delete(&self, field: Str<'_>) {
        // The API's own marker for "delete": the address 1.
        let delete =
            NonNull::<raw::RedisModuleString>::without_provenance(std::num::NonZeroUsize::MIN);
        // SAFETY: as in `set_two`; the server compares the marker and does not
        // follow it.
        unsafe {
            call!(RedisModule_HashSet(
                self.raw,
                NO_FLAGS,
                field.as_ptr(),
                delete.as_ptr(),
                ptr::null_mut::<raw::RedisModuleString>(),
            ));
        }
    }

    /// When the key expires, in unix milliseconds.
    pub(crate) fn expiry(&self) -> Option<u64> {
        // SAFETY: an open key.
        let at = unsafe { call!(RedisModule_GetAbsExpire(self.raw)) };
        u64::try_from(at).ok()
    }

    /// Lets the key expire at `at` (unix milliseconds), or never.
    pub(crate) fn set_expiry(&self, at: Option<u64>) {
        let at = at.and_then(|ms| i64::try_from(ms).ok());
        let at = at.unwrap_or(i64::from(raw::REDISMODULE_NO_EXPIRE));
        // SAFETY: a key open for writing.
        unsafe { call!(RedisModule_SetAbsExpire(self.raw, at)) };
    }
}

const NO_FLAGS: c_int = 0;

impl Drop for Key<'_> {
    fn drop(&mut self) {
        // SAFETY: an open key or null, which the server accepts.
        unsafe { call!(RedisModule_CloseKey(self.raw)) }
    }
}
