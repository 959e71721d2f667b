//! `CL.SYNC STATES replica-id sent strategy names key state [key state ..]`, with which regions
//! send each other their buckets.

use super::merge::{self, Stored};
use super::sync::{self, replica_id};
use crate::error::{Error, MAX_IN_CALL, Quantity};
use crate::host::{
    self, Access, Args, Argument, ArgumentKind, Command, Context, Key, Keys, Spec, Str,
};
use crate::store;
use crate::strategy::Strategy;
use claw_core::codec::{self, Names, Wire};
use claw_core::decimal;
use claw_core::limits::MAX_REPLICAS;
use claw_core::merge::State;
use claw_core::open::OpenBucket;
use claw_core::plan::SyncMode;
use claw_core::replica::ReplicaId;
use std::cmp::Reverse;
use std::ffi::CStr;

/// Takes in the states of another region.
pub(crate) struct States;

impl Command for States {
    const SPEC: Spec = Spec {
        name: c"states",
        flags: c"write deny-oom",
        categories: c"write slow hash",
        arity: -8,
        keys: Keys::PairsAfter(5),
        access: Access::Update,
        summary: c"Brings the states of another region's buckets; for peers to send.",
        complexity: c"O(N) with N the number of states",
        since: c"0.1.0",
        arguments: &[
            Argument::new(c"replica-id", ArgumentKind::Text),
            Argument::new(c"sent", ArgumentKind::Integer),
            Argument::new(c"strategy", ArgumentKind::Text),
            Argument::new(c"names", ArgumentKind::Text),
            Argument::new(
                c"states",
                ArgumentKind::Block(&[
                    Argument::new(c"key", ArgumentKind::Key),
                    Argument::new(c"state", ArgumentKind::Text),
                ]),
            )
            .multiple(),
        ],
    };

    const CONTAINER: Option<&'static CStr> = Some(sync::SYNC.name);

    fn run(ctx: &Context<'_>, mut args: Args<'_>) -> Result<(), Error> {
        const ARITY: Error = Error::Arity("cl.sync|states");
        let from = replica_id(args.next().ok_or(ARITY)?)?;
        let sent = decimal::digits(args.next().ok_or(ARITY)?.as_bytes())
            .map_err(|_| Error::OutOfRange(Quantity::Sent))?;
        let strategy = Strategy::parse(args.next().ok_or(ARITY)?.as_bytes())?;
        let names = Names::parse(args.next().ok_or(ARITY)?.as_bytes()).ok_or(Error::Names)?;
        if !args.len().is_multiple_of(2) || args.is_empty() {
            return Err(ARITY);
        }
        let states = args.len() / 2;
        if states > MAX_IN_CALL {
            return Err(Error::TooMany);
        }
        let regions = &ctx.module().regions;
        let ours = regions.strategy()?.ok_or(Error::NOT_A_REGION)?;
        if regions.id()? == Some(from) {
            return Err(Error::OwnReplicaId(from));
        }
        if strategy != ours {
            let [here, there] = [ours, strategy].map(|strategy| strategy.to_string().into());
            return Err(Error::OtherStrategy { here, there });
        }

        let now = host::now();
        let mut wire = Wire::new(from, names, sent);
        // One by one: a state that cannot be taken in keeps no other one from it.
        let mut answers = Vec::with_capacity(states);
        while let (Some(name), Some(state)) = (args.next(), args.next()) {
            let received = match ours {
                Strategy::Debit => receive_counters(ctx, name, state.as_bytes(), &mut wire, now),
                _ => receive_state(ctx, name, state.as_bytes(), from, &ours, now),
            };
            regions.receive(received.is_ok());
            answers.push(received);
        }
        ctx.reply_array(answers.len());
        for answer in answers {
            match answer {
                Ok(changed) => ctx.reply_integer(i64::from(changed)),
                Err(error) => {
                    ctx.module().stats.merge_errors.add(1);
                    // The peer need not see what a hash holds that may be no bucket.
                    ctx.reply_error(&error.without_value().line());
                }
            }
        }
        Ok(())
    }
}

