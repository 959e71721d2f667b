//! The client examples, run against a real server the way their readers run them.
//!
//! Each takes from a bucket of 3 tokens until it is refused, waits as long as it
//! was told to, and takes once more. What they need is installed below Cargo's
//! target directory. Where a language or its package registry is missing, the
//! test says `SKIPPED` and passes; with `CI` set in the environment it fails.
#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use claw_testkit::{Server, info_field, skipped};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

/// Far more than an installation or an example takes.
const INSTALL: Duration = Duration::from_secs(300);
const RUN: Duration = Duration::from_secs(120);
/// The interval in which the examples' bucket gains one token, in milliseconds.
const INTERVAL_MS: u64 = 2000;

#[test]
fn python() {
    let dir = example("python");
    let requirements = fs::read_to_string(dir.join("requirements.txt")).unwrap();
    let installed = install("python", &requirements, |place| {
        run(Command::new("python3").args(["-m", "venv"]).arg(place), INSTALL)?;
        run(
            Command::new(place.join("bin/pip"))
                .args(["install", "--quiet", "--disable-pip-version-check", "--requirement"])
                .arg(dir.join("requirements.txt")),
            INSTALL,
        )
    });
    if let Some(place) = installed {
        check(Command::new(place.join("bin/python")).arg(dir.join("take.py")));
    }
}

#[test]
fn node() {
    let dir = example("node");
    let lock = fs::read_to_string(dir.join("package-lock.json")).unwrap();
    assert!(!lock.contains("://"), "package-lock.json names a registry");
    let installed = install("node", &lock, |place| {
        fs::create_dir_all(place).unwrap();
        for file in ["package.json", "package-lock.json", "take.mjs"] {
            fs::copy(dir.join(file), place.join(file)).unwrap();
        }
        run(Command::new("node").arg("--version"), RUN)?;
        run(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(place), INSTALL)
    });
    if let Some(place) = installed {
        fs::copy(dir.join("take.mjs"), place.join("take.mjs")).unwrap();
        check(Command::new("node").arg(place.join("take.mjs")));
    }
}

#[test]
fn rust() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(&cargo);
    build.args(["build", "--quiet", "--locked", "--example", "take"]);
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    run(&mut build, INSTALL).expect("the example is built");
    let mut take = Command::new(&cargo);
    take.args(["run", "--quiet", "--locked", "--example", "take", "--"]);
    check(take.current_dir(env!("CARGO_MANIFEST_DIR")));
}

/// Runs an example and compares what it printed with what the server counted.
fn check(command: &mut Command) {
    let server = Server::start();
    let printed = run(command.arg("limit:user:42").env("REDIS_URL", server.url()), RUN)
        .unwrap_or_else(|why| panic!("{why}"));
    let lines: Vec<&str> = printed.lines().collect();
    let [granted @ .., refused, waited] = lines.as_slice() else {
        panic!("too few lines:\n{printed}");
    };

    assert!(granted.len() >= 3, "a bucket of 3 tokens gives three at least:\n{printed}");
    for line in granted {
        assert!(number(line, "200 granted, ", " left") < 3, "{line}");
    }
    let retry = number(refused, "429 refused, retry in ", " ms");
    assert!((1..=INTERVAL_MS).contains(&retry), "{refused}");
    assert!(number(waited, "200 after waiting, ", " left") < 3, "{waited}");

    let mut conn = server.connection();
    let mut count = |field| info_field(&mut conn, "claw", field).expect("a field of INFO claw");
    assert_eq!(count("claw_taken"), (granted.len() + 1).to_string());
    assert_eq!(count("claw_refused"), "1");
    assert_eq!(server.warnings(), Vec::<String>::new());
}

/// The number between two texts that are the whole rest of a line.
fn number(line: &str, before: &str, after: &str) -> u64 {
    line.strip_prefix(before)
        .and_then(|rest| rest.strip_suffix(after))
        .and_then(|digits| digits.parse().ok())
        .unwrap_or_else(|| panic!("{line:?} is not '{before}N{after}'"))
}

fn example(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/clients").join(language)
}

/// Installs what `pins` names, unless the same is there already, and returns the
/// place; `None` when it cannot be done here.
fn install(
    language: &str,
    pins: &str,
    install: impl FnOnce(&Path) -> Result<String, String>,
) -> Option<PathBuf> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients").join(language);
    let stamp = place.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == pins) {
        return Some(place);
    }
    let _ = fs::remove_dir_all(&place);
    match install(&place) {
        Ok(_) => {
            fs::write(stamp, pins).unwrap();
            Some(place)
        }
        Err(why) => {
            skipped(&format!("the {language} example"), &why);
            None
        }
    }
}

/// Runs a program to its end and returns what it printed.
fn run(command: &mut Command, timeout: Duration) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let args: Vec<&OsStr> = command.get_args().collect();
    let shown = format!("{name} {}", args.join(OsStr::new(" ")).to_string_lossy());
    // Files rather than pipes, which would fill while we wait.
    let [out, err] = ["stdout", "stderr"].map(output_file);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(fs::File::create(&out).unwrap())
        .stderr(fs::File::create(&err).unwrap())
        .spawn()
        .map_err(|error| format!("{shown}: {error}"))?;
    let deadline = Instant::now() + timeout;
    let status = loop {
        match child.try_wait().expect("a child can be waited for") {
            Some(status) => break status,
            None if Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
            None => {
                child.kill().expect("a child can be killed");
                break child.wait().expect("a child can be waited for");
            }
        }
    };
    let printed = fs::read_to_string(out).unwrap();
    if status.success() {
        return Ok(printed);
    }
    let complaint = fs::read_to_string(err).unwrap();
    Err(format!("{shown} ended with {status}:\n{printed}{complaint}"))
}

/// A file of this test's own: the thread is named after the test.
fn output_file(stream: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients");
    fs::create_dir_all(&dir).unwrap();
    let thread = thread::current();
    dir.join(format!("{}.{stream}", thread.name().unwrap_or("main")))
}
