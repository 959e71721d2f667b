//! How a connection is made: address, TLS, login, and the sentinels' word on who is master.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{
    Cmd, ConnectionAddr, FromRedisValue, ProtocolVersion, RedisConnectionInfo, RedisError, Value,
    from_redis_value,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::address::{Address, Servers};
use super::late::Patience;
use super::wire::{Hears, Wire};
use crate::config::Config;
use crate::tls;

/// How long a sentinel may take to answer.
const SENTINEL: Duration = Duration::from_millis(300);

/// What a connection is made of.
pub struct Dial {
    tls: Option<TlsConnector>,
    login: RedisConnectionInfo,
    password_file: Option<PathBuf>,
    sentinel_password_file: Option<PathBuf>,
    /// How long a server may take to answer.
    patience: Patience,
    /// Who hears of keys that have changed; then the server is asked to tell.
    invalidated: Option<Hears>,
}

/// Where a connection leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// This server.
    Fixed(ConnectionAddr),
    /// The master of a service, as these sentinels say.
    Master(Vec<ConnectionAddr>, String),
}

impl std::fmt::Display for Place {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(address) => write!(out, "{address}"),
            Self::Master(_, service) => write!(out, "master of {service}"),
        }
    }
}

/// A connection, and what has to run for it to work. It is closed when that is dropped.
pub struct Dialled {
    /// The connection.
    pub wire: Wire,
    /// Ends when the connection does.
    pub driver: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Dial {
    /// How long a server may take to answer.
    pub fn patience(&self) -> &Patience {
        &self.patience
    }

    /// Reads what the settings name.
    ///
    /// # Errors
    /// When a URL or a certificate cannot be read.
    pub fn new(config: &Config, invalidated: Option<Hears>) -> Result<(Self, Servers), String> {
        let Address { servers, tls, mut login } = Address::parse(&config.redis_url)?;
        if invalidated.is_some() {
            login = login.set_protocol(ProtocolVersion::RESP3);
        }
        let dial = Self {
            tls: tls.then(|| connector(config)).transpose()?,
            login,
            password_file: config.redis_password_file.clone(),
            sentinel_password_file: config.redis_sentinel_password_file.clone(),
            patience: Patience::new(config.decision_timeout),
            invalidated,
        };
        Ok((dial, servers))
    }

    /// Connects, logs in and sees that commands are answered.
    ///
    /// # Errors
    /// Says at which step it failed.
    pub async fn open(&self, place: &Place) -> Result<Dialled, String> {
        let login = self.login(self.password_file.as_ref())?;
        match place {
            Place::Fixed(address) => self.dial(address, &login).await,
            Place::Master(sentinels, service) => {
                let address = self.master(sentinels, service).await?;
                let mut dialled = self.dial(&address, &login).await?;
                // Right after a failover a sentinel may still name the old master.
                let role: Vec<Value> =
                    run(&mut dialled, &redis::cmd("ROLE")).await.map_err(text)?;
                match role.first() {
                    Some(Value::BulkString(role)) if role == b"master" => Ok(dialled),
                    _ => Err(format!("{address} is no longer the master of {service}")),
                }
            }
        }
    }

    /// The answer to one command, on a connection for it alone.
    ///
    /// # Errors
    /// Says at which step it failed.
    pub async fn ask_once(&self, address: &ConnectionAddr, command: &Cmd) -> Result<Value, String> {
        let login = self.login(self.password_file.as_ref())?;
        let mut dialled = self.connect(address, &login, None).await?;
        run(&mut dialled, command).await.map_err(text)
    }

    /// The master, as the first sentinel says that knows one. All are asked at once: those that hang
    /// hold up nobody.
    async fn master(
        &self,
        sentinels: &[ConnectionAddr],
        service: &str,
    ) -> Result<ConnectionAddr, String> {
        let mut login = RedisConnectionInfo::default();
        if let Some(file) = &self.sentinel_password_file {
            login = login.set_password(password(file)?);
        }
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
        let ask = async |sentinel: &ConnectionAddr| {
            let answer = timeout(SENTINEL, async {
                let mut dialled = self.connect(sentinel, &login, None).await?;
                run::<Option<(String, u16)>>(&mut dialled, &command).await.map_err(text)
            });
            match answer.await {
                Ok(Ok(Some((host, port)))) => return Some(ConnectionAddr::Tcp(host, port)),
                Ok(Ok(None)) => tracing::debug!(%sentinel, service, "knows no such service"),
                Ok(Err(error)) => tracing::debug!(%sentinel, error, "does not answer"),
                Err(_) => tracing::debug!(%sentinel, "does not answer in time"),
            }
            None
        };
        let mut answers: FuturesUnordered<_> = sentinels.iter().map(ask).collect();
        while let Some(known) = answers.next().await {
            if let Some(master) = known {
                return Ok(master);
            }
        }
        Err(format!("no sentinel knows the master of {service}"))
    }

    /// A connection for decisions.
    async fn dial(
        &self,
        address: &ConnectionAddr,
        login: &RedisConnectionInfo,
    ) -> Result<Dialled, String> {
        let mut dialled = self.connect(address, login, self.invalidated.clone()).await?;
        // A server that loads its data takes connections, and answers this with an error; one
        // that is too slow for decisions shows it here, before one has to wait for it.
        timeout(self.patience.length(), run::<String>(&mut dialled, &redis::cmd("PING")))
            .await
            .map_err(|_| "no answer within DECISION_TIMEOUT".to_owned())?
            .map_err(text)?;
        if self.invalidated.is_some() {
            let mut tracking = redis::cmd("CLIENT");
            tracking.arg("TRACKING").arg("ON");
            run::<String>(&mut dialled, &tracking).await.map_err(text)?;
        }
        Ok(dialled)
    }

    async fn connect(
        &self,
        address: &ConnectionAddr,
        login: &RedisConnectionInfo,
        invalidated: Option<Hears>,
    ) -> Result<Dialled, String> {
        let stream = self.stream(address).await?;
        let (wire, driver) = Wire::new(stream, invalidated);
        let mut dialled = Dialled { wire, driver: Box::pin(driver) };
        if let Some(command) = greeting(login) {
            run::<Value>(&mut dialled, &command).await.map_err(text)?;
        }
        if login.db() != 0 {
            let mut command = redis::cmd("SELECT");
            command.arg(login.db());
            run::<Value>(&mut dialled, &command).await.map_err(text)?;
        }
        Ok(dialled)
    }

    async fn stream(&self, address: &ConnectionAddr) -> Result<Box<dyn Stream>, String> {
        let said = |error: std::io::Error| error.to_string();
        match address {
            ConnectionAddr::Unix(path) => {
                Ok(Box::new(UnixStream::connect(path).await.map_err(said)?))
            }
            ConnectionAddr::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(said)?;
                stream.set_nodelay(true).map_err(said)?;
                let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
                let name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
                Ok(Box::new(tls.connect(name, stream).await.map_err(said)?))
            }
            _ => Err("an address of no known kind".to_owned()),
        }
    }

