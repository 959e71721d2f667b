//! redis-claw: token-bucket rate limiting inside Redis and Valkey.
//!
//! | where | what |
//! |---|---|
//! | [`commands`] | one file per command: parse, decide, apply, reply |
//! | [`store`] | a bucket read from its hash, and written back as it was planned |
//! | [`strategy`] | how buckets are merged: built in, or a Redis Function |
//! | [`config`] | the `claw.*` parameters |
//! | [`regions`] | region sync: what other regions are sent, and when |
//! | [`upkeep`] | the work between commands: who is silent, the walk over all keys |
//! | [`stats`] | what `INFO claw` shows |
//! | [`error`] | every error and its text |
//! | [`module`] | what lives as long as the module is loaded |
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
mod module;
mod regions;
mod stats;
mod store;
mod strategy;
mod upkeep;

// In the server all memory is the server's, so that maxmemory and INFO see it.
// Unit tests run without a server.
#[cfg(not(test))]
#[global_allocator]
static ALLOCATOR: redis_module::alloc::RedisAlloc = redis_module::alloc::RedisAlloc;
