//! Builds of the module.

use std::path::PathBuf;

/// Which of two builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The one that the run is about.
    Tested,
    /// The one that it is compared with.
    Other,
}

/// A build of the module.
#[derive(Debug, Clone)]
pub struct Build {
    /// Its part in the run.
    pub role: Role,
    /// Its file; the path is absolute.
    pub module: PathBuf,
}

impl Role {
    /// The name in tables.
    pub fn title(self) -> &'static str {
        match self {
            Role::Tested => "this build",
            Role::Other => "other build",
        }
    }
}

/// The lines of a header that say which builds are compared; none if there is one.
pub fn header(builds: &[Build]) -> String {
    match builds {
        [_] => String::new(),
        _ => builds
            .iter()
            .map(|Build { role, module }| format!("{:14}{}\n", role.title(), module.display()))
            .collect(),
    }
}
