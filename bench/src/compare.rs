//! Two builds of the module against each other, in buckets that are not shared.
//!
//! Every round has servers of its own: where a process happens to have its memory
//! and its code makes a difference of a few per cent, which would otherwise look
//! like one of the builds. Within a round the builds take turns, a part of the requests
//! each, so that what else the machine does meets both.

use crate::builds::{Build, Role};
use crate::client::{Client, Mode};
use crate::error::Result;
use crate::options::Options;
use crate::report::thousands;
use crate::rounds::{Measured, PARTS, TURNS, check, make_keys, order, remove_keys, run};
use crate::samples::{INTERVAL, Samples, compared, median};
use crate::servers::Servers;
use crate::workload::Workload;
use std::fmt::Write;

type Found = Samples<(Role, Workload), Measured>;

/// Measures all workloads that are ours, pipelined, and prints ratios.
pub fn measure(client: &Client, options: &Options, builds: &[Build]) -> Result<String> {
    let workloads: Vec<Workload> =
        options.workloads.iter().copied().filter(|workload| workload.is_ours()).collect();
    let mut found = Found::new();
    for round in 0..=options.rounds {
        eprintln!("Two builds, round {round} of {}", options.rounds);
        let mut servers = Vec::with_capacity(builds.len());
        // The one that starts first would otherwise always have the better place.
        for build in order(builds, round) {
            let mut all = Servers::start(options, &build.module)?;
            check(&mut all, &workloads)?;
            servers.push((build.role, all));
        }
        for workload in order(&workloads, round) {
            let samples = turns(&mut servers, client, options, workload)?;
            for build in builds.iter().filter(|_| round > 0) {
                let turns = samples.all(&build.role);
                let rate = median(turns, |turn| turn.rate);
                let main = median(turns, |turn| turn.main);
                found.add((build.role, workload), Measured { rate, main });
            }
        }
    }
    Ok(table(&found, &workloads))
}

/// Measures a workload of all builds, in turns.
fn turns(
    servers: &mut [(Role, Servers)],
    client: &Client,
    options: &Options,
    workload: Workload,
) -> Result<Samples<Role, Measured>> {
    let requests = options.requests.div_ceil(PARTS);
    for (_, servers) in servers.iter_mut() {
        make_keys(servers, client, workload)?;
    }
    let mut samples = Samples::new();
    for turn in 0..TURNS {
        for (role, servers) in servers.iter_mut() {
            samples.add(*role, run(servers, client, requests, Mode::Pipelined, workload)?);
        }
        if turn.is_multiple_of(2) {
            servers.reverse();
        }
    }
    for (_, servers) in servers.iter_mut() {
        remove_keys(servers, workload)?;
    }
    Ok(samples)
}

fn table(found: &Found, workloads: &[Workload]) -> String {
    let (tested, other) = (Role::Tested.title(), Role::Other.title());
    let ratio = "this / other*";
    // Writing to a string does not fail.
    let mut text = format!("{}\n", Mode::Pipelined.title());
    let _ = writeln!(text, "{:28}{:^46}{:^46}", "", "requests/s", "main thread, ns/command");
    let _ = writeln!(
        text,
        "{:28}{tested:>12}{other:>12}{ratio:>22}{tested:>12}{other:>12}{ratio:>22}",
        ""
    );
    for workload in workloads {
        let subjects = [(Role::Tested, *workload), (Role::Other, *workload)];
        let [tested, other] = &subjects;
        let _ = write!(text, "{:28}", workload.title());
        for what in [|m: &Measured| m.rate, |m: &Measured| m.main] {
            for subject in &subjects {
                let median = found.spread(subject, what).map_or(f64::NAN, |spread| spread.median);
                let _ = write!(text, "{:>12}", thousands(median));
            }
            let _ = write!(text, "{:>22}", compared(found.ratio(tested, other, what)));
        }
        text.push('\n');
    }
    text.push_str(INTERVAL);
    text
}
