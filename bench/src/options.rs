//! What is asked for on the command line and in the environment.

use crate::builds::{Build, Role};
use crate::error::{Error, Result};
use crate::part::Part;
use crate::workload::Workload;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The text of `--help`.
pub const USAGE: &str = "\
Measures CL.TAKE against its rivals with redis-benchmark and prints ratios.
With sync, measures what region sync costs and how fast it is instead.
With instructions, counts instructions per command by cachegrind instead, which
other load does not change, and compares them with bench/instructions.txt.
With --against, measures two builds of the module in turn and compares them.

Usage: cargo run --release -p claw-bench -- [sync|instructions] [OPTIONS]

Options:
  --rounds N      rounds that count, after one to warm up (default 5)
  --requests N    requests of a pipelined measurement (default 400000); a
                  measurement of single requests has 15 % of them
  --only LIST     only these, separated by commas:
                  policy throttle cell lua rule remainder take refused pinned
                  merge mergefn fcall ping incr hset memory
                  and after sync: throughput regions convergence idle memory
  --against FILE  another build of the module, to be compared with. Compares
                  policy throttle rule remainder take refused pinned merge
                  mergefn, and after sync throughput and regions; all of them
                  pipelined
  --update        after instructions: writes what was counted to that file
  --help          prints this

Options for the regions of sync:
  --regions LIST  how many regions share the limits, each in turn, separated by
                  commas (default 1,2,4,8)
  --rate N        takes per second in each region (default 1000)
  --keys N        buckets from which they are taken (default 10000)
  --seconds N     how long one measurement takes (default 5)

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
    /// The parts of region sync to measure, in place of everything else.
    pub sync: Option<Vec<Part>>,
    /// Whether to count instructions, in place of everything else.
    pub instructions: bool,
    /// Whether to commit to what was counted.
    pub update: bool,
    /// The build of the module that is measured.
    pub module: PathBuf,
    /// The build that it is compared with.
    pub against: Option<PathBuf>,
    /// How many regions share limits in [`Part::Regions`], ascending.
    pub regions: Vec<usize>,
    /// Takes per second in each of them.
    pub rate: u64,
    /// Buckets from which they are taken.
    pub keys: u64,
    /// How long one of those measurements takes.
    pub seconds: u64,
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
            Some(path) => Some(file("REDIS_CELL", path.as_ref())?),
        };
        let module = match variable("REDIS_CLAW_MODULE") {
            Some(path) => path.into(),
            None => {
                Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/libredis_claw.so")
            }
        };
        let mut options = Options {
            rounds: 5,
            requests: 400_000,
            workloads: Workload::ALL.to_vec(),
            memory: true,
            sync: None,
            instructions: false,
            update: false,
            // Cargo does not build it for this program.
            module: file("the module, built by cargo build --release,", &module)?,
            against: None,
            regions: vec![1, 2, 4, 8],
            rate: 1_000,
            keys: 10_000,
            seconds: 5,
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
        } else if args.next_if(|arg| arg == "instructions").is_some() {
            options.instructions = true;
            options.memory = false;
        }
        let mut only = None;
        while let Some(arg) = args.next() {
            let mut value = || {
                let value = args.next().and_then(|value| value.into_string().ok());
                value.ok_or_else(|| Error::new(format!("{} needs a value", arg.display())))
            };
            match arg.to_str() {
                Some("--rounds") => options.rounds = number(&value()?)?,
                Some("--requests") => options.requests = number(&value()?)?,
                Some("--only") => only = Some(value()?),
                Some("--against") => {
                    options.against = Some(file("--against", Path::new(&value()?))?);
                }
                Some("--regions") => options.regions = counts(&value()?)?,
                Some("--rate") => options.rate = number(&value()?)?,
                Some("--keys") => options.keys = number(&value()?)?,
                Some("--seconds") => options.seconds = number(&value()?)?,
                Some("--update") if options.instructions => options.update = true,
                Some("--help" | "-h") => return Ok(None),
                _ => return Err(Error::new(format!("what is {}? See --help", arg.display()))),
            }
        }
        if options.against.is_some() {
            options.only_what_compares();
        }
        if let Some(list) = only {
            options.only(&list)?;
        }
        Ok(Some(options))
    }

    /// The builds that are measured, first the one that the run is about.
    pub fn builds(&self) -> Vec<Build> {
        let other = self.against.iter().map(|path| (Role::Other, path));
        [(Role::Tested, &self.module)]
            .into_iter()
            .chain(other)
            .map(|(role, module)| Build { role, module: module.clone() })
            .collect()
    }

    fn only_what_compares(&mut self) {
        self.workloads.retain(|workload| workload.is_ours());
        self.memory = false;
        if let Some(parts) = &mut self.sync {
            parts.retain(|part| part.compares());
        }
    }

    /// Restricts what there is to measure to a list of names.
    fn only(&mut self, list: &str) -> Result<()> {
        let names: Vec<&str> = list.split(',').map(str::trim).collect();
        let names_of = |one: &str| names.contains(&one);
        let known: Vec<&str> = match &mut self.sync {
            Some(parts) => {
                let known = parts.iter().map(|part| part.name()).collect();
                parts.retain(|part| names_of(part.name()));
                known
            }
            None => {
                let mut known: Vec<&str> = self.workloads.iter().map(|w| w.name()).collect();
                if self.memory {
                    known.push("memory");
                }
                self.workloads.retain(|workload| names_of(workload.name()));
                self.memory = self.memory && names_of("memory");
                known
            }
        };
        match names.iter().find(|name| !known.contains(name)) {
            None => Ok(()),
            Some(name) if *name == Workload::Cell.name() && self.redis_cell.is_none() => {
                Err(Error::new("--only cell needs REDIS_CELL to be set"))
            }
            Some(name) => Err(Error::new(format!(
                "--only {name}: there is only {}, see --help",
                known.join(" ")
            ))),
        }
    }
}

