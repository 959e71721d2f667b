//! The commands, one file each, and what they share.

mod give;
mod merge;
mod options;
#[cfg(feature = "panic-probe")]
mod panic;
mod peek;
mod policy;
mod reply;
mod state;
mod take;
mod takeall;
mod throttle;
mod verify;

use crate::server::{Command, Registrar};
use std::ffi::CStr;

/// Registers all commands with the server.
pub(crate) fn register(registrar: &mut Registrar) {
    registrar.add::<take::Take>();
    registrar.add::<peek::Peek>();
    registrar.add::<give::Give>();
    registrar.add::<takeall::TakeAll>();
    registrar.add::<policy::Policy>();
    registrar.add::<throttle::Throttle>();
    registrar.add::<merge::Merge>();
    registrar.add::<state::State>();
    registrar.add::<verify::Verify>();
    #[cfg(feature = "panic-probe")]
    registrar.add::<panic::Panic>();
}

/// The names of all commands.
pub(crate) const NAMES: [&CStr; 9] = [
    take::Take::SPEC.name,
    peek::Peek::SPEC.name,
    give::Give::SPEC.name,
    takeall::TakeAll::SPEC.name,
    policy::Policy::SPEC.name,
    throttle::Throttle::SPEC.name,
    merge::Merge::SPEC.name,
    state::State::SPEC.name,
    verify::Verify::SPEC.name,
];
