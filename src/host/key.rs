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

    /// Reads one field of a hash.
    pub(crate) fn get(&self, field: Str<'_>) -> Option<OwnedStr> {
        let mut value = ptr::null_mut();
        // SAFETY: an open hash, a live field name, a place for the value, and
        // the null that ends the list.
        unsafe {
            call!(RedisModule_HashGet(
                self.raw,
                NO_FLAGS,
                field.as_ptr(),
                &raw mut value,
                ptr::null_mut::<raw::RedisModuleString>(),
            ));
            OwnedStr::from_raw(value)
        }
    }

    /// Reads two fields of a hash in one call.
    pub(crate) fn get_two(
        &self,
        first: Str<'_>,
        second: Str<'_>,
    ) -> (Option<OwnedStr>, Option<OwnedStr>) {
        let (mut one, mut two) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: as in `get`.
        unsafe {
            call!(RedisModule_HashGet(
                self.raw,
                NO_FLAGS,
                first.as_ptr(),
                &raw mut one,
                second.as_ptr(),
                &raw mut two,
                ptr::null_mut::<raw::RedisModuleString>(),
            ));
            (OwnedStr::from_raw(one), OwnedStr::from_raw(two))
        }
    }

    /// Reads three fields of a hash in one call.
    pub(crate) fn get_three(&self, fields: [Str<'_>; 3]) -> [Option<OwnedStr>; 3] {
        let [first, second, third] = fields;
        let (mut one, mut two, mut three) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        // SAFETY: as in `get`.
        unsafe {
            call!(RedisModule_HashGet(
                self.raw,
                NO_FLAGS,
                first.as_ptr(),
                &raw mut one,
                second.as_ptr(),
                &raw mut two,
                third.as_ptr(),
                &raw mut three,
                ptr::null_mut::<raw::RedisModuleString>(),
            ));
            [OwnedStr::from_raw(one), OwnedStr::from_raw(two), OwnedStr::from_raw(three)]
        }
    }

    /// Writes two fields, creating the hash when the key is missing.
    ///
    /// What the call returns tells whether fields were new, and `-1` style
    /// errors only for keys not open for writing, so it is not looked at.
    pub(crate) fn set_two(&self, first: (Str<'_>, Str<'_>), second: (Str<'_>, Str<'_>)) {
        // SAFETY: a key open for writing that holds a hash or nothing, and live
        // strings, which the server copies.
        unsafe {
            call!(RedisModule_HashSet(
                self.raw,
                NO_FLAGS,
                first.0.as_ptr(),
                first.1.as_ptr(),
                second.0.as_ptr(),
                second.1.as_ptr(),
                ptr::null_mut::<raw::RedisModuleString>(),
            ));
        }
    }

    /// Writes three fields, creating the hash when the key is missing.
    pub(crate) fn set_three(
        &self,
        first: (Str<'_>, Str<'_>),
        second: (Str<'_>, Str<'_>),
        third: (Str<'_>, Str<'_>),
    ) {
        // SAFETY: as in `set_two`.
        unsafe {
            call!(RedisModule_HashSet(
                self.raw,
                NO_FLAGS,
                first.0.as_ptr(),
                first.1.as_ptr(),
                second.0.as_ptr(),
                second.1.as_ptr(),
                third.0.as_ptr(),
                third.1.as_ptr(),
                ptr::null_mut::<raw::RedisModuleString>(),
            ));
        }
    }

    /// Writes one field.
    pub(crate) fn set(&self, field: Str<'_>, value: Str<'_>) {
        // SAFETY: as in `set_two`.
        unsafe {
            call!(RedisModule_HashSet(
                self.raw,
                NO_FLAGS,
                field.as_ptr(),
                value.as_ptr(),
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
