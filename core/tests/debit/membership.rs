//! Which regions are heard, and what share that leaves.

use crate::any::cases;
use crate::world::{Rounds, SECOND, at, news, peer, round, snapshots};
use claw_core::membership::{Membership, PartitionPolicy, Peer, Progress, Rates, Round};
use claw_core::replica::ReplicaId;
use proptest::prelude::*;
use std::collections::BTreeMap;

const TIMEOUT: u64 = 2 * SECOND;

/// From one look of everybody at everything to the next.
const STEP: u64 = SECOND / 20;

/// What goes over a line: a round, then its answer, then the next round.
#[derive(Debug, Clone, Copy)]
enum Message {
    Round { sent: u64, number: u64, rates: Option<Rates>, settled: bool },
    Answer { number: u64 },
}

/// Regions that say rounds to each other, over lines that may be slow or cut.
struct Lines {
    regions: Vec<Membership>,
    now: u64,
    spent: Vec<u64>,
    /// By sender and receiver: what is under way, and when it comes.
    under_way: BTreeMap<(usize, usize), (u64, Message)>,
}

impl Lines {
    fn new(guard: PartitionPolicy, count: usize) -> Self {
        let regions = vec![Membership::new(guard, count, TIMEOUT, at(0)); count];
        Self { regions, now: 0, spent: vec![0; count], under_way: BTreeMap::new() }
    }

    /// A twentieth of a second, in which each region spends so much. Messages that are
    /// sent in it take so long, and those of a line that is cut are lost.
    fn step(
        &mut self,
        spend: impl Fn(usize) -> u64,
        cut: impl Fn(usize, usize) -> bool,
        mut lag: impl FnMut() -> u64,
    ) {
        self.now += STEP;
        let count = self.regions.len();
        for (here, region) in self.regions.iter_mut().enumerate() {
            self.spent[here] += spend(here);
            region.tick(Some(self.spent[here]), at(self.now));
        }
        for (from, to) in pairs(count) {
            if cut(from, to) {
                self.under_way.remove(&(from, to));
                continue;
            }
            match self.under_way.get(&(from, to)).copied() {
                Some((when, _)) if when > self.now => {}
                Some((_, Message::Round { sent, number, rates, settled })) => {
                    let round = Round { rates, settled, ..round(peer(from), at(sent)) };
                    self.regions[to].heard(&round, at(self.now));
                    self.send((from, to), lag(), Message::Answer { number });
                }
                Some((_, Message::Answer { number })) => {
                    self.regions[from].acknowledged(peer(to), b"run", number);
                    self.under_way.remove(&(from, to));
                }
                None => {
                    let said = self.regions[from].statement();
                    let (number, rates, settled) = (said.number, said.rates, said.settled);
                    let round = Message::Round { sent: self.now, number, rates, settled };
                    self.send((from, to), lag(), round);
                }
            }
        }
    }

    fn send(&mut self, line: (usize, usize), lag: u64, message: Message) {
        self.under_way.insert(line, (self.now + lag, message));
    }

    /// So many seconds in which everybody spends evenly, so much a second.
    fn run(&mut self, seconds: u64, spend: &[u64], cut: impl Fn(usize, usize) -> bool) {
        for _ in 0..seconds * SECOND / STEP {
            self.step(|n| spend[n] / 20, &cut, || 0);
        }
    }

    fn shares(&self) -> Vec<u16> {
        self.regions.iter().map(Membership::share).collect()
    }

    /// The sides, when those who hear each other hear the same ones: of each the
    /// greatest share of any region.
    fn sides(&self) -> Option<Vec<u16>> {
        let hears = |n: usize| -> Vec<usize> {
            let heard: Vec<ReplicaId> = self.regions[n].heard_now().collect();
            (0..self.regions.len()).filter(|m| *m == n || heard.contains(&peer(*m))).collect()
        };
        let mut sides = BTreeMap::new();
        for n in 0..self.regions.len() {
            let side = hears(n);
            if side.iter().any(|m| hears(*m) != side) {
                return None;
            }
            let share = self.regions[n].share();
            sides
                .entry(side)
                .and_modify(|most: &mut u16| *most = share.max(*most))
                .or_insert(share);
        }
        Some(sides.into_values().collect())
    }
}

fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |a| (0..count).map(move |b| (a, b))).filter(|(a, b)| a != b)
}

