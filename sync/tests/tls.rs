//! `rediss://`: an authority of one's own, and certificates on both sides.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use claw_sync::{Config, Files, Limits, PeerState};
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

    fn files(&self) -> Files {
        Files {
            ca: Some(self.path("ca.pem")),
            cert: Some(self.path("client.pem")),
            key: Some(self.path("client.key")),
            password: None,
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
        let (pusher, owner) = start(with_files(config, authority.files()));
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
    let url = format!("rediss://127.0.0.1:{port}");
    let mut config = with_files(config([url]), authority.files());
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
    for (files, url, error) in [
        (Files { ca: other.files().ca, ..authority.files() }, url(), "invalid peer certificate"),
        (Files { cert: None, key: None, ..authority.files() }, url(), "CertificateRequired"),
        (Files { ca: authority.files().ca, ..other.files() }, url(), "UnknownCA"),
        (authority.files(), plain_port, "no TLS with 127.0.0.1"),
    ] {
        // A server that speaks no TLS may wait for more, until it is given up.
        let limits = Limits::default();
        let (pusher, _) = start(with_files(Config { limits, ..config([url]) }, files));
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
    let (pusher, _) = start(with_files(config, authority.files()));
    await_status(&pusher, "the failure to show", |all| all[0].last_error.is_some());
    let status = status(&pusher, 0);
    let error = status.last_error.unwrap();
    assert!(error.contains("certificate not valid for name \"127.0.0.2\""), "{error}");
    assert_eq!(status.rounds, 0);
    stop(pusher);
}

#[test]
fn files_that_are_no_use_are_told_of() {
    let authority = Authority::new();
    let path = |name: &str| authority.path(name);
    std::fs::write(path("empty.pem"), "").unwrap();
    std::fs::write(path("torn.pem"), "-----BEGIN PRIVATE KEY hunter2").unwrap();
    std::fs::write(path("large.pem"), " ".repeat((1 << 20) + 1)).unwrap();
    assert!(Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
    let good = || authority.files();
    let file = |name: &str| Some(path(name));
    for (files, word) in [
        (Files { ca: file("no-such.pem"), ..good() }, "no-such.pem: No such file or directory"),
        (Files { ca: file("empty.pem"), ..good() }, "empty.pem: no certificate"),
        (Files { ca: file("large.pem"), ..good() }, "large.pem: longer than 1048576 bytes"),
        (Files { ca: file("pipe"), ..good() }, "pipe: not a regular file"),
        (Files { ca: file("."), ..good() }, ".: not a regular file"),
        (Files { ca: Some("/dev/zero".into()), ..good() }, "/dev/zero: not a regular file"),
        (Files { cert: file("empty.pem"), ..good() }, "empty.pem: no certificate"),
        (Files { cert: file("torn.pem"), ..good() }, "torn.pem: not in PEM format"),
        (Files { cert: file("pipe"), ..good() }, "pipe: not a regular file"),
        (Files { key: file("empty.pem"), ..good() }, "empty.pem: no private key"),
        (Files { key: file("torn.pem"), ..good() }, "torn.pem: not in PEM format"),
        (Files { key: file("pipe"), ..good() }, "pipe: not a regular file"),
        (Files { key: file("server.key"), ..good() }, "client.pem: "),
        (Files { key: None, ..good() }, "needs its key"),
        (Files { cert: None, ..good() }, "needs its certificate"),
    ] {
        let config = with_files(config(["rediss://127.0.0.1:1"]), files);
        let credentials = std::sync::Arc::clone(&config.credentials);
        let (pusher, _) = start(config);
        await_status(&pusher, "the failure to show", |all| all[0].errors > 1);
        let status = status(&pusher, 0);
        let error = status.last_error.unwrap();
        assert!(error.contains(word) && !error.contains("hunter2"), "{error}, not {word}");
        // It comes to no connection.
        assert_eq!((status.state, status.connections), (PeerState::BackingOff, 0));
        // The owner is told as well, and of what stays so only once.
        assert!(credentials.complaint().is_some_and(|text| text.contains(word)));
        assert_eq!(credentials.complaint(), None);
        stop(pusher);
    }
    // Without a peer that needs them they are not read.
    let unused = Files { ca: file("no-such.pem"), ..good() };
    let server = plain();
    let (pusher, _) = start(with_files(config([server.url()]), unused));
    settle(&pusher);
    assert_eq!(status(&pusher, 0).errors, 0);
    stop(pusher);
}

/// Not one after the other: what is in them is made one configuration.
fn replace(files: &Files, by: &Authority) {
    let Files { ca: Some(ca), cert: Some(cert), key: Some(key), .. } = files else {
        panic!("{files:?}");
    };
    for (path, name) in [(ca, "ca.pem"), (cert, "client.pem"), (key, "client.key")] {
        put(path, std::fs::read(by.path(name)).unwrap());
    }
}

#[test]
fn files_that_appear_after_the_start_are_used() {
    let authority = Authority::new();
    let port = free_port();
    let server = authority.server(port);
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| Some(dir.path().join(name));
    let files = Files { ca: path("ca"), cert: path("cert"), key: path("key"), password: None };
    let config = config([format!("rediss://127.0.0.1:{port}")]);
    let (pusher, _) = start(with_files(config, files.clone()));
    await_status(&pusher, "the failure to show", |all| all[0].errors > 0);
    replace(&files, &authority);
    settle(&pusher);
    note(&pusher, 0, "k", "1");
    await_state(&server, 0, "k", "1");
    stop(pusher);
}

/// Another authority on both sides, while sync runs.
#[test]
fn certificates_are_rotated_while_sync_runs() {
    let (old, new) = (Authority::new(), Authority::new());
    let port = free_port();
    let server = old.server(port);
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let files = Files {
        ca: Some(path("ca")),
        cert: Some(path("cert")),
        key: Some(path("key")),
        password: None,
    };
    replace(&files, &old);
    let config = config([format!("rediss://127.0.0.1:{port}")]);
    let (pusher, owner) = start(with_files(config, files.clone()));
    settle(&pusher);

    // A certificate without its key: what worked before does.
    let read = |authority: &Authority, name| std::fs::read(authority.path(name)).unwrap();
    put(&path("cert"), read(&new, "client.pem"));
    reconnect_until(&server, &pusher, &path("cert").display().to_string());
    let error = status(&pusher, 0).last_error.unwrap();
    assert!(error.ends_with("what it held before is used"), "{error}");
    // That is one error, however long it lasts.
    let errors = status(&pusher, 0).errors;
    let rounds = status(&pusher, 0).rounds;
    await_status(&pusher, "some rounds", |all| all[0].rounds > rounds + 5);
    assert_eq!(status(&pusher, 0).errors, errors);

    // Both authorities are trusted on both sides, then the certificates change, and
    // the old authority goes.
    let both = [read(&old, "ca.pem"), read(&new, "ca.pem")].concat();
    put(&path("both"), &both);
    put(&path("ca"), &both);
    put(&path("key"), read(&new, "client.key"));
    let set = |words: &[(&str, PathBuf)]| {
        let mut command = redis::cmd("CONFIG");
        command.arg("SET");
        for (name, path) in words {
            command.arg(name).arg(path.to_str().unwrap());
        }
        command.exec(&mut server.connection()).unwrap();
    };
    set(&[("tls-ca-cert-file", path("both"))]);
    set(&[("tls-cert-file", new.path("server.pem")), ("tls-key-file", new.path("server.key"))]);
    put(&path("ca"), read(&new, "ca.pem"));
    set(&[("tls-ca-cert-file", new.path("ca.pem"))]);
    // Nothing of the old is any use now: only with the new is there a connection.
    reconnect(&server, &pusher);
    note(&pusher, 0, "k", "1");
    await_state(&server, 0, "k", "1");
    let complete = owner.complete(0);
    soon("a complete round", || owner.complete(0) > complete);
    stop(pusher);
}
