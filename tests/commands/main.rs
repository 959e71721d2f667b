//! What every command answers, refuses and leaves behind.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod blocked;
#[path = "../common/buckets.rs"]
mod buckets;
mod calls;
mod give;
mod no_effect;
mod numbers;
mod paper;
mod policies;
mod refusals;
mod rules;
mod settle;
mod take;
mod takeall;
mod temporary;
