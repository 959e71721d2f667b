//! Keys, numbers and field texts that break careless code.

use std::time::SystemTime;

use crate::bucket::TIMES;
use crate::rng::Rng;

pub const FIELDS: &[&str] = &["tokens", "timestamp", "userWeight", "policy", "remainder"];

const NUMBERS: &[&str] = &[
    "",
    " ",
    " 5",
    "5 ",
    "\t5",
    "5\n",
    "5\r\n",
    "5\0",
    "-0",
    "-1",
    "--5",
    "- 5",
    "+5",
    "0",
    "00",
    "007",
    "000000000000000000000000000000000000000007",
    "0x10",
    "0b1",
    "0o7",
    "1e3",
    "1E3",
    "1e-6",
    "1e-9",
    "5e-7",
    "5e",
    "5e+",
    "5.0e+00",
    "50e-1",
    "1.5e0",
    "1e12",
    "1e999999999999",
    "1e-999999999999",
    "0e999999999999",
    "1e18446744073709551616",
    "inf",
    "-inf",
    "Infinity",
    "nan",
    "NaN",
    "1_000",
    "1,000",
    "1/2",
    "5%",
    "٥",
    "５",
    "²",
    "Ⅷ",
    "five",
    "true",
    "nil",
    "null",
    ".",
    "5.",
    ".5",
    "0.5",
    "-0.5",
    "-12.000001",
    "-1000000000000",
    "-9000000000000",
    "-9000000000000.000001",
    "-",
    "-.5",
    "1.0",
    "1.000000",
    "1.0000000",
    "0.000001",
    "0.0000001",
    "0.123456",
    "0.1234567",
    "0.10000000000000001",
    "3.3333333333333335",
    "499.98999999999999999",
    "999999999999.9999999",
    "1.2.3",
    "1.-5",
    "0.000000000000000000000000000001",
    "3.141592653589793238462643383279",
    "4294967295",
    "4294967296",
    "31622400",
    "31622401",
    "31622400000",
    "31622400001",
    "999999999999",
    "999999999999.999999",
    "1000000000000",
    "1000000000000.000000",
    "1000000000000.000001",
    "1000000000001",
    "1000000000000000000",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "340282366920938463463374607431768211456",
];

const POLICIES: &[&str] = &[
    "10 5/1000",
    "10 5/1000 pinned",
    "10 5/1000 pinned 7",
    "1 0.000001/31622400000",
    "1 0.000001/31622400000 pinned 1",
    "1000000000000 1000000000000/1",
    "1000000000000 1000000000000/1 pinned 18446744073709551615",
    "1000000000000 0.000001/31622400000",
    "10 0/1000",
    "0 5/1000",
    "0 0/1000",
    "0 5/1000 pinned 3",
    "10 0/1 pinned 0",
    "3 1/7 pinned 2",
    "0010 0005.500000/01000 pinned 007",
    "10 5/1e3",
    "10.0 0.10000000000000001/1000.0 pinned 2.0",
    "1e1 1e-06/1000",
    "1000000000000 1/31622400000",
    // None of these is one.
    "",
    " ",
    "10",
    "10 5",
    "10 5/",
    "10 /1000",
    "/",
    "10 5/1000 ",
    " 10 5/1000",
    "10  5/1000",
    "10 5/1000 Pinned",
    "10 5/1000 pinned ",
    "10 5/1000 pinned -1",
    "10 5/1000 pinned 1 2",
    "10 5/1000 pinned 18446744073709551616",
    "10 5/0",
    "10 5/31622400001",
    "1000000000001 5/1000",
    "10 1000000000000.1/1000",
    "10 0.0000001/1000",
    "10 5/1000/1000",
    "10\t5/1000",
    "10 5/1000\0",
    "10 1e-9/1000",
    "10.5 5/1000",
    "10 5/1e-3",
    "-10 5/1000",
    "nan inf/nan",
];

