//! `PROXY_ADDR`: what passes the limits is handed on to one backend, `UPSTREAM`, and its answer is
//! handed back. This is where a limit sees most of its backend: how many requests are in flight
//! there, and how long each of them takes.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::uri::{Authority, PathAndQuery, Scheme};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, Version, header};
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

use super::places::{self, Place};
use super::problem::Problem;
use super::{App, limited};
use crate::decide::Plan;
use crate::limits::{Facts, Route};
use crate::redis::health::locked;
use crate::tls;

/// How long a connection to the backend is kept without a request.
const IDLE: Duration = Duration::from_secs(30);

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What concerns one connection alone, and is not handed on (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The way to the backend. Clones share connections.
#[derive(Clone)]
pub struct Upstream {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    scheme: Scheme,
    authority: Authority,
}

impl Upstream {
    /// The backend of the settings, for one worker.
    ///
    /// # Errors
    /// When it is no address that can be reached by HTTP.
    pub fn new(uri: &Uri) -> Result<Self, String> {
        let wrong = || format!("UPSTREAM: '{uri}' is not as http://host:port or https://host");
        let scheme = uri.scheme().filter(|it| **it == Scheme::HTTP || **it == Scheme::HTTPS);
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        if path != "/" {
            return Err(wrong());
        }
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(tls::https()?);
        Ok(Self {
            client,
            scheme: scheme.ok_or_else(wrong)?.clone(),
            authority: uri.authority().ok_or_else(wrong)?.clone(),
        })
    }
}

/// Decides about a request, and hands it on.
///
/// # Errors
/// When it is refused or cannot be read, and when the backend does not answer.
pub async fn hand_on(
    app: &App,
    upstream: &Upstream,
    request: Request,
) -> Result<Response, Problem> {
    let peer = super::peer(&request)?;
    let client = app.client(peer, request.headers());
    let deadline = app.redis.deadline();
    let (charges, wanted) = {
        let headers = request.headers();
        let path = super::path(request.uri().path().as_bytes());
        let host = super::host(super::named_host(&request));
        let facts = Facts {
            route: Route::Proxy,
            method: request.method().as_str(),
            path: &path,
            host: &host,
            client: Some(client),
            headers,
            body: None,
            user: super::named_user(app, headers)?,
            weight: None,
        };
        let limits = app.service.limits.load_full();
        let facts = super::weighed(app, &limits, facts, deadline).await;
        let charges = limits.of_request(&facts);
        let wanted = places::wanted(&charges, |adaptive| adaptive.kept(&facts));
        (charges, wanted)
    };
    places::look(app, &wanted)?;
    let verdict = app.redis.charge(Plan::new(charges), deadline).await;
    if !verdict.allowed {
        return Ok(limited::respond(app, &verdict, ()));
    }
    let places = places::enter(app, &wanted, &verdict).await?;
    let patience = app.service.config.upstream_timeout;
    let (request, sender) = Sending::watch(outgoing(app, upstream, peer, request)?);
    let mut flight =
        Flight { places, begin: Instant::now(), sender, app: app.clone(), is_told: false };
    let answer = match timeout(patience, upstream.client.request(request)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) | Err(_) if flight.sender().is_at_fault() => {
            flight.is_told = true;
            return Err(Problem::wrong(
                StatusCode::REQUEST_TIMEOUT,
                "the body of the request broke off, or did not come in time",
            ));
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "the backend did not answer");
            flight.tell(true);
            return Err(Problem::upstream(
                StatusCode::BAD_GATEWAY,
                "the backend cannot be reached",
            ));
        }
        Err(_) => {
            flight.tell(true);
            let detail = "the backend did not answer in time";
            return Err(Problem::upstream(StatusCode::GATEWAY_TIMEOUT, detail));
        }
    };
    // Nobody asked it to speak another protocol.
    let is_lost = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    flight.tell(is_lost || answer.status().is_server_error());
    if is_lost {
        let detail = "the backend wants to speak another protocol";
        return Err(Problem::upstream(StatusCode::BAD_GATEWAY, detail));
    }
    let (mut head, body) = answer.into_parts();
    without_hops(&mut head.headers);
    // HTTP/1.0 of a backend is not that of this service.
    head.version = Version::default();
    let body = Flowing { body: body.map_err(axum::Error::new).boxed_unsync(), _flight: flight };
    let response = Response::from_parts(head, Body::new(body));
    Ok(limited::with_fields(app, &verdict, response))
}

