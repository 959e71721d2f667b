//! Region sync on real servers with real takes in every region. What goes between
//! two regions goes through a line that can be slow, and be cut: see `line.rs`.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod arrivals;
mod between;
#[path = "../common/clock_shim.rs"]
mod clock_shim;
mod clusters;
mod farewell;
mod heard;
mod hostile;
mod limit;
mod line;
mod lives;
mod memory;
mod partition;
mod refusing;
mod restart;
mod rotation;
mod settings;
mod settle;
mod slow;
mod soak;
mod strategies;
mod terms;
mod versions;
mod walk;
mod world;
