//! Events of the server: the passing of time, the change of its role, parameters
//! that are set, and who begins to listen.

use crate::config::Parameter;
use crate::host::{Context, EVENT_VERSION, api::call, in_event};
use crate::module::Module;
use crate::upkeep;
use redis_module::raw;
use std::ffi::{CStr, c_char, c_int, c_void};

const OK: c_int = raw::REDISMODULE_OK as c_int;

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
        (raw::REDISMODULE_EVENT_SWAPDB, replaced as Handler),
        (raw::REDISMODULE_EVENT_LOADING, replaced as Handler),
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

/// Keys have taken the place of others: databases were exchanged, or loaded.
unsafe extern "C" fn replaced(
    ctx: *mut raw::RedisModuleCtx,
    _event: raw::RedisModuleEvent,
    _kind: u64,
    _data: *mut c_void,
) {
    // SAFETY: the event's context.
    unsafe { in_event(ctx, upkeep::begin_life) };
}

/// The keyspace events of keys that have become what they were not by commands of ours.
const ARRIVALS: [&CStr; 4] = [c"restore", c"copy_to", c"move_to", c"rename_to"];

/// Something has happened to a key.
unsafe extern "C" fn arrived(
    ctx: *mut raw::RedisModuleCtx,
    _kind: c_int,
    event: *const c_char,
    _key: *mut raw::RedisModuleString,
) -> c_int {
    // SAFETY: the server's name of the event.
    let event = unsafe { CStr::from_ptr(event) };
    if ARRIVALS.contains(&event) {
        // SAFETY: the event's context.
        unsafe { in_event(ctx, upkeep::begin_life) };
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
