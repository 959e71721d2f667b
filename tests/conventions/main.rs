//! Everything around the commands that Redis users rely on: what the server
//! says about them, ACL, events, tracking, configuration, loading, unloading.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod access;
#[path = "../common/buckets.rs"]
mod buckets;
mod calls;
mod connections;
mod events;
mod info;
mod introspection;
mod loading;
mod parameters;
