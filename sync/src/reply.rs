//! Which errors are worth another try.

use redis::{ServerError, Value};

/// Errors that will pass, or that an operator will mend: the state is kept.
const TRANSIENT: &[&str] = &[
    "BUSY",
    "CLUSTERDOWN",
    // Protected mode.
    "DENIED",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOAUTH",
    "NOPERM",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
    "WRONGPASS",
];

/// What became of a state.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The peer has it.
    Done,
    /// The peer will never take it.
    Refused(String),
    /// The peer does not take it now.
    Later(String),
    /// Another node of the cluster has the slot: `host:port`, host may be empty.
    Moved { slot: u16, to: String },
    /// Another node of the cluster has, or is about to get, the key.
    Ask { to: String },
}

/// Judges the reply to a state.
pub(crate) fn judge(reply: &Value) -> Verdict {
    let Value::ServerError(error) = reply else {
        return Verdict::Done;
    };
    let detail = error.details().unwrap_or_default();
    let mut words = detail.split_ascii_whitespace();
    let redirect = words.next().and_then(|slot| slot.parse().ok()).zip(words.next());
    match (error.code(), redirect) {
        ("MOVED", Some((slot, to))) => Verdict::Moved { slot, to: to.to_owned() },
        ("ASK", Some((_, to))) => Verdict::Ask { to: to.to_owned() },
        ("MOVED" | "ASK", None) => Verdict::Later(text(error)),
        // A module that is not loaded may be loaded later; a server without room
        // for clients may get some.
        ("ERR", _) if detail.starts_with("unknown command") => Verdict::Later(text(error)),
        ("ERR", _) if detail.starts_with("max number of clients") => Verdict::Later(text(error)),
        (code, _) if TRANSIENT.contains(&code) => Verdict::Later(text(error)),
        _ => Verdict::Refused(text(error)),
    }
}

/// The text of an error as it is on the wire.
pub(crate) fn text(error: &ServerError) -> String {
    match error.details() {
        Some(detail) => format!("{} {detail}", error.code()),
        None => error.code().to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart() {
        let judged = |line: &str| judge(&redis::parse_redis_value(line.as_bytes()).unwrap());
        let later = |text: &str| Verdict::Later(text.into());
        let refused = |text: &str| Verdict::Refused(text.into());
        for (line, verdict) in [
            ("+OK\r\n", Verdict::Done),
            (":1\r\n", Verdict::Done),
            ("$-1\r\n", Verdict::Done),
            ("-LOADING Redis is loading\r\n", later("LOADING Redis is loading")),
            ("-OOM\r\n", later("OOM")),
            ("-NOPERM no\r\n", later("NOPERM no")),
            ("-READONLY You\r\n", later("READONLY You")),
            ("-ERR unknown command 'CL.MERGE'\r\n", later("ERR unknown command 'CL.MERGE'")),
            (
                "-MOVED 3999 127.0.0.1:6381\r\n",
                Verdict::Moved { slot: 3999, to: "127.0.0.1:6381".into() },
            ),
            ("-ASK 3999 :6381\r\n", Verdict::Ask { to: ":6381".into() }),
            ("-MOVED nonsense\r\n", later("MOVED nonsense")),
            ("-WRONGTYPE not a hash\r\n", refused("WRONGTYPE not a hash")),
            ("-ERR bad state\r\n", refused("ERR bad state")),
            ("-FUTURE code\r\n", refused("FUTURE code")),
        ] {
            assert_eq!(judged(line), verdict, "{line}");
        }
    }
}
