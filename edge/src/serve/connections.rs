//! The connections of one listener: accepted, bounded in time and size, and let go in the end.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::{Service as Handler, service_fn};
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::stall::Stalling;
use crate::http::{Peer, observe};
use crate::seat::{Seat, Seats};
use crate::service::Service;

/// The fields of a request, at most, in bytes.
pub(super) const FIELDS: u32 = 16 * 1024;
/// Requests at once on one connection of HTTP/2.
pub(super) const STREAMS: u32 = 256;
/// How often a connection of HTTP/2 is asked for a sign of life, and how long for that.
pub(super) const PING: Duration = Duration::from_secs(20);

/// Serves what comes in at `listener`, as `server` does, until the service drains, and what is open
/// then for as long as may be. Connections beyond those that `room` has places for are closed.
///
/// # Errors
/// When the listener cannot be used.
pub async fn serve<H>(
    listener: StdListener,
    server: Builder<TokioExecutor>,
    handler: H,
    room: Arc<Seats>,
    service: Arc<Service>,
) -> io::Result<()>
where
    H: Handler<Request<Incoming>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    H::Future: Send,
{
    let listener = TcpListener::from_std(listener)?;
    let open = GracefulShutdown::new();
    let patience = service.config.client_timeout;
    let begin = |(stream, peer): (TcpStream, SocketAddr), place: Seat<Arc<Seats>>| {
        let _ = stream.set_nodelay(true);
        let stream = TokioIo::new(Stalling::new(stream, patience));
        let (handler, service) = (handler.clone(), Arc::clone(&service));
        let handler = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer.ip()));
            answer(handler.clone(), Arc::clone(&service), request)
        });
        let connection = open.watch(server.serve_connection(stream, handler).into_owned());
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "a connection broke off");
            }
            drop(place);
        });
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Too many open files, most likely: give those that are open time to end.
                    tracing::warn!(%error, "a connection was not accepted");
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = service.draining() => break,
        };
        match Seat::one(Arc::clone(&room)) {
            Some(place) => begin(accepted, place),
            None => service.no_room(),
        }
    }
    // Those who were let in by the kernel are served, rather than cut off with the listener.
    let last = Instant::now();
    while let Ok(Ok(accepted)) = timeout_at(last, listener.accept()).await {
        if let Some(place) = Seat::one(Arc::clone(&room)) {
            begin(accepted, place);
        }
    }
    drop(listener);
    let rest = service.config.drain.saturating_sub(service.config.drain_notice);
    if timeout(rest, open.shutdown()).await.is_err() {
        tracing::warn!("requests were still open at the end of DRAIN");
    }
    Ok(())
}

/// Connections of HTTP/1.1 and HTTP/2, of clients that are waited for as long as `patience`.
#[must_use]
pub fn server(patience: Duration) -> Builder<TokioExecutor> {
    let mut server = Builder::new(TokioExecutor::new());
    server
        .http1()
        // Most answers are small: head and body in one buffer cost the kernel less than two.
        .writev(false)
        .timer(TokioTimer::new())
        // From the end of the request before: a connection kept open without one is closed, too.
        .header_read_timeout(patience)
        .max_buf_size(usize::try_from(FIELDS).unwrap_or(usize::MAX));
    server
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(FIELDS)
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    server
}

/// The handler's response, if it has all of the request in time.
async fn answer<H>(
    handler: H,
    service: Arc<Service>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible>
where
    H: Handler<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
{
    let is_persistent = request.version() == Version::HTTP_11;
    let answer = timeout(service.config.client_timeout, handler.call(request)).await;
    let is_late = answer.is_err();
    let mut response = match answer {
        Ok(response) => response?,
        Err(_) => observe::request_timeout(),
    };
    // A client that is told so comes back on another connection, to somebody else.
    if is_persistent && (is_late || service.is_ending()) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}
