//! Free TCP ports.

use std::collections::hash_map::RandomState;
use std::fs::{File, OpenOptions};
use std::hash::BuildHasher;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;

/// What a cluster node adds to its port to get the port of its bus.
const BUS_OFFSET: u16 = 10_000;

/// The ports handed out are these, and their bus ports follow directly, so that
/// no port is the bus port of another. All lie below 32768, where Linux starts
/// to give ports to outgoing connections: none of those can take a port between
/// our look and the server's bind, or while a server is being restarted.
const FIRST: u16 = 10_000;
const COUNT: u16 = BUS_OFFSET;

struct Ports {
    /// One byte per port number, locked while a process has the port. The
    /// locks belong to this open file, so they end with the process however it
    /// ends, and nothing is left to clean up.
    locks: File,
    /// The process starts at this port and goes round once.
    start: u16,
    tried: u16,
}

static PORTS: Mutex<Option<Ports>> = Mutex::new(None);

/// A TCP port on 127.0.0.1 that is free, and whose cluster bus port
/// (`port + 10000`) is free as well. It is below 55000.
///
/// No port is handed out twice by a process, nor to two living processes of
/// one user that share a temporary directory. A program that is no part of
/// this can still take the port before the server does; [`Builder::start`]
/// then takes another one.
///
/// [`Builder::start`]: crate::Builder::start
///
/// # Panics
///
/// If the process has gone through all of them (there are 10,000).
pub fn free_port() -> u16 {
    // A panic elsewhere leaves the counter in a usable state.
    let mut ports = PORTS.lock().unwrap_or_else(|e| e.into_inner());
    let ports = ports.get_or_insert_with(Ports::open);
    while ports.tried < COUNT {
        let port = FIRST + (ports.start + ports.tried) % COUNT;
        ports.tried += 1;
        let pair = [port, port + BUS_OFFSET];
        if ports.lock(port) && pair.into_iter().all(is_free) {
            return port;
        }
    }
    panic!("no free port left from {FIRST} on");
}

impl Ports {
    fn open() -> Ports {
        // SAFETY: geteuid has no preconditions.
        let user = unsafe { libc::geteuid() };
        let path = std::env::temp_dir().join(format!("claw-testkit-ports-{user}.lock"));
        let locks = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .unwrap_or_else(|e| panic!("cannot open {}: {e}", path.display()));
        // Processes start at different places, so that they seldom meet.
        let random = RandomState::new().hash_one(std::process::id());
        Ports { locks, start: (random % u64::from(COUNT)) as u16, tried: 0 }
    }

    /// Locks a port, and with it its bus port, for this process; says whether
    /// no other process has it. Asking again for a port it already has says
    /// yes again, which is why the ports are gone through only once.
    fn lock(&self, port: u16) -> bool {
        // SAFETY: flock is plain data, for which all zeros is a valid value.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        lock.l_start = libc::off_t::from(port);
        lock.l_len = 1;
        lock.l_type = libc::F_WRLCK as libc::c_short;
        // SAFETY: the descriptor is open and `lock` outlives the call.
        unsafe { libc::fcntl(self.locks.as_raw_fd(), libc::F_OFD_SETLK, &lock) == 0 }
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}
