//! Everything that changes something: a weight, a policy, a bucket that is filled, notifications
//! that were parked. Each is a form of the page, and the same for programs with a token, which are
//! answered in JSON.

use axum::Json;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use claw_core::decimal;
use claw_core::limits::MAX_TOKENS;
use redis::{Cmd, Value};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json_, json};

use super::access::{Note, Visitor, check_form};
use super::bucket::{self, readable, readable_key};
use super::reply::{number_of, text_of};
use super::{Admin, PATH, adaptive, audit};
use crate::http::App;
use crate::http::body::{self, check_name};
use crate::http::problem::Problem;
use crate::limits::adaptive::Mode;
use crate::redis::Fault;

/// Resets the policy of a bucket and keeps its weight.
const UNPIN: &str = "
local policy = redis.call('CL.POLICY_RO', KEYS[1])
local weight = 1
for place = 1, #policy, 2 do
  if policy[place] == 'weight' then weight = policy[place + 1] end
end
policy = redis.call('CL.POLICY', KEYS[1], 'RESET')
if weight ~= 1 then policy = redis.call('CL.POLICY', KEYS[1], 'WEIGHT', weight) end
return policy";

/// The longest form, in bytes.
const LONGEST_FORM: usize = 16 << 10;

/// A form without anything but where it comes from.
#[derive(Deserialize)]
pub struct Bare {
    /// What the page gave the session for its forms.
    #[serde(default)]
    pub csrf: String,
}

#[derive(Deserialize)]
struct Weight {
    #[serde(default)]
    csrf: String,
    #[serde(rename = "userId")]
    user: String,
    weight: String,
}

#[derive(Deserialize)]
struct Policy {
    #[serde(default)]
    csrf: String,
    key: String,
    capacity: String,
    refill: String,
    #[serde(default)]
    interval_ms: String,
    #[serde(default)]
    for_ms: String,
}

#[derive(Deserialize)]
struct Bucket {
    #[serde(default)]
    csrf: String,
    key: String,
}

#[derive(Deserialize)]
struct Parked {
    #[serde(default)]
    csrf: String,
    id: String,
    action: String,
}

#[derive(Deserialize)]
struct Switch {
    #[serde(default)]
    csrf: String,
    route: String,
    mode: String,
}

