//! Servers that are regions of each other.

use crate::error::{Error, Result};
use crate::servers::Instance;
use claw_testkit::{Builder, Server, free_port};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// How long regions may take to agree.
const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(20);
/// For so many ticks nothing must wait to be sent: a few rounds.
const CALM_TICKS: u32 = 8;

/// Starts regions that send each other everything, all with the same build of the
/// module, and waits until all of them are connected.
pub fn mesh(count: usize, module: &Path) -> Result<Vec<Instance>> {
    mesh_with(count, module, |server| server)
}

/// Like [`mesh`], with every server set up further.
pub fn mesh_with(
    count: usize,
    module: &Path,
    configure: impl Fn(Builder) -> Builder,
) -> Result<Vec<Instance>> {
    let ports: Vec<u16> = (0..count).map(|_| free_port()).collect();
    let mut regions = Vec::with_capacity(count);
    for port in &ports {
        let others: Vec<u16> = ports.iter().copied().filter(|other| other != port).collect();
        regions.push(region(*port, &others, module, &configure)?);
    }
    for region in &mut regions {
        until("all peers are connected", || {
            Ok(number(region, "sync_peers_connected")? == number(region, "sync_peers")?)
        })?;
    }
    Ok(regions)
}

/// Starts a region whose only peer is down.
pub fn cut_off(module: &Path) -> Result<Instance> {
    let nobody = free_port();
    region(free_port(), &[nobody], module, |server| server)
}

fn region(
    port: u16,
    peers: &[u16],
    module: &Path,
    configure: impl Fn(Builder) -> Builder,
) -> Result<Instance> {
    let urls: Vec<String> = peers.iter().map(|port| format!("redis://127.0.0.1:{port}")).collect();
    let id = format!("r{port}");
    let args = ["replica-id", &id, "peers", &urls.join(" ")];
    Instance::start(configure(Server::builder().port(port).module_args(args)), module)
}

/// A number of `INFO claw`.
pub fn number(region: &mut Instance, name: &str) -> Result<u64> {
    let value = region.info("claw")?.get(&format!("claw_{name}")).and_then(|v| v.parse().ok());
    value.ok_or_else(|| Error::new(format!("INFO claw does not show claw_{name}")))
}

/// Waits until nothing waits to be sent.
pub fn drained(region: &mut Instance) -> Result<()> {
    let mut calm = 0_u32;
    until("everything has been sent", || {
        let waiting = number(region, "sync_queue")? > 0 || number(region, "sync_lag_ms")? > 0;
        calm = if waiting { 0 } else { calm.saturating_add(1) };
        Ok(calm > CALM_TICKS)
    })
}

/// Waits for a condition.
pub fn until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !condition()? {
        if start.elapsed() > PATIENCE {
            return Err(Error::new(format!("waited in vain until {what}")));
        }
        thread::sleep(TICK);
    }
    Ok(())
}

/// Has all threads of a server run only when nobody else wants a core. Says
/// whether that worked.
pub fn yield_cores(region: &Instance) -> bool {
    let pid = region.pid().to_string();
    let chrt = Command::new("chrt").args(["--all-tasks", "--idle", "--pid", "0", &pid]).output();
    chrt.is_ok_and(|output| output.status.success())
}
