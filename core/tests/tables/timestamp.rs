//! Instants: unix microseconds, or RFC 3339.

use claw_core::timestamp::TimestampError::{self, NotATime, OutOfRange};
use claw_core::timestamp::parse;

/// 2026-03-19T10:00:00Z
const T: u64 = 1_773_914_400_000_000;
const SECOND: u64 = 1_000_000;
const HOUR: u64 = 3_600 * SECOND;

#[test]
fn rfc_3339_is_read() {
    let table: &[(&str, u64)] = &[
        // Zulu, in both cases, and the blank that RFC 3339 allows for the T.
        ("2026-03-19T10:00:00Z", T),
        ("2026-03-19t10:00:00z", T),
        ("2026-03-19T10:00:00z", T),
        ("2026-03-19 10:00:00Z", T),
        // Offsets; -00:00 is UTC of which the local time is not known.
        ("2026-03-19T10:00:00+00:00", T),
        ("2026-03-19T10:00:00-00:00", T),
        ("2026-03-19T12:00:00+02:00", T),
        ("2026-03-19T05:30:00-04:30", T),
        ("2026-03-20T09:59:00+23:59", T),
        ("2026-03-18T10:01:00-23:59", T),
        // Fractions; what is finer than a microsecond is cut.
        ("2026-03-19T10:00:00.5Z", T + 500_000),
        ("2026-03-19T10:00:00.000001Z", T + 1),
        ("2026-03-19T10:00:00.123456+00:00", T + 123_456),
        ("2026-03-19T10:00:00.1234567Z", T + 123_456),
        ("2026-03-19T10:00:00.999999999Z", T + 999_999),
        ("2026-03-19T10:00:00.9999999999Z", T + 999_999),
        ("2026-03-19T12:00:00.000001999999999999999999+02:00", T + 1),
        ("2026-03-19T05:30:00.00000099999999999-04:30", T),
        (
            "2026-03-19T10:00:00.50000000000000000000000000000000000000000000000000000000000000Z",
            T + 500_000,
        ),
        // A leap second is the second before it.
        ("2016-12-31T23:59:60Z", 1_483_228_799 * SECOND),
        ("2016-12-31T23:59:59Z", 1_483_228_799 * SECOND),
        ("2017-01-01T00:59:60+01:00", 1_483_228_799 * SECOND),
        // Leap days.
        ("2024-02-29T00:00:00Z", 1_709_164_800 * SECOND),
        ("2000-02-29T00:00:00Z", 951_782_400 * SECOND),
        // The ends of time.
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000001Z", 1),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T23:00:00-01:00", 0),
        ("1970-01-01T00:00:00-01:00", HOUR),
        ("9999-12-30T21:59:59Z", 253_402_207_199 * SECOND),
    ];
    for (text, us) in table {
        assert_eq!(parse(text.as_bytes()), Ok(*us), "{text:?}");
    }
}

/// An integer is microseconds, whatever the size: 1773914400 is half an hour
/// after midnight on 1 January 1970, not a day in 2026.
#[test]
fn an_integer_is_never_guessed_to_be_seconds() {
    let table: &[(&str, Result<u64, TimestampError>)] = &[
        ("0", Ok(0)),
        ("1773914400", Ok(1_773_914_400)),
        ("1773914400000", Ok(1_773_914_400_000)),
        ("1773914400000000", Ok(T)),
        // However it is written.
        ("1773914400000000.0", Ok(T)),
        ("1.7739144e+15", Ok(T)),
        ("1.7739144e+18", Err(OutOfRange)),
        ("1e999999999999", Err(OutOfRange)),
        ("01773914400000000", Ok(T)),
        ("2026", Ok(2_026)),
        ("20260319", Ok(20_260_319)),
        ("1773914400000000000", Err(OutOfRange)),
        ("18446744073709551615", Err(OutOfRange)),
        ("18446744073709551616", Err(OutOfRange)),
        (
            "999999999999999999999999999999999999999999999999999999999999999999999999",
            Err(OutOfRange),
        ),
    ];
    for (text, expected) in table {
        assert_eq!(parse(text.as_bytes()), *expected, "{text:?}");
    }
}

