//! What the hash of a bucket may look like, and when it expires.

use crate::grammar::{MAX_INTERVAL_MS, MAX_TOKENS, MAX_VERSION, ensure, number, refill, signed};
use crate::resp::{Reply, words};

const MAX_LEAD_US: u64 = 30 * 24 * 3_600 * 1_000_000;
/// 9999-12-30T22:00:00.999999Z
const LATEST_US: u64 = 253_402_207_200_999_999;
const MICRO: i128 = 1_000_000;
/// Later than this nothing expires.
const LATEST_EXPIRY_US: u128 = u64::MAX as u128;

/// RFC 3339, and what only looks like it. Every text with a colon that the
/// tests write into a `timestamp` is one of these.
pub const TIMES: &[(&str, Option<u64>)] = &[
    ("2026-03-19T10:00:00Z", Some(1_773_914_400_000_000)),
    ("2026-03-19T12:00:00+02:00", Some(1_773_914_400_000_000)),
    ("2026-03-19T10:00:00.5Z", Some(1_773_914_400_500_000)),
    ("2026-03-19T10:00:00.123456789Z", Some(1_773_914_400_123_456)),
    ("2026-03-19T10:00:00.123456789999999999Z", Some(1_773_914_400_123_456)),
    ("2026-03-19T10:00:00+24:00", None),
    ("1970-01-01T00:00:00Z", Some(0)),
    ("9999-12-31T23:59:59Z", None),
    ("1969-12-31T23:59:59Z", None),
    ("10000-01-01T00:00:00Z", None),
    ("2026-03-19T10:00:00", None),
    ("2026-02-30T10:00:00Z", None),
    ("2026-13-19T10:00:00Z", None),
    ("2026-03-19T10:00:00Z ", None),
    ("2026-03-19T10:00:00Z\0", None),
    ("10:00:00", None),
    ("-002026-03-19T10:00:00Z", None),
];

/// The commands that ask for all that is checked here, besides the key's type.
pub fn questions(key: &[u8]) -> [Vec<Vec<u8>>; 5] {
    let of_key = |name: &str, rest: &str| {
        let mut args = vec![name.as_bytes().to_vec(), key.to_vec()];
        args.extend(words(rest));
        args
    };
    [
        of_key("HMGET", "tokens timestamp userWeight policy remainder"),
        of_key("PEXPIRETIME", ""),
        words("CONFIG GET claw.max-tokens claw.refill-rate-per-sec claw.policies"),
        words("TIME"),
        of_key("HLEN", ""),
    ]
}

/// The answers to [`questions`], all at one moment.
#[derive(Debug)]
pub struct State {
    fields: [Option<Vec<u8>>; 5],
    expires_ms: Option<u64>,
    missing: bool,
    /// There are fields of the user's own.
    foreign: bool,
    /// Of the rule that fits the key, else the default.
    default: Policy,
    ruled: bool,
    now: u64,
}

#[derive(Clone, Copy, Debug)]
struct Policy {
    capacity: u64,
    refill: u64,
    interval_us: u64,
    pinned: bool,
}

impl Policy {
    fn key(&self) -> (u64, u64, u64) {
        (self.capacity, self.refill, self.interval_us)
    }
}

