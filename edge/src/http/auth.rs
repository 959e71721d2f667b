//! `ANY /auth`: a proxy asks whether the request that it has may pass. Traefik's ForwardAuth and
//! Caddy's forward_auth hand on the refusal as it is. nginx's auth_request turns 429 into 500, so
//! it asks for another status: `/auth?deny_status=403`.

use axum::extract::Request;
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use super::{App, limited};
use crate::decide::Plan;
use crate::limits::{Facts, Route};

// What a proxy says of the request that it has.
const URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Answers 200, or the refusal.
pub async fn decide(app: &App, request: Request) -> Result<Response, Problem> {
    let deny_status = deny_status(request.uri().query().unwrap_or_default())?;
    let headers = request.headers();
    let client = app.client(super::peer(&request)?, headers);
    let path = super::path(super::value(headers, &URI).unwrap_or(request.uri().path().as_bytes()));
    let host = super::host(super::text(headers, &HOST).or_else(|| super::named_host(&request)));
    let facts = Facts {
        route: Route::Auth,
        method: super::text(headers, &METHOD).unwrap_or(request.method().as_str()),
        path: &path,
        host: &host,
        client: Some(client),
        headers,
        body: None,
        user: super::named_user(app, headers)?,
        weight: None,
    };
    let (limits, deadline) = (app.service.limits.load_full(), app.redis.deadline());
    let facts = super::weighed(app, &limits, facts, deadline).await;
    let verdict = app.redis.decide_by(Plan::new(limits.of_request(&facts)), deadline).await;
    if verdict.allowed {
        return Ok(limited::respond(app, &verdict, StatusCode::OK));
    }
    let mut problem = limited::refusal(app, &verdict);
    if problem.status == StatusCode::TOO_MANY_REQUESTS {
        problem.status = deny_status;
    }
    Ok(limited::with_fields(app, &verdict, problem.into_response()))
}

/// The status of a refusal: that of the query, or 429. Other parameters are ignored, as some
/// proxies hand on the query of the client.
fn deny_status(query: &str) -> Result<StatusCode, Problem> {
    match query.split('&').find_map(|parameter| parameter.strip_prefix("deny_status=")) {
        None => Ok(StatusCode::TOO_MANY_REQUESTS),
        Some(status) => status
            .parse()
            .ok()
            .filter(StatusCode::is_client_error)
            .ok_or_else(|| Problem::invalid("deny_status has to be one of 400 to 499")),
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_a_refusal() {
        #[rustfmt::skip]
        let table = [
            ("", Some(429)), ("deny_status=403", Some(403)), ("deny_status=401&", Some(401)),
            ("deny_status=200", None), ("deny_status=500", None), ("deny_status=", None),
            ("deny_status=4", None), ("x=1&deny_status=403", Some(403)), ("xdeny_status=403", Some(429)),
        ];
        for (query, status) in table {
            let told = deny_status(query).ok().map(|status| status.as_u16());
            assert_eq!(told, status, "{query}");
        }
    }
}
