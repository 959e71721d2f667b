//! The gRPC listener of one worker. The method that Envoy calls for every request is answered
//! straight on hyper's HTTP/2; health and reflection, which are called now and then, by tonic.

use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::TcpListener as StdListener;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body as Page;
use axum::http::{Request, Response};
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower_service::Service as _;

use super::frame::{self, Reply};
use super::{NAME, PATH, reflection};
use crate::redis::Redis;
use crate::service::Service;

/// Connections of one worker. A proxy has a few.
const MOST_CONNECTIONS: usize = 1_024;

/// Calls at once in one connection.
const MOST_CALLS: u32 = 1_024;

/// How long, after health has turned, new connections are still taken: who asks for health by
/// a new connection each time is to hear of it, and who has not heard yet is to be served.
const LAME: Duration = Duration::from_millis(500);

/// Serves what comes in at `listener` until the service ends, and what is open then for as long
/// as may be.
///
/// # Errors
/// When the listener cannot be used.
pub async fn accept(listener: StdListener, service: Arc<Service>, redis: Redis) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let health = HealthReporter::new();
    health.set_service_status(NAME, ServingStatus::Serving).await;
    let worker = Worker { service, redis, others: others(&health)? };
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut is_lame = pin!(async {
        worker.service.ended().await;
        for name in ["", NAME] {
            health.set_service_status(name, ServingStatus::NotServing).await;
        }
        sleep(LAME.min(worker.service.config.drain)).await;
    });
    loop {
        let accepted = tokio::select! {
            accepted = accept_one(&listener, &places) => accepted,
            () = &mut is_lame => break,
        };
        match accepted {
            Ok((stream, place)) => {
                let worker = worker.clone();
                tokio::spawn(async move {
                    worker.serve(stream).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Too many open files, most likely: give those that are open time to end.
                tracing::warn!(%error, "a connection was not accepted");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    // Every connection gives its place back.
    let all = u32::try_from(MOST_CONNECTIONS).unwrap_or(u32::MAX);
    if timeout(worker.service.config.drain, places.acquire_many(all)).await.is_err() {
        tracing::warn!("calls were still open at the end of DRAIN");
    }
    Ok(())
}

async fn accept_one(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

/// Health and reflection.
fn others(health: &HealthReporter) -> io::Result<Router> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_file_descriptor_set(reflection::files())
    };
    let health = tonic_health::server::HealthService::from_health_reporter(health.clone());
    Ok(Routes::new(tonic_health::pb::health_server::HealthServer::new(health))
        .add_service(reflection().build_v1().map_err(io::Error::other)?)
        .add_service(reflection().build_v1alpha().map_err(io::Error::other)?)
        .into_axum_router())
}

#[derive(Clone, Debug)]
struct Worker {
    service: Arc<Service>,
    redis: Redis,
    others: Router,
}

impl Worker {
    /// Serves one connection, until its client closes it, it is old, or the service ends.
    async fn serve(self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let config = &self.service.config;
        let (age, drain) = (old(config.grpc_max_connection_age), config.drain);
        let service = Arc::clone(&self.service);
        let mut server = http2::Builder::new(TokioExecutor::new());
        server
            .timer(TokioTimer::new())
            .max_concurrent_streams(MOST_CALLS)
            .max_header_list_size(16 << 10)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20));
        let calls = service_fn(move |request| self.clone().call(request));
        let mut connection = pin!(server.serve_connection(TokioIo::new(stream), calls));
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = is_old(age) => None,
            () = is_lame(&service) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                match timeout(drain, connection).await {
                    Ok(ended) => ended,
                    // What is open that long is a watch of health, and its client comes back.
                    Err(_) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection broke off");
        }
    }

    async fn call(mut self, request: Request<Incoming>) -> Result<Response<Either>, Infallible> {
        if request.uri().path() == PATH {
            let response = match frame::read(request.into_body()).await {
                Ok(message) => super::decide(&self.service, &self.redis, &message).await,
                Err(status) => {
                    super::count_invalid(&self.service);
                    Err(status)
                }
            };
            return Ok(frame::response(response).map(Either::Reply));
        }
        let response = self.others.call(request.map(Page::new)).await?;
        Ok(response.map(Either::Page))
    }
}

/// `age`, or a tenth more or less: connections that were made together do not end together.
fn old(age: Duration) -> Duration {
    let ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let spread = RandomState::new().hash_one(()).checked_rem(ms / 5).unwrap_or(0);
    Duration::from_millis(ms.saturating_sub(ms / 10).saturating_add(spread))
}

async fn is_old(age: Duration) {
    if age.is_zero() {
        return std::future::pending().await;
    }
    sleep(age).await;
}

/// Waits until the service has been told to end, and who asks for health has heard of it.
async fn is_lame(service: &Service) {
    service.ended().await;
    sleep(LAME.min(service.config.drain)).await;
}

/// The body of a response.
enum Either {
    /// Of the method that is called for every request.
    Reply(Reply),
    /// Of all others.
    Page(Page),
}

impl Body for Either {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.get_mut() {
            Self::Reply(reply) => Pin::new(reply)
                .poll_frame(context)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
            Self::Page(page) => Pin::new(page).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Reply(reply) => reply.is_end_stream(),
            Self::Page(page) => page.is_end_stream(),
        }
    }
}
