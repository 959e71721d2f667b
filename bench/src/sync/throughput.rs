//! CL.TAKE without sync, with a peer that gets everything, and with a peer that
//! is down.

use super::places::Places;
use super::region;
use crate::client::{Client, Mode};
use crate::error::{Error, Result};
use crate::options::Options;
use crate::report::{Spread, thousands, verdict};
use crate::rounds::{Calls, PASSES, order};
use crate::servers::Instance;
use crate::workload::{KEYS, Workload};
use std::fmt::Write;
use std::fs;

/// What sync has to leave of the throughput.
const TARGET: f64 = 0.7;

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

/// The servers of a run.
struct Field {
    alone: Instance,
    connected: Instance,
    peer: Instance,
    down: Instance,
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

/// What all rounds measured, round by round.
#[derive(Debug, Default)]
struct Samples(Vec<(Setup, Vec<Sample>)>);

/// Measures both modes and prints tables.
pub fn measure(client: &Client, options: &Options) -> Result<String> {
    let places = Places::take()?;
    let mut pair = region::mesh(2)?.into_iter();
    let (Some(connected), Some(peer)) = (pair.next(), pair.next()) else {
        return Err(Error::new("no pair of regions"));
    };
    let priority = match region::yield_cores(&peer) {
        true => "the lowest priority (SCHED_IDLE)",
        false => "normal priority, for chrt did not work",
    };
    let alone = Instance::start(claw_testkit::Server::builder())?;
    let mut field = Field { alone, connected, peer, down: region::cut_off()? };
    let apart = match &places {
        None => "All share the processors.",
        Some(places) => {
            for setup in Setup::ALL {
                places.set_apart(field.of(setup).pid())?;
            }
            "The main threads that are measured share no processor with it, nor with the\n\
             client or the threads that send."
        }
    };

    let mut text = format!(
        "CL.TAKE with and without region sync\n\
         The peer runs on the same machine, at {priority}.\n{apart}\n"
    );
    let mut targets = String::from("\nTargets, one peer / no sync\n");
    for mode in Mode::ALL {
        let mut samples = Samples::default();
        for round in 0..=options.rounds {
            eprintln!("Region sync, {}, round {round} of {}", mode.title(), options.rounds);
            for setup in order(&Setup::ALL, round) {
                let sample = field.measure(setup, client, mode, mode.requests(options.requests))?;
                if round > 0 {
                    samples.add(setup, sample);
                }
            }
        }
        // Writing to a string does not fail.
        let _ = write!(text, "\n{}", samples.table(mode));
        let _ = writeln!(targets, "{}: {}", mode.title(), samples.target());
    }
    text.push_str(
        "* Medians. CPU time is that of the server's main thread, and of all its threads, per\n  \
         command. Ratios are taken in each round: the median (min..max) of them.\n",
    );
    text.push_str(&targets);
    Ok(text)
}

impl Field {
    fn of(&mut self, setup: Setup) -> &mut Instance {
        match setup {
            Setup::Alone => &mut self.alone,
            Setup::Connected => &mut self.connected,
            Setup::Down => &mut self.down,
        }
    }

    /// Starts with the keys in place, and with the peer knowing all of them.
    /// Leaves nothing behind, neither keys nor work for the peer.
    fn measure(
        &mut self,
        setup: Setup,
        client: &Client,
        mode: Mode,
        requests: u64,
    ) -> Result<Sample> {
        let take = || Workload::Take.template("");
        let socket = self.of(setup).socket();
        client.measure(&socket, Mode::Pipelined, KEYS.saturating_mul(PASSES), take())?;
        self.settle(setup)?;

        let instance = self.of(setup);
        let sent = region::number(instance, "sync_states_sent")?;
        let before = Calls::read(instance, Workload::Take)?;
        let cpu = Cpu::read(instance.pid())?;
        let rate = client.measure(&socket, mode, requests, take())?;
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
        if setup == Setup::Connected {
            let [here, there] = [&mut self.connected, &mut self.peer]
                .map(|server| redis::cmd("DBSIZE").query::<u64>(&mut server.conn));
            let (here, there) = (here?, there?);
            // Some may expire between the two questions.
            if there < here.saturating_sub(here / 100) {
                return Err(Error::new(format!("the peer has {there} of {here} buckets")));
            }
        }
        for server in [&mut self.alone, &mut self.connected, &mut self.peer, &mut self.down] {
            redis::cmd("FLUSHALL").query::<()>(&mut server.conn)?;
        }
        let calls = requests as f64;
        Ok(Sample {
            rate,
            main: cpu.main as f64 / calls / 1_000.0,
            all: cpu.all as f64 / calls / 1_000.0,
            sent: sent as f64 / calls,
        })
    }

