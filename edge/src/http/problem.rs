//! Errors as RFC 9457 has them: `application/problem+json`.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::v1::Bucket;
use crate::metrics::Outcome;
use crate::redis::Fault;

/// What went wrong. [`IntoResponse`] leaves the body to be written by [`super::observe`], which
/// knows the request's id.
#[derive(Clone, Debug)]
pub struct Problem {
    kind: Kind,
    /// The status code of the response.
    pub status: StatusCode,
    /// What was wrong this time.
    pub detail: String,
    /// The server's own words, which are for the log alone.
    pub cause: Option<String>,
    /// The limits that refused, by name.
    violated_policies: Vec<String>,
    /// What the bucket holds, where one was asked for.
    bucket: Option<Box<Bucket>>,
    /// How the request is counted.
    pub outcome: Outcome,
}

/// Problems that programs can tell apart by more than their status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    QuotaExceeded,
    ReducedCapacity,
}

/// What programs and people are told.
#[derive(Debug, Serialize)]
struct Body<'a> {
    /// A URI that names the kind.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The kind in words.
    title: &'a str,
    status: u16,
    detail: &'a str,
    /// This occurrence: `urn:request:` and the request's id.
    instance: String,
    #[serde(rename = "violated-policies", skip_serializing_if = "<[String]>::is_empty")]
    violated_policies: &'a [String],
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    bucket: Option<&'a Bucket>,
}

impl Problem {
    /// One that its status says all about.
    fn plain(status: StatusCode, detail: String, outcome: Outcome) -> Self {
        let violated_policies = Vec::new();
        Self {
            kind: Kind::Plain,
            status,
            detail,
            cause: None,
            violated_policies,
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
        Self::plain(StatusCode::SERVICE_UNAVAILABLE, detail.into(), Outcome::Unavailable)
    }

    /// A server did not do as it was told, and said why.
    #[must_use]
    pub fn refused(what: &str, cause: &str) -> Self {
        let detail = format!("the server that keeps the {what} refused: see the log");
        Self { cause: Some(cause.to_owned()), ..Self::unavailable(detail) }
    }

    /// The server that keeps something refused, or did not answer: then with this advice.
    #[must_use]
    pub fn of_fault(fault: &Fault, what: &str, advice: &str) -> Self {
        match fault {
            Fault::Refused { text, .. } => Self::refused(what, text),
            _ => Self::unavailable(format!(
                "the server that keeps the {what} did not answer{advice}"
            )),
        }
    }

    /// A mistake of this program.
    #[must_use]
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::plain(StatusCode::INTERNAL_SERVER_ERROR, detail.into(), Outcome::Unavailable)
    }

    /// Limits refuse.
    #[must_use]
    pub fn quota_exceeded(limits: Vec<String>, detail: String) -> Self {
        Self {
            kind: Kind::QuotaExceeded,
            violated_policies: limits,
            ..Self::plain(StatusCode::TOO_MANY_REQUESTS, detail, Outcome::Limited)
        }
    }

    /// Tells what a bucket holds.
    #[must_use]
    pub fn with_bucket(self, bucket: Option<Bucket>) -> Self {
        Self { bucket: bucket.map(Box::new), ..self }
    }

    /// Limits that could not be asked refuse.
    #[must_use]
    pub fn reduced_capacity(limits: Vec<String>) -> Self {
        Self {
            kind: Kind::ReducedCapacity,
            detail: "the server that keeps the limits cannot be reached".to_owned(),
            violated_policies: limits,
            ..Self::plain(StatusCode::SERVICE_UNAVAILABLE, String::new(), Outcome::Unavailable)
        }
    }

    /// As many requests are in flight as a limit lets be.
    #[must_use]
    pub fn busy(limit: String) -> Self {
        Self {
            detail: "as many requests are in flight as the backend can take".to_owned(),
            outcome: Outcome::Limited,
            ..Self::reduced_capacity(vec![limit])
        }
    }

    /// The backend did not answer.
    #[must_use]
    pub fn upstream(status: StatusCode, detail: &str) -> Self {
        Self::plain(status, detail.to_owned(), Outcome::Unavailable)
    }

    /// The body, of the request with this id.
    pub fn body(&self, id: &str) -> axum::body::Body {
        let (kind, title) = match self.kind {
            Kind::Plain => ("about:blank", self.status.canonical_reason().unwrap_or("Error")),
            Kind::QuotaExceeded => (
                "https://iana.org/assignments/http-problem-types#quota-exceeded",
                "Request cannot be satisfied as assigned quota has been exceeded",
            ),
            Kind::ReducedCapacity => (
                "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
                "Request cannot be satisfied due to temporary server capacity constraints",
            ),
        };
        let body = Body {
            kind,
            title,
            status: self.status.as_u16(),
            detail: &self.detail,
            instance: format!("urn:request:{id}"),
            violated_policies: &self.violated_policies,
            bucket: self.bucket.as_deref(),
        };
        let mut text = serde_json::to_vec(&body).unwrap_or_default();
        text.push(b'\n');
        text.into()
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
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(1));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Nothing is there.
pub async fn not_found() -> Problem {
    Problem::wrong(StatusCode::NOT_FOUND, "there is nothing at this path")
}
