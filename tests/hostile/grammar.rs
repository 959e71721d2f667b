//! What a call may look like, and what its answer must look like: the contract
//! written down a second time, without a look at the module.

use std::collections::HashMap;

use crate::resp::Reply;

pub const MAX_TOKENS: u64 = 1_000_000_000_000;
pub const MAX_INTERVAL_MS: u64 = 31_622_400_000;
pub const MAX_VERSION: u64 = 1 << 62;
const MAX_PERIOD_S: u64 = 31_622_400;
/// No bucket owes more.
const MAX_DEBT: u64 = 9_000_000_000_000;
/// An error is one line, and quotes no more than the beginning of a long value.
const LONGEST_ERROR: usize = 1_000;
const QUOTED: usize = 64;

/// What the answer to a call has to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// An error, and nothing is changed.
    Refused,
    Take {
        demand: Demand,
        /// The call brings a policy.
        policy: bool,
    },
    Give {
        tokens: u64,
    },
    Settle {
        reserved: u64,
        used: u64,
        /// The call brings a policy.
        policy: bool,
    },
    /// `torn`: a key is given two policies, which is an error.
    All {
        demands: Vec<Demand>,
        torn: bool,
    },
    Policy,
    Throttle {
        quantity: i64,
    },
}

/// What is wanted of a bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    tokens: u64,
    /// Less will do.
    partial: bool,
    /// So many have to be left.
    keep: u64,
}

/// Digits and nothing else.
pub fn digits(text: &[u8], min: u64, max: u64) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let zeros = text.iter().take_while(|digit| **digit == b'0').count();
    let digits = match std::str::from_utf8(&text[zeros..]) {
        Ok("") => "0",
        Ok(digits) => digits,
        Err(_) => return None,
    };
    digits.parse().ok().filter(|value| (min..=max).contains(value))
}

/// The digits before and behind the point of any number, when no exponent moves it.
fn plain(text: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(text).ok()?;
    let (number, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let size = exponent.strip_prefix(['+', '-']).unwrap_or(exponent).as_bytes();
    // Further than any of these texts reaches.
    let most = number.len() + 100;
    let size = match digits(size, 0, u64::MAX) {
        Some(size) => usize::try_from(size).ok()?.min(most),
        None if !size.is_empty() && size.iter().all(u8::is_ascii_digit) => most,
        None => return None,
    };
    let (whole, places) = number.split_once('.').unwrap_or((number, "0"));
    let all = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !all(whole) || !all(places) {
        return None;
    }
    let (before, behind) = match exponent.starts_with('-') {
        true => (size, 0),
        false => (0, size),
    };
    let moved = format!("{}{whole}{places}{}", "0".repeat(before), "0".repeat(behind));
    let (whole, places) = moved.split_at(whole.len() + behind);
    Some((whole.to_owned(), places.to_owned()))
}

/// A whole number, in any form.
pub fn number(text: &[u8], min: u64, max: u64) -> Option<u64> {
    let (whole, places) = plain(text)?;
    let whole = digits(whole.as_bytes(), min, max)?;
    places.bytes().all(|place| place == b'0').then_some(whole)
}

/// An amount in millionths, the nearest; of two the greater.
pub fn decimal(text: &[u8]) -> Option<u64> {
    decimal_up_to(text, MAX_TOKENS)
}

/// The same, with or without a sign.
pub fn signed(text: &[u8]) -> Option<i64> {
    match text.strip_prefix(b"-") {
        Some(owed) => Some(-(decimal_up_to(owed, MAX_DEBT)? as i64)),
        None => Some(decimal(text)? as i64),
    }
}

fn decimal_up_to(text: &[u8], most: u64) -> Option<u64> {
    let (whole, places) = plain(text)?;
    let places = format!("{places:0<7}");
    let up = u64::from(places.as_bytes()[6] >= b'5');
    let micros = format!("{whole}{}", &places[..6]);
    digits(micros.as_bytes(), 0, most * 1_000_000)
        .map(|micros| micros + up)
        .filter(|micros| *micros <= most * 1_000_000)
}

/// A refill: an amount that is not rounded to 0.
pub fn refill(text: &[u8]) -> Option<u64> {
    decimal(text).filter(|micros| *micros > 0 || number(text, 0, 0).is_some())
}

/// What the answer to these arguments has to be; the first is the command.
pub fn shape(args: &[Vec<u8>]) -> Shape {
    let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
    accepted(&args).unwrap_or(Shape::Refused)
}

/// The keys of a call, if it is one.
pub fn keys(args: &[Vec<u8>]) -> Vec<&[u8]> {
    let rest: Vec<&[u8]> = args[1..].iter().map(Vec::as_slice).collect();
    if !args[0].eq_ignore_ascii_case(b"CL.TAKEALL") {
        return rest.into_iter().take(1).collect();
    }
    groups(&rest).into_iter().filter_map(|group| group.first().copied()).collect()
}

/// What stands between the words `AND`. The first of each group is a key, whatever it says.
fn groups<'a, 'b>(mut rest: &'b [&'a [u8]]) -> Vec<&'b [&'a [u8]]> {
    let mut groups = Vec::new();
    loop {
        let and = |word: &&[u8]| word.eq_ignore_ascii_case(b"AND");
        let next = rest.iter().skip(1).position(and).map(|place| place + 1);
        match next {
            Some(at) if !rest.is_empty() => {
                groups.push(&rest[..at]);
                rest = &rest[at + 1..];
            }
            _ => {
                groups.push(rest);
                return groups;
            }
        }
    }
}