impl State {
    /// `key` has answered this to [`questions`].
    pub fn new(key: &[u8], answers: &[Reply]) -> Result<State, String> {
        let [
            Reply::Array(fields),
            Reply::Int(expires),
            config,
            Reply::Array(time),
            Reply::Int(len),
        ] = answers
        else {
            return Err(format!("cannot look at the bucket: {answers:?}"));
        };
        let config = config.pairs().ok_or("CONFIG GET answers no map")?;
        let value = |name: &str| {
            let of_name = |(n, _): &&(&Reply, &Reply)| n.bytes() == Some(name.as_bytes());
            config.iter().find(of_name).and_then(|(_, value)| value.bytes()).unwrap_or_default()
        };
        let capacity = number(value("claw.max-tokens"), 0, MAX_TOKENS);
        let refill = refill(value("claw.refill-rate-per-sec"));
        let (Some(capacity), Some(refill)) = (capacity, refill) else {
            return Err(format!("the configured policy is impossible: {config:?}"));
        };
        let rule = rule_of(key, value("claw.policies"))?;
        let default = Policy { capacity, refill, interval_us: 1_000_000, pinned: false };
        let time: Vec<u64> =
            time.iter().filter_map(|part| number(part.bytes()?, 0, u64::MAX)).collect();
        let [seconds, micros] = time.as_slice() else { return Err("what time is it?".into()) };
        let ours = fields.iter().filter(|field| field.bytes().is_some()).count();
        let mut texts = fields.iter().map(|field| field.bytes().map(<[u8]>::to_vec));
        Ok(State {
            fields: std::array::from_fn(|_| texts.next().flatten()),
            expires_ms: u64::try_from(*expires).ok(),
            missing: *expires == -2,
            foreign: usize::try_from(*len).is_ok_and(|len| len > ours),
            default: rule.unwrap_or(default),
            ruled: rule.is_some(),
            now: seconds * 1_000_000 + micros,
        })
    }

