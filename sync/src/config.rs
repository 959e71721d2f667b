//! What the owner decides: the configuration, and the traits it implements.

use crate::credentials::Credentials;
use crate::url::PeerUrl;
use redis::Value;
use std::sync::Arc;
use std::time::Duration;

/// How to push, and to whom.
#[derive(Debug, Clone)]
pub struct Config {
    /// The peers, at most [`MAX_PEERS`](crate::MAX_PEERS). Their index here is
    /// the `peer` of [`Round`] and [`Messages::heard`].
    pub peers: Vec<PeerUrl>,
    /// From one round to the next. Values below a millisecond count as one.
    pub interval: Duration,
    /// Certificates for peers with `rediss://`, and the password of those whose URL
    /// has none.
    pub credentials: Arc<Credentials>,
    /// Bounds of memory and patience.
    pub limits: Limits,
}

/// Bounds of memory and patience.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How many states may wait for one peer, those on their way included.
    pub entries: usize,
    /// How many bytes these may have: keys, states, and a fixed amount for each;
    /// before they are handed out, the note in place of the state. Peers
    /// share states, so that what several peers wait for is counted, but not
    /// stored, several times.
    pub bytes: usize,
    /// How many bytes to send before waiting for replies.
    pub chunk_bytes: usize,
    /// How many states to send before waiting for replies.
    pub chunk_states: usize,
    /// The most states in one command, from 1 on. A command also ends at about 64 KiB,
    /// and to a cluster it brings one state: the keys of a command have to be in one slot.
    pub states_per_command: usize,
    /// How far rounds are moved apart at the most where there are many peers, so that how often a
    /// region is woken up does not grow with their number. Keep it well below the time after which
    /// peers take silence for a cut.
    pub stretched_interval: Duration,
    /// How long connecting may take, for each address of a name.
    pub connect_timeout: Duration,
    /// How long a peer may be silent while a reply or room to write is awaited.
    pub io_timeout: Duration,
}

impl Default for Limits {
    /// A million states, 64 MiB (of buckets about 300 000), chunks of 1 MiB or 10 000
    /// states, 64 states in a command, and 1 second.
    ///
    /// With a round trip of 100 ms that is up to 100 000 states a second.
    fn default() -> Self {
        Self {
            entries: 1_000_000,
            bytes: 64 << 20,
            chunk_bytes: 1 << 20,
            chunk_states: 10_000,
            states_per_command: 64,
            stretched_interval: Duration::from_millis(200),
            connect_timeout: Duration::from_secs(1),
            io_timeout: Duration::from_secs(1),
        }
    }
}

/// One exchange with one node of a peer: what its heartbeat can say.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// The peer, as index into [`Config::peers`].
    pub peer: usize,
    /// Whether this node has acknowledged, or refused for good, every state that
    /// had been noted when the round began and belongs to it, in this life of the
    /// owner. False as long as the peer needs a walk over all buckets, see
    /// [`Pusher::needs_resend`](crate::Pusher::needs_resend).
    pub complete: bool,
    /// The first heartbeat of a connection, before any state. It is there to
    /// learn who answers; `complete` is false.
    pub opening: bool,
    /// The node answers, and refuses what we send it for the time being; `complete` is false.
    pub refused: bool,
}

/// Who answered a heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The name of the peer, for [`PeerStatus::replica`](crate::PeerStatus::replica).
    pub replica: Option<String>,
    /// What is different whenever the server has become another process, or has
    /// lost its data: the `run_id` of `INFO server`, for instance. A node that
    /// answers with one it has not had before needs all states again. Without
    /// it, every reconnection is taken for one to the same process.
    pub run: Option<Vec<u8>>,
}

/// What goes over the wire. Called on background threads, at times from several at
/// once; the calls should be short.
pub trait Messages: Send + Sync + 'static {
    /// The words of the command that ends a round, such as `CL.SYNC ROUND eu-west
    /// 12345`. It goes to every node of the peer. At least one word.
    ///
    /// A node that answers the heartbeat with an error, whichever, counts as
    /// failed: the connection is given up and tried again after a while. One that
    /// only refuses states is sent heartbeats as before, not
    /// [complete](Round::complete).
    fn heartbeat(&self, round: &Round) -> Vec<Vec<u8>>;

    /// The words that begin a command with states, such as `CL.SYNC STATES eu-west 12345
    /// min ''`; pairs of key and state follow them, all of one database. Asked in the
    /// moment of sending, for each chunk of [`Limits::chunk_states`]. At least one word.
    ///
    /// The reply is an array with one element for each pair: an integer for a state that
    /// was taken, an error for one that was not. An error instead of the array is one for
    /// each pair. A node that replies anything else is given up for a while, as one that
    /// does not reply.
    fn states_command(&self) -> Vec<Vec<u8>>;

    /// Writes the state that a [note](crate::Pusher::note) stands for, as it goes
    /// over the wire; `out` is empty. Called once for each state that is handed out, on
    /// the thread that does so. Without it a note is the state itself.
    fn state(&self, note: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(note);
    }

    /// A node has answered its heartbeat. The reply has been made by others, is
    /// in RESP2, at most a mebibyte, and no error.
    fn heard(&self, peer: usize, reply: &Value) -> Identity {
        let _ = (peer, reply);
        Identity::default()
    }
}
