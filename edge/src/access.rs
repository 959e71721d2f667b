//! Whether a caller may: bearer tokens, from a file or the environment.

use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use axum::http::{HeaderMap, header};
use subtle::{Choice, ConstantTimeEq};

/// A text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" => Err("is empty: leave it unset to have no token".to_owned()),
            text => Ok(Self(text.to_owned())),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// The tokens of which a caller has to have one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens(Vec<Secret>);

impl Tokens {
    /// Those of a file, one on each line, and the one of the environment.
    ///
    /// # Errors
    /// When the file cannot be read, or has no token in it.
    pub fn load(file: Option<&Path>, single: Option<&Secret>) -> Result<Self, String> {
        let mut tokens: Vec<Secret> = single.cloned().into_iter().collect();
        if let Some(file) = file {
            let text = fs::read_to_string(file)
                .map_err(|error| format!("the file of tokens {}: {error}", file.display()))?;
            let before = tokens.len();
            tokens.extend(text.lines().filter_map(|line| line.parse::<Secret>().ok()));
            if tokens.len() == before {
                return Err(format!("the file of tokens {} has none", file.display()));
            }
        }
        Ok(Self(tokens))
    }

    /// Whether there is none, so that nobody can show one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `token` is one of them. The time this takes tells its length at the most.
    #[must_use]
    pub fn has(&self, token: &str) -> bool {
        let same = |known: &Secret| known.0.as_bytes().ct_eq(token.as_bytes());
        self.0.iter().fold(Choice::from(0), |found, known| found | same(known)).into()
    }
}

/// The token that a request shows: `Authorization: Bearer ..`.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let shown = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = shown.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_a_file_and_of_the_environment() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "one\n\n two \n").unwrap();
        let single = "three".parse::<Secret>().unwrap();
        let tokens = Tokens::load(Some(file.path()), Some(&single)).unwrap();
        for (token, known) in
            [("one", true), ("two", true), ("three", true), ("", false), ("on", false)]
        {
            assert_eq!(tokens.has(token), known, "{token}");
        }
        assert_eq!(format!("{tokens:?} {single:?}").matches("three").count(), 0);
        fs::write(file.path(), "\n").unwrap();
        assert!(Tokens::load(Some(file.path()), None).unwrap_err().ends_with("has none"));
        assert!(Tokens::load(None, None).unwrap().is_empty());
        assert!(" ".parse::<Secret>().is_err());
    }
}
