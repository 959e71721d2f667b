//! `CL.SYNC STATUS`, `CL.SYNC NOW`, `CL.SYNC HELP`, and `CL.SYNC ROUND version replica-id
//! run sent masters [OPENING | PARTIAL | REFUSED] [RATES before now] [SETTLED] [RULES fingerprint]
//! [HEARS [replica-id ..]]`, which peers send each other

use crate::error::{Error, Quantity};
use crate::host::{self, Access, Args, Argument, ArgumentKind, Command, Context, Keys, Spec, Str};
use claw_core::decimal;
use claw_core::limits::MAX_REPLICAS;
use claw_core::membership::{self, PROTOCOL, Progress, Rates};
use claw_core::replica::ReplicaId;
use claw_sync::PeerStatus;
use std::ffi::CStr;
use std::time::Duration;

/// The container of the subcommands.
pub(crate) const SYNC: Spec = Spec {
    name: c"cl.sync",
    flags: c"",
    categories: c"slow",
    arity: -2,
    keys: Keys::None,
    access: Access::Read,
    summary: c"A container for commands of region sync.",
    complexity: c"Depends on subcommand.",
    since: c"0.1.0",
    arguments: &[],
};

/// Shows what region sync does.
pub(crate) struct Status;

impl Command for Status {
    const SPEC: Spec = Spec {
        name: c"status",
        flags: c"readonly allow-loading allow-stale",
        categories: c"slow",
        arity: 2,
        keys: Keys::None,
        access: Access::Read,
        summary: c"Returns the state of region sync and of every peer.",
        complexity: c"O(N) with N the number of peers",
        since: c"0.1.0",
        arguments: &[],
    };

    const CONTAINER: Option<&'static CStr> = Some(SYNC.name);

    fn run(ctx: &Context<'_>, _args: Args<'_>) -> Result<(), Error> {
        let regions = &ctx.module().regions;
        let (strategy, interval, guard, rules) = {
            let settings = ctx.module().settings()?;
            let sync = settings.sync();
            let rules = settings.configured().rules().fingerprint();
            (sync.strategy.to_string(), sync.interval_ms, sync.guard, rules)
        };
        let region = regions.region()?;
        let statuses = regions.status();
        ctx.reply_map(9);
        text(ctx, "replica_id", regions.id()?.map(|id| id.to_string()).unwrap_or_default());
        text(ctx, "active", if regions.is_on() { "yes" } else { "no" });
        text(ctx, "strategy", strategy);
        number(ctx, "interval_ms", interval);
        text(ctx, "guard", guard.name());
        number(ctx, "share_permille", u64::from(region.peers.share()));
        number(ctx, "states_received", regions.received.get());
        name(ctx, "heard");
        ctx.reply_array(region.peers.all().len());
        let now = regions.instants(host::now());
        for peer in region.peers.all() {
            ctx.reply_map(4);
            text(ctx, "replica_id", peer.id().as_str());
            let silent = if peer.is_refusing() {
                "refuses"
            } else if peer.is_deaf() {
                "deaf"
            } else if peer.is_silent() {
                "yes"
            } else if peer.is_relayed() {
                "relayed"
            } else {
                "no"
            };
            text(ctx, "silent", silent);
            number(ctx, "heard_ms_ago", peer.silence(now) / 1_000);
            let rules = match regions.has_other_rules(peer.id(), rules) {
                None => "unknown",
                Some(true) => "differ",
                Some(false) => "same",
            };
            text(ctx, "rules", rules);
        }
        name(ctx, "peers");
        ctx.reply_array(statuses.len());
        for status in &statuses {
            peer(ctx, status);
        }
        Ok(())
    }
}

fn peer(ctx: &Context<'_>, status: &PeerStatus) {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    ctx.reply_map(17);
    text(ctx, "url", &status.url);
    text(ctx, "state", status.state.as_str());
    text(ctx, "replica_id", status.replica.as_deref().unwrap_or(""));
    text(ctx, "refusing", status.refusing.as_deref().unwrap_or(""));
    text(ctx, "lacking", if status.lacking { "yes" } else { "no" });
    number(ctx, "lag_ms", millis(status.lag));
    number(ctx, "round_trip_us", micros(status.round_trip));
    number(ctx, "queue", status.queued);
    number(ctx, "queue_bytes", status.queued_bytes);
    number(ctx, "queue_limit_bytes", status.queue_limit_bytes);
    number(ctx, "states_sent", status.states_sent);
    number(ctx, "states_refused", status.states_refused);
    number(ctx, "bytes_sent", status.bytes_sent);
    number(ctx, "rounds", status.rounds);
    number(ctx, "connections", status.connections);
    number(ctx, "errors", status.errors);
    text(ctx, "last_error", status.last_error.as_deref().unwrap_or(""));
}