    /// The fields that cannot be understood.
    pub fn faults(&self) -> Vec<&'static str> {
        let [tokens, timestamp, weight, policy, remainder] = &self.fields;
        let bad = |text: &Option<Vec<u8>>, fine: &dyn Fn(&[u8]) -> bool| {
            text.as_ref().is_some_and(|text| !fine(text))
        };
        let mut faults = Vec::new();
        let mut note = |name, bad| {
            if bad {
                faults.push(name)
            }
        };
        note("tokens", bad(tokens, &|text| signed(text).is_some()));
        note("timestamp", bad(timestamp, &|text| self.time(text).is_some()));
        note("userWeight", bad(weight, &|text| number(text, 1, 10).is_some()));
        note("policy", bad(policy, &|text| parse(text).is_some()));
        note("remainder", bad(remainder, &|text| number(text, 0, u64::MAX).is_some()));
        faults
    }

    fn time(&self, text: &[u8]) -> Option<u64> {
        let known = TIMES.iter().find(|(known, _)| known.as_bytes() == text);
        let instant = match known {
            Some((_, instant)) => *instant,
            None => number(text, 0, LATEST_US),
        };
        instant.filter(|instant| *instant <= self.now + MAX_LEAD_US)
    }

    /// Checks what `CL.PEEK key 0` answers to a bucket without faults.
    pub fn check_peek(&self, peeked: &[i64]) -> Result<(), String> {
        let &[0, capacity, remaining, 0, reset] = peeked else {
            return Err("not what an untouched bucket answers".into());
        };
        // Where a rule fits, what a call had stored is no limit any more.
        let stored = self.fields[3].as_deref().and_then(parse);
        let own = stored.filter(|policy| policy.pinned || !self.ruled);
        let policy = own.unwrap_or(self.default);
        ensure(capacity as u64 == policy.capacity, "the capacity is not that of the policy")?;
        ensure(remaining <= capacity, "remaining is above the capacity")?;
        ensure((reset == 0) == (remaining == capacity), "reset_after is 0 only when full")?;
        let tokens = self.fields[0].as_deref().and_then(signed).map(i128::from);
        let Some(tokens) = tokens else {
            // The default may have been smaller in between, or what a call brought was.
            let full = own.is_none() || remaining == capacity;
            return ensure(full, "a bucket without tokens is full");
        };
        // An earlier, smaller default may have cut a bucket without a policy of its own.
        if own.is_some() {
            let least = tokens.min(i128::from(capacity) * MICRO).div_euclid(MICRO);
            ensure(i128::from(remaining) >= least, "tokens were lost")?;
            let then = self.fields[1].as_deref().and_then(|text| self.time(text));
            let elapsed = self.now.saturating_sub(then.unwrap_or(self.now));
            let weight = self.fields[2].as_deref().map_or(1, |w| number(w, 1, 10).unwrap_or(1));
            let rate = u128::from(policy.refill) * u128::from(weight);
            // The remainder is less than a millionth.
            let credit = rate * u128::from(elapsed) / u128::from(policy.interval_us) + 1;
            let most = (tokens + credit as i128).div_euclid(MICRO);
            ensure(i128::from(remaining) <= most, "tokens were made")?;
        }
        Ok(())
    }

    /// Checks a bucket that a call wrote: from what there was before it, it took
    /// so many tokens (or gave, if negative). `self` is what there is now.
    pub fn check_moved(&self, before: &State, tokens: i64, capacity: i64) -> Result<(), String> {
        let held = i128::from(capacity) * MICRO;
        let [_, timestamp, weight, policy, _] = &before.fields;
        let then = timestamp.as_deref().and_then(|text| before.time(text));
        let now = self.fields[1].as_deref().and_then(|text| self.time(text)).ok_or("no time")?;
        let policy = policy.as_deref().and_then(parse);
        let had = match (before.fields[0].as_deref().and_then(signed), policy) {
            // What is missing is full, whatever the capacity.
            _ if before.missing => held,
            (None, None) if then.is_none() => i128::from(before.default.capacity) * MICRO,
            (None, Some(policy)) => i128::from(policy.capacity) * MICRO,
            // Nobody here knows what the default was in between.
            (_, None) => return Ok(()),
            (Some(micros), Some(policy)) => {
                let weight = weight.as_deref().and_then(|w| number(w, 1, 10)).unwrap_or(1);
                let elapsed = now.saturating_sub(then.unwrap_or(now));
                let rate = u128::from(policy.refill) * u128::from(weight);
                let credit = rate * u128::from(elapsed) / u128::from(policy.interval_us);
                (i128::from(micros) + credit as i128).min(i128::from(policy.capacity) * MICRO)
            }
        };
        let left = (had.min(held) - i128::from(tokens) * MICRO).min(held);
        let found = self.fields[0].as_deref().and_then(signed).ok_or("no tokens")?;
        // The remainder is a part of a millionth.
        let fits = (left..=left + 1).contains(&i128::from(found));
        ensure(fits, &format!("{left} millionths ought to be left"))
    }

    /// Checks a bucket that a call without a policy was refused by: it is as it was.
    pub fn check_untouched(&self, before: &State) -> Result<(), String> {
        let same = self.fields == before.fields && self.expires_ms == before.expires_ms;
        // The first take gives a bucket made without a timestamp one.
        let dated = before.fields[1].is_some();
        // The first call under a rule ends what another brought.
        let stored = before.fields[3].as_deref().and_then(parse);
        let ended = before.ruled && stored.is_some_and(|policy| !policy.pinned);
        ensure(same || !dated || ended, "refused, but something was written")
    }

    /// Checks a bucket that a command has just written, leaving `remaining` of
    /// `capacity` tokens.
    pub fn check_written(
        &self,
        before: &State,
        capacity: i64,
        remaining: i64,
    ) -> Result<(), String> {
        let faults = self.faults();
        ensure(faults.is_empty(), &format!("{faults:?} cannot be understood"))?;
        let [tokens, timestamp, weight, policy, remainder] = &self.fields;
        let tokens = tokens.as_deref().and_then(signed).ok_or("no tokens")?;
        let timestamp = timestamp.as_deref().and_then(|text| number(text, 0, LATEST_US));
        let timestamp = timestamp.ok_or("no timestamp in microseconds")?;
        let weight = weight.as_deref().and_then(|text| number(text, 1, 10)).unwrap_or(1);
        let had = |state: &State| state.fields[3].as_deref().and_then(parse);
        let policy = policy.as_deref().and_then(parse).unwrap_or(self.default);
        let remainder = remainder.as_deref().and_then(|r| number(r, 0, u64::MAX)).unwrap_or(0);

        let held = capacity * 1_000_000;
        ensure(policy.capacity == capacity as u64, "the stored capacity is another")?;
        ensure(tokens <= held, "more tokens than the capacity")?;
        ensure(tokens.div_euclid(1_000_000) == remaining, "the stored tokens are others")?;
        ensure(tokens < held || remainder == 0, "more than the capacity by a remainder")?;

        // What did not refill before, and does not now, has the expiry that its user wants. Nobody
        // here knows what the default was when it was left.
        let blocks = |policy: &Policy| policy.capacity == 0 && !policy.pinned;
        let was_bare = had(before).is_none_or(|policy| policy.refill == 0 && !blocks(&policy));
        if policy.refill == 0 && !before.missing && was_bare {
            let same = self.expires_ms == before.expires_ms;
            if same || had(before).is_some() {
                return ensure(same, "another expiry than its user's");
            }
        }
        if policy.refill == 0 && !had(self).is_some_and(|policy| blocks(&policy)) {
            return ensure(self.expires_ms.is_none(), "what never refills does not expire");
        }
        if policy.pinned || weight != 1 || self.foreign {
            return ensure(self.expires_ms.is_none(), "what is kept does not expire");
        }
        // Besides the tokens there may be any part of a millionth.
        let part = if remainder == 0 { 0 } else { policy.interval_us - 1 };
        let us_for = |micros: u64, part: u64| {
            let units = u128::from(micros) * u128::from(policy.interval_us);
            match (units.saturating_sub(u128::from(part)), u128::from(policy.refill)) {
                (0, _) => Some(0),
                (_, 0) => None,
                (units, refill) => Some(units.div_ceil(refill)),
            }
        };
        let missing = (held - tokens) as u64;
        let by_a_call = had(self).is_some();
        if policy.capacity == 0 && by_a_call && missing == 0 {
            let end = (u128::from(timestamp) + u128::from(policy.interval_us)).div_ceil(1_000);
            let expires = self.expires_ms.map(u128::from);
            return ensure(expires == Some(end), "blocked for another time than the interval");
        }
        let (Some(least), Some(most)) = (us_for(missing, part), us_for(missing, 0)) else {
            return ensure(self.expires_ms.is_none(), "what never fills does not expire");
        };
        let timestamp = u128::from(timestamp);
        // As long as it takes to fill, and ten seconds more.
        let latest = timestamp + 2 * most + 10_001_000;
        match self.expires_ms.map(|ms| u128::from(ms) * 1_000) {
            None => ensure(latest > LATEST_EXPIRY_US, "it fills and has no expiry"),
            Some(at) => {
                ensure(at >= timestamp + least, "expires before it is full")?;
                ensure(at <= latest, "expires long after it is full")
            }
        }
    }
}

