//! A client that sees what is on the wire: one connection, kept open as long as the service
//! keeps it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How long an answer may take in all.
const ANSWER: Duration = Duration::from_secs(20);

/// A connection.
pub struct Client {
    stream: BufReader<TcpStream>,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    /// Names in small letters.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// From the first byte of the request to the last of the response.
    pub took: Duration,
}

impl Response {
    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// Whether the service closes the connection.
    pub fn closes(&self) -> bool {
        self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    /// The number behind `name` in a structured field, as in `"user";r=3`.
    pub fn number(&self, field: &str, name: &str) -> Option<i64> {
        self.field(field)?.split(';').find_map(|part| part.strip_prefix(name)?.parse().ok())
    }
}

impl Client {
    /// Connects to a port of this machine.
    pub fn try_connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// A decision about a request of `user`, and nothing else: a rating is stored, too.
    pub fn try_rate(&mut self, user: &str) -> io::Result<Response> {
        self.exchange(&format!("GET /auth HTTP/1.1\r\nhost: localhost\r\nx-user: {user}\r\n\r\n"))
    }

    /// A decision about a request of `user`.
    pub fn rate(&mut self, user: &str) -> Response {
        self.try_rate(user).expect("the service answers")
    }

    /// A page.
    pub fn try_get(&mut self, path: &str) -> io::Result<Response> {
        self.request("GET", path, "")
    }

    /// Sends a request and waits for its response.
    pub fn request(&mut self, method: &str, path: &str, body: &str) -> io::Result<Response> {
        self.request_of(method, path, "application/json", body)
    }

    /// Sends a body of any kind and waits for the response.
    pub fn request_of(
        &mut self,
        method: &str,
        path: &str,
        kind: &str,
        body: &str,
    ) -> io::Result<Response> {
        self.exchange(&format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    fn exchange(&mut self, request: &str) -> io::Result<Response> {
        let started = Instant::now();
        self.send(request.as_bytes())?;
        let mut response = self.response()?;
        response.took = started.elapsed();
        Ok(response)
    }

    /// Reads a response.
    pub fn response(&mut self) -> io::Result<Response> {
        let invalid = |line: &str| io::Error::new(io::ErrorKind::InvalidData, line.to_owned());
        let status = self.line()?;
        let status =
            status.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(invalid(&status))?;
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or(invalid(&line))?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut response = Response { status, fields, body: Vec::new(), took: Duration::ZERO };
        let length = response.field("content-length").map_or(Ok(0), str::parse);
        response.body.resize(length.map_err(|_| invalid("content-length"))?, 0);
        self.stream.read_exact(&mut response.body)?;
        Ok(response)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}
