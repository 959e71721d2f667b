//! Loading and unloading the module.

use super::{events, info, settings};
use crate::commands;
use crate::config::{Parameter, Value};
use crate::error::Error;
use crate::host::{Args, ERR, Level, OK, Registrar, ServerInfo, acl, api, clients, log, refuse};
use crate::module::Module;
use claw_core::rules::RulesError;
use redis_module::raw;
use std::borrow::Cow;
use std::ffi::{CStr, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// The module's name: the prefix of its parameters and of its INFO section.
const NAME: &CStr = c"claw";

/// `major.minor.patch` of the package as `MODULE LIST` shows it: 10203 is 1.2.3.
const VERSION: c_int = {
    const fn number(text: &str) -> c_int {
        let mut bytes = text.as_bytes();
        let mut value: c_int = 0;
        while let [digit, rest @ ..] = bytes {
            value = value.wrapping_mul(10).wrapping_add(digit.wrapping_sub(b'0') as c_int);
            bytes = rest;
        }
        value
    }
    number(env!("CARGO_PKG_VERSION_MAJOR"))
        .wrapping_mul(10_000)
        .wrapping_add(number(env!("CARGO_PKG_VERSION_MINOR")).wrapping_mul(100))
        .wrapping_add(number(env!("CARGO_PKG_VERSION_PATCH")))
};

/// How long unloading may wait for peers to hear what they have not.
const FAREWELL: Duration = Duration::from_millis(300);

/// The server calls this for `loadmodule`, `MODULE LOAD` and `MODULE LOADEX`.
///
/// # Safety
/// To be called by the server only, with its own arguments.
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
pub unsafe extern "C" fn RedisModule_OnLoad(
    ctx: *mut raw::RedisModuleCtx,
    argv: *mut *mut raw::RedisModuleString,
    argc: c_int,
) -> c_int {
    // Until the API is there nothing can be allocated, logged or caught.
    let api_version = raw::REDISMODULE_APIVER_1 as c_int;
    // SAFETY: the server's context and a constant name.
    if unsafe { raw::Export_RedisModule_Init(ctx, NAME.as_ptr(), VERSION, api_version) } != OK {
        return ERR;
    }
    // SAFETY: the server's own arguments.
    let loaded = catch_unwind(AssertUnwindSafe(|| unsafe { load(ctx, argv, argc) }));
    if let Ok(true) = loaded {
        return OK;
    }
    if let Some(module) = Module::current() {
        module.regions.end();
    }
    Module::remove();
    ERR
}

/// The server calls this for `MODULE UNLOAD`, after the last command.
///
/// # Safety
/// To be called by the server only.
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
pub unsafe extern "C" fn RedisModule_OnUnload(ctx: *mut raw::RedisModuleCtx) -> c_int {
    // SAFETY: the context of the unloading.
    match catch_unwind(AssertUnwindSafe(|| unsafe { unload(ctx) })) {
        Ok(Ok(())) => {
            Module::remove();
            OK
        }
        Ok(Err(why)) => {
            // SAFETY: a live context.
            unsafe { log(ctx, Level::Warning, &why) };
            ERR
        }
        Err(_) => ERR,
    }
}

/// Ends everything but the module's state; or says why it has to stay.
///
/// # Safety
/// As for `RedisModule_OnUnload`.
unsafe fn unload(ctx: *mut raw::RedisModuleCtx) -> Result<(), Cow<'static, str>> {
    let Some(module) = Module::current() else {
        return Ok(());
    };
    // The server takes back what it has just loaded, since there is no such parameter, say.
    // It takes no refusal then, and nobody has used the module.
    let taken_back = module.is_being_loaded();
    let clients = if taken_back {
        Vec::new()
    } else {
        // SAFETY: promised by the caller.
        if let Some(rule) = unsafe { acl::rule_of_ours(ctx) }? {
            return Err(format!("not unloaded, since {rule}").into());
        }
        // SAFETY: as above.
        unsafe { clients::to_part_with(ctx) }?
    };
    // What is counted after the module is loaded again hides what was not told before.
    module.regions.drain(FAREWELL);
    // The code of a running thread must stay.
    while !module.regions.end() {
        if !taken_back {
            let why = "a thread of region sync still waits for the network; \
                       unload again in a second";
            return Err(why.into());
        }
    }
    if !clients.is_empty() {
        let what = format!("unloading: closing {} connections that used it", clients.len());
        // SAFETY: a live context.
        unsafe { log(ctx, Level::Notice, &what) };
    }
    // SAFETY: promised by the caller.
    unsafe { clients::close(ctx, &clients) };
    Ok(())
}

