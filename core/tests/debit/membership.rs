//! Which regions are heard, and what share that leaves.

use crate::any::cases;
use crate::world::{Rounds, SECOND, at, news, peer, snapshots};
use claw_core::membership::{Membership, PartitionPolicy, Round};
use claw_core::replica::ReplicaId;
use proptest::prelude::*;

const TIMEOUT: u64 = 2 * SECOND;

/// Regions that hear each other every 100 ms until they are cut into sides.
struct Cut {
    regions: Vec<Membership>,
    /// The side of each region.
    sides: Vec<usize>,
    now: u64,
    spent: Vec<u64>,
}

impl Cut {
    fn new(guard: PartitionPolicy, sides: Vec<usize>) -> Self {
        let regions = vec![Membership::new(guard, sides.len(), TIMEOUT, at(0)); sides.len()];
        Self { regions, now: 0, spent: vec![0; sides.len()], sides }
    }

    /// A tenth of a second, in which each region spends so much; `cut` says whether
    /// the sides hear each other.
    fn step(&mut self, spend: impl Fn(usize) -> u64, cut: bool) {
        self.now += SECOND / 10;
        for (n, spent) in self.spent.iter_mut().enumerate() {
            *spent += spend(n);
        }
        for (here, region) in self.regions.iter_mut().enumerate() {
            for (there, spent) in self.spent.iter().enumerate() {
                if here != there && (!cut || self.sides[here] == self.sides[there]) {
                    region.completed(peer(there), *spent, at(self.now));
                }
            }
            region.tick(Some(self.spent[here]), at(self.now));
        }
    }

    fn run(&mut self, steps: u64, spend: impl Fn(usize) -> u64, cut: bool) {
        for _ in 0..steps {
            self.step(&spend, cut);
        }
    }

    /// The share of each side; regions of one side agree on it.
    fn shares(&self) -> Vec<u16> {
        let mut shares = vec![None; self.sides.iter().max().unwrap() + 1];
        for (region, side) in self.regions.iter().zip(&self.sides) {
            let share = shares[*side].get_or_insert(region.share());
            assert_eq!(*share, region.share(), "regions of one side agree");
        }
        shares.into_iter().flatten().collect()
    }
}

/// 2 to 8 regions on at most 3 sides.
fn sides() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0_usize..3, 2..=8)
}

proptest! {
    #![proptest_config(cases(150))]

    /// Together the sides of a cut have no more than there is, whatever they spent
    /// before and whatever they spend after it; when they hear each other again,
    /// each has it all.
    #[test]
    fn the_sides_of_a_cut_share_the_limit(
        sides in sides(),
        guard in prop::sample::select(vec![PartitionPolicy::Equal, PartitionPolicy::Share]),
        before in prop::collection::vec(0_u64..1_000, 8),
        after in prop::collection::vec(0_u64..1_000, 8),
        (warm, long) in (0_u64..150, 21_u64..200),
    ) {
        let mut cut = Cut::new(guard, sides);
        let one_side = cut.sides.iter().all(|side| *side == cut.sides[0]);
        cut.run(warm + 1, |n| before[n], false);
        prop_assert!(cut.shares().iter().all(|share| *share == 1_000));
        for _ in 0..long {
            let known = cut.regions.iter().any(|region| region.share() < 1_000);
            cut.step(|n| after[n], true);
            let sum: u16 = cut.shares().iter().sum();
            prop_assert!(!known || sum <= 1_000, "{:?}", cut.shares());
        }
        let sum: u16 = cut.shares().iter().sum();
        prop_assert!(one_side || sum <= 1_000, "{:?}", cut.shares());
        // Rounding loses less than a permille a side.
        prop_assert!(sum > 1_000 - 3, "{:?}", cut.shares());
        cut.run(1, |_| 0, false);
        prop_assert!(cut.shares().iter().all(|share| *share == 1_000));
    }

    /// Whatever is heard when: the share is 1000 exactly when nobody is missing, and
    /// never 0; without a guard it is always 1000.
    #[test]
    fn shares_are_within_their_bounds(
        guard in prop::sample::select(PartitionPolicy::ALL.to_vec()),
        news in news(4),
        regions in 1_usize..=5,
    ) {
        let mut now = 0;
        let all = snapshots(guard, regions, &news);
        for ((_, peers), pause) in all.iter().zip([0].into_iter().chain(news.iter().map(|n| n.0))) {
            now += pause;
            prop_assert!(peers.share() > 0 && peers.share() <= 1_000);
            let silent = peers.all().iter().filter(|peer| peer.is_silent()).count();
            let missing = peers.regions() - 1 - peers.all().len();
            let whole = silent == 0 && (missing == 0 || now <= TIMEOUT);
            prop_assert_eq!(peers.share() == 1_000, whole || guard == PartitionPolicy::Off);
            prop_assert!(peers.all().windows(2).all(|pair| pair[0].id() < pair[1].id()));
        }
    }
}