#[test]
fn before_1970_is_out_of_range() {
    let table = [
        "1969-12-31T23:59:59Z",
        "1969-12-31T23:59:59.999999Z",
        "1970-01-01T00:30:00+01:00",
        "1900-01-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
    ];
    for text in table {
        assert_eq!(parse(text.as_bytes()), Err(OutOfRange), "{text:?}");
    }
}

#[test]
fn anything_else_is_no_time() {
    let table = [
        "",
        " ",
        "now",
        "-1",
        "+1",
        "1.5",
        "1773914400.5",
        "1e-15",
        "0x0",
        // No offset: which instant it is nobody knows.
        "2026-03-19",
        "2026-03-19T10:00:00",
        "2026-03-19T10:00",
        // No such date, no such time.
        "2026-02-29T10:00:00Z",
        "2100-02-29T10:00:00Z",
        "2026-02-30T10:00:00Z",
        "2026-00-19T10:00:00Z",
        "2026-13-19T10:00:00Z",
        "2026-03-00T10:00:00Z",
        "2026-03-32T10:00:00Z",
        "2026-03-19T24:00:00Z",
        "2026-03-19T10:60:00Z",
        "2026-03-19T10:00:61Z",
        "2026-03-19T10:00:00+24:00",
        "2026-03-19T10:00:00-24:00",
        "2026-03-19T10:00:00.123456789012+24:00",
        "2026-03-19T10:00:00+25:59",
        "2026-03-19T10:00:00+99:00",
        "2026-03-19T10:00:00+01:60",
        // Not quite the form.
        "2026-3-19T10:00:00Z",
        "26-03-19T10:00:00Z",
        "10000-01-01T00:00:00Z",
        "2026-03-19_10:00:00Z",
        "2026-03-19T10:00:00.Z",
        "2026-03-19T10:00:00 Z",
        "2026/03/19T10:00:00Z",
        " 2026-03-19T10:00:00Z",
        "2026-03-19T10:00:00Z ",
        "2026-03-19T10:00:00Z\n",
        "2026-03-19T10:00:00Z\0",
        "2026-03-19T10:00:00ZZ",
        "2026-03-19T10:00:00CET",
        "+2026-03-19T10:00:00Z",
        "-2026-03-19T10:00:00Z",
        "+002026-03-19T10:00:00Z",
        "2026-W12-4T10:00:00Z",
        "Thu, 19 Mar 2026 10:00:00 GMT",
        "２０２６-03-19T10:00:00Z",
        "2026-03-19T10:00:00\u{2212}02:00",
        "2026-03-19T10:00:00.000000000000000000000000000000000000000000000",
        "2026-03-19T10:00:00.0000000000000000x00000000000000000000000000000Z",
        "2026-03-19T10:00:00.00000000000000000.00000000000000000000000000000Z",
    ];
    for text in table {
        assert_eq!(parse(text.as_bytes()), Err(NotATime), "{text:?}");
    }
    assert_eq!(parse(b"2026-03-19T10:00:00\xff"), Err(NotATime));
    assert_eq!(parse(b"\xff\xfe"), Err(NotATime));
}

/// Forms beside RFC 3339 (ISO 8601, RFC 9557) may be refused or read, but not
/// misread.
#[test]
fn related_forms_are_not_misread() {
    let table = [
        ("2026-03-19T12:00:00+02", T),
        ("2026-03-19T12:00:00+0200", T),
        ("2026-03-19T10:00Z", T),
        ("20260319T100000Z", T),
        ("20260320T100000+2400", T),
        ("2026-03-19T10:00:00,5Z", T + 500_000),
        ("2026-03-19T10:00:00,50000000000000000Z", T + 500_000),
        ("2026-03-19T10:00:00Z[UTC]", T),
        ("2026-03-19T11:00:00+01:00[Europe/Berlin]", T),
    ];
    for (text, us) in table {
        let read = parse(text.as_bytes());
        assert!(read == Ok(us) || read == Err(NotATime), "{text:?} is {read:?}");
    }
}

#[test]
fn an_error_says_what_is_wrong() {
    let table = [
        (NotATime, "is neither unix microseconds nor an RFC 3339 time"),
        (OutOfRange, "is not between the years 1970 and 9999"),
    ];
    for (error, text) in table {
        assert_eq!(error.to_string(), text);
    }
}