/// Numbers that differ a lot, from a seed.
fn numbers(mut seed: u64) -> impl FnMut(u64) -> u64 {
    move |below| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    }
}

/// 2 to 5 regions on at most 3 sides.
fn sides() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0_usize..3, 2..=5)
}

proptest! {
    #![proptest_config(cases(150))]

    /// However slow the lines are, in whatever moment each of them is cut, and whatever
    /// anybody spends: the sides have no more than there is.
    #[test]
    fn the_sides_of_a_cut_share_the_limit(
        sides in sides(),
        guard in prop::sample::select(vec![PartitionPolicy::Equal, PartitionPolicy::Share]),
        // How slow, at most, in each stretch of two seconds.
        slow in prop::collection::vec(
            prop_oneof![3 => Just(1), 3 => 1..SECOND / 2, 2 => 1..4 * SECOND], 1..8),
        cuts in prop::collection::vec((0_u64..40 * SECOND, SECOND..12 * SECOND), 2..6),
        seed: u64,
    ) {
        let mut lines = Lines::new(guard, sides.len());
        let mut number = numbers(seed);
        // By line, when it is cut.
        let mut times: BTreeMap<(usize, usize), Vec<(u64, u64)>> = BTreeMap::new();
        for (begin, long) in cuts {
            for line in pairs(sides.len()) {
                let begin = begin + number(SECOND);
                times.entry(line).or_default().push((begin, begin + long));
            }
        }
        let mut rates = vec![0; sides.len()];
        while lines.now < 50 * SECOND {
            // Seldom, so that what is spent of late differs a lot from one to the other.
            if number(60) == 0 {
                rates[number(sides.len() as u64) as usize] = [0, 0, 1, 100, 10_000][number(5) as usize];
            }
            let now = lines.now;
            let is_cut = |from: usize, to: usize| {
                let mut times = times[&(from, to)].iter();
                sides[from] != sides[to] && times.any(|(begin, end)| (*begin..*end).contains(&now))
            };
            let slow = slow[(now / TIMEOUT) as usize % slow.len()];
            lines.step(|n| rates[n], is_cut, || number(slow));
            let shares = lines.sides();
            if let Some(shares) = shares.filter(|shares| shares.len() > 1) {
                // Who has not been missed for long enough is waited for.
                if shares.iter().all(|share| *share < 1_000) {
                    prop_assert!(shares.iter().sum::<u16>() <= 1_000, "{now}: {shares:?}");
                }
            }
        }
        lines.run(5, &vec![0; sides.len()], |_, _| false);
        prop_assert!(lines.shares().iter().all(|share| *share == 1_000));
    }

    /// Where all spend evenly nothing of the limit is left over, but for what rounding
    /// costs each side, and what the first round of the cut changed.
    #[test]
    fn the_sides_of_a_cut_use_the_limit(
        sides in sides(),
        guard in prop::sample::select(vec![PartitionPolicy::Equal, PartitionPolicy::Share]),
        spend in prop::collection::vec((0_u64..1_000).prop_map(|n| n * 20), 5),
        after in prop::collection::vec((0_u64..1_000).prop_map(|n| n * 20), 5),
        warm in 13_u64..20,
    ) {
        let mut lines = Lines::new(guard, sides.len());
        lines.run(warm, &spend, |_, _| false);
        prop_assert!(lines.shares().iter().all(|share| *share == 1_000));
        // What is spent then is not seen on the other side.
        lines.run(3, &after, |from, to| sides[from] != sides[to]);
        let shares = lines.sides().expect("all have noticed");
        let sum: u16 = shares.iter().sum();
        prop_assert!(sum <= 1_000 && sum > 1_000 - 3 - 20, "{shares:?}");
        lines.run(1, &after, |_, _| false);
        prop_assert!(lines.shares().iter().all(|share| *share == 1_000));
    }

    /// Whatever is heard when: the share is 1000 exactly when nobody is missing, and
    /// never 0; without a guard it is always 1000. What is noted while it is less never comes to
    /// be credited for more than it was.
    #[test]
    fn shares_are_within_their_bounds(
        guard in prop::sample::select(PartitionPolicy::ALL.to_vec()),
        news in news(4),
        regions in 1_usize..=5,
    ) {
        let mut now = 0;
        let all = snapshots(guard, regions, &news);
        for (before, (_, noted)) in all.iter().enumerate() {
            let mut later = all[before..].iter().map(|(_, peers)| peers);
            let alike = |peers: &&Membership| peers.regions() == noted.regions();
            let credited = noted.share_until_sent();
            prop_assert_eq!(credited == 1_000, noted.share() == 1_000);
            prop_assert!(credited == 1_000 || later.all(|peers| !alike(&peers) || credited <= peers.share()));
        }
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
        (&[0, 0, 1, 1], &[500, 500, 500, 500]),
        (&[0, 0, 0, 1], &[750, 750, 750, 250]),
        (&[0, 1, 2], &[333, 333, 333]),
        (&[0, 0, 1, 1, 2], &[400, 400, 400, 400, 200]),
    ];
    for (sides, shares) in table {
        let mut lines = Lines::new(PartitionPolicy::Equal, sides.len());
        lines.run(5, &[2_000, 20, 20, 20, 20], |_, _| false);
        lines.run(3, &[0; 5], |from, to| sides[from] != sides[to]);
        assert_eq!(lines.shares(), shares, "{sides:?}");
    }
}

