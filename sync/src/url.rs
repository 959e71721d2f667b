//! Peers as they are configured.

use percent_encoding::percent_decode_str;
use std::fmt;
use std::str::FromStr;

/// The most peers there can be.
pub const MAX_PEERS: usize = 15;

const DEFAULT_PORT: u16 = 6379;
/// Longest URL, in bytes.
const MAX_URL: usize = 1024;
/// How a password shows. One that is the same has to be percent-encoded.
const HIDDEN: &str = "***";
/// Longest name of a host, as in the DNS.
const MAX_HOST: usize = 253;

/// One peer: `redis://[user@|[user]:password@]host[:port][/]`, or `rediss://` for
/// TLS.
///
/// User and password are percent-decoded; an IPv6 address is in brackets; the
/// port is 6379 unless given. Neither `Debug` nor `Display` shows the password:
/// it shows as `***`, which stands for a password that is known elsewhere when it
/// is read again.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerUrl {
    tls: bool,
    user: Option<String>,
    password: Option<String>,
    /// There is [`HIDDEN`] where the password was.
    is_hidden: bool,
    host: String,
    port: u16,
}

impl PeerUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// When it is not of the form above. The position is 1.
    pub fn parse(text: &str) -> Result<Self, PeerError> {
        Self::read(text).map_err(|why| PeerError { position: 1, why })
    }

    fn read(text: &str) -> Result<Self, Why> {
        if text.len() > MAX_URL {
            return Err(Why::TooLong);
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(Why::Space);
        }
        let (scheme, rest) = text.split_once("://").ok_or(Why::Scheme)?;
        let tls = match scheme {
            _ if scheme.eq_ignore_ascii_case("redis") => false,
            _ if scheme.eq_ignore_ascii_case("rediss") => true,
            _ => return Err(Why::Scheme),
        };
        // A password may contain "@" and "/" when it is written sloppily: what
        // comes before the last "@" is taken for user and password, so that no
        // part of them ends up in a host that is shown.
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, rest),
        };
        if place.contains(['?', '#']) {
            return Err(Why::Options);
        }
        let place = match place.split_once('/') {
            None => place,
            Some((place, "")) => place,
            Some(_) => return Err(Why::Path),
        };
        let (host, port) = split_port(place)?;
        let mut is_hidden = false;
        let (user, password) = match login {
            None => (None, None),
            Some(login) => {
                // The password of a user alone is given otherwise.
                let (user, password) = match login.split_once(':') {
                    None => (login, None),
                    Some((user, HIDDEN)) => {
                        is_hidden = true;
                        (user, None)
                    }
                    Some((user, password)) => (user, Some(decode(password)?)),
                };
                let user = decode(user)?;
                if user.is_empty() && password.is_none() && !is_hidden {
                    return Err(Why::NoPassword);
                }
                (Some(user).filter(|user| !user.is_empty()), password)
            }
        };
        if password.as_ref().is_some_and(String::is_empty) {
            return Err(Why::NoPassword);
        }
        Ok(Self { tls, user, password, is_hidden, host: host.to_ascii_lowercase(), port })
    }

    /// Whether it has a user whose password is to come from elsewhere.
    #[must_use]
    pub fn lacks_password(&self) -> bool {
        self.user.is_some() && self.password.is_none() && !self.is_hidden
    }

    /// Whether its password is hidden: it has one that this URL does not say.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        self.is_hidden
    }

    /// The name or address to connect to, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    pub(crate) fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    fn same_server(&self, other: &Self) -> bool {
        self.host == other.host && self.port == other.port
    }
}

impl FromStr for PeerUrl {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Self, PeerError> {
        Self::parse(text)
    }
}

impl fmt::Display for PeerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "rediss://" } else { "redis://" })?;
        let user = self.user.as_deref().unwrap_or_default();
        let user = percent_encoding::utf8_percent_encode(user, ESCAPED);
        if self.is_hidden || self.password.is_some() {
            write!(f, "{user}:{HIDDEN}@")?;
        } else if self.user.is_some() {
            write!(f, "{user}@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What of a user name is shown escaped.
const ESCAPED: &percent_encoding::AsciiSet =
    &percent_encoding::CONTROLS.add(b' ').add(b':').add(b'@').add(b'/').add(b'%');

impl fmt::Debug for PeerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerUrl({self})")
    }
}

fn split_port(place: &str) -> Result<(&str, u16), Why> {
    let (host, port) = if let Some(inside) = place.strip_prefix('[') {
        let (host, after) = inside.split_once(']').ok_or(Why::Host)?;
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(Why::Host);
        }
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return Err(Why::Host),
        }
    } else {
        let (host, port) = match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        };
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
        if host.is_empty() || host.len() > MAX_HOST || !host.bytes().all(allowed) {
            return Err(Why::Host);
        }
        (host, port)
    };
    let port = match port {
        None => DEFAULT_PORT,
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => {
            port.parse().ok().filter(|port| *port != 0).ok_or(Why::Port)?
        }
        Some(_) => return Err(Why::Port),
    };
    Ok((host, port))
}

