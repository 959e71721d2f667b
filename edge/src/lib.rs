//! `claw-edge`: decides over HTTP and gRPC by `CL.TAKE` on its region's Redis.
//!
//! | module | what |
//! |--------|------|
//! | [`access`] | who calls: tokens, and clients behind proxies |
//! | [`config`] | every setting: flag, environment variable, default |
//! | [`limits`] | which limits a request falls under, and what each may be |
//! | [`decide`] | pure: charges and the server's answers become a verdict |
//! | [`redis`] | the connection that decides: deadlines, circuit, coalescing |
//! | [`http`] | the rating API, forward authentication, and the pages for operators |
//! | [`ratings`] | what users think of items, kept in Redis by a Function |
//! | [`metrics`] | what is counted |
//! | [`service`] | what all workers share |
//! | [`serve`] | workers, listeners, and the end of the service |

#![forbid(unsafe_code)]

pub mod access;
pub mod config;
pub mod decide;
pub mod http;
pub mod limits;
pub mod metrics;
pub mod ratings;
pub mod redis;
pub mod serve;
pub mod service;
