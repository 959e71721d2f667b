//! CL.TAKE without sync, with a peer that gets everything, and with a peer that
//! is down.

use super::places::Places;
use super::plan::Plan;
use super::region;
use crate::builds::Role;
use crate::client::{Client, Mode};
use crate::cpu::Cpu;
use crate::error::{Error, Result};
use crate::report::{thousands, verdict};
use crate::rounds::{Calls, PARTS, PASSES, TURNS, order};
use crate::samples::{INTERVAL, Samples, Spread, cell, compared, median};
use crate::servers::Instance;
use crate::workload::{KEYS, Workload};
use claw_testkit::Server;
use std::fmt::Write;
use std::path::Path;

/// What sync has to leave of the throughput.
const TARGET: f64 = 0.75;

/// Below the tables.
const NOTES: &str = "\
* Medians. CPU time is that of the server's main thread, and of all its threads, per
  command. Ratios are taken in each round: the median (min..max) of them.
";

/// What is measured against each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setup {
    /// No sync.
    Alone,
    /// A region with one peer, which gets everything.
    Connected,
    /// A region whose only peer is down: what it costs to note what changed.
    Down,
}

impl Setup {
    const ALL: [Setup; 3] = [Setup::Alone, Setup::Connected, Setup::Down];

    fn title(self) -> &'static str {
        match self {
            Setup::Alone => "no sync",
            Setup::Connected => "one peer",
            Setup::Down => "one peer, down",
        }
    }
}

/// The servers of a build in one round.
struct Field {
    alone: Instance,
    connected: Instance,
    peer: Instance,
    down: Instance,
    /// Whether the peer runs only when nobody else wants a core.
    peer_yields: bool,
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Requests per second.
    rate: f64,
    /// CPU time of the server's main thread per command, in microseconds.
    main: f64,
    /// The same of all its threads.
    all: f64,
    /// States sent per command.
    sent: f64,
}

impl Sample {
    /// What a round found, from its turns.
    fn median(turns: &[Sample]) -> Sample {
        Sample {
            rate: median(turns, |turn| turn.rate),
            main: median(turns, |turn| turn.main),
            all: median(turns, |turn| turn.all),
            sent: median(turns, |turn| turn.sent),
        }
    }
}

/// What all rounds measured of all builds.
type Found = Samples<(Role, Setup), Sample>;

/// Measures both modes and prints tables; two builds are compared in the pipelined
/// one, and only there.
pub fn measure(client: &Client, plan: &Plan) -> Result<String> {
    let places = Places::take()?;
    let compares = plan.builds.len() > 1;
    let modes = if compares { &[Mode::Pipelined] } else { Mode::ALL.as_slice() };
    let mut tables = String::new();
    let mut targets = String::from("\nTargets, one peer / no sync\n");
    let mut yields = true;
    for mode in modes {
        let mut found = Found::new();
        for round in 0..=plan.rounds {
            eprintln!("Region sync, {}, round {round} of {}", mode.title(), plan.rounds);
            // Servers of its own: where a process happens to have its memory makes a
            // difference of a few per cent.
            let mut fields = Vec::with_capacity(plan.builds.len());
            for build in order(plan.builds, round) {
                let field = Field::start(&build.module, places.as_ref())?;
                yields &= field.peer_yields;
                fields.push((build.role, field));
            }
            for setup in order(&Setup::ALL, round) {
                let samples = turns(&mut fields, setup, client, *mode, plan)?;
                if round > 0 {
                    samples.into_iter().for_each(|(role, sample)| found.add((role, setup), sample));
                }
            }
        }
        // Writing to a string does not fail.
        let _ = writeln!(tables, "\n{}", mode.title());
        for build in plan.builds {
            tables.push_str(&table(&found, build.role));
        }
        if compares {
            tables.push_str(&comparison(&found));
        }
        let _ = writeln!(targets, "{}: {}", mode.title(), target(&found));
    }
    Ok(format!("{}{tables}{NOTES}{targets}", heading(yields, places.is_some())))
}

