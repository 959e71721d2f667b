//! Which processors the servers and the client run on.
//!
//! The main threads of the servers that are measured get one for themselves, and all
//! else the others: the client, the threads that send, the peer. Otherwise, on a
//! machine of two, a round measures whom the system happened to interrupt.

use crate::error::{Error, Result};
use std::fs;
use std::process::{self, Command};

/// The processors this process had, which it gets back in the end.
pub struct Places {
    all: String,
    first: String,
}

impl Places {
    /// Goes over to all processors but the first, with all that is started from now
    /// on. `None` where there is only one, or no `taskset`.
    pub fn take() -> Result<Option<Places>> {
        let status = fs::read_to_string("/proc/self/status")?;
        let all = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let all = all.unwrap_or_default().trim().to_owned();
        let Some((first, others)) = split(&all) else {
            return Ok(None);
        };
        let places = Places { all, first };
        Ok(move_to(&["-a"], &others, process::id()).is_ok().then_some(places))
    }

    /// Gives the main thread of a server the first processor.
    pub fn set_apart(&self, pid: u32) -> Result<()> {
        move_to(&[], &self.first, pid)
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        if let Err(why) = move_to(&["-a"], &self.all, process::id()) {
            eprintln!("{why}");
        }
    }
}

/// The first of a list such as `0-3,8`, and the rest.
fn split(list: &str) -> Option<(String, String)> {
    let (range, more) = list.split_once(',').unwrap_or((list, ""));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (begin, end): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
    let rest = match begin < end {
        true => format!("{}-{end}", begin.saturating_add(1)),
        false => String::new(),
    };
    let parts: Vec<&str> = [rest.as_str(), more].into_iter().filter(|p| !p.is_empty()).collect();
    (!parts.is_empty()).then(|| (first.to_owned(), parts.join(",")))
}

fn move_to(options: &[&str], list: &str, pid: u32) -> Result<()> {
    let output =
        Command::new("taskset").args(options).args(["-cp", list]).arg(pid.to_string()).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::new(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn the_first_and_the_rest() {
        let pair = |first: &str, rest: &str| Some((first.to_owned(), rest.to_owned()));
        assert_eq!(split("0-1"), pair("0", "1-1"));
        assert_eq!(split("2-5,8"), pair("2", "3-5,8"));
        assert_eq!(split("3,7-9"), pair("3", "7-9"));
        assert_eq!(split("4"), None);
        assert_eq!(split(""), None);
    }
}
