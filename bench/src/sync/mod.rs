//! What region sync costs, and how fast it is. See `--help`.
//!
//! | where | what |
//! |---|---|
//! | [`places`] | which processors they run on |
//! | [`region`] | servers that are regions of each other |
//! | [`throughput`] | CL.TAKE with and without sync |
//! | [`convergence`] | how long until the other region knows of a take |
//! | [`idle`] | what goes over the wire when nothing is taken |
//! | [`weight`] | what a bucket weighs that regions share |

mod convergence;
mod idle;
mod places;
mod region;
mod throughput;
mod weight;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::machine;
use crate::options::Options;
use crate::say;
use crate::servers::Instance;
use claw_testkit::Server;

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// See [`throughput`].
    Throughput,
    /// See [`convergence`].
    Convergence,
    /// See [`idle`].
    Idle,
    /// See [`weight`].
    Memory,
}

impl Part {
    /// In the order in which they run.
    pub const ALL: [Part; 4] = [Part::Throughput, Part::Convergence, Part::Idle, Part::Memory];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Part::Throughput => "throughput",
            Part::Convergence => "convergence",
            Part::Idle => "idle",
            Part::Memory => "memory",
        }
    }
}

/// Runs some parts and prints what they find.
pub fn run(client: &Client, options: &Options, parts: &[Part]) -> Result<()> {
    let mut alone = Instance::start(Server::builder())?;
    say(&machine::header(&mut alone, client, options)?)?;
    drop(alone);
    for part in parts {
        let text = match part {
            Part::Throughput => throughput::measure(client, options)?,
            Part::Convergence => convergence::measure()?,
            Part::Idle => idle::measure()?,
            Part::Memory => weight::measure()?,
        };
        say(&format!("\n{text}"))?;
    }
    Ok(())
}

/// The parts of a list of names.
pub fn parts(list: &str) -> Result<Vec<Part>> {
    let names: Vec<&str> = list.split(',').map(str::trim).collect();
    for name in &names {
        if Part::ALL.iter().all(|part| part.name() != *name) {
            return Err(Error::new(format!("--only {name}: no such part, see --help")));
        }
    }
    Ok(Part::ALL.into_iter().filter(|part| names.contains(&part.name())).collect())
}
