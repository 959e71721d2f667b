//! How a command is declared, registered and run.

use super::api::{OK, call};
use super::args::Args;
use super::context::{Context, Level, log};
use super::string::Str;
use crate::error::Error;
use crate::module::Module;
use redis_module::raw;
use std::ffi::{CStr, CString, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

/// One command.
pub(crate) trait Command {
    /// What the server is told about it.
    const SPEC: Spec;

    /// The command that this is a subcommand of.
    const CONTAINER: Option<&'static CStr> = None;

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
    /// The first argument, and every one behind the word `AND`: see [`Args::groups`].
    Groups,
    /// The first argument and, when the second is FROM, as many as the third
    /// says, right behind it.
    FirstAndFrom,
    /// Each followed by something else, to the end, after so many arguments; a subcommand's
    /// name counts.
    PairsAfter(c_int),
    /// None.
    None,
}

impl Keys {
    /// Whether the server wants to know where the keys stand rather than run the
    /// command. It asks that of commands with the flag `getkeys-api`, which those
    /// with keys that no specification can tell have: Cluster routing does not read their specification.
    fn are_asked_for(self, ctx: &Context<'_>) -> bool {
        // SAFETY: a live context.
        matches!(self, Self::Groups | Self::FirstAndFrom)
            && unsafe { call!(RedisModule_IsKeysPositionRequest(ctx.as_ptr())) } != 0
    }

    /// Answers with the positions of the keys; with fewer when they do not add up.
    fn tell(self, ctx: &Context<'_>, mut args: Args<'_>) {
        // SAFETY: a live context that has asked for positions.
        let tell = |position| unsafe { call!(RedisModule_KeyAtPos(ctx.as_ptr(), position)) };
        if matches!(self, Self::Groups) {
            let mut position = 1;
            for group in args.groups().filter(|group| !group.is_empty()) {
                tell(position);
                // And the word behind it. Nobody sends 2^31 arguments.
                let len = c_int::try_from(group.len()).unwrap_or(c_int::MAX);
                position = position.saturating_add(len).saturating_add(1);
            }
            return;
        }
        tell(1);
        args.next();
        if args.next().is_some_and(|word| word.as_bytes().eq_ignore_ascii_case(b"FROM")) {
            let count = args.next().and_then(Str::as_numkeys).unwrap_or(0);
            if count <= args.len() {
                (4..).take(count).for_each(tell);
            }
        }
    }
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
    /// A key that the second key specification finds.
    SecondKey,
    Integer,
    Double,
    Text,
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
        // Where the others stand is said below, by the key specifications.
        Keys::FirstAndFrom | Keys::Groups => (1, 1, 1),
        Keys::PairsAfter(before) => (before.saturating_add(1), -1, 2),
        Keys::None => (0, 0, 0),
    };
    // SAFETY: constant strings and a handler with C's calling convention; a
    // subcommand's container was registered before it.
    let status = unsafe {
        let (name, flags, run) = (spec.name.as_ptr(), spec.flags.as_ptr(), Some(handler::<C> as _));
        match C::CONTAINER {
            None => call!(RedisModule_CreateCommand(ctx, name, run, flags, first, last, step)),
            Some(container) => {
                let container = call!(RedisModule_GetCommand(ctx, container.as_ptr()));
                call!(RedisModule_CreateSubcommand(container, name, run, flags, first, last, step))
            }
        }
    };
    if status != OK {
        return Some(Registered::NameTaken);
    }
    let full = full_name::<C>();
    // SAFETY: the command was made by this module just now.
    let command = unsafe { call!(RedisModule_GetCommand(ctx, full.as_ptr())) };
    // SAFETY: as above.
    unsafe { finish(command, spec) }
}

/// The name as the server lists it: `container|name` for a subcommand.
pub(crate) fn full_name<C: Command>() -> CString {
    let name = C::SPEC.name.to_bytes();
    let full = match C::CONTAINER {
        None => name.to_vec(),
        Some(container) => [container.to_bytes(), b"|", name].concat(),
    };
    CString::new(full).unwrap_or_default()
}

/// Registers a command that only has subcommands.
///
/// # Safety
/// `ctx` must be the context of `RedisModule_OnLoad`.
pub(super) unsafe fn register_container(
    ctx: *mut raw::RedisModuleCtx,
    spec: &Spec,
) -> Option<Registered> {
    // SAFETY: constant strings; no handler means that there are subcommands.
    let command = unsafe {
        let (name, flags) = (spec.name.as_ptr(), spec.flags.as_ptr());
        if call!(RedisModule_CreateCommand(ctx, name, None, flags, 0, 0, 0)) != OK {
            return Some(Registered::NameTaken);
        }
        call!(RedisModule_GetCommand(ctx, name))
    };
    // SAFETY: the command was made by this module just now.
    unsafe { finish(command, spec) }
}

