//! The work between commands: who is silent, and the walk over all keys, which sends every live
//! bucket again to a peer that may have lost some, and repairs now and then what got lost
//! otherwise.

use crate::error::Error;
use crate::host::{self, Context, Key, Kind, OwnedStr, Scan, Str};
use crate::store;
use crate::strategy::Strategy;
use claw_core::membership::WHOLE;
use claw_core::open::OpenBucket;
use claw_core::plan::SyncMode;
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

/// How long the server's end may wait for peers to hear what they have not.
const FAREWELL: Duration = Duration::from_secs(1);

/// Where the walk is.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    walk: Option<Walk>,
    /// Another walk has to follow.
    again: bool,
    /// When the last one ended.
    ended: Option<Instant>,
    /// When it was looked last, what some peer said was passed on to another.
    passes_on: bool,
    /// How many have been completed.
    completed: u64,
    /// When the last slice of work began.
    worked: Option<Instant>,
    /// The longest slice of this walk, or of the last one.
    longest: Duration,
    /// Since when the walk has been waiting for a peer.
    held: Option<Instant>,
    /// When the log was last told of a function that failed.
    complained: Option<Instant>,
}

impl Upkeep {
    /// How many walks over all keys have been completed.
    pub(crate) fn walks(&self) -> u64 {
        self.completed
    }

