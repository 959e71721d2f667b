//! The running command's view of the server.

use super::api::{OK, call};
use super::string::{OwnedStr, Str};
use crate::module::Module;
use redis_module::raw;
use std::ffi::{CStr, c_int, c_long};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Classes of keyspace events.
#[derive(Debug, Clone, Copy)]
pub(crate) enum EventClass {
    /// `h`: hash commands.
    Hash,
    /// `g`: commands of any type.
    Generic,
}

/// One command's call: replies, replication, events, and the module's state.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    raw: *mut raw::RedisModuleCtx,
    module: &'a Module,
    /// Whether it is the context of an event, not of a command.
    between_commands: bool,
}

impl<'a> Context<'a> {
    /// # Safety
    /// `raw` must be the context of a call that lasts for `'a`.
    pub(crate) unsafe fn new(raw: *mut raw::RedisModuleCtx, module: &'a Module) -> Self {
        Self { raw, module, between_commands: false }
    }

    /// The context of an event.
    ///
    /// # Safety
    /// As for [`Self::new`].
    pub(crate) unsafe fn of_event(raw: *mut raw::RedisModuleCtx, module: &'a Module) -> Self {
        Self { raw, module, between_commands: true }
    }

    pub(crate) fn as_ptr(&self) -> *mut raw::RedisModuleCtx {
        self.raw
    }

    /// Whether it is the context of an event, not of a command.
    pub(crate) fn is_between_commands(&self) -> bool {
        self.between_commands
    }

