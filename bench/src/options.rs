//! What is asked for on the command line and in the environment.

use crate::error::{Error, Result};
use crate::sync::{self, Part};
use crate::workload::Workload;
use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

/// The text of `--help`.
pub const USAGE: &str = "\
Measures CL.TAKE against its rivals with redis-benchmark and prints ratios.
With sync, measures what region sync costs and how fast it is instead.

Usage: cargo run --release -p claw-bench -- [sync] [OPTIONS]

Options:
  --rounds N      rounds that count, after one to warm up (default 5)
  --requests N    requests of a pipelined measurement (default 400000); a
                  measurement of single requests has 15 % of them
  --only LIST     only these, separated by commas:
                  ping incr hset take refused policy pinned throttle cell lua
                  merge mergefn fcall memory
                  and after sync: throughput convergence idle memory
  --help          prints this

Environment:
  REDIS_CELL         redis-cell's .so, to be measured as well
  REDIS_BENCHMARK    the redis-benchmark to use (default: the one in PATH)
  REDIS_SERVER       the server to use (default: redis-server in PATH)
  REDIS_CLAW_MODULE  our module (default: target/release/libredis_claw.so)
";

/// What to measure, and how.
#[derive(Debug)]
pub struct Options {
    /// Rounds that count.
    pub rounds: usize,
    /// Requests of one pipelined measurement.
    pub requests: u64,
    /// In the order of the tables.
    pub workloads: Vec<Workload>,
    /// Whether to measure memory as well.
    pub memory: bool,
    /// The parts of [`sync`] to run, in place of everything else.
    pub sync: Option<Vec<Part>>,
    /// redis-cell's module.
    pub redis_cell: Option<PathBuf>,
    /// The program that sends the requests.
    pub redis_benchmark: PathBuf,
}

impl Options {
    /// Reads the environment and `args`; `None` if help is asked for.
    pub fn read(args: impl Iterator<Item = OsString>) -> Result<Option<Options>> {
        let mut args = args.peekable();
        let variable = |name| env::var_os(name).filter(|value| !value.is_empty());
        let redis_cell = match variable("REDIS_CELL") {
            None => None,
            // The server changes into a directory of its own.
            Some(path) => Some(std::fs::canonicalize(&path).map_err(|e| {
                Error::new(format!("REDIS_CELL is {}: {e}", PathBuf::from(path).display()))
            })?),
        };
        let mut options = Options {
            rounds: 5,
            requests: 400_000,
            workloads: Workload::ALL.to_vec(),
            memory: true,
            sync: None,
            redis_cell,
            redis_benchmark: variable("REDIS_BENCHMARK")
                .unwrap_or_else(|| "redis-benchmark".into())
                .into(),
        };
        if options.redis_cell.is_none() {
            options.workloads.retain(|w| *w != Workload::Cell);
        }
        if args.next_if(|arg| arg == "sync").is_some() {
            options.sync = Some(Part::ALL.to_vec());
        }
        while let Some(arg) = args.next() {
            let mut value = || {
                let value = args.next().and_then(|value| value.into_string().ok());
                value.ok_or_else(|| Error::new(format!("{} needs a value", arg.display())))
            };
            match arg.to_str() {
                Some("--rounds") => options.rounds = number(&value()?)?,
                Some("--requests") => options.requests = number(&value()?)?,
                Some("--only") => options.only(&value()?)?,
                Some("--help" | "-h") => return Ok(None),
                _ => return Err(Error::new(format!("what is {}? See --help", arg.display()))),
            }
        }
        Ok(Some(options))
    }

    /// Restricts everything to a list of names.
    fn only(&mut self, list: &str) -> Result<()> {
        if self.sync.is_some() {
            self.sync = Some(sync::parts(list)?);
            return Ok(());
        }
        let names: Vec<&str> = list.split(',').map(str::trim).collect();
        for name in &names {
            let known = *name == "memory" || Workload::ALL.iter().any(|w| w.name() == *name);
            if !known {
                return Err(Error::new(format!("--only {name}: no such workload, see --help")));
            }
            if *name == Workload::Cell.name() && self.redis_cell.is_none() {
                return Err(Error::new("--only cell needs REDIS_CELL to be set"));
            }
        }
        self.workloads.retain(|w| names.contains(&w.name()));
        self.memory = names.contains(&"memory");
        Ok(())
    }
}

/// A number of 1 or more.
fn number<T: std::str::FromStr + Default + PartialEq>(text: &str) -> Result<T> {
    let number = text.parse().ok().filter(|n| *n != T::default());
    number.ok_or_else(|| Error::new(format!("{text} is not a number from 1 on")))
}
