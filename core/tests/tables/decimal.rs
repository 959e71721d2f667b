//! Numbers as languages print them: `digits[.digits][e[+|-]digits]`.

use claw_core::decimal::DecimalError::{self, NotANumber, TooLarge};
use claw_core::decimal::{Decimal, digits, parse, parse_refill, parse_signed, whole};

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
        // What Python, JavaScript and C print of doubles, Lua on Redis 7.0, and HINCRBYFLOAT.
        ("5.0", 5_000_000),
        ("0.10000000000000001", 100_000),
        ("0.30000000000000004", 300_000),
        ("3.3333333333333335", 3_333_333),
        ("499.98999999999999999", 499_990_000),
        ("1e-06", 1),
        ("1e-6", 1),
        ("1E+2", 100_000_000),
        ("5e+00", 5_000_000),
        ("1.5e3", 1_500_000_000),
        ("1e12", 1_000_000_000_000_000_000),
        ("1.0000000000000e+12", 1_000_000_000_000_000_000),
        ("1234567.8901234e-3", 1_234_567_890),
        // To the nearest millionth, and up from halfway.
        ("0.0000004", 0),
        ("0.00000049999999999999999999", 0),
        ("0.0000005", 1),
        ("0.0000014999999999999999999", 1),
        ("0.0000015", 2),
        ("0.0000025", 3),
        ("1.0000000", 1_000_000),
        ("0.9999995", 1_000_000),
        ("999999999999.9999999", 1_000_000_000_000_000_000),
        ("1000000000000.0000004", 1_000_000_000_000_000_000),
        // An exponent is no work, however large it is.
        ("0e999999999999999999999999", 0),
        ("0.000e+18446744073709551616", 0),
        ("1e-7", 0),
        ("5e-7", 1),
        ("9e-8", 0),
        ("1e-999999999999999999999999", 0),
        ("0.00000000000000000000000001e26", 1_000_000),
        ("100000000000000000000000000e-26", 1_000_000),
        ("1e00000000000000000000000000000003", 1_000_000_000),
    ];
    for (text, micros) in table {
        assert_eq!(parse(text.as_bytes()), Ok(*micros), "{text:?}");
    }
    // As long as it likes to be.
    let long = |digit: u8| [b"0.".to_vec(), vec![digit; 100_000]].concat();
    assert_eq!(parse(&long(b'4')), Ok(444_444));
    assert_eq!(parse(&long(b'5')), Ok(555_556));
    assert_eq!(parse(&[vec![b'0'; 100_000], b"7".to_vec()].concat()), Ok(7_000_000));
}

#[test]
fn a_refill_is_not_rounded_to_never() {
    let table: &[(&str, Option<u64>)] = &[
        ("0", Some(0)),
        ("0.0", Some(0)),
        ("0.0000000", Some(0)),
        ("0e5", Some(0)),
        ("0e-999999999999", Some(0)),
        ("1e-06", Some(1)),
        ("0.0000005", Some(1)),
        ("0.0000004", None),
        ("1e-9", None),
        ("1e-999999999999", None),
        ("0.00000000000000000000000000000000000000000000001", None),
        ("3.3333333333333335", Some(3_333_333)),
        ("1000000000000", Some(1_000_000_000_000_000_000)),
        ("1000000000001", None),
        ("1e999999999999", None),
        ("", None),
        ("-1", None),
        ("nan", None),
    ];
    for (text, expected) in table {
        assert_eq!(parse_refill(text.as_bytes()), *expected, "{text:?}");
    }
}

#[test]
fn a_whole_number_is_read_in_any_form() {
    let table: &[(&str, Result<u64, DecimalError>)] = &[
        ("5", Ok(5)),
        ("5.0", Ok(5)),
        ("5.000000000000000000000000", Ok(5)),
        ("5e0", Ok(5)),
        ("50e-1", Ok(5)),
        ("0.5e1", Ok(5)),
        ("1e3", Ok(1_000)),
        ("1.7739144e+15", Ok(1_773_914_400_000_000)),
        ("18446744073709551615.0", Ok(u64::MAX)),
        ("1.8446744073709551615e19", Ok(u64::MAX)),
        ("0e999999999999", Ok(0)),
        ("0.0e-999999999999", Ok(0)),
        ("5.5", Err(NotANumber)),
        ("5.00000000000000000000001", Err(NotANumber)),
        ("51e-1", Err(NotANumber)),
        ("1e-1", Err(NotANumber)),
        ("1e-999999999999", Err(NotANumber)),
        ("18446744073709551616", Err(TooLarge)),
        ("1.8446744073709551616e19", Err(TooLarge)),
        ("1e20", Err(TooLarge)),
        ("1e999999999999", Err(TooLarge)),
        ("1e18446744073709551616", Err(TooLarge)),
        ("", Err(NotANumber)),
        ("+5", Err(NotANumber)),
        ("-5", Err(NotANumber)),
        (" 5", Err(NotANumber)),
        ("0x10", Err(NotANumber)),
        ("nan", Err(NotANumber)),
        ("inf", Err(NotANumber)),
        ("5.", Err(NotANumber)),
        ("1e", Err(NotANumber)),
    ];
    for (text, expected) in table {
        assert_eq!(whole(text.as_bytes()), *expected, "{text:?}");
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
        ("-1e3", NotANumber),
        ("1e", NotANumber),
        ("1e+", NotANumber),
        ("1e-", NotANumber),
        ("1e+-3", NotANumber),
        ("1e1.5", NotANumber),
        ("1e3e3", NotANumber),
        ("1e 3", NotANumber),
        ("e3", NotANumber),
        (".e3", NotANumber),
        ("1.e3", NotANumber),
        (".5e3", NotANumber),
        ("1ee3", NotANumber),
        ("1e99999999999999999999x", NotANumber),
        ("1d3", NotANumber),
        ("0x10", NotANumber),
        ("1,5", NotANumber),
        ("1_000", NotANumber),
        (" 1", NotANumber),
        ("1 ", NotANumber),
        ("1\n", NotANumber),
        ("1\0", NotANumber),
        ("nan", NotANumber),
        ("NaN", NotANumber),
        ("inf", NotANumber),
        ("Infinity", NotANumber),
        ("1e999x", NotANumber),
        ("1234567890123456789012.x", NotANumber),
        ("abc", NotANumber),
        ("1.x234567", NotANumber),
        ("1.123456x", NotANumber),
        ("١", NotANumber),
        ("1000000000000.000001", TooLarge),
        ("1000000000001", TooLarge),
        ("18446744073709", TooLarge),
        ("18446744073710", TooLarge),
        ("18446744073709551615", TooLarge),
        ("18446744073709551616", TooLarge),
        ("99999999999999999999999999999999", TooLarge),
        ("1000000000000.0000005", TooLarge),
        ("1.000000000001e12", TooLarge),
        ("1e13", TooLarge),
        ("1e308", TooLarge),
        ("1.7976931348623157e+308", TooLarge),
        ("1e999999999999", TooLarge),
        ("0.0000000000000000001e999999999999999999999999", TooLarge),
    ];
    for (text, error) in table {
        assert_eq!(parse(text.as_bytes()), Err(*error), "{text:?}");
    }
    assert_eq!(parse(b"1\xff"), Err(NotANumber));
}

#[test]
fn digits_alone_are_an_integer_of_64_bits() {
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
        ("-0.0000001", Ok(0)),
        ("-0.0000005", Ok(-1)),
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
    let table = [(NotANumber, "is not a decimal number"), (TooLarge, "is too large")];
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
