//! Errors as RFC 9457 has them: `application/problem+json`.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// What went wrong, for programs and for people.
#[derive(Debug, Serialize)]
pub struct Problem {
    /// A URI that names the kind.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The kind in words.
    pub title: &'static str,
    /// The status code of the response.
    pub status: u16,
    /// What was wrong this time.
    pub detail: String,
    /// The limits that refused, by name.
    #[serde(rename = "violated-policies", skip_serializing_if = "Vec::is_empty")]
    pub violated_policies: Vec<String>,
}

impl Problem {
    /// A request that cannot be read.
    #[must_use]
    pub fn invalid(detail: String) -> Self {
        Self {
            kind: "about:blank",
            title: "Bad Request",
            status: 400,
            detail,
            violated_policies: Vec::new(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(self)).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}
