//! `CL.MERGE .. STRATEGY debit`: counters are joined, and what they have gained
//! is debited here. See `claw_core::debit`.

use super::{Stored, answer};
use crate::error::Error;
use crate::host::{Context, Key, Str};
use crate::store::{self, EncodedBucket};
use claw_core::debit::{Counter, Remote, SharedBucket, Terms};
use claw_core::record::OpenBucket;
use claw_core::replica::{ReplicaId, Writer};

pub(super) fn merge(
    ctx: &Context<'_>,
    name: Str<'_>,
    sources: Vec<Stored>,
    now: u64,
) -> Result<(), Error> {
    const UNCOUNTED: Error = Error::Debit("a state that counts no debits cannot be merged");
    let by_hand = sources.iter().all(|source| source.from.is_none());
    let regions = &ctx.module().regions;
    let default = store::default_policy(ctx)?;
    let key = Key::open_write(ctx, name);
    let mut opened = store::open_shared(ctx, &key, now)?;
    let region = regions.region()?;
    let before = Fingerprint::of(&opened);

    let (mut fresh, mut tell) = (opened.record().is_none(), by_hand);
    let relay = |from: Option<ReplicaId>| from.is_some_and(|from| region.peers.misses(from));
    for Stored { state, shared, from, .. } in sources {
        let bucket = shared.ok_or(UNCOUNTED)?;
        let terms =
            Terms { version: bucket.version(), stored: state.policy, weight: bucket.weight() };
        if fresh {
            opened.begin_as(&terms, default);
        } else if opened.terms().yields_to(&terms) {
            opened.adopt(&terms, default);
            tell |= relay(from);
        }
        let remote = Remote { from, bucket };
        let local = opened.as_shared_mut().ok_or(UNCOUNTED)?;
        let writer = region.writer.as_ref();
        let me = writer.map(Writer::id);
        if !local.believes(&remote, me) {
            return Err(Error::Debit("a state counts further for this region than it can have"));
        }
        if !local.has_room_for(&remote, me) {
            return Err(Error::TooManyReplicas);
        }
        let received = local.receive(fresh, &remote, writer, &region.peers);
        tell |= received.rebroadcast;
        fresh = false;
        if from.is_some() {
            regions.receive(1);
        }
    }

    // Time alone is no change: it will have passed for the next call too.
    let unchanged = before == Fingerprint::of(&opened) && opened.record().is_none() == fresh;
    let remaining = opened.remaining(&region);
    let tell = tell && !fresh;
    if !unchanged {
        store::save_with(ctx, &key, &mut opened, None, tell)?;
    } else if tell {
        regions.note(ctx.db(), name, &opened, &EncodedBucket::of(ctx, &opened)?);
    }
    answer(ctx, unchanged, opened.bucket().policy(), remaining);
    Ok(())
}

/// What of a bucket does not change by itself.
#[derive(PartialEq)]
struct Fingerprint {
    level: i128,
    counters: Vec<(ReplicaId, Counter)>,
    terms: Option<Terms>,
}

impl Fingerprint {
    fn of(opened: &OpenBucket) -> Self {
        let shared = opened.as_shared();
        let accounts = shared.map(SharedBucket::accounts).unwrap_or_default();
        let counted = accounts.iter().filter(|account| account.counter.epoch != 0);
        Self {
            level: shared.map(SharedBucket::level).unwrap_or(0),
            counters: counted.map(|account| (account.id, account.counter)).collect(),
            terms: Some(opened.terms()),
        }
    }
}
