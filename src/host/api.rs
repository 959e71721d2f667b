//! The server's module API as plain function calls.

use redis_module::raw;
use std::ffi::c_int;

/// What calls and callbacks return that went well.
pub(crate) const OK: c_int = raw::REDISMODULE_OK as c_int;
/// What they return that did not.
pub(crate) const ERR: c_int = raw::REDISMODULE_ERR as c_int;

/// Functions that every supported server (Redis 7.0 and later, Valkey) has. A
/// server that lacks one of them is refused when the module is loaded, so that
/// [`call!`] can rely on all of them afterwards.
macro_rules! functions {
    ($($name:ident)*) => {
        /// Listed functions, by name: [`call!`] compiles only for these.
        #[allow(non_snake_case, non_upper_case_globals)]
        pub(crate) mod listed {
            $(pub(crate) const $name: () = ();)*
        }

        /// The first listed function that the server lacks.
        pub(crate) fn missing() -> Option<&'static std::ffi::CStr> {
            $(
                // SAFETY: the statics are written once, by RedisModule_Init,
                // before this runs on the same thread; they are read by value.
                if unsafe { raw::$name }.is_none() {
                    return std::ffi::CStr::from_bytes_with_nul(
                        concat!(stringify!($name), "\0").as_bytes(),
                    )
                    .ok();
                }
            )*
            None
        }
    };
}

functions! {
    RedisModule_AvoidReplicaTraffic
    RedisModule_Call
    RedisModule_CallReplyArrayElement
    RedisModule_CallReplyLength
    RedisModule_CallReplyStringPtr
    RedisModule_CallReplyType
    RedisModule_CloseKey
    RedisModule_CreateCommand
    RedisModule_CreateString
    RedisModule_CreateStringFromString
    RedisModule_CreateSubcommand
    RedisModule_EventLoopAdd
    RedisModule_EventLoopDel
    RedisModule_FreeCallReply
    RedisModule_FreeServerInfo
    RedisModule_FreeString
    RedisModule_GetAbsExpire
    RedisModule_GetCommand
    RedisModule_GetContextFlags
    RedisModule_GetSelectedDb
    RedisModule_GetServerInfo
    RedisModule_HashGet
    RedisModule_HashSet
    RedisModule_InfoAddFieldCString
    RedisModule_InfoAddFieldULongLong
    RedisModule_InfoAddSection
    RedisModule_IsKeysPositionRequest
    RedisModule_KeyAtPos
    RedisModule_KeyType
    RedisModule_LoadConfigs
    RedisModule_Log
    RedisModule_Milliseconds
    RedisModule_NotifyKeyspaceEvent
    RedisModule_OpenKey
    RedisModule_RegisterInfoFunc
    RedisModule_RegisterNumericConfig
    RedisModule_RegisterStringConfig
    RedisModule_Replicate
    RedisModule_ReplicateVerbatim
    RedisModule_ReplyWithArray
    RedisModule_ReplyWithError
    RedisModule_ReplyWithLongLong
    RedisModule_ReplyWithMap
    RedisModule_ReplyWithNull
    RedisModule_ReplyWithSimpleString
    RedisModule_ReplyWithStringBuffer
    RedisModule_Scan
    RedisModule_ScanCursorCreate
    RedisModule_ScanCursorDestroy
    RedisModule_SelectDb
    RedisModule_ServerInfoGetField
    RedisModule_ServerInfoGetFieldUnsigned
    RedisModule_SetAbsExpire
    RedisModule_SetCommandInfo
    RedisModule_SetModuleOptions
    RedisModule_SignalModifiedKey
    RedisModule_StringPtrLen
    RedisModule_SubscribeToKeyspaceEvents
    RedisModule_SubscribeToServerEvent
    RedisModule_ValueLength
}

/// Calls a listed function. To be used inside an `unsafe` block that says why the
/// arguments are right.
macro_rules! call {
    ($name:ident($($argument:expr),* $(,)?)) => {{
        const _: () = $crate::host::api::listed::$name;
        // The static is read by value, and `missing` has seen that it is set.
        let function = redis_module::raw::$name.unwrap_unchecked();
        function($($argument),*)
    }};
}
pub(crate) use call;

/// Whether what a function calls is checked against the rights of the user that the function is
/// called for: since Redis 7.0.6, which has this function of the module API besides.
/// <https://github.com/redis/redis/pull/10966>
pub(crate) fn checks_functions() -> bool {
    // SAFETY: read by value.
    unsafe { raw::RedisModule_SetContextUser }.is_some()
}
