//! Ends blocked connections from outside.

use redis::io::tcp::socket2::Socket;
use std::io;
use std::net::Shutdown;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The sockets of one peer, known to the thread that may have to end them:
/// shutting a socket down wakes whoever is blocked in connecting, reading or
/// writing, so that no time-out has to run out.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    sockets: Mutex<Sockets>,
}

#[derive(Debug, Default)]
struct Sockets {
    broken: bool,
    open: Vec<(u64, Socket)>,
    next: u64,
}

/// Keeps a socket known, and shuts it down when dropped: a forked child of the
/// server may still hold it, and closing alone would then not end it.
#[derive(Debug)]
pub(crate) struct Guard {
    breaker: Arc<Breaker>,
    id: u64,
}

impl Breaker {
    /// Makes a socket known, before it is connected.
    ///
    /// # Errors
    /// When the circuit is broken already.
    pub fn guard(self: &Arc<Self>, socket: &Socket) -> io::Result<Guard> {
        let handle = socket.try_clone()?;
        let mut sockets = self.lock();
        if sockets.broken {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let id = sockets.next;
        sockets.next = id.wrapping_add(1);
        sockets.open.push((id, handle));
        Ok(Guard { breaker: Arc::clone(self), id })
    }

    /// Ends every connection, and any that is begun later.
    pub fn break_all(&self) {
        let mut sockets = self.lock();
        sockets.broken = true;
        for (_, socket) in sockets.open.drain(..) {
            // A socket that is not connected says so.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut sockets = self.breaker.lock();
        if let Some(at) = sockets.open.iter().position(|(id, _)| *id == self.id) {
            let (_, socket) = sockets.open.swap_remove(at);
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}
