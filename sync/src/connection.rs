//! One connection to one server.
//!
//! The protocol is the redis crate's, the connection is not. Its `Connection`
//! cannot be shut down from another thread; it awaits every reply of a pipeline
//! even when none comes, each for the whole time-out; for TLS it reads the
//! system's certificates on every connection and fails if one of them is bad,
//! even when a file of one's own is to be used.

use crate::breaker::{Breaker, Guard};
use crate::cluster::Endpoint;
use crate::config::Limits;
use crate::credentials::{Credentials, Secrets};
use crate::reply::Refusal;
use crate::status::{PeerCounters, add};
use crate::url::PeerUrl;
use crate::wire::{self, Scan};
use redis::Value;
use redis::io::tcp::socket2::{Domain, Protocol, SockAddr, Socket, Type};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;

/// The most bytes one reply may have.
const MAX_REPLY: usize = 1 << 20;
/// How many bytes are read at a time.
const CHUNK: usize = 1 << 14;
/// The most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;

/// Why a connection cannot be used.
#[derive(Debug)]
pub(crate) struct Fault {
    pub why: String,
    pub kind: FaultKind,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// There is nobody to connect to.
    Absent,
    /// Somebody is there, and does not answer, or nothing that can be read.
    Silent,
    /// The server has answered with an error of this code.
    Refusing(String),
}

impl Fault {
    pub fn absent(why: String) -> Self {
        Self { why, kind: FaultKind::Absent }
    }

    pub fn silent(why: impl Into<String>) -> Self {
        Self { why: why.into(), kind: FaultKind::Silent }
    }

    /// The code of the error that the server has answered with.
    pub fn refusal(&self) -> Option<&str> {
        match &self.kind {
            FaultKind::Refusing(code) => Some(code),
            FaultKind::Absent | FaultKind::Silent => None,
        }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self { why: refusal.text, kind: FaultKind::Refusing(refusal.code) }
    }
}

/// How to get at the servers of one peer.
#[derive(Debug)]
pub(crate) struct Access {
    pub url: PeerUrl,
    pub credentials: Arc<Credentials>,
    pub limits: Limits,
    pub breaker: Arc<Breaker>,
}

/// An open connection, logged in.
pub(crate) struct Connection {
    stream: Stream,
    /// What has been read, from `at` on by nobody.
    inbox: Vec<u8>,
    at: usize,
    /// Of the reply that begins there.
    scan: Scan,
    /// The database selected.
    pub db: u32,
    // Dropped last: it shuts the socket down.
    _guard: Guard,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Connection {
    /// Connects and logs in, with what is in the files now. What is wrong with them
    /// is an error of the peer in any case, so that it shows before it matters.
    pub fn open(to: &Endpoint, access: &Access, counters: &PeerCounters) -> Result<Self, Fault> {
        let secrets = access.credentials.of(&access.url).map_err(Fault::silent)?;
        if let Some(password) = &secrets.password {
            counters.hide(password);
        }
        match (Self::open_with(to, access, &secrets, counters), secrets.trouble) {
            (Ok(connection), Some(trouble)) => {
                counters.error(&trouble);
                Ok(connection)
            }
            (Err(Fault { why, kind }), Some(trouble)) => {
                Err(Fault { why: format!("{why}; {trouble}"), kind })
            }
            (opened, None) => opened,
        }
    }

    fn open_with(
        to: &Endpoint,
        access: &Access,
        secrets: &Secrets,
        counters: &PeerCounters,
    ) -> Result<Self, Fault> {
        let (socket, guard) = connect(to, access)?;
        add(&counters.connections, 1);
        let stream = match &secrets.tls {
            None => Stream::Plain(socket),
            Some(config) => Stream::Tls(Box::new(encrypt(to, Arc::clone(config), socket)?)),
        };
        let mut connection =
            Self { stream, inbox: Vec::new(), at: 0, scan: Scan::new(), db: 0, _guard: guard };
        if let Some(password) = &secrets.password {
            connection.log_in(access.url.user(), password, counters)?;
        }
        Ok(connection)
    }

    fn log_in(
        &mut self,
        user: Option<&str>,
        password: &str,
        counters: &PeerCounters,
    ) -> Result<(), Fault> {
        let words: &[&str] = match user {
            Some(user) => &["AUTH", user, password],
            None => &["AUTH", password],
        };
        match self.call(words, counters)? {
            Value::ServerError(error) => {
                // Servers repeat arguments in some errors, in part even: only
                // texts that are known not to go any further.
                let detail = error.details().unwrap_or_default();
                let why = if detail.contains("without any password configured") {
                    "the peer's default user has no password"
                } else if error.code() == "WRONGPASS" {
                    "invalid user name or password, or the user is disabled"
                } else {
                    "the peer refused it"
                };
                let code = wire::one_line(error.code());
                let text = format!("AUTH failed: {code} {why}");
                Err(Refusal { code, text }.into())
            }
            _ => Ok(()),
        }
    }

    /// Sends one command and awaits its reply, which may be an error.
    pub fn call<W: AsRef<[u8]>>(
        &mut self,
        words: &[W],
        counters: &PeerCounters,
    ) -> Result<Value, Fault> {
        let mut bytes = Vec::new();
        wire::command(&mut bytes, words);
        self.send(&bytes, counters)?;
        self.reply()
    }

    /// Sends commands.
    pub fn send(&mut self, bytes: &[u8], counters: &PeerCounters) -> Result<(), Fault> {
        let stream: &mut dyn Write = match &mut self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.as_mut(),
        };
        stream
            .write_all(bytes)
            .and_then(|()| stream.flush())
            .map_err(|e| Fault::silent(format!("cannot write: {}", explained(&e))))?;
        add(&counters.bytes_sent, bytes.len());
        Ok(())
    }

