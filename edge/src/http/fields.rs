//! The fields that tell a client about limits: `RateLimit`, `RateLimit-Policy` and
//! `Retry-After`, as draft-ietf-httpapi-ratelimit-headers-10 has them.
//!
//! `q` is the capacity, `w` the seconds from empty to full, `r` the tokens that are left, and `t`
//! the seconds until there is one more. All seconds are rounded up. Of a refused request only the
//! limits that refuse have a `t`, and it is never later than `Retry-After`.

use std::fmt::Write;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use claw_core::limits::MICRO;
use claw_core::policy::Policy;

use crate::decide::{Answer, Outcome, Verdict};
use crate::limits::Mode;

/// The largest integer of a structured field.
const LARGEST: u64 = 999_999_999_999_999;

/// Adds what `verdict` says to a response; with `older`, in the fields of older drafts too.
pub fn add(headers: &mut HeaderMap, verdict: &Verdict, older: bool) {
    let (mut policies, mut limits) = (String::with_capacity(64), String::with_capacity(64));
    let mut least: Option<Shown> = None;
    // What only watches is nothing that a client could go by.
    let shown = verdict.outcomes.iter().filter(|outcome| outcome.charge.limit.mode != Mode::Shadow);
    for outcome in shown {
        let Some(limit) = Shown::new(outcome, verdict.allowed) else { continue };
        limit.append(&mut policies, &mut limits, &outcome.charge.limit.name);
        if least.is_none_or(|least| limit.remaining < least.remaining) {
            least = Some(limit);
        }
    }
    insert(headers, HeaderName::from_static("ratelimit-policy"), policies);
    insert(headers, HeaderName::from_static("ratelimit"), limits);
    if older && let Some(least) = least {
        number(headers, "ratelimit-limit", least.quota);
        number(headers, "ratelimit-remaining", least.remaining);
        if let Some(more) = least.more_s {
            number(headers, "ratelimit-reset", more);
        }
    }
    if !verdict.allowed
        && let Some(ms) = verdict.retry_after_ms()
    {
        retry_after(headers, ms.div_ceil(1000).max(1));
    }
}

/// Adds `Retry-After`.
pub fn retry_after(headers: &mut HeaderMap, seconds: u64) {
    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
}

fn number(headers: &mut HeaderMap, name: &'static str, value: u64) {
    headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: String) {
    // A list of none is told by no field. What is appended below is visible ASCII.
    if let Ok(value) = HeaderValue::try_from(value)
        && !value.is_empty()
    {
        headers.insert(name, value);
    }
}

/// What a client is told of one limit.
#[derive(Clone, Copy, Debug)]
struct Shown {
    quota: u64,
    /// Seconds from empty to full, if that ever happens.
    window_s: Option<u64>,
    remaining: u64,
    /// Seconds until there is one more, if ever.
    more_s: Option<u64>,
}

impl Shown {
    /// Nothing if the limit could not be asked.
    fn new(outcome: &Outcome, allowed: bool) -> Option<Self> {
        let answer = outcome.answer?;
        let quota = u64::try_from(answer.capacity).ok()?;
        // The server's own, or one that is pinned on the bucket, is in force instead of one of another
        // capacity, and its rate is not told. Of an adaptive limit it may have the same one.
        let limit = &outcome.charge.limit;
        let sent = limit.policy.as_ref();
        let policy = sent.filter(|policy| limit.adaptive.is_none() && policy.capacity() == quota);
        let more_ms = if allowed || outcome.is_over() { more_ms(sent, &answer) } else { None };
        Some(Self {
            quota,
            window_s: policy.and_then(window_s),
            remaining: u64::try_from(answer.remaining).unwrap_or(0),
            more_s: more_ms.map(|ms| ms.div_ceil(1000).clamp(1, LARGEST)),
        })
    }

    fn append(&self, policies: &mut String, limits: &mut String, name: &str) {
        for list in [&mut *policies, &mut *limits] {
            if !list.is_empty() {
                list.push_str(", ");
            }
            push_string(list, name);
        }
        push_parameter(policies, ";q=", self.quota);
        if let Some(window) = self.window_s {
            push_parameter(policies, ";w=", window);
        }
        push_parameter(limits, ";r=", self.remaining);
        if let Some(more) = self.more_s {
            push_parameter(limits, ";t=", more);
        }
    }
}

