//! Two states of one bucket become one: the strategies, the blob that carries a
//! state, and the check of the laws.
//!
//! | module | what |
//! |---|---|
//! | [`guide`] | the published scenario and the guide's cases, as tables to read |
//! | [`lost`] | what each strategy loses: concurrent takes, stale copies |
//! | [`small`] | every small pair and triple against an exact model |
//! | [`laws`] | random states over the full bounds: the laws hold exactly |
//! | [`stored`] | the laws through hash fields, at any instant of merging |
//! | [`blob`] | the bytes of a state, field by field |
//! | [`bytes`] | any bytes at all are safe to read |
//! | [`newer`] | fields of later versions live on |
//! | [`check`] | the checker finds what is broken and nothing else |
//! | [`exact`] | the strategies in rational numbers, written from the contract alone |
//! | [`hash`] | a bucket kept as the text fields of a hash |
//! | [`random`] | what all parts draw with |
//! | [`any`] | random families of states |
//! | [`memory`] | counts what a piece of code allocates |
//!
//! `PROPTEST_CASES=20000 cargo test --release -p claw-core --test merge` is a soak
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
mod bytes;
mod check;
mod exact;
mod guide;
mod hash;
mod laws;
mod lost;
mod memory;
mod newer;
mod number;
#[path = "../random/mod.rs"]
mod random;
mod small;
mod stored;
