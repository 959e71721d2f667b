//! The walk over all keys: sends every live bucket again to a peer that may have
//! lost some, repairs now and then what got lost otherwise, and keeps or lets go
//! the buckets whose expiry hangs on what the peers know.

use super::{Regions, SyncMode};
use crate::commands;
use crate::config::Settings;
use crate::host::{self, Context, Key, Kind, OwnedStr, Scan};
use crate::store::{self, EncodedBucket};
use crate::strategy::Strategy;
use claw_sync::Pusher;
use std::time::{Duration, Instant};

/// The longest that work between commands holds up the server at a time.
const SLICE: Duration = Duration::from_micros(600);

/// How much of that functions may take when there is a walk besides.
const FOLDING: Duration = Duration::from_micros(400);

/// The shortest time from one slice to the next, however often the server calls.
const PAUSE: Duration = Duration::from_millis(50);

/// From the end of one walk to the beginning of the next that nobody asked for.
const REPAIR: Duration = Duration::from_secs(60);

/// The walk waits while more states than this wait to be sent to a peer.
const MOST_QUEUED: u64 = 100_000;

/// The walk waits while more notes than this wait for the thread that takes them off:
/// a few megabytes, so that making room for more never takes long.
const MOST_NOTED: usize = 20_000;

/// The longest that it waits for a peer that takes nothing off.
const HOLD: Duration = Duration::from_secs(10);

/// The shortest time from one complaint in the log to the next.
const QUIET: Duration = Duration::from_secs(1);

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
    /// When the last slice of work began.
    worked: Option<Instant>,
    /// The longest slice of this walk, or of the last one.
    pub(super) longest: Duration,
    /// Since when the walk has been waiting for a peer.
    held: Option<Instant>,
    /// When the log was last told of a function that failed.
    complained: Option<Instant>,
}

impl Sweep {
    /// Whether the walk is for a peer that lacks everything.
    fn is_hurried(&self) -> bool {
        self.walk.as_ref().is_some_and(|walk| walk.asked)
    }

    /// A slice of work that began then has ended.
    fn worked_since(&mut self, begun: Instant) {
        if self.walk.is_some() {
            self.longest = self.longest.max(begun.elapsed());
        }
    }
}

#[derive(Debug)]
struct Walk {
    db: u32,
    scan: Scan,
    /// For a peer that lacks something. It is not begun anew for another one, or
    /// peers that need one all the time would let none end.
    asked: bool,
}

/// The work between commands: to be called some times a second.
pub(crate) fn tick(ctx: &Context<'_>, primary: bool) {
    let regions = &ctx.module().regions;
    let now = host::now();
    let changed =
        ctx.module().settings.try_borrow_mut().is_ok_and(
            |mut settings: std::cell::RefMut<'_, Settings>| settings.take_sync_changed(),
        );
    if changed || regions.is_stale(primary) {
        regions.restart(ctx, primary);
    }
    regions.join(Duration::ZERO);
    if let Some(share) = regions.watch(ctx, now) {
        ctx.log(&format!("region sync: this region now admits {share} permille of every limit"));
    }
    // What a walk notes, and what is folded, is written too.
    if ctx.must_not_write() {
        return;
    }
    let Ok(mut sweep) = regions.sweep.try_borrow_mut() else {
        return;
    };
    let begun = Instant::now();
    if sweep.worked.is_none_or(|before| begun.duration_since(before) >= PAUSE) {
        sweep.worked = Some(begun);
        fold_changed(ctx, &mut sweep, begun);
        walk(ctx, &mut sweep, begun, SLICE);
        sweep.worked_since(begun);
    }
    if sweep.is_hurried() {
        ctx.module().pacer.start(ctx, hurry);
    } else {
        ctx.module().pacer.stop(ctx);
    }
}

/// Goes on with the walk while a peer lacks everything, between the ticks too.
fn hurry(ctx: &Context<'_>, slice: Duration) -> bool {
    let Ok(mut sweep) = ctx.module().regions.sweep.try_borrow_mut() else {
        return false;
    };
    if !sweep.is_hurried() || ctx.must_not_write() {
        return false;
    }
    let begun = Instant::now();
    walk(ctx, &mut sweep, begun, slice);
    sweep.worked_since(begun);
    true
}

/// Lets the function of the strategy make the buckets anew that were changed here.
fn fold_changed(ctx: &Context<'_>, sweep: &mut Sweep, begun: Instant) {
    let regions = &ctx.module().regions;
    let Some(strategy @ Strategy::Function(_)) = regions.strategy() else {
        return;
    };
    while begun.elapsed() < FOLDING {
        let Some((db, name)) = regions.next_changed() else {
            return;
        };
        let (true, Some(name)) = (ctx.select(db), OwnedStr::new(&name)) else {
            continue;
        };
        if let Err(why) = commands::fold_again(ctx, name.as_str(), &strategy) {
            ctx.module().stats.merge_errors.add(1);
            if sweep.complained.is_none_or(|before| before.elapsed() >= QUIET) {
                sweep.complained = Some(Instant::now());
                ctx.log(&format!("region sync: {}", why.reason()));
            }
        }
    }
}