/// By what each spent before the cut, a tenth of the limit apart from that.
#[test]
fn share_goes_by_recent_spend() {
    let table: [(&[u64], &[u16]); 4] = [
        (&[100, 100], &[500, 500]),
        (&[300, 100], &[725, 275]),
        (&[100, 0], &[950, 50]),
        (&[0, 0], &[500, 500]),
    ];
    for (spend, shares) in table {
        let mut lines = Lines::new(PartitionPolicy::Share, 2);
        lines.run(20, spend, |_, _| false);
        // What is spent after the cut is not seen on the other side.
        lines.run(3, &[20_000, spend[1]], |_, _| true);
        assert_eq!(lines.shares(), shares, "{spend:?}");
        // It stays, and a second cut soon after the first goes by the rate and not by
        // how long the first one was.
        lines.run(60, spend, |_, _| true);
        assert_eq!(lines.shares(), shares, "{spend:?}");
        lines.run(3, spend, |_, _| false);
        assert_eq!(lines.shares(), [1_000, 1_000], "{spend:?}");
        lines.run(3, spend, |_, _| true);
        assert_eq!(lines.shares(), shares, "{spend:?}");
    }
}

/// Whom nobody has watched for a while may have spent anything: all count alike.
#[test]
fn a_cut_right_after_the_start() {
    let mut lines = Lines::new(PartitionPolicy::Share, 4);
    for _ in 0..18 {
        lines.step(|n| if n == 3 { 100 } else { 0 }, |_, _| false, || 0);
    }
    lines.run(3, &[0; 4], |from, to| (from == 3) != (to == 3));
    assert_eq!(lines.shares(), [750, 750, 750, 250]);
}

/// A cut between a round and its answer, when what a region spends has just changed:
/// who was told goes by what the other may not know to have been heard.
#[test]
fn a_cut_before_the_answer() {
    let mut lines = Lines::new(PartitionPolicy::Share, 2);
    lines.run(20, &[20, 20], |_, _| false);
    // The burst is told, and its answer is lost with the line.
    let mut told = 0;
    for _ in 0..20 {
        lines.step(|n| if n == 0 { 1_000 } else { 1 }, |_, _| told > 2, || 0);
        let said = lines.regions[0].statement().rates.expect("it is known");
        told += u64::from(said.now > 20_000);
    }
    lines.run(3, &[0, 0], |_, _| true);
    let shares = lines.shares();
    assert!(shares.iter().sum::<u16>() <= 1_000, "{shares:?}");
    assert!(shares[0] >= 500, "{shares:?}");
}

