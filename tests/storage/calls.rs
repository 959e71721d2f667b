//! What the tests send and read.

use claw_testkit::{Builder, Server, ask, cmd, wire_error};
use redis::{Cmd, Connection, Value};
use std::collections::BTreeMap;

/// A command whose arguments are given one by one.
pub fn call(conn: &mut Connection, args: &[&[u8]]) -> Result<Value, String> {
    let mut command = Cmd::new();
    for arg in args {
        command.arg(*arg);
    }
    command.query(conn).map_err(|e| wire_error(&e).expect("an answer"))
}

/// A server on whose default policy next to nothing refills, so that tests need
/// not be fast.
pub fn slow_server() -> Builder {
    Server::builder().module_args(["refill-rate-per-sec", "0.000001"])
}

/// A hash made by hand, in place of what the key held.
pub fn hset(conn: &mut Connection, key: &str, fields: &[(&str, &str)]) {
    let mut args: Vec<&[u8]> = vec![b"HSET", key.as_bytes()];
    for (field, value) in fields {
        args.extend([field.as_bytes(), value.as_bytes()]);
    }
    call(conn, &[b"DEL", key.as_bytes()]).unwrap();
    call(conn, &args).unwrap();
}

pub fn fields(conn: &mut Connection, key: &str) -> BTreeMap<String, String> {
    ask(conn, &format!("HGETALL {key}"))
}

/// The server's wall clock in microseconds, at the beginning of the present
/// millisecond: commands never see an earlier time after this.
pub fn clock(conn: &mut Connection) -> u64 {
    let (seconds, micros): (u64, u64) = ask(conn, "TIME");
    (seconds * 1_000_000 + micros) / 1000 * 1000
}

/// Millionths in a decimal text.
pub fn micros(text: &str) -> u128 {
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{places:0<6}").parse().unwrap()
}

/// Whether the server's hashes can have fields that expire.
pub fn fields_expire(conn: &mut Connection) -> bool {
    cmd(conn, "COMMAND INFO HPEXPIRE").unwrap() != Value::Array(vec![Value::Nil])
}
