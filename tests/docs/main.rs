//! The documentation, held to what is really so: every transcript is replayed
//! with redis-cli, every list of commands, parameters and fields is compared
//! with the server's, every link is followed.
//!
//! # Transcripts
//!
//! A block marked `console` holds lines `redis> COMMAND`, each followed by what
//! redis-cli prints for it on a terminal. The blocks of a page are replayed in
//! order on a fresh server with the module; each block is one connection. One
//! marked `console cluster` has a server of its own, in cluster mode and with all
//! slots.
//!
//! Lines must be the same, except for what depends on the moment, see [`transcript`].
#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::string_slice, clippy::unwrap_used)]

mod answers;
mod page;
mod references;
mod tables;
mod transcript;