/// Tells the server what it may know of a new command.
///
/// # Safety
/// `command` must be a command of this module, or null.
unsafe fn finish(command: *mut raw::RedisModuleCommand, spec: &Spec) -> Option<Registered> {
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
    let entry = |access: Access| {
        let flags = match access {
            Access::Read => raw::REDISMODULE_CMD_KEY_RO | raw::REDISMODULE_CMD_KEY_ACCESS,
            Access::Update => {
                raw::REDISMODULE_CMD_KEY_RW
                    | raw::REDISMODULE_CMD_KEY_ACCESS
                    | raw::REDISMODULE_CMD_KEY_UPDATE
            }
        };
        let mut entry = end;
        entry.flags = u64::from(flags);
        entry.begin_search_type = raw::RedisModuleKeySpecBeginSearchType_REDISMODULE_KSPEC_BS_INDEX;
        entry.bs.index = raw::RedisModuleCommandKeySpec__bindgen_ty_1__bindgen_ty_1 { pos: 1 };
        entry
    };
    let first = || {
        let mut entry = entry(spec.access);
        entry.find_keys_type = raw::RedisModuleKeySpecFindKeysType_REDISMODULE_KSPEC_FK_RANGE;
        entry.fk.range = raw::RedisModuleCommandKeySpec__bindgen_ty_2__bindgen_ty_1 {
            lastkey: 0,
            keystep: 1,
            limit: 0,
        };
        entry
    };
    let counted = || {
        let mut entry = entry(Access::Read);
        entry.find_keys_type = raw::RedisModuleKeySpecFindKeysType_REDISMODULE_KSPEC_FK_KEYNUM;
        entry.fk.keynum = raw::RedisModuleCommandKeySpec__bindgen_ty_2__bindgen_ty_2 {
            keynumidx: 0,
            firstkey: 1,
            keystep: 1,
        };
        entry
    };
    match spec.keys {
        Keys::First => vec![first(), end],
        Keys::Groups => {
            let mut some = first();
            some.flags |= u64::from(raw::REDISMODULE_CMD_KEY_INCOMPLETE);
            vec![some, end]
        }
        Keys::FirstAndFrom => {
            let mut from = counted();
            from.begin_search_type =
                raw::RedisModuleKeySpecBeginSearchType_REDISMODULE_KSPEC_BS_KEYWORD;
            from.bs.keyword = raw::RedisModuleCommandKeySpec__bindgen_ty_1__bindgen_ty_2 {
                keyword: c"FROM".as_ptr(),
                startfrom: 2,
            };
            vec![first(), from, end]
        }
        Keys::PairsAfter(before) => {
            let mut pairs = first();
            let pos = before.saturating_add(1);
            pairs.bs.index = raw::RedisModuleCommandKeySpec__bindgen_ty_1__bindgen_ty_1 { pos };
            pairs.fk.range = raw::RedisModuleCommandKeySpec__bindgen_ty_2__bindgen_ty_1 {
                lastkey: -1,
                keystep: 2,
                limit: 0,
            };
            vec![pairs, end]
        }
        Keys::None => vec![end],
    }
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
        entry.flags = flags.cast_signed();
        entry.type_ = match &argument.kind {
            Kind::Key => {
                entry.key_spec_index = 0;
                raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_KEY
            }
            Kind::SecondKey => {
                entry.key_spec_index = 1;
                raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_KEY
            }
            Kind::Integer => raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_INTEGER,
            Kind::Text => raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_STRING,
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
        // Never, while the commands are registered; but a client must not wait.
        // SAFETY: a live context and a constant line.
        unsafe { call!(RedisModule_ReplyWithError(raw_ctx, c"ERR claw is unloaded".as_ptr())) };
        return OK;
    };
    // SAFETY: the server's own arguments, alive until we return.
    let (ctx, mut args) = unsafe { (Context::new(raw_ctx, module), Args::new(argv, argc)) };
    if C::CONTAINER.is_some() {
        // The name of the subcommand.
        args.next();
    }
    // Errors are told inside: handing the result on, which is written in pieces, would
    // make the processor wait, also when there is none.
    let caught = guard(|| {
        if C::SPEC.keys.are_asked_for(&ctx) {
            C::SPEC.keys.tell(&ctx, args);
        } else if let Err(error) = C::run(&ctx, args) {
            tell::<C>(&ctx, &error);
        }
    });
    if caught.is_none() {
        tell::<C>(&ctx, &Error::Panic);
    }
    OK
}

/// Replies with an error, and counts and logs what is not the caller's.
#[cold]
fn tell<C: Command>(ctx: &Context<'_>, error: &Error) {
    if matches!(error, Error::Field { .. } | Error::HiddenField { .. }) {
        ctx.module().stats.corrupt.add(1);
    }
    if let Error::Internal(what) = error {
        let name = C::SPEC.name.to_string_lossy();
        // SAFETY: a live context.
        unsafe { log(ctx.as_ptr(), Level::Warning, &format!("internal error in {name}: {what}")) };
    }
    if matches!(error, Error::Panic) {
        let name = C::SPEC.name.to_string_lossy();
        // SAFETY: a live context.
        unsafe { log(ctx.as_ptr(), Level::Warning, &format!("a panic was caught in {name}")) };
    }
    ctx.reply_error(&error.line());
}

/// What `run` returns; `None` when it panics.
fn guard<T>(run: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(run)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_goes_no_further() {
        assert_eq!(guard(|| 1), Some(1));
        #[allow(clippy::panic)]
        let caught = guard(|| panic!("asked for"));
        assert_eq!(caught, None::<()>);
    }
}