/// Reads a form, or the same as an object of texts in JSON.
///
/// # Errors
/// 400, 413 and 415, for what is none; 503 when there is no room for it.
pub async fn form<T: DeserializeOwned>(app: &App, request: Request) -> Result<T, Problem> {
    let kind = body::media_type(request.headers());
    let is_json = kind.eq_ignore_ascii_case("application/json");
    if !is_json && !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(Problem::wrong(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a form is read, or JSON"));
    }
    let body = body::read(request, LONGEST_FORM, &app.service.forms).await?;
    let invalid = |error: String| Problem::invalid(format!("the form: {error}"));
    match is_json {
        true => serde_json::from_slice(&body.bytes).map_err(|error| invalid(error.to_string())),
        false => {
            serde_urlencoded::from_bytes(&body.bytes).map_err(|error| invalid(error.to_string()))
        }
    }
}

/// `POST /admin/weight`: `userId`, `weight`, of the user's bucket `token_bucket:<user>`.
///
/// # Errors
/// For whoever may not, for values out of bounds, and without an answer of the server.
pub async fn weight(admin: &Admin, request: Request) -> Result<Response, Problem> {
    let (visitor, form) = begin::<Weight>(admin, request).await?;
    let back = format!("{PATH}/bucket?user={}", bucket::address_of_text(&form.user));
    let done = async {
        check_name("userId", &form.user)?;
        let weight = whole("weight", &form.weight, 1, 10)?;
        let key = bucket::user_key(&form.user);
        let mut command = policy_of(key.as_bytes());
        command.arg("WEIGHT").arg(weight);
        let before: Value = answered(admin.app.redis.call(&read_policy(key.as_bytes())).await)?;
        let after = admin.app.redis.call(&command).await;
        let after: Value = done_or_told(admin, &visitor, "a weight", after).await?;
        let (before, after) = (text_of(&before, "weight"), text_of(&after, "weight"));
        let key = readable(&key);
        audit::note(&admin.app, &visitor, &format!("weight of {key}: {before} -> {after}")).await;
        Ok((
            format!("The weight of {} is {after} now; it was {before}.", readable(&form.user)),
            json!({"userId": form.user, "weight": weight}),
        ))
    };
    finish(admin, &visitor, &back, done.await)
}

/// `POST /admin/policy`: pins `capacity`, `refill` and `interval_ms` on the bucket `key`, for
/// `for_ms` or for good.
///
/// # Errors
/// As [`weight`].
pub async fn policy(admin: &Admin, request: Request) -> Result<Response, Problem> {
    let (visitor, form) = begin::<Policy>(admin, request).await?;
    let done = async {
        let key = key(&form.key)?;
        let capacity = whole("capacity", &form.capacity, 0, MAX_TOKENS)?;
        let refill = form.refill.trim();
        decimal::parse_refill(refill.as_bytes()).ok_or_else(|| {
            Problem::invalid(format!("refill: '{refill}' is no number of tokens"))
        })?;
        let mut command = policy_of(&key);
        command.arg("CAPACITY").arg(capacity).arg("REFILL").arg(refill);
        if let Some(interval) = optional("interval_ms", &form.interval_ms)? {
            command.arg("INTERVAL").arg(interval);
        }
        let duration = optional("for_ms", &form.for_ms)?;
        if let Some(duration) = duration {
            command.arg("FOR").arg(duration);
        }
        let before: Value = answered(admin.app.redis.call(&read_policy(&key)).await)?;
        let after = admin.app.redis.call(&command).await;
        let after: Value = done_or_told(admin, &visitor, "a policy", after).await?;
        let (key, before, after) = (readable_key(&key), words(&before), words(&after));
        audit::note(&admin.app, &visitor, &format!("policy of {key}: {before} -> {after}")).await;
        Ok((format!("{key} is pinned to {after}."), json!({"key": key, "policy": after})))
    };
    finish(admin, &visitor, &bucket_page(&form.key), done.await)
}

/// `POST /admin/unpin`: back to the rule, the call's or the default policy. The weight stays.
///
/// # Errors
/// As [`weight`].
pub async fn unpin(admin: &Admin, request: Request) -> Result<Response, Problem> {
    let (visitor, form) = begin::<Bucket>(admin, request).await?;
    let done = async {
        let key = key(&form.key)?;
        let before: Value = answered(admin.app.redis.call(&read_policy(&key)).await)?;
        // In one step: in between the weight would be gone.
        let mut command = redis::cmd("EVAL");
        command.arg(UNPIN).arg(1).arg(&key);
        let after = admin.app.redis.call_at(&key, &command).await;
        let after: Value = done_or_told(admin, &visitor, "an unpin", after).await?;
        let (key, before, after) = (readable_key(&key), words(&before), words(&after));
        audit::note(&admin.app, &visitor, &format!("policy of {key}: {before} -> {after}")).await;
        Ok((format!("{key} is no longer pinned."), json!({"key": key, "policy": after})))
    };
    finish(admin, &visitor, &bucket_page(&form.key), done.await)
}

/// `POST /admin/reset`: fills the bucket `key`, and pays its debt, in all regions that share it.
///
/// # Errors
/// As [`weight`].
pub async fn reset(admin: &Admin, request: Request) -> Result<Response, Problem> {
    let (visitor, form) = begin::<Bucket>(admin, request).await?;
    let done = async {
        let key = key(&form.key)?;
        // Deleting the key would be heard by no other region: a gift is.
        let mut command = redis::cmd("CL.GIVE");
        command.arg(&key).arg(MAX_TOKENS);
        let given = admin.app.redis.call(&command).await;
        let [_, _, tokens, _, _]: [i64; 5] =
            done_or_told(admin, &visitor, "a reset", given).await?;
        let key = readable_key(&key);
        audit::note(&admin.app, &visitor, &format!("reset of {key}: {tokens} tokens")).await;
        Ok((format!("{key} is full: {tokens} tokens."), json!({"key": key, "tokens": tokens})))
    };
    finish(admin, &visitor, &bucket_page(&form.key), done.await)
}

/// `POST /admin/parked`: a notification that could not be delivered is tried again (`action=retry`),
/// or forgotten (`action=discard`).
///
/// # Errors
/// As [`weight`].
pub async fn parked(admin: &Admin, request: Request) -> Result<Response, Problem> {
    let (visitor, form) = begin::<Parked>(admin, request).await?;
    let done = async {
        let is_id = form.id.split('-').all(|part| part.parse::<u64>().is_ok());
        let done = match form.action.as_str() {
            _ if !is_id => return Err(Problem::invalid("id: this names no notification")),
            "retry" => {
                done_or_told(admin, &visitor, "a retry", admin.notify.retry(&form.id).await).await?
            }
            "discard" => {
                done_or_told(admin, &visitor, "a discard", admin.notify.discard(&form.id).await)
                    .await?
            }
            _ => return Err(Problem::invalid("action has to be retry or discard")),
        };
        if !done {
            return Err(Problem::wrong(
                StatusCode::NOT_FOUND,
                "there is no such notification any more",
            ));
        }
        let what = format!("parked notification {}: {}", form.id, form.action);
        audit::note(&admin.app, &visitor, &what).await;
        Ok((format!("Done: {what}."), json!({"id": form.id, "action": form.action})))
    };
    finish(admin, &visitor, &format!("{PATH}#parked"), done.await)
}

/// `POST /admin/adaptive`: the loop of the adaptive limit `route` is switched to `mode`: `off`,
/// `shadow`, `canary` or `on`, at all instances; `settings` goes back to what the file of limits says.
///
/// # Errors
/// As [`weight`].
pub async fn switch(admin: &Admin, request: Request) -> Result<Response, Problem> {
    let (visitor, form) = begin::<Switch>(admin, request).await?;
    let done = async {
        let mode = match form.mode.as_str() {
            "settings" => None,
            text => Some(Mode::of_text(text).ok_or_else(|| {
                Problem::invalid("mode has to be off, shadow, canary, on or settings")
            })?),
        };
        let shared = adaptive::shared(&admin.app, &form.route);
        let shared = shared.ok_or_else(|| {
            Problem::wrong(StatusCode::NOT_FOUND, "there is no adaptive limit of this name")
        })?;
        done_or_told(admin, &visitor, "a switch", shared.switch(mode).await).await?;
        let what = format!("adaptive limit {}: {}", form.route, form.mode);
        audit::note(&admin.app, &visitor, &what).await;
        Ok((format!("Done: {what}."), json!({"route": form.route, "mode": form.mode})))
    };
    finish(admin, &visitor, &format!("{PATH}#adaptive"), done.await)
}

/// What every change begins with: who wants it, and what.
async fn begin<T: DeserializeOwned + Form>(
    admin: &Admin,
    request: Request,
) -> Result<(Visitor, T), Problem> {
    let visitor = admin.access.admit(&admin.app, &request).await?;
    let headers = request.headers().clone();
    let form: T = form(&admin.app, request).await?;
    check_form(&visitor, &headers, form.csrf())?;
    Ok((visitor, form))
}

/// What every form has.
trait Form {
    /// What the page gave the session for its forms.
    fn csrf(&self) -> &str;
}

macro_rules! forms {
    ($($name:ident),*) => {$(
        impl Form for $name {
            fn csrf(&self) -> &str {
                &self.csrf
            }
        }
    )*};
}
forms!(Weight, Policy, Bucket, Parked, Switch);

/// Tells a program in JSON, and leads a browser back to where the change is seen.
fn finish(
    admin: &Admin,
    visitor: &Visitor,
    back: &str,
    done: Result<(String, Json_), Problem>,
) -> Result<Response, Problem> {
    if visitor.is_program() {
        return Ok(Json(done?.1).into_response());
    }
    let (text, is_error) = match done {
        Ok((text, _)) => (text, false),
        Err(problem) if problem.status == StatusCode::SERVICE_UNAVAILABLE => {
            (format!("It is not known whether that was done: {}", problem.detail), true)
        }
        Err(problem) => (format!("Nothing was changed: {}", problem.detail), true),
    };
    admin.access.keep(visitor, Note { text, is_error });
    let mut response = Redirect::to(back).into_response();
    visitor.greet(&mut response);
    Ok(response)
}

fn bucket_page(address: &str) -> String {
    // It came as it is to be sent back, or is no address and leads to the page that says so.
    let key = bucket::key(address).unwrap_or_default();
    format!("{PATH}/bucket?key={}", bucket::address_of_text(&bucket::address(&key)))
}

fn policy_of(key: &[u8]) -> Cmd {
    let mut command = redis::cmd("CL.POLICY");
    command.arg(key);
    command
}

fn read_policy(key: &[u8]) -> Cmd {
    let mut command = redis::cmd("CL.POLICY_RO");
    command.arg(key);
    command
}

/// A policy in one line.
fn words(policy: &Value) -> String {
    let text = |name| text_of(policy, name);
    let pinned = match number_of(policy, "pin_remaining_ms") {
        Some(-1) => ", pinned".to_owned(),
        Some(ms) if ms > 0 => format!(", pinned for {ms} ms"),
        _ => String::new(),
    };
    format!(
        "{} tokens, {} per {} ms, weight {}{pinned}",
        text("capacity"),
        text("refill"),
        text("interval"),
        text("weight")
    )
}

fn key(address: &str) -> Result<Vec<u8>, Problem> {
    bucket::key(address).ok_or_else(|| {
        Problem::invalid(format!("key has to have 1 to {} bytes", bucket::LONGEST_KEY))
    })
}

fn whole(name: &str, text: &str, least: u64, most: u64) -> Result<u64, Problem> {
    let text = text.trim();
    decimal::whole(text.as_bytes())
        .ok()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| {
            Problem::invalid(format!("{name}: '{text}' is not one of {least} to {most}"))
        })
}

