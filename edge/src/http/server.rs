//! What the region's server says of itself, as metrics: it is asked when a scraper asks.

use std::collections::HashMap;
use std::fmt::{self, Write};

use redis::{FromRedisValue, Value, from_redis_value};

use crate::decide::Answer;
use crate::limits::Limit;

/// What was asked for. What had no answer is missing, and so are its metrics.
#[derive(Debug, Default)]
pub struct Server {
    /// Which node of a cluster it is.
    pub node: Option<String>,
    /// `INFO claw`.
    pub info: Option<String>,
    /// `CL.SYNC STATUS`.
    pub sync: Option<Status>,
    /// Limits that tell nobody apart, with how their buckets stand.
    pub shared: Vec<(String, Answer)>,
}

/// Regions and peers, as `CL.SYNC STATUS` has them.
#[derive(Clone, Debug, Default)]
pub struct Status {
    peers: Vec<Fields>,
    heard: Vec<Fields>,
}

/// One of them.
type Fields = HashMap<String, Value>;

impl Status {
    /// Reads the answer.
    #[must_use]
    pub fn of(mut answer: Fields) -> Self {
        let mut list = |name| {
            answer.remove(name).and_then(|value| from_redis_value(value).ok()).unwrap_or_default()
        };
        Self { peers: list("peers"), heard: list("heard") }
    }
}

/// A metric of each peer or region: its name, its help, and its value where there is one.
type Column = (&'static str, &'static str, fn(&Fields) -> Option<String>);

/// Of each of `claw.peers`.
const PEERS: [Column; 9] = [
    ("claw_sync_peer_connected", "Whether states are exchanged with the peer", |peer| {
        is(peer, "state", "connected")
    }),
    ("claw_sync_peer_refusing", "Whether the peer answers with errors", |peer| {
        let code: String = value(peer, "refusing")?;
        Some(u8::from(!code.is_empty()).to_string())
    }),
    ("claw_sync_peer_lacking", "Whether the peer is sent all live buckets", |peer| {
        is(peer, "lacking", "yes")
    }),
    ("claw_sync_peer_lag_seconds", "Age of the oldest state without acknowledgement", |peer| {
        seconds(peer, "lag_ms", MILLI)
    }),
    ("claw_sync_peer_round_trip_seconds", "Time of the last heartbeat", |peer| {
        seconds(peer, "round_trip_us", MICRO)
    }),
    ("claw_sync_peer_queue", "States that wait to be acknowledged", |peer| number(peer, "queue")),
    ("claw_sync_peer_queue_bytes", "Memory of these states", |peer| number(peer, "queue_bytes")),
    ("claw_sync_peer_queue_limit_bytes", "The most that it may be", |peer| {
        number(peer, "queue_limit_bytes")
    }),
    ("claw_sync_peer_states_refused", "States that the peer refused for good", |peer| {
        number(peer, "states_refused")
    }),
];

/// Of each region that has been heard.
const REGIONS: [Column; 3] = [
    ("claw_sync_region_silent", "Whether the region is not heard, or refuses", |region| {
        let silent: String = value(region, "silent")?;
        Some(u8::from(silent != "no").to_string())
    }),
    ("claw_sync_region_heard_seconds", "Time since its last round", |region| {
        seconds(region, "heard_ms_ago", MILLI)
    }),
    ("claw_sync_region_rules_differ", "Whether its claw.policies are others", |region| {
        is(region, "rules", "differ")
    }),
];

fn value<T: FromRedisValue>(fields: &Fields, name: &str) -> Option<T> {
    from_redis_value(fields.get(name)?.clone()).ok()
}

fn number(fields: &Fields, name: &str) -> Option<String> {
    value::<u64>(fields, name).map(|number| number.to_string())
}

fn seconds(fields: &Fields, name: &str, unit: Fraction) -> Option<String> {
    value(fields, name).map(|number| unit.of(number))
}

fn is(fields: &Fields, name: &str, expected: &str) -> Option<String> {
    value::<String>(fields, name).map(|value| u8::from(value == expected).to_string())
}

/// A part of a second.
#[derive(Clone, Copy)]
struct Fraction {
    per_second: u64,
    places: usize,
}

const MILLI: Fraction = Fraction { per_second: 1_000, places: 3 };
const MICRO: Fraction = Fraction { per_second: 1_000_000, places: 6 };

impl Fraction {
    /// So many of it in seconds, Prometheus' base unit, exactly.
    fn of(self, number: u64) -> String {
        let Self { per_second, places } = self;
        let whole = number.checked_div(per_second).unwrap_or(0);
        let rest = number.checked_rem(per_second).unwrap_or(0);
        format!("{whole}.{rest:0places$}")
    }
}

