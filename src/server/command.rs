//! How a command is declared, registered and run.

use super::api::call;
use super::args::Args;
use super::context::{Context, Level, log};
use super::module::Module;
use crate::error::Error;
use redis_module::raw;
use std::ffi::{CStr, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

/// One command.
pub(crate) trait Command {
    /// What the server is told about it.
    const SPEC: Spec;

    /// Parses, decides, applies and replies. On an error nothing has been
    /// written and nothing replied.
    fn run(ctx: &Context<'_>, args: Args<'_>) -> Result<(), Error>;
}

/// What `COMMAND INFO`, `COMMAND DOCS`, ACL and Cluster know of a command.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) name: &'static CStr,
    /// Space-separated flags of `RedisModule_CreateCommand`.
    pub(crate) flags: &'static CStr,
    /// ACL categories, space-separated, for servers that take them.
    pub(crate) categories: &'static CStr,
    /// Exact count, or the least as a negative number; the name counts.
    pub(crate) arity: c_int,
    pub(crate) keys: Keys,
    pub(crate) access: Access,
    pub(crate) summary: &'static CStr,
    pub(crate) complexity: &'static CStr,
    pub(crate) since: &'static CStr,
    pub(crate) arguments: &'static [Argument],
}

/// Where the keys stand.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keys {
    /// The first argument.
    First,
    /// As many as the first argument says, right behind it.
    Counted,
    /// None.
    #[cfg(feature = "panic-probe")]
    None,
}

/// What happens to the keys.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Access {
    /// Their value is returned.
    Read,
    /// Their value is returned and changed.
    Update,
}

/// One argument for `COMMAND DOCS`.
#[derive(Debug)]
pub(crate) struct Argument {
    pub(crate) name: &'static CStr,
    pub(crate) kind: Kind,
    pub(crate) token: Option<&'static CStr>,
    pub(crate) optional: bool,
    pub(crate) multiple: bool,
}