fn decode(text: &str) -> Result<String, Why> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| Why::Encoding)?;
    Ok(decoded.into_owned())
}

/// Reads a list of URLs separated by spaces. Nothing is an empty list.
///
/// # Errors
/// When one is malformed, when two name the same host and port, or when there
/// are more than [`MAX_PEERS`].
pub fn parse_peers(text: &str) -> Result<Vec<PeerUrl>, PeerError> {
    let mut peers: Vec<PeerUrl> = Vec::new();
    for (word, position) in text.split_ascii_whitespace().zip(1..) {
        let refused = |why| Err(PeerError { position, why });
        if position > MAX_PEERS {
            return refused(Why::TooMany);
        }
        match PeerUrl::read(word) {
            Err(why) => return refused(why),
            Ok(peer) if peers.iter().any(|other| other.same_server(&peer)) => {
                return refused(Why::Twice);
            }
            Ok(peer) => peers.push(peer),
        }
    }
    Ok(peers)
}

/// Puts the passwords that are [hidden](PeerUrl::is_hidden) in again, of peers that show
/// as one of `known` does.
///
/// # Errors
/// The first that none of them shows as.
pub fn reveal(peers: &mut [PeerUrl], known: &[PeerUrl]) -> Result<(), PeerError> {
    for (peer, position) in peers.iter_mut().zip(1..).filter(|(peer, _)| peer.is_hidden) {
        let shown = peer.to_string();
        let same = known.iter().find(|known| known.to_string() == shown);
        *peer = same.ok_or(PeerError { position, why: Why::Hidden })?.clone();
    }
    Ok(())
}

/// A URL that cannot be used. The text has its position in the list and the
/// reason, never a part of the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerError {
    position: usize,
    why: Why,
}

impl PeerError {
    /// Which URL of the list it is; the first is 1.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Scheme,
    Host,
    Port,
    Path,
    Options,
    NoPassword,
    Hidden,
    Encoding,
    Space,
    TooLong,
    Twice,
    TooMany,
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.why {
            Why::Scheme => "must begin with redis:// or rediss://",
            Why::Host => "has no valid host name, address or [IPv6 address]",
            Why::Port => "has a port that is not 1..=65535",
            Why::Path => "names a database or path: all databases are covered, leave it out",
            Why::Options => "has options after ? or #, of which there are none",
            Why::NoPassword => "has a login that is not user, user:password or :password",
            Why::Hidden => {
                "has *** for a password, and no peer until now has this user, host and port"
            }
            Why::Encoding => "has a user or password that is not percent-encoded UTF-8",
            Why::Space => "has white space or control characters",
            Why::TooLong => "is longer than 1024 bytes",
            Why::Twice => "names the same host and port as one before",
            Why::TooMany => "is one more than the 15 there can be",
        };
        write!(f, "peer {} {why}", self.position)
    }
}

impl std::error::Error for PeerError {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (bool, Option<String>, Option<String>, String, u16) {
        let url = PeerUrl::parse(text).unwrap();
        (url.tls, url.user, url.password, url.host, url.port)
    }

    #[test]
    fn urls_are_read() {
        let some = |s: &str| Some(s.to_owned());
        for (text, tls, user, password, host, port) in [
            ("redis://h", false, None, None, "h", 6379),
            ("rediss://h/", true, None, None, "h", 6379),
            ("REDIS://US-East.Example:7000/", false, None, None, "us-east.example", 7000),
            ("redis://:pw@10.0.0.1:1", false, None, some("pw"), "10.0.0.1", 1),
            ("redis://u:pw@[::1]:65535", false, some("u"), some("pw"), "::1", 65535),
            ("redis://u:p%40%3A%2F%25@h", false, some("u"), some("p@:/%"), "h", 6379),
            ("redis://u%3a:a:b@h", false, some("u:"), some("a:b"), "h", 6379),
            ("redis://u:a@b/c@h", false, some("u"), some("a@b/c"), "h", 6379),
            ("redis://u:%C3%A9@[2001:db8::2]", false, some("u"), some("é"), "2001:db8::2", 6379),
        ] {
            assert_eq!(parts(text), (tls, user, password, host.to_owned(), port), "{text}");
        }
    }

