//! What each further region costs, where all of them take from the same buckets.
//!
//! The first region is looked at. Its main thread has its own takes to do, and what
//! the takes of all others bring. Every round has servers of its own.

use super::load::{self, Pace};
use super::plan::Plan;
use super::region;
use crate::builds::Role;
use crate::cpu::Cpu;
use crate::error::{Error, Result};
use crate::report::thousands;
use crate::rounds::order;
use crate::samples::{INTERVAL, Samples, cell, compared, median};
use crate::servers::Instance;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Holds the counters of 8 regions in a compact hash, as docs/regions.md has it.
const LISTPACK: &str = "512";
/// No take is refused, and after the first of so many tokens no bucket gets full
/// while it is measured: all of them live, in every region.
const CAPACITY: &str = "1000000";
const FIRST: u64 = 1_000;
/// How long nothing is taken, for what sync costs by itself.
const IDLE: Duration = Duration::from_secs(2);
/// From the first take to the first that counts.
const WARM_UP: Duration = Duration::from_millis(500);
/// How often two builds take turns, in which they share the time of a measurement.
const TURNS: u32 = 4;
/// How often a load takes what is due. Every millisecond would be closer to clients
/// that wait for each answer, but on a small machine the loads would then take more of
/// it than what is measured.
const TICK: Duration = Duration::from_millis(5);
/// What the loads have to reach of the rate, or the machine is too busy. Loads that were
/// held up for a while make up for it, so a short look may miss some.
const PACE: f64 = 0.8;

/// One measurement of the first region.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// CPU time of the main thread per take, in microseconds, with all that
    /// belongs to it.
    main: f64,
    /// How much of it there is without any take.
    idle: f64,
    /// CPU time of all other threads per take, in microseconds.
    others: f64,
    /// Bytes sent per second to all peers.
    bytes: f64,
    /// How many of them are sent without any take.
    idle_bytes: f64,
    /// States sent per take and peer.
    states: f64,
    /// Bytes sent per state, without those that are sent anyway.
    state: f64,
    /// Resident memory of the process, in bytes.
    memory: f64,
    /// What all processors of the machine were busy with anything, of 1.
    busy: f64,
}

/// What a further region adds to a [`Sample`].
#[derive(Debug, Clone, Copy)]
struct Slope {
    main: f64,
    others: f64,
    bytes: f64,
}

#[derive(Debug)]
struct Found {
    samples: Samples<(Role, usize), Sample>,
    slopes: Samples<Role, Slope>,
}

/// Measures all numbers of regions and all builds, and prints tables.
pub fn measure(plan: &Plan) -> Result<String> {
    let mut found = Found { samples: Samples::new(), slopes: Samples::new() };
    for round in 1..=plan.rounds {
        let mut points: Vec<(Role, f64, Sample)> = Vec::new();
        for count in order(plan.regions, round) {
            eprintln!("Region sync, {count} regions, round {round} of {}", plan.rounds);
            for (role, sample) in turns(plan, count, round)? {
                points.push((role, count as f64, sample));
                found.samples.add((role, count), sample);
            }
        }
        for build in plan.builds {
            let slope = |what: fn(&Sample) -> f64| {
                let of_build = points.iter().filter(|(role, _, _)| *role == build.role);
                slope(&of_build.map(|(_, n, sample)| (*n, what(sample))).collect::<Vec<_>>())
            };
            let parts = (slope(|s| s.main), slope(|s| s.others), slope(|s| s.bytes));
            if let (Some(main), Some(others), Some(bytes)) = parts {
                found.slopes.add(build.role, Slope { main, others, bytes });
            }
        }
    }
    Ok(report(plan, &found))
}

