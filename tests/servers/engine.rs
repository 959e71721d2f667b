//! The way to the Docker engine.
//!
//! The client library speaks one version of the engine's API, and an engine that
//! is older refuses it, though everything used here is as old as Docker 20. So
//! requests go through a socket of our own, which names the engine's version.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::{env, fs, process, thread};

/// What the names of our sockets begin with.
const PREFIX: &str = "docker-";
/// The longest path of a socket, in bytes, without the NUL at its end.
const SOCKET_LIMIT: usize = 107;

/// To be called before the library is used for the first time. Returns what
/// `DOCKER_HOST` was before.
pub fn prepare() -> Option<&'static str> {
    static PREPARED: OnceLock<Option<String>> = OnceLock::new();
    let before = PREPARED.get_or_init(|| {
        let before = env::var("DOCKER_HOST").ok();
        let host = before.clone().unwrap_or_else(|| "unix:///var/run/docker.sock".into());
        let Some(engine) = host.strip_prefix("unix://").map(PathBuf::from) else {
            return before; // Reached by a network, and taken as it is.
        };
        let version = api_version(&engine);
        let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
        remove_forsaken(place);
        let ours = place.join(format!("{PREFIX}{}.sock", process::id()));
        assert!(
            ours.as_os_str().len() <= SOCKET_LIMIT,
            "{} is too long for a Unix socket: set CARGO_TARGET_DIR to a shorter directory",
            ours.display()
        );
        let _ = fs::remove_file(&ours);
        let listener = UnixListener::bind(&ours).expect("a socket for requests");
        // SAFETY: every test that reads this variable, or runs a container,
        // comes through here first and waits; std guards its own readers.
        unsafe { env::set_var("DOCKER_HOST", format!("unix://{}", ours.display())) };
        thread::spawn(move || {
            for client in listener.incoming() {
                forward(client.expect("a client"), &engine, &version);
            }
        });
        before
    });
    before.as_deref()
}

/// Removes the sockets of earlier runs, which nobody listens on any more: a process
/// cannot remove its own when it ends.
fn remove_forsaken(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if ours
            && UnixStream::connect(entry.path())
                .is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Two digits: all versions are `1.NN`.
fn api_version(engine: &Path) -> String {
    let mut stream = UnixStream::connect(engine)
        .unwrap_or_else(|e| panic!("no Docker engine at {}: {e}", engine.display()));
    stream.write_all(b"GET /version HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    // Components have a version too; the engine's own is the last.
    let (_, rest) = answer.rsplit_once("\"ApiVersion\":\"1.").expect("a version");
    rest.split('"').next().expect("an end").to_owned()
}

fn forward(client: UnixStream, engine: &Path, version: &str) {
    let server = UnixStream::connect(engine).expect("the engine listens");
    let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let version = version.to_owned();
    thread::spawn(move || copy(from, to, |request| rename(request, &version)));
    thread::spawn(move || copy(server, client, |_| ()));
}

fn copy(mut from: UnixStream, mut to: UnixStream, change: impl Fn(&mut [u8])) {
    let mut buffer = vec![0; 64 * 1024];
    // A reset is an end like any other: the library sees it at its own side.
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let chunk = &mut buffer[..length];
        change(chunk);
        if to.write_all(chunk).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Names the engine's version in a request that names a newer one. A request
/// begins a chunk: its sender has waited for the answer to the last one.
fn rename(chunk: &mut [u8], version: &str) {
    for start in [&b"GET /v1."[..], b"POST /v1.", b"PUT /v1.", b"HEAD /v1.", b"DELETE /v1."] {
        if let Some(rest) = chunk.strip_prefix(start)
            && rest.get(..2).is_some_and(|asked| asked > version.as_bytes())
        {
            chunk[start.len()..start.len() + 2].copy_from_slice(version.as_bytes());
        }
    }
}
