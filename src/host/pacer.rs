//! Work on the main thread between commands, more often than the server's cron comes.
//!
//! The server tells of each turn of its event loop, before it waits for what comes
//! next. What is done then is done as in the cron: no command is running, no script,
//! and what is written is replicated. That the loop turns although nobody calls is
//! for a timer, which the loop watches as it does connections. What the loop calls for
//! the timer itself does nothing: it may come while a slow script runs, or while the
//! server loads, and has no context in which a key could be touched.
//!
//! Both are there only while there is work. Neither keeps the module from being
//! unloaded, as the server's own timers would.

use super::api::{OK, call};
use super::context::{Context, EVENT_VERSION, in_event};
use redis_module::raw;
use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// From one slice of work to the next, at least.
const PERIOD: Duration = Duration::from_millis(1);

/// The length of a slice while the server waits for clients most of the time, and while
/// clients wait for the server.
const IDLE_SLICE: Duration = Duration::from_micros(500);
const BUSY_SLICE: Duration = Duration::from_micros(250);

/// Goes on with the work for as long as it is given; `false` when there is none.
type Work = fn(&Context<'_>, Duration) -> bool;

/// Has work done in slices between commands, for a while.
#[derive(Debug, Default)]
pub(crate) struct Pacer {
    work: Cell<Option<Work>>,
    timer: RefCell<Option<Timer>>,
    turns: Cell<Turns>,
}

/// What the server's loop has been doing.
#[derive(Debug, Default, Clone, Copy)]
struct Turns {
    /// When the last slice ended.
    rested: Option<Instant>,
    /// How long the loop has been waiting since then.
    idle: Duration,
    /// Since when it has been.
    waits: Option<Instant>,
}

impl Turns {
    /// The loop has waited.
    fn goes_on(&mut self) {
        if let Some(since) = self.waits.take() {
            self.idle = self.idle.saturating_add(since.elapsed());
        }
    }

    /// How long the next slice may be, if it is time for it.
    fn slice(&self, now: Instant) -> Option<Duration> {
        let Some(rested) = self.rested else {
            return Some(BUSY_SLICE);
        };
        let passed = now.saturating_duration_since(rested);
        let is_idle = self.idle.saturating_mul(2) >= passed;
        let slice = if is_idle { IDLE_SLICE } else { BUSY_SLICE };
        (passed >= PERIOD.saturating_sub(slice)).then_some(slice)
    }
}

impl Pacer {
    /// Has `work` done in slices until [`stop`](Self::stop), or as long as there is any.
    /// Without a timer they come only when the server has something else to do, too.
    pub(crate) fn start(&self, ctx: &Context<'_>, work: Work) {
        if self.work.get().is_some() || !subscribe(ctx, Some(turned)) {
            return;
        }
        self.work.set(Some(work));
        self.turns.set(Turns::default());
        if let Ok(mut timer) = self.timer.try_borrow_mut() {
            *timer = Timer::new();
        }
    }

    /// Ends that. To be called in the cron only: the server goes through a list of who
    /// is to be told of an event while it tells them, and from the cron's place in it
    /// goes on to another one than that which is taken out here.
    pub(crate) fn stop(&self, ctx: &Context<'_>) {
        if self.work.get().is_none() || !subscribe(ctx, None) {
            return;
        }
        self.work.set(None);
        if let Ok(mut timer) = self.timer.try_borrow_mut() {
            *timer = None;
        }
    }

    /// The loop is about to wait.
    fn turn(&self, ctx: &Context<'_>) {
        let (mut turns, now) = (self.turns.get(), Instant::now());
        turns.waits = Some(now);
        if let (Some(work), Some(slice)) = (self.work.get(), turns.slice(now))
            && work(ctx, slice)
        {
            let now = Some(Instant::now());
            turns = Turns { rested: now, idle: Duration::ZERO, waits: now };
        }
        self.turns.set(turns);
    }
}

/// Has the server tell of each turn of its loop, or not.
fn subscribe(ctx: &Context<'_>, handler: raw::RedisModuleEventCallback) -> bool {
    let event =
        raw::RedisModuleEvent { id: raw::REDISMODULE_EVENT_EVENTLOOP, dataver: EVENT_VERSION };
    // SAFETY: a live context, and a callback with C's calling convention.
    unsafe { call!(RedisModule_SubscribeToServerEvent(ctx.as_ptr(), event, handler)) == OK }
}

/// The loop is about to wait, or has waited.
unsafe extern "C" fn turned(
    ctx: *mut raw::RedisModuleCtx,
    _event: raw::RedisModuleEvent,
    kind: u64,
    _data: *mut c_void,
) {
    // SAFETY: the event's context.
    unsafe {
        in_event(ctx, |ctx| {
            let pacer = &ctx.module().pacer;
            if kind != raw::REDISMODULE_SUBEVENT_EVENTLOOP_BEFORE_SLEEP {
                let mut turns = pacer.turns.get();
                turns.goes_on();
                pacer.turns.set(turns);
            } else if !ctx.is_loading() {
                pacer.turn(ctx);
            }
        });
    }
}

/// Wakes the server's event loop up.
#[derive(Debug)]
struct Timer(OwnedFd);

impl Timer {
    /// `None` where the system has none, or the server no place for it.
    fn new() -> Option<Self> {
        let fd = ticking()?;
        let readable = raw::REDISMODULE_EVENTLOOP_READABLE as c_int;
        // SAFETY: a live descriptor, and a callback that is given nothing of ours. It is
        // taken out before the descriptor is closed.
        let added = unsafe {
            let nothing = std::ptr::null_mut();
            call!(RedisModule_EventLoopAdd(fd.as_raw_fd(), readable, Some(ticked), nothing))
        };
        (added == OK).then_some(Self(fd))
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let readable = raw::REDISMODULE_EVENTLOOP_READABLE as c_int;
        // SAFETY: a descriptor that was added and is still open.
        unsafe { call!(RedisModule_EventLoopDel(self.0.as_raw_fd(), readable)) };
    }
}

/// A descriptor that can be read from every [`PERIOD`].
#[cfg(target_os = "linux")]
fn ticking() -> Option<OwnedFd> {
    use std::os::fd::FromRawFd;
    let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
    if fd < 0 {
        return None;
    }
    // SAFETY: just made, and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let period =
        libc::timespec { tv_sec: 0, tv_nsec: libc::c_long::try_from(PERIOD.as_nanos()).ok()? };
    let times = libc::itimerspec { it_interval: period, it_value: period };
    // SAFETY: a live descriptor and times; what was set before is not asked for.
    let set =
        unsafe { libc::timerfd_settime(fd.as_raw_fd(), 0, &raw const times, std::ptr::null_mut()) };
    (set == 0).then_some(fd)
}

#[cfg(not(target_os = "linux"))]
fn ticking() -> Option<OwnedFd> {
    None
}

/// The timer can be read from, until it has been.
unsafe extern "C" fn ticked(fd: c_int, _data: *mut c_void, _mask: c_int) {
    #[cfg(target_os = "linux")]
    {
        let mut ticks = [0_u8; 8];
        // SAFETY: the descriptor is open, or this would not be called; it never blocks.
        unsafe { libc::read(fd, ticks.as_mut_ptr().cast::<c_void>(), ticks.len()) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = fd;
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    #[test]
    fn clients_have_the_larger_part_while_they_wait() {
        let began = Instant::now();
        let turns = |idle_us| {
            let idle = Duration::from_micros(idle_us);
            Turns { rested: Some(began), idle, waits: None }
        };
        let slice =
            |idle_us, passed_us| turns(idle_us).slice(began + Duration::from_micros(passed_us));
        assert_eq!(Turns::default().slice(began), Some(BUSY_SLICE));
        // With the slice itself the period is full.
        assert_eq!((slice(0, 749), slice(0, 750)), (None, Some(BUSY_SLICE)));
        assert_eq!((slice(499, 499), slice(500, 500)), (None, Some(IDLE_SLICE)));
        assert_eq!((slice(374, 750), slice(375, 750)), (Some(BUSY_SLICE), Some(IDLE_SLICE)));
    }
}
