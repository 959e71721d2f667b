//! Who may see and change what the page shows.
//!
//! With admin tokens (`ADMIN_TOKEN`, `ADMIN_TOKEN_FILE`): whoever shows one, as a bearer token or at
//! the login, which begins a session. Without: whoever is on this machine, if the page is on no
//! other address; the name in the address bar has to be one of this machine's own, so that no page
//! from elsewhere can have a browser come here under its name.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use claw_core::bucket::{Bucket, Demand, Weight};
use claw_core::policy::Policy;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Admin, PATH, audit, change};
use crate::access::{Tokens, bearer};
use crate::decide::Plan;
use crate::hex::hex;
use crate::http::problem::Problem;
use crate::http::{App, is_local, peer};
use crate::limits::{Charge, Limit, rule};

/// The cookie that names a session.
const COOKIE: &str = "claw_admin";
/// Sessions at once; the one that was used least lately goes first.
const MOST: usize = 1_000;
/// How long a session lasts.
const LIFE: Duration = Duration::from_secs(8 * 3600);
/// How long it lasts without being used.
const IDLE: Duration = Duration::from_secs(3600);
/// Logins that may be tried at once from one network, and as many more in a minute.
const LOGINS: u64 = 5;
/// The same, from everywhere.
const ALL_LOGINS: u64 = 100;
/// The interval of both, in milliseconds.
const MINUTE_MS: u64 = 60_000;

/// What is known of those who use the page.
pub struct Access {
    sessions: Mutex<HashMap<Id, Session>>,
    /// The buckets of logins, of one network and of all.
    guards: Option<[Arc<Limit>; 2]>,
    /// The policy of one network's.
    policy: Option<Policy>,
    /// In place of them while the server cannot be asked.
    spare: Mutex<Option<(Bucket, SystemTime)>>,
}

/// The hash of what is in the cookie: what is in memory cannot be used by who reads it.
type Id = [u8; 32];

struct Session {
    name: String,
    csrf: String,
    begun: Instant,
    used: Instant,
    /// The tokens that there were: when others take their place, it ends.
    tokens: Arc<Tokens>,
    /// What the next page tells.
    note: Option<Note>,
}

/// What became of the last change.
#[derive(Clone, Debug)]
pub struct Note {
    /// In words.
    pub text: String,
    /// Whether it went wrong.
    pub is_error: bool,
}

/// Somebody who may.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// How the log and the list of changes call him: no secret.
    pub name: String,
    /// Where he is.
    pub address: IpAddr,
    /// Nothing for a program with a token.
    session: Option<(Id, String)>,
    /// A cookie to be set.
    cookie: Option<HeaderValue>,
}

impl Visitor {
    /// Whether this is a program, which is answered in JSON.
    #[must_use]
    pub fn is_program(&self) -> bool {
        self.session.is_none()
    }

    /// What a form has to bring back.
    #[must_use]
    pub fn csrf(&self) -> &str {
        self.session.as_ref().map_or("", |(_, csrf)| csrf)
    }

    /// Sets the cookie of a session that has just begun.
    pub fn greet(&self, response: &mut Response) {
        if let Some(cookie) = &self.cookie {
            response.headers_mut().insert(header::SET_COOKIE, cookie.clone());
        }
    }
}

/// Why somebody may not.
enum Refused {
    Problem(Problem),
    /// A program at this address has shown a wrong token.
    Guess(IpAddr),
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// The form of the login.
#[derive(Deserialize)]
struct Login {
    token: String,
}

impl Access {
    /// With nobody logged in.
    #[must_use]
    pub fn new(app: &App) -> Self {
        let config = &app.service.config;
        let policy =
            |tokens: u64| Policy::new(tokens, tokens.saturating_mul(1_000_000), MINUTE_MS).ok();
        let guard = |tokens: u64, name: &str| {
            let policy = policy(tokens)?;
            // The name of no limit has this letter in it.
            let base = format!("{}admin/{name}", config.key_prefix).into_bytes();
            Some(Arc::new(Limit::new(name.to_owned(), policy, base)))
        };
        let guards = guard(LOGINS, "logins").zip(guard(ALL_LOGINS, "all-logins"));
        Self {
            sessions: Mutex::default(),
            guards: guards.map(|(one, all)| [one, all]),
            policy: policy(LOGINS),
            spare: Mutex::default(),
        }
    }

