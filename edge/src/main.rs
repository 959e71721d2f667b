//! The program: reads its settings and serves.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use claw_edge::config::Config;
use claw_edge::limits;
use claw_edge::serve::serve;
use claw_edge::service::Service;

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let config = Config::parse();
    let served = limits::load(&config)
        .map_err(|mistake| mistake.to_string())
        .and_then(|limits| Service::new(config, limits))
        .map_err(std::io::Error::other)
        .and_then(serve);
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "claw-edge ends");
            ExitCode::FAILURE
        }
    }
}
