//! Places in flight: what a request needs besides tokens, under limits that see all that their
//! backend is asked.
//!
//! A place is taken after the limits have let the request pass: one that they refuse would hold it
//! while the server is asked, and a flood of such requests all of them.

use std::sync::Arc;
use std::time::Duration;

use super::App;
use super::problem::Problem;
use crate::decide::Verdict;
use crate::limits::adaptive::{Adaptive, Profile};
use crate::limits::{Charge, Limit};
use crate::meter::Slot;

/// A limit of which a request needs a place.
#[derive(Debug)]
pub struct Wanted {
    limit: Arc<Limit>,
    /// Hundredths of all places that the request leaves for others.
    kept: u8,
}

/// A place that a limit has given.
#[derive(Debug)]
pub struct Place {
    /// The place.
    pub slot: Slot,
    /// The limit's name.
    pub limit: String,
    /// How long its backend may take.
    pub sla: Duration,
}

/// What a request needs under its charges, of each of which it leaves what `kept` says.
pub fn wanted(charges: &[Charge], kept: impl Fn(&Adaptive) -> u8) -> Vec<Wanted> {
    charges
        .iter()
        .filter_map(|Charge { limit, .. }| {
            let kept = kept(on_path(limit)?);
            Some(Wanted { limit: Arc::clone(limit), kept })
        })
        .collect()
}

fn on_path(limit: &Limit) -> Option<&Adaptive> {
    limit.adaptive.as_ref().filter(|it| it.settings.profile == Profile::OnPath)
}

/// Looks whether there are places, before anything is charged.
///
/// # Errors
/// When there is none.
pub fn look(app: &App, wanted: &[Wanted]) -> Result<(), Problem> {
    for Wanted { limit, kept } in wanted {
        if let Some(adaptive) = on_path(limit)
            && !adaptive.meter.has_place(*kept)
        {
            adaptive.meter.reject();
            return Err(busy(app, limit));
        }
    }
    Ok(())
}

/// Takes the places of a request that has passed, which is let through then. Where others have been quicker, what was charged
/// is given back.
///
/// # Errors
/// When there is none any more.
pub async fn enter(app: &App, wanted: &[Wanted], verdict: &Verdict) -> Result<Vec<Place>, Problem> {
    let mut places = Vec::with_capacity(wanted.len());
    for Wanted { limit, kept } in wanted {
        let Some(adaptive) = on_path(limit) else { continue };
        let Some(slot) = adaptive.meter.enter(*kept) else {
            drop(places);
            adaptive.meter.reject();
            app.redis.undo(verdict).await;
            return Err(busy(app, limit));
        };
        let sla = Duration::from_micros(adaptive.settings.bounds.sla_us);
        places.push(Place { slot, limit: limit.name.clone(), sla });
    }
    verdict.admit();
    Ok(places)
}

/// The problem of a request without a place, which is counted.
pub fn busy(app: &App, limit: &Limit) -> Problem {
    app.service.metrics.count_limited(&limit.name);
    Problem::busy(limit.name.clone())
}
