//! Which errors are worth another try.

use crate::wire::one_line;
use redis::{ServerError, Value};

/// Errors that will pass, or that an operator will mend: the state is kept.
const TRANSIENT: &[&str] = &[
    "BUSY",
    "CLUSTERDOWN",
    // A cluster that does not let us ask for its slots.
    "CROSSSLOT",
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

/// How the texts begin of errors without a code of their own that will pass, too: a module
/// that is not loaded, or is an older one, may be loaded later; a server without room for
/// clients may get some.
const PASSING: &[&str] = &["unknown command", "unknown subcommand", "max number of clients"];

/// An error that a server has answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The first word of it, such as `OOM`.
    pub code: String,
    /// All of it.
    pub text: String,
}

impl Refusal {
    /// `what` was asked for is put before its text.
    pub fn of(what: &str, error: &ServerError) -> Self {
        Self { code: one_line(error.code()), text: format!("{what}: {}", text(error)) }
    }
}

impl From<&ServerError> for Refusal {
    fn from(error: &ServerError) -> Self {
        Self { code: one_line(error.code()), text: text(error) }
    }
}

/// What became of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The peer has it.
    Done,
    /// The peer will never take it.
    Refused(String),
    /// The peer does not take it now.
    Later(Refusal),
    /// Another node of the cluster has the slot: `host:port`, host may be empty.
    Moved { slot: u16, to: String },
    /// Another node of the cluster has, or is about to get, the key.
    Ask { to: String },
}

/// Judges the reply to a command with `states` states, each by itself; `None` when it is
/// no reply to such a command.
pub(crate) fn judge_states(reply: &Value, states: usize) -> Option<Vec<Verdict>> {
    match reply {
        Value::ServerError(error) => Some(vec![judge(error); states]),
        Value::Array(replies) if replies.len() == states => {
            let each = replies.iter().map(|reply| match reply {
                Value::Int(_) => Some(Verdict::Done),
                Value::ServerError(error) => Some(judge(error)),
                _ => None,
            });
            each.collect()
        }
        _ => None,
    }
}

/// Judges an error.
pub(crate) fn judge(error: &ServerError) -> Verdict {
    let detail = error.details().unwrap_or_default();
    let mut words = detail.split_ascii_whitespace();
    let redirect = words.next().and_then(|slot| slot.parse().ok()).zip(words.next());
    match (error.code(), redirect) {
        ("MOVED", Some((slot, to))) => Verdict::Moved { slot, to: to.to_owned() },
        ("ASK", Some((_, to))) => Verdict::Ask { to: to.to_owned() },
        ("MOVED" | "ASK", None) => Verdict::Later(error.into()),
        ("ERR", _) if PASSING.iter().any(|begin| detail.starts_with(begin)) => {
            Verdict::Later(error.into())
        }
        (code, _) if TRANSIENT.contains(&code) => Verdict::Later(error.into()),
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
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        redis::parse_redis_value(text.as_bytes()).unwrap()
    }

    fn refusal(text: &str) -> Refusal {
        let code = text.split(' ').next().unwrap().to_owned();
        Refusal { code, text: text.to_owned() }
    }

    #[test]
    fn errors_are_told_apart() {
        let judged = |line: &str| match value(line) {
            Value::ServerError(error) => judge(&error),
            other => panic!("{other:?} is no error"),
        };
        let later = |text: &str| Verdict::Later(refusal(text));
        let refused = |text: &str| Verdict::Refused(text.into());
        let moved = Verdict::Moved { slot: 3999, to: "127.0.0.1:6381".into() };
        for (line, verdict) in [
            ("LOADING Redis is loading", later("LOADING Redis is loading")),
            ("OOM", later("OOM")),
            ("NOPERM no", later("NOPERM no")),
            ("READONLY You", later("READONLY You")),
            ("CROSSSLOT Keys", later("CROSSSLOT Keys")),
            ("ERR unknown command 'CL.SYNC'", later("ERR unknown command 'CL.SYNC'")),
            ("ERR unknown subcommand 'STATES'", later("ERR unknown subcommand 'STATES'")),
            ("ERR max number of clients", later("ERR max number of clients")),
            ("MOVED 3999 127.0.0.1:6381", moved),
            ("ASK 3999 :6381", Verdict::Ask { to: ":6381".into() }),
            ("MOVED nonsense", later("MOVED nonsense")),
            ("WRONGTYPE not a hash", refused("WRONGTYPE not a hash")),
            ("ERR bad state", refused("ERR bad state")),
            ("FUTURE code", refused("FUTURE code")),
        ] {
            assert_eq!(judged(&format!("-{line}\r\n")), verdict, "{line}");
        }
    }

    #[test]
    fn each_state_has_its_verdict() {
        use Verdict::{Done, Later, Refused};
        let judged = |text: &str, states| judge_states(&value(text), states);
        assert_eq!(judged("*2\r\n:1\r\n:0\r\n", 2), Some(vec![Done, Done]));
        assert_eq!(
            judged("*3\r\n:1\r\n-OOM\r\n-ERR bad state\r\n", 3),
            Some(vec![Done, Later(refusal("OOM")), Refused("ERR bad state".into())])
        );
        assert_eq!(judged("-OOM\r\n", 2), Some(vec![Later(refusal("OOM")); 2]));
        for (other, states) in [
            ("*1\r\n:1\r\n", 2),
            ("*3\r\n:1\r\n:1\r\n:1\r\n", 2),
            ("*0\r\n", 1),
            ("*1\r\n+OK\r\n", 1),
            ("*1\r\n$1\r\n1\r\n", 1),
            ("*1\r\n*1\r\n:1\r\n", 1),
            ("*-1\r\n", 1),
            ("+OK\r\n", 1),
            (":1\r\n", 1),
            ("$-1\r\n", 1),
        ] {
            assert_eq!(judged(other, states), None, "{other:?}");
        }
    }
}
