//! What goes back to its owner when it is done with.

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};

/// Somebody whose things can be lent.
pub(crate) trait Owner<T> {
    /// Takes one back.
    fn take_back(&self, value: T);
}

/// A thing that its owner gets back when this is dropped.
#[derive(Debug)]
pub(crate) struct Lent<'o, T, O: Owner<T>> {
    value: ManuallyDrop<T>,
    owner: &'o O,
}

impl<'o, T, O: Owner<T>> Lent<'o, T, O> {
    /// Lends `value`, which is `owner`'s.
    pub(crate) fn new(value: T, owner: &'o O) -> Self {
        Self { value: ManuallyDrop::new(value), owner }
    }
}

impl<T, O: Owner<T>> Deref for Lent<'_, T, O> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T, O: Owner<T>> DerefMut for Lent<'_, T, O> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T, O: Owner<T>> Drop for Lent<'_, T, O> {
    fn drop(&mut self) {
        // SAFETY: it is used nowhere after this.
        let value = unsafe { ManuallyDrop::take(&mut self.value) };
        self.owner.take_back(value);
    }
}