    #[test]
    fn bad_urls_are_refused() {
        for (text, why) in [
            ("", Why::Scheme),
            ("h:6379", Why::Scheme),
            ("http://h", Why::Scheme),
            ("unix:///tmp/s", Why::Scheme),
            ("redis+tls://h", Why::Scheme),
            ("redis://", Why::Host),
            ("redis:///", Why::Host),
            ("redis://:6379", Why::Host),
            ("redis://[::1", Why::Host),
            ("redis://[h]:1", Why::Host),
            ("redis://[::1]x", Why::Host),
            ("redis://h*", Why::Host),
            ("redis://h:", Why::Port),
            ("redis://h:0", Why::Port),
            ("redis://h:65536", Why::Port),
            ("redis://h:+1", Why::Port),
            ("redis://::1", Why::Host),
            ("redis://h/0", Why::Path),
            ("redis://h//", Why::Path),
            ("redis://h?db=1", Why::Options),
            ("redis://h/#insecure", Why::Options),
            ("redis://@h", Why::NoPassword),
            ("redis://u:@h", Why::NoPassword),
            ("redis://u:%ff@h", Why::Encoding),
            ("redis://u:p w@h", Why::Space),
            ("redis://h\n", Why::Space),
        ] {
            assert_eq!(PeerUrl::read(text).unwrap_err(), why, "{text:?}");
        }
        let long = format!("redis://{}", "h".repeat(MAX_URL));
        assert_eq!(PeerUrl::read(&long).unwrap_err(), Why::TooLong);
    }

    #[test]
    fn no_text_shows_the_password() {
        for text in
            ["redis://user:hunter2@h", "rediss://:hunter2@[::1]:7", "redis://u:a@hunter2/x@h"]
        {
            let url = PeerUrl::parse(text).unwrap();
            let shown = format!("{url} {url:?} {:?}", Some(&url));
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(shown.contains("***"), "{shown}");
        }
        let user = PeerUrl::parse("redis://user:hunter2@host").unwrap();
        assert_eq!(user.to_string(), "redis://user:***@host:6379");
        for text in ["redis://u:hunter2@", "http://u:hunter2@h", "redis://u:hunter2@h:x/1"] {
            let error = PeerUrl::parse(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }

    /// `***` is no password, wherever it is read: it stands for one.
    #[test]
    fn what_is_shown_stands_for_the_password() {
        let known = parse_peers(
            "redis://u%3a:hunter2@H rediss://:pw@[::1]:7 redis://u:%2A%2A%2A@stars redis://u@file",
        )
        .unwrap();
        let shown: Vec<String> = known.iter().map(ToString::to_string).collect();
        let mut again = parse_peers(&shown.join(" ")).unwrap();
        let hidden = |peers: &[PeerUrl]| peers.iter().map(PeerUrl::is_hidden).collect::<Vec<_>>();
        assert_eq!(hidden(&known), [false; 4]);
        assert_eq!(hidden(&again), [true, true, true, false]);
        assert!(again.iter().all(|peer| peer.password().is_none()));
        assert_eq!(
            again.iter().map(PeerUrl::lacks_password).collect::<Vec<_>>(),
            [false, false, false, true]
        );
        assert_eq!(again.iter().map(ToString::to_string).collect::<Vec<_>>(), shown);
        again.reverse();
        reveal(&mut again, &known).unwrap();
        again.reverse();
        assert_eq!(again, known);
        for other in
            ["redis://:***@h", "redis://u:***@h:1", "rediss://u%3A:***@h", "redis://u%3A:***@g"]
        {
            let mut peers = parse_peers(&format!("redis://a {other}")).unwrap();
            let why = PeerError { position: 2, why: Why::Hidden };
            assert_eq!(reveal(&mut peers, &known), Err(why), "{other}");
        }
        // One that was hidden when it was read stays so.
        let mut peers = parse_peers("redis://u:***@h").unwrap();
        let known = peers.clone();
        reveal(&mut peers, &known).unwrap();
        assert_eq!(peers, known);
    }

    #[test]
    fn lists_are_read_whole_or_refused_with_the_position() {
        assert_eq!(parse_peers(" \t ").unwrap(), []);
        assert_eq!(parse_peers(" redis://a  rediss://b:1 ").unwrap().len(), 2);
        let error = |text: &str| parse_peers(text).unwrap_err().to_string();
        assert_eq!(error("redis://a h"), "peer 2 must begin with redis:// or rediss://");
        assert_eq!(
            error("redis://a:1 redis://b redis://u:p@A:1/"),
            "peer 3 names the same host and port as one before"
        );
        let many = |n: u16| (1..=n).map(|port| format!("redis://h:{port} ")).collect::<String>();
        assert_eq!(parse_peers(&many(15)).unwrap().len(), MAX_PEERS);
        assert_eq!(error(&many(16)), "peer 16 is one more than the 15 there can be");
    }
}