/// Measures a setup of all builds. Two that are compared take turns, and what is found
/// is the median of those.
fn turns(
    fields: &mut [(Role, Field)],
    setup: Setup,
    client: &Client,
    mode: Mode,
    plan: &Plan,
) -> Result<Vec<(Role, Sample)>> {
    let requests = mode.requests(plan.requests);
    let (turns, requests) = match fields.len() {
        1 => (1, requests),
        _ => (TURNS, requests.div_ceil(PARTS)),
    };
    for (_, field) in fields.iter_mut() {
        field.make_keys(setup, client)?;
    }
    let mut samples = Samples::new();
    for turn in 0..turns {
        for (role, field) in fields.iter_mut() {
            samples.add(*role, field.measure(setup, client, mode, requests)?);
        }
        if turn.is_multiple_of(2) {
            fields.reverse();
        }
    }
    for (_, field) in fields.iter_mut() {
        field.remove_keys()?;
    }
    Ok(plan.builds.iter().map(|b| (b.role, Sample::median(samples.all(&b.role)))).collect())
}

/// Where everything runs.
fn heading(peers_yield: bool, apart: bool) -> String {
    let priority = match peers_yield {
        true => "the lowest priority (SCHED_IDLE)",
        false => "normal priority, for chrt did not work",
    };
    let apart = match apart {
        false => "All share the processors.",
        true => {
            "The main threads that are measured share no processor with it, nor with the\n\
             client or the threads that send."
        }
    };
    format!(
        "CL.TAKE with and without region sync\n\
         The peer runs on the same machine, at {priority}.\n{apart}\n"
    )
}

impl Field {
    fn start(module: &Path, places: Option<&Places>) -> Result<Field> {
        let mut pair = region::mesh(2, module)?.into_iter();
        let (Some(connected), Some(peer)) = (pair.next(), pair.next()) else {
            return Err(Error::new("no pair of regions"));
        };
        let peer_yields = region::yield_cores(&peer);
        let alone = Instance::start(Server::builder(), module)?;
        let down = region::cut_off(module)?;
        let mut field = Field { alone, connected, peer, down, peer_yields };
        if let Some(places) = places {
            for setup in Setup::ALL {
                places.set_apart(field.of(setup).pid())?;
            }
        }
        Ok(field)
    }

    fn of(&mut self, setup: Setup) -> &mut Instance {
        match setup {
            Setup::Alone => &mut self.alone,
            Setup::Connected => &mut self.connected,
            Setup::Down => &mut self.down,
        }
    }

    /// Puts the keys in place and has the peer know all of them.
    fn make_keys(&mut self, setup: Setup, client: &Client) -> Result<()> {
        let (socket, requests) = (self.of(setup).socket(), KEYS.saturating_mul(PASSES));
        client.measure(&socket, Mode::Pipelined, requests, Workload::Take.template(""))?;
        self.settle(setup)
    }

    /// Leaves no work for the peer.
    fn measure(
        &mut self,
        setup: Setup,
        client: &Client,
        mode: Mode,
        requests: u64,
    ) -> Result<Sample> {
        let instance = self.of(setup);
        let sent = region::number(instance, "sync_states_sent")?;
        let before = Calls::read(instance, Workload::Take)?;
        let cpu = Cpu::read(instance.pid())?;
        let socket = instance.socket();
        let rate = client.measure(&socket, mode, requests, Workload::Take.template(""))?;
        let cpu = Cpu::read(instance.pid())?.since(&cpu);
        let after = Calls::read(instance, Workload::Take)?;
        let sent = region::number(instance, "sync_states_sent")?.saturating_sub(sent);
        after.check(&before, Workload::Take, requests)?;
        for number in ["sync_overruns", "sync_states_refused"] {
            if region::number(instance, number)? > 0 {
                return Err(Error::new(format!("{}: there are {number}", setup.title())));
            }
        }
        self.settle(setup)?;
        let calls = requests as f64;
        Ok(Sample {
            rate,
            main: cpu.main as f64 / calls / 1_000.0,
            all: cpu.all as f64 / calls / 1_000.0,
            sent: sent as f64 / calls,
        })
    }

