//! The server that hosts the module, behind safe types: its module API.
//!
//! The bindings of the `redis-module` crate are used directly. Its own wrappers
//! allocate for every argument and reply and let panics abort the server.

pub(crate) mod acl;
pub(crate) mod api;
mod args;
pub(crate) mod clients;
mod clock;
mod command;
mod context;
mod global;
mod key;
mod lent;
mod listeners;
mod pacer;
mod registrar;
mod scan;
mod server_info;
mod string;

pub(crate) use api::{ERR, OK, checks_functions};
pub(crate) use args::Args;
pub(crate) use clock::now;
pub(crate) use command::{Access, Argument, Command, Keys, Kind as ArgumentKind, Spec};
pub(crate) use context::{Context, EVENT_VERSION, EventClass, Level, in_event, log, refuse};
pub(crate) use global::Global;
pub(crate) use key::{Key, Kind};
pub(crate) use lent::{Lent, Owner};
pub(crate) use listeners::Listeners;
pub(crate) use pacer::Pacer;
pub(crate) use registrar::Registrar;
pub(crate) use scan::Scan;
pub(crate) use server_info::ServerInfo;
pub(crate) use string::{OwnedStr, Str};
