//! Measuring all workloads in turn, round by round.

use crate::client::{Client, Mode};
use crate::cpu::Cpu;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::report::Rates;
use crate::servers::{Instance, Servers};
use crate::workload::{Counter, KEYS, Keys, Workload};
use std::collections::BTreeMap;

/// After a measurement every key of this many is looked at.
const SAMPLE: usize = 1_000;

/// How many random requests per key make the keys: 1 - 1/e^3, or 95 %, of them.
pub const PASSES: u64 = 3;

/// How often two builds that are compared take turns within a round, each with one of
/// [`PARTS`] parts of the requests of a measurement. What a round found is the median of
/// its turns, one value for each build: turns share servers, and with them the places
/// that those happen to have in memory, which make a difference of a few per cent.
pub const TURNS: usize = 8;
/// See [`TURNS`]. A part is still long enough not to be about the connections that it
/// begins with.
pub const PARTS: u64 = 4;

/// Makes sure that every workload does what it says.
pub fn check(servers: &mut Servers, workloads: &[Workload]) -> Result<()> {
    let script = servers.script.clone();
    for workload in workloads {
        let conn = &mut servers.of(*workload).conn;
        workload.check(conn, &script, 0..1)?;
        if workload.keys() == Keys::Fresh {
            redis::cmd("DEL").arg(workload.key(0)).query::<u64>(conn)?;
        }
    }
    Ok(())
}

/// Measures all workloads in one mode: one round that does not count, then
/// those that do.
pub fn measure(
    servers: &mut Servers,
    client: &Client,
    options: &Options,
    mode: Mode,
) -> Result<Rates> {
    let mut rates = Rates::new();
    for round in 0..=options.rounds {
        match round {
            0 => eprintln!("{}, warming up", mode.title()),
            _ => eprintln!("{}, round {round} of {}", mode.title(), options.rounds),
        }
        for workload in order(&options.workloads, round) {
            make_keys(servers, client, workload)?;
            let requests = mode.requests(options.requests);
            let measured = run(servers, client, requests, mode, workload)?;
            remove_keys(servers, workload)?;
            if round > 0 {
                rates.add(workload, measured.rate);
            }
        }
    }
    Ok(rates)
}

/// Of two rounds one runs forwards and one backwards, and each pair of rounds begins
/// one further: neither the place in a round nor the neighbour favours anybody.
pub fn order<T: Clone>(all: &[T], round: usize) -> Vec<T> {
    let mut order = all.to_vec();
    let first = (round / 2).checked_rem(order.len()).unwrap_or(0);
    order.rotate_left(first);
    if !round.is_multiple_of(2) {
        order.reverse();
    }
    order
}

/// What one measurement found.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Requests per second.
    pub rate: f64,
    /// CPU time of the server's main thread per request, in nanoseconds.
    pub main: f64,
}

/// Gets a workload ready to be measured. A measurement starts with its workload's
/// keys in place, as those of active users are: an untimed pass makes nearly all of
/// them.
pub fn make_keys(servers: &mut Servers, client: &Client, workload: Workload) -> Result<()> {
    let script = servers.script.clone();
    let socket = servers.of(workload).socket();
    if workload.keys() == Keys::Fresh {
        let made = KEYS.saturating_mul(PASSES);
        client.measure(&socket, Mode::Pipelined, made, workload.template(&script))?;
    }
    Ok(())
}

/// Measures one workload, and makes sure that it was measured.
pub fn run(
    servers: &mut Servers,
    client: &Client,
    requests: u64,
    mode: Mode,
    workload: Workload,
) -> Result<Measured> {
    let script = servers.script.clone();
    let instance = servers.of(workload);
    let before = Calls::read(instance, workload)?;
    let cpu = Cpu::read(instance.pid())?;
    let rate = client.measure(&instance.socket(), mode, requests, workload.template(&script))?;
    let cpu = Cpu::read(instance.pid())?.since(&cpu);
    Calls::read(instance, workload)?.check(&before, workload, requests)?;
    if workload.keys() != Keys::None {
        workload.check(&mut instance.conn, &script, (0..KEYS).step_by(SAMPLE))?;
    }
    Ok(Measured { rate, main: cpu.main as f64 / requests as f64 })
}