fn name(ctx: &Context<'_>, name: &str) {
    ctx.reply_bytes(name.as_bytes());
}

fn text(ctx: &Context<'_>, label: &str, value: impl AsRef<str>) {
    name(ctx, label);
    ctx.reply_bytes(value.as_ref().as_bytes());
}

fn number(ctx: &Context<'_>, label: &str, value: u64) {
    name(ctx, label);
    ctx.reply_integer(super::reply::signed(value));
}

/// Sends at once what waits to be sent.
pub(crate) struct Now;

impl Command for Now {
    const SPEC: Spec = Spec {
        name: c"now",
        flags: c"",
        categories: c"slow admin dangerous",
        arity: 2,
        keys: Keys::None,
        access: Access::Read,
        summary: c"Begins a round to every peer at once, without waiting for it.",
        complexity: c"O(N) with N the number of peers",
        since: c"0.1.0",
        arguments: &[],
    };

    const CONTAINER: Option<&'static CStr> = Some(SYNC.name);

    fn run(ctx: &Context<'_>, _args: Args<'_>) -> Result<(), Error> {
        if ctx.module().regions.flush() {
            ctx.reply_status(c"OK");
            return Ok(());
        }
        let settings = ctx.module().settings()?;
        let sync = settings.sync();
        Err(match sync.replica_id.is_some() && !sync.peers.is_empty() {
            false => Error::NOT_A_REGION,
            true if !ctx.is_primary() => Error::SyncOff("a replica sends nothing"),
            true => Error::SyncOff("it could not start, and the server's log says why"),
        })
    }
}

/// How much of the name of a process is looked at, in bytes.
const MAX_RUN: usize = 64;

/// Takes notice that a peer has completed a round.
pub(crate) struct Round;

impl Command for Round {
    const SPEC: Spec = Spec {
        name: c"round",
        // A replica refuses writes, and so tells that it is none to send to.
        flags: c"write fast",
        categories: c"write fast",
        arity: -7,
        keys: Keys::None,
        access: Access::Read,
        summary: c"Ends a round of region sync; for peers to send.",
        complexity: c"O(N) with N the number of peers",
        since: c"0.1.0",
        arguments: &[
            Argument::new(c"version", ArgumentKind::Integer),
            Argument::new(c"replica-id", ArgumentKind::Text),
            Argument::new(c"run", ArgumentKind::Text),
            Argument::new(c"sent", ArgumentKind::Integer),
            Argument::new(c"masters", ArgumentKind::Integer),
            Argument::new(
                c"incomplete",
                ArgumentKind::OneOf(&[
                    Argument::new(c"opening", ArgumentKind::Token).token(c"OPENING"),
                    Argument::new(c"partial", ArgumentKind::Token).token(c"PARTIAL"),
                    Argument::new(c"refused", ArgumentKind::Token).token(c"REFUSED"),
                ]),
            )
            .optional(),
            Argument::new(
                c"spends",
                ArgumentKind::Block(&[
                    Argument::new(c"before", ArgumentKind::Integer).token(c"RATES"),
                    Argument::new(c"now", ArgumentKind::Integer),
                ]),
            )
            .optional(),
            Argument::new(c"settled", ArgumentKind::Token).token(c"SETTLED").optional(),
            Argument::new(c"rules", ArgumentKind::Text).token(c"RULES").optional(),
            Argument::new(
                c"heard",
                ArgumentKind::Block(&[
                    Argument::new(c"hears", ArgumentKind::Token).token(c"HEARS"),
                    Argument::new(c"replica-id", ArgumentKind::Text).optional().multiple(),
                ]),
            )
            .optional(),
        ],
    };

    const CONTAINER: Option<&'static CStr> = Some(SYNC.name);

