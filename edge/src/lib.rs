//! `claw-edge`: decides over HTTP and gRPC by `CL.TAKE` on its region's Redis.
//!
//! | module | what |
//! |--------|------|
//! | [`adaptive`] | limits that follow how their backends do |
//! | [`admin`] | the page for operators: who is limited, what a bucket holds, changes |
//! | [`recent`] | who has been refused of late |
//! | [`access`] | whether a caller may: bearer tokens |
//! | [`config`] | every setting: flag, environment variable, default |
//! | [`proto`] | the messages of Envoy's rate limit service |
//! | [`client`] | who sent a request, behind proxies |
//! | [`limits`] | which limits a request falls under, and what each may be |
//! | [`check`] | `claw-edge check`: files of limits, as they are understood |
//! | [`meter`] | what was seen of a backend, and how much it may have in flight |
//! | [`reload`] | limits that change while requests are decided |
//! | [`decide`] | pure: charges and the server's answers become a verdict |
//! | [`redis`] | the connection that decides: deadlines, circuit, coalescing |
//! | [`http`] | the rating API, forward authentication, and the pages for operators |
//! | [`ratings`] | what users think of items, kept in Redis by a Function |
//! | [`background`] | the work that one instance of a region does for all |
//! | [`notify`] | what was rated is told to others: webhook, Telegram |
//! | [`rls`] | Envoy's rate limit service, over gRPC |
//! | [`metrics`] | what is counted |
//! | [`intake`] | the bodies of requests, bounded |
//! | [`seat`] | so many of something, and no more |
//! | [`tickets`] | requests that others hand on to a backend |
//! | [`traces`] | spans for a collector of OpenTelemetry |
//! | [`hex`] | bytes as hexadecimal digits |
//! | [`tls`] | whom it trusts that it asks over TLS |
//! | [`service`] | what all workers share |
//! | [`serve`] | workers, listeners, and the end of the service |

#![forbid(unsafe_code)]

pub mod access;
pub mod adaptive;
pub mod admin;
pub mod background;
pub mod check;
pub mod client;
pub mod config;
pub mod decide;
pub mod hex;
pub mod http;
pub mod intake;
pub mod limits;
pub mod meter;
pub mod metrics;
pub mod notify;
pub mod proto;
pub mod ratings;
pub mod recent;
pub mod redis;
pub mod reload;
pub mod rls;
pub mod seat;
pub mod serve;
pub mod service;
pub mod tickets;
pub mod tls;
pub mod traces;
