//! What limits may know of a request that came over HTTP.

use std::borrow::Cow;
use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use serde::Deserialize;
use serde_json::Value;

/// Where a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// The rating API.
    Rating,
    /// Forward authentication.
    Auth,
    /// What is handed on to the backend.
    Proxy,
}

/// What limits may know of a request that came over HTTP. For forward authentication it is the
/// request that the proxy asks about, not the one that it asks with.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Where it came in.
    pub route: Route,
    /// `GET`, `POST`, ..
    pub method: &'a str,
    /// The path, without what follows a `?`.
    pub path: &'a str,
    /// The host, without a port.
    pub host: &'a str,
    /// Who sent it, if that is known: see [`crate::client`].
    pub client: Option<IpAddr>,
    /// Its header fields.
    pub headers: &'a HeaderMap,
    /// Its body, if it is JSON.
    pub body: Option<&'a Value>,
    /// The user, if it names one. Whoever names none is told apart by his address, and not let
    /// through for that.
    pub user: Option<&'a [u8]>,
    /// The weight of its user's bucket, where a limit goes by it ([`Limits::weighed`]) and it is known.
    ///
    /// [`Limits::weighed`]: super::Limits::weighed
    pub weight: Option<u64>,
}

/// What is no visible ASCII.
const INVISIBLE: &AsciiSet = &CONTROLS.add(b' ');

/// A path with all that is no visible ASCII escaped, as most clients write it.
#[must_use]
pub fn escaped(path: &[u8]) -> Cow<'_, str> {
    percent_encode(path, INVISIBLE).into()
}

impl Facts<'_> {
    /// The value of a header field. It need not be text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.get(name).map(HeaderValue::as_bytes)
    }

    /// The text of a field of the body: names of objects, joined by dots.
    #[must_use]
    pub fn json(&self, path: &str) -> Option<Cow<'_, str>> {
        match path.split('.').try_fold(self.body?, |value, name| value.get(name))? {
            Value::String(text) => Some(Cow::Borrowed(text)),
            Value::Number(number) => Some(Cow::Owned(number.to_string())),
            Value::Bool(flag) => Some(Cow::Borrowed(if *flag { "true" } else { "false" })),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}
