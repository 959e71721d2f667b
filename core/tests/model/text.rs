//! Print, parse, print: what the module writes it reads again, and what it reads
//! means what it says.

use crate::any;
use crate::exact::{Q, q};
use crate::hash::policy;
use claw_core::decimal::{self, Decimal};
use claw_core::limits::{MAX_DEBT, MAX_MICRO_TOKENS, MAX_TIMESTAMP_US, MAX_VERSION};
use claw_core::policy::{Policy, StoredPolicy};
use claw_core::policy_cache::PolicyCache;
use claw_core::timestamp::{self, TimestampError};
use proptest::prelude::*;

/// The value of `digits[.digits][e[+|-]digits]`. Written without a look at the parser.
fn number(text: &str) -> Option<Q> {
    let (plain, exponent) = match text.split_once(['e', 'E']) {
        None => (text, 0),
        Some((plain, exponent)) => {
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            // So far that no number of these tests comes near.
            let size = digits.parse::<num_bigint::BigInt>().unwrap().min(100.into());
            let size = i32::try_from(size).unwrap();
            (plain, if exponent.starts_with('-') { -size } else { size })
        }
    };
    Some(value(plain)?.0 * q(10).pow(exponent))
}

/// The nearest whole number; of two the greater.
fn nearest(value: Q) -> Q {
    (value + q(1) / q(2)).floor()
}

/// The value of `digits[.digits]`, and how many places it has.
fn value(text: &str) -> Option<(Q, usize)> {
    let digits = |text: &str| {
        let all = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        all.then(|| text.parse::<num_bigint::BigInt>().map(q).unwrap())
    };
    match text.split_once('.') {
        None => Some((digits(text)?, 0)),
        Some((whole, places)) => {
            let scale = (0..places.len()).fold(q(1), |scale, _| scale * q(10));
            Some((digits(whole)? + digits(places)? / scale, places.len()))
        }
    }
}

fn agrees(text: &str) -> Result<(), TestCaseError> {
    let said = number(text);
    let micros = said.clone().map(|value| nearest(value * q(1_000_000)));
    let amount = micros.filter(|micros| *micros <= q(MAX_MICRO_TOKENS));
    prop_assert_eq!(decimal::parse(text.as_bytes()).ok().map(q), amount.clone(), "{:?}", text);
    let never = said == Some(q(0));
    let refill = amount.filter(|micros| never || *micros > q(0));
    prop_assert_eq!(decimal::parse_refill(text.as_bytes()).map(q), refill, "{:?}", text);
    let whole = said.filter(|value| value.is_integer() && *value <= q(u64::MAX));
    prop_assert_eq!(decimal::whole(text.as_bytes()).ok().map(q), whole, "{:?}", text);
    // The same with a sign, down to the deepest debt.
    let owed = number(text).map(|value| nearest(value * q(1_000_000)));
    let owed = owed.filter(|micros| *micros <= q(MAX_DEBT.unsigned_abs()));
    let signed = format!("-{text}");
    let read = decimal::parse_signed(signed.as_bytes()).ok();
    prop_assert_eq!(read.map(|micros| q(micros.unsigned_abs())), owed, "{:?}", signed);
    Ok(())
}

/// Days from 1970-01-01 to a date, counted year by year and month by month.
fn days(year: i64, month: u32, day: u32) -> i64 {
    let before_year = |year: i64| {
        let last = year - 1;
        last * 365 + last.div_euclid(4) - last.div_euclid(100) + last.div_euclid(400)
    };
    let months: u32 = (1..month).map(|month| month_length(year, month)).sum();
    before_year(year) - before_year(1970) + i64::from(months) + i64::from(day) - 1
}

