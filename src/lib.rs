//! redis-claw: token-bucket rate limiting inside Redis and Valkey.
//!
//! | where | what |
//! |---|---|
//! | [`commands`] | one file per command: parse, decide, apply, reply |
//! | [`store`] | a bucket read from its hash and written back, replicated and announced |
//! | [`strategy`] | how buckets are merged: built in, or a Redis Function |
//! | [`config`] | the `claw.*` parameters |
//! | [`regions`] | region sync: what other regions are sent, and when |
//! | [`stats`] | what `INFO claw` shows |
//! | [`error`] | every error and its text |
//! | [`host`] | the server's module API, behind safe types |
//! | [`entry`] | where the server enters: load, events, parameters, `INFO` |
//!
//! Only `host` and `entry` have unsafe code.
//!
//! What a bucket holds and whether a take is granted is decided by the crate
//! `claw-core`, which knows nothing of Redis.

#![deny(unsafe_code)]

mod commands;
mod config;
#[allow(unsafe_code)]
mod entry;
mod error;
#[allow(unsafe_code)]
mod host;
mod regions;
mod stats;
mod store;
mod strategy;

// In the server all memory is the server's, so that maxmemory and INFO see it.
// Unit tests run without a server.
#[cfg(not(test))]
#[global_allocator]
static ALLOCATOR: redis_module::alloc::RedisAlloc = redis_module::alloc::RedisAlloc;
