//! Region sync by a function: the bucket is what the function makes of the latest
//! state of every region, folded in the order of their names. Whatever the
//! function is, regions that have the same states come to the same bucket.

use super::{Stored, answer};
use crate::error::Error;
use crate::host::{self, Context, Key, Str};
use crate::store;
use crate::strategy::Strategy;
use claw_core::codec::{self, RegionStates};
use claw_core::merge::State;
use claw_core::record::OpenBucket;

pub(super) fn merge(
    ctx: &Context<'_>,
    name: Str<'_>,
    sources: Vec<Stored>,
    strategy: &Strategy,
    now: u64,
) -> Result<(), Error> {
    let me = ctx.module().regions.id().ok_or(Error::NOT_A_REGION)?;
    let present = Stored::read(ctx, name, now)?;
    let (known, unreadable) = {
        let record = store::load(ctx, &Key::open_read(ctx, name), now)?;
        let field = record.and_then(|record| record.regions);
        let known = field.as_deref().and_then(codec::decode_regions);
        (known.clone().unwrap_or_default(), field.is_some() && known.is_none())
    };
    let mut states = known.clone();
    if let Some(present) = &present {
        // It has not been folded yet, so it is ours.
        states.entry(me).or_insert(present.state);
    }
    for Stored { state, from, .. } in sources {
        let from = from.ok_or(Error::NOT_A_REGION)?;
        if from == me {
            return Err(Error::OwnReplicaId(me));
        }
        let later = |known: &State| rank(&state) > rank(known);
        if states.get(&from).is_none_or(later) {
            states.insert(from, state);
        }
        let regions = &ctx.module().regions;
        regions.receive(1);
    }
    if states.len() > claw_core::debit::MAX_REPLICAS {
        return Err(Error::TooManyReplicas);
    }

    let unchanged = states == known && !unreadable;
    let mut bucket = present.as_ref().map(|present| present.state.bucket);
    if !unchanged {
        let view = fold(ctx, &states, strategy)?;
        let key = Key::open_write(ctx, name);
        let mut opened = OpenBucket::merged(store::load(ctx, &key, now)?, &view);
        opened.set_regions(&states);
        store::save_with(ctx, &key, &mut opened, None, false)?;
        bucket = Some(view.bucket);
    }
    let mut bucket = bucket.ok_or(Error::NoSource)?;
    bucket.advance(now);
    answer(ctx, unchanged, bucket.policy(), bucket.remaining());
    Ok(())
}

/// Makes a bucket anew that was changed by a command of this region.
pub(crate) fn again(ctx: &Context<'_>, name: Str<'_>, strategy: &Strategy) -> Result<(), Error> {
    let now = host::now();
    let record = store::load(ctx, &Key::open_read(ctx, name), now)?;
    let states = record.as_ref().and_then(|record| record.regions.as_deref());
    let Some(states) = states.and_then(codec::decode_regions) else {
        return Ok(());
    };
    // No key is open while the function runs.
    let view = fold(ctx, &states, strategy)?;
    let key = Key::open_write(ctx, name);
    let record = store::load(ctx, &key, now)?;
    if record.is_some() {
        store::save_with(ctx, &key, &mut OpenBucket::merged(record, &view), None, false)?;
    }
    Ok(())
}

/// Which of two states of one region is the later.
fn rank(state: &State) -> (u64, u64, u64) {
    let bucket = &state.bucket;
    // Of the same moment the one with fewer tokens: it has seen one more take.
    (bucket.timestamp(), u64::MAX.saturating_sub(bucket.tokens()), bucket.remainder())
}

/// No clock of this server is in it: every region must come to the same.
fn fold(ctx: &Context<'_>, states: &RegionStates, strategy: &Strategy) -> Result<State, Error> {
    let moment = states.values().map(|state| state.bucket.timestamp()).max().unwrap_or(0);
    let mut states = states.values();
    let mut view = *states.next().ok_or(Error::NoSource)?;
    for state in states {
        view = strategy.merge(ctx, &view, state, moment)?;
    }
    Ok(view)
}
