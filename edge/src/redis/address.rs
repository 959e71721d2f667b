//! What `REDIS_URL` names: one server, the sentinels that know it, or a cluster.

use redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};

/// The servers, and how to log in to them.
pub struct Address {
    /// Where they are.
    pub servers: Servers,
    /// Whether connections are encrypted.
    pub tls: bool,
    /// User, password, database and protocol.
    pub login: RedisConnectionInfo,
}

/// Where servers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Servers {
    /// One server.
    One(ConnectionAddr),
    /// Sentinels, and the name of the service whose master they know.
    Sentinel(Vec<ConnectionAddr>, String),
    /// Some nodes of a cluster. They know the others.
    Cluster(Vec<ConnectionAddr>),
}

/// The forms that are read.
const FORMS: &str = "redis://[user:password@]host[:port][/database], \
    rediss:// with TLS, redis+unix:///path, redis+sentinel://host:port,../service[/database], \
    redis+cluster://host:port,..";

impl Address {
    /// Reads `urls`: one URL, which an environment variable has cut at its commas. Errors do
    /// not repeat it, since it may hold a password.
    ///
    /// # Errors
    /// Says what is read instead.
    pub fn parse(urls: &[String]) -> Result<Self, String> {
        let text = urls.join(",");
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        if rest.contains("://") {
            return Err("REDIS_URL: several servers are one URL: redis+cluster://host:port,.. or \
                redis+sentinel://host:port,../service"
                .to_owned());
        }
        let (transport, kind) = match scheme.split_once('+') {
            Some((_, "unix")) => ("redis+unix", None),
            Some((transport, kind)) => (transport, Some(kind)),
            None => (scheme, None),
        };
        let (plain, tls) = match transport {
            "redis" | "valkey" => ("redis", false),
            "rediss" | "valkeys" => ("redis", true),
            "unix" | "redis+unix" => ("redis+unix", false),
            _ => return Err(wrong()),
        };
        match kind {
            None => {
                let (address, login) = one(&format!("{plain}://{rest}"))?;
                Ok(Self { servers: Servers::One(address), tls, login })
            }
            Some("cluster") => {
                let (nodes, path, login) = several(rest)?;
                if !path.is_empty() {
                    return Err("REDIS_URL: a cluster has no databases".to_owned());
                }
                Ok(Self { servers: Servers::Cluster(nodes), tls, login })
            }
            Some("sentinel") => {
                let (nodes, path, login) = several(rest)?;
                let (service, database) = path.split_once('/').unwrap_or((path, "0"));
                if service.is_empty() {
                    return Err(
                        "REDIS_URL: no service: redis+sentinel://host:port,../service".to_owned()
                    );
                }
                let database =
                    database.parse().map_err(|_| "REDIS_URL: no database number".to_owned())?;
                let login = login.set_db(database);
                Ok(Self { servers: Servers::Sentinel(nodes, service.to_owned()), tls, login })
            }
            Some(_) => Err(wrong()),
        }
    }
}

/// `[user:password@]host:port,host:port[/path][?query]`.
fn several(rest: &str) -> Result<(Vec<ConnectionAddr>, &str, RedisConnectionInfo), String> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    // A password may hold a slash only when it is escaped, so the path begins at the first.
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    let mut addresses = Vec::new();
    let mut login = RedisConnectionInfo::default();
    for host in hosts.split(',') {
        let (address, theirs) = one(&format!("redis://{user}{host}/?{query}"))?;
        addresses.push(address);
        login = theirs;
    }
    Ok((addresses, path.trim_end_matches('/'), login))
}

fn one(url: &str) -> Result<(ConnectionAddr, RedisConnectionInfo), String> {
    let info = url.into_connection_info().map_err(|_| wrong())?;
    Ok((info.addr().clone(), info.redis_settings().clone()))
}

fn wrong() -> String {
    format!("REDIS_URL cannot be read; its forms: {FORMS}")
}

#[cfg(test)]
#[allow(clippy::panic, clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Address, String> {
        // As clap cuts it.
        Address::parse(&url.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn every_form_is_read() {
        let tcp = |host: &str, port| ConnectionAddr::Tcp(host.to_owned(), port);
        let sentinel = |nodes, service: &str| Servers::Sentinel(nodes, service.to_owned());
        for (url, servers, tls, user, password, database) in [
            ("redis://a", Servers::One(tcp("a", 6379)), false, None, None, 0),
            ("redis://u:p%40@a:1/2", Servers::One(tcp("a", 1)), false, Some("u"), Some("p@"), 2),
            ("rediss://a:1", Servers::One(tcp("a", 1)), true, None, None, 0),
            ("valkeys://:p@a:1", Servers::One(tcp("a", 1)), true, None, Some("p"), 0),
            ("redis://[::1]:5", Servers::One(tcp("::1", 5)), false, None, None, 0),
            (
                "redis+unix:///run/r.sock",
                Servers::One(ConnectionAddr::Unix("/run/r.sock".into())),
                false,
                None,
                None,
                0,
            ),
            (
                "redis+sentinel://u:p@a:1,b:2/main/3",
                sentinel(vec![tcp("a", 1), tcp("b", 2)], "main"),
                false,
                Some("u"),
                Some("p"),
                3,
            ),
            (
                "rediss+sentinel://a:1/main",
                sentinel(vec![tcp("a", 1)], "main"),
                true,
                None,
                None,
                0,
            ),
            (
                "redis+cluster://:p@a:1,b:2",
                Servers::Cluster(vec![tcp("a", 1), tcp("b", 2)]),
                false,
                None,
                Some("p"),
                0,
            ),
        ] {
            let address = parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(address.servers, servers, "{url}");
            assert_eq!(address.tls, tls, "{url}");
            assert_eq!(address.login.username(), user, "{url}");
            assert_eq!(address.login.password(), password, "{url}");
            assert_eq!(address.login.db(), database, "{url}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_and_never_repeated() {
        for url in [
            "",
            "secret",
            "http://secret@a",
            "redis+other://secret@a",
            "redis://:secret@a:port",
            "redis://:secret@a,redis://b",
            "redis+sentinel://:secret@a:1",
            "redis+sentinel://:secret@a:1/main/x",
            "redis+cluster://:secret@a:1/1",
        ] {
            let error = parse(url).err().unwrap_or_else(|| panic!("{url} was read"));
            assert!(error.starts_with("REDIS_URL"), "{url}: {error}");
            assert!(!error.contains("secret"), "{url}: {error}");
        }
    }
}
