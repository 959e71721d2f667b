//! The page for operators, on the address for operators: who is limited now, what a bucket holds,
//! and what may be changed about it. Rendered here, so that it works without a script.
//!
//! | module | what |
//! |--------|------|
//! | [`access`] | who may: sessions, tokens, the guard of the login, forged requests |
//! | [`bucket`] | what a bucket holds, and its policy |
//! | [`adaptive`] | limits that follow how their backends do |
//! | [`regions`] | what this region's server and those of the others know of each other |
//! | [`change`] | everything that changes something |
//! | [`audit`] | what was changed, by whom |
//! | [`page`] | what is shown |

pub mod access;
pub mod adaptive;
pub mod audit;
pub mod bucket;
pub mod change;
pub mod page;
pub mod regions;
pub mod reply;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use self::access::Access;
use crate::http::problem::Problem;
use crate::http::{App, Routes};
use crate::metrics::Route;
use crate::notify::Notify;
use crate::ratings::peers::{Peer, peers};

/// What the page's handlers have at hand.
pub struct Admin {
    app: App,
    access: Access,
    notify: Notify,
    /// The servers of other regions, on connections of the page's own, which are made when it is
    /// first looked at: those that follow ratings wait for them.
    peers: Vec<Peer>,
}

/// Where the page is.
pub const PATH: &str = "/admin";

/// Its routes.
///
/// # Errors
/// When a setting cannot be read.
pub fn routes(app: &App) -> Result<Routes, String> {
    let admin = Arc::new(Admin {
        app: app.clone(),
        access: Access::new(app),
        notify: Notify::new(app.redis.clone()),
        peers: peers(&app.service.config)?,
    });
    // Each handler has the page's own state, and what it answers gets the fields of all pages.
    macro_rules! handler {
        ($method:ident, $handler:path) => {{
            let admin = Arc::clone(&admin);
            $method(move |State(_): State<App>, request: Request| async move {
                let is_browser = request.method() == Method::GET
                    && !request.headers().contains_key(header::AUTHORIZATION);
                let result: Result<Response, Problem> = $handler(&admin, request).await;
                guarded(match result {
                    Err(problem) if is_browser && problem.status == StatusCode::UNAUTHORIZED => {
                        Redirect::to("/admin/login").into_response()
                    }
                    result => result.into_response(),
                })
            })
        }};
    }
    Ok(vec![
        ("/admin", Route::Admin, handler!(get, page::home)),
        ("/admin/live", Route::Admin, handler!(get, page::live)),
        ("/admin/bucket", Route::Admin, handler!(get, page::bucket)),
        ("/admin/style.css", Route::Admin, handler!(get, page::style)),
        ("/admin/live.js", Route::Admin, handler!(get, page::script)),
        ("/admin/login", Route::Admin, {
            let posted = Arc::clone(&admin);
            handler!(get, page::login).post(move |request: Request| async move {
                guarded(access::login(&posted, request).await.unwrap_or_else(page::login_again))
            })
        }),
        ("/admin/logout", Route::Admin, handler!(post, access::logout)),
        ("/admin/weight", Route::Admin, handler!(post, change::weight)),
        ("/admin/policy", Route::Admin, handler!(post, change::policy)),
        ("/admin/unpin", Route::Admin, handler!(post, change::unpin)),
        ("/admin/reset", Route::Admin, handler!(post, change::reset)),
        ("/admin/adaptive", Route::Admin, {
            let changing = Arc::clone(&admin);
            handler!(get, adaptive::list).post(move |request: Request| async move {
                guarded(change::switch(&changing, request).await.into_response())
            })
        }),
        ("/admin/parked", Route::Admin, handler!(post, change::parked)),
    ])
}

/// Adds what keeps a page from being framed, kept, or made to run what is not its own.
fn guarded(mut response: Response) -> Response {
    const FIELDS: [(HeaderName, &str); 6] = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in FIELDS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
