//! The module's state between commands.

use crate::config::Settings;
use crate::error::Error;
use crate::host::{Global, Listeners, OwnedStr, Pacer, ServerInfo};
use crate::regions::Regions;
use crate::stats::Stats;
use crate::store::Store;
use crate::upkeep::Upkeep;
use redis_module::raw;
use std::cell::{Cell, Ref, RefCell};
use std::ptr;

/// Everything that lives as long as the module is loaded.
#[derive(Debug)]
pub(crate) struct Module {
    /// Borrow only with `try_borrow`: an event handler of another module may
    /// call a command of ours while one runs.
    pub(crate) settings: RefCell<Settings>,
    /// Counters for `INFO claw`.
    pub(crate) stats: Stats,
    /// What reading and writing buckets uses again.
    pub(crate) store: Store,
    /// Region sync.
    pub(crate) regions: Regions,
    /// The work between commands.
    pub(crate) upkeep: RefCell<Upkeep>,
    /// Who listens to effects.
    pub(crate) listeners: Listeners,
    /// Work that goes on faster than the server's cron.
    pub(crate) pacer: Pacer,
    /// How many commands the server had done when it loaded the module, until its cron comes.
    loaded_after: Cell<Option<u64>>,
    lent: RefCell<Option<OwnedStr>>,
}

static CURRENT: Global<Module> = Global::new();

impl Module {
    /// The state, while the module is loaded.
    pub(crate) fn current() -> Option<&'static Self> {
        CURRENT.get()
    }

    /// Prepares the state at load time.
    pub(crate) fn install() -> Option<()> {
        let module = Self {
            store: Store::new()?,
            settings: RefCell::new(Settings::default()),
            stats: Stats::default(),
            regions: Regions::default(),
            upkeep: RefCell::default(),
            listeners: Listeners::default(),
            pacer: Pacer::default(),
            loaded_after: Cell::new(commands_done()),
            lent: RefCell::new(None),
        };
        CURRENT.install(module);
        Some(())
    }

    /// Frees the state at unload time.
    pub(crate) fn remove() {
        CURRENT.remove();
    }

    /// Whether the server is still at the command, or the start, that loads the module: so
    /// nobody has used it.
    pub(crate) fn is_being_loaded(&self) -> bool {
        self.loaded_after.get().is_some_and(|before| commands_done() == Some(before))
    }

    /// The server goes on with something else.
    pub(crate) fn has_loaded(&self) {
        self.loaded_after.set(None);
    }

    /// The configuration as it is now.
    pub(crate) fn settings(&self) -> Result<Ref<'_, Settings>, Error> {
        self.settings.try_borrow().map_err(|_| Error::Busy)
    }

    /// Keeps `text` until the next call, for a caller that only borrows it.
    pub(crate) fn lend(&self, text: OwnedStr) -> *mut raw::RedisModuleString {
        let pointer = text.as_str().as_ptr();
        match self.lent.try_borrow_mut() {
            Ok(mut lent) => {
                *lent = Some(text);
                pointer
            }
            Err(_) => ptr::null_mut(),
        }
    }
}

fn commands_done() -> Option<u64> {
    ServerInfo::read(c"stats")?.number(c"total_commands_processed")
}