    /// Awaits one reply.
    pub fn reply(&mut self) -> Result<Value, Fault> {
        parsed(self.next()?)
    }

    /// The bytes of the next reply.
    fn next(&mut self) -> Result<&[u8], Fault> {
        let start = loop {
            let unread = self.inbox.get(self.at..).unwrap_or_default();
            if let Some(len) = self.scan.len(unread).map_err(|why| no_reply_from(&why))? {
                let start = self.at;
                self.scan = Scan::new();
                self.at = start.saturating_add(len);
                break start;
            }
            if unread.len() > MAX_REPLY {
                return Err(Fault::silent("no reply: it is longer than a mebibyte"));
            }
            self.read()?;
        };
        Ok(self.inbox.get(start..self.at).unwrap_or_default())
    }

    /// Reads what has come, after all replies that were read before.
    fn read(&mut self) -> Result<(), Fault> {
        self.inbox.drain(..self.at);
        self.at = 0;
        if self.inbox.is_empty() {
            self.inbox.shrink_to(CHUNK.saturating_mul(4));
        }
        let before = self.inbox.len();
        self.inbox.resize(before.saturating_add(CHUNK), 0);
        let room = self.inbox.get_mut(before..).unwrap_or_default();
        let stream: &mut dyn Read = match &mut self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.as_mut(),
        };
        let read = loop {
            match stream.read(room) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) => break Err(io::ErrorKind::UnexpectedEof.into()),
                read => break read,
            }
        };
        self.inbox.truncate(before.saturating_add(*read.as_ref().unwrap_or(&0)));
        read.map(|_| ()).map_err(|e| Fault::silent(format!("no reply: {}", explained(&e))))
    }
}

fn parsed(reply: &[u8]) -> Result<Value, Fault> {
    redis::parse_redis_value(reply).map_err(|e| no_reply_from(&e))
}

fn no_reply_from(why: &dyn fmt::Display) -> Fault {
    Fault::silent(format!("no reply that can be read: {why}"))
}

/// An error in words that tell more than those of the system.
fn explained(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "timed out".into(),
        io::ErrorKind::UnexpectedEof => "the connection was closed".into(),
        _ => error.to_string(),
    }
}

fn connect(to: &Endpoint, access: &Access) -> Result<(TcpStream, Guard), Fault> {
    let fault = |e: io::Error| Fault::absent(format!("cannot connect to {to}: {}", explained(&e)));
    let mut last = None;
    for address in addresses(to).map_err(fault)?.into_iter().take(MAX_ADDRESSES) {
        match connect_to(address, access) {
            Ok(connected) => return Ok(connected),
            Err(e) => last = Some(e),
        }
    }
    Err(fault(last.unwrap_or_else(|| io::Error::other("the name has no address"))))
}

/// Looking up a name blocks for as long as the system's resolver likes, and
/// cannot be ended from outside. Addresses need no look-up.
fn addresses(to: &Endpoint) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = to.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, to.port)]);
    }
    Ok((to.host.as_str(), to.port).to_socket_addrs()?.collect())
}

fn connect_to(address: SocketAddr, access: &Access) -> io::Result<(TcpStream, Guard)> {
    let limits = &access.limits;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    let guard = access.breaker.guard(&socket)?;
    socket.connect_timeout(&SockAddr::from(address), limits.connect_timeout)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_read_timeout(Some(limits.io_timeout))?;
    socket.set_write_timeout(Some(limits.io_timeout))?;
    Ok((socket.into(), guard))
}

fn encrypt(
    to: &Endpoint,
    config: Arc<ClientConfig>,
    mut socket: TcpStream,
) -> Result<StreamOwned<ClientConnection, TcpStream>, Fault> {
    let fault = |why: &dyn fmt::Display| Fault::silent(format!("no TLS with {to}: {why}"));
    let name = ServerName::try_from(to.host.clone()).map_err(|e| fault(&e))?;
    let mut session = ClientConnection::new(config, name).map_err(|e| fault(&e))?;
    while session.is_handshaking() {
        session.complete_io(&mut socket).map_err(|e| fault(&explained(&e)))?;
    }
    Ok(StreamOwned::new(session, socket))
}
