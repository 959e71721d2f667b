//! What the server says of itself in INFO.

use super::api::{OK, call};
use super::string::OwnedStr;
use redis_module::raw;
use std::ffi::{CStr, c_int};
use std::ptr::{self, NonNull};

/// One section of the server's own INFO.
pub(crate) struct ServerInfo {
    data: NonNull<raw::RedisModuleServerInfoData>,
}

impl ServerInfo {
    /// Reads a section as it is now.
    pub(crate) fn read(section: &CStr) -> Option<Self> {
        // SAFETY: without a context the data is ours to free.
        let data = unsafe { call!(RedisModule_GetServerInfo(ptr::null_mut(), section.as_ptr())) };
        NonNull::new(data).map(|data| Self { data })
    }

    /// The text of a field, if it is there.
    pub(crate) fn text(&self, field: &CStr) -> Option<Vec<u8>> {
        // SAFETY: live arguments; the string is ours to free.
        let text = unsafe {
            OwnedStr::from_raw(call!(RedisModule_ServerInfoGetField(
                ptr::null_mut(),
                self.data.as_ptr(),
                field.as_ptr(),
            )))
        };
        text.map(|text| text.as_str().as_bytes().to_vec())
    }

    /// The number in a field, if it is there.
    pub(crate) fn number(&self, field: &CStr) -> Option<u64> {
        let mut wrong: c_int = 0;
        // SAFETY: live arguments.
        let number = unsafe {
            call!(RedisModule_ServerInfoGetFieldUnsigned(
                self.data.as_ptr(),
                field.as_ptr(),
                &raw mut wrong,
            ))
        };
        (wrong == OK).then_some(number)
    }
}

impl Drop for ServerInfo {
    fn drop(&mut self) {
        // SAFETY: got in `read`.
        unsafe { call!(RedisModule_FreeServerInfo(ptr::null_mut(), self.data.as_ptr())) };
    }
}
