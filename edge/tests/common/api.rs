//! A client that sends what it is told to, also what no sane one would.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use serde_json::Value;
use sfv::{BareItem, List, ListEntry, Parser};
use socket2::{Domain, Socket, Type};

use super::{Edge, PATIENCE};

/// What came back.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    /// With their names in lower case.
    pub fields: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    /// The value of a field that is there at most once.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(given, _)| given == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} is there twice: {self:?}");
        value
    }

    /// A field that is a whole number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.field(name).map(|value| value.parse().unwrap_or_else(|_| panic!("{name}: {value}")))
    }

    /// The body, as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A field of the body that is a text.
    pub fn text(&self, name: &str) -> String {
        self.json()[name].as_str().unwrap_or_else(|| panic!("no {name}: {self:?}")).to_owned()
    }

    /// `RateLimit` or `RateLimit-Policy`, as structured fields have it: names with the parameters
    /// that are whole numbers.
    pub fn limits(&self, name: &str) -> Vec<(String, Vec<(String, i64)>)> {
        let Some(text) = self.field(name) else { return Vec::new() };
        let list: List =
            Parser::new(text).parse().unwrap_or_else(|e| panic!("{name}: {text}: {e}"));
        let limit = |entry: &ListEntry| {
            let ListEntry::Item(item) = entry else { panic!("{name}: {text}: a list in it") };
            let BareItem::String(limit) = &item.bare_item else { panic!("{name}: {text}") };
            let parameter = |(name, value): (&_, &BareItem)| -> (String, i64) {
                let BareItem::Integer(value) = value else { panic!("{name}: {text}") };
                (ToString::to_string(name), (*value).into())
            };
            (limit.as_str().to_owned(), item.params.iter().map(parameter).collect())
        };
        list.iter().map(limit).collect()
    }

    /// Asserts that this is a problem as it should be, with a status, and returns its `detail`.
    pub fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.field("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.json()["status"], status, "{self:?}");
        let id = self.field("x-request-id").unwrap();
        assert_eq!(self.text("instance"), format!("urn:request:{id}"), "{self:?}");
        for name in ["type", "title"] {
            assert!(!self.text(name).is_empty(), "{name}: {self:?}");
        }
        self.text("detail")
    }
}

/// Sends a request and waits for the response. `Content-Length` and `Connection` are added.
pub fn send(port: u16, method: &str, path: &str, fields: &[(&str, &str)], body: &str) -> Response {
    let mut head = head(method, path, fields);
    if !body.is_empty() {
        head += &format!("content-length: {}\r\n", body.len());
    }
    raw(port, &[head.as_bytes(), b"\r\n", body.as_bytes()].concat())
}

fn head(method: &str, path: &str, fields: &[(&str, &str)]) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    for (name, value) in fields {
        head += &format!("{name}: {value}\r\n");
    }
    head
}

/// Sends bytes and reads a response until the other side closes.
pub fn raw(port: u16, bytes: &[u8]) -> Response {
    exchange(TcpStream::connect(("127.0.0.1", port)).unwrap(), bytes)
}

/// Sends bytes and reads a response until the other side closes.
pub fn exchange(mut stream: TcpStream, bytes: &[u8]) -> Response {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // Whoever refuses may close before all of it is sent.
    let _ = stream.write_all(bytes);
    let mut response = Vec::new();
    match stream.read_to_end(&mut response) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("no response: {error}"),
        _ => read(&String::from_utf8(response).unwrap()),
    }
}

fn read(response: &str) -> Response {
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((response, ""));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|s| s.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no response: {response:?}"));
    let fields: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let is_chunked =
        fields.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = if is_chunked { unchunked(body) } else { body.to_owned() };
    Response { status, fields, body }
}

fn unchunked(mut chunks: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = chunks.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        body += &rest[..size];
        chunks = rest[size..].trim_start_matches("\r\n");
        if size == 0 {
            break;
        }
    }
    body
}

/// `POST` of JSON.
pub fn post(port: u16, path: &str, body: &str) -> Response {
    send(port, "POST", path, &[("content-type", "application/json")], body)
}

/// `GET`.
pub fn get(port: u16, path: &str) -> Response {
    send(port, "GET", path, &[], "")
}

/// Sends a request from another address of this machine, such as 127.0.0.2.
pub fn get_from(address: &str, port: u16, path: &str, fields: &[(&str, &str)]) -> Response {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(address.parse().unwrap(), 0).into()).unwrap();
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
    let head = head("GET", path, fields) + "\r\n";
    exchange(socket.into(), head.as_bytes())
}

/// A service that answers every request with the head that it got. Returns its port.
pub fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            // Nobody may be left to hear of it.
            let _ = stream.and_then(answer);
        }
    });
    port
}

fn answer(stream: TcpStream) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head)? > 0 {}
    let length = head.len();
    let response =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{head}");
    stream.get_mut().write_all(response.as_bytes())
}

/// A service with settings in its environment. Redis may take its time, since tests run side by
/// side.
pub fn start(redis_url: &str, settings: &[(&str, &str)]) -> Edge {
    let builder = Edge::builder(redis_url).env("DECISION_TIMEOUT", "5s");
    settings.iter().fold(builder, |builder, (name, value)| builder.env(name, value)).start()
}
