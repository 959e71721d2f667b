//! What is served over HTTP.

pub mod auth;
pub mod body;
pub mod events;
pub mod fields;
pub mod limited;
pub mod observe;
pub mod ops;
pub mod places;
pub mod problem;
pub mod proxy;
pub mod rating;
pub mod request_id;
pub mod server;
pub mod v1;

use std::borrow::Cow;
use std::convert::Infallible;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{MethodRouter, any, delete, get, post};
use hyper::body::Incoming;
use tokio::time::Instant;
use tower_service::Service as _;

use self::observe::Seen;
use self::proxy::Upstream;
use crate::client;
use crate::limits::{Facts, Limits, facts};
use crate::metrics::Route;
use crate::ratings::Ratings;
use crate::redis::Redis;
use crate::service::Service;

/// What every handler of a worker has at hand. It is cloned for every request, so it counts
/// nothing that workers share.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// What an [`App`] is made of.
pub struct Parts {
    /// What all workers share.
    pub service: Arc<Service>,
    /// The worker's connection.
    pub redis: Redis,
    /// What users think of items.
    pub ratings: Ratings,
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl App {
    /// For one worker.
    #[must_use]
    pub fn new(service: Arc<Service>, redis: Redis) -> Self {
        let ratings = Ratings::new(&service.config, redis.clone());
        Self(Arc::new(Parts { service, redis, ratings }))
    }

    /// Who sent a request, past the proxies that are believed.
    #[must_use]
    pub fn client(&self, peer: Peer, headers: &HeaderMap) -> IpAddr {
        client::address(peer.0, headers, &self.service.config.trusted_proxies)
    }
}

/// Routes: a path, the name by which it is counted, and what answers there.
pub type Routes = Vec<(&'static str, Route, MethodRouter<App>)>;

/// The routes of `HTTP_ADDR`, with the names by which they are counted.
pub fn routes() -> Routes {
    vec![
        ("/rating", Route::Rating, post(rating::rate)),
        ("/ratings", Route::Rating, post(rating::rate)),
        ("/rating/{user}/{item}", Route::RatingRead, get(rating::of_user)),
        ("/items/{item}", Route::ItemRead, get(rating::of_item)),
        ("/users/{user}", Route::UserDelete, delete(rating::forget)),
        ("/api/v1/event", Route::Event, post(events::tell)),
        ("/v1/check", Route::Check, post(v1::check)),
        ("/v1/take", Route::Take, post(v1::take)),
        ("/v1/give", Route::Give, post(v1::give)),
        ("/v1/settle", Route::Settle, post(v1::settle)),
        ("/v1/done", Route::Done, post(v1::done)),
    ]
}

/// The path that a proxy asks for each request of somebody else's service. It has no route:
/// [`Front`] answers it without going through the router, which is a fifth of its instructions.
pub const AUTH: &str = "/auth";

/// What answers at `HTTP_ADDR`. Clones share everything.
#[derive(Clone)]
pub struct Front(Arc<Entrance>);

struct Entrance {
    app: App,
    auth: Seen,
    others: Router,
}

impl Front {
    /// For one worker.
    #[must_use]
    pub fn new(app: App) -> Self {
        let auth = Seen::new(&app, Route::Auth);
        let others = build(app.clone(), routes());
        Self(Arc::new(Entrance { app, auth, others }))
    }

    /// Answers one request.
    ///
    /// # Errors
    /// None: what goes wrong is a response.
    pub async fn answer(self, request: hyper::Request<Incoming>) -> Result<Response, Infallible> {
        let request = request.map(Body::new);
        let Entrance { app, auth, others } = &*self.0;
        if request.uri().path() == AUTH {
            let decide = |request| auth::decide(app, request);
            return Ok(observe::observe(auth, request, decide).await);
        }
        Box::pin(others.clone().call(request)).await
    }
}

/// What answers at `PROXY_ADDR`. Clones share everything.
#[derive(Clone)]
pub struct Proxy(Arc<(App, Seen, Upstream)>);

impl Proxy {
    /// For one worker.
    #[must_use]
    pub fn new(app: App, upstream: Upstream) -> Self {
        let seen = Seen::new(&app, Route::Proxy);
        Self(Arc::new((app, seen, upstream)))
    }

    /// Answers one request.
    ///
    /// # Errors
    /// None: what goes wrong is a response.
    pub async fn answer(self, request: hyper::Request<Incoming>) -> Result<Response, Infallible> {
        let (app, seen, upstream) = &*self.0;
        let hand_on = |request| proxy::hand_on(app, upstream, request);
        Ok(observe::observe(seen, request.map(Body::new), hand_on).await)
    }
}

/// A router of `routes` in which every answer is counted, and every error is a problem.
fn build(app: App, routes: Routes) -> Router {
    let seen = |route| from_fn_with_state(Arc::new(Seen::new(&app, route)), observe::layer);
    let mut router = Router::new();
    for (path, route, handlers) in routes {
        router = router.route(path, handlers.layer(seen(route)));
    }
    let unknown = any(problem::not_found).layer(seen(Route::Unknown));
    router.fallback_service(unknown.with_state(app.clone())).with_state(app)
}

/// The address at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// The address at the other end of the connection of a request.
///
/// # Errors
/// When the server has not told it, which is a mistake of this program.
pub fn peer(request: &Request) -> Result<Peer, problem::Problem> {
    let peer = request.extensions().get::<Peer>().copied();
    peer.ok_or_else(|| problem::Problem::internal("a connection without a peer"))
}

/// A header that is not empty.
fn value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    headers.get(name).map(HeaderValue::as_bytes).filter(|value| !value.is_empty())
}

/// A header that is a text and not empty.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    value(headers, name).and_then(|value| str::from_utf8(value).ok())
}

