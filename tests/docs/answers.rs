//! The server's answers about itself.

use claw_testkit::cmd;
use redis::{Connection, Value};
use std::collections::BTreeSet;

/// The module's commands, in capitals.
/// Subcommands are on the page of their container.
pub fn command_names(conn: &mut Connection) -> BTreeSet<String> {
    let Value::Array(names) = cmd(conn, "COMMAND LIST FILTERBY MODULE claw").unwrap() else {
        panic!("COMMAND LIST answers with an array");
    };
    let names = names.iter().map(|name| text_of(name).to_uppercase());
    names.filter(|name| !name.contains('|')).collect()
}

/// The flags that every server shows, in its order.
pub fn flags(conn: &mut Connection, name: &str) -> String {
    let Value::Array(commands) = cmd(conn, &format!("COMMAND INFO {name}")).unwrap() else {
        panic!("COMMAND INFO answers with an array");
    };
    let Value::Array(info) = &commands[0] else {
        panic!("{name} is no command");
    };
    let (Value::Array(flags) | Value::Set(flags)) = &info[2] else {
        panic!("the third element is the flags");
    };
    let flags = flags.iter().map(text_of);
    flags
        .filter(|f| !["module", "movablekeys"].contains(&f.as_str()))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The value of a name in a map, which is a flat array in RESP2.
pub fn value_of(map: &Value, name: &str) -> Value {
    let Value::Array(items) = map else {
        panic!("{map:?} is no map");
    };
    let pair = items.chunks(2).find(|pair| text_of(&pair[0]) == name);
    pair.unwrap_or_else(|| panic!("no {name:?} in {map:?}"))[1].clone()
}

pub fn text_of(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).unwrap(),
        Value::SimpleString(text) => text.clone(),
        Value::VerbatimString { text, .. } => text.clone(),
        Value::Okay => "OK".to_owned(),
        value => panic!("{value:?} is no text"),
    }
}