    /// Who sends `request`, if he may.
    ///
    /// # Errors
    /// 401 for whoever has to log in, or to show a token; 403 where nobody may; 429 for whoever
    /// has shown wrong ones too often.
    pub fn admit<'a>(
        &'a self,
        app: &'a App,
        request: &Request,
    ) -> impl Future<Output = Result<Visitor, Problem>> + use<'a> {
        // The request is no part of the future: its body is not to be shared.
        let admitted = self.admitted(app, request);
        async move {
            match admitted {
                Ok(visitor) => Ok(visitor),
                Err(Refused::Problem(problem)) => Err(problem),
                Err(Refused::Guess(address)) => {
                    // Who shows a right one never waits for those who guess.
                    self.may_try(app, address).await?;
                    tracing::warn!(%address, "a wrong token for the page for operators");
                    Err(Problem::denied(StatusCode::UNAUTHORIZED, "this is no admin token"))
                }
            }
        }
    }

    fn admitted(&self, app: &App, request: &Request) -> Result<Visitor, Refused> {
        check_place(app, request)?;
        let headers = request.headers();
        let address = app.client(peer(request)?, headers);
        let tokens = app.service.admin_tokens.load();
        if let Some(shown) = bearer(headers)
            && !tokens.is_empty()
        {
            if tokens.has(shown) {
                let name = "token".to_owned();
                return Ok(Visitor { name, address, session: None, cookie: None });
            }
            return Err(Refused::Guess(address));
        }
        if let Some((id, name, csrf)) = self.session(app, headers) {
            return Ok(Visitor { name, address, session: Some((id, csrf)), cookie: None });
        }
        if tokens.is_empty() {
            return Ok(self.begin(app, address, headers)?);
        }
        let needed = "an admin token, or a login, is needed";
        Err(Problem::denied(StatusCode::UNAUTHORIZED, needed).into())
    }

    /// The session of the cookie.
    fn session(&self, app: &App, headers: &HeaderMap) -> Option<(Id, String, String)> {
        let id = hash(cookie(headers)?);
        let mut sessions = self.sessions();
        let session = sessions.get_mut(&id)?;
        if !Arc::ptr_eq(&session.tokens, &app.service.admin_tokens.load()) {
            sessions.remove(&id);
            return None;
        }
        session.used = Instant::now();
        Some((id, session.name.clone(), session.csrf.clone()))
    }

    /// Those that have not ended.
    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<Id, Session>> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions
            .retain(|_, session| session.begun.elapsed() < LIFE && session.used.elapsed() < IDLE);
        sessions
    }

    /// Begins a session.
    fn begin(&self, app: &App, address: IpAddr, headers: &HeaderMap) -> Result<Visitor, Problem> {
        let (secret, csrf) = (random()?, random()?);
        let id = hash(&secret);
        let name = format!("session {}", hex(id.get(..4).unwrap_or_default()));
        let now = Instant::now();
        let mut sessions = self.sessions();
        if sessions.len() >= MOST
            && let Some(oldest) =
                sessions.iter().min_by_key(|(_, session)| session.used).map(|(id, _)| *id)
        {
            sessions.remove(&oldest);
        }
        let session = Session {
            name: name.clone(),
            csrf: csrf.clone(),
            begun: now,
            used: now,
            tokens: app.service.admin_tokens.load_full(),
            note: None,
        };
        sessions.insert(id, session);
        let is_https = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
        let cookie = format!(
            "{COOKIE}={secret}; Path={PATH}; HttpOnly; SameSite=Strict; Max-Age={}{}",
            LIFE.as_secs(),
            if is_https { "; Secure" } else { "" }
        );
        let cookie = HeaderValue::try_from(cookie).map_err(|_| Problem::internal("a cookie"))?;
        Ok(Visitor { name, address, session: Some((id, csrf)), cookie: Some(cookie) })
    }

    /// What the last change of a session came to. It is told once.
    #[must_use]
    pub fn note(&self, visitor: &Visitor) -> Option<Note> {
        let (id, _) = visitor.session.as_ref()?;
        self.sessions().get_mut(id)?.note.take()
    }

    /// Keeps what the next page of a session tells.
    pub fn keep(&self, visitor: &Visitor, note: Note) {
        if let Some((id, _)) = &visitor.session
            && let Some(session) = self.sessions().get_mut(id)
        {
            session.note = Some(note);
        }
    }

    /// Whether a login may be tried: the server says, or, while it cannot, one bucket here.
    async fn may_try(&self, app: &App, address: IpAddr) -> Result<(), Problem> {
        let (Some([one, all]), Some(policy)) = (&self.guards, self.policy) else {
            return Err(Problem::internal("the policies of logins are out of bounds"));
        };
        let network = rule::network(address).to_string();
        let charge =
            |limit: &Arc<Limit>, key| Charge { limit: Arc::clone(limit), key, cost: 1, keep: 0 };
        let charges =
            vec![charge(one, one.key(Some(network.as_bytes()))), charge(all, all.key(None))];
        let verdict = app.redis.decide(Plan::new(charges)).await;
        let (may, ms) = match verdict.blind {
            false => (verdict.allowed, verdict.retry_after_ms().unwrap_or(MINUTE_MS)),
            true => (self.spare(policy), MINUTE_MS),
        };
        if may {
            return Ok(());
        }
        let seconds = ms.div_ceil(1_000).max(1);
        let detail = format!("too many logins were tried; try again in {seconds} s");
        Err(Problem::quota_exceeded(vec![one.name.clone()], detail))
    }

    fn spare(&self, policy: Policy) -> bool {
        let now = SystemTime::now();
        let micros =
            now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros());
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let (bucket, _) =
            spare.get_or_insert_with(|| (Bucket::full(policy, Weight::ONE, micros), now));
        bucket.take(Demand::all(1), micros).taken > 0
    }
}

