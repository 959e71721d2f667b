//! The commands, one file each, and what they share.

mod give;
mod merge;
mod options;
#[cfg(feature = "panic-probe")]
mod panic;
mod peek;
mod policy;
mod policy_ro;
mod reply;
mod settle;
mod state;
mod states;
mod sync;
mod take;
mod takeall;
mod throttle;
mod verify;

use crate::host::{Command, Registrar};
use std::ffi::CStr;

/// Registers all commands with the server.
pub(crate) fn register(registrar: &mut Registrar) {
    registrar.add::<take::Take>();
    registrar.add::<peek::Peek>();
    registrar.add::<give::Give>();
    registrar.add::<settle::Settle>();
    registrar.add::<takeall::TakeAll>();
    registrar.add::<policy::Policy>();
    registrar.add::<policy_ro::PolicyRo>();
    registrar.add::<throttle::Throttle>();
    registrar.add::<merge::Merge>();
    registrar.add::<state::State>();
    registrar.add::<verify::Verify>();
    registrar.add_container(&sync::SYNC);
    registrar.add::<sync::Status>();
    registrar.add::<sync::Now>();
    registrar.add::<states::States>();
    registrar.add::<sync::Round>();
    registrar.add::<sync::Help>();
    #[cfg(feature = "panic-probe")]
    registrar.add::<panic::Panic>();
}

/// The names under which the server keeps statistics.
pub(crate) const NAMES: [&CStr; 16] = [
    take::Take::SPEC.name,
    peek::Peek::SPEC.name,
    give::Give::SPEC.name,
    settle::Settle::SPEC.name,
    takeall::TakeAll::SPEC.name,
    policy::Policy::SPEC.name,
    policy_ro::PolicyRo::SPEC.name,
    throttle::Throttle::SPEC.name,
    merge::Merge::SPEC.name,
    state::State::SPEC.name,
    verify::Verify::SPEC.name,
    c"cl.sync|status",
    c"cl.sync|now",
    c"cl.sync|states",
    c"cl.sync|round",
    c"cl.sync|help",
];
