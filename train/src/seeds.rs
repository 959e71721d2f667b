//! Which seeds of scenarios are for what. With a range only one thing is done: what is measured where
//! something was chosen is flattered.

use std::ops::Range;

/// Each training seed has as many of these, and there are twenty of them.
pub const OF_A_TRAINING: u64 = 20_000;
pub const TRAININGS: u64 = 20;

/// The network of a training, the parameters of a search and what ships of several are chosen here.
pub const CHOOSING: u64 = 500_000;
/// A random search sees these.
pub const SEARCHING: u64 = 700_000;
/// Nothing is made with seeds from here on.
const JUDGING: u64 = 1_000_000;
/// Greater ones would give scenarios that smaller ones gave already.
const END: u64 = 1 << 32;

/// Seeds for the gates, of a text `FROM..TO`.
///
/// # Errors
/// When there are none, or something was made with one of them.
pub fn judging(text: &str) -> Result<Range<u64>, String> {
    let ends =
        text.split_once("..").and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    let seeds: Range<u64> =
        ends.map(|(from, to)| from..to).ok_or(format!("'{text}' is not FROM..TO"))?;
    if seeds.is_empty() {
        return Err(format!("there is no seed in {text}"));
    }
    let used = [
        (0..OF_A_TRAINING * TRAININGS, "training is done with"),
        (CHOOSING..SEARCHING, "networks are chosen on"),
        (SEARCHING..JUDGING, "the search sees"),
        (END..u64::MAX, "repeat the scenarios of smaller ones"),
    ];
    match used.into_iter().find(|(of, _)| seeds.start < of.end && of.start < seeds.end) {
        Some((of, what)) => Err(format!(
            "{text} has seeds that {what} ({} to {}): judge on others, from {JUDGING} on",
            of.start,
            of.end - 1
        )),
        None => Ok(seeds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_something_was_made_with_is_not_judged_by() {
        let table = [
            ("1000000..1000001", ""),
            ("4294967295..4294967296", ""),
            ("450000..450040", ""),
            ("5", "not FROM..TO"),
            ("5..x", "not FROM..TO"),
            ("2000000..2000000", "no seed"),
            ("0..1", "training is done with"),
            ("399999..400001", "training is done with"),
            ("400000..500001", "networks are chosen on"),
            ("699999..1000001", "networks are chosen on"),
            ("999999..1000001", "the search sees"),
            ("4294967295..4294967297", "repeat"),
            ("0..18446744073709551615", "training is done with"),
        ];
        for (text, expected) in table {
            let error = judging(text).err().unwrap_or_default();
            assert!(
                error.contains(expected) && error.is_empty() == expected.is_empty(),
                "{text}: {error}"
            );
        }
    }
}
