//! Merging: `CL.MERGE` in its three forms, `CL.STATE`, `CL.VERIFY`, and merge
//! functions, against real servers.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod buckets;
mod calls;
mod debts;
mod forms;
mod functions;
mod laws;
mod refusals;
mod replication;
mod states;
mod surroundings;
mod verify;
