//! CPU time of a server's threads.
//!
//! It is what a thread has been on a core, whoever else wanted one meanwhile, and
//! hence depends far less than a rate on what else the machine does.

use crate::error::{Error, Result};
use std::fs;

/// CPU time of a process since it started, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Cpu {
    /// Of the main thread, which runs all commands.
    pub main: u64,
    /// Of all threads together.
    pub all: u64,
}

impl Cpu {
    /// Reads that of a process.
    pub fn read(pid: u32) -> Result<Cpu> {
        let main = on_core(&format!("/proc/{pid}/task/{pid}"))?;
        let mut all = 0_u64;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            all = all.saturating_add(on_core(&task?.path().to_string_lossy())?);
        }
        Ok(Cpu { main, all })
    }

    /// What has been added to `before`.
    pub fn since(&self, before: &Cpu) -> Cpu {
        Cpu {
            main: self.main.saturating_sub(before.main),
            all: self.all.saturating_sub(before.all),
        }
    }
}

/// How long a thread has been on a core: the first number of its `schedstat`.
/// Unlike `utime` and `stime` it is not rounded to hundredths of a second.
fn on_core(task: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("{task}/schedstat"))?;
    let first = text.split(' ').next().and_then(|number| number.parse().ok());
    first.ok_or_else(|| Error::new(format!("{task}/schedstat is {text}")))
}
