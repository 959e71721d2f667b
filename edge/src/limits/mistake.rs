//! What is wrong with a file of limits, and where.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_saphyr::{Location, Spanned};

/// What is wrong with a file, told as compilers tell it: `file:line: text`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1; nothing if it is the file as a whole.
    pub line: Option<u64>,
    /// What is wrong.
    pub text: String,
}

impl Mistake {
    /// Something about the file as a whole.
    pub(super) fn of_file(file: &Path, text: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: None, text: text.into() }
    }

    /// Something at a place in it.
    pub(super) fn at(file: &Path, place: Location, text: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: Some(place.line()), text: text.into() }
    }

    /// Something about a value of it.
    pub(super) fn about<T>(file: &Path, value: &Spanned<T>, text: impl Into<String>) -> Self {
        Self::at(file, value.referenced, text)
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file.display(), self.text),
            None => write!(f, "{}: {}", self.file.display(), self.text),
        }
    }
}

impl std::error::Error for Mistake {}

/// Reads YAML.
///
/// # Errors
/// Where it is none, or says something else.
pub fn read<T: DeserializeOwned>(file: &Path, text: &str) -> Result<T, Mistake> {
    serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map(|place| place.line());
        let text = error.without_snippet().to_string();
        // One line, without the place that stands before it.
        let text = text.lines().next().unwrap_or_default();
        let text = text.rsplit_once(" at line ").map_or(text, |(text, _)| text);
        Mistake { file: file.to_owned(), line, text: text.to_owned() }
    })
}
