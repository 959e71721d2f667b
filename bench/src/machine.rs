//! What the numbers were measured on.

use crate::client::{CLIENTS, Client, Mode};
use crate::error::Result;
use crate::options::Options;
use crate::report::thousands;
use crate::servers::Instance;
use crate::workload::KEYS;
use std::fmt::Write;
use std::fs;
use std::thread;

/// The first lines of the report.
pub fn header(server: &mut Instance, client: &Client, options: &Options) -> Result<String> {
    let info = server.info("server")?;
    let field = |name: &str| info.get(name).map(String::as_str);
    let kind = match field("valkey_version") {
        Some(version) => format!("Valkey {version}"),
        None => format!("Redis {}", field("redis_version").unwrap_or("of unknown version")),
    };
    let claw = server.info("claw")?;
    let claw = claw.get("claw_version").map_or("of unknown version", String::as_str);
    let with_cell =
        if options.redis_cell.is_some() && options.sync.is_none() { ", redis-cell" } else { "" };
    let load = read("/proc/loadavg");
    let load: Vec<&str> = load.split(' ').take(3).collect();
    let load = load.join(" ");
    let cores = thread::available_parallelism().map_or_else(|_| "?".into(), |n| n.to_string());
    let [pipelined, single] =
        Mode::ALL.map(|mode| thousands(mode.requests(options.requests) as f64));
    let rows = [
        ("Server", format!("{kind}, redis-claw {claw}{with_cell}")),
        ("Client", format!("{}, {CLIENTS} clients, Unix socket", client.version()?)),
        ("CPU", format!("{}, {cores} cores", cpu())),
        ("Kernel", read("/proc/sys/kernel/osrelease")),
        ("Load", format!("{load} (1, 5 and 15 minutes before)")),
        ("Rounds", format!("{} and one to warm up", options.rounds)),
        (
            "Requests",
            format!(
                "{pipelined} pipelined, {single} one at a time, in each measurement; {} keys",
                thousands(KEYS as f64)
            ),
        ),
    ];
    let mut text = String::new();
    for (name, value) in rows {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:10}{value}");
    }
    Ok(text)
}

fn cpu() -> String {
    let text = read("/proc/cpuinfo");
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| std::env::consts::ARCH.into(), |(_, model)| model.into())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "?".into(), |text| text.trim().into())
}
