//! A connection: commands go out as they come, all of one turn of the event loop in one write,
//! and answers come back in their order.
//!
//! The client library has such a connection, too. Its parser and its bookkeeping cost more
//! than a third of what a decision does besides HTTP, so the five numbers of a take are read
//! here, without an allocation; the library reads everything else.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use redis::{Cmd, PushInfo, Value, parse_redis_value};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep};

use super::health::locked;
use super::late;

/// How much is read at once, in bytes.
const READ: usize = 16 * 1024;

/// What a server answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// An array of five integers, as takes are answered.
    Figures([i64; 5]),
    /// Anything else.
    Other(Value),
}

impl From<Reply> for Value {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Figures(figures) => Self::Array(figures.map(Self::Int).to_vec()),
            Reply::Other(value) => value,
        }
    }
}

/// Who hears of what a server tells unasked.
pub type Hears = Arc<dyn Fn(PushInfo) + Send + Sync>;

/// The near end of a connection. Clones share it.
#[derive(Clone, Debug)]
pub struct Wire(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    out: Mutex<Out>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Out {
    /// What is to be written.
    bytes: Vec<u8>,
    /// Who waits for answers, in order.
    waiting: VecDeque<oneshot::Sender<Reply>>,
    /// How many commands were sent, and how many of them have been answered.
    sent: u64,
    answered: u64,
    is_closed: bool,
}

impl Wire {
    /// A connection over `stream`, and what has to run for it to work. It ends, and the stream
    /// is closed, when the other end closes it, or tells what cannot be understood.
    pub fn new<S>(stream: S, hears: Option<Hears>) -> (Self, impl Future<Output = ()>)
    where
        S: AsyncRead + AsyncWrite,
    {
        let wire = Self(Arc::default());
        let end = End(Arc::clone(&wire.0));
        let driver = async move {
            let (reader, writer) = split(stream);
            // Neither waits for the other: a server that is slow to read may have to be read
            // from first.
            let ended = tokio::select! {
                ended = read(reader, &end.0, hears) => ended,
                ended = write(writer, &end.0) => ended,
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection to Redis has ended");
            }
        };
        (wire, driver)
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// When the connection ends before there is one.
    pub async fn ask(&self, command: &Cmd) -> io::Result<Reply> {
        let answer = self.send(command);
        answer.await.map_err(|_| io::ErrorKind::ConnectionAborted.into())
    }

    /// Sends a command, at once if it is told so, or with what else is sent in this turn.
    pub fn send(&self, command: &Cmd) -> oneshot::Receiver<Reply> {
        let (answer, receiver) = oneshot::channel();
        let mut out = locked(&self.0.out);
        // Otherwise it is dropped here, and who waits for it is told so.
        if !out.is_closed {
            command.write_packed_command(&mut out.bytes);
            out.waiting.push_back(answer);
            out.sent = out.sent.wrapping_add(1);
            self.0.bell.notify_one();
        }
        receiver
    }
}

/// Ends when a command has waited for its answer for `patience`, and at most as long again: whoever
/// sent it may have gone before he found out.
pub async fn watch(wire: Wire, patience: Duration) {
    let mut sent_before = 0;
    loop {
        let begun = Instant::now();
        sleep(patience).await;
        let is_late = late::is_own(begun.checked_add(patience).unwrap_or(begun), patience);
        let (sent, answered) = {
            let out = locked(&wire.0.out);
            (out.sent, out.answered)
        };
        // Both begin at 0 and come to no end of a u64.
        if answered < sent_before && !is_late {
            return;
        }
        sent_before = sent;
    }
}

/// Closes what is shared, however the driver ends.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        let mut out = locked(&self.0.out);
        out.is_closed = true;
        out.waiting.clear();
    }
}

async fn write<S: AsyncWrite>(mut writer: WriteHalf<S>, shared: &Shared) -> io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        shared.bell.notified().await;
        std::mem::swap(&mut bytes, &mut locked(&shared.out).bytes);
        writer.write_all(&bytes).await?;
        writer.flush().await?;
        bytes.clear();
    }
}

