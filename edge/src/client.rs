//! Who sent a request: the peer's address, or what trusted proxies say of it.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use axum::http::HeaderMap;

/// Addresses that begin alike: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: u128,
    mask: u128,
}

impl Network {
    /// Whether `address` is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        bits(address) & self.mask == self.address
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no network: 10.0.0.0/8, fd00::/8, 192.0.2.7");
        let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest: u32 = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            Some(length) => length.parse().ok().filter(|l| *l <= longest).ok_or_else(wrong)?,
            None => longest,
        };
        let free = longest.saturating_sub(length);
        let mask = u128::MAX.checked_shl(free).unwrap_or(0);
        Ok(Self { address: bits(address) & mask, mask })
    }
}

/// IPv4 addresses as IPv6 maps them, so that both are told apart and compared in one way.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The client behind `peer`: while the one who speaks is a trusted proxy, whom it names last in
/// `X-Forwarded-For`. What an untrusted one says is not believed.
#[must_use]
pub fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer.to_canonical();
    if !is_trusted(client) {
        return client;
    }
    let fields = headers.get_all("x-forwarded-for");
    let named: Vec<&[u8]> =
        fields.iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).collect();
    for named in named.into_iter().rev() {
        if !is_trusted(client) {
            break;
        }
        // A proxy that names nobody that can be read is the last one that is known.
        let Some(address) = named_address(named) else { break };
        client = address.to_canonical();
    }
    client
}

/// An address, as some proxies write it with a port.
fn named_address(named: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(named).ok()?.trim();
    let with_port = |text: &str| text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(|| with_port(text))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn who_sent_a_request() {
        let trusted: Vec<Network> =
            ["10.0.0.0/8", "fd00::/8", "192.0.2.7"].iter().map(|n| n.parse().unwrap()).collect();
        #[rustfmt::skip]
        let table: [(&str, &[&str], &str); 9] = [
            ("203.0.113.9", &[], "203.0.113.9"),
            ("203.0.113.9", &["198.51.100.1"], "203.0.113.9"),
            ("10.1.2.3", &["198.51.100.1"], "198.51.100.1"),
            ("10.1.2.3", &["6.6.6.6, 198.51.100.1, 192.0.2.7"], "198.51.100.1"),
            ("10.1.2.3", &["6.6.6.6", "198.51.100.1"], "198.51.100.1"),
            ("10.1.2.3", &["6.6.6.6, unknown"], "10.1.2.3"),
            ("10.1.2.3", &["10.9.9.9"], "10.9.9.9"),
            ("::ffff:10.1.2.3", &["2001:db8::1"], "2001:db8::1"),
            ("fd00::5", &["198.51.100.1"], "198.51.100.1"),
        ];
        for (peer, fields, expected) in table {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append("x-forwarded-for", HeaderValue::from_str(field).unwrap());
            }
            let client = address(peer.parse().unwrap(), &headers, &trusted);
            assert_eq!(client, expected.parse::<IpAddr>().unwrap(), "{peer} {fields:?}");
        }
    }

    #[test]
    fn networks_are_read_or_refused() {
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "x"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("8.8.8.8".parse().unwrap()) && !all.contains("::1".parse().unwrap()));
        let every: Network = "::/0".parse().unwrap();
        assert!(every.contains("2001:db8::1".parse().unwrap()));
    }
}
