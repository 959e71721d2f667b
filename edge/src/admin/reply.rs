//! Replies that are maps, in RESP2 flat arrays, by the names in them.

use redis::Value;

/// What a map has under `name`.
#[must_use]
pub fn get<'a>(map: &'a Value, name: &str) -> Option<&'a Value> {
    let is = |key: &Value| text(key).as_deref() == Some(name);
    match map {
        Value::Map(pairs) => pairs.iter().find(|(key, _)| is(key)).map(|(_, value)| value),
        Value::Array(values) => values.chunks_exact(2).find_map(|pair| match pair {
            [key, value] if is(key) => Some(value),
            _ => None,
        }),
        _ => None,
    }
}

/// A value as a text.
#[must_use]
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        Value::Double(number) => Some(number.to_string()),
        _ => None,
    }
}

/// What a map has under `name`, as a text; empty if there is nothing.
#[must_use]
pub fn text_of(map: &Value, name: &str) -> String {
    get(map, name).and_then(text).unwrap_or_default()
}

/// What a map has under `name`, as a number.
#[must_use]
pub fn number_of(map: &Value, name: &str) -> Option<i64> {
    get(map, name).and_then(text)?.parse().ok()
}

/// The elements of an array under `name`.
#[must_use]
pub fn list_of<'a>(map: &'a Value, name: &str) -> &'a [Value] {
    match get(map, name) {
        Some(Value::Array(values)) => values,
        _ => &[],
    }
}