    fn run(ctx: &Context<'_>, mut args: Args<'_>) -> Result<(), Error> {
        let regions = &ctx.module().regions;
        let me = regions.id()?;
        // Before anything else is read: another version may mean something else by it.
        let version = args.next().ok_or(ARITY)?;
        if decimal::digits(version.as_bytes()) != Ok(PROTOCOL) {
            return Err(Error::Protocol { theirs: version.as_bytes().into(), me });
        }
        let id = replica_id(args.next().ok_or(ARITY)?)?;
        let run = args.next().ok_or(ARITY)?.as_bytes();
        let run = run.get(..MAX_RUN).unwrap_or(run);
        let sent = integer(&mut args, Quantity::Sent)?;
        let masters = u16::try_from(integer(&mut args, Quantity::Masters)?).ok();
        let masters =
            masters.filter(|count| *count > 0).ok_or(Error::OutOfRange(Quantity::Masters))?;
        let mut progress = Progress::Complete;
        for (word, says) in PROGRESS {
            if next_is(&mut args, word) {
                progress = says;
                break;
            }
        }
        let mut rates = None;
        if next_is(&mut args, b"RATES") {
            let (before, now) =
                (integer(&mut args, Quantity::Rate)?, integer(&mut args, Quantity::Rate)?);
            rates = Some(Rates { before, now });
        }
        let settled = next_is(&mut args, b"SETTLED");
        let mut rules = None;
        if next_is(&mut args, b"RULES") {
            let text = std::str::from_utf8(args.next().ok_or(ARITY)?.as_bytes()).ok();
            let fingerprint = text.and_then(|text| u64::from_str_radix(text, 16).ok());
            rules = Some(fingerprint.ok_or(Error::OutOfRange(Quantity::Rules))?);
        }
        let mut hears = None;
        if next_is(&mut args, b"HEARS") {
            let mut ids = Vec::new();
            while let Some(id) = args.next() {
                ids.push(replica_id(id)?);
            }
            if ids.len() > MAX_REPLICAS {
                return Err(Error::TooManyReplicas);
            }
            hears = Some(ids);
        } else if let Some(word) = args.next() {
            return Err(Error::UnknownOption(word.as_bytes().into()));
        }
        if me == Some(id) {
            return Err(Error::OwnReplicaId(id));
        }
        let hears = hears.as_deref();
        let round = membership::Round { id, run, sent, masters, progress, rates, settled, hears };
        if !regions.heard(&round, host::now())? {
            return Err(Error::TooManyReplicas);
        }
        regions.told_rules(id, rules)?;
        ctx.reply_array(2);
        ctx.reply_bytes(me.map(|id| id.to_string()).unwrap_or_default().as_bytes());
        ctx.reply_bytes(format!("{:x}", regions.run()).as_bytes());
        Ok(())
    }
}

/// The words for what has not come yet.
const PROGRESS: [(&[u8], Progress); 3] = [
    (b"OPENING", Progress::Opening),
    (b"PARTIAL", Progress::Partial),
    (b"REFUSED", Progress::Refused),
];

const ARITY: Error = Error::Arity("cl.sync|round");

/// Whether the next argument is this word, which it then takes.
fn next_is(args: &mut Args<'_>, word: &[u8]) -> bool {
    let is = args.peek().is_some_and(|next| next.as_bytes().eq_ignore_ascii_case(word));
    if is {
        args.next();
    }
    is
}

fn integer(args: &mut Args<'_>, what: Quantity) -> Result<u64, Error> {
    let text = args.next().ok_or(ARITY)?.as_bytes();
    decimal::digits(text).map_err(|_| Error::OutOfRange(what))
}

pub(super) fn replica_id(name: Str<'_>) -> Result<ReplicaId, Error> {
    let name = name.as_bytes();
    ReplicaId::new(name)
        .map_err(|why| Error::ReplicaId { id: String::from_utf8_lossy(name).into(), why })
}

/// Lists the subcommands.
pub(crate) struct Help;

impl Command for Help {
    const SPEC: Spec = Spec {
        name: c"help",
        flags: c"allow-loading allow-stale",
        categories: c"slow",
        arity: 2,
        keys: Keys::None,
        access: Access::Read,
        summary: c"Returns helpful text about the different subcommands.",
        complexity: c"O(1)",
        since: c"0.1.0",
        arguments: &[],
    };

    const CONTAINER: Option<&'static CStr> = Some(SYNC.name);

    fn run(ctx: &Context<'_>, _args: Args<'_>) -> Result<(), Error> {
        const LINES: [&CStr; 11] = [
            c"CL.SYNC <subcommand> [<arg> ...]. Subcommands are:",
            c"STATUS",
            c"    Return the state of region sync and of every peer.",
            c"NOW",
            c"    Begin a round to every peer at once, without waiting for it.",
            c"ROUND version replica-id run sent masters [OPENING | PARTIAL | REFUSED] [RATES before now] [SETTLED] [RULES fingerprint] [HEARS [replica-id ...]]",
            c"    End a round; for peers to send.",
            c"STATES replica-id sent strategy names key state [key state ...]",
            c"    Bring states of buckets; for peers to send.",
            c"HELP",
            c"    Print this help.",
        ];
        ctx.reply_array(LINES.len());
        for line in LINES {
            ctx.reply_status(line);
        }
        Ok(())
    }
}
