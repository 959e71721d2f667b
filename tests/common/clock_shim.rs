//! Servers whose clock can be set: by a library that is loaded before all others,
//! see `shim.rs`.

#![allow(dead_code, reason = "no test uses all of it")]

use claw_testkit::{Builder, skipped};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, process};

/// The library, and files that say by how much a clock is moved.
pub struct ClockShim {
    dir: PathBuf,
}

impl ClockShim {
    /// Nothing, said aloud, where it cannot be built; with `CI` set that is a failure.
    /// Every test needs a name of its own.
    pub fn new(test: &str) -> Option<ClockShim> {
        let dir = env::temp_dir().join(format!("claw-clock-{}-{test}", process::id()));
        fs::create_dir_all(&dir).expect("a temporary directory can be made");
        let shim = ClockShim { dir };
        // Next to the cargo that runs the tests.
        let rustc = env::var_os("RUSTC")
            .map_or_else(|| Path::new(env!("CARGO")).with_file_name("rustc"), PathBuf::from);
        let built = Command::new(rustc)
            .args(["--edition", "2024", "--crate-type", "cdylib"])
            .args(["-C", "panic=abort", "-C", "opt-level=2", "-o"])
            .arg(shim.library())
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/shim.rs"))
            .status();
        if !built.is_ok_and(|status| status.success()) {
            skipped(test, "the library that sets the clock cannot be built here");
            return None;
        }
        Some(shim)
    }

    /// A server that has the clock of this name.
    pub fn on(&self, builder: Builder, clock: &str) -> Builder {
        builder.env("LD_PRELOAD", self.library()).env("CLAW_CLOCK", self.dir.join(clock))
    }

    /// Lets the clock of this name differ from the true time by so many microseconds.
    pub fn set(&self, clock: &str, offset_us: i64) {
        // The server may read it at any moment, but never half of it.
        let new = self.dir.join("new");
        fs::write(&new, offset_us.to_string()).expect("the directory can be written");
        fs::rename(new, self.dir.join(clock)).expect("the directory can be written");
    }

    fn library(&self) -> PathBuf {
        self.dir.join("libclock.so")
    }
}

impl Drop for ClockShim {
    fn drop(&mut self) {
        // Whatever is left is small, and in the directory for such files.
        let _ = fs::remove_dir_all(&self.dir);
    }
}
