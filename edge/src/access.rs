//! Who calls, and whether he may: bearer tokens, and the addresses of clients behind proxies.
//! Pure, but for the reading of the tokens' file.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use subtle::{Choice, ConstantTimeEq};

/// A text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" => Err("is empty: leave it unset to have no token".to_owned()),
            text => Ok(Self(text.to_owned())),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// The tokens of which a caller has to have one.
#[derive(Clone, Debug, Default)]
pub struct Tokens(Vec<Secret>);

impl Tokens {
    /// Those of a file, one on each line, and the one of the environment.
    ///
    /// # Errors
    /// When the file cannot be read, or has no token in it.
    pub fn load(file: Option<&Path>, single: Option<&Secret>) -> Result<Self, String> {
        let mut tokens: Vec<Secret> = single.cloned().into_iter().collect();
        if let Some(file) = file {
            let text = fs::read_to_string(file)
                .map_err(|error| format!("the file of tokens {}: {error}", file.display()))?;
            let before = tokens.len();
            tokens.extend(text.lines().filter_map(|line| line.parse::<Secret>().ok()));
            if tokens.len() == before {
                return Err(format!("the file of tokens {} has none", file.display()));
            }
        }
        Ok(Self(tokens))
    }

    /// Whether there is none, so that nobody can show one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `token` is one of them. The time this takes tells its length at the most.
    #[must_use]
    pub fn has(&self, token: &str) -> bool {
        let same = |known: &Secret| known.0.as_bytes().ct_eq(token.as_bytes());
        self.0.iter().fold(Choice::from(0), |found, known| found | same(known)).into()
    }
}

/// Networks of proxies that are believed: addresses, or `address/bits`, with commas between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

/// The addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: u128,
    is_ipv4: bool,
    mask: u128,
}

impl FromStr for Networks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(Network::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl Network {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no network: 10.0.0.0/8, 192.0.2.7, fd00::/8");
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let (address, is_ipv4) = number(address);
        let width: u32 = if is_ipv4 { 32 } else { 128 };
        let bits = bits.map_or(Ok(width), str::parse).map_err(|_| wrong())?;
        let host = width.checked_sub(bits).ok_or_else(wrong)?;
        let mask = u128::MAX.checked_shl(host).unwrap_or(0);
        Ok(Self { address: address & mask, is_ipv4, mask })
    }

    fn has(&self, address: IpAddr) -> bool {
        let (address, is_ipv4) = number(address);
        is_ipv4 == self.is_ipv4 && address & self.mask == self.address
    }
}

fn number(address: IpAddr) -> (u128, bool) {
    match address.to_canonical() {
        IpAddr::V4(address) => (u128::from(u32::from(address)), true),
        IpAddr::V6(address) => (u128::from(address), false),
    }
}

/// How many addresses of `X-Forwarded-For` are looked at.
const MOST_HOPS: usize = 32;

impl Networks {
    /// Whether a proxy at this address is believed.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.has(address))
    }

    /// The client: the peer, unless he is a proxy that is believed; then who that proxy says it
    /// had it from, and so on. `forwarded` are the values of `X-Forwarded-For`, the last first,
    /// as each proxy appends to what it got, and whatever is left of the last proxy that is believed
    /// can be made up.
    #[must_use]
    pub fn client<'a>(&self, peer: IpAddr, forwarded: impl IntoIterator<Item = &'a str>) -> IpAddr {
        let mut client = peer.to_canonical();
        let values = forwarded.into_iter().flat_map(|value| value.rsplit(','));
        for hop in values.take(MOST_HOPS) {
            if !self.has(client) {
                break;
            }
            match address(hop.trim()) {
                Some(address) => client = address,
                None => break,
            }
        }
        client
    }
}

/// An address, perhaps with a port: `192.0.2.1:80`, `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    let address = text
        .parse()
        .ok()
        .or_else(|| text.parse().ok().map(|socket: std::net::SocketAddr| socket.ip()))
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok());
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_behind_proxies() {
        let trusted: Networks = "10.0.0.0/8, 192.0.2.7,fd00::/8,".parse().unwrap();
        #[rustfmt::skip]
        let table: [(&str, &[&str], &str); 14] = [
            // peer, values of X-Forwarded-For from the last on, client
            ("198.51.100.1", &[],                                  "198.51.100.1"),
            ("198.51.100.1", &["203.0.113.9"],                     "198.51.100.1"),
            ("10.1.2.3",     &[],                                  "10.1.2.3"),
            ("10.1.2.3",     &["203.0.113.9"],                     "203.0.113.9"),
            ("10.1.2.3",     &["1.1.1.1, 203.0.113.9"],            "203.0.113.9"),
            ("10.1.2.3",     &["1.1.1.1, 203.0.113.9,10.9.9.9"],   "203.0.113.9"),
            ("10.1.2.3",     &["10.9.9.9", "1.1.1.1, 203.0.113.9"], "203.0.113.9"),
            ("10.1.2.3",     &["203.0.113.9:4711"],                "203.0.113.9"),
            ("fd00::1",      &["[2001:db8::1]:80"],                "2001:db8::1"),
            ("fd00::1",      &["[2001:db8::1]"],                   "2001:db8::1"),
            ("::ffff:10.0.0.1", &["::ffff:203.0.113.9"],           "203.0.113.9"),
            ("10.1.2.3",     &["203.0.113.9, unknown"],            "10.1.2.3"),
            ("10.1.2.3",     &["203.0.113.9, 192.0.2.7"],          "203.0.113.9"),
            ("192.0.2.8",    &["203.0.113.9"],                     "192.0.2.8"),
        ];
        for (peer, forwarded, client) in table {
            let told = trusted.client(peer.parse().unwrap(), forwarded.iter().copied());
            assert_eq!(told, client.parse::<IpAddr>().unwrap(), "{peer} {forwarded:?}");
        }
        for wrong in ["10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0/8", "proxy", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Networks>().is_err(), "{wrong}");
        }
        assert!("0.0.0.0/0".parse::<Networks>().unwrap().has("203.0.113.9".parse().unwrap()));
    }

    #[test]
    fn tokens_of_a_file_and_of_the_environment() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "one\n\n two \n").unwrap();
        let single = "three".parse::<Secret>().unwrap();
        let tokens = Tokens::load(Some(file.path()), Some(&single)).unwrap();
        for (token, known) in
            [("one", true), ("two", true), ("three", true), ("", false), ("on", false)]
        {
            assert_eq!(tokens.has(token), known, "{token}");
        }
        assert_eq!(format!("{tokens:?} {single:?}").matches("three").count(), 0);
        fs::write(file.path(), "\n").unwrap();
        assert!(Tokens::load(Some(file.path()), None).unwrap_err().ends_with("has none"));
        assert!(Tokens::load(None, None).unwrap().is_empty());
        assert!(" ".parse::<Secret>().is_err());
    }
}
