//! Where the module and the programs are.

use std::env;
use std::path::{Path, PathBuf};

/// The module that servers load unless told otherwise: the environment
/// variable `REDIS_CLAW_MODULE`, else `target/release/libredis_claw.so` in the
/// workspace. The path is absolute.
///
/// # Panics
///
/// If there is no such file. Cargo does not build the module for the tests of
/// another crate, so it has to be built beforehand.
pub fn module_path() -> PathBuf {
    let path = match env::var_os("REDIS_CLAW_MODULE") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("testkit lies in the workspace")
            .join("target/release/libredis_claw.so"),
    };
    assert!(
        path.is_file(),
        "no module at {}: build it first: cargo build --release",
        path.display()
    );
    absolute(path)
}

/// The server program: the environment variable `REDIS_SERVER`, else
/// `redis-server`, which is looked up in `PATH` when it is started.
pub fn server_binary() -> PathBuf {
    program("REDIS_SERVER", "redis-server")
}

/// The client program that creates clusters: the environment variable
/// `REDIS_CLI`, else `redis-cli`, which is looked up in `PATH`.
pub fn cli_binary() -> PathBuf {
    program("REDIS_CLI", "redis-cli")
}

fn program(variable: &str, default: &str) -> PathBuf {
    let program = env::var_os(variable).map_or_else(|| default.into(), PathBuf::from);
    // A mere name is looked up in PATH; anything else is a file.
    match program.components().count() {
        1 => program,
        _ => absolute(program),
    }
}

/// A server changes into its own directory before it reads most paths, so
/// everything handed to it has to be absolute.
pub(crate) fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path)
        .unwrap_or_else(|e| panic!("cannot make {} absolute: {e}", path.display()))
}
