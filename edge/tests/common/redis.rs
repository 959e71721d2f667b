//! Redis as it is run: behind a sentinel, with TLS, in two regions.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use claw_testkit::{Server, ask, eventually, free_port, server_binary, spawn};
use redis::Client;
use tempfile::TempDir;

use super::{PATIENCE, TICK};

/// A sentinel that watches a master as `main`. Dropping it kills the process.
pub struct Sentinel {
    process: Child,
    port: u16,
    /// Sentinels that take connections and say nothing.
    hanging: [TcpListener; 8],
    _dir: TempDir,
}

impl Sentinel {
    /// Watches `master`, and has found its only replica.
    pub fn start(master: &Server) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let config = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n",
            dir.path().display(),
            master.port()
        );
        let path = dir.path().join("sentinel.conf");
        fs::write(&path, config).unwrap();
        let mut command = Command::new(server_binary());
        command.arg(path).arg("--sentinel").stdin(Stdio::null()).stdout(Stdio::null());
        let hanging = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let sentinel = Self { process: spawn(command), port, hanging, _dir: dir };
        let client = Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
        eventually(PATIENCE, TICK, "the sentinel to know the replica", || {
            let Ok(mut connection) = client.get_connection() else { return false };
            let known: String = ask(&mut connection, "INFO sentinel");
            known.contains("status=ok") && known.contains("slaves=1")
        });
        sentinel
    }

    /// What names its master. The first sentinel of the list is dead, and those after it hang.
    pub fn url(&self) -> String {
        let hanging = self.hanging.iter().map(|hanging| hanging.local_addr().unwrap().port());
        let ports = std::iter::once(free_port()).chain(hanging).chain([self.port]);
        let sentinels: Vec<String> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
        format!("redis+sentinel://{}/main", sentinels.join(","))
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Two regions, `eu` and `us`, that share all limits.
pub fn sharing() -> [Server; 2] {
    let regions = ["eu", "us"].map(|name| {
        Server::builder().config("claw.replica-id", name).config("claw.sync-keys", "[^@]*").start()
    });
    for (own, peer) in [(0, 1), (1, 0)] {
        let mut command = redis::cmd("CONFIG");
        let url = format!("redis://127.0.0.1:{}", regions[peer].port());
        command.arg("SET").arg("claw.peers").arg(url);
        command.query::<()>(&mut regions[own].connection()).unwrap();
    }
    regions
}

/// A server that has a certificate for 127.0.0.1, signed by an authority of its own.
pub struct Encrypted {
    /// The server. It listens without TLS, too.
    pub server: Server,
    port: u16,
    dir: TempDir,
}

impl Encrypted {
    /// Starts it.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        certificates(dir.path());
        let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let port = free_port();
        let server = Server::builder()
            .config("tls-port", port.to_string())
            .config("tls-cert-file", file("server.pem"))
            .config("tls-key-file", file("server.key"))
            .config("tls-ca-cert-file", file("ca.pem"))
            .config("tls-auth-clients", "no")
            .start();
        Self { server, port, dir }
    }

    /// Where it listens with TLS.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The certificate of its authority.
    pub fn authority(&self) -> String {
        self.file("ca.pem")
    }

    /// A file without a certificate.
    pub fn key(&self) -> String {
        self.file("server.key")
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }
}

fn certificates(dir: &Path) {
    for arguments in [
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority \
         -keyout ca.key -out ca.pem",
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=server \
         -keyout server.key -out server.csr",
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
         -extfile names -out server.pem",
    ] {
        fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        let output = Command::new("openssl")
            .args(arguments.split_ascii_whitespace())
            .current_dir(dir)
            .output()
            .expect("openssl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