/// Whether a command may be called where only reading is allowed.
pub fn reads_only(args: &[Vec<u8>]) -> bool {
    args[0].eq_ignore_ascii_case(b"CL.PEEK")
}

fn accepted(args: &[&[u8]]) -> Option<Shape> {
    let name = args[0].to_ascii_uppercase();
    match name.as_slice() {
        b"CL.TAKE" => take(args, &["CAPACITY", "REFILL", "INTERVAL", "PARTIAL", "KEEP"]),
        b"CL.PEEK" => take(args, &["CAPACITY", "REFILL", "INTERVAL"]),
        b"CL.SETTLE" => {
            let reserved = number(args.get(2)?, 0, MAX_TOKENS)?;
            let used = number(args.get(3)?, 0, MAX_TOKENS)?;
            let given = options(&args[4..], &["CAPACITY", "REFILL", "INTERVAL"])?;
            let policy = policy_of(&given)?.is_some();
            Some(Shape::Settle { reserved, used, policy })
        }
        b"CL.GIVE" => match args.get(1..)? {
            [_] => Some(Shape::Give { tokens: 1 }),
            [_, tokens] => Some(Shape::Give { tokens: number(tokens, 0, MAX_TOKENS)? }),
            _ => None,
        },
        b"CL.POLICY" => {
            args.get(1)?;
            if let [reset] = args[2..]
                && reset.eq_ignore_ascii_case(b"RESET")
            {
                return Some(Shape::Policy);
            }
            options(&args[2..], &["CAPACITY", "REFILL", "INTERVAL", "WEIGHT"])?;
            // It may change one part of a policy.
            Some(Shape::Policy)
        }
        b"CL.THROTTLE" => throttle(args),
        b"CL.TAKEALL" => take_all(args),
        _ => None,
    }
}

fn is_option(word: &[u8]) -> bool {
    ["CAPACITY", "REFILL", "INTERVAL", "PARTIAL", "KEEP", "WEIGHT", "FOR", "RESET"]
        .iter()
        .any(|option| word.eq_ignore_ascii_case(option.as_bytes()))
}

fn take(args: &[&[u8]], allowed: &[&str]) -> Option<Shape> {
    let (demand, policy) = wanted(args.get(1..)?, allowed)?;
    Some(Shape::Take { demand, policy: policy.is_some() })
}

/// Capacity, refill and interval.
type Policy = [u64; 3];

/// What a key, tokens and options ask for.
fn wanted(group: &[&[u8]], allowed: &[&str]) -> Option<(Demand, Option<Policy>)> {
    let mut rest = group.get(1..)?;
    let mut tokens = 1;
    if let Some(first) = rest.first().filter(|first| !is_option(first)) {
        tokens = number(first, 0, MAX_TOKENS)?;
        rest = &rest[1..];
    }
    let given = options(rest, allowed)?;
    let value = |option| given.iter().find(|(name, _)| *name == option).map(|(_, value)| *value);
    let partial = value("PARTIAL").is_some();
    let keep = value("KEEP").unwrap_or(0);
    Some((Demand { tokens, partial, keep }, policy_of(&given)?))
}