/// Measures one number of regions with all builds. Two that are compared take turns, so
/// that what else the machine does meets both, and what is found is the median of those.
fn turns(plan: &Plan, count: usize, round: usize) -> Result<Vec<(Role, Sample)>> {
    let mut fields = Vec::with_capacity(plan.builds.len());
    for build in order(plan.builds, round) {
        fields.push((build.role, Field::start(plan, count, &build.module)?));
    }
    let turns = if fields.len() > 1 { TURNS } else { 1 };
    let seconds = Duration::from_secs(plan.seconds).checked_div(turns).unwrap_or_default();
    let mut samples = Samples::new();
    for turn in 0..turns {
        for (role, field) in &mut fields {
            samples.add(*role, field.measure(plan, seconds)?);
        }
        if turn.is_multiple_of(2) {
            fields.reverse();
        }
    }
    Ok(plan.builds.iter().map(|b| (b.role, Sample::median(samples.all(&b.role)))).collect())
}

/// Regions that share limits, and what the first of them does while nothing is taken.
struct Field {
    regions: Vec<Instance>,
    idle: Watched,
}

impl Field {
    fn start(plan: &Plan, count: usize, module: &Path) -> Result<Field> {
        let mut regions = region::mesh_with(count, module, |server| {
            server.config("hash-max-listpack-value", LISTPACK).config("claw.max-tokens", CAPACITY)
        })?;
        for region in &mut regions {
            region.send((0..plan.keys).map(|number| {
                let mut cmd = redis::cmd("CL.TAKE");
                cmd.arg(load::key(number)).arg(FIRST);
                cmd
            }))?;
        }
        if count > 1 {
            for region in &mut regions {
                region::drained(region)?;
            }
        }
        let idle = watch(first(&mut regions)?, IDLE)?;
        Ok(Field { regions, idle })
    }

    fn measure(&mut self, plan: &Plan, how_long: Duration) -> Result<Sample> {
        let Field { regions, idle } = self;
        let count = regions.len();
        let taking = while_taking(plan, regions, how_long)?;
        let planned = plan.rate as f64 * taking.seconds;
        if taking.takes < planned * PACE {
            return Err(Error::new(format!(
                "{:.0} takes instead of {planned:.0}: the machine is too busy for {count} regions \
                 at {} takes/s, see --rate",
                taking.takes, plan.rate
            )));
        }
        let region = first(regions)?;
        for number in ["sync_overruns", "sync_states_refused", "sync_peers_silent", "refused"] {
            if region::number(region, number)? > 0 {
                return Err(Error::new(format!("{count} regions: there are {number}")));
            }
        }
        let each = |value: f64| value / taking.takes;
        let idle_bytes = idle.bytes / idle.seconds;
        let peers = count.saturating_sub(1) as f64;
        let own = taking.bytes - idle_bytes * taking.seconds;
        let none_if_alone = |value: f64| if count > 1 { value } else { 0.0 };
        Ok(Sample {
            main: each(taking.main),
            idle: each(idle.main / idle.seconds * taking.seconds),
            others: each(taking.others),
            bytes: taking.bytes / taking.seconds,
            idle_bytes,
            states: none_if_alone(each(taking.states) / peers),
            state: none_if_alone(own / taking.states),
            memory: memory(region.pid())?,
            busy: taking.busy,
        })
    }
}

impl Sample {
    /// What a round found, from its turns.
    fn median(turns: &[Sample]) -> Sample {
        Sample {
            main: median(turns, |turn| turn.main),
            idle: median(turns, |turn| turn.idle),
            others: median(turns, |turn| turn.others),
            bytes: median(turns, |turn| turn.bytes),
            idle_bytes: median(turns, |turn| turn.idle_bytes),
            states: median(turns, |turn| turn.states),
            state: median(turns, |turn| turn.state),
            memory: median(turns, |turn| turn.memory),
            busy: median(turns, |turn| turn.busy),
        }
    }
}

/// Watches the first region while tokens are taken in all of them.
fn while_taking(plan: &Plan, regions: &mut [Instance], how_long: Duration) -> Result<Watched> {
    let pace = Pace { rate: plan.rate, keys: plan.keys, tick: TICK };
    let mut conns = Vec::with_capacity(regions.len());
    for region in regions.iter() {
        conns.push(region.connect()?);
    }
    let region = first(regions)?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = &stop;
        let loads: Vec<_> = conns
            .into_iter()
            .zip(1_u64..)
            .map(|(conn, seed)| scope.spawn(move || load::run(conn, pace, seed, stop)))
            .collect();
        thread::sleep(WARM_UP);
        let watched = watch(region, how_long);
        stop.store(true, Ordering::Relaxed);
        for load in loads {
            load.join().unwrap_or_else(|_| Err(Error::new("a load panicked")))?;
        }
        watched
    })
}

