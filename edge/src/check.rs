//! `claw-edge check FILE..`: whether files of limits can be read, and how they are understood.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::de::IgnoredAny;

use crate::config::Config;
use crate::limits::source::{self, Source, Sources};
use crate::limits::{Limits, Mistake, mistake};

/// The limits of `paths`, files and folders of both formats, as they are understood together
/// and with the environment's.
///
/// # Errors
/// What is wrong with each of them.
pub fn check(config: &Config, paths: &[PathBuf]) -> Result<Limits, Vec<Mistake>> {
    let mut all = Sources::default();
    let mut mistakes = Vec::new();
    for path in paths {
        let files = match source::files(path) {
            Ok(files) => files,
            Err(mistake) => {
                mistakes.push(mistake);
                continue;
            }
        };
        for file in files {
            // What cannot be read at all is of neither format.
            if let Err(mistake) = mistake::read::<IgnoredAny>(&file.path, &file.text) {
                mistakes.push(mistake);
                continue;
            }
            let mut alone = Sources::default();
            for sources in [&mut alone, &mut all] {
                let list =
                    if is_named(&file) { &mut sources.named } else { &mut sources.descriptors };
                list.push(file.clone());
            }
            mistakes.extend(alone.limits(config).err());
        }
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    all.limits(config).map_err(|mistake| vec![mistake])
}

/// Whether a file is one of named limits: it has `limits`, and descriptors have a `domain`.
fn is_named(file: &Source) -> bool {
    serde_saphyr::from_str::<HashMap<String, IgnoredAny>>(&file.text)
        .is_ok_and(|map| map.contains_key("limits") && !map.contains_key("domain"))
}
