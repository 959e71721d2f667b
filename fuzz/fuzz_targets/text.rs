//! What is read and printed is the same when it is read again:
//! `cargo +nightly fuzz run text`

#![no_main]

use claw_core::policy::StoredPolicy;
use claw_core::{decimal, timestamp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    if let Ok(micros) = decimal::parse(text) {
        let printed = decimal::Decimal::new(micros).to_string();
        assert_eq!(decimal::parse(printed.as_bytes()), Ok(micros), "{printed}");
        let plain = !text.iter().any(|byte| matches!(byte, b'e' | b'E'));
        assert!(!plain || printed.len() <= text.len(), "{printed} is not the shortest text");
        assert!(!printed.contains('.') || !printed.ends_with(['0', '.']), "{printed}");
    }
    if let Ok(micros) = decimal::parse_signed(text) {
        let printed = decimal::Decimal::signed(micros).to_string();
        assert_eq!(decimal::parse_signed(printed.as_bytes()), Ok(micros), "{printed}");
    }
    if let Ok(value) = decimal::whole(text) {
        assert_eq!(decimal::digits(value.to_string().as_bytes()), Ok(value));
    }
    if let Ok(micros) = timestamp::parse(text) {
        assert_eq!(timestamp::parse(micros.to_string().as_bytes()), Ok(micros));
    }
    if let Ok(stored) = StoredPolicy::parse(text) {
        let printed = stored.to_string();
        assert_eq!(StoredPolicy::parse(printed.as_bytes()), Ok(stored), "{printed}");
    }
});