    /// The module's state.
    pub(crate) fn module(&self) -> &'a Module {
        self.module
    }

    /// Replicates `command key arg ..` as an effect of the running command, to
    /// replicas and to the AOF; several make one atomic unit. The strings are
    /// retained, not copied.
    pub(crate) fn replicate(&self, command: &CStr, key: Str<'_>, arguments: &[Str<'_>]) {
        if !self.is_unheard() {
            self.hand_over(command, key, arguments);
        }
    }

    fn hand_over(&self, command: &CStr, key: Str<'_>, arguments: &[Str<'_>]) {
        const { assert!(size_of::<Str<'_>>() == size_of::<*mut raw::RedisModuleString>()) };
        let (ctx, command, key) = (self.raw, command.as_ptr(), key.as_ptr());
        // SAFETY: "s" takes one string and "v" an array of strings with its
        // length; `Str` is a transparent pointer to a live string.
        unsafe {
            match *arguments {
                // What takes write: the server handles single strings faster.
                [a, b, c, d] => {
                    let [a, b, c, d] = [a, b, c, d].map(Str::as_ptr);
                    let format = c"sssss".as_ptr();
                    call!(RedisModule_Replicate(ctx, command, format, key, a, b, c, d));
                }
                [a, b, c, d, e, f] => {
                    let [a, b, c, d, e, f] = [a, b, c, d, e, f].map(Str::as_ptr);
                    let format = c"sssssss".as_ptr();
                    call!(RedisModule_Replicate(ctx, command, format, key, a, b, c, d, e, f));
                }
                _ => {
                    let (list, len) = (arguments.as_ptr(), arguments.len());
                    let format = c"sv".as_ptr();
                    call!(RedisModule_Replicate(ctx, command, format, key, list, len));
                }
            }
        }
    }

    /// [`Self::replicate`] with an integer as the only argument.
    pub(crate) fn replicate_integer(&self, command: &CStr, key: Str<'_>, value: u64) {
        // Made only for somebody.
        if !self.is_unheard()
            && let Some(value) = OwnedStr::from_integer(value)
        {
            self.hand_over(command, key, &[value.as_str()]);
        }
    }

    /// Announces a keyspace event.
    pub(crate) fn notify(&self, class: EventClass, event: &CStr, key: Str<'_>) {
        let class = match class {
            EventClass::Hash => raw::REDISMODULE_NOTIFY_HASH,
            EventClass::Generic => raw::REDISMODULE_NOTIFY_GENERIC,
        };
        // SAFETY: live arguments.
        unsafe {
            call!(RedisModule_NotifyKeyspaceEvent(self.raw, class, event.as_ptr(), key.as_ptr()));
        }
    }

    /// Tells WATCH and client tracking that the key has changed.
    pub(crate) fn signal_modified(&self, key: Str<'_>) {
        // SAFETY: live arguments.
        unsafe { call!(RedisModule_SignalModifiedKey(self.raw, key.as_ptr())) };
    }

    /// Replies with an integer.
    pub(crate) fn reply_integer(&self, value: i64) {
        // SAFETY: a live context.
        unsafe { call!(RedisModule_ReplyWithLongLong(self.raw, value)) };
    }

    /// Opens an array of `len` replies.
    pub(crate) fn reply_array(&self, len: usize) {
        // SAFETY: a live context.
        unsafe { call!(RedisModule_ReplyWithArray(self.raw, reply_len(len))) };
    }

    /// Opens a map of `len` pairs; a flat array in RESP2.
    pub(crate) fn reply_map(&self, len: usize) {
        // SAFETY: a live context.
        unsafe { call!(RedisModule_ReplyWithMap(self.raw, reply_len(len))) };
    }

    /// Replies with a bulk string.
    pub(crate) fn reply_bytes(&self, bytes: &[u8]) {
        // SAFETY: a live context; the server copies the bytes.
        unsafe {
            call!(RedisModule_ReplyWithStringBuffer(self.raw, bytes.as_ptr().cast(), bytes.len()));
        }
    }

    /// Replies with a simple string.
    pub(crate) fn reply_status(&self, text: &CStr) {
        // SAFETY: a live context; the server copies the text.
        unsafe { call!(RedisModule_ReplyWithSimpleString(self.raw, text.as_ptr())) };
    }

    /// Replies with nil.
    pub(crate) fn reply_null(&self) {
        // SAFETY: a live context.
        unsafe { call!(RedisModule_ReplyWithNull(self.raw)) };
    }

    /// Whether the command was called from a Lua script or a function.
    pub(crate) fn in_script(&self) -> bool {
        self.has_flag(raw::REDISMODULE_CTX_FLAGS_LUA)
    }

    /// Whether the server takes writes from clients, not from a primary.
    pub(crate) fn is_primary(&self) -> bool {
        self.has_flag(raw::REDISMODULE_CTX_FLAGS_MASTER)
    }

    /// Whether the server is reading its RDB or AOF.
    pub(crate) fn is_loading(&self) -> bool {
        self.has_flag(raw::REDISMODULE_CTX_FLAGS_LOADING)
    }

    /// Whether replicas and AOF must be told nothing now, since the server has
    /// paused its clients: it would stop itself rather than let them differ. Only
    /// what happens between commands has to ask.
    pub(crate) fn must_not_write(&self) -> bool {
        // SAFETY: takes nothing.
        unsafe { call!(RedisModule_AvoidReplicaTraffic()) != 0 }
    }

    pub(crate) fn has_flag(&self, flag: u32) -> bool {
        // SAFETY: a live context.
        unsafe { call!(RedisModule_GetContextFlags(self.raw)) & flag.cast_signed() != 0 }
    }

    /// Calls a read-only Redis Function without keys, as the user who runs the
    /// command. `Err` holds the server's error text.
    ///
    /// Must not be called inside a script: the server aborts when scripts nest.
    /// No key may be open: the function may make the server drop expired ones.
    pub(crate) fn call_function(&self, name: &CStr, args: [&[u8]; 2]) -> Result<Vec<u8>, Vec<u8>> {
        let [first, second] = args;
        // Between commands there is no user whose rights could be checked: what is
        // called then was configured by whoever may configure the server.
        let format = if self.between_commands { c"Eccbb" } else { c"ECccbb" };
        // SAFETY: "E" gives errors as replies, "C" checks the user's rights, "c"
        // takes a C string and "b" a buffer with its length; all live.
        let reply = unsafe {
            call!(RedisModule_Call(
                self.raw,
                c"FCALL_RO".as_ptr(),
                format.as_ptr(),
                name.as_ptr(),
                c"0".as_ptr(),
                first.as_ptr(),
                first.len(),
                second.as_ptr(),
                second.len(),
            ))
        };
        // SAFETY: the reply to a call, used nowhere else.
        match unsafe { take_text(reply) } {
            None => Err(b"the server cannot call functions here".to_vec()),
            Some((raw::REDISMODULE_REPLY_STRING, Some(text))) => Ok(text),
            Some((raw::REDISMODULE_REPLY_ERROR, Some(text))) => Err(text),
            Some(_) => Err(b"it returned something else than a string".to_vec()),
        }
    }

    /// How many masters of a cluster have slots, with those that do not answer, and whether this
    /// server is one of them; 1 and so it is when it is in no cluster. `None` when it cannot tell.
    pub(crate) fn masters(&self) -> Option<(u16, bool)> {
        if !self.has_flag(raw::REDISMODULE_CTX_FLAGS_CLUSTER) {
            return Some((1, true));
        }
        // SAFETY: "c" takes a C string, which is live.
        let reply = unsafe {
            call!(
                RedisModule_Call(self.raw, c"CLUSTER".as_ptr(), c"c".as_ptr(), c"NODES".as_ptr(),)
            )
        };
        // SAFETY: the reply to a call, used nowhere else.
        let (_, text) = unsafe { take_text(reply) }?;
        masters_with_slots(std::str::from_utf8(&text?).ok()?)
    }

    /// The number of the database in use.
    pub(crate) fn db(&self) -> u32 {
        // SAFETY: a live context.
        let db: c_int = unsafe { call!(RedisModule_GetSelectedDb(self.raw)) };
        debug_assert!(db >= 0, "databases are numbered from 0");
        db.unsigned_abs()
    }

    /// Goes to another database; `false` when there is none of that number.
    pub(crate) fn select(&self, db: u32) -> bool {
        let Ok(db) = c_int::try_from(db) else {
            return false;
        };
        // SAFETY: a live context.
        unsafe { call!(RedisModule_SelectDb(self.raw, db)) == OK }
    }

    /// Writes a notice to the server's log.
    pub(crate) fn log(&self, line: &str) {
        // SAFETY: a live context.
        unsafe { log(self.raw, Level::Notice, line) };
    }

    /// Replies with an error line.
    pub(crate) fn reply_error(&self, line: &CStr) {
        // SAFETY: a live context; the server copies the line.
        unsafe { call!(RedisModule_ReplyWithError(self.raw, line.as_ptr())) };
    }
}

/// Reads the reply to `CLUSTER NODES`, see [`Context::masters`]. A line has the id, address, flags,
/// master, ping, pong, epoch and link of a node, and then its slots.
fn masters_with_slots(nodes: &str) -> Option<(u16, bool)> {
    let (mut count, mut is_one) = (0_u16, false);
    for line in nodes.lines() {
        let mut words = line.split_ascii_whitespace();
        let flags = words.nth(2)?;
        let is = |flag| flags.split(',').any(|one| one == flag);
        // Those in brackets are on the move, and counted where they still are.
        if is("master") && words.skip(5).any(|slots| !slots.starts_with('[')) {
            count = count.saturating_add(1);
            is_one |= is("myself");
        }
    }
    Some((count, is_one))
}

/// The versions of the events' structures that are asked for.
pub(crate) const EVENT_VERSION: u64 = 1;

/// Handles an event. Nothing may unwind into the server.
///
/// # Safety
/// `raw` must be the context of an event.
pub(crate) unsafe fn in_event(raw: *mut raw::RedisModuleCtx, run: impl FnOnce(&Context<'_>)) {
    let Some(module) = Module::current() else {
        return;
    };
    // SAFETY: promised by the caller.
    let ctx = unsafe { Context::of_event(raw, module) };
    if catch_unwind(AssertUnwindSafe(|| run(&ctx))).is_err() {
        ctx.log("a panic was caught in an event");
    }
}

/// Frees a reply. Returns its type and, if it has one, its text; `None` without a
/// reply.
///
/// # Safety
/// `reply` must be the live reply to a call, or null.
pub(crate) unsafe fn take_text(
    reply: *mut raw::RedisModuleCallReply,
) -> Option<(isize, Option<Vec<u8>>)> {
    if reply.is_null() {
        return None;
    }
    // SAFETY: a live reply; its text is copied before it is freed.
    unsafe {
        let kind = call!(RedisModule_CallReplyType(reply)) as isize;
        let mut len = 0_usize;
        let start = call!(RedisModule_CallReplyStringPtr(reply, &mut len));
        let text = if start.is_null() {
            None
        } else {
            Some(std::slice::from_raw_parts(start.cast::<u8>(), len).to_vec())
        };
        call!(RedisModule_FreeCallReply(reply));
        Some((kind, text))
    }
}

fn reply_len(len: usize) -> c_long {
    c_long::try_from(len).unwrap_or(c_long::MAX)
}

/// Severity of a log line.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Level {
    /// Worth a look by the operator.
    Warning,
    /// Good to know.
    Notice,
}

/// Writes a line to the server's log.
///
/// # Safety
/// `raw` must be a live context, or null.
pub(crate) unsafe fn log(raw: *mut raw::RedisModuleCtx, level: Level, line: &str) {
    let level = match level {
        Level::Warning => c"warning",
        Level::Notice => c"notice",
    };
    let len = c_int::try_from(line.len()).unwrap_or(c_int::MAX);
    // SAFETY: the line is an argument, never the format; "%.*s" reads no further
    // than its length, so that it needs no NUL at the end.
    unsafe {
        call!(RedisModule_Log(raw, level.as_ptr(), c"%.*s".as_ptr(), len, line.as_ptr()));
    }
}

/// Says in the log why the module does not load.
///
/// # Safety
/// `ctx` must be a live context.
pub(crate) unsafe fn refuse(ctx: *mut raw::RedisModuleCtx, why: &str) {
    // SAFETY: promised by the caller.
    unsafe { log(ctx, Level::Warning, why) };
}

#[cfg(test)]
mod tests {
    use super::masters_with_slots;

    #[test]
    fn masters_that_have_slots_are_counted() {
        const NODES: &str = "\
            a 127.0.0.1:7000@17000 master - 0 1426238317239 4 connected 5461-10922 [93->-d]\n\
            b 127.0.0.1:7001@17001,host slave a 0 1426238316232 5 connected\n\
            c 127.0.0.1:7002@17002 master,fail - 0 1426238318243 3 disconnected 0 2-5460\n\
            d 127.0.0.1:7003@17003 master - 0 1426238318243 0 connected [93-<-a]\n\
            e 127.0.0.1:7004@17004 master - 0 1426238318243 2 connected 10923-16383\n";
        let seen_by = |id: &str| {
            let lines = NODES.lines().map(|line| match line.strip_prefix(id) {
                Some(_) => line.replace("master", "myself,master").replace("slave", "myself,slave"),
                None => line.to_owned(),
            });
            masters_with_slots(&lines.collect::<Vec<_>>().join("\n"))
        };
        for (id, is_one) in [("a", true), ("b", false), ("c", true), ("d", false), ("e", true)] {
            assert_eq!(seen_by(id), Some((3, is_one)), "{id}");
        }
        let alone = "f :7000@17000 myself,master - 0 0 0 connected";
        assert_eq!(masters_with_slots(alone), Some((0, false)));
        assert_eq!(masters_with_slots("what"), None);
    }
}
