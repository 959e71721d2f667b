//! A bucket that regions share: debit counters, what is stored of them, and the
//! partition policy.
//!
//! | module | what |
//! |---|---|
//! | [`golden`] | histories of the reference model, replayed exactly |
//! | [`counters`] | counters are a lattice, epochs never come again |
//! | [`expiry`] | a key is there until long after its bucket is full |
//! | [`stored`] | what is stored of a bucket is all of it |
//! | [`blob`] | what regions send
//! | [`receive`] | what a merge does, whatever was sent, and lives that end
//! | [`terms`] | the later change of policy and weight wins everywhere
//! | [`settling`] | settlements, debts, and what blocks |
//! | [`time`] | credit, shares, waits and bounds |
//! | [`membership`] | who is heard, and what share that leaves |
//! | [`random`] | what all parts draw with |
//! | [`any`] | random shared buckets over the full bounds |
//! | [`world`] | peers that are heard and fall silent |
//!
//! `PROPTEST_CASES=20000 cargo test --release -p claw-core --test debit` is a soak
//! test.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

mod any;
mod blob;
mod counters;
mod expiry;
mod forgotten;
mod golden;
mod membership;
#[path = "../random/mod.rs"]
mod random;
mod receive;
mod settling;
mod stored;
mod terms;
mod time;
mod wire;
mod world;
