//! Commands as text, and answers as what they are on the wire.

use redis::{Cmd, ConnectionLike, FromRedisValue, RedisError, RedisResult, ToRedisArgs, Value};
use std::collections::BTreeMap;

/// Runs a command that is written as text and split at white space, such as
/// `"CL.TAKE k 1 CAPACITY 5 REFILL 5"`. There is no quoting: for arguments that are
/// empty, binary or contain white space use [`redis::cmd`].
///
/// # Errors
///
/// Error answers, also those inside of an array, and connection failures. See
/// [`wire_error`] for the text of an answer.
///
/// # Panics
///
/// If the text is empty.
pub fn cmd(conn: &mut dyn ConnectionLike, line: &str) -> RedisResult<Value> {
    parse(line).query(conn)
}

/// Runs a command whose arguments are given one by one.
///
/// # Errors
///
/// The text of an error answer as it is on the wire, see [`wire_error`].
///
/// # Panics
///
/// If there is no answer.
pub fn call<A: ToRedisArgs>(conn: &mut dyn ConnectionLike, args: &[A]) -> Result<Value, String> {
    let mut command = Cmd::new();
    for arg in args {
        command.arg(arg);
    }
    command.query(conn).map_err(|e| wire_error(&e).unwrap_or_else(|| panic!("no answer: {e}")))
}

/// Runs [`call`] with arguments that may be any bytes.
///
/// # Errors
///
/// The text of an error answer.
///
/// # Panics
///
/// If there is no answer.
pub fn call_bytes(conn: &mut dyn ConnectionLike, args: &[&[u8]]) -> Result<Value, String> {
    call(conn, args)
}

/// The fields of a hash, none for a missing key.
///
/// # Panics
///
/// If the key holds something else.
pub fn fields(conn: &mut dyn ConnectionLike, key: &str) -> BTreeMap<String, String> {
    ask(conn, &format!("HGETALL {key}"))
}

/// The version of Redis that a server is, or says it is compatible with.
///
/// # Panics
///
/// If the server does not say.
pub fn redis_version(conn: &mut dyn ConnectionLike) -> (u32, u32) {
    let version = info_field(conn, "server", "redis_version").expect("a server has a version");
    let mut parts = version.split('.').map(|part| part.parse().expect("a number"));
    (parts.next().expect("a major version"), parts.next().expect("a minor version"))
}

/// Runs [`cmd`] and converts its answer.
///
/// # Panics
///
/// With the command and the error when it fails or answers something else.
pub fn ask<T: FromRedisValue>(conn: &mut dyn ConnectionLike, line: &str) -> T {
    let answer = cmd(conn, line).unwrap_or_else(|e| panic!("`{line}` failed: {e}"));
    redis::from_redis_value(answer).unwrap_or_else(|e| panic!("`{line}`: {e}"))
}

/// Runs [`cmd`] for each line; what they answer does not matter.
///
/// # Panics
///
/// With the command and the error when one fails.
pub fn run(conn: &mut dyn ConnectionLike, lines: &[&str]) {
    for line in lines {
        cmd(conn, line).unwrap_or_else(|e| panic!("`{line}` failed: {e}"));
    }
}

/// Runs a command, see [`cmd`], whose answer is an array of integers.
///
/// # Panics
///
/// If the answer is an error or anything else; a number sent as a string is
/// something else.
pub fn ints(conn: &mut dyn ConnectionLike, line: &str) -> Vec<i64> {
    let answer = success(conn, line);
    let Value::Array(items) = &answer else {
        panic!("`{line}` answered {answer:?}, not an array of integers");
    };
    items
        .iter()
        .map(|item| match item {
            Value::Int(n) => *n,
            _ => panic!("`{line}` answered {answer:?}, not an array of integers"),
        })
        .collect()
}

/// Runs a command, see [`cmd`], whose answer is one integer.
///
/// # Panics
///
/// If the answer is an error or anything else.
pub fn int(conn: &mut dyn ConnectionLike, line: &str) -> i64 {
    match success(conn, line) {
        Value::Int(n) => n,
        answer => panic!("`{line}` answered {answer:?}, not an integer"),
    }
}

/// Runs a command, see [`cmd`], that is to fail, and returns the text of the
/// error as it is on the wire, code and message, such as
/// `"ERR unknown option 'FOO'"`.
///
/// # Panics
///
/// If the command succeeds, or if there is no answer.
pub fn error(conn: &mut dyn ConnectionLike, line: &str) -> String {
    match cmd(conn, line) {
        Ok(answer) => panic!("`{line}` answered {answer:?}, not an error"),
        Err(e) => wire_error(&e).unwrap_or_else(|| panic!("`{line}` got no answer: {e}")),
    }
}

/// The text of an error as it is on the wire, code and message; `None` if the
/// error does not come from the server.
pub fn wire_error(error: &RedisError) -> Option<String> {
    // The client takes the code off the message and shows the known codes as
    // words of its own ("ERR" as "ResponseError"), so its text is of no use.
    let code = error.code()?;
    Some(match error.detail() {
        Some(message) => format!("{code} {message}"),
        None => code.into(),
    })
}

/// The digest of all data of a server, 40 hexadecimal digits. Two servers with
/// the same data have the same digest.
///
/// # Panics
///
/// If the server refuses `DEBUG DIGEST`.
pub fn digest(conn: &mut dyn ConnectionLike) -> String {
    match success(conn, "DEBUG DIGEST") {
        Value::SimpleString(digest) => digest,
        answer => panic!("`DEBUG DIGEST` answered {answer:?}"),
    }
}

/// The value of a field in a section of `INFO`; `None` if there is no such
/// field. Fields of modules need their section named, such as `claw_stats`.
///
/// # Panics
///
/// If the server refuses `INFO`.
pub fn info_field(conn: &mut dyn ConnectionLike, section: &str, field: &str) -> Option<String> {
    let info: String = redis::cmd("INFO")
        .arg(section)
        .query(conn)
        .unwrap_or_else(|e| panic!("`INFO {section}` failed: {e}"));
    info.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| *name == field)
        .map(|(_, value)| value.to_string())
}

fn success(conn: &mut dyn ConnectionLike, line: &str) -> Value {
    cmd(conn, line).unwrap_or_else(|e| {
        let text = wire_error(&e).unwrap_or_else(|| e.to_string());
        panic!("`{line}` failed: {text}")
    })
}

fn parse(line: &str) -> Cmd {
    let mut cmd = Cmd::new();
    for word in line.split_ascii_whitespace() {
        cmd.arg(word);
    }
    assert!(cmd.args_iter().len() > 0, "an empty command");
    cmd
}
