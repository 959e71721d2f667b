//! The module API: everything unsafe, behind safe types.
//!
//! The bindings of the `redis-module` crate are used directly. Its own wrappers
//! allocate for every argument and reply and let panics abort the server.

mod api;
mod args;
mod clients;
mod clock;
mod command;
mod context;
mod events;
mod info;
mod key;
mod listeners;
mod load;
mod module;
mod scan;
mod server_info;
mod settings;
mod string;

pub(crate) use args::Args;
pub(crate) use clock::now;
pub(crate) use command::{Access, Argument, Command, Keys, Kind as ArgumentKind, Spec};
pub(crate) use context::{Context, EventClass};
pub(crate) use key::{Key, Kind};
pub(crate) use load::Registrar;
pub(crate) use module::{Module, Open};
pub(crate) use scan::Scan;
pub(crate) use string::{OwnedStr, Str};
