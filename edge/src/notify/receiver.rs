//! Whom ratings are told to, and what they answer.

use std::error::Error;
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::uri::Scheme;
use axum::http::{HeaderMap, Request, StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until, timeout};

use super::event::Event;
use super::sign::Secrets;
use crate::config::Config;
use crate::tls;

/// What is read of a response, in bytes, at most.
const LONGEST: usize = 64 * 1024;
/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(30);
/// How long a receiver may ask to be left alone, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Somebody who is told.
pub struct Receiver {
    kind: Kind,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    patience: Duration,
    /// Until when it has asked to be left alone.
    paused: Mutex<Option<Instant>>,
}

enum Kind {
    Webhook {
        url: Uri,
        secrets: Secrets,
    },
    /// The URL has the token in it.
    Telegram {
        url: Uri,
        chat: String,
    },
}

/// What a receiver answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has it.
    Taken,
    /// It asks to be left alone for a while, which is no failure.
    Later(Duration),
    /// It has failed. This has no secret in it.
    Failed(String),
}

/// What Telegram says of a message.
#[derive(Deserialize)]
struct Told {
    ok: bool,
    description: Option<String>,
    parameters: Option<Parameters>,
}

#[derive(Deserialize)]
struct Parameters {
    retry_after: Option<u64>,
}

impl Receiver {
    /// Those that the settings name.
    ///
    /// # Errors
    /// When a setting lacks another one, or a file cannot be read. Secrets are not repeated.
    pub fn all(config: &Config) -> Result<Vec<Self>, String> {
        let mut kinds = Vec::new();
        if let Some(url) = &config.webhook_url {
            let file = config.webhook_secret_file.as_ref();
            let file = file.ok_or("WEBHOOK_URL needs WEBHOOK_SECRET_FILE")?;
            let url = checked(url.clone(), "WEBHOOK_URL")?;
            kinds.push(Kind::Webhook { url, secrets: Secrets::load(file)? });
        }
        if let Some(chat) = &config.telegram_chat {
            let file = config.telegram_token_file.as_ref();
            let file = file.ok_or("TELEGRAM_CHAT needs TELEGRAM_TOKEN_FILE")?;
            let wrong = |why: &str| format!("TELEGRAM_TOKEN_FILE {}: {why}", file.display());
            let token = fs::read_to_string(file).map_err(|error| wrong(&error.to_string()))?;
            let token = token.trim();
            let fits = |letter: char| letter.is_ascii_alphanumeric() || ":_-".contains(letter);
            if token.is_empty() || !token.chars().all(fits) {
                return Err(wrong("it has no token of a bot"));
            }
            let base = checked(config.telegram_url.clone(), "TELEGRAM_URL")?.to_string();
            let url = format!("{}/bot{token}/sendMessage", base.trim_end_matches('/'));
            let url = url.parse().map_err(|_| "TELEGRAM_URL cannot be extended".to_owned())?;
            kinds.push(Kind::Telegram { url, chat: chat.clone() });
        }
        let receiver = |kind| {
            Ok(Self {
                kind,
                client: client()?,
                patience: config.notify_timeout,
                paused: Mutex::default(),
            })
        };
        kinds.into_iter().map(receiver).collect()
    }

    /// What it is called in metrics and in the server.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Webhook { .. } => "webhook",
            Kind::Telegram { .. } => "telegram",
        }
    }

    /// Waits until it does not ask to be left alone any more.
    pub async fn rested(&self) {
        while let Some(until) = self.paused() {
            sleep_until(until).await;
        }
    }

    /// Until when it asks to be left alone, if it does.
    #[must_use]
    pub fn paused(&self) -> Option<Instant> {
        let paused = *self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        paused.filter(|until| Instant::now() < *until)
    }

    /// Tells it once.
    pub async fn tell(&self, event: &Event) -> Answer {
        let answer = match timeout(self.patience, self.send(event)).await {
            Ok(answer) => answer.unwrap_or_else(Answer::Failed),
            Err(_) => Answer::Failed("no answer within NOTIFY_TIMEOUT".to_owned()),
        };
        if let Answer::Later(pause) = answer {
            let until = Instant::now().checked_add(pause);
            *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = until;
        }
        answer
    }

    async fn send(&self, event: &Event) -> Result<Answer, String> {
        let response = self.client.request(self.request(event)?).await;
        let response = response.map_err(|error| cause(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, LONGEST).collect().await.map(|body| body.to_bytes());
        match &self.kind {
            // Its status says all. The body is read for the connection to be used again.
            Kind::Webhook { .. } => Ok(of_webhook(head.status, &head.headers)),
            Kind::Telegram { .. } => {
                let body = body.map_err(|_| "a response that breaks off, or is too long")?;
                Ok(of_telegram(head.status, &body))
            }
        }
    }

    fn request(&self, event: &Event) -> Result<Request<Full<Bytes>>, String> {
        let request = Request::post(match &self.kind {
            Kind::Webhook { url, .. } | Kind::Telegram { url, .. } => url,
        });
        let request = request
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("claw-edge/", env!("CARGO_PKG_VERSION")));
        let request = match &self.kind {
            Kind::Webhook { secrets, .. } => {
                let (id, body) = (event.key(), event.json()?);
                let now =
                    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                request
                    .header("webhook-signature", secrets.sign(&id, now, &body))
                    .header("webhook-timestamp", now)
                    .header("webhook-id", id)
                    .body(body.into())
            }
            Kind::Telegram { chat, .. } => {
                let body = serde_json::json!({"chat_id": chat, "text": event.words()});
                request.body(body.to_string().into())
            }
        };
        request.map_err(|error| error.to_string())
    }
}