#[test]
fn names_of_guards() {
    for guard in PartitionPolicy::ALL {
        assert_eq!(PartitionPolicy::by_name(guard.name().to_uppercase().as_bytes()), Some(guard));
    }
    assert_eq!(PartitionPolicy::by_name(b"on"), None);
}

/// Two against two, one of four, four alone: k of N.
#[test]
fn equal_counts_regions() {
    let table: [(&[usize], &[u16]); 5] = [
        (&[0, 1], &[500, 500]),
        (&[0, 0, 1, 1], &[500, 500]),
        (&[0, 0, 0, 1], &[750, 250]),
        (&[0, 1, 2], &[333, 333, 333]),
        (&[0, 0, 1, 1, 2], &[400, 400, 200]),
    ];
    for (sides, shares) in table {
        let mut cut = Cut::new(PartitionPolicy::Equal, sides.to_vec());
        cut.run(50, |n| if n == 0 { 100 } else { 1 }, false);
        cut.run(30, |_| 0, true);
        assert_eq!(cut.shares(), shares, "{sides:?}");
    }
}

/// By what each spent before the cut, a tenth of the limit apart from that.
#[test]
fn share_goes_by_recent_spend() {
    let table: [(&[u64], &[u16]); 4] = [
        (&[10, 10], &[500, 500]),
        (&[30, 10], &[725, 275]),
        (&[10, 0], &[950, 50]),
        (&[0, 0], &[500, 500]),
    ];
    for (spend, shares) in table {
        let mut cut = Cut::new(PartitionPolicy::Share, vec![0, 1]);
        cut.run(200, |n| spend[n], false);
        // What is spent after the cut is not seen on the other side.
        cut.run(30, |n| if n == 0 { 1_000 } else { 0 }, true);
        assert_eq!(cut.shares(), shares, "{spend:?}");
        // It stays frozen, and a second cut soon after the first goes by the rate
        // and not by how long the first one was.
        cut.run(600, |n| spend[n], true);
        assert_eq!(cut.shares(), shares, "{spend:?}");
        cut.run(30, |n| spend[n], false);
        cut.run(30, |n| spend[n], true);
        let sum: u16 = cut.shares().iter().sum();
        assert!(sum <= 1_000, "{spend:?}: {:?}", cut.shares());
        let near = |(a, b): (&u16, &u16)| a.abs_diff(*b) <= 200;
        assert!(cut.shares().iter().zip(shares).all(near), "{spend:?}: {:?}", cut.shares());
    }
}

/// Whom nobody has watched for a while may have spent anything: all count alike.
#[test]
fn a_cut_right_after_the_start() {
    let mut cut = Cut::new(PartitionPolicy::Share, vec![0, 0, 0, 1]);
    cut.run(9, |n| if n == 3 { 100 } else { 0 }, false);
    cut.run(30, |_| 0, true);
    assert_eq!(cut.shares(), [750, 250]);
}

