//! The client examples, run against a real server the way their readers run them.
//!
//! Each takes from a bucket of 3 tokens until it is refused, waits as long as it
//! was told to, and takes once more. The others make a tour of what differs from
//! library to library, alone and in a cluster, under the ACL rules of docs/clients.md.
//! What they need is installed below Cargo's target directory. Where a language or
//! its package registry is missing, the test says `SKIPPED` and passes; with `CI`
//! set in the environment it fails.
#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[path = "common/programs.rs"]
mod programs;

use claw_testkit::{Cluster, Server, ask, info_field, int, redis_version, run as send};
use programs::{INSTALL, RUN, install, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The interval in which the examples' bucket gains one token, in milliseconds.
const INTERVAL_MS: u64 = 2000;

#[test]
fn python() {
    if let Some(place) = python_installed() {
        let python = place.join("bin/python");
        check(Command::new(&python).arg(example("python").join("take.py")));
        tour("redis-py", || {
            let mut command = Command::new(&python);
            command.arg(example("python").join("tour.py"));
            command
        });
    }
}

fn python_installed() -> Option<PathBuf> {
    let dir = example("python");
    let requirements = fs::read_to_string(dir.join("requirements.txt")).unwrap();
    install("clients/python", &requirements, |place| {
        run(Command::new("python3").args(["-m", "venv"]).arg(place), INSTALL)?;
        run(
            Command::new(place.join("bin/pip"))
                .args(["install", "--quiet", "--disable-pip-version-check", "--requirement"])
                .arg(dir.join("requirements.txt")),
            INSTALL,
        )
    })
}

#[test]
fn node() {
    let dir = example("node");
    let lock = fs::read_to_string(dir.join("package-lock.json")).unwrap();
    assert!(!lock.contains("://"), "package-lock.json names a registry");
    let installed = install("clients/node", &lock, |place| {
        fs::create_dir_all(place).unwrap();
        for file in ["package.json", "package-lock.json"] {
            fs::copy(dir.join(file), place.join(file)).unwrap();
        }
        run(Command::new("node").arg("--version"), RUN)?;
        run(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(place), INSTALL)
    });
    if let Some(place) = installed {
        // Beside what they import.
        for file in ["take.mjs", "tour.mjs", "ioredis.mjs"] {
            fs::copy(dir.join(file), place.join(file)).unwrap();
        }
        check(Command::new("node").arg(place.join("take.mjs")));
        for (library, file) in [("node-redis", "tour.mjs"), ("ioredis", "ioredis.mjs")] {
            tour(library, || {
                let mut command = Command::new("node");
                command.arg(place.join(file));
                command
            });
        }
    }
}

#[test]
fn rust() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(&cargo);
    build.args(["build", "--quiet", "--locked", "--example", "take", "--example", "tour"]);
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    run(&mut build, INSTALL).expect("the examples are built");
    let program = |name| {
        let mut command = Command::new(&cargo);
        command.args(["run", "--quiet", "--locked", "--example", name, "--"]);
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        command
    };
    check(&mut program("take"));
    tour("redis-rs", || program("tour"));
}

/// Runs a tour of what differs from library to library, alone and in a cluster, with
/// no more rights than docs/clients.md says: with those that are needed it succeeds, and
/// with those that it tries besides nothing is refused.
fn tour(library: &str, program: impl Fn() -> Command) {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clients.md"));
    let page = page.unwrap();
    let alone = Server::start();
    let cluster = Cluster::start(3, 0);
    for (mode, nodes) in [("alone", std::slice::from_ref(&alone)), ("cluster", cluster.nodes())] {
        let row = format!("| {library} | {mode} | ");
        let row = page.lines().find_map(|line| line.strip_prefix(&row)).expect("a row");
        let cells = row.trim_end_matches(" |").split(" | ");
        let rules: Vec<String> = cells.map(|cell| cell.replace(['`', '\\'], "")).collect();
        let [needed, besides] = rules.as_slice() else { panic!("{library}, {mode}: {row}") };
        for (rules, quiet) in [(needed.clone(), false), (format!("{needed} {besides}"), true)] {
            for node in nodes {
                let conn = &mut node.connection();
                // Redis 7.0 has neither the command nor, for that reason, the rule.
                let has_setinfo = redis_version(conn) >= (7, 2);
                let words = rules.split_whitespace().filter(|word| word.starts_with('+'));
                let words = words.filter(|rule| has_setinfo || *rule != "+client|setinfo");
                let rules: String = words.map(|word| format!(" {word}")).collect();
                let user = "ACL SETUSER app reset on >secret ~tour:*";
                let commands = "+cl.take +cl.policy +cl.state +cl.merge";
                let user = format!("{user} {commands}{rules}");
                send(conn, &["ACL LOG RESET", "CONFIG RESETSTAT", "FLUSHALL", &user]);
            }
            let port = nodes.first().expect("a node").port();
            let mut command = program();
            command.env("REDIS_URL", format!("redis://app:secret@127.0.0.1:{port}"));
            if mode == "cluster" {
                command.env("CLUSTER", "yes");
            }
            let printed = run(&mut command, RUN).unwrap_or_else(|why| panic!("{rules}: {why}"));
            assert_eq!(
                printed,
                "20 taken\n5 at most, 2.5 more in a second\nmerged with itself, 0 changed\n",
                "{library}, {mode}"
            );
            let mut buckets = 0;
            for node in nodes {
                let conn = &mut node.connection();
                buckets += int(conn, "DBSIZE");
                // Every call went where its key is.
                let errors: String = ask(conn, "INFO errorstats");
                assert!(!errors.contains("MOVED"), "{library}, {mode}: {errors}");
                let refused: Vec<redis::Value> = ask(conn, "ACL LOG");
                assert!(!quiet || refused.is_empty(), "{library}, {mode}: {refused:?}");
            }
            assert_eq!(buckets, 20, "{library}, {mode}");
        }
    }
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
