//! The collectors in examples/collectors: their own tests run, against what stands in for claw-edge.
//!
//! Where a language is missing, the test says `SKIPPED` and passes; with `CI` set in the environment it
//! fails.
#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[path = "common/programs.rs"]
#[allow(dead_code, reason = "nothing is installed here")]
mod programs;

use claw_testkit::skipped;
use programs::{RUN, run};
use std::path::Path;
use std::process::Command;

#[test]
fn javascript() {
    check("javascript", Command::new("node").arg("--test"));
}

#[test]
fn go() {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("collectors/go");
    check("go", Command::new("go").args(["test", "./..."]).env("GOCACHE", cache));
}

fn check(language: &str, tests: &mut Command) {
    let program = tests.get_program().to_owned();
    if let Err(why) = Command::new(program).arg("--help").output() {
        return skipped(language, &why.to_string());
    }
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/collectors").join(language);
    run(tests.current_dir(place), RUN).unwrap_or_else(|why| panic!("{why}"));
}
