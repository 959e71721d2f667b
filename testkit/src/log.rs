//! Reading server logs.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// How many lines of a log go into a panic message.
const TAIL_LINES: usize = 40;

/// Beginnings of messages that servers log at the level of warnings although
/// nothing is wrong. Redis 7.0 logs every step of its start and its end at
/// that level; later versions and Valkey do so for a few of them.
const HARMLESS: &[&str] = &[
    // Start and end.
    "oO0OoO0OoO0Oo ",
    "Redis version=",
    "Valkey version=",
    "Configuration loaded",
    "Server initialized",
    "User requested shutdown...",
    "Redis is now ready to exit",
    "Valkey is now ready to exit",
    // Nobody but the test reaches its servers.
    "WARNING: Redis does not require authentication.",
    // The machine, not the server. The missing colons are theirs.
    "WARNING Memory overcommit must be enabled",
    "WARNING overcommit_memory is set to 0",
    "WARNING You have Transparent Huge Pages",
    "WARNING you have Transparent Huge Pages",
    "WARNING Your system is configured to use the 'xen' clocksource",
    "WARNING Slow system clocksource detected",
    "WARNING: The TCP backlog setting of",
    "You requested maxclients of",
    "Server can't set maximum open files",
    "Current maximum open files is",
    // An IPv6 address that the machine does not have. One that matters keeps
    // the server from starting.
    "Warning: Could not create server TCP listening socket",
    // What a test asked for.
    "CONFIG REWRITE executed with success",
    "DB reloaded by DEBUG RELOAD",
    "Append Only File loaded by DEBUG LOADAOF",
    // A replica getting its data.
    "Diskless rdb transfer, done reading from pipe",
    // A cluster being made, or a slot being moved.
    "configEpoch set to",
    "New configEpoch set to",
    "configEpoch updated after importing slot",
    "IP address for this node updated to",
    "Cluster state changed: ok",
    "WARNING: Changing databases number from 16 to 1 since we are in cluster mode",
];

/// The part of a log file from a position on. Empty if there is no file.
pub(crate) fn read_from(path: &Path, start: u64) -> String {
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(path) {
        file.seek(SeekFrom::Start(start))
            .and_then(|_| file.read_to_end(&mut bytes))
            .unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
    }
    // A crash report may hold bytes of a key.
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The last lines of a log.
pub(crate) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// The lines of a log that are warnings and not known to be harmless.
pub(crate) fn warnings(log: &str) -> Vec<String> {
    log.lines()
        .filter(|line| {
            warning(line).is_some_and(|message| {
                // Only the beginning counts: a module's message begins with
                // the module's name and is never taken for a server's.
                !HARMLESS.iter().any(|known| message.starts_with(known))
            })
        })
        .map(String::from)
        .collect()
}

/// The message of a line at the level of warnings, which looks like
/// `18261:M 21 Nov 2026 01:29:43.538 # message`.
fn warning(line: &str) -> Option<&str> {
    let mut parts = line.splitn(7, ' ');
    let (process, role) = parts.next()?.split_once(':')?;
    if process.parse::<u32>().is_err() || role.len() != 1 {
        return None;
    }
    (parts.nth(4)? == "#").then(|| parts.next().unwrap_or(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_told_from_harmless_lines() {
        let log = "\
*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***
1:C 21 Nov 2026 01:29:43.538 # oO0OoO0OoO0Oo Redis is starting oO0OoO0OoO0Oo
1:C 21 Nov 2026 01:29:43.538 * oO0OoO0OoO0Oo Valkey is starting oO0OoO0OoO0Oo
1:M 21 Nov 2026 01:29:43.539 # WARNING Memory overcommit must be enabled! Without it
1:M 21 Nov 2026 01:29:43.539 * <claw> ready
1:M 21 Nov 2026 01:29:43.539 # <claw> Configuration loaded # badly
18491:signal-handler (1795224586) Received SIGTERM scheduling shutdown...
1:M 21 Nov 2026 01:29:44.531 # Redis 7.0.15 crashed by signal: 11, si_code: 0
1:M 21 Nov 2026 01:29:44.531 # 
thread panicked at # nowhere
1:M 21 Nov 2026 01:29:44.531 # Redis is now ready to exit, bye bye...
";
        let warnings = warnings(log);
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert!(warnings[0].ends_with("# <claw> Configuration loaded # badly"));
        assert!(warnings[1].contains("crashed by signal"));
    }

    #[test]
    fn the_tail_is_the_end() {
        let log: String = (0..100).map(|i| format!("line {i}\n")).collect();
        let tail = tail(&log);
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert!(tail.ends_with("line 99"));
        assert_eq!(super::tail("one"), "one");
    }
}