/// Regions that were never heard are waited for as long as silent ones.
#[test]
fn regions_that_never_came() {
    for guard in [PartitionPolicy::Equal, PartitionPolicy::Share] {
        let mut peers = Membership::new(guard, 3, TIMEOUT, at(0));
        peers.completed(peer(0), 0, at(0));
        peers.tick(None, at(TIMEOUT));
        assert_eq!(peers.share(), 1_000, "{guard:?}");
        peers.completed(peer(0), 0, at(TIMEOUT + 1));
        assert_eq!(peers.share(), 666, "{guard:?}");
        peers.completed(peer(1), 0, at(TIMEOUT + 2));
        assert_eq!(peers.share(), 1_000, "{guard:?}");
    }
}

/// The set of peers changes while the server runs.
#[test]
fn peers_come_and_go() {
    let mut peers = Membership::new(PartitionPolicy::Equal, 2, TIMEOUT, at(0));
    peers.completed(peer(0), 0, at(0));
    // A third region: waited for, then missing, then there.
    peers.configure(PartitionPolicy::Equal, 3, TIMEOUT, at(10 * SECOND));
    peers.completed(peer(0), 0, at(10 * SECOND));
    assert_eq!(peers.share(), 1_000);
    peers.completed(peer(0), 0, at(13 * SECOND));
    assert_eq!(peers.share(), 666);
    peers.completed(peer(1), 0, at(13 * SECOND));
    assert_eq!(peers.share(), 1_000);
    // One is gone for good: silent, until the configuration says so too.
    peers.completed(peer(1), 0, at(20 * SECOND));
    assert_eq!((peers.share(), peers.is_silent(peer(0))), (666, true));
    peers.configure(PartitionPolicy::Equal, 2, TIMEOUT, at(20 * SECOND));
    assert_eq!((peers.share(), peers.all().len()), (1_000, 1));
    // One goes on under another name: the old one is forgotten.
    peers.completed(peer(2), 0, at(21 * SECOND));
    peers.completed(peer(2), 0, at(23 * SECOND));
    assert_eq!((peers.share(), peers.all().len(), peers.regions()), (1_000, 1, 2));
    // More are heard than there should be: they count.
    peers.completed(peer(3), 0, at(23 * SECOND));
    assert_eq!((peers.share(), peers.regions()), (1_000, 3));
    // The guard is taken away while one is silent.
    let mut peers = Membership::new(PartitionPolicy::Equal, 2, TIMEOUT, at(0));
    peers.completed(peer(0), 0, at(0));
    peers.tick(None, at(3 * SECOND));
    assert_eq!(peers.share(), 500);
    peers.configure(PartitionPolicy::Off, 2, TIMEOUT, at(3 * SECOND));
    assert_eq!(peers.share(), 1_000);
    // A guard that is put in the place of another one has nothing frozen.
    peers.configure(PartitionPolicy::Share, 2, TIMEOUT, at(3 * SECOND));
    assert_eq!(peers.share(), 500);
}

/// A cluster of `masters` masters, of which one says so much at an instant.
fn say(peers: &mut Membership, run: &str, masters: u16, complete: bool, us: u64) {
    let (id, now) = (peer(0), at(us));
    let round = Round {
        id,
        run: run.as_bytes(),
        sent: now.steady,
        spent: 0,
        masters,
        complete,
        hears: None,
    };
    assert!(peers.heard(&round, now));
}