/// What happened in a region.
struct Watched {
    seconds: f64,
    /// CPU time in microseconds.
    main: f64,
    others: f64,
    takes: f64,
    bytes: f64,
    states: f64,
    busy: f64,
}

fn watch(region: &mut Instance, how_long: Duration) -> Result<Watched> {
    // What the questions cost is not counted.
    let before = Counters::read(region)?;
    let pid = region.pid();
    let (cpu, machine, start) = (Cpu::read(pid)?, Machine::read()?, Instant::now());
    thread::sleep(how_long);
    let (cpu, seconds) = (Cpu::read(pid)?.since(&cpu), start.elapsed().as_secs_f64());
    let busy = Machine::read()?.busy_since(&machine);
    let after = Counters::read(region)?;
    Ok(Watched {
        seconds,
        main: cpu.main as f64 / 1_000.0,
        others: cpu.all.saturating_sub(cpu.main) as f64 / 1_000.0,
        takes: after.takes.saturating_sub(before.takes) as f64,
        bytes: after.bytes.saturating_sub(before.bytes) as f64,
        states: after.states.saturating_sub(before.states) as f64,
        busy,
    })
}

/// What a region has counted since it started.
struct Counters {
    takes: u64,
    bytes: u64,
    states: u64,
}

impl Counters {
    fn read(region: &mut Instance) -> Result<Counters> {
        Ok(Counters {
            takes: region::number(region, "taken")?,
            bytes: region::number(region, "sync_bytes_sent")?,
            states: region::number(region, "sync_states_sent")?,
        })
    }
}

/// Time of all processors since the machine started, in ticks.
struct Machine {
    all: u64,
    idle: u64,
}

impl Machine {
    fn read() -> Result<Machine> {
        let text = fs::read_to_string("/proc/stat")?;
        // user, nice, system, idle, iowait, irq, softirq, steal; the rest is in user.
        let line = text.lines().next().unwrap_or_default();
        let ticks: Vec<u64> =
            line.split_ascii_whitespace().skip(1).take(8).flat_map(str::parse).collect();
        let [_, _, _, idle, waiting, ..] = ticks.as_slice() else {
            return Err(Error::new(format!("/proc/stat begins with {line}")));
        };
        let all = ticks.iter().fold(0_u64, |sum, n| sum.saturating_add(*n));
        Ok(Machine { all, idle: idle.saturating_add(*waiting) })
    }

    fn busy_since(&self, before: &Machine) -> f64 {
        let all = self.all.saturating_sub(before.all) as f64;
        1.0 - self.idle.saturating_sub(before.idle) as f64 / all
    }
}

/// What a process has in memory, in bytes.
fn memory(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<f64> =
        line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
    Ok(kib.ok_or_else(|| Error::new(format!("/proc/{pid}/status shows no VmRSS")))? * 1_024.0)
}

fn first(regions: &mut [Instance]) -> Result<&mut Instance> {
    regions.first_mut().ok_or_else(|| Error::new("no regions"))
}

/// The slope of the line that fits some points best, by least squares; `None` if
/// they do not make a line.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let width: f64 = points.iter().map(|point| (point.0 - x) * (point.0 - x)).sum();
    let rise: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    (width > 0.0).then(|| rise / width)
}

fn report(plan: &Plan, found: &Found) -> String {
    let mut text = format!(
        "Regions that share limits, all on this machine: what the first of them pays\n\
         Each takes {} tokens/s from the same {} buckets, what is due every {} ms in one\n\
         pipeline; rounds of sync every 50 ms; {} s each, {} rounds\n",
        thousands(plan.rate as f64),
        thousands(plan.keys as f64),
        TICK.as_millis(),
        plan.seconds,
        plan.rounds
    );
    for build in plan.builds {
        // Writing to a string does not fail.
        let _ = write!(text, "\n{}", table(plan, found, build.role));
    }
    text.push_str(
        "* Medians (min..max). CPU time per take of this region, with what the others' takes\n  \
         bring and what there is while nothing is taken, which is the second column. What each\n  \
         further region adds is the slope of the best line through a round's points. One region\n  \
         alone shares nothing. The last column is the whole machine.\n",
    );
    if plan.builds.len() > 1 {
        let _ = write!(text, "\n{}", comparison(plan, found));
    }
    text
}