/// The policy of the rule that counts for a key, found by looking at all of them.
fn rule_of(key: &[u8], rules: &[u8]) -> Result<Option<Policy>, String> {
    let mut best = None;
    for entry in rules.split(|&b| b == b';').map(<[u8]>::trim_ascii).filter(|e| !e.is_empty()) {
        let (pattern, policy) = entry.split_at(entry.iter().position(|&b| b == b' ').unwrap_or(0));
        let policy = parse(policy.trim_ascii());
        let policy =
            policy.ok_or_else(|| format!("a rule is impossible: {}", entry.escape_ascii()))?;
        let fits = match pattern.strip_suffix(b"*") {
            Some(prefix) => key.starts_with(prefix).then_some((false, prefix.len())),
            None => (key == pattern).then_some((true, pattern.len())),
        };
        best = best.max(fits.map(|rank| (rank, policy.key())));
    }
    Ok(best.map(|(_, (capacity, refill, interval_us))| Policy {
        capacity,
        refill,
        interval_us,
        pinned: false,
    }))
}

/// `capacity refill/interval [pinned [version]]`
fn parse(text: &[u8]) -> Option<Policy> {
    let words: Vec<&[u8]> = text.split(|b| *b == b' ').collect();
    let (capacity, rate, pin) = match words.as_slice() {
        [capacity, rate, pin @ ..] => (capacity, rate, pin),
        _ => return None,
    };
    let slash = rate.iter().position(|b| *b == b'/')?;
    let pinned = match pin {
        [] => false,
        [b"pinned"] => true,
        [b"pinned", version] => number(version, 0, MAX_VERSION).is_some().then_some(true)?,
        _ => return None,
    };
    Some(Policy {
        capacity: number(capacity, 0, MAX_TOKENS)?,
        refill: refill(&rate[..slash])?,
        interval_us: number(&rate[slash + 1..], 1, MAX_INTERVAL_MS)? * 1_000,
        pinned,
    })
}
