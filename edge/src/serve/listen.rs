//! Listeners, and how many connections there may be.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

/// Connections that wait to be accepted, at most, by worker. The kernel may allow fewer.
const BACKLOG: i32 = 4096;
/// Open files besides these connections: those of operators, listeners, connections to Redis, files
/// that are read.
const OTHER_FILES: u64 = 512;

/// Makes sure that no two addresses of this service, each with the setting that names it, are the
/// same: connections would go to either.
///
/// # Errors
/// When two are.
pub fn check_apart(addresses: &[(&str, SocketAddr)]) -> io::Result<()> {
    for (index, (name, one)) in addresses.iter().enumerate() {
        let mut earlier = addresses.iter().take(index);
        if let Some((other, _)) = earlier.find(|(_, other)| meet(*one, *other)) {
            let text = format!("{other} and {name} are one address: {one}");
            return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
        }
    }
    Ok(())
}

/// Whether what is sent to one address may be taken at the other. The port 0 is any that is free.
fn meet(one: SocketAddr, other: SocketAddr) -> bool {
    let [(one, port), (other, other_port)] =
        [one, other].map(|address| (address.ip().to_canonical(), address.port()));
    // A wildcard of IPv6 takes what comes over IPv4, too, and one of IPv4 no IPv6.
    let takes = |one: IpAddr, other: IpAddr| {
        one == other || one.is_unspecified() && (one.is_ipv6() || other.is_ipv4())
    };
    port != 0 && port == other_port && (takes(one, other) || takes(other, one))
}

/// Makes sure that nobody listens on `address` yet. Listeners of workers share it, and so
/// would another program's that asks for the same.
///
/// # Errors
/// When somebody does, or the address is none of this machine.
pub fn check_free(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Connections of an earlier run that are not quite closed are no hindrance.
    socket.set_reuse_address(true)?;
    socket
        .bind(&address.into())
        .map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
}

/// A listener that shares its address with those of the other workers.
///
/// # Errors
/// When the address cannot be listened on.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// How many connections each of so many addresses may have: `wanted`, or as many as the limit of open
/// files allows when that cannot be raised far enough.
#[must_use]
pub fn connections(wanted: usize, addresses: u64) -> usize {
    let needed = u64::try_from(wanted).unwrap_or(u64::MAX);
    let needed = needed.saturating_mul(addresses).saturating_add(OTHER_FILES);
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return wanted;
    }
    let most = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
    let raised = Rlimit { current: Some(most), maximum: limit.maximum };
    let most = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => most,
        Err(_) => limit.current.unwrap_or(most),
    };
    if most >= needed {
        return wanted;
    }
    let allowed = most.saturating_sub(OTHER_FILES).checked_div(addresses);
    let allowed = allowed.and_then(|most| usize::try_from(most).ok()).unwrap_or(wanted);
    tracing::warn!(
        wanted,
        allowed,
        "MAX_CONNECTIONS is cut: the limit of open files (ulimit -n) is lower"
    );
    allowed
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_meet() {
        for (one, other, do_meet) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:80", "0.0.0.0:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80", true),
            ("[::1]:80", "127.0.0.1:80", false),
            ("[::1]:80", "0.0.0.0:80", false),
            ("[::1]:80", "[::]:80", true),
            ("[::]:80", "0.0.0.0:80", true),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            let [one, other] = [one, other].map(|address| address.parse().unwrap());
            assert_eq!(meet(one, other), do_meet, "{one} {other}");
            assert_eq!(meet(other, one), do_meet, "{other} {one}");
        }
    }
}
