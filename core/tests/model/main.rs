//! The bucket against an exact model of it, and the properties it must have.
//!
//! | module | what |
//! |---|---|
//! | [`exact`] | the contract in rational numbers, written from it alone |
//! | [`hash`] | a bucket kept as the text fields of a hash, as the module keeps it |
//! | [`random`] | what all parts draw with |
//! | [`any`] | random policies, clocks and calls over the full bounds |
//! | [`sequences`] | random histories: bucket and model agree exactly |
//! | [`waiting`] | `retry_after` and `reset_after` are exact to the millisecond |
//! | [`windows`] | what is granted in any window of a history |
//! | [`refusals`] | a refused call charges nothing, and a peek tells the truth |
//! | [`settling`] | settlements and debts |
//! | [`expiry`] | a key does not expire before its bucket is full |
//! | [`clock`] | clocks that step, and fields that are missing |
//! | [`text`] | print, parse, print |
//! | [`globs`] | lists of patterns |
//! | [`robust`] | no input panics |
//!
//! `PROPTEST_CASES=20000 cargo test --release -p claw-core` is a soak test.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

mod any;
mod clock;
mod exact;
mod expiry;
mod globs;
mod hash;
#[path = "../random/mod.rs"]
mod random;
mod refusals;
mod robust;
mod rules;
mod sequences;
mod settling;
mod text;
mod waiting;
mod windows;
