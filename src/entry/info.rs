//! `INFO claw`.

use crate::commands;
use crate::host::{OK, ServerInfo, api::call};
use crate::module::Module;
use redis_module::raw;
use std::ffi::{CStr, CString, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// # Safety
/// `ctx` must be the context of `RedisModule_OnLoad`.
pub(super) unsafe fn register(ctx: *mut raw::RedisModuleCtx) -> bool {
    // SAFETY: a callback with C's calling convention.
    unsafe { call!(RedisModule_RegisterInfoFunc(ctx, Some(callback))) == OK }
}

unsafe extern "C" fn callback(ctx: *mut raw::RedisModuleInfoCtx, for_crash_report: c_int) {
    // A caught panic leaves the section incomplete, and the server alive.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let Some(module) = Module::current() else {
            return;
        };
        let section = Section { ctx };
        // SAFETY: a live context; an empty name is the module's own.
        if unsafe { call!(RedisModule_InfoAddSection(ctx, c"".as_ptr())) } != OK {
            return;
        }
        section.text(c"version", env!("CARGO_PKG_VERSION"));
        for (name, value) in module.stats.counters() {
            section.number(name, value);
        }
        section.number(c"propagating", u64::from(module.listeners.any()));
        // A crash report must not wait for a thread, nor ask the server.
        if for_crash_report == 0 {
            for (name, value) in module.regions.counters() {
                section.number(name, value);
            }
            if let Ok(upkeep) = module.upkeep.try_borrow() {
                section.number(c"sync_walks", upkeep.walks());
                section.number(c"sync_walk_max_us", upkeep.longest_slice());
            }
            section.latencies();
        }
    }));
}

struct Section {
    ctx: *mut raw::RedisModuleInfoCtx,
}

impl Section {
    fn number(&self, name: &CStr, value: u64) {
        // SAFETY: a live context and name.
        unsafe { call!(RedisModule_InfoAddFieldULongLong(self.ctx, name.as_ptr(), value)) };
    }

    fn text(&self, name: &CStr, value: &str) {
        if let Ok(value) = CString::new(value) {
            // SAFETY: a live context and strings, which the server copies.
            unsafe {
                call!(RedisModule_InfoAddFieldCString(self.ctx, name.as_ptr(), value.as_ptr()));
            }
        }
    }

    /// What the server itself measured of our commands: it costs the commands
    /// nothing, and counts calls from scripts and transactions too.
    fn latencies(&self) {
        for (section, prefix) in
            [(c"commandstats", "cmdstat"), (c"latencystats", "latency_percentiles_usec")]
        {
            let Some(info) = ServerInfo::read(section) else {
                continue;
            };
            for command in commands::NAMES {
                let command = command.to_string_lossy();
                let Ok(field) = CString::new(format!("{prefix}_{command}")) else {
                    continue;
                };
                if let Some(value) = info.text(&field) {
                    self.text(&field, &String::from_utf8_lossy(&value));
                }
            }
        }
    }
}