/// What the response of a webhook means. Redirects are not followed.
fn of_webhook(status: StatusCode, fields: &HeaderMap) -> Answer {
    if status.is_success() {
        return Answer::Taken;
    }
    let after = fields.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    match (status, after.and_then(|after| after.parse().ok())) {
        (StatusCode::TOO_MANY_REQUESTS, Some(seconds)) => later(seconds),
        _ => Answer::Failed(format!("status {}", status.as_u16())),
    }
}

/// What the response of Telegram means.
fn of_telegram(status: StatusCode, body: &[u8]) -> Answer {
    let Ok(told) = serde_json::from_slice::<Told>(body) else {
        return Answer::Failed(format!("status {}, and no answer of Telegram", status.as_u16()));
    };
    match told.parameters.and_then(|parameters| parameters.retry_after) {
        _ if told.ok && status.is_success() => Answer::Taken,
        Some(seconds) => later(seconds),
        None => {
            let why: String = told.description.unwrap_or_default().chars().take(200).collect();
            Answer::Failed(format!("status {}: {why}", status.as_u16()))
        }
    }
}

/// What is at the bottom of an error: it is about sockets or TLS, and has no URL in it.
fn cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn later(seconds: u64) -> Answer {
    Answer::Later(Duration::from_secs(seconds.max(1)).min(LONGEST_PAUSE))
}

/// A URL to which requests can be sent.
fn checked(url: Uri, what: &str) -> Result<Uri, String> {
    let is_known = [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&url.scheme());
    if is_known && url.host().is_some() { Ok(url) } else { Err(format!("{what} is no URL")) }
}

/// A client that trusts whom the system trusts.
fn client() -> Result<Client<HttpsConnector<HttpConnector>, Full<Bytes>>, String> {
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .build(tls::https()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_answers_mean() {
        let failed = |why: &str| Answer::Failed(why.to_owned());
        let later = |seconds| Answer::Later(Duration::from_secs(seconds));
        for (status, after, answer) in [
            (200, None, Answer::Taken),
            (204, None, Answer::Taken),
            (302, None, failed("status 302")),
            (410, None, failed("status 410")),
            (429, None, failed("status 429")),
            (429, Some("3"), later(3)),
            (429, Some("0"), later(1)),
            (429, Some("99999999999"), later(600)),
            (429, Some("Fri, 31 Dec 1999 23:59:59 GMT"), failed("status 429")),
            (503, Some("3"), failed("status 503")),
        ] {
            let mut fields = HeaderMap::new();
            if let Some(after) = after {
                fields.insert(header::RETRY_AFTER, after.parse().unwrap());
            }
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(of_webhook(status, &fields), answer, "{status} {after:?}");
        }
        for (status, body, answer) in [
            (200, r#"{"ok":true,"result":{"message_id":1}}"#, Answer::Taken),
            (200, r#"{"ok":false}"#, failed("status 200: ")),
            (200, "<html>", failed("status 200, and no answer of Telegram")),
            (
                429,
                r#"{"ok":false,"error_code":429,"description":"x","parameters":{"retry_after":7}}"#,
                later(7),
            ),
            (
                400,
                r#"{"ok":false,"description":"Bad Request: chat not found"}"#,
                failed("status 400: Bad Request: chat not found"),
            ),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(of_telegram(status, body.as_bytes()), answer, "{body}");
        }
    }
}
