//! The connections of the gRPC listener of one worker: HTTP/2 alone, each for a bounded time.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::TcpListener as StdListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::connections::{FIELDS, PING, STREAMS};
use super::stall::Stalling;
use crate::rls::calls::Calls;
use crate::seat::{Seat, Seats};
use crate::service::Service;

/// Serves what comes in at `listener` until the service drains, and what is open then for as
/// long as may be. Connections beyond those that `room` has places for are closed.
///
/// # Errors
/// When the listener cannot be used.
pub async fn serve(
    listener: StdListener,
    calls: Calls,
    room: Arc<Seats>,
    service: &Arc<Service>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut open = JoinSet::new();
    let mut health = JoinSet::new();
    health.spawn({
        let calls = calls.clone();
        async move { calls.tell_health().await }
    });
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Too many open files, most likely: give those that are open time to end.
                    tracing::warn!(%error, "a connection was not accepted");
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            Some(_) = open.join_next() => continue,
            () = service.draining() => break,
        };
        match Seat::one(Arc::clone(&room)) {
            Some(place) => {
                open.spawn(connection(stream, calls.clone(), place, Arc::clone(service)));
            }
            None => service.no_room(),
        }
    }
    // Those who were let in by the kernel are served, rather than cut off with the listener.
    let last = Instant::now();
    while let Ok(Ok((stream, _))) = timeout_at(last, listener.accept()).await {
        if let Some(place) = Seat::one(Arc::clone(&room)) {
            open.spawn(connection(stream, calls.clone(), place, Arc::clone(service)));
        }
    }
    drop(listener);
    let rest = service.config.drain.saturating_sub(service.config.drain_notice);
    let all = async { while open.join_next().await.is_some() {} };
    if timeout(rest, all).await.is_err() {
        tracing::warn!("calls were still open at the end of DRAIN");
    }
    Ok(())
}

/// Serves one connection, until its client closes it, it is old, or the service drains.
async fn connection(
    stream: TcpStream,
    calls: Calls,
    _place: Seat<Arc<Seats>>,
    service: Arc<Service>,
) {
    let _ = stream.set_nodelay(true);
    let stream = TokioIo::new(Stalling::new(stream, service.config.client_timeout));
    let mut server = http2::Builder::new(TokioExecutor::new());
    server
        .timer(TokioTimer::new())
        // No client of gRPC asks for the date, and it is looked for in each response.
        .auto_date_header(false)
        .max_header_list_size(FIELDS)
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    // The future of a call is some thousand bytes, which hyper moves from hand to hand.
    let calls = service_fn(move |request| Box::pin(calls.clone().call(request)));
    let mut connection = pin!(server.serve_connection(stream, calls));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = is_old(service.config.grpc_max_connection_age) => {
            connection.as_mut().graceful_shutdown();
            // What is open for longer is a watch of health, whose client comes back.
            match timeout(service.config.drain, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
        () = service.draining() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}

/// Waits for about as long as a connection is used; for ever if that is no time at all.
async fn is_old(age: Duration) {
    if age.is_zero() {
        return std::future::pending().await;
    }
    sleep(spread(age)).await;
}

/// `age`, or up to a tenth more or less: connections that were made together do not end
/// together.
fn spread(age: Duration) -> Duration {
    let ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let more = RandomState::new().hash_one(()).checked_rem(ms / 5).unwrap_or(0);
    Duration::from_millis(ms.saturating_sub(ms / 10).saturating_add(more))
}
