//! Bodies: JSON, and no longer than may be.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::{self, DeserializeOwned, Deserializer, Visitor};

use super::App;
use super::problem::Problem;
use crate::intake::{self, Held, Unread};
use crate::ratings::LONGEST_NAME;
use crate::seat::Seats;

/// The body of a request that has to be JSON.
///
/// # Errors
/// 415 for another type, and those of [`read`].
pub async fn json(app: &App, request: Request) -> Result<Held, Problem> {
    if !is_json(request.headers()) {
        return Err(Problem::wrong(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body has to be JSON: Content-Type: application/json",
        ));
    }
    read(request, app.service.config.max_body, &app.service.bodies).await
}

/// The body of a request, of at most so many bytes, which `bodies` has to have room for.
///
/// # Errors
/// 413 when it is longer, 503 when too much is held of others, 400 when it breaks off.
pub async fn read(request: Request, most: usize, bodies: &Arc<Seats>) -> Result<Held, Problem> {
    let held = intake::read(request.into_body(), most, bodies).await;
    held.map_err(|unread| match unread {
        Unread::TooLong => Problem::wrong(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body has more than {most} bytes"),
        ),
        Unread::NoRoom => Problem::unavailable(unread.to_string()),
        Unread::BrokenOff => Problem::invalid(unread.to_string()),
    })
}

/// What the headers say that the body is, without parameters; empty if they do not.
#[must_use]
pub fn media_type(headers: &HeaderMap) -> &str {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim()
}

/// Whether the headers say that the body is JSON: `application/json`, or a type that ends with
/// `+json`.
fn is_json(headers: &HeaderMap) -> bool {
    let essence = media_type(headers);
    let ends = |suffix: &str| {
        essence
            .len()
            .checked_sub(suffix.len())
            .and_then(|place| essence.get(place..))
            .is_some_and(|end| end.eq_ignore_ascii_case(suffix))
    };
    essence.eq_ignore_ascii_case("application/json") || (essence.contains('/') && ends("+json"))
}

/// Reads a body, which has to be an object: members that stand in a list, without their names,
/// are not what limits go by.
///
/// # Errors
/// 400, with what is wrong and where.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    if body.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
        return Err(Problem::invalid("the body: it has to be an object"));
    }
    serde_json::from_slice(body).map_err(|error| Problem::invalid(format!("the body: {error}")))
}

/// Checks the name of a user or an item.
///
/// # Errors
/// 400, if it is empty or too long, or has control characters, which no log and no terminal should
/// have to bear.
pub fn check_name(what: &str, name: &str) -> Result<(), Problem> {
    check_text(what, name, LONGEST_NAME)
}

/// Checks a text that becomes part of a key.
///
/// # Errors
/// 400, if it is empty or too long, or has control characters.
pub fn check_text(what: &str, text: &str, longest: usize) -> Result<(), Problem> {
    if text.is_empty() || text.len() > longest {
        return Err(Problem::invalid(format!("{what} has to have 1 to {longest} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(Problem::invalid(format!("{what} has control characters")));
    }
    Ok(())
}

/// Reads the name of a user or an item: a text, or a whole number, which is the text of its
/// digits.
///
/// # Errors
/// For anything else.
pub fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct Name;
    impl Visitor<'_> for Name {
        type Value = String;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a string or a whole number")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<String, E> {
            Ok(number.to_string())
        }
    }
    deserializer.deserialize_any(Name)
}
