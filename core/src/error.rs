//! What cannot be.

/// A state that cannot be: a mistake in this crate, never in what it was given. Whoever
/// gets it has changed nothing that is stored, and says so loudly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Internal(
    /// What was found.
    pub &'static str,
);

impl Internal {
    /// Stops a build with debug assertions at once.
    pub(crate) fn new(what: &'static str) -> Self {
        debug_assert!(false, "{what}");
        Self(what)
    }
}
