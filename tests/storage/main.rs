//! The hash behind a bucket: what is in it, what may be put into it by hand,
//! and how long it lives.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

#[path = "../common/buckets.rs"]
mod buckets;
mod by_hand;
mod calls;
mod eviction;
mod expiry;
mod layout;
mod others_fields;
