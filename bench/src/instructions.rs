//! How many instructions a command takes: the server's process is counted by cachegrind, so
//! that it does not matter what else the machine does.

use crate::error::{Error, Result};
use crate::options::Options;
use crate::report::thousands;
use crate::servers::Instance;
use crate::workload::Workload;
use claw_testkit::Server;
use redis::Pipeline;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::thread;

/// The table that is committed.
const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");
/// Keys of a workload.
const KEYS: u64 = 1_000;
/// Commands on the way.
const DEPTH: u64 = 50;
/// Commands that are not counted, which make the keys, and those that are.
const BEFORE: u64 = 4 * KEYS;
const COUNTED: u64 = 20 * KEYS;
/// A command of ours that got worse by more is said loudly, in percent.
const WORSE: f64 = 3.0;

/// Counts all workloads, and compares them with the committed table; or writes that.
pub fn measure(options: &Options) -> Result<String> {
    let mut text = String::from("Instructions of the server's process per command, pipelined\n");
    let version = version(options)?;
    let committed = fs::read_to_string(COMMITTED).unwrap_or_default();
    let was_version = committed.lines().next().unwrap_or_default().to_owned();
    let mut rows = format!("{version}\n");
    let mut group = None;
    for workload in &options.workloads {
        if group.replace(workload.group()) != Some(workload.group()) {
            let _ = writeln!(text, "{}:", workload.group().title());
        }
        let now = per_command(options, *workload)?;
        let was = committed
            .lines()
            .find_map(|line| line.strip_prefix(workload.name())?.trim().parse::<f64>().ok());
        let _ = writeln!(rows, "{:<12}{now:>8.0}", workload.name());
        let compared = was.map(|was| (now / was - 1.0) * 100.0);
        let change = compared.map_or("new".into(), |change| format!("{change:+.1} %"));
        let _ = write!(text, "{:<32}{:>8}   {change}", workload.title(), thousands(now));
        text.push_str(match compared {
            Some(change) if workload.is_ours() && change > WORSE => {
                "   WORSE than what is committed\n"
            }
            _ => "\n",
        });
        eprint!(".");
    }
    eprintln!();
    if was_version != version {
        let _ = writeln!(
            text,
            "The committed table was counted on {was_version}, this one on {version}."
        );
    }
    if options.update {
        fs::write(COMMITTED, rows).map_err(|e| Error::new(format!("{COMMITTED}: {e}")))?;
    }
    Ok(text)
}

/// What the server says it is.
fn version(options: &Options) -> Result<String> {
    let mut server = Instance::start(Server::builder(), &options.module)?;
    let info = server.info("server")?;
    let name = info.get("server_name").map_or("redis", String::as_str);
    let version = info.get("valkey_version").or_else(|| info.get("redis_version"));
    Ok(format!("{name} {}", version.map_or("?", String::as_str)))
}

/// The instructions of one command: two servers differ by what is counted only.
fn per_command(options: &Options, workload: Workload) -> Result<f64> {
    let count = |commands: u64| move || total(options, workload, commands);
    let (few, many) = thread::scope(|scope| {
        let few = scope.spawn(count(BEFORE));
        let many = scope.spawn(count(BEFORE.saturating_add(COUNTED)));
        (few.join(), many.join())
    });
    let whole = |joined: thread::Result<Result<u64>>| {
        joined.unwrap_or_else(|_| Err(Error::new("a measurement panicked")))
    };
    let (few, many) = (whole(few)?, whole(many)?);
    Ok(many.saturating_sub(few) as f64 / COUNTED as f64)
}

/// The instructions of a server's life in which a workload's command is called so often.
fn total(options: &Options, workload: Workload, commands: u64) -> Result<u64> {
    let dir = tempfile::tempdir().map_err(|e| Error::new(e.to_string()))?;
    let log = dir.path().join("valgrind.log");
    let builder = Server::builder().under([
        "valgrind".into(),
        "--tool=cachegrind".into(),
        "--cache-sim=no".into(),
        "--cachegrind-out-file=/dev/null".into(),
        format!("--log-file={}", log.display()),
    ]);
    // What the server does by the clock is no part of a command.
    let builder = builder.config("hz", "1");
    let builder = match (&options.redis_cell, workload) {
        (Some(cell), Workload::Cell) => {
            let path = cell.to_str().ok_or_else(|| Error::new("REDIS_CELL is not UTF-8"))?;
            builder.config_args("loadmodule", [path])
        }
        _ => builder,
    };
    let mut server = Instance::start(builder, &options.module)?;
    let script = server.prepare(KEYS)?;
    if matches!(workload, Workload::Rule | Workload::Remainder) {
        server.set_rules()?;
    }
    let mut number = 0_u64;
    while number < commands {
        let mut pipe = Pipeline::new();
        for at in number..number.saturating_add(DEPTH) {
            let key = workload.key(at % KEYS);
            pipe.add_command(workload.command(&script, &key)).ignore();
        }
        pipe.query::<()>(&mut server.conn)?;
        number = number.saturating_add(DEPTH);
    }
    workload.check(&mut server.conn, &script, 0..1)?;
    server.stop();
    refs(&log)
}

/// The count of instructions in valgrind's log.
fn refs(log: &Path) -> Result<u64> {
    let text =
        fs::read_to_string(log).map_err(|e| Error::new(format!("{}: {e}", log.display())))?;
    let line = text.lines().find_map(|line| line.split_once("refs:"));
    let count = line.and_then(|(_, count)| count.trim().replace(',', "").parse().ok());
    count.ok_or_else(|| Error::new(format!("valgrind counted nothing:\n{text}")))
}