/// Whether anybody may at all, from where this comes.
///
/// # Errors
/// 403, with what is missing.
fn check_place(app: &App, request: &Request) -> Result<(), Problem> {
    let denied = |why: &str| Err(Problem::denied(StatusCode::FORBIDDEN, why));
    let has_tokens = !app.service.admin_tokens.load().is_empty();
    if !has_tokens && !app.service.config.ops_addr.ip().is_loopback() {
        return denied("the page is off: OPS_ADDR is not on loopback, and there is no ADMIN_TOKEN");
    }
    if has_tokens {
        return Ok(());
    }
    if !is_local(request)? {
        return denied(
            "without an ADMIN_TOKEN the page answers this machine only, under a name of it, and no proxy",
        );
    }
    Ok(())
}

/// Whether the visitor's form is his own: it brings back what the page gave him, and no other
/// page has sent it.
///
/// # Errors
/// 403 if not.
pub fn check_form(visitor: &Visitor, headers: &HeaderMap, csrf: &str) -> Result<(), Problem> {
    if visitor.is_program() {
        return Ok(());
    }
    check_origin(headers)?;
    match bool::from(visitor.csrf().as_bytes().ct_eq(csrf.as_bytes())) {
        true => Ok(()),
        false => Err(Problem::denied(
            StatusCode::FORBIDDEN,
            "the form is not of this session: load the page again",
        )),
    }
}

/// Whether a browser says that a page from elsewhere has sent this.
fn check_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let is_own = match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => origin.split_once("://").map(|(_, host)| host) == text("host"),
        (None, None) => true,
    };
    match is_own {
        true => Ok(()),
        false => Err(Problem::denied(StatusCode::FORBIDDEN, "another page has sent this form")),
    }
}

/// `POST /admin/login`: begins a session for whoever knows a token.
///
/// # Errors
/// 403 for another page's form, 429 after too many tries, 401 for a wrong token.
pub async fn login(admin: &Admin, request: Request) -> Result<Response, Problem> {
    let app = &admin.app;
    check_place(app, &request)?;
    check_origin(request.headers())?;
    let headers = request.headers().clone();
    let address = app.client(peer(&request)?, &headers);
    let form: Login = change::form(&admin.app, request).await?;
    admin.access.may_try(app, address).await?;
    if !app.service.admin_tokens.load().has(form.token.trim()) {
        tracing::warn!(%address, "a login to the page for operators with a wrong token");
        return Err(Problem::denied(StatusCode::UNAUTHORIZED, "this is no admin token"));
    }
    let visitor = admin.access.begin(app, address, &headers)?;
    audit::note(app, &visitor, "login").await;
    let mut response = Redirect::to(PATH).into_response();
    visitor.greet(&mut response);
    Ok(response)
}

/// `POST /admin/logout`: ends the session.
///
/// # Errors
/// 403 for another page's form.
pub async fn logout(admin: &Admin, request: Request) -> Result<Response, Problem> {
    let visitor = admin.access.admit(&admin.app, &request).await?;
    let headers = request.headers().clone();
    let form: change::Bare = change::form(&admin.app, request).await?;
    check_form(&visitor, &headers, &form.csrf)?;
    if let Some((id, _)) = &visitor.session {
        admin.access.sessions().remove(id);
    }
    let mut response = Redirect::to("/admin/login").into_response();
    let gone =
        HeaderValue::from_static("claw_admin=; Path=/admin; HttpOnly; SameSite=Strict; Max-Age=0");
    response.headers_mut().insert(header::SET_COOKIE, gone);
    Ok(response)
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

fn hash(secret: &str) -> Id {
    Sha256::digest(secret.as_bytes()).into()
}

/// 256 bits that nobody can guess.
fn random() -> Result<String, Problem> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Problem::internal(format!("no random: {error}")))?;
    Ok(hex(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_other_pages() {
        let own = |fields: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            headers.insert("host", HeaderValue::from_static("localhost:9102"));
            for (name, value) in fields {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            check_origin(&headers).is_ok()
        };
        assert!(own(&[]));
        assert!(own(&[("sec-fetch-site", "same-origin")]));
        assert!(own(&[("sec-fetch-site", "none")]));
        assert!(own(&[("origin", "http://localhost:9102")]));
        assert!(!own(&[("sec-fetch-site", "cross-site")]));
        assert!(!own(&[("sec-fetch-site", "same-site"), ("origin", "http://localhost:9102")]));
        assert!(!own(&[("origin", "http://localhost:9103")]));
        assert!(!own(&[("origin", "null")]));
    }
}
