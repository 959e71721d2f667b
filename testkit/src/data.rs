//! The directory of a server.

use std::env;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::config::Settings;
use crate::server::{Builder, Server};

/// The directory a server leaves behind, with its configuration, its log and
/// its data. From it, the server can be started again.
///
/// Dropping it removes the directory if the test kit made it, unless the
/// environment variable `CLAW_KEEP_DIRS` is set. A directory made from a path
/// is left alone.
#[derive(Debug)]
pub struct DataDir {
    root: Root,
    /// How its last server was started.
    pub(crate) settings: Option<Settings>,
}

#[derive(Debug)]
enum Root {
    Temporary(TempDir),
    Given(PathBuf),
}

impl DataDir {
    /// A new directory in the one for temporary files.
    pub(crate) fn new() -> DataDir {
        let keep = env::var_os("CLAW_KEEP_DIRS").is_some();
        // Short, for the path of a Unix socket may have no more than 107 bytes.
        let dir = tempfile::Builder::new()
            .prefix("claw-")
            .disable_cleanup(keep)
            .tempdir()
            .unwrap_or_else(|e| panic!("cannot make a temporary directory: {e}"));
        if keep {
            eprintln!("keeping {}", dir.path().display());
        }
        DataDir { root: Root::Temporary(dir), settings: None }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        match &self.root {
            Root::Temporary(dir) => dir.path(),
            Root::Given(path) => path,
        }
    }

    /// Starts the server again, on the same port and with the configuration
    /// file that is there, including what `CONFIG REWRITE` has put into it.
    ///
    /// # Panics
    ///
    /// If the server does not come up, see [`Builder::start`], or if no server
    /// of this test process has run here.
    pub fn start(self) -> Server {
        self.try_start().unwrap_or_else(|log| panic!("{}", crate::server::failure(&log)))
    }

    /// Like [`start`](DataDir::start), but hands back the log.
    ///
    /// # Errors
    ///
    /// The log of this start, if the server does not come up.
    ///
    /// # Panics
    ///
    /// If no server of this test process has run here.
    pub fn try_start(self) -> Result<Server, String> {
        Server::resume(self)
    }

    /// A server with the same settings on the same port, for a start with some
    /// of them changed. The configuration file is written anew.
    ///
    /// # Panics
    ///
    /// If no server of this test process has run here; use [`Builder::dir`].
    pub fn builder(mut self) -> Builder {
        let settings = self.settings.take().expect(NO_SETTINGS);
        Builder::from_parts(settings, Some(self))
    }
}

pub(crate) const NO_SETTINGS: &str =
    "no server has run in this directory yet: use Server::builder().dir(..)";

impl<P: Into<PathBuf>> From<P> for DataDir {
    /// An existing directory, which the test kit never removes.
    fn from(path: P) -> DataDir {
        DataDir { root: Root::Given(crate::binaries::absolute(path.into())), settings: None }
    }
}
