//! The sending side of region sync.
//!
//! The owner, a Redis server's main thread, [notes](Pusher::note) every bucket
//! that changes. Background threads hand the latest state of each to every
//! [peer](PeerUrl), as ordinary commands over an ordinary connection, and end
//! each round with a heartbeat that says whether the peer now has everything.
//!
//! ```text
//!  note() ─► NoteLog ─► hand-out thread ─► PeerQueue 0 ─► PeerConnections ─► servers
//!  (main)   in order   every interval  └─► PeerQueue 1 ─► PeerConnections ─► servers
//! ```
//!
//! | file | what is in it |
//! | --- | --- |
//! | `pusher.rs` | [`Pusher`]: what the owner calls; the hand-out thread |
//! | `note_log.rs` | what has been noted since the last hand-out |
//! | `coalescer.rs` | what waits to be handed out, latest note per key |
//! | `backlog.rs` | what one peer is still to get, latest state per key |
//! | `peer_queue.rs` | what threads share about one peer; whether it needs a resync |
//! | `peer.rs` | the thread of one peer: the loop over rounds |
//! | `peer_connections.rs` | the nodes of one peer: connecting, slots, heartbeats |
//! | `peer_connections/deliver.rs` | sending states to the nodes that they belong to |
//! | `connection.rs` | one connection: socket, time-outs, AUTH, replies |
//! | `breaker.rs` | ends blocked connections from outside |
//! | `cluster.rs` | slots and the topology of Redis Clusters |
//! | `reply.rs` | which errors are worth another try |
//! | `wire.rs` | commands as bytes |
//! | `backoff.rs` | how long to wait after a failure |
//! | `files.rs` | how these files are read |
//! | `credentials.rs` | [`Credentials`]: files with certificates and a password, read again |
//! | `tls.rs` | certificates |
//! | `url.rs` | [`PeerUrl`]: `redis://user:password@host:port` |
//! | `status.rs` | [`PeerStatus`] and the counters behind it |
//! | `config.rs` | [`Config`] and the traits that the owner implements |
//!
//! # What a peer is sent
//!
//! On connecting: `AUTH` when the URL has a password, then `CLUSTER SLOTS`, then
//! the opening heartbeat. No `HELLO`, no `CLIENT`, no `PING`. After that the
//! owner's command with up to 64 states (one on clusters), the heartbeat, `SELECT`
//! when states are in a database other than the connection's, and on clusters
//! `ASKING` while slots move and `CLUSTER SLOTS`, every second at least.
//!
//! So these are the least rights of the user on the peer, after `on >password
//! ~keys -@all`:
//!
//! | peer | rights |
//! | --- | --- |
//! | always | the two commands: `+cl.sync\|states +cl.sync\|round` |
//! | with databases other than 0 | `+select` |
//! | a cluster | `+cluster\|slots +asking`, on every node |
//!
//! On a server that is no cluster the question for the slots may be refused: the
//! refusal shows in its `ACL LOG`, once for each connection.
//!
//! # Peers that fail
//!
//! | a peer that | shows as | is tried again within | and then gets |
//! | --- | --- | --- | --- |
//! | cannot be connected to | `backing-off` | 5 s | what waited for it |
//! | is there and does not answer in time | `backing-off` | 1 s | what waited for it |
//! | answers the login or heartbeat with an error | [`refusing`](PeerStatus::refusing) | 1 s | what waited for it |
//! | answers states with an error that may pass | `connected`, `refusing` | 1 s, by one command | what waited for it; heartbeats meanwhile |
//! | refuses single states for good | `states_refused` | | the others |
//! | is another process, or had more waiting than the budget has room for | `lacking` | | all live buckets |
//!
//! # Threads
//!
//! One that hands out and one for each peer. [`Pusher::stop`] joins them. They
//! take no lock that is held for longer than a moment, and none that the main
//! thread waits for is held during input or output. No thread calls into the
//! server.

#![forbid(unsafe_code)]

mod backlog;
mod backoff;
mod breaker;
mod cluster;
mod coalescer;
mod config;
mod connection;
mod credentials;
mod files;
mod note_log;
mod peer;
mod peer_connections;
mod peer_queue;
mod pusher;
mod reply;
mod status;
mod tls;
mod url;
mod wire;

pub use config::{Config, Identity, Limits, Messages, Round};
pub use credentials::Credentials;
pub use files::Files;
pub use pusher::{Pusher, StartError};
pub use redis::Value;
pub use status::{PeerState, PeerStatus};
pub use url::{MAX_PEERS, PeerError, PeerUrl, parse_peers, reveal};
