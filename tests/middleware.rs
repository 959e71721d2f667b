//! The middleware in examples/middleware: installed as a user would, and its own tests run
//! against a real server with the module.
//!
//! Where a language or its package registry is missing, the test says `SKIPPED` and
//! passes; with `CI` set in the environment it fails.
#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[path = "common/programs.rs"]
mod programs;

use claw_testkit::{Server, info_field};
use programs::{INSTALL, RUN, install, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

#[test]
fn python() {
    let files = ["pyproject.toml", "claw_asgi.py", "test_claw_asgi.py"];
    let installed = install("middleware/python", &sources("python", &files), |place| {
        // Building leaves files where the sources are.
        copy("python", &files, &place.join("sources"));
        run(Command::new("python3").args(["-m", "venv"]).arg(place), INSTALL)?;
        let pip = ["install", "--quiet", "--disable-pip-version-check", "redis==8.1.0"];
        run(Command::new(place.join("bin/pip")).args(pip).arg(place.join("sources")), INSTALL)
    });
    if let Some(place) = installed {
        // From elsewhere than where the sources are, so that what was installed is tested.
        fs::copy(example("python").join("test_claw_asgi.py"), place.join("test_claw_asgi.py"))
            .unwrap();
        let mut tests = Command::new(place.join("bin/python"));
        check(tests.args(["-m", "unittest", "test_claw_asgi"]).current_dir(&place), RUN, 1);
    }
}

#[test]
fn node() {
    let files = [
        "package.json",
        "package-lock.json",
        "limit.js",
        "express.js",
        "fastify.js",
        "limit.test.js",
    ];
    let lock = fs::read_to_string(example("node").join("package-lock.json")).unwrap();
    assert!(!lock.contains("://"), "package-lock.json names a registry");
    let installed = install("middleware/node", &sources("node", &files), |place| {
        copy("node", &files, place);
        run(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(place), INSTALL)
    });
    if let Some(place) = installed {
        check(Command::new("node").arg("--test").current_dir(place), RUN, 2);
    }
}

#[test]
fn rust() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("middleware/rust");
    let test = |arg| {
        let mut command = Command::new(&cargo);
        command.args(["test", "--quiet", "--locked", arg]).current_dir(example("rust"));
        command.env("CARGO_TARGET_DIR", &place);
        command
    };
    run(&mut test("--no-run"), INSTALL).expect("the crate is built");
    check(&mut test("--tests"), RUN, 1);
}

/// Runs tests, and compares what they took with what the server counted: `times` two users,
/// of whom one comes thrice to a bucket of two.
fn check(tests: &mut Command, timeout: Duration, times: u64) {
    let server = Server::start();
    run(tests.env("REDIS_URL", server.url()), timeout).unwrap_or_else(|why| panic!("{why}"));
    let mut conn = server.connection();
    let mut count = |field| info_field(&mut conn, "claw", field).expect("a field of INFO claw");
    assert_eq!(count("claw_taken"), (3 * times).to_string());
    // And one asks for more than there can be.
    assert_eq!(count("claw_refused"), (2 * times).to_string());
    assert_eq!(server.warnings(), Vec::<String>::new());
}

fn example(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/middleware").join(language)
}

/// What is in these files: when it changes, it is installed again.
fn sources(language: &str, files: &[&str]) -> String {
    files.iter().map(|file| fs::read_to_string(example(language).join(file)).unwrap()).collect()
}

fn copy(language: &str, files: &[&str], place: &Path) {
    fs::create_dir_all(place).unwrap();
    for file in files {
        fs::copy(example(language).join(file), place.join(file)).unwrap();
    }
}
