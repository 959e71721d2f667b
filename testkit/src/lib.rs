//! Starts and stops the real servers that integration tests and benchmarks
//! talk to: single servers, replicas and clusters.
//!
//! ```no_run
//! use claw_testkit::{Server, error, ints};
//!
//! let server = Server::builder().module_args(["max-tokens", "50"]).start();
//! let mut conn = server.connection();
//! assert_eq!(ints(&mut conn, "CL.TAKE key 1 CAPACITY 5 REFILL 5")[0], 1);
//! assert!(error(&mut conn, "CL.TAKE").starts_with("ERR "));
//! assert_eq!(server.warnings(), Vec::<String>::new());
//! // Dropping the server kills the process and removes its directory.
//! ```
//!
//! This is test support: what cannot go on panics, with the server's log in
//! the message. It is for Linux only.
//!
//! # Environment
//!
//! | variable | meaning | default |
//! | --- | --- | --- |
//! | `REDIS_CLAW_MODULE` | the module to load, see [`module_path()`] | `target/release/libredis_claw.so` |
//! | `REDIS_SERVER` | the server, see [`server_binary`] | `redis-server`, from `PATH` |
//! | `REDIS_CLI` | the client that creates clusters, see [`cli_binary`] | `redis-cli`, from `PATH` |
//! | `CLAW_SOAK` | multiplies the length of random tests, see [`soak`] | 1 |
//! | `CLAW_KEEP_DIRS` | if set, server directories are not removed | |
//! | `CI` | if set, tests that are [`skipped`] fail | |

mod binaries;
mod cluster;
mod config;
mod data;
mod drain;
mod log;
mod ports;
mod process;
mod random;
mod server;
mod skip;
mod wait;
mod wire;

pub use binaries::{cli_binary, module_path, server_binary};
pub use cluster::{Cluster, serve_all_slots, slot_of};
pub use data::DataDir;
pub use drain::drain;
pub use ports::free_port;
pub use process::spawn;
pub use random::{Random, soak};
pub use server::{Builder, Server};
pub use skip::skipped;
pub use wait::{eventually, wait_for_offset};
pub use wire::{
    ask, call, call_bytes, cmd, digest, error, fields, info_field, int, ints, redis_version, run,
    wire_error,
};