/// The user that a request names in the field that `USER_HEADER` names. Whoever is named by no text
/// is named, too.
fn named_user<'a>(app: &App, headers: &'a HeaderMap) -> Result<Option<&'a [u8]>, problem::Problem> {
    let Some(field) = &app.service.config.user_header else { return Ok(None) };
    if let Some(user) = text(headers, field) {
        body::check_name("the header of the user", user)?;
    }
    Ok(value(headers, field))
}

/// The path of a URI as limits see it, however it was written: letters that need no escape are not
/// escaped, all that is no visible ASCII is, slashes are not doubled, and `.` and `..` are resolved, as RFC 3986 (6.2.2) has it
/// and most servers do before they look at it. What follows a `?` or a `#` goes.
#[must_use]
pub fn path(sent: &[u8]) -> Cow<'_, str> {
    let path = sent.split(|byte| b"?#".contains(byte)).next().unwrap_or_default();
    let path = facts::escaped(path);
    if !path.contains('%') && !path.contains("//") && !path.contains("/.") {
        return path;
    }
    let decoded = decoded(&path);
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let is_folder = decoded.ends_with('/') || decoded.ends_with("/.") || decoded.ends_with("/..");
    let mut path = String::with_capacity(decoded.len());
    for segment in &segments {
        path.push('/');
        path.push_str(segment);
    }
    if is_folder || segments.is_empty() {
        path.push('/');
    }
    Cow::Owned(path)
}

/// A path in which only those letters are escaped that have to be.
fn decoded(path: &str) -> String {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        decoded.push_str(before);
        let digits =
            after.get(..2).filter(|two| two.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                decoded.push(char::from(byte));
                rest = after.get(2..).unwrap_or_default();
            }
            Some(byte) => {
                decoded.push_str(&format!("%{byte:02X}"));
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                decoded.push('%');
                rest = after;
            }
        }
    }
    decoded.push_str(rest);
    decoded
}

/// What limits may know of a request, with the weight of its user's bucket where they go by it.
pub async fn weighed<'a>(
    app: &App,
    limits: &Limits,
    facts: Facts<'a>,
    deadline: Instant,
) -> Facts<'a> {
    match limits.weighed(&facts) {
        Some(key) => Facts { weight: app.redis.weight(&key, deadline).await, ..facts },
        None => facts,
    }
}

