//! The `regions` field of a bucket: the latest state of each region, where a function folds
//! them.

use super::blob::{decode, decode_newer, encode_in_force};
use crate::bucket::Bucket;
use crate::error::Internal;
use crate::limits::{MAX_REPLICAS, MAX_TIMESTAMP_US};
use crate::merge::State;
use crate::replica::ReplicaId;
use rmpv::Value;
use std::collections::BTreeMap;

/// The latest state of each region.
pub type RegionStates = BTreeMap<ReplicaId, State>;

/// The `regions` field: a map of region to a state as [`encode`](super::encode) writes it, with the
/// policy in force.
///
/// # Errors
/// When a state cannot be written, which cannot be.
pub fn encode_regions(regions: &RegionStates) -> Result<Vec<u8>, Internal> {
    let blobs = regions.iter().map(|(id, state)| {
        // Only fields of later versions could be such that they cannot be written.
        let blob = encode_in_force(state)
            .map_err(|_| Internal::new("a region's state that cannot be written"))?;
        Ok((Value::from(id.as_str()), Value::Binary(blob)))
    });
    let map = Value::Map(blobs.collect::<Result<_, _>>()?);
    rmp_serde::to_vec(&map).map_err(|_| Internal::new("regions that cannot be written"))
}

/// Reads what [`encode_regions`] wrote; `None` when it is something else.
#[must_use]
pub fn decode_regions(bytes: &[u8]) -> Option<RegionStates> {
    let mut regions = RegionStates::new();
    for (id, blob) in decode_newer(bytes)? {
        // The timestamps were bounded when the states came in.
        let read = decode(blob.as_slice()?, MAX_TIMESTAMP_US).ok()?;
        let stored = read.policy.map(|stored| stored.policy);
        let policy = read.temporary.map(|pin| pin.policy).or(stored).or(read.default)?;
        let bucket = Bucket::new(policy, read.weight, read.tokens, read.remainder, read.timestamp);
        let state = State::written_at(bucket, read.policy, read.timestamp);
        regions.insert(id.parse().ok()?, state.pinned_by(read.temporary));
    }
    (regions.len() <= MAX_REPLICAS).then_some(regions)
}
