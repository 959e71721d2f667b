//! What is shown.

use std::time::SystemTime;

use askama::Template;
use axum::extract::Request;
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use redis::Value;

use super::access::{Note, Visitor};
use super::audit::Change;
use super::bucket::{self, Shown, readable};
use super::change::in_words;
use super::regions::{self, Other, Regions};
use super::reply::text_of;
use super::{Admin, adaptive, audit};
use crate::http::problem::Problem;
use crate::notify::Parked;

/// Rows of each list.
const ROWS: usize = 50;

/// A refusal, as it is shown.
struct Limited {
    key: String,
    address: String,
    limit: String,
    times: u64,
    ago: String,
    wait: String,
}

/// What changes by itself: who is limited, and the regions.
#[derive(Template)]
#[template(path = "live.html")]
struct Live {
    limited: Vec<Limited>,
    more: usize,
    left_out: bool,
    regions: Result<Regions, String>,
    others: Vec<Other>,
}

#[derive(Template)]
#[template(path = "home.html")]
struct Home<'a> {
    csrf: &'a str,
    has_login: bool,
    note: Option<Note>,
    live: Live,
    limits: String,
    rules: Result<String, String>,
    adaptive: Result<Vec<adaptive::Shown>, String>,
    parked: Result<Vec<Undelivered>, String>,
    changes: Result<Vec<Row>, String>,
}

/// A parked notification, as it is shown.
struct Undelivered {
    id: String,
    to: String,
    what: String,
    tries: u64,
    why: String,
}

/// A change, as it is shown.
struct Row {
    when: String,
    change: Change,
}

#[derive(Template)]
#[template(path = "bucket.html")]
struct Buckets<'a> {
    csrf: &'a str,
    has_login: bool,
    note: Option<Note>,
    title: String,
    user: Option<String>,
    weight: i64,
    buckets: Vec<Result<Shown, (String, String)>>,
}

#[derive(Template)]
#[template(path = "login.html")]
struct Login<'a> {
    error: &'a str,
}

/// `GET /admin`.
///
/// # Errors
/// For whoever may not.
pub async fn home(admin: &Admin, request: Request) -> Result<Response, Problem> {
    let visitor = admin.access.admit(&admin.app, &request).await?;
    let app = &admin.app;
    let mut rules = redis::cmd("CONFIG");
    rules.arg("GET").arg("claw.policies");
    let (live, rules, adaptive, parked, changes) = futures_util::join!(
        live_part(admin),
        app.redis.call_server::<Value>(&rules),
        adaptive::read(app),
        admin.notify.parked(ROWS),
        audit::latest(app, ROWS),
    );
    let words = |fault| in_words(&fault);
    let now = now_ms();
    let row = |change: Change| Row { when: ago(now.saturating_sub(change.at_ms)), change };
    let page = Home {
        csrf: visitor.csrf(),
        has_login: !app.service.admin_tokens.load().is_empty(),
        note: admin.access.note(&visitor),
        live,
        limits: app.service.limits.load().to_string(),
        rules: rules.map(|map| text_of(&map, "claw.policies").replace("; ", "\n")).map_err(words),
        adaptive: adaptive.map_err(words),
        parked: parked.map(|parked| parked.into_iter().map(undelivered).collect()).map_err(words),
        changes: changes.map(|changes| changes.into_iter().map(row).collect()).map_err(words),
    };
    render(&page, &visitor)
}

/// `GET /admin/live`: the part of the page that a script asks for again and again.
///
/// # Errors
/// For whoever may not.
pub async fn live(admin: &Admin, request: Request) -> Result<Response, Problem> {
    let visitor = admin.access.admit(&admin.app, &request).await?;
    render(&live_part(admin).await, &visitor)
}

async fn live_part(admin: &Admin) -> Live {
    let (list, left_out) = admin.app.service.recent.list();
    let more = list.len().saturating_sub(ROWS);
    let limited = list.into_iter().take(ROWS).map(|refused| Limited {
        key: bucket::readable_key(&refused.key),
        address: bucket::address_of_text(&bucket::address(&refused.key)),
        limit: refused.limit,
        times: refused.times,
        ago: ago(u64::try_from(refused.last.elapsed().as_millis()).unwrap_or(u64::MAX)),
        wait: bucket::length(refused.retry_after_ms),
    });
    let (regions, others) =
        futures_util::join!(regions::read(&admin.app.redis), regions::elsewhere(&admin.peers));
    let regions = regions.map_err(|fault| in_words(&fault));
    Live { limited: limited.collect(), more, left_out, regions, others }
}

