//! Events of the server: the passing of time, the change of its role, parameters
//! that are set, and who begins to listen.

use crate::config::Parameter;
use crate::host::{Context, EVENT_VERSION, OK, Str, api::call, in_event};
use crate::module::Module;
use crate::upkeep::{self, Anew};
use redis_module::raw;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::NonNull;

/// Subscribes, and starts region sync if it is configured.
///
/// # Safety
/// `ctx` must be the context of `RedisModule_OnLoad`.
pub(super) unsafe fn subscribe(ctx: *mut raw::RedisModuleCtx) -> bool {
    let subscribed = [
        (raw::REDISMODULE_EVENT_CRON_LOOP, time as Handler),
        (raw::REDISMODULE_EVENT_REPLICATION_ROLE_CHANGED, role as Handler),
        (raw::REDISMODULE_EVENT_CONFIG, configured as Handler),
        (raw::REDISMODULE_EVENT_FORK_CHILD, listen as Handler),
        (raw::REDISMODULE_EVENT_PERSISTENCE, listen as Handler),
        (raw::REDISMODULE_EVENT_REPLICA_CHANGE, listen as Handler),
        (raw::REDISMODULE_EVENT_SHUTDOWN, end as Handler),
        (raw::REDISMODULE_EVENT_SWAPDB, exchanged as Handler),
        (raw::REDISMODULE_EVENT_LOADING, loading as Handler),
    ]
    .into_iter()
    .all(|(id, handler)| {
        let event = raw::RedisModuleEvent { id, dataver: EVENT_VERSION };
        // SAFETY: a callback with C's calling convention.
        unsafe { call!(RedisModule_SubscribeToServerEvent(ctx, event, Some(handler))) == OK }
    });
    // SAFETY: as above.
    let subscribed = subscribed
        && unsafe {
            let generic = raw::REDISMODULE_NOTIFY_GENERIC as c_int;
            call!(RedisModule_SubscribeToKeyspaceEvents(ctx, generic, Some(arrived))) == OK
        };
    if let (true, Some(module)) = (subscribed, Module::current()) {
        // SAFETY: the load-time context.
        let ctx = unsafe { Context::of_event(ctx, module) };
        upkeep::begin(&ctx);
    }
    subscribed
}

type Handler =
    unsafe extern "C" fn(*mut raw::RedisModuleCtx, raw::RedisModuleEvent, u64, *mut c_void);

/// The server's cron: some times a second.
unsafe extern "C" fn time(
    ctx: *mut raw::RedisModuleCtx,
    _event: raw::RedisModuleEvent,
    _kind: u64,
    _data: *mut c_void,
) {
    // SAFETY: the event's context.
    unsafe {
        in_event(ctx, |ctx| {
            ctx.module().has_loaded();
            if !ctx.is_loading() {
                ctx.module().listeners.look(ctx);
                upkeep::tick(ctx, ctx.is_primary());
            }
        });
    }
}

/// The server became a primary or a replica.
unsafe extern "C" fn role(
    ctx: *mut raw::RedisModuleCtx,
    _event: raw::RedisModuleEvent,
    _kind: u64,
    _data: *mut c_void,
) {
    // SAFETY: the event's context.
    unsafe {
        in_event(ctx, |ctx| {
            ctx.module().listeners.expect();
            upkeep::restart(ctx, ctx.is_primary());
        });
    }
}

/// The server ends.
unsafe extern "C" fn end(
    ctx: *mut raw::RedisModuleCtx,
    _event: raw::RedisModuleEvent,
    _kind: u64,
    _data: *mut c_void,
) {
    // SAFETY: the event's context.
    unsafe { in_event(ctx, upkeep::end) };
}

/// Two databases were exchanged.
unsafe extern "C" fn exchanged(
    ctx: *mut raw::RedisModuleCtx,
    _event: raw::RedisModuleEvent,
    _kind: u64,
    data: *mut c_void,
) {
    // SAFETY: what the server hands over with this event, in every version of it.
    let Some(info) = (unsafe { data.cast::<raw::RedisModuleSwapDbInfo>().as_ref() }) else {
        return;
    };
    let dbs = [info.dbnum_first, info.dbnum_second].map(i32::cast_unsigned);
    // SAFETY: the event's context.
    unsafe { in_event(ctx, |ctx| upkeep::begin_anew(ctx, Anew::Databases(dbs))) };
}

/// Loading begins or ends.
unsafe extern "C" fn loading(
    ctx: *mut raw::RedisModuleCtx,
    _event: raw::RedisModuleEvent,
    _kind: u64,
    _data: *mut c_void,
) {
    // SAFETY: the event's context.
    unsafe { in_event(ctx, |ctx| upkeep::begin_anew(ctx, Anew::All)) };
}

/// The keyspace events of keys that have become what they were not by commands of ours.
const ARRIVALS: [&CStr; 4] = [c"restore", c"copy_to", c"move_to", c"rename_to"];

/// Something has happened to a key.
unsafe extern "C" fn arrived(
    ctx: *mut raw::RedisModuleCtx,
    _kind: c_int,
    event: *const c_char,
    key: *mut raw::RedisModuleString,
) -> c_int {
    // SAFETY: the server's name of the event.
    let event = unsafe { CStr::from_ptr(event) };
    if let (true, Some(key)) = (ARRIVALS.contains(&event), NonNull::new(key)) {
        // SAFETY: the event's context, and its key, which lives until we return.
        unsafe { in_event(ctx, |ctx| upkeep::begin_anew(ctx, Anew::Key(Str::new(key)))) };
    }
    OK
}

/// Parameters were set, be it to what they were: that is all a server tells of those
/// whose value has not changed.
unsafe extern "C" fn configured(
    ctx: *mut raw::RedisModuleCtx,
    _event: raw::RedisModuleEvent,
    kind: u64,
    data: *mut c_void,
) {
    if kind != raw::REDISMODULE_SUBEVENT_CONFIG_CHANGE {
        return;
    }
    // SAFETY: this is what the event comes with; it lives until we return.
    let Some(change) = (unsafe { data.cast::<raw::RedisModuleConfigChange>().as_ref() }) else {
        return;
    };
    let is_file = (0..change.num_changes).any(|index| {
        // SAFETY: there are so many names, each a string of the server's.
        let name = unsafe { CStr::from_ptr(*change.config_names.add(index as usize)) };
        let parameter = name.to_str().ok().and_then(Parameter::by_full_name);
        parameter.is_some_and(Parameter::is_file)
    });
    if is_file {
        // SAFETY: the event's context.
        unsafe { in_event(ctx, |ctx| ctx.module().regions.apply_again()) };
    }
}

/// A snapshot begins or ends, in a fork or without one, or a replica comes or goes.
unsafe extern "C" fn listen(
    ctx: *mut raw::RedisModuleCtx,
    _event: raw::RedisModuleEvent,
    _kind: u64,
    _data: *mut c_void,
) {
    // SAFETY: the event's context.
    unsafe { in_event(ctx, |ctx| ctx.module().listeners.expect()) };
}
