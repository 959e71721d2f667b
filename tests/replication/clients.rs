//! Clients that send random commands while something else happens.

use crate::common::commands::Commands;
use crate::common::{
    DATABASES, PATIENCE, TICK, Way, load_function, select, send_random, under_load,
};
use crate::servers::KEYS;
use claw_testkit::{Server, eventually};
use redis::Connection;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Clients that send random commands, each in its own way.
pub struct Clients {
    pub each: Vec<Mutex<(Connection, Commands)>>,
    pub sent: AtomicU64,
}

impl Clients {
    pub fn of(master: &Server, seed: u64) -> Clients {
        let client = |n| {
            let mut conn = master.connection();
            select(&mut conn, DATABASES[n % DATABASES.len()]);
            Mutex::new((conn, Commands::new(seed + n as u64, KEYS)))
        };
        load_function(&mut master.connection());
        Clients { each: (0..Way::ALL.len()).map(client).collect(), sent: AtomicU64::new(0) }
    }

    pub fn under_load<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        let work = |client: usize| {
            let mut client_state = self.each[client].lock().unwrap();
            let (conn, commands) = &mut *client_state;
            send_random(conn, Way::ALL[client], 100, commands);
            self.sent.fetch_add(100, SeqCst);
        };
        under_load(self.each.len(), work, meanwhile)
    }

    /// Waits until they have sent more commands.
    pub fn go_on(&self, more: u64) {
        let target = self.sent.load(SeqCst) + more;
        eventually(PATIENCE, TICK, "commands to be sent", || self.sent.load(SeqCst) >= target);
    }
}
