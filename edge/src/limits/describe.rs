//! Limits as they were understood, for people.

use std::fmt;

use claw_core::decimal::Decimal;
use claw_core::policy::Policy;

use super::adaptive::Settings;
use super::descriptors::{End, Node};
use super::rule::{Cost, Part, Pattern, Rule};
use super::{Limits, Mode, OnFault};

/// What becomes of the fixed windows of `envoyproxy/ratelimit`.
const WINDOWS: &str = "\
A limit of n in each unit was a fixed window, and is a bucket here: n tokens, and n more in each
unit, bit by bit. As before, n requests may come at once. Where two windows met, 2n could; that
is over. But tokens come back while others are taken, so in the unit after a rest up to 2n pass
in all, n of them evenly spread. And a refused request is not counted.
";

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for rule in &self.rules {
            writeln!(f, "{rule}")?;
        }
        let mut domains: Vec<_> = self.domains.iter().collect();
        domains.sort_by_key(|(name, _)| *name);
        for (name, domain) in &domains {
            node(f, name, &domain.root)?;
        }
        if domains.is_empty() { Ok(()) } else { write!(f, "\n{WINDOWS}") }
    }
}

/// What is at and below a place in a tree.
fn node(out: &mut fmt::Formatter<'_>, path: &str, at: &Node) -> fmt::Result {
    match &at.end {
        None => {}
        Some(End::Unlimited(replaces)) => {
            write!(out, "{path}: unlimited")?;
            list(out, "; replaces ", replaces)?;
            writeln!(out)?;
        }
        Some(End::Leaf(leaf)) => {
            let unit = leaf.shown.unit().name();
            write!(out, "{path}: {} in each {unit}", leaf.shown.requests_per_unit)?;
            for (is_set, text) in [
                (leaf.is_shadow, "; shadow"),
                (leaf.is_quota, "; quota"),
                (at.share_threshold, "; one bucket for all that fit"),
            ] {
                out.write_str(if is_set { text } else { "" })?;
            }
            if !leaf.shown.name.is_empty() {
                write!(out, "; named {}", leaf.shown.name)?;
            }
            list(out, "; replaces ", &leaf.replaces)?;
            writeln!(out)?;
        }
    }
    at.children.iter().try_for_each(|(name, child)| node(out, &format!("{path}.{name}"), child))
}

/// A list, if there is something in it.
fn list<T: fmt::Display>(out: &mut fmt::Formatter<'_>, before: &str, values: &[T]) -> fmt::Result {
    for (index, value) in values.iter().enumerate() {
        write!(out, "{}{value}", if index == 0 { before } else { ", " })?;
    }
    Ok(())
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = &self.limit;
        write!(f, "{}: ", limit.name)?;
        match limit.policy {
            Some(sent) => policy(f, sent)?,
            None => f.write_str("as the server says")?,
        }
        list(f, "; for each ", &self.parts)?;
        let when = &self.when;
        let routes: Vec<String> =
            when.routes.iter().map(|route| format!("{route:?}").to_lowercase()).collect();
        list(f, "; over ", &routes)?;
        list(f, "; methods ", &when.methods)?;
        list(f, "; paths ", &when.paths)?;
        list(f, "; hosts ", &when.hosts)?;
        for (name, pattern) in &when.headers {
            write!(f, "; header {name}: {pattern}")?;
        }
        match &self.cost {
            Cost::Fixed(1) => {}
            Cost::Fixed(tokens) => write!(f, "; costs {tokens}")?,
            Cost::Said { by, absent, most } => {
                write!(f, "; costs what {by} says, {most} at the most, {absent} if it is absent")?;
            }
        }
        if limit.keep > 0 {
            write!(f, "; keeps {}", limit.keep)?;
        }
        f.write_str(match limit.mode {
            Mode::Enforced => "",
            Mode::Shadow => "; shadow",
            Mode::Quota => "; quota",
        })?;
        f.write_str(match limit.on_fault {
            OnFault::Open | OnFault::LeftToCaller => "",
            OnFault::Closed => "; fails closed",
        })?;
        let Some(adaptive) = &limit.adaptive else { return Ok(()) };
        let Settings { mode, profile, bounds, .. } = &adaptive.settings;
        let rate = |micros| Decimal::new(micros);
        let (min, max) = (rate(bounds.min_micros), rate(bounds.max_micros));
        write!(f, "; adaptive {} {}, {min} to {max} in each second", profile.text(), mode.text())
    }
}

fn policy(f: &mut fmt::Formatter<'_>, policy: Policy) -> fmt::Result {
    let refill = Decimal::new(policy.refill());
    write!(f, "{} tokens, {refill} more in each ", policy.capacity())?;
    let ms = policy.interval_ms();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    match units.iter().find_map(|(unit, name)| {
        (ms.checked_rem(*unit) == Some(0)).then_some((ms.checked_div(*unit)?, *name))
    }) {
        Some((number, name)) => write!(f, "{number}{name}"),
        None => write!(f, "{ms}ms"),
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => f.write_str("user"),
            Self::Client => f.write_str("client"),
            Self::Method => f.write_str("method"),
            Self::Host => f.write_str("host"),
            Self::Path => f.write_str("path"),
            Self::Segments(count) => write!(f, "first {count} segments of the path"),
            Self::Header(name) => write!(f, "header {name}"),
            Self::Json(path) => write!(f, "JSON field {path}"),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        f.write_str(if self.is_prefix { "*" } else { "" })
    }
}
