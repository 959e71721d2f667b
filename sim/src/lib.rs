//! Simulates regions that share limits, and asserts what must hold.
//!
//! Every number is an integer and every run comes from a seed, so that a violation
//! can be looked at again: `cargo run --release -p claw-sim -- --runs 1 --seed 7`.
//!
//! | module | what |
//! |---|---|
//! | [`random`] | numbers from a seed |
//! | [`server`] | one region: what the module does around the pure crate |
//! | [`world`] | regions, links, clocks and time |
//! | [`central`] | the one bucket that all regions together stand for |
//! | [`runs`] | random runs, and what must hold in each |
//! | [`even`] | demand below the rate, which nobody may refuse |
//! | [`scenarios`] | what each way to agree gives out, as a table |

#![forbid(unsafe_code)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a simulation that goes wrong has to stop"
)]

pub mod central;
pub mod even;
pub mod random;
pub mod runs;
pub mod scenarios;
pub mod server;
pub mod world;
