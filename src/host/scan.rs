//! The walk over the keys of a database, as SCAN does it.

use super::api::call;
use super::context::Context;
use super::string::OwnedStr;
use redis_module::raw;
use std::ffi::c_void;
use std::ptr;

/// Where the walk is in one database. Keys that are there all the time are seen
/// at least once.
#[derive(Debug)]
pub(crate) struct Scan {
    cursor: *mut raw::RedisModuleScanCursor,
}

impl Scan {
    /// A walk that has not begun.
    pub(crate) fn new() -> Self {
        // SAFETY: takes nothing; freed on drop.
        Self { cursor: unsafe { call!(RedisModule_ScanCursorCreate()) } }
    }

    /// The names of the next few keys, and whether there are more behind them.
    pub(crate) fn next(&mut self, ctx: &Context<'_>) -> (Vec<OwnedStr>, bool) {
        let mut names: Vec<OwnedStr> = Vec::new();
        // SAFETY: a live context and cursor, and a callback that is handed the
        // list, which outlives the call.
        let more = unsafe {
            call!(RedisModule_Scan(
                ctx.as_ptr(),
                self.cursor,
                Some(found),
                (&raw mut names).cast::<c_void>(),
            ))
        };
        (names, more != 0)
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        // SAFETY: made in `new`.
        unsafe { call!(RedisModule_ScanCursorDestroy(self.cursor)) };
    }
}

unsafe extern "C" fn found(
    _ctx: *mut raw::RedisModuleCtx,
    name: *mut raw::RedisModuleString,
    _key: *mut raw::RedisModuleKey,
    names: *mut c_void,
) {
    // SAFETY: the list that `next` handed over, and nobody else uses now.
    let names = unsafe { &mut *names.cast::<Vec<OwnedStr>>() };
    // The server's string is gone after the callback, so it is copied.
    // SAFETY: a live string; a null context means that we free the copy.
    let copy = unsafe { call!(RedisModule_CreateStringFromString(ptr::null_mut(), name)) };
    // SAFETY: the copy is ours.
    names.extend(unsafe { OwnedStr::from_raw(copy) });
}