const KEYS: &[&[u8]] = &[
    b"",
    b" ",
    b"\0",
    b"a\0b",
    b"\r\n",
    b"k\r\n+OK\r\n",
    b"%s%n%s%n%d",
    b"\xff\xfe\x80\xc0",
    b"{tag}x",
    b"{}",
    b"{",
    b"CAPACITY",
    b"RESET",
    b"TOKENS",
    b"KEEP",
    b"AND",
    b"and",
    b"*",
    b"1",
    b"-1",
    b"'",
    b"\"",
    b"\\",
    b"\x1b[2J",
    "ключ".as_bytes(),
    "🦀".as_bytes(),
    b"tokens",
    b"$(reboot)",
    b"\x7f",
];

const MEGABYTE: usize = 1 << 20;

pub fn number(rng: &mut Rng) -> Vec<u8> {
    match rng.below(20) {
        0 => vec![b'9'; 512],
        1 => [vec![b'0'; 511], b"7".to_vec()].concat(),
        2 => {
            let places = rng.below(31);
            format!("{}.{}", rng.any_size(), digits(rng, places)).into_bytes()
        }
        3 => rng.any_size().to_string().into_bytes(),
        4 => {
            let len = rng.below(12);
            rng.bytes(len)
        }
        5 if rng.once_in(200) => vec![b'1'; MEGABYTE],
        _ => rng.pick(NUMBERS).as_bytes().to_vec(),
    }
}

fn digits(rng: &mut Rng, len: usize) -> String {
    (0..len).map(|_| char::from(b'0' + rng.below(10) as u8)).collect()
}

pub fn key(rng: &mut Rng) -> Vec<u8> {
    match rng.below(40) {
        0 if rng.once_in(100) => vec![b'K'; MEGABYTE],
        1 if rng.once_in(100) => Rng::new(1).bytes(MEGABYTE),
        2 => vec![b'%'; 300],
        3 => Rng::new(rng.next() % 4).bytes(64),
        4 => {
            let len = rng.below(5);
            rng.bytes(len)
        }
        _ => KEYS[rng.below(KEYS.len())].to_vec(),
    }
}

/// A text for a field of a bucket: right, extreme, or wrong.
pub fn field_text(rng: &mut Rng, field: &str) -> Vec<u8> {
    if rng.percent(15) {
        return match rng.below(50) {
            0 => vec![b'x'; MEGABYTE],
            _ => {
                let len = rng.below(40);
                // A colon could make a time that the tests do not know of.
                rng.bytes(len).into_iter().filter(|b| *b != b':').collect()
            }
        };
    }
    match field {
        "timestamp" => match rng.below(6) {
            0 => time_text(rng),
            1 => number(rng),
            2 => from_now(rng, 29 * 24),
            _ => from_now(rng, 1),
        },
        "policy" => rng.pick(POLICIES).as_bytes().to_vec(),
        "userWeight" if rng.percent(80) => (1 + rng.below(10)).to_string().into_bytes(),
        "tokens" if rng.percent(60) => {
            let places = rng.below(7);
            let whole = rng.any_size() % 2_000;
            let sign = if rng.once_in(4) { "-" } else { "" };
            match places {
                0 => format!("{sign}{whole}").into_bytes(),
                _ => format!("{sign}{whole}.{}", digits(rng, places)).into_bytes(),
            }
        }
        "remainder" if rng.percent(60) => (rng.any_size() % 1_000_000).to_string().into_bytes(),
        _ => number(rng),
    }
}

fn time_text(rng: &mut Rng) -> Vec<u8> {
    TIMES[rng.below(TIMES.len())].0.as_bytes().to_vec()
}

/// Unix microseconds within so many hours of now, or a little more than 30
/// days ahead.
fn from_now(rng: &mut Rng, hours: u64) -> Vec<u8> {
    const HOUR_US: u64 = 3_600_000_000;
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("it is later than 1970").as_micros() as u64;
    let offset = rng.next() % (hours * HOUR_US);
    let at = match rng.below(8) {
        0 => now + offset,
        1 => now + 30 * 24 * HOUR_US + HOUR_US,
        2 => 0,
        _ => now - offset,
    };
    at.to_string().into_bytes()
}