/// A cluster is heard when all of its masters are.
#[test]
fn a_cluster_is_as_silent_as_its_most_silent_master() {
    let mut peers = Membership::new(PartitionPolicy::Share, 2, TIMEOUT, at(0));
    let share = |peers: &mut Membership, us: u64| {
        peers.tick(None, at(us));
        (peers.share(), peers.is_silent(peer(0)))
    };
    // The second master is waited for, and does come.
    say(&mut peers, "a", 2, true, SECOND);
    assert_eq!(share(&mut peers, SECOND + TIMEOUT), (1_000, false));
    say(&mut peers, "a", 2, true, SECOND + TIMEOUT);
    assert_eq!(share(&mut peers, SECOND + TIMEOUT + 1), (500, true));
    say(&mut peers, "b", 2, true, 4 * SECOND);
    assert_eq!(share(&mut peers, 4 * SECOND), (1_000, false));
    let round = peers.all()[0].round();
    // One alone falls silent; that the other is heard is no round.
    for second in 5..10 {
        say(&mut peers, "a", 2, true, second * SECOND);
    }
    assert_eq!(share(&mut peers, 9 * SECOND), (500, true));
    assert!(peers.all()[0].round() < at(7 * SECOND).wall && peers.all()[0].round() > round);
    assert_eq!(peers.all()[0].silence(at(9 * SECOND)), 5 * SECOND);
    // It has more to say, and only then said all.
    say(&mut peers, "b", 2, false, 10 * SECOND);
    assert_eq!(share(&mut peers, 10 * SECOND), (500, true));
    say(&mut peers, "b", 2, true, 10 * SECOND);
    assert_eq!(share(&mut peers, 10 * SECOND), (1_000, false));
    // A replica takes over from `b`, within the timeout and after it.
    say(&mut peers, "c", 2, false, 11 * SECOND);
    say(&mut peers, "a", 2, true, 13 * SECOND);
    assert_eq!(share(&mut peers, 13 * SECOND), (1_000, false));
    say(&mut peers, "a", 2, true, 16 * SECOND);
    assert_eq!(share(&mut peers, 16 * SECOND), (500, true));
    say(&mut peers, "d", 2, false, 16 * SECOND);
    assert_eq!(share(&mut peers, 16 * SECOND), (500, true));
    say(&mut peers, "d", 2, true, 16 * SECOND);
    assert_eq!(share(&mut peers, 16 * SECOND), (1_000, false));
    // One leaves in peace.
    say(&mut peers, "d", 1, true, 20 * SECOND);
    assert_eq!(share(&mut peers, 20 * SECOND), (1_000, false));
    // It grows again: the new ones are waited for.
    say(&mut peers, "d", 3, true, 21 * SECOND);
    assert_eq!(share(&mut peers, 22 * SECOND), (1_000, false));
    assert_eq!(share(&mut peers, 21 * SECOND + TIMEOUT + 1), (500, true));
}

/// What a master says of itself on a line that was cut counts for nothing when it
/// comes.
#[test]
fn old_rounds_of_one_master_wake_nobody() {
    let mut peers = Membership::new(PartitionPolicy::Equal, 2, TIMEOUT, at(0));
    for us in [0, SECOND] {
        say(&mut peers, "a", 2, true, us);
        say(&mut peers, "b", 2, true, us);
    }
    say(&mut peers, "a", 2, true, 9 * SECOND);
    let old = Round {
        id: peer(0),
        run: b"b",
        sent: at(2 * SECOND).steady,
        spent: 0,
        masters: 2,
        complete: true,
        hears: None,
    };
    peers.heard(&old, at(9 * SECOND));
    assert!(peers.is_silent(peer(0)));
    peers.heard(&Round { sent: at(9 * SECOND).steady, ..old }, at(9 * SECOND));
    assert!(!peers.is_silent(peer(0)));
}

/// However many processes speak in the name of one region, few are remembered.
#[test]
fn senders_are_bounded() {
    let mut peers = Membership::new(PartitionPolicy::Equal, 2, TIMEOUT, at(0));
    for n in 0..10_000 {
        say(&mut peers, &n.to_string(), 1, n % 2 == 0, n);
    }
    assert!(format!("{peers:?}").len() < 4_000);
    assert_eq!(peers.share(), 1_000);
}

