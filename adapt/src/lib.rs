//! The adaptive policy of redis-claw: each tick, what was observed goes in and a policy comes out.
//!
//! Nothing in this crate reads a clock, does I/O or starts a thread: time is an argument. It computes
//! in floating point, with basic operations and the `libm` crate only, so that the same observations
//! give the same policy on every machine; what leaves it is whole numbers within the operator's bounds.
//!
//! | module | what |
//! |---|---|
//! | [`observation`] | what an edge saw in one tick |
//! | [`bounds`] | what the operator allows |
//! | [`policy`] | what is decided, in whole numbers |
//! | [`controller`] | the tick: inner loop, learned correction, and when neither is believed |
//! | [`drain`] | the inner loop, with and without a cap on what is in flight |
//! | `probe` | whether that cap costs throughput |
//! | [`network`] | a small perceptron, and what it reads |
//! | [`weights`] | its weights as a versioned text file |
//! | [`trial`] | whether what the controller decides does better than the operator's limit |

#![forbid(unsafe_code)]

pub mod bounds;
pub mod controller;
pub mod drain;
pub mod network;
pub mod observation;
pub mod policy;
mod probe;
pub mod trial;
pub mod weights;

pub use bounds::{Bounds, BoundsError};
pub use controller::{Change, Controller, DecidedBy, Mode, TICK_US};
pub use observation::Observation;
pub use policy::Policy;
pub use trial::{Arm, Seen, Trial, Verdict};
pub use weights::{Weights, WeightsError};
