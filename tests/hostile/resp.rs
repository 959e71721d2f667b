//! The protocol by hand: whatever a client library would refuse to send.

use std::io::{BufRead, BufReader, ErrorKind, Read, Result, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A server that does not answer for so long hangs.
const ANSWER: Duration = Duration::from_secs(60);

/// An answer in RESP2 or RESP3.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Simple(String),
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Reply>),
    Map(Vec<(Reply, Reply)>),
    /// A double, boolean, big number.
    Scalar(String),
}

impl Reply {
    pub fn ints(&self) -> Option<Vec<i64>> {
        let Reply::Array(items) = self else { return None };
        items.iter().map(|item| if let Reply::Int(n) = item { Some(*n) } else { None }).collect()
    }

    pub fn bytes(&self) -> Option<&[u8]> {
        if let Reply::Bulk(bytes) = self { Some(bytes) } else { None }
    }

    /// The pairs of a map, which is a flat array in RESP2.
    pub fn pairs(&self) -> Option<Vec<(&Reply, &Reply)>> {
        match self {
            Reply::Map(pairs) => Some(pairs.iter().map(|(name, value)| (name, value)).collect()),
            Reply::Array(items) if items.len().is_multiple_of(2) => {
                Some(items.chunks_exact(2).map(|pair| (&pair[0], &pair[1])).collect())
            }
            _ => None,
        }
    }
}

/// A command as it goes over the wire.
pub fn encode(to: &mut Vec<u8>, args: &[Vec<u8>]) {
    write!(to, "*{}\r\n", args.len()).expect("writing to memory succeeds");
    for arg in args {
        write!(to, "${}\r\n", arg.len()).expect("writing to memory succeeds");
        to.extend_from_slice(arg);
        to.extend_from_slice(b"\r\n");
    }
}

/// The words of a line, as arguments.
pub fn words(line: &str) -> Vec<Vec<u8>> {
    line.split_ascii_whitespace().map(|word| word.as_bytes().to_vec()).collect()
}

pub struct Conn {
    read: BufReader<UnixStream>,
    write: UnixStream,
}

impl Conn {
    pub fn open(socket: &Path) -> Conn {
        let write = UnixStream::connect(socket).expect("the server accepts connections");
        write.set_read_timeout(Some(ANSWER)).expect("a time-out can be set");
        write.set_write_timeout(Some(ANSWER)).expect("a time-out can be set");
        let read = write.try_clone().expect("a socket can be cloned");
        Conn { read: BufReader::with_capacity(1 << 16, read), write }
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.write.write_all(bytes)
    }

    /// Says that nothing more will come.
    pub fn finish(&mut self) {
        // The server may have closed the connection already.
        let _ = self.write.shutdown(Shutdown::Write);
    }

    pub fn ask(&mut self, args: &[Vec<u8>]) -> Reply {
        let mut bytes = Vec::new();
        encode(&mut bytes, args);
        self.send(&bytes).expect("the server reads");
        self.reply().expect("the server answers")
    }

    /// The next answer. What a server says unasked is left out.
    pub fn reply(&mut self) -> Result<Reply> {
        loop {
            if let Some(reply) = self.item()? {
                return Ok(reply);
            }
        }
    }

    fn item(&mut self) -> Result<Option<Reply>> {
        let mut line = Vec::new();
        self.read.read_until(b'\n', &mut line)?;
        let Some((kind, rest)) = line.strip_suffix(b"\r\n").and_then(|line| line.split_first())
        else {
            return Err(ErrorKind::UnexpectedEof.into());
        };
        let text = String::from_utf8_lossy(rest).into_owned();
        let number = || text.parse::<i64>().map_err(|_| ErrorKind::InvalidData);
        Ok(Some(match kind {
            b'+' => Reply::Simple(text),
            b'-' => Reply::Error(text),
            b':' => Reply::Int(number()?),
            b'_' => Reply::Nil,
            b'#' | b',' | b'(' => Reply::Scalar(text),
            b'$' | b'=' | b'!' => match usize::try_from(number()?) {
                Err(_) => Reply::Nil,
                Ok(len) => {
                    let mut bytes = vec![0; len + 2];
                    self.read.read_exact(&mut bytes)?;
                    bytes.truncate(len);
                    Reply::Bulk(bytes)
                }
            },
            b'*' | b'~' => match usize::try_from(number()?) {
                Err(_) => Reply::Nil,
                Ok(len) => Reply::Array((0..len).map(|_| self.reply()).collect::<Result<_>>()?),
            },
            b'%' => Reply::Map(
                (0..number()?)
                    .map(|_| Ok((self.reply()?, self.reply()?)))
                    .collect::<Result<_>>()?,
            ),
            b'>' => {
                for _ in 0..number()? {
                    self.reply()?;
                }
                return Ok(None);
            }
            _ => return Err(ErrorKind::InvalidData.into()),
        }))
    }
}
