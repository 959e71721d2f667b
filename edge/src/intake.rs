//! The bodies of requests: each has a bound, and so have all together that are held at once.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};

use crate::seat::{Seat, Seats};

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is longer than it may be.
    TooLong,
    /// Too much is held already of other bodies.
    NoRoom,
    /// It ended before its end.
    BrokenOff,
}

impl fmt::Display for Unread {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::TooLong => "the body is too long",
            Self::NoRoom => "too much is being sent at once",
            Self::BrokenOff => "the body breaks off",
        })
    }
}

impl std::error::Error for Unread {}

/// A body that has a bound. What has come of it counts among what all may hold for as long as this
/// is kept: what has been announced does not, as that costs a client nothing.
#[derive(Debug)]
pub struct Bounded<B> {
    body: B,
    left: usize,
    held: Seat<Arc<Seats>>,
}

impl<B: Body<Data = Bytes> + Unpin> Bounded<B> {
    /// `body`, of at most so many bytes. `bodies` has a seat for each byte that is held.
    ///
    /// # Errors
    /// When it can be seen beforehand that there is no room for it.
    pub fn new(body: B, most: usize, bodies: &Arc<Seats>) -> Result<Self, Unread> {
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > most {
            return Err(Unread::TooLong);
        }
        if !body.is_end_stream() && !bodies.have(announced.max(1)) {
            return Err(Unread::NoRoom);
        }
        Ok(Self { body, left: most, held: Seat::none(Arc::clone(bodies)) })
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Bounded<B> {
    type Data = Bytes;
    type Error = Unread;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Unread>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            None => return Poll::Ready(None),
            Some(Err(_)) => return Poll::Ready(Some(Err(Unread::BrokenOff))),
            Some(Ok(frame)) => frame,
        };
        let length = frame.data_ref().map_or(0, Bytes::len);
        Poll::Ready(Some(match self.left.checked_sub(length) {
            None => Err(Unread::TooLong),
            Some(_) if !self.held.add(length) => Err(Unread::NoRoom),
            Some(left) => {
                self.left = left;
                Ok(frame)
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body that has been read. It counts among what all may hold until this is dropped.
#[derive(Debug)]
pub struct Held {
    /// All of it.
    pub bytes: Bytes,
    _held: Seat<Arc<Seats>>,
}

/// Reads a body of at most so many bytes.
///
/// # Errors
/// When there is no room for it, or not all of it comes.
pub async fn read<B: Body<Data = Bytes> + Unpin>(
    body: B,
    most: usize,
    bodies: &Arc<Seats>,
) -> Result<Held, Unread> {
    let mut body = Bounded::new(body, most, bodies)?;
    let mut bytes = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if bytes.is_empty() && rest.is_empty() && body.is_end_stream() {
            bytes = data;
        } else {
            // A part keeps alive all that came over the connection with it.
            rest.extend_from_slice(&data);
        }
    }
    if !rest.is_empty() {
        bytes = rest.freeze();
    }
    Ok(Held { bytes, _held: body.held })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use super::*;

    /// A body of these parts, of which it tells beforehand how long they are.
    struct Parts(VecDeque<&'static [u8]>, u64);

    impl Body for Parts {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let part = self.0.pop_front().map(Bytes::from_static);
            Poll::Ready(part.map(|part| Ok(Frame::data(part))))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }

        fn size_hint(&self) -> SizeHint {
            let mut hint = SizeHint::new();
            hint.set_lower(self.1);
            hint
        }
    }

    #[tokio::test]
    async fn what_is_read_and_what_is_not() {
        let bodies = Arc::new(Seats::new(10));
        let others = {
            let mut seat = Seat::none(Arc::clone(&bodies));
            assert!(seat.add(4));
            seat
        };
        type Row = (&'static [&'static [u8]], u64, Result<&'static [u8], Unread>);
        #[rustfmt::skip]
        let table: [Row; 12] = [
            (&[], 0, Ok(b"")),
            (&[b""], 0, Ok(b"")),
            (&[b"abc"], 3, Ok(b"abc")),
            (&[b"abc"], 0, Ok(b"abc")),
            (&[b"ab", b"", b"c"], 3, Ok(b"abc")),
            (&[b"", b"abc"], 3, Ok(b"abc")),
            (&[b"abc", b"def"], 0, Ok(b"abcdef")),
            (&[b"abc", b"defg"], 0, Err(Unread::NoRoom)),
            (&[b"abc"], 7, Err(Unread::NoRoom)),
            (&[b"abcdefghi"], 0, Err(Unread::TooLong)),
            (&[b"abcdefgh", b"i"], 0, Err(Unread::NoRoom)),
            (&[b"abc"], 9, Err(Unread::TooLong)),
        ];
        for (parts, announced, expected) in table {
            let body = Parts(parts.iter().copied().collect(), announced);
            let read = read(body, 8, &bodies).await;
            let length = read.as_ref().map_or(0, |read| read.bytes.len());
            assert_eq!(bodies.taken(), 4 + length, "{parts:?}");
            let bytes = read.as_ref().map(|read| &read.bytes[..]).map_err(|unread| *unread);
            assert_eq!(bytes, expected, "{parts:?}, {announced}");
        }
        assert_eq!(bodies.taken(), 4, "what is dropped is held no more");
        drop(others);
        assert_eq!(bodies.taken(), 0);
    }
}