/// The policy that a call brings: a whole one or none. What never refills does not say how much
/// it holds.
fn policy_of(given: &[(&str, u64)]) -> Option<Option<Policy>> {
    let value = |option| given.iter().find(|(name, _)| *name == option).map(|(_, value)| *value);
    match (value("CAPACITY"), value("REFILL"), value("INTERVAL").unwrap_or(1_000)) {
        (None, None, _) => Some(None),
        (Some(_), None, _) | (None, Some(0), _) => None,
        (capacity, Some(refill), interval) => {
            Some(Some([capacity.unwrap_or(refill.div_ceil(1_000_000)), refill, interval]))
        }
    }
}

/// The options with their values; `None` if they are no options.
fn options<'a>(mut rest: &[&[u8]], allowed: &[&'a str]) -> Option<Vec<(&'a str, u64)>> {
    let mut given: Vec<(&str, u64)> = Vec::new();
    while let Some((word, tail)) = rest.split_first() {
        let option = allowed.iter().find(|o| word.eq_ignore_ascii_case(o.as_bytes()))?;
        if given.iter().any(|(name, _)| name == option) {
            return None;
        }
        rest = tail;
        let mut number = 1;
        if *option != "PARTIAL" {
            let (value, tail) = rest.split_first()?;
            number = option_value(option, value)?;
            rest = tail;
        }
        given.push((option, number));
    }
    let has = |option| given.iter().any(|(name, _)| *name == option);
    if has("INTERVAL") && !has("REFILL") {
        return None;
    }
    Some(given)
}

fn option_value(option: &str, value: &[u8]) -> Option<u64> {
    match option {
        "KEEP" | "CAPACITY" => number(value, 0, MAX_TOKENS),
        "REFILL" => refill(value),
        "INTERVAL" => number(value, 1, MAX_INTERVAL_MS),
        "WEIGHT" => number(value, 1, 10),
        _ => None,
    }
}

fn throttle(args: &[&[u8]]) -> Option<Shape> {
    if !(5..=6).contains(&args.len()) {
        return None;
    }
    number(args[2], 0, MAX_TOKENS - 1)?;
    number(args[3], 1, MAX_TOKENS)?;
    number(args[4], 1, MAX_PERIOD_S)?;
    let quantity = args.get(5).copied().unwrap_or(b"1");
    let (size, sign) = match quantity.strip_prefix(b"-") {
        Some(size) => (size, -1),
        None => (quantity, 1),
    };
    let quantity = number(size, 0, MAX_TOKENS)? as i64;
    Some(Shape::Throttle { quantity: sign * quantity })
}

fn take_all(args: &[&[u8]]) -> Option<Shape> {
    let groups = groups(args.get(1..)?);
    if groups.len() > 1_024 {
        return None;
    }
    let mut policies: HashMap<&[u8], Policy> = HashMap::new();
    let (mut demands, mut torn) = (Vec::new(), false);
    for group in groups {
        let (demand, policy) = wanted(group, &["CAPACITY", "REFILL", "INTERVAL", "KEEP"])?;
        demands.push(demand);
        if let Some(policy) = policy {
            torn |= *policies.entry(group[0]).or_insert(policy) != policy;
        }
    }
    Some(Shape::All { demands, torn })
}

/// Checks the answer to a call, wherever the call was made: directly, in a
/// transaction, in a script.
pub fn check(args: &[Vec<u8>], shape: &Shape, reply: &Reply) -> Result<(), String> {
    match (shape, reply) {
        (_, Reply::Error(line)) => check_error(args, shape, line),
        (Shape::Refused, _) => Err("this has to be refused".into()),
        (Shape::Take { demand, .. }, _) => taken(&five(reply)?, demand),
        (Shape::Settle { reserved, used, .. }, _) => settled(&five(reply)?, *reserved, *used),
        (Shape::Give { tokens }, _) => {
            let [taken, capacity, remaining, retry, reset] = five(reply)?;
            levels(capacity, remaining, reset)?;
            ensure(taken >= 0 && taken <= *tokens as i64, "gave more than there was to give")?;
            ensure(retry == 0, "giving does not wait")
        }
        (Shape::Throttle { quantity }, _) => {
            let [limited, capacity, remaining, retry, reset] = five(reply)?;
            ensure(remaining >= 0, "it knows of no debt")?;
            // Where nothing fits in, a debt does not show.
            if capacity > 0 || reset == 0 {
                levels(capacity, remaining, reset)?;
            }
            match limited {
                0 => ensure(retry == -1, "not limited, so there is nothing to wait for"),
                1 => {
                    ensure(retry == -1 || retry > 0, "limited without a wait")?;
                    ensure(*quantity > remaining, "limited although there was enough")
                }
                _ => Err("limited is 0 or 1".into()),
            }
        }
        (Shape::All { torn: true, .. }, _) => Err("a key has two policies".into()),
        (Shape::All { demands, .. }, _) => all(reply, demands),
        (Shape::Policy, _) => policy(reply),
    }
}

