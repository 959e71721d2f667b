//! Any bytes are a state or an error, and a state survives writing and reading.

#![no_main]

use claw_core::codec::{decode, encode};
use claw_core::defaults::Defaults;
use claw_core::merge::{State, Strategy};
use claw_core::policy::Policy;
use libfuzzer_sys::fuzz_target;

const NOW: u64 = 1_773_914_400_000_000;

fuzz_target!(|blob: &[u8]| {
    let Ok((record, newer)) = decode(blob, NOW) else { return };
    let state = State::new(&record, &Defaults::new(Policy::DEFAULT), NOW);
    for strategy in Strategy::ALL {
        assert!(state.join(&state, strategy).same_from(&state, NOW));
    }
    let written = encode(&state, &newer).expect("a state can be written");
    // What was read from fewer bytes may take more to write.
    if let Ok((again, kept)) = decode(&written, NOW) {
        let again = State::new(&again, &Defaults::new(Policy::DEFAULT), NOW);
        assert!(again.same_from(&state, NOW));
        assert_eq!(kept, newer);
    }
});