/// Seconds from empty to full, rounded up; nothing if it never refills, or has no room.
fn window_s(policy: &Policy) -> Option<u64> {
    let capacity = u128::from(policy.capacity().checked_mul(MICRO)?);
    let ms = capacity.checked_mul(u128::from(policy.interval_ms()))?;
    let seconds = ms.div_ceil(u128::from(policy.refill()).checked_mul(1000).filter(|n| *n > 0)?);
    u64::try_from(seconds.min(u128::from(LARGEST))).ok().filter(|seconds| *seconds > 0)
}

/// Milliseconds until there is one token more than `remaining`; nothing if there never will be.
///
/// The server tells when the bucket is full. Until then it gains the missing tokens one after
/// another, all but the next of them whole, in a time that the policy tells. A user's weight, or a
/// pin, makes that shorter or longer than the policy tells. What is right then all the same: the
/// next token takes no longer than a missing one does on average, and no longer than the wait of a
/// refused call.
fn more_ms(policy: Option<&Policy>, answer: &Answer) -> Option<u64> {
    let missing = u128::try_from(answer.capacity.checked_sub(answer.remaining)?).ok()?;
    let full_ms = u128::try_from(answer.reset_after_ms).ok()?;
    if missing == 0 {
        return None;
    }
    let average = full_ms.div_ceil(missing);
    let whole = missing.saturating_sub(1).saturating_mul(u128::from(MICRO));
    let whole_ms = policy.and_then(|policy| {
        let whole_ms = whole.saturating_mul(u128::from(policy.interval_ms()));
        whole_ms.checked_div(u128::from(policy.refill()))
    });
    let exact = whole_ms.and_then(|ms| full_ms.checked_sub(ms)).filter(|ms| *ms > 0);
    let more = exact.map_or(average, |exact| exact.min(average));
    let wait = u128::try_from(answer.retry_after_ms).ok().filter(|wait| *wait > 0);
    u64::try_from(wait.map_or(more, |wait| more.min(wait))).ok()
}

fn push_parameter(list: &mut String, name: &str, value: u64) {
    list.push_str(name);
    list.push_str(itoa::Buffer::new().format(value));
}

