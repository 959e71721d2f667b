//! What the tests send and read.

use claw_testkit::{call_bytes, cmd};
use redis::{Connection, Value};

/// A hash made by hand, in place of what the key held.
pub fn hset(conn: &mut Connection, key: &str, fields: &[(&str, &str)]) {
    let mut args: Vec<&[u8]> = vec![b"HSET", key.as_bytes()];
    for (field, value) in fields {
        args.extend([field.as_bytes(), value.as_bytes()]);
    }
    call_bytes(conn, &[b"DEL", key.as_bytes()]).unwrap();
    call_bytes(conn, &args).unwrap();
}

/// Whether the server's hashes can have fields that expire.
pub fn fields_expire(conn: &mut Connection) -> bool {
    cmd(conn, "COMMAND INFO HPEXPIRE").unwrap() != Value::Array(vec![Value::Nil])
}