/// What one peer cannot hear is passed on for as long as it says so.
#[test]
fn a_region_between_two_others_passes_on() {
    let mut peers = Membership::new(PartitionPolicy::Equal, 3, TIMEOUT, at(0));
    let say = |peers: &mut Membership, n: usize, hears: Option<&[ReplicaId]>, us: u64| {
        let (id, run, sent) = (peer(n), b"run".as_slice(), at(us).steady);
        let round = Round { id, run, sent, spent: 0, masters: 1, complete: true, hears };
        assert!(peers.heard(&round, at(us)));
        [peers.misses(peer(0)), peers.misses(peer(1))]
    };
    // Nobody has said anything, or has been there for long enough to say.
    assert_eq!(say(&mut peers, 0, None, 0), [false, false]);
    assert_eq!(say(&mut peers, 1, Some(&[]), TIMEOUT), [false, false]);
    assert_eq!(say(&mut peers, 0, Some(&[]), TIMEOUT), [false, false]);
    // Each hears the other.
    let start = 2 * TIMEOUT;
    assert_eq!(say(&mut peers, 1, Some(&[peer(0)]), start), [false, false]);
    assert_eq!(say(&mut peers, 0, Some(&[peer(1), peer(9)]), start), [false, false]);
    assert_eq!(say(&mut peers, 1, Some(&[peer(0)]), start + 1), [false, false]);
    // One does not, then neither does.
    let now = start + SECOND;
    assert_eq!(say(&mut peers, 1, Some(&[peer(9)]), now), [true, false]);
    assert_eq!(say(&mut peers, 0, Some(&[]), now), [true, true]);
    assert_eq!(say(&mut peers, 1, Some(&[peer(0)]), now), [false, true]);
    assert!(peers.passes_on());
    // Who is not heard here cannot be told anything.
    assert_eq!(say(&mut peers, 1, Some(&[peer(0)]), now + TIMEOUT + 1), [false, false]);
    assert_eq!(peers.heard_now().collect::<Vec<_>>(), [peer(1)]);
}

/// A peer that is not heard, and that others hear who hear this region too, is
/// silent for two timeouts only.
#[test]
fn a_peer_that_others_pass_on_is_not_silent() {
    let me = peer(7);
    let start = |knows_itself: bool| {
        let mut peers = Membership::new(PartitionPolicy::Equal, 3, TIMEOUT, at(0));
        peers.set_id(Some(me).filter(|_| knows_itself));
        peers
    };
    let say = |peers: &mut Membership, n: usize, hears: &[ReplicaId], us: u64| {
        let (id, run, sent) = (peer(n), b"run".as_slice(), at(us).steady);
        let hears = Some(hears);
        let round = Round { id, run, sent, spent: 0, masters: 1, complete: true, hears };
        assert!(peers.heard(&round, at(us)));
    };
    let both = [peer(0), me];
    for (hears, knows_itself, relayed) in [
        (both.as_slice(), true, true),
        (&both, false, false),
        // It would not pass on to whom it does not hear.
        (&both[..1], true, false),
        (&both[1..], true, false),
    ] {
        let mut peers = start(knows_itself);
        say(&mut peers, 0, &[], 0);
        let mut seen = Vec::new();
        for us in (0..=5 * TIMEOUT).step_by(100_000) {
            say(&mut peers, 1, hears, us);
            let about = &peers.all()[0];
            seen.push((about.is_silent(), about.is_relayed(), peers.share()));
            // Its round is that of who passes on, the one before.
            let round = if about.is_relayed() { us - 100_000 } else { 0 };
            assert_eq!(about.round(), at(round).wall);
        }
        let count = |what| seen.iter().filter(|seen| **seen == what).count();
        let steps = usize::try_from(TIMEOUT / 100_000).unwrap();
        assert_eq!(count((false, false, 1_000)), steps + 1);
        let silent = if relayed { steps } else { 4 * steps };
        assert_eq!(count((true, false, 666)), silent, "{hears:?}");
        assert_eq!(count((false, true, 1_000)), 4 * steps - silent, "{hears:?}");
    }
}
