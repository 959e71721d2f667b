//! Errors as RFC 9457 has them: `application/problem+json`.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::metrics::Outcome;

/// What went wrong, for programs and for people. [`IntoResponse`] leaves the body to be written by
/// [`super::observe`], which knows the request's id.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    /// A URI that names the kind.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The kind in words.
    pub title: &'static str,
    /// The status code of the response.
    #[serde(serialize_with = "number")]
    pub status: StatusCode,
    /// What was wrong this time.
    pub detail: String,
    /// This occurrence: `urn:request:` and the request's id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// The limits that refused, by name.
    #[serde(rename = "violated-policies", skip_serializing_if = "Vec::is_empty")]
    pub violated_policies: Vec<String>,
    /// What the bucket holds, where one was asked for.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<super::v1::Bucket>,
    /// How the request is counted.
    #[serde(skip)]
    pub outcome: Outcome,
}

fn number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    /// One that its status says all about.
    fn plain(status: StatusCode, detail: String, outcome: Outcome) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status,
            detail,
            instance: String::new(),
            violated_policies: Vec::new(),
            bucket: None,
            outcome,
        }
    }

    /// A request that cannot be read, or has no sense.
    #[must_use]
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::plain(StatusCode::BAD_REQUEST, detail.into(), Outcome::Invalid)
    }

    /// Another status that says that the request was wrong.
    #[must_use]
    pub fn wrong(status: StatusCode, detail: impl Into<String>) -> Self {
        Self::plain(status, detail.into(), Outcome::Invalid)
    }

    /// A caller who has not shown, or cannot have, what he would need.
    #[must_use]
    pub fn denied(status: StatusCode, detail: impl Into<String>) -> Self {
        Self::plain(status, detail.into(), Outcome::Denied)
    }

    /// The server that everything is in could not be asked.
    #[must_use]
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::plain(StatusCode::SERVICE_UNAVAILABLE, detail.into(), Outcome::Failed)
    }

    /// A mistake of this program.
    #[must_use]
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::plain(StatusCode::INTERNAL_SERVER_ERROR, detail.into(), Outcome::Failed)
    }

    /// Limits refuse.
    #[must_use]
    pub fn quota_exceeded(limits: Vec<String>) -> Self {
        Self {
            kind: "https://iana.org/assignments/http-problem-types#quota-exceeded",
            title: "Request cannot be satisfied as assigned quota has been exceeded",
            violated_policies: limits,
            ..Self::plain(StatusCode::TOO_MANY_REQUESTS, String::new(), Outcome::Limited)
        }
    }

    /// Limits that could not be asked refuse.
    #[must_use]
    pub fn reduced_capacity(limits: Vec<String>) -> Self {
        Self {
            kind: "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
            title: "Request cannot be satisfied due to temporary server capacity constraints",
            detail: "the server that keeps the limits cannot be reached".to_owned(),
            violated_policies: limits,
            ..Self::plain(StatusCode::SERVICE_UNAVAILABLE, String::new(), Outcome::Failed)
        }
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> Body {
        match serde_json::to_vec(self) {
            Ok(mut text) => {
                text.push(b'\n');
                Body::from(text)
            }
            Err(_) => Body::empty(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Nothing is there.
pub async fn not_found() -> Problem {
    Problem::wrong(StatusCode::NOT_FOUND, "there is nothing at this path")
}

/// Something is there, but for other methods. The router adds `Allow`.
pub async fn method_not_allowed() -> Problem {
    Problem::wrong(StatusCode::METHOD_NOT_ALLOWED, "this path is for other methods: see Allow")
}
