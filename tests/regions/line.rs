//! A line from one region to another: takes connections on a port of its own and
//! carries their bytes to the peer's port, each a given time later, and only so many in a second. A
//! line that is cut carries nothing, and says nothing of it, as a network that loses all
//! packets; what was on it arrives when it is healed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How often a line looks whether it has been healed.
const TICK: Duration = Duration::from_millis(1);

/// One line.
pub struct Line {
    port: u16,
    state: Arc<State>,
}

struct State {
    delay_us: AtomicU64,
    /// 0 for as many as come.
    bytes_per_second: AtomicU64,
    cut: AtomicBool,
    gone: AtomicBool,
    /// What is said on it, and what is heard instead.
    misheard: Mutex<Option<[&'static [u8]; 2]>>,
}

impl Line {
    /// A line to `port`, with nothing on it yet.
    pub fn to(port: u16, delay: Duration) -> Line {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let own = listener.local_addr().unwrap().port();
        let delay_us = AtomicU64::new(u64::try_from(delay.as_micros()).unwrap());
        let state = Arc::new(State {
            delay_us,
            bytes_per_second: AtomicU64::new(0),
            cut: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            misheard: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for near in listener.incoming() {
                if shared.gone.load(SeqCst) {
                    return;
                }
                let (Ok(near), shared) = (near, Arc::clone(&shared)) else {
                    continue;
                };
                thread::spawn(move || {
                    shared.wait_while_cut();
                    // Where nobody listens, the connection ends.
                    if let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
                        carry(near.try_clone().unwrap(), far.try_clone().unwrap(), &shared);
                        carry(far, near, &shared);
                    }
                });
            }
        });
        Line { port: own, state }
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many bytes it carries in a second from now on, each way.
    pub fn set_speed(&self, bytes_per_second: u64) {
        self.state.bytes_per_second.store(bytes_per_second, SeqCst);
    }

    /// Has some bytes arrive as others, as many.
    pub fn set_misheard(&self, bytes: Option<[&'static [u8]; 2]>) {
        *self.state.misheard.lock().unwrap() = bytes;
    }

    /// Cuts or heals it.
    pub fn set_cut(&self, cut: bool) {
        self.state.cut.store(cut, SeqCst);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.state.gone.store(true, SeqCst);
        self.state.cut.store(false, SeqCst);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl State {
    fn mishear(&self, bytes: &mut [u8]) {
        let Some([said, heard]) = *self.misheard.lock().unwrap() else {
            return;
        };
        for start in 0..=bytes.len().saturating_sub(said.len()) {
            if bytes[start..].starts_with(said) {
                bytes[start..start + said.len()].copy_from_slice(heard);
            }
        }
    }

    fn wait_while_cut(&self) {
        while self.cut.load(SeqCst) {
            thread::sleep(TICK);
        }
    }
}

/// Carries bytes from one socket to another, in two threads: one takes them on,
/// the other hands them over when they are due.
fn carry(mut from: TcpStream, mut to: TcpStream, state: &Arc<State>) {
    from.set_nodelay(true).unwrap();
    to.set_nodelay(true).unwrap();
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    let shared = Arc::clone(state);
    thread::spawn(move || {
        let mut bytes = vec![0; 65_536];
        while let Ok(len @ 1..) = from.read(&mut bytes) {
            let due = Instant::now() + Duration::from_micros(shared.delay_us.load(SeqCst));
            let mut said = bytes[..len].to_vec();
            shared.mishear(&mut said);
            if sender.send((due, said)).is_err() {
                return;
            }
        }
    });
    let shared = Arc::clone(state);
    thread::spawn(move || {
        for (due, bytes) in receiver {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                shared.wait_while_cut();
                let speed = shared.bytes_per_second.load(SeqCst);
                let len = if speed == 0 { rest.len() } else { rest.len().min(256) };
                let (now, later) = rest.split_at(len);
                if to.write_all(now).is_err() {
                    let _ = to.shutdown(Shutdown::Both);
                    return;
                }
                if let Some(us) = (len as u64 * 1_000_000).checked_div(speed) {
                    thread::sleep(Duration::from_micros(us));
                }
                rest = later;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