/// A peer that refuses our states counts as silent, though it is heard; and one whose
/// states are refused here is not heard, though its heartbeats come.
#[test]
fn who_refuses_is_silent() {
    let mut peers = Membership::new(PartitionPolicy::Equal, 2, TIMEOUT, at(0));
    peers.completed(peer(0), at(0));
    peers.refuses(peer(0), true);
    peers.tick(None, at(1));
    assert!(peers.is_silent(peer(0)) && peers.all()[0].is_refusing());
    assert_eq!((peers.share(), peers.heard_now().count()), (500, 1));
    peers.refuses(peer(0), false);
    peers.tick(None, at(2));
    assert_eq!((peers.share(), peers.is_silent(peer(0))), (1_000, false));
    // Nobody who is not known.
    peers.refuses(peer(1), true);
    peers.tick(None, at(3));
    assert_eq!(peers.share(), 1_000);

    let mut say = |progress, us| {
        assert!(peers.heard(&Round { progress, ..round(peer(0), at(us)) }, at(us)));
        (peers.share(), peers.all()[0].round())
    };
    for us in (SECOND..=TIMEOUT).step_by(100_000) {
        assert_eq!(say(Progress::Refused, us), (1_000, at(0).wall));
    }
    // However long it lasts, and until it has said what it was refused.
    for us in (TIMEOUT + 1..10 * SECOND).step_by(100_000) {
        assert_eq!(say(Progress::Refused, us), (500, at(0).wall));
    }
    assert_eq!(say(Progress::Partial, 10 * SECOND).0, 500);
    assert_eq!(say(Progress::Complete, 10 * SECOND), (1_000, at(10 * SECOND).wall));
}

/// A peer that says that it does not hear us counts as silent, though it is heard, unless somebody
/// passes on to it what we say. That it hears us again is believed at once.
#[test]
fn who_does_not_hear_us_is_deaf() {
    let me = peer(7);
    let mut peers = Membership::new(PartitionPolicy::Equal, 3, TIMEOUT, at(0));
    peers.set_id(Some(me));
    let mut us = 0;
    let mut say = |first: &[ReplicaId], second: &[ReplicaId], long: u64| {
        let until = us + long;
        while us < until {
            us += 100_000;
            for (n, hears) in [(0, first), (1, second)] {
                let hears = Some(hears);
                assert!(peers.heard(&Round { hears, ..round(peer(n), at(us)) }, at(us)));
            }
        }
        let deaf: Vec<bool> = peers.all().iter().map(Peer::is_deaf).collect();
        assert_eq!(peers.heard_now().count(), 2);
        (peers.share(), deaf)
    };
    // Who has just begun has not had the time to hear us.
    assert_eq!(say(&[peer(1)], &[peer(0), me], TIMEOUT), (1_000, vec![false, false]));
    // The second hears us, and the first the second.
    assert_eq!(say(&[peer(1)], &[peer(0), me], TIMEOUT), (1_000, vec![false, false]));
    assert_eq!(say(&[], &[peer(0), me], TIMEOUT), (666, vec![true, false]));
    // It passes on only to whom it hears.
    assert_eq!(say(&[peer(1)], &[me], TIMEOUT), (666, vec![true, false]));
    assert_eq!(say(&[peer(1)], &[peer(0)], TIMEOUT), (333, vec![true, true]));
    assert_eq!(say(&[peer(1), me], &[peer(0)], 100_000), (1_000, vec![false, false]));
    assert_eq!(say(&[me], &[me], 100_000), (1_000, vec![false, false]));
}

/// A master of a cluster that has no slots only opens connections. It is not waited for, it takes
/// nobody's place, and when it has something to say it has not had the time to hear us.
#[test]
fn a_process_that_only_opens_is_none_of_those_heard() {
    let me = ReplicaId::new(b"me").unwrap();
    let mut peers = Membership::new(PartitionPolicy::Share, 2, TIMEOUT, at(0));
    peers.set_id(Some(me));
    let rates = |rate| Some(Rates { before: rate, now: rate });
    let (all, mut said) = ([me], 0);
    for us in (0..20 * SECOND).step_by(100_000) {
        peers.tick(Some(us * us / SECOND), at(us));
        let of_one = |run, hears, rates| Round { run, hears, rates, ..round(peer(0), at(us)) };
        // Of those before it, as many are remembered as may be.
        let run: &[u8] = match us * 4 / SECOND {
            0 => b"x",
            1 => b"y",
            2 => b"z",
            _ => b"a",
        };
        assert!(peers.heard(&of_one(run, Some(&all), rates(us)), at(us)));
        assert_eq!(peers.share(), 1_000, "{us}");
        // Whoever has slots acknowledges what we say, and so we go on saying it.
        said = peers.statement().number;
        peers.acknowledged(peer(0), run, said);
        if us >= 2 * SECOND {
            let opening = of_one(b"b", Some(&[]), None);
            assert!(peers.heard(&Round { progress: Progress::Opening, ..opening }, at(us)));
        }
    }
    assert!(said > 150, "{said}");
    for us in (20 * SECOND..40 * SECOND).step_by(100_000) {
        // It hears us soon.
        let hears = if us > 21 * SECOND { &all[..] } else { &[] };
        for (run, hears) in [(&b"a"[..], &all[..]), (&b"b"[..], hears)] {
            let one = Round { run, hears: Some(hears), ..round(peer(0), at(us)) };
            assert!(peers.heard(&Round { masters: 2, ..one }, at(us)));
        }
        assert_eq!(peers.share(), 1_000, "{us}");
    }
}