/// The host that a request is for, without a port, in small letters and without the dot that may
/// end it: all of these are one host.
#[must_use]
pub fn host(named: Option<&str>) -> Cow<'_, str> {
    let named = named.unwrap_or_default();
    let host = match named.rsplit_once(':') {
        // In an IPv6 address there are more of them.
        Some((host, _)) if !host.contains(':') || host.ends_with(']') => host,
        _ => named,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    match host.bytes().any(|letter| letter.is_ascii_uppercase()) {
        true => Cow::Owned(host.to_ascii_lowercase()),
        false => Cow::Borrowed(host),
    }
}

/// Whether a request comes from this machine, under a name of this machine that no server of names
/// gives, and says of no proxy that has handed it on. A page from elsewhere that has a browser come
/// here has another name; a proxy that says nothing of itself and calls this by an address of
/// loopback cannot be told apart.
///
/// # Errors
/// When the server has not told who is at the other end.
pub fn is_local(request: &Request) -> Result<bool, problem::Problem> {
    const HANDED_ON: [&str; 7] = [
        "forwarded",
        "via",
        "x-real-ip",
        "x-client-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "x-envoy-external-address",
    ];
    let is_handed_on = request.headers().keys().any(|name| {
        name.as_str().starts_with("x-forwarded-") || HANDED_ON.contains(&name.as_str())
    });
    Ok(!is_handed_on
        && is_own_name(&host(named_host(request)))
        && peer(request)?.0.to_canonical().is_loopback())
}

/// The host that a request names: HTTP/2 has it in the URI.
#[must_use]
pub fn named_host(request: &Request) -> Option<&str> {
    let field = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    field.or_else(|| request.uri().authority().map(axum::http::uri::Authority::as_str))
}

fn is_own_name(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_the_same_however_they_are_written() {
        for (sent, seen) in [
            ("/api/x", "/api/x"),
            ("/api/x?a=//b", "/api/x"),
            ("/api/x#a", "/api/x"),
            ("/api/x#a?b", "/api/x"),
            ("/api/x?a#b", "/api/x"),
            ("/api/%23", "/api/%23"),
            ("/", "/"),
            ("", ""),
            ("/api/", "/api/"),
            ("/%61pi/x", "/api/x"),
            ("//api//x", "/api/x"),
            ("/./api/./x", "/api/x"),
            ("/a/../api/x", "/api/x"),
            ("/%2e%2E/api/x", "/api/x"),
            ("/../..", "/"),
            ("/api/..", "/"),
            ("/api/x/.", "/api/x/"),
            ("/.well-known/a", "/.well-known/a"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%20b", "/a%20b"),
            ("/%", "/%"),
            ("/%4", "/%4"),
            ("/%zz%41", "/%zzA"),
            ("/%+1", "/%+1"),
            ("/%c3%A9", "/%C3%A9"),
            ("/\u{e9}", "/%C3%A9"),
            ("/a\u{e9}/../b", "/b"),
            ("/\t", "/%09"),
            ("/a b", "/a%20b"),
            ("/a...b/x", "/a...b/x"),
            ("/..a/x", "/..a/x"),
        ] {
            assert_eq!(path(sent.as_bytes()), seen, "{sent}");
        }
        assert_eq!(path(b"/\xe9"), "/%E9");
    }

    #[test]
    fn hosts_are_the_same_however_they_are_written() {
        for (named, seen) in [
            (None, ""),
            (Some("a.org"), "a.org"),
            (Some("A.Org:443"), "a.org"),
            (Some("a.org."), "a.org"),
            (Some("a.org.:80"), "a.org"),
            (Some("[::1]:80"), "[::1]"),
            (Some("[::1]"), "[::1]"),
            (Some("::1"), "::1"),
        ] {
            assert_eq!(host(named), seen, "{named:?}");
        }
    }

    #[test]
    fn names_of_this_machine() {
        for (name, is_own) in [
            ("localhost", true),
            ("LOCALHOST", true),
            ("127.0.0.1", true),
            ("127.8.8.8", true),
            ("[::1]", true),
            ("", false),
            ("localhost.example", false),
            ("10.0.0.1", false),
            ("127.0.0.1.example", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(is_own_name(name), is_own, "{name}");
        }
    }
}
