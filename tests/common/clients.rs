//! Clients that send random commands while something else happens.

use super::commands::Commands;
use super::{DATABASES, PATIENCE, TICK, Way, load_function, select, send_random, under_load};
use claw_testkit::{Server, eventually};
use redis::Connection;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, RwLock, RwLockWriteGuard};

/// How many keys their commands are about.
pub const KEYS: usize = 300;

/// Clients that send random commands, each in its own way, and can be held.
pub struct Clients {
    each: Vec<Mutex<(Connection, Commands)>>,
    held: RwLock<()>,
    sent: AtomicU64,
}

impl Clients {
    pub fn of(server: &Server, seed: u64) -> Clients {
        let client = |n| {
            let mut conn = server.connection();
            select(&mut conn, DATABASES[n % DATABASES.len()]);
            Mutex::new((conn, Commands::new(seed + n as u64, KEYS)))
        };
        load_function(&mut server.connection());
        let each = (0..Way::ALL.len()).map(client).collect();
        Clients { each, held: RwLock::new(()), sent: AtomicU64::new(0) }
    }

    pub fn under_load<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        let work = |client: usize| {
            let _running = self.held.read().unwrap();
            let (conn, commands) = &mut *self.each[client].lock().unwrap();
            send_random(conn, Way::ALL[client], 100, commands);
            self.sent.fetch_add(100, SeqCst);
        };
        under_load(self.each.len(), work, meanwhile)
    }

    /// How many commands they have sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(SeqCst)
    }

    /// Waits until they have sent more commands.
    pub fn go_on(&self, more: u64) {
        let target = self.sent() + more;
        eventually(PATIENCE, TICK, "commands to be sent", || self.sent() >= target);
    }

    /// Nobody sends anything until this is dropped.
    pub fn hold(&self) -> RwLockWriteGuard<'_, ()> {
        self.held.write().unwrap()
    }
}
