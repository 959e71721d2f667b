//! The program: reads its settings and serves, or checks files of limits.

#![forbid(unsafe_code)]

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use claw_edge::check::check;
use claw_edge::config::Config;
use claw_edge::limits;
use claw_edge::serve::serve;
use claw_edge::service::Service;
use mimalloc::MiMalloc;

/// A request is many small allocations, and they are a fifth of its CPU time with glibc's.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[derive(Debug, Parser)]
#[command(name = "claw-edge", version, about)]
struct Arguments {
    #[command(flatten)]
    config: Config,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reads files of limits, and says what is wrong with them or how they are understood
    Check {
        /// Files of named limits, and files and folders of descriptors
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

fn main() -> ExitCode {
    let Arguments { config, command } = Arguments::parse();
    match command {
        Some(Command::Check { files }) => report(&config, &files),
        None => run(config),
    }
}

/// Prints what files say, or all that is wrong with them.
fn report(config: &Config, files: &[PathBuf]) -> ExitCode {
    match check(config, files) {
        Ok(limits) => {
            print!("{limits}");
            ExitCode::SUCCESS
        }
        Err(mistakes) => {
            for mistake in mistakes {
                eprintln!("{mistake}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> ExitCode {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let served = limits::load(&config)
        .map_err(|mistake| mistake.to_string())
        .and_then(|limits| Service::new(config, limits))
        .map_err(io::Error::other)
        .and_then(serve);
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "claw-edge ends");
            ExitCode::FAILURE
        }
    }
}