impl Regions {
    /// Begins as the server is configured, when the module is loaded.
    pub(crate) fn begin(&self, ctx: &Context<'_>) {
        if let Ok(mut settings) = ctx.module().settings.try_borrow_mut() {
            settings.take_sync_changed();
        }
        self.restart(ctx, ctx.is_primary());
    }

    /// Goes by the configuration and role as they are now, and says in the log
    /// what cannot be.
    pub(crate) fn restart(&self, ctx: &Context<'_>, primary: bool) {
        let Ok(settings) = ctx.module().settings.try_borrow() else {
            return;
        };
        if let Some(trouble) = self.apply(&settings, primary, host::now()) {
            ctx.log(&trouble);
        }
        // What was under way completes nothing for the senders that begin now.
        if let Ok(mut sweep) = self.sweep.try_borrow_mut() {
            sweep.walk = None;
        }
    }

    /// The longest that the walk, or the last one, held the server at a time, in
    /// microseconds.
    pub(super) fn longest_slice(&self) -> u64 {
        let longest = self.sweep.try_borrow().map_or(Duration::ZERO, |sweep| sweep.longest);
        u64::try_from(longest.as_micros()).unwrap_or(u64::MAX)
    }

    /// How many walks over all keys have been completed.
    pub(super) fn walks(&self) -> u64 {
        self.sweep.try_borrow().map_or(0, |sweep| sweep.completed)
    }
}

/// Goes on with the walk, or begins it when it is time, until `slice` has passed since
/// `begun`.
fn walk(ctx: &Context<'_>, sweep: &mut Sweep, begun: Instant, slice: Duration) {
    let regions = &ctx.module().regions;
    let Some(resend) = regions.with_pusher(Pusher::needs_resend) else {
        return;
    };
    // Expiries are looked after as soon as they have to.
    let passes_on = std::mem::replace(&mut sweep.passes_on, regions.passes_on());
    // What came in before is passed on too.
    let turned = regions.is_awaited() != sweep.awaited || (sweep.passes_on && !passes_on);
    sweep.awaited = regions.is_awaited();
    let due = sweep.ended.is_none_or(|ended| ended.elapsed() >= REPAIR);
    let begins = match &sweep.walk {
        None => resend || turned || due,
        Some(walk) => resend && !walk.asked,
    };
    if begins {
        sweep.again = false;
        sweep.longest = Duration::ZERO;
        sweep.walk = Some(Walk { db: 0, scan: Scan::new(), asked: resend });
        regions.with_pusher(Pusher::resend_begins);
    } else {
        sweep.again |= turned;
    }
    while begun.elapsed() < slice {
        let Some(walk) = &mut sweep.walk else {
            return;
        };
        // What the walk notes has to be sent before it notes more.
        if regions.with_pusher(Pusher::noted).is_none_or(|noted| noted > MOST_NOTED) {
            return;
        }
        if regions.with_pusher(Pusher::longest_queue).is_none_or(|queue| queue > MOST_QUEUED) {
            let since = *sweep.held.get_or_insert_with(Instant::now);
            if since.elapsed() < HOLD {
                return;
            }
        } else {
            sweep.held = None;
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
            walk.db = walk.db.saturating_add(1);
            walk.scan = Scan::new();
        }
    }
}

fn visit(ctx: &Context<'_>, db: u32, name: &OwnedStr) {
    let name = name.as_str();
    let regions = &ctx.module().regions;
    let mode = regions.mode(name);
    if mode == SyncMode::None {
        return;
    }
    let key = Key::open_unnoticed(ctx, name);
    if key.kind() != Kind::Hash {
        return;
    }
    // A bucket that cannot be read is for the command that uses it to report.
    let Ok(opened) = store::open_for_read(ctx, &key, host::now()) else {
        return;
    };
    let Some(record) = opened.record() else {
        return;
    };
    let shared = match mode {
        SyncMode::None => false,
        SyncMode::Counters => record.debits.is_some(),
        SyncMode::State => record.tokens.is_some(),
        SyncMode::Folded => record.regions.is_some(),
    };
    if !shared {
        return;
    }
    let Ok(written) = EncodedBucket::of(ctx, &opened) else {
        return;
    };
    regions.note(db, name, &opened, &written);
    if store::expiry_is_due(ctx, &key, &opened) {
        drop(key);
        let key = Key::open_write_unnoticed(ctx, name);
        store::renew_expiry(ctx, &key, &opened);
    }
}
