//! The files of weights that ship, and what is said of damaged ones.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::panic,
    clippy::unwrap_used
)]

use claw_adapt::{Weights, WeightsError};

const FILES: [&str; 4] = [
    include_str!("../weights/off-path-1.txt"),
    include_str!("../weights/off-path-2.txt"),
    include_str!("../weights/off-path-3.txt"),
    include_str!("../weights/on-path-1.txt"),
];

#[test]
fn what_ships_is_read_and_written_again() {
    for (file, seed) in FILES.into_iter().zip([1, 2, 3, 1]) {
        let weights = Weights::read(file).expect("weights");
        assert_eq!((weights.seed, weights.write().as_str()), (seed, file));
    }
}

#[test]
fn damage_is_named() {
    let file = FILES[0];
    let edit = |from: &str, to: &str| file.replacen(from, to, 1);
    let first_weight = file.lines().nth(7).unwrap();
    let hash = file.lines().nth(6).unwrap();
    let table = [
        (String::new(), "the first line must be 'claw-adapt weights 3'"),
        (edit("weights 3", "weights 2"), "the first line must be 'claw-adapt weights 3'"),
        (edit("loop off-path", "loop none"), "the line 'loop ..' is missing or malformed"),
        (edit(" - -\n", " 1 1\n"), "the line 'parameters ..' is missing or malformed"),
        (edit(" - -\n", "\n"), "the line 'parameters ..' is missing or malformed"),
        (edit("parameters ", "parameters -"), "the line 'parameters ..' is missing or malformed"),
        (edit("loop off-path", "loop on-path"), "the line 'parameters ..' is missing or malformed"),
        (edit("12 32 32 2", "12 32 2"), "the shape must be '12 32 32 2', not '12 32 2'"),
        (edit("seed 1", "seed -1"), "the line 'seed ..' is missing or malformed"),
        (edit(hash, "hash xyz"), "the line 'hash ..' is missing or malformed"),
        (edit(first_weight, "NaN"), "weight 1 is not a finite number"),
        (edit(first_weight, "1e99"), "weight 1 is not a finite number"),
        (edit(first_weight, "0..1"), "weight 1 is not a finite number"),
        (edit(&format!("{first_weight}\n"), ""), "there must be 1538 weights, not 1537"),
        (format!("{file}0\n"), "there must be 1538 weights, not 1539"),
        (file[..200].to_owned(), "there must be 1538 weights, not "),
    ];
    for (text, expected) in table {
        let said = Weights::read(&text).expect_err(expected).to_string();
        assert!(said.starts_with(expected), "{said:?} is not {expected:?}");
    }
}

#[test]
fn a_changed_weight_has_another_hash() {
    let file = FILES[0];
    let first_weight = file.lines().nth(7).unwrap();
    for changed in [
        file.replacen(first_weight, "0.25", 1),
        file.replacen("seed 1", "seed 7", 1),
        file.replacen(&file.lines().nth(6).unwrap()[5..], "0123456789abcdef", 1),
    ] {
        let said = Weights::read(&changed);
        assert!(matches!(said, Err(WeightsError::Hash(_))), "{said:?}");
    }
}