/// A process that takes the place of one that is gone is heard with its first round,
/// one that was cut off when it has said all.
#[test]
fn a_new_process_is_heard_at_once() {
    let mut peers = Membership::new(PartitionPolicy::Equal, 2, TIMEOUT, at(0));
    say(&mut peers, "a", 1, Progress::Complete, 0);
    peers.tick(None, at(5 * SECOND));
    say(&mut peers, "a", 1, Progress::Partial, 5 * SECOND);
    assert_eq!(peers.share(), 500);
    // That it connects says nothing yet.
    say(&mut peers, "b", 1, Progress::Opening, 6 * SECOND);
    assert_eq!(peers.share(), 500);
    // Even less what it said long ago, on a line that was cut.
    let old = Round { run: b"b", progress: Progress::Partial, ..round(peer(0), at(6 * SECOND)) };
    assert!(peers.heard(&old, at(9 * SECOND)));
    assert_eq!(peers.share(), 500);
    let before = peers.all()[0].round();
    for us in (10 * SECOND..60 * SECOND).step_by(100_000) {
        say(&mut peers, "b", 1, Progress::Partial, us);
        assert_eq!(peers.share(), 1_000);
    }
    assert_eq!(peers.all()[0].round(), before);
    // Once it has been heard it is one like any other.
    peers.tick(None, at(70 * SECOND));
    say(&mut peers, "b", 1, Progress::Partial, 70 * SECOND);
    assert_eq!(peers.share(), 500);
    // What its predecessor said may still lie somewhere.
    let late = Round { rates: Some(Rates { before: 1, now: 1 }), ..round(peer(0), at(4 * SECOND)) };
    assert!(peers.heard(&Round { run: b"a", ..late }, at(71 * SECOND)));
    assert_eq!(peers.share(), 500);
    say(&mut peers, "b", 1, Progress::Complete, 71 * SECOND);
    assert_eq!(peers.share(), 1_000);
}

/// More than the equal part is only for who knows that all know all rates.
#[test]
fn more_than_the_equal_part_has_to_be_agreed_on() {
    let rates = Some(Rates { before: 0, now: 0 });
    let mut peers = Membership::new(PartitionPolicy::Share, 2, TIMEOUT, at(0));
    let mut second = 0;
    let mut hear = |peers: &mut Membership, settled| {
        second += 1;
        let now = at(second * SECOND);
        assert!(peers.heard(&Round { rates, settled, ..round(peer(0), now) }, now));
        peers.tick(Some(second * 100), now);
        // As if it fell silent now.
        let mut cut = peers.clone();
        cut.tick(None, at((second + 3) * SECOND));
        (peers.statement().settled, cut.share())
    };
    assert_eq!(hear(&mut peers, true), (false, 500));
    // It spends all of it, and nobody knows.
    assert_eq!(hear(&mut peers, true), (false, 500));
    peers.acknowledged(peer(0), b"run", 1);
    assert_eq!(hear(&mut peers, true), (true, 950));
    assert_eq!(hear(&mut peers, false), (true, 500));
}

