//! What a text means and what a call answers, as tables to read.
//!
//! | module | what |
//! |---|---|
//! | [`decimal`] | amounts |
//! | [`timestamp`] | instants |
//! | [`policy`] | the `policy` field |
//! | [`fields`] | the other fields, and what a missing one means |
//! | [`bucket`] | one bucket through a day: take, give, wait, weight, other policies |
//! | [`rules`] | limits by key pattern |
//! | [`throttle`] | `CL.THROTTLE` as redis-cell answers, and better |

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used, reason = "a test may panic")]

mod bucket;
mod decimal;
mod fields;
mod policy;
mod rules;
mod throttle;
mod timestamp;

/// A server without peers.
fn alone() -> claw_core::debits::Region {
    claw_core::debits::Region::default()
}
