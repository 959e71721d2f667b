//! Measures `CL.TAKE` against its rivals with redis-benchmark, all of them in
//! one server and in interleaved rounds, and prints ratios; or, with `sync`, what
//! region sync costs; or, with `instructions`, how many a command takes; or, with `--against`, two builds of the module. See `--help`.
//!
//! | where | what |
//! |---|---|
//! | [`options`] | the command line and the environment |
//! | [`part`] | what can be measured of region sync |
//! | [`builds`] | which modules are measured |
//! | [`workload`] | what is measured |
//! | [`servers`] | where |
//! | [`client`] | redis-benchmark |
//! | [`cpu`] | CPU time of the servers' threads |
//! | [`rounds`] | the order of measurements, and that they measure what they say |
//! | [`samples`] | what they found, and ratios of it |
//! | [`compare`] | two builds against each other |
//! | [`memory`] | what a bucket weighs |
//! | [`instructions`] | what a command costs, counted |
//! | [`machine`] | the header of the report |
//! | [`report`] | its tables and targets |
//! | [`sync`] | everything about region sync |

mod builds;
mod client;
mod compare;
mod cpu;
mod error;
mod instructions;
mod machine;
mod memory;
mod options;
mod part;
mod report;
mod rounds;
mod samples;
mod servers;
mod sync;
mod workload;

use claw_testkit::Server;
use client::{Client, Mode};
use error::Result;
use options::{Options, USAGE};
use report::say;
use servers::{Instance, Servers};

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
    let builds = options.builds();
    match &options.sync {
        Some(parts) => {
            header(&client, &options)?;
            let plan = sync::Plan {
                builds: &builds,
                rounds: options.rounds,
                requests: options.requests,
                regions: &options.regions,
                rate: options.rate,
                keys: options.keys,
                seconds: options.seconds,
            };
            sync::run(&client, &plan, parts)
        }
        None if options.instructions => {
            header(&client, &options)?;
            say(&format!("\n{}", instructions::measure(&options)?))
        }
        None if options.against.is_some() => {
            header(&client, &options)?;
            say(&format!("\n{}", compare::measure(&client, &options, &builds)?))
        }
        None => rivals(&client, &options),
    }
}

/// Prints what is measured, and on what.
fn header(client: &Client, options: &Options) -> Result<()> {
    let mut server = Instance::start(Server::builder(), &options.module)?;
    say(&machine::header(&mut server, client, options)?)?;
    say(&builds::header(&options.builds()))
}

/// CL.TAKE and its rivals.
fn rivals(client: &Client, options: &Options) -> Result<()> {
    let mut servers = Servers::start(options, &options.module)?;
    say(&machine::header(&mut servers.main, client, options)?)?;
    rounds::check(&mut servers, &options.workloads)?;

    let mut targets = None;
    if !options.workloads.is_empty() {
        for mode in Mode::ALL {
            let rates = rounds::measure(&mut servers, client, options, mode)?;
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
