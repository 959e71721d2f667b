//! `CL.MERGE .. STRATEGY debit`: counters are joined, and what they have gained
//! is debited here. See `claw_core::shared`.

use super::{Merged, Stored};
use crate::error::Error;
use crate::host::{Context, Key, Str};
use crate::store;
use claw_core::merge::State;
use claw_core::shared::Remote;

pub(super) fn merge(
    ctx: &Context<'_>,
    name: Str<'_>,
    sources: Vec<Stored>,
    now: u64,
) -> Result<Merged, Error> {
    const UNCOUNTED: Error = Error::Debit("a state that counts no debits cannot be merged");
    let key = Key::open_write(ctx, name);
    let mut opened = store::open_shared(ctx, &key, now)?;
    let region = ctx.module().regions.region()?;
    let (mut changed, mut rebroadcast) = (false, false);
    for Stored { state, shared, .. } in sources {
        let bucket = shared.ok_or(UNCOUNTED)?;
        let State { policy: stored, temporary, .. } = state;
        let remote = Remote { from: None, bucket, stored, temporary };
        let received = opened
            .receive(&remote, &region)
            .map_err(|refusal| Error::refused(refusal, name.as_bytes()))?;
        changed |= received.changed;
        rebroadcast |= received.rebroadcast;
    }
    let remaining = opened.remaining(&region);
    if changed {
        store::save(ctx, &key, &mut opened)?;
    } else if rebroadcast {
        store::note(ctx, name, &opened)?;
    }
    Ok(Merged::new(ctx, changed, opened.bucket().policy(), remaining))
}