/// What has been said is acknowledged by the process that runs now, and by no other.
#[test]
fn rates_follow_their_acknowledgement() {
    let mut peers = Membership::new(PartitionPolicy::Share, 2, TIMEOUT, at(0));
    let mut now = 0;
    let mut spend = |peers: &mut Membership, run: &str, rate: u64, seconds: u64| {
        static SPENT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        for _ in 0..seconds * 10 {
            now += SECOND / 10;
            let before = SPENT.fetch_add(rate / 10, std::sync::atomic::Ordering::SeqCst);
            say(peers, run, 1, Progress::Complete, now);
            peers.tick(Some(before + rate / 10), at(now));
        }
        peers.statement()
    };
    assert_eq!(spend(&mut peers, "a", 10, 1).number, 0);
    // The first rate, and then no other before it is known.
    let first = spend(&mut peers, "a", 10, 1);
    assert_eq!((first.number, first.rates), (1, Some(Rates { before: 10_000, now: 10_000 })));
    assert_eq!(spend(&mut peers, "a", 1_000, 2), first);
    peers.acknowledged(peer(0), b"b", 1);
    assert_eq!(spend(&mut peers, "a", 1_000, 1), first);
    peers.acknowledged(peer(0), b"a", 1);
    let second = spend(&mut peers, "a", 1_000, 1);
    let rates = second.rates.expect("it is known");
    assert!(second.number == 2 && rates.before == 10_000 && rates.now > 10_000, "{second:?}");
    // Another process does not know what was acknowledged.
    peers.acknowledged(peer(0), b"a", 2);
    assert_eq!(spend(&mut peers, "b", 1_000, 1), second);
    peers.acknowledged(peer(0), b"b", 2);
    assert_eq!(spend(&mut peers, "b", 1_000, 1).number, 3);
}

/// Regions that were never heard are waited for as long as silent ones.
#[test]
fn regions_that_never_came() {
    for guard in [PartitionPolicy::Equal, PartitionPolicy::Share] {
        let mut peers = Membership::new(guard, 3, TIMEOUT, at(0));
        peers.completed(peer(0), at(0));
        peers.tick(None, at(TIMEOUT));
        assert_eq!(peers.share(), 1_000, "{guard:?}");
        peers.completed(peer(0), at(TIMEOUT + 1));
        assert_eq!(peers.share(), 666, "{guard:?}");
        peers.completed(peer(1), at(TIMEOUT + 2));
        assert_eq!(peers.share(), 1_000, "{guard:?}");
    }
}

/// The set of peers changes while the server runs.
#[test]
fn peers_come_and_go() {
    let mut peers = Membership::new(PartitionPolicy::Equal, 2, TIMEOUT, at(0));
    peers.completed(peer(0), at(0));
    // A third region: waited for, then missing, then there.
    peers.configure(PartitionPolicy::Equal, 3, TIMEOUT, at(10 * SECOND));
    peers.completed(peer(0), at(10 * SECOND));
    assert_eq!(peers.share(), 1_000);
    peers.completed(peer(0), at(13 * SECOND));
    assert_eq!(peers.share(), 666);
    peers.completed(peer(1), at(13 * SECOND));
    assert_eq!(peers.share(), 1_000);
    // One is gone for good: silent, until the configuration says so too.
    peers.completed(peer(1), at(20 * SECOND));
    assert_eq!((peers.share(), peers.is_silent(peer(0))), (666, true));
    peers.configure(PartitionPolicy::Equal, 2, TIMEOUT, at(20 * SECOND));
    assert_eq!((peers.share(), peers.all().len()), (1_000, 1));
    // One goes on under another name: the old one is forgotten.
    peers.completed(peer(2), at(21 * SECOND));
    peers.completed(peer(2), at(23 * SECOND));
    assert_eq!((peers.share(), peers.all().len(), peers.regions()), (1_000, 1, 2));
    // More are heard than there should be: they count.
    peers.completed(peer(3), at(23 * SECOND));
    assert_eq!((peers.share(), peers.regions()), (1_000, 3));
    // The guard is taken away while one is silent.
    let mut peers = Membership::new(PartitionPolicy::Equal, 2, TIMEOUT, at(0));
    peers.completed(peer(0), at(0));
    peers.tick(None, at(3 * SECOND));
    assert_eq!(peers.share(), 500);
    peers.configure(PartitionPolicy::Off, 2, TIMEOUT, at(3 * SECOND));
    assert_eq!(peers.share(), 1_000);
    // A guard that is put in the place of another one has nothing frozen.
    peers.configure(PartitionPolicy::Share, 2, TIMEOUT, at(3 * SECOND));
    assert_eq!(peers.share(), 500);
}

