//! Any bytes are a state or an error, and a state survives writing and reading.

#![no_main]

use claw_core::codec::{decode, encode};
use claw_core::configured::Configured;
use claw_core::merge::Join;
use claw_core::policy::Policy;
use claw_core::record::Record;
use libfuzzer_sys::fuzz_target;

const NOW: u64 = 1_773_914_400_000_000;

fuzz_target!(|blob: &[u8]| {
    let Ok(decoded) = decode(blob, NOW) else { return };
    let defaults = Configured::new(Policy::DEFAULT);
    let defaults = defaults.of(b"key");
    let state = Record::from(&decoded).state(&defaults, NOW);
    for strategy in Join::ALL {
        assert!(state.join(&state, strategy).same_from(&state, NOW));
    }
    let written = encode(&state, &decoded.besides).expect("a state can be written");
    // What was read from fewer bytes may take more to write.
    if let Ok(again) = decode(&written, NOW) {
        let state_again = Record::from(&again).state(&defaults, NOW);
        assert!(state_again.same_from(&state, NOW));
        assert_eq!(again.besides, decoded.besides);
    }
});
