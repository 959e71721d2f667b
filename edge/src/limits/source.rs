//! The files that limits come from.

use std::fs;
use std::path::{Path, PathBuf};

use super::descriptor_file::Domains;
use super::mistake::Mistake;
use super::rule::Rule;
use super::{Limits, environment, file};
use crate::config::Config;

/// Folders within folders.
const DEEPEST: usize = 8;

/// Bytes of a file.
const LARGEST: u64 = 16 << 20;

/// A file, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

/// All files of the settings. Limits are made of what was read, so that what is compared to see
/// a change is what the limits are made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Of named limits.
    pub named: Vec<Source>,
    /// Of descriptors, by path.
    pub descriptors: Vec<Source>,
}

impl Sources {
    /// Reads the files.
    ///
    /// # Errors
    /// Names the file that cannot be read.
    pub fn read(config: &Config) -> Result<Self, Mistake> {
        let named = config.config.iter().map(|path| source(path)).collect::<Result<_, _>>()?;
        let descriptors = config.rls_config.as_deref().map_or(Ok(Vec::new()), files)?;
        Ok(Self { named, descriptors })
    }

    /// The limits that they and the environment make.
    ///
    /// # Errors
    /// Says what is wrong, and where.
    pub fn limits(&self, config: &Config) -> Result<Limits, Mistake> {
        let mut limits = Limits {
            rules: environment::rules(config)
                .map_err(|text| Mistake::of_file(Path::new("environment"), text))?,
            sources: self.clone(),
            ..Limits::default()
        };
        for source in &self.named {
            file::add(&mut limits.rules, source, &config.key_prefix)?;
        }
        let mut domains = Domains::new(config);
        for source in &self.descriptors {
            domains.add(&source.path, &source.text)?;
        }
        domains.into_limits(&mut limits);
        // No mistake of one file: the limit may be in another, or come with the environment.
        if limits.adaptive().any(|(_, adaptive)| adaptive.goes_by_weight())
            && !limits.rules.iter().any(Rule::tells_users_apart)
        {
            tracing::warn!("nobody is premium by weight: no limit has user in its key");
        }
        Ok(limits)
    }
}

/// The file at `path`, or all files in the folder and those below, in the order of their paths.
///
/// # Errors
/// Names the one that cannot be read.
pub fn files(path: &Path) -> Result<Vec<Source>, Mistake> {
    let mut paths = Vec::new();
    collect(path, DEEPEST, &mut paths)?;
    paths.sort();
    paths.iter().map(|path| source(path)).collect()
}

fn source(path: &Path) -> Result<Source, Mistake> {
    let wrong = |error: std::io::Error| Mistake::of_file(path, error.to_string());
    if fs::metadata(path).map_err(wrong)?.len() > LARGEST {
        return Err(Mistake::of_file(path, "is larger than 16 MiB"));
    }
    Ok(Source { path: path.to_owned(), text: fs::read_to_string(path).map_err(wrong)? })
}

/// The files in a folder and below. Names that begin with a dot are left out: Kubernetes keeps
/// the versions of a mounted ConfigMap under such names, and links to the one in force.
fn collect(path: &Path, depth: usize, paths: &mut Vec<PathBuf>) -> Result<(), Mistake> {
    let wrong = |error: std::io::Error| Mistake::of_file(path, error.to_string());
    if !fs::metadata(path).map_err(wrong)?.is_dir() {
        paths.push(path.to_owned());
        return Ok(());
    }
    let Some(depth) = depth.checked_sub(1) else {
        return Err(Mistake::of_file(path, "is too deep a folder"));
    };
    for entry in fs::read_dir(path).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            collect(&entry.path(), depth, paths)?;
        }
    }
    Ok(())
}
