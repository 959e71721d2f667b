//! What lives as long as the module is loaded.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A value of the main thread's: the server runs commands, configuration callbacks, info and
/// events under its one lock, and no thread of ours asks for it.
#[derive(Debug)]
pub(crate) struct Global<T>(AtomicPtr<T>);

impl<T> Global<T> {
    /// Nothing yet.
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// The value, from its installation until its removal.
    pub(crate) fn get(&self) -> Option<&'static T> {
        // SAFETY: set by `install` from a leaked box and freed only by `remove`,
        // after which the server calls nothing of ours any more.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    /// Puts the value in its place, when the module is loaded.
    pub(crate) fn install(&self, value: T) {
        self.0.store(Box::into_raw(Box::new(value)), Ordering::Release);
    }

    /// Frees the value, when the module is unloaded: nobody may use it any more.
    pub(crate) fn remove(&self) {
        let value = self.0.swap(ptr::null_mut(), Ordering::AcqRel);
        if !value.is_null() {
            // SAFETY: it came from a box and nobody can load it any more.
            drop(unsafe { Box::from_raw(value) });
        }
    }
}
