//! Strings of the server: borrowed arguments and owned values.

use super::api::call;
use claw_core::decimal::Decimal;
use redis_module::raw;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

/// A borrowed server string: an argument of the running command.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Str<'a> {
    raw: NonNull<raw::RedisModuleString>,
    borrowed: PhantomData<&'a ()>,
}

impl<'a> Str<'a> {
    /// # Safety
    /// `raw` must stay alive and unchanged for `'a`.
    pub(crate) unsafe fn new(raw: NonNull<raw::RedisModuleString>) -> Self {
        Self { raw, borrowed: PhantomData }
    }

    /// The bytes; any, including NUL.
    pub(crate) fn as_bytes(self) -> &'a [u8] {
        let mut len = 0_usize;
        // SAFETY: `raw` is alive for 'a; the server returns its buffer and its
        // length, and does not move it while the string lives.
        unsafe {
            let start = call!(RedisModule_StringPtrLen(self.raw.as_ptr(), &mut len));
            if start.is_null() {
                return &[];
            }
            std::slice::from_raw_parts(start.cast::<u8>(), len)
        }
    }

    /// Reads a number of keys as the server itself does when it looks for them:
    /// without leading zeros. Keys that it does not see it does not guard.
    pub(crate) fn as_numkeys(self) -> Option<usize> {
        let text = self.as_bytes();
        if text.first() == Some(&b'0') {
            return None;
        }
        usize::try_from(claw_core::decimal::digits(text).ok()?).ok()
    }

    pub(crate) fn as_ptr(self) -> *mut raw::RedisModuleString {
        self.raw.as_ptr()
    }
}

/// An owned server string, freed on drop.
#[derive(Debug)]
pub(crate) struct OwnedStr {
    raw: NonNull<raw::RedisModuleString>,
}

impl OwnedStr {
    /// Copies `bytes`. `None` never happens in practice: the server aborts
    /// rather than return no memory.
    pub(crate) fn new(bytes: &[u8]) -> Option<Self> {
        // SAFETY: a null context is allowed and means that we free the string.
        let raw = unsafe {
            call!(RedisModule_CreateString(ptr::null_mut(), bytes.as_ptr().cast(), bytes.len()))
        };
        NonNull::new(raw).map(|raw| Self { raw })
    }

    /// The decimal text of `value`.
    pub(crate) fn from_integer(value: u64) -> Option<Self> {
        let mut text = Decimal::EMPTY;
        text.set_integer(value);
        Self::new(text.as_bytes())
    }

    /// The decimal text of `micros` millionths.
    pub(crate) fn from_micros(micros: i64) -> Option<Self> {
        let mut text = Decimal::EMPTY;
        text.set_signed(micros);
        Self::new(text.as_bytes())
    }

    /// # Safety
    /// `raw` must be a string that the caller owns and hands over.
    pub(crate) unsafe fn from_raw(raw: *mut raw::RedisModuleString) -> Option<Self> {
        NonNull::new(raw).map(|raw| Self { raw })
    }

    /// Hands the string over to the server.
    pub(crate) fn into_raw(self) -> *mut raw::RedisModuleString {
        let raw = self.raw.as_ptr();
        std::mem::forget(self);
        raw
    }

    /// Borrows the string.
    pub(crate) fn as_str(&self) -> Str<'_> {
        // SAFETY: the string lives as long as `self`.
        unsafe { Str::new(self.raw) }
    }
}

impl Drop for OwnedStr {
    fn drop(&mut self) {
        // SAFETY: we own the string; the null context matches its creation.
        unsafe { call!(RedisModule_FreeString(ptr::null_mut(), self.raw.as_ptr())) }
    }
}