async fn read<S: AsyncRead>(
    mut reader: ReadHalf<S>,
    shared: &Shared,
    hears: Option<Hears>,
) -> io::Result<()> {
    let mut bytes = BytesMut::with_capacity(READ);
    loop {
        bytes.reserve(READ);
        if reader.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
        while let Some((reply, length)) = next(&bytes)? {
            bytes.advance(length);
            if let Reply::Other(Value::Push { kind, data }) = reply {
                hears.iter().for_each(|hears| {
                    hears(PushInfo { kind: kind.clone(), data: data.clone() });
                });
                continue;
            }
            let waiting = {
                let mut out = locked(&shared.out);
                out.answered = out.answered.wrapping_add(1);
                out.waiting.pop_front()
            };
            // Who has gone does not want to know.
            let _ = waiting.ok_or_else(|| invalid("an answer to no question"))?.send(reply);
        }
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// The first reply in `bytes`, and its length, if all of it is there.
fn next(bytes: &[u8]) -> io::Result<Option<(Reply, usize)>> {
    if let Some((figures, length)) = figures(bytes) {
        return Ok(Some((Reply::Figures(figures), length)));
    }
    let Some(length) = length(bytes)? else { return Ok(None) };
    let reply = bytes.get(..length).unwrap_or_default();
    let value = parse_redis_value(reply).map_err(|error| invalid(&error.to_string()))?;
    Ok(Some((Reply::Other(value), length)))
}

/// Five integers, and where they end. Nothing when it is something else, or not all there.
fn figures(bytes: &[u8]) -> Option<([i64; 5], usize)> {
    let mut rest = bytes.strip_prefix(b"*5\r\n")?;
    let mut figures = [0; 5];
    for figure in &mut figures {
        let mut digits = rest.strip_prefix(b":")?;
        let is_negative = digits.first() == Some(&b'-');
        if is_negative {
            digits = digits.get(1..)?;
        }
        let mut number: i64 = 0;
        while let Some((digit @ b'0'..=b'9', behind)) = digits.split_first() {
            number = number.checked_mul(10)?.checked_add(i64::from(digit.wrapping_sub(b'0')))?;
            digits = behind;
        }
        rest = digits.strip_prefix(b"\r\n")?;
        *figure = if is_negative { number.checked_neg()? } else { number };
    }
    Some((figures, bytes.len().checked_sub(rest.len())?))
}

/// How long the first reply in `bytes` is, if all of it is there.
fn length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let mut rest = bytes;
    let mut values: usize = 1;
    while values > 0 {
        let Some(end) = rest.windows(2).position(|at| at == b"\r\n") else { return Ok(None) };
        let (line, behind) = rest.split_at_checked(end).unwrap_or_default();
        rest = behind.get(2..).unwrap_or_default();
        values = values.saturating_sub(1);
        let Some((kind, line)) = line.split_first() else { return Err(invalid("an empty line")) };
        let count = || match std::str::from_utf8(line).map(str::parse::<i64>) {
            Ok(Ok(count)) => Ok(usize::try_from(count).ok()),
            _ => Err(invalid("a length that is no number")),
        };
        match kind {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => {}
            b'$' | b'=' | b'!' => {
                // One below zero is of what is not there.
                let Some(length) = count()? else { continue };
                match rest.get(length.saturating_add(2)..) {
                    Some(behind) => rest = behind,
                    None => return Ok(None),
                }
            }
            b'*' | b'~' | b'>' => values = values.saturating_add(count()?.unwrap_or(0)),
            b'%' => values = values.saturating_add(count()?.unwrap_or(0).saturating_mul(2)),
            // Before the value that it belongs to.
            b'|' => {
                let count = count()?.unwrap_or(0).saturating_mul(2);
                values = values.saturating_add(count).saturating_add(1);
            }
            _ => return Err(invalid("a reply of an unknown kind")),
        }
    }
    Ok(bytes.len().checked_sub(rest.len()))
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::duplex;

    use super::*;

    #[test]
    fn replies_are_read_when_they_are_whole() {
        let figures = |figures| Reply::Figures(figures);
        let other = Reply::Other;
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        for (bytes, reply) in [
            ("*5\r\n:1\r\n:-2\r\n:30\r\n:0\r\n:-1\r\n", figures([1, -2, 30, 0, -1])),
            ("*1\r\n:1\r\n", other(Value::Array(vec![Value::Int(1)]))),
            (
                "*5\r\n:1\r\n:2\r\n:3\r\n:4\r\n$1\r\n5\r\n",
                other(Value::Array(
                    [1, 2, 3, 4].map(Value::Int).into_iter().chain([bulk("5")]).collect(),
                )),
            ),
            ("+OK\r\n", other(Value::Okay)),
            ("$-1\r\n", other(Value::Nil)),
            ("*-1\r\n", other(Value::Nil)),
            ("_\r\n", other(Value::Nil)),
            ("*0\r\n", other(Value::Array(Vec::new()))),
            ("$4\r\na\r\nb\r\n", other(bulk("a\r\nb"))),
            ("%1\r\n+a\r\n*1\r\n:1\r\n", {
                let value = Value::Array(vec![Value::Int(1)]);
                other(Value::Map(vec![(Value::SimpleString("a".to_owned()), value)]))
            }),
        ] {
            for end in 0..bytes.len() {
                assert_eq!(next(&bytes.as_bytes()[..end]).unwrap(), None, "{bytes:?} to {end}");
            }
            let more = format!("{bytes}+more");
            assert_eq!(next(more.as_bytes()).unwrap(), Some((reply, bytes.len())), "{bytes:?}");
        }
        let error = next(b"-WRONGTYPE of another kind\r\n").unwrap().unwrap().0;
        let Reply::Other(Value::ServerError(error)) = error else { panic!("{error:?}") };
        assert_eq!(error.code(), "WRONGTYPE");
        for bytes in ["\r\n", "?1\r\n", "$x\r\n", "*1\r\n?\r\n"] {
            assert!(next(bytes.as_bytes()).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_never_panics(bytes in prop::collection::vec(
            prop::sample::select(b"*$:+-%|~>_=!,(#\r\n0123456789a".to_vec()), 0..60)
        ) {
            if let Ok(Some((_, length))) = next(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }

        #[test]
        fn five_numbers_are_read_as_the_library_reads_them(numbers: [i64; 5]) {
            let mut bytes = b"*5\r\n".to_vec();
            for number in numbers {
                bytes.extend_from_slice(format!(":{number}\r\n").as_bytes());
            }
            let value = parse_redis_value(&bytes).unwrap();
            prop_assert_eq!(&value, &Value::Array(numbers.map(Value::Int).to_vec()));
            let read = next(&bytes).unwrap().unwrap();
            // The least of all numbers has no opposite, and is left to the library.
            let expected = if numbers.contains(&i64::MIN) { Reply::Other(value) }
                else { Reply::Figures(numbers) };
            prop_assert_eq!(read, (expected, bytes.len()));
        }
    }

    #[tokio::test]
    async fn answers_find_those_who_asked_and_the_end_finds_all() {
        let (near, mut far) = duplex(1024);
        let (wire, driver) = Wire::new(near, None);
        let driver = tokio::spawn(driver);
        let [first, second, third] = [(); 3].map(|()| wire.send(&redis::cmd("PING")));
        let mut sent = [0; 3 * 14];
        far.read_exact(&mut sent).await.unwrap();
        assert_eq!(sent.as_slice(), b"*1\r\n$4\r\nPING\r\n".repeat(3));
        drop(second);
        far.write_all(b":1\r\n:2\r\n:").await.unwrap();
        assert_eq!(first.await.unwrap(), Reply::Other(Value::Int(1)));
        drop(far);
        assert!(third.await.is_err());
        driver.await.unwrap();
        assert!(wire.ask(&redis::cmd("PING")).await.is_err());
    }
}