/// Writes all of it in Prometheus' text format. `limits` are those in force that tell nobody
/// apart.
///
/// # Errors
/// When it cannot be written as text.
pub fn write<'a>(
    server: &Server,
    limits: impl Iterator<Item = &'a Limit> + Clone,
    text: &mut String,
) -> fmt::Result {
    head(text, "operator_redis_up", "Whether Redis has just answered INFO")?;
    writeln!(text, "operator_redis_up {}", u8::from(server.info.is_some()))?;
    if let Some(node) = &server.node {
        let name = "operator_redis_node_info";
        head(text, name, "The node of the cluster that all of claw_.. is of")?;
        writeln!(text, "{name}{{node=\"{}\"}} 1", escaped(node))?;
    }
    if let Some(info) = &server.info {
        of_module(info, text)?;
    }
    if let Some(status) = &server.sync {
        of_each(&PEERS, "peer", &status.peers, |peer| value(peer, "url").map(host), text)?;
        let region = |region: &Fields| value(region, "replica_id");
        of_each(&REGIONS, "region", &status.heard, region, text)?;
    }
    // That of a limit whose policy is the server's is not known here.
    let sizes: Vec<(&str, u64)> =
        limits.filter_map(|limit| Some((limit.name.as_str(), limit.policy?.capacity()))).collect();
    if !sizes.is_empty() {
        let name = "operator_limit_capacity_tokens";
        head(text, name, "Tokens of a limit that all share")?;
        for (limit, capacity) in sizes {
            writeln!(text, "{name}{{limit=\"{}\"}} {capacity}", escaped(limit))?;
        }
    }
    if !server.shared.is_empty() {
        let name = "operator_limit_remaining_tokens";
        head(text, name, "What is left of them; negative in debt")?;
        for (limit, answer) in &server.shared {
            writeln!(text, "{name}{{limit=\"{}\"}} {}", escaped(limit), answer.remaining)?;
        }
    }
    Ok(())
}

/// The numbers of `INFO claw` as metrics of the same names, as other exporters have them, whose rules
/// then fit. Only what is measured in ms or us becomes seconds, and what is not a plain number is
/// left out.
fn of_module(info: &str, text: &mut String) -> fmt::Result {
    for line in info.lines() {
        let Some((name, value)) = line.trim_end().split_once(':') else { continue };
        let fits = |letter: char| letter.is_ascii_lowercase() || letter == '_';
        let Ok(number) = value.parse::<u64>() else { continue };
        if name.starts_with("claw_") && name.chars().all(fits) {
            let (name, number) = match (name.strip_suffix("_ms"), name.strip_suffix("_us")) {
                (Some(stem), _) => (format!("{stem}_seconds"), MILLI.of(number)),
                (_, Some(stem)) => (format!("{stem}_seconds"), MICRO.of(number)),
                _ => (name.to_owned(), number.to_string()),
            };
            writeln!(text, "# HELP {name} See INFO claw of redis-claw")?;
            writeln!(text, "# TYPE {name} untyped\n{name} {number}")?;
        }
    }
    Ok(())
}

/// Each column of all rows that have a name.
fn of_each(
    columns: &[Column],
    label: &str,
    rows: &[Fields],
    name_of: impl Fn(&Fields) -> Option<String>,
    text: &mut String,
) -> fmt::Result {
    for (name, help, read) in columns {
        let mut samples = String::new();
        for row in rows {
            let (Some(of), Some(number)) = (name_of(row), read(row)) else { continue };
            writeln!(samples, "{name}{{{label}=\"{}\"}} {number}", escaped(&of))?;
        }
        if !samples.is_empty() {
            head(text, name, help)?;
            text.push_str(&samples);
        }
    }
    Ok(())
}

fn head(text: &mut String, name: &str, help: &str) -> fmt::Result {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge")
}

/// Where a URL leads: who logs in there is nobody's business.
#[allow(clippy::needless_pass_by_value, reason = "a step of a chain")]
fn host(url: String) -> String {
    let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
    rest.rsplit_once('@').map_or(rest, |(_, rest)| rest).to_owned()
}

/// A value of a label.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]
mod tests {
    use super::*;

    fn samples(server: &Server) -> Vec<String> {
        let mut text = String::new();
        write(server, std::iter::empty(), &mut text).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn numbers_of_the_module() {
        let info = "# claw_stats\r\nclaw_version:0.1.0\r\nclaw_taken:12\r\nclaw_sync_lag_ms:1250\r\n\
            claw_sync_walk_max_us:7\r\nclaw_sync_peers:2\r\nclaw_cmdstat_cl.take:calls=3,usec=1\r\n";
        let server = Server { info: Some(info.to_owned()), ..Server::default() };
        assert_eq!(
            samples(&server),
            [
                "operator_redis_up 1",
                "claw_taken 12",
                "claw_sync_lag_seconds 1.250",
                "claw_sync_walk_max_seconds 0.000007",
                "claw_sync_peers 2"
            ]
        );
        assert_eq!(samples(&Server::default()), ["operator_redis_up 0"]);
    }

    #[test]
    fn peers_and_regions() {
        let text = |text: &str| Value::BulkString(text.into());
        let fields = |fields: &[(&str, Value)]| {
            Value::Array(fields.iter().flat_map(|(name, of)| [text(name), of.clone()]).collect())
        };
        let peer = fields(&[
            ("url", text("rediss://ann:secret@us.example:6379")),
            ("state", text("backing-off")),
            ("refusing", text("OOM")),
            ("lag_ms", Value::Int(20)),
        ]);
        let region = fields(&[
            ("replica_id", text("a\"b")),
            ("silent", text("relayed")),
            ("heard_ms_ago", Value::Int(3)),
        ]);
        let answer = fields(&[
            ("active", text("yes")),
            ("heard", Value::Array(vec![region])),
            ("peers", Value::Array(vec![peer])),
        ]);
        let sync = Some(Status::of(from_redis_value(answer).unwrap()));
        assert_eq!(
            samples(&Server { sync, ..Server::default() }),
            [
                "operator_redis_up 0",
                "claw_sync_peer_connected{peer=\"us.example:6379\"} 0",
                "claw_sync_peer_refusing{peer=\"us.example:6379\"} 1",
                "claw_sync_peer_lag_seconds{peer=\"us.example:6379\"} 0.020",
                "claw_sync_region_silent{region=\"a\\\"b\"} 1",
                "claw_sync_region_heard_seconds{region=\"a\\\"b\"} 0.003",
            ]
        );
    }
}