    /// The login of the URL, with the password that is in `file` now.
    fn login(&self, file: Option<&PathBuf>) -> Result<RedisConnectionInfo, String> {
        let login = self.login.clone();
        file.map_or(Ok(login.clone()), |file| Ok(login.set_password(password(file)?)))
    }
}

/// The first command on a connection, if there is anything to say.
fn greeting(login: &RedisConnectionInfo) -> Option<Cmd> {
    let is_newer = matches!(login.protocol(), ProtocolVersion::RESP3);
    let mut command = redis::cmd(if is_newer { "HELLO" } else { "AUTH" });
    if is_newer {
        command.arg(3);
    }
    match (login.username(), login.password()) {
        (user, Some(password)) if is_newer => {
            command.arg("AUTH").arg(user.unwrap_or("default")).arg(password);
        }
        (Some(user), Some(password)) => {
            command.arg(user).arg(password);
        }
        (None, Some(password)) => {
            command.arg(password);
        }
        (_, None) if !is_newer => return None,
        (_, None) => {}
    }
    Some(command)
}

/// What a command comes to on a connection that nobody else has yet.
async fn run<T: FromRedisValue>(dialled: &mut Dialled, command: &Cmd) -> Result<T, RedisError> {
    let reply = tokio::select! {
        reply = dialled.wire.ask(command) => reply?,
        () = &mut dialled.driver => {
            return Err(std::io::Error::other("the server closed the connection").into());
        }
    };
    match reply.into() {
        Value::ServerError(error) => Err(error.into()),
        value => Ok(from_redis_value(value)?),
    }
}

/// An error of the server or of the connection, in its own words. Neither repeats a password.
fn text(error: RedisError) -> String {
    error.to_string()
}

/// What a file says, but for the line break that editors put at its end.
fn password(file: &PathBuf) -> Result<String, String> {
    let text = fs::read_to_string(file)
        .map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// TLS, trusting whom `REDIS_CA_FILE` names, or else whom the system trusts.
fn connector(config: &Config) -> Result<TlsConnector, String> {
    let Some(file) = &config.redis_ca_file else {
        return Ok(TlsConnector::from(Arc::new(tls::trusting(tls::system())?)));
    };
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))? {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() {
        return Err(wrong(&"no certificate in it"));
    }
    Ok(TlsConnector::from(Arc::new(tls::trusting(roots)?)))
}
