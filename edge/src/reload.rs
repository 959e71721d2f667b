//! Limits and tokens are read again when a file of theirs changes, or on SIGHUP.
//!
//! The files are read each second rather than watched: what is compared is what they say, so
//! that it does not matter how it changed, by a write, a rename, or the link that Kubernetes
//! turns when a ConfigMap does.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::time::sleep;

use crate::access::Tokens;
use crate::limits::{Mistake, Sources};
use crate::metrics::{Reload, ReloadResult};
use crate::service::{Service, read_tokens};

/// How often the files are read.
const EVERY: Duration = Duration::from_secs(1);

/// Keeps the limits of `service` up to date, for ever.
pub async fn watch(service: &Service, mut hangup: Signal) -> Infallible {
    let mut last: Result<Sources, Mistake> = Ok(service.limits.load().sources.clone());
    let mut tried = last.clone();
    let mut last_tokens = read_tokens(&service.config);
    let mut told: Option<String> = None;
    loop {
        let is_wanted = tokio::select! {
            _ = hangup.recv() => true,
            () = sleep(EVERY) => false,
        };
        let read = Sources::read(&service.config);
        // Half a file can be a whole one of fewer limits: it counts when it was read twice.
        let is_settled = read == last;
        last = read;
        if is_wanted || (is_settled && last != tried) {
            tried = last.clone();
            apply(service, &last);
        }
        let tokens = read_tokens(&service.config);
        if is_wanted || tokens == last_tokens {
            match &tokens {
                Ok(tokens) => {
                    told = None;
                    apply_tokens(service, tokens);
                }
                Err(why) if told.as_ref() != Some(why) => {
                    tracing::error!(why, "tokens cannot be read: those before them stay in force");
                    told = Some(why.clone());
                }
                Err(_) => {}
            }
        }
        last_tokens = tokens;
    }
}

/// Puts tokens in force that are others than before.
fn apply_tokens(service: &Service, (api, admin): &(Tokens, Tokens)) {
    for (name, now, before) in
        [("API", api, &service.tokens), ("admin", admin, &service.admin_tokens)]
    {
        if **before.load() != *now {
            before.store(Arc::new(now.clone()));
            tracing::info!(name, "tokens were read again");
        }
    }
}

/// Puts what was read in force, or says why not.
fn apply(service: &Service, read: &Result<Sources, Mistake>) {
    let limits = match read {
        Ok(sources) => sources.limits(&service.config),
        Err(mistake) => Err(mistake.clone()),
    };
    let result = match limits {
        Ok(mut limits) => {
            limits.go_on(&service.limits.load());
            limits.begin_to_count(&service.metrics.redis);
            service.limits.store(limits.into());
            tracing::info!("limits were read again");
            ReloadResult::Applied
        }
        Err(mistake) => {
            tracing::error!(%mistake, "limits are refused: those before them stay in force");
            ReloadResult::Refused
        }
    };
    service.metrics.reloads.get_or_create(&Reload { result }).inc();
}
