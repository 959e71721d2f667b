//! Configuration parameters: how the server reads and sets them.

use crate::config::{Parameter, Settings, Value};
use crate::error::Error;
use crate::host::{self, ERR, OK, OwnedStr, Str, api::call};
use crate::module::Module;
use redis_module::raw;
use std::cell::RefMut;
use std::ffi::{CString, c_char, c_int, c_longlong, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};

/// Registers every parameter and lets the server set each to its value from the
/// configuration file, from `MODULE LOADEX` or from `overrides` (the module's
/// arguments), in this order of precedence. `false` when a value was refused.
///
/// # Safety
/// `ctx` must be the context of `RedisModule_OnLoad`.
pub(super) unsafe fn register(
    ctx: *mut raw::RedisModuleCtx,
    overrides: &[(Parameter, Value)],
) -> bool {
    for parameter in Parameter::ALL {
        let given = overrides.iter().find(|(p, _)| p == parameter).map(|(_, value)| value);
        let default = given.cloned().unwrap_or_else(|| parameter.default());
        let (Ok(name), private) = (CString::new(parameter.name()), *parameter as usize) else {
            return false;
        };
        let private = ptr::without_provenance_mut::<c_void>(private);
        let flags = match parameter.is_sensitive() {
            true => raw::REDISMODULE_CONFIG_SENSITIVE,
            false => raw::REDISMODULE_CONFIG_DEFAULT,
        };
        let status = match (default, parameter.bounds()) {
            // SAFETY: live strings, which the server copies, and callbacks with
            // C's calling convention; the private data is a number.
            (Value::Integer(default), Some((min, max))) => unsafe {
                call!(RedisModule_RegisterNumericConfig(
                    ctx,
                    name.as_ptr(),
                    default,
                    raw::REDISMODULE_CONFIG_DEFAULT,
                    min,
                    max,
                    Some(get_integer),
                    Some(set_integer),
                    None,
                    private,
                ))
            },
            (Value::Text(default), None) => {
                let Ok(default) = CString::new(default) else {
                    return false;
                };
                // SAFETY: as above.
                unsafe {
                    call!(RedisModule_RegisterStringConfig(
                        ctx,
                        name.as_ptr(),
                        default.as_ptr(),
                        flags,
                        Some(get_text),
                        Some(set_text),
                        (*parameter == Parameter::Peers).then_some(apply as _),
                        private,
                    ))
                }
            }
            _ => return false,
        };
        if status != OK {
            return false;
        }
    }
    // SAFETY: called once, after all parameters were registered.
    unsafe { call!(RedisModule_LoadConfigs(ctx)) == OK }
}

fn parameter(private: *mut c_void) -> Option<Parameter> {
    Parameter::ALL.iter().copied().find(|p| *p as usize == private.addr())
}

fn get(private: *mut c_void) -> Option<Value> {
    let settings = Module::current()?.settings.try_borrow().ok()?;
    Some(settings.get(parameter(private)?))
}

fn set(private: *mut c_void, value: &Value) -> Result<(), Error> {
    let parameter = parameter(private).ok_or(Error::Busy)?;
    settings()?.set(parameter, value, host::now())
}

fn settings() -> Result<RefMut<'static, Settings>, Error> {
    let module = Module::current().ok_or(Error::Busy)?;
    module.settings.try_borrow_mut().map_err(|_| Error::Busy)
}

/// Runs `change` behind a guard and hands its error to the server.
fn guarded(
    error: *mut *mut raw::RedisModuleString,
    change: impl FnOnce() -> Result<(), Error>,
) -> c_int {
    let outcome = catch_unwind(AssertUnwindSafe(change));
    let refused = match outcome {
        Ok(Ok(())) => return OK,
        Ok(Err(refused)) => refused,
        Err(_) => Error::Panic,
    };
    let text = OwnedStr::new(refused.reason().as_bytes()).map(OwnedStr::into_raw);
    if let (Some(text), false) = (text, error.is_null()) {
        // SAFETY: the server's place for an error, which it frees.
        unsafe { error.write(text) };
    }
    ERR
}

/// The server calls this when all parameters of a command are set, and peers are among them: what is
/// left of a command that failed is never put in force by another one.
unsafe extern "C" fn apply(
    _ctx: *mut raw::RedisModuleCtx,
    _private: *mut c_void,
    error: *mut *mut raw::RedisModuleString,
) -> c_int {
    guarded(error, || {
        settings()?.apply();
        Ok(())
    })
}

unsafe extern "C" fn get_integer(_name: *const c_char, private: *mut c_void) -> c_longlong {
    match get(private) {
        Some(Value::Integer(value)) => value,
        _ => 0,
    }
}

unsafe extern "C" fn set_integer(
    _name: *const c_char,
    value: c_longlong,
    private: *mut c_void,
    error: *mut *mut raw::RedisModuleString,
) -> c_int {
    guarded(error, || set(private, &Value::Integer(value)))
}

unsafe extern "C" fn get_text(
    _name: *const c_char,
    private: *mut c_void,
) -> *mut raw::RedisModuleString {
    let Some(Value::Text(text)) = get(private) else {
        return ptr::null_mut();
    };
    let Some(text) = OwnedStr::new(text.as_bytes()) else {
        return ptr::null_mut();
    };
    // The server copies what it gets and frees nothing, so the module keeps the
    // string until it is asked again.
    Module::current().map_or(ptr::null_mut(), |module| module.lend(text))
}

unsafe extern "C" fn set_text(
    _name: *const c_char,
    value: *mut raw::RedisModuleString,
    private: *mut c_void,
    error: *mut *mut raw::RedisModuleString,
) -> c_int {
    let Some(value) = NonNull::new(value) else {
        return ERR;
    };
    // SAFETY: the server's string lives until we return.
    let text = unsafe { Str::new(value) }.as_bytes();
    guarded(error, || {
        let text = str::from_utf8(text).map_err(|_| Error::NotUtf8)?;
        set(private, &Value::Text(text.to_owned()))
    })
}