/// The absolute path of a file, for servers change into a directory of their own.
fn file(what: &str, path: &Path) -> Result<PathBuf> {
    std::fs::canonicalize(path)
        .map_err(|e| Error::new(format!("{what} is {}: {e}", path.display())))
}

/// Numbers of regions, ascending and each only once.
fn counts(list: &str) -> Result<Vec<usize>> {
    let mut counts: Vec<usize> =
        list.split(',').map(|n| number(n.trim())).collect::<Result<_>>()?;
    counts.sort_unstable();
    counts.dedup();
    Ok(counts)
}

/// A number of 1 or more.
fn number<T: std::str::FromStr + Default + PartialEq>(text: &str) -> Result<T> {
    let number = text.parse().ok().filter(|n| *n != T::default());
    number.ok_or_else(|| Error::new(format!("{text} is not a number from 1 on")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(sync: Option<Vec<Part>>) -> Options {
        Options {
            rounds: 1,
            requests: 1,
            workloads: Workload::ALL.to_vec(),
            memory: true,
            sync,
            instructions: false,
            update: false,
            module: PathBuf::new(),
            against: None,
            regions: vec![1],
            rate: 1,
            keys: 1,
            seconds: 1,
            redis_cell: None,
            redis_benchmark: PathBuf::new(),
        }
    }

    #[test]
    fn only_the_named_ones_are_left() {
        let mut plain = options(None);
        assert!(plain.only("take, memory").is_ok());
        assert_eq!((plain.workloads, plain.memory), (vec![Workload::Take], true));

        let mut sync = options(Some(Part::ALL.to_vec()));
        assert!(sync.only("memory,regions").is_ok());
        assert_eq!(sync.sync, Some(vec![Part::Regions, Part::Memory]));
        assert!(options(Some(Part::ALL.to_vec())).only("take").is_err());
    }

    #[test]
    fn what_cannot_be_compared_is_not_there() {
        let mut plain = options(None);
        plain.only_what_compares();
        assert!(plain.only("memory").is_err());
        let mut sync = options(Some(Part::ALL.to_vec()));
        sync.only_what_compares();
        assert_eq!(sync.sync, Some(vec![Part::Throughput, Part::Regions]));
    }

    #[test]
    fn numbers_of_regions_ascend() {
        assert_eq!(counts("8, 2,2").ok(), Some(vec![2, 8]));
        assert!(counts("0").is_err());
        assert!(counts("2,").is_err());
    }
}