/// The type of an argument.
#[derive(Debug)]
pub(crate) enum Kind {
    Key,
    Integer,
    Double,
    /// A bare word.
    Token,
    /// Arguments that come together.
    Block(&'static [Argument]),
    /// One of several.
    OneOf(&'static [Argument]),
}

impl Argument {
    /// A required argument without a token before it.
    pub(crate) const fn new(name: &'static CStr, kind: Kind) -> Self {
        Self { name, kind, token: None, optional: false, multiple: false }
    }

    /// Preceded by `token`.
    pub(crate) const fn token(self, token: &'static CStr) -> Self {
        Self { token: Some(token), ..self }
    }

    /// May be left out.
    pub(crate) const fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    /// May be repeated.
    pub(crate) const fn multiple(self) -> Self {
        Self { multiple: true, ..self }
    }
}

/// The server took the name, or has it already from somebody else.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Registered {
    Yes,
    NameTaken,
}

/// Registers a command. `None` when the server refuses its description.
///
/// # Safety
/// `ctx` must be the context of `RedisModule_OnLoad`.
pub(super) unsafe fn register<C: Command>(ctx: *mut raw::RedisModuleCtx) -> Option<Registered> {
    let spec = &C::SPEC;
    let (first, last, step) = match spec.keys {
        Keys::First => (1, 1, 1),
        // Where they really stand is said below, by the key specification.
        Keys::Counted => (0, 0, 0),
        #[cfg(feature = "panic-probe")]
        Keys::None => (0, 0, 0),
    };
    // SAFETY: constant strings and a handler with C's calling convention.
    let status = unsafe {
        call!(RedisModule_CreateCommand(
            ctx,
            spec.name.as_ptr(),
            Some(handler::<C>),
            spec.flags.as_ptr(),
            first,
            last,
            step,
        ))
    };
    if status != OK {
        return Some(Registered::NameTaken);
    }
    // SAFETY: the command was made by this module just now.
    let command = unsafe { call!(RedisModule_GetCommand(ctx, spec.name.as_ptr())) };
    if command.is_null() || !describe(command, spec) {
        return None;
    }
    // SAFETY: read by value.
    if let Some(set_categories) = unsafe { raw::RedisModule_SetCommandACLCategories } {
        // SAFETY: a live command and a constant string.
        if unsafe { set_categories(command, spec.categories.as_ptr()) } != OK {
            return None;
        }
    }
    Some(Registered::Yes)
}

const OK: c_int = raw::REDISMODULE_OK as c_int;

/// Gives the server arity, key specification and documentation.
fn describe(command: *mut raw::RedisModuleCommand, spec: &Spec) -> bool {
    let version = raw::RedisModuleCommandInfoVersion {
        version: 1,
        sizeof_historyentry: size_of::<raw::RedisModuleCommandHistoryEntry>(),
        sizeof_keyspec: size_of::<raw::RedisModuleCommandKeySpec>(),
        sizeof_arg: size_of::<raw::RedisModuleCommandArg>(),
    };
    let mut key_specs = key_specs(spec);
    // Nested lists are kept alive here until the server has copied them.
    let mut blocks = Vec::new();
    let mut arguments = arguments(spec.arguments, &mut blocks);
    let info = raw::RedisModuleCommandInfo {
        version: &version,
        summary: spec.summary.as_ptr(),
        complexity: spec.complexity.as_ptr(),
        since: spec.since.as_ptr(),
        history: ptr::null_mut(),
        tips: ptr::null(),
        arity: spec.arity,
        key_specs: key_specs.as_mut_ptr(),
        args: arguments.as_mut_ptr(),
    };
    // SAFETY: every list ends with a zeroed entry and outlives the call, in
    // which the server copies all of it.
    unsafe { call!(RedisModule_SetCommandInfo(command, &info)) == OK }
}

fn key_specs(spec: &Spec) -> Vec<raw::RedisModuleCommandKeySpec> {
    // SAFETY: a C struct of integers, pointers and unions of those, for which
    // all zeros is the API's end mark.
    let end: raw::RedisModuleCommandKeySpec = unsafe { std::mem::zeroed() };
    let mut entry = end;
    let flags = match spec.access {
        Access::Read => raw::REDISMODULE_CMD_KEY_RO | raw::REDISMODULE_CMD_KEY_ACCESS,
        Access::Update => {
            raw::REDISMODULE_CMD_KEY_RW
                | raw::REDISMODULE_CMD_KEY_ACCESS
                | raw::REDISMODULE_CMD_KEY_UPDATE
        }
    };
    entry.flags = u64::from(flags);
    entry.begin_search_type = raw::RedisModuleKeySpecBeginSearchType_REDISMODULE_KSPEC_BS_INDEX;
    entry.bs.index = raw::RedisModuleCommandKeySpec__bindgen_ty_1__bindgen_ty_1 { pos: 1 };
    match spec.keys {
        Keys::First => {
            entry.find_keys_type = raw::RedisModuleKeySpecFindKeysType_REDISMODULE_KSPEC_FK_RANGE;
            entry.fk.range = raw::RedisModuleCommandKeySpec__bindgen_ty_2__bindgen_ty_1 {
                lastkey: 0,
                keystep: 1,
                limit: 0,
            };
        }
        Keys::Counted => {
            entry.find_keys_type = raw::RedisModuleKeySpecFindKeysType_REDISMODULE_KSPEC_FK_KEYNUM;
            entry.fk.keynum = raw::RedisModuleCommandKeySpec__bindgen_ty_2__bindgen_ty_2 {
                keynumidx: 0,
                firstkey: 1,
                keystep: 1,
            };
        }
        #[cfg(feature = "panic-probe")]
        Keys::None => return vec![end],
    }
    vec![entry, end]
}

/// The C form of `list`, ended by a zeroed entry. Nested lists go to `blocks`,
/// whose heap buffers stay where they are.
fn arguments(
    list: &[Argument],
    blocks: &mut Vec<Vec<raw::RedisModuleCommandArg>>,
) -> Vec<raw::RedisModuleCommandArg> {
    let mut entries = Vec::with_capacity(list.len().saturating_add(1));
    for argument in list {
        // SAFETY: as for key specifications.
        let mut entry: raw::RedisModuleCommandArg = unsafe { std::mem::zeroed() };
        entry.name = argument.name.as_ptr();
        entry.key_spec_index = -1;
        entry.token = argument.token.map_or(ptr::null(), CStr::as_ptr);
        let mut flags = raw::REDISMODULE_CMD_ARG_NONE;
        if argument.optional {
            flags |= raw::REDISMODULE_CMD_ARG_OPTIONAL;
        }
        if argument.multiple {
            flags |= raw::REDISMODULE_CMD_ARG_MULTIPLE;
        }
        entry.flags = c_int::try_from(flags).unwrap_or(0);
        entry.type_ = match &argument.kind {
            Kind::Key => {
                entry.key_spec_index = 0;
                raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_KEY
            }
            Kind::Integer => raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_INTEGER,
            Kind::Double => raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_DOUBLE,
            Kind::Token => raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_PURE_TOKEN,
            Kind::Block(inner) | Kind::OneOf(inner) => {
                let mut inner = arguments(inner, blocks);
                entry.subargs = inner.as_mut_ptr();
                blocks.push(inner);
                match argument.kind {
                    Kind::OneOf(_) => raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_ONEOF,
                    _ => raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_BLOCK,
                }
            }
        };
        entries.push(entry);
    }
    // SAFETY: as above.
    entries.push(unsafe { std::mem::zeroed() });
    entries
}

/// The entry point that the server calls. Nothing may unwind through it.
extern "C" fn handler<C: Command>(
    raw_ctx: *mut raw::RedisModuleCtx,
    argv: *mut *mut raw::RedisModuleString,
    argc: c_int,
) -> c_int {
    let Some(module) = Module::current() else {
        return OK;
    };
    // SAFETY: the server's own arguments, alive until we return.
    let (ctx, args) = unsafe { (Context::new(raw_ctx, module), Args::new(argv, argc)) };
    let outcome = guard(|| C::run(&ctx, args));
    if let Err(error) = outcome {
        if matches!(error, Error::Panic) {
            let name = C::SPEC.name.to_string_lossy();
            // SAFETY: a live context.
            unsafe { log(raw_ctx, Level::Warning, &format!("a panic was caught in {name}")) };
        }
        ctx.reply_error(&error.line());
    }
    OK
}

/// Turns a panic into an error.
fn guard<T>(run: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(Err(Error::Panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        assert_eq!(guard(|| Ok(1)), Ok(1));
        assert_eq!(guard::<()>(|| Err(Error::NumKeys)), Err(Error::NumKeys));
        #[allow(clippy::panic, clippy::panic_in_result_fn)]
        let caught = guard::<()>(|| panic!("asked for"));
        assert_eq!(caught, Err(Error::Panic));
    }
}