/// Only what is shared here is taken in.
fn check_shared(ctx: &Context<'_>, name: Str<'_>) -> Result<(), Error> {
    match ctx.module().regions.mode(name)? {
        SyncMode::None => Err(Error::NotShared(name.as_bytes().into())),
        SyncMode::Counters | SyncMode::State | SyncMode::Folded => Ok(()),
    }
}

/// Takes in a bucket that regions count. Whether it changed ours.
fn receive_counters(
    ctx: &Context<'_>,
    name: Str<'_>,
    state: &[u8],
    wire: &mut Wire,
    now: u64,
) -> Result<bool, Error> {
    check_shared(ctx, name)?;
    let remote = codec::decode_wire(state, now, wire).map_err(Error::State)?;
    let key = Key::open_write(ctx, name);
    let mut opened = store::open_shared(ctx, &key, now)?;
    let region = ctx.module().regions.region()?;
    let received = opened
        .receive(remote, &region)
        .map_err(|refusal| Error::refused(refusal, name.as_bytes()))?;
    if received.changed {
        ctx.module().stats.merged.add(1);
        store::save(ctx, &key, &mut opened)?;
    } else if received.rebroadcast {
        store::note(ctx, name, &opened)?;
    }
    Ok(received.changed)
}

/// Takes in a state by a strategy that knows states only. Whether it changed ours.
fn receive_state(
    ctx: &Context<'_>,
    name: Str<'_>,
    state: &[u8],
    from: ReplicaId,
    strategy: &Strategy,
    now: u64,
) -> Result<bool, Error> {
    check_shared(ctx, name)?;
    let sent = {
        let settings = ctx.module().settings()?;
        let decoded = codec::decode(state, now).map_err(Error::State)?;
        Stored::sent(decoded, &settings.configured().of(name.as_bytes()), now, 1)?
    };
    match strategy {
        Strategy::Function(_) => fold(ctx, name, sent.state, from, strategy, now),
        _ => Ok(merge::merge_states(ctx, name, vec![sent], strategy, now, true)?.changed),
    }
}

/// The bucket is what the function makes of the latest state of every region.
fn fold(
    ctx: &Context<'_>,
    name: Str<'_>,
    state: State,
    from: ReplicaId,
    strategy: &Strategy,
    now: u64,
) -> Result<bool, Error> {
    let me = ctx.module().regions.id()?.ok_or(Error::NOT_A_REGION)?;
    let record = store::load(ctx, &Key::open_read(ctx, name), now)?;
    if record.as_ref().is_some_and(|record| !record.is_bucket()) {
        return Err(Error::Foreign(name.as_bytes().into()));
    }
    let known = record.as_ref().and_then(|record| record.regions.as_deref());
    let mut states = known.cloned().unwrap_or_default();
    if let (Some(record), None) = (&record, known) {
        // It has not been folded yet, so it is ours.
        let settings = ctx.module().settings()?;
        states.insert(me, record.state(&settings.configured().of(name.as_bytes()), now));
    }
    let later = |known: &State| rank(&state) > rank(known);
    if states.get(&from).is_none_or(later) {
        states.insert(from, state);
    }
    // With room for ours, which comes with what is taken here first.
    let own = usize::from(!states.contains_key(&me));
    if states.len().saturating_add(own) > MAX_REPLICAS {
        return Err(Error::TooManyReplicas);
    }
    let changed = known != Some(&states);
    if changed {
        // No key is open while the function runs.
        let view = strategy.fold(ctx, &states, store::configured_policy(ctx, name)?, now)?;
        let key = Key::open_write(ctx, name);
        let record = store::load(ctx, &key, now)?;
        let mut opened = {
            let settings = ctx.module().settings()?;
            OpenBucket::merged(record, &view, &settings.configured().of(name.as_bytes()), true, now)
        };
        opened.set_regions(states);
        store::save(ctx, &key, &mut opened)?;
        ctx.module().stats.merged.add(1);
    }
    Ok(changed)
}

/// Which of two states of one region is the later.
fn rank(state: &State) -> (u64, Reverse<i64>, u64) {
    let bucket = &state.bucket;
    // Of the same moment the one with fewer tokens: it has seen one more take.
    (bucket.timestamp(), Reverse(bucket.tokens()), bucket.remainder())
}
