//! Measures `CL.TAKE` against its rivals with redis-benchmark, all of them in
//! one server and in interleaved rounds, and prints ratios; or, with `sync`, what
//! region sync costs. See `--help`.
//!
//! | where | what |
//! |---|---|
//! | [`options`] | the command line and the environment |
//! | [`workload`] | what is measured |
//! | [`servers`] | where |
//! | [`client`] | redis-benchmark |
//! | [`rounds`] | the order of measurements, and that they measure what they say |
//! | [`memory`] | what a bucket weighs |
//! | [`machine`] | the header of the report |
//! | [`report`] | its tables and targets |
//! | [`sync`] | everything about region sync |

mod client;
mod error;
mod machine;
mod memory;
mod options;
mod report;
mod rounds;
mod servers;
mod sync;
mod workload;

use client::{Client, Mode};
use error::Result;
use options::{Options, USAGE};
use servers::Servers;
use std::io::Write;

/// Below the tables.
const NOTES: &str = "\
* The median; meaningful only against each other, in the same run on the same
  machine. Ratios are taken in each round: the median (min..max) of them.
";
const SECOND_SERVER: &str =
    "  Our CL.THROTTLE ran in a second server, for in the first it is redis-cell's.\n";

fn main() -> Result<()> {
    let Some(options) = Options::read(std::env::args_os().skip(1))? else {
        return say(USAGE);
    };
    let client = Client::new(options.redis_benchmark.clone());
    if let Some(parts) = &options.sync {
        return sync::run(&client, &options, parts);
    }
    let mut servers = Servers::start(&options)?;
    say(&machine::header(&mut servers.main, &client, &options)?)?;
    rounds::check(&mut servers, &options.workloads)?;

    let mut targets = None;
    if !options.workloads.is_empty() {
        for mode in Mode::ALL {
            let rates = rounds::measure(&mut servers, &client, &options, mode)?;
            say(&format!("\n{}", rates.table(mode)))?;
            if mode == Mode::Pipelined {
                targets = Some(rates.targets());
            }
        }
        say(NOTES)?;
        if servers.ours.is_some() {
            say(SECOND_SERVER)?;
        }
    }
    if let Some(targets) = targets {
        say(&format!("\n{targets}"))?;
    }
    if options.memory {
        say(&format!("\n{}", memory::measure(&mut servers, options.redis_cell.is_some())?))?;
    }
    Ok(())
}

/// Prints, and does not panic when nobody reads.
fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