/// `false` when the module cannot be loaded; the reason is in the log.
///
/// # Safety
/// As for `RedisModule_OnLoad`.
unsafe fn load(
    ctx: *mut raw::RedisModuleCtx,
    argv: *mut *mut raw::RedisModuleString,
    argc: c_int,
) -> bool {
    if let Some(function) = api::missing() {
        // Without the log function there is nothing to say it with.
        // SAFETY: read by value.
        if unsafe { raw::RedisModule_Log }.is_some() {
            let function = function.to_string_lossy();
            let why = format!("Redis 7.0 or later is needed: the server lacks {function}");
            // SAFETY: a live context.
            unsafe { refuse(ctx, &why) };
        }
        return false;
    }
    if Module::install().is_none() {
        return false;
    }
    // SAFETY: a live context.
    unsafe { api::call!(RedisModule_SetModuleOptions(ctx, options().cast_signed())) };
    // SAFETY: the server's arguments.
    let overrides = match overrides(unsafe { Args::all(argv, argc) }) {
        Ok(overrides) => overrides,
        Err(why) => {
            // SAFETY: a live context.
            unsafe { refuse(ctx, &why) };
            return false;
        }
    };
    // SAFETY: the load-time context.
    if !unsafe { settings::register(ctx, &overrides) } {
        // SAFETY: a live context.
        unsafe { refuse(ctx, "a claw.* parameter was refused") };
        return false;
    }
    if let Some(Ok(mut settings)) = Module::current().map(|m| m.settings.try_borrow_mut()) {
        settings.loaded();
    }
    // SAFETY: the load-time context.
    let mut registrar = unsafe { Registrar::new(ctx) };
    commands::register(&mut registrar);
    // SAFETY: the load-time context.
    registrar.all_registered() && unsafe { info::register(ctx) && events::subscribe(ctx) }
}

/// Valkey's `VALKEYMODULE_OPTIONS_HANDLE_ATOMIC_SLOT_MIGRATION`, which the bindings lack.
const HANDLE_ATOMIC_SLOT_MIGRATION: u32 = 1 << 5;

/// What servers ask modules to declare.
fn options() -> u32 {
    // Keys are signalled by hand, so that a refused take disturbs neither WATCH nor client
    // tracking. And buckets may be read while others are loaded that will replace them: what
    // is kept between commands is about a primary's own takes, and a replica has none.
    let options = raw::REDISMODULE_OPTION_NO_IMPLICIT_SIGNAL_MODIFIED
        | raw::REDISMODULE_OPTIONS_HANDLE_REPL_ASYNC_LOAD;
    // Keys may be there before their slot is: the walk over all keys is not shown them, and
    // no command of ours reaches them. Elsewhere the bit may come to mean another thing.
    match ServerInfo::read(c"server").and_then(|info| info.text(c"valkey_version")) {
        Some(_) => options | HANDLE_ATOMIC_SLOT_MIGRATION,
        None => options,
    }
}

/// Reads the module's arguments: `name value` pairs, with or without `claw.`. A value that may have
/// blanks goes on until the name of another parameter follows.
fn overrides(args: Args<'_>) -> Result<Vec<(Parameter, Value)>, String> {
    let words = words(args)?;
    let mut words = words.as_slice();
    let mut overrides = Vec::new();
    while let [name, rest @ ..] = words {
        let parameter = Parameter::by_name(name)
            .ok_or_else(|| format!("unknown module argument '{}'", name.escape_default()))?;
        let goes_on = |words: &[&str]| parameter.may_have_blanks() && !begins(parameter, words);
        let end = (1..rest.len()).find(|at| !rest.get(*at..).is_some_and(goes_on));
        let (value, rest) = rest.split_at_checked(end.unwrap_or(rest.len())).unwrap_or_default();
        if value.is_empty() {
            return Err(format!("module argument '{name}' needs a value"));
        }
        let value = parameter
            .parse(&value.join(" "))
            .map_err(|error| format!("module argument '{name}': {}", unquoted(&error)))?;
        if overrides.iter().any(|(given, _)| *given == parameter) {
            return Err(format!("module argument '{name}' is given twice"));
        }
        overrides.push((parameter, value));
        words = rest;
    }
    Ok(overrides)
}

/// The words of all arguments. CONFIG REWRITE writes these without the quotes they were given in:
/// so it does not matter which words were one argument, and what it would lose is refused before.
fn words(mut args: Args<'_>) -> Result<Vec<&str>, String> {
    let mut words = Vec::new();
    let mut number = 0_usize;
    while let Some(argument) = args.next() {
        number = number.saturating_add(1);
        // It may be a password.
        let refused = |why| Err(format!("module argument {number} {why}"));
        let Ok(text) = str::from_utf8(argument.as_bytes()) else {
            return refused("is not UTF-8");
        };
        if text.chars().any(|c| matches!(c, '"' | '\'') || (c.is_control() && c != '\t')) {
            return refused(
                "has a quote or control character, which CONFIG REWRITE does not keep: \
                 give the parameter a line of its own",
            );
        }
        let before = words.len();
        words.extend(text.split_ascii_whitespace());
        if words.len() == before {
            return refused(
                "is empty, which CONFIG REWRITE does not keep: leave the parameter out",
            );
        }
    }
    Ok(words)
}

/// What is wrong. A rule is not quoted: a password may have come into it that is another argument's.
fn unquoted(error: &Error) -> String {
    match error {
        Error::Policies(RulesError { number, why, .. }) => format!("entry {number} {why}"),
        error => error.reason(),
    }
}

/// Whether another parameter begins here, and not what goes on with the value of this one. A rule
/// may be for a key with the name of a parameter: then its capacity and rate follow.
fn begins(parameter: Parameter, words: &[&str]) -> bool {
    let is_rule = match (parameter, words) {
        (Parameter::Policies, [_, capacity, rate, ..]) => {
            let digits = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
            digits(capacity) && rate.split_once('/').is_some_and(|(a, b)| digits(a) && digits(b))
        }
        _ => false,
    };
    !is_rule && words.first().is_some_and(|word| Parameter::by_name(word).is_some())
}
