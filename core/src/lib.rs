//! The token bucket of redis-claw, without Redis.
//!
//! Nothing in this crate reads a clock, does I/O or uses floating point: time is
//! an argument, amounts are integers, and the same input gives the same output
//! on every machine. The module crate turns commands into calls of it.
//!
//! | module | what |
//! |---|---|
//! | [`limits`] | every bound, in one table |
//! | [`decimal`] | amounts as text: `12.5` is 12 500 000 millionths |
//! | [`timestamp`] | instants as text: unix microseconds or RFC 3339 |
//! | [`policy`] | capacity, refill, interval, and what of them is pinned |
//! | [`configured`] | rules and default policy, and what they were before |
//! | [`rules`] | limits by key pattern |
//! | [`bucket`] | the decision: credit, take, give, how long to wait |
//! | [`shared`] | a bucket that regions share: debit counters read through a leaky bucket |
//! | [`debits`] | what is counted of it, and kept |
//! | [`glob`] | patterns of keys, and lists of them |
//! | [`membership`] | which regions are heard, and what share that leaves |
//! | [`replica`] | the names of regions, and the epochs of their counters |
//! | [`record`] | a bucket as the fields of a hash |
//! | [`open`] | a bucket in use: everything that is decided about one |
//! | [`plan`] | what has to be written of it, and what peers are told |
//! | [`expiry`] | when its key may expire |
//! | [`merge`] | two states of one bucket become one |
//! | [`codec`] | a state as MessagePack |
//! | [`verify`] | the laws of merging, checked on random states |
//! | [`error`] | what cannot be |
//! | [`throttle`] | `CL.THROTTLE`'s arguments and seconds |

#![forbid(unsafe_code)]

pub mod bucket;
pub mod codec;
pub mod configured;
pub mod debits;
pub mod decimal;
pub mod error;
pub mod expiry;
pub mod glob;
pub mod limits;
pub mod membership;
pub mod merge;
pub mod open;
pub mod plan;
pub mod policy;
pub mod policy_cache;
pub mod record;
pub mod replica;
pub mod rules;
pub mod shared;
pub mod throttle;
pub mod timestamp;
pub mod verify;

mod wide;