/// `GET /admin/bucket?user=..` or `?key=..`.
///
/// # Errors
/// For whoever may not, and for a name or a key out of bounds.
pub async fn bucket(admin: &Admin, request: Request) -> Result<Response, Problem> {
    let visitor = admin.access.admit(&admin.app, &request).await?;
    let query = request.uri().query().unwrap_or_default();
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query)
        .map_err(|error| Problem::invalid(format!("the address: {error}")))?;
    let value =
        |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let (title, user, keys) = match (value("user"), value("key")) {
        (Some(user), _) => {
            crate::http::body::check_name("user", user)?;
            (readable(user), Some(user.to_owned()), bucket::of_user(&admin.app, user))
        }
        (None, Some(address)) => {
            let key =
                bucket::key(address).ok_or_else(|| Problem::invalid("key: too long, or empty"))?;
            (bucket::readable_key(&key), None, vec![(key.into(), None)])
        }
        (None, None) => return Err(Problem::invalid("user or key is needed")),
    };
    let mut buckets = Vec::with_capacity(keys.len());
    for (key, limit) in &keys {
        let shown = bucket::read(&admin.app, key, limit.as_ref()).await;
        buckets.push(shown.map_err(|fault| (bucket::readable_key(key), in_words(&fault))));
    }
    let weight = buckets.iter().flatten().next().map_or(1, |shown| shown.weight);
    let page = Buckets {
        csrf: visitor.csrf(),
        has_login: !admin.app.service.admin_tokens.load().is_empty(),
        note: admin.access.note(&visitor),
        title,
        user,
        weight,
        buckets,
    };
    render(&page, &visitor)
}

/// `GET /admin/login`.
///
/// # Errors
/// None.
pub async fn login(_: &Admin, _: Request) -> Result<Response, Problem> {
    Ok(Html(written(&Login { error: "" })?).into_response())
}

/// The login once more, with what was wrong.
#[must_use]
pub fn login_again(problem: Problem) -> Response {
    match written(&Login { error: &problem.detail }) {
        Ok(page) => (problem.status, Html(page)).into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// `GET /admin/style.css`.
///
/// # Errors
/// None.
pub async fn style(_: &Admin, _: Request) -> Result<Response, Problem> {
    let kind = [(header::CONTENT_TYPE, "text/css; charset=utf-8")];
    Ok((kind, include_str!("../../templates/style.css")).into_response())
}

/// `GET /admin/live.js`.
///
/// # Errors
/// None.
pub async fn script(_: &Admin, _: Request) -> Result<Response, Problem> {
    let kind = [(header::CONTENT_TYPE, "text/javascript; charset=utf-8")];
    Ok((kind, include_str!("../../templates/live.js")).into_response())
}

fn render(page: &impl Template, visitor: &Visitor) -> Result<Response, Problem> {
    let mut response = Html(written(page)?).into_response();
    visitor.greet(&mut response);
    Ok(response)
}

fn written(page: &impl Template) -> Result<String, Problem> {
    page.render().map_err(|error| Problem::internal(format!("a page: {error}")))
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn ago(ms: u64) -> String {
    match ms {
        0..2_000 => "just now".to_owned(),
        _ => format!("{} ago", bucket::length(i64::try_from(ms).unwrap_or(i64::MAX))),
    }
}

fn undelivered(parked: Parked) -> Undelivered {
    let Parked { id, to, user, item, micros, tries, why, .. } = parked;
    let (user, item) = (readable(&user), readable(&item));
    let what = match micros.map(claw_core::decimal::Decimal::new) {
        Some(rating) => {
            format!("{user} gave {item} {}", String::from_utf8_lossy(rating.as_bytes()))
        }
        None => format!("{user} is forgotten"),
    };
    Undelivered { id, to, what, tries, why }
}
