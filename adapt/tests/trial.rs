//! The trial by switchback: what is scored, what is void, and how often a verdict is right.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

use claw_adapt::trial::{BLOCK_US, MOST_PAIRS, Pair, TrialError};
use claw_adapt::{Arm, Seen, Trial, Verdict};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000;

/// Ticks of a second until the trial has a verdict, or for `pairs` pairs; each block is what `load` says of
/// its number and arm.
fn run(trial: &mut Trial, pairs: u64, mut load: impl FnMut(u64, Arm) -> Seen) {
    for second in 0..pairs * 2 * BLOCK_US / SECOND {
        let arm = trial.arm(second * SECOND);
        if trial.verdict() != Verdict::Undecided {
            break;
        }
        if second == 0 {
            trial.see(0, Seen::default());
        }
        trial.see((second + 1) * SECOND, load(second / 60, arm));
    }
}

fn done(in_sla: u64, late: u64) -> Seen {
    Seen { offered: 1_000, in_sla, late }
}

/// Numbers of a bell curve around 0 with a deviation of 1, close enough.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }

    fn uniform(&mut self) -> f64 {
        // Xorshift: another kind of numbers than those of the trial.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A trial under a load that goes up and down over hours, with `noise` from block to block, in which the adaptive arm's
/// score is higher by the share `gain`.
fn noisy(seed: u64, noise: f64, gain: f64) -> Trial {
    let mut random = Noise(seed * 0x9e37_79b9 + 1);
    let (mut drift, mut block, mut level) = (0.0, u64::MAX, 0.0);
    let mut trial = Trial::new(BLOCK_US);
    run(&mut trial, MOST_PAIRS as u64, |number, arm| {
        if number != block {
            block = number;
            drift = 0.95 * drift + 0.05 * random.next();
            level = 1_000.0 * (1.0 + drift + noise * random.next()).max(0.0);
        }
        let share = if arm == Arm::Adaptive { 1.0 + gain } else { 1.0 };
        done((level * share) as u64, 0)
    });
    trial
}

/// Of so many trials, how many ended with each verdict: Better, Worse, `NoDifference`.
fn verdicts(trials: u64, noise: f64, gain: f64) -> [usize; 3] {
    let ends: Vec<Verdict> = (1..=trials).map(|seed| noisy(seed, noise, gain).verdict()).collect();
    [Verdict::Better, Verdict::Worse, Verdict::NoDifference]
        .map(|verdict| ends.iter().filter(|end| **end == verdict).count())
}

#[test]
fn a_better_arm_is_found_and_equal_ones_seldom_differ() {
    for (trials, noise, gain, better, worse) in [
        (200, 0.1, 0.0, 0..=10, 0..=10),
        (40, 0.02, 0.1, 40..=40, 0..=0),
        (40, 0.1, 0.2, 39..=40, 0..=0),
        (40, 0.3, 0.5, 36..=40, 0..=0),
        (40, 0.1, -0.2, 0..=0, 39..=40),
    ] {
        let found = verdicts(trials, noise, gain);
        println!("noise {noise}, gain {gain}: better, worse, no difference {found:?}");
        assert_eq!(found.iter().sum::<usize>() as u64, trials, "each trial ends");
        assert!(
            better.contains(&found[0]) && worse.contains(&found[1]),
            "{noise} {gain} {found:?}"
        );
    }
}

#[test]
fn the_score_is_by_second_and_the_first_sixth_of_a_block_is_not_scored() {
    let mut trial = Trial::new(BLOCK_US);
    let mut second = 0;
    run(&mut trial, 1, |_, arm| {
        second += 1;
        match ((second - 1) % 60, arm) {
            (0..10, _) => done(900, 900),
            (_, Arm::Static) => done(100, 50),
            (_, Arm::Adaptive) => done(200, 2),
        }
    });
    assert_eq!(trial.pairs(), [Pair { of_static: 75.0, of_adaptive: 199.0 }]);
    let difference = trial.difference().unwrap();
    assert_eq!(difference.mean, 124.0 / 137.0);
    assert_eq!((difference.low, difference.high), (difference.mean, difference.mean));
    assert_eq!(trial.verdict(), Verdict::Undecided);
}

#[test]
fn a_pair_has_a_block_of_each_arm_in_either_order() {
    let mut trial = Trial::new(BLOCK_US);
    let first: Vec<bool> = (0..200)
        .map(|pair| {
            let begun = pair * 2 * BLOCK_US;
            let arms = [0, BLOCK_US - 1, BLOCK_US, 2 * BLOCK_US - 1];
            let arms = arms.map(|after| trial.arm(begun + after));
            assert_eq!((arms[0], arms[2]), (arms[1], arms[3]), "pair {pair}");
            assert_ne!(arms[0], arms[2], "pair {pair}");
            arms[0] == Arm::Adaptive
        })
        .collect();
    let adaptive = |some: &[bool]| some.iter().filter(|it| **it).count();
    assert!((80..=120).contains(&adaptive(&first)) && (10..=20).contains(&adaptive(&first[..30])));
}

#[test]
fn pairs_that_were_not_seen_whole_are_void() {
    let table: &[(&str, &[u64], usize)] = &[
        ("whole", &[], 3),
        ("a gap in the first block", &[30], 2),
        ("a gap where nothing is scored", &[5], 2),
        ("a gap in the second block", &[100], 2),
        ("a gap from one pair to the next", &[119, 120], 2),
        ("a gap in each pair", &[60, 150, 260], 0),
    ];
    for (what, missed, expected) in table {
        let mut trial = Trial::new(BLOCK_US);
        trial.arm(7);
        for second in (1..=365).filter(|second| !missed.contains(second)) {
            trial.see(7 + second * SECOND, done(100, 0));
        }
        // What is left of three pairs after the one that was void is too short for as many again.
        assert_eq!(trial.pairs().len(), *expected, "{what}");
        let score = |pair: &Pair| (pair.of_static, pair.of_adaptive) == (100.0, 100.0);
        assert!(trial.pairs().iter().all(score), "{what}: {:?}", trial.pairs());
    }
}

#[test]
fn without_requests_there_is_no_pair() {
    let mut trial = Trial::new(BLOCK_US);
    run(&mut trial, 40, |_, _| Seen::default());
    assert_eq!((trial.pairs(), trial.verdict()), (&[][..], Verdict::Undecided));
    // Of half the night.
    run(&mut trial, 40, |block, _| if block % 2 == 0 { done(5, 0) } else { Seen::default() });
    assert_eq!((trial.pairs(), trial.difference()), (&[][..], None));
}

#[test]
fn an_arm_that_is_only_late_is_worse() {
    for (of_static, of_adaptive, expected) in [
        (done(0, 100), done(90, 10), Verdict::Better),
        (done(0, 100), done(10, 90), Verdict::Better),
        (done(90, 10), done(0, 100), Verdict::Worse),
        (done(0, 0), done(0, 1), Verdict::Worse),
        (done(0, 0), done(0, 0), Verdict::NoDifference),
        (done(50, 2), done(50, 2), Verdict::NoDifference),
    ] {
        let mut trial = Trial::new(BLOCK_US);
        let load = |arm| if arm == Arm::Static { of_static } else { of_adaptive };
        run(&mut trial, 40, |_, arm| load(arm));
        let pairs = if expected == Verdict::NoDifference { 30 } else { 6 };
        assert_eq!((trial.verdict(), trial.pairs().len()), (expected, pairs), "{of_static:?}");
    }
}

#[test]
fn another_leader_goes_on_with_the_pairs_so_far() {
    let mut trial = Trial::new(BLOCK_US);
    run(&mut trial, 4, |block, arm| done(1_000 + block, if arm == Arm::Static { 7 } else { 3 }));
    // The fifth has begun.
    trial.see(490 * SECOND, done(1, 1));
    let mut other = Trial::from_text(&trial.to_text()).unwrap();
    assert_eq!((other.pairs(), other.difference()), (trial.pairs(), trial.difference()));
    assert_eq!(other.to_text(), trial.to_text());
    let next = trial.arm(490 * SECOND);
    assert_eq!(other.arm(3), next, "the order of the pair that is begun anew");
    for second in 1..=120 {
        other.see(3 + second * SECOND, done(100, 0));
    }
    assert_eq!(other.pairs().len(), 5);
}

#[test]
fn a_text_that_is_none_is_refused() {
    let text = "claw-adapt trial 1\nblock 60000000\nrunning 3\npair 1e2 2.5e2\npair 9e1 -2e2\n";
    assert_eq!(Trial::from_text(text).unwrap().to_text(), text);
    let edit = |from: &str, to: &str| text.replacen(from, to, 1);
    for (text, expected) in [
        (String::new(), TrialError::Version),
        (edit("trial 1", "trial 2"), TrialError::Version),
        (edit("block 60000000", "block"), TrialError::Head("block")),
        (edit("block 60000000", "block 5"), TrialError::Head("block")),
        (edit("block 60000000\n", ""), TrialError::Head("block")),
        (edit("running 3", "running -3"), TrialError::Head("running")),
        (edit("pair 1e2", "pair NaN"), TrialError::Pair(1)),
        (edit("pair 1e2", "pair inf"), TrialError::Pair(1)),
        (edit("pair 1e2", "pair 1e31"), TrialError::Pair(1)),
        (edit("-2e2", "-2e2 3"), TrialError::Pair(2)),
        (edit("9e1 ", ""), TrialError::Pair(2)),
        (format!("{text}\n"), TrialError::Pair(3)),
        (text.to_owned() + &"pair 1e0 1e0\n".repeat(29), TrialError::Count(31)),
    ] {
        assert_eq!(Trial::from_text(&text), Err(expected), "{text}");
    }
    let said = TrialError::Head("block").to_string();
    assert_eq!(said, "the line 'block ..' is missing or malformed");
}

fn seen() -> impl Strategy<Value = Seen> {
    let count = || prop_oneof![9 => 0..1_000_u64, 1 => any::<u64>()];
    (count(), count(), count()).prop_map(|(offered, in_sla, late)| Seen { offered, in_sla, late })
}

proptest! {
    #[test]
    fn whatever_is_seen_the_text_says_it_all(
        block_us in prop_oneof![0..100_u64, Just(BLOCK_US), any::<u64>()],
        ticks in prop::collection::vec((prop_oneof![0..20_u64, any::<u64>()], seen()), 0..200),
    ) {
        let mut trial = Trial::new(block_us);
        let mut now = 0_u64;
        for (after, seen) in ticks {
            // A clock that is at its end stays there; and one that steps back does no harm.
            now = if after == 13 { now / 2 } else { now.saturating_add(after) };
            trial.arm(now);
            trial.see(now, seen);
        }
        prop_assert!(trial.pairs().len() <= MOST_PAIRS);
        let read = Trial::from_text(&trial.to_text()).expect("its own text");
        prop_assert_eq!(read.pairs(), trial.pairs());
        prop_assert_eq!((read.verdict(), read.difference()), (trial.verdict(), trial.difference()));
    }
}

proptest! {
    // Each of them is three hours.
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn the_verdict_turns_round_with_the_arms_and_not_with_the_unit(
        scores in prop::collection::vec((0..500_u64, 0..500_u64), 1..30),
        times in 1..1_000_u64,
    ) {
        let [trial, swapped, scaled] = [(false, 1), (true, 1), (false, times)].map(|(swap, times)| {
            let mut trial = Trial::new(BLOCK_US);
            run(&mut trial, scores.len() as u64, |block, arm| {
                let (one, other) = scores[block as usize / 2];
                done(times * if (arm == Arm::Static) == swap { other } else { one }, 0)
            });
            trial
        });
        let turned = match trial.verdict() {
            Verdict::Better => Verdict::Worse,
            Verdict::Worse => Verdict::Better,
            same => same,
        };
        prop_assert_eq!(swapped.verdict(), turned);
        prop_assert_eq!(scaled.verdict(), trial.verdict());
        prop_assert_eq!(scaled.pairs().len(), trial.pairs().len());
    }
}
