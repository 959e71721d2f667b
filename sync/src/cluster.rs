//! Slots and the topology of Redis Clusters.

use redis::Value;
use std::fmt;

/// How many slots a cluster has.
pub(crate) const SLOTS: u16 = 16_384;
/// The most masters that are believed.
pub(crate) const MAX_MASTERS: usize = 1_000;

/// Where to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub host: String,
    pub port: u16,
}

impl Endpoint {
    /// Reads the `host:port` of a redirection that came from `asked`. IPv6
    /// addresses have no brackets there. An empty host, or `?`, is the host that
    /// was asked.
    pub fn redirected(text: &str, asked: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Some(Self { host: known(host, asked), port: port.parse().ok()? })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn known(host: &str, asked: &Endpoint) -> String {
    if matches!(host, "" | "?") { asked.host.clone() } else { host.to_owned() }
}

/// Which master has which slot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Topology {
    pub masters: Vec<Endpoint>,
    /// First and last slot of a range, and the index of its master.
    pub ranges: Vec<(u16, u16, usize)>,
}

impl Topology {
    /// Reads the reply of `asked` to `CLUSTER SLOTS`: first slot, last slot,
    /// master `[host, port, ..]`, replicas. `None` if it is something else.
    pub fn read(reply: &Value, asked: &Endpoint) -> Option<Self> {
        let mut topology = Self { masters: Vec::new(), ranges: Vec::new() };
        for range in items(reply)? {
            let range = items(range)?;
            let first = number(range.first()?)?;
            let last = number(range.get(1)?)?;
            let master = items(range.get(2)?)?;
            if first > last || last >= SLOTS {
                return None;
            }
            let host = match master.first()? {
                Value::Nil => "",
                Value::BulkString(host) => std::str::from_utf8(host).ok()?,
                Value::SimpleString(host) => host,
                _ => return None,
            };
            let endpoint = Endpoint { host: known(host, asked), port: number(master.get(1)?)? };
            let index = match topology.masters.iter().position(|known| *known == endpoint) {
                Some(index) => index,
                None if topology.masters.len() < MAX_MASTERS => {
                    topology.masters.push(endpoint);
                    topology.masters.len().checked_sub(1)?
                }
                None => return None,
            };
            topology.ranges.push((first, last, index));
        }
        Some(topology)
    }
}

fn items(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

fn number(value: &Value) -> Option<u16> {
    match value {
        Value::Int(n) => u16::try_from(*n).ok(),
        _ => None,
    }
}

/// The slot of a key: that of what is between its first `{` and the next `}`,
/// if anything is, else that of all of it.
/// <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>
pub(crate) fn slot_of(key: &[u8]) -> u16 {
    let tag = key.splitn(2, |b| *b == b'{').nth(1).and_then(|rest| {
        // Without a closing brace there is only one part.
        let mut parts = rest.splitn(2, |b| *b == b'}');
        let tag = parts.next()?;
        parts.next().map(|_| tag)
    });
    crc16(tag.filter(|tag| !tag.is_empty()).unwrap_or(key)) & (SLOTS - 1)
}

/// CRC-16/XMODEM, half a byte at a time.
fn crc16(bytes: &[u8]) -> u16 {
    const STEP: [u16; 16] = [
        0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7, 0x8108, 0x9129, 0xa14a,
        0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef,
    ];
    let half = |crc: u16, nibble: u16| {
        let index = usize::from((crc >> 12) ^ nibble);
        (crc << 4) ^ STEP.get(index).copied().unwrap_or_default()
    };
    bytes.iter().map(|b| u16::from(*b)).fold(0, |crc, b| half(half(crc, b >> 4), b & 0xf))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn asked() -> Endpoint {
        Endpoint { host: "seed".into(), port: 1 }
    }

    #[test]
    fn slots_follow_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for key in
            ["", "a", "user:1", "{u}.x", "x{u}{v}", "x{}{v}", "x{{u}}", "x{u", "x}u{", "é{è}"]
        {
            assert_eq!(slot_of(key.as_bytes()), claw_testkit::slot_of(key), "{key}");
        }
    }

    #[test]
    fn topologies_are_read() {
        let read = |text: &str| {
            Topology::read(&redis::parse_redis_value(text.as_bytes()).unwrap(), &asked())
        };
        let reply = "*3\r\n\
            *4\r\n:0\r\n:5460\r\n\
              *4\r\n$9\r\n127.0.0.1\r\n:7000\r\n$2\r\nid\r\n*0\r\n\
              *4\r\n$9\r\n127.0.0.1\r\n:7003\r\n$2\r\nid\r\n*0\r\n\
            *3\r\n:5461\r\n:10922\r\n*4\r\n$-1\r\n:7001\r\n$2\r\nid\r\n*0\r\n\
            *3\r\n:10923\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:7000\r\n";
        let at = |host: &str, port| Endpoint { host: host.into(), port };
        let topology = read(reply).unwrap();
        assert_eq!(topology.masters, [at("127.0.0.1", 7000), at("seed", 7001)]);
        assert_eq!(topology.ranges, [(0, 5460, 0), (5461, 10922, 1), (10923, 16383, 0)]);
        assert_eq!(read("*0\r\n").unwrap().masters, []);
        for bad in
            ["+OK\r\n", "*1\r\n:1\r\n", "*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\nh\r\n:1\r\n"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn redirections_are_read() {
        let to = |text| Endpoint::redirected(text, &asked()).map(|to| to.to_string());
        assert_eq!(to("127.0.0.1:7000").as_deref(), Some("127.0.0.1:7000"));
        assert_eq!(to("::1:7000").as_deref(), Some("[::1]:7000"));
        assert_eq!(to(":7000").as_deref(), Some("seed:7000"));
        assert_eq!(to("?:7000").as_deref(), Some("seed:7000"));
        assert_eq!(to("h:x"), None);
        assert_eq!(to("h"), None);
    }
}
