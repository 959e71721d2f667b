//! Tables and targets.

use crate::client::Mode;
use crate::error::Result;
use crate::samples::{Samples, Spread};
use crate::workload::Workload;
use std::fmt::Write;
use std::io::Write as _;

/// Requests per second of each workload, round by round.
#[derive(Debug)]
pub struct Rates(Samples<Workload, f64>);

/// The workloads that others are compared with.
const BASES: [(Workload, &str); 4] = [
    (Workload::Cell, "/ redis-cell"),
    (Workload::Lua, "/ Lua"),
    (Workload::Hset, "/ HSET"),
    (Workload::Ping, "/ PING"),
];

/// What we want to be, pipelined: one workload, at least so many times as fast
/// as another one.
const TARGETS: [(Workload, f64, Workload); 8] = [
    (Workload::Policy, 1.25, Workload::Cell),
    (Workload::Policy, 3.3, Workload::Lua),
    (Workload::Rule, 1.5, Workload::Cell),
    (Workload::Take, 1.3, Workload::Cell),
    (Workload::Take, 4.0, Workload::Lua),
    (Workload::Take, 0.65, Workload::Hset),
    (Workload::MergeFields, 0.5, Workload::Take),
    (Workload::MergeFunction, 0.4, Workload::Function),
];

const TITLE_WIDTH: usize = 28;
const RATE_WIDTH: usize = 12;
const RATIO_WIDTH: usize = 22;

impl Rates {
    /// Nothing yet.
    pub fn new() -> Rates {
        Rates(Samples::new())
    }

    /// Adds what one round measured.
    pub fn add(&mut self, workload: Workload, rate: f64) {
        self.0.add(workload, rate);
    }

    fn rate(&self, workload: Workload) -> Option<Spread> {
        self.0.spread(&workload, |rate| *rate)
    }

    fn ratio(&self, of: Workload, to: Workload) -> Option<Spread> {
        self.0.ratio(&of, &to, |rate| *rate)
    }

    /// The table of a mode.
    pub fn table(&self, mode: Mode) -> String {
        let bases: Vec<_> =
            BASES.into_iter().filter(|(base, _)| self.rate(*base).is_some()).collect();
        let mut text = format!("{}\n", mode.title());
        // Writing to a string does not fail.
        let _ = write!(text, "{:TITLE_WIDTH$}{:>RATE_WIDTH$}", "", "requests/s*");
        for (_, title) in &bases {
            let _ = write!(text, "{title:>RATIO_WIDTH$}");
        }
        text.push('\n');
        let mut group = None;
        for workload in Workload::ALL {
            let Some(rate) = self.rate(workload) else {
                continue;
            };
            if group.replace(workload.group()) != Some(workload.group()) {
                let _ = writeln!(text, "{}:", workload.group().title());
            }
            let rate = thousands(rate.median);
            let _ = write!(text, "{:TITLE_WIDTH$}{rate:>RATE_WIDTH$}", workload.title());
            for (base, _) in &bases {
                let ratio = match self.ratio(workload, *base) {
                    Some(ratio) if workload != *base => ratio.short(),
                    _ => "1".into(),
                };
                let _ = write!(text, "{ratio:>RATIO_WIDTH$}");
            }
            text.push('\n');
        }
        text
    }

    /// A line for every target.
    pub fn targets(&self) -> String {
        let mut text = String::from("Targets, pipelined\n");
        for (of, at_least, to) in TARGETS {
            let (left, right) = (of.title(), to.title());
            let _ = match self.ratio(of, to) {
                None => writeln!(text, "{left} / {right}: not measured"),
                Some(Spread { median, min, max, .. }) => writeln!(
                    text,
                    "{left} / {right} {median:.2} (min {min:.2}, max {max:.2}), \
                     at least {at_least}: {}",
                    verdict(median >= at_least)
                ),
            };
        }
        text
    }
}

/// The last word on a target.
pub fn verdict(reached: bool) -> &'static str {
    if reached { "reached" } else { "MISSED" }
}

/// `1234567.8` as `1,234,568`.
pub fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && digits.len().saturating_sub(index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Prints, and does not panic when nobody reads.
pub fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_of_ratios() {
        let mut rates = Rates::new();
        for (take, lua) in [(4.0, 1.0), (9.0, 3.0), (100.0, 20.0)] {
            rates.add(Workload::Take, take);
            rates.add(Workload::Lua, lua);
        }
        let targets = rates.targets();
        assert!(targets.contains(
            "CL.TAKE / Lua token bucket 4.00 (min 3.00, max 5.00), at least 4: reached\n"
        ));
        assert!(targets.contains("CL.TAKE, rule / redis-cell CL.THROTTLE: not measured\n"));
    }

    #[test]
    fn thousands_are_set_apart() {
        let texts = [999.4, 1_000.0, 1_234_567.8].map(thousands);
        assert_eq!(texts, ["999", "1,000", "1,234,568"]);
    }
}