fn check_error(args: &[Vec<u8>], shape: &Shape, line: &str) -> Result<(), String> {
    ensure(!line.contains("internal error"), "a panic")?;
    ensure(line.len() <= LONGEST_ERROR, "the error is too long to read")?;
    ensure(!line.bytes().any(|b| b.is_ascii_control()), "the error has control characters")?;
    if line.starts_with("OOM ") {
        // A script may be refused for what it could do.
        return Ok(());
    }
    let about_field = line.strip_prefix("ERR bucket ");
    if *shape == Shape::Refused {
        return ensure(line.starts_with("ERR ") && about_field.is_none(), "not the right error");
    }
    if line.starts_with("WRONGTYPE ") {
        return Ok(());
    }
    if line.contains(" is given two policies") {
        return ensure(matches!(shape, Shape::All { torn: true, .. }), "no key has two policies");
    }
    let named = about_field.is_some_and(|rest| {
        keys(args).into_iter().any(|key| rest.starts_with(&quoted(key)))
            && ["tokens", "timestamp", "userWeight", "policy", "remainder"]
                .iter()
                .any(|field| rest.contains(&format!(": field '{field}' holds '")))
    });
    ensure(named, "a call in good order was refused")
}

/// A key as errors quote it.
pub fn quoted(key: &[u8]) -> String {
    let shown = &key[..key.len().min(QUOTED)];
    let cut = if shown.len() < key.len() { "..." } else { "" };
    format!("'{}'{cut}", shown.escape_ascii())
}

fn five(reply: &Reply) -> Result<[i64; 5], String> {
    let ints = reply.ints().and_then(|ints| <[i64; 5]>::try_from(ints).ok());
    ints.ok_or_else(|| "not five integers".into())
}

fn levels(capacity: i64, remaining: i64, reset: i64) -> Result<(), String> {
    ensure((0..=MAX_TOKENS as i64).contains(&capacity), "capacity out of bounds")?;
    let possible = -(MAX_DEBT as i64)..=capacity;
    ensure(possible.contains(&remaining), "remaining is above the capacity, or too deep")?;
    ensure(reset >= -1, "reset_after is below -1")?;
    ensure((reset == 0) == (remaining == capacity), "reset_after is 0 when full, and only then")
}

fn taken(answer: &[i64; 5], demand: &Demand) -> Result<(), String> {
    let [taken, capacity, remaining, retry, reset] = *answer;
    let Demand { partial, .. } = *demand;
    let [tokens, keep] = [demand.tokens, demand.keep].map(|tokens| tokens as i64);
    levels(capacity, remaining, reset)?;
    ensure(retry >= -1, "retry_after is below -1")?;
    ensure((0..=tokens).contains(&taken), "took more than was asked for")?;
    ensure(taken == 0 || remaining >= keep, "left less than was to be kept")?;
    if taken == tokens {
        return ensure(retry == 0, "granted, so there is nothing to wait for");
    }
    ensure(taken == 0 || partial, "took a part")?;
    ensure(taken == 0 || remaining == keep, "left tokens that were asked for")?;
    let needed = keep + if partial { 1 } else { tokens };
    ensure(remaining < needed, "refused although there was enough")?;
    ensure(retry != 0, "refused without a wait")?;
    ensure(needed <= capacity || retry == -1, "a wait for more than the bucket holds")?;
    ensure(retry == -1 || reset == -1 || retry <= reset, "waits longer than until full")
}

