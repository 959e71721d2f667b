//! What the gRPC listener answers: the method that Envoy calls for every request, straight on
//! hyper's HTTP/2; health and reflection, which are called now and then, by tonic.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body as Page;
use axum::http::{Request, Response};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use tokio::time::timeout;
use tonic::Status;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tower_service::Service as _;

use super::frame::{self, Reply};
use super::{NAME, PATH, reflection};
use crate::intake::{self, Bounded, Held, Unread};
use crate::metrics::{Outcome, Requests, Route};
use crate::proto::{RateLimitRequest, RateLimitResponse};
use crate::redis::Redis;
use crate::service::Service;

/// Bytes of a request.
const LARGEST: usize = 64 << 10;

/// Answers calls. Clones share everything.
#[derive(Clone, Debug)]
pub struct Calls {
    service: Arc<Service>,
    redis: Redis,
    requests: Arc<Requests>,
    health: HealthReporter,
    others: Router,
}

impl Calls {
    /// The calls of one worker.
    ///
    /// # Errors
    /// When the messages cannot be described, which would be a mistake in their tables.
    pub fn new(service: Arc<Service>, redis: Redis) -> io::Result<Self> {
        let health = HealthReporter::new();
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .register_file_descriptor_set(reflection::files())
        };
        let service_of_health = HealthService::from_health_reporter(health.clone());
        let others = Routes::new(HealthServer::new(service_of_health))
            .add_service(reflection().build_v1().map_err(io::Error::other)?)
            .add_service(reflection().build_v1alpha().map_err(io::Error::other)?)
            .into_axum_router();
        let requests = Arc::new(service.metrics.requests(Route::Rls));
        Ok(Self { service, redis, requests, health, others })
    }

    /// Tells who asks for health, and who watches it, that calls are answered until the
    /// service is about to end. Ends then.
    pub async fn tell_health(&self) {
        self.set_health(ServingStatus::Serving).await;
        self.service.ended().await;
        self.set_health(ServingStatus::NotServing).await;
    }

    async fn set_health(&self, status: ServingStatus) {
        for name in ["", NAME] {
            self.health.set_service_status(name, status).await;
        }
    }

    /// Answers one.
    ///
    /// # Errors
    /// None: what goes wrong is a status.
    pub async fn call(
        mut self,
        request: Request<Incoming>,
    ) -> Result<Response<Either>, Infallible> {
        if request.uri().path() == PATH {
            let traces = self.service.traces.as_ref();
            let span = traces.and_then(|traces| traces.begin(request.headers()));
            let response = match self.read(request.into_body()).await {
                Ok((message, _held)) => {
                    super::decide(&self.service, &self.redis, &self.requests, &message, span).await
                }
                Err((status, result)) => {
                    self.requests.count(result);
                    Err(status)
                }
            };
            return Ok(frame::response(response).map(Either::Reply));
        }
        let (parts, body) = request.into_parts();
        let body = match Bounded::new(body, LARGEST, &self.service.bodies) {
            Ok(body) => body.map_err(unread),
            Err(why) => return Ok(refusal(unread(why))),
        };
        let request = Request::from_parts(parts, Page::new(body));
        // A watch of health begins to answer at once, too, and is open for as long as it likes.
        let patience = self.service.config.client_timeout;
        match timeout(patience, Box::pin(self.others.call(request))).await {
            Ok(response) => Ok(response?.map(Either::Page)),
            Err(_) => Ok(refusal(late())),
        }
    }

    /// The message of a request, with what it holds of the bytes that all may, or why there is none
    /// and what that counts as.
    async fn read(&self, body: Incoming) -> Result<(RateLimitRequest, Held), (Status, Outcome)> {
        let body = intake::read(body, LARGEST, &self.service.bodies);
        let held = match timeout(self.service.config.client_timeout, body).await {
            Ok(Ok(held)) => held,
            Ok(Err(Unread::NoRoom)) => return Err((unread(Unread::NoRoom), Outcome::Unavailable)),
            Ok(Err(why)) => return Err((unread(why), Outcome::Invalid)),
            Err(_) => return Err((late(), Outcome::Invalid)),
        };
        match frame::message(&held.bytes) {
            Ok(message) => Ok((message, held)),
            Err(status) => Err((status, Outcome::Invalid)),
        }
    }
}

fn refusal(status: Status) -> Response<Either> {
    frame::response::<RateLimitResponse>(Err(status)).map(Either::Reply)
}

fn late() -> Status {
    Status::deadline_exceeded("the request came too slowly")
}

fn unread(why: Unread) -> Status {
    match why {
        Unread::TooLong => {
            Status::resource_exhausted(format!("the request is larger than {LARGEST} bytes"))
        }
        Unread::NoRoom => Status::resource_exhausted(why.to_string()),
        Unread::BrokenOff => Status::cancelled("the request broke off"),
    }
}

/// The body of a response.
#[derive(Debug)]
pub enum Either {
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
