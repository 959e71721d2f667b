//! Amounts: `digits[.digits]`, up to six places, up to 10^12.

use claw_core::decimal::DecimalError::{self, NotANumber, TooFine, TooLarge};
use claw_core::decimal::{Decimal, digits, parse, parse_signed};

#[test]
fn an_amount_is_read_in_millionths() {
    let table: &[(&str, u64)] = &[
        ("0", 0),
        ("1", 1_000_000),
        ("12.5", 12_500_000),
        ("0.5", 500_000),
        ("0.000001", 1),
        ("0.1", 100_000),
        ("0.10", 100_000),
        ("0.100000", 100_000),
        ("10.02", 10_020_000),
        ("999.999999", 999_999_999),
        ("007", 7_000_000),
        ("0.0", 0),
        ("1000000000000", 1_000_000_000_000_000_000),
        ("999999999999.999999", 999_999_999_999_999_999),
        ("1000000000000.000000", 1_000_000_000_000_000_000),
        ("0000000000000000000000000001", 1_000_000),
    ];
    for (text, micros) in table {
        assert_eq!(parse(text.as_bytes()), Ok(*micros), "{text:?}");
    }
}

#[test]
fn anything_else_is_no_amount() {
    let table: &[(&str, DecimalError)] = &[
        ("", NotANumber),
        (".", NotANumber),
        (".5", NotANumber),
        ("5.", NotANumber),
        ("1.2.3", NotANumber),
        ("-1", NotANumber),
        ("-0", NotANumber),
        ("+1", NotANumber),
        ("1e3", NotANumber),
        ("0x10", NotANumber),
        ("1,5", NotANumber),
        ("1_000", NotANumber),
        (" 1", NotANumber),
        ("1 ", NotANumber),
        ("1\n", NotANumber),
        ("1\0", NotANumber),
        ("nan", NotANumber),
        ("inf", NotANumber),
        ("abc", NotANumber),
        ("1.x234567", NotANumber),
        ("1.123456x", NotANumber),
        ("١", NotANumber),
        ("0.0000001", TooFine),
        ("1.0000000", TooFine),
        ("12.1234567", TooFine),
        ("1000000000000.000001", TooLarge),
        ("1000000000001", TooLarge),
        ("18446744073709", TooLarge),
        ("18446744073710", TooLarge),
        ("18446744073709551615", TooLarge),
        ("18446744073709551616", TooLarge),
        ("99999999999999999999999999999999", TooLarge),
    ];
    for (text, error) in table {
        assert_eq!(parse(text.as_bytes()), Err(*error), "{text:?}");
    }
    assert_eq!(parse(b"1\xff"), Err(NotANumber));
}

#[test]
fn an_integer_is_digits_that_fit_in_64_bits() {
    let table: &[(&str, Result<u64, DecimalError>)] = &[
        ("0", Ok(0)),
        ("00", Ok(0)),
        ("9999999999999999999", Ok(9_999_999_999_999_999_999)),
        ("18446744073709551615", Ok(u64::MAX)),
        ("00000000018446744073709551615", Ok(u64::MAX)),
        ("18446744073709551616", Err(TooLarge)),
        ("28446744073709551615", Err(TooLarge)),
        ("184467440737095516150", Err(TooLarge)),
        ("", Err(NotANumber)),
        ("1.0", Err(NotANumber)),
        ("-1", Err(NotANumber)),
        ("99999999999999999999x", Err(NotANumber)),
    ];
    for (text, expected) in table {
        assert_eq!(digits(text.as_bytes()), *expected, "{text:?}");
    }
}

#[test]
fn an_amount_is_printed_as_short_as_it_can_be() {
    let table: &[(u64, &str)] = &[
        (0, "0"),
        (1, "0.000001"),
        (10, "0.00001"),
        (100_000, "0.1"),
        (500_000, "0.5"),
        (999_999, "0.999999"),
        (1_000_000, "1"),
        (1_000_001, "1.000001"),
        (10_020_000, "10.02"),
        (12_500_000, "12.5"),
        (100_000_000, "100"),
        (1_000_000_000_000_000_000, "1000000000000"),
        (u64::MAX, "18446744073709.551615"),
    ];
    for (micros, text) in table {
        assert_eq!(Decimal::new(*micros).to_string(), *text);
    }
}

/// A debt has a sign in front, and reaches to 9 * 10^12.
#[test]
fn a_debt_is_an_amount_with_a_sign() {
    let table = [
        ("-1", Ok(-1_000_000)),
        ("-0.000001", Ok(-1)),
        ("-12.5", Ok(-12_500_000)),
        ("-0", Ok(0)),
        ("-007", Ok(-7_000_000)),
        ("5", Ok(5_000_000)),
        ("1000000000000", Ok(1_000_000_000_000_000_000)),
        ("1000000000000.000001", Err(TooLarge)),
        ("-1000000000000.000001", Ok(-1_000_000_000_000_000_001)),
        ("-9000000000000", Ok(-9_000_000_000_000_000_000)),
        ("-9000000000000.000001", Err(TooLarge)),
        ("-18446744073709551616", Err(TooLarge)),
        ("-0.0000001", Err(TooFine)),
        ("-", Err(NotANumber)),
        ("--1", Err(NotANumber)),
        ("- 1", Err(NotANumber)),
        ("-+1", Err(NotANumber)),
        ("-.5", Err(NotANumber)),
        ("1-", Err(NotANumber)),
    ];
    for (text, expected) in table {
        assert_eq!(parse_signed(text.as_bytes()), expected, "{text:?}");
    }
    let table = [
        (0, "0"),
        (-1, "-0.000001"),
        (-1_000_000, "-1"),
        (-12_500_000, "-12.5"),
        (-9_000_000_000_000_000_000, "-9000000000000"),
        (i64::MIN, "-9223372036854.775808"),
        (i64::MAX, "9223372036854.775807"),
    ];
    for (micros, text) in table {
        assert_eq!(Decimal::signed(micros).to_string(), text);
    }
}

#[test]
fn an_error_says_what_is_wrong() {
    let table = [
        (NotANumber, "is not a decimal number"),
        (TooFine, "has more than 6 decimal places"),
        (TooLarge, "is too large"),
    ];
    for (error, text) in table {
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn an_integer_is_written_as_it_is() {
    let powers =
        (0..20).map(|power| 10_u64.pow(power)).flat_map(|n| [n - 1, n, n + 1, 2 * (n / 2)]);
    for number in powers.chain([u64::MAX, u64::MAX - 1, 1_773_914_400_000_000]) {
        let mut written = Decimal::EMPTY;
        written.set_integer(number);
        assert_eq!(written.as_bytes(), number.to_string().as_bytes());
        assert_eq!(digits(written.as_bytes()), Ok(number));
    }
}

/// Sixteen digits are read eight at a time, others one by one.
#[test]
fn one_wrong_byte_among_digits_is_seen() {
    for len in [1, 7, 8, 15, 16, 17, 19, 20, 24] {
        let text = vec![b'1'; len];
        for at in 0..len {
            for wrong in (0..=u8::MAX).filter(|byte| !byte.is_ascii_digit()) {
                let mut text = text.clone();
                *text.get_mut(at).unwrap() = wrong;
                assert_eq!(digits(&text), Err(NotANumber), "{}", text.escape_ascii());
            }
        }
    }
}