fn settled(answer: &[i64; 5], reserved: u64, used: u64) -> Result<(), String> {
    let [booked, capacity, remaining, retry, reset] = *answer;
    let asked = used as i64 - reserved as i64;
    levels(capacity, remaining, reset)?;
    if asked <= 0 {
        ensure((asked..=0).contains(&booked), "gave back more than was not used")?;
        ensure(booked == asked || remaining >= capacity, "there was room to give back more")?;
        return ensure(retry == 0, "giving does not wait");
    }
    ensure((0..=asked).contains(&booked), "booked more than was used")?;
    ensure(booked == 0 || remaining >= -capacity, "owes more than the capacity")?;
    let rest = asked - booked;
    if rest == 0 {
        return ensure(retry == 0, "all is booked, so there is nothing to wait for");
    }
    ensure(remaining <= -capacity, "there was room to book more")?;
    ensure(retry == -1 || retry > 0, "not all is booked, without a wait")?;
    ensure(rest <= 2 * capacity || retry == -1, "a wait for more than can be owed")?;
    ensure(retry == -1 || reset == -1 || retry <= reset, "waits longer than until full")
}

fn all(reply: &Reply, demands: &[Demand]) -> Result<(), String> {
    let Reply::Array(items) = reply else { return Err("not an array".into()) };
    let [Reply::Int(granted), Reply::Int(index), Reply::Int(wait), Reply::Array(answers)] =
        items.as_slice()
    else {
        return Err("not three integers and an array".into());
    };
    ensure(answers.len() == demands.len(), "not one answer for each group")?;
    let answers = answers.iter().map(five).collect::<Result<Vec<_>, _>>()?;
    for [taken, capacity, remaining, retry, reset] in &answers {
        levels(*capacity, *remaining, *reset)?;
        ensure(*retry >= -1, "retry_after is below -1")?;
        ensure(*granted == 1 || *taken == 0, "refused, but took")?;
    }
    let waits = || answers.iter().map(|answer| answer[3]);
    let longest = if waits().any(|wait| wait == -1) { Some(-1) } else { waits().max() };
    ensure(longest == Some(*wait), "the wait for all is not the longest")?;
    let refusing = waits().position(|wait| wait != 0);
    match granted {
        1 => {
            ensure(*index == -1 && *wait == 0, "granted, but a group refuses")?;
            let right = |(answer, demand): (&[i64; 5], &Demand)| {
                let kept = demand.tokens == 0 || answer[2] >= demand.keep as i64;
                answer[0] == demand.tokens as i64 && kept
            };
            ensure(answers.iter().zip(demands).all(right), "did not take what was asked for")
        }
        0 => {
            ensure(usize::try_from(*index).ok() == refusing, "another group is the first to refuse")
        }
        _ => Err("granted is 0 or 1".into()),
    }
}

fn policy(reply: &Reply) -> Result<(), String> {
    let pairs = reply.pairs().ok_or("not a map")?;
    ensure(pairs.len() == 7, "not seven names")?;
    // A script that speaks RESP3 puts them into an order of its own.
    let value = |name: &str| {
        let pair = pairs.iter().find(|(n, _)| n.bytes() == Some(name.as_bytes()));
        pair.map(|(_, value)| *value).ok_or(format!("no {name}"))
    };
    let int = |name: &str, range: std::ops::RangeInclusive<u64>| match value(name)? {
        Reply::Int(n) if u64::try_from(*n).is_ok_and(|n| range.contains(&n)) => Ok(()),
        other => Err(format!("{name} is {other:?}")),
    };
    int("capacity", 0..=MAX_TOKENS)?;
    int("interval", 1..=MAX_INTERVAL_MS)?;
    int("weight", 1..=10)?;
    int("pinned", 0..=1)?;
    let pinned = matches!(value("pinned")?, Reply::Int(1));
    let source = value("source")?.bytes().unwrap_or_default();
    // What ends by itself is pinned by nobody in this traffic.
    let remains = Reply::Int(if pinned { -1 } else { 0 });
    ensure(*value("pin_remaining_ms")? == remains, "another end of the pin")?;
    let known = if pinned {
        source == b"pin"
    } else {
        [&b"rule"[..], b"bucket", b"default"].contains(&source)
    };
    ensure(known, "the source is another")?;
    let refill = value("refill")?.bytes().and_then(decimal);
    refill.map(|_| ()).ok_or("the refill is no decimal".into())
}

pub fn ensure(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.into()) }
}