/// Appends a string of a structured field. Those have visible ASCII and spaces only; other
/// letters are percent-encoded.
fn push_string(list: &mut String, text: &str) {
    list.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => list.extend(['\\', letter]),
            ' '..='~' => list.push(letter),
            _ => {
                let mut bytes = [0; 4];
                for byte in letter.encode_utf8(&mut bytes).bytes() {
                    // Writing to a string does not fail.
                    let _ = write!(list, "%{byte:02X}");
                }
            }
        }
    }
    list.push('"');
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use sfv::{BareItem, List, ListEntry, Parser};

    use super::*;
    use crate::limits::{Charge, Limit};

    fn outcome(name: &str, policy: (u64, u64, u64), answer: [i64; 5]) -> Outcome {
        let (capacity, refill, interval_ms) = policy;
        let policy = Policy::new(capacity, refill, interval_ms).unwrap();
        let limit = Arc::new(Limit::new(name.to_owned(), policy, Vec::new()));
        let [taken, capacity, remaining, retry_after_ms, reset_after_ms] = answer;
        let answer = Answer { taken, capacity, remaining, retry_after_ms, reset_after_ms };
        Outcome {
            charge: Charge { limit, key: b"k".as_slice().into(), cost: 1, keep: 0 },
            answer: Some(answer),
        }
    }

    fn fields(outcomes: Vec<Outcome>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        add(&mut headers, &Verdict::new(outcomes), true);
        headers
    }

    fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
        headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[test]
    fn what_a_client_is_told_of_one_limit() {
        #[rustfmt::skip]
        let table = [
            // policy: tokens, millionths, ms; answer; RateLimit-Policy, RateLimit, Retry-After
            ((5, 5_000_000, 60_000), [1, 5, 4, 0, 12_000],   r#""a";q=5;w=60"#, r#""a";r=4;t=12"#, ""),
            ((5, 5_000_000, 60_000), [1, 5, 3, 0, 18_000],   r#""a";q=5;w=60"#, r#""a";r=3;t=6"#,  ""),
            ((5, 5_000_000, 60_000), [0, 5, 0, 11_001, 59_001], r#""a";q=5;w=60"#, r#""a";r=0;t=12"#, "12"),
            // Refused more than one: the next token comes sooner.
            ((5, 5_000_000, 60_000), [0, 5, 1, 23_000, 47_000], r#""a";q=5;w=60"#, r#""a";r=1;t=11"#, "23"),
            // Full, blocked, never refilled.
            ((5, 5_000_000, 60_000), [0, 5, 5, 0, 0],        r#""a";q=5;w=60"#, r#""a";r=5"#,      ""),
            ((0, 1_000_000, 1_000),  [0, 0, 0, -1, 0],       r#""a";q=0"#,      r#""a";r=0"#,      ""),
            ((5, 0, 1_000),          [1, 5, 4, 0, -1],       r#""a";q=5"#,      r#""a";r=4"#,      ""),
            ((5, 0, 1_000),          [0, 5, 0, -1, -1],      r#""a";q=5"#,      r#""a";r=0"#,      ""),
            // In debt, of weight 2, and pinned to something else.
            ((5, 5_000_000, 60_000), [0, 5, -3, 48_000, 96_000], r#""a";q=5;w=60"#, r#""a";r=0;t=12"#, "48"),
            ((5, 5_000_000, 60_000), [1, 5, 2, 0, 18_000],   r#""a";q=5;w=60"#, r#""a";r=2;t=6"#,  ""),
            ((5, 5_000_000, 60_000), [1, 10, 8, 0, 2_000],   r#""a";q=10"#,     r#""a";r=8;t=1"#,  ""),
            // A third of a second, and more seconds than a field can hold.
            ((1, 3_000_000, 1_000),  [0, 1, 0, 1, 1],        r#""a";q=1;w=1"#,  r#""a";r=0;t=1"#,  "1"),
            ((1_000_000_000_000, 1, 31_622_400_000), [1, 1_000_000_000_000, 999_999_999_999, 0, i64::MAX],
                r#""a";q=1000000000000;w=999999999999999"#,
                r#""a";r=999999999999;t=999999999999999"#, ""),
        ];
        for (policy, answer, policies, limits, wait) in table {
            let headers = fields(vec![outcome("a", policy, answer)]);
            assert_eq!(text(&headers, "ratelimit-policy"), policies, "{policy:?} {answer:?}");
            assert_eq!(text(&headers, "ratelimit"), limits, "{policy:?} {answer:?}");
            assert_eq!(text(&headers, "retry-after"), wait, "{policy:?} {answer:?}");
        }
    }

    #[test]
    fn several_limits_and_the_older_fields() {
        let minute = outcome("minute", (5, 5_000_000, 60_000), [0, 5, 0, 2_000, 50_000]);
        let day = outcome("day", (100, 100_000_000, 86_400_000), [0, 100, 7, 0, 80_000_000]);
        let headers = fields(vec![minute, day]);
        assert_eq!(text(&headers, "ratelimit"), r#""minute";r=0;t=2, "day";r=7"#);
        assert_eq!(text(&headers, "ratelimit-policy"), r#""minute";q=5;w=60, "day";q=100;w=86400"#);
        assert_eq!(text(&headers, "retry-after"), "2");
        assert_eq!(text(&headers, "ratelimit-limit"), "5");
        assert_eq!(text(&headers, "ratelimit-remaining"), "0");
        assert_eq!(text(&headers, "ratelimit-reset"), "2");
        assert_eq!(fields(vec![]).len(), 0);
    }

    #[test]
    fn names_survive_as_strings_of_structured_fields() {
        for (name, told) in [
            (r#"a"b\c"#, r#"a"b\c"#),
            ("per minute, each", "per minute, each"),
            ("é\r\nSet-Cookie: x", "%C3%A9%0D%0ASet-Cookie: x"),
        ] {
            let headers = fields(vec![outcome(name, (5, 1, 1), [1, 5, 4, 0, 9])]);
            for field in ["ratelimit", "ratelimit-policy"] {
                let list: List = Parser::new(text(&headers, field)).parse().unwrap();
                let [ListEntry::Item(item)] = list.as_slice() else { panic!("{list:?}") };
                let BareItem::String(string) = &item.bare_item else { panic!("{item:?}") };
                assert_eq!(string.as_str(), told, "{field}");
            }
        }
    }
}
