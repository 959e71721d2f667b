//! `rediss://`: an authority of one's own, and certificates on both sides.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use claw_sync::{Config, Limits, Pusher, StartError, Tls};
use claw_testkit::{Server, free_port};
use common::*;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An authority, a server's certificate for 127.0.0.1 and localhost, and a
/// client's. Made by the openssl program.
struct Authority {
    dir: tempfile::TempDir,
}

impl Authority {
    fn new() -> Authority {
        let authority = Authority { dir: tempfile::tempdir().unwrap() };
        let dir = authority.dir.path();
        openssl(
            dir,
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
            -subj /CN=authority -keyout ca.key -out ca.pem",
        );
        for (name, san) in [("server", "IP:127.0.0.1,DNS:localhost"), ("client", "DNS:region")] {
            openssl(
                dir,
                &format!(
                    "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} \
                 -addext subjectAltName={san} -keyout {name}.key -out {name}.csr"
                ),
            );
            openssl(
                dir,
                &format!(
                    "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
                 -copy_extensions copy -out {name}.pem"
                ),
            );
        }
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn tls(&self) -> Tls {
        Tls {
            ca: Some(self.path("ca.pem")),
            cert: Some(self.path("client.pem")),
            key: Some(self.path("client.key")),
        }
    }

    /// Also at an address that its certificate does not name.
    fn server(&self, port: u16) -> Server {
        let file = |name| self.path(name).to_str().unwrap().to_owned();
        Server::builder()
            .without_module()
            .config("bind", "127.0.0.1 127.0.0.2")
            .config("tls-port", port.to_string())
            .config("tls-ca-cert-file", file("ca.pem"))
            .config("tls-cert-file", file("server.pem"))
            .config("tls-key-file", file("server.key"))
            .start()
    }
}

fn openssl(dir: &Path, line: &str) {
    let output =
        Command::new("openssl").current_dir(dir).args(line.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn states_arrive_encrypted() {
    let authority = Authority::new();
    let port = free_port();
    let server = authority.server(port);
    for host in ["127.0.0.1", "localhost"] {
        let config = config([format!("rediss://{host}:{port}")]);
        let (pusher, owner) = start(Config { tls: authority.tls(), ..config });
        settle(&pusher);
        note(&pusher, 0, "k", host);
        await_state(&server, 0, "k", host);
        note(&pusher, 1, "large", &"x".repeat(3 << 20));
        await_state(&server, 1, "large", &"x".repeat(3 << 20));
        soon("a complete round", || owner.complete(0) > 0);
        assert_eq!(status(&pusher, 0).errors, 0);
        assert_eq!(status(&pusher, 0).url, format!("rediss://{host}:{port}"));
        stop(pusher);
    }
}

#[test]
fn a_peer_that_hangs_is_left_at_once() {
    let authority = Authority::new();
    let port = free_port();
    let server = authority.server(port);
    let mut config =
        Config { tls: authority.tls(), ..config([format!("rediss://127.0.0.1:{port}")]) };
    config.limits.io_timeout = std::time::Duration::from_secs(600);
    let (pusher, _) = start(config.clone());
    settle(&pusher);
    signal(&server, libc::SIGSTOP);
    note(&pusher, 0, "k", "1");
    soon("a reply to be awaited", || !pusher.unacknowledged_for().is_zero());
    stop(pusher);
    // In the handshake, too: the connection is made, by the system, but nobody
    // answers.
    let (pusher, _) = start(config);
    await_status(&pusher, "a connection", |all| all[0].connections == 1);
    stop(pusher);
    signal(&server, libc::SIGCONT);
}

#[test]
fn whom_the_authority_does_not_know_is_not_told_anything() {
    let (authority, other) = (Authority::new(), Authority::new());
    let port = free_port();
    let server = authority.server(port);
    let url = || format!("rediss://u:hunter2@127.0.0.1:{port}");
    // The peer is not who it should be; the peer wants a certificate; the peer
    // does not trust ours; the peer speaks no TLS.
    let plain_port = format!("rediss://127.0.0.1:{}", server.port());
    for (tls, url, error) in [
        (Tls { ca: other.tls().ca, ..authority.tls() }, url(), "invalid peer certificate"),
        (Tls { cert: None, key: None, ..authority.tls() }, url(), "CertificateRequired"),
        (Tls { ca: authority.tls().ca, ..other.tls() }, url(), "UnknownCA"),
        (authority.tls(), plain_port, "no TLS with 127.0.0.1"),
    ] {
        // A server that speaks no TLS may wait for more, until it is given up.
        let limits = Limits::default();
        let (pusher, _) = start(Config { tls, limits, ..config([url]) });
        await_status(&pusher, "the failure to show", |all| {
            all[0].last_error.as_ref().is_some_and(|text| text.contains(error))
        });
        assert!(!format!("{:?}", pusher.status()).contains("hunter2"));
        assert_eq!(status(&pusher, 0).rounds, 0);
        stop(pusher);
    }
}

#[test]
fn the_name_of_the_peer_has_to_be_in_its_certificate() {
    let authority = Authority::new();
    let port = free_port();
    let _server = authority.server(port);
    let config = config([format!("rediss://127.0.0.2:{port}")]);
    let (pusher, _) = start(Config { tls: authority.tls(), ..config });
    await_status(&pusher, "the failure to show", |all| all[0].last_error.is_some());
    let status = status(&pusher, 0);
    let error = status.last_error.unwrap();
    assert!(error.contains("certificate not valid for name \"127.0.0.2\""), "{error}");
    assert_eq!(status.rounds, 0);
    stop(pusher);
}

#[test]
fn files_that_are_no_use_are_refused_at_the_start() {
    let authority = Authority::new();
    std::fs::write(authority.path("empty.pem"), "").unwrap();
    let good = || authority.tls();
    let file = |name: &str| Some(authority.path(name));
    for (tls, word) in [
        (Tls { ca: file("no-such.pem"), ..good() }, "no-such.pem"),
        (Tls { ca: file("empty.pem"), ..good() }, "empty.pem: no certificate"),
        (Tls { cert: file("empty.pem"), ..good() }, "empty.pem: no certificate"),
        (Tls { key: file("empty.pem"), ..good() }, "empty.pem"),
        (Tls { key: file("server.key"), ..good() }, "client.pem"),
        (Tls { key: None, ..good() }, "needs its key"),
        (Tls { cert: None, ..good() }, "needs its certificate"),
    ] {
        let config = Config { tls, ..config(["rediss://127.0.0.1:1"]) };
        match Pusher::start(config, Owner::new("PING")) {
            Err(StartError::Tls(why)) => assert!(why.contains(word), "{why}"),
            other => panic!("{word}: {other:?}"),
        }
    }
    // Without a peer that needs them they are not read.
    let unused = Tls { ca: file("no-such.pem"), ..good() };
    let (pusher, _) = start(Config { tls: unused, ..config(["redis://127.0.0.1:1"]) });
    stop(pusher);
}