    /// Waits until the peer knows everything.
    fn settle(&mut self, setup: Setup) -> Result<()> {
        if setup == Setup::Connected {
            region::drained(&mut self.connected)?;
            region::drained(&mut self.peer)?;
        }
        Ok(())
    }
}

/// CPU time of a process, in nanoseconds.
struct Cpu {
    main: u64,
    all: u64,
}

impl Cpu {
    fn read(pid: u32) -> Result<Cpu> {
        let main = on_core(&format!("/proc/{pid}/task/{pid}"))?;
        let mut all = 0_u64;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            all = all.saturating_add(on_core(&task?.path().to_string_lossy())?);
        }
        Ok(Cpu { main, all })
    }

    fn since(&self, before: &Cpu) -> Cpu {
        let main = self.main.saturating_sub(before.main);
        Cpu { main, all: self.all.saturating_sub(before.all) }
    }
}

/// How long a thread has been on a core: the first number of its `schedstat`.
/// Unlike `utime` and `stime` it is not rounded to hundredths of a second.
fn on_core(task: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("{task}/schedstat"))?;
    let first = text.split(' ').next().and_then(|number| number.parse().ok());
    first.ok_or_else(|| Error::new(format!("{task}/schedstat is {text}")))
}

impl Samples {
    fn add(&mut self, setup: Setup, sample: Sample) {
        match self.0.iter_mut().find(|(s, _)| *s == setup) {
            Some((_, samples)) => samples.push(sample),
            None => self.0.push((setup, vec![sample])),
        }
    }

    fn of(&self, setup: Setup, what: fn(&Sample) -> f64) -> Vec<f64> {
        let samples = self.0.iter().find(|(s, _)| *s == setup);
        samples.map_or_else(Vec::new, |(_, samples)| samples.iter().map(what).collect())
    }

    /// Only samples of the same round are compared.
    fn ratio(&self, setup: Setup, what: fn(&Sample) -> f64) -> Option<Spread> {
        let base = self.of(Setup::Alone, what);
        Spread::of(self.of(setup, what).iter().zip(&base).map(|(a, b)| a / b).collect())
    }

    fn table(&self, mode: Mode) -> String {
        let mut text = format!("{}\n", mode.title());
        let _ = writeln!(
            text,
            "{:16}{:>12}{:>20}{:>10}{:>20}{:>10}{:>20}{:>13}",
            "",
            "requests/s*",
            "/ no sync",
            "main us*",
            "/ no sync",
            "all us*",
            "/ no sync",
            "states/take*"
        );
        for setup in Setup::ALL {
            let median = |what| Spread::of(self.of(setup, what)).map_or(0.0, |s| s.median);
            let ratio = |what| match self.ratio(setup, what) {
                Some(ratio) if setup != Setup::Alone => ratio.short(),
                _ => "1".into(),
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

    fn target(&self) -> String {
        match self.ratio(Setup::Connected, |sample| sample.rate) {
            None => "not measured".into(),
            Some(Spread { median, min, max }) => format!(
                "{median:.2} (min {min:.2}, max {max:.2}), at least {TARGET}: {}",
                verdict(median >= TARGET)
            ),
        }
    }
}