fn optional(name: &str, text: &str) -> Result<Option<u64>, Problem> {
    match text.trim() {
        "" => Ok(None),
        text => whole(name, text, 1, 31_622_400_000).map(Some),
    }
}

fn answered<T>(result: Result<T, Fault>) -> Result<T, Problem> {
    result.map_err(|fault| match fault {
        Fault::Refused { text, .. } => Problem::invalid(format!("the server refuses: {text}")),
        fault => Problem::unavailable(in_words(&fault)),
    })
}

/// What a change came to. One without an answer may have been done all the same, and is noted.
async fn done_or_told<T>(
    admin: &Admin,
    visitor: &Visitor,
    what: &str,
    result: Result<T, Fault>,
) -> Result<T, Problem> {
    if matches!(result, Err(Fault::Deadline | Fault::Connection(_))) {
        audit::note(&admin.app, visitor, &format!("{what} without an answer: it may be done"))
            .await;
    }
    answered(result)
}

/// Why there is no answer.
#[must_use]
pub fn in_words(fault: &Fault) -> String {
    match fault {
        Fault::Deadline => "the server has not answered in time".to_owned(),
        Fault::Connection(_) => "the server cannot be reached".to_owned(),
        Fault::Refused { text, .. } => format!("the server refuses: {text}"),
        Fault::CircuitOpen => "the server has not answered of late, and is not asked".to_owned(),
        Fault::Overloaded => "this service has more to do than it can".to_owned(),
        Fault::QueueFull => "too many requests wait for the server".to_owned(),
    }
}
