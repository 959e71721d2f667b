//! Membership that are heard and fall silent, so that the share changes.

use crate::any::START;
use claw_core::membership::{Instants, Membership, PartitionPolicy, Progress, Rates, Round};
use claw_core::replica::ReplicaId;
use proptest::prelude::*;

pub const SECOND: u64 = 1_000_000;

/// The name of the nth peer.
pub fn peer(n: usize) -> ReplicaId {
    format!("peer{n}").parse().unwrap()
}

/// Both clocks of a server at `us` microseconds after the start.
pub fn at(us: u64) -> Instants {
    Instants { wall: START.saturating_add(us), steady: us }
}

/// A round of a region without a cluster, which comes in the moment that it was sent.
pub fn round(id: ReplicaId, now: Instants) -> Round<'static> {
    Round {
        id,
        run: b"run",
        sent: now.steady,
        masters: 1,
        progress: Progress::Complete,
        rates: None,
        settled: false,
        hears: None,
    }
}

/// What a region without a cluster says.
pub trait Rounds {
    /// A round is complete in the moment that it was sent.
    fn completed(&mut self, id: ReplicaId, now: Instants) -> bool;
}

impl Rounds for Membership {
    fn completed(&mut self, id: ReplicaId, now: Instants) -> bool {
        self.heard(&round(id, now), now)
    }
}

/// Membership of which `silent` have been silent since long before `now` (wall clock)
/// out of `regions`, under the guard `equal`.
pub fn cut(silent: usize, regions: usize, now: u64) -> Membership {
    let instants = |steady| Instants { wall: now - 1, steady };
    let mut peers = Membership::new(PartitionPolicy::Equal, regions, SECOND, instants(0));
    // Of very many, those that are silent were never heard.
    let few = (regions - 1).min(7);
    for n in 0..few {
        peers.completed(peer(n), instants(0));
    }
    for n in silent.min(few)..few {
        peers.completed(peer(n), instants(2 * SECOND));
    }
    peers.tick(None, instants(2 * SECOND));
    assert_eq!(peers.share(), u16::try_from(1_000 * (regions - silent) / regions).unwrap());
    peers
}

/// Any cut: how many of how many others are silent.
pub fn any_cut() -> impl Strategy<Value = (usize, usize)> {
    let few = (2_usize..=8).prop_flat_map(|regions| (0..regions, Just(regions)));
    prop_oneof![4 => few, 1 => Just((1_999, 2_000))]
}

/// What becomes known to a region at an instant.
#[derive(Debug, Clone, Copy)]
pub enum News {
    /// A peer's round is complete, and says so much of what it spends.
    Round(usize, u64),
    /// So many tokens have been spent here in all.
    Tick(u64),
}

/// How long after the news before, and what.
pub fn news(peers: usize) -> impl Strategy<Value = Vec<(u64, News)>> {
    let pause = prop_oneof![
        6 => 2..=SECOND / 10,
        3 => SECOND..=3 * SECOND,
        1 => 2..=60 * SECOND,
        1 => Just(2),
    ];
    let what = prop_oneof![
        3 => (0..peers, 0_u64..1_000).prop_map(|(peer, spent)| News::Round(peer, spent)),
        1 => (0_u64..1_000).prop_map(News::Tick),
    ];
    prop::collection::vec((pause, what), 1..40)
}

/// What a region has become of each piece of news, at its instant on the wall
/// clock.
pub fn snapshots(
    guard: PartitionPolicy,
    regions: usize,
    news: &[(u64, News)],
) -> Vec<(u64, Membership)> {
    let mut peers = Membership::new(guard, regions, 2 * SECOND, at(0));
    let mut now = 0;
    let mut snapshots = vec![(START, peers.clone())];
    for (pause, what) in news {
        now += pause;
        match what {
            News::Round(n, rate) => {
                let rates = Some(Rates { before: *rate, now: *rate });
                let settled = rate % 2 == 0;
                peers.heard(&Round { rates, settled, ..round(peer(*n), at(now)) }, at(now));
            }
            News::Tick(spent) => peers.tick(Some(*spent), at(now)),
        };
        snapshots.push((START + now, peers.clone()));
    }
    snapshots
}