/// Leaves no keys of a workload behind that are not to stay: left alone, buckets would
/// expire some seconds later, and their removal would slow another workload down.
pub fn remove_keys(servers: &mut Servers, workload: Workload) -> Result<()> {
    match workload.keys() {
        Keys::Fresh => servers.of(workload).clear(workload),
        Keys::None | Keys::Kept => Ok(()),
    }
}

/// What the server counted of a workload's calls since it started.
pub struct Calls {
    calls: u64,
    errors: u64,
    /// What our module counted, if the calls are ours.
    counted: u64,
}

impl Calls {
    /// Asks a server.
    pub fn read(instance: &mut Instance, workload: Workload) -> Result<Calls> {
        let stats = stats(instance, &workload.command_name())?;
        let stat = |name: &str| stats.get(name).copied().unwrap_or(0);
        let counter = match workload.counter() {
            Counter::None => None,
            Counter::Taken => Some("claw_taken"),
            Counter::Refused => Some("claw_refused"),
        };
        let counted = match counter {
            None => 0,
            Some(counter) => {
                let value = instance.info("claw")?.get(counter).and_then(|v| v.parse().ok());
                value.ok_or_else(|| Error::new(format!("INFO claw does not show {counter}")))?
            }
        };
        Ok(Calls {
            calls: stat("calls"),
            errors: stat("failed_calls").saturating_add(stat("rejected_calls")),
            counted,
        })
    }

    /// Makes sure that since `before` all requests were made, none failed, and
    /// nearly all took tokens or were refused as they should.
    pub fn check(&self, before: &Calls, workload: Workload, requests: u64) -> Result<()> {
        let title = workload.title();
        let calls = self.calls.saturating_sub(before.calls);
        if calls < requests {
            return Err(Error::new(format!("{title}: {requests} requests, but {calls} calls")));
        }
        let errors = self.errors.saturating_sub(before.errors);
        if errors > 0 {
            return Err(Error::new(format!("{title}: {errors} of {calls} calls failed")));
        }
        let counted = self.counted.saturating_sub(before.counted);
        let enough = calls.saturating_sub(calls / 1_000);
        match workload.counter() {
            Counter::Taken if counted < enough => {
                Err(Error::new(format!("{title}: only {counted} of {calls} calls took tokens")))
            }
            Counter::Refused if counted < enough => {
                Err(Error::new(format!("{title}: only {counted} of {calls} calls were refused")))
            }
            _ => Ok(()),
        }
    }
}

/// How often a command was called.
pub fn calls(instance: &mut Instance, command: &str) -> Result<u64> {
    Ok(stats(instance, command)?.get("calls").copied().unwrap_or(0))
}

/// The whole numbers of a command's statistics. A command that was never called
/// is not listed, and has none.
fn stats(instance: &mut Instance, command: &str) -> Result<BTreeMap<String, u64>> {
    let stats = instance.info("commandstats")?;
    let stats = stats.get(&format!("cmdstat_{command}")).map(String::as_str).unwrap_or_default();
    let fields = stats.split(',').filter_map(|field| field.split_once('='));
    Ok(fields.filter_map(|(name, value)| Some((name.into(), value.parse().ok()?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_neighbours_change_from_round_to_round() {
        let rounds = [0, 1, 2, 3, 4, 5].map(|round| order(&['a', 'b', 'c'], round));
        assert_eq!(rounds.map(String::from_iter), ["abc", "cba", "bca", "acb", "cab", "bac"]);
        let rounds = [0, 1, 2, 3].map(|round| order(&['a', 'b'], round));
        assert_eq!(rounds.map(String::from_iter), ["ab", "ba", "ba", "ab"]);
        assert_eq!(order::<Workload>(&[], 1), []);
    }
}
