//! Events of the server: the passing of time, the change of its role, and who
//! begins to listen.

use crate::host::{Context, EVENT_VERSION, Module, api::call, in_event};
use crate::regions;
use redis_module::raw;
use std::ffi::{c_int, c_void};

const OK: c_int = raw::REDISMODULE_OK as c_int;

/// Subscribes, and starts region sync if it is configured.
///
/// # Safety
/// `ctx` must be the context of `RedisModule_OnLoad`.
pub(super) unsafe fn subscribe(ctx: *mut raw::RedisModuleCtx) -> bool {
    let subscribed = [
        (raw::REDISMODULE_EVENT_CRON_LOOP, time as Handler),
        (raw::REDISMODULE_EVENT_REPLICATION_ROLE_CHANGED, role as Handler),
        (raw::REDISMODULE_EVENT_FORK_CHILD, listen as Handler),
        (raw::REDISMODULE_EVENT_PERSISTENCE, listen as Handler),
        (raw::REDISMODULE_EVENT_REPLICA_CHANGE, listen as Handler),
    ]
    .into_iter()
    .all(|(id, handler)| {
        let event = raw::RedisModuleEvent { id, dataver: EVENT_VERSION };
        // SAFETY: a callback with C's calling convention.
        unsafe { call!(RedisModule_SubscribeToServerEvent(ctx, event, Some(handler))) == OK }
    });
    if let (true, Some(module)) = (subscribed, Module::current()) {
        // SAFETY: the load-time context.
        let ctx = unsafe { Context::of_event(ctx, module) };
        module.regions.begin(&ctx);
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
                regions::tick(ctx, ctx.is_primary());
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
            ctx.module().regions.restart(ctx, ctx.is_primary());
        });
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
