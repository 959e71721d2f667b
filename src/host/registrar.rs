//! Registering commands while the module is loaded.

use super::command::{self, Command, Registered, Spec};
use super::context::{Level, log, refuse};
use redis_module::raw;

/// Registers commands with the server that loads the module.
#[derive(Debug)]
pub(crate) struct Registrar {
    ctx: *mut raw::RedisModuleCtx,
    failed: bool,
}

impl Registrar {
    /// # Safety
    /// `ctx` must be the context of `RedisModule_OnLoad`, and live as long as this.
    pub(crate) unsafe fn new(ctx: *mut raw::RedisModuleCtx) -> Self {
        Self { ctx, failed: false }
    }

    /// Whether every command could be described to the server.
    pub(crate) fn all_registered(&self) -> bool {
        !self.failed
    }

    /// Adds one command.
    pub(crate) fn add<C: Command>(&mut self) {
        // SAFETY: made with the load-time context.
        let outcome = unsafe { command::register::<C>(self.ctx) };
        self.see(&command::full_name::<C>().to_string_lossy(), outcome);
    }

    /// Adds a command that only has subcommands; these are to follow.
    pub(crate) fn add_container(&mut self, spec: &Spec) {
        // SAFETY: made with the load-time context.
        let outcome = unsafe { command::register_container(self.ctx, spec) };
        self.see(&spec.name.to_string_lossy(), outcome);
    }

    fn see(&mut self, name: &str, outcome: Option<Registered>) {
        match outcome {
            Some(Registered::Yes) => {}
            Some(Registered::NameTaken) => {
                let line = format!("{name} belongs to another module already; leaving it alone");
                // SAFETY: a live context.
                unsafe { log(self.ctx, Level::Notice, &line) };
            }
            None => {
                self.failed = true;
                // SAFETY: a live context.
                unsafe { refuse(self.ctx, &format!("cannot describe {name}")) };
            }
        }
    }
}