fn month_length(year: i64, month: u32) -> u32 {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// An instant as RFC 3339 text.
fn rfc_3339(us: u64) -> String {
    let (seconds, micros) = (us / 1_000_000, us % 1_000_000);
    let (day, of_day) = (i64::try_from(seconds / 86_400).unwrap(), seconds % 86_400);
    let year = (1970..).find(|year| days(year + 1, 1, 1) > day).unwrap();
    let month = (1..=12).rfind(|month| days(year, *month, 1) <= day).unwrap();
    let date = day - days(year, month, 1) + 1;
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Both forms reach as far as the limits say.
#[test]
fn the_ends_of_time_can_be_written_in_both_forms() {
    let end = MAX_TIMESTAMP_US;
    for us in [0, 1, 999_999, end - 86_400_000_000, end - 1_000_000, end - 1, end] {
        let text = rfc_3339(us);
        assert_eq!(timestamp::parse(us.to_string().as_bytes()), Ok(us));
        assert_eq!(timestamp::parse(text.as_bytes()), Ok(us), "{text}");
    }
    let beyond = (end + 1).to_string();
    assert_eq!(timestamp::parse(beyond.as_bytes()), Err(TimestampError::OutOfRange));
}

proptest! {
    #![proptest_config(any::cases(2_000))]

    #[test]
    fn amounts_print_parse_print(micros in any::log_uniform(MAX_MICRO_TOKENS)) {
        let text = Decimal::new(micros).to_string();
        prop_assert_eq!(decimal::parse(text.as_bytes()), Ok(micros));
        let (value, places) = value(&text).unwrap();
        prop_assert_eq!(value, q(micros) / q(1_000_000));
        // The shortest text there is.
        prop_assert!(text == "0" || !text.starts_with('0') || text.starts_with("0."));
        prop_assert!(places <= 6 && !(places > 0 && text.ends_with('0')));
    }

    #[test]
    fn debts_print_parse_print(owed in any::log_uniform(MAX_DEBT.unsigned_abs())) {
        let micros = -owed.cast_signed();
        let text = Decimal::signed(micros).to_string();
        prop_assert_eq!(decimal::parse_signed(text.as_bytes()), Ok(micros));
        let sign = if owed == 0 { "" } else { "-" };
        prop_assert_eq!(text, format!("{sign}{}", Decimal::new(owed)));
    }

    /// Also those that no field may hold: an error message shows them.
    #[test]
    fn every_amount_prints(micros: u64) {
        let (value, _) = value(&Decimal::new(micros).to_string()).unwrap();
        prop_assert_eq!(value, q(micros) / q(1_000_000));
    }

    #[test]
    fn numbers_parse_to_what_they_say(
        text in "[0-9]{1,20}(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?",
    ) {
        agrees(&text)?;
    }

    /// A whole number or a few places, moved by as much as they have.
    #[test]
    fn moved_points_parse_to_what_they_say(
        text in "[0-9]{1,13}(\\.[0-9]{1,7})?e[+-]?(0{0,20}[0-9]|1[0-9])",
    ) {
        agrees(&text)?;
    }

    #[test]
    fn far_exponents_parse_to_what_they_say(text in "[0-9]{1,3}(\\.[0-9]{1,3})?e[+-]?[0-9]{3,30}") {
        agrees(&text)?;
    }

    #[test]
    fn near_numbers_are_none(text in "[0-9 .+eE_-]{0,12}") {
        agrees(&text)?;
    }

    /// Halfway between two millionths, and a little to both sides.
    #[test]
    fn halfway_goes_up(
        micros in any::log_uniform(MAX_MICRO_TOKENS - 1),
        more in "(0{0,30}[1-9])?",
        less in "9{0,30}",
    ) {
        let (whole, fraction) = (micros / 1_000_000, micros % 1_000_000);
        let at = |further: &str| decimal::parse(format!("{whole}.{fraction:06}{further}").as_bytes());
        prop_assert_eq!(at(&format!("5{more}")), Ok(micros + 1));
        prop_assert_eq!(at(&format!("4{less}")), Ok(micros));
    }

    /// A text that is read in one pass is read alike by the way for all others, which an
    /// exponent leads to.
    #[test]
    fn both_ways_to_read_agree(text in "([0-9]{1,20}(\\.[0-9]{1,7})?)|[0-9.]{0,8}") {
        let general = format!("{text}e0");
        prop_assert_eq!(decimal::parse(text.as_bytes()), decimal::parse(general.as_bytes()));
        let refills = [&text, &general].map(|text| decimal::parse_refill(text.as_bytes()));
        prop_assert_eq!(refills[0], refills[1]);
        prop_assert_eq!(decimal::whole(text.as_bytes()), decimal::whole(general.as_bytes()));
    }

    /// Doubles, as Rust and C print them: read as their nearest millionth.
    #[test]
    fn doubles_as_they_are_printed(
        bits in 0..=f64::MAX.to_bits(),
        (integer, divisor) in (any::<u64>(), 0..24_i32),
        places in 0_usize..20,
    ) {
        agrees(&format!("{:e}", f64::from_bits(bits)))?;
        #[allow(clippy::cast_precision_loss)]
        let amount = integer as f64 / 10_f64.powi(divisor);
        for text in [format!("{amount}"), format!("{amount:.places$}"), format!("{amount:.places$e}")] {
            agrees(&text)?;
        }
    }

    #[test]
    fn instants_print_parse_print(us in 0..=MAX_TIMESTAMP_US) {
        prop_assert_eq!(timestamp::parse(us.to_string().as_bytes()), Ok(us));
        // Two days before the end; the end itself is a test of its own.
        let us = us.min(MAX_TIMESTAMP_US - 2 * 86_400_000_000);
        prop_assert_eq!(timestamp::parse(rfc_3339(us).as_bytes()), Ok(us), "{}", rfc_3339(us));
    }

    #[test]
    fn integers_are_microseconds(us in any::log_uniform(u64::MAX)) {
        let expected = if us > MAX_TIMESTAMP_US { Err(TimestampError::OutOfRange) } else { Ok(us) };
        prop_assert_eq!(timestamp::parse(us.to_string().as_bytes()), expected);
    }

    #[test]
    fn rfc_3339_parses_to_what_it_says(
        (year, month, day) in (1971_i64..=9998, 1_u32..=12, 1_u32..=31),
        (hour, minute, second) in (0_u32..24, 0_u32..60, 0_u32..60),
        digits in "[0-9]{0,30}",
        (sign, offset) in (any::<bool>(), 0_u32..24 * 60),
        (zulu, lower) in any::<(bool, bool)>(),
    ) {
        let day = day.min(month_length(year, month));
        let mut text = format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        if !digits.is_empty() {
            text.push('.');
            text.push_str(&digits);
        }
        let minutes = if sign { i64::from(offset) } else { -i64::from(offset) };
        if zulu {
            text.push('Z');
        } else {
            let sign = if sign { '+' } else { '-' };
            text.push_str(&format!("{sign}{:02}:{:02}", offset / 60, offset % 60));
        }
        if lower {
            text.make_ascii_lowercase();
        }
        let of_day = i64::from(hour * 3_600 + minute * 60 + second);
        let seconds = days(year, month, day) * 86_400 + of_day - if zulu { 0 } else { minutes * 60 };
        // Finer than a microsecond is cut.
        let micros: i64 = format!("{digits:0<6.6}").parse().unwrap();
        let expected = u64::try_from(seconds * 1_000_000 + micros).unwrap();
        prop_assert_eq!(timestamp::parse(text.as_bytes()), Ok(expected), "{}", text);
    }

    #[test]
    fn policies_print_parse_print(
        terms in any::terms(),
        pin in prop::option::of(any::log_uniform(MAX_VERSION)),
    ) {
        let stored = StoredPolicy { policy: policy(terms), pin };
        let text = stored.to_string();
        prop_assert_eq!(StoredPolicy::parse(text.as_bytes()), Ok(stored));
        prop_assert_eq!(StoredPolicy::parse(text.as_bytes()).unwrap().to_string(), text);
    }

    #[test]
    fn policies_parse_to_what_they_say(
        capacity in any::log_uniform(u64::MAX),
        refill in "[0-9]{1,14}(\\.[0-9]{1,9})?(e-?[0-9])?",
        interval in any::log_uniform(u64::MAX),
    ) {
        let text = format!("{capacity} {refill}/{interval}");
        let expected = decimal::parse_refill(refill.as_bytes())
            .and_then(|refill| Policy::new(capacity, refill, interval).ok())
            .map(|policy| StoredPolicy { policy, pin: None });
        prop_assert_eq!(StoredPolicy::parse(text.as_bytes()).ok(), expected);
    }

    /// More texts than have room, each a few times; most of them are policies, and some are too
    /// long to be remembered.
    #[test]
    fn a_policy_that_was_read_before_is_read_alike(
        texts in prop::collection::vec("[1-3]0{0,2} [12]0{0,25}/[1-3]0{0,8}( pinned( 1{1,15})?)?|[1 /p]{0,9}", 1..60),
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..300),
    ) {
        let mut cache = PolicyCache::default();
        for index in order {
            let text = index.get(&texts).as_bytes();
            prop_assert_eq!(cache.parse(text), StoredPolicy::parse(text), "{:?}", text);
        }
    }
}
