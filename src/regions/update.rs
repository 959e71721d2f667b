//! What is sent of one bucket.

use claw_core::codec::{self, Besides};
use claw_core::debit::{Account, Shared};
use claw_core::guard::WHOLE;
use claw_core::merge::State;
use claw_core::policy::StoredPolicy;
use claw_core::replica::ReplicaId;
use claw_sync::Note;
use std::time::{SystemTime, UNIX_EPOCH};

/// The state of a bucket as it was noted.
#[derive(Debug, Default)]
pub(crate) enum Update {
    /// None yet.
    #[default]
    None,
    /// A bucket that regions count.
    Counted(Counted),
    /// A bucket of any other strategy.
    Written(ReplicaId, State),
}

#[derive(Debug, Clone)]
pub(crate) struct Counted {
    from: ReplicaId,
    bucket: Shared,
    stored: Option<StoredPolicy>,
    refilling: bool,
}

impl Update {
    /// Becomes the state of a bucket that regions count, refilling at `share`.
    pub(super) fn count(
        &mut self,
        from: ReplicaId,
        bucket: &Shared,
        stored: Option<StoredPolicy>,
        share: u16,
    ) {
        // The peer credits it up to the moment of sending. At less than the whole
        // share it does not: the level is then too high, which is the safe side.
        let refilling = share == WHOLE;
        match self {
            Self::Counted(counted) => {
                counted.bucket.clone_from(bucket);
                (counted.from, counted.stored, counted.refilling) = (from, stored, refilling);
            }
            _ => {
                let bucket = bucket.clone();
                *self = Self::Counted(Counted { from, bucket, stored, refilling });
            }
        }
    }
}

impl Clone for Update {
    fn clone(&self) -> Self {
        match self {
            Self::None => Self::None,
            Self::Counted(counted) => Self::Counted(counted.clone()),
            Self::Written(from, state) => Self::Written(*from, *state),
        }
    }

    fn clone_from(&mut self, source: &Self) {
        match (self, source) {
            (Self::Counted(counted), Self::Counted(source)) => {
                counted.bucket.clone_from(&source.bucket);
                (counted.from, counted.stored) = (source.from, source.stored);
                counted.refilling = source.refilling;
            }
            (other, source) => *other = source.clone(),
        }
    }
}

impl Note for Update {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::None => {}
            Self::Counted(Counted { from, bucket, stored, refilling }) => {
                codec::encode_shared(*from, bucket, *stored, *refilling, out);
            }
            Self::Written(from, state) => {
                let besides = Besides { from: Some(*from), ..Besides::default() };
                // It can always be written: see `encode`.
                out.extend(codec::encode(state, &besides).unwrap_or_default());
            }
        }
    }

    fn size(&self) -> usize {
        let accounts = match self {
            Self::Counted(counted) => counted.bucket.accounts().len(),
            Self::None | Self::Written(..) => 0,
        };
        size_of::<Self>().saturating_add(accounts.saturating_mul(size_of::<Account>()))
    }
}

/// The system's wall clock in unix microseconds, which is the server's too.
pub(super) fn now() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}
