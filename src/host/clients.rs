//! The clients to part with before the module goes.
//!
//! A server remembers the last command of each connection, and those that its transaction
//! has queued, also when the module that had the command is gone. So such connections
//! are closed before.

use super::api::call;
use super::context::take_text;
use redis_module::raw;
use std::ffi::CString;

/// How the names of the module's commands begin.
pub(super) const PREFIX: &str = "cl.";

/// The connections whose last command was one of the module's, and those within a
/// transaction; or why the module has to stay.
///
/// # Safety
/// `ctx` must be the context of `RedisModule_OnUnload`.
pub(crate) unsafe fn to_part_with(
    ctx: *mut raw::RedisModuleCtx,
) -> Result<Vec<CString>, &'static str> {
    // SAFETY: "c" takes a C string, which is live; the reply is used nowhere else.
    let list = unsafe {
        take_text(call!(
            RedisModule_Call(ctx, c"CLIENT".as_ptr(), c"c".as_ptr(), c"LIST".as_ptr(),)
        ))
    };
    let Some((raw::REDISMODULE_REPLY_STRING, Some(list))) = list else {
        return Err("the server does not tell who its clients are");
    };
    let list = String::from_utf8_lossy(&list);
    let clients: Vec<Client<'_>> = list.lines().filter_map(Client::parse).collect();
    if clients.iter().any(Client::executes) {
        return Err("a module cannot be unloaded in a transaction, which may use it next");
    }
    let parting = clients.iter().filter(|client| client.may_come_back());
    Ok(parting.filter_map(|client| CString::new(client.id).ok()).collect())
}

/// Closes connections.
///
/// # Safety
/// `ctx` must be the context of `RedisModule_OnUnload`.
pub(crate) unsafe fn close(ctx: *mut raw::RedisModuleCtx, clients: &[CString]) {
    for id in clients {
        // SAFETY: "c" takes a C string; all are live. The reply is used nowhere else.
        unsafe {
            take_text(call!(RedisModule_Call(
                ctx,
                c"CLIENT".as_ptr(),
                c"ccc".as_ptr(),
                c"KILL".as_ptr(),
                c"ID".as_ptr(),
                id.as_ptr(),
            )));
        }
    }
}

/// A line of `CLIENT LIST`.
#[derive(Debug, Default)]
struct Client<'a> {
    id: &'a str,
    flags: &'a str,
    /// Commands queued by a transaction; -1 outside of one.
    queued: i64,
    /// The last command.
    command: &'a str,
}

impl<'a> Client<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut client = Self { queued: -1, ..Self::default() };
        for (name, value) in line.split(' ').filter_map(|field| field.split_once('=')) {
            match name {
                "id" => client.id = value,
                "flags" => client.flags = value,
                "multi" => client.queued = value.parse().ok()?,
                "cmd" => client.command = value,
                _ => {}
            }
        }
        Some(client).filter(|client| !client.id.is_empty())
    }

    /// Whether it is a primary or a replica: what they send are effects.
    fn replicates(&self) -> bool {
        self.flags.contains(['M', 'S'])
    }

    /// Whether its transaction runs now.
    fn executes(&self) -> bool {
        self.command == "exec" && self.queued > 0 && !self.replicates()
    }

    /// Whether the server has kept a pointer to one of the module's commands, or
    /// may have.
    fn may_come_back(&self) -> bool {
        !self.replicates() && (self.queued > 0 || self.command.starts_with(PREFIX))
    }
}

#[cfg(test)]
mod tests {
    use super::Client;

    #[test]
    fn lines_of_clients() {
        // As printed by Redis 7.0; then what differs.
        let line = "id=7 addr=127.0.0.1:51 laddr=127.0.0.1:6379 fd=8 name= age=3 idle=0 flags=N \
                    db=0 sub=0 psub=0 ssub=0 multi=-1 qbuf=26 qbuf-free=20448 argv-mem=10 \
                    multi-mem=0 rbs=1024 rbp=0 obl=0 oll=0 omem=0 tot-mem=22298 events=r \
                    cmd=cl.take user=default redir=-1 resp=2";
        let rows = [
            ("", "", (false, true)),
            ("cmd=cl.take", "cmd=cl.sync|round", (false, true)),
            ("cmd=cl.take", "cmd=client|list", (false, false)),
            ("cmd=cl.take", "cmd=NULL", (false, false)),
            ("flags=N", "flags=S", (false, false)),
            ("flags=N", "flags=M", (false, false)),
            ("multi=-1", "multi=0", (false, true)),
            ("multi=-1 ", "multi=2 cmd=get ", (false, true)),
            ("cmd=cl.take", "multi=1 cmd=get", (false, true)),
            ("cmd=cl.take", "multi=0 cmd=multi", (false, false)),
            ("cmd=cl.take", "multi=3 cmd=exec", (true, true)),
            ("cmd=cl.take", "multi=-1 cmd=exec", (false, false)),
        ];
        for (from, to, expected) in rows {
            assert!(line.contains(from), "nothing to replace: {from}");
            let line = line.replace(from, to);
            let found = Client::parse(&line)
                .map(|client| (client.id, client.executes(), client.may_come_back()));
            assert_eq!(found, Some(("7", expected.0, expected.1)), "{line}");
        }
        assert!(Client::parse("").is_none());
    }
}