fn table(plan: &Plan, found: &Found, role: Role) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:14}{:>22}{:>8}{:>22}{:>12}{:>11}{:>13}{:>12}{:>10}{:>6}",
        role.title(),
        "main us/take*",
        "idle",
        "others us/take*",
        "bytes/s*",
        "idle",
        "states/take",
        "bytes/state",
        "RSS MB",
        "busy"
    );
    for count in plan.regions {
        let subject = (role, *count);
        let spread = |what: fn(&Sample) -> f64| found.samples.spread(&subject, what);
        let median = |what| spread(what).map_or(f64::NAN, |spread| spread.median);
        let _ = writeln!(
            text,
            "{:14}{:>22}{:>8.2}{:>22}{:>12}{:>11}{:>13.2}{:>12.1}{:>10.1}{:>5.0}%",
            format!("{count} regions"),
            cell(spread(|s| s.main), 2),
            median(|s| s.idle),
            cell(spread(|s| s.others), 2),
            thousands(median(|s| s.bytes)),
            thousands(median(|s| s.idle_bytes)),
            median(|s| s.states),
            median(|s| s.state),
            median(|s| s.memory) / 1_048_576.0,
            median(|s| s.busy) * 100.0,
        );
    }
    let slope = |what: fn(&Slope) -> f64| found.slopes.spread(&role, what);
    let _ = writeln!(
        text,
        "{:14}{:>22}{:>8}{:>22}{:>12}",
        "each further",
        cell(slope(|s| s.main), 2),
        "",
        cell(slope(|s| s.others), 2),
        slope(|s| s.bytes).map_or_else(|| "-".into(), |bytes| thousands(bytes.median)),
    );
    text
}

fn comparison(plan: &Plan, found: &Found) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:14}{:>22}{:>22}{:>22}{:>22}{:>22}",
        "this / other*", "main us/take", "others us/take", "bytes/s", "bytes/state", "RSS"
    );
    for count in plan.regions {
        let (tested, other) = ((Role::Tested, *count), (Role::Other, *count));
        // What there is not, alone, has no ratio.
        let ratio = |what: fn(&Sample) -> f64| {
            let there = found.samples.spread(&other, what).is_some_and(|spread| spread.min > 0.0);
            let ratio = found.samples.ratio(&tested, &other, what);
            compared(ratio.filter(|_| there))
        };
        let _ = writeln!(
            text,
            "{:14}{:>22}{:>22}{:>22}{:>22}{:>22}",
            format!("{count} regions"),
            ratio(|s| s.main),
            ratio(|s| s.others),
            ratio(|s| s.bytes),
            ratio(|s| s.state),
            ratio(|s| s.memory),
        );
    }
    let ratio =
        |what: fn(&Slope) -> f64| compared(found.slopes.ratio(&Role::Tested, &Role::Other, what));
    let _ = writeln!(
        text,
        "{:14}{:>22}{:>22}{:>22}",
        "each further",
        ratio(|s| s.main),
        ratio(|s| s.others),
        ratio(|s| s.bytes),
    );
    text.push_str(INTERVAL);
    text
}

#[cfg(test)]
mod tests {
    use super::slope;

    #[test]
    fn a_line_has_its_slope() {
        assert_eq!(slope(&[(1.0, 5.0), (2.0, 9.0), (4.0, 17.0)]), Some(4.0));
        // The best line through what is none.
        assert_eq!(slope(&[(0.0, 0.0), (1.0, 3.0), (2.0, 0.0), (3.0, 3.0)]), Some(0.6));
        assert_eq!(slope(&[(2.0, 9.0)]), None);
        assert_eq!(slope(&[]), None);
    }
}
