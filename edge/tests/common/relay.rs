//! A relay between the service and a server: it counts connections, and can be slow.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// A relay. It runs until the test ends.
#[derive(Clone)]
pub struct Relay {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    delay_ms: AtomicU64,
    connections: AtomicUsize,
    commands: AtomicUsize,
}

impl Relay {
    /// A relay to a port of this machine.
    pub fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared::default());
        let relay = Self { port, shared };
        let accepting = relay.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(client) = stream else { continue };
                accepting.shared.connections.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                for stream in [&client, &server] {
                    stream.set_nodelay(true).expect("a socket");
                }
                let (from, to) = (clone(&client), clone(&server));
                accepting.clone().pump(from, to, true);
                accepting.clone().pump(server, client, false);
            }
        });
        relay
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// How long each piece of an answer takes from now on.
    pub fn delay(&self, delay: Duration) {
        let ms = u64::try_from(delay.as_millis()).expect("a short time");
        self.shared.delay_ms.store(ms, Ordering::SeqCst);
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many takes were sent.
    pub fn takes(&self) -> usize {
        self.shared.commands.load(Ordering::SeqCst)
    }

    fn pump(self, mut from: TcpStream, mut to: TcpStream, is_request: bool) {
        thread::spawn(move || {
            let mut bytes = vec![0; 65_536];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                if is_request {
                    let takes = bytes[..count].windows(7).filter(|at| at == b"CL.TAKE").count();
                    self.shared.commands.fetch_add(takes, Ordering::SeqCst);
                } else {
                    let ms = self.shared.delay_ms.load(Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(ms));
                }
                if to.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
            // One end has gone, so the other goes too.
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}

fn clone(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a socket")
}
