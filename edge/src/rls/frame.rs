//! gRPC's frames, for the one method that is called for every request: a message in, a message
//! and trailers out.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use prost::Message;
use tonic::Status;

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// The one message of a request's body.
///
/// # Errors
/// With gRPC's code for what is wrong with it.
pub fn message<M: Message + Default>(body: &[u8]) -> Result<M, Status> {
    let Some((&[is_compressed, a, b, c, d], message)) = body.split_first_chunk::<PREFIX>() else {
        return Err(Status::invalid_argument("the request has no message"));
    };
    if is_compressed != 0 {
        return Err(Status::unimplemented("messages are read uncompressed only"));
    }
    if usize::try_from(u32::from_be_bytes([a, b, c, d])) != Ok(message.len()) {
        return Err(Status::invalid_argument("the request is not one whole message"));
    }
    M::decode(message)
        .map_err(|error| Status::invalid_argument(format!("the message cannot be read: {error}")))
}

/// A response that has a message, or says why it has none.
pub fn response<M: Message>(result: Result<M, Status>) -> Response<Reply> {
    let (body, status) = match result.and_then(|message| framed(&message)) {
        Ok(message) => (Reply { message: Some(message), is_ended: false }, None),
        Err(status) => (Reply { message: None, is_ended: true }, Some(status)),
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if let Some(status) = status
        && let Err(status) = status.add_header(headers)
    {
        tracing::error!(%status, "a status cannot be written as a header");
    }
    response
}

/// A message as it is sent.
fn framed(message: &impl Message) -> Result<Bytes, Status> {
    let too_large = || Status::internal("the response is too large");
    let length = message.encoded_len();
    // A vector, since single bytes are what is written to it, and it takes them best.
    let mut frame = Vec::with_capacity(length.saturating_add(PREFIX));
    frame.push(0);
    frame.extend(u32::try_from(length).map_err(|_| too_large())?.to_be_bytes());
    message.encode(&mut frame).map_err(|_| too_large())?;
    Ok(frame.into())
}

/// The body of a response: a message, then trailers that say that all is well.
#[derive(Debug)]
pub struct Reply {
    message: Option<Bytes>,
    is_ended: bool,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(message) = self.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        if self.is_ended {
            return Poll::Ready(None);
        }
        self.is_ended = true;
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.message.is_none() && self.is_ended
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
