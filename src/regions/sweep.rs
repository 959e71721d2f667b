//! The walk over all keys: sends every live bucket again to a peer that may have
//! lost some, repairs now and then what got lost otherwise, and keeps or lets go
//! the buckets whose expiry hangs on what the peers know.

use super::{Part, Regions};
use crate::commands;
use crate::config::Settings;
use crate::server::{self, Context, Key, Kind, OwnedStr, Scan};
use crate::store;
use crate::strategy::Strategy;
use claw_sync::Pusher;
use std::time::{Duration, Instant};

/// The longest that the walk holds up the server at a time.
const SLICE: Duration = Duration::from_micros(800);

/// From the end of one walk to the beginning of the next that nobody asked for.
const REPAIR: Duration = Duration::from_secs(60);

/// The walk waits while more states than this wait to be sent to a peer.
const MOST_QUEUED: u64 = 50_000;

/// Where the walk is.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    walk: Option<Walk>,
    /// Another walk has to follow.
    again: bool,
    /// When the last one ended.
    ended: Option<Instant>,
    /// What the walk before was told of [`Regions::is_awaited`].
    awaited: bool,
    /// See [`Regions::passes_on`]; as of the walk before.
    passes_on: bool,
    /// How many have been completed.
    pub(super) completed: u64,
}

#[derive(Debug)]
struct Walk {
    db: u32,
    scan: Scan,
}

/// The work between commands: to be called some times a second.
pub(crate) fn tick(ctx: &Context<'_>, primary: bool) {
    let regions = &ctx.module().regions;
    let now = server::now();
    let changed =
        ctx.module().settings.try_borrow_mut().is_ok_and(
            |mut settings: std::cell::RefMut<'_, Settings>| settings.take_sync_changed(),
        );
    if changed {
        regions.restart(ctx, primary);
    }
    regions.join(Duration::ZERO);
    if let Some(share) = regions.watch(ctx, now) {
        ctx.log(&format!("region sync: this region now admits {share} permille of every limit"));
    }
    fold_changed(ctx);
    sweep(ctx);
}

/// Lets the function of the strategy make the buckets anew that were changed here.
fn fold_changed(ctx: &Context<'_>) {
    let regions = &ctx.module().regions;
    let Some(strategy @ Strategy::Function(_)) = regions.strategy() else {
        return;
    };
    let until = Instant::now().checked_add(SLICE);
    while until.is_some_and(|until| Instant::now() < until) {
        let Some((db, name)) = regions.next_changed() else {
            return;
        };
        let (true, Some(name)) = (ctx.select(db), OwnedStr::new(&name)) else {
            continue;
        };
        if let Err(why) = commands::fold_again(ctx, name.as_str(), &strategy) {
            ctx.module().stats.merge_errors.add(1);
            ctx.log(&format!("region sync: {}", why.reason()));
        }
    }
}

impl Regions {
    /// Goes by the configuration and role as they are now, and says in the log
    /// what cannot be.
    pub(crate) fn restart(&self, ctx: &Context<'_>, primary: bool) {
        let Ok(settings) = ctx.module().settings.try_borrow() else {
            return;
        };
        if let Some(trouble) = self.apply(&settings, primary, server::now()) {
            ctx.log(&trouble);
        }
    }

    /// How many walks over all keys have been completed.
    pub(super) fn walks(&self) -> u64 {
        self.sweep.try_borrow().map_or(0, |sweep| sweep.completed)
    }
}

fn sweep(ctx: &Context<'_>) {
    let regions = &ctx.module().regions;
    let Some(resend) = regions.with_pusher(Pusher::needs_resend) else {
        return;
    };
    let Ok(mut sweep) = regions.sweep.try_borrow_mut() else {
        return;
    };
    // Expiries are looked after as soon as they have to.
    let passes_on = std::mem::replace(&mut sweep.passes_on, regions.passes_on());
    // What came in before is passed on too.
    let turned = regions.is_awaited() != sweep.awaited || (sweep.passes_on && !passes_on);
    sweep.awaited = regions.is_awaited();
    let due = sweep.ended.is_none_or(|ended| ended.elapsed() >= REPAIR);
    if resend || (sweep.walk.is_none() && (turned || due)) {
        sweep.again = false;
        sweep.walk = Some(Walk { db: 0, scan: Scan::new() });
        regions.with_pusher(Pusher::resend_begins);
    } else {
        sweep.again |= turned;
    }
    let until = Instant::now().checked_add(SLICE);
    while until.is_some_and(|until| Instant::now() < until) {
        let Some(walk) = &mut sweep.walk else {
            return;
        };
        // What the walk notes has to be sent before it notes more.
        if regions.with_pusher(Pusher::longest_queue).is_none_or(|queue| queue > MOST_QUEUED) {
            return;
        }
        if !ctx.select(walk.db) {
            regions.with_pusher(Pusher::resend_ends);
            sweep.walk = None;
            sweep.ended = Some(Instant::now()).filter(|_| !sweep.again);
            sweep.completed = sweep.completed.saturating_add(1);
            return;
        }
        let (names, more) = walk.scan.next(ctx);
        for name in &names {
            visit(ctx, walk.db, name);
        }
        if !more {
            *walk = Walk { db: walk.db.saturating_add(1), scan: Scan::new() };
        }
    }
}

fn visit(ctx: &Context<'_>, db: u32, name: &OwnedStr) {
    let name = name.as_str();
    let regions = &ctx.module().regions;
    let part = regions.part(name);
    if part == Part::None {
        return;
    }
    let key = Key::open_unnoticed(ctx, name);
    if key.kind() != Kind::Hash {
        return;
    }
    // A bucket that cannot be read is for the command that uses it to report.
    let Ok(opened) = store::open(ctx, &key, server::now()) else {
        return;
    };
    let Some(record) = opened.record() else {
        return;
    };
    let shared = match part {
        Part::None => false,
        Part::Counted => record.debits.is_some(),
        Part::Sent => record.tokens.is_some(),
        Part::Folded => record.regions.is_some(),
    };
    if !shared {
        return;
    }
    regions.note(db, name, &opened);
    drop(key);
    let key = Key::open_write(ctx, name);
    store::renew_expiry(ctx, &key, &opened);
}
