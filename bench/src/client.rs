//! Driving redis-benchmark.

use crate::error::{Error, Result};
use crate::workload::KEYS;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Connections of a measurement.
pub const CLIENTS: u64 = 50;

/// How requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// 50 at a time on each connection.
    Pipelined,
    /// One at a time on each connection.
    Single,
}

impl Mode {
    /// In the order in which they are measured.
    pub const ALL: [Mode; 2] = [Mode::Pipelined, Mode::Single];

    /// The title of its table.
    pub fn title(self) -> &'static str {
        match self {
            Mode::Pipelined => "Pipelined: 50 requests at a time",
            Mode::Single => "One request at a time",
        }
    }

    /// Requests on the way on each connection.
    fn depth(self) -> u64 {
        match self {
            Mode::Pipelined => 50,
            Mode::Single => 1,
        }
    }

    /// Requests of a measurement, if a pipelined one has `pipelined`. One at a
    /// time is several times slower.
    pub fn requests(self, pipelined: u64) -> u64 {
        match self {
            Mode::Pipelined => pipelined,
            Mode::Single => (pipelined.saturating_mul(3) / 20).max(1),
        }
    }
}

/// A redis-benchmark program.
pub struct Client {
    program: PathBuf,
}

impl Client {
    /// The program at a path, or the one of that name in PATH.
    pub fn new(program: PathBuf) -> Client {
        Client { program }
    }

    /// What the program says of itself.
    pub fn version(&self) -> Result<String> {
        Ok(self.run(Command::new(&self.program).arg("--version"))?.trim().into())
    }

    /// Sends a command `requests` times and returns how many were answered per
    /// second.
    pub fn measure(
        &self,
        socket: &Path,
        mode: Mode,
        requests: u64,
        command: impl Iterator<Item = Vec<u8>>,
    ) -> Result<f64> {
        let mut program = Command::new(&self.program);
        program.arg("-s").arg(socket);
        let numbers = [("-c", CLIENTS), ("-P", mode.depth()), ("-r", KEYS), ("-n", requests)];
        for (option, value) in numbers {
            program.arg(option).arg(value.to_string());
        }
        let command = command.map(OsString::from_vec);
        let output = self.run(program.arg("--csv").args(command))?;
        rate(&output).ok_or_else(|| {
            Error::new(format!("{} printed no rate: {output}", self.program.display()))
        })
    }

    fn run(&self, command: &mut Command) -> Result<String> {
        let program = self.program.display();
        let output = command.output();
        let output = output.map_err(|e| Error::new(format!("cannot run {program}: {e}")))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(Error::new(format!("{program}: {}: {text}{errors}", output.status)));
        }
        Ok(text)
    }
}

/// The column `rps` of the last line. All cells are quoted.
fn rate(csv: &str) -> Option<f64> {
    let mut lines = csv.lines().map(|line| line.trim_matches('"').split("\",\""));
    let column = lines.find_map(|mut cells| cells.position(|cell| cell == "rps"))?;
    let rate = lines.next_back()?.nth(column)?.parse().ok()?;
    (rate > 0.0).then_some(rate)
}

#[cfg(test)]
mod tests {
    use super::rate;

    #[test]
    fn the_rate_is_found_by_the_name_of_its_column() {
        let csv = "\"test\",\"rps\",\"avg_latency_ms\"\n\"HSET a,b\",\"454029.53\",\"5.225\"\n";
        assert_eq!(rate(csv), Some(454_029.53));
        assert_eq!(rate("\"test\",\"rps\"\n\"PING\",\"7.50\"\n"), Some(7.5));
        assert_eq!(rate("\"test\",\"rps\"\n"), None);
        assert_eq!(rate("\"test\",\"rps\"\n\"PING\",\"0.00\"\n"), None);
        assert_eq!(rate("oops\n\"PING\",\"1.00\"\n"), None);
    }
}
