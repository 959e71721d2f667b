//! Replicas: what they are sent, that they have what their master has, and what
//! they answer.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used
)]

mod appended;
#[path = "../common/mod.rs"]
mod common;
mod replicas;
mod resync;
mod servers;
mod stream;