/// One process of a region that has `masters` says so much at an instant.
fn say(peers: &mut Membership, run: &str, masters: u16, progress: Progress, us: u64) {
    let run = run.as_bytes();
    assert!(peers.heard(&Round { run, masters, progress, ..round(peer(0), at(us)) }, at(us)));
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
    say(&mut peers, "a", 2, Progress::Complete, SECOND);
    assert_eq!(share(&mut peers, SECOND + TIMEOUT), (1_000, false));
    say(&mut peers, "a", 2, Progress::Complete, SECOND + TIMEOUT);
    assert_eq!(share(&mut peers, SECOND + TIMEOUT + 1), (500, true));
    say(&mut peers, "b", 2, Progress::Complete, 4 * SECOND);
    assert_eq!(share(&mut peers, 4 * SECOND), (1_000, false));
    let round = peers.all()[0].round();
    // One alone falls silent; that the other is heard is no round.
    for second in 5..10 {
        say(&mut peers, "a", 2, Progress::Complete, second * SECOND);
    }
    assert_eq!(share(&mut peers, 9 * SECOND), (500, true));
    assert!(peers.all()[0].round() < at(7 * SECOND).wall && peers.all()[0].round() > round);
    assert_eq!(peers.all()[0].silence(at(9 * SECOND)), 5 * SECOND);
    // It has more to say, and only then said all.
    say(&mut peers, "b", 2, Progress::Partial, 10 * SECOND);
    assert_eq!(share(&mut peers, 10 * SECOND), (500, true));
    say(&mut peers, "b", 2, Progress::Complete, 10 * SECOND);
    assert_eq!(share(&mut peers, 10 * SECOND), (1_000, false));
    // A replica takes over from `b`, within the timeout and after it.
    say(&mut peers, "c", 2, Progress::Partial, 11 * SECOND);
    say(&mut peers, "a", 2, Progress::Complete, 13 * SECOND);
    assert_eq!(share(&mut peers, 13 * SECOND), (1_000, false));
    say(&mut peers, "a", 2, Progress::Complete, 16 * SECOND);
    assert_eq!(share(&mut peers, 16 * SECOND), (500, true));
    say(&mut peers, "d", 2, Progress::Partial, 16 * SECOND);
    assert_eq!(share(&mut peers, 16 * SECOND), (1_000, false));
    // One leaves in peace.
    say(&mut peers, "d", 1, Progress::Complete, 20 * SECOND);
    assert_eq!(share(&mut peers, 20 * SECOND), (1_000, false));
    // It grows again: the new ones are waited for.
    say(&mut peers, "d", 3, Progress::Complete, 21 * SECOND);
    assert_eq!(share(&mut peers, 22 * SECOND), (1_000, false));
    assert_eq!(share(&mut peers, 21 * SECOND + TIMEOUT + 1), (500, true));
}

/// What a master says of itself on a line that was cut counts for nothing when it
/// comes.
#[test]
fn old_rounds_of_one_master_wake_nobody() {
    let mut peers = Membership::new(PartitionPolicy::Equal, 2, TIMEOUT, at(0));
    for us in [0, SECOND] {
        say(&mut peers, "a", 2, Progress::Complete, us);
        say(&mut peers, "b", 2, Progress::Complete, us);
    }
    say(&mut peers, "a", 2, Progress::Complete, 9 * SECOND);
    let old = Round { run: b"b", masters: 2, ..round(peer(0), at(2 * SECOND)) };
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
        let progress = if n % 2 == 0 { Progress::Complete } else { Progress::Partial };
        say(&mut peers, &n.to_string(), 1, progress, n);
    }
    assert!(format!("{peers:?}").len() < 4_000);
    assert_eq!(peers.share(), 1_000);
}

/// What one peer cannot hear is passed on for as long as it says so.
#[test]
fn a_region_between_two_others_passes_on() {
    let mut peers = Membership::new(PartitionPolicy::Equal, 3, TIMEOUT, at(0));
    let say = |peers: &mut Membership, n: usize, hears: Option<&[ReplicaId]>, us: u64| {
        assert!(peers.heard(&Round { hears, ..round(peer(n), at(us)) }, at(us)));
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
        let hears = Some(hears);
        assert!(peers.heard(&Round { hears, ..round(peer(n), at(us)) }, at(us)));
    };
    let both = [peer(0), me];
    for (hears, knows_itself, relayed, share) in [
        (both.as_slice(), true, true, 666),
        (&both, false, false, 666),
        // It would not pass on to whom it does not hear, and is deaf to us besides.
        (&both[..1], true, false, 333),
        (&both[1..], true, false, 666),
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
        assert_eq!(count((true, false, share)), silent, "{hears:?}");
        assert_eq!(count((false, true, 1_000)), 4 * steps - silent, "{hears:?}");
    }
}