/// The request as the backend gets it.
fn outgoing(
    app: &App,
    upstream: &Upstream,
    peer: super::Peer,
    mut request: Request,
) -> Result<Request, Problem> {
    let Some(path) = request.uri().path_and_query().cloned() else {
        return Err(Problem::invalid("there is no path to ask the backend for"));
    };
    let host = super::named_host(&request).and_then(|host| HeaderValue::from_str(host).ok());
    let mut uri = axum::http::uri::Parts::default();
    uri.scheme = Some(upstream.scheme.clone());
    uri.authority = Some(upstream.authority.clone());
    uri.path_and_query = Some(path);
    *request.uri_mut() =
        Uri::from_parts(uri).map_err(|error| Problem::internal(error.to_string()))?;
    *request.version_mut() = Version::HTTP_11;
    let is_chunked = request.body().size_hint().exact().is_none();
    let headers = request.headers_mut();
    without_hops(headers);
    if is_chunked {
        // Of GET and HEAD the client believes no body without it.
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if let Some(host) = host {
        headers.insert(header::HOST, host);
    }
    one_cookie(headers);
    let is_trusted = app.service.config.trusted_proxies.iter().any(|it| it.contains(peer.0));
    let before = headers.get_all(FORWARDED_FOR).iter().filter(|_| is_trusted);
    let mut chain = before.filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(", ");
    if !chain.is_empty() {
        chain.push_str(", ");
    }
    chain.push_str(&peer.0.to_canonical().to_string());
    if let Ok(chain) = HeaderValue::try_from(chain) {
        headers.insert(FORWARDED_FOR, chain);
    }
    Ok(request)
}

/// Puts cookies together, which HTTP/2 in front may have sent apart: many servers read but one field
/// (RFC 9113, 8.2.3).
fn one_cookie(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(cookie) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, cookie);
    }
}

/// Removes what concerns one connection alone.
fn without_hops(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// What a client has let the backend wait for.
#[derive(Debug, Default)]
struct Sender {
    /// Since when more of the body is waited for.
    since: Option<Instant>,
    /// For how long all together, before that.
    waited: Duration,
    is_broken: bool,
}

impl Sender {
    /// Whether what is lacking for an answer is the client's to send.
    fn is_at_fault(&self) -> bool {
        self.is_broken || self.since.is_some()
    }

    fn waited(&self) -> Duration {
        self.waited.saturating_add(self.since.map_or(Duration::ZERO, |since| since.elapsed()))
    }
}

/// The request's body, on its way. How long a client takes to send it says nothing of the backend.
struct Sending {
    body: Body,
    sender: Arc<Mutex<Sender>>,
}

impl Sending {
    fn watch(request: Request) -> (Request, Arc<Mutex<Sender>>) {
        let sender = Arc::<Mutex<Sender>>::default();
        let watched = request.map(|body| match body.is_end_stream() {
            true => body,
            false => Body::new(Self { body, sender: Arc::clone(&sender) }),
        });
        (watched, sender)
    }
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        let mut sender = locked(&self.sender);
        match &frame {
            Poll::Pending => {
                sender.since.get_or_insert_with(Instant::now);
            }
            Poll::Ready(frame) => {
                sender.waited = sender.waited();
                sender.since = None;
                sender.is_broken |= matches!(frame, Some(Err(_)));
            }
        }
        drop(sender);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request that the backend has.
struct Flight {
    places: Vec<Place>,
    begin: Instant,
    sender: Arc<Mutex<Sender>>,
    app: App,
    is_told: bool,
}

impl Flight {
    fn sender(&self) -> MutexGuard<'_, Sender> {
        locked(&self.sender)
    }

    /// How long the backend has taken until now.
    fn took(&self) -> Duration {
        self.begin.elapsed().saturating_sub(self.sender().waited())
    }

    /// The backend has answered, or failed to.
    fn tell(&mut self, has_failed: bool) {
        let took = self.took();
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        for Place { slot, limit, sla } in &self.places {
            match has_failed {
                true => slot.meter().fail(),
                false => slot.meter().complete(us, took > *sla),
            }
            self.app.service.metrics.adaptive.took(limit, took);
        }
        self.is_told = true;
    }
}

impl Drop for Flight {
    /// Who asked has gone before there was an answer. That it took too long by then is known.
    fn drop(&mut self) {
        if !self.is_told && self.places.iter().any(|place| self.took() > place.sla) {
            self.tell(true);
        }
    }
}

/// The answer's body, on its way. Until its end the request is in flight.
struct Flowing {
    body: http_body_util::combinators::UnsyncBoxBody<Bytes, axum::Error>,
    _flight: Flight,
}

impl HttpBody for Flowing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