    /// The longest that the walk, or the last one, held the server at a time, in
    /// microseconds.
    pub(crate) fn longest_slice(&self) -> u64 {
        u64::try_from(self.longest.as_micros()).unwrap_or(u64::MAX)
    }

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

/// Begins as the server is configured, when the module is loaded.
pub(crate) fn begin(ctx: &Context<'_>) {
    // Were they in use, the first tick would begin once more.
    if let Ok(mut settings) = ctx.module().settings.try_borrow_mut() {
        settings.take_sync_changed();
    }
    restart(ctx, ctx.is_primary());
}

/// Goes by the configuration and role as they are now, and says in the log
/// what cannot be.
pub(crate) fn restart(ctx: &Context<'_>, primary: bool) {
    let module = ctx.module();
    let Ok(settings) = module.settings.try_borrow() else {
        debug_assert!(false, "the parameters are in use between commands");
        return module.regions.apply_again();
    };
    if let Some(trouble) = module.regions.apply(&settings, primary, host::now()) {
        ctx.log(&trouble);
    }
    // What was under way completes nothing for the senders that begin now.
    match module.upkeep.try_borrow_mut() {
        Ok(mut upkeep) => upkeep.walk = None,
        Err(_) => debug_assert!(false, "the walk is under way between commands"),
    }
}

/// Buckets are not what was made of them here: a key has arrived, the databases of `exchanged` have
/// other keys, or all were loaded.
pub(crate) fn begin_anew(ctx: &Context<'_>, what: Anew<'_>) {
    let regions = &ctx.module().regions;
    let begun = match what {
        Anew::Key(name) => store::arrived(ctx, name),
        Anew::Databases(dbs) => dbs.into_iter().try_for_each(|db| regions.exchanged(db)),
        Anew::All => regions.begin_life(),
    };
    if let Err(why) = begun {
        debug_assert!(false, "region sync is in use while keys arrive");
        ctx.log(&format!("region sync: counters are not begun anew: {}", why.reason()));
    }
}

/// Whose counters are to be begun anew.
pub(crate) enum Anew<'a> {
    /// Those of one key.
    Key(Str<'a>),
    /// Those of two databases that were exchanged.
    Databases([u32; 2]),
    /// All.
    All,
}

/// The server ends.
pub(crate) fn end(ctx: &Context<'_>) {
    if !ctx.module().regions.drain(FAREWELL) {
        ctx.log("region sync: the server ends before every connected peer has heard everything");
    }
}

/// To be called some times a second.
pub(crate) fn tick(ctx: &Context<'_>, primary: bool) {
    let module = ctx.module();
    let regions = &module.regions;
    let now = host::now();
    let changed =
        module.settings.try_borrow_mut().is_ok_and(|mut settings| settings.take_sync_changed());
    if changed || regions.is_stale(primary) {
        restart(ctx, primary);
    }
    regions.join(Duration::ZERO);
    if let Some(complaint) = regions.complaint() {
        ctx.log(&format!("region sync: {complaint}"));
    }
    if let Some(share) = regions.watch(ctx, now) {
        ctx.log(&format!("region sync: this region now admits {share} permille of every limit"));
        // Of less than the whole every bucket is full later.
        if let Ok(mut upkeep) = module.upkeep.try_borrow_mut() {
            upkeep.again |= share < WHOLE;
        }
    }
    // What a walk notes, and what is folded, is written too.
    if ctx.must_not_write() {
        return;
    }
    let Ok(mut upkeep) = module.upkeep.try_borrow_mut() else {
        debug_assert!(false, "a tick within a tick");
        return;
    };
    let begun = Instant::now();
    if upkeep.worked.is_none_or(|before| begun.duration_since(before) >= PAUSE) {
        upkeep.worked = Some(begun);
        fold_changed(ctx, &mut upkeep, begun);
        walk(ctx, &mut upkeep, begun, SLICE);
        upkeep.worked_since(begun);
    }
    if upkeep.is_hurried() {
        ctx.module().pacer.start(ctx, hurry);
    } else {
        ctx.module().pacer.stop(ctx);
    }
}

/// Goes on with the walk while a peer lacks everything, between the ticks too.
fn hurry(ctx: &Context<'_>, slice: Duration) -> bool {
    let Ok(mut upkeep) = ctx.module().upkeep.try_borrow_mut() else {
        debug_assert!(false, "a slice of work within another");
        return false;
    };
    if !upkeep.is_hurried() || ctx.must_not_write() {
        return false;
    }
    let begun = Instant::now();
    walk(ctx, &mut upkeep, begun, slice);
    upkeep.worked_since(begun);
    true
}

/// Lets the function of the strategy make the buckets anew that were changed here.
fn fold_changed(ctx: &Context<'_>, upkeep: &mut Upkeep, begun: Instant) {
    let regions = &ctx.module().regions;
    let Ok(Some(strategy @ Strategy::Function(_))) = regions.strategy() else {
        return;
    };
    while begun.elapsed() < FOLDING {
        let Some((db, name)) = regions.next_changed() else {
            return;
        };
        let (true, Some(name)) = (ctx.select(db), OwnedStr::new(&name)) else {
            debug_assert!(false, "a bucket of a database that is not there");
            continue;
        };
        if let Err(why) = fold_again(ctx, name.as_str(), &strategy) {
            ctx.module().stats.merge_errors.add(1);
            complain(ctx, &mut upkeep.complained, &why);
        }
    }
}

/// Says in the log what went wrong between commands, not too often.
fn complain(ctx: &Context<'_>, complained: &mut Option<Instant>, why: &Error) {
    if complained.is_none_or(|before| before.elapsed() >= QUIET) {
        *complained = Some(Instant::now());
        ctx.log(&format!("region sync: {}", why.reason()));
    }
}

/// Makes a bucket anew that was changed by a command of this region.
fn fold_again(ctx: &Context<'_>, name: Str<'_>, strategy: &Strategy) -> Result<(), Error> {
    let now = host::now();
    let record = store::load(ctx, &Key::open_read(ctx, name), now)?;
    // Without them it has been deleted since, or is another bucket.
    let Some(states) = record.as_ref().and_then(|record| record.regions.as_deref()) else {
        return Ok(());
    };
    // No key is open while the function runs.
    let view = strategy.fold(ctx, states, store::configured_policy(ctx, name)?, now)?;
    let key = Key::open_write(ctx, name);
    let record = store::load(ctx, &key, now)?;
    if record.is_some() {
        let mut opened = {
            let settings = ctx.module().settings()?;
            OpenBucket::merged(record, &view, &settings.configured().of(name.as_bytes()), true, now)
        };
        store::save(ctx, &key, &mut opened)?;
    }
    Ok(())
}

/// Goes on with the walk, or begins it when it is time, until `slice` has passed since
/// `begun`.
fn walk(ctx: &Context<'_>, upkeep: &mut Upkeep, begun: Instant, slice: Duration) {
    let regions = &ctx.module().regions;
    let Some(resend) = regions.with_pusher(Pusher::needs_resend) else {
        return;
    };
    let passed_on = std::mem::replace(&mut upkeep.passes_on, regions.passes_on());
    // What came in before is passed on too.
    let turned = upkeep.passes_on && !passed_on;
    let due = upkeep.ended.is_none_or(|ended| ended.elapsed() >= REPAIR);
    let begins = match &upkeep.walk {
        None => resend || turned || due || upkeep.again,
        Some(walk) => resend && !walk.asked,
    };
    if begins {
        upkeep.again = false;
        upkeep.longest = Duration::ZERO;
        upkeep.walk = Some(Walk { db: 0, scan: Scan::new(), asked: resend });
        regions.with_pusher(Pusher::resend_begins);
    } else {
        upkeep.again |= turned;
    }
    while begun.elapsed() < slice {
        let Some(walk) = &mut upkeep.walk else {
            return;
        };
        // What the walk notes has to be sent before it notes more.
        if regions.with_pusher(Pusher::noted).is_none_or(|noted| noted > MOST_NOTED) {
            return;
        }
        if regions.with_pusher(Pusher::longest_queue).is_none_or(|queue| queue > MOST_QUEUED) {
            let since = *upkeep.held.get_or_insert_with(Instant::now);
            if since.elapsed() < HOLD {
                return;
            }
        } else {
            upkeep.held = None;
        }
        if !ctx.select(walk.db) {
            regions.with_pusher(Pusher::resend_ends);
            upkeep.walk = None;
            upkeep.ended = Some(Instant::now()).filter(|_| !upkeep.again);
            upkeep.completed = upkeep.completed.saturating_add(1);
            return;
        }
        let (names, more) = walk.scan.next(ctx);
        for name in &names {
            if let Err(why) = visit(ctx, name) {
                complain(ctx, &mut upkeep.complained, &why);
            }
        }
        if !more {
            walk.db = walk.db.saturating_add(1);
            walk.scan = Scan::new();
        }
    }
}

/// What the walk does with one key.
fn visit(ctx: &Context<'_>, name: &OwnedStr) -> Result<(), Error> {
    let name = name.as_str();
    let mode = ctx.module().regions.mode(name)?;
    if mode == SyncMode::None {
        return Ok(());
    }
    let key = Key::open_unnoticed(ctx, name);
    if key.kind() != Kind::Hash {
        return Ok(());
    }
    let opened = match store::open_for_read(ctx, &key, host::now()) {
        // A bucket that cannot be read is for the command that uses it to report.
        Err(Error::Field { .. }) => return Ok(()),
        opened => opened?,
    };
    let Some(record) = opened.record() else {
        return Ok(());
    };
    let shared = match mode {
        SyncMode::None => false,
        SyncMode::Counters => record.debits.is_some(),
        SyncMode::State => record.tokens.is_some(),
        SyncMode::Folded => record.regions.is_some(),
    };
    if !shared {
        return Ok(());
    }
    // A full bucket is one that is missing: there is nothing to tell of it; unless it is what a
    // function makes of the states of all regions, of which ours need not be full.
    if mode == SyncMode::Folded || !opened.owes_nothing() {
        store::note(ctx, name, &opened)?;
    }
    if let Some(at) = store::mended_expiry(ctx, &key, &opened)? {
        drop(key);
        store::set_expiry(ctx, &Key::open_write_unnoticed(ctx, name), at);
    }
    Ok(())
}