    /// Leaves no key behind.
    fn remove_keys(&mut self) -> Result<()> {
        for server in [&mut self.alone, &mut self.connected, &mut self.peer, &mut self.down] {
            redis::cmd("FLUSHALL").query::<()>(&mut server.conn)?;
        }
        Ok(())
    }

    /// Waits until the peer knows everything, which is not to say that it has all keys: of a
    /// bucket that is full again by then it makes none.
    fn settle(&mut self, setup: Setup) -> Result<()> {
        if setup == Setup::Connected {
            region::drained(&mut self.connected)?;
            region::drained(&mut self.peer)?;
            let sent = region::number(&mut self.connected, "sync_states_sent")?;
            let received = region::number(&mut self.peer, "sync_states_received")?;
            if received != sent {
                return Err(Error::new(format!("the peer has {received} of {sent} states")));
            }
        }
        Ok(())
    }
}

/// Setups are compared with the server that is no region.
fn table(found: &Found, role: Role) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:16}{:>12}{:>20}{:>10}{:>20}{:>10}{:>20}{:>13}",
        role.title(),
        "requests/s*",
        "/ no sync",
        "main us*",
        "/ no sync",
        "all us*",
        "/ no sync",
        "states/take*"
    );
    for setup in Setup::ALL {
        let subject = (role, setup);
        let median = |what: fn(&Sample) -> f64| {
            found.spread(&subject, what).map_or(f64::NAN, |spread| spread.median)
        };
        let ratio = |what: fn(&Sample) -> f64| match setup {
            Setup::Alone => "1".into(),
            _ => cell(found.ratio(&subject, &(role, Setup::Alone), what), 2),
        };
        let _ = writeln!(
            text,
            "{:16}{:>12}{:>20}{:>10.2}{:>20}{:>10.2}{:>20}{:>13.2}",
            setup.title(),
            thousands(median(|s| s.rate)),
            ratio(|s| s.rate),
            median(|s| s.main),
            ratio(|s| s.main),
            median(|s| s.all),
            ratio(|s| s.all),
            median(|s| s.sent),
        );
    }
    text
}

/// Every setup of one build with that of the other.
fn comparison(found: &Found) -> String {
    let mut text = format!(
        "{:16}{:>22}{:>22}{:>22}{:>22}\n",
        "this / other*", "requests/s", "main us", "all us", "states/take"
    );
    for setup in Setup::ALL {
        let ratio = |what: fn(&Sample) -> f64| {
            // Nothing is sent where nobody is there.
            let (tested, other) = ((Role::Tested, setup), (Role::Other, setup));
            let there = found.spread(&other, what).is_some_and(|spread| spread.min > 0.0);
            compared(found.ratio(&tested, &other, what).filter(|_| there))
        };
        let _ = writeln!(
            text,
            "{:16}{:>22}{:>22}{:>22}{:>22}",
            setup.title(),
            ratio(|s| s.rate),
            ratio(|s| s.main),
            ratio(|s| s.all),
            ratio(|s| s.sent),
        );
    }
    text.push_str(INTERVAL);
    text
}

fn target(found: &Found) -> String {
    let (of, to) = ((Role::Tested, Setup::Connected), (Role::Tested, Setup::Alone));
    match found.ratio(&of, &to, |sample| sample.rate) {
        None => "not measured".into(),
        Some(Spread { median, min, max, .. }) => format!(
            "{median:.2} (min {min:.2}, max {max:.2}), at least {TARGET}: {}",
            verdict(median >= TARGET)
        ),
    }
}
